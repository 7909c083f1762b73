//! Presence by scripts over virtual time. A line is `time op arguments | what comes of it`: notices
//! due until then and those of the operation, in order, as `watcher: user show text`, and the
//! answer of `watch` and `get` as `= show text`. Versions are checked by the driver: they grow in
//! everything one watcher hears and reads of one user, over restarts too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::*;
use crate::command::User;
use std::sync::Arc;

/// Presence of one shard with its rows, driven by a script.
struct Driver {
    settings: PresenceSettings,
    presence: Presence,
    rows: BTreeMap<User, PresenceRow>,
    /// Who may not see whom: (watcher, user).
    blocks: BTreeSet<(User, User)>,
    versions: HashMap<(User, User), u64>,
    said: Vec<String>,
}

fn key(user: &str) -> User {
    User { tenant: "default".into(), id: user.into() }
}

impl Driver {
    fn new(settings: PresenceSettings) -> Driver {
        Driver {
            settings,
            presence: Presence::new(settings, 0),
            rows: BTreeMap::new(),
            blocks: BTreeSet::new(),
            versions: HashMap::new(),
            said: Vec::new(),
        }
    }

    fn sees(&self, watcher: &User, user: &User) -> bool {
        !self.blocks.contains(&(watcher.clone(), user.clone()))
    }

    /// The stored row, as callers read it: only for users that are not known.
    fn row(&self, user: &User) -> Option<PresenceRow> {
        if self.presence.knows(user) { None } else { self.rows.get(user).cloned() }
    }

    fn write(&mut self, user: &User, row: Option<PresenceRow>) {
        if let Some(row) = row {
            let stored = serde_json::to_vec(&row).unwrap();
            self.rows.insert(user.clone(), serde_json::from_slice(&stored).unwrap());
        }
    }

    fn tick(&mut self, now: u64) {
        let blocks = &self.blocks;
        let tick = self
            .presence
            .on_tick(now, |watcher, user| !blocks.contains(&(watcher.clone(), user.clone())));
        for (user, row) in tick.rows {
            self.write(&user, Some(row));
        }
        self.presence.committed();
        for Change { watcher, user, payload } in tick.changes {
            let body: serde_json::Value = serde_json::from_str(&payload).unwrap();
            assert_eq!(body["user"], *user.id);
            assert!(body["since"].as_u64().unwrap() <= now);
            let version = body["version"].as_u64().unwrap();
            let before = self.versions.insert((watcher.clone(), user.clone()), version);
            assert!(before.is_none_or(|before| before < version), "{before:?} then {payload}");
            let (show, text) = (body["show"].as_str().unwrap(), body["text"].as_str().unwrap());
            let line = format!("{}: {} {show} {text}", watcher.id, user.id);
            self.said.push(line.trim_end().to_owned());
        }
    }

    /// Ticks at every timeout up to `now`.
    fn advance(&mut self, now: u64) {
        while let Some(at) = self.presence.next_timeout().filter(|at| *at <= now) {
            self.tick(at);
        }
    }

    fn answer(&mut self, viewer: &User, user: &User, view: &View) {
        let seen = self.versions.entry((viewer.clone(), user.clone())).or_default();
        if view.version > 0 {
            assert!(*seen <= view.version, "went back from {seen} to {view:?}");
            *seen = view.version;
        }
        self.said.push(format!("= {} {}", view.show, view.text).trim_end().to_owned());
    }

    fn operate(&mut self, now: u64, words: &[&str]) {
        let user = words.get(1).map(|user| key(user));
        let other = words.get(2).map(|user| key(user));
        // A device is a number behind the user, 0 when there is none.
        let device = words.get(2).and_then(|number| number.parse().ok()).unwrap_or_default();
        let row = user.as_ref().and_then(|user| self.row(user));
        match (words[0], user, other) {
            ("connect", Some(user), _) => {
                let row = self.presence.device_connected(now, &user, device, row);
                self.write(&user, row);
            }
            ("gone", Some(user), _) => self.presence.device_gone(now, &user, device),
            ("set", Some(user), _) => {
                let show = Show::parse(words[2]).unwrap();
                let text = StatusText::parse(words[3..].join(" ").as_bytes()).unwrap();
                let row = self.presence.set(now, &user, row, show, text);
                self.write(&user, row);
            }
            ("watch", Some(user), Some(other)) => {
                let (row, sees) = (self.row(&other), self.sees(&user, &other));
                match self.presence.watch(now, &user, &other, row, None, sees) {
                    Ok(view) => self.answer(&user, &other, &view),
                    Err(refused) => self.said.push(refused.to_string()),
                }
            }
            ("get", Some(user), Some(other)) => {
                let (row, sees) = (self.row(&other), self.sees(&user, &other));
                let view = self.presence.get(now, &user, &other, row, sees);
                self.answer(&user, &other, &view);
                // Readers, who know only the row, must not see anything else.
                if sees && user != other {
                    let row = self.rows.get(&other).cloned().unwrap_or_default();
                    let (started, grace) = (self.presence.started(), self.settings.grace_ms);
                    let read = row.read_back(now, started, grace).seen();
                    assert_eq!((read.show, read.text), (view.show, view.text));
                }
            }
            ("unwatch", Some(user), Some(other)) => self.presence.unwatch(&user, &other),
            ("block", Some(user), Some(other)) => {
                self.blocks.insert((other.clone(), user.clone()));
                self.presence.rights_changed(now, &other, &user);
            }
            ("unblock", Some(user), Some(other)) => {
                self.blocks.remove(&(other.clone(), user.clone()));
                self.presence.rights_changed(now, &other, &user);
            }
            ("crash", ..) => self.presence = Presence::new(self.settings, now),
            ("stop", ..) => {
                for (user, row) in self.presence.stop(now) {
                    self.write(&user, Some(row));
                }
                self.presence = Presence::new(self.settings, now);
            }
            ("nothing", ..) => {}
            _ => panic!("{words:?}"),
        }
    }

    fn run(&mut self, name: &str, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (act, expected) = line.split_once('|').unwrap_or((line, ""));
            let words: Vec<&str> = act.split_whitespace().collect();
            let now: u64 = words[0].parse().unwrap();
            self.advance(now);
            self.operate(now, &words[1..]);
            self.advance(now);
            let expected: Vec<&str> =
                expected.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
            assert_eq!(std::mem::take(&mut self.said), expected, "{name}: {line}");
        }
    }
}

const SETTINGS: PresenceSettings = PresenceSettings {
    grace_ms: 30_000,
    interval_ms: 1_000,
    watches: 500,
    watchers: 3,
    notices_per_tick: 100,
};

const SCRIPTS: &[(&str, &str)] = &[
    (
        "a watch gives the present state, changes follow",
        "1000 watch alice bob | = offline
             2000 connect bob     | alice: bob online
             5000 set bob away back at five | alice: bob away back at five
             9000 set bob in-a-meeting | alice: bob in-a-meeting
             9100 unwatch alice bob
             9200 set bob dnd
             9300 watch alice bob | = dnd",
    ),
    (
        "the same again is no change",
        "0 connect bob
             0 watch alice bob | = online
             10 set bob online
             20 set bob dnd x | alice: bob dnd x
             5000 set bob dnd x
             9000 connect bob",
    ),
    (
        "reconnecting within the grace time changes nothing",
        "0 connect bob
             0 watch alice bob | = online
             1000 gone bob
             30999 connect bob
             40000 gone bob
             69999 get alice bob | = online
             70000 nothing | alice: bob offline
             80000 connect bob | alice: bob online",
    ),
    (
        "the last of several devices counts",
        "0 connect bob 1
             1 connect bob 2
             2 watch alice bob | = online
             3 gone bob 1
             4 gone bob 1
             90000 get alice bob | = online
             90001 gone bob 2
             120001 nothing | alice: bob offline",
    ),
    (
        "one change per interval, the last state wins",
        "0 connect bob
             0 watch alice bob | = online
             1000 set bob away | alice: bob away
             1100 set bob busy
             1200 set bob dnd
             1999 nothing
             2000 nothing | alice: bob dnd
             2500 set bob online
             2600 set bob lunch
             3000 nothing | alice: bob lunch
             9000 set bob away | alice: bob away",
    ),
    (
        "what was set is shown again after an absence",
        "0 connect bob
             0 watch alice bob | = online
             1000 set bob dnd shh | alice: bob dnd shh
             2000 gone bob
             40000 nothing | alice: bob offline
             50000 connect bob | alice: bob dnd shh",
    ),
    (
        "what is set while absent waits for the next device",
        "0 watch alice bob | = offline
             1000 set bob busy
             2000 get alice bob | = offline
             3000 connect bob | alice: bob busy",
    ),
    (
        "invisible looks like offline, to others only",
        "0 connect bob
             0 watch alice bob | = online
             0 watch bob bob | = online
             1000 set bob invisible hm | alice: bob offline, bob: bob invisible hm
             3000 get bob bob | = invisible hm
             3000 get alice bob | = offline
             4000 gone bob
             34000 nothing | bob: bob offline
             50000 connect bob | bob: bob invisible hm
             60000 watch carol bob | = offline
             70000 set bob online | alice: bob online, bob: bob online, carol: bob online",
    ),
    (
        "a block acts at once and looks like going offline",
        "0 connect bob
             0 watch alice bob | = online
             0 watch carol bob | = online
             5000 block bob alice | alice: bob offline
             9000 get alice bob | = offline
             9000 set bob away | carol: bob away
             9500 block bob carol
             10000 nothing | carol: bob offline
             20000 unblock bob alice | alice: bob away
             30000 set bob dnd | alice: bob dnd",
    ),
    (
        "a block taken back shows what was there all the time",
        "0 connect bob
             0 watch alice bob | = online
             5000 block bob alice | alice: bob offline
             9000 unblock bob alice | alice: bob online
             9100 get alice bob | = online
             9200 block bob alice
             9300 unblock bob alice
             19000 set bob away | alice: bob away",
    ),
    (
        "a block of somebody who sees offline does not show",
        "0 watch alice bob | = offline
             10 block bob alice
             20 connect bob
             30 unblock bob alice | alice: bob online
             5000 gone bob
             40000 nothing | alice: bob offline
             41000 block bob alice
             42000 unblock bob alice",
    ),
    (
        "who is blocked watches nobody, until it may",
        "0 connect bob
             0 block bob alice
             0 watch alice bob | = offline
             2000 set bob away
             4000 unblock bob alice | alice: bob away",
    ),
    (
        "after a crash users have the grace time to come back unnoticed",
        "0 connect bob
             0 connect carol
             0 set bob dnd
             100000 crash
             100001 watch alice bob | = dnd
             100002 get alice carol | = online
             110000 connect bob
             129999 get alice carol | = online
             130000 get alice carol | = offline
             140000 gone bob
             170000 nothing | alice: bob offline",
    ),
    (
        "a crash does not bring back who was gone or invisible",
        "0 connect bob
             0 set bob invisible
             0 connect carol
             1 gone carol
             50000 crash
             50001 get alice bob | = offline
             50002 get alice carol | = offline
             50003 watch alice bob | = offline
             90000 connect bob
             91000 set bob online | alice: bob online",
    ),
    (
        "a left-over user who does not come back goes offline",
        "0 connect bob
             50000 crash
             50001 watch alice bob | = online
             80000 nothing | alice: bob offline
             90000 crash
             90001 watch alice bob | = offline",
    ),
    (
        "a clean stop ends grace times",
        "0 connect bob
             1000 set bob away x
             2000 gone bob
             3000 stop
             3001 get alice bob | = offline
             4000 connect bob
             4001 get alice bob | = away x",
    ),
    (
        "watchers of one user are limited",
        "0 watch a bob | = offline
             0 watch b bob | = offline
             0 watch c bob | = offline
             0 watch d bob | no more than 3 users can watch one user
             0 watch c bob | = offline
             0 unwatch a bob
             0 watch d bob | = offline",
    ),
];

#[test]
fn states_are_told_as_the_scripts_say() {
    for (name, script) in SCRIPTS {
        Driver::new(SETTINGS).run(name, script);
    }
}

#[test]
fn versions_never_go_back_with_the_clock() {
    let mut driver = Driver::new(SETTINGS);
    driver.run("before", "9000000 connect bob\n9000000 watch alice bob | = online");
    // The driver compares versions; here the clock of the next process is behind.
    driver.run("after", "5000 crash\n5001 watch alice bob | = online");
    driver.run("set", "6000 set bob away | alice: bob away");
    driver.run("end", "36000 nothing | alice: bob offline");
}

#[test]
fn a_state_newer_than_the_one_read_is_told() {
    let mut presence = Presence::new(SETTINGS, 0);
    let (alice, bob) = (key("alice"), key("bob"));
    let row = presence.device_connected(1, &bob, 1, None).unwrap();
    let read = row.seen();
    presence.set(2, &bob, None, Show::parse("away").unwrap(), StatusText::default());
    presence.watch(3, &alice, &bob, None, Some(read.version), true).unwrap();
    let tick = presence.on_tick(3, |_, _| true);
    assert_eq!(tick.changes.len(), 1);
    assert!(tick.changes[0].payload.contains("\"away\""));
    // And one that is not newer is not.
    presence.watch(4, &alice, &bob, None, Some(2), true).unwrap();
    assert_eq!(presence.next_timeout(), None);
}

#[test]
fn a_full_tick_goes_on_with_the_next() {
    let settings = PresenceSettings { notices_per_tick: 2, watchers: 10, ..SETTINGS };
    let mut presence = Presence::new(settings, 0);
    let bob = key("bob");
    presence.device_connected(0, &bob, 1, None);
    for watcher in ["a", "b", "c", "d", "e"] {
        presence.watch(0, &key(watcher), &bob, None, None, true).unwrap();
    }
    presence.set(5, &bob, None, Show::parse("dnd").unwrap(), StatusText::default());
    let mut told = Vec::new();
    for _ in 0..3 {
        assert_eq!(presence.next_timeout(), Some(5));
        let tick = presence.on_tick(6, |_, _| true);
        assert!(tick.changes.len() <= 2);
        told.extend(tick.changes.into_iter().map(|change| change.watcher.id.to_string()));
    }
    assert_eq!(told, ["a", "b", "c", "d", "e"]);
    assert_eq!(presence.next_timeout(), None);
}

#[test]
fn under_load_notices_wait_and_merge() {
    let mut presence = Presence::new(SETTINGS, 0);
    let bob = key("bob");
    presence.device_connected(0, &bob, 1, None);
    presence.watch(0, &key("alice"), &bob, None, None, true).unwrap();
    presence.set(5, &bob, None, Show::parse("dnd").unwrap(), StatusText::default());
    presence.defer(1_005);
    assert_eq!(presence.next_timeout(), Some(1_005));
    assert_eq!(presence.on_tick(1_004, |_, _| true), Tick::default());
    presence.set(1_004, &bob, None, Show::parse("away").unwrap(), StatusText::default());
    let tick = presence.on_tick(1_005, |_, _| true);
    assert_eq!(tick.changes.len(), 1);
    assert!(tick.changes[0].payload.contains("\"away\""));
}

#[test]
fn what_a_lost_batch_held_is_written_and_told_again() {
    let settings = PresenceSettings { notices_per_tick: 1, ..SETTINGS };
    let mut presence = Presence::new(settings, 0);
    let (alice, bob) = (key("alice"), key("bob"));
    let row = presence.device_connected(1, &bob, 1, None).unwrap();
    presence.watch(2, &alice, &bob, None, None, true).unwrap();
    presence.watch(2, &key("blocked"), &bob, None, None, false).unwrap();
    presence.device_connected(3, &alice, 2, None);
    presence.lost();
    let (mut rows, mut told) = (Vec::new(), Vec::new());
    while presence.next_timeout().is_some() {
        let tick = presence.on_tick(4, |watcher, _| *watcher != key("blocked"));
        assert!(tick.rows.len() <= 1 && tick.changes.len() <= 1, "{tick:?}");
        rows.extend(tick.rows);
        told.extend(tick.changes.into_iter().map(|change| change.watcher));
    }
    assert_eq!(rows[1], (bob, row));
    assert_eq!((rows[0].0.clone(), rows.len()), (alice.clone(), 2));
    assert_eq!(told, [alice]);
}

#[test]
fn who_left_with_a_lost_batch_is_written_as_gone_again() {
    let mut presence = Presence::new(SETTINGS, 0);
    let bob = key("bob");
    presence.device_connected(1, &bob, 1, None);
    presence.device_gone(2, &bob, 1);
    let at = presence.next_timeout().unwrap();
    let mut tick = presence.on_tick(at, |_, _| true);
    for _ in 0..2 {
        let [(user, row)] = tick.rows.as_slice() else { panic!("{tick:?}") };
        assert_eq!((user, row.here), (&bob, false));
        presence.lost();
        tick = presence.on_tick(at, |_, _| true);
    }
    assert_eq!(tick.rows.len(), 1);
    presence.committed();
    assert_eq!((presence.next_timeout(), presence.known()), (None, 0));
}

#[test]
fn nothing_stays_in_memory_for_nobody() {
    let mut driver = Driver::new(SETTINGS);
    driver.run(
        "all gone",
        "0 connect bob
         0 watch alice bob | = online
         0 watch alice carol | = offline
         10 set bob away | alice: bob away
         20 set bob busy
         30 unwatch alice bob
         40 gone bob
         50 set dave busy
         60 get alice eve | = offline
         40000 unwatch alice carol",
    );
    assert_eq!(driver.presence.known(), 0);
    assert_eq!(driver.presence.next_timeout(), None);
}

#[test]
fn equal_notices_share_their_payload() {
    let mut presence = Presence::new(SETTINGS, 0);
    let bob = key("bob");
    for watcher in ["a", "b"] {
        presence.watch(0, &key(watcher), &bob, None, None, true).unwrap();
    }
    presence.device_connected(7, &bob, 1, None);
    let tick = presence.on_tick(7, |_, _| true);
    let [first, second] = tick.changes.as_slice() else { panic!("{tick:?}") };
    assert!(Arc::ptr_eq(&first.payload, &second.payload));
    let body: serde_json::Value = serde_json::from_str(&first.payload).unwrap();
    let expected = serde_json::json!(
        {"user": "bob", "show": "online", "text": "", "since": 7, "version": 7}
    );
    assert_eq!(body, expected);
}

#[test]
fn a_list_takes_all_or_nothing() {
    let mut lists = WatchLists::new(3);
    let alice = key("alice");
    let keys = |users: &[&str]| users.iter().map(|user| key(user)).collect::<Vec<_>>();
    assert_eq!(lists.add(&alice, keys(&["c", "b", "c"])), Ok(keys(&["b", "c"])));
    assert_eq!(
        lists.add(&alice, keys(&["d", "e"])),
        Err(WatchRefused::TooManyWatched(3)),
        "two more do not fit"
    );
    assert_eq!(lists.watched_by(&alice), 2);
    // Those on the list already take no room.
    assert_eq!(lists.add(&alice, keys(&["b", "c", "d"])), Ok(keys(&["b", "c", "d"])));
    assert_eq!(lists.remove(&alice, keys(&["x", "c", "c"])), keys(&["c"]));
    assert_eq!(lists.add(&alice, keys(&["e"])), Ok(keys(&["e"])));
    assert_eq!(lists.end(&alice), keys(&["b", "d", "e"]));
    assert_eq!((lists.watched_by(&alice), lists.end(&alice)), (0, Vec::new()));
    assert_eq!(lists.add(&alice, Vec::new()), Ok(Vec::new()));
}
