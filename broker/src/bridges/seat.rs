//! A link's place at this broker: its queue's limits, and how much waits in it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hoopoe_bridge::VIA;
use hoopoe_codec::{PropertyBlock, PublishProperties};
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
pub fn passed_by(client_id: &str) -> Vec<u8> {
    let id = format!("~{}", client_id.replace(',', "_"));
    PropertyBlock::new().with(VIA, &id).as_bytes().into()
}

/// Whether a message with these forwarded properties is not for a bridge of 3.1.1: it came here over
/// a link of one hop, and the bridge could not say so to the next broker.
pub fn stays_here(forwardable: &[u8]) -> bool {
    let properties = PublishProperties::from_forwardable(forwardable);
    hoopoe_bridge::stays(properties.user_properties)
}
