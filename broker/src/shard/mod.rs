//! The threads around the store: one writer per shard, and a pool of readers.
//!
//! No rule of MQTT lives here: shards step a [`ShardView`](hoopoe_store::ShardView), readers ask a
//! [`Reader`](hoopoe_store::Reader), both carry the results to workers.

mod effects;
mod reader;
mod task;

#[cfg(test)]
mod tests;

pub use effects::{route_restored, start_outbox};
pub use reader::{QueuePage, ReadJob, RetainedPage, carry_out, run_reader};
pub use task::{Shard, ShardParts, run_shard};
