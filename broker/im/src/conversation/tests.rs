//! What must be so of single operations, beyond what the model's histories come by.

use serde_json::json;

use crate::Asker;
use crate::command::{Command, Operation};
use crate::entry::EntryKind;
use crate::rig::{Rig, caller, conv_of, recall};
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
