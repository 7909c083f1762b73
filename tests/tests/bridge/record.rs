//! What a link and its remote broker have said to each other, noted packet by packet by the network
//! between them.
//!
//! It says who has acknowledged what, and for which messages the remote broker itself left the rules
//! of QoS 2, so that no receiver could have told a repetition from a new message, or a new one from a
//! repetition. Tests hold the link to everything else. Messages are known by their topic and payload:
//! a test publishes each once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hoopoe_tests::wire::packet_type;

use crate::proxy::Way;

/// A message by its topic and payload.
pub type Message = (String, String);

/// What has been said so far.
#[derive(Default)]
pub struct Record {
    /// The last connection. What comes over one before it comes too late to matter.
    connection: usize,
    /// Kills of the remote broker before that connection.
    kills: usize,
    is_v5: bool,
    /// QoS 2 from the remote broker, not released yet, by identifier.
    open: HashMap<u16, Message>,
    /// QoS 2 from the remote broker, released.
    released: BTreeSet<Message>,
    /// QoS 1 from the remote broker.
    once: HashMap<u16, Message>,
    /// QoS 1 and 2 from the link.
    offered: HashMap<u16, Message>,
    /// Kills before an identifier of QoS 2 from the link was used first.
    first_used: HashMap<u16, usize>,
    /// Kills before the last PUBCOMP for it.
    completed: HashMap<u16, usize>,
    /// How often the remote broker has sent a message of QoS 2 as a new one although it had sent it
    /// already: again after its own PUBREL, against [MQTT-4.3.3-1], or under another identifier.
    pub again: BTreeMap<Message, usize>,
    /// What the remote broker sent under the identifier of another message that it had not released.
    /// Whoever holds that for received must take this for its repetition ([MQTT-4.3.3-10]).
    pub misnamed: BTreeSet<Message>,
    /// What the link has acknowledged to the remote broker (PUBACK, PUBREC).
    pub taken: BTreeSet<Message>,
    /// What the remote broker has acknowledged to the link, and after how many kills: one that was
    /// killed again may have forgotten it.
    pub accepted: BTreeMap<Message, usize>,
}

impl Record {
    /// Notes a packet of the connection of that number, made after so many kills.
    pub fn note(&mut self, connection: usize, kills: usize, way: Way, frame: &[u8]) {
        let kind = frame[0] >> 4;
        let body = &frame[frame.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 2..];
        if kind == packet_type::CONNECT && connection > self.connection {
            // The level, behind the name and its length; 0x80 is the bit of bridges.
            self.is_v5 = body[6] & 0x7F == 5;
            (self.connection, self.kills) = (connection, kills);
        }
        if connection != self.connection {
            return;
        }
        let id = || u16::from_be_bytes([body[0], body[1]]);
        match (way, kind) {
            (Way::In, packet_type::CONNACK) if body[0] & 1 == 0 => {
                // By its own word it knows no exchange any more.
                self.released.extend(self.open.drain().map(|(_, message)| message));
            }
            (_, packet_type::PUBLISH) => self.published(way, frame[0] >> 1 & 3, body),
            (Way::In, packet_type::PUBREL) => self.released.extend(self.open.remove(&id())),
            (Way::Out, packet_type::PUBREC) => {
                let message = self.open.get(&id()).cloned();
                self.taken.extend(message.filter(|message| !self.misnamed.contains(message)));
            }
            (Way::Out, packet_type::PUBACK) => self.taken.extend(self.once.remove(&id())),
            (Way::In, packet_type::PUBACK) => {
                let message = self.offered.remove(&id());
                self.accepted.extend(message.map(|message| (message, self.kills)));
            }
            (Way::In, packet_type::PUBREC) => self.received(id()),
            (Way::In, packet_type::PUBCOMP) => drop(self.completed.insert(id(), self.kills)),
            _ => {}
        }
    }

    fn published(&mut self, way: Way, qos: u8, body: &[u8]) {
        if qos == 0 {
            return;
        }
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8_lossy(&body[2..topic_end]).into_owned();
        let id = u16::from_be_bytes([body[topic_end], body[topic_end + 1]]);
        let mut rest = &body[topic_end + 2..];
        if self.is_v5 {
            let more = rest.iter().take_while(|byte| **byte & 0x80 != 0).count();
            let length =
                (0..=more).map(|at| usize::from(rest[at] & 0x7F) << (7 * at)).sum::<usize>();
            rest = &rest[more + 1 + length..];
        }
        let message = (topic, String::from_utf8_lossy(rest).into_owned());
        match (way, qos) {
            (Way::Out, _) => {
                if qos == 2 {
                    self.first_used.entry(id).or_insert(self.kills);
                }
                self.offered.insert(id, message);
            }
            (Way::In, 1) => drop(self.once.insert(id, message)),
            (Way::In, _) => self.arrived(id, message),
        }
    }

    /// QoS 2 from the remote broker.
    fn arrived(&mut self, id: u16, message: Message) {
        if self.open.get(&id) == Some(&message) {
            return;
        }
        if self.released.remove(&message) || self.open.values().any(|open| *open == message) {
            *self.again.entry(message.clone()).or_default() += 1;
        }
        if let Some(other) = self.open.insert(id, message.clone()) {
            self.misnamed.insert(message);
            // Should it come under another identifier later, it comes as new.
            self.released.insert(other);
        }
    }

    /// PUBREC of the remote broker.
    fn received(&mut self, id: u16) {
        let Some(message) = self.offered.get(&id) else { return };
        // Killed, it may have gone back to where it held another message under this identifier, and
        // have taken this one for its repetition. Not under a new one, nor after its PUBCOMP.
        let now = Some(&self.kills);
        let is_sure = self.first_used.get(&id) == now || self.completed.get(&id) == now;
        let kills = if is_sure { self.kills } else { self.kills.saturating_sub(1) };
        self.accepted.insert(message.clone(), kills);
    }

    /// How often each number of a topic may have come too often.
    pub fn again(&self, topic: &str) -> BTreeMap<u64, usize> {
        let of_topic = self.again.iter().filter(|((at, _), _)| at == topic);
        of_topic.filter_map(|((_, text), times)| Some((text.parse().ok()?, *times))).collect()
    }

    /// The numbers of a topic among these messages.
    pub fn numbers<'a>(topic: &str, messages: impl Iterator<Item = &'a Message>) -> BTreeSet<u64> {
        messages.filter(|(at, _)| at == topic).filter_map(|(_, text)| text.parse().ok()).collect()
    }
}

/// A packet in a few words: its type, its identifier or topic, the number that a test has put into it.
pub fn described(frame: &[u8]) -> String {
    let start = frame.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 2;
    let body = &frame[start.min(frame.len())..];
    let number =
        |at: usize| body.get(at..at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
    let (kind, flags) = (frame[0] >> 4, frame[0] & 15);
    if kind != packet_type::PUBLISH {
        let name = match kind {
            packet_type::CONNECT => "CONNECT",
            packet_type::CONNACK => "CONNACK",
            packet_type::PUBACK => "PUBACK",
            packet_type::PUBREC => "PUBREC",
            packet_type::PUBREL => "PUBREL",
            packet_type::PUBCOMP => "PUBCOMP",
            _ => return format!("type {kind}"),
        };
        return format!("{name} {}", number(0));
    }
    let topic_end = (2 + usize::from(number(0))).min(body.len());
    let digits = body.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let text = String::from_utf8_lossy(&body[body.len() - digits..]);
    let id = if flags & 6 == 0 { 0 } else { number(topic_end) };
    let topic = String::from_utf8_lossy(&body[2.min(topic_end)..topic_end]);
    let dup = if flags & 8 == 0 { "" } else { " dup" };
    format!("PUBLISH {id} {topic} {text}{dup}")
}
