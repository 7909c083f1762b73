//! The layers between MQTT and the socket: TLS, WebSocket, or WebSocket inside TLS.
//!
//! Plain TCP has no layers and pays nothing for them. A layered connection turns the client's MQTT
//! bytes into what goes to the socket, and back. Owned by the client that it belongs to.

mod tls;
mod websocket;

use std::io::{self, Write};
use std::net::TcpStream;

use super::Target;

pub(crate) use tls::{Tls, TlsOptions};

use tls::TlsLayer;
use websocket::WebSocket;

/// How MQTT travels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    /// Encrypted, and how.
    pub tls: Option<Tls>,
    /// In WebSocket frames, and under which path.
    pub websocket: Option<WebSocketAt>,
}

/// Where the WebSocket is asked for.
#[derive(Clone, Debug)]
pub(crate) struct WebSocketAt {
    /// Host header.
    pub host: String,
    /// Path of the request.
    pub path: String,
}

impl std::fmt::Display for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.tls.is_some(), self.websocket.is_some()) {
            (false, false) => "TCP",
            (true, false) => "TLS",
            (false, true) => "WebSocket",
            (true, true) => "WebSocket over TLS",
        })
    }
}

/// The layers of one connection.
pub(super) struct Layers {
    tls: Option<TlsLayer>,
    websocket: Option<WebSocket>,
    /// Bytes ready for the layer below the WebSocket, or for the socket.
    ready: Vec<u8>,
    written: usize,
}

impl Layers {
    /// The layers that the target's wire needs; none for plain TCP.
    pub(super) fn new(target: &Target) -> Result<Option<Box<Layers>>, String> {
        let wire = &target.wire;
        if wire.tls.is_none() && wire.websocket.is_none() {
            return Ok(None);
        }
        let tls = wire.tls.as_ref().map(TlsLayer::new).transpose()?;
        let mut ready = Vec::new();
        let websocket = wire.websocket.as_ref().map(|at| WebSocket::request(at, &mut ready));
        Ok(Some(Box::new(Layers { tls, websocket, ready, written: 0 })))
    }

    /// Sends what the layers and the client have to say. Takes MQTT bytes out of `out` only as the
    /// socket takes them; false when the socket takes no more.
    pub(super) fn write(&mut self, stream: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            if !self.push(stream)? {
                return Ok(false);
            }
            let open = self.websocket.as_ref().is_none_or(WebSocket::is_open);
            if out.is_empty() || !open {
                return Ok(true);
            }
            match &mut self.websocket {
                Some(websocket) => websocket.frame(out, &mut self.ready),
                None => self.ready.extend_from_slice(out),
            }
            out.clear();
        }
    }

    /// Moves what is ready through TLS to the socket; false when the socket takes no more.
    fn push(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return push_plain(stream, &mut self.ready, &mut self.written);
        };
        loop {
            if !tls.push(stream)? {
                return Ok(false);
            }
            if self.written == self.ready.len() {
                self.ready.clear();
                self.written = 0;
                return Ok(true);
            }
            let taken = tls.take(&self.ready[self.written..])?;
            self.written += taken;
            if taken == 0 {
                // Until the handshake is through, TLS keeps only so much; its end will bring us back.
                return Ok(true);
            }
        }
    }

    /// Unwraps bytes from the socket; returns MQTT bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut plain = Vec::new();
        match &mut self.tls {
            Some(tls) => tls.read(bytes, &mut plain)?,
            None => plain.extend_from_slice(bytes),
        }
        match &mut self.websocket {
            Some(websocket) => websocket.unframe(&plain, &mut self.ready),
            None => Ok(plain),
        }
    }
}

fn push_plain(
    stream: &mut TcpStream,
    ready: &mut Vec<u8>,
    written: &mut usize,
) -> io::Result<bool> {
    while *written < ready.len() {
        match stream.write(&ready[*written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => *written += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    ready.clear();
    *written = 0;
    Ok(true)
}
