//! A cursor over the bytes of one packet: the standard's data types (section 1.5), borrowed.
//!
//! Owns nothing but its position. It never reads past its end and never copies; what a field
//! means is the packet's business, which names the field by a [`Place`] for the fault.

use crate::fault::Fault;

/// A field, with the faults it can have spelled out in advance, so that a fault needs no
/// formatting. Made by [`place!`].
pub(crate) struct Place {
    pub(crate) cut: &'static str,
    pub(crate) varint: &'static str,
    pub(crate) not_utf8: &'static str,
    pub(crate) null: &'static str,
}

/// The place with this name: `place!("CONNECT: client identifier")`.
macro_rules! place {
    ($name:expr) => {
        &$crate::reader::Place {
            cut: concat!($name, " is cut short"),
            varint: concat!($name, " is not a minimal variable byte integer [MQTT-1.5.5-1]"),
            not_utf8: concat!($name, " is not UTF-8 [MQTT-1.5.4-1]"),
            null: concat!($name, " contains U+0000 [MQTT-1.5.4-2]"),
        }
    };
}
pub(crate) use place;

/// What is still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything not read yet, without reading it.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The rest of the packet, taken.
    pub(crate) const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    #[inline]
    fn chunk<const N: usize>(&mut self, place: &'static Place) -> Result<[u8; N], Fault> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(Fault::malformed(place.cut))?;
        self.rest = rest;
        Ok(*chunk)
    }

    #[inline]
    pub(crate) fn byte(&mut self, place: &'static Place) -> Result<u8, Fault> {
        self.chunk::<1>(place).map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, place: &'static Place) -> Result<u16, Fault> {
        self.chunk(place).map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self, place: &'static Place) -> Result<u32, Fault> {
        self.chunk(place).map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize, place: &'static Place) -> Result<&'a [u8], Fault> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Fault::malformed(place.cut))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A Variable Byte Integer: at most four bytes, and no more than the value needs
    /// [MQTT-1.5.5-1].
    #[inline]
    pub(crate) fn varint(&mut self, place: &'static Place) -> Result<u32, Fault> {
        match split_varint(self.rest) {
            Ok(Some((value, rest))) => {
                self.rest = rest;
                Ok(value)
            }
            Ok(None) => Err(Fault::malformed(place.cut)),
            Err(NotMinimal) => Err(Fault::malformed(place.varint)),
        }
    }

    /// Binary Data: a two-byte length and that many bytes.
    #[inline]
    pub(crate) fn binary(&mut self, place: &'static Place) -> Result<&'a [u8], Fault> {
        let len = self.u16(place)?;
        self.bytes(usize::from(len), place)
    }

    /// A UTF-8 Encoded String: well-formed [MQTT-1.5.4-1] and without U+0000 [MQTT-1.5.4-2].
    #[inline]
    pub(crate) fn text(&mut self, place: &'static Place) -> Result<&'a str, Fault> {
        let bytes = self.binary(place)?;
        let text = std::str::from_utf8(bytes).map_err(|_| Fault::malformed(place.not_utf8))?;
        if has_any(bytes, |byte| byte == 0) {
            return Err(Fault::malformed(place.null));
        }
        Ok(text)
    }

    /// The packet must be over: bytes that belong to no field make it malformed.
    #[inline]
    pub(crate) fn finish(&self, what: &'static str) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err(Fault::malformed(what)) }
    }
}

/// Whether any byte fits. Looks at all of them without leaving early, which the compiler turns
/// into vector instructions; the fields are short.
#[inline]
pub(crate) fn has_any(bytes: &[u8], fits: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |found, byte| found | fits(*byte))
}

/// A Variable Byte Integer longer than four bytes or longer than its value needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotMinimal;

/// Takes a Variable Byte Integer off the front; `None` when the bytes end inside it.
#[inline]
pub(crate) fn split_varint(bytes: &[u8]) -> Result<Option<(u32, &[u8])>, NotMinimal> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            // "The encoded value MUST use the minimum number of bytes" [MQTT-1.5.5-1]: a last
            // byte of 0 adds nothing, except when it is the only one.
            if *byte == 0 && index > 0 {
                return Err(NotMinimal);
            }
            return Ok(Some((value, &bytes[index + 1..])));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(NotMinimal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_follow_table_1_1() {
        type Found = Result<Option<u32>, NotMinimal>;
        let table: [(&[u8], Found); 14] = [
            (&[], Ok(None)),
            (&[0x00], Ok(Some(0))),
            (&[0x7F], Ok(Some(127))),
            (&[0x80], Ok(None)),
            (&[0x80, 0x01], Ok(Some(128))),
            (&[0xFF, 0x7F], Ok(Some(16_383))),
            (&[0x80, 0x80, 0x01], Ok(Some(16_384))),
            (&[0xFF, 0xFF, 0x7F], Ok(Some(2_097_151))),
            (&[0x80, 0x80, 0x80, 0x01], Ok(Some(2_097_152))),
            (&[0xFF, 0xFF, 0xFF, 0x7F], Ok(Some(268_435_455))),
            (&[0xFF, 0xFF, 0xFF, 0xFF], Err(NotMinimal)),
            (&[0xFF, 0xFF, 0xFF, 0xFF, 0x01], Err(NotMinimal)),
            (&[0x80, 0x00], Err(NotMinimal)),
            (&[0x81, 0x80, 0x00], Err(NotMinimal)),
        ];
        for (bytes, expected) in table {
            let found = split_varint(bytes).map(|some| some.map(|(value, _)| value));
            assert_eq!(found, expected, "{bytes:02X?}");
        }
    }

    #[test]
    fn text_is_checked_and_borrowed() {
        let read = |bytes: &'static [u8]| Reader::new(bytes).text(place!("field"));
        assert_eq!(read(&[0, 2, b'h', b'i', 9]), Ok("hi"));
        assert_eq!(read(&[0, 0]), Ok(""));
        // A byte order mark is a character like any other [MQTT-1.5.4-3].
        assert_eq!(read(&[0, 3, 0xEF, 0xBB, 0xBF]), Ok("\u{FEFF}"));
        // U+FFFF is a non-character, which the standard lets through.
        assert_eq!(read(&[0, 3, 0xEF, 0xBF, 0xBF]), Ok("\u{FFFF}"));
        let faults: [(&[u8], &str); 6] = [
            (&[0], "field is cut short"),
            (&[0, 3, b'h', b'i'], "field is cut short"),
            (&[0, 1, 0], "field contains U+0000 [MQTT-1.5.4-2]"),
            (&[0, 1, 0xFF], "field is not UTF-8 [MQTT-1.5.4-1]"),
            (&[0, 3, 0xED, 0xA0, 0x80], "field is not UTF-8 [MQTT-1.5.4-1]"),
            (&[0, 2, 0xC0, 0x80], "field is not UTF-8 [MQTT-1.5.4-1]"),
        ];
        for (bytes, what) in faults {
            assert_eq!(read(bytes), Err(Fault::malformed(what)));
        }
    }
}
