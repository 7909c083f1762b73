//! Clients that take one session from each other without end.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hoopoe_tests::wire::{self, Publish};
use hoopoe_tests::{Connect, RawClient, Received, Version, unique_id, unique_topic};

use crate::bystanders::{Cost, Watched, scale};

/// Take-overs by each of the rivals.
const ROUNDS: usize = 60;
const RIVALS: usize = 4;
/// The reason code Server unavailable.
const UNAVAILABLE: u8 = 0x88;

#[test]
fn a_session_taken_over_all_the_time_loses_nothing() {
    let watched = Watched::start();
    let address = watched.broker.tcp();
    let (name, topic) = (unique_id("contested"), unique_topic("contested"));
    let connect = Connect::persistent(Version::V5, &name);
    let mut first = RawClient::connect(address, &connect);
    first.subscribe(&topic, 1);
    let rivals: Vec<_> = (0..RIVALS)
        .map(|_| {
            let connect = connect.clone();
            std::thread::spawn(move || rival(address, &connect))
        })
        .collect();
    let mut publisher = watched.broker.v5();
    let mut sent = 0;
    while rivals.iter().any(|rival| !rival.is_finished()) {
        publisher.publish(Publish::new(&topic, sent.to_string()).qos(1));
        sent += 1;
    }
    let mut received = BTreeSet::new();
    for rival in rivals {
        received.extend(rival.join().expect("a rival only ever meets take-overs"));
    }
    publisher.publish(Publish::new(&topic, "end").qos(1));
    let mut last = RawClient::connect(address, &connect);
    assert!(last.connack.session_present, "the session is there");
    loop {
        let publish = last.take_publish();
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        match text.parse::<usize>() {
            Ok(number) => received.insert(number),
            Err(_) => break,
        };
    }
    let lost: Vec<usize> = (0..sent).filter(|number| !received.contains(number)).collect();
    assert!(lost.is_empty(), "acknowledged and never delivered: {lost:?} of {sent}");
    let connections = RIVALS as u64;
    watched.check_memory(Cost { connections, pages: connections, ..Cost::default() });
    drop((first, last, publisher));
    watched.finish();
}

/// Takes the session over, acknowledges a few messages, and begins again; gives what it received.
fn rival(address: SocketAddr, connect: &Connect) -> Vec<usize> {
    let mut received = Vec::new();
    for _ in 0..ROUNDS * scale() {
        let mut client = RawClient::open(address, Version::V5);
        match client.try_login(connect) {
            Received::Packet(wire::Packet::ConnAck(connack)) if connack.code == 0 => {}
            // Another rival came while the session was on its way.
            Received::Packet(wire::Packet::ConnAck(connack)) if connack.code == UNAVAILABLE => {
                continue;
            }
            Received::Closed => continue,
            other => panic!("CONNECT answered by {other:?}"),
        }
        for _ in 0..5 {
            match client.receive() {
                Received::Packet(wire::Packet::Publish(publish)) => {
                    client.complete(&publish);
                    let text = String::from_utf8_lossy(&publish.payload).into_owned();
                    received.push(text.parse().expect("a number"));
                }
                Received::Packet(wire::Packet::Disconnect(disconnect)) => {
                    assert_eq!(disconnect.code, wire::code::SESSION_TAKEN_OVER);
                    break;
                }
                Received::Closed => break,
                other => panic!("{other:?}"),
            }
        }
    }
    received
}
