//! The rooms of one session: which filters brought it into which.

use std::sync::Arc;

use hoopoe_codec::{PacketId, Version, topic_matches};
use hoopoe_core::seldom::Seldom;
use hoopoe_im::refusal::Refusal;
use smallvec::SmallVec;

use super::entrance::Entrance;
use super::{Coverage, Place};
use crate::im::rooms::LiveRoom;

/// A filter that was granted and brings its client in when the SUBACK is out.
#[derive(Debug)]
pub struct Waiting {
    /// The SUBSCRIBE; `None` for a session that is resumed.
    pub packet: Option<PacketId>,
    /// The room.
    pub room: Box<str>,
    /// The filter.
    pub filter: Box<str>,
    /// The client does not want its own.
    pub no_local: bool,
    /// Subscription Identifier, 0 when none.
    pub identifier: u32,
}

#[derive(Debug)]
struct Filter {
    text: Box<str>,
    coverage: Coverage,
    no_local: bool,
    identifier: u32,
}

/// What a viewer gets.
#[derive(Default)]
pub struct Terms {
    pub coverage: Coverage,
    pub own: Coverage,
    pub identifiers: Option<Box<[(Coverage, u32)]>>,
}

/// A session in a room.
#[derive(Debug)]
pub struct Membership {
    /// The room.
    pub live: Arc<LiveRoom>,
    /// The viewer's place in the worker's room.
    pub place: Place,
    filters: SmallVec<[Filter; 1]>,
}

impl Membership {
    /// With the filter that brought it in; the place is still to be found.
    pub fn new(live: Arc<LiveRoom>, waits: Waiting, version: Version) -> Membership {
        let mut membership = Membership { live, place: (0, 0), filters: SmallVec::new() };
        membership.put(&waits, version);
        membership
    }

    fn put(&mut self, waits: &Waiting, version: Version) {
        let coverage = Coverage::of_filter(&waits.filter, &waits.room, version);
        let (no_local, identifier) = (waits.no_local, waits.identifier);
        // [MQTT-3.8.4-3]: the same filter again replaces the subscription.
        self.filters.retain(|filter| filter.text != waits.filter);
        self.filters.push(Filter { text: waits.filter.clone(), coverage, no_local, identifier });
    }

    /// No filter is left.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// What its filters cover together.
    pub fn terms(&self) -> Terms {
        let (mut coverage, mut own) = (Coverage::default(), Coverage::default());
        for filter in &self.filters {
            coverage.add(filter.coverage);
            if !filter.no_local {
                own.add(filter.coverage);
            }
        }
        let identified = self.filters.iter().filter(|filter| filter.identifier != 0);
        let identifiers: Box<[_]> = identified.map(|f| (f.coverage, f.identifier)).collect();
        Terms { coverage, own, identifiers: (!identifiers.is_empty()).then_some(identifiers) }
    }

    /// The identifiers of the filters that match this topic; `None` when none matches.
    pub fn identifiers_for(&self, topic: &str) -> Option<SmallVec<[u32; 1]>> {
        let mut matching =
            self.filters.iter().filter(|filter| topic_matches(&filter.text, topic)).peekable();
        matching.peek()?;
        Some(matching.map(|filter| filter.identifier).filter(|id| *id != 0).collect())
    }
}

/// The rooms of one session. Empty ones take no memory beyond themselves.
#[derive(Debug, Default)]
pub struct Memberships {
    /// Rooms it is in; few (ruling 37).
    pub joined: Seldom<Vec<Membership>>,
    /// Filters whose SUBACK is not out yet.
    pub waiting: Seldom<Vec<Waiting>>,
    /// What waits for the homes of rooms of other sites, if anything does.
    pub entrance: Option<Box<Entrance>>,
    /// The device's hello is out: before that it is in its rooms, and hears nothing from them.
    pub greeted: bool,
}

impl Memberships {
    /// The session is in the room.
    pub fn has(&self, room: &str) -> bool {
        self.find(room).is_some()
    }

    /// Other rooms that the session is about to come into.
    pub fn awaited_besides(&self, room: &str) -> SmallVec<[&str; 4]> {
        let mut awaited = SmallVec::new();
        for waits in self.waiting.iter() {
            let of = &*waits.room;
            if of != room && !awaited.contains(&of) && !self.has(of) {
                awaited.push(of);
            }
        }
        awaited
    }

    /// The session in the room.
    pub fn find(&self, room: &str) -> Option<&Membership> {
        self.joined.iter().find(|membership| *membership.live.id == *room)
    }

    /// The room, if the session is in it.
    pub fn live(&self, room: &str) -> Result<Arc<LiveRoom>, Refusal> {
        let membership = self.find(room);
        membership
            .map(|membership| membership.live.clone())
            .ok_or_else(|| Refusal::not_allowed("you are not in this room"))
    }

    /// One more filter for a room that the session is in; false when it is not.
    pub fn subscribe(&mut self, waits: &Waiting, version: Version) -> bool {
        let mut rooms = self.joined.if_made().into_iter().flatten();
        let joined = rooms.find(|of| *of.live.id == *waits.room);
        joined.map(|membership| membership.put(waits, version)).is_some()
    }

    /// One filter less; the room it was for.
    pub fn unsubscribe(&mut self, text: &str) -> Option<Box<str>> {
        if let Some(waiting) = self.waiting.if_made() {
            waiting.retain(|waits| *waits.filter != *text);
        }
        self.joined.if_made()?.iter_mut().find_map(|membership| {
            let at = membership.filters.iter().position(|filter| *filter.text == *text)?;
            membership.filters.remove(at);
            Some(Box::from(&*membership.live.id))
        })
    }

    /// Takes a room out.
    pub fn take(&mut self, room: &str) -> Option<Membership> {
        let at = self.joined.iter().position(|membership| *membership.live.id == *room)?;
        Some(self.joined.swap_remove(at))
    }
}
