//! CONNECT and CONNACK: what is accepted, what is refused, and how the answer looks.

use hoopoe_tests::wire::{PINGREQ, code, frame, packet_type, push_field};
use hoopoe_tests::{
    Connect, Packet, Property, Publish, RawClient, Received, Version, Will, shared_broker,
    unique_id, unique_topic,
};

/// Reason codes of a CONNACK for a CONNECT that is not well formed.
const MALFORMED: [u8; 2] = [code::MALFORMED_PACKET, code::PROTOCOL_ERROR];

/// Sends these bytes as the first packet; they must be refused, in 3.1.1 without a CONNACK.
fn refused(version: Version, bytes: &[u8]) {
    let mut client = shared_broker().open(version);
    client.send(bytes);
    match version {
        Version::V311 => assert_eq!(client.expect_closed(), None),
        Version::V5 => client.expect_refused(&MALFORMED),
    }
}

/// Whether this is a CONNACK that calls the protocol unsupported, in the form of either version.
fn says_unsupported(answer: &[u8]) -> bool {
    let v5 = answer.len() >= 5 && answer[0] == 0x20 && answer[2..4] == [0x00, 0x84];
    v5 || answer == [0x20, 0x02, 0x00, 0x01]
}

#[test]
fn first_packet_must_be_connect() {
    for version in Version::BOTH {
        let publish = Publish::new(&unique_topic("early"), "x").encode(version);
        let subscribe = hoopoe_tests::wire::subscribe(version, 1, &[("a", 0)], &Default::default());
        for bytes in [&PINGREQ[..], &publish, &subscribe, &[0xE0, 0x00]] {
            let mut client = shared_broker().open(version);
            client.send(bytes);
            // [MQTT-3.14.0-1]: no DISCONNECT before a successful CONNACK.
            assert_eq!(client.expect_closed(), None, "first packet {bytes:02x?}");
        }
    }
}

#[test]
fn second_connect_closes_the_connection() {
    for version in Version::BOTH {
        let connect = Connect::new(version, &unique_id("twice"));
        let mut client = shared_broker().connect(&connect);
        client.send(&connect.encode());
        client.expect_closed_with(&[code::PROTOCOL_ERROR]);
    }
}

#[test]
fn wrong_protocol_name_is_refused() {
    for version in Version::BOTH {
        for name in ["MQTX", "mqtt", "MQ", "MQTTT", ""] {
            let connect = Connect::new(version, &unique_id("name"));
            let header = connect.variable_header(connect.flags());
            let mut body = Vec::new();
            push_field(&mut body, name.as_bytes());
            body.extend_from_slice(&header[6..]);
            push_field(&mut body, connect.client_id.as_bytes());
            let mut client = shared_broker().open(version);
            client.send(&frame(0x10, &body));
            let answer = client.read_to_end();
            assert!(answer.is_empty() || says_unsupported(&answer), "{answer:02x?}");
        }
    }
}

#[test]
fn unsupported_protocol_level_is_answered_and_closed() {
    for level in [0u8, 3, 6, 0x7F, 0xFF] {
        let mut bytes = Connect::v311(&unique_id("level")).encode();
        bytes[8] = level;
        let mut client = shared_broker().open(Version::V311);
        client.send(&bytes);
        let answer = client.read_to_end();
        assert!(says_unsupported(&answer), "level {level} answered by {answer:02x?}");
    }
}

#[test]
fn reserved_connect_flag_is_refused() {
    for version in Version::BOTH {
        let connect = Connect::new(version, &unique_id("flag"));
        refused(version, &connect.encode_with_flags(connect.flags() | 1));
    }
}

#[test]
fn reserved_bits_of_the_fixed_header_of_connect_are_refused() {
    for version in Version::BOTH {
        for flags in [1u8, 2, 4, 8, 15] {
            let mut bytes = Connect::new(version, &unique_id("bits")).encode();
            bytes[0] |= flags;
            refused(version, &bytes);
        }
    }
}

#[test]
fn will_flags_without_a_will_are_refused() {
    for version in Version::BOTH {
        let connect = Connect::new(version, &unique_id("nowill"));
        for extra in [0x08u8, 0x10, 0x20, 0x38] {
            refused(version, &connect.encode_with_flags(connect.flags() | extra));
        }
    }
}

#[test]
fn will_qos_3_is_refused() {
    for version in Version::BOTH {
        let will = Will::new(&unique_topic("will"), "gone");
        let connect = Connect::new(version, &unique_id("qos3")).will(will);
        refused(version, &connect.encode_with_flags(connect.flags() | 0x18));
    }
}

#[test]
fn missing_will_fields_are_refused() {
    for version in Version::BOTH {
        let connect = Connect::new(version, &unique_id("half"));
        // The Will Flag with nothing behind the client identifier.
        refused(version, &connect.encode_with_flags(connect.flags() | 0x04));
        // A will topic, but no will payload.
        let mut body = connect.variable_header(connect.flags() | 0x04);
        push_field(&mut body, connect.client_id.as_bytes());
        if version == Version::V5 {
            body.push(0);
        }
        push_field(&mut body, b"will/topic");
        refused(version, &frame(0x10, &body));
    }
}

#[test]
fn user_name_and_password_must_match_their_flags() {
    for version in Version::BOTH {
        let plain = Connect::new(version, &unique_id("plain"));
        let login = Connect::new(version, &unique_id("login")).login("u", "p");
        // Flags without the fields.
        refused(version, &plain.encode_with_flags(plain.flags() | 0x80));
        refused(version, &plain.encode_with_flags(plain.flags() | 0xC0));
        // Fields without the flags.
        refused(version, &login.encode_with_flags(login.flags() & 0x3F));
        refused(version, &login.encode_with_flags(login.flags() & 0xBF));
    }
}

#[test]
fn password_without_user_name_is_refused_in_v311() {
    let mut connect = Connect::v311(&unique_id("pw"));
    connect.password = Some(b"secret".to_vec());
    refused(Version::V311, &connect.encode());
}

#[test]
fn missing_client_identifier_field_is_refused() {
    for version in Version::BOTH {
        let connect = Connect::new(version, "");
        refused(version, &frame(0x10, &connect.variable_header(connect.flags())));
    }
}

#[test]
fn bytes_behind_the_payload_are_refused() {
    for version in Version::BOTH {
        let connect = Connect::new(version, &unique_id("tail"));
        let mut body = connect.variable_header(connect.flags());
        push_field(&mut body, connect.client_id.as_bytes());
        body.push(0);
        refused(version, &frame(0x10, &body));
    }
}

#[test]
fn all_payload_fields_are_read_in_their_order() {
    for version in Version::BOTH {
        let topic = unique_topic("will");
        let mut watcher = shared_broker().client(version);
        watcher.subscribe(&topic, 0);
        let connect = Connect::new(version, &unique_id("full"))
            .will(Will::new(&topic, "the payload"))
            .login("order", "secret");
        shared_broker().connect(&connect).cut();
        watcher.expect_message(&topic, "the payload");
    }
}

#[test]
fn every_client_identifier_the_standard_names_is_accepted() {
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in Version::BOTH {
        for length in 1..=23 {
            let offset = length * 7 % (letters.len() - length);
            let id = &letters[offset..offset + length];
            shared_broker().connect(&Connect::new(version, id)).ping();
        }
    }
}

#[test]
fn empty_client_identifier_is_given_a_unique_one() {
    for version in Version::BOTH {
        let mut first = shared_broker().connect(&Connect::new(version, ""));
        let mut second = shared_broker().connect(&Connect::new(version, ""));
        // Neither took over the other's session.
        first.ping();
        second.ping();
    }
}

#[test]
fn assigned_client_identifier_is_new_and_names_the_session() {
    let broker = shared_broker();
    let connect = Connect::v5("").session_expiry_secs(3600);
    let assigned = |client: &RawClient| client.connack.properties.assigned_client_id();
    let mut first = broker.connect(&connect);
    let second = broker.connect(&connect.clone().resume());
    let id = assigned(&first).expect("an Assigned Client Identifier [MQTT-3.2.2-16]");
    assert!(!id.is_empty());
    assert_ne!(Some(&id), assigned(&second).as_ref(), "identifiers are unique");
    assert!(!second.connack.session_present, "a new session");
    let again = broker.connect(&Connect::persistent(Version::V5, &id));
    assert!(again.connack.session_present, "the session belongs to the assigned identifier");
    assert_eq!(assigned(&again), None, "nothing is assigned to a client that has an identifier");
    first.expect_disconnect(code::SESSION_TAKEN_OVER);
}

#[test]
fn empty_client_identifier_with_clean_session_0_is_rejected_in_v311() {
    let mut client = shared_broker().open(Version::V311);
    match client.try_login(&Connect::v311("").resume()) {
        Received::Packet(Packet::ConnAck(connack)) => assert_eq!(connack.code, 2),
        other => panic!("CONNACK 0x02 expected, got {other:?}"),
    }
    assert_eq!(client.expect_closed(), None);
}

#[test]
fn take_over_closes_the_older_connection() {
    for old in Version::BOTH {
        for new in Version::BOTH {
            let id = unique_id("over");
            let mut first = shared_broker().connect(&Connect::new(old, &id));
            let mut second = shared_broker().connect(&Connect::new(new, &id));
            match old {
                Version::V311 => assert_eq!(first.expect_closed(), None),
                Version::V5 => first.expect_disconnect(code::SESSION_TAKEN_OVER),
            }
            second.ping();
        }
    }
}

#[test]
fn client_identifier_is_case_sensitive_and_names_the_session() {
    for version in Version::BOTH {
        let id = unique_id("Case");
        let mut upper = shared_broker().connect(&Connect::persistent(version, &id));
        let lower = Connect::persistent(version, &id.to_lowercase());
        let lower = shared_broker().connect(&lower);
        assert!(!lower.connack.session_present, "another identifier is another session");
        upper.ping();
    }
}

#[test]
fn connack_comes_before_any_other_packet() {
    for version in Version::BOTH {
        let topic = unique_topic("queued");
        let connect = Connect::persistent(version, &unique_id("first"));
        let mut subscriber = shared_broker().connect(&connect);
        subscriber.subscribe(&topic, 1);
        subscriber.cut();
        shared_broker().client(version).publish(Publish::new(&topic, "kept").qos(1));
        // CONNECT and further packets in one write, with a message waiting in the session.
        let mut bytes = connect.encode();
        bytes.extend_from_slice(&PINGREQ);
        let mut client = shared_broker().open(version);
        client.send(&bytes);
        match client.next_packet() {
            Packet::ConnAck(connack) => {
                assert_eq!((connack.code, connack.session_present), (0, true))
            }
            other => panic!("CONNACK must come first, got {other:?}"),
        }
        let mut rest = [client.next_packet(), client.next_packet()];
        rest.sort_by_key(|packet| matches!(packet, Packet::PingResp));
        assert!(matches!(&rest[0], Packet::Publish(publish) if publish.payload == b"kept"));
        assert_eq!(rest[1], Packet::PingResp);
    }
}

#[test]
fn connack_is_sent_once_and_says_success() {
    for version in Version::BOTH {
        let mut client = shared_broker().open(version);
        match client.try_login(&Connect::new(version, &unique_id("once"))) {
            Received::Packet(Packet::ConnAck(connack)) => assert_eq!(connack.code, 0),
            other => panic!("CONNACK expected, got {other:?}"),
        }
        client.subscribe(&unique_topic("x"), 0);
        client.ping();
        client.disconnect();
    }
}

#[test]
fn nothing_behind_a_rejected_connect_is_processed() {
    let broker = shared_broker();
    let rejected = [
        Connect::v311("").resume(),
        Connect::v5(&unique_id("auth"))
            .with(Property::AuthenticationMethod("none-such".to_owned())),
    ];
    for connect in rejected {
        let version = connect.version;
        let topic = unique_topic("behind");
        let mut watcher = broker.client(version);
        watcher.subscribe(&topic, 0);
        let mut bytes = connect.encode();
        bytes.extend(Publish::new(&topic, "x").encode(version));
        let mut client = broker.open(version);
        client.send(&bytes);
        client.expect_refused(&[2, code::BAD_AUTHENTICATION_METHOD]);
        watcher.expect_nothing_from(&mut broker.client(version), 0);
    }
}

#[test]
fn packets_sent_without_waiting_for_connack_are_processed() {
    for version in Version::BOTH {
        let topic = unique_topic("eager");
        let mut bytes = Connect::new(version, &unique_id("eager")).encode();
        bytes.extend(hoopoe_tests::wire::subscribe(
            version,
            9,
            &[(&topic, 0)],
            &Default::default(),
        ));
        bytes.extend(Publish::new(&topic, "hello").encode(version));
        let mut client = shared_broker().open(version);
        client.send(&bytes);
        assert!(matches!(client.next_packet(), Packet::ConnAck(connack) if connack.code == 0));
        assert!(matches!(client.next_packet(), Packet::SubAck(suback) if suback.id == 9));
        client.expect_message(&topic, "hello");
    }
}

#[test]
fn session_present_tells_whether_there_is_a_session() {
    for version in Version::BOTH {
        let broker = shared_broker();
        let id = unique_id("present");
        let present = |connect: &Connect| {
            let client = broker.connect(connect);
            let present = client.connack.session_present;
            client.disconnect();
            present
        };
        let persistent = Connect::persistent(version, &id);
        assert!(!present(&persistent), "a first session");
        assert!(present(&persistent), "the session was kept");
        assert!(!present(&Connect::new(version, &id)), "Clean Start 1 says 0");
        assert!(!present(&persistent), "the clean session has ended with its connection");
    }
}

#[test]
fn response_information_comes_only_on_request() {
    for request in [None, Some(0)] {
        let mut connect = Connect::v5(&unique_id("resp"));
        connect.properties.0.extend(request.map(Property::RequestResponseInformation));
        let client = shared_broker().connect(&connect);
        assert_eq!(client.connack.properties.response_information(), None);
    }
}

#[test]
fn refusal_keeps_to_the_maximum_packet_size_of_the_client() {
    let maximum = 12;
    let connect = Connect::v5(&unique_id("small"))
        .with(Property::MaximumPacketSize(maximum))
        .with(Property::AuthenticationMethod("none-such".to_owned()));
    let mut client = shared_broker().open(Version::V5);
    client.send(&connect.encode());
    let answer = client.read_to_end();
    assert!(answer.len() <= maximum as usize, "CONNACK of {} bytes", answer.len());
    assert!(answer.is_empty() || answer[3] == code::BAD_AUTHENTICATION_METHOD);
}

#[test]
fn connect_may_come_in_single_bytes() {
    for version in Version::BOTH {
        let mut client = shared_broker().open(version);
        for byte in Connect::new(version, &unique_id("slow")).encode() {
            client.send(&[byte]);
        }
        assert!(matches!(client.next_packet(), Packet::ConnAck(connack) if connack.code == 0));
    }
}

#[test]
fn connect_properties_are_checked() {
    let broken: [(&str, &[u8]); 9] = [
        ("receive maximum 0", &[0x21, 0, 0]),
        ("maximum packet size 0", &[0x27, 0, 0, 0, 0]),
        ("request problem information 2", &[0x17, 2]),
        ("request response information 2", &[0x19, 2]),
        ("session expiry twice", &[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1]),
        ("authentication data without method", &[0x16, 0, 1, 7]),
        ("topic alias in CONNECT", &[0x23, 0, 1]),
        ("unknown property", &[0x7E, 0]),
        ("property cut off", &[0x11, 0, 0]),
    ];
    for (what, properties) in broken {
        let mut body = Connect::v5("").variable_header(2);
        body.pop();
        body.push(u8::try_from(properties.len()).expect("a few bytes"));
        body.extend_from_slice(properties);
        push_field(&mut body, unique_id("prop").as_bytes());
        let mut client = shared_broker().open(Version::V5);
        client.client_id = what.to_owned();
        client.send(&frame(packet_type::CONNECT << 4, &body));
        client.expect_refused(&MALFORMED);
    }
}
