//! The server's outgoing PUBLISH: encoded once per shape, copied per receiver, with the packet
//! identifier patched into the copy.
//!
//! The payload is not copied here: the head ends where it begins, so that a writer can send head
//! and shared payload one after the other.

use super::publish::first_byte;
use crate::id::PacketId;
use crate::property::{PropertyId, PropertySink};
use crate::qos::QoS;
use crate::version::Version;
use crate::wire::{Sink, Wire, packet_len, put_properties};

/// Everything of a PUBLISH but its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublishHead<'a> {
    /// The receiver's version.
    pub version: Version,
    /// The packet may have been sent before.
    pub dup: bool,
    /// The QoS towards this receiver.
    pub qos: QoS,
    /// The RETAIN flag towards this receiver.
    pub retain: bool,
    /// The topic name; empty when the receiver already knows the alias.
    pub topic: &'a str,
    /// The publisher's properties in wire form, from
    /// [`forwardable`](crate::PublishProperties::forwardable).
    pub forwardable: &'a [u8],
    /// What is left of the message's expiry interval [MQTT-3.3.2-6].
    pub message_expiry_secs: Option<u32>,
    /// The alias for the topic on this connection.
    pub topic_alias: Option<u16>,
    /// The identifiers of the subscriptions that matched [MQTT-3.3.4-3].
    pub subscription_ids: &'a [u32],
    /// The length of the payload that will follow.
    pub payload_len: usize,
}

impl PublishHead<'_> {
    /// Appends fixed header, topic name, packet identifier (0 when `id` is `None`) and properties;
    /// the payload is to follow. Gives the offset of the packet identifier from the start of this
    /// packet, for [`patch_packet_id`]; `None` for QoS 0, which has none.
    pub fn encode(&self, id: Option<PacketId>, out: &mut Vec<u8>) -> Option<usize> {
        let start = out.len();
        let body_len = self.wire_len(self.version) + self.payload_len;
        out.reserve(packet_len(body_len) - self.payload_len);
        out.byte(first_byte(self.dup, self.qos, self.retain));
        out.varint(body_len as u32);
        out.text(self.topic);
        let id_offset = out.len() - start;
        self.write_after_topic(id, out);
        (self.qos > QoS::AtMostOnce).then_some(id_offset)
    }

    /// The length of the whole packet, payload included.
    pub fn packet_len(&self) -> usize {
        packet_len(self.wire_len(self.version) + self.payload_len)
    }

    #[inline]
    fn write_after_topic<S: Sink>(&self, id: Option<PacketId>, out: &mut S) {
        if self.qos > QoS::AtMostOnce {
            out.u16(id.map_or(0, PacketId::get));
        }
        put_properties(&HeadProperties(self), self.version, out);
    }
}

impl Wire for PublishHead<'_> {
    #[inline]
    fn write<S: Sink>(&self, _version: Version, out: &mut S) {
        out.text(self.topic);
        self.write_after_topic(None, out);
    }
}

struct HeadProperties<'a>(&'a PublishHead<'a>);

impl Wire for HeadProperties<'_> {
    #[inline]
    fn write<S: Sink>(&self, _version: Version, out: &mut S) {
        let HeadProperties(head) = self;
        out.u32_property(PropertyId::MessageExpiryInterval, head.message_expiry_secs);
        out.u16_property(PropertyId::TopicAlias, head.topic_alias);
        for id in head.subscription_ids {
            out.varint_property(PropertyId::SubscriptionIdentifier, *id);
        }
        out.put(head.forwardable);
    }
}

/// Writes the packet identifier into a PUBLISH that starts with `packet[0]`, at the offset that
/// [`PublishHead::encode`] gave.
///
/// # Panics
///
/// When the packet ends before `offset + 2`, which no packet with that offset does.
#[inline]
pub fn patch_packet_id(packet: &mut [u8], offset: usize, id: PacketId) {
    packet[offset..offset + 2].copy_from_slice(&id.get().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Packet, PropertyBlock, Receiver, decode};

    fn head(version: Version, qos: QoS, forwardable: &[u8]) -> PublishHead<'_> {
        PublishHead {
            version,
            dup: false,
            qos,
            retain: true,
            topic: "im/g/42",
            forwardable,
            message_expiry_secs: Some(60),
            topic_alias: Some(3),
            subscription_ids: &[1, 300],
            payload_len: 5,
        }
    }

    #[test]
    fn a_head_and_a_payload_make_a_publish() {
        let block = PropertyBlock::new().with("im-seq", "17");
        for version in [Version::V311, Version::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let head = head(version, qos, block.as_bytes());
                let mut bytes = b"before".to_vec();
                let offset = head.encode(None, &mut bytes);
                bytes.extend_from_slice(b"hello");
                let packet = &mut bytes[6..];
                assert_eq!(packet.len(), head.packet_len());
                assert_eq!(offset.is_some(), qos > QoS::AtMostOnce);
                let id = PacketId::new(0xABCD);
                if let (Some(offset), Some(id)) = (offset, id) {
                    patch_packet_id(packet, offset, id);
                }
                let Ok(Packet::Publish(publish)) = decode(version, Receiver::Client, packet) else {
                    panic!("a PUBLISH");
                };
                assert_eq!(publish.id, offset.and(id));
                assert_eq!((publish.topic, publish.payload), ("im/g/42", &b"hello"[..]));
                assert!(publish.retain);
                if version == Version::V5 {
                    assert_eq!(publish.properties.message_expiry_secs, Some(60));
                    assert_eq!(publish.properties.topic_alias, Some(3));
                    assert!(publish.properties.subscription_ids.iter().eq([1, 300]));
                    assert_eq!(*publish.properties.forwardable(), *block.as_bytes());
                }
            }
        }
    }

    #[test]
    fn an_identifier_given_at_once_is_the_one_patched_later() {
        let head = head(Version::V5, QoS::AtLeastOnce, &[]);
        let id = PacketId::new(7).expect("not 0");
        let (mut at_once, mut later) = (Vec::new(), Vec::new());
        head.encode(Some(id), &mut at_once);
        let offset = head.encode(None, &mut later).expect("QoS 1");
        patch_packet_id(&mut later, offset, id);
        assert_eq!(at_once, later);
    }
}
