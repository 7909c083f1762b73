//! The replica of a conversation that lives at another site: the same entries under the same seq,
//! with what they do to entries before them. Its devices read it as any log.
//!
//! The home alone judges; here nothing is refused, and what comes twice changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use hoopoe_store::kv::Family;

use crate::command::Forward;
use crate::conversation::tally::MANY;
use crate::effect::Effect;
use crate::entry::{Entry, EntryKind, VOID_BURNT, VOID_RECALLED};
use crate::group::event::{MemberEvent, MemberOp};
use crate::id::ConvKey;
use crate::keys::{self, conv_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::{CursorCopy, Row, Sent, VERSION};
use crate::shard::Work;

impl Work<'_> {
    /// An entry as its home has committed it.
    pub(crate) fn replicate(
        &mut self,
        conv: &ConvKey,
        seq: u64,
        row: &[u8],
        loud: bool,
        big: bool,
    ) -> Result<(), Fault> {
        let mut head = self.head(conv)?;
        if seq <= head.last {
            return Ok(());
        }
        let entry = Entry::decode(conv.clone(), seq, row)
            .map_err(|fault| Refusal::bad_request(fault.to_string()))?;
        if head.last == 0 {
            // The replica begins where the first member of this site did.
            head.min = seq;
        }
        head.last = seq;
        head.count = entry.count;
        head.ts_ms = head.ts_ms.max(entry.ts_ms);
        head.id = entry.id;
        head.bytes += entry.size();
        if entry.kind == EntryKind::Void {
            head.voids += 1;
            let key = keys::conv_seq(conv, conv_kind::VOID, seq);
            self.txn.put(Family::Im, &key, vec![VERSION]);
        }
        self.put_entry(&entry);
        self.put_head(conv, &head);
        self.note_big(conv, big);
        self.entry_does(&entry)?;
        self.entry_is_own(&entry);
        let entry = Arc::new(entry);
        if loud {
            self.txn.effect(Effect::Entry(entry.clone()));
        }
        self.tell_removed(&entry);
        Ok(())
    }

    /// What an event does to the entry it refers to.
    fn entry_does(&mut self, event: &Entry) -> Result<(), Fault> {
        let conv = &event.conv;
        match event.kind {
            EntryKind::Message => {
                if event.at_all {
                    let key = keys::conv_seq(conv, conv_kind::AT_ALL, event.seq);
                    self.txn.put(Family::Im, &key, vec![VERSION]);
                }
                if let Some(at_ms) = event.expires_at_ms {
                    self.will_expire(conv, event.seq, at_ms);
                }
                return Ok(());
            }
            // What many have reacted with is counted at the home.
            EntryKind::React if *event.from == *MANY => return Ok(()),
            EntryKind::React => return self.replicate_reaction(event),
            EntryKind::Member | EntryKind::Void => return Ok(()),
            EntryKind::Recall | EntryKind::Burn | EntryKind::Edit => {}
        }
        // What is before the replica's beginning is not here.
        let Some(entry) = self.entry(conv, event.reference)? else { return Ok(()) };
        if entry.kind != EntryKind::Message {
            return Ok(());
        }
        match event.kind {
            EntryKind::Recall => self.void(&entry, VOID_RECALLED)?,
            EntryKind::Burn => self.void(&entry, VOID_BURNT)?,
            _ => {
                self.replace_content(&entry, &event.properties, &event.payload)?;
                let key = keys::edit(conv, entry.seq, event.seq);
                self.txn.put(Family::Im, &key, vec![VERSION]);
            }
        }
        Ok(())
    }

    fn replicate_reaction(&mut self, event: &Entry) -> Result<(), Fault> {
        let key = keys::reaction(&event.conv, event.reference, &event.from);
        if event.payload.is_empty() {
            self.txn.delete(Family::Im, &key);
            return Ok(());
        }
        let mut reactions: Vec<String> = self.txn.json(&key)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&event.payload).into_owned();
        if !reactions.contains(&text) {
            reactions.push(text);
            self.txn.put_json(&key, &reactions);
        }
        Ok(())
    }

    /// What users of this site have in an entry: their own send, mentions of them.
    fn entry_is_own(&mut self, entry: &Entry) {
        let conv = &entry.conv;
        for user in &entry.mentions {
            let of = self.user_of(conv, user);
            if !self.lives_elsewhere(&of) {
                let (tenant, user, conv) = (of.tenant, of.id, conv.clone());
                self.forward(Forward::Mentioned { tenant, user, conv, seq: entry.seq });
            }
        }
        let from = self.user_of(conv, &entry.from);
        if entry.from.is_empty() || self.lives_elsewhere(&from) {
            return;
        }
        if let Some(cid) = &entry.cid {
            let sent = Sent { seq: entry.seq, id: entry.id, ts_ms: entry.ts_ms };
            self.txn.put(Family::Im, &keys::sent(conv, &entry.from, cid), sent.encode());
        }
        if entry.kind == EntryKind::Message {
            // What a crash within the next second takes from the sender's own list is found here.
            let key = keys::conv_name(conv, conv_kind::COPY, &entry.from);
            let copy = CursorCopy { recv: entry.seq, read: entry.seq };
            self.txn.put_lazily(Family::Im, &key, crate::txn::json_row(&copy));
            self.tell(Forward::OwnSend {
                tenant: from.tenant,
                user: from.id,
                conv: conv.clone(),
                seq: entry.seq,
                count: entry.count,
            });
        }
    }

    /// The news that somebody is out may be here before the event is.
    fn tell_removed(&mut self, entry: &Arc<Entry>) {
        let Some(event) = MemberEvent::of(entry) else { return };
        if !matches!(event.op, MemberOp::Kick | MemberOp::Leave) {
            return;
        }
        for user in event.users {
            let of = self.user_of(&entry.conv, &user);
            if !self.lives_elsewhere(&of) {
                self.txn.effect(Effect::EntryFor { user, entry: entry.clone() });
            }
        }
    }

    /// A row of the conversation as its home has it.
    pub(crate) fn replicate_row(
        &mut self,
        conv: &ConvKey,
        kind: u8,
        name: &str,
        value: Bytes,
    ) -> Result<(), Fault> {
        let key = match kind {
            conv_kind::GROUP | conv_kind::CHANNEL | conv_kind::PAIR => keys::conv(conv, kind),
            conv_kind::MEMBER => keys::conv_name(conv, kind, name),
            _ => return Err(Refusal::bad_request("a row that sites do not copy").into()),
        };
        self.txn.put(Family::Im, &key, value.to_vec());
        Ok(())
    }
}
