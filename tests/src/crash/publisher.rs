//! A publisher that does what a correct client does: it publishes within its window, and after a
//! lost connection sends again what is unfinished, in order, under the same packet identifiers
//! ([MQTT-4.4.0-1], [MQTT-4.6.0-1]).
//!
//! Identifiers are reused as soon as they are free, so that one that the broker did not forget in
//! time swallows a message.

use super::cast::PublisherRole;
use super::history::{Client, Event, Leaving, Link};
use super::message::{Attempt, Message};
use super::scene::Scene;
use crate::connect::Connect;
use crate::wire::{self, Packet, Publish, packet_type};

/// A publication that is not finished.
#[derive(Clone, Debug)]
struct Flying {
    id: u16,
    attempt: Attempt,
    qos: u8,
    cleared: bool,
    filler: usize,
    /// PUBREC came: PUBREL is what is sent again.
    released: bool,
}

/// A publisher.
#[derive(Debug)]
pub struct Publisher {
    number: u16,
    role: PublisherRole,
    link: Option<Link>,
    ready: bool,
    /// The last number used on each topic.
    last: Vec<u32>,
    flying: Vec<Flying>,
}

impl Publisher {
    /// A publisher that has not connected yet.
    pub fn new(number: u16, role: PublisherRole) -> Publisher {
        let last = vec![0; role.topics.len()];
        Publisher { number, role, link: None, ready: false, last, flying: Vec::new() }
    }

    fn client(&self) -> Client {
        Client::Publisher(self.number)
    }

    /// Whether it can publish one more now.
    pub fn has_room(&self) -> bool {
        self.ready && self.flying.len() < self.role.window
    }

    /// Whether all it published is finished.
    pub fn is_idle(&self) -> bool {
        self.flying.is_empty()
    }

    /// CONNECT is not answered yet.
    pub fn is_coming(&self) -> bool {
        self.link.is_some() && !self.ready
    }

    /// What it waits for, for a report.
    pub fn waits_for(&self) -> String {
        let flying = self.flying.iter().map(|flying| {
            let state = if flying.released { "PUBCOMP" } else { "PUBACK or PUBREC" };
            format!("{} id {} waits for {state}", flying.attempt, flying.id)
        });
        let flying: Vec<String> = flying.collect();
        format!("{} connected={} {}", self.client(), self.ready, flying.join(", "))
    }

    /// Connects, unless it has a connection.
    pub fn come(&mut self, scene: &mut Scene) {
        if self.link.is_none() && scene.links.is_up() {
            let client = self.client();
            let link = scene.links.open(client, self.role.version);
            self.link = Some(link);
            scene.record(Event::Connect { client, link, clean: false });
            let name = format!("crash-{client}");
            scene.send(link, Connect::persistent(self.role.version, &name).encode());
        }
    }

    /// Leaves its connection and opens another.
    pub fn come_again(&mut self, scene: &mut Scene, how: Leaving) {
        if let Some(link) = self.link.take() {
            scene.record(Event::Left { client: self.client(), link, how });
            if how == Leaving::Cut {
                scene.links.cut(link);
            }
        }
        self.ready = false;
        self.come(scene);
    }

    /// The connection has ended; true when it was the one in use.
    pub fn closed(&mut self, link: Link) -> bool {
        let mine = self.link == Some(link);
        if mine {
            self.link = None;
            self.ready = false;
        }
        mine
    }

    /// Publishes to one of its topics; there is room.
    pub fn publish(
        &mut self,
        scene: &mut Scene,
        topic: usize,
        qos: u8,
        filler: usize,
        cleared: bool,
    ) {
        self.last[topic] += 1;
        let message =
            Message { publisher: self.number, topic: topic as u16, seq: self.last[topic] };
        let ids = 1..=u16::MAX;
        let free = |id: &u16| self.flying.iter().all(|flying| flying.id != *id);
        let id = ids.into_iter().find(free).expect("a window is smaller than all identifiers");
        let attempt = Attempt { message, number: 1 };
        self.flying.push(Flying { id, attempt, qos, cleared, filler, released: false });
        self.send(scene, self.flying.len() - 1);
    }

    fn send(&self, scene: &mut Scene, at: usize) {
        let Some(link) = self.link else { return };
        let flying = &self.flying[at];
        if flying.released {
            let pubrel = wire::ack(self.role.version, packet_type::PUBREL, flying.id, 0);
            return scene.send(link, pubrel);
        }
        let topic = &self.role.topics[usize::from(flying.attempt.message.topic)];
        let payload = match flying.cleared {
            true => Vec::new(),
            false => flying.attempt.payload(flying.filler),
        };
        let mut publish = Publish::new(&topic.name, payload).qos(flying.qos).id(flying.id);
        publish.retain = topic.kept;
        publish.dup = flying.attempt.number > 1;
        let Flying { attempt, qos, cleared, .. } = *flying;
        scene.record(Event::Published { attempt, qos, cleared });
        scene.send(link, publish.encode(self.role.version));
    }

    /// A packet came over its connection.
    pub fn packet(&mut self, scene: &mut Scene, link: Link, packet: Packet) {
        if self.link != Some(link) {
            return;
        }
        match packet {
            Packet::ConnAck(connack) if connack.code == 0 => {
                let (client, present) = (self.client(), connack.session_present);
                scene.record(Event::Connected { client, link, present });
                scene.accepted += 1;
                self.ready = true;
                for at in 0..self.flying.len() {
                    if !self.flying[at].released {
                        self.flying[at].attempt.number += 1;
                    }
                    self.send(scene, at);
                }
            }
            Packet::PubAck(ack) => self.answered(scene, ack.id, 1, ack.code),
            Packet::PubRec(ack) => self.answered(scene, ack.id, 2, ack.code),
            Packet::PubComp(ack) => self.completed(scene, ack.id),
            other => scene.fault(self.client(), format!("{other:?} on #{link}")),
        }
    }

    fn answered(&mut self, scene: &mut Scene, id: u16, qos: u8, code: u8) {
        let found = self.flying.iter().position(|f| f.id == id && f.qos == qos);
        let Some(at) = found else {
            return scene.fault(self.client(), format!("QoS {qos} answer to unknown id {id}"));
        };
        let message = self.flying[at].attempt.message;
        if code >= 0x80 {
            scene.fault(self.client(), format!("{message} refused with {code:#04x}"));
        }
        if !self.flying[at].released {
            scene.record(Event::Acked { message });
            scene.acked += 1;
        }
        if qos == 1 || code >= 0x80 {
            self.flying.remove(at);
        } else {
            self.flying[at].released = true;
            self.send(scene, at);
        }
    }

    fn completed(&mut self, scene: &mut Scene, id: u16) {
        let found = self.flying.iter().position(|f| f.id == id && f.released);
        match found {
            Some(at) => {
                let message = self.flying.remove(at).attempt.message;
                scene.record(Event::Completed { message });
            }
            None => scene.fault(self.client(), format!("PUBCOMP for unknown id {id}")),
        }
    }
}
