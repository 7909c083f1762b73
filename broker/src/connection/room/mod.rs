//! Live rooms as a worker sees them: which of its connections are in which room.
//!
//! SUBSCRIBE to `im/r/{room}/…` comes in once its SUBACK is out (where the room lives at another site,
//! that site is asked first: `entrance`), UNSUBSCRIBE of the last such
//! filter or the end of the connection leaves (ruling 29). What is said goes to the node's
//! [`Rooms`](crate::im::rooms::Rooms), which judge it; what they send comes back as letters
//! (`delivery`).

mod coverage;
mod delivery;
mod entrance;
mod membership;

use coverage::Coverage;
pub(super) use entrance::ENTRANCE_TOKEN;
pub(super) use membership::Memberships;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hoopoe_codec::{PacketId, PacketType, ReasonCode, SubscribeOptions, Version};
use hoopoe_core::Location;
use hoopoe_im::overload::Shed;
use hoopoe_im::refusal::Refusal;
use hoopoe_im::room::{Post, Shaper};
use hoopoe_im::topic::{Filter, Lane, parse_filter};
use slab::Slab;

use super::Connection;
use super::session::Session;
use super::worker::Worker;
use crate::im::overloaded;
use crate::im::rooms::{LiveRoom, RoomSignal, Todo};
use membership::{Membership, Terms, Waiting};

/// One connection in a room.
struct Viewer {
    location: Location,
    shaper: Shaper,
    /// Messages up to this number came with the ring, or before.
    joined_n: u64,
    coverage: Coverage,
    /// What of the connection's own it gets: less where a subscription has No Local.
    own: Coverage,
    /// Which Subscription Identifiers go with what; seldom any.
    identifiers: Option<Box<[(Coverage, u32)]>>,
}

/// Versions, in the order of a room's lists of viewers.
const VERSIONS: [Version; 2] = [Version::V5, Version::V311];

/// Where a viewer stands: in the list of its version, and there.
type Place = (usize, usize);

/// A room with its viewers on this worker, by version.
struct LocalRoom {
    /// Held so that no other room takes its address.
    _live: Arc<LiveRoom>,
    viewers: [Slab<Viewer>; 2],
}

/// The rooms that connections of one worker are in, and when to look at which.
#[derive(Default)]
pub(super) struct LocalRooms {
    /// By the address of the node's room, which each entry keeps alive.
    rooms: HashMap<usize, LocalRoom, foldhash::fast::RandomState>,
    looks: BTreeMap<(u64, usize), Arc<LiveRoom>>,
}

fn address(live: &Arc<LiveRoom>) -> usize {
    Arc::as_ptr(live) as usize
}

impl LocalRooms {
    /// When the next room is to be looked at.
    pub fn next_look_ms(&self) -> Option<u64> {
        self.looks.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }
}

/// Who speaks, and in which room.
type Speaker = (Arc<str>, Arc<LiveRoom>);

impl Worker {
    fn memberships(&mut self, location: Location) -> Option<&mut Memberships> {
        let session = self.connection(location).and_then(Connection::session)?;
        session.im.as_mut().map(|im| &mut im.rooms)
    }

    /// Why the client may not come into the room that its filter names, if so.
    pub(super) fn may_enter(&mut self, location: Location, room: &str) -> Result<(), Refusal> {
        let (env, now_ms) = (self.env.clone(), self.now_ms);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        let memberships = session.im.as_ref().map(|im| &im.rooms);
        if memberships.is_some_and(|rooms| rooms.has(room)) {
            return Ok(());
        }
        let entrance = memberships.and_then(|rooms| rooms.entrance.as_deref());
        if let Some(Err(refusal)) = entrance.and_then(|entrance| entrance.judgement(room)) {
            return Err(refusal.clone());
        }
        let key = &session.key;
        let others = memberships.map(|rooms| rooms.awaited_besides(room)).unwrap_or_default();
        env.im.rooms.may_join_too(now_ms, (&key.tenant, room), &key.user, &others)
    }

    /// Notes a granted filter, if it is on a room; the client comes in later.
    pub(super) fn enter_later(
        &mut self,
        location: Location,
        filter: &str,
        options: SubscribeOptions,
        identifier: u32,
    ) -> bool {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return false;
        };
        let Ok(Filter::Room { room }) = parse_filter(filter, session.version) else { return false };
        if let Some(im) = &mut session.im {
            im.rooms.waiting.push(Waiting {
                packet: None,
                room: room.into(),
                filter: filter.into(),
                no_local: options.no_local,
                identifier,
            });
        }
        true
    }

    /// The client comes into the rooms it asked for when that packet's SUBACK is out.
    pub(super) fn enter_rooms_after(&mut self, location: Location, packet: PacketId) {
        let Some(memberships) = self.memberships(location) else { return };
        for waits in memberships.waiting.if_made().into_iter().flatten() {
            waits.packet.get_or_insert(packet);
        }
    }

    /// The SUBACK of that packet is out, or (without one) the session is resumed: the client comes
    /// into the rooms it asked for.
    pub(super) fn enter_rooms(&mut self, location: Location, packet: Option<PacketId>) {
        let Some(memberships) = self.memberships(location) else { return };
        if memberships.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut memberships.waiting);
        let (due, later): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|waits| waits.packet == packet);
        memberships.waiting = later.into();
        for waits in due {
            self.enter(location, waits);
        }
    }

    fn enter(&mut self, location: Location, waits: Waiting) {
        let (env, now_ms, worker) = (self.env.clone(), self.now_ms, self.number);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let (key, version) = (&session.key, session.version);
        let Some(im) = &mut session.im else { return };
        if im.rooms.subscribe(&waits, version) {
            self.terms_changed(location, &waits.room);
            return;
        }
        let place = (&*key.tenant, &*waits.room);
        let (live, joined, todo) = match env.im.rooms.join(worker, now_ms, place, &key.user) {
            Ok(entered) => entered,
            Err(refusal) => {
                if im.rooms.greeted {
                    let topic = format!("im/me/sys/notice/room/{}/refused", waits.room);
                    self.im_notice(location, &topic, refusal.message.as_bytes());
                } else {
                    // The hello goes first: then it is tried again, and told.
                    im.rooms.waiting.push(Waiting { packet: None, ..waits });
                }
                return;
            }
        };
        let mut membership = Membership::new(live.clone(), waits, version);
        let greeted = im.rooms.greeted;
        let terms = if greeted { membership.terms() } else { Terms::default() };
        let Terms { coverage, own, identifiers } = terms;
        let viewer = Viewer {
            location,
            shaper: Shaper::new(&env.im.rooms.rates(), now_ms),
            joined_n: joined.n,
            coverage,
            own,
            identifiers,
        };
        let make = || LocalRoom { _live: live.clone(), viewers: Default::default() };
        let local = self.rooms.rooms.entry(address(&live)).or_insert_with(make);
        let list = usize::from(version == Version::V311);
        let place = (list, local.viewers[list].insert(viewer));
        membership.place = place;
        if let Some(memberships) = self.memberships(location) {
            memberships.joined.push(membership);
        }
        if greeted {
            self.send_ring(&live, place, &joined.ring);
        }
        self.room_todo(&live, todo);
    }

    /// The device's hello, its first delivery, is out: it hears from the rooms it is in already.
    pub(super) fn hear_rooms(&mut self, location: Location) {
        let (env, now_ms) = (self.env.clone(), self.now_ms);
        let Some(memberships) = self.memberships(location) else { return };
        memberships.greeted = true;
        let waits = !memberships.waiting.is_empty();
        let rooms = memberships.joined.iter().map(|joined| (joined.live.clone(), joined.place));
        for (live, place) in rooms.collect::<Vec<_>>() {
            let (ring, n) = env.im.rooms.look_back(now_ms, &live);
            self.terms_changed(location, &live.id);
            if let Some(local) = self.rooms.rooms.get_mut(&address(&live))
                && let Some(viewer) = local.viewers[place.0].get_mut(place.1)
            {
                viewer.joined_n = n;
            }
            self.send_ring(&live, place, &ring);
            if env.im.rooms.is_cut_off(&live) {
                self.tell_line(location, &live, false);
            }
        }
        if waits {
            self.enter_rooms(location, None);
        }
    }

    /// The filters of a room have changed: the viewer gets what they cover.
    fn terms_changed(&mut self, location: Location, room: &str) {
        let Some(memberships) = self.memberships(location) else { return };
        if !memberships.greeted {
            return;
        }
        let Some(membership) = memberships.find(room) else { return };
        let (at, place, terms) = (address(&membership.live), membership.place, membership.terms());
        if let Some(local) = self.rooms.rooms.get_mut(&at)
            && let Some(viewer) = local.viewers[place.0].get_mut(place.1)
        {
            viewer.coverage = terms.coverage;
            viewer.own = terms.own;
            viewer.identifiers = terms.identifiers;
        }
    }

    /// A filter is given up; with the last one on a room the client leaves it.
    pub(super) fn leave_by_filter(&mut self, location: Location, filter: &str) {
        let Some(memberships) = self.memberships(location) else { return };
        let Some(room) = memberships.unsubscribe(filter) else { return };
        if memberships.find(&room).is_some_and(|membership| !membership.is_empty()) {
            self.terms_changed(location, &room);
            return;
        }
        let Some(membership) = memberships.take(&room) else { return };
        let session = self.connection(location).and_then(Connection::session);
        let Some(user) = session.map(|session| session.key.user.clone()) else { return };
        self.leave(&membership, &user);
    }

    /// The session's connection ends: it leaves every room. The subscriptions stay with the
    /// session (ruling 29).
    pub(super) fn leave_rooms(&mut self, session: &mut Session) {
        let Some(im) = &mut session.im else { return };
        for membership in std::mem::take(&mut im.rooms.joined) {
            self.leave(&membership, &session.key.user);
        }
    }

    fn leave(&mut self, membership: &Membership, user: &str) {
        let live = &membership.live;
        self.remove_viewer(live, membership.place);
        let todo = self.env.im.rooms.leave(self.number, self.now_ms, live, user);
        self.room_todo(live, todo);
    }

    fn remove_viewer(&mut self, live: &Arc<LiveRoom>, place: Place) {
        let at = address(live);
        if let Some(local) = self.rooms.rooms.get_mut(&at) {
            local.viewers[place.0].try_remove(place.1);
            if local.viewers.iter().all(Slab::is_empty) {
                self.rooms.rooms.remove(&at);
            }
        }
    }

    /// PUBLISH to `im/r/{room}/msg/{lane}`: the lane, the payload and when it expires. The
    /// `properties` are the sender's own, checked.
    pub(super) fn publish_to_room(
        &mut self,
        location: Location,
        room: &str,
        (lane, payload, expires_at_ms): (Lane, &[u8], Option<u64>),
        properties: &[u8],
    ) -> Result<(), Refusal> {
        let (env, now_ms, worker) = (self.env.clone(), self.now_ms, self.number);
        let Some((user, live)) = self.speaker(location, room)? else { return Ok(()) };
        match lane {
            Lane::Like if env.im.overload.sheds(Shed::Likes) => return Ok(()),
            Lane::Chat if env.im.overload.sheds(Shed::RoomChat) => return Err(overloaded()),
            _ => {}
        }
        let post = Post { from: &user, lane, properties, payload, expires_at_ms };
        let todo = env.im.rooms.publish(worker, now_ms, &live, post, location)?;
        self.room_todo(&live, todo);
        Ok(())
    }

    /// PUBLISH to `im/r/{room}/sig/{kind}`.
    pub(super) fn signal_to_room(
        &mut self,
        location: Location,
        room: &str,
        kind: &str,
        payload: &[u8],
        properties: &[u8],
    ) -> Result<(), Refusal> {
        let (env, now_ms, worker) = (self.env.clone(), self.now_ms, self.number);
        let Some((user, live)) = self.speaker(location, room)? else { return Ok(()) };
        let signal = RoomSignal { from: &user, sender: location, kind, properties, payload };
        let todo = env.im.rooms.signal(worker, now_ms, &live, signal)?;
        self.room_todo(&live, todo);
        Ok(())
    }

    /// The client's user and the room it speaks in.
    fn speaker(&mut self, location: Location, room: &str) -> Result<Option<Speaker>, Refusal> {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(None);
        };
        let Some(im) = &session.im else { return Ok(None) };
        Ok(Some((session.key.user.clone(), im.rooms.live(room)?)))
    }

    /// What follows from something done to a room.
    fn room_todo(&mut self, live: &Arc<LiveRoom>, todo: Todo) {
        if let Some(at_ms) = todo.no_look_at_ms {
            self.rooms.looks.remove(&(at_ms, address(live)));
        }
        if let Some(at_ms) = todo.look_at_ms {
            self.rooms.looks.insert((at_ms, address(live)), live.clone());
        }
        for letter in todo.letters {
            self.room_letter(&letter);
        }
    }

    /// Looks at the rooms whose time has come.
    pub(super) fn look_at_rooms(&mut self) {
        while let Some(entry) = self.rooms.looks.first_entry()
            && entry.key().0 <= self.now_ms
        {
            let ((at_ms, _), live) = entry.remove_entry();
            let todo = self.env.im.rooms.look(self.number, self.now_ms, &live, at_ms);
            self.room_todo(&live, todo);
        }
        self.env.im.rooms.sweep(self.now_ms);
    }
}

/// The code of a refusal as SUBACK may carry it.
pub(super) fn suback_code(refusal: &Refusal) -> ReasonCode {
    let legal = refusal.code.legal_in(PacketType::SubAck);
    if legal { refusal.code } else { ReasonCode::NotAuthorized }
}
