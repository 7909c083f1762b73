//! The parts of a session that are pure protocol: what is in flight towards the client, in which
//! order its own packets are acknowledged, which aliases hold, how far its queue is delivered.
//!
//! Each part is a small step: it is fed and asked, it performs nothing. The connection that
//! drives a session owns one of each.

pub mod alias;
pub mod answers;
pub mod feed;
pub mod incoming;
pub mod window;

pub use alias::{InboundAliases, OutboundAliases};
pub use answers::Answers;
pub use feed::Feed;
pub use incoming::{Incoming, Received};
pub use window::{Unknown, Window};
