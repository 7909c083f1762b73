//! CONNECT (section 3.1): the first packet of a connection, in which a client names itself.
//!
//! The packet also says which version the connection speaks, so that it can be decoded without
//! knowing ([`decode_connect`]). Whether the client may have what it asks for is not decided here;
//! a client identifier of no characters is passed on as it is.

use std::num::{NonZeroU16, NonZeroU32};

use super::will::Will;
use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::property::{PropertyId, PropertyReader, PropertySink};
use crate::qos::QoS;
use crate::reader::{Reader, place};
use crate::reason::ReasonCode;
use crate::user_properties::UserProperties;
use crate::version::Version;
use crate::wire::{Sink, Wire, put_packet, put_properties};

/// A request for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connect<'a> {
    /// The version the client speaks, as found in the packet.
    pub version: Version,
    /// The client is a bridge and is to get nothing back that it sent: the highest bit of the
    /// protocol level, a convention older than MQTT 5 and known in MQTT 3.1.1 only.
    pub bridge: bool,
    /// Whether to forget an earlier session (in MQTT 3.1.1: clean session).
    pub clean_start: bool,
    /// The longest silence between two packets of the client; 0 turns the check off.
    pub keep_alive_secs: u16,
    /// The client identifier, possibly empty.
    pub client_id: &'a str,
    /// The message to publish when the client is gone.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password: any bytes. In MQTT 3.1.1 only together with a user name.
    pub password: Option<&'a [u8]>,
    /// The properties; none in MQTT 3.1.1.
    pub properties: ConnectProperties<'a>,
}

/// The properties of CONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectProperties<'a> {
    /// How long to keep the session after the connection; `u32::MAX` for ever.
    pub session_expiry_secs: Option<u32>,
    /// How many QoS 1 and QoS 2 publications the client takes at once.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet the client takes, in bytes.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The highest topic alias the client takes.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the client wants response information in CONNACK.
    pub request_response_information: Option<bool>,
    /// Whether the client wants reason strings and user properties with failures.
    pub request_problem_information: Option<bool>,
    /// The method of extended authentication.
    pub authentication_method: Option<&'a str>,
    /// The first data of that method.
    pub authentication_data: Option<&'a [u8]>,
    /// The sender's own pairs.
    pub user_properties: UserProperties<'a>,
}

const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

/// The bit of bridges in the protocol level.
const BRIDGE: u8 = 0x80;
const PROTOCOL_NAME: &str = "MQTT";
/// The protocol name of MQTT 3.1, which came before the standard.
const PROTOCOL_NAME_V31: &str = "MQIsdp";

/// Decodes the first packet of a connection on the server, which must be CONNECT, and finds the
/// version in it.
///
/// # Errors
///
/// `UnsupportedProtocolVersion` for any version but the two; `ProtocolError` for any other packet
/// ("the first packet sent from the Client to the Server MUST be a CONNECT packet"
/// [MQTT-3.1.0-1]).
pub fn decode_connect(frame: &[u8]) -> Result<Connect<'_>, Fault> {
    let frame = Frame::split(frame)?;
    if frame.packet_type != PacketType::Connect {
        return Err(Fault::protocol("the first packet is not CONNECT [MQTT-3.1.0-1]"));
    }
    frame.check_flags()?;
    Connect::decode(frame)
}

impl<'a> Connect<'a> {
    pub(crate) fn decode(frame: Frame<'a>) -> Result<Connect<'a>, Fault> {
        let mut body = frame.body;
        let (version, bridge) = read_version(&mut body)?;
        let flags = Flags::decode(version, body.byte(place!("CONNECT: flags"))?)?;
        let keep_alive_secs = body.u16(place!("CONNECT: keep alive"))?;
        let properties = match version {
            Version::V311 => ConnectProperties::default(),
            Version::V5 => ConnectProperties::decode(&mut body)?,
        };
        // The fields "MUST appear in the order Client Identifier, Will Properties, Will Topic, Will
        // Payload, User Name, Password" [MQTT-3.1.3-1].
        let client_id = body.text(place!("CONNECT: client identifier"))?;
        let will = match flags.will {
            Some((qos, retain)) => Some(Will::decode(version, qos, retain, &mut body)?),
            None => None,
        };
        let username = match flags.username {
            true => Some(body.text(place!("CONNECT: user name"))?),
            false => None,
        };
        let password = match flags.password {
            true => Some(body.binary(place!("CONNECT: password"))?),
            false => None,
        };
        body.finish("CONNECT: bytes after the last field")?;
        Ok(Connect {
            version,
            bridge,
            clean_start: flags.clean_start,
            keep_alive_secs,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }

    /// Appends the packet, in the version given here whatever the field says.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(PacketType::Connect.first_byte(), self, version, out);
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos as u8) << 3;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.username.is_some() {
            flags |= USER_NAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        flags
    }
}

/// "The protocol name MUST be the UTF-8 String "MQTT"" [MQTT-3.1.2-1]; for a version the server
/// does not speak it answers 0x84 [MQTT-3.1.2-2].
fn read_version(body: &mut Reader<'_>) -> Result<(Version, bool), Fault> {
    let refused = |what| Fault::new(ReasonCode::UnsupportedProtocolVersion, what);
    let name = body.text(place!("CONNECT: protocol name"))?;
    if name == PROTOCOL_NAME_V31 {
        return Err(refused("CONNECT: MQTT 3.1 is not spoken here [MQTT-3.1.2-2]"));
    }
    if name != PROTOCOL_NAME {
        return Err(refused("CONNECT: protocol name is not MQTT [MQTT-3.1.2-1]"));
    }
    let level = body.byte(place!("CONNECT: protocol version"))?;
    if level == Version::V311.level() | BRIDGE {
        return Ok((Version::V311, true));
    }
    Version::from_level(level)
        .map(|version| (version, false))
        .ok_or(refused("CONNECT: protocol version is neither 4 nor 5 [MQTT-3.1.2-2]"))
}

/// The connect flags (3.1.2.3), in terms of what follows.
struct Flags {
    clean_start: bool,
    /// QoS and RETAIN of the will, if there is one.
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl Flags {
    fn decode(version: Version, byte: u8) -> Result<Flags, Fault> {
        // "The Server MUST validate that the reserved flag in the CONNECT packet is set to 0"
        // [MQTT-3.1.2-3].
        if byte & RESERVED != 0 {
            return Err(Fault::malformed("CONNECT: reserved flag set [MQTT-3.1.2-3]"));
        }
        let will_qos = QoS::from_bits(byte >> 3 & 0b11)
            .ok_or(Fault::malformed("CONNECT: will QoS 3 [MQTT-3.1.2-12]"))?;
        let will_retain = byte & WILL_RETAIN != 0;
        let will = match byte & WILL != 0 {
            true => Some((will_qos, will_retain)),
            false if will_qos > QoS::AtMostOnce => {
                return Err(Fault::malformed("CONNECT: will QoS without will [MQTT-3.1.2-11]"));
            }
            false if will_retain => {
                return Err(Fault::malformed("CONNECT: will retain without will [MQTT-3.1.2-13]"));
            }
            false => None,
        };
        let username = byte & USER_NAME != 0;
        let password = byte & PASSWORD != 0;
        // "If the User Name Flag is set to 0, the Password Flag MUST be set to 0" (3.1.1,
        // [MQTT-3.1.2-22]); MQTT 5 allows a password alone.
        if version == Version::V311 && password && !username {
            return Err(Fault::malformed("CONNECT: password without user name [MQTT-3.1.2-22]"));
        }
        Ok(Flags { clean_start: byte & CLEAN_START != 0, will, username, password })
    }
}

impl<'a> ConnectProperties<'a> {
    fn decode(body: &mut Reader<'a>) -> Result<ConnectProperties<'a>, Fault> {
        let mut properties = ConnectProperties::default();
        let mut block = PropertyReader::open(body)?;
        while let Some(id) = block.advance()? {
            properties.take(id, &mut block)?;
        }
        // "It is a Protocol Error to include Authentication Data if there is no Authentication
        // Method" (3.1.2.11.10).
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(Fault::protocol(
                "CONNECT: authentication data without method [3.1.2.11.10]",
            ));
        }
        Ok(properties)
    }

    fn take(&mut self, id: PropertyId, block: &mut PropertyReader<'a>) -> Result<(), Fault> {
        match id {
            PropertyId::SessionExpiryInterval => self.session_expiry_secs = Some(block.u32()?),
            PropertyId::ReceiveMaximum => {
                let value = NonZeroU16::new(block.u16()?).ok_or(id.out_of_range())?;
                self.receive_maximum = Some(value);
            }
            PropertyId::MaximumPacketSize => {
                let value = NonZeroU32::new(block.u32()?).ok_or(id.out_of_range())?;
                self.maximum_packet_size = Some(value);
            }
            PropertyId::TopicAliasMaximum => self.topic_alias_maximum = Some(block.u16()?),
            PropertyId::RequestResponseInformation => {
                self.request_response_information = Some(block.flag()?);
            }
            PropertyId::RequestProblemInformation => {
                self.request_problem_information = Some(block.flag()?);
            }
            PropertyId::AuthenticationMethod => self.authentication_method = Some(block.text()?),
            PropertyId::AuthenticationData => self.authentication_data = Some(block.binary()?),
            PropertyId::UserProperty => self.user_properties.take(block)?,
            other => return Err(other.misplaced()),
        }
        Ok(())
    }
}

impl Wire for Connect<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.text(PROTOCOL_NAME);
        let bridge = if self.bridge && version == Version::V311 { BRIDGE } else { 0 };
        out.byte(version.level() | bridge);
        out.byte(self.flags());
        out.u16(self.keep_alive_secs);
        put_properties(&self.properties, version, out);
        out.text(self.client_id);
        if let Some(will) = &self.will {
            will.write(version, out);
        }
        if let Some(username) = self.username {
            out.text(username);
        }
        if let Some(password) = self.password {
            out.binary(password);
        }
    }
}

impl Wire for ConnectProperties<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        use PropertyId as P;
        out.u32_property(P::SessionExpiryInterval, self.session_expiry_secs);
        out.u16_property(P::ReceiveMaximum, self.receive_maximum.map(NonZeroU16::get));
        out.u32_property(P::MaximumPacketSize, self.maximum_packet_size.map(NonZeroU32::get));
        out.u16_property(P::TopicAliasMaximum, self.topic_alias_maximum);
        out.flag_property(P::RequestResponseInformation, self.request_response_information);
        out.flag_property(P::RequestProblemInformation, self.request_problem_information);
        out.text_property(P::AuthenticationMethod, self.authentication_method);
        out.binary_property(P::AuthenticationData, self.authentication_data);
        self.user_properties.write(version, out);
    }
}
