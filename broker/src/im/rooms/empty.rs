//! Rooms that nobody is in and nobody keeps. In which nothing was said, they are forgotten with
//! their last viewer; others after a while, and before that when the node is full: the one that
//! has been empty longest makes place.
//!
//! A room's lock may be held while the queue is locked, never the other way round.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hoopoe_im::refusal::Refusal;
use parking_lot::Mutex;

use super::{LiveRoom, Rooms, State, name};

/// A place in the queue: since when the room is empty, and one of those of that ms.
pub(super) type Turn = (u64, u64);

#[derive(Default)]
struct Queue {
    rooms: BTreeMap<Turn, Arc<LiveRoom>>,
    last: u64,
}

/// Empty rooms in which something was said, the one that has been empty longest first.
pub(super) struct Empty {
    queue: Mutex<Queue>,
    /// No room is over before that.
    over_ms: AtomicU64,
}

impl Empty {
    pub(super) fn new() -> Empty {
        Empty { queue: Mutex::default(), over_ms: AtomicU64::new(u64::MAX) }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.lock().rooms.len()
    }

    fn put(&self, live: &Arc<LiveRoom>, since_ms: u64, over_ms: u64) -> Turn {
        let mut queue = self.queue.lock();
        queue.last += 1;
        let turn = (since_ms, queue.last);
        queue.rooms.insert(turn, live.clone());
        self.over_ms.fetch_min(over_ms, Ordering::Relaxed);
        turn
    }

    fn remove(&self, turn: Turn) {
        self.queue.lock().rooms.remove(&turn);
    }

    /// The first, if it has been empty since then or longer.
    fn pop(&self, since_ms: u64) -> Option<(Turn, Arc<LiveRoom>)> {
        let mut queue = self.queue.lock();
        let entry = queue.rooms.first_entry().filter(|first| first.key().0 <= since_ms)?;
        Some(entry.remove_entry())
    }
}

impl Rooms {
    /// A room was touched: it is forgotten, queues up or leaves the queue.
    pub(super) fn settle(&self, live: &Arc<LiveRoom>, state: &mut State) {
        let since_ms = state.room.unwanted_since().filter(|_| state.guests.is_empty());
        match since_ms {
            _ if state.forgotten => {}
            Some(_) if state.room.is_blank() => self.forget(live, state),
            Some(since_ms) if state.turn.is_none() => {
                let over_ms = since_ms.saturating_add(self.settings.empty_ms);
                state.turn = Some(self.empty.put(live, since_ms, over_ms));
            }
            Some(_) => {}
            None => self.leave_queue(state),
        }
    }

    fn leave_queue(&self, state: &mut State) {
        if let Some(turn) = state.turn.take() {
            self.empty.remove(turn);
        }
    }

    fn forget(&self, live: &Arc<LiveRoom>, state: &mut State) {
        self.leave_queue(state);
        state.forgotten = true;
        for map in [&self.rooms, &self.foreign] {
            map.remove_if(&*name(&live.tenant, &live.id), |_, room| Arc::ptr_eq(room, live));
        }
    }

    /// Forgets the room that has been empty longest, if it has been since then or longer; false
    /// when there is none.
    fn forget_first(&self, since_ms: u64) -> bool {
        let Some((turn, live)) = self.empty.pop(since_ms) else { return false };
        let mut state = live.state.lock();
        // Somebody may have come in meanwhile, and have left again.
        if state.turn == Some(turn) {
            self.forget(&live, &mut state);
        }
        true
    }

    /// Forgets the rooms that have been empty for long enough. Cheap when there are none.
    pub fn sweep(&self, now_ms: u64) {
        let over_ms = &self.empty.over_ms;
        if over_ms.load(Ordering::Relaxed) > now_ms {
            return;
        }
        let empty_ms = self.settings.empty_ms;
        while now_ms.checked_sub(empty_ms).is_some_and(|since_ms| self.forget_first(since_ms)) {}
        let queue = self.empty.queue.lock();
        let next = queue.rooms.first_key_value();
        let next_ms = next.map_or(u64::MAX, |((since_ms, _), _)| since_ms.saturating_add(empty_ms));
        over_ms.store(next_ms, Ordering::Relaxed);
    }

    /// Whether the node may hold one more room, besides so many others.
    pub(super) fn has_place_for_room(&self, besides: usize) -> Result<(), Refusal> {
        let rooms = self.rooms.len() + besides;
        let most = self.settings.rooms_max;
        if rooms < most || rooms < most.saturating_add(self.empty.len()) {
            Ok(())
        } else {
            Err(full())
        }
    }

    /// Makes place for one more room.
    pub(super) fn make_place(&self) -> Result<(), Refusal> {
        while self.rooms.len() >= self.settings.rooms_max {
            if !self.forget_first(u64::MAX) {
                return Err(full());
            }
        }
        Ok(())
    }
}

fn full() -> Refusal {
    Refusal::limit("there are as many rooms as this broker may hold")
}
