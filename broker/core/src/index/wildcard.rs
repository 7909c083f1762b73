//! Filters with wildcards, partitioned by the literal levels they begin with.
//!
//! Owns the partitions (a trie behind a lock each) and their generations. A filter belongs to one
//! of three kinds: it starts with a wildcard (one partition), only its first level is literal, or
//! its first two levels are (`users/17/#`: the usual kind, one per connected user, and the reason
//! for looking at two levels: a user who comes or goes leaves the stamps of the others alone). A
//! topic is looked up in at most three partitions, and empty ones are not locked.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::hash::{self, FIRST_LEVELS, LEVEL_PAIRS, Prefix};
use super::subscribers::Entry;
use super::trie::Trie;
use super::{SubscriberId, Totals};

/// Partitions for filters with two or more literal levels. Fewer than generations: a partition
/// takes two cache lines, a generation eight bytes.
const PAIR_PARTITIONS: usize = 256;

/// The generations that concern one topic, one of each kind of filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WildcardStamp {
    any: u64,
    first: u64,
    pair: u64,
}

/// A trie and how many filters it holds.
#[repr(align(64))]
struct Partition<S> {
    /// Written under the lock, read without: zero saves a match the lock. A change is counted
    /// before its generation is bumped, so who has seen the generation sees the count.
    filters: AtomicUsize,
    trie: RwLock<Trie<S>>,
}

/// A generation on a cache line of its own: every stamp reads this one.
#[repr(align(64))]
struct AnyGeneration(AtomicU64);

pub(super) struct WildcardFilters<S> {
    any: Box<Partition<S>>,
    any_generation: Box<AnyGeneration>,
    first: Box<[Partition<S>]>,
    first_generations: Box<[AtomicU64]>,
    pair: Box<[Partition<S>]>,
    pair_generations: Box<[AtomicU64]>,
}

impl<S> WildcardFilters<S> {
    pub(super) fn new() -> Self {
        let generations = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            any: Box::default(),
            any_generation: Box::new(AnyGeneration(AtomicU64::new(0))),
            first: (0..FIRST_LEVELS).map(|_| Partition::default()).collect(),
            first_generations: generations(FIRST_LEVELS),
            pair: (0..PAIR_PARTITIONS).map(|_| Partition::default()).collect(),
            pair_generations: generations(LEVEL_PAIRS),
        }
    }

    pub(super) fn insert(
        &self,
        prefix: Prefix,
        filter: &str,
        entry: Entry<S>,
        totals: &Totals,
    ) -> Option<S> {
        let (partition, generation) = self.part(prefix);
        let mut trie = partition.trie.write();
        let list = trie.list_or_default(filter);
        let is_first = list.is_empty();
        let replaced = list.insert(entry);
        if replaced.is_none() {
            totals.subscribed(is_first);
        }
        if is_first {
            partition.filters.fetch_add(1, Ordering::Relaxed);
        }
        // Last, and under the lock: see the module documentation of the index.
        generation.fetch_add(1, Ordering::Release);
        replaced
    }

    pub(super) fn remove(
        &self,
        prefix: Prefix,
        filter: &str,
        subscriber: SubscriberId,
        totals: &Totals,
    ) -> Option<S> {
        let (partition, generation) = self.part(prefix);
        let mut trie = partition.trie.write();
        let list = trie.list_mut(filter)?;
        let removed = list.remove(subscriber)?;
        let is_last = list.is_empty();
        if is_last {
            trie.prune(filter);
            partition.filters.fetch_sub(1, Ordering::Relaxed);
        }
        totals.unsubscribed(is_last);
        // Last, and under the lock: see the module documentation of the index.
        generation.fetch_add(1, Ordering::Release);
        Some(removed)
    }

    /// Matches `topic`, with filters that start with a wildcard only if `wildcard_first`.
    pub(super) fn matches(
        &self,
        hash: u64,
        topic: &str,
        wildcard_first: bool,
        each: &mut impl FnMut(SubscriberId, &S),
    ) {
        self.pair[hash::level_pair(hash) % PAIR_PARTITIONS].matches(topic, each);
        self.first[hash::first_level(hash)].matches(topic, each);
        if wildcard_first {
            self.any.matches(topic, each);
        }
    }

    pub(super) fn stamp(&self, topic_hash: u64) -> WildcardStamp {
        // Acquire: the match that follows sees the changes these generations count.
        let first = &self.first_generations[hash::first_level(topic_hash)];
        let pair = &self.pair_generations[hash::level_pair(topic_hash)];
        WildcardStamp {
            any: self.any_generation.0.load(Ordering::Acquire),
            first: first.load(Ordering::Acquire),
            pair: pair.load(Ordering::Acquire),
        }
    }

    fn part(&self, prefix: Prefix) -> (&Partition<S>, &AtomicU64) {
        match prefix {
            Prefix::None => (&self.any, &self.any_generation.0),
            Prefix::First(level) => (&self.first[level], &self.first_generations[level]),
            Prefix::Pair(pair) => {
                (&self.pair[pair % PAIR_PARTITIONS], &self.pair_generations[pair])
            }
        }
    }
}

impl<S> Default for Partition<S> {
    fn default() -> Self {
        Self { filters: AtomicUsize::new(0), trie: RwLock::default() }
    }
}

impl<S> Partition<S> {
    fn matches(&self, topic: &str, each: &mut impl FnMut(SubscriberId, &S)) {
        if self.filters.load(Ordering::Relaxed) > 0 {
            self.trie.read().matches(topic, each);
        }
    }
}

#[cfg(test)]
impl<S> WildcardFilters<S> {
    /// Whether no partition holds a node any more.
    pub(super) fn is_pruned(&self) -> bool {
        let partitions = self.first.iter().chain(&self.pair).chain([&*self.any]);
        partitions.into_iter().all(|partition| {
            partition.filters.load(Ordering::Relaxed) == 0 && partition.trie.read().is_empty()
        })
    }
}
