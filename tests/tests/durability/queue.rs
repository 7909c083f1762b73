//! Messages that wait for a client while the broker is killed.

use std::process::Command;

use hoopoe_tests::broker::Options;
use hoopoe_tests::program::Program;
use hoopoe_tests::wire::packet_type;
use hoopoe_tests::{Broker, Connect, Packet, Publish, RawClient, Version, unique_id, unique_topic};

/// Messages the absent mosquitto_sub gets.
const WAITING: usize = 10_000;
/// QoS 1 messages a publisher has under way at a time.
const WINDOW: usize = 100;

/// Publishes the numbers of `range` with QoS 1, a window at a time, each acknowledged.
fn publish_numbers(publisher: &mut RawClient, topic: &str, range: std::ops::Range<usize>) {
    let numbers: Vec<usize> = range.collect();
    for window in numbers.chunks(WINDOW) {
        let mut bytes = Vec::new();
        for number in window {
            let id = u16::try_from(number % WINDOW + 1).expect("a window is small");
            let publish = Publish::new(topic, number.to_string()).qos(1).id(id);
            bytes.extend(publish.encode(publisher.version));
        }
        publisher.send(&bytes);
        for number in window {
            let id = u16::try_from(number % WINDOW + 1).expect("a window is small");
            publisher.expect_ack(packet_type::PUBACK, id);
        }
    }
}

fn mosquitto_sub(broker: &Broker, id: &str, topic: &str) -> Command {
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &broker.tcp().port().to_string()]);
    command.args(["-i", id, "-c", "-q", "1", "-t", topic]);
    command
}

#[test]
fn mosquitto_sub_gets_ten_thousand_messages_in_order_after_kill_9() {
    let mut broker = Broker::start();
    let (id, topic) = (unique_id("away"), unique_topic("waiting"));
    // It subscribes and leaves (-E).
    let mut first = mosquitto_sub(&broker, &id, &topic);
    first.arg("-E");
    Program::start(first).succeed();
    publish_numbers(&mut broker.v311(), &topic, 0..WAITING);
    broker.kill_and_restart();
    let mut second = mosquitto_sub(&broker, &id, &topic);
    second.args(["-C", &WAITING.to_string()]);
    let got = Program::start(second).succeed();
    let wanted: Vec<String> = (0..WAITING).map(|number| number.to_string()).collect();
    assert_eq!(got.len(), WAITING, "messages");
    assert!(got == wanted, "the order: {:?}", first_difference(&got, &wanted));
}

fn first_difference<'a>(got: &'a [String], wanted: &'a [String]) -> Option<(&'a str, &'a str)> {
    let mut pairs = got.iter().zip(wanted);
    pairs.find(|(got, wanted)| got != wanted).map(|(got, wanted)| (got.as_str(), wanted.as_str()))
}

#[test]
fn every_acknowledged_message_survives_kill_9_under_load() {
    for version in Version::BOTH {
        let mut broker = Broker::start();
        let topic = unique_topic("load");
        let connect = Connect::persistent(version, &unique_id("load"));
        let mut subscriber = broker.connect(&connect);
        subscriber.subscribe(&topic, 1);
        subscriber.disconnect();
        let mut publisher = broker.client(version);
        let mut next = 0;
        for round in 1..=3 {
            // Many messages are sent, some acknowledgements read, and the broker is killed.
            let mut bytes = Vec::new();
            let first = next;
            for _ in 0..WINDOW {
                next += 1;
                let id = u16::try_from(next - first).expect("a window is small");
                let publish = Publish::new(&topic, next.to_string()).qos(1).id(id);
                bytes.extend(publish.encode(version));
            }
            publisher.send(&bytes);
            let acknowledged = 20 * round;
            for id in 1..=acknowledged {
                publisher.expect_ack(packet_type::PUBACK, id);
            }
            broker.kill_and_restart();
            let mut back = broker.connect(&connect);
            assert!(back.connack.session_present, "round {round}");
            // All that were acknowledged, in order; later ones may be there or not.
            let mut last = first;
            while last < first + usize::from(acknowledged) {
                last += 1;
                back.expect_message(&topic, last.to_string());
            }
            publisher = broker.client(version);
            let marker = unique_topic("marker");
            back.subscribe(&marker, 1);
            publisher.publish(Publish::new(&marker, "end").qos(1));
            loop {
                let publish = back.take_publish();
                if publish.topic == marker {
                    break;
                }
                last += 1;
                assert_eq!(publish.payload, last.to_string().into_bytes(), "no gap");
            }
            back.unsubscribe(&[&marker]);
            back.disconnect();
        }
    }
}

#[test]
fn messages_of_a_clean_stop_wait_too() {
    for version in Version::BOTH {
        let mut broker = Broker::start();
        let topic = unique_topic("stop");
        let connect = Connect::persistent(version, &unique_id("stop"));
        let mut subscriber = broker.connect(&connect);
        subscriber.subscribe(&topic, 2);
        subscriber.disconnect();
        let mut publisher = broker.client(version);
        for number in 0..30u8 {
            publisher.publish(Publish::new(&topic, [number]).qos(1 + number % 2));
        }
        broker.restart();
        let mut back = broker.connect(&connect);
        for number in 0..30u8 {
            let publish = back.expect_message(&topic, [number]);
            assert_eq!(publish.qos, 1 + number % 2);
        }
    }
}

#[test]
fn acknowledged_deliveries_do_not_come_again_after_a_restart() {
    for version in Version::BOTH {
        let mut broker = Broker::start();
        let topic = unique_topic("done");
        let connect = Connect::persistent(version, &unique_id("done"));
        let mut subscriber = broker.connect(&connect);
        subscriber.subscribe(&topic, 1);
        let mut publisher = broker.client(version);
        for number in 0..20u8 {
            publisher.publish(Publish::new(&topic, [number]).qos(1));
        }
        for number in 0..10u8 {
            subscriber.expect_message(&topic, [number]);
        }
        subscriber.ping_past_publishes();
        subscriber.cut();
        broker.restart();
        let mut back = broker.connect(&connect);
        for number in 10..20u8 {
            back.expect_message(&topic, [number]);
        }
        back.expect_nothing_from(&mut broker.client(version), 1);
    }
}

#[test]
fn qos_2_from_a_client_is_exactly_once_over_restart_and_kill() {
    for version in Version::BOTH {
        for kill in [false, true] {
            let mut broker = Broker::start();
            let topic = unique_topic("once");
            let watcher = Connect::persistent(version, &unique_id("watch"));
            let mut watching = broker.connect(&watcher);
            watching.subscribe(&topic, 2);
            watching.disconnect();
            let connect = Connect::persistent(version, &unique_id("once"));
            let mut publisher = broker.connect(&connect);
            let publish = Publish::new(&topic, "once").qos(2).id(11);
            publisher.send_publish(publish.clone());
            publisher.expect_ack(packet_type::PUBREC, 11);
            if kill {
                broker.kill_and_restart()
            } else {
                broker.restart()
            }
            // The client repeats what it has no PUBREC for, as far as it knows.
            let mut back = broker.connect(&connect);
            assert!(back.connack.session_present);
            back.send_publish(publish.dup());
            back.expect_ack(packet_type::PUBREC, 11);
            back.send_ack(packet_type::PUBREL, 11);
            back.expect_ack(packet_type::PUBCOMP, 11);
            if kill {
                broker.kill_and_restart()
            } else {
                broker.restart()
            }
            let mut watching = broker.connect(&watcher);
            watching.expect_message(&topic, "once");
            watching.expect_nothing_from(&mut broker.client(version), 2);
        }
    }
}

#[test]
fn pubrel_after_a_restart_finishes_the_handshake() {
    for version in Version::BOTH {
        let mut broker = Broker::start();
        let topic = unique_topic("rel");
        let connect = Connect::persistent(version, &unique_id("rel"));
        let mut publisher = broker.connect(&connect);
        publisher.send_publish(Publish::new(&topic, "x").qos(2).id(5));
        publisher.expect_ack(packet_type::PUBREC, 5);
        broker.kill_and_restart();
        let mut back = broker.connect(&connect);
        back.send_ack(packet_type::PUBREL, 5);
        assert_eq!(back.expect_ack(packet_type::PUBCOMP, 5).code, 0, "the identifier is known");
        let mut watcher = broker.client(version);
        watcher.subscribe(&topic, 2);
        back.publish(Publish::new(&topic, "new").qos(2).id(5));
        watcher.expect_message(&topic, "new");
    }
}

#[test]
fn qos_2_to_a_client_is_exactly_once_over_restart_and_kill() {
    for version in Version::BOTH {
        for kill in [false, true] {
            let mut broker = Broker::start();
            let topic = unique_topic("out");
            let connect = Connect::persistent(version, &unique_id("out"));
            let mut subscriber = broker.connect(&connect);
            subscriber.subscribe(&topic, 2);
            let mut publisher = broker.client(version);
            for number in 0..3u8 {
                publisher.publish(Publish::new(&topic, [number]).qos(2));
            }
            let sent: Vec<Publish> = (0..3).map(|_| subscriber.expect_publish()).collect();
            // The first is received (PUBREC), the others are on their way.
            subscriber.send_ack(packet_type::PUBREC, sent[0].id);
            subscriber.expect_ack(packet_type::PUBREL, sent[0].id);
            if kill {
                broker.kill_and_restart()
            } else {
                broker.restart()
            }
            let mut back = broker.connect(&connect);
            assert!(back.connack.session_present);
            let mut again = Vec::new();
            let mut released = Vec::new();
            for _ in 0..3 {
                match back.next_packet() {
                    Packet::PubRel(pubrel) => released.push(pubrel.id),
                    Packet::Publish(publish) => again.push(publish),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(released, [sent[0].id], "PUBREL, never the PUBLISH, for what was received");
            for (again, sent) in again.iter().zip(&sent[1..]) {
                assert_eq!((again.id, &again.payload), (sent.id, &sent.payload));
                assert!(again.dup);
            }
            back.send_ack(packet_type::PUBCOMP, sent[0].id);
            for publish in &again {
                back.complete(publish);
            }
            back.expect_nothing_from(&mut broker.client(version), 2);
        }
    }
}

/// What a member of a shared group has begun to receive it receives to the end, also when it has
/// unsubscribed ([MQTT-3.10.4-3]) and the broker is killed; nobody else does ([MQTT-4.8.2-4]).
#[test]
fn qos_2_of_a_group_stays_with_a_member_that_unsubscribed_over_restart_and_kill() {
    for kill in [false, true] {
        let mut broker = Broker::start();
        let topic = unique_topic("shared");
        let filter = format!("$share/g/{topic}");
        let connects = ["first", "second"].map(|id| Connect::persistent(Version::V5, id));
        let mut first = broker.connect(&connects[0]);
        first.subscribe(&filter, 2);
        broker.v5().publish(Publish::new(&topic, "mine").qos(2));
        let sent = first.expect_publish();
        broker.connect(&connects[1]).subscribe(&filter, 2);
        first.unsubscribe(&[&filter]);
        if kill {
            broker.kill_and_restart()
        } else {
            broker.restart()
        }
        let mut second = broker.connect(&connects[1]);
        broker.v5().publish(Publish::new(&topic, "another").qos(2));
        second.expect_message(&topic, "another");
        let mut back = broker.connect(&connects[0]);
        let again = back.expect_publish();
        assert_eq!((again.id, again.dup, again.payload.as_slice()), (sent.id, true, &b"mine"[..]));
        back.complete(&again);
        second.expect_nothing_from(&mut broker.v5(), 2);
        back.expect_nothing_from(&mut broker.v5(), 2);
    }
}

#[test]
fn memory_durability_forgets_everything() {
    let options = Options::new().argument("--durability").argument("memory");
    let mut broker = options.start();
    let connect = Connect::persistent(Version::V5, &unique_id("forget"));
    let topic = unique_topic("forget");
    let mut client = broker.connect(&connect);
    client.subscribe(&topic, 1);
    client.publish(Publish::new(&topic, "state").qos(1).retain());
    broker.restart();
    let mut back = broker.connect(&connect);
    assert!(!back.connack.session_present);
    back.subscribe(&topic, 1);
    back.expect_nothing_from(&mut broker.v5(), 1);
}

#[test]
fn os_durability_survives_kill_9_of_the_broker() {
    let options = Options::new().argument("--durability").argument("os");
    let mut broker = options.start();
    let connect = Connect::persistent(Version::V5, &unique_id("os"));
    let topic = unique_topic("os");
    let mut client = broker.connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    publish_numbers(&mut broker.v5(), &topic, 0..200);
    broker.kill_and_restart();
    let mut back = broker.connect(&connect);
    for number in 0..200 {
        back.expect_message(&topic, number.to_string());
    }
}
