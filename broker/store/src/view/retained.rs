//! Retained messages of this shard's topics: one row each, a position for every change.
//!
//! The position grows with every change of the shard's retained state. A subscriber that saw a
//! live message of a topic knows its position, and skips what a scan finds at or below it
//! (ruling 8).

use foldhash::HashMap;
use hoopoe_core::Publication;
use std::sync::Arc;

use super::ShardView;
use crate::error::StoreError;
use crate::keys;
use crate::kv::Family;
use crate::log::PendingBatch;
use crate::rows;

/// Topics whose state is kept at hand.
const RECENT_TOPICS: usize = 16_384;

/// What is known of topics without reading: the position of their message, `None` for no message.
/// Holds every change that is not committed yet.
#[derive(Debug, Default)]
pub(super) struct Retained {
    recent: HashMap<Box<str>, Option<u64>>,
}

impl Retained {
    /// After a commit the store knows everything; the rest is only a cache.
    pub(super) fn trim(&mut self) {
        if self.recent.len() > RECENT_TOPICS {
            self.recent.clear();
        }
    }

    pub(super) fn forget(&mut self) {
        self.recent.clear();
    }
}

impl ShardView {
    /// Position of a topic's message, `None` when it has none.
    fn retained_position(&mut self, topic: &str) -> Result<Option<u64>, StoreError> {
        if let Some(position) = self.retained.recent.get(topic) {
            return Ok(*position);
        }
        let position = match self.kv.get(Family::Retained, keys::retained(topic))? {
            Some(row) => {
                let read = rows::read_retained(&row);
                Some(read.map_err(rows::at(Family::Retained, keys::retained(topic)))?.0)
            }
            None => None,
        };
        self.retained.recent.insert(topic.into(), position);
        Ok(position)
    }

    /// Whether one more retained message is allowed: a new topic needs room, a known one does not.
    pub(super) fn may_retain(&mut self, publication: &Publication) -> Result<bool, StoreError> {
        let is_known = self.retained_position(publication.topic())?.is_some();
        if is_known || publication.payload().is_empty() {
            return Ok(true);
        }
        let elsewhere = self.floors.retained_elsewhere(self.shard);
        Ok(self.row.retained + elsewhere < self.settings.retained_max)
    }

    /// Replaces a topic's message ([MQTT-3.3.1-5]); an empty payload removes it
    /// ([MQTT-3.3.1-6], [MQTT-3.3.1-7]). Gives the position of the change.
    pub(super) fn retain(&mut self, publication: &Publication, batch: &mut PendingBatch) -> u64 {
        let topic = publication.topic();
        let existed = self.retained_position(topic).is_ok_and(|position| position.is_some());
        if publication.payload().is_empty() && !existed {
            return self.row.position;
        }
        self.row.position += 1;
        self.row_changed = true;
        let position = self.row.position;
        if publication.payload().is_empty() {
            batch.rows.delete(Family::Retained, keys::retained(topic));
            self.row.retained -= 1;
            self.retained.recent.insert(topic.into(), None);
            return position;
        }
        batch.rows.put_with(Family::Retained, keys::retained(topic), |out| {
            rows::put_retained(out, position, publication);
        });
        self.row.retained += u64::from(!existed);
        self.retained.recent.insert(topic.into(), Some(position));
        position
    }

    /// Removes messages that a reader found expired, unless they have been replaced meanwhile.
    pub(super) fn expire_retained(&mut self, topics: &[(Arc<str>, u64)], batch: &mut PendingBatch) {
        for (topic, position) in topics {
            match self.retained_position(topic) {
                Ok(Some(found)) if found == *position => {
                    batch.rows.delete(Family::Retained, keys::retained(topic));
                    self.row.retained -= 1;
                    self.row_changed = true;
                    self.retained.recent.insert(topic.as_ref().into(), None);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(shard = self.shard, %error, "not expired"),
            }
        }
    }
}
