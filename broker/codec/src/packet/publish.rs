//! PUBLISH (section 3.3): a message, from either side.
//!
//! The packet that counts: decoding borrows everything and allocates nothing. What a server sends
//! to many receivers is encoded by [`PublishHead`](crate::PublishHead) instead.

use super::publish_properties::PublishProperties;
use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::id::PacketId;
use crate::packet::{Receiver, packet_id};
use crate::property::{PropertyId, PropertyReader};
use crate::qos::QoS;
use crate::reader::{Reader, has_any, place};
use crate::reason::ReasonCode;
use crate::version::Version;
use crate::wire::{Sink, Wire, put_packet, put_properties};

/// A message on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// The packet may have been sent before. Never set with QoS 0.
    pub dup: bool,
    /// How the delivery is to be assured.
    pub qos: QoS,
    /// From a client: keep the message for later subscribers. From a server: it was kept.
    pub retain: bool,
    /// The topic name. Empty only in MQTT 5, when a topic alias stands for it.
    pub topic: &'a str,
    /// The packet identifier: there for QoS 1 and 2, `None` for QoS 0.
    pub id: Option<PacketId>,
    /// The properties; none in MQTT 3.1.1.
    pub properties: PublishProperties<'a>,
    /// The message itself.
    pub payload: &'a [u8],
}

const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;

/// The first byte of a PUBLISH.
#[inline]
pub(crate) const fn first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    let dup = if dup { DUP } else { 0 };
    let retain = if retain { RETAIN } else { 0 };
    (PacketType::Publish as u8) << 4 | dup | (qos as u8) << 1 | retain
}

impl<'a> Publish<'a> {
    #[inline]
    pub(crate) fn decode(
        version: Version,
        receiver: Receiver,
        frame: Frame<'a>,
    ) -> Result<Publish<'a>, Fault> {
        let Frame { flags, mut body, .. } = frame;
        // "A PUBLISH Packet MUST NOT have both QoS bits set to 1" [MQTT-3.3.1-4].
        let qos = QoS::from_bits(flags >> 1 & 0b11)
            .ok_or(Fault::malformed("PUBLISH: QoS 3 [MQTT-3.3.1-4]"))?;
        let dup = flags & DUP != 0;
        // "The DUP flag MUST be set to 0 for all QoS 0 messages" [MQTT-3.3.1-2].
        if dup && qos == QoS::AtMostOnce {
            return Err(Fault::malformed("PUBLISH: DUP with QoS 0 [MQTT-3.3.1-2]"));
        }
        let topic = topic_name(&mut body)?;
        // "A PUBLISH packet MUST NOT contain a Packet Identifier if its QoS value is set to 0"
        // [MQTT-2.2.1-2].
        let id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(packet_id(&mut body, place!("PUBLISH: packet identifier"))?),
        };
        let mut properties = PublishProperties::default();
        if version == Version::V5 {
            read_properties(receiver, &mut body, &mut properties)?;
        }
        if topic.is_empty() {
            check_alias(version, &properties)?;
        }
        let payload = body.take_rest();
        Ok(Publish { dup, qos, retain: flags & RETAIN != 0, topic, id, properties, payload })
    }

    /// Appends the packet. Above QoS 0 it needs a packet identifier.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(first_byte(self.dup, self.qos, self.retain), self, version, out);
    }
}

/// "The Topic Name in the PUBLISH packet MUST NOT contain wildcard characters" [MQTT-3.3.2-2].
#[inline]
fn topic_name<'a>(body: &mut Reader<'a>) -> Result<&'a str, Fault> {
    let topic = body.text(place!("PUBLISH: topic name"))?;
    if has_any(topic.as_bytes(), |byte| byte == b'+' || byte == b'#') {
        return Err(Fault::malformed("PUBLISH: wildcard in the topic name [MQTT-3.3.2-2]"));
    }
    Ok(topic)
}

/// A topic name is empty only when an alias stands for it.
fn check_alias(version: Version, properties: &PublishProperties<'_>) -> Result<(), Fault> {
    match (version, properties.topic_alias) {
        (Version::V5, Some(_)) => Ok(()),
        // "It is a Protocol Error if the Topic Name is zero length and there is no Topic Alias"
        // (3.3.2.1).
        (Version::V5, None) => {
            Err(Fault::protocol("PUBLISH: neither topic name nor topic alias [3.3.2.1]"))
        }
        (Version::V311, _) => Err(Fault::malformed("PUBLISH: empty topic name [MQTT-4.7.3-1]")),
    }
}

/// Fills in the properties where they are to stay; they are too large to be handed around.
#[inline]
fn read_properties<'a>(
    receiver: Receiver,
    body: &mut Reader<'a>,
    properties: &mut PublishProperties<'a>,
) -> Result<(), Fault> {
    let mut block = PropertyReader::open(body)?;
    *properties = PublishProperties::received();
    while let Some(id) = block.advance()? {
        match id {
            PropertyId::TopicAlias => {
                // "A sender MUST NOT send a PUBLISH packet containing a Topic Alias which has the
                // value 0" [MQTT-3.3.2-8].
                properties.topic_alias = match block.u16()? {
                    0 => {
                        return Err(Fault::new(
                            ReasonCode::TopicAliasInvalid,
                            "PUBLISH: topic alias 0 [MQTT-3.3.2-8]",
                        ));
                    }
                    alias => Some(alias),
                }
            }
            PropertyId::SubscriptionIdentifier => {
                // "A PUBLISH packet sent from a Client to a Server MUST NOT contain a Subscription
                // Identifier" [MQTT-3.3.4-6].
                if receiver == Receiver::Server {
                    return Err(Fault::protocol(
                        "PUBLISH: subscription identifier from a client [MQTT-3.3.4-6]",
                    ));
                }
                properties.subscription_ids.take(&mut block)?;
            }
            shared => properties.take(shared, &mut block)?,
        }
    }
    Ok(())
}

impl Wire for Publish<'_> {
    #[inline]
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.text(self.topic);
        if self.qos > QoS::AtMostOnce {
            out.u16(self.id.map_or(0, PacketId::get));
        }
        put_properties(&self.properties, version, out);
        out.put(self.payload);
    }
}
