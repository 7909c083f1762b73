//! Moving averages of rates, computed as mosquitto does: exponential, per minute, over 1, 5 and
//! 15 minutes.

use std::time::Duration;

/// The spans averaged over, in seconds, with the last level of their topics.
pub(super) const SPANS: [(f64, &str); 3] = [(60.0, "1min"), (300.0, "5min"), (900.0, "15min")];

/// The averages of one counter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    counted: u64,
    averages: [f64; SPANS.len()],
}

impl Load {
    /// Takes the counter's value in, `elapsed` after the last one. Whatever was counted before the
    /// first call is no load: the caller begins with `Load::default()` at zero.
    pub(super) fn observe(&mut self, counted: u64, elapsed: Duration) {
        let elapsed_secs = elapsed.as_secs_f64();
        if elapsed_secs <= 0.0 {
            return;
        }
        let per_minute = counted.saturating_sub(self.counted) as f64 * 60.0 / elapsed_secs;
        for ((span_secs, _), average) in SPANS.iter().zip(&mut self.averages) {
            let weight = (-elapsed_secs / span_secs).exp();
            *average = per_minute + weight * (*average - per_minute);
        }
        self.counted = counted;
    }

    /// The averages per minute, in the order of [`SPANS`].
    pub(super) fn averages(&self) -> [f64; SPANS.len()] {
        self.averages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_reached_by_the_shorter_span_first() {
        let mut load = Load::default();
        for round in 1..=30 {
            load.observe(round * 100, Duration::from_secs(10));
        }
        // 600 a minute for five minutes: 1 - e^-5, 1 - e^-1 and 1 - e^-(1/3) of it.
        let expected = [595.96, 379.27, 170.08];
        for (average, expected) in load.averages().into_iter().zip(expected) {
            assert!((average - expected).abs() < 0.01, "{average} {expected}");
        }
    }

    #[test]
    fn a_rate_that_ends_fades() {
        let mut load = Load::default();
        load.observe(600, Duration::from_secs(60));
        let before = load.averages();
        load.observe(600, Duration::from_secs(60));
        for (before, after) in before.into_iter().zip(load.averages()) {
            assert!(after > 0.0 && after < before, "{before} {after}");
        }
    }

    #[test]
    fn no_time_is_no_rate() {
        let mut load = Load::default();
        load.observe(5, Duration::ZERO);
        assert_eq!(load.averages(), [0.0; 3]);
        load.observe(5, Duration::from_secs(10));
        assert!(load.averages()[0] > 0.0);
    }
}
