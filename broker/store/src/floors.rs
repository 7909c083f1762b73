//! Up to where every queue is done with: what makes rows dead.
//!
//! One table per shard, written by the shard alone and only after the commit it rests on: session
//! or group → the seq up to which its entries are acknowledged *on disk*. A session that is not in
//! it has ended, and all its entries are void (ruling 9). Compactions ask it which rows may
//! vanish, readers where a queue begins. So a queue is emptied without one deletion being written.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldhash::HashMap;
use hoopoe_core::SessionId;
use parking_lot::RwLock;

use crate::keys;
use crate::kv::{Family, RowJudge};
use crate::rows;

/// The tables of all shards, and what the shards count.
#[derive(Debug)]
pub struct Floors {
    /// Empty until the number of shards is known: a store is opened with this table at hand and
    /// tells the number only then. Until then nothing is void.
    shards: OnceLock<Box<[ShardFloors]>>,
    /// Bytes of queue entries that died since the last reclaiming.
    dead_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct ShardFloors {
    /// False until the shard has read its sessions: before that nothing of it is void.
    loaded: AtomicBool,
    floors: RwLock<HashMap<SessionId, u64>>,
    totals: Totals,
}

/// What a shard counts, for metrics and for limits of the node.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) sessions: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) retained: AtomicU64,
    pub(crate) queued_messages: AtomicU64,
    pub(crate) queued_bytes: AtomicU64,
}

/// Sums over all shards.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Stored sessions, connected or not.
    pub sessions: u64,
    /// Shared groups.
    pub groups: u64,
    /// Retained messages.
    pub retained: u64,
    /// Messages waiting or unacknowledged in stored queues.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
}

impl Floors {
    /// Empty tables for `shards` shards.
    pub fn new(shards: u16) -> Floors {
        let floors = Floors::unsized_yet();
        floors.set_shards(shards);
        floors
    }

    /// A table whose number of shards will be told later.
    pub(crate) fn unsized_yet() -> Floors {
        Floors { shards: OnceLock::new(), dead_bytes: AtomicU64::new(0) }
    }

    /// Tells the number of shards. The first word counts.
    pub(crate) fn set_shards(&self, shards: u16) {
        self.shards.get_or_init(|| (0..shards.max(1)).map(|_| ShardFloors::default()).collect());
    }

    fn shards(&self) -> &[ShardFloors] {
        self.shards.get().map_or(&[], |shards| shards)
    }

    fn of(&self, session: SessionId) -> &ShardFloors {
        let shards = self.shards();
        &shards[session.slot().shard(shards.len())]
    }

    pub(crate) fn totals(&self, shard: u16) -> &Totals {
        &self.shards()[usize::from(shard)].totals
    }

    /// Sums over all shards.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for ShardFloors { totals, .. } in self.shards() {
            sum.sessions += totals.sessions.load(Ordering::Relaxed);
            sum.groups += totals.groups.load(Ordering::Relaxed);
            sum.retained += totals.retained.load(Ordering::Relaxed);
            sum.queued_messages += totals.queued_messages.load(Ordering::Relaxed);
            sum.queued_bytes += totals.queued_bytes.load(Ordering::Relaxed);
        }
        sum
    }

    /// Retained messages of all shards but one.
    pub(crate) fn retained_elsewhere(&self, shard: u16) -> u64 {
        let others = self.shards().iter().enumerate().filter(|(at, _)| *at != usize::from(shard));
        others.map(|(_, shard)| shard.totals.retained.load(Ordering::Relaxed)).sum()
    }

    /// A queue exists from now on. Called before its first row is written.
    pub(crate) fn insert(&self, session: SessionId, floor: u64) {
        self.of(session).floors.write().insert(session, floor);
    }

    /// Raises floors, after the commit that made them durable.
    pub(crate) fn raise(&self, shard: u16, floors: &[(SessionId, u64)]) {
        let mut table = self.shards()[usize::from(shard)].floors.write();
        for (session, floor) in floors {
            if let Some(known) = table.get_mut(session) {
                *known = (*known).max(*floor);
            }
        }
    }

    /// A queue is void, after the commit of its end.
    pub(crate) fn remove(&self, session: SessionId) {
        self.of(session).floors.write().remove(&session);
    }

    /// Forgets what is known of a shard: nothing of it is dead until [`loaded`](Self::loaded).
    /// Gives back what was known.
    pub(crate) fn unload(&self, shard: u16) -> HashMap<SessionId, u64> {
        let shard = &self.shards()[usize::from(shard)];
        shard.loaded.store(false, Ordering::Release);
        std::mem::take(&mut *shard.floors.write())
    }

    /// All queues of a shard are known.
    pub(crate) fn loaded(&self, shard: u16) {
        self.shards()[usize::from(shard)].loaded.store(true, Ordering::Release);
    }

    /// The seq up to which a queue is done with; `None` when it has ended. While its shard reads
    /// itself anew nothing is known to have ended: else a reader would take a queue for empty, and
    /// its connection would pass what is in it.
    pub fn floor(&self, session: SessionId) -> Option<u64> {
        let shard = self.of(session);
        // As in `is_done`.
        let table = shard.floors.read();
        let known = table.get(&session).copied();
        known.or_else(|| (!shard.loaded.load(Ordering::Acquire)).then_some(0))
    }

    /// Counts bytes of entries that died.
    pub(crate) fn add_dead(&self, bytes: u64) {
        self.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of entries that died since the last `take_dead`.
    pub fn dead_bytes(&self) -> u64 {
        self.dead_bytes.load(Ordering::Relaxed)
    }

    /// Starts counting anew.
    pub(crate) fn take_dead(&self) -> u64 {
        self.dead_bytes.swap(0, Ordering::Relaxed)
    }

    fn is_done(&self, session: SessionId, seq: u64) -> bool {
        if self.shards().is_empty() {
            return false;
        }
        let shard = self.of(session);
        // The flag is read while the table is held: `unload` clears the table only after it has
        // taken the flag away.
        let table = shard.floors.read();
        let known = table.get(&session).copied();
        shard.loaded.load(Ordering::Acquire) && known.is_none_or(|floor| seq <= floor)
    }
}

impl RowJudge for Floors {
    fn is_dead(&self, family: Family, key: &[u8], value: &[u8]) -> bool {
        match family {
            Family::Queue => {
                keys::queue_of(key).is_some_and(|(session, seq)| self.is_done(session, seq))
            }
            // A row that cannot be read is kept: reading it will name it.
            Family::Body => rows::body_fan_out(value).is_ok_and(|mut list| {
                list.all(|entry| entry.is_ok_and(|(session, seq)| self.is_done(session, seq)))
            }),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use hoopoe_codec::QoS;
    use hoopoe_core::{PublicationParts, Slot};

    use super::*;

    fn body(list: &[(SessionId, u64)]) -> Vec<u8> {
        let publication = PublicationParts {
            topic: "t",
            properties: &[],
            payload: b"p",
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at_ms: None,
        };
        let mut row = Vec::new();
        rows::put_body(&mut row, &publication.to_publication(), list);
        row
    }

    #[test]
    fn nothing_is_dead_before_its_shard_is_loaded() {
        let floors = Floors::new(2);
        let id = SessionId::new(Slot::of(b"a"), 1);
        let dead = |floors: &Floors| floors.is_dead(Family::Queue, &keys::queue(id, 5), b"");
        assert!(!dead(&floors));
        floors.loaded(id.slot().shard(2) as u16);
        assert!(dead(&floors), "an unknown session has ended");
        floors.insert(id, 4);
        assert!(!dead(&floors));
        floors.raise(id.slot().shard(2) as u16, &[(id, 5), (SessionId(1), 9)]);
        assert!(dead(&floors));
        floors.unload(id.slot().shard(2) as u16);
        assert!(!dead(&floors));
    }

    #[test]
    fn no_queue_has_ended_before_its_shard_is_loaded() {
        let floors = Floors::new(2);
        let id = SessionId::new(Slot::of(b"a"), 1);
        let shard = id.slot().shard(2) as u16;
        floors.insert(id, 4);
        floors.loaded(shard);
        assert_eq!(floors.floor(id), Some(4));
        floors.unload(shard);
        assert_eq!(floors.floor(id), Some(0), "read from the start rather than passed");
        floors.loaded(shard);
        assert_eq!(floors.floor(id), None, "it has ended");
    }

    #[test]
    fn a_body_dies_with_the_last_of_its_entries() {
        let floors = Floors::new(1);
        floors.loaded(0);
        let (a, b) = (SessionId::new(Slot::of(b"a"), 1), SessionId::new(Slot::of(b"b"), 1));
        floors.insert(a, 0);
        floors.insert(b, 0);
        let row = body(&[(a, 3), (b, 8)]);
        let dead = |floors: &Floors| floors.is_dead(Family::Body, &keys::body(1), &row);
        floors.raise(0, &[(a, 3)]);
        assert!(!dead(&floors));
        floors.remove(b);
        assert!(dead(&floors));
        assert!(!floors.is_dead(Family::Body, &keys::body(1), &row[..row.len() - 1]));
    }
}
