//! Where a device begins when it connects. Its conversations are sorted where the list is read: of
//! those in which nothing has happened for it, which are most, only a few bytes go to its worker.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use super::quiet::Quiet;
use crate::id::{ConvKey, ConvKind};
use crate::rows::{Intervals, UserConv};

/// Where a device stands in one conversation when it connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The conversation.
    pub conv: ConvKey,
    /// Everything up to here has been received.
    pub cursor: u64,
    /// The last entry.
    pub head: u64,
    /// When the user may see what.
    pub intervals: Intervals,
    /// The version of the membership that says so; 0 for pairs.
    pub version: u64,
}

impl Start {
    /// Where a device begins in a conversation that was not in the list when it came.
    ///
    /// With the first join the list has heard where that stands. A pair has had nothing for the
    /// device, and who hears of later changes first has missed the news of the join: it begins at
    /// the first entry that the user may see. What other devices have received meanwhile does not
    /// count.
    pub fn of_listed(conv: &ConvKey, row: UserConv, head: u64) -> Start {
        let before = row.first() - 1;
        let is_join = conv.kind() != ConvKind::User && row.version <= 1;
        let cursor = if is_join { row.recv.max(before) } else { before };
        let UserConv { intervals, version, .. } = row;
        Start { conv: conv.clone(), cursor, head, intervals, version }
    }

    /// Whether the device has everything, and is to see all that comes. Who is back since may still
    /// stand before what was not for them.
    pub(super) fn is_quiet(&self) -> bool {
        let Start { cursor, head, .. } = *self;
        let last = self.intervals.last();
        head <= cursor && last.is_some_and(|i| i.until.is_none() && i.from <= cursor + 1)
    }
}

/// Where a device stands in all conversations of its user's list.
#[derive(Debug, Default)]
pub struct Starts {
    /// Those with news for it, and all groups and channels: what has become of the membership may
    /// be on its way.
    open: Vec<Start>,
    hasher: RandomState,
    /// Of the others, all of them pairs: hash of the conversation, and the cursor.
    quiet: Vec<(u64, u64)>,
    /// Their [tags](ConvKey::tag).
    tags: Vec<u64>,
}

impl Starts {
    /// Of a list with so many conversations.
    pub fn with_capacity(conversations: usize) -> Starts {
        let (quiet, tags) = (Vec::with_capacity(conversations), Vec::with_capacity(conversations));
        Starts { quiet, tags, ..Starts::default() }
    }

    /// One more conversation of the list. A pair has no membership, hence no version of it.
    pub fn push(&mut self, start: Start) {
        if start.conv.kind() == ConvKind::User && start.version == 0 && start.is_quiet() {
            self.tags.push(start.conv.tag());
            self.rest(&start);
        } else {
            self.open.push(start);
        }
    }

    /// Nothing happens in a conversation of the list at first.
    pub(super) fn rest(&mut self, start: &Start) {
        self.quiet.push((self.hasher.hash_one(&start.conv), start.cursor));
    }

    /// Whether the conversation with this [tag](ConvKey::tag) is in the list.
    pub fn has(&self, tag: u64) -> bool {
        self.tags.contains(&tag) || self.open.iter().any(|start| start.conv.tag() == tag)
    }

    /// Groups and channels in the list.
    pub fn listens_to(&self) -> impl Iterator<Item = &ConvKey> {
        let convs = self.open.iter().map(|start| &start.conv);
        convs.filter(|conv| conv.kind() != ConvKind::User)
    }

    /// Cursor and head in a conversation of the list.
    #[cfg(test)]
    pub(crate) fn place(&self, conv: &ConvKey) -> Option<(u64, u64)> {
        if let Some(start) = self.open.iter().find(|start| start.conv == *conv) {
            return Some((start.cursor, start.head));
        }
        let hash = self.hasher.hash_one(conv);
        let known = self.quiet.iter().find(|(of, _)| *of == hash);
        known.map(|(_, cursor)| (*cursor, *cursor))
    }

    /// Those that are not known to be quiet.
    pub(super) fn take_open(&mut self) -> Vec<Start> {
        std::mem::take(&mut self.open)
    }

    /// Those that are, with the groups and channels among them.
    pub(super) fn into_quiet(self, listens_to: Vec<ConvKey>) -> Quiet {
        Quiet::new(self.hasher, self.quiet, listens_to)
    }
}

impl FromIterator<Start> for Starts {
    fn from_iter<T: IntoIterator<Item = Start>>(list: T) -> Starts {
        let mut starts = Starts::default();
        list.into_iter().for_each(|start| starts.push(start));
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Interval, since};

    #[test]
    fn only_pairs_without_news_are_put_aside() {
        let pair = |peer: &str| ConvKey::pair("default", "alice", peer);
        let team = ConvKey::group("default", "team");
        let start = |conv: &ConvKey, cursor: u64, head: u64| {
            let version = u64::from(conv.kind() != ConvKind::User);
            Start { conv: conv.clone(), cursor, head, intervals: since(1), version }
        };
        let ended = [Interval { from: 1, until: Some(5) }];
        let list = [
            start(&pair("bob"), 5, 5),
            start(&pair("carol"), 5, 6),
            start(&team, 5, 5),
            Start { intervals: ended.into(), ..start(&pair("dave"), 5, 5) },
        ];
        let mut starts: Starts = list.iter().cloned().collect();
        assert!(list.iter().all(|start| starts.has(start.conv.tag())));
        assert!(!starts.has(pair("erin").tag()));
        assert_eq!(starts.listens_to().collect::<Vec<_>>(), [&team]);
        assert_eq!(starts.take_open(), list[1..]);
        let quiet = starts.into_quiet(Vec::new());
        let bob = quiet.start(&pair("bob")).unwrap();
        assert_eq!((bob.cursor, bob.is_quiet()), (5, true));
        assert_eq!(quiet.start(&pair("carol")), None);
    }
}
