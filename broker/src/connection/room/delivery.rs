//! What rooms send, to the connections of this worker: shaped per receiver, encoded once per
//! version, the payload of large messages shared.

use std::sync::Arc;

use hoopoe_codec::{QoS, Version};
use hoopoe_core::{Location, Publication};
use hoopoe_im::room::{Flow, RoomMessage};
use hoopoe_im::topic::Lane;
use smallvec::SmallVec;

use super::{Coverage, Place, VERSIONS, Viewer, address};
use crate::connection::deliver::{Copy, write_to};
use crate::connection::message::Message;
use crate::connection::worker::Worker;
use crate::connection::{Connection, Phase};
use crate::im::rooms::{LiveRoom, RoomLetter, RoomNews};
use crate::telemetry::Dropped;

/// A receiver whose socket is backed up still gets `hi`, until so many times what may wait for it
/// does.
const HI_WHILE_BACKED_UP: usize = 2;

/// One thing on its way to the viewers of a room.
struct Flight<'a> {
    kind: Coverage,
    flow: Flow,
    /// The message's number; `None` for what has none.
    n: Option<u64>,
    /// Hash of the sender.
    hash: u32,
    sender: Location,
    /// As receivers of that version get it.
    publication: &'a dyn Fn(Version) -> &'a Arc<Publication>,
}

impl Worker {
    /// A letter from a room.
    pub(in crate::connection) fn room_letter(&mut self, letter: &RoomLetter) {
        let live = &letter.room;
        match &letter.news {
            RoomNews::Message { message, sender, past } => self.fly(
                live,
                &Flight {
                    kind: Coverage::of_lane(message.lane),
                    flow: if *past { Flow::Counters } else { flow(message.lane) },
                    n: Some(message.n),
                    hash: message.sender,
                    sender: *sender,
                    publication: &|version| message.publication(version),
                },
            ),
            RoomNews::Signal { publication, hash, sender } => self.fly(
                live,
                &Flight {
                    kind: Coverage::SIGNALS,
                    flow: Flow::Signal,
                    n: None,
                    hash: *hash,
                    sender: *sender,
                    publication: &|_| publication,
                },
            ),
            RoomNews::Stat(publication) => self.fly(
                live,
                &Flight {
                    kind: Coverage::STAT,
                    flow: Flow::Counters,
                    n: None,
                    hash: 0,
                    sender: Location::NOWHERE,
                    publication: &|_| publication,
                },
            ),
            RoomNews::Evicted { user, why } => self.evict(live, user.as_deref(), why.as_deref()),
            RoomNews::Line { up } => self.line_changed(live, *up),
            RoomNews::LookAt(at_ms) => {
                self.rooms.looks.insert((*at_ms, address(live)), live.clone());
            }
        }
    }

    fn fly(&mut self, live: &Arc<LiveRoom>, flight: &Flight<'_>) {
        for (at, version) in VERSIONS.into_iter().enumerate() {
            let local = self.rooms.rooms.get(&address(live));
            if local.is_some_and(|local| !local.viewers[at].is_empty()) {
                self.fly_as(live, flight, at, version);
            }
        }
    }

    fn fly_as(&mut self, live: &Arc<LiveRoom>, flight: &Flight<'_>, at: usize, version: Version) {
        let (rates, now_ms) = (self.env.im.rooms.rates(), self.now_ms);
        let Worker { rooms, connections, turn, pool, counters, frames, .. } = self;
        let Some(local) = rooms.rooms.get_mut(&address(live)) else { return };
        let mut message = Message::shared((flight.publication)(version), frames, now_ms);
        if message.expired() {
            return;
        }
        for (_, viewer) in &mut local.viewers[at] {
            let Some(some_signals) = wants(viewer, flight) else { continue };
            let place = viewer.location.place();
            let connection = connections.get_mut(place).filter(|c| c.location == viewer.location);
            let Some(connection) = connection else { continue };
            let identifiers = if some_signals {
                let topic = message.parts.topic;
                let Some(identifiers) = of_signal(connection, live, topic) else { continue };
                identifiers
            } else {
                identifiers(viewer, flight.kind)
            };
            let (backed_up, most) = (connection.is_full(), connection.limits.write_buffer_bytes);
            let room = connection.output_len() <= most.saturating_mul(HI_WHILE_BACKED_UP);
            if !room || !viewer.shaper.admit(&rates, now_ms, flight.flow, flight.hash, backed_up) {
                let why = if backed_up { Dropped::FullBuffer } else { Dropped::Shaped };
                counters.dropped(why);
                continue;
            }
            write_to(connection, turn, pool, counters, &mut message, plain(&identifiers), None);
        }
    }

    /// The last messages of a room, to one who has just come in: outside the buckets, oldest
    /// first.
    pub(super) fn send_ring(
        &mut self,
        live: &Arc<LiveRoom>,
        place: Place,
        ring: &[Arc<RoomMessage>],
    ) {
        let now_ms = self.now_ms;
        let Worker { rooms, connections, turn, pool, counters, frames, .. } = self;
        let Some(local) = rooms.rooms.get(&address(live)) else { return };
        let Some(viewer) = local.viewers[place.0].get(place.1) else { return };
        let version = VERSIONS[place.0];
        let connection = connections.get_mut(viewer.location.place());
        let Some(connection) = connection.filter(|c| c.location == viewer.location) else {
            return;
        };
        for message in ring {
            let kind = Coverage::of_lane(message.lane);
            if !viewer.coverage.meets(kind) {
                continue;
            }
            if connection.is_full() {
                counters.dropped(Dropped::FullBuffer);
                continue;
            }
            let mut message = Message::shared(message.publication(version), frames, now_ms);
            let identifiers = identifiers(viewer, kind);
            write_to(connection, turn, pool, counters, &mut message, plain(&identifiers), None);
        }
    }

    fn viewers_of(&self, live: &Arc<LiveRoom>) -> Vec<(Place, Location)> {
        let Some(local) = self.rooms.rooms.get(&address(live)) else { return Vec::new() };
        let viewers = local.viewers.iter().enumerate().flat_map(|(at, viewers)| {
            viewers.iter().map(move |(place, viewer)| ((at, place), viewer.location))
        });
        viewers.collect()
    }

    /// The site that the room lives at is reached again, or not any more: everybody stays.
    fn line_changed(&mut self, live: &Arc<LiveRoom>, up: bool) {
        for (_, location) in self.viewers_of(live) {
            self.tell_line(location, live, up);
        }
    }

    pub(super) fn tell_line(&mut self, location: Location, live: &LiveRoom, up: bool) {
        let what = if up { "reached" } else { "unreached" };
        let topic = format!("im/me/sys/notice/room/{}/{what}", live.id);
        self.im_notice(location, &topic, b"");
    }

    /// A user's connections leave the room, or all; their subscriptions stay, and do nothing.
    fn evict(&mut self, live: &Arc<LiveRoom>, user: Option<&str>, why: Option<&str>) {
        let what = match (user, why) {
            (_, Some(_)) => "refused",
            (Some(_), None) => "banned",
            (None, None) => "closed",
        };
        let topic = format!("im/me/sys/notice/room/{}/{what}", live.id);
        for (place, location) in self.viewers_of(live) {
            let session = self.connection(location).and_then(Connection::session);
            if let Some(session) = session
                && user.is_none_or(|user| *session.key.user == *user)
                && let Some(im) = &mut session.im
                && im.rooms.take(&live.id).is_some()
            {
                self.remove_viewer(live, place);
                self.env.im.rooms.evicted(self.number, live);
                self.im_notice(location, &topic, why.unwrap_or_default().as_bytes());
            }
        }
    }
}

fn flow(lane: Lane) -> Flow {
    match lane {
        Lane::Hi => Flow::Hi,
        Lane::Chat => Flow::Chat,
        Lane::Like => Flow::Counters,
    }
}

/// Whether the viewer gets it by its filters; `Some(true)`: if one of them matches this signal.
fn wants(viewer: &Viewer, flight: &Flight<'_>) -> Option<bool> {
    let coverage = if viewer.location == flight.sender { viewer.own } else { viewer.coverage };
    if coverage.meets(flight.kind) {
        // What is not behind the ring was in it.
        return flight.n.is_none_or(|n| n > viewer.joined_n).then_some(false);
    }
    let some = flight.flow == Flow::Signal && coverage.meets(Coverage::SOME_SIGNALS);
    some.then_some(true)
}

/// The identifiers of a session's filters that match a signal; `None` when none matches.
fn of_signal(connection: &Connection, live: &LiveRoom, topic: &str) -> Option<SmallVec<[u32; 1]>> {
    let Phase::Active(session) = &connection.phase else { return None };
    session.im.as_ref()?.rooms.find(&live.id)?.identifiers_for(topic)
}

/// The identifiers of all subscriptions that cover it ([MQTT-3.3.4-3]).
fn identifiers(viewer: &Viewer, kind: Coverage) -> SmallVec<[u32; 1]> {
    let all = viewer.identifiers.iter().flatten();
    all.filter(|(coverage, _)| coverage.meets(kind)).map(|(_, identifier)| *identifier).collect()
}

fn plain(identifiers: &[u32]) -> Copy<'_> {
    Copy { qos: QoS::AtMostOnce, retain: false, dup: false, identifiers }
}
