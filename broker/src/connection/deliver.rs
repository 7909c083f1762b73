//! Delivery to connections of this worker: into the socket's buffer when the client has room,
//! into a bounded backlog when it has not. What waits for a stored session waits in its queue on
//! disk instead (`queue`).

use hoopoe_codec::{PacketId, QoS, ReasonCode};
use hoopoe_core::session::alias::Alias;
use hoopoe_core::{Location, PublicationParts};
use smallvec::SmallVec;

use super::closing::Cause;
use super::message::{Message, Shape};
use super::output::{Output, Pool};
use super::session::{Origin, Outgoing, Session};
use super::worker::{Turn, Worker};
use super::{Connection, Phase};
use crate::bridges::stays_here;
use crate::fabric::{Delivery, TransientReceiver};
use crate::telemetry::{Dropped, WorkerCounters};

/// What became of one receiver's copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Delivered {
    /// Sent, waiting, or dropped as its QoS allows.
    Done,
    /// More waits for it than may.
    TooSlow,
}

/// How one copy is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub identifiers: &'a [u32],
}

impl Worker {
    /// A publication from another worker.
    pub(super) fn delivered(&mut self, delivery: &Delivery) {
        let mut frames = std::mem::take(&mut self.frames);
        let mut message = Message::shared(&delivery.publication, &mut frames, self.now_ms);
        self.deliver_all(&mut message, &delivery.receivers, delivery.publisher);
        self.frames = frames;
    }

    /// Hands a publication to receivers connected here.
    pub(super) fn deliver_all(
        &mut self,
        message: &mut Message<'_>,
        receivers: &[TransientReceiver],
        publisher: u64,
    ) {
        if message.expired() {
            return;
        }
        let mut slow: SmallVec<[Location; 4]> = SmallVec::new();
        for receiver in receivers {
            let Some(terms) = receiver.terms_for(publisher) else { continue };
            let copy = Copy {
                qos: message.parts.qos.min(terms.qos),
                retain: message.parts.retain && terms.retain_as_published,
                dup: false,
                identifiers: &terms.identifiers,
            };
            if self.deliver(message, receiver.location, copy) == Delivered::TooSlow {
                slow.push(receiver.location);
            }
        }
        for location in slow {
            self.too_slow(location);
        }
    }

    /// A session that is not stored has more waiting than it may: it is ended (ruling 6).
    fn too_slow(&mut self, location: Location) {
        self.counters.dropped(Dropped::SlowReceiver);
        self.end_session(location, Cause::Fault(ReasonCode::QuotaExceeded));
    }

    fn deliver(
        &mut self,
        message: &mut Message<'_>,
        location: Location,
        copy: Copy<'_>,
    ) -> Delivered {
        let Worker { connections, turn, pool, counters, .. } = self;
        let connection = connections.get_mut(location.place());
        let Some(connection) = connection.filter(|c| c.location == location) else {
            return Delivered::Done;
        };
        let full = connection.is_full();
        let Connection { phase: Phase::Active(session), limits, .. } = connection else {
            return Delivered::Done;
        };
        if session.im.as_ref().is_some_and(|im| !im.takes(message.parts.topic)) {
            return Delivered::Done;
        }
        if copy.qos == QoS::AtMostOnce {
            if full {
                counters.dropped(Dropped::FullBuffer);
                return Delivered::Done;
            }
            write_to(connection, turn, pool, counters, message, copy, None);
            return Delivered::Done;
        }
        if !full
            && session.backlog.is_empty()
            && let Some(id) = session.window.push(copy.qos, Origin::Transient)
        {
            if write_to(connection, turn, pool, counters, message, copy, Some(id)) {
                self.settle_skipped(location);
            }
            return Delivered::Done;
        }
        let bytes = message.parts.payload.len();
        if session.backlog.len() >= limits.backlog_messages
            || session.backlog_bytes + bytes > limits.backlog_bytes
        {
            return Delivered::TooSlow;
        }
        session.backlog_bytes += bytes;
        session.backlog.push_back(Outgoing {
            publication: message.publication(),
            qos: copy.qos,
            retain: copy.retain,
            identifiers: copy.identifiers.into(),
            origin: Origin::Transient,
            dup: copy.dup,
            again: None,
            entry: None,
        });
        Delivered::Done
    }

    /// Sends one message, or lets it wait behind others.
    pub(super) fn send_or_wait(&mut self, location: Location, outgoing: Outgoing) {
        let Some(connection) = self.connection(location) else { return };
        let full = connection.is_full();
        let Some(session) = connection.session() else { return };
        let id = match outgoing.qos {
            QoS::AtMostOnce if !full => None,
            QoS::AtMostOnce => {
                self.counters.dropped(Dropped::FullBuffer);
                return;
            }
            qos if !full && session.backlog.is_empty() => session.window.push(qos, outgoing.origin),
            _ => None,
        };
        if id.is_some() || outgoing.qos == QoS::AtMostOnce {
            self.send_outgoing(location, &outgoing, id);
        } else {
            // Bounded: scans and groups give no more than a page or a window at a time, and whoever
            // does not take answers may not ask for more.
            session.backlog_bytes += outgoing.publication.payload().len();
            session.backlog.push_back(outgoing);
        }
    }

    /// Sends a publication of QoS 0 that nobody else gets: it is encoded from where it lies. Dropped
    /// when the client does not read.
    pub(super) fn send_at_most_once(&mut self, location: Location, parts: PublicationParts<'_>) {
        let mut frames = std::mem::take(&mut self.frames);
        let mut message = Message::borrowed(parts, &mut frames, self.now_ms);
        let Worker { connections, turn, pool, counters, .. } = self;
        let connection = connections.get_mut(location.place());
        if let Some(connection) = connection.filter(|c| c.location == location) {
            if connection.is_full() {
                counters.dropped(Dropped::FullBuffer);
            } else {
                let qos = QoS::AtMostOnce;
                let copy = Copy { qos, retain: false, dup: false, identifiers: &[] };
                write_to(connection, turn, pool, counters, &mut message, copy, None);
            }
        }
        self.frames = frames;
    }

    /// Sends a publication that nobody else gets, encoded from where it lies; false when it has to
    /// wait for room, or behind what is being recorded.
    pub(super) fn send_now(
        &mut self,
        location: Location,
        parts: PublicationParts<'_>,
        identifiers: &[u32],
        origin: Origin,
    ) -> bool {
        let Worker { connections, turn, pool, counters, frames, now_ms, .. } = self;
        let connection = connections.get_mut(location.place());
        let Some(connection) = connection.filter(|c| c.location == location) else { return true };
        let full = connection.is_full();
        let Some(session) = connection.session() else { return true };
        let recording = session.stored.as_ref().is_some_and(|stored| !stored.steps.is_empty());
        if full || recording || !session.backlog.is_empty() {
            return false;
        }
        let Some(id) = session.window.push(parts.qos, origin) else { return false };
        let copy = Copy { qos: parts.qos, retain: false, dup: false, identifiers };
        let mut message = Message::borrowed(parts, frames, *now_ms);
        if send_copy(connection, turn, pool, counters, &mut message, copy, Some(id)) {
            self.settle_skipped(location);
        }
        true
    }

    /// Encodes one message to a connection, under its identifier.
    pub(super) fn send_outgoing(
        &mut self,
        location: Location,
        outgoing: &Outgoing,
        id: Option<PacketId>,
    ) {
        let expired = self.im_expired(location, outgoing);
        let outgoing = expired.as_ref().unwrap_or(outgoing);
        let mut frames = std::mem::take(&mut self.frames);
        let mut message = Message::shared(&outgoing.publication, &mut frames, self.now_ms);
        let Worker { connections, turn, pool, counters, .. } = self;
        let connection = connections.get_mut(location.place());
        let mut skipped = false;
        if let Some(connection) = connection.filter(|c| c.location == location) {
            let copy = Copy {
                qos: outgoing.qos,
                retain: outgoing.retain,
                dup: outgoing.dup,
                identifiers: &outgoing.identifiers,
            };
            skipped = send_copy(connection, turn, pool, counters, &mut message, copy, id);
        }
        self.frames = frames;
        if skipped {
            self.settle_skipped(location);
        }
    }

    /// Exchanges have ended: places in the window are free, cursors move.
    pub(super) fn free_places(&mut self, location: Location) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let mut progressed = false;
        let mut im_moved = false;
        while let Some(origin) = session.window.pop_done() {
            if let Some(im) = &mut session.im {
                im.exchange_over(origin);
                if let Origin::Im { stream, seq, .. } = origin {
                    im.acknowledged(stream, seq);
                }
                im_moved |= matches!(origin, Origin::Im { .. } | Origin::Kept { .. });
            }
            let Some(stored) = &mut session.stored else { continue };
            match origin {
                Origin::Queue { seq, weight } => {
                    stored.feed.acknowledge(seq, weight);
                    progressed |= !std::mem::replace(&mut stored.progressed, true);
                }
                Origin::Ahead { seq } => stored.done.push(seq),
                Origin::Transient | Origin::Group { .. } => {}
                Origin::Im { .. } | Origin::Kept { .. } => {}
            }
        }
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && session.window.any_complete_before_turn()
            && let Some(stored) = &mut session.stored
        {
            progressed |= !std::mem::replace(&mut stored.progressed, true);
        }
        if progressed {
            self.turn.progressed.push(location);
        }
        if im_moved {
            self.im_note_moved(location);
        }
    }

    /// As [`free_places`](Self::free_places), then sends what the room allows.
    pub(super) fn settled(&mut self, location: Location) {
        self.free_places(location);
        self.send_waiting(location);
    }

    /// Messages were not sent after all (expired, too large): whoever counts on them hears so, and
    /// their places in the window are free.
    pub(super) fn settle_skipped(&mut self, location: Location) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        for (id, origin) in std::mem::take(&mut session.skipped) {
            if let Some(id) = id {
                self.exchange_ended(location, id, origin);
            }
            if let Origin::Im { stream, seq, .. } = origin {
                self.im_skipped(location, stream, seq);
            }
            self.finished(location, origin);
        }
        self.free_places(location);
    }

    /// The socket has taken everything: there may be room for what waits.
    pub(super) fn room_again(&mut self, location: Location) {
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && (!session.backlog.is_empty()
                || !session.scans.is_empty()
                || session.im.is_some()
                || session.stored.as_ref().is_some_and(|stored| stored.feed.behind()))
        {
            self.send_waiting(location);
        }
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn send_waiting(&mut self, location: Location) {
        loop {
            let Some(connection) = self.connection(location) else { return };
            if connection.is_full() {
                return;
            }
            let Some(session) = connection.session() else { return };
            if session.backlog.is_empty() {
                break;
            }
            if session.window.room() == 0 {
                return;
            }
            let Some(outgoing) = session.backlog.pop_front() else { return };
            session.backlog_bytes -= outgoing.publication.payload().len();
            let recorded = session.stored.is_some() && outgoing.origin.source().is_some();
            if let Some(id) = outgoing.again {
                if session.window.resend(id) == Ok(true) {
                    self.send_step(location, outgoing, id);
                }
            } else if let Some(id) = session.window.push(outgoing.qos, outgoing.origin) {
                if recorded && outgoing.qos == QoS::ExactlyOnce {
                    self.begin_exchange(location, outgoing, id);
                } else {
                    self.send_step(location, outgoing, id);
                }
            }
        }
        self.read_on(location);
        self.im_read_on(location);
        self.scan_on(location);
    }
}

/// Encodes one copy, unless the message has expired. True when something was left out that is to be
/// [settled](Worker::settle_skipped).
pub(super) fn send_copy(
    connection: &mut Connection,
    turn: &mut Turn,
    pool: &mut Pool,
    counters: &WorkerCounters,
    message: &mut Message<'_>,
    copy: Copy<'_>,
    id: Option<PacketId>,
) -> bool {
    if message.expired() && !copy.dup {
        counters.dropped(Dropped::Expired);
        return skip(connection, copy.qos, id);
    }
    write_to(connection, turn, pool, counters, message, copy, id)
}

/// Encodes one copy into a connection's output; a packet above the client's maximum is left out
/// as if it had been sent ([MQTT-3.1.2-25]), and so is, for a bridge of 3.1.1, what stays here. True
/// when that is to be [settled](Worker::settle_skipped).
pub(super) fn write_to(
    connection: &mut Connection,
    turn: &mut Turn,
    pool: &mut Pool,
    counters: &WorkerCounters,
    message: &mut Message<'_>,
    copy: Copy<'_>,
    id: Option<PacketId>,
) -> bool {
    if connection.socket.is_none() || connection.finishing {
        return false;
    }
    if !connection.dirty {
        connection.dirty = true;
        turn.dirty.push(connection.location.place());
    }
    let Connection { phase, output, .. } = connection;
    let Phase::Active(session) = phase else { return false };
    if !session.via.is_empty() && stays_here(message.parts.properties) {
        return skip(connection, copy.qos, id);
    }
    let output = output.get_or_insert_with(|| pool.take());
    if !encode(session, message, copy, id, output) {
        counters.dropped(Dropped::TooLarge);
        return skip(connection, copy.qos, id);
    }
    counters.publish_out(copy.qos);
    counters.payload_bytes_out.add(message.parts.payload.len() as u64);
    false
}

/// Ends the exchange of a message that is not sent; true when it had one, whose place is to be freed.
fn skip(connection: &mut Connection, qos: QoS, id: Option<PacketId>) -> bool {
    let Some(session) = connection.session() else { return false };
    let Some(id) = id else { return false };
    let ended = match qos {
        QoS::ExactlyOnce => session.window.refuse(id),
        _ => session.window.acknowledge(id),
    };
    let Ok(origin) = ended else { return false };
    if origin.source().is_some() || matches!(origin, Origin::Im { .. }) {
        let exchange = (qos == QoS::ExactlyOnce).then_some(id);
        session.skipped.push((exchange, origin));
    }
    true
}

fn encode(
    session: &mut Session,
    message: &mut Message<'_>,
    copy: Copy<'_>,
    id: Option<PacketId>,
    output: &mut Output,
) -> bool {
    let Copy { qos, retain, dup, identifiers } = copy;
    let shape = Shape { version: session.version, qos, retain, dup };
    let maximum = session.maximum_packet;
    let topic = message.parts.topic;
    let Some(aliases) = &mut session.outbound_aliases else {
        return if identifiers.is_empty() {
            message.write(shape, id, maximum, output)
        } else {
            message.write_own(shape, id, identifiers, (false, None), maximum, output)
        };
    };
    match aliases.look(topic) {
        Alias::None => message.write_own(shape, id, identifiers, (false, None), maximum, output),
        Alias::Known(alias) => {
            message.write_own(shape, id, identifiers, (true, Some(alias)), maximum, output)
        }
        Alias::Learn(alias) => {
            let terms = (false, Some(alias));
            let written = message.write_own(shape, id, identifiers, terms, maximum, output);
            if written {
                aliases.learn(topic, alias);
            }
            written
        }
    }
}
