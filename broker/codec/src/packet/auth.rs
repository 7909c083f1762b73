//! AUTH (section 3.15): a step of extended authentication. MQTT 5 only.

use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::packet::reason_code;
use crate::property::{PropertyId, PropertyReader, PropertySink};
use crate::reader::Reader;
use crate::reason::ReasonCode;
use crate::user_properties::UserProperties;
use crate::version::Version;
use crate::wire::{Explained, Sink, Wire, put_packet, put_packet_within, put_properties};

/// A step of an authentication exchange, from either side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// Success (from a server), continue, or re-authenticate (from a client).
    pub code: ReasonCode,
    /// The authentication method, the same throughout the connection. Absent only in a success
    /// without properties.
    pub method: Option<&'a str>,
    /// What the method wants to say.
    pub data: Option<&'a [u8]>,
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// The sender's own pairs.
    pub user_properties: UserProperties<'a>,
}

impl Auth<'_> {
    const SUCCESS: Auth<'static> = Auth {
        code: ReasonCode::Success,
        method: None,
        data: None,
        reason_string: None,
        user_properties: UserProperties::NONE,
    };

    const fn has_properties(&self) -> bool {
        self.method.is_some()
            || self.data.is_some()
            || self.reason_string.is_some()
            || !self.user_properties.is_empty()
    }
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(frame: Frame<'a>) -> Result<Auth<'a>, Fault> {
        let mut body = frame.body;
        // "The Reason Code and Property Length can be omitted if the Reason Code is 0x00 (Success)
        // and there are no Properties" (3.15.2.1).
        if body.is_empty() {
            return Ok(Auth::SUCCESS);
        }
        let code = reason_code(PacketType::Auth, &mut body)?;
        let mut auth = Auth { code, ..Auth::SUCCESS };
        auth.read_properties(&mut body)?;
        body.finish("AUTH: bytes after the properties")?;
        // "It is a Protocol Error to omit the Authentication Method" (3.15.2.2.2); a success
        // without any property may be written out in full as well as omitted.
        if auth.method.is_none() && (auth.code != ReasonCode::Success || auth.has_properties()) {
            return Err(Fault::protocol("AUTH: no authentication method [3.15.2.2.2]"));
        }
        Ok(auth)
    }

    fn read_properties(&mut self, body: &mut Reader<'a>) -> Result<(), Fault> {
        let mut block = PropertyReader::open(body)?;
        while let Some(id) = block.advance()? {
            match id {
                PropertyId::AuthenticationMethod => self.method = Some(block.text()?),
                PropertyId::AuthenticationData => self.data = Some(block.binary()?),
                PropertyId::ReasonString => self.reason_string = Some(block.text()?),
                PropertyId::UserProperty => self.user_properties.take(&mut block)?,
                other => return Err(other.misplaced()),
            }
        }
        Ok(())
    }

    /// Appends the packet. There is none in MQTT 3.1.1, and nothing is appended for it.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if version == Version::V5 {
            put_packet(PacketType::Auth.first_byte(), self, version, out);
        }
    }

    /// Appends the packet if it fits in `max` bytes, if need be without user properties and reason
    /// string ([MQTT-3.15.2-2], [MQTT-3.15.2-3]). Says whether it was appended.
    pub fn encode_within(&self, version: Version, max: u32, out: &mut Vec<u8>) -> bool {
        version == Version::V5
            && put_packet_within(PacketType::Auth.first_byte(), self, version, max, out)
    }
}

impl Wire for Auth<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        if self.code != ReasonCode::Success || self.has_properties() {
            out.byte(self.code as u8);
            put_properties(&AuthProperties(self), version, out);
        }
    }
}

impl Explained for Auth<'_> {
    fn drop_user_properties(&mut self) {
        self.user_properties = UserProperties::NONE;
    }

    fn drop_reason_string(&mut self) {
        self.reason_string = None;
    }
}

struct AuthProperties<'a>(&'a Auth<'a>);

impl Wire for AuthProperties<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        let AuthProperties(auth) = self;
        out.text_property(PropertyId::AuthenticationMethod, auth.method);
        out.binary_property(PropertyId::AuthenticationData, auth.data);
        out.text_property(PropertyId::ReasonString, auth.reason_string);
        auth.user_properties.write(version, out);
    }
}
