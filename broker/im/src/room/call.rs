//! Requests to the service `room`: their bodies, as `im-services` of the profile spells them.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Ticket;
use crate::id::is_id;
use crate::refusal::Refusal;

/// Longest name of a room, in bytes.
const NAME_BYTES: usize = 256;
/// Users named by a `members` answer that does not say how many.
const DEFAULT_SAMPLE: usize = 50;
/// The most of them.
const MOST_SAMPLE: usize = 200;
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
        /// Its id.
        room: Option<String>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    room: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    ticket: Ticket,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomBody {
    room: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserBody {
    room: String,
    user: Option<String>,
    until: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MembersBody {
    room: String,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteBody {
    room: String,
    users: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleWord {
    Moderator,
    Member,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    room: String,
    user: String,
    role: RoleWord,
}

impl RoomCall {
    /// The room that the body names (none in a `create` without) and what is asked of it. An
    /// empty body is `{}`.
    pub fn parse(operation: &str, body: &[u8]) -> Result<(Option<String>, RoomCall), Refusal> {
        let body = if body.is_empty() { b"{}" } else { body };
        let (room, call) = match operation {
            "create" => {
                let CreateBody { room, name, ticket } = read(body)?;
                if name.len() > NAME_BYTES {
                    return Err(Refusal::bad_request("name: longer than 256 bytes"));
                }
                let call = RoomCall::Create { room: room.clone(), name, ticket };
                if let Some(room) = &room {
                    check_id("room", room)?;
                }
                return Ok((room, call));
            }
            "info" => (read::<RoomBody>(body)?.room, RoomCall::Info),
            "close" => (read::<RoomBody>(body)?.room, RoomCall::Close),
            "mute" | "unmute" | "ban" | "unban" => {
                let body: UserBody = read(body)?;
                let call = of_user(operation, body.user, body.until)?;
                (body.room, call)
            }
            "members" => {
                let MembersBody { room, limit } = read(body)?;
                let limit = limit.unwrap_or(DEFAULT_SAMPLE).min(MOST_SAMPLE);
                (room, RoomCall::Members { limit })
            }
            "invite" => {
                let InviteBody { room, users } = read(body)?;
                if users.len() > MOST_INVITED {
                    return Err(Refusal::bad_request("users: more than 200"));
                }
                users.iter().try_for_each(|user| check_id("users", user))?;
                (room, RoomCall::Invite { users })
            }
            "role" => {
                let RoleBody { room, user, role } = read(body)?;
                check_id("user", &user)?;
                let moderator = matches!(role, RoleWord::Moderator);
                (room, RoomCall::Role { user, moderator })
            }
            _ => {
                let text = "the service room has no such operation";
                return Err(Refusal::bad_request(text));
            }
        };
        check_id("room", &room)?;
        Ok((Some(room), call))
    }
}

fn of_user(operation: &str, user: Option<String>, until: Option<u64>) -> Result<RoomCall, Refusal> {
    if let Some(user) = &user {
        check_id("user", user)?;
    }
    Ok(match (operation, user) {
        ("mute", user) => RoomCall::Mute { user, until },
        ("unmute", user) => RoomCall::Unmute { user },
        ("ban", Some(user)) => RoomCall::Ban { user, until },
        (_, Some(user)) => RoomCall::Unban { user },
        (_, None) => return Err(Refusal::bad_request("user: missing")),
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(error.to_string()))
}

fn check_id(field: &'static str, id: &str) -> Result<(), Refusal> {
    if is_id(id) { Ok(()) } else { Err(Refusal::bad_request(format!("{field}: not an id"))) }
}
