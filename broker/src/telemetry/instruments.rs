//! Everything a report reads, in one place: counters, listeners, and what is looked up on demand.
//!
//! Owns nothing that changes, but for the moment the process began.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::Telemetry;
use crate::transport::ListenerGate;

/// Numbers that nobody counts along the way: the node looks them up when asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Stored sessions, their clients connected or not.
    pub sessions_stored: u64,
    /// Stored sessions whose clients are not connected.
    pub sessions_away: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Different filters among the subscriptions.
    pub filters: u64,
    /// Groups of shared subscriptions.
    pub shared_groups: u64,
    /// Retained messages, `$SYS` not included.
    pub retained: u64,
    /// Messages that wait in stored queues, once per receiver.
    pub queued_messages: u64,
    /// Letters in the mailboxes of all workers.
    pub worker_mail: u64,
    /// Commands in the mailboxes of all shards.
    pub shard_mail: u64,
    /// Jobs that wait for a reader.
    pub reader_mail: u64,
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The version of the program.
    pub version: &'static str,
    /// The commit it was built from, when the build knew it (`HOOPOE_REVISION`).
    pub revision: &'static str,
    /// `release` or `debug`.
    pub profile: &'static str,
}

impl Build {
    /// This program.
    pub const THIS: Build = Build {
        version: env!("CARGO_PKG_VERSION"),
        revision: match option_env!("HOOPOE_REVISION") {
            Some(revision) => revision,
            None => "unknown",
        },
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
    };
}

/// A listener as reports see it.
#[derive(Clone, Debug)]
pub struct ListenerInstrument {
    /// Its URL as configured: the set of them is bounded.
    pub url: String,
    /// Its counts.
    pub gate: Arc<ListenerGate>,
}

/// What reports are made from.
pub struct Instruments {
    /// The counters of workers and shards.
    pub telemetry: Arc<Telemetry>,
    /// What runs.
    pub build: Build,
    /// How durable acknowledgements are: `sync`, `os` or `memory`.
    pub durability: &'static str,
    listeners: OnceLock<Vec<ListenerInstrument>>,
    gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
    started: Instant,
    started_at: SystemTime,
}

impl Instruments {
    /// Instruments of a process that begins now. `gauges` is called for every report and must not
    /// block.
    pub fn new(
        telemetry: Arc<Telemetry>,
        durability: &'static str,
        gauges: impl Fn() -> Gauges + Send + Sync + 'static,
    ) -> Instruments {
        Instruments {
            telemetry,
            build: Build::THIS,
            durability,
            listeners: OnceLock::new(),
            gauges: Box::new(gauges),
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    /// Names the listeners, once they are bound; what is said first holds.
    pub fn set_listeners(&self, listeners: Vec<ListenerInstrument>) {
        let _ = self.listeners.set(listeners);
    }

    /// The listeners; none before they are bound.
    pub fn listeners(&self) -> &[ListenerInstrument] {
        self.listeners.get().map_or(&[], Vec::as_slice)
    }

    /// The gauges of this moment.
    pub fn gauges(&self) -> Gauges {
        (self.gauges)()
    }

    /// How long the process has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the process began, in seconds since the epoch.
    pub fn started_at_secs(&self) -> f64 {
        let since = self.started_at.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    }
}
