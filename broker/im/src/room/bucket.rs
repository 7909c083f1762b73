//! A token bucket in eight bytes, for what one sender may send.

/// Tokens and the moment of the last look. The moment keeps the low 32 bits of ms since the
/// epoch: after 49 days of silence a bucket may be fuller by less than it could be.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    milli: u32,
    at: u32,
}

/// Milliseconds between two moments in their low 32 bits; 0 when time went back.
pub fn elapsed_ms(from: u32, to: u32) -> u32 {
    let elapsed = to.wrapping_sub(from);
    if elapsed > u32::MAX / 2 { 0 } else { elapsed }
}

/// Thousandths of a token after `elapsed` ms at `per_sec`, at most those of `burst` tokens.
pub fn refilled(milli: u32, elapsed: u32, per_sec: u32, burst: u32) -> u32 {
    let full = burst.saturating_mul(1000);
    milli.saturating_add(elapsed.saturating_mul(per_sec)).min(full)
}

impl Bucket {
    /// A full one.
    pub fn full(burst: u32, now_ms: u64) -> Bucket {
        Bucket { milli: burst.saturating_mul(1000), at: now_ms as u32 }
    }

    /// Takes one token; false when there is none. A rate of 0 is no limit.
    pub fn take(&mut self, per_sec: u32, burst: u32, now_ms: u64) -> bool {
        if per_sec == 0 {
            return true;
        }
        let now = now_ms as u32;
        self.milli = refilled(self.milli, elapsed_ms(self.at, now), per_sec, burst);
        self.at = now;
        let enough = self.milli >= 1000;
        if enough {
            self.milli -= 1000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = u64::from(u32::MAX) - 100;
        let mut bucket = Bucket::full(5, start);
        let mut taken =
            |from: u64, to: u64| (from..to).filter(|at| bucket.take(2, 5, start + at)).count();
        assert_eq!(taken(0, 1), 1);
        assert_eq!(taken(1, 20), 4, "the burst");
        assert_eq!(taken(20, 10_001), 20, "two a second, also where the moment's bits wrap");
    }

    #[test]
    fn a_clock_set_back_gives_nothing() {
        let mut bucket = Bucket::full(1, 10_000);
        assert!(bucket.take(1, 1, 10_000));
        assert!(!bucket.take(1, 1, 2_000));
        assert!(!bucket.take(1, 1, 2_900));
        assert!(bucket.take(1, 1, 3_000));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let mut bucket = Bucket::full(0, 0);
        assert!((0..1000).all(|_| bucket.take(0, 0, 0)));
    }
}
