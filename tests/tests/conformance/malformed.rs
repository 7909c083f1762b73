//! Packets that are not well formed, and strings that are not UTF-8: the connection is closed,
//! nobody else is disturbed.

use hoopoe_tests::wire::{code, frame, packet_type, push_field};
use hoopoe_tests::{
    Connect, Publish, RawClient, Version, Will, shared_broker, unique_id, unique_topic,
};

const MALFORMED: [u8; 2] = [code::MALFORMED_PACKET, code::PROTOCOL_ERROR];

/// Ill-formed UTF-8: overlong forms, surrogates, beyond U+10FFFF, cut off, stray bytes.
const ILL_FORMED: [&[u8]; 8] = [
    b"a\xC0\x80b",
    b"a\xED\xA0\x80b",
    b"a\xED\xBF\xBFb",
    b"a\xF4\x90\x80\x80b",
    b"a\xE2\x82",
    b"a\xFFb",
    b"a\x80b",
    b"a\xC1\xBFb",
];

/// A properties length of zero in 5.0, nothing in 3.1.1.
fn no_properties(version: Version) -> &'static [u8] {
    match version {
        Version::V311 => &[],
        Version::V5 => &[0],
    }
}

/// Sends raw bytes on a new connection, which must be closed for them.
fn closed_for(version: Version, bytes: &[u8]) {
    let mut client = shared_broker().client(version);
    client.send(bytes);
    client.expect_closed_with(&MALFORMED);
}

/// SUBSCRIBE, UNSUBSCRIBE and PUBLISH with this topic or filter in bytes.
fn packets_with_topic(version: Version, topic: &[u8]) -> [Vec<u8>; 3] {
    let mut subscribe = vec![0, 1];
    subscribe.extend_from_slice(no_properties(version));
    push_field(&mut subscribe, topic);
    let unsubscribe = subscribe.clone();
    subscribe.push(0);
    let mut publish = Vec::new();
    push_field(&mut publish, topic);
    publish.extend_from_slice(no_properties(version));
    [frame(0x82, &subscribe), frame(0xA2, &unsubscribe), frame(0x30, &publish)]
}

/// CONNECT packets with this string as client identifier, will topic and user name.
fn connects_with_string(version: Version, string: &[u8]) -> Vec<Vec<u8>> {
    let good = unique_id("text").into_bytes();
    let build = |flags: u8, fields: &[&[u8]]| {
        let mut body = Connect::new(version, "").variable_header(flags);
        for (index, field) in fields.iter().enumerate() {
            if flags & 0x04 != 0 && index == 1 {
                body.extend_from_slice(no_properties(version));
            }
            push_field(&mut body, field);
        }
        frame(0x10, &body)
    };
    vec![
        build(0x02, &[string]),
        build(0x06, &[&good, string, b"payload"]),
        build(0x82, &[&good, string]),
    ]
}

fn connect_refused(version: Version, bytes: &[u8]) {
    let mut client = shared_broker().open(version);
    client.send(bytes);
    let codes = [code::MALFORMED_PACKET, code::PROTOCOL_ERROR, code::CLIENT_IDENTIFIER_NOT_VALID];
    match version {
        Version::V311 => client.expect_refused(&[2]),
        Version::V5 => client.expect_refused(&codes),
    }
}

#[test]
fn ill_formed_utf8_closes_the_connection() {
    for version in Version::BOTH {
        for string in ILL_FORMED {
            for packet in packets_with_topic(version, string) {
                closed_for(version, &packet);
            }
            for packet in connects_with_string(version, string) {
                connect_refused(version, &packet);
            }
        }
    }
}

#[test]
fn null_character_closes_the_connection() {
    for version in Version::BOTH {
        for string in [&b"a\0b"[..], b"\0", b"tail\0"] {
            for packet in packets_with_topic(version, string) {
                closed_for(version, &packet);
            }
            for packet in connects_with_string(version, string) {
                connect_refused(version, &packet);
            }
        }
    }
}

#[test]
fn ill_formed_utf8_in_properties_closes_the_connection() {
    for string in [&b"\xFF"[..], b"\0", b"\xED\xA0\x80"] {
        // Response Topic, Content Type, and both halves of a User Property.
        let mut response = vec![0x08];
        push_field(&mut response, string);
        let mut content = vec![0x03];
        push_field(&mut content, string);
        let mut name = vec![0x26];
        push_field(&mut name, string);
        push_field(&mut name, b"value");
        let mut value = vec![0x26];
        push_field(&mut value, b"name");
        push_field(&mut value, string);
        for properties in [response, content, name, value] {
            let mut body = Vec::new();
            push_field(&mut body, b"a/topic");
            body.push(u8::try_from(properties.len()).expect("a few bytes"));
            body.extend_from_slice(&properties);
            closed_for(Version::V5, &frame(0x30, &body));
        }
    }
}

#[test]
fn byte_order_mark_is_kept() {
    for version in Version::BOTH {
        let broker = shared_broker();
        let plain = unique_topic("bom");
        let marked = format!("\u{FEFF}{plain}");
        let mut client = broker.client(version);
        client.subscribe(&marked, 0);
        client.publish(Publish::new(&plain, "without"));
        client.publish(Publish::new(&marked, "with"));
        client.expect_message(&marked, "with");
    }
}

#[test]
fn characters_the_standard_allows_are_carried_unchanged() {
    for version in Version::BOTH {
        let topic = format!("{}/Ünï ço\u{1F426}/\u{4E2D}\u{6587}/\u{10FFFD}", unique_topic("uni"));
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 0);
        client.publish(Publish::new(&topic, "x"));
        client.expect_message(&topic, "x");
    }
}

#[test]
fn reserved_flags_of_the_fixed_header_close_the_connection() {
    for version in Version::BOTH {
        let none = no_properties(version);
        let mut subscribe = vec![0, 1];
        subscribe.extend_from_slice(none);
        push_field(&mut subscribe, b"a");
        let unsubscribe = subscribe.clone();
        subscribe.push(0);
        // Packet type, the only legal flags, a body that is otherwise valid.
        let cases: [(u8, u8, &[u8]); 7] = [
            (packet_type::PUBACK, 0, &[0, 1]),
            (packet_type::PUBREC, 0, &[0, 1]),
            (packet_type::PUBREL, 2, &[0, 1]),
            (packet_type::PUBCOMP, 0, &[0, 1]),
            (packet_type::SUBSCRIBE, 2, &subscribe),
            (packet_type::UNSUBSCRIBE, 2, &unsubscribe),
            (packet_type::PINGREQ, 0, &[]),
        ];
        for (kind, legal, body) in cases {
            for flags in (0..16).filter(|flags| *flags != legal) {
                closed_for(version, &frame(kind << 4 | flags, body));
            }
        }
    }
}

#[test]
fn reserved_flags_of_pubrel_close_the_connection() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        let id = client.send_publish(Publish::new(&unique_topic("rel"), "x").qos(2));
        client.expect_ack(packet_type::PUBREC, id);
        client.send(&frame(packet_type::PUBREL << 4, &id.to_be_bytes()));
        client.expect_closed_with(&MALFORMED);
    }
}

#[test]
fn reserved_flags_of_disconnect_close_the_connection_as_a_failure() {
    for version in Version::BOTH {
        for flags in [1u8, 2, 4, 8] {
            let topic = unique_topic("will");
            let mut watcher = shared_broker().client(version);
            watcher.subscribe(&topic, 0);
            let will = Will::new(&topic, "not a clean end");
            let connect = Connect::new(version, &unique_id("bits")).will(will);
            let mut client = shared_broker().connect(&connect);
            client.send(&frame(packet_type::DISCONNECT << 4 | flags, &[]));
            client.expect_closed_with(&[code::MALFORMED_PACKET]);
            watcher.expect_message(&topic, "not a clean end");
        }
    }
}

#[test]
fn publish_with_both_qos_bits_closes_the_connection() {
    for version in Version::BOTH {
        let publish = Publish::new(&unique_topic("q3"), "x").qos(3).id(7);
        closed_for(version, &publish.encode(version));
    }
}

#[test]
fn dup_with_qos_0_closes_the_connection() {
    for version in Version::BOTH {
        closed_for(version, &Publish::new(&unique_topic("dup"), "x").dup().encode(version));
    }
}

#[test]
fn packet_identifier_0_closes_the_connection() {
    for version in Version::BOTH {
        let mut body = vec![0, 0];
        body.extend_from_slice(no_properties(version));
        push_field(&mut body, b"a");
        closed_for(version, &frame(0xA2, &body));
        body.push(0);
        closed_for(version, &frame(0x82, &body));
        for qos in [1, 2] {
            let publish = Publish::new(&unique_topic("zero"), "x").qos(qos);
            closed_for(version, &publish.encode(version));
        }
    }
}

#[test]
fn remaining_length_must_be_in_its_shortest_form() {
    for version in Version::BOTH {
        closed_for(version, &[0xC0, 0x80, 0x00]);
        closed_for(version, &[0xC0, 0x80, 0x80, 0x00]);
        // Five length bytes.
        closed_for(version, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
    }
}

#[test]
fn property_length_must_be_in_its_shortest_form() {
    let mut body = Vec::new();
    push_field(&mut body, b"a/topic");
    body.extend_from_slice(&[0x80, 0x00]);
    closed_for(Version::V5, &frame(0x30, &body));
}

#[test]
fn packets_cut_off_by_their_length_close_the_connection() {
    for version in Version::BOTH {
        let cases: [&[u8]; 9] = [
            &[0x30, 0x00],
            &[0x30, 0x03, 0x00, 0x05, b'a'],
            &[0x32, 0x03, 0x00, 0x01, b'a'],
            &[0x40, 0x00],
            &[0x40, 0x01, 0x00],
            &[0x62, 0x01, 0x01],
            &[0x82, 0x00],
            &[0x82, 0x02, 0x00, 0x01],
            &[0xA2, 0x01, 0x01],
        ];
        for bytes in cases {
            closed_for(version, bytes);
        }
    }
}

#[test]
fn bytes_behind_the_end_of_a_packet_close_the_connection() {
    for version in Version::BOTH {
        closed_for(version, &[0xC0, 0x01, 0x00]);
        closed_for(version, &[0xC0, 0x02, 0x00, 0x00]);
    }
    closed_for(Version::V311, &[0x40, 0x03, 0x00, 0x01, 0x00]);
    closed_for(Version::V311, &[0xE0, 0x01, 0x00]);
    closed_for(Version::V5, &[0x40, 0x05, 0x00, 0x01, 0x00, 0x00, 0x00]);
}

#[test]
fn packets_only_a_server_sends_close_the_connection() {
    for version in Version::BOTH {
        closed_for(version, &[0x20, 0x02, 0x00, 0x00]);
        closed_for(version, &[0x90, 0x03, 0x00, 0x01, 0x00]);
        closed_for(version, &[0xB0, 0x02, 0x00, 0x01]);
        closed_for(version, &[0xD0, 0x00]);
    }
}

#[test]
fn packet_types_the_version_does_not_know_close_the_connection() {
    for version in Version::BOTH {
        closed_for(version, &[0x00, 0x00]);
    }
    closed_for(Version::V311, &[0xF0, 0x00]);
}

#[test]
fn properties_where_they_do_not_belong_close_the_connection() {
    // Each in a PUBLISH: receive maximum, will delay, an unknown one, twice the same, a bool of 2.
    let cases: [&[u8]; 6] = [
        &[0x21, 0, 5],
        &[0x18, 0, 0, 0, 1],
        &[0x7F, 1],
        &[0x01, 0, 0x01, 0],
        &[0x01, 2],
        &[0x02, 0, 0],
    ];
    for properties in cases {
        let mut body = Vec::new();
        push_field(&mut body, b"a/topic");
        body.push(u8::try_from(properties.len()).expect("a few bytes"));
        body.extend_from_slice(properties);
        closed_for(Version::V5, &frame(0x30, &body));
    }
}

#[test]
fn reason_codes_that_do_not_belong_close_the_connection() {
    let mut client = shared_broker().v5();
    let topic = unique_topic("code");
    client.subscribe(&topic, 1);
    client.publish(Publish::new(&topic, "x").qos(1));
    let publish = client.expect_publish();
    // 0x8E is no PUBACK reason code.
    client.send_ack_code(packet_type::PUBACK, publish.id, code::SESSION_TAKEN_OVER);
    client.expect_closed_with(&MALFORMED);
}

#[test]
fn one_malformed_client_disturbs_nobody_else() {
    for version in Version::BOTH {
        let broker = shared_broker();
        let topic = unique_topic("calm");
        let mut others: Vec<RawClient> = (0..8).map(|_| broker.client(version)).collect();
        for other in &mut others {
            other.subscribe(&topic, 1);
        }
        let mut broken = broker.client(version);
        broken.subscribe(&topic, 1);
        broken.send(&[0xC0, 0x80, 0x80, 0x80, 0x80]);
        broken.expect_closed_with(&MALFORMED);
        broker.client(version).publish(Publish::new(&topic, "still here").qos(1));
        for other in &mut others {
            other.expect_message(&topic, "still here");
        }
    }
}

#[test]
fn packets_may_be_split_and_joined_anywhere() {
    for version in Version::BOTH {
        let topic = unique_topic("split");
        let mut client = shared_broker().client(version);
        client.subscribe(&topic, 0);
        let mut bytes = Vec::new();
        for number in 0..20 {
            bytes.extend(Publish::new(&topic, format!("message {number}")).encode(version));
        }
        for piece in bytes.chunks(7) {
            client.send(piece);
        }
        for number in 0..20 {
            client.expect_message(&topic, format!("message {number}"));
        }
    }
}
