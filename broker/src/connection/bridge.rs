//! The connections of this broker's own links: trusted, and with a queue of their own size.
//!
//! Owns what a link may see of its session. The links themselves are the package `hoopoe-bridge`.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hoopoe_codec::PacketId;
use hoopoe_core::{QueueLimits, Route};
use hoopoe_store::effect::StoredSession;

use super::worker::Worker;

/// One link's place at the broker.
#[derive(Debug)]
pub struct BridgeSeat {
    limits: QueueLimits,
    route: ArcSwapOption<Route>,
}

impl BridgeSeat {
    /// A place for a link whose queue holds so much.
    pub fn new(limits: QueueLimits) -> BridgeSeat {
        BridgeSeat { limits, route: ArcSwapOption::empty() }
    }

    /// The link's session has this route.
    pub fn take(&self, route: &Arc<Route>) {
        route.limit(self.limits);
        self.route.store(Some(route.clone()));
    }

    /// Messages that wait for the link.
    pub fn queued(&self) -> u64 {
        self.route.load().as_ref().map_or(0, |route| route.queued())
    }
}

impl Worker {
    /// The broker that a link leads to has forgotten which of its publications it had not finished:
    /// it will use their identifiers for new ones, which must not be taken for repetitions.
    pub(super) fn forget_incoming(&mut self, stored: &mut StoredSession) {
        stored.answered.clear();
        for id in std::mem::take(&mut stored.markers) {
            if let Some(id) = PacketId::new(id) {
                self.forget_marker(stored.id, id);
            }
        }
    }
}
