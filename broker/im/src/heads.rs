//! Where the conversations used lately stand, as committed: for readers, who would otherwise ask
//! the store for each of a list's conversations at every login (ruling 39).
//!
//! Written by the shards that own the conversations, after each commit and before its effects
//! leave: whoever listens to a conversation and then looks here misses nothing. In memory only,
//! and bounded; what is not here is read from the store.

use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock};

use foldhash::HashMap;
use foldhash::quality::RandomState;

use crate::id::{ConvKey, MessageId};
use crate::keys::{self, conv_kind};
use crate::rows::{Head, Row};

const STRIPES: usize = 64;
/// Heads of a stripe that are young; as many old ones are kept at most.
const MOST_YOUNG: usize = 2_048;
/// Instead of a distance that is none, or too large.
const NONE: u32 = u32::MAX;

/// A conversation's name: two hashes under keys drawn by chance, so that no two meet.
type Name = u128;

/// What readers want of a head, in 48 bytes.
#[derive(Clone, Copy, Debug)]
struct Packed {
    last: u64,
    count: u64,
    ts_ms: u64,
    min: u64,
    voids: u32,
    /// How far before the last entry the last messages of a pair's users are.
    own: [u32; 2],
}

impl Packed {
    fn of(head: &Head) -> Option<Packed> {
        let own = head.own.map(|own| match own {
            0 => NONE,
            own => u32::try_from(head.last - own).unwrap_or(NONE),
        });
        let lost = head.own.iter().zip(own).any(|(is, kept)| *is != 0 && kept == NONE);
        let Head { last, count, ts_ms, min, .. } = *head;
        let voids = u32::try_from(head.voids).ok().filter(|_| !lost)?;
        Some(Packed { last, count, ts_ms, min, voids, own })
    }

    fn head(self) -> Head {
        let Packed { last, count, ts_ms, min, voids, own } = self;
        let own = own.map(|before| if before == NONE { 0 } else { last - u64::from(before) });
        let (voids, bytes, id) = (voids.into(), 0, MessageId(0));
        Head { last, count, voids, ts_ms, min, bytes, id, own }
    }
}

#[derive(Debug, Default)]
struct Stripe {
    young: HashMap<Name, Packed>,
    old: HashMap<Name, Packed>,
}

impl Stripe {
    fn get(&self, name: Name) -> Option<Packed> {
        self.young.get(&name).or_else(|| self.old.get(&name)).copied()
    }
}

/// The table.
#[derive(Debug)]
pub struct Heads {
    hashers: [RandomState; 2],
    stripes: Box<[RwLock<Stripe>]>,
}

impl Default for Heads {
    fn default() -> Heads {
        Heads {
            hashers: [RandomState::default(), RandomState::default()],
            stripes: (0..STRIPES).map(|_| RwLock::default()).collect(),
        }
    }
}

impl Heads {
    fn name(&self, conv: &[u8]) -> Name {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(conv));
        u128::from(high) << 64 | u128::from(low)
    }

    fn stripe(&self, name: Name) -> &RwLock<Stripe> {
        &self.stripes[name as usize % STRIPES]
    }

    /// Where a conversation stands, if that is known here; its `bytes` and `id` are not: both 0.
    pub(crate) fn get(&self, conv: &ConvKey) -> Option<Head> {
        let name = self.name(conv.as_str().as_bytes());
        let stripe = self.stripe(name).read().unwrap_or_else(PoisonError::into_inner);
        stripe.get(name).map(Packed::head)
    }

    /// Where several stand: `each` hears the place of one that is known here, and its head. Those of
    /// one stripe are looked up side by side, so that the memory they lie in comes at the same time.
    pub(crate) fn get_each<'a>(
        &self,
        convs: impl Iterator<Item = &'a ConvKey>,
        mut each: impl FnMut(usize, Head),
    ) {
        let named = convs.enumerate().map(|(at, conv)| (self.name(conv.as_str().as_bytes()), at));
        let mut named: Vec<(Name, usize)> = named.collect();
        let stripe_of = |(name, _): &(Name, usize)| *name as usize % STRIPES;
        named.sort_unstable_by_key(stripe_of);
        for side_by_side in named.chunk_by(|a, b| stripe_of(a) == stripe_of(b)) {
            let stripe = self.stripe(side_by_side[0].0).read();
            let stripe = stripe.unwrap_or_else(PoisonError::into_inner);
            for (name, at) in side_by_side {
                if let Some(packed) = stripe.get(*name) {
                    each(*at, packed.head());
                }
            }
        }
    }

    /// A row is committed, or may be (`None`): if it is a head, it is known from now on, or no
    /// longer.
    pub(crate) fn row(&self, key: &[u8], row: Option<&[u8]>) {
        let Some((_, [kind, conv @ ..])) = key.split_at_checked(keys::SLOT_BYTES) else { return };
        if *kind != conv_kind::HEAD {
            return;
        }
        let packed = row.and_then(|row| Packed::of(&Head::read(row).ok()?));
        let name = self.name(conv);
        let mut stripe = self.stripe(name).write().unwrap_or_else(PoisonError::into_inner);
        let Some(packed) = packed else {
            stripe.young.remove(&name);
            stripe.old.remove(&name);
            return;
        };
        if stripe.young.len() >= MOST_YOUNG && !stripe.young.contains_key(&name) {
            stripe.old = std::mem::take(&mut stripe.young);
        }
        stripe.young.insert(name, packed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(n: u64) -> ConvKey {
        ConvKey::pair("default", "alice", &format!("u{n}"))
    }

    fn put(heads: &Heads, conv: &ConvKey, head: &Head) {
        heads.row(&keys::conv(conv, conv_kind::HEAD), Some(&head.encode()));
    }

    #[test]
    fn heads_are_known_until_they_are_old() {
        let heads = Heads::default();
        let head = |last: u64| Head { last, count: last, own: [last, 0], ..Head::default() };
        assert_eq!(heads.get(&pair(1)), None);
        for last in 1..3 {
            put(&heads, &pair(1), &head(last));
            assert_eq!(heads.get(&pair(1)), Some(head(last)));
        }
        heads.row(&keys::conv(&pair(1), conv_kind::PAIR), None);
        assert_eq!(heads.get(&pair(1)), Some(head(2)), "another row of the conversation");
        heads.row(&keys::conv(&pair(1), conv_kind::HEAD), None);
        assert_eq!(heads.get(&pair(1)), None);
        let many = (2 * STRIPES * MOST_YOUNG + STRIPES * MOST_YOUNG / 2) as u64;
        (0..many).for_each(|n| put(&heads, &pair(n), &head(n + 1)));
        let known = (0..many).filter(|n| heads.get(&pair(*n)).is_some()).count();
        let expected = STRIPES * MOST_YOUNG..=2 * STRIPES * MOST_YOUNG;
        assert!(expected.contains(&known), "{known}");
        assert_eq!(heads.get(&pair(many - 1)), Some(head(many)), "the youngest");
        let asked: Vec<ConvKey> = (0..many).step_by(many as usize / 1_000).map(pair).collect();
        let mut found = vec![None; asked.len()];
        heads.get_each(asked.iter(), |at, head| found[at] = Some(head));
        let one_by_one: Vec<_> = asked.iter().map(|conv| heads.get(conv)).collect();
        assert_eq!(found, one_by_one);
        assert!(found.contains(&None) && found.iter().any(Option::is_some));
    }

    #[test]
    fn what_finds_no_place_is_left_to_the_store() {
        let heads = Heads::default();
        let far = Head { last: 1 << 40, own: [1, 1 << 40], ..Head::default() };
        put(&heads, &pair(1), &far);
        assert_eq!(heads.get(&pair(1)), None);
        let near = Head { own: [0, (1 << 40) - 5], ..far };
        put(&heads, &pair(1), &near);
        assert_eq!(heads.get(&pair(1)), Some(near));
        put(&heads, &pair(1), &Head { voids: 1 << 33, ..near });
        assert_eq!(heads.get(&pair(1)), None);
    }
}
