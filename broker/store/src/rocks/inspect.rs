//! What is looked at before a database is opened: files without which RocksDB would begin a new
//! one over the old, or would say that something is wrong and not where.
//!
//! Reads a few small files, and the logs, which are empty after a clean stop.

use std::fs;
use std::path::{Path, PathBuf};

use super::log_file::{self, Scanned};
use super::{FOLDER, RocksKv};
use crate::error::StoreError;
use crate::keys;
use crate::kv::{Family, Kv};
use crate::rows;
use crate::settings::StoreSettings;

/// The file that names the manifest in force.
const CURRENT: &str = "CURRENT";
/// What a manifest's name begins with.
const MANIFEST: &str = "MANIFEST-";
/// A database made by a repair or a restore that was not finished.
pub(super) const UNFINISHED: [&str; 2] = ["db.repaired", "db.restoring"];
/// Where damaged logs are kept, since an opening replaces them.
const DAMAGED_LOGS: &str = "damaged-logs";

/// What a store says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredFormat {
    /// Format of keys and rows.
    pub format: u8,
    /// Number of shards that wrote it.
    pub shards: u16,
}

/// Format and number of shards of the store in a data folder that nobody has open; `None` for a
/// folder without a store.
///
/// # Errors
/// When the store cannot be opened.
pub fn stored_format(folder: &Path) -> Result<Option<StoredFormat>, StoreError> {
    if !folder.join(FOLDER).join(CURRENT).exists() {
        before_open(folder)?;
        return Ok(None);
    }
    let settings = StoreSettings {
        folder: folder.to_path_buf(),
        reserve_bytes: 0,
        ..StoreSettings::default()
    };
    let kv = RocksKv::open(&settings, None)?;
    let Some(row) = kv.get(Family::Meta, keys::FORMAT)? else { return Ok(None) };
    let row = rows::read_format(&row).map_err(rows::at(Family::Meta, keys::FORMAT))?;
    Ok(Some(StoredFormat { format: row.format, shards: row.shards }))
}

/// Looks whether the database can be opened, and says what its logs will lose.
pub(super) fn before_open(folder: &Path) -> Result<(), StoreError> {
    can_be_opened(folder)?;
    report_logs(folder);
    Ok(())
}

/// Looks whether the database can be opened.
pub(super) fn can_be_opened(folder: &Path) -> Result<(), StoreError> {
    let corrupt = |what: String| StoreError::Corrupt { folder: folder.to_path_buf(), what };
    let database = folder.join(FOLDER);
    let names = names_in(&database);
    if names.is_empty() {
        let unfinished = UNFINISHED.iter().find(|name| folder.join(name).exists());
        return match unfinished {
            Some(name) => Err(corrupt(format!(
                "there is no {FOLDER}, but {name} from a repair or restore that was interrupted"
            ))),
            None => Ok(()),
        };
    }
    check_current(&database, &names).map(|_| ()).map_err(corrupt)
}

/// Says what the logs will lose.
pub(super) fn report_logs(folder: &Path) {
    let database = folder.join(FOLDER);
    for name in names_in(&database).iter().filter(|name| name.ends_with(".log")) {
        report_log(folder, &database.join(name));
    }
}

/// Names of the files of a folder, sorted; none when there is no such folder.
pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// RocksDB takes a folder without CURRENT for an empty one, and would begin anew.
pub(super) fn check_current(database: &Path, names: &[String]) -> Result<PathBuf, String> {
    let current = database.join(CURRENT);
    let data = |name: &&String| {
        name.starts_with(MANIFEST) || name.ends_with(".sst") || name.ends_with(".log")
    };
    let named = match fs::read_to_string(&current) {
        Ok(named) => named,
        Err(error) => match names.iter().find(data) {
            Some(name) => {
                let (current, name) = (current.display(), database.join(name));
                return Err(format!("{current}: {error}, yet there is {}", name.display()));
            }
            // An opening that was interrupted before there was anything.
            None => return Ok(current),
        },
    };
    let manifest = named.strip_suffix('\n').filter(|name| {
        name.strip_prefix(MANIFEST)
            .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let Some(manifest) = manifest else {
        return Err(format!("{} does not name a manifest", current.display()));
    };
    let manifest = database.join(manifest);
    let shown = manifest.display();
    let scanned = log_file::scan_file(&manifest, &mut |_| {})
        .map_err(|error| format!("{shown}, which {} names: {error}", current.display()))?;
    match scanned {
        Scanned { records: 0, .. } => Err(format!("{shown} holds no record")),
        // RocksDB leaves out an edit that was never written to its end, and nothing depends on it.
        Scanned { fault: Some(fault), end, length, .. } if fault != log_file::CUT => {
            Err(format!("{shown} {fault}, at byte {end} of {length}"))
        }
        _ => Ok(manifest),
    }
}

/// A log that was torn by a power failure has lost only what nobody was told of. One that goes on
/// behind a damaged record has lost more; it is kept, since RocksDB removes what it has read.
fn report_log(folder: &Path, log: &Path) {
    let Ok(scanned) = log_file::scan_file(log, &mut |_| {}) else { return };
    let Some(fault) = scanned.fault else { return };
    let Scanned { records, end, length, behind, .. } = scanned;
    let file = log.display();
    if behind == 0 {
        tracing::warn!(
            %file, records, at_byte = end, of_bytes = length,
            "the log {fault}, as after a power failure: what is behind it is left out"
        );
        return;
    }
    let kept = folder.join(DAMAGED_LOGS);
    let name = log.file_name().unwrap_or_default();
    let copied = fs::create_dir_all(&kept).and_then(|()| fs::copy(log, kept.join(name)));
    let kept = copied.map_or_else(|error| error.to_string(), |_| kept.display().to_string());
    tracing::error!(
        %file, records, at_byte = end, of_bytes = length, whole_pieces_behind = behind, kept,
        "the log {fault} with whole ones behind it: they are left out, messages may be lost"
    );
}
