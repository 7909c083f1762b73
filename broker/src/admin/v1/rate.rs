//! How many requests one user or address may make: a table of token buckets of fixed size, as for
//! connections (`transport::connect_rate`): whoever is new to a full set takes over the fullest
//! bucket with its level.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use parking_lot::Mutex;

/// Sets in the table; a power of two.
const SETS: usize = 2048;
/// Buckets per set.
const BUCKETS_PER_SET: usize = 4;

/// How many requests.
#[derive(Clone, Copy, Debug)]
pub struct RequestRate {
    /// Per second in the long run, at least 1.
    pub per_sec: u32,
    /// At once after a pause, at least 1.
    pub burst: u32,
}

/// One bucket: the time at which it would be full again.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Hash of whose it is; 0 marks a bucket never used.
    owner: u64,
    full_at_micros: u64,
}

/// The rates of all who ask.
#[derive(Debug)]
pub struct RequestRates {
    sets: Mutex<Vec<[Bucket; BUCKETS_PER_SET]>>,
    // Keyed at random, so that nobody can choose names that share a set.
    hasher: RandomState,
    interval_micros: u64,
    tolerance_micros: u64,
}

impl RequestRates {
    /// A table in which everybody may ask at this rate.
    pub fn new(rate: RequestRate) -> RequestRates {
        let interval_micros = 1_000_000 / u64::from(rate.per_sec.max(1));
        RequestRates {
            sets: Mutex::new(vec![Default::default(); SETS]),
            hasher: RandomState::new(),
            interval_micros,
            tolerance_micros: interval_micros * u64::from(rate.burst.max(1) - 1),
        }
    }

    /// Whether they may ask now; if so, it is charged. `now` counts from any fixed moment.
    pub fn admit(&self, now: Duration, who: &impl Hash) -> bool {
        let now_micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let owner = self.hasher.hash_one(who).max(1);
        let mut sets = self.sets.lock();
        let set = &mut sets[owner as usize % SETS];
        let place = set.iter().position(|bucket| bucket.owner == owner).unwrap_or_else(|| {
            let fullest = (0..BUCKETS_PER_SET).min_by_key(|place| set[*place].full_at_micros);
            fullest.unwrap_or_default()
        });
        let bucket = &mut set[place];
        bucket.owner = owner;
        let full_at = bucket.full_at_micros.max(now_micros);
        if full_at - now_micros > self.tolerance_micros {
            return false;
        }
        bucket.full_at_micros = full_at.saturating_add(self.interval_micros);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rates = RequestRates::new(RequestRate { per_sec: 10, burst: 3 });
        let at = |ms: u64| Duration::from_millis(1_000_000 + ms);
        let admitted = |ms: u64| rates.admit(at(ms), &"alice");
        assert_eq!([0, 0, 0, 0].map(admitted), [true, true, true, false]);
        assert!(rates.admit(at(0), &"bob"));
        assert_eq!([99, 100, 100, 200].map(admitted), [false, true, false, true]);
        assert_eq!([9_000, 9_000, 9_000, 9_000].map(admitted), [true, true, true, false]);
    }
}
