//! What clients publish and subscribe to below `im/`: text in, meaning out, nothing kept.
//!
//! Deliberately not here: whether somebody may do what a topic says (the owners of the rows
//! judge), the topics the broker sends on (`envelope`), and its internal ones (`id`).

mod filter;
mod publish;

use hoopoe_codec::ReasonCode;

use crate::id::{ConvKey, ConvKind, is_id};

pub use filter::{Filter, FilterError, InboxFilter, parse_filter};
pub use publish::{
    Lane, MAX_BURN_SECS, Operation, Position, Published, SignalTarget, Target, parse_publish,
};

/// Most users that one message mentions (ruling 33).
pub const MAX_MENTIONS: usize = 50;

/// The mention of everybody.
const EVERYBODY: &str = "all";

/// Whom a message mentions: the list of `im-at` or of the level after `at` (ruling 33).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mentions<'a> {
    list: &'a str,
}

impl<'a> Mentions<'a> {
    /// Checks a list: ids with commas between them, `all` for everybody.
    ///
    /// # Errors
    ///
    /// When an id is none, or there are more than [`MAX_MENTIONS`] of them.
    pub fn parse(list: &'a str) -> Result<Mentions<'a>, MentionFault> {
        let mut count = 0;
        for user in list.split(',') {
            count += 1;
            if count > MAX_MENTIONS {
                return Err(MentionFault::TooMany);
            }
            if !is_id(user) {
                return Err(MentionFault::NotAnId);
            }
        }
        Ok(Mentions { list })
    }

    /// Whether everybody is mentioned.
    pub fn all(&self) -> bool {
        self.list.split(',').any(|user| user == EVERYBODY)
    }

    /// The users mentioned by name, in the order given.
    pub fn users(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.list.split(',').filter(|user| *user != EVERYBODY)
    }
}

/// What is wrong with a list of mentions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MentionFault {
    /// One of them is no id.
    #[error("mentions are user ids with commas between them, or all")]
    NotAnId,
    /// More than [`MAX_MENTIONS`].
    #[error("a message mentions at most 50 users")]
    TooMany,
}

/// Why a topic below `im/` cannot be published to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct TopicError {
    /// The code to answer.
    pub reason: ReasonCode,
    /// Place and fault.
    pub what: &'static str,
}

impl TopicError {
    const fn topic(what: &'static str) -> TopicError {
        TopicError { reason: ReasonCode::TopicNameInvalid, what }
    }

    const fn closed(what: &'static str) -> TopicError {
        TopicError { reason: ReasonCode::NotAuthorized, what }
    }
}

impl<'a> Target<'a> {
    /// The target as one pair of kind and id.
    pub fn parts(self) -> (ConvKind, &'a str) {
        match self {
            Target::User(id) => (ConvKind::User, id),
            Target::Group(id) => (ConvKind::Group, id),
            Target::Channel(id) => (ConvKind::Channel, id),
        }
    }

    /// The conversation that `me` means by it.
    pub fn conv(self, tenant: &str, me: &str) -> ConvKey {
        match self {
            Target::User(id) => ConvKey::pair(tenant, me, id),
            Target::Group(id) => ConvKey::group(tenant, id),
            Target::Channel(id) => ConvKey::channel(tenant, id),
        }
    }
}

/// The levels of a topic, as many as there is room for: one more than any topic of the profile has.
fn split<'r, 'a>(topic: &'a str, room: &'r mut [&'a str; MOST_LEVELS]) -> &'r [&'a str] {
    let mut count = 0;
    for (place, level) in room.iter_mut().zip(hoopoe_codec::levels(topic)) {
        *place = level;
        count += 1;
    }
    &room[..count]
}

/// `im/me/op/recall/u/bob/17` has seven levels.
const MOST_LEVELS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentions_are_ids_or_everybody() {
        let users = |list| Mentions::parse(list).map(|m| m.users().collect::<Vec<_>>());
        assert_eq!(users("bob"), Ok(vec!["bob"]));
        assert_eq!(users("bob,alice@x"), Ok(vec!["bob", "alice@x"]));
        assert_eq!(users("all"), Ok(vec![]));
        assert_eq!(users("bob,all"), Ok(vec!["bob"]));
        for (list, all) in [("all", true), ("bob,all", true), ("bob", false), ("allan", false)] {
            assert_eq!(Mentions::parse(list).map(|m| m.all()), Ok(all), "{list}");
        }
        for list in ["", ",", "bob,", ",bob", "bob,,alice", "bob, alice", "b+", "a/b"] {
            assert_eq!(users(list), Err(MentionFault::NotAnId), "{list:?}");
        }
        let most = vec!["u"; MAX_MENTIONS].join(",");
        assert_eq!(users(&most).map(|users| users.len()), Ok(MAX_MENTIONS));
        let more = format!("{most},u");
        assert_eq!(users(&more), Err(MentionFault::TooMany));
    }

    #[test]
    fn a_target_is_a_conversation_of_the_sender() {
        let table = [
            (Target::User("alice"), ConvKind::User, "alice", "t/u/alice/bob"),
            (Target::User("bob"), ConvKind::User, "bob", "t/u/bob/bob"),
            (Target::Group("team"), ConvKind::Group, "team", "t/g/team"),
            (Target::Channel("news"), ConvKind::Channel, "news", "t/c/news"),
        ];
        for (target, kind, id, text) in table {
            assert_eq!(target.parts(), (kind, id));
            assert_eq!(target.conv("t", "bob").as_str(), text);
        }
    }
}
