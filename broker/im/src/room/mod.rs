//! Live rooms: thousands of viewers, nothing stored, loss by lane.
//!
//! The step of one room ([`Room`]) and of one receiver of it ([`Shaper`]). A room in memory is who
//! is in it, the ring of its last messages and what is being counted; what survives a restart is
//! its [`RoomRow`] alone (owner, name, ticket, mutes, bans), never a word of what was said.
//!
//! Deliberately not here: connections, who carries a message to which worker, and where rows are
//! written. Times come in as arguments, in ms since the epoch.

mod bucket;
mod call;
mod likes;
mod message;
mod moderation;
mod ring;
mod row;
mod settings;
mod shaper;
mod state;

pub use call::{Caller, RoomCall};
pub use message::{Lane, RoomMessage, sender_hash};
pub use moderation::{Evicted, Moderated};
pub use row::{FOR_EVER, RoomRow, Ticket};
pub use settings::{RoomSettings, SendRate};
pub use shaper::{Flow, Shaper, ShaperRates};
pub use state::{Joined, Left, Post, Posted, Room, RoomOutput};

use std::borrow::Cow;

use hoopoe_codec::ReasonCode;

/// Why a room did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct RoomRefusal {
    /// The reason code for MQTT 5, legal in PUBACK and SUBACK.
    pub code: ReasonCode,
    /// The word of a service's error answer.
    pub word: &'static str,
    /// Words for people.
    pub text: Cow<'static, str>,
}

impl RoomRefusal {
    fn not_allowed(text: &'static str) -> RoomRefusal {
        RoomRefusal { code: ReasonCode::NotAuthorized, word: "not_allowed", text: text.into() }
    }

    fn limit(text: &'static str) -> RoomRefusal {
        RoomRefusal { code: ReasonCode::QuotaExceeded, word: "limit", text: text.into() }
    }

    fn exists(text: &'static str) -> RoomRefusal {
        RoomRefusal { code: ReasonCode::NotAuthorized, word: "exists", text: text.into() }
    }

    fn bad_request(text: impl Into<Cow<'static, str>>) -> RoomRefusal {
        let code = ReasonCode::PayloadFormatInvalid;
        RoomRefusal { code, word: "bad_request", text: text.into() }
    }

    /// There is no such room.
    pub fn not_found() -> RoomRefusal {
        let text = "there is no such room".into();
        RoomRefusal { code: ReasonCode::NotAuthorized, word: "not_found", text }
    }

    /// The user is in as many rooms as a user may be.
    pub fn too_many_joined() -> RoomRefusal {
        RoomRefusal::limit("you are in as many rooms as a user may join")
    }

    /// The user owns as many rooms as a user may.
    pub fn too_many_owned() -> RoomRefusal {
        RoomRefusal::limit("you own as many rooms as a user may")
    }

    /// The node holds as many rooms as it may.
    pub fn too_many_rooms() -> RoomRefusal {
        RoomRefusal::limit("there are as many rooms as this broker may hold")
    }
}

#[cfg(test)]
mod tests;
