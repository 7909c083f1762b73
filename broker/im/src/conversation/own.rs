//! What senders have said lately, owed to their own lists: a sender's cursors pass the own message
//! (ruling 22).
//!
//! Where the conversation keeps a copy of its members' cursors, the copy that is committed with
//! the message says so already, and whoever reads a list looks at it: the list itself is told within
//! a second, once for all messages meanwhile. What is owed here may be lost.

use std::sync::Arc;

use foldhash::HashMap;

use crate::command::{Forward, User};
use crate::id::ConvKey;
use crate::refusal::Fault;
use crate::shard::Work;

/// How long a list waits for it.
pub(crate) const WAIT_MS: u64 = 500;
/// Senders that are remembered; beyond it their lists are told at once.
const MOST: usize = 65_536;

/// Messages of a batch for which room is kept for the next one.
const ROOM_KEPT: usize = 1_024;

/// A message, as its sender's list is to hear of it.
#[derive(Debug)]
pub(crate) struct Own {
    /// When it was said.
    pub(crate) at_ms: u64,
    pub(crate) user: User,
    pub(crate) conv: ConvKey,
    pub(crate) seq: u64,
    /// Countable messages up to it.
    pub(crate) count: u64,
}

/// Last own messages by conversation and sender.
#[derive(Debug, Default)]
pub(crate) struct OwnSends {
    /// Said in the present batch, which may be lost.
    fresh: Vec<Own>,
    /// What lists of other shards are owed.
    last: HashMap<(ConvKey, Arc<str>), Last>,
    since_ms: Option<u64>,
}

/// A sender's last message.
#[derive(Clone, Copy, Debug)]
struct Last {
    seq: u64,
    /// Countable messages up to it.
    count: u64,
}

impl OwnSends {
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.since_ms.map(|since| if self.last.len() < MOST { since + WAIT_MS } else { 0 })
    }

    /// A message of the present batch.
    pub(crate) fn add(&mut self, own: Own) {
        self.fresh.push(own);
    }

    /// The batch is committed: what was said in it.
    pub(crate) fn take_fresh(&mut self) -> Vec<Own> {
        std::mem::take(&mut self.fresh)
    }

    /// Room for what the next batch says.
    pub(crate) fn keep_room(&mut self, mut room: Vec<Own>) {
        room.shrink_to(ROOM_KEPT);
        self.fresh = room;
    }

    /// The batch is lost.
    pub(crate) fn forget(&mut self) {
        self.fresh.clear();
    }

    /// A list of another shard is to hear of it.
    pub(crate) fn owe(&mut self, own: Own) {
        let Own { at_ms, user, conv, seq, count } = own;
        self.since_ms.get_or_insert(at_ms);
        self.last.insert((conv, user.id), Last { seq, count });
    }
}

impl Work<'_> {
    /// Tells senders' lists what has been sent since the last time.
    pub(crate) fn tell_own_sends(&mut self) -> Result<(), Fault> {
        self.memory.own.since_ms = None;
        let mut owed: Vec<_> = std::mem::take(&mut self.memory.own.last).into_iter().collect();
        // Same inputs, same order of effects.
        owed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for ((conv, user), Last { seq, count }) in owed {
            let tenant = conv.tenant().into();
            self.tell(Forward::OwnSend { tenant, user, conv, seq, count });
        }
        Ok(())
    }
}
