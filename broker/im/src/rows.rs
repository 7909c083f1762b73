//! The rows of conversations and users, and how the binary ones are written.
//!
//! Every row begins with a format version. What is written per message is binary; what people and
//! operators change is JSON.

use hoopoe_store::wire::{Cursor, put_number};
use hoopoe_store::{Damaged, StoreError, kv::Family};
use serde::{Deserialize, Serialize};

use crate::id::{ConvKey, MessageId};

/// Version of every row's format, its first byte.
pub const VERSION: u8 = 1;

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
}

impl Default for Head {
    fn default() -> Head {
        Head { last: 0, count: 0, voids: 0, ts_ms: 0, min: 1, bytes: 0, id: MessageId(0) }
    }
}

impl Head {
    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION];
        for number in
            [self.last, self.count, self.voids, self.ts_ms, self.min, self.bytes, self.id.0]
        {
            put_number(&mut row, number);
        }
        row
    }

    /// The head in a row.
    pub fn decode(key: &[u8], row: &[u8]) -> Result<Head, StoreError> {
        let read = || {
            let mut cursor = Cursor::of(row, VERSION)?;
            let head = Head {
                last: cursor.number()?,
                count: cursor.number()?,
                voids: cursor.number()?,
                ts_ms: cursor.number()?,
                min: cursor.number()?,
                bytes: cursor.number()?,
                id: MessageId(cursor.number()?),
            };
            cursor.end()?;
            Ok(head)
        };
        read().map_err(|what| Damaged { family: Family::Im, key: key.to_vec(), what }.into())
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

impl Sent {
    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION];
        for number in [self.seq, self.id.0, self.ts_ms] {
            put_number(&mut row, number);
        }
        row
    }

    /// The result in a row.
    pub fn decode(key: &[u8], row: &[u8]) -> Result<Sent, StoreError> {
        let read = || {
            let mut cursor = Cursor::of(row, VERSION)?;
            let (seq, id) = (cursor.number()?, MessageId(cursor.number()?));
            Ok(Sent { seq, id, ts_ms: cursor.number()? })
        };
        read().map_err(|what| Damaged { family: Family::Im, key: key.to_vec(), what }.into())
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
    pub intervals: Vec<Interval>,
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
