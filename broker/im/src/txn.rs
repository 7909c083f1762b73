//! Rows as one shard sees them: what is committed, below what its present batch has changed.
//!
//! A [`Rows`] belongs to one shard and outlives its batches: it keeps what was read or written
//! lately, bounded, and it keeps what the batch under way has written, which no other thread can
//! see yet. A [`Txn`] is a look through it while one command is applied. After a failed commit
//! everything kept is forgotten: the store is read again.
//!
//! Deliberately not here: what rows mean (`rows`), how keys are spelled (`keys`).

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use foldhash::HashMap;
use hoopoe_store::PendingBatch;
use hoopoe_store::kv::{Family, SharedKv, Span};
use hoopoe_store::{Damaged, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::effect::{Effect, Pending};
use crate::rows::VERSION;

/// Rows kept after they were read or written; when there are more, all are forgotten, which costs
/// one read each when they are asked for again.
const MOST_KEPT: usize = 65_536;
/// Rows above this size are not kept.
const MOST_KEPT_BYTES: usize = 4_096;

type RowKey = (u8, Box<[u8]>);

/// What one shard knows of its rows without asking the store.
pub struct Rows {
    kv: SharedKv,
    /// Rows as they are committed; `None`: there is none.
    kept: HashMap<RowKey, Option<Bytes>>,
    /// What the present batch has changed.
    changed: BTreeMap<RowKey, Option<Bytes>>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("kept", &self.kept.len()).finish_non_exhaustive()
    }
}

impl Rows {
    /// Nothing kept yet.
    pub fn new(kv: SharedKv) -> Rows {
        Rows { kv, kept: HashMap::default(), changed: BTreeMap::new() }
    }

    /// The store below.
    pub fn kv(&self) -> &SharedKv {
        &self.kv
    }

    /// The batch is committed: what it changed is what the store holds.
    pub fn committed(&mut self) {
        if self.kept.len() + self.changed.len() > MOST_KEPT {
            self.kept.clear();
        }
        for (key, value) in std::mem::take(&mut self.changed) {
            // Entries of logs are written once and read by others.
            let log = key.0 == Family::Log as u8;
            if log || value.as_ref().is_some_and(|value| value.len() > MOST_KEPT_BYTES) {
                self.kept.remove(&key);
            } else {
                self.kept.insert(key, value);
            }
        }
    }

    /// The batch is lost: everything is read again.
    pub fn forget(&mut self) {
        self.kept.clear();
        self.changed.clear();
    }

    /// A look through these rows that writes into `batch`.
    pub fn open<'a>(&'a mut self, batch: &'a mut PendingBatch) -> Txn<'a> {
        Txn { rows: self, batch, staged: Vec::new(), effects: Vec::new() }
    }
}

/// Rows while one command is applied. What it writes, and what it makes happen, counts only once
/// it is [finished](Self::finish): a command that is refused half way leaves nothing.
pub struct Txn<'a> {
    rows: &'a mut Rows,
    batch: &'a mut PendingBatch,
    staged: Vec<Staged>,
    effects: Vec<Effect>,
}

struct Staged {
    key: RowKey,
    value: Option<Bytes>,
    lazily: bool,
}

impl Txn<'_> {
    /// The value of a row.
    pub fn get(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let tag = family as u8;
        let staged = self.staged.iter().rev().find(|s| s.key.0 == tag && *s.key.1 == *key);
        if let Some(staged) = staged {
            return Ok(staged.value.clone());
        }
        let at: RowKey = (tag, key.into());
        if let Some(changed) = self.rows.changed.get(&at) {
            return Ok(changed.clone());
        }
        if let Some(kept) = self.rows.kept.get(&at) {
            return Ok(kept.clone());
        }
        let value = self.rows.kv.get(family, key)?.map(Bytes::from);
        if family != Family::Log && value.as_ref().is_none_or(|v| v.len() <= MOST_KEPT_BYTES) {
            if self.rows.kept.len() >= MOST_KEPT {
                self.rows.kept.clear();
            }
            self.rows.kept.insert(at, value.clone());
        }
        Ok(value)
    }

    /// The value of a row of another shard, as committed; it is not kept.
    pub fn peek(&mut self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.kv.get(family, key)
    }

    /// A row of JSON of the family `im` as committed; it is not kept.
    pub fn peek_json<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let row = self.rows.kv.get(Family::Im, key)?;
        row.map(|row| read_json(key, &row)).transpose()
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
        self.stage(family, key, Some(value.into()), false);
    }

    /// Writes a row that may wait for the next synced batch.
    pub fn put_lazily(&mut self, family: Family, key: &[u8], value: Vec<u8>) {
        self.stage(family, key, Some(value.into()), true);
    }

    /// Removes a row.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.stage(family, key, None, false);
    }

    fn stage(&mut self, family: Family, key: &[u8], value: Option<Bytes>, lazily: bool) {
        self.staged.push(Staged { key: (family as u8, key.into()), value, lazily });
    }

    /// Adds what happens once the batch is committed.
    pub fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// The command is applied: its rows go into the batch, its effects to `pending`.
    pub fn finish(mut self, pending: &mut Pending) {
        for Staged { key, value, lazily } in self.staged.drain(..) {
            let family = Family::ALL[usize::from(key.0)];
            match &value {
                Some(value) if lazily => self.batch.put_lazily(family, &key.1, value),
                Some(value) => self.batch.put(family, &key.1, value),
                None => self.batch.delete(family, &key.1),
            }
            self.rows.changed.insert(key, value);
        }
        pending.extend(self.effects);
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
        let changed = self.uncommitted(family as u8, prefix, start);
        let mut changed = changed.into_iter().peekable();
        let mut ended = false;
        let span = Span { from: Bound::Included(start), to: Bound::Unbounded, reverse: false };
        self.rows.kv.scan(family, span, &mut |key, value| {
            if !key.starts_with(prefix) {
                return ControlFlow::Break(());
            }
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

    /// What the batch and this command have changed below a prefix, from a key on.
    fn uncommitted(
        &self,
        tag: u8,
        prefix: &[u8],
        start: &[u8],
    ) -> BTreeMap<Box<[u8]>, Option<Bytes>> {
        let from = (Bound::Included((tag, Box::from(start))), Bound::Unbounded);
        let batch = self.rows.changed.range(from);
        let batch = batch
            .take_while(|((family, key), _)| *family == tag && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), value.clone()));
        let mut changed: BTreeMap<_, _> = batch.collect();
        for Staged { key: (family, key), value, .. } in &self.staged {
            if *family == tag && key.starts_with(prefix) && **key >= *start {
                changed.insert(key.clone(), value.clone());
            }
        }
        changed
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
    use std::sync::Arc;

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
