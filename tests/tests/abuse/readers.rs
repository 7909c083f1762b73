//! Receivers that are slow, or stop reading.

use hoopoe_tests::wire::{self, Publish};
use hoopoe_tests::{Connect, Properties, RawClient, Version, unique_id, unique_topic};

use crate::bystanders::{Cost, MAX_PACKET_BYTES, Watched, configuration, options, scale};
use crate::socket::Rude;

/// Publications of 4 KiB that the receivers are sent.
const PUBLICATIONS: usize = 3000;
/// Publications whose PUBACK may be awaited.
const AHEAD: usize = 100;

fn payload(number: usize) -> Vec<u8> {
    let mut payload = format!("{number:08}").into_bytes();
    payload.resize(4096, b'.');
    payload
}

/// Publishes numbered messages of QoS 1, each acknowledged.
fn publish_all(broker: &Watched, topic: &str) {
    let mut publisher = broker.broker.v5();
    let mut waiting = std::collections::VecDeque::new();
    for number in 0..PUBLICATIONS {
        let publish = Publish::new(topic, payload(number)).qos(1);
        waiting.push_back(publisher.send_publish(publish));
        if waiting.len() == AHEAD {
            let id = waiting.pop_front().expect("there are some");
            assert_eq!(publisher.expect_ack(wire::packet_type::PUBACK, id).code, 0);
        }
    }
    for id in waiting {
        assert_eq!(publisher.expect_ack(wire::packet_type::PUBACK, id).code, 0);
    }
    publisher.disconnect();
}

fn number(publish: &Publish) -> usize {
    let text = String::from_utf8_lossy(&publish.payload[..8]).into_owned();
    text.parse().expect("a number")
}

#[test]
fn readers_that_stop_cost_a_bounded_amount_and_stored_sessions_lose_nothing() {
    let watched = Watched::start();
    let topic = unique_topic("flood");
    let mut stopped = Vec::new();
    let readers = 16 * scale();
    for index in 0..readers {
        let version = Version::BOTH[index % 2];
        let connect = Connect::new(version, &unique_id("stopped"));
        let mut client = Rude::connect(watched.broker.tcp(), &connect);
        let subscribe =
            wire::subscribe(version, 1, &[(&topic, (index % 3) as u8)], &Properties::default());
        assert!(client.send(&subscribe));
        stopped.push(client);
    }
    let connect = Connect::persistent(Version::V5, &unique_id("stored"));
    let mut stored = RawClient::connect(watched.broker.tcp(), &connect);
    stored.subscribe(&topic, 1);
    publish_all(&watched, &topic);
    let readers = readers as u64;
    let (connections, backlogs) = (readers + 1, readers - readers / 3);
    watched.check_memory(Cost { connections, backlogs, pages: 1, ..Cost::default() });
    for expected in 0..PUBLICATIONS {
        let publish = stored.take_publish();
        assert_eq!(number(&publish), expected, "the next acknowledged message, in order");
    }
    drop(stopped);
    drop(stored);
    watched.finish();
}

#[test]
fn a_reader_that_never_catches_up_costs_no_more_than_one_that_stops() {
    for scheme in ["tcp", "ws"] {
        let listening = options().listener("ws://127.0.0.1:0/mqtt");
        let watched = Watched::with(listening.configuration(&configuration("")));
        let topic = unique_topic("slow");
        let mut reader = Slow::connect(&watched, scheme, &topic);
        let mut publisher = watched.broker.v5();
        for number in 0..2 * PUBLICATIONS * scale() {
            publisher.send_publish(Publish::new(&topic, payload(number)));
            if number % 32 == 0 {
                publisher.ping();
                // Less than what has just been sent, so that something waits all the time.
                reader.read(24 * 4096);
            }
        }
        publisher.ping();
        watched.check_memory(Cost::connections(1));
        drop((reader, publisher));
        watched.finish();
    }
}

#[test]
fn large_messages_of_qos_2_are_not_read_ahead_for_a_reader_that_stops() {
    let watched = Watched::start();
    let topic = unique_topic("large");
    let connect = Connect::persistent(Version::V5, &unique_id("stopped"));
    let mut stopped = Rude::connect(watched.broker.tcp(), &connect);
    let subscribe = wire::subscribe(Version::V5, 1, &[(&topic, 2)], &Properties::default());
    assert!(stopped.send(&subscribe));
    assert_eq!(stopped.read_packet()[0], 0x90, "SUBACK");
    let large = vec![b'L'; MAX_PACKET_BYTES as usize - 1024];
    let mut publisher = watched.broker.v5();
    // Each of them would fit in the reader's window.
    let count = 400;
    for _ in 0..count {
        publisher.publish(Publish::new(&topic, &large).qos(2));
    }
    watched.check_memory(Cost { pages: 1, owed: 1, ..Cost::connections(2) });
    drop(stopped);
    let mut again = RawClient::connect(watched.broker.tcp(), &connect.resume());
    assert!(again.connack.session_present, "the session is there");
    for _ in 0..count {
        let publish = again.take_publish();
        assert_eq!(publish.payload, large, "every one of them");
    }
    drop((again, publisher));
    watched.finish();
}

#[test]
fn large_retained_messages_come_page_by_page() {
    let watched = Watched::start();
    let root = unique_topic("kept");
    let large = vec![b'R'; MAX_PACKET_BYTES as usize - 1024];
    let mut publisher = watched.broker.v5();
    let count = 300;
    for number in 0..count {
        let topic = format!("{root}/{number}");
        publisher.publish(Publish::new(&topic, &large).qos(1).retain());
    }
    let filter = format!("{root}/#");
    let mut stopped = Vec::new();
    for qos in [0, 1] {
        let connect = Connect::v5(&unique_id("stopped"));
        let mut client = Rude::connect(watched.broker.tcp(), &connect);
        let subscribe = wire::subscribe(Version::V5, 1, &[(&filter, qos)], &Properties::default());
        assert!(client.send(&subscribe));
        stopped.push(client);
        let mut reader = watched.broker.v5();
        reader.subscribe(&filter, qos);
        for number in 0..count {
            assert_eq!(reader.take_publish().payload.len(), large.len(), "number {number}");
        }
    }
    watched.check_memory(Cost { pages: 4, owed: 1, ..Cost::connections(5) });
    drop((stopped, publisher));
    watched.finish();
}

/// A subscriber that reads as much as it is told to.
struct Slow {
    client: Rude,
}

impl Slow {
    fn connect(watched: &Watched, scheme: &str, topic: &str) -> Slow {
        let connect = Connect::v311(&unique_id("slow"));
        let subscribe = wire::subscribe(Version::V311, 1, &[(topic, 0)], &Properties::default());
        if scheme == "tcp" {
            let mut client = Rude::connect(watched.broker.tcp(), &connect);
            assert!(client.send(&subscribe));
            assert_eq!(client.read_exactly(5)[0], 0x90, "SUBACK");
            return Slow { client };
        }
        let mut client = Rude::open(watched.broker.address("ws"));
        client.upgrade();
        client.send_frame(&connect.encode());
        // A frame's header of two bytes, and CONNACK.
        assert_eq!(client.read_exactly(6)[2], 0x20, "CONNACK");
        client.send_frame(&subscribe);
        assert_eq!(client.read_exactly(7)[2], 0x90, "SUBACK");
        Slow { client }
    }

    fn read(&mut self, most: usize) {
        self.client.read_ready(most);
    }
}
