//! What a shard can be told to do.
//!
//! A command carries everything its outcome depends on: the shard reads no clock and draws no
//! numbers. Commands of a session carry its epoch, so that what an ended connection left behind
//! changes nothing.

use std::sync::Arc;

use hoopoe_codec::{QoS, SubscribeOptions};
use hoopoe_core::{Location, PacketIdent, Publication, SessionId, SessionKey, Slot};
use smallvec::SmallVec;

/// Where the answer to a command goes: a connection, and a number that means something to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    /// The connection that waits.
    pub location: Location,
    /// The connection's own number for what it waits for.
    pub token: u64,
}

/// A command to a shard.
#[derive(Clone, Debug)]
pub enum Command {
    /// A client connected: find or make its session, end the connection it had.
    Open(Box<Open>),
    /// A connection ended and gives its session back.
    Close(Box<Close>),
    /// Subscriptions of a stored session were made or replaced.
    Subscribe {
        /// The session.
        session: SessionId,
        /// Its epoch.
        epoch: u32,
        /// Filters as the client wrote them (`$share/…` included), with their terms.
        filters: Vec<StoredSubscription>,
        /// Told when they are on disk.
        reply: ReplyTo,
    },
    /// Subscriptions of a stored session were ended.
    Unsubscribe {
        /// The session.
        session: SessionId,
        /// Its epoch.
        epoch: u32,
        /// Filters as the client wrote them.
        filters: Vec<Arc<str>>,
        /// Told when that is on disk.
        reply: ReplyTo,
    },
    /// A publication for stored sessions, groups or retained state of this shard.
    Publish(Box<Publish>),
    /// How far a stored session has come. Written lazily: answered by nothing.
    Progress(Progress),
    /// Entries of a stored session's queue are complete before an earlier one is.
    Complete {
        /// The session.
        session: SessionId,
        /// Its epoch.
        epoch: u32,
        /// Numbers of the entries.
        entries: Vec<u64>,
    },
    /// Outgoing QoS 2 exchanges of a stored session, committed before the packet they allow.
    Exchange {
        /// The session.
        session: SessionId,
        /// Its epoch.
        epoch: u32,
        /// What changed.
        changes: SmallVec<[ExchangeChange; 4]>,
        /// Told when they are on disk; `None` for completions, which may be lazy (ruling 5).
        reply: Option<ReplyTo>,
    },
    /// PUBREL came: the marker of an incoming QoS 2 publication is removed.
    Release {
        /// Publisher's session and packet identifier.
        marker: PacketIdent,
        /// Told when that is on disk.
        reply: ReplyTo,
    },
    /// A shared-subscription group's change or answer.
    Group(Box<GroupCommand>),
    /// Does nothing; the answer says that everything told before is committed.
    Barrier {
        /// Told then.
        reply: ReplyTo,
    },
    /// An outbox entry has been carried out.
    OutboxDone {
        /// Its number.
        outbox: u64,
    },
    /// An operator ends a session: its connection (if any) is told to go, its rows are removed.
    Evict {
        /// Whose session.
        key: SessionKey,
    },
    /// Retained messages found expired by a reader; removed when they are still the same ones.
    ExpireRetained {
        /// Topic and the position it was stored at.
        topics: Vec<(Arc<str>, u64)>,
    },
}

/// A CONNECT that has been let in.
#[derive(Clone, Debug)]
pub struct Open {
    /// Whose session.
    pub key: SessionKey,
    /// Clean Start (3.1.1: Clean Session).
    pub clean_start: bool,
    /// Session Expiry Interval in seconds, already capped; 0 ends the session with the
    /// connection; `u32::MAX` never does ([MQTT-3.1.2.11.2]). 3.1.1 clean session 0 = the cap.
    pub expiry_secs: u32,
    /// The will, stored for sessions that outlive their connection.
    pub will: Option<StoredWill>,
    /// The new connection.
    pub reply: ReplyTo,
}

/// A will as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredWill {
    /// The message; its expiry counts from publication, so it is kept beside it.
    pub publication: Publication,
    /// Message Expiry Interval of the will in seconds.
    pub expiry_secs: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_secs: u32,
}

/// Why a connection gave its session back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseCause {
    /// DISCONNECT 0x00: the will is dropped ([MQTT-3.1.2-10]).
    Normal,
    /// Anything else, take-over included: the will is due.
    Abnormal,
    /// The node stops: the will is kept, and its delay counts from the next start.
    Shutdown,
}

/// A connection's last word on its session.
#[derive(Clone, Debug)]
pub struct Close {
    /// Whose session.
    pub key: SessionKey,
    /// The connection that ends; a `Close` of any other is void.
    pub location: Location,
    /// The session's epoch as [`Opened`](crate::effect::Opened) gave it.
    pub epoch: u32,
    /// Why.
    pub cause: CloseCause,
    /// Session Expiry Interval from DISCONNECT, when it changed it.
    pub expiry_secs: Option<u32>,
    /// Where delivery stood; `None` for a session that ends with its connection.
    pub progress: Option<Progress>,
    /// The outgoing window, oldest first: what the next connection starts with. What is neither
    /// in it, nor complete, is yet to be sent by the next connection.
    pub window: Vec<InFlight>,
    /// Entries that are complete although an earlier one is not.
    pub done: Vec<u64>,
    /// Incoming QoS 2 publications without PUBREL that all shards have committed.
    pub answered: Vec<u16>,
    /// Told when it is on disk, if somebody waits for that.
    pub told: Option<ReplyTo>,
}

/// How far delivery to a stored session has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The session.
    pub session: SessionId,
    /// Its epoch.
    pub epoch: u32,
    /// Every entry up to here is acknowledged (or was dropped by expiry or size).
    pub acknowledged: u64,
    /// Queue weight of those entries ([`QueueEntry::weight`](crate::effect::QueueEntry)).
    pub weight: u64,
    /// Entries up to here have been sent at least once: they go out with DUP after a crash.
    pub sent: u64,
}

/// One outgoing QoS 1 or 2 message that is not complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InFlight {
    /// Packet identifier.
    pub id: u16,
    /// Where the entry comes from.
    pub source: Source,
    /// How far the exchange is.
    pub phase: Phase,
    /// QoS it is sent with.
    pub qos: QoS,
}

/// Where an entry in a window comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The session's own queue, by sequence number.
    Queue(u64),
    /// A shared group's queue, by group and sequence number.
    Group(SessionId, u64),
    /// A log that the store knows nothing of, by a name of 64 bits and sequence number.
    Entry(u64, u64),
}

/// Phase of an outgoing exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// PUBLISH sent (or about to be), PUBACK or PUBREC awaited.
    Published,
    /// PUBREC received, PUBREL sent (or about to be), PUBCOMP awaited.
    Released,
}

/// One change of an outgoing QoS 2 exchange.
#[derive(Clone, Debug)]
pub enum ExchangeChange {
    /// Identifier bound to an entry, about to be sent; or its PUBREC arrived.
    Put(InFlight),
    /// PUBCOMP arrived, or PUBREC refused it.
    Remove(u16),
}

/// One subscription of a stored session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredSubscription {
    /// Filter as the client wrote it, `$share/…` included.
    pub filter: Arc<str>,
    /// Terms.
    pub options: SubscribeOptions,
    /// Subscription Identifier, 0 when there is none.
    pub identifier: u32,
}

/// A publication for this shard.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The message.
    pub publication: Arc<Publication>,
    /// The stored sessions of this shard that it is for, each once.
    pub receivers: Vec<Receiver>,
    /// The shared groups of this shard that it is for (effective QoS is the member's matter).
    pub groups: Vec<SessionId>,
    /// Set when this shard owns the topic's retained state and the RETAIN flag was set.
    pub retain: bool,
    /// Incoming QoS 2 of a stored session: submitted once per life of the identifier.
    pub marker: Option<PacketIdent>,
    /// Will or other outbox entry that this publication carries out: applied once.
    pub outbox: Option<u64>,
    /// Told when it is on disk.
    pub reply: Option<ReplyTo>,
}

/// One stored session that receives a publication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// The session.
    pub session: SessionId,
    /// Effective QoS: the lower of the publication's and the subscription's, never 0.
    pub qos: QoS,
    /// RETAIN flag as it is to be sent (retain as published).
    pub retain: bool,
    /// Subscription Identifiers of all matching subscriptions.
    pub identifiers: SmallVec<[u32; 1]>,
}

/// The slot that owns a shared group: where its [`GroupCommand::Join`] goes.
pub fn group_slot(share: &str, filter: &str) -> Slot {
    Slot::of(&[share.as_bytes(), filter.as_bytes()].join(&0))
}

/// The slot that owns a topic's retained message: where publications with RETAIN go.
pub fn retained_slot(topic: &str) -> Slot {
    Slot::of(topic.as_bytes())
}

/// What a shared group is told. The group's queue is its own (ruling 10).
#[derive(Clone, Debug)]
pub enum GroupCommand {
    /// A member joins or renews its terms.
    Join {
        /// ShareName.
        share: Arc<str>,
        /// Filter without `$share/{share}/`.
        filter: Arc<str>,
        /// The member.
        member: Member,
        /// Told when it is on disk (or at once for members that end with their connection).
        reply: Option<ReplyTo>,
    },
    /// A member's UNSUBSCRIBE, or the end of its session. It is offered nothing more. What it has
    /// at UNSUBSCRIBE it still says `Done` or `Offline` for ([MQTT-3.10.4-3]); at the end of its
    /// session that goes back, after a `Done` for what was in delivery ([MQTT-4.8.2-5]).
    Leave {
        /// ShareName.
        share: Arc<str>,
        /// Filter without `$share/{share}/`.
        filter: Arc<str>,
        /// The member's subscriber number.
        subscriber: u64,
        /// Its session has ended.
        ended: bool,
        /// Told when it is on disk.
        reply: Option<ReplyTo>,
    },
    /// A stored member is connected again. [`Join`](Self::Join) does as well and also mends a
    /// membership that a crash has lost.
    Online {
        /// The group.
        group: SessionId,
        /// The member with its new location.
        member: Member,
        /// QoS 2 entries that are in delivery to its session.
        keeps: Vec<u64>,
    },
    /// A member's connection ended: what it had goes back, except QoS 2 in delivery.
    Offline {
        /// The group.
        group: SessionId,
        /// The member's subscriber number.
        subscriber: u64,
        /// The connection that ended.
        location: Location,
        /// QoS 2 entries that stay with the member.
        keeps: Vec<u64>,
    },
    /// A member is done with an entry: acknowledged, refused (not offered again,
    /// [MQTT-4.8.2-6]) or dropped by expiry or size.
    Done {
        /// The group.
        group: SessionId,
        /// The member's subscriber number.
        subscriber: u64,
        /// The entry.
        seq: u64,
        /// Told when that is written: only then the record of the exchange may go, or after a crash
        /// another member would get what this one has got.
        reply: Option<ReplyTo>,
    },
}

/// A member of a shared group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Process-unique subscriber number (for stored sessions: the session's).
    pub subscriber: u64,
    /// The stored session, if it has one.
    pub session: Option<SessionId>,
    /// Where it is connected.
    pub location: Location,
    /// Terms.
    pub options: SubscribeOptions,
    /// Subscription Identifier, 0 when there is none.
    pub identifier: u32,
    /// How many entries it may hold at once.
    pub window: u16,
}
