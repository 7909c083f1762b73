//! Shared-subscription groups: a queue of their own, whose entries go to one member each
//! (ruling 10).
//!
//! A group with a member whose session is stored has its queue stored; one whose members all end
//! with their connections lives in memory only and ends with the last of them. Who is connected
//! and holds what is in memory in both cases. Entries are removed one by one as members are done
//! with them, since they finish in any order.

mod dispatch;
mod memory;
mod restore;
mod state;

use std::sync::Arc;

use hoopoe_codec::{QoS, ReasonCode};
use hoopoe_core::{Location, Publication, SessionId};

use self::state::Held;
pub(super) use self::state::{Content, Group, Groups};
use super::{ShardView, queue};
use crate::command::{GroupCommand, Member, ReplyTo, group_slot};
use crate::effect::Effect;
use crate::error::StoreError;
use crate::keys::{self, session_kind};
use crate::kv::Family;
use crate::log::{After, PendingBatch};
use crate::rows::{self, GroupRow, MemberRow, ProgressRow};

impl ShardView {
    /// Carries out what a group is told.
    pub(super) fn group(&mut self, command: GroupCommand, batch: &mut PendingBatch) {
        match command {
            GroupCommand::Join { share, filter, member, reply } => {
                let id = self.find_or_make_group(share, filter, batch);
                self.join(id, member, &[], batch);
                if let Some(reply) = reply {
                    batch.committed(reply, ReasonCode::Success);
                }
                self.dispatch(id, batch);
            }
            GroupCommand::Leave { share, filter, subscriber, ended, reply } => {
                if let Some(id) = self.groups.named(&share, &filter) {
                    self.leave_group(id, subscriber, ended, batch);
                }
                if let Some(reply) = reply {
                    batch.committed(reply, ReasonCode::Success);
                }
            }
            GroupCommand::Online { group, member, keeps } => {
                if self.groups.get(group).is_some() {
                    self.join(group, member, &keeps, batch);
                    self.dispatch(group, batch);
                }
            }
            GroupCommand::Offline { group, subscriber, location, keeps } => {
                self.member_offline(group, subscriber, location, &keeps, batch);
            }
            GroupCommand::Done { group, subscriber, seq, reply } => {
                self.member_done(group, subscriber, seq, batch);
                if let Some(reply) = reply {
                    batch.committed(reply, ReasonCode::Success);
                }
            }
        }
    }

    fn find_or_make_group(
        &mut self,
        share: Arc<str>,
        filter: Arc<str>,
        batch: &mut PendingBatch,
    ) -> SessionId {
        if let Some(id) = self.groups.named(&share, &filter) {
            return id;
        }
        let id = SessionId(self.next_number(group_slot(&share, &filter)));
        let group = Group::new(id, share, filter);
        self.floors.insert(id, 0);
        batch.effect(Effect::GroupMade {
            route: group.route.clone(),
            share: group.share.clone(),
            filter: group.filter.clone(),
        });
        self.groups.insert(id, group);
        id
    }

    /// A member joins, renews its terms, or is connected again.
    fn join(&mut self, id: SessionId, member: Member, keeps: &[u64], batch: &mut PendingBatch) {
        self.orphans.retain(|orphan| *orphan != (id, member.subscriber));
        let Some(group) = self.groups.get(id) else { return };
        if let Some(session) = member.session {
            let row = MemberRow { session, options: member.options, identifier: member.identifier };
            // Of who is leaving the row goes with the last it has.
            let known = group.member(member.subscriber);
            let known = known.filter(|known| known.written && !known.leaving);
            let known = known.map(|known| known.row());
            if known != Some(Some(row)) {
                let key = keys::member(id, member.subscriber);
                batch.rows.put_with(Family::Session, &key, |out| rows::put_member(out, &row));
                batch.durable = true;
            }
        }
        let (subscriber, stored) = (member.subscriber, member.session.is_some());
        let durable = group.durable;
        self.groups.change(id, |group| {
            group.seat(member, keeps);
            group.with_member(subscriber, |member| member.written = stored);
        });
        if stored && !durable {
            self.make_durable(id, batch);
        }
    }

    /// From now on the group's queue is stored, with what is in it.
    fn make_durable(&mut self, id: SessionId, batch: &mut PendingBatch) {
        self.groups.change(id, |group| group.durable = true);
        let Some(group) = self.groups.get(id) else { return };
        batch.durable = true;
        let row = GroupRow { share: group.share.clone(), filter: group.filter.clone() };
        let key = keys::session(id, session_kind::GROUP);
        batch.rows.put_with(Family::Session, &key, |out| rows::put_group(out, &row));
        for (seq, content) in group.contents() {
            let key = keys::queue(id, seq);
            let head = queue::group_head(&content.publication, content.weight);
            batch.rows.put_with(Family::Queue, &key, |out| {
                rows::put_entry(out, &head, &content.publication);
            });
        }
        self.queued.messages += group.load.messages;
        self.queued.bytes += group.load.bytes;
        if group.head > 0 {
            // Numbers that were finished in memory.
            self.groups.touch(id);
        }
    }

    /// A member ends its subscription, or its session has `ended`.
    pub(super) fn leave_group(
        &mut self,
        id: SessionId,
        subscriber: u64,
        ended: bool,
        batch: &mut PendingBatch,
    ) {
        // What it has begun to receive it receives to the end [MQTT-3.10.4-3], over its next
        // connection if need be. With the session that ends: what was in delivery at QoS 2 is done
        // by now, the rest never was.
        self.groups.change(id, |group| {
            group.with_member(subscriber, |member| member.leaving = true);
            if ended {
                group.give_back(subscriber, |_, _| false);
            }
        });
        self.let_go(id, subscriber, batch);
        self.dispatch(id, batch);
    }

    /// A member that leaves is gone when it has nothing any more, and the group with its last one.
    fn let_go(&mut self, id: SessionId, subscriber: u64, batch: &mut PendingBatch) {
        let gone = self.groups.change(id, |group| group.drop_if_left(subscriber));
        let Some(gone) = gone.flatten() else { return };
        if gone.member.session.is_some() {
            batch.rows.delete(Family::Session, &keys::member(id, subscriber));
            batch.durable = true;
        }
        if self.groups.get(id).is_some_and(Group::is_over) {
            self.end_group(id, batch);
        }
    }

    fn end_group(&mut self, id: SessionId, batch: &mut PendingBatch) {
        let Some(group) = self.groups.remove(id) else { return };
        if group.durable {
            batch.durable = true;
            batch.rows.delete(Family::Session, &keys::session(id, session_kind::GROUP));
            batch.rows.delete(Family::Session, &keys::session(id, session_kind::PROGRESS));
            self.queued.messages -= group.load.messages;
            self.queued.bytes = self.queued.bytes.saturating_sub(group.load.bytes);
            self.floors.add_dead(group.load.bytes);
        }
        group.route.set_queued(0);
        batch.after.push(After::Remove(id));
        batch.effect(Effect::GroupEnded { group: id, share: group.share, filter: group.filter });
    }

    /// A member's connection has ended: what it did not finish goes to others, but for what it
    /// keeps ([MQTT-4.8.2-4]).
    fn member_offline(
        &mut self,
        id: SessionId,
        subscriber: u64,
        location: Location,
        keeps: &[u64],
        batch: &mut PendingBatch,
    ) {
        let gone = self.groups.change(id, |group| {
            let stored = group.with_member(subscriber, |member| {
                let here = member.member.location == location;
                if here {
                    member.member.location = Location::NOWHERE;
                }
                here.then_some(member.member.session.is_some())
            })??;
            group.give_back(subscriber, |seq, _| keeps.contains(&seq));
            Some(stored)
        });
        let Some(stored) = gone.flatten() else { return };
        if stored {
            self.let_go(id, subscriber, batch);
            self.dispatch(id, batch);
            return;
        }
        // "The Server MUST NOT send the Application Message to any other subscribed Client"
        // [MQTT-4.8.2-5]: what was in delivery at QoS 2.
        for seq in keeps {
            self.member_done(id, subscriber, *seq, batch);
        }
        self.leave_group(id, subscriber, true, batch);
    }

    fn member_done(&mut self, id: SessionId, subscriber: u64, seq: u64, batch: &mut PendingBatch) {
        let held = self.groups.change(id, |group| {
            group.with_member(subscriber, |member| member.held.remove(seq)).flatten()
        });
        let Some(Held { bytes, .. }) = held.flatten() else { return };
        self.finish_entry(id, seq, bytes, batch);
        self.let_go(id, subscriber, batch);
        self.dispatch(id, batch);
    }

    /// Puts a publication into a group's queue, QoS 1 and 2 only; gives its number and running
    /// total when the queue is stored.
    pub(super) fn enqueue(
        &mut self,
        id: SessionId,
        publication: &Arc<Publication>,
        weight: u64,
        batch: &mut PendingBatch,
    ) -> Option<(u64, u64)> {
        if publication.qos == QoS::AtMostOnce {
            return None;
        }
        self.groups.get(id).filter(|group| !group.is_deserted())?;
        let (seq, total, durable) = self.groups.change(id, |group| {
            let seq = group.push(publication.clone(), weight);
            group.route.set_queued(group.load.messages);
            (seq, group.weight, group.durable)
        })?;
        if durable {
            self.queued.messages += 1;
            self.queued.bytes += weight;
        }
        self.shorten_group(id, batch);
        if !durable {
            self.shorten_largest(Some((id, seq)), batch);
        }
        durable.then_some((seq, total))
    }

    /// The oldest entries that nobody has make room.
    fn shorten_group(&mut self, id: SessionId, batch: &mut PendingBatch) {
        let mut dropped = 0;
        loop {
            let Some(group) = self.groups.get(id) else { return };
            let full = group.load.messages > self.settings.queue_max_messages
                || group.load.bytes > self.settings.queue_max_bytes;
            let oldest = group.first_waiting().filter(|seq| *seq < group.head);
            let Some(seq) = oldest.filter(|_| full) else { break };
            let bytes = match self.content(id, seq, batch) {
                Ok(content) => content.bytes(),
                Err(StoreError::Damaged(_)) => 0,
                Err(error) => {
                    tracing::error!(shard = self.shard, %error, "full queue not shortened");
                    break;
                }
            };
            self.groups.change(id, |group| group.take(seq));
            self.finish_entry(id, seq, bytes, batch);
            dropped += 1;
        }
        if dropped > 0 {
            batch.effect(Effect::Overflowed { session: id, messages: dropped });
        }
    }

    /// Nobody needs an entry any more.
    pub(super) fn finish_entry(
        &mut self,
        id: SessionId,
        seq: u64,
        bytes: u64,
        batch: &mut PendingBatch,
    ) {
        let durable = self.groups.change(id, |group| {
            group.forget(seq, bytes);
            group.route.set_queued(group.load.messages);
            group.durable
        });
        if durable != Some(true) {
            return;
        }
        self.queued.messages = self.queued.messages.saturating_sub(1);
        self.queued.bytes = self.queued.bytes.saturating_sub(bytes);
        batch.rows.delete(Family::Queue, &keys::queue(id, seq));
        self.groups.touch(id);
    }

    /// With the removals of a batch goes how far the group has come: its rows alone would not say
    /// which numbers were used.
    pub(super) fn flush_groups(&mut self, batch: &mut PendingBatch) {
        for id in self.groups.take_touched() {
            let raised = self.groups.change(id, Group::raised_floor).flatten();
            let Some(group) = self.groups.get(id) else { continue };
            if let Some(floor) = raised {
                batch.after.push(After::Raise(id, floor));
            }
            let row =
                ProgressRow { acknowledged: group.floor(), weight: group.weight, sent: group.head };
            let key = keys::session(id, session_kind::PROGRESS);
            batch.rows.put_with(Family::Session, &key, |out| rows::put_progress(out, &row));
        }
    }

    /// True when a group's queue has no room for one more.
    pub(super) fn is_group_full(&self, id: SessionId, weight: u64) -> bool {
        self.groups.get(id).is_some_and(|group| {
            group.load.messages + 1 > self.settings.queue_max_messages
                || group.load.bytes + weight > self.settings.queue_max_bytes
                || !group.durable && self.is_memory_full(group.load.bytes, weight)
        })
    }

    /// Refuses or keeps for later what a group is told while nothing can be written.
    pub(super) fn defer_group(&mut self, command: GroupCommand) -> Option<ReplyTo> {
        if let GroupCommand::Join { reply, .. } = command {
            return reply;
        }
        if self.deferred_groups.len() < super::DEFERRED_MAX {
            self.deferred_groups.push(command);
            return None;
        }
        tracing::warn!(shard = self.shard, "a group misses what it was told");
        match command {
            GroupCommand::Done { reply, .. } => reply,
            _ => None,
        }
    }
}
