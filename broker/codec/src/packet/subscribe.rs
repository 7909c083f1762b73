//! SUBSCRIBE (section 3.8): topic filters, each with its options.
//!
//! The syntax of the filters is not judged here: a server answers a wrong one with 0x8F for that
//! filter alone, and asks [`check_filter`](crate::check_filter).

use smallvec::SmallVec;

use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::id::PacketId;
use crate::packet::packet_id;
use crate::property::{PropertyId, PropertyReader, PropertySink};
use crate::qos::QoS;
use crate::reader::{Reader, place};
use crate::topic::is_shared;
use crate::user_properties::UserProperties;
use crate::version::Version;
use crate::wire::{Sink, Wire, put_packet, put_properties};

/// A request for subscriptions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscribe<'a> {
    /// Ties the SUBACK to this packet.
    pub id: PacketId,
    /// The number that comes back with every message these subscriptions match.
    pub subscription_id: Option<u32>,
    /// The sender's own pairs.
    pub user_properties: UserProperties<'a>,
    /// The topic filters, at least one.
    pub filters: SmallVec<[(&'a str, SubscribeOptions); 4]>,
}

/// The options of one subscription. MQTT 3.1.1 has the QoS only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct SubscribeOptions {
    /// The highest QoS at which messages are to come.
    pub qos: QoS,
    /// Do not send the subscriber what it published itself.
    pub no_local: bool,
    /// Leave the RETAIN flag as the publisher set it.
    pub retain_as_published: bool,
    /// What to do with retained messages on subscribing.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent to a new subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// At every SUBSCRIBE [MQTT-3.3.1-9].
    #[default]
    Send = 0,
    /// Only if the subscription did not exist [MQTT-3.3.1-10].
    SendIfNew = 1,
    /// Never [MQTT-3.3.1-11].
    DoNotSend = 2,
}

const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RESERVED: u8 = 0b1100_0000;

impl SubscribeOptions {
    /// Options that say no more than MQTT 3.1.1 can.
    pub const fn with_qos(qos: QoS) -> SubscribeOptions {
        SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    /// The options byte of MQTT 5 (3.8.3.1).
    pub const fn to_byte(self) -> u8 {
        let no_local = if self.no_local { NO_LOCAL } else { 0 };
        let as_published = if self.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
        self.qos as u8 | no_local | as_published | (self.retain_handling as u8) << 4
    }

    /// The options for a byte of MQTT 5.
    ///
    /// # Errors
    ///
    /// Reserved bits are malformed [MQTT-3.8.3-5]; QoS 3 and retain handling 3 protocol errors.
    pub fn from_byte(byte: u8) -> Result<SubscribeOptions, Fault> {
        if byte & RESERVED != 0 {
            return Err(Fault::malformed("SUBSCRIBE: reserved option bits [MQTT-3.8.3-5]"));
        }
        let qos = QoS::from_bits(byte & 0b11)
            .ok_or(Fault::protocol("SUBSCRIBE: maximum QoS 3 [3.8.3.1]"))?;
        let retain_handling = match byte >> 4 & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Fault::protocol("SUBSCRIBE: retain handling 3 [3.8.3.1]")),
        };
        Ok(SubscribeOptions {
            qos,
            no_local: byte & NO_LOCAL != 0,
            retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    /// The requested QoS is all of the byte in MQTT 3.1.1: "the Server MUST treat a SUBSCRIBE
    /// packet as malformed … if any of Reserved bits in the payload are non-zero, or QoS is not
    /// 0,1 or 2" [MQTT-3-8.3-4].
    fn from_v311_byte(byte: u8) -> Result<SubscribeOptions, Fault> {
        QoS::from_bits(byte)
            .map(SubscribeOptions::with_qos)
            .ok_or(Fault::malformed("SUBSCRIBE: requested QoS [MQTT-3-8.3-4]"))
    }
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(version: Version, frame: Frame<'a>) -> Result<Subscribe<'a>, Fault> {
        let mut body = frame.body;
        let id = packet_id(&mut body, place!("SUBSCRIBE: packet identifier"))?;
        let mut subscribe = Subscribe {
            id,
            subscription_id: None,
            user_properties: UserProperties::NONE,
            filters: SmallVec::new(),
        };
        if version == Version::V5 {
            subscribe.read_properties(&mut body)?;
        }
        while !body.is_empty() {
            let filter = topic_filter(&mut body)?;
            let byte = body.byte(place!("SUBSCRIBE: subscription options"))?;
            let options = match version {
                Version::V311 => SubscribeOptions::from_v311_byte(byte)?,
                Version::V5 => SubscribeOptions::from_byte(byte)?,
            };
            // "It is a Protocol Error to set the No Local bit to 1 on a Shared Subscription"
            // [MQTT-3.8.3-4].
            if options.no_local && is_shared(filter) {
                return Err(Fault::protocol(
                    "SUBSCRIBE: No Local on a shared subscription [MQTT-3.8.3-4]",
                ));
            }
            subscribe.filters.push((filter, options));
        }
        // "The Payload MUST contain at least one Topic Filter and Subscription Options pair"
        // [MQTT-3.8.3-2].
        if subscribe.filters.is_empty() {
            return Err(Fault::protocol("SUBSCRIBE: no topic filter [MQTT-3.8.3-2]"));
        }
        Ok(subscribe)
    }

    fn read_properties(&mut self, body: &mut Reader<'a>) -> Result<(), Fault> {
        let mut block = PropertyReader::open(body)?;
        while let Some(id) = block.advance()? {
            match id {
                PropertyId::SubscriptionIdentifier => {
                    // 0 and a second one are Protocol Errors (3.8.2.1.2).
                    match (self.subscription_id, block.varint()?) {
                        (None, 0) => return Err(id.out_of_range()),
                        (None, value) => self.subscription_id = Some(value),
                        (Some(_), _) => return Err(id.twice()),
                    }
                }
                PropertyId::UserProperty => self.user_properties.take(&mut block)?,
                other => return Err(other.misplaced()),
            }
        }
        Ok(())
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(PacketType::Subscribe.first_byte(), self, version, out);
    }
}

/// A topic filter of SUBSCRIBE or UNSUBSCRIBE: "All Topic Names and Topic Filters MUST be at least
/// one character long" [MQTT-4.7.3-1].
pub(crate) fn topic_filter<'a>(body: &mut Reader<'a>) -> Result<&'a str, Fault> {
    let filter = body.text(place!("topic filter"))?;
    if filter.is_empty() {
        return Err(Fault::malformed("topic filter is empty [MQTT-4.7.3-1]"));
    }
    Ok(filter)
}

impl Wire for Subscribe<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.u16(self.id.get());
        put_properties(&SubscribeProperties(self), version, out);
        for (filter, options) in &self.filters {
            out.text(filter);
            out.byte(match version {
                Version::V311 => options.qos as u8,
                Version::V5 => options.to_byte(),
            });
        }
    }
}

struct SubscribeProperties<'p, 'a>(&'p Subscribe<'a>);

impl Wire for SubscribeProperties<'_, '_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        if let Some(id) = self.0.subscription_id {
            out.varint_property(PropertyId::SubscriptionIdentifier, id);
        }
        self.0.user_properties.write(version, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_legal_options_byte_comes_back_and_no_other_is_taken() {
        for byte in 0..=u8::MAX {
            let legal = byte & RESERVED == 0 && byte & 0b11 != 3 && byte >> 4 & 0b11 != 3;
            match SubscribeOptions::from_byte(byte) {
                Ok(options) => assert!(legal && options.to_byte() == byte, "{byte:08b}"),
                Err(fault) => assert!(!legal, "{byte:08b}: {fault}"),
            }
        }
    }
}
