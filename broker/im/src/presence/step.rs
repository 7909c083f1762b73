//! The watched side: states of a shard's users, who watches them, and what is told when.
//!
//! In memory is who has a device connected, is within the grace time, is watched or has just left,
//! until that is committed; everybody else is a row. The caller reads that row for users that
//! [`Presence::knows`] not, and writes the rows it is given, with the batch whose commit lets the
//! notices out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use super::row::{PresenceRow, View};
use super::show::{Show, StatusText};
use super::watcher::Watcher;
use super::{PresenceSettings, WatchRefused};
use crate::command::User;

/// A notice of a user's presence, for all devices of a watcher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Who is told.
    pub watcher: User,
    /// Of whom.
    pub user: User,
    /// JSON `{user, show, text, since, version}`; one allocation for all who see the same.
    pub payload: Arc<str>,
}

/// What a tick gives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tick {
    /// Rows to be written, before the changes leave.
    pub rows: Vec<(User, PresenceRow)>,
    /// Notices, by time due, watched user and watcher.
    pub changes: Vec<Change>,
}

/// A user of whom something is in memory.
#[derive(Debug, Default)]
struct Person {
    row: PresenceRow,
    /// Connected devices, by the numbers the caller gave them.
    devices: SmallVec<[u64; 2]>,
    /// When a user without devices is gone.
    gone_at: Option<u64>,
    watchers: BTreeMap<User, Watcher>,
    /// When watchers were told last.
    told_at: Option<u64>,
    /// When they are to be told next.
    due: Option<u64>,
}

/// States and watchers of a shard's users.
#[derive(Debug)]
pub struct Presence {
    settings: PresenceSettings,
    /// When this process started, which marks its rows.
    started: u64,
    people: HashMap<User, Box<Person>>,
    /// Ends of grace times.
    leaving: BTreeSet<(u64, User)>,
    /// Whose watchers are to be told, and when.
    telling: BTreeSet<(u64, User)>,
    /// Nobody is told before.
    quiet_until: u64,
    /// Whose rows were lost with a batch.
    unsaved: BTreeSet<User>,
    /// Whose rows the present batch writes.
    unwritten: BTreeSet<User>,
}

impl Presence {
    /// Nobody is here. `started`: when this process started, in milliseconds since the epoch.
    pub fn new(settings: PresenceSettings, started: u64) -> Presence {
        Presence {
            settings,
            started,
            people: HashMap::new(),
            leaving: BTreeSet::new(),
            telling: BTreeSet::new(),
            quiet_until: 0,
            unsaved: BTreeSet::new(),
            unwritten: BTreeSet::new(),
        }
    }

    /// When the process started; readers need it to judge rows ([`PresenceRow::read_back`]).
    pub fn started(&self) -> u64 {
        self.started
    }

    /// True if the user's state is in memory; otherwise calls about it want the stored row.
    pub fn knows(&self, user: &User) -> bool {
        self.people.contains_key(user)
    }

    /// A device of the user is connected; `device` tells it from the user's others. Gives the row
    /// if it has to be written.
    pub fn device_connected(
        &mut self,
        now: u64,
        user: &User,
        device: u64,
        row: Option<PresenceRow>,
    ) -> Option<PresenceRow> {
        let started = self.started;
        let person = self.person(now, user, row);
        if !person.devices.contains(&device) {
            person.devices.push(device);
        }
        if let Some(at) = person.gone_at.take() {
            self.leaving.remove(&(at, user.clone()));
        }
        let person = self.person(now, user, None);
        let changed = person.row.change(now, |row| row.here = true);
        if !changed && person.row.boot == started {
            return None;
        }
        person.row.boot = started;
        let row = person.row.clone();
        if changed {
            self.schedule(now, user);
        }
        Some(row)
    }

    /// A device of the user has gone. The user stays here for the grace time: see
    /// [`Presence::on_tick`].
    pub fn device_gone(&mut self, now: u64, user: &User, device: u64) {
        let Some(person) = self.people.get_mut(user) else { return };
        let Some(at) = person.devices.iter().position(|of| *of == device) else { return };
        person.devices.swap_remove(at);
        if person.devices.is_empty() {
            let at = now.saturating_add(self.settings.grace_ms);
            person.gone_at = Some(at);
            self.leaving.insert((at, user.clone()));
        }
    }

    /// True while a device of the user is connected.
    pub fn has_device(&self, user: &User) -> bool {
        self.people.get(user).is_some_and(|person| !person.devices.is_empty())
    }

    /// The user wants to show this from now on. Gives the row if it has to be written.
    pub fn set(
        &mut self,
        now: u64,
        user: &User,
        row: Option<PresenceRow>,
        show: Show,
        text: StatusText,
    ) -> Option<PresenceRow> {
        let started = self.started;
        let person = self.person(now, user, row);
        if person.row.show == show && person.row.text == text {
            self.forget(user);
            return None;
        }
        let changed = person.row.change(now, |row| (row.show, row.text) = (show, text));
        person.row.boot = started;
        let row = person.row.clone();
        if changed {
            self.schedule(now, user);
        }
        self.forget(user);
        Some(row)
    }

    /// Registers a watcher with the user and gives the present state. `told`: the version that
    /// the watcher has seen in a row read before; if the state is newer, a notice follows.
    /// Without it, the state given here is what the watcher has been told. `sees`: policy, roster
    /// and blocks let it.
    pub fn watch(
        &mut self,
        now: u64,
        watcher: &User,
        user: &User,
        row: Option<PresenceRow>,
        told: Option<u64>,
        sees: bool,
    ) -> Result<View, WatchRefused> {
        let most = self.settings.watchers;
        let person = self.person(now, user, row);
        if person.watchers.len() >= most && !person.watchers.contains_key(watcher) {
            self.forget(user);
            return Err(WatchRefused::TooManyWatchers(most));
        }
        let own = watcher == user;
        let sees = sees || own;
        let entry = person.watchers.entry(watcher.clone()).or_default();
        let view = if sees { entry.view(&person.row, own) } else { View::nobody() };
        entry.hidden = !sees;
        entry.told = told.unwrap_or(view.version);
        if view.version > entry.told {
            self.schedule(now, user);
        }
        Ok(view)
    }

    /// The watcher wants to hear nothing more of the user.
    pub fn unwatch(&mut self, watcher: &User, user: &User) {
        if let Some(person) = self.people.get_mut(user) {
            person.watchers.remove(watcher);
        }
        self.forget(user);
    }

    /// Policy, roster or a block between the two has changed: a watcher who may see no more is
    /// told what looks like going offline, one who may again is told the state.
    pub fn rights_changed(&mut self, now: u64, watcher: &User, user: &User) {
        if self.people.get(user).is_some_and(|person| person.watchers.contains_key(watcher)) {
            self.schedule(now, user);
        }
    }

    /// What `viewer` sees of the user now. `row`: the stored row, for users that are not known.
    pub fn get(
        &self,
        now: u64,
        viewer: &User,
        user: &User,
        row: Option<PresenceRow>,
        sees: bool,
    ) -> View {
        let own = viewer == user;
        if !sees && !own {
            return View::nobody();
        }
        if let Some(person) = self.people.get(user) {
            let watcher = person.watchers.get(viewer).copied().unwrap_or_default();
            return watcher.view(&person.row, own);
        }
        let row = row.unwrap_or_default().read_back(now, self.started, self.settings.grace_ms);
        Watcher::default().view(&row, own)
    }

    /// When [`Presence::on_tick`] has something to do, in milliseconds since the epoch.
    pub fn next_timeout(&self) -> Option<u64> {
        let first = |set: &BTreeSet<(u64, User)>| set.first().map(|(at, _)| *at);
        let telling = first(&self.telling).map(|at| at.max(self.quiet_until));
        let unsaved = (!self.unsaved.is_empty()).then_some(0);
        [first(&self.leaving), telling, unsaved].into_iter().flatten().min()
    }

    /// Ends grace times and tells watchers what is due, at most as many as the settings say;
    /// [`Presence::next_timeout`] is in the past while there are more. `sees(watcher, user)`:
    /// policy, roster and blocks let the watcher see the user.
    pub fn on_tick(&mut self, now: u64, mut sees: impl FnMut(&User, &User) -> bool) -> Tick {
        let mut tick = Tick::default();
        self.save_again(&mut tick);
        while let Some((at, user)) = self.leaving.first().filter(|(at, _)| *at <= now).cloned() {
            self.leaving.remove(&(at, user.clone()));
            self.left(now, &user, &mut tick);
        }
        if now < self.quiet_until {
            return tick;
        }
        while let Some((at, user)) = self.telling.first().filter(|(at, _)| *at <= now).cloned() {
            if !self.tell(now, &user, &mut sees, &mut tick) {
                break;
            }
            self.telling.remove(&(at, user.clone()));
            self.forget(&user);
        }
        tick
    }

    /// Under load, watchers are told later: nothing is lost by it, what happens meanwhile merges.
    pub fn defer(&mut self, until: u64) {
        self.quiet_until = self.quiet_until.max(until);
    }

    /// The last batch is committed: who is in memory only for a row of it goes.
    pub fn committed(&mut self) {
        for user in std::mem::take(&mut self.unwritten) {
            self.forget(&user);
        }
    }

    /// The last batch was not committed: rows given since may not be written, watchers not told.
    /// Both is done again.
    pub fn lost(&mut self) {
        self.unwritten.clear();
        for (user, person) in &mut self.people {
            self.unsaved.insert(user.clone());
            for watcher in person.watchers.values_mut().filter(|watcher| !watcher.hidden) {
                watcher.told = 0;
            }
            if person.due.is_none() && !person.watchers.is_empty() {
                person.due = Some(0);
                self.telling.insert((0, user.clone()));
            }
        }
    }

    /// Gives rows that were lost, at most as many as a tick gives notices.
    fn save_again(&mut self, tick: &mut Tick) {
        for _ in 0..self.settings.notices_per_tick.max(1) {
            let Some(user) = self.unsaved.pop_first() else { return };
            self.save(&user, tick);
        }
    }

    /// Gives a row, and keeps the user in memory until it is committed.
    fn save(&mut self, user: &User, tick: &mut Tick) {
        if let Some(person) = self.people.get(user) {
            tick.rows.push((user.clone(), person.row.clone()));
            self.unwritten.insert(user.clone());
        }
    }

    /// The process ends: grace times end now, and nobody is here any more. Gives the rows to be
    /// written.
    pub fn stop(&mut self, now: u64) -> Vec<(User, PresenceRow)> {
        let mut rows = BTreeMap::new();
        for (user, person) in &mut self.people {
            if person.row.change(now, |row| row.here = false) {
                rows.insert(user.clone(), person.row.clone());
            }
        }
        self.people.clear();
        self.leaving.clear();
        self.telling.clear();
        rows.into_iter().collect()
    }

    /// How many users are in memory.
    pub fn known(&self) -> usize {
        self.people.len()
    }

    /// The grace time of a user without devices is over.
    fn left(&mut self, now: u64, user: &User, tick: &mut Tick) {
        let started = self.started;
        let Some(person) = self.people.get_mut(user) else { return };
        person.gone_at = None;
        let changed = person.row.change(now, |row| row.here = false);
        person.row.boot = started;
        if changed {
            self.save(user, tick);
            self.schedule(now, user);
        }
        self.forget(user);
    }

    /// Tells the user's watchers what they do not know yet; false if the tick is full before all
    /// were told.
    fn tell(
        &mut self,
        now: u64,
        user: &User,
        sees: &mut impl FnMut(&User, &User) -> bool,
        tick: &mut Tick,
    ) -> bool {
        let most = self.settings.notices_per_tick.max(1);
        let Some(person) = self.people.get_mut(user) else { return true };
        let issued = person.row.issued;
        let mut last: Option<(View, Arc<str>)> = None;
        let mut all = true;
        let mut told = false;
        for (key, watcher) in &mut person.watchers {
            if tick.changes.len() >= most {
                all = false;
                break;
            }
            let own = key == user;
            let sees = own || sees(key, user);
            let Some(view) = watcher.news(&mut person.row, now, own, sees) else { continue };
            let payload = match &last {
                Some((same, payload)) if *same == view => payload.clone(),
                _ => Arc::from(view.json(&user.id).to_string()),
            };
            last = Some((view, payload.clone()));
            tick.changes.push(Change { watcher: key.clone(), user: user.clone(), payload });
            told = true;
        }
        if person.row.issued != issued {
            tick.rows.push((user.clone(), person.row.clone()));
        }
        if all {
            person.due = None;
        }
        if told {
            person.told_at = Some(now);
        }
        all
    }

    /// The user's state in memory, read back from the row if it was not there. One whom an
    /// earlier process left here has the rest of a grace time to come back.
    fn person(&mut self, now: u64, user: &User, row: Option<PresenceRow>) -> &mut Person {
        let (started, grace_ms) = (self.started, self.settings.grace_ms);
        let leaving = &mut self.leaving;
        self.people.entry(user.clone()).or_insert_with(|| {
            let mut row = row.unwrap_or_default().read_back(now, started, grace_ms);
            let mut gone_at = None;
            if row.is_left_over(started) {
                let at = started.saturating_add(grace_ms);
                leaving.insert((at, user.clone()));
                gone_at = Some(at);
            } else if row.here {
                // This process wrote it and knows of no device: a batch was lost.
                row.change(now, |row| row.here = false);
            }
            Box::new(Person { row, gone_at, ..Person::default() })
        })
    }

    /// Has the user's watchers told as soon as the interval allows.
    fn schedule(&mut self, now: u64, user: &User) {
        let Some(person) = self.people.get_mut(user) else { return };
        if person.watchers.is_empty() || person.due.is_some() {
            return;
        }
        let earliest = person.told_at.map_or(now, |at| at + self.settings.interval_ms);
        let due = earliest.max(now);
        person.due = Some(due);
        self.telling.insert((due, user.clone()));
    }

    /// Drops from memory what a row says as well.
    fn forget(&mut self, user: &User) {
        let Some(person) = self.people.get(user) else { return };
        if !person.devices.is_empty() || person.gone_at.is_some() || !person.watchers.is_empty() {
            return;
        }
        if self.unsaved.contains(user) || self.unwritten.contains(user) {
            return;
        }
        if let Some(due) = person.due {
            self.telling.remove(&(due, user.clone()));
        }
        self.people.remove(user);
    }
}
