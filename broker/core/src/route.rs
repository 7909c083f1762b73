//! What the subscription index gives back: how to reach a subscriber, and on which terms.
//!
//! A route outlives the connections of its session: it says where the session is connected at
//! the moment, and which shard keeps its queue. Only the worker that drives the session's
//! connection moves it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hoopoe_codec::SubscribeOptions;

use crate::id::{Location, SessionId};

/// How to reach one subscriber.
#[derive(Debug)]
pub struct Route {
    /// Process-unique number of the subscriber: key in the index, and the publisher's number for
    /// no-local.
    pub subscriber: u64,
    /// The stored session behind it; `None` when the session ends with its connection.
    pub session: Option<SessionId>,
    /// True when `session` names a shared-subscription group and its own queue.
    pub group: bool,
    location: AtomicU64,
    queued: AtomicU64,
    limits: OnceLock<QueueLimits>,
}

/// What may wait in one session's queue, where it differs from the others'.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimits {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// Beyond either, the new message is refused; otherwise the oldest makes room.
    pub refuse: bool,
}

impl Route {
    /// A route to a session that ends with its connection, at `location`.
    pub fn transient(subscriber: u64, location: Location) -> Route {
        Route {
            subscriber,
            session: None,
            group: false,
            location: AtomicU64::new(location.to_bits()),
            queued: AtomicU64::new(0),
            limits: OnceLock::new(),
        }
    }

    /// A route to a stored session that is not connected now.
    pub fn stored(session: SessionId) -> Route {
        Route { session: Some(session), ..Route::transient(session.0, Location::NOWHERE) }
    }

    /// A route to a shared-subscription group.
    pub fn group(group: SessionId) -> Route {
        Route { group: true, ..Route::stored(group) }
    }

    /// Where the session is connected; [`Location::NOWHERE`] when it is not.
    pub fn location(&self) -> Location {
        Location::from_bits(self.location.load(Ordering::Acquire))
    }

    /// The session is connected at `location` from now on.
    pub fn move_to(&self, location: Location) {
        self.location.store(location.to_bits(), Ordering::Release);
    }

    /// The session is no longer at `location`; a no-op when it has moved on meanwhile.
    pub fn leave(&self, location: Location) {
        let _ = self.location.compare_exchange(
            location.to_bits(),
            Location::NOWHERE.to_bits(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }

    /// The queue's own limits, if it has such.
    pub fn limits(&self) -> Option<QueueLimits> {
        self.limits.get().copied()
    }

    /// Gives the queue limits of its own, for the life of the process.
    pub fn limit(&self, limits: QueueLimits) {
        // They come from the settings, which do not change.
        let _ = self.limits.set(limits);
    }

    /// Messages in the session's stored queue, as its shard last said; for early refusals only.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// The shard's word on how many messages the queue holds.
    pub fn set_queued(&self, messages: u64) {
        self.queued.store(messages, Ordering::Relaxed);
    }
}

/// One subscription in the index.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// How to reach the subscriber.
    pub route: Arc<Route>,
    /// Maximum QoS, no local, retain as published, retain handling.
    pub options: SubscribeOptions,
    /// Subscription Identifier, 0 when there is none.
    pub identifier: u32,
}
