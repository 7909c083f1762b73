//! Judges a history: was what the broker acknowledged delivered, in order, exactly once where that
//! was asked for, and did nothing come back that was gone?
//!
//! The rules, for publication *m* and receiver *r* with a stored session:
//!
//! - **Kept**: *m* was acknowledged, and *r* was subscribed from before its first attempt until now,
//!   in one session: *r* has got *m*.
//! - **Ordered**: of what one publisher sent on one topic, new messages reach *r* in the order in
//!   which they were sent. An attempt is a message of its own here: what is sent again may come
//!   after what was sent after its first attempt, when *r* subscribed in between.
//! - **Exactly once**: a QoS 2 publication that is delivered with QoS 2 reaches *r* once; a repeated
//!   PUBLISH under the identifier that is still held is no second delivery. A QoS 2 publication is
//!   taken from its publisher once, however it is delivered.
//! - **Duplicates with QoS 1**: the same attempt of *m* reaches *r* again only over a later
//!   connection, and only if the answer of *r* was not *settled*. An answer is settled when the
//!   broker was heard after it (PINGRESP to a PINGREQ that followed it, or the end of the connection
//!   after DISCONNECT and before the next CONNECT), and then either the session went to another
//!   connection without a crash in between, or [`LAZY_MS`] passed before the broker was killed.
//! - **No ghosts**: *m* reaches *r* only if *r* may have been subscribed, in this session, at a time
//!   between an attempt of *m* and its acknowledgement.
//! - **Groups**: all of this holds for the members of a shared subscription together. What is
//!   acknowledged reaches one of them, with QoS 2 exactly one; a QoS 1 message reaches another one
//!   only if the answer of the first was not settled. Order is not promised (4.6).
//! - **Sessions** are there when they must be, and gone when they must be gone.
//! - **Retained**: the message of a topic is the last acknowledged one, or a later one.

mod group;
mod receiver;
mod session;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::group::Group;
use self::receiver::{Delivery, Receiver};
use self::session::{Got, Session};
use super::cast::{Cast, EXPIRY_SECS, FilterRole, GROUPS, ReceiverRole, Temper};
use super::history::{Client, Entry, Event, History};
use super::message::{Attempt, Message};

/// How long before a crash an answer may have come and still be forgotten by it: a second until the
/// worker tells the shard, a second until the shard writes it, and one for a busy machine.
pub const LAZY_MS: u64 = 3_000;
/// The same before a power cut: what is written lazily waits for a sync of something else, and is
/// synced for its own sake after two seconds.
pub const LAZY_SYNC_MS: u64 = LAZY_MS + 3_000;

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What is wrong.
    pub what: String,
    /// With which message.
    pub message: Option<Message>,
    /// Seen by whom.
    pub client: Option<Client>,
    /// Number of the entry that shows it.
    pub at: usize,
}

/// What is known about a publication.
#[derive(Clone, Debug)]
struct Publication {
    qos: u8,
    cleared: bool,
    /// Entry of each attempt.
    attempts: Vec<usize>,
    acked: Option<usize>,
}

/// The end of a run of the broker.
#[derive(Clone, Copy, Debug)]
struct Kill {
    at: usize,
    at_ms: u64,
}

/// The ends of all runs so far.
#[derive(Clone, Copy, Debug)]
struct Crashes<'a> {
    kills: &'a [Kill],
    lazy_ms: u64,
}

/// Retained publications of one topic.
#[derive(Clone, Copy, Default, Debug)]
struct Kept {
    sent: u32,
    acked: u32,
}

struct Audit<'a> {
    cast: &'a Cast,
    lazy_ms: u64,
    publications: HashMap<Message, Publication>,
    /// In the order of their first attempts, by publisher.
    published: Vec<Vec<Message>>,
    kept: HashMap<(u16, u16), Kept>,
    kills: Vec<Kill>,
    ready_ms: u64,
    publishers: Vec<Session>,
    receivers: Vec<Receiver>,
    groups: Vec<Group>,
    faults: Vec<Fault>,
}

/// Everything that is wrong with a history, when what is written lazily is written within `lazy_ms`
/// ([`LAZY_MS`], or [`LAZY_SYNC_MS`] if power was cut).
pub fn audit(cast: &Cast, history: &History, lazy_ms: u64) -> Vec<Fault> {
    let mut audit = Audit {
        cast,
        lazy_ms,
        publications: HashMap::new(),
        published: vec![Vec::new(); cast.publishers.len()],
        kept: HashMap::new(),
        kills: Vec::new(),
        ready_ms: 0,
        publishers: cast.publishers.iter().map(|role| Session::new(role.version, None)).collect(),
        receivers: cast.receivers.iter().map(receiver).collect(),
        groups: (0..GROUPS).map(|group| Group::new(cast.members(group))).collect(),
        faults: Vec::new(),
    };
    for (at, entry) in history.entries.iter().enumerate() {
        audit.judge(at, entry);
    }
    audit.find_losses(history.entries.len());
    audit.faults
}

fn receiver(role: &ReceiverRole) -> Receiver {
    let expiring = role.temper == Temper::Expiring;
    let expiry_ms = expiring.then_some(u64::from(EXPIRY_SECS) * 1000);
    Receiver::new(Session::new(role.version, expiry_ms), role.filters.len())
}

impl Audit<'_> {
    fn judge(&mut self, at: usize, entry: &Entry) {
        let result = match &entry.event {
            Event::Published { attempt, qos, cleared } => {
                self.publish(at, *attempt, *qos, *cleared);
                Ok(())
            }
            Event::Acked { message } => self.acked(at, *message),
            Event::Killed { at_ms } => {
                self.kills.push(Kill { at, at_ms: *at_ms });
                let lazy_ms = self.lazy_ms;
                self.sessions().for_each(|session| session.killed(*at_ms, lazy_ms));
                Ok(())
            }
            Event::Ready => {
                self.ready_ms = entry.at_ms;
                Ok(())
            }
            Event::Retained { found } => {
                self.retained(at, found);
                Ok(())
            }
            Event::Fault { what, .. } => Err(what.clone()),
            event => match event.client() {
                Some(Client::Receiver(number)) => {
                    self.judge_receiver(at, usize::from(number), entry)
                }
                Some(Client::Publisher(number)) => self.judge_session(usize::from(number), entry),
                None => Ok(()),
            },
        };
        if let Err(what) = result {
            let (message, client) = (entry.event.message(), entry.event.client());
            self.faults.push(Fault { what, message, client, at });
        }
    }

    fn sessions(&mut self) -> impl Iterator<Item = &mut Session> {
        let receivers = self.receivers.iter_mut().map(|receiver| &mut receiver.session);
        self.publishers.iter_mut().chain(receivers)
    }

    fn publish(&mut self, at: usize, attempt: Attempt, qos: u8, cleared: bool) {
        let message = attempt.message;
        let publication = self.publications.entry(message).or_insert_with(|| {
            self.published[usize::from(message.publisher)].push(message);
            Publication { qos, cleared, attempts: Vec::new(), acked: None }
        });
        publication.attempts.push(at);
        if self.cast.topic(message).kept {
            let kept = self.kept.entry((message.publisher, message.topic)).or_default();
            kept.sent = kept.sent.max(message.seq);
        }
    }

    fn acked(&mut self, at: usize, message: Message) -> Result<(), String> {
        let Some(publication) = self.publications.get_mut(&message) else {
            return Err("acknowledged, never published".to_owned());
        };
        publication.acked.get_or_insert(at);
        if let Some(kept) = self.kept.get_mut(&(message.publisher, message.topic)) {
            kept.acked = kept.acked.max(message.seq);
        }
        Ok(())
    }

    fn judge_session(&mut self, number: usize, entry: &Entry) -> Result<(), String> {
        self.publishers[number].judge(entry, self.ready_ms).map(|_| ())
    }

    fn judge_receiver(&mut self, at: usize, number: usize, entry: &Entry) -> Result<(), String> {
        let receiver = &mut self.receivers[number];
        let role = &self.cast.receivers[number];
        match &entry.event {
            Event::Subscribe { filter, .. } => {
                receiver.windows[usize::from(*filter)].may_begin(at);
            }
            Event::Subscribed { filter, .. } => {
                receiver.windows[usize::from(*filter)].begins(at);
            }
            Event::Unsubscribe { filter, .. } => {
                receiver.windows[usize::from(*filter)].may_end();
            }
            Event::Unsubscribed { filter, .. } => {
                receiver.windows[usize::from(*filter)].ends(at);
            }
            Event::Delivered { link, id, qos, dup, retain, attempt, .. } => {
                let publication = self.publications.get(&attempt.message);
                let sent = publication.and_then(|p| {
                    p.attempts.get(usize::from(attempt.number).checked_sub(1)?).copied()
                });
                let (Some(publication), Some(sent)) = (publication, sent) else {
                    return Err("delivered, never published".to_owned());
                };
                let Some(filter) = self.cast.matching(number, attempt.message) else {
                    return Err("delivered, but no filter of this receiver matches".to_owned());
                };
                if *retain {
                    return Err("RETAIN is set for a live message".to_owned());
                }
                let expected = publication.qos.min(role.filters[filter].qos);
                if *qos != expected {
                    return Err(format!("delivered with QoS {qos} instead of {expected}"));
                }
                let group = role.filters[filter].group;
                let delivery = Delivery {
                    at,
                    link: *link,
                    id: *id,
                    qos: *qos,
                    dup: *dup,
                    attempt: *attempt,
                    filter,
                    shared: group.is_some(),
                    sent,
                };
                let crashes = Crashes { kills: &self.kills, lazy_ms: self.lazy_ms };
                receiver.delivered(&delivery, publication, role.receive_maximum, &crashes)?;
                if let Some(group) = group {
                    let group = &mut self.groups[usize::from(group)];
                    group.delivered(&self.receivers, number, &delivery, publication, &crashes)?;
                }
            }
            Event::Answered { id, attempt, .. } => receiver.answered(at, *id, *attempt),
            Event::Released { id, .. } => receiver.released(*id)?,
            Event::Ping { link, .. } => receiver.ping(at, *link),
            Event::Pong { link, .. } => receiver.pong(at, entry.at_ms, *link),
            _ => {
                receiver.watch_link(at, entry);
                match receiver.session.judge(entry, self.ready_ms)? {
                    Some(Got::New) => receiver.start_anew(),
                    Some(Got::Either) => receiver.may_start_anew(),
                    Some(Got::Known) | None => {}
                }
            }
        }
        Ok(())
    }

    /// The state a new subscriber is sent, topic by topic.
    fn retained(&mut self, at: usize, found: &[Attempt]) {
        let mut by_topic: HashMap<(u16, u16), Attempt> = HashMap::new();
        for attempt in found {
            let message = attempt.message;
            if by_topic.insert((message.publisher, message.topic), *attempt).is_some() {
                self.retained_fault(at, message, "two retained messages of one topic".to_owned());
            }
        }
        for publisher in 0..self.cast.publishers.len() {
            for topic in 0..self.cast.publishers[publisher].topics.len() {
                let (publisher, topic) = (publisher as u16, topic as u16);
                let kept = self.kept.get(&(publisher, topic)).copied().unwrap_or_default();
                let found = by_topic.get(&(publisher, topic));
                let newest = Message { publisher, topic, seq: kept.acked };
                if let Err(what) = self.judge_retained(newest, kept, found) {
                    let shown = found.map_or(newest, |attempt| attempt.message);
                    self.retained_fault(at, shown, what);
                }
            }
        }
    }

    fn judge_retained(
        &self,
        newest: Message,
        kept: Kept,
        found: Option<&Attempt>,
    ) -> Result<(), String> {
        let cleared = |seq: u32| {
            let publication = self.publications.get(&Message { seq, ..newest });
            publication.is_some_and(|publication| publication.cleared)
        };
        match found.map(|attempt| attempt.message.seq) {
            Some(seq) if seq > kept.sent || cleared(seq) => {
                Err("retained, but never published".to_owned())
            }
            Some(seq) if seq < kept.acked => {
                let last = if cleared(kept.acked) { "removal" } else { "message" };
                Err(format!("retained, but the {last} {newest} was acknowledged later"))
            }
            None if kept.acked > 0 && !(kept.acked..=kept.sent).any(cleared) => {
                Err(format!("no retained message, but {newest} was acknowledged"))
            }
            _ => Ok(()),
        }
    }

    fn retained_fault(&mut self, at: usize, message: Message, what: String) {
        let client = Some(Client::Publisher(message.publisher));
        self.faults.push(Fault { what, message: Some(message), client, at });
    }

    /// What was acknowledged and has not arrived.
    fn find_losses(&mut self, end: usize) {
        let mut lost = Vec::new();
        for (number, receiver) in self.receivers.iter().enumerate() {
            let filters = self.cast.receivers[number].filters.iter();
            for (filter, window) in filters.zip(&receiver.windows) {
                let Some(since) = window.certain_since() else { continue };
                if filter.group.is_none() {
                    let missing = self.owed(filter, since).filter(|m| !receiver.has(*m));
                    lost.extend(missing.map(|message| (message, number)));
                }
            }
        }
        for group in &self.groups {
            let Some(since) = group.certain_since(&self.receivers) else { continue };
            let Some((first, filter)) = group.members.first().copied() else { continue };
            let filter = &self.cast.receivers[first].filters[filter];
            let missing = self.owed(filter, since).filter(|m| !group.has(&self.receivers, *m));
            lost.extend(missing.map(|message| (message, first)));
        }
        self.faults.extend(lost.into_iter().map(|(message, receiver)| Fault {
            what: "acknowledged, but never delivered".to_owned(),
            message: Some(message),
            client: Some(Client::Receiver(receiver as u16)),
            at: end,
        }));
    }

    /// What a filter that was there from entry `since` on has to bring.
    fn owed(&self, filter: &FilterRole, since: usize) -> impl Iterator<Item = Message> {
        let of_publisher = self.published[usize::from(filter.publisher)].iter().copied();
        of_publisher.filter(move |message| {
            let publication = &self.publications[message];
            publication.acked.is_some()
                && publication.attempts[0] > since
                && !publication.cleared
                && filter.covers(*message, self.cast.topic(*message))
        })
    }
}
