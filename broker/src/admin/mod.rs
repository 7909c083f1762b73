//! The HTTP listener, with `/health`, `/ready` and `/metrics` for whoever watches the broker and the
//! API below `/v1` for users, back ends and operators; and a socket in the data folder for programs
//! on this machine.
//!
//! State owned here: the phase of the broker's life, the HTTP connections, and the snapshot that is
//! lent out for a backup. It all runs on the control runtime, never on a thread that serves MQTT.
//! Deliberately not here: what is counted ([`telemetry`](crate::telemetry)), and the rules that
//! calls are judged by (`hoopoe-im`).

pub mod control;
mod phase;
mod routes;
mod server;
mod unread;
mod v1;

pub use crate::telemetry::Gauges;
pub use phase::{AdminState, NodePhase};
pub use server::serve;
pub use v1::{AdminToken, Api};

#[cfg(test)]
mod tests;
