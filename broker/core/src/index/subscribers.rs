//! The subscribers of one filter.
//!
//! Most filters have one subscriber, some have a few, a group chat has thousands. One is kept
//! inline (24 bytes with a 16-byte value that has a niche); more are kept in one contiguous
//! vector, so that fan-out walks memory in order; from [`INDEX_ABOVE`] subscribers on, a map from
//! subscriber to position makes joining and leaving independent of their number. The order of the
//! subscribers is not kept.

use std::collections::HashMap;
use std::mem;

use foldhash::fast::RandomState;

use super::SubscriberId;

/// Up to this many subscribers are searched one by one.
const INDEX_ABOVE: usize = 64;
/// The positions are dropped below this many; lower than [`INDEX_ABOVE`] so that a list whose
/// length swings around the limit is not indexed again and again.
const INDEX_UNTIL: usize = 32;
/// Vectors and maps of up to this capacity are not worth shrinking.
const SHRINK_ABOVE: usize = 16;

/// One subscriber of a filter.
pub(super) struct Entry<S> {
    pub(super) subscriber: SubscriberId,
    pub(super) value: S,
}

/// All subscribers of one filter, at most one entry each.
pub(super) enum Subscribers<S> {
    One(Entry<S>),
    /// `None` is the empty list: folded in here because it costs no room.
    Group(Option<Box<Group<S>>>),
}

/// Two or more subscribers.
pub(super) struct Group<S> {
    entries: Vec<Entry<S>>,
    /// Boxed: most groups are too small to have it.
    positions: Option<Box<Positions>>,
}

/// The position of each subscriber in the entries of its group.
struct Positions(HashMap<SubscriberId, usize, RandomState>);

impl<S> Default for Subscribers<S> {
    fn default() -> Self {
        Self::Group(None)
    }
}

impl<S> Subscribers<S> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Group(None))
    }

    pub(super) fn as_slice(&self) -> &[Entry<S>] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Group(Some(group)) => &group.entries,
            Self::Group(None) => &[],
        }
    }

    pub(super) fn for_each(&self, each: &mut impl FnMut(SubscriberId, &S)) {
        for entry in self.as_slice() {
            each(entry.subscriber, &entry.value);
        }
    }

    /// Adds the entry, or replaces the one of the same subscriber and returns its value.
    pub(super) fn insert(&mut self, entry: Entry<S>) -> Option<S> {
        if let Self::Group(Some(group)) = self {
            return group.insert(entry);
        }
        match mem::take(self) {
            Self::One(old) if old.subscriber == entry.subscriber => {
                *self = Self::One(entry);
                Some(old.value)
            }
            Self::One(old) => {
                *self = Self::Group(Some(Box::new(Group::of_two(old, entry))));
                None
            }
            Self::Group(_) => {
                *self = Self::One(entry);
                None
            }
        }
    }

    pub(super) fn remove(&mut self, subscriber: SubscriberId) -> Option<S> {
        if let Self::Group(Some(group)) = self {
            let removed = group.remove(subscriber)?;
            if group.entries.len() == 1
                && let Some(last) = group.entries.pop()
            {
                *self = Self::One(last);
            }
            return Some(removed.value);
        }
        match mem::take(self) {
            Self::One(entry) if entry.subscriber == subscriber => Some(entry.value),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl<S> Group<S> {
    fn of_two(first: Entry<S>, second: Entry<S>) -> Self {
        Self { entries: vec![first, second], positions: None }
    }

    fn position(&self, subscriber: SubscriberId) -> Option<usize> {
        match &self.positions {
            Some(positions) => positions.0.get(&subscriber).copied(),
            None => self.entries.iter().position(|entry| entry.subscriber == subscriber),
        }
    }

    fn insert(&mut self, entry: Entry<S>) -> Option<S> {
        if let Some(position) = self.position(entry.subscriber) {
            return Some(mem::replace(&mut self.entries[position], entry).value);
        }
        if let Some(positions) = &mut self.positions {
            positions.0.insert(entry.subscriber, self.entries.len());
        }
        self.entries.push(entry);
        if self.positions.is_none() && self.entries.len() > INDEX_ABOVE {
            let numbered = self.entries.iter().enumerate();
            let positions = numbered.map(|(position, entry)| (entry.subscriber, position));
            self.positions = Some(Box::new(Positions(positions.collect())));
        }
        None
    }

    fn remove(&mut self, subscriber: SubscriberId) -> Option<Entry<S>> {
        let position = self.position(subscriber)?;
        let removed = self.entries.swap_remove(position);
        if let Some(positions) = &mut self.positions {
            positions.0.remove(&subscriber);
            if let Some(moved) = self.entries.get(position) {
                positions.0.insert(moved.subscriber, position);
            }
        }
        self.release_memory();
        Some(removed)
    }

    /// Gives memory back once three quarters are unused, which keeps the cost per removal
    /// constant on average.
    fn release_memory(&mut self) {
        let length = self.entries.len();
        if length < INDEX_UNTIL {
            self.positions = None;
        }
        if self.entries.capacity() > SHRINK_ABOVE && length <= self.entries.capacity() / 4 {
            self.entries.shrink_to(length * 2);
            if let Some(positions) = &mut self.positions {
                positions.0.shrink_to(length * 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn content(list: &Subscribers<u64>) -> Vec<(SubscriberId, u64)> {
        let mut content = Vec::new();
        list.for_each(&mut |subscriber, &value| content.push((subscriber, value)));
        content.sort_unstable();
        content
    }

    fn is_indexed(list: &Subscribers<u64>) -> bool {
        matches!(list, Subscribers::Group(Some(group)) if group.positions.is_some())
    }

    #[test]
    fn a_list_of_one_takes_no_more_than_its_entry() {
        assert_eq!(size_of::<Subscribers<(Arc<u64>, u32, u8)>>(), 24);
    }

    #[test]
    fn every_form_adds_replaces_and_removes() {
        for size in [1, 2, 3, INDEX_ABOVE, INDEX_ABOVE + 1, 1000] {
            let size = size as u64;
            let mut list = Subscribers::default();
            for subscriber in 0..size {
                assert_eq!(list.insert(Entry { subscriber, value: subscriber }), None);
            }
            for subscriber in 0..size {
                let entry = Entry { subscriber, value: subscriber + 7 };
                assert_eq!(list.insert(entry), Some(subscriber));
            }
            assert_eq!(list.remove(size), None);
            assert_eq!(content(&list), (0..size).map(|id| (id, id + 7)).collect::<Vec<_>>());
            // Leaving in another order than joining moves entries about.
            let order = (0..size).step_by(2).chain((0..size).skip(1).step_by(2));
            for (left, subscriber) in order.enumerate() {
                assert_eq!(list.remove(subscriber), Some(subscriber + 7), "of {size}");
                assert_eq!(list.remove(subscriber), None);
                assert_eq!(list.as_slice().len() as u64, size - left as u64 - 1);
            }
            assert!(list.is_empty());
        }
    }

    #[test]
    fn positions_exist_for_long_lists_only() {
        let mut list = Subscribers::default();
        for subscriber in 0..=INDEX_ABOVE as u64 {
            assert!(!is_indexed(&list));
            list.insert(Entry { subscriber, value: 0 });
        }
        assert!(is_indexed(&list));
        for subscriber in 0..(INDEX_ABOVE - INDEX_UNTIL) as u64 {
            list.remove(subscriber);
            assert!(is_indexed(&list));
        }
        list.remove(INDEX_ABOVE as u64);
        list.remove(INDEX_ABOVE as u64 - 1);
        assert!(!is_indexed(&list));
    }

    #[test]
    fn a_list_that_became_short_gives_its_memory_back() {
        let mut list = Subscribers::default();
        for subscriber in 0..100_000 {
            list.insert(Entry { subscriber, value: subscriber });
        }
        for subscriber in 0..99_900 {
            list.remove(subscriber);
        }
        let Subscribers::Group(Some(group)) = &list else { panic!("a list of 100") };
        assert!(group.entries.capacity() < 1000);
        assert!(group.positions.as_ref().is_some_and(|positions| positions.0.capacity() < 1000));
        assert_eq!(content(&list), (99_900..100_000).map(|id| (id, id)).collect::<Vec<_>>());
    }
}
