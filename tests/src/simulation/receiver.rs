//! A client's subscriptions and what it gets, judged message by message: order, duplicates, DUP,
//! identifiers, the window, and whether it had any business getting it.
//!
//! A *life* is the life of the client's session. What is in flight belongs to a connection.

use std::collections::{HashMap, HashSet};

use super::ledger::{Attempt, Ledger, Message, Order, matches};
use crate::wire::{Publish, Version, ack, packet_type};

/// A subscription in the course of time.
#[derive(Clone, Debug)]
pub struct Window {
    /// The filter.
    pub filter: &'static str,
    /// QoS asked for.
    pub qos: u8,
    /// SUBSCRIBE was sent.
    pub may_from: Order,
    /// SUBACK came.
    pub sure_from: Option<Order>,
    /// UNSUBSCRIBE was sent.
    pub sure_until: Option<Order>,
    /// UNSUBACK came.
    pub may_until: Option<Order>,
}

/// What became of an attempt at this receiver.
#[derive(Clone, Copy, Debug)]
struct Seen {
    connection: u64,
    id: u16,
    /// PUBACK or PUBCOMP was sent: over which link, as which byte.
    answered: Option<(usize, u64)>,
    /// When the broker had read that.
    heard_ms: Option<u64>,
}

/// A message in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Copy {
    attempt: Attempt,
    /// With RETAIN: a copy made for a subscription.
    retain: bool,
}

/// A life of the session.
#[derive(Debug, Default)]
struct Life {
    windows: Vec<Window>,
    seen: HashMap<Attempt, Seen>,
    /// Messages of QoS 2 received with QoS 2, by the life of their identifier.
    once: HashSet<(Message, usize)>,
    /// Which attempt of a QoS 2 publication was received in which life of its identifier, and
    /// whether it was stored for the receiver.
    submitted: HashMap<(Message, usize), (usize, bool)>,
    /// QoS 2: PUBREC sent, PUBCOMP not.
    held: HashMap<u16, Copy>,
    /// Latest attempt by publisher, topic and whether it was stored.
    latest: HashMap<(usize, &'static str, bool), Order>,
    got: HashSet<Message>,
}

/// The receiving half of a client.
#[derive(Debug)]
pub struct Receiver {
    life: Life,
    /// In flight over this connection, by identifier.
    open: HashMap<u16, Copy>,
    maximum: u16,
    /// Its subscriptions are shared ones.
    pub shared: bool,
    /// Answers that the broker may not have read yet.
    unheard: Vec<Attempt>,
    /// Everything received, in whichever life.
    ever: HashSet<Message>,
    /// Attempts received with QoS 2 by a session that is stored.
    exactly: HashSet<Attempt>,
    /// Sessions with subscriptions that have ended.
    pub lives: u64,
    /// Messages received again.
    pub repeats: u64,
    /// Messages received.
    pub deliveries: u64,
}

/// Where a PUBLISH came in.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Number of the connection.
    pub connection: u64,
    /// Whether its session outlives it.
    pub stored: bool,
}

impl Receiver {
    /// For a client that takes so many messages at once.
    pub fn new(maximum: u16, shared: bool) -> Receiver {
        Receiver {
            life: Life::default(),
            open: HashMap::new(),
            maximum,
            shared,
            unheard: Vec::new(),
            ever: HashSet::new(),
            exactly: HashSet::new(),
            lives: 0,
            repeats: 0,
            deliveries: 0,
        }
    }

    /// A new connection.
    pub fn connected(&mut self, session_present: bool) {
        self.open.clear();
        if !session_present {
            self.ended();
        }
    }

    /// The session has ended.
    pub fn ended(&mut self) {
        self.lives += u64::from(!self.life.windows.is_empty());
        self.life = Life::default();
        self.unheard.clear();
    }

    /// The subscriptions of this life.
    pub fn windows(&mut self) -> &mut Vec<Window> {
        &mut self.life.windows
    }

    /// Whether a filter is subscribed to, for all the client knows.
    pub fn is_subscribed(&self, filter: &str) -> bool {
        let sure = |w: &Window| w.sure_from.is_some() && w.sure_until.is_none();
        self.life.windows.iter().any(|window| window.filter == filter && sure(window))
    }

    /// Whether the message was received in this life.
    pub fn has(&self, message: Message) -> bool {
        self.life.got.contains(&message)
    }

    /// Whether the message was received at all.
    pub fn had(&self, message: Message) -> bool {
        self.ever.contains(&message)
    }

    /// Whether a stored session has received an attempt with QoS 2.
    pub fn had_exactly(&self, attempt: Attempt) -> bool {
        self.exactly.contains(&attempt)
    }

    /// Whether a message had to come: subscribed to for certain from before its first attempt.
    pub fn is_owed(&self, message: Message, ledger: &Ledger) -> bool {
        let publication = ledger.publication(message);
        let Some(first) = publication.attempts.first() else { return false };
        publication.acked.is_some()
            && publication.qos > 0
            && self.life.windows.iter().any(|window| {
                window.qos > 0
                    && window.sure_until.is_none()
                    && window.sure_from.is_some_and(|from| from < *first)
                    && matches(bare(window.filter), publication.topic)
            })
    }

    /// Notes which answers the broker has read by now.
    pub fn note_heard(&mut self, now_ms: u64, was_heard: impl Fn(usize, u64) -> bool) {
        let seen = &mut self.life.seen;
        self.unheard.retain(|attempt| {
            let Some(seen) = seen.get_mut(attempt) else { return false };
            let Some((link, bytes)) = seen.answered else { return false };
            if was_heard(link, bytes) {
                seen.heard_ms = Some(now_ms);
            }
            seen.heard_ms.is_none()
        });
    }

    /// A PUBLISH came. Gives the answer that is owed for it.
    pub fn publish(
        &mut self,
        version: Version,
        place: Place,
        packet: &Publish,
        ledger: &Ledger,
    ) -> Result<Option<Vec<u8>>, String> {
        let attempt = Attempt::read(&packet.payload).ok_or("a payload that nobody sent")?;
        let sent = ledger.sent(attempt).ok_or("a message that nobody sent")?;
        let publication = ledger.publication(attempt.message);
        if publication.topic != packet.topic {
            return Err(format!("topic {} became {}", publication.topic, packet.topic));
        }
        if packet.qos > publication.qos {
            return Err(format!("QoS {} became {}", publication.qos, packet.qos));
        }
        self.check_business(attempt, packet, ledger)?;
        self.deliveries += 1;
        let answer = match packet.qos {
            0 => None,
            1 => Some(ack(version, packet_type::PUBACK, packet.id, 0)),
            _ => Some(ack(version, packet_type::PUBREC, packet.id, 0)),
        };
        if packet.qos > 0 {
            self.check_window(attempt, packet)?;
            let copy = Copy { attempt, retain: packet.retain };
            if packet.qos == 2 && self.life.held.get(&packet.id) == Some(&copy) {
                if !packet.retain {
                    self.check_repeat(place, attempt, packet, ledger)?;
                }
                return Ok(answer);
            }
        }
        let repeated = self.life.seen.contains_key(&attempt);
        if repeated && !packet.retain && !self.shared {
            self.check_repeat(place, attempt, packet, ledger)?;
        } else if !packet.retain && !self.shared && !publication.will {
            self.check_order(attempt, sent, packet.qos > 0, ledger)?;
        }
        if publication.qos == 2 && !packet.retain && !self.shared {
            self.check_once(place, attempt, packet, ledger)?;
        }
        if packet.qos == 2 {
            self.life.held.insert(packet.id, Copy { attempt, retain: packet.retain });
        }
        if packet.retain {
            return Ok(answer);
        }
        self.life.got.insert(attempt.message);
        if packet.qos == 2 && place.stored {
            self.exactly.insert(attempt);
        }
        self.ever.insert(attempt.message);
        let connection = place.connection;
        let seen = Seen { connection, id: packet.id, answered: None, heard_ms: None };
        self.life.seen.insert(attempt, seen);
        Ok(answer)
    }

    /// Only what was subscribed to while it was on its way.
    fn check_business(
        &self,
        attempt: Attempt,
        packet: &Publish,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let publication = ledger.publication(attempt.message);
        let over = publication.acked.unwrap_or(Order::MAX);
        let may = self.life.windows.iter().any(|window| {
            matches(bare(window.filter), publication.topic)
                // What waits in a group's queue is the next member's, whenever that came.
                && (packet.retain || self.shared || window.may_from < over)
                && window.may_until.is_none_or(|until| until > publication.attempts[0])
        });
        if may { Ok(()) } else { Err(format!("{attempt:?} was never subscribed to")) }
    }

    /// Invariant 7, [MQTT-3.3.4-9].
    fn check_window(&mut self, attempt: Attempt, packet: &Publish) -> Result<(), String> {
        let copy = Copy { attempt, retain: packet.retain };
        if let Some(other) = self.open.get(&packet.id) {
            return Err(format!(
                "identifier {} given to {attempt:?} while in flight for {other:?}",
                packet.id
            ));
        }
        if let Some(other) = self.life.held.get(&packet.id).filter(|held| **held != copy) {
            return Err(format!(
                "identifier {} given to {attempt:?} before PUBREL for {other:?}",
                packet.id
            ));
        }
        self.open.insert(packet.id, copy);
        if self.open.len() > usize::from(self.maximum) {
            return Err(format!("{} in flight, {} allowed", self.open.len(), self.maximum));
        }
        Ok(())
    }

    /// Invariant 3: of one publisher's topic, nothing new comes behind what was sent after it.
    fn check_order(
        &mut self,
        attempt: Attempt,
        sent: Order,
        stored: bool,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let publication = ledger.publication(attempt.message);
        let key = (publication.publisher, publication.topic, stored);
        let latest = self.life.latest.entry(key).or_insert(0);
        if sent < *latest {
            return Err(format!("{attempt:?} of {key:?} after a later one"));
        }
        *latest = sent;
        Ok(())
    }

    /// What was received before comes again only over a later connection, with DUP, under the same
    /// identifier, and only if its answer may be lost.
    fn check_repeat(
        &mut self,
        place: Place,
        attempt: Attempt,
        packet: &Publish,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let Some(entry) = self.life.seen.get_mut(&attempt) else { return Ok(()) };
        let seen = *entry;
        entry.connection = place.connection;
        self.repeats += 1;
        if packet.qos == 0 && ledger.disk_failed {
            // A will that was told and not committed is told again; at QoS 0 nobody keeps marks.
            return Ok(());
        }
        if seen.connection == place.connection {
            return Err(format!("{attempt:?} twice over one connection"));
        }
        if !place.stored {
            return Err(format!("{attempt:?} again, in a session that is not stored"));
        }
        if let Some(heard_ms) = seen.heard_ms
            && !ledger.may_have_forgotten(heard_ms)
        {
            return Err(format!("{attempt:?} again although its answer was heard at {heard_ms}"));
        }
        // After a crash the window of QoS 1 is known as far as progress was told (ruling 5).
        if packet.qos == 2 || (ledger.crashes.is_empty() && !ledger.disk_failed) {
            if !packet.dup {
                return Err(format!("{attempt:?} again without DUP [MQTT-3.3.1-1]"));
            }
            if packet.id != seen.id {
                return Err(format!("{attempt:?} was {}, is {}", seen.id, packet.id));
            }
        }
        Ok(())
    }

    /// Invariant 6: one submit per life of an identifier, one delivery of QoS 2. What is not stored
    /// for the receiver may come once more from a new process, or a shard that had to read itself
    /// anew: also to be stored now, for a subscription that has been made meanwhile.
    fn check_once(
        &mut self,
        place: Place,
        attempt: Attempt,
        packet: &Publish,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let Attempt { message, number } = attempt;
        let stored = packet.qos > 0 && place.stored;
        let forgetful = ledger.disk_failed || ledger.process_ended;
        if !stored && forgetful {
            return Ok(());
        }
        let life = (message, ledger.life(attempt));
        let seen = self.life.submitted.entry(life).or_insert((number, stored));
        if !seen.1 && forgetful {
            *seen = (number, stored);
        }
        seen.1 |= stored;
        let (first, _) = *seen;
        if first != number {
            return Err(format!("{message:?} was submitted by attempts {first} and {number}"));
        }
        if packet.qos == 2 && !self.life.once.insert(life) {
            return Err(format!("{message:?} was delivered twice with QoS 2"));
        }
        Ok(())
    }

    /// PUBREL came; gives the PUBCOMP.
    pub fn pubrel(&mut self, version: Version, id: u16) -> Vec<u8> {
        let known = self.life.held.contains_key(&id);
        let code = if known || version == Version::V311 { 0 } else { 0x92 };
        ack(version, packet_type::PUBCOMP, id, code)
    }

    /// An answer leaves, as so many bytes of a link.
    pub fn answered(&mut self, packet: &[u8], link: usize, bytes: u64) {
        let [first, _, high, low, ..] = *packet else { return };
        let (kind, id) = (first >> 4, u16::from_be_bytes([high, low]));
        let attempt = match kind {
            packet_type::PUBACK => self.open.remove(&id),
            packet_type::PUBCOMP => {
                self.open.remove(&id);
                self.life.held.remove(&id)
            }
            _ => None,
        };
        if let Some(Copy { attempt, retain: false }) = attempt
            && let Some(seen) = self.life.seen.get_mut(&attempt)
        {
            seen.answered = Some((link, bytes));
            self.unheard.push(attempt);
        }
    }
}

/// A filter without `$share/…/`.
pub fn bare(filter: &str) -> &str {
    let Some(rest) = filter.strip_prefix("$share/") else { return filter };
    rest.split_once('/').map_or(rest, |(_, filter)| filter)
}
