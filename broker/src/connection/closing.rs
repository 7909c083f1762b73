//! Endings: DISCONNECT either way, faults, take-over, lost sockets. The session goes back to its
//! shard once the last of its publications is committed (ruling 11).

use std::collections::BTreeSet;
use std::sync::Arc;

use hoopoe_codec::{Disconnect, Packet, PacketType, ReasonCode, Version};
use hoopoe_core::{Location, Publication};
use hoopoe_store::Command;
use hoopoe_store::command::{Close, CloseCause, GroupCommand, ReplyTo, StoredWill};

use super::inbound::reaches_receivers;
use super::session::{Answer, Origin, Session};
use super::socket::SocketFault;
use super::worker::{Worker, mark_dirty};
use super::{Leaving, Phase};

/// Seconds that a closed connection's last bytes are waited for.
const LINGER_SECS: u64 = 3;
/// The token of a session's way back to its shard, for clients that wait for it.
pub(super) const CLOSE_TOKEN: u64 = u64::MAX - 1;

/// Why a session's connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The client's DISCONNECT.
    Disconnect {
        /// Reason code 0x00: the will is dropped.
        normal: bool,
        /// A new Session Expiry Interval, capped.
        expiry: Option<u32>,
    },
    /// The server ends it, and says why in v5.
    Fault(ReasonCode),
    /// The socket is gone.
    Lost,
    /// The node stops.
    Shutdown,
}

impl Worker {
    /// Ends the session of a connection; the socket follows once everything is written.
    pub(super) fn end_session(&mut self, location: Location, cause: Cause) {
        let Some(connection) = self.connection(location) else { return };
        let Phase::Active(session) = std::mem::replace(&mut connection.phase, Phase::Ended) else {
            return;
        };
        let reason = match cause {
            Cause::Fault(reason) => Some(reason),
            Cause::Shutdown => Some(ReasonCode::ServerShuttingDown),
            Cause::Disconnect { .. } | Cause::Lost => None,
        };
        if let Some(reason) = reason {
            self.counters.disconnects_sent.add(1);
            if session.version == Version::V5 {
                // Some faults have no code of their own in DISCONNECT (3.14.2.1).
                let code = match reason {
                    reason if reason.legal_in(PacketType::Disconnect) => reason,
                    // The store's fault, not the client's.
                    ReasonCode::ServerUnavailable => ReasonCode::ImplementationSpecificError,
                    _ => ReasonCode::ProtocolError,
                };
                let disconnect = Packet::Disconnect(Disconnect::with_code(code));
                // The phase has gone from the connection: the maximum is the session's.
                self.send(location, |out| {
                    disconnect.encode_within(Version::V5, session.maximum_packet, out);
                });
            }
            tracing::debug!(client = %session.key, ?reason, "session's connection ended");
        }
        let stored = session.route.session().is_some();
        self.detach(location, *session, cause);
        match cause {
            Cause::Lost => {
                // A WebSocket close frame is answered (RFC 6455, 5.5.1).
                self.flush_last(location);
                self.close_socket(location);
            }
            Cause::Disconnect { .. } if stored => self.finish_once_told(location),
            _ => self.finish(location),
        }
    }

    /// Takes the session off the connection: routes, will, and the way back to the shard.
    fn detach(&mut self, location: Location, mut session: Session, cause: Cause) {
        self.counters.sessions.sub(1);
        self.counters.stored_sessions.sub(u64::from(session.route.session().is_some()));
        session.route.leave(location);
        self.env.retained.end_scans(session.scans.len());
        self.leave_groups(location, &session);
        // What the device has passed goes with its cursors, before the window is kept.
        let window = session.stored_window();
        self.im_detach(location, &mut session);
        if session.route.session().is_none() {
            self.unroute(&session);
            if let Some(will) = session.will.take()
                && !matches!(cause, Cause::Disconnect { normal: true, .. })
            {
                let publication = Arc::new(due_will(&will, self.now_ms));
                self.publish_internal(&session.key, publication, None);
            }
        }
        let (close_cause, expiry_secs) = match cause {
            Cause::Disconnect { normal: true, expiry } => (CloseCause::Normal, expiry),
            Cause::Disconnect { normal: false, expiry } => (CloseCause::Abnormal, expiry),
            Cause::Fault(_) | Cause::Lost => (CloseCause::Abnormal, None),
            Cause::Shutdown => (CloseCause::Shutdown, None),
        };
        let told = matches!(cause, Cause::Disconnect { .. }) && session.route.session().is_some();
        let close = Close {
            location,
            epoch: session.epoch,
            cause: close_cause,
            expiry_secs,
            progress: session.progress(),
            window,
            done: session.completed(),
            answered: session.incoming.answered().collect(),
            told: told.then_some(ReplyTo { location, token: CLOSE_TOKEN }),
            key: session.key,
        };
        let subscriber = session.route.subscriber;
        let leaving = Leaving { answers: session.answers, subscriber, close };
        if let Some(connection) = self.connection(location) {
            connection.leaving = Some(Box::new(leaving));
        }
        self.left(location);
    }

    /// A commit for a connection that has ended.
    pub(super) fn settle_leaving(&mut self, location: Location, token: u64, code: ReasonCode) {
        if let Some(connection) = self.connection(location)
            && let Some(leaving) = &mut connection.leaving
            && leaving.answers.settle(token, code)
        {
            self.left(location);
        }
    }

    /// Hands the session back once nothing of it is under way.
    fn left(&mut self, location: Location) {
        let Some(connection) = self.connection(location) else { return };
        let Some(mut leaving) = connection.leaving.take() else { return };
        while let Some((owed, code)) = leaving.answers.pop_ready() {
            // Committed but no longer to be acknowledged; the receivers get it all the same.
            if let Some((publication, plan)) = &owed.publish
                && reaches_receivers(code)
            {
                self.fan_out_shared(publication, plan, leaving.subscriber);
            }
            if let Answer::PubRec(id) = owed.answer
                && reaches_receivers(code)
            {
                leaving.close.answered.push(id.get());
            }
        }
        if !leaving.answers.is_empty() {
            if let Some(connection) = self.connection(location) {
                connection.leaving = Some(leaving);
            }
            return;
        }
        let slot = leaving.close.key.slot();
        self.command(slot, Command::Close(Box::new(leaving.close)));
        self.release(location);
    }

    /// Takes a transient session's subscriptions out of the index.
    fn unroute(&self, session: &Session) {
        for filter in session.subscriptions.iter() {
            if !filter.starts_with("$share/") {
                self.env.fabric.index.remove(filter, session.route.subscriber);
            }
        }
    }

    /// Gives back what the session holds of shared groups, also of those whose subscription it has
    /// ended: what it had begun to receive then it kept ([MQTT-3.10.4-3]).
    fn leave_groups(&mut self, location: Location, session: &Session) {
        let subscriber = session.route.subscriber;
        let (mut groups, mut commands) = (BTreeSet::new(), Vec::new());
        for filter in session.subscriptions.iter().filter(|filter| filter.starts_with("$share/")) {
            if let Some(group) = self.env.groups.get(filter) {
                groups.insert(*group);
            } else if session.route.session().is_none() {
                // Its Join is on the way: the group is not known here yet.
                commands.extend(leave_command(filter, subscriber, true, None));
            }
        }
        // An UNSUBSCRIBE under way: the group may have given something before it heard.
        for owed in session.answers.iter() {
            if let Answer::UnsubAck(_, _, shared) = &owed.answer {
                groups.extend(shared.iter().filter_map(|f| self.env.groups.get(&**f).map(|g| *g)));
            }
        }
        let waiting = session.backlog.iter().map(|outgoing| outgoing.origin);
        for origin in session.window.iter().map(|message| message.source).chain(waiting) {
            if let Origin::Group { group, .. } = origin {
                groups.insert(group);
            }
        }
        for group in groups {
            let keeps = session.kept_of_groups().filter(|(of, _)| *of == group);
            let keeps = keeps.map(|(_, seq)| seq).collect();
            let offline = GroupCommand::Offline { group, subscriber, location, keeps };
            commands.push((group.slot(), offline));
        }
        for (slot, command) in commands {
            self.command(slot, Command::Group(Box::new(command)));
        }
    }

    /// Another connection takes the session, or an operator ended it.
    pub(super) fn taken_over(&mut self, location: Location, reason: ReasonCode) {
        let Some(connection) = self.connection(location) else { return };
        match connection.phase {
            Phase::Active(_) => {
                if reason == ReasonCode::SessionTakenOver {
                    self.im_note_silence(location);
                }
                self.end_session(location, Cause::Fault(reason));
            }
            // Its answer is still on the way here and will be handed back on arrival.
            Phase::Opening(_) => self.socket_ended(location, None),
            _ => {}
        }
    }

    /// The socket is of no use any more.
    pub(super) fn socket_ended(&mut self, location: Location, fault: Option<SocketFault>) {
        let Some(connection) = self.connection(location) else { return };
        if let Some(fault) = &fault {
            let (peer, client) = (connection.peer, connection.label());
            tracing::debug!(%peer, client, %fault, "connection lost");
        }
        match &connection.phase {
            Phase::Active(_) => self.end_session(location, Cause::Lost),
            _ => {
                connection.phase = Phase::Ended;
                self.flush_last(location);
                self.close_socket(location);
            }
        }
    }

    /// Layers may have a last word (a TLS alert, an HTTP refusal, a close frame): it is tried once.
    fn flush_last(&mut self, location: Location) {
        if let Some(connection) = self.connection(location)
            && let Some(socket) = &mut connection.socket
            && socket.wants_write()
        {
            // The connection ends either way.
            let _ = socket.write(None);
        }
    }

    /// After a stored session's DISCONNECT: the end of the connection tells the client that it was
    /// heard, so that it waits until the will is removed on disk ([MQTT-3.14.4-3]).
    fn finish_once_told(&mut self, location: Location) {
        let at = self.now_secs + LINGER_SECS;
        if let Some(connection) = self.connection(location) {
            // If the store does not answer, the connection ends all the same.
            connection.deadline_secs = at;
            self.wheel.schedule(location, at);
        }
    }

    /// Closes the connection once what is in its buffer is written.
    pub(super) fn finish(&mut self, location: Location) {
        let now_secs = self.now_secs;
        let place = location.place();
        let Some(connection) = self.connections.get_mut(place) else { return };
        if connection.location != location || connection.finishing {
            return;
        }
        if !matches!(connection.phase, Phase::Active(_)) {
            connection.phase = Phase::Ended;
        }
        connection.finishing = true;
        connection.paused = false;
        connection.partial = Vec::new();
        connection.deadline_secs = now_secs + LINGER_SECS;
        // Everything wrapped so far goes first; the goodbye is put behind it when written.
        mark_dirty(&mut self.turn, connection, place);
        let at = connection.deadline_secs;
        self.wheel.schedule(location, at);
    }

    /// A finishing connection has written its packets: say goodbye and wait for the other end,
    /// so that the last packet is not lost to a reset.
    pub(super) fn written_out(&mut self, location: Location) {
        let Some(connection) = self.connection(location) else { return };
        let Some(socket) = &mut connection.socket else { return };
        socket.close_layers();
        // What the socket does not take now is not worth waiting for.
        let _ = socket.write(None);
        socket.shutdown_write();
        connection.readable = true;
        self.turn.again.push(location);
    }

    /// The node stops: every client is told.
    pub(super) fn stop(&mut self, hurry: bool) {
        self.stopping = true;
        let all: Vec<Location> = self.connections.iter().map(|(_, c)| c.location).collect();
        for location in all {
            let Some(connection) = self.connection(location) else { continue };
            if matches!(connection.phase, Phase::Active(_)) {
                self.end_session(location, Cause::Shutdown);
            } else if hurry || !connection.finishing {
                self.socket_ended(location, None);
            }
            if hurry {
                self.close_socket(location);
            }
        }
    }
}

/// Leave for a filter `$share/{share}/{filter}`, with the slot of its group.
pub(super) fn leave_command(
    filter: &str,
    subscriber: u64,
    ended: bool,
    reply: Option<ReplyTo>,
) -> Option<(hoopoe_core::Slot, GroupCommand)> {
    let shared = hoopoe_codec::SharedFilter::parse(filter)?.ok()?;
    let leave = GroupCommand::Leave {
        share: shared.group.into(),
        filter: shared.filter.into(),
        subscriber,
        ended,
        reply,
    };
    Some((group_slot(shared.group, shared.filter), leave))
}

/// The slot that owns a shared group's queue.
pub fn group_slot(share: &str, filter: &str) -> hoopoe_core::Slot {
    let mut key = Vec::with_capacity(share.len() + filter.len() + 1);
    key.extend_from_slice(share.as_bytes());
    key.push(0);
    key.extend_from_slice(filter.as_bytes());
    hoopoe_core::Slot::of(&key)
}

/// A will as it is published now: its expiry counts from now on.
fn due_will(will: &StoredWill, now_ms: u64) -> Publication {
    let mut publication = will.publication.clone();
    publication.expires_at_ms = will.expiry_secs.map(|secs| now_ms + u64::from(secs) * 1000);
    publication
}
