//! SUBACK and UNSUBACK (sections 3.9 and 3.11): one reason code for each topic filter.
//!
//! They differ in the codes they may carry, and in MQTT 3.1.1, where UNSUBACK has none.

use smallvec::SmallVec;

use super::ack::AckProperties;
use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::id::PacketId;
use crate::packet::{packet_id, reason_code};
use crate::reader::place;
use crate::reason::ReasonCode;
use crate::user_properties::UserProperties;
use crate::version::Version;
use crate::wire::{Explained, Sink, Wire, put_packet, put_packet_within, put_properties};

/// The answer to SUBSCRIBE or UNSUBSCRIBE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubAck<'a> {
    /// The packet it answers.
    pub id: PacketId,
    /// One code per topic filter, in their order [MQTT-3.9.3-1]. In MQTT 3.1.1 every failure is
    /// sent as 0x80, and UNSUBACK is sent without codes.
    pub codes: SmallVec<[ReasonCode; 8]>,
    /// Reason string and user properties; none in MQTT 3.1.1.
    pub properties: AckProperties<'a>,
}

impl<'a> SubAck<'a> {
    pub(crate) fn decode(version: Version, frame: Frame<'a>) -> Result<SubAck<'a>, Fault> {
        let Frame { packet_type, mut body, .. } = frame;
        let id = packet_id(&mut body, place!("SUBACK, UNSUBACK: packet identifier"))?;
        let mut suback = SubAck { id, codes: SmallVec::new(), properties: AckProperties::NONE };
        if version == Version::V5 {
            suback.properties = AckProperties::decode(&mut body)?;
        } else if packet_type == PacketType::UnsubAck {
            body.finish("UNSUBACK: bytes after the packet identifier")?;
            return Ok(suback);
        }
        while !body.is_empty() {
            let code = reason_code(packet_type, &mut body)?;
            // "SUBACK return codes other than 0x00, 0x01, 0x02 and 0x80 are reserved and MUST NOT
            // be used" (3.1.1, [MQTT-3.9.3-2]).
            if version == Version::V311 && code as u8 > 2 && code != ReasonCode::UnspecifiedError {
                return Err(Fault::malformed("SUBACK: reserved return code [MQTT-3.9.3-2]"));
            }
            suback.codes.push(code);
        }
        if suback.codes.is_empty() {
            return Err(Fault::protocol("SUBACK, UNSUBACK: no reason code [MQTT-3.8.4-6]"));
        }
        Ok(suback)
    }

    /// Appends the packet as SUBACK.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(PacketType::SubAck.first_byte(), self, version, out);
    }

    /// Appends the packet as SUBACK if it fits in `max` bytes, if need be without user properties
    /// and reason string ([MQTT-3.9.2-1], [MQTT-3.9.2-2]). Says whether it was appended.
    pub fn encode_within(&self, version: Version, max: u32, out: &mut Vec<u8>) -> bool {
        put_packet_within(PacketType::SubAck.first_byte(), self, version, max, out)
    }

    /// Appends the packet as UNSUBACK.
    pub fn encode_unsuback(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(PacketType::UnsubAck.first_byte(), &self.as_unsuback(version), version, out);
    }

    /// Appends the packet as UNSUBACK if it fits in `max` bytes, if need be without user properties
    /// and reason string ([MQTT-3.11.2-1], [MQTT-3.11.2-2]). Says whether it was appended.
    pub fn encode_unsuback_within(&self, version: Version, max: u32, out: &mut Vec<u8>) -> bool {
        let first_byte = PacketType::UnsubAck.first_byte();
        put_packet_within(first_byte, &self.as_unsuback(version), version, max, out)
    }

    /// What an UNSUBACK carries: in MQTT 3.1.1 no codes.
    fn as_unsuback(&self, version: Version) -> SubAck<'a> {
        let codes = match version {
            Version::V311 => SmallVec::new(),
            Version::V5 => self.codes.clone(),
        };
        SubAck { codes, ..self.clone() }
    }
}

impl Wire for SubAck<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.u16(self.id.get());
        put_properties(&self.properties, version, out);
        for code in &self.codes {
            out.byte(match version {
                // "0x80 - Failure" is all that 3.1.1 can say.
                Version::V311 if code.is_error() => ReasonCode::UnspecifiedError as u8,
                _ => *code as u8,
            });
        }
    }
}

impl Explained for SubAck<'_> {
    fn drop_user_properties(&mut self) {
        self.properties.user_properties = UserProperties::NONE;
    }

    fn drop_reason_string(&mut self) {
        self.properties.reason_string = None;
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn mqtt_3_1_1_hears_failure_and_no_codes_for_unsubscribe() {
        let suback = SubAck {
            id: PacketId::MIN,
            codes: smallvec![ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized],
            properties: AckProperties { reason_string: Some("x"), ..AckProperties::NONE },
        };
        let mut bytes = Vec::new();
        suback.encode(Version::V311, &mut bytes);
        suback.encode_unsuback(Version::V311, &mut bytes);
        assert_eq!(bytes, [0x90, 4, 0, 1, 1, 0x80, 0xB0, 2, 0, 1]);
        bytes.clear();
        assert!(suback.encode_within(Version::V5, 7, &mut bytes));
        assert_eq!(bytes, [0x90, 5, 0, 1, 0, 1, 0x87]);
    }
}
