//! The HTTP request that opens a WebSocket, and its answer.
//!
//! Owns the request's bytes until it is whole. The rules of the handshake itself (method, version,
//! key) are tungstenite's; path, origin and sub-protocol are ours.

use std::sync::Arc;

use thiserror::Error;
use tungstenite::error::{Error as WebSocketError, ProtocolError};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderValue;
use tungstenite::http::header::{ORIGIN, SEC_WEBSOCKET_PROTOCOL};

use crate::settings::is_local_origin;

/// Longest upgrade request taken, cookies included.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
const REQUEST_PREFIX: &[u8] = b"GET ";
const REQUEST_END: &[u8] = b"\r\n\r\n";
/// The sub-protocol both sides name.
const SUBPROTOCOL: &str = "mqtt";

/// What a WebSocket listener accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketSettings {
    /// The path clients must ask for, such as `/mqtt`.
    pub path: String,
    /// The web origins (`https://chat.example.org`) whose pages may connect; empty: all. Clients
    /// outside browsers send no origin and are not concerned.
    pub origins: Vec<String>,
    /// With no origins named: only pages served by this machine may connect. A listener that only
    /// this machine reaches may let clients in without a password, and any page open in a browser
    /// could use it.
    pub local_pages_only: bool,
}

/// Why an upgrade was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UpgradeFault {
    /// The first bytes are no HTTP GET request.
    #[error("this port speaks MQTT over WebSocket: expected an HTTP upgrade request")]
    NotHttp,
    /// The request is longer than taken.
    #[error("upgrade request too long")]
    TooLong,
    /// The request is no valid HTTP/1.1 or no valid WebSocket handshake.
    #[error("malformed WebSocket upgrade request")]
    Malformed,
    /// A plain HTTP request, or a WebSocket version other than 13.
    #[error("this address speaks MQTT over WebSocket, version 13: upgrade required")]
    NotUpgrade,
    /// Another path.
    #[error("there is no MQTT endpoint at this path")]
    Path,
    /// The page's origin is not allowed.
    #[error("this origin may not connect here")]
    Origin,
    /// The client does not offer the sub-protocol.
    #[error("the client must offer the WebSocket sub-protocol \"mqtt\"")]
    Subprotocol,
}

impl UpgradeFault {
    fn status(self) -> &'static str {
        match self {
            UpgradeFault::NotHttp | UpgradeFault::Malformed | UpgradeFault::Subprotocol => {
                "400 Bad Request"
            }
            UpgradeFault::TooLong => "431 Request Header Fields Too Large",
            UpgradeFault::NotUpgrade => "426 Upgrade Required",
            UpgradeFault::Path => "404 Not Found",
            UpgradeFault::Origin => "403 Forbidden",
        }
    }

    /// Appends the HTTP response that says so.
    fn write(self, out: &mut Vec<u8>) {
        let body = format!("{self}\n");
        let upgrade = match self {
            UpgradeFault::NotUpgrade => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        out.extend_from_slice(
            format!(
                "HTTP/1.1 {}\r\n{upgrade}Content-Type: text/plain; charset=utf-8\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                self.status(),
                body.len(),
            )
            .as_bytes(),
        );
    }
}

/// An upgrade request being received.
#[derive(Debug)]
pub(super) struct Upgrade {
    settings: Arc<WebSocketSettings>,
    held: Vec<u8>,
}

impl Upgrade {
    pub(super) fn new(settings: Arc<WebSocketSettings>) -> Self {
        Upgrade { settings, held: Vec::new() }
    }

    /// Takes bytes. Once the request is whole, appends the answer and returns how many of these
    /// bytes belonged to it.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, UpgradeFault> {
        let held_before = self.held.len();
        let room = REQUEST_BYTES_MAX - held_before;
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let answered = match self.end(held_before) {
            Ok(None) => return Ok(None),
            Ok(Some(end)) => self.answer(end, out).map(|()| Some(end - held_before)),
            Err(fault) => Err(fault),
        };
        answered.inspect_err(|fault| fault.write(out))
    }

    /// Where the request ends, if it has come whole.
    fn end(&self, held_before: usize) -> Result<Option<usize>, UpgradeFault> {
        if self.held.iter().zip(REQUEST_PREFIX).any(|(own, expected)| own != expected) {
            return Err(UpgradeFault::NotHttp);
        }
        // Only the new bytes, and the few before them that may begin the end, are searched: a
        // request that drips in costs no more than one that comes at once.
        let from = held_before.saturating_sub(REQUEST_END.len() - 1);
        let end = self.held[from..]
            .windows(REQUEST_END.len())
            .position(|window| window == REQUEST_END)
            .map(|position| from + position + REQUEST_END.len());
        match end {
            None if self.held.len() == REQUEST_BYTES_MAX => Err(UpgradeFault::TooLong),
            end => Ok(end),
        }
    }

    fn answer(&self, end: usize, out: &mut Vec<u8>) -> Result<(), UpgradeFault> {
        let (_, request) =
            Request::try_parse(&self.held[..end]).ok().flatten().ok_or(UpgradeFault::Malformed)?;
        if request.uri().path() != self.settings.path {
            return Err(UpgradeFault::Path);
        }
        let mut response = create_response(&request).map_err(|fault| match fault {
            WebSocketError::Protocol(
                ProtocolError::MissingConnectionUpgradeHeader
                | ProtocolError::MissingUpgradeWebSocketHeader
                | ProtocolError::MissingSecWebSocketVersionHeader,
            ) => UpgradeFault::NotUpgrade,
            _ => UpgradeFault::Malformed,
        })?;
        self.check_origin(&request)?;
        // The client MUST include "mqtt" in the sub-protocols it offers [MQTT-6.0.0-3]; the server
        // names the one it selected, "mqtt" [MQTT-6.0.0-4].
        if !offers_mqtt(&request) {
            return Err(UpgradeFault::Subprotocol);
        }
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let start = out.len();
        write_response(&mut *out, &response).map_err(|_| {
            out.truncate(start);
            UpgradeFault::Malformed
        })
    }

    fn check_origin(&self, request: &Request) -> Result<(), UpgradeFault> {
        let WebSocketSettings { origins, local_pages_only, .. } = &*self.settings;
        let allowed = request.headers().get_all(ORIGIN).iter().all(|origin| {
            if origins.is_empty() {
                return !local_pages_only || origin.to_str().is_ok_and(is_local_origin);
            }
            let same = |own: &String| own.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
            origins.iter().any(|own| own == "*" || same(own))
        });
        if allowed { Ok(()) } else { Err(UpgradeFault::Origin) }
    }
}

fn offers_mqtt(request: &Request) -> bool {
    request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|offer| offer.to_str().ok())
        .flat_map(|offer| offer.split(','))
        .any(|offer| offer.trim() == SUBPROTOCOL)
}
