//! One device: it connects, subscribes, calls and sends as its seed has it, and knows what it is
//! owed: an acknowledgement of each packet with an identifier, and an answer to each call that keeps
//! to the form, as long as its connection lasts.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::stage::Stage;
use super::words::{self, Pages};
use crate::fuzz::random::Random;
use crate::wire::{self, Packet, frame_length, packet_type};
use crate::{Connect, DEADLINE, Properties, Property, Publish, Version, code};

/// What may be owed before a device makes up more.
const MOST_OWED: usize = 15;
/// Pages of lists that a device remembers.
const PAGES: usize = 20;
/// Bytes of a payload that a failure shows.
const SHOWN: usize = 200;
/// The words an answer may have.
const WORDS: [&str; 8] =
    ["ok", "end", "bad_request", "not_found", "not_allowed", "exists", "limit", "conflict"];

/// A device of a user.
pub struct Device<'a> {
    address: SocketAddr,
    stage: &'a Stage,
    random: Random,
    user: &'static str,
    client_id: String,
    /// Publications so far: each call and each message has a name of its own.
    made: usize,
    /// Counts on over connections, as sessions remember what is unfinished.
    next_id: u16,
    pages: Pages,
    /// Calls that were answered.
    pub answers: u64,
    /// Messages that came.
    pub deliveries: u64,
}

/// One connection and what the device is owed on it.
struct Connection {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Acknowledgements, by packet identifier.
    acks: BTreeMap<u16, Owed>,
    /// Answers: the name of each call, and what it was.
    calls: BTreeMap<String, String>,
    /// The device takes small packets only: an answer may be too large for it.
    is_narrow: bool,
}

struct Owed {
    /// What is acknowledged, for the report of a failure.
    what: String,
    /// The call that a refusal answers.
    call: Option<String>,
}

/// How reading went.
#[derive(PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

impl<'a> Device<'a> {
    /// A device that has not connected.
    pub fn new(
        address: SocketAddr,
        stage: &'a Stage,
        random: Random,
        user: &'static str,
        class: &str,
    ) -> Device<'a> {
        Device {
            address,
            stage,
            random,
            user,
            client_id: format!("{class}-{user}"),
            made: 0,
            next_id: 0,
            pages: Pages::new(),
            answers: 0,
            deliveries: 0,
        }
    }

    /// Lives one connection after the other until the run is over.
    pub fn live(&mut self) {
        while !self.stage.is_over() {
            if let Err(fault) = self.connect_and_talk() {
                self.stage.fail(format!("{}: {fault}", self.client_id));
            }
        }
    }

    fn connect_and_talk(&mut self) -> Result<(), String> {
        let Ok(stream) = TcpStream::connect_timeout(&self.address, DEADLINE) else {
            std::thread::yield_now();
            self.stage.wait_until_up();
            return Ok(());
        };
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout can be set");
        stream.set_write_timeout(Some(DEADLINE)).expect("a write timeout can be set");
        let connect = self.compose_connect();
        let mut connection = Connection {
            stream,
            version: connect.version,
            input: Vec::new(),
            output: connect.encode(),
            acks: BTreeMap::new(),
            calls: BTreeMap::new(),
            is_narrow: connect.properties.maximum_packet_size().is_some(),
        };
        connection.flush()?;
        match connection.receive()? {
            Some(Packet::ConnAck(connack)) if connack.code == code::SUCCESS => {}
            Some(Packet::ConnAck(_)) | None => return Ok(()),
            Some(other) => return Err(format!("CONNECT was answered by {other:?}")),
        }
        for _ in 0..self.random.within(1, 40) {
            if self.stage.is_over() {
                break;
            }
            if self.talk(&mut connection)? == State::Closed {
                return Ok(());
            }
        }
        // The rest goes without a word, and what it is owed with it.
        if self.random.once_in(2) && self.settle(&mut connection, 0)? == State::Open {
            let end = wire::disconnect(connection.version, 0, &Properties::default());
            connection.output.extend_from_slice(&end);
            connection.flush()?;
        }
        Ok(())
    }

    fn compose_connect(&mut self) -> Connect {
        let random = &mut self.random;
        let version = if random.once_in(3) { Version::V311 } else { Version::V5 };
        let mut connect = Connect::new(version, &self.client_id).login(self.user, "any");
        if !random.once_in(5) {
            connect = connect.resume();
        }
        if version == Version::V311 {
            return connect;
        }
        connect = connect.session_expiry_secs(*random.pick(&[&0, &60, &3_600]));
        if random.once_in(5) {
            connect = connect.with(Property::ReceiveMaximum(*random.pick(&[&1, &10])));
        }
        if random.once_in(10) {
            connect = connect.with(Property::MaximumPacketSize(*random.pick(&[&200, &2_000])));
        }
        if random.once_in(10) {
            let start = random.pick(&["heads", "x"]).to_owned();
            connect = connect.with(Property::UserProperty("im-start".to_owned(), start));
        }
        connect
    }

    /// Makes up some packets, writes them, and mostly waits for what they are owed.
    fn talk(&mut self, connection: &mut Connection) -> Result<State, String> {
        for _ in 0..self.random.within(1, 8) {
            if self.random.once_in(16) {
                self.subscribe(connection);
            } else {
                self.publish(connection);
            }
        }
        connection.flush()?;
        let most = if self.random.once_in(3) { MOST_OWED } else { 0 };
        self.settle(connection, most)
    }

    /// Reads until no more than so much is owed.
    fn settle(&mut self, connection: &mut Connection, most: usize) -> Result<State, String> {
        while connection.acks.len() > most || connection.calls.len() > most {
            let Some(packet) = connection.receive()? else { return Ok(State::Closed) };
            if self.take(connection, packet)? == State::Closed {
                return Ok(State::Closed);
            }
            connection.flush()?;
        }
        Ok(State::Open)
    }

    fn identifier(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }

    fn subscribe(&mut self, connection: &mut Connection) {
        let (id, filter) = (self.identifier(), words::filter(&mut self.random));
        let version = connection.version;
        let packet = if self.random.once_in(3) {
            wire::unsubscribe(version, id, &[filter])
        } else {
            let options = self.random.below(3) as u8;
            wire::subscribe(version, id, &[(filter, options)], &Properties::default())
        };
        connection.output.extend_from_slice(&packet);
        connection.acks.insert(id, Owed { what: filter.to_owned(), call: None });
    }

    fn publish(&mut self, connection: &mut Connection) {
        self.made += 1;
        self.stage.count(1);
        let (request, random) = (format!("q{}", self.made), &mut self.random);
        let is_call = random.once_in(2);
        let (topic, payload) = match random.below(4) {
            _ if is_call => words::call(random, &request, &self.pages),
            0 => words::own(random),
            _ => words::message(random, self.made),
        };
        let mut publish = Publish::new(&topic, payload).qos(*random.pick(&[&0, &1, &1, &1, &2]));
        publish.retain = random.once_in(100);
        if connection.version == Version::V5 {
            publish.properties = properties(random);
        }
        if publish.qos > 0 {
            publish.id = self.identifier();
            let end = publish.payload.len().min(SHOWN);
            let what = format!("{topic} {}", String::from_utf8_lossy(&publish.payload[..end]));
            let is_promised = is_call
                && !connection.is_narrow
                && !publish.retain
                && publish.properties.0.is_empty();
            if is_promised {
                connection.calls.insert(request.clone(), what.clone());
            }
            let call = is_promised.then_some(request);
            connection.acks.insert(publish.id, Owed { what, call });
        }
        connection.output.extend_from_slice(&publish.encode(connection.version));
    }

    /// Takes a packet of the broker's.
    fn take(&mut self, connection: &mut Connection, packet: Packet) -> Result<State, String> {
        match packet {
            Packet::PubAck(ack) => connection.settled(ack.id, ack.code)?,
            Packet::PubRec(ack) if ack.code >= 0x80 => connection.settled(ack.id, ack.code)?,
            Packet::PubRec(ack) => connection.acknowledge(packet_type::PUBREL, ack.id),
            Packet::PubComp(ack) => connection.settled(ack.id, ack.code)?,
            Packet::SubAck(ack) | Packet::UnsubAck(ack) => {
                connection.settled(ack.id, code::SUCCESS)?;
            }
            Packet::PubRel(ack) => connection.acknowledge(packet_type::PUBCOMP, ack.id),
            Packet::Publish(publish) => {
                match publish.qos {
                    0 => {}
                    1 => connection.acknowledge(packet_type::PUBACK, publish.id),
                    _ => connection.acknowledge(packet_type::PUBREC, publish.id),
                }
                self.deliveries += 1;
                self.answered(connection, &publish)?;
            }
            Packet::Disconnect(disconnect) => {
                let faults = [code::MALFORMED_PACKET, code::PROTOCOL_ERROR];
                if faults.contains(&disconnect.code) {
                    return Err(format!("a device that keeps to MQTT got {disconnect:?}"));
                }
                return Ok(State::Closed);
            }
            Packet::PingResp | Packet::ConnAck(_) | Packet::Auth(_) => {
                return Err(format!("{packet:?} was not asked for"));
            }
        }
        Ok(State::Open)
    }

    /// Looks whether a message is the answer to a call.
    fn answered(&mut self, connection: &mut Connection, publish: &Publish) -> Result<(), String> {
        let Some(rest) = publish.topic.strip_prefix("im/me/res/q") else { return Ok(()) };
        let Some((number, word)) = rest.split_once('/') else { return Ok(()) };
        // A page's entries come before its end.
        if word == "m" || word.contains('/') {
            return Ok(());
        }
        let call = connection.calls.remove(&format!("q{number}"));
        let body = String::from_utf8_lossy(&publish.payload);
        let shown = || format!("{} {body} answers {call:?}", publish.topic);
        if !WORDS.contains(&word) {
            return Err(shown());
        }
        let body: Value = serde_json::from_str(&body).map_err(|_| shown())?;
        if let Some(next) = body["next"].as_str() {
            if self.pages.len() == PAGES {
                self.pages.remove(0);
            }
            self.pages.push(next.to_owned());
        }
        self.answers += 1;
        Ok(())
    }
}

impl Connection {
    fn acknowledge(&mut self, kind: u8, id: u16) {
        self.output.extend_from_slice(&wire::ack(self.version, kind, id, code::SUCCESS));
    }

    fn settled(&mut self, id: u16, code: u8) -> Result<(), String> {
        match self.acks.remove(&id) {
            Some(Owed { call: Some(call), .. }) if code >= 0x80 => drop(self.calls.remove(&call)),
            Some(_) => {}
            None => return Err(format!("identifier {id} is acknowledged and was not used")),
        }
        Ok(())
    }

    /// Writes what waits. Whether the broker has closed is for the next read to tell.
    fn flush(&mut self) -> Result<(), String> {
        let result = self.stream.write_all(&self.output);
        self.output.clear();
        match result {
            Err(error) if is_late(error.kind()) => Err("the broker reads no more".to_owned()),
            _ => Ok(()),
        }
    }

    /// The next packet; `None` when the connection has ended.
    fn receive(&mut self) -> Result<Option<Packet>, String> {
        let mut chunk = [0_u8; 16 * 1024];
        loop {
            if let Some(length) = frame_length(&self.input) {
                let frame: Vec<u8> = self.input.drain(..length).collect();
                return Ok(Some(wire::decode(self.version, &frame)));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_late(error.kind()) => return Err(self.report()),
                Err(_) => return Ok(None),
            }
        }
    }

    fn report(&self) -> String {
        let acks: Vec<&str> = self.acks.values().map(|owed| owed.what.as_str()).collect();
        format!(
            "nothing came for {DEADLINE:?}; unanswered {:?}, without acknowledgement {acks:?}",
            self.calls
        )
    }
}

/// Properties of a publication: mostly none.
fn properties(random: &mut Random) -> Properties {
    let mut properties = Vec::new();
    if random.once_in(20) {
        let secs = *random.pick(&[&0, &1, &100, &u32::MAX]);
        properties.push(Property::MessageExpiryInterval(secs));
    }
    if random.once_in(20) {
        let name = random.pick(&["im-cid", "im-at", "im-seq", "im-x", "k"]).to_owned();
        let value = random.pick(&["m1", "u1,u2", "all", ""]).to_owned();
        properties.push(Property::UserProperty(name, value));
    }
    if random.once_in(20) {
        let topics = ["im/me/res/zz", "im/me/res/a/b", "x/y", "im/u/u1/res", "im/me/sys/hello"];
        properties.push(Property::ResponseTopic(random.pick(&topics).to_owned()));
    }
    if random.once_in(30) {
        properties.push(Property::PayloadFormatIndicator(1));
    }
    Properties(properties)
}

fn is_late(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
