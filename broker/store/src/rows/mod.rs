//! How rows are written and read back. Every row begins with the version of its format; a row
//! that cannot be read gives a fault, to which the caller adds the key.
//!
//! The layouts and the measurements behind them are in `FORMAT.md`.

#[cfg(feature = "rocksdb")]
mod check;
mod message;
mod session;
mod shard;
pub mod wire;

#[cfg(feature = "rocksdb")]
pub(crate) use check::check;
pub(crate) use message::{
    Body, EntryContent, EntryHead, body_fan_out, put_body, put_entry, put_reference, put_retained,
    read_body, read_entry, read_retained, read_weight,
};
pub(crate) use session::{
    ExchangeRow, GroupRow, MemberRow, ProgressRow, SessionRow, put_exchange, put_group, put_member,
    put_progress, put_session, put_subscription, put_will, put_window, read_exchange, read_group,
    read_member, read_progress, read_session, read_subscription, read_will, read_window,
};
pub(crate) use shard::{
    FormatRow, OutboxRow, ShardRow, put_format, put_outbox, put_shard, read_format, read_outbox,
    read_shard,
};
pub(crate) use wire::Fault;

use crate::error::Damaged;
use crate::kv::Family;

/// Version of every row's format, its first byte.
pub(crate) const VERSION: u8 = 1;

/// Adds the row's place to a fault.
pub(crate) fn at<'a>(family: Family, key: &'a [u8]) -> impl FnOnce(Fault) -> Damaged + 'a {
    move |what| Damaged { family, key: key.to_vec(), what }
}
