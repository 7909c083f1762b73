//! Sans-IO MQTT: ids, publications, routes, the subscription index and the session step.
//!
//! Nothing here knows sockets, threads, clocks or randomness: time and identifiers come in as
//! arguments, effects go out as values.

pub mod id;
pub mod index;
#[cfg(feature = "planted")]
pub mod planted;
pub mod publication;
pub mod route;
pub mod seldom;
pub mod session;

pub use id::{Location, PacketIdent, SLOTS, SessionId, SessionKey, Slot};
pub use publication::{Publication, PublicationParts, seconds_left};
pub use route::{QueueLimits, Route, Subscription};
