//! Reactions in big groups and channels: counted, and told by one event per message and interval
//! (ruling 27), however many react.
//!
//! Owns the row of counts of a message. What one user has reacted with is in the same row as in
//! small groups, and is judged alike.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use hoopoe_store::kv::Family;
use serde::{Deserialize, Serialize};

use super::NewEntry;
use crate::effect::Answer;
use crate::entry::EntryKind;
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind};
use crate::refusal::{Fault, Refusal};
use crate::shard::{Due, Work};

/// Whom an event of many is from.
pub(crate) const MANY: &str = "-";
/// How long reactions to a message are gathered before they are told.
pub(crate) const INTERVAL_MS: u64 = 5_000;
/// Different reactions to one message.
const WORDS_MAX: usize = 50;

/// The reactions to a message of a big group or channel.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Tally {
    reactions: BTreeMap<String, u64>,
    /// When they are told, if they have changed since they were.
    #[serde(default)]
    pub(crate) due_ms: Option<u64>,
}

impl Tally {
    fn raise(&mut self, word: &str) {
        *self.reactions.entry(word.to_owned()).or_default() += 1;
    }

    fn lower(&mut self, word: &str) {
        if let Some(count) = self.reactions.get_mut(word) {
            *count -= 1;
        }
        self.reactions.retain(|_, count| *count > 0);
    }
}

impl Work<'_> {
    /// Whether reactions are told merged here.
    pub(super) fn is_merged(&mut self, conv: &ConvKey) -> Result<bool, Fault> {
        match conv.kind() {
            ConvKind::User => Ok(false),
            ConvKind::Group => Ok(self.group(conv)?.big),
            ConvKind::Channel => Ok(true),
        }
    }

    /// A user reacts to a message, or (empty) takes that back. What was said before is no fault:
    /// there is no entry that a repetition could be answered with.
    pub(super) fn tally(
        &mut self,
        conv: &ConvKey,
        seq: u64,
        user: &str,
        payload: &Bytes,
    ) -> Result<Answer, Fault> {
        let key = keys::reaction(conv, seq, user);
        let before: Vec<String> = self.txn.json(&key)?.unwrap_or_default();
        let mut tally = self.tally_of(conv, seq)?;
        if payload.is_empty() {
            if before.is_empty() {
                return Ok(Answer::Done);
            }
            self.txn.delete(Family::Im, &key);
            before.iter().for_each(|word| tally.lower(word));
        } else {
            if before.iter().any(|word| *word.as_bytes() == **payload) {
                return Ok(Answer::Done);
            }
            let word = String::from_utf8_lossy(payload);
            let is_new = !tally.reactions.contains_key(&*word);
            if is_new && tally.reactions.len() >= WORDS_MAX {
                let text = format!("more than {WORDS_MAX} different reactions");
                return Err(Refusal::limit(text).into());
            }
            let word = self.add_reaction(&key, payload)?;
            tally.raise(&word);
        }
        if tally.due_ms.is_none() {
            let due_ms = self.now_ms + INTERVAL_MS;
            tally.due_ms = Some(due_ms);
            self.schedule(due_ms, Due::Tally(conv.clone(), seq));
        }
        self.txn.put_json(&keys::conv_seq(conv, conv_kind::TALLY, seq), &tally);
        Ok(Answer::Done)
    }

    /// The counts; before the first, what was reacted with while the group was small.
    fn tally_of(&mut self, conv: &ConvKey, seq: u64) -> Result<Tally, Fault> {
        if let Some(tally) = self.txn.json(&keys::conv_seq(conv, conv_kind::TALLY, seq))? {
            return Ok(tally);
        }
        let (mut tally, mut fault) = (Tally::default(), None);
        let prefix = keys::reaction(conv, seq, "");
        self.txn.scan(Family::Im, &prefix, b"", |key, row| {
            match crate::txn::read_json::<Vec<String>>(key, row) {
                Ok(words) => words.iter().for_each(|word| tally.raise(word)),
                Err(error) => fault = Some(error),
            }
            if fault.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        fault.map_or(Ok(tally), |error| Err(error.into()))
    }

    /// The interval is over: the counts as they are now are an event.
    pub(crate) fn tell_tally(&mut self, conv: &ConvKey, seq: u64) -> Result<(), Fault> {
        let key = keys::conv_seq(conv, conv_kind::TALLY, seq);
        let Some(mut tally) = self.txn.json::<Tally>(&key)? else { return Ok(()) };
        tally.due_ms = None;
        self.txn.put_json(&key, &tally);
        let entry = self.entry(conv, seq)?;
        if entry.is_some_and(|entry| entry.kind == EntryKind::Message) {
            let told = serde_json::json!({ "reactions": tally.reactions }).to_string();
            self.append(conv, NewEntry::event(EntryKind::React, seq, MANY, told.into()))?;
        }
        Ok(())
    }

    /// The message is void: there is nothing to react to any more.
    pub(super) fn forget_tally(
        &mut self,
        conv: &ConvKey,
        seq: u64,
    ) -> Result<(), hoopoe_store::StoreError> {
        let key = keys::conv_seq(conv, conv_kind::TALLY, seq);
        if conv.kind() != ConvKind::User && self.txn.has(Family::Im, &key)? {
            self.txn.delete(Family::Im, &key);
        }
        Ok(())
    }

    /// Takes back what a user who is erased has reacted with, where it was counted.
    pub(crate) fn untally(&mut self, conv: &ConvKey, seq: u64, user: &str) -> Result<(), Fault> {
        let key = keys::conv_seq(conv, conv_kind::TALLY, seq);
        if conv.kind() != ConvKind::User && self.txn.has(Family::Im, &key)? {
            self.tally(conv, seq, user, &Bytes::new())?;
        }
        Ok(())
    }
}
