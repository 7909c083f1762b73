//! A small broker on the codec that errs on purpose: every so many deliveries it loses one, sends it
//! twice, lets the next one overtake it, alters it, or sends it to somebody else.
//!
//! Thread per connection, one lock over everything: it is right before it is quick.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use hoopoe_codec::{
    Ack, AckKind, AckProperties, ConnAck, ConnAckProperties, Packet, PacketId, PublishHead, QoS,
    ReasonCode, Receiver, SubAck, Version, decode, decode_connect, frame_length, topic_matches,
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// Nothing.
    Never,
    /// A delivery does not happen.
    Lose,
    /// A delivery happens twice, as if it were two messages.
    Double,
    /// A delivery happens twice with the DUP flag, under another packet identifier.
    Repeat,
    /// A delivery comes after the next one of the same sender to the same topic.
    Overtake,
    /// A delivery goes to another client as well.
    Misroute,
    /// One bit of the payload changes.
    Damage,
    /// Sessions are not there when their clients return.
    ForgetSessions,
    /// Connections end after SUBACK.
    HangUp,
    /// CONNACK says no.
    Refuse,
    /// Of what every session has waiting, the first message does not survive a crash.
    LoseAtCrash,
    /// … the first message is there twice after a crash.
    DoubleAtCrash,
    /// … the first message is the last after a crash.
    ShuffleAtCrash,
}

/// Every so many deliveries (or connections) the error happens.
const EVERY: u64 = 7;

#[derive(Clone)]
struct Message {
    /// The client that published it.
    sender: String,
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
}

#[derive(Default)]
struct Session {
    filters: Vec<(String, QoS)>,
    waiting: VecDeque<Message>,
    /// Sent to a persistent session and not acknowledged.
    unsettled: Vec<(PacketId, Message)>,
    /// At most one of each sender and topic.
    held_back: Vec<Message>,
    online: Option<(TcpStream, Version, u64)>,
    persistent: bool,
    last_id: u16,
}

struct State {
    error: Error,
    sessions: HashMap<String, Session>,
    retained: BTreeMap<String, Message>,
    /// Looks at whether to err.
    looks: u64,
    delivered: u64,
    connections: u64,
}

/// The broker; its threads end with the test's process.
pub(crate) struct Erring {
    /// Where it listens.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Erring {
    /// Waits until so many messages have been delivered.
    pub(crate) fn await_deliveries(&self, count: u64) {
        while lock(&self.state).delivered < count {
            thread::yield_now();
        }
    }

    /// The words that let the program kill it: its connections end, and it errs as it is to.
    pub(crate) fn lever(&self, dir: &Path) -> String {
        let [kill, done, script] = ["kill", "done", "kill.sh"].map(|name| dir.join(name));
        let pipes = Command::new("mkfifo").args([&kill, &done]).status().unwrap();
        assert!(pipes.success());
        let text = format!("#!/bin/sh\necho > {}\ncat {}\n", kill.display(), done.display());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let state = Arc::clone(&self.state);
        thread::spawn(move || {
            // Each ends when the script has written, or has someone to read.
            while fs::read(&kill).is_ok() {
                lock(&state).crash();
                if fs::write(&done, "").is_err() {
                    break;
                }
            }
        });
        format!("--kill {} --restart true", script.display())
    }

    /// Begins to listen.
    pub(crate) fn start(error: Error) -> Erring {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            error,
            sessions: HashMap::new(),
            retained: BTreeMap::new(),
            looks: 0,
            delivered: 0,
            connections: 0,
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Erring { port, state }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

/// Cuts one packet out of the stream; none at its end.
fn next_frame(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(len) = frame_length(buffer, 1 << 20).ok()?
            && buffer.len() >= len
        {
            return Some(buffer.drain(..len).collect());
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    let Some(frame) = next_frame(&mut stream, &mut buffer) else { return };
    let connect = decode_connect(&frame).unwrap();
    let (id, version) = (connect.client_id.to_owned(), connect.version);
    let persistent = match version {
        Version::V311 => !connect.clean_start,
        Version::V5 => connect.properties.session_expiry_secs.unwrap_or(0) > 0,
    };
    let Some(number) = lock(state).welcome(&id, version, connect.clean_start, persistent, &stream)
    else {
        return;
    };
    while let Some(frame) = next_frame(&mut stream, &mut buffer) {
        let packet = decode(version, Receiver::Server, &frame).unwrap();
        if !lock(state).on_packet(&id, version, &packet, &mut stream) {
            break;
        }
    }
    lock(state).farewell(&id, number);
}

impl State {
    fn errs(&mut self, error: Error) -> bool {
        self.error == error && {
            self.looks += 1;
            self.looks.is_multiple_of(EVERY)
        }
    }

    /// Answers CONNECT and sends what has been waiting; returns the connection's number.
    fn welcome(
        &mut self,
        id: &str,
        version: Version,
        clean: bool,
        persistent: bool,
        stream: &TcpStream,
    ) -> Option<u64> {
        self.connections += 1;
        let number = self.connections;
        let refused = self.error == Error::Refuse && number.is_multiple_of(EVERY);
        let forgets = self.error == Error::ForgetSessions && number.is_multiple_of(EVERY);
        if clean || forgets {
            self.sessions.remove(id);
        }
        let present = self.sessions.contains_key(id);
        let session = self.sessions.entry(id.to_owned()).or_default();
        session.persistent = persistent;
        session.online = Some((stream.try_clone().unwrap(), version, number));
        let mut answer = Vec::new();
        let code = if refused { ReasonCode::NotAuthorized } else { ReasonCode::Success };
        ConnAck { session_present: present && !refused, code, properties: ConnAckProperties::NONE }
            .encode(version, &mut answer);
        session.send(&answer);
        if refused {
            return None;
        }
        let again = std::mem::take(&mut session.unsettled);
        for (_, message) in again {
            session.publish(&message, true);
        }
        let waiting: Vec<Message> = session.waiting.drain(..).collect();
        for message in waiting {
            self.deliver(id, &message);
        }
        Some(number)
    }

    /// Everybody is cut off, and what is kept is kept wrongly.
    fn crash(&mut self) {
        let error = self.error;
        self.sessions.retain(|_, session| {
            if let Some((stream, ..)) = session.online.take() {
                stream.shutdown(Shutdown::Both).unwrap_or_default();
            }
            let waiting = &mut session.waiting;
            match error {
                Error::LoseAtCrash => drop(waiting.pop_front()),
                Error::DoubleAtCrash => waiting.extend(waiting.front().cloned()),
                Error::ShuffleAtCrash if !waiting.is_empty() => waiting.rotate_left(1),
                _ => {}
            }
            session.persistent
        });
    }

    fn farewell(&mut self, id: &str, number: u64) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.online.as_ref().is_some_and(|(_, _, n)| *n == number) {
            session.online = None;
            if !session.persistent {
                self.sessions.remove(id);
            }
        }
    }

    /// False ends the connection.
    fn on_packet(
        &mut self,
        id: &str,
        version: Version,
        packet: &Packet<'_>,
        stream: &mut TcpStream,
    ) -> bool {
        let mut answer = Vec::new();
        match packet {
            Packet::Publish(publish) => {
                if let Some(packet_id) = publish.id {
                    let kind = match publish.qos {
                        QoS::ExactlyOnce => AckKind::PubRec,
                        _ => AckKind::PubAck,
                    };
                    Ack::success(packet_id).encode(kind, version, &mut answer);
                }
                self.on_message(Message {
                    sender: id.to_owned(),
                    topic: publish.topic.to_owned(),
                    payload: publish.payload.to_vec(),
                    qos: publish.qos,
                    retain: publish.retain,
                });
            }
            Packet::PubRec(ack) => {
                Ack::success(ack.id).encode(AckKind::PubRel, version, &mut answer);
            }
            Packet::PubRel(ack) => {
                Ack::success(ack.id).encode(AckKind::PubComp, version, &mut answer);
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.unsettled.retain(|(known, _)| *known != ack.id);
                }
            }
            Packet::Subscribe(subscribe) => {
                let mut codes = Vec::new();
                for (filter, options) in &subscribe.filters {
                    let session = self.sessions.get_mut(id).unwrap();
                    session.filters.retain(|(known, _)| known != filter);
                    session.filters.push(((*filter).to_owned(), options.qos));
                    codes.push(ReasonCode::try_from(options.qos as u8).unwrap());
                }
                SubAck {
                    id: subscribe.id,
                    codes: codes.into_iter().collect(),
                    properties: AckProperties::NONE,
                }
                .encode(version, &mut answer);
                stream.write_all(&answer).unwrap_or_default();
                for (filter, _) in &subscribe.filters {
                    self.send_retained(id, filter);
                }
                return self.error != Error::HangUp || !self.errs(Error::HangUp);
            }
            Packet::PingReq => answer.extend_from_slice(&[0xD0, 0]),
            _ => return false,
        }
        if let Some(session) = self.sessions.get_mut(id) {
            session.send(&answer);
        }
        true
    }

    fn send_retained(&mut self, id: &str, filter: &str) {
        let matching: Vec<Message> =
            self.retained.values().filter(|m| topic_matches(filter, &m.topic)).cloned().collect();
        for message in matching {
            self.deliver(id, &message);
        }
    }

    fn on_message(&mut self, message: Message) {
        if message.retain {
            if message.payload.is_empty() {
                self.retained.remove(&message.topic);
            } else {
                self.retained.insert(message.topic.clone(), message.clone());
            }
        }
        let receivers: Vec<(String, QoS)> = self
            .sessions
            .iter()
            .filter_map(|(id, session)| {
                let filter = session.filters.iter().find(|(f, _)| topic_matches(f, &message.topic));
                filter.map(|(_, qos)| (id.clone(), *qos))
            })
            .collect();
        for (id, granted) in receivers {
            let message =
                Message { qos: message.qos.min(granted), retain: false, ..message.clone() };
            if self.sessions[&id].online.is_some() {
                self.deliver(&id, &message);
            } else if message.qos != QoS::AtMostOnce {
                self.sessions.get_mut(&id).unwrap().waiting.push_back(message);
            }
        }
    }

    /// Sends one message to one client, or errs.
    fn deliver(&mut self, id: &str, message: &Message) {
        self.delivered += 1;
        if self.errs(Error::Lose) {
            return;
        }
        if self.errs(Error::Misroute)
            && let Some(other) = self.sessions.keys().find(|k| *k != id).cloned()
        {
            self.sessions.get_mut(&other).unwrap().publish(message, false);
        }
        let mut altered = message.clone();
        if self.errs(Error::Damage) {
            *altered.payload.last_mut().unwrap() ^= 1;
        }
        let doubles = self.errs(Error::Double);
        let repeats = self.errs(Error::Repeat);
        let overtakes = self.errs(Error::Overtake);
        let session = self.sessions.get_mut(id).unwrap();
        let held = session
            .held_back
            .iter()
            .position(|held| (&held.sender, &held.topic) == (&message.sender, &message.topic));
        if overtakes && held.is_none() {
            session.held_back.push(altered);
            return;
        }
        session.publish(&altered, false);
        if doubles || repeats {
            session.publish(&altered, repeats);
        }
        if let Some(held) = held {
            let late = session.held_back.swap_remove(held);
            session.publish(&late, false);
        }
    }
}

impl Session {
    /// Writes to the client; one that has gone misses it.
    fn send(&mut self, bytes: &[u8]) {
        if let Some((stream, ..)) = &mut self.online {
            stream.write_all(bytes).unwrap_or_default();
        }
    }

    fn publish(&mut self, message: &Message, dup: bool) {
        let Some((_, version, _)) = self.online else {
            if message.qos != QoS::AtMostOnce {
                self.waiting.push_back(message.clone());
            }
            return;
        };
        let mut packet = Vec::new();
        let id = (message.qos != QoS::AtMostOnce).then(|| {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = PacketId::new(self.last_id).unwrap();
            if self.persistent {
                self.unsettled.push((id, message.clone()));
            }
            id
        });
        PublishHead {
            version,
            dup,
            qos: message.qos,
            retain: message.retain,
            topic: &message.topic,
            forwardable: &[],
            message_expiry_secs: None,
            topic_alias: None,
            subscription_ids: &[],
            payload_len: message.payload.len(),
        }
        .encode(id, &mut packet);
        packet.extend_from_slice(&message.payload);
        self.send(&packet);
    }
}
