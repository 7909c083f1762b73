//! Users who chat, for the crash test and the simulation: their devices as any client library
//! would be one, and a judge who holds everything they see against a model of conversations that
//! is small enough to be obviously right.
//!
//! `cast` says who takes part, `script` what they do, `device` is one connected client without a
//! socket. All that happens is an `event` noted with the `judge`: what can never be is found at
//! once, what needs whole logs by the `verdict`, when everything has come to rest and each user
//! has told its list and pulled its conversations. `log` is the model.

pub mod cast;
pub mod device;
pub mod entry;
pub mod event;
pub mod judge;
pub mod log;
pub mod script;
mod sight;
mod verdict;

pub use cast::{Cast, Conv, DeviceRole};
pub use device::Device;
pub use judge::{Fault, Judge};

#[cfg(test)]
mod tests;
