//! What can go wrong in the store, named with its place.

use std::fmt;
use std::path::PathBuf;

use crate::kv::Family;

/// A fault while opening or reading the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the data folder open.
    #[error("data folder {} is in use by another process", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// The data folder cannot be made or written.
    #[error("data folder {} cannot be written: {reason}", path.display())]
    NotWritable {
        /// The data folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file of the store does not hold what was written to it, or is gone.
    #[error(
        "the store is damaged: {what}; copy the folder {0}, then keep what can be read with: \
         hoopoe repair {0}",
        folder.display()
    )]
    Corrupt {
        /// The data folder.
        folder: PathBuf,
        /// What is wrong, and in which file.
        what: String,
    },
    /// The rows were written by another version of the format.
    #[error("the data is of format {found}; this program reads format {known}")]
    Format {
        /// The format found.
        found: u8,
        /// The format this program knows.
        known: u8,
    },
    /// The number of shards is not the one the rows were written with (ruling 1).
    #[error("the data was written with {stored} shards, not {asked}: start with that number")]
    ShardsDiffer {
        /// Number of shards that wrote the rows.
        stored: u16,
        /// Number of shards asked for.
        asked: u16,
    },
    /// A row cannot be read back.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// Reading failed.
    #[error("the store cannot be read: {0}")]
    Read(String),
    /// Writing outside a batch failed.
    #[error("the store cannot be written: {0}")]
    Write(#[from] WriteError),
    /// The store is closed, or between a fault and its reopening.
    #[error("the store is closed")]
    Closed,
}

/// A row that does not hold what its key says. Names the row, never shows what is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// Where the row is.
    pub family: Family,
    /// Its key.
    pub key: Vec<u8>,
    /// What does not fit.
    pub what: &'static str,
}

impl std::error::Error for Damaged {}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged row in {}: {}: key ", self.family.name(), self.what)?;
        self.key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a batch was not written (ruling 12).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing of it is in the store.
    #[error("refused: {0}")]
    Refused(String),
    /// It may be in the store or not: nothing may be written before the store was reopened.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}
