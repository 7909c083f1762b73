//! Presence as commands of a shard: what devices coming and going, `im/me/st/…` and the service
//! `presence` do to the two steps, and what one shard's tells another's.
//!
//! Rows are read in three ways: of users of this shard through the batch under way, of others as
//! committed, of whoever is in memory not at all. What travels between shards ([`WatchStep`]) may
//! be lost in a crash: the connections it rests on are lost with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hoopoe_core::Slot;
use hoopoe_store::StoreError;
use hoopoe_store::kv::Family;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Presence, PresenceRow, PresenceSettings, Show, StatusText, View, WatchLists, WatchRefused,
};
use crate::command::{Asker, Device, Forward, User};
use crate::effect::Answer;
use crate::id::{ConvKey, is_id, user_slot};
use crate::keys::{self, conv_kind, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::PairRow;
use crate::service::{Caller, Op};
use crate::settings::{ContactPolicy, ImSettings};
use crate::shard::Work;
use crate::txn::{Txn, json_row, read_json};

/// How long watchers wait when rows cannot be read.
const UNREAD_MS: u64 = 1_000;

/// Both sides of presence in one shard.
#[derive(Debug)]
pub(crate) struct Desk {
    /// States of the shard's users, and who watches them.
    pub(crate) people: Presence,
    /// Whom the shard's users watch.
    pub(crate) lists: WatchLists,
    shard: usize,
    shards: usize,
}

impl Desk {
    /// Nobody is here. `started_ms` is the same for all shards of a process.
    pub(crate) fn new(settings: &ImSettings, shard: u16, shards: u16, started_ms: u64) -> Desk {
        let settings = PresenceSettings {
            grace_ms: settings.presence_grace_secs * 1_000,
            watches: settings.watches_max,
            ..PresenceSettings::default()
        };
        Desk {
            people: Presence::new(settings, started_ms),
            lists: WatchLists::new(settings.watches),
            shard: usize::from(shard),
            shards: usize::from(shards),
        }
    }

    fn owns(&self, user: &User) -> bool {
        user.slot().shard(self.shards) == self.shard
    }
}

/// A user sets what is shown.
#[derive(Clone, Debug)]
pub struct SetShow {
    /// Who.
    pub user: User,
    /// The word.
    pub show: Show,
    /// The text beside it.
    pub text: StatusText,
    /// Who waits.
    pub asker: Asker,
}

/// What one shard's presence tells another's.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WatchStep {
    /// The tenant.
    pub tenant: Arc<str>,
    /// Who watches.
    pub watcher: Arc<str>,
    /// Who is watched; all of one shard.
    pub users: Vec<Arc<str>>,
    /// What.
    pub kind: WatchStepKind,
}

/// What a watcher's shard tells that of the watched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WatchStepKind {
    /// Is to be told, of what is newer than these versions: one for each user.
    Watch(Vec<u64>),
    /// Is to be told no more.
    Unwatch,
    /// Blocks or friendship have changed between the two.
    Rights,
}

impl WatchStep {
    /// The slot it is for.
    pub fn slot(&self) -> Slot {
        self.users.first().map_or(user_slot(&self.tenant, ""), |user| user_slot(&self.tenant, user))
    }
}

impl From<WatchRefused> for Fault {
    fn from(refused: WatchRefused) -> Fault {
        Refusal::limit(refused.to_string()).into()
    }
}

fn presence_key(user: &User) -> Vec<u8> {
    keys::user(&user.tenant, &user.id, user_kind::PRESENCE)
}

/// Whether contact policy and blocks let `watcher` see `user`. A block hides each from the other
/// (ruling 25); the pair's record is what both rosters say (ruling 26).
fn sees(
    txn: &mut Txn<'_>,
    policy: ContactPolicy,
    watcher: &User,
    user: &User,
) -> Result<bool, StoreError> {
    if watcher == user {
        return Ok(true);
    }
    let conv = ConvKey::pair(&user.tenant, &watcher.id, &user.id);
    let key = keys::conv(&conv, conv_kind::PAIR);
    let pair: PairRow = match txn.peek(Family::Im, &key)? {
        Some(row) => read_json(&key, &row)?,
        None => PairRow::default(),
    };
    let friendly = policy == ContactPolicy::Open || pair.friends;
    Ok(friendly && !pair.low_blocks && !pair.high_blocks)
}

impl Work<'_> {
    /// The stored row of a user that the step does not know.
    fn presence_row(&mut self, user: &User) -> Result<Option<PresenceRow>, StoreError> {
        let key = presence_key(user);
        if !self.memory.desk.owns(user) {
            let row = self.txn.peek(Family::Im, &key)?;
            return row.map(|row| read_json(&key, &row)).transpose();
        }
        if self.memory.desk.people.knows(user) { Ok(None) } else { self.txn.json(&key) }
    }

    /// Writes a row that a restart may find a second old.
    fn note_presence(&mut self, user: &User, row: Option<PresenceRow>) {
        if let Some(row) = row {
            self.txn.put_lazily(Family::Im, &presence_key(user), json_row(&row));
        }
    }

    /// A device of the user is connected.
    pub(crate) fn presence_connected(&mut self, device: &Device) -> Result<(), Fault> {
        let user = &device.user;
        let (row, number) = (self.presence_row(user)?, device.location.to_bits());
        let row = self.memory.desk.people.device_connected(self.now_ms, user, number, row);
        self.note_presence(user, row);
        Ok(())
    }

    /// A device of the user is gone. With the last one its watch list ends.
    pub(crate) fn presence_gone(&mut self, device: &Device) {
        let user = &device.user;
        self.memory.desk.people.device_gone(self.now_ms, user, device.location.to_bits());
        if !self.memory.desk.people.has_device(user) {
            let users = self.memory.desk.lists.end(user);
            self.tell_watched(user, users.into_iter().map(|user| (user, 0)), false);
        }
    }

    /// `im/me/st/{show}`
    pub(crate) fn set_show(&mut self, set: &SetShow) -> Result<Answer, Fault> {
        let row = self.presence_row(&set.user)?;
        let (show, text) = (set.show.clone(), set.text.clone());
        let row = self.memory.desk.people.set(self.now_ms, &set.user, row, show, text);
        if let Some(row) = row {
            self.txn.put_json(&presence_key(&set.user), &row);
        }
        Ok(Answer::Done)
    }

    /// Operations of the service `presence`.
    pub(crate) fn presence_call(&mut self, caller: &Caller, op: &Op) -> Result<Value, Fault> {
        let watcher = &caller.user;
        let (Op::PresenceWatch(asked) | Op::PresenceUnwatch(asked) | Op::PresenceGet(asked)) = op
        else {
            return Err(Refusal::not_found("this operation is not offered here").into());
        };
        let users = self.asked_users(watcher, &asked.users)?;
        if matches!(op, Op::PresenceWatch(_)) && !self.memory.desk.people.has_device(watcher) {
            let text = "watch: no device of the user is connected that could be told";
            return Err(Refusal::conflict(text).into());
        }
        let mut views = Vec::with_capacity(users.len());
        for user in &users {
            views.push(self.view_of(watcher, user)?);
        }
        match op {
            Op::PresenceWatch(_) => {
                self.memory.desk.lists.add(watcher, users.iter().cloned())?;
                let told: Vec<_> =
                    users.iter().cloned().zip(views.iter().map(|v| v.version)).collect();
                self.tell_watched(watcher, told, true);
            }
            Op::PresenceUnwatch(_) => {
                let gone = self.memory.desk.lists.remove(watcher, users.iter().cloned());
                self.tell_watched(watcher, gone.into_iter().map(|user| (user, 0)), false);
            }
            _ => {}
        }
        let users: Vec<Value> =
            users.iter().zip(&views).map(|(user, view)| view.json(&user.id)).collect();
        Ok(json!({ "users": users }))
    }

    /// The users a request names, each once, in their order.
    fn asked_users(&self, watcher: &User, asked: &[String]) -> Result<Vec<User>, Refusal> {
        let most = self.settings.watches_max;
        let mut seen = BTreeSet::new();
        let mut users = Vec::new();
        for id in asked {
            if !is_id(id) {
                return Err(Refusal::bad_request(format!("users: {id:?} is no valid id")));
            }
            if !seen.insert(id) {
                continue;
            }
            if users.len() >= most {
                return Err(Refusal::limit(format!("users: more than {most}")));
            }
            let user = watcher.peer(id);
            if let Some(site) = self.settings.sites.as_ref().and_then(|s| s.elsewhere(&user)) {
                let text = format!("users: {id} lives at site {site}, whose presence stays there");
                return Err(Refusal::conflict(text));
            }
            users.push(user);
        }
        Ok(users)
    }

    /// What `watcher` sees of a user of any shard now.
    fn view_of(&mut self, watcher: &User, user: &User) -> Result<View, Fault> {
        let sees = sees(&mut self.txn, self.settings.contact_policy, watcher, user)?;
        let row = self.presence_row(user)?;
        Ok(self.memory.desk.people.get(self.now_ms, watcher, user, row, sees))
    }

    /// Tells the shards of the watched, one step each.
    fn tell_watched(
        &mut self,
        watcher: &User,
        users: impl IntoIterator<Item = (User, u64)>,
        watch: bool,
    ) {
        let mut by_shard: BTreeMap<usize, (Vec<Arc<str>>, Vec<u64>)> = BTreeMap::new();
        for (user, told) in users {
            let shard = user.slot().shard(self.memory.desk.shards);
            let (users, versions) = by_shard.entry(shard).or_default();
            users.push(user.id);
            versions.push(told);
        }
        for (users, versions) in by_shard.into_values() {
            let kind = if watch { WatchStepKind::Watch(versions) } else { WatchStepKind::Unwatch };
            let (tenant, watcher) = (watcher.tenant.clone(), watcher.id.clone());
            self.tell(Forward::Watch(WatchStep { tenant, watcher, users, kind }));
        }
    }

    /// What the shard of a watcher, or of a pair, tells that of the watched.
    pub(crate) fn watch_step(&mut self, step: &WatchStep) -> Result<(), Fault> {
        let watcher = User { tenant: step.tenant.clone(), id: step.watcher.clone() };
        for (place, id) in step.users.iter().enumerate() {
            let user = User { tenant: step.tenant.clone(), id: id.clone() };
            let people = &mut self.memory.desk.people;
            match &step.kind {
                WatchStepKind::Unwatch => people.unwatch(&watcher, &user),
                WatchStepKind::Rights => people.rights_changed(self.now_ms, &watcher, &user),
                WatchStepKind::Watch(told) => {
                    let told = told.get(place).copied().unwrap_or_default();
                    self.register(&watcher, &user, told)?;
                }
            }
        }
        Ok(())
    }

    fn register(&mut self, watcher: &User, user: &User, told: u64) -> Result<(), Fault> {
        let sees = sees(&mut self.txn, self.settings.contact_policy, watcher, user)?;
        let row = self.presence_row(user)?;
        let people = &mut self.memory.desk.people;
        let watched = people.watch(self.now_ms, watcher, user, row, Some(told), sees);
        if let Err(refused) = watched {
            // The watch itself was answered already.
            let text = format!("presence of {}: {refused}", user.id);
            self.notice(watcher.clone(), "im/me/sys/err/-/151".to_owned(), text);
        }
        Ok(())
    }

    /// What concerns a pair has changed: each may now be hidden from the other, or not.
    pub(crate) fn tell_rights(&mut self, conv: &ConvKey) {
        let Some((low, high)) = conv.pair_users() else { return };
        for (watcher, user) in [(low, high), (high, low)] {
            self.tell(Forward::Watch(WatchStep {
                tenant: conv.tenant().into(),
                watcher: watcher.into(),
                users: vec![user.into()],
                kind: WatchStepKind::Rights,
            }));
        }
    }

    /// Ends grace times and tells watchers what is due.
    pub(crate) fn tell_presence(&mut self) -> Result<(), Fault> {
        let Work { txn, memory, settings, now_ms, .. } = self;
        let mut fault = None;
        let tick = memory.desk.people.on_tick(*now_ms, |watcher, user| {
            match sees(txn, settings.contact_policy, watcher, user) {
                Ok(sees) => sees,
                Err(error) => {
                    fault = Some(error);
                    false
                }
            }
        });
        if let Some(error) = fault {
            self.memory.desk.people.lost();
            self.memory.desk.people.defer(self.now_ms + UNREAD_MS);
            return Err(error.into());
        }
        for (user, row) in tick.rows {
            self.note_presence(&user, Some(row));
        }
        for change in tick.changes {
            let topic = format!("im/me/pr/{}", change.user.id);
            self.notice(change.watcher, topic, change.payload.as_bytes().to_vec());
        }
        Ok(())
    }

    /// The process ends: nobody is here any more.
    pub(crate) fn stop_presence(&mut self) {
        for (user, row) in self.memory.desk.people.stop(self.now_ms) {
            self.note_presence(&user, Some(row));
        }
    }
}
