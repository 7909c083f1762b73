//! PUBLISH: topic names, flags, acknowledgements and the properties that travel with a message.

use hoopoe_tests::client::ring_after;
use hoopoe_tests::wire::{code, packet_type};
use hoopoe_tests::{
    Connect, Packet, Property, Publish, Version, shared_broker, unique_id, unique_topic,
};

const MALFORMED: [u8; 3] = [code::MALFORMED_PACKET, code::PROTOCOL_ERROR, code::TOPIC_NAME_INVALID];

#[test]
fn message_reaches_every_matching_subscriber_unchanged() {
    for version in Version::BOTH {
        let broker = shared_broker();
        let topic = unique_topic("reach");
        let payload: Vec<u8> = (0..=255).collect();
        let mut exact = broker.v311();
        let mut wild = broker.v5();
        exact.subscribe(&topic, 0);
        wild.subscribe(&topic.replace("test/", "+/"), 0);
        broker.client(version).publish(Publish::new(&topic, &payload));
        for subscriber in [&mut exact, &mut wild] {
            let publish = subscriber.expect_publish();
            assert_eq!((publish.topic, publish.payload), (topic.clone(), payload.clone()));
        }
    }
}

#[test]
fn empty_payload_is_a_message() {
    for version in Version::BOTH {
        let topic = unique_topic("empty");
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 1);
        client.publish(Publish::new(&topic, "").qos(1));
        client.expect_message(&topic, "");
    }
}

#[test]
fn topic_name_with_a_wildcard_closes_the_connection() {
    for version in Version::BOTH {
        for topic in ["a/#", "#", "a/+/b", "+", "a+", "b#"] {
            let mut client = shared_broker().client(version);
            client.send_publish(Publish::new(topic, "x"));
            client.expect_closed_with(&MALFORMED);
        }
    }
}

#[test]
fn empty_topic_name_closes_the_connection() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        client.send_publish(Publish::new("", "x"));
        client.expect_closed_with(&MALFORMED);
    }
}

#[test]
fn response_topic_with_a_wildcard_closes_the_connection() {
    for topic in ["answers/#", "answers/+"] {
        let mut client = shared_broker().v5();
        let publish =
            Publish::new(&unique_topic("ask"), "?").with(Property::ResponseTopic(topic.to_owned()));
        client.send_publish(publish);
        client.expect_closed_with(&MALFORMED);
    }
}

#[test]
fn qos_0_carries_no_packet_identifier() {
    for version in Version::BOTH {
        let topic = unique_topic("q0");
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 2);
        // Were the first two bytes of the payload read as an identifier, they would be missing.
        client.publish(Publish::new(&topic, [0, 9, 1]));
        let publish = client.expect_publish();
        assert_eq!((publish.qos, publish.payload), (0, vec![0, 9, 1]));
    }
}

#[test]
fn acknowledgements_carry_the_identifier_of_the_publish() {
    for version in Version::BOTH {
        let topic = unique_topic("ids");
        let mut client = shared_broker().client(version);
        for id in [1u16, 2, 255, 256, 1000, 65535] {
            client.send_publish(Publish::new(&topic, "x").qos(1).id(id));
            client.expect_ack(packet_type::PUBACK, id);
            client.send_publish(Publish::new(&topic, "x").qos(2).id(id));
            client.expect_ack(packet_type::PUBREC, id);
            client.send_ack(packet_type::PUBREL, id);
            client.expect_ack(packet_type::PUBCOMP, id);
        }
    }
}

#[test]
fn acknowledgements_leave_in_the_order_of_arrival() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        let topic = unique_topic("acks");
        let mut bytes = Vec::new();
        for id in 1..=50u16 {
            let publish = Publish::new(&topic, "x").qos(1 + (id % 2) as u8).id(id);
            bytes.extend(publish.encode(version));
        }
        client.send(&bytes);
        for id in 1..=50u16 {
            match client.next_packet() {
                Packet::PubAck(ack) | Packet::PubRec(ack) => assert_eq!(ack.id, id),
                other => panic!("acknowledgement of {id} expected, got {other:?}"),
            }
        }
    }
}

#[test]
fn publish_without_a_subscriber_is_acknowledged() {
    for version in Version::BOTH {
        for qos in [1, 2] {
            let mut client = shared_broker().client(version);
            let code = client.try_publish(Publish::new(&unique_topic("nobody"), "x").qos(qos));
            assert!([code::SUCCESS, code::NO_MATCHING_SUBSCRIBERS].contains(&code), "{code:#04x}");
        }
    }
}

#[test]
fn dup_flag_is_not_passed_on() {
    for version in Version::BOTH {
        for qos in [1, 2] {
            let topic = unique_topic("dup");
            let mut client = shared_broker().client(version);
            client.subscribe(&topic, qos);
            client.publish(Publish::new(&topic, "x").qos(qos).dup());
            let publish = client.expect_message(&topic, "x");
            assert_eq!((publish.qos, publish.dup), (qos, false));
        }
    }
}

#[test]
fn qos_of_a_delivery_is_the_lower_of_publication_and_subscription() {
    for version in Version::BOTH {
        for granted in 0..3 {
            for published in 0..3 {
                let topic = unique_topic("lower");
                let mut client = shared_broker().client(version);
                client.subscribe(&topic, granted);
                client.publish(Publish::new(&topic, "x").qos(published));
                let publish = client.expect_message(&topic, "x");
                assert_eq!(publish.qos, granted.min(published));
            }
        }
    }
}

#[test]
fn identifiers_of_the_server_are_unused_and_not_zero() {
    for version in Version::BOTH {
        let topic = unique_topic("unused");
        let mut subscriber = shared_broker().client(version);
        subscriber.subscribe(&topic, 2);
        let mut publisher = shared_broker().client(version);
        for number in 0..20u8 {
            publisher.publish(Publish::new(&topic, [number]).qos(1 + number % 2));
        }
        let mut open: Vec<u16> = (0..20).map(|_| subscriber.expect_publish().id).collect();
        open.sort_unstable();
        open.dedup();
        assert_eq!(open.len(), 20, "twenty messages in flight, all with identifiers of their own");
        assert_ne!(open[0], 0);
    }
}

#[test]
fn client_and_server_identifiers_are_independent() {
    for version in Version::BOTH {
        let topic = unique_topic("same");
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 2);
        // Both directions use the same small identifiers at the same time.
        for id in 1..=5u16 {
            client.send_publish(Publish::new(&topic, format!("{id}")).qos(2).id(id));
            client.expect_ack(packet_type::PUBREC, id);
        }
        for id in 1..=5u16 {
            client.send_ack(packet_type::PUBREL, id);
            client.expect_ack(packet_type::PUBCOMP, id);
        }
        for id in 1..=5u16 {
            client.expect_message(&topic, format!("{id}"));
        }
    }
}

#[test]
fn properties_of_a_message_are_passed_on_unaltered_and_in_order() {
    let topic = unique_topic("props");
    let user = |name: &str, value: &str| Property::UserProperty(name.into(), value.into());
    let properties = [
        user("first", "1"),
        Property::PayloadFormatIndicator(1),
        Property::ContentType("application/vögel".into()),
        user("second", ""),
        Property::ResponseTopic("some/answer".into()),
        Property::CorrelationData(vec![0, 1, 255, 0]),
        user("first", "3"),
        user("", "no name"),
    ];
    for qos in 0..3 {
        for retain in [false, true] {
            let mut live = shared_broker().v5();
            live.subscribe(&topic, qos);
            let mut publish = Publish::new(&topic, "text").qos(qos);
            publish.retain = retain;
            publish.properties.0 = properties.to_vec();
            shared_broker().v5().publish(publish);
            let mut got = vec![live.expect_message(&topic, "text")];
            if retain {
                let mut late = shared_broker().v5();
                late.subscribe(&topic, qos);
                got.push(late.expect_message(&topic, "text"));
                late.publish(Publish::new(&topic, "").qos(1).retain());
            }
            for publish in got {
                let got = &publish.properties;
                let names = got.user_properties();
                assert_eq!(
                    names,
                    [("first", "1"), ("second", ""), ("first", "3"), ("", "no name")],
                    "user properties in their order"
                );
                for wanted in &properties {
                    assert!(got.0.contains(wanted), "{wanted:?} in {got:?}");
                }
                assert_eq!(got.0.len(), properties.len(), "nothing is added: {got:?}");
            }
        }
    }
}

#[test]
fn properties_of_a_queued_message_are_kept() {
    let topic = unique_topic("queued");
    let connect = Connect::persistent(Version::V5, &unique_id("props"));
    let mut subscriber = shared_broker().connect(&connect);
    subscriber.subscribe(&topic, 1);
    subscriber.disconnect();
    let kept = [
        Property::PayloadFormatIndicator(0),
        Property::ContentType("a/b".into()),
        Property::CorrelationData(vec![9; 300]),
        Property::UserProperty("k".into(), "v".into()),
    ];
    let mut publish = Publish::new(&topic, "later").qos(1);
    publish.properties.0 = kept.to_vec();
    shared_broker().v5().publish(publish);
    let mut back = shared_broker().connect(&connect);
    let publish = back.expect_message(&topic, "later");
    for wanted in &kept {
        assert!(publish.properties.0.contains(wanted), "{wanted:?} in {:?}", publish.properties);
    }
}

#[test]
fn properties_do_not_reach_a_v311_client() {
    let topic = unique_topic("mixed");
    let mut subscriber = shared_broker().v311();
    subscriber.subscribe(&topic, 1);
    let publish = Publish::new(&topic, "plain")
        .qos(1)
        .with(Property::ContentType("text/plain".into()))
        .with(Property::UserProperty("a".into(), "b".into()));
    shared_broker().v5().publish(publish);
    subscriber.expect_message(&topic, "plain");
}

#[test]
fn client_must_not_send_a_subscription_identifier() {
    let mut client = shared_broker().v5();
    let publish =
        Publish::new(&unique_topic("subid"), "x").with(Property::SubscriptionIdentifier(3));
    client.send_publish(publish);
    client.expect_closed_with(&[code::PROTOCOL_ERROR, code::MALFORMED_PACKET]);
}

#[test]
fn publish_the_broker_does_not_allow_is_answered_but_not_delivered() {
    for version in Version::BOTH {
        for qos in 0..3 {
            // Nobody may publish below $SYS.
            let topic = format!("$SYS/{}", unique_topic("forged"));
            let mut watcher = shared_broker().client(version);
            if watcher.try_subscribe(&topic, qos) >= 0x80 {
                continue;
            }
            let mut client = shared_broker().client(version);
            let id = client.send_publish(Publish::new(&topic, "forged").qos(qos));
            match (version, qos, client.receive_after_ping()) {
                (_, 0, None) => {}
                (Version::V311, _, Some(Packet::PubAck(ack) | Packet::PubRec(ack))) => {
                    assert_eq!(ack.id, id);
                }
                (Version::V5, _, Some(Packet::PubAck(ack) | Packet::PubRec(ack))) => {
                    assert!([code::NOT_AUTHORIZED, code::TOPIC_NAME_INVALID].contains(&ack.code));
                }
                // Closed: 3.1.1 allows it [MQTT-3.3.5-2], and so does 5.0.
                (_, _, None) => {}
                (_, _, other) => panic!("PUBLISH answered by {other:?}"),
            }
            watcher.expect_nothing_from(&mut shared_broker().client(version), qos);
        }
    }
}

#[test]
fn message_expiry_interval_counts_down_while_a_message_waits() {
    let topic = unique_topic("expiry");
    let connect = Connect::persistent(Version::V5, &unique_id("expiry"));
    let mut subscriber = shared_broker().connect(&connect);
    subscriber.subscribe(&topic, 1);
    subscriber.disconnect();
    let mut publisher = shared_broker().v5();
    let expiring = |secs: u32, text: &str| {
        Publish::new(&topic, text).qos(1).with(Property::MessageExpiryInterval(secs))
    };
    publisher.publish(expiring(1, "too late"));
    publisher.publish(expiring(1000, "in time"));
    publisher.publish(Publish::new(&topic, "whenever").qos(1));
    ring_after(shared_broker(), 2);
    let mut back = shared_broker().connect(&connect);
    let in_time = back.expect_message(&topic, "in time");
    let left = in_time.properties.message_expiry_secs().expect("an expiry interval");
    assert!((900..=998).contains(&left), "{left} s left of 1000 after two");
    let whenever = back.expect_message(&topic, "whenever");
    assert_eq!(whenever.properties.message_expiry_secs(), None);
    back.expect_nothing_from(&mut publisher, 1);
}

#[test]
fn expired_retained_message_is_gone() {
    let topic = unique_topic("expiry");
    let mut publisher = shared_broker().v5();
    let retained = |topic: &str, secs: u32| {
        Publish::new(topic, "state").qos(1).retain().with(Property::MessageExpiryInterval(secs))
    };
    publisher.publish(retained(&format!("{topic}/short"), 1));
    publisher.publish(retained(&format!("{topic}/long"), 1000));
    ring_after(shared_broker(), 2);
    let mut late = shared_broker().v5();
    late.subscribe(&format!("{topic}/+"), 1);
    let left = late.expect_message(&format!("{topic}/long"), "state");
    let left = left.properties.message_expiry_secs().expect("an expiry interval");
    assert!((900..=998).contains(&left), "{left} s left of 1000 after two");
    late.expect_nothing_from(&mut publisher, 1);
    publisher.publish(Publish::new(&format!("{topic}/long"), "").retain());
}

#[test]
fn message_in_delivery_does_not_expire() {
    let topic = unique_topic("started");
    let connect = Connect::persistent(Version::V5, &unique_id("started"));
    let mut subscriber = shared_broker().connect(&connect);
    subscriber.subscribe(&topic, 2);
    let mut publisher = shared_broker().v5();
    publisher
        .publish(Publish::new(&topic, "begun").qos(2).with(Property::MessageExpiryInterval(1)));
    let first = subscriber.expect_publish();
    subscriber.cut();
    ring_after(shared_broker(), 2);
    let mut back = shared_broker().connect(&connect);
    let again = back.expect_publish();
    assert_eq!((again.id, again.dup), (first.id, true), "the delivery goes on [MQTT-4.3.3-7]");
    back.complete(&again);
    back.expect_nothing_from(&mut publisher, 2);
}
