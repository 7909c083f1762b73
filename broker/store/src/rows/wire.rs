//! The few shapes rows are made of: bytes, variable-length numbers, length-prefixed strings.

use std::sync::Arc;

use hoopoe_codec::QoS;

/// What does not fit in a row.
pub type Fault = &'static str;

/// Appends a number, seven bits a byte, low ones first.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends bytes with their length before them.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Walks a row; every step checks what is there.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// At the first byte of a row, behind its format version.
    pub fn of(row: &'a [u8], version: u8) -> Result<Cursor<'a>, Fault> {
        match row.split_first() {
            Some((found, rest)) if *found == version => Ok(Cursor { rest }),
            Some(_) => Err("unknown format version"),
            None => Err("empty"),
        }
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, Fault> {
        let (first, rest) = self.rest.split_first().ok_or("ends early")?;
        self.rest = rest;
        Ok(*first)
    }

    /// A number.
    pub fn number(&mut self) -> Result<u64, Fault> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("number too long")
    }

    /// A number of at most 32 bits.
    pub fn u32(&mut self) -> Result<u32, Fault> {
        u32::try_from(self.number()?).map_err(|_| "number too large")
    }

    /// A number of at most 16 bits.
    pub fn u16(&mut self) -> Result<u16, Fault> {
        u16::try_from(self.number()?).map_err(|_| "number too large")
    }

    /// A length.
    pub fn len(&mut self) -> Result<usize, Fault> {
        usize::try_from(self.number()?).map_err(|_| "number too large")
    }

    /// So many bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or("ends early")?;
        self.rest = rest;
        Ok(taken)
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.len()?;
        self.take(len)
    }

    /// Text with its length before it.
    pub fn text(&mut self) -> Result<Arc<str>, Fault> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(Arc::from).map_err(|_| "text is not UTF-8")
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True at the end.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The row must end here.
    pub fn end(self) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err("longer than it should be") }
    }
}

/// The QoS in the two lowest bits.
pub fn qos(bits: u8) -> Result<QoS, Fault> {
    QoS::try_from(bits & 3).map_err(|_| "QoS 3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut row = vec![1];
            put_number(&mut row, number);
            let mut cursor = Cursor::of(&row, 1).expect("version");
            assert_eq!(cursor.number(), Ok(number));
            assert_eq!(cursor.end(), Ok(()));
        }
    }

    #[test]
    fn damage_is_named() {
        let cases: [(&[u8], Fault); 4] = [
            (&[], "empty"),
            (&[2, 0], "unknown format version"),
            (&[1, 0x80], "ends early"),
            (&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], "number too long"),
        ];
        for (row, fault) in cases {
            let read = Cursor::of(row, 1).and_then(|mut cursor| cursor.number());
            assert_eq!(read, Err(fault), "{row:?}");
        }
    }
}
