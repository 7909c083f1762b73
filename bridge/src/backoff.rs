//! Pauses between attempts: they double up to a bound, each drawn at random from its upper half, so
//! that many links to one broker do not come back together.

use std::time::Duration;

/// The pauses of one link.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    /// Pauses from `min` to `max`; `seed` makes them differ from those of others.
    pub fn new(min: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff { min, max: max.max(min), next: min, random: seed }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (self.next * 2).min(self.max);
        // splitmix64
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let part = ((mixed ^ (mixed >> 31)) >> 40) as f64 / f64::from(1 << 24);
        whole.mul_f64(0.5 + part / 2.0)
    }

    /// A connection has stood for so long: short pauses again, if it was longer than the last one.
    pub fn stood(&mut self, how_long: Duration) {
        if how_long >= self.next {
            self.next = self.min;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max, 1);
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let pause = backoff.pause().as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{pause} of {whole}");
        }
        backoff.stood(Duration::from_millis(500));
        assert!(backoff.pause() >= max / 2);
        backoff.stood(Duration::from_secs(2));
        assert!(backoff.pause() <= min);
        let mut other = Backoff::new(min, max, 2);
        assert_ne!(other.pause(), Backoff::new(min, max, 1).pause());
    }
}
