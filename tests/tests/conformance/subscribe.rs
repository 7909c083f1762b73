//! SUBSCRIBE and UNSUBSCRIBE: answers, options, identifiers, replacement and overlap.

use hoopoe_tests::wire::{code, frame, push_field};
use hoopoe_tests::{
    Connect, Packet, Properties, Property, Publish, RawClient, Version, shared_broker, unique_id,
    unique_topic,
};

const NO_LOCAL: u8 = 0x04;
const MALFORMED: [u8; 2] = [code::MALFORMED_PACKET, code::PROTOCOL_ERROR];

fn subscription_id(id: u32) -> Properties {
    Properties(vec![Property::SubscriptionIdentifier(id)])
}

/// SUBSCRIBE with one filter and raw bytes in place of the options.
fn subscribe_bytes(version: Version, filter: &str, options: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    push_field(&mut body, filter.as_bytes());
    body.extend_from_slice(options);
    frame(0x82, &body)
}

/// Unsubscribing must succeed, and say so in 5.0.
fn unsubscribed(client: &mut RawClient, filter: &str) {
    let unsuback = client.unsubscribe(&[filter]);
    assert!(unsuback.codes.iter().all(|code| *code == code::SUCCESS), "{unsuback:?}");
}

#[test]
fn subscribe_is_answered_with_its_identifier_and_a_code_for_each_filter() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        for id in [1u16, 256, 65535] {
            let root = unique_topic("ack");
            let filters: Vec<(String, u8)> =
                (0..9).map(|n| (format!("{root}/{n}"), n % 3)).collect();
            let filters: Vec<(&str, u8)> =
                filters.iter().map(|(filter, qos)| (filter.as_str(), *qos)).collect();
            let none = Properties::default();
            client.send(&hoopoe_tests::wire::subscribe(version, id, &filters, &none));
            match client.next_packet() {
                Packet::SubAck(suback) => {
                    assert_eq!(suback.id, id);
                    assert_eq!(suback.codes, [0, 1, 2, 0, 1, 2, 0, 1, 2], "in their order");
                }
                other => panic!("SUBACK expected, got {other:?}"),
            }
        }
    }
}

#[test]
fn filters_of_one_subscribe_act_as_if_sent_one_by_one() {
    for version in Version::BOTH {
        let root = unique_topic("many");
        let (a, b, wild) = (format!("{root}/a"), format!("{root}/b"), format!("{root}/x/+"));
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&a, "kept").qos(1).retain());
        let mut client = shared_broker().client(version);
        // The same filter twice: the later one replaces the earlier.
        let filters = [(a.as_str(), 2), (b.as_str(), 0), (wild.as_str(), 1), (a.as_str(), 1)];
        let suback = client.subscribe_all(&filters, &Properties::default());
        assert_eq!(suback.codes, [2, 0, 1, 1]);
        let kept = client.take_publish();
        assert_eq!((kept.payload.as_slice(), kept.retain), (&b"kept"[..], true));
        for (topic, qos) in [(&a, 1), (&b, 0), (&format!("{root}/x/y"), 1)] {
            publisher.publish(Publish::new(topic, "new").qos(2));
            loop {
                let publish = client.take_publish();
                // The retained message may come once for each time the filter stands there.
                if publish.payload == b"new" {
                    assert_eq!((&publish.topic, publish.qos), (topic, qos));
                    break;
                }
            }
        }
        publisher.publish(Publish::new(&a, "").retain());
    }
}

#[test]
fn subscribe_without_filters_closes_the_connection() {
    for version in Version::BOTH {
        let body: &[u8] = match version {
            Version::V311 => &[0, 1],
            Version::V5 => &[0, 1, 0],
        };
        for first in [0x82, 0xA2] {
            let mut client = shared_broker().client(version);
            client.send(&frame(first, body));
            client.expect_closed_with(&MALFORMED);
        }
    }
}

#[test]
fn reserved_bits_of_subscription_options_close_the_connection() {
    for options in [0x03, 0x04, 0x08, 0x10, 0x40, 0x80, 0xFC, 0xFF] {
        let mut client = shared_broker().v311();
        client.send(&subscribe_bytes(Version::V311, "a/b", &[options]));
        assert_eq!(client.expect_closed(), None);
    }
    // In 5.0 bits 6 and 7, QoS 3 and retain handling 3.
    for options in [0x40, 0x80, 0xC0, 0x03, 0x30] {
        let mut client = shared_broker().v5();
        client.send(&subscribe_bytes(Version::V5, "a/b", &[options]));
        client.expect_closed_with(&MALFORMED);
    }
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        client.send(&subscribe_bytes(version, "a/b", &[]));
        client.expect_closed_with(&MALFORMED);
    }
}

#[test]
fn same_filter_again_replaces_the_subscription() {
    for version in Version::BOTH {
        let topic = unique_topic("again");
        let mut client = shared_broker().client(version);
        let mut publisher = shared_broker().client(version);
        for granted in [2, 0, 1] {
            client.subscribe(&topic, granted);
            publisher.publish(Publish::new(&topic, "x").qos(2));
            assert_eq!(client.expect_message(&topic, "x").qos, granted);
            client.expect_nothing_from(&mut publisher, 2);
        }
        unsubscribed(&mut client, &topic);
        publisher.publish(Publish::new(&topic, "x").qos(2));
        client.expect_nothing_from(&mut publisher, 2);
    }
}

#[test]
fn no_message_is_lost_while_a_subscription_is_replaced() {
    for version in Version::BOTH {
        let topic = unique_topic("flow");
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 1);
        let mut publisher = shared_broker().client(version);
        let mut bytes = Vec::new();
        for id in 1..=200u16 {
            bytes.extend(Publish::new(&topic, format!("{id}")).qos(1).id(id).encode(version));
        }
        publisher.send(&bytes);
        let mut got = Vec::new();
        for round in 0..10u8 {
            client.subscribe(&topic, 1);
            for _ in 0..10 {
                got.push(client.take_publish().payload);
            }
            assert_eq!(got.len(), usize::from(round + 1) * 10);
        }
        while got.len() < 200 {
            got.push(client.take_publish().payload);
        }
        let wanted: Vec<Vec<u8>> = (1..=200).map(|id| format!("{id}").into_bytes()).collect();
        assert_eq!(got, wanted);
    }
}

#[test]
fn overlapping_subscriptions_deliver_with_the_highest_qos() {
    for version in Version::BOTH {
        let root = unique_topic("overlap");
        let topic = format!("{root}/a/b");
        let mut client = shared_broker().client(version);
        client.subscribe(&format!("{root}/#"), 0);
        client.subscribe(&format!("{root}/+/b"), 2);
        client.subscribe(&topic, 1);
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "x").qos(2));
        assert_eq!(client.expect_message(&topic, "x").qos, 2);
        // One copy, not three: the house's choice of the two the standard leaves.
        client.expect_nothing_from(&mut publisher, 2);
    }
}

#[test]
fn overlapping_subscriptions_deliver_all_their_identifiers() {
    let root = unique_topic("ids");
    let topic = format!("{root}/a");
    let mut client = shared_broker().v5();
    client.subscribe_all(&[(&format!("{root}/#"), 1)], &subscription_id(1));
    client.subscribe_all(&[(&format!("{root}/+"), 0)], &subscription_id(268_435_455));
    client.subscribe_all(&[(&topic, 2)], &subscription_id(1));
    client.subscribe_all(&[("test/#", 0)], &Properties::default());
    let mut publisher = shared_broker().v5();
    publisher.publish(Publish::new(&topic, "x").qos(1));
    loop {
        // `test/#` also sees what other tests publish.
        let publish = client.take_publish();
        if publish.topic == topic {
            let mut ids = publish.properties.subscription_ids();
            ids.dedup();
            assert_eq!(ids, [1, 268_435_455]);
            return;
        }
    }
}

#[test]
fn subscription_identifier_comes_with_the_message_and_follows_its_subscription() {
    let topic = unique_topic("id");
    let connect = Connect::persistent(Version::V5, &unique_id("subid"));
    let mut client = shared_broker().connect(&connect);
    let mut publisher = shared_broker().v5();
    let mut ids = |client: &mut RawClient| {
        publisher.publish(Publish::new(&topic, "x").qos(1));
        client.expect_message(&topic, "x").properties.subscription_ids()
    };
    client.subscribe_all(&[(&topic, 1)], &subscription_id(7));
    assert_eq!(ids(&mut client), [7]);
    client.subscribe_all(&[(&topic, 1)], &subscription_id(8));
    assert_eq!(ids(&mut client), [8], "replaced with the subscription");
    client.disconnect();
    let mut back = shared_broker().connect(&connect);
    assert_eq!(ids(&mut back), [8], "part of the session");
    back.subscribe(&topic, 1);
    assert!(ids(&mut back).is_empty(), "replaced by one without");
}

#[test]
fn subscription_identifier_must_be_in_range_and_single() {
    let cases: [&[u8]; 3] = [&[0x0B, 0], &[0x0B, 1, 0x0B, 2], &[0x0B, 0x80, 0x80, 0x80, 0x80, 1]];
    for properties in cases {
        let mut body = vec![0, 1, u8::try_from(properties.len()).expect("a few bytes")];
        body.extend_from_slice(properties);
        push_field(&mut body, b"a/b");
        body.push(0);
        let mut client = shared_broker().v5();
        client.send(&frame(0x82, &body));
        client.expect_closed_with(&MALFORMED);
    }
}

#[test]
fn no_local_keeps_a_client_from_its_own_messages() {
    let topic = unique_topic("local");
    let mut client = shared_broker().v5();
    client.subscribe(&topic, 1 | NO_LOCAL);
    let mut other = shared_broker().v5();
    other.subscribe(&topic, 1);
    client.publish(Publish::new(&topic, "mine").qos(1));
    other.expect_message(&topic, "mine");
    other.publish(Publish::new(&topic, "yours").qos(1));
    client.expect_message(&topic, "yours");
    other.expect_message(&topic, "yours");
}

#[test]
fn no_local_of_one_subscription_does_not_silence_another() {
    let root = unique_topic("local");
    let topic = format!("{root}/a");
    let mut client = shared_broker().v5();
    client.subscribe_all(&[(&topic, 1 | NO_LOCAL)], &subscription_id(1));
    client.subscribe_all(&[(&format!("{root}/+"), 1)], &subscription_id(2));
    client.publish(Publish::new(&topic, "mine").qos(1));
    let publish = client.expect_message(&topic, "mine");
    assert_eq!(publish.properties.subscription_ids(), [2]);
    client.ping();
}

#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut client = shared_broker().v5();
    let filter = format!("$share/g/{}", unique_topic("local"));
    client.send(&subscribe_bytes(Version::V5, &filter, &[1 | NO_LOCAL]));
    client.expect_closed_with(&[code::PROTOCOL_ERROR]);
}

#[test]
fn unsubscribe_is_always_answered_with_its_identifier() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        let topic = unique_topic("un");
        client.subscribe(&topic, 0);
        // One that is there, one that is not, and the first again.
        let unknown = unique_topic("unknown");
        let unsuback = client.unsubscribe(&[&topic, &unknown, &topic]);
        if version == Version::V5 {
            let none = code::NO_SUBSCRIPTION_EXISTED;
            assert_eq!(unsuback.codes, [code::SUCCESS, none, none], "in their order");
        }
        client.send(&hoopoe_tests::wire::unsubscribe(version, 65535, &["never/there"]));
        match client.next_packet() {
            Packet::UnsubAck(unsuback) => assert_eq!(unsuback.id, 65535),
            other => panic!("UNSUBACK expected, got {other:?}"),
        }
    }
}

#[test]
fn unsubscribe_stops_new_messages() {
    for version in Version::BOTH {
        let root = unique_topic("stop");
        let mut client = shared_broker().client(version);
        let mut publisher = shared_broker().client(version);
        let filters = [format!("{root}/+"), format!("{root}/a"), format!("{root}/#")];
        for filter in &filters {
            client.subscribe(filter, 1);
        }
        unsubscribed(&mut client, &filters[0]);
        unsubscribed(&mut client, &filters[1]);
        publisher.publish(Publish::new(&filters[1], "still by #").qos(1));
        client.expect_message(&filters[1], "still by #");
        unsubscribed(&mut client, &filters[2]);
        publisher.publish(Publish::new(&filters[1], "not any more").qos(1));
        client.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn unsubscribe_compares_filters_character_by_character() {
    for version in Version::BOTH {
        let root = unique_topic("exact");
        let topic = format!("{root}/a");
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 1);
        for other in [format!("{root}/+"), format!("{root}/#"), format!("{topic}/"), "#".into()] {
            let unsuback = client.unsubscribe(&[&other]);
            assert!(unsuback.codes.iter().all(|code| *code == code::NO_SUBSCRIPTION_EXISTED));
        }
        shared_broker().client(version).publish(Publish::new(&topic, "still").qos(1));
        client.expect_message(&topic, "still");
    }
}

#[test]
fn unsubscribe_lets_begun_deliveries_finish() {
    for version in Version::BOTH {
        let topic = unique_topic("begun");
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 2);
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "one").qos(1));
        publisher.publish(Publish::new(&topic, "two").qos(2));
        let one = client.expect_publish();
        let two = client.expect_publish();
        unsubscribed(&mut client, &topic);
        client.complete(&one);
        client.complete(&two);
        client.expect_nothing_from(&mut publisher, 2);
    }
}

#[test]
fn unfinished_delivery_survives_unsubscribe_and_reconnect() {
    for version in Version::BOTH {
        let topic = unique_topic("begun");
        let connect = Connect::persistent(version, &unique_id("unsub"));
        let mut client = shared_broker().connect(&connect);
        client.subscribe(&topic, 2);
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "two").qos(2));
        let first = client.expect_publish();
        unsubscribed(&mut client, &topic);
        client.cut();
        let mut back = shared_broker().connect(&connect);
        let again = back.expect_publish();
        assert_eq!((again.id, again.dup), (first.id, true));
        back.complete(&again);
        back.expect_nothing_from(&mut publisher, 2);
    }
}

#[test]
fn reason_codes_of_suback_and_unsuback_are_those_of_the_table() {
    // The raw client refuses any other; here each kind of answer is made to happen.
    let mut client = shared_broker().v5();
    let good = unique_topic("good");
    let share = format!("$share/g/{good}");
    let filters = [(good.as_str(), 2), ("a/#/b", 0), (share.as_str(), 1), ("$share//x", 0)];
    let suback = client.subscribe_all(&filters, &Properties::default());
    assert_eq!(suback.codes[0], 2);
    assert_eq!(suback.codes[1], code::TOPIC_FILTER_INVALID);
    assert_eq!(suback.codes[2], 1);
    assert_eq!(suback.codes[3], code::TOPIC_FILTER_INVALID);
    let unsuback = client.unsubscribe(&[&good, &share, "never/there"]);
    assert_eq!(unsuback.codes, [0, 0, code::NO_SUBSCRIPTION_EXISTED]);
}
