//! Connections to remote brokers: TCP, TLS and WebSocket, as one stream of bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::settings::LinkSettings;
use crate::websocket::WebSocketStream;

/// A stream of bytes, whatever carries it.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// A boxed stream of bytes.
pub struct AnyWire(Box<dyn Wire>);

impl AnyWire {
    /// Around any stream.
    pub fn new(wire: impl Wire + 'static) -> AnyWire {
        AnyWire(Box::new(wire))
    }
}

impl AsyncRead for AnyWire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for AnyWire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Connects to the remote broker, handshakes below MQTT included.
///
/// # Errors
/// What the system, TLS or WebSocket says.
pub async fn dial(settings: &LinkSettings) -> io::Result<AnyWire> {
    let url = &settings.url;
    let tcp = TcpStream::connect((url.host.as_str(), url.port)).await?;
    tcp.set_nodelay(true)?;
    let wire = match (&settings.tls, url.scheme.is_tls()) {
        (Some(config), true) => {
            let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::clone(config));
            AnyWire::new(connector.connect(name, tcp).await?)
        }
        (None, true) => return Err(io::Error::other("no certificates for TLS")),
        (_, false) => AnyWire::new(tcp),
    };
    if !url.scheme.is_websocket() {
        return Ok(wire);
    }
    Ok(AnyWire::new(WebSocketStream::connect(wire, url).await?))
}
