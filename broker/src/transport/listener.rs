//! What a listener puts between TCP and MQTT, fixed when the listener is opened.
//!
//! Owns the choice of layers and their settings; certificates behind it may be reloaded. Addresses,
//! limits and the socket are not here.

use std::net::IpAddr;
use std::sync::Arc;

use super::certificates::Certificates;
use super::peer::TransportKind;
use super::websocket::WebSocketSettings;
use crate::settings::Network;

/// Several address ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether the address lies in any of the ranges.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Networks(networks.into_iter().collect())
    }
}

/// The layers that carry MQTT on a listener.
#[derive(Debug, Clone)]
pub enum Carrier {
    /// MQTT directly on TCP.
    Tcp,
    /// MQTT in TLS.
    Tls(Arc<Certificates>),
    /// MQTT in WebSocket frames.
    WebSocket(Arc<WebSocketSettings>),
    /// MQTT in WebSocket frames in TLS.
    SecureWebSocket(Arc<Certificates>, Arc<WebSocketSettings>),
}

/// Everything [`Layers`](super::Layers) must know about the listener a connection came in on.
#[derive(Debug, Clone)]
pub struct ListenerTransport {
    /// The layers that carry MQTT.
    pub carrier: Carrier,
    /// When set, every connection must come from one of these addresses and begin with a PROXY
    /// protocol header (v1 or v2). The protocol forbids guessing whether a header is there, so
    /// there is no mode that takes both.
    pub proxies: Option<Networks>,
}

impl ListenerTransport {
    /// A listener without PROXY protocol.
    pub fn new(carrier: Carrier) -> Self {
        ListenerTransport { carrier, proxies: None }
    }

    /// The kind of transport, for logs and metrics.
    pub fn kind(&self) -> TransportKind {
        match self.carrier {
            Carrier::Tcp => TransportKind::Tcp,
            Carrier::Tls(_) => TransportKind::Tls,
            Carrier::WebSocket(_) => TransportKind::WebSocket,
            Carrier::SecureWebSocket(..) => TransportKind::SecureWebSocket,
        }
    }

    /// The certificates of the listener, to be reloaded.
    pub fn tls(&self) -> Option<&Arc<Certificates>> {
        match &self.carrier {
            Carrier::Tls(tls) | Carrier::SecureWebSocket(tls, _) => Some(tls),
            Carrier::Tcp | Carrier::WebSocket(_) => None,
        }
    }

    /// Whether connections from this socket address are admitted at all: a listener behind proxies
    /// takes them only from its proxies.
    pub fn admits_source(&self, address: IpAddr) -> bool {
        self.proxies.as_ref().is_none_or(|proxies| proxies.contains(address))
    }
}
