//! A client of the simulation: its session as it believes it to be, its packets, and what it
//! makes of the broker's. It decides nothing by itself: the script tells it when to do what.

use std::collections::{HashMap, VecDeque};

use super::ledger::{Ledger, Order};
use super::publisher::Publisher;
use super::receiver::{Place, Receiver, Window};
use crate::connect::{Connect, Will};
use crate::wire::properties::{Properties, Property};
use crate::wire::{Packet, Version, decode, frame_length, subscribe, unsubscribe};

/// How far a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not connected.
    Away,
    /// CONNECT sent.
    Greeting,
    /// CONNACK received.
    In,
}

/// What a client is like, for a whole run.
#[derive(Clone, Debug)]
pub struct Role {
    /// Client identifier.
    pub name: String,
    /// User name.
    pub user: &'static str,
    /// Protocol version.
    pub version: Version,
    /// The session outlives its connections.
    pub stored: bool,
    /// Messages it takes at once.
    pub receive_maximum: u16,
    /// What it subscribes to, with which QoS.
    pub filters: Vec<(&'static str, u8)>,
    /// Whether it publishes.
    pub publishes: bool,
    /// Whether its CONNECT names a will.
    pub will: bool,
    /// How many of a hundred chances to answer it takes.
    pub diligence: usize,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// What it is like.
    pub role: Role,
    /// How far it is.
    pub phase: Phase,
    /// Its connection among the links of the run.
    pub link: Option<usize>,
    /// Publishing half.
    pub publisher: Publisher,
    /// Receiving half.
    pub receiver: Receiver,
    /// Packets to send.
    pub todo: VecDeque<Vec<u8>>,
    connections: u64,
    inbox: Vec<u8>,
    /// The session must be there when the client comes back.
    kept: bool,
    /// The next CONNECT begins anew, until one was answered.
    pub clean: bool,
    /// The present one does.
    asked_clean: bool,
    requests: HashMap<u16, Vec<Request>>,
    next_request: u16,
    /// Take-overs and returns to a session that was there.
    pub resumed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    filter: &'static str,
    sent: Order,
}

impl Client {
    /// A client that was never connected.
    pub fn new(role: Role) -> Client {
        let shared = role.filters.iter().any(|(filter, _)| filter.starts_with("$share/"));
        Client {
            receiver: Receiver::new(role.receive_maximum, shared),
            role,
            phase: Phase::Away,
            link: None,
            publisher: Publisher::default(),
            todo: VecDeque::new(),
            connections: 0,
            inbox: Vec::new(),
            kept: false,
            clean: false,
            asked_clean: false,
            requests: HashMap::new(),
            next_request: 1000,
            resumed: 0,
        }
    }

    /// Begins a connection over a new link: the CONNECT. One that was there is left alone.
    pub fn connect(&mut self, link: usize, will: Option<Will>) -> Vec<u8> {
        self.lost();
        self.link = Some(link);
        self.connections += 1;
        self.phase = Phase::Greeting;
        let role = &self.role;
        // Once it has asked to begin anew it asks so until it is told that it has.
        self.asked_clean = self.clean;
        let clean = self.asked_clean || (role.version == Version::V311 && !role.stored);
        let mut connect = Connect::new(role.version, &role.name).login(role.user, "any");
        connect.clean = clean;
        connect.will = will;
        if role.version == Version::V5 {
            connect = connect.with(Property::ReceiveMaximum(role.receive_maximum));
            if role.stored {
                connect = connect.session_expiry_secs(100_000);
            }
        }
        if self.asked_clean {
            self.publisher.forget();
            self.kept = false;
        }
        connect.encode()
    }

    /// It has asked for a session of its own and was not answered.
    pub fn starts_anew(&self) -> bool {
        self.asked_clean && self.phase == Phase::Greeting
    }

    /// The connection is of no use any more.
    pub fn lost(&mut self) {
        if self.phase == Phase::In && !self.is_stored() {
            self.receiver.ended();
            self.publisher.forget();
        }
        self.phase = Phase::Away;
        self.link = None;
        self.inbox.clear();
        self.todo.clear();
        self.requests.clear();
        self.publisher.lost();
    }

    /// The present connection, for the receiver.
    fn place(&self) -> Place {
        Place { connection: self.connections, stored: self.is_stored() }
    }

    /// Whether the session outlives this connection: in 3.1.1 one that begins anew does not.
    fn is_stored(&self) -> bool {
        self.role.stored && !(self.asked_clean && self.role.version == Version::V311)
    }

    /// Bytes came from the broker.
    pub fn received(&mut self, bytes: &[u8], ledger: &mut Ledger) -> Result<(), String> {
        self.inbox.extend_from_slice(bytes);
        while let Some(length) = frame_length(&self.inbox) {
            let frame: Vec<u8> = self.inbox.drain(..length).collect();
            let packet = decode(self.role.version, &frame);
            self.packet(packet, ledger)?;
        }
        Ok(())
    }

    /// What these bytes complete, in words.
    pub fn preview(&self, bytes: &[u8]) -> String {
        let all = [&self.inbox[..], bytes].concat();
        let (mut rest, mut words) = (&all[..], Vec::new());
        while let Some(length) = frame_length(rest) {
            words.push(describe(&rest[..length]));
            rest = &rest[length..];
        }
        words.join(", ")
    }

    fn packet(&mut self, packet: Packet, ledger: &mut Ledger) -> Result<(), String> {
        let version = self.role.version;
        if self.phase == Phase::Greeting && !matches!(packet, Packet::ConnAck(_)) {
            return Err(format!("{packet:?} before CONNACK [MQTT-3.2.0-1]"));
        }
        match packet {
            Packet::ConnAck(connack) => {
                if connack.code == 0 {
                    self.connected(connack.session_present, ledger)?;
                }
            }
            Packet::Publish(publish) => {
                let place = self.place();
                let answer = self.receiver.publish(version, place, &publish, ledger)?;
                self.todo.extend(answer);
            }
            Packet::PubAck(ack) => {
                self.publisher.puback(&ack, ledger)?;
            }
            Packet::PubRec(ack) => {
                let pubrel = self.publisher.pubrec(version, &ack, ledger)?;
                self.todo.extend(pubrel);
            }
            Packet::PubRel(ack) => {
                let pubcomp = self.receiver.pubrel(version, ack.id);
                self.todo.push_back(pubcomp);
            }
            Packet::PubComp(ack) => self.publisher.pubcomp(&ack)?,
            Packet::SubAck(suback) => self.subscribed(suback.id, &suback.codes, ledger)?,
            Packet::UnsubAck(unsuback) => self.unsubscribed(unsuback.id, ledger)?,
            Packet::PingResp | Packet::Disconnect(_) => {}
            Packet::Auth(_) => return Err("AUTH without a method".to_owned()),
        }
        Ok(())
    }

    fn connected(&mut self, present: bool, ledger: &mut Ledger) -> Result<(), String> {
        let fresh = self.asked_clean || !self.role.stored;
        if present && fresh {
            return Err("a session is there that must not be [MQTT-3.2.2-2]".to_owned());
        }
        if !present && self.kept {
            return Err("a session that was acknowledged is gone [MQTT-3.2.2-3]".to_owned());
        }
        self.phase = Phase::In;
        self.resumed += u64::from(present);
        self.kept = self.is_stored();
        self.clean = false;
        self.receiver.connected(present);
        self.todo.extend(self.publisher.connected(self.role.version, present, ledger));
        Ok(())
    }

    /// SUBSCRIBE.
    pub fn subscribe(&mut self, filter: &'static str, qos: u8, ledger: &mut Ledger) -> Vec<u8> {
        let sent = ledger.now();
        let window = Window {
            filter,
            qos,
            may_from: sent,
            sure_from: None,
            sure_until: None,
            may_until: None,
        };
        self.receiver.windows().push(window);
        let id = self.request(Request { filter, sent });
        subscribe(self.role.version, id, &[(filter, qos)], &Properties::default())
    }

    /// UNSUBSCRIBE.
    pub fn unsubscribe(&mut self, filter: &'static str, ledger: &mut Ledger) -> Vec<u8> {
        let sent = ledger.now();
        for window in self.receiver.windows().iter_mut().filter(|w| w.filter == filter) {
            window.sure_until.get_or_insert(sent);
        }
        let id = self.request(Request { filter, sent });
        unsubscribe(self.role.version, id, &[filter])
    }

    fn request(&mut self, request: Request) -> u16 {
        self.next_request += 1;
        self.requests.entry(self.next_request).or_default().push(request);
        self.next_request
    }

    fn subscribed(&mut self, id: u16, codes: &[u8], ledger: &mut Ledger) -> Result<(), String> {
        let requests = self.requests.remove(&id).ok_or("SUBACK for nothing")?;
        let now = ledger.now();
        for (request, code) in requests.iter().zip(codes) {
            let windows = self.receiver.windows().iter_mut();
            for window in windows.filter(|w| w.may_from == request.sent) {
                if *code > 2 {
                    return Err(format!("{} was refused: {code:#x}", request.filter));
                }
                window.sure_from = Some(now);
            }
        }
        Ok(())
    }

    fn unsubscribed(&mut self, id: u16, ledger: &mut Ledger) -> Result<(), String> {
        let requests = self.requests.remove(&id).ok_or("UNSUBACK for nothing")?;
        let now = ledger.now();
        for request in requests {
            for window in self.receiver.windows().iter_mut() {
                if window.filter == request.filter && window.may_from < request.sent {
                    window.may_until.get_or_insert(now);
                }
            }
        }
        Ok(())
    }

    /// Whether everything the client has asked for was answered.
    pub fn is_content(&self) -> bool {
        self.phase == Phase::In
            && self.todo.is_empty()
            && self.requests.is_empty()
            && self.publisher.unfinished() == 0
    }
}

/// A packet in words.
pub fn describe(packet: &[u8]) -> String {
    const NAMES: [&str; 16] = [
        "?",
        "CONNECT",
        "CONNACK",
        "PUBLISH",
        "PUBACK",
        "PUBREC",
        "PUBREL",
        "PUBCOMP",
        "SUBSCRIBE",
        "SUBACK",
        "UNSUBSCRIBE",
        "UNSUBACK",
        "PINGREQ",
        "PINGRESP",
        "DISCONNECT",
        "AUTH",
    ];
    let name = NAMES[usize::from(packet[0] >> 4)];
    let text: String = packet.iter().take(60).map(|byte| byte.escape_ascii().to_string()).collect();
    format!("{name} {text}")
}
