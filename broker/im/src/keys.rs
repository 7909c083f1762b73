//! Every key of the profile's rows, spelled here and nowhere else.
//!
//! A key begins with the slot that owns the row (u16) and the kind of the row (a byte); names
//! follow, ended by a zero byte where something comes behind them. Numbers are big-endian, so that
//! key order is number order. `conv` is the text of a [`ConvKey`], `user` is tenant, zero, user.
//!
//! | family | kind | key | row |
//! |---|---|---|---|
//! | im  | `10` | conv | head of a conversation |
//! | im  | `11` | conv | settings of a group |
//! | im  | `12` | conv | what concerns a pair: blocks, friendship |
//! | im  | `13` | conv | settings of a channel |
//! | im  | `14` | conv, user | member, publisher or follower |
//! | im  | `15` | conv, sender, client message id | result of a send |
//! | im  | `16` | conv, packet id | result of a send with QoS 2 without client message id |
//! | im  | `17` | conv, user | copy of a member's cursors |
//! | im  | `18` | conv, seq | a message that is void |
//! | im  | `19` | conv, seq, user | reactions |
//! | im  | `1a` | conv, user | who asked to join, or was asked |
//! | im  | `1b` | conv, seq | a message that mentions all |
//! | im  | `1c` | conv, due time, seq | a message to be burnt |
//! | im  | `1d` | conv, seq of the message, seq of the edit | an edit of a message |
//! | im  | `1e` | conv, user | whose messages are being erased |
//! | im  | `1f` | conv, sender, client message id | a send that waits for its home site |
//! | im  | `21` | conv | members at other sites |
//! | im  | `22` | conv, seq | reactions of many, counted |
//! | im  | `20` | tenant, room | a room's settings |
//! | im  | `30` | user | account and profile |
//! | im  | `31` | user, conv as the user sees it | conversation in the user's list |
//! | im  | `32` | user, client | device |
//! | im  | `33` | user, client, conv as the user sees it | device cursor |
//! | im  | `34` | user, other user | roster |
//! | im  | `35` | user, conv as the user sees it, seq | mention |
//! | im  | `36` | user, token id | token |
//! | im  | `37` | user | presence |
//! | im  | `38` | user, conv as the user sees it | pushed up to |
//! | im  | `39` | user | numbers of groups and channels |
//! | im  | `3c` | user | account: password hash, roles |
//! | im  | `3d` | user | devices that began where the user was |
//! | im  | `60` | site | line to another site: its beginning, its last number |
//! | im  | `61` | site, number | what is owed to another site |
//! | im  | `62` | site | how far another site's line has come |
//! | im  | `63` | site, number | who waits for another site's answer |
//! | im  | `ff fd`, `51`, number | a call of an operator |
//! | im  | `ff fe 52` | tenant, channel | channel for everyone |
//! | im  | `ff ff`, shard u16, `50`, number | outbox entry |
//! | im  | `ff ff`, shard u16, `51`, time u64, conv, seq | a message to expire at that time |
//! | log | `10` | conv, seq u64 | entry |

use hoopoe_core::Slot;

use crate::id::{ConvKey, user_slot};
use crate::site::line::LineKey;

/// A key under construction.
pub type Key = Vec<u8>;

/// Kinds of rows of a conversation.
pub mod conv_kind {
    /// Head.
    pub const HEAD: u8 = 0x10;
    /// Settings of a group.
    pub const GROUP: u8 = 0x11;
    /// What concerns a pair.
    pub const PAIR: u8 = 0x12;
    /// Settings of a channel.
    pub const CHANNEL: u8 = 0x13;
    /// Member.
    pub const MEMBER: u8 = 0x14;
    /// Result of a send, by client message id.
    pub const SENT: u8 = 0x15;
    /// Result of a send, by QoS 2 packet identifier.
    pub const MARKED: u8 = 0x16;
    /// Copy of a member's cursors.
    pub const COPY: u8 = 0x17;
    /// A void message.
    pub const VOID: u8 = 0x18;
    /// Reactions.
    pub const REACTION: u8 = 0x19;
    /// Applications and invitations.
    pub const ASKED: u8 = 0x1a;
    /// A message that mentions all.
    pub const AT_ALL: u8 = 0x1b;
    /// A message to be burnt.
    pub const BURN: u8 = 0x1c;
    /// An edit of a message.
    pub const EDIT: u8 = 0x1d;
    /// Whose messages are being erased.
    pub const ERASE: u8 = 0x1e;
    /// A send that waits for its home site.
    pub const HELD: u8 = 0x1f;
    /// Members at other sites.
    pub const SITES: u8 = 0x21;
    /// Reactions of many, counted.
    pub const TALLY: u8 = 0x22;
}

/// Kinds of rows of a user.
pub mod user_kind {
    /// Account and profile.
    pub const ACCOUNT: u8 = 0x30;
    /// Conversation list.
    pub const CONV: u8 = 0x31;
    /// Device.
    pub const DEVICE: u8 = 0x32;
    /// Device cursor.
    pub const CURSOR: u8 = 0x33;
    /// Roster; without a name behind the user, how many it holds.
    pub const ROSTER: u8 = 0x34;
    /// Mention.
    pub const MENTION: u8 = 0x35;
    /// Token.
    pub const TOKEN: u8 = 0x36;
    /// Presence.
    pub const PRESENCE: u8 = 0x37;
    /// Pushed up to.
    pub const PUSHED: u8 = 0x38;
    /// Numbers of groups and channels.
    pub const JOINED: u8 = 0x39;
    /// An account's password, roles and state.
    pub const LOGIN: u8 = 0x3c;
    /// Devices that began where the user was.
    pub const BEGUN: u8 = 0x3d;
    /// The first of these kinds.
    pub const FIRST: u8 = ACCOUNT;
    /// The last kind there can be.
    pub const LAST: u8 = 0x3f;
}

/// Bytes of the slot that every row of a conversation or user begins with; its kind follows.
pub const SLOT_BYTES: usize = 2;

/// Whether a row is of those that commands ask for again and again: where conversations stand, who
/// belongs to them, lists. What is written once, or looked at when a device comes and goes, is not.
pub fn is_asked_again(key: &[u8]) -> bool {
    let Some((slot, [kind, ..])) = key.split_at_checked(SLOT_BYTES) else { return false };
    let of_conv = (conv_kind::HEAD..=conv_kind::MEMBER).contains(kind) || *kind == conv_kind::COPY;
    let of_user = [user_kind::CONV, user_kind::ROSTER, user_kind::JOINED, user_kind::BEGUN];
    let of_user = of_user.contains(kind);
    slot.first() != Some(&0xff) && (of_conv || of_user)
}

/// Kinds of rows of a slot's lines to other sites.
pub mod site_kind {
    /// The line.
    pub const LINE: u8 = 0x60;
    /// What is owed.
    pub const OWED: u8 = 0x61;
    /// How far the other site's line has come.
    pub const COME: u8 = 0x62;
    /// Who waits for an answer.
    pub const HELD: u8 = 0x63;
}

/// Kind of a room's row.
pub const ROOM: u8 = 0x20;
/// Kind of the entries of the channels for everyone, behind another slot that does not exist.
const EVERYONE: u8 = 0x52;
/// Kind of outbox entries, behind a slot that does not exist.
const OUTBOX: u8 = 0x50;
/// Kind of messages that expire, behind the same.
const EXPIRY: u8 = 0x51;
/// Kind of an operator's calls, behind another one.
const AUDIT: u8 = 0x51;

/// Room for the names and numbers that come behind the first name: a key is made in one go.
const ROOM_BEHIND: usize = 80;

fn begin(slot: Slot, kind: u8, room: usize) -> Key {
    let mut key = Key::with_capacity(SLOT_BYTES + 1 + room + ROOM_BEHIND);
    key.extend_from_slice(&slot.get().to_be_bytes());
    key.push(kind);
    key
}

/// The one row of a kind that a conversation has.
pub fn conv(conv: &ConvKey, kind: u8) -> Key {
    let text = conv.as_str();
    let mut key = begin(conv.slot(), kind, text.len());
    key.extend_from_slice(text.as_bytes());
    key
}

/// The beginning of all rows of a kind that a conversation has several of.
pub fn conv_prefix(of: &ConvKey, kind: u8) -> Key {
    let mut key = conv(of, kind);
    key.push(0);
    key
}

/// A row of a conversation that is found by a name.
pub fn conv_name(of: &ConvKey, kind: u8, name: &str) -> Key {
    let mut key = conv_prefix(of, kind);
    key.extend_from_slice(name.as_bytes());
    key
}

/// A row of a conversation that is found by a seq (or a time).
pub fn conv_seq(of: &ConvKey, kind: u8, seq: u64) -> Key {
    let mut key = conv_prefix(of, kind);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// The result of a send.
pub fn sent(of: &ConvKey, sender: &str, cid: &str) -> Key {
    let mut key = conv_name(of, conv_kind::SENT, sender);
    key.push(0);
    key.extend_from_slice(cid.as_bytes());
    key
}

/// The reactions of a user to a message.
pub fn reaction(of: &ConvKey, seq: u64, user: &str) -> Key {
    let mut key = conv_seq(of, conv_kind::REACTION, seq);
    key.push(0);
    key.extend_from_slice(user.as_bytes());
    key
}

/// An edit of a message, by the seqs of both.
pub fn edit(of: &ConvKey, seq: u64, edit: u64) -> Key {
    let mut key = conv_seq(of, conv_kind::EDIT, seq);
    key.extend_from_slice(&edit.to_be_bytes());
    key
}

/// An entry of a conversation's log (family `log`).
pub fn entry(of: &ConvKey, seq: u64) -> Key {
    conv_seq(of, conv_kind::HEAD, seq)
}

/// The beginning of a conversation's log.
pub fn log_prefix(of: &ConvKey) -> Key {
    conv_prefix(of, conv_kind::HEAD)
}

/// The seq or time at the end of a key.
pub fn seq_of(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The seq or number that stands behind a prefix.
pub fn seq_behind(key: &[u8], prefix: &[u8]) -> u64 {
    let behind = key.get(prefix.len()..).and_then(<[u8]>::first_chunk::<8>);
    behind.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Tenant and user of a user's row, and what stands behind them.
pub fn user_of(key: &[u8]) -> Option<(&str, &str, &[u8])> {
    let mut parts = key.get(3..)?.splitn(3, |byte| *byte == 0);
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    Some((text()?, text()?, parts.next().unwrap_or_default()))
}

/// The one row of a kind that a user has.
pub fn user(tenant: &str, user: &str, kind: u8) -> Key {
    let mut key = begin(user_slot(tenant, user), kind, tenant.len() + user.len() + 1);
    key.extend_from_slice(tenant.as_bytes());
    key.push(0);
    key.extend_from_slice(user.as_bytes());
    key
}

/// The beginning of all rows of a kind that a user has several of.
pub fn user_prefix(tenant: &str, of: &str, kind: u8) -> Key {
    let mut key = user(tenant, of, kind);
    key.push(0);
    key
}

/// A row of a user that is found by a name.
pub fn user_name(tenant: &str, of: &str, kind: u8, name: &str) -> Key {
    let mut key = user_prefix(tenant, of, kind);
    key.extend_from_slice(name.as_bytes());
    key
}

/// The beginning of a device's cursors.
pub fn cursor_prefix(tenant: &str, of: &str, client: &str) -> Key {
    let mut key = user_name(tenant, of, user_kind::CURSOR, client);
    key.push(0);
    key
}

/// A device's cursor in a conversation.
pub fn cursor(tenant: &str, of: &str, client: &str, wire: &str) -> Key {
    let mut key = cursor_prefix(tenant, of, client);
    key.extend_from_slice(wire.as_bytes());
    key
}

/// A mention of a user.
pub fn mention(tenant: &str, of: &str, wire: &str, seq: u64) -> Key {
    let mut key = user_name(tenant, of, user_kind::MENTION, wire);
    key.push(0);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// What stands behind a prefix, as text.
pub fn name_behind<'a>(key: &'a [u8], prefix: &[u8]) -> &'a str {
    key.get(prefix.len()..).and_then(|rest| std::str::from_utf8(rest).ok()).unwrap_or_default()
}

/// A room's settings.
pub fn room(tenant: &str, room: &str) -> Key {
    let slot = crate::id::room_slot(tenant, room);
    let mut key = begin(slot, ROOM, tenant.len() + room.len() + 1);
    key.extend_from_slice(tenant.as_bytes());
    key.push(0);
    key.extend_from_slice(room.as_bytes());
    key
}

/// A channel for everyone; with an empty name, what all of a tenant begin with.
pub fn everyone(tenant: &str, channel: &str) -> Key {
    let mut key = vec![0xff, 0xfe, EVERYONE];
    key.extend_from_slice(tenant.as_bytes());
    key.push(0);
    key.extend_from_slice(channel.as_bytes());
    key
}

/// The beginning of a shard's outbox.
pub fn outbox_prefix(shard: u16) -> Key {
    let mut key = vec![0xff, 0xff];
    key.extend_from_slice(&shard.to_be_bytes());
    key.push(OUTBOX);
    key
}

/// The beginning of what is to expire in a shard, in order of time.
pub fn expiry_prefix(shard: u16) -> Key {
    let mut key = outbox_prefix(shard);
    key.pop();
    key.push(EXPIRY);
    key
}

/// A message of a shard that expires.
pub fn expiry(shard: u16, at_ms: u64, conv: &ConvKey, seq: u64) -> Key {
    let mut key = expiry_prefix(shard);
    key.extend_from_slice(&at_ms.to_be_bytes());
    key.extend_from_slice(conv.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// When the message of such a row expires, in ms since the epoch; 0 for no such row.
pub fn expiry_time(key: &[u8]) -> u64 {
    let time = key.get(5..13).and_then(|time| time.try_into().ok());
    time.map_or(0, u64::from_be_bytes)
}

/// The message of such a row.
pub fn expiry_of(key: &[u8]) -> Option<(ConvKey, u64)> {
    let name = key.get(13..key.len().checked_sub(9)?)?;
    Some((ConvKey::parse(std::str::from_utf8(name).ok()?)?, seq_of(key)))
}

/// The beginning of the record of operators' calls.
pub fn audit_prefix() -> Key {
    vec![0xff, 0xfd, AUDIT]
}

/// A call of an operator.
pub fn audit(number: u64) -> Key {
    let mut key = audit_prefix();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// An outbox entry.
pub fn outbox(shard: u16, number: u64) -> Key {
    let mut key = outbox_prefix(shard);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn site(line: &LineKey, kind: u8) -> Key {
    let mut key = line.0.to_be_bytes().to_vec();
    key.push(kind);
    key.extend_from_slice(line.1.as_bytes());
    key
}

fn site_number(line: &LineKey, kind: u8, number: u64) -> Key {
    let mut key = site(line, kind);
    key.push(0);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// A line to another site.
pub(crate) fn site_line(line: &LineKey) -> Key {
    site(line, site_kind::LINE)
}

/// How far another site's line has come.
pub(crate) fn site_come(line: &LineKey) -> Key {
    site(line, site_kind::COME)
}

/// The beginning of what is owed on a line.
pub(crate) fn site_owed_prefix(line: &LineKey) -> Key {
    let mut key = site(line, site_kind::OWED);
    key.push(0);
    key
}

/// Something owed on a line.
pub(crate) fn site_owed(line: &LineKey, number: u64) -> Key {
    site_number(line, site_kind::OWED, number)
}

/// Who waits for what a number of a line leads to.
pub(crate) fn site_held(line: &LineKey, number: u64) -> Key {
    site_number(line, site_kind::HELD, number)
}

/// A send that waits for its home site.
pub fn held_by_cid(of: &ConvKey, sender: &str, cid: &str) -> Key {
    let mut key = conv_name(of, conv_kind::HELD, sender);
    key.push(0);
    key.extend_from_slice(cid.as_bytes());
    key
}
