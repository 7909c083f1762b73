//! What clients read: packets cut from the bytes, answered where the protocol wants an answer, and
//! handed to the driver.

use std::io::{self, Read};

use hoopoe_codec::{Fault, Packet, QoS, ReasonCode, Receiver, Version, decode, frame_length};

use super::{Down, Driver, Incoming, MAX_PACKET, Net, State};
use crate::clock::now_ns;

/// Reads of one client in one turn, so that a firehose leaves the others their turn.
const MAX_READS: usize = 8;

impl Net {
    /// Reads what the socket has, up to a bound, and handles the packets in it. `ended`: the peer has
    /// closed, and no other event will tell of it.
    pub(super) fn read<D: Driver>(&mut self, driver: &mut D, client: u32, ended: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut reads = 0;
        loop {
            let c = &mut self.clients[client as usize];
            let Some(stream) = &mut c.stream else { break };
            let read = stream.read(&mut scratch);
            match read {
                Ok(0) => {
                    self.fail(driver, client, Down::Closed);
                    break;
                }
                Ok(n) => {
                    self.totals.bytes_in += n as u64;
                    self.on_bytes(driver, client, &scratch[..n]);
                    // A short read has emptied the socket: epoll will tell of what comes later.
                    if n < scratch.len() && !ended {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.fail(driver, client, Down::Broken(e));
                    break;
                }
            }
            reads += 1;
            if reads == MAX_READS {
                self.ask_again(client);
                break;
            }
        }
        self.scratch = scratch;
    }

    /// Edge-triggered: makes epoll report what is still unread.
    fn ask_again(&mut self, client: u32) {
        use rustix::event::epoll::{self, EventData, EventFlags};
        if let Some(stream) = &self.clients[client as usize].stream {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            // The socket is registered; re-arming it can fail only for lack of kernel memory.
            let _ = epoll::modify(&self.epoll, stream, EventData::new_u64(client.into()), flags);
        }
    }

    fn on_bytes<D: Driver>(&mut self, driver: &mut D, client: u32, bytes: &[u8]) {
        let c = &mut self.clients[client as usize];
        let result = match c.layers.take() {
            None => self.on_mqtt_bytes(driver, client, bytes),
            Some(mut layers) => {
                let unwrapped = layers.read(bytes);
                let c = &mut self.clients[client as usize];
                c.layers = Some(layers);
                self.writing(client); // handshakes answer
                match unwrapped {
                    Ok(plain) => self.on_mqtt_bytes(driver, client, &plain),
                    Err(what) => Err(Down::Handshake(what)),
                }
            }
        };
        if let Err(why) = result {
            self.fail(driver, client, why);
        }
    }

    fn on_mqtt_bytes<D: Driver>(
        &mut self,
        driver: &mut D,
        client: u32,
        bytes: &[u8],
    ) -> Result<(), Down> {
        let c = &mut self.clients[client as usize];
        if c.partial.is_empty() {
            let used = self.on_frames(driver, client, bytes)?;
            if used < bytes.len() {
                self.clients[client as usize].partial.extend_from_slice(&bytes[used..]);
            }
            return Ok(());
        }
        let mut joined = std::mem::take(&mut c.partial);
        joined.extend_from_slice(bytes);
        let used = self.on_frames(driver, client, &joined)?;
        let c = &mut self.clients[client as usize];
        if c.stream.is_some() && used < joined.len() {
            joined.drain(..used);
            c.partial = joined;
        }
        Ok(())
    }

    /// Handles every whole packet; returns how many bytes they took.
    fn on_frames<D: Driver>(
        &mut self,
        driver: &mut D,
        client: u32,
        bytes: &[u8],
    ) -> Result<usize, Down> {
        let at_ns = now_ns();
        self.read_ns = at_ns;
        let mut used = 0;
        while let Some(len) = frame_length(&bytes[used..], MAX_PACKET).map_err(Down::Fault)? {
            let Some(frame) = bytes.get(used..used + len) else { break };
            self.on_frame(driver, client, frame, at_ns)?;
            used += len;
            if self.clients[client as usize].stream.is_none() {
                return Ok(bytes.len()); // the driver has left
            }
        }
        Ok(used)
    }

    #[inline]
    fn on_frame<D: Driver>(
        &mut self,
        driver: &mut D,
        client: u32,
        frame: &[u8],
        at_ns: u64,
    ) -> Result<(), Down> {
        match frame[0] >> 4 {
            3 => self.on_publish(driver, client, frame, at_ns),
            4 => self.on_settle(driver, client, frame),
            5 => self.on_pubrec(driver, client, frame),
            6 => self.on_pubrel(client, frame),
            7 => self.on_settle(driver, client, frame),
            _ => self.on_control(driver, client, frame),
        }
    }

    #[inline]
    fn on_publish<D: Driver>(
        &mut self,
        driver: &mut D,
        client: u32,
        frame: &[u8],
        at_ns: u64,
    ) -> Result<(), Down> {
        let cut = cut_publish(self.target.version, frame).ok_or(Down::Fault(Fault {
            reason: ReasonCode::MalformedPacket,
            what: "PUBLISH from the broker: cut short",
        }))?;
        let mut first_time = true;
        match cut.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                let out = &mut self.writing(client).out;
                out.extend_from_slice(&[0x40, 2, (cut.id >> 8) as u8, cut.id as u8]);
            }
            QoS::ExactlyOnce => {
                let c = self.writing(client);
                // Between PUBLISH and PUBREL the identifier stands for one message [MQTT-4.3.3-10].
                first_time = !c.held.contains(&cut.id);
                if first_time {
                    c.held.push(cut.id);
                }
                c.out.extend_from_slice(&[0x50, 2, (cut.id >> 8) as u8, cut.id as u8]);
            }
        }
        self.totals.delivered += 1;
        if first_time {
            let dup = frame[0] & 0x08 != 0;
            let message = Incoming {
                dup,
                topic: cut.topic,
                properties: cut.properties,
                payload: cut.payload,
                at_ns,
            };
            driver.on_message(self, client, &message);
        }
        Ok(())
    }

    #[inline]
    fn on_settle<D: Driver>(
        &mut self,
        driver: &mut D,
        client: u32,
        frame: &[u8],
    ) -> Result<(), Down> {
        let (id, code) = cut_ack(frame).ok_or(SHORT_ACK)?;
        if let Some(token) = self.clients[client as usize].settle(id) {
            self.totals.settled += 1;
            driver.on_settled(self, client, token, code);
        }
        Ok(())
    }

    fn on_pubrec<D: Driver>(
        &mut self,
        driver: &mut D,
        client: u32,
        frame: &[u8],
    ) -> Result<(), Down> {
        let (id, code) = cut_ack(frame).ok_or(SHORT_ACK)?;
        if code.is_error() {
            return self.on_settle(driver, client, frame);
        }
        let out = &mut self.writing(client).out;
        out.extend_from_slice(&[0x62, 2, (id >> 8) as u8, id as u8]);
        Ok(())
    }

    fn on_pubrel(&mut self, client: u32, frame: &[u8]) -> Result<(), Down> {
        let (id, _) = cut_ack(frame).ok_or(SHORT_ACK)?;
        let c = self.writing(client);
        if let Some(at) = c.held.iter().position(|held| *held == id) {
            c.held.swap_remove(at);
        }
        c.out.extend_from_slice(&[0x70, 2, (id >> 8) as u8, id as u8]);
        Ok(())
    }

    /// Everything that is rare goes through the codec.
    fn on_control<D: Driver>(
        &mut self,
        driver: &mut D,
        client: u32,
        frame: &[u8],
    ) -> Result<(), Down> {
        match decode(self.target.version, Receiver::Client, frame).map_err(Down::Fault)? {
            Packet::ConnAck(ack) => {
                if ack.code.is_error() {
                    return Err(Down::Refused(ack.code));
                }
                let c = &mut self.clients[client as usize];
                if c.state != State::Greeting {
                    return Err(Down::Fault(Fault {
                        reason: ReasonCode::ProtocolError,
                        what: "CONNACK: not awaited",
                    }));
                }
                c.state = State::Up;
                if let Some(maximum) = ack.properties.receive_maximum {
                    c.quota = maximum.get();
                }
                self.totals.up += 1;
                driver.on_up(self, client, ack.session_present);
            }
            Packet::SubAck(ack) => {
                let refused = ack.codes.iter().filter(|code| code.is_error()).count();
                driver.on_subscribed(self, client, refused);
            }
            Packet::Disconnect(farewell) => return Err(Down::Told(farewell.code)),
            Packet::UnsubAck(_) | Packet::PingResp => {}
            _ => {
                return Err(Down::Fault(Fault {
                    reason: ReasonCode::ProtocolError,
                    what: "a packet that only clients send",
                }));
            }
        }
        Ok(())
    }
}

const SHORT_ACK: Down =
    Down::Fault(Fault { reason: ReasonCode::MalformedPacket, what: "acknowledgement: cut short" });

/// The parts of a PUBLISH.
pub(crate) struct Cut<'a> {
    /// Quality of service.
    pub qos: QoS,
    /// Packet identifier; 0 at QoS 0.
    pub id: u16,
    /// Where the packet identifier is, or would be.
    pub id_at: usize,
    /// Topic as bytes; not checked.
    pub topic: &'a [u8],
    /// Properties as they are on the wire (MQTT 5).
    pub properties: &'a [u8],
    /// Application bytes.
    pub payload: &'a [u8],
}

/// Bytes of the fixed header: type and remaining length.
fn header_len(frame: &[u8]) -> usize {
    1 + frame[1..].iter().take(3).take_while(|b| **b & 0x80 != 0).count() + 1
}

/// Finds topic, identifier and payload of a PUBLISH; properties are stepped over.
#[inline]
pub(crate) fn cut_publish(version: Version, frame: &[u8]) -> Option<Cut<'_>> {
    let qos = match frame[0] >> 1 & 3 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return None,
    };
    let header = header_len(frame);
    let body = frame.get(header..)?;
    let (len, rest) = body.split_first_chunk::<2>()?;
    let (topic, mut rest) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    let id_at = header + 2 + topic.len();
    let mut id = 0;
    if qos != QoS::AtMostOnce {
        let (bytes, after) = rest.split_first_chunk::<2>()?;
        id = u16::from_be_bytes(*bytes);
        rest = after;
    }
    let mut block: &[u8] = &[];
    if version == Version::V5 {
        let mut properties = 0usize;
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first()?;
            properties |= usize::from(byte & 0x7F) << shift;
            rest = after;
            if byte & 0x80 == 0 {
                break;
            }
        }
        (block, rest) = rest.split_at_checked(properties)?;
    }
    Some(Cut { qos, id, id_at, topic, properties: block, payload: rest })
}

/// Identifier and reason of PUBACK, PUBREC, PUBREL and PUBCOMP.
#[inline]
pub(crate) fn cut_ack(frame: &[u8]) -> Option<(u16, ReasonCode)> {
    let id = u16::from_be_bytes([*frame.get(2)?, *frame.get(3)?]);
    let code = match frame.get(4) {
        None => ReasonCode::Success,
        Some(byte) => ReasonCode::try_from(*byte).ok()?,
    };
    Some((id, code))
}
