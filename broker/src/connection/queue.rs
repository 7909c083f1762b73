//! Delivery from the store: live entries, pages read by cursor, shared groups' offers, and the
//! commits that QoS 2 needs on its way out.

use std::collections::VecDeque;
use std::sync::Arc;

use hoopoe_codec::{Packet, PacketId, QoS, ReasonCode};
use hoopoe_core::{Location, Publication, SessionId};
use hoopoe_store::Command;
use hoopoe_store::command::{ExchangeChange, InFlight, Phase as Exchange, ReplyTo};
use hoopoe_store::effect::{LiveReceiver, QueueEntry};
use smallvec::smallvec;

use super::Connection;
use super::closing::{CLOSE_TOKEN, Cause};
use super::deliver::{Copy, send_copy};
use super::inbound::ack;
use super::message::Message;
use super::session::{Origin, Outgoing, Step};
use super::worker::Worker;
use crate::fabric::Mail;
use crate::shard::{QueuePage, ReadJob};
use crate::telemetry::Dropped;

/// Set in tokens of outgoing exchanges, which are settled apart from answers to the client.
pub(super) const STEP_TOKEN: u64 = 1 << 63;

/// The token of barriers before a scan of retained messages.
pub(super) const SCAN_TOKEN: u64 = u64::MAX;

/// Entries per page at most, and bytes.
const PAGE_ENTRIES: usize = 256;
const PAGE_BYTES: usize = 256 * 1024;

impl Worker {
    /// A letter from another thread.
    pub(super) fn open_letter(&mut self, letter: Mail) {
        match letter {
            Mail::Accepted { stream, peer, listener, seats } => {
                self.accepted(stream, peer, listener, seats);
            }
            Mail::LoggedIn { location, login } => self.logged_in(location, login),
            Mail::Opened(opened) => self.opened(*opened),
            Mail::TakenOver { location, reason } => self.taken_over(location, reason),
            Mail::Committed { reply, code } => self.committed(reply, code),
            Mail::Live { publication, receivers } => self.live(&publication, receivers),
            Mail::LiveLost => self.look_into_queues(),
            Mail::Offer { location, group, entry } => self.offered(location, group, *entry),
            Mail::EntryGone { location, group, seq } => self.entry_gone(location, group, seq),
            Mail::Deliver(delivery) => self.delivered(&delivery),
            Mail::Room(letter) => self.room_letter(&letter),
            Mail::Queue { location, page } => self.queue_page(location, page),
            Mail::Retained { location, page } => self.retained_page(location, page),
            Mail::Publish { shard, outbox, key, publication } => {
                self.publish_internal(&key, publication, Some((shard, outbox)));
            }
            Mail::Im(mail) => self.im_letter(mail),
            Mail::System(publication) => self.publish_system(&publication),
            Mail::Census(census) => self.census(*census),
            Mail::Stop { hurry } => self.stop(hurry),
        }
    }

    fn publish_system(&mut self, publication: &Arc<Publication>) {
        let hash = hoopoe_core::index::topic_hash(publication.topic());
        let plan = self.plans.get(&self.env.fabric.index, publication.topic(), hash);
        if !plan.is_empty() {
            self.fan_out_shared(publication, &plan, 0);
        }
    }

    fn committed(&mut self, reply: ReplyTo, code: ReasonCode) {
        if self.internal_committed(reply, code) {
            return;
        }
        let location = reply.location;
        if reply.token == SCAN_TOKEN {
            self.scan_ordered(location);
            return;
        }
        if reply.token == CLOSE_TOKEN {
            self.finish(location);
            return;
        }
        if reply.token & STEP_TOKEN != 0 {
            self.step_committed(location, reply.token & !STEP_TOKEN, code);
            return;
        }
        let Some(connection) = self.connection(location) else { return };
        if connection.leaving.is_some() {
            self.settle_leaving(location, reply.token, code);
        } else {
            self.settle(location, reply.token, code);
        }
    }

    /// A committed entry for sessions connected here (ruling 7).
    fn live(&mut self, publication: &Arc<Publication>, receivers: Vec<LiveReceiver>) {
        let mut frames = std::mem::take(&mut self.frames);
        let mut message = Message::shared(publication, &mut frames, self.now_ms);
        for receiver in receivers {
            self.live_to(&mut message, receiver);
        }
        self.frames = frames;
    }

    fn live_to(&mut self, message: &mut Message<'_>, receiver: LiveReceiver) {
        let LiveReceiver { location, seq, weight, qos, retain, identifiers } = receiver;
        let Worker { connections, turn, pool, counters, .. } = self;
        let connection = connections.get_mut(location.place());
        let Some(connection) = connection.filter(|c| c.location == location) else { return };
        let full = connection.is_full();
        let Some(session) = connection.session() else { return };
        let Some(stored) = &mut session.stored else { return };
        let room = !full && stored.page.is_empty() && session.window.room() > 0;
        if !stored.feed.committed(seq, room) {
            if room {
                self.read_on(location);
            }
            return;
        }
        // What nearly every session has, at once: nothing of an earlier connection, and nothing that
        // is recorded first.
        let at_once =
            qos == QoS::AtLeastOnce && !stored.is_resuming(seq) && stored.steps.is_empty();
        if !at_once {
            let publication = message.publication();
            let entry = QueueEntry { seq, weight, qos, retain, identifiers, publication };
            self.send_entry(location, entry);
            return;
        }
        let dup = stored.feed.send(seq);
        let Some(id) = session.window.push(qos, Origin::Queue { seq, weight }) else { return };
        let copy = Copy { qos, retain, dup, identifiers: &identifiers };
        if send_copy(connection, turn, pool, counters, message, copy, Some(id)) {
            self.settle_skipped(location);
        }
    }

    /// Letters were lost: every stored session here may have entries it does not know of.
    fn look_into_queues(&mut self) {
        let all: Vec<Location> = self.connections.iter().map(|(_, c)| c.location).collect();
        for location in all {
            if let Some(session) = self.connection(location).and_then(Connection::session)
                && let Some(stored) = &mut session.stored
            {
                stored.feed.suspect();
                self.read_on(location);
            }
        }
    }

    /// Sends what has been read, and asks for more.
    pub(super) fn read_on(&mut self, location: Location) {
        loop {
            let Some(connection) = self.connection(location) else { return };
            if connection.is_full() {
                return;
            }
            let Some(session) = connection.session() else { return };
            let room = session.window.room() > 0;
            let Some(stored) = &mut session.stored else { return };
            if stored.page.is_empty() {
                break;
            }
            if !room {
                return;
            }
            let Some(entry) = stored.page.pop_front() else { return };
            if stored.page.is_empty() {
                // A page is large, and a client that has caught up may never read another.
                stored.page = VecDeque::new();
            }
            self.send_entry(location, entry);
        }
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Some(stored) = &mut session.stored else { return };
        if let Some(from) = stored.feed.begin_read() {
            let job = ReadJob::Queue {
                location,
                session: stored.id,
                from,
                expired_too: stored.may_be_resent(from),
                max_entries: PAGE_ENTRIES,
                max_bytes: PAGE_BYTES,
            };
            self.turn.to_readers.push(job);
        }
    }

    fn queue_page(&mut self, location: Location, page: QueuePage) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Some(stored) = &mut session.stored else { return };
        if page.failed {
            self.end_session(location, Cause::Fault(ReasonCode::ServerUnavailable));
            return;
        }
        let any = stored.feed.read(page.next, page.ended);
        if any && page.entries.is_empty() && page.next >= stored.resend_end {
            // Only expired or dropped entries: the cursor passes them. (Without any, the one before
            // may still be on its way to the client.)
            let passed = Origin::Queue { seq: page.next - 1, weight: page.weight };
            session.window.push_done(passed);
        }
        if stored.page.is_empty() {
            stored.page = page.entries.into();
        } else {
            stored.page.extend(page.entries);
        }
        if (page.ended || page.next >= stored.resend_end) && stored.page.is_empty() {
            self.forget_lost(location);
        }
        self.counters.dropped_many(Dropped::Expired, page.expired);
        self.free_places(location);
        self.read_on(location);
    }

    /// Sends one entry of the session's own queue, for which there is room.
    fn send_entry(&mut self, location: Location, entry: QueueEntry) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Some(stored) = &mut session.stored else { return };
        let origin = Origin::Queue { seq: entry.seq, weight: entry.weight };
        let seq = entry.seq;
        let dup = stored.feed.send(seq);
        if seq < stored.resend_end {
            // Given out before: in the window it is sent again under its identifier
            // ([MQTT-4.4.0-1]), else it was acknowledged.
            while stored.resend.front().is_some_and(|(at, _)| *at < seq) {
                stored.resend.pop_front();
            }
            let in_window = stored.resend.front().filter(|(at, _)| *at == seq).map(|(_, id)| *id);
            if let Some(id) = in_window {
                stored.resend.pop_front();
                if session.window.resend(id) == Ok(true) {
                    let outgoing = Outgoing::from_entry(entry, origin, true);
                    self.send_step(location, outgoing, id);
                }
            } else {
                // Behind all that is sent again: nothing else passes the last one of a queue.
                session.window.push_done(origin);
                self.free_places(location);
            }
            return;
        }
        if !stored.resend.is_empty() {
            self.forget_lost(location);
            return self.send_entry(location, entry);
        }
        if let Some(at) = stored.done.iter().position(|done| *done == seq) {
            stored.done.swap_remove(at);
            session.window.push_done(origin);
            self.free_places(location);
            return;
        }
        if let Some(at) = stored.ahead.iter().position(|(ahead, _)| *ahead == seq) {
            let (_, id) = stored.ahead.swap_remove(at);
            if session.window.requeue(id, origin) == Ok(true) {
                self.send_step(location, Outgoing::from_entry(entry, origin, true), id);
            }
            return;
        }
        let Some(id) = session.window.push(entry.qos, origin) else { return };
        let outgoing = Outgoing::from_entry(entry, origin, dup);
        if outgoing.qos == QoS::ExactlyOnce {
            self.begin_exchange(location, outgoing, id);
        } else {
            self.send_step(location, outgoing, id);
        }
    }

    /// QoS 2: the identifier is bound to the entry on disk before the PUBLISH leaves (ruling 5).
    pub(super) fn begin_exchange(&mut self, location: Location, outgoing: Outgoing, id: PacketId) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let epoch = session.epoch;
        let (Some(stored), Some(source)) = (&mut session.stored, outgoing.origin.source()) else {
            return;
        };
        let step = Step::Publish(outgoing, id);
        stored.steps_bytes += step.bytes();
        let token = stored.steps.owe(1, 0, step) | STEP_TOKEN;
        let change = ExchangeChange::Put(InFlight {
            id: id.get(),
            source,
            phase: Exchange::Published,
            qos: QoS::ExactlyOnce,
        });
        let session = stored.id;
        let reply = Some(ReplyTo { location, token });
        let changes = smallvec![change];
        self.command(session.slot(), Command::Exchange { session, epoch, changes, reply });
    }

    /// Sends, or waits behind an exchange that is being committed: entries keep their order.
    pub(super) fn send_step(&mut self, location: Location, outgoing: Outgoing, id: PacketId) {
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && let Some(stored) = &mut session.stored
            && !stored.steps.is_empty()
        {
            let step = Step::Publish(outgoing, id);
            stored.steps_bytes += step.bytes();
            stored.steps.owe(0, 0, step);
            return;
        }
        self.send_outgoing(location, &outgoing, Some(id));
        self.free_places(location);
    }

    fn step_committed(&mut self, location: Location, token: u64, code: ReasonCode) {
        if code.is_error() {
            // Sent without its record it could be doubled: the client comes back instead.
            self.end_session(location, Cause::Fault(ReasonCode::ServerUnavailable));
            return;
        }
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let version = session.version;
        let Some(stored) = &mut session.stored else { return };
        stored.steps.settle(token, code);
        while let Some(stored) = self
            .connection(location)
            .and_then(Connection::session)
            .and_then(|session| session.stored.as_mut())
            && let Some((step, _)) = stored.steps.pop_ready()
        {
            stored.steps_bytes -= step.bytes();
            match step {
                Step::Publish(outgoing, id) => self.send_outgoing(location, &outgoing, Some(id)),
                Step::PubRel(id) => {
                    let pubrel = ack(id, ReasonCode::Success);
                    self.send_packet(location, version, &Packet::PubRel(pubrel));
                }
                Step::Forget(id) => self.forget_exchange(location, id),
            }
        }
        // What waited for room behind these may go now, even if none of them was sent.
        self.settled(location);
    }

    /// Entries of the restored window that the store no longer has (dropped from a full queue).
    fn forget_lost(&mut self, location: Location) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Some(stored) = &mut session.stored else { return };
        for (_, id) in std::mem::take(&mut stored.resend) {
            self.forget(location, id);
        }
        self.free_places(location);
    }

    /// A message of the restored window that the store no longer has. The client may have it, and
    /// keeps the identifier of one with QoS 2 until PUBREL ([MQTT-4.3.3-10]).
    fn forget(&mut self, location: Location, id: PacketId) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        match session.window.receive(id) {
            Ok((origin, first)) => {
                if let Some(source) = origin.source().filter(|_| first) {
                    self.write_release(location, id, source);
                }
            }
            Err(_) => {
                let _ = session.window.acknowledge(id);
            }
        }
    }

    /// An entry of a shared group.
    fn offered(&mut self, location: Location, group: SessionId, entry: QueueEntry) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let seq = entry.seq;
        let origin = Origin::Group { group, seq };
        if entry.qos == QoS::AtMostOnce {
            let outgoing = Outgoing::from_entry(entry, Origin::Transient, false);
            self.send_or_wait(location, outgoing);
            return;
        }
        // What was in delivery before a restart or a reconnect keeps its identifier.
        let before = session.window.iter().find(|message| message.source == origin);
        if let Some(message) = before {
            let mut outgoing = Outgoing::from_entry(entry, origin, true);
            outgoing.qos = message.qos;
            outgoing.again = Some(message.id);
            self.wait_for_room(location, outgoing);
            return;
        }
        self.wait_for_room(location, Outgoing::from_entry(entry, origin, false));
    }

    /// Puts a message behind those that wait, and sends what there is room for. Bounded: a group
    /// gives a member no more than its window.
    fn wait_for_room(&mut self, location: Location, outgoing: Outgoing) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        session.backlog_bytes += outgoing.publication.payload().len();
        session.backlog.push_back(outgoing);
        self.send_waiting(location);
    }

    /// A restored message of a shared group is no longer in the store.
    fn entry_gone(&mut self, location: Location, group: SessionId, seq: u64) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let origin = Origin::Group { group, seq };
        let Some(id) = session.window.iter().find(|m| m.source == origin).map(|m| m.id) else {
            return;
        };
        self.forget(location, id);
        self.settled(location);
    }

    /// Once a second: how far stored sessions have come.
    pub(super) fn report_progress(&mut self) {
        for location in std::mem::take(&mut self.turn.progressed) {
            let Some(session) = self.connection(location).and_then(Connection::session) else {
                continue;
            };
            let epoch = session.epoch;
            let entries = session.completed();
            let Some(stored) = &mut session.stored else { continue };
            stored.progressed = false;
            let session = stored.id;
            if let Some((acknowledged, weight, sent)) = stored.feed.take_progress() {
                let progress =
                    hoopoe_store::command::Progress { session, epoch, acknowledged, weight, sent };
                self.command(session.slot(), Command::Progress(progress));
            }
            if !entries.is_empty() {
                self.command(session.slot(), Command::Complete { session, epoch, entries });
            }
        }
    }
}
