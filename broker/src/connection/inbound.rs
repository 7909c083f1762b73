//! What a client sends: bytes are cut into packets, each packet goes to its handler, a malformed
//! one ends the connection with its reason.

use hoopoe_codec::{
    Ack, AckProperties, Disconnect, Fault, Packet, PacketId, ReasonCode, Receiver, Version, decode,
    decode_connect, frame_length,
};
use hoopoe_core::Location;
use hoopoe_store::Command;
use hoopoe_store::command::{
    ExchangeChange, GroupCommand, InFlight, Phase as Exchange, ReplyTo, Source,
};
use smallvec::smallvec;

use super::closing::Cause;
use super::queue::STEP_TOKEN;
use super::session::{Answer, Origin, Owed, Session, Step};
use super::worker::Worker;
use super::{Connection, Phase};

/// The packet type of PUBACK.
const PUBACK: u8 = 4;
/// Answers that a client may be owed before it is read on.
const MOST_OWED: usize = 1024;
/// Bytes that answers may hold before the client is read on.
const MOST_OWED_BYTES: usize = 4 << 20;

impl Worker {
    /// Works on the whole packets in `bytes`, after what was left before; keeps the rest.
    pub(super) fn consume(&mut self, location: Location, bytes: &[u8]) {
        let Some(connection) = self.connection(location) else { return };
        if connection.partial.is_empty() {
            let used = self.packets(location, bytes);
            self.keep(location, &bytes[used..]);
        } else {
            let mut joined = std::mem::take(&mut connection.partial);
            joined.extend_from_slice(bytes);
            let used = self.packets(location, &joined);
            if used == 0 {
                if let Some(connection) = self.connection(location) {
                    connection.partial = joined;
                }
            } else {
                self.keep(location, &joined[used..]);
            }
        }
    }

    fn keep(&mut self, location: Location, rest: &[u8]) {
        if !rest.is_empty()
            && let Some(connection) = self.connection(location)
            && connection.socket.is_some()
            && !connection.finishing
        {
            connection.partial = rest.to_vec();
        }
    }

    /// Goes on with what has waited while the client was not read.
    pub(super) fn resume(&mut self, location: Location) {
        let Some(connection) = self.connection(location) else { return };
        connection.paused = false;
        if !connection.partial.is_empty() {
            let waiting = std::mem::take(&mut connection.partial);
            let used = self.packets(location, &waiting);
            self.keep(location, &waiting[used..]);
        }
        if let Some(connection) = self.connection(location)
            && connection.readable
            && !connection.paused
        {
            self.turn.again.push(location);
        }
    }

    /// Handles whole packets until there is none, or the connection has to wait or end. Gives
    /// the number of bytes used.
    fn packets(&mut self, location: Location, bytes: &[u8]) -> usize {
        let mut acknowledged = false;
        let used = self.packets_until(location, bytes, &mut acknowledged);
        self.settle_if(location, &mut acknowledged);
        used
    }

    /// Places in the window that PUBACKs have freed are filled once for all that stand side by
    /// side.
    fn settle_if(&mut self, location: Location, acknowledged: &mut bool) {
        if std::mem::take(acknowledged) {
            self.settled(location);
        }
    }

    fn packets_until(
        &mut self,
        location: Location,
        bytes: &[u8],
        acknowledged: &mut bool,
    ) -> usize {
        let mut used = 0;
        loop {
            let Some(connection) = self.connection(location) else { return bytes.len() };
            let max_packet = connection.limits.max_packet_bytes;
            if connection.paused {
                return used;
            }
            if connection.finishing || connection.socket.is_none() {
                return bytes.len();
            }
            let rest = &bytes[used..];
            let frame = match frame_length(rest, max_packet) {
                Ok(Some(length)) if length <= rest.len() => &rest[..length],
                Ok(_) => {
                    // The type is known from the first byte: no need to wait for the rest.
                    let greeting = matches!(connection.phase, Phase::Greeting);
                    if greeting && rest.first().is_some_and(|first| first >> 4 != 1) {
                        self.socket_ended(location, Some(NOT_CONNECT.into()));
                        return bytes.len();
                    }
                    return used;
                }
                Err(fault) => {
                    self.settle_if(location, acknowledged);
                    self.fault(location, &[], fault);
                    return bytes.len();
                }
            };
            used += frame.len();
            self.counters.packets_in.add(1);
            let is_puback = frame.first().is_some_and(|first| first >> 4 == PUBACK);
            if !is_puback {
                self.settle_if(location, acknowledged);
            }
            if let Err(fault) = self.packet(location, frame) {
                self.settle_if(location, acknowledged);
                self.fault(location, frame, fault);
                return bytes.len();
            }
            *acknowledged |= is_puback;
        }
    }

    fn packet(&mut self, location: Location, frame: &[u8]) -> Result<(), Fault> {
        let Some(connection) = self.connection(location) else { return Ok(()) };
        let version = match &connection.phase {
            Phase::Greeting => {
                let connect = decode_connect(frame)?;
                self.connect(location, &connect);
                return Ok(());
            }
            Phase::Active(session) => session.version,
            _ => return Ok(()),
        };
        let packet = decode(version, Receiver::Server, frame)?;
        if self.waits_at_entrance(location, frame, &packet) {
            return Ok(());
        }
        match packet {
            Packet::Publish(publish) => self.publish_arrived(location, &publish),
            Packet::PubAck(ack) => self.puback(location, &ack),
            Packet::PubRec(ack) => self.pubrec(location, &ack),
            Packet::PubRel(ack) => self.pubrel(location, &ack),
            Packet::PubComp(ack) => self.pubcomp(location, &ack),
            Packet::Subscribe(subscribe) => self.subscribe(location, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(location, &unsubscribe),
            Packet::PingReq => {
                self.send_packet(location, version, &Packet::PingResp);
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.disconnect(location, &disconnect),
            Packet::Auth(_) => Err(Fault {
                reason: ReasonCode::ProtocolError,
                what: "AUTH without an authentication method in CONNECT [MQTT-4.12.0-6]",
            }),
            // A second CONNECT is a protocol error ([MQTT-3.1.0-2]); the rest only servers send.
            _ => Err(Fault {
                reason: ReasonCode::ProtocolError,
                what: "a packet that a client must not send here [MQTT-3.1.0-2]",
            }),
        }
    }

    /// A packet that breaks the rules: v5 hears why, then the connection ends.
    pub(super) fn fault(&mut self, location: Location, frame: &[u8], fault: Fault) {
        self.counters.faults.add(1);
        if let Some(connection) = self.connection(location) {
            tracing::debug!(client = connection.label(), %fault, "malformed or illegal packet");
            match &connection.phase {
                Phase::Active(_) => self.end_session(location, Cause::Fault(fault.reason)),
                Phase::Greeting => self.refuse_unread(location, frame, fault),
                _ => self.socket_ended(location, Some(fault.into())),
            }
        }
    }

    /// The place that it frees is filled when no other PUBACK follows.
    fn puback(&mut self, location: Location, packet: &Ack<'_>) -> Result<(), Fault> {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        // An identifier that is not in flight: ignored, as its exchange may be from before a
        // restart ([MQTT-4.3.2-5] gives the server no error to send).
        if let Ok(origin) = session.window.acknowledge(packet.id) {
            self.finished(location, origin);
        }
        Ok(())
    }

    fn pubrec(&mut self, location: Location, packet: &Ack<'_>) -> Result<(), Fault> {
        let Some(connection) = self.connection(location) else { return Ok(()) };
        let Some(session) = connection.session() else { return Ok(()) };
        if packet.code.is_error() {
            // [MQTT-4.3.3-4]: no PUBREL; the identifier is free.
            if self.conclude_for_group(location, packet.id, true) {
                return Ok(());
            }
            let Some(session) = self.connection(location).and_then(Connection::session) else {
                return Ok(());
            };
            if let Ok(origin) = session.window.refuse(packet.id) {
                self.exchange_ended(location, packet.id, origin);
                self.finished(location, origin);
                self.settled(location);
            }
            return Ok(());
        }
        let version = session.version;
        match session.window.receive(packet.id) {
            Ok((origin, first)) => {
                let id = packet.id;
                match origin.source().filter(|_| first && session.stored.is_some()) {
                    Some(source) => self.write_release(location, id, source),
                    None => {
                        let pubrel = ack(id, ReasonCode::Success);
                        self.send_packet(location, version, &Packet::PubRel(pubrel));
                    }
                }
            }
            Err(_) => {
                let code = ReasonCode::PacketIdentifierNotFound;
                let pubrel = ack(packet.id, code);
                self.send_packet(location, version, &Packet::PubRel(pubrel));
            }
        }
        Ok(())
    }

    /// [MQTT-4.3.3-8]: PUBREL leaves once the PUBREC is on disk (ruling 5).
    pub(super) fn write_release(&mut self, location: Location, id: PacketId, source: Source) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Some(stored) = &mut session.stored else { return };
        let token = stored.steps.owe(1, 0, Step::PubRel(id)) | STEP_TOKEN;
        let change = ExchangeChange::Put(InFlight {
            id: id.get(),
            source,
            phase: Exchange::Released,
            qos: hoopoe_codec::QoS::ExactlyOnce,
        });
        let command = Command::Exchange {
            session: stored.id,
            epoch: session.epoch,
            changes: smallvec![change],
            reply: Some(ReplyTo { location, token }),
        };
        let slot = stored.id.slot();
        self.command(slot, command);
    }

    fn pubcomp(&mut self, location: Location, packet: &Ack<'_>) -> Result<(), Fault> {
        if self.conclude_for_group(location, packet.id, false) {
            return Ok(());
        }
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        if let Ok(origin) = session.window.complete(packet.id) {
            self.exchange_ended(location, packet.id, origin);
            self.finished(location, origin);
            self.settled(location);
        }
        Ok(())
    }

    /// The client is done with a QoS 2 message: when a group has it and the session is stored, the
    /// group writes that first, then the exchange may be forgotten. The other way round a crash in
    /// between would give the message to another member. False: not such a message.
    fn conclude_for_group(&mut self, location: Location, id: PacketId, refused: bool) -> bool {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return false;
        };
        let (Some(Origin::Group { group, seq }), Some(stored)) =
            (session.window.source(id), &mut session.stored)
        else {
            return false;
        };
        if session.window.conclude(id, refused).is_ok() {
            let token = stored.steps.owe(1, 0, Step::Forget(id)) | STEP_TOKEN;
            let reply = Some(ReplyTo { location, token });
            let subscriber = session.route.subscriber;
            let done = GroupCommand::Done { group, subscriber, seq, reply };
            self.command(group.slot(), Command::Group(Box::new(done)));
        }
        true
    }

    /// The group has written that its entry is done.
    pub(super) fn forget_exchange(&mut self, location: Location, id: PacketId) {
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && let Ok(origin) = session.window.complete(id)
        {
            self.exchange_ended(location, id, origin);
        }
    }

    /// Forgets a stored outgoing QoS 2 exchange; lazily, its repetition would do no harm.
    pub(super) fn exchange_ended(&mut self, location: Location, id: PacketId, origin: Origin) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        if matches!(origin, Origin::Im { .. } | Origin::Kept { .. }) {
            // Its record goes behind the cursor that passes the entry.
            return;
        }
        if let (Some(_), Some(stored)) = (origin.source(), &session.stored) {
            let command = Command::Exchange {
                session: stored.id,
                epoch: session.epoch,
                changes: smallvec![ExchangeChange::Remove(id.get())],
                reply: None,
            };
            let slot = stored.id.slot();
            self.command(slot, command);
        }
    }

    /// A shared group's entry is done with.
    pub(super) fn finished(&mut self, location: Location, origin: Origin) {
        if let Origin::Group { group, seq } = origin
            && let Some(session) = self.connection(location).and_then(Connection::session)
        {
            let subscriber = session.route.subscriber;
            let done = GroupCommand::Done { group, subscriber, seq, reply: None };
            self.command(group.slot(), Command::Group(Box::new(done)));
        }
    }

    fn pubrel(&mut self, location: Location, packet: &Ack<'_>) -> Result<(), Fault> {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        let code = match session.incoming.knows(packet.id) {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        let answer = Answer::PubComp(packet.id, code);
        match session.route.session() {
            // Also when it is not known here: a crash may have come between two shards' removals.
            Some(publisher) => self.release_marker(location, publisher, packet.id, answer),
            None => {
                self.owe(location, 0, 0, answer);
            }
        }
        Ok(())
    }

    fn disconnect(&mut self, location: Location, disconnect: &Disconnect<'_>) -> Result<(), Fault> {
        let Some(connection) = self.connection(location) else { return Ok(()) };
        let cap = connection.limits.session_expiry_max_secs;
        let Some(session) = connection.session() else { return Ok(()) };
        let expiry = disconnect.session_expiry_secs;
        if expiry.is_some_and(|secs| secs > 0) && session.expiry_secs == 0 {
            return Err(Fault {
                reason: ReasonCode::ProtocolError,
                what: "DISCONNECT: session expiry set although it was 0 in CONNECT [MQTT-3.14.2-2]",
            });
        }
        let normal = disconnect.code == ReasonCode::Success;
        let expiry = expiry.map(|secs| secs.min(cap));
        self.end_session(location, Cause::Disconnect { normal, expiry });
        Ok(())
    }

    /// Owes an answer, and sends what can leave. Gives the token of the answer.
    pub(super) fn owe(
        &mut self,
        location: Location,
        commits: u8,
        topic: u64,
        answer: Answer,
    ) -> u64 {
        self.owe_with(location, commits, topic, answer.into())
    }

    /// As [`owe`](Self::owe), with a publication that goes out when the turn comes.
    pub(super) fn owe_with(
        &mut self,
        location: Location,
        commits: u8,
        topic: u64,
        owed: Owed,
    ) -> u64 {
        let Some(connection) = self.connection(location) else { return 0 };
        let Some(session) = connection.session() else { return 0 };
        if commits == 0 && session.answers.is_empty() {
            // Nothing to wait for: it never enters the queue.
            self.fulfil(location, owed, ReasonCode::Success);
            return 0;
        }
        session.owed_bytes += owed.bytes;
        let token = session.answers.owe(commits, topic, owed);
        if session.answers.len() >= MOST_OWED || session.owed_bytes >= MOST_OWED_BYTES {
            connection.paused = true;
        }
        token
    }

    /// Sends the answers whose turn has come.
    pub(super) fn answer_ready(&mut self, location: Location) {
        while let Some(session) = self.connection(location).and_then(Connection::session)
            && let divided = session.answers.is_divided()
            && let Some((owed, code)) = session.answers.pop_ready()
        {
            session.owed_bytes -= owed.bytes;
            if divided && !reaches_receivers(code) && self.repeats(location, &owed.answer) {
                return;
            }
            self.fulfil(location, owed, code);
        }
        if let Some(connection) = self.connection(location)
            && connection.paused
            && let Some(session) = connection.session()
            && session.answers.len() <= MOST_OWED / 2
            && session.owed_bytes <= MOST_OWED_BYTES / 2
        {
            self.resume(location);
        }
    }

    /// Sends an answer, after the copies of its publication that waited for it.
    fn fulfil(&mut self, location: Location, mut owed: Owed, mut code: ReasonCode) {
        if let Some((publication, plan)) = &owed.publish
            && reaches_receivers(code)
            && let Some(session) = self.connection(location).and_then(Connection::session)
        {
            let publisher = session.route.subscriber;
            self.fan_out_shared(publication, plan, publisher);
        }
        if let Some(im) = owed.im {
            self.im_fulfil(location, owed.answer, *im);
            return;
        }
        if code == ReasonCode::ServerUnavailable && owed.answer.is_to_publish() {
            // The store takes nothing at the moment (ruling 12).
            if self.may_be_submitted(location, &owed.answer) {
                self.end_session(location, Cause::Fault(code));
                return;
            }
            code = ReasonCode::QuotaExceeded;
        }
        if code == ReasonCode::RetainNotSupported {
            code = self.not_retained(location, &owed.answer);
            owed.reason = Some("delivered and not retained: as many are retained as may be");
        }
        self.answer(location, owed.answer, code, owed.reason);
    }

    /// Ends the connection of a stored publisher whose QoS 2 message some shards have and others
    /// have refused. Without PUBREC the client sends it again, and who has it already knows it by
    /// its marker; after a PUBREC that refuses, the repetition would be a message of its own
    /// ([MQTT-4.3.3-9]).
    fn repeats(&mut self, location: Location, answer: &Answer) -> bool {
        let session = self.connection(location).and_then(Connection::session);
        let stored = session.is_some_and(|session| session.route.session().is_some());
        let repeats = stored && matches!(answer, Answer::PubRec(_));
        if repeats {
            self.end_session(location, Cause::Fault(ReasonCode::ServerUnavailable));
        }
        repeats
    }

    /// Whether shards may have a stored publisher's QoS 2 message from an earlier connection, and
    /// cannot be asked: without PUBREC the client sends it again, with one that refuses it would
    /// use the identifier for another.
    pub(super) fn may_be_submitted(&mut self, location: Location, answer: &Answer) -> bool {
        let session = self.connection(location).and_then(Connection::session);
        let session = session.filter(|session| session.route.session().is_some());
        session.is_some_and(|session| match answer {
            Answer::PubRec(id) => session.incoming.may_be_submitted(*id),
            _ => false,
        })
    }

    /// What the publisher of a message that was delivered and not retained hears (ruling 13). In
    /// 3.1.1 that is PUBACK: closing instead would have it sent, and delivered, again and again. To
    /// a stored publisher's QoS 2 a refusal would end an exchange that the shards remember: it goes
    /// on.
    fn not_retained(&mut self, location: Location, answer: &Answer) -> ReasonCode {
        self.counters.refused_publications.add(1);
        let session = self.connection(location).and_then(Connection::session);
        let Some(session) = session else { return ReasonCode::Success };
        let remembered = session.route.session().is_some() && matches!(answer, Answer::PubRec(_));
        match session.version {
            Version::V5 if !remembered => ReasonCode::QuotaExceeded,
            _ => ReasonCode::Success,
        }
    }

    fn answer(
        &mut self,
        location: Location,
        answer: Answer,
        code: ReasonCode,
        reason: Option<&'static str>,
    ) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let version = session.version;
        match answer {
            Answer::Nothing => {}
            Answer::Forgotten => {
                if code.is_error() {
                    self.end_session(location, Cause::Fault(code));
                }
            }
            Answer::PubAck(id) => {
                session.incoming.end_qos1();
                let ack = Ack { id, code, properties: explained(session, reason) };
                self.acknowledge(location, version, code, Packet::PubAck(ack));
            }
            Answer::PubRec(id) => {
                session.incoming.answer_qos2(id, code.is_error());
                let ack = Ack { id, code, properties: explained(session, reason) };
                self.acknowledge(location, version, code, Packet::PubRec(ack));
            }
            Answer::PubComp(id, found) => {
                // Not removed from disk: no PUBCOMP, and no code that would say why. The client asks
                // again over its next connection ([MQTT-4.4.0-1]).
                if code.is_error() {
                    self.end_session(location, Cause::Fault(ReasonCode::ServerUnavailable));
                    return;
                }
                // Of an exchange that was not known nothing ends: the client may have begun one under
                // the identifier since, and that one's repetition is to be known.
                if found == ReasonCode::Success {
                    session.incoming.end_qos2(id);
                }
                let pubcomp = ack(id, found);
                self.send_packet(location, version, &Packet::PubComp(pubcomp));
            }
            Answer::SubAck(id, codes) => self.suback(location, id, codes, code),
            Answer::UnsubAck(id, codes, _) => self.unsuback(location, id, codes, code),
        }
    }

    /// PUBACK or PUBREC; 3.1.1 has no code: what is refused there ends the connection, so that
    /// the client does not take it for accepted (ruling 12).
    fn acknowledge(
        &mut self,
        location: Location,
        version: Version,
        code: ReasonCode,
        packet: Packet<'_>,
    ) {
        if code.is_error() && (version == Version::V311 || code == ReasonCode::UnspecifiedError) {
            self.end_session(location, Cause::Fault(ReasonCode::ServerUnavailable));
            return;
        }
        self.send_packet(location, version, &packet);
    }
}

/// Whether receivers get a publication for which the shards have this code. Of a refusal to retain
/// they learn nothing; the code is for use between threads, PUBACK does not know it.
pub(super) fn reaches_receivers(code: ReasonCode) -> bool {
    !code.is_error() || code == ReasonCode::RetainNotSupported
}

/// A reason string, for a client that wants one.
fn explained(session: &Session, reason: Option<&'static str>) -> AckProperties<'static> {
    let reason_string = reason.filter(|_| session.problem_information);
    AckProperties { reason_string, ..AckProperties::NONE }
}

/// An acknowledgement that says no more than its code.
pub(super) fn ack(id: PacketId, code: ReasonCode) -> Ack<'static> {
    Ack { id, code, properties: AckProperties::NONE }
}

/// The first packet of a connection is something else.
pub(super) const NOT_CONNECT: Fault = Fault {
    reason: ReasonCode::ProtocolError,
    what: "the first packet is not CONNECT [MQTT-3.1.0-1]",
};
