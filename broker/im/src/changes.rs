//! Rows that are changed and not committed yet: those of one command, and those of the batch that
//! earlier commands have filled.
//!
//! Nearly every look is for one key, so that a command's few rows are looked through, and the
//! batch's are hashed; the order that a walk needs is made when somebody walks. Deliberately not
//! here: what is committed (`txn`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use foldhash::HashMap;
use hoopoe_store::kv::Family;

const FAMILIES: usize = Family::ALL.len();
/// Rows of a command that are looked through; more are kept in order.
const FEW: usize = 16;
/// Rows of a batch for which room is kept for the next one.
const ROOM_KEPT: usize = 4_096;

/// What becomes of a row.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    /// `None`: it is removed.
    pub(crate) value: Option<Bytes>,
    /// It may wait for the next synced batch.
    pub(crate) lazily: bool,
}

/// A row's place and what becomes of it.
type Row = (Family, Box<[u8]>, Changed);

/// Rows that one command has changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Staged {
    few: Vec<Row>,
    many: BTreeMap<(u8, Box<[u8]>), Row>,
}

impl Staged {
    /// What the command has made of a row.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Option<&Changed> {
        if self.many.is_empty() {
            let same = |row: &&Row| *row.1 == *key && row.0 == family;
            return self.few.iter().find(same).map(|row| &row.2);
        }
        self.many.get(&(family as u8, key.into())).map(|row| &row.2)
    }

    /// Changes a row.
    pub(crate) fn put(&mut self, family: Family, key: &[u8], changed: Changed) {
        let known = if self.many.is_empty() {
            self.few.iter_mut().find(|row| *row.1 == *key && row.0 == family)
        } else {
            self.many.get_mut(&(family as u8, key.into()))
        };
        if let Some((.., known)) = known {
            // Somebody waits for the row as it was: its successor does not wait.
            *known = Changed { lazily: known.lazily && changed.lazily, ..changed };
            return;
        }
        let row = (family, key.into(), changed);
        if self.many.is_empty() && self.few.len() < FEW {
            self.few.push(row);
            return;
        }
        let rows = self.few.drain(..).chain([row]);
        self.many.extend(rows.map(|row| ((row.0 as u8, row.1.clone()), row)));
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Row> + '_ {
        let many = std::mem::take(&mut self.many).into_values();
        self.few.drain(..).chain(many)
    }

    /// The rows of a family from a key on, in no order.
    fn from(&self, family: Family, from: &[u8]) -> impl Iterator<Item = (&[u8], &Changed)> {
        let rows = self.few.iter().chain(self.many.values());
        rows.filter(move |row| row.0 == family && *row.1 >= *from).map(|row| (&*row.1, &row.2))
    }
}

/// Rows of a family that a batch has changed.
#[derive(Debug, Default)]
struct OfFamily {
    rows: HashMap<Box<[u8]>, Changed>,
    /// Their keys in order, from the first walk of the batch on.
    order: Option<BTreeSet<Box<[u8]>>>,
}

/// Rows that a batch has changed so far.
#[derive(Debug, Default)]
pub(crate) struct Batched {
    families: [OfFamily; FAMILIES],
}

impl Batched {
    /// What the batch has made of a row.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Option<&Changed> {
        self.families[family as usize].rows.get(key)
    }

    /// Changes a row.
    pub(crate) fn put(&mut self, family: Family, key: Box<[u8]>, changed: Changed) {
        let family = &mut self.families[family as usize];
        if let Some(order) = &mut family.order {
            order.insert(key.clone());
        }
        family.rows.insert(key, changed);
    }

    /// Takes the rows of a family out, in no order, and forgets those of all others.
    pub(crate) fn drain(&mut self, of: Family) -> impl Iterator<Item = (Box<[u8]>, Changed)> + '_ {
        for family in &mut self.families {
            family.order = None;
            family.rows.shrink_to(ROOM_KEPT);
        }
        let others = self.families.iter_mut().enumerate();
        others.filter(|(at, _)| *at != of as usize).for_each(|(_, other)| other.rows.clear());
        self.families[of as usize].rows.drain()
    }

    /// What this batch, and over it a command, have changed below a prefix, from a key on.
    pub(crate) fn below(
        &mut self,
        staged: &Staged,
        family: Family,
        prefix: &[u8],
        start: &[u8],
    ) -> BTreeMap<Box<[u8]>, Option<Bytes>> {
        let OfFamily { rows, order } = &mut self.families[family as usize];
        let mut found = BTreeMap::new();
        if !rows.is_empty() {
            let order = order.get_or_insert_with(|| rows.keys().cloned().collect());
            let from = (Bound::Included(start), Bound::Unbounded);
            for key in order.range::<[u8], _>(from).take_while(|key| key.starts_with(prefix)) {
                let row = rows.get(key);
                found.insert(key.clone(), row.and_then(|row| row.value.clone()));
            }
        }
        let staged = staged.from(family, start).filter(|(key, _)| key.starts_with(prefix));
        found.extend(staged.map(|(key, row)| (key.into(), row.value.clone())));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(value: &str) -> Changed {
        Changed { value: Some(value.as_bytes().to_vec().into()), lazily: false }
    }

    fn below(batched: &mut Batched, staged: &Staged, prefix: &str, start: &str) -> String {
        let (prefix, start) = (prefix.as_bytes(), start.as_bytes());
        let rows =
            batched.below(staged, Family::Im, prefix, start).into_iter().map(|(key, row)| {
                let row = row.map_or("-".into(), |row| String::from_utf8_lossy(&row).into_owned());
                format!("{}={row}", String::from_utf8_lossy(&key))
            });
        rows.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_command_knows_its_rows_however_many_there_are() {
        for count in [1, FEW, FEW + 1, 10 * FEW] {
            let mut staged = Staged::default();
            for round in ["old", "new"] {
                for n in 0..count {
                    staged.put(Family::Im, format!("k{n:03}").as_bytes(), to(round));
                    staged.put(Family::Log, format!("k{n:03}").as_bytes(), to("entry"));
                }
            }
            for n in 0..count {
                let row = staged.get(Family::Im, format!("k{n:03}").as_bytes());
                assert_eq!(row.and_then(|row| row.value.as_deref()), Some(&b"new"[..]));
            }
            assert!(staged.get(Family::Im, b"k").is_none());
            assert!(staged.get(Family::Queue, b"k000").is_none());
            let walked = below(&mut Batched::default(), &staged, "k00", "k000");
            assert!(walked.starts_with("k000=new"), "{walked}");
            assert_eq!(walked.split(' ').count(), count.min(10));
            assert_eq!(staged.drain().count(), 2 * count);
            assert!(staged.get(Family::Im, b"k000").is_none());
        }
    }

    #[test]
    fn a_row_that_somebody_waits_for_stays_so() {
        let mut staged = Staged::default();
        for (lazily, is) in [(true, true), (false, false), (true, false)] {
            staged.put(Family::Im, b"k", Changed { lazily, ..to("x") });
            assert_eq!(staged.get(Family::Im, b"k").map(|row| row.lazily), Some(is));
        }
    }

    #[test]
    fn a_walk_sees_what_came_before_and_after_an_earlier_walk() {
        let (mut batched, mut staged) = (Batched::default(), Staged::default());
        for key in ["a3", "a1", "b1"] {
            batched.put(Family::Im, key.as_bytes().into(), to("batch"));
        }
        assert_eq!(below(&mut batched, &staged, "a", "a"), "a1=batch a3=batch");
        batched.put(Family::Im, b"a2"[..].into(), Changed { value: None, lazily: false });
        batched.put(Family::Im, b"a3"[..].into(), to("again"));
        staged.put(Family::Im, b"a1", to("command"));
        assert_eq!(below(&mut batched, &staged, "a", "a"), "a1=command a2=- a3=again");
        assert_eq!(below(&mut batched, &staged, "a", "a2"), "a2=- a3=again");
        assert_eq!(batched.drain(Family::Im).count(), 4);
        assert_eq!(below(&mut batched, &Staged::default(), "a", "a"), "");
        assert!(batched.get(Family::Im, b"a1").is_none());
    }
}
