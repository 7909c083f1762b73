//! Publishing: a client's PUBLISH, a will, the broker's own topics.
//!
//! A publication that nothing durable depends on goes straight to its receivers. Any other goes
//! to the shards first; its acknowledgement, and the copies for receivers that are not stored,
//! leave when all of them have committed (the life of a PUBLISH in ARCHITECTURE.md).

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hoopoe_codec::{Fault, PacketId, Publish, QoS, ReasonCode, Version};
use hoopoe_core::index::topic_hash as hash;
use hoopoe_core::session::Received;
use hoopoe_core::{
    Location, PacketIdent, Publication, PublicationParts, SessionId, SessionKey, Slot,
};
use hoopoe_store::command::{self, ReplyTo};
use hoopoe_store::effect::StoredSession;
use hoopoe_store::{Command, command::Receiver};
use smallvec::SmallVec;

use super::closing::Cause;
use super::inbound::reaches_receivers;
use super::message::Message;
use super::plan::Plan;
use super::session::{Answer, Owed};
use super::worker::Worker;
use super::{Connection, Limits};
use crate::access::Action;
use crate::fabric::{Delivery, Mail, ShardMail};
use crate::im::sites::is_site_tree;

/// Why a publication is refused: the code, and words for people.
type Refusal = (ReasonCode, &'static str);

/// Topics whose permission a session remembers.
const REMEMBERED_TOPICS: usize = 16;

/// A publication of the broker itself on its way through the shards.
pub(super) struct InternalSubmit {
    commits: u8,
    publication: Arc<Publication>,
    plan: Rc<Plan>,
    outbox: Option<(usize, u64)>,
    failed: bool,
}

/// Who publishes, as shards and receivers need to know.
#[derive(Clone, Copy, Default)]
struct Origin {
    subscriber: u64,
    marker: Option<PacketIdent>,
    outbox: Option<u64>,
}

impl Worker {
    /// A client's PUBLISH.
    pub(super) fn publish_arrived(
        &mut self,
        location: Location,
        publish: &Publish<'_>,
    ) -> Result<(), Fault> {
        self.counters.publish_in(publish.qos);
        self.counters.payload_bytes_in.add(publish.payload.len() as u64);
        let now_ms = self.now_ms;
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        if let Some(rate) = &mut session.rate
            && !rate.take(publish.payload.len() + publish.topic.len(), now_ms)
        {
            self.end_session(location, Cause::Fault(ReasonCode::MessageRateTooHigh));
            return Ok(());
        }
        let topic = self.resolve_topic(location, publish)?;
        let topic = topic.as_deref().unwrap_or(publish.topic);
        if let Some(connection) = self.connection(location) {
            check_publish(&connection.limits, publish, topic)?;
        }
        let Some((answer, again)) = self.begin(location, publish)? else { return Ok(()) };
        if hoopoe_im::is_reserved(topic) {
            return self.im_publish(location, topic, publish, answer);
        }
        if is_site_tree(topic) {
            self.site_publish(location, topic, publish, answer);
            return Ok(());
        }
        if let Some(refusal) = self.may_publish(location, topic) {
            match again {
                // It was allowed then, and is stored as far as it came.
                true => _ = self.owe(location, 0, 0, answer),
                false => self.refuse_publish(location, answer, refusal),
            }
            return Ok(());
        }
        let session = self.connection(location).and_then(Connection::session);
        let via = session.map(|session| session.via.clone()).filter(|via| !via.is_empty());
        let session = self.connection(location).and_then(Connection::session);
        let space = session.and_then(|session| session.space.clone());
        let spaced = space.map(|space| [&*space, topic].concat());
        let topic = spaced.as_deref().unwrap_or(topic);
        let properties = publish.properties.forwardable();
        let expiry = publish.properties.message_expiry_secs;
        let parts = PublicationParts {
            topic,
            properties: via.as_deref().map_or(&properties, Vec::as_slice),
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expires_at_ms: expiry.map(|secs| now_ms + u64::from(secs) * 1000),
        };
        self.submit(location, parts, answer, again);
        Ok(())
    }

    /// The topic behind an alias; `None` when the packet names it ([MQTT-3.3.2-8]).
    fn resolve_topic(
        &mut self,
        location: Location,
        publish: &Publish<'_>,
    ) -> Result<Option<String>, Fault> {
        let Some(alias) = publish.properties.topic_alias else { return Ok(None) };
        let Some(connection) = self.connection(location) else { return Ok(None) };
        if alias > connection.limits.topic_alias_maximum {
            return Err(Fault {
                reason: ReasonCode::TopicAliasInvalid,
                what: "PUBLISH: topic alias above the maximum [MQTT-3.3.2-9]",
            });
        }
        let Some(session) = connection.session() else { return Ok(None) };
        let aliases = session.inbound_aliases.get_or_insert_default();
        if !publish.topic.is_empty() {
            aliases.set(alias, publish.topic);
            return Ok(None);
        }
        aliases.topic(alias).map(|topic| Some(topic.to_owned())).ok_or(Fault {
            reason: ReasonCode::ProtocolError,
            what: "PUBLISH: topic alias that was never set [MQTT-3.3.2-8]",
        })
    }

    /// Starts the exchange; gives the answer and whether a shard has the publication already, so that
    /// it must not be refused here: the client would use its identifier for another. `None` when a
    /// repeated QoS 2 PUBLISH needs no submit.
    fn begin(
        &mut self,
        location: Location,
        publish: &Publish<'_>,
    ) -> Result<Option<(Answer, bool)>, Fault> {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(None);
        };
        let too_many = Fault {
            reason: ReasonCode::ReceiveMaximumExceeded,
            what: "PUBLISH: more unfinished than Receive Maximum [MQTT-3.3.4-7]",
        };
        let Some(id) = publish.id else { return Ok(Some((Answer::Nothing, false))) };
        if publish.qos == QoS::AtLeastOnce {
            return if session.incoming.begin_qos1() {
                Ok(Some((Answer::PubAck(id), false)))
            } else {
                Err(too_many)
            };
        }
        match session.incoming.begin_qos2(id, publish.dup).ok_or(too_many)? {
            Received::New => Ok(Some((Answer::PubRec(id), false))),
            Received::Again => Ok(Some((Answer::PubRec(id), true))),
            Received::Pending => Ok(None),
            Received::Known => {
                self.owe(location, 0, 0, Answer::PubRec(id));
                Ok(None)
            }
        }
    }

    /// Why the client may not publish to the topic, if so.
    fn may_publish(&mut self, location: Location, topic: &str) -> Option<Refusal> {
        let Worker { connections, env, .. } = self;
        let generation = env.access.generation();
        let connection = connections.get_mut(location.place());
        let session = connection.filter(|c| c.location == location)?.session()?;
        if session.allowed_at != generation {
            session.allowed.clear();
            session.allowed_at = generation;
        }
        let hash = hash(topic);
        if session.allowed.contains(&hash) {
            return None;
        }
        if topic.starts_with('$') {
            return Some((ReasonCode::NotAuthorized, "topics that begin with $ are the broker's"));
        }
        let client = &session.key.client;
        if !env.access.allows(&session.identity, client, Action::Publish, topic) {
            return Some((ReasonCode::NotAuthorized, "no rule allows publishing to this topic"));
        }
        if session.allowed.len() >= REMEMBERED_TOPICS {
            session.allowed.remove(0);
        }
        session.allowed.push(hash);
        None
    }

    /// v5 hears the code; 3.1.1 gets a plain acknowledgement, as the standard allows it to be
    /// told in no other way but by closing ([MQTT-3.3.5-2]).
    pub(super) fn refuse_publish(&mut self, location: Location, answer: Answer, refusal: Refusal) {
        let (code, reason) = refusal;
        self.counters.refused_publications.add(1);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let code = if session.version == Version::V5 { code } else { ReasonCode::Success };
        if code.is_error() && !matches!(answer, Answer::Nothing) {
            let owed = Owed { reason: Some(reason), ..Owed::from(answer) };
            let token = self.owe_with(location, 1, 0, owed);
            self.settle(location, token, code);
        } else {
            self.owe(location, 0, 0, answer);
        }
    }

    /// One commit of an answer owed is done.
    pub(super) fn settle(&mut self, location: Location, token: u64, code: ReasonCode) {
        if let Some(session) = self.connection(location).and_then(Connection::session)
            && session.answers.settle(token, code)
        {
            self.answer_ready(location);
        }
    }

    fn submit(
        &mut self,
        location: Location,
        parts: PublicationParts<'_>,
        answer: Answer,
        again: bool,
    ) {
        let topic_hash = hash(parts.topic);
        if parts.retain {
            self.env.retained.published(topic_hash);
        }
        let plan = self.plans.get(&self.env.fabric.index, parts.topic, topic_hash);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let publisher = session.route.subscriber;
        let marker = match (&answer, session.route.session()) {
            (Answer::PubRec(id), Some(session)) => Some(PacketIdent { session, id: id.get() }),
            _ => None,
        };
        let waits = session.answers.holds_topic(topic_hash);
        if !needs_commit(&parts, &plan, marker) {
            if waits {
                let publication = Arc::new(parts.to_publication());
                let bytes = publication.bytes().len();
                let publish = Some((publication, plan));
                let owed = Owed { publish, bytes, ..Owed::from(answer) };
                self.owe_with(location, 0, topic_hash, owed);
                return;
            }
            if !plan.is_empty() {
                self.fan_out(parts, &plan, publisher);
            }
            self.owe(location, 0, 0, answer);
            return;
        }
        if !again && self.queue_is_full(&plan, parts.qos) {
            self.counters.refused_publications.add(1);
            let reason = Some("a receiver's queue is full");
            let owed = Owed { reason, ..Owed::from(answer) };
            let token = self.owe_with(location, 1, 0, owed);
            self.settle(location, token, ReasonCode::QuotaExceeded);
            return;
        }
        let publication = Arc::new(parts.to_publication());
        let origin = Origin { subscriber: publisher, marker, outbox: None };
        let commands = self.commands(&publication, &plan, origin);
        let bytes = publication.bytes().len();
        let owed = Owed { publish: Some((publication, plan)), bytes, ..Owed::from(answer) };
        let commits = commands.len() as u8;
        let token = self.owe_with(location, commits, topic_hash, owed);
        self.send_commands(commands, ReplyTo { location, token });
    }

    /// With the `refuse` policy: a receiver's queue takes no more (ruling 13).
    fn queue_is_full(&self, plan: &Plan, qos: QoS) -> bool {
        let most = match self.env.refuse_at_messages {
            0 => u64::MAX,
            most => most,
        };
        qos > QoS::AtMostOnce
            && plan.stored.iter().any(|stored| {
                let most = match stored.route.limits() {
                    Some(limits) if limits.refuse => limits.messages,
                    Some(_) => u64::MAX,
                    None => most,
                };
                stored.route.queued() >= most
            })
    }

    /// One command per shard that takes part.
    fn commands(
        &self,
        publication: &Arc<Publication>,
        plan: &Plan,
        origin: Origin,
    ) -> SmallVec<[(usize, Box<command::Publish>); 4]> {
        let fabric = &self.env.fabric;
        let mut commands: SmallVec<[(usize, Box<command::Publish>); 4]> = SmallVec::new();
        let mut for_shard = |slot: Slot, add: &mut dyn FnMut(&mut command::Publish)| {
            let shard = fabric.shard_of(slot);
            let at = commands.iter().position(|(at, _)| *at == shard).unwrap_or_else(|| {
                let command = command::Publish {
                    publication: publication.clone(),
                    receivers: Vec::new(),
                    groups: Vec::new(),
                    retain: false,
                    marker: origin.marker,
                    outbox: origin.outbox,
                    reply: None,
                };
                commands.push((shard, Box::new(command)));
                commands.len() - 1
            });
            add(&mut commands[at].1);
        };
        for stored in &plan.stored {
            let Some(terms) = stored.receiver.terms_for(origin.subscriber) else { continue };
            let qos = publication.qos.min(terms.qos);
            if qos > QoS::AtMostOnce {
                for_shard(stored.session.slot(), &mut |command| {
                    command.receivers.push(Receiver {
                        session: stored.session,
                        qos,
                        retain: publication.retain && terms.retain_as_published,
                        identifiers: terms.identifiers.clone(),
                    });
                });
            }
        }
        for group in &plan.groups {
            for_shard(group.slot(), &mut |command| command.groups.push(*group));
        }
        if publication.retain {
            let slot = Slot::of(publication.topic().as_bytes());
            for_shard(slot, &mut |command| command.retain = true);
        }
        if let Some(marker) = origin.marker {
            for_shard(marker.session.slot(), &mut |_| {});
        }
        commands
    }

    fn send_commands(
        &mut self,
        commands: SmallVec<[(usize, Box<command::Publish>); 4]>,
        reply: ReplyTo,
    ) {
        for (shard, mut command) in commands {
            if command.retain {
                self.env.retained.under_way.fetch_add(1, Ordering::AcqRel);
            }
            command.reply = Some(reply);
            self.turn.to_shards[shard].push(Command::Publish(command).into());
        }
    }

    /// Puts a command on its way to the shard that owns the slot.
    pub(super) fn command(&mut self, slot: Slot, command: impl Into<ShardMail>) {
        let shard = self.env.fabric.shard_of(slot);
        self.turn.to_shards[shard].push(command.into());
    }

    /// PUBREL of a stored publisher: the marker goes from every shard that may hold it.
    pub(super) fn release_marker(
        &mut self,
        location: Location,
        session: SessionId,
        id: PacketId,
        answer: Answer,
    ) {
        let shards = self.turn.to_shards.len();
        let token = self.owe(location, shards as u8, 0, answer);
        for batch in &mut self.turn.to_shards {
            batch.push(
                Command::Release {
                    marker: PacketIdent { session, id: id.get() },
                    reply: ReplyTo { location, token },
                }
                .into(),
            );
        }
    }

    /// The broker that a link leads to has forgotten which of its publications it had not finished:
    /// it will use their identifiers for new ones, which must not be taken for repetitions.
    pub(super) fn forget_incoming(&mut self, location: Location, stored: &mut StoredSession) {
        stored.answered.clear();
        for id in std::mem::take(&mut stored.markers) {
            if let Some(id) = PacketId::new(id) {
                self.release_marker(location, stored.id, id, Answer::Forgotten);
            }
        }
    }

    /// Copies a publication to receivers that are not served by a shard.
    pub(super) fn fan_out(&mut self, parts: PublicationParts<'_>, plan: &Plan, publisher: u64) {
        let mut frames = std::mem::take(&mut self.frames);
        let mut message = Message::borrowed(parts, &mut frames, self.now_ms);
        self.fan_out_message(&mut message, plan, publisher);
        self.frames = frames;
    }

    /// As [`fan_out`](Self::fan_out), for a publication that is shared already.
    pub(super) fn fan_out_shared(
        &mut self,
        publication: &Arc<Publication>,
        plan: &Plan,
        publisher: u64,
    ) {
        let mut frames = std::mem::take(&mut self.frames);
        let mut message = Message::shared(publication, &mut frames, self.now_ms);
        self.fan_out_message(&mut message, plan, publisher);
        self.frames = frames;
    }

    fn fan_out_message(&mut self, message: &mut Message<'_>, plan: &Plan, publisher: u64) {
        self.deliver_all(message, &plan.local, publisher);
        for (worker, receivers) in &plan.remote {
            let delivery = Delivery {
                publication: message.publication(),
                receivers: receivers.clone(),
                publisher,
            };
            self.turn.to_workers[*worker].push(Mail::Deliver(delivery));
        }
        if plan.stored.is_empty() {
            return;
        }
        // Copies at QoS 0 are not stored: they go to whoever is connected.
        for stored in &plan.stored {
            let location = stored.route.location();
            let at_most_once = |qos: QoS| qos.min(message.parts.qos) == QoS::AtMostOnce;
            let Some(terms) = stored.receiver.terms_for(publisher) else { continue };
            if location == Location::NOWHERE || !at_most_once(terms.qos) {
                continue;
            }
            let mut receiver = stored.receiver.clone();
            receiver.location = location;
            if location.worker() == self.number {
                self.deliver_all(message, &[receiver], publisher);
            } else {
                let delivery = Delivery {
                    publication: message.publication(),
                    receivers: [receiver].into(),
                    publisher,
                };
                self.turn.to_workers[location.worker()].push(Mail::Deliver(delivery));
            }
        }
    }

    /// Publishes for the broker itself: a will, or an outbox entry.
    pub(super) fn publish_internal(
        &mut self,
        key: &SessionKey,
        publication: Arc<Publication>,
        outbox: Option<(usize, u64)>,
    ) {
        tracing::debug!(client = %key, "publishing a will");
        let hash = hash(publication.topic());
        if publication.retain {
            self.env.retained.published(hash);
        }
        let plan = self.plans.get(&self.env.fabric.index, publication.topic(), hash);
        let stored = outbox.map(|(_, number)| number).filter(|&number| number != 0);
        let origin = Origin { outbox: stored, ..Origin::default() };
        let commands = if needs_commit(&publication.parts(), &plan, None) {
            self.commands(&publication, &plan, origin)
        } else {
            SmallVec::new()
        };
        let commits = commands.len() as u8;
        let submit = InternalSubmit { commits, publication, plan, outbox, failed: false };
        if commits == 0 {
            self.internal_done(submit);
            return;
        }
        self.next_internal += 1;
        let token = self.next_internal;
        self.internal.insert(token, submit);
        let location = self.internal_location();
        self.send_commands(commands, ReplyTo { location, token });
    }

    /// The place that the broker's own publications are answered to.
    fn internal_location(&self) -> Location {
        Location::new(self.number as u8, 1, u32::MAX)
    }

    /// A commit for one of the broker's own publications; false when it is none of them.
    pub(super) fn internal_committed(&mut self, reply: ReplyTo, code: ReasonCode) -> bool {
        if reply.location != self.internal_location() {
            return false;
        }
        if let Some(submit) = self.internal.get_mut(&reply.token) {
            submit.commits -= 1;
            submit.failed |= !reaches_receivers(code);
            if submit.commits == 0
                && let Some(submit) = self.internal.remove(&reply.token)
            {
                self.internal_done(submit);
            }
        }
        true
    }

    fn internal_done(&mut self, submit: InternalSubmit) {
        if submit.failed {
            // The outbox entry stays and is carried out again at the next start.
            tracing::warn!("a will could not be committed");
            return;
        }
        self.fan_out_shared(&submit.publication, &submit.plan, 0);
        if let Some((shard, outbox)) = submit.outbox.filter(|(_, outbox)| *outbox != 0) {
            self.turn.to_shards[shard].push(Command::OutboxDone { outbox }.into());
        }
    }
}

/// Server limits that CONNACK announced.
fn check_publish(limits: &Limits, publish: &Publish<'_>, topic: &str) -> Result<(), Fault> {
    if publish.qos > limits.max_qos {
        return Err(Fault {
            reason: ReasonCode::QoSNotSupported,
            what: "PUBLISH: QoS above Maximum QoS [MQTT-3.2.2-11]",
        });
    }
    if publish.retain && !limits.retain_available {
        return Err(Fault {
            reason: ReasonCode::RetainNotSupported,
            what: "PUBLISH: RETAIN is not available here [MQTT-3.2.2-14]",
        });
    }
    if topic.len() > limits.max_topic_bytes
        || topic.bytes().filter(|&b| b == b'/').count() >= limits.max_topic_levels
    {
        return Err(Fault {
            reason: ReasonCode::TopicNameInvalid,
            what: "PUBLISH: topic name too long or with too many levels",
        });
    }
    Ok(())
}

/// Whether something durable depends on the publication.
fn needs_commit(parts: &PublicationParts<'_>, plan: &Plan, marker: Option<PacketIdent>) -> bool {
    let stored = plan.stored_qos.is_some_and(|granted| granted.min(parts.qos) > QoS::AtMostOnce);
    stored || parts.retain || marker.is_some() || !plan.groups.is_empty()
}
