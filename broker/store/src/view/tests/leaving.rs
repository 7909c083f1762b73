//! Who joins and leaves a shared group while writes fail, and what becomes of what a member has.

use hoopoe_codec::QoS;
use hoopoe_core::SessionId;

use super::groups::*;
use super::rig::*;
use crate::command::*;
use crate::effect::Effect;
use crate::memory::FaultKind;

/// What a shard sends to groups when a session ends.
fn ended(worker: &Worker, rig: &mut Rig, kept: &[(SessionId, u64)]) -> Vec<Effect> {
    let (subscriber, ended, reply) = (worker.member.subscriber, true, None);
    let (share, filter) = (SHARE.into(), FILTER.into());
    let done = |(group, seq): &(SessionId, u64)| {
        tell(GroupCommand::Done { group: *group, subscriber, seq: *seq, reply: None })
    };
    let mut commands: Vec<Command> = kept.iter().map(done).collect();
    commands.push(tell(GroupCommand::Leave { share, filter, subscriber, ended, reply }));
    rig.run(commands)
}

fn in_delivery(rig: &Rig, seq: u64) -> InFlight {
    let source = Source::Group(group(rig), seq);
    InFlight { id: 1, source, phase: Phase::Published, qos: QoS::ExactlyOnce }
}

/// The connection of a member ends while `seq` is in delivery to its session.
fn cut_in_delivery(rig: &mut Rig, worker: &Worker, client: &Client, seq: u64) -> Vec<Effect> {
    let window = vec![in_delivery(rig, seq)];
    let effects = worker.offline(rig, &[seq]);
    let close = Close { window, ..client.close_with(CloseCause::Abnormal) };
    rig.run(vec![Command::Close(Box::new(close))]);
    effects
}

fn unsubscribe(rig: &mut Rig, client: &Client) {
    let (session, epoch, reply) = (client.id(), client.epoch, rig.reply());
    let filters = vec![format!("$share/{SHARE}/{FILTER}").into()];
    rig.run(vec![Command::Unsubscribe { session, epoch, filters, reply }]);
}

fn waiting(rig: &Rig) -> u64 {
    rig.view.groups.get(group(rig)).map_or(0, |group| group.load.messages)
}

#[test]
fn a_member_that_has_left_and_gone_gives_back_what_it_had() {
    let mut rig = Rig::memory();
    let (a, _) = stored_worker(&mut rig, "a", 5);
    let (b, _) = stored_worker(&mut rig, "b", 5);
    a.join(&mut rig);
    send(&mut rig, "1");
    b.join(&mut rig);
    assert_eq!(brief(&a.leave(&mut rig)), [""; 0], "it still has 1 [MQTT-3.10.4-3]");
    assert_eq!(b.offers(&a.offline(&mut rig, &[])), one(1, "1"));
}

#[test]
fn what_is_in_delivery_to_who_has_left_stays_with_its_session() {
    // The group hears of it in order; only after a crash; or never.
    for heard in ["before", "after", "never"] {
        let mut rig = Rig::memory();
        let (a, client) = stored_worker(&mut rig, "a", 1);
        let (b, _) = stored_worker(&mut rig, "b", 5);
        a.join(&mut rig);
        send(&mut rig, "1");
        b.join(&mut rig);
        unsubscribe(&mut rig, &client);
        if heard == "before" {
            a.leave(&mut rig);
        }
        assert_eq!(b.offers(&cut_in_delivery(&mut rig, &a, &client, 1)), [], "{heard}");
        if heard == "after" {
            assert_eq!(b.offers(&a.leave(&mut rig)), [], "{heard}");
        }
        for _ in 0..2 {
            rig.restart_in_place(0);
            rig.pass(0);
            let location = rig.place();
            let b = Worker { member: Member { location, ..b.member.clone() } };
            assert_eq!(b.offers(&b.join(&mut rig)), [], "{heard}");
            send(&mut rig, "2");
            let read = rig.store.reader().read_entry(group(&rig), 1).expect("reads");
            assert_eq!(read.expect("is there").publication.payload(), b"1", "{heard}");
            b.done(&mut rig, 2);
            b.done(&mut rig, 3);
            assert_eq!(waiting(&rig), 1, "{heard}");
        }
        a.done(&mut rig, 1);
        assert_eq!(waiting(&rig), 0, "{heard}");
        let members = rig.view.groups.get(group(&rig)).expect("group").members().count();
        assert_eq!(members, 1, "{heard}: with what it had it is gone");
    }
}

#[test]
fn what_was_in_delivery_to_a_session_ends_with_it_and_what_was_not_goes_to_others() {
    let mut rig = Rig::memory();
    let (a, client) = stored_worker(&mut rig, "a", 2);
    let (b, _) = stored_worker(&mut rig, "b", 5);
    a.join(&mut rig);
    send(&mut rig, "1");
    send(&mut rig, "2");
    b.join(&mut rig);
    // The connection ended before it knew of its group: it has not said that it is gone.
    let window = vec![in_delivery(&rig, 1)];
    let close = Close { window, ..client.close_with(CloseCause::Normal) };
    let close = Close { expiry_secs: Some(0), ..close };
    let effects = rig.run(vec![Command::Close(Box::new(close))]);
    let kept = effects.iter().find_map(|effect| match effect {
        Effect::SessionEnded { kept, .. } => Some(kept.clone()),
        _ => None,
    });
    let kept = kept.expect("ends");
    assert_eq!(kept, [(group(&rig), 1)]);
    assert_eq!(b.offers(&ended(&a, &mut rig, &kept)), one(2, "2"));
    b.done(&mut rig, 2);
    assert_eq!(waiting(&rig), 0);
}

#[test]
fn a_group_of_which_all_have_left_ends_with_what_they_have() {
    let mut rig = Rig::memory();
    let (a, client) = stored_worker(&mut rig, "a", 1);
    a.join(&mut rig);
    send(&mut rig, "1");
    send(&mut rig, "2");
    unsubscribe(&mut rig, &client);
    assert_eq!(brief(&a.leave(&mut rig)), [""; 0], "it still has 1 [MQTT-3.10.4-3]");
    cut_in_delivery(&mut rig, &a, &client, 1);
    assert_eq!(brief(&send(&mut rig, "3")), [""; 0]);
    assert_eq!(waiting(&rig), 2, "3 is nobody's");
    rig.restart_in_place(0);
    assert_eq!(brief(&rig.pass(0)), [""; 0]);
    assert_eq!(brief(&a.done(&mut rig, 1)), ["group t ended"]);
    rig.restart_in_place(0);
    assert_eq!(rig.restored.groups.len(), 0);
    assert_eq!(rig.view.queued.messages, 0);
}

#[test]
fn a_member_whose_leave_was_not_written_is_what_its_session_is() {
    for subscribed in [true, false] {
        let mut rig = Rig::memory();
        let (a, client) = stored_worker(&mut rig, "a", 5);
        a.join(&mut rig);
        a.offline(&mut rig, &[]);
        if !subscribed {
            unsubscribe(&mut rig, &client);
        }
        rig.memory.as_ref().expect("memory").fail_write(1, FaultKind::Refused);
        let (share, filter, subscriber) = (SHARE.into(), FILTER.into(), a.member.subscriber);
        let (ended, reply) = (false, Some(rig.reply()));
        let leave = GroupCommand::Leave { share, filter, subscriber, ended, reply };
        rig.try_run(vec![tell(leave)]).expect_err("fails");
        let restored = rig.view.recover(rig.now).expect("recovers");
        assert_eq!(restored.groups.len(), 1, "its row is there");
        let effects = rig.pass(0);
        if subscribed {
            assert_eq!(brief(&effects), [""; 0]);
            send(&mut rig, "1");
            assert_eq!(a.offers(&a.join(&mut rig)), one(1, "1"));
        } else {
            assert_eq!(brief(&effects), ["group t ended"]);
        }
    }
}

#[test]
fn a_member_that_left_and_came_back_with_something_in_hand_is_one_after_a_crash() {
    let mut rig = Rig::memory();
    let (a, _) = stored_worker(&mut rig, "a", 5);
    let (b, _) = stored_worker(&mut rig, "b", 5);
    a.join(&mut rig);
    send(&mut rig, "1");
    b.join(&mut rig);
    a.leave(&mut rig);
    a.join(&mut rig);
    rig.restart_in_place(0);
    let id = group(&rig);
    let members = rig.view.groups.get(id).expect("it is stored").members();
    let members: Vec<u64> = members.map(|member| member.member.subscriber).collect();
    assert!(members.contains(&a.member.subscriber) && members.len() == 2, "{members:?}");
}

#[test]
fn a_connection_that_ended_before_it_knew_of_its_group_keeps_nothing() {
    let mut rig = Rig::memory();
    let (a, _) = stored_worker(&mut rig, "a", 5);
    a.join(&mut rig);
    let effects = send_at(&mut rig, "1", QoS::ExactlyOnce, None);
    assert_eq!(a.offers(&effects), one(1, "1"), "which nobody reads there");
    // It was gone before its SUBACK. The session is there again, and has nothing in delivery.
    let location = rig.place();
    let again = Worker { member: Member { location, ..a.member.clone() } };
    let (group, member, keeps) = (group(&rig), again.member.clone(), Vec::new());
    let online = GroupCommand::Online { group, member, keeps };
    assert_eq!(again.offers(&rig.run(vec![tell(online)])), one(1, "1"));
    // Or it subscribes again.
    let location = rig.place();
    let again = Worker { member: Member { location, ..a.member.clone() } };
    assert_eq!(again.offers(&again.join(&mut rig)), one(1, "1"));
    // What is in delivery stays.
    let location = rig.place();
    let again = Worker { member: Member { location, ..a.member } };
    let online = GroupCommand::Online { group, member: again.member.clone(), keeps: vec![1] };
    assert_eq!(again.offers(&rig.run(vec![tell(online)])), []);
}

#[test]
fn a_member_whose_join_was_not_written_is_written_when_it_comes_again() {
    for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
        let mut rig = Rig::memory();
        let (a, _) = stored_worker(&mut rig, "a", 0);
        let (b, _) = stored_worker(&mut rig, "b", 5);
        a.join(&mut rig);
        rig.memory.as_ref().expect("memory").fail_write(1, kind);
        let (member, reply) = (b.member.clone(), Some(rig.reply()));
        let join = GroupCommand::Join { share: SHARE.into(), filter: FILTER.into(), member, reply };
        rig.try_run(vec![tell(join)]).expect_err("fails");
        rig.view.recover(rig.now).expect("recovers");
        rig.pass(0);
        b.join(&mut rig);
        rig.restart_in_place(0);
        let members = rig.view.groups.get(group(&rig)).expect("group").members().count();
        assert_eq!(members, 2, "{kind:?}");
    }
}
