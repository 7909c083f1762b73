//! Filters without wildcards: each matches the one topic it spells.
//!
//! Owns the shards (hash maps behind locks) and the generations of these filters. Generations are
//! kept apart from the shards, in arrays that only changes write to, so that reading a stamp does
//! not touch memory that matching workers lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::hash::{self, BUCKETS, SHARDS};
use super::subscribers::{Entry, Subscribers};
use super::{SubscriberId, Totals};

/// Maps of up to this capacity are not worth shrinking.
const SHRINK_ABOVE: usize = 256;

type Filters<S> = HashMap<Box<str>, Subscribers<S>, RandomState>;

/// On a cache line of its own, so that locking one shard does not slow its neighbours.
#[repr(align(64))]
struct Shard<S>(RwLock<Filters<S>>);

pub(super) struct ExactFilters<S> {
    shards: Box<[Shard<S>]>,
    generations: Box<[AtomicU64]>,
}

impl<S> ExactFilters<S> {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard(RwLock::default())).collect(),
            generations: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn insert(
        &self,
        hash: u64,
        filter: &str,
        entry: Entry<S>,
        totals: &Totals,
    ) -> Option<S> {
        let mut filters = self.shards[hash::shard(hash)].0.write();
        let replaced = if let Some(list) = filters.get_mut(filter) {
            let replaced = list.insert(entry);
            if replaced.is_none() {
                totals.subscribed(false);
            }
            replaced
        } else {
            filters.insert(filter.into(), Subscribers::One(entry));
            totals.subscribed(true);
            None
        };
        self.changed(hash);
        replaced
    }

    pub(super) fn remove(
        &self,
        hash: u64,
        filter: &str,
        subscriber: SubscriberId,
        totals: &Totals,
    ) -> Option<S> {
        let mut filters = self.shards[hash::shard(hash)].0.write();
        let list = filters.get_mut(filter)?;
        let removed = list.remove(subscriber)?;
        let is_last = list.is_empty();
        if is_last {
            filters.remove(filter);
            // Once seven eighths are unused, so the cost per removal is constant on average.
            if filters.capacity() > SHRINK_ABOVE && filters.len() <= filters.capacity() / 8 {
                let room = filters.len() * 2;
                filters.shrink_to(room);
            }
        }
        totals.unsubscribed(is_last);
        self.changed(hash);
        Some(removed)
    }

    pub(super) fn matches(&self, hash: u64, topic: &str, each: &mut impl FnMut(SubscriberId, &S)) {
        if let Some(list) = self.shards[hash::shard(hash)].0.read().get(topic) {
            list.for_each(each);
        }
    }

    pub(super) fn generation(&self, topic_hash: u64) -> u64 {
        // Acquire: the match that follows sees the changes this generation counts.
        self.generations[hash::bucket(topic_hash)].load(Ordering::Acquire)
    }

    /// Called after the change, under the shard's write lock.
    fn changed(&self, hash: u64) {
        self.generations[hash::bucket(hash)].fetch_add(1, Ordering::Release);
    }
}
