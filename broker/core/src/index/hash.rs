//! Where a topic or a filter belongs in the index.
//!
//! One 64-bit hash of a topic carries all the index needs to find the parts concerned: the topic's
//! shard and generation among the exact filters, and the hashes of its first level and of its
//! first two levels, which choose the wildcard partitions. Owns no state.
//!
//! The hash is not keyed. Somebody who constructs collisions makes locks and generations shared,
//! which costs speed only; the hash maps themselves use a keyed hash.
//!
//! ```text
//!  63      50 49        38 37    32 31              0
//! |  topic   | first two  |  first |      topic      |
//! ```
//!
//! The topic's own bits are at both ends, because hash tables look at either end.

use xxhash_rust::xxh3::xxh3_64;

const FIRST_SHIFT: u32 = 32;
const FIRST_BITS: u32 = 6;
const PAIR_SHIFT: u32 = FIRST_SHIFT + FIRST_BITS;
const PAIR_BITS: u32 = 12;
const SHARD_SHIFT: u32 = PAIR_SHIFT + PAIR_BITS;
const PREFIX_MASK: u64 = ((1 << (FIRST_BITS + PAIR_BITS)) - 1) << FIRST_SHIFT;

/// Values of [`first_level`].
pub(super) const FIRST_LEVELS: usize = 1 << FIRST_BITS;
/// Values of [`level_pair`].
pub(super) const LEVEL_PAIRS: usize = 1 << PAIR_BITS;
/// Shards of the exact filters: many, so that growing one map stalls few for a short time.
pub(super) const SHARDS: usize = 256;
/// Generations of the exact filters.
pub(super) const BUCKETS: usize = 4096;

/// The part of the index a filter lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// No wildcard; the hash is that of the only topic it matches.
    Exact(u64),
    Wildcard(Prefix),
}

/// The literal levels a wildcard filter begins with, up to two, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// The first level is a wildcard.
    None,
    /// Only the first level is literal.
    First(usize),
    /// At least the first two levels are literal.
    Pair(usize),
}

impl Place {
    pub(super) fn of_filter(filter: &str) -> Self {
        // In a valid filter a wildcard occupies an entire level [MQTT-4.7.1-2], [MQTT-4.7.1-3],
        // so a wildcard character anywhere is a wildcard.
        let Some(wildcard) = filter.find(['+', '#']) else {
            return Self::Exact(of_topic(filter));
        };
        let literal = &filter[..wildcard];
        Self::Wildcard(match literal.find('/') {
            None => Prefix::None,
            Some(end) if end + 1 == literal.len() => {
                Prefix::First(fold(xxh3_64(&literal.as_bytes()[..end]), FIRST_BITS))
            }
            Some(end) => Prefix::Pair(fold(xxh3_64(pair_of(literal, end).as_bytes()), PAIR_BITS)),
        })
    }
}

/// The hash of a topic.
pub(super) fn of_topic(topic: &str) -> u64 {
    let whole = xxh3_64(topic.as_bytes());
    let (first, pair) = match topic.find('/') {
        // A topic of one level has no pair; the bits only have to be the same every time.
        None => (whole, whole),
        Some(end) => {
            let pair = pair_of(topic, end);
            let pair = if pair.len() == topic.len() { whole } else { xxh3_64(pair.as_bytes()) };
            (xxh3_64(&topic.as_bytes()[..end]), pair)
        }
    };
    let prefix = (fold(first, FIRST_BITS) as u64) << FIRST_SHIFT
        | (fold(pair, PAIR_BITS) as u64) << PAIR_SHIFT;
    whole & !PREFIX_MASK | prefix
}

/// The first two levels of `topic`, whose first level ends at `first_end`.
fn pair_of(topic: &str, first_end: usize) -> &str {
    let second = first_end + 1;
    topic[second..].find('/').map_or(topic, |length| &topic[..second + length])
}

/// The uppermost `bits` of a hash.
fn fold(hash: u64, bits: u32) -> usize {
    (hash >> (u64::BITS - bits)) as usize
}

/// The shard of an exact filter.
pub(super) fn shard(topic_hash: u64) -> usize {
    (topic_hash >> SHARD_SHIFT) as usize % SHARDS
}

/// The generation of an exact filter.
pub(super) fn bucket(topic_hash: u64) -> usize {
    topic_hash as usize % BUCKETS
}

/// The first level of a topic, as in [`Prefix::First`].
pub(super) fn first_level(topic_hash: u64) -> usize {
    (topic_hash >> FIRST_SHIFT) as usize % FIRST_LEVELS
}

/// The first two levels of a topic, as in [`Prefix::Pair`]. Meaningless for topics of one level.
pub(super) fn level_pair(topic_hash: u64) -> usize {
    (topic_hash >> PAIR_SHIFT) as usize % LEVEL_PAIRS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_placed_where_its_topics_look() {
        for (filter, topic) in [
            ("a/+", "a/b"),
            ("a/#", "a"),
            ("a/+/c", "a/b/c"),
            ("/+", "/"),
            ("/#", "//x"),
            ("users/#", "users/1/in"),
        ] {
            let expected = Place::Wildcard(Prefix::First(first_level(of_topic(topic))));
            assert_eq!(Place::of_filter(filter), expected, "{filter} {topic}");
        }
        for (filter, topic) in [
            ("a/b/#", "a/b"),
            ("a/b/#", "a/b/c/d"),
            ("a/b/+", "a/b/"),
            ("a/b/c/+", "a/b/c/d"),
            ("//#", "/"),
            ("//+", "//x"),
            ("a//+", "a//x"),
        ] {
            let expected = Place::Wildcard(Prefix::Pair(level_pair(of_topic(topic))));
            assert_eq!(Place::of_filter(filter), expected, "{filter} {topic}");
        }
        for filter in ["#", "+", "+/a", "+/+", "+/#"] {
            assert_eq!(Place::of_filter(filter), Place::Wildcard(Prefix::None), "{filter}");
        }
        for filter in ["a", "a/b", "/", "//", "a/b/c"] {
            assert_eq!(Place::of_filter(filter), Place::Exact(of_topic(filter)), "{filter}");
        }
    }

    #[test]
    fn every_part_of_the_hash_spreads() {
        let mut shards = vec![0u32; SHARDS];
        let mut buckets = vec![0u32; BUCKETS];
        let mut pairs = vec![0u32; LEVEL_PAIRS];
        let topics = 1 << 17;
        for number in 0..topics {
            let hash = of_topic(&format!("users/{number}/in"));
            shards[shard(hash)] += 1;
            buckets[bucket(hash)] += 1;
            pairs[level_pair(hash)] += 1;
        }
        for counts in [shards, buckets, pairs] {
            let mean = topics / counts.len() as u32;
            assert!(counts.iter().all(|&count| count > 0 && count < 4 * mean));
        }
    }
}
