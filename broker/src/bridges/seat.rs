//! A link's place at this broker: its queue's limits, and how much waits in it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hoopoe_bridge::VIA;
use hoopoe_codec::PropertyBlock;
use hoopoe_core::{QueueLimits, Route};

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

/// What is noted on messages of another broker's bridge that speaks 3.1.1 and cannot say itself whose
/// they are: that they came over a link.
pub fn passed_by(client_id: &str) -> Box<[u8]> {
    let id = format!("~{}", client_id.replace(',', "_"));
    PropertyBlock::new().with(VIA, &id).as_bytes().into()
}
