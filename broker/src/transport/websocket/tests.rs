use proptest::prelude::*;
use tungstenite::Message;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};

use crate::transport::tests::wire::*;
use crate::transport::{
    Carrier, Flow, FrameFault, LayerFault, Layers, ListenerTransport, TransportKind, UpgradeFault,
};

const BINARY: OpCode = OpCode::Data(Data::Binary);
const TEXT: OpCode = OpCode::Data(Data::Text);
const CONTINUE: OpCode = OpCode::Data(Data::Continue);
const PING: OpCode = OpCode::Control(Control::Ping);
const PONG: OpCode = OpCode::Control(Control::Pong);
const CLOSE: OpCode = OpCode::Control(Control::Close);

fn layers(origins: &[&str]) -> Layers {
    let listener = ListenerTransport::new(Carrier::WebSocket(web_settings(origins)));
    Layers::new(&listener, client_address())
}

fn connected() -> (Layers, WebClient) {
    let mut layers = layers(&[]);
    let client = WebClient::connect(|request| feed(&mut layers, request, usize::MAX).raw_out);
    assert!(layers.peer().ready && !layers.is_transparent());
    assert_eq!(layers.peer().transport, TransportKind::WebSocket);
    (layers, client)
}

/// A frame as a client sends it.
fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Frame::message(payload.to_vec(), BINARY, is_final);
    frame.header_mut().opcode = opcode;
    frame.header_mut().mask = Some([0x37, 0xFA, 0x21, 0x3D]);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).unwrap();
    bytes
}

/// The status of the close frame at the end of what was sent.
fn close_code(raw_out: &[u8]) -> u16 {
    let [.., 0x88, 2, high, low] = raw_out else { panic!("no close frame in {raw_out:?}") };
    u16::from_be_bytes([*high, *low])
}

#[test]
fn messages_pass_both_ways() {
    let (mut layers, mut client) = connected();
    for length in [1_u32, 125, 126, 65_535, 65_536, 300_000] {
        let words: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let fed = feed(&mut layers, &client.say(Message::binary(words.clone())), 1000);
        assert_eq!(fed.plain, words);
        let raw = send(&mut layers, &words);
        assert_eq!(client.hear(&raw), Message::binary(words));
    }
    assert!(send(&mut layers, b"").is_empty());
}

#[test]
fn the_upgrade_may_come_byte_by_byte_with_a_packet_behind_it() {
    let request = web_request_bytes(web_request("/mqtt", Some("mqtt"), None));
    for piece in [1, 3, usize::MAX] {
        let mut layers = layers(&[]);
        let raw = [request.clone(), frame(BINARY, true, b"CONNECT")].concat();
        let fed = feed(&mut layers, &raw, piece);
        assert_eq!(fed.plain, b"CONNECT");
        assert_eq!(fed.flow.unwrap(), Flow::Open);
        let response = String::from_utf8(fed.raw_out).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(response.to_lowercase().contains("sec-websocket-protocol: mqtt\r\n"), "{response}");
    }
}

#[test]
fn upgrades_are_judged_by_path_subprotocol_and_origin() {
    let chat = Some("https://chat.example");
    let cases = [
        ("/mqtt", Some("mqtt"), None, Ok(())),
        ("/mqtt?token=1", Some("mqtt"), None, Ok(())),
        ("/mqtt", Some("mqttv3.1,mqtt"), chat, Ok(())),
        ("/mqtt", Some("mqtt"), Some("HTTPS://Chat.Example"), Ok(())),
        ("/", Some("mqtt"), None, Err((UpgradeFault::Path, "404"))),
        ("/mqtt/", Some("mqtt"), None, Err((UpgradeFault::Path, "404"))),
        ("/mqtt", None, None, Err((UpgradeFault::Subprotocol, "400"))),
        ("/mqtt", Some("mqttv3.1"), None, Err((UpgradeFault::Subprotocol, "400"))),
        ("/mqtt", Some("mqtt"), Some("https://evil.example"), Err((UpgradeFault::Origin, "403"))),
        ("/mqtt", Some("mqtt"), Some("null"), Err((UpgradeFault::Origin, "403"))),
    ];
    for (path, subprotocol, origin, expected) in cases {
        let mut layers = layers(&["https://chat.example"]);
        let raw = web_request_bytes(web_request(path, subprotocol, origin));
        let fed = feed(&mut layers, &raw, 50);
        let response = String::from_utf8(fed.raw_out).unwrap();
        match (expected, fed.flow) {
            (Ok(()), Ok(Flow::Open)) => assert!(response.starts_with("HTTP/1.1 101 ")),
            (Err((fault, status)), Err(LayerFault::Upgrade(found))) => {
                assert_eq!(found, fault);
                assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
                assert!(response.ends_with(&format!("\r\n\r\n{fault}\n")), "{response}");
            }
            (expected, found) => panic!("{path} {origin:?}: {expected:?}, but {found:?}"),
        }
    }
}

#[test]
fn without_allowed_origins_every_page_may_connect() {
    let mut layers = layers(&[]);
    let request = web_request("/mqtt", Some("mqtt"), Some("https://anywhere.example"));
    let fed = feed(&mut layers, &web_request_bytes(request), usize::MAX);
    assert!(fed.raw_out.starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn what_is_no_upgrade_is_told_so() {
    let head = "GET /mqtt HTTP/1.1\r\nHost: broker\r\n";
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let offer = "Sec-WebSocket-Protocol: mqtt\r\n";
    let cases = [
        ("\x10\x0c\x00\x04MQTT\x04\x02".to_owned(), UpgradeFault::NotHttp, "400"),
        ("POST /mqtt HTTP/1.1\r\n".to_owned(), UpgradeFault::NotHttp, "400"),
        (format!("{head}\r\n"), UpgradeFault::NotUpgrade, "426"),
        (
            format!("{head}{upgrade}{key}{offer}Sec-WebSocket-Version: 8\r\n\r\n"),
            UpgradeFault::NotUpgrade,
            "426",
        ),
        (
            format!("{head}{upgrade}{offer}Sec-WebSocket-Version: 13\r\n\r\n"),
            UpgradeFault::Malformed,
            "400",
        ),
        ("GET /mqtt HTTP/1.0\r\n\r\n".to_owned(), UpgradeFault::Malformed, "400"),
        ("GET \r\n\r\n\r\n".to_owned(), UpgradeFault::Malformed, "400"),
        (format!("{head}X: {}", "x".repeat(9000)), UpgradeFault::TooLong, "431"),
        (format!("GET /{}", "x".repeat(9000)), UpgradeFault::TooLong, "431"),
    ];
    for (raw, fault, status) in cases {
        for piece in [1, usize::MAX] {
            let mut layers = layers(&[]);
            let fed = feed(&mut layers, raw.as_bytes(), piece);
            assert!(
                matches!(fed.flow, Err(LayerFault::Upgrade(found)) if found == fault),
                "{fault:?}, but {:?}",
                fed.flow
            );
            let response = String::from_utf8(fed.raw_out).unwrap();
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
            assert!(!layers.peer().ready);
            assert!(close(&mut layers).is_empty());
        }
    }
}

#[test]
fn what_is_no_binary_frame_ends_the_connection() {
    let mut unmasked = frame(BINARY, true, b"x");
    unmasked[1] &= 0x7F;
    let mut reserved_bit = frame(BINARY, true, b"x");
    reserved_bit[0] |= 0x40;
    let mut reserved_kind = frame(BINARY, true, b"x");
    reserved_kind[0] = 0x83;
    let mut reserved_control = frame(BINARY, true, b"");
    reserved_control[0] = 0x8B;
    let mut impossible = vec![0x82, 0xFF];
    impossible.extend([0xFF; 12]);
    let cases = [
        (frame(TEXT, true, b"text"), FrameFault::Text, 1003),
        (frame(TEXT, false, b""), FrameFault::Text, 1003),
        (unmasked, FrameFault::Unmasked, 1002),
        (reserved_bit, FrameFault::Header, 1002),
        (reserved_kind, FrameFault::Header, 1002),
        (reserved_control, FrameFault::Header, 1002),
        (impossible, FrameFault::Header, 1002),
        (frame(PING, false, b""), FrameFault::Control, 1002),
        (frame(PING, true, &[0; 126]), FrameFault::Control, 1002),
        (frame(CONTINUE, true, b"x"), FrameFault::Fragments, 1002),
        (
            [frame(BINARY, false, b""), frame(BINARY, true, b"")].concat(),
            FrameFault::Fragments,
            1002,
        ),
        (frame(CLOSE, true, &[3]), FrameFault::Close, 1002),
        (frame(CLOSE, true, &[0x03, 0xED]), FrameFault::Close, 1002),
        (frame(CLOSE, true, &[0x03, 0xE8, 0xFF]), FrameFault::Close, 1002),
    ];
    for (bad, fault, code) in cases {
        for piece in [1, usize::MAX] {
            let (mut layers, _) = connected();
            let raw = [frame(BINARY, true, b"before"), bad.clone(), b"after".to_vec()].concat();
            let fed = feed(&mut layers, &raw, piece);
            assert!(
                matches!(fed.flow, Err(LayerFault::Frame(found)) if found == fault),
                "{fault:?}, but {:?}",
                fed.flow
            );
            assert_eq!(fed.plain, b"before");
            assert_eq!(close_code(&fed.raw_out), code);
            assert!(matches!(layers.send(b"late", &mut Vec::new()), Err(LayerFault::Ended)));
            assert!(close(&mut layers).is_empty(), "a second close frame");
        }
    }
}

#[test]
fn pings_are_answered_also_between_fragments() {
    let (mut layers, mut client) = connected();
    let raw = [
        frame(BINARY, false, b"one "),
        frame(PING, true, b"there?"),
        frame(PONG, true, b"unasked"),
        frame(CONTINUE, false, b""),
        frame(CONTINUE, true, b"packet"),
    ]
    .concat();
    let fed = feed(&mut layers, &raw, 2);
    assert_eq!(fed.plain, b"one packet");
    assert_eq!(client.hear(&fed.raw_out), Message::Pong(b"there?".to_vec().into()));
    let fed = feed(&mut layers, &frame(PING, true, &[9; 125]), 10);
    assert_eq!(client.hear(&fed.raw_out), Message::Pong(vec![9; 125].into()));
}

#[test]
fn a_clean_end_is_answered_with_its_status() {
    for (status, echoed) in [(None, None), (Some(CloseCode::Away), Some(1001))] {
        let (mut layers, mut client) = connected();
        let mut raw = client.say(Message::binary(b"DISCONNECT".to_vec()));
        let reason = status.map(|code| CloseFrame { code, reason: "bye".into() });
        raw.extend(client.say(Message::Close(reason)));
        raw.extend_from_slice(b"after the end");
        let fed = feed(&mut layers, &raw, usize::MAX);
        assert_eq!(fed.plain, b"DISCONNECT");
        assert_eq!(fed.flow.unwrap(), Flow::Closed);
        let Message::Close(answer) = client.hear(&fed.raw_out) else { panic!("no close frame") };
        assert_eq!(answer.map(|answer| u16::from(answer.code)), echoed);
        assert!(close(&mut layers).is_empty());
    }
}

#[test]
fn after_our_close_frame_packets_under_way_still_arrive() {
    let (mut layers, mut client) = connected();
    let under_way = client.say(Message::binary(b"PUBACK".to_vec()));
    let raw = close(&mut layers);
    assert_eq!(close_code(&raw), 1000);
    assert!(client.hear(&raw).is_close());
    client.socket.flush().unwrap_or_default();
    let fed = feed(&mut layers, &[under_way, client.pipe.take_output()].concat(), usize::MAX);
    assert_eq!(fed.plain, b"PUBACK");
    assert_eq!(fed.flow.unwrap(), Flow::Closed);
    assert!(fed.raw_out.is_empty());
}

#[test]
fn nothing_is_sent_before_the_upgrade() {
    let mut layers = layers(&[]);
    assert!(matches!(layers.send(b"early", &mut Vec::new()), Err(LayerFault::NotReady)));
    assert!(close(&mut layers).is_empty());
}

proptest! {
    /// Packets are neither lost nor changed by the way they are put into frames and cut.
    #[test]
    fn frames_may_be_split_anywhere(
        messages in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4),
            0..6,
        ),
        pieces in prop::collection::vec(1_usize..40, 1..50),
    ) {
        let (mut layers, _) = connected();
        let mut raw = Vec::new();
        let mut expected = Vec::new();
        for message in &messages {
            for (place, fragment) in message.iter().enumerate() {
                let opcode = if place == 0 { BINARY } else { CONTINUE };
                raw.extend(frame(opcode, place + 1 == message.len(), fragment));
                expected.extend_from_slice(fragment);
            }
        }
        let mut plain = Vec::new();
        let mut out = Vec::new();
        let mut rest = raw.as_slice();
        for piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            let flow = layers.receive(&mut now.to_vec(), &mut plain, &mut out);
            prop_assert_eq!(flow.unwrap(), Flow::Open);
            rest = later;
        }
        prop_assert_eq!(plain, expected);
        prop_assert!(out.is_empty());
    }
}
