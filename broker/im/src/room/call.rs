//! What the service `room` asks of one room.

use super::Ticket;
use crate::id::is_id;
use crate::refusal::Refusal;
use crate::service::Op;
use crate::service::ops::{RoomCreate, RoomRole, RoomUser, RoomUsers};
use crate::service::query::page_size;

/// Longest name of a room, in bytes.
const NAME_BYTES: usize = 256;
/// Users of one invitation.
const MOST_INVITED: usize = 200;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The authenticated user.
    pub user: &'a str,
    /// May do what an owner may, in every room.
    pub admin: bool,
}

/// One request. Times are ms since the epoch; no `until` is for ever, one in the past undoes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomCall {
    /// A room comes to be; without an id the broker makes one.
    Create {
        /// For people.
        name: String,
        /// Who may come in.
        ticket: Ticket,
    },
    /// What there is to know about a room.
    Info,
    /// A user, or everybody but owner and moderators, does not speak.
    Mute {
        /// Who; `None` is everybody.
        user: Option<String>,
        /// How long.
        until: Option<u64>,
    },
    /// A user, or everybody, speaks again.
    Unmute {
        /// Who; `None` is everybody.
        user: Option<String>,
    },
    /// A user leaves and does not come back.
    Ban {
        /// Who.
        user: String,
        /// How long.
        until: Option<u64>,
    },
    /// A user may come in and speak again.
    Unban {
        /// Who.
        user: String,
    },
    /// Everybody leaves.
    Close,
    /// Some of those who are here.
    Members {
        /// How many.
        limit: usize,
    },
    /// Users may come in although an invitation is needed.
    Invite {
        /// Who.
        users: Vec<String>,
    },
    /// A user helps the owner, or does no more.
    Role {
        /// Who.
        user: String,
        /// Helps.
        moderator: bool,
    },
}

/// The room that an operation names (none in a `create` without an id) and what is asked of it;
/// `None` for operations of other services.
///
/// # Errors
/// Names the field that is wrong.
pub fn room_call(op: &Op) -> Option<Result<(Option<String>, RoomCall), Refusal>> {
    let of_room = |room: &String, call: Result<RoomCall, Refusal>| {
        check_id("room", room)?;
        Ok((Some(room.clone()), call?))
    };
    Some(match op {
        Op::RoomCreate(create) => creation(create),
        Op::RoomInfo(of) => of_room(&of.room, Ok(RoomCall::Info)),
        Op::RoomClose(of) => of_room(&of.room, Ok(RoomCall::Close)),
        Op::RoomMute(of) => of_room(&of.room, anyone(of).map(|user| mute(user, of.until))),
        Op::RoomUnmute(of) => of_room(&of.room, anyone(of).map(|user| RoomCall::Unmute { user })),
        Op::RoomBan(of) => {
            let ban = |user| RoomCall::Ban { user, until: of.until };
            of_room(&of.room, someone(of).map(ban))
        }
        Op::RoomUnban(of) => of_room(&of.room, someone(of).map(|user| RoomCall::Unban { user })),
        Op::RoomMembers(of) => {
            of_room(&of.room, page_size(of.limit).map(|limit| RoomCall::Members { limit }))
        }
        Op::RoomInvite(of) => of_room(&of.room, invitation(of)),
        Op::RoomRole(of) => of_room(&of.room, role(of)),
        _ => return None,
    })
}

fn creation(create: &RoomCreate) -> Result<(Option<String>, RoomCall), Refusal> {
    if let Some(room) = &create.room {
        check_id("room", room)?;
    }
    let name = create.name.clone().unwrap_or_default();
    if name.len() > NAME_BYTES {
        return Err(Refusal::bad_request("name: longer than 256 bytes"));
    }
    Ok((create.room.clone(), RoomCall::Create { name, ticket: create.ticket }))
}

fn mute(user: Option<String>, until: Option<u64>) -> RoomCall {
    RoomCall::Mute { user, until }
}

fn anyone(of: &RoomUser) -> Result<Option<String>, Refusal> {
    if let Some(user) = &of.user {
        check_id("user", user)?;
    }
    Ok(of.user.clone())
}

fn someone(of: &RoomUser) -> Result<String, Refusal> {
    anyone(of)?.ok_or_else(|| Refusal::bad_request("user: missing"))
}

fn invitation(of: &RoomUsers) -> Result<RoomCall, Refusal> {
    if of.users.len() > MOST_INVITED {
        return Err(Refusal::bad_request("users: more than 200"));
    }
    of.users.iter().try_for_each(|user| check_id("users", user))?;
    Ok(RoomCall::Invite { users: of.users.clone() })
}

fn role(of: &RoomRole) -> Result<RoomCall, Refusal> {
    check_id("user", &of.user)?;
    let moderator = of.role == crate::service::ops::RoomRank::Moderator;
    Ok(RoomCall::Role { user: of.user.clone(), moderator })
}

fn check_id(field: &'static str, id: &str) -> Result<(), Refusal> {
    if is_id(id) { Ok(()) } else { Err(Refusal::bad_request(format!("{field}: not an id"))) }
}
