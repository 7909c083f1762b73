//! The store on RocksDB.
//!
//! Owns the database of a data folder, and what happens when the disk fails: a write with an unknown
//! outcome closes it to writes until it was reopened; a full disk frees the reserve file and refuses
//! writes until the reserve can be made again (ruling 12). Reads go on meanwhile, from the database
//! as it was or from one opened for reading only.
//!
//! Not here: what is looked at before the opening (`inspect.rs`), the options (`options.rs`), and
//! repair (`salvage.rs`).

mod inspect;
mod judge;
mod log_file;
mod mend;
mod options;
mod salvage;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions,
    DBWithThreadMode, FlushOptions, ReadOptions, SingleThreaded, WriteBatch, WriteBufferManager,
    WriteOptions,
};

use crate::error::{StoreError, WriteError};
use crate::kv::{Batch, Change, Family, Found, Kv, RowJudge, Span, Visit, VisitEach};
use crate::settings::StoreSettings;

use self::options::read_options;

pub use inspect::{StoredFormat, stored_format};
pub use salvage::{Lost, Salvage, repair};

type Db = DBWithThreadMode<SingleThreaded>;

/// Folder of the database inside the data folder.
const FOLDER: &str = "db";
/// The file that is given up when the disk is full.
const RESERVE: &str = "reserve";
/// The file whose writing shows whether the disk takes anything at all.
const TRIAL: &str = "trial";
/// Its bytes: a block of most file systems.
const TRIAL_BYTES: usize = 4096;

/// A RocksDB database that can be closed and reopened under its users.
pub struct RocksKv {
    /// `None` between a fault and the reopening, and after a reopening that failed.
    db: RwLock<Option<Db>>,
    settings: StoreSettings,
    judge: Option<Arc<dyn RowJudge>>,
    cache: Cache,
    buffers: WriteBufferManager,
    /// A write had an unknown outcome: no write before the reopening.
    poisoned: AtomicBool,
    /// The reserve has been given up.
    full: AtomicBool,
    /// What the system said when a write failed, until writes succeed again.
    fault: Mutex<Option<Fault>>,
    /// What that write has left of the logs has been looked at.
    logs_told: AtomicBool,
    /// Held by who makes the reserve.
    reserving: Mutex<()>,
}

/// Why the store takes no writes.
#[derive(Clone, Debug)]
struct Fault {
    reason: String,
    /// A file does not hold what was written: reopening would find the same.
    damaged: bool,
}

impl std::fmt::Debug for RocksKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksKv").field("folder", &self.settings.folder).finish_non_exhaustive()
    }
}

impl RocksKv {
    /// Opens or makes the database of the data folder. With a judge, dead rows vanish when files
    /// are merged.
    pub fn open(
        settings: &StoreSettings,
        judge: Option<Arc<dyn RowJudge>>,
    ) -> Result<RocksKv, StoreError> {
        let kv = RocksKv::closed(settings, judge);
        fs::create_dir_all(&settings.folder).map_err(|error| kv.not_writable(&error))?;
        inspect::before_open(&settings.folder)?;
        let db = kv.open_db()?;
        *kv.db.write() = Some(db);
        if let Err(error) = kv.make_reserve() {
            tracing::warn!(%error, "no reserve file: the disk is (nearly) full");
            kv.set_full(&error.to_string());
        }
        Ok(kv)
    }

    fn closed(settings: &StoreSettings, judge: Option<Arc<dyn RowJudge>>) -> RocksKv {
        RocksKv {
            db: RwLock::new(None),
            // Looked up without a lock and without moving what is found to the front of a list:
            // 1.16 of `im-login`, 1.08 of its feed. 0: blocks of several sizes.
            cache: Cache::new_hyper_clock_cache(settings.block_cache_bytes, 0),
            // Not stalling: a shard that waits would keep its mailbox waiting; RocksDB's own
            // slow-down on too many files is the brake.
            buffers: WriteBufferManager::new_write_buffer_manager(
                settings.write_buffer_bytes,
                false,
            ),
            settings: settings.clone(),
            judge,
            poisoned: AtomicBool::new(false),
            full: AtomicBool::new(false),
            fault: Mutex::new(None),
            logs_told: AtomicBool::new(false),
            reserving: Mutex::new(()),
        }
    }

    /// Opens what is there for reading only.
    fn open_for_reading(settings: &StoreSettings) -> Result<RocksKv, StoreError> {
        let kv = RocksKv::closed(settings, None);
        let db = kv.open_to_read()?;
        *kv.db.write() = Some(db);
        Ok(kv)
    }

    fn set_full(&self, reason: &str) {
        self.full.store(true, Ordering::Release);
        *self.fault.lock() = Some(Fault { reason: reason.to_owned(), damaged: false });
    }

    fn not_writable(&self, reason: &dyn std::fmt::Display) -> StoreError {
        StoreError::NotWritable { path: self.settings.folder.clone(), reason: reason.to_string() }
    }

    fn open_db(&self) -> Result<Db, StoreError> {
        let families = Family::ALL
            .map(|family| ColumnFamilyDescriptor::new(family.name(), self.family_options(family)));
        let path = self.settings.folder.join(FOLDER);
        Db::open_cf_descriptors(&self.db_options(), path, families)
            .map_err(|error| self.open_error(&error))
    }

    /// The same rows for reading only, the log's included. Writes no file.
    fn open_to_read(&self) -> Result<Db, StoreError> {
        let path = self.settings.folder.join(FOLDER);
        let options = self.db_options();
        // What an older version never made is not there to be opened.
        let there = Db::list_cf(&options, &path).map_err(|error| self.open_error(&error))?;
        let families =
            Family::ALL.into_iter().filter(|family| there.iter().any(|name| name == family.name()));
        let families = families
            .map(|family| ColumnFamilyDescriptor::new(family.name(), self.family_options(family)));
        Db::open_cf_descriptors_read_only(&options, path, families, false)
            .map_err(|error| self.open_error(&error))
    }

    fn open_error(&self, error: &rocksdb::Error) -> StoreError {
        let text = error.to_string();
        // RocksDB has no kind of its own for its lock.
        let busy = text.contains("lock file") && text.contains("temporarily unavailable");
        if busy || text.contains("lock hold by current process") {
            return StoreError::Locked { path: self.settings.folder.clone() };
        }
        match error.kind() {
            rocksdb::ErrorKind::Corruption => self.corrupt(text),
            _ => self.not_writable(&text),
        }
    }

    fn corrupt(&self, what: String) -> StoreError {
        StoreError::Corrupt { folder: self.settings.folder.clone(), what }
    }

    fn reserve(&self) -> PathBuf {
        self.settings.folder.join(RESERVE)
    }

    /// Makes the reserve file, of real zeros: an empty file of that length would hold no space.
    fn make_reserve(&self) -> io::Result<()> {
        let (path, bytes) = (self.reserve(), self.settings.reserve_bytes);
        if bytes == 0 || fs::metadata(&path).is_ok_and(|file| file.len() == bytes) {
            return Ok(());
        }
        let write = || {
            let mut file = File::create(&path)?;
            let zeros = vec![0; 1 << 20];
            let mut left = bytes;
            while left > 0 {
                let step = left.min(zeros.len() as u64);
                file.write_all(&zeros[..step as usize])?;
                left -= step;
            }
            file.sync_all()
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }

    /// A write failed. Whatever RocksDB says, the log may hold the batch: an error is never taken
    /// for "not written".
    pub(crate) fn poison(&self, error: &str) {
        let damaged = error.starts_with("Corruption");
        *self.fault.lock() = Some(Fault { reason: error.to_owned(), damaged });
        self.poisoned.store(true, Ordering::Release);
        if is_lack_of_room(error) {
            self.full.store(true, Ordering::Release);
        }
    }

    /// Whether the disk takes a block and its sync. A database that can still be read is not
    /// closed for one that could not be opened.
    fn try_disk(&self) -> io::Result<()> {
        let path = self.settings.folder.join(TRIAL);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(&[0; TRIAL_BYTES])?;
            file.sync_all()
        };
        let tried = write();
        let _ = fs::remove_file(&path);
        tried
    }

    fn db(&self) -> Result<OpenDb<'_>, StoreError> {
        let guard = self.db.read();
        if guard.is_none() {
            return Err(StoreError::Closed);
        }
        Ok(OpenDb(guard))
    }

    /// One iterator for all stretches: making it costs more than reading a few rows, and it does
    /// not read the block again in which it stands.
    fn scan_spans(
        &self,
        family: Family,
        spans: &[(&[u8], &[u8])],
        keep_blocks: bool,
        visit: &mut VisitEach<'_>,
    ) -> Result<(), StoreError> {
        let open = self.db()?;
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.fill_cache(keep_blocks);
        let mut rows = open.db()?.raw_iterator_cf_opt(open.family(family)?, options);
        for (at, (first, last)) in spans.iter().enumerate() {
            rows.seek(first);
            while let Some((key, value)) = rows.item() {
                // Behind the last one may lie another block.
                let is_last = key == *last;
                if key > *last || visit(at, key, value).is_break() || is_last {
                    break;
                }
                rows.next();
            }
            rows.status().map_err(read_error)?;
        }
        Ok(())
    }

    /// Writes what is in memory into files, so that the log can go.
    fn flush_all(&self) -> Result<(), StoreError> {
        let open = self.db()?;
        let families = Family::ALL.map(|family| open.family(family));
        let families: Vec<&ColumnFamily> = families.into_iter().collect::<Result<_, _>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        open.db()?.flush_cfs_opt(&families, &options).map_err(read_error)
    }
}

/// The database while nobody closes it.
struct OpenDb<'a>(RwLockReadGuard<'a, Option<Db>>);

impl OpenDb<'_> {
    fn db(&self) -> Result<&Db, StoreError> {
        self.0.as_ref().ok_or(StoreError::Closed)
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        self.db()?.cf_handle(family.name()).ok_or(StoreError::Closed)
    }
}

/// True when the system has no room for the file: the disk is full, or the user's share of it, or
/// the file as large as it may get.
fn is_lack_of_room(error: &str) -> bool {
    ["No space left", "Disk quota exceeded", "File too large"]
        .iter()
        .any(|words| error.contains(words))
}

/// RocksDB names the file in which a block is damaged.
fn read_error(error: rocksdb::Error) -> StoreError {
    let hint = match error.kind() {
        rocksdb::ErrorKind::Corruption => " (`hoopoe repair` keeps what can be read)",
        _ => "",
    };
    StoreError::Read(error.into_string() + hint)
}

/// What a batch leaves behind, each row once, in the order in which the memory tables have them:
/// each insertion begins where the one before it ended.
fn in_key_order(batch: &Batch) -> Vec<Change<'_>> {
    fn place<'a>(change: &Change<'a>) -> (u8, &'a [u8]) {
        match *change {
            Change::Put(family, key, _) | Change::Delete(family, key) => (family as u8, key),
        }
    }
    let mut changes: Vec<Change<'_>> = batch.changes().collect();
    // Stable: of several changes of a row the last is the one that stays.
    changes.sort_by(|a, b| place(a).cmp(&place(b)));
    changes.reverse();
    changes.dedup_by(|a, b| place(a) == place(b));
    changes.reverse();
    changes
}

impl Kv for RocksKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let open = self.db()?;
        open.db()?.get_cf(open.family(family)?, key).map_err(read_error)
    }

    fn multi_get(
        &self,
        family: Family,
        keys: &[&[u8]],
        found: &mut Found<'_>,
    ) -> Result<(), StoreError> {
        let open = self.db()?;
        let values =
            open.db()?.batched_multi_get_cf(open.family(family)?, keys.iter().copied(), false);
        for (at, value) in values.into_iter().enumerate() {
            found(at, value.map_err(read_error)?.as_deref());
        }
        Ok(())
    }

    fn scan(
        &self,
        family: Family,
        span: Span<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let open = self.db()?;
        let options = read_options(family, span);
        let mut rows = open.db()?.raw_iterator_cf_opt(open.family(family)?, options);
        if span.reverse {
            rows.seek_to_last();
        } else {
            match span.from {
                Bound::Included(from) | Bound::Excluded(from) => rows.seek(from),
                Bound::Unbounded => rows.seek_to_first(),
            }
        }
        let skip = match span.from {
            Bound::Excluded(from) => Some(from),
            _ => None,
        };
        while let Some((key, value)) = rows.item() {
            if skip != Some(key)
                && let ControlFlow::Break(()) = visit(key, value)
            {
                break;
            }
            if span.reverse {
                rows.prev();
            } else {
                rows.next();
            }
        }
        rows.status().map_err(read_error)
    }

    fn scan_each(
        &self,
        family: Family,
        spans: &[(&[u8], &[u8])],
        visit: &mut VisitEach<'_>,
    ) -> Result<(), StoreError> {
        self.scan_spans(family, spans, true, visit)
    }

    fn scan_each_once(
        &self,
        family: Family,
        spans: &[(&[u8], &[u8])],
        visit: &mut VisitEach<'_>,
    ) -> Result<(), StoreError> {
        self.scan_spans(family, spans, false, visit)
    }

    fn write(&self, batch: &Batch, sync: bool) -> Result<(), WriteError> {
        let refused = |reason: &str| Err(WriteError::Refused(reason.to_owned()));
        if self.poisoned.load(Ordering::Acquire) {
            return refused("the store waits to be reopened");
        }
        if self.full.load(Ordering::Acquire) {
            return refused("the disk is full; waiting for room");
        }
        let closed = |error: StoreError| WriteError::Refused(error.to_string());
        let open = self.db().map_err(closed)?;
        let mut families = [None; Family::ALL.len()];
        for family in Family::ALL {
            families[family as usize] = Some(open.family(family).map_err(closed)?);
        }
        let mut rows = WriteBatch::with_capacity_bytes(batch.bytes() + 12 * batch.len() + 64);
        for change in in_key_order(batch) {
            match change {
                Change::Put(family, key, value) => {
                    if let Some(family) = families[family as usize] {
                        rows.put_cf(family, key, value);
                    }
                }
                Change::Delete(family, key) => {
                    if let Some(family) = families[family as usize] {
                        rows.delete_cf(family, key);
                    }
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        options.set_memtable_insert_hint_per_batch(true);
        let db = open.db().map_err(closed)?;
        db.write_opt(rows, &options).map_err(|error| {
            let text = error.into_string();
            self.poison(&text);
            WriteError::Unknown(text)
        })
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut db = self.db.write();
        if db.is_some() && !self.poisoned.load(Ordering::Acquire) {
            return Ok(());
        }
        let fault = self.fault.lock().clone();
        if let Some(Fault { reason, damaged: true }) = fault {
            return Err(self.corrupt(reason));
        }
        if self.full.load(Ordering::Acquire) {
            // Opening writes files: the reserve is what is left to write them with.
            let _ = fs::remove_file(self.reserve());
        }
        self.try_disk().map_err(|error| self.not_writable(&error))?;
        // Closed before it is opened: the lock on the folder is one of files, not of this value.
        drop(db.take());
        // As at the start; the logs once, as a reopening that fails is tried again every second.
        let folder = &self.settings.folder;
        if !self.logs_told.swap(true, Ordering::AcqRel) {
            inspect::report_logs(folder);
        }
        match inspect::can_be_opened(folder).and_then(|()| self.open_db()) {
            Ok(open) => *db = Some(open),
            Err(error) => {
                match self.open_to_read() {
                    Ok(open) => *db = Some(open),
                    Err(error) => tracing::error!(%error, "the store cannot even be read"),
                }
                return Err(error);
            }
        }
        self.logs_told.store(false, Ordering::Release);
        self.poisoned.store(false, Ordering::Release);
        if !self.full.load(Ordering::Acquire) {
            *self.fault.lock() = None;
        }
        tracing::info!("the store was reopened");
        Ok(())
    }

    fn probe(&self) -> Result<(), WriteError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(WriteError::Refused("the store waits to be reopened".into()));
        }
        if self.full.load(Ordering::Acquire) {
            // Each shard asks; one of them at a time fills the disk to see whether there is room.
            let Some(_reserving) = self.reserving.try_lock() else {
                return Err(WriteError::Refused("the disk is full".into()));
            };
            self.make_reserve().map_err(|error| WriteError::Refused(error.to_string()))?;
            self.full.store(false, Ordering::Release);
            *self.fault.lock() = None;
        }
        Ok(())
    }

    fn takes_writes(&self) -> bool {
        !self.poisoned.load(Ordering::Relaxed) && !self.full.load(Ordering::Relaxed)
    }

    fn fault(&self) -> Option<String> {
        self.fault.lock().as_ref().map(|fault| fault.reason.clone())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.flush_all()
    }

    fn compact(&self, family: Family) -> Result<(), StoreError> {
        let open = self.db()?;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::IfHaveCompactionFilter);
        open.db()?.compact_range_cf_opt(
            open.family(family)?,
            None::<&[u8]>,
            None::<&[u8]>,
            &options,
        );
        Ok(())
    }

    fn checkpoint(&self, folder: &Path) -> Result<(), StoreError> {
        let open = self.db()?;
        let copy = Checkpoint::new(open.db()?).map_err(read_error)?;
        copy.create_checkpoint(folder.join(FOLDER)).map_err(read_error)
    }
}
