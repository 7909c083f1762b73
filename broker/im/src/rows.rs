//! The rows of conversations and users, and how the binary ones are written.
//!
//! Every row begins with a format version. What is written per message and read per login is
//! binary; what people and operators change is JSON. Rows that were JSON in version 1 are read as
//! such, and written in version 2.

use hoopoe_store::wire::{Cursor, Fault, put_number};
use hoopoe_store::{Damaged, StoreError, kv::Family};
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use crate::id::{ConvKey, MessageId};

/// Version of every row's format, its first byte.
pub const VERSION: u8 = 1;

/// Version of rows that say more than, or the same otherwise than, in version 1.
pub const SECOND: u8 = 2;

/// A row that changes with messages: binary, and known by its key's kind.
pub trait Row: Sized {
    /// The row.
    fn encode(&self) -> Vec<u8>;

    /// What a row says.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(row: &[u8]) -> Result<Self, Fault>;

    /// What the row under a key says.
    ///
    /// # Errors
    /// When it is damaged.
    fn decode(key: &[u8], row: &[u8]) -> Result<Self, StoreError> {
        Self::read(row)
            .map_err(|what| Damaged { family: Family::Im, key: key.to_vec(), what }.into())
    }
}

fn binary(version: u8, numbers: &[u64]) -> Vec<u8> {
    let mut row = Vec::with_capacity(8 * numbers.len());
    row.push(version);
    numbers.iter().for_each(|number| put_number(&mut row, *number));
    row
}

/// A row of version 1 that is JSON; `None` for later ones.
fn first_version<T: serde::de::DeserializeOwned>(row: &[u8]) -> Option<Result<T, Fault>> {
    let json = row.strip_prefix(&[VERSION])?;
    Some(serde_json::from_slice(json).map_err(|_| "not the JSON it should be"))
}

/// Where a conversation stands. Written with every entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Seq of the last entry; 0 before the first.
    pub last: u64,
    /// Countable messages up to there.
    pub count: u64,
    /// Messages that are void.
    pub voids: u64,
    /// Time of the last entry: it never decreases (ruling 30).
    pub ts_ms: u64,
    /// The oldest entry that retention has left.
    pub min: u64,
    /// Bytes of payloads and properties in the log, for retention by bytes.
    pub bytes: u64,
    /// Id of the last entry.
    pub id: MessageId,
    /// Of a pair: the last message of the lower user, and of the higher. The sender's own cursors
    /// have passed it (ruling 22).
    pub own: [u64; 2],
}

impl Default for Head {
    fn default() -> Head {
        Head {
            last: 0,
            count: 0,
            voids: 0,
            ts_ms: 0,
            min: 1,
            bytes: 0,
            id: MessageId(0),
            own: [0; 2],
        }
    }
}

impl Head {
    /// The last message of a user of a pair; 0 for none, and for other conversations.
    pub fn own_of(&self, conv: &ConvKey, user: &str) -> u64 {
        conv.side_of(user).map_or(0, |side| self.own[side])
    }
}

impl Row for Head {
    fn encode(&self) -> Vec<u8> {
        let Head { last, count, voids, ts_ms, min, bytes, id, own: [low, high] } = *self;
        let numbers = [last, count, voids, ts_ms, min, bytes, id.0, low, high];
        match (low, high) {
            (0, 0) => binary(VERSION, &numbers[..7]),
            _ => binary(SECOND, &numbers),
        }
    }

    fn read(row: &[u8]) -> Result<Head, Fault> {
        let second = row.first() == Some(&SECOND);
        let mut cursor = Cursor::of(row, if second { SECOND } else { VERSION })?;
        let mut head = Head {
            last: cursor.number()?,
            count: cursor.number()?,
            voids: cursor.number()?,
            ts_ms: cursor.number()?,
            min: cursor.number()?,
            bytes: cursor.number()?,
            id: MessageId(cursor.number()?),
            own: [0; 2],
        };
        if second {
            head.own = [cursor.number()?, cursor.number()?];
        }
        cursor.end()?;
        Ok(head)
    }
}

/// What a send led to, kept for its repetition (ruling 20).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Seq of the entry.
    pub seq: u64,
    /// Its id.
    pub id: MessageId,
    /// Its time.
    pub ts_ms: u64,
}

impl Row for Sent {
    fn encode(&self) -> Vec<u8> {
        binary(VERSION, &[self.seq, self.id.0, self.ts_ms])
    }

    fn read(row: &[u8]) -> Result<Sent, Fault> {
        let mut cursor = Cursor::of(row, VERSION)?;
        let (seq, id) = (cursor.number()?, MessageId(cursor.number()?));
        Ok(Sent { seq, id, ts_ms: cursor.number()? })
    }
}

/// A row that is one number.
pub fn number_row(number: u64) -> Vec<u8> {
    let mut row = vec![VERSION];
    put_number(&mut row, number);
    row
}

/// The number in a row.
pub fn read_number(key: &[u8], row: &[u8]) -> Result<u64, StoreError> {
    Cursor::of(row, VERSION)
        .and_then(|mut cursor| cursor.number())
        .map_err(|what| Damaged { family: Family::Im, key: key.to_vec(), what }.into())
}

/// A stretch of a conversation that a member may see (ruling 25).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Interval {
    /// The first entry.
    pub from: u64,
    /// The last entry, included; none while the membership lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// What a member may see of a conversation; nearly always one stretch.
pub type Intervals = SmallVec<[Interval; 1]>;

/// Everything from an entry on.
pub fn since(from: u64) -> Intervals {
    smallvec![Interval { from, until: None }]
}

/// The part of `intervals` that holds a seq.
pub fn may_see(intervals: &[Interval], seq: u64) -> bool {
    intervals.iter().any(|i| i.from <= seq && i.until.is_none_or(|until| seq <= until))
}

/// A conversation in a user's list.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct UserConv {
    /// The user has read up to here.
    pub read: u64,
    /// Countable messages up to `read`.
    pub read_count: u64,
    /// A device of the user has received up to here.
    pub recv: u64,
    /// What was cleared: entries up to here are not shown.
    #[serde(default)]
    pub cleared: u64,
    /// When the user may see what; a pair's is the whole conversation.
    pub intervals: Intervals,
    /// Kept on top.
    #[serde(default)]
    pub pinned: bool,
    /// No pushes; until a time (ms since the epoch), or `u64::MAX` for ever; 0 for not muted.
    #[serde(default)]
    pub muted_until: u64,
    /// Not listed until the next message: hidden at this head.
    #[serde(default)]
    pub hidden_at: Option<u64>,
    /// Since when it is in the list, ms since the epoch.
    #[serde(default)]
    pub since_ms: u64,
    /// The change of the membership it knows of; older news are out of date.
    #[serde(default)]
    pub version: u64,
}

impl UserConv {
    /// True while the user belongs to it.
    pub fn is_current(&self) -> bool {
        self.intervals.last().is_some_and(|interval| interval.until.is_none())
    }

    /// The first entry the user may see.
    pub fn first(&self) -> u64 {
        let from = self.intervals.first().map_or(1, |interval| interval.from);
        from.max(self.cleared + 1)
    }
}

/// Bits of a [`UserConv`] row.
const PINNED: u64 = 1;
const HIDDEN: u64 = 2;

impl Row for UserConv {
    fn encode(&self) -> Vec<u8> {
        let flag = |is: bool, bit| if is { bit } else { 0 };
        let flags = flag(self.pinned, PINNED) | flag(self.hidden_at.is_some(), HIDDEN);
        let mut row = binary(
            SECOND,
            &[self.read, self.read_count, self.recv, self.cleared, flags, self.muted_until],
        );
        if let Some(hidden_at) = self.hidden_at {
            put_number(&mut row, hidden_at);
        }
        put_number(&mut row, self.since_ms);
        put_number(&mut row, self.version);
        for Interval { from, until } in &self.intervals {
            put_number(&mut row, *from);
            // No entry has the last number there is.
            put_number(&mut row, until.map_or(0, |until| until.saturating_add(1)));
        }
        row
    }

    fn read(row: &[u8]) -> Result<UserConv, Fault> {
        if let Some(first) = first_version(row) {
            return first;
        }
        let mut cursor = Cursor::of(row, SECOND)?;
        let mut conv = UserConv {
            read: cursor.number()?,
            read_count: cursor.number()?,
            recv: cursor.number()?,
            cleared: cursor.number()?,
            ..UserConv::default()
        };
        let flags = cursor.number()?;
        conv.pinned = flags & PINNED != 0;
        conv.muted_until = cursor.number()?;
        if flags & HIDDEN != 0 {
            conv.hidden_at = Some(cursor.number()?);
        }
        conv.since_ms = cursor.number()?;
        conv.version = cursor.number()?;
        while !cursor.rest().is_empty() {
            let (from, behind) = (cursor.number()?, cursor.number()?);
            conv.intervals.push(Interval { from, until: behind.checked_sub(1) });
        }
        Ok(conv)
    }
}

/// What concerns a pair of users: mirrored from their rosters (ruling 26).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct PairRow {
    /// The lower user has blocked the higher.
    #[serde(default)]
    pub low_blocks: bool,
    /// The higher user has blocked the lower.
    #[serde(default)]
    pub high_blocks: bool,
    /// Both are friends: each agrees.
    #[serde(default)]
    pub friends: bool,
    /// The lower user has asked, or agreed, to be friends.
    #[serde(default)]
    pub low_agrees: bool,
    /// The higher user has asked, or agreed, to be friends.
    #[serde(default)]
    pub high_agrees: bool,
}

impl PairRow {
    /// Whether one of the two has blocked the other.
    pub fn blocks(&self, pair: &ConvKey, user: &str) -> bool {
        match pair.pair_users() {
            Some((low, _)) if low == user => self.low_blocks,
            _ => self.high_blocks,
        }
    }
}

/// How many groups and channels a user belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Groups.
    pub groups: u64,
    /// Channels.
    pub channels: u64,
}

/// A member's cursors as the conversation knows them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct CursorCopy {
    /// Received up to here.
    pub recv: u64,
    /// Read up to here.
    pub read: u64,
}

impl CursorCopy {
    /// Each as far as it is known.
    #[must_use]
    pub fn max(self, other: CursorCopy) -> CursorCopy {
        CursorCopy { recv: self.recv.max(other.recv), read: self.read.max(other.read) }
    }
}

impl Row for CursorCopy {
    fn encode(&self) -> Vec<u8> {
        binary(SECOND, &[self.recv, self.read])
    }

    fn read(row: &[u8]) -> Result<CursorCopy, Fault> {
        if let Some(first) = first_version(row) {
            return first;
        }
        let mut cursor = Cursor::of(row, SECOND)?;
        let copy = CursorCopy { recv: cursor.number()?, read: cursor.number()? };
        cursor.end()?;
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(row: &[u8]) -> String {
        row.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Rows as they lie on disks: none of these may change.
    #[test]
    fn rows_of_all_versions_are_read() {
        let head =
            Head { last: 300, count: 2, voids: 1, ts_ms: 5, min: 1, bytes: 128, ..Head::default() };
        assert_eq!(text(&head.encode()), "01ac0202010501800100");
        let pair = Head { own: [299, 300], ..head };
        assert_eq!(text(&pair.encode()), "02ac0202010501800100ab02ac02");
        for head in [head, pair] {
            assert_eq!(Head::read(&head.encode()), Ok(head));
        }
        let sent = Sent { seq: 7, id: MessageId(9), ts_ms: 200 };
        assert_eq!(text(&sent.encode()), "010709c801");
        assert_eq!(Sent::read(&sent.encode()), Ok(sent));

        let copy = CursorCopy { recv: 9, read: 7 };
        assert_eq!(text(&copy.encode()), "020907");
        assert_eq!(CursorCopy::read(&copy.encode()), Ok(copy));
        assert_eq!(CursorCopy::read(b"\x01{\"recv\":9,\"read\":7}"), Ok(copy));

        let conv = UserConv {
            read: 4,
            read_count: 3,
            recv: 5,
            cleared: 1,
            intervals: smallvec![
                Interval { from: 1, until: Some(2) },
                Interval { from: 4, until: None },
            ],
            pinned: true,
            muted_until: 6,
            hidden_at: Some(8),
            since_ms: 9,
            version: 2,
        };
        assert_eq!(text(&conv.encode()), "02040305010306080902".to_owned() + "01030400");
        assert_eq!(UserConv::read(&conv.encode()), Ok(conv.clone()));
        let json = [&[VERSION], serde_json::to_string(&conv).unwrap().as_bytes()].concat();
        assert_eq!(UserConv::read(&json), Ok(conv));
        let plain = UserConv { intervals: smallvec![], ..UserConv::default() };
        assert_eq!(UserConv::read(&plain.encode()), Ok(plain));
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for row in [&b""[..], b"\x03", b"\x02", b"\x01", b"\x02\x80"] {
            assert!(Head::read(row).is_err(), "{row:?}");
            assert!(UserConv::read(row).is_err(), "{row:?}");
            assert!(CursorCopy::read(row).is_err(), "{row:?}");
        }
        assert!(Head::read(&[0x02, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0]).is_err(), "too long");
    }
}
