//! Every key of the store, spelled here and nowhere else.
//!
//! | family   | key                                                     | row                      |
//! |----------|---------------------------------------------------------|--------------------------|
//! | meta     | `format`                                                | format, number of shards |
//! | shard    | shard u16, `01`                                         | counters of the shard    |
//! | shard    | shard u16, `02`, outbox number u64                      | outbox entry             |
//! | shard    | shard u16, `03`, outbox number u64                      | outbox entry was applied |
//! | shard    | shard u16, `04`, publisher's session u64, packet id u16 | incoming QoS 2 marker    |
//! | session  | id u64, `01`                                            | session                  |
//! | session  | id u64, `02`                                            | progress                 |
//! | session  | id u64, `03`                                            | will                     |
//! | session  | id u64, `04`                                            | window handed over       |
//! | session  | id u64, `05`, packet id u16                             | outgoing QoS 2 exchange  |
//! | session  | id u64, `06`, seq u64                                   | complete before its turn |
//! | session  | id u64, `07`, filter                                    | subscription             |
//! | session  | id u64, `08`                                            | shared group             |
//! | session  | id u64, `09`, subscriber u64                            | member of a group        |
//! | queue    | session or group u64, seq u64                           | queue entry              |
//! | body     | shard u16 and number u48                                | body shared by entries   |
//! | retained | topic                                                   | retained message         |
//!
//! Numbers are big-endian, so that key order is number order. A session id begins with its slot:
//! the rows of a slot lie together.

use hoopoe_core::{PacketIdent, SLOTS, SessionId};
use smallvec::SmallVec;

/// A key with a tail of its own length.
pub(crate) type Key = SmallVec<[u8; 32]>;

/// The row about the store itself.
pub(crate) const FORMAT: &[u8] = b"format";

/// Kinds of rows of a shard.
pub(crate) mod shard_kind {
    /// Counters.
    pub(crate) const HEAD: u8 = 0x01;
    /// Outbox entry.
    pub(crate) const OUTBOX: u8 = 0x02;
    /// An outbox entry, of whichever shard, was applied here.
    pub(crate) const APPLIED: u8 = 0x03;
    /// Marker of an incoming QoS 2 publication.
    pub(crate) const MARKER: u8 = 0x04;
}

/// Kinds of rows of a session or group.
pub(crate) mod session_kind {
    /// The session.
    pub(crate) const SESSION: u8 = 0x01;
    /// Progress.
    pub(crate) const PROGRESS: u8 = 0x02;
    /// Will.
    pub(crate) const WILL: u8 = 0x03;
    /// The window as the last connection left it.
    pub(crate) const WINDOW: u8 = 0x04;
    /// Outgoing QoS 2 exchange.
    pub(crate) const EXCHANGE: u8 = 0x05;
    /// A QoS 2 entry that was complete before an earlier entry was.
    pub(crate) const DONE: u8 = 0x06;
    /// Subscription.
    pub(crate) const SUBSCRIPTION: u8 = 0x07;
    /// Shared group.
    pub(crate) const GROUP: u8 = 0x08;
    /// Member of a shared group.
    pub(crate) const MEMBER: u8 = 0x09;
}

/// Key of a shard's row of counters.
pub(crate) fn shard_head(shard: u16) -> Key {
    shard_kind(shard, shard_kind::HEAD)
}

/// The beginning of all keys of one kind of a shard.
pub(crate) fn shard_kind(shard: u16, kind: u8) -> Key {
    let mut key = Key::from_slice(&shard.to_be_bytes());
    key.push(kind);
    key
}

/// Key of an outbox entry.
pub(crate) fn outbox(shard: u16, number: u64) -> Key {
    with_u64(shard_kind(shard, shard_kind::OUTBOX), number)
}

/// Key of the mark that an outbox entry was applied in a shard.
pub(crate) fn applied(shard: u16, number: u64) -> Key {
    with_u64(shard_kind(shard, shard_kind::APPLIED), number)
}

/// Key of an incoming QoS 2 marker.
pub(crate) fn marker(shard: u16, marker: PacketIdent) -> Key {
    let mut key = with_u64(shard_kind(shard, shard_kind::MARKER), marker.session.0);
    key.extend_from_slice(&marker.id.to_be_bytes());
    key
}

/// The number at the end of an outbox or applied key.
pub(crate) fn outbox_number(key: &[u8]) -> Option<u64> {
    u64_at(key, 3)
}

/// The marker in a marker key.
pub(crate) fn marker_of(key: &[u8]) -> Option<PacketIdent> {
    let id = key.get(11..13)?.try_into().ok()?;
    Some(PacketIdent { session: SessionId(u64_at(key, 3)?), id: u16::from_be_bytes(id) })
}

/// Key of a row of a session or group that it has one of.
pub(crate) fn session(id: SessionId, kind: u8) -> Key {
    let mut key = Key::from_slice(&id.0.to_be_bytes());
    key.push(kind);
    key
}

/// Key of an outgoing exchange.
pub(crate) fn exchange(id: SessionId, packet: u16) -> Key {
    let mut key = session(id, session_kind::EXCHANGE);
    key.extend_from_slice(&packet.to_be_bytes());
    key
}

/// Key of the mark that an entry was complete before its turn.
pub(crate) fn done(id: SessionId, seq: u64) -> Key {
    with_u64(session(id, session_kind::DONE), seq)
}

/// Key of a subscription.
pub(crate) fn subscription(id: SessionId, filter: &str) -> Key {
    let mut key = session(id, session_kind::SUBSCRIPTION);
    key.extend_from_slice(filter.as_bytes());
    key
}

/// Key of a group's member.
pub(crate) fn member(group: SessionId, subscriber: u64) -> Key {
    with_u64(session(group, session_kind::MEMBER), subscriber)
}

/// First and end key of all session rows of a slot.
pub(crate) fn slot(slot: u16) -> ([u8; 8], [u8; 9]) {
    let from = (u64::from(slot) << 52).to_be_bytes();
    let mut to = [0xff; 9];
    if slot + 1 < SLOTS {
        to[..8].copy_from_slice(&(u64::from(slot + 1) << 52).to_be_bytes());
        to[8] = 0;
    }
    (from, to)
}

/// The session or group that a key of the families `session` and `queue` begins with.
pub(crate) fn session_of(key: &[u8]) -> Option<SessionId> {
    u64_at(key, 0).map(SessionId)
}

/// Key of a queue entry.
pub(crate) fn queue(id: SessionId, seq: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&id.0.to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// Session and seq of a queue key.
pub(crate) fn queue_of(key: &[u8]) -> Option<(SessionId, u64)> {
    (key.len() == 16).then_some((SessionId(u64_at(key, 0)?), u64_at(key, 8)?))
}

/// Key of a body.
pub(crate) fn body(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The number of a shard's `number`-th body.
pub(crate) fn body_number(shard: u16, number: u64) -> u64 {
    debug_assert!(number < 1 << 48);
    u64::from(shard) << 48 | number
}

/// Key of a retained message.
pub(crate) fn retained(topic: &str) -> &[u8] {
    topic.as_bytes()
}

/// The first key behind all that begin with `prefix`; `None` when there is none.
pub(crate) fn behind(prefix: &[u8]) -> Option<Key> {
    let mut key = Key::from_slice(prefix);
    while let Some(last) = key.last_mut() {
        if *last < 0xff {
            *last += 1;
            return Some(key);
        }
        key.pop();
    }
    None
}

/// The number at `at` of a key.
pub(crate) fn u64_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?))
}

fn with_u64(mut key: Key, number: u64) -> Key {
    key.extend_from_slice(&number.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use hoopoe_core::Slot;

    use super::*;

    #[test]
    fn keys_give_back_what_they_were_made_of() {
        let id = SessionId::new(Slot::of(b"x"), 77);
        assert_eq!(queue_of(&queue(id, 5)), Some((id, 5)));
        assert_eq!(queue_of(&queue(id, 5)[..15]), None);
        let ident = PacketIdent { session: id, id: 0x1234 };
        assert_eq!(marker_of(&marker(3, ident)), Some(ident));
        assert_eq!(marker_of(b"\0\x03\x04abc"), None);
        assert_eq!(outbox_number(&outbox(3, 99)), Some(99));
        assert_eq!(session_of(&exchange(id, 1)), Some(id));
    }

    #[test]
    fn a_slot_holds_exactly_its_sessions() {
        for number in [0, 1, 2000, SLOTS - 1] {
            let (from, to) = slot(number);
            let first = session(SessionId(u64::from(number) << 52), 0);
            let last = session(SessionId(u64::from(number) << 52 | ((1 << 52) - 1)), 0x7f);
            assert!(from[..] <= first[..] && last[..] < to[..], "{number}");
            if number > 0 {
                let before = session(SessionId((u64::from(number) << 52) - 1), 0x7f);
                assert!(before[..] < from[..]);
            }
            if number + 1 < SLOTS {
                let after = session(SessionId(u64::from(number + 1) << 52), 1);
                assert!(after[..] >= to[..]);
            }
        }
    }

    #[test]
    fn behind_a_prefix_comes_the_next_key() {
        assert_eq!(behind(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(behind(b"a\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(behind(b"\xff\xff"), None);
    }
}
