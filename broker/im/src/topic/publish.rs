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

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG: ReasonCode = ReasonCode::TopicNameInvalid;
    const CLOSED: ReasonCode = ReasonCode::NotAuthorized;
    const MANY: ReasonCode = ReasonCode::QuotaExceeded;

    #[test]
    fn every_row_of_section_3_is_understood() {
        use Published as P;
        use Target::{Channel, Group, User};
        let message = |to, cid, mentions| P::Message { to, cid, mentions };
        let burn = |seconds, cid| P::Burn { user: "bob", seconds, cid };
        let room = |lane| P::RoomMessage { room: "live", lane };
        let cursor = |conv, which, seq| P::Cursor { conv, which, seq };
        let operation = |op, conv, seq| P::Operation { op, conv, seq };
        let service = |op, req| P::Service { service: "sync", op, req };
        let table = [
            ("im/u/bob/msg", message(User("bob"), None, None)),
            ("im/u/bob/msg/c1", message(User("bob"), Some("c1"), None)),
            ("im/u/a@b.c:1_2-3/msg/c1", message(User("a@b.c:1_2-3"), Some("c1"), None)),
            ("im/g/team/msg", message(Group("team"), None, None)),
            ("im/g/team/msg/at", message(Group("team"), Some("at"), None)),
            ("im/g/team/msg/c1/at/all", message(Group("team"), Some("c1"), Some("all"))),
            ("im/g/team/msg/c1/at/a,b", message(Group("team"), Some("c1"), Some("a,b"))),
            ("im/g/msg/msg/msg", message(Group("msg"), Some("msg"), None)),
            ("im/c/news/msg", message(Channel("news"), None, None)),
            ("im/c/news/msg/c1", message(Channel("news"), Some("c1"), None)),
            ("im/r/live/msg", room(Lane::Chat)),
            ("im/r/live/msg/hi", room(Lane::Hi)),
            ("im/r/live/msg/chat", room(Lane::Chat)),
            ("im/r/live/msg/like", room(Lane::Like)),
            ("im/u/bob/sig/typing", P::Signal { to: SignalTarget::User("bob"), kind: "typing" }),
            ("im/g/team/sig/offer", P::Signal { to: SignalTarget::Group("team"), kind: "offer" }),
            ("im/r/live/sig/frame", P::Signal { to: SignalTarget::Room("live"), kind: "frame" }),
            ("im/me/cur/u/bob/read/17", cursor(User("bob"), Position::Read, 17)),
            ("im/me/cur/g/team/recv/0", cursor(Group("team"), Position::Recv, 0)),
            (
                "im/me/cur/c/news/read/18446744073709551615",
                cursor(Channel("news"), Position::Read, u64::MAX),
            ),
            ("im/u/bob/burn/1", burn(1, None)),
            ("im/u/bob/burn/604800/c1", burn(604_800, Some("c1"))),
            ("im/me/op/recall/u/bob/1", operation(Operation::Recall, User("bob"), 1)),
            ("im/me/op/edit/g/team/20", operation(Operation::Edit, Group("team"), 20)),
            ("im/me/op/react/c/news/3", operation(Operation::React, Channel("news"), 3)),
            ("im/me/st/dnd", P::Status { show: "dnd" }),
            ("im/me/st/on-tour", P::Status { show: "on-tour" }),
            ("im/me/bg", P::Background),
            ("im/me/fg", P::Foreground),
            ("im/svc/sync/heads", service("heads", None)),
            ("im/svc/sync/pull/r1", service("pull", Some("r1"))),
        ];
        for (topic, meaning) in table {
            assert_eq!(parse_publish(topic), Ok(meaning), "{topic}");
        }
    }

    fn check(table: &[(&str, ReasonCode)]) {
        for (topic, reason) in table {
            let error = parse_publish(topic).expect_err(topic);
            assert_eq!(error.reason, *reason, "{topic}: {error}");
            assert!(error.what.contains('/'), "{topic}: {error} names no place");
        }
    }

    #[test]
    fn what_no_row_names_is_refused() {
        let table = [
            // Not in the tree, or nowhere in it.
            ("im", WRONG),
            ("im/", WRONG),
            ("a/u/bob/msg", WRONG),
            ("/im/u/bob/msg", WRONG),
            ("im/x/bob/msg", WRONG),
            ("im//bob/msg", WRONG),
            ("im/u", WRONG),
            ("im/u/bob", WRONG),
            ("im/U/bob/msg", WRONG),
            // Internal topics.
            ("im/default/u/bob", WRONG),
            ("im/default/g/team", WRONG),
            ("im/u/u/bob", WRONG),
        ];
        check(&table);
    }

    #[test]
    fn messages_are_spelled_in_full() {
        let long = "x".repeat(65);
        let list = vec!["u"; 51].join(",");
        let table = [
            ("im/u//msg", WRONG),
            ("im/u/bob/", WRONG),
            ("im/u/bob/msg/", WRONG),
            ("im/u/bob/Msg", WRONG),
            ("im/u/bob x/msg", WRONG),
            ("im/u/bób/msg", WRONG),
            ("im/u/bob/msg/c 1", WRONG),
            ("im/u/bob/msg/c1/", WRONG),
            ("im/u/bob/msg/c1/x", WRONG),
            ("im/u/bob/msg/c1/at", WRONG),
            ("im/u/bob/msg/c1/at/", WRONG),
            ("im/u/bob/msg/c1/at/a,,b", WRONG),
            ("im/u/bob/msg/c1/at/a/b", WRONG),
            ("im/u/bob/msg/c1/at/a/b/c/d", WRONG),
            (&format!("im/u/{long}/msg"), WRONG),
            (&format!("im/u/bob/msg/{long}"), WRONG),
            (&format!("im/g/team/msg/c1/at/{long}"), WRONG),
            (&format!("im/g/team/msg/c1/at/{list}"), MANY),
            // Burning is between two; a number in its one spelling.
            ("im/g/team/burn/5", WRONG),
            ("im/u/bob/burn", WRONG),
            ("im/u/bob/burn/", WRONG),
            ("im/u/bob/burn/0", WRONG),
            ("im/u/bob/burn/05", WRONG),
            ("im/u/bob/burn/+5", WRONG),
            ("im/u/bob/burn/-5", WRONG),
            ("im/u/bob/burn/5s", WRONG),
            ("im/u/bob/burn/٣", WRONG),
            ("im/u/bob/burn/604801", WRONG),
            ("im/u/bob/burn/4294967297", WRONG),
            ("im/u/bob/burn/5/", WRONG),
            ("im/u/bob/burn/5/c1/x", WRONG),
            ("im/u/b b/burn/5", WRONG),
        ];
        check(&table);
    }

    #[test]
    fn rooms_and_signals_are_spelled_in_full() {
        let table = [
            ("im/r//msg", WRONG),
            ("im/r/live/msg/", WRONG),
            ("im/r/live/msg/low", WRONG),
            ("im/r/live/msg/hi/c1", WRONG),
            ("im/r/live/stat", CLOSED),
            ("im/r/live/stat/x", WRONG),
            // Signals.
            ("im/c/news/sig/typing", WRONG),
            ("im/u/bob/sig", WRONG),
            ("im/u/bob/sig/", WRONG),
            ("im/u/bob/sig/a/b", WRONG),
            ("im/u/bob/sig/a b", WRONG),
            ("im/u//sig/typing", WRONG),
        ];
        check(&table);
    }

    #[test]
    fn what_is_ones_own_is_spelled_in_full() {
        let table = [
            // Cursors.
            ("im/me/cur", WRONG),
            ("im/me/cur/u/bob/read", WRONG),
            ("im/me/cur/u/bob/read/", WRONG),
            ("im/me/cur/u/bob/seen/1", WRONG),
            ("im/me/cur/r/live/read/1", WRONG),
            ("im/me/cur/u//read/1", WRONG),
            ("im/me/cur/u/bob/read/x", WRONG),
            ("im/me/cur/u/bob/read/01", WRONG),
            ("im/me/cur/u/bob/read/18446744073709551616", WRONG),
            ("im/me/cur/u/bob/read/1/2", WRONG),
            // Operations; to burn is none (ruling 32).
            ("im/me/op/recall/u/bob", WRONG),
            ("im/me/op/recall/u/bob/0", WRONG),
            ("im/me/op/recall/u/bob/1/2", WRONG),
            ("im/me/op/burn/u/bob/1", WRONG),
            ("im/me/op/recall/r/live/1", WRONG),
            ("im/me/op/recall/g/te am/1", WRONG),
            // One's own.
            ("im/me", WRONG),
            ("im/me/", WRONG),
            ("im/me/st", WRONG),
            ("im/me/st/", WRONG),
            ("im/me/st/a b", WRONG),
            ("im/me/st/away/now", WRONG),
            ("im/me/bg/x", WRONG),
            ("im/me/fg/", WRONG),
            ("im/me/u/bob/msg", WRONG),
            ("im/me/in", CLOSED),
            ("im/me/in/u/bob", CLOSED),
            ("im/me/in/u/bob/1/alice/2/0000000000000", CLOSED),
            ("im/me/sig/u/bob/alice/typing", CLOSED),
            ("im/me/pr/alice", CLOSED),
            ("im/me/sys/hello", CLOSED),
            ("im/me/res/r1/ok", CLOSED),
        ];
        check(&table);
    }

    #[test]
    fn services_are_spelled_in_full() {
        let table = [
            ("im/svc", WRONG),
            ("im/svc/sync", WRONG),
            ("im/svc/sync/", WRONG),
            ("im/svc//heads", WRONG),
            ("im/svc/sync/heads/", WRONG),
            ("im/svc/sync/heads/r1/x", WRONG),
            ("im/svc/sync/heads/r 1", WRONG),
        ];
        check(&table);
    }

    #[test]
    fn words_of_topics_are_those_read_back() {
        for lane in [Lane::Hi, Lane::Chat, Lane::Like] {
            assert_eq!(Lane::parse(lane.as_str()), Some(lane));
        }
        for which in [Position::Read, Position::Recv] {
            let topic = format!("im/me/cur/u/bob/{}/1", which.as_str());
            let meaning = Published::Cursor { conv: Target::User("bob"), which, seq: 1 };
            assert_eq!(parse_publish(&topic), Ok(meaning));
        }
        for op in [Operation::Recall, Operation::Edit, Operation::React] {
            let topic = format!("im/me/op/{}/u/bob/1", op.as_str());
            let meaning = Published::Operation { op, conv: Target::User("bob"), seq: 1 };
            assert_eq!(parse_publish(&topic), Ok(meaning));
        }
    }
}
