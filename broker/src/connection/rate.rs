//! Publish rate limits of one client: two token buckets, messages and bytes.

/// A bucket that holds at most one second's worth.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    per_sec: u64,
    /// Thousandths of a token.
    milli: u64,
}

impl Bucket {
    fn new(per_sec: u64) -> Bucket {
        Bucket { per_sec, milli: per_sec * 1000 }
    }

    fn refill(&mut self, elapsed_ms: u64) {
        let added = elapsed_ms.saturating_mul(self.per_sec);
        self.milli = self.milli.saturating_add(added).min(self.per_sec * 1000);
    }

    /// A full bucket lets any single amount through, so that a message above the rate is possible.
    fn take(&mut self, amount: u64) -> bool {
        let cost = (amount * 1000).min(self.per_sec * 1000);
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
    pub fn new(messages_per_sec: u64, bytes_per_sec: u64, now_ms: u64) -> Option<Rate> {
        (messages_per_sec > 0 || bytes_per_sec > 0).then(|| Rate {
            messages: Bucket::new(messages_per_sec),
            bytes: Bucket::new(bytes_per_sec),
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
    fn a_second_holds_the_rate_and_no_more() {
        let mut rate = Rate::new(3, 0, 1000).unwrap();
        assert_eq!([true, true, true, false], std::array::from_fn(|_| rate.take(1, 1000)));
        assert!(!rate.take(1, 1100));
        assert!(rate.take(1, 1400));
        assert!(Rate::new(0, 0, 0).is_none());
    }

    #[test]
    fn a_message_above_the_byte_rate_passes_a_full_bucket() {
        let mut rate = Rate::new(0, 100, 0).unwrap();
        assert!(rate.take(5000, 0));
        assert!(!rate.take(1, 5));
        assert!(rate.take(50, 1000));
    }
}
