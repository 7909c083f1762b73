//! Whom each user watches: the watching side, in the watcher's own shard, where the limit of
//! ruling 37 is judged. A list lives while the watcher has a device connected; clients watch
//! again after they connect.

use std::collections::{BTreeSet, HashMap};

use super::WatchRefused;
use crate::command::User;

/// The watch lists of a shard's users.
#[derive(Debug)]
pub struct WatchLists {
    most: usize,
    lists: HashMap<User, BTreeSet<User>>,
}

impl WatchLists {
    /// Lists of at most `most` users each.
    pub fn new(most: usize) -> WatchLists {
        WatchLists { most, lists: HashMap::new() }
    }

    /// Adds users to the watcher's list: all of them or, if that were too many, none. Gives them
    /// sorted, each once, to be registered with their shards. Those watched already are among
    /// them: who asks again is told again.
    pub fn add(
        &mut self,
        watcher: &User,
        users: impl IntoIterator<Item = User>,
    ) -> Result<Vec<User>, WatchRefused> {
        let present = self.lists.get(watcher);
        let mut room = self.most - present.map_or(0, BTreeSet::len);
        let mut wanted = BTreeSet::new();
        for user in users {
            if wanted.contains(&user) {
                continue;
            }
            if !present.is_some_and(|list| list.contains(&user)) {
                // Stops at the first beyond the limit, however long the request is.
                room = room.checked_sub(1).ok_or(WatchRefused::TooManyWatched(self.most))?;
            }
            wanted.insert(user);
        }
        if !wanted.is_empty() {
            self.lists.entry(watcher.clone()).or_default().extend(wanted.iter().cloned());
        }
        Ok(wanted.into_iter().collect())
    }

    /// Takes users off the watcher's list; gives those that were on it, sorted.
    pub fn remove(&mut self, watcher: &User, users: impl IntoIterator<Item = User>) -> Vec<User> {
        let Some(list) = self.lists.get_mut(watcher) else { return Vec::new() };
        let gone: BTreeSet<User> = users.into_iter().filter(|user| list.remove(user)).collect();
        if list.is_empty() {
            self.lists.remove(watcher);
        }
        gone.into_iter().collect()
    }

    /// The watcher's last device has gone: gives whom it watched, sorted.
    pub fn end(&mut self, watcher: &User) -> Vec<User> {
        self.lists.remove(watcher).map_or_else(Vec::new, |list| list.into_iter().collect())
    }

    /// How many users this one watches.
    pub fn watched_by(&self, watcher: &User) -> usize {
        self.lists.get(watcher).map_or(0, BTreeSet::len)
    }
}
