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
//! One packet, one file. The shared parts: `reader` walks bytes and `wire` writes them, `frame`
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

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod fault;
mod frame;
mod id;
mod packet;
mod ping;
mod property;
mod publish;
mod publish_head;
mod publish_properties;
mod qos;
mod reader;
mod reason;
mod selection;
mod suback;
mod subscribe;
mod topic;
mod unsubscribe;
mod user_properties;
mod version;
mod will;
mod wire;

pub use ack::{Ack, AckKind, AckProperties};
pub use auth::Auth;
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, decode_connect};
pub use disconnect::Disconnect;
pub use fault::Fault;
pub use frame::{MAX_PACKET_LEN, PacketType, frame_length};
pub use id::PacketId;
pub use packet::{Packet, Receiver, decode};
pub use publish::Publish;
pub use publish_head::{PublishHead, patch_packet_id};
pub use publish_properties::{PublishProperties, SubscriptionIds};
pub use qos::QoS;
pub use reason::ReasonCode;
pub use suback::SubAck;
pub use subscribe::{RetainHandling, Subscribe, SubscribeOptions};
pub use topic::{
    MAX_TOPIC_LEN, SharedFilter, TopicFault, check_filter, check_topic, levels, topic_matches,
};
pub use unsubscribe::Unsubscribe;
pub use user_properties::{PropertyBlock, UserProperties};
pub use version::Version;
pub use will::Will;
