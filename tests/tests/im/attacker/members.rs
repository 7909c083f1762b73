//! What members without rights and strangers try in groups, channels, rooms and lists, and with
//! what they have seen on the wire: everything is refused by name, and nothing has changed.

use hoopoe_tests::wire::packet_type;
use hoopoe_tests::{Broker, Connect, Property, Publish, RawClient, Version, code};
use serde_json::{Value, json};

use crate::entry::{next_entry, send};
use crate::user::{call, call_ok, device};

/// Calls that must be refused, with words that name a fault.
fn all_refused(who: &mut RawClient, calls: &[(&str, Value)]) {
    for (op, body) in calls {
        let (status, answer) = call(who, op, body);
        let named = ["not_allowed", "not_found", "bad_request", "conflict", "exists"];
        assert!(named.contains(&&*status), "{op} {body}: {status} {answer}");
        assert!(answer["message"].as_str().is_some_and(|text| text.len() > 5), "{op}: {answer}");
    }
}

#[test]
fn a_group_obeys_nobody_without_the_rights() {
    let broker = Broker::start();
    let mut olga = device(&broker, Version::V5, "olga");
    let create = json!({ "group": "team", "name": "team", "members": ["ann", "bob"] });
    call_ok(&mut olga, "group/create", &create);
    send(&mut olga, "im/g/team/msg", "first");
    let info = call_ok(&mut olga, "group/info", &json!({ "group": "team" }));
    let orders = [
        ("group/kick", json!({ "group": "team", "users": ["bob"] })),
        ("group/role", json!({ "group": "team", "user": "ann", "role": "admin" })),
        ("group/role", json!({ "group": "team", "user": "eve", "role": "owner" })),
        ("group/transfer", json!({ "group": "team", "user": "ann" })),
        ("group/mute", json!({ "group": "team" })),
        ("group/mute", json!({ "group": "team", "user": "olga" })),
        ("group/unmute", json!({ "group": "team", "user": "ann" })),
        ("group/set", json!({ "group": "team", "name": "taken over" })),
        ("group/dissolve", json!({ "group": "team" })),
        ("group/approve", json!({ "group": "team", "user": "eve" })),
        ("group/reject", json!({ "group": "team", "user": "eve" })),
        ("group/create", json!({ "group": "team", "name": "mine" })),
    ];
    for version in Version::BOTH {
        for who in ["ann", "eve"] {
            let mut member = device(&broker, version, who);
            all_refused(&mut member, &orders);
        }
        let mut eve = device(&broker, version, "eve");
        all_refused(
            &mut eve,
            &[
                ("group/join", json!({ "group": "team" })),
                ("group/invite", json!({ "group": "team", "users": ["eve"] })),
                ("group/leave", json!({ "group": "team" })),
                ("group/members", json!({ "group": "team" })),
                ("sync/pull", json!({ "conv": "g/team" })),
                ("receipt/list", json!({ "conv": "g/team", "seq": 1 })),
                ("receipt/count", json!({ "conv": "g/team", "seq": 1 })),
                ("conv/clear", json!({ "conv": "g/team" })),
                ("conv/pin", json!({ "conv": "g/team", "on": true })),
            ],
        );
    }
    let mut eve = device(&broker, Version::V5, "eve");
    for topic in [
        "im/g/team/msg/c1",
        "im/g/team/sig/typing",
        "im/me/op/react/g/team/1",
        "im/me/op/recall/g/team/1",
        "im/me/cur/g/team/read/1",
    ] {
        assert!(eve.try_publish(Publish::new(topic, "x").qos(1)) >= 0x80, "{topic}");
    }
    let mut ann = device(&broker, Version::V5, "ann");
    let all = Publish::new("im/g/team/msg", "everybody!")
        .with(Property::UserProperty("im-at".to_owned(), "all".to_owned()));
    assert_eq!(ann.try_publish(all.qos(1)), code::NOT_AUTHORIZED, "only owner and admins");
    assert_eq!(call_ok(&mut olga, "group/info", &json!({ "group": "team" })), info, "as before");
}

#[test]
fn channels_and_rooms_obey_their_owners_alone() {
    let broker = Broker::start();
    let mut olga = device(&broker, Version::V5, "olga");
    call_ok(&mut olga, "channel/create", &json!({ "channel": "news", "name": "news" }));
    call_ok(&mut olga, "room/create", &json!({ "room": "show", "name": "show" }));
    for version in Version::BOTH {
        let mut eve = device(&broker, version, "eve");
        all_refused(
            &mut eve,
            &[
                ("channel/publishers", json!({ "channel": "news", "add": ["eve"] })),
                ("channel/publishers", json!({ "channel": "news", "remove": ["olga"] })),
                ("channel/create", json!({ "channel": "news", "name": "mine" })),
                ("channel/create", json!({ "channel": "ads", "name": "ads", "everyone": true })),
                ("room/mute", json!({ "room": "show", "user": "olga" })),
                ("room/ban", json!({ "room": "show", "user": "olga" })),
                ("room/unban", json!({ "room": "show", "user": "eve" })),
                ("room/close", json!({ "room": "show" })),
                ("room/create", json!({ "room": "show", "name": "mine" })),
                ("tokens/revoke", json!({ "id": "0000000000000" })),
                ("roster/accept", json!({ "user": "olga" })),
                ("roster/tag", json!({ "user": "olga", "tags": ["x"] })),
                ("roster/block", json!({ "user": "eve" })),
            ],
        );
        call_ok(&mut eve, "channel/follow", &json!({ "channel": "news" }));
        all_refused(
            &mut eve,
            &[("channel/publishers", json!({ "channel": "news", "add": ["eve"] }))],
        );
        call_ok(&mut eve, "channel/unfollow", &json!({ "channel": "news" }));
    }
    let mut eve = device(&broker, Version::V5, "eve");
    let outside = ["im/c/news/msg", "im/r/show/msg/hi", "im/r/show/msg/like", "im/r/show/sig/x"];
    for topic in outside {
        assert!(eve.try_publish(Publish::new(topic, "x").qos(1)) >= 0x80, "{topic}");
    }
}

#[test]
fn whoever_was_removed_sees_and_moves_nothing_after() {
    let broker = Broker::start();
    let mut olga = device(&broker, Version::V5, "olga");
    let mut ann = device(&broker, Version::V5, "ann");
    let create = json!({ "group": "team", "name": "team", "members": ["ann"] });
    call_ok(&mut olga, "group/create", &create);
    send(&mut olga, "im/g/team/msg", "for ann, too");
    call_ok(&mut olga, "group/kick", &json!({ "group": "team", "users": ["ann"] }));
    send(&mut olga, "im/g/team/msg", "without ann");
    let pulled = call_pull(&mut ann, "g/team");
    assert!(pulled.iter().any(|payload| payload == "for ann, too"), "{pulled:?}");
    assert!(pulled.iter().all(|payload| payload != "without ann"), "{pulled:?}");
    for topic in ["im/g/team/msg", "im/g/team/sig/typing", "im/me/op/react/g/team/2"] {
        assert!(ann.try_publish(Publish::new(topic, "x").qos(1)) >= 0x80, "{topic}");
    }
    // Not even how far the group has come is to be found out with a cursor.
    let beyond = Publish::new("im/me/cur/g/team/read/99", "").qos(1);
    assert!(ann.try_publish(beyond) >= 0x80);
}

/// The payloads of what can be pulled.
fn call_pull(device: &mut RawClient, conv: &str) -> Vec<String> {
    let body = json!({ "conv": conv }).to_string();
    device.publish(Publish::new("im/svc/sync/pull/p1", body).qos(1));
    let mut payloads = Vec::new();
    loop {
        let publish = crate::user::await_topic(device, "im/me/res/p1/");
        if publish.topic.ends_with("/end") {
            return payloads;
        }
        payloads.push(String::from_utf8_lossy(&publish.payload).into_owned());
    }
}

#[test]
fn what_was_recorded_on_the_wire_is_worth_nothing_a_second_time() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    // QoS 2 with DUP, the same identifier, before PUBREL: the same publication.
    let connect = Connect::persistent(Version::V5, "ios-1").login("alice", "any");
    let mut alice = broker.connect(&connect);
    alice.expect_publish_on("im/me/sys/hello");
    let publish = Publish::new("im/u/bob/msg", "once").qos(2).id(9);
    // That it is stored once is seen in the number of the next message.
    for dup in [false, true, true] {
        let mut again = publish.clone();
        again.dup = dup;
        alice.send_publish(again);
        assert_eq!(alice.expect_ack(packet_type::PUBREC, 9).code, 0);
    }
    // A cid again, also after its message was recalled: the first result, no new body (ruling 20).
    let said = |alice: &mut RawClient, text: &str| {
        let id = alice.send_publish(Publish::new("im/u/bob/msg/c1", text).qos(1));
        let ack = alice.expect_ack(packet_type::PUBACK, id);
        let properties = ack.properties.user_properties();
        (properties[0].1.to_owned(), properties.iter().any(|(name, _)| *name == "im-dup"))
    };
    assert_eq!(said(&mut alice, "secret"), ("2".to_owned(), false));
    alice.publish(Publish::new("im/me/op/recall/u/bob/2", "").qos(1));
    assert_eq!(said(&mut alice, "secret"), ("2".to_owned(), true));
    let seen: Vec<_> = (0..3).map(|_| next_entry(&mut bob)).collect();
    let seen: Vec<_> = seen.iter().map(|entry| (entry.seq, entry.kind.as_str())).collect();
    assert_eq!(seen, [(1, ""), (2, ""), (3, "recall")]);
    assert_eq!(call_pull(&mut bob, "u/alice"), ["once", "", ""]);
}

#[test]
fn places_in_lists_are_no_way_in() {
    let broker = Broker::start();
    let mut eve = device(&broker, Version::V5, "eve");
    let places =
        ["", "/", "../x", "u/bob", "\u{0}", "zzzzzzzz", "1:u/bob", "18446744073709551616:x"];
    for op in ["sync/heads", "conv/list", "roster/list", "group/list"] {
        for next in places.iter().map(|place| (*place).to_owned()).chain(["x".repeat(5_000)]) {
            let (status, answer) = call(&mut eve, op, &json!({ "next": next, "limit": 1 }));
            let shown: String = next.chars().take(20).collect();
            let empty = ["conversations", "users", "groups"]
                .iter()
                .find_map(|list| answer.get(list).map(|list| *list == json!([])));
            let right = match &*status {
                "ok" => empty == Some(true),
                status => status == "bad_request",
            };
            assert!(right, "{op} {shown:?}: {status} {answer}");
        }
    }
}
