//! Makes up packets. Most are what a client may send; what is left out here is what `mutate` does
//! to them.

use std::num::{NonZeroU16, NonZeroU32};

use hoopoe_codec::{
    Ack, AckKind, AckProperties, Auth, Connect, ConnectProperties, Disconnect, Packet, PacketId,
    PropertyBlock, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe,
    SubscribeOptions, Unsubscribe, Version, Will,
};

use super::answers::Request;
use super::conversation::Conversation;
use super::random::Random;
use super::vocabulary::{self, USERS};

/// What a composer knows besides the seed.
pub struct Composer<'a> {
    /// Where every choice comes from.
    pub random: &'a mut Random,
    /// The next number no publication had.
    pub publication: u64,
}

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn packet_id(number: u16) -> PacketId {
    PacketId::new(number.max(1)).unwrap_or(PacketId::MIN)
}

impl Composer<'_> {
    fn qos(&mut self) -> QoS {
        ALL_QOS[self.random.below(3)]
    }

    fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.below(from.len())]
    }

    /// CONNECT.
    pub fn connect(&mut self, client_id: &str, tracked: bool) -> Vec<u8> {
        let version = if self.random.once_in(3) { Version::V311 } else { Version::V5 };
        let pairs = self.pairs();
        let topic = vocabulary::topic(self.random);
        let payload = self.payload(300);
        let mut properties = ConnectProperties::default();
        if version == Version::V5 {
            properties = self.connect_properties();
            properties.user_properties = pairs.user_properties();
        }
        let will = self.random.once_in(4).then(|| Will {
            qos: self.qos(),
            retain: self.random.once_in(4),
            topic,
            payload: &payload,
            delay_secs: self.one_of(&[0, 0, 1, 2]),
            properties: {
                let mut properties = PublishProperties::default();
                properties.message_expiry_secs = self.one_of(&[None, None, Some(1), Some(100)]);
                properties.user_properties = pairs.user_properties();
                properties
            },
        });
        let user = !tracked && self.random.once_in(6);
        let connect = Connect {
            version,
            bridge: false,
            clean_start: client_id.is_empty() && !self.random.once_in(10) || self.random.once_in(4),
            keep_alive_secs: self.one_of(&[0, 0, 0, 0, 0, 0, 1, 2, 60, 65535]),
            client_id,
            will,
            username: user.then(|| self.random.pick(&USERS)),
            password: user.then_some(b"secret"),
            properties,
        };
        let mut out = Vec::new();
        connect.encode(version, &mut out);
        out
    }

    fn connect_properties<'p>(&mut self) -> ConnectProperties<'p> {
        let small = self.random.once_in(100).then_some(20);
        let maximum = self.one_of(&[None, None, None, Some(128), Some(300), Some(5000)]);
        ConnectProperties {
            session_expiry_secs: self.one_of(&[
                None,
                Some(0),
                Some(1),
                Some(5),
                Some(60),
                Some(3600),
                Some(u32::MAX),
            ]),
            receive_maximum: self
                .one_of(&[None, Some(1), Some(2), Some(5), Some(50), Some(65535)])
                .and_then(NonZeroU16::new),
            maximum_packet_size: small.or(maximum).and_then(NonZeroU32::new),
            topic_alias_maximum: self.one_of(&[None, Some(0), Some(1), Some(3), Some(20)]),
            request_response_information: self.one_of(&[None, Some(false), Some(true)]),
            request_problem_information: self.one_of(&[None, Some(false), Some(true)]),
            authentication_method: self.random.once_in(150).then_some("SCRAM-SHA-1"),
            ..ConnectProperties::default()
        }
    }

    fn pairs(&mut self) -> PropertyBlock {
        let mut block = PropertyBlock::new();
        if self.random.once_in(3) {
            for _ in 0..self.random.within(1, 3) {
                let value = "v".repeat(self.random.below(40));
                block.push(self.random.pick(&["k", "name", "", "ü"]), &value);
            }
        }
        block
    }

    /// A payload no other publication has.
    fn payload(&mut self, most: usize) -> Vec<u8> {
        let mut payload = self.publication.to_be_bytes().to_vec();
        let length = match self.random.below(40) {
            0 => self.random.below(most),
            1 => self.random.within(4000, 6000).min(most),
            2..=6 => self.random.below(400).min(most),
            _ => self.random.below(20),
        };
        payload.extend((0..length).map(|at| at as u8));
        payload
    }

    /// PUBLISH.
    pub fn publish(&mut self, conversation: &Conversation, id: u16) -> Vec<u8> {
        let version = conversation.version();
        let limits = &conversation.limits;
        let room = (limits.max_packet_bytes as usize).saturating_sub(600).min(40_000);
        let retain = self.random.once_in(7);
        let payload = match retain && self.random.once_in(4) {
            true => Vec::new(),
            false => self.payload(room),
        };
        let pairs = self.pairs();
        let qos = self.qos();
        let mut topic = vocabulary::topic(self.random);
        let mut properties = PublishProperties::default();
        if version == Version::V5 {
            properties = self.publish_properties();
            properties.user_properties = pairs.user_properties();
            let alias_max = usize::from(limits.topic_alias_max);
            if alias_max > 0 && self.random.once_in(3) {
                let alias = self.random.within(1, alias_max.min(4)) as u16;
                properties.topic_alias = Some(alias);
                if conversation.own_aliases.contains_key(&alias) && !self.random.once_in(3) {
                    topic = "";
                }
            }
            if self.random.once_in(1500) {
                properties.topic_alias = Some(limits.topic_alias_max.saturating_add(1));
            }
        }
        let id = (qos > QoS::AtMostOnce).then(|| packet_id(id));
        let dup = qos > QoS::AtMostOnce && self.random.once_in(50);
        let publish = Publish { dup, qos, retain, topic, id, properties, payload: &payload };
        let mut out = Vec::new();
        publish.encode(version, &mut out);
        out
    }

    fn publish_properties<'p>(&mut self) -> PublishProperties<'p> {
        let mut properties = PublishProperties::default();
        if self.random.once_in(3) {
            properties.message_expiry_secs = Some(self.one_of(&[1, 2, 10, 1000, u32::MAX]));
        }
        if self.random.once_in(6) {
            properties.payload_format_utf8 = Some(false);
            properties.content_type = Some("application/octet-stream");
        }
        if self.random.once_in(6) {
            properties.response_topic = Some("answers/to/me");
            properties.correlation_data = Some(&[0, 1, 2, 255]);
        }
        properties
    }

    /// SUBSCRIBE.
    pub fn subscribe(&mut self, version: Version, id: u16) -> Vec<u8> {
        let count = self.one_of(&[1, 1, 1, 2, 3, 8]);
        let mut subscribe = Subscribe {
            id: packet_id(id),
            subscription_id: None,
            user_properties: hoopoe_codec::UserProperties::NONE,
            filters: Default::default(),
        };
        if version == Version::V5 && self.random.once_in(2) {
            subscribe.subscription_id = Some(self.one_of(&[1, 2, 3, 4, 127, 128, 268_435_455]));
        }
        for _ in 0..count {
            let filter = vocabulary::filter(self.random);
            let mut options = SubscribeOptions::with_qos(self.qos());
            if version == Version::V5 {
                let may = !filter.starts_with("$share") || self.random.once_in(100);
                options.no_local = may && self.random.once_in(4);
                options.retain_as_published = self.random.once_in(3);
                options.retain_handling = self.one_of(&[
                    RetainHandling::Send,
                    RetainHandling::SendIfNew,
                    RetainHandling::DoNotSend,
                ]);
            }
            subscribe.filters.push((filter, options));
        }
        let mut out = Vec::new();
        subscribe.encode(version, &mut out);
        out
    }

    /// UNSUBSCRIBE.
    pub fn unsubscribe(&mut self, version: Version, id: u16) -> Vec<u8> {
        let mut unsubscribe = Unsubscribe {
            id: packet_id(id),
            user_properties: hoopoe_codec::UserProperties::NONE,
            filters: Default::default(),
        };
        for _ in 0..self.random.within(1, 3) {
            unsubscribe.filters.push(vocabulary::filter(self.random));
        }
        let mut out = Vec::new();
        unsubscribe.encode(version, &mut out);
        out
    }

    /// The answer to a packet of the broker; now and then not the right one.
    pub fn answer(&mut self, version: Version, request: Request) -> Vec<u8> {
        let (mut kind, mut id) = match request {
            Request::PubAck(id) => (AckKind::PubAck, id),
            Request::PubRec(id) => (AckKind::PubRec, id),
            Request::PubRel(id) => (AckKind::PubRel, id),
            Request::PubComp(id) => (AckKind::PubComp, id),
            Request::Nothing | Request::Begin => return Vec::new(),
        };
        let mut code = ReasonCode::Success;
        match self.random.below(600) {
            0 => {
                let kinds = [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp];
                kind = self.one_of(&kinds);
            }
            1 => id = id.wrapping_add(1 + self.random.below(3) as u16),
            2..=15 if version == Version::V5 && kind == AckKind::PubAck => {
                code = self.one_of(&[ReasonCode::QuotaExceeded, ReasonCode::UnspecifiedError]);
            }
            2..=25 if version == Version::V5 && kind == AckKind::PubRec => {
                code = self.one_of(&[
                    ReasonCode::ImplementationSpecificError,
                    ReasonCode::NotAuthorized,
                    ReasonCode::NoMatchingSubscribers,
                ]);
            }
            _ => {}
        }
        let pairs = if version == Version::V5 { self.pairs() } else { PropertyBlock::new() };
        let reason = version == Version::V5 && self.random.once_in(50);
        let properties = AckProperties {
            reason_string: reason.then_some("so it is"),
            user_properties: pairs.user_properties(),
        };
        let mut out = Vec::new();
        Ack { id: packet_id(id), code, properties }.encode(kind, version, &mut out);
        out
    }

    /// An acknowledgement nobody asked for.
    pub fn stray_answer(&mut self, version: Version) -> Vec<u8> {
        let id = self.random.within(1, 12) as u16;
        let request = self.one_of(&[
            Request::PubAck(id),
            Request::PubRec(id),
            Request::PubRel(id),
            Request::PubComp(id),
        ]);
        self.answer(version, request)
    }

    /// DISCONNECT.
    pub fn disconnect(&mut self, version: Version) -> Vec<u8> {
        let mut disconnect = Disconnect::with_code(ReasonCode::Success);
        if version == Version::V5 {
            disconnect.code = self.one_of(&[ReasonCode::Success, ReasonCode::DisconnectWithWill]);
            disconnect.session_expiry_secs =
                self.one_of(&[None, None, None, Some(0), Some(2), Some(3600)]);
        }
        let mut out = Vec::new();
        disconnect.encode(version, &mut out);
        out
    }

    /// A packet that has no place here.
    pub fn misplaced(&mut self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        match self.random.below(3) {
            0 => return self.connect("wild-0", false),
            1 => {
                let auth = Auth {
                    code: ReasonCode::ReAuthenticate,
                    method: Some("none"),
                    data: None,
                    reason_string: None,
                    user_properties: hoopoe_codec::UserProperties::NONE,
                };
                auth.encode(version, &mut out);
            }
            _ => Packet::PingResp.encode(version, &mut out),
        }
        out
    }
}
