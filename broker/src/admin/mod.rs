//! The HTTP listener: `/health`, `/ready` and `/metrics` for whoever watches the broker, and the API
//! below `/v1` for users, back ends and operators.
//!
//! State owned here: the phase of the broker's life, and the HTTP connections. It all runs on the
//! control runtime, never on a thread that serves MQTT. Deliberately not here: what is counted
//! ([`telemetry`](crate::telemetry)), and the rules that calls are judged by (`hoopoe-im`).

mod phase;
mod routes;
mod server;
mod v1;

pub use crate::telemetry::Gauges;
pub use phase::{AdminState, NodePhase};
pub use server::serve;
pub use v1::Api;

#[cfg(test)]
mod tests;
