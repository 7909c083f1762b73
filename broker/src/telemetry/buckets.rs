//! Histograms of what a shard commits.

use super::Counter;

/// Upper bounds of the commit-latency buckets, in microseconds.
pub const COMMIT_MICROS: [u64; 10] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000];
/// Upper bounds of the batch-size buckets, in commands.
pub const BATCH_COMMANDS: [u64; 8] = [1, 4, 16, 64, 256, 1_024, 4_096, 16_384];

/// How often values fell into which bucket; the last bucket takes what is above all bounds.
#[derive(Debug)]
pub struct Buckets<const N: usize> {
    bounds: &'static [u64; N],
    counts: [Counter; N],
    above: Counter,
    sum: Counter,
}

impl<const N: usize> Buckets<N> {
    pub(super) fn new(bounds: &'static [u64; N]) -> Buckets<N> {
        Buckets {
            bounds,
            counts: std::array::from_fn(|_| Counter::default()),
            above: Counter::default(),
            sum: Counter::default(),
        }
    }

    /// Counts one value; only the owning thread may.
    pub fn record(&self, value: u64) {
        self.sum.add(value);
        match self.bounds.iter().position(|bound| value <= *bound) {
            Some(at) => self.counts[at].add(1),
            None => self.above.add(1),
        }
    }

    /// Bounds with the number of values at or below each, then the total and the sum.
    pub fn cumulative(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut total = 0;
        let counted = self.bounds.iter().zip(&self.counts).map(|(bound, count)| {
            total += count.get();
            (*bound, total)
        });
        let counted = counted.collect();
        (counted, total + self.above.get(), self.sum.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_up_to_and_including_their_bound() {
        let buckets = Buckets::new(&[1, 10]);
        for value in [1, 2, 10, 11] {
            buckets.record(value);
        }
        assert_eq!(buckets.cumulative(), (vec![(1, 1), (10, 3)], 4, 24));
    }
}
