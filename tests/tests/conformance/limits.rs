//! What the standards leave to the server and this house has decided: the limits CONNACK announces,
//! the bounds of a 3.1.1 client, and the tree that belongs to instant messaging.

use hoopoe_tests::wire::{code, packet_type};
use hoopoe_tests::{
    Connect, Packet, Properties, Property, Publish, Received, Version, Will, shared_broker,
    unique_id, unique_topic,
};

const WEEK_SECS: u32 = 7 * 24 * 3600;
const KEEP_ALIVE_MAX_SECS: u16 = 20 * 60;
const PACKET_MAX_BYTES: u32 = 1024 * 1024;
const WINDOW_V311: usize = 100;

#[test]
fn connack_announces_the_limits_of_the_server() {
    let client = shared_broker().v5();
    let properties = &client.connack.properties;
    assert_eq!(properties.maximum_packet_size(), Some(PACKET_MAX_BYTES));
    assert!(properties.receive_maximum().is_some_and(|maximum| maximum >= 1));
    assert!(properties.topic_alias_maximum().is_some_and(|maximum| maximum >= 1));
    // All of MQTT is supported, so nothing may be announced as missing.
    assert_eq!(properties.maximum_qos(), None);
    for missing in [
        Property::RetainAvailable(0),
        Property::WildcardSubscriptionAvailable(0),
        Property::SubscriptionIdentifierAvailable(0),
        Property::SharedSubscriptionAvailable(0),
    ] {
        assert!(!properties.0.contains(&missing), "{missing:?}");
    }
}

#[test]
fn session_expiry_is_capped_at_a_week() {
    for (asked, granted) in [(u32::MAX, Some(WEEK_SECS)), (WEEK_SECS + 1, Some(WEEK_SECS))] {
        let connect = Connect::v5(&unique_id("cap")).session_expiry_secs(asked);
        let client = shared_broker().connect(&connect);
        assert_eq!(client.connack.properties.session_expiry_secs(), granted, "asked for {asked}");
    }
    let connect = Connect::v5(&unique_id("cap")).session_expiry_secs(WEEK_SECS);
    let granted = shared_broker().connect(&connect).connack.properties.session_expiry_secs();
    assert!(granted.is_none_or(|secs| secs == WEEK_SECS), "{granted:?}");
}

#[test]
fn keep_alive_is_capped_at_twenty_minutes() {
    for (asked, granted) in [
        (0, Some(KEEP_ALIVE_MAX_SECS)),
        (65535, Some(KEEP_ALIVE_MAX_SECS)),
        (KEEP_ALIVE_MAX_SECS, None),
        (60, None),
    ] {
        let connect = Connect::v5(&unique_id("alive")).keep_alive_secs(asked);
        let client = shared_broker().connect(&connect);
        let server = client.connack.properties.server_keep_alive_secs();
        assert_eq!(server, granted, "asked for {asked}");
    }
}

#[test]
fn v311_client_has_a_window_of_a_hundred() {
    let topic = unique_topic("window");
    let mut client = shared_broker().v311();
    client.subscribe(&topic, 1);
    let mut publisher = shared_broker().v311();
    for number in 0..=WINDOW_V311 {
        publisher.publish(Publish::new(&topic, number.to_string()).qos(1));
    }
    let first = client.expect_publish();
    for number in 1..WINDOW_V311 {
        assert_eq!(client.expect_publish().payload, number.to_string().into_bytes());
    }
    client.ping();
    client.complete(&first);
    client.expect_message(&topic, WINDOW_V311.to_string());
}

#[test]
fn qos_0_does_not_wait_for_an_absent_session() {
    for version in Version::BOTH {
        let topic = unique_topic("absent");
        let connect = Connect::persistent(version, &unique_id("absent"));
        let mut client = shared_broker().connect(&connect);
        client.subscribe(&topic, 2);
        client.disconnect();
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "zero"));
        publisher.publish(Publish::new(&topic, "one").qos(1));
        let mut back = shared_broker().connect(&connect);
        back.expect_message(&topic, "one");
        back.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn topics_and_filters_beyond_the_limits_are_refused() {
    let long = "x".repeat(4097);
    let deep = vec!["x"; 65].join("/");
    for topic in [&long, &deep] {
        let mut client = shared_broker().v5();
        assert_eq!(client.try_subscribe(topic, 1), code::TOPIC_FILTER_INVALID);
        client.ping();
        client.send_publish(Publish::new(topic, "x").qos(1));
        match client.next_packet() {
            Packet::PubAck(puback) => assert_eq!(puback.code, code::TOPIC_NAME_INVALID),
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.code, code::TOPIC_NAME_INVALID);
            }
            other => panic!("the name should have been refused, got {other:?}"),
        }
    }
}

#[test]
fn one_session_has_a_thousand_subscriptions() {
    let root = unique_topic("many");
    let mut client = shared_broker().v5();
    for round in 0..10 {
        let filters: Vec<String> = (0..100).map(|n| format!("{root}/{round}/{n}")).collect();
        let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
        let suback = client.subscribe_all(&filters, &Properties::default());
        assert!(suback.codes.iter().all(|code| *code == 0), "{suback:?}");
    }
    assert_eq!(client.try_subscribe(&format!("{root}/more"), 0), code::QUOTA_EXCEEDED);
    // One that is there may be replaced.
    assert_eq!(client.try_subscribe(&format!("{root}/0/0"), 1), 1);
}

#[test]
fn client_identifier_beyond_the_limit_is_rejected() {
    let long = "x".repeat(257);
    let mut client = shared_broker().open(Version::V5);
    client.send(&Connect::v5(&long).encode());
    client.expect_refused(&[code::CLIENT_IDENTIFIER_NOT_VALID]);
    let mut client = shared_broker().open(Version::V311);
    client.send(&Connect::v311(&long).encode());
    client.expect_refused(&[2]);
}

#[test]
fn filters_over_the_messaging_tree_are_refused() {
    for version in Version::BOTH {
        for filter in ["im/#", "im/+", "im/+/x/#", "im/u/someone-else/#"] {
            let mut client = shared_broker().client(version);
            let code = client.try_subscribe(filter, 1);
            assert!(code >= 0x80, "{filter} was granted {code}");
        }
        // A wildcard in the first place is accepted and matches nothing of that tree.
        let mut client = shared_broker().client(version);
        client.subscribe("#", 0);
        client.subscribe("+/u/#", 0);
    }
}

#[test]
fn messages_below_the_messaging_tree_are_refused() {
    for qos in [1, 2] {
        let mut client = shared_broker().v5();
        let code = client.try_publish(Publish::new("im/no/such/table", "x").qos(qos));
        assert!(code >= 0x80, "accepted with {code:#04x}");
        client.ping();
    }
}

#[test]
fn retained_message_below_the_messaging_tree_is_refused_with_a_reason() {
    let mut client = shared_broker().v5();
    let publish = Publish::new("im/u/somebody/msg/1", "x").qos(1).retain();
    let id = client.send_publish(publish);
    let puback = client.expect_ack(packet_type::PUBACK, id);
    assert_eq!(puback.code, 0x83);
    assert!(puback.properties.reason_string().is_some(), "{puback:?}");
}

#[test]
fn will_below_the_messaging_tree_is_refused() {
    for (retain, wanted) in [(false, code::TOPIC_NAME_INVALID), (true, 0x9A)] {
        let mut will = Will::new("im/u/somebody/msg/1", "x");
        will.retain = retain;
        let mut client = shared_broker().open(Version::V5);
        match client.try_login(&Connect::v5(&unique_id("will")).will(will)) {
            Received::Packet(Packet::ConnAck(connack)) => assert_eq!(connack.code, wanted),
            other => panic!("CONNACK expected, got {other:?}"),
        }
        assert_eq!(client.receive(), Received::Closed);
    }
}
