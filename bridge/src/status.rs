//! How a link is doing: what operators see of it, and what they tell it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// What a link is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum State {
    /// It waits for work (`lazy`) or for an operator (`manual`, or after `once`).
    Idle = 0,
    /// It makes its connections.
    Connecting = 1,
    /// Messages pass.
    Connected = 2,
    /// It waits to try again.
    Waiting = 3,
    /// An operator has paused it.
    Paused = 4,
}

impl State {
    /// The word for logs, metrics and topics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Connecting => "connecting",
            State::Connected => "connected",
            State::Waiting => "waiting",
            State::Paused => "paused",
        }
    }

    fn from_number(number: u8) -> State {
        [State::Idle, State::Connecting, State::Connected, State::Waiting, State::Paused]
            .into_iter()
            .find(|state| *state as u8 == number)
            .unwrap_or(State::Idle)
    }
}

/// What has happened on a link.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Counts {
    /// Messages sent to the remote broker.
    pub sent: u64,
    /// Bytes of their payloads.
    pub sent_bytes: u64,
    /// Messages that came from the remote broker and were passed on.
    pub arrived: u64,
    /// Bytes of their payloads.
    pub arrived_bytes: u64,
    /// Messages stopped because they had passed before.
    pub looped: u64,
    /// Messages that fit no rule.
    pub without_rule: u64,
    /// Messages larger than the broker at the other end takes.
    pub too_large: u64,
    /// Messages that a broker will never take.
    pub refused: u64,
    /// Filters that a broker does not grant.
    pub refused_filters: u64,
}

impl Counts {
    /// The sum of both.
    fn add(&mut self, more: &Counts) {
        self.sent += more.sent;
        self.sent_bytes += more.sent_bytes;
        self.arrived += more.arrived;
        self.arrived_bytes += more.arrived_bytes;
        self.looped += more.looped;
        self.without_rule += more.without_rule;
        self.too_large += more.too_large;
        self.refused += more.refused;
        self.refused_filters += more.refused_filters;
    }
}

/// The state of one link, written by its task and read by everybody.
#[derive(Debug, Default)]
pub struct Status {
    state: AtomicU8,
    in_flight: AtomicU64,
    connects: AtomicU64,
    failures: AtomicU64,
    caught_up_at_ms: AtomicU64,
    counts: Mutex<Counts>,
    last_error: Mutex<Option<LastError>>,
}

/// The last thing that went wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LastError {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

impl Status {
    /// What the link is at.
    pub fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Relaxed))
    }

    /// Messages on their way out.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Connections made so far.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Connections that failed or ended.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The sums since the start.
    pub fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    /// What went wrong last.
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().clone()
    }

    /// How long something has been waiting to be sent, at most; 0 when nothing is.
    pub fn lag_ms(&self, queued: u64, now_ms: u64) -> u64 {
        if queued == 0 && self.in_flight() == 0 {
            self.caught_up_at_ms.store(now_ms, Ordering::Relaxed);
            return 0;
        }
        now_ms.saturating_sub(self.caught_up_at_ms.load(Ordering::Relaxed))
    }

    /// The link is at something else now; true when that is news.
    pub fn enter(&self, state: State) -> bool {
        if state == State::Connected {
            self.connects.fetch_add(1, Ordering::Relaxed);
        }
        self.state.swap(state as u8, Ordering::Relaxed) != state as u8
    }

    /// Takes over what a link has counted.
    pub fn take(&self, in_flight: usize, counts: &mut Counts) {
        self.in_flight.store(in_flight as u64, Ordering::Relaxed);
        if *counts != Counts::default() {
            self.counts.lock().add(counts);
            *counts = Counts::default();
        }
    }

    /// A connection has failed or ended.
    pub fn failed(&self, at_ms: u64, what: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = Some(LastError { at_ms, what });
    }
}
