//! CONNACK (section 3.2): the server's answer to CONNECT, and what it grants.

use std::num::{NonZeroU16, NonZeroU32};

use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::packet::reason_code;
use crate::property::{PropertyId, PropertyReader, PropertySink};
use crate::qos::QoS;
use crate::reader::{Reader, place};
use crate::reason::ReasonCode;
use crate::user_properties::UserProperties;
use crate::version::Version;
use crate::wire::{Explained, Sink, Wire, put_packet, put_packet_within, put_properties};

/// The answer to a request for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnAck<'a> {
    /// Whether the server kept a session for the client. Only with success.
    pub session_present: bool,
    /// Success or why not. MQTT 3.1.1 has five failures, and gets the one that comes nearest.
    pub code: ReasonCode,
    /// The properties; none in MQTT 3.1.1.
    pub properties: ConnAckProperties<'a>,
}

/// The properties of CONNACK. What is absent has the standard's default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnAckProperties<'a> {
    /// How long the server keeps the session, if not as long as the client asked.
    pub session_expiry_secs: Option<u32>,
    /// How many QoS 1 and QoS 2 publications the server takes at once.
    pub receive_maximum: Option<NonZeroU16>,
    /// The highest QoS the server takes, when that is not 2.
    pub maximum_qos: Option<QoS>,
    /// Whether the server keeps retained messages.
    pub retain_available: Option<bool>,
    /// The largest packet the server takes, in bytes.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The client identifier given to a client that sent none.
    pub assigned_client_id: Option<&'a str>,
    /// The highest topic alias the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// Whether filters may contain wildcards.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether subscriptions may have identifiers.
    pub subscription_id_available: Option<bool>,
    /// Whether there are shared subscriptions.
    pub shared_subscription_available: Option<bool>,
    /// The keep alive the client must use instead of its own [MQTT-3.2.2-21].
    pub server_keep_alive_secs: Option<u16>,
    /// What to build response topics from.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// The method of extended authentication.
    pub authentication_method: Option<&'a str>,
    /// The last data of that method.
    pub authentication_data: Option<&'a [u8]>,
    /// The sender's own pairs.
    pub user_properties: UserProperties<'a>,
}

const SESSION_PRESENT: u8 = 0b0000_0001;

impl ConnAck<'_> {
    /// A refusal that says no more than its code.
    pub const fn refused(code: ReasonCode) -> ConnAck<'static> {
        ConnAck { session_present: false, code, properties: ConnAckProperties::NONE }
    }
}

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(version: Version, frame: Frame<'a>) -> Result<ConnAck<'a>, Fault> {
        let mut body = frame.body;
        let flags = body.byte(place!("CONNACK: flags"))?;
        // "Bits 7-1 are reserved and MUST be set to 0" [MQTT-3.2.2-1].
        if flags & !SESSION_PRESENT != 0 {
            return Err(Fault::malformed("CONNACK: reserved flags [MQTT-3.2.2-1]"));
        }
        let session_present = flags & SESSION_PRESENT != 0;
        let code = match version {
            Version::V311 => {
                let byte = body.byte(place!("CONNACK: return code"))?;
                ReasonCode::from_return_code(byte)
                    .ok_or(Fault::malformed("CONNACK: reserved return code [3.2.2.3]"))?
            }
            Version::V5 => reason_code(PacketType::ConnAck, &mut body)?,
        };
        // "If a Server sends a CONNACK packet containing a non-zero Reason Code it MUST set Session
        // Present to 0" [MQTT-3.2.2-6] (3.1.1: [MQTT-3.2.2-4]).
        if session_present && code != ReasonCode::Success {
            return Err(Fault::protocol("CONNACK: session present with failure [MQTT-3.2.2-6]"));
        }
        let properties = match version {
            Version::V311 => ConnAckProperties::NONE,
            Version::V5 => ConnAckProperties::decode(&mut body)?,
        };
        body.finish("CONNACK: bytes after the last field")?;
        Ok(ConnAck { session_present, code, properties })
    }

    /// Appends the packet. Session present is sent with success only [MQTT-3.2.2-6].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(PacketType::ConnAck.first_byte(), self, version, out);
    }

    /// Appends the packet if it fits in `max` bytes, if need be without user properties and reason
    /// string ([MQTT-3.2.2-19], [MQTT-3.2.2-20]). Says whether it was appended.
    pub fn encode_within(&self, version: Version, max: u32, out: &mut Vec<u8>) -> bool {
        put_packet_within(PacketType::ConnAck.first_byte(), self, version, max, out)
    }
}

impl<'a> ConnAckProperties<'a> {
    /// No properties: all defaults.
    pub const NONE: ConnAckProperties<'static> = ConnAckProperties {
        session_expiry_secs: None,
        receive_maximum: None,
        maximum_qos: None,
        retain_available: None,
        maximum_packet_size: None,
        assigned_client_id: None,
        topic_alias_maximum: None,
        reason_string: None,
        wildcard_subscription_available: None,
        subscription_id_available: None,
        shared_subscription_available: None,
        server_keep_alive_secs: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
        user_properties: UserProperties::NONE,
    };

    fn decode(body: &mut Reader<'a>) -> Result<ConnAckProperties<'a>, Fault> {
        let mut properties = ConnAckProperties::NONE;
        let mut block = PropertyReader::open(body)?;
        while let Some(id) = block.advance()? {
            properties.take(id, &mut block)?;
        }
        Ok(properties)
    }

    fn take(&mut self, id: PropertyId, block: &mut PropertyReader<'a>) -> Result<(), Fault> {
        use PropertyId as P;
        match id {
            P::SessionExpiryInterval => self.session_expiry_secs = Some(block.u32()?),
            P::ReceiveMaximum => {
                let value = NonZeroU16::new(block.u16()?).ok_or(id.out_of_range())?;
                self.receive_maximum = Some(value);
            }
            // "A value of 2 is not sent": the property says 0 or 1 (3.2.2.3.4).
            P::MaximumQoS => {
                self.maximum_qos = Some(match block.flag()? {
                    false => QoS::AtMostOnce,
                    true => QoS::AtLeastOnce,
                });
            }
            P::RetainAvailable => self.retain_available = Some(block.flag()?),
            P::MaximumPacketSize => {
                let value = NonZeroU32::new(block.u32()?).ok_or(id.out_of_range())?;
                self.maximum_packet_size = Some(value);
            }
            P::AssignedClientIdentifier => self.assigned_client_id = Some(block.text()?),
            P::TopicAliasMaximum => self.topic_alias_maximum = Some(block.u16()?),
            P::ReasonString => self.reason_string = Some(block.text()?),
            P::WildcardSubscriptionAvailable => {
                self.wildcard_subscription_available = Some(block.flag()?);
            }
            P::SubscriptionIdentifierAvailable => {
                self.subscription_id_available = Some(block.flag()?);
            }
            P::SharedSubscriptionAvailable => {
                self.shared_subscription_available = Some(block.flag()?);
            }
            P::ServerKeepAlive => self.server_keep_alive_secs = Some(block.u16()?),
            P::ResponseInformation => self.response_information = Some(block.text()?),
            P::ServerReference => self.server_reference = Some(block.text()?),
            P::AuthenticationMethod => self.authentication_method = Some(block.text()?),
            P::AuthenticationData => self.authentication_data = Some(block.binary()?),
            P::UserProperty => self.user_properties.take(block)?,
            other => return Err(other.misplaced()),
        }
        Ok(())
    }
}

impl Wire for ConnAck<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        let session_present = self.session_present && self.code == ReasonCode::Success;
        out.byte(u8::from(session_present));
        out.byte(match version {
            Version::V311 => self.code.return_code(),
            Version::V5 => self.code as u8,
        });
        put_properties(&self.properties, version, out);
    }
}

impl Explained for ConnAck<'_> {
    fn drop_user_properties(&mut self) {
        self.properties.user_properties = UserProperties::NONE;
    }

    fn drop_reason_string(&mut self) {
        self.properties.reason_string = None;
    }
}

impl Wire for ConnAckProperties<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        use PropertyId as P;
        out.u32_property(P::SessionExpiryInterval, self.session_expiry_secs);
        out.u16_property(P::ReceiveMaximum, self.receive_maximum.map(NonZeroU16::get));
        // QoS 2 is said by leaving the property out.
        let maximum_qos = self.maximum_qos.filter(|qos| *qos < QoS::ExactlyOnce);
        out.flag_property(P::MaximumQoS, maximum_qos.map(|qos| qos == QoS::AtLeastOnce));
        out.flag_property(P::RetainAvailable, self.retain_available);
        out.u32_property(P::MaximumPacketSize, self.maximum_packet_size.map(NonZeroU32::get));
        out.text_property(P::AssignedClientIdentifier, self.assigned_client_id);
        out.u16_property(P::TopicAliasMaximum, self.topic_alias_maximum);
        out.flag_property(P::WildcardSubscriptionAvailable, self.wildcard_subscription_available);
        out.flag_property(P::SubscriptionIdentifierAvailable, self.subscription_id_available);
        out.flag_property(P::SharedSubscriptionAvailable, self.shared_subscription_available);
        out.u16_property(P::ServerKeepAlive, self.server_keep_alive_secs);
        out.text_property(P::ResponseInformation, self.response_information);
        out.text_property(P::ServerReference, self.server_reference);
        out.text_property(P::AuthenticationMethod, self.authentication_method);
        out.binary_property(P::AuthenticationData, self.authentication_data);
        out.text_property(P::ReasonString, self.reason_string);
        self.user_properties.write(version, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Packet, Receiver, decode};

    #[test]
    fn a_failure_never_says_session_present_and_3_1_1_gets_its_return_code() {
        let refused = ConnAck { session_present: true, ..ConnAck::refused(ReasonCode::ServerBusy) };
        let mut bytes = Vec::new();
        refused.encode(Version::V311, &mut bytes);
        refused.encode(Version::V5, &mut bytes);
        assert_eq!(bytes, [0x20, 2, 0, 3, 0x20, 3, 0, 0x89, 0]);
        let Ok(Packet::ConnAck(seen)) = decode(Version::V311, Receiver::Client, &bytes[..4]) else {
            panic!("a CONNACK");
        };
        assert_eq!(seen, ConnAck::refused(ReasonCode::ServerUnavailable));
    }
}
