//! The certificates of a listener: loading them from PEM files and swapping them while it runs.
//!
//! Owns the current rustls configuration of one listener. A connection takes the configuration that
//! is current when it begins and keeps it. The handshake itself is in the TLS layer.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::settings::TlsSettings;

/// Session tickets sent per full handshake: a device comes back with one connection at a time.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// What a listener asks of clients' certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None are asked for.
    #[default]
    Ignored,
    /// A client may show one; it must then be signed by an authority in this PEM file.
    Optional(PathBuf),
    /// A client must show one signed by an authority in this PEM file.
    Required(PathBuf),
}

/// The files a listener's TLS is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the server's certificate, then the intermediate ones.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// Whether and by whom clients' certificates must be signed.
    pub clients: ClientCertificates,
}

impl From<&TlsSettings> for TlsFiles {
    fn from(tls: &TlsSettings) -> TlsFiles {
        let clients = match &tls.client_ca {
            None => ClientCertificates::Ignored,
            Some(authority) if tls.require_client_cert => {
                ClientCertificates::Required(authority.clone())
            }
            Some(authority) => ClientCertificates::Optional(authority.clone()),
        };
        TlsFiles { certificate: tls.cert.clone(), key: tls.key.clone(), clients }
    }
}

/// Why certificates could not be taken into use; each names its file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file holds text that is no valid PEM.
    #[error("{}: not valid PEM: {cause}", file.display())]
    NotPem {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: rustls_pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{}: no certificate (BEGIN CERTIFICATE) in this file", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// The file holds no private key.
    #[error("{}: no private key (BEGIN PRIVATE KEY) in this file", file.display())]
    NoKey {
        /// The file.
        file: PathBuf,
    },
    /// The private key needs a passphrase.
    #[error("{}: the private key is encrypted; store it without a passphrase", file.display())]
    EncryptedKey {
        /// The file.
        file: PathBuf,
    },
    /// The key is not the certificate's, or either cannot be used.
    #[error("certificate {} and key {} do not work: {cause}", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        cause: rustls::Error,
    },
    /// The client authorities cannot be used.
    #[error("{}: client authorities: {fault}", file.display())]
    ClientAuthority {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        fault: String,
    },
}

/// The certificates of one listener, reloadable.
pub struct Certificates {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

impl Certificates {
    /// Loads and checks the files.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let config = ArcSwap::from_pointee(server_config(&files)?);
        Ok(Arc::new(Certificates { files, config }))
    }

    /// Reads the files again. Connections that are open go on with what they began with; new ones
    /// get the new certificates, and tickets from before no longer resume.
    ///
    /// # Errors
    /// As [`load`](Self::load); the certificates in use then stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(Arc::new(server_config(&self.files)?));
        Ok(())
    }

    /// The files these were loaded from.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// The configuration a connection that begins now uses.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the configuration: it holds the private key.
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Makes ring the process's cryptography, for crates that ask rustls for a default. Listeners name
/// it themselves; a default that is already set stays.
pub fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Losing a race against another caller leaves a default in place, which is all we want.
        let _ = ring::default_provider().install_default();
    }
}

/// What this process asks of servers it connects to: to be signed by an authority in a PEM file.
///
/// # Errors
/// When the file cannot be read or has no certificate.
pub fn client_config(authorities: &Path) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // A system's file may hold one that is too old to be understood; the others count.
    let (added, _) = roots.add_parsable_certificates(certificates(authorities)?);
    if added == 0 {
        return Err(TlsError::NoCertificate { file: authorities.to_owned() });
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| TlsError::ClientAuthority {
            file: authorities.to_owned(),
            fault: cause.to_string(),
        })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.certificate)?;
    warn_if_outside_validity(&chain[0], &files.certificate);
    let key = private_key(&files.key)?;
    let unusable = |cause| TlsError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        cause,
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = client_verifier(&files.clients, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    // Tickets keep resumption state with the client, so a million devices cost no memory here. The
    // ticketer is new with every load: a ticket never outlives the authorities that vouched for it.
    config.ticketer = ring::Ticketer::new().map_err(unusable)?;
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    Ok(config)
}

fn client_verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let (file, required) = match clients {
        ClientCertificates::Ignored => return Ok(Arc::new(NoClientAuth)),
        ClientCertificates::Optional(file) => (file, false),
        ClientCertificates::Required(file) => (file, true),
    };
    let refused = |fault: String| TlsError::ClientAuthority { file: file.clone(), fault };
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority).map_err(|fault| refused(fault.to_string()))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|fault| refused(fault.to_string()))
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|cause| TlsError::Unreadable { file: file.to_owned(), cause })
}

/// The certificates of a PEM file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<_, _>>()
        .map_err(|cause| TlsError::NotPem { file: file.to_owned(), cause })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: file.to_owned() });
    }
    Ok(chain)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const ENCRYPTED: &[u8] = b"ENCRYPTED";
    let pem = read(file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|fault| match fault {
        rustls_pki_types::pem::Error::NoItemsFound
            if pem.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) =>
        {
            TlsError::EncryptedKey { file: file.to_owned() }
        }
        rustls_pki_types::pem::Error::NoItemsFound => TlsError::NoKey { file: file.to_owned() },
        cause => TlsError::NotPem { file: file.to_owned(), cause },
    })
}

/// An expired certificate still serves clients that do not check; the operator should know.
fn warn_if_outside_validity(leaf: &CertificateDer<'_>, file: &Path) {
    if let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf)
        && !certificate.validity().is_valid()
    {
        let (from, until) = (certificate.validity().not_before, certificate.validity().not_after);
        tracing::warn!(file = %file.display(), %from, %until, "certificate is not valid today");
    }
}

/// The common name of a certificate's subject.
pub(super) fn subject_common_name(certificate: &CertificateDer<'_>) -> Option<Box<str>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.into())
}
