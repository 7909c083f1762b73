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
    tick_ns: u64,
}

impl Pace {
    /// `rate` messages per second over these channels, beginning at `from_ns`.
    pub(crate) fn new(rate: f64, channels: Range<u32>, from_ns: u64) -> Pace {
        Pace { interval_ns: 1e9 / rate, next_ns: from_ns as f64, channels, drawn: 0, tick_ns: 0 }
    }

    /// Lets messages fall due together, at the end of ticks of this length.
    pub(crate) fn in_ticks(self, tick_ms: f64) -> Pace {
        Pace { tick_ns: (tick_ms * 1e6) as u64, ..self }
    }

    /// When the next message is due.
    pub(crate) fn next_ns(&self) -> u64 {
        match (self.next_ns as u64, self.tick_ns) {
            (due, 0) => due,
            (due, tick) => due.next_multiple_of(tick),
        }
    }

    /// Takes the message that is due next: its due time and channel.
    pub(crate) fn take(&mut self) -> (u64, u32) {
        let due = self.next_ns();
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

    #[test]
    fn ticks_gather_due_times_and_never_advance_them() {
        let (mut exact, tick) = (Pace::new(5000.0, 0..4, 1_234_567), 1_000_000);
        let mut ticking = exact.clone().in_ticks(1.0);
        for _ in 0..1000 {
            let ((at, channel), (due, same)) = (exact.take(), ticking.take());
            assert_eq!((channel, due % tick), (same, 0));
            assert!(due >= at && due < at + tick, "{at} {due}");
        }
    }
}
