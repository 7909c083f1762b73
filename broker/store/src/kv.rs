//! The ordered store below everything durable: families of rows, atomic batches, range scans.
//!
//! Two implementations: RocksDB (`rocks.rs`) and a twin in memory (`memory.rs`). Neither knows
//! what a row means; what a dead row is, is told to them by [`RowJudge`].

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

use crate::error::{StoreError, WriteError};

/// A kind of rows, kept apart because its access pattern asks for its own tuning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Family {
    /// Two rows about the store itself.
    Meta,
    /// Rows of a shard as a whole: its counters, outbox, markers.
    Shard,
    /// Sessions and groups: what they are, subscriptions, progress, wills, exchanges.
    Session,
    /// Queue entries.
    Queue,
    /// Bodies that several queue entries share.
    Body,
    /// Retained messages by topic.
    Retained,
    /// What the IM profile knows besides messages: conversations, members, users, cursors.
    Im,
    /// Entries of the IM profile's conversations.
    Log,
}

impl Family {
    /// Every family, in the order of their numbers.
    pub const ALL: [Family; 8] = [
        Family::Meta,
        Family::Shard,
        Family::Session,
        Family::Queue,
        Family::Body,
        Family::Retained,
        Family::Im,
        Family::Log,
    ];

    /// Name of the column family, also in messages.
    pub fn name(self) -> &'static str {
        match self {
            Family::Meta => "default",
            Family::Shard => "shard",
            Family::Session => "session",
            Family::Queue => "queue",
            Family::Body => "body",
            Family::Retained => "retained",
            Family::Im => "im",
            Family::Log => "log",
        }
    }
}

/// One change of a [`Batch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// A row is written.
    Put(Family, &'a [u8], &'a [u8]),
    /// A row is removed.
    Delete(Family, &'a [u8]),
}

#[derive(Clone, Copy, Debug)]
struct Head {
    family: Family,
    key: u32,
    value: Option<u32>,
}

/// Room that a batch keeps for the next one's keys and values.
const ROOM_KEPT_BYTES: usize = 512 * 1024;

/// Changes that are written together or not at all. One buffer holds all keys and values.
#[derive(Clone, Default, Debug)]
pub struct Batch {
    heads: Vec<Head>,
    bytes: Vec<u8>,
}

impl Batch {
    /// Writes a row.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.heads.push(Head { family, key: key.len() as u32, value: Some(value.len() as u32) });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    /// Writes a row whose value `fill` appends to the buffer it is given: no copy.
    pub fn put_with(&mut self, family: Family, key: &[u8], fill: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(key);
        let before = self.bytes.len();
        fill(&mut self.bytes);
        let value = (self.bytes.len() - before) as u32;
        self.heads.push(Head { family, key: key.len() as u32, value: Some(value) });
    }

    /// Removes a row.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.heads.push(Head { family, key: key.len() as u32, value: None });
        self.bytes.extend_from_slice(key);
    }

    /// Forgets the changes and keeps their room for others, unless they were very many.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.bytes.clear();
        self.heads.shrink_to(ROOM_KEPT_BYTES / size_of::<Head>());
        self.bytes.shrink_to(ROOM_KEPT_BYTES);
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// True when nothing changes.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The changes, oldest first.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut rest = self.bytes.as_slice();
        self.heads.iter().map(move |head| {
            let (key, after) = rest.split_at(head.key as usize);
            let (value, after) = after.split_at(head.value.unwrap_or(0) as usize);
            rest = after;
            match head.value {
                Some(_) => Change::Put(head.family, key, value),
                None => Change::Delete(head.family, key),
            }
        })
    }

    /// The value this batch leaves under a key: `None` when it says nothing about it. Walks the
    /// batch: for rare questions only.
    pub fn value_of(&self, family: Family, key: &[u8]) -> Option<&[u8]> {
        let mut found = None;
        for change in self.changes() {
            match change {
                Change::Put(f, k, value) if f == family && k == key => found = Some(value),
                Change::Delete(f, k) if f == family && k == key => found = None,
                _ => {}
            }
        }
        found
    }
}

/// A stretch of keys and the direction to walk it.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Where it begins.
    pub from: Bound<&'a [u8]>,
    /// Where it ends.
    pub to: Bound<&'a [u8]>,
    /// From the end to the beginning.
    pub reverse: bool,
}

impl<'a> Span<'a> {
    /// `from` included, `to` not.
    pub fn half_open(from: &'a [u8], to: &'a [u8]) -> Span<'a> {
        Span { from: Bound::Included(from), to: Bound::Excluded(to), reverse: false }
    }

    /// Every key.
    pub fn all() -> Span<'static> {
        Span { from: Bound::Unbounded, to: Bound::Unbounded, reverse: false }
    }

    /// The same stretch, last key first.
    pub fn reversed(self) -> Span<'a> {
        Span { reverse: true, ..self }
    }
}

/// The first key behind all that begin with `prefix`; nothing stands behind one of 0xFF alone.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Called for each row of a scan; `Break` ends it.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Called for each row of a scan of several stretches, with the stretch's place among them; `Break`
/// ends the stretch.
pub type VisitEach<'a> = dyn FnMut(usize, &[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Called for each key of a multi-get, with its place among the keys and its value.
pub type Found<'a> = dyn FnMut(usize, Option<&[u8]>) + 'a;

/// Knows which rows nobody needs any more (see `floors.rs`). Asked by compactions, from any
/// thread, in key order.
pub trait RowJudge: Send + Sync {
    /// True when the row may vanish.
    fn is_dead(&self, family: Family, key: &[u8], value: &[u8]) -> bool;
}

/// An ordered store of rows.
///
/// Scans and reads see every write that returned before they began.
pub trait Kv: Send + Sync {
    /// The value of a row.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The values of several rows, in the order of their keys given.
    fn multi_get(
        &self,
        family: Family,
        keys: &[&[u8]],
        found: &mut Found<'_>,
    ) -> Result<(), StoreError>;

    /// Visits the rows of a stretch in key order.
    fn scan(&self, family: Family, span: Span<'_>, visit: &mut Visit<'_>)
    -> Result<(), StoreError>;

    /// Visits rows whose keys begin with `prefix`, in key order, from a key on. The store is told where
    /// they end: without that it looks on for the next row there is, over the graves of all removed ones
    /// in between.
    fn scan_below(
        &self,
        family: Family,
        prefix: &[u8],
        from: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let end = end_of(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.scan(family, Span { from, to, reverse: false }, visit)
    }

    /// Visits the rows of several stretches in key order, one stretch after the other. `visit` is
    /// told which it is, and breaks out of one stretch only.
    fn scan_each(
        &self,
        family: Family,
        spans: &[(&[u8], &[u8])],
        visit: &mut VisitEach<'_>,
    ) -> Result<(), StoreError> {
        for (at, (first, last)) in spans.iter().enumerate() {
            let (from, to) = (Bound::Included(*first), Bound::Included(*last));
            let span = Span { from, to, reverse: false };
            self.scan(family, span, &mut |key, value| visit(at, key, value))?;
        }
        Ok(())
    }

    /// As [`scan_each`](Self::scan_each), for what is read through once, as at a start or by a
    /// sweep: blocks that are read for it are not kept in memory afterwards. Stretches in the order
    /// of their keys cost least.
    fn scan_each_once(
        &self,
        family: Family,
        spans: &[(&[u8], &[u8])],
        visit: &mut VisitEach<'_>,
    ) -> Result<(), StoreError> {
        self.scan_each(family, spans, visit)
    }

    /// Writes a batch; with `sync` it is on disk when this returns.
    fn write(&self, batch: &Batch, sync: bool) -> Result<(), WriteError>;

    /// After an unknown outcome: closes and opens again, so that what is read from now on is
    /// what is there. A no-op when nothing is wrong.
    fn reopen(&self) -> Result<(), StoreError>;

    /// Whether batches would be written now: after a refusal, asked once in a while.
    fn probe(&self) -> Result<(), WriteError>;

    /// False when it is known beforehand that a batch would be refused. Asked for every command.
    fn takes_writes(&self) -> bool {
        true
    }

    /// Why batches are not written now, in the system's words; `None` when they are.
    fn fault(&self) -> Option<String>;

    /// Brings the files to rest, so that what is written twice is given back.
    fn flush(&self) -> Result<(), StoreError>;

    /// Removes the dead rows of a family. Takes long: for a background thread.
    fn compact(&self, family: Family) -> Result<(), StoreError>;

    /// A copy of the whole store in a new folder, as of now.
    fn checkpoint(&self, folder: &Path) -> Result<(), StoreError>;
}

/// A store shared by shards and readers.
pub type SharedKv = Arc<dyn Kv>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(end_of(b"im/a"), Some(b"im/b".to_vec()));
        assert_eq!(end_of(&[1, 0xFF, 0xFF]), Some(vec![2]));
        assert_eq!(end_of(&[0xFF]), None);
        assert_eq!(end_of(&[]), None);
    }

    #[test]
    fn a_batch_gives_its_changes_back_in_order() {
        let mut batch = Batch::default();
        batch.put(Family::Queue, b"k1", b"value");
        batch.delete(Family::Body, b"k2");
        batch.put_with(Family::Shard, b"k3", |out| out.extend_from_slice(b"w"));
        batch.put(Family::Meta, b"", b"");
        let changes: Vec<_> = batch.changes().collect();
        assert_eq!(
            changes,
            [
                Change::Put(Family::Queue, b"k1", b"value"),
                Change::Delete(Family::Body, b"k2"),
                Change::Put(Family::Shard, b"k3", b"w"),
                Change::Put(Family::Meta, b"", b""),
            ]
        );
        assert_eq!(batch.value_of(Family::Shard, b"k3"), Some(&b"w"[..]));
        assert_eq!(batch.value_of(Family::Body, b"k2"), None);
    }
}
