//! A device of a user, as any correct client is one: it publishes within its window, answers what
//! it gets, and after a lost connection sends again what is unfinished, under the same identifiers
//! where its session was kept ([MQTT-4.4.0-1]), anew and with the same client message id where it
//! was not. It decides nothing by itself, and has no socket.

use std::collections::{BTreeSet, VecDeque};

use serde_json::json;

use super::cast::{Cast, Conv, DeviceRole};
use super::event::{Deed, Event, Link, What};
use super::judge::Judge;
use super::sight::{Looker, Sight, missed, name_of};
use crate::connect::Connect;
use crate::crash::message::{Attempt, Message};
use crate::wire::{self, PINGREQ, Packet, packet_type};
use crate::{Properties, Property, Publish, Version};

/// Publications that a device has in flight at most.
pub const WINDOW: usize = 5;

/// How far a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not connected.
    Away,
    /// CONNECT sent.
    Greeting,
    /// CONNACK received.
    In,
}

#[derive(Clone, Copy, Debug)]
struct Flying {
    id: u16,
    deed: usize,
    attempt: u16,
    qos: u8,
    filler: usize,
    /// PUBREC came.
    released: bool,
}

/// An answer that is owed to the broker.
#[derive(Clone, Copy, Debug)]
enum Due {
    Received { id: u16, qos: u8, entry: Option<(usize, u64)> },
    Completed { id: u16 },
}

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its number in the cast.
    pub number: usize,
    /// What it is like.
    pub role: DeviceRole,
    /// How far it is.
    pub phase: Phase,
    /// Its connection.
    pub link: Option<Link>,
    /// A PINGREQ is not answered yet.
    pub pinging: bool,
    /// The session of the last CONNECT ended with its connection: the next begins another.
    transient: bool,
    flying: Vec<Flying>,
    due: VecDeque<Due>,
    /// Identifiers of QoS 2 messages that have not been released.
    held: BTreeSet<u16>,
    sight: Sight,
}

impl Device {
    /// A device that was never connected.
    pub fn new(number: usize, role: DeviceRole) -> Device {
        Device {
            number,
            role,
            phase: Phase::Away,
            link: None,
            pinging: false,
            transient: false,
            flying: Vec::new(),
            due: VecDeque::new(),
            held: BTreeSet::new(),
            sight: Sight::default(),
        }
    }

    /// Begins a connection: the CONNECT. `anew`: with a clean session.
    pub fn connect(&mut self, link: Link, anew: bool, judge: &mut Judge) -> Vec<u8> {
        self.lost();
        self.link = Some(link);
        self.phase = Phase::Greeting;
        let DeviceRole { name, user, version, stored, receive_maximum, .. } = &self.role;
        let mut connect = Connect::new(*version, name).login(&judge.cast.users[*user], "any");
        connect.clean = anew || !*stored;
        if *version == Version::V5 {
            connect = connect.with(Property::ReceiveMaximum(*receive_maximum));
            if *stored {
                connect = connect.session_expiry_secs(100_000);
            }
        }
        // Clean Session of 3.1.1 is both: a new session, and none that is kept.
        let is_transient = connect.clean && (*version == Version::V311 || !*stored);
        let was_transient = std::mem::replace(&mut self.transient, is_transient);
        let anew = connect.clean || was_transient;
        judge.note(Event::Connect { device: self.number, link, anew });
        connect.encode()
    }

    /// The connection is of no use any more.
    pub fn lost(&mut self) {
        self.phase = Phase::Away;
        self.link = None;
        self.pinging = false;
        self.due.clear();
        self.sight = Sight::default();
    }

    /// A packet came over the present connection, or is about to: the judge hears of it.
    pub fn see(&mut self, packet: &Packet, judge: &mut Judge) {
        let Some(link) = self.link else { return };
        let (device, role) = (self.number, &self.role);
        let who = Looker { device, user: role.user, version: role.version, link };
        let flying = &self.flying;
        let deed = |id| flying.iter().find(|f| f.id == id).map(|f| f.deed);
        self.sight.see(who, packet, deed, judge);
    }

    /// A packet was written to a connection that it has left.
    pub fn misses(&self, packet: &Packet, judge: &mut Judge) {
        missed(self.number, packet, judge);
    }

    /// A packet has arrived; gives what is to be sent at once.
    pub fn take(&mut self, packet: Packet, judge: &mut Judge) -> Vec<Vec<u8>> {
        let version = self.role.version;
        match packet {
            Packet::ConnAck(connack) if connack.code == 0 => {
                return self.connected(connack.session_present, judge);
            }
            Packet::Publish(publish) => self.received(&publish, &judge.cast),
            Packet::PubAck(ack) => self.flying.retain(|flying| flying.id != ack.id),
            Packet::PubRec(ack) if ack.code >= 0x80 => {
                self.flying.retain(|flying| flying.id != ack.id);
            }
            Packet::PubRec(ack) => {
                for flying in self.flying.iter_mut().filter(|flying| flying.id == ack.id) {
                    flying.released = true;
                }
                return vec![wire::ack(version, packet_type::PUBREL, ack.id, 0)];
            }
            Packet::PubComp(ack) => self.flying.retain(|flying| flying.id != ack.id),
            Packet::PubRel(ack) => {
                self.held.remove(&ack.id);
                self.due.push_back(Due::Completed { id: ack.id });
            }
            Packet::PingResp => self.pinging = false,
            _ => {}
        }
        Vec::new()
    }

    fn connected(&mut self, present: bool, judge: &mut Judge) -> Vec<Vec<u8>> {
        self.phase = Phase::In;
        let mut packets = Vec::new();
        if self.role.exactly_once {
            let filter = [("im/me/#", 2)];
            packets.push(wire::subscribe(self.role.version, 40_000, &filter, &Properties(vec![])));
        }
        if !present {
            self.held.clear();
            // The broker has forgotten the identifiers: what has an id of its own is sent anew.
            self.flying.retain(|flying| judge.deed(flying.deed).cid);
        }
        for at in 0..self.flying.len() {
            let flying = &mut self.flying[at];
            flying.released &= present;
            if flying.released {
                let Flying { id, .. } = *flying;
                packets.push(wire::ack(self.role.version, packet_type::PUBREL, id, 0));
            } else {
                flying.attempt += 1;
                packets.push(self.publication(self.flying[at], present, judge));
            }
        }
        packets
    }

    fn received(&mut self, publish: &Publish, cast: &Cast) {
        let Publish { id, qos, .. } = *publish;
        if qos == 0 {
            return;
        }
        if qos == 2 {
            self.held.insert(id);
        }
        let entry = publish.topic.strip_prefix("im/me/in/").and_then(|rest| {
            let mut levels = rest.splitn(3, '/');
            let name = format!("{}/{}", levels.next()?, levels.next()?);
            let header = levels.next().unwrap_or_default();
            let entry = super::entry::Entry::read(header, publish)?;
            Some((cast.conv_of(self.role.user, &name)?, entry.seq))
        });
        self.due.push_back(Due::Received { id, qos, entry });
    }

    /// Answers that are owed.
    pub fn owed(&self) -> usize {
        self.due.len()
    }

    /// The next answer that is owed.
    pub fn answer(&mut self, judge: &mut Judge) -> Option<Vec<u8>> {
        let version = self.role.version;
        match self.due.pop_front()? {
            Due::Received { id, qos, entry } => {
                if let Some((conv, seq)) = entry {
                    judge.note(Event::Acknowledged { device: self.number, conv, seq });
                }
                let kind = if qos == 2 { packet_type::PUBREC } else { packet_type::PUBACK };
                Some(wire::ack(version, kind, id, 0))
            }
            Due::Completed { id } => Some(wire::ack(version, packet_type::PUBCOMP, id, 0)),
        }
    }

    /// Whether it can do something more.
    pub fn has_room(&self) -> bool {
        self.phase == Phase::In && self.flying.len() < WINDOW
    }

    /// Connected, and everything is answered, both ways.
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::In && self.flying.is_empty() && self.due.is_empty() && !self.pinging
    }

    /// What it waits for, for a report.
    pub fn waits_for(&self) -> String {
        let deeds: Vec<usize> = self.flying.iter().map(|flying| flying.deed).collect();
        format!(
            "d{} {:?}, deeds {deeds:?}, {} answers, pinging {}",
            self.number,
            self.phase,
            self.due.len(),
            self.pinging
        )
    }

    /// Publishes; there is room.
    pub fn ask(&mut self, deed: Deed, filler: usize, judge: &mut Judge) -> Vec<u8> {
        let number = judge.register(deed);
        let free = |id: &u16| self.flying.iter().all(|flying| flying.id != *id);
        let id = (1..=u16::MAX).find(free).expect("a window is smaller than all identifiers");
        let flying =
            Flying { id, deed: number, attempt: 1, qos: deed.qos, filler, released: false };
        self.flying.push(flying);
        self.publication(flying, false, judge)
    }

    /// PINGREQ.
    pub fn ping(&mut self, judge: &mut Judge) -> Vec<u8> {
        self.pinging = true;
        judge.note(Event::Ping { device: self.number });
        PINGREQ.to_vec()
    }

    fn publication(&self, flying: Flying, dup: bool, judge: &mut Judge) -> Vec<u8> {
        let Flying { id, deed: number, attempt, qos, filler, .. } = flying;
        let deed = judge.deed(number);
        let cast = judge.cast.clone();
        let wire = cast.wire(deed.conv, self.role.user).unwrap_or_default();
        let v5 = self.role.version == Version::V5;
        let cid = name_of('k', number);
        let message =
            Message { publisher: self.number as u16, topic: deed.conv as u16, seq: number as u32 };
        let body = |filler| Attempt { message, number: attempt }.payload(filler);
        let by_property = deed.cid && (!deed.what.is_send() || (v5 && number % 2 == 0));
        let tail = if deed.cid && !by_property { format!("/{cid}") } else { String::new() };
        let (topic, payload) = match deed.what {
            What::Send | What::Fleeting(_) => (format!("im/{wire}/msg{tail}"), body(filler)),
            What::Burning(secs) => (format!("im/{wire}/burn/{secs}{tail}"), body(filler)),
            What::Recall(seq) => (format!("im/me/op/recall/{wire}/{seq}"), Vec::new()),
            What::Edit(seq) => (format!("im/me/op/edit/{wire}/{seq}"), body(filler)),
            What::React(seq) => (format!("im/me/op/react/{wire}/{seq}"), body(0)),
            What::Read(seq) => (format!("im/me/cur/{wire}/read/{seq}"), Vec::new()),
            _ => call(&cast, deed, self.role.user, number),
        };
        let mut publish = Publish::new(&topic, payload).qos(qos).id(id);
        if by_property {
            publish = publish.with(Property::UserProperty("im-cid".to_owned(), cid));
        }
        if let What::Fleeting(secs) = deed.what {
            publish = publish.with(Property::MessageExpiryInterval(secs));
        }
        if dup {
            publish = publish.dup();
        }
        judge.note(Event::Asked { deed: number, meant: deed, attempt });
        publish.encode(self.role.version)
    }
}

/// The call to a service: its topic and body.
fn call(cast: &Cast, deed: Deed, user: usize, number: usize) -> (String, Vec<u8>) {
    let req = name_of('q', number);
    let names = |users: &[usize]| -> Vec<&str> {
        users.iter().map(|user| cast.users[*user].as_str()).collect()
    };
    let (kind, id) = match &cast.convs[deed.conv] {
        Conv::Group { id, .. } => ("group", id.as_str()),
        Conv::Channel { id, .. } => ("channel", id.as_str()),
        _ => ("", ""),
    };
    let place = || json!({ kind: id });
    let peer = cast.peer(deed.conv, user).map(|peer| cast.users[peer].as_str());
    let wire = cast.wire(deed.conv, user);
    let (name, body) = match deed.what {
        What::Create => creation(cast, deed.conv, names),
        What::Join if kind == "channel" => ("channel/follow", place()),
        What::Leave if kind == "channel" => ("channel/unfollow", place()),
        What::Join => ("group/join", place()),
        What::Leave => ("group/leave", place()),
        What::Clear => ("conv/clear", json!({ "conv": wire })),
        What::Hide(on) => ("conv/hide", json!({ "conv": wire, "on": on })),
        What::Kick(whom) => ("group/kick", json!({ "group": id, "users": names(&[whom]) })),
        What::Invite(whom) => ("group/invite", json!({ "group": id, "users": names(&[whom]) })),
        What::Block => ("roster/block", json!({ "user": peer })),
        What::Unblock => ("roster/unblock", json!({ "user": peer })),
        What::Pull(from) => ("sync/pull", json!({ "conv": wire, "from": from, "limit": 200 })),
        _ => ("sync/heads", json!({ "limit": 200 })),
    };
    (format!("im/svc/{name}/{req}"), body.to_string().into_bytes())
}

/// The call that makes a group or channel.
fn creation<'a>(
    cast: &'a Cast,
    conv: usize,
    names: impl Fn(&[usize]) -> Vec<&'a str>,
) -> (&'static str, serde_json::Value) {
    match &cast.convs[conv] {
        Conv::Group { id, members, shows_all, .. } => {
            let history = if *shows_all { "all" } else { "joined" };
            let body = json!({
                "group": id, "name": id, "members": names(members), "join": "open",
                "history": history,
            });
            ("group/create", body)
        }
        Conv::Channel { id, publishers, .. } => {
            let body = json!({ "channel": id, "name": id, "publishers": names(publishers) });
            ("channel/create", body)
        }
        Conv::Pair(..) | Conv::Notes(_) => unreachable!("groups and channels are made"),
    }
}
