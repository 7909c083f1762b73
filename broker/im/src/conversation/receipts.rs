//! Receipts: senders hear how far their messages have come, at most once a second per
//! conversation and reader. What waits to be told may be lost in a crash; the cursors are not.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeSet, VecDeque};
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
const MOST_ENTRIES: u64 = 200;
/// Readers of whom senders are told in one go: what else has come to the shard is not to wait for
/// thousands.
const MOST_AT_ONCE: usize = 512;

/// A conversation and one who reads in it.
type Place = (ConvKey, Arc<str>);

/// Receipts of one shard that wait or were sent within the last second.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    readers: HashMap<Place, Reader>,
    /// Whose senders have been told nothing lately: they are told at once.
    fresh: VecDeque<Place>,
    /// Whose senders were told, and when they may be told again, the earliest first.
    told: VecDeque<(u64, Place)>,
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
        let next =
            if self.fresh.is_empty() { self.told.front().map(|(at, _)| *at) } else { Some(0) };
        next.map(|at| self.not_before_ms.max(at))
    }

    /// Nothing is told before: what moves meanwhile is merged.
    pub(crate) fn defer(&mut self, until_ms: u64) {
        self.not_before_ms = until_ms;
    }

    fn moved(&mut self, conv: &ConvKey, user: &Arc<str>, from: CursorCopy, to: CursorCopy) {
        match self.readers.entry((conv.clone(), user.clone())) {
            Occupied(mut reader) => reader.get_mut().now = to,
            Vacant(place) => {
                self.fresh.push_back(place.key().clone());
                place.insert(Reader { told: from, now: to });
            }
        }
    }

    /// Readers whose receipts are due, with what senders know and what they are to know.
    fn take_due(&mut self, now_ms: u64) -> Vec<(Place, CursorCopy, CursorCopy)> {
        let mut taken = Vec::new();
        while taken.len() < MOST_AT_ONCE
            && let Some(place) = self.next_due(now_ms)
        {
            let Occupied(mut entry) = self.readers.entry(place) else { continue };
            let reader = entry.get_mut();
            if reader.told == reader.now {
                entry.remove();
                continue;
            }
            let told = std::mem::replace(&mut reader.told, reader.now);
            taken.push((entry.key().clone(), told, entry.get().now));
            self.told.push_back((now_ms + INTERVAL_MS, entry.key().clone()));
        }
        // Those of one conversation side by side: its senders are the same.
        taken.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        taken
    }

    /// Senders were not told: they are after the interval.
    fn take_back(&mut self, taken: Vec<(Place, CursorCopy, CursorCopy)>) {
        for (place, told, _) in taken {
            if let Some(reader) = self.readers.get_mut(&place) {
                reader.told = told;
            }
        }
    }

    fn next_due(&mut self, now_ms: u64) -> Option<Place> {
        // Later than the interval: the clock was set back.
        let is_due = |at: u64| at <= now_ms || at > now_ms + INTERVAL_MS;
        if let Some((_, place)) = self.told.pop_front_if(|(at, _)| is_due(*at)) {
            return Some(place);
        }
        self.fresh.pop_front()
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
        // Where the member began says nothing.
        let silent_to = match conv.kind() {
            ConvKind::Group => self.member(conv, user)?.map_or(0, |member| member.silent_to()),
            ConvKind::User | ConvKind::Channel => 0,
        };
        let before = before.max(CursorCopy { recv: silent_to, read: silent_to });
        let now = now.max(before);
        if now == before {
            return Ok(());
        }
        if now.read > before.read {
            self.light(conv, user, before.read, now.read)?;
        }
        self.memory.receipts.moved(conv, user, before, now);
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
        let due = self.memory.receipts.take_due(self.now_ms);
        let told = self.tell_due(&due);
        if told.is_err() {
            self.memory.receipts.take_back(due);
        }
        told
    }

    fn tell_due(&mut self, due: &[(Place, CursorCopy, CursorCopy)]) -> Result<(), Fault> {
        for ((conv, reader), told, now) in due {
            if now.recv > told.recv {
                self.tell_senders(conv, reader, "recv", told.recv, now.recv)?;
            }
            if now.read > told.read {
                self.tell_senders(conv, reader, "read", told.read, now.read)?;
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
        if let Some(known) = self.memory.tails.senders(conv, from, to) {
            return Ok(known.filter(|sender| ***sender != *reader).cloned().collect());
        }
        let is_pair = conv.kind() == ConvKind::User;
        if is_pair && let Some(has_sent) = self.peer_has_sent(conv, reader, from, to)? {
            let peer = has_sent.then(|| Arc::from(conv.peer_of(reader)));
            return Ok(peer.into_iter().filter(|peer| **peer != *reader).collect());
        }
        let most = if is_pair { 1 } else { usize::MAX };
        let mut senders = BTreeSet::new();
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

    /// Whether the other of a pair has sent any of the messages `from` to `to`, if the head says
    /// so: it knows of each user's last one, unless that is void now.
    fn peer_has_sent(
        &mut self,
        pair: &ConvKey,
        reader: &str,
        from: u64,
        to: u64,
    ) -> Result<Option<bool>, StoreError> {
        let head = self.head(pair)?;
        let last = head.own_of(pair, pair.peer_of(reader));
        Ok((last > 0 && last <= to && head.voids == 0).then_some(last >= from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;
    use crate::settings::ImSettings;

    #[test]
    fn receipts_of_a_reader_are_merged_to_one_a_second() {
        let conv = ConvKey::pair("default", "alice", "bob");
        let (mut receipts, bob) = (Receipts::default(), Arc::from("bob"));
        let at = |recv| CursorCopy { recv, read: 0 };
        receipts.moved(&conv, &bob, at(0), at(1));
        assert_eq!(receipts.next_timeout(), Some(0));
        let due = receipts.take_due(1_000);
        assert_eq!(due, [((conv.clone(), bob.clone()), at(0), at(1))]);
        for n in 2..9 {
            receipts.moved(&conv, &bob, at(n - 1), at(n));
        }
        assert_eq!(receipts.take_due(1_500), []);
        let due = receipts.take_due(2_000);
        assert_eq!(due, [((conv.clone(), bob.clone()), at(1), at(8))]);
        assert_eq!(receipts.take_due(3_000), [], "nothing new: forgotten");
        assert_eq!(receipts.next_timeout(), None);
    }

    /// After a start nobody remembers who has said what: heads and entries say the same.
    #[test]
    fn senders_are_told_also_of_what_nobody_remembers() {
        let mut rig = Rig::new(ImSettings::default());
        let told_by = |rig: &mut Rig, who: &str, wire: &str, seq| {
            rig.crash();
            rig.notices.clear();
            rig.read(who, wire, seq);
            rig.pass(2_000);
            let notices = std::mem::take(&mut rig.notices).into_iter();
            let told = notices.filter(|(_, topic, _)| topic.contains("/receipt/"));
            let told = told.filter(|(_, topic, _)| topic.contains("/read/"));
            told.map(|(to, topic, _)| format!("{to} {topic}")).collect::<Vec<_>>()
        };
        let to_alice = |seq: u64| [format!("alice im/me/sys/receipt/u/bob/read/{seq}/bob")];
        for text in ["1", "2", "3"] {
            rig.send("alice", "u/bob", text).unwrap();
        }
        assert_eq!(told_by(&mut rig, "bob", "u/alice", 1), to_alice(1), "before her last");
        assert_eq!(told_by(&mut rig, "bob", "u/alice", 3), to_alice(3), "her last");
        rig.recall("alice", "u/bob", 3).unwrap();
        assert_eq!(told_by(&mut rig, "bob", "u/alice", 4), [""; 0], "an event");
        rig.send("alice", "u/bob", "5").unwrap();
        rig.recall("alice", "u/bob", 5).unwrap();
        assert_eq!(told_by(&mut rig, "bob", "u/alice", 6), [""; 0], "what is void");
        rig.send("carol", "u/carol", "note").unwrap();
        assert_eq!(told_by(&mut rig, "carol", "u/carol", 1), [""; 0], "to oneself");
    }

    #[test]
    fn thousands_of_readers_are_told_of_in_portions() {
        let conv = ConvKey::group("default", "team");
        let mut receipts = Receipts::default();
        for n in 0..2 * MOST_AT_ONCE + 1 {
            let (from, to) = (CursorCopy::default(), CursorCopy { recv: 1, read: 0 });
            receipts.moved(&conv, &format!("u{n}").into(), from, to);
        }
        for expected in [MOST_AT_ONCE, MOST_AT_ONCE, 1] {
            assert_eq!(receipts.next_timeout(), Some(0));
            assert_eq!(receipts.take_due(1_000).len(), expected);
        }
        assert_eq!(receipts.next_timeout(), Some(2_000));
        receipts.defer(5_000);
        receipts.moved(&conv, &"late".into(), CursorCopy::default(), CursorCopy::default());
        assert_eq!(receipts.next_timeout(), Some(5_000), "under load nothing is told before");
    }

    #[test]
    fn after_a_clock_was_set_back_the_next_that_moves_frees_the_others() {
        let (mut receipts, conv) = (Receipts::default(), ConvKey::group("default", "team"));
        let at = |recv| CursorCopy { recv, read: 0 };
        receipts.moved(&conv, &"bob".into(), at(0), at(1));
        assert_eq!(receipts.take_due(1_000_000).len(), 1);
        receipts.moved(&conv, &"bob".into(), at(1), at(2));
        receipts.moved(&conv, &"carol".into(), at(0), at(1));
        assert_eq!(receipts.take_due(5_000).len(), 2);
    }
}
