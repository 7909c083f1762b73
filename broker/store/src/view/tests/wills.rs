//! Wills of stored sessions: when they are published, and that they are published once.

use super::over_both;
use super::rig::*;
use crate::command::*;
use crate::effect::Effect;
use crate::memory::FaultKind;

pub(super) fn will(delay_secs: u32) -> Option<StoredWill> {
    Some(StoredWill { publication: message("bye", "will"), expiry_secs: Some(60), delay_secs })
}

/// Connects with a will and ends the connection.
fn connect_and_end(rig: &mut Rig, delay_secs: u32, cause: CloseCause) -> Vec<Effect> {
    let alice = rig.connect_with("alice", |open| Open { will: will(delay_secs), ..open });
    rig.close(&alice, cause)
}

over_both! {
    fn a_will_without_delay_is_published_at_once(rig) {
        let effects = connect_and_end(rig, 0, CloseCause::Abnormal);
        assert_eq!(brief(&effects), ["publish will"]);
        let Effect::Publish { publication, key: of, .. } = &effects[0] else { panic!("publish") };
        assert_eq!(publication.expires_at_ms, Some(rig.now + 60_000));
        assert_eq!(*of, key("alice"));
        assert_eq!(brief(&rig.pass(50_000)), [""; 0], "once");
    }

    fn a_normal_disconnect_drops_the_will(rig) {
        assert_eq!(brief(&connect_and_end(rig, 0, CloseCause::Normal)), [""; 0]);
        rig.restart_in_place(0);
        assert_eq!(brief(&rig.pass(100_000)), ["ended []"]);
    }

    fn whoever_waits_for_the_end_is_told_with_it(rig) {
        let alice = rig.connect_with("alice", |open| Open { will: will(0), ..open });
        let told = Some(rig.reply());
        let close = Close { told, ..alice.close_with(CloseCause::Normal) };
        let close = Command::Close(Box::new(close));
        assert_eq!(brief(&rig.run(vec![close.clone()])), ["committed 00"]);
        assert_eq!(brief(&rig.run(vec![close])), ["committed 8e"], "of no connection any more");
    }

    fn a_delayed_will_waits(rig) {
        assert_eq!(brief(&connect_and_end(rig, 10, CloseCause::Abnormal)), [""; 0]);
        assert_eq!(brief(&rig.pass(9_999)), [""; 0]);
        assert_eq!(brief(&rig.pass(1)), ["publish will"]);
        assert_eq!(brief(&rig.pass(90_000)), ["ended []"]);
    }

    fn coming_back_in_time_cancels_the_will(rig) {
        connect_and_end(rig, 10, CloseCause::Abnormal);
        rig.pass(9_000);
        let alice = rig.connect_as("alice");
        assert_eq!(brief(&rig.pass(60_000)), [""; 0]);
        assert_eq!(brief(&rig.close(&alice, CloseCause::Abnormal)), [""; 0], "no will any more");
    }

    fn the_end_of_the_session_publishes_the_will(rig) {
        connect_and_end(rig, 1_000, CloseCause::Abnormal);
        assert_eq!(brief(&rig.pass(100_000)), ["publish will", "ended []"]);
        connect_and_end(rig, 1_000, CloseCause::Abnormal);
        let open = Open { clean_start: true, ..rig.open("alice") };
        let effects = rig.run(vec![Command::Open(Box::new(open))]);
        assert_eq!(brief(&effects), ["publish will", "ended []", "opened"]);
    }

    fn a_take_over_is_an_abnormal_end(rig) {
        for (delay, clean_start, expected) in [
            (0, false, &["publish will", "resumed"][..]),
            (10, false, &["resumed"]),
            (10, true, &["publish will", "ended []", "opened"]),
        ] {
            let old = Open { clean_start: true, will: will(delay), ..rig.open("alice") };
            let old = rig.connect(old);
            let new = Open { clean_start, ..rig.open("alice") };
            rig.run(vec![Command::Open(Box::new(new))]);
            let effects = rig.close(&old, CloseCause::Abnormal);
            assert_eq!(brief(&effects), expected, "{delay} {clean_start}");
            assert_eq!(brief(&rig.pass(20_000)), [""; 0]);
            let new = client(&effects).expect("let in");
            rig.close(&new, CloseCause::Normal);
        }
    }

    fn a_crash_is_an_abnormal_end_at_the_next_start(rig) {
        for (delay, after) in [(0, 30_000), (10, 30_000), (40, 40_000)] {
            rig.connect_with("alice", |open| Open { clean_start: true, will: will(delay), ..open });
            rig.restart_in_place(3_600_000);
            assert_eq!(brief(&rig.pass(after - 1)), [""; 0], "{delay}");
            let effects = rig.pass(1);
            assert_eq!(brief(&effects), ["publish will"], "{delay}");
        }
    }

    fn a_stop_of_the_node_keeps_the_will(rig) {
        let alice = rig.connect_with("alice", |open| Open { will: will(0), ..open });
        assert_eq!(brief(&rig.close(&alice, CloseCause::Shutdown)), [""; 0]);
        rig.restart_in_place(0);
        rig.pass(10_000);
        rig.connect_as("alice");
        assert_eq!(brief(&rig.pass(60_000)), [""; 0], "back in time");
    }

    fn a_will_that_was_not_carried_out_is_told_again(rig) {
        let effects = connect_and_end(rig, 0, CloseCause::Abnormal);
        let Effect::Publish { outbox, .. } = effects[0] else { panic!("publish") };
        rig.restart_in_place(0);
        assert_eq!(brief(&rig.restored.outbox), ["publish will"]);
        assert!(matches!(rig.restored.outbox[0], Effect::Publish { outbox: o, .. } if o == outbox));
        // Applied twice, written once.
        let bob = rig.connect_as("bob");
        for _ in 0..2 {
            let publish = Publish { outbox: Some(outbox), ..publication(&[bob.id()], "will") };
            rig.run(vec![Command::Publish(Box::new(publish))]);
        }
        assert_eq!(rig.queue(bob.id(), 1).len(), 1);
        rig.restart_in_place(0);
        let publish = Publish { outbox: Some(outbox), ..publication(&[bob.id()], "will") };
        rig.run(vec![Command::Publish(Box::new(publish)), Command::OutboxDone { outbox }]);
        assert_eq!(rig.queue(bob.id(), 1).len(), 1);
        // Done: not told again, and the mark is swept away.
        rig.restart_in_place(0);
        assert_eq!(rig.restored.outbox.len(), 0);
        rig.pass(60_000);
        assert_eq!(rig.view.applied.len(), 0);
    }
}

#[test]
fn a_will_that_was_carried_out_is_not_told_again_after_a_fault() {
    for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
        for refusing in [false, true] {
            let mut rig = Rig::memory();
            let effects = connect_and_end(&mut rig, 0, CloseCause::Abnormal);
            let Effect::Publish { outbox, .. } = effects[0] else { panic!("publish") };
            rig.memory.as_ref().expect("memory").fail_write(1, kind);
            let bob = Command::Open(Box::new(rig.open("bob")));
            let done = Command::OutboxDone { outbox };
            // With the batch that fails, or while the shard refuses.
            let (with, later) =
                if refusing { (vec![bob], vec![done]) } else { (vec![done, bob], vec![]) };
            rig.try_run(with).expect_err("fails");
            rig.run(later);
            let restored = rig.view.recover(rig.now).expect("recovers");
            assert_eq!(brief(&restored.outbox), [""; 0], "{kind:?} {refusing}");
            rig.pass(0);
            rig.restart_in_place(0);
            assert_eq!(brief(&rig.restored.outbox), [""; 0], "{kind:?} {refusing}");
        }
    }
}
