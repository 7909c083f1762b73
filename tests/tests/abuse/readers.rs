//! Receivers that are slow, or stop reading.

use hoopoe_tests::wire::{self, Publish};
use hoopoe_tests::{Connect, Properties, RawClient, Version, unique_id, unique_topic};

use crate::bystanders::{Watched, configuration, options};
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
    for index in 0..16u8 {
        let version = Version::BOTH[usize::from(index % 2)];
        let connect = Connect::new(version, &unique_id("stopped"));
        let mut client = Rude::connect(watched.broker.tcp(), &connect);
        let subscribe = wire::subscribe(version, 1, &[(&topic, index % 3)], &Properties::default());
        assert!(client.send(&subscribe));
        stopped.push(client);
    }
    let connect = Connect::persistent(Version::V5, &unique_id("stored"));
    let mut stored = RawClient::connect(watched.broker.tcp(), &connect);
    stored.subscribe(&topic, 1);
    publish_all(&watched, &topic);
    watched.check_memory(17);
    for expected in 0..PUBLICATIONS {
        let publish = stored.take_publish();
        assert_eq!(number(&publish), expected, "the next acknowledged message, in order");
    }
    drop(stopped);
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
        for number in 0..4 * PUBLICATIONS {
            publisher.send_publish(Publish::new(&topic, payload(number)));
            if number % 32 == 0 {
                publisher.ping();
                // Less than what has just been sent, so that something waits all the time.
                reader.read(24 * 4096);
            }
        }
        publisher.ping();
        watched.check_memory(1);
        watched.finish();
    }
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
