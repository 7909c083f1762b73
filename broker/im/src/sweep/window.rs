//! The window of deduplication (ruling 20): results of sends older than it, or beyond the newest
//! of a sender in a conversation, are forgotten; so are those of QoS 2 publications whose session
//! is gone.

use std::collections::BTreeMap;

use hoopoe_core::SessionId;
use hoopoe_store::kv::Family;

use super::{Budget, Row};
use crate::refusal::Fault;
use crate::rows::{Row as _, Sent};
use crate::shard::Work;

/// The newest results of the sender that the walk is at. Bounded by the number remembered.
#[derive(Debug, Default)]
pub(super) struct Newest {
    /// What the keys begin with: conversation and sender.
    sender: Vec<u8>,
    /// Keys by seq.
    kept: BTreeMap<u64, Vec<u8>>,
}

impl Newest {
    /// One more result of a sender. Gives the seq and key of the oldest when it is one too many.
    fn add(&mut self, key: &[u8], seq: u64, most: usize) -> Option<(u64, Vec<u8>)> {
        let sender = key.iter().rposition(|byte| *byte == 0).map_or(key, |end| &key[..=end]);
        if self.sender != sender {
            self.kept.clear();
            self.sender = sender.to_vec();
        }
        self.kept.insert(seq, key.to_vec());
        if self.kept.len() > most { self.kept.pop_first() } else { None }
    }
}

impl Work<'_> {
    pub(super) fn sweep_sent(
        &mut self,
        key: &[u8],
        row: &[u8],
        budget: &mut Budget,
    ) -> Result<Row, Fault> {
        let sent = Sent::decode(key, row)?;
        if sent.ts_ms + self.settings.dedup_secs * 1000 <= self.now_ms {
            self.forget_sent(key, sent.seq, budget)?;
        } else if self.settings.dedup_entries > 0 {
            let most = self.settings.dedup_entries;
            if let Some((seq, key)) = self.memory.sweep.window.add(key, sent.seq, most) {
                self.forget_sent(&key, seq, budget)?;
            }
        }
        Ok(Row::Done)
    }

    /// Removes a result, unless it has been written anew since.
    fn forget_sent(&mut self, key: &[u8], seq: u64, budget: &mut Budget) -> Result<(), Fault> {
        let row = self.txn.get(Family::Im, key)?;
        let now = row.map(|row| Sent::decode(key, &row)).transpose()?;
        if now.is_some_and(|now| now.seq == seq) {
            self.txn.delete(Family::Im, key);
            budget.removed(1);
        }
        Ok(())
    }

    /// The results of a QoS 2 session go with it.
    pub(super) fn sweep_marked(&mut self, key: &[u8], budget: &mut Budget) -> Result<Row, Fault> {
        budget.look();
        let end = key.len().saturating_sub(2);
        let session = SessionId(crate::keys::seq_of(&key[..end]));
        if !self.txn.has_session(session)? {
            self.txn.delete(Family::Im, key);
            budget.removed(1);
        }
        Ok(Row::Done)
    }

    /// The walk has passed the last sender.
    pub(super) fn window_ends(&mut self) {
        self.memory.sweep.window = Newest::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_sender_are_kept() {
        let mut newest = Newest::default();
        let mut gone = Vec::new();
        for (key, seq) in [
            ("x\0alice\0c", 7),
            ("x\0alice\0d", 3),
            ("x\0alice\0e", 9),
            ("x\0alice\0f", 1),
            ("x\0bob\0a", 2),
            ("x\0bob\0b", 4),
        ] {
            gone.extend(newest.add(key.as_bytes(), seq, 2).map(|(seq, _)| seq));
        }
        assert_eq!(gone, [3, 1]);
    }
}
