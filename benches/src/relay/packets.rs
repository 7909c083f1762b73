//! What the relay does with each packet.

use hoopoe_codec::{
    ConnAck, ConnAckProperties, Packet, QoS, ReasonCode, Receiver, SubAck, decode, decode_connect,
};

use super::{Connection, Relay, Route, mark};
use crate::net::{cut_ack, cut_publish};

impl Relay {
    /// Handles one packet; `None` ends the connection.
    #[inline]
    pub(super) fn on_frame(&mut self, index: u32, frame: &[u8]) -> Option<()> {
        match frame[0] >> 4 {
            3 => self.on_publish(index, frame),
            4 | 7 => Some(()),
            5 => self.answer(index, 0x62, frame),
            6 => self.answer(index, 0x70, frame),
            _ => self.on_control(index, frame),
        }
    }

    /// PUBREC with PUBREL, PUBREL with PUBCOMP.
    fn answer(&mut self, index: u32, kind: u8, frame: &[u8]) -> Option<()> {
        let (id, _) = cut_ack(frame)?;
        self.say(index, &[kind, 2, (id >> 8) as u8, id as u8])
    }

    fn say(&mut self, index: u32, bytes: &[u8]) -> Option<()> {
        let c = self.connections[index as usize].as_mut()?;
        c.out.extend_from_slice(bytes);
        mark(c, index, &mut self.dirty);
        Some(())
    }

    #[inline]
    fn on_publish(&mut self, index: u32, frame: &[u8]) -> Option<()> {
        let version = self.connections[index as usize].as_ref()?.version?;
        let cut = cut_publish(version, frame)?;
        let [hi, lo] = cut.id.to_be_bytes();
        match cut.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.say(index, &[0x40, 2, hi, lo])?,
            QoS::ExactlyOnce => self.say(index, &[0x50, 2, hi, lo])?,
        }
        let Some(routes) = self.routes.get(cut.topic) else { return Some(()) };
        for route in routes {
            let to = route.connection;
            if route.version != version {
                continue;
            }
            if let Some(c) = self.connections[to as usize].as_mut() {
                copy(c, frame, cut.qos as u8, route.qos, cut.id_at);
                mark(c, to, &mut self.dirty);
            }
        }
        Some(())
    }

    fn on_control(&mut self, index: u32, frame: &[u8]) -> Option<()> {
        let mut answer = Vec::new();
        let Some(version) = self.connections[index as usize].as_ref()?.version else {
            let connect = decode_connect(frame).ok()?;
            self.connections[index as usize].as_mut()?.version = Some(connect.version);
            ConnAck {
                session_present: false,
                code: ReasonCode::Success,
                properties: ConnAckProperties::NONE,
            }
            .encode(connect.version, &mut answer);
            return self.say(index, &answer);
        };
        match decode(version, Receiver::Server, frame).ok()? {
            Packet::Subscribe(subscribe) => {
                let mut ack = SubAck {
                    id: subscribe.id,
                    codes: Default::default(),
                    properties: hoopoe_codec::AckProperties::NONE,
                };
                for (filter, options) in &subscribe.filters {
                    ack.codes.push(match options.qos {
                        QoS::AtMostOnce => ReasonCode::Success,
                        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
                        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
                    });
                    let topic: Box<[u8]> = filter.as_bytes().into();
                    let route = Route { connection: index, qos: options.qos as u8, version };
                    self.routes.entry(topic.clone()).or_default().push(route);
                    self.connections[index as usize].as_mut()?.topics.push(topic);
                }
                ack.encode(version, &mut answer);
            }
            Packet::PingReq => answer.extend_from_slice(&[0xD0, 0]),
            // DISCONNECT, and what only brokers with sessions can answer.
            _ => return None,
        }
        self.say(index, &answer)
    }
}

/// Copies a PUBLISH into a receiver's buffer; at a lower QoS than it was sent with, its header is
/// made anew.
#[inline]
fn copy(c: &mut Connection, frame: &[u8], sent: u8, granted: u8, id_at: usize) {
    let start = c.out.len();
    if granted >= sent {
        c.out.extend_from_slice(frame);
        c.out[start] = 0x30 | sent << 1;
        if sent > 0 {
            c.last_id = c.last_id.checked_add(1).unwrap_or(1);
            c.out[start + id_at..start + id_at + 2].copy_from_slice(&c.last_id.to_be_bytes());
        }
        return;
    }
    let topic_at = 1 + frame[1..].iter().take_while(|b| **b & 0x80 != 0).count() + 1;
    let id_len = if granted == 0 { 2 } else { 0 };
    let mut len = frame.len() - topic_at - id_len;
    c.out.push(0x30 | granted << 1);
    while len >= 0x80 {
        c.out.push(len as u8 | 0x80);
        len >>= 7;
    }
    c.out.push(len as u8);
    c.out.extend_from_slice(&frame[topic_at..id_at]);
    if granted > 0 {
        c.last_id = c.last_id.checked_add(1).unwrap_or(1);
        c.out.extend_from_slice(&c.last_id.to_be_bytes());
    }
    c.out.extend_from_slice(&frame[id_at + 2..]);
}
