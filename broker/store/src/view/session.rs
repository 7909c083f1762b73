//! Stored sessions: made, resumed, given back, ended; their subscriptions and their progress.

use std::collections::BTreeSet;
use std::sync::Arc;

use hoopoe_codec::ReasonCode;
use hoopoe_core::{Location, Route, SessionId, SessionKey};

use super::directory::Live;
use super::qos2::Exchanges;
use super::{LAZY_SESSIONS, Load, ShardView};
use crate::command::{
    Close, CloseCause, InFlight, Open, Progress, ReplyTo, Source, StoredSubscription, StoredWill,
};
use crate::effect::{Effect, StoredSession};
use crate::keys::{self, session_kind};
use crate::kv::Family;
use crate::log::{After, PendingBatch};
use crate::rows::{self, ProgressRow, SessionRow};

/// Up to so many subscriptions a session has room for no more than it has.
const FEW_SUBSCRIPTIONS: usize = 8;
/// When a session that is due and cannot be read is tried again.
const READ_AGAIN_MS: u64 = 1_000;

/// A stored session as its shard keeps it, while it is connected and while it is not: what most
/// sessions do not have is behind a pointer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: SessionKey,
    pub(super) route: Arc<Route>,
    /// Where it is connected, and that connection's epoch.
    pub(super) location: Location,
    pub(super) epoch: u32,
    pub(super) expiry_secs: u32,
    /// When its connection ended; 0 while it is connected.
    pub(super) disconnected_at_ms: u64,
    /// Nothing is due before this (ruling 14).
    pub(super) grace_until_ms: u64,
    /// What `timers` holds for it; 0 for nothing.
    pub(super) due_ms: u64,
    pub(super) will: Option<Box<StoredWill>>,
    pub(super) subscriptions: Vec<StoredSubscription>,
    /// Its queue: how far it is acknowledged, sent, filled.
    pub(super) progress: ProgressRow,
    pub(super) head: u64,
    pub(super) weight: u64,
    /// The window that its last connection left; `None` while connected and after a crash.
    pub(super) window: Option<Box<[InFlight]>>,
    pub(super) exchanges: Option<Box<Exchanges>>,
    /// Incoming QoS 2 publications that its last connection knew to be committed everywhere.
    pub(super) answered: Box<[u16]>,
    /// In the list of sessions with lazy rows; and whether its own row is one of them.
    pub(super) lazy: bool,
    pub(super) row_changed: bool,
}

impl Session {
    pub(super) fn new(id: SessionId, key: SessionKey, expiry_secs: u32) -> Session {
        Session {
            key,
            route: Arc::new(Route::stored(id)),
            location: Location::NOWHERE,
            epoch: 0,
            expiry_secs,
            disconnected_at_ms: 0,
            grace_until_ms: 0,
            due_ms: 0,
            will: None,
            subscriptions: Vec::new(),
            progress: ProgressRow::default(),
            head: 0,
            weight: 0,
            window: None,
            exchanges: None,
            answered: Box::default(),
            lazy: false,
            row_changed: false,
        }
    }

    /// A subscription is made. Most sessions have few, and keep them.
    pub(super) fn add_subscription(&mut self, new: StoredSubscription) {
        if self.subscriptions.len() < FEW_SUBSCRIPTIONS {
            self.subscriptions.reserve_exact(1);
        }
        self.subscriptions.push(new);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.location != Location::NOWHERE
    }

    /// What waits in its queue or is unacknowledged.
    pub(super) fn load(&self) -> Load {
        Load {
            messages: self.head - self.progress.acknowledged,
            bytes: self.weight - self.progress.weight,
        }
    }

    /// When the will is due after an abnormal end: its delay or the session's end, whichever
    /// comes first ([MQTT-3.1.3-9]). After a clean stop not in this process any more: it counts
    /// from the next start (ruling 14).
    pub(super) fn will_due_ms(&self) -> Option<u64> {
        let will = self.will.as_ref().filter(|_| self.disconnected_at_ms > 0)?;
        let delay = u64::from(will.delay_secs.min(self.expiry_secs)) * 1000;
        Some(self.disconnected_at_ms.saturating_add(delay).max(self.grace_until_ms))
    }

    /// When the session ends; `u32::MAX` is never ([3.1.2.11.2]). After a clean stop as above.
    pub(super) fn expiry_due_ms(&self) -> Option<u64> {
        let expiry = u64::from(self.expiry_secs) * 1000;
        (self.expiry_secs < u32::MAX && self.disconnected_at_ms > 0)
            .then(|| self.disconnected_at_ms.saturating_add(expiry).max(self.grace_until_ms))
    }

    fn next_due_ms(&self) -> u64 {
        if self.is_connected() {
            return 0;
        }
        let due = [self.will_due_ms(), self.expiry_due_ms()].into_iter().flatten().min();
        due.unwrap_or(0)
    }

    fn row(&self) -> SessionRow {
        SessionRow {
            key: self.key.clone(),
            expiry_secs: self.expiry_secs,
            disconnected_at_ms: self.disconnected_at_ms,
        }
    }

    /// The first entry that is in no window and not complete, and the window itself: the one that
    /// the last connection left, or after a crash what is known of it. That an entry was sent
    /// tells nothing: it may have been sent before a crash and not again since.
    fn window_to_resume(&mut self) -> (u64, Vec<InFlight>) {
        let exchanges = self.exchanges.as_deref();
        let known = || exchanges.map(Exchanges::window).unwrap_or_default();
        let window = self.window.take().map_or_else(known, <[InFlight]>::into_vec);
        let from_queue = |entry: &InFlight| match entry.source {
            Source::Queue(seq) => Some(seq),
            Source::Group(..) | Source::Entry(..) => None,
        };
        let given_out: BTreeSet<u64> = window.iter().filter_map(from_queue).collect();
        let mut next = self.progress.acknowledged + 1;
        while given_out.contains(&next) || exchanges.is_some_and(|known| known.is_done(next)) {
            next += 1;
        }
        (next, window)
    }
}

impl ShardView {
    /// A session that outlives its connection comes to be.
    pub(super) fn make_session(
        &mut self,
        open: Open,
        live: Live,
        batch: &mut PendingBatch,
    ) -> StoredSession {
        let id = SessionId(self.next_number(open.key.slot()));
        let mut session = Session::new(id, open.key, open.expiry_secs);
        (session.location, session.epoch) = (live.location, live.epoch);
        self.directory.bind(&session.key, Some(id));
        self.floors.insert(id, 0);
        batch.durable = true;
        put_session(id, &session, batch);
        if let Some(will) = open.will {
            put_will(id, &will, batch);
            session.will = Some(Box::new(will));
        }
        let stored = self.stored_session(id, &mut session);
        self.sessions.insert(id, Box::new(session));
        stored
    }

    /// A stored session gets a new connection: no will is pending any more [MQTT-3.1.3-9], and
    /// what the connection takes over (the window) is forgotten here.
    pub(super) fn resume_session(
        &mut self,
        id: SessionId,
        open: Open,
        live: Live,
        batch: &mut PendingBatch,
    ) -> Option<StoredSession> {
        let mut session = self.sessions.remove(&id)?;
        (session.location, session.epoch) = (live.location, live.epoch);
        session.expiry_secs = open.expiry_secs;
        session.disconnected_at_ms = 0;
        session.grace_until_ms = 0;
        session.row_changed = false;
        batch.durable = true;
        put_session(id, &session, batch);
        if session.window.is_some() {
            batch.rows.delete(Family::Session, &keys::session(id, session_kind::WINDOW));
        }
        match open.will {
            Some(will) => {
                put_will(id, &will, batch);
                session.will = Some(Box::new(will));
            }
            None if session.will.take().is_some() => {
                batch.rows.delete(Family::Session, &keys::session(id, session_kind::WILL));
            }
            None => {}
        }
        let stored = self.stored_session(id, &mut session);
        self.sessions.insert(id, session);
        self.schedule(id);
        Some(stored)
    }

    fn stored_session(&self, id: SessionId, session: &mut Session) -> StoredSession {
        let (next, window) = session.window_to_resume();
        let ProgressRow { acknowledged, weight, sent } = session.progress;
        StoredSession {
            id,
            route: session.route.clone(),
            acknowledged,
            weight,
            sent,
            next,
            head: session.head,
            window,
            done: session
                .exchanges
                .as_ref()
                .map(|e| e.done_above(acknowledged))
                .unwrap_or_default(),
            markers: self.markers_of(id),
            answered: std::mem::take(&mut session.answered).into_vec(),
            subscriptions: session.subscriptions.clone(),
        }
    }

    /// A connection has ended: the session waits for the next one, or ends too.
    pub(super) fn give_back(
        &mut self,
        now_ms: u64,
        id: SessionId,
        close: Box<Close>,
        batch: &mut PendingBatch,
    ) {
        if let Some(progress) = close.progress {
            self.progress(now_ms, Progress { session: id, epoch: close.epoch, ..progress });
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.location = Location::NOWHERE;
        session.epoch = 0;
        if let Some(secs) = close.expiry_secs {
            session.expiry_secs = secs;
        }
        session.disconnected_at_ms = now_ms;
        session.grace_until_ms = 0;
        session.answered = close.answered.as_slice().into();
        if close.cause == CloseCause::Shutdown {
            // As after a crash, delay and expiry count from the next start (ruling 14).
            session.disconnected_at_ms = 0;
        } else if close.cause == CloseCause::Normal && session.will.take().is_some() {
            // [MQTT-3.1.2-10], [MQTT-3.14.4-3]
            batch.durable = true;
            batch.rows.delete(Family::Session, &keys::session(id, session_kind::WILL));
        }
        self.keep_window(id, &close.window, &close.done, batch);
        self.flush_session(id, batch);
        let Some(session) = self.sessions.get(&id) else { return };
        put_session(id, session, batch);
        if close.cause != CloseCause::Shutdown {
            if session.expiry_secs == 0 {
                self.end_session(now_ms, id, batch);
            } else if session.will_due_ms().is_some_and(|due| due <= now_ms) {
                self.fire_will(now_ms, id, batch);
            }
            self.schedule(id);
        }
        if let Some(reply) = close.told {
            batch.committed(reply, ReasonCode::Success);
        }
        batch.closes.push((id, close));
    }

    /// A session ends: everything of it is void from the commit on. A will that is still pending
    /// is published ([MQTT-3.1.3-9]).
    pub(super) fn end_session(&mut self, now_ms: u64, id: SessionId, batch: &mut PendingBatch) {
        self.fire_will(now_ms, id, batch);
        let Some(session) = self.sessions.remove(&id) else { return };
        if session.due_ms != 0 {
            self.timers.remove(&(session.due_ms, id));
        }
        let mut delete = |key: &[u8]| batch.rows.delete(Family::Session, key);
        delete(&keys::session(id, session_kind::SESSION));
        delete(&keys::session(id, session_kind::PROGRESS));
        delete(&keys::session(id, session_kind::WINDOW));
        for subscription in &session.subscriptions {
            delete(&keys::subscription(id, &subscription.filter));
        }
        if let Some(exchanges) = &session.exchanges {
            exchanges.stored_keys(id).for_each(|key| delete(&key));
        }
        self.remove_markers_of(id, batch);
        let load = session.load();
        self.queued.messages -= load.messages;
        self.queued.bytes -= load.bytes;
        self.floors.add_dead(load.bytes);
        session.route.set_queued(0);
        self.directory.bind(&session.key, None);
        batch.durable = true;
        batch.after.push(After::Remove(id));
        let exchanges = session.exchanges.iter();
        batch.effect(Effect::SessionEnded {
            session: id,
            kept: exchanges.flat_map(|exchanges| exchanges.of_groups()).collect(),
            filters: session.subscriptions.into_iter().map(|one| one.filter).collect(),
        });
    }

    /// Subscriptions are made or replaced ([MQTT-3.8.4-3]).
    pub(super) fn subscribe(
        &mut self,
        id: SessionId,
        epoch: u32,
        filters: Vec<StoredSubscription>,
        reply: ReplyTo,
        batch: &mut PendingBatch,
    ) {
        let Some(session) = self.held(id, epoch, reply, batch) else { return };
        for new in filters {
            let key = keys::subscription(id, &new.filter);
            batch.rows.put_with(Family::Session, &key, |out| {
                rows::put_subscription(out, new.options, new.identifier);
            });
            match session.subscriptions.iter_mut().find(|old| old.filter == new.filter) {
                Some(old) => *old = new,
                None => session.add_subscription(new),
            }
        }
        batch.durable = true;
        batch.committed(reply, ReasonCode::Success);
    }

    /// Subscriptions are ended.
    pub(super) fn unsubscribe(
        &mut self,
        id: SessionId,
        epoch: u32,
        filters: &[Arc<str>],
        reply: ReplyTo,
        batch: &mut PendingBatch,
    ) {
        let Some(session) = self.held(id, epoch, reply, batch) else { return };
        for filter in filters {
            if let Some(at) = session.subscriptions.iter().position(|old| old.filter == *filter) {
                session.subscriptions.remove(at);
                batch.rows.delete(Family::Session, &keys::subscription(id, filter));
                batch.durable = true;
            }
        }
        batch.committed(reply, ReasonCode::Success);
    }

    /// The session, if `epoch` holds it; else whoever waits hears that it was taken over.
    pub(super) fn held(
        &mut self,
        id: SessionId,
        epoch: u32,
        reply: ReplyTo,
        batch: &mut PendingBatch,
    ) -> Option<&mut Session> {
        let session = self.sessions.get_mut(&id).filter(|session| session.epoch == epoch);
        if session.is_none() {
            batch.committed(reply, ReasonCode::SessionTakenOver);
        }
        session.map(|session| &mut **session)
    }

    /// How far delivery has come. Kept in memory; written within [`LAZY_MS`](super::LAZY_MS).
    pub(super) fn progress(&mut self, now_ms: u64, progress: Progress) {
        let Some(session) = self.sessions.get_mut(&progress.session) else { return };
        if session.epoch != progress.epoch && session.is_connected() {
            return;
        }
        let known = session.progress;
        session.progress.sent = known.sent.max(progress.sent).min(session.head);
        if progress.acknowledged > known.acknowledged && progress.acknowledged <= session.head {
            session.progress.acknowledged = progress.acknowledged;
            session.progress.weight = progress.weight.clamp(known.weight, session.weight);
            let messages = progress.acknowledged - known.acknowledged;
            let bytes = session.progress.weight - known.weight;
            self.queued.messages -= messages;
            self.queued.bytes -= bytes;
            self.floors.add_dead(bytes);
            session.route.set_queued(session.head - progress.acknowledged);
        }
        if session.progress != known {
            self.mark_lazy(now_ms, progress.session);
        }
    }

    /// The session has rows that may wait.
    pub(super) fn mark_lazy(&mut self, now_ms: u64, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.lazy {
            session.lazy = true;
            self.lazy.push(id);
            self.lazy_since_ms.get_or_insert(now_ms);
        }
    }

    /// Writes what waited, of as many sessions as one batch should hold.
    pub(super) fn flush_lazy(&mut self, now_ms: u64, batch: &mut PendingBatch) {
        let rest = self.lazy.split_off(self.lazy.len().min(LAZY_SESSIONS));
        let ids = std::mem::replace(&mut self.lazy, rest);
        self.lazy_since_ms = (!self.lazy.is_empty()).then_some(now_ms);
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id)
                && std::mem::take(&mut session.lazy)
            {
                self.flush_session(id, batch);
            }
        }
    }

    /// Writes progress and completed exchanges of a session.
    pub(super) fn flush_session(&mut self, id: SessionId, batch: &mut PendingBatch) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let progress = session.progress;
        let key = keys::session(id, session_kind::PROGRESS);
        batch.rows.put_with(Family::Session, &key, |out| rows::put_progress(out, &progress));
        if let Some(exchanges) = &mut session.exchanges {
            exchanges.flush(id, progress.acknowledged, batch);
            if exchanges.is_empty() {
                session.exchanges = None;
            }
        }
        if std::mem::take(&mut session.row_changed) {
            put_session(id, session, batch);
        }
        batch.after.push(After::Raise(id, progress.acknowledged));
    }

    /// Sets the session's one timer to what is due next.
    pub(super) fn schedule(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let due = session.next_due_ms();
        if due == session.due_ms {
            return;
        }
        if session.due_ms != 0 {
            self.timers.remove(&(session.due_ms, id));
        }
        if due != 0 {
            self.timers.insert((due, id));
        }
        session.due_ms = due;
    }

    /// Publishes wills and ends sessions whose time has come.
    pub(super) fn run_timers(&mut self, now_ms: u64, batch: &mut PendingBatch) {
        while let Some((at, id)) = self.timers.first().copied() {
            if at > now_ms {
                break;
            }
            self.timers.remove(&(at, id));
            if let Err(error) = self.wake_by_id(id) {
                tracing::error!(shard = self.shard, %error, "a session could not be read");
                self.timers.insert((now_ms + READ_AGAIN_MS, id));
                continue;
            }
            if let Some(session) = self.sessions.get_mut(&id) {
                session.due_ms = 0;
            }
            self.run_timer(now_ms, id, batch);
        }
    }

    /// Publishes the will and ends the session, if it is time and nobody is connected.
    pub(super) fn run_timer(&mut self, now_ms: u64, id: SessionId, batch: &mut PendingBatch) {
        let Some(session) = self.sessions.get(&id).filter(|session| !session.is_connected()) else {
            return;
        };
        if session.expiry_due_ms().is_some_and(|due| due <= now_ms) {
            return self.end_session(now_ms, id, batch);
        }
        if session.will_due_ms().is_some_and(|due| due <= now_ms) {
            self.fire_will(now_ms, id, batch);
        }
        self.schedule(id);
    }
}

fn put_session(id: SessionId, session: &Session, batch: &mut PendingBatch) {
    let key = keys::session(id, session_kind::SESSION);
    let row = session.row();
    batch.rows.put_with(Family::Session, &key, |out| rows::put_session(out, &row));
}

fn put_will(id: SessionId, will: &StoredWill, batch: &mut PendingBatch) {
    let key = keys::session(id, session_kind::WILL);
    batch.rows.put_with(Family::Session, &key, |out| rows::put_will(out, will));
}
