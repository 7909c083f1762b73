//! One monotonic clock for a whole run: nanoseconds since the run began.
//!
//! Due times travel inside payloads, so every thread must read the same clock. Wall time is kept
//! out of it: a clock that is set back would turn into negative latencies.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static BEGIN: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since the clock was first read.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let begin = BEGIN.get_or_init(Instant::now);
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A duration given in seconds by a user, as nanoseconds; negative and NaN count as zero.
pub(crate) fn secs_to_ns(secs: f64) -> u64 {
    u64::try_from(duration(secs).as_nanos()).unwrap_or(u64::MAX)
}

/// A duration given in seconds by a user; negative and NaN count as zero, the upper bound is a day.
pub(crate) fn duration(secs: f64) -> Duration {
    Duration::from_secs_f64(if secs.is_finite() { secs.clamp(0.0, 86_400.0) } else { 0.0 })
}

/// Nanoseconds as seconds, for people.
pub(crate) fn ns_to_secs(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_from_users_never_panic() {
        for (secs, ns) in [
            (1.5, 1_500_000_000),
            (0.0, 0),
            (-3.0, 0),
            (f64::NAN, 0),
            (f64::INFINITY, 0),
            (1e30, 86_400_000_000_000),
        ] {
            assert_eq!(secs_to_ns(secs), ns, "{secs}");
        }
    }

    #[test]
    fn the_clock_never_runs_backwards() {
        let first = now_ns();
        assert!(now_ns() >= first);
    }
}
