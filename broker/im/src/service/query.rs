//! What is read without being changed: over committed rows, on reader threads.
//!
//! A call comes here behind everything its shard was told before, so that whoever changed
//! something finds it changed. Rows of all shards can be read; none is kept.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use hoopoe_store::StoreError;
use hoopoe_store::kv::{Family, SharedKv, Span};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Call, Op};
use crate::channel::listed_for_everyone;
use crate::command::User;
use crate::conversation::{read_entry, read_onto};
use crate::device::Read;
use crate::entry::{Entry, EntryKind, Shelf};
use crate::heads::Heads;
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::{CursorCopy, Head, Interval, Row, UserConv};

/// Items of a page without `limit`, and at most.
pub const PAGE_DEFAULT: usize = 50;
/// Items of a page at most.
pub const PAGE_MAX: usize = 200;

/// Entries of one conversation for which room is made before they are read.
const EXPECTED_MAX: u64 = 128;

/// What a call that reads gives.
#[derive(Debug)]
pub struct Found {
    /// The answer.
    pub value: Value,
    /// Entries that come before it, one publication each.
    pub entries: Vec<Entry>,
}

impl From<Value> for Found {
    fn from(value: Value) -> Found {
        Found { value, entries: Vec::new() }
    }
}

/// What was found of one conversation.
#[derive(Debug)]
pub struct Seen {
    /// Everything up to here was looked at.
    pub through: u64,
    /// What there is.
    pub entries: Vec<Entry>,
}

/// Reads committed rows.
#[derive(Clone)]
pub struct Query {
    kv: SharedKv,
    now_ms: u64,
    heads: Option<Arc<Heads>>,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

/// A page's size, within its bounds.
pub(crate) fn page_size(limit: Option<u32>) -> Result<usize, Refusal> {
    match limit {
        None => Ok(PAGE_DEFAULT),
        Some(limit) if (1..=PAGE_MAX as u32).contains(&limit) => Ok(limit as usize),
        Some(_) => Err(Refusal::bad_request(format!("limit: from 1 to {PAGE_MAX}"))),
    }
}

/// How many entries a stretch is likely to have. Holes are few: most often as many as may be.
fn expected(from: u64, to: u64) -> usize {
    to.saturating_sub(from).min(EXPECTED_MAX - 1) as usize + 1
}

impl Query {
    /// A look at the rows as they are now.
    pub fn new(kv: SharedKv, now_ms: u64) -> Query {
        Query { kv, now_ms, heads: None }
    }

    /// With a table of heads that the shards keep.
    #[must_use]
    pub fn with_heads(self, heads: Arc<Heads>) -> Query {
        Query { heads: Some(heads), ..self }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Answers a call that reads.
    ///
    /// # Errors
    /// When it is refused, or rows cannot be read.
    pub fn answer(&self, call: &Call) -> Result<Found, Fault> {
        let user = &call.caller.user;
        match &call.op {
            Op::TimeNow(_) => Ok(json!({ "now": self.now_ms }).into()),
            Op::UserInfo(of) => self.user_info(user, of.user.as_deref()).map(Found::from),
            Op::SyncHeads(page) => self.heads(user, page).map(Found::from),
            Op::SyncPull(pull) => self.pull(&call.caller, pull),
            Op::SyncCounts(_) => self.counts(user).map(Found::from),
            Op::ConvList(page) => self.conv_list(user, page).map(Found::from),
            Op::RosterList(page) => self.roster_list(user, page).map(Found::from),
            Op::GroupInfo(of) => self.group_info(&call.caller, &of.group).map(Found::from),
            Op::GroupList(page) => self.group_list(user, page).map(Found::from),
            Op::GroupMembers(page) => self.group_members(&call.caller, page).map(Found::from),
            Op::ChannelInfo(of) => self.channel_info(user, &of.channel).map(Found::from),
            Op::ReceiptList(of) => self.receipt_list(&call.caller, of).map(Found::from),
            Op::TokensList(_) => self.tokens_list(user).map(Found::from),
            Op::ReceiptCount(of) => self.receipt_count(&call.caller, of).map(Found::from),
            _ => Err(Refusal::not_found("this operation is not offered here").into()),
        }
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.kv.get(family, key)
    }

    pub(crate) fn scan(
        &self,
        family: Family,
        span: Span<'_>,
        each: &mut hoopoe_store::kv::Visit<'_>,
    ) -> Result<(), StoreError> {
        self.kv.scan(family, span, each)
    }

    /// A row of JSON.
    pub(crate) fn multi_get(
        &self,
        keys: &[&[u8]],
        each: &mut hoopoe_store::kv::Found<'_>,
    ) -> Result<(), StoreError> {
        self.kv.multi_get(Family::Im, keys, each)
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(Family::Im, key)?.map(|row| crate::txn::read_json(key, &row)).transpose()
    }

    /// A binary row.
    pub(crate) fn row<T: Row>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(Family::Im, key)?.map(|row| T::decode(key, &row)).transpose()
    }

    /// Visits rows below a prefix, behind the name `after`, until `each` breaks.
    pub(crate) fn names(
        &self,
        prefix: &[u8],
        after: Option<&str>,
        mut each: impl FnMut(&str, &[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut start = prefix.to_vec();
        start.extend_from_slice(after.unwrap_or_default().as_bytes());
        let from = match after {
            Some(_) => Bound::Excluded(&start[..]),
            None => Bound::Included(&start[..]),
        };
        let mut result = Ok(());
        self.kv.scan_below(Family::Im, prefix, from, &mut |key, row| match each(
            keys::name_behind(key, prefix),
            key,
            row,
        ) {
            Ok(flow) => flow,
            Err(error) => {
                result = Err(error);
                ControlFlow::Break(())
            }
        })?;
        result
    }

    /// Where a conversation stands.
    pub fn head(&self, conv: &ConvKey) -> Result<Head, StoreError> {
        let key = keys::conv(conv, conv_kind::HEAD);
        match self.get(Family::Im, &key)? {
            Some(row) => Head::decode(&key, &row),
            None => Ok(Head::default()),
        }
    }

    /// Where a conversation stands, without `bytes` and `id`; from memory if it was used lately.
    pub(super) fn known_head(&self, conv: &ConvKey) -> Result<Head, StoreError> {
        let known = self.heads.as_ref().and_then(|heads| heads.get(conv));
        known.map_or_else(|| self.head(conv), Ok)
    }

    /// Where conversations stand, in their order; without `bytes` and `id`.
    pub(crate) fn heads_of<'a>(
        &self,
        convs: impl ExactSizeIterator<Item = &'a ConvKey> + Clone,
    ) -> Result<Vec<Head>, StoreError> {
        let mut known: Vec<Option<Head>> = vec![None; convs.len()];
        if let Some(heads) = &self.heads {
            heads.get_each(convs.clone(), |at, head| known[at] = Some(head));
        }
        let (mut missing, mut keys) = (Vec::new(), Vec::new());
        for (at, conv) in convs.enumerate().filter(|(at, _)| known[*at].is_none()) {
            missing.push(at);
            keys.push(keys::conv(conv, conv_kind::HEAD));
        }
        let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mut fault = None;
        self.kv.multi_get(Family::Im, &asked, &mut |at, row| match row
            .map(|row| Head::decode(asked[at], row))
            .transpose()
        {
            Ok(head) => known[missing[at]] = head,
            Err(error) => fault = Some(error),
        })?;
        fault.map_or(Ok(known.into_iter().map(Option::unwrap_or_default).collect()), Err)
    }

    /// One entry as it is now; expired ones are void.
    pub fn entry(&self, conv: &ConvKey, seq: u64) -> Result<Option<Entry>, StoreError> {
        let row = self.get(Family::Log, &keys::entry(conv, seq))?;
        let entry = row.map(|row| read_entry(conv, seq, &row)).transpose()?;
        Ok(entry.map(|entry| self.as_of_now(entry)))
    }

    fn as_of_now(&self, entry: Entry) -> Entry {
        #[cfg(feature = "planted")]
        if hoopoe_core::planted::has(hoopoe_core::planted::Bug::ShowExpired) {
            return Entry { expires_at_ms: None, ..entry };
        }
        entry.as_of(self.now_ms)
    }

    /// Entries `from` to `to` of a conversation, both included, at most `most` and about
    /// `most_bytes`; from the high end with `down`.
    pub fn entries(
        &self,
        conv: &ConvKey,
        from: u64,
        to: u64,
        most: usize,
        most_bytes: usize,
        down: bool,
    ) -> Result<Vec<Entry>, StoreError> {
        if from > to || most == 0 {
            return Ok(Vec::new());
        }
        if !down {
            return Ok(self.stretch(conv, (from, to), most, most_bytes, false)?.0);
        }
        // A store reads upwards at half the cost, and there are few holes near the end.
        let near = from.max(to.saturating_sub(most as u64 - 1));
        let (mut found, bytes) = self.stretch(conv, (near, to), most, most_bytes, false)?;
        if bytes >= most_bytes {
            // It ended before the newest.
            return Ok(self.stretch(conv, (from, to), most, most_bytes, true)?.0);
        }
        found.reverse();
        if found.len() < most && near > from {
            let (room, bytes) = (most - found.len(), most_bytes - bytes);
            found.extend(self.stretch(conv, (from, near - 1), room, bytes, true)?.0);
        }
        Ok(found)
    }

    /// Entries of a stretch in the order in which they are read, and their bytes.
    fn stretch(
        &self,
        conv: &ConvKey,
        (from, to): (u64, u64),
        most: usize,
        most_bytes: usize,
        down: bool,
    ) -> Result<(Vec<Entry>, usize), StoreError> {
        let mut found = Vec::with_capacity(expected(from, to).min(most));
        let mut shelf = Shelf::default();
        let (mut bytes, mut result) = (0, Ok(()));
        let (low, high) = (keys::entry(conv, from), keys::entry(conv, to));
        let span = Span { from: Bound::Included(&low), to: Bound::Included(&high), reverse: down };
        self.kv.scan(Family::Log, span, &mut |key, row| {
            match read_onto(&mut shelf, conv, keys::seq_of(key), row) {
                Ok(entry) => {
                    bytes += row.len();
                    found.push(self.as_of_now(entry));
                }
                Err(error) => {
                    result = Err(error);
                    return ControlFlow::Break(());
                }
            }
            if found.len() >= most || bytes >= most_bytes {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        result.map(|()| (found, bytes))
    }

    /// What a device reads, one conversation after the other; of all together about `most_bytes`,
    /// after which nothing more is looked at. For each how far it was looked at, and what was found.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn entries_each(&self, reads: &[Read], most_bytes: usize) -> Result<Vec<Seen>, StoreError> {
        let ends: Vec<(keys::Key, keys::Key)> = reads
            .iter()
            .map(|read| (keys::entry(&read.conv, read.from), keys::entry(&read.conv, read.to)))
            .collect();
        let spans: Vec<(&[u8], &[u8])> =
            ends.iter().map(|(first, last)| (&first[..], &last[..])).collect();
        let whole = |read: &Read| Seen { through: read.to, entries: Vec::new() };
        let mut seen: Vec<Seen> = reads.iter().map(whole).collect();
        let (mut shelf, mut bytes, mut result) = (Shelf::default(), 0, Ok(()));
        self.kv.scan_each(Family::Log, &spans, &mut |at, key, row| {
            let (seq, seen) = (keys::seq_of(key), &mut seen[at]);
            if bytes >= most_bytes || result.is_err() {
                seen.through = seq - 1;
                return ControlFlow::Break(());
            }
            match read_onto(&mut shelf, &reads[at].conv, seq, row) {
                Ok(entry) => {
                    bytes += row.len();
                    if seen.entries.is_empty() {
                        seen.entries.reserve_exact(expected(seq, reads[at].to));
                    }
                    seen.entries.push(self.as_of_now(entry));
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    result = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        result.map(|()| seen)
    }

    /// The conversations in a user's list.
    pub fn conversations(&self, user: &User) -> Result<Vec<(ConvKey, UserConv)>, StoreError> {
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::CONV);
        let mut list = Vec::new();
        self.names(&prefix, None, |wire, key, row| {
            if let Some(conv) = ConvKey::from_wire(&user.tenant, &user.id, wire) {
                list.push((conv, UserConv::decode(key, row)?));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for conv in self.everyone(user)? {
            // Their number is small.
            if list.iter().all(|(listed, _)| *listed != conv) {
                list.push((conv, listed_for_everyone()));
            }
        }
        Ok(list)
    }

    /// The channels that all users of a tenant have (ruling 38).
    pub(super) fn everyone(&self, user: &User) -> Result<Vec<ConvKey>, StoreError> {
        let prefix = keys::everyone(&user.tenant, "");
        let mut channels = Vec::new();
        self.names(&prefix, None, |channel, _, _| {
            channels.push(ConvKey::channel(&user.tenant, channel));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(channels)
    }

    /// A conversation in a user's list; channels for everyone are in it without a row.
    pub fn user_conv(&self, user: &User, conv: &ConvKey) -> Result<Option<UserConv>, StoreError> {
        let wire = conv.wire(&user.id);
        let key = keys::user_name(&user.tenant, &user.id, user_kind::CONV, &wire);
        if let Some(row) = self.row(&key)? {
            return Ok(Some(row));
        }
        if conv.kind() == ConvKind::Channel {
            let key = keys::everyone(conv.tenant(), conv.id());
            return Ok(self.get(Family::Im, &key)?.map(|_| listed_for_everyone()));
        }
        Ok(None)
    }

    /// A line of the user's list as it stands, given the conversation's head. What the user has
    /// sent is written into the list a second later: the conversation itself may know more.
    pub fn settled(
        &self,
        user: &User,
        conv: &ConvKey,
        mut row: UserConv,
        head: &Head,
    ) -> Result<UserConv, StoreError> {
        if row.read >= head.last && row.recv >= head.last {
            return Ok(row);
        }
        let copy = match conv.kind() {
            // The list is the first to know everything else.
            ConvKind::User => {
                let own = head.own_of(conv, &user.id);
                CursorCopy { recv: own, read: own }
            }
            _ => {
                let key = keys::conv_name(conv, conv_kind::COPY, &user.id);
                self.row(&key)?.unwrap_or_default()
            }
        };
        row.recv = row.recv.max(copy.recv);
        if copy.read > row.read {
            row.read = copy.read;
            let entry = self.entry(conv, copy.read)?;
            row.read_count = row.read_count.max(entry.map_or(0, |entry| entry.count));
        }
        Ok(row)
    }

    /// Countable messages that the user may see and has not read (ruling 22). What retention has
    /// taken cannot be read any more.
    pub fn unread(&self, conv: &ConvKey, row: &UserConv, head: &Head) -> Result<u64, StoreError> {
        let from = head.min.max(row.read + 1);
        let mut unread = 0;
        for Interval { from: first, until } in &row.intervals {
            let (first, last) = (from.max(*first), until.unwrap_or(head.last).min(head.last));
            if first <= last {
                unread += self.unread_in(conv, row, head, (first, last))?;
            }
        }
        Ok(unread)
    }

    /// Countable messages of a stretch behind what the user has read.
    fn unread_in(
        &self,
        conv: &ConvKey,
        row: &UserConv,
        head: &Head,
        (from, to): (u64, u64),
    ) -> Result<u64, StoreError> {
        let count_at = |seq| -> Result<u64, StoreError> {
            Ok(self.entry(conv, seq)?.map_or(head.count, |entry| entry.count))
        };
        let count = if to == head.last { head.count } else { count_at(to)? };
        let before = if head.min > 1 && from == head.min {
            // Also where it has taken the very entry that was read: nothing counts up to there.
            row.read_count.max(self.count_below(conv, head)?)
        } else if from == row.read + 1 {
            row.read_count
        } else {
            count_at(from - 1)?
        };
        let voids = if head.voids == 0 { 0 } else { self.voids(conv, from, to)? };
        Ok(count.saturating_sub(before).saturating_sub(voids))
    }

    /// Countable messages that retention has taken.
    fn count_below(&self, conv: &ConvKey, head: &Head) -> Result<u64, StoreError> {
        let first = self.entry(conv, head.min)?;
        Ok(first.map_or(head.count, |entry| {
            let counts = matches!(entry.kind, EntryKind::Message | EntryKind::Void);
            entry.count - u64::from(counts).min(entry.count)
        }))
    }

    fn voids(&self, conv: &ConvKey, from: u64, to: u64) -> Result<u64, StoreError> {
        self.seqs(conv, conv_kind::VOID, from, to).map(|seqs| seqs.len() as u64)
    }

    pub(crate) fn seqs(
        &self,
        conv: &ConvKey,
        kind: u8,
        from: u64,
        to: u64,
    ) -> Result<Vec<u64>, StoreError> {
        let (low, high) = (keys::conv_seq(conv, kind, from), keys::conv_seq(conv, kind, to));
        let span = Span { from: Bound::Included(&low), to: Bound::Included(&high), reverse: false };
        let mut seqs = Vec::new();
        self.kv.scan(Family::Im, span, &mut |key, _| {
            seqs.push(keys::seq_of(key));
            ControlFlow::Continue(())
        })?;
        Ok(seqs)
    }

    /// Unread messages that mention the user, by name or as one of all.
    pub fn mentions(
        &self,
        user: &User,
        conv: &ConvKey,
        row: &UserConv,
        head: &Head,
    ) -> Result<u64, StoreError> {
        let wire = conv.wire(&user.id);
        let from = head.min.max(row.read + 1);
        let low = keys::mention(&user.tenant, &user.id, &wire, from);
        let high = keys::mention(&user.tenant, &user.id, &wire, u64::MAX);
        let span = Span { from: Bound::Included(&low), to: Bound::Included(&high), reverse: false };
        let mut seqs = Vec::new();
        self.kv.scan(Family::Im, span, &mut |key, _| {
            seqs.push(keys::seq_of(key));
            ControlFlow::Continue(())
        })?;
        if conv.kind() != ConvKind::User {
            seqs.extend(self.seqs(conv, conv_kind::AT_ALL, from, head.last)?);
            seqs.sort_unstable();
            seqs.dedup();
        }
        let mut count = 0;
        for seq in seqs {
            let void = head.voids > 0
                && self.get(Family::Im, &keys::conv_seq(conv, conv_kind::VOID, seq))?.is_some();
            count += u64::from(!void && crate::rows::may_see(&row.intervals, seq));
        }
        Ok(count)
    }

    /// Visits the keys of a stretch, both ends included, while `each` says so.
    pub(crate) fn im_rows(
        &self,
        low: &[u8],
        high: &[u8],
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let span = Span { from: Bound::Included(low), to: Bound::Included(high), reverse: false };
        self.kv.scan(Family::Im, span, &mut |key, _| {
            if each(key) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    }

    pub(crate) fn cursor_copies(
        &self,
        conv: &ConvKey,
    ) -> Result<Vec<(String, CursorCopy)>, StoreError> {
        let prefix = keys::conv_prefix(conv, conv_kind::COPY);
        let mut copies = Vec::new();
        self.names(&prefix, None, |name, key, row| {
            copies.push((name.to_owned(), CursorCopy::decode(key, row)?));
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some((low, high)) = conv.pair_users() {
            let head = self.head(conv)?;
            for (user, own) in [low, high].into_iter().zip(head.own) {
                let own = CursorCopy { recv: own, read: own };
                match copies.iter_mut().find(|(name, _)| name == user) {
                    Some((_, copy)) => *copy = copy.max(own),
                    None => copies.push((user.to_owned(), own)),
                }
            }
        }
        Ok(copies)
    }
}

#[cfg(test)]
mod tests {
    use hoopoe_store::kv::Batch;

    use super::*;
    use crate::rig::{Rig, TENANT};
    use crate::settings::ImSettings;

    /// Read from the high end, upwards or not, the same entries come: those that a walk down from
    /// there finds first.
    #[test]
    fn the_newest_are_found_whatever_is_missing() {
        let mut rig = Rig::new(ImSettings::default());
        let conv = ConvKey::pair(TENANT, "alice", "bob");
        for number in 1..=40 {
            rig.send("alice", "u/bob", &"x".repeat(number)).unwrap();
        }
        let mut holes = Batch::default();
        for seq in (3..=20).chain([25, 31, 39]) {
            holes.delete(Family::Log, &keys::entry(&conv, seq));
        }
        rig.kv().write(&holes, true).unwrap();
        let query = rig.query();
        let all = query.entries(&conv, 1, 40, usize::MAX, usize::MAX, false).unwrap();
        assert_eq!(all.len(), 19);
        let bytes = |entry: &Entry| {
            let row = query.get(Family::Log, &keys::entry(&conv, entry.seq)).unwrap();
            row.unwrap().len()
        };
        for (from, to) in [(1, 40), (1, 39), (2, 24), (4, 19), (22, 40), (40, 40), (1, u64::MAX)] {
            for most in [1, 2, 5, 19, 100] {
                for most_bytes in [1, 150, 400, usize::MAX] {
                    let (mut expected, mut taken) = (Vec::new(), 0);
                    for entry in all.iter().rev().filter(|e| (from..=to).contains(&e.seq)) {
                        if expected.len() < most && taken < most_bytes {
                            taken += bytes(entry);
                            expected.push(entry.clone());
                        }
                    }
                    let found = query.entries(&conv, from, to, most, most_bytes, true).unwrap();
                    let seqs = |list: &[Entry]| -> Vec<u64> {
                        list.iter().map(|entry| entry.seq).collect()
                    };
                    let asked = (from, to, most, most_bytes);
                    assert_eq!(seqs(&found), seqs(&expected), "{asked:?}");
                }
            }
        }
    }
}
