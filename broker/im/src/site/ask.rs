//! Sends and operations whose conversation lives at another site: owed to it, and answered once it
//! has committed them. While the home cannot be reached they are held, or refused.

use std::sync::Arc;

use bytes::Bytes;
use hoopoe_core::{PacketIdent, SessionId};
use hoopoe_store::kv::Family;

use super::WhenDown;
use super::line::{HeldRow, LineKey};
use super::wire::{Body, Outcome};
use crate::command::{Asker, Operate, Operation, Send};
use crate::effect::{Answer, Effect};
use crate::entry::{Entry, EntryKind};
use crate::id::ConvKey;
use crate::keys;
use crate::refusal::{Fault, Refusal, Word};
use crate::rows::{Sent, number_row, read_number};
use crate::shard::Work;

/// Something for the home of a conversation, spelled as the entry it is to become.
struct Ask {
    entry: Entry,
    privileged: bool,
    marker: Option<PacketIdent>,
}

impl Work<'_> {
    /// The home of a conversation that is not owned here.
    pub(crate) fn foreign_home(&self, conv: &ConvKey) -> Option<Arc<str>> {
        self.settings.sites.as_ref()?.foreign(conv).cloned()
    }

    /// A message for a conversation that lives at `home`.
    pub(crate) fn ask_send(&mut self, home: Arc<str>, send: &Send) -> Result<Answer, Fault> {
        let entry = Entry {
            device: send.device.clone(),
            cid: send.cid.clone(),
            expires_at_ms: send.expires_at_ms,
            at_all: send.at_all,
            mentions: send.mentions.clone(),
            burn_secs: send.burn_secs,
            properties: send.properties.clone(),
            payload: send.payload.clone(),
            ..Entry::bare(send.conv.clone(), send.from.id.clone(), EntryKind::Message)
        };
        self.ask(home, Ask { entry, privileged: send.privileged, marker: send.marker })
    }

    /// An operation on a message of a conversation that lives at `home`.
    pub(crate) fn ask_operate(&mut self, home: Arc<str>, of: &Operate) -> Result<Answer, Fault> {
        let kind = match of.operation {
            Operation::Recall => EntryKind::Recall,
            Operation::Edit => EntryKind::Edit,
            Operation::React => EntryKind::React,
        };
        let entry = Entry {
            device: of.device.clone(),
            cid: of.cid.clone(),
            reference: of.seq,
            properties: of.properties.clone(),
            payload: of.payload.clone(),
            ..Entry::bare(of.conv.clone(), of.from.id.clone(), kind)
        };
        self.ask(home, Ask { entry, privileged: false, marker: of.marker })
    }

    fn ask(&mut self, home: Arc<str>, ask: Ask) -> Result<Answer, Fault> {
        let Some(sites) = self.settings.sites.clone() else { return Ok(Answer::Done) };
        let Ask { entry, privileged, marker } = ask;
        let (conv, from) = (entry.conv.clone(), entry.from.clone());
        let line: LineKey = (conv.slot().get(), home);
        let up = self.memory.lines.is_up(&line.1);
        let by_cid = entry.cid.as_ref().map(|cid| keys::held_by_cid(&conv, &from, cid));
        if let Some(key) = &by_cid
            && let Some(row) = self.txn.get(Family::Im, key)?
        {
            // The same again while the home has not answered.
            let number = read_number(key, &row)?;
            return Ok(self.wait_or_hold(line, number, up));
        }
        if !up && sites.when_down == WhenDown::Refuse {
            let text = format!("site {}, where this conversation lives, is not reached", line.1);
            return Err(Refusal::new(Word::Unavailable, text).into());
        }
        if self.memory.lines.held >= sites.held_max {
            let text = format!("too many messages wait for site {}", line.1);
            return Err(Refusal::limit(text).into());
        }
        let mut row = Vec::new();
        entry.encode(&mut row);
        let body = Body::Ask { conv: conv.clone(), privileged, row: row.into() };
        let number = self.owe_site(line.clone(), &body)?;
        if let Some(key) = by_cid {
            self.txn.put(Family::Im, &key, number_row(number));
        }
        let marker = marker.map(|marker| (marker.session.0, marker.id));
        let held = HeldRow { conv, from, cid: entry.cid, marker };
        self.txn.put_json(&keys::site_held(&line, number), &held);
        self.memory.lines.hold(&line, 1);
        Ok(self.wait_or_hold(line, number, up))
    }

    /// Whoever asked waits for the home while it is there.
    fn wait_or_hold(&mut self, line: LineKey, number: u64, up: bool) -> Answer {
        if up {
            self.wait_for_site = Some((line, number));
        }
        Answer::Held
    }

    /// A member at another site asks for something: judged and answered here.
    pub(crate) fn asked_by(
        &mut self,
        line: &LineKey,
        number: u64,
        conv: &ConvKey,
        privileged: bool,
        row: &[u8],
    ) -> Result<(), Fault> {
        let mark = self.txn.mark();
        let outcome = match self.judge_ask(&line.1, conv, privileged, row) {
            Ok(Answer::Sent { sent, repeated }) => Outcome::Sent { sent, repeated },
            Ok(_) => Outcome::Refused(Refusal::bad_request("nothing was asked")),
            Err(Fault::Refused(refusal)) => {
                self.txn.back_to(mark);
                Outcome::Refused(refusal)
            }
            Err(fault) => return Err(fault),
        };
        self.owe_site(line.clone(), &Body::Told { asked: number, outcome })?;
        Ok(())
    }

    fn judge_ask(
        &mut self,
        site: &Arc<str>,
        conv: &ConvKey,
        privileged: bool,
        row: &[u8],
    ) -> Result<Answer, Fault> {
        let entry = Entry::decode(conv.clone(), 0, row)
            .map_err(|fault| Refusal::bad_request(fault.to_string()))?;
        let from = self.user_of(conv, &entry.from);
        if let Some(sites) = &self.settings.sites {
            if sites.foreign(conv).is_some() {
                return Err(Refusal::conflict("the sites' home rules differ").into());
            }
            if !privileged && *sites.home_of_user(&from.tenant, &from.id) != *site {
                let text = format!("{} does not live at {site}", from.id);
                return Err(Refusal::not_allowed(text).into());
            }
        }
        let operation = match entry.kind {
            EntryKind::Message => {
                let send = Send {
                    conv: conv.clone(),
                    from,
                    device: entry.device,
                    cid: entry.cid,
                    burn_secs: entry.burn_secs,
                    mentions: entry.mentions,
                    at_all: entry.at_all,
                    properties: entry.properties,
                    payload: entry.payload,
                    expires_at_ms: entry.expires_at_ms,
                    marker: None,
                    privileged,
                    asker: Asker::Nobody,
                };
                return self.send(Box::new(send), true);
            }
            EntryKind::Recall => Operation::Recall,
            EntryKind::Edit => Operation::Edit,
            EntryKind::React => Operation::React,
            _ => return Err(Refusal::bad_request("nothing that a member sends").into()),
        };
        let operate = Operate {
            conv: conv.clone(),
            from,
            device: entry.device,
            operation,
            seq: entry.reference,
            cid: entry.cid,
            properties: entry.properties,
            payload: entry.payload,
            marker: None,
            asker: Asker::Nobody,
        };
        match self.operate(&operate, true)? {
            // Counted with others (ruling 27): the message it is about stands for an entry.
            Answer::Done => {
                let about = self.entry(conv, operate.seq)?;
                let missing = || Refusal::not_found(format!("no message {}", operate.seq));
                let Entry { seq, id, ts_ms, .. } = about.ok_or_else(missing)?;
                Ok(Answer::Sent { sent: Sent { seq, id, ts_ms }, repeated: true })
            }
            answer => Ok(answer),
        }
    }

    /// The home has answered.
    pub(crate) fn told(
        &mut self,
        line: &LineKey,
        asked: u64,
        outcome: Outcome,
    ) -> Result<(), Fault> {
        let key = keys::site_held(line, asked);
        let Some(held) = self.txn.json::<HeldRow>(&key)? else { return Ok(()) };
        self.txn.delete(Family::Im, &key);
        if let Some(cid) = &held.cid {
            self.txn.delete(Family::Im, &keys::held_by_cid(&held.conv, &held.from, cid));
        }
        self.memory.lines.hold(line, -1);
        match self.memory.lines.take_waiting(line, asked) {
            Some(asker) => {
                let answer = match outcome {
                    Outcome::Sent { sent, repeated } => {
                        let marker = held
                            .marker
                            .map(|(session, id)| PacketIdent { session: SessionId(session), id });
                        self.remember_marker(&held.conv, marker, &sent);
                        Answer::Sent { sent, repeated }
                    }
                    Outcome::Refused(refusal) => Answer::Refused(refusal),
                };
                self.txn.effect(Effect::Answer { asker, answer });
            }
            None => self.tell_of_held(&held, outcome),
        }
        Ok(())
    }

    /// What was acknowledged as held has been committed by its home, or refused there.
    fn tell_of_held(&mut self, held: &HeldRow, outcome: Outcome) {
        let HeldRow { conv, from, cid, .. } = held;
        let user = self.user_of(conv, from);
        match (outcome, cid) {
            (Outcome::Sent { sent: Sent { seq, id, ts_ms }, .. }, Some(cid)) => {
                let wire = conv.wire(from);
                let topic = format!("im/me/sys/sent/{cid}/{wire}/{seq}/{id}/{ts_ms}");
                self.notice(user, topic, Bytes::new());
            }
            // Without a name for the message there is nothing to tell of it.
            (Outcome::Sent { .. }, None) => {}
            (Outcome::Refused(refusal), cid) => {
                let cid = cid.as_deref().unwrap_or("-");
                let topic = format!("im/me/sys/err/{cid}/{}", refusal.code as u8);
                self.notice(user, topic, refusal.message.as_bytes().to_vec());
            }
        }
    }
}
