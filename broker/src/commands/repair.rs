//! `hoopoe repair`: keeps what can be read of a damaged store, and says what cannot.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use hoopoe_store::rocks;

/// Repairs the store of a data folder that no broker has open. The damaged files are kept beside
/// it.
///
/// # Errors
/// When nothing can be read, or the folder cannot be written; the store is then as it was.
pub fn repair(data: &Path, shards: Option<u16>, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let salvage = rocks::repair(data, shards)?;
    for lost in &salvage.lost {
        writeln!(out, "lost: {}: {}", lost.place, lost.what)?;
    }
    if salvage.lost.is_empty() {
        writeln!(out, "nothing was lost: every row can be read")?;
    }
    for (family, rows) in &salvage.kept {
        writeln!(out, "kept: {rows} rows of family {family}")?;
    }
    let (data, damaged) = (data.display(), salvage.damaged.display());
    writeln!(out, "{data}: repaired; the files as they were are in {damaged}")?;
    Ok(ExitCode::SUCCESS)
}
