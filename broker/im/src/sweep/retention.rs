//! Retention: conversations keep what their class says, by age, count and bytes; what is beyond
//! raises the conversation's `min`, and is gone with everything that belongs to it. Seqs go on.

use std::ops::ControlFlow;

use hoopoe_store::kv::Family;

use super::{Budget, Row};
use crate::conversation::read_entry;
use crate::effect::Effect;
use crate::group::GroupRow;
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind};
use crate::refusal::Fault;
use crate::rows::{Head, Row as _};
use crate::settings::Retention;
use crate::shard::Work;

/// Rows that belong to entries and go with them. Of reactions and edits there can be more than one
/// per entry.
const BELONGINGS: [u8; 6] = [
    conv_kind::VOID,
    conv_kind::AT_ALL,
    conv_kind::BURN,
    conv_kind::TALLY,
    conv_kind::EDIT,
    conv_kind::REACTION,
];

/// Entries that are to go: those below `min`.
#[derive(Default)]
struct Old {
    min: u64,
    /// Seq and bytes of each.
    entries: Vec<(u64, u64)>,
}

impl Work<'_> {
    /// Takes from a conversation what is beyond its retention.
    pub(super) fn retain(
        &mut self,
        key: &[u8],
        row: &[u8],
        budget: &mut Budget,
    ) -> Result<Row, Fault> {
        let name = keys::name_behind(key, &key[..3]);
        let Some(conv) = ConvKey::parse(name) else { return Ok(Row::Done) };
        let head = Head::decode(key, row)?;
        self.memory.sweep.alive_bytes += head.bytes;
        let kept = self.retention_of(&conv, budget)?;
        if !self.is_beyond(&conv, &head, kept, budget)? {
            return Ok(Row::Done);
        }
        let mut head = self.head(&conv)?;
        let mut old = self.old_entries(&conv, &head, kept, budget.removals)?;
        let (min, full) = (old.min, old.entries.len() >= budget.removals);
        let voids = self.drop_belongings(&conv, &mut old, budget)?;
        let more = full || old.min < min;
        let (mut entries, mut bytes) = (0, 0);
        for (seq, size) in old.entries.iter().filter(|(seq, _)| *seq < old.min) {
            self.txn.delete(Family::Log, &keys::entry(&conv, *seq));
            (entries, bytes) = (entries + 1, bytes + size);
        }
        budget.removed(entries as usize);
        head.min = head.min.max(old.min);
        head.bytes = head.bytes.saturating_sub(bytes);
        head.voids = head.voids.saturating_sub(voids);
        self.put_head(&conv, &head);
        self.txn.effect(Effect::Swept { entries, bytes });
        Ok(if more { Row::More } else { Row::Done })
    }

    /// What is kept of a conversation: that of its class (the profile, section 7).
    fn retention_of(&mut self, conv: &ConvKey, budget: &mut Budget) -> Result<Retention, Fault> {
        let big = match conv.kind() {
            ConvKind::User => false,
            ConvKind::Channel => true,
            // The same for all: no need to ask which.
            ConvKind::Group if self.settings.retention == self.settings.retention_big => true,
            ConvKind::Group => {
                budget.look();
                let key = keys::conv(conv, conv_kind::GROUP);
                let group = self.txn.json::<GroupRow>(&key)?;
                group.is_some_and(|group| group.members > self.settings.small_group_members)
            }
        };
        Ok(if big { self.settings.retention_big } else { self.settings.retention })
    }

    fn is_beyond(
        &mut self,
        conv: &ConvKey,
        head: &Head,
        kept: Retention,
        budget: &mut Budget,
    ) -> Result<bool, Fault> {
        if head.min > head.last {
            return Ok(false);
        }
        let count = head.last + 1 - head.min;
        if (kept.entries > 0 && count > kept.entries)
            || (kept.bytes > 0 && head.bytes > kept.bytes && count > 1)
        {
            return Ok(true);
        }
        if kept.age_secs == 0 {
            return Ok(false);
        }
        let is_old = |ts_ms: u64| ts_ms + kept.age_secs * 1000 < self.now_ms;
        if is_old(head.ts_ms) {
            return Ok(true);
        }
        budget.look();
        let row = self.txn.peek(Family::Log, &keys::entry(conv, head.min))?;
        let first = row.map(|row| read_entry(conv, head.min, &row)).transpose()?;
        Ok(first.is_some_and(|entry| is_old(entry.ts_ms)))
    }

    /// The entries that are beyond the retention, at most `most`, oldest first.
    fn old_entries(
        &mut self,
        conv: &ConvKey,
        head: &Head,
        kept: Retention,
        most: usize,
    ) -> Result<Old, Fault> {
        let mut old = Old { min: head.min, entries: Vec::new() };
        let (mut left, mut fault, mut stays) = (head.bytes, None, None);
        #[cfg(feature = "planted")]
        let kept = match hoopoe_core::planted::has(hoopoe_core::planted::Bug::KeepTooLittle) {
            true => Retention { entries: kept.entries.saturating_sub(3), ..kept },
            false => kept,
        };
        let (prefix, from) = (keys::log_prefix(conv), keys::entry(conv, head.min));
        let now_ms = self.now_ms;
        self.txn.scan(Family::Log, &prefix, &from, |key, row| {
            let seq = keys::seq_of(key);
            let entry = match read_entry(conv, seq, row) {
                Ok(entry) => entry,
                Err(error) => {
                    fault = Some(error);
                    return ControlFlow::Break(());
                }
            };
            // A message larger than all that is kept stays until the next comes.
            let goes = (kept.entries > 0 && head.last + 1 - seq > kept.entries)
                || (kept.bytes > 0 && left > kept.bytes && seq < head.last)
                || (kept.age_secs > 0 && entry.ts_ms + kept.age_secs * 1000 < now_ms);
            if !goes || old.entries.len() >= most {
                stays = Some(seq);
                return ControlFlow::Break(());
            }
            left = left.saturating_sub(entry.size());
            old.entries.push((seq, entry.size()));
            ControlFlow::Continue(())
        })?;
        if let Some(error) = fault {
            return Err(error.into());
        }
        old.min = stays.unwrap_or(head.last + 1);
        Ok(old)
    }

    /// Removes what belongs to old entries. When that is too much for one step, fewer of them go.
    /// Gives the number of void messages that went.
    fn drop_belongings(
        &mut self,
        conv: &ConvKey,
        old: &mut Old,
        budget: &mut Budget,
    ) -> Result<u64, Fault> {
        let most = budget.removals;
        for kind in BELONGINGS.into_iter().rev() {
            let (mut found, prefix) = (Vec::new(), keys::conv_prefix(conv, kind));
            let min = old.min;
            let mut cut = None;
            self.txn.scan(Family::Im, &prefix, b"", |key, _| {
                let seq = keys::seq_behind(key, &prefix);
                if seq >= min {
                    return ControlFlow::Break(());
                }
                if found.len() >= most {
                    cut = Some(seq);
                    return ControlFlow::Break(());
                }
                found.push(key.to_vec());
                ControlFlow::Continue(())
            })?;
            old.min = cut.unwrap_or(old.min);
            if matches!(kind, conv_kind::REACTION | conv_kind::EDIT) {
                budget.removed(found.len());
            }
            for key in &found {
                self.txn.delete(Family::Im, key);
            }
            if kind == conv_kind::VOID {
                return Ok(found.len() as u64);
            }
        }
        Ok(0)
    }
}
