//! WebSocket over TLS.

use std::sync::Arc;

use rustls::version::TLS13;
use tungstenite::Message;

use super::wire::*;
use crate::transport::{
    Carrier, Certificates, Flow, FrameFault, LayerFault, Layers, ListenerTransport,
};

fn layers(certificates: &Arc<Certificates>) -> Layers {
    let carrier = Carrier::SecureWebSocket(certificates.clone(), web_settings(&[]));
    Layers::new(&ListenerTransport::new(carrier), client_address())
}

/// Both handshakes, in pieces.
fn connect(authority: &Authority, layers: &mut Layers, piece: usize) -> (TlsClient, WebClient) {
    let mut tls = TlsClient::new(authority, &[&TLS13], None);
    tls.handshake(layers, piece);
    assert!(!layers.peer().ready, "ready before the upgrade");
    let web = WebClient::connect(|request| {
        let fed = feed(layers, &tls.say(request), piece);
        assert!(fed.plain.is_empty());
        tls.input(&fed.raw_out).unwrap();
        std::mem::take(&mut tls.received)
    });
    assert!(layers.peer().ready);
    (tls, web)
}

#[test]
fn frames_pass_both_ways() {
    let authority = Authority::new("authority");
    let certificates = certificates_of(&authority);
    let words: Vec<u8> = (0..70_000_u32).map(|n| n as u8).collect();
    for piece in [1, 100, usize::MAX] {
        let mut layers = layers(&certificates);
        let (mut tls, mut web) = connect(&authority, &mut layers, piece);
        let frames = web.say(Message::binary(words.clone()));
        let fed = feed(&mut layers, &tls.say(&frames), piece);
        assert_eq!(fed.plain, words);

        tls.input(&send(&mut layers, &words)).unwrap();
        let frames = std::mem::take(&mut tls.received);
        assert_eq!(web.hear(&frames), Message::binary(words.clone()));

        let ping = web.say(Message::Ping(b"there?".to_vec().into()));
        let fed = feed(&mut layers, &tls.say(&ping), piece);
        tls.input(&fed.raw_out).unwrap();
        let frames = std::mem::take(&mut tls.received);
        assert_eq!(web.hear(&frames), Message::Pong(b"there?".to_vec().into()));

        tls.input(&close(&mut layers)).unwrap();
        assert!(web.hear(&tls.received).is_close());
        assert!(tls.ended);
        assert!(close(&mut layers).is_empty());
    }
}

#[test]
fn a_refusal_reaches_the_client_through_tls() {
    let authority = Authority::new("authority");
    let mut layers = layers(&certificates_of(&authority));
    let mut tls = TlsClient::new(&authority, &[&TLS13], None);
    tls.handshake(&mut layers, usize::MAX);
    let request = web_request_bytes(web_request("/elsewhere", Some("mqtt"), None));
    let fed = feed(&mut layers, &tls.say(&request), usize::MAX);
    assert!(matches!(fed.flow, Err(LayerFault::Upgrade(_))));
    tls.input(&fed.raw_out).unwrap();
    assert!(tls.received.starts_with(b"HTTP/1.1 404 "));
    assert!(tls.ended, "no close alert");
}

#[test]
fn a_faulty_frame_ends_both_layers() {
    let authority = Authority::new("authority");
    let mut layers = layers(&certificates_of(&authority));
    let (mut tls, mut web) = connect(&authority, &mut layers, usize::MAX);
    let frames = web.say(Message::text("not MQTT"));
    let fed = feed(&mut layers, &tls.say(&frames), usize::MAX);
    assert!(matches!(fed.flow, Err(LayerFault::Frame(FrameFault::Text))));
    tls.input(&fed.raw_out).unwrap();
    assert!(tls.ended && web.hear(&tls.received).is_close());
}

#[test]
fn a_clean_end_is_answered_in_both_layers() {
    let authority = Authority::new("authority");
    let mut layers = layers(&certificates_of(&authority));
    let (mut tls, mut web) = connect(&authority, &mut layers, usize::MAX);
    let mut frames = web.say(Message::binary(b"DISCONNECT".to_vec()));
    frames.extend(web.say(Message::Close(None)));
    let fed = feed(&mut layers, &tls.say(&frames), usize::MAX);
    assert_eq!(fed.plain, b"DISCONNECT");
    assert_eq!(fed.flow.unwrap(), Flow::Closed);
    tls.input(&fed.raw_out).unwrap();
    assert!(web.hear(&tls.received).is_close());
    tls.input(&close(&mut layers)).unwrap();
    assert!(tls.ended);
}
