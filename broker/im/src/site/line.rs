//! Lines between sites: one per slot and other site, in each direction.
//!
//! What is owed is a row with a number until the other site has said that it is committed there;
//! some of it, bounded, is under way. When nothing is heard for a while everything behind the last
//! number heard is sent again. The other site applies a number only behind the one before it, and
//! each once: its row says how far it has come, written in the batch of what was applied.
//!
//! Both sides hash names to slots alike, so that a line joins the shards that own the same slot,
//! and rows about one conversation or user keep their order.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use hoopoe_core::SLOTS;
use hoopoe_store::StoreError;
use hoopoe_store::kv::{Family, SharedKv};
use hoopoe_store::wire::{Cursor, put_number};
use serde::{Deserialize, Serialize};

use super::wire::{Body, Frame, Numbered, Signal};
use crate::command::{Asker, SendSignal};
use crate::effect::{Answer, Effect};
use crate::entry::{Entry, EntryKind, VOID_EXPIRED};
use crate::id::ConvKey;
use crate::keys::{self, site_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::VERSION;
use crate::shard::Work;

/// Numbers of one line that may be under way.
const WINDOW: usize = 64;
/// Numbers of all lines of a shard to one site that may be under way.
const MOST_FLYING: usize = 1_024;
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

/// The sending side of a line.
#[derive(Clone, Copy, Default, Debug)]
struct Out {
    /// When it began.
    born: u64,
    /// The last number given.
    last: u64,
    /// Everything up to here was heard.
    heard: u64,
    /// Everything up to here was sent.
    sent: u64,
    /// When it begins again.
    due: Option<u64>,
}

impl Out {
    fn flying(&self) -> usize {
        usize::try_from(self.sent - self.heard).unwrap_or(usize::MAX)
    }
}

/// The lines of a shard.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    out: HashMap<LineKey, Out>,
    flying: HashMap<Arc<str>, usize>,
    due: BTreeSet<(u64, LineKey)>,
    up: HashSet<Arc<str>>,
    /// Rows could not be read after a failed commit: nothing is owed before they are.
    stale: bool,
    /// Sends that have not been answered.
    pub(super) held: usize,
    /// Who waits for the answer, by line and number.
    waiting: HashMap<(LineKey, u64), Asker>,
    /// Those whom the present batch has added.
    waiting_new: Vec<(LineKey, u64)>,
    /// When they count as held.
    patience: BTreeSet<(u64, LineKey, u64)>,
}

impl Lines {
    /// The lines of a shard's slots, as committed.
    pub(crate) fn load(kv: &SharedKv, shard: u16, shards: u16) -> Result<Lines, StoreError> {
        let mut lines = Lines::default();
        for slot in (shard..SLOTS).step_by(usize::from(shards)) {
            crate::shard::due::scan(kv, slot, site_kind::LINE, |name, key, row| {
                let (born, last) = read_pair(key, row)?;
                let out = Out { born, last, heard: last, sent: last, due: None };
                if let Ok(site) = std::str::from_utf8(name) {
                    lines.out.insert((slot, site.into()), out);
                }
                Ok(())
            })?;
            crate::shard::due::scan(kv, slot, site_kind::OWED, |name, key, _| {
                let site = name.len().checked_sub(9).and_then(|end| name.get(..end));
                let site = site.and_then(|site| std::str::from_utf8(site).ok());
                if let Some(site) = site
                    && let Some(out) = lines.out.get_mut(&(slot, site.into()))
                {
                    let number = keys::seq_of(key);
                    // A row is written with the line's row; in doubt the row is right.
                    out.last = out.last.max(number);
                    out.heard = out.heard.min(number - 1);
                    out.sent = out.heard;
                }
                Ok(())
            })?;
            crate::shard::due::scan(kv, slot, site_kind::HELD, |_, _, _| {
                lines.held += 1;
                Ok(())
            })?;
        }
        Ok(lines)
    }

    pub(crate) fn next_timeout(&self) -> Option<u64> {
        let due = self.due.first().map(|(at, _)| *at);
        let patience = self.patience.first().map(|(at, ..)| *at);
        [due, patience].into_iter().flatten().min()
    }

    pub(crate) fn is_up(&self, site: &str) -> bool {
        self.up.contains(site)
    }

    /// The batch is committed.
    pub(crate) fn committed(&mut self) {
        self.waiting_new.clear();
    }

    /// The batch is lost. Without rows nothing can be owed.
    pub(crate) fn forget(&mut self, again: Result<Lines, StoreError>) {
        for (line, number) in std::mem::take(&mut self.waiting_new) {
            self.waiting.remove(&(line, number));
        }
        let (up, waiting) = (std::mem::take(&mut self.up), std::mem::take(&mut self.waiting));
        let patience = std::mem::take(&mut self.patience);
        *self = match again {
            Ok(lines) => Lines { up, waiting, patience, ..lines },
            Err(error) => {
                tracing::error!(%error, "what is owed to other sites cannot be read");
                Lines { up, waiting, patience, stale: true, ..Lines::default() }
            }
        };
        // What is owed leaves again at the next tick.
        for (line, out) in &mut self.out {
            if out.heard < out.last && self.up.contains(&line.1) {
                out.due = Some(0);
                self.due.insert((0, line.clone()));
            }
        }
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Somebody waits for what a send leads to, until `patience` is over.
    pub(crate) fn wait(&mut self, line: LineKey, number: u64, asker: Asker, until_ms: u64) {
        self.patience.insert((until_ms, line.clone(), number));
        self.waiting_new.push((line.clone(), number));
        self.waiting.insert((line, number), asker);
    }

    pub(super) fn take_waiting(&mut self, line: &LineKey, number: u64) -> Option<Asker> {
        self.waiting.remove(&(line.clone(), number))
    }

    fn change(&mut self, line: &LineKey, change: impl FnOnce(&mut Out)) {
        let Some(out) = self.out.get_mut(line) else { return };
        let before = (out.flying(), out.due);
        change(out);
        let (flying, due) = (out.flying(), out.due);
        if let Some(at) = before.1 {
            self.due.remove(&(at, line.clone()));
        }
        if let Some(at) = due {
            self.due.insert((at, line.clone()));
        }
        let all = self.flying.entry(line.1.clone()).or_default();
        *all = (*all + flying).saturating_sub(before.0);
    }

    /// How many more numbers of a line may leave.
    fn room(&self, line: &LineKey, out: &Out) -> usize {
        if !self.up.contains(&line.1) {
            return 0;
        }
        let all = self.flying.get(&line.1).copied().unwrap_or_default();
        let line = WINDOW.saturating_sub(out.flying());
        line.min(MOST_FLYING.saturating_sub(all))
    }
}

fn pair_row(first: u64, second: u64) -> Vec<u8> {
    let mut row = vec![VERSION];
    put_number(&mut row, first);
    put_number(&mut row, second);
    row
}

fn read_pair(key: &[u8], row: &[u8]) -> Result<(u64, u64), StoreError> {
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
            return Err(Refusal::not_writable().into());
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
        self.txn.put(Family::Im, &keys::site_owed(&line, number), row);
        let goes = out.sent == before && self.memory.lines.room(&line, &out) > 0;
        if goes {
            let after = if out.heard == before { 0 } else { before };
            self.fly(&line, out.born, after, number, body.encode().into());
        }
        let retry = self.now_ms + RESEND_MS;
        self.memory.lines.change(&line, |out| {
            out.last = number;
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
                Frame::Alive { .. } | Frame::Call(_) | Frame::Answer { .. } => Ok(()),
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
        let prefix = keys::site_owed_prefix(line);
        for key in self.txn.keys(Family::Im, &prefix, WINDOW * 2)? {
            if keys::seq_of(&key) <= number {
                self.txn.delete(Family::Im, &key);
            }
        }
        let retry = self.now_ms + RESEND_MS;
        self.memory.lines.change(line, |out| {
            out.heard = number;
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
