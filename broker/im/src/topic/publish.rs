//! What a client's PUBLISH below `im/` means (profile, section 3).

use super::{MOST_LEVELS, MentionFault, Mentions, TopicError, split};
use crate::id::is_id;
use hoopoe_codec::ReasonCode;

/// The longest time a message may be left to burn, in seconds: a week.
pub const MAX_BURN_SECS: u32 = 604_800;

/// The meaning of a topic that a client publishes to. Every id in it has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published<'a> {
    /// `im/{u,g,c}/{id}/msg[/{cid}[/at/{u1,u2}]]`
    Message {
        /// The conversation, as the sender calls it.
        to: Target<'a>,
        /// The client message id.
        cid: Option<&'a str>,
        /// A checked list, to be read by [`Mentions::parse`].
        mentions: Option<&'a str>,
    },
    /// `im/u/{user}/burn/{seconds}[/{cid}]`
    Burn {
        /// The receiver.
        user: &'a str,
        /// How long after it was read.
        seconds: u32,
        /// The client message id.
        cid: Option<&'a str>,
    },
    /// `im/r/{room}/msg[/{lane}]`
    RoomMessage {
        /// The room.
        room: &'a str,
        /// The lane; `chat` when none is named.
        lane: Lane,
    },
    /// `im/{u,g,r}/{id}/sig/{kind}`
    Signal {
        /// Who is to hear it.
        to: SignalTarget<'a>,
        /// A word of the client's.
        kind: &'a str,
    },
    /// `im/me/cur/{u,g,c}/{id}/{read,recv}/{seq}`
    Cursor {
        /// The conversation.
        conv: Target<'a>,
        /// Which of the two cursors.
        which: Position,
        /// Where it moves to.
        seq: u64,
    },
    /// `im/me/op/{recall,edit,react}/{u,g,c}/{id}/{seq}`
    Operation {
        /// What is done to the message.
        op: Operation,
        /// The conversation.
        conv: Target<'a>,
        /// The message; from 1 on.
        seq: u64,
    },
    /// `im/me/st/{show}`
    Status {
        /// online, away, busy, dnd, invisible or an own word.
        show: &'a str,
    },
    /// `im/me/bg`
    Background,
    /// `im/me/fg`
    Foreground,
    /// `im/svc/{service}/{op}[/{req}]`
    Service {
        /// The service; whether there is one of that name is not decided here.
        service: &'a str,
        /// Its operation.
        op: &'a str,
        /// The request id of the form without Response Topic.
        req: Option<&'a str>,
    },
}

/// A stored conversation as its member calls it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// The conversation with this user.
    User(&'a str),
    /// This group's.
    Group(&'a str),
    /// This channel's.
    Channel(&'a str),
}

/// Who is to hear a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignalTarget<'a> {
    /// A user.
    User(&'a str),
    /// The members of a group.
    Group(&'a str),
    /// Those in a room.
    Room(&'a str),
}

/// A lane of a room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Lost last: gifts, announcements.
    Hi,
    /// Talk.
    Chat,
    /// Merged into counters.
    Like,
}

impl Lane {
    /// Its level in topics.
    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Hi => "hi",
            Lane::Chat => "chat",
            Lane::Like => "like",
        }
    }

    /// The lane of a level.
    pub fn parse(level: &str) -> Option<Lane> {
        match level {
            "hi" => Some(Lane::Hi),
            "chat" => Some(Lane::Chat),
            "like" => Some(Lane::Like),
            _ => None,
        }
    }
}

/// A position of a member in a conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Position {
    /// Read up to here.
    Read,
    /// Received up to here.
    Recv,
}

impl Position {
    /// Its level in topics.
    pub fn as_str(self) -> &'static str {
        match self {
            Position::Read => "read",
            Position::Recv => "recv",
        }
    }
}

/// What is done to a stored message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// Its content is taken back.
    Recall,
    /// Its content is replaced.
    Edit,
    /// A reaction is set or taken back.
    React,
}

impl Operation {
    /// Its level in topics.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Recall => "recall",
            Operation::Edit => "edit",
            Operation::React => "react",
        }
    }
}

/// What a client's PUBLISH to this topic means.
///
/// # Errors
///
/// 0x87 for trees that only the broker publishes to, 0x97 for too many mentions, and 0x90 for
/// everything else that section 3 of the profile does not name (ruling 15).
pub fn parse_publish(topic: &str) -> Result<Published<'_>, TopicError> {
    let mut room = [""; MOST_LEVELS];
    match split(topic, &mut room) {
        ["im", "me", rest @ ..] => own(rest),
        ["im", "svc", rest @ ..] => service(rest),
        ["im", "u", user, "burn", rest @ ..] => burn(user, rest),
        ["im", "r", room, "msg", rest @ ..] => room_message(room, rest),
        ["im", "r", _, "stat"] => Err(TopicError::closed("im/r/{room}/stat: the broker's own")),
        ["im", letter @ ("u" | "g" | "r"), id, "sig", rest @ ..] => signal(letter, id, rest),
        ["im", letter @ ("u" | "g" | "c"), id, "msg", rest @ ..] => message(letter, id, rest),
        ["im", "u" | "g" | "c" | "r", ..] => {
            Err(TopicError::topic("im/{u,g,c,r}/{id}/…: no such topic to publish to"))
        }
        _ => Err(TopicError::topic("im/…: no such topic to publish to")),
    }
}

fn message<'a>(letter: &str, id: &'a str, rest: &[&'a str]) -> Result<Published<'a>, TopicError> {
    let to = target(letter, id)?;
    let (cid, mentions) = match *rest {
        [] => (None, None),
        [cid] => (Some(cid), None),
        [cid, "at", users] => (Some(cid), Some(users)),
        _ => {
            let what = "im/{u,g,c}/{id}/msg: at most {cid}/at/{users} follows";
            return Err(TopicError::topic(what));
        }
    };
    let cid = cid.map(client_message_id).transpose()?;
    if let Some(users) = mentions {
        Mentions::parse(users).map_err(|fault| match fault {
            MentionFault::NotAnId => {
                TopicError::topic("…/msg/{cid}/at/{users}: user ids with commas between them")
            }
            MentionFault::TooMany => TopicError {
                reason: ReasonCode::QuotaExceeded,
                what: "…/msg/{cid}/at/{users}: at most 50 users",
            },
        })?;
    }
    Ok(Published::Message { to, cid, mentions })
}

fn burn<'a>(user: &'a str, rest: &[&'a str]) -> Result<Published<'a>, TopicError> {
    let user = checked(user, "im/u/{user}/burn: the user is no valid id")?;
    let (seconds, cid) = match *rest {
        [seconds] => (seconds, None),
        [seconds, cid] => (seconds, Some(cid)),
        _ => return Err(TopicError::topic("im/u/{user}/burn: {seconds}[/{cid}] follows")),
    };
    let seconds = number(seconds)
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| (1..=MAX_BURN_SECS).contains(seconds))
        .ok_or(TopicError::topic("im/u/{user}/burn/{seconds}: a number from 1 to 604800"))?;
    let cid = cid.map(client_message_id).transpose()?;
    Ok(Published::Burn { user, seconds, cid })
}

fn room_message<'a>(room: &'a str, rest: &[&'a str]) -> Result<Published<'a>, TopicError> {
    let room = checked(room, "im/r/{room}/msg: the room is no valid id")?;
    let lane = match *rest {
        [] => Some(Lane::Chat),
        [lane] => Lane::parse(lane),
        _ => None,
    };
    let lane = lane.ok_or(TopicError::topic("im/r/{room}/msg/{lane}: hi, chat or like"))?;
    Ok(Published::RoomMessage { room, lane })
}

fn signal<'a>(letter: &str, id: &'a str, rest: &[&'a str]) -> Result<Published<'a>, TopicError> {
    let id = checked(id, "im/{u,g,r}/{id}/sig: no valid id")?;
    let to = match letter {
        "u" => SignalTarget::User(id),
        "g" => SignalTarget::Group(id),
        _ => SignalTarget::Room(id),
    };
    match *rest {
        [kind] if is_id(kind) => Ok(Published::Signal { to, kind }),
        _ => Err(TopicError::topic("im/{u,g,r}/{id}/sig/{kind}: one word in the alphabet of ids")),
    }
}

/// Below `im/me/`.
fn own<'a>(levels: &[&'a str]) -> Result<Published<'a>, TopicError> {
    match *levels {
        ["cur", letter, id, which, seq] => cursor(letter, id, which, seq),
        ["op", op, letter, id, seq] => operation(op, letter, id, seq),
        ["st", show] if is_id(show) => Ok(Published::Status { show }),
        ["bg"] => Ok(Published::Background),
        ["fg"] => Ok(Published::Foreground),
        ["cur", ..] => Err(TopicError::topic("im/me/cur: {u,g,c}/{id}/{read,recv}/{seq} follows")),
        ["op", ..] => {
            Err(TopicError::topic("im/me/op: {recall,edit,react}/{u,g,c}/{id}/{seq} follows"))
        }
        ["st", ..] => Err(TopicError::topic("im/me/st/{show}: one word in the alphabet of ids")),
        ["in" | "sig" | "pr" | "sys" | "res", ..] => Err(TopicError::closed(
            "im/me/{in,sig,pr,sys,res}: only the broker publishes into an inbox",
        )),
        _ => Err(TopicError::topic("im/me/…: no such topic to publish to")),
    }
}

fn cursor<'a>(
    letter: &str,
    id: &'a str,
    which: &str,
    seq: &str,
) -> Result<Published<'a>, TopicError> {
    let conv = target(letter, id)?;
    let which = match which {
        "read" => Position::Read,
        "recv" => Position::Recv,
        _ => {
            return Err(TopicError::topic("im/me/cur/{u,g,c}/{id}/{which}: read or recv"));
        }
    };
    let seq = number(seq)
        .ok_or(TopicError::topic("im/me/cur/{u,g,c}/{id}/{which}/{seq}: not a number"))?;
    Ok(Published::Cursor { conv, which, seq })
}

fn operation<'a>(
    op: &str,
    letter: &str,
    id: &'a str,
    seq: &str,
) -> Result<Published<'a>, TopicError> {
    let op = match op {
        "recall" => Operation::Recall,
        "edit" => Operation::Edit,
        "react" => Operation::React,
        _ => return Err(TopicError::topic("im/me/op/{op}: recall, edit or react")),
    };
    let conv = target(letter, id)?;
    let seq = number(seq)
        .filter(|seq| *seq > 0)
        .ok_or(TopicError::topic("im/me/op/{op}/{u,g,c}/{id}/{seq}: a number from 1 on"))?;
    Ok(Published::Operation { op, conv, seq })
}

fn service<'a>(levels: &[&'a str]) -> Result<Published<'a>, TopicError> {
    let (service, op, req) = match *levels {
        [service, op] => (service, op, None),
        [service, op, req] => (service, op, Some(req)),
        _ => return Err(TopicError::topic("im/svc: {service}/{op}[/{req}] follows")),
    };
    let service = checked(service, "im/svc/{service}: no valid name")?;
    let op = checked(op, "im/svc/{service}/{op}: no valid name")?;
    let req = req.map(|req| checked(req, "im/svc/{service}/{op}/{req}: no valid id"));
    Ok(Published::Service { service, op, req: req.transpose()? })
}

fn target<'a>(letter: &str, id: &'a str) -> Result<Target<'a>, TopicError> {
    match letter {
        "u" => checked(id, "im/…/u/{user}: the user is no valid id").map(Target::User),
        "g" => checked(id, "im/…/g/{group}: the group is no valid id").map(Target::Group),
        "c" => checked(id, "im/…/c/{channel}: the channel is no valid id").map(Target::Channel),
        _ => Err(TopicError::topic("im/me/…/{u,g,c}/{id}: u, g or c")),
    }
}

fn client_message_id(level: &str) -> Result<&str, TopicError> {
    checked(level, "im/…/{cid}: the client message id is no valid id")
}

fn checked<'a>(level: &'a str, what: &'static str) -> Result<&'a str, TopicError> {
    if is_id(level) { Ok(level) } else { Err(TopicError::topic(what)) }
}

/// A decimal number in its one spelling: neither sign nor leading zeros.
fn number(level: &str) -> Option<u64> {
    let plain = level.bytes().all(|byte| byte.is_ascii_digit());
    let spelled = plain && (level == "0" || !level.starts_with('0'));
    if spelled { level.parse().ok() } else { None }
}
