//! The properties of a message: of a PUBLISH, and with few differences of a will.
//!
//! Keeps, besides the values, where in the packet the part lies that a server passes on unaltered
//! ([`PublishProperties::forwardable`]), so that forwarding usually copies nothing and never
//! reorders ([MQTT-3.3.2-17], [MQTT-3.3.2-18]).

use std::borrow::Cow;
use std::fmt;

use crate::fault::Fault;
use crate::property::{PropertyId, PropertyReader, PropertySink};
use crate::selection::Selection;
use crate::topic::has_wildcard;
use crate::user_properties::UserProperties;
use crate::version::Version;
use crate::wire::{MAX_VARINT, Sink, Wire};

/// The properties of a message. [`Default`] has none; the fields decide what is encoded.
#[derive(Clone, Copy, Default)]
pub struct PublishProperties<'a> {
    /// `Some(true)`: the payload is UTF-8; `Some(false)`: unspecified bytes.
    pub payload_format_utf8: Option<bool>,
    /// How long the message is worth delivering.
    pub message_expiry_secs: Option<u32>,
    /// The number that stands, or from now on stands, for the topic name. Never 0.
    pub topic_alias: Option<u16>,
    /// Where an answer is to be published. Checked to be a topic name.
    pub response_topic: Option<&'a str>,
    /// What the answer has to carry to be recognised.
    pub correlation_data: Option<&'a [u8]>,
    /// What the payload is, in words the receiver understands.
    pub content_type: Option<&'a str>,
    /// The sender's own pairs.
    pub user_properties: UserProperties<'a>,
    /// The subscriptions that matched; from a server only.
    pub subscription_ids: SubscriptionIds<'a>,
    /// What is to be passed on, for properties that came in a packet.
    received: Option<Selection<'a>>,
}

impl<'a> PublishProperties<'a> {
    /// Properties about to be read from a packet.
    pub(crate) fn received() -> PublishProperties<'a> {
        PublishProperties { received: Some(Selection::NONE), ..PublishProperties::default() }
    }

    /// Reads one of the properties that a PUBLISH and a will have in common.
    pub(crate) fn take(
        &mut self,
        id: PropertyId,
        block: &mut PropertyReader<'a>,
    ) -> Result<(), Fault> {
        match id {
            PropertyId::MessageExpiryInterval => {
                self.message_expiry_secs = Some(block.u32()?);
                return Ok(());
            }
            PropertyId::PayloadFormatIndicator => {
                self.payload_format_utf8 = Some(block.flag()?);
            }
            PropertyId::ContentType => self.content_type = Some(block.text()?),
            PropertyId::ResponseTopic => self.response_topic = Some(response_topic(block)?),
            PropertyId::CorrelationData => self.correlation_data = Some(block.binary()?),
            PropertyId::UserProperty => self.user_properties.take(block)?,
            other => return Err(other.misplaced()),
        }
        if let Some(received) = &mut self.received {
            received.add(block);
        }
        Ok(())
    }

    /// The properties a server passes on unaltered and in order, in wire form without the length
    /// in front: all but message expiry, topic alias, subscription identifiers and will delay.
    ///
    /// For a decoded packet these are the bytes as they came, whatever was changed in the fields
    /// since; borrowed unless one of the others lies in between. For properties set up by hand
    /// they are written from the fields.
    pub fn forwardable(&self) -> Cow<'a, [u8]> {
        if let Some(bytes) = self.received.and_then(|received| received.in_one_piece()) {
            return Cow::Borrowed(bytes);
        }
        let mut bytes = Vec::new();
        match self.received {
            Some(received) => received.write(is_forwarded, &mut bytes),
            None => self.write_forwardable(&mut bytes),
        }
        if bytes.is_empty() { Cow::Borrowed(&[]) } else { Cow::Owned(bytes) }
    }

    /// Reads a block made by [`forwardable`](PublishProperties::forwardable) and kept since. The
    /// bytes are trusted: should they be damaged, what follows the damage is missing.
    pub fn from_forwardable(raw: &'a [u8]) -> PublishProperties<'a> {
        let mut block = PropertyReader::over(raw);
        let mut properties = PublishProperties::received();
        while let Ok(Some(id)) = block.advance() {
            if properties.take(id, &mut block).is_err() {
                break;
            }
        }
        properties
    }

    fn write_forwardable<S: Sink>(&self, out: &mut S) {
        out.flag_property(PropertyId::PayloadFormatIndicator, self.payload_format_utf8);
        out.text_property(PropertyId::ContentType, self.content_type);
        out.text_property(PropertyId::ResponseTopic, self.response_topic);
        out.binary_property(PropertyId::CorrelationData, self.correlation_data);
        self.user_properties.write(Version::V5, out);
    }
}

/// Whether a server passes the property on unaltered.
fn is_forwarded(id: PropertyId) -> bool {
    matches!(
        id,
        PropertyId::PayloadFormatIndicator
            | PropertyId::ContentType
            | PropertyId::ResponseTopic
            | PropertyId::CorrelationData
            | PropertyId::UserProperty
    )
}

/// A response topic is a topic name: not empty [MQTT-4.7.3-1], no wildcards [MQTT-3.3.2-14].
fn response_topic<'a>(block: &mut PropertyReader<'a>) -> Result<&'a str, Fault> {
    let topic = block.text()?;
    if topic.is_empty() {
        return Err(Fault::malformed("property Response Topic is empty [MQTT-4.7.3-1]"));
    }
    if has_wildcard(topic) {
        return Err(Fault::malformed("property Response Topic has a wildcard [MQTT-3.3.2-14]"));
    }
    Ok(topic)
}

impl Wire for PublishProperties<'_> {
    #[inline]
    fn write<S: Sink>(&self, _version: Version, out: &mut S) {
        out.u32_property(PropertyId::MessageExpiryInterval, self.message_expiry_secs);
        out.u16_property(PropertyId::TopicAlias, self.topic_alias);
        for id in self.subscription_ids {
            out.varint_property(PropertyId::SubscriptionIdentifier, id);
        }
        self.write_forwardable(out);
    }
}

/// Equal when the values are; the order of the properties on the wire is left aside.
impl PartialEq for PublishProperties<'_> {
    fn eq(&self, other: &PublishProperties<'_>) -> bool {
        self.payload_format_utf8 == other.payload_format_utf8
            && self.message_expiry_secs == other.message_expiry_secs
            && self.topic_alias == other.topic_alias
            && self.response_topic == other.response_topic
            && self.correlation_data == other.correlation_data
            && self.content_type == other.content_type
            && self.user_properties == other.user_properties
            && self.subscription_ids == other.subscription_ids
    }
}

impl Eq for PublishProperties<'_> {}

impl fmt::Debug for PublishProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishProperties")
            .field("payload_format_utf8", &self.payload_format_utf8)
            .field("message_expiry_secs", &self.message_expiry_secs)
            .field("topic_alias", &self.topic_alias)
            .field("response_topic", &self.response_topic)
            .field("correlation_data", &self.correlation_data)
            .field("content_type", &self.content_type)
            .field("user_properties", &self.user_properties)
            .field("subscription_ids", &self.subscription_ids)
            .finish()
    }
}

/// The subscription identifiers in a PUBLISH, in their order, as a view into its property block
/// or into a list to be sent.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a> {
    wire: Selection<'a>,
    list: &'a [u32],
}

impl<'a> SubscriptionIds<'a> {
    /// Reads the identifier a walk over a block stands at.
    pub(crate) fn take(&mut self, block: &mut PropertyReader<'a>) -> Result<(), Fault> {
        // "It is a Protocol Error if the Subscription Identifier has a value of 0" (3.3.2.3.8).
        if block.varint()? == 0 {
            return Err(PropertyId::SubscriptionIdentifier.out_of_range());
        }
        self.wire.add(block);
        Ok(())
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.wire.is_empty() && self.list.is_empty()
    }

    /// The identifiers, in the order they were sent.
    pub fn iter(&self) -> SubscriptionIdIter<'a> {
        SubscriptionIdIter { rest: self.wire.walk(), list: self.list.iter() }
    }
}

/// Identifiers to be sent. Those outside 1 to 268 435 455 do not exist and are passed over.
impl<'a> From<&'a [u32]> for SubscriptionIds<'a> {
    fn from(list: &'a [u32]) -> SubscriptionIds<'a> {
        SubscriptionIds { wire: Selection::NONE, list }
    }
}

impl<'a> IntoIterator for SubscriptionIds<'a> {
    type Item = u32;
    type IntoIter = SubscriptionIdIter<'a>;

    fn into_iter(self) -> SubscriptionIdIter<'a> {
        self.iter()
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &SubscriptionIds<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A walk over the subscription identifiers of a PUBLISH.
pub struct SubscriptionIdIter<'a> {
    rest: PropertyReader<'a>,
    list: std::slice::Iter<'a, u32>,
}

impl Iterator for SubscriptionIdIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while let Ok(Some(id)) = self.rest.advance() {
            if id == PropertyId::SubscriptionIdentifier {
                return self.rest.varint().ok();
            }
            self.rest.skip().ok()?;
        }
        self.list.by_ref().copied().find(|id| (1..=MAX_VARINT).contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Packet, PropertyBlock, Receiver, decode};

    /// A PUBLISH with this property block.
    fn publish(block: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x30, block.len() as u8 + 4, 0, 1, b't', block.len() as u8];
        frame.extend_from_slice(block);
        frame
    }

    fn properties(frame: &[u8]) -> PublishProperties<'_> {
        match decode(Version::V5, Receiver::Client, frame) {
            Ok(Packet::Publish(publish)) => publish.properties,
            other => panic!("{other:?}"),
        }
    }

    const FORMAT: &[u8] = &[0x01, 0x01];
    const EXPIRY: &[u8] = &[0x02, 0, 0, 0, 9];
    const SUBSCRIPTION: &[u8] = &[0x0B, 0x05];
    const ALIAS: &[u8] = &[0x23, 0, 2];
    const USER: &[u8] = &[0x26, 0, 1, b'k', 0, 1, b'v'];
    const CONTENT: &[u8] = &[0x03, 0, 1, b'c'];

    #[test]
    fn what_is_passed_on_is_borrowed_when_it_lies_together() {
        let together: [&[&[u8]]; 5] = [
            &[FORMAT, CONTENT, USER],
            &[EXPIRY, FORMAT, USER],
            &[USER, CONTENT, ALIAS, SUBSCRIPTION],
            &[ALIAS, EXPIRY, USER, USER, SUBSCRIPTION],
            &[ALIAS, EXPIRY],
        ];
        for parts in together {
            let frame = publish(&parts.concat());
            let forwarded = properties(&frame).forwardable();
            assert!(matches!(forwarded, Cow::Borrowed(_)), "{parts:?}");
            assert_eq!(forwarded, expected(parts), "{parts:?}");
        }
    }

    #[test]
    fn what_is_passed_on_keeps_its_order_when_others_lie_between() {
        let apart: [&[&[u8]]; 3] = [
            &[USER, EXPIRY, FORMAT],
            &[CONTENT, SUBSCRIPTION, USER, ALIAS, USER, SUBSCRIPTION],
            &[EXPIRY, FORMAT, ALIAS, CONTENT],
        ];
        for parts in apart {
            let frame = publish(&parts.concat());
            let forwarded = properties(&frame).forwardable();
            assert!(matches!(forwarded, Cow::Owned(_)), "{parts:?}");
            assert_eq!(forwarded, expected(parts), "{parts:?}");
        }
    }

    fn expected(parts: &[&[u8]]) -> Vec<u8> {
        parts
            .iter()
            .filter(|part| ![EXPIRY, SUBSCRIPTION, ALIAS].contains(*part))
            .flat_map(|part| part.iter().copied())
            .collect()
    }

    #[test]
    fn a_kept_block_reads_as_it_was() {
        let frame = publish(&[CONTENT, EXPIRY, USER, FORMAT].concat());
        let original = properties(&frame);
        let kept = original.forwardable();
        let again = PublishProperties::from_forwardable(&kept);
        assert_eq!(again, PublishProperties { message_expiry_secs: None, ..original });
        assert_eq!(again.forwardable(), kept);
        assert!(matches!(again.forwardable(), Cow::Borrowed(_)));
    }

    #[test]
    fn properties_set_by_hand_are_passed_on_from_the_fields() {
        let pairs = PropertyBlock::new().with("k", "v");
        let by_hand = PublishProperties {
            payload_format_utf8: Some(true),
            content_type: Some("c"),
            message_expiry_secs: Some(9),
            user_properties: pairs.user_properties(),
            ..PublishProperties::default()
        };
        assert_eq!(*by_hand.forwardable(), [FORMAT, CONTENT, USER].concat());
    }

    #[test]
    fn subscription_identifiers_come_from_the_wire_or_a_list() {
        let frame = publish(&[SUBSCRIPTION, USER, &[0x0B, 0x80, 0x01]].concat());
        assert!(properties(&frame).subscription_ids.iter().eq([5, 128]));
        let list = [3, 0, u32::MAX, 4];
        assert!(SubscriptionIds::from(&list[..]).iter().eq([3, 4]));
        assert!(SubscriptionIds::default().is_empty());
    }
}
