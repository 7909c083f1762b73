//! What a strict codec accepts and what it refuses, packet by packet and with which reason code.

use hoopoe_codec::ReasonCode::ProtocolError as PROTOCOL;
use hoopoe_codec::Version::{V5, V311};
use hoopoe_codec::{
    AckKind, Fault, Packet, Receiver, Version, decode, decode_connect, frame_length,
};

mod table;

use table::{
    CLIENT, Invalid, SERVER, V5_INVALID, V5_VALID, V311_INVALID, V311_VALID, Valid, packet,
};

/// What the receiver makes of the bytes, as a connection would ask: first where the packet ends,
/// then what it is. CONNECT finds its version itself.
fn outcome(version: Version, receiver: Receiver, bytes: &[u8]) -> Result<(), Fault> {
    let end = frame_length(bytes, 1_000_000)?.expect("the whole packet is there");
    assert_eq!(end, bytes.len());
    if receiver == SERVER && bytes[0] >> 4 == 1 {
        let connect = decode_connect(bytes)?;
        assert_eq!(connect.version, version);
    }
    decode(version, receiver, bytes).map(drop)
}

fn check(version: Version, valid: &[Valid], invalid: &[Invalid]) {
    let mut wrong = Vec::new();
    for (name, receiver, notation) in valid {
        if let Err(fault) = outcome(version, *receiver, &packet(notation)) {
            wrong.push(format!("{name}: refused, {fault}"));
        }
    }
    for (name, receiver, reason, notation) in invalid {
        match outcome(version, *receiver, &packet(notation)) {
            Ok(()) => wrong.push(format!("{name}: accepted")),
            Err(fault) if fault.reason != *reason => {
                wrong.push(format!("{name}: {fault} instead of {reason}"));
            }
            Err(_) => {}
        }
    }
    let mut names: Vec<_> =
        valid.iter().map(|case| case.0).chain(invalid.iter().map(|case| case.0)).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1], "every case has its own name");
    }
    assert!(wrong.is_empty(), "{version:?}:\n{}", wrong.join("\n"));
}

#[test]
fn mqtt_3_1_1_is_strict() {
    check(V311, V311_VALID, V311_INVALID);
}

#[test]
fn mqtt_5_is_strict() {
    check(V5, V5_VALID, V5_INVALID);
}

/// Every valid packet, cut at any byte and closed with the right length, is refused or is another
/// valid packet, and never read past its end.
#[test]
fn a_packet_cut_anywhere_is_never_taken_for_the_whole() {
    for (version, valid) in [(V311, V311_VALID), (V5, V5_VALID)] {
        for (name, receiver, notation) in valid {
            let whole = packet(notation);
            for len in 2..whole.len() {
                let mut cut = whole[..len].to_vec();
                assert!(decode(version, *receiver, &cut).is_err(), "{name}: wrong length");
                assert_eq!(frame_length(&cut, 1000), Ok(None), "{name}: incomplete");
                cut[1] = (len - 2) as u8;
                if let Ok(seen) = decode(version, *receiver, &cut) {
                    let mut again = Vec::new();
                    seen.encode(version, &mut again);
                    assert!(again.len() <= cut.len(), "{name}: longer than what was read");
                }
            }
        }
    }
}

#[test]
fn the_first_packet_is_connect() {
    for notation in ["C0 00", "30 | <a> 'x'", "E0 00", "20 | 00 00"] {
        let fault = decode_connect(&packet(notation)).expect_err("not CONNECT");
        assert_eq!(fault.reason, PROTOCOL, "{notation}");
    }
    let bytes =
        packet("10 | <MQTT> 05 C6 00 3C {11 00 00 00 0A} <d> {18 00 00 00 05} <w> <p> <u> <x>");
    let connect = decode_connect(&bytes).expect("valid");
    assert_eq!((connect.version, connect.client_id, connect.keep_alive_secs), (V5, "d", 60));
    assert_eq!((connect.username, connect.password), (Some("u"), Some(&b"x"[..])));
    assert_eq!(connect.properties.session_expiry_secs, Some(10));
    let will = connect.will.expect("a will");
    assert_eq!((will.topic, will.payload, will.delay_secs), ("w", &b"p"[..], 5));
    assert!(connect.clean_start && !will.retain);
}

#[test]
fn fields_arrive_where_they_belong() {
    let bytes = packet("3D | <a/b> 00 0A {01 01 02 00 00 00 3C 26 <k> <v>} 'hi'");
    let Ok(Packet::Publish(publish)) = decode(V5, SERVER, &bytes) else { panic!("a PUBLISH") };
    assert!(publish.dup && publish.retain);
    assert_eq!(publish.qos as u8, 2);
    assert_eq!(publish.id.map(|id| id.get()), Some(10));
    assert_eq!((publish.topic, publish.payload), ("a/b", &b"hi"[..]));
    assert_eq!(publish.properties.payload_format_utf8, Some(true));
    assert_eq!(publish.properties.message_expiry_secs, Some(60));
    assert!(publish.properties.user_properties.iter().eq([("k", "v")]));
    assert!(std::ptr::eq(publish.payload.as_ptr_range().end, bytes.as_ptr_range().end));

    let bytes = packet("82 | 00 0A {0B 07} <a/#> 1E <b> 21");
    let Ok(Packet::Subscribe(subscribe)) = decode(V5, SERVER, &bytes) else {
        panic!("a SUBSCRIBE")
    };
    assert_eq!(subscribe.subscription_id, Some(7));
    let seen: Vec<_> = subscribe.filters.iter().map(|(f, o)| (*f, o.to_byte())).collect();
    assert_eq!(seen, [("a/#", 0x1E), ("b", 0x21)]);
}

#[test]
fn user_properties_are_found_between_others() {
    let bytes = packet("40 | 00 0A 10 {26 <k> <1> 1F <why> 26 <k> <2> 26 <l> <3>}");
    let Ok(Packet::PubAck(ack)) = decode(V5, CLIENT, &bytes) else { panic!("a PUBACK") };
    assert_eq!(ack.properties.reason_string, Some("why"));
    let pairs = [("k", "1"), ("k", "2"), ("l", "3")];
    assert!(ack.properties.user_properties.iter().eq(pairs));
    let mut again = Vec::new();
    ack.encode(AckKind::PubAck, V5, &mut again);
    assert_eq!(again, packet("40 | 00 0A 10 {1F <why> 26 <k> <1> 26 <k> <2> 26 <l> <3>}"));
}
