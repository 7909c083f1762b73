//! What one shard tells or owes another, and what it does when it is told.
//!
//! What is owed stands in the outbox until the other shard has applied it; what is told may be lost
//! in a crash. Deliberately not here: the rules behind it, and carrying letters between shards.

use hoopoe_core::Slot;
use hoopoe_store::kv::Family;

use super::{ImShard, MOST_WAITING, Work};
use crate::command::{Forward, User};
use crate::conversation::own::WAIT_MS;
use crate::effect::Effect;
use crate::keys;
use crate::refusal::{Fault, Refusal, Word};
use crate::rows;
use crate::settings::ImSettings;

/// Whether a slot is one of this shard's.
fn is_mine(slot: Slot, (shard, shards): (u16, u16)) -> bool {
    slot.shard(shards.into()) == usize::from(shard)
}

/// Whether a user's rows are this shard's, at this site.
fn is_home(settings: &ImSettings, user: &User, place: (u16, u16)) -> bool {
    let sites = settings.sites.as_ref();
    is_mine(user.slot(), place) && sites.is_none_or(|sites| sites.elsewhere(user).is_none())
}

impl ImShard {
    /// What was said in the batch is committed: of users of this shard it stands among the moves
    /// of their cursors, as if it had been told as late as to other shards.
    pub(super) fn own_sends_committed(&mut self) {
        let ImShard { shard, shards, settings, memory, .. } = self;
        let place = (*shard, *shards);
        let mut fresh = memory.own.take_fresh();
        for own in fresh.drain(..) {
            if is_home(settings, &own.user, place) {
                let at_ms = own.at_ms + WAIT_MS;
                memory.lazy.own_send(at_ms, own.user, own.conv, own.seq, own.count);
            } else {
                memory.own.owe(own);
            }
        }
        memory.own.keep_room(fresh);
    }
}

impl Work<'_> {
    /// Whether a user's rows are this shard's.
    pub(crate) fn is_own_user(&self, user: &User) -> bool {
        is_home(self.settings, user, (self.shard, self.shards))
    }

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
                self.cursors_moved(&conv, &user, recv, read).map(|_| ())
            }
            Forward::Pair { conv, user, blocks, friends } => {
                self.pair_changed(&conv, &user, blocks, friends)
            }
            Forward::Erase { conv, user } => self.erase_begins(&conv, &user),
            Forward::Roster(step) => self.roster_step(&step),
            Forward::Watch(step) => self.watch_step(&step),
        }
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

    /// Tells another shard something that may be lost in a crash. A conversation of this shard
    /// hears of cursors in the batch that moves them.
    pub(crate) fn tell(&mut self, forward: Forward) {
        if let Forward::Cursors { conv, user, recv, read } = &forward
            && is_mine(forward.slot(), (self.shard, self.shards))
            && self.forward_home(&forward).is_none()
        {
            let moved = self.cursors_moved(conv, user, *recv, *read).map(drop);
            self.note_fault(moved);
            return;
        }
        self.txn.effect(Effect::Forward { outbox: None, forward: Box::new(forward) });
    }
}
