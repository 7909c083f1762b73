//! Sessions: what is kept, for how long, and what a client finds when it comes back.

use std::time::{Duration, Instant};

use hoopoe_tests::client::ring_after;
use hoopoe_tests::wire::{code, packet_type};
use hoopoe_tests::{
    Connect, Packet, Properties, Property, Publish, RawClient, Version, Will, shared_broker,
    unique_id, unique_topic,
};

/// A persistent client with a QoS 2 subscription to a new topic.
fn subscriber(version: Version) -> (Connect, RawClient, String) {
    let connect = Connect::persistent(version, &unique_id("sess"));
    let topic = unique_topic("session");
    let mut client = shared_broker().connect(&connect);
    client.subscribe(&topic, 2);
    (connect, client, topic)
}

#[test]
fn subscriptions_and_messages_survive_a_disconnect() {
    for version in Version::BOTH {
        for farewell in [true, false] {
            let (connect, client, topic) = subscriber(version);
            if farewell {
                client.disconnect()
            } else {
                client.cut()
            }
            let mut publisher = shared_broker().client(version);
            for number in 0..20 {
                let publish = Publish::new(&topic, format!("{number}")).qos(1 + number % 2);
                publisher.publish(publish);
            }
            let mut back = shared_broker().connect(&connect);
            assert!(back.connack.session_present);
            for number in 0..20 {
                let publish = back.expect_message(&topic, format!("{number}"));
                assert_eq!((publish.qos, publish.dup), (1 + number % 2, false));
            }
            publisher.publish(Publish::new(&topic, "live").qos(1));
            back.expect_message(&topic, "live");
        }
    }
}

#[test]
fn clean_start_discards_the_session() {
    for version in Version::BOTH {
        let (connect, client, topic) = subscriber(version);
        client.disconnect();
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "lost").qos(1));
        let mut clean = shared_broker().connect(&connect.clone().clean());
        assert!(!clean.connack.session_present);
        publisher.publish(Publish::new(&topic, "unsubscribed").qos(1));
        clean.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn clean_session_ends_with_its_connection() {
    for version in Version::BOTH {
        let id = unique_id("clean");
        let topic = unique_topic("clean");
        let mut client = shared_broker().connect(&Connect::new(version, &id));
        client.subscribe(&topic, 1);
        client.disconnect();
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "lost").qos(1));
        let mut back = shared_broker().connect(&Connect::persistent(version, &id));
        assert!(!back.connack.session_present);
        back.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn session_is_not_discarded_while_connected() {
    // An expiry interval of 0 and a clean session: both last as long as the connection.
    for version in Version::BOTH {
        let topic = unique_topic("open");
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 1);
        ring_after(shared_broker(), 1);
        shared_broker().client(version).publish(Publish::new(&topic, "still").qos(1));
        client.expect_message(&topic, "still");
    }
}

#[test]
fn session_ends_when_its_expiry_interval_has_passed() {
    let topic = unique_topic("ended");
    let mut watcher = shared_broker().v5();
    watcher.subscribe(&topic, 0);
    // The will with a long delay tells when the session ends.
    let connect = Connect::v5(&unique_id("expire")).session_expiry_secs(1);
    let with_will = connect.clone().will(Will::new(&topic, "ended").delay_secs(3000));
    let client = shared_broker().connect(&with_will);
    let cut = Instant::now();
    client.cut();
    watcher.expect_message(&topic, "ended");
    assert!(cut.elapsed() >= Duration::from_millis(950), "after {:?}", cut.elapsed());
    let back = shared_broker().connect(&connect.resume());
    assert!(!back.connack.session_present);
}

#[test]
fn absent_session_expiry_ends_the_session_with_the_connection() {
    let connect = Connect::v5(&unique_id("zero")).resume();
    shared_broker().connect(&connect).disconnect();
    assert!(!shared_broker().connect(&connect).connack.session_present);
}

#[test]
fn disconnect_may_change_the_session_expiry() {
    let expiry = |secs: u32| Properties(vec![Property::SessionExpiryInterval(secs)]);
    let connect = Connect::persistent(Version::V5, &unique_id("change"));
    shared_broker().connect(&connect).disconnect_with(0, &expiry(0));
    let back = shared_broker().connect(&connect);
    assert!(!back.connack.session_present, "DISCONNECT set the interval to 0");
    back.disconnect_with(0, &expiry(1000));
    assert!(shared_broker().connect(&connect).connack.session_present);
}

#[test]
fn disconnect_must_not_revive_a_session_that_was_to_end() {
    // Zero in CONNECT, not zero in DISCONNECT: a protocol error.
    let connect = Connect::v5(&unique_id("revive")).resume();
    let mut client = shared_broker().connect(&connect);
    let expiry = Properties(vec![Property::SessionExpiryInterval(1000)]);
    client.send(&hoopoe_tests::wire::disconnect(Version::V5, 0, &expiry));
    client.expect_closed_with(&[code::PROTOCOL_ERROR]);
    assert!(!shared_broker().connect(&connect).connack.session_present);
}

#[test]
fn new_session_expiry_applies_from_the_new_connection() {
    let id = unique_id("renew");
    shared_broker().connect(&Connect::persistent(Version::V5, &id)).disconnect();
    let resumed = Connect::v5(&id).resume().session_expiry_secs(0);
    let client = shared_broker().connect(&resumed);
    assert!(client.connack.session_present);
    client.disconnect();
    let back = shared_broker().connect(&Connect::persistent(Version::V5, &id));
    assert!(!back.connack.session_present);
}

#[test]
fn unacknowledged_messages_are_resent_in_order_with_their_identifiers() {
    for version in Version::BOTH {
        for qos in [1, 2] {
            let (connect, mut client, topic) = subscriber(version);
            let mut publisher = shared_broker().client(version);
            for number in 0..5 {
                publisher.publish(Publish::new(&topic, format!("{number}")).qos(qos));
            }
            let first: Vec<Publish> = (0..5).map(|_| client.expect_publish()).collect();
            assert!(first.iter().all(|publish| !publish.dup), "a first sending has DUP 0");
            client.cut();
            let mut back = shared_broker().connect(&connect);
            assert!(back.connack.session_present);
            for sent in &first {
                let again = back.expect_publish();
                assert_eq!(again.payload, sent.payload, "the original order [MQTT-4.6.0-1]");
                assert_eq!(again.id, sent.id, "the original identifier [MQTT-4.4.0-1]");
                assert!(again.dup, "DUP in a redelivery [MQTT-3.3.1-1]");
                back.complete(&again);
            }
            back.expect_nothing_from(&mut publisher, qos);
        }
    }
}

#[test]
fn nothing_is_resent_on_a_connection_that_goes_on() {
    for version in Version::BOTH {
        let (_, mut client, topic) = subscriber(version);
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "open").qos(1));
        let open = client.expect_publish();
        ring_after(shared_broker(), 1);
        client.ping();
        client.complete(&open);
    }
}

#[test]
fn acknowledged_messages_are_not_resent() {
    for version in Version::BOTH {
        let (connect, mut client, topic) = subscriber(version);
        let mut publisher = shared_broker().client(version);
        for number in 0..3 {
            publisher.publish(Publish::new(&topic, format!("{number}")).qos(1));
        }
        client.expect_message(&topic, "0");
        client.expect_message(&topic, "1");
        client.ping_past_publishes();
        client.cut();
        let mut back = shared_broker().connect(&connect);
        back.expect_message(&topic, "2");
        back.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn pubrel_is_resent_for_what_the_client_has_received() {
    for version in Version::BOTH {
        let (connect, mut client, topic) = subscriber(version);
        let mut publisher = shared_broker().client(version);
        for number in 0..3 {
            publisher.publish(Publish::new(&topic, format!("{number}")).qos(2));
        }
        let ids: Vec<u16> = (0..3).map(|_| client.expect_publish().id).collect();
        for id in &ids {
            client.send_ack(packet_type::PUBREC, *id);
        }
        for id in &ids {
            // [MQTT-4.3.3-4], in the order of the PUBRECs (4.6).
            client.expect_ack(packet_type::PUBREL, *id);
        }
        client.cut();
        let mut back = shared_broker().connect(&connect);
        for id in &ids {
            match back.next_packet() {
                Packet::PubRel(pubrel) => assert_eq!(pubrel.id, *id),
                other => panic!("PUBREL {id} expected, never the PUBLISH again: {other:?}"),
            }
            back.send_ack(packet_type::PUBCOMP, *id);
        }
        back.expect_nothing_from(&mut publisher, 2);
    }
}

#[test]
fn qos_2_from_the_client_continues_on_the_next_connection() {
    for version in Version::BOTH {
        let topic = unique_topic("exactly");
        let mut watcher = shared_broker().client(version);
        watcher.subscribe(&topic, 2);
        let connect = Connect::persistent(version, &unique_id("q2in"));
        let mut client = shared_broker().connect(&connect);
        let publish = Publish::new(&topic, "once").qos(2).id(77);
        client.send_publish(publish.clone());
        client.expect_ack(packet_type::PUBREC, 77);
        client.cut();
        let mut back = shared_broker().connect(&connect);
        assert!(back.connack.session_present);
        back.send_publish(publish.dup());
        back.expect_ack(packet_type::PUBREC, 77);
        back.send_ack(packet_type::PUBREL, 77);
        back.expect_ack(packet_type::PUBCOMP, 77);
        watcher.expect_message(&topic, "once");
        watcher.expect_nothing_from(&mut back, 2);
        // The identifier is free again.
        back.publish(Publish::new(&topic, "next").qos(2).id(77));
        watcher.expect_message(&topic, "next");
    }
}

#[test]
fn retained_messages_outlive_sessions() {
    for version in Version::BOTH {
        let topic = unique_topic("outlive");
        let id = unique_id("keeper");
        let mut publisher = shared_broker().connect(&Connect::new(version, &id));
        publisher.publish(Publish::new(&topic, "kept").qos(1).retain());
        publisher.disconnect();
        let mut late = shared_broker().connect(&Connect::new(version, &id));
        late.subscribe(&topic, 1);
        assert!(late.expect_message(&topic, "kept").retain);
        late.publish(Publish::new(&topic, "").retain());
    }
}

#[test]
fn session_moves_between_protocol_versions() {
    // 3.1.1 knows no expiry interval; its kept session is found by a 5.0 client and back.
    let (connect, client, topic) = subscriber(Version::V311);
    client.disconnect();
    let mut v5 = shared_broker().connect(&Connect::persistent(Version::V5, &connect.client_id));
    assert!(v5.connack.session_present);
    shared_broker().v311().publish(Publish::new(&topic, "to 5.0").qos(1));
    v5.expect_message(&topic, "to 5.0");
    v5.disconnect();
    let mut v311 = shared_broker().connect(&connect);
    assert!(v311.connack.session_present);
    shared_broker().v5().publish(Publish::new(&topic, "to 3.1.1").qos(1));
    v311.expect_message(&topic, "to 3.1.1");
}
