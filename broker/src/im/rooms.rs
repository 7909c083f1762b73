//! The live rooms of this node, shared by its workers.
//!
//! Owns every [`Room`] in memory, behind a lock each, and knows which workers have viewers. What a
//! room says is put into those workers' mailboxes while its lock is held, so that everybody gets
//! its messages in the order of their numbers; it is written to sockets by each worker later,
//! without a lock. A room alone with one worker is handed its letters directly.
//!
//! Deliberately not here: sockets and shapers (`connection/room`), and where rows are written:
//! what is to be stored is given to the caller. Nothing that is said in a room is ever stored.

mod across;
mod empty;
mod erase;
mod guests;

pub use across::RoomSignal;

use std::sync::{Arc, OnceLock};

use dashmap::mapref::entry::Entry;
use dashmap::{DashMap, DashSet};
use hoopoe_core::{Location, Publication};
use hoopoe_im::refusal::Refusal;
use hoopoe_im::room::{
    Caller, Evicted, Joined, Moderated, Post, Posted, Room, RoomCall, RoomMessage, RoomRow,
    RoomSettings, ShaperRates, sender_hash,
};
use parking_lot::{Mutex, MutexGuard};

use super::sites::SiteNode;
use crate::fabric::{Mail, Mailbox};
use across::Away;
use empty::{Empty, Turn};
use guests::Guest;

/// A room and where its viewers are.
pub struct LiveRoom {
    /// Its tenant.
    pub tenant: Arc<str>,
    /// Its id.
    pub id: Arc<str>,
    /// The other site that it lives at, if it does.
    pub home: Option<Arc<str>>,
    state: Mutex<State>,
}

struct State {
    room: Room,
    /// Connections in the room, by worker.
    connections: Box<[u32]>,
    /// When a worker is going to look at it.
    look_at_ms: Option<u64>,
    /// Its place among the empty rooms.
    turn: Option<Turn>,
    /// It has left the map; who comes upon it looks again.
    forgotten: bool,
    /// Sites with viewers, when it lives here.
    guests: Vec<Guest>,
    /// What it has besides, when it does not.
    away: Option<Away>,
}

impl std::fmt::Debug for LiveRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveRoom").field("tenant", &self.tenant).field("id", &self.id).finish()
    }
}

/// What a room has for its viewers on one worker.
#[derive(Debug)]
pub struct RoomLetter {
    /// The room.
    pub room: Arc<LiveRoom>,
    /// What it has.
    pub news: RoomNews,
}

impl RoomLetter {
    /// Bytes that wait with it; what is said is shared by all letters about it.
    pub fn weight(&self) -> usize {
        match &self.news {
            RoomNews::Message { message, .. } => message.weight(),
            RoomNews::Signal { publication, .. } => publication.bytes().len(),
            RoomNews::Stat(_)
            | RoomNews::Evicted { .. }
            | RoomNews::Line { .. }
            | RoomNews::LookAt(_) => 0,
        }
    }
}

/// See [`RoomLetter`].
#[derive(Debug)]
pub enum RoomNews {
    /// A message, or a sum of likes.
    Message {
        /// What was said.
        message: Arc<RoomMessage>,
        /// The connection it came from; [`Location::NOWHERE`] for the room's own.
        sender: Location,
        /// It was said before the viewers of this site were there: it goes outside the buckets.
        past: bool,
    },
    /// A signal.
    Signal {
        /// As receivers get it.
        publication: Arc<Publication>,
        /// Hash of the sender.
        hash: u32,
        /// The connection it came from.
        sender: Location,
    },
    /// Counters.
    Stat(Arc<Publication>),
    /// A user has to leave, or everybody.
    Evicted {
        /// Who; `None` is everybody.
        user: Option<Box<str>>,
        /// Why the room's home has not let the user in.
        why: Option<Box<str>>,
    },
    /// The room's home is reached again, or not any more.
    Line {
        /// Which.
        up: bool,
    },
    /// The room is to be looked at, at that time.
    LookAt(u64),
}

/// Something was done: what the worker that did it has to do now.
#[derive(Debug, Default)]
pub struct Todo {
    /// Letters for viewers here; others have theirs already.
    pub letters: Vec<RoomLetter>,
    /// The room is to be looked at, at that time.
    pub look_at_ms: Option<u64>,
    /// It need not be looked at, at that time.
    pub no_look_at_ms: Option<u64>,
}

/// An operation of the service `room` was carried out.
#[derive(Debug)]
pub struct Served {
    /// The room's id.
    pub room: Arc<str>,
    /// The body of the answer.
    pub answer: serde_json::Value,
    /// The row to store before the answer leaves.
    pub store: Option<RoomRow>,
}

/// All rooms of the node.
pub struct Rooms {
    settings: RoomSettings,
    rates: ShaperRates,
    workers: Vec<Arc<Mailbox<Mail>>>,
    rooms: DashMap<Box<str>, Arc<LiveRoom>>,
    empty: Empty,
    /// Rooms that a user is in, by tenant and user.
    joined: DashMap<Box<str>, usize>,
    /// Rooms that a user owns, by tenant and user.
    owned: DashMap<Box<str>, usize>,
    /// Rooms that live at other sites.
    foreign: DashMap<Box<str>, Arc<LiveRoom>>,
    /// Rooms with viewers at other sites.
    hosting: DashMap<Box<str>, Arc<LiveRoom>>,
    /// Rooms whose rows have not been stored since a user was erased from them.
    unstored: DashSet<Box<str>>,
    sites: OnceLock<Arc<SiteNode>>,
}

fn name(tenant: &str, id: &str) -> Box<str> {
    [tenant, "/", id].concat().into()
}

fn raise(counts: &DashMap<Box<str>, usize>, tenant: &str, user: &str) {
    *counts.entry(name(tenant, user)).or_default() += 1;
}

fn lower(counts: &DashMap<Box<str>, usize>, tenant: &str, user: &str) {
    if let Entry::Occupied(mut entry) = counts.entry(name(tenant, user)) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

fn count(counts: &DashMap<Box<str>, usize>, tenant: &str, user: &str) -> usize {
    counts.get(&*name(tenant, user)).map_or(0, |count| *count)
}

impl Rooms {
    /// No rooms yet.
    pub fn new(settings: RoomSettings, workers: Vec<Arc<Mailbox<Mail>>>) -> Rooms {
        let rates = ShaperRates {
            chat_per_sec: settings.chat_per_sec,
            hi_per_sec: settings.hi_per_sec,
            signals_per_sec: settings.signals.per_sec,
        };
        Rooms {
            settings,
            rates,
            workers,
            rooms: DashMap::new(),
            empty: Empty::new(),
            joined: DashMap::new(),
            owned: DashMap::new(),
            foreign: DashMap::new(),
            hosting: DashMap::new(),
            unstored: DashSet::new(),
            sites: OnceLock::new(),
        }
    }

    /// What one receiver gets a second.
    pub fn rates(&self) -> ShaperRates {
        self.rates
    }

    /// Takes up a stored room, at the start.
    pub fn restore(&self, now_ms: u64, tenant: &str, id: &str, row: RoomRow) {
        if self.foreign_home(tenant, id).is_some() {
            // The home rules were others when it was made.
            return;
        }
        if let Some(owner) = &row.owner {
            raise(&self.owned, tenant, owner);
        }
        let room = self.live(now_ms, tenant, id, row);
        self.rooms.insert(name(tenant, id), room);
    }

    fn live(&self, now_ms: u64, tenant: &str, id: &str, row: RoomRow) -> Arc<LiveRoom> {
        let id: Arc<str> = id.into();
        let home = self.foreign_home(tenant, &id);
        let state = State {
            room: match home {
                None => Room::new(id.clone(), row, now_ms),
                Some(_) => Room::new_away(id.clone(), now_ms),
            },
            guests: Vec::new(),
            away: home.as_ref().map(|_| Away::new(now_ms)),
            connections: vec![0; self.workers.len()].into(),
            look_at_ms: None,
            turn: None,
            forgotten: false,
        };
        Arc::new(LiveRoom { tenant: tenant.into(), id, home, state: Mutex::new(state) })
    }

    fn find(&self, tenant: &str, id: &str) -> Option<Arc<LiveRoom>> {
        self.rooms.get(&*name(tenant, id)).map(|room| room.clone())
    }

    fn find_or_make(&self, now_ms: u64, tenant: &str, id: &str) -> Result<Arc<LiveRoom>, Refusal> {
        if let Some(room) = self.find(tenant, id) {
            return Ok(room);
        }
        // Before the entry is locked: counting locks every part of the map in turn.
        self.make_place()?;
        let make = || self.live(now_ms, tenant, id, RoomRow::default());
        let live = self.rooms.entry(name(tenant, id)).or_insert_with(make).clone();
        if live.home.is_some() {
            let state = live.state.lock();
            if !state.forgotten {
                self.foreign.insert(name(tenant, id), live.clone());
            }
        }
        Ok(live)
    }

    /// Why the user may not come in, if so.
    pub fn may_join(&self, now_ms: u64, tenant: &str, id: &str, user: &str) -> Result<(), Refusal> {
        self.may_join_too(now_ms, (tenant, id), user, &[])
    }

    /// Why the user may not come in besides other rooms that wait for the user, if so.
    pub fn may_join_too(
        &self,
        now_ms: u64,
        (tenant, id): (&str, &str),
        user: &str,
        others: &[&str],
    ) -> Result<(), Refusal> {
        let (mut joins, mut makes) = (0, 0);
        for other in others {
            // A room in the queue may have made place for others by then.
            let (in_it, stays) = self.find(tenant, other).map_or((false, false), |live| {
                let state = live.state.lock();
                (state.room.has(user), state.turn.is_none())
            });
            joins += usize::from(!in_it);
            makes += usize::from(!stays);
        }
        let Some(live) = self.find(tenant, id) else {
            self.reached(self.foreign_home(tenant, id).as_ref())?;
            self.may_be_first(tenant, id)?;
            self.has_place_for(tenant, user, joins)?;
            return self.has_place_for_room(makes);
        };
        self.reached(live.home.as_ref())?;
        let state = live.state.lock();
        state.room.may_join(user, now_ms)?;
        if state.turn.is_some() {
            self.has_place_for_room(makes)?;
        }
        if state.room.has(user) { Ok(()) } else { self.has_place_for(tenant, user, joins) }
    }

    /// Why nobody may come into a room that is not there yet, if so.
    fn may_be_first(&self, tenant: &str, id: &str) -> Result<(), Refusal> {
        if !self.settings.auto_create && self.foreign_home(tenant, id).is_none() {
            return Err(no_such_room());
        }
        Ok(())
    }

    /// Whether the user may be in one more room, besides so many others.
    fn has_place_for(&self, tenant: &str, user: &str, besides: usize) -> Result<(), Refusal> {
        if count(&self.joined, tenant, user) + besides < self.settings.joined_max {
            Ok(())
        } else {
            Err(Refusal::limit("you are in as many rooms as a user may join"))
        }
    }

    /// A connection on `worker` comes in.
    pub fn join(
        &self,
        worker: usize,
        now_ms: u64,
        (tenant, id): (&str, &str),
        user: &Arc<str>,
    ) -> Result<(Arc<LiveRoom>, Joined, Todo), Refusal> {
        loop {
            let live = match self.find(tenant, id) {
                Some(live) => live,
                None => {
                    // Whoever comes with a session that is resumed comes in although the home is not
                    // reached, and is named to it when it is.
                    self.may_be_first(tenant, id)?;
                    self.has_place_for(tenant, user, 0)?;
                    self.find_or_make(now_ms, tenant, id)?
                }
            };
            let mut state = live.state.lock();
            if state.forgotten {
                // It has left the map: the next look makes a new one.
                continue;
            }
            let place =
                if state.room.has(user) { Ok(()) } else { self.has_place_for(tenant, user, 0) };
            let joined = place.and_then(|()| state.room.join(&self.settings, now_ms, user));
            let todo = self.later(&live, &mut state);
            let joined = match joined {
                Ok(joined) => joined,
                Err(refusal) => {
                    self.remind(&live, &todo);
                    return Err(refusal);
                }
            };
            state.connections[worker] += 1;
            if joined.first {
                raise(&self.joined, tenant, user);
                self.tell_home(&live, &mut state, user, true);
            }
            drop(state);
            return Ok((live, joined, todo));
        }
    }

    /// Has some worker look at the room: the caller may be none.
    fn remind(&self, live: &Arc<LiveRoom>, todo: &Todo) {
        if let Some(at_ms) = todo.look_at_ms {
            let letter = RoomLetter { room: live.clone(), news: RoomNews::LookAt(at_ms) };
            self.workers[live.id.len() % self.workers.len()].put(Mail::Room(Box::new(letter)));
        }
    }

    /// The last messages, oldest first, and the count of messages so far.
    pub fn look_back(&self, now_ms: u64, live: &LiveRoom) -> (Vec<Arc<RoomMessage>>, u64) {
        live.state.lock().room.look_back(now_ms)
    }

    /// A connection on `worker` leaves.
    pub fn leave(&self, worker: usize, now_ms: u64, live: &Arc<LiveRoom>, user: &str) -> Todo {
        let mut state = live.state.lock();
        state.connections[worker] = state.connections[worker].saturating_sub(1);
        if state.room.leave(&self.settings, now_ms, user).is_some_and(|left| left.last) {
            lower(&self.joined, &live.tenant, user);
            self.tell_home(live, &mut state, user, false);
            state.know_no_more_if_empty();
        }
        self.later(live, &mut state)
    }

    /// A connection that was told to leave has left `worker`.
    pub fn evicted(&self, worker: usize, live: &LiveRoom) {
        let mut state = live.state.lock();
        state.connections[worker] = state.connections[worker].saturating_sub(1);
    }

    /// A connection on `worker` says something.
    pub fn publish(
        &self,
        worker: usize,
        now_ms: u64,
        live: &Arc<LiveRoom>,
        post: Post<'_>,
        sender: Location,
    ) -> Result<Todo, Refusal> {
        let mut state = live.state.lock();
        let mut todo = Todo::default();
        if live.home.is_some() {
            self.post_home(now_ms, live, &mut state, post, sender)?;
        } else if let Posted::Message(message) = state.room.publish(&self.settings, now_ms, post)? {
            self.spread(worker, live, &state, &mut todo, &|| RoomNews::Message {
                message: message.clone(),
                sender,
                past: false,
            });
            self.message_to_guests(now_ms, live, &mut state, &message, None);
        }
        todo.look_at_ms = self.later(live, &mut state).look_at_ms;
        Ok(todo)
    }

    /// A connection on `worker` sends a signal.
    pub fn signal(
        &self,
        worker: usize,
        now_ms: u64,
        live: &Arc<LiveRoom>,
        signal: RoomSignal<'_>,
    ) -> Result<Todo, Refusal> {
        let RoomSignal { from, sender, kind, properties, payload } = signal;
        let mut state = live.state.lock();
        let mut todo = Todo::default();
        self.reached(live.home.as_ref())?;
        state.room.signal(&self.settings, now_ms, from, payload.len())?;
        if live.home.is_none() {
            let publication = hoopoe_im::room::signal(&live.id, from, kind, properties, payload);
            let (publication, hash) = (Arc::new(publication), sender_hash(from));
            self.spread(worker, live, &state, &mut todo, &|| RoomNews::Signal {
                publication: publication.clone(),
                hash,
                sender,
            });
        }
        self.signal_sites(now_ms, live, &mut state, signal, None)?;
        Ok(todo)
    }

    /// The time has come that a [`Todo`] or a letter named.
    pub fn look(&self, worker: usize, now_ms: u64, live: &Arc<LiveRoom>, at_ms: u64) -> Todo {
        let mut state = live.state.lock();
        let mut todo = Todo::default();
        if state.look_at_ms != Some(at_ms) {
            // It has been looked at earlier, and will be again.
            return todo;
        }
        state.look_at_ms = None;
        let output = state.room.on_tick(&self.settings, now_ms);
        if let Some(message) = output.likes {
            self.spread(worker, live, &state, &mut todo, &|| RoomNews::Message {
                message: message.clone(),
                sender: Location::NOWHERE,
                past: false,
            });
            self.message_to_guests(now_ms, live, &mut state, &message, None);
        }
        if let Some(sum) = output.sum {
            self.likes_home(live, &mut state, sum);
        }
        if let Some(counters) = output.stat {
            self.stat_to_guests(live, &state, &counters);
            let publication = Arc::new(hoopoe_im::room::stat(&live.id, &counters));
            self.spread(worker, live, &state, &mut todo, &|| RoomNews::Stat(publication.clone()));
        }
        todo.look_at_ms = self.later(live, &mut state).look_at_ms;
        todo
    }

    /// Carries out an operation of the service `room`, on whichever thread. `fresh_id` is for a
    /// room that is created without one.
    pub fn serve(
        &self,
        now_ms: u64,
        tenant: &str,
        caller: Caller<'_>,
        (id, call): (Option<&str>, RoomCall),
        fresh_id: impl FnOnce() -> Option<String>,
    ) -> Result<Served, Refusal> {
        let creates = matches!(call, RoomCall::Create { .. });
        let made;
        let id = match id {
            Some(id) => id,
            None => {
                made = fresh_id().ok_or_else(|| Refusal::conflict("no id could be made"))?;
                &made
            }
        };
        loop {
            let live = match self.find(tenant, id) {
                Some(live) => live,
                None if creates => {
                    self.may_own_more(tenant, caller.user)?;
                    self.find_or_make(now_ms, tenant, id)?
                }
                None => return Err(no_such_room()),
            };
            let state = live.state.lock();
            if state.forgotten {
                continue;
            }
            // One's own room is none more: it may be opened again.
            if creates && state.room.row().owner.as_deref() != Some(caller.user) {
                self.may_own_more(tenant, caller.user)?;
            }
            return self.serve_in(now_ms, &live, state, caller, call);
        }
    }

    fn may_own_more(&self, tenant: &str, user: &str) -> Result<(), Refusal> {
        if count(&self.owned, tenant, user) < self.settings.owned_max {
            Ok(())
        } else {
            Err(Refusal::limit("you own as many rooms as a user may"))
        }
    }

    fn serve_in(
        &self,
        now_ms: u64,
        live: &Arc<LiveRoom>,
        mut state: MutexGuard<'_, State>,
        caller: Caller<'_>,
        call: RoomCall,
    ) -> Result<Served, Refusal> {
        let (tenant, creates) = (&*live.tenant, matches!(call, RoomCall::Create { .. }));
        let owner = state.room.row().owner.clone();
        let done = state.room.serve(&self.settings, now_ms, caller, call)?;
        if creates {
            if let Some(owner) = owner {
                lower(&self.owned, tenant, &owner);
            }
            raise(&self.owned, tenant, caller.user);
        }
        let Moderated { answer, changed, evicted } = done;
        self.changed_for_guests(live, &mut state, changed, &evicted);
        self.evict(live, &state, evicted);
        self.remind(live, &self.later(live, &mut state));
        let store = changed.then(|| state.room.row().clone());
        Ok(Served { room: live.id.clone(), answer, store })
    }

    fn evict(&self, live: &Arc<LiveRoom>, state: &MutexGuard<'_, State>, evicted: Evicted) {
        let user = match evicted {
            Evicted::Nobody => return,
            Evicted::User(user) => {
                lower(&self.joined, &live.tenant, &user);
                Some(user.into_boxed_str())
            }
            Evicted::Everybody(users) => {
                users.iter().for_each(|user| lower(&self.joined, &live.tenant, user));
                None
            }
        };
        self.letters(live, state, &|| RoomNews::Evicted { user: user.clone(), why: None });
    }

    /// One letter for each worker with viewers, none of which is the caller.
    fn letters(
        &self,
        live: &Arc<LiveRoom>,
        state: &MutexGuard<'_, State>,
        news: &dyn Fn() -> RoomNews,
    ) {
        for (worker, _) in with_viewers(state) {
            let letter = RoomLetter { room: live.clone(), news: news() };
            self.workers[worker].put(Mail::Room(Box::new(letter)));
        }
    }

    /// One letter for each worker with viewers.
    fn spread(
        &self,
        here: usize,
        live: &Arc<LiveRoom>,
        state: &MutexGuard<'_, State>,
        todo: &mut Todo,
        news: &dyn Fn() -> RoomNews,
    ) {
        for (worker, _) in with_viewers(state) {
            let letter = RoomLetter { room: live.clone(), news: news() };
            // With several workers one's own letters take the same way as the others': an
            // earlier message may be on it.
            if worker == here && self.workers.len() == 1 {
                todo.letters.push(letter);
            } else {
                self.workers[worker].put(Mail::Room(Box::new(letter)));
            }
        }
    }

    /// A room was touched: when it has to be looked at, if nobody is going to do so early enough.
    fn later(&self, live: &Arc<LiveRoom>, state: &mut State) -> Todo {
        self.settle(live, state);
        let Some(next) = state.room.next_timeout() else {
            return Todo { no_look_at_ms: state.look_at_ms.take(), ..Todo::default() };
        };
        let late = state.look_at_ms.is_none_or(|at| at > next);
        let look_at_ms = late.then(|| *state.look_at_ms.insert(next));
        Todo { look_at_ms, ..Todo::default() }
    }
}

fn with_viewers(state: &State) -> impl Iterator<Item = (usize, u32)> {
    state.connections.iter().copied().enumerate().filter(|(_, connections)| *connections > 0)
}

fn no_such_room() -> Refusal {
    Refusal::not_found("there is no such room")
}

#[cfg(test)]
mod tests;
