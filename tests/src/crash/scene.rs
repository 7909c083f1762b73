//! What clients act on: the connections, the history, the clock, and a few counts.

use std::time::Instant;

use super::history::{Client, Event, History, Link};
use super::links::Links;

/// Where it happens.
#[derive(Debug)]
pub struct Scene {
    /// Connections.
    pub links: Links,
    /// Everything that happened.
    pub history: History,
    /// Publications acknowledged since the broker was last started.
    pub acked: usize,
    /// Clients accepted since the broker was last started.
    pub accepted: usize,
    started: Instant,
}

impl Scene {
    /// A scene in which nothing has happened.
    pub fn new(links: Links) -> Scene {
        let history = History::default();
        Scene { links, history, acked: 0, accepted: 0, started: Instant::now() }
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Notes an event.
    pub fn record(&mut self, event: Event) {
        self.history.record(self.now_ms(), event);
    }

    /// Notes something that must never happen.
    pub fn fault(&mut self, client: Client, what: String) {
        self.record(Event::Fault { client, what });
    }

    /// Sends bytes over a connection.
    pub fn send(&self, link: Link, bytes: Vec<u8>) {
        self.links.send(link, bytes);
    }
}
