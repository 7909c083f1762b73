//! What clients write: packets are appended to the client's buffer and written once per turn.

use std::io::{self, Write};

use hoopoe_codec::{
    Connect, ConnectProperties, Disconnect, PacketId, PublishHead, QoS, ReasonCode, RetainHandling,
    Subscribe, SubscribeOptions, Version,
};
use rustix::event::epoll::{self, EventData, EventFlags};

use super::client::{Client, Unsettled};
use super::transport::Layers;
use super::{Down, Driver, Greeting, MAX_UNWRITTEN, Net, State, Token};
use crate::clock::now_ns;
use crate::stamp::{Sealer, Stamp};

/// Between two rounds of PINGREQ.
const PING_EVERY_NS: u64 = 100_000_000;

/// Everything of a PUBLISH but identifier and payload; made once per channel.
pub(crate) struct Template {
    head: Vec<u8>,
    id_at: Option<usize>,
    payload_len: usize,
}

impl Template {
    /// A template for messages of one topic, QoS and size.
    pub(crate) fn new(version: Version, topic: &str, qos: QoS, retain: bool, size: usize) -> Self {
        let head = PublishHead {
            version,
            dup: false,
            qos,
            retain,
            topic,
            forwardable: &[],
            message_expiry_secs: None,
            topic_alias: None,
            subscription_ids: &[],
            payload_len: size,
        };
        let mut bytes = Vec::new();
        let id = (qos != QoS::AtMostOnce).then(|| PacketId::new(1)).flatten();
        let id_at = head.encode(id, &mut bytes);
        Template { head: bytes, id_at, payload_len: size }
    }
}

impl Net {
    /// Opens the connection of a client that is down and says CONNECT.
    pub(crate) fn connect<D: Driver>(&mut self, driver: &mut D, client: u32, hello: &Greeting<'_>) {
        if let Err(e) = self.begin_connect(client, hello) {
            self.clients[client as usize].reset();
            driver.on_down(self, client, e);
        }
    }

    fn begin_connect(&mut self, client: u32, hello: &Greeting<'_>) -> Result<(), Down> {
        let target = self.target.clone();
        let stream = target.open(client, self.narrow.contains(&client)).map_err(Down::Connect)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(client.into()), flags)
            .map_err(|e| Down::Connect(e.into()))?;
        let layers = Layers::new(&target).map_err(Down::Handshake)?;
        let c = &mut self.clients[client as usize];
        c.reset();
        c.stream = Some(stream);
        c.layers = layers;
        c.state = State::Connecting;
        c.opened_ns = now_ns();
        c.quota = u16::MAX;
        let connect = Connect {
            version: target.version,
            bridge: false,
            clean_start: hello.clean,
            keep_alive_secs: target.keep_alive_secs,
            client_id: hello.client_id,
            will: None,
            username: hello.username,
            password: hello.password.map(str::as_bytes),
            properties: ConnectProperties {
                session_expiry_secs: (hello.session_expiry_secs > 0)
                    .then_some(hello.session_expiry_secs),
                ..ConnectProperties::default()
            },
        };
        connect.encode(target.version, &mut c.out);
        Ok(())
    }

    /// The socket says that it is connected, or that it will not be.
    pub(super) fn finish_connect<D: Driver>(
        &mut self,
        driver: &mut D,
        client: u32,
        flags: EventFlags,
    ) {
        let c = &mut self.clients[client as usize];
        let Some(stream) = &c.stream else { return };
        match stream.take_error() {
            Ok(None) if flags.contains(EventFlags::OUT) => {
                c.state = State::Greeting;
                self.writing(client);
            }
            Ok(None) => {}
            Ok(Some(e)) | Err(e) => self.fail(driver, client, Down::Connect(e)),
        }
    }

    /// True when the client may publish now: up, its window open, its socket not clogged.
    #[inline]
    pub(crate) fn has_room(&self, client: u32) -> bool {
        let c = &self.clients[client as usize];
        c.state == State::Up
            && c.inflight.len() < usize::from(c.quota)
            && c.out.len() - c.written < MAX_UNWRITTEN
    }

    /// Publishes a stamped payload.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        client: u32,
        template: &Template,
        token: Token,
        sealer: &Sealer,
        stamp: &Stamp,
    ) {
        let c = self.begin_publish(client, template, token);
        sealer.write(stamp, template.payload_len, &mut c.out);
    }

    /// Writes everything but the payload.
    #[inline]
    fn begin_publish(&mut self, client: u32, template: &Template, token: Token) -> &mut Client {
        self.totals.published += 1;
        let c = self.writing(client);
        let start = c.out.len();
        c.out.extend_from_slice(&template.head);
        if let Some(at) = template.id_at {
            let id = c.next_id();
            c.out[start + at..start + at + 2].copy_from_slice(&id.to_be_bytes());
            c.inflight.push_back(Unsettled { id, token });
        }
        c
    }

    /// Publishes a template without payload (used to clear a retained message).
    pub(crate) fn publish_empty(&mut self, client: u32, template: &Template, token: Token) {
        self.begin_publish(client, template, token);
    }

    /// Publishes at QoS 0 what is no message: a call, a cursor.
    pub(crate) fn publish_text(&mut self, client: u32, topic: &str, payload: &[u8]) {
        let version = self.target.version;
        let template = Template::new(version, topic, QoS::AtMostOnce, false, payload.len());
        let c = self.writing(client);
        c.out.extend_from_slice(&template.head);
        c.out.extend_from_slice(payload);
    }

    /// Sends one SUBSCRIBE.
    pub(crate) fn subscribe(&mut self, client: u32, filters: &[(String, QoS)]) {
        let version = self.target.version;
        let c = self.writing(client);
        let Some(id) = PacketId::new(c.next_id()) else { return };
        let subscribe = Subscribe {
            id,
            subscription_id: None,
            user_properties: Default::default(),
            filters: filters
                .iter()
                .map(|(filter, qos)| {
                    let options = SubscribeOptions {
                        qos: *qos,
                        no_local: false,
                        retain_as_published: false,
                        retain_handling: RetainHandling::Send,
                    };
                    (filter.as_str(), options)
                })
                .collect(),
        };
        subscribe.encode(version, &mut c.out);
    }

    /// Sends PINGREQ to the next few clients, so that everybody has had one after half the keep-alive.
    pub(super) fn keep_alive(&mut self) {
        let now = now_ns();
        let half_ns = u64::from(self.target.keep_alive_secs) * 500_000_000;
        if half_ns == 0 || now < self.pinged_ns + PING_EVERY_NS {
            return;
        }
        let share = (now - self.pinged_ns) as f64 / half_ns as f64;
        self.pinged_ns = now;
        let count = (self.clients.len() as f64 * share).ceil() as usize;
        for _ in 0..count.min(self.clients.len()) {
            self.ping_next = (self.ping_next + 1) % self.clients.len();
            if self.clients[self.ping_next].state == State::Up {
                self.writing(self.ping_next as u32).out.extend_from_slice(&[0xC0, 0]);
            }
        }
    }

    /// Says DISCONNECT and closes; what the socket does not take at once is dropped.
    pub(crate) fn leave(&mut self, client: u32) {
        let version = self.target.version;
        let c = &mut self.clients[client as usize];
        if c.state == State::Up {
            self.totals.up -= 1;
            let farewell = Disconnect {
                code: ReasonCode::Success,
                session_expiry_secs: None,
                reason_string: None,
                server_reference: None,
                user_properties: Default::default(),
            };
            farewell.encode(version, &mut c.out);
            let _ = Self::write_out(c);
        }
        c.reset();
    }

    /// Closes without DISCONNECT.
    pub(crate) fn drop_connection(&mut self, client: u32) {
        if self.clients[client as usize].state == State::Up {
            self.totals.up -= 1;
        }
        self.clients[client as usize].reset();
    }

    pub(super) fn fail<D: Driver>(&mut self, driver: &mut D, client: u32, why: Down) {
        let unsettled = std::mem::take(&mut self.clients[client as usize].inflight);
        self.drop_connection(client);
        for one in unsettled {
            driver.on_unsettled(self, client, one.token);
        }
        driver.on_down(self, client, why);
    }

    /// Writes what has been collected for every client; one write each, if the socket takes it.
    pub(super) fn flush<D: Driver>(&mut self, driver: &mut D) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for client in dirty.drain(..) {
            let c = &mut self.clients[client as usize];
            c.dirty = false;
            if c.stream.is_none() || c.state == State::Connecting || c.blocked {
                continue;
            }
            match Self::write_out(c) {
                Ok(written) => {
                    self.totals.bytes_out += written as u64;
                    Self::take_back(&mut self.spare, c);
                }
                Err(e) => self.fail(driver, client, Down::Broken(e)),
            }
        }
        // Hooks of failed connections may have marked others.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Writes one client's bytes.
    fn write_out(c: &mut Client) -> io::Result<usize> {
        let Some(stream) = &mut c.stream else { return Ok(0) };
        if let Some(layers) = &mut c.layers {
            let before = c.out.len();
            c.blocked = !layers.write(stream, &mut c.out)?;
            return Ok(before - c.out.len());
        }
        let mut total = 0;
        while c.written < c.out.len() {
            match stream.write(&c.out[c.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    c.written += n;
                    total += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    c.blocked = true;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if c.written == c.out.len() {
            c.out.clear();
            c.written = 0;
        } else if c.written >= MAX_UNWRITTEN {
            c.out.drain(..c.written);
            c.written = 0;
        }
        Ok(total)
    }
}
