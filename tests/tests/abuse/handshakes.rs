//! Connections that never get as far as MQTT: half open, stalled in TLS, broken WebSocket frames.

use std::time::Duration;

use hoopoe_tests::certificate::Certificates;
use hoopoe_tests::wire::{self, Publish};
use hoopoe_tests::{Connect, Properties, Version, Will, unique_id, unique_topic};

use crate::bystanders::{Cost, Watched, configuration, options, scale};
use crate::socket::Rude;

/// The connect timeout of these listeners.
const CONNECT_TIMEOUT_SECS: u64 = 2;
/// The timeout, and what a busy machine may add.
const CLOSED_WITHIN: Duration = Duration::from_secs(CONNECT_TIMEOUT_SECS + 10);

#[test]
fn half_open_connections_are_closed_in_time() {
    let options = options();
    let certificates = Certificates::generate(options.folder());
    let listener = |url: &str, more: &str| {
        format!(
            "[[listener]]\nurl = \"{url}\"\nconnect_timeout_secs = {CONNECT_TIMEOUT_SECS}\n{more}"
        )
    };
    let tls = format!(
        "[listener.tls]\ncert = \"{}\"\nkey = \"{}\"\n",
        certificates.server.display(),
        certificates.server_key.display()
    );
    let listeners = [
        listener("tcp://127.0.0.1:0", ""),
        listener("tls://127.0.0.1:0", &tls),
        listener("ws://127.0.0.1:0/mqtt", ""),
    ];
    let text = configuration(&listeners.concat());
    let watched = Watched::with(options.no_listeners().configuration(&text));
    let connect = Connect::v5(&unique_id("half")).encode();
    // A TLS record of a ClientHello that says 512 bytes and has four.
    let client_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC];
    let upgrade = b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n";
    let beginnings: [(&str, &[u8]); 8] = [
        ("tcp", &[]),
        ("tcp", &connect[..1]),
        ("tcp", &connect[..connect.len() - 1]),
        ("tls", &[]),
        ("tls", &client_hello),
        ("ws", &[]),
        ("ws", &upgrade[..]),
        ("ws", b"G"),
    ];
    let mut clients = Vec::new();
    for _ in 0..25 * scale() {
        for (scheme, bytes) in beginnings {
            let mut client = Rude::open(watched.broker.address(scheme));
            client.send(bytes);
            clients.push(client);
        }
    }
    let stalled = clients.len() as u64;
    for client in &mut clients {
        let took = client.expect_end();
        assert!(took < CLOSED_WITHIN, "closed after {took:?}");
    }
    // What a TLS handshake takes, and nothing like a connection's buffers.
    watched.check_memory(Cost { sessions: 4 * stalled, ..Cost::default() });
    drop(clients);
    watched.finish();
}

#[test]
fn links_that_fall_silent_are_given_up_and_their_wills_published() {
    let watched = Watched::start();
    let topic = unique_topic("gone");
    let mut subscriber = watched.broker.v5();
    subscriber.subscribe(&topic, 1);
    let count = 40 * scale();
    let silent = |number: usize| {
        let will = Will::new(&topic, number.to_string()).qos(1);
        let connect = Connect::new(Version::BOTH[number % 2], &unique_id("silent"));
        Rude::connect(watched.broker.tcp(), &connect.keep_alive_secs(1).will(will))
    };
    let clients: Vec<Rude> = (0..count).map(silent).collect();
    let mut wills = std::collections::BTreeSet::new();
    while wills.len() < count {
        wills.insert(subscriber.take_publish().payload);
    }
    drop(clients);
    watched.check_memory(Cost { sessions: count as u64, ..Cost::default() });
    drop(subscriber);
    watched.finish();
}

#[test]
fn websocket_frames_split_anywhere_are_one_stream() {
    let listening = options().listener("ws://127.0.0.1:0/mqtt");
    let watched = Watched::with(listening.configuration(&configuration("")));
    let topic = unique_topic("split");
    let mut subscriber = watched.broker.v5();
    subscriber.subscribe(&topic, 0);
    let mut packets = Connect::v5(&unique_id("split")).encode();
    let publish = |text: &str| Publish::new(&topic, text).encode(Version::V5);
    packets.extend(publish("first"));
    packets.extend(wire::subscribe(Version::V5, 1, &[("x", 0)], &Properties::default()));
    packets.extend(publish("second"));
    packets.extend([0xC0, 0]);
    for piece in [1, 2, 3, 7, 1000] {
        let mut client = Rude::open(watched.broker.address("ws"));
        client.upgrade();
        for (index, chunk) in packets.chunks(piece).enumerate() {
            let frame = Rude::frame(chunk);
            match index % 3 {
                // Each byte of the frame in a segment of its own.
                0 => frame.iter().for_each(|byte| assert!(client.send(&[*byte]))),
                1 => assert!(client.send(&frame)),
                // A ping in between.
                _ => assert!(client.send(&[0x89, 0x80, 1, 2, 3, 4]) && client.send(&frame)),
            }
        }
        subscriber.expect_message(&topic, "first");
        subscriber.expect_message(&topic, "second");
    }
    drop(subscriber);
    watched.finish();
}

#[test]
fn websocket_frames_that_are_none_end_the_connection() {
    let listening = options().listener("ws://127.0.0.1:0/mqtt");
    let watched = Watched::with(listening.configuration(&configuration("")));
    let bad: [&[u8]; 8] = [
        // Not masked.
        &[0x82, 2, 0xC0, 0],
        // A text frame.
        &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'],
        // Reserved bits.
        &[0xF2, 0x80, 0, 0, 0, 0],
        // A reserved opcode.
        &[0x83, 0x80, 0, 0, 0, 0],
        // A continuation of nothing.
        &[0x80, 0x81, 0, 0, 0, 0, 0xC0],
        // A ping in two frames.
        &[0x09, 0x80, 0, 0, 0, 0],
        // A ping of more than 125 bytes.
        &[0x89, 0xFE, 1, 0, 0, 0, 0, 0],
        // A frame of more bytes than there are.
        &[0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
    ];
    for _ in 0..20 * scale() {
        for bytes in bad {
            let mut client = Rude::open(watched.broker.address("ws"));
            client.upgrade();
            client.send(bytes);
            client.expect_end();
        }
    }
    watched.check_memory(Cost::connections(1));
    watched.finish();
}
