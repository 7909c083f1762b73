//! A room at its home, as sites with viewers of it see it: its guests.
//!
//! Each guest gets one stream, shaped as for one viewer, and its users are in the room like any
//! other. Owns who they are. What is said to a guest is in the order of the room's numbers.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use hoopoe_core::Location;
use hoopoe_im::refusal::Refusal;
use hoopoe_im::room::{Evicted, Flow, Post, Posted, RoomMessage, RoomRow, Shaper};
use hoopoe_im::site::room::{RoomWord, Spoken};
use hoopoe_im::topic::Lane;
use parking_lot::MutexGuard;

use super::across::{RoomSignal, hash_of, rooms_of};
use super::{LiveRoom, RoomNews, Rooms, State, lower, name, no_such_room, raise};

/// A guest that is not heard for so long has no viewers any more.
pub(super) const LEASE_MS: u64 = 10_000;
/// Users that a guest may have in one room.
const MOST_USERS: usize = 1_000_000;

/// A site with viewers of a room that lives here.
pub(super) struct Guest {
    pub(super) site: Arc<str>,
    users: HashSet<Arc<str>, foldhash::fast::RandomState>,
    hash: u64,
    /// Parts of the list of all its users that have come, and the users in them.
    roll: (u64, Vec<Arc<str>>),
    shaper: Shaper,
    /// The last that its viewers said.
    last: u64,
    pub(super) heard_ms: u64,
}

fn flow(lane: Lane) -> Flow {
    match lane {
        Lane::Hi => Flow::Hi,
        Lane::Chat => Flow::Chat,
        Lane::Like => Flow::Counters,
    }
}

fn said(message: &RoomMessage, past: bool, location: u64) -> RoomWord {
    let spoken = Spoken {
        n: message.n,
        from: message.from.clone().unwrap_or_else(|| "".into()),
        location,
        ts_ms: message.ts_ms,
        expires_at_ms: message.expires_at_ms().unwrap_or(0),
        properties: Bytes::copy_from_slice(&message.properties),
        payload: Bytes::copy_from_slice(message.payload()),
    };
    RoomWord::Said { past, lane: message.lane, spoken }
}

/// The sending connection is told to its own site alone.
pub(super) fn location_for(origin: Option<(&Arc<str>, u64)>, guest: &str) -> u64 {
    origin.filter(|(site, _)| ***site == *guest).map_or(0, |(_, location)| location)
}

fn row_word(row: &RoomRow) -> RoomWord {
    // Plain maps and numbers: there is nothing that JSON cannot hold.
    RoomWord::Row(serde_json::to_vec(row).unwrap_or_default().into())
}

fn refused(user: Arc<str>, refusal: &Refusal) -> RoomWord {
    RoomWord::Out { user, why: refusal.message.to_string() }
}

impl Rooms {
    /// One copy for each guest that gets it.
    pub(super) fn tell_guests(
        &self,
        live: &LiveRoom,
        state: &mut State,
        (now_ms, flow, hash): (u64, Flow, u32),
        word: impl Fn(&str) -> RoomWord,
    ) {
        for guest in &mut state.guests {
            if guest.shaper.admit(&self.rates, now_ms, flow, hash, false) {
                self.say(&guest.site, live, word(&guest.site));
            }
        }
    }

    /// A message of a room that lives here, for its guests.
    pub(super) fn message_to_guests(
        &self,
        now_ms: u64,
        live: &LiveRoom,
        state: &mut State,
        message: &RoomMessage,
        origin: Option<(&Arc<str>, u64)>,
    ) {
        let shape = (now_ms, flow(message.lane), message.sender);
        self.tell_guests(live, state, shape, |guest| {
            said(message, false, location_for(origin, guest))
        });
    }

    /// Counters of a room that lives here, for its guests.
    pub(super) fn stat_to_guests(&self, live: &LiveRoom, state: &State, counters: &str) {
        for guest in &state.guests {
            self.say(
                &guest.site,
                live,
                RoomWord::Stat(Bytes::copy_from_slice(counters.as_bytes())),
            );
        }
    }

    /// What a room that lives here has become, and who has to leave it.
    pub(super) fn changed_for_guests(
        &self,
        live: &LiveRoom,
        state: &mut State,
        changed: bool,
        evicted: &Evicted,
    ) {
        for guest in &mut state.guests {
            if changed {
                self.say(&guest.site, live, row_word(state.room.row()));
            }
            let out = |user: &str| RoomWord::Out { user: user.into(), why: String::new() };
            match evicted {
                Evicted::Nobody => {}
                Evicted::User(user) => {
                    if guest.users.remove(&**user) {
                        guest.hash ^= hash_of(user);
                        self.say(&guest.site, live, out(user));
                    }
                }
                Evicted::Everybody(_) => {
                    guest.users.clear();
                    guest.hash = 0;
                    self.say(&guest.site, live, out(""));
                }
            }
        }
    }

    /// A site says something about a room that lives here.
    pub(super) fn guest_says(
        &self,
        now_ms: u64,
        site: &Arc<str>,
        (tenant, id): (Arc<str>, Arc<str>),
        word: RoomWord,
    ) {
        let comes = matches!(&word, RoomWord::Joins { users, .. } if !users.is_empty());
        let found = match self.find(&tenant, &id) {
            Some(live) => Ok(live),
            None if comes && self.settings.auto_create => self.find_or_make(now_ms, &tenant, &id),
            None => Err(no_such_room()),
        };
        let live = match found {
            Ok(live) => live,
            Err(refusal) => {
                match word {
                    RoomWord::Joins { users, .. } => users.into_iter().for_each(|user| {
                        self.say_of(site, (&tenant, &id), refused(user, &refusal));
                    }),
                    // It was forgotten here, as by a restart.
                    RoomWord::Here { viewers: 1.., .. } => {
                        self.say_of(site, (&tenant, &id), RoomWord::Who);
                    }
                    _ => {}
                }
                return;
            }
        };
        let mut state = live.state.lock();
        if state.forgotten {
            // The next comparison finds the new one.
            return;
        }
        let at = state.guests.iter().position(|guest| guest.site == *site);
        match word {
            RoomWord::Joins { part, parts, users } => {
                self.guest_comes(now_ms, &live, &mut state, site, (part, parts), users);
            }
            RoomWord::Here { viewers, hash } => {
                let known = at.map_or((0, 0), |at| {
                    let guest = &mut state.guests[at];
                    guest.heard_ms = now_ms;
                    (guest.users.len() as u64, guest.hash)
                });
                if known != (viewers, hash) {
                    self.say(site, &live, RoomWord::Who);
                }
            }
            word => {
                if let Some(at) = at {
                    state.guests[at].heard_ms = now_ms;
                    self.guest_does(now_ms, &live, &mut state, at, word);
                }
            }
        }
        if !state.guests.is_empty() {
            self.hosting.insert(name(&tenant, &id), live.clone());
        }
        self.remind(&live, &self.later(&live, &mut state));
    }

    /// Users of a guest come in; or they are all that it has.
    fn guest_comes(
        &self,
        now_ms: u64,
        live: &Arc<LiveRoom>,
        state: &mut MutexGuard<'_, State>,
        site: &Arc<str>,
        (part, parts): (u64, u64),
        users: Vec<Arc<str>>,
    ) {
        let known = state.guests.iter().position(|guest| guest.site == *site);
        let at = known.unwrap_or_else(|| {
            state.guests.push(Guest {
                site: site.clone(),
                users: HashSet::default(),
                hash: 0,
                roll: (0, Vec::new()),
                shaper: Shaper::new(&self.rates, now_ms),
                last: 0,
                heard_ms: now_ms,
            });
            state.guests.len() - 1
        });
        let guest = &mut state.guests[at];
        guest.heard_ms = now_ms;
        let (mut come, mut gone) = (users, Vec::new());
        if parts > 0 {
            if part == 0 {
                guest.roll = (0, Vec::new());
            }
            if part != guest.roll.0 || guest.roll.1.len() + come.len() > MOST_USERS {
                return;
            }
            guest.roll.0 += 1;
            guest.roll.1.append(&mut come);
            if guest.roll.0 < parts {
                return;
            }
            come = std::mem::take(&mut guest.roll.1);
            let all: HashSet<&Arc<str>> = come.iter().collect();
            gone.extend(guest.users.iter().filter(|user| !all.contains(*user)).cloned());
        }
        for user in gone {
            self.guest_leaves(now_ms, live, state, at, &user);
        }
        for user in come {
            self.guest_joins(now_ms, live, state, at, user);
        }
        let begins = known.is_none() || parts > 0;
        if begins && !state.guests[at].users.is_empty() {
            self.say(site, live, row_word(state.room.row()));
            for message in state.room.look_back(now_ms).0 {
                self.say(site, live, said(&message, true, 0));
            }
        }
        self.end_guest(live, state, at);
    }

    fn guest_joins(
        &self,
        now_ms: u64,
        live: &LiveRoom,
        state: &mut State,
        at: usize,
        user: Arc<str>,
    ) {
        let State { room, guests, .. } = state;
        let guest = &mut guests[at];
        if guest.users.contains(&user) {
            return;
        }
        let lives_there = self
            .sites()
            .is_some_and(|sites| *sites.rules().home_of_user(&live.tenant, &user) == guest.site);
        let joined = match lives_there {
            true => room.join(&self.settings, now_ms, &user),
            false => Err(Refusal::not_allowed("the user lives at another site")),
        };
        match joined {
            Ok(joined) => {
                if joined.first {
                    raise(&self.joined, &live.tenant, &user);
                }
                guest.hash ^= hash_of(&user);
                guest.users.insert(user);
            }
            Err(refusal) => self.say(&guest.site, live, refused(user, &refusal)),
        }
    }

    fn guest_leaves(&self, now_ms: u64, live: &LiveRoom, state: &mut State, at: usize, user: &str) {
        let guest = &mut state.guests[at];
        if !guest.users.remove(user) {
            return;
        }
        guest.hash ^= hash_of(user);
        if state.room.leave(&self.settings, now_ms, user).is_some_and(|left| left.last) {
            lower(&self.joined, &live.tenant, user);
        }
    }

    /// A guest without users is none.
    fn end_guest(&self, live: &LiveRoom, state: &mut State, at: usize) {
        let guest = &state.guests[at];
        if guest.users.is_empty() && guest.roll.1.is_empty() {
            state.guests.swap_remove(at);
        }
        if state.guests.is_empty() {
            self.hosting.remove(&*name(&live.tenant, &live.id));
        }
    }

    fn guest_does(
        &self,
        now_ms: u64,
        live: &Arc<LiveRoom>,
        state: &mut MutexGuard<'_, State>,
        at: usize,
        word: RoomWord,
    ) {
        let guest = &mut state.guests[at];
        let site = guest.site.clone();
        // Two links between the same sites bring everything twice.
        let last = &mut guest.last;
        let mut is_new = |n: u64| {
            let is_new = n > *last;
            *last = n.max(*last);
            is_new
        };
        match word {
            RoomWord::Leaves { user } => {
                self.guest_leaves(now_ms, live, state, at, &user);
                self.end_guest(live, state, at);
            }
            RoomWord::Post { lane, spoken } if is_new(spoken.n) => {
                let Spoken { from, location, expires_at_ms, properties, payload, .. } = &spoken;
                let expires_at_ms = (*expires_at_ms > 0).then_some(*expires_at_ms);
                let post = Post { from, lane, properties, payload, expires_at_ms };
                if !state.guests[at].users.contains(from) {
                    return;
                }
                match state.room.publish(&self.settings, now_ms, post) {
                    Ok(Posted::Message(message)) => {
                        self.letters(live, state, &|| RoomNews::Message {
                            message: message.clone(),
                            sender: Location::NOWHERE,
                            past: false,
                        });
                        let origin = Some((&site, *location));
                        self.message_to_guests(now_ms, live, state, &message, origin);
                    }
                    Ok(Posted::Counted) => {}
                    Err(refusal) => {
                        tracing::debug!(user = %from, room = %live.id, why = %refusal.message,
                            "another site's viewer is not heard");
                    }
                }
            }
            RoomWord::Signal { kind, spoken } if is_new(spoken.n) => {
                self.guest_signals(now_ms, live, state, &site, (&kind, &spoken));
            }
            RoomWord::Likes { n, sum } if is_new(n) => {
                state.room.add_likes(&self.settings, now_ms, &sum);
            }
            _ => {}
        }
    }

    fn guest_signals(
        &self,
        now_ms: u64,
        live: &Arc<LiveRoom>,
        state: &mut MutexGuard<'_, State>,
        site: &Arc<str>,
        (kind, spoken): (&str, &Spoken),
    ) {
        let Spoken { from, location, properties, payload, .. } = spoken;
        let is_theirs = |guest: &Guest| guest.site == *site && guest.users.contains(from);
        if !state.guests.iter().any(is_theirs)
            || state.room.signal(&self.settings, now_ms, from, payload.len()).is_err()
        {
            return;
        }
        self.signal_letters(live, state, kind, spoken, Location::NOWHERE);
        let sender = Location::NOWHERE;
        let signal = RoomSignal { from, sender, kind, properties, payload };
        // The room lives here: nothing is asked of another site that could refuse.
        let _ = self.signal_sites(now_ms, live, state, signal, Some((site, *location)));
    }

    pub(super) fn drop_guests(&self, now_ms: u64, which: impl Fn(&Guest) -> bool) {
        for live in rooms_of(&self.hosting) {
            let mut state = live.state.lock();
            while let Some(at) = state.guests.iter().position(&which) {
                let users: Vec<Arc<str>> = state.guests[at].users.iter().cloned().collect();
                for user in users {
                    self.guest_leaves(now_ms, &live, &mut state, at, &user);
                }
                state.guests[at].roll.1.clear();
                self.end_guest(&live, &mut state, at);
            }
            self.remind(&live, &self.later(&live, &mut state));
        }
    }
}
