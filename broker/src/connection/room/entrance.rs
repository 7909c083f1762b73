//! The way into a room that lives at another site: its home is asked before SUBACK leaves.
//!
//! Owns the SUBSCRIBE that waits for the answer, and what its client subscribes to or gives up behind
//! it: their order stays (ruling 3). Everything else that the client sends goes on. How long an answer
//! is waited for is the business of the lines between sites: there always is one.

use std::collections::VecDeque;

use hoopoe_codec::{Fault, Packet, Receiver, Subscribe, decode};
use hoopoe_core::Location;
use hoopoe_im::refusal::Refusal;
use hoopoe_im::topic::{Filter, parse_filter};
use hoopoe_im::{Answer, Asker, User};
use hoopoe_store::command::ReplyTo;

use crate::connection::Connection;
use crate::connection::worker::Worker;

/// The token of an answer about a room that its client wants to come into.
pub(in crate::connection) const ENTRANCE_TOKEN: u64 = u64::MAX - 2;
/// Bytes of packets that may wait here before their client is read no further.
const MOST_WAITING_BYTES: usize = 64 * 1024;

/// What waits for the homes of rooms.
#[derive(Debug, Default)]
pub struct Entrance {
    /// SUBSCRIBE and UNSUBSCRIBE as they came, oldest first.
    frames: VecDeque<Box<[u8]>>,
    /// Their bytes.
    bytes: usize,
    /// They were so many that the client is not read.
    is_full: bool,
    /// What homes have said of rooms that the oldest names.
    judged: Vec<(Box<str>, Result<(), Refusal>)>,
    /// The room whose home is being asked.
    asked: Option<Box<str>>,
}

impl Entrance {
    /// What the room's home has said, if it was asked.
    pub fn judgement(&self, room: &str) -> Option<&Result<(), Refusal>> {
        let judged = self.judged.iter().find(|(judged, _)| **judged == *room);
        judged.map(|(_, judgement)| judgement)
    }

    fn push(&mut self, frame: &[u8]) {
        self.bytes += frame.len();
        self.frames.push_back(frame.into());
    }

    fn pop(&mut self) -> Option<Box<[u8]>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

impl Worker {
    /// A SUBSCRIBE or UNSUBSCRIBE that has to wait for the home of a room, or behind one that does:
    /// true when it has been taken.
    pub(in crate::connection) fn waits_at_entrance(
        &mut self,
        location: Location,
        frame: &[u8],
        packet: &Packet<'_>,
    ) -> bool {
        let waits = match packet {
            Packet::Subscribe(subscribe) => {
                self.entrance(location).is_some() || self.unjudged(location, subscribe).is_some()
            }
            Packet::Unsubscribe(_) => self.entrance(location).is_some(),
            _ => false,
        };
        if !waits {
            return false;
        }
        let Some(memberships) = self.memberships(location) else { return false };
        let entrance = memberships.entrance.get_or_insert_default();
        let is_first = entrance.frames.is_empty();
        entrance.push(frame);
        if is_first {
            self.pass_entrance(location);
        }
        if let Some(entrance) = self.entrance(location)
            && entrance.bytes > MOST_WAITING_BYTES
        {
            entrance.is_full = true;
            if let Some(connection) = self.connection(location) {
                connection.paused = true;
            }
        }
        true
    }

    /// The home of a room has answered whether the client may come in.
    pub(in crate::connection) fn home_has_judged(&mut self, location: Location, answer: Answer) {
        let Some(entrance) = self.entrance(location) else { return };
        let Some(room) = entrance.asked.take() else { return };
        let judgement = match answer {
            Answer::Refused(refusal) => Err(refusal),
            _ => Ok(()),
        };
        entrance.judged.push((room, judgement));
        self.pass_entrance(location);
    }

    fn entrance(&mut self, location: Location) -> Option<&mut Entrance> {
        self.memberships(location)?.entrance.as_deref_mut()
    }

    /// The first room of a SUBSCRIBE whose home is to be asked, and has not been.
    fn unjudged(&mut self, location: Location, subscribe: &Subscribe<'_>) -> Option<Box<str>> {
        let env = self.env.clone();
        // Most brokers are the only site there is.
        env.im.sites()?;
        let session = self.connection(location).and_then(Connection::session)?;
        let (tenant, version) = (&session.key.tenant, session.version);
        let memberships = &session.im.as_ref()?.rooms;
        subscribe.filters.iter().find_map(|(filter, _)| {
            let Ok(Filter::Room { room }) = parse_filter(filter, version) else { return None };
            let entrance = memberships.entrance.as_deref();
            let is_judged = entrance.is_some_and(|of| of.judgement(room).is_some());
            let asks = !memberships.has(room) && !is_judged;
            (asks && env.im.rooms.home_to_ask(tenant, room).is_some()).then(|| room.into())
        })
    }

    /// Works on what waits, up to a SUBSCRIBE for which another home has to be asked.
    fn pass_entrance(&mut self, location: Location) {
        while let Some(frame) = self.entrance(location).and_then(Entrance::pop) {
            match self.pass_one(location, &frame) {
                Ok(true) => {}
                Ok(false) => {
                    if let Some(entrance) = self.entrance(location) {
                        entrance.bytes += frame.len();
                        entrance.frames.push_front(frame);
                    }
                    return;
                }
                Err(fault) => return self.fault(location, &frame, fault),
            }
        }
        let entrance = self.memberships(location).and_then(|of| of.entrance.take());
        if entrance.is_some_and(|entrance| entrance.is_full) {
            self.resume(location);
        }
    }

    /// Works on one packet; false when a home is being asked about it.
    fn pass_one(&mut self, location: Location, frame: &[u8]) -> Result<bool, Fault> {
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return Ok(true);
        };
        match decode(session.version, Receiver::Server, frame)? {
            Packet::Subscribe(subscribe) => {
                while let Some(room) = self.unjudged(location, &subscribe) {
                    if self.ask_home(location, room) {
                        return Ok(false);
                    }
                }
                self.subscribe(location, &subscribe)?;
                if let Some(entrance) = self.entrance(location) {
                    entrance.judged.clear();
                }
            }
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(location, &unsubscribe)?,
            _ => {}
        }
        Ok(true)
    }

    /// Asks a room's home whether the client may come in; false when that is known already.
    fn ask_home(&mut self, location: Location, room: Box<str>) -> bool {
        let env = self.env.clone();
        let Some(session) = self.connection(location).and_then(Connection::session) else {
            return false;
        };
        let (tenant, device) = (session.key.tenant.clone(), session.key.client.clone());
        let user = User { tenant: tenant.clone(), id: session.key.user.clone() };
        let asker = Asker::Connection(ReplyTo { location, token: ENTRANCE_TOKEN });
        let home = env.im.rooms.home_to_ask(&tenant, &room);
        let asked =
            env.im.sites().zip(home).is_some_and(|(sites, home)| {
                sites.ask_to_enter(home, (user, device), &room, asker)
            });
        let Some(entrance) = self.entrance(location) else { return false };
        if asked {
            entrance.asked = Some(room);
        } else {
            // So many ask that this one comes in unasked, and the home hears of it as of all who are
            // in; or the home was lost or the room learnt of just now, which `may_enter` sees.
            entrance.judged.push((room, Ok(())));
        }
        asked
    }
}
