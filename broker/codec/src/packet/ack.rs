//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7): four packets of one form, and the
//! reason string with user properties that every acknowledgement may carry.

use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::id::PacketId;
use crate::packet::{packet_id, reason_code};
use crate::property::{PropertyId, PropertyReader, PropertySink};
use crate::reader::{Reader, place};
use crate::reason::ReasonCode;
use crate::user_properties::UserProperties;
use crate::version::Version;
use crate::wire::{Explained, Sink, Wire, put_packet, put_packet_within, put_properties};

/// One of the four packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum AckKind {
    /// Answers a PUBLISH of QoS 1.
    PubAck = PacketType::PubAck as u8,
    /// Answers a PUBLISH of QoS 2.
    PubRec = PacketType::PubRec as u8,
    /// Answers a PUBREC.
    PubRel = PacketType::PubRel as u8,
    /// Answers a PUBREL.
    PubComp = PacketType::PubComp as u8,
}

impl AckKind {
    /// The packet type.
    pub const fn packet_type(self) -> PacketType {
        match self {
            AckKind::PubAck => PacketType::PubAck,
            AckKind::PubRec => PacketType::PubRec,
            AckKind::PubRel => PacketType::PubRel,
            AckKind::PubComp => PacketType::PubComp,
        }
    }
}

/// A step in the exchange that follows a PUBLISH.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// The PUBLISH it belongs to.
    pub id: PacketId,
    /// How it went. MQTT 3.1.1 knows success only, and nothing else is sent there.
    pub code: ReasonCode,
    /// Reason string and user properties; none in MQTT 3.1.1.
    pub properties: AckProperties<'a>,
}

impl Ack<'_> {
    /// Success, without properties.
    pub const fn success(id: PacketId) -> Ack<'static> {
        Ack { id, code: ReasonCode::Success, properties: AckProperties::NONE }
    }
}

impl<'a> Ack<'a> {
    pub(crate) fn decode(version: Version, frame: Frame<'a>) -> Result<Ack<'a>, Fault> {
        let Frame { packet_type, mut body, .. } = frame;
        let id = packet_id(&mut body, place!("acknowledgement: packet identifier"))?;
        if version == Version::V311 {
            body.finish("acknowledgement: bytes after the packet identifier")?;
        }
        // "The Reason Code and Property Length can be omitted if the Reason Code is 0x00 and there
        // are no Properties"; "if the Remaining Length is less than 4 there is no Property Length
        // and the value of 0 is used" (3.4.2.1, 3.4.2.2.1 and their like).
        let code = match body.is_empty() {
            true => ReasonCode::Success,
            false => reason_code(packet_type, &mut body)?,
        };
        let properties = AckProperties::decode_optional(&mut body)?;
        body.finish("acknowledgement: bytes after the properties")?;
        Ok(Ack { id, code, properties })
    }

    /// Appends the packet.
    pub fn encode(&self, kind: AckKind, version: Version, out: &mut Vec<u8>) {
        put_packet(kind.packet_type().first_byte(), self, version, out);
    }

    /// Appends the packet if it fits in `max` bytes, if need be without user properties and reason
    /// string ([MQTT-3.4.2-2], [MQTT-3.4.2-3]). Says whether it was appended.
    pub fn encode_within(
        &self,
        kind: AckKind,
        version: Version,
        max: u32,
        out: &mut Vec<u8>,
    ) -> bool {
        put_packet_within(kind.packet_type().first_byte(), self, version, max, out)
    }
}

impl Wire for Ack<'_> {
    #[inline]
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.u16(self.id.get());
        if version == Version::V311 {
            return;
        }
        if !self.properties.is_empty() {
            out.byte(self.code as u8);
            put_properties(&self.properties, version, out);
        } else if self.code != ReasonCode::Success {
            out.byte(self.code as u8);
        }
    }
}

impl Explained for Ack<'_> {
    fn drop_user_properties(&mut self) {
        self.properties.user_properties = UserProperties::NONE;
    }

    fn drop_reason_string(&mut self) {
        self.properties.reason_string = None;
    }
}

/// The properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AckProperties<'a> {
    /// For people to read, in logs; not for programs.
    pub reason_string: Option<&'a str>,
    /// The sender's own pairs.
    pub user_properties: UserProperties<'a>,
}

impl<'a> AckProperties<'a> {
    /// No properties.
    pub const NONE: AckProperties<'static> =
        AckProperties { reason_string: None, user_properties: UserProperties::NONE };

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }

    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<AckProperties<'a>, Fault> {
        let mut properties = AckProperties::default();
        let mut block = PropertyReader::open(body)?;
        while let Some(id) = block.advance()? {
            match id {
                PropertyId::ReasonString => properties.reason_string = Some(block.text()?),
                PropertyId::UserProperty => properties.user_properties.take(&mut block)?,
                other => return Err(other.misplaced()),
            }
        }
        Ok(properties)
    }

    /// Like `decode`, but the packet may end before the property length.
    fn decode_optional(body: &mut Reader<'a>) -> Result<AckProperties<'a>, Fault> {
        if body.is_empty() { Ok(AckProperties::default()) } else { AckProperties::decode(body) }
    }
}

impl Wire for AckProperties<'_> {
    #[inline]
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.text_property(PropertyId::ReasonString, self.reason_string);
        self.user_properties.write(version, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PropertyBlock;

    #[test]
    fn the_shortest_form_is_chosen() {
        let id = PacketId::new(10).expect("not 0");
        let encoded = |ack: Ack<'_>, version| {
            let mut bytes = Vec::new();
            ack.encode(AckKind::PubRel, version, &mut bytes);
            bytes
        };
        let success = Ack::success(id);
        let unknown = Ack { code: ReasonCode::PacketIdentifierNotFound, ..success };
        let told = Ack {
            properties: AckProperties { reason_string: Some("no"), ..AckProperties::NONE },
            ..unknown
        };
        assert_eq!(encoded(success, Version::V5), [0x62, 2, 0, 10]);
        assert_eq!(encoded(unknown, Version::V5), [0x62, 3, 0, 10, 0x92]);
        assert_eq!(encoded(told, Version::V5), [0x62, 9, 0, 10, 0x92, 5, 0x1F, 0, 2, b'n', b'o']);
        assert_eq!(encoded(told, Version::V311), [0x62, 2, 0, 10]);
    }

    #[test]
    fn properties_are_left_out_before_the_packet_grows_too_large() {
        let block = PropertyBlock::new().with("key", "value");
        let ack = Ack {
            id: PacketId::MIN,
            code: ReasonCode::NotAuthorized,
            properties: AckProperties {
                reason_string: Some("because"),
                user_properties: block.user_properties(),
            },
        };
        let len_within = |max| {
            let mut bytes = Vec::new();
            let written = ack.encode_within(AckKind::PubAck, Version::V5, max, &mut bytes);
            assert_eq!(written, !bytes.is_empty());
            bytes.len()
        };
        assert_eq!(len_within(29), 29);
        assert_eq!(len_within(28), 16);
        assert_eq!(len_within(16), 16);
        assert_eq!(len_within(15), 5);
        assert_eq!(len_within(5), 5);
        assert_eq!(len_within(4), 0);
    }
}
