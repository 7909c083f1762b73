//! Repair: a new database of everything that can still be read, beside the damaged one, which is
//! kept.
//!
//! Where the manifest is sound the rows are read through it, past blocks that are damaged. Where it
//! is not, RocksDB finds the tables by itself and sets aside those it cannot read to their end;
//! the log is then read here, because RocksDB knows from a table alone what family a row is of.
//! What the rows say of each other is put right afterwards (`mend.rs`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{LiveFile, Options, WriteBatch, WriteBatchIteratorCf};

use super::inspect::{check_current, names_in};
use super::{Db, FOLDER, RocksKv, log_file, mend};
use crate::error::StoreError;
use crate::kv::{Batch, Family, Kv, Span};
use crate::rows;
use crate::settings::StoreSettings;

/// Where the tables are linked to, so that nothing touches the damaged database.
const SCRATCH: &str = "db.scratch";
/// Where the new database grows.
const REPAIRED: &str = "db.repaired";
/// What the damaged database is called afterwards, with a number behind it.
const DAMAGED: &str = "db.damaged";
/// Bytes of rows written at once.
const BATCH_BYTES: usize = 4 << 20;
/// Damaged places after which the manifest's view of the tables is given up.
const PLACES_MAX: usize = 10_000;
/// Bytes of a key that are counted through to find where a damaged block ends.
const COUNTED: usize = 16;

/// What a repair kept and lost.
#[derive(Debug)]
pub struct Salvage {
    /// Rows kept, by family.
    pub kept: Vec<(&'static str, u64)>,
    /// What was lost, or could not be told.
    pub lost: Vec<Lost>,
    /// Where the damaged database is now.
    pub damaged: PathBuf,
}

/// Something that was lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The file or the family.
    pub place: String,
    /// What.
    pub what: String,
}

impl Lost {
    pub(super) fn new(place: impl std::fmt::Display, what: impl Into<String>) -> Lost {
        Lost { place: place.to_string(), what: what.into() }
    }
}

/// Makes a new database of what can be read of the one in `folder`. `shards` is asked for only
/// when the store's own row that says it is lost.
///
/// # Errors
/// When the folder holds no store, one in use, or one of which nothing can be read; the damaged
/// database is then where it was.
pub fn repair(folder: &Path, shards: Option<u16>) -> Result<Salvage, StoreError> {
    let place = |error: io::Error| StoreError::NotWritable {
        path: folder.to_path_buf(),
        reason: error.to_string(),
    };
    let database = folder.join(FOLDER);
    if names_in(&database).is_empty() {
        let reason = format!("there is no store in {}", database.display());
        return Err(StoreError::NotWritable { path: folder.to_path_buf(), reason });
    }
    refuse_a_used_one(folder, &database)?;
    let (scratch, repaired) = (folder.join(SCRATCH), folder.join(REPAIRED));
    let mut lost = Vec::new();
    let linked = link(&database, &scratch).map_err(place)?;
    let sound = check_current(&linked, &names_in(&linked));
    let by_manifest = match sound {
        Ok(_) => salvage(&scratch, &repaired, true, &mut lost),
        Err(what) => {
            lost.push(Lost::new(what.replace(SCRATCH, "."), "the list of tables"));
            Err(StoreError::Closed)
        }
    };
    let new = match by_manifest {
        Ok(new) => new,
        Err(error) => {
            if !matches!(error, StoreError::Closed) {
                lost.push(Lost::new(&error, "read table by table instead"));
            }
            let linked = link(&database, &scratch).map_err(place)?;
            let new = salvage_tables(&linked, &scratch, &repaired, &mut lost)?;
            replay_logs(&database, &new, &mut lost)?;
            new
        }
    };
    report_logs(&database, &mut lost);
    let kept = mend::mend(&new, shards, &mut lost)?;
    new.flush_all()?;
    drop(new);
    let damaged = swap(folder, &database, &repaired).map_err(place)?;
    fs::remove_dir_all(&scratch).map_err(place)?;
    for found in &mut lost {
        let scratch = scratch.join(FOLDER).display().to_string();
        found.place = found.place.replace(&scratch, &database.display().to_string());
        found.what = found.what.replace(&scratch, &database.display().to_string());
    }
    Ok(Salvage { kept, lost, damaged })
}

fn settings(folder: &Path) -> StoreSettings {
    StoreSettings { folder: folder.to_path_buf(), reserve_bytes: 0, ..StoreSettings::default() }
}

/// RocksDB takes its lock before it looks at anything; what it then says does not matter.
fn refuse_a_used_one(folder: &Path, database: &Path) -> Result<(), StoreError> {
    let mut options = Options::default();
    options.create_if_missing(false);
    options.set_error_if_exists(true);
    let Err(error) = Db::open(&options, database) else { return Ok(()) };
    match RocksKv::closed(&settings(folder), None).open_error(&error) {
        locked @ StoreError::Locked { .. } => Err(locked),
        _ => Ok(()),
    }
}

/// A folder with the tables and logs of the database, linked, and copies of what is written over.
fn link(database: &Path, scratch: &Path) -> io::Result<PathBuf> {
    let linked = scratch.join(FOLDER);
    if scratch.exists() {
        fs::remove_dir_all(scratch)?;
    }
    fs::create_dir_all(&linked)?;
    for name in names_in(database) {
        let (from, to) = (database.join(&name), linked.join(&name));
        let unchanging = name.ends_with(".sst") || name.ends_with(".log");
        if unchanging && fs::hard_link(&from, &to).is_ok() {
            continue;
        }
        if unchanging || name.starts_with("MANIFEST") || name == "CURRENT" {
            fs::copy(&from, &to)?;
        }
    }
    Ok(linked)
}

/// Copies every row that can be read into a new database.
fn salvage(
    scratch: &Path,
    repaired: &Path,
    by_manifest: bool,
    lost: &mut Vec<Lost>,
) -> Result<RocksKv, StoreError> {
    let old = RocksKv::open_for_reading(&settings(scratch))?;
    if repaired.exists() {
        let reason = |error: io::Error| StoreError::NotWritable {
            path: repaired.to_path_buf(),
            reason: error.to_string(),
        };
        fs::remove_dir_all(repaired).map_err(reason)?;
    }
    let new = RocksKv::open(&settings(repaired), None)?;
    let mut found = Vec::new();
    for family in Family::ALL {
        let mut copying = Copying { new: &new, family, batch: Batch::default(), unreadable: 0 };
        copying.family(&old, by_manifest, &mut found)?;
        copying.write()?;
        if copying.unreadable > 0 {
            let what = format!("{} rows that cannot be understood", copying.unreadable);
            found.push(Lost::new(format!("family {}", family.name()), what));
        }
    }
    lost.append(&mut found);
    Ok(new)
}

/// Copies one family.
struct Copying<'a> {
    new: &'a RocksKv,
    family: Family,
    batch: Batch,
    unreadable: u64,
}

impl Copying<'_> {
    fn family(
        &mut self,
        old: &RocksKv,
        by_manifest: bool,
        lost: &mut Vec<Lost>,
    ) -> Result<(), StoreError> {
        let open = old.db()?;
        // A family that the old database never had.
        let Ok(handle) = open.family(self.family) else { return Ok(()) };
        let db = open.db()?;
        let name = self.family;
        let iterate = || {
            let mut options = super::read_options(name, Span::all());
            options.fill_cache(false);
            db.raw_iterator_cf_opt(handle, options)
        };
        let mut rows = iterate();
        rows.seek_to_first();
        let mut last = Vec::new();
        for _ in 0..PLACES_MAX {
            while let Some((key, value)) = rows.item() {
                self.keep(key, value)?;
                last.clear();
                last.extend_from_slice(key);
                rows.next();
            }
            let Err(error) = rows.status() else { return Ok(()) };
            let text = error.to_string();
            let files = db.live_files().map_err(super::read_error)?;
            let file = files.iter().find(|file| text.contains(&file.name));
            let skipped = file.filter(|_| by_manifest).and_then(|file| {
                let a_block = text.contains("block_type = Data");
                past_the_damage(&iterate, &last, file, a_block)
            });
            let (Some(file), Some(upto)) = (file, skipped) else {
                return Err(super::read_error(error));
            };
            let blocks = format!(
                "a stretch of family {} from key {} to {} ({text})",
                self.family.name(),
                hex(&last),
                hex(&upto),
            );
            lost.push(Lost::new(old.settings.folder.join(FOLDER).display(), blocks));
            let place = lost.last_mut().map(|lost| &mut lost.place);
            place.into_iter().for_each(|place| place.push_str(&file.name));
            rows = iterate();
            rows.seek(&upto);
            last = upto;
        }
        Err(StoreError::Read(format!("more than {PLACES_MAX} damaged places")))
    }

    fn keep(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        match rows::check(self.family, key, value) {
            Ok(()) => self.batch.put(self.family, key, value),
            Err(_) => self.unreadable += 1,
        }
        if self.batch.bytes() > BATCH_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        Ok(self.new.write(&std::mem::take(&mut self.batch), false)?)
    }
}

/// A key from which on rows can be read again, behind a damaged block. Keys are counted through
/// like numbers: first in growing steps until one can be sought, then by halves back. When the last
/// block of a file is damaged, the file's end is where to go on; but `None` when it is its index,
/// without which none of the file can be read.
fn past_the_damage<'a>(
    iterate: &dyn Fn() -> rocksdb::DBRawIteratorWithThreadMode<'a, Db>,
    last: &[u8],
    file: &LiveFile,
    a_block: bool,
) -> Option<Vec<u8>> {
    let start = file.start_key.as_deref()?.max(last);
    let end = file.end_key.as_deref()?;
    let same = start.iter().zip(end).take_while(|(a, b)| a == b).count();
    let key = |at: u128| [&end[..same], &at.to_be_bytes()].concat();
    // An iterator that has met a damaged block cannot be trusted with the next one.
    let can_seek = |at: u128| {
        let mut rows = iterate();
        rows.seek(key(at));
        rows.status().is_ok()
    };
    let (from, to) = (count(start, same), count(end, same));
    let (mut bad, mut step) = (from, 1_u128);
    let mut good = loop {
        let next = from.saturating_add(step).min(to);
        if can_seek(next) {
            break next;
        }
        if next == to {
            return a_block.then(|| [end, &[0]].concat());
        }
        (bad, step) = (next, step.saturating_mul(2));
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if can_seek(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Some(key(good))
}

/// The part of a key behind what is the same as a number.
fn count(key: &[u8], same: usize) -> u128 {
    let mut bytes = [0; COUNTED];
    let rest = &key[same.min(key.len())..];
    let length = rest.len().min(COUNTED);
    bytes[..length].copy_from_slice(&rest[..length]);
    u128::from_be_bytes(bytes)
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Has RocksDB make a manifest of the tables that can be read to their end.
fn salvage_tables(
    linked: &Path,
    scratch: &Path,
    repaired: &Path,
    lost: &mut Vec<Lost>,
) -> Result<RocksKv, StoreError> {
    let not_readable = |error: &dyn std::fmt::Display| StoreError::Read(error.to_string());
    for name in names_in(linked).iter().filter(|name| !name.ends_with(".sst")) {
        fs::remove_file(linked.join(name)).map_err(|error| not_readable(&error))?;
    }
    let mut options = Options::default();
    options.create_if_missing(true);
    Db::repair(&options, linked).map_err(|error| not_readable(&error))?;
    for name in names_in(&linked.join("lost")).iter().filter(|name| name.ends_with(".sst")) {
        let bytes = fs::metadata(linked.join("lost").join(name)).map_or(0, |file| file.len());
        let what = format!("the whole table of {bytes} bytes: it cannot be read to its end");
        lost.push(Lost::new(linked.join(name).display(), what));
    }
    salvage(scratch, repaired, false, lost)
}

/// The logs of a database without a manifest, oldest first, up to the first fault.
///
/// Rows that are in tables already are written once more: the last write of a row is in the last
/// log that has it, and logs go oldest first, so what is left is the latest.
fn replay_logs(database: &Path, new: &RocksKv, lost: &mut Vec<Lost>) -> Result<(), StoreError> {
    for name in names_in(database).iter().filter(|name| name.ends_with(".log")) {
        let mut fault = Ok(());
        let mut unreadable = 0;
        let scanned = log_file::scan_file(&database.join(name), &mut |record| {
            let mut replay = Replay::default();
            WriteBatch::from_data(record).iterate_cf(&mut replay);
            unreadable += replay.unreadable;
            if fault.is_ok() && !replay.batch.is_empty() {
                fault = new.write(&replay.batch, false);
            }
        });
        fault?;
        let place = database.join(name);
        if unreadable > 0 {
            let what = format!("{unreadable} rows that cannot be understood");
            lost.push(Lost::new(place.display(), what));
        }
        match scanned {
            Ok(scanned) if scanned.fault.is_none() => {}
            // What a later log holds rests on what is missing here.
            Ok(_) => return Ok(()),
            Err(error) => {
                lost.push(Lost::new(place.display(), error.to_string()));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The rows of one record of the log. RocksDB numbers families in the order in which they were
/// made, which is that of [`Family::ALL`]: new ones are added at its end.
#[derive(Default)]
struct Replay {
    batch: Batch,
    unreadable: u64,
}

impl WriteBatchIteratorCf for Replay {
    fn put_cf(&mut self, number: u32, key: &[u8], value: &[u8]) {
        let family = Family::ALL.get(number as usize).copied();
        match family.filter(|family| rows::check(*family, key, value).is_ok()) {
            Some(family) => self.batch.put(family, key, value),
            None => self.unreadable += 1,
        }
    }

    fn delete_cf(&mut self, number: u32, key: &[u8]) {
        if let Some(family) = Family::ALL.get(number as usize) {
            self.batch.delete(*family, key);
        }
    }

    fn merge_cf(&mut self, _: u32, _: &[u8], _: &[u8]) {
        self.unreadable += 1;
    }
}

/// What the logs of the damaged database do not give.
fn report_logs(database: &Path, lost: &mut Vec<Lost>) {
    for name in names_in(database).iter().filter(|name| name.ends_with(".log")) {
        let path = database.join(name);
        let Ok(scanned) = log_file::scan_file(&path, &mut |_| {}) else { continue };
        if let Some(fault) = scanned.fault {
            let (bytes, behind) = (scanned.length - scanned.end, scanned.behind);
            let what = format!(
                "the log {fault} at byte {}: {bytes} bytes from there on, {behind} whole pieces \
                 of records among them",
                scanned.end,
            );
            lost.push(Lost::new(path.display(), what));
        }
    }
}

/// The damaged database steps aside, the new one takes its place. In between there is none, which
/// an opening notices.
fn swap(folder: &Path, database: &Path, repaired: &Path) -> io::Result<PathBuf> {
    let free = (1_u32..).map(|number| folder.join(format!("{DAMAGED}-{number}")));
    let damaged = free.into_iter().find(|path| !path.exists());
    let damaged = damaged.unwrap_or_else(|| folder.join(DAMAGED));
    fs::rename(database, &damaged)?;
    fs::rename(repaired.join(FOLDER), database)?;
    fs::remove_dir_all(repaired)?;
    fs::File::open(folder)?.sync_all()?;
    Ok(damaged)
}
