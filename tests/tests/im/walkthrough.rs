//! The walk-through of the manual, every step asserted, and what the two devices wrote and heard
//! compared with the page: run `HOOPOE_WRITE_WALKTHROUGH=1` to write the page anew. The same steps
//! are gone again with the broker killed between them.

use std::path::{Path, PathBuf};

use hoopoe_tests::{Broker, Connect, Property, Publish, RawClient, Version};
use serde_json::json;

use crate::entry::Entry;
use crate::stock::Stock;

/// What waits for the device that was away.
const MISSED: u64 = 300;
/// Who watches the live room, beside the two.
const VIEWERS: usize = 2_000;

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../broker/docs/walkthrough.md")
}

/// Two users, a phone with MQTT 3.1.1 and a browser with MQTT 5.
struct Walk {
    broker: Broker,
    alice: Stock,
    bob: Stock,
    /// Kill the broker between steps.
    kills: bool,
    text: String,
}

impl Walk {
    fn start(kills: bool) -> Walk {
        let broker = Broker::start();
        let alice = Stock::connect(&broker, Version::V311, "alice", "android-1");
        let bob = Stock::connect(&broker, Version::V5, "bob", "web-1");
        Walk { broker, alice, bob, kills, text: String::new() }
    }

    /// A new heading, after what may lie between two steps.
    fn step(mut self, title: &str, about: &str) -> Walk {
        if self.kills {
            self.broker.kill_and_restart();
            self.alice = self.alice.again(&self.broker);
            self.bob = self.bob.again(&self.broker);
        }
        if !self.text.is_empty() {
            self.text.push_str("```\n\n");
        }
        self.text.push_str(&format!("## {title}\n\n{about}\n\n```text\n"));
        self
    }

    fn note(&mut self, line: &str) {
        self.text.push_str(&without_times(line));
        self.text.push('\n');
    }

    fn wrote(&mut self, who: &str, topic: &str, payload: &str) {
        self.note(format!("{who} > {topic}  {payload}").trim_end());
    }

    fn heard(&mut self, who: &str, publish: &Publish) {
        let mut line = format!("{who} < {}", publish.topic);
        for property in &publish.properties.0 {
            if let Property::UserProperty(name, value) = property {
                line.push_str(&format!(" [{name}: {value}]"));
            }
        }
        let payload = String::from_utf8_lossy(&publish.payload).into_owned();
        self.note(format!("{line}  {payload}").trim_end());
    }

    /// An entry as the receiver's version shows it.
    fn got(&mut self, who: &str, entry: &Entry) {
        let Entry { conv, seq, from, kind, reference, payload, .. } = entry;
        let line = match (who, kind.as_str()) {
            ("alice", "") => format!("{conv}/{seq}/{from}/{{time}}/{{id}}"),
            ("alice", kind) => format!("{conv}/{seq}/{from}/{{time}}/{{id}}/{kind}/{reference}"),
            (_, "") => format!("{conv} [im-seq: {seq}] [im-from: {from}]"),
            (_, kind) => format!(
                "{conv} [im-seq: {seq}] [im-from: {from}] [im-kind: {kind}] [im-ref: {reference}]"
            ),
        };
        self.note(format!("{who} < im/me/in/{line}  {payload}").trim_end());
    }

    fn alice_sends(&mut self, conv: &str, cid: &str, text: &str) -> u64 {
        let seq = self.alice.send(conv, cid, text);
        self.wrote("alice", &format!("im/{conv}/msg/{cid}"), text);
        self.note(&format!("alice < im/me/sys/sent/{cid}/{conv}/{seq}/{{id}}/{{time}}"));
        seq
    }

    fn bob_sends(&mut self, conv: &str, cid: &str, text: &str) -> u64 {
        let seq = self.bob.send(conv, cid, text);
        self.wrote("bob", &format!("im/{conv}/msg/{cid}"), text);
        self.note(&format!("bob < PUBACK [im-seq: {seq}] [im-id: {{id}}] [im-ts: {{time}}]"));
        seq
    }
}

/// The line with times, of which no two runs have the same, replaced.
fn without_times(line: &str) -> String {
    let mut kept = String::new();
    let mut digits = String::new();
    for c in line.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        kept.push_str(match digits.len() {
            13 => "{time}",
            16 => "{n}",
            _ => &digits,
        });
        digits.clear();
        kept.push(c);
    }
    kept.trim_end_matches('\n').to_owned()
}

fn walk(kills: bool) -> String {
    let walk = Walk::start(kills);
    let walk = first_words(walk);
    let walk = in_a_group(walk);
    let walk = three_hundred_missed(walk);
    let walk = out_of_the_group(walk);
    let walk = in_the_room(walk);
    let mut walk = last_week(walk);
    walk.text.push_str("```\n");
    walk.text
}

fn first_words(walk: Walk) -> Walk {
    let about = "Alice has a phone with MQTT 3.1.1, Bob a browser with MQTT 5. Neither subscribes \
        to anything. The message is on the broker's disk when its sender is told; the same client \
        message id gives the same place again.";
    let mut walk = walk.step("Two devices, two versions, one conversation", about);
    assert_eq!(walk.alice.hello["user"], "alice");
    assert_eq!(walk.alice_sends("u/bob", "c1", "Shall we have lunch?"), 1);
    let got = walk.bob.next_entry();
    assert_eq!((got.conv.as_str(), got.seq, got.from.as_str()), ("u/alice", 1, "alice"));
    walk.got("bob", &got);
    assert_eq!(walk.bob_sends("u/alice", "w1", "Yes, at noon"), 2);
    let got = walk.alice.next_entry();
    assert_eq!((got.seq, got.payload.as_str()), (2, "Yes, at noon"));
    walk.got("alice", &got);
    let mut walk = walk.step("Sent again", "Alice's phone is not sure that the first one arrived.");
    assert_eq!(walk.alice_sends("u/bob", "c1", "Shall we have lunch?"), 1);
    walk
}

fn in_a_group(walk: Walk) -> Walk {
    let about = "A service is called by a publication; `g1` and `g2` are request ids.";
    let mut walk = walk.step("A group", about);
    let body = json!({ "group": "team", "name": "The team", "members": ["alice"] });
    let answer = walk.bob.call("group/create", &body);
    assert_eq!(answer["group"], "team", "{answer}");
    walk.wrote("bob", "im/svc/group/create/g1", &body.to_string());
    walk.note(&format!("bob < im/me/res/g1/ok  {answer}"));
    let event = walk.alice.next_entry();
    assert_eq!((event.conv.as_str(), event.kind.as_str()), ("g/team", "member"));
    walk.got("alice", &event);
    let seq = walk.bob_sends("g/team", "w2", "Welcome, all of you");
    let got = walk.alice.next_entry();
    assert_eq!((got.seq, got.payload.as_str()), (seq, "Welcome, all of you"));
    walk.got("alice", &got);
    walk
}

fn three_hundred_missed(walk: Walk) -> Walk {
    let about = "Bob closes his browser. Alice writes 300 messages and takes the last one back.";
    let mut walk = walk.step("Away", about);
    let bob = walk.bob.leave();
    walk.text.push_str("bob leaves with DISCONNECT\n");
    for n in 1..=MISSED {
        let seq = walk.alice.send("u/bob", &format!("m{n}"), &format!("message {n}"));
        assert_eq!(seq, 2 + n);
    }
    walk.text.push_str("alice > im/u/bob/msg/m1 … im/u/bob/msg/m300\n");
    let last = 2 + MISSED;
    let topic = format!("im/me/op/recall/u/bob/{last}");
    walk.alice.publish(&topic, "");
    walk.text.push_str(&format!("alice > {topic}\n"));
    if walk.kills {
        walk.broker.kill_and_restart();
        walk.alice = walk.alice.again(&walk.broker);
    }
    walk.bob = bob.back(&walk.broker);
    back_again(walk, last)
}

fn back_again(mut walk: Walk, last: u64) -> Walk {
    let about = "299 are unread: one was recalled. The newest 200 entries come by themselves, in \
        order, a `gap` names the others. The recalled one is empty; what it said is gone.";
    walk.text.push_str(&format!("```\n\n## Back\n\n{about}\n\n```text\n"));
    // Cursors are durable within a second (ruling 21): a crash may count a little anew, never less.
    let unread = walk.bob.hello["unread_total"].as_u64().expect("a number");
    let most = if walk.kills { MISSED + 2 } else { MISSED - 1 };
    assert!((MISSED - 1..=most).contains(&unread), "{}", walk.bob.hello);
    let conversations = &walk.bob.hello["conversations"];
    let news = json!({ "unread_total": MISSED - 1, "conversations": conversations });
    walk.note(&format!("bob < im/me/sys/hello  {news}"));
    let head = last + 1;
    let gap = walk.bob.next("im/me/sys/gap/u/alice/");
    assert!(gap.topic.ends_with(&format!("/{}", head - 200)), "{}", gap.topic);
    let first = gap.topic.split('/').nth(6).and_then(|seq| seq.parse::<u64>().ok());
    let firsts = if walk.kills { 1..=3 } else { 3..=3 };
    assert!(first.is_some_and(|first| firsts.contains(&first)), "{}", gap.topic);
    walk.heard("bob", &Publish::new(&gap.topic, ""));
    for seq in head - 199..=head {
        // After a crash the group's entries may come again, too.
        let mut got = walk.bob.next_entry();
        while walk.kills && got.conv != "u/alice" {
            got = walk.bob.next_entry();
        }
        assert_eq!(got.seq, seq);
        match seq {
            seq if seq == head => assert_eq!((&*got.kind, got.reference), ("recall", last)),
            seq if seq == last => assert_eq!((&*got.kind, &*got.payload), ("void", "")),
            seq => assert_eq!(got.payload, format!("message {}", seq - 2)),
        }
        if seq == head - 199 || seq >= last {
            walk.got("bob", &got);
        }
    }
    let about = "What the gap named is pulled when Bob scrolls up; the whole conversation is read \
        with one cursor, and Alice sees it.";
    let mut walk = walk.step("Read", about);
    let body = json!({ "conv": "u/alice", "from": 3, "to": head - 200, "limit": 200 });
    let (entries, end) = walk.bob.pull(&body);
    let texts: Vec<String> = entries.into_iter().map(|entry| entry.payload).collect();
    let wanted: Vec<String> = (1..=head - 202).map(|n| format!("message {n}")).collect();
    assert_eq!(texts, wanted);
    walk.wrote("bob", "im/svc/sync/pull/g2", &body.to_string());
    walk.note(&format!("bob < im/me/res/g2/m  ({} times)", wanted.len()));
    walk.note(&format!("bob < im/me/res/g2/end  {end}"));
    let topic = format!("im/me/cur/u/alice/read/{head}");
    walk.bob.publish(&topic, "");
    walk.wrote("bob", &topic, "");
    let receipt = walk.alice.next(&format!("im/me/sys/receipt/u/bob/read/{head}/"));
    walk.heard("alice", &receipt);
    let heads = walk.bob.call("sync/heads", &json!({ "unread_only": true }));
    assert!(!heads.to_string().contains("u/alice"), "{heads}");
    walk
}

fn out_of_the_group(walk: Walk) -> Walk {
    let about = "Membership is the permission, and ends at once. A refusal is told in words; 135 \
        is 0x87, not authorized.";
    let mut walk = walk.step("Kicked", about);
    let body = json!({ "group": "team", "users": ["alice"] });
    walk.bob.call("group/kick", &body);
    walk.wrote("bob", "im/svc/group/kick/g3", &body.to_string());
    let event = walk.alice.next_entry();
    assert_eq!((event.conv.as_str(), event.kind.as_str()), ("g/team", "member"));
    assert!(event.payload.contains("\"kick\""), "{event:?}");
    walk.got("alice", &event);
    walk.alice.publish("im/g/team/msg/c2", "But why?");
    let refusal = walk.alice.next("im/me/sys/err/c2/");
    assert_eq!(refusal.topic, "im/me/sys/err/c2/135");
    walk.wrote("alice", "im/g/team/msg/c2", "But why?");
    walk.heard("alice", &refusal);
    walk
}

fn in_the_room(walk: Walk) -> Walk {
    let about = "A live room is joined by subscribing to it; 2,000 others watch. Nothing of it is \
        stored; who joins gets the last few messages.";
    let mut walk = walk.step("A live room", about);
    let mut viewers: Vec<RawClient> = (0..VIEWERS)
        .map(|n| {
            let connect = Connect::new(Version::BOTH[n % 2], &format!("web-{n}"));
            let mut viewer = walk.broker.connect(&connect.login(&format!("viewer{n}"), "any"));
            viewer.expect_publish_on("im/me/sys/hello");
            viewer.try_subscribe("im/r/stage/#", 0);
            viewer
        })
        .collect();
    walk.alice.subscribe("im/r/stage/#");
    walk.text.push_str("alice: SUBSCRIBE im/r/stage/#\n");
    walk.bob.subscribe("im/r/stage/#");
    walk.text.push_str("bob: SUBSCRIBE im/r/stage/#\n");
    walk.bob.publish("im/r/stage/msg/hi", "Good evening!");
    walk.wrote("bob", "im/r/stage/msg/hi", "Good evening!");
    let said = walk.alice.next("im/r/stage/msg/hi");
    assert_eq!(said.payload, b"Good evening!");
    walk.heard("alice", &said);
    for viewer in &mut viewers {
        loop {
            let publish = viewer.take_publish();
            if publish.topic.starts_with("im/r/stage/msg/hi") {
                assert_eq!(publish.payload, b"Good evening!");
                break;
            }
        }
    }
    let info = walk.bob.call("room/info", &json!({ "room": "stage" }));
    assert_eq!(info["viewers"], VIEWERS + 2, "{info}");
    walk.wrote("bob", "im/svc/room/info/g4", "{\"room\":\"stage\"}");
    walk.note(&format!("bob < im/me/res/g4/ok  {info}"));
    walk
}

fn last_week(walk: Walk) -> Walk {
    let about = "A new device fetches what it wants to show, from the newest down, page by page; \
        pulled entries move no cursor.";
    let mut walk = walk.step("Last week's history", about);
    let mut from = None;
    let mut seqs = Vec::new();
    let mut pages = 0;
    while pages < 7 {
        let mut body = json!({ "conv": "u/alice", "limit": 50, "direction": "down" });
        if let Some(from) = &from {
            body["from"] = json!(from);
        }
        let (entries, end) = walk.bob.pull(&body);
        seqs.extend(entries.iter().map(|entry| entry.seq));
        if pages < 2 {
            walk.wrote("bob", "im/svc/sync/pull/g5", &body.to_string());
            walk.note(&format!("bob < im/me/res/g5/end  {end}"));
        }
        pages += 1;
        from = end["next"].as_u64();
        if from.is_none() {
            break;
        }
    }
    assert_eq!(seqs, (1..=303).rev().collect::<Vec<_>>());
    walk
}

const TITLE: &str = "# A walk through the profile

Two clients as their libraries are (rumqttc, its 3.1.1 and its 5.0 client), and what went over the
wire: `>` is a PUBLISH of the client, `<` one of the broker. Times and ids that differ from run to
run are shown as `{time}`, `{id}` and `{n}`. This page is written and checked by a test
(`the_walk_is_as_the_page_says`), and gone again with the broker killed between the steps
(`the_walk_is_the_same_with_the_broker_killed_between_steps`). What the topics mean is in
[im.md](im.md).

";

#[test]
fn the_walk_is_as_the_page_says() {
    let text = format!("{TITLE}{}", walk(false));
    if std::env::var_os("HOOPOE_WRITE_WALKTHROUGH").is_some() {
        std::fs::write(page(), &text).expect("the page can be written");
    }
    let written = std::fs::read_to_string(page()).expect("the page is there");
    assert_eq!(text, written, "HOOPOE_WRITE_WALKTHROUGH=1 writes the page anew");
}

#[test]
fn the_walk_is_the_same_with_the_broker_killed_between_steps() {
    walk(true);
}
