//! The fixed header: packet type, flags and remaining length (section 2.1), and with them where
//! one packet ends in a stream of bytes.

use crate::fault::Fault;
use crate::reader::{Reader, split_varint};
use crate::reason::ReasonCode;
use crate::wire::{MAX_VARINT, packet_len};

/// The largest packet there can be: the largest remaining length and its header.
pub const MAX_PACKET_LEN: usize = packet_len(MAX_VARINT as usize);

/// The fifteen packet types, with their number in the fixed header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// A client asks for a connection.
    Connect = 1,
    /// The server's answer to CONNECT.
    ConnAck = 2,
    /// A message.
    Publish = 3,
    /// QoS 1: the message has arrived.
    PubAck = 4,
    /// QoS 2, first answer: the message has arrived.
    PubRec = 5,
    /// QoS 2, second part: the identifier may be released.
    PubRel = 6,
    /// QoS 2, last part: it has been released.
    PubComp = 7,
    /// A client subscribes.
    Subscribe = 8,
    /// The server's answer to SUBSCRIBE.
    SubAck = 9,
    /// A client ends subscriptions.
    Unsubscribe = 10,
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck = 11,
    /// A client shows that it is there.
    PingReq = 12,
    /// The server's answer to PINGREQ.
    PingResp = 13,
    /// The last packet; in MQTT 3.1.1 from clients only.
    Disconnect = 14,
    /// A step of extended authentication; MQTT 5 only.
    Auth = 15,
}

impl PacketType {
    /// The type for its number; `None` for 0, which is reserved.
    pub const fn from_number(number: u8) -> Option<PacketType> {
        Some(match number {
            1 => PacketType::Connect,
            2 => PacketType::ConnAck,
            3 => PacketType::Publish,
            4 => PacketType::PubAck,
            5 => PacketType::PubRec,
            6 => PacketType::PubRel,
            7 => PacketType::PubComp,
            8 => PacketType::Subscribe,
            9 => PacketType::SubAck,
            10 => PacketType::Unsubscribe,
            11 => PacketType::UnsubAck,
            12 => PacketType::PingReq,
            13 => PacketType::PingResp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => return None,
        })
    }

    /// The flags every packet of the type has; PUBLISH alone is free to choose (table 2-2).
    pub(crate) const fn flags(self) -> u8 {
        match self {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The first byte of a packet of the type (not PUBLISH).
    pub(crate) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }
}

const RESERVED_TYPE: Fault = Fault::malformed("fixed header: packet type 0 is reserved [2.1.2]");
const BAD_LENGTH: Fault = Fault::malformed(
    "fixed header: remaining length is not a minimal variable byte integer [MQTT-1.5.5-1]",
);

/// Where the first packet in `bytes` ends: its whole length, or `None` while it is incomplete.
///
/// `max_packet` bounds the whole packet, fixed header included. A packet above it is refused as
/// soon as its header is there, before its body is waited for.
///
/// # Errors
///
/// `PacketTooLarge` above the bound; `MalformedPacket` for packet type 0 and for a remaining length
/// that has more than four bytes or more than it needs.
#[inline]
pub fn frame_length(bytes: &[u8], max_packet: u32) -> Result<Option<usize>, Fault> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    if first >> 4 == 0 {
        return Err(RESERVED_TYPE);
    }
    let Some((remaining, body)) = split_varint(rest).map_err(|_| BAD_LENGTH)? else {
        return Ok(None);
    };
    let header_len = bytes.len() - body.len();
    let whole = header_len + remaining as usize;
    if whole > max_packet as usize {
        return Err(Fault::new(
            ReasonCode::PacketTooLarge,
            "fixed header: packet larger than the maximum packet size [MQTT-3.2.2-15]",
        ));
    }
    Ok((whole <= bytes.len()).then_some(whole))
}

/// One packet with its fixed header taken apart.
pub(crate) struct Frame<'a> {
    pub(crate) packet_type: PacketType,
    pub(crate) flags: u8,
    pub(crate) body: Reader<'a>,
}

impl<'a> Frame<'a> {
    /// Takes the fixed header off. The bytes must be exactly one packet.
    #[inline]
    pub(crate) fn split(bytes: &'a [u8]) -> Result<Frame<'a>, Fault> {
        const INCOMPLETE: Fault = Fault::malformed("fixed header: packet is cut short");
        let (first, rest) = bytes.split_first().ok_or(INCOMPLETE)?;
        let packet_type = PacketType::from_number(first >> 4).ok_or(RESERVED_TYPE)?;
        let (remaining, body) = split_varint(rest).map_err(|_| BAD_LENGTH)?.ok_or(INCOMPLETE)?;
        if remaining as usize != body.len() {
            return Err(Fault::malformed("fixed header: remaining length is not the packet's"));
        }
        Ok(Frame { packet_type, flags: first & 0x0F, body: Reader::new(body) })
    }

    /// "If invalid flags are received it is a Malformed Packet" (5.0, section 2.1.3), and in
    /// 3.1.1 the connection is closed [MQTT-2.2.2-2]. PUBLISH looks at its own flags.
    #[inline]
    pub(crate) fn check_flags(&self) -> Result<(), Fault> {
        if self.packet_type != PacketType::Publish && self.flags != self.packet_type.flags() {
            return Err(Fault::malformed("fixed header: reserved flags [MQTT-2.1.3-1]"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_ends_where_its_header_says() {
        let table: [(&[u8], Option<usize>); 8] = [
            (&[], None),
            (&[0x30], None),
            (&[0xC0, 0x00], Some(2)),
            (&[0xC0, 0x00, 0xC0, 0x00], Some(2)),
            (&[0x30, 0x02, 0x00], None),
            (&[0x30, 0x02, 0x00, 0x01], Some(4)),
            (&[0x30, 0x80], None),
            (&[0x30, 0x80, 0x01], None),
        ];
        for (bytes, expected) in table {
            assert_eq!(frame_length(bytes, 1000), Ok(expected), "{bytes:02X?}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_is_refused_at_once() {
        let table: [(&[u8], ReasonCode); 7] = [
            (&[0x00], ReasonCode::MalformedPacket),
            (&[0x0F, 0x00], ReasonCode::MalformedPacket),
            (&[0x30, 0x80, 0x00], ReasonCode::MalformedPacket),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], ReasonCode::MalformedPacket),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], ReasonCode::MalformedPacket),
            (&[0x30, 0x63], ReasonCode::PacketTooLarge),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], ReasonCode::PacketTooLarge),
        ];
        for (bytes, expected) in table {
            let fault = frame_length(bytes, 100).expect_err("refused");
            assert_eq!(fault.reason, expected, "{bytes:02X?}");
        }
    }

    #[test]
    fn the_bound_counts_the_fixed_header() {
        assert_eq!(frame_length(&[0x30, 0x62], 100), Ok(None));
        assert!(frame_length(&[0x30, 0x62], 99).is_err());
        assert_eq!(MAX_PACKET_LEN, 268_435_460);
        assert_eq!(frame_length(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], u32::MAX), Ok(None));
    }
}
