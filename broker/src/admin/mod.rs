//! The operators' side of the broker: an HTTP listener with `/health`, `/ready` and `/metrics`.
//!
//! State owned here: the phase of the broker's life, and the HTTP connections. It all runs on the
//! control runtime, never on a thread that serves MQTT. Deliberately not here: what is counted
//! ([`telemetry`](crate::telemetry)), and any way to change the broker; there is no login.

mod phase;
mod routes;
mod server;

pub use crate::telemetry::Gauges;
pub use phase::{AdminState, NodePhase};
pub use server::serve;

#[cfg(test)]
mod tests;
