//! Conversations of a device in which nothing has happened for it since it connected. They are most
//! of what an idle device has, so each costs a few bytes until an entry comes.
//!
//! Deliberately not here: what becomes of a conversation then; it gets a stream, and what stands
//! here about it counts no more.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hoopoe_core::seldom::Seldom;

use super::Start;
use crate::id::ConvKey;
use crate::rows::since;

/// Where a device stands in conversations without news.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// Keyed by chance, so that nobody can make two conversations meet.
    hasher: RandomState,
    /// Hash of the conversation, and everything up to where has been received; sorted.
    cursors: Box<[(u64, u64)]>,
    /// Groups and channels among them.
    listens_to: Seldom<Vec<ConvKey>>,
}

impl Quiet {
    /// Of conversations by their hashes under `hasher`, with their cursors; `listens_to` are among
    /// them.
    pub(super) fn new(
        hasher: RandomState,
        mut cursors: Vec<(u64, u64)>,
        listens_to: Vec<ConvKey>,
    ) -> Quiet {
        cursors.sort_unstable();
        Quiet { hasher, cursors: cursors.into(), listens_to: listens_to.into() }
    }

    /// Where the device begins in a conversation, if it is one of them: everything from there on
    /// is to be seen, until the list says otherwise.
    pub(super) fn start(&self, conv: &ConvKey) -> Option<Start> {
        let cursor = self.cursor(conv)?;
        let intervals = since(cursor + 1);
        Some(Start { conv: conv.clone(), cursor, head: cursor, intervals, version: 0 })
    }

    /// Everything up to here has been received of a conversation, if it is one of them.
    fn cursor(&self, conv: &ConvKey) -> Option<u64> {
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
    use crate::device::Starts;

    #[test]
    fn cursors_are_found_by_conversation() {
        let conv = |n: u64| match n % 3 {
            0 => ConvKey::group("default", &format!("g{n}")),
            _ => ConvKey::pair("default", "alice", &format!("u{n}")),
        };
        let mut starts = Starts::default();
        for n in 0..100 {
            let (conv, cursor) = (conv(n), n * 7);
            starts.rest(&Start { conv, cursor, head: 0, intervals: since(1), version: 0 });
        }
        let quiet = starts.into_quiet(vec![conv(0), conv(3)]);
        for n in 0..100 {
            assert_eq!(quiet.cursor(&conv(n)), Some(n * 7));
        }
        assert_eq!(quiet.cursor(&conv(100)), None);
        assert_eq!(Quiet::default().cursor(&conv(1)), None);
        assert_eq!(quiet.listens_to().count(), 2);
    }
}
