//! Receipts: senders hear how far their messages have come, at most once a second per
//! conversation and reader. What waits to be told may be lost in a crash; the cursors are not.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;
use hoopoe_store::StoreError;
use hoopoe_store::kv::Family;

use crate::entry::{Entry, EntryKind};
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind};
use crate::refusal::Fault;
use crate::rows::{CursorCopy, Head, Row};
use crate::shard::Work;

/// At most one receipt per conversation and reader in this time.
const INTERVAL_MS: u64 = 1_000;
/// Entries looked at for the senders who are told.
const MOST_ENTRIES: u64 = super::tail::MOST_OF_ONE as u64;
/// Readers of whom senders are told in one go: what else has come to the shard is not to wait for
/// thousands.
const MOST_AT_ONCE: usize = 512;
/// Receipts that wait; beyond it they are sent at once.
const MOST_WAITING: usize = 100_000;

/// Receipts of one shard that wait or were sent within the last second.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    readers: HashMap<(ConvKey, Arc<str>), Reader>,
    due: BTreeSet<(u64, ConvKey, Arc<str>)>,
    /// Under load nothing is told before.
    not_before_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    /// What senders were told last.
    told: CursorCopy,
    /// What they are to be told.
    now: CursorCopy,
}

impl Receipts {
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.due.first().map(|(at, ..)| self.not_before_ms.max(*at))
    }

    /// Nothing is told before: what moves meanwhile is merged.
    pub(crate) fn defer(&mut self, until_ms: u64) {
        self.not_before_ms = until_ms;
    }

    fn moved(
        &mut self,
        now_ms: u64,
        conv: &ConvKey,
        user: &Arc<str>,
        from: CursorCopy,
        to: CursorCopy,
    ) {
        let key = (conv.clone(), user.clone());
        if let Some(reader) = self.readers.get_mut(&key) {
            reader.now = to;
            return;
        }
        let at = if self.readers.len() >= MOST_WAITING { 0 } else { now_ms };
        self.due.insert((at, key.0.clone(), key.1.clone()));
        self.readers.insert(key, Reader { told: from, now: to });
    }

    /// Readers whose receipts are due, with what senders know and what they are to know.
    fn take_due(&mut self, now_ms: u64) -> Vec<(ConvKey, Arc<str>, CursorCopy, CursorCopy)> {
        let mut taken = Vec::new();
        while taken.len() < MOST_AT_ONCE
            && let Some((at, ..)) = self.due.first()
            && *at <= now_ms
        {
            let Some((_, conv, user)) = self.due.pop_first() else { break };
            let key = (conv, user);
            let Some(reader) = self.readers.get_mut(&key) else { continue };
            if reader.told == reader.now {
                self.readers.remove(&key);
                continue;
            }
            taken.push((key.0.clone(), key.1.clone(), reader.told, reader.now));
            reader.told = reader.now;
            self.due.insert((now_ms + INTERVAL_MS, key.0, key.1));
        }
        taken
    }
}

impl Work<'_> {
    /// How far a member has come, as the conversation knows.
    pub(crate) fn cursor_copy(
        &mut self,
        conv: &ConvKey,
        user: &str,
    ) -> Result<CursorCopy, StoreError> {
        let head = match conv.kind() {
            ConvKind::User => self.head(conv)?,
            _ => Head::default(),
        };
        self.cursor_copy_at(conv, user, &head)
    }

    /// As [`cursor_copy`](Self::cursor_copy), with the head that was just read.
    pub(crate) fn cursor_copy_at(
        &mut self,
        conv: &ConvKey,
        user: &str,
        head: &Head,
    ) -> Result<CursorCopy, StoreError> {
        let key = keys::conv_name(conv, conv_kind::COPY, user);
        let copy = self.txn.row::<CursorCopy>(&key)?.unwrap_or_default();
        let own = match conv.kind() {
            ConvKind::User => head.own_of(conv, user),
            _ => 0,
        };
        Ok(copy.max(CursorCopy { recv: own, read: own }))
    }

    /// A member's cursors have moved, as committed by the user's shard. True when the
    /// conversation's copy of them says so from this commit on.
    pub(crate) fn cursors_moved(
        &mut self,
        conv: &ConvKey,
        user: &Arc<str>,
        recv: u64,
        read: u64,
    ) -> Result<bool, Fault> {
        if !self.keeps_receipts(conv, user)? {
            return Ok(false);
        }
        let before = self.cursor_copy(conv, user)?;
        let now = before.max(CursorCopy { recv, read });
        if now != before {
            let key = keys::conv_name(conv, conv_kind::COPY, user);
            self.txn.put_lazily(Family::Im, &key, now.encode());
            self.copy_moved(conv, user, before, now)?;
        }
        Ok(true)
    }

    /// What the conversation knows of a member has changed.
    pub(crate) fn copy_moved(
        &mut self,
        conv: &ConvKey,
        user: &Arc<str>,
        before: CursorCopy,
        now: CursorCopy,
    ) -> Result<(), Fault> {
        if now.read > before.read {
            self.light(conv, user, now.read)?;
        }
        self.memory.receipts.moved(self.now_ms, conv, user, before, now);
        Ok(())
    }

    fn keeps_receipts(&mut self, conv: &ConvKey, user: &str) -> Result<bool, Fault> {
        match conv.kind() {
            ConvKind::User => Ok(true),
            ConvKind::Channel => Ok(false),
            ConvKind::Group => Ok(self.is_small_group(conv)? && self.is_member(conv, user)?),
        }
    }

    /// Tells senders what is due.
    pub(crate) fn send_receipts(&mut self) -> Result<(), Fault> {
        for (conv, reader, told, now) in self.memory.receipts.take_due(self.now_ms) {
            if now.recv > told.recv {
                self.tell_senders(&conv, &reader, "recv", told.recv, now.recv)?;
            }
            if now.read > told.read {
                self.tell_senders(&conv, &reader, "read", told.read, now.read)?;
            }
        }
        Ok(())
    }

    fn tell_senders(
        &mut self,
        conv: &ConvKey,
        reader: &str,
        what: &str,
        from: u64,
        to: u64,
    ) -> Result<(), Fault> {
        let from = (from + 1).max(to.saturating_sub(MOST_ENTRIES) + 1);
        let senders = self.senders(conv, reader, from, to)?;
        for sender in senders {
            if conv.kind() == ConvKind::Group && !self.is_member(conv, &sender)? {
                // Who is out hears nothing of what goes on.
                continue;
            }
            let wire = conv.wire(&sender);
            let topic = format!("im/me/sys/receipt/{wire}/{what}/{to}/{reader}");
            let user = self.user_of(conv, &sender);
            self.notice(user, topic, bytes::Bytes::new());
        }
        Ok(())
    }

    /// Who has sent the messages `from` to `to`, besides the reader; of a pair it is one at most.
    fn senders(
        &mut self,
        conv: &ConvKey,
        reader: &str,
        from: u64,
        to: u64,
    ) -> Result<BTreeSet<Arc<str>>, Fault> {
        let most = if conv.kind() == ConvKind::User { 1 } else { usize::MAX };
        let mut senders = BTreeSet::new();
        if let Some(known) = self.memory.tails.senders(conv, from, to) {
            for sender in known.filter(|sender| ***sender != *reader) {
                if !senders.contains(sender) {
                    senders.insert(sender.clone());
                }
                if senders.len() >= most {
                    break;
                }
            }
            return Ok(senders);
        }
        for seq in (from..=to).rev() {
            if let Some(Entry { from, kind: EntryKind::Message, .. }) = self.entry(conv, seq)?
                && *from != *reader
            {
                senders.insert(from);
            }
            if senders.len() >= most {
                break;
            }
        }
        Ok(senders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_of_a_reader_are_merged_to_one_a_second() {
        let conv = ConvKey::pair("default", "alice", "bob");
        let (mut receipts, bob) = (Receipts::default(), Arc::from("bob"));
        let at = |recv| CursorCopy { recv, read: 0 };
        receipts.moved(1_000, &conv, &bob, at(0), at(1));
        assert_eq!(receipts.next_timeout(), Some(1_000));
        let due = receipts.take_due(1_000);
        assert_eq!(due, [(conv.clone(), "bob".into(), at(0), at(1))]);
        for n in 2..9 {
            receipts.moved(1_000 + n, &conv, &bob, at(n - 1), at(n));
        }
        assert_eq!(receipts.take_due(1_500), []);
        let due = receipts.take_due(2_000);
        assert_eq!(due, [(conv.clone(), "bob".into(), at(1), at(8))]);
        assert_eq!(receipts.take_due(3_000), [], "nothing new: forgotten");
        assert_eq!(receipts.next_timeout(), None);
    }

    #[test]
    fn thousands_of_readers_are_told_of_in_portions() {
        let conv = ConvKey::group("default", "team");
        let mut receipts = Receipts::default();
        for n in 0..2 * MOST_AT_ONCE + 1 {
            let (from, to) = (CursorCopy::default(), CursorCopy { recv: 1, read: 0 });
            receipts.moved(1_000, &conv, &format!("u{n}").into(), from, to);
        }
        for expected in [MOST_AT_ONCE, MOST_AT_ONCE, 1] {
            assert_eq!(receipts.next_timeout(), Some(1_000));
            assert_eq!(receipts.take_due(1_000).len(), expected);
        }
        assert_eq!(receipts.next_timeout(), Some(2_000));
    }
}
