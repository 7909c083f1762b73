//! Publish rate limits of one client: two token buckets, messages and bytes.

use super::Limits;

/// A bucket that holds at most so many seconds' worth.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    per_sec: u64,
    /// What it holds when full, in thousandths of a token.
    full: u64,
    /// Thousandths of a token.
    milli: u64,
}

impl Bucket {
    fn new(per_sec: u64, burst_secs: u64) -> Bucket {
        let full = per_sec.saturating_mul(burst_secs).saturating_mul(1000);
        Bucket { per_sec, full, milli: full }
    }

    fn refill(&mut self, elapsed_ms: u64) {
        let added = elapsed_ms.saturating_mul(self.per_sec);
        self.milli = self.milli.saturating_add(added).min(self.full);
    }

    /// A full bucket lets any single amount through, so that a message above the rate is possible.
    fn take(&mut self, amount: u64) -> bool {
        let cost = amount.saturating_mul(1000).min(self.full);
        let enough = self.per_sec == 0 || self.milli >= cost;
        if enough && self.per_sec > 0 {
            self.milli -= cost;
        }
        enough
    }
}

/// Messages and bytes per second; 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    messages: Bucket,
    bytes: Bucket,
    refilled_ms: u64,
}

impl Rate {
    /// Full buckets; `None` when neither limit is set.
    pub fn new(limits: &Limits, now_ms: u64) -> Option<Rate> {
        let (messages, bytes) = (limits.publish_rate, limits.publish_bytes_rate);
        Rate::of(messages, bytes, limits.burst_secs, now_ms)
    }

    fn of(messages: u64, bytes: u64, burst_secs: u64, now_ms: u64) -> Option<Rate> {
        (messages > 0 || bytes > 0).then(|| Rate {
            messages: Bucket::new(messages, burst_secs),
            bytes: Bucket::new(bytes, burst_secs),
            refilled_ms: now_ms,
        })
    }

    /// One message of `bytes`; false when it is above the rate.
    pub fn take(&mut self, bytes: usize, now_ms: u64) -> bool {
        let elapsed = now_ms.saturating_sub(self.refilled_ms);
        self.refilled_ms = self.refilled_ms.max(now_ms);
        self.messages.refill(elapsed);
        self.bytes.refill(elapsed);
        self.messages.take(1) && self.bytes.take(bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_holds_the_burst_and_no_more() {
        let mut rate = Rate::of(3, 0, 1, 1000).unwrap();
        assert_eq!([true, true, true, false], std::array::from_fn(|_| rate.take(1, 1000)));
        assert!(!rate.take(1, 1100));
        assert!(rate.take(1, 1400));
        assert!(Rate::of(0, 0, 1, 0).is_none());
    }

    #[test]
    fn a_message_above_the_byte_rate_passes_a_full_bucket() {
        let mut rate = Rate::of(0, 100, 1, 0).unwrap();
        assert!(rate.take(5000, 0));
        assert!(!rate.take(1, 5));
        assert!(rate.take(50, 1000));
    }
}
