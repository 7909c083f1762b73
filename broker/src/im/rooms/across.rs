//! Rooms across sites: a room lives at one site; others with viewers of it are its guests.
//!
//! What the home does for them is in `guests`. At a guest the room is the same [`Room`] with what
//! the home says of it: viewers are judged and served here. Frames leave while the room's lock is
//! held, in the order of what was said. Nothing is stored: who is there is compared every few
//! seconds, and once a line is back everybody comes in again.

use std::sync::Arc;

use bytes::Bytes;
use hoopoe_core::Location;
use hoopoe_im::overload::Shed;
use hoopoe_im::refusal::{Refusal, Word};
use hoopoe_im::room::{Flow, Post, Relayed, Room, sender_hash, stat};
use hoopoe_im::site::room::{RoomFrame, RoomWord, Spoken};
use hoopoe_im::site::wire::Frame;
use hoopoe_im::topic::Lane;
use parking_lot::MutexGuard;
use xxhash_rust::xxh3::xxh3_64;

use super::guests::{LEASE_MS, location_for};
use super::{LiveRoom, RoomNews, Rooms, State, lower};
use crate::im::overload::Overload;
use crate::im::sites::{Peer, SiteNode};

/// Users named in one frame.
const USERS_IN_FRAME: usize = 1_000;
/// What a guest says is numbered from the time at which it began: it may begin again.
const NUMBERS_PER_MS: u64 = 1_000;

/// What a room that lives elsewhere has besides.
pub(super) struct Away {
    /// The number of the last that viewers here said.
    number: u64,
    hash: u64,
    /// What the room is has come from the home, which says what it becomes as long as there are
    /// viewers here and the line stands.
    known: bool,
}

/// What viewers here signal.
#[derive(Clone, Copy, Debug)]
pub struct RoomSignal<'a> {
    /// Who.
    pub from: &'a str,
    /// Their connection.
    pub sender: Location,
    /// The client's word.
    pub kind: &'a str,
    /// The sender's properties.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl Away {
    pub(super) fn new(now_ms: u64) -> Away {
        Away { number: now_ms * NUMBERS_PER_MS, hash: 0, known: false }
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

impl State {
    /// Nothing is heard of the room any more: what it was then says nothing of what it is.
    fn know_no_more(&mut self) {
        if let Some(away) = &mut self.away {
            away.known = false;
            self.room.forget_row();
        }
    }

    /// A home tells no site without viewers.
    pub(super) fn know_no_more_if_empty(&mut self) {
        if self.room.viewers() == 0 {
            self.know_no_more();
        }
    }
}

/// Order does not matter to it: the same users have the same.
pub(super) fn hash_of(user: &str) -> u64 {
    xxh3_64(user.as_bytes())
}

impl Rooms {
    /// The home of a room that lives at another site.
    pub(super) fn foreign_home(&self, tenant: &str, id: &str) -> Option<Arc<str>> {
        self.sites()?.rules().foreign_room(tenant, id).cloned()
    }

    pub(super) fn sites(&self) -> Option<&Arc<SiteNode>> {
        self.sites.get()
    }

    /// The other sites: rooms may live there, from now on.
    pub fn join_sites(&self, sites: Arc<SiteNode>) {
        // Set once, at the start.
        let _ = self.sites.set(sites);
    }

    pub(super) fn say(&self, site: &str, live: &LiveRoom, word: RoomWord) {
        self.say_of(site, (&live.tenant, &live.id), word);
    }

    pub(super) fn say_of(&self, site: &str, room: (&Arc<str>, &Arc<str>), word: RoomWord) {
        if let Some(sites) = self.sites() {
            let (tenant, room) = (room.0.clone(), room.1.clone());
            sites.say(site, &Frame::Room(Box::new(RoomFrame { tenant, room, word })).encode());
        }
    }

    /// The home to ask before somebody comes into a room: it lives elsewhere, its home is reached, and
    /// this site does not know what the room is now.
    pub fn home_to_ask(&self, tenant: &str, id: &str) -> Option<Arc<str>> {
        let home = self.foreign_home(tenant, id)?;
        self.reached(Some(&home)).ok()?;
        let is_known = self.find(tenant, id).is_some_and(|live| {
            let state = live.state.lock();
            !state.forgotten && state.away.as_ref().is_some_and(|away| away.known)
        });
        (!is_known).then_some(home)
    }

    /// Whether a room's home can be asked, if it lives elsewhere.
    pub(super) fn reached(&self, home: Option<&Arc<str>>) -> Result<(), Refusal> {
        let Some(home) = home else { return Ok(()) };
        if self.sites().and_then(|sites| sites.peer(home)).is_some_and(Peer::is_up) {
            return Ok(());
        }
        let text = format!("site {home}, where this room lives, is not reached");
        Err(Refusal::new(Word::Unavailable, text))
    }

    /// Whether nothing is heard of a room now: its home is not reached.
    pub fn is_cut_off(&self, live: &LiveRoom) -> bool {
        self.reached(live.home.as_ref()).is_err()
    }

    /// A user has come into a room, or left it, with the first or last device.
    pub(super) fn tell_home(&self, live: &LiveRoom, state: &mut State, user: &str, comes: bool) {
        let (Some(home), Some(away)) = (&live.home, &mut state.away) else { return };
        away.hash ^= hash_of(user);
        let user: Arc<str> = user.into();
        // The first is all who are here: the home, which may remember viewers of before a crash, says
        // anew what the room is and what was said last.
        let parts = u64::from(state.room.viewers() == 1);
        let word = match comes {
            true => RoomWord::Joins { part: 0, parts, users: vec![user] },
            false => RoomWord::Leaves { user },
        };
        self.say(home, live, word);
    }

    /// A viewer here says something in a room that lives elsewhere.
    pub(super) fn post_home(
        &self,
        now_ms: u64,
        live: &LiveRoom,
        state: &mut State,
        post: Post<'_>,
        sender: Location,
    ) -> Result<(), Refusal> {
        let (Some(home), Some(away)) = (&live.home, &mut state.away) else { return Ok(()) };
        self.reached(Some(home))?;
        if post.lane == Lane::Like {
            return state.room.publish(&self.settings, now_ms, post).map(drop);
        }
        state.room.may_post(&self.settings, now_ms, &post)?;
        let spoken = Spoken {
            n: away.next(),
            from: post.from.clone(),
            location: sender.to_bits(),
            ts_ms: 0,
            expires_at_ms: post.expires_at_ms.unwrap_or(0),
            properties: Bytes::copy_from_slice(post.properties),
            payload: Bytes::copy_from_slice(post.payload),
        };
        self.say(home, live, RoomWord::Post { lane: post.lane, spoken });
        Ok(())
    }

    /// A viewer's signal goes to the home, or to the guests.
    pub(super) fn signal_sites(
        &self,
        now_ms: u64,
        live: &LiveRoom,
        state: &mut State,
        of: RoomSignal<'_>,
        origin: Option<(&Arc<str>, u64)>,
    ) -> Result<(), Refusal> {
        let kind: Arc<str> = of.kind.into();
        let mut spoken = Spoken {
            n: 0,
            from: of.from.into(),
            location: of.sender.to_bits(),
            ts_ms: 0,
            expires_at_ms: 0,
            properties: Bytes::copy_from_slice(of.properties),
            payload: Bytes::copy_from_slice(of.payload),
        };
        if let (Some(home), Some(away)) = (&live.home, &mut state.away) {
            self.reached(Some(home))?;
            spoken.n = away.next();
            self.say(home, live, RoomWord::Signal { kind, spoken });
            return Ok(());
        }
        let shape = (now_ms, Flow::Signal, sender_hash(of.from));
        self.tell_guests(live, state, shape, |guest| {
            let location = location_for(origin, guest);
            let spoken = Spoken { location, ..spoken.clone() };
            RoomWord::Signalled { kind: kind.clone(), spoken }
        });
        Ok(())
    }

    /// What viewers here liked, for the home.
    pub(super) fn likes_home(&self, live: &LiveRoom, state: &mut State, sum: Vec<u8>) {
        if let (Some(home), Some(away)) = (&live.home, &mut state.away) {
            let n = away.next();
            self.say(home, live, RoomWord::Likes { n, sum: sum.into() });
        }
    }

    /// Another site says something about a room.
    pub fn from_site(&self, overload: &Overload, now_ms: u64, site: &Arc<str>, frame: RoomFrame) {
        let RoomFrame { tenant, room, word } = frame;
        match self.foreign_home(&tenant, &room) {
            Some(home) if home == *site => self.home_says(now_ms, site, (tenant, room), word),
            None => {
                let shed = match &word {
                    RoomWord::Likes { .. } => overload.sheds(Shed::Likes),
                    RoomWord::Post { lane: Lane::Chat, .. } => overload.sheds(Shed::RoomChat),
                    _ => false,
                };
                if !shed {
                    self.guest_says(now_ms, site, (tenant, room), word);
                }
            }
            Some(home) => {
                tracing::warn!(%site, %room, %home, "speaks for a room of another site");
            }
        }
    }

    pub(super) fn signal_letters(
        &self,
        live: &Arc<LiveRoom>,
        state: &MutexGuard<'_, State>,
        kind: &str,
        spoken: &Spoken,
        sender: Location,
    ) {
        let Spoken { from, properties, payload, .. } = spoken;
        let publication = hoopoe_im::room::signal(&live.id, from, kind, properties, payload);
        let publication = Arc::new(publication);
        let hash = sender_hash(from);
        self.letters(live, state, &|| RoomNews::Signal {
            publication: publication.clone(),
            hash,
            sender,
        });
    }

    /// A room's home says something.
    fn home_says(
        &self,
        now_ms: u64,
        home: &Arc<str>,
        (tenant, id): (Arc<str>, Arc<str>),
        word: RoomWord,
    ) {
        let Some(live) = self.find(&tenant, &id) else {
            if matches!(word, RoomWord::Who) {
                let nobody = RoomWord::Joins { part: 0, parts: 1, users: Vec::new() };
                self.say_of(home, (&tenant, &id), nobody);
            }
            return;
        };
        let mut state = live.state.lock();
        if state.forgotten {
            // The next comparison finds the new one.
            return;
        }
        match word {
            RoomWord::Who => self.say_roll(home, &live, &state.room),
            RoomWord::Row(row) => match serde_json::from_slice(&row) {
                Ok(row) if state.room.viewers() > 0 => {
                    state.room.set_row(row, now_ms);
                    state.away.iter_mut().for_each(|away| away.known = true);
                }
                // The home does not know yet that they have left.
                Ok(_) => {}
                Err(error) => tracing::warn!(room = %id, %home, %error, "a row is not understood"),
            },
            RoomWord::Said { past, lane, spoken } => {
                self.relay(&live, &mut state, past, lane, &spoken);
            }
            RoomWord::Signalled { kind, spoken } => {
                let sender = Location::from_bits(spoken.location);
                self.signal_letters(&live, &state, &kind, &spoken, sender);
            }
            RoomWord::Stat(counters) => {
                let publication = Arc::new(stat(&id, &String::from_utf8_lossy(&counters)));
                self.letters(&live, &state, &|| RoomNews::Stat(publication.clone()));
            }
            RoomWord::Out { user, why } => self.put_out(now_ms, &live, &mut state, &user, why),
            _ => {}
        }
        self.remind(&live, &self.later(&live, &mut state));
    }

    fn relay(
        &self,
        live: &Arc<LiveRoom>,
        state: &mut MutexGuard<'_, State>,
        past: bool,
        lane: Lane,
        spoken: &Spoken,
    ) {
        let relayed = Relayed {
            n: spoken.n,
            lane,
            from: (!spoken.from.is_empty()).then_some(&spoken.from),
            ts_ms: spoken.ts_ms,
            expires_at_ms: (spoken.expires_at_ms > 0).then_some(spoken.expires_at_ms),
            properties: &spoken.properties,
            payload: &spoken.payload,
        };
        if let Some(message) = state.room.relay(&self.settings, relayed) {
            let sender = Location::from_bits(spoken.location);
            let news = || RoomNews::Message { message: message.clone(), sender, past };
            self.letters(live, state, &news);
        }
    }

    /// The home does not have a user any more, or nobody.
    fn put_out(
        &self,
        now_ms: u64,
        live: &Arc<LiveRoom>,
        state: &mut MutexGuard<'_, State>,
        user: &Arc<str>,
        why: String,
    ) {
        let users = match user.is_empty() {
            true => state.room.put_all_out(now_ms),
            false if state.room.put_out(&self.settings, now_ms, user) => vec![user.clone()],
            false => return,
        };
        for user in &users {
            lower(&self.joined, &live.tenant, user);
            if let Some(away) = &mut state.away {
                away.hash ^= hash_of(user);
            }
        }
        state.know_no_more_if_empty();
        let user = (!user.is_empty()).then(|| Box::from(&**user));
        let why: Option<Box<str>> = (!why.is_empty()).then(|| why.into());
        self.letters(live, state, &|| RoomNews::Evicted { user: user.clone(), why: why.clone() });
    }

    /// Names everybody who is here to the home.
    fn say_roll(&self, home: &str, live: &LiveRoom, room: &Room) {
        let users = room.users();
        let parts = users.len().div_ceil(USERS_IN_FRAME).max(1) as u64;
        let mut chunks = users.chunks(USERS_IN_FRAME);
        for part in 0..parts {
            let users = chunks.next().map(<[_]>::to_vec).unwrap_or_default();
            self.say(home, live, RoomWord::Joins { part, parts, users });
        }
    }

    /// A site is reached, or not any more.
    pub fn site_is(&self, site: &str, up: bool, now_ms: u64) {
        for live in rooms_of(&self.foreign) {
            if live.home.as_deref() != Some(site) {
                continue;
            }
            let mut state = live.state.lock();
            if up {
                self.say_roll(site, &live, &state.room);
            } else {
                state.know_no_more();
            }
            self.letters(&live, &state, &|| RoomNews::Line { up });
        }
        if !up {
            self.drop_guests(now_ms, |guest| *guest.site == *site);
        }
    }

    /// Tells the homes of rooms with viewers how many there are; guests that say nothing any more
    /// have none.
    pub fn compare_with_sites(&self, now_ms: u64) {
        for live in rooms_of(&self.foreign) {
            let state = live.state.lock();
            if let (Some(home), Some(away)) = (&live.home, &state.away)
                && state.room.viewers() > 0
            {
                let (viewers, hash) = (state.room.viewers() as u64, away.hash);
                self.say(home, &live, RoomWord::Here { viewers, hash });
            }
        }
        self.drop_guests(now_ms, |guest| guest.heard_ms + LEASE_MS <= now_ms);
    }
}

/// The map is not locked while rooms are.
pub(super) fn rooms_of(map: &dashmap::DashMap<Box<str>, Arc<LiveRoom>>) -> Vec<Arc<LiveRoom>> {
    map.iter().map(|room| room.value().clone()).collect()
}
