//! Arbitrary packets: owned models with a view as packet, and proptest strategies for them.
//!
//! A model fits one version: what the version does not know is not in it, so that a packet must
//! come back exactly as it went.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this module, and nothing leaves the program"
)]

use std::num::{NonZeroU16, NonZeroU32};

use hoopoe_codec::{
    Ack, AckProperties, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    PacketId, PacketType, PropertyBlock, Publish, PublishProperties, QoS, ReasonCode,
    RetainHandling, SubAck, Subscribe, SubscribeOptions, SubscriptionIds, Unsubscribe, Version,
    Will,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V311, Version::V5])
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0"))
}

/// Any text the standard allows, now and then long enough for a length of two bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![9 => "[^\0]{0,12}", 1 => "[a-z]{120,200}"]
}

fn topic() -> impl Strategy<Value = String> {
    "[^\0+#]{1,24}"
}

fn filter() -> impl Strategy<Value = String> {
    "[a-z/+#$]{1,12}"
}

fn binary() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn pairs() -> impl Strategy<Value = PropertyBlock> {
    vec((text(), text()), 0..4)
        .prop_map(|pairs| pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect())
}

/// A reason code that may stand in this packet.
fn code(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    let legal = ReasonCode::ALL.iter().copied().filter(move |code| code.legal_in(packet));
    select(legal.collect::<Vec<_>>())
}

/// The value in MQTT 5, the default in 3.1.1.
fn only_v5<T: Default>(version: Version, value: T) -> T {
    if version == Version::V5 { value } else { T::default() }
}

/// What a PUBLISH and a will have in common.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub format: Option<bool>,
    pub expiry: Option<u32>,
    pub response: Option<String>,
    pub correlation: Option<Vec<u8>>,
    pub content: Option<String>,
    pub pairs: PropertyBlock,
}

impl Message {
    fn properties(&self) -> PublishProperties<'_> {
        let mut properties = PublishProperties::default();
        properties.payload_format_utf8 = self.format;
        properties.message_expiry_secs = self.expiry;
        properties.response_topic = self.response.as_deref();
        properties.correlation_data = self.correlation.as_deref();
        properties.content_type = self.content.as_deref();
        properties.user_properties = self.pairs.user_properties();
        properties
    }
}

prop_compose! {
    fn message()(
        format in option::of(any::<bool>()),
        expiry in option::of(any::<u32>()),
        response in option::of(topic()),
        correlation in option::of(binary()),
        content in option::of(text()),
        pairs in pairs(),
    ) -> Message {
        Message { format, expiry, response, correlation, content, pairs }
    }
}

#[derive(Clone, Debug)]
pub struct PublishModel {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    pub topic: String,
    pub id: PacketId,
    pub alias: Option<u16>,
    pub subscription_ids: Vec<u32>,
    pub message: Message,
    pub payload: Vec<u8>,
}

impl PublishModel {
    pub fn packet(&self) -> Publish<'_> {
        let mut properties = self.message.properties();
        properties.topic_alias = self.alias;
        properties.subscription_ids = SubscriptionIds::from(&self.subscription_ids[..]);
        Publish {
            dup: self.dup && self.qos > QoS::AtMostOnce,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            id: (self.qos > QoS::AtMostOnce).then_some(self.id),
            properties,
            payload: &self.payload,
        }
    }
}

prop_compose! {
    pub fn publish(version: Version)(
        (dup, qos, retain) in (any::<bool>(), qos(), any::<bool>()),
        topic in topic(),
        id in id(),
        alias in option::of(1..=u16::MAX),
        subscription_ids in vec(1..=268_435_455_u32, 0..4),
        message in message(),
        payload in prop_oneof![binary(), vec(any::<u8>(), 0..300)],
    ) -> PublishModel {
        PublishModel {
            dup,
            qos,
            retain,
            topic,
            id,
            alias: only_v5(version, alias),
            subscription_ids: only_v5(version, subscription_ids),
            message: only_v5(version, message),
            payload,
        }
    }
}

#[derive(Clone, Debug)]
pub struct WillModel {
    pub qos: QoS,
    pub retain: bool,
    pub topic: String,
    pub payload: Vec<u8>,
    pub delay_secs: u32,
    pub message: Message,
}

prop_compose! {
    fn will(version: Version)(
        (qos, retain) in (qos(), any::<bool>()),
        topic in topic(),
        payload in binary(),
        delay_secs in any::<u32>(),
        message in message(),
    ) -> WillModel {
        WillModel {
            qos,
            retain,
            topic,
            payload,
            delay_secs: only_v5(version, delay_secs),
            message: only_v5(version, message),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Grants {
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    pub maximum_packet_size: Option<NonZeroU32>,
    pub alias_maximum: Option<u16>,
    pub method_and_data: Option<(String, Option<Vec<u8>>)>,
    pub flags: [Option<bool>; 4],
    pub texts: [Option<String>; 4],
    pub pairs: PropertyBlock,
}

impl Grants {
    fn method(&self) -> Option<&str> {
        self.method_and_data.as_ref().map(|(method, _)| method.as_str())
    }

    fn data(&self) -> Option<&[u8]> {
        self.method_and_data.as_ref().and_then(|(_, data)| data.as_deref())
    }
}

prop_compose! {
    fn grants()(
        session_expiry in option::of(any::<u32>()),
        receive_maximum in option::of(any::<NonZeroU16>()),
        maximum_packet_size in option::of(any::<NonZeroU32>()),
        alias_maximum in option::of(any::<u16>()),
        method_and_data in option::of((text(), option::of(binary()))),
        flags in any::<[Option<bool>; 4]>(),
        texts in [option::of(text()), option::of(text()), option::of(text()), option::of(text())],
        pairs in pairs(),
    ) -> Grants {
        Grants {
            session_expiry,
            receive_maximum,
            maximum_packet_size,
            alias_maximum,
            method_and_data,
            flags,
            texts,
            pairs,
        }
    }
}

#[derive(Clone, Debug)]
pub struct ConnectModel {
    pub version: Version,
    pub clean_start: bool,
    pub keep_alive_secs: u16,
    pub client_id: String,
    pub will: Option<WillModel>,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    pub grants: Grants,
}

impl ConnectModel {
    pub fn packet(&self) -> Connect<'_> {
        Connect {
            version: self.version,
            bridge: false,
            clean_start: self.clean_start,
            keep_alive_secs: self.keep_alive_secs,
            client_id: &self.client_id,
            will: self.will.as_ref().map(|will| Will {
                qos: will.qos,
                retain: will.retain,
                topic: &will.topic,
                payload: &will.payload,
                delay_secs: will.delay_secs,
                properties: will.message.properties(),
            }),
            username: self.username.as_deref(),
            password: self.password.as_deref(),
            properties: ConnectProperties {
                session_expiry_secs: self.grants.session_expiry,
                receive_maximum: self.grants.receive_maximum,
                maximum_packet_size: self.grants.maximum_packet_size,
                topic_alias_maximum: self.grants.alias_maximum,
                request_response_information: self.grants.flags[0],
                request_problem_information: self.grants.flags[1],
                authentication_method: self.grants.method(),
                authentication_data: self.grants.data(),
                user_properties: self.grants.pairs.user_properties(),
            },
        }
    }
}

prop_compose! {
    pub fn connect(version: Version)(
        clean_start in any::<bool>(),
        keep_alive_secs in any::<u16>(),
        client_id in text(),
        will in option::of(will(version)),
        username in option::of(text()),
        password in option::of(binary()),
        grants in grants(),
    ) -> ConnectModel {
        // In 3.1.1 there is no password without user name.
        let password = password.filter(|_| version == Version::V5 || username.is_some());
        let grants = only_v5(version, grants);
        ConnectModel {
            version, clean_start, keep_alive_secs, client_id, will, username, password, grants,
        }
    }
}

#[derive(Clone, Debug)]
pub struct ConnAckModel {
    pub session_present: bool,
    pub code: ReasonCode,
    pub maximum_qos: Option<QoS>,
    pub server_keep_alive: Option<u16>,
    pub reason: Option<String>,
    pub grants: Grants,
}

impl ConnAckModel {
    pub fn packet(&self) -> ConnAck<'_> {
        let [assigned, information, reference, _] = &self.grants.texts;
        ConnAck {
            session_present: self.session_present && self.code == ReasonCode::Success,
            code: self.code,
            properties: ConnAckProperties {
                session_expiry_secs: self.grants.session_expiry,
                receive_maximum: self.grants.receive_maximum,
                maximum_qos: self.maximum_qos,
                retain_available: self.grants.flags[0],
                maximum_packet_size: self.grants.maximum_packet_size,
                assigned_client_id: assigned.as_deref(),
                topic_alias_maximum: self.grants.alias_maximum,
                reason_string: self.reason.as_deref(),
                wildcard_subscription_available: self.grants.flags[1],
                subscription_id_available: self.grants.flags[2],
                shared_subscription_available: self.grants.flags[3],
                server_keep_alive_secs: self.server_keep_alive,
                response_information: information.as_deref(),
                server_reference: reference.as_deref(),
                authentication_method: self.grants.method(),
                authentication_data: self.grants.data(),
                user_properties: self.grants.pairs.user_properties(),
            },
        }
    }
}

/// The codes that MQTT 3.1.1 can tell apart.
fn return_code() -> impl Strategy<Value = ReasonCode> {
    select(vec![
        ReasonCode::Success,
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::ClientIdentifierNotValid,
        ReasonCode::ServerUnavailable,
        ReasonCode::BadUserNameOrPassword,
        ReasonCode::NotAuthorized,
    ])
}

prop_compose! {
    pub fn connack(version: Version)(
        session_present in any::<bool>(),
        v5_code in code(PacketType::ConnAck),
        return_code in return_code(),
        maximum_qos in option::of(select(vec![QoS::AtMostOnce, QoS::AtLeastOnce])),
        server_keep_alive in option::of(any::<u16>()),
        reason in option::of(text()),
        grants in grants(),
    ) -> ConnAckModel {
        ConnAckModel {
            session_present,
            code: if version == Version::V5 { v5_code } else { return_code },
            maximum_qos: only_v5(version, maximum_qos),
            server_keep_alive: only_v5(version, server_keep_alive),
            reason: only_v5(version, reason),
            grants: only_v5(version, grants),
        }
    }
}

/// Reason string and user properties.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    pub reason: Option<String>,
    pub pairs: PropertyBlock,
}

impl Explanation {
    pub fn properties(&self) -> AckProperties<'_> {
        AckProperties {
            reason_string: self.reason.as_deref(),
            user_properties: self.pairs.user_properties(),
        }
    }
}

prop_compose! {
    fn explanation()(reason in option::of(text()), pairs in pairs()) -> Explanation {
        Explanation { reason, pairs }
    }
}

#[derive(Clone, Debug)]
pub struct AckModel {
    pub id: PacketId,
    pub code: ReasonCode,
    pub explanation: Explanation,
}

impl AckModel {
    pub fn packet(&self) -> Ack<'_> {
        Ack { id: self.id, code: self.code, properties: self.explanation.properties() }
    }
}

prop_compose! {
    pub fn ack(version: Version, packet: PacketType)(
        id in id(),
        code in code(packet),
        explanation in explanation(),
    ) -> AckModel {
        let code = if version == Version::V5 { code } else { ReasonCode::Success };
        AckModel { id, code, explanation: only_v5(version, explanation) }
    }
}

prop_compose! {
    fn options(version: Version)(
        qos in qos(),
        no_local in any::<bool>(),
        retain_as_published in any::<bool>(),
        retain_handling in select(vec![
            RetainHandling::Send,
            RetainHandling::SendIfNew,
            RetainHandling::DoNotSend,
        ]),
    ) -> SubscribeOptions {
        match version {
            Version::V311 => SubscribeOptions::with_qos(qos),
            Version::V5 => {
                SubscribeOptions { qos, no_local, retain_as_published, retain_handling }
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct SubscribeModel {
    pub id: PacketId,
    pub subscription_id: Option<u32>,
    pub pairs: PropertyBlock,
    pub filters: Vec<(String, SubscribeOptions)>,
}

impl SubscribeModel {
    pub fn packet(&self) -> Subscribe<'_> {
        Subscribe {
            id: self.id,
            subscription_id: self.subscription_id,
            user_properties: self.pairs.user_properties(),
            filters: self.filters.iter().map(|(f, options)| (f.as_str(), *options)).collect(),
        }
    }

    pub fn unsubscribe(&self) -> Unsubscribe<'_> {
        Unsubscribe {
            id: self.id,
            user_properties: self.pairs.user_properties(),
            filters: self.filters.iter().map(|(filter, _)| filter.as_str()).collect(),
        }
    }
}

prop_compose! {
    pub fn subscribe(version: Version)(
        id in id(),
        subscription_id in option::of(1..=268_435_455_u32),
        pairs in pairs(),
        filters in vec((filter(), options(version)), 1..8),
    ) -> SubscribeModel {
        SubscribeModel {
            id,
            subscription_id: only_v5(version, subscription_id),
            pairs: only_v5(version, pairs),
            filters,
        }
    }
}

#[derive(Clone, Debug)]
pub struct SubAckModel {
    pub id: PacketId,
    pub codes: Vec<ReasonCode>,
    pub explanation: Explanation,
}

impl SubAckModel {
    pub fn packet(&self) -> SubAck<'_> {
        SubAck {
            id: self.id,
            codes: self.codes.iter().copied().collect(),
            properties: self.explanation.properties(),
        }
    }
}

prop_compose! {
    pub fn suback(version: Version, packet: PacketType)(
        id in id(),
        v5_codes in vec(code(packet), 1..20),
        v311_codes in vec(select(vec![
            ReasonCode::GRANTED_QOS_0,
            ReasonCode::GrantedQoS1,
            ReasonCode::GrantedQoS2,
            ReasonCode::UnspecifiedError,
        ]), 1..20),
        explanation in explanation(),
    ) -> SubAckModel {
        let codes = match (version, packet) {
            (Version::V5, _) => v5_codes,
            (Version::V311, PacketType::SubAck) => v311_codes,
            (Version::V311, _) => Vec::new(),
        };
        SubAckModel { id, codes, explanation: only_v5(version, explanation) }
    }
}

#[derive(Clone, Debug)]
pub struct DisconnectModel {
    pub code: ReasonCode,
    pub session_expiry: Option<u32>,
    pub reference: Option<String>,
    pub explanation: Explanation,
}

impl DisconnectModel {
    pub fn packet(&self) -> Disconnect<'_> {
        Disconnect {
            code: self.code,
            session_expiry_secs: self.session_expiry,
            reason_string: self.explanation.reason.as_deref(),
            server_reference: self.reference.as_deref(),
            user_properties: self.explanation.pairs.user_properties(),
        }
    }
}

prop_compose! {
    pub fn disconnect(version: Version)(
        code in code(PacketType::Disconnect),
        session_expiry in option::of(any::<u32>()),
        reference in option::of(text()),
        explanation in explanation(),
    ) -> DisconnectModel {
        DisconnectModel {
            code: if version == Version::V5 { code } else { ReasonCode::Success },
            session_expiry: only_v5(version, session_expiry),
            reference: only_v5(version, reference),
            explanation: only_v5(version, explanation),
        }
    }
}

#[derive(Clone, Debug)]
pub struct AuthModel {
    pub code: ReasonCode,
    pub method: String,
    pub data: Option<Vec<u8>>,
    pub explanation: Explanation,
}

impl AuthModel {
    pub fn packet(&self) -> Auth<'_> {
        Auth {
            code: self.code,
            method: Some(&self.method),
            data: self.data.as_deref(),
            reason_string: self.explanation.reason.as_deref(),
            user_properties: self.explanation.pairs.user_properties(),
        }
    }
}

prop_compose! {
    pub fn auth()(
        code in code(PacketType::Auth),
        method in text(),
        data in option::of(binary()),
        explanation in explanation(),
    ) -> AuthModel {
        AuthModel { code, method, data, explanation }
    }
}
