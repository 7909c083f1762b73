//! Who is at the other end: what the transport learned about a connection before its CONNECT.
//!
//! Owns nothing beyond the facts. Whether a certificate's subject counts as a user name is decided
//! by access, not here.

use std::net::SocketAddr;

/// The transport a connection came over, for logs and metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket over TCP.
    WebSocket,
    /// WebSocket over TLS.
    SecureWebSocket,
}

impl TransportKind {
    /// The URL scheme operators know it by.
    pub fn name(self) -> &'static str {
        match self {
            TransportKind::Tcp => "tcp",
            TransportKind::Tls => "tls",
            TransportKind::WebSocket => "ws",
            TransportKind::SecureWebSocket => "wss",
        }
    }
}

/// What is known about the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The client's address: the socket's, or the one a trusted proxy named. An IPv4 address that
    /// arrived over an IPv6 socket is shown as IPv4.
    pub address: SocketAddr,
    /// Common name of the verified client certificate's subject, when there is one.
    pub common_name: Option<Box<str>>,
    /// How the connection came.
    pub transport: TransportKind,
    /// True once every handshake below MQTT is done. Until then `address` may be the proxy's and
    /// `common_name` is empty.
    pub ready: bool,
}

/// The same address, with an IPv4 address mapped into IPv6 shown as IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
