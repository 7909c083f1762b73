//! Terms that a connection has by its CONNECT and its user: what is asked for at the login, how
//! many devices, how much a second.

use hoopoe_tests::broker::Options;
use hoopoe_tests::wire::packet_type;
use hoopoe_tests::wire::properties::Property;
use hoopoe_tests::{
    Broker, Connect, Packet, Publish, RawClient, Received, Version, code, unique_id,
};
use serde_json::json;

use crate::entry::{next_entry, send};
use crate::user::{await_topic, call, call_ok, device, device_with};

/// Section 6: "v5 clients that want heads only".
#[test]
fn a_device_that_wants_heads_only_gets_what_comes_from_now_on() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    for text in ["1", "2", "3"] {
        send(&mut alice, "im/u/bob/msg", text);
    }
    let heads = Property::UserProperty("im-start".to_owned(), "heads".to_owned());
    let connect = Connect::v5("web-1").with(heads).login("bob", "any");
    let mut bob = broker.connect(&connect);
    let hello = await_topic(&mut bob, "im/me/sys/hello");
    let hello: serde_json::Value = serde_json::from_slice(&hello.payload).expect("JSON");
    assert_eq!((&hello["unread_total"], &hello["session"]), (&json!(3), &json!("new")));
    assert_eq!((&hello["user"], &hello["device"]), (&json!("bob"), &json!("web-1")));
    let news = json!([{ "conv": "u/alice", "last": 3, "unread": 3, "recv": 0 }]);
    assert_eq!((&hello["conversations"], &hello["more"]), (&news, &json!(false)));
    send(&mut alice, "im/u/bob/msg", "4");
    assert_eq!(next_entry(&mut bob).seq, 4, "live entries only");
    // The others' devices still get all of it.
    let mut phone = device(&broker, Version::V5, "bob");
    assert_eq!(call_ok(&mut phone, "sync/counts", &json!({}))["unread_total"], 4);
}

/// Section 5: without Request Problem Information nothing is added to acknowledgements.
#[test]
fn whoever_wants_no_problem_information_is_told_by_notices() {
    let broker = Broker::start();
    let connect = Connect::v5(&unique_id("d")).with(Property::RequestProblemInformation(0));
    let mut alice = device_with(&broker, &connect, "alice");
    let id = alice.send_publish(Publish::new("im/u/bob/msg/c1", "one").qos(1));
    let notice = alice.expect_publish();
    assert!(notice.topic.starts_with("im/me/sys/sent/c1/u/bob/1/"), "{}", notice.topic);
    let ack = alice.expect_ack(packet_type::PUBACK, id);
    assert_eq!((ack.code, ack.properties.0.len()), (code::SUCCESS, 0));
    let id = alice.send_publish(Publish::new("im/g/strangers/msg/c2", "two").qos(1));
    let notice = alice.expect_publish();
    assert!(notice.topic.starts_with("im/me/sys/err/c2/"), "{}", notice.topic);
    assert!(!notice.payload.is_empty(), "a text for people");
    let ack = alice.expect_ack(packet_type::PUBACK, id);
    assert!(ack.code >= 0x80 && ack.properties.0.is_empty(), "{ack:?}");
    let decimal = format!("im/me/sys/err/c2/{}", ack.code);
    assert_eq!(notice.topic, decimal);
}

/// Ruling 31.
#[test]
fn answers_go_below_what_connack_names() {
    let broker = Broker::start();
    let connect = Connect::v5(&unique_id("d")).with(Property::RequestResponseInformation(1));
    let alice = device_with(&broker, &connect, "alice");
    let told = Property::ResponseInformation("im/me/res/".to_owned());
    assert!(alice.connack.properties.0.contains(&told), "{:?}", alice.connack);
}

/// Ruling 16: refused to 5.0, and a flag without a meaning to 3.1.1.
#[test]
fn retain_is_ignored_where_it_cannot_be_refused() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V311, "bob");
    let mut alice = device(&broker, Version::V311, "alice");
    alice.publish(Publish::new("im/u/bob/msg", "kept by nobody").qos(1).retain());
    let got = await_topic(&mut bob, "im/me/in/u/alice/1/");
    assert!(!got.retain && got.payload == b"kept by nobody");
}

/// Ruling 37: beyond the rate it is 0x97, and in 3.1.1 a notice.
#[test]
fn a_user_sends_so_many_a_second_and_signals_fewer() {
    let text = "[im]\nsends_per_sec = 1\nsend_burst = 3\nsignals_per_sec = 2\n";
    let broker = Options::new().configuration(text).start();
    let mut phone = device(&broker, Version::V5, "alice");
    let mut desk = device(&broker, Version::V5, "alice");
    let mut codes = Vec::new();
    for _ in 0..30 {
        // All devices of a user together.
        for device in [&mut phone, &mut desk] {
            codes.push(device.try_publish(Publish::new("im/u/bob/msg", "x").qos(1)));
        }
    }
    assert_eq!(codes[..3], [code::SUCCESS; 3]);
    assert!(codes.contains(&code::QUOTA_EXCEEDED), "{codes:?}");
    let mut signals =
        (0..60).map(|_| phone.try_publish(Publish::new("im/u/bob/sig/typing", "x").qos(1)));
    assert!(signals.any(|code| code == code::QUOTA_EXCEEDED));
    let mut old = device(&broker, Version::V311, "carol");
    for n in 0..60 {
        old.publish(Publish::new(&format!("im/u/bob/msg/c{n}"), "x").qos(1));
    }
    let refused = await_topic(&mut old, "im/me/sys/err/c");
    assert!(refused.topic.ends_with("/151"), "{}", refused.topic);
}

#[test]
fn calls_that_change_something_count_as_messages() {
    let text = "[im]\nsends_per_sec = 1\nsend_burst = 500\n";
    for version in Version::BOTH {
        let broker = Options::new().configuration(text).start();
        let mut alice = device(&broker, version, "alice");
        // Of 500 users each ten count as one more.
        let users: Vec<String> = (0..500).map(|n| format!("user-{n}")).collect();
        let mut words = Vec::new();
        for group in 0..12 {
            let body = json!({ "group": format!("g{group}"), "name": "g", "members": users });
            words.push(call(&mut alice, "group/create", &body).0);
        }
        assert_eq!(words[..9], ["ok"; 9], "{version:?}");
        assert!(words.contains(&"limit".to_owned()), "{version:?} {words:?}");
        let names = (0..500).map(|n| json!({ "name": format!("Alice {n}") }));
        let mut words = names.map(|body| call(&mut alice, "user/set", &body).0);
        assert!(words.any(|word| word == "limit"), "{version:?}");
        call_ok(&mut alice, "group/list", &json!({}));
        let mut bob = device(&broker, version, "bob");
        call_ok(&mut bob, "user/set", &json!({ "name": "Bob" }));
    }
}

fn refused(broker: &Broker, connect: &Connect) -> u8 {
    match broker.open(connect.version).try_login(connect) {
        Received::Packet(Packet::ConnAck(connack)) => connack.code,
        other => panic!("CONNACK expected, got {other:?}"),
    }
}

/// Section 2 and ruling 36: the loser is told, goes with 0x98, and is refused for a while.
#[test]
fn one_device_of_a_class_pushes_out_another() {
    let text = "[im]\ndevice_policy = \"one-per-class\"\n";
    for version in Version::BOTH {
        let broker = Options::new().configuration(text).start();
        let of = |client: &str| Connect::new(version, client).login("bob", "any");
        let mut first = device_with(&broker, &of("ios-1"), "bob");
        let mut desk = device_with(&broker, &of("pc-1"), "bob");
        let mut second: RawClient = device_with(&broker, &of("ios-2"), "bob");
        let notice = await_topic(&mut first, "im/me/sys/kicked/");
        let rest = notice.topic.strip_prefix("im/me/sys/kicked/ios/");
        assert!(rest.is_some_and(|ts| ts.parse::<u64>().is_ok()), "{}", notice.topic);
        let code = (version == Version::V5).then_some(0x98);
        assert_eq!(first.expect_closed(), code);
        let not_authorized = if version == Version::V5 { code::NOT_AUTHORIZED } else { 5 };
        assert_eq!(refused(&broker, &of("ios-1")), not_authorized);
        for device in [&mut desk, &mut second] {
            device.ping();
        }
    }
}
