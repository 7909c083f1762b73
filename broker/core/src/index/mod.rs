//! The subscription index: from a topic to the subscriptions it matches.
//!
//! It is the one structure all workers share, and it is read far more often than written. Exact
//! filters live in sharded hash maps (`exact`), filters with wildcards in tries partitioned by
//! their literal beginning (`wildcard`, `trie`); both hold lists of subscribers
//! (`subscribers`). Every part has generations, from which a [`Stamp`] is made, so that a worker
//! can keep the result of a match and reuse it for as long as nothing relevant changed.
//!
//! Deliberately not here: validation of filters, shared subscriptions (the caller strips `$share`
//! and its group and encodes the group in the value), retained messages, access rules, and what a
//! subscription means (QoS, options, identifiers: all of it is the caller's value `S`).
//!
//! # Keeping the result of a match
//!
//! ```
//! # use hoopoe_core::index::{Index, Stamp};
//! # let index: Index<u8> = Index::new();
//! # index.insert("a/b", 1, 0);
//! # let topic = "a/b";
//! # let mut plan: Option<(Stamp, Vec<(u64, u8)>)> = None;
//! let stamp = index.stamp(Index::<u8>::hash(topic)); // 1. the stamp, always first
//! if plan.as_ref().is_none_or(|(made_at, _)| *made_at != stamp) {
//!     let mut receivers = Vec::new();
//!     index.matches(topic, |subscriber, value| receivers.push((subscriber, *value))); // 2.
//!     plan = Some((stamp, receivers)); // 3. kept under the stamp of step 1
//! }
//! # assert_eq!(plan.unwrap().1, [(1, 0)]);
//! ```
//!
//! The stamp is read *before* the match and the result is kept under that stamp, never under one
//! read afterwards. A kept result whose stamp equals the stamp read now contains every change that
//! was complete (`insert` or `remove` had returned, and the reader learned of it in whatever way)
//! before the stamp was read now. Why:
//!
//! * A writer changes the index, then bumps the generation with `Release`, both while it holds the
//!   write lock of the part it changes. Generations only grow, by read-modify-write, so every value
//!   after a bump continues that bump's release sequence.
//! * Let the stamp read now include change C, and let it equal the stamp S the result was kept
//!   under. Then the `Acquire` load of S also read C's bump or a later value, so C happens before
//!   that load, which precedes the match; and the match could take the read lock only after C's
//!   writer had released it. The match saw C.
//! * If the stamp read now does not include C, C's bump does not happen before this load: `insert`
//!   or `remove` had not returned as far as this thread can know, and the publication may be
//!   ordered before C.
//! * A match may see changes made after its stamp was read. Then the kept stamp is older than the
//!   result, and the only cost is one match more than needed.
//! * Stamps hold each generation by itself, not a sum, so the argument also holds for plans that
//!   travel between threads, whose views of different generations may differ in order.
//!
//! # Memory
//!
//! With `S = (Arc<_>, u32, u8)` an exact filter of one subscriber occupies one map slot of 41
//! bytes (text pointer 16, subscriber 8, value 16, control 1) at a load of 7/16 to 7/8, and the
//! text. `benches/index.rs` prints the measured figure.

mod exact;
mod hash;
mod subscribers;
mod trie;
mod wildcard;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use self::exact::ExactFilters;
use self::hash::Place;
use self::subscribers::Entry;
use self::wildcard::{WildcardFilters, WildcardStamp};

/// Who subscribed: a process-unique number of the subscriber.
pub type SubscriberId = u64;

/// The state of everything that can influence the matches of one topic.
///
/// Equal stamps of the same topic mean an unchanged result; the module documentation has the
/// protocol. Stamps of different topics, or of different indexes, mean nothing to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    exact: u64,
    wildcard: WildcardStamp,
}

/// All subscriptions, by topic filter.
///
/// `S` is what the caller keeps with a subscription: small and cheap to clone. One value exists
/// per filter and subscriber.
pub struct Index<S> {
    exact: ExactFilters<S>,
    wildcards: WildcardFilters<S>,
    /// First levels that filters starting with a wildcard do not match, besides those with `$`.
    reserved: Vec<Box<str>>,
    totals: Totals,
}

impl<S> Default for Index<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// The hash of a topic, as [`Index::stamp`] expects it; see [`Index::hash`].
pub fn topic_hash(topic: &str) -> u64 {
    hash::of_topic(topic)
}

impl<S> Index<S> {
    /// An empty index.
    pub fn new() -> Self {
        Self {
            exact: ExactFilters::new(),
            wildcards: WildcardFilters::new(),
            reserved: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Makes filters that start with a wildcard not match topics whose first level is `level`,
    /// as [MQTT-4.7.2-1] has it for topics starting with `$`. The topic `level` itself counts.
    #[must_use]
    pub fn reserve_first_level(mut self, level: &str) -> Self {
        self.reserved.push(level.into());
        self
    }

    /// Adds the subscription, or replaces its value; returns the replaced value.
    ///
    /// The filter must be valid and without a `$share` prefix.
    pub fn insert(&self, filter: &str, subscriber: SubscriberId, value: S) -> Option<S> {
        let entry = Entry { subscriber, value };
        match Place::of_filter(filter) {
            Place::Exact(hash) => self.exact.insert(hash, filter, entry, &self.totals),
            Place::Wildcard(prefix) => self.wildcards.insert(prefix, filter, entry, &self.totals),
        }
    }

    /// Removes the subscription and returns its value, if it was there.
    pub fn remove(&self, filter: &str, subscriber: SubscriberId) -> Option<S> {
        match Place::of_filter(filter) {
            Place::Exact(hash) => self.exact.remove(hash, filter, subscriber, &self.totals),
            Place::Wildcard(prefix) => {
                self.wildcards.remove(prefix, filter, subscriber, &self.totals)
            }
        }
    }

    /// Calls `each` once for every subscription that matches `topic`, those with an exact filter
    /// first. A subscriber with overlapping filters is given once for each of them.
    ///
    /// `each` runs under a read lock: it must be short and must not use this index.
    pub fn matches(&self, topic: &str, mut each: impl FnMut(SubscriberId, &S)) {
        let hash = hash::of_topic(topic);
        self.exact.matches(hash, topic, &mut each);
        let wildcard_first = !self.is_closed_to_leading_wildcards(topic);
        self.wildcards.matches(hash, topic, wildcard_first, &mut each);
    }

    /// The stamp of the topic with this [`hash`](Self::hash): it changes whenever the result of
    /// [`matches`](Self::matches) for the topic may have changed. Four atomic loads.
    ///
    /// Take it before matching; the module documentation has the protocol.
    pub fn stamp(&self, topic_hash: u64) -> Stamp {
        Stamp {
            exact: self.exact.generation(topic_hash),
            wildcard: self.wildcards.stamp(topic_hash),
        }
    }

    /// The hash of a topic, as [`stamp`](Self::stamp) expects it: xxh3 of the topic, with 18 bits
    /// in the middle taken from the xxh3 of its first and of its first two levels. Stable, not
    /// keyed; both its high and its low bits may index a hash table.
    pub fn hash(topic: &str) -> u64 {
        hash::of_topic(topic)
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> u64 {
        self.totals.subscriptions.load(Ordering::Relaxed)
    }

    /// How many different filters have at least one subscriber.
    pub fn filters(&self) -> u64 {
        self.totals.filters.load(Ordering::Relaxed)
    }

    fn is_closed_to_leading_wildcards(&self, topic: &str) -> bool {
        // [MQTT-4.7.2-1] The Server MUST NOT match Topic Filters starting with a wildcard
        // character (# or +) with Topic Names beginning with a $ character.
        topic.starts_with('$')
            || self.reserved.iter().any(|level| {
                topic
                    .strip_prefix(&**level)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }
}

/// The counts of the whole index. On a cache line of its own: every change writes to it, and
/// matching must not pay for that.
///
/// Changed only under the lock of the filter concerned, so a removal is never counted before the
/// insertion it undoes.
#[derive(Default)]
#[repr(align(64))]
struct Totals {
    subscriptions: AtomicU64,
    filters: AtomicU64,
}

impl Totals {
    fn subscribed(&self, first_of_filter: bool) {
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        if first_of_filter {
            self.filters.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unsubscribed(&self, last_of_filter: bool) {
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        if last_of_filter {
            self.filters.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
