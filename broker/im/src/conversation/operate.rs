//! Operations on stored messages: recall, edit, reactions, burning (ruling 32).

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use hoopoe_store::kv::Family;
use serde::{Deserialize, Serialize};

use super::NewEntry;
use crate::command::{Operate, Operation};
use crate::effect::Answer;
use crate::entry::{Entry, EntryKind, VOID_BURNT, VOID_RECALLED};
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::{Row, Sent, UserConv};
use crate::shard::{Due, Work};

/// Messages that burn of one conversation that are looked at for one that was not read.
const MOST_LOOKED_AT: usize = 32;
/// Messages that burn which one turn lights.
pub(super) const MOST_LIT: usize = 256;
/// Bytes of one reaction.
const REACTION_MAX_BYTES: usize = 64;

/// A message that is to burn.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Burn {
    /// Seconds after it was read.
    pub(crate) secs: u32,
    /// Who sent it.
    pub(crate) from: Arc<str>,
    /// When it burns, ms since the epoch; none while it is unread.
    pub(crate) due_ms: Option<u64>,
}

impl Work<'_> {
    /// A recall, edit or reaction.
    pub(crate) fn operate(&mut self, operate: &Operate, is_new: bool) -> Result<Answer, Fault> {
        if !is_new {
            return self.sent_before(&operate.conv, operate.marker);
        }
        if let Some(cid) = &operate.cid {
            let key = keys::sent(&operate.conv, &operate.from.id, cid);
            let row = self.txn.get(Family::Im, &key)?;
            let sent = row.map(|row| Sent::decode(&key, &row)).transpose()?;
            let window_ms = self.settings.dedup_secs * 1000;
            if let Some(sent) = sent.filter(|sent| sent.ts_ms + window_ms > self.now_ms) {
                return Ok(Answer::Sent { sent, repeated: true });
            }
        }
        if operate.payload.len() > self.settings.payload_max_bytes {
            let most = self.settings.payload_max_bytes;
            return Err(Refusal::limit(format!("payload larger than {most} bytes")).into());
        }
        if let Some(home) = self.foreign_home(&operate.conv) {
            return self.ask_operate(home, operate);
        }
        self.may_take_part(&operate.conv, &operate.from.id)?;
        let missing = || Refusal::not_found(format!("no message {}", operate.seq));
        let entry = self.entry(&operate.conv, operate.seq)?.ok_or_else(missing)?;
        let expired = entry.expires_at_ms.is_some_and(|at| at <= self.now_ms);
        if entry.kind == EntryKind::Void || (entry.kind == EntryKind::Message && expired) {
            return Err(Refusal::conflict(format!("message {} is void", operate.seq)).into());
        }
        if entry.kind != EntryKind::Message {
            return Err(Refusal::conflict(format!("{} is no message", operate.seq)).into());
        }
        let kind = match operate.operation {
            Operation::Recall => self.recall(operate, &entry)?,
            Operation::Edit => self.edit(operate, &entry)?,
            Operation::React if self.is_merged(&operate.conv)? => {
                return self.tally(&operate.conv, operate.seq, &operate.from.id, &operate.payload);
            }
            Operation::React => self.react(operate)?,
        };
        let event = self.append(
            &operate.conv,
            NewEntry {
                device: operate.device.clone(),
                cid: operate.cid.clone(),
                properties: operate.properties.clone(),
                // New content expires with its message.
                expires_at_ms: entry.expires_at_ms.filter(|_| kind == EntryKind::Edit),
                ..NewEntry::event(kind, operate.seq, &operate.from.id, operate.payload.clone())
            },
        )?;
        if kind == EntryKind::Edit {
            let key = keys::edit(&operate.conv, operate.seq, event.seq);
            self.txn.put(Family::Im, &key, vec![crate::rows::VERSION]);
        }
        let sent = Sent { seq: event.seq, id: event.id, ts_ms: event.ts_ms };
        if let Some(cid) = &operate.cid {
            let key = keys::sent(&operate.conv, &operate.from.id, cid);
            self.txn.put(Family::Im, &key, sent.encode());
        }
        self.remember_marker(&operate.conv, operate.marker, &sent);
        Ok(Answer::Sent { sent, repeated: false })
    }

    /// Whether the user belongs to the conversation at all.
    fn may_take_part(&mut self, conv: &ConvKey, user: &str) -> Result<(), Fault> {
        let belongs = match conv.kind() {
            ConvKind::User => {
                conv.pair_users().is_some_and(|(low, high)| user == low || user == high)
            }
            ConvKind::Group => {
                self.group(conv)?;
                self.is_member(conv, user)?
            }
            ConvKind::Channel => self.is_member(conv, user)? || self.is_for_everyone(conv)?,
        };
        if belongs { Ok(()) } else { Err(Refusal::not_allowed("not a member").into()) }
    }

    /// What brings new content needs the right to write: the blocked, the muted and who posts in a
    /// channel no more say nothing by way of what they once sent.
    fn may_still_write(&mut self, conv: &ConvKey, user: &str) -> Result<(), Fault> {
        match conv.kind() {
            ConvKind::User => self.may_write_to(conv, user),
            ConvKind::Group => self.may_write_to_group(conv, user, false, false),
            ConvKind::Channel => self.may_post_to_channel(conv, user, false),
        }
    }

    fn recall(&mut self, operate: &Operate, entry: &Entry) -> Result<EntryKind, Fault> {
        let own = entry.from == operate.from.id;
        if !self.may_moderate(&operate.conv, &operate.from.id)? {
            if !own {
                return Err(Refusal::not_allowed("only the sender may recall this").into());
            }
            let window = self.settings.recall_window_secs;
            if self.now_ms > entry.ts_ms + window * 1000 {
                let text = format!("the recall window of {window} s is over");
                return Err(Refusal::not_allowed(text).into());
            }
        }
        self.void(entry, VOID_RECALLED)?;
        let key = keys::conv_seq(&operate.conv, conv_kind::BURN, entry.seq);
        if self.txn.has(Family::Im, &key)? {
            self.txn.delete(Family::Im, &key);
        }
        Ok(EntryKind::Recall)
    }

    fn edit(&mut self, operate: &Operate, entry: &Entry) -> Result<EntryKind, Fault> {
        if entry.from != operate.from.id {
            return Err(Refusal::not_allowed("only the sender may edit this").into());
        }
        self.may_still_write(&operate.conv, &operate.from.id)?;
        self.replace_content(entry, &operate.properties, &operate.payload)?;
        Ok(EntryKind::Edit)
    }

    /// Only the newest content is kept; place, time and id stay.
    pub(crate) fn replace_content(
        &mut self,
        entry: &Entry,
        properties: &Bytes,
        payload: &Bytes,
    ) -> Result<(), Fault> {
        // "Edits keep only the newest content": also those that came before this one.
        self.empty_edits(entry)?;
        let mut edited = entry.clone();
        edited.payload = payload.clone();
        edited.properties = properties.clone();
        self.put_entry(&edited);
        let mut head = self.head(&entry.conv)?;
        head.bytes = (head.bytes + edited.size()).saturating_sub(entry.size());
        self.put_head(&entry.conv, &head);
        Ok(())
    }

    fn react(&mut self, operate: &Operate) -> Result<EntryKind, Fault> {
        if operate.conv.kind() == ConvKind::User {
            // Blocking acts on everything between two (ruling 25).
            self.may_write_to(&operate.conv, &operate.from.id)?;
        }
        let key = keys::reaction(&operate.conv, operate.seq, &operate.from.id);
        if operate.payload.is_empty() {
            self.txn.delete(Family::Im, &key);
            return Ok(EntryKind::React);
        }
        self.add_reaction(&key, &operate.payload)?;
        Ok(EntryKind::React)
    }

    /// Adds to a user's reactions to a message; returns the word.
    pub(super) fn add_reaction(&mut self, key: &[u8], payload: &Bytes) -> Result<String, Fault> {
        let text = std::str::from_utf8(payload)
            .ok()
            .filter(|text| text.len() <= REACTION_MAX_BYTES)
            .ok_or_else(|| {
                let text =
                    format!("a reaction is UTF-8 text of at most {REACTION_MAX_BYTES} bytes");
                Refusal::bad_request(text)
            })?;
        let mut reactions: Vec<String> = self.txn.json(key)?.unwrap_or_default();
        if reactions.iter().any(|reaction| reaction == text) {
            return Err(Refusal::new(crate::refusal::Word::Exists, "reacted so before").into());
        }
        if reactions.len() >= self.settings.reactions_max {
            let most = self.settings.reactions_max;
            return Err(Refusal::limit(format!("more than {most} reactions")).into());
        }
        reactions.push(text.to_owned());
        self.txn.put_json(key, &reactions);
        Ok(text.to_owned())
    }

    /// The reader's cursor has passed messages that burn, those behind `after`: their time runs from
    /// now on. However many others there are, none of them is looked at, and however many these
    /// are, a turn looks at a portion of them.
    pub(crate) fn light(
        &mut self,
        conv: &ConvKey,
        reader: &Arc<str>,
        after: u64,
        read: u64,
    ) -> Result<(), Fault> {
        if !self.memory.unlit.may_have(conv) {
            return Ok(());
        }
        let prefix = keys::conv_prefix(conv, conv_kind::BURN);
        let from = keys::conv_seq(conv, conv_kind::BURN, after + 1);
        let (mut passed, mut waits) = (Vec::new(), false);
        self.txn.scan(Family::Im, &prefix, &from, |key, _| {
            waits = keys::seq_of(key) > read;
            if waits || passed.len() == MOST_LIT {
                return ControlFlow::Break(());
            }
            passed.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        let last = passed.last().map(|key| keys::seq_of(key));
        let is_portion = passed.len() == MOST_LIT && !waits;
        for key in passed {
            waits |= !self.light_one(conv, reader, &key)?;
        }
        if let Some(after) = last.filter(|_| is_portion) {
            self.schedule(self.now_ms, Due::LightOn(conv.clone(), reader.clone(), after, read));
        } else if !waits && !self.may_be_unlit(&prefix)? {
            self.memory.unlit.remove(conv);
        }
        Ok(())
    }

    /// False when the message is the reader's own, and waits for the other.
    fn light_one(&mut self, conv: &ConvKey, reader: &str, key: &[u8]) -> Result<bool, Fault> {
        let Some(burn) = self.txn.json::<Burn>(key)?.filter(|burn| burn.due_ms.is_none()) else {
            return Ok(true);
        };
        if *burn.from == *reader {
            return Ok(false);
        }
        self.burn_later(conv, keys::seq_of(key), burn);
        Ok(true)
    }

    /// The time of a message that burns runs from now on.
    pub(crate) fn burn_later(&mut self, conv: &ConvKey, seq: u64, mut burn: Burn) {
        let due_ms = self.now_ms + u64::from(burn.secs) * 1000;
        burn.due_ms = Some(due_ms);
        self.txn.put_json(&keys::conv_seq(conv, conv_kind::BURN, seq), &burn);
        self.schedule(due_ms, Due::Burn(conv.clone(), seq));
    }

    /// Whether a conversation has a message that burns and was not read, or has many that burn.
    fn may_be_unlit(&mut self, prefix: &[u8]) -> Result<bool, Fault> {
        let keys = self.txn.keys(Family::Im, prefix, MOST_LOOKED_AT)?;
        if keys.len() >= MOST_LOOKED_AT {
            return Ok(true);
        }
        for key in keys {
            if self.txn.json::<Burn>(&key)?.is_some_and(|burn| burn.due_ms.is_none()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What readers' lists say reaches the conversation by a word that can be lost: after a start
    /// they are asked.
    pub(crate) fn light_read(&mut self, conv: &ConvKey) -> Result<(), Fault> {
        let Some((low, high)) = conv.pair_users() else { return Ok(()) };
        for reader in [low, high].map(Arc::<str>::from) {
            let wire = conv.wire(&reader);
            let key = keys::user_name(conv.tenant(), &reader, user_kind::CONV, &wire);
            if let Some(row) = self.txn.peek_row::<UserConv>(&key)? {
                self.light(conv, &reader, 0, row.read)?;
            }
        }
        Ok(())
    }

    /// The time of a message that burns is over.
    pub(crate) fn burn(&mut self, conv: &ConvKey, seq: u64) -> Result<(), Fault> {
        #[cfg(feature = "planted")]
        if hoopoe_core::planted::has(hoopoe_core::planted::Bug::NeverBurn) {
            return Ok(());
        }
        let key = keys::conv_seq(conv, conv_kind::BURN, seq);
        let Some(burn) = self.txn.json::<Burn>(&key)? else { return Ok(()) };
        if burn.due_ms.is_none_or(|due_ms| due_ms > self.now_ms) {
            // It was read in a batch that is lost, and has been read since, or not at all.
            return Ok(());
        }
        self.txn.delete(Family::Im, &key);
        let Some(entry) = self.entry(conv, seq)? else { return Ok(()) };
        if entry.kind == EntryKind::Message {
            self.void(&entry, VOID_BURNT)?;
            self.append(conv, NewEntry::event(EntryKind::Burn, seq, &burn.from, Bytes::new()))?;
        }
        Ok(())
    }
}
