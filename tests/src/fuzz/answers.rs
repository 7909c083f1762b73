//! Judges what the broker sends: every packet strictly decoded, legal in this state, and nothing
//! that was not asked for. A fault is a sentence with the clause it breaks.

use std::cell::RefCell;
use std::rc::Rc;

use hoopoe_codec::{Ack, ConnAck, Packet, ReasonCode, Receiver, SubAck, Version, decode};

use super::conversation::{Conversation, Ends, Stage};
use super::ledger::{Ledger, Session, Subscribed};

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

/// A fault, or what was found to be in order.
pub(super) type Verdict<T = ()> = Result<T, String>;

/// The CONNACK of 3.1.1 for a protocol version that is not spoken: to clients of any version.
const UNSUPPORTED_VERSION: [u8; 4] = [0x20, 2, 0, 1];

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
