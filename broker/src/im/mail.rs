//! What workers and readers are told about the profile.

use std::sync::Arc;

use hoopoe_core::Location;
use hoopoe_im::command::{Device, User};
use hoopoe_im::device::{Read, Start};
use hoopoe_im::effect::Answer;
use hoopoe_im::entry::Entry;
use hoopoe_im::id::ConvKey;
use hoopoe_im::refusal::Refusal;
use hoopoe_im::rows::UserConv;
use hoopoe_im::service::Call;
use hoopoe_im::service::query::Found;
use hoopoe_im::service::sync::Login;
use hoopoe_store::command::ReplyTo;
use smallvec::SmallVec;

/// Devices of one worker.
pub type Receivers = SmallVec<[Location; 2]>;

/// A letter to a worker.
#[derive(Debug)]
pub enum ImMail {
    /// A send, an operation, a cursor move or a call has been judged and is committed.
    Answer {
        /// Who waits.
        reply: ReplyTo,
        /// What.
        answer: Answer,
    },
    /// A call that reads is answered.
    Found {
        /// Who waits.
        reply: ReplyTo,
        /// What was found.
        found: Result<Box<Found>, Refusal>,
    },
    /// The device's conversations.
    Login {
        /// The device's connection.
        location: Location,
        /// Where it begins; `None` when rows could not be read.
        login: Option<Box<Login>>,
    },
    /// A stored entry for devices connected here.
    Entry {
        /// The entry.
        entry: Arc<Entry>,
        /// The conversation is a big one: beyond its budget a device passes it.
        big: bool,
        /// Who gets it.
        receivers: Receivers,
    },
    /// A message has lost its body: it may still wait here to be sent. Before the event itself.
    Forget {
        /// The event.
        entry: Arc<Entry>,
        /// Who is there, or has left.
        receivers: Receivers,
    },
    /// The users of these devices have left a conversation: who has gone meanwhile is no longer
    /// to be told of it.
    Left {
        /// The devices.
        receivers: Receivers,
        /// The conversation.
        conv: ConvKey,
    },
    /// Entries that a device asked for.
    Entries {
        /// The device's connection.
        location: Location,
        /// What there is, one conversation after the other; `None`: the store could not be read.
        pages: Option<Vec<Page>>,
    },
    /// A conversation in the list of users whose devices are connected here has changed.
    Listed {
        /// Those devices.
        receivers: Receivers,
        /// Where it stands, and when they may see what of it.
        start: Box<Start>,
    },
    /// Devices pass entries.
    Skip {
        /// The devices.
        receivers: Receivers,
        /// The conversation.
        conv: ConvKey,
        /// Up to here.
        through: u64,
    },
    /// Connections of a user end.
    Kick {
        /// The devices.
        receivers: Receivers,
        /// Only the one with this client id.
        client: Option<Arc<str>>,
        /// Reason of the DISCONNECT.
        reason: hoopoe_codec::ReasonCode,
        /// What it is told before.
        notice: Option<String>,
    },
}

/// Entries of one conversation for a device.
#[derive(Debug)]
pub struct Page {
    /// The stream they belong to.
    pub stream: u32,
    /// First entry asked for.
    pub from: u64,
    /// Everything up to here was looked at.
    pub through: u64,
    /// What there is.
    pub entries: Vec<Entry>,
}

/// Work for a reader.
#[derive(Debug)]
pub enum ImRead {
    /// Where a device begins.
    Login(Box<Device>),
    /// Entries of conversations.
    Entries {
        /// Who asks.
        location: Location,
        /// The user who is to get them.
        user: Arc<str>,
        /// What.
        reads: Vec<Read>,
    },
    /// A call.
    Call(Box<Call>),
    /// The head of a conversation that is new in a user's list.
    Listed {
        /// The user.
        user: User,
        /// The conversation.
        conv: ConvKey,
        /// What the list says.
        row: Box<UserConv>,
        /// Devices that have been entered as listeners: who has gone meanwhile is taken out again.
        listening: Vec<Location>,
    },
}
