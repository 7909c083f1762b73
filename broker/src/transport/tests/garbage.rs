//! Anything may come in: nothing panics, nothing is amplified, memory stays bounded.

use proptest::prelude::*;
use rustls::version::TLS13;

use super::wire::*;
use crate::transport::{Carrier, Layers, ListenerTransport, Networks};

/// Most bytes any refusal takes: an alert, an HTTP response, a close frame.
const REFUSAL_BYTES_MAX: usize = 512;

fn listeners() -> Vec<ListenerTransport> {
    let certificates = certificates_of(&Authority::new("authority"));
    let settings = web_settings(&[]);
    let carriers = [
        Carrier::Tcp,
        Carrier::Tls(certificates.clone()),
        Carrier::WebSocket(settings.clone()),
        Carrier::SecureWebSocket(certificates, settings),
    ];
    let everyone: Networks = ["0.0.0.0/0".parse().unwrap()].into_iter().collect();
    let mut listeners = Vec::new();
    for carrier in carriers {
        listeners.push(ListenerTransport::new(carrier.clone()));
        listeners.push(ListenerTransport { carrier, proxies: Some(everyone.clone()) });
    }
    listeners
}

/// Starts that lead deeper than random bytes would.
fn beginnings() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        Just(b"PROXY ".to_vec()),
        Just(b"PROXY UNKNOWN\r\n\x16\x03\x01\x00\x20\x01".to_vec()),
        Just(b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec()),
        Just(b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03".to_vec()),
        Just(b"GET /mqtt HTTP/1.1\r\n".to_vec()),
        Just(web_request_bytes(web_request("/mqtt", Some("mqtt"), None))),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_borne(
        beginning in beginnings(),
        rest in prop::collection::vec(any::<u8>(), 0..400),
        piece in 1_usize..64,
    ) {
        let raw = [beginning, rest].concat();
        for listener in listeners() {
            let mut layers = Layers::new(&listener, client_address());
            let fed = feed(&mut layers, &raw, piece);
            prop_assert!(fed.plain.len() <= raw.len());
            prop_assert!(fed.raw_out.len() <= raw.len() + REFUSAL_BYTES_MAX);
            if fed.flow.is_err() {
                let again = feed(&mut layers, &raw, piece);
                prop_assert!(again.plain.is_empty() && again.raw_out.is_empty());
            }
        }
    }

    #[test]
    fn a_tls_stream_with_a_changed_byte_is_refused(
        place in 0_usize..400,
        change in 1_u8..,
        piece in 1_usize..64,
    ) {
        let authority = Authority::new("authority");
        let listener = ListenerTransport::new(Carrier::Tls(certificates_of(&authority)));
        let mut layers = Layers::new(&listener, client_address());
        let mut client = TlsClient::new(&authority, &[&TLS13], None);
        client.handshake(&mut layers, usize::MAX);
        let mut raw = client.say(&[7; 400]);
        raw[5 + place] ^= change;
        let fed = feed(&mut layers, &raw, piece);
        prop_assert!(fed.flow.is_err());
        prop_assert!(fed.plain.is_empty());
    }
}
