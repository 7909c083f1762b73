//! The twin of RocksDB in memory: for `durability = "memory"` and for tests.
//!
//! It keeps every promise of [`Kv`] and can be told to break them: a write refused, a write whose
//! outcome is unknown, a full disk, a read that fails, a crash that loses what was not synced.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::error::{StoreError, WriteError};
use crate::kv::{Batch, Change, Family, Found, Kv, RowJudge, Span, Visit};

type Row<'a> = (&'a Box<[u8]>, &'a Box<[u8]>);
type Rows = [BTreeMap<Box<[u8]>, Box<[u8]>>; Family::ALL.len()];

/// Rows looked at while the store is held, when dead ones are removed.
const COMPACT_STEP: usize = 1024;

/// What goes wrong with a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Refused, nothing written.
    Refused,
    /// Written, but reported as unknown.
    UnknownWritten,
    /// Not written, and reported as unknown.
    UnknownLost,
}

#[derive(Debug, Default)]
struct Faults {
    /// Writes so far.
    writes: u64,
    /// Which write fails, and how.
    at: Vec<(u64, FaultKind)>,
    /// Every write is refused.
    full: bool,
    /// After an unknown outcome, until reopened.
    poisoned: bool,
    /// Batches not synced yet, when crashes are simulated.
    unsynced: Option<Vec<Batch>>,
    /// Writes that asked for a sync.
    syncs: u64,
}

/// Rows in memory.
pub struct MemoryKv {
    rows: RwLock<Rows>,
    /// What a crash leaves, when crashes are simulated.
    synced: Mutex<Rows>,
    faults: Mutex<Faults>,
    /// Reads until one fails, 0 when none will.
    unread: AtomicU64,
    judge: Option<Arc<dyn RowJudge>>,
}

impl std::fmt::Debug for MemoryKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryKv").finish_non_exhaustive()
    }
}

impl MemoryKv {
    /// An empty store. Without a judge, dead rows stay.
    pub fn new(judge: Option<Arc<dyn RowJudge>>) -> MemoryKv {
        MemoryKv {
            rows: RwLock::default(),
            synced: Mutex::default(),
            faults: Mutex::default(),
            unread: AtomicU64::new(0),
            judge,
        }
    }

    /// From now on remembers what is not synced, so that [`crash`](Self::crash) can lose it.
    pub fn simulate_crashes(&self) {
        let rows = self.rows.write();
        *self.synced.lock() = rows.clone();
        self.faults.lock().unsynced = Some(Vec::new());
    }

    /// Whether [`simulate_crashes`](Self::simulate_crashes) was called.
    pub fn simulates_crashes(&self) -> bool {
        self.faults.lock().unsynced.is_some()
    }

    /// A store with the same rows, as after a clean end.
    pub fn copy(&self, judge: Option<Arc<dyn RowJudge>>) -> MemoryKv {
        let copy = MemoryKv::new(judge);
        *copy.rows.write() = self.rows.read().clone();
        copy
    }

    /// The store as a crash leaves it: what was synced, and the first `keep` of the batches that
    /// were not.
    pub fn crash(&self, keep: usize, judge: Option<Arc<dyn RowJudge>>) -> MemoryKv {
        let mut rows = self.synced.lock().clone();
        if let Some(unsynced) = &self.faults.lock().unsynced {
            unsynced.iter().take(keep).for_each(|batch| change(&mut rows, batch));
        }
        let after = MemoryKv::new(judge);
        *after.rows.write() = rows;
        after
    }

    /// The `nth` write from now on (1 is the next) fails.
    pub fn fail_write(&self, nth: u64, kind: FaultKind) {
        let mut faults = self.faults.lock();
        let at = faults.writes + nth;
        faults.at.push((at, kind));
    }

    /// The `nth` read from now on (1 is the next) fails; 0: none does.
    pub fn fail_read(&self, nth: u64) {
        self.unread.store(nth, Ordering::Relaxed);
    }

    fn read(&self) -> Result<(), StoreError> {
        if self.unread.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let relaxed = Ordering::Relaxed;
        match self.unread.fetch_update(relaxed, relaxed, |left| left.checked_sub(1)) {
            Ok(1) => Err(StoreError::Read("injected".into())),
            _ => Ok(()),
        }
    }

    /// The disk is full, or no longer.
    pub fn set_full(&self, full: bool) {
        self.faults.lock().full = full;
    }

    /// Number of writes so far that succeeded or failed.
    pub fn writes(&self) -> u64 {
        self.faults.lock().writes
    }

    /// Number of writes that asked for a sync.
    pub fn syncs(&self) -> u64 {
        self.faults.lock().syncs
    }

    /// Number of rows of a family.
    pub fn len(&self, family: Family) -> usize {
        self.rows.read()[family as usize].len()
    }

    /// True when a family has no rows.
    pub fn is_empty(&self, family: Family) -> bool {
        self.len(family) == 0
    }

    /// Decides a write's fate; `Some` when it is to be applied and still reported as failed.
    fn fate(&self, faults: &mut Faults) -> Result<Option<WriteError>, WriteError> {
        faults.writes += 1;
        if faults.poisoned {
            return Err(WriteError::Refused("the store waits to be reopened".into()));
        }
        if faults.full {
            return Err(WriteError::Refused("no space left".into()));
        }
        let now = faults.writes;
        let Some(found) = faults.at.iter().position(|(at, _)| *at == now) else {
            return Ok(None);
        };
        let unknown = WriteError::Unknown("injected".into());
        match faults.at.swap_remove(found).1 {
            FaultKind::Refused => Err(WriteError::Refused("injected".into())),
            FaultKind::UnknownLost => {
                faults.poisoned = true;
                Err(unknown)
            }
            FaultKind::UnknownWritten => {
                faults.poisoned = true;
                Ok(Some(unknown))
            }
        }
    }
}

fn change(rows: &mut Rows, batch: &Batch) {
    for change in batch.changes() {
        match change {
            Change::Put(family, key, value) => {
                rows[family as usize].insert(key.into(), value.into());
            }
            Change::Delete(family, key) => {
                rows[family as usize].remove(key);
            }
        }
    }
}

impl Kv for MemoryKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read()?;
        Ok(self.rows.read()[family as usize].get(key).map(|value| value.to_vec()))
    }

    fn multi_get(
        &self,
        family: Family,
        keys: &[&[u8]],
        found: &mut Found<'_>,
    ) -> Result<(), StoreError> {
        self.read()?;
        let rows = self.rows.read();
        for (at, key) in keys.iter().enumerate() {
            found(at, rows[family as usize].get(*key).map(AsRef::as_ref));
        }
        Ok(())
    }

    fn scan(
        &self,
        family: Family,
        span: Span<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.read()?;
        let rows = self.rows.read();
        if is_void(span) {
            return Ok(());
        }
        let range = rows[family as usize].range::<[u8], _>((span.from, span.to));
        let mut step = |(key, value): Row<'_>| visit(key, value);
        let _ = if span.reverse {
            range.rev().try_for_each(&mut step)
        } else {
            let mut range = range;
            range.try_for_each(&mut step)
        };
        Ok(())
    }

    fn write(&self, batch: &Batch, sync: bool) -> Result<(), WriteError> {
        let mut faults = self.faults.lock();
        let reported = self.fate(&mut faults)?;
        change(&mut self.rows.write(), batch);
        faults.syncs += u64::from(sync);
        if let Some(unsynced) = &mut faults.unsynced {
            unsynced.push(batch.clone());
            if sync {
                let mut synced = self.synced.lock();
                unsynced.drain(..).for_each(|batch| change(&mut synced, &batch));
            }
        }
        reported.map_or(Ok(()), Err)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.faults.lock().poisoned = false;
        Ok(())
    }

    fn probe(&self) -> Result<(), WriteError> {
        let faults = self.faults.lock();
        if faults.full || faults.poisoned {
            return Err(WriteError::Refused("no space left".into()));
        }
        Ok(())
    }

    fn fault(&self) -> Option<String> {
        self.probe().err().map(|error| error.to_string())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn compact(&self, family: Family) -> Result<(), StoreError> {
        let Some(judge) = &self.judge else { return Ok(()) };
        let mut from: Box<[u8]> = Box::default();
        loop {
            let mut dead = Vec::new();
            let mut last = None;
            let span = Span { from: std::ops::Bound::Excluded(&from), ..Span::all() };
            let mut left = COMPACT_STEP;
            self.scan(family, span, &mut |key, value| {
                if judge.is_dead(family, key, value) {
                    dead.push(key.to_vec());
                }
                last = Some(key.into());
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            let mut rows = self.rows.write();
            for key in dead {
                rows[family as usize].remove(key.as_slice());
            }
            match last {
                Some(last) if left == 0 => from = last,
                _ => return Ok(()),
            }
        }
    }

    fn checkpoint(&self, folder: &Path) -> Result<(), StoreError> {
        Err(StoreError::NotWritable {
            path: folder.to_path_buf(),
            reason: "a store in memory has no files to copy".into(),
        })
    }
}

/// True when a stretch begins behind its end, which `BTreeMap` does not accept.
fn is_void(span: Span<'_>) -> bool {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    match (span.from, span.to) {
        (Unbounded, _) | (_, Unbounded) => false,
        (Included(from), Included(to)) => from > to,
        (Included(from) | Excluded(from), Excluded(to)) | (Excluded(from), Included(to)) => {
            from >= to
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(kv: &MemoryKv, key: &[u8], sync: bool) -> Result<(), WriteError> {
        let mut batch = Batch::default();
        batch.put(Family::Queue, key, b"v");
        kv.write(&batch, sync)
    }

    #[test]
    fn faults_happen_as_told() {
        let kv = MemoryKv::new(None);
        kv.fail_write(2, FaultKind::Refused);
        kv.fail_write(3, FaultKind::UnknownWritten);
        assert_eq!(put(&kv, b"1", true), Ok(()));
        assert!(matches!(put(&kv, b"2", true), Err(WriteError::Refused(_))));
        assert!(matches!(put(&kv, b"3", true), Err(WriteError::Unknown(_))));
        assert!(matches!(put(&kv, b"4", true), Err(WriteError::Refused(_))), "poisoned");
        kv.reopen().expect("reopens");
        assert_eq!(put(&kv, b"5", true), Ok(()));
        let present: Vec<bool> = (1..=5)
            .map(|n| kv.get(Family::Queue, format!("{n}").as_bytes()))
            .map(|v| v.expect("reads").is_some())
            .collect();
        assert_eq!(present, [true, false, true, false, true]);
    }

    #[test]
    fn a_crash_keeps_what_was_synced() {
        let kv = MemoryKv::new(None);
        kv.simulate_crashes();
        for (key, sync) in [(b"1", false), (b"2", true), (b"3", false), (b"4", false)] {
            put(&kv, key, sync).expect("writes");
        }
        assert_eq!(kv.crash(0, None).len(Family::Queue), 2);
        assert_eq!(kv.crash(1, None).len(Family::Queue), 3);
        assert_eq!(kv.crash(9, None).len(Family::Queue), 4);
    }
}
