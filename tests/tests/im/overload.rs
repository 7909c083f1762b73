//! What goes first when there is too much (the profile, section 7), provoked by a limit on memory
//! that no process keeps, and what never goes.

use hoopoe_tests::broker::Options;
use hoopoe_tests::{
    Broker, Connect, Publish, RawClient, Version, code, eventually, metrics, unique_id,
};
use serde_json::json;

use crate::entry::next_entry;
use crate::user::{await_topic, call, device};

/// A broker that gives up everything but what `keeps` percent are not enough for.
fn overloaded(at_percent: [u32; 8], level: u8) -> Broker {
    let text = format!(
        "[im.overload]\nmemory_max_bytes = 1\nshed_at_percent = {at_percent:?}\n\
         [im]\npresence_grace_secs = 1\n"
    );
    let broker = Options::new().configuration(&text).start();
    eventually("memory has been looked at", || {
        metric(&broker, "hoopoe_overload_level") == u64::from(level)
    });
    broker
}

fn metric(broker: &Broker, name: &str) -> u64 {
    let (_, text) = metrics::get(broker.http(), "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {text}"))
}

fn shed(broker: &Broker, class: &str) -> u64 {
    metric(broker, &format!("hoopoe_shed_total{{class=\"{class}\"}}"))
}

fn say(device: &mut RawClient, topic: &str) -> u8 {
    device.try_publish(Publish::new(topic, "x").qos(1))
}

#[test]
fn all_but_logins_and_messages_goes() {
    // No memory is as large as the last.
    let broker = overloaded([1, 1, 1, 1, 1, 1, 1, u32::MAX], 7);
    let mut alice = device(&broker, Version::V5, "alice");
    let mut bob = device(&broker, Version::V5, "bob");
    bob.subscribe("im/r/show/#", 0);
    assert_eq!(say(&mut bob, "im/r/show/msg/like"), 0);
    assert_eq!(shed(&broker, "likes"), 1);
    assert_eq!(say(&mut bob, "im/r/show/msg/chat"), code::QUOTA_EXCEEDED);
    assert_eq!(shed(&broker, "room_chat"), 1);
    assert_eq!(say(&mut bob, "im/r/show/msg/hi"), 0, "the lane `hi` is not given up");
    assert_eq!(say(&mut bob, "im/u/alice/sig/typing"), code::QUOTA_EXCEEDED);
    assert_eq!(shed(&broker, "signals"), 1);
    // 1:1 and group messages are stored and come.
    assert_eq!(say(&mut bob, "im/u/alice/msg/c1"), 0);
    assert_eq!(next_entry(&mut alice).conv, "u/bob");
    let create = json!({ "group": "team", "name": "team", "members": ["alice"] });
    assert_eq!(call(&mut bob, "group/create", &create).0, "ok");
    assert_eq!(say(&mut bob, "im/g/team/msg/c2"), 0);
    // Behind the entry of her joining, unless that was committed before she was there.
    while await_topic(&mut alice, "im/me/in/g/team").payload != b"x" {}
    // History has to wait, heads have not.
    let (status, body) = call(&mut alice, "sync/pull", &json!({ "conv": "u/bob" }));
    assert_eq!((&*status, &body["code"]), ("limit", &json!(code::QUOTA_EXCEEDED)), "{body}");
    assert_eq!(call(&mut alice, "sync/heads", &json!({})).0, "ok");
    // Receipts and presence wait until it is over.
    assert_eq!(say(&mut alice, "im/me/cur/u/bob/read/1"), 0);
    eventually("a receipt is put off", || shed(&broker, "receipts") > 0);
    assert_eq!(call(&mut bob, "presence/watch", &json!({ "users": ["alice"] })).0, "ok");
    assert_eq!(say(&mut alice, "im/me/st/away"), 0);
    eventually("presence is put off", || shed(&broker, "presence") > 0);
}

#[test]
fn new_logins_go_last_and_who_is_there_stays() {
    let broker = overloaded([1; 8], 8);
    for (version, refused) in [(Version::V5, 0x89), (Version::V311, 3)] {
        let mut newcomer = broker.open(version);
        newcomer.send(&Connect::new(version, &unique_id("new")).login("carol", "any").encode());
        newcomer.expect_refused(&[refused]);
    }
    assert_eq!(shed(&broker, "logins"), 2);
}
