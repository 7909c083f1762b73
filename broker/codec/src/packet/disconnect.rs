//! DISCONNECT (section 3.14): the last packet of a connection, with the reason in MQTT 5.

use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::packet::{Receiver, reason_code};
use crate::property::{PropertyId, PropertyReader, PropertySink};
use crate::reader::Reader;
use crate::reason::ReasonCode;
use crate::user_properties::UserProperties;
use crate::version::Version;
use crate::wire::{Explained, Sink, Wire, put_packet, put_packet_within, put_properties};

/// The end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnect<'a> {
    /// Why. In MQTT 3.1.1 always normal, and sent by clients only.
    pub code: ReasonCode,
    /// A client's last word on how long its session is to be kept. Never from a server.
    pub session_expiry_secs: Option<u32>,
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// The sender's own pairs.
    pub user_properties: UserProperties<'a>,
}

impl Disconnect<'_> {
    /// A DISCONNECT that says no more than its code.
    pub const fn with_code(code: ReasonCode) -> Disconnect<'static> {
        Disconnect {
            code,
            session_expiry_secs: None,
            reason_string: None,
            server_reference: None,
            user_properties: UserProperties::NONE,
        }
    }

    const fn has_properties(&self) -> bool {
        self.session_expiry_secs.is_some()
            || self.reason_string.is_some()
            || self.server_reference.is_some()
            || !self.user_properties.is_empty()
    }
}

impl<'a> Disconnect<'a> {
    pub(crate) fn decode(
        version: Version,
        receiver: Receiver,
        frame: Frame<'a>,
    ) -> Result<Disconnect<'a>, Fault> {
        let mut body = frame.body;
        if version == Version::V311 {
            body.finish("DISCONNECT: there must be no body in MQTT 3.1.1 [3.14]")?;
        }
        let mut disconnect = Disconnect::with_code(ReasonCode::NORMAL_DISCONNECTION);
        // "If the Remaining Length is less than 1 the value of 0x00 (Normal disconnection) is used"
        // (3.14.2.1).
        if !body.is_empty() {
            disconnect.code = reason_code(PacketType::Disconnect, &mut body)?;
        }
        // "If the Remaining Length is less than 2, a value of 0 is used" (3.14.2.2.1).
        if !body.is_empty() {
            disconnect.read_properties(receiver, &mut body)?;
            body.finish("DISCONNECT: bytes after the properties")?;
        }
        Ok(disconnect)
    }

    fn read_properties(&mut self, receiver: Receiver, body: &mut Reader<'a>) -> Result<(), Fault> {
        let mut block = PropertyReader::open(body)?;
        while let Some(id) = block.advance()? {
            match id {
                // "The Session Expiry Interval MUST NOT be sent on a DISCONNECT by the Server"
                // [MQTT-3.14.2-2].
                PropertyId::SessionExpiryInterval if receiver == Receiver::Client => {
                    return Err(Fault::protocol(
                        "DISCONNECT: session expiry interval from a server [MQTT-3.14.2-2]",
                    ));
                }
                PropertyId::SessionExpiryInterval => {
                    self.session_expiry_secs = Some(block.u32()?);
                }
                PropertyId::ReasonString => self.reason_string = Some(block.text()?),
                PropertyId::ServerReference => self.server_reference = Some(block.text()?),
                PropertyId::UserProperty => self.user_properties.take(&mut block)?,
                other => return Err(other.misplaced()),
            }
        }
        Ok(())
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(PacketType::Disconnect.first_byte(), self, version, out);
    }

    /// Appends the packet if it fits in `max` bytes, if need be without user properties and reason
    /// string ([MQTT-3.14.2-3], [MQTT-3.14.2-4]). Says whether it was appended.
    pub fn encode_within(&self, version: Version, max: u32, out: &mut Vec<u8>) -> bool {
        put_packet_within(PacketType::Disconnect.first_byte(), self, version, max, out)
    }
}

impl Wire for Disconnect<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        if version == Version::V311 {
            return;
        }
        if self.has_properties() {
            out.byte(self.code as u8);
            put_properties(&DisconnectProperties(self), version, out);
        } else if self.code != ReasonCode::NORMAL_DISCONNECTION {
            out.byte(self.code as u8);
        }
    }
}

impl Explained for Disconnect<'_> {
    fn drop_user_properties(&mut self) {
        self.user_properties = UserProperties::NONE;
    }

    fn drop_reason_string(&mut self) {
        self.reason_string = None;
    }
}

struct DisconnectProperties<'a>(&'a Disconnect<'a>);

impl Wire for DisconnectProperties<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        let DisconnectProperties(disconnect) = self;
        out.u32_property(PropertyId::SessionExpiryInterval, disconnect.session_expiry_secs);
        out.text_property(PropertyId::ServerReference, disconnect.server_reference);
        out.text_property(PropertyId::ReasonString, disconnect.reason_string);
        disconnect.user_properties.write(version, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_form_is_chosen() {
        let encoded = |code, version| {
            let mut bytes = Vec::new();
            Disconnect::with_code(code).encode(version, &mut bytes);
            bytes
        };
        assert_eq!(encoded(ReasonCode::Success, Version::V5), [0xE0, 0]);
        assert_eq!(encoded(ReasonCode::DisconnectWithWill, Version::V5), [0xE0, 1, 4]);
        assert_eq!(encoded(ReasonCode::DisconnectWithWill, Version::V311), [0xE0, 0]);
    }
}
