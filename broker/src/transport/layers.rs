//! The layers of one connection, between its socket's bytes and MQTT's.
//!
//! Owns the state of the layers (PROXY header, TLS, WebSocket) and what they learned about the
//! peer. Pure: no socket, no clock. Not here: the deadline for handshakes, which is the CONNECT
//! timeout.
//!
//! Memory: `receive` holds back at most one unfinished piece per layer (a header, an upgrade
//! request, a TLS record), each bounded by a named constant, and appends no more MQTT bytes than it
//! was given bytes. What it appends to be sent is bounded by what it was given too; a caller that
//! stops reading while its output is full therefore stays bounded.

use std::net::SocketAddr;

use thiserror::Error;

use super::listener::{Carrier, ListenerTransport};
use super::peer::{Peer, canonical};
use super::proxy::{ProxyFault, ProxyHeader};
use super::tls::TlsLayer;
use super::websocket::{FrameFault, UpgradeFault, WebSocketLayer};

/// Whether more can come.
#[must_use = "a closed flow ends the connection"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// More bytes may come.
    Open,
    /// The client ended the stream in its layer's way (TLS close alert, WebSocket close frame):
    /// treat it as the end of the stream, after what was appended.
    Closed,
}

/// Why a connection's bytes were refused below MQTT.
#[derive(Debug, Error)]
pub enum LayerFault {
    /// In the PROXY header.
    #[error("{0}")]
    Proxy(#[from] ProxyFault),
    /// In TLS.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// A TLS message larger than taken.
    #[error("TLS: message too long")]
    TlsMessageTooLong,
    /// The TLS keys are used up.
    #[error("TLS: keys used up")]
    TlsExhausted,
    /// In the WebSocket upgrade.
    #[error("WebSocket: {0}")]
    Upgrade(UpgradeFault),
    /// In a WebSocket frame.
    #[error("WebSocket: {0}")]
    Frame(FrameFault),
    /// MQTT bytes to send before the handshakes are done.
    #[error("not ready to send")]
    NotReady,
    /// MQTT bytes to send after the end.
    #[error("already ended")]
    Ended,
}

impl LayerFault {
    /// A short name for a metric's label; the set is fixed.
    pub fn name(&self) -> &'static str {
        match self {
            LayerFault::Proxy(_) => "proxy",
            LayerFault::Tls(_) | LayerFault::TlsMessageTooLong | LayerFault::TlsExhausted => "tls",
            LayerFault::Upgrade(_) => "upgrade",
            LayerFault::Frame(_) => "frame",
            LayerFault::NotReady | LayerFault::Ended => "state",
        }
    }
}

/// What stands between the socket's bytes and MQTT's. Pure: bytes in, bytes out; no sockets.
pub struct Layers {
    proxy: Option<Box<ProxyHeader>>,
    stack: Stack,
    peer: Peer,
}

enum Stack {
    Plain,
    Tls(Box<TlsLayer>),
    WebSocket(Box<WebSocketLayer>),
    SecureWebSocket(Box<(TlsLayer, WebSocketLayer)>),
    /// After a fault, or when the connection must not begin: this fault comes first.
    Ended(Option<Box<LayerFault>>),
}

impl Layers {
    /// The layers for a connection that a listener accepted from this socket address.
    pub fn new(listener: &ListenerTransport, peer: SocketAddr) -> Layers {
        let stack = if listener.admits_source(peer.ip()) {
            Stack::new(&listener.carrier)
        } else {
            Stack::Ended(Some(Box::new(ProxyFault::Untrusted.into())))
        };
        let proxy = listener.proxies.is_some().then(Box::default);
        let peer = Peer {
            address: canonical(peer),
            common_name: None,
            transport: listener.kind(),
            ready: proxy.is_none() && matches!(stack, Stack::Plain),
        };
        Layers { proxy, stack, peer }
    }

    /// True when MQTT bytes are the socket's bytes from here on: plain TCP with no PROXY header to
    /// come. The caller may then parse what it reads in place and write MQTT bytes straight to the
    /// socket. Becomes true during [`receive`](Self::receive) at the earliest where a PROXY header
    /// is expected.
    pub fn is_transparent(&self) -> bool {
        self.proxy.is_none() && matches!(self.stack, Stack::Plain)
    }

    /// What is known about the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Takes bytes from the socket, which may be overwritten. Appends MQTT bytes to `plain` and
    /// bytes that must be sent (handshakes, HTTP responses, pongs, close frames) to `raw_out`.
    ///
    /// # Errors
    /// On a fault `plain` holds what came before it and `raw_out` ends with what tells the client
    /// (an alert, a response, a close frame): send it, then close the socket.
    pub fn receive(
        &mut self,
        raw: &mut [u8],
        plain: &mut Vec<u8>,
        raw_out: &mut Vec<u8>,
    ) -> Result<Flow, LayerFault> {
        if let Stack::Ended(fault) = &mut self.stack {
            return fault.take().map_or(Ok(Flow::Closed), |fault| Err(*fault));
        }
        let outcome = self.pass_proxy(raw).and_then(|consumed| match consumed {
            None => Ok(Flow::Open),
            Some(consumed) => self.stack.receive(&mut raw[consumed..], plain, raw_out),
        });
        match outcome {
            Ok(flow) => {
                self.learn();
                Ok(flow)
            }
            Err(fault) => {
                self.stack = Stack::Ended(None);
                Err(fault)
            }
        }
    }

    /// Wraps MQTT bytes for sending and appends them to `raw_out`.
    ///
    /// # Errors
    /// Before [`Peer::ready`] and after the end there is no way to send.
    pub fn send(&mut self, plain: &[u8], raw_out: &mut Vec<u8>) -> Result<(), LayerFault> {
        if self.proxy.is_some() {
            return Err(LayerFault::NotReady);
        }
        match &mut self.stack {
            Stack::Plain => {
                raw_out.extend_from_slice(plain);
                Ok(())
            }
            Stack::Tls(tls) => tls.send(plain, raw_out),
            Stack::WebSocket(websocket) => websocket.send(plain, raw_out),
            Stack::SecureWebSocket(both) => {
                let (tls, websocket) = &mut **both;
                let mut frames = Vec::new();
                websocket.send(plain, &mut frames)?;
                tls.send(&frames, raw_out)
            }
            Stack::Ended(_) => Err(LayerFault::Ended),
        }
    }

    /// Appends the bytes of a clean end (WebSocket close frame, TLS close alert), once. Nothing can
    /// be sent afterwards; what still comes may be received.
    pub fn close(&mut self, raw_out: &mut Vec<u8>) {
        match &mut self.stack {
            Stack::Plain | Stack::Ended(_) => {}
            Stack::Tls(tls) => tls.close(raw_out),
            Stack::WebSocket(websocket) => websocket.close(raw_out),
            Stack::SecureWebSocket(both) => {
                let (tls, websocket) = &mut **both;
                let mut frames = Vec::new();
                websocket.close(&mut frames);
                end_secure(tls, &frames, raw_out);
            }
        }
    }

    /// Runs the PROXY header, if one is to come. Returns how many bytes it took, none if it wants
    /// more.
    fn pass_proxy(&mut self, raw: &[u8]) -> Result<Option<usize>, LayerFault> {
        let Some(header) = &mut self.proxy else {
            return Ok(Some(0));
        };
        let Some(proxied) = header.feed(raw)? else {
            return Ok(None);
        };
        self.proxy = None;
        if let Some(source) = proxied.source {
            self.peer.address = source;
        }
        Ok(Some(proxied.consumed))
    }

    /// Notes what finished handshakes revealed.
    fn learn(&mut self) {
        if self.peer.ready || self.proxy.is_some() {
            return;
        }
        let (ready, tls) = match &self.stack {
            Stack::Plain => (true, None),
            Stack::Tls(tls) => (tls.is_ready(), Some(&**tls)),
            Stack::WebSocket(websocket) => (websocket.is_ready(), None),
            Stack::SecureWebSocket(both) => (both.1.is_ready(), Some(&both.0)),
            Stack::Ended(_) => (false, None),
        };
        if ready {
            self.peer.ready = true;
            self.peer.common_name = tls.and_then(TlsLayer::common_name);
        }
    }
}

impl Stack {
    fn new(carrier: &Carrier) -> Stack {
        let built = match carrier {
            Carrier::Tcp => Ok(Stack::Plain),
            Carrier::Tls(certificates) => {
                TlsLayer::new(certificates).map(|tls| Stack::Tls(Box::new(tls)))
            }
            Carrier::WebSocket(settings) => {
                Ok(Stack::WebSocket(Box::new(WebSocketLayer::new(settings.clone()))))
            }
            Carrier::SecureWebSocket(certificates, settings) => {
                TlsLayer::new(certificates).map(|tls| {
                    let websocket = WebSocketLayer::new(settings.clone());
                    Stack::SecureWebSocket(Box::new((tls, websocket)))
                })
            }
        };
        built.unwrap_or_else(|fault| Stack::Ended(Some(Box::new(fault))))
    }

    fn receive(
        &mut self,
        raw: &mut [u8],
        plain: &mut Vec<u8>,
        raw_out: &mut Vec<u8>,
    ) -> Result<Flow, LayerFault> {
        match self {
            Stack::Plain => {
                plain.extend_from_slice(raw);
                Ok(Flow::Open)
            }
            Stack::Tls(tls) => tls.receive(raw, raw_out, &mut |bytes| {
                plain.extend_from_slice(bytes);
                Ok(())
            }),
            Stack::WebSocket(websocket) => websocket.receive(raw, plain, raw_out),
            Stack::SecureWebSocket(both) => {
                let (tls, websocket) = &mut **both;
                receive_secure(tls, websocket, raw, plain, raw_out)
            }
            Stack::Ended(_) => Ok(Flow::Closed),
        }
    }
}

/// WebSocket over TLS: decrypted bytes go straight to the frames; their answers are encrypted.
fn receive_secure(
    tls: &mut TlsLayer,
    websocket: &mut WebSocketLayer,
    raw: &mut [u8],
    plain: &mut Vec<u8>,
    raw_out: &mut Vec<u8>,
) -> Result<Flow, LayerFault> {
    let mut answers = Vec::new();
    let mut frames_flow = Flow::Open;
    let tls_flow = tls.receive(raw, raw_out, &mut |bytes| {
        frames_flow = websocket.receive(bytes, plain, &mut answers)?;
        Ok(())
    });
    match tls_flow {
        Ok(flow) => {
            tls.send(&answers, raw_out)?;
            Ok(if frames_flow == Flow::Closed { Flow::Closed } else { flow })
        }
        Err(fault) => {
            end_secure(tls, &answers, raw_out);
            Err(fault)
        }
    }
}

/// Sends the last frames and ends TLS. Where TLS itself failed there is no way to send them.
fn end_secure(tls: &mut TlsLayer, frames: &[u8], raw_out: &mut Vec<u8>) {
    if tls.send(frames, raw_out).is_ok() {
        tls.close(raw_out);
    }
}

#[cfg(test)]
mod size {
    /// Every connection has layers, idle ones too: they must stay a small part of its memory.
    #[test]
    fn layers_of_a_plain_connection_are_small() {
        assert!(size_of::<super::Layers>() <= 80, "{}", size_of::<super::Layers>());
    }
}
