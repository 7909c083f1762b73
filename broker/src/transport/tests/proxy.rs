use super::wire::*;
use crate::transport::{
    Carrier, Flow, LayerFault, Layers, ListenerTransport, Networks, ProxyFault, TransportKind,
};

const V1: &[u8] = b"PROXY TCP4 203.0.113.5 10.0.0.1 40000 1883\r\n";
/// Version 2, LOCAL: the proxy checks the broker's health.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn behind(proxy: &str, carrier: Carrier) -> ListenerTransport {
    let proxies = Some(Networks::from_iter([proxy.parse().unwrap()]));
    ListenerTransport { carrier, proxies }
}

#[test]
fn plain_tcp_is_transparent_from_the_first_byte() {
    let listener = ListenerTransport::new(Carrier::Tcp);
    let mut layers = Layers::new(&listener, "[::ffff:198.51.100.7]:50000".parse().unwrap());
    assert!(layers.is_transparent() && layers.peer().ready);
    assert_eq!(layers.peer().address, client_address());
    assert_eq!(layers.peer().transport, TransportKind::Tcp);
    let fed = feed(&mut layers, b"\x10\x0c", 1);
    assert_eq!((fed.plain.as_slice(), fed.flow.unwrap()), (&b"\x10\x0c"[..], Flow::Open));
    assert_eq!(send(&mut layers, b"\x20\x02"), b"\x20\x02");
    assert!(close(&mut layers).is_empty());
}

#[test]
fn a_trusted_proxy_names_the_client_and_then_steps_aside() {
    let listener = behind("198.51.100.0/24", Carrier::Tcp);
    for (header, address) in [(V1, "203.0.113.5:40000"), (LOCAL, "198.51.100.7:50000")] {
        for piece in [1, 5, usize::MAX] {
            let mut layers = Layers::new(&listener, client_address());
            assert!(!layers.is_transparent() && !layers.peer().ready);
            assert!(matches!(layers.send(b"x", &mut Vec::new()), Err(LayerFault::NotReady)));
            let mut raw = header.to_vec();
            raw.extend_from_slice(b"\x10\x0crest");
            let fed = feed(&mut layers, &raw, piece);
            assert_eq!(fed.plain, b"\x10\x0crest");
            assert_eq!(fed.flow.unwrap(), Flow::Open);
            assert!(layers.is_transparent() && layers.peer().ready);
            assert_eq!(layers.peer().address, address.parse().unwrap());
        }
    }
}

#[test]
fn others_are_refused_whatever_they_send() {
    let listener = behind("10.0.0.0/8", Carrier::Tcp);
    for raw in [V1, b"\x10\x0c\x00\x04MQTT"] {
        let mut layers = Layers::new(&listener, client_address());
        let fed = feed(&mut layers, raw, usize::MAX);
        assert!(matches!(fed.flow, Err(LayerFault::Proxy(ProxyFault::Untrusted))));
        assert!(fed.plain.is_empty());
        assert_eq!(layers.peer().address, client_address());
    }
}

#[test]
fn a_trusted_proxy_must_send_the_header() {
    let listener = behind("198.51.100.7", Carrier::Tcp);
    let mut layers = Layers::new(&listener, client_address());
    let fed = feed(&mut layers, b"\x10\x0c\x00\x04MQTT", 1);
    assert!(matches!(fed.flow, Err(LayerFault::Proxy(ProxyFault::Missing))));
    assert!(!layers.is_transparent());
}

#[test]
fn the_header_comes_before_tls() {
    let authority = Authority::new("authority");
    let listener = behind("198.51.100.7", Carrier::Tls(certificates_of(&authority)));
    for piece in [1, usize::MAX] {
        let mut layers = Layers::new(&listener, client_address());
        let mut client = TlsClient::new(&authority, &[&rustls::version::TLS13], None);
        let mut raw = V1.to_vec();
        raw.extend(client.output());
        let fed = feed(&mut layers, &raw, piece);
        assert!(!layers.peer().ready);
        client.input(&fed.raw_out).unwrap();
        client.handshake(&mut layers, piece);
        assert!(layers.peer().ready && !layers.is_transparent());
        assert_eq!(layers.peer().address, "203.0.113.5:40000".parse().unwrap());
    }
}
