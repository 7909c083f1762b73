//! What a device publishes below `im/`: read, and sent to the shard that judges it. The
//! acknowledgement waits for the answer; 5.0 hears the result in its properties, 3.1.1 by a
//! notice that leaves before it (ruling 30).

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use hoopoe_codec::{
    Ack, AckProperties, Fault, Packet, PropertyBlock, Publish, ReasonCode, Version,
};
use hoopoe_core::{Location, PacketIdent, Slot};
use hoopoe_im::command::{Asker, Command, MoveCursor, Operate, Operation, Send, SendSignal};
use hoopoe_im::envelope::{ClientProperties, MANY_MENTIONS, check_client_properties};
use hoopoe_im::id::ConvKey;
use hoopoe_im::overload::Shed;
use hoopoe_im::refusal::{Refusal, Word};
use hoopoe_im::rows::Sent;
use hoopoe_im::topic::{self, Mentions, Position, Published, SignalTarget, parse_publish};
use hoopoe_im::{Answer as Outcome, User};
use hoopoe_store::command::ReplyTo;

use super::told_by_notice;
use crate::connection::Connection;
use crate::connection::closing::Cause;
use crate::connection::inbound::ack;
use crate::connection::session::{Answer, Owed};
use crate::connection::worker::Worker;
use crate::im::hook::{is_asked_about, overrun};
use crate::im::{overloaded, too_fast};

/// What an acknowledgement below `im/` waits for, and how its result is told.
#[derive(Debug, Default)]
pub struct ImOwed {
    /// The conversation of a message.
    conv: Option<ConvKey>,
    /// The client message id.
    cid: Option<Arc<str>>,
    /// The result, once it is there.
    result: Option<Outcome>,
}

/// A publication while it is read.
struct Incoming<'a> {
    publish: &'a Publish<'a>,
    properties: ClientProperties<'a>,
    answer: Answer,
    user: User,
    device: Arc<str>,
    marker: Option<PacketIdent>,
    expires_at_ms: Option<u64>,
}

impl Worker {
    /// A PUBLISH below `im/`.
    pub(in crate::connection) fn im_publish(
        &mut self,
        location: Location,
        topic: &str,
        publish: &Publish<'_>,
        answer: Answer,
    ) -> Result<(), Fault> {
        let now_ms = self.now_ms;
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        let Some(im) = &session.im else {
            // A plain client hears of it as of any topic that it may not publish to.
            let refusal = if publish.retain {
                (ReasonCode::ImplementationSpecificError, "nothing below im/ can be retained")
            } else {
                (ReasonCode::NotAuthorized, "the im/ tree is for users, this client is none")
            };
            self.refuse_publish(location, answer, refusal);
            return Ok(());
        };
        let (user, device) = (im.user.clone(), session.key.client.clone());
        if publish.retain && session.version == Version::V5 {
            // Ruling 16; 3.1.1: the flag is ignored.
            let mut refusal = Refusal::conflict("nothing below im/ can be retained");
            refusal.code = ReasonCode::ImplementationSpecificError;
            return self.im_refuse(location, answer, None, refusal);
        }
        let marker = match (&answer, session.route.session()) {
            (Answer::PubRec(id), Some(session)) => Some(PacketIdent { session, id: id.get() }),
            _ => None,
        };
        let forwardable = publish.properties.forwardable();
        let properties = match check_client_properties(&forwardable) {
            Ok(properties) => properties,
            Err(what) => {
                let refusal = match what {
                    MANY_MENTIONS => Refusal::limit(what),
                    what => Refusal::bad_request(what),
                };
                return self.im_refuse(location, answer, None, refusal);
            }
        };
        let published = match parse_publish(topic) {
            Ok(published) => published,
            Err(error) => {
                let refusal = Refusal {
                    word: Word::NotAllowed,
                    code: error.reason,
                    message: Cow::Borrowed(error.what),
                };
                return self.im_refuse(location, answer, properties.cid, refusal);
            }
        };
        let expiry = publish.properties.message_expiry_secs;
        let incoming = Incoming {
            publish,
            answer,
            user,
            device,
            marker,
            expires_at_ms: expiry.map(|secs| now_ms + u64::from(secs) * 1000),
            properties,
        };
        self.im_published(location, published, incoming)
    }

    fn im_published(
        &mut self,
        location: Location,
        published: Published<'_>,
        incoming: Incoming<'_>,
    ) -> Result<(), Fault> {
        match published {
            Published::Message { to, cid, mentions } => {
                let conv = to.conv(&incoming.user.tenant, &incoming.user.id);
                self.im_message(location, conv, cid, mentions, 0, incoming)
            }
            Published::Burn { user, seconds, cid } => {
                let conv = ConvKey::pair(&incoming.user.tenant, &incoming.user.id, user);
                self.im_message(location, conv, cid, None, seconds, incoming)
            }
            Published::Operation { op, conv, seq } => {
                let conv = conv.conv(&incoming.user.tenant, &incoming.user.id);
                self.im_operation(location, op, conv, seq, incoming)
            }
            Published::Cursor { conv, which, seq } => {
                let conv = conv.conv(&incoming.user.tenant, &incoming.user.id);
                let user = incoming.user;
                let slot = user.slot();
                // What this device has acknowledged so far comes first.
                self.im_report_one(location);
                let asker = self.im_owe(location, incoming.answer, ImOwed::default(), 0);
                let read = which == Position::Read;
                let cursor = MoveCursor { user, conv, read, seq, asker };
                self.im_say(location, slot, Command::MoveCursor(Box::new(cursor)), asker);
                Ok(())
            }
            Published::Signal { to, kind } => self.im_signal(location, to, kind, incoming),
            Published::Service { service, op, req } => {
                let publish = incoming.publish;
                self.im_call(location, (service, op, req), publish, incoming.answer)
            }
            Published::Status { show } => {
                let Incoming { publish, answer, user, .. } = incoming;
                self.im_set_show(location, user, show, publish.payload, answer)
            }
            Published::Background => {
                self.im_attention(location, incoming.user, true, incoming.answer)
            }
            Published::Foreground => {
                self.im_attention(location, incoming.user, false, incoming.answer)
            }
            Published::RoomMessage { room, lane } => {
                let Incoming { publish, properties, answer, expires_at_ms, .. } = incoming;
                let said = (lane, publish.payload, expires_at_ms);
                let done = self.publish_to_room(location, room, said, &properties.without_ours);
                self.im_judged(location, answer, properties.cid, done)
            }
        }
    }

    fn im_message(
        &mut self,
        location: Location,
        conv: ConvKey,
        cid: Option<&str>,
        mentions: Option<&str>,
        burn_secs: u32,
        incoming: Incoming<'_>,
    ) -> Result<(), Fault> {
        let Incoming { publish, properties, answer, user, device, marker, expires_at_ms } =
            incoming;
        let cid: Option<Arc<str>> = cid.or(properties.cid).map(Arc::from);
        let at = mentions.or(properties.at).map(Mentions::parse);
        let (users, at_all) = match at {
            None => (Vec::new(), false),
            Some(Ok(at)) => (at.users().map(Arc::from).collect(), at.all()),
            Some(Err(fault)) => {
                let refusal = Refusal::bad_request(fault.to_string());
                return self.im_refuse(location, answer, cid.as_deref(), refusal);
            }
        };
        if !self.env.im.may_send(self.now_ms, &user) {
            return self.im_too_fast(location, answer, cid.as_deref());
        }
        let owed = ImOwed { conv: Some(conv.clone()), cid: cid.clone(), result: None };
        let slot = conv.slot();
        let asker = self.im_owe(location, answer, owed, publish.payload.len());
        let send = Send {
            conv,
            from: user,
            device,
            cid,
            burn_secs,
            mentions: users,
            at_all,
            properties: properties.without_ours.into_owned().into(),
            payload: bytes::Bytes::copy_from_slice(publish.payload),
            expires_at_ms,
            marker,
            privileged: false,
            asker,
        };
        self.im_say(location, slot, Command::Send(Box::new(send)), asker);
        Ok(())
    }

    fn im_operation(
        &mut self,
        location: Location,
        operation: topic::Operation,
        conv: ConvKey,
        seq: u64,
        incoming: Incoming<'_>,
    ) -> Result<(), Fault> {
        let Incoming { publish, properties, answer, user, device, marker, .. } = incoming;
        let cid: Option<Arc<str>> = properties.cid.map(Arc::from);
        if !self.env.im.may_send(self.now_ms, &user) {
            return self.im_too_fast(location, answer, cid.as_deref());
        }
        let owed = ImOwed { conv: Some(conv.clone()), cid: cid.clone(), result: None };
        let slot = conv.slot();
        let asker = self.im_owe(location, answer, owed, publish.payload.len());
        let operate = Operate {
            conv,
            from: user,
            device,
            operation: match operation {
                topic::Operation::Recall => Operation::Recall,
                topic::Operation::Edit => Operation::Edit,
                topic::Operation::React => Operation::React,
            },
            seq,
            cid,
            properties: properties.without_ours.into_owned().into(),
            payload: bytes::Bytes::copy_from_slice(publish.payload),
            marker,
            asker,
        };
        self.im_say(location, slot, Command::Operate(Box::new(operate)), asker);
        Ok(())
    }

    fn im_signal(
        &mut self,
        location: Location,
        to: SignalTarget<'_>,
        kind: &str,
        incoming: Incoming<'_>,
    ) -> Result<(), Fault> {
        let Incoming { publish, properties, answer, user, .. } = incoming;
        if self.env.im.overload.sheds(Shed::Signals) {
            return self.im_refuse(location, answer, properties.cid, overloaded());
        }
        if !self.env.im.may_signal(self.now_ms, &user) {
            return self.im_refuse(location, answer, properties.cid, too_fast());
        }
        let conv = match to {
            SignalTarget::User(peer) => ConvKey::pair(&user.tenant, &user.id, peer),
            SignalTarget::Group(group) => ConvKey::group(&user.tenant, group),
            SignalTarget::Room(room) => {
                let payload = publish.payload;
                let done =
                    self.signal_to_room(location, room, kind, payload, &properties.without_ours);
                return self.im_judged(location, answer, properties.cid, done);
            }
        };
        let slot = conv.slot();
        let asker = self.im_owe(location, answer, ImOwed::default(), publish.payload.len());
        let signal = SendSignal {
            conv,
            from: user,
            location,
            kind: kind.into(),
            properties: properties.without_ours.into_owned().into(),
            payload: bytes::Bytes::copy_from_slice(publish.payload),
            asker,
        };
        self.im_say(location, slot, Command::Signal(Box::new(signal)), asker);
        Ok(())
    }

    /// What a device says goes to its shard, once the device has heard where it stands: a message
    /// moves its sender's cursors (ruling 22), and must not take what came before it from a device
    /// whose list is still being read.
    pub(super) fn im_say(
        &mut self,
        location: Location,
        slot: Slot,
        command: Command,
        asker: Asker,
    ) {
        let session = self.connection(location).and_then(Connection::session);
        match session.and_then(|session| session.im.as_mut()) {
            Some(im) if im.step.is_loading() => im.unsaid.push((slot, command, asker)),
            _ => self.im_judge(slot, command, asker),
        }
    }

    /// Content goes to its shard, by way of the content hook where there is one.
    pub(super) fn im_judge(&mut self, slot: Slot, command: Command, asker: Asker) {
        let hook = self.env.im.hook().filter(|_| is_asked_about(&command));
        let Some(hook) = hook else { return self.command(slot, command) };
        if hook.ask(command).is_err()
            && let Asker::Connection(reply) = asker
        {
            self.im_answered(reply, Outcome::Refused(overrun()));
        }
    }

    /// Owes an acknowledgement that waits for an answer.
    pub(super) fn im_owe(
        &mut self,
        location: Location,
        answer: Answer,
        im: ImOwed,
        bytes: usize,
    ) -> Asker {
        let owed = Owed { im: Some(Box::new(im)), bytes, ..Owed::from(answer) };
        let token = self.owe_with(location, 1, 0, owed);
        Asker::Connection(ReplyTo { location, token })
    }

    /// Acknowledges a publication that was judged here.
    fn im_judged(
        &mut self,
        location: Location,
        answer: Answer,
        cid: Option<&str>,
        judged: Result<(), Refusal>,
    ) -> Result<(), Fault> {
        match judged {
            Ok(()) => {
                self.owe(location, 0, 0, answer);
                Ok(())
            }
            Err(refusal) => self.im_refuse(location, answer, cid, refusal),
        }
    }

    /// The user sends more than it may.
    fn im_too_fast(
        &mut self,
        location: Location,
        answer: Answer,
        cid: Option<&str>,
    ) -> Result<(), Fault> {
        if self.may_be_submitted(location, &answer) {
            self.end_session(location, Cause::Fault(ReasonCode::MessageRateTooHigh));
            return Ok(());
        }
        self.im_refuse(location, answer, cid, too_fast())
    }

    /// Refuses a publication without asking anybody.
    pub(super) fn im_refuse(
        &mut self,
        location: Location,
        answer: Answer,
        cid: Option<&str>,
        refusal: Refusal,
    ) -> Result<(), Fault> {
        let owed = ImOwed { cid: cid.map(Arc::from), ..ImOwed::default() };
        let asker = self.im_owe(location, answer, owed, 0);
        if let Asker::Connection(reply) = asker {
            self.im_answered(reply, Outcome::Refused(refusal));
        }
        Ok(())
    }

    /// A shard has answered.
    pub(super) fn im_answered(&mut self, reply: ReplyTo, outcome: Outcome) {
        let ReplyTo { location, token } = reply;
        let Some(connection) = self.connection(location) else { return };
        if connection.leaving.is_some() {
            self.settle_leaving(location, token, ReasonCode::Success);
            return;
        }
        let outcome = match self.im_call_answered(reply, outcome) {
            Some(outcome) => outcome,
            None => return,
        };
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && let Some(owed) = session.answers.get_mut(token)
            && let Some(im) = &mut owed.im
        {
            im.result = Some(outcome);
        }
        self.settle(location, token, ReasonCode::Success);
    }

    /// The turn of an acknowledgement below `im/` has come.
    pub(in crate::connection) fn im_fulfil(
        &mut self,
        location: Location,
        answer: Answer,
        im: ImOwed,
    ) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let (version, problem_information) = (session.version, session.problem_information);
        let by_notice = told_by_notice(version, problem_information);
        let refusal = match &im.result {
            Some(Outcome::Refused(refusal)) => Some(refusal.clone()),
            _ => None,
        };
        let unavailable = refusal.as_ref().is_some_and(|r| r.word == Word::Unavailable);
        if unavailable && (version == Version::V311 || self.may_be_submitted(location, &answer)) {
            // Not to be taken for refused for ever: the client sends it again (ruling 12).
            let reason = ReasonCode::ServerUnavailable;
            self.end_session(location, Cause::Fault(reason));
            return;
        }
        let mut block = PropertyBlock::default();
        if let Some(Outcome::Sent { sent, repeated }) = &im.result {
            if by_notice {
                self.im_tell_sent(location, &im, sent);
            } else {
                sent_properties(&mut block, sent, *repeated);
            }
        }
        if matches!(im.result, Some(Outcome::Held)) && !by_notice {
            block.push("im-held", "1");
        }
        if let Some(refusal) = refusal.as_ref().filter(|_| by_notice) {
            self.im_tell_refused(location, &im, refusal);
        }
        let code = match (&refusal, version) {
            (Some(refusal), Version::V5) => refusal.code,
            _ => ReasonCode::Success,
        };
        let message = refusal.map(|refusal| refusal.message);
        let properties = AckProperties {
            reason_string: message.as_deref().filter(|_| !by_notice),
            user_properties: block.user_properties(),
        };
        self.im_acknowledge(location, version, answer, code, properties);
    }

    fn im_acknowledge(
        &mut self,
        location: Location,
        version: Version,
        answer: Answer,
        code: ReasonCode,
        properties: AckProperties<'_>,
    ) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        match answer {
            Answer::PubAck(id) => {
                session.incoming.end_qos1();
                let packet = Packet::PubAck(Ack { id, code, properties });
                self.send_packet(location, version, &packet);
            }
            Answer::PubRec(id) => {
                session.incoming.answer_qos2(id, code.is_error());
                let packet = Packet::PubRec(Ack { properties, ..ack(id, code) });
                self.send_packet(location, version, &packet);
            }
            _ => {}
        }
    }

    fn im_tell_sent(&mut self, location: Location, im: &ImOwed, sent: &Sent) {
        let session = self.connection(location).and_then(Connection::session);
        let Some(device) = session.and_then(|session| session.im.as_ref()) else { return };
        if let (Some(cid), Some(conv)) = (&im.cid, &im.conv) {
            let (kind, peer) = (conv.kind().letter(), conv.peer_of(&device.user.id));
            let Sent { seq, id, ts_ms } = sent;
            let mut topic = String::with_capacity(SENT_BYTES);
            // Writing into a text does not fail.
            let _ = write!(topic, "im/me/sys/sent/{cid}/{kind}/{peer}/{seq}/{id}/{ts_ms}");
            self.im_notice(location, &topic, b"");
        }
    }

    fn im_tell_refused(&mut self, location: Location, im: &ImOwed, refusal: &Refusal) {
        let cid = im.cid.as_deref().unwrap_or("-");
        let topic = format!("im/me/sys/err/{cid}/{}", refusal.code as u8);
        self.im_notice(location, &topic, refusal.message.as_bytes());
    }
}

/// Most topics of a `sent` notice have no more bytes.
const SENT_BYTES: usize = 160;

/// The user sends faster than may be (ruling 37).
fn sent_properties(block: &mut PropertyBlock, sent: &Sent, repeated: bool) {
    block.push("im-seq", &sent.seq.to_string());
    block.push("im-id", &sent.id.to_string());
    block.push("im-ts", &sent.ts_ms.to_string());
    if repeated {
        block.push("im-dup", "1");
    }
}
