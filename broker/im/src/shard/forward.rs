//! What one shard tells or owes another, and what it does when it is told.
//!
//! What is owed stands in the outbox until the other shard has applied it; what is told may be lost
//! in a crash. Deliberately not here: the rules behind it, and carrying letters between shards.

use std::sync::Arc;

use hoopoe_store::kv::Family;

use super::{MOST_WAITING, Work};
use crate::command::{Forward, User};
use crate::effect::Effect;
use crate::id::ConvKey;
use crate::keys;
use crate::refusal::{Fault, Refusal, Word};
use crate::rows::{self, CursorCopy};

impl Work<'_> {
    /// Does what another shard has told or owes.
    pub(crate) fn forwarded(&mut self, forward: Forward) -> Result<(), Fault> {
        match forward {
            Forward::Listed(listed) => self.listed(&listed),
            Forward::Mentioned { tenant, user, conv, seq } => {
                let wire = conv.wire(&user);
                let key = keys::mention(&tenant, &user, &wire, seq);
                self.txn.put(Family::Im, &key, vec![rows::VERSION]);
                Ok(())
            }
            Forward::OwnSend { tenant, user, conv, seq, count } => {
                let user = User { tenant, id: user };
                self.memory.lazy.own_send(self.now_ms, user, conv, seq, count);
                Ok(())
            }
            Forward::Cursors { conv, user, recv, read } => {
                self.cursors_told(&conv, &user, CursorCopy { recv, read })
            }
            Forward::Pair { conv, user, blocks, friends } => {
                self.pair_changed(&conv, &user, blocks, friends)
            }
            Forward::Erase { conv, user } => self.erase_begins(&conv, &user),
            Forward::Roster(step) => self.roster_step(&step),
            Forward::Watch(step) => self.watch_step(&step),
        }
    }

    /// A user's shard says it once, and may never say it again.
    pub(super) fn cursors_told(
        &mut self,
        conv: &ConvKey,
        user: &Arc<str>,
        at: CursorCopy,
    ) -> Result<(), Fault> {
        let moved = self.cursors_moved(conv, user, at.recv, at.read);
        if let Err(Fault::Store(_)) = &moved {
            self.memory.postponed.keep_cursors(conv.clone(), user.clone(), at);
            self.memory.postponed.defer(self.now_ms);
        }
        moved.map(drop)
    }

    /// Owes another shard something, until that shard has applied it.
    pub(crate) fn forward(&mut self, forward: Forward) {
        let number = self.memory.outbox_next;
        self.memory.outbox_next += 1;
        self.txn.put_json(&keys::outbox(self.shard, number), &forward);
        let forward = Box::new(forward);
        self.txn.effect(Effect::Forward { outbox: Some(number), forward });
    }

    /// Owes another shard something, and answers the present call only when that shard has
    /// applied it (ruling 26).
    pub(crate) fn forward_and_wait(&mut self, forward: Forward) -> Result<(), Fault> {
        if self.memory.waiting.len() >= MOST_WAITING {
            let text = "too many calls wait for other shards";
            return Err(Refusal::new(Word::Unavailable, text).into());
        }
        self.wait = Some(self.memory.outbox_next);
        self.forward(forward);
        Ok(())
    }

    /// Tells another shard something that may be lost in a crash.
    pub(crate) fn tell(&mut self, forward: Forward) {
        self.txn.effect(Effect::Forward { outbox: None, forward: Box::new(forward) });
    }
}
