//! Conversations of a device in which nothing has happened for it since it connected. They are most
//! of what an idle device has, so each costs a few bytes until an entry comes.
//!
//! Deliberately not here: what becomes of a conversation then; it gets a stream, and what stands
//! here about it counts no more.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use crate::id::{ConvKey, ConvKind};

/// Where a device stands in conversations without news.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// Keyed by chance, so that nobody can make two conversations meet.
    hasher: RandomState,
    /// Hash of the conversation, and everything up to where has been received; sorted.
    cursors: Box<[(u64, u64)]>,
    /// Groups and channels among them.
    listens_to: Box<[ConvKey]>,
}

impl Quiet {
    /// Of these conversations, with their cursors.
    pub(super) fn new(starts: Vec<(ConvKey, u64)>) -> Quiet {
        let hasher = RandomState::default();
        let cursors = starts.iter().map(|(conv, cursor)| (hasher.hash_one(conv), *cursor));
        let mut cursors: Box<[(u64, u64)]> = cursors.collect();
        cursors.sort_unstable();
        let groups = starts.into_iter().map(|(conv, _)| conv);
        let listens_to = groups.filter(|conv| conv.kind() != ConvKind::User).collect();
        Quiet { hasher, cursors, listens_to }
    }

    /// Everything up to here has been received of a conversation, if it is one of them.
    pub(super) fn cursor(&self, conv: &ConvKey) -> Option<u64> {
        if self.cursors.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(conv);
        let at = self.cursors.binary_search_by_key(&hash, |(hash, _)| *hash).ok()?;
        Some(self.cursors[at].1)
    }

    /// Groups and channels among them.
    pub(super) fn listens_to(&self) -> impl Iterator<Item = &ConvKey> {
        self.listens_to.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_found_by_conversation() {
        let conv = |n: u64| match n % 3 {
            0 => ConvKey::group("default", &format!("g{n}")),
            _ => ConvKey::pair("default", "alice", &format!("u{n}")),
        };
        let quiet = Quiet::new((0..100).map(|n| (conv(n), n * 7)).collect());
        for n in 0..100 {
            assert_eq!(quiet.cursor(&conv(n)), Some(n * 7));
        }
        assert_eq!(quiet.cursor(&conv(100)), None);
        assert_eq!(Quiet::default().cursor(&conv(1)), None);
        assert_eq!(quiet.listens_to().count(), 34);
    }
}
