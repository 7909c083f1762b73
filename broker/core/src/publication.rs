//! A publication as it travels between threads and into the store: immutable, shared, one
//! allocation for topic, properties and payload.
//!
//! Deliberately not here: per-receiver things (QoS granted, identifiers, DUP), which belong to
//! the session that sends it.

use bytes::Bytes;
use hoopoe_codec::QoS;

/// The parts of a publication before they are put into one.
#[derive(Clone, Copy, Debug)]
pub struct PublicationParts<'a> {
    /// Topic name, already checked.
    pub topic: &'a str,
    /// MQTT 5 properties that pass unaltered, in wire form without their length prefix.
    pub properties: &'a [u8],
    /// Application message.
    pub payload: &'a [u8],
    /// QoS of the publisher's PUBLISH.
    pub qos: QoS,
    /// RETAIN flag of the publisher's PUBLISH.
    pub retain: bool,
    /// When the message expires, in ms since the epoch ([MQTT-3.3.2-5]).
    pub expires_at_ms: Option<u64>,
}

impl PublicationParts<'_> {
    /// Copies the parts into one shared allocation.
    pub fn to_publication(&self) -> Publication {
        let (topic, properties) = (self.topic.as_bytes(), self.properties);
        let mut bytes = Vec::with_capacity(topic.len() + properties.len() + self.payload.len());
        bytes.extend_from_slice(topic);
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(self.payload);
        Publication {
            topic: topic.len() as u32,
            properties: properties.len() as u32,
            bytes: bytes.into(),
            qos: self.qos,
            retain: self.retain,
            expires_at_ms: self.expires_at_ms,
        }
    }
}

/// One publication, cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    bytes: Bytes,
    topic: u32,
    properties: u32,
    /// QoS of the publisher's PUBLISH.
    pub qos: QoS,
    /// RETAIN flag of the publisher's PUBLISH.
    pub retain: bool,
    /// When the message expires, in ms since the epoch.
    pub expires_at_ms: Option<u64>,
}

impl Publication {
    /// From stored bytes: topic, properties and payload one after the other. `None` when the
    /// lengths do not fit or the topic is not UTF-8, as in a damaged row.
    pub fn from_stored(
        bytes: Bytes,
        topic_len: usize,
        properties_len: usize,
        qos: QoS,
        retain: bool,
        expires_at_ms: Option<u64>,
    ) -> Option<Publication> {
        std::str::from_utf8(bytes.get(..topic_len)?).ok()?;
        bytes.get(topic_len..topic_len.checked_add(properties_len)?)?;
        Some(Publication {
            bytes,
            topic: u32::try_from(topic_len).ok()?,
            properties: u32::try_from(properties_len).ok()?,
            qos,
            retain,
            expires_at_ms,
        })
    }

    /// Topic, properties and payload, one after the other.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Topic name.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.topic as usize]).unwrap_or_default()
    }

    /// MQTT 5 properties in wire form, without length prefix, expiry, alias and identifiers.
    pub fn properties(&self) -> &[u8] {
        &self.bytes[self.topic as usize..(self.topic + self.properties) as usize]
    }

    /// Application message.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[(self.topic + self.properties) as usize..]
    }

    /// The payload as a shared slice of the publication's one allocation.
    pub fn payload_bytes(&self) -> Bytes {
        self.bytes.slice((self.topic + self.properties) as usize..)
    }

    /// Length of the topic name in bytes.
    pub fn topic_len(&self) -> usize {
        self.topic as usize
    }

    /// Length of the property block in bytes.
    pub fn properties_len(&self) -> usize {
        self.properties as usize
    }

    /// The parts, borrowed.
    pub fn parts(&self) -> PublicationParts<'_> {
        PublicationParts {
            topic: self.topic(),
            properties: self.properties(),
            payload: self.payload(),
            qos: self.qos,
            retain: self.retain,
            expires_at_ms: self.expires_at_ms,
        }
    }

    /// What is left of the message expiry interval; see [`seconds_left`].
    pub fn expiry_left_secs(&self, now_ms: u64) -> Option<u32> {
        self.expires_at_ms.map(|at| seconds_left(at, now_ms))
    }
}

/// Threads look at the clock at moments of their own: so much later than this one another may
/// have looked when it took a publication in.
const CLOCKS_APART_MS: u64 = 250;

/// Seconds from `now_ms` to `at_ms`: 0 only when the time is over, and never more than were left
/// before, however the threads' moments lie ([MQTT-3.3.2-6]).
pub fn seconds_left(at_ms: u64, now_ms: u64) -> u32 {
    match at_ms.saturating_sub(now_ms) {
        0 => 0,
        left => u32::try_from(left.saturating_sub(CLOCKS_APART_MS).div_ceil(1000).max(1))
            .unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_the_packing() {
        let parts = PublicationParts {
            topic: "a/b",
            properties: &[1, 1],
            payload: b"hello",
            qos: QoS::AtLeastOnce,
            retain: true,
            expires_at_ms: Some(10_000),
        };
        let publication = parts.to_publication();
        assert_eq!(publication.topic(), "a/b");
        assert_eq!(publication.properties(), [1, 1]);
        assert_eq!(publication.payload(), b"hello");
        assert_eq!(publication.expiry_left_secs(8_500), Some(2));
        assert_eq!(publication.expiry_left_secs(10_000), Some(0));
        assert_eq!(publication.expiry_left_secs(9_999), Some(1));
        assert_eq!(seconds_left(10_000, 4_990), 5, "a moment before does not count");
        let again = Publication::from_stored(
            publication.bytes().clone(),
            3,
            2,
            QoS::AtLeastOnce,
            true,
            Some(10_000),
        );
        assert_eq!(again, Some(publication));
    }

    #[test]
    fn damaged_lengths_are_refused() {
        let bytes = Bytes::from_static(b"abc");
        for (topic, properties) in [(4, 0), (2, 2), (usize::MAX, 1), (1, usize::MAX)] {
            let row = Publication::from_stored(
                bytes.clone(),
                topic,
                properties,
                QoS::AtMostOnce,
                false,
                None,
            );
            assert_eq!(row, None, "{topic} {properties}");
        }
    }
}
