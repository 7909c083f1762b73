//! The push hook: an HTTP gateway of the operator's is told of messages that users have not
//! received on any device (rulings 34 and 35).
//!
//! Owns a few threads, each with one connection to the gateway and the users of some slots, so
//! that one user's pushes stay in order. What they know is what may be lost: which conversations
//! may have something to push. All else is in the store and is read when it is due. Shards only
//! leave a note; notes that do not fit are replaced by a look through the store.
//!
//! Deliberately not here: what is pushed to whom, and when (`hoopoe_im::push`).

mod body;
mod lane;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use dashmap::DashMap;
use hoopoe_im::User;
use hoopoe_im::entry::{Entry, EntryKind};
use hoopoe_im::id::{ConvKey, ConvKind};
use hoopoe_im::push::users_with_tokens;
use hoopoe_store::kv::SharedKv;
use parking_lot::{Condvar, Mutex};

use crate::connection::Env;
use crate::settings::PushSettings;
use lane::Lane;

/// Notes that may wait for one thread.
const MOST_NOTES: usize = 100_000;

/// What a thread is told.
#[derive(Debug)]
enum Note {
    /// A user may have to be told of something in a conversation.
    Owed(User, ConvKey, u64),
    /// A group has a new message.
    Group(ConvKey, u64),
    /// A message of a group or channel that mentions all, sent at this time.
    All(ConvKey, u64),
    /// The members of a group have changed.
    Members(ConvKey),
    /// Nobody looks at the user's devices any more.
    Away(User),
}

/// What waits for one thread.
#[derive(Debug)]
struct Inbox {
    notes: Mutex<Notes>,
    rings: Condvar,
}

#[derive(Debug, Default)]
struct Notes {
    list: Vec<Note>,
    /// Some were lost: everything is to be looked through.
    lost: bool,
}

impl Inbox {
    fn put(&self, note: Note) {
        let mut notes = self.notes.lock();
        if notes.list.len() >= MOST_NOTES {
            notes.lost = true;
        } else {
            notes.list.push(note);
        }
        drop(notes);
        self.rings.notify_one();
    }

    /// What was told is not known any more.
    fn lose(&self) {
        self.notes.lock().lost = true;
    }

    /// Waits at most so long for a note; gives what there is, and whether some were lost.
    fn take(&self, most: Duration) -> (Vec<Note>, bool) {
        let mut notes = self.notes.lock();
        if notes.list.is_empty() && !notes.lost && !most.is_zero() {
            self.rings.wait_for(&mut notes, most);
        }
        (std::mem::take(&mut notes.list), std::mem::take(&mut notes.lost))
    }
}

/// What has come of pushes since the start.
#[derive(Debug, Default)]
pub struct PushCounts {
    /// Messages that the gateway has taken.
    pub sent: AtomicU64,
    /// Requests that failed.
    pub failed: AtomicU64,
    /// Conversations whose pushes were given up after too many attempts.
    pub given_up: AtomicU64,
    /// Conversations that wait, by thread.
    waiting: Box<[AtomicU64]>,
}

impl PushCounts {
    /// Conversations that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.iter().map(|waiting| waiting.load(Ordering::Relaxed)).sum()
    }
}

/// The way to the threads.
#[derive(Debug)]
pub struct PushHook {
    /// Users with a push token, and whether an app of theirs is looked at.
    users: DashMap<User, bool>,
    lanes: Vec<Arc<Inbox>>,
    counts: Arc<PushCounts>,
}

impl PushHook {
    /// Finds the users with push tokens; `None` when nobody is to be told. To be called before any
    /// shard runs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(settings: &PushSettings, kv: &SharedKv) -> anyhow::Result<Option<PushHook>> {
        if settings.url.is_none() {
            return Ok(None);
        }
        let users = DashMap::new();
        users_with_tokens(kv, |user| {
            users.insert(user, false);
        })
        .context("push tokens cannot be read")?;
        let inbox = || {
            // What an earlier run has left is found in the store.
            let notes = Mutex::new(Notes { list: Vec::new(), lost: true });
            Arc::new(Inbox { notes, rings: Condvar::new() })
        };
        let lanes = (0..settings.connections).map(|_| inbox()).collect();
        let waiting = (0..settings.connections).map(|_| AtomicU64::new(0)).collect();
        let counts = Arc::new(PushCounts { waiting, ..PushCounts::default() });
        Ok(Some(PushHook { users, lanes, counts }))
    }

    /// Starts the threads. They end with the process: what is not recorded by then is pushed
    /// again.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(
        &self,
        env: &Arc<Env>,
        kv: &SharedKv,
        settings: &PushSettings,
    ) -> anyhow::Result<()> {
        for (number, inbox) in self.lanes.iter().enumerate() {
            let env: Weak<Env> = Arc::downgrade(env);
            let counts = self.counts.clone();
            let lane = Lane::new(number, env, kv.clone(), inbox.clone(), settings, counts)?;
            std::thread::Builder::new()
                .name(format!("push-{number}"))
                .spawn(move || lane.run())
                .context("no thread for pushes")?;
        }
        Ok(())
    }

    /// What has come of it.
    pub fn counts(&self) -> &PushCounts {
        &self.counts
    }

    /// A stored entry is on its way to devices.
    pub(super) fn entry(&self, entry: &Entry) {
        if entry.kind != EntryKind::Message || self.users.is_empty() {
            return;
        }
        let tenant: Arc<str> = entry.conv.tenant().into();
        let user = |id: &str| User { tenant: tenant.clone(), id: id.into() };
        match entry.conv.kind() {
            ConvKind::User => {
                self.owed(user(entry.conv.peer_of(&entry.from)), &entry.conv, entry.ts_ms);
            }
            ConvKind::Group | ConvKind::Channel => {
                for mentioned in &entry.mentions {
                    self.owed(user(mentioned), &entry.conv, entry.ts_ms);
                }
                let (conv, ts_ms) = (entry.conv.clone(), entry.ts_ms);
                let lane = usize::from(conv.slot().get()) % self.lanes.len();
                if entry.at_all {
                    self.lanes[lane].put(Note::All(conv, ts_ms));
                } else if conv.kind() == ConvKind::Group {
                    self.lanes[lane].put(Note::Group(conv, ts_ms));
                }
            }
        }
    }

    fn owed(&self, user: User, conv: &ConvKey, ts_ms: u64) {
        if self.users.contains_key(&user) {
            self.lane_of(&user).put(Note::Owed(user, conv.clone(), ts_ms));
        }
    }

    fn lane_of(&self, user: &User) -> &Inbox {
        &self.lanes[usize::from(user.slot().get()) % self.lanes.len()]
    }

    /// The members of a group have changed.
    pub(super) fn listed(&self, conv: &ConvKey) {
        if conv.kind() == ConvKind::Group && !self.users.is_empty() {
            let lane = usize::from(conv.slot().get()) % self.lanes.len();
            self.lanes[lane].put(Note::Members(conv.clone()));
        }
    }

    /// An app of the user is looked at, or none is.
    pub(super) fn attended(&self, user: User, attended: bool) {
        let known = self.users.get_mut(&user).map(|mut now| *now = attended);
        if known.is_some() && !attended {
            self.lane_of(&user).put(Note::Away(user));
        }
    }

    /// The user takes pushes, or none any more.
    pub(super) fn token(&self, user: User, takes: bool, attended: bool) {
        if takes {
            self.users.insert(user, attended);
        } else {
            self.users.remove(&user);
        }
    }

    /// Every user of the tenant who takes pushes is owed a message.
    fn owed_to_all(&self, conv: &ConvKey, ts_ms: u64) {
        let of_tenant = |user: &User| *user.tenant == *conv.tenant();
        let users = self.users.iter().map(|user| user.key().clone()).filter(of_tenant);
        // Nothing is told while the map is looked at.
        for user in users.collect::<Vec<_>>() {
            self.owed(user, conv, ts_ms);
        }
    }

    fn is_attended(&self, user: &User) -> Option<bool> {
        self.users.get(user).map(|attended| *attended)
    }

    /// The users of a thread.
    fn users_of(&self, lane: usize) -> Vec<User> {
        let own = |user: &User| usize::from(user.slot().get()) % self.lanes.len() == lane;
        let users: HashSet<User> =
            self.users.iter().map(|user| user.key().clone()).filter(own).collect();
        users.into_iter().collect()
    }
}
