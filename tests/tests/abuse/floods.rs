//! Floods of connections, of CONNECTs and of packets that are none.

use hoopoe_tests::fuzz::mutate::mutate;
use hoopoe_tests::fuzz::random::Random;
use hoopoe_tests::wire::{self, Publish};
use hoopoe_tests::{Connect, Properties, RawClient, Version, unique_id, unique_topic};

use crate::bystanders::{Cost, Watched, configuration, options, scale};
use crate::socket::Rude;

#[test]
fn a_flood_of_connects_leaves_nothing_behind() {
    let watched = Watched::start();
    let threads: Vec<_> = (0..4)
        .map(|index| {
            let address = watched.broker.tcp();
            std::thread::spawn(move || {
                for round in 0..300 * scale() {
                    let version = Version::BOTH[round % 2];
                    let connect = Connect::new(version, &unique_id("flood"));
                    let mut client = Rude::connect(address, &connect);
                    if (round + index) % 3 == 0 {
                        client.send(&[0xE0, 0]);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every CONNECT is accepted");
    }
    // Four at a time, and those that the broker has yet to notice the end of.
    watched.check_memory(Cost { sessions: 1200 * scale() as u64, ..Cost::default() });
    watched.finish();
}

#[test]
fn a_flood_of_malformed_packets_ends_their_connections_only() {
    let watched = Watched::start();
    let topic = unique_topic("malformed");
    let mut random = Random::new(7);
    let mut bystander = watched.broker.v5();
    bystander.subscribe(&topic, 1);
    for round in 0..600 * scale() {
        let version = Version::BOTH[round % 2];
        let connect = Connect::new(version, &unique_id("bad"));
        let mut packet = match round % 5 {
            0 => connect.encode(),
            1 => Publish::new("other/topic", "payload").qos(1).id(1).encode(version),
            2 => wire::subscribe(version, 5, &[("some/+/filter", 1)], &Properties::default()),
            3 => random.bytes(40),
            _ => wire::unsubscribe(version, 6, &["some/+/filter"]),
        };
        mutate(&mut random, &mut packet);
        let mut client = match round % 5 {
            0 => Rude::open(watched.broker.tcp()),
            _ => Rude::connect(watched.broker.tcp(), &connect),
        };
        client.send(&packet);
        // A packet type that does not exist: whatever was before, this ends the connection.
        client.send(&[0, 0, 0, 0]);
        drop(client);
    }
    let mut publisher = watched.broker.v5();
    publisher.publish(Publish::new(&topic, "still here").qos(1));
    bystander.expect_message(&topic, "still here");
    watched.check_memory(Cost::connections(1));
    drop((bystander, publisher));
    watched.finish();
}

#[test]
fn everybody_comes_back_at_once_after_a_crash() {
    let mut broker = options().configuration(&configuration("")).start();
    let topic = unique_topic("storm");
    let names: Vec<String> = (0..200 * scale()).map(|_| unique_id("storm")).collect();
    for name in &names {
        let connect = Connect::persistent(Version::V5, name);
        let mut client = RawClient::connect(broker.tcp(), &connect);
        client.subscribe(&topic, 1);
        client.disconnect();
    }
    let mut publisher = broker.v5();
    for number in 0..5 {
        publisher.publish(Publish::new(&topic, number.to_string()).qos(1));
    }
    broker.kill_and_restart();
    let watched = Watched::watch(broker);
    let address = watched.broker.tcp();
    let threads: Vec<_> = names
        .chunks(50)
        .map(|names| {
            let (names, topic) = (names.to_vec(), topic.clone());
            std::thread::spawn(move || {
                let connect = |name: &String| {
                    RawClient::connect(address, &Connect::persistent(Version::V5, name))
                };
                let mut clients: Vec<RawClient> = names.iter().map(connect).collect();
                for client in &mut clients {
                    assert!(client.connack.session_present, "the session is there");
                    for number in 0..5 {
                        client.expect_message(&topic, number.to_string());
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every client gets its messages");
    }
    let sessions = names.len() as u64;
    watched.check_memory(Cost { sessions, subscriptions: sessions, ..Cost::default() });
    watched.finish();
}
