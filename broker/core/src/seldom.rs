//! A collection that most of its owners never fill: one word as long as it is empty.
//!
//! A broker has a hundred thousand connections of which each has a dozen queues that are there for
//! what seldom happens. Owns its collection, which is made when something is put into it. Not
//! here: giving memory back when it has become empty again, which is [`Seldom::release`]'s caller
//! to judge; a queue that is filled and emptied all the time keeps its room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Deref, DerefMut};

/// A collection that can be empty at no cost.
pub trait Collection: Default + 'static {
    /// The empty one.
    const EMPTY: &'static Self;
}

impl<T: 'static> Collection for Vec<T> {
    const EMPTY: &'static Vec<T> = &Vec::new();
}

impl<T: 'static> Collection for VecDeque<T> {
    const EMPTY: &'static VecDeque<T> = &VecDeque::new();
}

impl<K: 'static, V: 'static> Collection for BTreeMap<K, V> {
    const EMPTY: &'static BTreeMap<K, V> = &BTreeMap::new();
}

impl<T: 'static> Collection for BTreeSet<T> {
    const EMPTY: &'static BTreeSet<T> = &BTreeSet::new();
}

/// One word, which is nothing or a collection. It is read as the collection it stands for. To
/// change it makes it: who only wants to take something out asks [`Seldom::if_made`] first.
#[derive(Clone, Debug)]
pub struct Seldom<C>(Option<Box<C>>);

impl<C> Seldom<C> {
    /// The collection to take something out of; `None` if nothing was ever put in.
    pub fn if_made(&mut self) -> Option<&mut C> {
        self.0.as_deref_mut()
    }

    /// Forgets what is in it, and gives the memory back.
    pub fn release(&mut self) {
        self.0 = None;
    }
}

impl<C> Default for Seldom<C> {
    fn default() -> Seldom<C> {
        Seldom(None)
    }
}

impl<C: Collection> Deref for Seldom<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.0.as_deref().unwrap_or(C::EMPTY)
    }
}

impl<C: Collection> DerefMut for Seldom<C> {
    fn deref_mut(&mut self) -> &mut C {
        self.0.get_or_insert_default()
    }
}

impl<C: Collection + PartialEq> PartialEq for Seldom<C> {
    fn eq(&self, other: &Seldom<C>) -> bool {
        **self == **other
    }
}

impl<C: Collection + Eq> Eq for Seldom<C> {}

impl<C: Collection + IntoIterator> IntoIterator for Seldom<C> {
    type Item = C::Item;
    type IntoIter = std::iter::Flatten<std::option::IntoIter<C>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map(|collection| *collection).into_iter().flatten()
    }
}

impl<T: 'static> From<Vec<T>> for Seldom<Vec<T>> {
    fn from(items: Vec<T>) -> Seldom<Vec<T>> {
        Seldom((!items.is_empty()).then(|| Box::new(items)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_before_something_is_put_in() {
        let mut queue: Seldom<VecDeque<u32>> = Seldom::default();
        assert_eq!(size_of_val(&queue), size_of::<usize>());
        assert!(queue.is_empty() && queue.front().is_none() && queue.if_made().is_none());
        queue.push_back(7);
        queue.push_back(8);
        assert_eq!(queue.if_made().and_then(VecDeque::pop_front), Some(7));
        assert_eq!(queue.clone().into_iter().collect::<Vec<_>>(), [8]);
        queue.release();
        assert!(queue.is_empty() && queue.if_made().is_none());
        assert_eq!(queue.into_iter().count(), 0);
    }

    #[test]
    fn what_was_emptied_is_as_what_was_never_filled() {
        let mut emptied: Seldom<Vec<u32>> = vec![1].into();
        assert_ne!(emptied, Seldom::default());
        emptied.clear();
        assert_eq!(emptied, Seldom::default());
        assert!(Seldom::from(Vec::<u32>::new()).if_made().is_none());
    }
}
