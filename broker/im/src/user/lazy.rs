//! Cursor moves that are written at most a second late (ruling 21): what devices acknowledge, and
//! a sender's own messages. Losing the last second repeats deliveries; it loses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{DeviceMove, Progress, User};
use crate::id::ConvKey;
use foldhash::HashMap;

/// How old a move gets before it is written.
pub const LAZY_MS: u64 = 1_000;

/// Moves of one user in one conversation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Moves {
    /// Received by a device.
    pub(crate) recv: u64,
    /// The user's own last message, with the countable messages up to it.
    pub(crate) own: Option<(u64, u64)>,
    /// Cursors of stored devices.
    pub(crate) devices: BTreeMap<Arc<str>, u64>,
}

/// A user's conversations with moves.
type OfUser = HashMap<ConvKey, Moves>;

/// Moves of the users of a shard.
#[derive(Debug, Default)]
pub(crate) struct Lazy {
    moves: HashMap<User, OfUser>,
    since_ms: Option<u64>,
    /// What the batch under way writes.
    flushed: Vec<((User, ConvKey), Moves)>,
}

impl Lazy {
    pub(crate) fn next_timeout(&self) -> Option<u64> {
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
                let device = moves.devices.entry(progress.client.clone()).or_default();
                *device = (*device).max(*cursor);
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

    /// What was taken out since `mark` is not written after all.
    pub(crate) fn take_back(&mut self, now_ms: u64, mark: usize) {
        for ((user, conv), moves) in self.flushed.split_off(mark) {
            let Moves { recv, own, devices } = moves;
            let kept = self.of(now_ms, user).entry(conv).or_default();
            kept.recv = kept.recv.max(recv);
            kept.own = kept.own.max(own);
            for (client, cursor) in devices {
                let device = kept.devices.entry(client).or_default();
                *device = (*device).max(cursor);
            }
        }
    }

    /// Takes out the moves of one user, or all, to be written.
    pub(crate) fn take(&mut self, only: Option<&User>) -> Vec<((User, ConvKey), Moves)> {
        let taken = self.take_out(only);
        self.flushed.extend(taken.iter().cloned());
        taken
    }

    /// In the order of users and conversations.
    fn take_out(&mut self, only: Option<&User>) -> Vec<((User, ConvKey), Moves)> {
        let mut taken: Vec<(User, OfUser)> = match only {
            Some(user) => self.moves.remove_entry(user).into_iter().collect(),
            None => self.moves.drain().collect(),
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
}
