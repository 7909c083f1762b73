//! The delivery protocols of QoS 1 and 2, and the order of messages.

use hoopoe_tests::client::ring_after;
use hoopoe_tests::wire::{ack, code, packet_type};
use hoopoe_tests::{
    Connect, Packet, Property, Publish, Version, shared_broker, unique_id, unique_topic,
};

#[test]
fn qos_1_message_after_its_puback_is_a_new_one() {
    for version in Version::BOTH {
        let topic = unique_topic("again");
        let mut watcher = shared_broker().client(version);
        watcher.subscribe(&topic, 1);
        let mut client = shared_broker().client(version);
        client.publish(Publish::new(&topic, "first").qos(1).id(5));
        client.publish(Publish::new(&topic, "second").qos(1).id(5).dup());
        watcher.expect_message(&topic, "first");
        watcher.expect_message(&topic, "second");
    }
}

#[test]
fn qos_2_message_is_delivered_once_however_often_it_comes() {
    for version in Version::BOTH {
        let topic = unique_topic("once");
        let mut watcher = shared_broker().client(version);
        watcher.subscribe(&topic, 2);
        let mut client = shared_broker().client(version);
        let publish = Publish::new(&topic, "once").qos(2).id(9);
        client.send_publish(publish.clone());
        client.expect_ack(packet_type::PUBREC, 9);
        for _ in 0..3 {
            client.send_publish(publish.clone().dup());
            client.expect_ack(packet_type::PUBREC, 9);
        }
        client.send_ack(packet_type::PUBREL, 9);
        client.expect_ack(packet_type::PUBCOMP, 9);
        watcher.expect_message(&topic, "once");
        watcher.expect_nothing_from(&mut client, 2);
        // [MQTT-4.3.3-12]: after PUBCOMP the identifier begins a new message.
        client.publish(Publish::new(&topic, "next").qos(2).id(9));
        watcher.expect_message(&topic, "next");
    }
}

#[test]
fn pubrel_is_answered_by_pubcomp_also_when_unknown() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        client.send_ack(packet_type::PUBREL, 4711);
        let pubcomp = client.expect_ack(packet_type::PUBCOMP, 4711);
        match version {
            Version::V311 => assert_eq!(pubcomp.code, 0),
            Version::V5 => assert_eq!(pubcomp.code, code::PACKET_IDENTIFIER_NOT_FOUND),
        }
        // PUBREL twice: the second finds nothing, and is answered too.
        let id = client.send_publish(Publish::new(&unique_topic("rel"), "x").qos(2));
        client.expect_ack(packet_type::PUBREC, id);
        client.send_ack(packet_type::PUBREL, id);
        assert_eq!(client.expect_ack(packet_type::PUBCOMP, id).code, 0);
        client.send_ack(packet_type::PUBREL, id);
        client.expect_ack(packet_type::PUBCOMP, id);
    }
}

#[test]
fn pubrel_for_nothing_ends_no_exchange_that_begins_behind_it() {
    // The answer to the PUBREL waits for the store, the message under its identifier is begun by
    // then. Who is connected without a stored session has no marker that tells a repetition.
    for version in Version::BOTH {
        let topic = unique_topic("behind");
        let mut watcher = shared_broker().client(version);
        watcher.subscribe(&topic, 2);
        let connect = Connect::persistent(version, &unique_id("behind"));
        let mut client = shared_broker().connect(&connect);
        let publish = Publish::new(&topic, "once").qos(2).id(9);
        let pubrel = ack(version, packet_type::PUBREL, 9, 0);
        client.send(&[pubrel, publish.encode(version)].concat());
        client.expect_ack(packet_type::PUBCOMP, 9);
        client.expect_ack(packet_type::PUBREC, 9);
        client.send_publish(publish.clone().dup());
        client.expect_ack(packet_type::PUBREC, 9);
        client.cut();
        let mut client = shared_broker().connect(&connect);
        client.send_publish(publish.dup());
        client.expect_ack(packet_type::PUBREC, 9);
        watcher.expect_message(&topic, "once");
        watcher.expect_nothing_from(&mut client, 2);
    }
}

#[test]
fn qos_2_to_the_client_runs_through_its_four_packets() {
    for version in Version::BOTH {
        let topic = unique_topic("four");
        let mut subscriber = shared_broker().client(version);
        subscriber.subscribe(&topic, 2);
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "x").qos(2));
        let publish = subscriber.expect_publish();
        assert_eq!((publish.qos, publish.dup), (2, false));
        // Unacknowledged until PUBREC, and again until PUBCOMP: nothing moves by itself.
        subscriber.ping();
        subscriber.send_ack(packet_type::PUBREC, publish.id);
        assert_eq!(subscriber.expect_ack(packet_type::PUBREL, publish.id).code, 0);
        subscriber.ping();
        subscriber.send_ack(packet_type::PUBCOMP, publish.id);
        subscriber.expect_nothing_from(&mut publisher, 2);
    }
}

#[test]
fn refused_message_counts_as_acknowledged() {
    // PUBACK and PUBREC with a code of 0x80 or more end the delivery [MQTT-4.4.0-2].
    let topic = unique_topic("refused");
    let connect = Connect::persistent(Version::V5, &unique_id("refuse"));
    let mut subscriber = shared_broker().connect(&connect);
    subscriber.subscribe(&topic, 2);
    let mut publisher = shared_broker().v5();
    publisher.publish(Publish::new(&topic, "one").qos(1));
    publisher.publish(Publish::new(&topic, "two").qos(2));
    let one = subscriber.expect_publish();
    let two = subscriber.expect_publish();
    subscriber.send_ack_code(packet_type::PUBACK, one.id, code::UNSPECIFIED_ERROR);
    subscriber.send_ack_code(packet_type::PUBREC, two.id, code::QUOTA_EXCEEDED);
    subscriber.ping();
    subscriber.cut();
    let mut back = shared_broker().connect(&connect);
    assert!(back.connack.session_present);
    back.expect_nothing_from(&mut publisher, 2);
}

#[test]
fn pubrec_for_an_unknown_identifier_is_answered_in_v5() {
    let mut client = shared_broker().v5();
    client.send_ack(packet_type::PUBREC, 999);
    let pubrel = client.expect_ack(packet_type::PUBREL, 999);
    assert_eq!(pubrel.code, code::PACKET_IDENTIFIER_NOT_FOUND);
    client.send_ack(packet_type::PUBCOMP, 999);
    client.ping();
}

#[test]
fn stray_acknowledgements_do_no_harm() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        client.send_ack(packet_type::PUBACK, 1234);
        client.send_ack(packet_type::PUBCOMP, 1235);
        client.ping();
    }
}

#[test]
fn messages_of_a_topic_arrive_in_the_order_they_were_sent() {
    for version in Version::BOTH {
        for qos in 0..3 {
            let topic = unique_topic("order");
            let mut subscribers: Vec<_> = (0..3).map(|_| shared_broker().client(version)).collect();
            for subscriber in &mut subscribers {
                subscriber.subscribe(&topic, qos);
            }
            let mut publisher = shared_broker().client(version);
            let mut bytes = Vec::new();
            for number in 0..100u16 {
                let publish = Publish::new(&topic, format!("{number}")).qos(qos).id(number + 1);
                bytes.extend(publish.encode(version));
            }
            publisher.send(&bytes);
            for id in 1..=100 {
                publisher.finish_publish(qos, id);
            }
            for subscriber in &mut subscribers {
                for number in 0..100 {
                    subscriber.expect_message(&topic, format!("{number}"));
                }
            }
        }
    }
}

#[test]
fn order_holds_for_an_absent_subscriber_that_returns() {
    for version in Version::BOTH {
        let topic = unique_topic("order");
        let connect = Connect::persistent(version, &unique_id("order"));
        let mut subscriber = shared_broker().connect(&connect);
        subscriber.subscribe(&topic, 1);
        subscriber.disconnect();
        let mut publisher = shared_broker().client(version);
        for number in 0..200 {
            publisher.publish(Publish::new(&topic, format!("{number}")).qos(1));
        }
        let mut back = shared_broker().connect(&connect);
        // More messages while the queue is still being read.
        for number in 200..300 {
            publisher.publish(Publish::new(&topic, format!("{number}")).qos(1));
        }
        for number in 0..300 {
            back.expect_message(&topic, format!("{number}"));
        }
    }
}

#[test]
fn mixed_qos_of_a_publisher_keeps_its_order_for_each_qos() {
    for version in Version::BOTH {
        let topic = unique_topic("mixed");
        let mut subscriber = shared_broker().client(version);
        subscriber.subscribe(&topic, 2);
        let mut publisher = shared_broker().client(version);
        let mut bytes = Vec::new();
        for number in 0..60u8 {
            let publish = Publish::new(&topic, [number]).qos(number % 3).id(u16::from(number) + 1);
            bytes.extend(publish.encode(version));
        }
        publisher.send(&bytes);
        for number in 0..60u8 {
            publisher.finish_publish(number % 3, u16::from(number) + 1);
        }
        let mut last = [None; 3];
        for _ in 0..60 {
            let publish = subscriber.take_publish();
            let qos = usize::from(publish.qos);
            let number = publish.payload[0];
            assert_eq!(usize::from(number % 3), qos);
            assert!(last[qos] < Some(number), "QoS {qos}: {number} after {:?}", last[qos]);
            last[qos] = Some(number);
        }
    }
}

#[test]
fn duplicate_qos_2_identifier_in_flight_is_not_a_new_message() {
    // Another payload under an identifier that is still open is a repetition all the same.
    for version in Version::BOTH {
        let topic = unique_topic("open");
        let mut watcher = shared_broker().client(version);
        watcher.subscribe(&topic, 2);
        let mut client = shared_broker().client(version);
        client.send_publish(Publish::new(&topic, "first").qos(2).id(3));
        client.expect_ack(packet_type::PUBREC, 3);
        client.send_publish(Publish::new(&topic, "other").qos(2).id(3));
        match client.next_packet() {
            Packet::PubRec(pubrec) => assert_eq!(pubrec.id, 3),
            other => panic!("PUBREC expected, got {other:?}"),
        }
        client.send_ack(packet_type::PUBREL, 3);
        client.expect_ack(packet_type::PUBCOMP, 3);
        watcher.expect_message(&topic, "first");
        watcher.expect_nothing_from(&mut client, 2);
    }
}

#[test]
fn refused_qos_2_identifier_is_free_at_once() {
    let topic = unique_topic("free");
    let mut watcher = shared_broker().v5();
    watcher.subscribe(&topic, 2);
    let mut client = shared_broker().v5();
    let refused = client.try_publish(Publish::new("$SYS/refused", "x").qos(2).id(5));
    assert!(refused >= 0x80, "PUBREC {refused:#04x}: nobody may publish below $SYS");
    client.publish(Publish::new(&topic, "new").qos(2).id(5));
    watcher.expect_message(&topic, "new");
}

#[test]
fn expired_qos_2_message_still_finishes_its_handshake() {
    let topic = unique_topic("expired");
    let mut watcher = shared_broker().v5();
    watcher.subscribe(&topic, 2);
    let mut client = shared_broker().v5();
    let expiring = Publish::new(&topic, "x").qos(2).with(Property::MessageExpiryInterval(1));
    let id = client.send_publish(expiring);
    client.expect_ack(packet_type::PUBREC, id);
    ring_after(shared_broker(), 2);
    client.send_ack(packet_type::PUBREL, id);
    assert_eq!(client.expect_ack(packet_type::PUBCOMP, id).code, code::SUCCESS);
}
