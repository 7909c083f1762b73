//! What a shard makes happen: released only after the commit that it rests on.

use std::sync::Arc;

use hoopoe_codec::{QoS, ReasonCode};
use hoopoe_core::{Location, Publication, Route, SessionId, SessionKey};
use smallvec::SmallVec;

use crate::command::{InFlight, ReplyTo, StoredSubscription};

/// An effect, with the connection or room it is for.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A CONNECT may be answered.
    Opened(Box<Opened>),
    /// Another connection takes the session: end this one (0x8E) and send its `Close`.
    TakenOver {
        /// The connection that has to go.
        location: Location,
        /// The reason for its DISCONNECT: 0x8E, or 0x98 for an operator's eviction.
        reason: ReasonCode,
    },
    /// A command is on disk, or refused.
    Committed {
        /// Who waits.
        reply: ReplyTo,
        /// Success or why not: `ServerUnavailable` when the shard cannot write, `UnspecifiedError`
        /// when what was asked for may have happened or not.
        code: ReasonCode,
        /// For a publication that changed retained state: the position of that change, with which
        /// a retained scan is compared (ruling 8). 0 otherwise.
        position: u64,
    },
    /// A committed entry for connected sessions, in queue order per session.
    Live {
        /// The message, shared.
        publication: Arc<Publication>,
        /// Who gets it, and as which entry of their queue.
        receivers: Vec<LiveReceiver>,
        /// Position of the change of retained state, when this shard made one; 0 otherwise.
        position: u64,
    },
    /// An entry of a shared group for one member.
    Offer {
        /// The member's connection.
        location: Location,
        /// The group.
        group: SessionId,
        /// The entry, with the member's terms.
        entry: QueueEntry,
    },
    /// A group exists from now on: put its route into the index, before the member's SUBACK.
    GroupMade {
        /// The route, with `group` set.
        route: Arc<Route>,
        /// ShareName.
        share: Arc<str>,
        /// Filter without the share prefix.
        filter: Arc<str>,
    },
    /// A group lost its last member: take its route out of the index.
    GroupEnded {
        /// The group.
        group: SessionId,
        /// ShareName.
        share: Arc<str>,
        /// Filter without the share prefix.
        filter: Arc<str>,
    },
    /// A stored session ended: take its routes out of the index, leave its groups.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// Its subscriptions.
        filters: Vec<Arc<str>>,
        /// What was in delivery to it of shared groups, also of those whose subscription it had
        /// ended: the group, and the entry's number. They are done ([MQTT-4.8.2-5]).
        kept: Vec<(SessionId, u64)>,
    },
    /// A will (or other outbox entry) is to be published, then [`OutboxDone`] to be sent.
    ///
    /// [`OutboxDone`]: crate::Command::OutboxDone
    Publish {
        /// Number of the outbox entry; 0 when nothing is stored for it.
        outbox: u64,
        /// Whose will: for the access rules and the log.
        key: SessionKey,
        /// The message.
        publication: Arc<Publication>,
    },
    /// Messages were dropped from a full queue (ruling 13): to be counted.
    Overflowed {
        /// Whose queue.
        session: SessionId,
        /// How many.
        messages: u64,
    },
}

/// The answer to an [`Open`](crate::command::Open).
#[derive(Clone, Debug)]
pub struct Opened {
    /// Who waits.
    pub reply: ReplyTo,
    /// Whose session.
    pub key: SessionKey,
    /// Success, or why the CONNECT is refused (0x88 when the store cannot write).
    pub code: ReasonCode,
    /// Session Present.
    pub session_present: bool,
    /// Epoch of this connection's hold on the session.
    pub epoch: u32,
    /// The stored session; `None` when it ends with the connection.
    pub session: Option<StoredSession>,
}

/// What a resumed or new stored session starts with.
#[derive(Clone, Debug)]
pub struct StoredSession {
    /// Its id.
    pub id: SessionId,
    /// Its route, shared with the index.
    pub route: Arc<Route>,
    /// Every entry up to here is acknowledged.
    pub acknowledged: u64,
    /// Queue weight of those entries.
    pub weight: u64,
    /// Entries up to here may have been sent before: DUP.
    pub sent: u64,
    /// The next entry to read that is in no window. After a crash the window may have gaps:
    /// entries read later that are in `window` or `done` are not to be sent again.
    pub next: u64,
    /// Last entry of the queue.
    pub head: u64,
    /// The outgoing window, oldest first.
    pub window: Vec<InFlight>,
    /// Entries above `acknowledged` that are complete all the same (QoS 2 exchanges that ended
    /// before an earlier entry did), in order.
    pub done: Vec<u64>,
    /// Packet identifiers of incoming QoS 2 publications that await PUBREL.
    pub markers: Vec<u16>,
    /// Those of them that are known to be committed by all shards that took part. A crash may
    /// have come between the commits of two shards: none is known after a start.
    pub answered: Vec<u16>,
    /// Its subscriptions (the routes are in the index already).
    pub subscriptions: Vec<StoredSubscription>,
}

/// One connected session that gets a committed entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveReceiver {
    /// Its connection.
    pub location: Location,
    /// Number of the entry in its queue.
    pub seq: u64,
    /// Queue weight up to and including this entry.
    pub weight: u64,
    /// Effective QoS.
    pub qos: QoS,
    /// RETAIN flag to send.
    pub retain: bool,
    /// Subscription Identifiers.
    pub identifiers: SmallVec<[u32; 1]>,
}

/// One entry of a queue as a reader gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueEntry {
    /// Number in the queue.
    pub seq: u64,
    /// Running total of the queue's bytes up to and including this entry.
    pub weight: u64,
    /// Effective QoS.
    pub qos: QoS,
    /// RETAIN flag to send.
    pub retain: bool,
    /// Subscription Identifiers.
    pub identifiers: SmallVec<[u32; 1]>,
    /// The message.
    pub publication: Arc<Publication>,
}
