//! Service calls of a device, and their answers (ruling 31).

use std::sync::Arc;

use bytes::Bytes;
use hoopoe_codec::{Fault, PropertyBlock, Publish, PublishProperties, QoS, Version};
use hoopoe_core::{Location, PublicationParts};
use hoopoe_im::overload::Shed;
use hoopoe_im::refusal::Refusal;
use hoopoe_im::service::query::Found;
use hoopoe_im::service::{Call, Caller, Op, parse};
use hoopoe_im::{Answer as Outcome, Command};
use hoopoe_store::command::ReplyTo;
use serde_json::Value;

use super::publish::ImOwed;
use crate::connection::Connection;
use crate::connection::session::{Answer, Origin, Outgoing};
use crate::connection::worker::Worker;
use crate::im::{complete, overloaded, too_fast};

/// Calls of one connection that may wait for their answer.
const MOST_CALLS: usize = 100;
/// What a device hears that does not take its answers.
const BEHIND: &str = "earlier answers wait for this device: take them before asking for more";
/// Where answers may go.
const ANSWERS: &str = "im/me/res/";

/// Where the answer to a call goes.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    /// To the Response Topic, with the Correlation Data.
    Topic(Arc<str>, Option<Bytes>),
    /// To `im/me/res/{req}/…`.
    Request(Arc<str>),
}

impl Worker {
    /// A PUBLISH on `im/svc/{service}/{op}[/{req}]`.
    pub(super) fn im_call(
        &mut self,
        location: Location,
        names: (&str, &str, Option<&str>),
        publish: &Publish<'_>,
        answer: Answer,
    ) -> Result<(), Fault> {
        let (service, op, req) = names;
        let name = op;
        let waiting = match (req, publish.properties.response_topic) {
            (Some(req), _) => Waiting::Request(req.into()),
            (None, Some(topic)) if topic.starts_with(ANSWERS) => {
                let correlation = publish.properties.correlation_data.map(Bytes::copy_from_slice);
                Waiting::Topic(topic.into(), correlation)
            }
            _ => {
                let text =
                    "a call needs a Response Topic below im/me/res/, or /{req} behind its topic";
                return self.im_refuse(location, answer, None, Refusal::bad_request(text));
            }
        };
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        let device = session.key.client.clone();
        let Some(im) = &session.im else { return Ok(()) };
        let user = im.user.clone();
        if im.calls.as_ref().is_some_and(|calls| calls.len() >= MOST_CALLS) {
            let refusal = Refusal::limit(format!("more than {MOST_CALLS} calls wait for answers"));
            return self.im_refuse(location, answer, None, refusal);
        }
        if self.im_is_behind(location) {
            return self.im_refuse(location, answer, None, Refusal::limit(BEHIND));
        }
        let parsed = parse(service, op, publish.payload);
        let asker = self.im_owe(location, answer, ImOwed::default(), publish.payload.len());
        let hoopoe_im::Asker::Connection(reply) = asker else { return Ok(()) };
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && let Some(im) = &mut session.im
        {
            im.calls.get_or_insert_default().insert(reply.token, waiting);
        }
        match parsed {
            Ok(mut op) => {
                if matches!(op, Op::SyncPull(_)) && self.env.im.overload.sheds(Shed::Pulls) {
                    self.im_answered(reply, Outcome::Refused(overloaded()));
                    return Ok(());
                }
                if !self.env.im.may_call(self.now_ms, &user, &op) {
                    self.im_answered(reply, Outcome::Refused(too_fast()));
                    return Ok(());
                }
                complete(&mut op);
                // What this device has acknowledged so far comes first.
                self.im_report_one(location);
                let caller = Caller { user, device, privileged: false };
                let call = Box::new(Call { caller, op, asker });
                let (env, now_ms) = (self.env.clone(), self.now_ms);
                if let Some(refused) =
                    self.im_call_elsewhere(&call, (service, name), publish.payload)
                {
                    if let Err(refusal) = refused {
                        self.im_answered(reply, Outcome::Refused(refusal));
                    }
                    return Ok(());
                }
                if let Some(answer) = env.im.call_room(&env.fabric, now_ms, &call) {
                    if let Some(answer) = answer {
                        self.im_answered(reply, answer);
                    }
                    return Ok(());
                }
                let slot = call.slot();
                let command =
                    if call.op.writes() { Command::Call(call) } else { Command::Read(call) };
                self.im_say(location, slot, command, asker);
            }
            Err(refusal) => self.im_answered(reply, Outcome::Refused(refusal)),
        }
        Ok(())
    }

    /// If the answer is one to a call, it is published; what is left for the acknowledgement of
    /// the request is plain success. Gives back the answers to everything else.
    pub(super) fn im_call_answered(&mut self, reply: ReplyTo, outcome: Outcome) -> Option<Outcome> {
        let Some(waiting) = self.im_take_call(reply) else { return Some(outcome) };
        let value = match outcome {
            Outcome::Value(value) => Ok(value),
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Done | Outcome::Held | Outcome::Sent { .. } => {
                Ok(Value::Object(Default::default()))
            }
        };
        let (status, value) = match value {
            Ok(value) => ("ok", value),
            Err(refusal) => (refusal.word.as_str(), refusal.to_json()),
        };
        self.im_respond(reply.location, &waiting, status, &value);
        Some(Outcome::Done)
    }

    fn im_take_call(&mut self, reply: ReplyTo) -> Option<Waiting> {
        let session = self.connection(reply.location).and_then(Connection::session)?;
        session.im.as_mut()?.calls.as_mut()?.remove(&reply.token)
    }

    /// A reader has answered a call.
    pub(super) fn im_found(&mut self, reply: ReplyTo, found: Result<Box<Found>, Refusal>) {
        let found = match found {
            Ok(found) => *found,
            Err(refusal) => {
                self.im_answered(reply, Outcome::Refused(refusal));
                return;
            }
        };
        let location = reply.location;
        let pulls = found.value.get("count").is_some() && found.value.get("conv").is_some();
        if !pulls {
            self.im_answered(reply, Outcome::Value(found.value));
            return;
        }
        if self.im_is_behind(location) {
            self.im_answered(reply, Outcome::Refused(Refusal::limit(BEHIND)));
            return;
        }
        if let Some(waiting) = self.im_take_call(reply) {
            self.im_pulled(location, &waiting, &found);
            self.im_respond(location, &waiting, "end", &found.value);
        }
        self.im_answered(reply, Outcome::Done);
    }

    /// Whether as much waits for the device as may wait for a session that is not stored. Asked
    /// before a call, as answers could be without number, and before a page, as each of the calls
    /// under way could bring a megabyte.
    fn im_is_behind(&mut self, location: Location) -> bool {
        let Some(connection) = self.connection(location) else { return false };
        let limits = connection.limits.clone();
        connection.session().is_some_and(|session| {
            session.backlog_bytes >= limits.backlog_bytes
                || session.backlog.len() >= limits.backlog_messages
        })
    }

    /// Pulled entries, one publication each.
    fn im_pulled(&mut self, location: Location, waiting: &Waiting, found: &Found) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let version = session.version;
        let Some(im) = &session.im else { return };
        let me = im.user.id.clone();
        let mut envelope = std::mem::take(&mut self.envelope);
        let topic = match waiting {
            Waiting::Topic(topic, _) => topic.clone(),
            Waiting::Request(req) => format!("{ANSWERS}{req}/m").into(),
        };
        for entry in &found.entries {
            match waiting {
                Waiting::Topic(_, correlation) => {
                    envelope.pulled_answer(entry, &me, &topic, correlation.as_deref());
                }
                Waiting::Request(_) => envelope.pulled(entry, &me, version, &topic),
            }
            self.im_publish_answer(location, envelope.parts(entry));
        }
        self.envelope = envelope;
    }

    /// Publishes an answer.
    fn im_respond(&mut self, location: Location, waiting: &Waiting, status: &str, value: &Value) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let version = session.version;
        let body = value.to_string();
        let (topic, properties): (String, Vec<u8>) = match waiting {
            Waiting::Request(req) => (format!("{ANSWERS}{req}/{status}"), Vec::new()),
            Waiting::Topic(topic, correlation) => {
                let block = PropertyBlock::default().with("im-status", status);
                let mut properties = PublishProperties::default();
                properties.correlation_data =
                    correlation.as_deref().filter(|_| version == Version::V5);
                properties.user_properties = block.user_properties();
                (topic.to_string(), properties.forwardable().into_owned())
            }
        };
        let parts = PublicationParts {
            topic: &topic,
            properties: &properties,
            payload: body.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at_ms: None,
        };
        self.im_publish_answer(location, parts);
    }

    fn im_publish_answer(&mut self, location: Location, parts: PublicationParts<'_>) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Some(im) = &session.im else { return };
        let (qos, identifiers) = im.terms(parts.topic, parts.qos);
        let parts = PublicationParts { qos, ..parts };
        if qos != QoS::AtMostOnce && self.send_now(location, parts, &identifiers, Origin::Transient)
        {
            return;
        }
        let outgoing = Outgoing {
            publication: Arc::new(parts.to_publication()),
            qos,
            retain: false,
            identifiers,
            origin: Origin::Transient,
            dup: false,
            again: None,
            entry: None,
        };
        self.send_or_wait(location, outgoing);
    }
}
