//! How connections end: keep alive, DISCONNECT from either side, authentication that is refused.

use std::time::{Duration, Instant};

use hoopoe_tests::wire::{PINGREQ, code, disconnect, frame};
use hoopoe_tests::{
    Broker, Connect, Packet, Properties, Property, Publish, Received, Version, shared_broker,
    unique_id, unique_topic,
};

#[test]
fn silent_client_is_closed_after_one_and_a_half_keep_alives() {
    for version in Version::BOTH {
        let connect = Connect::new(version, &unique_id("silent")).keep_alive_secs(1);
        let started = Instant::now();
        let mut client = shared_broker().connect(&connect);
        // No Server Keep Alive: the client's value counts [MQTT-3.2.2-22].
        assert_eq!(client.connack.properties.server_keep_alive_secs(), None);
        client.expect_closed_with(&[code::KEEP_ALIVE_TIMEOUT]);
        let open = started.elapsed();
        assert!(open >= Duration::from_millis(1450), "closed after {open:?}");
    }
}

#[test]
fn any_packet_keeps_a_connection_alive() {
    let mut clients = Version::BOTH.map(|version| {
        let connect = Connect::new(version, &unique_id("alive")).keep_alive_secs(2);
        shared_broker().connect(&connect)
    });
    let topic = unique_topic("alive");
    let started = Instant::now();
    // A broker that did not count these packets would close after three seconds.
    while started.elapsed() < Duration::from_secs(4) {
        for client in &mut clients {
            client.ping();
            client.publish(Publish::new(&topic, "x").qos(1));
        }
    }
    for client in &mut clients {
        client.ping();
    }
}

#[test]
fn keep_alive_0_means_no_limit_unless_the_server_says_so() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        hoopoe_tests::client::ring_after(shared_broker(), 2);
        client.ping();
    }
}

#[test]
fn broker_closes_after_disconnect() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        client.send(&disconnect(version, 0, &Properties::default()));
        assert_eq!(client.receive(), Received::Closed);
    }
}

#[test]
fn nothing_behind_a_disconnect_is_processed() {
    for version in Version::BOTH {
        let topic = unique_topic("behind");
        let mut watcher = shared_broker().client(version);
        watcher.subscribe(&topic, 0);
        let mut client = shared_broker().client(version);
        let mut bytes = disconnect(version, 0, &Properties::default());
        bytes.extend(Publish::new(&topic, "x").encode(version));
        client.send(&bytes);
        assert_eq!(client.receive(), Received::Closed);
        watcher.expect_nothing_from(&mut shared_broker().client(version), 0);
    }
}

#[test]
fn short_forms_of_disconnect_are_accepted() {
    for bytes in [&[0xE0, 0x00][..], &[0xE0, 0x01, 0x00], &[0xE0, 0x02, 0x00, 0x00]] {
        let mut client = shared_broker().v5();
        client.send(bytes);
        assert_eq!(client.receive(), Received::Closed, "{bytes:02x?}");
    }
}

#[test]
fn disconnect_with_a_code_only_servers_use_is_an_error() {
    for wrong in [0x01, code::SERVER_SHUTTING_DOWN, code::SESSION_TAKEN_OVER, 0xFF] {
        let mut client = shared_broker().v5();
        client.send(&disconnect(Version::V5, wrong, &Properties::default()));
        client.expect_closed_with(&[code::MALFORMED_PACKET, code::PROTOCOL_ERROR]);
    }
}

#[test]
fn server_never_sends_a_session_expiry_in_disconnect() {
    // The raw client refuses the property; here the broker sends one DISCONNECT of each kind.
    let id = unique_id("over");
    let mut first = shared_broker().connect(&Connect::persistent(Version::V5, &id));
    let mut second = shared_broker().connect(&Connect::persistent(Version::V5, &id));
    first.expect_disconnect(code::SESSION_TAKEN_OVER);
    second.send(&frame(0x62, &[0, 0]));
    second.expect_closed_with(&[code::MALFORMED_PACKET, code::PROTOCOL_ERROR]);
}

#[test]
fn faults_are_named_in_a_disconnect_and_end_the_connection() {
    let too_long = [0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    for (bytes, reason) in [
        (&[0xC0, 0x80, 0x00][..], code::MALFORMED_PACKET),
        (&too_long, code::MALFORMED_PACKET),
        (&[0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01], code::MALFORMED_PACKET),
        (&[0x30, 0x03, 0x00, 0x00, 0x00], code::PROTOCOL_ERROR),
    ] {
        let mut client = shared_broker().v5();
        client.send(bytes);
        client.expect_disconnect(reason);
    }
}

#[test]
fn broker_that_stops_tells_its_clients() {
    let mut broker = Broker::start();
    let mut v311 = broker.v311();
    let mut v5 = broker.v5();
    assert!(broker.stop().success(), "a clean end");
    assert_eq!(v311.expect_closed(), None);
    v5.expect_disconnect(code::SERVER_SHUTTING_DOWN);
}

#[test]
fn unknown_authentication_method_is_refused() {
    let connect = Connect::v5(&unique_id("auth"))
        .with(Property::AuthenticationMethod("SCRAM-SHA-1".into()))
        .with(Property::AuthenticationData(b"client-first".to_vec()));
    let mut client = shared_broker().open(Version::V5);
    match client.try_login(&connect) {
        Received::Packet(Packet::ConnAck(connack)) => {
            assert_eq!(connack.code, code::BAD_AUTHENTICATION_METHOD);
        }
        other => panic!("CONNACK 0x8C expected, got {other:?}"),
    }
    assert_eq!(client.receive(), Received::Closed);
}

#[test]
fn auth_without_a_method_in_connect_is_a_protocol_error() {
    let mut with_method = vec![0x19, 10];
    with_method.extend_from_slice(&[0x15, 0, 7]);
    with_method.extend_from_slice(b"SCRAM-X");
    for body in [&[][..], &[0x18, 0x00], &with_method] {
        let mut client = shared_broker().v5();
        client.send(&frame(0xF0, body));
        client.expect_closed_with(&[code::PROTOCOL_ERROR, code::MALFORMED_PACKET]);
    }
}

#[test]
fn reserved_flags_of_auth_close_the_connection() {
    for flags in [1, 2, 4, 8] {
        let mut client = shared_broker().v5();
        client.send(&frame(0xF0 | flags, &[0x19, 0x00]));
        client.expect_closed_with(&[code::MALFORMED_PACKET]);
    }
}

#[test]
fn no_authentication_packets_come_unasked() {
    let mut client = shared_broker().v5();
    assert_eq!(client.connack.properties.authentication_method(), None);
    client.send(&PINGREQ);
    assert_eq!(client.next_packet(), Packet::PingResp);
}
