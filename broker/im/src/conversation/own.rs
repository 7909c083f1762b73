//! What senders have said lately, owed to their own lists: a sender's cursors pass the own message
//! (ruling 22).
//!
//! Where the conversation keeps a copy of its members' cursors, the copy that is committed with
//! the message says so already, and whoever reads a list looks at it: the list itself is told half
//! a second later, once for all messages meanwhile. What is owed here may be lost.

use std::sync::Arc;

use foldhash::HashMap;

use crate::command::Forward;
use crate::id::ConvKey;
use crate::refusal::Fault;
use crate::shard::Work;

/// How long a list waits for it.
const WAIT_MS: u64 = 500;
/// Senders that are remembered; beyond it their lists are told at once.
const MOST: usize = 65_536;

/// Last own messages by conversation and sender.
#[derive(Debug, Default)]
pub(crate) struct OwnSends {
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

    pub(crate) fn add(
        &mut self,
        now_ms: u64,
        (conv, from): (&ConvKey, &Arc<str>),
        seq: u64,
        count: u64,
    ) {
        self.since_ms.get_or_insert(now_ms);
        self.last.insert((conv.clone(), from.clone()), Last { seq, count });
    }
}

impl Work<'_> {
    /// Tells senders' lists what has been sent since the last time.
    pub(crate) fn tell_own_sends(&mut self) -> Result<(), Fault> {
        self.memory.own.since_ms = None;
        let mut owed: Vec<_> = std::mem::take(&mut self.memory.own.last).into_iter().collect();
        // Same inputs, same order of effects.
        owed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for at in 0..owed.len() {
            let ((conv, user), Last { seq, count }) = owed[at].clone();
            let told = match self.cursor_copy(&conv, &user) {
                Ok(copy) => copy.read,
                Err(error) => {
                    self.memory.own.since_ms = Some(self.now_ms);
                    self.memory.own.last.extend(owed);
                    return Err(error.into());
                }
            };
            if told < seq {
                // The message was lost with its batch.
                continue;
            }
            let tenant = conv.tenant().into();
            self.tell(Forward::OwnSend { tenant, user, conv, seq, count });
        }
        Ok(())
    }
}
