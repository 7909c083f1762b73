//! Against another codec, on traffic both take for valid: what is encoded here is read there with
//! the same meaning, written there again, and decoded here to the same packet.
//!
//! Where that codec errs on valid packets they are kept from it: binary passwords, DISCONNECT
//! without content and AUTH, which it refuses; subscription identifiers in PUBLISH, behind which it
//! takes properties for payload; UNSUBSCRIBE of MQTT 5, for which it writes to the standard error.

use bytes::BytesMut;
use hoopoe_codec::Receiver::{self, Client, Server};
use hoopoe_codec::Version::{self, V5, V311};
use hoopoe_codec::{Packet, PacketType, PublishProperties, UserProperties};
use mqttbytes::{v4, v5};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

mod arbitrary;

const MAX_PACKET: usize = 1 << 20;

fn encoded(version: Version, packet: &Packet<'_>) -> BytesMut {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    BytesMut::from(&out[..])
}

fn read_v4(packet: &Packet<'_>) -> v4::Packet {
    v4::read(&mut encoded(V311, packet), MAX_PACKET).expect("valid")
}

fn read_v5(packet: &Packet<'_>) -> v5::Packet {
    v5::read(&mut encoded(V5, packet), MAX_PACKET).expect("valid")
}

/// Decodes what the other codec wrote and compares.
fn comes_back<'p>(
    written: &'p mut BytesMut,
    version: Version,
    receiver: Receiver,
    packet: &Packet<'p>,
    write: impl FnOnce(&mut BytesMut) -> Result<usize, mqttbytes::Error>,
) -> TestCaseResult {
    write(written).expect("written");
    let decoded = hoopoe_codec::decode(version, receiver, written);
    prop_assert_eq!(decoded.as_ref(), Ok(packet));
    Ok(())
}

fn same_pairs(ours: UserProperties<'_>, theirs: &[(String, String)]) -> bool {
    ours.iter().eq(theirs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

fn same_message(
    ours: &PublishProperties<'_>,
    theirs: Option<&v5::PublishProperties>,
) -> TestCaseResult {
    let Some(theirs) = theirs else {
        prop_assert_eq!(*ours, PublishProperties::default());
        return Ok(());
    };
    prop_assert_eq!(ours.payload_format_utf8.map(u8::from), theirs.payload_format_indicator);
    prop_assert_eq!(ours.message_expiry_secs, theirs.message_expiry_interval);
    prop_assert_eq!(ours.topic_alias, theirs.topic_alias);
    prop_assert_eq!(ours.response_topic, theirs.response_topic.as_deref());
    prop_assert_eq!(ours.correlation_data, theirs.correlation_data.as_deref());
    prop_assert_eq!(ours.content_type, theirs.content_type.as_deref());
    prop_assert!(same_pairs(ours.user_properties, &theirs.user_properties));
    Ok(())
}

proptest! {
    #[test]
    fn publish_v4(model in arbitrary::publish(V311)) {
        let mut written = BytesMut::new();
        let packet = Packet::Publish(model.packet());
        let v4::Packet::Publish(theirs) = read_v4(&packet) else {
            return Err(TestCaseError::fail("a PUBLISH"));
        };
        prop_assert_eq!(&theirs.topic, &model.topic);
        prop_assert_eq!(&theirs.payload[..], &model.payload[..]);
        prop_assert_eq!(theirs.qos as u8, model.qos as u8);
        prop_assert_eq!(theirs.pkid, model.packet().id.map_or(0, |id| id.get()));
        comes_back(&mut written, V311, Server, &packet, |out| theirs.write(out))?;
    }

    #[test]
    fn publish_v5(mut model in arbitrary::publish(V5)) {
        model.subscription_ids.clear();
        let mut written = BytesMut::new();
        let packet = Packet::Publish(model.packet());
        let v5::Packet::Publish(theirs) = read_v5(&packet) else {
            return Err(TestCaseError::fail("a PUBLISH"));
        };
        prop_assert_eq!(&theirs.topic, &model.topic);
        prop_assert_eq!(&theirs.payload[..], &model.payload[..]);
        same_message(&model.packet().properties, theirs.properties.as_ref())?;
        comes_back(&mut written, V5, Client, &packet, |out| theirs.write(out))?;
    }

    #[test]
    fn connect_v4(mut model in arbitrary::connect(V311)) {
        model.password = model.username.clone().map(String::into_bytes);
        let mut written = BytesMut::new();
        let packet = Packet::Connect(Box::new(model.packet()));
        let v4::Packet::Connect(theirs) = read_v4(&packet) else {
            return Err(TestCaseError::fail("a CONNECT"));
        };
        prop_assert_eq!(&theirs.client_id, &model.client_id);
        prop_assert_eq!(theirs.keep_alive, model.keep_alive_secs);
        prop_assert_eq!(theirs.clean_session, model.clean_start);
        prop_assert_eq!(theirs.last_will.is_some(), model.will.is_some());
        // It sends no empty user name.
        prop_assume!(model.username.as_deref() != Some(""));
        comes_back(&mut written, V311, Server, &packet, |out| theirs.write(out))?;
    }

    #[test]
    fn connect_v5(mut model in arbitrary::connect(V5)) {
        model.password = model.username.clone().map(String::into_bytes);
        let mut written = BytesMut::new();
        let packet = Packet::Connect(Box::new(model.packet()));
        let v5::Packet::Connect(theirs) = read_v5(&packet) else {
            return Err(TestCaseError::fail("a CONNECT"));
        };
        prop_assert_eq!(&theirs.client_id, &model.client_id);
        if let Some(properties) = &theirs.properties {
            let ours = model.packet().properties;
            prop_assert_eq!(ours.session_expiry_secs, properties.session_expiry_interval);
            prop_assert_eq!(ours.receive_maximum.map(|n| n.get()), properties.receive_maximum);
            prop_assert_eq!(ours.maximum_packet_size.map(|n| n.get()), properties.max_packet_size);
            prop_assert_eq!(ours.topic_alias_maximum, properties.topic_alias_max);
            let method = properties.authentication_method.as_deref();
            prop_assert_eq!(ours.authentication_method, method);
            prop_assert!(same_pairs(ours.user_properties, &properties.user_properties));
        }
        prop_assume!(model.username.as_deref() != Some(""));
        comes_back(&mut written, V5, Server, &packet, |out| theirs.write(out))?;
    }

    #[test]
    fn connack_v5(model in arbitrary::connack(V5)) {
        let mut written = BytesMut::new();
        let packet = Packet::ConnAck(model.packet());
        let v5::Packet::ConnAck(theirs) = read_v5(&packet) else {
            return Err(TestCaseError::fail("a CONNACK"));
        };
        comes_back(&mut written, V5, Client, &packet, |out| theirs.write(out))?;
    }

    #[test]
    fn subscribe_v4(model in arbitrary::subscribe(V311)) {
        let mut written = BytesMut::new();
        let packet = Packet::Subscribe(model.packet());
        let v4::Packet::Subscribe(theirs) = read_v4(&packet) else {
            return Err(TestCaseError::fail("a SUBSCRIBE"));
        };
        comes_back(&mut written, V311, Server, &packet, |out| theirs.write(out))?;
        let mut written = BytesMut::new();
        let packet = Packet::Unsubscribe(model.unsubscribe());
        let v4::Packet::Unsubscribe(theirs) = read_v4(&packet) else {
            return Err(TestCaseError::fail("an UNSUBSCRIBE"));
        };
        prop_assert_eq!(theirs.topics.len(), model.filters.len());
        comes_back(&mut written, V311, Server, &packet, |out| theirs.write(out))?;
    }

    #[test]
    fn subscribe_v5(model in arbitrary::subscribe(V5)) {
        let mut written = BytesMut::new();
        let packet = Packet::Subscribe(model.packet());
        let v5::Packet::Subscribe(theirs) = read_v5(&packet) else {
            return Err(TestCaseError::fail("a SUBSCRIBE"));
        };
        for ((filter, options), theirs) in model.filters.iter().zip(&theirs.filters) {
            prop_assert_eq!(filter, &theirs.path);
            prop_assert_eq!(options.no_local, theirs.nolocal);
            prop_assert_eq!(options.retain_as_published, theirs.preserve_retain);
        }
        comes_back(&mut written, V5, Server, &packet, |out| theirs.write(out))?;
    }

    #[test]
    fn suback_v5(model in arbitrary::suback(V5, PacketType::SubAck)) {
        let mut written = BytesMut::new();
        let packet = Packet::SubAck(model.packet());
        let v5::Packet::SubAck(theirs) = read_v5(&packet) else {
            return Err(TestCaseError::fail("a SUBACK"));
        };
        comes_back(&mut written, V5, Client, &packet, |out| theirs.write(out))?;
    }

    #[test]
    fn puback_v5(model in arbitrary::ack(V5, PacketType::PubAck)) {
        let mut written = BytesMut::new();
        let packet = Packet::PubAck(model.packet());
        let v5::Packet::PubAck(theirs) = read_v5(&packet) else {
            return Err(TestCaseError::fail("a PUBACK"));
        };
        comes_back(&mut written, V5, Server, &packet, |out| theirs.write(out))?;
    }
}
