//! A session while a client is connected to it: the protocol parts of `hoopoe_core::session`, the
//! subscriptions, and what waits for room.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use hoopoe_codec::{PacketId, QoS, ReasonCode, Version};
#[cfg(feature = "planted")]
use hoopoe_core::planted;
use hoopoe_core::seldom::Seldom;
use hoopoe_core::session::{Answers, Feed, InboundAliases, Incoming, OutboundAliases, Window};
use hoopoe_core::{Publication, Route, SessionId, SessionKey};
use hoopoe_store::command::{InFlight, Phase, Progress, Source, StoredWill};
use hoopoe_store::effect::QueueEntry;
use smallvec::SmallVec;

use super::im::{ImDevice, ImOwed};
use super::plan::Plan;
use super::rate::Rate;
use crate::access::Identity;

/// Where an outgoing message came from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Origin {
    /// Nothing is stored for it.
    #[default]
    Transient,
    /// The session's own queue.
    Queue {
        /// Entry.
        seq: u64,
        /// Queue weight up to it.
        weight: u64,
    },
    /// The session's own queue, ahead of what has been read since a crash: its place among the
    /// others is taken when the entry is read.
    Ahead {
        /// Entry.
        seq: u64,
    },
    /// A shared group's queue.
    Group {
        /// The group.
        group: SessionId,
        /// Entry.
        seq: u64,
    },
    /// A conversation of the IM profile, which goes by cursors.
    Im {
        /// The device's stream.
        stream: u32,
        /// Entry.
        seq: u64,
        /// The conversation's name in the record of a QoS 2 exchange; 0: there is none.
        tag: u64,
    },
    /// The same over an earlier connection: its place among the others is taken when the device
    /// comes to the entry.
    Kept {
        /// The conversation's name.
        tag: u64,
        /// Entry.
        seq: u64,
    },
}

impl Origin {
    /// The origin as the store knows it; `None` when nothing is stored.
    pub fn source(self) -> Option<Source> {
        match self {
            Origin::Transient | Origin::Im { tag: 0, .. } => None,
            Origin::Im { tag, seq, .. } | Origin::Kept { tag, seq } => {
                Some(Source::Entry(tag, seq))
            }
            Origin::Queue { seq, .. } | Origin::Ahead { seq } => Some(Source::Queue(seq)),
            Origin::Group { group, seq } => Some(Source::Group(group, seq)),
        }
    }
}

/// A message for this client that is not sent yet.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The message.
    pub publication: Arc<Publication>,
    /// QoS to send it with.
    pub qos: QoS,
    /// RETAIN flag to send.
    pub retain: bool,
    /// Subscription Identifiers.
    pub identifiers: SmallVec<[u32; 1]>,
    /// Where it came from.
    pub origin: Origin,
    /// It may have been sent before.
    pub dup: bool,
    /// The identifier under which it was sent before, if it keeps that.
    pub again: Option<PacketId>,
    /// The stored entry of a conversation that it is the form of, where a recall must reach it.
    pub entry: Option<Arc<hoopoe_im::entry::Entry>>,
}

impl Outgoing {
    /// A stored entry on its way out.
    pub fn from_entry(entry: QueueEntry, origin: Origin, dup: bool) -> Outgoing {
        #[cfg(feature = "planted")]
        let dup = dup && !planted::has(planted::Bug::ForgetDup);
        Outgoing {
            publication: entry.publication,
            qos: entry.qos,
            retain: entry.retain,
            identifiers: entry.identifiers,
            origin,
            dup,
            again: None,
            entry: None,
        }
    }
}

/// An answer owed to the client.
#[derive(Debug)]
pub enum Answer {
    /// A publication of QoS 0: no packet.
    Nothing,
    /// A link's identifier begins anew: no packet, or the connection's end if it could not.
    Forgotten,
    /// PUBACK.
    PubAck(PacketId),
    /// PUBREC.
    PubRec(PacketId),
    /// PUBCOMP, with Packet Identifier Not Found when that was so.
    PubComp(PacketId, ReasonCode),
    /// SUBACK, with the retained messages that are to follow.
    SubAck(PacketId, SmallVec<[ReasonCode; 8]>),
    /// UNSUBACK, and the shared subscriptions that it ends.
    UnsubAck(PacketId, SmallVec<[ReasonCode; 8]>, Vec<Arc<str>>),
}

impl Answer {
    /// Whether it answers a PUBLISH.
    pub fn is_to_publish(&self) -> bool {
        matches!(self, Answer::Nothing | Answer::PubAck(_) | Answer::PubRec(_))
    }
}

/// An answer, and the publication that goes to connected receivers when its turn comes.
#[derive(Debug)]
pub struct Owed {
    /// The packet.
    pub answer: Answer,
    /// Publication and receivers.
    pub publish: Option<(Arc<Publication>, Rc<Plan>)>,
    /// Bytes held for it.
    pub bytes: usize,
    /// Why the publication is refused, if it is: for people.
    pub reason: Option<&'static str>,
    /// Set for what is published below `im/`.
    pub im: Option<Box<ImOwed>>,
}

impl From<Answer> for Owed {
    fn from(answer: Answer) -> Owed {
        let bytes = match &answer {
            Answer::SubAck(_, codes) => codes.len(),
            Answer::UnsubAck(_, codes, shared) => {
                codes.len() + shared.iter().map(|filter| filter.len()).sum::<usize>()
            }
            _ => 0,
        };
        Owed { answer, publish: None, bytes, reason: None, im: None }
    }
}

/// The client's filters as it wrote them, sorted: small, and found by halving. The terms are in
/// the index.
#[derive(Debug, Default)]
pub struct Subscriptions {
    sorted: Vec<Box<str>>,
}

impl Subscriptions {
    /// Adds one, if it is not there.
    pub fn put(&mut self, filter: &str) {
        if let Err(at) = self.find(filter) {
            if self.sorted.len() == self.sorted.capacity() && self.sorted.len() < 8 {
                self.sorted.reserve_exact(1);
            }
            self.sorted.insert(at, filter.into());
        }
    }

    /// Takes one out; true when it was there.
    pub fn take(&mut self, filter: &str) -> bool {
        self.find(filter).map(|at| self.sorted.remove(at)).is_ok()
    }

    /// True when this very filter is subscribed to.
    pub fn has(&self, filter: &str) -> bool {
        self.find(filter).is_ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.sorted.iter().map(|filter| &**filter)
    }

    fn find(&self, filter: &str) -> Result<usize, usize> {
        self.sorted.binary_search_by(|sorted| (**sorted).cmp(filter))
    }
}

/// A scan of retained messages for one subscription.
#[derive(Debug)]
pub struct Scan {
    /// Filter, share prefix never present.
    pub filter: Arc<str>,
    /// QoS granted.
    pub qos: QoS,
    /// Subscription Identifier, 0 when none.
    pub identifier: u32,
    /// Last topic of the page before.
    pub after: Option<Arc<str>>,
    /// Number of the last publication with RETAIN when the subscription was in the index: later
    /// ones come live.
    pub number: u64,
    /// A page is on its way.
    pub reading: bool,
    /// Shards that have not yet said that everything submitted before is committed; `None` before
    /// they are asked.
    pub barriers: Option<usize>,
}

/// What an outgoing exchange does once its commit is done.
#[derive(Debug)]
pub enum Step {
    /// Send the PUBLISH under that identifier.
    Publish(Outgoing, PacketId),
    /// Send PUBREL.
    PubRel(PacketId),
    /// Forget the exchange of a group's entry: that the entry is done is written.
    Forget(PacketId),
}

impl Step {
    /// Bytes of the message it sends.
    pub fn bytes(&self) -> usize {
        match self {
            Step::Publish(outgoing, _) => outgoing.publication.bytes().len(),
            Step::PubRel(_) | Step::Forget(_) => 0,
        }
    }
}

/// Delivery from the store.
#[derive(Debug)]
pub struct Stored {
    /// The session.
    pub id: SessionId,
    /// How far the queue is delivered.
    pub feed: Feed,
    /// Entries read and not sent yet.
    pub page: VecDeque<QueueEntry>,
    /// Identifiers of entries below `resend_end` that are to be sent again.
    pub resend: VecDeque<(u64, PacketId)>,
    /// Entries below were given out over an earlier connection.
    pub resend_end: u64,
    /// Identifiers of restored entries ahead of `resend_end`.
    pub ahead: Vec<(u64, PacketId)>,
    /// Entries ahead of `resend_end` that are complete.
    pub done: Vec<u64>,
    /// QoS 2 exchanges that wait for their commit, and what must not overtake them.
    pub steps: Answers<Step>,
    /// Bytes of messages that they will put into the socket's buffer.
    pub steps_bytes: usize,
    /// Progress since the last report to the shard.
    pub progressed: bool,
}

impl Stored {
    /// Whether the entry `seq`, or any other, may have been given out over an earlier connection.
    pub fn is_resuming(&self, seq: u64) -> bool {
        let none = self.resend.is_empty() && self.ahead.is_empty() && self.done.is_empty();
        seq < self.resend_end || !none
    }

    /// Whether entries from `seq` on may be in the restored window: those are read although they
    /// have expired, for an exchange that was begun is finished ([MQTT-4.3.3-7]).
    pub fn may_be_resent(&self, seq: u64) -> bool {
        seq < self.resend_end || self.ahead.iter().any(|(ahead, _)| *ahead >= seq)
    }
}

/// A session with its client connected.
#[derive(Debug)]
pub struct Session {
    /// Whose it is.
    pub key: SessionKey,
    /// Who the client is.
    pub identity: Identity,
    /// The client's protocol version.
    pub version: Version,
    /// Route in the index.
    pub route: Arc<Route>,
    /// This connection's hold on the session.
    pub epoch: u32,
    /// The client's own publications.
    pub incoming: Incoming,
    /// Answers owed.
    pub answers: Answers<Owed>,
    /// Bytes held by answers owed.
    pub owed_bytes: usize,
    /// Messages in flight to the client.
    pub window: Window<Origin>,
    /// Aliases the client set.
    pub inbound_aliases: Option<Box<InboundAliases>>,
    /// Aliases the client takes.
    pub outbound_aliases: Option<Box<OutboundAliases>>,
    /// Subscriptions.
    pub subscriptions: Subscriptions,
    /// The client's Maximum Packet Size.
    pub maximum_packet: u32,
    /// The client wants reason strings ([MQTT-3.1.2-29]).
    pub problem_information: bool,
    /// Session Expiry Interval in seconds, as capped.
    pub expiry_secs: u32,
    /// Will of a session that ends with its connection.
    pub will: Option<Box<StoredWill>>,
    /// Messages that wait for room in the window.
    pub backlog: Seldom<VecDeque<Outgoing>>,
    /// Bytes of the backlog's payloads.
    pub backlog_bytes: usize,
    /// Stored messages that were not sent after all, with the identifier of a QoS 2 exchange.
    pub skipped: Seldom<Vec<(Option<PacketId>, Origin)>>,
    /// Set for sessions that outlive their connection.
    pub stored: Option<Box<Stored>>,
    /// Scans of retained messages, one at a time.
    pub scans: Seldom<VecDeque<Scan>>,
    /// Publish rate limits, when set.
    pub rate: Option<Box<Rate>>,
    /// Hashes of topics this client may publish to, as of `allowed_at`.
    pub allowed: SmallVec<[u64; 2]>,
    /// Generation of the rules that `allowed` rests on.
    pub allowed_at: u64,
    /// Where the topics of the client's tenant lie.
    pub space: Option<Arc<str>>,
    /// Set for another broker's bridge that speaks 3.1.1: the property that its messages get.
    pub via: Seldom<Vec<u8>>,
    /// Set when the client is a device of an IM user.
    pub im: Option<Box<ImDevice>>,
}

// What every connection has of it; jemalloc has 448 bytes for anything above.
const _: () = assert!(size_of::<Session>() <= 384);

impl Session {
    /// Where delivery stands, for the shard.
    pub fn progress(&self) -> Option<Progress> {
        let stored = self.stored.as_ref()?;
        let (acknowledged, weight, sent) = stored.feed.position();
        Some(Progress { session: stored.id, epoch: self.epoch, acknowledged, weight, sent })
    }

    /// Entries of the session's queue that are complete although an earlier one is not.
    pub fn completed(&self) -> Vec<u64> {
        let ahead = self.stored.iter().flat_map(|stored| stored.done.iter().copied());
        let queued = self.window.complete_before_turn().filter_map(|origin| match origin {
            Origin::Queue { seq, .. } | Origin::Ahead { seq } => Some(seq),
            Origin::Transient | Origin::Group { .. } => None,
            Origin::Im { .. } | Origin::Kept { .. } => None,
        });
        queued.chain(ahead).collect()
    }

    /// What stays with the session of shared groups when its connection ends, by group and number:
    /// QoS 2 that it may have begun to receive ([MQTT-4.8.2-4]). The rest goes back to the group,
    /// where any member may get it (ruling 10).
    pub fn kept_of_groups(&self) -> impl Iterator<Item = (SessionId, u64)> + '_ {
        let unsent = self.unsent();
        self.window.iter().filter_map(move |message| match message.source {
            Origin::Group { group, seq } if stays(message.qos, message.id, &unsent) => {
                Some((group, seq))
            }
            _ => None,
        })
    }

    /// Exchanges whose first PUBLISH waits for their record to be on disk.
    fn unsent(&self) -> HashSet<PacketId> {
        let steps = self.stored.iter().flat_map(|stored| stored.steps.iter());
        let first = steps.filter_map(|step| match step {
            Step::Publish(outgoing, id) if outgoing.again.is_none() => Some(*id),
            _ => None,
        });
        first.collect()
    }

    /// The window as the shard keeps it for the next connection.
    pub fn stored_window(&self) -> Vec<InFlight> {
        let unsent = self.unsent();
        let in_flight = self.window.iter().filter_map(|message| {
            let of_group = matches!(message.source, Origin::Group { .. });
            if of_group && !stays(message.qos, message.id, &unsent) {
                return None;
            }
            Some(InFlight {
                id: message.id.get(),
                source: message.source.source()?,
                phase: if message.released { Phase::Released } else { Phase::Published },
                qos: message.qos,
            })
        });
        in_flight.chain(self.unpassed()).collect()
    }
}

/// Whether an entry of a shared group stays with the session that has it.
fn stays(qos: QoS, id: PacketId, unsent: &HashSet<PacketId>) -> bool {
    qos == QoS::ExactlyOnce && !unsent.contains(&id)
}
