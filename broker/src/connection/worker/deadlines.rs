//! How long a worker has lived, by which keep alives and all other deadlines of connections go:
//! the time in which it stood still left out.
//!
//! A worker looks at the time once a second at least. When it could not (the machine slept or was
//! moved to another host, an operator stopped the process), what clients sent meanwhile is unread or
//! still on its way, and that nothing was heard of them is not their silence.

use std::time::{Duration, Instant};

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
}
