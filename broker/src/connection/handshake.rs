//! Letting a client in: CONNECT is checked, the client authenticated, its session fetched from the
//! user's shard, CONNACK sent. Until then nothing else of the client is worked on.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use hoopoe_bridge::{BROKER_ID, INCOMING};
use hoopoe_codec::{
    ConnAck, ConnAckProperties, Connect, Fault, Packet, PropertyBlock, QoS, ReasonCode, Version,
    Will,
};
use hoopoe_core::session::{Answers, Feed, Incoming, OutboundAliases, Window, window};
use hoopoe_core::{Location, PublicationParts, Route, SessionKey};
use hoopoe_im::overload::Shed;
use hoopoe_store::Command;
use hoopoe_store::command::{
    Close, CloseCause, GroupCommand, InFlight, Open, Phase as Exchange, Progress, ReplyTo, Source,
    StoredWill,
};
use hoopoe_store::effect::{Opened, StoredSession};

use super::closing::Cause;
use super::im::is_im_user;
use super::rate::Rate;
use super::session::{Origin, Session, Stored, Subscriptions};
use super::subscribe::memberships;
use super::worker::{Worker, keep_alive_limit};
use super::{Limits, Newcomer, Phase};
use crate::access::tenant::space_of;
use crate::access::{Action, Credentials, Identity, Login, LoginMethod, PasswordTicket};
use crate::bridges::passed_by;
use crate::fabric::{Mail, ShardMail};
use crate::shard::ReadJob;

/// Subscriber numbers of sessions that end with their connection have this bit; those of stored
/// sessions are their ids: a slot, and below it a number from 1 on that does not reach it.
const TRANSIENT_BIT: u64 = 1 << 51;

impl Worker {
    /// The first packet: CONNECT.
    pub(super) fn connect(&mut self, location: Location, connect: &Connect<'_>) {
        self.counters.connects.add(1);
        let version = connect.version;
        if self.stopping {
            // 0x8B has no place in a CONNACK.
            self.refuse(location, version, ReasonCode::ServerUnavailable);
            return;
        }
        let Some(connection) = self.connection(location) else { return };
        let offers_im = connection.listener.im;
        if offers_im && self.env.im.overload.sheds(Shed::Logins) {
            self.refuse(location, version, ReasonCode::ServerBusy);
            return;
        }
        let Some(connection) = self.connection(location) else { return };
        let newcomer = match newcomer(connect, &connection.limits) {
            Ok(newcomer) => newcomer,
            Err(code) => {
                self.refuse(location, version, code);
                return;
            }
        };
        let Some(connection) = self.connection(location) else { return };
        let own_link = connection.listener.bridge.is_some();
        if !own_link && newcomer.client_id.starts_with(hoopoe_bridge::LOCAL_PREFIX) {
            self.refuse(location, version, ReasonCode::ClientIdentifierNotValid);
            return;
        }
        let door = **connection.listener.door.load();
        let certificate_user = connection.certificate_user();
        let client_id = newcomer.client_id.clone();
        connection.phase = Phase::Checking(Box::new(newcomer));
        connection.paused = true;
        if own_link {
            let name = connect.username.unwrap_or_default();
            return self.logged_in(location, Ok(Identity::new(name, LoginMethod::Bridge)));
        }
        let credentials = Credentials {
            user: connect.username,
            password: connect.password,
            certificate_user: certificate_user.as_deref(),
            client_id: &client_id,
        };
        match self.env.access.authenticator().check(credentials, door) {
            Login::Accepted(identity) => self.logged_in(location, Ok(identity)),
            Login::Refused(code) => self.logged_in(location, Err(code)),
            Login::Pending(job) => {
                let mailbox = self.env.fabric.workers[self.number].clone();
                let done = move |login| mailbox.put(Mail::LoggedIn { location, login });
                match job.submit(Box::new(done)) {
                    Ok(ticket) => self.hold_ticket(location, ticket),
                    Err(code) => self.logged_in(location, Err(code)),
                }
            }
        }
    }

    fn hold_ticket(&mut self, location: Location, ticket: PasswordTicket) {
        if let Some(connection) = self.connection(location)
            && let Phase::Checking(newcomer) = &mut connection.phase
        {
            newcomer.ticket = Some(ticket);
        }
    }

    /// The client is authenticated, or not.
    pub(super) fn logged_in(&mut self, location: Location, login: Result<Identity, ReasonCode>) {
        let access = self.env.access.clone();
        let Some(connection) = self.connection(location) else { return };
        let Phase::Checking(mut newcomer) = std::mem::replace(&mut connection.phase, Phase::Ended)
        else {
            return;
        };
        let version = newcomer.version;
        let identity = match login {
            Ok(identity) => identity,
            Err(code) => {
                connection.phase = Phase::Checking(newcomer);
                self.refuse(location, version, code);
                return;
            }
        };
        if let Some(will) = &newcomer.will {
            let topic = will.publication.topic();
            if topic.starts_with('$')
                || !access.allows(&identity, &newcomer.client_id, Action::Publish, topic)
            {
                connection.phase = Phase::Checking(newcomer);
                self.refuse(location, version, ReasonCode::NotAuthorized);
                return;
            }
        }
        let broker_id = self.env.broker_id.clone();
        let Some(connection) = self.connection(location) else { return };
        if connack(&newcomer, false, &connection.limits, &broker_id).is_none() {
            // [MQTT-3.1.2-24]; the client is refused before its session is touched.
            connection.phase = Phase::Checking(newcomer);
            self.refuse(location, version, ReasonCode::PacketTooLarge);
            return;
        }
        if let (Some(space), Some(will)) = (space_of(&identity.tenant), &mut newcomer.will) {
            let topic = [&*space, will.publication.topic()].concat();
            let parts = PublicationParts { topic: &topic, ..will.publication.parts() };
            will.publication = parts.to_publication();
        }
        let is_user = is_im_user(&identity, &newcomer.client_id, connection.listener.im);
        let (tenant, user) = (identity.tenant.clone(), identity.user.clone());
        let key = SessionKey::new(tenant, user, newcomer.client_id.clone());
        let open = Open {
            clean_start: newcomer.clean_start,
            expiry_secs: newcomer.expiry_secs,
            will: newcomer.will.clone().filter(|_| newcomer.expiry_secs > 0),
            reply: ReplyTo { location, token: 0 },
            key,
        };
        let token_since_ms = identity.token_since_ms;
        newcomer.identity = Some(identity);
        newcomer.ticket = None;
        connection.phase = Phase::Opening(newcomer);
        let slot = open.key.slot();
        self.opening += 1;
        let open = Box::new(open);
        if is_user {
            self.command(slot, ShardMail::Enter { open, token_since_ms });
        } else {
            self.command(slot, Command::Open(open));
        }
    }

    /// The shard has found or made the session.
    pub(super) fn opened(&mut self, opened: Opened) {
        self.opening -= 1;
        let location = opened.reply.location;
        let (now_ms, stopping) = (self.now_ms, self.stopping);
        let env = self.env.clone();
        let next_subscriber =
            || TRANSIENT_BIT | env.subscribers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let waiting = self.connections.get_mut(location.place());
        let waiting = waiting.filter(|c| c.location == location);
        let Some(connection) = waiting else {
            self.hand_back(&opened);
            return;
        };
        if !matches!(connection.phase, Phase::Opening(_)) {
            self.hand_back(&opened);
            return;
        }
        let Phase::Opening(newcomer) = std::mem::replace(&mut connection.phase, Phase::Ended)
        else {
            return;
        };
        let limits = connection.limits.clone();
        let connack = if opened.code.is_error() {
            Err(opened.code)
        } else if stopping || connection.socket.is_none() {
            // 0x8B has no place in a CONNACK.
            Err(ReasonCode::ServerUnavailable)
        } else {
            // [MQTT-3.1.2-24] may leave no room to let this client in.
            let connack = connack(&newcomer, opened.session_present, &limits, &env.broker_id);
            connack.ok_or(ReasonCode::PacketTooLarge)
        };
        let connack = match connack {
            Ok(connack) => connack,
            Err(code) => {
                let version = newcomer.version;
                connection.phase = Phase::Checking(newcomer);
                self.hand_back(&opened);
                self.refuse(location, version, code);
                return;
            }
        };
        let seat = connection.listener.bridge.clone();
        let route = match &opened.session {
            Some(stored) => stored.route.clone(),
            None => Arc::new(Route::transient(next_subscriber(), location)),
        };
        route.move_to(location);
        if let Some(seat) = &seat {
            seat.take(&route);
        }
        let session = new_session(&newcomer, route, &opened, &limits, now_ms);
        connection.keep_alive_secs = keep_alive(newcomer.keep_alive_secs, &limits);
        connection.phase = Phase::Active(Box::new(session));
        let keep_alive_secs = connection.keep_alive_secs;
        self.counters.sessions.add(1);
        self.counters.stored_sessions.add(u64::from(opened.session.is_some()));
        self.send(location, |out| out.extend_from_slice(&connack));
        if keep_alive_secs > 0 {
            let at = self.now_secs + keep_alive_limit(keep_alive_secs);
            self.wheel.schedule(location, at);
        }
        self.im_attach(location, opened.session_present, newcomer.heads_only);
        if let Some(mut stored) = opened.session {
            if seat.is_some() && newcomer.incoming_anew {
                self.forget_incoming(location, &mut stored);
            }
            self.restore(location, stored);
        }
        self.resume(location);
    }

    /// A session came for a connection that is gone: it goes straight back.
    fn hand_back(&mut self, opened: &Opened) {
        if opened.code.is_error() {
            return;
        }
        let stored = opened.session.as_ref();
        let close = Close {
            key: opened.key.clone(),
            location: opened.reply.location,
            epoch: opened.epoch,
            cause: CloseCause::Abnormal,
            expiry_secs: None,
            progress: stored.map(|stored| Progress {
                session: stored.id,
                epoch: opened.epoch,
                acknowledged: stored.acknowledged,
                weight: stored.weight,
                sent: stored.sent,
            }),
            window: stored.map(|stored| stored.window.clone()).unwrap_or_default(),
            done: stored.map(|stored| stored.done.clone()).unwrap_or_default(),
            answered: stored.map(|stored| stored.answered.clone()).unwrap_or_default(),
            told: None,
        };
        let slot = close.key.slot();
        self.command(slot, Command::Close(Box::new(close)));
    }

    /// Brings a stored session's delivery back to where it stood.
    fn restore(&mut self, location: Location, stored: StoredSession) {
        let env = self.env.clone();
        let Some(session) = self.connection(location).and_then(|c| c.session()) else { return };
        let (version, route) = (session.version, session.route.clone());
        for subscription in &stored.subscriptions {
            session.subscriptions.put(&subscription.filter);
        }
        let shared = memberships(&env, &stored, &route, location);
        let mut released = Vec::new();
        let mut resend = Vec::new();
        let (mut ahead, mut entries, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for message in &stored.window {
            let Some(message) = restored(message, stored.next) else { continue };
            if let Origin::Kept { tag, seq } = message.source {
                let Some(im) = &mut session.im else { continue };
                im.keep_exchange(tag, seq, message.id);
            }
            session.window.restore(message);
            if let (Origin::Group { group, seq }, QoS::ExactlyOnce) = (message.source, message.qos)
            {
                kept.push((group, seq));
            }
            if message.released {
                released.push(message.id);
            }
            match message.source {
                Origin::Queue { seq, .. } if !message.released => resend.push((seq, message.id)),
                Origin::Ahead { seq } => ahead.push((seq, message.id)),
                Origin::Group { group, seq } if !message.released => {
                    let member = shared.iter().find(|(of, _)| *of == group);
                    let options = member.map(|(_, member)| member.options).unwrap_or_default();
                    entries.push(ReadJob::Entry {
                        location,
                        group,
                        seq,
                        retain_as_published: options.retain_as_published,
                        identifier: member.map_or(0, |(_, member)| member.identifier),
                    });
                }
                _ => {}
            }
        }
        resend.sort_unstable();
        let first = resend.first().map_or(stored.next, |(seq, _)| (*seq).min(stored.next));
        let feed = Feed::new(
            stored.acknowledged,
            stored.weight,
            first,
            stored.sent.max(stored.next.saturating_sub(1)),
            stored.head,
        );
        session.incoming.restore(&stored.markers, &stored.answered);
        let inbox: Vec<_> = stored
            .subscriptions
            .iter()
            .filter(|subscription| hoopoe_im::is_reserved(&subscription.filter))
            .map(|own| (Box::from(&*own.filter), own.options, own.identifier))
            .collect();
        let Some(session) = self.connection(location).and_then(|c| c.session()) else { return };
        session.stored = Some(Box::new(Stored {
            id: stored.id,
            feed,
            page: Default::default(),
            resend: resend.into(),
            resend_end: stored.next,
            ahead,
            done: stored.done,
            steps: Answers::default(),
            steps_bytes: 0,
            progressed: false,
        }));
        self.im_restore_filters(location, inbox);
        for id in released {
            // [MQTT-4.4.0-1]: an unanswered PUBREL is sent again.
            let pubrel = super::inbound::ack(id, ReasonCode::Success);
            self.send_packet(location, version, &Packet::PubRel(pubrel));
        }
        self.turn.to_readers.append(&mut entries);
        for (group, member) in shared {
            let keeps = kept.iter().filter(|(of, _)| *of == group).map(|(_, seq)| *seq).collect();
            let online = GroupCommand::Online { group, member, keeps };
            self.command(group.slot(), Command::Group(Box::new(online)));
        }
        self.read_on(location);
    }

    /// CONNACK with an error, then the end.
    pub(super) fn refuse(&mut self, location: Location, version: Version, code: ReasonCode) {
        self.counters.refused_connects.add(1);
        if let Some(connection) = self.connection(location) {
            let (peer, client) = (connection.peer, connection.label());
            tracing::debug!(%peer, client, ?code, "connect refused");
        }
        let connack = ConnAck { session_present: false, code, properties: Default::default() };
        self.send_packet(location, version, &Packet::ConnAck(connack));
        self.finish(location);
    }

    /// A first packet that could not be read. The version is unknown or not to be trusted: only
    /// an unsupported protocol is answered ([MQTT-3.1.2-2]), in the form that its level knows.
    pub(super) fn refuse_unread(&mut self, location: Location, frame: &[u8], fault: Fault) {
        if fault.reason == ReasonCode::UnsupportedProtocolVersion {
            let version =
                if protocol_level(frame) >= Some(5) { Version::V5 } else { Version::V311 };
            self.refuse(location, version, fault.reason);
        } else {
            self.counters.refused_connects.add(1);
            self.socket_ended(location, Some(fault.into()));
        }
    }

    /// After a reload of users: who may no longer be here is told to go.
    pub(super) fn check_logins(&mut self) {
        let generation = self.env.access.generation();
        if generation == self.access_generation {
            return;
        }
        self.access_generation = generation;
        let access = self.env.access.clone();
        let unwelcome = self.connections.iter().filter_map(|(_, connection)| {
            let Phase::Active(session) = &connection.phase else { return None };
            let door = **connection.listener.door.load();
            let good = access.authenticator().still_good(&session.identity, door);
            (!good).then_some(connection.location)
        });
        for location in unwelcome.collect::<Vec<_>>() {
            self.end_session(location, Cause::Fault(ReasonCode::NotAuthorized));
        }
    }
}

/// What CONNECT asks for, within the limits; or the reason to refuse it.
fn newcomer(connect: &Connect<'_>, limits: &Limits) -> Result<Newcomer, ReasonCode> {
    let properties = &connect.properties;
    if properties.authentication_method.is_some() {
        // No method is offered ([MQTT-4.12.0-1]).
        return Err(ReasonCode::BadAuthenticationMethod);
    }
    if connect.client_id.len() > limits.max_client_id_bytes {
        return Err(ReasonCode::ClientIdentifierNotValid);
    }
    let assigned_id = connect.client_id.is_empty();
    if assigned_id && connect.version == Version::V311 && !connect.clean_start {
        // [MQTT-3.1.3-8]
        return Err(ReasonCode::ClientIdentifierNotValid);
    }
    let client_id: Arc<str> = if assigned_id {
        assigned_client_id().ok_or(ReasonCode::UnspecifiedError)?.into()
    } else {
        connect.client_id.into()
    };
    let asked = match connect.version {
        Version::V311 if connect.clean_start => 0,
        Version::V311 => u32::MAX,
        Version::V5 => properties.session_expiry_secs.unwrap_or(0),
    };
    let expiry_secs = asked.min(limits.session_expiry_max_secs);
    let will = connect.will.as_ref().map(|will| checked_will(will, limits)).transpose()?;
    let window = match connect.version {
        Version::V311 => limits.window_v311,
        Version::V5 => {
            properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(limits.window_v5)
        }
    };
    Ok(Newcomer {
        version: connect.version,
        clean_start: connect.clean_start,
        keep_alive_secs: connect.keep_alive_secs,
        client_id,
        assigned_id,
        identity: None,
        ticket: None,
        will,
        expiry_secs,
        receive_maximum: window,
        maximum_packet: properties.maximum_packet_size.map_or(u32::MAX, NonZeroU32::get),
        topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
        request_response: properties.request_response_information.unwrap_or(false),
        request_problem: properties.request_problem_information.unwrap_or(true),
        expiry_capped: expiry_secs != asked,
        heads_only: properties.user_properties.get("im-start") == Some("heads"),
        bridge: connect.bridge,
        incoming_anew: properties.user_properties.get(INCOMING) == Some("new"),
        asks_id: properties.user_properties.get(BROKER_ID).is_some(),
    })
}

/// The protocol level of a CONNECT that is not understood.
fn protocol_level(frame: &[u8]) -> Option<u8> {
    let length_bytes = frame.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 1;
    let body = frame.get(1 + length_bytes..)?;
    let name = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    body.get(2 + name).copied()
}

/// The CONNACK that lets a client in, encoded; `None` when its client does not take that much.
fn connack(
    newcomer: &Newcomer,
    session_present: bool,
    limits: &Limits,
    broker_id: &str,
) -> Option<Vec<u8>> {
    let keep_alive = keep_alive(newcomer.keep_alive_secs, limits);
    let mut own = PropertyBlock::new();
    if newcomer.asks_id {
        own.push(BROKER_ID, broker_id);
    }
    let properties = ConnAckProperties {
        user_properties: own.user_properties(),
        session_expiry_secs: newcomer.expiry_capped.then_some(newcomer.expiry_secs),
        receive_maximum: NonZeroU16::new(limits.receive_maximum),
        maximum_qos: (limits.max_qos < QoS::ExactlyOnce).then_some(limits.max_qos),
        retain_available: (!limits.retain_available).then_some(false),
        wildcard_subscription_available: (!limits.wildcard_available).then_some(false),
        shared_subscription_available: (!limits.shared_available).then_some(false),
        maximum_packet_size: NonZeroU32::new(limits.max_packet_bytes),
        assigned_client_id: newcomer.assigned_id.then_some(&*newcomer.client_id),
        topic_alias_maximum: Some(limits.topic_alias_maximum),
        server_keep_alive_secs: (keep_alive != newcomer.keep_alive_secs).then_some(keep_alive),
        response_information: newcomer.request_response.then_some("im/me/res/"),
        ..ConnAckProperties::default()
    };
    let connack =
        Packet::ConnAck(ConnAck { session_present, code: ReasonCode::Success, properties });
    let mut bytes = Vec::new();
    let fits = connack.encode_within(newcomer.version, newcomer.maximum_packet, &mut bytes);
    fits.then_some(bytes)
}

/// The keep-alive that holds: the client's within the server's maximum.
fn keep_alive(asked: u16, limits: &Limits) -> u16 {
    match (asked, limits.keep_alive_max_secs) {
        (asked, 0) => asked,
        (0, most) => most,
        (asked, most) => asked.min(most),
    }
}

fn assigned_client_id() -> Option<String> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).ok()?;
    Some(format!("auto-{:032x}", u128::from_be_bytes(random)))
}

/// The will as it is kept; or the reason that it cannot be.
fn checked_will(will: &Will<'_>, limits: &Limits) -> Result<StoredWill, ReasonCode> {
    if will.qos > limits.max_qos {
        // [MQTT-3.2.2-12]
        return Err(ReasonCode::QoSNotSupported);
    }
    if will.retain && !limits.retain_available {
        // [MQTT-3.2.2-13]
        return Err(ReasonCode::RetainNotSupported);
    }
    if hoopoe_im::is_reserved(will.topic) {
        // Ruling 16.
        let retained = ReasonCode::RetainNotSupported;
        return Err(if will.retain { retained } else { ReasonCode::TopicNameInvalid });
    }
    if will.topic.len() > limits.max_topic_bytes
        || will.topic.bytes().filter(|&b| b == b'/').count() >= limits.max_topic_levels
    {
        return Err(ReasonCode::TopicNameInvalid);
    }
    let properties = will.properties.forwardable();
    let parts = PublicationParts {
        topic: will.topic,
        properties: &properties,
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        expires_at_ms: None,
    };
    Ok(StoredWill {
        publication: parts.to_publication(),
        expiry_secs: will.properties.message_expiry_secs,
        delay_secs: will.delay_secs,
    })
}

fn restored(message: &InFlight, next: u64) -> Option<window::InFlight<Origin>> {
    Some(window::InFlight {
        id: hoopoe_codec::PacketId::new(message.id)?,
        qos: message.qos,
        released: message.phase == Exchange::Released,
        source: match message.source {
            Source::Queue(seq) if seq >= next => Origin::Ahead { seq },
            Source::Queue(seq) => Origin::Queue { seq, weight: 0 },
            Source::Group(group, seq) => Origin::Group { group, seq },
            Source::Entry(tag, seq) => Origin::Kept { tag, seq },
        },
    })
}

fn new_session(
    newcomer: &Newcomer,
    route: Arc<Route>,
    opened: &Opened,
    limits: &Limits,
    now_ms: u64,
) -> Session {
    let identity = newcomer.identity.clone().unwrap_or_else(Identity::anonymous);
    let space = space_of(&identity.tenant);
    let aliases = newcomer.topic_alias_maximum;
    Session {
        key: opened.key.clone(),
        identity,
        version: newcomer.version,
        route,
        epoch: opened.epoch,
        // 3.1.1 knows no Receive Maximum: such a client is not read for a while instead.
        incoming: Incoming::new(match newcomer.version {
            Version::V311 => u16::MAX,
            Version::V5 => limits.receive_maximum,
        }),
        answers: Answers::default(),
        owed_bytes: 0,
        window: Window::new(newcomer.receive_maximum),
        inbound_aliases: None,
        outbound_aliases: (aliases > 0).then(|| Box::new(OutboundAliases::new(aliases))),
        subscriptions: Subscriptions::default(),
        maximum_packet: newcomer.maximum_packet,
        problem_information: newcomer.request_problem,
        expiry_secs: newcomer.expiry_secs,
        will: newcomer.will.clone().filter(|_| opened.session.is_none()).map(Box::new),
        backlog: Default::default(),
        backlog_bytes: 0,
        skipped: Default::default(),
        stored: None,
        scans: Default::default(),
        rate: Rate::new(limits, now_ms).map(Box::new),
        allowed: Default::default(),
        allowed_at: 0,
        space,
        via: if newcomer.bridge { passed_by(&newcomer.client_id) } else { Vec::new() }.into(),
        im: None,
    }
}
