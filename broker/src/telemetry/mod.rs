//! What the broker counts, and how it tells: the metrics of `/metrics`, the `$SYS`
//! topics, and word to the service manager.
//!
//! Each worker and shard counts into atomics of its own, which nobody else writes: counting costs
//! a plain addition. Whoever reports adds them up. There is no registry of metrics: the families
//! are spelled in [`metrics`](self::metrics()), the topics in [`SystemReport`].
//!
//! State owned here: the counters, the present `$SYS` values and their moving averages.
//! Deliberately not here: the HTTP listener, and what `/ready` says.

mod buckets;
mod counters;
mod exposition;
mod instruments;
mod load;
mod metrics;
mod process;
mod system_report;
mod system_topics;
pub mod systemd;

pub use buckets::{BATCH_COMMANDS, Buckets, COMMIT_MICROS};
pub use counters::{Counter, Dropped, ShardCounters, Telemetry, WorkerCounters};
pub use instruments::{Build, Gauges, ImGauges, Instruments};
pub use metrics::metrics;
pub use process::resident_memory;
pub use system_report::{SystemReport, publish_system};
pub use system_topics::SystemTopics;
