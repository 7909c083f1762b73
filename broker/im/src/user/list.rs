//! The conversation list: which conversations a user has, and how far the user has come in each.
//!
//! `read` moves by the user's own word and by sending; `recv` by what any device acknowledges. A
//! receipt leaves only after the cursor it tells of is committed (ruling 21).

use bytes::Bytes;
use hoopoe_store::StoreError;
use hoopoe_store::kv::Family;

use crate::command::{Forward, Listed, MoveCursor, Progress, User};
use crate::conversation::read_entry;
use crate::effect::{Answer, Effect};
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::{Head, Joined, Row, UserConv, number_row, since};
use crate::shard::Work;
use crate::user::lazy::Moves;

impl Work<'_> {
    fn conv_key(user: &User, conv: &ConvKey) -> Vec<u8> {
        keys::user_name(&user.tenant, &user.id, user_kind::CONV, &conv.wire(&user.id))
    }

    /// A conversation in a user's list.
    pub(crate) fn user_conv(
        &mut self,
        user: &User,
        conv: &ConvKey,
    ) -> Result<Option<UserConv>, StoreError> {
        self.txn.row(&Self::conv_key(user, conv))
    }

    /// As [`user_conv`](Self::user_conv); a pair's conversation that is not listed yet counts.
    pub(crate) fn user_conv_or_new(
        &mut self,
        user: &User,
        conv: &ConvKey,
    ) -> Result<UserConv, Fault> {
        if let Some(row) = self.user_conv(user, conv)? {
            return Ok(row);
        }
        if conv.kind() == ConvKind::User {
            let intervals = since(1);
            return Ok(UserConv { intervals, since_ms: self.now_ms, ..UserConv::default() });
        }
        if let Some(row) = self.unlisted(user, conv)? {
            return Ok(row);
        }
        Err(Refusal::not_allowed(format!("{} is not in the list", conv.wire(&user.id))).into())
    }

    pub(crate) fn put_user_conv(&mut self, user: &User, conv: &ConvKey, row: &UserConv) {
        self.txn.put(Family::Im, &Self::conv_key(user, conv), row.encode());
    }

    /// Where a conversation of any shard stands, as committed.
    pub(crate) fn committed_head(&mut self, conv: &ConvKey) -> Result<Head, StoreError> {
        let key = keys::conv(conv, conv_kind::HEAD);
        match self.txn.peek(Family::Im, &key)? {
            Some(row) => Head::decode(&key, &row),
            None => Ok(Head::default()),
        }
    }

    /// Countable messages up to a seq, as committed.
    pub(crate) fn count_at(&mut self, conv: &ConvKey, seq: u64) -> Result<u64, StoreError> {
        match self.txn.peek(Family::Log, &keys::entry(conv, seq))? {
            Some(row) => Ok(read_entry(conv, seq, &row)?.count),
            None => Ok(0),
        }
    }

    /// A user's `cur` publication.
    pub(crate) fn move_cursor(&mut self, cursor: &MoveCursor) -> Result<Answer, Fault> {
        self.flush_cursors(Some(&cursor.user))?;
        let mut row = self.user_conv_or_new(&cursor.user, &cursor.conv)?;
        let head = self.committed_head(&cursor.conv)?;
        if cursor.seq > head.last {
            let text = format!("seq {} is above the last, {}", cursor.seq, head.last);
            return Err(Refusal::bad_request(text).into());
        }
        let before = (row.recv, row.read);
        row.recv = row.recv.max(cursor.seq);
        if cursor.read && cursor.seq > row.read {
            row.read = cursor.seq;
            row.read_count = self.count_at(&cursor.conv, cursor.seq)?.max(row.read_count);
        }
        if before == (row.recv, row.read) {
            // The conversation may not have heard of it: a crash between two shards' commits.
            let (recv, read) = (row.recv, row.read);
            let (conv, user) = (cursor.conv.clone(), cursor.user.id.clone());
            self.tell(Forward::Cursors { conv, user, recv, read });
            return Ok(Answer::Done);
        }
        if row.recv > before.0 {
            self.leave_devices(&cursor.user, &cursor.conv.wire(&cursor.user.id), before.0)?;
        }
        self.put_user_conv(&cursor.user, &cursor.conv, &row);
        self.cursor_moved(&cursor.user, &cursor.conv, before.1, &row);
        Ok(Answer::Done)
    }

    /// Own devices hear of `read`, the conversation of both.
    pub(crate) fn cursor_moved(
        &mut self,
        user: &User,
        conv: &ConvKey,
        read_before: u64,
        row: &UserConv,
    ) {
        if row.read > read_before {
            let topic = format!("im/me/sys/read/{}/{}", conv.wire(&user.id), row.read);
            self.notice(user.clone(), topic, Bytes::new());
        }
        self.tell(Forward::Cursors {
            conv: conv.clone(),
            user: user.id.clone(),
            recv: row.recv,
            read: row.read,
        });
    }

    /// What a device has acknowledged; written within a second.
    pub(crate) fn progress(&mut self, progress: &Progress) -> Result<(), Fault> {
        self.memory.lazy.progress(self.now_ms, progress);
        if progress.at_once { self.flush_cursors(Some(&progress.user)) } else { Ok(()) }
    }

    /// Writes all moves there are.
    pub(crate) fn flush_all_cursors(&mut self) -> Result<(), Fault> {
        while !self.memory.lazy.is_empty() {
            self.flush_cursors(None)?;
        }
        Ok(())
    }

    /// Writes the moves of one user, or a portion of those that are due.
    pub(crate) fn flush_cursors(&mut self, only: Option<&User>) -> Result<(), Fault> {
        for ((user, conv), moves) in self.memory.lazy.take(only) {
            self.write_moves(&user, &conv, moves)?;
        }
        Ok(())
    }

    fn write_moves(&mut self, user: &User, conv: &ConvKey, moves: Moves) -> Result<(), Fault> {
        let wire = conv.wire(&user.id);
        for (client, cursor) in moves.devices {
            let key = keys::cursor(&user.tenant, &user.id, &client, &wire);
            self.txn.put(Family::Im, &key, number_row(cursor));
        }
        let mut row = match self.user_conv_or_new(user, conv) {
            Ok(row) => row,
            Err(Fault::Refused(_)) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        let before = (row.recv, row.read);
        let (own, count) = moves.own.unwrap_or_default();
        row.recv = row.recv.max(moves.recv).max(own);
        if own > row.read {
            row.read = own;
            row.read_count = row.read_count.max(count);
        }
        if row.recv > before.0 {
            self.leave_devices(user, &wire, before.0)?;
        }
        if before != (row.recv, row.read) {
            self.put_user_conv(user, conv, &row);
            self.cursor_moved(user, conv, before.1, &row);
        }
        Ok(())
    }

    /// A conversation enters the list, or the user's part in it changes.
    pub(crate) fn listed(&mut self, listed: &Listed) -> Result<(), Fault> {
        let user = User { tenant: listed.tenant.clone(), id: listed.user.clone() };
        let before = self.user_conv(&user, &listed.conv)?;
        let was_current = before.as_ref().is_some_and(UserConv::is_current);
        let known = before.as_ref().is_some_and(|row| is_known(row, listed));
        let mut row = before.clone().unwrap_or_default();
        // Later news may have overtaken a join, which was refused at first: it begins where it
        // was all the same.
        if listed.start > row.read {
            row.read = listed.start;
            row.read_count = row.read_count.max(listed.start_count);
        }
        if listed.version > 1 && listed.start > row.recv && before.is_some() {
            // Devices that have not come as far as another have the rest of what was before.
            self.leave_devices(&user, &listed.conv.wire(&user.id), row.recv)?;
        }
        row.recv = row.recv.max(listed.start);
        if known {
            if before.as_ref() != Some(&row) {
                self.put_user_conv(&user, &listed.conv, &row);
            }
            let gone = listed.intervals.last().is_some_and(|interval| interval.until.is_some());
            if gone && row.is_current() {
                // An old removal, told again, has let go of the devices of who is back since.
                let conv = listed.conv.clone();
                self.txn.effect(Effect::Listed { user, conv, row });
            }
            return Ok(());
        }
        row.since_ms = listed.since_ms;
        row.version = listed.version;
        if row.intervals != listed.intervals {
            // News, and not what was told before.
            row.hidden_at = None;
        }
        row.intervals = listed.intervals.clone();
        self.put_user_conv(&user, &listed.conv, &row);
        self.count_joined(&user, &listed.conv, was_current, row.is_current())?;
        self.txn.effect(Effect::Listed { user, conv: listed.conv.clone(), row });
        Ok(())
    }

    /// Keeps the number of groups and channels that limits are held against (ruling 37).
    fn count_joined(
        &mut self,
        user: &User,
        conv: &ConvKey,
        was: bool,
        is: bool,
    ) -> Result<(), Fault> {
        if was == is || conv.kind() == ConvKind::User {
            return Ok(());
        }
        let key = keys::user(&user.tenant, &user.id, user_kind::JOINED);
        let mut joined: Joined = self.txn.json(&key)?.unwrap_or_default();
        let count = match conv.kind() {
            ConvKind::Channel => &mut joined.channels,
            _ => &mut joined.groups,
        };
        *count = if is { *count + 1 } else { count.saturating_sub(1) };
        self.txn.put_json(&key, &joined);
        Ok(())
    }
}

/// Whether the list has heard this, or later news, before.
fn is_known(row: &UserConv, listed: &Listed) -> bool {
    listed.version > 0 && listed.version <= row.version
}
