//! The packets a client sends and receives, in bytes, for both versions.
//!
//! Decoding is strict and panics: whatever a broker sends that the standard forbids fails the test
//! that received it. Encoding checks nothing, so that tests can also build what no library would send.

pub mod cursor;
pub mod properties;

use cursor::Cursor;
use properties::{Properties, Property};

/// The protocol version a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl Version {
    /// Both versions, for tests of what they share.
    pub const BOTH: [Version; 2] = [Version::V311, Version::V5];
}

/// Packet types, as the upper half of the first byte.
pub mod packet_type {
    #![allow(missing_docs, reason = "the names are the standard's")]
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

/// Reason codes the tests name.
pub mod code {
    #![allow(missing_docs, reason = "the names are the standard's")]
    pub const SUCCESS: u8 = 0x00;
    pub const DISCONNECT_WITH_WILL: u8 = 0x04;
    pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub const UNSPECIFIED_ERROR: u8 = 0x80;
    pub const MALFORMED_PACKET: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;
    pub const CLIENT_IDENTIFIER_NOT_VALID: u8 = 0x85;
    pub const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SERVER_SHUTTING_DOWN: u8 = 0x8B;
    pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub const SESSION_TAKEN_OVER: u8 = 0x8E;
    pub const TOPIC_FILTER_INVALID: u8 = 0x8F;
    pub const TOPIC_NAME_INVALID: u8 = 0x90;
    pub const PACKET_IDENTIFIER_IN_USE: u8 = 0x91;
    pub const PACKET_IDENTIFIER_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
    pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const SERVER_UNAVAILABLE: u8 = 0x88;
    pub const IMPLEMENTATION_SPECIFIC: u8 = 0x83;
    pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
}

/// CONNACK as received.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck {
    /// Session Present flag.
    pub session_present: bool,
    /// Return code (3.1.1) or reason code (5.0).
    pub code: u8,
    /// Empty in 3.1.1.
    pub properties: Properties,
}

/// PUBLISH in either direction.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Publish {
    /// DUP flag.
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic name, empty when an alias stands for it.
    pub topic: String,
    /// Packet identifier, 0 for QoS 0.
    pub id: u16,
    /// Empty in 3.1.1.
    pub properties: Properties,
    /// Application message.
    pub payload: Vec<u8>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    /// Packet identifier.
    pub id: u16,
    /// Reason code, 0 in 3.1.1.
    pub code: u8,
    /// Empty in 3.1.1.
    pub properties: Properties,
}

/// SUBACK or UNSUBACK.
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck {
    /// Packet identifier.
    pub id: u16,
    /// One for each topic filter; none in a 3.1.1 UNSUBACK.
    pub codes: Vec<u8>,
    /// Empty in 3.1.1.
    pub properties: Properties,
}

/// DISCONNECT or AUTH as received: both are a code and properties.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect {
    /// Reason code.
    pub code: u8,
    /// Properties.
    pub properties: Properties,
}

/// Whatever a server may send.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Packet {
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    SubAck(SubAck),
    UnsubAck(SubAck),
    PingResp,
    Disconnect(Disconnect),
    Auth(Disconnect),
}

/// Length of the first whole packet in `bytes`, or `None` when more is needed.
///
/// Panics on a length that is not in its shortest form (`[MQTT-1.5.5-1]`).
pub fn frame_length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0usize;
    for index in 0..4 {
        let byte = *bytes.get(1 + index)?;
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            assert!(index == 0 || byte != 0, "remaining length not in its shortest form");
            let whole = 2 + index + length;
            return (bytes.len() >= whole).then_some(whole);
        }
    }
    panic!("remaining length of more than four bytes: {:02x?}", &bytes[..5]);
}

/// Appends a variable byte integer in its shortest form.
pub fn push_length(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// Appends a string or binary field with its two length bytes.
pub fn push_field(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("a field has at most 65,535 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A whole packet from its first byte and its body.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    push_length(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

impl Publish {
    /// A QoS 0 message.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        Publish {
            topic: topic.to_owned(),
            payload: payload.as_ref().to_vec(),
            ..Publish::default()
        }
    }

    /// With quality of service `qos`; the client that sends it fills in the identifier.
    pub fn qos(mut self, qos: u8) -> Publish {
        self.qos = qos;
        self
    }

    /// With packet identifier `id`.
    pub fn id(mut self, id: u16) -> Publish {
        self.id = id;
        self
    }

    /// With RETAIN set.
    pub fn retain(mut self) -> Publish {
        self.retain = true;
        self
    }

    /// With DUP set.
    pub fn dup(mut self) -> Publish {
        self.dup = true;
        self
    }

    /// With one more property.
    pub fn with(mut self, property: Property) -> Publish {
        self.properties.0.push(property);
        self
    }

    /// The bytes on the wire.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let first = (packet_type::PUBLISH << 4)
            | (u8::from(self.dup) << 3)
            | (self.qos << 1)
            | u8::from(self.retain);
        let mut body = Vec::new();
        push_field(&mut body, self.topic.as_bytes());
        if self.qos > 0 {
            body.extend_from_slice(&self.id.to_be_bytes());
        }
        if version == Version::V5 {
            self.properties.encode(&mut body);
        }
        body.extend_from_slice(&self.payload);
        frame(first, &body)
    }
}

/// An acknowledgement of type `kind` (PUBACK to PUBCOMP). Code 0 takes the short form.
pub fn ack(version: Version, kind: u8, id: u16, code: u8) -> Vec<u8> {
    let flags = if kind == packet_type::PUBREL { 2 } else { 0 };
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 && code != 0 {
        body.push(code);
    }
    frame(kind << 4 | flags, &body)
}

/// A SUBSCRIBE; each filter with its options byte (in 3.1.1 the requested QoS).
pub fn subscribe(
    version: Version,
    id: u16,
    filters: &[(&str, u8)],
    properties: &Properties,
) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        properties.encode(&mut body);
    }
    for (filter, options) in filters {
        push_field(&mut body, filter.as_bytes());
        body.push(*options);
    }
    frame(packet_type::SUBSCRIBE << 4 | 2, &body)
}

/// An UNSUBSCRIBE.
pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        push_field(&mut body, filter.as_bytes());
    }
    frame(packet_type::UNSUBSCRIBE << 4 | 2, &body)
}

/// A DISCONNECT with a reason code and properties; in 3.1.1 both must be absent.
pub fn disconnect(version: Version, code: u8, properties: &Properties) -> Vec<u8> {
    let mut body = Vec::new();
    if version == Version::V5 && (code != 0 || !properties.0.is_empty()) {
        body.push(code);
        properties.encode(&mut body);
    }
    frame(packet_type::DISCONNECT << 4, &body)
}

/// The bytes of a PINGREQ.
pub const PINGREQ: [u8; 2] = [0xC0, 0x00];

/// Decodes one whole packet from a server; panics with the fault when the standard forbids it.
pub fn decode(version: Version, bytes: &[u8]) -> Packet {
    let kind = bytes[0] >> 4;
    let flags = bytes[0] & 0x0F;
    let header = bytes.len() - body_length(bytes);
    let mut body = Cursor::new(&bytes[header..]);
    if kind != packet_type::PUBLISH {
        let legal = if kind == packet_type::PUBREL { 2 } else { 0 };
        assert_eq!(flags, legal, "reserved flags of packet type {kind} [MQTT-2.1.3-1]");
    }
    let packet = match kind {
        packet_type::CONNACK => Packet::ConnAck(connack(version, &mut body)),
        packet_type::PUBLISH => Packet::Publish(publish(version, flags, &mut body)),
        packet_type::PUBACK => Packet::PubAck(received_ack(version, kind, &mut body)),
        packet_type::PUBREC => Packet::PubRec(received_ack(version, kind, &mut body)),
        packet_type::PUBREL => Packet::PubRel(received_ack(version, kind, &mut body)),
        packet_type::PUBCOMP => Packet::PubComp(received_ack(version, kind, &mut body)),
        packet_type::SUBACK => Packet::SubAck(suback(version, kind, &mut body)),
        packet_type::UNSUBACK => Packet::UnsubAck(suback(version, kind, &mut body)),
        packet_type::PINGRESP => Packet::PingResp,
        packet_type::DISCONNECT | packet_type::AUTH if version == Version::V5 => {
            let disconnect = disconnect_or_auth(kind, &mut body);
            if kind == packet_type::AUTH {
                Packet::Auth(disconnect)
            } else {
                Packet::Disconnect(disconnect)
            }
        }
        _ => panic!("a server never sends packet type {kind} in {version:?}"),
    };
    assert!(body.is_empty(), "bytes after the end of {packet:?}");
    packet
}

fn body_length(bytes: &[u8]) -> usize {
    let mut length = 0usize;
    for (index, byte) in bytes[1..].iter().enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            break;
        }
    }
    length
}

fn connack(version: Version, body: &mut Cursor<'_>) -> ConnAck {
    let flags = body.u8();
    assert_eq!(flags & 0xFE, 0, "reserved CONNACK flags [MQTT-3.2.2-1]");
    let code = body.u8();
    let properties = match version {
        Version::V311 => {
            assert!(code <= 5, "reserved CONNACK return code {code}");
            Properties::default()
        }
        Version::V5 => Properties::decode(packet_type::CONNACK, body),
    };
    check_code(version, packet_type::CONNACK, code);
    let session_present = flags == 1;
    assert!(!(session_present && code != 0), "session present with code {code} [MQTT-3.2.2-6]");
    ConnAck { session_present, code, properties }
}

fn publish(version: Version, flags: u8, body: &mut Cursor<'_>) -> Publish {
    let qos = flags >> 1 & 3;
    assert!(qos < 3, "PUBLISH with both QoS bits set [MQTT-3.3.1-4]");
    let dup = flags & 8 != 0;
    assert!(!(dup && qos == 0), "DUP in a QoS 0 PUBLISH [MQTT-3.3.1-2]");
    let topic = body.string();
    assert!(!topic.contains(['+', '#']), "wildcard in topic {topic} [MQTT-3.3.2-2]");
    let id = if qos > 0 { body.u16() } else { 0 };
    assert!(qos == 0 || id != 0, "packet identifier 0 [MQTT-2.2.1-4]");
    let properties = match version {
        Version::V311 => Properties::default(),
        Version::V5 => Properties::decode(packet_type::PUBLISH, body),
    };
    assert!(
        !topic.is_empty() || properties.topic_alias().is_some(),
        "PUBLISH with neither topic nor alias [MQTT-4.7.3-1]"
    );
    let retain = flags & 1 != 0;
    Publish { dup, qos, retain, topic, id, properties, payload: body.rest().to_vec() }
}

fn received_ack(version: Version, kind: u8, body: &mut Cursor<'_>) -> Ack {
    let id = body.u16();
    assert_ne!(id, 0, "acknowledgement with packet identifier 0");
    let mut ack = Ack { id, code: 0, properties: Properties::default() };
    if version == Version::V5 && !body.is_empty() {
        ack.code = body.u8();
        check_code(version, kind, ack.code);
        if !body.is_empty() {
            ack.properties = Properties::decode(kind, body);
        }
    }
    ack
}

fn suback(version: Version, kind: u8, body: &mut Cursor<'_>) -> SubAck {
    let id = body.u16();
    let properties = match version {
        Version::V311 => Properties::default(),
        Version::V5 => Properties::decode(kind, body),
    };
    let codes = body.rest().to_vec();
    for code in &codes {
        check_code(version, kind, *code);
    }
    let none = version == Version::V311 && kind == packet_type::UNSUBACK;
    assert_eq!(codes.is_empty(), none, "codes {codes:02x?} in packet type {kind}");
    SubAck { id, codes, properties }
}

fn disconnect_or_auth(kind: u8, body: &mut Cursor<'_>) -> Disconnect {
    let mut packet = Disconnect { code: 0, properties: Properties::default() };
    if !body.is_empty() {
        packet.code = body.u8();
        check_code(Version::V5, kind, packet.code);
        if !body.is_empty() {
            packet.properties = Properties::decode(kind, body);
        }
    }
    packet
}

/// Codes a server may use in each packet, from the standard's tables.
fn check_code(version: Version, kind: u8, code: u8) {
    let legal: &[u8] = match (version, kind) {
        (Version::V311, packet_type::CONNACK) => &[0, 1, 2, 3, 4, 5],
        (Version::V311, packet_type::SUBACK) => &[0, 1, 2, 0x80],
        (Version::V311, _) => &[],
        (Version::V5, packet_type::CONNACK) => &[
            0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95,
            0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        (Version::V5, packet_type::PUBACK | packet_type::PUBREC) => {
            &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]
        }
        (Version::V5, packet_type::PUBREL | packet_type::PUBCOMP) => &[0, 0x92],
        (Version::V5, packet_type::SUBACK) => {
            &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]
        }
        (Version::V5, packet_type::UNSUBACK) => &[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        (Version::V5, packet_type::DISCONNECT) => &[
            0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
            0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        (Version::V5, packet_type::AUTH) => &[0, 0x18],
        (Version::V5, _) => &[],
    };
    assert!(legal.contains(&code), "code {code:#04x} is not legal in packet type {kind}");
}
