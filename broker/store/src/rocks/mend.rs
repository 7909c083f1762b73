//! What rows say of each other, put right after some were lost: counters at least as high as what
//! was counted with them, no part without its whole.

use std::ops::ControlFlow;

use foldhash::HashSet;
use hoopoe_core::{SessionId, Slot};

use super::RocksKv;
use super::salvage::Lost;
use crate::error::{StoreError, WriteError};
use crate::keys::{self, session_kind, shard_kind};
use crate::kv::{Batch, Family, Kv, Span};
use crate::rows::{self, EntryContent, FormatRow, ShardRow};
use crate::store::FORMAT;

/// Numbers left free where it is not known how many were used.
const UNKNOWN_NUMBERS: u64 = 1 << 24;
/// The part of a body's number that its shard counts.
const BODY_MASK: u64 = (1 << 48) - 1;

/// Puts a database right that was made of what could be read. Gives the rows kept by family.
pub(super) fn mend(
    kv: &RocksKv,
    shards: Option<u16>,
    lost: &mut Vec<Lost>,
) -> Result<Vec<(&'static str, u64)>, StoreError> {
    let shards = mend_format(kv, shards, lost)?;
    let mut seen = Seen::new(shards);
    seen.sessions(kv, lost)?;
    seen.entries(kv, lost)?;
    seen.retained(kv)?;
    seen.counters(kv, lost)?;
    let mut kept = Vec::new();
    for family in Family::ALL {
        let mut rows = 0;
        each(kv, family, |_, _| rows += 1)?;
        kept.push((family.name(), rows));
    }
    Ok(kept)
}

fn each(
    kv: &RocksKv,
    family: Family,
    mut visit: impl FnMut(&[u8], &[u8]),
) -> Result<(), StoreError> {
    kv.scan(family, Span::all(), &mut |key, value| {
        visit(key, value);
        ControlFlow::Continue(())
    })
}

/// The number of shards, from the store's own row, or else from who knows it.
fn mend_format(kv: &RocksKv, shards: Option<u16>, lost: &mut Vec<Lost>) -> Result<u16, StoreError> {
    if let Some(row) = kv.get(Family::Meta, keys::FORMAT)? {
        let row = rows::read_format(&row).map_err(rows::at(Family::Meta, keys::FORMAT))?;
        if row.format != FORMAT {
            return Err(StoreError::Format { found: row.format, known: FORMAT });
        }
        return Ok(row.shards);
    }
    let Some(shards) = shards else {
        return Err(StoreError::Read(
            "the number of shards is lost: say it with --shards (unless it was set, one per core \
             of the machine it was made on, 4 at most)"
                .into(),
        ));
    };
    lost.push(Lost::new("family default", format!("the number of shards: {shards} as said")));
    let mut batch = Batch::default();
    batch.put_with(Family::Meta, keys::FORMAT, |out| {
        rows::put_format(out, FormatRow { format: FORMAT, shards });
    });
    kv.write(&batch, false)?;
    Ok(shards)
}

/// What was met, by shard.
struct Seen {
    shards: u16,
    owners: HashSet<SessionId>,
    rows: Vec<ShardRow>,
}

impl Seen {
    fn new(shards: u16) -> Seen {
        let rows = vec![ShardRow::default(); usize::from(shards.max(1))];
        Seen { shards: shards.max(1), owners: HashSet::default(), rows }
    }

    fn row(&mut self, slot: Slot) -> &mut ShardRow {
        &mut self.rows[slot.shard(usize::from(self.shards))]
    }

    /// A session or group of this number was there.
    fn number(&mut self, id: SessionId) {
        let number = id.0 & ((1 << 52) - 1);
        let row = self.row(id.slot());
        row.numbers = row.numbers.max(number + 1);
    }

    /// Parts of sessions and groups whose own row is lost go.
    fn sessions(&mut self, kv: &RocksKv, lost: &mut Vec<Lost>) -> Result<(), StoreError> {
        each(kv, Family::Session, |key, _| {
            if let (Some(id), Some(kind)) = (keys::session_of(key), key.get(8)) {
                self.number(id);
                if matches!(*kind, session_kind::SESSION | session_kind::GROUP) {
                    self.owners.insert(id);
                }
            }
        })?;
        let mut sweep = Sweep::new(Family::Session);
        each(kv, Family::Session, |key, _| {
            let owned = keys::session_of(key).is_some_and(|id| self.owners.contains(&id));
            sweep.judge(kv, key, owned);
        })?;
        sweep.end(kv, "parts of sessions and groups that are lost themselves", lost)
    }

    /// Entries whose message is lost go: a receiver could not be sent them.
    fn entries(&mut self, kv: &RocksKv, lost: &mut Vec<Lost>) -> Result<(), StoreError> {
        let mut bodies = HashSet::default();
        each(kv, Family::Body, |key, _| {
            let number = keys::u64_at(key, 0).unwrap_or_default();
            bodies.insert(number);
            if let Some(row) = self.rows.get_mut((number >> 48) as usize) {
                row.bodies = row.bodies.max((number & BODY_MASK) + 1);
            }
        })?;
        let mut sweep = Sweep::new(Family::Queue);
        each(kv, Family::Queue, |key, value| {
            if let Some(id) = keys::session_of(key) {
                self.number(id);
            }
            let whole = rows::read_entry(value).is_ok_and(|row| match row.content {
                EntryContent::Split(number) => {
                    if let Some(row) = self.rows.get_mut((number >> 48) as usize) {
                        row.bodies = row.bodies.max((number & BODY_MASK) + 1);
                    }
                    bodies.contains(&number)
                }
                EntryContent::Inline(_) => true,
            });
            sweep.judge(kv, key, whole);
        })?;
        sweep.end(kv, "queue entries whose message is lost", lost)
    }

    fn retained(&mut self, kv: &RocksKv) -> Result<(), StoreError> {
        each(kv, Family::Retained, |key, value| {
            let position = rows::read_retained(value).map_or(0, |(position, _)| position);
            let row = self.row(Slot::of(key));
            row.retained += 1;
            row.position = row.position.max(position);
        })
    }

    /// Counters at least as high as what was counted with them, and the retained messages as many
    /// as there are.
    fn counters(&mut self, kv: &RocksKv, lost: &mut Vec<Lost>) -> Result<(), StoreError> {
        each(kv, Family::Shard, |key, _| {
            let number = match key.get(2) {
                Some(&shard_kind::OUTBOX) => keys::outbox_number(key).map(SessionId),
                Some(&shard_kind::MARKER) => keys::marker_of(key).map(|marker| marker.session),
                _ => None,
            };
            number.into_iter().for_each(|id| self.number(id));
        })?;
        let mut batch = Batch::default();
        for shard in 0..self.shards {
            let key = keys::shard_head(shard);
            let mut row = self.rows[usize::from(shard)];
            let stored = kv.get(Family::Shard, &key)?;
            match stored.as_deref().map(rows::read_shard) {
                Some(Ok(stored)) => {
                    row.numbers = row.numbers.max(stored.numbers);
                    row.bodies = row.bodies.max(stored.bodies);
                    row.position = row.position.max(stored.position);
                }
                _ if row == ShardRow::default() => continue,
                _ => {
                    let what =
                        format!("the counters of shard {shard}; set behind all that is there");
                    lost.push(Lost::new("family shard", what));
                    row.numbers += UNKNOWN_NUMBERS;
                    row.bodies += UNKNOWN_NUMBERS;
                    row.position += UNKNOWN_NUMBERS;
                }
            }
            batch.put_with(Family::Shard, &key, |out| rows::put_shard(out, &row));
        }
        Ok(kv.write(&batch, false)?)
    }
}

/// Removes rows of a family while it is scanned.
struct Sweep {
    family: Family,
    batch: Batch,
    removed: u64,
    written: Result<(), WriteError>,
}

impl Sweep {
    fn new(family: Family) -> Sweep {
        Sweep { family, batch: Batch::default(), removed: 0, written: Ok(()) }
    }

    fn judge(&mut self, kv: &RocksKv, key: &[u8], keep: bool) {
        if keep || self.written.is_err() {
            return;
        }
        self.removed += 1;
        self.batch.delete(self.family, key);
        if self.batch.bytes() > 1 << 20 {
            self.written = kv.write(&std::mem::take(&mut self.batch), false);
        }
    }

    fn end(self, kv: &RocksKv, what: &str, lost: &mut Vec<Lost>) -> Result<(), StoreError> {
        self.written?;
        kv.write(&self.batch, false)?;
        if self.removed > 0 {
            let what = format!("{} {what}", self.removed);
            lost.push(Lost::new(format!("family {}", self.family.name()), what));
        }
        Ok(())
    }
}
