//! What the subscription index gives back: how to reach a subscriber, and on which terms.
//!
//! A route outlives the connections of its session: it says where the session is connected at
//! the moment, and which shard keeps its queue. Only the worker that drives the session's
//! connection moves it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hoopoe_codec::SubscribeOptions;

use crate::id::{Location, SessionId};

/// How to reach one subscriber.
#[derive(Debug)]
pub struct Route {
    /// Process-unique number of the subscriber: key in the index, and the publisher's number for
    /// no-local. That of a stored session is its id.
    pub subscriber: u64,
    location: AtomicU64,
    /// Boxed: only links of this broker have such.
    limits: OnceLock<Box<QueueLimits>>,
    queued: AtomicU32,
    kind: Kind,
}

/// Whom a route leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A session that ends with its connection.
    Transient,
    /// A stored session.
    Stored,
    /// A shared-subscription group with its own queue.
    Group,
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
            location: AtomicU64::new(location.to_bits()),
            limits: OnceLock::new(),
            queued: AtomicU32::new(0),
            kind: Kind::Transient,
        }
    }

    /// A route to a stored session that is not connected now.
    pub fn stored(session: SessionId) -> Route {
        Route { kind: Kind::Stored, ..Route::transient(session.0, Location::NOWHERE) }
    }

    /// A route to a shared-subscription group.
    pub fn group(group: SessionId) -> Route {
        Route { kind: Kind::Group, ..Route::stored(group) }
    }

    /// The stored session behind it; `None` when the session ends with its connection.
    pub fn session(&self) -> Option<SessionId> {
        (self.kind != Kind::Transient).then_some(SessionId(self.subscriber))
    }

    /// True when [`session`](Self::session) names a shared-subscription group and its own queue.
    pub fn is_group(&self) -> bool {
        self.kind == Kind::Group
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
        self.limits.get().map(|limits| **limits)
    }

    /// Gives the queue limits of its own, for the life of the process.
    pub fn limit(&self, limits: QueueLimits) {
        // They come from the settings, which do not change.
        let _ = self.limits.set(Box::new(limits));
    }

    /// Messages in the session's stored queue, as its shard last said; for early refusals only.
    pub fn queued(&self) -> u64 {
        u64::from(self.queued.load(Ordering::Relaxed))
    }

    /// The shard's word on how many messages the queue holds.
    pub fn set_queued(&self, messages: u64) {
        self.queued.store(u32::try_from(messages).unwrap_or(u32::MAX), Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Slot;

    #[test]
    fn a_route_knows_whom_it_leads_to_and_is_small() {
        let id = SessionId::new(Slot::of(b"alice"), 7);
        let place = Location::new(0, 1, 2);
        let (transient, stored) = (Route::transient(9, place), Route::stored(id));
        assert_eq!((transient.session(), transient.is_group()), (None, false));
        assert_eq!((stored.session(), stored.is_group()), (Some(id), false));
        let group = Route::group(id);
        assert_eq!((group.session(), group.is_group(), group.subscriber), (Some(id), true, id.0));
        // With the counts of its Arc no more than a chunk of 64 bytes takes.
        assert!(size_of::<Route>() <= 40);
    }

    #[test]
    fn a_queue_that_is_longer_than_can_be_said_is_very_long() {
        let route = Route::stored(SessionId(1));
        route.set_queued(17);
        assert_eq!(route.queued(), 17);
        route.set_queued(u64::MAX);
        assert_eq!(route.queued(), u64::from(u32::MAX));
    }
}
