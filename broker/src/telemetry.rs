//! What the broker counts, and `$SYS`, which tells it to clients.
//!
//! Each worker and shard counts into atomics of its own, which nobody else writes: counting costs
//! a plain addition. Whoever reports (metrics, `$SYS`, `/ready`) adds them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hoopoe_codec::{QoS, topic_matches};
use hoopoe_core::Publication;
use parking_lot::RwLock;

/// A number that one thread changes and all may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Subtracts; only the owning thread may.
    pub fn sub(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Relaxed);
    }

    /// Sets; only the owning thread may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a message was not sent to a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Dropped {
    /// QoS 0, and the receiver's buffer is full.
    FullBuffer,
    /// Larger than the receiver's Maximum Packet Size.
    TooLarge,
    /// Its Message Expiry Interval is over.
    Expired,
    /// The receiver was so slow that it was disconnected; what it had waiting is gone.
    SlowReceiver,
    /// A stored queue was full: its oldest message made room.
    QueueFull,
}

impl Dropped {
    /// All reasons, with the word that metrics use for each.
    pub const ALL: [(Dropped, &'static str); 5] = [
        (Dropped::FullBuffer, "full_buffer"),
        (Dropped::TooLarge, "too_large"),
        (Dropped::Expired, "expired"),
        (Dropped::SlowReceiver, "slow_receiver"),
        (Dropped::QueueFull, "queue_full"),
    ];
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Connections open.
    pub connections: Counter,
    /// Clients connected.
    pub sessions: Counter,
    /// CONNECT packets read.
    pub connects: Counter,
    /// CONNECT packets refused.
    pub refused_connects: Counter,
    /// Connections ended for a malformed or illegal packet.
    pub faults: Counter,
    /// DISCONNECT packets the server sent (5.0) or would have (3.1.1).
    pub disconnects_sent: Counter,
    /// Clients not heard for one and a half keep-alives.
    pub keep_alive_timeouts: Counter,
    /// Publications refused.
    pub refused_publications: Counter,
    /// Packets read.
    pub packets_in: Counter,
    /// Packets written, PUBLISH not included.
    pub packets_out: Counter,
    /// Bytes read from sockets.
    pub bytes_in: Counter,
    /// MQTT bytes given to sockets.
    pub bytes_out: Counter,
    publications_in: [Counter; 3],
    publications_out: [Counter; 3],
    dropped: [Counter; Dropped::ALL.len()],
}

impl WorkerCounters {
    /// A PUBLISH was read.
    pub fn publish_in(&self, qos: QoS) {
        self.publications_in[qos as usize].add(1);
    }

    /// A PUBLISH was written.
    pub fn publish_out(&self, qos: QoS) {
        self.publications_out[qos as usize].add(1);
    }

    /// A copy was not sent.
    pub fn dropped(&self, reason: Dropped) {
        self.dropped[reason as usize].add(1);
    }

    /// PUBLISH packets read, by QoS.
    pub fn published_in(&self, qos: QoS) -> u64 {
        self.publications_in[qos as usize].get()
    }

    /// PUBLISH packets written, by QoS.
    pub fn published_out(&self, qos: QoS) -> u64 {
        self.publications_out[qos as usize].get()
    }

    /// Copies not sent, by reason.
    pub fn drops(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize].get()
    }
}

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
    fn new(bounds: &'static [u64; N]) -> Buckets<N> {
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

/// What one shard counts.
#[derive(Debug)]
pub struct ShardCounters {
    /// Commits.
    pub commits: Counter,
    /// Commits that failed.
    pub failed_commits: Counter,
    /// Times the store was opened anew in the process.
    pub reopened: Counter,
    /// Messages dropped from full queues.
    pub overflowed: Counter,
    /// Time from the first command of a batch to the end of its commit, in microseconds.
    pub commit_micros: Buckets<10>,
    /// Commands per batch.
    pub batch_commands: Buckets<8>,
    /// False while the store takes no writes.
    pub writable: AtomicBool,
}

impl Default for ShardCounters {
    fn default() -> Self {
        ShardCounters {
            commits: Counter::default(),
            failed_commits: Counter::default(),
            reopened: Counter::default(),
            overflowed: Counter::default(),
            commit_micros: Buckets::new(&COMMIT_MICROS),
            batch_commands: Buckets::new(&BATCH_COMMANDS),
            writable: AtomicBool::new(true),
        }
    }
}

/// All counters of the node.
#[derive(Debug)]
pub struct Telemetry {
    /// By worker.
    pub workers: Vec<Arc<WorkerCounters>>,
    /// By shard.
    pub shards: Vec<Arc<ShardCounters>>,
}

impl Telemetry {
    /// Counters at zero.
    pub fn new(workers: usize, shards: usize) -> Telemetry {
        Telemetry {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            shards: (0..shards).map(|_| Arc::default()).collect(),
        }
    }

    /// The sum of one counter over all workers.
    pub fn sum(&self, counter: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.workers.iter().map(|worker| counter(worker)).fold(0, u64::wrapping_add)
    }

    /// True while every shard's store takes writes.
    pub fn writable(&self) -> bool {
        self.shards.iter().all(|shard| shard.writable.load(Ordering::Acquire))
    }
}

/// The values of `$SYS`, retained in memory only.
#[derive(Debug, Default)]
pub struct SystemTopics {
    values: RwLock<BTreeMap<Box<str>, Arc<Publication>>>,
}

impl SystemTopics {
    /// Replaces a value.
    pub fn put(&self, publication: Arc<Publication>) {
        self.values.write().insert(publication.topic().into(), publication);
    }

    /// The values that a filter matches.
    pub fn matching(&self, filter: &str) -> Vec<Arc<Publication>> {
        let values = self.values.read();
        let matching = values.iter().filter(|(topic, _)| topic_matches(filter, topic));
        matching.map(|(_, publication)| publication.clone()).collect()
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

    #[test]
    fn drops_are_counted_by_reason() {
        let counters = WorkerCounters::default();
        counters.dropped(Dropped::TooLarge);
        for (reason, word) in Dropped::ALL {
            assert_eq!(counters.drops(reason), u64::from(word == "too_large"));
        }
    }
}
