//! Publications for stored sessions: one entry per receiver's queue, each queue dense.
//!
//! A message for one receiver lies in its queue row; one for several lies in a body row that
//! their rows name (ruling 9, `FORMAT.md`). What a full queue does is ruling 13.

use hoopoe_codec::{QoS, ReasonCode};
use hoopoe_core::{Publication, QueueLimits, Route, SessionId};

use super::{Load, ShardView};
use crate::command::Publish;
use crate::effect::{Effect, LiveReceiver};
use crate::error::StoreError;
use crate::keys;
use crate::kv::Family;
use crate::log::PendingBatch;
use crate::rows::{self, EntryHead};
use crate::settings::Overflow;

/// What an entry weighs beside topic, properties and payload.
pub(super) const ENTRY_OVERHEAD: u64 = 32;

/// The weight of a publication in a queue.
pub(super) fn entry_weight(publication: &Publication) -> u64 {
    publication.bytes().len() as u64 + ENTRY_OVERHEAD
}

/// The receiver's part of a group's entry: the member's terms are not known yet.
pub(super) fn group_head(publication: &Publication, weight: u64) -> EntryHead<'static> {
    EntryHead { qos: publication.qos, retain: publication.retain, weight, identifiers: &[] }
}

/// An entry that got its number.
struct Entry<'a> {
    queue: SessionId,
    seq: u64,
    head: EntryHead<'a>,
}

impl ShardView {
    /// A publication: judged as a whole, then written for everyone it is for in this shard.
    pub(super) fn publish(&mut self, publish: &Publish, batch: &mut PendingBatch) {
        let known = publish.marker.is_some_and(|marker| self.markers.contains(&marker))
            || publish.outbox.is_some_and(|number| self.applied.contains(&number));
        let weight = entry_weight(&publish.publication);
        let (mut code, mut position) = (ReasonCode::Success, 0);
        let mut live = Vec::new();
        if !known {
            let retains;
            (code, retains) = self.judge(publish, weight);
            if !matches!(code, ReasonCode::QuotaExceeded | ReasonCode::ServerUnavailable) {
                let rows = batch.rows.len();
                position = self.store_publication(publish, retains, weight, &mut live, batch);
                batch.durable |= batch.rows.len() > rows;
            }
        }
        if let Some(reply) = publish.reply {
            batch.effect(Effect::Committed { reply, code, position });
        }
        if !live.is_empty() {
            let publication = publish.publication.clone();
            batch.effect(Effect::Live { publication, receivers: live, position });
        }
        for group in &publish.groups {
            self.dispatch(*group, batch);
        }
    }

    /// Decided for the whole publication before anything of it is written: its code, and whether
    /// it is retained. One retained message too many is no reason to keep a publication from its
    /// receivers, many of which may have it from other shards already.
    fn judge(&mut self, publish: &Publish, weight: u64) -> (ReasonCode, bool) {
        if self.is_full(publish, weight) {
            return (ReasonCode::QuotaExceeded, false);
        }
        if !publish.retain {
            return (ReasonCode::Success, false);
        }
        match self.may_retain(&publish.publication) {
            Ok(true) => (ReasonCode::Success, true),
            Ok(false) => (ReasonCode::RetainNotSupported, false),
            Err(error) => {
                tracing::error!(shard = self.shard, %error, "publication refused");
                (ReasonCode::ServerUnavailable, false)
            }
        }
    }

    /// Gives the position of the change of retained state, 0 when there is none.
    fn store_publication(
        &mut self,
        publish: &Publish,
        retains: bool,
        weight: u64,
        live: &mut Vec<LiveReceiver>,
        batch: &mut PendingBatch,
    ) -> u64 {
        let publication = &publish.publication;
        let position = if retains { self.retain(publication, batch) } else { 0 };
        if let Some(marker) = publish.marker {
            self.mark(marker, batch);
        }
        if let Some(number) = publish.outbox {
            self.mark_applied(number, batch);
        }
        let mut entries = self.number_entries(publish, weight, live, batch);
        for group in &publish.groups {
            if publication.qos == QoS::AtMostOnce {
                self.offer_at_once(*group, publication, batch);
            } else if let Some((seq, total)) = self.enqueue(*group, publication, weight, batch) {
                let head = group_head(publication, total);
                entries.push(Entry { queue: *group, seq, head });
            }
        }
        self.write_entries(publication, &entries, batch);
        position
    }

    /// With [`Overflow::Refuse`]: true when a queue has no room.
    fn is_full(&self, publish: &Publish, weight: u64) -> bool {
        let refuses = self.settings.overflow == Overflow::Refuse;
        let groups = &publish.groups;
        (refuses && groups.iter().any(|group| self.is_group_full(*group, weight)))
            || publish.receivers.iter().any(|receiver| {
                self.sessions.get(&receiver.session).is_some_and(|session| {
                    let Load { messages, bytes } = session.load();
                    let limits = self.limits_of(&session.route);
                    limits.refuse
                        && (messages + 1 > limits.messages || bytes + weight > limits.bytes)
                })
            })
    }

    /// What may wait in a session's queue.
    fn limits_of(&self, route: &Route) -> QueueLimits {
        route.limits().unwrap_or(QueueLimits {
            messages: self.settings.queue_max_messages,
            bytes: self.settings.queue_max_bytes,
            refuse: self.settings.overflow == Overflow::Refuse,
        })
    }

    /// Gives every receiver that still exists the next number of its queue.
    fn number_entries<'a>(
        &mut self,
        publish: &'a Publish,
        weight: u64,
        live: &mut Vec<LiveReceiver>,
        batch: &mut PendingBatch,
    ) -> Vec<Entry<'a>> {
        let mut entries = Vec::with_capacity(publish.receivers.len());
        for receiver in &publish.receivers {
            if !self.sessions.contains_key(&receiver.session) {
                self.wake_late(receiver.session);
            }
            let Some(session) = self.sessions.get_mut(&receiver.session) else { continue };
            session.head += 1;
            session.weight += weight;
            self.queued.messages += 1;
            self.queued.bytes += weight;
            let head = EntryHead {
                qos: receiver.qos,
                retain: receiver.retain,
                weight: session.weight,
                identifiers: &receiver.identifiers,
            };
            entries.push(Entry { queue: receiver.session, seq: session.head, head });
            let load = session.load();
            session.route.set_queued(load.messages);
            if session.is_connected() {
                live.push(LiveReceiver {
                    location: session.location,
                    seq: session.head,
                    weight: session.weight,
                    qos: receiver.qos,
                    retain: receiver.retain,
                    identifiers: receiver.identifiers.clone(),
                });
            }
            let limits = session.route.limits();
            let (most, most_bytes) = limits.map_or(
                (self.settings.queue_max_messages, self.settings.queue_max_bytes),
                |limits| (limits.messages, limits.bytes),
            );
            if load.messages > most || load.bytes > most_bytes {
                self.drop_oldest(receiver.session, batch);
            }
        }
        entries
    }

    fn write_entries(
        &mut self,
        publication: &Publication,
        entries: &[Entry<'_>],
        batch: &mut PendingBatch,
    ) {
        if let [one] = entries {
            let key = keys::queue(one.queue, one.seq);
            return batch
                .rows
                .put_with(Family::Queue, &key, |out| rows::put_entry(out, &one.head, publication));
        }
        if entries.is_empty() {
            return;
        }
        let body = self.next_body();
        let fan_out: Vec<(SessionId, u64)> =
            entries.iter().map(|entry| (entry.queue, entry.seq)).collect();
        batch.rows.put_with(Family::Body, &keys::body(body), |out| {
            rows::put_body(out, publication, &fan_out);
        });
        for entry in entries {
            let key = keys::queue(entry.queue, entry.seq);
            batch
                .rows
                .put_with(Family::Queue, &key, |out| rows::put_reference(out, &entry.head, body));
        }
    }

    /// The oldest entries of a full queue make room; in steps, so that a queue that stays full
    /// does not look for its oldest entry with every message.
    fn drop_oldest(&mut self, id: SessionId, batch: &mut PendingBatch) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (acknowledged, head) = (session.progress.acknowledged, session.head);
        let limits = self.limits_of(&session.route);
        let step = (limits.messages / 128).max(1);
        let over = (head - acknowledged).saturating_sub(limits.messages);
        let mut floor = acknowledged + if over > 0 { over.max(step) } else { 0 };
        let spare = session.weight.saturating_sub(limits.bytes);
        let newest = head - 1;
        floor = floor.min(newest);
        let weight = loop {
            let weight = match floor {
                _ if floor == acknowledged => session.progress.weight,
                _ => match self.weight_at(id, floor, batch) {
                    Ok(weight) => weight,
                    Err(error) => {
                        tracing::error!(shard = self.shard, %error, "full queue not shortened");
                        return;
                    }
                },
            };
            if weight >= spare || floor >= newest {
                break weight;
            }
            floor = (floor + step.min(64)).min(newest);
        };
        let messages = floor - acknowledged;
        if messages == 0 {
            return;
        }
        let epoch = session.epoch;
        let progress = crate::command::Progress {
            session: id,
            epoch,
            acknowledged: floor,
            weight,
            sent: session.progress.sent,
        };
        self.progress(self.now_ms, progress);
        // Not lazily: after a crash what was dropped would come behind what has been sent since.
        self.flush_session(id, batch);
        batch.effect(Effect::Overflowed { session: id, messages });
    }

    /// The running total at an entry that is still in the queue, written or about to be.
    fn weight_at(&self, id: SessionId, seq: u64, batch: &PendingBatch) -> Result<u64, StoreError> {
        let key = keys::queue(id, seq);
        let row = self.row_of(Family::Queue, &key, batch)?;
        Ok(rows::read_weight(&row).map_err(rows::at(Family::Queue, &key))?)
    }
}
