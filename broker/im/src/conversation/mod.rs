//! Conversations: one ordered log each, appended by its owner alone.
//!
//! A send writes one entry, the head and what its repetition needs to be known; nothing per member
//! (the profile's first idea). Seq is dense, `ts` never decreases, the sender is the
//! authenticated one.

pub(crate) mod expiry;
pub mod operate;
pub(crate) mod own;
pub mod pair;
pub mod receipts;
pub mod send;
pub(crate) mod tail;
pub(crate) mod tally;
pub(crate) mod unlit;

use std::sync::Arc;

#[cfg(feature = "planted")]
use hoopoe_core::planted;
use hoopoe_store::kv::Family;
use hoopoe_store::{Damaged, StoreError};

use crate::effect::Effect;
use crate::entry::{Entry, EntryKind, Shelf};
use crate::id::ConvKey;
use crate::keys::{self, conv_kind};
use crate::refusal::Fault;
use crate::rows::{Head, Row};
use crate::shard::Work;

/// What an entry is made of besides what the conversation gives it.
pub(crate) struct NewEntry {
    pub(crate) kind: EntryKind,
    pub(crate) reference: u64,
    pub(crate) from: Arc<str>,
    pub(crate) device: Arc<str>,
    pub(crate) cid: Option<Arc<str>>,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) at_all: bool,
    pub(crate) mentions: Vec<Arc<str>>,
    pub(crate) burn_secs: u32,
    pub(crate) properties: bytes::Bytes,
    pub(crate) payload: bytes::Bytes,
}

impl NewEntry {
    /// An event by a user.
    pub(crate) fn event(
        kind: EntryKind,
        reference: u64,
        from: &str,
        payload: bytes::Bytes,
    ) -> Self {
        NewEntry {
            kind,
            reference,
            from: from.into(),
            device: "".into(),
            cid: None,
            expires_at_ms: None,
            at_all: false,
            mentions: Vec::new(),
            burn_secs: 0,
            properties: bytes::Bytes::new(),
            payload,
        }
    }
}

/// Reads a row of a log.
pub fn read_entry(conv: &ConvKey, seq: u64, row: &[u8]) -> Result<Entry, StoreError> {
    read_onto(&mut Shelf::default(), conv, seq, row)
}

/// As [`read_entry`], for several that are read together.
pub fn read_onto(
    shelf: &mut Shelf,
    conv: &ConvKey,
    seq: u64,
    row: &[u8],
) -> Result<Entry, StoreError> {
    Entry::decode_onto(shelf, conv.clone(), seq, row).map_err(|_| {
        let key = keys::entry(conv, seq);
        Damaged { family: Family::Log, key, what: "no entry of a conversation" }.into()
    })
}

impl Work<'_> {
    /// Where a conversation of this shard stands.
    pub(crate) fn head(&mut self, conv: &ConvKey) -> Result<Head, StoreError> {
        let key = keys::conv(conv, conv_kind::HEAD);
        match self.txn.get(Family::Im, &key)? {
            Some(row) => Head::decode(&key, &row),
            None => Ok(Head::default()),
        }
    }

    pub(crate) fn put_head(&mut self, conv: &ConvKey, head: &Head) {
        self.txn.put(Family::Im, &keys::conv(conv, conv_kind::HEAD), head.encode());
    }

    /// Appends an entry and lets it go to the connected devices of the conversation.
    pub(crate) fn append(&mut self, conv: &ConvKey, new: NewEntry) -> Result<Arc<Entry>, Fault> {
        let head = self.head(conv)?;
        self.append_behind(conv, head, new)
    }

    /// As [`append`](Self::append), behind a head that was just read.
    pub(crate) fn append_behind(
        &mut self,
        conv: &ConvKey,
        head: Head,
        new: NewEntry,
    ) -> Result<Arc<Entry>, Fault> {
        let entry = self.append_entry(conv, head, new);
        self.spread_entry(&entry, true)?;
        self.txn.effect(Effect::Entry(entry.clone()));
        Ok(entry)
    }

    fn append_entry(&mut self, conv: &ConvKey, mut head: Head, new: NewEntry) -> Arc<Entry> {
        head.last += 1;
        #[cfg(feature = "planted")]
        if planted::has(planted::Bug::GiveSeqTwice) && head.last.is_multiple_of(9) {
            head.last -= 1;
        }
        head.count += u64::from(new.kind == EntryKind::Message);
        head.ts_ms = head.ts_ms.max(self.now_ms);
        head.id = self.memory.ids.next(self.now_ms);
        if new.kind == EntryKind::Message
            && let Some(side) = conv.side_of(&new.from)
        {
            head.own[side] = head.last;
        }
        head.bytes += (new.payload.len() + new.properties.len()) as u64;
        let entry = Arc::new(Entry {
            conv: conv.clone(),
            seq: head.last,
            id: head.id,
            ts_ms: head.ts_ms,
            from: new.from,
            device: new.device,
            cid: new.cid,
            kind: new.kind,
            reference: new.reference,
            count: head.count,
            expires_at_ms: new.expires_at_ms,
            at_all: new.at_all,
            mentions: new.mentions,
            burn_secs: new.burn_secs,
            void_reason: 0,
            properties: new.properties,
            payload: new.payload,
        });
        self.put_entry(&entry);
        self.put_head(conv, &head);
        let sender = (entry.kind == EntryKind::Message).then_some(&entry.from);
        self.memory.tails.append(conv, entry.seq, sender);
        entry
    }

    /// The entry at a seq, as it is now; `None` when retention has taken it.
    pub(crate) fn entry(&mut self, conv: &ConvKey, seq: u64) -> Result<Option<Entry>, StoreError> {
        let key = keys::entry(conv, seq);
        let row = self.txn.get(Family::Log, &key)?;
        row.map(|row| read_entry(conv, seq, &row)).transpose()
    }

    pub(crate) fn put_entry(&mut self, entry: &Entry) {
        let mut row = Vec::with_capacity(96 + entry.payload.len() + entry.properties.len());
        entry.encode(&mut row);
        self.txn.put(Family::Log, &keys::entry(&entry.conv, entry.seq), row);
    }

    /// Takes the body of a message out of the log: from this commit on every delivery of the entry
    /// is the void form (rulings 23 and 24).
    pub(crate) fn void(&mut self, entry: &Entry, reason: u8) -> Result<(), StoreError> {
        let conv = &entry.conv;
        self.put_entry(&entry.voided(reason));
        self.memory.tails.void(conv, entry.seq);
        self.txn.put(
            Family::Im,
            &keys::conv_seq(conv, conv_kind::VOID, entry.seq),
            vec![crate::rows::VERSION],
        );
        self.empty_edits(entry)?;
        self.forget_tally(conv, entry.seq)?;
        if entry.at_all {
            self.txn.delete(Family::Im, &keys::conv_seq(conv, conv_kind::AT_ALL, entry.seq));
        }
        let mut head = self.head(conv)?;
        head.voids += 1;
        head.bytes = head.bytes.saturating_sub(entry.size());
        self.put_head(conv, &head);
        Ok(())
    }

    /// The contents that edits gave a message go with its body: an edit's event carries one, too.
    pub(super) fn empty_edits(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let conv = &entry.conv;
        let prefix = keys::conv_seq(conv, conv_kind::EDIT, entry.seq);
        let mut head = self.head(conv)?;
        for key in self.txn.keys(Family::Im, &prefix, usize::MAX)? {
            if let Some(edit) = self.entry(conv, keys::seq_of(&key))? {
                head.bytes = head.bytes.saturating_sub(edit.size());
                self.put_entry(&edit.emptied());
            }
            self.txn.delete(Family::Im, &key);
        }
        self.put_head(conv, &head);
        Ok(())
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
