//! Where the broker is in its life, as `/ready` tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::bridges::Bridges;
use crate::im::sites::SiteNode;
use crate::telemetry::{Gauges, Instruments, Telemetry};
use crate::transport::ListenerGate;

/// The phases of the broker's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum NodePhase {
    /// Not all listeners are open yet.
    Starting,
    /// Clients are served.
    Ready,
    /// Clients are told to go.
    Stopping,
}

impl NodePhase {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            NodePhase::Starting => "starting",
            NodePhase::Ready => "ready",
            NodePhase::Stopping => "stopping",
        }
    }
}

/// What the HTTP listener answers from.
pub struct AdminState {
    /// The counters and all that reports read.
    pub instruments: Arc<Instruments>,
    phase: AtomicU8,
    /// Why the store takes no writes, in the system's words.
    store_fault: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

impl AdminState {
    /// The state of a broker that starts. `gauges` is called for every report and must not block;
    /// `durability` is the setting's word.
    pub fn new(
        telemetry: Arc<Telemetry>,
        listeners: Vec<(String, Arc<ListenerGate>)>,
        gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
        durability: &'static str,
    ) -> AdminState {
        let instruments = Instruments::new(telemetry, listeners, gauges, durability);
        AdminState {
            instruments: Arc::new(instruments),
            phase: AtomicU8::new(NodePhase::Starting as u8),
            store_fault: Box::new(|| None),
        }
    }

    /// With the links to other brokers.
    pub fn with_bridges(mut self, bridges: Arc<Bridges>) -> AdminState {
        if let Some(instruments) = Arc::get_mut(&mut self.instruments) {
            instruments.bridges = bridges;
        }
        self
    }

    /// With the other sites.
    pub fn with_sites(mut self, sites: Option<Arc<SiteNode>>) -> AdminState {
        if let Some(instruments) = Arc::get_mut(&mut self.instruments) {
            instruments.sites = sites;
        }
        self
    }

    /// With what tells why the store takes no writes; it must not block.
    pub fn with_store_fault(
        mut self,
        store_fault: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> AdminState {
        self.store_fault = Box::new(store_fault);
        self
    }

    /// Why the store takes no writes; `None` when it does.
    pub fn store_fault(&self) -> Option<String> {
        (self.store_fault)()
    }

    /// The broker is in this phase from now on.
    pub fn set_phase(&self, phase: NodePhase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The present phase.
    pub fn phase(&self) -> NodePhase {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == NodePhase::Starting as u8 => NodePhase::Starting,
            phase if phase == NodePhase::Ready as u8 => NodePhase::Ready,
            _ => NodePhase::Stopping,
        }
    }
}
