//! What must be so of single operations, beyond what the model's histories come by.

use std::ops::ControlFlow;

use bytes::Bytes;
use hoopoe_codec::ReasonCode;
use hoopoe_store::kv::{Family, Span};
use hoopoe_store::memory::FaultKind;
use serde_json::json;

use super::operate::MOST_LIT;
use crate::Asker;
use crate::command::{Command, Operation, Send};
use crate::effect::Answer;
use crate::entry::{Entry, EntryKind, VOID_EXPIRED};
use crate::keys;
use crate::refusal::{Refusal, Word};
use crate::rig::{Outcome, Rig, caller, conv_of, message, read, recall};
use crate::settings::ImSettings;

fn operate(
    rig: &mut Rig,
    operation: Operation,
    (who, conv, seq): (&str, &str, u64),
    text: &'static str,
) -> Result<Answer, Refusal> {
    let asker = rig.post(|asker: Asker| {
        let Command::Operate(mut operate) = recall(asker, who, conv, seq) else {
            unreachable!("a recall is an operation")
        };
        operate.operation = operation;
        operate.payload = text.into();
        Command::Operate(operate)
    });
    rig.settle();
    match rig.outcome(asker).expect("it is answered") {
        Outcome::Answer(Answer::Refused(refusal)) => Err(refusal),
        Outcome::Answer(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

fn edit(rig: &mut Rig, seq: u64, text: &'static str) {
    operate(rig, Operation::Edit, ("alice", "u/bob", seq), text).unwrap();
}

fn word(result: Result<Answer, Refusal>) -> Option<Word> {
    result.err().map(|refusal| refusal.word)
}

fn told(entries: &[Entry]) -> Vec<(EntryKind, u64, Bytes)> {
    entries.iter().map(|entry| (entry.kind, entry.reference, entry.payload.clone())).collect()
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
    // "Edits keep only the newest content": what the third one replaced is nowhere any more.
    assert_eq!(bytes(&rig), 5 + 10 + 10 + 5);
    let pulled = rig.pull("bob", "u/alice").unwrap();
    assert_eq!((&*pulled[2].payload, &*pulled[4].payload), (&b""[..], &b"third"[..]));
    rig.recall("alice", "u/bob", 1).unwrap();
    let pulled = rig.pull("bob", "u/alice").unwrap();
    let expected = [
        (EntryKind::Void, 0, Bytes::new()),
        (EntryKind::Message, 0, "stays, too".into()),
        (EntryKind::Edit, 1, Bytes::new()),
        (EntryKind::Edit, 2, "stays, too".into()),
        (EntryKind::Edit, 1, Bytes::new()),
        (EntryKind::Recall, 1, Bytes::new()),
    ];
    assert_eq!(told(&pulled), expected);
    assert_eq!(bytes(&rig), 20, "the space is given back");
    let again = rig.call_as(caller("alice", false), "sync/pull", json!({ "conv": "u/bob" }));
    assert_eq!(again.unwrap().entries, pulled);
}

#[test]
fn an_edit_goes_with_the_message_whose_time_is_over() {
    let mut rig = Rig::new(ImSettings::default());
    let over = rig.now + 60_000;
    rig.post(|asker| {
        let mut send = message(asker, "alice", "u/bob", "for a minute");
        send.expires_at_ms = Some(over);
        Command::Send(Box::new(send))
    });
    rig.settle();
    edit(&mut rig, 1, "still for a minute");
    rig.pass(60_000);
    let pulled = rig.pull("bob", "u/alice").unwrap();
    let expected = [(EntryKind::Void, 0, Bytes::new()), (EntryKind::Edit, 1, Bytes::new())];
    assert_eq!(told(&pulled), expected);
    assert_eq!((pulled[0].void_reason, pulled[1].expires_at_ms), (VOID_EXPIRED, None));
    for operation in [Operation::Edit, Operation::React, Operation::Recall] {
        let late = operate(&mut rig, operation, ("alice", "u/bob", 1), "late");
        assert_eq!(word(late), Some(Word::Conflict), "{operation:?}");
    }
}

#[test]
fn who_may_not_write_says_nothing_by_editing_either() {
    let mut rig = Rig::new(ImSettings::default());
    rig.send("alice", "u/bob", "hello").unwrap();
    rig.send("bob", "u/alice", "hello").unwrap();
    rig.call("bob", "roster/block", json!({ "user": "alice" })).unwrap();
    for operation in [Operation::Edit, Operation::React] {
        let said = operate(&mut rig, operation, ("alice", "u/bob", 1), "!");
        assert_eq!(word(said), Some(Word::NotAllowed), "{operation:?} of the blocked");
    }
    assert_eq!(word(operate(&mut rig, Operation::React, ("bob", "u/alice", 1), "!")), None);
    assert_eq!(word(operate(&mut rig, Operation::Recall, ("alice", "u/bob", 1), "")), None);

    rig.call("bob", "roster/unblock", json!({ "user": "alice" })).unwrap();
    let team = json!({ "group": "team", "name": "x", "members": ["bob"] });
    rig.call("alice", "group/create", team).unwrap();
    let seq = rig.send("bob", "g/team", "hello").unwrap().seq;
    let mute = json!({ "group": "team", "user": "bob" });
    rig.call("alice", "group/mute", mute.clone()).unwrap();
    let said = operate(&mut rig, Operation::Edit, ("bob", "g/team", seq), "hello again");
    assert_eq!(word(said), Some(Word::NotAllowed), "an edit of the muted");
    let said = operate(&mut rig, Operation::React, ("bob", "g/team", seq), "!");
    assert_eq!(word(said), None, "any member reacts (ruling 32)");
    rig.call("alice", "group/unmute", mute).unwrap();
    let said = operate(&mut rig, Operation::Edit, ("bob", "g/team", seq), "hello again");
    assert_eq!(word(said), None);

    let news = json!({ "channel": "news", "name": "x", "publishers": ["bob"] });
    rig.call("alice", "channel/create", news).unwrap();
    rig.send("bob", "c/news", "hello").unwrap();
    let change = json!({ "channel": "news", "remove": ["bob"] });
    rig.call("alice", "channel/publishers", change).unwrap();
    let said = operate(&mut rig, Operation::Edit, ("bob", "c/news", 1), "not any more");
    assert_eq!(word(said), Some(Word::NotAllowed), "an edit of a former publisher");
}

/// A reader's cursor is told to the conversation without an outbox.
#[test]
fn a_conversation_that_cannot_be_written_hears_of_readers_later() {
    let mut rig = Rig::new(ImSettings::default());
    let team = json!({ "group": "team", "name": "x", "members": ["bob"] });
    rig.call("alice", "group/create", team).unwrap();
    let seq = rig.send("alice", "g/team", "hello").unwrap().seq;
    let conv = conv_of("bob", "g/team");
    let shard = rig.shard_of(conv.slot());
    assert_ne!(shard, rig.shard_of(crate::rig::user("bob").slot()), "else it shows nothing");
    rig.hinder(shard, true);
    rig.read("bob", "g/team", seq);
    rig.pass(5_000);
    rig.hinder(shard, false);
    rig.pass(5_000);
    let of = json!({ "conv": "g/team", "seq": seq });
    let list = rig.call("alice", "receipt/list", of);
    assert_eq!(list, Ok(json!({ "recv": ["bob"], "read": ["bob"] })));
}

#[test]
fn what_was_read_burns_also_when_the_news_of_it_was_lost_with_the_process() {
    let mut rig = Rig::new(ImSettings::default());
    rig.post(|asker| {
        let mut send = message(asker, "alice", "u/bob", "for your eyes");
        send.burn_secs = 10;
        Command::Send(Box::new(send))
    });
    rig.settle();
    let conv = conv_of("bob", "u/alice");
    let reader = rig.shard_of(crate::rig::user("bob").slot());
    assert_ne!(reader, rig.shard_of(conv.slot()), "else it shows nothing");
    // The reader's shard commits, and the process ends before the conversation's hears of it.
    rig.post(|asker| read(asker, "bob", "u/alice", 1));
    rig.step(reader, 100);
    rig.crash();
    rig.pass(10_001);
    let kinds: Vec<_> =
        rig.pull("bob", "u/alice").unwrap().iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::Void, EntryKind::Burn]);
}

#[test]
fn what_one_has_read_burns_and_nothing_else_however_much_waits() {
    let users = ["alice", "bob"];
    let other = |who: usize| format!("u/{}", users[1 - who]);
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for round in 0..20 {
        let mut rig = Rig::new(ImSettings::default());
        // Who sent it, and whether it burns; and how far both have read.
        let (mut sent, mut reads): (Vec<(usize, bool)>, _) = (Vec::new(), [0; 2]);
        for _ in 0..120 {
            let who = next(2) as usize;
            match next(10) {
                0 => {
                    rig.crash();
                    rig.settle();
                }
                1..=4 => {
                    let seq = reads[who] + next(1 + sent.len() as u64 - reads[who]);
                    rig.read(users[who], &other(who), seq);
                    reads[who] = seq;
                }
                _ => {
                    let burns = next(4) > 0;
                    rig.post(|asker| {
                        let send = message(asker, users[who], &other(who), "x");
                        let burn_secs = if burns { 600 } else { 0 };
                        Command::Send(Box::new(Send { burn_secs, ..send }))
                    });
                    rig.settle();
                    sent.push((who, burns));
                    // Who answers has read.
                    reads[who] = sent.len() as u64;
                }
            }
        }
        rig.pass(601_000);
        let entries = rig.pull("alice", "u/bob").unwrap();
        for (entry, (from, burns)) in entries.iter().zip(&sent) {
            let (seq, kind) = (entry.seq, entry.kind);
            let is_gone = *burns && reads[1 - from] >= seq;
            let expected = if is_gone { EntryKind::Void } else { EntryKind::Message };
            assert_eq!(kind, expected, "{seq} of round {round}");
        }
    }
}

/// How many messages of a conversation have lost their body.
fn burnt(rig: &mut Rig, who: &str, conv: &str) -> usize {
    let (mut count, mut from) = (0, 1);
    loop {
        let body = json!({ "conv": conv, "from": from, "limit": 200, "direction": "up" });
        let page = rig.call_as(caller(who, false), "sync/pull", body).unwrap();
        count += page.entries.iter().filter(|entry| entry.kind == EntryKind::Void).count();
        let Some(next) = page.value["next"].as_u64() else { return count };
        from = next;
    }
}

fn send_burning(rig: &mut Rig, to: &str, burn_secs: u32) {
    rig.post(|asker| {
        let send = message(asker, "alice", to, "for your eyes");
        Command::Send(Box::new(Send { burn_secs, ..send }))
    });
}

#[test]
fn many_messages_that_burn_are_lit_and_burn_in_portions() {
    for crashes in [false, true] {
        let mut rig = Rig::new(ImSettings { send_rate: 1_000_000, ..ImSettings::default() });
        let conv = conv_of("bob", "u/alice");
        let count = 2 * MOST_LIT + 7;
        (0..count).for_each(|_| send_burning(&mut rig, "u/bob", 10));
        rig.settle();
        rig.read("bob", "u/alice", count as u64);
        let more = rig.step_of(&conv).next_timeout();
        if crashes {
            rig.crash();
        }
        rig.pass(0);
        assert!(rig.step_of(&conv).next_timeout() > more, "a turn has not lit all of them");
        rig.pass(9_999);
        assert_eq!(burnt(&mut rig, "bob", "u/alice"), 0);
        rig.pass(1);
        assert_eq!(burnt(&mut rig, "bob", "u/alice"), count);
    }
}

#[test]
fn a_note_to_oneself_that_burns_is_read_when_it_is_written() {
    let mut rig = Rig::new(ImSettings::default());
    send_burning(&mut rig, "u/alice", 10);
    rig.settle();
    rig.crash();
    rig.pass(9_999);
    assert_eq!(burnt(&mut rig, "alice", "u/alice"), 0);
    rig.pass(1);
    assert_eq!(burnt(&mut rig, "alice", "u/alice"), 1);
}

#[test]
fn what_is_due_while_a_row_cannot_be_read_is_done_later() {
    for nth in 1..4 {
        let mut rig = Rig::new(ImSettings::default());
        rig.post(|asker| {
            let send = message(asker, "alice", "u/bob", "for your eyes");
            Command::Send(Box::new(Send { burn_secs: 10, ..send }))
        });
        rig.settle();
        rig.read("bob", "u/alice", 1);
        rig.pass(5_000);
        // No rows are in memory.
        rig.crash();
        rig.fail_read(nth);
        rig.pass(5_001);
        rig.fail_read(0);
        rig.pass(2_000);
        let kinds: Vec<_> =
            rig.pull("bob", "u/alice").unwrap().iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [EntryKind::Void, EntryKind::Burn], "{nth}");
    }
}

#[test]
fn reactions_of_many_are_one_event_per_message_and_interval() {
    let mut rig = Rig::new(ImSettings { small_group_members: 3, ..ImSettings::default() });
    let team = json!({ "group": "team", "name": "x", "members": ["bob", "carol"] });
    rig.call("alice", "group/create", team).unwrap();
    let seq = rig.send("alice", "g/team", "hello").unwrap().seq;
    let react =
        |rig: &mut Rig, who, text| operate(rig, Operation::React, (who, "g/team", seq), text);
    assert!(matches!(react(&mut rig, "bob", "+1"), Ok(Answer::Sent { .. })), "a small group");
    let invite = json!({ "group": "team", "users": ["dora", "eve"] });
    rig.call("alice", "group/invite", invite).unwrap();
    let before = rig.query().head(&conv_of("bob", "g/team")).unwrap().last;
    for (who, text) in [("carol", "+1"), ("dora", "!"), ("eve", "+1"), ("eve", "+1")] {
        assert!(matches!(react(&mut rig, who, text), Ok(Answer::Done)), "{who}");
    }
    assert!(matches!(react(&mut rig, "dora", ""), Ok(Answer::Done)), "taken back");
    let long = react(
        &mut rig,
        "dora",
        "a word of more than sixty-four bytes is no reaction at all, is it",
    );
    assert_eq!(word(long), Some(Word::BadRequest));
    assert_eq!(rig.query().head(&conv_of("bob", "g/team")).unwrap().last, before, "not yet");
    // What is owed is owed over a crash.
    rig.crash();
    rig.pass(5_000);
    assert!(matches!(react(&mut rig, "dora", "!"), Ok(Answer::Done)));
    rig.pass(5_000);
    let events = rig.pull("alice", "g/team").unwrap();
    let merged: Vec<_> = events.iter().filter(|entry| entry.seq > before).collect();
    let said: Vec<_> =
        merged.iter().map(|entry| String::from_utf8_lossy(&entry.payload).into_owned()).collect();
    assert_eq!(said, [r#"{"reactions":{"+1":3}}"#, r#"{"reactions":{"!":1,"+1":3}}"#]);
    for entry in merged {
        assert_eq!((entry.kind, entry.reference, &*entry.from), (EntryKind::React, seq, "-"));
    }
    assert_eq!(rig.unread("bob", "g/team").0, 1, "events do not count");
    // Nobody reacts to what is gone.
    react(&mut rig, "eve", "?").unwrap();
    rig.recall("alice", "g/team", seq).unwrap();
    let last = rig.query().head(&conv_of("bob", "g/team")).unwrap().last;
    rig.pass(10_000);
    assert_eq!(rig.query().head(&conv_of("bob", "g/team")).unwrap().last, last);
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

/// Rulings 22 and 23: more of them than one step takes, over a crash and a write that is lost.
#[test]
fn what_has_expired_is_not_unread() {
    let mut rig = Rig::new(ImSettings::default());
    let send = |rig: &mut Rig, text: &'static str, expires_at_ms: Option<u64>| {
        rig.post(|asker| {
            let send = message(asker, "alice", "u/bob", text);
            Command::Send(Box::new(Send { expires_at_ms, ..send }))
        });
        rig.settle();
    };
    let over = rig.now + 60_000;
    for n in 0..300 {
        send(&mut rig, "for a minute", Some(over + n % 3));
    }
    send(&mut rig, "for ever", None);
    send(&mut rig, "for two minutes", Some(over + 60_000));
    assert_eq!(rig.unread("bob", "u/alice"), (302, 0));
    rig.crash();
    rig.pass(61_000);
    assert_eq!(rig.unread("bob", "u/alice"), (2, 0));
    rig.fail_write(FaultKind::UnknownLost);
    rig.pass(60_000);
    rig.recover();
    rig.pass(1_000);
    assert_eq!(rig.unread("bob", "u/alice"), (1, 0));
    let (mut waiting, from, to) = (0, keys::expiry_prefix(0), keys::expiry_prefix(1));
    let span = Span::half_open(&from, &to);
    let scanned = rig.kv().scan(Family::Im, span, &mut |_, _| {
        waiting += 1;
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    assert_eq!(waiting, 0, "what is done is not to be done again");
}

#[test]
fn what_is_too_large_is_told_from_what_may_be_tried_again() {
    let mut rig = Rig::new(ImSettings { groups_max: 1, ..ImSettings::default() });
    let (text, payload) = ("x".repeat(5_000), "x".repeat(64 * 1024 + 1));
    let sent = rig.send("alice", "u/bob", &payload).unwrap_err();
    let mentions = rig.post(|asker| {
        let mut send = message(asker, "alice", "u/bob", "all of you");
        send.mentions = (0..51).map(|n| format!("u{n}").into()).collect();
        Command::Send(Box::new(send))
    });
    rig.settle();
    let Some(Outcome::Answer(Answer::Refused(mentions))) = rig.outcome(mentions) else { panic!() };
    let mut refused = vec![sent, mentions];
    rig.call("alice", "roster/request", json!({ "user": "bob" })).unwrap();
    let calls = [
        ("user/set", json!({ "name": text })),
        ("user/set", json!({ "info": text })),
        ("group/create", json!({ "name": text })),
        ("roster/note", json!({ "user": "bob", "note": text })),
        ("roster/tag", json!({ "user": "bob", "tags": vec!["x"; 1_000] })),
    ];
    for (op, body) in calls {
        refused.push(rig.call_as(caller("alice", false), op, body).unwrap_err());
    }
    for refusal in refused {
        let Refusal { word, code, message } = refusal;
        assert_eq!((word.as_str(), code), ("limit", ReasonCode::QuotaExceeded), "{message}");
        assert_eq!(word.http_status(), 413, "{message}");
    }
    rig.call("alice", "group/create", json!({ "name": "first" })).unwrap();
    let second = json!({ "name": "second" });
    let full = rig.call_as(caller("alice", false), "group/create", second).unwrap_err();
    assert_eq!((full.word.as_str(), full.word.http_status()), ("limit", 429));
}
