//! Bounds: connections, rates, queues, slow receivers, clients that say nothing.

use std::time::{Duration, Instant};

use hoopoe_tests::broker::Options;
use hoopoe_tests::wire::{PINGREQ, code};
use hoopoe_tests::{
    Broker, Connect, Packet, Property, Publish, RawClient, Received, Version, unique_id,
    unique_topic,
};

fn with(settings: &str, listener: &str) -> Broker {
    let text = format!("{settings}\n[[listener]]\nurl = \"tcp://127.0.0.1:0\"\n{listener}\n");
    Options::new().no_listeners().configuration(&text).start()
}

#[test]
fn connection_that_sends_no_connect_is_closed() {
    let broker = with("", "connect_timeout_secs = 1");
    for bytes in [&b""[..], &[0x10], &[0x10, 0x20, 0x00, 0x04, b'M']] {
        let started = Instant::now();
        let mut client = broker.open(Version::V5);
        client.send(bytes);
        assert!(client.read_to_end().is_empty(), "nothing to say before a CONNECT");
        assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    }
}

/// A machine that sleeps or is moved to another host: what its clients said meanwhile is read, and
/// what is on its way is waited for, before anybody's silence is judged.
#[test]
fn time_in_which_the_broker_stood_still_is_nobodys_silence() {
    let broker = with("", "");
    let mut clients = Version::BOTH.map(|version| {
        let connect = |name: &str| Connect::new(version, &unique_id(name)).keep_alive_secs(1);
        [broker.connect(&connect("meanwhile")), broker.connect(&connect("later"))]
    });
    clients.iter_mut().flatten().for_each(RawClient::ping);
    broker.signal("STOP");
    clients.iter_mut().for_each(|[meanwhile, _]| meanwhile.send(&PINGREQ));
    // Another broker's time goes on.
    hoopoe_tests::client::ring_after(&with("", ""), 6);
    broker.signal("CONT");
    clients.iter_mut().for_each(|[_, later]| later.send(&PINGREQ));
    for client in clients.iter_mut().flatten() {
        assert_eq!(client.receive(), Received::Packet(Packet::PingResp));
    }
    // Who goes on saying nothing is closed all the same.
    for client in clients.iter_mut().flatten() {
        client.expect_closed_with(&[code::KEEP_ALIVE_TIMEOUT]);
    }
}

#[test]
fn connections_beyond_the_limit_are_refused_and_room_is_found_again() {
    let broker = with("[limits]\nmax_connections = 2", "");
    let first = broker.v5();
    let mut second = broker.v5();
    let mut third = broker.open(Version::V5);
    third.send(&Connect::v5(&unique_id("over")).encode());
    third.expect_refused(&[code::QUOTA_EXCEEDED, 0x88, 0x89]);
    second.ping();
    first.disconnect();
    hoopoe_tests::eventually("a place is free again", || {
        let mut client = broker.open(Version::V5);
        let answer = client.try_login(&Connect::v5(&unique_id("again")));
        matches!(answer, Received::Packet(Packet::ConnAck(connack)) if connack.code == 0)
    });
}

#[test]
fn publishing_too_fast_is_answered_or_held_back() {
    let settings = "[limits]\npublishes_per_client_per_sec = 5\nburst_secs = 1";
    let broker = with(settings, "");
    let mut client = broker.v5();
    let topic = unique_topic("fast");
    for number in 0..100u16 {
        client.send_publish(Publish::new(&topic, "x").qos(1).id(number + 1));
    }
    loop {
        match client.receive() {
            Received::Packet(Packet::PubAck(_)) => {}
            Received::Packet(Packet::Disconnect(disconnect)) => {
                assert_eq!(disconnect.code, 0x96, "message rate too high");
                break;
            }
            other => panic!("PUBACK or DISCONNECT 0x96 expected, got {other:?}"),
        }
    }
    // Others have their own rate.
    broker.v5().publish(Publish::new(&topic, "x").qos(1));
}

#[test]
fn queue_of_an_absent_session_drops_its_oldest() {
    let broker = with("[queue]\nmax_messages = 10", "");
    let topic = unique_topic("queue");
    let connect = Connect::persistent(Version::V5, &unique_id("queue"));
    let mut client = broker.connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    let mut publisher = broker.v5();
    for number in 0..25u8 {
        publisher.publish(Publish::new(&topic, [number]).qos(1));
    }
    let mut back = broker.connect(&connect);
    for number in 15..25u8 {
        back.expect_message(&topic, [number]);
    }
    back.expect_nothing_from(&mut publisher, 1);
    let overflows: f64 = hoopoe_tests::metrics::sum(broker.http(), "hoopoe_queue_overflows_total");
    assert!(overflows >= 15.0, "counted: {overflows}");
}

#[test]
fn queue_that_refuses_tells_the_publisher() {
    let broker = with("[queue]\nmax_messages = 3\npolicy = \"refuse\"", "");
    let topic = unique_topic("queue");
    let connect = Connect::persistent(Version::V5, &unique_id("queue"));
    let mut client = broker.connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    let mut publisher = broker.v5();
    for number in 0..3u8 {
        publisher.publish(Publish::new(&topic, [number]).qos(1));
    }
    let refused = publisher.try_publish(Publish::new(&topic, "more").qos(1));
    assert_eq!(refused, code::QUOTA_EXCEEDED);
    let mut back = broker.connect(&connect);
    for number in 0..3u8 {
        back.expect_message(&topic, [number]);
    }
    hoopoe_tests::eventually("there is room again", || {
        publisher.try_publish(Publish::new(&topic, "room").qos(1)) < 0x80
    });
    back.expect_message(&topic, "room");
}

#[test]
fn receiver_that_does_not_read_costs_others_nothing() {
    let broker =
        with("[mqtt]\nmax_packet_bytes = 131072\n[limits]\nwrite_buffer_bytes = 262144", "");
    let topic = unique_topic("slow");
    let connect = Connect::persistent(Version::V5, &unique_id("slow"));
    let mut slow = broker.connect(&connect);
    slow.subscribe(&topic, 1);
    let mut quick = broker.v5();
    quick.subscribe(&topic, 1);
    let mut publisher = broker.v5();
    let payload = vec![b'x'; 100_000];
    // Twenty megabytes for somebody who reads nothing of it yet.
    for _ in 0..200 {
        publisher.publish(Publish::new(&topic, &payload).qos(1));
        quick.expect_message(&topic, &payload);
    }
    // All of it is there once the slow one reads.
    for _ in 0..200 {
        slow.expect_message(&topic, &payload);
    }
}

#[test]
fn qos_of_publications_can_be_limited() {
    let broker = with("[mqtt]\nmax_qos = 1", "");
    let mut client = broker.v5();
    assert_eq!(client.connack.properties.maximum_qos(), Some(1));
    // [MQTT-3.2.2-10]: subscriptions of any QoS are accepted.
    let granted = client.try_subscribe(&unique_topic("max"), 2);
    assert!(granted <= 2, "{granted:#04x}");
    client.publish(Publish::new(&unique_topic("max"), "x").qos(1));
    client.send_publish(Publish::new(&unique_topic("max"), "x").qos(2));
    client.expect_disconnect(0x9B);
    // [MQTT-3.2.2-12]
    let will = hoopoe_tests::Will::new(&unique_topic("will"), "x").qos(2);
    let mut client = broker.open(Version::V5);
    client.send(&Connect::v5(&unique_id("will")).will(will).encode());
    client.expect_refused(&[0x9B]);
}

#[test]
fn features_that_are_off_are_announced_and_refused() {
    let settings = "[mqtt]\nretain_available = false\nwildcard_available = false\n\
                    shared_available = false\ntopic_alias_max = 0";
    let broker = with(settings, "");
    let mut client = broker.v5();
    let announced = client.connack.properties.clone();
    for property in [
        Property::RetainAvailable(0),
        Property::WildcardSubscriptionAvailable(0),
        Property::SharedSubscriptionAvailable(0),
    ] {
        assert!(announced.0.contains(&property), "{property:?} in {announced:?}");
    }
    assert!(announced.topic_alias_maximum().is_none_or(|maximum| maximum == 0));
    assert_eq!(client.try_subscribe("a/+/b", 1), 0xA2);
    assert_eq!(client.try_subscribe("$share/g/a", 1), 0x9E);
    // MQTT 3.1.1 [MQTT-3.8.3-2]
    assert_eq!(broker.v311().try_subscribe("a/+/b", 1), 0x80);
    let mut aliased = broker.v5();
    aliased.send_publish(Publish::new("a", "x").with(Property::TopicAlias(1)));
    aliased.expect_closed_with(&[code::TOPIC_ALIAS_INVALID, code::PROTOCOL_ERROR]);
    client.send_publish(Publish::new("a", "x").retain());
    client.expect_closed_with(&[0x9A]);
    // [MQTT-3.2.2-13]
    let will = hoopoe_tests::Will::new(&unique_topic("will"), "x").retain();
    let mut client = broker.open(Version::V5);
    client.send(&Connect::v5(&unique_id("will")).will(will).encode());
    client.expect_refused(&[0x9A]);
}

#[test]
fn one_retained_message_too_many_is_delivered_and_not_retained() {
    let broker = with("[mqtt]\nmax_retained = 1\n", "");
    let (kept, more) = (unique_topic("kept"), unique_topic("more"));
    let stored = Connect::persistent(Version::V5, &unique_id("stored"));
    let mut receivers = [broker.v5(), broker.v311(), broker.connect(&stored)];
    for receiver in &mut receivers {
        receiver.subscribe(&more, 1);
    }
    broker.v5().publish(Publish::new(&kept, "kept").qos(1).retain());
    for qos in [1, 2] {
        let text = format!("of QoS {qos}");
        let publish = || Publish::new(&more, &text).qos(qos).retain();
        assert_eq!(broker.v5().try_publish(publish()), code::QUOTA_EXCEEDED);
        broker.v311().publish(publish());
        for receiver in &mut receivers {
            for _ in 0..2 {
                receiver.expect_message(&more, &text);
            }
        }
    }
    let mut late = broker.v5();
    late.subscribe("#", 1);
    late.expect_message(&kept, "kept");
    late.expect_nothing_from(&mut broker.v5(), 1);
}
