//! The store as a whole: opened once, shared by shards and readers.
//!
//! Owns what is said about all shards (format, number of shards, floors) and the rows of none.

use std::path::Path;
use std::sync::Arc;

use crate::error::StoreError;
use crate::floors::Floors;
use crate::keys;
use crate::kv::{Batch, Family, Kv, SharedKv};
use crate::memory::MemoryKv;
use crate::read::Reader;
use crate::rows::{self, FormatRow};
use crate::settings::{Durability, StoreSettings};

/// Format of the store. Another one is refused at open.
pub const FORMAT: u8 = 1;
/// Below this many dead bytes nothing is reclaimed.
pub const RECLAIM_MIN_BYTES: u64 = 64 << 20;

/// An open store.
#[derive(Clone)]
pub struct Store {
    kv: SharedKv,
    floors: Arc<Floors>,
    durability: Durability,
    shards: u16,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("shards", &self.shards).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in its folder, or an empty one in memory.
    pub fn open(settings: &StoreSettings) -> Result<Store, StoreError> {
        let floors = Arc::new(Floors::unsized_yet());
        let kv: SharedKv = match settings.durability {
            Durability::Memory => Arc::new(MemoryKv::new(Some(floors.clone()))),
            #[cfg(feature = "rocksdb")]
            Durability::Sync | Durability::Os => {
                Arc::new(crate::rocks::RocksKv::open(settings, Some(floors.clone()))?)
            }
            #[cfg(not(feature = "rocksdb"))]
            Durability::Sync | Durability::Os => {
                return Err(StoreError::NotWritable {
                    path: settings.folder.clone(),
                    reason: "this program was built without RocksDB".into(),
                });
            }
        };
        let shards = match settings.shards {
            0 => stored_shards(kv.as_ref())?.unwrap_or(settings.shards_if_new).max(1),
            asked => asked,
        };
        floors.set_shards(shards);
        Store::over(kv, floors, settings.durability, shards)
    }

    /// A store over rows that are there already. `floors` is what `kv` was given as judge.
    pub fn over(
        kv: SharedKv,
        floors: Arc<Floors>,
        durability: Durability,
        shards: u16,
    ) -> Result<Store, StoreError> {
        check_format(kv.as_ref(), shards)?;
        Ok(Store { kv, floors, durability, shards })
    }

    /// The rows.
    pub fn kv(&self) -> SharedKv {
        self.kv.clone()
    }

    /// The table of floors.
    pub fn floors(&self) -> Arc<Floors> {
        self.floors.clone()
    }

    /// When a write counts as done.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Number of shards.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// A reader for other threads.
    pub fn reader(&self) -> Reader {
        Reader::new(self.kv.clone(), self.floors.clone())
    }

    /// Closes and opens again after an unknown outcome; a no-op when nothing is wrong.
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.kv.reopen()
    }

    /// Gives the space of acknowledged messages back when it is worth it: more is dead than
    /// alive. Takes long: for a background thread, every few seconds. True when it did something.
    pub fn reclaim_if_due(&self) -> Result<bool, StoreError> {
        let bound = RECLAIM_MIN_BYTES.max(self.floors.counts().queued_bytes);
        let due = self.floors.dead_bytes() > bound;
        if due {
            self.reclaim()?;
        }
        Ok(due)
    }

    /// Gives the space of acknowledged messages back now.
    pub fn reclaim(&self) -> Result<(), StoreError> {
        self.floors.take_dead();
        self.kv.compact(Family::Queue)?;
        self.kv.compact(Family::Body)
    }

    /// Gives the space of removed entries of conversations back now. Takes long.
    pub fn reclaim_log(&self) -> Result<(), StoreError> {
        self.kv.compact(Family::Log)?;
        self.kv.compact(Family::Im)
    }

    /// Why nothing is written now, in the system's words; `None` when all is well.
    pub fn fault(&self) -> Option<String> {
        self.kv.fault()
    }

    /// Brings the files to rest: for a clean shutdown, and for a while without traffic.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.kv.flush()
    }

    /// A copy of the whole store in a new folder, as of now.
    pub fn checkpoint(&self, folder: &Path) -> Result<(), StoreError> {
        self.kv.checkpoint(folder)
    }
}

/// The number of shards that the rows were written with; `None` for a new store.
fn stored_shards(kv: &dyn Kv) -> Result<Option<u16>, StoreError> {
    let Some(row) = kv.get(Family::Meta, keys::FORMAT)? else { return Ok(None) };
    let row = rows::read_format(&row).map_err(rows::at(Family::Meta, keys::FORMAT))?;
    Ok(Some(row.shards))
}

fn check_format(kv: &dyn Kv, shards: u16) -> Result<(), StoreError> {
    let Some(row) = kv.get(Family::Meta, keys::FORMAT)? else {
        let mut batch = Batch::default();
        batch.put_with(Family::Meta, keys::FORMAT, |out| {
            rows::put_format(out, FormatRow { format: FORMAT, shards });
        });
        return Ok(kv.write(&batch, true)?);
    };
    let row = rows::read_format(&row).map_err(rows::at(Family::Meta, keys::FORMAT))?;
    if row.format != FORMAT {
        return Err(StoreError::Format { found: row.format, known: FORMAT });
    }
    if row.shards != shards {
        return Err(StoreError::ShardsDiffer { stored: row.shards, asked: shards });
    }
    Ok(())
}
