//! The operators' side of the broker: an HTTP listener with `/health`, `/ready` and `/metrics`,
//! and word to the service manager.
//!
//! State owned here: the phase of the broker's life, and the HTTP connections. It all runs on the
//! control runtime, never on a thread that serves MQTT. Deliberately not here: what is counted
//! ([`telemetry`](crate::telemetry)), and any way to change the broker; there is no login.

mod phase;
mod routes;
mod server;
mod service_manager;

pub use phase::{AdminState, Phase};
pub use server::serve;
pub use service_manager::{
    notify_ready, notify_reloading, notify_status, notify_stopping, watch, watchdog_interval,
};

#[cfg(test)]
mod tests;
