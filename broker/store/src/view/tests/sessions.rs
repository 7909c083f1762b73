//! Sessions: made, resumed, taken over, ended; nothing acknowledged is lost by a restart.

use super::over_both;
use super::rig::*;
use crate::command::*;
use crate::effect::Effect;

over_both! {
    fn a_session_is_resumed_with_what_it_had(rig) {
        let alice = rig.connect_as("alice");
        assert!(!alice.present);
        let reply = rig.reply();
        let filters = vec![subscription("a/#"), subscription("b")];
        let subscribe =
            Command::Subscribe { session: alice.id(), epoch: alice.epoch, filters, reply };
        assert_eq!(brief(&rig.run(vec![subscribe])), ["committed 00"]);
        rig.publish(&[alice.id()], "one");
        rig.close(&alice, CloseCause::Normal);
        rig.publish(&[alice.id()], "two");

        for restart in [false, true] {
            if restart {
                rig.restart_in_place(0);
            }
            let again = rig.connect_as("alice");
            assert!(again.present);
            assert_eq!(again.id(), alice.id());
            let stored = again.session.as_ref().expect("stored");
            assert_eq!((stored.acknowledged, stored.head, stored.next), (0, 2, 1));
            let filters: Vec<_> = stored.subscriptions.iter().map(|s| &*s.filter).collect();
            assert_eq!(filters, ["a/#", "b"]);
            assert_eq!(rig.queue(alice.id(), 1), [(1, "one".into()), (2, "two".into())]);
            rig.close(&again, CloseCause::Normal);
        }
    }

    fn a_session_of_expiry_0_is_known_to_nobody_later(rig) {
        let open = Open { expiry_secs: 0, ..rig.open("bob") };
        let bob = rig.connect(open);
        assert!(!bob.present && bob.session.is_none());
        assert_eq!(brief(&rig.close(&bob, CloseCause::Abnormal)), [""; 0]);
        assert!(!rig.connect_as("bob").present);
    }

    fn a_clean_start_voids_the_old_session_at_once(rig) {
        let alice = rig.connect_as("alice");
        rig.publish(&[alice.id()], "old");
        let epoch = alice.epoch;
        let (filters, reply) = (vec![subscription("x")], rig.reply());
        rig.run(vec![Command::Subscribe { session: alice.id(), epoch, filters, reply }]);
        rig.close(&alice, CloseCause::Normal);
        let open = Open { clean_start: true, ..rig.open("alice") };
        let effects = rig.run(vec![Command::Open(Box::new(open))]);
        assert_eq!(brief(&effects), ["ended [\"x\"]", "opened"]);
        let fresh = client(&effects).expect("let in");
        assert_ne!(fresh.id(), alice.id());
        assert_eq!(rig.queue(alice.id(), 1), []);
        assert_eq!(brief(&rig.publish(&[alice.id()], "to nobody")), ["committed 00"]);
        rig.restart_in_place(0);
        assert_eq!(rig.restored.sessions.len(), 1);
        assert_eq!(rig.connect_as("alice").id(), fresh.id());
    }

    fn session_numbers_are_never_used_again(rig) {
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..5 {
            let open = Open { clean_start: true, ..rig.open("alice") };
            let alice = rig.connect(open);
            assert!(seen.insert(alice.id()), "round {round}");
            rig.restart_in_place(0);
        }
    }

    fn the_old_connection_goes_before_the_new_one_hears_anything(rig) {
        let old = rig.connect_as("alice");
        let open = rig.open("alice");
        let effects = rig.run(vec![Command::Open(Box::new(open))]);
        assert_eq!(brief(&effects), ["leave 8e"]);
        assert!(matches!(effects[0], Effect::TakenOver { location, .. } if location == old.location));
        // A third one: the second has waited in vain.
        let open = rig.open("alice");
        assert_eq!(brief(&rig.run(vec![Command::Open(Box::new(open))])), ["refused 88"]);
        let effects = rig.close(&old, CloseCause::Abnormal);
        assert_eq!(brief(&effects), ["resumed"]);
        assert_eq!(client(&effects).expect("let in").id(), old.id());
        assert_eq!(rig.view.directory.next_deadline(), None, "nobody waits any more");
    }

    fn a_clean_stop_keeps_the_session_that_someone_waits_for(rig) {
        let old = rig.connect_as("alice");
        rig.publish(&[old.id()], "kept");
        let open = rig.open("alice");
        rig.run(vec![Command::Open(Box::new(open))]);
        let effects = rig.close(&old, CloseCause::Shutdown);
        assert_eq!(brief(&effects), ["resumed"]);
        let new = client(&effects).expect("let in");
        rig.close(&new, CloseCause::Shutdown);
        rig.restart_in_place(3_600_000);
        assert_eq!(rig.queue(rig.restored.sessions[0].route.session().expect("stored"), 1).len(), 1);
        assert!(rig.connect_as("alice").present);
    }

    fn a_connection_that_does_not_go_keeps_its_session(rig) {
        let old = rig.connect_as("alice");
        let open = rig.open("alice");
        rig.run(vec![Command::Open(Box::new(open))]);
        assert_eq!(brief(&rig.pass(4_999)), [""; 0]);
        assert_eq!(brief(&rig.pass(1)), ["refused 88"]);
        let again = rig.publish(&[old.id()], "still here");
        assert_eq!(brief(&again), ["committed 00", "live [1]"]);
        assert_eq!(brief(&rig.close(&old, CloseCause::Normal)), [""; 0]);
    }

    fn a_close_of_another_connection_is_void(rig) {
        let old = rig.connect_as("alice");
        let location = rig.place();
        let wrong = Close { location, ..old.close_with(CloseCause::Normal) };
        rig.run(vec![Command::Close(Box::new(wrong))]);
        let wrong = Close { epoch: old.epoch + 1, ..old.close_with(CloseCause::Normal) };
        rig.run(vec![Command::Close(Box::new(wrong))]);
        let effects = rig.publish(&[old.id()], "x");
        assert_eq!(brief(&effects), ["committed 00", "live [1]"]);
    }

    fn what_an_old_epoch_says_changes_nothing(rig) {
        let old = rig.connect_as("alice");
        rig.close(&old, CloseCause::Normal);
        let new = rig.connect_as("alice");
        rig.publish(&[new.id()], "one");
        let (filters, reply) = (vec![subscription("x")], rig.reply());
        let effects = rig.run(vec![
            Command::Subscribe { session: old.id(), epoch: old.epoch, filters, reply },
            Command::Progress(old.progress(1, 50, 1)),
        ]);
        assert_eq!(brief(&effects), ["committed 8e"]);
        rig.close(&new, CloseCause::Normal);
        let again = rig.connect_as("alice").session.expect("stored");
        assert_eq!((again.acknowledged, again.subscriptions.len()), (0, 0));
    }

    fn sessions_expire_when_their_time_is_over(rig) {
        let alice = rig.connect_as("alice");
        let bob = rig.connect_with("bob", |open| Open { expiry_secs: u32::MAX, ..open });
        rig.close(&alice, CloseCause::Normal);
        rig.close(&bob, CloseCause::Normal);
        assert_eq!(brief(&rig.pass(99_999)), [""; 0]);
        assert_eq!(brief(&rig.pass(1)), ["ended []"]);
        assert!(!rig.connect_as("alice").present);
        rig.pass(u64::from(u32::MAX) * 2_000);
        assert!(rig.connect_as("bob").present);
    }

    fn an_expired_session_is_not_resumed_before_its_end_was_noticed(rig) {
        let alice = rig.connect_as("alice");
        rig.close(&alice, CloseCause::Normal);
        rig.now += 100_000;
        let open = rig.open("alice");
        let effects = rig.run(vec![Command::Open(Box::new(open))]);
        assert_eq!(brief(&effects), ["ended []", "opened"]);
    }

    fn after_a_restart_everyone_has_time_to_come_back(rig) {
        let alice = rig.connect_as("alice");
        let bob = rig.connect_with("bob", |open| Open { expiry_secs: 10, ..open });
        let _carol = rig.connect_with("carol", |open| Open { expiry_secs: 50, ..open });
        rig.close(&alice, CloseCause::Normal);
        rig.close(&bob, CloseCause::Normal);
        // Down for longer than bob's interval; carol's connection was never seen to end.
        rig.restart_in_place(60_000);
        assert_eq!(brief(&rig.pass(29_999)), [""; 0]);
        assert_eq!(brief(&rig.pass(1)), ["ended []"], "bob, at the end of the grace");
        assert_eq!(brief(&rig.pass(10_000)), ["ended []"], "alice, 100 s after her end");
        assert_eq!(brief(&rig.pass(10_000)), ["ended []"], "carol, 50 s after the start");
    }

    fn disconnect_may_change_the_expiry(rig) {
        let alice = rig.connect_as("alice");
        let close = Close { expiry_secs: Some(0), ..alice.close_with(CloseCause::Normal) };
        assert_eq!(brief(&rig.run(vec![Command::Close(Box::new(close))])), ["ended []"]);
        let bob = rig.connect_as("bob");
        let close = Close { expiry_secs: Some(5), ..bob.close_with(CloseCause::Normal) };
        rig.run(vec![Command::Close(Box::new(close))]);
        assert_eq!(brief(&rig.pass(5_000)), ["ended []"]);
    }

    fn an_evicted_session_is_gone(rig) {
        let alice = rig.connect_as("alice");
        let effects = rig.run(vec![Command::Evict { key: key("alice") }]);
        assert_eq!(brief(&effects), ["leave 98"]);
        assert_eq!(brief(&rig.close(&alice, CloseCause::Abnormal)), ["ended []"]);
        let bob = rig.connect_as("bob");
        rig.close(&bob, CloseCause::Normal);
        let effects = rig.run(vec![Command::Evict { key: key("bob") }]);
        assert_eq!(brief(&effects), ["ended []"]);
        let carol = rig.connect_as("carol");
        rig.run(vec![Command::Evict { key: key("carol") }]);
        assert_eq!(brief(&rig.pass(5_000)), ["ended []"], "without its connection's consent");
        assert_eq!(brief(&rig.publish(&[carol.id()], "x")), ["committed 00"]);
        rig.restart_in_place(0);
        assert_eq!(rig.restored.sessions.len(), 0);
    }

    fn an_unsubscribed_filter_stays_away(rig) {
        let alice = rig.connect_as("alice");
        let (session, epoch) = (alice.id(), alice.epoch);
        let filters = vec![subscription("x"), subscription("y")];
        let reply = rig.reply();
        let subscribe = Command::Subscribe { session, epoch, filters, reply };
        let filters = vec!["x".into(), "z".into()];
        let unsubscribe = Command::Unsubscribe { session, epoch, filters, reply };
        assert_eq!(brief(&rig.run(vec![subscribe, unsubscribe])), ["committed 00", "committed 00"]);
        rig.restart_in_place(0);
        assert_eq!(rig.restored.sessions[0].subscriptions, [subscription("y")]);
        assert_eq!(rig.restored.sessions[0].key, key("alice"));
    }

    fn the_window_is_handed_over(rig) {
        let alice = rig.connect_as("alice");
        for payload in ["1", "2", "3", "4", "5"] {
            rig.publish(&[alice.id()], payload);
        }
        let window = vec![InFlight {
            id: 7,
            source: Source::Queue(3),
            phase: Phase::Published,
            qos: hoopoe_codec::QoS::AtLeastOnce,
        }];
        let (progress, done) = (Some(alice.progress(2, 68, 4)), vec![4]);
        let close = alice.close_with(CloseCause::Abnormal);
        let close = Close { progress, done, window: window.clone(), ..close };
        rig.run(vec![Command::Close(Box::new(close))]);
        rig.restart_in_place(0);
        let again = rig.connect_as("alice");
        let stored = again.session.expect("stored");
        assert_eq!((stored.acknowledged, stored.sent, stored.weight), (2, 4, 68));
        assert_eq!((stored.next, &stored.window), (5, &window));
        // A crash now: the window is not known any more, what was in it may be sent again.
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!((stored.next, stored.sent, stored.window.len()), (3, 4, 0));
    }

    fn progress_is_written_within_a_second(rig) {
        let alice = rig.connect_as("alice");
        rig.publish(&[alice.id()], "1");
        rig.publish(&[alice.id()], "2");
        rig.run(vec![Command::Progress(alice.progress(1, 34, 2))]);
        rig.pass(1_000);
        rig.restart_in_place(0);
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!((stored.acknowledged, stored.sent, stored.head), (1, 2, 2));
        assert_eq!(rig.queue(stored.id, 1), [(2, "2".into())]);
    }

    fn an_emptied_queue_leaves_no_rows_and_keeps_its_head(rig) {
        let alice = rig.connect_as("alice");
        rig.publish(&[alice.id()], "1");
        rig.publish(&[alice.id()], "2");
        rig.run(vec![Command::Progress(alice.progress(2, 68, 2))]);
        rig.pass(5_000);
        rig.store.reclaim().expect("reclaims");
        if let Some(memory) = &rig.memory {
            assert!(memory.is_empty(crate::kv::Family::Queue));
        }
        rig.restart_in_place(0);
        let alice = rig.connect_as("alice");
        assert_eq!(brief(&rig.publish(&[alice.id()], "3")), ["committed 00", "live [3]"]);
        assert_eq!(rig.queue(alice.id(), 1), [(3, "3".into())]);
    }
}
