//! How a link is doing: what operators see of it, and what they tell it.

use std::collections::VecDeque;
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
    /// Messages that are done with: sent, and acknowledged where that is owed.
    finished: AtomicU64,
    looks: Mutex<VecDeque<Look>>,
    counts: Mutex<Counts>,
    last_error: Mutex<Option<LastError>>,
}

/// Looks kept at most, while something waits that was there at each of them.
const LOOKS_MAX: usize = 64;

/// A look at what waits, by which the age of the oldest is known later.
#[derive(Clone, Copy, Debug)]
struct Look {
    at_ms: u64,
    /// Once so many messages are done with, none is left that waited then.
    through: u64,
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

    /// For how long the oldest message that waits has been seen to wait; 0 when none does, or none
    /// of those that did at the last look. To be looked at often while the link is connected.
    pub fn lag_ms(&self, queued: u64, now_ms: u64) -> u64 {
        let (waiting, mut looks) = (queued.max(self.in_flight()), self.looks.lock());
        if waiting == 0 {
            looks.clear();
            return 0;
        }
        let finished = self.finished.load(Ordering::Relaxed);
        let through = finished + waiting;
        for look in looks.iter_mut() {
            // Some may have been dropped from the queue.
            look.through = look.through.min(through);
        }
        while looks.front().is_some_and(|look| look.through <= finished) {
            looks.pop_front();
        }
        if looks.back().is_none_or(|look| look.through < through) {
            if looks.len() == LOOKS_MAX {
                let mut keep = false;
                looks.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            looks.push_back(Look { at_ms: now_ms, through });
        }
        looks.front().map_or(0, |look| now_ms.saturating_sub(look.at_ms))
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
        let in_flight = in_flight as u64;
        let before = self.in_flight.swap(in_flight, Ordering::Relaxed);
        let finished = (before + counts.sent).saturating_sub(in_flight);
        self.finished.fetch_add(finished, Ordering::Relaxed);
        self.add(counts);
    }

    /// The link has ended with so many messages on their way: they wait again.
    pub fn lost(&self, in_flight: usize, counts: &mut Counts) {
        self.take(in_flight, counts);
        self.in_flight.store(0, Ordering::Relaxed);
    }

    fn add(&self, counts: &mut Counts) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So many more were sent, of which so many are on their way with those before.
    fn sent(status: &Status, sent: u64, in_flight: usize) {
        status.take(in_flight, &mut Counts { sent, ..Counts::default() });
    }

    #[test]
    fn a_message_that_has_just_come_does_not_lag() {
        let status = Status::default();
        assert_eq!(status.lag_ms(0, 1_000), 0);
        // Nothing was looked at for long.
        assert_eq!(status.lag_ms(1, 16_000), 0);
        assert_eq!(status.lag_ms(1, 16_250), 250);
        assert_eq!(status.lag_ms(0, 17_000), 0);
        assert_eq!(status.lag_ms(1, 30_000), 0);
    }

    #[test]
    fn the_lag_is_that_of_the_oldest_that_waits() {
        let status = Status::default();
        assert_eq!(status.lag_ms(2, 1_000), 0);
        sent(&status, 2, 2);
        assert_eq!(status.lag_ms(5, 4_000), 3_000);
        sent(&status, 0, 1);
        assert_eq!(status.lag_ms(4, 5_000), 4_000, "the second is still on its way");
        sent(&status, 1, 1);
        assert_eq!(status.lag_ms(3, 6_000), 2_000, "the next were seen first at 4,000");
        // A connection is lost, and what was on its way is sent again.
        status.lost(1, &mut Counts::default());
        assert_eq!(status.in_flight(), 0);
        assert_eq!(status.lag_ms(3, 9_000), 5_000);
        sent(&status, 3, 3);
        assert_eq!(status.lag_ms(3, 9_500), 5_500);
        sent(&status, 0, 0);
        assert_eq!(status.lag_ms(0, 9_600), 0);
    }

    #[test]
    fn steady_traffic_does_not_lag() {
        let status = Status::default();
        for second in 1..1_000 {
            assert!(status.lag_ms(10, second * 1_000) <= 1_000, "{second}");
            sent(&status, 10, 0);
        }
    }

    #[test]
    fn what_is_dropped_from_the_queue_does_not_lag() {
        let status = Status::default();
        assert_eq!(status.lag_ms(1_000, 1_000), 0);
        assert_eq!(status.lag_ms(3, 2_000), 1_000);
        sent(&status, 3, 0);
        assert_eq!(status.lag_ms(4, 3_000), 0);
    }

    #[test]
    fn what_never_moves_lags_since_its_first_look() {
        let status = Status::default();
        for look in 0..10_000 {
            assert_eq!(status.lag_ms(look + 1, 1_000 + look), look);
        }
        assert!(status.looks.lock().len() <= LOOKS_MAX);
    }
}
