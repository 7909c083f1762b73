//! Durable state: sessions, queues, retained messages, wills and shared groups.
//!
//! A shard is the single writer of the rows of its slots. It is fed [`Command`]s, judges each in
//! [`ShardView::apply`] knowing all before it, and gives [`Effect`]s that can be had only out of
//! the receipt of a commit.

pub mod command;
pub mod effect;
pub mod error;
pub mod floors;
mod keys;
pub mod kv;
pub mod log;
pub mod memory;
pub mod read;
#[cfg(feature = "rocksdb")]
pub mod rocks;
mod rows;
pub mod settings;
pub mod store;
mod survey;
pub mod view;

pub use command::Command;
pub use effect::Effect;
pub use error::{Damaged, StoreError, WriteError};
pub use floors::Counts;
pub use log::{CommitError, PendingBatch, Receipt};
pub use memory::MemoryKv;
pub use read::{QueuePage, Reader, RetainedPage};
pub use rows::wire;
pub use settings::{Durability, Overflow, ShardSettings, StoreSettings};
pub use store::Store;
pub use survey::SessionSurvey;
pub use view::{Restored, RestoredGroup, RestoredSession, ShardView};
