//! Lines between sites: one per slot and other site, in each direction.
//!
//! What is owed is a row with a number until the other site has said that it is committed there;
//! some of it, bounded, is under way. When nothing is heard for a while everything behind the last
//! number heard is sent again. The other site applies a number only behind the one before it, and
//! each once: its row says how far it has come, written in the batch of what was applied.
//!
//! Both sides hash names to slots alike, so that a line joins the shards that own the same slot,
//! and rows about one conversation or user keep their order.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use hoopoe_store::StoreError;
use hoopoe_store::kv::Family;
use hoopoe_store::wire::{Cursor, put_number};
use serde::{Deserialize, Serialize};

use super::owing::Out;
use super::wire::{Body, Frame, Numbered, Signal};
use crate::command::{Asker, SendSignal};
use crate::effect::{Answer, Effect};
use crate::entry::{Entry, EntryKind, VOID_EXPIRED};
use crate::id::ConvKey;
use crate::keys;
use crate::refusal::{Fault, Refusal};
use crate::rows::VERSION;
use crate::shard::Work;

/// Silence after which a line begins again behind the last number heard.
const RESEND_MS: u64 = 3_000;

/// A line: its slot, and the other site.
pub(crate) type LineKey = (u16, Arc<str>);

/// What another site, or the link to it, tells a shard.
#[derive(Clone, Debug)]
pub struct SiteLetter {
    /// The other site.
    pub site: Arc<str>,
    /// What.
    pub news: SiteNews,
}

/// See [`SiteLetter`].
#[derive(Clone, Debug)]
pub enum SiteNews {
    /// The other site is heard and hears; or not any more.
    Link {
        /// Which.
        up: bool,
    },
    /// Something it says.
    Frame(Box<Frame>),
    /// Operators want to know what is owed to it.
    Count,
}

/// Who waits for what another site makes of a send; kept until it is told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct HeldRow {
    pub(crate) conv: ConvKey,
    pub(crate) from: Arc<str>,
    pub(crate) cid: Option<Arc<str>>,
    /// Session and packet identifier of an incoming QoS 2.
    pub(crate) marker: Option<(u64, u16)>,
}

fn pair_row(first: u64, second: u64) -> Vec<u8> {
    let mut row = vec![VERSION];
    put_number(&mut row, first);
    put_number(&mut row, second);
    row
}

pub(super) fn read_pair(key: &[u8], row: &[u8]) -> Result<(u64, u64), StoreError> {
    let read = || {
        let mut cursor = Cursor::of(row, VERSION)?;
        Ok((cursor.number()?, cursor.number()?))
    };
    read().map_err(|what| {
        hoopoe_store::Damaged { family: Family::Im, key: key.to_vec(), what }.into()
    })
}

impl Work<'_> {
    /// Owes another site something. Gives its number.
    pub(crate) fn owe_site(&mut self, line: LineKey, body: &Body) -> Result<u64, Fault> {
        if self.memory.lines.is_stale() {
            // Not a refusal: what another site or shard has said is to come again.
            let what = "numbers of lines to other sites are not known yet";
            return Err(StoreError::Read(what.to_owned()).into());
        }
        let born = self.now_ms;
        let out = self.memory.lines.out.entry(line.clone());
        let out = *out.or_insert_with(|| Out { born, ..Out::default() });
        let (before, number) = (out.last, out.last + 1);
        self.txn.put(Family::Im, &keys::site_line(&line), pair_row(out.born, number));
        let row = match body {
            Body::Entry { conv, seq, loud, big, .. } => {
                let (conv, seq, loud, big) = (conv.clone(), *seq, *loud, *big);
                Body::Reference { conv, seq, loud, big }.encode()
            }
            body => body.encode(),
        };
        let bytes = row.len() as u64;
        self.txn.put(Family::Im, &keys::site_owed(&line, number), row);
        let goes = out.sent == before && self.memory.lines.room(&line, &out) > 0;
        if goes {
            let after = if out.heard == before { 0 } else { before };
            self.fly(&line, out.born, after, number, body.encode().into());
        }
        let (now_ms, retry) = (self.now_ms, self.now_ms + RESEND_MS);
        self.memory.lines.change(&line, |out| {
            out.last = number;
            out.bytes += bytes;
            if out.heard == before {
                out.since_ms = now_ms;
                out.mark = (number, now_ms);
            }
            if goes {
                out.sent = number;
            }
            out.due.get_or_insert(retry);
        });
        Ok(number)
    }

    fn fly(&mut self, line: &LineKey, born: u64, after: u64, number: u64, body: Bytes) {
        let numbered = Numbered { slot: line.0, born, after, number, body };
        self.say(line.1.clone(), &Frame::Numbered(numbered));
    }

    /// Says something to another site, which may be lost.
    pub(crate) fn say(&mut self, site: Arc<str>, frame: &Frame) {
        self.txn.effect(Effect::Site { site, frame: frame.encode() });
    }

    /// Another site, or the link to it.
    pub(crate) fn site_letter(&mut self, letter: SiteLetter) -> Result<(), Fault> {
        let SiteLetter { site, news } = letter;
        match news {
            SiteNews::Link { up: false } => {
                self.memory.lines.up.remove(&site);
                Ok(())
            }
            SiteNews::Link { up: true } => self.link_is_up(site),
            SiteNews::Count => {
                if let Some(owed) = self.memory.lines.count(&site) {
                    let shard = self.shard;
                    self.txn.effect(Effect::Owed { site, shard, owed });
                }
                Ok(())
            }
            SiteNews::Frame(frame) => match *frame {
                Frame::Numbered(numbered) => self.arrived(site, numbered),
                Frame::Heard { slot, born, number } => self.heard(&(slot, site), born, number),
                Frame::Signal(signal) => self.site_signal(site, signal),
                Frame::Notice { user, topic, payload } => {
                    if !self.lives_elsewhere(&user) {
                        self.txn.effect(Effect::Notice { user, topic, payload });
                    }
                    Ok(())
                }
                Frame::Alive { .. } | Frame::Call(_) | Frame::Answer { .. } | Frame::Room(_) => {
                    Ok(())
                }
            },
        }
    }

    fn link_is_up(&mut self, site: Arc<str>) -> Result<(), Fault> {
        self.memory.lines.up.insert(site.clone());
        let lines = self.memory.lines.out.iter();
        let owing = lines.filter(|((_, to), out)| *to == site && out.heard < out.last);
        let owing: Vec<LineKey> = owing.map(|(line, _)| line.clone()).collect();
        for line in owing {
            self.begin_again(&line)?;
        }
        Ok(())
    }

    fn begin_again(&mut self, line: &LineKey) -> Result<(), Fault> {
        let retry = self.now_ms + RESEND_MS;
        self.memory.lines.change(line, |out| {
            out.sent = out.heard;
            out.due = (out.heard < out.last).then_some(retry);
        });
        self.pump(line)
    }

    /// Lets the next numbers of a line leave.
    fn pump(&mut self, line: &LineKey) -> Result<(), Fault> {
        let Some(out) = self.memory.lines.out.get(line).copied() else { return Ok(()) };
        let room = self.memory.lines.room(line, &out);
        if room == 0 || out.sent >= out.last {
            return Ok(());
        }
        let prefix = keys::site_owed_prefix(line);
        let from = keys::site_owed(line, out.sent + 1);
        let mut rows: Vec<(u64, Vec<u8>)> = Vec::new();
        self.txn.scan(Family::Im, &prefix, &from, |key, row| {
            rows.push((keys::seq_of(key), row.to_vec()));
            if rows.len() >= room { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let mut after = if out.sent == out.heard { 0 } else { out.sent };
        let is_rest = rows.len() < room;
        for (number, row) in rows {
            let body = self.owed_body(row)?;
            self.fly(line, out.born, after, number, body);
            after = number;
        }
        // Numbers that no row has were given by a command that failed.
        let sent = if is_rest { out.last } else { after.max(out.sent) };
        self.memory.lines.change(line, |out| out.sent = sent);
        Ok(())
    }

    /// What a row of a line says, with the entry that it refers to as it is now.
    fn owed_body(&mut self, row: Vec<u8>) -> Result<Bytes, Fault> {
        let Ok(Body::Reference { conv, seq, loud, big }) = Body::decode(&row) else {
            return Ok(row.into());
        };
        let entry = match self.entry(&conv, seq)? {
            Some(entry) => entry,
            None => self.swept_entry(&conv, seq)?,
        };
        let mut row = Vec::new();
        entry.encode(&mut row);
        Ok(Body::Entry { conv, seq, loud, big, row: row.into() }.encode().into())
    }

    /// Retention was faster than the link: the seq is not skipped, but nothing is left of it.
    fn swept_entry(&mut self, conv: &ConvKey, seq: u64) -> Result<Entry, Fault> {
        let head = self.head(conv)?;
        Ok(Entry {
            conv: conv.clone(),
            seq,
            id: head.id,
            ts_ms: head.ts_ms,
            from: "".into(),
            device: "".into(),
            cid: None,
            kind: EntryKind::Void,
            reference: 0,
            count: head.count,
            expires_at_ms: None,
            at_all: false,
            mentions: Vec::new(),
            burn_secs: 0,
            void_reason: VOID_EXPIRED,
            properties: Bytes::new(),
            payload: Bytes::new(),
        })
    }

    /// The other site has committed a line up to a number.
    fn heard(&mut self, line: &LineKey, born: u64, number: u64) -> Result<(), Fault> {
        let Some(out) = self.memory.lines.out.get(line).copied() else { return Ok(()) };
        if out.born != born || number <= out.heard || number > out.last {
            return Ok(());
        }
        // Not looked for: a scan would step over all the rows that were deleted before. A number
        // without a row was given by a command that failed.
        for done in out.heard + 1..=number {
            self.txn.delete(Family::Im, &keys::site_owed(line, done));
        }
        let (now_ms, retry) = (self.now_ms, self.now_ms + RESEND_MS);
        self.memory.lines.change(line, |out| {
            out.hear(number, now_ms);
            out.sent = out.sent.max(number);
            out.due = (out.heard < out.last).then_some(retry);
        });
        self.pump(line)
    }

    /// Something owed has come.
    fn arrived(&mut self, site: Arc<str>, numbered: Numbered) -> Result<(), Fault> {
        let Numbered { slot, born, after, number, body } = numbered;
        let line = (slot, site);
        let key = keys::site_come(&line);
        let come = match self.txn.get(Family::Im, &key)? {
            Some(row) => read_pair(&key, &row)?,
            None => (born, 0),
        };
        // A site that was begun anew numbers anew; what its former life has left says nothing.
        let last = match born.cmp(&come.0) {
            std::cmp::Ordering::Less => return Ok(()),
            std::cmp::Ordering::Equal => come.1,
            std::cmp::Ordering::Greater => 0,
        };
        if number <= last || after > last {
            self.say(line.1, &Frame::Heard { slot, born, number: last });
            return Ok(());
        }
        let mark = self.txn.mark();
        match self.owed_to_us(&line, number, &body) {
            Ok(()) => {}
            Err(Fault::Refused(refusal)) => {
                self.txn.back_to(mark);
                let site = &*line.1;
                tracing::warn!(site, message = %refusal.message, "not applied");
            }
            Err(fault) => return Err(fault),
        }
        self.txn.put(Family::Im, &key, pair_row(born, number));
        self.say(line.1, &Frame::Heard { slot, born, number });
        Ok(())
    }

    /// Applies what another site owes. Only what belongs to the line's slot, and what that site
    /// may decide, is applied.
    fn owed_to_us(&mut self, line: &LineKey, number: u64, body: &[u8]) -> Result<(), Fault> {
        let body = Body::decode(body).map_err(Refusal::bad_request)?;
        let Some(sites) = self.settings.sites.clone() else { return Ok(()) };
        let slot = match &body {
            Body::Entry { conv, .. }
            | Body::Reference { conv, .. }
            | Body::Ask { conv, .. }
            | Body::Row { conv, .. } => conv.slot().get(),
            Body::Forward(forward) => forward.slot().get(),
            Body::Told { .. } => line.0,
        };
        if slot != line.0 {
            return Err(Refusal::bad_request("the line is of another slot").into());
        }
        match body {
            Body::Entry { conv, .. } | Body::Row { conv, .. }
                if *sites.home_of(&conv) != line.1 =>
            {
                let text = format!("{} does not live at {}", conv.as_str(), line.1);
                Err(Refusal::not_allowed(text).into())
            }
            Body::Entry { conv, seq, loud, big, row } => {
                self.replicate(&conv, seq, &row, loud, big)
            }
            Body::Row { conv, kind, name, value } => self.replicate_row(&conv, kind, &name, value),
            Body::Reference { .. } => Err(Refusal::bad_request("a row of a line").into()),
            Body::Ask { conv, privileged, row } => {
                self.asked_by(line, number, &conv, privileged, &row)
            }
            Body::Told { asked, outcome } => self.told(line, asked, outcome),
            Body::Forward(forward) if self.forward_home(&forward).is_some() => {
                Err(Refusal::bad_request("a step for another site").into())
            }
            Body::Forward(forward) => self.forwarded(*forward),
        }
    }

    /// What is due: lines that begin again, and who has waited long enough.
    pub(crate) fn tick_lines(&mut self) -> Result<(), Fault> {
        while let Some((at, ..)) = self.memory.lines.patience.first()
            && *at <= self.now_ms
        {
            let Some((_, line, number)) = self.memory.lines.patience.pop_first() else { break };
            if let Some(asker) = self.memory.lines.take_waiting(&line, number) {
                self.txn.effect(Effect::Answer { asker, answer: Answer::Held });
            }
        }
        while let Some((at, line)) = self.memory.lines.due.first().cloned()
            && at <= self.now_ms
        {
            let up = self.memory.lines.is_up(&line.1);
            if up {
                self.begin_again(&line)?;
            } else {
                self.memory.lines.change(&line, |out| out.due = None);
            }
        }
        Ok(())
    }

    /// A signal from another site: judged at the home of its conversation, heard everywhere else.
    fn site_signal(&mut self, site: Arc<str>, signal: Signal) -> Result<(), Fault> {
        let Some(sites) = self.settings.sites.clone() else { return Ok(()) };
        let home = sites.home_of(&signal.conv);
        let here = signal.site == sites.id;
        let send = SendSignal {
            from: self.user_of(&signal.conv, &signal.from),
            conv: signal.conv,
            location: match here {
                true => hoopoe_core::Location::from_bits(signal.location),
                false => hoopoe_core::Location::NOWHERE,
            },
            kind: signal.kind,
            properties: signal.properties,
            payload: signal.payload,
            asker: Asker::Nobody,
        };
        if signal.judged && *home == site {
            self.txn.effect(Effect::Signal(Box::new(send)));
        } else if !signal.judged && *home == sites.id && signal.site == site {
            let from = (site, signal.location);
            self.judge_signal(Box::new(send), Some(from))?;
        }
        Ok(())
    }
}
