//! Senders that ask and never listen, and those that ignore the broker's limits.

use hoopoe_tests::wire::{self, Publish, packet_type};
use hoopoe_tests::{
    Connect, Properties, RawClient, Received, Version, code, unique_id, unique_topic,
};

use crate::bystanders::{Cost, Watched, configuration, options, scale};
use crate::socket::Rude;

/// Clients that flood at a time, and bytes each of them tries to send: more than the system's
/// buffers and the broker's together, so that it has to stop taking them.
const CLIENTS: u64 = 2;
const FLOOD_BYTES: usize = 64 << 20;
/// Filters of one SUBSCRIBE.
const FILTERS: usize = 10_000;

/// Floods with `unit` from several clients that read nothing; afterwards each of them reads, and
/// must get one answer of `answer` bytes for each unit.
fn flood(unit: &[u8], answer: &[u8]) {
    let watched = Watched::start();
    let connect = |_| {
        let connect = Connect::v311(&unique_id("flood"));
        Rude::connect(watched.broker.tcp(), &connect)
    };
    let mut clients: Vec<Rude> = (0..CLIENTS).map(connect).collect();
    let flooded: Vec<_> =
        clients.iter_mut().map(|client| client.flood(unit, FLOOD_BYTES)).collect();
    assert!(flooded.iter().all(|flooded| flooded.refused), "the broker takes {FLOOD_BYTES} bytes");
    watched.check_memory(Cost { owed: CLIENTS, ..Cost::connections(CLIENTS) });
    for (client, flooded) in clients.iter_mut().zip(&flooded) {
        client.read_answers(flooded, answer);
    }
    drop(clients);
    watched.finish();
}

#[test]
fn pings_whose_answers_nobody_reads() {
    flood(&[0xC0, 0], &[0xD0, 0]);
}

#[test]
fn publications_whose_acknowledgements_nobody_reads() {
    let publish = Publish::new("nobody/listens", "!").qos(1).id(7);
    flood(&publish.encode(Version::V311), &wire::ack(Version::V311, packet_type::PUBACK, 7, 0));
}

#[test]
fn releases_of_nothing_whose_answers_nobody_reads() {
    let pubrel = wire::ack(Version::V311, packet_type::PUBREL, 9, 0);
    flood(&pubrel, &wire::ack(Version::V311, packet_type::PUBCOMP, 9, 0));
}

#[test]
fn subscribing_again_and_again_whose_answers_nobody_reads() {
    let watched = Watched::start();
    let connect = Connect::v311(&unique_id("again"));
    let mut client = Rude::connect(watched.broker.tcp(), &connect);
    let filter = [("again/and/again", 1)];
    let subscribe = wire::subscribe(Version::V311, 3, &filter, &Properties::default());
    // No more than the buffers on the way take.
    let (many, rounds) = (500, 80 * scale().min(5));
    let block = subscribe.repeat(many);
    for _ in 0..rounds {
        // Each of them asks for a scan of the retained messages.
        assert!(client.send(&block), "the broker has closed");
    }
    watched.check_memory(Cost { owed: 1, subscriptions: 1064, ..Cost::connections(1) });
    for _ in 0..many * rounds {
        assert_eq!(client.read_exactly(5), [0x90, 3, 0, 3, 1], "SUBACK");
    }
    drop(client);
    watched.finish();
}

#[test]
fn websocket_pings_whose_answers_nobody_reads() {
    let listening = options().listener("ws://127.0.0.1:0/mqtt");
    let watched = Watched::with(listening.configuration(&configuration("")));
    let mut clients: Vec<Rude> = (0..CLIENTS)
        .map(|_| {
            let mut client = Rude::open(watched.broker.address("ws"));
            client.upgrade();
            client
        })
        .collect();
    // A masked ping of 100 bytes, mask 0.
    let mut ping = vec![0x89, 0x80 | 100, 0, 0, 0, 0];
    ping.resize(6 + 100, b'p');
    for client in &mut clients {
        let flooded = client.flood(&ping, FLOOD_BYTES);
        assert!(flooded.refused, "the broker takes {FLOOD_BYTES} bytes");
    }
    watched.check_memory(Cost::connections(CLIENTS));
    drop(clients);
    watched.finish();
}

#[test]
fn ignoring_the_brokers_receive_maximum_ends_the_connection() {
    let watched = Watched::start();
    let topic = unique_topic("window");
    for _ in 0..20 * scale() {
        let mut client = watched.broker.v5();
        for _ in 0..2000 {
            client.send_publish(Publish::new(&topic, "unfinished").qos(2));
        }
        let mut receipts = 0;
        loop {
            match client.receive() {
                Received::Packet(wire::Packet::PubRec(_)) => receipts += 1,
                Received::Packet(wire::Packet::Disconnect(disconnect)) => {
                    assert_eq!(disconnect.code, code::RECEIVE_MAXIMUM_EXCEEDED);
                }
                Received::Closed => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(receipts <= 256, "{receipts} exchanges begun");
    }
    watched.check_memory(Cost { owed: 1, ..Cost::connections(1) });
    watched.finish();
}

#[test]
fn every_packet_identifier_at_once_is_held_and_finished() {
    let watched = Watched::start();
    let topic = unique_topic("identifiers");
    let mut subscriber = watched.broker.v5();
    subscriber.subscribe(&topic, 0);
    let mut client = watched.broker.v311();
    let mut expected = 1;
    let count = 8_000 * scale().min(2) as u16;
    for id in 1..=count {
        client.send_publish(Publish::new(&topic, id.to_string()).qos(2).id(id));
        while id - expected >= 500 {
            client.expect_ack(packet_type::PUBREC, expected);
            expected += 1;
        }
    }
    for id in expected..=count {
        client.expect_ack(packet_type::PUBREC, id);
    }
    watched.check_memory(Cost::connections(1));
    for id in 1..=count {
        client.send_ack(packet_type::PUBREL, id);
        client.expect_ack(packet_type::PUBCOMP, id);
        subscriber.expect_message(&topic, id.to_string());
    }
    drop((subscriber, client));
    watched.finish();
}

#[test]
fn a_length_that_is_never_filled_takes_no_memory() {
    let watched = Watched::start();
    let mut clients = Vec::new();
    let count = 200 * scale();
    for _ in 0..count {
        let connect = Connect::v5(&unique_id("length"));
        let mut client = Rude::connect(watched.broker.tcp(), &connect);
        // PUBLISH of 60,000 bytes of which ten come.
        assert!(client.send(&[0x30, 0xE0, 0xD4, 0x03, 0, 1, b'a', 0, 1, 2, 3, 4, 5]));
        clients.push(client);
    }
    let mut last = RawClient::connect(watched.broker.tcp(), &Connect::v5(&unique_id("last")));
    last.ping();
    // Nothing like 200 packets of 60,000 bytes.
    watched.check_memory(Cost { sessions: count as u64, ..Cost::default() });
    drop(clients);
    drop(last);
    watched.finish();
}

#[test]
fn a_huge_packet_byte_by_byte_is_taken_or_refused_by_its_header() {
    let watched = Watched::start();
    let topic = unique_topic("byte");
    let mut subscriber = watched.broker.v5();
    subscriber.subscribe(&topic, 0);
    let connect = Connect::v5(&unique_id("patient"));
    let mut patient = Rude::connect(watched.broker.tcp(), &connect);
    let payload = vec![b'x'; 20_000];
    for byte in Publish::new(&topic, &payload).encode(Version::V5) {
        assert!(patient.send(&[byte]), "the broker has closed");
    }
    subscriber.expect_message(&topic, &payload);

    let connect = Connect::v5(&unique_id("huge"));
    let mut huge = Rude::connect(watched.broker.tcp(), &connect);
    for byte in [0x30, 0xFF, 0xFF, 0xFF, 0x7F] {
        huge.send(&[byte]);
    }
    assert_eq!(huge.read_exactly(3), [0xE0, 1, code::PACKET_TOO_LARGE], "at the header");
    huge.expect_end();
    watched.check_memory(Cost::connections(2));
    drop((subscriber, patient, huge));
    watched.finish();
}

#[test]
fn thousands_of_filters_in_one_packet_are_refused_beyond_a_sessions_subscriptions() {
    let watched = Watched::start();
    // The broker's own topics come from memory: every filter's messages are there at once.
    for filter in ["$SYS/broker/version", "a/#"] {
        let connect = Connect::v5(&unique_id("filters"));
        let mut client = Rude::connect(watched.broker.tcp(), &connect);
        let filters = vec![(filter, 0); if filter.len() > 3 { FILTERS / 5 } else { FILTERS }];
        let subscribe = wire::subscribe(Version::V5, 5, &filters, &Properties::default());
        for _ in 0..20 * scale() {
            assert!(client.send(&subscribe), "the broker has closed");
        }
        client.send(&[0xC0, 0]);
        let mut subacks = 0;
        loop {
            let packet = client.read_packet();
            match packet[0] {
                0x90 => {
                    subacks += 1;
                    let codes = &packet[packet.len() - filters.len()..];
                    assert_eq!((codes[0], codes[filters.len() - 1]), (0, code::QUOTA_EXCEEDED));
                }
                0xD0 => break,
                first => assert_eq!(first >> 4, packet_type::PUBLISH, "{first:#x}"),
            }
        }
        assert_eq!(subacks, 20 * scale());
    }
    watched.check_memory(Cost { owed: 2, subscriptions: 2 * 1064, ..Cost::connections(2) });
    watched.finish();
}
