use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::wire::*;
use crate::transport::{
    Carrier, Certificates, ClientCertificates, Flow, LayerFault, Layers, ListenerTransport,
    TlsError,
};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
const PIECES: [usize; 4] = [1, 7, 1000, usize::MAX];

fn layers(certificates: &std::sync::Arc<Certificates>) -> Layers {
    Layers::new(&ListenerTransport::new(Carrier::Tls(certificates.clone())), client_address())
}

#[test]
fn bytes_pass_both_ways_in_both_versions_cut_anywhere() {
    let authority = Authority::new("authority");
    let certificates = certificates_of(&authority);
    let words: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    for version in VERSIONS {
        for piece in PIECES {
            let mut layers = layers(&certificates);
            let mut client = TlsClient::new(&authority, &[version], None);
            assert!(!layers.peer().ready && !layers.is_transparent());
            client.handshake(&mut layers, piece);
            assert!(layers.peer().ready, "{version:?} {piece}");
            assert_eq!(client.connection.protocol_version(), Some(version.version));

            let fed = feed(&mut layers, &client.say(&words), piece);
            assert_eq!(fed.plain, words);
            let raw = send(&mut layers, &words);
            client.input(&raw).unwrap();
            assert_eq!(client.received, words);

            client.input(&close(&mut layers)).unwrap();
            assert!(client.ended);
            assert!(close(&mut layers).is_empty(), "the close alert was sent twice");
            assert!(matches!(layers.send(b"late", &mut Vec::new()), Err(LayerFault::Ended)));
        }
    }
}

#[test]
fn sending_works_while_a_record_is_half_received() {
    let authority = Authority::new("authority");
    let certificates = certificates_of(&authority);
    for version in VERSIONS {
        let mut layers = layers(&certificates);
        let mut client = TlsClient::new(&authority, &[version], None);
        client.handshake(&mut layers, usize::MAX);
        let raw = client.say(b"a packet that comes in two pieces");
        let (first, second) = raw.split_at(raw.len() / 2);
        assert!(feed(&mut layers, first, usize::MAX).plain.is_empty());
        let out = send(&mut layers, b"meanwhile");
        client.input(&out).unwrap();
        assert_eq!(client.received, b"meanwhile");
        let fed = feed(&mut layers, second, usize::MAX);
        assert_eq!(fed.plain, b"a packet that comes in two pieces");
    }
}

#[test]
fn a_client_that_renews_its_keys_goes_on() {
    let authority = Authority::new("authority");
    let mut layers = layers(&certificates_of(&authority));
    let mut client = TlsClient::new(&authority, &[&TLS13], None);
    client.handshake(&mut layers, usize::MAX);
    for round in 0..5_u8 {
        client.connection.refresh_traffic_keys().unwrap();
        let fed = feed(&mut layers, &client.say(&[round]), 3);
        assert_eq!(fed.plain, [round]);
        client.input(&fed.raw_out).unwrap();
        let out = send(&mut layers, &[round]);
        client.input(&out).unwrap();
    }
    assert_eq!(client.received, [0, 1, 2, 3, 4]);
}

#[test]
fn a_clean_end_follows_what_came_before_it() {
    let authority = Authority::new("authority");
    let certificates = certificates_of(&authority);
    for version in VERSIONS {
        let mut layers = layers(&certificates);
        let mut client = TlsClient::new(&authority, &[version], None);
        client.handshake(&mut layers, usize::MAX);
        let mut raw = client.say(b"DISCONNECT");
        client.connection.send_close_notify();
        raw.extend(client.output());
        let fed = feed(&mut layers, &raw, usize::MAX);
        assert_eq!(fed.plain, b"DISCONNECT");
        assert_eq!(fed.flow.unwrap(), Flow::Closed);
        client.input(&close(&mut layers)).unwrap();
        assert!(client.ended);
    }
}

#[test]
fn sessions_resume_until_the_certificates_are_reloaded() {
    let authority = Authority::new("authority");
    let folder = tempfile::tempdir().unwrap();
    let files = tls_files(folder.path(), &authority.sign("broker"));
    let certificates = Certificates::load(files).unwrap();
    for version in VERSIONS {
        let config = client_config(&authority, &[version], None);
        let connect = || {
            let mut layers = layers(&certificates);
            let mut client = TlsClient::with(config.clone());
            client.handshake(&mut layers, usize::MAX);
            assert!(layers.peer().ready);
            client.connection.handshake_kind().unwrap()
        };
        assert_eq!(connect(), rustls::HandshakeKind::Full);
        assert_eq!(connect(), rustls::HandshakeKind::Resumed);
        certificates.reload().unwrap();
        assert_eq!(connect(), rustls::HandshakeKind::Full);
    }
}

#[test]
fn a_client_certificate_gives_its_common_name() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (alice, mallory) = (clients.sign("alice"), Authority::new("others").sign("alice"));
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("clients.pem");
    std::fs::write(&authorities, clients.pem()).unwrap();
    for version in VERSIONS {
        for required in [false, true] {
            let mut files = tls_files(folder.path(), &servers.sign("broker"));
            files.clients = if required {
                ClientCertificates::Required(authorities.clone())
            } else {
                ClientCertificates::Optional(authorities.clone())
            };
            let certificates = Certificates::load(files).unwrap();
            let cases = [
                (Some(&alice), Some(Some("alice"))),
                (Some(&mallory), None),
                (None, if required { None } else { Some(None) }),
            ];
            for (identity, expected) in cases {
                let mut layers = layers(&certificates);
                let mut client = TlsClient::new(&servers, &[version], identity);
                let fed = client.settle(&mut layers, 11);
                assert_eq!(fed.flow.is_ok(), expected.is_some(), "{version:?} {required}");
                assert_eq!(layers.peer().ready, expected.is_some());
                assert_eq!(layers.peer().common_name.as_deref(), expected.flatten());
                // A refused client hears why: an alert, not just a closed socket.
                let alert = matches!(client.fault, Some(rustls::Error::AlertReceived(_)));
                assert_eq!(alert, expected.is_none());
            }
        }
    }
}

#[test]
fn what_is_no_tls_is_answered_with_an_alert() {
    let certificates = certificates_of(&Authority::new("authority"));
    let cases: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
        b"\x16\x03\x01\x50\x01zzzz",
        &[0x17; 64],
    ];
    for raw in cases {
        let mut layers = layers(&certificates);
        let fed = feed(&mut layers, raw, usize::MAX);
        assert!(matches!(fed.flow, Err(LayerFault::Tls(_))), "{raw:?}");
        assert_eq!(fed.raw_out.first(), Some(&21), "no alert for {raw:?}");
        let again = feed(&mut layers, raw, usize::MAX);
        assert!(again.plain.is_empty() && again.raw_out.is_empty());
        assert_eq!(again.flow.unwrap(), Flow::Closed);
    }
}

#[test]
fn an_endless_handshake_message_is_refused() {
    let certificates = certificates_of(&Authority::new("authority"));
    let mut layers = layers(&certificates);
    // A client hello that claims 16 MiB, in records of 1 KiB.
    let mut raw = Vec::new();
    for record in 0..200 {
        raw.extend([0x16, 0x03, 0x01, 0x04, 0x00]);
        let mut body = vec![0; 1024];
        if record == 0 {
            body[..4].copy_from_slice(&[0x01, 0xFF, 0xFF, 0xFF]);
        }
        raw.extend(body);
    }
    let fed = feed(&mut layers, &raw, 1000);
    assert!(fed.flow.is_err());
}

#[test]
fn sending_before_the_handshake_is_refused() {
    let mut layers = layers(&certificates_of(&Authority::new("authority")));
    let mut out = Vec::new();
    assert!(matches!(layers.send(b"early", &mut out), Err(LayerFault::NotReady)));
    layers.close(&mut out);
    assert!(out.is_empty());
}

#[test]
fn reloading_serves_new_connections_and_leaves_open_ones() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::load(tls_files(folder.path(), &old.sign("broker"))).unwrap();
    let mut open = layers(&certificates);
    let mut open_client = TlsClient::new(&old, &[&TLS13], None);
    open_client.handshake(&mut open, usize::MAX);

    tls_files(folder.path(), &new.sign("broker"));
    certificates.reload().unwrap();
    let fed = feed(&mut open, &open_client.say(b"still here"), usize::MAX);
    assert_eq!(fed.plain, b"still here");
    let mut fresh = layers(&certificates);
    let mut client = TlsClient::new(&new, &[&TLS13], None);
    client.handshake(&mut fresh, usize::MAX);
    assert!(fresh.peer().ready);

    std::fs::write(&certificates.files().certificate, "nothing").unwrap();
    assert!(matches!(certificates.reload(), Err(TlsError::NoCertificate { .. })));
    let mut after = layers(&certificates);
    let mut client = TlsClient::new(&new, &[&TLS13], None);
    client.handshake(&mut after, usize::MAX);
    assert!(after.peer().ready, "a failed reload must leave the certificates in use");
}

#[test]
fn faulty_files_are_named() {
    let authority = Authority::new("authority");
    let (one, other) = (authority.sign("one"), authority.sign("other"));
    let folder = tempfile::tempdir().unwrap();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
    let not_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let (certificate, key) = (one.certificate_pem.as_str(), one.key_pem.as_str());
    type Contents<'a> = [Option<&'a str>; 3];
    let cases: [(Contents<'_>, [&str; 2]); 9] = [
        ([None, Some(key), None], ["cannot read", "server.pem"]),
        ([Some(certificate), None, None], ["cannot read", "server.key"]),
        ([Some("# empty"), Some(key), None], ["server.pem", "no certificate"]),
        ([Some(broken), Some(key), None], ["server.pem", "not valid PEM"]),
        ([Some(certificate), Some(certificate), None], ["server.key", "no private key"]),
        ([Some(certificate), Some(encrypted), None], ["server.key", "encrypted"]),
        ([Some(certificate), Some(&other.key_pem), None], ["server.pem", "server.key"]),
        ([Some(certificate), Some(key), Some("# empty")], ["clients.pem", "no certificate"]),
        ([Some(certificate), Some(key), Some(not_x509)], ["clients.pem", "client authorities"]),
    ];
    for ([certificate, key, clients], expected) in cases {
        let mut files = tls_files(folder.path(), &one);
        for (file, content) in [(&files.certificate, certificate), (&files.key, key)] {
            match content {
                Some(content) => std::fs::write(file, content).unwrap(),
                None => std::fs::remove_file(file).unwrap(),
            }
        }
        if let Some(content) = clients {
            let file = folder.path().join("clients.pem");
            std::fs::write(&file, content).unwrap();
            files.clients = ClientCertificates::Required(file);
        }
        let fault = Certificates::load(files).unwrap_err().to_string();
        assert!(expected.iter().all(|part| fault.contains(part)), "{fault}");
        assert!(!fault.contains("PRIVATE KEY-----\n"), "{fault}");
    }
}

#[test]
fn certificates_do_not_show_their_key() {
    let authority = Authority::new("authority");
    let shown = format!("{:?}", certificates_of(&authority));
    assert!(shown.starts_with("Certificates") && !shown.contains("cert_resolver"), "{shown}");
}
