//! The MQTT side of the chat: one session in MQTT 5, its connection, and the one request that
//! waits for its answer.
//!
//! One line of a person's is carried out at a time, so one packet at most is unanswered. After a
//! lost connection it is sent again, under its packet identifier and with its client message id:
//! the broker gives the first result again and stores nothing twice.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use hoopoe_codec::{
    Ack, AckKind, Connect, ConnectProperties, Disconnect, Packet, PacketId, Publish,
    PublishProperties, QoS, ReasonCode, Receiver, Subscribe, SubscribeOptions, Unsubscribe,
    UserProperties, Version, decode, frame_length,
};

use super::link::{Link, Server};

/// The longest silence towards the broker.
const KEEP_ALIVE_SECS: u16 = 60;
/// How long the broker keeps the session of a chat that has gone.
const SESSION_EXPIRY_SECS: u32 = 24 * 3600;
/// The largest packet a chat takes from the broker.
const PACKET_MAX: u32 = 1 << 20;
/// How long an answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// Who the chat is.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) device: String,
    pub(super) password: Vec<u8>,
}

/// What the one request in flight is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    /// A message to a place.
    Message(String),
    /// Anything else that is done when it is acknowledged; said then.
    Done(String),
    /// The read cursor of a conversation, moved to there.
    Read(String, u64),
    /// A service; over when its answer has come.
    Service(String),
    /// A room entered.
    Enter(String),
    /// A room left.
    Exit(String),
}

/// A request on its way.
struct Request {
    asked: Asked,
    id: PacketId,
    /// The packet, to be sent again after a lost connection.
    packet: Vec<u8>,
    /// The request id of a service call.
    req: Option<String>,
    since: Instant,
}

/// What came of the packets read.
pub(super) enum Happened {
    /// The broker took the chat in.
    Connected,
    /// A publication, as a packet; acknowledged already.
    Published(Vec<u8>),
    /// The request is answered: refused with code and reason, or done with these properties.
    Answered(Asked, Result<Vec<(String, String)>, (ReasonCode, String)>),
    /// The broker sends the chat away for good.
    Dismissed(String),
}

/// The session.
pub(super) struct Client {
    server: Server,
    login: Login,
    link: Option<Link>,
    connected: bool,
    buffer: Vec<u8>,
    next_id: u16,
    waiting: Option<Request>,
    /// A PINGREQ is unanswered.
    pinged: bool,
    /// Rooms to enter again when the broker has forgotten the session.
    rooms: Vec<String>,
}

impl Client {
    pub(super) fn new(server: Server, login: Login) -> Client {
        Client {
            server,
            login,
            link: None,
            connected: false,
            buffer: Vec::new(),
            next_id: 1,
            waiting: None,
            pinged: false,
            rooms: Vec::new(),
        }
    }

    /// Opens a connection and sends CONNECT; returns the socket to read.
    pub(super) fn connect(&mut self) -> anyhow::Result<std::net::TcpStream> {
        let mut link = self.server.connect()?;
        let connect = Connect {
            version: Version::V5,
            bridge: false,
            clean_start: false,
            keep_alive_secs: KEEP_ALIVE_SECS,
            client_id: &self.login.device,
            will: None,
            username: Some(&self.login.user),
            password: Some(&self.login.password),
            properties: ConnectProperties {
                session_expiry_secs: Some(SESSION_EXPIRY_SECS),
                maximum_packet_size: std::num::NonZeroU32::new(PACKET_MAX),
                ..ConnectProperties::default()
            },
        };
        let mut packet = Vec::new();
        connect.encode(Version::V5, &mut packet);
        link.send(&packet).context("the broker takes nothing")?;
        let reader = link.reader()?;
        self.link = Some(link);
        (self.connected, self.pinged) = (false, false);
        self.buffer.clear();
        Ok(reader)
    }

    /// Whether a request waits for its answer.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.is_some()
    }

    /// The connection is over.
    pub(super) fn lost(&mut self) {
        if let Some(mut link) = self.link.take() {
            link.close();
        }
        self.connected = false;
    }

    /// Takes leave.
    pub(super) fn leave(&mut self) {
        let mut packet = Vec::new();
        Disconnect::with_code(ReasonCode::Success).encode(Version::V5, &mut packet);
        // Where it cannot be written, the connection is over anyway.
        let _ = self.send(&packet);
        self.lost();
    }

    /// Asks whether the broker is there, unless it has not answered the last time.
    pub(super) fn ping(&mut self) -> io::Result<()> {
        if !self.connected {
            return Ok(());
        }
        if std::mem::replace(&mut self.pinged, true) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the broker is silent"));
        }
        let mut packet = Vec::new();
        Packet::PingReq.encode(Version::V5, &mut packet);
        self.send(&packet)
    }

    /// How often to ping.
    pub(super) fn ping_interval() -> Duration {
        Duration::from_secs(u64::from(KEEP_ALIVE_SECS) / 2)
    }

    /// Gives up a request that has not been answered in time. While there is no connection, what
    /// was typed waits for one, unless the person is `leaving`.
    pub(super) fn give_up(&mut self, now: Instant, leaving: bool) -> Option<Asked> {
        if !self.connected && !leaving {
            return None;
        }
        let late = |request: &mut Request| now.duration_since(request.since) > ANSWER_PATIENCE;
        self.waiting.take_if(late).map(|request| request.asked)
    }

    /// Publishes at QoS 1; the answer comes as [`Happened::Answered`].
    pub(super) fn publish(&mut self, topic: &str, payload: &[u8], asked: Asked) -> io::Result<()> {
        let id = self.packet_id();
        let mut properties = PublishProperties::default();
        properties.payload_format_utf8 = Some(true);
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic,
            id: Some(id),
            properties,
            payload,
        };
        let mut packet = Vec::new();
        publish.encode(Version::V5, &mut packet);
        self.request(id, packet, asked)
    }

    /// Calls a service; its answer is a publication below `im/me/res/{req}/`.
    pub(super) fn call(&mut self, op: &str, req: &str, body: &[u8]) -> io::Result<()> {
        let sent = self.publish(&format!("im/svc/{op}/{req}"), body, Asked::Service(op.to_owned()));
        if let Some(request) = &mut self.waiting {
            request.req = Some(req.to_owned());
        }
        sent
    }

    /// Enters a room: its subscription is being in it.
    pub(super) fn enter(&mut self, room: &str) -> io::Result<()> {
        let id = self.packet_id();
        let packet = subscription(id, room);
        self.request(id, packet, Asked::Enter(room.to_owned()))
    }

    /// Leaves a room.
    pub(super) fn exit(&mut self, room: &str) -> io::Result<()> {
        let id = self.packet_id();
        let filter = format!("im/r/{room}/#");
        let unsubscribe = Unsubscribe {
            id,
            user_properties: UserProperties::default(),
            filters: [filter.as_str()].into_iter().collect(),
        };
        let mut packet = Vec::new();
        Packet::Unsubscribe(unsubscribe).encode(Version::V5, &mut packet);
        self.request(id, packet, Asked::Exit(room.to_owned()))
    }

    fn request(&mut self, id: PacketId, packet: Vec<u8>, asked: Asked) -> io::Result<()> {
        let sent = if self.connected { self.send(&packet) } else { Ok(()) };
        self.waiting = Some(Request { asked, id, packet, req: None, since: Instant::now() });
        sent
    }

    fn packet_id(&mut self) -> PacketId {
        let id = PacketId::new(self.next_id).unwrap_or(PacketId::MIN);
        self.next_id = id.get().wrapping_add(1);
        id
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        match &mut self.link {
            Some(link) => link.send(packet),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Takes bytes that were read; says what happened.
    pub(super) fn take(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Happened>> {
        let Some(link) = &mut self.link else { return Ok(Vec::new()) };
        link.take(bytes, &mut self.buffer)?;
        let mut happened = Vec::new();
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..];
        let fault = |fault| anyhow!("the broker broke the protocol: {fault}");
        while let Some(length) = frame_length(rest, PACKET_MAX).map_err(fault)? {
            let (frame, more) = rest.split_at(length);
            rest = more;
            let packet = decode(Version::V5, Receiver::Client, frame).map_err(fault)?;
            happened.extend(self.packet(packet, frame)?);
        }
        self.buffer = rest.to_vec();
        Ok(happened)
    }

    fn packet(&mut self, packet: Packet<'_>, frame: &[u8]) -> anyhow::Result<Option<Happened>> {
        Ok(match packet {
            Packet::ConnAck(connack) if connack.code == ReasonCode::Success => {
                self.connected = true;
                self.resume(connack.session_present)?;
                Some(Happened::Connected)
            }
            Packet::ConnAck(connack) => {
                let why = connack.properties.reason_string.unwrap_or_default();
                let said = format!("the broker refuses: {} {why}", connack.code.name());
                let later = [ReasonCode::ServerUnavailable, ReasonCode::ServerBusy];
                match later.contains(&connack.code) {
                    true => return Err(anyhow!(said)),
                    false => Some(Happened::Dismissed(said)),
                }
            }
            Packet::Publish(publish) => {
                self.acknowledge(&publish)?;
                Some(Happened::Published(frame.to_vec()))
            }
            // Nothing is subscribed at QoS 2, and nothing published.
            Packet::PubAck(ack) => {
                let reason = ack.properties.reason_string;
                let pairs = ack.properties.user_properties.iter();
                let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
                self.answered(ack.id, ack.code, reason, pairs.collect())
            }
            Packet::SubAck(suback) | Packet::UnsubAck(suback) => {
                let code = suback.codes.first().copied().unwrap_or(ReasonCode::UnspecifiedError);
                self.answered(suback.id, code, suback.properties.reason_string, Vec::new())
            }
            Packet::PingResp => {
                self.pinged = false;
                None
            }
            Packet::Disconnect(disconnect) => {
                let why = disconnect.reason_string.unwrap_or_default();
                let said = format!("the broker takes leave: {} {why}", disconnect.code.name());
                let for_good = [ReasonCode::SessionTakenOver, ReasonCode::AdministrativeAction];
                match for_good.contains(&disconnect.code) {
                    true => Some(Happened::Dismissed(said)),
                    false => return Err(anyhow!(said)),
                }
            }
            _ => None,
        })
    }

    /// Goes on where the lost connection was.
    fn resume(&mut self, session_present: bool) -> io::Result<()> {
        if !session_present {
            for room in std::mem::take(&mut self.rooms) {
                // Nobody waits for this answer; a room that is closed by now stays out.
                let id = self.packet_id();
                self.send(&subscription(id, &room))?;
                self.rooms.push(room);
            }
        }
        let again = self.waiting.as_mut().map(|request| {
            request.since = Instant::now();
            request.packet.clone()
        });
        match again {
            Some(packet) => self.send(&packet),
            None => Ok(()),
        }
    }

    fn acknowledge(&mut self, publish: &Publish<'_>) -> io::Result<()> {
        let (Some(id), QoS::AtLeastOnce) = (publish.id, publish.qos) else { return Ok(()) };
        let mut packet = Vec::new();
        Ack::success(id).encode(AckKind::PubAck, Version::V5, &mut packet);
        self.send(&packet)
    }

    fn answered(
        &mut self,
        id: PacketId,
        code: ReasonCode,
        reason: Option<&str>,
        pairs: Vec<(String, String)>,
    ) -> Option<Happened> {
        let request = self.waiting.take_if(|request| request.id == id)?;
        if code as u8 >= 0x80 {
            let reason = reason.unwrap_or_default().to_owned();
            return Some(Happened::Answered(request.asked, Err((code, reason))));
        }
        match &request.asked {
            // Taken; the answer itself is a publication.
            Asked::Service(_) => {
                self.waiting = Some(request);
                return None;
            }
            Asked::Enter(room) if !self.rooms.contains(room) => self.rooms.push(room.clone()),
            Asked::Exit(room) => self.rooms.retain(|other| other != room),
            _ => {}
        }
        Some(Happened::Answered(request.asked, Ok(pairs)))
    }

    /// The service call that this answer of the `{req}` form belongs to.
    pub(super) fn called(&self, req: &str) -> Option<&str> {
        let request = self.waiting.as_ref()?;
        match &request.asked {
            Asked::Service(op) if request.req.as_deref() == Some(req) => Some(op),
            _ => None,
        }
    }

    /// The service has answered.
    pub(super) fn served(&mut self) {
        self.waiting = None;
    }
}

fn subscription(id: PacketId, room: &str) -> Vec<u8> {
    let filter = format!("im/r/{room}/#");
    let subscribe = Subscribe {
        id,
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters: [(filter.as_str(), SubscribeOptions::default())].into_iter().collect(),
    };
    let mut packet = Vec::new();
    Packet::Subscribe(subscribe).encode(Version::V5, &mut packet);
    packet
}
