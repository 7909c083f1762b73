//! QoS 2: submitted once per life of an identifier, delivered once across restarts.

use hoopoe_codec::QoS;
use hoopoe_core::{PacketIdent, SessionId};

use super::over_both;
use super::rig::*;
use crate::command::*;

fn marked(publisher: &Client, id: u16, to: SessionId) -> Publish {
    let marker = Some(PacketIdent { session: publisher.id(), id });
    Publish { marker, ..publication(&[to], "x") }
}

fn in_flight(id: u16, seq: u64, phase: Phase) -> InFlight {
    InFlight { id, source: Source::Queue(seq), phase, qos: QoS::ExactlyOnce }
}

fn exchange(rig: &mut Rig, client: &Client, changes: Vec<ExchangeChange>, told: bool) -> Command {
    let reply = told.then(|| rig.reply());
    let (session, epoch) = (client.id(), client.epoch);
    Command::Exchange { session, epoch, changes: changes.into(), reply }
}

over_both! {
    fn a_marked_publication_is_submitted_once(rig) {
        let (alice, bob) = (rig.connect_as("alice"), rig.connect_as("bob"));
        let publish = |rig: &mut Rig| {
            let reply = Some(rig.reply());
            Command::Publish(Box::new(Publish { reply, ..marked(&alice, 5, bob.id()) }))
        };
        let twice = vec![publish(rig), publish(rig)];
        assert_eq!(brief(&rig.run(twice)), ["committed 00", "live [1]", "committed 00"]);
        rig.restart_in_place(0);
        let again = rig.connect_as("alice");
        assert_eq!(again.session.expect("stored").markers, [5]);
        let once_more = publish(rig);
        assert_eq!(brief(&rig.run(vec![once_more])), ["committed 00"]);
        assert_eq!(rig.queue(bob.id(), 1).len(), 1);

        let (marker, reply) = (PacketIdent { session: alice.id(), id: 5 }, rig.reply());
        let effects = rig.run(vec![Command::Release { marker, reply }]);
        assert_eq!(brief(&effects), ["committed 00"]);
        rig.restart_in_place(0);
        let next_life = publish(rig);
        rig.run(vec![next_life]);
        assert_eq!(rig.queue(bob.id(), 1).len(), 2);
    }

    fn markers_end_with_their_session(rig) {
        let (alice, bob) = (rig.connect_as("alice"), rig.connect_as("bob"));
        rig.run(vec![Command::Publish(Box::new(marked(&alice, 5, bob.id())))]);
        let close = Close { expiry_secs: Some(0), ..alice.close_with(CloseCause::Normal) };
        rig.run(vec![Command::Close(Box::new(close))]);
        assert_eq!(rig.view.markers.len(), 0);
        rig.restart_in_place(0);
        assert_eq!(rig.view.markers.len(), 0);
        // One whose publisher this shard never knew, and who is gone: swept.
        let nobody = PacketIdent { session: SessionId(4711), id: 1 };
        let publish = Publish { marker: Some(nobody), ..publication(&[bob.id()], "x") };
        rig.run(vec![Command::Publish(Box::new(publish))]);
        rig.pass(60_000);
        assert_eq!(rig.view.markers.len(), 0);
    }

    fn exchanges_survive_a_crash_in_their_phase(rig) {
        let alice = rig.connect_as("alice");
        for _ in 0..4 {
            rig.publish(&[alice.id()], "x");
        }
        let put = |id, seq, phase| ExchangeChange::Put(in_flight(id, seq, phase));
        let first = vec![
            put(9, 1, Phase::Published),
            put(3, 2, Phase::Published),
            put(4, 4, Phase::Published),
        ];
        let command = exchange(rig, &alice, first, true);
        assert_eq!(brief(&rig.run(vec![command])), ["committed 00"]);
        let command = exchange(rig, &alice, vec![put(9, 1, Phase::Released)], true);
        rig.run(vec![command]);
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        let expected = [
            in_flight(9, 1, Phase::Released),
            in_flight(3, 2, Phase::Published),
            in_flight(4, 4, Phase::Published),
        ];
        assert_eq!(stored.window, expected, "in the order of sending");
        assert_eq!(stored.next, 3);
    }

    fn what_was_complete_before_its_turn_is_not_delivered_again(rig) {
        let alice = rig.connect_as("alice");
        for _ in 0..4 {
            rig.publish(&[alice.id()], "x");
        }
        let put = |id, seq| ExchangeChange::Put(in_flight(id, seq, Phase::Published));
        let command = exchange(rig, &alice, vec![put(1, 1), put(2, 2), put(3, 3)], true);
        rig.run(vec![command]);
        let changes = vec![ExchangeChange::Remove(2), ExchangeChange::Remove(3)];
        let command = exchange(rig, &alice, changes, false);
        assert_eq!(brief(&rig.run(vec![command])), [""; 0]);
        // The identifier is used again before the lazy rows were written.
        let command = exchange(rig, &alice, vec![put(2, 4)], true);
        rig.run(vec![command]);
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        let ids: Vec<u16> = stored.window.iter().map(|entry| entry.id).collect();
        assert_eq!((ids, stored.done.as_slice(), stored.next), (vec![1, 2], &[2, 3][..], 5));
        // Acknowledged in turn: the marks go.
        let alice = Client { session: Some(stored), ..rig_client(rig) };
        rig.run(vec![Command::Progress(alice.progress(3, 3 * 34, 4))]);
        rig.pass(1_000);
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!((stored.acknowledged, stored.done.len()), (3, 0));
    }

    fn completions_are_written_within_a_second(rig) {
        let alice = rig.connect_as("alice");
        rig.publish(&[alice.id()], "x");
        let put = ExchangeChange::Put(in_flight(1, 1, Phase::Published));
        let command = exchange(rig, &alice, vec![put], true);
        rig.run(vec![command]);
        let command = exchange(rig, &alice, vec![ExchangeChange::Remove(1)], false);
        rig.run(vec![command]);
        rig.pass(1_000);
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!((stored.window.len(), stored.done), (0, vec![1]));
    }

    fn the_window_left_replaces_the_exchanges(rig) {
        let alice = rig.connect_as("alice");
        for _ in 0..3 {
            rig.publish(&[alice.id()], "x");
        }
        let put = |id, seq| ExchangeChange::Put(in_flight(id, seq, Phase::Published));
        let command = exchange(rig, &alice, vec![put(1, 1), put(2, 2)], true);
        rig.run(vec![command]);
        // 2 was completed and 3 sent at QoS 1, which the shard only hears at the end.
        let at_qos1 = InFlight { qos: QoS::AtLeastOnce, ..in_flight(3, 3, Phase::Published) };
        let window = vec![in_flight(1, 1, Phase::Released), at_qos1];
        let progress = Some(alice.progress(0, 0, 3));
        let close =
            Close { window: window.clone(), progress, ..alice.close_with(CloseCause::Abnormal) };
        rig.run(vec![Command::Close(Box::new(close))]);
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!((stored.window, stored.next), (window, 4));
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!(stored.window, [in_flight(1, 1, Phase::Released)]);
        assert_eq!((stored.done, stored.next), (vec![2], 3));
    }

    fn what_was_complete_before_its_turn_survives_a_crash(rig) {
        let alice = rig.connect_as("alice");
        for _ in 0..5 {
            rig.publish(&[alice.id()], "x");
        }
        let (session, epoch) = (alice.id(), alice.epoch);
        rig.run(vec![Command::Complete { session, epoch, entries: vec![2, 4] }]);
        rig.pass(1_000);
        rig.restart_in_place(0);
        let alice = rig.connect_as("alice");
        let stored = alice.session.clone().expect("stored");
        assert_eq!((stored.next, stored.done), (1, vec![2, 4]));
        // The next connection sends 1 and is answered 3, then ends.
        let at_qos1 = InFlight { qos: QoS::AtLeastOnce, ..in_flight(9, 1, Phase::Published) };
        let (progress, done) = (Some(alice.progress(0, 0, 5)), vec![3]);
        let window = vec![at_qos1];
        let close = Close { window, progress, done, ..alice.close_with(CloseCause::Abnormal) };
        rig.run(vec![Command::Close(Box::new(close))]);
        let stored = rig.connect_as("alice").session.expect("stored");
        // 5 was sent before the crash, and not again since.
        assert_eq!((stored.next, stored.window.len()), (5, 1));
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!((stored.next, stored.done), (1, vec![2, 3, 4]));
    }

    fn only_the_connection_that_saw_it_knows_a_marker_to_be_everywhere(rig) {
        let (alice, bob) = (rig.connect_as("alice"), rig.connect_as("bob"));
        rig.run(vec![Command::Publish(Box::new(marked(&alice, 5, bob.id())))]);
        let close = Close { answered: vec![5], ..alice.close_with(CloseCause::Abnormal) };
        rig.run(vec![Command::Close(Box::new(close))]);
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!((stored.markers, stored.answered), (vec![5], vec![5]));
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!((stored.markers, stored.answered), (vec![5], vec![]));
    }
}

/// The connection of "alice" as the shard knows it.
fn rig_client(rig: &Rig) -> Client {
    let live = rig.view.directory.live(&key("alice")).expect("connected");
    let (location, epoch) = (live.location, live.epoch);
    Client { key: key("alice"), location, epoch, present: true, session: None }
}
