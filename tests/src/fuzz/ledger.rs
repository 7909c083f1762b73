//! What the whole run knows: every publication that was sent, and the sessions of the clients of
//! which a model is kept.
//!
//! Time is a counter that moves with every publication and every answer, so that "published after
//! the UNSUBACK was read" is a comparison of two numbers.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Instant;

use hoopoe_codec::{PublishProperties, QoS, SubscribeOptions, topic_matches};

use super::link::Transcript;

/// Events kept of one tracked client.
const HISTORY_EVENTS: usize = 20;
/// Transcripts of ended connections kept of one tracked client.
const TRANSCRIPTS: usize = 4;
/// A Session Expiry Interval that does not end within a run.
const LONG_EXPIRY_SECS: u32 = 3600;

/// One publication as its publisher wrote it.
#[derive(Clone, Debug)]
pub struct Publication {
    /// QoS it was published with.
    pub qos: QoS,
    /// RETAIN flag it was published with.
    pub retain: bool,
    /// The properties that go on to the receivers unaltered.
    pub properties: Vec<u8>,
    /// Message Expiry Interval.
    pub expiry_secs: Option<u32>,
    /// When it was wholly written.
    pub at: u64,
    /// The same in real time.
    pub written: Instant,
    /// The connection it was sent on.
    pub connection: u64,
    /// The client it was sent by: user and identifier, where there is one.
    pub client: Option<Rc<str>>,
    /// It is a will: when it is published, if ever, is for the broker to say.
    pub will: bool,
    /// It was sent more than once, or under an identifier that was in use.
    pub repeated: bool,
    /// It came from a bridge of 3.1.1: the broker adds the property that says so.
    pub bridged: bool,
}

/// A subscription that may be in effect.
#[derive(Clone, Debug)]
pub struct Subscribed {
    /// The filter as it was sent.
    pub filter: Rc<str>,
    /// Its options as they were asked for.
    pub options: SubscribeOptions,
    /// Its Subscription Identifier.
    pub identifier: Option<u32>,
    /// What is published after this does not come by it any more.
    pub until: Option<u64>,
}

impl Subscribed {
    /// Whether it is a shared one.
    pub fn is_shared(&self) -> bool {
        self.filter.starts_with("$share/")
    }

    /// Whether a topic is matched, the share left out.
    pub fn matches(&self, topic: &str) -> bool {
        let bare = match self.filter.strip_prefix("$share/") {
            Some(rest) => rest.split_once('/').map_or("", |(_, filter)| filter),
            None => &*self.filter,
        };
        topic_matches(bare, topic)
    }
}

/// A message the client has received and not acknowledged to the end.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// QoS it came with.
    pub qos: QoS,
    /// Which message it is.
    pub message: u64,
    /// PUBREC was written.
    pub received: bool,
    /// A shared subscription may have brought it: what is not acknowledged may go to another.
    pub shared: bool,
    /// A later connection had no room for every message ([MQTT-3.1.2-25]): the broker may have
    /// given it up there.
    pub doubtful: bool,
}

/// What a client knows of its session, over all connections of the session.
#[derive(Debug, Default)]
pub struct Session {
    /// Subscriptions that may be in effect.
    pub subscriptions: Vec<Subscribed>,
    /// Messages that came, by what they are.
    pub delivered: HashSet<u64>,
    /// Messages received and not acknowledged to the end.
    pub in_flight: BTreeMap<u16, Flight>,
    /// Identifiers for which a PUBREC was ever written.
    pub receipts: HashSet<u16>,
    /// Identifiers that were acknowledged out of turn: what the broker made of that is not known.
    pub strays: HashSet<u16>,
    /// Own QoS 2 publications that are not complete, with the packet that repeats them, in the
    /// order in which they were first sent [MQTT-4.6.0-1].
    pub unfinished: Vec<(u16, Vec<u8>)>,
    /// How long the session outlives its connection.
    pub expiry_secs: u32,
}

impl Session {
    /// The packet that repeats an own publication.
    pub fn unfinished(&mut self, id: u16) -> Option<&mut Vec<u8>> {
        self.unfinished.iter_mut().find(|(of, _)| *of == id).map(|(_, packet)| packet)
    }

    /// What was written before CONNACK told that it was to this session; `released` are the
    /// identifiers of PUBRELs.
    pub fn take_up(&mut self, early: Session, released: impl Iterator<Item = u16>) {
        for id in released {
            self.release(id);
        }
        self.subscriptions.extend(early.subscriptions);
        self.in_flight.retain(|id, _| !early.strays.contains(id));
        self.strays.extend(early.strays);
        self.receipts.extend(early.receipts);
        for (id, packet) in early.unfinished {
            self.begin(id, packet);
        }
    }

    /// PUBREL was written. Before PUBREC has come it ends the exchange for the broker, and the
    /// PUBLISH, if it were repeated, would be another one: true when that is so.
    pub fn release(&mut self, id: u16) -> bool {
        let early = self.unfinished(id).is_some_and(|packet| packet[0] >> 4 == 3);
        if early {
            self.finish(id);
        }
        early
    }

    /// An own publication is begun; one that had the identifier before is given up.
    pub fn begin(&mut self, id: u16, packet: Vec<u8>) {
        self.finish(id);
        self.unfinished.push((id, packet));
    }

    /// An own publication is complete.
    pub fn finish(&mut self, id: u16) {
        self.unfinished.retain(|(of, _)| *of != id);
    }
}

/// A session of which a model is kept.
#[derive(Debug, Default)]
struct Tracked {
    session: Rc<RefCell<Session>>,
    /// The connection that was accepted last.
    connection: u64,
    /// A CONNECT is on its way.
    connecting: bool,
    /// A CONNECT was sent of which nobody knows what became.
    blurred: bool,
    /// What has happened, for the report of a failure.
    history: VecDeque<String>,
    /// What passed over its last connections, for the same.
    transcripts: VecDeque<Transcript>,
}

/// What the whole run knows.
#[derive(Debug, Default)]
pub struct Ledger {
    publications: HashMap<u64, Vec<Publication>>,
    tracked: HashMap<String, Tracked>,
    bridges: HashSet<u64>,
    now: u64,
    /// When the first event was noted.
    begun: Option<Instant>,
    next_publication: u64,
    /// Messages checked on arrival.
    pub deliveries: u64,
    /// Packets that the broker sent.
    pub packets: u64,
    /// Sessions that were resumed.
    pub resumed: u64,
    /// Faults that were answered by the end of the connection.
    pub refused: u64,
}

/// Names a message by its topic and payload.
pub fn message(topic: &str, payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    payload.hash(&mut hasher);
    hasher.finish()
}

impl Ledger {
    /// The counter's next value.
    pub fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// The counter.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// A number no publication had before.
    pub fn number_publication(&mut self) -> u64 {
        self.next_publication += 1;
        self.next_publication
    }

    /// A connection's CONNECT says that it is a bridge.
    pub fn is_bridge(&mut self, connection: u64) {
        self.bridges.insert(connection);
    }

    /// Notes a publication that has been written.
    #[allow(clippy::too_many_arguments, reason = "the fields of a PUBLISH and where it came from")]
    pub fn published(
        &mut self,
        connection: u64,
        client: Option<&Rc<str>>,
        topic: &str,
        payload: &[u8],
        (qos, retain): (QoS, bool),
        properties: &PublishProperties<'_>,
        will: bool,
    ) {
        let at = self.tick();
        let copies = self.publications.entry(message(topic, payload)).or_default();
        let repeated = !copies.is_empty();
        if let Some(first) = copies.first_mut() {
            first.repeated = true;
        }
        copies.push(Publication {
            qos,
            retain,
            properties: properties.forwardable().into_owned(),
            expiry_secs: properties.message_expiry_secs,
            at,
            written: Instant::now(),
            connection,
            client: client.cloned(),
            will,
            repeated,
            bridged: self.bridges.contains(&connection),
        });
    }

    /// How often and in which order a message is delivered is not known.
    pub fn in_doubt(&mut self, message: u64) {
        for publication in self.publications.entry(message).or_default() {
            publication.repeated = true;
        }
    }

    /// Every publication of this topic and payload.
    pub fn find(&self, message: u64) -> &[Publication] {
        self.publications.get(&message).map_or(&[], Vec::as_slice)
    }

    /// Notes what has happened to a tracked client.
    pub fn note(&mut self, client_id: &str, event: String) {
        let history = &mut self.tracked.entry(client_id.to_owned()).or_default().history;
        if history.len() == HISTORY_EVENTS {
            history.pop_front();
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        history.push_back(format!("{:.3} s, {event}", begun.elapsed().as_secs_f64()));
    }

    /// What has happened to a tracked client.
    pub fn history(&self, client_id: &str) -> String {
        let history = self.tracked.get(client_id).map(|tracked| &tracked.history);
        history.into_iter().flatten().fold(String::new(), |text, event| text + event + "\n")
    }

    /// Keeps what passed over a tracked client's connection, which has ended.
    pub fn leave_transcript(&mut self, client_id: &str, transcript: Transcript) {
        let transcripts = &mut self.tracked.entry(client_id.to_owned()).or_default().transcripts;
        if transcripts.len() == TRANSCRIPTS {
            transcripts.pop_front();
        }
        transcripts.push_back(transcript);
    }

    /// What passed over a tracked client's last connections.
    pub fn transcripts(&self, client_id: &str) -> impl Iterator<Item = &Transcript> {
        self.tracked.get(client_id).into_iter().flat_map(|tracked| &tracked.transcripts)
    }

    /// Whether a CONNECT with this tracked identifier may be sent now.
    pub fn may_connect(&self, client_id: &str) -> bool {
        self.tracked.get(client_id).is_none_or(|tracked| !tracked.connecting)
    }

    /// A CONNECT with a tracked identifier is about to be sent.
    pub fn connecting(&mut self, client_id: &str) {
        self.tracked.entry(client_id.to_owned()).or_default().connecting = true;
    }

    /// The CONNECT was answered, or its connection ended. Without an answer nobody knows what the
    /// broker did.
    pub fn connected(&mut self, client_id: &str, answered: bool) {
        let tracked = self.tracked.entry(client_id.to_owned()).or_default();
        tracked.connecting = false;
        tracked.blurred |= !answered;
    }

    /// Whether this is the connection of the tracked session that was accepted last.
    pub fn is_current(&self, client_id: &str, connection: u64) -> bool {
        self.tracked.get(client_id).is_some_and(|tracked| tracked.connection == connection)
    }

    /// A new session begins for a tracked client.
    pub fn begin_session(
        &mut self,
        client_id: &str,
        connection: u64,
        session: Rc<RefCell<Session>>,
    ) {
        let tracked = self.tracked.entry(client_id.to_owned()).or_default();
        tracked.session = session;
        tracked.connection = connection;
        tracked.blurred = false;
    }

    /// A tracked session goes on over another connection; `None` when nothing is known of it.
    pub fn resume_session(
        &mut self,
        client_id: &str,
        connection: u64,
    ) -> Option<Rc<RefCell<Session>>> {
        let tracked = self.tracked.entry(client_id.to_owned()).or_default();
        let known = tracked.connection != 0 && !tracked.blurred;
        tracked.connection = connection;
        known.then(|| tracked.session.clone())
    }

    /// Whether the broker must still have the session of a tracked client.
    pub fn must_be_present(&self, client_id: &str) -> bool {
        self.tracked.get(client_id).is_some_and(|tracked| {
            // When the broker took a connection for ended is its own affair; no run is that long.
            let long = tracked.session.borrow().expiry_secs >= LONG_EXPIRY_SECS;
            tracked.connection != 0 && !tracked.blurred && long
        })
    }

    /// Whether the broker can have a session of a tracked client at all.
    pub fn may_be_present(&self, client_id: &str) -> bool {
        self.tracked
            .get(client_id)
            .is_some_and(|tracked| tracked.connection != 0 || tracked.blurred)
    }

    /// What the client knows of its session: for the publications it is to repeat.
    pub fn session(&self, client_id: &str) -> Option<Rc<RefCell<Session>>> {
        let tracked = self.tracked.get(client_id)?;
        (!tracked.blurred).then(|| tracked.session.clone())
    }
}
