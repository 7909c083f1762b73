//! Live rooms: thousands of viewers, nothing stored, loss by lane.
//!
//! The step of one room ([`Room`]) and of one receiver of it ([`Shaper`]). A room in memory is who
//! is in it, the ring of its last messages and what is being counted; what survives a restart is
//! its [`RoomRow`] alone (owner, name, ticket, mutes, bans), never a word of what was said.
//!
//! Deliberately not here: connections, who carries a message to which worker, and where rows are
//! written. Times come in as arguments, in ms since the epoch.

mod away;
mod bucket;
mod call;
mod keep;
mod likes;
mod message;
mod moderation;
mod ring;
mod row;
mod settings;
mod shaper;
mod state;

pub use away::Relayed;
pub use call::{Caller, RoomCall, room_call};
pub use keep::{KeepRoom, stored_rooms};
pub use message::{RoomMessage, sender_hash, signal, stat};
pub use moderation::{Evicted, Moderated};
pub use row::{FOR_EVER, RoomRow};
pub use settings::{RoomSettings, SendRate};
pub use shaper::{Flow, Shaper, ShaperRates};
pub use state::{Joined, Left, Post, Posted, Room, RoomOutput};

pub use crate::service::ops::Ticket;

#[cfg(test)]
mod tests;
