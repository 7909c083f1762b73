//! Where the broker is in its life, as `/ready` tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::telemetry::Instruments;

/// The phases of the broker's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// Not all listeners are open yet.
    Starting,
    /// Clients are served.
    Ready,
    /// Clients are told to go.
    Stopping,
}

impl Phase {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Stopping => "stopping",
        }
    }
}

/// What the HTTP listener answers from.
pub struct AdminState {
    /// The counters and all that reports read.
    pub instruments: Arc<Instruments>,
    phase: AtomicU8,
}

impl AdminState {
    /// The state of a broker that starts.
    pub fn new(instruments: Arc<Instruments>) -> AdminState {
        AdminState { instruments, phase: AtomicU8::new(Phase::Starting as u8) }
    }

    /// The broker is in this phase from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == Phase::Starting as u8 => Phase::Starting,
            phase if phase == Phase::Ready as u8 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }
}
