//! Sending: judged, deduplicated, appended, in one command (rulings 2 and 20).

use std::sync::Arc;

#[cfg(feature = "planted")]
use hoopoe_core::planted;
use hoopoe_store::kv::Family;

use super::NewEntry;
use crate::command::{Forward, Listed, Send, SendSignal, User};
use crate::effect::{Answer, Effect};
use crate::entry::{Entry, EntryKind};
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::{CursorCopy, PairRow, Row, Sent, since};
use crate::settings::ContactPolicy;
use crate::shard::{Due, Work};

impl Work<'_> {
    /// A message for a conversation.
    pub(crate) fn send(&mut self, mut send: Box<Send>, is_new: bool) -> Result<Answer, Fault> {
        if !is_new {
            return self.sent_before(&send.conv, send.marker);
        }
        if let Some(sent) = self.repeated(&send)? {
            return Ok(Answer::Sent { sent, repeated: true });
        }
        if send.payload.len() > self.settings.payload_max_bytes {
            let most = self.settings.payload_max_bytes;
            return Err(Refusal::too_large(format!("payload larger than {most} bytes")).into());
        }
        if let Some(home) = self.foreign_home(&send.conv) {
            return self.ask_send(home, &send);
        }
        self.may_send(&send)?;
        let head = self.head(&send.conv)?;
        let is_first = head.last == 0;
        let is_pair = send.conv.kind() == ConvKind::User;
        let before = match is_pair {
            true => self.cursor_copy_at(&send.conv, &send.from.id, &head)?,
            false => CursorCopy::default(),
        };
        let mentions = self.mentioned(&send)?;
        let entry = self.append_behind(
            &send.conv,
            head,
            NewEntry {
                kind: EntryKind::Message,
                reference: 0,
                from: send.from.id.clone(),
                device: send.device.clone(),
                cid: send.cid.clone(),
                expires_at_ms: send.expires_at_ms,
                at_all: send.at_all,
                mentions,
                burn_secs: send.burn_secs,
                properties: std::mem::take(&mut send.properties),
                payload: std::mem::take(&mut send.payload),
            },
        )?;
        let sent = Sent { seq: entry.seq, id: entry.id, ts_ms: entry.ts_ms };
        self.remember(&send, &sent);
        if is_first && is_pair {
            self.list_pair(&send.conv);
        }
        if entry.at_all {
            let key = keys::conv_seq(&send.conv, conv_kind::AT_ALL, entry.seq);
            self.txn.put(Family::Im, &key, vec![crate::rows::VERSION]);
        }
        for user in &entry.mentions {
            let (tenant, user) = (send.from.tenant.clone(), user.clone());
            let conv = send.conv.clone();
            self.forward(Forward::Mentioned { tenant, user, conv, seq: entry.seq });
        }
        if let Some(at_ms) = entry.expires_at_ms {
            self.will_expire(&send.conv, entry.seq, at_ms);
        }
        if entry.burn_secs > 0 {
            let from = entry.from.clone();
            let burn = super::operate::Burn { secs: entry.burn_secs, from, due_ms: None };
            if send.conv.pair_users().is_some_and(|(low, high)| low == high) {
                // A note to oneself is read by whoever wrote it.
                self.burn_later(&send.conv, entry.seq, burn);
            } else {
                let key = keys::conv_seq(&send.conv, conv_kind::BURN, entry.seq);
                self.txn.put_json(&key, &burn);
                self.memory.unlit.add(&send.conv);
            }
        }
        #[cfg(feature = "planted")]
        if planted::has(planted::Bug::ForgetOwnRead) {
            return Ok(Answer::Sent { sent, repeated: false });
        }
        self.own_send(&send, &entry, before)?;
        Ok(Answer::Sent { sent, repeated: false })
    }

    /// The sender's own cursors pass the message. In the batch of the message the conversation
    /// knows of it (a pair's head, a small group's copy): the sender's own list, which is told
    /// later and may lose it in a crash, is read together with that (ruling 22).
    fn own_send(&mut self, send: &Send, entry: &Entry, before: CursorCopy) -> Result<(), Fault> {
        let (conv, from, seq) = (&send.conv, &send.from, entry.seq);
        let known = match send.conv.side_of(&from.id) {
            Some(_) => {
                self.copy_moved(conv, &from.id, before, CursorCopy { recv: seq, read: seq })?;
                true
            }
            None => self.cursors_moved(conv, &from.id, seq, seq)?,
        };
        if known {
            self.memory.own.add(self.now_ms, (conv, &from.id), seq, entry.count);
        } else {
            self.tell(Forward::OwnSend {
                tenant: from.tenant.clone(),
                user: from.id.clone(),
                conv: conv.clone(),
                seq,
                count: entry.count,
            });
        }
        Ok(())
    }

    /// What an earlier send with the same client message id led to.
    fn repeated(&mut self, send: &Send) -> Result<Option<Sent>, Fault> {
        let Some(cid) = &send.cid else { return Ok(None) };
        #[cfg(feature = "planted")]
        if planted::has(planted::Bug::ForgetCid) {
            return Ok(None);
        }
        let key = keys::sent(&send.conv, &send.from.id, cid);
        let Some(row) = self.txn.get(Family::Im, &key)? else { return Ok(None) };
        let sent = Sent::decode(&key, &row)?;
        let over = sent.ts_ms + self.settings.dedup_secs * 1000;
        Ok((over > self.now_ms).then_some(sent))
    }

    /// The answer to a QoS 2 publication that was applied over an earlier connection.
    pub(crate) fn sent_before(
        &mut self,
        conv: &ConvKey,
        marker: Option<hoopoe_core::PacketIdent>,
    ) -> Result<Answer, Fault> {
        let Some(marker) = marker else { return Ok(Answer::Done) };
        let key = marked_key(conv, marker);
        match self.txn.get(Family::Im, &key)? {
            Some(row) => Ok(Answer::Sent { sent: Sent::decode(&key, &row)?, repeated: true }),
            None => Ok(Answer::Done),
        }
    }

    fn remember(&mut self, send: &Send, sent: &Sent) {
        if let Some(cid) = &send.cid {
            let key = keys::sent(&send.conv, &send.from.id, cid);
            self.txn.put(Family::Im, &key, sent.encode());
        }
        self.remember_marker(&send.conv, send.marker, sent);
    }

    pub(crate) fn remember_marker(
        &mut self,
        conv: &ConvKey,
        marker: Option<hoopoe_core::PacketIdent>,
        sent: &Sent,
    ) {
        // One row per packet identifier, written over by the identifier's next life.
        if let Some(marker) = marker {
            self.txn.put(Family::Im, &marked_key(conv, marker), sent.encode());
        }
    }

    /// Whether the sender may write to the conversation.
    fn may_send(&mut self, send: &Send) -> Result<(), Fault> {
        match send.conv.kind() {
            ConvKind::User if send.privileged => Ok(()),
            ConvKind::User => self.may_write_to(&send.conv, &send.from.id),
            ConvKind::Group => {
                self.may_write_to_group(&send.conv, &send.from.id, send.privileged, send.at_all)
            }
            ConvKind::Channel => {
                self.may_post_to_channel(&send.conv, &send.from.id, send.privileged)
            }
        }
    }

    /// A signal: whoever may write may signal.
    pub(crate) fn signal(&mut self, signal: Box<SendSignal>) -> Result<Answer, Fault> {
        let most = self.settings.signal_max_bytes;
        if signal.payload.len() > most {
            return Err(Refusal::too_large(format!("signal larger than {most} bytes")).into());
        }
        if let Some(home) = self.foreign_home(&signal.conv) {
            self.ask_signal(home, &signal);
            return Ok(Answer::Done);
        }
        self.judge_signal(signal, None)
    }

    /// A signal for a conversation that lives here. `origin`: the site and connection of its
    /// sender, when that site is another.
    pub(crate) fn judge_signal(
        &mut self,
        signal: Box<SendSignal>,
        origin: Option<(Arc<str>, u64)>,
    ) -> Result<Answer, Fault> {
        match signal.conv.kind() {
            ConvKind::User => self.may_write_to(&signal.conv, &signal.from.id)?,
            ConvKind::Group => {
                self.may_write_to_group(&signal.conv, &signal.from.id, false, false)?;
            }
            ConvKind::Channel => {
                return Err(Refusal::not_allowed("channels hear no signals").into());
            }
        }
        self.spread_signal(&signal, origin)?;
        self.txn.effect(Effect::Signal(signal));
        Ok(Answer::Done)
    }

    /// Contact policy and blocks of a pair.
    pub(crate) fn may_write_to(&mut self, conv: &ConvKey, from: &str) -> Result<(), Fault> {
        let Some((low, high)) = conv.pair_users() else { return Ok(()) };
        if low == high {
            return Ok(());
        }
        let pair: PairRow = self.txn.json(&keys::conv(conv, conv_kind::PAIR))?.unwrap_or_default();
        let blocked = if from == low { pair.high_blocks } else { pair.low_blocks };
        if blocked {
            return Err(Refusal::not_allowed("the receiver has blocked the sender").into());
        }
        if self.settings.contact_policy == ContactPolicy::Roster && !pair.friends {
            return Err(Refusal::not_allowed("only friends may write to each other here").into());
        }
        Ok(())
    }

    /// Members that are mentioned; others are left out.
    fn mentioned(&mut self, send: &Send) -> Result<Vec<Arc<str>>, Fault> {
        if send.mentions.len() > self.settings.mentions_max {
            let most = self.settings.mentions_max;
            return Err(Refusal::too_large(format!("more than {most} users mentioned")).into());
        }
        let mut members = Vec::new();
        for user in &send.mentions {
            let is_member = match send.conv.kind() {
                ConvKind::User => send
                    .conv
                    .pair_users()
                    .is_some_and(|(low, high)| **user == *low || **user == *high),
                _ => self.is_member(&send.conv, user)? || self.is_for_everyone(&send.conv)?,
            };
            if is_member && *user != send.from.id && !members.contains(user) {
                members.push(user.clone());
            }
        }
        Ok(members)
    }

    /// The first message of a pair brings the conversation into both lists (ruling 26).
    fn list_pair(&mut self, conv: &ConvKey) {
        let Some((low, high)) = conv.pair_users() else { return };
        let users = if low == high { vec![low] } else { vec![low, high] };
        for user in users {
            self.forward(Forward::Listed(Listed {
                tenant: conv.tenant().into(),
                user: user.into(),
                conv: conv.clone(),
                intervals: since(1),
                start: 0,
                start_count: 0,
                since_ms: self.now_ms,
                version: 0,
            }));
        }
    }

    /// A user of the conversation's tenant.
    pub(crate) fn user_of(&self, conv: &ConvKey, id: &str) -> User {
        User { tenant: conv.tenant().into(), id: id.into() }
    }

    pub(crate) fn schedule(&mut self, at_ms: u64, due: Due) {
        self.memory.due.insert((at_ms, due));
    }
}

fn marked_key(conv: &ConvKey, marker: hoopoe_core::PacketIdent) -> Vec<u8> {
    let mut key = keys::conv_seq(conv, conv_kind::MARKED, marker.session.0);
    key.extend_from_slice(&marker.id.to_be_bytes());
    key
}
