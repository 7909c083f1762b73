//! The last messages of a room, for those who join.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{RoomMessage, RoomSettings};

/// Bounded by count and by bytes, so that fifty pictures do not stay in memory for every room.
#[derive(Debug, Default)]
pub struct Ring {
    messages: VecDeque<Arc<RoomMessage>>,
    bytes: usize,
}

impl Ring {
    /// Keeps a message, and forgets the oldest ones that are too many.
    pub fn push(&mut self, settings: &RoomSettings, message: &Arc<RoomMessage>) {
        if settings.ring_messages == 0 {
            return;
        }
        self.bytes += message.weight();
        self.messages.push_back(message.clone());
        while self.messages.len() > settings.ring_messages
            || (self.bytes > settings.ring_bytes && self.messages.len() > 1)
        {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.weight();
        }
    }

    /// There is nothing to look back at.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What a newcomer gets, oldest first; what has expired is left out.
    pub fn snapshot(&self, now_ms: u64) -> Vec<Arc<RoomMessage>> {
        self.messages.iter().filter(|message| !message.expired(now_ms)).cloned().collect()
    }

    /// What a user said is shown to nobody any more.
    pub fn forget(&mut self, user: &str) {
        self.messages.retain(|message| message.from.as_deref() != Some(user));
        self.bytes = self.messages.iter().map(|message| message.weight()).sum();
    }
}
