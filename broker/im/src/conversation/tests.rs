//! What must be so of single operations, beyond what the model's histories come by.

use hoopoe_store::memory::FaultKind;
use serde_json::json;

use crate::Asker;
use crate::command::{Command, Operation, Send};
use crate::entry::EntryKind;
use crate::rig::{Rig, caller, conv_of, message, recall};
use crate::settings::ImSettings;

fn edit(rig: &mut Rig, seq: u64, text: &'static str) {
    let asker = rig.post(|asker: Asker| {
        let Command::Operate(mut operate) = recall(asker, "alice", "u/bob", seq) else {
            unreachable!("a recall is an operation")
        };
        operate.operation = Operation::Edit;
        operate.payload = text.into();
        Command::Operate(operate)
    });
    rig.settle();
    rig.outcome(asker).expect("it is answered");
}

/// The profile's eighth idea: a recalled body is gone, whichever entry carries it.
#[test]
fn a_recall_takes_the_contents_of_edits_along() {
    let mut rig = Rig::new(ImSettings::default());
    rig.send("alice", "u/bob", "first").unwrap();
    rig.send("alice", "u/bob", "stays").unwrap();
    edit(&mut rig, 1, "second");
    edit(&mut rig, 2, "stays, too");
    edit(&mut rig, 1, "third");
    let bytes = |rig: &Rig| rig.query().head(&conv_of("alice", "u/bob")).unwrap().bytes;
    assert_eq!(bytes(&rig), 5 + 10 + 6 + 10 + 5);
    rig.recall("alice", "u/bob", 1).unwrap();
    let pulled = rig.pull("bob", "u/alice").unwrap();
    let told: Vec<_> =
        pulled.iter().map(|entry| (entry.kind, entry.reference, &entry.payload[..])).collect();
    let expected: [(EntryKind, u64, &[u8]); 6] = [
        (EntryKind::Void, 0, b""),
        (EntryKind::Message, 0, b"stays, too"),
        (EntryKind::Edit, 1, b""),
        (EntryKind::Edit, 2, b"stays, too"),
        (EntryKind::Edit, 1, b""),
        (EntryKind::Recall, 1, b""),
    ];
    assert_eq!(told, expected);
    assert_eq!(bytes(&rig), 20, "the space is given back");
    let again = rig.call_as(caller("alice", false), "sync/pull", json!({ "conv": "u/bob" }));
    assert_eq!(again.unwrap().entries, pulled);
}

/// Ruling 12: nothing else may follow in the conversation for long.
#[test]
fn what_was_written_after_all_is_announced_once_that_is_known() {
    for (kind, announced) in [(FaultKind::UnknownWritten, true), (FaultKind::UnknownLost, false)] {
        let mut rig = Rig::new(ImSettings::default());
        rig.send("alice", "u/bob", "before").unwrap();
        rig.fail_write(kind);
        rig.post(|asker| Command::Send(Box::new(message(asker, "alice", "u/bob", "doubtful"))));
        rig.settle();
        assert_eq!(rig.entries.len(), 1, "{kind:?}: it is not known yet");
        rig.recover();
        let told = rig.entries.iter().skip(1).map(|entry| (entry.seq, &entry.payload[..]));
        let expected: &[(u64, &[u8])] = if announced { &[(2, b"doubtful")] } else { &[] };
        assert_eq!(told.collect::<Vec<_>>(), expected, "{kind:?}");
    }
}

#[test]
fn a_read_that_was_lost_burns_nothing() {
    let mut rig = Rig::new(ImSettings::default());
    rig.post(|asker| {
        let send = message(asker, "alice", "u/bob", "burn me");
        Command::Send(Box::new(Send { burn_secs: 2, ..send }))
    });
    rig.settle();
    // An answer would have been proof of having read it.
    rig.fail_write(FaultKind::UnknownLost);
    rig.post(|asker| Command::Send(Box::new(message(asker, "bob", "u/alice", "lost"))));
    rig.settle();
    rig.recover();
    rig.pass(1_000);
    rig.read("bob", "u/alice", 1);
    let first = |rig: &mut Rig| rig.pull("alice", "u/bob").unwrap()[0].kind;
    rig.pass(1_500);
    assert_eq!(first(&mut rig), EntryKind::Message, "two seconds from now on");
    rig.pass(1_000);
    assert_eq!(first(&mut rig), EntryKind::Void);
}
