//! One link as a step: packets of either broker in, packets for either broker out.
//!
//! Owns what has been sent to the remote broker and is not yet acknowledged, and nothing that a
//! crash could lose: an acknowledgement is passed to one end when it has come from the other, so
//! that at every moment a message is some broker's. **Packet identifiers stay the same** from one
//! end to the other. Both brokers keep the exchanges of QoS 2 by identifier, so the four steps pass
//! through and end exactly once wherever the link is cut; the link needs no store for them.
//!
//! Deliberately not here: sockets, time but for the rate, and the making of connections.

use std::collections::VecDeque;

use hoopoe_codec::{
    Ack, AckKind, Disconnect, Packet, PacketId, PropertyBlock, Publish, PublishHead,
    PublishProperties, QoS, ReasonCode, Receiver, SubAck, Version, decode,
};
use thiserror::Error;

use crate::SCANNED;
use crate::rules::Rules;
use crate::settings::LinkSettings;
use crate::status::Counts;
use crate::via::{Mark, VIA, Via, Way};

/// One of the two brokers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The broker that the link belongs to.
    Local,
    /// The other one.
    Remote,
}

/// Why a connection is given up; the next one goes on where it ended.
#[derive(Debug, Error)]
pub enum LinkFault {
    /// A broker has closed the connection, with or without a reason.
    #[error("the {0:?} broker has ended the connection: {1}")]
    Ended(End, ReasonCode),
    /// A broker cannot take a message now; it is offered again.
    #[error("the {0:?} broker takes no message now: {1}")]
    Busy(End, ReasonCode),
    /// A broker sent what MQTT does not allow.
    #[error("the {0:?} broker: {1}")]
    Illegal(End, hoopoe_codec::Fault),
}

/// What a broker takes.
#[derive(Clone, Debug)]
pub struct Takes {
    /// What is spoken there.
    pub version: Version,
    /// The highest QoS.
    pub max_qos: QoS,
    /// The largest packet, in bytes.
    pub max_packet: usize,
    /// Unfinished publications.
    pub receive_maximum: u16,
    /// Whether it takes RETAIN.
    pub retain: bool,
}

/// Where packets for a broker go.
pub trait Sink {
    /// A message. The head has the version of that broker.
    fn publish(&mut self, head: &PublishHead<'_>, id: Option<PacketId>, payload: &[u8]);
    /// A step of an exchange.
    fn ack(&mut self, kind: AckKind, id: PacketId, code: ReasonCode);
}

/// A sink that encodes.
#[derive(Debug)]
pub struct Encoder<'a> {
    /// What is spoken there.
    pub version: Version,
    /// Where the bytes go.
    pub out: &'a mut Vec<u8>,
}

impl Sink for Encoder<'_> {
    fn publish(&mut self, head: &PublishHead<'_>, id: Option<PacketId>, payload: &[u8]) {
        head.encode(id, self.out);
        self.out.extend_from_slice(payload);
    }

    fn ack(&mut self, kind: AckKind, id: PacketId, code: ReasonCode) {
        let ack = Ack { code, ..Ack::success(id) };
        ack.encode(kind, self.version, self.out);
    }
}

/// How far a message on its way out is, by its packet identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    /// Nothing is under way.
    No,
    /// QoS 1, PUBACK is awaited.
    Once,
    /// QoS 2, PUBREC is awaited.
    Published,
    /// QoS 2, PUBCOMP is awaited.
    Released,
    /// QoS 2 at the local broker, sent with QoS 1: the remote broker takes no more.
    Lowered,
    /// QoS 2 at the local broker, and done with: its PUBREL is answered here.
    Done,
}

/// What sites say to each other: the one tree of the broker's own that links carry.
const SITES: &str = "$hoopoe/site/";

/// A link while both its connections stand.
pub struct Link {
    rules: Rules,
    via: Via,
    retained: bool,
    hop_prefix: Option<String>,
    local: Takes,
    remote: Takes,
    sent: Box<[Sent]>,
    open: usize,
    /// Messages that wait for room at the remote broker: no more than the window of the session.
    held: VecDeque<Vec<u8>>,
    topic: String,
    properties: Vec<u8>,
    rate: Option<Rate>,
    /// Answers to SUBSCRIBE and UNSUBSCRIBE that have not come yet, from either end.
    awaited: [usize; 2],
    /// Local filters of which all that is retained has come into the queue.
    scanned: Vec<String>,
    /// What happened, since last asked.
    pub counts: Counts,
}

impl Link {
    /// A link between brokers that take so much.
    pub fn new(settings: &LinkSettings, rules: Rules, local: Takes, remote: Takes) -> Link {
        Link {
            rules,
            via: via(settings),
            retained: settings.retained,
            hop_prefix: settings.hop_prefix.clone(),
            local,
            remote,
            sent: vec![Sent::No; usize::from(u16::MAX) + 1].into(),
            open: 0,
            held: VecDeque::new(),
            topic: String::new(),
            properties: Vec::new(),
            rate: Rate::new(settings.rate_per_sec),
            awaited: [0; 2],
            scanned: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// The remote broker has said its id.
    pub fn leads_to(&mut self, broker_id: &str) {
        self.via.leads_to(broker_id);
    }

    /// A SUBSCRIBE or UNSUBSCRIBE has been sent to that broker.
    pub fn asking(&mut self, end: End) {
        self.awaited[end as usize] += 1;
    }

    /// Whether both brokers have what the link subscribes to: nothing is missed from here on.
    pub fn is_ready(&self) -> bool {
        self.awaited == [0; 2]
    }

    /// Local filters of which all that is retained is in the queue, since last asked.
    pub fn take_scanned(&mut self) -> Vec<String> {
        std::mem::take(&mut self.scanned)
    }

    /// What is spoken with the remote broker.
    pub fn remote_version(&self) -> Version {
        self.remote.version
    }

    /// Messages sent and not acknowledged by the remote broker.
    pub fn in_flight(&self) -> usize {
        self.open + self.held.len()
    }

    /// For how many microseconds nothing more is to be read from that end: its rate is used up.
    pub fn pause_us(&self, end: End, now_us: u64) -> u64 {
        self.rate.as_ref().map_or(0, |rate| rate.pause_us(end, now_us))
    }

    /// A whole packet of the local broker.
    ///
    /// # Errors
    /// When the connections must be given up.
    pub fn on_local(
        &mut self,
        now_us: u64,
        frame: &[u8],
        local: &mut impl Sink,
        remote: &mut impl Sink,
    ) -> Result<(), LinkFault> {
        let packet = decode(self.local.version, Receiver::Client, frame)
            .map_err(|fault| LinkFault::Illegal(End::Local, fault))?;
        match packet {
            Packet::Publish(Publish { topic: SCANNED, id, payload, .. }) => {
                self.scanned.push(String::from_utf8_lossy(payload).into_owned());
                if let Some(id) = id {
                    local.ack(AckKind::PubAck, id, ReasonCode::Success);
                }
            }
            Packet::Publish(publish) => {
                self.charge(End::Local, now_us);
                self.outward(&publish, frame, local, remote);
            }
            Packet::PubRel(ack) => match self.sent[usize::from(ack.id.get())] {
                Sent::Done => {
                    self.note(ack.id, Sent::No);
                    local.ack(AckKind::PubComp, ack.id, ReasonCode::Success);
                }
                _ => {
                    self.note(ack.id, Sent::Released);
                    remote.ack(AckKind::PubRel, ack.id, ReasonCode::Success);
                }
            },
            Packet::PubAck(ack) => {
                self.judged(End::Local, ack.code)?;
                remote.ack(AckKind::PubAck, ack.id, ack.code);
            }
            Packet::PubRec(ack) => {
                self.judged(End::Local, ack.code)?;
                remote.ack(AckKind::PubRec, ack.id, ack.code);
            }
            // The code says whether the identifier was known, which concerns these two alone.
            Packet::PubComp(ack) => remote.ack(AckKind::PubComp, ack.id, ReasonCode::Success),
            other => self.told(End::Local, &other)?,
        }
        Ok(())
    }

    /// A whole packet of the remote broker.
    ///
    /// # Errors
    /// When the connections must be given up.
    pub fn on_remote(
        &mut self,
        now_us: u64,
        frame: &[u8],
        local: &mut impl Sink,
        remote: &mut impl Sink,
    ) -> Result<(), LinkFault> {
        let packet = decode(self.remote.version, Receiver::Client, frame)
            .map_err(|fault| LinkFault::Illegal(End::Remote, fault))?;
        match packet {
            Packet::Publish(publish) => self.arrived(now_us, &publish, local, remote),
            Packet::PubAck(ack) => self.acknowledged(ack.id, ack.code, local, remote)?,
            Packet::PubRec(ack) => self.received(ack.id, ack.code, local, remote)?,
            Packet::PubRel(ack) => local.ack(AckKind::PubRel, ack.id, ReasonCode::Success),
            Packet::PubComp(ack) if self.sent[usize::from(ack.id.get())] == Sent::Released => {
                self.note(ack.id, Sent::No);
                local.ack(AckKind::PubComp, ack.id, ReasonCode::Success);
                self.send_held(remote, local);
            }
            other => self.told(End::Remote, &other)?,
        }
        Ok(())
    }

    /// What a broker says besides messages and their acknowledgements.
    fn told(&mut self, end: End, packet: &Packet<'_>) -> Result<(), LinkFault> {
        match packet {
            Packet::SubAck(suback) => self.subscribed(end, suback),
            Packet::UnsubAck(_) => self.answered(end),
            Packet::Disconnect(Disconnect { code, .. }) => {
                return Err(LinkFault::Ended(end, *code));
            }
            _ => {}
        }
        Ok(())
    }

    /// A message from the remote broker.
    pub fn arrived(
        &mut self,
        now_us: u64,
        publish: &Publish<'_>,
        local: &mut impl Sink,
        remote: &mut impl Sink,
    ) {
        self.charge(End::Remote, now_us);
        if !self.inward(publish, local)
            && let Some(id) = publish.id
        {
            // The PUBREL that follows is passed on: the local broker does not know it and says so.
            let kind = match publish.qos {
                QoS::ExactlyOnce => AckKind::PubRec,
                _ => AckKind::PubAck,
            };
            remote.ack(kind, id, ReasonCode::Success);
        }
    }

    /// PUBACK of the remote broker.
    ///
    /// # Errors
    /// When it takes no message now.
    pub fn acknowledged(
        &mut self,
        id: PacketId,
        code: ReasonCode,
        local: &mut impl Sink,
        remote: &mut impl Sink,
    ) -> Result<(), LinkFault> {
        self.judged(End::Remote, code)?;
        match self.sent[usize::from(id.get())] {
            Sent::Once => {
                self.note(id, Sent::No);
                local.ack(AckKind::PubAck, id, ReasonCode::Success);
            }
            Sent::Lowered => {
                self.note(id, Sent::Done);
                local.ack(AckKind::PubRec, id, ReasonCode::Success);
            }
            _ => {}
        }
        self.send_held(remote, local);
        Ok(())
    }

    /// PUBREC of the remote broker.
    fn received(
        &mut self,
        id: PacketId,
        code: ReasonCode,
        local: &mut impl Sink,
        remote: &mut impl Sink,
    ) -> Result<(), LinkFault> {
        self.judged(End::Remote, code)?;
        if code.is_error() {
            // [MQTT-4.3.3-4]: the exchange is over.
            self.note(id, Sent::No);
            local.ack(AckKind::PubRec, id, code);
            self.send_held(remote, local);
        } else {
            local.ack(AckKind::PubRec, id, ReasonCode::Success);
        }
        Ok(())
    }

    /// What a broker said of a message. One that it cannot take now is offered again over the next
    /// connection; one that it will never take is given up, and counted.
    fn judged(&mut self, end: End, code: ReasonCode) -> Result<(), LinkFault> {
        if !code.is_error() {
            return Ok(());
        }
        let later = matches!(
            code,
            ReasonCode::QuotaExceeded
                | ReasonCode::UnspecifiedError
                | ReasonCode::ImplementationSpecificError
                | ReasonCode::PacketIdentifierInUse
        );
        if later {
            return Err(LinkFault::Busy(end, code));
        }
        self.counts.refused += 1;
        Ok(())
    }

    fn subscribed(&mut self, end: End, suback: &SubAck<'_>) {
        self.answered(end);
        let refused = suback.codes.iter().filter(|code| code.is_error()).count();
        self.counts.refused_filters += refused as u64;
        if let Some(code) = suback.codes.iter().find(|code| code.is_error()) {
            tracing::warn!(?end, refused, %code, "a broker refuses what a rule subscribes to");
        }
    }

    fn answered(&mut self, end: End) {
        let awaited = &mut self.awaited[end as usize];
        *awaited = awaited.saturating_sub(1);
    }

    fn note(&mut self, id: PacketId, now: Sent) {
        let takes_room =
            |sent| matches!(sent, Sent::Once | Sent::Published | Sent::Released | Sent::Lowered);
        let before = std::mem::replace(&mut self.sent[usize::from(id.get())], now);
        self.open += usize::from(takes_room(now));
        self.open -= usize::from(takes_room(before));
    }

    fn charge(&mut self, end: End, now_us: u64) {
        if let Some(rate) = &mut self.rate {
            rate.charge(end, now_us);
        }
    }

    /// Sends what has waited for room.
    fn send_held(&mut self, remote: &mut impl Sink, local: &mut impl Sink) {
        while self.open < usize::from(self.remote.receive_maximum)
            && let Some(frame) = self.held.pop_front()
        {
            // It was decoded when it was put there.
            if let Ok(Packet::Publish(publish)) =
                decode(self.local.version, Receiver::Client, &frame)
            {
                self.send(&publish, local, remote);
            }
        }
    }

    /// A message of the local broker.
    fn outward(
        &mut self,
        publish: &Publish<'_>,
        frame: &[u8],
        local: &mut impl Sink,
        remote: &mut impl Sink,
    ) {
        // Behind others that wait, to keep the order; QoS 0 has no window that would bound it.
        let full = self.open >= usize::from(self.remote.receive_maximum);
        if publish.qos > QoS::AtMostOnce && (full || !self.held.is_empty()) {
            self.held.push_back(frame.to_vec());
            return;
        }
        self.send(publish, local, remote);
    }

    fn send(&mut self, publish: &Publish<'_>, local: &mut impl Sink, remote: &mut impl Sink) {
        let qos = publish.qos.min(self.remote.max_qos);
        let passes = self.send_changed(publish, qos, remote);
        let Some(id) = publish.id else { return };
        let now = match (publish.qos, qos) {
            _ if !passes => Sent::Done,
            (_, QoS::AtMostOnce) => Sent::Done,
            (QoS::ExactlyOnce, QoS::ExactlyOnce) => Sent::Published,
            (QoS::ExactlyOnce, _) => Sent::Lowered,
            _ => Sent::Once,
        };
        if now == Sent::Done {
            // Nobody else will acknowledge it.
            let (kind, now) = match publish.qos {
                QoS::ExactlyOnce => (AckKind::PubRec, Sent::Done),
                _ => (AckKind::PubAck, Sent::No),
            };
            self.note(id, now);
            local.ack(kind, id, ReasonCode::Success);
        } else {
            self.note(id, now);
        }
    }

    /// Sends a message to the remote broker under its name there; false when it does not pass.
    fn send_changed(&mut self, publish: &Publish<'_>, qos: QoS, remote: &mut impl Sink) -> bool {
        if !self.rules.outward(publish.topic, &mut self.topic) {
            self.counts.without_rule += 1;
            return false;
        }
        let Ok(mark) = self.via.pass(Way::Out, publish.properties.user_properties) else {
            self.counts.looped += 1;
            return false;
        };
        if let Some(prefix) = &self.hop_prefix {
            let ids = match &mark {
                Mark::First(_) => self.via.own(),
                Mark::More(ids) => ids,
            };
            self.topic.insert_str(0, &format!("{prefix}/{ids}/"));
        }
        marked(&mark, &publish.properties, &mut self.properties);
        let v5 = self.remote.version == Version::V5;
        let head = PublishHead {
            version: self.remote.version,
            dup: publish.dup && qos > QoS::AtMostOnce,
            qos,
            retain: publish.retain && self.retained && self.remote.retain,
            topic: &self.topic,
            forwardable: if v5 { &self.properties } else { &[] },
            message_expiry_secs: publish.properties.message_expiry_secs.filter(|_| v5),
            topic_alias: None,
            subscription_ids: &[],
            payload_len: publish.payload.len(),
        };
        if head.packet_len() > self.remote.max_packet {
            self.counts.too_large += 1;
            return false;
        }
        self.counts.sent += 1;
        self.counts.sent_bytes += publish.payload.len() as u64;
        remote.publish(&head, publish.id.filter(|_| qos > QoS::AtMostOnce), publish.payload);
        true
    }

    /// Sends a message to the local broker under its name there; false when it does not pass.
    fn inward(&mut self, publish: &Publish<'_>, local: &mut impl Sink) -> bool {
        let mut properties = publish.properties;
        let passed;
        let mut topic = publish.topic;
        if let Some(prefix) = &self.hop_prefix
            && let Some((ids, rest)) = hops(topic, prefix)
        {
            topic = rest;
            passed = PropertyBlock::new().with(VIA, ids);
            properties.user_properties = passed.user_properties();
        }
        let passes = self.rules.inward(topic, &mut self.topic);
        let is_internal = self.topic.starts_with('$') && !self.topic.starts_with(SITES);
        if !passes || is_internal {
            self.counts.without_rule += 1;
            return false;
        }
        let Ok(mark) = self.via.pass(Way::In, properties.user_properties) else {
            self.counts.looped += 1;
            return false;
        };
        marked(&mark, &properties, &mut self.properties);
        let head = PublishHead {
            version: self.local.version,
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain && self.retained && self.local.retain,
            topic: &self.topic,
            forwardable: &self.properties,
            message_expiry_secs: publish.properties.message_expiry_secs,
            topic_alias: None,
            subscription_ids: &[],
            payload_len: publish.payload.len(),
        };
        if head.packet_len() > self.local.max_packet {
            self.counts.too_large += 1;
            return false;
        }
        self.counts.arrived += 1;
        self.counts.arrived_bytes += publish.payload.len() as u64;
        local.publish(&head, publish.id, publish.payload);
        true
    }
}

/// In 3.1.1 the remote broker cannot say where a message has been. A link that sends on nothing which
/// has passed another lets nothing that comes in over it go round either.
fn via(settings: &LinkSettings) -> Via {
    let (own, link, most) = (&settings.broker_id, &settings.name, settings.max_hops);
    match (settings.version, most) {
        (Version::V311, 0) => Via::staying(own, link),
        _ => Via::new(own, link, most),
    }
}

/// The brokers that a 3.1.1 message has passed, which the level below the prefix names, and its
/// topic.
fn hops<'a>(topic: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    topic.strip_prefix(prefix)?.strip_prefix('/')?.split_once('/')
}

/// The properties that a message goes on with, into `out`.
fn marked(mark: &Mark<'_>, properties: &PublishProperties<'_>, out: &mut Vec<u8>) {
    out.clear();
    match mark {
        Mark::First(encoded) => {
            out.extend_from_slice(&properties.forwardable());
            out.extend_from_slice(encoded);
        }
        Mark::More(ids) => {
            let others = properties.user_properties.iter().filter(|(name, _)| *name != VIA);
            let mut block: PropertyBlock = others.collect();
            block.push(VIA, ids);
            let mut changed = PublishProperties::default();
            changed.payload_format_utf8 = properties.payload_format_utf8;
            changed.content_type = properties.content_type;
            changed.response_topic = properties.response_topic;
            changed.correlation_data = properties.correlation_data;
            changed.user_properties = block.user_properties();
            out.extend_from_slice(&changed.forwardable());
        }
    }
}

/// Messages per second in each direction, a second's worth at once.
#[derive(Debug)]
struct Rate {
    interval_us: u64,
    /// When the messages taken so far would have come if they came evenly.
    due_us: [u64; 2],
}

const BURST_US: u64 = 1_000_000;

impl Rate {
    fn new(per_sec: u32) -> Option<Rate> {
        (per_sec > 0).then(|| Rate { interval_us: 1_000_000 / u64::from(per_sec), due_us: [0; 2] })
    }

    fn charge(&mut self, end: End, now_us: u64) {
        let due = &mut self.due_us[end as usize];
        *due = (*due).max(now_us) + self.interval_us;
    }

    fn pause_us(&self, end: End, now_us: u64) -> u64 {
        self.due_us[end as usize].saturating_sub(now_us + BURST_US)
    }
}

#[cfg(test)]
mod tests;
