//! Links between MQTT brokers.
//!
//! A link joins a *local end* and a *remote end*. The local end is a client with a stored session at
//! the local broker: what waits to be sent waits in that session's queue, in the broker's store, with
//! its limits and its durability. The remote end is a client of the other broker. Between them
//! [`Link`] passes messages and acknowledgements through; it keeps nothing that a crash could lose.
//! README.md in this folder has the reasons.
//!
//! [`link`](Link) is the step, [`run`] its task; `rules` names topics, `via` stops circles, `noted`
//! remembers subscriptions, `dial` and `websocket` reach the other broker. Not here: the local
//! broker, which hands in its end as a stream of bytes ([`LocalEnd`]), and the reading of settings
//! files.

mod backoff;
mod conn;
mod dial;
mod greeting;
mod link;
mod noted;
mod rules;
mod settings;
mod status;
mod task;
mod via;
mod websocket;

pub use dial::{AnyWire, Wire};
pub use greeting::Lost;
pub use link::{Encoder, End, Link, LinkFault, Sink, Takes};
pub use rules::Rules;
pub use settings::{
    Direction, LOCAL_PREFIX, LinkSettings, RemoteUrl, Rule, RuleFault, Scheme, Start, UrlError,
    local_client_id,
};
pub use status::{Counts, LastError, State, Status};
pub use task::{LinkParts, LocalEnd, Order, forget, run};
pub use via::{BROKER_ID, VIA, Via, Way, stays};

/// The user property of CONNECT by which a link tells its local broker that the remote one has
/// forgotten its unfinished publications: their identifiers begin anew (value `new`).
pub const INCOMING: &str = "hoopoe-incoming";

/// What a link hears from its local broker once everything that was retained under one of its filters
/// stands in its queue: it comes by that queue, behind all of it, with the filter as its payload.
pub const SCANNED: &str = "$bridge/scanned";
