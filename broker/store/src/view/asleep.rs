//! Stored sessions that wait for nothing but their client: two or three words each.
//!
//! Most sessions of a chat are those of phones in pockets. When one is away, nothing waits in its
//! queue and no publication is routed to it, all that is known of it stands in its rows, and
//! memory keeps only by what to find them: its key's hash with its number, and when it ends. It is
//! read back when its client comes, or an operator or its expiry ends it.
//!
//! A session falls asleep once its rows are synced: then its floor goes as well, as its queue holds
//! nothing that is not acknowledged on disk (see `floors.rs`).

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hoopoe_core::{SessionId, SessionKey};

use super::session::Session;
use super::{Load, ShardView};
use crate::error::StoreError;
use crate::settings::ShardSettings;

/// Numbers of sleeping sessions by their keys.
#[derive(Debug, Default)]
pub(super) struct Asleep {
    /// Keyed by chance: nobody can choose names that meet.
    hasher: RandomState,
    by_key: BTreeMap<u64, SessionId>,
}

impl Asleep {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// False when another session has the place: that one stays awake.
    fn insert(&mut self, key: &SessionKey, id: SessionId) -> bool {
        *self.by_key.entry(self.hasher.hash_one(key)).or_insert(id) == id
    }

    /// The session that has the key's place. Whether it is the key's, its row says.
    fn find(&self, key: &SessionKey) -> Option<SessionId> {
        self.by_key.get(&self.hasher.hash_one(key)).copied()
    }

    /// Whether this session of the key is asleep.
    pub(super) fn contains(&self, key: &SessionKey, id: SessionId) -> bool {
        self.find(key) == Some(id)
    }

    fn remove(&mut self, key: &SessionKey) {
        self.by_key.remove(&self.hasher.hash_one(key));
    }
}

impl Session {
    /// Whether its rows say everything of it, and nothing is to happen to it but its end.
    fn can_sleep(&self, settings: &ShardSettings) -> bool {
        let is_away = !self.is_connected() && self.disconnected_at_ms > 0;
        let is_written = !self.lazy && !self.row_changed && self.answered.is_empty();
        let has_nothing = self.load() == Load::default()
            && self.will.is_none()
            && self.exchanges.is_none()
            && self.window.as_ref().is_none_or(|window| window.is_empty());
        // A start that puts its end off is not in the rows (ruling 14).
        let ends = self.expiry_due_ms().unwrap_or(u64::MAX);
        let mut filters = self.subscriptions.iter().map(|subscription| &subscription.filter);
        is_away
            && is_written
            && has_nothing
            && ends > self.grace_until_ms
            && !self.key.client.starts_with(settings.reserved_clients)
            && filters.all(|filter| (settings.is_unrouted)(filter))
    }
}

impl ShardView {
    /// Sessions whose rows are synced fall asleep, if they can.
    pub(super) fn put_to_sleep(&mut self, ids: impl Iterator<Item = SessionId>) {
        for id in ids {
            let Some(session) = self.sessions.get(&id) else { continue };
            if session.can_sleep(&self.settings)
                && self.directory.is_idle(&session.key)
                && self.asleep.insert(&session.key, id)
            {
                self.directory.bind(&session.key, None);
                self.sessions.remove(&id);
                self.floors.remove(id);
            }
        }
    }

    /// The session of a key is in memory from here on, if there is one.
    pub(super) fn wake(&mut self, key: &SessionKey) -> Result<(), StoreError> {
        match self.asleep.find(key) {
            // By the chance of one hash in 2^64 it is another key's.
            Some(id) => self.wake_if(id, |session| session.key == *key),
            None => Ok(()),
        }
    }

    /// As [`wake`](Self::wake), by its number.
    pub(super) fn wake_by_id(&mut self, id: SessionId) -> Result<(), StoreError> {
        self.wake_if(id, |_| true)
    }

    /// A publication that was under way when a session gave up its last subscription comes to it
    /// all the same, as it would have if it had come at once.
    pub(super) fn wake_late(&mut self, id: SessionId) {
        if let Err(error) = self.wake_by_id(id) {
            // Nobody is owed it any more.
            tracing::warn!(shard = self.shard, %error, "a session could not be read");
        }
    }

    fn wake_if(
        &mut self,
        id: SessionId,
        is_meant: impl FnOnce(&Session) -> bool,
    ) -> Result<(), StoreError> {
        if self.sessions.contains_key(&id) {
            return Ok(());
        }
        let read = self.load_session(id);
        // What was read of it before a fault stays asleep as well.
        let session = self.sessions.remove(&id);
        read?;
        let Some(mut session) = session else { return Ok(()) };
        if !is_meant(&session) || !self.asleep.contains(&session.key, id) {
            return Ok(());
        }
        session.head = session.progress.acknowledged;
        session.weight = session.progress.weight;
        // `timers` has kept it.
        session.due_ms = session.expiry_due_ms().unwrap_or(0);
        self.floors.insert(id, session.head);
        self.asleep.remove(&session.key);
        self.directory.bind(&session.key, Some(id));
        self.sessions.insert(id, session);
        Ok(())
    }
}
