//! Connections: from accept to close on one worker thread, with nothing locked.
//!
//! A [`Worker`] owns its connections' sockets, buffers, sessions and timers. The
//! files beside this one are its parts by subject: letting clients in (`handshake`), their
//! packets (`inbound`), publishing (`publish`), subscribing (`subscribe`), delivering
//! (`deliver`, `queue`), ending (`closing`).

mod census;
mod closing;
mod deliver;
mod handshake;
mod im;
mod inbound;
mod message;
mod output;
mod plan;
mod publish;
mod queue;
mod rate;
mod room;
mod session;
mod socket;
mod subscribe;
mod wheel;
mod worker;

pub use census::{Census, ClientFacts};
pub use closing::group_slot;
pub use worker::{Moment, Ready, WAKE, Worker, WorkerParts};

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use hoopoe_codec::{QoS, Version};
use hoopoe_core::{Location, SessionId};
use hoopoe_store::command::StoredWill;
use hoopoe_store::floors::Floors;

use crate::access::{Access, Identity, PasswordTicket};
use crate::bridges::{BridgeSeat, Bridges};
use crate::fabric::Fabric;
use crate::im::ImNode;
use crate::settings::Door;
use crate::telemetry::{SystemTopics, Telemetry};
use crate::transport::{ConnectionPermit, ListenerTransport, WorkerSeat};
use output::Output;
use session::{Owed, Session};
use socket::Socket;

/// Limits that every connection keeps; announced in CONNACK where the standard has a property.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest packet taken, in bytes.
    pub max_packet_bytes: u32,
    /// Highest QoS taken.
    pub max_qos: QoS,
    /// Whether RETAIN is taken.
    pub retain_available: bool,
    /// Whether filters may have wildcards.
    pub wildcard_available: bool,
    /// Whether there are shared subscriptions.
    pub shared_available: bool,
    /// Longest keep-alive, in seconds; 0 in a CONNECT becomes this.
    pub keep_alive_max_secs: u16,
    /// Longest session expiry, in seconds.
    pub session_expiry_max_secs: u32,
    /// Unfinished publications a client may have (Receive Maximum of the server).
    pub receive_maximum: u16,
    /// Messages in flight to a 3.1.1 client, and the most to any client.
    pub window_v311: u16,
    /// Most messages in flight to a 5.0 client, whatever it offers.
    pub window_v5: u16,
    /// Topic aliases a client may set.
    pub topic_alias_maximum: u16,
    /// Most levels of a topic or filter.
    pub max_topic_levels: usize,
    /// Most bytes of a topic or filter.
    pub max_topic_bytes: usize,
    /// Most subscriptions of one client.
    pub max_subscriptions: usize,
    /// Most bytes of a client identifier.
    pub max_client_id_bytes: usize,
    /// Bytes that may wait for one socket before QoS 0 is dropped and delivery pauses.
    pub write_buffer_bytes: usize,
    /// Messages that may wait for room in the window of a session that is not stored.
    pub backlog_messages: usize,
    /// Bytes of those.
    pub backlog_bytes: usize,
    /// Publications per second of one client; 0 is no limit.
    pub publish_rate: u64,
    /// Bytes of publications per second of one client; 0 is no limit.
    pub publish_bytes_rate: u64,
    /// Seconds' worth of those rates that may be used at once.
    pub burst_secs: u64,
}

/// Bytes of answers that may wait for a socket on top of messages.
const ANSWER_BYTES: usize = 64 * 1024;

/// What all connections of the node share.
pub struct Env {
    /// The threads and the index.
    pub fabric: Fabric,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Counters.
    pub telemetry: Arc<Telemetry>,
    /// `$SYS`.
    pub system: Arc<SystemTopics>,
    /// Shared-subscription groups by `$share/{ShareName}/{filter}`; shards keep it.
    pub groups: DashMap<Box<str>, SessionId>,
    /// With the `refuse` policy: a stored queue of so many messages takes no more (ruling 13);
    /// 0 with drop-oldest.
    pub refuse_at_messages: u64,
    /// What the shards count of what is stored.
    pub floors: Arc<Floors>,
    /// Publications with RETAIN, while some client is sent retained messages.
    pub retained: RetainedOrder,
    /// What all threads share of the IM profile.
    pub im: ImNode,
    /// This broker's name among linked ones.
    pub broker_id: Arc<str>,
    /// Its links to others, once they have been started.
    pub bridges: OnceLock<Arc<Bridges>>,
    /// Numbers for subscribers that are not stored.
    pub subscribers: AtomicU64,
}

/// In which order publications with RETAIN and new subscriptions came (ruling 8): a subscription
/// gets the first ones from its scan, the later ones live, each once.
#[derive(Default)]
pub struct RetainedOrder {
    /// Submitted and not yet committed.
    pub under_way: AtomicU64,
    last: AtomicU64,
    scans: AtomicU64,
    /// Number of the last publication per topic (by hash), kept while scans run.
    latest: DashMap<u64, u64>,
}

impl RetainedOrder {
    /// A publication is about to be matched against the index.
    pub fn published(&self, topic_hash: u64) {
        let number = self.last.fetch_add(1, Ordering::AcqRel) + 1;
        if self.scans.load(Ordering::Acquire) > 0 {
            self.latest.insert(topic_hash, number);
        }
    }

    /// Scans are going to be made for subscriptions that are about to enter the index.
    pub fn begin_scans(&self, scans: usize) {
        self.scans.fetch_add(scans as u64, Ordering::AcqRel);
    }

    /// The last publication's number.
    pub fn number(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Whether the topic was published to after that number.
    pub fn is_later(&self, topic_hash: u64, number: u64) -> bool {
        self.latest.get(&topic_hash).is_some_and(|latest| *latest > number)
    }

    /// Scans have ended.
    pub fn end_scans(&self, scans: usize) {
        let scans = scans as u64;
        if scans > 0 && self.scans.fetch_sub(scans, Ordering::AcqRel) == scans {
            self.latest.clear();
        }
    }
}

/// A listener as its connections see it.
pub struct Listener {
    /// Its URL, for logs and metrics.
    pub url: String,
    /// TCP, TLS, WebSocket and so on.
    pub transport: Arc<ListenerTransport>,
    /// Whom it lets in without a password; changes on reload.
    pub door: ArcSwap<Door>,
    /// Limits of its clients; those of a reload hold for connections accepted from then on.
    pub limits: ArcSwap<Limits>,
    /// The subject of a client's certificate is its user name.
    pub subject_as_user: bool,
    /// Users who come in here are users of the IM profile.
    pub im: bool,
    /// Seconds from accept to CONNECT.
    pub connect_timeout_secs: u64,
    /// Set where a link of this broker's own connects, which needs no password.
    pub bridge: Option<Arc<BridgeSeat>>,
}

/// A connection's places at its listener and its worker, free again when it is dropped.
#[derive(Debug)]
pub struct Seats {
    /// At the listener.
    pub permit: ConnectionPermit,
    /// At the worker.
    pub seat: WorkerSeat,
}

/// A CONNECT that waits for its password check or its session.
#[derive(Debug)]
struct Newcomer {
    version: Version,
    clean_start: bool,
    keep_alive_secs: u16,
    client_id: Arc<str>,
    assigned_id: bool,
    identity: Option<Identity>,
    /// Held while the password is checked.
    ticket: Option<PasswordTicket>,
    will: Option<StoredWill>,
    expiry_secs: u32,
    receive_maximum: u16,
    maximum_packet: u32,
    topic_alias_maximum: u16,
    request_response: bool,
    request_problem: bool,
    expiry_capped: bool,
    /// A device of an IM user wants no replay (`im-start = heads`).
    heads_only: bool,
    /// The client is another broker's bridge.
    bridge: bool,
    /// A link's remote broker has forgotten its unfinished publications.
    incoming_anew: bool,
    /// A link asks for this broker's id.
    asks_id: bool,
}

/// How far a connection is.
#[derive(Debug)]
enum Phase {
    /// CONNECT is awaited.
    Greeting,
    /// The password is being checked.
    Checking(Box<Newcomer>),
    /// The user's shard has been asked for the session.
    Opening(Box<Newcomer>),
    /// The client is in.
    Active(Box<Session>),
    /// The session is going back to its shard, or has gone.
    Ended,
}

/// A session whose connection has ended, until its last publications are committed.
#[derive(Debug)]
struct Leaving {
    answers: hoopoe_core::session::Answers<Owed>,
    subscriber: u64,
    close: hoopoe_store::command::Close,
}

/// One client connection.
struct Connection {
    location: Location,
    listener: Arc<Listener>,
    limits: Arc<Limits>,
    seats: Seats,
    peer: SocketAddr,
    /// `None` once closed; the rest may wait for commits.
    socket: Option<Socket>,
    phase: Phase,
    leaving: Option<Box<Leaving>>,
    /// Received bytes that are no whole packet yet, or wait while the client is not read.
    partial: Vec<u8>,
    output: Option<Box<Output>>,
    dirty: bool,
    /// The socket may hold bytes to read.
    readable: bool,
    /// The socket took less than it was given: waits for writability.
    blocked: bool,
    /// The client is not read until answers have left.
    paused: bool,
    /// The client was not read because it does not read what it is sent.
    clogged: bool,
    /// Close the socket once the output is written.
    finishing: bool,
    keep_alive_secs: u16,
    /// Second in which the client was last heard.
    heard_secs: u64,
    /// Second by which something has to happen (CONNECT, or the end of lingering).
    deadline_secs: u64,
}

impl Connection {
    fn session(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Active(session) => Some(session),
            _ => None,
        }
    }

    fn output_len(&self) -> usize {
        let wrapped = self.socket.as_ref().map_or(0, Socket::waiting);
        wrapped + self.output.as_ref().map_or(0, |output| output.len())
    }

    /// Takes over the address that a PROXY header named, and charges it for the connection; false
    /// when it connects too often. The acceptor has charged direct clients.
    fn charge_proxied(&mut self) -> bool {
        let Some(layers) = self.socket.as_ref().and_then(|socket| socket.layers()) else {
            return true;
        };
        let proxied = self.listener.transport.proxies.is_some();
        self.peer = layers.peer().address;
        let now = std::time::Instant::now();
        !proxied || self.seats.permit.gate().charge(self.peer.ip(), now).is_ok()
    }

    /// The user that the client's certificate names, where the listener goes by it.
    fn certificate_user(&self) -> Option<String> {
        let layers = self.socket.as_ref()?.layers()?;
        let name = layers.peer().common_name.as_deref().filter(|_| self.listener.subject_as_user);
        name.map(str::to_owned)
    }

    /// More waits for the socket than may: QoS 0 is dropped, everything else waits.
    fn is_full(&self) -> bool {
        let to_come = match &self.phase {
            Phase::Active(session) => session.stored.as_ref().map_or(0, |s| s.steps_bytes),
            _ => 0,
        };
        self.output_len() + to_come > self.limits.write_buffer_bytes
    }

    /// More waits for the socket than messages alone make it: a client that asks and does not
    /// listen is not heard either, until it takes what it asked for.
    fn is_clogged(&self) -> bool {
        let messages = self.limits.write_buffer_bytes + self.limits.max_packet_bytes as usize;
        self.output_len() > messages + ANSWER_BYTES
    }

    /// Whether the client is not to be read now; notes it, for reading to go on later.
    fn holds_back(&mut self) -> bool {
        self.clogged = self.is_clogged();
        self.clogged
    }

    fn label(&self) -> String {
        match &self.phase {
            Phase::Active(session) => session.key.to_string(),
            Phase::Checking(newcomer) | Phase::Opening(newcomer) => newcomer.client_id.to_string(),
            _ => String::new(),
        }
    }
}
