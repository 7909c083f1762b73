//! Reading a shard back: at the start, and after a commit that failed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use foldhash::HashMap;
#[cfg(feature = "planted")]
use hoopoe_core::planted;
use hoopoe_core::{Route, SLOTS, SessionId, SessionKey};

use super::asleep::Asleep;
use super::group::{Group, Groups};
use super::session::Session;
use super::{Load, ShardView};
use crate::command::{InFlight, StoredSubscription};
use crate::effect::Effect;
use crate::error::{Damaged, StoreError};
use crate::keys::{self, session_kind, shard_kind};
use crate::kv::{Family, Span};
use crate::log::After;
use crate::rows::{self, Fault, ShardRow};

/// What a shard found: to be put into the index before anyone connects, and to be carried out.
#[derive(Debug, Default)]
pub struct Restored {
    /// Stored sessions with their subscriptions.
    pub sessions: Vec<RestoredSession>,
    /// Shared groups.
    pub groups: Vec<RestoredGroup>,
    /// Outbox entries that may not have been carried out: [`Effect::Publish`] each.
    pub outbox: Vec<Effect>,
}

/// A stored session.
#[derive(Clone, Debug)]
pub struct RestoredSession {
    /// Whose.
    pub key: SessionKey,
    /// Its route.
    pub route: Arc<Route>,
    /// Its subscriptions, `$share/…` included; those are the groups' matter in the index.
    pub subscriptions: Vec<StoredSubscription>,
}

/// A shared group.
#[derive(Clone, Debug)]
pub struct RestoredGroup {
    /// Its route, with `group` set.
    pub route: Arc<Route>,
    /// ShareName.
    pub share: Arc<str>,
    /// Filter without the share prefix.
    pub filter: Arc<str>,
}

/// Runs `each` over rows until one cannot be read.
struct Reading {
    family: Family,
    fault: Option<Damaged>,
}

/// What the store keeps in memory of what is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keep {
    /// What lies around it, which is likely to be asked for.
    Blocks,
    /// Everything is read through once.
    Nothing,
}

impl Reading {
    fn of(family: Family) -> Reading {
        Reading { family, fault: None }
    }

    fn step(&mut self, key: &[u8], read: Result<(), Fault>) -> ControlFlow<()> {
        match read {
            Ok(()) => ControlFlow::Continue(()),
            Err(what) => {
                self.fault = Some(rows::at(self.family, key)(what));
                ControlFlow::Break(())
            }
        }
    }

    fn end(self) -> Result<(), StoreError> {
        self.fault.map_or(Ok(()), |fault| Err(fault.into()))
    }
}

/// What a shard knew before it reads its rows again: of it is taken what no row says.
struct Known {
    floors: HashMap<SessionId, u64>,
    sessions: HashMap<SessionId, Box<Session>>,
    asleep: Asleep,
    groups: Groups,
    outbox: BTreeSet<u64>,
    queued: Load,
    /// How many were left to be done.
    orphans: usize,
    finished: usize,
}

impl ShardView {
    /// Reads everything that decides. Connections that were there before stay where they are,
    /// routes stay the same ones. When a row cannot be read, all is as before.
    pub(super) fn load(&mut self) -> Result<Restored, StoreError> {
        let never_opened = std::mem::take(&mut self.never_opened);
        self.directory.forget(&never_opened);
        let mut known = Known {
            floors: self.floors.unload(self.shard),
            sessions: std::mem::take(&mut self.sessions),
            asleep: std::mem::take(&mut self.asleep),
            groups: std::mem::take(&mut self.groups),
            outbox: std::mem::take(&mut self.outbox),
            queued: std::mem::take(&mut self.queued),
            orphans: self.orphans.len(),
            finished: self.finished.len(),
        };
        let restored = self.load_anew(&mut known);
        match &restored {
            Ok(_) => {
                self.floors.loaded(self.shard);
                self.publish_totals();
            }
            Err(_) => self.put_back(known),
        }
        restored
    }

    fn put_back(&mut self, known: Known) {
        self.floors.unload(self.shard);
        for (id, floor) in known.floors {
            self.floors.insert(id, floor);
        }
        for (id, session) in &known.sessions {
            self.directory.bind(&session.key, Some(*id));
        }
        self.sessions = known.sessions;
        self.asleep = known.asleep;
        self.groups = known.groups;
        self.outbox = known.outbox;
        self.queued = known.queued;
        self.orphans.truncate(known.orphans);
        self.finished.truncate(known.finished);
    }

    fn load_anew(&mut self, known: &mut Known) -> Result<Restored, StoreError> {
        self.retained.forget();
        self.timers.clear();
        self.lazy.clear();
        self.lazy_since_ms = None;
        self.unsynced.clear();
        self.load_row()?;
        let outbox = self.load_shard_rows(&known.outbox)?;
        let mut restored = Restored { outbox, ..Restored::default() };
        let mut before = None;
        let (shard, shards) = (self.shard, self.shards);
        for slot in (0..SLOTS).filter(|slot| slot % shards == shard) {
            let (from, to) = keys::slot(slot);
            for id in self.load_rows(&from, &to, &mut before, Keep::Nothing)? {
                let before = known.sessions.get(&id).map(|session| &**session);
                let session = self.settle(id, before, &known.asleep)?;
                self.keep_floor(id, known.floors.get(&id).copied());
                if !known.floors.contains_key(&id) {
                    self.put_to_sleep(std::iter::once(id));
                }
                if self.sessions.contains_key(&id) {
                    restored.sessions.push(session);
                }
            }
        }
        restored.groups = self.settle_groups(&mut known.groups)?;
        Ok(restored)
    }

    fn load_row(&mut self) -> Result<(), StoreError> {
        let key = keys::shard_head(self.shard);
        self.row = match self.kv.get(Family::Shard, &key)? {
            Some(row) => rows::read_shard(&row).map_err(rows::at(Family::Shard, &key))?,
            None => ShardRow::default(),
        };
        (self.row_changed, self.reserved) = (false, false);
        // Numbers that may have been used, in the index or by a reader, are not used again.
        self.numbers = self.numbers.max(self.row.numbers).max(1);
        self.bodies = self.bodies.max(self.row.bodies).max(1);
        Ok(())
    }

    /// Markers, marks of applied outbox entries, and the outbox. `before`: the outbox as it was.
    fn load_shard_rows(&mut self, before: &BTreeSet<u64>) -> Result<Vec<Effect>, StoreError> {
        self.markers.clear();
        self.applied.clear();
        let mut waiting = Vec::new();
        let from = keys::shard_kind(self.shard, shard_kind::OUTBOX);
        let to = keys::shard_kind(self.shard, shard_kind::MARKER + 1);
        let mut reading = Reading::of(Family::Shard);
        let (kv, markers, applied, outbox) =
            (&self.kv, &mut self.markers, &mut self.applied, &mut self.outbox);
        kv.scan(Family::Shard, Span::half_open(&from, &to), &mut |key, value| {
            let mut read = || {
                match key[2] {
                    shard_kind::MARKER => {
                        #[cfg(feature = "planted")]
                        if planted::has(planted::Bug::ForgetMarkers) {
                            return Ok(());
                        }
                        markers.insert(keys::marker_of(key).ok_or("marker key")?);
                    }
                    shard_kind::APPLIED => {
                        applied.insert(keys::outbox_number(key).ok_or("mark key")?);
                    }
                    _ => {
                        let number = keys::outbox_number(key).ok_or("outbox key")?;
                        let row = rows::read_outbox(value)?;
                        outbox.insert(number);
                        waiting.push((number, row));
                    }
                }
                Ok(())
            };
            let read = read();
            reading.step(key, read)
        })?;
        reading.end()?;
        // What was told before a failed commit is under way already, or done.
        let told = |number: &u64| before.contains(number) || self.carried_out.contains(number);
        waiting.retain(|(number, _)| !told(number));
        let publish = |(outbox, row): (u64, rows::OutboxRow)| Effect::Publish {
            outbox,
            key: row.key,
            publication: Arc::new(row.publication),
        };
        Ok(waiting.into_iter().map(publish).collect())
    }

    /// One session and what belongs to it.
    pub(super) fn load_session(&mut self, id: SessionId) -> Result<(), StoreError> {
        let (from, to) = (keys::session(id, 0), keys::session(id, u8::MAX));
        self.load_rows(&from, &to, &mut None, Keep::Blocks).map(drop)
    }

    /// Sessions and groups between two keys that no row has, row by row; gives the sessions in
    /// their order. `before`: the key of the last one.
    fn load_rows(
        &mut self,
        from: &[u8],
        to: &[u8],
        before: &mut Option<SessionKey>,
        keep: Keep,
    ) -> Result<Vec<SessionId>, StoreError> {
        let mut found = Vec::new();
        let mut reading = Reading::of(Family::Session);
        let (sessions, groups) = (&mut self.sessions, &mut self.groups);
        let mut visit = |key: &[u8], value: &[u8]| {
            let mut read = || {
                let id = keys::session_of(key).ok_or("session key")?;
                let kind = *key.get(8).ok_or("session key")?;
                if kind == session_kind::SESSION {
                    let row = rows::read_session(value)?;
                    let key = before.iter().fold(row.key, SessionKey::sharing);
                    *before = Some(key.clone());
                    let mut session = Session::new(id, key, row.expiry_secs);
                    session.disconnected_at_ms = row.disconnected_at_ms;
                    sessions.insert(id, Box::new(session));
                    found.push(id);
                } else if kind == session_kind::GROUP {
                    let row = rows::read_group(value)?;
                    groups.insert(id, Group::new(id, row.share, row.filter));
                } else if kind == session_kind::MEMBER {
                    let subscriber = keys::u64_at(key, 9).ok_or("member key")?;
                    let row = rows::read_member(value)?;
                    let seated = groups.change(id, |group| group.seat_row(subscriber, row));
                    seated.ok_or("a member of no group")?;
                } else if let Some(session) = sessions.get_mut(&id) {
                    read_part(session, kind, &key[9..], value)?;
                }
                Ok(())
            };
            let read = read();
            reading.step(key, read)
        };
        match keep {
            Keep::Blocks => {
                self.kv.scan(Family::Session, Span::half_open(from, to), &mut visit)?;
            }
            Keep::Nothing => {
                let span = [(from, to)];
                self.kv
                    .scan_each_once(Family::Session, &span, &mut |_, key, row| visit(key, row))?;
            }
        }
        reading.end().map(|()| found)
    }

    /// Puts a session that was read back into its place.
    fn settle(
        &mut self,
        id: SessionId,
        before: Option<&Session>,
        asleep: &Asleep,
    ) -> Result<RestoredSession, StoreError> {
        let (head, weight) = self.last_entry(id)?;
        let now_ms = self.now_ms;
        let Some(session) = self.sessions.get_mut(&id) else { return Err(StoreError::Closed) };
        let grace_until_ms = match before {
            Some(before) if !before.is_connected() => before.grace_until_ms,
            None if asleep.contains(&session.key, id) => 0,
            _ => now_ms + u64::from(self.settings.restart_grace_secs) * 1000,
        };
        session.head = head.max(session.progress.acknowledged);
        #[cfg(feature = "planted")]
        if planted::has(planted::Bug::ReuseSeq) {
            session.head = session.head.saturating_sub(1).max(session.progress.acknowledged);
        }
        session.weight = weight.max(session.progress.weight);
        if let Some(before) = before {
            session.route = before.route.clone();
        }
        let load = session.load();
        session.route.set_queued(load.messages);
        self.queued.messages += load.messages;
        self.queued.bytes += load.bytes;
        self.directory.bind(&session.key, Some(id));
        if let Some(live) = self.directory.live(&session.key) {
            (session.location, session.epoch) = (live.location, live.epoch);
        } else {
            // The start counts as the end of a connection that nobody saw end (ruling 14).
            session.grace_until_ms = grace_until_ms;
            if session.disconnected_at_ms == 0 {
                session.disconnected_at_ms = now_ms;
                session.row_changed = true;
            }
        }
        let restored = RestoredSession {
            key: session.key.clone(),
            route: session.route.clone(),
            subscriptions: session.subscriptions.clone(),
        };
        if session.row_changed {
            self.mark_lazy(now_ms, id);
        }
        self.schedule(id);
        Ok(restored)
    }

    /// The floor stays where it was before a failed commit: what has been read since may not be
    /// synced yet.
    fn keep_floor(&mut self, id: SessionId, before: Option<u64>) {
        let Some(session) = self.sessions.get(&id) else { return };
        let floor = session.progress.acknowledged;
        self.floors.insert(id, before.unwrap_or(floor));
        if before.is_some_and(|before| before < floor) {
            self.unsynced.push(After::Raise(id, floor));
            self.unsynced_since_ms = self.now_ms;
        }
    }

    /// Number and running total of a queue's last entry, 0 when there is none.
    fn last_entry(&self, id: SessionId) -> Result<(u64, u64), StoreError> {
        let (from, to) = (keys::queue(id, 0), keys::queue(id, u64::MAX));
        let mut last = Ok((0, 0));
        let span = Span::half_open(&from, &to).reversed();
        self.kv.scan(Family::Queue, span, &mut |key, value| {
            let seq = keys::queue_of(key).map_or(0, |(_, seq)| seq);
            let read = rows::read_weight(value).map(|weight| (seq, weight));
            last = read.map_err(rows::at(Family::Queue, key));
            ControlFlow::Break(())
        })?;
        Ok(last?)
    }
}

/// One row of a session that is not its own.
fn read_part(session: &mut Session, kind: u8, rest: &[u8], value: &[u8]) -> Result<(), Fault> {
    match kind {
        session_kind::PROGRESS => session.progress = rows::read_progress(value)?,
        session_kind::WILL => session.will = Some(Box::new(rows::read_will(value)?)),
        session_kind::WINDOW => {
            let window: Vec<InFlight> = rows::read_window(value)?;
            session.window = Some(window.into());
        }
        session_kind::EXCHANGE => {
            let id = rest.try_into().map(u16::from_be_bytes).map_err(|_| "exchange key")?;
            let row = rows::read_exchange(value)?;
            session.exchanges.get_or_insert_default().load_row(id, row);
        }
        session_kind::DONE => {
            let seq = rest.try_into().map(u64::from_be_bytes).map_err(|_| "key of a mark")?;
            session.exchanges.get_or_insert_default().load_done(seq);
        }
        session_kind::SUBSCRIPTION => {
            let filter = std::str::from_utf8(rest).map_err(|_| "filter is not UTF-8")?;
            let (options, identifier) = rows::read_subscription(value)?;
            let filter = filter.into();
            session.add_subscription(StoredSubscription { filter, options, identifier });
        }
        _ => return Err("unknown kind of row"),
    }
    Ok(())
}
