//! Cursor moves that are written at most a second late (ruling 21): what devices acknowledge, and
//! a sender's own messages. Losing the last second repeats deliveries; it loses nothing.

use std::sync::Arc;

use foldhash::HashMap;
use smallvec::SmallVec;

use crate::command::{DeviceMove, Progress, User};
use crate::id::ConvKey;

/// How old a move gets before it is written.
pub const LAZY_MS: u64 = 1_000;

/// Moves that are written in one go: what else has come to the shard is not to wait for thousands.
const MOST_AT_ONCE: usize = 256;

/// Moves of one user in one conversation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Moves {
    /// Received by a device.
    pub(crate) recv: u64,
    /// The user's own last message, with the countable messages up to it.
    pub(crate) own: Option<(u64, u64)>,
    /// Cursors of stored devices.
    pub(crate) devices: SmallVec<[(Arc<str>, u64); 1]>,
}

impl Moves {
    fn merge(&mut self, other: Moves) {
        let Moves { recv, own, devices } = other;
        self.recv = self.recv.max(recv);
        self.own = self.own.max(own);
        for (client, cursor) in devices {
            self.device_at(&client, cursor);
        }
    }

    fn device_at(&mut self, client: &Arc<str>, cursor: u64) {
        match self.devices.iter_mut().find(|(known, _)| known == client) {
            Some((_, device)) => *device = (*device).max(cursor),
            None => self.devices.push((client.clone(), cursor)),
        }
    }
}

/// A user's conversations with moves.
type OfUser = HashMap<ConvKey, Moves>;

/// Moves of the users of a shard.
#[derive(Debug, Default)]
pub(crate) struct Lazy {
    moves: HashMap<User, OfUser>,
    since_ms: Option<u64>,
    /// Moves that are due, and are being written in portions. What moves meanwhile waits for the
    /// next time.
    due: HashMap<User, OfUser>,
    /// What the batch under way writes.
    flushed: Vec<((User, ConvKey), Moves)>,
}

impl Lazy {
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        if !self.due.is_empty() {
            return Some(0);
        }
        self.since_ms.map(|since| since + LAZY_MS)
    }

    fn of(&mut self, now_ms: u64, user: User) -> &mut OfUser {
        self.since_ms.get_or_insert(now_ms);
        self.moves.entry(user).or_default()
    }

    /// The user has sent a message.
    pub(crate) fn own_send(
        &mut self,
        now_ms: u64,
        user: User,
        conv: ConvKey,
        seq: u64,
        count: u64,
    ) {
        let moves = self.of(now_ms, user).entry(conv).or_default();
        moves.own = moves.own.max(Some((seq, count)));
    }

    /// A device has acknowledged.
    pub(crate) fn progress(&mut self, now_ms: u64, progress: &Progress) {
        let of_user = self.of(now_ms, progress.user.clone());
        for DeviceMove { conv, cursor, recv } in &progress.moves {
            let moves = of_user.entry(conv.clone()).or_default();
            moves.recv = moves.recv.max(*recv);
            if progress.stored {
                moves.device_at(&progress.client, *cursor);
            }
        }
    }

    /// How much the batch under way writes.
    pub(crate) fn mark(&self) -> usize {
        self.flushed.len()
    }

    /// The batch is committed.
    pub(crate) fn written(&mut self) {
        self.flushed.clear();
    }

    /// What was taken out since `mark` is not written after all. It waits for its time again, and
    /// so does what was to be written next.
    pub(crate) fn take_back(&mut self, now_ms: u64, mark: usize) {
        let back = self.flushed.split_off(mark);
        if back.is_empty() {
            return;
        }
        for ((user, conv), moves) in back {
            self.of(now_ms, user).entry(conv).or_default().merge(moves);
        }
        for (user, convs) in std::mem::take(&mut self.due) {
            let kept = self.of(now_ms, user);
            for (conv, moves) in convs {
                kept.entry(conv).or_default().merge(moves);
            }
        }
    }

    /// True when nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.due.is_empty()
    }

    /// Takes out the moves of one user, or of those that are due as many as go in one go, to be
    /// written.
    pub(crate) fn take(&mut self, only: Option<&User>) -> Vec<((User, ConvKey), Moves)> {
        let taken = self.take_out(only);
        self.flushed.extend(taken.iter().cloned());
        taken
    }

    /// In the order of users and conversations.
    fn take_out(&mut self, only: Option<&User>) -> Vec<((User, ConvKey), Moves)> {
        let mut taken: Vec<(User, OfUser)> = match only {
            Some(user) => self.take_of(user).into_iter().collect(),
            None => self.take_some(),
        };
        if self.moves.is_empty() {
            self.since_ms = None;
        }
        taken.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let moves = taken.into_iter().flat_map(|(user, convs)| {
            let mut convs: Vec<(ConvKey, Moves)> = convs.into_iter().collect();
            convs.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            convs.into_iter().map(move |(conv, moves)| ((user.clone(), conv), moves))
        });
        moves.collect()
    }

    fn take_of(&mut self, user: &User) -> Option<(User, OfUser)> {
        let of_user = self.moves.remove_entry(user);
        let Some((user, due)) = self.due.remove_entry(user) else { return of_user };
        let mut convs = of_user.map(|(_, convs)| convs).unwrap_or_default();
        for (conv, moves) in due {
            convs.entry(conv).or_default().merge(moves);
        }
        Some((user, convs))
    }

    /// The moves of some users, whole.
    fn take_some(&mut self) -> Vec<(User, OfUser)> {
        if self.due.is_empty() {
            std::mem::swap(&mut self.moves, &mut self.due);
        }
        let mut count = 0;
        let enough = self.due.values().take_while(|convs| {
            let more = count < MOST_AT_ONCE;
            count += convs.len();
            more
        });
        let users = enough.count();
        self.due.extract_if(|_, _| true).take(users).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn thousands_of_moves_are_written_in_portions_and_none_is_left() {
        let mut lazy = Lazy::default();
        let user = |n: usize| User { tenant: "default".into(), id: format!("u{n}").into() };
        for n in 0..4 * MOST_AT_ONCE {
            let conv = ConvKey::pair("default", "alice", &format!("u{n}"));
            lazy.own_send(1_000, user(n / 2), conv, n as u64, 1);
        }
        let (mut written, mut seqs) = (0, BTreeSet::new());
        assert_eq!(lazy.next_timeout(), Some(1_000 + LAZY_MS));
        while written == 0 || lazy.next_timeout() == Some(0) {
            let taken = lazy.take(None);
            assert!((1..=MOST_AT_ONCE + 1).contains(&taken.len()));
            assert!(taken.is_sorted_by_key(|(place, _)| place.clone()));
            seqs.extend(taken.iter().filter_map(|(_, moves)| moves.own));
            written += taken.len();
        }
        assert_eq!((written, seqs.len()), (4 * MOST_AT_ONCE, 4 * MOST_AT_ONCE));
        assert_eq!(lazy.next_timeout(), None);
        assert!(lazy.is_empty());
        // The batch is lost: all of it waits again.
        lazy.take_back(5_000, 0);
        assert_eq!(lazy.next_timeout(), Some(5_000 + LAZY_MS));
        lazy.take(None);
        // What moves while portions are written is not among them.
        let (conv, late) = (ConvKey::pair("default", "alice", "bob"), user(usize::MAX));
        lazy.own_send(6_000, late.clone(), conv, 9, 9);
        assert!(lazy.take(None).iter().all(|((user, _), _)| *user != late));
        assert_eq!(lazy.take(Some(&late)).len(), 1);
        assert_eq!(lazy.next_timeout(), Some(0), "there is more to write");
        lazy.take_back(7_000, 0);
        assert_eq!(lazy.next_timeout(), Some(7_000 + LAZY_MS), "not again and again");
    }
}
