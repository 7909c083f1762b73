//! Whatever is encoded decodes to the same packet, in both versions.

use std::borrow::Cow;

use hoopoe_codec::{
    Packet, PacketType, PublishHead, PublishProperties, Receiver, Version, decode, frame_length,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

mod arbitrary;

/// Encodes behind other bytes, cuts the packet out of a longer stream, decodes it, compares, and
/// encodes what was decoded again. The stream comes from outside because packets are compared with
/// packets that live as long.
fn round_trip<'p>(
    stream: &'p mut Vec<u8>,
    version: Version,
    receiver: Receiver,
    packet: &Packet<'p>,
) -> TestCaseResult {
    stream.extend_from_slice(b"before");
    packet.encode(version, stream);
    let len = stream.len() - 6;
    stream.extend_from_slice(&[0xC0, 0]);
    prop_assert_eq!(frame_length(&stream[6..], len as u32), Ok(Some(len)));
    let frame = &stream[6..6 + len];
    let decoded = decode(version, receiver, frame);
    prop_assert_eq!(decoded.as_ref(), Ok(packet));
    prop_assert_eq!(packet.packet_type() as u8, frame[0] >> 4);
    let mut again = Vec::new();
    decoded.expect("compared above").encode(version, &mut again);
    prop_assert_eq!(&again[..], frame);
    within(version, packet, frame)
}

/// A packet that fits is written whole; one that does not is written shorter or not at all.
fn within(version: Version, packet: &Packet<'_>, frame: &[u8]) -> TestCaseResult {
    let len = frame.len() as u32;
    let mut out = Vec::new();
    prop_assert!(packet.encode_within(version, len, &mut out));
    prop_assert_eq!(&out[..], frame);
    for max in [1, len / 2, len - 1] {
        out.clear();
        let written = packet.encode_within(version, max, &mut out);
        prop_assert_eq!(written, !out.is_empty());
        prop_assert!(out.len() <= max as usize);
    }
    Ok(())
}

/// A version, and something of that version.
fn with_version<S: Strategy>(
    make: impl Fn(Version) -> S,
) -> impl Strategy<Value = (Version, S::Value)> {
    arbitrary::version().prop_flat_map(move |version| (Just(version), make(version)))
}

proptest! {
    #[test]
    fn connect((version, model) in with_version(arbitrary::connect)) {
        let mut stream = Vec::new();
        let packet = Packet::Connect(Box::new(model.packet()));
        round_trip(&mut stream, version, Receiver::Server, &packet)?;
    }

    #[test]
    fn connack((version, model) in with_version(arbitrary::connack)) {
        round_trip(&mut Vec::new(), version, Receiver::Client, &Packet::ConnAck(model.packet()))?;
    }

    #[test]
    fn publish((version, model) in with_version(arbitrary::publish)) {
        round_trip(&mut Vec::new(), version, Receiver::Client, &Packet::Publish(model.packet()))?;
    }

    #[test]
    fn puback((version, model) in with_version(|v| arbitrary::ack(v, PacketType::PubAck))) {
        round_trip(&mut Vec::new(), version, Receiver::Server, &Packet::PubAck(model.packet()))?;
    }

    #[test]
    fn pubrec((version, model) in with_version(|v| arbitrary::ack(v, PacketType::PubRec))) {
        round_trip(&mut Vec::new(), version, Receiver::Client, &Packet::PubRec(model.packet()))?;
    }

    #[test]
    fn pubrel((version, model) in with_version(|v| arbitrary::ack(v, PacketType::PubRel))) {
        round_trip(&mut Vec::new(), version, Receiver::Server, &Packet::PubRel(model.packet()))?;
    }

    #[test]
    fn pubcomp((version, model) in with_version(|v| arbitrary::ack(v, PacketType::PubComp))) {
        round_trip(&mut Vec::new(), version, Receiver::Client, &Packet::PubComp(model.packet()))?;
    }

    #[test]
    fn subscribe((version, model) in with_version(arbitrary::subscribe)) {
        let mut stream = Vec::new();
        let packet = Packet::Subscribe(model.packet());
        round_trip(&mut stream, version, Receiver::Server, &packet)?;
    }

    #[test]
    fn suback((version, model) in with_version(|v| arbitrary::suback(v, PacketType::SubAck))) {
        round_trip(&mut Vec::new(), version, Receiver::Client, &Packet::SubAck(model.packet()))?;
    }

    #[test]
    fn unsubscribe((version, model) in with_version(arbitrary::subscribe)) {
        let mut stream = Vec::new();
        let packet = Packet::Unsubscribe(model.unsubscribe());
        round_trip(&mut stream, version, Receiver::Server, &packet)?;
    }

    #[test]
    fn unsuback((version, model) in with_version(|v| arbitrary::suback(v, PacketType::UnsubAck))) {
        round_trip(&mut Vec::new(), version, Receiver::Client, &Packet::UnsubAck(model.packet()))?;
    }

    #[test]
    fn disconnect((version, model) in with_version(arbitrary::disconnect)) {
        let mut stream = Vec::new();
        let packet = Packet::Disconnect(model.packet());
        round_trip(&mut stream, version, Receiver::Server, &packet)?;
    }

    #[test]
    fn auth(model in arbitrary::auth()) {
        round_trip(&mut Vec::new(), Version::V5, Receiver::Server, &Packet::Auth(model.packet()))?;
    }

    #[test]
    fn pings(version in arbitrary::version()) {
        round_trip(&mut Vec::new(), version, Receiver::Server, &Packet::PingReq)?;
        round_trip(&mut Vec::new(), version, Receiver::Client, &Packet::PingResp)?;
    }

    /// What a server passes on, through its own head, arrives as it was sent.
    #[test]
    fn forwarding_changes_nothing((version, model) in with_version(arbitrary::publish)) {
        let mut sent = Vec::new();
        model.packet().encode(version, &mut sent);
        let Ok(Packet::Publish(publish)) = decode(version, Receiver::Client, &sent) else {
            return Err(TestCaseError::fail("a PUBLISH"));
        };
        let forwardable = publish.properties.forwardable();
        prop_assert!(matches!(forwardable, Cow::Borrowed(_)));
        let head = PublishHead {
            version,
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: publish.topic,
            forwardable: &forwardable,
            message_expiry_secs: publish.properties.message_expiry_secs,
            topic_alias: publish.properties.topic_alias,
            subscription_ids: &model.subscription_ids,
            payload_len: publish.payload.len(),
        };
        let mut passed_on = Vec::new();
        head.encode(publish.id, &mut passed_on);
        passed_on.extend_from_slice(publish.payload);
        prop_assert_eq!(passed_on.len(), head.packet_len());
        prop_assert_eq!(&passed_on, &sent);
        let kept = PublishProperties::from_forwardable(&forwardable);
        prop_assert_eq!(kept.user_properties, publish.properties.user_properties);
        prop_assert_eq!(kept.response_topic, publish.properties.response_topic);
    }
}
