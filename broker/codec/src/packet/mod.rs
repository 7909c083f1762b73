//! All packets as one type; decoding one, encoding one. One packet, one file; the will, which lies
//! inside CONNECT, and the properties that a PUBLISH shares with it have files of their own.
//!
//! What packets are made of (fixed header, properties, strings, topic syntax) lies beside this
//! folder and knows no packet.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod ping;
mod publish;
mod publish_head;
mod publish_properties;
mod suback;
mod subscribe;
mod unsubscribe;
mod will;

use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::id::PacketId;
use crate::reader::{Place, Reader, place};
use crate::reason::ReasonCode;
use crate::version::Version;

pub use ack::{Ack, AckKind, AckProperties};
pub use auth::Auth;
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, decode_connect};
pub use disconnect::Disconnect;
pub use publish::Publish;
pub use publish_head::{PublishHead, patch_packet_id};
pub use publish_properties::{PublishProperties, SubscriptionIds};
pub use suback::SubAck;
pub use subscribe::{RetainHandling, Subscribe, SubscribeOptions};
pub use unsubscribe::Unsubscribe;
pub use will::Will;

/// Who decodes. It decides which packets and properties are legal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Receiver {
    /// A server: the packet comes from a client.
    Server,
    /// A client: the packet comes from a server.
    Client,
}

/// Any packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// A client asks for a connection.
    Connect(Box<Connect<'a>>),
    /// The server's answer to CONNECT.
    ConnAck(ConnAck<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// Answers a PUBLISH of QoS 1.
    PubAck(Ack<'a>),
    /// Answers a PUBLISH of QoS 2.
    PubRec(Ack<'a>),
    /// Answers a PUBREC.
    PubRel(Ack<'a>),
    /// Answers a PUBREL.
    PubComp(Ack<'a>),
    /// A client subscribes.
    Subscribe(Subscribe<'a>),
    /// The server's answer to SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// A client ends subscriptions.
    Unsubscribe(Unsubscribe<'a>),
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck(SubAck<'a>),
    /// A client shows that it is there.
    PingReq,
    /// The server's answer to PINGREQ.
    PingResp,
    /// The last packet of a connection.
    Disconnect(Disconnect<'a>),
    /// A step of extended authentication.
    Auth(Auth<'a>),
}

/// Decodes one whole packet: exactly the bytes that [`frame_length`](crate::frame_length) cut off.
///
/// The packet borrows from `frame`; only lists of filters and reason codes, when they are long, and
/// CONNECT with its many fields are put on the heap.
///
/// # Errors
///
/// A [`Fault`] for whatever the standard calls malformed or a protocol error and can be seen in the
/// packet alone. An MQTT 3.1.1 connection is closed on any of them [MQTT-4.8.0-1].
#[inline]
pub fn decode<'a>(
    version: Version,
    receiver: Receiver,
    frame: &'a [u8],
) -> Result<Packet<'a>, Fault> {
    let frame = Frame::split(frame)?;
    check_direction(version, receiver, frame.packet_type)?;
    frame.check_flags()?;
    Ok(match frame.packet_type {
        PacketType::Publish => Packet::Publish(Publish::decode(version, receiver, frame)?),
        PacketType::PubAck => Packet::PubAck(Ack::decode(version, frame)?),
        PacketType::PubRec => Packet::PubRec(Ack::decode(version, frame)?),
        PacketType::PubRel => Packet::PubRel(Ack::decode(version, frame)?),
        PacketType::PubComp => Packet::PubComp(Ack::decode(version, frame)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(version, frame)?),
        PacketType::SubAck => Packet::SubAck(SubAck::decode(version, frame)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(version, frame)?),
        PacketType::UnsubAck => Packet::UnsubAck(SubAck::decode(version, frame)?),
        PacketType::PingReq => ping::decode(frame).map(|()| Packet::PingReq)?,
        PacketType::PingResp => ping::decode(frame).map(|()| Packet::PingResp)?,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(version, receiver, frame)?),
        PacketType::Connect => Packet::Connect(Box::new(Connect::decode(frame)?)),
        PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(version, frame)?),
        PacketType::Auth => Packet::Auth(Auth::decode(frame)?),
    })
}

/// Table 2-1: which packets a server receives and which a client.
#[inline]
fn check_direction(
    version: Version,
    receiver: Receiver,
    packet_type: PacketType,
) -> Result<(), Fault> {
    use PacketType as P;
    let to_server = match packet_type {
        P::Publish | P::PubAck | P::PubRec | P::PubRel | P::PubComp => return Ok(()),
        P::Disconnect if version == Version::V5 => return Ok(()),
        P::Auth if version == Version::V5 => return Ok(()),
        // In 3.1.1 the type is reserved and may not be used (section 2.2.1).
        P::Auth => return Err(Fault::malformed("AUTH does not exist in MQTT 3.1.1")),
        P::Connect | P::Subscribe | P::Unsubscribe | P::PingReq | P::Disconnect => true,
        P::ConnAck | P::SubAck | P::UnsubAck | P::PingResp => false,
    };
    if to_server == (receiver == Receiver::Server) {
        Ok(())
    } else if to_server {
        Err(Fault::protocol("fixed header: a server does not send this packet [2.1.2]"))
    } else {
        Err(Fault::protocol("fixed header: a client does not send this packet [2.1.2]"))
    }
}

impl Packet<'_> {
    /// The type in the fixed header.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet. What a version does not know (properties in 3.1.1) is left out.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Packet::Connect(connect) => connect.encode(version, out),
            Packet::ConnAck(connack) => connack.encode(version, out),
            Packet::Publish(publish) => publish.encode(version, out),
            Packet::PubAck(ack) => ack.encode(AckKind::PubAck, version, out),
            Packet::PubRec(ack) => ack.encode(AckKind::PubRec, version, out),
            Packet::PubRel(ack) => ack.encode(AckKind::PubRel, version, out),
            Packet::PubComp(ack) => ack.encode(AckKind::PubComp, version, out),
            Packet::Subscribe(subscribe) => subscribe.encode(version, out),
            Packet::SubAck(suback) => suback.encode(version, out),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Packet::UnsubAck(unsuback) => unsuback.encode_unsuback(version, out),
            Packet::PingReq => ping::encode(PacketType::PingReq, out),
            Packet::PingResp => ping::encode(PacketType::PingResp, out),
            Packet::Disconnect(disconnect) => disconnect.encode(version, out),
            Packet::Auth(auth) => auth.encode(version, out),
        }
    }

    /// Appends the packet if it fits in `max` bytes; an answer if need be without its user
    /// properties and its reason string. Says whether it was appended.
    pub fn encode_within(&self, version: Version, max: u32, out: &mut Vec<u8>) -> bool {
        match self {
            Packet::ConnAck(connack) => connack.encode_within(version, max, out),
            Packet::PubAck(ack) => ack.encode_within(AckKind::PubAck, version, max, out),
            Packet::PubRec(ack) => ack.encode_within(AckKind::PubRec, version, max, out),
            Packet::PubRel(ack) => ack.encode_within(AckKind::PubRel, version, max, out),
            Packet::PubComp(ack) => ack.encode_within(AckKind::PubComp, version, max, out),
            Packet::SubAck(suback) => suback.encode_within(version, max, out),
            Packet::UnsubAck(unsuback) => unsuback.encode_unsuback_within(version, max, out),
            Packet::Disconnect(disconnect) => disconnect.encode_within(version, max, out),
            Packet::Auth(auth) => auth.encode_within(version, max, out),
            whole => {
                let start = out.len();
                whole.encode(version, out);
                let fits = out.len() - start <= max as usize;
                if !fits {
                    out.truncate(start);
                }
                fits
            }
        }
    }
}

/// A packet identifier, which is never 0 ([MQTT-2.2.1-3], [MQTT-2.2.1-4]; 3.1.1:
/// [MQTT-2.3.1-1]).
#[inline]
pub(crate) fn packet_id(body: &mut Reader<'_>, place: &'static Place) -> Result<PacketId, Fault> {
    PacketId::new(body.u16(place)?)
        .ok_or(Fault::protocol("packet identifier 0 [MQTT-2.2.1-3] [MQTT-2.2.1-4]"))
}

/// A reason code that may stand in this packet (table 2-6).
pub(crate) fn reason_code(
    packet_type: PacketType,
    body: &mut Reader<'_>,
) -> Result<ReasonCode, Fault> {
    let code = ReasonCode::try_from(body.byte(place!("reason code"))?)
        .map_err(|_| Fault::malformed("reason code is unknown [2.4]"))?;
    if code.legal_in(packet_type) {
        Ok(code)
    } else {
        Err(Fault::protocol("reason code does not belong to this packet [2.4]"))
    }
}
