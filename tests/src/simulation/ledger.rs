//! What has happened in a run, as seen from outside: publications with their attempts and
//! acknowledgements, the numbers of stored entries, crashes. Checkers judge by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hoopoe::fabric::Mail;
use hoopoe_core::{Location, SessionId};
use hoopoe_store::effect::QueueEntry;

/// How long before a crash an answer may have come and still be forgotten by it: a second until
/// the worker tells the shard, one until the shard writes it, two until that is synced, and the
/// rest for how threads took turns.
pub const LAZY_MS: u64 = 8_000;

/// A place in the order of everything that happened.
pub type Order = u64;

/// A publication, by its number in the run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Message(pub usize);

/// One sending of a publication.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attempt {
    /// Which one.
    pub message: Message,
    /// From 0.
    pub number: usize,
}

impl Attempt {
    /// The payload that says so.
    pub fn payload(self, padding: usize) -> Vec<u8> {
        let mut payload = format!("m{}.{} ", self.message.0, self.number).into_bytes();
        payload.resize(payload.len().max(padding), b'.');
        payload
    }

    /// From a payload.
    pub fn read(payload: &[u8]) -> Option<Attempt> {
        let text = payload.split(|byte| *byte == b' ').next()?;
        let (message, number) =
            std::str::from_utf8(text).ok()?.strip_prefix('m')?.split_once('.')?;
        Some(Attempt { message: Message(message.parse().ok()?), number: number.parse().ok()? })
    }
}

/// A publication as its publisher knows it.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Who published it.
    pub publisher: usize,
    /// Topic.
    pub topic: &'static str,
    /// QoS it was published with.
    pub qos: u8,
    /// With RETAIN.
    pub retain: bool,
    /// Bytes of its payload.
    pub padding: usize,
    /// When each attempt was sent.
    pub attempts: Vec<Order>,
    /// When its PUBACK or PUBREC came.
    pub acked: Option<Order>,
    /// A will: published by the broker, by nobody else.
    pub will: bool,
}

/// The run so far.
#[derive(Debug, Default)]
pub struct Ledger {
    order: Order,
    /// All publications.
    pub publications: Vec<Publication>,
    /// Times of crashes.
    pub crashes: Vec<u64>,
    /// Writes have failed: what is lazy may be older than usual.
    pub disk_failed: bool,
    /// The broker's process has ended at least once: what is in memory alone was forgotten.
    pub process_ended: bool,
    /// Messages that full queues dropped.
    pub overflowed: u64,
    /// Attempts at QoS 2 publications that the broker has refused.
    refused: BTreeSet<Attempt>,
    sessions: HashMap<Location, SessionId>,
    entries: BTreeMap<(SessionId, u64), Attempt>,
    live: HashMap<Location, u64>,
    /// Entries seen in letters.
    pub entries_seen: u64,
}

impl Ledger {
    /// The next place in the order.
    pub fn now(&mut self) -> Order {
        self.order += 1;
        self.order
    }

    /// A new publication.
    pub fn publish(&mut self, publication: Publication) -> Message {
        self.publications.push(publication);
        Message(self.publications.len() - 1)
    }

    /// One more sending of it.
    pub fn attempt(&mut self, message: Message) -> Attempt {
        let now = self.now();
        let attempts = &mut self.publications[message.0].attempts;
        attempts.push(now);
        Attempt { message, number: attempts.len() - 1 }
    }

    /// Its acknowledgement came.
    pub fn acked(&mut self, message: Message) {
        let now = self.now();
        self.publications[message.0].acked.get_or_insert(now);
    }

    /// The broker has refused what has been sent of it so far.
    pub fn refused(&mut self, message: Message) {
        if let Some(number) = self.publications[message.0].attempts.len().checked_sub(1) {
            self.refused.insert(Attempt { message, number });
        }
    }

    /// Which life of its identifier an attempt at a QoS 2 publication belongs to. A refusal ends
    /// one: what is sent under the identifier afterwards is a new message, also if the refusal
    /// got lost and the publisher repeats the old one ([MQTT-4.3.3-9]).
    pub fn life(&self, attempt: Attempt) -> usize {
        let first = Attempt { number: 0, ..attempt };
        self.refused.range(first..attempt).count()
    }

    /// The publication itself.
    pub fn publication(&self, message: Message) -> &Publication {
        &self.publications[message.0]
    }

    /// When an attempt was sent.
    pub fn sent(&self, attempt: Attempt) -> Option<Order> {
        self.publications.get(attempt.message.0)?.attempts.get(attempt.number).copied()
    }

    /// Whether a crash may have made the broker forget an answer that it heard at that time.
    pub fn may_have_forgotten(&self, heard_ms: u64) -> bool {
        let within = |crash: &&u64| **crash >= heard_ms && **crash <= heard_ms + LAZY_MS;
        self.disk_failed || self.crashes.iter().rev().any(|crash| within(&crash))
    }

    /// The broker's memory is gone.
    pub fn restarted(&mut self) {
        self.process_ended = true;
        self.sessions.clear();
        self.live.clear();
    }

    /// A letter to a worker: numbers of entries are dense per queue and name one message for ever
    /// (invariant 2).
    pub fn letter(&mut self, letter: &Mail) -> Result<(), String> {
        match letter {
            Mail::Opened(opened) => {
                if let Some(stored) = &opened.session {
                    self.sessions.insert(opened.reply.location, stored.id);
                }
            }
            Mail::Live { publication, receivers } => {
                for receiver in receivers {
                    let last = self.live.insert(receiver.location, receiver.seq);
                    if let Some(last) = last
                        && receiver.seq != last + 1
                        && !self.disk_failed
                    {
                        return Err(format!("entry {} follows {last} in a queue", receiver.seq));
                    }
                    if let Some(session) = self.sessions.get(&receiver.location) {
                        self.entry(*session, receiver.seq, publication.payload())?;
                    }
                }
            }
            Mail::Queue { location, page } => {
                let Some(session) = self.sessions.get(location).copied() else { return Ok(()) };
                self.page(session, &page.entries)?;
            }
            // At QoS 0 nothing is stored, and there is no number.
            Mail::Offer { group, entry, .. } if entry.seq > 0 => {
                self.entry(*group, entry.seq, entry.publication.payload())?;
            }
            _ => {}
        }
        Ok(())
    }

    fn page(&mut self, session: SessionId, entries: &[QueueEntry]) -> Result<(), String> {
        for pair in entries.windows(2) {
            if pair[0].seq >= pair[1].seq {
                return Err(format!("entry {} is read after {}", pair[1].seq, pair[0].seq));
            }
        }
        entries
            .iter()
            .try_for_each(|entry| self.entry(session, entry.seq, entry.publication.payload()))
    }

    fn entry(&mut self, session: SessionId, seq: u64, payload: &[u8]) -> Result<(), String> {
        let Some(attempt) = Attempt::read(payload) else {
            return Err(format!("entry {seq} of {session:?} is nobody's message"));
        };
        self.entries_seen += 1;
        let first = *self.entries.entry((session, seq)).or_insert(attempt);
        if first != attempt {
            return Err(format!("number {seq} of {session:?} was {first:?}, is {attempt:?}"));
        }
        Ok(())
    }
}

/// Whether a filter matches a topic (neither begins with `$` here).
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

/// A letter in words, if it is one about entries.
pub fn describe(letter: &Mail) -> Option<String> {
    let text =
        |payload: &[u8]| String::from_utf8_lossy(&payload[..payload.len().min(12)]).into_owned();
    match letter {
        Mail::Opened(opened) => {
            let session = opened.session.as_ref().map(|stored| {
                let (done, sent) = (stored.acknowledged, stored.sent);
                let ids: Vec<u16> = stored.window.iter().map(|message| message.id).collect();
                format!("{:?}, {done} acknowledged, {sent} sent, window {ids:?}", stored.id)
            });
            Some(format!("opened {} {:?} {session:?}", opened.key, opened.code))
        }
        Mail::Live { publication, receivers } => {
            let seqs: Vec<u64> = receivers.iter().map(|receiver| receiver.seq).collect();
            Some(format!("live {} as {seqs:?}", text(publication.payload())))
        }
        Mail::Offer { location, group, entry } => {
            let payload = text(entry.publication.payload());
            Some(format!("offer {payload} as {} of {group:?} to {location:?}", entry.seq))
        }
        Mail::EntryGone { group, seq, .. } => Some(format!("{seq} of {group:?} is gone")),
        Mail::Queue { location, page } => {
            let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
            Some(format!("page {seqs:?} for {location:?}, ended {}", page.ended))
        }
        Mail::TakenOver { location, reason } => Some(format!("{location:?} has to go: {reason:?}")),
        Mail::Committed { reply, code } if code.is_error() => Some(format!("{reply:?}: {code:?}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_ends_the_life_of_an_identifier_also_if_it_is_lost() {
        let mut ledger = Ledger::default();
        let publication = || Publication {
            publisher: 0,
            topic: "a/1",
            qos: 2,
            retain: false,
            padding: 0,
            attempts: Vec::new(),
            acked: None,
            will: false,
        };
        let (refused, other) = (ledger.publish(publication()), ledger.publish(publication()));
        let lives = |ledger: &mut Ledger, message| {
            let attempt = ledger.attempt(message);
            ledger.life(attempt)
        };
        assert_eq!(lives(&mut ledger, refused), 0);
        assert_eq!(lives(&mut ledger, refused), 0, "a repeat is the same message");
        ledger.refused(refused);
        assert_eq!(lives(&mut ledger, refused), 1, "after a refusal it is a new one");
        assert_eq!(lives(&mut ledger, refused), 1);
        assert_eq!(ledger.life(Attempt { message: refused, number: 1 }), 0);
        assert_eq!((lives(&mut ledger, other), lives(&mut ledger, other)), (0, 0));
    }
}
