//! A disk that fails: nothing is told that did not happen, nothing told is lost (ruling 12).

use std::sync::Arc;

use super::groups;
use super::rig::*;
use crate::command::*;
use crate::effect::Effect;
use crate::error::WriteError;
use crate::log::PendingBatch;
use crate::memory::FaultKind;
use crate::view::Restored;

#[test]
fn a_failed_batch_tells_nothing_and_leaves_nothing_in_memory() {
    for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
        let mut rig = Rig::memory();
        let alice = rig.connect_as("alice");
        rig.publish(&[alice.id()], "1");
        rig.memory.as_ref().expect("memory").fail_write(1, kind);
        let command = rig.publication(&[alice.id()], "2");
        let open = rig.open("bob");
        let error = rig.try_run(vec![command, Command::Open(Box::new(open))]).expect_err("fails");
        let unknown = matches!(error.fault, WriteError::Unknown(_));
        assert_eq!(unknown, kind != FaultKind::Refused);
        match unknown {
            false => assert_eq!(brief(&error.effects), ["committed 88", "refused 88"]),
            true => assert_eq!(brief(&error.effects), ["refused 88"]),
        }
        assert_eq!(error.lost.len(), usize::from(unknown));

        // Until it has recovered, the shard refuses; nothing of that is written.
        let open = rig.open("carol");
        let effects = rig.try_run(vec![Command::Open(Box::new(open))]).expect("no rows");
        assert_eq!(brief(&effects), ["refused 88"]);

        rig.view.recover(rig.now).expect("recovers");
        rig.pass(0);
        // Alice is still connected; her queue goes on where the disk stands.
        let written = kind == FaultKind::UnknownWritten;
        let effects = rig.publish(&[alice.id()], "3");
        let live = if written { "live [3]" } else { "live [2]" };
        assert_eq!(brief(&effects), ["committed 00", live], "{kind:?}");
        let payloads: Vec<String> = rig.queue(alice.id(), 1).into_iter().map(|(_, p)| p).collect();
        assert_eq!(payloads.contains(&"2".to_owned()), written);
        // Bob was refused: his seat is free, and his session there only if it was written.
        assert_eq!(rig.connect_as("bob").present, written);
    }
}

#[test]
fn a_session_given_back_in_a_failed_batch_is_given_back_again() {
    for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
        let mut rig = Rig::memory();
        let will = Some(StoredWill {
            publication: message("w", "will"),
            expiry_secs: None,
            delay_secs: 0,
        });
        let alice = rig.connect_with("alice", |open| Open { will, ..open });
        rig.publish(&[alice.id()], "1");
        rig.memory.as_ref().expect("memory").fail_write(1, kind);
        let progress = Some(alice.progress(1, 34, 1));
        let close = Close { progress, ..alice.close_with(CloseCause::Abnormal) };
        rig.try_run(vec![Command::Close(Box::new(close))]).expect_err("fails");
        let restored = rig.view.recover(rig.now).expect("recovers");
        let mut effects = restored.outbox;
        effects.extend(rig.pass(0));
        assert_eq!(brief(&effects), ["publish will"], "{kind:?}");
        let stored = rig.connect_as("alice").session.expect("stored");
        assert_eq!((stored.acknowledged, stored.head), (1, 1));
    }
}

/// Recovers, after an attempt that fails at its `nth` read. False when there is no such read.
fn recover_twice(rig: &mut Rig, nth: u64) -> (Restored, bool) {
    let memory = rig.memory.clone().expect("memory");
    memory.fail_read(nth);
    let first = rig.view.recover(rig.now);
    memory.fail_read(0);
    match first {
        Ok(restored) => (restored, false),
        Err(_) => {
            assert!(rig.view.is_stale());
            (rig.view.recover(rig.now).expect("recovers"), true)
        }
    }
}

#[test]
fn what_no_row_says_outlives_a_recovery_that_fails_halfway() {
    for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
        for nth in 1.. {
            // A session that is connected, a group in memory, and a will that is on its way.
            let mut rig = Rig::memory();
            let alice = rig.connect_as("alice");
            let member = groups::worker(&mut rig, 1, 1);
            member.join(&mut rig);
            groups::send(&mut rig, "1");
            groups::send(&mut rig, "2");
            let publication = message("w", "will");
            let will = Some(StoredWill { publication, expiry_secs: None, delay_secs: 0 });
            let carol = rig.connect_with("carol", |open| Open { will, ..open });
            assert_eq!(brief(&rig.close(&carol, CloseCause::Abnormal)), ["publish will"]);
            let route = rig.view.sessions[&alice.id()].route.clone();

            rig.memory.as_ref().expect("memory").fail_write(1, kind);
            let command = rig.publication(&[alice.id()], "lost");
            rig.try_run(vec![command]).expect_err("fails");
            let (restored, again) = recover_twice(&mut rig, nth);
            assert_eq!(brief(&restored.outbox), [""; 0], "told already: {kind:?} {nth}");
            rig.pass(0);
            assert!(Arc::ptr_eq(&route, &rig.view.sessions[&alice.id()].route), "{kind:?} {nth}");
            let live = if kind == FaultKind::UnknownWritten { "live [2]" } else { "live [1]" };
            assert_eq!(brief(&rig.publish(&[alice.id()], "x")), ["committed 00", live]);
            let next = member.offers(&member.done(&mut rig, 1));
            assert_eq!(next, [(2, "2".to_owned())], "{kind:?} {nth}");
            if !again {
                assert!(nth > 5, "only {nth} reads");
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_and_serves_again_when_there_is_room() {
    let mut rig = Rig::memory();
    let alice = rig.connect_as("alice");
    let memory = rig.memory.clone().expect("memory");
    memory.set_full(true);
    let command = rig.publication(&[alice.id()], "1");
    rig.try_run(vec![command]).expect_err("full");
    rig.view.recover(rig.now).expect("recovers");
    for _ in 0..3 {
        rig.pass(1_000);
        let effects = rig.publish(&[alice.id()], "no");
        assert_eq!(brief(&effects), ["committed 88"]);
    }
    // Her connection ends meanwhile, and someone waits for it.
    let effects = rig.close(&alice, CloseCause::Normal);
    assert_eq!(brief(&effects), [""; 0]);
    let open = rig.open("alice");
    let effects = rig.run(vec![Command::Open(Box::new(open))]);
    assert_eq!(brief(&effects), ["refused 88"]);
    memory.set_full(false);
    rig.pass(1_000);
    let again = rig.connect_as("alice");
    assert!(again.present);
    assert_eq!(brief(&rig.publish(&[again.id()], "1")), ["committed 00", "live [1]"]);
}

#[test]
fn a_newcomer_who_waits_is_let_in_after_the_fault() {
    let mut rig = Rig::memory();
    let alice = rig.connect_as("alice");
    let open = rig.open("alice");
    rig.run(vec![Command::Open(Box::new(open))]);
    let memory = rig.memory.clone().expect("memory");
    memory.set_full(true);
    let command = rig.publication(&[alice.id()], "1");
    rig.try_run(vec![command]).expect_err("full");
    rig.view.recover(rig.now).expect("recovers");
    rig.close(&alice, CloseCause::Abnormal);
    memory.set_full(false);
    assert_eq!(brief(&rig.pass(1_000)), ["resumed"]);
}

#[test]
fn batches_without_rows_do_not_touch_the_disk_and_lazy_rows_are_not_synced() {
    let mut rig = Rig::memory();
    let memory = rig.memory.clone().expect("memory");
    let alice = rig.connect_as("alice");
    let open = Open { expiry_secs: 0, ..rig.open("bob") };
    rig.publish(&[alice.id()], "1");
    let (writes, syncs) = (memory.writes(), memory.syncs());
    let bob = rig.connect(open);
    rig.close(&bob, CloseCause::Normal);
    rig.run(vec![Command::Progress(alice.progress(1, 34, 1))]);
    assert_eq!((memory.writes(), memory.syncs()), (writes, syncs));
    rig.pass(1_000);
    assert_eq!((memory.writes(), memory.syncs()), (writes + 1, syncs));
}

#[test]
fn a_power_failure_keeps_everything_acknowledged() {
    let mut rig = Rig::memory();
    rig.memory.as_ref().expect("memory").simulate_crashes();
    let alice = rig.connect_as("alice");
    rig.publish(&[alice.id()], "1");
    rig.run(vec![Command::Progress(alice.progress(1, 34, 1))]);
    rig.pass(1_000);
    rig.restart_in_place(0);
    let stored = rig.connect_as("alice").session.expect("stored");
    assert_eq!((stored.head, stored.acknowledged), (1, 0), "progress was lazy, the message not");
    assert_eq!(rig.queue(stored.id, 1), [(1, "1".into())]);
}

#[test]
fn rows_vanish_only_when_what_they_rest_on_is_synced() {
    use crate::kv::Family;
    let mut rig = Rig::memory();
    let memory = rig.memory.clone().expect("memory");
    memory.simulate_crashes();
    let alice = rig.connect_as("alice");
    rig.publish(&[alice.id()], "1");
    rig.run(vec![Command::Progress(alice.progress(1, 34, 1))]);
    rig.pass(1_000);
    rig.store.reclaim().expect("reclaims");
    assert_eq!(memory.len(Family::Queue), 1, "the acknowledgement may still be lost");
    rig.pass(2_000);
    rig.store.reclaim().expect("reclaims");
    assert_eq!(memory.len(Family::Queue), 0);
    rig.restart_in_place(0);
    let stored = rig.connect_as("alice").session.expect("stored");
    assert_eq!((stored.head, stored.acknowledged), (1, 1), "number 1 is not used again");
}

#[test]
fn effects_of_an_uncommitted_batch_cannot_be_had() {
    let mut rig = Rig::memory();
    let mut batch = PendingBatch::new();
    let open = rig.open("alice");
    rig.view.apply(rig.now, Command::Open(Box::new(open)), &mut batch);
    assert!(!batch.is_empty());
    drop(batch);
    rig.restart_in_place(0);
    assert_eq!(rig.restored.sessions.len(), 0);
    assert!(rig.restored.outbox.iter().all(|effect| matches!(effect, Effect::Publish { .. })));
}

#[test]
fn a_queue_is_not_taken_for_empty_while_its_shard_reads_itself_anew() {
    let mut rig = Rig::memory();
    let alice = rig.connect_as("alice");
    rig.publish(&[alice.id()], "1");
    rig.store.floors().unload(0);
    assert_eq!(rig.queue(alice.id(), 1), [(1, "1".into())]);
}
