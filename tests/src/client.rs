//! A raw client: one connection, written and read byte by byte, with the whole conversation kept
//! and printed when its test fails.
//!
//! It acknowledges nothing by itself and hides nothing: whatever the broker sends is either
//! expected by the test or fails it. Deadlines only bound a failure; silence is shown by a later
//! packet that arrives first, never by waiting.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::broker::Broker;
use crate::connect::{Connect, Will};
use crate::wire::properties::Properties;
use crate::wire::{
    self, Ack, ConnAck, Packet, Publish, SubAck, Version, frame_length, packet_type,
};
use crate::{DEADLINE, unique_id, unique_topic};

/// How many entries of the conversation are kept for the report of a failure.
const TRANSCRIPT_ENTRIES: usize = 60;
/// How many bytes of one entry are shown.
const TRANSCRIPT_BYTES: usize = 96;

/// The byte stream under a client.
pub trait Link: Read + Write + Send {
    /// Closes both directions at once, as a lost network would.
    fn cut(&mut self);
    /// Bounds how long a read waits.
    fn set_deadline(&mut self, deadline: Duration);
}

impl Link for TcpStream {
    fn cut(&mut self) {
        // The other side may have closed already.
        let _ = self.shutdown(Shutdown::Both);
    }

    fn set_deadline(&mut self, deadline: Duration) {
        self.set_read_timeout(Some(deadline)).expect("a read timeout can be set");
    }
}

/// What came next on a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A whole packet.
    Packet(Packet),
    /// The end of the connection.
    Closed,
}

/// One connection to a broker.
pub struct RawClient {
    /// Protocol version the packets are written in.
    pub version: Version,
    /// The client identifier of the last CONNECT.
    pub client_id: String,
    /// The CONNACK that accepted this connection.
    pub connack: ConnAck,
    link: Box<dyn Link>,
    buffer: Vec<u8>,
    stash: VecDeque<Packet>,
    next_packet_id: u16,
    transcript: VecDeque<(char, usize, Vec<u8>)>,
}

impl RawClient {
    /// Opens a TCP connection; sends nothing.
    pub fn open(address: SocketAddr, version: Version) -> RawClient {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)
            .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout can be set");
        stream.set_write_timeout(Some(DEADLINE)).expect("a write timeout can be set");
        RawClient::over(Box::new(stream), version)
    }

    /// A client over any byte stream.
    pub fn over(link: Box<dyn Link>, version: Version) -> RawClient {
        RawClient {
            version,
            client_id: String::new(),
            connack: ConnAck { session_present: false, code: 0, properties: Properties::default() },
            link,
            buffer: Vec::new(),
            stash: VecDeque::new(),
            next_packet_id: 1,
            transcript: VecDeque::new(),
        }
    }

    /// Opens a connection and sends `connect`, which must be accepted.
    pub fn connect(address: SocketAddr, connect: &Connect) -> RawClient {
        let mut client = RawClient::open(address, connect.version);
        client.login(connect);
        client
    }

    /// Sends `connect` on this connection; it must be accepted.
    pub fn login(&mut self, connect: &Connect) {
        match self.try_login(connect) {
            Received::Packet(Packet::ConnAck(connack)) if connack.code == 0 => {
                self.connack = connack;
            }
            other => panic!("CONNECT of {} answered by {other:?}", connect.client_id),
        }
    }

    /// Sends `connect` on this connection; returns whatever comes.
    pub fn try_login(&mut self, connect: &Connect) -> Received {
        self.version = connect.version;
        self.client_id.clone_from(&connect.client_id);
        self.send(&connect.encode());
        self.receive()
    }

    /// Writes raw bytes. A connection the broker has closed is noticed by the next read.
    pub fn send(&mut self, bytes: &[u8]) {
        self.note('>', bytes);
        match self.link.write_all(bytes).and_then(|()| self.link.flush()) {
            Ok(()) => {}
            Err(error) if is_closed(error.kind()) => {}
            Err(error) => panic!("writing to the broker: {error}"),
        }
    }

    /// The next packet, or the end of the connection.
    pub fn receive(&mut self) -> Received {
        if let Some(packet) = self.stash.pop_front() {
            return Received::Packet(packet);
        }
        self.receive_new()
    }

    fn receive_new(&mut self) -> Received {
        loop {
            if let Some(length) = frame_length_or_none(&self.buffer) {
                let frame: Vec<u8> = self.buffer.drain(..length).collect();
                self.note('<', &frame);
                return Received::Packet(wire::decode(self.version, &frame));
            }
            let mut chunk = [0u8; 16 * 1024];
            match self.link.read(&mut chunk) {
                Ok(0) => return self.closed(),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if is_closed(error.kind()) => return self.closed(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("nothing came in time: {error}"),
            }
        }
    }

    /// Everything the broker still sends, undecoded, until it closes.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        let mut chunk = [0u8; 1024];
        loop {
            match self.link.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(error) if is_closed(error.kind()) => break,
                Err(error) => panic!("not closed within {DEADLINE:?}: {error}"),
            }
        }
        self.note('<', &bytes);
        self.note('|', &[]);
        bytes
    }

    /// The CONNECT must be refused: closed at once, or after a CONNACK with one of `codes`.
    pub fn expect_refused(&mut self, codes: &[u8]) {
        match self.receive() {
            Received::Closed => {}
            Received::Packet(Packet::ConnAck(connack)) => {
                let code = connack.code;
                assert!(codes.contains(&code), "CONNACK {code:#04x}, expected {codes:02x?}");
                assert!(!connack.session_present, "session present in a refusal");
                assert_eq!(self.receive(), Received::Closed, "after a CONNACK that refuses");
            }
            other => panic!("the CONNECT should have been refused, got {other:?}"),
        }
    }

    fn closed(&mut self) -> Received {
        assert!(self.buffer.is_empty(), "closed in the middle of a packet: {:02x?}", self.buffer);
        self.note('|', &[]);
        Received::Closed
    }

    /// The next packet; the connection must be open.
    pub fn next_packet(&mut self) -> Packet {
        match self.receive() {
            Received::Packet(packet) => packet,
            Received::Closed => panic!("the broker closed the connection"),
        }
    }

    /// The next packet that `wanted` accepts; packets before it that `may_wait` are kept for later
    /// reads, anything else fails.
    fn next_matching<T>(&mut self, what: &str, wanted: impl Fn(&Packet) -> Option<T>) -> T {
        if let Some(index) = self.stash.iter().position(|packet| wanted(packet).is_some()) {
            let packet = self.stash.remove(index).expect("the index was just found");
            return wanted(&packet).expect("the packet was just accepted");
        }
        loop {
            match self.receive_new() {
                Received::Packet(packet) => match wanted(&packet) {
                    Some(found) => return found,
                    None if may_wait(&packet) => self.stash.push_back(packet),
                    None => panic!("{what} expected, got {packet:?}"),
                },
                Received::Closed => panic!("{what} expected, but the broker closed"),
            }
        }
    }

    /// How many bytes the last packet had that was read.
    pub fn last_packet_length(&self) -> usize {
        let read = self.transcript.iter().rev().find(|(direction, _, _)| *direction == '<');
        read.map_or(0, |(_, length, _)| *length)
    }

    /// The next packet identifier this client uses.
    pub fn packet_id(&mut self) -> u16 {
        let id = self.next_packet_id;
        self.next_packet_id = id.checked_add(1).unwrap_or(1);
        id
    }

    /// Subscribes to one filter with an options byte; returns the granted QoS or failure code.
    pub fn try_subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_all(&[(filter, options)], &Properties::default()).codes[0]
    }

    /// Subscribes to one filter, which must be granted as asked.
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        let granted = self.try_subscribe(filter, options);
        assert_eq!(granted, options & 3, "QoS granted for {filter}");
    }

    /// Subscribes to several filters at once.
    pub fn subscribe_all(&mut self, filters: &[(&str, u8)], properties: &Properties) -> SubAck {
        let id = self.packet_id();
        self.send(&wire::subscribe(self.version, id, filters, properties));
        let suback = self.next_matching("SUBACK", |packet| match packet {
            Packet::SubAck(suback) => Some(suback.clone()),
            _ => None,
        });
        assert_eq!(suback.id, id, "identifier of SUBACK [MQTT-3.8.4-2]");
        assert_eq!(suback.codes.len(), filters.len(), "one code for each filter");
        suback
    }

    /// Unsubscribes from filters.
    pub fn unsubscribe(&mut self, filters: &[&str]) -> SubAck {
        let id = self.packet_id();
        self.send(&wire::unsubscribe(self.version, id, filters));
        let unsuback = self.next_matching("UNSUBACK", |packet| match packet {
            Packet::UnsubAck(unsuback) => Some(unsuback.clone()),
            _ => None,
        });
        assert_eq!(unsuback.id, id, "identifier of UNSUBACK [MQTT-3.10.4-5]");
        if self.version == Version::V5 {
            assert_eq!(unsuback.codes.len(), filters.len(), "one code for each filter");
        }
        unsuback
    }

    /// Sends a PUBLISH, with a new packet identifier if it needs one and has none; returns the
    /// identifier.
    pub fn send_publish(&mut self, mut publish: Publish) -> u16 {
        if publish.qos > 0 && publish.id == 0 {
            publish.id = self.packet_id();
        }
        self.send(&publish.encode(self.version));
        publish.id
    }

    /// Sends a PUBLISH and completes its handshake; it must be accepted.
    pub fn publish(&mut self, publish: Publish) {
        let topic = publish.topic.clone();
        let code = self.try_publish(publish);
        assert!(code < 0x80, "PUBLISH to {topic} refused with {code:#04x}");
    }

    /// Sends a PUBLISH and completes its handshake; returns the first reason code.
    pub fn try_publish(&mut self, publish: Publish) -> u8 {
        let qos = publish.qos;
        let id = self.send_publish(publish);
        self.finish_publish(qos, id)
    }

    /// Completes the handshake of a PUBLISH already sent; returns the first reason code.
    pub fn finish_publish(&mut self, qos: u8, id: u16) -> u8 {
        match qos {
            0 => 0,
            1 => self.expect_ack(packet_type::PUBACK, id).code,
            _ => {
                let pubrec = self.expect_ack(packet_type::PUBREC, id);
                if pubrec.code < 0x80 {
                    self.send_ack(packet_type::PUBREL, id);
                    self.expect_ack(packet_type::PUBCOMP, id);
                }
                pubrec.code
            }
        }
    }

    /// Sends an acknowledgement with reason code 0.
    pub fn send_ack(&mut self, kind: u8, id: u16) {
        self.send_ack_code(kind, id, 0);
    }

    /// Sends an acknowledgement with a reason code.
    pub fn send_ack_code(&mut self, kind: u8, id: u16, code: u8) {
        self.send(&wire::ack(self.version, kind, id, code));
    }

    /// The next acknowledgement of type `kind`, which must be for `id`; PUBLISH packets and
    /// acknowledgements of other types before it are kept.
    pub fn expect_ack(&mut self, kind: u8, id: u16) -> Ack {
        let ack = self.next_matching("acknowledgement", |packet| match (kind, packet) {
            (packet_type::PUBACK, Packet::PubAck(ack))
            | (packet_type::PUBREC, Packet::PubRec(ack))
            | (packet_type::PUBREL, Packet::PubRel(ack))
            | (packet_type::PUBCOMP, Packet::PubComp(ack)) => Some(ack.clone()),
            _ => None,
        });
        assert_eq!(ack.id, id, "identifier in acknowledgement of type {kind}");
        ack
    }

    /// The next packet must be a PUBLISH; it is not acknowledged.
    pub fn expect_publish(&mut self) -> Publish {
        match self.next_packet() {
            Packet::Publish(publish) => publish,
            other => panic!("PUBLISH expected, got {other:?}"),
        }
    }

    /// The next packet must be a PUBLISH on this topic; it is not acknowledged.
    pub fn expect_publish_on(&mut self, topic: &str) -> Publish {
        let publish = self.expect_publish();
        assert_eq!(publish.topic, topic, "topic");
        publish
    }

    /// Like [`Self::expect_publish`], with `times` the usual deadline for a slow sender.
    pub fn expect_patiently(&mut self, times: u32) -> Publish {
        self.link.set_deadline(DEADLINE * times);
        let publish = self.expect_publish();
        self.link.set_deadline(DEADLINE);
        publish
    }

    /// The next packet must be a PUBLISH; completes its handshake.
    pub fn take_publish(&mut self) -> Publish {
        let publish = self.expect_publish();
        self.complete(&publish);
        publish
    }

    /// Acknowledges a received PUBLISH to the end.
    pub fn complete(&mut self, publish: &Publish) {
        match publish.qos {
            0 => {}
            1 => self.send_ack(packet_type::PUBACK, publish.id),
            _ => {
                self.send_ack(packet_type::PUBREC, publish.id);
                self.expect_ack(packet_type::PUBREL, publish.id);
                self.send_ack(packet_type::PUBCOMP, publish.id);
            }
        }
    }

    /// The next message must have this topic and payload; completes its handshake.
    pub fn expect_message(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        let publish = self.take_publish();
        assert_eq!(publish.topic, topic, "topic");
        assert_eq!(
            String::from_utf8_lossy(&publish.payload),
            String::from_utf8_lossy(payload.as_ref()),
            "payload"
        );
        publish
    }

    /// Sends PINGREQ; the next packet must be PINGRESP.
    pub fn ping(&mut self) {
        self.send(&wire::PINGREQ);
        let packet = self.next_packet();
        assert_eq!(packet, Packet::PingResp, "nothing but PINGRESP was expected");
    }

    /// Sends PINGREQ and waits for PINGRESP; PUBLISH packets before it are kept. What was sent
    /// before has then been processed.
    pub fn ping_past_publishes(&mut self) {
        self.send(&wire::PINGREQ);
        self.next_matching("PINGRESP", |packet| (*packet == Packet::PingResp).then_some(()));
    }

    /// Sends PINGREQ behind a packet that may be answered, refused or ignored; returns the answer
    /// that came first, or `None` when there was none or the broker closed.
    pub fn receive_after_ping(&mut self) -> Option<Packet> {
        self.send(&wire::PINGREQ);
        match self.receive() {
            Received::Packet(Packet::PingResp | Packet::Disconnect(_)) | Received::Closed => None,
            Received::Packet(packet) => Some(packet),
        }
    }

    /// Shows that nothing `publisher` sent before is on its way here: a marker of its own, of the
    /// same quality of service, is the next message to arrive.
    pub fn expect_nothing_from(&mut self, publisher: &mut RawClient, qos: u8) {
        let marker = unique_topic("marker");
        self.subscribe(&marker, qos);
        self.expect_nothing_from_marked(publisher, &marker, qos);
        self.unsubscribe(&[&marker]);
    }

    /// The same with a marker topic that is subscribed already.
    pub fn expect_nothing_from_marked(&mut self, publisher: &mut RawClient, marker: &str, qos: u8) {
        publisher.publish(Publish::new(marker, "marker").qos(qos));
        self.expect_message(marker, "marker");
    }

    /// The broker must close; returns the reason code of a DISCONNECT before it (5.0).
    pub fn expect_closed(&mut self) -> Option<u8> {
        match self.receive() {
            Received::Closed => None,
            Received::Packet(Packet::Disconnect(disconnect)) => match self.receive() {
                Received::Closed => Some(disconnect.code),
                other => panic!("{other:?} after DISCONNECT"),
            },
            other => panic!("the broker should have closed, got {other:?}"),
        }
    }

    /// The broker must close; in 5.0 it may say why, and then with one of `codes`.
    pub fn expect_closed_with(&mut self, codes: &[u8]) {
        if let Some(code) = self.expect_closed() {
            assert!(codes.contains(&code), "DISCONNECT {code:#04x}, expected {codes:02x?}");
        }
    }

    /// The broker must send DISCONNECT with `code` and close.
    pub fn expect_disconnect(&mut self, code: u8) {
        assert_eq!(self.expect_closed(), Some(code), "reason code of DISCONNECT");
    }

    /// Sends DISCONNECT and waits until the broker has closed, so that it has been heard.
    pub fn disconnect(self) {
        self.disconnect_with(0, &Properties::default());
    }

    /// Sends DISCONNECT with a reason code and properties, and waits until the broker has closed.
    pub fn disconnect_with(mut self, code: u8, properties: &Properties) {
        self.send(&wire::disconnect(self.version, code, properties));
        self.drain();
    }

    /// Reads to the end of the connection, past messages that were still on their way.
    fn drain(&mut self) {
        loop {
            match self.receive() {
                Received::Closed => return,
                Received::Packet(Packet::Publish(_)) => {}
                Received::Packet(other) => panic!("{other:?} after the client's DISCONNECT"),
            }
        }
    }

    /// Ends the connection without DISCONNECT, as a lost network would.
    pub fn cut(mut self) {
        self.link.cut();
    }

    fn note(&mut self, direction: char, bytes: &[u8]) {
        if self.transcript.len() == TRANSCRIPT_ENTRIES {
            self.transcript.pop_front();
        }
        let shown = bytes[..bytes.len().min(TRANSCRIPT_BYTES)].to_vec();
        self.transcript.push_back((direction, bytes.len(), shown));
    }
}

impl Drop for RawClient {
    #[allow(clippy::print_stderr, reason = "shown with the output of the failed test")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!(
            "--- {:?} client {:?}: > sent, < received, | closed",
            self.version, self.client_id
        );
        for (direction, length, bytes) in &self.transcript {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{direction} {length:>6} bytes: {}", hex.join(" "));
        }
        if !self.buffer.is_empty() {
            eprintln!("< unread: {:02x?}", self.buffer);
        }
    }
}

/// Returns once the broker has seen `secs` seconds pass: it publishes a will with that delay.
pub fn ring_after(broker: &Broker, secs: u32) {
    let bell = unique_topic("bell");
    let mut listener = broker.v5();
    listener.subscribe(&bell, 0);
    let will = Will::new(&bell, "ring").delay_secs(secs);
    broker.connect(&Connect::persistent(Version::V5, &unique_id("clock")).will(will)).cut();
    listener.expect_message(&bell, "ring");
}

/// Packets that belong to deliveries of their own and may come between a request and its answer.
fn may_wait(packet: &Packet) -> bool {
    matches!(
        packet,
        Packet::Publish(_)
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
    )
}

fn frame_length_or_none(buffer: &[u8]) -> Option<usize> {
    if buffer.is_empty() { None } else { frame_length(buffer) }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
            | ErrorKind::UnexpectedEof
            | ErrorKind::NotConnected
    )
}
