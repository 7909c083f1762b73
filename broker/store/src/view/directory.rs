//! Who is connected under which key, and take-over.
//!
//! Every session key of this shard that is connected or stored has a seat. A seat has at most one
//! connection, and at most one newcomer that waits for it to go (ruling 11). Sessions that end
//! with their connection exist here only, in memory.

use std::collections::BTreeSet;

use foldhash::HashMap;
use hoopoe_codec::ReasonCode;
#[cfg(feature = "planted")]
use hoopoe_core::planted;
use hoopoe_core::{Location, SessionId, SessionKey};

use super::{ShardView, TAKE_OVER_MS};
use crate::command::{Close, Open};
use crate::effect::{Effect, Opened, StoredSession};
use crate::log::PendingBatch;

/// All seats of a shard.
#[derive(Debug, Default)]
pub(super) struct Directory {
    seats: HashMap<SessionKey, Seat>,
    /// When waiting ends.
    deadlines: BTreeSet<(u64, SessionKey)>,
    epoch: u32,
}

/// A session key's place. As small as can be: everybody who is connected or stored has one.
#[derive(Debug)]
struct Seat {
    /// Of the connection that holds it: [`Location::NOWHERE`] and 0 when none does.
    live: Live,
    /// The number of the stored session, which is never 0; 0 when there is none.
    session: u64,
    pending: Option<Box<Pending>>,
}

impl Default for Seat {
    fn default() -> Seat {
        Seat { live: NOBODY, session: 0, pending: None }
    }
}

impl Seat {
    fn live(&self) -> Option<Live> {
        (self.live != NOBODY).then_some(self.live)
    }

    fn session(&self) -> Option<SessionId> {
        (self.session != 0).then_some(SessionId(self.session))
    }

    fn is_empty(&self) -> bool {
        self.live == NOBODY && self.session == 0 && self.pending.is_none()
    }
}

const NOBODY: Live = Live { location: Location::NOWHERE, epoch: 0 };

/// The connection that holds a seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Live {
    pub(super) location: Location,
    pub(super) epoch: u32,
}

/// What waits for the connection to go.
#[derive(Debug)]
struct Pending {
    open: Option<Open>,
    evict: bool,
    deadline_ms: u64,
}

impl Directory {
    fn next_epoch(&mut self) -> u32 {
        self.epoch = self.epoch.wrapping_add(1).max(1);
        self.epoch
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Binds a key to a stored session, or unbinds it.
    pub(super) fn bind(&mut self, key: &SessionKey, session: Option<SessionId>) {
        if let Some(session) = session {
            self.seats.entry(key.clone()).or_default().session = session.0;
        } else if let Some(seat) = self.seats.get_mut(key) {
            seat.session = 0;
            self.drop_if_empty(key);
        }
    }

    fn drop_if_empty(&mut self, key: &SessionKey) {
        if self.seats.get(key).is_some_and(Seat::is_empty) {
            self.seats.remove(key);
        }
    }

    fn wait(&mut self, key: &SessionKey, deadline_ms: u64) -> Option<&mut Pending> {
        let seat = self.seats.get_mut(key)?;
        if let Some(pending) = &seat.pending {
            self.deadlines.remove(&(pending.deadline_ms, key.clone()));
        }
        self.deadlines.insert((deadline_ms, key.clone()));
        let fresh = || Box::new(Pending { open: None, evict: false, deadline_ms });
        let pending = seat.pending.get_or_insert_with(fresh);
        pending.deadline_ms = deadline_ms;
        Some(pending)
    }

    fn stop_waiting(&mut self, key: &SessionKey) -> Option<Box<Pending>> {
        let pending = self.seats.get_mut(key)?.pending.take()?;
        self.deadlines.remove(&(pending.deadline_ms, key.clone()));
        Some(pending)
    }

    /// The connection of a session, if `location` and `epoch` are those of it, leaves its seat.
    fn leave(&mut self, close: &Close) -> Option<Option<SessionId>> {
        let seat = self.seats.get_mut(&close.key)?;
        let closing = Live { location: close.location, epoch: close.epoch };
        if seat.live != closing || closing == NOBODY {
            return None;
        }
        seat.live = NOBODY;
        Some(seat.session())
    }

    /// Forgets what a failed batch did: sessions are bound anew, connections that were never told
    /// that they are let in are not there.
    pub(super) fn forget(&mut self, never_opened: &[Location]) {
        self.seats.retain(|_, seat| {
            seat.session = 0;
            if never_opened.contains(&seat.live.location) {
                seat.live = NOBODY;
            }
            !seat.is_empty()
        });
    }

    /// Whether nobody sits in a key's seat or waits for it.
    pub(super) fn is_idle(&self, key: &SessionKey) -> bool {
        self.seats.get(key).is_none_or(|seat| seat.live == NOBODY && seat.pending.is_none())
    }

    /// The connection in a key's seat.
    pub(super) fn live(&self, key: &SessionKey) -> Option<Live> {
        self.seats.get(key)?.live()
    }

    /// Keys whose newcomers wait for a connection that went while nothing could be written.
    fn stranded(&self) -> Vec<SessionKey> {
        let keys = self.deadlines.iter().map(|(_, key)| key);
        keys.filter(|key| self.live(key).is_none()).cloned().collect()
    }
}

pub(super) fn refused(open: &Open, code: ReasonCode) -> Effect {
    Effect::Opened(Box::new(Opened {
        reply: open.reply,
        key: open.key.clone(),
        code,
        session_present: false,
        epoch: 0,
        session: None,
    }))
}

impl ShardView {
    /// A CONNECT that another step of this shard does not let in.
    pub fn turn_away(&self, open: &Open, code: ReasonCode, batch: &mut PendingBatch) {
        batch.effect(refused(open, code));
    }

    /// A CONNECT: at once when the seat is free, else when the connection in it has gone.
    pub(super) fn open_session(&mut self, now_ms: u64, open: Open, batch: &mut PendingBatch) {
        if let Err(error) = self.wake(&open.key) {
            tracing::error!(shard = self.shard, %error, "a session could not be read");
            return batch.effect(refused(&open, ReasonCode::ServerUnavailable));
        }
        let Some(live) = self.directory.live(&open.key) else {
            return self.admit(now_ms, open, batch);
        };
        #[cfg(feature = "planted")]
        if planted::has(planted::Bug::TwoDrivers) {
            return self.admit(now_ms, open, batch);
        }
        let key = open.key.clone();
        if let Some(pending) = self.directory.wait(&key, now_ms + TAKE_OVER_MS) {
            // Only the newest newcomer waits: each takes over the one before [MQTT-3.1.4-3]. That
            // one has had no CONNACK yet, and 0x8E is no code of CONNACK (table 3-1).
            match pending.open.replace(open) {
                Some(older) => batch.effect(refused(&older, ReasonCode::ServerUnavailable)),
                None if pending.evict => {}
                None => batch.effect(Effect::TakenOver {
                    location: live.location,
                    reason: ReasonCode::SessionTakenOver,
                }),
            }
        }
    }

    /// The seat is free: the newcomer gets its session.
    fn admit(&mut self, now_ms: u64, open: Open, batch: &mut PendingBatch) {
        let existing = self.directory.seats.get(&open.key).and_then(Seat::session);
        if let Some(id) = existing {
            // What was due before the newcomer came happens before it.
            self.run_timer(now_ms, id, batch);
            if open.clean_start {
                // "the Client and Server MUST discard any existing Session" [MQTT-3.1.2-4].
                self.end_session(now_ms, id, batch);
            }
        }
        let epoch = self.directory.next_epoch();
        let live = Live { location: open.reply.location, epoch };
        let seat = self.directory.seats.entry(open.key.clone()).or_default();
        seat.live = live;
        let (reply, key, resumed) = (open.reply, open.key.clone(), seat.session());
        let session: Option<StoredSession> = match resumed {
            Some(id) => self.resume_session(id, open, live, batch),
            None if open.expiry_secs > 0 => Some(self.make_session(open, live, batch)),
            None => None,
        };
        batch.effect(Effect::Opened(Box::new(Opened {
            reply,
            key,
            code: ReasonCode::Success,
            session_present: resumed.is_some(),
            epoch,
            session,
        })));
    }

    /// A connection gives its session back; a newcomer that waited gets it.
    pub(super) fn close_session(
        &mut self,
        now_ms: u64,
        close: Box<Close>,
        batch: &mut PendingBatch,
    ) {
        let Some(session) = self.directory.leave(&close) else {
            if let Some(reply) = close.told {
                batch.committed(reply, ReasonCode::SessionTakenOver);
            }
            return;
        };
        let key = close.key.clone();
        let pending = self.directory.stop_waiting(&key);
        if let Some(id) = session {
            self.give_back(now_ms, id, close, batch);
        }
        self.after_close(now_ms, &key, pending, batch);
    }

    fn after_close(
        &mut self,
        now_ms: u64,
        key: &SessionKey,
        pending: Option<Box<Pending>>,
        batch: &mut PendingBatch,
    ) {
        if pending.as_ref().is_some_and(|pending| pending.evict) {
            let session = self.directory.seats.get(key).and_then(Seat::session);
            if let Some(id) = session {
                self.end_session(now_ms, id, batch);
            }
        }
        match pending.and_then(|pending| pending.open) {
            Some(open) => self.admit(now_ms, open, batch),
            None => self.directory.drop_if_empty(key),
        }
    }

    /// While nothing can be written: the connection is gone, its last word is kept.
    pub(super) fn close_later(&mut self, close: Box<Close>) {
        if let Some(session) = self.directory.leave(&close) {
            if let Some(id) = session {
                self.deferred.push((id, close));
            } else {
                self.directory.drop_if_empty(&close.key);
            }
        }
    }

    /// An operator ends a session.
    pub(super) fn evict(&mut self, now_ms: u64, key: &SessionKey, batch: &mut PendingBatch) {
        if let Err(error) = self.wake(key) {
            return tracing::error!(shard = self.shard, %error, "a session could not be read");
        }
        let Some(seat) = self.directory.seats.get(key) else { return };
        match (seat.live(), seat.session()) {
            (Some(live), _) => {
                let waits = seat.pending.is_some();
                if let Some(pending) = self.directory.wait(key, now_ms + TAKE_OVER_MS) {
                    pending.evict = true;
                }
                if !waits {
                    batch.effect(Effect::TakenOver {
                        location: live.location,
                        reason: ReasonCode::AdministrativeAction,
                    });
                }
            }
            (None, Some(id)) => self.end_session(now_ms, id, batch),
            (None, None) => {}
        }
    }

    /// Newcomers whose time is up are refused; evicted sessions end without their connection.
    pub(super) fn refuse_waiting(&mut self, now_ms: u64, batch: &mut PendingBatch) {
        for key in self.directory.stranded() {
            let pending = self.directory.stop_waiting(&key);
            self.after_close(now_ms, &key, pending, batch);
        }
        while let Some((at, key)) = self.directory.deadlines.first().cloned() {
            if at > now_ms {
                break;
            }
            let pending = self.directory.stop_waiting(&key);
            self.directory.deadlines.remove(&(at, key.clone()));
            let Some(pending) = pending else { continue };
            if let Some(open) = pending.open {
                batch.effect(refused(&open, ReasonCode::ServerUnavailable));
            }
            let session = self.directory.seats.get(&key).and_then(Seat::session);
            if let Some(id) = session
                && pending.evict
            {
                self.end_session(now_ms, id, batch);
            }
        }
    }
}
