//! A trie of filters by level.
//!
//! Owns the nodes of one partition of the wildcard filters. `+` is a branch of its own beside the
//! named ones; `#`, which can only come last, is no node but a second list on the node before it.
//! Nodes without subscribers are pruned. Nothing here recurses, neither matching nor dropping: a
//! topic of 65,535 slashes has as many levels, and the number of levels is the caller's policy.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::SubscriberId;
use super::subscribers::Subscribers;

/// Up to this many named branches are searched one by one.
const FEW_BRANCHES: usize = 8;
/// A map of branches becomes a vector again at this many.
const FEW_AGAIN: usize = 4;
/// Maps of up to this capacity are not worth shrinking.
const SHRINK_ABOVE: usize = 64;
/// Nodes waiting to be looked at, kept without allocation. At most one per level waits.
const PENDING_INLINE: usize = 16;

/// The filters of one partition.
pub(super) struct Trie<S> {
    root: Node<S>,
}

struct Node<S> {
    /// Subscribers of the filter that ends here.
    here: Subscribers<S>,
    /// Subscribers of the filter that goes on with `#` and ends.
    below: Subscribers<S>,
    /// Boxed: most nodes are leaves.
    branches: Option<Box<Branches<S>>>,
}

/// The nodes one level further down; never entirely empty except during a change.
struct Branches<S> {
    plus: Option<Box<Node<S>>>,
    named: Named<S>,
}

enum Named<S> {
    Few(Vec<(Box<str>, Box<Node<S>>)>),
    Many(HashMap<Box<str>, Box<Node<S>>, RandomState>),
}

/// A filter taken apart: the levels that are nodes, and whether `#` follows them.
struct Path<'a> {
    levels: Option<&'a str>,
    ends_below: bool,
}

impl<'a> Path<'a> {
    fn of(filter: &'a str) -> Self {
        if filter == "#" {
            Self { levels: None, ends_below: true }
        } else if let Some(levels) = filter.strip_suffix("/#") {
            Self { levels: Some(levels), ends_below: true }
        } else {
            Self { levels: Some(filter), ends_below: false }
        }
    }

    fn levels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.levels.into_iter().flat_map(|levels| levels.split('/'))
    }
}

impl<S> Default for Trie<S> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<S> Trie<S> {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// The subscribers of `filter`; if there are none, its empty list. Who leaves the list empty
    /// must [`prune`](Self::prune).
    pub(super) fn list_or_default(&mut self, filter: &str) -> &mut Subscribers<S> {
        let path = Path::of(filter);
        let mut node = &mut self.root;
        for level in path.levels() {
            node = node.branches.get_or_insert_default().child_or_default(level);
        }
        node.list_mut(path.ends_below)
    }

    /// The subscribers of `filter`. Who leaves the list empty must [`prune`](Self::prune).
    pub(super) fn list_mut(&mut self, filter: &str) -> Option<&mut Subscribers<S>> {
        let path = Path::of(filter);
        let mut node = &mut self.root;
        for level in path.levels() {
            node = node.branches.as_mut()?.child_mut(level)?;
        }
        Some(node.list_mut(path.ends_below))
    }

    /// Removes the nodes that only led to `filter`, whose list has become empty.
    pub(super) fn prune(&mut self, filter: &str) {
        let path = Path::of(filter);
        // Find the last node on the way that others need: all that hangs below it goes.
        let mut node = &self.root;
        let mut kept = 0;
        for (depth, level) in path.levels().enumerate() {
            if node.is_needed_without_one_branch() {
                kept = depth;
            }
            let Some(child) = node.branches.as_ref().and_then(|all| all.child(level)) else {
                return;
            };
            node = child;
        }
        if !node.is_empty() {
            return;
        }
        let mut levels = path.levels();
        let mut node = &mut self.root;
        for level in levels.by_ref().take(kept) {
            let Some(child) = node.branches.as_mut().and_then(|all| all.child_mut(level)) else {
                return;
            };
            node = child;
        }
        if let (Some(level), Some(branches)) = (levels.next(), &mut node.branches) {
            branches.remove(level);
            if branches.is_empty() {
                node.branches = None;
            }
        }
    }

    /// Calls `each` for every subscription whose filter matches `topic`.
    pub(super) fn matches(&self, topic: &str, each: &mut impl FnMut(SubscriberId, &S)) {
        // Nodes whose levels matched, with the levels of the topic still to come.
        let mut pending: SmallVec<[(&Node<S>, Option<&str>); PENDING_INLINE]> = SmallVec::new();
        pending.push((&self.root, Some(topic)));
        while let Some((node, rest)) = pending.pop() {
            // The multi-level wildcard represents the parent and any number of child levels.
            node.below.for_each(each);
            let Some(rest) = rest else {
                node.here.for_each(each);
                continue;
            };
            let Some(branches) = &node.branches else { continue };
            let (level, rest) = match rest.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (rest, None),
            };
            if let Some(child) = &branches.plus {
                pending.push((child, rest));
            }
            if let Some(child) = branches.named.get(level) {
                pending.push((child, rest));
            }
        }
    }
}

impl<S> Default for Node<S> {
    fn default() -> Self {
        Self { here: Subscribers::default(), below: Subscribers::default(), branches: None }
    }
}

impl<S> Node<S> {
    fn list_mut(&mut self, below: bool) -> &mut Subscribers<S> {
        if below { &mut self.below } else { &mut self.here }
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.below.is_empty() && self.branches.is_none()
    }

    fn is_needed_without_one_branch(&self) -> bool {
        !self.here.is_empty()
            || !self.below.is_empty()
            || self.branches.as_ref().is_some_and(|branches| branches.len() > 1)
    }
}

impl<S> Drop for Node<S> {
    /// Takes a long chain of nodes apart in a loop: dropping each inside its parent would need
    /// stack for every level.
    fn drop(&mut self) {
        let mut pending = Vec::new();
        pending.extend(self.branches.take());
        while let Some(mut branches) = pending.pop() {
            pending.extend(branches.children_mut().filter_map(|node| node.branches.take()));
        }
    }
}

impl<S> Default for Branches<S> {
    fn default() -> Self {
        Self { plus: None, named: Named::Few(Vec::new()) }
    }
}

impl<S> Branches<S> {
    fn child(&self, level: &str) -> Option<&Node<S>> {
        if level == "+" { self.plus.as_deref() } else { self.named.get(level) }
    }

    fn child_mut(&mut self, level: &str) -> Option<&mut Node<S>> {
        if level == "+" { self.plus.as_deref_mut() } else { self.named.get_mut(level) }
    }

    fn child_or_default(&mut self, level: &str) -> &mut Node<S> {
        if level == "+" {
            self.plus.get_or_insert_default()
        } else {
            self.named.get_or_default(level)
        }
    }

    fn children_mut(&mut self) -> impl Iterator<Item = &mut Box<Node<S>>> {
        let (few, many) = match &mut self.named {
            Named::Few(few) => (Some(few), None),
            Named::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(_, node)| node);
        self.plus.iter_mut().chain(few).chain(many.into_iter().flat_map(HashMap::values_mut))
    }

    fn remove(&mut self, level: &str) {
        if level == "+" {
            self.plus = None;
        } else {
            self.named.remove(level);
        }
    }

    fn len(&self) -> usize {
        usize::from(self.plus.is_some()) + self.named.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S> Named<S> {
    fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    fn get(&self, level: &str) -> Option<&Node<S>> {
        match self {
            Self::Few(few) => {
                few.iter().find(|(name, _)| **name == *level).map(|(_, node)| &**node)
            }
            Self::Many(many) => many.get(level).map(|node| &**node),
        }
    }

    fn get_mut(&mut self, level: &str) -> Option<&mut Node<S>> {
        match self {
            Self::Few(few) => {
                few.iter_mut().find(|(name, _)| **name == *level).map(|(_, node)| &mut **node)
            }
            Self::Many(many) => many.get_mut(level).map(|node| &mut **node),
        }
    }

    fn get_or_default(&mut self, level: &str) -> &mut Node<S> {
        if let Self::Few(few) = self
            && few.len() == FEW_BRANCHES
            && few.iter().all(|(name, _)| **name != *level)
        {
            *self = Self::Many(few.drain(..).collect());
        }
        match self {
            Self::Few(few) => {
                let position = few.iter().position(|(name, _)| **name == *level);
                let position = position.unwrap_or_else(|| {
                    // Exactly one more: most nodes have a single branch and keep it.
                    few.reserve_exact(1);
                    few.push((level.into(), Box::default()));
                    few.len() - 1
                });
                &mut few[position].1
            }
            // A look before the entry would save the copy of a known name, but a filter of a
            // hot branch usually brings a new name.
            Self::Many(many) => many.entry(level.into()).or_default(),
        }
    }

    fn remove(&mut self, level: &str) {
        match self {
            Self::Few(few) => few.retain(|(name, _)| **name != *level),
            Self::Many(many) => {
                many.remove(level);
                if many.len() <= FEW_AGAIN {
                    *self = Self::Few(many.drain().collect());
                } else if many.capacity() > SHRINK_ABOVE && many.len() <= many.capacity() / 8 {
                    let room = many.len() * 2;
                    many.shrink_to(room);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::subscribers::Entry;
    use super::*;

    fn insert(trie: &mut Trie<()>, filter: &str, subscriber: SubscriberId) {
        trie.list_or_default(filter).insert(Entry { subscriber, value: () });
    }

    fn remove(trie: &mut Trie<()>, filter: &str, subscriber: SubscriberId) {
        let list = trie.list_mut(filter).expect("the filter is there");
        list.remove(subscriber).expect("the subscriber is there");
        if list.is_empty() {
            trie.prune(filter);
        }
    }

    fn nodes<S>(node: &Node<S>) -> usize {
        let Some(branches) = &node.branches else { return 1 };
        let named: usize = match &branches.named {
            Named::Few(few) => few.iter().map(|(_, node)| nodes(node)).sum(),
            Named::Many(many) => many.values().map(|node| nodes(node)).sum(),
        };
        1 + named + branches.plus.as_deref().map_or(0, nodes)
    }

    #[test]
    fn pruning_removes_what_nobody_needs_and_nothing_else() {
        let mut trie = Trie::default();
        for filter in ["a/+/c", "a/+/c/d/e/#", "a/+/x", "a/#", "#"] {
            insert(&mut trie, filter, 1);
        }
        for (filter, left) in [
            ("a/+/c/d/e/#", 5), // root, a, +, c, x
            ("a/+/x", 4),
            ("#", 4),
            ("a/+/c", 2),
            ("a/#", 1),
        ] {
            remove(&mut trie, filter, 1);
            assert_eq!(nodes(&trie.root), left, "after {filter}");
        }
        assert!(trie.is_empty());
    }

    #[test]
    fn an_inner_filter_that_goes_leaves_the_way_to_longer_ones() {
        let mut trie = Trie::default();
        insert(&mut trie, "a/b/+", 1);
        insert(&mut trie, "a/b/+/d/+", 2);
        remove(&mut trie, "a/b/+", 1);
        let mut seen = Vec::new();
        trie.matches("a/b/c/d/e", &mut |subscriber, ()| seen.push(subscriber));
        assert_eq!(seen, [2]);
    }

    #[test]
    fn branches_change_their_form_and_back() {
        let mut trie = Trie::default();
        for number in 0..1000 {
            insert(&mut trie, &format!("a/{number}/+"), number);
        }
        for number in 0..1000 {
            let mut seen = Vec::new();
            trie.matches(&format!("a/{number}/x"), &mut |subscriber, ()| seen.push(subscriber));
            assert_eq!(seen, [number]);
        }
        for number in 0..998 {
            remove(&mut trie, &format!("a/{number}/+"), number);
        }
        let node = trie.root.branches.as_ref().and_then(|all| all.child("a")).expect("node a");
        let branches = node.branches.as_ref().expect("branches of a");
        assert!(matches!(&branches.named, Named::Few(few) if few.len() == 2));
        remove(&mut trie, "a/998/+", 998);
        remove(&mut trie, "a/999/+", 999);
        assert!(trie.is_empty());
    }

    #[test]
    fn the_deepest_possible_filter_needs_no_deep_stack() {
        let filter = format!("{}#", "/".repeat(65_534));
        let topic = "/".repeat(65_535);
        let work = move || {
            let mut trie = Trie::default();
            insert(&mut trie, &filter, 1);
            let mut seen = 0;
            trie.matches(&topic, &mut |_, ()| seen += 1);
            remove(&mut trie, &filter, 1);
            assert!(trie.is_empty());
            insert(&mut trie, &filter, 1);
            insert(&mut trie, &filter.replace('#', "+"), 1);
            drop(trie);
            seen
        };
        let small_stack = std::thread::Builder::new().stack_size(128 * 1024).spawn(work);
        assert_eq!(small_stack.expect("a thread").join().expect("no overflow"), 1);
    }
}
