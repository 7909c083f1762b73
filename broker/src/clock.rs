//! The time of day as this process goes by it: milliseconds since the epoch, one time for all its
//! threads, and never less than before.
//!
//! Stored times, expiry and what is put off for a second all compare with it. When somebody sets the
//! system's clock forwards, it follows at once. When somebody sets it back, it goes on at half speed
//! until both agree, as `adjtime(3)` has it: nothing that was to be done within a second waits for an
//! hour, and new messages are not dated before old ones. A clock that was wrong by a day is followed
//! after two days, or at the next start.
//!
//! Not from here: how long something takes (`Instant`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Differences below are threads that looked at the clock one after the other.
const SAME_MS: u64 = 50;
/// A set-back from which on it is worth a warning.
const WARN_MS: u64 = 2_000;

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::default);

/// Milliseconds since the epoch, as this process goes by them.
pub fn now_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    CLOCK.at(wall.as_millis() as u64, Instant::now)
}

#[derive(Debug, Default)]
struct Clock {
    /// The latest time that was given out.
    last: AtomicU64,
    /// The system's clock is behind.
    is_behind: AtomicBool,
    /// While it is: half the time since then is still to be added to `last`.
    since: Mutex<Option<Instant>>,
}

impl Clock {
    fn at(&self, wall_ms: u64, now: impl FnOnce() -> Instant) -> u64 {
        let last = self.last.load(Ordering::Relaxed);
        if wall_ms <= last && last - wall_ms > SAME_MS {
            return self.catch_up(wall_ms, now());
        }
        if wall_ms > last && self.is_behind.load(Ordering::Relaxed) {
            self.is_behind.store(false, Ordering::Relaxed);
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.last.fetch_max(wall_ms, Ordering::Relaxed).max(wall_ms)
    }

    /// The system's clock was set back, to `wall_ms`.
    fn catch_up(&self, wall_ms: u64, now: Instant) -> u64 {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(begun) = *since else {
            *since = Some(now);
            self.is_behind.store(true, Ordering::Relaxed);
            let last = self.last.load(Ordering::Relaxed);
            let back_ms = last.saturating_sub(wall_ms);
            if back_ms >= WARN_MS {
                tracing::warn!(
                    back_ms,
                    "the system's clock was set back: times go on from the latest one at half speed \
                     until it is reached; a restart takes the new time at once"
                );
            }
            return last;
        };
        let gain_ms = now.saturating_duration_since(begun).as_millis() as u64 / 2;
        *since = Some(begun + Duration::from_millis(2 * gain_ms));
        self.last.fetch_add(gain_ms, Ordering::Relaxed) + gain_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock, and the time that passes.
    struct Rig {
        clock: Clock,
        started: Instant,
    }

    impl Rig {
        fn new() -> Rig {
            Rig { clock: Clock::default(), started: Instant::now() }
        }

        /// What it shows while the system's clock shows `wall_ms`, so long after the start.
        fn at(&self, wall_ms: u64, after_ms: u64) -> u64 {
            self.clock.at(wall_ms, || self.started + Duration::from_millis(after_ms))
        }
    }

    #[test]
    fn it_follows_forwards_at_once() {
        let rig = Rig::new();
        assert_eq!(rig.at(1_000, 0), 1_000);
        assert_eq!(rig.at(1_001, 1), 1_001);
        assert_eq!(rig.at(3_600_000, 2), 3_600_000);
        assert_eq!(rig.at(3_599_990, 3), 3_600_000, "another thread has looked before");
    }

    #[test]
    fn set_back_it_goes_on_at_half_speed_until_both_agree() {
        let rig = Rig::new();
        assert_eq!(rig.at(100_000, 0), 100_000);
        // Ten seconds back.
        assert_eq!(rig.at(90_000, 0), 100_000);
        assert_eq!(rig.at(91_000, 1_000), 100_500);
        assert_eq!(rig.at(91_001, 1_001), 100_500, "a half millisecond is kept");
        assert_eq!(rig.at(91_002, 1_002), 100_501);
        assert_eq!(rig.at(100_002, 10_002), 105_001);
        assert_eq!(rig.at(110_002, 20_002), 110_002, "reached: the system's clock again");
        assert_eq!(rig.at(110_500, 20_500), 110_500);
    }

    #[test]
    fn a_second_setting_back_begins_where_the_clock_stands() {
        let rig = Rig::new();
        rig.at(100_000, 0);
        assert_eq!(rig.at(99_000, 10), 100_000);
        assert_eq!(rig.at(101_000, 2_010), 101_000, "reached");
        // Ten seconds later again, and nothing of them is counted.
        assert_eq!(rig.at(111_000, 12_010), 111_000);
        assert_eq!(rig.at(105_000, 12_020), 111_000);
        assert_eq!(rig.at(105_100, 12_120), 111_050);
    }
}
