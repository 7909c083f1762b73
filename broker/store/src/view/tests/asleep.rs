//! Sessions that take next to no memory while they are away are the same when they are back.

use super::over_both;
use super::rig::*;
use super::wills::will;
use crate::command::*;
use crate::keys::{self, session_kind};
use crate::kv::{Batch, Family};
use crate::memory::FaultKind;
use crate::settings::ShardSettings;

/// What a publication of the rig weighs.
const WEIGHT: u64 = 36;

/// How many sessions are in memory, and how many asleep.
fn awake_and_asleep(rig: &Rig) -> (usize, usize) {
    let sessions = (rig.view.sessions.len(), rig.view.asleep.len());
    let counted = rig.view.floors.counts().sessions as usize;
    assert_eq!(sessions.0 + sessions.1, counted, "operators see all of them");
    sessions
}

/// The client goes, and its rows are synced.
fn leave(rig: &mut Rig, client: &Client, cause: CloseCause) {
    rig.close(client, cause);
    rig.pass(2_000);
}

over_both! {
    fn who_waits_for_nothing_falls_asleep_and_is_the_same_when_it_wakes(rig) {
        let alice = rig.connect_as("alice");
        rig.publish(&[alice.id()], "one");
        rig.run(vec![Command::Progress(alice.progress(1, WEIGHT, 1))]);
        assert_eq!(awake_and_asleep(rig), (1, 0));
        leave(rig, &alice, CloseCause::Normal);
        assert_eq!(awake_and_asleep(rig), (0, 1));
        for restart in [false, true] {
            if restart {
                rig.restart_in_place(0);
                assert_eq!(awake_and_asleep(rig), (0, 1));
                assert_eq!(rig.restored.sessions.len(), 0, "nothing is to be routed to it");
            }
            let again = rig.connect_as("alice");
            assert_eq!(awake_and_asleep(rig), (1, 0));
            assert!(again.present);
            let stored = again.session.as_ref().expect("stored");
            let place = (stored.acknowledged, stored.weight, stored.head, stored.next);
            assert_eq!((stored.id, place), (alice.id(), (1, WEIGHT, 1, 2)));
            leave(rig, &again, CloseCause::Normal);
        }
    }

    fn a_publication_under_way_wakes_whom_it_is_for(rig) {
        let alice = rig.connect_as("alice");
        leave(rig, &alice, CloseCause::Normal);
        rig.publish(&[alice.id()], "late");
        assert_eq!(awake_and_asleep(rig), (1, 0));
        assert_eq!(rig.queue(alice.id(), 1), [(1, "late".into())]);
        rig.store.reclaim().expect("reclaims");
        rig.restart_in_place(0);
        assert_eq!(awake_and_asleep(rig), (1, 0), "something waits for it");
        let again = rig.connect_as("alice");
        assert_eq!(again.session.as_ref().map(|stored| stored.head), Some(1));
        assert_eq!(rig.queue(alice.id(), 1), [(1, "late".into())]);
    }

    fn sleep_ends_with_the_session(rig) {
        let close = |rig: &mut Rig| {
            let alice = rig.connect_as("alice");
            leave(rig, &alice, CloseCause::Normal);
            assert_eq!(awake_and_asleep(rig), (0, 1));
            alice
        };
        // Its time is up: 100 s, also over a start.
        let alice = close(rig);
        rig.pass(58_000);
        rig.restart_in_place(0);
        assert_eq!(brief(&rig.pass(39_999)), [""; 0]);
        assert_eq!(brief(&rig.pass(1)), ["ended []"]);
        assert_eq!(awake_and_asleep(rig), (0, 0));
        assert_ne!(rig.connect_as("alice").id(), alice.id());
        rig.restart_in_place(0);
        // The client begins anew.
        let alice = close(rig);
        let fresh = rig.connect_with("alice", |open| Open { clean_start: true, ..open });
        assert!(!fresh.present && fresh.id() != alice.id());
        leave(rig, &fresh, CloseCause::Normal);
        // An operator ends it.
        assert_eq!(awake_and_asleep(rig), (0, 1));
        let evict = Command::Evict { key: key("alice") };
        assert_eq!(brief(&rig.run(vec![evict])), ["ended []"]);
        assert_eq!(awake_and_asleep(rig), (0, 0));
        assert!(!rig.connect_as("alice").present);
    }
}

#[test]
fn who_has_something_to_come_stays_awake() {
    let is_unrouted = |filter: &str| filter.starts_with("im/");
    let settings = ShardSettings { is_unrouted, ..ShardSettings::default() };
    let mut rig = Rig::memory_with(settings);
    // Nothing is routed by the one filter, and by the other messages are.
    for (filter, asleep) in [("im/me/#", 1), ("image", 0), ("$share/g/im/me", 0)] {
        let client = rig.connect_as(filter);
        let (filters, reply) = (vec![subscription(filter)], rig.reply());
        let (session, epoch) = (client.id(), client.epoch);
        rig.run(vec![Command::Subscribe { session, epoch, filters, reply }]);
        leave(&mut rig, &client, CloseCause::Normal);
        assert_eq!(awake_and_asleep(&rig).1, asleep, "{filter}");
        let again = rig.connect_with(filter, |open| Open { key: client.key.clone(), ..open });
        let stored = again.session.as_ref().expect("stored");
        assert_eq!(&*stored.subscriptions[0].filter, filter);
    }
    // A message, and a will.
    let bob = rig.connect_as("bob");
    rig.publish(&[bob.id()], "one");
    leave(&mut rig, &bob, CloseCause::Normal);
    let carol = rig.connect_with("carol", |open| Open { will: will(10), ..open });
    leave(&mut rig, &carol, CloseCause::Abnormal);
    assert_eq!(awake_and_asleep(&rig).1, 0);
    assert_eq!(rig.pass(8_000).len(), 1);
    // A link of this broker, which is known from its first day on.
    let link = rig.connect_as("$bridge/one");
    leave(&mut rig, &link, CloseCause::Normal);
    assert_eq!(awake_and_asleep(&rig).1, 0);
}

#[test]
fn who_cannot_be_read_is_refused_and_sleeps_on() {
    let mut rig = Rig::memory();
    let alice = rig.connect_as("alice");
    leave(&mut rig, &alice, CloseCause::Normal);
    let at = keys::session(alice.id(), session_kind::PROGRESS);
    let row = rig.store.kv().get(Family::Session, &at).expect("is read").expect("a row");
    let put = |rig: &Rig, row: &[u8]| {
        let mut batch = Batch::default();
        batch.put(Family::Session, &at, row);
        rig.store.kv().write(&batch, true).expect("is written");
    };
    put(&rig, b"?");
    let open = rig.open("alice");
    assert_eq!(brief(&rig.run(vec![Command::Open(Box::new(open))])), ["refused 88"]);
    assert_eq!(awake_and_asleep(&rig), (0, 1));
    put(&rig, &row);
    let again = rig.connect_as("alice");
    assert!(again.present && again.id() == alice.id());
}

#[test]
fn who_was_woken_by_a_batch_that_failed_is_the_same_after_it() {
    for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
        let mut rig = Rig::memory();
        let alice = rig.connect_as("alice");
        leave(&mut rig, &alice, CloseCause::Normal);
        rig.memory.as_ref().expect("memory").fail_write(1, kind);
        let open = rig.open("alice");
        rig.try_run(vec![Command::Open(Box::new(open))]).expect_err("fails");
        rig.view.recover(rig.now).expect("recovers");
        rig.pass(0);
        let again = rig.connect_as("alice");
        assert!(again.present && again.id() == alice.id(), "{kind:?}");
        leave(&mut rig, &again, CloseCause::Normal);
        assert_eq!(awake_and_asleep(&rig), (0, 1), "{kind:?}");
    }
}
