//! What a client may subscribe to below `im/`: its own inbox and rooms (rulings 15, 28 and 29).

use hoopoe_codec::{ReasonCode, TopicFault, Version, check_filter, topic_matches};

use super::{Lane, MOST_LEVELS, split};
use crate::id::is_id;

/// The meaning of a filter below `im/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filter<'a> {
    /// Below `im/me/`: other terms for part of the inbox, which is there anyhow.
    Inbox(InboxFilter<'a>),
    /// Below `im/r/{room}/`: being in the room. Which of its topics, the filter itself says.
    Room {
        /// The room.
        room: &'a str,
    },
}

/// A filter below `im/me/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InboxFilter<'a> {
    filter: &'a str,
}

impl<'a> InboxFilter<'a> {
    /// The filter as the client sent it.
    pub fn as_str(&self) -> &'a str {
        self.filter
    }

    /// Whether a publication to the inbox on this topic is covered.
    pub fn covers(&self, topic: &str) -> bool {
        topic_matches(self.filter, topic)
    }
}

/// Why a filter below `im/` is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    /// It is no filter at all.
    #[error("{0}")]
    Syntax(TopicFault),
    /// Not one's own inbox and no single room.
    #[error("{0}")]
    Closed(&'static str),
}

impl FilterError {
    /// The code to answer; a 3.1.1 SUBACK makes 0x80 of it.
    pub fn reason(&self) -> ReasonCode {
        match self {
            FilterError::Syntax(_) => ReasonCode::TopicFilterInvalid,
            FilterError::Closed(_) => ReasonCode::NotAuthorized,
        }
    }
}

/// What a filter below `im/` means to a client of this version.
///
/// # Errors
///
/// When it is malformed, or nothing that a client may subscribe to. Shared filters do not come
/// here: `$share` over `im/` is refused (ruling 10).
pub fn parse_filter(filter: &str, version: Version) -> Result<Filter<'_>, FilterError> {
    check_filter(filter).map_err(FilterError::Syntax)?;
    let open_ended = version == Version::V5 || filter.ends_with('#');
    let mut room = [""; MOST_LEVELS];
    match split(filter, &mut room) {
        ["im", "me", "in", ..] if !open_ended => Err(FilterError::Closed(
            "im/me/in/…: end it in # (with MQTT 3.1.1 topics go on after it)",
        )),
        ["im", "me", _, ..] => Ok(Filter::Inbox(InboxFilter { filter })),
        ["im", "r", room, rest @ ..] => room_filter(room, rest, open_ended),
        _ => Err(FilterError::Closed("im/…: subscribe to im/me/# or im/r/{room}/#")),
    }
}

fn room_filter<'a>(
    room: &'a str,
    rest: &[&str],
    open_ended: bool,
) -> Result<Filter<'a>, FilterError> {
    if !is_id(room) {
        // `im/r/+/…` and `im/r/#` as well: being in a room is being in that one.
        return Err(FilterError::Closed("im/r/{room}/…: the room is no valid id"));
    }
    let known = match *rest {
        ["#" | "stat" | "+"] => true,
        ["msg" | "+", lane, ..] if lane == "#" || lane == "+" => true,
        ["msg", lane, ..] => Lane::parse(lane).is_some(),
        ["stat", "#"] | ["sig" | "+", _, ..] => true,
        _ => false,
    };
    if !known {
        return Err(FilterError::Closed("im/r/{room}/…: #, msg/{lane}, sig or stat follows"));
    }
    // Ruling 28: what a 3.1.1 client receives below `msg` carries the header in its topic.
    if !open_ended && matches!(rest, ["msg" | "+", ..]) {
        return Err(FilterError::Closed(
            "im/r/{room}/msg/…: end it in # (with MQTT 3.1.1 topics go on after it)",
        ));
    }
    Ok(Filter::Room { room })
}
