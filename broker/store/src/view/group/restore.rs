//! Reading groups back: at the start, and after a commit that failed.

use std::ops::{Bound, ControlFlow};

use hoopoe_codec::QoS;
use hoopoe_core::SessionId;

use super::ShardView;
use super::state::{Group, Groups, Held, MemberState};
use crate::command::Source;
use crate::error::StoreError;
use crate::keys::{self, session_kind};
use crate::kv::{Family, Span};
use crate::rows::{self, EntryContent, ProgressRow};
use crate::view::RestoredGroup;
use crate::view::queue::ENTRY_OVERHEAD;

/// Entries of a queue in order, with what each weighs.
type Entries = Vec<(u64, u64)>;

impl ShardView {
    /// Puts groups that were read back into their place. `known` is what they were before a
    /// failed commit: who is connected and has what is known from there, and groups that live in
    /// memory only live on.
    pub(in crate::view) fn settle_groups(
        &mut self,
        known: &mut Groups,
    ) -> Result<Vec<RestoredGroup>, StoreError> {
        for id in self.groups.ids() {
            let (entries, head, weight) = self.read_entries(id)?;
            let Some(mut group) = self.groups.remove(id) else { continue };
            group.durable = true;
            match known.get(id) {
                Some(before) => self.settle_known(id, &mut group, before, entries, head, weight)?,
                None => {
                    self.hand_back(id, &mut group, &entries)?;
                    group.set_queue(&entries, head, weight);
                }
            }
            self.queued.messages += group.load.messages;
            self.queued.bytes += group.load.bytes;
            self.floors.insert(id, group.floor());
            self.groups.insert(id, group);
        }
        // From here on nothing fails.
        for id in known.ids() {
            if self.groups.get(id).is_some() {
                continue;
            }
            let Some(mut group) = known.remove(id) else { continue };
            if !group.durable || group.stays_in_memory() {
                self.floors.insert(id, 0);
                self.groups.insert(id, group);
            }
        }
        let ids = self.groups.ids();
        let groups = ids.into_iter().filter_map(|id| self.groups.get(id));
        Ok(groups
            .map(|group| RestoredGroup {
                route: group.route.clone(),
                share: group.share.clone(),
                filter: group.filter.clone(),
            })
            .collect())
    }

    /// After a failed commit: what is known of members holds, what is stored of entries holds.
    fn settle_known(
        &mut self,
        id: SessionId,
        group: &mut Group,
        before: &Group,
        entries: Entries,
        head: u64,
        weight: u64,
    ) -> Result<(), StoreError> {
        group.route = before.route.clone();
        let stored = |seq: &u64| entries.binary_search_by_key(seq, |(seq, _)| *seq).is_ok();
        // Whose row has come back had left, who has none had joined, unless the session's part of it
        // failed as well.
        for (subscriber, session) in group.stored_members() {
            if before.member(subscriber).is_none() && !self.is_subscribed(session, group)? {
                self.orphans.push((id, subscriber));
            }
        }
        for (subscriber, session) in before.stored_members() {
            if group.member(subscriber).is_none() && !self.is_subscribed(session, group)? {
                self.orphans.push((id, subscriber));
            }
        }
        for member in before.members() {
            let mut member: MemberState = member.clone();
            let row = group.member(member.member.subscriber).map(MemberState::row);
            member.written = row == Some(member.row());
            member.held.keep(|seq, _| stored(&seq));
            group.put_member(member);
        }
        // Finished before the failure: the rows are only not removed yet.
        let (open, finished): (Entries, Entries) =
            entries.iter().partition(|(seq, _)| before.is_open(*seq) || *seq > before.head);
        self.finished.extend(finished.into_iter().map(|(seq, _)| (id, seq)));
        group.set_queue(&open, head.max(before.floor()), weight);
        Ok(())
    }

    /// Whether a session is subscribed to what the group is for.
    fn is_subscribed(&self, session: SessionId, group: &Group) -> Result<bool, StoreError> {
        let filter = format!("$share/{}/{}", group.share, group.filter);
        Ok(self.kv.get(Family::Session, &keys::subscription(session, &filter))?.is_some())
    }

    /// After a start: members have what their sessions' exchanges name; members whose
    /// subscription is gone finish that, and are none any more.
    ///
    /// An entry may be finished although its exchange is still there: that is removed lazily, in
    /// another shard. Nobody has such an entry, or it would be finished twice.
    fn hand_back(
        &mut self,
        id: SessionId,
        group: &mut Group,
        entries: &Entries,
    ) -> Result<(), StoreError> {
        for (subscriber, session) in group.stored_members() {
            if !self.is_subscribed(session, group)? {
                self.orphans.push((id, subscriber));
            }
            for seq in self.exchanges_with(session, id)? {
                let Ok(at) = entries.binary_search_by_key(&seq, |(seq, _)| *seq) else { continue };
                let held = Held { qos: QoS::ExactlyOnce, bytes: entries[at].1 };
                group.with_member(subscriber, |member| member.held.insert(seq, held));
            }
        }
        Ok(())
    }

    /// Entries of a group that are in delivery to a session.
    fn exchanges_with(&self, session: SessionId, of: SessionId) -> Result<Vec<u64>, StoreError> {
        let from = keys::session(session, session_kind::EXCHANGE);
        let to = keys::session(session, session_kind::EXCHANGE + 1);
        let mut found = Ok(Vec::new());
        self.kv.scan(Family::Session, Span::half_open(&from, &to), &mut |key, value| match (
            rows::read_exchange(value),
            &mut found,
        ) {
            (Ok(row), Ok(found)) => {
                if let Source::Group(group, seq) = row.in_flight.source
                    && group == of
                {
                    found.push(seq);
                }
                ControlFlow::Continue(())
            }
            (Err(what), found) => {
                *found = Err(rows::at(Family::Session, key)(what));
                ControlFlow::Break(())
            }
            (_, Err(_)) => ControlFlow::Break(()),
        })?;
        Ok(found?)
    }

    /// The entries of a group, the number of the last and the running total at it.
    fn read_entries(&self, id: SessionId) -> Result<(Entries, u64, u64), StoreError> {
        let (from, to) = (keys::queue(id, 0), keys::queue(id, u64::MAX));
        let span = Span { from: Bound::Included(&from), to: Bound::Included(&to), reverse: false };
        let mut entries = Vec::new();
        let key = keys::session(id, session_kind::PROGRESS);
        let known = match self.kv.get(Family::Session, &key)? {
            Some(row) => rows::read_progress(&row).map_err(rows::at(Family::Session, &key))?,
            None => ProgressRow::default(),
        };
        let (mut head, mut total) = (0, 0);
        let mut fault = None;
        self.kv.scan(Family::Queue, span, &mut |key, value| match rows::read_entry(value) {
            Ok(row) => {
                let seq = keys::queue_of(key).map_or(0, |(_, seq)| seq);
                let bytes = match row.content {
                    EntryContent::Inline(body) => body.len() as u64 + ENTRY_OVERHEAD,
                    EntryContent::Split(_) => row.weight.saturating_sub(total),
                };
                entries.push((seq, bytes));
                (head, total) = (seq, row.weight);
                ControlFlow::Continue(())
            }
            Err(what) => {
                fault = Some(rows::at(Family::Queue, key)(what));
                ControlFlow::Break(())
            }
        })?;
        let read = (entries, head.max(known.sent), total.max(known.weight));
        fault.map_or(Ok(read), |fault| Err(fault.into()))
    }
}
