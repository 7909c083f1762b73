//! MQTT 3.1.1 and 5.0 packets: strict decoding and encoding, no I/O.
//!
//! Bytes come in as they lie in the caller's buffer; packets go out as views into those bytes.
//! [`frame_length`] says where a packet ends, [`decode`] turns that packet into a [`Packet`], and
//! every packet type has an `encode` that appends to a `Vec<u8>`. Both ends of a connection are
//! served: [`Receiver`] says who reads, and so which packets and properties are legal.
//!
//! What the standard calls malformed or a protocol error ends here, as a [`Fault`] with the reason
//! code to answer with and the place that was wrong. What needs knowledge of a connection or a
//! session (quotas, topic aliases, packet identifiers in use, rights) is not decided here.
//!
//! One packet, one file, in `packet`. The shared parts: `reader` walks bytes and `wire` writes them, `frame`
//! knows the fixed header, `property` the properties of MQTT 5 and `selection` where some of them
//! lie, `topic` the syntax of names and filters.
//!
//! What is encoded is what the standard can carry: text and binary fields have at most 65 535 bytes
//! (longer values are cut, text at a character), and packets at most [`MAX_PACKET_LEN`], which is
//! for the caller to see to, as is the smaller limit of a client ([`PublishHead::packet_len`],
//! [`Packet::encode_within`]).
//!
//! ```
//! use hoopoe_codec::{Packet, Receiver, Version, decode, frame_length};
//!
//! let buffer = [0x30, 0x07, 0x00, 0x03, b'a', b'/', b'b', b'h', b'i', 0xC0];
//! let end = frame_length(&buffer, 1024)?.expect("the PUBLISH is complete");
//! let Packet::Publish(publish) = decode(Version::V311, Receiver::Server, &buffer[..end])? else {
//!     panic!("a PUBLISH");
//! };
//! assert_eq!((publish.topic, publish.payload), ("a/b", &b"hi"[..]));
//! # Ok::<(), hoopoe_codec::Fault>(())
//! ```

mod fault;
mod frame;
mod id;
mod packet;
mod property;
mod qos;
mod reader;
mod reason;
mod selection;
mod topic;
mod user_properties;
mod version;
mod wire;

pub use fault::Fault;
pub use frame::{MAX_PACKET_LEN, PacketType, frame_length};
pub use id::PacketId;
pub use packet::{
    Ack, AckKind, AckProperties, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties,
    Disconnect, Packet, Publish, PublishHead, PublishProperties, Receiver, RetainHandling, SubAck,
    Subscribe, SubscribeOptions, SubscriptionIds, Unsubscribe, Will, decode, decode_connect,
    patch_packet_id,
};
pub use qos::QoS;
pub use reason::ReasonCode;
pub use topic::{
    MAX_TOPIC_LEN, SharedFilter, TopicFault, check_filter, check_topic, levels, topic_matches,
};
pub use user_properties::{PropertyBlock, UserProperties};
pub use version::Version;
