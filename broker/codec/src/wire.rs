//! Writing packets: the standard's data types (section 1.5) into a sink, each packet's body once
//! for its length and once for its bytes.
//!
//! A packet writes its fields to any [`Sink`]. The length in front of the packet, and of a
//! property block inside it, comes from writing the same fields to a [`Length`], which only
//! counts; so length and bytes cannot disagree, and nothing is moved afterwards.

use crate::version::Version;

/// The largest value of a Variable Byte Integer, and so of a remaining length.
pub(crate) const MAX_VARINT: u32 = 268_435_455;
/// The longest text or binary field: its length is two bytes.
const MAX_FIELD_LEN: usize = u16::MAX as usize;

/// Where encoded bytes go.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    #[inline]
    fn byte(&mut self, value: u8) {
        self.put(&[value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// A Variable Byte Integer in as few bytes as possible [MQTT-1.5.5-1].
    #[inline]
    fn varint(&mut self, mut value: u32) {
        debug_assert!(value <= MAX_VARINT, "{value} does not fit a variable byte integer");
        while value > 0x7F {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// Binary Data, cut after 65 535 bytes.
    #[inline]
    fn binary(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(MAX_FIELD_LEN)];
        self.u16(bytes.len() as u16);
        self.put(bytes);
    }

    /// Something whose length is known.
    #[inline]
    fn part(&mut self, part: &impl Wire, version: Version, _len: usize)
    where
        Self: Sized,
    {
        part.write(version, self);
    }

    /// A UTF-8 Encoded String, cut at the last character that ends within 65 535 bytes.
    #[inline]
    fn text(&mut self, text: &str) {
        self.binary(&text.as_bytes()[..text.floor_char_boundary(MAX_FIELD_LEN)]);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A sink that only counts.
#[derive(Default)]
pub(crate) struct Length(usize);

impl Sink for Length {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    #[inline]
    fn part(&mut self, _part: &impl Wire, _version: Version, len: usize) {
        self.0 += len;
    }
}

/// Something with a wire form: the body of a packet, or the properties in a block.
pub(crate) trait Wire {
    fn write<S: Sink>(&self, version: Version, out: &mut S);

    #[inline]
    fn wire_len(&self, version: Version) -> usize {
        let mut length = Length::default();
        self.write(version, &mut length);
        length.0
    }
}

/// A property block: its length and the properties. MQTT 3.1.1 has none, not even the length.
#[inline]
pub(crate) fn put_properties<S: Sink>(properties: &impl Wire, version: Version, out: &mut S) {
    if version == Version::V5 {
        let len = properties.wire_len(version);
        out.varint(len as u32);
        out.part(properties, version, len);
    }
}

/// The length of a whole packet whose body has this length.
pub(crate) const fn packet_len(body_len: usize) -> usize {
    let header = match body_len {
        0..=0x7F => 2,
        0x80..=0x3FFF => 3,
        0x4000..=0x1F_FFFF => 4,
        _ => 5,
    };
    header + body_len
}

/// Appends a whole packet: type and flags, remaining length, body.
#[inline]
pub(crate) fn put_packet(first_byte: u8, body: &impl Wire, version: Version, out: &mut Vec<u8>) {
    let len = body.wire_len(version);
    out.reserve(packet_len(len));
    out.byte(first_byte);
    out.varint(len as u32);
    body.write(version, out);
}

/// A packet with a reason string and user properties, which the sender leaves out when they
/// would make the packet larger than the receiver takes.
pub(crate) trait Explained: Wire + Clone {
    fn drop_user_properties(&mut self);
    fn drop_reason_string(&mut self);
}

/// Appends the packet if it fits in `max` bytes, if need be without its user properties, and then
/// without its reason string as well ([MQTT-3.4.2-2], [MQTT-3.4.2-3] and their like for the other
/// packets). Says whether anything was written.
pub(crate) fn put_packet_within<P: Explained>(
    first_byte: u8,
    body: &P,
    version: Version,
    max: u32,
    out: &mut Vec<u8>,
) -> bool {
    let fits = |body: &P| packet_len(body.wire_len(version)) <= max as usize;
    if fits(body) {
        put_packet(first_byte, body, version, out);
        return true;
    }
    let mut shorter = body.clone();
    shorter.drop_user_properties();
    if !fits(&shorter) {
        shorter.drop_reason_string();
    }
    let fits_now = fits(&shorter);
    if fits_now {
        put_packet(first_byte, &shorter, version, out);
    }
    fits_now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::split_varint;

    #[test]
    fn variable_byte_integers_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, MAX_VARINT] {
            let mut bytes = Vec::new();
            bytes.varint(value);
            assert_eq!(split_varint(&bytes), Ok(Some((value, &[][..]))));
            assert_eq!(packet_len(value as usize), 1 + bytes.len() + value as usize);
        }
    }

    #[test]
    fn a_field_too_long_is_cut_at_a_character() {
        let mut bytes = Vec::new();
        bytes.text(&"é".repeat(40_000));
        assert_eq!(bytes[..2], 65_534_u16.to_be_bytes());
        assert_eq!(bytes.len(), 2 + 65_534);
        bytes.clear();
        bytes.binary(&vec![7; 70_000]);
        assert_eq!(bytes.len(), 2 + 65_535);
    }
}
