//! The envelope: how a stored entry or a room's message looks to a receiver of either version,
//! and what of the envelope a sender may give (profile, section 5).
//!
//! MQTT 5: a short topic, the envelope as user properties behind the sender's own. MQTT 3.1.1: the
//! envelope as levels of the topic. Deliberately not here: who receives, at which QoS, and
//! whether an entry is still to be shown as it is (rulings 23 to 25).

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use hoopoe_codec::{QoS, Version};
use hoopoe_core::Publication;

use crate::entry::{Entry, EntryKind, void_word};
use crate::id::is_id;
use crate::topic::{Lane, MentionFault, Mentions};

/// What a client's user properties of the profile begin with.
const OURS: &[u8] = b"im-";
/// Property identifiers of MQTT 5 that a server passes on (table 2-4).
const PAYLOAD_FORMAT: u8 = 0x01;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const USER_PROPERTY: u8 = 0x26;

/// An entry on its way into the inbox of `me`, on `im/me/in/{u,g,c}/{id}`.
///
/// For a group or channel it is the same for everybody but the sender, whose devices see `im-cid`.
pub fn delivery(entry: &Entry, me: &str, version: Version) -> Publication {
    let mut draft = Draft::new(entry.properties.len() + entry.payload.len());
    draft.level("im/me/in/");
    draft.level(entry.conv.kind().letter());
    draft.level("/");
    draft.level(entry.conv.peer_of(me));
    if version == Version::V311 {
        draft.header_levels(entry);
    }
    draft.end_topic();
    if version == Version::V5 {
        draft.properties(&entry.properties);
        draft.header_properties(entry, me);
    }
    draft.finish(&entry.payload, QoS::AtLeastOnce, entry.expires_at_ms)
}

/// An entry as an item of an answer of the `{req}` form: on `topic`, which is `im/me/res/{req}/m`;
/// for MQTT 3.1.1 with the levels of the header behind it.
pub fn pulled(entry: &Entry, me: &str, version: Version, topic: &str) -> Publication {
    let mut draft = Draft::new(topic.len() + entry.properties.len() + entry.payload.len());
    draft.level(topic);
    if version == Version::V311 {
        draft.header_levels(entry);
    }
    draft.end_topic();
    if version == Version::V5 {
        draft.properties(&entry.properties);
        draft.header_properties(entry, me);
    }
    draft.finish(&entry.payload, QoS::AtLeastOnce, entry.expires_at_ms)
}

/// An entry as an item of an answer to a Response Topic: exactly there, with the Correlation Data
/// of the request in the place of the sender's, and `im-status` `more` (ruling 31).
pub fn pulled_answer(
    entry: &Entry,
    me: &str,
    response_topic: &str,
    correlation_data: Option<&[u8]>,
) -> Publication {
    let mut draft = Draft::new(response_topic.len() + entry.properties.len() + entry.payload.len());
    draft.level(response_topic);
    draft.end_topic();
    let theirs = Walk::over(&entry.properties).find(|property| property.id == CORRELATION_DATA);
    let span = theirs.map(|property| property.span);
    draft.properties(&without(&entry.properties, span.as_slice()));
    if let Some(data) = correlation_data {
        draft.bytes.push(CORRELATION_DATA);
        draft.sized(data);
    }
    draft.header_properties(entry, me);
    draft.property("im-status", b"more");
    draft.finish(&entry.payload, QoS::AtLeastOnce, entry.expires_at_ms)
}

/// A message of a room, which nothing stores.
#[derive(Clone, Copy, Debug)]
pub struct RoomMessage<'a> {
    /// The room.
    pub room: &'a str,
    /// Its lane.
    pub lane: Lane,
    /// The room's count of messages.
    pub n: u64,
    /// The authenticated sender.
    pub from: &'a str,
    /// When the room took it, ms since the epoch.
    pub ts_ms: u64,
    /// The sender's MQTT 5 properties that pass unaltered, in wire form.
    pub properties: &'a [u8],
    /// The content.
    pub payload: &'a [u8],
}

/// A room's message on `im/r/{room}/msg/{lane}`, at QoS 0 (ruling 29).
pub fn room_message(message: &RoomMessage<'_>, version: Version) -> Publication {
    let mut draft = Draft::new(message.properties.len() + message.payload.len());
    draft.level("im/r/");
    draft.level(message.room);
    draft.level("/msg/");
    draft.level(message.lane.as_str());
    let (n, ts) = (Decimal::of(message.n), Decimal::of(message.ts_ms));
    if version == Version::V311 {
        for level in [n.as_bytes(), message.from.as_bytes(), ts.as_bytes()] {
            draft.header_level(level);
        }
    }
    draft.end_topic();
    if version == Version::V5 {
        draft.properties(message.properties);
        draft.property("im-seq", n.as_bytes());
        draft.property("im-ts", ts.as_bytes());
        draft.property("im-from", message.from.as_bytes());
    }
    draft.finish(message.payload, QoS::AtMostOnce, None)
}

/// A publication being written: topic, properties, payload, in one allocation.
struct Draft {
    bytes: Vec<u8>,
    topic_len: usize,
}

/// Room for the topic and envelope of nearly every entry.
const ENVELOPE_LEN: usize = 384;

impl Draft {
    fn new(len: usize) -> Draft {
        Draft { bytes: Vec::with_capacity(ENVELOPE_LEN + len), topic_len: 0 }
    }

    fn level(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn header_level(&mut self, text: &[u8]) {
        self.bytes.push(b'/');
        self.bytes.extend_from_slice(text);
    }

    /// `/{seq}/{from}/{ts}/{mid}[/{kind}/{ref}]`
    fn header_levels(&mut self, entry: &Entry) {
        self.header_level(Decimal::of(entry.seq).as_bytes());
        self.header_level(entry.from.as_bytes());
        self.header_level(Decimal::of(entry.ts_ms).as_bytes());
        self.header_level(&entry.id.to_ascii());
        if entry.kind != EntryKind::Message {
            self.header_level(entry.kind.as_str().as_bytes());
            self.header_level(Decimal::of(entry.reference).as_bytes());
        }
    }

    fn end_topic(&mut self) {
        self.topic_len = self.bytes.len();
    }

    fn properties(&mut self, wire: &[u8]) {
        self.bytes.extend_from_slice(wire);
    }

    /// A length of two bytes and the bytes it counts.
    fn sized(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(&bytes[..usize::from(len)]);
    }

    fn property(&mut self, name: &str, value: &[u8]) {
        self.bytes.push(USER_PROPERTY);
        self.sized(name.as_bytes());
        self.sized(value);
    }

    fn header_properties(&mut self, entry: &Entry, me: &str) {
        self.property("im-seq", Decimal::of(entry.seq).as_bytes());
        self.property("im-id", &entry.id.to_ascii());
        self.property("im-ts", Decimal::of(entry.ts_ms).as_bytes());
        self.property("im-from", entry.from.as_bytes());
        // Echoed to the sender's devices only.
        if let Some(cid) = entry.cid.as_deref().filter(|_| me == &*entry.from) {
            self.property("im-cid", cid.as_bytes());
        }
        if entry.kind != EntryKind::Message {
            self.property("im-kind", entry.kind.as_str().as_bytes());
            self.property("im-ref", Decimal::of(entry.reference).as_bytes());
        }
        // "delivered ... as kind `void` with empty payload and the reason" (ruling 23).
        if entry.kind == EntryKind::Void && !void_word(entry.void_reason).is_empty() {
            self.property("im-void", void_word(entry.void_reason).as_bytes());
        }
        self.property("im-cnt", Decimal::of(entry.count).as_bytes());
        if entry.at_all || !entry.mentions.is_empty() {
            let all = entry.at_all.then_some("all");
            let users: Vec<&str> =
                all.into_iter().chain(entry.mentions.iter().map(|u| &**u)).collect();
            self.property("im-at", users.join(",").as_bytes());
        }
    }

    fn finish(mut self, payload: &[u8], qos: QoS, expires_at_ms: Option<u64>) -> Publication {
        let properties_len = self.bytes.len() - self.topic_len;
        self.bytes.extend_from_slice(payload);
        let bytes = Bytes::from(self.bytes);
        Publication::from_stored(bytes, self.topic_len, properties_len, qos, false, expires_at_ms)
            .expect("the lengths are of what was just written, and a topic is made of text")
    }
}

/// A number in decimal digits, without an allocation.
struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    fn of(mut number: u64) -> Decimal {
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Decimal { digits, start };
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// What a sender said of the envelope in MQTT 5 properties.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientProperties<'a> {
    /// The client message id, `im-cid`.
    pub cid: Option<&'a str>,
    /// A checked list of mentions, `im-at`, to be read by [`Mentions::parse`].
    pub at: Option<&'a str>,
    /// The properties to be passed on: all the others. Borrowed unless one of the two above lay
    /// between them.
    pub without_ours: Cow<'a, [u8]>,
}

/// Takes the profile's properties out of a block of
/// [`forwardable`](hoopoe_codec::PublishProperties::forwardable) ones.
///
/// # Errors
///
/// What is wrong with them, in words for a reason string; the code is 0x99 (profile, section 5).
pub fn check_client_properties(forwardable: &[u8]) -> Result<ClientProperties<'_>, &'static str> {
    let (mut cid, mut at) = (None, None);
    let mut spans: [Range<usize>; 2] = [0..0, 0..0];
    let mut count = 0;
    let mut seen = 0;
    for property in Walk::over(forwardable) {
        seen = property.span.end;
        let Some((name, value)) = property.pair.filter(|(name, _)| name.starts_with(OURS)) else {
            continue;
        };
        let value = std::str::from_utf8(value).map_err(|_| "im-…: the value is no text")?;
        match name {
            b"im-cid" if cid.is_none() => {
                if !is_id(value) {
                    return Err("im-cid: no valid id");
                }
                cid = Some(value);
            }
            b"im-at" if at.is_none() => {
                Mentions::parse(value).map_err(|fault| match fault {
                    MentionFault::NotAnId => "im-at: user ids with commas between them, or all",
                    MentionFault::TooMany => "im-at: at most 50 users",
                })?;
                at = Some(value);
            }
            b"im-cid" | b"im-at" => return Err("im-cid and im-at can be given once"),
            _ => return Err("user properties that begin with im- are the broker's"),
        }
        // Each of the two comes here once.
        spans[count] = property.span;
        count += 1;
    }
    if seen < forwardable.len() {
        return Err("the properties end within one of them");
    }
    Ok(ClientProperties { cid, at, without_ours: without(forwardable, &spans[..count]) })
}

/// The block without some of its properties, given in their order.
fn without<'a>(block: &'a [u8], spans: &[Range<usize>]) -> Cow<'a, [u8]> {
    let mut kept = Cow::Borrowed(&block[..0]);
    let mut from = 0;
    let end = block.len()..block.len();
    for span in spans.iter().chain([&end]) {
        let piece = &block[from..span.start];
        if kept.is_empty() {
            kept = Cow::Borrowed(piece);
        } else if !piece.is_empty() {
            kept.to_mut().extend_from_slice(piece);
        }
        from = span.end;
    }
    kept
}

/// A property of a block.
struct Property<'a> {
    id: u8,
    span: Range<usize>,
    /// Name and value of a user property.
    pair: Option<(&'a [u8], &'a [u8])>,
}

/// A walk over a block that the codec checked: it has forwardable properties and no others. Should
/// it be damaged, what follows the damage is not looked at.
struct Walk<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn over(block: &'a [u8]) -> Walk<'a> {
        Walk { block, at: 0 }
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let rest = self.block.get(self.at..)?;
        let (len, rest) = rest.split_first_chunk()?;
        let bytes = rest.get(..usize::from(u16::from_be_bytes(*len)))?;
        self.at += 2 + bytes.len();
        Some(bytes)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        let start = self.at;
        let id = *self.block.get(start)?;
        self.at += 1;
        let pair = match id {
            PAYLOAD_FORMAT => {
                self.block.get(self.at)?;
                self.at += 1;
                None
            }
            CONTENT_TYPE | RESPONSE_TOPIC | CORRELATION_DATA => {
                self.sized()?;
                None
            }
            USER_PROPERTY => Some((self.sized()?, self.sized()?)),
            _ => return None,
        };
        Some(Property { id, span: start..self.at, pair })
    }
}
