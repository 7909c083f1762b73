//! Rows about the store and about a shard as a whole.

use hoopoe_core::{Publication, SessionKey};

use super::VERSION;
use super::message::{put_whole, take_whole};
use super::wire::{Cursor, Fault, put_bytes, put_number};

/// What the store says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FormatRow {
    /// Format of the keys and of the store as a whole.
    pub(crate) format: u8,
    /// Number of shards that wrote it.
    pub(crate) shards: u16,
}

/// The counters of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct ShardRow {
    /// Session, group and outbox numbers below this may have been used.
    pub(crate) numbers: u64,
    /// Body numbers below this may have been used.
    pub(crate) bodies: u64,
    /// Retained messages stored.
    pub(crate) retained: u64,
    /// Position of the last change of retained state.
    pub(crate) position: u64,
}

/// A message that a shard owes to be published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OutboxRow {
    /// On whose behalf.
    pub(crate) key: SessionKey,
    /// The message.
    pub(crate) publication: Publication,
}

pub(crate) fn put_format(out: &mut Vec<u8>, row: FormatRow) {
    out.push(row.format);
    put_number(out, u64::from(row.shards));
}

/// The format row's version *is* the format: it reads as long as it has one.
pub(crate) fn read_format(row: &[u8]) -> Result<FormatRow, Fault> {
    let format = *row.first().ok_or("empty")?;
    let mut cursor = Cursor::of(row, format)?;
    Ok(FormatRow { format, shards: cursor.u16()? })
}

pub(crate) fn put_shard(out: &mut Vec<u8>, row: &ShardRow) {
    out.push(VERSION);
    [row.numbers, row.bodies, row.retained, row.position]
        .iter()
        .for_each(|number| put_number(out, *number));
}

pub(crate) fn read_shard(row: &[u8]) -> Result<ShardRow, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let row = ShardRow {
        numbers: cursor.number()?,
        bodies: cursor.number()?,
        retained: cursor.number()?,
        position: cursor.number()?,
    };
    cursor.end()?;
    Ok(row)
}

pub(crate) fn put_outbox(out: &mut Vec<u8>, row: &OutboxRow) {
    out.push(VERSION);
    put_bytes(out, row.key.tenant.as_bytes());
    put_bytes(out, row.key.user.as_bytes());
    put_bytes(out, row.key.client.as_bytes());
    put_whole(out, &row.publication);
}

pub(crate) fn read_outbox(row: &[u8]) -> Result<OutboxRow, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let key = SessionKey::new(cursor.text()?, cursor.text()?, cursor.text()?);
    let row = OutboxRow { key, publication: take_whole(&mut cursor)? };
    cursor.end()?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_survive() {
        let row = ShardRow { numbers: 1 << 40, bodies: 3, retained: 0, position: 128 };
        let mut out = Vec::new();
        put_shard(&mut out, &row);
        assert_eq!(read_shard(&out), Ok(row));
        assert_eq!(read_shard(&[VERSION, 1]), Err("ends early"));
    }

    #[test]
    fn a_format_of_another_age_is_still_named() {
        assert_eq!(read_format(&[9, 4]), Ok(FormatRow { format: 9, shards: 4 }));
        assert_eq!(read_format(&[]), Err("empty"));
    }
}
