//! Names of the profile: what may be an id, device classes, message ids, conversation keys, and
//! the slots and internal topics that follow from them.
//!
//! Owns no state but the last number of a [`MessageIds`]. Deliberately not here: the clock (times
//! come in as arguments) and the keys of rows.

mod message;

pub use message::{MessageId, MessageIds};

use std::fmt;
use std::sync::Arc;

use hoopoe_core::Slot;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id in bytes.
pub const MAX_ID_LEN: usize = 64;

/// Whether the text may name a user, device, group, channel, room, tenant or client message:
/// 1 to 64 of `A-Z a-z 0-9 . _ - : @` (profile, section 2).
pub fn is_id(text: &str) -> bool {
    matches!(text.len(), 1..=MAX_ID_LEN) && text.bytes().all(|byte| ALLOWED[usize::from(byte)])
}

/// The bytes of ids, looked up: every message and every line of a user's list names some.
const ALLOWED: [bool; 256] = {
    let (mut allowed, mut byte) = ([false; 256], 0);
    while byte < allowed.len() {
        let this = byte as u8;
        allowed[byte] =
            this.is_ascii_alphanumeric() || matches!(this, b'.' | b'_' | b'-' | b':' | b'@');
        byte += 1;
    }
    allowed
};

/// What kind of device a client is, by its client id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DeviceClass {
    /// A telephone with iOS.
    Ios,
    /// A telephone with Android.
    Android,
    /// A tablet.
    Pad,
    /// A computer.
    Pc,
    /// A browser.
    Web,
    /// A program.
    Bot,
    /// Anything else.
    Other,
}

impl DeviceClass {
    /// The client id up to the first `-` (all of it without one), when that names a class.
    pub fn of(client_id: &str) -> DeviceClass {
        match client_id.split('-').next().unwrap_or_default() {
            "ios" => DeviceClass::Ios,
            "android" => DeviceClass::Android,
            "pad" => DeviceClass::Pad,
            "pc" => DeviceClass::Pc,
            "web" => DeviceClass::Web,
            "bot" => DeviceClass::Bot,
            _ => DeviceClass::Other,
        }
    }

    /// The word for it in topics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            DeviceClass::Ios => "ios",
            DeviceClass::Android => "android",
            DeviceClass::Pad => "pad",
            DeviceClass::Pc => "pc",
            DeviceClass::Web => "web",
            DeviceClass::Bot => "bot",
            DeviceClass::Other => "other",
        }
    }
}

/// What kind of conversation a key names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConvKind {
    /// Two users, or one with notes to self.
    User,
    /// A group.
    Group,
    /// A one-way channel.
    Channel,
}

impl ConvKind {
    /// The level that stands for it in keys and topics.
    pub fn letter(self) -> &'static str {
        match self {
            ConvKind::User => "u",
            ConvKind::Group => "g",
            ConvKind::Channel => "c",
        }
    }

    /// The kind that a level stands for.
    pub fn from_letter(letter: &str) -> Option<ConvKind> {
        match letter {
            "u" => Some(ConvKind::User),
            "g" => Some(ConvKind::Group),
            "c" => Some(ConvKind::Channel),
            _ => None,
        }
    }
}

/// A conversation: `{tenant}/u/{low}/{high}`, `{tenant}/g/{id}` or `{tenant}/c/{id}`.
///
/// The constructors take ids that were checked; [`parse`](ConvKey::parse) and
/// [`from_wire`](ConvKey::from_wire) check.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConvKey {
    text: Arc<str>,
    /// Where the id begins, behind tenant and letter; of a pair its lower user.
    id_at: u16,
    /// Where the higher user of a pair begins; 0 for all others.
    high_at: u16,
}

impl ConvKey {
    /// The conversation of two users, in any order; of one with itself: notes to self.
    pub fn pair(tenant: &str, a: &str, b: &str) -> ConvKey {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        ConvKey::joined(tenant, "/u/", low, Some(high))
    }

    /// A group's conversation.
    pub fn group(tenant: &str, id: &str) -> ConvKey {
        ConvKey::joined(tenant, "/g/", id, None)
    }

    /// A channel's conversation.
    pub fn channel(tenant: &str, id: &str) -> ConvKey {
        ConvKey::joined(tenant, "/c/", id, None)
    }

    /// A name of 64 bits, stable over restarts and never 0: two conversations of one device have
    /// different ones, as good as certainly.
    pub fn tag(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.text.as_bytes()).max(1)
    }

    /// Made for every message: one allocation, and no look for the parts.
    fn joined(tenant: &str, letter: &str, id: &str, high: Option<&str>) -> ConvKey {
        debug_assert!([tenant, id].iter().all(|part| !part.is_empty() && !part.contains('/')));
        let id_at = tenant.len() + letter.len();
        let (slash, high_at) = high.map_or(("", 0), |_| ("/", id_at + id.len() + 1));
        let parts = [tenant, letter, id, slash, high.unwrap_or_default()];
        let text = with_joined(&parts.map(str::as_bytes), |text| {
            std::str::from_utf8(text).map_or_else(|_| parts.concat().into(), Arc::from)
        });
        ConvKey { text, id_at: id_at as u16, high_at: high_at as u16 }
    }

    /// The key with this text; `None` unless a constructor makes that very text of valid ids.
    pub fn parse(text: &str) -> Option<ConvKey> {
        let mut levels = text.split('/');
        let (tenant, letter, id) = (levels.next()?, levels.next()?, levels.next()?);
        let high = levels.next();
        let known = match (ConvKind::from_letter(letter)?, high) {
            (ConvKind::User, Some(high)) => id <= high && is_id(high),
            (ConvKind::Group | ConvKind::Channel, None) => true,
            _ => false,
        };
        let valid = known && is_id(tenant) && is_id(id) && levels.next().is_none();
        valid.then(|| ConvKey::of_text(text))
    }

    /// The conversation that the user `me` calls `u/bob`, `g/team` or `c/news`.
    pub fn from_wire(tenant: &str, me: &str, wire: &str) -> Option<ConvKey> {
        let (kind, id) = split_wire(wire)?;
        if !is_id(id) {
            return None;
        }
        Some(match kind {
            ConvKind::User => ConvKey::pair(tenant, me, id),
            ConvKind::Group => ConvKey::group(tenant, id),
            ConvKind::Channel => ConvKey::channel(tenant, id),
        })
    }

    /// A key that no conversation has, before all others.
    pub fn least() -> ConvKey {
        ConvKey::of_text("")
    }

    /// Every message asks for the parts several times: they are looked for once.
    fn of_text(text: &str) -> ConvKey {
        let mut slashes = text.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
        let mut behind = || slashes.next().map_or(0, |(at, _)| at as u16 + 1);
        let (_, id_at, high_at) = (behind(), behind(), behind());
        ConvKey { text: text.into(), id_at, high_at }
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn part(&self, from: u16, to: usize) -> &str {
        self.text.get(usize::from(from)..to).unwrap_or_default()
    }

    /// The tenant it belongs to.
    pub fn tenant(&self) -> &str {
        self.part(0, usize::from(self.id_at).saturating_sub("/u/".len()))
    }

    /// What kind of conversation it is.
    pub fn kind(&self) -> ConvKind {
        match usize::from(self.id_at).checked_sub(2).and_then(|at| self.text.as_bytes().get(at)) {
            Some(b'u') => ConvKind::User,
            Some(b'g') => ConvKind::Group,
            _ => ConvKind::Channel,
        }
    }

    /// The id of the group or channel; of a pair its two users, `low/high`.
    pub fn id(&self) -> &str {
        self.part(self.id_at, self.text.len())
    }

    /// The two users of a pair, the lower first; equal for notes to self.
    pub fn pair_users(&self) -> Option<(&str, &str)> {
        let before_high = usize::from(self.high_at.checked_sub(1)?);
        let high = self.part(self.high_at, self.text.len());
        Some((self.part(self.id_at, before_high), high))
    }

    /// Which of a pair's users it is: 0 for the lower, 1 for the higher.
    pub fn side_of(&self, user: &str) -> Option<usize> {
        let (low, high) = self.pair_users()?;
        if user == low { Some(0) } else { (user == high).then_some(1) }
    }

    /// What `me` calls the other end: the other user of a pair, else the group or channel.
    pub fn peer_of(&self, me: &str) -> &str {
        match self.pair_users() {
            Some((low, high)) => {
                if low == me {
                    high
                } else {
                    low
                }
            }
            None => self.id(),
        }
    }

    /// The conversation as `me` spells it: `u/bob`, `g/team`, `c/news`.
    pub fn wire(&self, me: &str) -> String {
        [self.kind().letter(), "/", self.peer_of(me)].concat()
    }

    /// Whether `me` spells the conversation so.
    pub fn is_wire(&self, me: &str, wire: &str) -> bool {
        split_wire(wire) == Some((self.kind(), self.peer_of(me)))
    }

    /// The slot of the conversation's shard (ruling 26).
    pub fn slot(&self) -> Slot {
        Slot::of(self.text.as_bytes())
    }
}

/// Kind and name in `u/bob`, `g/team` or `c/news`.
fn split_wire(wire: &str) -> Option<(ConvKind, &str)> {
    let (level, name) = wire.split_at_checked("u/".len())?;
    let kind = ConvKind::from_letter(level.strip_suffix('/')?)?;
    Some((kind, name))
}

impl Serialize for ConvKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ConvKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConvKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        ConvKey::parse(&text).ok_or_else(|| D::Error::custom("not the key of a conversation"))
    }
}

impl fmt::Display for ConvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The slot of a room's settings.
pub fn room_slot(tenant: &str, room: &str) -> Slot {
    Slot::of([tenant, "r", room].join("/").as_bytes())
}

/// The slot of a user's shard: that of [`SessionKey::slot`](hoopoe_core::SessionKey::slot), so
/// that a user's sessions and profile rows lie together (ruling 1).
pub fn user_slot(tenant: &str, user: &str) -> Slot {
    with_joined(&[tenant.as_bytes(), &[0, b'u'], user.as_bytes()], Slot::of)
}

/// The parts one behind the other; on the stack as long as they are ids and what joins them.
fn with_joined<T>(parts: &[&[u8]], then: impl FnOnce(&[u8]) -> T) -> T {
    let (mut room, mut end) = ([0; 4 * MAX_ID_LEN], 0);
    for part in parts {
        if let Some(place) = room.get_mut(end..end + part.len()) {
            place.copy_from_slice(part);
        }
        end += part.len();
    }
    match room.get(..end) {
        Some(joined) => then(joined),
        None => then(&parts.concat()),
    }
}

/// The internal topic of a user's inbox.
pub fn inbox_topic(tenant: &str, user: &str) -> String {
    ["im/", tenant, "/u/", user].concat()
}

/// The internal topic of a conversation.
pub fn conv_topic(conv: &ConvKey) -> String {
    ["im/", conv.as_str()].concat()
}

/// The internal topic of those who have left a conversation and may still have some of it waiting
/// for them: they hear what takes a body back.
pub fn left_topic(conv: &ConvKey) -> String {
    ["im/", conv.as_str(), "/left"].concat()
}

/// The internal topic of a room.
pub fn room_topic(tenant: &str, room: &str) -> String {
    ["im/", tenant, "/r/", room].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoopoe_core::SessionKey;

    #[test]
    fn ids_keep_to_the_alphabet() {
        let long = "x".repeat(MAX_ID_LEN);
        for id in ["a", "Z", "0", "alice@example.com", "ios-17:b_2", "..", "-", &long] {
            assert!(is_id(id), "{id:?}");
        }
        let longer = "x".repeat(MAX_ID_LEN + 1);
        let odd = ["", "a b", "a/b", "a+", "#", "ü", "a\0", "a,b", "$SYS", "a\n", "{a}", "Ａ"];
        for id in odd.into_iter().chain([longer.as_str()]) {
            assert!(!is_id(id), "{id:?}");
        }
        let allowed = (0..=127u8).filter(|byte| is_id(&char::from(*byte).to_string())).count();
        assert_eq!(allowed, 26 + 26 + 10 + 5);
    }

    #[test]
    fn a_client_id_tells_the_class() {
        let table = [
            ("ios-17", DeviceClass::Ios),
            ("android-a-b", DeviceClass::Android),
            ("pad-1", DeviceClass::Pad),
            ("pc-", DeviceClass::Pc),
            ("web", DeviceClass::Web),
            ("bot-x", DeviceClass::Bot),
            ("IOS-17", DeviceClass::Other),
            ("iosx-17", DeviceClass::Other),
            ("-ios", DeviceClass::Other),
            ("other-1", DeviceClass::Other),
            ("", DeviceClass::Other),
        ];
        for (client, class) in table {
            assert_eq!(DeviceClass::of(client), class, "{client:?}");
            assert_eq!(DeviceClass::of(class.as_str()), class);
        }
    }

    #[test]
    fn conversation_keys_have_one_text() {
        let pair = ConvKey::pair("t", "bob", "alice");
        assert_eq!(pair, ConvKey::pair("t", "alice", "bob"));
        let table = [
            (pair, "t/u/alice/bob", ConvKind::User, "alice/bob", Some(("alice", "bob"))),
            (ConvKey::pair("t", "a", "a"), "t/u/a/a", ConvKind::User, "a/a", Some(("a", "a"))),
            (ConvKey::group("t", "team"), "t/g/team", ConvKind::Group, "team", None),
            (ConvKey::channel("u", "c"), "u/c/c", ConvKind::Channel, "c", None),
        ];
        for (key, text, kind, id, pair) in table {
            assert_eq!(key.as_str(), text);
            assert_eq!(key.to_string(), text);
            assert_eq!(key.tenant(), &text[..1]);
            assert_eq!(key.kind(), kind);
            assert_eq!(ConvKind::from_letter(kind.letter()), Some(kind));
            assert_eq!(key.id(), id);
            assert_eq!(key.pair_users(), pair);
            assert_eq!(key.slot(), Slot::of(text.as_bytes()));
            assert_eq!(ConvKey::parse(text), Some(key));
        }
        let long = "x".repeat(65);
        let wrong = [
            "",
            "t",
            "t/u",
            "t/g/",
            "/g/team",
            "t/g/team/x",
            "t/u/alice",
            "t/u/bob/alice",
            "t/u/alice/bob/x",
            "t/u/alice/",
            "t/r/room",
            "t/x/y",
            "t/g/a b",
            "a+/g/team",
            "t/G/team",
        ];
        for text in wrong.into_iter().map(str::to_owned).chain([format!("t/g/{long}")]) {
            assert_eq!(ConvKey::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn each_end_spells_a_conversation_its_own_way() {
        let table = [
            ("alice", "u/bob", "t/u/alice/bob", "bob"),
            ("bob", "u/alice", "t/u/alice/bob", "alice"),
            ("bob", "u/bob", "t/u/bob/bob", "bob"),
            ("bob", "g/team", "t/g/team", "team"),
            ("bob", "c/news", "t/c/news", "news"),
        ];
        for (me, wire, text, peer) in table {
            let key = ConvKey::from_wire("t", me, wire).unwrap();
            assert_eq!(key.as_str(), text);
            assert_eq!(key.peer_of(me), peer);
            assert_eq!(key.wire(me), wire);
        }
        for wire in ["", "u", "u/", "/bob", "x/bob", "r/room", "u/a/b", "g/a b", "u/#", "U/bob"] {
            assert_eq!(ConvKey::from_wire("t", "alice", wire), None, "{wire:?}");
        }
    }

    #[test]
    fn a_users_rows_lie_where_the_sessions_do() {
        let long = "x".repeat(200);
        let table = [("default", "alice"), ("t", "b"), ("", "x"), (&long, "alice"), ("t", &long)];
        for (tenant, user) in table {
            let key = SessionKey::new(tenant, user, "phone");
            assert_eq!(user_slot(tenant, user), key.slot(), "{tenant} {user}");
        }
    }

    #[test]
    fn internal_topics_name_the_tenant() {
        assert_eq!(inbox_topic("t", "bob"), "im/t/u/bob");
        assert_eq!(conv_topic(&ConvKey::pair("t", "b", "a")), "im/t/u/a/b");
        assert_eq!(conv_topic(&ConvKey::group("t", "team")), "im/t/g/team");
        assert_eq!(conv_topic(&ConvKey::channel("t", "news")), "im/t/c/news");
        assert_eq!(room_topic("t", "live"), "im/t/r/live");
    }
}
