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
use hoopoe_core::{Publication, PublicationParts};

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
/// What is wrong with a list of mentions that is too long: a limit, not a fault of form.
pub const MANY_MENTIONS: &str = "im-at: at most 50 users";

/// An entry on its way into the inbox of `me`, for many; see [`Envelope::delivery`].
pub fn delivery(entry: &Entry, me: &str, version: Version) -> Publication {
    let mut envelope = Envelope::with_room(entry.properties.len() + entry.payload.len());
    envelope.delivery(entry, me, version);
    envelope.finish(&entry.payload, QoS::AtLeastOnce, entry.expires_at_ms)
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
    let mut envelope = Envelope::with_room(message.properties.len() + message.payload.len());
    envelope.level("im/r/");
    envelope.level(message.room);
    envelope.level("/msg/");
    envelope.level(message.lane.as_str());
    let (n, ts) = (Decimal::of(message.n), Decimal::of(message.ts_ms));
    if version == Version::V311 {
        for level in [n.as_bytes(), message.from.as_bytes(), ts.as_bytes()] {
            envelope.header_level(level);
        }
    }
    envelope.end_topic();
    if version == Version::V5 {
        envelope.properties(message.properties);
        envelope.property("im-seq", n.as_bytes());
        envelope.property("im-ts", ts.as_bytes());
        envelope.property("im-from", message.from.as_bytes());
    }
    envelope.finish(message.payload, QoS::AtMostOnce, None)
}

/// Topic and properties of a publication being written, one behind the other: the payload comes
/// behind them, or stays where it lies ([`Envelope::parts`]).
#[derive(Debug, Default)]
pub struct Envelope {
    bytes: Vec<u8>,
    topic_len: usize,
}

/// Room for the topic and envelope of nearly every entry.
const ENVELOPE_LEN: usize = 384;

impl Envelope {
    fn with_room(len: usize) -> Envelope {
        Envelope { bytes: Vec::with_capacity(ENVELOPE_LEN + len), topic_len: 0 }
    }

    /// An entry on its way into the inbox of `me`, on `im/me/in/{u,g,c}/{id}`.
    ///
    /// For a group or channel it is the same for everybody but the sender, whose devices see
    /// `im-cid`.
    pub fn delivery(&mut self, entry: &Entry, me: &str, version: Version) {
        self.bytes.clear();
        self.level("im/me/in/");
        self.level(entry.conv.kind().letter());
        self.level("/");
        self.level(entry.conv.peer_of(me));
        self.header(entry, me, version);
    }

    /// An entry as an item of an answer of the `{req}` form: on `topic`, which is
    /// `im/me/res/{req}/m`; for MQTT 3.1.1 with the levels of the header behind it.
    pub fn pulled(&mut self, entry: &Entry, me: &str, version: Version, topic: &str) {
        self.bytes.clear();
        self.level(topic);
        self.header(entry, me, version);
    }

    /// An entry as an item of an answer to a Response Topic: exactly there, with the Correlation
    /// Data of the request in the place of the sender's, and `im-status` `more` (ruling 31).
    pub fn pulled_answer(
        &mut self,
        entry: &Entry,
        me: &str,
        response_topic: &str,
        correlation_data: Option<&[u8]>,
    ) {
        self.bytes.clear();
        self.level(response_topic);
        self.end_topic();
        let theirs = Walk::over(&entry.properties).find(|property| property.id == CORRELATION_DATA);
        let span = theirs.map(|property| property.span);
        self.properties(&without(&entry.properties, span.as_slice()));
        if let Some(data) = correlation_data {
            self.bytes.push(CORRELATION_DATA);
            self.sized(data);
        }
        self.header_properties(entry, me);
        self.property("im-status", b"more");
    }

    /// What was written last, around the entry's payload.
    pub fn parts<'a>(&'a self, entry: &'a Entry) -> PublicationParts<'a> {
        let (topic, properties) = self.bytes.split_at(self.topic_len);
        PublicationParts {
            topic: std::str::from_utf8(topic).unwrap_or_default(),
            properties,
            payload: &entry.payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at_ms: entry.expires_at_ms,
        }
    }

    /// What stands behind a topic's own levels, as the version has it.
    fn header(&mut self, entry: &Entry, me: &str, version: Version) {
        if version == Version::V311 {
            self.header_levels(entry);
        }
        self.end_topic();
        if version == Version::V5 {
            self.properties(&entry.properties);
            self.header_properties(entry, me);
        }
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
                    MentionFault::TooMany => MANY_MENTIONS,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::VOID_RECALLED;
    use crate::id::{ConvKey, MessageId};
    use hoopoe_codec::{PropertyBlock, PublishProperties, check_topic};

    fn entry(conv: ConvKey, from: &str) -> Entry {
        let theirs = PropertyBlock::new().with("colour", "red").with("colour", "blue");
        let properties = [&[PAYLOAD_FORMAT, 1][..], theirs.as_bytes()].concat();
        Entry {
            conv,
            seq: 17,
            id: MessageId(1 << 22),
            ts_ms: 1_700_000_000_123,
            from: from.into(),
            device: "ios-1".into(),
            cid: Some("c1".into()),
            kind: EntryKind::Message,
            reference: 0,
            count: 12,
            expires_at_ms: Some(99),
            at_all: false,
            mentions: Vec::new(),
            burn_secs: 0,
            void_reason: 0,
            properties: properties.into(),
            payload: Bytes::from_static(b"hello"),
        }
    }

    fn pairs(publication: &Publication) -> Vec<(&str, &str)> {
        check_topic(publication.topic()).unwrap();
        let properties = PublishProperties::from_forwardable(publication.properties());
        assert_eq!(*properties.forwardable(), *publication.properties(), "well formed");
        properties.user_properties.iter().collect()
    }

    /// The pairs behind the sender's two.
    fn header(publication: &Publication) -> String {
        let pairs = pairs(publication);
        assert_eq!(pairs[..2], [("colour", "red"), ("colour", "blue")], "unaltered, in order");
        words(&pairs[2..])
    }

    fn words(pairs: &[(&str, &str)]) -> String {
        let pairs: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.join(" ")
    }

    const TEXT: &str = "im-seq=17 im-id=0000000040000 im-ts=1700000000123";

    fn pulled(entry: &Entry, me: &str, version: Version, topic: &str) -> Publication {
        let mut envelope = Envelope::default();
        envelope.pulled(entry, me, version, topic);
        envelope.parts(entry).to_publication()
    }

    fn pulled_answer(
        entry: &Entry,
        me: &str,
        topic: &str,
        correlation_data: Option<&[u8]>,
    ) -> Publication {
        let mut envelope = Envelope::default();
        envelope.pulled_answer(entry, me, topic, correlation_data);
        envelope.parts(entry).to_publication()
    }

    /// An envelope that was written before has nothing of that left.
    #[test]
    fn an_envelope_is_written_again() {
        let mut envelope = Envelope::default();
        for version in [Version::V311, Version::V5] {
            for id in ["a-group-with-a-long-name", "g"] {
                let entry = entry(ConvKey::group("default", id), "alice");
                envelope.delivery(&entry, "bob", version);
                let whole = delivery(&entry, "bob", version);
                assert_eq!(envelope.parts(&entry).to_publication(), whole);
            }
        }
    }

    #[test]
    fn mqtt_5_has_a_short_topic_and_user_properties() {
        let table = [
            (ConvKey::pair("t", "alice", "bob"), "bob", "u/alice", ""),
            (ConvKey::pair("t", "alice", "bob"), "alice", "u/bob", " im-cid=c1"),
            (ConvKey::pair("t", "alice", "alice"), "alice", "u/alice", " im-cid=c1"),
            (ConvKey::group("t", "team"), "bob", "g/team", ""),
            (ConvKey::group("t", "team"), "alice", "g/team", " im-cid=c1"),
            (ConvKey::channel("t", "news"), "bob", "c/news", ""),
        ];
        for (conv, me, place, cid) in table {
            let publication = delivery(&entry(conv, "alice"), me, Version::V5);
            assert_eq!(publication.topic(), format!("im/me/in/{place}"));
            let expected = format!("{TEXT} im-from=alice{cid} im-cnt=12");
            assert_eq!(header(&publication), expected);
            assert_eq!(publication.properties()[..2], [PAYLOAD_FORMAT, 1]);
            assert_eq!(publication.payload(), b"hello");
            assert_eq!(publication.qos, QoS::AtLeastOnce);
            assert!(!publication.retain);
            assert_eq!(publication.expires_at_ms, Some(99));
        }
    }

    #[test]
    fn mqtt_3_1_1_has_the_header_in_the_topic() {
        let tail = "17/alice/1700000000123/0000000040000";
        let table = [
            (ConvKey::pair("t", "alice", "bob"), "bob", "u/alice"),
            (ConvKey::pair("t", "alice", "bob"), "alice", "u/bob"),
            (ConvKey::group("t", "team"), "bob", "g/team"),
            (ConvKey::channel("t", "news"), "bob", "c/news"),
        ];
        for (conv, me, place) in table {
            let entry = entry(conv, "alice");
            let publication = delivery(&entry, me, Version::V311);
            assert_eq!(publication.topic(), format!("im/me/in/{place}/{tail}"));
            assert_eq!(publication.properties(), b"");
            assert_eq!(publication.payload(), b"hello");
            assert_eq!(publication.expires_at_ms, Some(99));
            let publication = pulled(&entry, me, Version::V311, "im/me/res/r1/m");
            assert_eq!(publication.topic(), format!("im/me/res/r1/m/{tail}"));
            assert_eq!(publication.properties(), b"");
        }
    }

    #[test]
    fn events_say_their_kind_and_what_they_refer_to() {
        for kind in EntryKind::ALL.into_iter().skip(1) {
            for reference in [0, 3] {
                let conv = ConvKey::group("t", "team");
                let entry = Entry { kind, reference, ..entry(conv, "alice") };
                let word = kind.as_str();
                let v5 = delivery(&entry, "bob", Version::V5);
                let tail = format!("im-kind={word} im-ref={reference} im-cnt=12");
                assert_eq!(header(&v5), format!("{TEXT} im-from=alice {tail}"));
                let v311 = delivery(&entry, "bob", Version::V311);
                let tail = format!("/0000000040000/{word}/{reference}");
                assert!(v311.topic().ends_with(&tail), "{}", v311.topic());
            }
        }
    }

    #[test]
    fn a_void_says_why_and_nothing_of_the_content() {
        let void = entry(ConvKey::group("t", "team"), "alice").voided(VOID_RECALLED);
        let v5 = delivery(&void, "bob", Version::V5);
        let tail = "im-from=alice im-kind=void im-ref=0 im-void=recall im-cnt=12";
        assert_eq!(words(&pairs(&v5)), format!("{TEXT} {tail}"));
        let v311 = delivery(&void, "bob", Version::V311);
        assert!(v311.topic().ends_with("/0000000040000/void/0"));
        for publication in [v5, v311] {
            assert_eq!(publication.payload(), b"");
            assert_eq!(publication.expires_at_ms, None);
        }
    }

    #[test]
    fn mentions_are_told() {
        let table: [(bool, &[&str], &str); 4] = [
            (false, &[], ""),
            (false, &["bob", "carol"], " im-at=bob,carol"),
            (true, &[], " im-at=all"),
            (true, &["bob"], " im-at=all,bob"),
        ];
        for (at_all, users, at) in table {
            let mentions = users.iter().map(|user| (*user).into()).collect();
            let entry = entry(ConvKey::group("t", "team"), "alice");
            let entry = Entry { at_all, mentions, ..entry };
            let publication = delivery(&entry, "bob", Version::V5);
            let expected = format!("{TEXT} im-from=alice im-cnt=12{at}");
            assert_eq!(header(&publication), expected);
        }
    }

    #[test]
    fn answers_come_where_they_were_asked_for() {
        let entry = entry(ConvKey::group("t", "team"), "alice");
        let by_request = pulled(&entry, "alice", Version::V5, "im/me/res/r1/m");
        assert_eq!(by_request.topic(), "im/me/res/r1/m");
        assert_eq!(header(&by_request), format!("{TEXT} im-from=alice im-cid=c1 im-cnt=12"));

        let answer = pulled_answer(&entry, "bob", "im/me/res/x", Some(b"\0\xff"));
        assert_eq!(answer.topic(), "im/me/res/x");
        let expected = format!("{TEXT} im-from=alice im-cnt=12 im-status=more");
        assert_eq!(header(&answer), expected);
        let properties = PublishProperties::from_forwardable(answer.properties());
        assert_eq!(properties.correlation_data, Some(&b"\0\xff"[..]));
        assert_eq!(properties.payload_format_utf8, Some(true));

        // The sender's own Correlation Data would make two of them, which is a protocol error.
        let theirs = [&[CORRELATION_DATA, 0, 1, 7][..], &entry.properties].concat();
        let entry = Entry { properties: theirs.into(), ..entry };
        for mine in [Some(&b"me"[..]), None] {
            let answer = pulled_answer(&entry, "bob", "im/me/res/x", mine);
            let properties = PublishProperties::from_forwardable(answer.properties());
            assert_eq!(properties.correlation_data, mine);
            assert_eq!(header(&answer), expected);
        }
    }

    #[test]
    fn a_rooms_message_has_its_header_too() {
        let theirs = PropertyBlock::new().with("colour", "red").with("colour", "blue");
        let message = RoomMessage {
            room: "live",
            lane: Lane::Hi,
            n: u64::MAX,
            from: "alice",
            ts_ms: 0,
            properties: theirs.as_bytes(),
            payload: b"hello",
        };
        let v5 = room_message(&message, Version::V5);
        assert_eq!(v5.topic(), "im/r/live/msg/hi");
        assert_eq!(header(&v5), "im-seq=18446744073709551615 im-ts=0 im-from=alice");
        let v311 = room_message(&message, Version::V311);
        assert_eq!(v311.topic(), "im/r/live/msg/hi/18446744073709551615/alice/0");
        assert_eq!(v311.properties(), b"");
        for publication in [v5, v311] {
            assert_eq!(publication.payload(), b"hello");
            assert_eq!(publication.qos, QoS::AtMostOnce);
        }
    }

    fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
        let pairs: PropertyBlock = pairs.iter().copied().collect();
        let text = [CONTENT_TYPE, 0, 1, b'x', RESPONSE_TOPIC, 0, 1, b'y', CORRELATION_DATA, 0, 0];
        [&text[..], pairs.as_bytes(), &[PAYLOAD_FORMAT, 0]].concat()
    }

    #[test]
    fn the_senders_part_of_the_envelope_comes_out() {
        type Pairs = &'static [(&'static str, &'static str)];
        let table: [(Pairs, _, _, Pairs); 6] = [
            (&[], None, None, &[]),
            (&[("a", "1"), ("a", "2")], None, None, &[("a", "1"), ("a", "2")]),
            (&[("im-cid", "c1")], Some("c1"), None, &[]),
            (
                &[("a", "1"), ("im-cid", "c1"), ("b", "")],
                Some("c1"),
                None,
                &[("a", "1"), ("b", "")],
            ),
            (
                &[("im-at", "all"), ("a", "1"), ("im-cid", "c1"), ("b", "2")],
                Some("c1"),
                Some("all"),
                &[("a", "1"), ("b", "2")],
            ),
            (
                &[("im", "1"), ("IM-x", "2"), ("x-im-", "3")],
                None,
                None,
                &[("im", "1"), ("IM-x", "2"), ("x-im-", "3")],
            ),
        ];
        for (given, cid, at, left) in table {
            let bytes = block(given);
            let taken = check_client_properties(&bytes).unwrap();
            assert_eq!((taken.cid, taken.at), (cid, at), "{given:?}");
            assert_eq!(*taken.without_ours, *block(left), "{given:?}");
        }
    }

    #[test]
    fn taking_them_out_copies_nothing_at_either_end() {
        let with = |pairs: &[(&str, &str)]| {
            pairs.iter().copied().collect::<PropertyBlock>().as_bytes().to_vec()
        };
        let cid = ("im-cid", "c1");
        let (at, other, more) = (("im-at", "bob"), ("a", "1"), ("b", "2"));
        let table: [(&[(&str, &str)], bool); 7] = [
            (&[], true),
            (&[cid], true),
            (&[cid, at], true),
            (&[cid, other, more], true),
            (&[other, more, at, cid], true),
            (&[at, other, cid], true),
            (&[other, cid, more], false),
        ];
        for (pairs, borrowed) in table {
            let bytes = with(pairs);
            let taken = check_client_properties(&bytes).unwrap();
            let is_borrowed = matches!(taken.without_ours, Cow::Borrowed(_));
            assert_eq!(is_borrowed, borrowed, "{pairs:?}");
        }
    }

    #[test]
    fn other_words_of_the_profile_are_refused() {
        let long = "x".repeat(65);
        let crowd = vec!["u"; 51].join(",");
        let table = [
            ("im-from", "bob", "broker's"),
            ("im-", "", "broker's"),
            ("im-cidx", "c1", "broker's"),
            ("im-CID", "c1", "broker's"),
            ("im-cid", "", "im-cid"),
            ("im-cid", "a b", "im-cid"),
            ("im-cid", &long, "im-cid"),
            ("im-at", "", "im-at"),
            ("im-at", "a,,b", "im-at"),
            ("im-at", &crowd, "at most 50"),
        ];
        for (name, value, word) in table {
            let bytes = block(&[("a", "1"), (name, value), ("b", "2")]);
            let fault = check_client_properties(&bytes).unwrap_err();
            assert!(fault.contains(word), "{name}: {fault}");
        }
        for twice in ["im-cid", "im-at"] {
            let bytes = block(&[(twice, "x"), (twice, "x")]);
            assert!(check_client_properties(&bytes).unwrap_err().contains("once"), "{twice}");
        }
    }

    #[test]
    fn a_damaged_block_is_refused() {
        let whole = block(&[("a", "1")]);
        let ends: Vec<usize> = Walk::over(&whole).map(|property| property.span.end).collect();
        assert_eq!(ends.last(), Some(&whole.len()));
        for end in 0..=whole.len() {
            let complete = end == 0 || ends.contains(&end);
            assert_eq!(check_client_properties(&whole[..end]).is_ok(), complete, "{end}");
        }
        assert!(check_client_properties(&[0x02, 0, 0, 0, 1]).is_err());
    }
}
