//! TLS towards a remote broker: whom to trust, and the link's own certificate.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Error, bail};
use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::settings::BridgeSettings;

/// Where systems keep the authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The TLS configuration of a link.
///
/// # Errors
/// When a file cannot be used; the error names it.
pub(super) fn client_config(bridge: &BridgeSettings) -> anyhow::Result<Arc<ClientConfig>> {
    let trusting = trusting(authorities(bridge.ca_file.as_deref())?)?;
    let config = own_certificate(bridge, trusting).map_err(|(_, error)| error)?;
    Ok(Arc::new(config))
}

/// What would keep a link from its TLS, with the key that names the file; one fault per certificate.
pub(super) fn faults(bridge: &BridgeSettings) -> Vec<(&'static str, Error)> {
    let mut faults = Vec::new();
    if let Err(error) = authorities(bridge.ca_file.as_deref()) {
        faults.push(("ca_file", error));
    }
    let trusting = trusting(RootCertStore::empty()).map_err(|error| ("ca_file", error));
    let own = trusting.and_then(|trusting| own_certificate(bridge, trusting));
    faults.extend(own.err());
    faults
}

type Trusting = ConfigBuilder<ClientConfig, WantsClientCert>;

fn trusting(authorities: RootCertStore) -> anyhow::Result<Trusting> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    Ok(builder.with_root_certificates(authorities))
}

/// With the link's own certificate, if it has one; a fault comes with the key that names the file.
fn own_certificate(
    bridge: &BridgeSettings,
    trusting: Trusting,
) -> Result<ClientConfig, (&'static str, Error)> {
    let (Some(certificate), Some(key)) = (&bridge.cert_file, &bridge.key_file) else {
        return Ok(trusting.with_no_client_auth());
    };
    let chain = certificates(certificate).map_err(|error| ("cert_file", error))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{}: no private key", key.display()))
        .map_err(|error| ("key_file", error))?;
    trusting
        .with_client_auth_cert(chain, key)
        .with_context(|| format!("{}: the key is not its", certificate.display()))
        .map_err(|error| ("key_file", error))
}

fn authorities(file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = file {
        for certificate in certificates(file)? {
            roots.add(certificate).with_context(|| format!("{}", file.display()))?;
        }
        return Ok(roots);
    }
    let found = SYSTEM_AUTHORITIES.iter().map(Path::new).find(|file| file.exists());
    let file = found.context("this system keeps no authorities to trust: name them in ca_file")?;
    // Among so many one or the other may be too old to be read.
    roots.add_parsable_certificates(certificates(file)?);
    Ok(roots)
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let named = || format!("{}: no certificates", file.display());
    let certificates = CertificateDer::pem_file_iter(file).with_context(named)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().with_context(named)?;
    if certificates.is_empty() {
        bail!(named());
    }
    Ok(certificates)
}
