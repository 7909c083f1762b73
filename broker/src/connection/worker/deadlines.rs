//! Deadlines of connections: CONNECT, keep alive, lingering; and the lifetime they go by.
//!
//! That is how long the worker has lived, the time in which it stood still left out. A worker looks
//! at the time once a second at least. When it could not (the machine slept or was moved to another
//! host, an operator stopped the process), what clients sent meanwhile is unread or still on its way,
//! and that nothing was heard of them is not their silence.
//!
//! Deliberately not here: when to look at whom (`wheel`).

use std::time::{Duration, Instant};

use hoopoe_codec::ReasonCode;
use hoopoe_core::Location;

use super::Worker;
use crate::connection::Phase;
use crate::connection::closing::Cause;

/// The longest that a turn counts, the wait before it included.
const LONGEST_TURN: Duration = Duration::from_secs(2);
/// Time that is left out from which on it is worth a warning.
const WARN: Duration = Duration::from_secs(5);

/// A worker's lifetime.
pub(super) struct Lifetime {
    started: Instant,
    /// What is left out.
    still: Duration,
    /// How long it was at the last turn.
    last: Duration,
}

impl Lifetime {
    pub(super) fn new(started: Instant) -> Lifetime {
        Lifetime { started, still: Duration::ZERO, last: Duration::ZERO }
    }

    /// How long it is.
    pub(super) fn at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started).saturating_sub(self.still)
    }

    /// How long it is as a turn begins.
    pub(super) fn turn(&mut self, now: Instant) -> Duration {
        let still = self.at(now).saturating_sub(self.last).saturating_sub(LONGEST_TURN);
        if still >= WARN {
            tracing::warn!(
                seconds = still.as_secs(),
                "a worker stood still, and with it maybe the machine: keep alives do not count that time"
            );
        }
        self.still += still;
        self.last = self.at(now);
        self.last
    }
}

impl Worker {
    /// Looks at connections whose time for something may be over. Sockets have been read in this
    /// turn: whoever was heard just now is not silent.
    pub(super) fn look_at_deadlines(&mut self) {
        let mut due = Vec::new();
        self.wheel.advance(self.now_secs, &mut due);
        for location in due {
            self.look_at_deadline(location);
        }
    }

    fn look_at_deadline(&mut self, location: Location) {
        let now = self.now_secs;
        let Some(connection) = self.connection(location) else { return };
        if let Phase::Active(_) = connection.phase
            && !connection.finishing
        {
            if connection.keep_alive_secs == 0 {
                return;
            }
            let over = connection.heard_secs + keep_alive_limit(connection.keep_alive_secs);
            let unread = connection.readable && !connection.paused && !connection.is_clogged();
            if let Some(at) = look_again(over, now, unread) {
                self.wheel.schedule(location, at);
            } else {
                self.counters.keep_alive_timeouts.add(1);
                self.end_session(location, Cause::Fault(ReasonCode::KeepAliveTimeout));
            }
        } else if connection.deadline_secs <= now {
            self.socket_ended(location, None);
        } else {
            let at = connection.deadline_secs;
            self.wheel.schedule(location, at);
        }
    }
}

/// When to look again at a connection whose keep alive is over in second `over`; `None` when it has
/// been silent. Bytes that wait unread because other threads are behind are not silence.
fn look_again(over: u64, now: u64, unread: bool) -> Option<u64> {
    if over > now { Some(over) } else { unread.then_some(now + 1) }
}

/// One and a half times the keep-alive, rounded up ([MQTT-3.1.2-22]); and one second more, because
/// the second in which a client was heard may have been nearly over.
pub(in crate::connection) fn keep_alive_limit(keep_alive_secs: u16) -> u64 {
    (u64::from(keep_alive_secs) * 3).div_ceil(2) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_a_worker_stood_still_is_left_out() {
        let started = Instant::now();
        let mut life = Lifetime::new(started);
        let mut turn = |ms| life.turn(started + Duration::from_millis(ms)).as_millis();
        assert_eq!(turn(900), 900);
        assert_eq!(turn(2_900), 2_900, "a long turn");
        assert_eq!(turn(3_000), 3_000);
        assert_eq!(turn(63_000), 5_000, "a minute");
        assert_eq!(turn(63_700), 5_700);
        assert_eq!(turn(66_700), 7_700, "and three seconds");
        let soon = started + Duration::from_millis(66_900);
        assert_eq!(life.at(soon).as_millis(), 7_900);
    }

    #[test]
    fn bytes_that_wait_are_no_silence() {
        assert_eq!(look_again(10, 9, false), Some(10));
        assert_eq!(look_again(10, 10, false), None);
        assert_eq!(look_again(10, 10, true), Some(11));
        assert_eq!(look_again(10, 60, true), Some(61));
        assert_eq!(look_again(61, 60, true), Some(61));
        assert_eq!([1, 2, 3, 60].map(keep_alive_limit), [3, 4, 6, 91]);
    }
}
