//! The operators' side of the broker: an HTTP listener with `/health`, `/ready` and `/metrics`, and
//! a socket in the data folder for programs on this machine.
//!
//! State owned here: the phase of the broker's life, the HTTP connections, and the snapshot that is
//! lent out for a backup. It all runs on the control runtime, never on a thread that serves MQTT.
//! Deliberately not here: what is counted ([`telemetry`](crate::telemetry)), and any way to change
//! the broker over HTTP; there is no login.

pub mod control;
mod phase;
mod routes;
mod server;

pub use crate::telemetry::Gauges;
pub use phase::{AdminState, NodePhase};
pub use server::serve;

#[cfg(test)]
mod tests;
