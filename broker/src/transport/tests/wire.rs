//! Clients in memory, and what drives [`Layers`] for the tests.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::{ClientHandshake, Request};
use tungstenite::{HandshakeError, Message, WebSocket};

use crate::transport::{
    Certificates, ClientCertificates, Flow, LayerFault, Layers, TlsFiles, WebSocketSettings,
};

pub(in crate::transport) fn client_address() -> SocketAddr {
    "198.51.100.7:50000".parse().unwrap()
}

pub(in crate::transport) fn web_settings(origins: &[&str]) -> Arc<WebSocketSettings> {
    Arc::new(WebSocketSettings {
        local_pages_only: false,
        path: "/mqtt".to_owned(),
        origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
    })
}

/// What came out of feeding bytes.
pub(in crate::transport) struct Fed {
    pub(in crate::transport) plain: Vec<u8>,
    pub(in crate::transport) raw_out: Vec<u8>,
    pub(in crate::transport) flow: Result<Flow, LayerFault>,
}

/// Feeds bytes in pieces of `piece` bytes until they end or the flow does.
pub(in crate::transport) fn feed(layers: &mut Layers, raw: &[u8], piece: usize) -> Fed {
    let mut fed = Fed { plain: Vec::new(), raw_out: Vec::new(), flow: Ok(Flow::Open) };
    for bytes in raw.chunks(piece) {
        fed.flow = layers.receive(&mut bytes.to_vec(), &mut fed.plain, &mut fed.raw_out);
        if !matches!(fed.flow, Ok(Flow::Open)) {
            break;
        }
    }
    fed
}

pub(in crate::transport) fn send(layers: &mut Layers, plain: &[u8]) -> Vec<u8> {
    let mut raw_out = Vec::new();
    layers.send(plain, &mut raw_out).unwrap();
    raw_out
}

pub(in crate::transport) fn close(layers: &mut Layers) -> Vec<u8> {
    let mut raw_out = Vec::new();
    layers.close(&mut raw_out);
    raw_out
}

/// A certificate authority and what it signed.
pub(in crate::transport) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM and DER.
pub(in crate::transport) struct Identity {
    pub(in crate::transport) certificate_pem: String,
    pub(in crate::transport) key_pem: String,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    pub(in crate::transport) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Authority { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(in crate::transport) fn sign(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        }
    }

    pub(in crate::transport) fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

/// Writes the files of a listener's TLS into a folder.
pub(in crate::transport) fn tls_files(folder: &Path, identity: &Identity) -> TlsFiles {
    let files = TlsFiles {
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        clients: ClientCertificates::Ignored,
    };
    std::fs::write(&files.certificate, &identity.certificate_pem).unwrap();
    std::fs::write(&files.key, &identity.key_pem).unwrap();
    files
}

/// A listener's TLS with a fresh certificate of this authority.
pub(in crate::transport) fn certificates_of(authority: &Authority) -> Arc<Certificates> {
    let folder = tempfile::tempdir().unwrap();
    Certificates::load(tls_files(folder.path(), &authority.sign("broker"))).unwrap()
}

/// A TLS client in memory.
pub(in crate::transport) struct TlsClient {
    pub(in crate::transport) connection: ClientConnection,
    pub(in crate::transport) received: Vec<u8>,
    pub(in crate::transport) ended: bool,
    pub(in crate::transport) fault: Option<rustls::Error>,
}

impl TlsClient {
    pub(in crate::transport) fn new(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> Self {
        Self::with(client_config(authority, versions, identity))
    }

    pub(in crate::transport) fn with(config: Arc<ClientConfig>) -> Self {
        let connection = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        TlsClient { connection, received: Vec::new(), ended: false, fault: None }
    }

    /// What the client wants to send.
    pub(in crate::transport) fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    pub(in crate::transport) fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for chunk in plain.chunks(16 * 1024) {
            self.connection.writer().write_all(chunk).unwrap();
            bytes.extend(self.output());
        }
        bytes
    }

    /// Takes what the server sent.
    pub(in crate::transport) fn input(&mut self, mut raw: &[u8]) -> Result<(), rustls::Error> {
        while !raw.is_empty() {
            self.connection.read_tls(&mut raw).unwrap();
            let state = self.connection.process_new_packets()?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.connection.reader().read_exact(&mut plain).unwrap();
            self.received.extend(plain);
            if state.peer_has_closed() {
                assert!(raw.is_empty(), "bytes after the close alert");
                self.ended = true;
            }
        }
        Ok(())
    }

    /// A handshake that must succeed.
    pub(in crate::transport) fn handshake(&mut self, layers: &mut Layers, piece: usize) {
        let fed = self.settle(layers, piece);
        assert_eq!(fed.flow.unwrap(), Flow::Open);
        assert!(fed.plain.is_empty());
    }

    /// Goes back and forth until neither side has anything to say; the last thing the server did.
    pub(in crate::transport) fn settle(&mut self, layers: &mut Layers, piece: usize) -> Fed {
        let mut all = Fed { plain: Vec::new(), raw_out: Vec::new(), flow: Ok(Flow::Open) };
        loop {
            let raw = self.output();
            if raw.is_empty() {
                return all;
            }
            let fed = feed(layers, &raw, piece);
            all.plain.extend(fed.plain);
            all.flow = fed.flow;
            self.fault = self.input(&fed.raw_out).err();
            if self.fault.is_some() || all.flow.is_err() {
                return all;
            }
        }
    }
}

pub(in crate::transport) fn client_config(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<&Identity>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(authority.roots());
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.clone()));
            builder.with_client_auth_cert(vec![identity.certificate.clone()], key).unwrap()
        }
    })
}

/// Two byte queues that look like a non-blocking socket.
#[derive(Debug, Clone, Default)]
pub(in crate::transport) struct Pipe(Rc<RefCell<(Vec<u8>, Vec<u8>)>>);

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let incoming = &mut self.0.borrow_mut().0;
        if incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = into.len().min(incoming.len());
        into[..count].copy_from_slice(&incoming[..count]);
        incoming.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    pub(in crate::transport) fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().1)
    }

    pub(in crate::transport) fn put_input(&self, bytes: &[u8]) {
        self.0.borrow_mut().0.extend_from_slice(bytes);
    }
}

/// An upgrade request as a client of this kind would send it.
pub(in crate::transport) fn web_request(
    path: &str,
    subprotocol: Option<&str>,
    origin: Option<&str>,
) -> Request {
    let mut request = format!("ws://broker{path}").into_client_request().unwrap();
    let headers = request.headers_mut();
    if let Some(subprotocol) = subprotocol {
        headers.insert("Sec-WebSocket-Protocol", subprotocol.parse().unwrap());
    }
    if let Some(origin) = origin {
        headers.insert("Origin", origin.parse().unwrap());
    }
    request
}

/// The bytes of that request.
pub(in crate::transport) fn web_request_bytes(request: Request) -> Vec<u8> {
    tungstenite::handshake::client::generate_request(request).unwrap().0
}

/// A WebSocket client in memory, connected through whatever `exchange` puts between.
pub(in crate::transport) struct WebClient {
    pub(in crate::transport) socket: WebSocket<Pipe>,
    pub(in crate::transport) pipe: Pipe,
}

impl WebClient {
    /// Runs the upgrade: `exchange` takes what the client sends and returns the answer.
    pub(in crate::transport) fn connect(mut exchange: impl FnMut(&[u8]) -> Vec<u8>) -> Self {
        let pipe = Pipe::default();
        let request = web_request("/mqtt", Some("mqttv3.1, mqtt"), None);
        let mut handshake = ClientHandshake::start(pipe.clone(), request, None).unwrap();
        loop {
            match handshake.handshake() {
                Ok((socket, response)) => {
                    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
                    return WebClient { socket, pipe };
                }
                Err(HandshakeError::Interrupted(waiting)) => {
                    let answer = exchange(&pipe.take_output());
                    assert!(!answer.is_empty(), "the upgrade was not answered");
                    pipe.put_input(&answer);
                    handshake = waiting;
                }
                Err(HandshakeError::Failure(fault)) => panic!("{fault}"),
            }
        }
    }

    pub(in crate::transport) fn say(&mut self, message: Message) -> Vec<u8> {
        self.socket.send(message).unwrap();
        self.pipe.take_output()
    }

    pub(in crate::transport) fn hear(&mut self, raw: &[u8]) -> Message {
        self.pipe.put_input(raw);
        self.socket.read().unwrap()
    }
}
