//! The table of packets, valid and invalid, in both versions.
//!
//! Packets are written in a small notation, so that the table reads like the standard's figures:
//! `30 | <a/b> {01 01} 'hi'` is the first byte, a body whose length is put in front of it, `<text>`
//! with its two-byte length, `{…}` a property block with its one-byte length, `'…'` plain ASCII,
//! the rest hexadecimal. Without `|` the bytes are taken as they stand.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this module, and nothing leaves the program"
)]

use hoopoe_codec::ReasonCode::{
    self, MalformedPacket as MALFORMED, ProtocolError as PROTOCOL, TopicAliasInvalid,
    UnsupportedProtocolVersion,
};
use hoopoe_codec::Receiver;

pub const SERVER: Receiver = Receiver::Server;
pub const CLIENT: Receiver = Receiver::Client;

/// Name, receiver, packet.
pub type Valid = (&'static str, Receiver, &'static str);
/// Name, receiver, expected reason code, packet.
pub type Invalid = (&'static str, Receiver, ReasonCode, &'static str);

/// The bytes for a packet in the notation above.
pub fn packet(notation: &str) -> Vec<u8> {
    match notation.split_once('|') {
        None => bytes(notation),
        Some((first, body)) => {
            let mut packet = bytes(first);
            let body = bytes(body);
            assert!(body.len() < 128, "one length byte: {notation}");
            packet.push(body.len() as u8);
            packet.extend(body);
            packet
        }
    }
}

fn bytes(notation: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = notation.trim_start();
    while let Some(first) = rest.chars().next() {
        let close = match first {
            '<' => '>',
            '{' => '}',
            '\'' => '\'',
            _ => {
                let (byte, after) = rest.split_at(2);
                out.push(u8::from_str_radix(byte, 16).expect("two hexadecimal digits"));
                rest = after.trim_start();
                continue;
            }
        };
        let (inner, after) = rest[1..].split_once(close).expect("closed");
        match first {
            '<' => {
                out.extend((inner.len() as u16).to_be_bytes());
                out.extend(inner.as_bytes());
            }
            '{' => {
                let block = bytes(inner);
                out.push(block.len() as u8);
                out.extend(block);
            }
            _ => out.extend(inner.as_bytes()),
        }
        rest = after.trim_start();
    }
    out
}

pub const V311_VALID: &[Valid] = &[
    ("connect, shortest", SERVER, "10 | <MQTT> 04 02 00 3C <>"),
    ("connect, clean session 0", SERVER, "10 | <MQTT> 04 00 00 00 <device>"),
    ("connect, will", SERVER, "10 | <MQTT> 04 2E 00 3C <d> <will/t> <bye>"),
    ("connect, empty will payload", SERVER, "10 | <MQTT> 04 06 00 3C <d> <w> <>"),
    ("connect, user name and password", SERVER, "10 | <MQTT> 04 C2 00 3C <d> <u> <p>"),
    ("connect, user name only", SERVER, "10 | <MQTT> 04 82 00 3C <d> <u>"),
    ("connect, binary password", SERVER, "10 | <MQTT> 04 C2 00 3C <d> <u> 00 03 00 FF FE"),
    ("publish, QoS 0", SERVER, "30 | <a/b> 'hi'"),
    ("publish, QoS 1", SERVER, "32 | <a/b> 00 0A 'hi'"),
    ("publish, QoS 2, DUP, RETAIN", SERVER, "3D | <a/b> FF FF 'hi'"),
    ("publish, no payload", SERVER, "31 | <a/b>"),
    ("publish, spaces, $ and /", SERVER, "30 | <$a //b/>"),
    ("publish, byte order mark in the topic", SERVER, "30 | 00 03 EF BB BF"),
    ("publish, non-character in the topic", SERVER, "30 | 00 03 EF BF BF"),
    ("publish to a client", CLIENT, "33 | <a/b> 00 0A 'hi'"),
    ("puback", SERVER, "40 | 00 0A"),
    ("pubrec", CLIENT, "50 | 00 0A"),
    ("pubrel", SERVER, "62 | 00 0A"),
    ("pubcomp", CLIENT, "70 | 00 0A"),
    ("subscribe", SERVER, "82 | 00 0A <a/#> 01"),
    ("subscribe, two filters", SERVER, "82 | 00 0A <a/+/c> 00 <$SYS/#> 02"),
    ("subscribe, filter left to the session", SERVER, "82 | 00 0A <a#> 00"),
    ("unsubscribe", SERVER, "A2 | 00 0A <a/#>"),
    ("unsubscribe, two filters", SERVER, "A2 | 00 0A <a/#> <b>"),
    ("pingreq", SERVER, "C0 00"),
    ("disconnect", SERVER, "E0 00"),
    ("connack", CLIENT, "20 | 00 00"),
    ("connack, session present", CLIENT, "20 | 01 00"),
    ("connack, refused", CLIENT, "20 | 00 05"),
    ("suback", CLIENT, "90 | 00 0A 00 01 02 80"),
    ("unsuback", CLIENT, "B0 | 00 0A"),
    ("pingresp", CLIENT, "D0 00"),
];

pub const V311_INVALID: &[Invalid] = &[
    ("type 0", SERVER, MALFORMED, "00 00"),
    ("type 15", SERVER, MALFORMED, "F0 00"),
    ("length not minimal", SERVER, MALFORMED, "C0 80 00"),
    ("length not minimal, with content", SERVER, MALFORMED, "40 82 00 00 0A"),
    ("length of five bytes", SERVER, MALFORMED, "30 FF FF FF FF 7F"),
    ("connect: flags in the fixed header", SERVER, MALFORMED, "11 | <MQTT> 04 02 00 3C <d>"),
    ("connect: reserved flag", SERVER, MALFORMED, "10 | <MQTT> 04 03 00 3C <d>"),
    ("connect: will QoS 3", SERVER, MALFORMED, "10 | <MQTT> 04 1E 00 3C <d> <w> <p>"),
    ("connect: will QoS without will", SERVER, MALFORMED, "10 | <MQTT> 04 0A 00 3C <d>"),
    ("connect: will retain without will", SERVER, MALFORMED, "10 | <MQTT> 04 22 00 3C <d>"),
    ("connect: password without user name", SERVER, MALFORMED, "10 | <MQTT> 04 42 00 3C <d> <p>"),
    (
        "connect: other protocol name",
        SERVER,
        UnsupportedProtocolVersion,
        "10 | <MQTX> 04 02 00 3C <d>",
    ),
    ("connect: level 3", SERVER, UnsupportedProtocolVersion, "10 | <MQTT> 03 02 00 3C <d>"),
    ("connect: level 6", SERVER, UnsupportedProtocolVersion, "10 | <MQTT> 06 02 00 3C <d>"),
    (
        "connect: bridge bit in the level of 5.0",
        SERVER,
        UnsupportedProtocolVersion,
        "10 | <MQTT> 85 02 00 3C <d>",
    ),
    ("connect: MQTT 3.1", SERVER, UnsupportedProtocolVersion, "10 | <MQIsdp> 03 02 00 3C <d>"),
    ("connect: no client identifier", SERVER, MALFORMED, "10 | <MQTT> 04 02 00 3C"),
    ("connect: cut client identifier", SERVER, MALFORMED, "10 | <MQTT> 04 02 00 3C 00 05 'ab'"),
    ("connect: cut after the name", SERVER, MALFORMED, "10 | <MQTT>"),
    ("connect: empty", SERVER, MALFORMED, "10 00"),
    ("connect: trailing bytes", SERVER, MALFORMED, "10 | <MQTT> 04 02 00 3C <d> 00"),
    ("connect: U+0000 in the client id", SERVER, MALFORMED, "10 | <MQTT> 04 02 00 3C 00 01 00"),
    ("connect: client id not UTF-8", SERVER, MALFORMED, "10 | <MQTT> 04 02 00 3C 00 01 FF"),
    ("connect: surrogate", SERVER, MALFORMED, "10 | <MQTT> 04 02 00 3C 00 03 ED A0 80"),
    ("connect: user name not UTF-8", SERVER, MALFORMED, "10 | <MQTT> 04 82 00 3C <d> 00 01 C0"),
    ("connect: user name missing", SERVER, MALFORMED, "10 | <MQTT> 04 82 00 3C <d>"),
    ("connect: will missing", SERVER, MALFORMED, "10 | <MQTT> 04 06 00 3C <d>"),
    (
        "connect: will topic with wildcard",
        SERVER,
        MALFORMED,
        "10 | <MQTT> 04 06 00 3C <d> <w/#> <p>",
    ),
    ("connect: will topic empty", SERVER, MALFORMED, "10 | <MQTT> 04 06 00 3C <d> <> <p>"),
    ("publish: QoS 3", SERVER, MALFORMED, "36 | <a/b> 00 0A 'hi'"),
    ("publish: DUP with QoS 0", SERVER, MALFORMED, "38 | <a/b> 'hi'"),
    ("publish: packet identifier 0", SERVER, PROTOCOL, "32 | <a/b> 00 00 'hi'"),
    ("publish: packet identifier missing", SERVER, MALFORMED, "32 | <a/b>"),
    ("publish: packet identifier cut", SERVER, MALFORMED, "32 | <a/b> 00"),
    ("publish: topic cut", SERVER, MALFORMED, "30 | 00 05 'a/b'"),
    ("publish: no topic", SERVER, MALFORMED, "30 00"),
    ("publish: empty topic", SERVER, MALFORMED, "30 | <> 'hi'"),
    ("publish: + in the topic", SERVER, MALFORMED, "30 | <a/+>"),
    ("publish: # in the topic", SERVER, MALFORMED, "30 | <a#>"),
    ("publish: U+0000 in the topic", SERVER, MALFORMED, "30 | 00 03 'a' 00 'b'"),
    ("publish: topic not UTF-8", SERVER, MALFORMED, "30 | 00 02 'a' FF"),
    ("publish: overlong UTF-8", SERVER, MALFORMED, "30 | 00 02 C0 80"),
    ("puback: flags", SERVER, MALFORMED, "42 | 00 0A"),
    ("puback: packet identifier 0", SERVER, PROTOCOL, "40 | 00 00"),
    ("puback: cut", SERVER, MALFORMED, "40 | 00"),
    ("puback: empty", SERVER, MALFORMED, "40 00"),
    ("puback: reason code", SERVER, MALFORMED, "40 | 00 0A 00"),
    ("pubrec: flags", SERVER, MALFORMED, "51 | 00 0A"),
    ("pubrel: flags", SERVER, MALFORMED, "60 | 00 0A"),
    ("pubcomp: flags", SERVER, MALFORMED, "78 | 00 0A"),
    ("subscribe: flags", SERVER, MALFORMED, "80 | 00 0A <a> 00"),
    ("subscribe: packet identifier 0", SERVER, PROTOCOL, "82 | 00 00 <a> 00"),
    ("subscribe: no filters", SERVER, PROTOCOL, "82 | 00 0A"),
    ("subscribe: QoS 3", SERVER, MALFORMED, "82 | 00 0A <a> 03"),
    ("subscribe: reserved bits", SERVER, MALFORMED, "82 | 00 0A <a> 04"),
    ("subscribe: QoS missing", SERVER, MALFORMED, "82 | 00 0A <a>"),
    ("subscribe: empty filter", SERVER, MALFORMED, "82 | 00 0A <> 00"),
    ("subscribe: filter cut", SERVER, MALFORMED, "82 | 00 0A 00 09 'a'"),
    ("subscribe: U+0000 in the filter", SERVER, MALFORMED, "82 | 00 0A 00 01 00 00"),
    ("unsubscribe: flags", SERVER, MALFORMED, "A0 | 00 0A <a>"),
    ("unsubscribe: no filters", SERVER, PROTOCOL, "A2 | 00 0A"),
    ("unsubscribe: packet identifier 0", SERVER, PROTOCOL, "A2 | 00 00 <a>"),
    ("unsubscribe: empty filter", SERVER, MALFORMED, "A2 | 00 0A <>"),
    ("pingreq: flags", SERVER, MALFORMED, "C1 00"),
    ("pingreq: body", SERVER, MALFORMED, "C0 | 00"),
    ("disconnect: flags", SERVER, MALFORMED, "E1 00"),
    ("disconnect: body", SERVER, MALFORMED, "E0 | 00"),
    ("connack from a client", SERVER, PROTOCOL, "20 | 00 00"),
    ("suback from a client", SERVER, PROTOCOL, "90 | 00 0A 00"),
    ("unsuback from a client", SERVER, PROTOCOL, "B0 | 00 0A"),
    ("pingresp from a client", SERVER, PROTOCOL, "D0 00"),
    ("disconnect from a server", CLIENT, PROTOCOL, "E0 00"),
    ("connect from a server", CLIENT, PROTOCOL, "10 | <MQTT> 04 02 00 3C <d>"),
    ("subscribe from a server", CLIENT, PROTOCOL, "82 | 00 0A <a> 00"),
    ("connack: reserved flags", CLIENT, MALFORMED, "20 | 02 00"),
    ("connack: return code 6", CLIENT, MALFORMED, "20 | 00 06"),
    ("connack: session present with failure", CLIENT, PROTOCOL, "20 | 01 05"),
    ("connack: cut", CLIENT, MALFORMED, "20 | 00"),
    ("connack: trailing bytes", CLIENT, MALFORMED, "20 | 00 00 00"),
    ("suback: return code 3", CLIENT, MALFORMED, "90 | 00 0A 03"),
    ("suback: return code 0x87", CLIENT, MALFORMED, "90 | 00 0A 87"),
    ("suback: no return code", CLIENT, PROTOCOL, "90 | 00 0A"),
    ("unsuback: return code", CLIENT, MALFORMED, "B0 | 00 0A 00"),
    ("pingresp: body", CLIENT, MALFORMED, "D0 | 00"),
];

pub const V5_VALID: &[Valid] = &[
    ("connect, shortest", SERVER, "10 | <MQTT> 05 02 00 3C {} <>"),
    (
        "connect, all properties",
        SERVER,
        "10 | <MQTT> 05 02 00 3C {11 00 00 00 0A  21 00 14  27 00 00 10 00  22 00 0A  19 01  17 00 \
         26 <k> <v>  15 <SCRAM>  16 00 02 00 FF} <d>",
    ),
    ("connect, method without data", SERVER, "10 | <MQTT> 05 02 00 3C {15 <M>} <d>"),
    ("connect, password without user name", SERVER, "10 | <MQTT> 05 42 00 3C {} <d> <p>"),
    ("connect, binary password", SERVER, "10 | <MQTT> 05 C2 00 3C {} <d> <u> 00 02 FF 00"),
    (
        "connect, will with properties",
        SERVER,
        "10 | <MQTT> 05 2E 00 3C {} <d> {18 00 00 00 05  01 01  02 00 00 00 09  03 <t>  08 <r>  \
         09 00 01 FF  26 <k> <v>} <w> <p>",
    ),
    ("publish, no properties", SERVER, "30 | <a/b> {} 'hi'"),
    ("publish, QoS 1", SERVER, "32 | <a/b> 00 0A {} 'hi'"),
    (
        "publish, all properties",
        SERVER,
        "34 | <a/b> 00 0A {01 01  02 00 00 00 3C  23 00 01  08 <r/t>  09 00 02 00 FF  03 <text>  \
         26 <k> <v>  26 <k> <v>} 'hi'",
    ),
    (
        "publish, user properties between others",
        SERVER,
        "30 | <a> {26 <k> <1>  03 <t>  26 <k> <2>  02 00 00 00 09  26 <l> <3>  01 00} 'hi'",
    ),
    ("publish, alias instead of topic", SERVER, "30 | <> {23 00 05} 'hi'"),
    ("publish, empty user property", SERVER, "30 | <a> {26 <> <>}"),
    ("publish, two subscription identifiers", CLIENT, "30 | <a> {0B 01  0B 80 01} 'hi'"),
    ("puback, shortest", SERVER, "40 | 00 0A"),
    ("puback, reason code only", SERVER, "40 | 00 0A 10"),
    ("puback, empty properties", SERVER, "40 | 00 0A 00 {}"),
    ("puback, reason string", CLIENT, "40 | 00 0A 87 {1F <no>  26 <k> <v>}"),
    ("pubrec", SERVER, "50 | 00 0A 97"),
    ("pubrel", SERVER, "62 | 00 0A 92"),
    ("pubcomp", CLIENT, "70 | 00 0A 92 {}"),
    ("subscribe", SERVER, "82 | 00 0A {} <a/#> 2E"),
    ("subscribe, identifier", SERVER, "82 | 00 0A {0B FF FF FF 7F  26 <k> <v>} <a> 00 <b> 01"),
    ("subscribe, shared", SERVER, "82 | 00 0A {} <$share/g/a/+> 01"),
    ("subscribe, filter left to the session", SERVER, "82 | 00 0A {} <a/#/b> 01"),
    ("unsubscribe", SERVER, "A2 | 00 0A {26 <k> <v>} <a> <b>"),
    ("pingreq", SERVER, "C0 00"),
    ("disconnect, shortest", SERVER, "E0 00"),
    ("disconnect with will", SERVER, "E0 01 04"),
    ("disconnect, empty properties", SERVER, "E0 02 00 00"),
    ("disconnect, session expiry", SERVER, "E0 | 00 {11 00 00 00 0A  1F <bye>  26 <k> <v>}"),
    ("disconnect from a server", CLIENT, "E0 | 9C {1C <other>  1F <move>}"),
    ("auth, shortest", SERVER, "F0 00"),
    ("auth, continue", SERVER, "F0 | 18 {15 <SCRAM>  16 00 02 00 FF}"),
    ("auth, re-authenticate", SERVER, "F0 | 19 {15 <SCRAM>}"),
    ("auth from a server", CLIENT, "F0 | 00 {15 <SCRAM>  1F <ok>  26 <k> <v>}"),
    ("connack", CLIENT, "20 | 00 00 {}"),
    (
        "connack, all properties",
        CLIENT,
        "20 | 01 00 {11 00 00 00 0A  21 00 14  24 01  25 01  27 00 00 10 00  12 <id>  22 00 0A  \
         1F <r>  26 <k> <v>  28 01  29 00  2A 01  13 00 3C  1A <i>  1C <s>  15 <m>  16 00 01 FF}",
    ),
    ("connack, refused", CLIENT, "20 | 00 8C {}"),
    ("suback", CLIENT, "90 | 00 0A {1F <r>} 00 01 02 80 8F 91 97 9E A1 A2 83 87"),
    ("unsuback", CLIENT, "B0 | 00 0A {} 00 11 80 83 87 8F 91"),
    ("pingresp", CLIENT, "D0 00"),
];

pub const V5_INVALID: &[Invalid] = &[
    ("type 0", SERVER, MALFORMED, "0F 00"),
    ("length not minimal", SERVER, MALFORMED, "E0 80 00"),
    ("length of five bytes", SERVER, MALFORMED, "30 80 80 80 80 01"),
    ("connect: reserved flag", SERVER, MALFORMED, "10 | <MQTT> 05 03 00 3C {} <d>"),
    ("connect: flags in the fixed header", SERVER, MALFORMED, "12 | <MQTT> 05 02 00 3C {} <d>"),
    ("connect: will QoS 3", SERVER, MALFORMED, "10 | <MQTT> 05 1E 00 3C {} <d> {} <w> <p>"),
    ("connect: will QoS without will", SERVER, MALFORMED, "10 | <MQTT> 05 12 00 3C {} <d>"),
    ("connect: will retain without will", SERVER, MALFORMED, "10 | <MQTT> 05 22 00 3C {} <d>"),
    ("connect: no property length", SERVER, MALFORMED, "10 | <MQTT> 05 02 00 3C"),
    (
        "connect: property length not minimal",
        SERVER,
        MALFORMED,
        "10 | <MQTT> 05 02 00 3C 80 00 <d>",
    ),
    ("connect: properties past the end", SERVER, MALFORMED, "10 | <MQTT> 05 02 00 3C 7F <d>"),
    ("connect: trailing bytes", SERVER, MALFORMED, "10 | <MQTT> 05 02 00 3C {} <d> <x>"),
    ("connect: receive maximum 0", SERVER, PROTOCOL, "10 | <MQTT> 05 02 00 3C {21 00 00} <d>"),
    (
        "connect: maximum packet size 0",
        SERVER,
        PROTOCOL,
        "10 | <MQTT> 05 02 00 3C {27 00 00 00 00} <d>",
    ),
    ("connect: problem information 2", SERVER, PROTOCOL, "10 | <MQTT> 05 02 00 3C {17 02} <d>"),
    ("connect: response information 2", SERVER, PROTOCOL, "10 | <MQTT> 05 02 00 3C {19 02} <d>"),
    (
        "connect: session expiry twice",
        SERVER,
        PROTOCOL,
        "10 | <MQTT> 05 02 00 3C {11 00 00 00 01 11 00 00 00 01} <d>",
    ),
    (
        "connect: receive maximum twice",
        SERVER,
        PROTOCOL,
        "10 | <MQTT> 05 02 00 3C {21 00 01 21 00 01} <d>",
    ),
    ("connect: method twice", SERVER, PROTOCOL, "10 | <MQTT> 05 02 00 3C {15 <m> 15 <m>} <d>"),
    ("connect: data without method", SERVER, PROTOCOL, "10 | <MQTT> 05 02 00 3C {16 <x>} <d>"),
    ("connect: property of PUBLISH", SERVER, MALFORMED, "10 | <MQTT> 05 02 00 3C {01 01} <d>"),
    (
        "connect: property of the will",
        SERVER,
        MALFORMED,
        "10 | <MQTT> 05 02 00 3C {18 00 00 00 01} <d>",
    ),
    ("connect: unknown property", SERVER, MALFORMED, "10 | <MQTT> 05 02 00 3C {7F 00} <d>"),
    ("connect: property cut", SERVER, MALFORMED, "10 | <MQTT> 05 02 00 3C {11 00 00} <d>"),
    (
        "connect: will topic with wildcard",
        SERVER,
        MALFORMED,
        "10 | <MQTT> 05 06 00 3C {} <d> {} <+> <p>",
    ),
    ("connect: will topic empty", SERVER, MALFORMED, "10 | <MQTT> 05 06 00 3C {} <d> {} <> <p>"),
    (
        "connect: will with topic alias",
        SERVER,
        MALFORMED,
        "10 | <MQTT> 05 06 00 3C {} <d> {23 00 01} <w> <p>",
    ),
    (
        "connect: will delay twice",
        SERVER,
        PROTOCOL,
        "10 | <MQTT> 05 06 00 3C {} <d> {18 00 00 00 01 18 00 00 00 01} <w> <p>",
    ),
    (
        "connect: will response topic with wildcard",
        SERVER,
        MALFORMED,
        "10 | <MQTT> 05 06 00 3C {} <d> {08 <#>} <w> <p>",
    ),
    ("publish: QoS 3", SERVER, MALFORMED, "36 | <a/b> 00 0A {} 'hi'"),
    ("publish: DUP with QoS 0", SERVER, MALFORMED, "38 | <a/b> {} 'hi'"),
    ("publish: packet identifier 0", SERVER, PROTOCOL, "34 | <a/b> 00 00 {} 'hi'"),
    ("publish: no property length", SERVER, MALFORMED, "30 | <a/b>"),
    ("publish: property length past the end", SERVER, MALFORMED, "30 | <a/b> 05 01 01"),
    ("publish: property length not minimal", SERVER, MALFORMED, "30 | <a/b> 80 00 'hi'"),
    ("publish: property cut by the block", SERVER, MALFORMED, "30 | <a/b> {02 00 00} 00 09"),
    ("publish: topic with wildcard", SERVER, MALFORMED, "30 | <a/#> {}"),
    ("publish: U+0000 in the topic", SERVER, MALFORMED, "30 | 00 01 00 {}"),
    ("publish: topic not UTF-8", SERVER, MALFORMED, "30 | 00 01 80 {}"),
    ("publish: neither topic nor alias", SERVER, PROTOCOL, "30 | <> {} 'hi'"),
    ("publish: alias 0", SERVER, TopicAliasInvalid, "30 | <a> {23 00 00}"),
    ("publish: alias twice", SERVER, PROTOCOL, "30 | <a> {23 00 01 23 00 01}"),
    ("publish: expiry twice", SERVER, PROTOCOL, "30 | <a> {02 00 00 00 01 02 00 00 00 01}"),
    ("publish: format indicator twice", SERVER, PROTOCOL, "30 | <a> {01 00 01 00}"),
    ("publish: format indicator 2", SERVER, PROTOCOL, "30 | <a> {01 02}"),
    ("publish: content type twice", SERVER, PROTOCOL, "30 | <a> {03 <t> 03 <t>}"),
    ("publish: content type not UTF-8", SERVER, MALFORMED, "30 | <a> {03 00 01 FF}"),
    ("publish: response topic twice", SERVER, PROTOCOL, "30 | <a> {08 <r> 08 <r>}"),
    ("publish: response topic with wildcard", SERVER, MALFORMED, "30 | <a> {08 <r/+>}"),
    ("publish: response topic empty", SERVER, MALFORMED, "30 | <a> {08 <>}"),
    ("publish: correlation data twice", SERVER, PROTOCOL, "30 | <a> {09 <x> 09 <x>}"),
    ("publish: identifier from a client", SERVER, PROTOCOL, "30 | <a> {0B 01}"),
    ("publish: subscription identifier 0", CLIENT, PROTOCOL, "30 | <a> {0B 00}"),
    ("publish: identifier not minimal", CLIENT, MALFORMED, "30 | <a> {0B 81 00}"),
    ("publish: property of CONNECT", SERVER, MALFORMED, "30 | <a> {11 00 00 00 01}"),
    ("publish: unknown property", SERVER, MALFORMED, "30 | <a> {00}"),
    ("publish: user property cut", SERVER, MALFORMED, "30 | <a> {26 <k>}"),
    ("publish: U+0000 in a user property", SERVER, MALFORMED, "30 | <a> {26 <k> 00 01 00}"),
    ("puback: flags", SERVER, MALFORMED, "41 | 00 0A"),
    ("puback: packet identifier 0", SERVER, PROTOCOL, "40 | 00 00"),
    ("puback: unknown reason code", SERVER, MALFORMED, "40 | 00 0A 05"),
    ("puback: reason code of SUBACK", SERVER, PROTOCOL, "40 | 00 0A 01"),
    ("puback: trailing bytes", SERVER, MALFORMED, "40 | 00 0A 00 {} 00"),
    ("puback: reason string twice", SERVER, PROTOCOL, "40 | 00 0A 00 {1F <a> 1F <a>}"),
    ("puback: property of CONNECT", SERVER, MALFORMED, "40 | 00 0A 00 {21 00 01}"),
    ("pubrel: flags", SERVER, MALFORMED, "60 | 00 0A"),
    ("pubrel: reason code of PUBACK", SERVER, PROTOCOL, "62 | 00 0A 10"),
    ("subscribe: flags", SERVER, MALFORMED, "80 | 00 0A {} <a> 00"),
    ("subscribe: packet identifier 0", SERVER, PROTOCOL, "82 | 00 00 {} <a> 00"),
    ("subscribe: no filters", SERVER, PROTOCOL, "82 | 00 0A {}"),
    ("subscribe: identifier 0", SERVER, PROTOCOL, "82 | 00 0A {0B 00} <a> 00"),
    ("subscribe: identifier twice", SERVER, PROTOCOL, "82 | 00 0A {0B 01 0B 02} <a> 00"),
    ("subscribe: identifier too long", SERVER, MALFORMED, "82 | 00 0A {0B FF FF FF FF 01} <a> 00"),
    ("subscribe: QoS 3", SERVER, PROTOCOL, "82 | 00 0A {} <a> 03"),
    ("subscribe: retain handling 3", SERVER, PROTOCOL, "82 | 00 0A {} <a> 30"),
    ("subscribe: reserved bit 6", SERVER, MALFORMED, "82 | 00 0A {} <a> 40"),
    ("subscribe: reserved bit 7", SERVER, MALFORMED, "82 | 00 0A {} <a> 80"),
    ("subscribe: no local and shared", SERVER, PROTOCOL, "82 | 00 0A {} <$share/g/a> 04"),
    ("subscribe: empty filter", SERVER, MALFORMED, "82 | 00 0A {} <> 00"),
    ("subscribe: options missing", SERVER, MALFORMED, "82 | 00 0A {} <a>"),
    ("subscribe: property of PUBLISH", SERVER, MALFORMED, "82 | 00 0A {01 01} <a> 00"),
    ("unsubscribe: flags", SERVER, MALFORMED, "A0 | 00 0A {} <a>"),
    ("unsubscribe: no filters", SERVER, PROTOCOL, "A2 | 00 0A {}"),
    ("unsubscribe: empty filter", SERVER, MALFORMED, "A2 | 00 0A {} <>"),
    ("unsubscribe: subscription identifier", SERVER, MALFORMED, "A2 | 00 0A {0B 01} <a>"),
    ("pingreq: flags", SERVER, MALFORMED, "C2 00"),
    ("pingreq: body", SERVER, MALFORMED, "C0 | 00"),
    ("disconnect: flags", SERVER, MALFORMED, "E8 00"),
    ("disconnect: reason code of CONNACK", SERVER, PROTOCOL, "E0 01 84"),
    ("disconnect: unknown reason code", SERVER, MALFORMED, "E0 01 7F"),
    ("disconnect: trailing bytes", SERVER, MALFORMED, "E0 | 00 {} 00"),
    ("disconnect: expiry twice", SERVER, PROTOCOL, "E0 | 00 {11 00 00 00 01 11 00 00 00 01}"),
    ("disconnect: expiry from a server", CLIENT, PROTOCOL, "E0 | 00 {11 00 00 00 01}"),
    ("disconnect: property of PUBLISH", SERVER, MALFORMED, "E0 | 00 {23 00 01}"),
    ("auth: flags", SERVER, MALFORMED, "F1 00"),
    ("auth: no property length", SERVER, MALFORMED, "F0 01 18"),
    ("auth: no method", SERVER, PROTOCOL, "F0 | 18 {}"),
    ("auth: data without method", SERVER, PROTOCOL, "F0 | 00 {16 <x>}"),
    ("auth: method twice", SERVER, PROTOCOL, "F0 | 18 {15 <m> 15 <m>}"),
    ("auth: reason code of DISCONNECT", SERVER, PROTOCOL, "F0 | 04 {15 <m>}"),
    ("auth: unknown reason code", SERVER, MALFORMED, "F0 | 1A {15 <m>}"),
    ("auth: trailing bytes", SERVER, MALFORMED, "F0 | 18 {15 <m>} 00"),
    ("connack from a client", SERVER, PROTOCOL, "20 | 00 00 {}"),
    ("suback from a client", SERVER, PROTOCOL, "90 | 00 0A {} 00"),
    ("pingresp from a client", SERVER, PROTOCOL, "D0 00"),
    ("subscribe from a server", CLIENT, PROTOCOL, "82 | 00 0A {} <a> 00"),
    ("pingreq from a server", CLIENT, PROTOCOL, "C0 00"),
    ("connack: reserved flags", CLIENT, MALFORMED, "20 | 80 00 {}"),
    ("connack: session present with failure", CLIENT, PROTOCOL, "20 | 01 87 {}"),
    ("connack: reason code of SUBACK", CLIENT, PROTOCOL, "20 | 00 01 {}"),
    ("connack: maximum QoS 2", CLIENT, PROTOCOL, "20 | 00 00 {24 02}"),
    ("connack: receive maximum 0", CLIENT, PROTOCOL, "20 | 00 00 {21 00 00}"),
    ("connack: maximum packet size 0", CLIENT, PROTOCOL, "20 | 00 00 {27 00 00 00 00}"),
    ("connack: retain available 2", CLIENT, PROTOCOL, "20 | 00 00 {25 02}"),
    ("connack: server keep alive twice", CLIENT, PROTOCOL, "20 | 00 00 {13 00 01 13 00 01}"),
    ("connack: property of CONNECT", CLIENT, MALFORMED, "20 | 00 00 {17 01}"),
    ("connack: no property length", CLIENT, MALFORMED, "20 | 00 00"),
    ("suback: no reason code", CLIENT, PROTOCOL, "90 | 00 0A {}"),
    ("suback: reason code of UNSUBACK", CLIENT, PROTOCOL, "90 | 00 0A {} 11"),
    ("suback: unknown reason code", CLIENT, MALFORMED, "90 | 00 0A {} 03"),
    ("unsuback: reason code of SUBACK", CLIENT, PROTOCOL, "B0 | 00 0A {} 01"),
    ("unsuback: no reason code", CLIENT, PROTOCOL, "B0 | 00 0A {}"),
];
