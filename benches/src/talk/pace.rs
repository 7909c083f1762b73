//! The open loop's clock: when the next message is due, and in which channel.

use std::ops::Range;

use crate::stamp::mix;

/// Due times at a fixed rate over a range of channels, which are drawn evenly.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    interval_ns: f64,
    next_ns: f64,
    channels: Range<u32>,
    drawn: u64,
}

impl Pace {
    /// `rate` messages per second over these channels, beginning at `from_ns`.
    pub(crate) fn new(rate: f64, channels: Range<u32>, from_ns: u64) -> Pace {
        Pace { interval_ns: 1e9 / rate, next_ns: from_ns as f64, channels, drawn: 0 }
    }

    /// When the next message is due.
    pub(crate) fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Takes the message that is due next: its due time and channel.
    pub(crate) fn take(&mut self) -> (u64, u32) {
        let due = self.next_ns as u64;
        self.next_ns += self.interval_ns;
        self.drawn += 1;
        let width = u64::from(self.channels.end - self.channels.start).max(1);
        (due, self.channels.start + (mix(self.drawn) % width) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift_and_channels_are_drawn_evenly() {
        let mut pace = Pace::new(3.0, 10..14, 1_000);
        let mut drawn = [0u32; 4];
        let mut last = 0;
        for _ in 0..30_000 {
            let (due, channel) = pace.take();
            assert!(due >= last);
            last = due;
            drawn[channel as usize - 10] += 1;
        }
        let expected = 1_000.0 + 29_999.0 * 1e9 / 3.0;
        assert!((last as f64 - expected).abs() < 1e6, "{last} {expected}");
        assert!(drawn.iter().all(|n| (6_500..8_500).contains(n)), "{drawn:?}");
    }
}
