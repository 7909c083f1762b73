//! Entries at QoS 2 to sessions that outlive their connection: exactly once, also over reconnects
//! and crashes (rulings 5 and 28).
//!
//! An identifier is bound to its entry on disk before the PUBLISH leaves, as for a session's own
//! queue. What is different is where the entry waits: in a conversation's log, behind a cursor
//! that is written lazily. So the record of an exchange that has ended is removed only behind the
//! cursor that has passed its entry, and what an earlier connection left in flight takes its place
//! again when the device comes to that entry.
//!
//! Deliberately not here: the window itself (`hoopoe_core::session`), the rows (`hoopoe_store`).

use std::collections::VecDeque;
use std::sync::Arc;

use hoopoe_codec::{PacketId, QoS};
use hoopoe_core::Location;
use hoopoe_core::seldom::Seldom;
use hoopoe_im::device::Starts;
use hoopoe_im::entry::Entry;
use hoopoe_store::Command;
use hoopoe_store::command::{ExchangeChange, InFlight, Phase, Source};

use super::ImDevice;
use super::recall::left_of;
use crate::connection::Connection;
use crate::connection::session::{Origin, Outgoing, Session, Step};
use crate::connection::worker::Worker;

/// An exchange of this connection.
#[derive(Debug)]
struct Open {
    tag: u64,
    seq: u64,
    id: PacketId,
}

/// An exchange that an earlier connection left, whose entry has not had its turn again.
#[derive(Debug)]
struct Kept {
    tag: u64,
    seq: u64,
    id: PacketId,
    /// The client is done with it.
    done: bool,
    /// The device has passed the entry without it: the exchange ends by itself.
    passed: bool,
    /// The user's list had the conversation when the device came.
    listed: bool,
}

/// The QoS 2 deliveries of one device.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    /// In the order they were sent.
    open: Seldom<VecDeque<Open>>,
    kept: Seldom<Vec<Kept>>,
    /// Their entries are passed: the records go once the cursor is written.
    ended: Seldom<Vec<PacketId>>,
}

impl Exchanges {
    /// What an earlier connection left in flight.
    pub(super) fn keep(&mut self, tag: u64, seq: u64, id: PacketId) {
        self.kept.push(Kept { tag, seq, id, done: false, passed: false, listed: false });
    }

    /// An entry is sent, or takes its place again.
    fn begin(&mut self, tag: u64, seq: u64, id: PacketId) {
        self.open.push_back(Open { tag, seq, id });
    }

    /// The cursor passes an entry of this connection.
    pub(super) fn end(&mut self, tag: u64, seq: u64) {
        let at = self.open.iter().position(|open| (open.tag, open.seq) == (tag, seq));
        if let Some(open) = at.and_then(|at| self.open.remove(at)) {
            self.ended.push(open.id);
        }
    }

    /// The client is done with what an earlier connection has sent.
    pub(super) fn kept_done(&mut self, tag: u64, seq: u64) {
        if let Some(at) = self.find(tag, seq) {
            self.kept[at].done = true;
            if self.kept[at].passed {
                self.ended.push(self.kept.swap_remove(at).id);
            }
        }
    }

    fn find(&self, tag: u64, seq: u64) -> Option<usize> {
        self.kept.iter().position(|kept| (kept.tag, kept.seq) == (tag, seq))
    }

    fn take_kept(&mut self, tag: u64, seq: u64) -> Option<Kept> {
        self.find(tag, seq).map(|at| self.kept.swap_remove(at))
    }

    /// Identifiers whose records may go, behind the cursors that are reported now.
    pub(super) fn take_ended(&mut self) -> Vec<PacketId> {
        std::mem::take(&mut self.ended).into_iter().collect()
    }

    /// Exchanges that the client is done with and that no cursor has passed: the next connection
    /// has to know that they are not to be sent again.
    pub(in crate::connection) fn unpassed(&self) -> impl Iterator<Item = InFlight> + '_ {
        let open = self.open.iter().map(|open| (open.tag, open.seq, open.id));
        let kept = self.kept.iter().map(|kept| (kept.tag, kept.seq, kept.id));
        open.chain(kept).map(|(tag, seq, id)| InFlight {
            id: id.get(),
            source: Source::Entry(tag, seq),
            phase: Phase::Released,
            qos: QoS::ExactlyOnce,
        })
    }
}

impl ImDevice {
    /// Where an entry comes from, as its exchange is recorded: only with QoS 2 in a stored session
    /// there is a record.
    pub(super) fn origin(&self, stream: u32, seq: u64, recorded: bool) -> Origin {
        let conv = self.step.conversation(stream).filter(|_| recorded);
        Origin::Im { stream, seq, tag: conv.map_or(0, |conv| conv.tag()) }
    }

    /// Whether an earlier connection left an exchange with this entry in flight.
    pub(super) fn has_kept(&self, entry: &Entry) -> bool {
        let kept = &self.exchanges.kept;
        !kept.is_empty() && self.exchanges.find(entry.conv.tag(), entry.seq).is_some()
    }

    /// The device's conversations have been read. One that is not among them may still be on its
    /// way into the list, and nothing of it is passed before it is there.
    pub(super) fn note_listed(&mut self, starts: &Starts) {
        for kept in self.exchanges.kept.if_made().into_iter().flatten() {
            kept.listed = starts.has(kept.tag);
        }
    }

    /// What an earlier connection left in flight.
    pub(in crate::connection) fn keep_exchange(&mut self, tag: u64, seq: u64, id: PacketId) {
        self.exchanges.keep(tag, seq, id);
    }

    /// The window has let go of something that was recorded.
    pub(in crate::connection) fn exchange_over(&mut self, origin: Origin) {
        match origin {
            Origin::Im { tag, seq, .. } if tag != 0 => self.exchanges.end(tag, seq),
            Origin::Kept { tag, seq } => self.exchanges.kept_done(tag, seq),
            _ => {}
        }
    }
}

impl Session {
    /// Exchanges with entries of conversations that the client is done with before their turn.
    pub(in crate::connection) fn unpassed(&self) -> Vec<InFlight> {
        let Some(im) = &self.im else { return Vec::new() };
        let done = im.exchanges.unpassed();
        done.filter(|of| !self.window.iter().any(|message| message.id.get() == of.id)).collect()
    }
}

impl Worker {
    /// Sends an entry at QoS 2 in a stored session, for which there is room.
    pub(super) fn im_send_exactly(
        &mut self,
        location: Location,
        outgoing: Outgoing,
        entry: &Arc<Entry>,
    ) {
        let Origin::Im { tag, seq, .. } = outgoing.origin else { return };
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Session { im: Some(im), window, .. } = session else { return };
        let mut outgoing = Outgoing { entry: Some(entry.clone()), ..outgoing };
        let Some(kept) = im.exchanges.take_kept(tag, seq) else {
            let Some(id) = window.push(QoS::ExactlyOnce, outgoing.origin) else { return };
            let used = im.exchanges.ended.contains(&id);
            im.exchanges.begin(tag, seq, id);
            if used {
                // The record that it replaces goes behind its cursor.
                self.im_report_one(location);
            }
            self.begin_exchange(location, outgoing, id);
            return;
        };
        im.exchanges.begin(tag, seq, kept.id);
        match window.requeue(kept.id, outgoing.origin) {
            // [MQTT-4.4.0-1]: again under its identifier.
            Ok(true) => {
                outgoing.dup = true;
                self.send_step(location, outgoing, kept.id);
            }
            // PUBREL was sent again when the connection began.
            Ok(false) => {}
            // The client is done with it: only the cursor has to pass.
            Err(_) => {
                window.push_done(outgoing.origin);
                self.settled(location);
            }
        }
    }

    /// What an earlier connection left in flight and the device has passed without sending it
    /// (cleared, named by a gap, taken by retention) is ended: with PUBREL, which frees the
    /// identifier on both sides whether the client had the message or not.
    pub(super) fn im_settle_kept(&mut self, location: Location) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Session { im: Some(im), window, .. } = session else { return };
        if im.exchanges.kept.is_empty() || im.step.is_loading() {
            return;
        }
        let ImDevice { exchanges, step, pages, .. } = &mut **im;
        let mut release = Vec::new();
        for kept in exchanges.kept.iter_mut().filter(|kept| !kept.passed) {
            let waits = |entry: &Entry| entry.seq == kept.seq && entry.conv.tag() == kept.tag;
            let Some(next) = step.next_by_tag(kept.tag).or(kept.listed.then_some(u64::MAX)) else {
                continue;
            };
            if kept.seq >= next || pages.iter().any(waits) {
                continue;
            }
            kept.passed = true;
            if !kept.done && matches!(window.receive(kept.id), Ok((_, true))) {
                release.push((kept.id, Source::Entry(kept.tag, kept.seq)));
            }
        }
        exchanges.kept.retain(|kept| {
            let over = kept.passed && kept.done;
            if over {
                exchanges.ended.push(kept.id);
            }
            !over
        });
        for (id, source) in release {
            self.write_release(location, id, source);
        }
    }

    /// Records of exchanges that have ended go, behind the cursors that were just reported.
    pub(super) fn im_forget_exchanges(&mut self, location: Location, ended: Vec<PacketId>) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Some(stored) = &session.stored else { return };
        let (session, epoch) = (stored.id, session.epoch);
        let changes = ended.into_iter().map(|id| ExchangeChange::Remove(id.get())).collect();
        self.command(session.slot(), Command::Exchange { session, epoch, changes, reply: None });
    }

    /// A recall or a burning reaches what waits for its exchange to be recorded (ruling 24).
    pub(super) fn im_void_steps(&mut self, location: Location, event: &Entry, reason: u8) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Session { im: Some(im), stored: Some(stored), version, .. } = session else { return };
        for step in stored.steps.iter_mut() {
            let Step::Publish(outgoing, _) = step else { continue };
            let entry = outgoing.entry.as_ref();
            let Some(left) = entry.and_then(|entry| left_of(entry, event, reason)) else {
                continue;
            };
            let form = hoopoe_im::envelope::delivery(&left, &im.user.id, *version);
            stored.steps_bytes -= outgoing.publication.bytes().len();
            outgoing.publication = Arc::new(form);
            stored.steps_bytes += outgoing.publication.bytes().len();
            outgoing.entry = Some(Arc::new(left));
        }
    }
}
