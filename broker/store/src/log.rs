//! The shard log: where a shard's batches become durable, and the only place where effects come
//! out.
//!
//! A [`PendingBatch`] holds rows and the effects that rest on them. It has no way to give its
//! effects away; [`ShardLog::append`] takes it whole and returns a [`Receipt`], and only a receipt
//! can be turned into effects. Acknowledging before committing cannot be written down.
//!
//! On one node the log *is* the write-ahead log of the store; in a cluster another
//! implementation replicates the batch first.

use hoopoe_codec::ReasonCode;
#[cfg(feature = "planted")]
use hoopoe_core::planted;
use hoopoe_core::{Location, SessionId};

use crate::command::{Close, ReplyTo};
use crate::effect::Effect;
use crate::error::WriteError;
use crate::kv::{Batch, Family, SharedKv};
use crate::settings::Durability;

/// What a shard's commands have changed since the last commit, and what that makes happen.
#[derive(Debug, Default)]
pub struct PendingBatch {
    pub(crate) rows: Batch,
    /// True when something waits for these rows to be on disk.
    pub(crate) durable: bool,
    /// True when the log must be synced whatever the durability setting says.
    pub(crate) sync: bool,
    effects: Vec<Effect>,
    pub(crate) after: Vec<After>,
    /// Sessions given back in this batch, in case it fails.
    pub(crate) closes: Vec<(SessionId, Box<Close>)>,
    /// Outbox entries removed in this batch, likewise.
    pub(crate) carried_out: Vec<u64>,
}

/// What the shard does for itself once the batch is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum After {
    /// Entries up to here are acknowledged on disk.
    Raise(SessionId, u64),
    /// The queue is void.
    Remove(SessionId),
}

impl PendingBatch {
    /// An empty batch.
    pub fn new() -> PendingBatch {
        PendingBatch::default()
    }

    /// An empty batch in the room of an earlier one's rows.
    pub fn in_room_of(rows: Batch) -> PendingBatch {
        PendingBatch { rows, ..PendingBatch::default() }
    }

    /// The room of its rows, which are forgotten.
    pub fn into_room(mut self) -> Batch {
        self.rows.clear();
        self.rows
    }

    /// True when committing it would change and release nothing, and nothing waits for a sync.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.effects.is_empty() && self.after.is_empty() && !self.sync
    }

    /// Bytes of rows so far: a shard stops draining its mailbox at some size.
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Whether it will be on disk when its receipt is given, at this durability.
    pub(crate) fn is_synced(&self, durability: Durability) -> bool {
        match durability {
            Durability::Sync => self.durable || self.sync,
            Durability::Os => self.sync,
            Durability::Memory => true,
        }
    }

    /// Writes a row of another step of this shard, which somebody waits for.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.rows.put(family, key, value);
        self.durable = true;
    }

    /// Writes a row of another step of this shard with the next batch that is synced.
    pub fn put_lazily(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.rows.put(family, key, value);
    }

    /// Removes a row of another step of this shard.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.rows.delete(family, key);
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn committed(&mut self, reply: ReplyTo, code: ReasonCode) {
        self.effects.push(Effect::Committed { reply, code, position: 0 });
    }

    /// Outbox entries that are made in this batch.
    pub(crate) fn owed(&self) -> impl Iterator<Item = u64> + '_ {
        self.effects.iter().filter_map(|effect| match effect {
            Effect::Publish { outbox, .. } => Some(*outbox),
            _ => None,
        })
    }

    /// Entries that would have been offered to members of groups.
    pub(crate) fn offered(&self) -> impl Iterator<Item = (SessionId, u64)> + '_ {
        self.effects.iter().filter_map(|effect| match effect {
            Effect::Offer { group, entry, .. } => Some((*group, entry.seq)),
            _ => None,
        })
    }

    /// Groups that are made in this batch.
    pub(crate) fn made(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.effects.iter().filter_map(|effect| match effect {
            Effect::GroupMade { route, .. } => route.session(),
            _ => None,
        })
    }

    /// Connections that would have been told that they are let in.
    pub(crate) fn opened(&self) -> impl Iterator<Item = Location> + '_ {
        self.effects.iter().filter_map(|effect| match effect {
            Effect::Opened(opened) if opened.code == ReasonCode::Success => {
                Some(opened.reply.location)
            }
            _ => None,
        })
    }
}

/// Proof that a batch is as durable as the settings ask for.
#[derive(Debug)]
#[must_use = "the effects of a batch are in its receipt"]
pub struct Receipt {
    effects: Vec<Effect>,
    room: Batch,
}

impl Receipt {
    /// The room of the batch's rows, for the next one.
    pub fn take_room(&mut self) -> Batch {
        std::mem::take(&mut self.room)
    }

    /// What may happen now, in order.
    pub fn into_effects(self) -> Vec<Effect> {
        self.effects
    }
}

/// A batch that was not committed (ruling 12). Nothing that rests on it may be told to anyone.
#[derive(Debug, thiserror::Error)]
#[error("a batch was not committed: {fault}")]
pub struct CommitError {
    /// What happened.
    pub fault: WriteError,
    /// What may still happen: refusals for those who wait (after [`WriteError::Refused`]),
    /// take-overs and ends of groups, which rest on nothing durable.
    pub effects: Vec<Effect>,
    /// Connections that must be closed, because what they wait for may have happened or not.
    pub lost: Vec<ReplyTo>,
}

/// Where batches become durable.
pub trait ShardLog: Send {
    /// Makes a batch durable and gives its effects free.
    fn append(&mut self, batch: PendingBatch) -> Result<Receipt, CommitError>;
}

/// The log of a single node: the write batch of its own store.
pub(crate) struct LocalLog {
    kv: SharedKv,
    durability: Durability,
}

impl LocalLog {
    pub(crate) fn new(kv: SharedKv, durability: Durability) -> LocalLog {
        LocalLog { kv, durability }
    }
}

impl ShardLog for LocalLog {
    fn append(&mut self, mut batch: PendingBatch) -> Result<Receipt, CommitError> {
        if !batch.rows.is_empty() {
            let sync = batch.is_synced(self.durability);
            #[cfg(feature = "planted")]
            let sync = sync && !planted::has(planted::Bug::AcknowledgeBeforeCommit);
            if let Err(fault) = self.kv.write(&batch.rows, sync) {
                return Err(failed(fault, batch.effects));
            }
        }
        batch.rows.clear();
        Ok(Receipt { effects: batch.effects, room: batch.rows })
    }
}

/// What is left of the effects of a batch that failed.
fn failed(fault: WriteError, effects: Vec<Effect>) -> CommitError {
    let refused = matches!(fault, WriteError::Refused(_));
    let mut error = CommitError { fault, effects: Vec::new(), lost: Vec::new() };
    for effect in effects {
        match effect {
            Effect::TakenOver { .. } | Effect::GroupEnded { .. } => error.effects.push(effect),
            Effect::Opened(mut opened) => {
                if opened.code == ReasonCode::Success {
                    opened.code = ReasonCode::ServerUnavailable;
                    opened.session = None;
                    opened.session_present = false;
                }
                error.effects.push(Effect::Opened(opened));
            }
            Effect::Committed { reply, .. } if !refused => error.lost.push(reply),
            Effect::Committed { reply, code, .. } => {
                let code = if code.is_error() { code } else { ReasonCode::ServerUnavailable };
                error.effects.push(Effect::Committed { reply, code, position: 0 });
            }
            _ => {}
        }
    }
    error
}
