//! MQTT over TLS as a byte stream, with the versions and certificates under the test's control.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use crate::DEADLINE;
use crate::certificate::Certificates;
use crate::client::Link;

/// How a client speaks TLS.
pub struct Options {
    /// Versions offered.
    pub versions: &'static [&'static SupportedProtocolVersion],
    roots: RootCertStore,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
}

impl Options {
    /// Trusts the authority in this PEM file.
    pub fn trusting(authority: &Path) -> Options {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(authority).expect("a certificate");
        roots.add(certificate).expect("a valid certificate");
        Options { versions: rustls::ALL_VERSIONS, roots, identity: None }
    }

    /// Shows the client certificate in these PEM files.
    pub fn with_client(mut self, certificate: &Path, key: &Path) -> Options {
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        self.identity = Some((certificate, key));
        self
    }
}

/// The server's side of a TLS connection, with the server's certificate; the handshake happens with
/// the first bytes.
pub fn accept(
    stream: TcpStream,
    certificates: &Certificates,
) -> StreamOwned<ServerConnection, TcpStream> {
    let chain = CertificateDer::from_pem_file(&certificates.server).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&certificates.server_key).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has these versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("certificate and key belong together");
    let session = ServerConnection::new(Arc::new(configuration)).expect("a session");
    StreamOwned::new(session, stream)
}

/// A TLS connection.
pub struct TlsLink(StreamOwned<ClientConnection, TcpStream>);

/// Opens a TLS connection and completes its handshake.
pub fn connect(address: SocketAddr, options: &Options) -> io::Result<TlsLink> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(options.versions)
        .expect("ring has these versions")
        .with_root_certificates(options.roots.clone());
    let configuration = match &options.identity {
        Some((certificate, key)) => builder
            .with_client_auth_cert(vec![certificate.clone()], key.clone_key())
            .expect("certificate and key belong together"),
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("localhost").expect("a valid name");
    let mut session =
        ClientConnection::new(Arc::new(configuration), name).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(TlsLink(StreamOwned::new(session, stream)))
}

impl Read for TlsLink {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            // An alert, such as the refusal of a client certificate, ends the connection.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(0),
            other => other,
        }
    }
}

impl Write for TlsLink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Link for TlsLink {
    fn cut(&mut self) {
        // The other side may have closed already.
        let _ = self.0.sock.shutdown(Shutdown::Both);
    }

    fn set_deadline(&mut self, deadline: Duration) {
        self.0.sock.set_read_timeout(Some(deadline)).expect("a read timeout can be set");
    }
}
