//! The connection of `hoopoe chat`: bytes over TCP, or TLS on it.
//!
//! Reading is left to a thread that owns nothing but its copy of the socket; what it reads comes
//! back here, where the TLS state is.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::settings::{Host, ListenerUrl, Scheme};

/// How long one address may take to answer, and a write to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open connection.
pub(super) struct Link {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// Where to connect, looked over once.
#[derive(Clone)]
pub(super) struct Server {
    url: ListenerUrl,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Server {
    /// Reads the authorities of a TLS server.
    pub(super) fn new(url: &ListenerUrl, authorities: Option<&Path>) -> anyhow::Result<Server> {
        let tls = match url.scheme {
            Scheme::Tcp => None,
            Scheme::Tls => Some((client_config(authorities)?, server_name(&url.address.host)?)),
            Scheme::Ws | Scheme::Wss => bail!("{url}: the chat speaks tcp:// and tls:// only"),
        };
        Ok(Server { url: url.clone(), tls })
    }

    /// Connects to the first address that answers.
    pub(super) fn connect(&self) -> anyhow::Result<Link> {
        let addresses = self.url.address.resolve();
        let mut last = io::Error::other("there is no such address");
        for address in addresses.with_context(|| format!("cannot find {}", self.url))? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(tcp) => return self.over(tcp).with_context(|| format!("{}", self.url)),
                Err(error) => last = error,
            }
        }
        Err(last).with_context(|| format!("cannot connect to {}", self.url))
    }

    fn over(&self, tcp: TcpStream) -> anyhow::Result<Link> {
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let tls = match &self.tls {
            None => None,
            Some((config, name)) => {
                Some(Box::new(ClientConnection::new(config.clone(), name.clone())?))
            }
        };
        Ok(Link { tcp, tls })
    }
}

impl Link {
    /// The socket for the thread that reads it.
    pub(super) fn reader(&self) -> io::Result<TcpStream> {
        self.tcp.try_clone()
    }

    /// Writes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.tcp.write_all(bytes),
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                flush(tls, &mut self.tcp)
            }
        }
    }

    /// Takes bytes that came in; appends what they say to `plain`.
    pub(super) fn take(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            plain.extend_from_slice(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let mut piece = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut piece)?;
            plain.append(&mut piece);
        }
        flush(tls, &mut self.tcp)
    }

    /// Closes; the reading thread ends.
    pub(super) fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The other side may be gone already.
            let _ = flush(tls, &mut self.tcp);
        }
        let _ = self.tcp.shutdown(Shutdown::Both);
    }
}

fn flush(tls: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(tcp)?;
    }
    Ok(())
}

fn client_config(authorities: Option<&Path>) -> anyhow::Result<Arc<ClientConfig>> {
    let file = authorities.context("tls:// needs --ca FILE, the authority to trust")?;
    let named = || format!("{}: no certificates of authorities", file.display());
    let reader = BufReader::new(File::open(file).with_context(named)?);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_reader_iter(reader) {
        roots.add(certificate.with_context(named)?).with_context(named)?;
    }
    if roots.is_empty() {
        bail!(named());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn server_name(host: &Host) -> anyhow::Result<ServerName<'static>> {
    match host {
        Host::Ip(ip) => Ok(ServerName::IpAddress((*ip).into())),
        Host::Name(name) => Ok(ServerName::try_from(name.clone())?),
    }
}
