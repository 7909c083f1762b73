//! Publications for stored sessions: one entry per receiver's queue, each queue dense.
//!
//! A message for one receiver lies in its queue row; one for several lies in a body row that
//! their rows name (ruling 9, `FORMAT.md`). What a full queue does is ruling 13.

use hoopoe_codec::ReasonCode;
use hoopoe_core::{Publication, SessionId};

use super::{Load, ShardView};
use crate::command::{Publish, Receiver};
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

/// An entry that got its number.
struct Entry<'a> {
    receiver: &'a Receiver,
    seq: u64,
    weight: u64,
}

impl ShardView {
    /// A publication: judged as a whole, then written for everyone it is for in this shard.
    pub(super) fn publish(&mut self, publish: &Publish, batch: &mut PendingBatch) {
        let (code, position) = self.store_publication(publish, batch);
        if let Some(reply) = publish.reply {
            batch.effect(Effect::Committed { reply, code, position: position.0 });
        }
        if let Some(live) = position.1 {
            batch.effect(live);
        }
    }

    fn store_publication(
        &mut self,
        publish: &Publish,
        batch: &mut PendingBatch,
    ) -> (ReasonCode, (u64, Option<Effect>)) {
        let known = publish.marker.is_some_and(|marker| self.markers.contains(&marker))
            || publish.outbox.is_some_and(|number| self.applied.contains(&number));
        if known {
            return (ReasonCode::Success, (0, None));
        }
        let weight = entry_weight(&publish.publication);
        let refused = self.is_full(publish, weight)
            || publish.retain && !self.may_retain(&publish.publication);
        if refused {
            return (ReasonCode::QuotaExceeded, (0, None));
        }
        let position = if publish.retain { self.retain(&publish.publication, batch) } else { 0 };
        if let Some(marker) = publish.marker {
            self.mark(marker, batch);
        }
        if let Some(number) = publish.outbox {
            self.mark_applied(number, batch);
        }
        let mut live = Vec::new();
        let entries = self.number_entries(publish, weight, &mut live, batch);
        self.write_entries(&publish.publication, &entries, batch);
        let wrote = !entries.is_empty() || position > 0;
        batch.durable |= wrote || publish.marker.is_some() || publish.outbox.is_some();
        let live = (!live.is_empty()).then(|| Effect::Live {
            publication: publish.publication.clone(),
            receivers: live,
            position,
        });
        (ReasonCode::Success, (position, live))
    }

    /// With [`Overflow::Refuse`]: true when a queue has no room. Decided for the whole
    /// publication before anything of it is written.
    fn is_full(&self, publish: &Publish, weight: u64) -> bool {
        self.settings.overflow == Overflow::Refuse
            && publish.receivers.iter().any(|receiver| {
                let session = self.sessions.get(&receiver.session);
                session.is_some_and(|session| {
                    let Load { messages, bytes } = session.load();
                    messages + 1 > self.settings.queue_max_messages
                        || bytes + weight > self.settings.queue_max_bytes
                })
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
            let Some(session) = self.sessions.get_mut(&receiver.session) else { continue };
            session.head += 1;
            session.weight += weight;
            self.queued.messages += 1;
            self.queued.bytes += weight;
            entries.push(Entry { receiver, seq: session.head, weight: session.weight });
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
            if load.messages > self.settings.queue_max_messages
                || load.bytes > self.settings.queue_max_bytes
            {
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
            let key = keys::queue(one.receiver.session, one.seq);
            return batch.rows.put_with(Family::Queue, &key, |out| {
                rows::put_entry(out, &one.head(), publication)
            });
        }
        if entries.is_empty() {
            return;
        }
        let body = self.next_body();
        let fan_out: Vec<(SessionId, u64)> =
            entries.iter().map(|entry| (entry.receiver.session, entry.seq)).collect();
        batch.rows.put_with(Family::Body, &keys::body(body), |out| {
            rows::put_body(out, publication, &fan_out);
        });
        for entry in entries {
            let key = keys::queue(entry.receiver.session, entry.seq);
            batch
                .rows
                .put_with(Family::Queue, &key, |out| rows::put_reference(out, &entry.head(), body));
        }
    }

    /// The oldest entries of a full queue make room; in steps, so that a queue that stays full
    /// does not look for its oldest entry with every message.
    fn drop_oldest(&mut self, id: SessionId, batch: &mut PendingBatch) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (acknowledged, head) = (session.progress.acknowledged, session.head);
        let step = (self.settings.queue_max_messages / 128).max(1);
        let over = (head - acknowledged).saturating_sub(self.settings.queue_max_messages);
        let mut floor = acknowledged + if over > 0 { over.max(step) } else { 0 };
        let spare = session.weight.saturating_sub(self.settings.queue_max_bytes);
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
        batch.effect(Effect::Overflowed { session: id, messages });
    }

    /// The running total at an entry that is still in the queue, written or about to be.
    fn weight_at(&self, id: SessionId, seq: u64, batch: &PendingBatch) -> Result<u64, StoreError> {
        let key = keys::queue(id, seq);
        let stored;
        let row = match batch.rows.value_of(Family::Queue, &key) {
            Some(row) => row,
            None => {
                stored = self.kv.get(Family::Queue, &key)?.unwrap_or_default();
                &stored
            }
        };
        Ok(rows::read_weight(row).map_err(rows::at(Family::Queue, &key))?)
    }
}

impl Entry<'_> {
    fn head(&self) -> EntryHead<'_> {
        EntryHead {
            qos: self.receiver.qos,
            retain: self.receiver.retain,
            weight: self.weight,
            identifiers: &self.receiver.identifiers,
        }
    }
}
