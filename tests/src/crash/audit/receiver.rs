//! What one receiver has been sent in its present session, and whether that was right.

use std::collections::{HashMap, HashSet, VecDeque};

use super::session::Session;
use super::{Crashes, Publication};
use crate::crash::history::{Entry, Event, Leaving, Link};
use crate::crash::message::{Attempt, Message};

/// A message that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) at: usize,
    pub(super) link: Link,
    pub(super) id: u16,
    pub(super) qos: u8,
    pub(super) dup: bool,
    pub(super) attempt: Attempt,
    pub(super) filter: usize,
    /// By way of a group, which judges what concerns its members together.
    pub(super) shared: bool,
    /// Entry of the attempt.
    pub(super) sent: usize,
}

/// When a filter was subscribed to, in entries.
#[derive(Clone, Default, Debug)]
pub(super) struct Window {
    /// Earlier times: from the first SUBSCRIBE to UNSUBACK.
    past: Vec<(usize, usize)>,
    /// Since when it may be subscribed to.
    possible: Option<usize>,
    /// Since when it surely is.
    certain: Option<usize>,
}

/// A QoS 1 message as it was last delivered.
#[derive(Clone, Copy, Debug)]
struct Copied {
    at: usize,
    link: Link,
    answered: Option<usize>,
}

/// A QoS 2 message between its PUBLISH and its PUBREL.
#[derive(Clone, Copy, Debug)]
struct Held {
    message: Message,
    link: Link,
    answered: bool,
}

/// The broker was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Everything the client sent before this entry had arrived.
    before: usize,
    at: usize,
    at_ms: u64,
}

/// One receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) session: Session,
    pub(super) windows: Vec<Window>,
    copies: HashMap<Attempt, Copied>,
    held: HashMap<u16, Held>,
    /// QoS 1 identifiers that are unanswered on `link`.
    flying: HashSet<u16>,
    link: Link,
    exact: HashSet<Message>,
    /// Messages received, with the attempt that came first.
    seen: HashMap<Message, u16>,
    arrived: HashSet<Attempt>,
    /// By publisher and topic, the message that was sent last of those that have arrived, and the
    /// entry at which it was sent.
    newest: HashMap<(u16, u16), (usize, Attempt)>,
    pings: VecDeque<(Link, usize)>,
    heard: HashMap<Link, Vec<Heard>>,
    /// The connection that was left with DISCONNECT, and when.
    goodbye: Option<(Link, usize)>,
    /// Entries at which a connection got the session.
    connected: Vec<usize>,
}

impl Window {
    pub(super) fn may_begin(&mut self, at: usize) {
        self.possible.get_or_insert(at);
    }

    pub(super) fn begins(&mut self, at: usize) {
        self.possible.get_or_insert(at);
        self.certain.get_or_insert(at);
    }

    pub(super) fn may_end(&mut self) {
        self.certain = None;
    }

    pub(super) fn ends(&mut self, at: usize) {
        self.certain = None;
        self.past.extend(self.possible.take().map(|from| (from, at)));
    }

    pub(super) fn certain_since(&self) -> Option<usize> {
        self.certain
    }

    /// Whether it may have been subscribed to between two entries.
    pub(super) fn may_match(&self, from: usize, to: usize) -> bool {
        self.possible.is_some_and(|begin| begin < to)
            || self.past.iter().rev().any(|(begin, end)| *begin < to && from < *end)
    }
}

impl Receiver {
    pub(super) fn new(session: Session, filters: usize) -> Receiver {
        Receiver {
            session,
            windows: vec![Window::default(); filters],
            copies: HashMap::new(),
            held: HashMap::new(),
            flying: HashSet::new(),
            link: 0,
            exact: HashSet::new(),
            seen: HashMap::new(),
            arrived: HashSet::new(),
            newest: HashMap::new(),
            pings: VecDeque::new(),
            heard: HashMap::new(),
            goodbye: None,
            connected: Vec::new(),
        }
    }

    /// A new session: nothing of the old one may show up in it.
    pub(super) fn start_anew(&mut self) {
        self.windows.fill(Window::default());
        self.copies.clear();
        self.held.clear();
        self.flying.clear();
        self.exact.clear();
        self.seen.clear();
        self.arrived.clear();
        self.newest.clear();
    }

    /// The session may be a new one: what the old one had may come, or not.
    pub(super) fn may_start_anew(&mut self) {
        let mut windows = std::mem::take(&mut self.windows);
        windows.iter_mut().for_each(Window::may_end);
        self.start_anew();
        self.windows = windows;
    }

    pub(super) fn has(&self, message: Message) -> bool {
        self.seen.contains_key(&message)
    }

    pub(super) fn watch_link(&mut self, at: usize, entry: &Entry) {
        match entry.event {
            // The broker may read this one first: then it ends the other without having heard it.
            Event::Connect { .. } => self.goodbye = None,
            Event::Connected { .. } => self.connected.push(at),
            Event::Left { link, how: Leaving::Disconnect, .. } => self.goodbye = Some((link, at)),
            Event::Closed { link, killed: false, .. } => {
                if let Some((_, before)) = self.goodbye.take_if(|(left, _)| *left == link) {
                    let heard = Heard { before, at, at_ms: entry.at_ms };
                    self.heard.entry(link).or_default().push(heard);
                }
            }
            _ => {}
        }
    }

    pub(super) fn ping(&mut self, at: usize, link: Link) {
        self.pings.push_back((link, at));
    }

    pub(super) fn pong(&mut self, at: usize, at_ms: u64, link: Link) {
        while let Some((pinged, before)) = self.pings.pop_front() {
            if pinged == link {
                self.heard.entry(link).or_default().push(Heard { before, at, at_ms });
                return;
            }
        }
    }

    pub(super) fn answered(&mut self, at: usize, id: u16, attempt: Attempt) {
        match self.held.get_mut(&id) {
            Some(held) if held.message == attempt.message => held.answered = true,
            _ => {
                self.flying.remove(&id);
                if let Some(copy) = self.copies.get_mut(&attempt) {
                    copy.answered = Some(at);
                }
            }
        }
    }

    pub(super) fn released(&mut self, id: u16) -> Result<(), String> {
        match self.held.remove(&id) {
            Some(held) if !held.answered => {
                Err(format!("PUBREL {id}, but {} has not been acknowledged", held.message))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn delivered(
        &mut self,
        delivery: &Delivery,
        publication: &Publication,
        receive_maximum: u16,
        crashes: &Crashes<'_>,
    ) -> Result<(), String> {
        let message = delivery.attempt.message;
        if self.link != delivery.link {
            self.link = delivery.link;
            self.flying.clear();
        }
        let until = publication.acked.unwrap_or(usize::MAX);
        if !delivery.shared && !self.windows[delivery.filter].may_match(delivery.sent, until) {
            return Err("delivered, but not subscribed to when it was published".to_owned());
        }
        if self.flying.contains(&delivery.id) {
            return Err(format!("identifier {} is in flight", delivery.id));
        }
        let first = *self.seen.entry(message).or_insert(delivery.attempt.number);
        if publication.qos == 2 && first != delivery.attempt.number {
            return Err(format!("QoS 2, but attempt {first} was delivered too"));
        }
        if delivery.qos == 2 {
            self.exactly_once(delivery)?;
        } else {
            self.at_least_once(delivery, crashes)?;
        }
        // The quota begins anew with each connection (4.9): only what was sent over this one counts.
        let held = self.held.values().filter(|held| held.link == self.link).count();
        let in_flight = self.flying.len() + held;
        if receive_maximum > 0 && in_flight > usize::from(receive_maximum) {
            return Err(format!("{in_flight} in flight, Receive Maximum {receive_maximum}"));
        }
        // Shared subscriptions have no order (4.6).
        let new = self.arrived.insert(delivery.attempt);
        if new && !delivery.shared { self.in_order(delivery) } else { Ok(()) }
    }

    fn at_least_once(&mut self, delivery: &Delivery, crashes: &Crashes<'_>) -> Result<(), String> {
        let Delivery { at, link, id, attempt, .. } = *delivery;
        if let Some(held) = self.held.get(&id) {
            return Err(format!("identifier {id} is in use for {}", held.message));
        }
        self.flying.insert(id);
        let Some(before) = self.copies.insert(attempt, Copied { at, link, answered: None }) else {
            return Ok(());
        };
        if before.link == link {
            return Err("delivered twice over one connection".to_owned());
        }
        if let Some(why) = before.answered.and_then(|at| self.settled(before.link, at, crashes)) {
            return Err(format!("delivered again although acknowledged: {why}"));
        }
        let crashed = crashes.kills.last().is_some_and(|kill| kill.at > before.at);
        // From a group it may come back as a new message, by way of another member.
        if !crashed && !delivery.dup && !delivery.shared {
            return Err("delivered again without DUP [MQTT-3.3.1-1]".to_owned());
        }
        Ok(())
    }

    /// Why nobody else may be sent a message once more that this receiver has answered, if so.
    pub(super) fn settled_for_others(
        &self,
        attempt: Attempt,
        crashes: &Crashes<'_>,
    ) -> Option<String> {
        let copy = self.copies.get(&attempt)?;
        let answered = copy.answered?;
        let heard = self.heard.get(&copy.link)?;
        let heard = heard.get(heard.partition_point(|heard| heard.before < answered))?;
        if crashes.kills.last().is_none_or(|kill| kill.at < heard.at) {
            return Some(format!("heard at entry {}, no crash since", heard.at));
        }
        self.settled(copy.link, answered, crashes)
    }

    fn exactly_once(&mut self, delivery: &Delivery) -> Result<(), String> {
        let Delivery { link, id, attempt, dup, .. } = *delivery;
        match self.held.get_mut(&id) {
            Some(held) if held.message == attempt.message => {
                if held.link == link {
                    return Err("delivered twice over one connection".to_owned());
                }
                held.link = link;
                if !dup {
                    return Err("delivered again without DUP [MQTT-3.3.1-1]".to_owned());
                }
                Ok(())
            }
            Some(held) => Err(format!("identifier {id} is in use for {}", held.message)),
            None => {
                let held = Held { message: attempt.message, link, answered: false };
                self.held.insert(id, held);
                if self.exact.insert(attempt.message) {
                    Ok(())
                } else {
                    Err("QoS 2, but delivered before".to_owned())
                }
            }
        }
    }

    fn in_order(&mut self, delivery: &Delivery) -> Result<(), String> {
        let Message { publisher, topic, .. } = delivery.attempt.message;
        let latest = (delivery.sent, delivery.attempt);
        let newest = self.newest.entry((publisher, topic)).or_insert(latest);
        if newest.0 > delivery.sent {
            return Err(format!("out of order: {} was sent later and came before", newest.1));
        }
        *newest = latest;
        Ok(())
    }

    /// Why an answer may not be forgotten, if it may not.
    fn settled(&self, link: Link, answered: usize, crashes: &Crashes<'_>) -> Option<String> {
        let Crashes { kills, lazy_ms } = *crashes;
        let heard = self.heard.get(&link)?;
        let heard = heard.get(heard.partition_point(|heard| heard.before < answered))?;
        let kill = kills.get(kills.partition_point(|kill| kill.at < heard.at));
        let moved = self.connected.get(self.connected.partition_point(|at| *at < heard.at));
        if let Some(moved) = moved
            && kill.is_none_or(|kill| kill.at > *moved)
        {
            return Some(format!("heard at entry {}, session resumed at {moved}", heard.at));
        }
        let kill = kill.filter(|kill| kill.at_ms >= heard.at_ms + lazy_ms)?;
        let waited = kill.at_ms - heard.at_ms;
        Some(format!("heard at entry {}, {waited} ms before the crash", heard.at))
    }
}
