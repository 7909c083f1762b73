//! Rows as one shard sees them: what is committed, below what its present batch has changed.
//!
//! A [`Rows`] belongs to one shard and outlives its batches: it keeps what was read or written
//! lately, bounded, and it keeps what the batch under way has written, which no other thread can
//! see yet. A [`Txn`] is a look through it while one command is applied. After a failed commit
//! everything kept is forgotten: the store is read again.
//!
//! Deliberately not here: what rows mean (`rows`), how keys are spelled (`keys`).

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use hoopoe_store::PendingBatch;
use hoopoe_store::kv::{Family, SharedKv, Span};
use hoopoe_store::{Damaged, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::changes::{Batched, Changed, Staged};
use crate::effect::{Effect, Pending};
use crate::heads::Heads;
use crate::keys;
use crate::rows::{Row, VERSION};

/// Rows that were read or written lately are kept, between this many and twice as many.
const MOST_KEPT: usize = 32_768;
/// Rows above this size are not kept.
const MOST_KEPT_BYTES: usize = 4_096;

/// Rows as they are committed, those used lately; `None`: there is none. What was not used while
/// the young ones filled up is forgotten.
#[derive(Default)]
struct Kept {
    young: HashMap<Box<[u8]>, Option<Bytes>>,
    old: HashMap<Box<[u8]>, Option<Bytes>>,
}

impl Kept {
    fn get(&mut self, key: &[u8]) -> Option<Option<Bytes>> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    fn insert(&mut self, key: Box<[u8]>, value: Option<Bytes>) {
        if self.young.len() >= MOST_KEPT {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, value);
    }

    fn remove(&mut self, key: &[u8]) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

/// What one shard knows of its rows without asking the store.
pub struct Rows {
    kv: SharedKv,
    /// Rows of the family `im` as they are committed.
    kept: Kept,
    /// What the present batch has changed.
    changed: Batched,
    /// Room for what a command changes.
    staged: Staged,
    /// Room for what it makes happen.
    effects: Vec<Effect>,
    /// Where readers look for heads.
    heads: Arc<Heads>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("kept", &self.kept.young.len()).finish_non_exhaustive()
    }
}

impl Rows {
    /// Nothing kept yet.
    pub fn new(kv: SharedKv) -> Rows {
        let (kept, changed, staged, effects, heads) = Default::default();
        Rows { kv, kept, changed, staged, effects, heads }
    }

    /// Readers look here for heads from now on.
    pub fn share_heads(&mut self, heads: Arc<Heads>) {
        self.heads = heads;
    }

    /// The store below.
    pub fn kv(&self) -> &SharedKv {
        &self.kv
    }

    /// The batch is committed: what it changed is what the store holds.
    pub fn committed(&mut self) {
        // Entries of logs are written once and read by others.
        for (key, Changed { value, .. }) in self.changed.drain(Family::Im) {
            self.heads.row(&key, value.as_deref());
            if !keys::is_asked_again(&key) {
                continue;
            }
            if value.as_ref().is_none_or(|value| value.len() <= MOST_KEPT_BYTES) {
                self.kept.insert(key, value);
            } else {
                self.kept.remove(&key);
            }
        }
    }

    /// The batch is lost: everything is read again.
    pub fn forget(&mut self) {
        self.kept.clear();
        // They may be on disk all the same.
        for (key, _) in self.changed.drain(Family::Im) {
            self.heads.row(&key, None);
        }
    }

    /// A look through these rows that writes into `batch`.
    pub fn open<'a>(&'a mut self, batch: &'a mut PendingBatch) -> Txn<'a> {
        let staged = std::mem::take(&mut self.staged);
        let effects = std::mem::take(&mut self.effects);
        Txn { rows: self, batch, staged, effects }
    }
}

/// Rows while one command is applied. What it writes, and what it makes happen, counts only once
/// it is [finished](Self::finish): a command that is refused half way leaves nothing.
pub struct Txn<'a> {
    rows: &'a mut Rows,
    batch: &'a mut PendingBatch,
    staged: Staged,
    effects: Vec<Effect>,
}

/// How far a command has come.
pub struct Mark {
    staged: Staged,
    effects: usize,
}

impl Txn<'_> {
    /// What this command, or an earlier one of the batch, has made of a row.
    fn changed(&self, family: Family, key: &[u8]) -> Option<&Changed> {
        self.staged.get(family, key).or_else(|| self.rows.changed.get(family, key))
    }

    /// The value of a row.
    pub fn get(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(changed) = self.changed(family, key) {
            return Ok(changed.value.clone());
        }
        if family != Family::Im || !keys::is_asked_again(key) {
            return Ok(self.rows.kv.get(family, key)?.map(Bytes::from));
        }
        if let Some(kept) = self.rows.kept.get(key) {
            return Ok(kept);
        }
        let value = self.rows.kv.get(family, key)?.map(Bytes::from);
        if value.as_ref().is_none_or(|value| value.len() <= MOST_KEPT_BYTES) {
            self.rows.kept.insert(key.into(), value.clone());
        }
        Ok(value)
    }

    /// The value of a row of another shard, as committed; it is not kept.
    pub fn peek(&mut self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.kv.get(family, key)
    }

    /// A binary row of another shard, as committed; it is not kept.
    pub fn peek_row<T: Row>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let row = self.rows.kv.get(Family::Im, key)?;
        row.map(|row| T::decode(key, &row)).transpose()
    }

    /// Whether a session is stored, as committed.
    pub fn has_session(&self, session: hoopoe_core::SessionId) -> Result<bool, StoreError> {
        hoopoe_store::read::is_stored(&*self.rows.kv, session)
    }

    /// True when there is such a row.
    pub fn has(&mut self, family: Family, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.get(family, key)?.is_some())
    }

    /// Writes a row that somebody waits for.
    pub fn put(&mut self, family: Family, key: &[u8], value: Vec<u8>) {
        self.staged.put(family, key, Changed { value: Some(value.into()), lazily: false });
    }

    /// Writes a row that may wait for the next synced batch.
    pub fn put_lazily(&mut self, family: Family, key: &[u8], value: Vec<u8>) {
        self.staged.put(family, key, Changed { value: Some(value.into()), lazily: true });
    }

    /// Removes a row.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.staged.put(family, key, Changed { value: None, lazily: false });
    }

    /// What has been written and done so far.
    pub fn mark(&self) -> Mark {
        Mark { staged: self.staged.clone(), effects: self.effects.len() }
    }

    /// Takes back what was written and done since the mark.
    pub fn back_to(&mut self, mark: Mark) {
        self.staged = mark.staged;
        self.effects.truncate(mark.effects);
    }

    /// Adds what happens once the batch is committed.
    pub fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// The command is applied: its rows go into the batch, its effects to `pending`.
    pub fn finish(mut self, pending: &mut Pending) {
        for (family, key, row) in self.staged.drain() {
            match &row.value {
                Some(value) if row.lazily => self.batch.put_lazily(family, &key, value),
                Some(value) => self.batch.put(family, &key, value),
                None => self.batch.delete(family, &key),
            }
            self.rows.changed.put(family, key, row);
        }
        self.rows.staged = self.staged;
        pending.append(&mut self.effects);
        self.rows.effects = self.effects;
    }

    /// Visits the rows whose keys begin with `prefix`, from `from` on (a whole key, included;
    /// empty for the first), in key order, until `visit` breaks.
    pub fn scan(
        &mut self,
        family: Family,
        prefix: &[u8],
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let start = if from > prefix { from } else { prefix };
        let changed = self.rows.changed.below(&self.staged, family, prefix, start);
        let mut changed = changed.into_iter().peekable();
        let mut ended = false;
        self.rows.kv.scan_below(family, prefix, Bound::Included(start), &mut |key, value| {
            while let Some((at, new)) = changed.next_if(|(at, _)| **at < *key) {
                if let Some(new) = new
                    && visit(&at, &new).is_break()
                {
                    ended = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match changed.next_if(|(at, _)| **at == *key) {
                Some((_, None)) => ControlFlow::Continue(()),
                Some((_, Some(new))) => visit(key, &new),
                None => visit(key, value),
            };
            ended = flow.is_break();
            flow
        })?;
        if !ended {
            for (at, new) in changed {
                if let Some(new) = new
                    && visit(&at, &new).is_break()
                {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Visits rows of any shard as committed, from a key on, until `visit` breaks.
    pub fn scan_committed(
        &self,
        family: Family,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let span = Span { from: Bound::Included(from), to: Bound::Unbounded, reverse: false };
        self.rows.kv.scan(family, span, &mut visit)
    }

    /// The keys that begin with `prefix`, at most `limit`.
    pub fn keys(
        &mut self,
        family: Family,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut keys = Vec::new();
        self.scan(family, prefix, b"", |key, _| {
            keys.push(key.to_vec());
            if keys.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(keys)
    }

    /// A binary row of the family `im`.
    pub fn row<T: Row>(&mut self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(Family::Im, key)?.map(|row| T::decode(key, &row)).transpose()
    }

    /// A row of the family `im` that holds JSON.
    pub fn json<T: DeserializeOwned>(&mut self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let row = self.get(Family::Im, key)?;
        row.map(|row| read_json(key, &row)).transpose()
    }

    /// Writes a row of the family `im` as JSON.
    pub fn put_json<T: Serialize>(&mut self, key: &[u8], row: &T) {
        self.put(Family::Im, key, json_row(row));
    }
}

/// A row of JSON behind its format version.
pub fn json_row<T: Serialize>(row: &T) -> Vec<u8> {
    let mut value = vec![VERSION];
    // Rows are plain structures with text keys: there is nothing in them that JSON cannot hold.
    serde_json::to_writer(&mut value, row).unwrap_or_default();
    value
}

/// Reads a row of JSON.
pub fn read_json<T: DeserializeOwned>(key: &[u8], row: &[u8]) -> Result<T, StoreError> {
    let damaged = |what| Damaged { family: Family::Im, key: key.to_vec(), what };
    match row.split_first() {
        Some((&VERSION, json)) => {
            serde_json::from_slice(json).map_err(|_| damaged("not the JSON it should be").into())
        }
        _ => Err(damaged("unknown format version").into()),
    }
}

#[cfg(test)]
mod tests {

    use hoopoe_store::MemoryKv;
    use hoopoe_store::kv::Batch;

    use super::*;

    fn all(txn: &mut Txn<'_>, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        txn.scan(Family::Im, prefix, b"", |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        found
    }

    fn row(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (key.into(), value.into())
    }

    #[test]
    fn a_batch_sees_its_own_changes_over_what_is_committed() {
        let kv: SharedKv = Arc::new(MemoryKv::new(None));
        let mut committed = Batch::default();
        for key in ["a1", "a3", "a5", "b1"] {
            committed.put(Family::Im, key.as_bytes(), b"old");
        }
        kv.write(&committed, true).unwrap();
        let mut rows = Rows::new(kv);
        let mut batch = PendingBatch::new();
        let mut txn = rows.open(&mut batch);
        txn.put(Family::Im, b"a2", b"new".to_vec());
        txn.put(Family::Im, b"a5", b"new".to_vec());
        txn.put(Family::Im, b"a9", b"new".to_vec());
        txn.delete(Family::Im, b"a3");
        let expected = [row("a1", "old"), row("a2", "new"), row("a5", "new"), row("a9", "new")];
        assert_eq!(all(&mut txn, b"a"), expected);
        assert_eq!(txn.get(Family::Im, b"a3").unwrap(), None);
        assert_eq!(txn.get(Family::Im, b"a1").unwrap().as_deref(), Some(&b"old"[..]));
        assert_eq!(txn.keys(Family::Im, b"a", 2).unwrap(), [b"a1".to_vec(), b"a2".to_vec()]);
        // The batch is lost: what was committed is there again.
        rows.forget();
        let mut batch = PendingBatch::new();
        let mut txn = rows.open(&mut batch);
        let expected = [row("a1", "old"), row("a3", "old"), row("a5", "old")];
        assert_eq!(all(&mut txn, b"a"), expected);
    }
}
