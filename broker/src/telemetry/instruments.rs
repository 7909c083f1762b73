//! Everything a report reads, in one place: counters, listeners, and what is looked up on demand.
//!
//! Owns the moment the broker started, and nothing that changes.

use hoopoe_im::overload::Shed;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Telemetry;
use crate::bridges::{BridgeReport, Bridges};
use crate::im::sites::{SiteNode, SiteReport};
use crate::transport::ListenerGate;

/// Numbers that nobody counts along the way: the node looks them up when asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Stored sessions, their clients connected or not.
    pub stored_sessions: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Different filters among the subscriptions.
    pub filters: u64,
    /// Groups of shared subscriptions.
    pub shared_groups: u64,
    /// Retained messages, `$SYS` not included.
    pub retained_messages: u64,
    /// Messages in stored queues, waiting or unacknowledged, once per receiver.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Letters in the mailboxes of all workers.
    pub worker_letters: u64,
    /// Commands in the mailboxes of all shards.
    pub shard_letters: u64,
    /// Jobs that wait for a reader.
    pub reader_jobs: u64,
    /// The IM profile's retention and pushes.
    pub im: ImGauges,
}

/// What the IM profile counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImGauges {
    /// Entries that retention has taken.
    pub entries_taken: u64,
    /// Messages that the push gateway has taken.
    pub pushes_sent: u64,
    /// Requests to it that failed.
    pub pushes_failed: u64,
    /// Conversations whose pushes were given up.
    pub pushes_given_up: u64,
    /// Conversations that wait to be pushed.
    pub pushes_waiting: u64,
    /// How many classes of things are given up at the moment.
    pub overload_level: u8,
    /// How many of each class have been.
    pub shed: [u64; Shed::ALL.len()],
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

/// What reports are made from.
pub struct Instruments {
    /// The counters of workers and shards.
    pub telemetry: Arc<Telemetry>,
    /// The listeners by URL: a set that the configuration bounds.
    pub listeners: Vec<(String, Arc<ListenerGate>)>,
    /// What runs.
    pub build: Build,
    /// How durable acknowledgements are: `sync`, `os` or `memory`.
    pub durability: &'static str,
    /// The links to other brokers: a set that the configuration bounds.
    pub bridges: Arc<Bridges>,
    /// The other sites, when there are any: a set that the configuration bounds.
    pub sites: Option<Arc<SiteNode>>,
    gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
    started: Instant,
    started_at: SystemTime,
}

impl Instruments {
    /// Instruments of a broker that starts now. `gauges` is called for every report and must not
    /// block.
    pub fn new(
        telemetry: Arc<Telemetry>,
        listeners: Vec<(String, Arc<ListenerGate>)>,
        gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
        durability: &'static str,
    ) -> Instruments {
        Instruments {
            telemetry,
            listeners,
            build: Build::THIS,
            durability,
            bridges: Arc::default(),
            sites: None,
            gauges,
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    /// How each link is doing, by its name.
    pub fn links(&self) -> Vec<(&str, BridgeReport)> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let links = self.bridges.links().iter();
        links.map(|link| (link.name.as_str(), link.report(now.as_millis() as u64))).collect()
    }

    /// How the line to each other site is doing, by its name.
    pub fn site_lines(&self) -> Vec<(&str, SiteReport)> {
        self.sites.as_ref().map(|sites| sites.reports()).unwrap_or_default()
    }

    /// The gauges of this moment.
    pub fn gauges(&self) -> Gauges {
        (self.gauges)()
    }

    /// Stored sessions whose clients are not connected.
    pub fn sessions_away(&self, gauges: &Gauges) -> u64 {
        // The two are read one after the other, so the difference may be off for a moment.
        let connected = self.telemetry.sum(|worker| worker.stored_sessions.get());
        gauges.stored_sessions.saturating_sub(connected)
    }

    /// How long the broker has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the broker started, in seconds since the epoch.
    pub fn started_at_secs(&self) -> f64 {
        let since = self.started_at.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    }
}
