//! What a batch of unknown outcome would have made heard (ruling 12). Once the rows have been read
//! again it is known what was written after all: devices hear of it then, because nobody sends it
//! to them later and nothing else may follow in the conversation.
//!
//! At most one batch is in doubt: nothing is written before the store was read again.
//!
//! Deliberately not here: answers, as whoever waited for one is cut off and asks again; what other
//! shards are owed, which the outbox keeps.

use hoopoe_store::{PendingBatch, StoreError};

use super::{ImShard, Work, due, owed, read_outbox};
use crate::conversation::expiry::Expiry;
use crate::effect::Effect;

impl ImShard {
    /// The batch that these effects rest on may have been written or not.
    pub fn doubt(&mut self, effects: Vec<Effect>) {
        self.memory.in_doubt.extend(effects);
    }

    /// The store was read again after a fault: what is owed to other shards is told once more, as
    /// nobody may have heard of it, what is due is read, and what was written after all is
    /// announced.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn recovered(&mut self) -> Result<Vec<Effect>, StoreError> {
        let outbox = read_outbox(self.rows.kv(), self.shard)?;
        let next = outbox.last().map_or(1, |(number, _)| number + 1);
        self.memory.outbox_next = self.memory.outbox_next.max(next);
        let (due, unlit) = due::load(self.rows.kv(), self.shard, self.shards)?;
        self.memory.due.extend(due);
        self.memory.unlit = unlit;
        self.memory.expiry = Expiry::unknown();
        let mut effects = owed(outbox);
        effects.extend(self.written_after_all()?);
        Ok(effects)
    }

    fn written_after_all(&mut self) -> Result<Vec<Effect>, StoreError> {
        let in_doubt = std::mem::take(&mut self.memory.in_doubt);
        #[cfg(feature = "planted")]
        if hoopoe_core::planted::has(hoopoe_core::planted::Bug::SilentRecovery) {
            return Ok(Vec::new());
        }
        // Only to be read through: nothing is put into it.
        let mut batch = PendingBatch::new();
        let mut work = self.work(0, &mut batch);
        let known: Result<Vec<_>, _> =
            in_doubt.iter().map(|effect| work.as_written(effect)).collect();
        match known {
            Ok(known) => Ok(known.into_iter().flatten().collect()),
            Err(error) => {
                self.memory.in_doubt = in_doubt;
                Err(error)
            }
        }
    }
}

impl Work<'_> {
    /// The effect by what the rows say now; nothing when its batch was not written.
    fn as_written(&mut self, effect: &Effect) -> Result<Option<Effect>, StoreError> {
        Ok(match effect {
            Effect::Entry(entry) => {
                let stored = self.entry(&entry.conv, entry.seq)?;
                let stored = stored.filter(|stored| stored.id == entry.id);
                stored.map(|stored| Effect::Entry(stored.into()))
            }
            Effect::EntryFor { user, entry } => {
                let stored = self.entry(&entry.conv, entry.seq)?;
                let stored = stored.filter(|stored| stored.id == entry.id);
                stored.map(|stored| Effect::EntryFor { user: user.clone(), entry: stored.into() })
            }
            Effect::Listed { user, conv, .. } => {
                let row = self.user_conv(user, conv)?;
                row.map(|row| Effect::Listed { user: user.clone(), conv: conv.clone(), row })
            }
            Effect::Skip { user, conv, through } => {
                let row = self.user_conv(user, conv)?;
                row.filter(|row| row.cleared >= *through).map(|_| effect.clone())
            }
            _ => None,
        })
    }
}
