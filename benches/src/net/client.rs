//! One connection: its socket, its bytes in waiting and its packet identifiers in flight.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;

use hoopoe_codec::{Fault, ReasonCode};

use super::Token;
use super::transport::Layers;

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// No socket.
    #[default]
    Down,
    /// The socket is being connected.
    Connecting,
    /// CONNECT is under way, CONNACK has not arrived.
    Greeting,
    /// CONNACK said yes.
    Up,
}

/// Why a connection ended or did not come about.
#[derive(Debug)]
pub(crate) enum Down {
    /// The socket could not be opened or connected.
    Connect(io::Error),
    /// The broker closed it without a word.
    Closed,
    /// Reading or writing failed.
    Broken(io::Error),
    /// CONNACK said no.
    Refused(ReasonCode),
    /// DISCONNECT from the broker (MQTT 5).
    Told(ReasonCode),
    /// The broker sent what the standard does not allow.
    Fault(Fault),
    /// TLS or WebSocket could not be agreed on.
    Handshake(String),
}

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Down::Connect(e) => write!(f, "cannot connect: {e}"),
            Down::Closed => f.write_str("the broker closed the connection"),
            Down::Broken(e) => write!(f, "the connection broke: {e}"),
            Down::Refused(code) => {
                write!(f, "CONNACK refused with {code:?} (0x{:02x})", *code as u8)
            }
            Down::Told(code) => write!(f, "DISCONNECT with {code:?} (0x{:02x})", *code as u8),
            Down::Fault(fault) => write!(f, "the broker broke the protocol: {fault}"),
            Down::Handshake(what) => write!(f, "handshake failed: {what}"),
        }
    }
}

/// What a client says about itself in CONNECT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greeting<'a> {
    /// Client identifier.
    pub client_id: &'a str,
    /// Clean start (5.0), clean session (3.1.1).
    pub clean: bool,
    /// How long the session is to outlive the connection (5.0; 3.1.1 knows only clean or not).
    pub session_expiry_secs: u32,
    /// User name, where the broker asks for one.
    pub username: Option<&'a str>,
    /// Password, where the broker asks for one.
    pub password: Option<&'a str>,
}

/// A publication that the broker has not settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    pub(super) id: u16,
    pub(super) token: Token,
}

/// One connection.
#[derive(Default)]
pub(super) struct Client {
    pub(super) stream: Option<TcpStream>,
    pub(super) layers: Option<Box<Layers>>,
    pub(super) state: State,
    /// Waits in the list of those to be written at the turn's end.
    pub(super) dirty: bool,
    /// Does not read what it is sent.
    pub(super) deaf: bool,
    /// The socket took no more; epoll will say when it does.
    pub(super) blocked: bool,
    /// MQTT bytes to write.
    pub(super) out: Vec<u8>,
    /// How many of them have been written.
    pub(super) written: usize,
    /// The head of a packet whose end has not arrived.
    pub(super) partial: Vec<u8>,
    pub(super) last_id: u16,
    /// How many publications the broker takes unsettled (5.0: Receive Maximum).
    pub(super) quota: u16,
    pub(super) inflight: VecDeque<Unsettled>,
    /// When the connection was begun.
    pub(super) opened_ns: u64,
    /// QoS 2 identifiers received and not released.
    pub(super) held: Vec<u16>,
}

impl Client {
    /// The next packet identifier that is not in flight.
    pub(super) fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = self.last_id;
            // A window is a few entries; identifiers wrap only after 65,535 publications.
            if self.inflight.len() < 1000 || !self.inflight.iter().any(|u| u.id == id) {
                return id;
            }
        }
    }

    /// Takes the settled publication out of the flight; brokers settle in order, mostly.
    #[inline]
    pub(super) fn settle(&mut self, id: u16) -> Option<Token> {
        if self.inflight.front().is_some_and(|u| u.id == id) {
            return self.inflight.pop_front().map(|u| u.token);
        }
        let at = self.inflight.iter().position(|u| u.id == id)?;
        self.inflight.remove(at).map(|u| u.token)
    }

    /// Forgets everything that belongs to the connection; buffers are given back.
    pub(super) fn reset(&mut self) {
        let dirty = self.dirty;
        *self = Client { dirty, ..Client::default() };
    }
}
