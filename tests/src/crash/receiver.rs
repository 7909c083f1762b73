//! A receiver with a stored session: acknowledges everything in order, at once or with others, and
//! keeps its subscriptions as they are wanted. It judges nothing: doubled messages are the audit's.

use std::collections::BTreeMap;

use super::cast::{EXPIRY_SECS, ReceiverRole, Temper};
use super::history::{Client, Event, Leaving, Link};
use super::message::Attempt;
use super::scene::Scene;
use crate::connect::Connect;
use crate::wire::properties::{Properties, Property};
use crate::wire::{self, Ack, Packet, Publish, Version, packet_type};

/// After so many answers the broker is asked whether it has heard them.
const PING_AFTER: usize = 16;
/// Subscription option: retained messages are not to be sent at subscribe.
const NO_RETAINED: u8 = 2 << 4;

/// A PUBACK or PUBREC that is kept back.
#[derive(Clone, Copy, Debug)]
struct Answer {
    id: u16,
    qos: u8,
    attempt: Attempt,
}

/// What the receiver knows of one of its subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Off,
    On,
    Unsure,
}

/// A receiver.
#[derive(Debug)]
pub struct Receiver {
    number: u16,
    role: ReceiverRole,
    link: Option<Link>,
    ready: bool,
    /// It is to be connected.
    online: bool,
    /// It is to start a new session.
    anew: bool,
    /// A CONNECT had no answer: it may have made a new session, which the next one finds.
    unanswered: bool,
    wanted: Vec<bool>,
    known: Vec<Known>,
    /// SUBSCRIBE and UNSUBSCRIBE packets unanswered: filter, and whether it was SUBSCRIBE.
    asked: BTreeMap<u16, (usize, bool)>,
    last_id: u16,
    /// Answers that are kept back, up to `hold`.
    answers: Vec<Answer>,
    hold: usize,
    unheard: usize,
    ping_after: usize,
    pinging: bool,
    /// The highest mark received.
    mark: u32,
}

impl Receiver {
    /// A receiver that has not connected yet.
    pub fn new(number: u16, role: ReceiverRole) -> Receiver {
        let filters = role.filters.len();
        Receiver {
            number,
            role,
            link: None,
            ready: false,
            online: true,
            anew: false,
            unanswered: false,
            wanted: vec![true; filters],
            known: vec![Known::Off; filters],
            asked: BTreeMap::new(),
            last_id: 0,
            answers: Vec::new(),
            hold: 0,
            unheard: 0,
            ping_after: PING_AFTER,
            pinging: false,
            mark: 0,
        }
    }

    fn client(&self) -> Client {
        Client::Receiver(self.number)
    }

    /// The highest mark received.
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Connected, subscribed as wanted.
    pub fn is_settled(&self) -> bool {
        let filters = self.wanted.iter().zip(&self.known);
        let as_wanted = filters.map(|(wanted, known)| match known {
            Known::On => *wanted,
            Known::Off => !wanted,
            Known::Unsure => false,
        });
        self.ready && as_wanted.into_iter().all(|settled| settled)
    }

    /// The broker has heard all its answers.
    pub fn is_heard(&self) -> bool {
        self.unheard == 0 && !self.pinging && self.answers.is_empty()
    }

    /// CONNECT is not answered yet.
    pub fn is_coming(&self) -> bool {
        self.link.is_some() && !self.ready
    }

    /// What it waits for, for a report.
    pub fn waits_for(&self) -> String {
        let Receiver { ready, known, unheard, mark, .. } = self;
        format!("{} connected={ready} {known:?} unheard={unheard} mark={mark}", self.client())
    }

    /// Connects if it is to be connected and is not.
    pub fn come(&mut self, scene: &mut Scene) {
        if !self.online || self.link.is_some() || !scene.links.is_up() {
            return;
        }
        let (client, version) = (self.client(), self.role.version);
        let link = scene.links.open(client, version);
        self.link = Some(link);
        let mut connect = Connect::persistent(version, &format!("crash-{client}"));
        connect.clean = self.anew;
        if version == Version::V5 {
            connect.properties = Properties::default();
            let expiring = self.role.temper == Temper::Expiring;
            let expiry = if expiring { EXPIRY_SECS } else { 3600 };
            connect = connect
                .session_expiry_secs(expiry)
                .with(Property::ReceiveMaximum(self.role.receive_maximum));
        }
        scene.record(Event::Connect { client, link, clean: self.anew });
        scene.send(link, connect.encode());
    }

    /// Leaves its connection, and comes again at once if it is to be connected.
    fn leave(&mut self, scene: &mut Scene, how: Leaving) {
        if let Some(link) = self.link.take() {
            scene.record(Event::Left { client: self.client(), link, how });
            let properties = match how {
                Leaving::End => Properties(vec![Property::SessionExpiryInterval(0)]),
                _ => Properties::default(),
            };
            match how {
                Leaving::Cut => scene.links.cut(link),
                Leaving::Disconnect | Leaving::End => {
                    let bytes = wire::disconnect(self.role.version, 0, &properties);
                    scene.send(link, bytes);
                }
                Leaving::TakeOver => {}
            }
        }
        self.forget_connection();
        self.come(scene);
    }

    fn forget_connection(&mut self) {
        self.link = None;
        self.ready = false;
        self.asked.clear();
        self.answers.clear();
        self.unheard = 0;
        self.pinging = false;
    }

    /// The connection has ended; true when it was the one in use.
    pub fn closed(&mut self, link: Link) -> bool {
        let mine = self.link == Some(link);
        if mine {
            self.unanswered |= !self.ready;
            self.forget_connection();
        }
        mine
    }

    /// Comes if it was away, goes if it was there.
    pub fn toggle(&mut self, scene: &mut Scene, how: Leaving) {
        self.online = !self.online;
        if self.online { self.come(scene) } else { self.leave(scene, how) }
    }

    /// Opens another connection.
    pub fn come_again(&mut self, scene: &mut Scene, how: Leaving) {
        self.online = true;
        self.leave(scene, how);
    }

    /// Starts a new session, by Clean Start or by ending the old one before.
    pub fn start_anew(&mut self, scene: &mut Scene, how: Leaving) {
        let can_end = self.ready && self.role.version == Version::V5;
        if how == Leaving::End && can_end {
            self.come_again(scene, Leaving::End);
        } else {
            self.anew = true;
            self.come_again(scene, Leaving::Disconnect);
        }
    }

    /// Wants a subscription no more, or again.
    pub fn toggle_filter(&mut self, scene: &mut Scene, filter: usize) {
        self.wanted[filter] = !self.wanted[filter];
        self.reconcile(scene);
    }

    /// Keeps back up to so many answers from now on, fewer than its window.
    pub fn hold(&mut self, scene: &mut Scene, answers: usize) {
        let window = match self.role.receive_maximum {
            0 => 20,
            maximum => usize::from(maximum),
        };
        self.hold = answers.min(window - 1);
        self.answer(scene);
    }

    /// For the end of a run: online, answering everything, asking whether it was heard.
    pub fn be_good(&mut self, scene: &mut Scene) {
        self.online = true;
        self.ping_after = 1;
        self.hold(scene, 0);
        self.come(scene);
    }

    /// Asks for what is wanted and not there, and the other way round.
    fn reconcile(&mut self, scene: &mut Scene) {
        let Some(link) = self.link.filter(|_| self.ready) else { return };
        for filter in 0..self.wanted.len() {
            let wanted = self.wanted[filter];
            let settled = if wanted { Known::On } else { Known::Off };
            let being_asked = self.asked.values().any(|(asked, _)| *asked == filter);
            if self.known[filter] == settled || being_asked {
                continue;
            }
            self.last_id = self.last_id % 60_000 + 1;
            self.asked.insert(self.last_id, (filter, wanted));
            self.known[filter] = Known::Unsure;
            let (receiver, number) = (self.number, filter as u16);
            let role = &self.role.filters[filter];
            let bytes = if wanted {
                scene.record(Event::Subscribe { receiver, filter: number });
                let options = match self.role.version {
                    Version::V5 => role.qos | NO_RETAINED,
                    Version::V311 => role.qos,
                };
                let filters = [(role.text.as_str(), options)];
                wire::subscribe(self.role.version, self.last_id, &filters, &Properties::default())
            } else {
                scene.record(Event::Unsubscribe { receiver, filter: number });
                wire::unsubscribe(self.role.version, self.last_id, &[&role.text])
            };
            scene.send(link, bytes);
        }
    }

    /// A packet came over its connection.
    pub fn packet(&mut self, scene: &mut Scene, link: Link, packet: Packet) {
        if self.link != Some(link) {
            return;
        }
        match packet {
            Packet::ConnAck(connack) if connack.code == 0 => {
                self.accepted(scene, link, connack.session_present);
            }
            Packet::Publish(publish) => self.delivered(scene, link, &publish),
            Packet::PubRel(Ack { id, .. }) => {
                scene.record(Event::Released { receiver: self.number, link, id });
                let version = self.role.version;
                scene.send(link, wire::ack(version, packet_type::PUBCOMP, id, 0));
            }
            Packet::SubAck(suback) => self.settled(scene, suback.id, &suback.codes),
            Packet::UnsubAck(unsuback) => self.settled(scene, unsuback.id, &unsuback.codes),
            Packet::PingResp => {
                scene.record(Event::Pong { receiver: self.number, link });
                self.pinging = false;
                self.ping(scene);
            }
            other => scene.fault(self.client(), format!("{other:?} on #{link}")),
        }
    }

    fn accepted(&mut self, scene: &mut Scene, link: Link, present: bool) {
        scene.record(Event::Connected { client: self.client(), link, present });
        scene.accepted += 1;
        if std::mem::take(&mut self.anew) && self.role.version == Version::V311 {
            // The session that Clean Session 1 made ends with this connection.
            return self.leave(scene, Leaving::Disconnect);
        }
        self.ready = true;
        let ends = matches!(self.role.temper, Temper::Forgetful | Temper::Expiring);
        if !present || (std::mem::take(&mut self.unanswered) && ends) {
            self.known.fill(Known::Off);
        }
        self.unanswered = false;
        self.reconcile(scene);
    }

    fn settled(&mut self, scene: &mut Scene, id: u16, codes: &[u8]) {
        let Some((filter, on)) = self.asked.remove(&id) else {
            return scene.fault(self.client(), format!("answer to unknown request {id}"));
        };
        let (receiver, number) = (self.number, filter as u16);
        if on && codes != [self.role.filters[filter].qos] {
            scene.fault(self.client(), format!("SUBACK of f{filter}: {codes:02x?}"));
        }
        if on {
            self.known[filter] = Known::On;
            scene.record(Event::Subscribed { receiver, filter: number });
        } else {
            self.known[filter] = Known::Off;
            scene.record(Event::Unsubscribed { receiver, filter: number });
        }
        self.reconcile(scene);
    }

    fn delivered(&mut self, scene: &mut Scene, link: Link, publish: &Publish) {
        let Publish { id, qos, dup, retain, .. } = *publish;
        if publish.payload.is_empty() {
            // The removal of a retained message: it cannot say which, so only answer it.
            let kind = if qos == 2 { packet_type::PUBREC } else { packet_type::PUBACK };
            return scene.send(link, wire::ack(self.role.version, kind, id, 0));
        }
        let attempt = match Attempt::of_payload(&publish.payload) {
            Ok(attempt) => attempt,
            Err(what) => {
                return scene.fault(self.client(), format!("on {}: {what}", publish.topic));
            }
        };
        let receiver = self.number;
        scene.record(Event::Delivered { receiver, link, id, qos, dup, retain, attempt });
        if attempt.message.publisher == 0 {
            self.mark = self.mark.max(attempt.message.seq);
        }
        self.answers.push(Answer { id, qos, attempt });
        self.answer(scene);
    }

    fn answer(&mut self, scene: &mut Scene) {
        let Some(link) = self.link else { return };
        if self.answers.len() <= self.hold {
            return;
        }
        for Answer { id, qos, attempt } in std::mem::take(&mut self.answers) {
            let kind = if qos == 2 { packet_type::PUBREC } else { packet_type::PUBACK };
            scene.record(Event::Answered { receiver: self.number, link, id, attempt });
            scene.send(link, wire::ack(self.role.version, kind, id, 0));
            self.unheard += 1;
        }
        self.ping(scene);
    }

    fn ping(&mut self, scene: &mut Scene) {
        if let Some(link) = self.link
            && !self.pinging
            && self.unheard >= self.ping_after
        {
            self.pinging = true;
            self.unheard = 0;
            scene.record(Event::Ping { receiver: self.number, link });
            scene.send(link, wire::PINGREQ.to_vec());
        }
    }
}
