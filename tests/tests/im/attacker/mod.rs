//! What a user who is no friend tries: to read others' inboxes, to speak in their name, to move
//! what is not his, to break what he is given. Every attempt is refused with a code of its packet,
//! and everybody else goes on undisturbed.

mod members;

use hoopoe_tests::broker::Options;
use hoopoe_tests::wire::packet_type;
use hoopoe_tests::{
    Broker, Connect, Packet, Property, Publish, RawClient, Received, Version, Will, code, unique_id,
};
use serde_json::json;

use crate::entry::{entry, next_entry, send};
use crate::user::{await_topic, call, call_ok, device, device_with};

/// What a publication gets: the reason code, which 3.1.1 hears by notice.
fn attempt(device: &mut RawClient, publish: Publish) -> u8 {
    if device.version == Version::V5 {
        return device.try_publish(publish.qos(1));
    }
    let topic = publish.topic.clone();
    let id = device.send_publish(publish.qos(1));
    let told = await_topic(device, "im/me/sys/");
    device.expect_ack(packet_type::PUBACK, id);
    let code = told.topic.rsplit('/').next().and_then(|level| level.parse().ok());
    let refused = told.topic.starts_with("im/me/sys/err/");
    assert!(refused, "{topic} was answered on {}", told.topic);
    code.unwrap_or_else(|| panic!("no code in {}", told.topic))
}

/// Shows that nothing has come to this device of bob's but what a friend sends now.
fn undisturbed(victim: &mut RawClient, friend: &mut RawClient, friend_name: &str) {
    let note = unique_id("note");
    send(friend, "im/u/bob/msg", &note);
    let first = loop {
        let publish = victim.take_publish();
        // Receipts and presence are the broker's own.
        if !publish.topic.starts_with("im/me/sys/receipt") {
            break publish;
        }
    };
    let got = entry(&first).unwrap_or_else(|| panic!("{} came", first.topic));
    assert_eq!((got.from.as_str(), got.payload), (friend_name, note));
}

#[test]
fn nobody_listens_to_what_is_not_his() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let mut alice = device(&broker, Version::V5, "alice");
    for version in Version::BOTH {
        let mut eve = device(&broker, version, "eve");
        let refused = if version == Version::V5 { code::NOT_AUTHORIZED } else { 0x80 };
        for filter in [
            "im/#",
            "im/+/bob/#",
            "im/u/bob/#",
            "im/u/+/msg",
            "im/default/u/bob",
            "im/default/#",
            "im/+/u/bob",
            "im/r/#",
            "im/r/+/msg/#",
            "im/+",
            "im/+/#",
            "$share/g/im/me/#",
            "$share/g/im/#",
            "$share/g/im/default/u/bob",
        ] {
            assert_eq!(eve.try_subscribe(filter, 1), refused, "{version:?} {filter}");
        }
        for filter in ["#", "+/#", "+/+/+/+/+", "+/default/u/bob", "$share/g/#", "$share/g/+/#"] {
            assert!(eve.try_subscribe(filter, 1) <= 2, "{version:?} {filter}");
        }
        let secret = unique_id("secret");
        send(&mut alice, "im/u/bob/msg", &secret);
        assert_eq!(next_entry(&mut bob).payload, secret);
        assert_eq!(eve.receive_after_ping(), None, "{version:?} heard something");
    }
}

#[test]
fn nobody_speaks_in_anothers_name() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let mut alice = device(&broker, Version::V311, "alice");
    for version in Version::BOTH {
        let mut eve = device(&broker, version, "eve");
        for (topic, reason) in [
            ("im/me/in/u/bob", code::NOT_AUTHORIZED),
            ("im/me/in/u/bob/1/alice/1/0000000000000", code::NOT_AUTHORIZED),
            ("im/me/sys/hello", code::NOT_AUTHORIZED),
            ("im/me/sys/kicked/pc/1", code::NOT_AUTHORIZED),
            ("im/me/pr/alice", code::NOT_AUTHORIZED),
            ("im/me/sig/u/bob/alice/typing", code::NOT_AUTHORIZED),
            ("im/me/res/q/ok", code::NOT_AUTHORIZED),
            ("im/bob/in/u/alice", code::TOPIC_NAME_INVALID),
            ("im/default/u/bob", code::TOPIC_NAME_INVALID),
            ("im/default/u/bob/eve", code::TOPIC_NAME_INVALID),
            ("im/u/bob/in/alice", code::TOPIC_NAME_INVALID),
            ("im/u/bob/sig/typing/alice", code::TOPIC_NAME_INVALID),
        ] {
            assert_eq!(attempt(&mut eve, Publish::new(topic, "x")), reason, "{version:?} {topic}");
        }
        undisturbed(&mut bob, &mut alice, "alice");
    }
    let mut eve = device(&broker, Version::V5, "eve");
    for name in ["im-from", "im-seq", "im-ts", "im-id", "im-kind", "im-ref", "im-cnt", "im-x"] {
        let spoofed = Publish::new("im/u/bob/msg", "x")
            .with(Property::UserProperty(name.to_owned(), "alice".to_owned()));
        assert_eq!(attempt(&mut eve, spoofed), code::PAYLOAD_FORMAT_INVALID, "{name}");
    }
    undisturbed(&mut bob, &mut alice, "alice");
    // What is accepted carries the name of who logged in.
    let claims = Publish::new("im/u/bob/msg", "x")
        .with(Property::UserProperty("from".to_owned(), "alice".to_owned()));
    eve.publish(claims.qos(1));
    assert_eq!(next_entry(&mut bob).from, "eve");
}

#[test]
fn ids_of_other_characters_are_refused() {
    let broker = Broker::start();
    let long = "a".repeat(65);
    let topics = [
        "im/u/b ob/msg".to_owned(),
        "im/u/böb/msg".to_owned(),
        "im/u//msg".to_owned(),
        "im//bob/msg".to_owned(),
        "im/u/bob%2Fx/msg".to_owned(),
        "im/u/bob,eve/msg".to_owned(),
        "im/u/bob\\x/msg".to_owned(),
        "im/u/bob\"/msg".to_owned(),
        format!("im/u/{long}/msg"),
        format!("im/u/bob/msg/{long}"),
        "im/u/bob/msg/".to_owned(),
        "im/u/bob/msg/a b".to_owned(),
        "im/u/bob/msg/c/at/".to_owned(),
        "im/u/bob/msg/c/at/a,,b".to_owned(),
        "im/u/bob/msg/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t".to_owned(),
        "im/u/bob/burn/0".to_owned(),
        "im/u/bob/burn/604801".to_owned(),
        "im/u/bob/burn/-1".to_owned(),
        "im/u/bob/burn/99999999999999999999".to_owned(),
        "im/g/bob/burn/5".to_owned(),
        "im/x/bob/msg".to_owned(),
        "im/u/bob".to_owned(),
        "im/".to_owned(),
        "im/me".to_owned(),
        "im/me/op/destroy/u/bob/1".to_owned(),
        "im/me/op/recall/u/bob/0".to_owned(),
        "im/me/op/recall/r/room/1".to_owned(),
        "im/me/st/on line".to_owned(),
        "im/svc/time".to_owned(),
        "im/svc/time/now/a b".to_owned(),
        "im/svc/time/now/q/more".to_owned(),
    ];
    let mut bob = device(&broker, Version::V5, "bob");
    let mut alice = device(&broker, Version::V311, "alice");
    for version in Version::BOTH {
        let mut eve = device(&broker, version, "eve");
        for topic in &topics {
            let reason = attempt(&mut eve, Publish::new(topic, "x"));
            assert_eq!(reason, code::TOPIC_NAME_INVALID, "{version:?} {topic}");
        }
        undisturbed(&mut bob, &mut alice, "alice");
    }
}

#[test]
fn cursors_do_not_move_beyond_what_is_there_nor_where_one_is_not() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    for n in 1..=3 {
        send(&mut alice, "im/u/bob/msg", &n.to_string());
    }
    for version in Version::BOTH {
        let mut bob = device(&broker, version, "bob");
        for seq in ["4", "18446744073709551615"] {
            let topic = format!("im/me/cur/u/alice/read/{seq}");
            let reason = attempt(&mut bob, Publish::new(&topic, ""));
            assert_eq!(reason, code::PAYLOAD_FORMAT_INVALID, "{version:?} {topic}");
        }
        for topic in [
            "im/me/cur/u/alice/read/18446744073709551616",
            "im/me/cur/u/alice/read/-1",
            "im/me/cur/u/alice/read/0x1",
            "im/me/cur/u/alice/seen/1",
            "im/me/cur/r/room/read/1",
        ] {
            let reason = attempt(&mut bob, Publish::new(topic, ""));
            assert_eq!(reason, code::TOPIC_NAME_INVALID, "{version:?} {topic}");
        }
        for topic in [
            "im/me/cur/u/stranger/read/1",
            "im/me/cur/g/strangers/read/1",
            "im/me/cur/c/strangers/recv/1",
        ] {
            assert!(attempt(&mut bob, Publish::new(topic, "")) >= 0x80, "{version:?} {topic}");
        }
        let heads = call_ok(&mut bob, "sync/heads", &json!({}));
        assert_eq!(heads["conversations"][0]["unread"], 3, "{heads}");
        assert_eq!(heads["conversations"].as_array().map(Vec::len), Some(1), "{heads}");
    }
    let mut bob = device(&broker, Version::V5, "bob");
    bob.publish(Publish::new("im/me/cur/u/alice/read/2", "").qos(1));
    // Backwards is a success that moves nothing (ruling 21).
    bob.publish(Publish::new("im/me/cur/u/alice/read/1", "").qos(1));
    let heads = call_ok(&mut bob, "sync/heads", &json!({}));
    assert_eq!(heads["conversations"][0]["read"], 2);
}

#[test]
fn a_client_message_id_of_another_user_means_nothing() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let mut alice = device(&broker, Version::V5, "alice");
    let mut eve = device(&broker, Version::V5, "eve");
    let told = |device: &mut RawClient, topic: &str| {
        let id = device.send_publish(Publish::new(topic, "x").qos(1));
        let ack = device.expect_ack(packet_type::PUBACK, id);
        let pairs = ack.properties.user_properties();
        (pairs[0].1.to_owned(), pairs.iter().any(|(name, _)| *name == "im-dup"))
    };
    assert_eq!(told(&mut alice, "im/u/bob/msg/same"), ("1".to_owned(), false));
    // The same id: to another conversation, from the other end, to oneself.
    assert_eq!(told(&mut eve, "im/u/bob/msg/same"), ("1".to_owned(), false));
    assert_eq!(told(&mut bob, "im/u/alice/msg/same"), ("2".to_owned(), false));
    assert_eq!(told(&mut alice, "im/u/eve/msg/same"), ("1".to_owned(), false));
    assert_eq!(told(&mut alice, "im/u/bob/msg/same"), ("1".to_owned(), true));
}

#[test]
fn only_the_sender_recalls_and_edits() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let mut alice = device(&broker, Version::V5, "alice");
    send(&mut alice, "im/u/bob/msg", "mine");
    next_entry(&mut bob);
    for version in Version::BOTH {
        let mut bob = device(&broker, version, "bob");
        let mut eve = device(&broker, version, "eve");
        for op in ["recall", "edit"] {
            let topic = format!("im/me/op/{op}/u/alice/1");
            let reason = attempt(&mut bob, Publish::new(&topic, "his"));
            assert_eq!(reason, code::NOT_AUTHORIZED, "{version:?} {topic}");
        }
        for op in ["recall", "edit", "react"] {
            for conv in ["u/alice", "u/bob", "g/strangers", "c/strangers"] {
                let topic = format!("im/me/op/{op}/{conv}/1");
                let reason = attempt(&mut eve, Publish::new(&topic, "hers"));
                assert!(reason >= 0x80, "{version:?} {topic}: {reason:#04x}");
            }
        }
        for seq in ["2", "18446744073709551615"] {
            let topic = format!("im/me/op/react/u/alice/{seq}");
            assert!(attempt(&mut bob, Publish::new(&topic, "x")) >= 0x80, "{version:?} {topic}");
        }
    }
    let pull = json!({ "conv": "u/alice" });
    let topic = "im/svc/sync/pull/p1";
    bob.publish(Publish::new(topic, pull.to_string()).qos(1));
    let item = await_topic(&mut bob, "im/me/res/p1/m");
    assert_eq!(item.payload, b"mine");
    let end = await_topic(&mut bob, "im/me/res/p1/end");
    assert!(String::from_utf8_lossy(&end.payload).contains("\"count\":1"));
}

#[test]
fn services_name_what_is_wrong_and_do_nothing() {
    let broker = Broker::start();
    let mut owner = device(&broker, Version::V5, "bob");
    send(&mut owner, "im/u/alice/msg", "private");
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies = [
        ("sync/pull", r#"{"conv": 5}"#),
        ("sync/pull", r#"{"conv": "bob"}"#),
        ("sync/pull", r#"{"conv": "x/bob"}"#),
        ("sync/pull", r#"{"conv": "u/a/b"}"#),
        ("sync/pull", r#"{"conv": "default/u/alice/bob"}"#),
        ("sync/pull", r#"{"conv": "u/bob", "limit": -1}"#),
        ("sync/pull", r#"{"conv": "u/bob", "limit": 1000000}"#),
        ("sync/pull", r#"{"conv": "u/bob", "from": "first"}"#),
        ("sync/pull", r#"{"conv": "u/bob", "direction": "sideways"}"#),
        ("sync/pull", r#"{"conv": "u/bob", "user": "alice"}"#),
        ("sync/pull", "{}"),
        ("sync/heads", r#"{"next": "../../etc/passwd"}"#),
        ("sync/heads", "[]"),
        ("sync/heads", "null"),
        ("sync/heads", "{"),
        ("sync/heads", "\u{0}\u{1}"),
        ("sync/heads", deep.as_str()),
        ("conv/pin", r#"{"conv": "u/bob", "on": "yes"}"#),
        ("conv/clear", r#"{"conv": "r/room"}"#),
        ("user/set", r#"{"name": 7}"#),
        ("user/info", r#"{"user": "a/b"}"#),
        ("device/push-token", r#"{"provider": "apns"}"#),
        ("receipt/list", r#"{"conv": "u/bob", "seq": -1}"#),
    ];
    for version in Version::BOTH {
        let mut eve = device(&broker, version, "eve");
        for (number, (op, body)) in bodies.iter().enumerate() {
            let shown = &body[..body.len().min(60)];
            let topic = format!("im/svc/{op}/b{number}");
            eve.publish(Publish::new(&topic, body).qos(1));
            let answer = await_topic(&mut eve, &format!("im/me/res/b{number}/"));
            let status = answer.topic.rsplit('/').next().unwrap_or_default().to_owned();
            assert_eq!(status, "bad_request", "{version:?} {op} {shown}");
            let body: serde_json::Value = serde_json::from_slice(&answer.payload).expect("JSON");
            assert_eq!(body["error"], "bad_request", "{op} {shown}");
            assert!(body["code"].as_u64().is_some_and(|code| code >= 0x80), "{op} {shown}");
            assert!(body["message"].as_str().is_some_and(|text| text.len() > 5), "{op} {shown}");
        }
        for (op, body) in [
            ("sync/pull", json!({ "conv": "g/strangers" })),
            ("sync/pull", json!({ "conv": "c/strangers" })),
            ("sync/pull", json!({ "conv": "u/stranger" })),
            ("receipt/list", json!({ "conv": "g/strangers", "seq": 1 })),
            ("receipt/count", json!({ "conv": "c/strangers", "seq": 1 })),
            ("conv/mute", json!({ "conv": "g/strangers", "on": true })),
            ("device/kick", json!({ "device": owner.client_id })),
            ("nothing/here", json!({})),
            ("sync/everything", json!({})),
            ("admin/users", json!({})),
        ] {
            let (status, answer) = call(&mut eve, op, &body);
            assert!(
                ["not_found", "not_allowed"].contains(&status.as_str()),
                "{version:?} {op} {body}: {status} {answer}"
            );
        }
        let heads = call_ok(&mut eve, "sync/heads", &json!({}));
        assert_eq!(heads["conversations"], json!([]), "{heads}");
    }
    // The device that a stranger wanted to be kicked is there.
    send(&mut owner, "im/u/alice/msg", "still here");
}

#[test]
fn nothing_below_im_is_retained_shared_or_left_as_a_will() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let mut eve = device(&broker, Version::V5, "eve");
    for topic in ["im/u/bob/msg", "im/me/st/away", "im/svc/time/now/q", "im/me/sys/hello"] {
        let reason = eve.try_publish(Publish::new(topic, "{}").qos(1).retain());
        assert_eq!(reason, code::IMPLEMENTATION_SPECIFIC, "{topic}");
    }
    let mut old = device(&broker, Version::V311, "alice");
    old.publish(Publish::new("im/u/bob/msg", "kept?").qos(1).retain());
    let got = await_topic(&mut bob, "im/me/in/");
    assert!(!got.retain, "3.1.1: the flag is ignored");
    for topic in ["im/u/bob/msg", "im/me/st/away", "im/default/u/bob"] {
        for retain in [false, true] {
            let mut will = Will::new(topic, "I am gone").qos(1);
            if retain {
                will = will.retain();
            }
            for version in Version::BOTH {
                let connect = Connect::new(version, &unique_id("w")).login("eve", "any");
                let mut client = broker.open(version);
                let answer = client.try_login(&connect.will(will.clone()));
                let Received::Packet(Packet::ConnAck(connack)) = answer else {
                    // 3.1.1 has no code for it: closing is as good.
                    assert_eq!((version, answer), (Version::V311, Received::Closed), "{topic}");
                    continue;
                };
                match (version, retain) {
                    (Version::V311, _) => assert_ne!(connack.code, 0, "{topic}"),
                    (Version::V5, false) => assert_eq!(connack.code, 0x90, "{topic}"),
                    (Version::V5, true) => {
                        assert!([0x90, 0x9A].contains(&connack.code), "{topic}");
                    }
                }
            }
        }
    }
}

#[test]
fn answers_go_to_ones_own_inbox_only() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let mut alice = device(&broker, Version::V311, "alice");
    let mut eve = device(&broker, Version::V5, "eve");
    for topic in
        ["im/u/bob/msg", "im/me/in/u/bob", "im/default/u/bob", "im/me/res", "other", "im/me/sys/x"]
    {
        let asked =
            Publish::new("im/svc/time/now", "{}").with(Property::ResponseTopic(topic.to_owned()));
        let reason = attempt(&mut eve, asked);
        assert_eq!(reason, code::PAYLOAD_FORMAT_INVALID, "{topic}");
    }
    let nowhere = attempt(&mut eve, Publish::new("im/svc/time/now", "{}"));
    assert_eq!(nowhere, code::PAYLOAD_FORMAT_INVALID);
    undisturbed(&mut bob, &mut alice, "alice");
}

#[test]
fn what_is_too_large_is_refused_whole() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let mut alice = device(&broker, Version::V311, "alice");
    for version in Version::BOTH {
        let mut eve = device(&broker, version, "eve");
        let body = vec![b'x'; 64 * 1024 + 1];
        for topic in ["im/u/bob/msg", "im/u/bob/burn/5"] {
            let reason = attempt(&mut eve, Publish::new(topic, &body));
            assert_eq!(reason, code::QUOTA_EXCEEDED, "{version:?} {topic}");
        }
        let reason = attempt(&mut eve, Publish::new("im/u/bob/sig/typing", vec![b'x'; 4097]));
        assert_eq!(reason, code::QUOTA_EXCEEDED, "{version:?}");
        undisturbed(&mut bob, &mut alice, "alice");
        // Above the packet limit the connection ends.
        eve.send_publish(Publish::new("im/u/bob/msg", vec![b'x'; 1 << 20]).qos(1));
        eve.expect_closed_with(&[code::PACKET_TOO_LARGE]);
        undisturbed(&mut bob, &mut alice, "alice");
    }
}

#[test]
fn a_client_id_of_another_user_takes_nothing_over() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    for version in Version::BOTH {
        let phone = Connect::persistent(version, "ios-1");
        let mut bob = device_with(&broker, &phone, "bob");
        let mut eve = device_with(&broker, &phone.clone().clean(), "eve");
        undisturbed(&mut bob, &mut alice, "alice");
        eve.ping();
        bob.disconnect();
        eve.disconnect();
    }
}

#[test]
fn tenants_do_not_see_each_other() {
    for version in Version::BOTH {
        let broker = Options::new().configuration("[access]\ntenants = true\n").start();
        let mut bob = device(&broker, version, "acme/bob");
        let mut alice = device(&broker, version, "acme/alice");
        let mut foreign_bob = device(&broker, version, "evil/bob");
        let mut eve = device(&broker, version, "evil/eve");
        let mut plain = device(&broker, version, "bob");
        for filter in ["#", "+/#", "room/+"] {
            eve.subscribe(filter, 1);
            plain.subscribe(filter, 1);
        }
        bob.subscribe("#", 1);
        for filter in ["$t/acme/#", "$t/#", "$share/g/$t/acme/#", "im/acme/u/bob", "im/acme/#"] {
            assert!(eve.try_subscribe(filter, 1) >= 0x80, "{version:?} {filter}");
        }
        send(&mut alice, "im/u/bob/msg/c1", "for bob of acme");
        assert_eq!(next_entry(&mut bob).payload, "for bob of acme");
        alice.publish(Publish::new("room/1", "plain").qos(1));
        let got = await_topic(&mut bob, "room/");
        assert_eq!((got.topic.as_str(), &got.payload[..]), ("room/1", &b"plain"[..]));
        // The same names, the same client message id, another world.
        send(&mut eve, "im/u/bob/msg/c1", "for bob of evil");
        let got = next_entry(&mut foreign_bob);
        assert_eq!((got.seq, got.payload.as_str()), (1, "for bob of evil"));
        for topic in ["im/u/acme/bob/msg", "im/acme/u/bob", "$t/acme/room/1"] {
            if version == Version::V5 {
                assert!(eve.try_publish(Publish::new(topic, "x").qos(1)) >= 0x80, "{topic}");
            }
        }
        let states = call_ok(&mut eve, "presence/get", &json!({ "users": ["alice"] }));
        assert_eq!(states["users"][0]["show"], "offline", "{states}");
        for device in [&mut plain, &mut foreign_bob] {
            let heads = call_ok(device, "sync/heads", &json!({}));
            assert!(!heads.to_string().contains("alice"), "{heads}");
        }
        for device in [&mut bob, &mut eve, &mut plain, &mut foreign_bob] {
            let left = device.receive_after_ping();
            let quiet = match &left {
                None => true,
                Some(Packet::Publish(publish)) => publish.topic.starts_with("im/me/sys/receipt"),
                Some(_) => false,
            };
            assert!(quiet, "{version:?}: {left:?}");
        }
    }
}
