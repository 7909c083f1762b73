//! The counters: atomics that one thread changes and all may read.
//!
//! Owned by the worker or shard that counts. What they are called outside, and when they are read,
//! is decided in the modules beside this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hoopoe_codec::QoS;

use super::buckets::{BATCH_COMMANDS, Buckets, COMMIT_MICROS};

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
    /// A room has more to say than one receiver gets.
    Shaped,
}

impl Dropped {
    /// All reasons, with the word that metrics use for each.
    pub const ALL: [(Dropped, &'static str); 6] = [
        (Dropped::FullBuffer, "full_buffer"),
        (Dropped::TooLarge, "too_large"),
        (Dropped::Expired, "expired"),
        (Dropped::SlowReceiver, "slow_receiver"),
        (Dropped::QueueFull, "queue_full"),
        (Dropped::Shaped, "shaped"),
    ];
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Connections open.
    pub connections: Counter,
    /// Clients connected.
    pub sessions: Counter,
    /// Clients connected whose sessions are stored.
    pub stored_sessions: Counter,
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
    /// Payload bytes of the PUBLISH packets read.
    pub payload_bytes_in: Counter,
    /// Payload bytes of the PUBLISH packets written.
    pub payload_bytes_out: Counter,
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

    /// So many copies were not sent.
    pub fn dropped_many(&self, reason: Dropped, copies: u64) {
        self.dropped[reason as usize].add(copies);
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

    /// PUBLISH packets read, all QoS.
    pub fn publications_in(&self) -> u64 {
        self.sum(|worker| worker.publications_in.iter().map(Counter::get).sum())
    }

    /// PUBLISH packets written, all QoS.
    pub fn publications_out(&self) -> u64 {
        self.sum(|worker| worker.publications_out.iter().map(Counter::get).sum())
    }

    /// Packets written, PUBLISH included.
    pub fn packets_out(&self) -> u64 {
        self.sum(|worker| worker.packets_out.get()) + self.publications_out()
    }

    /// Copies not sent, by reason; what shards dropped from stored queues included.
    pub fn drops(&self, reason: Dropped) -> u64 {
        let overflowed = match reason {
            Dropped::QueueFull => self.shards.iter().map(|shard| shard.overflowed.get()).sum(),
            _ => 0,
        };
        self.sum(|worker| worker.drops(reason)) + overflowed
    }

    /// Copies not sent, for whatever reason.
    pub fn all_drops(&self) -> u64 {
        Dropped::ALL.iter().map(|(reason, _)| self.drops(*reason)).sum()
    }

    /// True while every shard's store takes writes.
    pub fn writable(&self) -> bool {
        self.unwritable_shards().next().is_none()
    }

    /// The numbers of the shards whose store takes no writes.
    pub fn unwritable_shards(&self) -> impl Iterator<Item = usize> {
        let writable = |shard: &ShardCounters| shard.writable.load(Ordering::Acquire);
        let shards = self.shards.iter().enumerate();
        shards.filter(move |(_, shard)| !writable(shard)).map(|(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_by_reason() {
        let counters = WorkerCounters::default();
        counters.dropped(Dropped::TooLarge);
        for (reason, word) in Dropped::ALL {
            assert_eq!(counters.drops(reason), u64::from(word == "too_large"));
        }
    }

    #[test]
    fn full_queues_are_counted_by_shards() {
        let telemetry = Telemetry::new(2, 2);
        telemetry.shards[1].overflowed.add(3);
        telemetry.workers[0].dropped(Dropped::QueueFull);
        telemetry.workers[1].dropped(Dropped::Expired);
        assert_eq!(telemetry.drops(Dropped::QueueFull), 4);
        assert_eq!(telemetry.all_drops(), 5);
    }

    #[test]
    fn shards_that_take_no_writes_are_named() {
        let telemetry = Telemetry::new(1, 4);
        assert!(telemetry.writable());
        telemetry.shards[2].writable.store(false, Ordering::Release);
        assert!(!telemetry.writable());
        assert_eq!(telemetry.unwritable_shards().collect::<Vec<_>>(), [2]);
    }
}
