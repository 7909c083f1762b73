//! A stored entry of a conversation, and the row it is kept as.
//!
//! Deliberately not here: the row's key, which holds conversation and seq, and who may write one.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::id::{ConvKey, MessageId};

/// The form of the row that is written; the first byte of each row.
const ROW_VERSION: u8 = 1;

/// What an entry is. Only messages count as unread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// A message.
    Message = 0,
    /// A message was taken back.
    Recall = 1,
    /// A message has new content, which is the payload.
    Edit = 2,
    /// A reaction to a message.
    React = 3,
    /// A message burnt after it was read.
    Burn = 4,
    /// The membership changed.
    Member = 5,
    /// What was here is gone (ruling 23).
    Void = 6,
}

impl EntryKind {
    /// Every kind.
    pub const ALL: [EntryKind; 7] = [
        EntryKind::Message,
        EntryKind::Recall,
        EntryKind::Edit,
        EntryKind::React,
        EntryKind::Burn,
        EntryKind::Member,
        EntryKind::Void,
    ];

    /// The word on the wire; empty for a message, of which the wire says no kind.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::Message => "",
            EntryKind::Recall => "recall",
            EntryKind::Edit => "edit",
            EntryKind::React => "react",
            EntryKind::Burn => "burn",
            EntryKind::Member => "member",
            EntryKind::Void => "void",
        }
    }

    /// The byte in rows.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a byte in a row.
    pub fn from_code(code: u8) -> Option<EntryKind> {
        EntryKind::ALL.get(usize::from(code)).copied()
    }
}

/// Nothing is missing.
pub const NOT_VOID: u8 = 0;
/// The content was recalled.
pub const VOID_RECALLED: u8 = 1;
/// The content burnt after it was read.
pub const VOID_BURNT: u8 = 2;
/// The message expiry interval is over.
pub const VOID_EXPIRED: u8 = 3;
/// Its sender was erased.
pub const VOID_ERASED: u8 = 4;

/// The word for the reason of a void entry; empty for a reason that is not known.
pub fn void_word(reason: u8) -> &'static str {
    match reason {
        VOID_RECALLED => "recall",
        VOID_BURNT => "burn",
        VOID_EXPIRED => "expiry",
        VOID_ERASED => "erased",
        _ => "",
    }
}

/// One entry of a conversation's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The conversation.
    pub conv: ConvKey,
    /// Position in it, from 1 on.
    pub seq: u64,
    /// Server id.
    pub id: MessageId,
    /// Commit time, ms since the epoch.
    pub ts_ms: u64,
    /// The authenticated sender.
    pub from: Arc<str>,
    /// The client id of the sending device, which never gets its own entry (ruling 30); empty for
    /// a back end.
    pub device: Arc<str>,
    /// The sender's client message id.
    pub cid: Option<Arc<str>>,
    /// What it is.
    pub kind: EntryKind,
    /// The seq it refers to; 0 for none.
    pub reference: u64,
    /// How many messages there are up to here, this one included.
    pub count: u64,
    /// When it expires, in ms since the epoch.
    pub expires_at_ms: Option<u64>,
    /// Everybody is mentioned.
    pub at_all: bool,
    /// The users mentioned by name.
    pub mentions: Vec<Arc<str>>,
    /// How long after it was read it burns; 0 for never.
    pub burn_secs: u32,
    /// Why it is void; [`NOT_VOID`] for every other kind.
    pub void_reason: u8,
    /// The sender's MQTT 5 properties that pass unaltered, in wire form.
    pub properties: Bytes,
    /// The content.
    pub payload: Bytes,
}

/// What entries that are read together have in common: who speaks twice is named in memory once,
/// and their contents lie side by side, in pieces of memory of at most 16 KB: one that is kept
/// longer than the others keeps its piece.
#[derive(Debug, Default)]
pub struct Shelf {
    from: Option<Arc<str>>,
    device: Option<Arc<str>>,
    room: BytesMut,
    /// Room to make when there is none left; 0 before the first content, which may be the only one.
    next: usize,
}

/// Room that is made at a time for such contents.
const SHELF_BYTES: usize = 16 * 1024;

impl Shelf {
    fn keep(&mut self, content: &[u8]) -> Bytes {
        if content.is_empty() {
            return Bytes::new();
        }
        if self.room.capacity() < content.len() {
            let size = self.next;
            self.next = (2 * size).clamp(SHELF_BYTES / 8, SHELF_BYTES);
            if size < content.len() {
                return Bytes::copy_from_slice(content);
            }
            self.room = BytesMut::with_capacity(size);
        }
        self.room.extend_from_slice(content);
        self.room.split().freeze()
    }
}

/// Why a row is no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EntryFault {
    /// Written by a later version.
    #[error("log entry: row version {0} is not known")]
    Version(u8),
    /// It ends too early.
    #[error("log entry: the row ends within its {0}")]
    Short(&'static str),
    /// A value that is never written.
    #[error("log entry: the row's {0} makes no sense")]
    Value(&'static str),
}

const HAS_CID: u8 = 1;
const HAS_EXPIRY: u8 = 1 << 1;
const AT_ALL: u8 = 1 << 2;

impl Entry {
    /// One with nothing in it but whose it is and of what kind: the rest is for its maker.
    pub fn bare(conv: ConvKey, from: Arc<str>, kind: EntryKind) -> Entry {
        Entry {
            conv,
            seq: 0,
            id: MessageId(0),
            ts_ms: 0,
            from,
            device: "".into(),
            cid: None,
            kind,
            reference: 0,
            count: 0,
            expires_at_ms: None,
            at_all: false,
            mentions: Vec::new(),
            burn_secs: 0,
            void_reason: NOT_VOID,
            properties: Bytes::new(),
            payload: Bytes::new(),
        }
    }

    /// Bytes that count for retention: payload and properties.
    pub fn size(&self) -> u64 {
        (self.payload.len() + self.properties.len()) as u64
    }

    /// Appends the row: all but conversation and seq, which are its key.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(64 + self.from.len() + self.properties.len() + self.payload.len());
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.cid.is_some(), HAS_CID)
            | flag(self.expires_at_ms.is_some(), HAS_EXPIRY)
            | flag(self.at_all, AT_ALL);
        out.extend_from_slice(&[ROW_VERSION, self.kind.code(), flags, self.void_reason]);
        out.extend_from_slice(&self.id.0.to_be_bytes());
        put_varint(out, self.ts_ms);
        put_varint(out, self.reference);
        put_varint(out, self.count);
        put_varint(out, u64::from(self.burn_secs));
        put_bytes(out, self.from.as_bytes());
        put_bytes(out, self.device.as_bytes());
        if let Some(cid) = &self.cid {
            put_bytes(out, cid.as_bytes());
        }
        if let Some(at_ms) = self.expires_at_ms {
            put_varint(out, at_ms);
        }
        put_varint(out, self.mentions.len() as u64);
        for user in &self.mentions {
            put_bytes(out, user.as_bytes());
        }
        put_bytes(out, &self.properties);
        out.extend_from_slice(&self.payload);
    }

    /// The entry of a row.
    ///
    /// # Errors
    ///
    /// When the row was not written by [`encode`](Entry::encode), or is damaged.
    pub fn decode(conv: ConvKey, seq: u64, row: &[u8]) -> Result<Entry, EntryFault> {
        Entry::decode_onto(&mut Shelf::default(), conv, seq, row)
    }

    /// The entry of a row, one of several that are read together.
    ///
    /// # Errors
    ///
    /// As [`decode`](Entry::decode).
    pub fn decode_onto(
        shelf: &mut Shelf,
        conv: ConvKey,
        seq: u64,
        row: &[u8],
    ) -> Result<Entry, EntryFault> {
        let mut row = Row { rest: row };
        match row.byte("version")? {
            ROW_VERSION => {}
            other => return Err(EntryFault::Version(other)),
        }
        let kind = EntryKind::from_code(row.byte("kind")?).ok_or(EntryFault::Value("kind"))?;
        let flags = row.byte("flags")?;
        let void_reason = row.byte("void reason")?;
        let id = MessageId(row.fixed("id")?);
        let ts_ms = row.varint("ts")?;
        let reference = row.varint("reference")?;
        let count = row.varint("count")?;
        let burn_secs = u32::try_from(row.varint("burn time")?);
        let burn_secs = burn_secs.map_err(|_| EntryFault::Value("burn time"))?;
        let from = row.name("sender", &mut shelf.from)?;
        let device = row.name("device", &mut shelf.device)?;
        let cid = if flags & HAS_CID != 0 { Some(row.text("cid")?) } else { None };
        let expires_at_ms =
            if flags & HAS_EXPIRY != 0 { Some(row.varint("expiry")?) } else { None };
        let count_mentions = row.varint("mentions")?;
        // Each takes a byte at least: a damaged number reserves no more than the row is long.
        let mut mentions = Vec::with_capacity((count_mentions as usize).min(row.rest.len()));
        for _ in 0..count_mentions {
            mentions.push(row.text("mentions")?);
        }
        let properties_len = row.length("properties")?;
        let (properties, payload) = row.rest.split_at(properties_len);
        Ok(Entry {
            conv,
            seq,
            id,
            ts_ms,
            from,
            device,
            cid,
            kind,
            reference,
            count,
            expires_at_ms,
            at_all: flags & AT_ALL != 0,
            mentions,
            burn_secs,
            void_reason,
            properties: shelf.keep(properties),
            payload: shelf.keep(payload),
        })
    }

    /// What is left at its seq once the content is gone (ruling 23). It does not expire, burn or
    /// mention anybody any more.
    #[must_use]
    pub fn voided(&self, reason: u8) -> Entry {
        Entry {
            conv: self.conv.clone(),
            from: self.from.clone(),
            device: self.device.clone(),
            cid: self.cid.clone(),
            kind: EntryKind::Void,
            expires_at_ms: None,
            at_all: false,
            mentions: Vec::new(),
            burn_secs: 0,
            void_reason: reason,
            properties: Bytes::new(),
            payload: Bytes::new(),
            ..*self
        }
    }

    /// What it is at that time: an expired message is void, an expired edit has no content
    /// (ruling 23).
    #[must_use]
    pub fn as_of(self, now_ms: u64) -> Entry {
        if self.expires_at_ms.is_none_or(|at| at > now_ms) {
            return self;
        }
        match self.kind {
            EntryKind::Message => self.voided(VOID_EXPIRED),
            EntryKind::Edit => self.emptied(),
            _ => self,
        }
    }

    /// An event without its content: the edit of a message that is void.
    #[must_use]
    pub fn emptied(&self) -> Entry {
        let (properties, payload) = (Bytes::new(), Bytes::new());
        Entry { expires_at_ms: None, properties, payload, ..self.clone() }
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What of a row is still to be read.
struct Row<'a> {
    rest: &'a [u8],
}

impl<'a> Row<'a> {
    fn byte(&mut self, what: &'static str) -> Result<u8, EntryFault> {
        let (first, rest) = self.rest.split_first().ok_or(EntryFault::Short(what))?;
        self.rest = rest;
        Ok(*first)
    }

    fn fixed(&mut self, what: &'static str) -> Result<u64, EntryFault> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(EntryFault::Short(what))?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*bytes))
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, EntryFault> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(EntryFault::Value(what))
    }

    /// A length of what follows, which the row has.
    fn length(&mut self, what: &'static str) -> Result<usize, EntryFault> {
        let length = usize::try_from(self.varint(what)?).ok();
        length.filter(|length| *length <= self.rest.len()).ok_or(EntryFault::Short(what))
    }

    fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], EntryFault> {
        let length = self.length(what)?;
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self, what: &'static str) -> Result<Arc<str>, EntryFault> {
        text_of(self.bytes(what)?, what)
    }

    /// A text that may well be the `last` one of its kind.
    fn name(
        &mut self,
        what: &'static str,
        last: &mut Option<Arc<str>>,
    ) -> Result<Arc<str>, EntryFault> {
        let bytes = self.bytes(what)?;
        Ok(match last {
            Some(last) if last.as_bytes() == bytes => last.clone(),
            _ => last.insert(text_of(bytes, what)?).clone(),
        })
    }
}

fn text_of(bytes: &[u8], what: &'static str) -> Result<Arc<str>, EntryFault> {
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| EntryFault::Value(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Entry {
        Entry {
            conv: ConvKey::group("t", "team"),
            seq: 17,
            id: MessageId(0x0123_4567_89ab_cdef),
            ts_ms: 1_700_000_000_123,
            from: "alice".into(),
            device: "ios-1".into(),
            cid: Some("c1".into()),
            kind: EntryKind::Edit,
            reference: 3,
            count: 12,
            expires_at_ms: Some(1_700_000_060_123),
            at_all: true,
            mentions: vec!["bob".into(), "carol".into()],
            burn_secs: 604_800,
            void_reason: NOT_VOID,
            properties: Bytes::from_static(&[1, 1]),
            payload: Bytes::from_static(b"hello"),
        }
    }

    fn least() -> Entry {
        let bare = Entry::bare(ConvKey::pair("t", "a", "b"), "".into(), EntryKind::Message);
        Entry { seq: 1, device: "ios-1".into(), ..bare }
    }

    fn most() -> Entry {
        Entry {
            id: MessageId(u64::MAX),
            ts_ms: u64::MAX,
            reference: u64::MAX,
            count: u64::MAX,
            expires_at_ms: Some(u64::MAX),
            burn_secs: u32::MAX,
            void_reason: u8::MAX,
            mentions: vec!["x".repeat(64).into(); 50],
            properties: vec![0x26; 300].into(),
            payload: vec![0xff; 70_000].into(),
            ..full()
        }
    }

    fn row(entry: &Entry) -> Vec<u8> {
        let mut row = Vec::new();
        entry.encode(&mut row);
        row
    }

    #[test]
    fn rows_read_back() {
        let mut entries = vec![full(), least(), most()];
        entries.extend(EntryKind::ALL.map(|kind| Entry { kind, ..full() }));
        for entry in entries {
            let again = Entry::decode(entry.conv.clone(), entry.seq, &row(&entry));
            assert_eq!(again.as_ref(), Ok(&entry));
        }
    }

    /// What lies side by side is kept apart, whatever its size and wherever the shelf begins anew.
    #[test]
    fn entries_that_are_read_together_read_back() {
        let (mut shelf, mut read) = (Shelf::default(), Vec::new());
        let sizes = (0..200).map(|n| n * 37 % 700).chain([20_000, 1, 0, SHELF_BYTES, 3, 5_000]);
        let speakers = [full(), least(), full(), full()];
        let entries: Vec<Entry> = sizes
            .zip(speakers.into_iter().cycle())
            .map(|(size, entry)| Entry { payload: vec![size as u8; size].into(), ..entry })
            .chain([most()])
            .collect();
        for entry in &entries {
            read.push(Entry::decode_onto(&mut shelf, entry.conv.clone(), entry.seq, &row(entry)));
        }
        drop(shelf);
        assert!(read.iter().map(Result::as_ref).eq(entries.iter().map(Ok)));
    }

    #[test]
    fn the_row_has_its_fixed_form() {
        // Rows outlive the program that wrote them: this form may change with its version only.
        let entry = Entry { cid: None, expires_at_ms: None, mentions: Vec::new(), ..full() };
        let expected = [
            &[1, 2, 4, 0][..],
            &[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef],
            &[0xfb, 0xd0, 0x95, 0xff, 0xbc, 0x31],
            &[3, 12, 0x80, 0xf5, 0x24, 5],
            b"alice",
            &[5],
            b"ios-1",
            &[0, 2, 1, 1],
            b"hello",
        ];
        assert_eq!(row(&entry), expected.concat());
    }

    #[test]
    fn a_row_cut_short_is_a_fault_or_ends_in_the_payload() {
        for entry in [full(), least()] {
            let row = row(&entry);
            let header = row.len() - entry.payload.len();
            for end in 0..row.len() {
                let cut = Entry::decode(entry.conv.clone(), entry.seq, &row[..end]);
                assert_eq!(cut.is_ok(), end >= header, "{end} of {}: {cut:?}", row.len());
            }
        }
    }

    #[test]
    fn damaged_values_are_named() {
        let change = |at: usize, byte: u8| {
            let mut row = row(&full());
            row[at] = byte;
            Entry::decode(full().conv, 17, &row).map(drop)
        };
        assert_eq!(change(0, 2), Err(EntryFault::Version(2)));
        assert_eq!(change(1, 7), Err(EntryFault::Value("kind")));
        assert_eq!(change(24, 0xff), Err(EntryFault::Value("sender")));
        let mut endless = row(&full());
        endless.splice(12.., [0xff; 11]);
        let fault = Entry::decode(full().conv, 17, &endless).map(drop);
        assert_eq!(fault, Err(EntryFault::Value("ts")));
        let mut crowd = row(&least());
        crowd.truncate(23);
        crowd.extend([0xff; 9]);
        crowd.push(1);
        let fault = Entry::decode(least().conv, 1, &crowd).map(drop);
        assert_eq!(fault, Err(EntryFault::Short("mentions")));
    }

    #[test]
    fn kinds_have_a_code_and_a_word() {
        let words = ["", "recall", "edit", "react", "burn", "member", "void"];
        for (code, (kind, word)) in EntryKind::ALL.into_iter().zip(words).enumerate() {
            assert_eq!(usize::from(kind.code()), code);
            assert_eq!(EntryKind::from_code(kind.code()), Some(kind));
            assert_eq!(kind.as_str(), word);
        }
        assert_eq!(EntryKind::from_code(7), None);
        let reasons = [(NOT_VOID, ""), (VOID_RECALLED, "recall"), (VOID_BURNT, "burn")];
        for (reason, word) in
            reasons.into_iter().chain([(VOID_EXPIRED, "expiry"), (VOID_ERASED, "erased"), (9, "")])
        {
            assert_eq!(void_word(reason), word);
        }
    }

    #[test]
    fn a_void_keeps_its_place_and_nothing_of_the_content() {
        let void = full().voided(VOID_RECALLED);
        let expected = Entry {
            kind: EntryKind::Void,
            void_reason: VOID_RECALLED,
            expires_at_ms: None,
            at_all: false,
            mentions: Vec::new(),
            burn_secs: 0,
            properties: Bytes::new(),
            payload: Bytes::new(),
            ..full()
        };
        assert_eq!(void, expected);
        assert_eq!(void.reference, 3);
    }
}
