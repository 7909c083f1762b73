//! How fast a user may send: a token bucket for each user, over all devices (ruling 37).

/// A user's bucket. New ones are full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Thousandths of a token.
    milli: u64,
    filled_at_ms: u64,
}

impl Pace {
    /// A full bucket.
    pub fn new(burst: u32, now_ms: u64) -> Pace {
        Pace { milli: u64::from(burst) * 1000, filled_at_ms: now_ms }
    }

    /// Takes one token; false when there is none.
    pub fn take(&mut self, per_sec: u32, burst: u32, now_ms: u64) -> bool {
        self.take_many(1, per_sec, burst, now_ms)
    }

    /// Takes so many tokens, or all that a full bucket has; false when there are fewer.
    pub fn take_many(&mut self, count: u32, per_sec: u32, burst: u32, now_ms: u64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.filled_at_ms);
        let added = elapsed_ms.saturating_mul(u64::from(per_sec));
        self.filled_at_ms = self.filled_at_ms.max(now_ms);
        self.milli = self.milli.saturating_add(added).min(u64::from(burst) * 1000);
        let wanted = u64::from(count.min(burst)) * 1000;
        let enough = self.milli >= wanted;
        if enough {
            self.milli -= wanted;
        }
        enough
    }

    /// True when nothing would be lost by forgetting it.
    pub fn is_full(&self, per_sec: u32, burst: u32, now_ms: u64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.filled_at_ms);
        let added = elapsed_ms.saturating_mul(u64::from(per_sec));
        self.milli.saturating_add(added) >= u64::from(burst) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut pace = Pace::new(3, 1_000);
        let taken = [1_000, 1_000, 1_000, 1_000, 1_099, 1_100, 1_100, 1_200, 900];
        let passed = taken.map(|now| pace.take(10, 3, now));
        assert_eq!(passed, [true, true, true, false, false, true, false, true, false]);
        assert!(!pace.is_full(10, 3, 1_400));
        assert!(pace.is_full(10, 3, 1_500));
    }

    #[test]
    fn what_costs_more_than_a_bucket_holds_takes_a_full_one() {
        let mut pace = Pace::new(3, 1_000);
        assert!(pace.take_many(2, 10, 3, 1_000));
        assert!(!pace.take_many(2, 10, 3, 1_000), "one is left");
        assert!(!pace.take_many(9, 10, 3, 1_199));
        assert!(pace.take_many(9, 10, 3, 1_200));
        assert!(!pace.take(10, 3, 1_200));
    }
}
