//! How much of the conversations' files is dead: what retention has taken still lies on the disk
//! until files are merged. When more is dead than alive, a background task merges them all.

use std::sync::atomic::{AtomicU64, Ordering};

use hoopoe_store::store::RECLAIM_MIN_BYTES;

/// What the shards' sweeps have told.
#[derive(Debug)]
pub struct LogSpace {
    dead: AtomicU64,
    alive: Box<[AtomicU64]>,
    entries: AtomicU64,
}

impl LogSpace {
    pub(super) fn new(shards: u16) -> LogSpace {
        LogSpace {
            dead: AtomicU64::new(0),
            alive: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            entries: AtomicU64::new(0),
        }
    }

    /// Retention has taken entries.
    pub(super) fn swept(&self, entries: u64, bytes: u64) {
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.dead.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A shard has seen all its conversations.
    pub(super) fn walked(&self, shard: u16, alive_bytes: u64) {
        if let Some(alive) = self.alive.get(usize::from(shard)) {
            alive.store(alive_bytes, Ordering::Relaxed);
        }
    }

    /// Entries that retention has taken since the start.
    pub fn entries_taken(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Whether it is worth it to merge the files now. What is dead counts anew from here.
    pub fn take_due(&self) -> bool {
        let alive: u64 = self.alive.iter().map(|alive| alive.load(Ordering::Relaxed)).sum();
        let due = self.dead.load(Ordering::Relaxed) > RECLAIM_MIN_BYTES.max(alive);
        if due {
            self.dead.store(0, Ordering::Relaxed);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_merged_when_more_is_dead_than_alive() {
        let space = LogSpace::new(2);
        space.swept(1, RECLAIM_MIN_BYTES);
        assert!(!space.take_due(), "too little");
        space.walked(1, 2 * RECLAIM_MIN_BYTES);
        space.swept(1, RECLAIM_MIN_BYTES);
        assert!(!space.take_due(), "as much is alive");
        space.swept(1, 1);
        assert!(space.take_due());
        assert!(!space.take_due(), "counted anew");
        assert_eq!(space.entries_taken(), 3);
    }
}
