//! Reads fields off the front of a packet body; panics where the body ends too soon.

/// What is left of a packet body.
pub struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Reads from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes }
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        assert!(count <= self.bytes.len(), "{count} bytes wanted of {:02x?}", self.bytes);
        let (head, tail) = self.bytes.split_at(count);
        self.bytes = tail;
        head
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(self.bytes.len())
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    /// Two bytes, big endian.
    pub fn u16(&mut self) -> u16 {
        let bytes = self.take(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    /// Four bytes, big endian.
    pub fn u32(&mut self) -> u32 {
        let bytes = self.take(4);
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// A field with two length bytes.
    pub fn field(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.take(usize::from(length))
    }

    /// A UTF-8 string field (`[MQTT-1.5.4-1]`, `[MQTT-1.5.4-2]`).
    pub fn string(&mut self) -> String {
        let text = String::from_utf8(self.field().to_vec()).expect("a string field is UTF-8");
        assert!(!text.contains('\0'), "U+0000 in {text:?}");
        text
    }

    /// A variable byte integer in its shortest form (`[MQTT-1.5.5-1]`).
    pub fn variable(&mut self) -> u32 {
        let mut value = 0u32;
        for index in 0..4 {
            let byte = self.u8();
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                assert!(index == 0 || byte != 0, "integer not in its shortest form");
                return value;
            }
        }
        panic!("variable byte integer of more than four bytes");
    }
}
