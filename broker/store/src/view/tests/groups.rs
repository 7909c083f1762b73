//! Shared groups: one member each, in turn, in order, nothing lost when members go.

use std::sync::Arc;

use hoopoe_codec::{QoS, SubscribeOptions};
use hoopoe_core::{PublicationParts, SessionId};

use super::over_both;
use super::rig::*;
use crate::command::*;
use crate::effect::Effect;
use crate::memory::FaultKind;
use crate::settings::ShardSettings;

pub(super) const SHARE: &str = "g";
pub(super) const FILTER: &str = "t";

/// A member that is connected.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) member: Member,
}

pub(super) fn worker(rig: &mut Rig, number: u64, window: u16) -> Worker {
    let options = SubscribeOptions::from_byte(2).expect("options");
    let location = rig.place();
    let session = None;
    let subscriber = number;
    Worker { member: Member { subscriber, session, location, options, identifier: 0, window } }
}

/// A member with a stored session, which is subscribed as far as its own shard knows.
pub(super) fn stored_worker(rig: &mut Rig, name: &str, window: u16) -> (Worker, Client) {
    let client = rig.connect_as(name);
    let (session, epoch) = (client.id(), client.epoch);
    let filters = vec![subscription(&format!("$share/{SHARE}/{FILTER}"))];
    let reply = rig.reply();
    rig.run(vec![Command::Subscribe { session, epoch, filters, reply }]);
    let mut worker = worker(rig, session.0, window);
    worker.member.session = Some(session);
    worker.member.location = client.location;
    (worker, client)
}

impl Worker {
    pub(super) fn join(&self, rig: &mut Rig) -> Vec<Effect> {
        let (member, reply) = (self.member.clone(), Some(rig.reply()));
        let join = GroupCommand::Join { share: SHARE.into(), filter: FILTER.into(), member, reply };
        rig.run(vec![tell(join)])
    }

    pub(super) fn leave(&self, rig: &mut Rig) -> Vec<Effect> {
        let (subscriber, ended, reply) = (self.member.subscriber, false, None);
        let (share, filter) = (SHARE.into(), FILTER.into());
        rig.run(vec![tell(GroupCommand::Leave { share, filter, subscriber, ended, reply })])
    }

    pub(super) fn offline(&self, rig: &mut Rig, keeps: &[u64]) -> Vec<Effect> {
        let (subscriber, location) = (self.member.subscriber, self.member.location);
        let (group, keeps) = (group(rig), keeps.to_vec());
        rig.run(vec![tell(GroupCommand::Offline { group, subscriber, location, keeps })])
    }

    pub(super) fn done(&self, rig: &mut Rig, seq: u64) -> Vec<Effect> {
        let (group, subscriber) = (group(rig), self.member.subscriber);
        rig.run(vec![tell(GroupCommand::Done { group, subscriber, seq, reply: None })])
    }

    /// What is offered to this member among effects.
    pub(super) fn offers(&self, effects: &[Effect]) -> Vec<(u64, String)> {
        let offer = |effect: &Effect| match effect {
            Effect::Offer { location, entry, .. } if *location == self.member.location => {
                let payload = String::from_utf8_lossy(entry.publication.payload()).into_owned();
                Some((entry.seq, payload))
            }
            _ => None,
        };
        effects.iter().filter_map(offer).collect()
    }
}

pub(super) fn tell(command: GroupCommand) -> Command {
    Command::Group(Box::new(command))
}

pub(super) fn group(rig: &Rig) -> SessionId {
    rig.view.groups.named(&SHARE.into(), &FILTER.into()).unwrap_or(SessionId(0))
}

pub(super) fn send(rig: &mut Rig, payload: &str) -> Vec<Effect> {
    send_at(rig, payload, QoS::ExactlyOnce, None)
}

pub(super) fn send_at(
    rig: &mut Rig,
    payload: &str,
    qos: QoS,
    expires_at_ms: Option<u64>,
) -> Vec<Effect> {
    let parts = message(FILTER, payload);
    let parts = PublicationParts { qos, expires_at_ms, ..parts.parts() };
    let groups = vec![group(rig)];
    let publish = Publish {
        publication: Arc::new(parts.to_publication()),
        groups,
        ..publication(&[], payload)
    };
    rig.run(vec![Command::Publish(Box::new(publish))])
}

pub(super) fn one(seq: u64, payload: &str) -> Vec<(u64, String)> {
    vec![(seq, payload.to_owned())]
}

over_both! {
    fn members_take_turns_as_long_as_they_have_room(rig) {
        let (a, b) = (worker(rig, 1, 2), worker(rig, 2, 2));
        let effects = a.join(rig);
        assert_eq!(brief(&effects), ["group t made", "committed 00"]);
        assert_eq!(brief(&b.join(rig)), ["committed 00"]);
        for (payload, to) in [("1", &a), ("2", &b), ("3", &a), ("4", &b)] {
            let effects = send(rig, payload);
            let seq = payload.parse().expect("a number");
            assert_eq!(to.offers(&effects), one(seq, payload));
            assert_eq!(effects.len(), 1);
        }
        assert_eq!(brief(&send(rig, "5")), [""; 0], "both are full");
        assert_eq!(b.offers(&b.done(rig, 2)), one(5, "5"));
        assert_eq!(brief(&b.done(rig, 2)), [""; 0], "done is done");
    }

    fn what_a_member_did_not_finish_goes_back_to_its_place(rig) {
        let (a, b) = (worker(rig, 1, 3), worker(rig, 2, 1));
        a.join(rig);
        for payload in ["1", "2", "3", "4"] {
            send(rig, payload);
        }
        b.join(rig);
        a.done(rig, 2);
        // 4 went to b when it joined; a had 1 and 3 left.
        let effects = a.offline(rig, &[]);
        assert_eq!(brief(&effects), [""; 0]);
        assert_eq!(b.offers(&b.done(rig, 4)), one(1, "1"));
        assert_eq!(b.offers(&b.done(rig, 1)), one(3, "3"));
        assert_eq!(brief(&b.done(rig, 3)), [""; 0]);
        assert_eq!(rig.view.groups.get(group(rig)).expect("group").load.messages, 0);
    }

    fn qos2_in_delivery_stays_with_its_member(rig) {
        let (a, client) = stored_worker(rig, "a", 3);
        a.join(rig);
        let b = worker(rig, 2, 3);
        for payload in ["1", "2", "3"] {
            send(rig, payload);
        }
        b.join(rig);
        let exchange = InFlight {
            id: 1,
            source: Source::Group(group(rig), 1),
            phase: Phase::Published,
            qos: QoS::ExactlyOnce,
        };
        let (session, epoch, reply) = (client.id(), client.epoch, Some(rig.reply()));
        let changes = [ExchangeChange::Put(exchange.clone())].into_iter().collect();
        rig.run(vec![Command::Exchange { session, epoch, changes, reply }]);
        let effects = a.offline(rig, &[1]);
        assert_eq!(b.offers(&effects), [(2, "2".into()), (3, "3".into())]);
        let window = vec![exchange.clone()];
        let close = Close { window, ..client.close_with(CloseCause::Abnormal) };
        rig.run(vec![Command::Close(Box::new(close))]);
        // The process ends: b with it, and what b had is given anew; 1 is still a's.
        rig.restart_in_place(0);
        assert_eq!(rig.restored.groups.len(), 1);
        rig.pass(0);
        let client = rig.connect_as("a");
        assert_eq!(client.session.as_ref().expect("stored").window, [exchange]);
        let read = rig.store.reader().read_entry(group(rig), 1).expect("reads");
        assert_eq!(read.expect("is there").publication.payload(), b"1");
        let again = Worker { member: Member { location: client.location, ..a.member.clone() } };
        let effects = again.join(rig);
        assert_eq!(again.offers(&effects), [(2, "2".into()), (3, "3".into())]);
        for seq in 1..=3 {
            again.done(rig, seq);
        }
        assert_eq!(rig.view.groups.get(group(rig)).expect("group").load.messages, 0);
        // Numbers go on.
        rig.restart_in_place(0);
        rig.pass(0);
        send(rig, "4");
        assert_eq!(again.offers(&again.join(rig)), one(4, "4"));
    }

    fn a_stored_group_waits_for_its_members(rig) {
        let (a, client) = stored_worker(rig, "a", 10);
        a.join(rig);
        a.offline(rig, &[]);
        rig.close(&client, CloseCause::Abnormal);
        send(rig, "1");
        send(rig, "2");
        assert_eq!(brief(&send_at(rig, "now or never", QoS::AtMostOnce, None)), [""; 0]);
        rig.restart_in_place(0);
        rig.pass(0);
        let location = rig.place();
        let back = Worker { member: Member { location, ..a.member.clone() } };
        let (member, keeps) = (back.member.clone(), Vec::new());
        let online = GroupCommand::Online { group: group(rig), member, keeps };
        let effects = rig.run(vec![tell(online)]);
        assert_eq!(back.offers(&effects), [(1, "1".into()), (2, "2".into())]);
    }

    fn a_group_becomes_stored_with_its_first_stored_member(rig) {
        let a = worker(rig, 1, 0);
        a.join(rig);
        send(rig, "1");
        rig.restart_in_place(0);
        assert_eq!(rig.restored.groups.len(), 0, "in memory only");
        let a = worker(rig, 1, 0);
        a.join(rig);
        send(rig, "1");
        let (b, _) = stored_worker(rig, "b", 0);
        b.join(rig);
        send(rig, "2");
        rig.restart_in_place(0);
        rig.pass(0);
        let location = rig.place();
        let back = Worker { member: Member { location, window: 5, ..b.member } };
        assert_eq!(back.offers(&back.join(rig)), [(1, "1".into()), (2, "2".into())]);
    }

    fn numbers_finished_in_memory_are_not_used_again(rig) {
        let a = worker(rig, 1, 1);
        a.join(rig);
        send(rig, "1");
        a.done(rig, 1);
        let (b, _) = stored_worker(rig, "b", 1);
        b.join(rig);
        rig.restart_in_place(0);
        rig.pass(0);
        send(rig, "2");
        let b = Worker { member: Member { location: rig.place(), ..b.member } };
        assert_eq!(b.offers(&b.join(rig)), one(2, "2"));
    }

    fn a_group_ends_with_its_last_member(rig) {
        let (a, b) = (worker(rig, 1, 5), worker(rig, 2, 5));
        a.join(rig);
        b.join(rig);
        send(rig, "1");
        assert_eq!(brief(&a.leave(rig)), [""; 0], "it still has 1");
        assert_eq!(brief(&send(rig, "2")).len(), 1, "b gets it");
        assert_eq!(brief(&a.done(rig, 1)), [""; 0]);
        assert_eq!(brief(&b.offline(rig, &[])), ["group t ended"]);
        assert_eq!(brief(&send(rig, "3")), [""; 0]);
        let (c, _) = stored_worker(rig, "c", 5);
        c.join(rig);
        c.offline(rig, &[]);
        assert_eq!(brief(&c.leave(rig)), ["group t ended"]);
        rig.restart_in_place(0);
        assert_eq!(rig.restored.groups.len(), 0);
    }

    fn an_ended_session_takes_its_qos2_with_it(rig) {
        let (a, b) = (worker(rig, 1, 1), worker(rig, 2, 1));
        a.join(rig);
        send(rig, "1");
        send(rig, "2");
        b.join(rig);
        let effects = a.offline(rig, &[1]);
        assert_eq!(brief(&effects), [""; 0], "nobody else gets 1 [MQTT-4.8.2-5]");
        b.done(rig, 2);
        assert_eq!(rig.view.groups.get(group(rig)).expect("group").load.messages, 0);
    }

    fn what_was_finished_before_a_crash_is_not_finished_again(rig) {
        let (a, client) = stored_worker(rig, "a", 5);
        a.join(rig);
        send_at(rig, "1", QoS::ExactlyOnce, None);
        send_at(rig, "22", QoS::ExactlyOnce, None);
        let (session, epoch) = (client.id(), client.epoch);
        for (id, seq) in [(1, 1), (2, 2)] {
            let source = Source::Group(group(rig), seq);
            let (qos, phase) = (QoS::ExactlyOnce, Phase::Released);
            let changes = [ExchangeChange::Put(InFlight { id, source, phase, qos })];
            let (changes, reply) = (changes.into_iter().collect(), Some(rig.reply()));
            rig.run(vec![Command::Exchange { session, epoch, changes, reply }]);
        }
        // The entry's row is removed; that its exchange has ended is only in memory.
        a.done(rig, 1);
        rig.restart_in_place(0);
        let counted = |rig: &Rig| (rig.view.queued.messages, rig.view.queued.bytes);
        let one = counted(rig);
        assert_eq!(one.0, 1);
        let client = rig.connect_as("a");
        let again = Worker { member: Member { location: client.location, ..a.member.clone() } };
        again.join(rig);
        again.done(rig, 1);
        assert_eq!(counted(rig), one);
        again.done(rig, 2);
        assert_eq!(counted(rig), (0, 0));
        assert_eq!(rig.view.groups.get(group(rig)).expect("group").load.messages, 0);
    }

    fn that_an_entry_is_done_is_answered_when_it_is_written(rig) {
        let (a, _) = stored_worker(rig, "a", 5);
        a.join(rig);
        send(rig, "1");
        let (group, subscriber) = (group(rig), a.member.subscriber);
        // Also the second time: after a reconnect nobody knows whether the first came through.
        for _ in 0..2 {
            let reply = Some(rig.reply());
            let done = tell(GroupCommand::Done { group, subscriber, seq: 1, reply });
            assert_eq!(brief(&rig.run(vec![done])), ["committed 00"]);
            assert!(rig.store.reader().read_entry(group, 1).expect("reads").is_none());
        }
    }

    fn a_member_without_subscription_is_none_after_a_restart(rig) {
        let (a, client) = stored_worker(rig, "a", 5);
        a.join(rig);
        // Its session ends; the process ends before the group hears of it.
        let close = Close { expiry_secs: Some(0), ..client.close_with(CloseCause::Normal) };
        rig.run(vec![Command::Close(Box::new(close))]);
        rig.restart_in_place(0);
        assert_eq!(rig.restored.groups.len(), 1);
        assert_eq!(brief(&rig.pass(0)), ["group t ended"]);
        rig.restart_in_place(0);
        assert_eq!(rig.restored.groups.len(), 0);
    }

    fn terms_are_the_members(rig) {
        let (mut a, mut b) = (worker(rig, 1, 0), worker(rig, 2, 1));
        a.member.options = SubscribeOptions::from_byte(0).expect("QoS 0");
        a.member.identifier = 9;
        b.member.options = SubscribeOptions::from_byte(1).expect("QoS 1");
        a.join(rig);
        b.join(rig);
        let effects: Vec<Effect> = ["1", "2"].iter().flat_map(|p| send(rig, p)).collect();
        let entry = |effect: &Effect| match effect {
            Effect::Offer { entry, .. } => (entry.seq, entry.qos, entry.identifiers.to_vec()),
            other => panic!("an offer, not {other:?}"),
        };
        let offered: Vec<_> = effects.iter().map(entry).collect();
        assert_eq!(
            offered,
            [(1, QoS::AtMostOnce, vec![9]), (2, QoS::AtLeastOnce, vec![])],
            "QoS 0 needs no room and no word that it is done"
        );
        assert_eq!(rig.view.groups.get(group(rig)).expect("group").load.messages, 1);
    }

    fn expired_entries_are_offered_to_nobody(rig) {
        let a = worker(rig, 1, 1);
        a.join(rig);
        send(rig, "1");
        let soon = Some(rig.now + 10);
        send_at(rig, "2", QoS::AtLeastOnce, soon);
        send(rig, "3");
        rig.now += 10;
        assert_eq!(a.offers(&a.done(rig, 1)), one(3, "3"));
    }

    fn a_body_is_shared_by_groups_and_sessions(rig) {
        let (a, client) = stored_worker(rig, "a", 1);
        a.join(rig);
        let groups = vec![group(rig)];
        let publish = Publish { groups, ..publication(&[client.id()], "x") };
        let effects = rig.run(vec![Command::Publish(Box::new(publish))]);
        assert_eq!(brief(&effects).len(), 2);
        assert_eq!(rig.queue(client.id(), 1), one(1, "x"));
        a.done(rig, 1);
        rig.pass(5_000);
        rig.store.reclaim().expect("reclaims");
        assert_eq!(rig.queue(client.id(), 1), one(1, "x"));
        rig.run(vec![Command::Progress(client.progress(1, 34, 1))]);
        rig.pass(5_000);
        rig.store.reclaim().expect("reclaims");
        if let Some(memory) = &rig.memory {
            assert!(memory.is_empty(crate::kv::Family::Body));
        }
    }
}

#[test]
fn a_full_group_drops_its_oldest_waiting_entry() {
    for stored in [false, true] {
        let settings = ShardSettings { queue_max_messages: 2, ..ShardSettings::default() };
        let mut rig = Rig::memory_with(settings);
        let a = match stored {
            false => worker(&mut rig, 1, 1),
            true => stored_worker(&mut rig, "a", 1).0,
        };
        a.join(&mut rig);
        let effects: Vec<Effect> = (1..=4).flat_map(|n| send(&mut rig, &n.to_string())).collect();
        assert_eq!(brief(&effects)[1..], ["overflowed 1", "overflowed 1"], "{stored}");
        assert_eq!(a.offers(&a.done(&mut rig, 1)), one(4, "4"), "{stored}");
    }
}

#[test]
fn a_failed_commit_takes_offers_back() {
    for stored in [false, true] {
        for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
            let mut rig = Rig::memory();
            let (bob, _) = stored_worker(&mut rig, "bob", 0);
            let a = match stored {
                false => worker(&mut rig, 1, 1),
                true => stored_worker(&mut rig, "a", 1).0,
            };
            a.join(&mut rig);
            bob.join(&mut rig);
            send(&mut rig, "1");
            send(&mut rig, "2");
            rig.memory.as_ref().expect("memory").fail_write(1, kind);
            let (group, subscriber) = (group(&rig), a.member.subscriber);
            let done = tell(GroupCommand::Done { group, subscriber, seq: 1, reply: None });
            rig.try_run(vec![done]).expect_err("fails");
            rig.view.recover(rig.now).expect("recovers");
            // 1 is done although its row came back; 2 was taken back and is offered again, although
            // nobody asks.
            assert_eq!(a.offers(&rig.pass(0)), one(2, "2"), "{stored} {kind:?}");
            a.done(&mut rig, 2);
            assert_eq!(rig.view.groups.get(group).expect("group").load.messages, 0);
            rig.pass(0);
            assert!(rig.memory.as_ref().expect("memory").is_empty(crate::kv::Family::Queue));
        }
    }
}

#[test]
fn what_was_written_after_all_is_offered() {
    let mut rig = Rig::memory();
    let (a, _) = stored_worker(&mut rig, "a", 5);
    a.join(&mut rig);
    rig.memory.as_ref().expect("memory").fail_write(1, FaultKind::UnknownWritten);
    let groups = vec![group(&rig)];
    let publish = Publish { groups, ..publication(&[], "1") };
    rig.try_run(vec![Command::Publish(Box::new(publish))]).expect_err("fails");
    rig.view.recover(rig.now).expect("recovers");
    assert_eq!(a.offers(&rig.pass(0)), one(1, "1"));
}

#[test]
fn the_number_of_an_entry_that_was_removed_after_a_fault_is_not_used_again() {
    let mut rig = Rig::memory();
    let (a, _) = stored_worker(&mut rig, "a", 5);
    a.join(&mut rig);
    send(&mut rig, "1");
    rig.memory.as_ref().expect("memory").fail_write(1, FaultKind::Refused);
    let (group, subscriber) = (group(&rig), a.member.subscriber);
    let done = tell(GroupCommand::Done { group, subscriber, seq: 1, reply: None });
    rig.try_run(vec![done]).expect_err("fails");
    rig.view.recover(rig.now).expect("recovers");
    rig.pass(0);
    rig.restart_in_place(0);
    rig.pass(0);
    send(&mut rig, "2");
    let location = rig.place();
    let again = Worker { member: Member { location, ..a.member } };
    assert_eq!(again.offers(&again.join(&mut rig)), one(2, "2"));
}

#[test]
fn the_number_of_a_group_in_memory_is_not_used_again_after_a_crash() {
    let mut rig = Rig::memory();
    rig.memory.as_ref().expect("memory").simulate_crashes();
    worker(&mut rig, 1, 1).join(&mut rig);
    let before = group(&rig);
    rig.restart_in_place(0);
    worker(&mut rig, 1, 1).join(&mut rig);
    assert_ne!(group(&rig), before);
}

#[test]
fn a_group_outlives_a_stored_member_that_could_not_be_written() {
    for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
        let mut rig = Rig::memory();
        let a = worker(&mut rig, 1, 1);
        a.join(&mut rig);
        send(&mut rig, "1");
        send(&mut rig, "2");
        let (b, _) = stored_worker(&mut rig, "b", 5);
        rig.memory.as_ref().expect("memory").fail_write(1, kind);
        let (member, reply) = (b.member.clone(), Some(rig.reply()));
        let join = GroupCommand::Join { share: SHARE.into(), filter: FILTER.into(), member, reply };
        rig.try_run(vec![tell(join)]).expect_err("fails");
        let restored = rig.view.recover(rig.now).expect("recovers");
        assert_eq!(restored.groups.len(), 1, "{kind:?}");
        let mut offered = b.offers(&rig.pass(0));
        offered.extend(a.offers(&a.done(&mut rig, 1)));
        assert_eq!(offered, one(2, "2"), "{kind:?}");
    }
}

#[test]
fn an_entry_that_cannot_be_read_waits_and_is_not_lost() {
    for nth in 1..4 {
        let mut rig = Rig::memory();
        let (a, _) = stored_worker(&mut rig, "a", 0);
        a.join(&mut rig);
        send(&mut rig, "1");
        send(&mut rig, "2");
        rig.restart_in_place(0);
        rig.pass(0);
        let location = rig.place();
        let a = Worker { member: Member { location, window: 5, ..a.member } };
        rig.memory.as_ref().expect("memory").fail_read(nth);
        let mut offered = a.offers(&a.join(&mut rig));
        rig.memory.as_ref().expect("memory").fail_read(0);
        offered.extend(a.offers(&rig.pass(1_000)));
        let payloads: Vec<&str> = offered.iter().map(|(_, payload)| payload.as_str()).collect();
        assert_eq!(payloads, ["1", "2"], "{nth}");
    }
}
