//! What groups in memory hold together: bounded, counted exactly, and not all of it for who hoards.

use std::sync::Arc;

use hoopoe_codec::{QoS, SubscribeOptions};
use hoopoe_core::{PublicationParts, SessionId};

use super::groups::{Worker, tell, worker};
use super::rig::*;
use crate::command::*;
use crate::effect::Effect;
use crate::memory::FaultKind;
use crate::settings::{Overflow, ShardSettings};

/// What the queue of each, and all groups in memory together, may hold.
const MOST: u64 = 1 << 18;
fn kib() -> String {
    "x".repeat(1024)
}

fn small_rig() -> Rig {
    Rig::memory_with(ShardSettings { queue_max_bytes: MOST, ..ShardSettings::default() })
}

fn named(rig: &Rig, share: &str) -> Option<SessionId> {
    rig.view.groups.named(&share.into(), &"t".into())
}

fn join(rig: &mut Rig, share: &str, member: &Member) -> Vec<Effect> {
    let (member, reply) = (member.clone(), Some(rig.reply()));
    let (share, filter) = (share.into(), "t".into());
    rig.run(vec![tell(GroupCommand::Join { share, filter, member, reply })])
}

/// A group with one member.
fn made(rig: &mut Rig, share: &str, number: u64, window: u16) -> (SessionId, Worker) {
    let member = worker(rig, number, window);
    join(rig, share, &member.member);
    (named(rig, share).expect("was made"), member)
}

fn to_groups(groups: Vec<SessionId>, payload: &str, qos: QoS, expires: Option<u64>) -> Publish {
    let parts = message("t", payload);
    let parts = PublicationParts { qos, expires_at_ms: expires, ..parts.parts() };
    let publication = Arc::new(parts.to_publication());
    let nobody = super::rig::publication(&[], "");
    Publish { publication, groups, ..nobody }
}

fn send(rig: &mut Rig, group: SessionId, payload: &str) -> Vec<Effect> {
    let reply = Some(rig.reply());
    let publish = to_groups(vec![group], payload, QoS::AtLeastOnce, None);
    rig.run(vec![Command::Publish(Box::new(Publish { reply, ..publish }))])
}

fn done(rig: &mut Rig, group: SessionId, subscriber: u64, seq: u64) -> Vec<Effect> {
    rig.run(vec![tell(GroupCommand::Done { group, subscriber, seq, reply: None })])
}

/// Messages that groups have dropped.
fn dropped(effects: &[Effect], of: Option<SessionId>) -> u64 {
    let dropped = |effect: &Effect| match effect {
        Effect::Overflowed { session, messages } if of.is_none_or(|of| of == *session) => *messages,
        _ => 0,
    };
    effects.iter().map(dropped).sum()
}

fn load(rig: &Rig, group: SessionId) -> (u64, u64) {
    rig.view.groups.get(group).map_or((0, 0), |group| (group.load.messages, group.load.bytes))
}

/// Bytes of all groups in memory, and those in delivery; what is kept of them is exact.
fn counted(rig: &Rig) -> (u64, u64) {
    rig.view.groups.counted()
}

/// Groups whose members take what they are given and never finish it.
fn hoard(rig: &mut Rig, groups: u64, messages: u64) -> (Vec<SessionId>, u64) {
    let (mut ids, mut lost) = (Vec::new(), 0);
    for number in 0..groups {
        let (group, _) = made(rig, &format!("hoard-{number}"), 1, 32);
        ids.push(group);
        for _ in 0..messages {
            lost += dropped(&send(rig, group, &kib()), None);
            assert!(counted(rig).0 <= MOST);
        }
    }
    (ids, lost)
}

#[test]
fn many_groups_in_memory_hold_no_more_together_than_one_queue() {
    let mut rig = small_rig();
    let (groups, lost) = hoard(&mut rig, 20, 300);
    let loads: Vec<(u64, u64)> = groups.iter().map(|group| load(&rig, *group)).collect();
    assert_eq!(loads.iter().map(|(messages, _)| messages).sum::<u64>() + lost, 20 * 300);
    let (bytes, held) = counted(&rig);
    assert_eq!(loads.iter().map(|(_, bytes)| bytes).sum::<u64>(), bytes);
    assert!(bytes > MOST - 2048 && held < bytes, "{bytes} {held}");
    assert_eq!(rig.view.queued.bytes, 0, "nothing of it is stored");
    // They go, one by one.
    for (number, group) in groups.iter().enumerate() {
        let (subscriber, ended, reply) = (1, true, None);
        let (share, filter) = (format!("hoard-{number}").as_str().into(), "t".into());
        let leave = GroupCommand::Leave { share, filter, subscriber, ended, reply };
        assert_eq!(brief(&rig.run(vec![tell(leave)])), ["group t ended"]);
        assert!(rig.view.groups.get(*group).is_none());
        counted(&rig);
    }
    assert_eq!(counted(&rig), (0, 0));
}

#[test]
fn another_group_gets_and_delivers_its_messages_beside_hoards() {
    let mut rig = small_rig();
    let (hoards, _) = hoard(&mut rig, 20, 300);
    let (group, member) = made(&mut rig, "other", 2, 4);
    for n in 0..1_000 {
        let effects = send(&mut rig, group, &kib());
        assert_eq!(dropped(&effects, Some(group)), 0, "{n}");
        assert_eq!(member.offers(&effects).len(), 1, "{n}");
        assert_eq!(dropped(&send(&mut rig, hoards[n % 20], &kib()), Some(group)), 0, "{n}");
        assert!(counted(&rig).0 <= MOST);
        done(&mut rig, group, 2, n as u64 + 1);
    }
    // What waits for its member stays as well.
    let member = Worker { member: Member { window: 0, ..member.member } };
    join(&mut rig, "other", &member.member);
    let lost: u64 = (0..3).map(|_| dropped(&send(&mut rig, group, &kib()), Some(group))).sum();
    hoards.iter().for_each(|hoard| drop(send(&mut rig, *hoard, &kib())));
    assert_eq!((lost, load(&rig, group).0), (0, 3));
}

#[test]
fn one_group_alone_holds_as_much_as_a_queue() {
    let mut rig = small_rig();
    let (group, _) = made(&mut rig, "g", 1, 0);
    let mut lost = 0;
    for _ in 0..300 {
        lost += dropped(&send(&mut rig, group, &kib()), None);
    }
    let (messages, bytes) = load(&rig, group);
    assert_eq!((messages + lost, bytes > MOST - 2048), (300, true));
}

#[test]
fn the_group_with_the_most_waiting_gives_way() {
    let mut rig = small_rig();
    let (small, _) = made(&mut rig, "small", 1, 0);
    (0..20).for_each(|_| drop(send(&mut rig, small, &kib())));
    let (great, _) = made(&mut rig, "great", 1, 0);
    (0..300).for_each(|_| drop(send(&mut rig, great, &kib())));
    assert_eq!(load(&rig, small).0, 20);
    for n in 21..60 {
        let effects = send(&mut rig, small, &kib());
        assert_eq!((dropped(&effects, Some(great)), load(&rig, small).0), (1, n));
    }
}

#[test]
fn a_member_that_finishes_nothing_leaves_messages_to_others_of_its_group() {
    let mut rig = small_rig();
    let (group, _) = made(&mut rig, "g", 1, u16::MAX);
    let other = worker(&mut rig, 2, 1);
    join(&mut rig, "g", &other.member);
    let mut waiting: Vec<u64> = Vec::new();
    for n in 0..200 {
        waiting.extend(other.offers(&send(&mut rig, group, &kib())).iter().map(|(seq, _)| *seq));
        while let Some(seq) = waiting.pop() {
            let more = other.offers(&done(&mut rig, group, 2, seq));
            waiting.extend(more.iter().map(|(seq, _)| *seq));
        }
        assert!(load(&rig, group).1 <= MOST / 16, "{n}");
    }
    // A message that is greater than that is given to who has nothing.
    let great = kib().repeat(64);
    assert_eq!(other.offers(&send(&mut rig, group, &great)).len(), 1);
}

#[test]
fn where_full_queues_refuse_a_hoard_leaves_room_for_others() {
    let overflow = Overflow::Refuse;
    let settings = ShardSettings { queue_max_bytes: MOST, overflow, ..ShardSettings::default() };
    let mut rig = Rig::memory_with(settings);
    for (share, fewest) in [("a", 100), ("b", 50), ("c", 25)] {
        let (group, _) = made(&mut rig, share, 1, 0);
        for _ in 0..300 {
            assert_eq!(dropped(&send(&mut rig, group, &kib()), None), 0);
            assert!(counted(&rig).0 <= MOST);
        }
        let messages = load(&rig, group).0;
        assert!((fewest..2 * fewest).contains(&messages), "{share} {messages}");
        assert_eq!(brief(&send(&mut rig, group, &kib())), ["committed 97"]);
    }
}

#[test]
fn a_group_that_is_not_stored_after_all_counts_again() {
    for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
        let mut rig = small_rig();
        let (group, _) = made(&mut rig, "g", 1, 3);
        (0..200).for_each(|_| drop(send(&mut rig, group, &kib())));
        let (other, _) = made(&mut rig, "other", 1, 3);
        let client = rig.connect_as("stored");
        let mut member = worker(&mut rig, client.id().0, 5).member;
        member.session = client.session.as_ref().map(|session| session.id);
        let (share, filter, reply) = ("g".into(), "t".into(), None);
        let mut batch = vec![tell(GroupCommand::Join { share, filter, member, reply })];
        for _ in 0..200 {
            let publish = to_groups(vec![other], &kib(), QoS::AtLeastOnce, None);
            batch.push(Command::Publish(Box::new(publish)));
        }
        rig.memory.as_ref().expect("memory").fail_write(1, kind);
        rig.try_run(batch).expect_err("fails");
        rig.view.recover(rig.now).expect("recovers");
        counted(&rig);
        rig.pass(0);
        let (bytes, _) = counted(&rig);
        assert!(bytes > MOST / 2 && bytes <= MOST, "{kind:?} {bytes}");
        assert!(load(&rig, other).0 > 50, "{kind:?}");
    }
}

/// The same course each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % sides
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.roll(of.len().max(1) as u64) as usize).cloned()
    }
}

const SHARES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A member of a group that is there, with the entries it has.
fn someone(rig: &Rig, dice: &mut Dice) -> Option<(SessionId, Member, Vec<u64>)> {
    let id = named(rig, dice.one_of(&SHARES)?)?;
    let members: Vec<_> = rig.view.groups.get(id)?.members().cloned().collect();
    let one = dice.one_of(&members)?;
    Some((id, one.member.clone(), one.held.iter().map(|(seq, _)| seq).collect()))
}

fn random_member(rig: &mut Rig, dice: &mut Dice, stored: &[SessionId]) -> Member {
    let qos = [0, 1, 2, 2][dice.roll(4) as usize];
    let window = dice.roll(20) as u16;
    let mut member = worker(rig, 1 + dice.roll(5), window).member;
    member.options = SubscribeOptions::from_byte(qos).expect("options");
    if dice.roll(12) == 0 {
        member.session = dice.one_of(stored);
        member.subscriber = member.session.map_or(member.subscriber, |session| session.0);
    }
    member
}

fn random_command(rig: &mut Rig, dice: &mut Dice, stored: &[SessionId]) -> Option<Command> {
    match dice.roll(20) {
        0..8 => {
            let groups = (0..=dice.roll(3)).filter_map(|_| named(rig, dice.one_of(&SHARES)?));
            let mut groups: Vec<SessionId> = groups.collect();
            groups.sort_unstable();
            groups.dedup();
            let payload = "x".repeat(dice.roll(20_000) as usize);
            let qos = dice.one_of(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])?;
            let expires = (dice.roll(4) == 0).then_some(rig.now + dice.roll(50));
            Some(Command::Publish(Box::new(to_groups(groups, &payload, qos, expires))))
        }
        8..11 => {
            let member = random_member(rig, dice, stored);
            let (share, filter) = (dice.one_of(&SHARES)?.into(), "t".into());
            Some(tell(GroupCommand::Join { share, filter, member, reply: None }))
        }
        11..16 => {
            let (group, member, held) = someone(rig, dice)?;
            let seq = dice.one_of(&held)?;
            let subscriber = member.subscriber;
            Some(tell(GroupCommand::Done { group, subscriber, seq, reply: None }))
        }
        16 => {
            let (group, member, keeps) = someone(rig, dice)?;
            let member = Member { location: rig.place(), ..member };
            Some(tell(GroupCommand::Online { group, member, keeps }))
        }
        17 | 18 => {
            let (group, Member { subscriber, location, .. }, held) = someone(rig, dice)?;
            let keeps = held.into_iter().filter(|_| dice.roll(2) == 0).collect();
            Some(tell(GroupCommand::Offline { group, subscriber, location, keeps }))
        }
        _ => {
            let (group, Member { subscriber, .. }, _) = someone(rig, dice)?;
            let group = rig.view.groups.get(group)?;
            let (share, filter) = (group.share.clone(), group.filter.clone());
            let (ended, reply) = (dice.roll(2) == 0, None);
            Some(tell(GroupCommand::Leave { share, filter, subscriber, ended, reply }))
        }
    }
}

#[test]
fn what_groups_in_memory_hold_is_counted_exactly() {
    let (mut full, mut ended, mut failed, mut most_stored) = (0, 0_u64, 0, 0);
    for seed in 1..=8 {
        let queue_max_bytes = MOST / 4;
        let settings = ShardSettings { queue_max_bytes, ..ShardSettings::default() };
        let (mut rig, mut dice) = (Rig::memory_with(settings), Dice(seed));
        let alice = rig.connect_as("alice").id();
        let stored = ["bob", "carol"].map(|name| rig.connect_as(name).id());
        for step in 0..1_500 {
            let commands =
                (0..=dice.roll(3)).filter_map(|_| random_command(&mut rig, &mut dice, &stored));
            let mut commands: Vec<Command> = commands.collect();
            if dice.roll(50) > 0 {
                let effects = rig.run(commands);
                full += dropped(&effects, None);
                ended +=
                    brief(&effects).iter().filter(|one| *one == "group t ended").count() as u64;
            } else {
                commands.push(rig.publication(&[alice], "fails"));
                let kinds = [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten];
                let kind = dice.one_of(&kinds).expect("one of three");
                rig.memory.as_ref().expect("memory").fail_write(1, kind);
                rig.try_run(commands).expect_err("fails");
                counted(&rig);
                rig.view.recover(rig.now).expect("recovers");
                counted(&rig);
                rig.pass(0);
                failed += 1;
            }
            if dice.roll(200) == 0 {
                rig.restart_in_place(0);
                assert_eq!(counted(&rig), (0, 0), "what is in memory is gone");
            }
            rig.pass(dice.roll(5));
            let (bytes, held) = counted(&rig);
            assert!(held <= bytes && bytes <= queue_max_bytes, "{seed} {step}: {held} {bytes}");
            let durable = |id: &SessionId| rig.view.groups.get(*id).is_some_and(|g| g.durable);
            most_stored =
                rig.view.groups.ids().iter().filter(|id| durable(id)).count().max(most_stored);
        }
    }
    let seen = [full, ended, failed, most_stored as u64];
    assert!(seen.iter().zip([500, 500, 100, 2]).all(|(seen, least)| *seen >= least), "{seen:?}");
}
