//! TLS by rustls, without I/O of its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// How connections are encrypted; shared by all of them.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// What the user says about TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsOptions {
    /// Certificates to trust.
    pub ca: Option<PathBuf>,
    /// Believe any certificate.
    pub insecure: bool,
    /// Name the certificate must be for.
    pub server_name: String,
    /// Certificate to show.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Return with the session tickets of earlier connections.
    pub resume: bool,
}

impl Tls {
    /// Reads the certificates and settles the configuration.
    pub(crate) fn new(options: &TlsOptions) -> Result<Tls> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match (&options.ca, options.insecure) {
            (_, true) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(BelieveAnything { provider })),
            (Some(ca), false) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(ca)? {
                    roots.add(certificate).with_context(|| ca.display().to_string())?;
                }
                builder.with_root_certificates(roots)
            }
            (None, false) => bail!("--tls: give --ca FILE, or --insecure to believe anything"),
        };
        let mut config = match (&options.cert, &options.key) {
            (Some(cert), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .with_context(|| format!("reading {}", key.display()))?;
                builder.with_client_auth_cert(certificates(cert)?, private)?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => bail!("--cert and --key belong together"),
        };
        if !options.resume {
            // Devices that return have their own tickets; one shared store would flatter the broker.
            config.resumption = Resumption::disabled();
        }
        let name = ServerName::try_from(options.server_name.clone())
            .with_context(|| format!("server name {:?}", options.server_name))?;
        Ok(Tls { config: Arc::new(config), name })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading certificates from {}", path.display()))
}

/// The TLS side of one connection.
pub(super) struct TlsLayer {
    connection: ClientConnection,
}

impl TlsLayer {
    pub(super) fn new(tls: &Tls) -> Result<TlsLayer, String> {
        ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
            .map(|connection| TlsLayer { connection })
            .map_err(|e| format!("TLS: {e}"))
    }

    /// Writes what TLS has to say; false when the socket takes no more.
    pub(super) fn push(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(stream) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Encrypts bytes; returns how many it took.
    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.writer().write(bytes)
    }

    /// Decrypts bytes from the socket.
    pub(super) fn read(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).map_err(|e| format!("TLS: {e}"))?;
            self.connection.process_new_packets().map_err(|e| format!("TLS: {e}"))?;
            match self.connection.reader().read_to_end(plain) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(format!("TLS: {e}")),
            }
        }
        Ok(())
    }
}

/// Takes every certificate: for tests against brokers with certificates of their own making.
#[derive(Debug)]
struct BelieveAnything {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for BelieveAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_given_options_are_refused_with_the_remedy() {
        let base = TlsOptions { server_name: "localhost".to_owned(), ..TlsOptions::default() };
        let refused = |options: TlsOptions| format!("{:#}", Tls::new(&options).unwrap_err());
        assert!(refused(base.clone()).contains("--insecure"));
        let one = TlsOptions { insecure: true, cert: Some("x".into()), ..base.clone() };
        assert!(refused(one).contains("--key"));
        let gone = TlsOptions { ca: Some("/nowhere.pem".into()), ..base.clone() };
        assert!(refused(gone).contains("/nowhere.pem"));
        assert!(Tls::new(&TlsOptions { insecure: true, ..base }).is_ok());
    }
}
