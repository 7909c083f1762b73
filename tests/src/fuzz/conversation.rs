//! One connection as the standard sees it: what was sent, which answers are owed for it, what the
//! broker may send. This file follows the client's own packets; `answers` judges the broker's.
//!
//! It is fed with the bytes that were really written, cut and decoded as a server would, so that
//! mutated packets need no special care: whatever they mean, they mean here.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use hoopoe_codec::{
    Ack, Connect, Disconnect, Fault, Packet, Publish, QoS, Receiver, SharedFilter, Subscribe,
    Unsubscribe, Version, check_filter, decode, decode_connect, frame_length,
};

use super::ledger::{Flight, Ledger, Session, Subscribed};
use super::limits::Limits;
use super::vocabulary::TRACKED;

/// The terms of the connection, from its CONNECT.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Protocol version.
    pub version: Version,
    /// Client identifier as it was sent.
    pub client_id: Rc<str>,
    /// Whose session it is: user and client identifier; none when the broker gives the latter.
    pub client: Option<Rc<str>>,
    /// Whether a model of the session is kept.
    pub tracked: bool,
    /// Clean Start.
    pub clean: bool,
    /// Session Expiry Interval as the broker will keep it.
    pub expiry_secs: u32,
    /// Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum Packet Size.
    pub maximum_packet: u32,
    /// Topic Alias Maximum.
    pub alias_maximum: u16,
    /// Keep Alive.
    pub keep_alive_secs: u16,
}

/// What a PUBCOMP that is awaited ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// The exchange under its identifier.
    Exchange,
    /// One that was over for the broker with PUBREL: under its identifier another has been begun
    /// since.
    Earlier,
    /// Nothing: when PUBREL was written, there was no exchange.
    Nothing,
}

/// A packet identifier whose answer is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owed {
    /// The identifier.
    pub id: u16,
    /// A repetition: the answer to the first may answer both.
    pub optional: bool,
}

/// Answers that the broker owes, in the order they were asked for.
#[derive(Debug, Default)]
pub struct Expected {
    /// PUBACK.
    pub pubacks: VecDeque<u16>,
    /// PUBREC.
    pub pubrecs: VecDeque<Owed>,
    /// PUBREL for every PUBREC that was sent.
    pub pubrels: VecDeque<u16>,
    /// PUBCOMP, and what it ends.
    pub pubcomps: VecDeque<(u16, Ends)>,
    /// SUBACK, with what was asked for.
    pub subacks: VecDeque<(u16, Vec<Subscribed>)>,
    /// UNSUBACK, with the filters.
    pub unsubacks: VecDeque<(u16, Vec<Rc<str>>)>,
    /// PINGRESP.
    pub pings: usize,
}

impl Expected {
    /// Whether nothing is owed any more.
    pub fn is_empty(&self) -> bool {
        self.pubacks.is_empty()
            && self.pubrecs.iter().all(|owed| owed.optional)
            && self.pubrels.is_empty()
            && self.pubcomps.is_empty()
            && self.subacks.is_empty()
            && self.unsubacks.is_empty()
            && self.pings == 0
    }
}

/// How far the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// CONNECT has not been written.
    Silent,
    /// CONNACK is awaited.
    Greeting,
    /// Accepted.
    Open,
    /// The broker said that it closes.
    Ending,
}

/// The model of one connection.
#[derive(Debug)]
pub struct Conversation {
    /// Its number, from 1.
    pub number: u64,
    /// The broker's limits.
    pub limits: Rc<Limits>,
    /// How far it is.
    pub stage: Stage,
    /// A CONNACK has accepted it.
    pub accepted: bool,
    /// Its terms, once CONNECT is written.
    pub hello: Option<Hello>,
    /// Why the broker has to close, and since when.
    pub doom: Option<(String, Instant)>,
    /// Why the broker may close.
    pub excuse: Option<String>,
    /// The machine has stood still since CONNECT was written.
    pub stood_still: bool,
    /// DISCONNECT was written.
    pub ended: bool,
    /// Answers owed.
    pub expected: Expected,
    /// The session.
    pub session: Rc<RefCell<Session>>,
    /// Everything that was ever subscribed in the session is in `session`.
    pub known: bool,
    /// Session Present of the CONNACK.
    pub resumed: bool,
    /// In flight when the connection began: message by identifier.
    pub inherited: BTreeMap<u16, u64>,
    /// Messages received over this connection and not acknowledged to the end.
    pub in_flight: BTreeMap<u16, Flight>,
    /// Identifiers received over this connection.
    pub came: HashSet<u16>,
    /// PUBRELs that came although nothing was asked for: repeated at the start.
    pub repeated_pubrels: HashSet<u16>,
    /// Aliases the broker has set.
    pub broker_aliases: HashMap<u16, Rc<str>>,
    /// Aliases the client has set.
    pub own_aliases: HashMap<u16, Rc<str>>,
    /// Own QoS 2 exchanges: until PUBCOMP.
    pub exchanges: HashSet<u16>,
    /// Own publications that are not complete.
    pub unfinished: usize,
    /// The last publication by topic, publisher, and QoS in and out.
    pub order: HashMap<(Rc<str>, u64, QoS, QoS), u64>,
    /// Bytes written that are no whole packet yet.
    tail: Vec<u8>,
}

impl Conversation {
    /// A connection on which nothing was sent.
    pub fn new(number: u64, limits: Rc<Limits>) -> Conversation {
        Conversation {
            number,
            limits,
            stage: Stage::Silent,
            accepted: false,
            hello: None,
            doom: None,
            excuse: None,
            stood_still: false,
            ended: false,
            expected: Expected::default(),
            session: Rc::default(),
            known: true,
            resumed: false,
            inherited: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            came: HashSet::new(),
            repeated_pubrels: HashSet::new(),
            broker_aliases: HashMap::new(),
            own_aliases: HashMap::new(),
            exchanges: HashSet::new(),
            unfinished: 0,
            order: HashMap::new(),
            tail: Vec::new(),
        }
    }

    /// The protocol version, 5.0 while unknown.
    pub fn version(&self) -> Version {
        self.hello.as_ref().map_or(Version::V5, |hello| hello.version)
    }

    /// Whether nothing that is written now has a meaning any more.
    pub fn is_over(&self) -> bool {
        self.ended || self.doom.is_some() || self.stage == Stage::Ending
    }

    /// Whether the session is the tracked client's, and this its newest connection.
    pub fn is_current(&self, ledger: &Ledger) -> bool {
        match &self.hello {
            Some(hello) if hello.tracked => ledger.is_current(&hello.client_id, self.number),
            _ => self.known,
        }
    }

    /// Notes an event for the report of a failure.
    pub fn tell(&self, ledger: &mut Ledger, event: &str) {
        if let Some(hello) = self.hello.as_ref().filter(|hello| hello.tracked) {
            let (number, at) = (self.number, ledger.now());
            let text = format!(
                "{at}: connection {number} {event}: clean {}, expiry {}, resumed {}, {:?} {:?}",
                hello.clean, hello.expiry_secs, self.resumed, self.doom, self.excuse
            );
            ledger.note(&hello.client_id, text);
        }
    }

    /// The broker has to close, for a reason.
    fn doomed(&mut self, why: impl Into<String>) {
        self.doom.get_or_insert_with(|| (why.into(), Instant::now()));
    }

    /// The broker may close, for a reason.
    pub fn excused(&mut self, why: impl Into<String>) {
        self.excuse.get_or_insert_with(|| why.into());
    }

    /// The client has answered what it was not asked: the broker may have taken that for the answer
    /// to something that was on its way, and count otherwise from then on.
    fn strayed(&mut self, id: u16, why: &str) {
        self.excused(format!("{why} {id}"));
        self.inherited.remove(&id);
        let mut session = self.session.borrow_mut();
        session.in_flight.remove(&id);
        session.strays.insert(id);
    }

    /// Notes bytes that were written.
    pub fn written(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let mut joined = std::mem::take(&mut self.tail);
        joined.extend_from_slice(bytes);
        let mut used = 0;
        while !self.is_over() {
            let rest = &joined[used..];
            let length = match frame_length(rest, self.limits.max_packet_bytes) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(fault) => {
                    self.doomed(fault.to_string());
                    break;
                }
            };
            if let Err(fault) = self.sent(&rest[..length], ledger) {
                self.doomed(fault.to_string());
            }
            used += length;
        }
        if !self.is_over() {
            self.tail = joined.split_off(used);
            let first = self.tail.first().copied().unwrap_or(0x10);
            if self.hello.is_none() && first >> 4 != 1 {
                self.doomed("the first packet is not CONNECT");
            }
        }
    }

    /// One packet has been written.
    fn sent(&mut self, frame: &[u8], ledger: &mut Ledger) -> Result<(), Fault> {
        let Some(hello) = &self.hello else {
            let connect = decode_connect(frame)?;
            self.connect(&connect, ledger);
            return Ok(());
        };
        match decode(hello.version, Receiver::Server, frame)? {
            Packet::Publish(publish) => self.publish(&publish, frame, ledger),
            Packet::PubAck(ack) => self.puback(&ack),
            Packet::PubRec(ack) => self.pubrec(&ack),
            Packet::PubRel(ack) => self.pubrel(&ack, ledger),
            Packet::PubComp(ack) => self.pubcomp(&ack),
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe),
            Packet::PingReq => self.expected.pings += 1,
            Packet::Disconnect(disconnect) => {
                self.tell(ledger, &format!("DISCONNECT {:?}", disconnect.session_expiry_secs));
                self.disconnect(&disconnect);
            }
            other => self.doomed(format!("a client may not send this now: {other:?}")),
        }
        Ok(())
    }

    fn connect(&mut self, connect: &Connect<'_>, ledger: &mut Ledger) {
        let properties = &connect.properties;
        let asked = match connect.version {
            Version::V311 if connect.clean_start => 0,
            Version::V311 => u32::MAX,
            Version::V5 => properties.session_expiry_secs.unwrap_or(0),
        };
        let client_id: Rc<str> = connect.client_id.into();
        let user = connect.username.unwrap_or("");
        let named = !client_id.is_empty();
        let client: Option<Rc<str>> = named.then(|| format!("{user}\0{client_id}").into());
        let hello = Hello {
            version: connect.version,
            tracked: TRACKED.contains(&connect.client_id),
            client_id: client_id.clone(),
            client: client.clone(),
            clean: connect.clean_start,
            expiry_secs: asked,
            receive_maximum: properties.receive_maximum.map_or(u16::MAX, Into::into),
            maximum_packet: properties.maximum_packet_size.map_or(u32::MAX, Into::into),
            alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            keep_alive_secs: connect.keep_alive_secs,
        };
        if properties.authentication_method.is_some() {
            self.excused("an authentication method");
        }
        if connect.client_id.is_empty() && !connect.clean_start {
            self.excused("no client identifier and no clean session");
        }
        if connect.client_id.len() > self.limits.max_client_id_bytes {
            self.excused("a long client identifier");
        }
        if hello.maximum_packet < self.limits.connack_bytes {
            self.excused("no room for CONNACK in the Maximum Packet Size");
        }
        if connect.bridge {
            ledger.is_bridge(self.number);
        }
        if let Some(will) = &connect.will {
            if self.limits.forbids(will.topic) {
                self.excused("a will to a topic that is not allowed");
            }
            ledger.published(
                self.number,
                client.as_ref(),
                will.topic,
                will.payload,
                (will.qos, will.retain),
                &will.properties,
                true,
            );
        }
        self.stage = Stage::Greeting;
        self.hello = Some(hello);
        self.tell(ledger, "CONNECT");
    }

    fn publish(&mut self, publish: &Publish<'_>, frame: &[u8], ledger: &mut Ledger) {
        let topic: Rc<str> = match publish.properties.topic_alias {
            None => publish.topic.into(),
            Some(alias) if alias == 0 || alias > self.limits.topic_alias_max => {
                return self.doomed("a topic alias above the maximum");
            }
            Some(alias) if publish.topic.is_empty() => {
                let Some(topic) = self.own_aliases.get(&alias) else {
                    return self.doomed("an unknown topic alias");
                };
                topic.clone()
            }
            Some(alias) => {
                self.own_aliases.insert(alias, publish.topic.into());
                publish.topic.into()
            }
        };
        if self.limits.is_too_long(&topic) {
            return self.doomed("a topic above the limits");
        }
        let again = publish.dup
            && publish.id.is_some_and(|id| {
                let mut session = self.session.borrow_mut();
                session.unfinished(id.get()).is_some_and(|packet| packet == frame)
            });
        let client = self.hello.as_ref().and_then(|hello| hello.client.clone());
        // Resent over a connection of the other version, the same bytes are another message.
        let name = crate::fuzz::ledger::message(&topic, publish.payload);
        let known = ledger.find(name).iter().any(|publication| {
            publication.client == client && publication.retain == publish.retain
        });
        let in_use = publish.qos == QoS::ExactlyOnce
            && !again
            && publish.id.is_some_and(|id| self.is_in_use(id.get(), ledger));
        if !again || !known {
            ledger.published(
                self.number,
                client.as_ref(),
                &topic,
                publish.payload,
                (publish.qos, publish.retain),
                &publish.properties,
                false,
            );
        }
        if in_use {
            // Which of both the broker takes it for is not known, nor which it will deliver when.
            ledger.in_doubt(name);
        }
        let Some(id) = publish.id.map(|id| id.get()) else { return };
        if publish.qos == QoS::AtLeastOnce {
            self.expected.pubacks.push_back(id);
            self.unfinished += 1;
        } else {
            let optional = self.expected.pubrecs.iter().any(|owed| owed.id == id);
            if !again && publish.properties.topic_alias.is_none() {
                let mut packet = frame.to_vec();
                packet[0] |= 0x08;
                self.session.borrow_mut().begin(id, packet);
            }
            self.expected.pubrecs.push_back(Owed { id, optional });
            let pubcomps = &mut self.expected.pubcomps;
            match pubcomps.iter_mut().find(|(of, ends)| *of == id && *ends == Ends::Exchange) {
                Some((_, ends)) => {
                    *ends = Ends::Earlier;
                    self.unfinished += 1;
                }
                None => self.unfinished += usize::from(self.exchanges.insert(id)),
            }
        }
        // Exchanges that an earlier connection began count as well.
        let before = if self.resumed { self.session.borrow().unfinished.len() } else { 0 };
        if self.unfinished + before > usize::from(self.limits.receive_maximum) {
            self.excused("more publications unfinished than the broker's Receive Maximum");
        }
    }

    /// Whether an earlier exchange has an identifier of the client, over this connection or before.
    fn is_in_use(&self, id: u16, ledger: &Ledger) -> bool {
        let client_id = self.hello.as_ref().map(|hello| &*hello.client_id);
        let before = client_id.and_then(|client_id| ledger.session(client_id));
        self.expected.pubcomps.iter().any(|(of, _)| *of == id)
            || self.session.borrow_mut().unfinished(id).is_some()
            || before.is_some_and(|session| session.borrow_mut().unfinished(id).is_some())
    }

    fn puback(&mut self, ack: &Ack<'_>) {
        let id = ack.id.get();
        match self.in_flight.get(&id) {
            Some(flight) if flight.qos == QoS::AtLeastOnce => self.forget(id),
            _ => self.strayed(id, "not in flight, and yet PUBACK"),
        }
    }

    fn pubrec(&mut self, ack: &Ack<'_>) {
        let id = ack.id.get();
        let known = self.in_flight.get_mut(&id).filter(|flight| flight.qos == QoS::ExactlyOnce);
        match known {
            Some(flight) if ack.code.is_error() => {
                if flight.received {
                    self.strayed(id, "PUBREC with an error after PUBREC");
                } else {
                    if flight.shared {
                        // Until its group has written that it is over, the exchange is not
                        // forgotten: over the next connection a PUBREL may come.
                        self.session.borrow_mut().receipts.insert(id);
                    }
                    self.forget(id);
                }
                return;
            }
            Some(flight) => {
                flight.received = true;
                let mut session = self.session.borrow_mut();
                session.receipts.insert(id);
                if let Some(flight) = session.in_flight.get_mut(&id) {
                    flight.received = true;
                }
            }
            None => {
                self.strayed(id, "not in flight, and yet PUBREC");
                self.session.borrow_mut().receipts.insert(id);
            }
        }
        if !ack.code.is_error() {
            self.expected.pubrels.push_back(id);
        }
    }

    fn pubrel(&mut self, ack: &Ack<'_>, ledger: &mut Ledger) {
        let id = ack.id.get();
        let begun = self.exchanges.contains(&id);
        self.expected.pubcomps.push_back((id, if begun { Ends::Exchange } else { Ends::Nothing }));
        let early = self.session.borrow_mut().release(id);
        if early {
            self.tell(ledger, &format!("PUBREL {id} before PUBREC"));
        }
    }

    fn pubcomp(&mut self, ack: &Ack<'_>) {
        let id = ack.id.get();
        let released = self.in_flight.get(&id).is_some_and(|flight| flight.received);
        if released && !self.expected.pubrels.contains(&id) {
            self.forget(id);
        } else if self.repeated_pubrels.remove(&id) {
            self.session.borrow_mut().in_flight.remove(&id);
            self.inherited.remove(&id);
        } else {
            if released {
                // PUBCOMP ahead of PUBREL: the broker may take it for the end of the exchange.
                self.forget(id);
            }
            self.strayed(id, "no PUBREL, and yet PUBCOMP");
        }
    }

    fn forget(&mut self, id: u16) {
        self.in_flight.remove(&id);
        self.inherited.remove(&id);
        self.session.borrow_mut().in_flight.remove(&id);
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>) {
        let asked = subscribe.filters.iter().map(|(filter, options)| Subscribed {
            filter: (*filter).into(),
            options: *options,
            identifier: subscribe.subscription_id,
            until: None,
        });
        let asked: Vec<Subscribed> = asked.collect();
        for subscribed in &asked {
            // Those are one code in the SUBACK, but no local on a shared one ends the connection.
            if subscribed.is_shared()
                && subscribed.options.no_local
                && check_filter(&subscribed.filter).is_ok()
                && matches!(SharedFilter::parse(&subscribed.filter), Some(Ok(_)))
            {
                return self.doomed("no local on a shared subscription");
            }
        }
        self.session.borrow_mut().subscriptions.extend(asked.iter().cloned());
        self.expected.subacks.push_back((subscribe.id.get(), asked));
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) {
        let filters = unsubscribe.filters.iter().map(|filter| Rc::from(*filter)).collect();
        self.expected.unsubacks.push_back((unsubscribe.id.get(), filters));
    }

    fn disconnect(&mut self, disconnect: &Disconnect<'_>) {
        self.ended = true;
        let expiry = self.hello.as_ref().map_or(0, |hello| hello.expiry_secs);
        if let Some(secs) = disconnect.session_expiry_secs {
            if expiry == 0 && secs > 0 {
                self.ended = false;
                return self.doomed("a session expiry in DISCONNECT after none in CONNECT");
            }
            let mut session = self.session.borrow_mut();
            session.expiry_secs = session.expiry_secs.min(secs);
        }
    }
}
