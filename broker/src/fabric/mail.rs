//! What a worker finds in its mailbox.

use std::net::SocketAddr;
use std::sync::Arc;

use hoopoe_codec::{QoS, ReasonCode};
use hoopoe_core::{Location, Publication, SessionId, SessionKey};
use hoopoe_store::command::ReplyTo;
use hoopoe_store::effect::{LiveReceiver, Opened, QueueEntry};
use smallvec::SmallVec;

use super::Weigh;
use crate::access::Identity;
use crate::connection::{Census, Listener, Seats};
use crate::im::ImMail;
use crate::im::rooms::RoomLetter;
use crate::shard::{QueuePage, RetainedPage};
use crate::transport::Stream;

/// A letter to a worker.
pub enum Mail {
    /// A new connection is this worker's from now on.
    Accepted {
        /// The socket, non-blocking.
        stream: Stream,
        /// The other end.
        peer: SocketAddr,
        /// Where it came in.
        listener: Arc<Listener>,
        /// Its places.
        seats: Seats,
    },
    /// A password has been checked.
    LoggedIn {
        /// The connection that waits.
        location: Location,
        /// Who the client is, or why it is refused.
        login: Result<Identity, ReasonCode>,
    },
    /// A shard has answered an Open.
    Opened(Box<Opened>),
    /// Another connection takes over, or an operator ends the session.
    TakenOver {
        /// The connection that has to go.
        location: Location,
        /// Reason for its DISCONNECT.
        reason: ReasonCode,
    },
    /// A command is committed, or refused.
    Committed {
        /// Who waits.
        reply: ReplyTo,
        /// Success or why not.
        code: ReasonCode,
    },
    /// A committed entry for stored sessions connected here.
    Live {
        /// The message.
        publication: Arc<Publication>,
        /// Who gets it.
        receivers: Vec<LiveReceiver>,
    },
    /// Live letters were left out because this mailbox was full: look into every queue.
    LiveLost,
    /// An entry of a shared group for a member connected here.
    Offer {
        /// The member.
        location: Location,
        /// The group.
        group: SessionId,
        /// The entry.
        entry: Box<QueueEntry>,
    },
    /// An entry of a shared group that was in delivery exists no more.
    EntryGone {
        /// The member.
        location: Location,
        /// The group.
        group: SessionId,
        /// The entry.
        seq: u64,
    },
    /// A transient publication from another worker.
    Deliver(Delivery),
    /// From a live room.
    Room(Box<RoomLetter>),
    /// Entries of a stored queue.
    Queue {
        /// Who asked.
        location: Location,
        /// What was found.
        page: QueuePage,
    },
    /// Retained messages.
    Retained {
        /// Who asked.
        location: Location,
        /// What was found.
        page: RetainedPage,
    },
    /// A will (or other outbox entry) to publish.
    Publish {
        /// The shard that waits for the outbox entry to be done.
        shard: usize,
        /// The outbox entry; 0 when none.
        outbox: u64,
        /// Whose will.
        key: SessionKey,
        /// The message.
        publication: Arc<Publication>,
    },
    /// About the IM profile.
    Im(ImMail),
    /// The broker's own publication (`$SYS`), QoS 0.
    System(Arc<Publication>),
    /// An operator asks who is connected here.
    Census(Box<Census>),
    /// Stop: tell clients (0x8B), hand sessions back. `hurry` drops what is unfinished.
    Stop {
        /// True at the second signal.
        hurry: bool,
    },
}

impl Weigh for Mail {
    fn bytes(&self) -> usize {
        match self {
            Mail::Deliver(Delivery { publication, .. })
            | Mail::Live { publication, .. }
            | Mail::Publish { publication, .. } => publication.bytes().len(),
            Mail::Im(ImMail::Entry { entry, .. }) => entry.payload.len(),
            Mail::Room(letter) => letter.weight(),
            Mail::Offer { entry, .. } => entry.publication.bytes().len(),
            // Pages are bounded for each session that asked for one.
            _ => 0,
        }
    }
}

/// A publication for sessions that end with their connection.
#[derive(Clone)]
pub struct Delivery {
    /// The message.
    pub publication: Arc<Publication>,
    /// Who gets it on the addressed worker.
    pub receivers: Arc<[TransientReceiver]>,
    /// Subscriber number of the publisher, for no-local.
    pub publisher: u64,
}

/// On which terms a receiver gets a publication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Highest QoS granted among the matching subscriptions ([MQTT-3.3.4-2]).
    pub qos: QoS,
    /// The RETAIN flag passes as published ([MQTT-3.3.1-13]).
    pub retain_as_published: bool,
    /// Identifiers of all matching subscriptions ([MQTT-3.3.4-3]).
    pub identifiers: SmallVec<[u32; 1]>,
}

/// A connected receiver whose copy does not pass through a shard.
#[derive(Clone, Debug)]
pub struct TransientReceiver {
    /// Its connection.
    pub location: Location,
    /// Its subscriber number.
    pub subscriber: u64,
    /// Terms for publications of others.
    pub terms: Terms,
    /// Set when no-local plays: terms for its own publications, `None` for no copy.
    pub own: Option<Box<Option<Terms>>>,
}

impl TransientReceiver {
    /// The terms for a publication by `publisher`.
    pub fn terms_for(&self, publisher: u64) -> Option<&Terms> {
        match &self.own {
            Some(own) if publisher == self.subscriber => own.as_ref().as_ref(),
            _ => Some(&self.terms),
        }
    }
}
