//! Live rooms as a worker sees them: which of its connections are in which room.
//!
//! SUBSCRIBE to `im/r/{room}/…` comes in once its SUBACK is out, UNSUBSCRIBE of the last such
//! filter or the end of the connection leaves (ruling 29). What is said goes to the node's
//! [`Rooms`](crate::im::rooms::Rooms), which judge it; what they send comes back as letters
//! (`delivery`).

mod coverage;
mod delivery;
mod membership;

pub(super) use coverage::Coverage;
pub(super) use membership::{Memberships, Waiting};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hoopoe_codec::{PacketId, PacketType, Publish, ReasonCode, SubscribeOptions, Version};
use hoopoe_core::Location;
use hoopoe_im::refusal::Refusal;
use hoopoe_im::room::{Post, Shaper};
use hoopoe_im::topic::{Filter, Lane, Published, SignalTarget, parse_filter, parse_publish};
use slab::Slab;

use super::Connection;
use super::session::Session;
use super::worker::Worker;
use crate::im::rooms::{LiveRoom, Todo};
use membership::Membership;

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

impl Worker {
    /// Whether the client may come into the room that its filter names, and with which code it is
    /// refused.
    pub(super) fn may_enter(&mut self, location: Location, room: &str) -> Result<(), Refusal> {
        let (env, now_ms) = (self.env.clone(), self.now_ms);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        if session.rooms.has(room) {
            return Ok(());
        }
        let key = &session.key;
        env.rooms.may_join(now_ms, &key.tenant, room, &key.user)
    }

    /// A filter on a room was granted; the client comes in when the packet's SUBACK is out.
    pub(super) fn enter_later(
        &mut self,
        location: Location,
        packet: Option<PacketId>,
        filter: &str,
        room: &str,
        options: SubscribeOptions,
        identifier: u32,
    ) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        session.rooms.waiting.push(Waiting {
            packet,
            room: room.into(),
            filter: filter.into(),
            no_local: options.no_local,
            identifier,
        });
    }

    /// The SUBACK of that packet is out, or (without one) the session is resumed: the client comes
    /// into the rooms it asked for.
    pub(super) fn enter_rooms(&mut self, location: Location, packet: Option<PacketId>) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        if session.rooms.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut session.rooms.waiting);
        let (due, later) = waiting.into_iter().partition(|waits| waits.packet == packet);
        session.rooms.waiting = later;
        let due: Vec<Waiting> = due;
        for waits in due {
            self.enter(location, waits);
        }
    }

    fn enter(&mut self, location: Location, waits: Waiting) {
        let (env, now_ms, worker) = (self.env.clone(), self.now_ms, self.number);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        if session.rooms.subscribe(&waits, session.version) {
            self.terms_changed(location, &waits.room);
            return;
        }
        let (key, version) = (&session.key, session.version);
        let place = (&*key.tenant, &*waits.room);
        let entered = env.rooms.join(worker, now_ms, place, &key.user);
        let (live, joined, todo) = match entered {
            Ok(entered) => entered,
            Err(refusal) => {
                tracing::debug!(client = %key, room = waits.room, %refusal.message, "not let in");
                return;
            }
        };
        let mut membership = Membership::new(live.clone(), waits, version);
        let terms = membership.terms();
        let viewer = Viewer {
            location,
            shaper: Shaper::new(&env.rooms.rates(), now_ms),
            joined_n: joined.n,
            coverage: terms.coverage,
            own: terms.own,
            identifiers: terms.identifiers,
        };
        let make = || LocalRoom { _live: live.clone(), viewers: Default::default() };
        let local = self.rooms.rooms.entry(address(&live)).or_insert_with(make);
        let list = usize::from(version == Version::V311);
        let place = (list, local.viewers[list].insert(viewer));
        membership.place = place;
        if let Some(session) = self.connection(location).and_then(Connection::session) {
            session.rooms.joined.push(membership);
        }
        self.send_ring(&live, place, &joined.ring);
        self.room_todo(&live, todo);
    }

    /// The filters of a room have changed: the viewer gets what they cover.
    fn terms_changed(&mut self, location: Location, room: &str) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Some(membership) = session.rooms.find(room) else { return };
        let (at, place, terms) =
            (address(&membership.live), membership.place, membership.terms());
        if let Some(local) = self.rooms.rooms.get_mut(&at)
            && let Some(viewer) = local.viewers[place.0].get_mut(place.1)
        {
            viewer.coverage = terms.coverage;
            viewer.own = terms.own;
            viewer.identifiers = terms.identifiers;
        }
    }

    /// A filter on a room is given up; with the last one the client leaves.
    pub(super) fn leave_by_filter(&mut self, location: Location, filter: &str) {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return;
        };
        let Some(room) = session.rooms.unsubscribe(filter) else { return };
        let empty = session.rooms.find(&room).is_some_and(|of| of.is_empty());
        if !empty {
            self.terms_changed(location, &room);
            return;
        }
        let Some(membership) = session.rooms.take(&room) else { return };
        let user = session.key.user.clone();
        self.leave(&membership, &user);
    }

    /// The session's connection ends: it leaves every room. The subscriptions stay with the
    /// session (ruling 29).
    pub(super) fn leave_rooms(&mut self, session: &mut Session) {
        for membership in std::mem::take(&mut session.rooms.joined) {
            self.leave(&membership, &session.key.user);
        }
    }

    fn leave(&mut self, membership: &Membership, user: &str) {
        let live = &membership.live;
        self.remove_viewer(live, membership.place);
        let todo = self.env.rooms.leave(self.number, self.now_ms, live, user);
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

    /// PUBLISH to `im/r/{room}/msg/{lane}`. `properties` are the sender's own, checked.
    pub(super) fn publish_to_room(
        &mut self,
        location: Location,
        room: &str,
        lane: Lane,
        publish: &Publish<'_>,
        properties: &[u8],
    ) -> Result<(), Refusal> {
        let (env, now_ms, worker) = (self.env.clone(), self.now_ms, self.number);
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        let live = session.rooms.live(room)?;
        let expiry = publish.properties.message_expiry_secs;
        let post = Post {
            from: &session.key.user,
            lane,
            properties,
            payload: publish.payload,
            expires_at_ms: expiry.map(|secs| now_ms + u64::from(secs) * 1000),
        };
        let todo = env.rooms.publish(worker, now_ms, &live, post, location)?;
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
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(());
        };
        let live = session.rooms.live(room)?;
        let from = &*session.key.user;
        let publication = || hoopoe_im::room::signal(room, from, kind, properties, payload);
        let from = (from, location);
        let todo = env.rooms.signal(worker, now_ms, &live, from, payload.len(), publication)?;
        self.room_todo(&live, todo);
        Ok(())
    }

    /// Hook: a publication to a room.
    pub(super) fn published_to_room(
        &mut self,
        location: Location,
        topic: &str,
        publish: &Publish<'_>,
    ) -> Option<Result<(), Refusal>> {
        let properties = publish.properties.forwardable();
        match parse_publish(topic).ok()? {
            Published::RoomMessage { room, lane } => {
                Some(self.publish_to_room(location, room, lane, publish, &properties))
            }
            Published::Signal { to: SignalTarget::Room(room), kind } => {
                Some(self.signal_to_room(location, room, kind, publish.payload, &properties))
            }
            _ => None,
        }
    }

    /// Hook: a filter on a room.
    pub(super) fn grant_room(
        &mut self,
        location: Location,
        subscribe: &hoopoe_codec::Subscribe<'_>,
        filter: &str,
        options: SubscribeOptions,
    ) -> Option<ReasonCode> {
        let version = self.connection(location)?.session()?.version;
        let room = of_filter(filter, version)?;
        if let Err(refusal) = self.may_enter(location, room) {
            return Some(suback_code(&refusal));
        }
        self.connection(location)?.session()?.subscriptions.put(filter);
        let identifier = subscribe.subscription_id.unwrap_or(0);
        self.enter_later(location, Some(subscribe.id), filter, room, options, identifier);
        Some(ReasonCode::Success)
    }

    /// What follows from something done to a room.
    fn room_todo(&mut self, live: &Arc<LiveRoom>, todo: Todo) {
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
            let todo = self.env.rooms.look(self.number, self.now_ms, &live, at_ms);
            self.room_todo(&live, todo);
        }
    }
}

/// The room that a filter is on.
pub(super) fn of_filter(filter: &str, version: Version) -> Option<&str> {
    match parse_filter(filter, version) {
        Ok(Filter::Room { room }) => Some(room),
        _ => None,
    }
}

/// The code of a refusal as SUBACK may carry it.
pub(super) fn suback_code(refusal: &Refusal) -> ReasonCode {
    let legal = refusal.code.legal_in(PacketType::SubAck);
    if legal { refusal.code } else { ReasonCode::NotAuthorized }
}
