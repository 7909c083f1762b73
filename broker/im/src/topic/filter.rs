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

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [bool; 2] = [true, true];
    const V5_ONLY: [bool; 2] = [true, false];

    fn versions(filter: &str) -> [bool; 2] {
        [Version::V5, Version::V311].map(|version| parse_filter(filter, version).is_ok())
    }

    #[test]
    fn the_inbox_is_open_to_its_owner() {
        let table = [
            ("im/me/#", BOTH),
            ("im/me/in/#", BOTH),
            ("im/me/in/u/#", BOTH),
            ("im/me/in/u/bob/#", BOTH),
            ("im/me/in/+/bob/#", BOTH),
            ("im/me/in/u/bob/17/#", BOTH),
            ("im/me/in/u/bob", V5_ONLY),
            ("im/me/in/g/+", V5_ONLY),
            ("im/me/in/+/+/+/+/+/+", V5_ONLY),
            ("im/me/in", V5_ONLY),
            ("im/me/sys/#", BOTH),
            ("im/me/sys/hello", BOTH),
            ("im/me/sys/gap/+/+/+/+", BOTH),
            ("im/me/sig/u/bob/+/typing", BOTH),
            ("im/me/pr/+", BOTH),
            ("im/me/res/+/ok", BOTH),
            ("im/me/res/r1/m/#", BOTH),
            ("im/me/res/+/m/+/+/+/+/+/+/+", BOTH),
            ("im/me/+", BOTH),
        ];
        for (filter, open) in table {
            assert_eq!(versions(filter), open, "{filter}");
            let meaning = parse_filter(filter, Version::V5);
            assert_eq!(meaning, Ok(Filter::Inbox(InboxFilter { filter })), "{filter}");
        }
    }

    #[test]
    fn a_room_is_joined_by_its_name() {
        let table = [
            ("im/r/live/#", BOTH),
            ("im/r/live/msg/#", BOTH),
            ("im/r/live/msg/chat/#", BOTH),
            ("im/r/live/msg/+/#", BOTH),
            ("im/r/live/msg/chat", V5_ONLY),
            ("im/r/live/msg/hi", V5_ONLY),
            ("im/r/live/msg/+", V5_ONLY),
            ("im/r/live/+", V5_ONLY),
            ("im/r/live/+/chat", V5_ONLY),
            ("im/r/live/+/#", BOTH),
            ("im/r/live/stat", BOTH),
            ("im/r/live/stat/#", BOTH),
            ("im/r/live/sig/#", BOTH),
            ("im/r/live/sig/+/frame", BOTH),
        ];
        for (filter, open) in table {
            assert_eq!(versions(filter), open, "{filter}");
            assert_eq!(parse_filter(filter, Version::V5), Ok(Filter::Room { room: "live" }));
        }
    }

    #[test]
    fn all_else_is_closed() {
        let long = format!("im/r/{}/#", "x".repeat(65));
        let closed = [
            "im",
            "im/#",
            "im/+",
            "im/+/#",
            "im/+/in/#",
            "im/",
            "im/me",
            "im/u/bob/#",
            "im/u/bob/msg",
            "im/g/team/#",
            "im/c/news/#",
            "im/svc/#",
            "im/default/u/bob",
            "im/default/u/+",
            "im/default/#",
            "im/default/r/live",
            "im/r",
            "im/r/#",
            "im/r/+",
            "im/r/+/#",
            "im/r/+/msg/#",
            "im/r//#",
            "im/r/li ve/#",
            "im/r/live",
            "im/r/live/",
            "im/r/live/msg",
            "im/r/live/msg/",
            "im/r/live/msg/low",
            "im/r/live/msg/low/#",
            "im/r/live/sig",
            "im/r/live/stat/x",
            "im/r/live/x/#",
            "#",
            "+/me/#",
            "other/me/#",
            &long,
        ];
        for filter in closed {
            for version in [Version::V5, Version::V311] {
                let error = parse_filter(filter, version).expect_err(filter);
                assert_eq!(error.reason(), ReasonCode::NotAuthorized, "{filter}");
            }
        }
    }

    #[test]
    fn malformed_filters_are_no_filters() {
        for filter in ["", "im/me/#/x", "im/me/in#", "im/me/a+", "im/r/live/#/#", "im/me/\0"] {
            let error = parse_filter(filter, Version::V5).expect_err(filter);
            assert_eq!(error.reason(), ReasonCode::TopicFilterInvalid, "{filter:?}");
            assert!(matches!(error, FilterError::Syntax(_)));
        }
    }

    #[test]
    fn an_inbox_filter_covers_what_it_matches() {
        let table = [
            ("im/me/#", "im/me/in/u/bob", true),
            ("im/me/in/#", "im/me/in/u/bob/1/bob/2/0000000000000", true),
            ("im/me/in/u/bob", "im/me/in/u/bob", true),
            ("im/me/in/u/bob", "im/me/in/u/alice", false),
            ("im/me/in/u/bob/#", "im/me/in/u/bob", true),
            ("im/me/in/u/bob/#", "im/me/in/u/bobby", false),
            ("im/me/in/+/bob/#", "im/me/in/g/bob/1/x/2/0000000000000", true),
            ("im/me/sys/#", "im/me/in/u/bob", false),
            ("im/me/res/+/ok", "im/me/res/r1/ok", true),
            ("im/me/res/+/ok", "im/me/res/r1/not_found", false),
        ];
        for (filter, topic, covered) in table {
            let Ok(Filter::Inbox(inbox)) = parse_filter(filter, Version::V5) else {
                panic!("{filter}");
            };
            assert_eq!(inbox.covers(topic), covered, "{filter} {topic}");
            assert_eq!(inbox.as_str(), filter);
        }
    }
}
