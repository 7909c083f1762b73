//! Flow control, topic aliases, packet sizes and what a client asked the broker not to send.

use hoopoe_tests::wire::{PINGREQ, code, packet_type};
use hoopoe_tests::{
    Connect, Packet, Property, Publish, RawClient, Version, shared_broker, unique_id, unique_topic,
};

/// Receive Maximum and Topic Alias Maximum a CONNACK without the property stands for.
const DEFAULT_RECEIVE_MAXIMUM: u16 = 65535;

fn v5_with(property: Property) -> RawClient {
    shared_broker().connect(&Connect::v5(&unique_id("flow")).with(property))
}

#[test]
fn server_keeps_to_the_receive_maximum_of_the_client() {
    for qos in [1, 2] {
        let topic = unique_topic("window");
        let mut client = v5_with(Property::ReceiveMaximum(3));
        client.subscribe(&topic, qos);
        let mut publisher = shared_broker().v5();
        for number in 0..10 {
            publisher.publish(Publish::new(&topic, format!("{number}")).qos(qos));
        }
        let mut open: Vec<Publish> = (0..3).map(|_| client.expect_publish()).collect();
        client.ping();
        for number in 3..10 {
            // Each acknowledgement frees one place.
            let oldest = open.remove(0);
            client.complete(&oldest);
            let next = client.expect_publish();
            assert_eq!(next.payload, format!("{number}").into_bytes());
            client.ping();
            open.push(next);
        }
    }
}

#[test]
fn pubrec_with_an_error_frees_a_place_and_without_one_does_not() {
    let topic = unique_topic("window");
    let mut client = v5_with(Property::ReceiveMaximum(1));
    client.subscribe(&topic, 2);
    let mut publisher = shared_broker().v5();
    for number in 0..3 {
        publisher.publish(Publish::new(&topic, format!("{number}")).qos(2));
    }
    let first = client.expect_publish();
    client.send_ack(packet_type::PUBREC, first.id);
    client.expect_ack(packet_type::PUBREL, first.id);
    client.ping();
    client.send_ack(packet_type::PUBCOMP, first.id);
    let second = client.expect_publish();
    client.send_ack_code(packet_type::PUBREC, second.id, code::UNSPECIFIED_ERROR);
    let third = client.expect_publish();
    assert_eq!(third.payload, b"2");
    client.complete(&third);
}

#[test]
fn full_window_delays_nothing_but_publish() {
    let topic = unique_topic("full");
    let other = unique_topic("other");
    let mut client = v5_with(Property::ReceiveMaximum(1));
    client.subscribe(&topic, 1);
    client.subscribe(&other, 0);
    let mut publisher = shared_broker().v5();
    publisher.publish(Publish::new(&topic, "one").qos(1));
    publisher.publish(Publish::new(&topic, "two").qos(1));
    let one = client.expect_publish();
    // Everything else goes on: PINGRESP, SUBACK, UNSUBACK, PUBACK, PUBREC, PUBCOMP.
    client.ping();
    client.subscribe(&unique_topic("more"), 0);
    client.unsubscribe(&["never/there"]);
    client.publish(Publish::new(&unique_topic("out"), "x").qos(1));
    client.publish(Publish::new(&unique_topic("out"), "x").qos(2));
    // QoS 0 needs no place in the window.
    publisher.publish(Publish::new(&other, "free"));
    client.expect_message(&other, "free");
    client.complete(&one);
    client.expect_message(&topic, "two");
}

#[test]
fn receive_maximum_also_bounds_what_is_resent() {
    let topic = unique_topic("resend");
    let connect = Connect::persistent(Version::V5, &unique_id("flow"));
    let mut client = shared_broker().connect(&connect);
    client.subscribe(&topic, 1);
    let mut publisher = shared_broker().v5();
    for number in 0..5 {
        publisher.publish(Publish::new(&topic, format!("{number}")).qos(1));
    }
    for _ in 0..5 {
        client.expect_publish();
    }
    client.cut();
    let mut back = shared_broker().connect(&connect.with(Property::ReceiveMaximum(2)));
    let mut open: Vec<Publish> = (0..2).map(|_| back.expect_publish()).collect();
    back.ping();
    for number in 2..5 {
        back.complete(&open.remove(0));
        let next = back.expect_publish();
        assert_eq!(next.payload, format!("{number}").into_bytes());
        back.ping();
        open.push(next);
    }
}

#[test]
fn client_that_exceeds_the_receive_maximum_is_disconnected() {
    let mut client = shared_broker().v5();
    let announced = client.connack.properties.receive_maximum();
    let maximum = announced.unwrap_or(DEFAULT_RECEIVE_MAXIMUM);
    assert!(maximum < DEFAULT_RECEIVE_MAXIMUM, "the broker bounds what it takes in");
    let topic = unique_topic("exceed");
    for id in 1..=maximum {
        client.send_publish(Publish::new(&topic, "x").qos(2).id(id));
    }
    for id in 1..=maximum {
        client.expect_ack(packet_type::PUBREC, id);
    }
    // All places are taken until PUBCOMP; one more is too many.
    client.ping();
    client.send_publish(Publish::new(&topic, "x").qos(2).id(maximum + 1));
    client.expect_disconnect(code::RECEIVE_MAXIMUM_EXCEEDED);
}

#[test]
fn window_of_the_server_opens_with_each_finished_handshake() {
    let mut client = shared_broker().v5();
    let maximum = client.connack.properties.receive_maximum().expect("an announced maximum");
    let topic = unique_topic("reuse");
    for round in 0..3u16 {
        for id in 1..=maximum {
            client.send_publish(Publish::new(&topic, format!("{round}")).qos(2).id(id));
        }
        for id in 1..=maximum {
            client.expect_ack(packet_type::PUBREC, id);
            client.send_ack(packet_type::PUBREL, id);
        }
        for id in 1..=maximum {
            client.expect_ack(packet_type::PUBCOMP, id);
        }
    }
}

#[test]
fn v311_window_is_bounded_and_moves_on() {
    let topic = unique_topic("v311");
    let mut client = shared_broker().v311();
    client.subscribe(&topic, 1);
    let mut publisher = shared_broker().v5();
    for number in 0..150 {
        publisher.publish(Publish::new(&topic, format!("{number}")).qos(1));
    }
    for number in 0..150 {
        client.expect_message(&topic, format!("{number}"));
    }
}

#[test]
fn message_larger_than_the_client_takes_is_dropped_and_the_next_delivered() {
    for qos in 0..3 {
        let topic = unique_topic("size");
        let connect = Connect::persistent(Version::V5, &unique_id("size"))
            .with(Property::MaximumPacketSize(200))
            .with(Property::ReceiveMaximum(2));
        let mut client = shared_broker().connect(&connect);
        client.subscribe(&topic, qos);
        let mut publisher = shared_broker().v5();
        for _ in 0..4 {
            // More oversize messages than the window has places.
            publisher.publish(Publish::new(&topic, [b'x'; 300]).qos(qos));
        }
        publisher.publish(Publish::new(&topic, "small").qos(qos));
        client.expect_message(&topic, "small");
        client.ping();
        client.cut();
        // It counts as delivered: nothing of it waits in the session.
        let larger = Connect::persistent(Version::V5, &connect.client_id);
        let mut back = shared_broker().connect(&larger);
        back.expect_nothing_from(&mut publisher, qos);
    }
}

/// Each counts as delivered at once: with nothing for the client to acknowledge, none may be left to
/// wait for an acknowledgement.
#[test]
fn messages_larger_than_the_client_takes_leave_its_window_open() {
    /// More than the complete messages that a window holds behind an open one.
    const MANY: usize = 8_200;
    let topic = unique_topic("many");
    let mut client = v5_with(Property::MaximumPacketSize(200));
    client.subscribe(&topic, 1);
    let mut publisher = shared_broker().v5();
    for _ in 0..MANY {
        publisher.publish(Publish::new(&topic, [b'x'; 300]).qos(1));
    }
    publisher.publish(Publish::new(&topic, "small").qos(1));
    client.expect_message(&topic, "small");
}

#[test]
fn message_of_exactly_the_maximum_packet_size_is_delivered() {
    let topic = unique_topic("exact");
    let publish = Publish::new(&topic, [b'x'; 150]);
    let length = publish.encode(Version::V5).len();
    let maximum =
        |length: usize| Property::MaximumPacketSize(u32::try_from(length).expect("small"));
    let mut fits = v5_with(maximum(length));
    let mut short = v5_with(maximum(length - 1));
    fits.subscribe(&topic, 0);
    short.subscribe(&topic, 0);
    let mut publisher = shared_broker().v5();
    publisher.publish(publish);
    fits.expect_message(&topic, [b'x'; 150]);
    short.expect_nothing_from(&mut publisher, 0);
}

#[test]
fn packet_larger_than_the_server_takes_closes_the_connection() {
    for version in Version::BOTH {
        let v5 = shared_broker().v5();
        let maximum = v5.connack.properties.maximum_packet_size().expect("an announced maximum");
        let mut client = shared_broker().client(version);
        // The header alone tells; the body is never sent.
        let mut bytes = vec![0x30];
        hoopoe_tests::wire::push_length(&mut bytes, maximum as usize);
        client.send(&bytes);
        client.expect_closed_with(&[code::PACKET_TOO_LARGE]);
    }
}

#[test]
fn largest_packet_the_server_takes_is_delivered() {
    let v5 = shared_broker().v5();
    let maximum = v5.connack.properties.maximum_packet_size().expect("an announced maximum");
    let topic = unique_topic("large");
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 1);
        let empty = Publish::new(&topic, "").qos(1).id(1).encode(version).len();
        // Two more length bytes than an empty packet has.
        let payload = vec![b'x'; maximum as usize - empty - 3];
        shared_broker().client(version).publish(Publish::new(&topic, &payload).qos(1));
        client.expect_message(&topic, &payload);
    }
}

#[test]
fn reason_strings_keep_to_the_maximum_packet_size() {
    let mut client = v5_with(Property::MaximumPacketSize(60));
    // Every kind of answer that could carry a reason: the raw client checks nothing but the size.
    let long = format!("$share/g/a#/{}", "x".repeat(200));
    let suback = client.subscribe_all(&[(&long, 0)], &Default::default());
    assert_eq!(suback.codes, [code::TOPIC_FILTER_INVALID]);
    assert!(client.last_packet_length() <= 60);
    client.unsubscribe(&[&"never/there".repeat(20)]);
    assert!(client.last_packet_length() <= 60);
    client.send_ack(packet_type::PUBREL, 17);
    client.expect_ack(packet_type::PUBCOMP, 17);
    assert!(client.last_packet_length() <= 60);
    client.send_ack(packet_type::PUBREC, 18);
    client.expect_ack(packet_type::PUBREL, 18);
    assert!(client.last_packet_length() <= 60);
    for qos in [1, 2] {
        let refused = format!("$SYS/{}", "refused/".repeat(20));
        client.try_publish(Publish::new(&refused, "x").qos(qos));
        assert!(client.last_packet_length() <= 60);
    }
    client.send(&[0xC0, 0x80, 0x00]);
    match client.next_packet() {
        Packet::Disconnect(disconnect) => assert_eq!(disconnect.code, code::MALFORMED_PACKET),
        other => panic!("DISCONNECT expected, got {other:?}"),
    }
    assert!(client.last_packet_length() <= 60);
}

#[test]
fn no_reasons_are_sent_to_a_client_that_wants_none() {
    let mut client = v5_with(Property::RequestProblemInformation(0));
    let suback = client.subscribe_all(&[("a#", 0)], &Default::default());
    assert!(suback.properties.0.is_empty(), "{suback:?}");
    let unsuback = client.unsubscribe(&["never/there"]);
    assert!(unsuback.properties.0.is_empty(), "{unsuback:?}");
    client.send_ack(packet_type::PUBREL, 17);
    assert!(client.expect_ack(packet_type::PUBCOMP, 17).properties.0.is_empty());
    client.send_ack(packet_type::PUBREC, 18);
    assert!(client.expect_ack(packet_type::PUBREL, 18).properties.0.is_empty());
    let id = client.send_publish(Publish::new("$SYS/refused", "x").qos(1));
    assert!(client.expect_ack(packet_type::PUBACK, id).properties.0.is_empty());
    let id = client.send_publish(Publish::new("$SYS/refused", "x").qos(2));
    assert!(client.expect_ack(packet_type::PUBREC, id).properties.0.is_empty());
}

#[test]
fn topic_alias_of_the_client_stands_for_its_topic() {
    let (first, second) = (unique_topic("alias"), unique_topic("alias"));
    let mut watcher = shared_broker().v5();
    watcher.subscribe(&first, 1);
    watcher.subscribe(&second, 1);
    let mut client = shared_broker().v5();
    let maximum = client.connack.properties.topic_alias_maximum().expect("aliases are allowed");
    for alias in [1, maximum] {
        let with = |topic: &str, text: &str| {
            Publish::new(topic, text).qos(1).with(Property::TopicAlias(alias))
        };
        client.publish(with(&first, "set"));
        client.publish(with("", "used"));
        client.publish(with(&second, "changed"));
        client.publish(with("", "used again"));
        watcher.expect_message(&first, "set");
        watcher.expect_message(&first, "used");
        watcher.expect_message(&second, "changed");
        let publish = watcher.expect_message(&second, "used again");
        assert_eq!(publish.properties.topic_alias(), None, "aliases are not passed on");
    }
}

#[test]
fn every_announced_topic_alias_is_accepted() {
    let topic = unique_topic("every");
    let mut client = shared_broker().v5();
    let maximum = client.connack.properties.topic_alias_maximum().expect("aliases are allowed");
    client.subscribe(&topic, 0);
    for alias in 1..=maximum {
        client.publish(Publish::new(&topic, "x").with(Property::TopicAlias(alias)));
    }
    for alias in 1..=maximum {
        client.publish(Publish::new("", format!("{alias}")).with(Property::TopicAlias(alias)));
    }
    for _ in 1..=maximum {
        client.expect_message(&topic, "x");
    }
    for alias in 1..=maximum {
        client.expect_message(&topic, format!("{alias}"));
    }
}

#[test]
fn topic_alias_out_of_range_or_unknown_closes_the_connection() {
    let maximum = shared_broker().v5().connack.properties.topic_alias_maximum().unwrap_or(0);
    let topic = unique_topic("range");
    for (topic, alias) in [(topic.as_str(), 0), (topic.as_str(), maximum + 1), ("", 1)] {
        let mut client = shared_broker().v5();
        client.send_publish(Publish::new(topic, "x").with(Property::TopicAlias(alias)));
        client.expect_closed_with(&[code::TOPIC_ALIAS_INVALID, code::PROTOCOL_ERROR]);
    }
}

#[test]
fn topic_aliases_end_with_the_connection() {
    let topic = unique_topic("ends");
    let connect = Connect::persistent(Version::V5, &unique_id("alias"));
    let mut client = shared_broker().connect(&connect);
    client.publish(Publish::new(&topic, "x").qos(1).with(Property::TopicAlias(1)));
    client.disconnect();
    let mut back = shared_broker().connect(&connect);
    assert!(back.connack.session_present);
    back.send_publish(Publish::new("", "x").qos(1).id(9).with(Property::TopicAlias(1)));
    back.expect_closed_with(&[code::TOPIC_ALIAS_INVALID, code::PROTOCOL_ERROR]);
}

#[test]
fn server_sends_no_topic_alias_unless_asked() {
    for maximum in [None, Some(0)] {
        let mut connect = Connect::v5(&unique_id("alias"));
        connect.properties.0.extend(maximum.map(Property::TopicAliasMaximum));
        let mut client = shared_broker().connect(&connect);
        let topic = unique_topic("none");
        client.subscribe(&topic, 1);
        let mut publisher = shared_broker().v5();
        for _ in 0..5 {
            publisher.publish(Publish::new(&topic, "x").qos(1).with(Property::TopicAlias(1)));
            let publish = client.expect_message(&topic, "x");
            assert_eq!(publish.properties.topic_alias(), None);
        }
    }
}

#[test]
fn topic_aliases_of_the_server_stay_within_the_maximum_and_mean_their_topics() {
    let mut client = v5_with(Property::TopicAliasMaximum(2));
    let topics: Vec<String> = (0..4).map(|_| unique_topic("mine")).collect();
    for topic in &topics {
        client.subscribe(topic, 1);
    }
    let mut publisher = shared_broker().v5();
    let mut meaning = std::collections::HashMap::new();
    for round in 0..5 {
        for topic in &topics {
            publisher.publish(Publish::new(topic, format!("{round}")).qos(1));
            let publish = client.take_publish();
            let alias = publish.properties.topic_alias();
            assert!(alias.is_none_or(|alias| (1..=2).contains(&alias)), "{alias:?}");
            if let (Some(alias), false) = (alias, publish.topic.is_empty()) {
                meaning.insert(alias, publish.topic.clone());
            }
            let meant = match alias {
                Some(alias) if publish.topic.is_empty() => meaning[&alias].clone(),
                _ => publish.topic,
            };
            assert_eq!(&meant, topic);
            assert_eq!(publish.payload, format!("{round}").into_bytes());
        }
    }
}

#[test]
fn pings_are_answered() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        for _ in 0..5 {
            client.ping();
        }
        client.send(&PINGREQ.repeat(3));
        for _ in 0..3 {
            assert_eq!(client.next_packet(), Packet::PingResp);
        }
    }
}
