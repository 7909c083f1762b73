//! Giving a group's entries to its members.

use std::sync::Arc;

use bytes::Bytes;
use hoopoe_codec::QoS;
use hoopoe_core::{Publication, SessionId};

use super::state::Held;
use super::{Content, Group, ShardView};
use crate::command::Member;
use crate::effect::{Effect, QueueEntry};
use crate::error::StoreError;
use crate::keys;
use crate::kv::Family;
use crate::log::PendingBatch;
use crate::rows::{self, EntryContent};
use crate::view::PROBE_MS;

impl ShardView {
    /// Gives waiting entries to members with room, oldest first, in turn.
    pub(in crate::view) fn dispatch(&mut self, id: SessionId, batch: &mut PendingBatch) {
        while let Some(seq) = self.groups.get(id).and_then(Group::first_waiting) {
            let most = self.groups.memory().member_part(self.settings.queue_max_bytes);
            let taker = self.groups.change(id, |group| group.next_taker(seq, most));
            let Some(taker) = taker.flatten() else { break };
            let content = match self.content(id, seq, batch) {
                Ok(content) => content,
                Err(StoreError::Damaged(damage)) => {
                    tracing::error!(shard = self.shard, %damage, "a group's entry is lost");
                    self.groups.change(id, |group| group.take(seq));
                    self.finish_entry(id, seq, 0, batch);
                    continue;
                }
                Err(error) => {
                    tracing::error!(shard = self.shard, %error, "a group's entry has to wait");
                    self.groups.stall(id, self.now_ms + PROBE_MS);
                    break;
                }
            };
            let bytes = content.bytes();
            let expires = content.publication.expires_at_ms;
            let expired = expires.is_some_and(|at| at <= self.now_ms);
            let given = self.groups.change(id, |group| {
                group.take(seq);
                let member = group.member(taker).filter(|_| !expired)?;
                let qos = content.publication.qos.min(member.member.options.qos);
                batch.effect(offer(id, seq, qos, &member.member, &content));
                if qos == QoS::AtMostOnce {
                    return None;
                }
                group.with_member(taker, |member| member.held.insert(seq, Held { qos, bytes }))
            });
            if given.flatten().is_none() {
                self.finish_entry(id, seq, bytes, batch);
            }
        }
        if self.groups.get(id).is_some_and(|group| group.is_crowded()) {
            self.groups.crowd(id);
        }
    }

    /// A QoS 0 publication goes to the next member that is there, or to nobody.
    pub(in crate::view) fn offer_at_once(
        &mut self,
        id: SessionId,
        publication: &Arc<Publication>,
        batch: &mut PendingBatch,
    ) {
        self.groups.change(id, |group| {
            let content = Content { publication: publication.clone(), weight: group.weight };
            let Some(member) = group.next_online() else { return };
            batch.effect(offer(id, 0, QoS::AtMostOnce, member, &content));
        });
    }

    /// The message of an entry: at hand, about to be written, or stored.
    pub(super) fn content(
        &self,
        id: SessionId,
        seq: u64,
        batch: &PendingBatch,
    ) -> Result<Content, StoreError> {
        if let Some(content) = self.groups.get(id).and_then(|group| group.content(seq)) {
            return Ok(content.clone());
        }
        let key = keys::queue(id, seq);
        let row = self.row_of(Family::Queue, &key, batch)?;
        let entry = rows::read_entry(&row).map_err(rows::at(Family::Queue, &key))?;
        let copy = |body: rows::Body<'_>| body.to_publication(Bytes::copy_from_slice);
        let publication = match entry.content {
            EntryContent::Inline(body) => copy(body).map_err(rows::at(Family::Queue, &key))?,
            EntryContent::Split(number) => {
                let key = keys::body(number);
                let row = self.row_of(Family::Body, &key, batch)?;
                rows::read_body(&row).and_then(copy).map_err(rows::at(Family::Body, &key))?
            }
        };
        Ok(Content { publication: Arc::new(publication), weight: entry.weight })
    }

    /// A row, about to be written or stored; empty when there is none.
    pub(in crate::view) fn row_of(
        &self,
        family: Family,
        key: &[u8],
        batch: &PendingBatch,
    ) -> Result<Vec<u8>, StoreError> {
        match self.kv.get(family, key)? {
            Some(row) => Ok(row),
            None => Ok(batch.rows.value_of(family, key).unwrap_or_default().to_vec()),
        }
    }
}

fn offer(group: SessionId, seq: u64, qos: QoS, member: &Member, content: &Content) -> Effect {
    let identifier = (member.identifier > 0).then_some(member.identifier);
    Effect::Offer {
        location: member.location,
        group,
        entry: QueueEntry {
            seq,
            weight: content.weight,
            qos,
            retain: content.publication.retain && member.options.retain_as_published,
            identifiers: identifier.into_iter().collect(),
            publication: content.publication.clone(),
        },
    }
}
