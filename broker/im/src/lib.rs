//! The IM profile: what the `im/` tree means.
//!
//! Everything below `im/` belongs to the profile: there it alone decides, and what it does not
//! name is refused (ruling 15). Take this package out and a correct MQTT broker remains.
//!
//! Conversations are ordered logs with one owner each, delivery goes by cursors: a send writes
//! one entry however many members there are. The rules are methods of one command's view of its
//! shard (`shard`), in the room of their noun.

pub mod audit;
pub(crate) mod changes;
pub mod channel;
pub mod command;
pub mod conversation;
pub mod device;
pub mod effect;
pub mod entry;
pub mod envelope;
pub mod group;
pub mod heads;
pub mod id;
pub mod keys;
pub mod overload;
pub mod presence;
pub mod push;
pub mod refusal;
#[cfg(test)]
mod rig;
pub mod room;
pub mod roster;
pub mod rows;
pub mod service;
pub mod settings;
pub mod shard;
pub mod site;
mod sweep;
pub mod topic;
pub mod txn;
pub mod user;

pub use command::{Asker, Command, User};
pub use effect::{Answer, Effect, Pending};
pub use heads::Heads;
pub use settings::ImSettings;
pub use shard::ImShard;

/// First level of the profile's tree.
pub const FIRST_LEVEL: &str = "im";

/// True for topics and filters inside the profile's tree. Filters whose first level is a wildcard
/// are not: they never match topics below `im/`, as for `$` topics (ruling 15).
pub fn is_reserved(topic_or_filter: &str) -> bool {
    topic_or_filter
        .strip_prefix(FIRST_LEVEL)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tree_itself_is_reserved() {
        for inside in ["im", "im/", "im/u/bob/msg", "im/#", "im/+/x"] {
            assert!(is_reserved(inside), "{inside}");
        }
        for outside in ["#", "+/u", "image", "images/x", "a/im", "/im", ""] {
            assert!(!is_reserved(outside), "{outside}");
        }
    }
}
