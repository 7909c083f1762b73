//! Wills that become due, and the outbox: messages that this shard owes to be published.
//!
//! Firing a will removes it and leaves an outbox entry, in one batch; the publication goes out
//! after the commit. After a crash the entry is carried out again, and every shard that has
//! already applied it says so by its mark (ruling 14). The marks have no owner that could remove
//! them: a mark whose outbox entry is gone (numbers are never used twice) is swept away.

use std::sync::Arc;

use hoopoe_core::{PublicationParts, SessionId};

use super::ShardView;
use crate::effect::Effect;
use crate::keys::{self, session_kind};
use crate::kv::Family;
use crate::log::PendingBatch;
use crate::rows::{self, OutboxRow};

impl ShardView {
    /// Publishes a session's will, if it has one.
    pub(super) fn fire_will(&mut self, now_ms: u64, id: SessionId, batch: &mut PendingBatch) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(will) = session.will.take() else { return };
        let key = session.key.clone();
        batch.rows.delete(Family::Session, &keys::session(id, session_kind::WILL));
        batch.durable = true;
        let expires_at_ms = will.expiry_secs.map(|secs| now_ms + u64::from(secs) * 1000);
        let publication =
            PublicationParts { expires_at_ms, ..will.publication.parts() }.to_publication();
        let number = self.next_number(id.slot());
        self.outbox.insert(number);
        let row = OutboxRow { key, publication };
        let at = keys::outbox(self.shard, number);
        batch.rows.put_with(Family::Shard, &at, |out| rows::put_outbox(out, &row));
        batch.effect(Effect::Publish {
            outbox: number,
            key: row.key,
            publication: Arc::new(row.publication),
        });
    }

    /// An outbox entry has been carried out. Written lazily: at worst it is carried out again.
    pub(super) fn outbox_done(&mut self, number: u64, batch: &mut PendingBatch) {
        if self.outbox.remove(&number) {
            batch.rows.delete(Family::Shard, &keys::outbox(self.shard, number));
            batch.carried_out.push(number);
        }
    }

    /// Notes that an outbox entry is applied here.
    pub(super) fn mark_applied(&mut self, number: u64, batch: &mut PendingBatch) {
        self.applied.insert(number);
        batch.rows.put(Family::Shard, &keys::applied(self.shard, number), &[rows::VERSION]);
    }

    /// Removes marks whose outbox entry is gone, and QoS 2 markers whose session is gone.
    pub(super) fn sweep_marks(&mut self, batch: &mut PendingBatch) {
        let mut numbers: Vec<u64> = self.applied.iter().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let owner = SessionId(number).slot().shard(usize::from(self.shards)) as u16;
            match self.kv.get(Family::Shard, &keys::outbox(owner, number)) {
                Ok(None) => {
                    self.applied.remove(&number);
                    batch.rows.delete(Family::Shard, &keys::applied(self.shard, number));
                }
                Ok(Some(_)) => {}
                Err(error) => tracing::warn!(shard = self.shard, %error, "sweep stopped"),
            }
        }
        self.sweep_markers(batch);
    }
}
