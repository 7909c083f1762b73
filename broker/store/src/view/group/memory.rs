//! What groups that are not stored hold, all of a shard's together, bounded by what one queue may
//! hold. Who has the most waiting gives way first: many that hoard take from each other, not from
//! one that holds little. What is in delivery cannot be dropped: the more of it there is, the less
//! a member is given at a time.

use std::collections::BTreeSet;

use hoopoe_core::SessionId;

use super::ShardView;
use crate::effect::Effect;
use crate::log::PendingBatch;

/// Of half of the sum, what is not in delivery yet in so many parts: no member has more than one of
/// them of a group, or one entry.
const MEMBER_PARTS: u64 = 8;

/// What a group holds in memory; nothing when it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Share {
    /// All its entries.
    pub(super) bytes: u64,
    /// Those that members have.
    pub(super) held: u64,
}

impl Share {
    /// The order of magnitude of what waits, in powers of two; 0 is nothing.
    fn rank(self) -> u32 {
        u64::BITS - self.bytes.saturating_sub(self.held).leading_zeros()
    }
}

/// What all groups in memory hold.
#[derive(Debug, Default)]
pub(super) struct Memory {
    sum: Share,
    /// Groups in which something waits, by rank.
    ranked: BTreeSet<(u32, SessionId)>,
}

impl Memory {
    /// A group holds something else than before.
    pub(super) fn change(&mut self, id: SessionId, before: Share, after: Share) {
        if before == after {
            return;
        }
        debug_assert!(self.sum.bytes >= before.bytes && self.sum.held >= before.held);
        self.sum.bytes = self.sum.bytes.saturating_sub(before.bytes) + after.bytes;
        self.sum.held = self.sum.held.saturating_sub(before.held) + after.held;
        let (was, is) = (before.rank(), after.rank());
        if was == is {
            return;
        }
        if was > 0 {
            self.ranked.remove(&(was, id));
        }
        if is > 0 {
            self.ranked.insert((is, id));
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.sum.bytes
    }

    /// What a member may have of a group where all groups may hold `most`.
    pub(super) fn member_part(&self, most: u64) -> u64 {
        (most / 2).saturating_sub(self.sum.held) / MEMBER_PARTS
    }

    /// Who has the most waiting, and another with as much.
    fn largest(&self) -> (Option<SessionId>, Option<SessionId>) {
        let mut ranked = self.ranked.iter().rev();
        let Some((rank, id)) = ranked.next() else { return (None, None) };
        let other = ranked.next().filter(|(other, _)| other == rank);
        (Some(*id), other.map(|(_, id)| *id))
    }
}

impl ShardView {
    /// The oldest entries that nobody has, of the groups in memory with the most, make room; an
    /// entry that has just come only where no other group has as much.
    pub(in crate::view) fn shorten_largest(
        &mut self,
        newest: Option<(SessionId, u64)>,
        batch: &mut PendingBatch,
    ) {
        let mut dropped: Option<(SessionId, u64)> = None;
        while self.groups.memory().bytes() > self.settings.queue_max_bytes {
            let (first, other) = self.groups.memory().largest();
            let oldest = |id: SessionId| Some((id, self.groups.get(id)?.first_waiting()?));
            let Some(mut entry) = first.and_then(oldest) else { break };
            if newest == Some(entry) {
                entry = other.and_then(oldest).unwrap_or(entry);
            }
            let (id, seq) = entry;
            let bytes = self.groups.get(id).and_then(|group| group.content(seq));
            let bytes = bytes.map_or(0, |content| content.bytes());
            self.groups.change(id, |group| group.take(seq));
            self.finish_entry(id, seq, bytes, batch);
            match &mut dropped {
                Some((of, messages)) if *of == id => *messages += 1,
                before => {
                    overflowed(before.take(), batch);
                    dropped = Some((id, 1));
                }
            }
        }
        overflowed(dropped, batch);
    }

    /// With [`Overflow::Refuse`](crate::settings::Overflow::Refuse): a group in memory may hold as
    /// much as is left of the sum, so that what it leaves is always for others.
    pub(super) fn is_memory_full(&self, holds: u64, weight: u64) -> bool {
        let left = self.settings.queue_max_bytes.saturating_sub(self.groups.memory().bytes());
        holds + weight > left
    }
}

fn overflowed(dropped: Option<(SessionId, u64)>, batch: &mut PendingBatch) {
    if let Some((session, messages)) = dropped {
        batch.effect(Effect::Overflowed { session, messages });
    }
}

#[cfg(test)]
impl super::Groups {
    /// Bytes of groups in memory and those of them in delivery, which are what a recount gives.
    pub(in crate::view) fn counted(&self) -> (u64, u64) {
        let (mut sum, mut ranked) = (Share::default(), BTreeSet::new());
        for id in self.ids() {
            let Some(group) = self.get(id).filter(|group| !group.durable) else { continue };
            let bytes: u64 = group.contents().map(|(_, content)| content.bytes()).sum();
            let held = group.members().flat_map(|member| member.held.iter());
            let share = Share { bytes, held: held.map(|(_, held)| held.bytes).sum() };
            (sum.bytes, sum.held) = (sum.bytes + share.bytes, sum.held + share.held);
            assert_eq!(group.first_waiting().is_some(), share.rank() > 0, "{group:?}");
            if share.rank() > 0 {
                ranked.insert((share.rank(), id));
            }
        }
        let kept = self.memory();
        assert_eq!((kept.sum, &kept.ranked), (sum, &ranked));
        (sum.bytes, sum.held)
    }
}
