//! MQTT 5 properties: one list in wire order, with the packets each may be in.

use super::cursor::Cursor;
use super::{packet_type as kind, push_field, push_length};

/// One property with its value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Property {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(String),
    ResponseTopic(String),
    CorrelationData(Vec<u8>),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(String),
    ServerKeepAlive(u16),
    AuthenticationMethod(String),
    AuthenticationData(Vec<u8>),
    RequestProblemInformation(u8),
    WillDelayInterval(u32),
    RequestResponseInformation(u8),
    ResponseInformation(String),
    ServerReference(String),
    ReasonString(String),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQoS(u8),
    RetainAvailable(u8),
    UserProperty(String, String),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(u8),
    SubscriptionIdentifierAvailable(u8),
    SharedSubscriptionAvailable(u8),
}

/// The properties of one packet, in wire order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Properties(pub Vec<Property>);

/// Reads the value of one kind of property, where it is present.
macro_rules! reader {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty) => {
        $(#[$doc])*
        pub fn $name(&self) -> Option<$type> {
            self.0.iter().find_map(|property| match property {
                Property::$variant(value) => Some(value.clone()),
                _ => None,
            })
        }
    };
}

impl Properties {
    reader!(
        /// Topic Alias.
        topic_alias, TopicAlias, u16);
    reader!(
        /// Message Expiry Interval in seconds.
        message_expiry_secs, MessageExpiryInterval, u32);
    reader!(
        /// Reason String.
        reason_string, ReasonString, String);
    reader!(
        /// Assigned Client Identifier.
        assigned_client_id, AssignedClientIdentifier, String);
    reader!(
        /// Server Keep Alive in seconds.
        server_keep_alive_secs, ServerKeepAlive, u16);
    reader!(
        /// Receive Maximum.
        receive_maximum, ReceiveMaximum, u16);
    reader!(
        /// Topic Alias Maximum.
        topic_alias_maximum, TopicAliasMaximum, u16);
    reader!(
        /// Maximum Packet Size in bytes.
        maximum_packet_size, MaximumPacketSize, u32);
    reader!(
        /// Session Expiry Interval in seconds.
        session_expiry_secs, SessionExpiryInterval, u32);
    reader!(
        /// Response Information.
        response_information, ResponseInformation, String);
    reader!(
        /// Response Topic.
        response_topic, ResponseTopic, String);
    reader!(
        /// Authentication Method.
        authentication_method, AuthenticationMethod, String);
    reader!(
        /// Maximum QoS.
        maximum_qos, MaximumQoS, u8);

    /// All Subscription Identifiers, sorted.
    pub fn subscription_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self
            .0
            .iter()
            .filter_map(|property| match property {
                Property::SubscriptionIdentifier(id) => Some(*id),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids
    }

    /// All User Properties in their order.
    pub fn user_properties(&self) -> Vec<(&str, &str)> {
        self.0
            .iter()
            .filter_map(|property| match property {
                Property::UserProperty(name, value) => Some((name.as_str(), value.as_str())),
                _ => None,
            })
            .collect()
    }

    /// Appends the length and the properties.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut block = Vec::new();
        for property in &self.0 {
            property.encode(&mut block);
        }
        push_length(out, block.len());
        out.extend_from_slice(&block);
    }

    /// Reads the properties of a packet of type `packet` sent by a server.
    ///
    /// Panics when one is not legal there, stands twice, or is out of its range.
    pub fn decode(packet: u8, body: &mut Cursor<'_>) -> Properties {
        let length = body.variable();
        let mut block = Cursor::new(body.take(length as usize));
        let mut list: Vec<Property> = Vec::new();
        while !block.is_empty() {
            let identifier = block.variable();
            let property = Property::decode(identifier, &mut block);
            assert!(
                legal_from_server(identifier).contains(&packet),
                "{property:?} is not legal in packet type {packet}"
            );
            let repeatable = identifier == 0x26 || (identifier == 0x0B && packet == kind::PUBLISH);
            let again = list.iter().any(|other| other.identifier() == property.identifier());
            assert!(repeatable || !again, "{property:?} stands twice");
            list.push(property);
        }
        Properties(list)
    }
}

/// The packet types in which a server may send a property.
fn legal_from_server(identifier: u32) -> &'static [u8] {
    match identifier {
        0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x0B | 0x23 => &[kind::PUBLISH],
        0x11 | 0x12 | 0x13 | 0x1A | 0x21 | 0x22 | 0x24 | 0x25 | 0x27 | 0x28 | 0x29 | 0x2A => {
            &[kind::CONNACK]
        }
        0x15 | 0x16 => &[kind::CONNACK, kind::AUTH],
        0x1C => &[kind::CONNACK, kind::DISCONNECT],
        0x1F => &[
            kind::CONNACK,
            kind::PUBACK,
            kind::PUBREC,
            kind::PUBREL,
            kind::PUBCOMP,
            kind::SUBACK,
            kind::UNSUBACK,
            kind::DISCONNECT,
            kind::AUTH,
        ],
        0x26 => &[
            kind::CONNACK,
            kind::PUBLISH,
            kind::PUBACK,
            kind::PUBREC,
            kind::PUBREL,
            kind::PUBCOMP,
            kind::SUBACK,
            kind::UNSUBACK,
            kind::DISCONNECT,
            kind::AUTH,
        ],
        _ => &[],
    }
}

impl Property {
    /// The property's identifier on the wire.
    pub fn identifier(&self) -> u8 {
        match self {
            Property::PayloadFormatIndicator(_) => 0x01,
            Property::MessageExpiryInterval(_) => 0x02,
            Property::ContentType(_) => 0x03,
            Property::ResponseTopic(_) => 0x08,
            Property::CorrelationData(_) => 0x09,
            Property::SubscriptionIdentifier(_) => 0x0B,
            Property::SessionExpiryInterval(_) => 0x11,
            Property::AssignedClientIdentifier(_) => 0x12,
            Property::ServerKeepAlive(_) => 0x13,
            Property::AuthenticationMethod(_) => 0x15,
            Property::AuthenticationData(_) => 0x16,
            Property::RequestProblemInformation(_) => 0x17,
            Property::WillDelayInterval(_) => 0x18,
            Property::RequestResponseInformation(_) => 0x19,
            Property::ResponseInformation(_) => 0x1A,
            Property::ServerReference(_) => 0x1C,
            Property::ReasonString(_) => 0x1F,
            Property::ReceiveMaximum(_) => 0x21,
            Property::TopicAliasMaximum(_) => 0x22,
            Property::TopicAlias(_) => 0x23,
            Property::MaximumQoS(_) => 0x24,
            Property::RetainAvailable(_) => 0x25,
            Property::UserProperty(..) => 0x26,
            Property::MaximumPacketSize(_) => 0x27,
            Property::WildcardSubscriptionAvailable(_) => 0x28,
            Property::SubscriptionIdentifierAvailable(_) => 0x29,
            Property::SharedSubscriptionAvailable(_) => 0x2A,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.identifier());
        match self {
            Property::PayloadFormatIndicator(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::MaximumQoS(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value) => out.push(*value),
            Property::ServerKeepAlive(value)
            | Property::ReceiveMaximum(value)
            | Property::TopicAliasMaximum(value)
            | Property::TopicAlias(value) => out.extend_from_slice(&value.to_be_bytes()),
            Property::MessageExpiryInterval(value)
            | Property::SessionExpiryInterval(value)
            | Property::WillDelayInterval(value)
            | Property::MaximumPacketSize(value) => out.extend_from_slice(&value.to_be_bytes()),
            Property::SubscriptionIdentifier(value) => push_length(out, *value as usize),
            Property::ContentType(text)
            | Property::ResponseTopic(text)
            | Property::AssignedClientIdentifier(text)
            | Property::AuthenticationMethod(text)
            | Property::ResponseInformation(text)
            | Property::ServerReference(text)
            | Property::ReasonString(text) => push_field(out, text.as_bytes()),
            Property::CorrelationData(bytes) | Property::AuthenticationData(bytes) => {
                push_field(out, bytes);
            }
            Property::UserProperty(name, value) => {
                push_field(out, name.as_bytes());
                push_field(out, value.as_bytes());
            }
        }
    }

    fn decode(identifier: u32, block: &mut Cursor<'_>) -> Property {
        match identifier {
            0x01 => Property::PayloadFormatIndicator(boolean(block)),
            0x02 => Property::MessageExpiryInterval(block.u32()),
            0x03 => Property::ContentType(block.string()),
            0x08 => Property::ResponseTopic(block.string()),
            0x09 => Property::CorrelationData(block.field().to_vec()),
            0x0B => {
                let id = block.variable();
                assert_ne!(id, 0, "subscription identifier 0");
                Property::SubscriptionIdentifier(id)
            }
            0x11 => Property::SessionExpiryInterval(block.u32()),
            0x12 => Property::AssignedClientIdentifier(block.string()),
            0x13 => Property::ServerKeepAlive(block.u16()),
            0x15 => Property::AuthenticationMethod(block.string()),
            0x16 => Property::AuthenticationData(block.field().to_vec()),
            0x1A => Property::ResponseInformation(block.string()),
            0x1C => Property::ServerReference(block.string()),
            0x1F => Property::ReasonString(block.string()),
            0x21 => Property::ReceiveMaximum(not_zero(block.u16())),
            0x22 => Property::TopicAliasMaximum(block.u16()),
            0x23 => Property::TopicAlias(not_zero(block.u16())),
            0x24 => Property::MaximumQoS(boolean(block)),
            0x25 => Property::RetainAvailable(boolean(block)),
            0x26 => Property::UserProperty(block.string(), block.string()),
            0x27 => {
                let size = block.u32();
                assert_ne!(size, 0, "maximum packet size 0");
                Property::MaximumPacketSize(size)
            }
            0x28 => Property::WildcardSubscriptionAvailable(boolean(block)),
            0x29 => Property::SubscriptionIdentifierAvailable(boolean(block)),
            0x2A => Property::SharedSubscriptionAvailable(boolean(block)),
            _ => panic!("a server never sends property {identifier:#04x}"),
        }
    }
}

fn boolean(block: &mut Cursor<'_>) -> u8 {
    let value = block.u8();
    assert!(value < 2, "a property of one bit holds {value}");
    value
}

fn not_zero(value: u16) -> u16 {
    assert_ne!(value, 0, "a property that must not be 0");
    value
}
