//! Judges what the broker sends: every packet strictly decoded, legal in this state, and nothing
//! that was not asked for. A fault is a sentence with the clause it breaks.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use hoopoe_codec::{
    Ack, ConnAck, Packet, Publish, QoS, ReasonCode, Receiver, RetainHandling, SubAck, Version,
    decode,
};

use super::conversation::{Conversation, Ends, Stage};
use super::ledger::{self, Flight, Ledger, Publication, Session, Subscribed};
use super::limits::Limits;

/// What the client may do about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Nothing.
    Nothing,
    /// Its CONNECT was accepted.
    Begin,
    /// Answer with PUBACK.
    PubAck(u16),
    /// Answer with PUBREC.
    PubRec(u16),
    /// Answer with PUBREL.
    PubRel(u16),
    /// Answer with PUBCOMP.
    PubComp(u16),
}

type Verdict<T = ()> = Result<T, String>;

/// The CONNACK of 3.1.1 for a protocol version that is not spoken: to clients of any version.
const UNSUPPORTED_VERSION: [u8; 4] = [0x20, 2, 0, 1];

/// A queue of so many messages is never full within a run.
const DROPPING_BELOW: u32 = 10_000;

/// How the user property begins that messages of a bridge of 3.1.1 get.
const VIA: &[u8] = b"\x26\0\x0Ahoopoe-via";

impl Conversation {
    /// One packet has come.
    pub fn received(&mut self, frame: &[u8], ledger: &mut Ledger) -> Verdict<Request> {
        ledger.packets += 1;
        if self.hello.is_none() && self.doom.is_some() && frame == UNSUPPORTED_VERSION {
            self.stage = Stage::Ending;
            return Ok(Request::Nothing);
        }
        let packet = decode(self.version(), Receiver::Client, frame)
            .map_err(|fault| format!("not to be decoded: {fault}"))?;
        if self.stage == Stage::Ending {
            return Err(format!("{packet:?} after the broker's last packet"));
        }
        if let Packet::ConnAck(connack) = &packet {
            self.check_size(frame)?;
            return self.connack(connack, ledger);
        }
        if self.stage != Stage::Open {
            return Err(format!("{packet:?} before CONNACK [MQTT-3.2.0-1]"));
        }
        self.check_size(frame)?;
        match packet {
            Packet::Publish(publish) => self.delivery(&publish, ledger),
            Packet::PubAck(ack) => self.puback_came(&ack),
            Packet::PubRec(ack) => self.pubrec_came(&ack),
            Packet::PubRel(ack) => self.pubrel_came(&ack),
            Packet::PubComp(ack) => self.pubcomp_came(&ack),
            Packet::SubAck(suback) => self.suback(&suback, ledger),
            Packet::UnsubAck(unsuback) => self.unsuback(&unsuback, ledger),
            Packet::PingResp => {
                let pings = self.expected.pings.checked_sub(1);
                self.expected.pings = pings.ok_or("PINGRESP without PINGREQ")?;
                Ok(Request::Nothing)
            }
            Packet::Disconnect(disconnect) => {
                self.stage = Stage::Ending;
                self.disconnect_came(disconnect.code)
            }
            other => Err(format!("a server may not send this: {other:?}")),
        }
    }

    /// [MQTT-3.1.2-24]
    fn check_size(&self, frame: &[u8]) -> Verdict {
        let maximum = self.hello.as_ref().map_or(u32::MAX, |hello| hello.maximum_packet);
        if frame.len() > maximum as usize {
            let length = frame.len();
            return Err(format!("{length} bytes, Maximum Packet Size {maximum} [MQTT-3.1.2-24]"));
        }
        Ok(())
    }

    fn connack(&mut self, connack: &ConnAck<'_>, ledger: &mut Ledger) -> Verdict<Request> {
        let unread = self.stage == Stage::Silent && self.doom.is_some();
        if unread && connack.code == ReasonCode::UnsupportedProtocolVersion {
            // The one refusal of a CONNECT that cannot be read [MQTT-3.1.2-2].
            return Ok(Request::Nothing);
        }
        if self.stage != Stage::Greeting {
            return Err(format!("CONNACK at {:?} [MQTT-3.2.0-2]", self.stage));
        }
        let hello = self.hello.clone().ok_or("CONNACK without CONNECT")?;
        if hello.tracked {
            ledger.connected(&hello.client_id, true);
        }
        self.resumed = connack.session_present;
        self.tell(ledger, &format!("CONNACK {}", connack.code));
        if connack.code.is_error() {
            self.stage = Stage::Ending;
            ledger.refused += 1;
            // The connection that has the session had no time to go (ruling 11).
            let waited = connack.code == ReasonCode::ServerUnavailable && self.stood_still;
            if self.excuse.is_none() && self.doom.is_none() && !waited {
                return Err(format!("a CONNECT without fault is refused: {}", connack.code));
            }
            return Ok(Request::Nothing);
        }
        self.stage = Stage::Open;
        self.accepted = true;
        let announced = connack.properties.topic_alias_maximum.unwrap_or(0);
        if hello.version == Version::V5 && announced != self.limits.topic_alias_max {
            return Err(format!("Topic Alias Maximum {announced}"));
        }
        if hello.clean && connack.session_present {
            return Err("Session Present after Clean Start [MQTT-3.2.2-2]".to_owned());
        }
        let empty = hello.client_id.is_empty();
        if hello.version == Version::V5 && empty != connack.properties.assigned_client_id.is_some()
        {
            return Err("Assigned Client Identifier [MQTT-3.2.2-16]".to_owned());
        }
        if hello.tracked {
            self.find_session(&hello.client_id, hello.clean, ledger)?;
        } else if connack.session_present {
            self.known = false;
        }
        self.session.borrow_mut().expiry_secs = hello.expiry_secs;
        ledger.resumed += u64::from(connack.session_present);
        Ok(Request::Begin)
    }

    /// Takes up the model of a tracked client's session.
    fn find_session(&mut self, client_id: &str, clean: bool, ledger: &mut Ledger) -> Verdict {
        if !self.resumed {
            if !clean && ledger.must_be_present(client_id) {
                return Err("the session is gone, Session Present 0 [MQTT-3.2.2-3]".to_owned());
            }
            ledger.begin_session(client_id, self.number, self.session.clone());
            return Ok(());
        }
        if !ledger.may_be_present(client_id) {
            return Err("Session Present without any earlier session".to_owned());
        }
        let Some(session) = ledger.resume_session(client_id, self.number) else {
            self.known = false;
            return Ok(());
        };
        let early = std::mem::take(&mut *self.session.borrow_mut());
        {
            let mut session = session.borrow_mut();
            session.take_up(early, self.expected.pubcomps.iter().map(|(id, _)| *id));
            // An answer that was not asked for may have been taken for that of a later message.
            let certain = session.in_flight.iter().filter(|(id, flight)| {
                !flight.shared && !flight.doubtful && !session.strays.contains(id)
            });
            self.inherited = certain.map(|(id, flight)| (*id, flight.message)).collect();
            if !self.keeps_all() {
                session.in_flight.values_mut().for_each(|flight| flight.doubtful = true);
            }
        }
        self.session = session;
        Ok(())
    }

    /// Forgets which session this was: another connection has taken it over.
    pub fn detach(&mut self) {
        let session = {
            let session = self.session.borrow();
            Session {
                subscriptions: session.subscriptions.clone(),
                strays: session.strays.clone(),
                receipts: session.receipts.clone(),
                ..Session::default()
            }
        };
        self.session = Rc::new(RefCell::new(session));
        self.inherited.clear();
    }

    fn delivery(&mut self, publish: &Publish<'_>, ledger: &mut Ledger) -> Verdict<Request> {
        let topic = self.delivered_topic(publish)?;
        let name = ledger::message(&topic, publish.payload);
        let shared = self
            .session
            .borrow()
            .subscriptions
            .iter()
            .any(|subscribed| subscribed.is_shared() && subscribed.matches(&topic));
        let request = self.take_off(publish, name, shared)?;
        ledger.deliveries += 1;
        if Limits::is_foreign(&topic) {
            return Ok(request);
        }
        let (publications, subscribed) = {
            let session = self.session.borrow();
            let found = session.subscriptions.iter().filter(|s| s.matches(&topic));
            (ledger.find(name), found.cloned().collect::<Vec<_>>())
        };
        let publications = publications.to_vec();
        let current = self.is_current(ledger);
        let judged = self.judge(publish, &topic, name, &publications, &subscribed, current);
        match judged {
            Ok(()) => Ok(request),
            Err(fault) => {
                let mut text = format!("{fault}\n  on {topic:?} at {}", ledger.now());
                for publication in publications.iter().rev().take(5) {
                    let _ = write!(text, "\n  {publication:?}");
                }
                for subscribed in subscribed.iter().rev().take(40) {
                    let _ = write!(text, "\n  {subscribed:?}");
                }
                let publisher = publications.last().and_then(|p| p.client.as_deref());
                if let Some((_, client_id)) = publisher.and_then(|name| name.split_once('\0')) {
                    let _ = write!(text, "\npublisher:\n{}", ledger.history(client_id));
                    for transcript in ledger.transcripts(client_id) {
                        let _ = write!(text, "{transcript}");
                    }
                }
                Err(text)
            }
        }
    }

    /// One message, against what was published and what is subscribed.
    fn judge(
        &mut self,
        publish: &Publish<'_>,
        topic: &Rc<str>,
        name: u64,
        publications: &[Publication],
        subscribed: &[Subscribed],
        current: bool,
    ) -> Verdict {
        let fits = |publication: &&Publication| self.is_from(publish, publication).is_ok();
        let Some(publication) = publications.iter().find(fits) else {
            let first = publications.first().ok_or("a message that nobody published")?;
            self.is_from(publish, first)?;
            return Err("a message that nobody published".to_owned());
        };
        if self.known {
            self.check_subscriptions(publish, publications, subscribed)?;
        }
        let shared = !self.known || subscribed.iter().any(Subscribed::is_shared);
        if !shared && !publish.dup && !publish.retain && !publication.repeated {
            self.check_order(topic, publish.qos, publication)?;
            if current && !self.session.borrow_mut().delivered.insert(name) {
                return Err("the same publication for the second time, not DUP".to_owned());
            }
        }
        if publish.dup && self.known {
            self.session.borrow_mut().delivered.insert(name);
        }
        Ok(())
    }

    fn delivered_topic(&mut self, publish: &Publish<'_>) -> Verdict<Rc<str>> {
        let maximum = self.hello.as_ref().map_or(0, |hello| hello.alias_maximum);
        let Some(alias) = publish.properties.topic_alias else { return Ok(publish.topic.into()) };
        if alias == 0 || alias > maximum {
            return Err(format!("topic alias {alias}, maximum {maximum} [MQTT-3.1.2-26]"));
        }
        if publish.topic.is_empty() {
            let topic = self.broker_aliases.get(&alias);
            return topic.cloned().ok_or_else(|| format!("topic alias {alias} was never set"));
        }
        self.broker_aliases.insert(alias, publish.topic.into());
        Ok(publish.topic.into())
    }

    /// Identifier, window and DUP.
    fn take_off(&mut self, publish: &Publish<'_>, message: u64, shared: bool) -> Verdict<Request> {
        let Some(id) = publish.id.map(|id| id.get()) else { return Ok(Request::Nothing) };
        let stray = self.session.borrow().strays.contains(&id);
        if self.in_flight.contains_key(&id) && !stray {
            return Err(format!("packet identifier {id} is in flight [MQTT-2.2.1-4]"));
        }
        if publish.dup {
            if !self.resumed {
                return Err("DUP in a session that has just begun [MQTT-3.3.1-1]".to_owned());
            }
            if self.came.contains(&id) {
                return Err(format!("{id} again on one connection [MQTT-4.4.0-1]"));
            }
            if self.inherited.get(&id).is_some_and(|before| *before != message) {
                return Err(format!("another message under {id}, which is in flight"));
            }
        } else if self.known && self.keeps_all() && self.inherited.contains_key(&id) {
            let same = self.inherited.get(&id) == Some(&message);
            let what = if same { "the same message" } else { "another message" };
            return Err(format!("{id} was in flight before, {what} comes without DUP"));
        }
        self.inherited.remove(&id);
        self.came.insert(id);
        let flight = Flight { qos: publish.qos, message, received: false, shared, doubtful: false };
        self.in_flight.insert(id, flight);
        self.session.borrow_mut().in_flight.insert(id, flight);
        let (maximum, v311) = self.hello.as_ref().map_or((0, false), |hello| {
            (usize::from(hello.receive_maximum), hello.version == Version::V311)
        });
        let maximum = if v311 { usize::from(u16::MAX) } else { maximum };
        let strays = self.session.borrow().strays.len();
        if self.in_flight.len() > maximum + strays {
            return Err(format!("above the Receive Maximum of {maximum} [MQTT-3.3.4-9]"));
        }
        Ok(if publish.qos == QoS::AtLeastOnce { Request::PubAck(id) } else { Request::PubRec(id) })
    }

    /// Whether the broker has no reason to give up what is in flight: a message can be too large
    /// for this connection ([MQTT-3.1.2-25]), or dropped from a full queue.
    fn keeps_all(&self) -> bool {
        let maximum = self.hello.as_ref().map_or(0, |hello| hello.maximum_packet);
        maximum >= self.limits.max_packet_bytes && !self.may_drop()
    }

    /// Whether a run fills a session's queue: what is in flight may be dropped from it as well.
    fn may_drop(&self) -> bool {
        self.limits.queue_messages < DROPPING_BELOW
    }

    /// Whether the message is this publication, with nothing changed that may not change.
    fn is_from(&self, publish: &Publish<'_>, publication: &Publication) -> Verdict {
        if publish.qos > publication.qos {
            let (was, is) = (publication.qos, publish.qos);
            return Err(format!("published with {was:?}, delivered with {is:?}"));
        }
        if publish.retain && !publication.retain {
            return Err("RETAIN, which the publisher did not set".to_owned());
        }
        if self.version() == Version::V311 {
            return Ok(());
        }
        let properties = publish.properties.forwardable();
        let same = match properties.strip_prefix(&publication.properties[..]) {
            Some(added) if publication.bridged => added.starts_with(VIA),
            Some(added) => added.is_empty(),
            None => false,
        };
        if !same {
            return Err("the properties were changed [MQTT-3.3.2-17]".to_owned());
        }
        let age = publication.written.elapsed() + Duration::from_secs(2);
        match (publish.properties.message_expiry_secs, publication.expiry_secs) {
            (None, None) => Ok(()),
            (Some(left), Some(first)) if left > first => {
                Err(format!("message expiry {left} grew from {first} [MQTT-3.3.2-6]"))
            }
            (Some(left), Some(first))
                if !publication.will && u64::from(first - left) > age.as_secs() =>
            {
                Err(format!("message expiry {left} of {first} after {age:?} [MQTT-3.3.2-6]"))
            }
            (Some(_), Some(_)) => Ok(()),
            (left, first) => Err(format!("message expiry {left:?}, published with {first:?}")),
        }
    }

    /// Whether a subscription explains the message, its QoS, its RETAIN and its identifiers.
    fn check_subscriptions(
        &self,
        publish: &Publish<'_>,
        publications: &[Publication],
        subscribed: &[Subscribed],
    ) -> Verdict {
        // The same words may have been published several times: this may be the first of them.
        let first = publications.iter().map(|publication| publication.at).min().unwrap_or(0);
        let explains = |s: &&Subscribed| s.until.is_none_or(|until| first <= until);
        let explaining: Vec<&Subscribed> = subscribed.iter().filter(explains).collect();
        if explaining.is_empty() {
            return Err("no subscription explains the message".to_owned());
        }
        if !explaining.iter().any(|s| publish.qos <= s.options.qos) {
            return Err(format!("{:?} is above what was granted [MQTT-3.8.4-8]", publish.qos));
        }
        let kept = |s: &&&Subscribed| {
            s.options.retain_as_published || s.options.retain_handling != RetainHandling::DoNotSend
        };
        if publish.retain && !explaining.iter().any(|s| kept(&s)) {
            return Err("RETAIN without a reason [MQTT-3.3.1-12]".to_owned());
        }
        let own = self.hello.as_ref().and_then(|hello| hello.client.clone());
        let from_others = |p: &Publication| p.client.is_none() || p.client != own || p.will;
        if !publish.retain
            && explaining.iter().all(|s| s.options.no_local)
            && !publications.iter().any(from_others)
        {
            return Err("its own message, despite No Local [MQTT-3.8.3-3]".to_owned());
        }
        for identifier in publish.properties.subscription_ids.iter() {
            if !explaining.iter().any(|s| s.identifier == Some(identifier)) {
                return Err(format!("unknown Subscription Identifier {identifier}"));
            }
        }
        Ok(())
    }

    /// [MQTT-4.6.0-5], [MQTT-4.6.0-6]
    fn check_order(&mut self, topic: &Rc<str>, qos: QoS, publication: &Publication) -> Verdict {
        if publication.will {
            return Ok(());
        }
        let stream = (topic.clone(), publication.connection, publication.qos, qos);
        let last = self.order.insert(stream, publication.at);
        if let Some(last) = last.filter(|last| *last > publication.at) {
            return Err(format!("overtaken by the publication at {last} of its publisher"));
        }
        Ok(())
    }

    fn puback_came(&mut self, ack: &Ack<'_>) -> Verdict<Request> {
        let id = ack.id.get();
        let expected = self.expected.pubacks.pop_front();
        if expected != Some(id) {
            return Err(format!("PUBACK {id}, expected {expected:?} [MQTT-4.6.0-2]"));
        }
        self.unfinished -= 1;
        Ok(Request::Nothing)
    }

    fn pubrec_came(&mut self, ack: &Ack<'_>) -> Verdict<Request> {
        let id = ack.id.get();
        let pubrecs = &mut self.expected.pubrecs;
        while pubrecs.front().is_some_and(|owed| owed.optional && owed.id != id) {
            pubrecs.pop_front();
        }
        let expected = pubrecs.pop_front();
        if expected.is_none_or(|owed| owed.id != id) {
            return Err(format!("PUBREC {id}, expected {expected:?} [MQTT-4.6.0-3]"));
        }
        if ack.code.is_error() {
            self.end_exchange(id);
            return Ok(Request::Nothing);
        }
        let mut session = self.session.borrow_mut();
        if let Some(packet) = session.unfinished(id) {
            *packet = vec![0x62, 2, (id >> 8) as u8, id as u8];
        }
        Ok(Request::PubRel(id))
    }

    fn end_exchange(&mut self, id: u16) {
        if self.exchanges.remove(&id) {
            self.unfinished -= 1;
        }
        self.session.borrow_mut().finish(id);
    }

    fn pubrel_came(&mut self, ack: &Ack<'_>) -> Verdict<Request> {
        let id = ack.id.get();
        if let Some(at) = self.expected.pubrels.iter().position(|expected| *expected == id) {
            self.expected.pubrels.remove(at);
        } else if !self.known || (self.resumed && self.may_be_released(id)) {
            self.repeated_pubrels.insert(id);
        } else {
            return Err(format!("PUBREL {id} without PUBREC"));
        }
        Ok(Request::PubComp(id))
    }

    /// Whether PUBREL may come over a resumed connection that saw no PUBREC: an earlier one sent it,
    /// or the message is not to be delivered any more: it was of a shared group that has it no more
    /// (its last member left), or was dropped from a full queue. Then the exchange is ended so, as
    /// the client may hold the message, and may have never read it.
    fn may_be_released(&self, id: u16) -> bool {
        let session = self.session.borrow();
        session.receipts.contains(&id)
            || self.may_drop()
            || match session.in_flight.get(&id) {
                Some(flight) => flight.shared,
                None => session.subscriptions.iter().any(Subscribed::is_shared),
            }
    }

    fn pubcomp_came(&mut self, ack: &Ack<'_>) -> Verdict<Request> {
        let id = ack.id.get();
        let expected = self.expected.pubcomps.pop_front();
        let Some((_, ends)) = expected.filter(|(expected, _)| *expected == id) else {
            return Err(format!("PUBCOMP {id}, expected {expected:?}"));
        };
        match ends {
            Ends::Exchange => self.end_exchange(id),
            Ends::Earlier => self.unfinished -= 1,
            // What was begun under the identifier since PUBREL left goes on.
            Ends::Nothing if self.exchanges.contains(&id) => {}
            Ends::Nothing => self.end_exchange(id),
        }
        Ok(Request::Nothing)
    }

    fn suback(&mut self, suback: &SubAck<'_>, ledger: &mut Ledger) -> Verdict<Request> {
        let id = suback.id.get();
        let expected = self.expected.subacks.pop_front();
        let Some((_, asked)) = expected.filter(|(expected, _)| *expected == id) else {
            return Err(format!("SUBACK {id} for nothing [MQTT-3.8.4-2]"));
        };
        if suback.codes.len() != asked.len() {
            return Err(format!("{} codes, {} filters", suback.codes.len(), asked.len()));
        }
        let now = ledger.tick();
        let asked_for = asked.len();
        let mut session = self.session.borrow_mut();
        for (position, (code, asked)) in suback.codes.iter().zip(&asked).enumerate() {
            if code.is_error() {
                continue;
            }
            if *code as u8 > asked.options.qos as u8 {
                return Err(format!("{code} granted, {:?} asked for", asked.options.qos));
            }
            // The filter may stand in the packet twice.
            if position + 1 == asked_for && !self.is_pending(&asked.filter) {
                replace(&mut session, asked, now);
            }
        }
        Ok(Request::Nothing)
    }

    /// Whether a SUBSCRIBE for the filter is on its way: which one holds is not known then.
    fn is_pending(&self, filter: &str) -> bool {
        let mut asked = self.expected.subacks.iter().flat_map(|(_, asked)| asked);
        asked.any(|asked| &*asked.filter == filter)
    }

    fn unsuback(&mut self, unsuback: &SubAck<'_>, ledger: &mut Ledger) -> Verdict<Request> {
        let id = unsuback.id.get();
        let expected = self.expected.unsubacks.pop_front();
        let Some((_, filters)) = expected.filter(|(expected, _)| *expected == id) else {
            return Err(format!("UNSUBACK {id} for nothing [MQTT-3.10.4-4]"));
        };
        let v311 = self.version() == Version::V311;
        if !v311 && unsuback.codes.len() != filters.len() {
            return Err(format!("{} codes, {} filters", unsuback.codes.len(), filters.len()));
        }
        let now = ledger.tick();
        let mut session = self.session.borrow_mut();
        for (position, filter) in filters.iter().enumerate() {
            let ended = v311
                || matches!(
                    unsuback.codes[position],
                    ReasonCode::Success | ReasonCode::NoSubscriptionExisted
                );
            // A SUBSCRIBE may have been sent behind the UNSUBSCRIBE, or answered before it.
            if !ended || self.is_pending(filter) {
                continue;
            }
            for subscribed in &mut session.subscriptions {
                if subscribed.filter == *filter && subscribed.until.is_none() {
                    subscribed.until = Some(now);
                }
            }
        }
        Ok(Request::Nothing)
    }

    /// A DISCONNECT has to have a reason.
    fn disconnect_came(&mut self, code: ReasonCode) -> Verdict<Request> {
        let reason = self.excuse.is_some() || self.doom.is_some() || self.ended;
        if reason || (code == ReasonCode::QuotaExceeded && self.may_be_slow()) {
            return Ok(Request::Nothing);
        }
        Err(format!("DISCONNECT {code} without a reason"))
    }

    /// Whether more may wait for the client than a session that is not stored may have waiting.
    pub fn may_be_slow(&self) -> bool {
        let expiry = self.hello.as_ref().map_or(0, |hello| hello.expiry_secs);
        expiry == 0 && !self.session.borrow().subscriptions.is_empty()
    }

    /// The broker has closed.
    pub fn closed(&mut self, ledger: &mut Ledger) -> Verdict {
        self.tell(ledger, "closed");
        if let Some(hello) = self.hello.as_ref().filter(|hello| hello.tracked)
            && self.stage == Stage::Greeting
        {
            ledger.connected(&hello.client_id, false);
        }
        let reason = self.doom.is_some()
            || self.excuse.is_some()
            || self.ended
            || self.stage == Stage::Ending
            || (self.version() == Version::V311 && self.may_be_slow());
        if reason { Ok(()) } else { Err("the broker closed without a reason".to_owned()) }
    }
}

/// A granted subscription takes the place of those with its filter.
fn replace(session: &mut Session, asked: &Subscribed, now: u64) {
    let last = session.subscriptions.iter().rposition(|s| {
        s.filter == asked.filter
            && s.options == asked.options
            && s.identifier == asked.identifier
            && s.until.is_none()
    });
    for (at, subscribed) in session.subscriptions.iter_mut().enumerate() {
        if subscribed.filter == asked.filter && Some(at) != last && subscribed.until.is_none() {
            subscribed.until = Some(now);
        }
    }
}
