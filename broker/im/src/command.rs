//! What a shard's IM step can be told.
//!
//! As with the store's commands, everything an outcome depends on is in the command or in rows;
//! the time is an argument. What one shard makes another do travels as a [`Forward`], which may
//! come twice and then changes nothing the second time.

use std::sync::Arc;

use bytes::Bytes;
use hoopoe_core::{PacketIdent, Slot};
use hoopoe_store::command::ReplyTo;

use crate::id::{ConvKey, user_slot};
use crate::service::Call;
use crate::site::line::SiteNews;
use crate::user::account::AccountCommand;

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// Nobody.
    Nobody,
    /// A connection.
    Connection(ReplyTo),
    /// An HTTP request, by its number.
    Http(u64),
}

/// A user of a tenant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct User {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The user's id.
    pub id: Arc<str>,
}

impl User {
    /// The slot of the user's rows.
    pub fn slot(&self) -> Slot {
        user_slot(&self.tenant, &self.id)
    }

    /// Another user of the same tenant.
    pub fn peer(&self, id: &str) -> User {
        User { tenant: self.tenant.clone(), id: id.into() }
    }
}

/// A command to a shard's IM step.
#[derive(Clone, Debug)]
pub enum Command {
    /// A message for a conversation.
    Send(Box<Send>),
    /// A recall, edit or reaction.
    Operate(Box<Operate>),
    /// A signal: judged like a message, and never stored.
    Signal(Box<SendSignal>),
    /// A user's `cur` publication.
    MoveCursor(Box<MoveCursor>),
    /// What a device has acknowledged since the last report.
    Progress(Box<Progress>),
    /// A user's device is connected.
    Connected(Box<Device>),
    /// A user's device is gone.
    Disconnected(Box<Device>),
    /// A device went to the background, or is looked at again (ruling 35).
    Attention {
        /// Whose.
        user: User,
        /// Where it is connected.
        location: hoopoe_core::Location,
        /// Not looked at.
        background: bool,
    },
    /// The connection of a device that another of it has taken over had been silent.
    WasSilent {
        /// Whose.
        user: User,
        /// The device.
        client: Arc<str>,
    },
    /// What a user shows from now on.
    SetShow(Box<crate::presence::SetShow>),
    /// A user was told of messages through a push service.
    Pushed(Box<Pushed>),
    /// A service call that writes.
    Call(Box<Call>),
    /// A service call that only reads: carried out behind everything told before.
    Read(Box<Call>),
    /// A room's row is to be stored.
    KeepRoom(Box<crate::room::KeepRoom>),
    /// An operator changes an account.
    Account(Box<AccountCommand>),
    /// An operator's call is recorded.
    Audit {
        /// What it was.
        record: Box<crate::audit::Record>,
        /// Who waits until it is on disk.
        asker: Asker,
    },
    /// What another shard owes this one.
    Forward {
        /// The outbox entry it came from, and the shard that keeps it; `None`: nothing is kept.
        outbox: Option<(u16, u64)>,
        /// What.
        forward: Box<Forward>,
    },
    /// Another site says something.
    Site(Box<crate::site::line::SiteLetter>),
    /// A forward has been applied.
    ForwardDone {
        /// The outbox entry.
        outbox: u64,
    },
    /// A forward could not be applied now: it is to be sent again.
    ForwardRefused {
        /// The outbox entry.
        outbox: u64,
    },
}

impl Command {
    /// The incoming QoS 2 publication that it carries out.
    pub fn marker(&self) -> Option<PacketIdent> {
        match self {
            Command::Send(send) => send.marker,
            Command::Operate(operate) => operate.marker,
            _ => None,
        }
    }

    /// The slot that owns what the command changes; `None` for what a shard is told as such.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Command::Send(send) => Some(send.conv.slot()),
            Command::Operate(operate) => Some(operate.conv.slot()),
            Command::Signal(signal) => Some(signal.conv.slot()),
            Command::MoveCursor(cursor) => Some(cursor.user.slot()),
            Command::Progress(progress) => Some(progress.user.slot()),
            Command::Connected(device) | Command::Disconnected(device) => Some(device.user.slot()),
            Command::Attention { user, .. } | Command::WasSilent { user, .. } => Some(user.slot()),
            Command::Pushed(pushed) => Some(pushed.user.slot()),
            Command::SetShow(set) => Some(set.user.slot()),
            Command::Call(call) | Command::Read(call) => Some(call.slot()),
            Command::KeepRoom(keep) => Some(keep.slot()),
            Command::Account(account) => Some(account.user.slot()),
            Command::Audit { .. } => Some(crate::audit::slot()),
            Command::Forward { forward, .. } => Some(forward.slot()),
            Command::Site(letter) => match &letter.news {
                SiteNews::Frame(frame) => frame.slot().and_then(Slot::numbered),
                SiteNews::Link { .. } | SiteNews::Count => None,
            },
            Command::ForwardDone { .. } | Command::ForwardRefused { .. } => None,
        }
    }
}

/// A message for a conversation.
#[derive(Clone, Debug)]
pub struct Send {
    /// The conversation.
    pub conv: ConvKey,
    /// The authenticated sender.
    pub from: User,
    /// The sending device's client id; empty for a back end.
    pub device: Arc<str>,
    /// Client message id.
    pub cid: Option<Arc<str>>,
    /// Seconds after reading that the message burns; 0: never.
    pub burn_secs: u32,
    /// Users mentioned.
    pub mentions: Vec<Arc<str>>,
    /// All members are mentioned.
    pub at_all: bool,
    /// The sender's properties, encoded.
    pub properties: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// When the message expires.
    pub expires_at_ms: Option<u64>,
    /// Incoming QoS 2 of a stored session.
    pub marker: Option<PacketIdent>,
    /// Sent by a service account or an operator: no policy of users holds it back.
    pub privileged: bool,
    /// Who waits.
    pub asker: Asker,
}

/// A signal to a user or group.
#[derive(Clone, Debug)]
pub struct SendSignal {
    /// The conversation whose members hear it.
    pub conv: ConvKey,
    /// The authenticated sender.
    pub from: User,
    /// The sending connection, which does not hear it.
    pub location: hoopoe_core::Location,
    /// A word of the client's.
    pub kind: Arc<str>,
    /// The sender's properties, encoded.
    pub properties: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// Who waits.
    pub asker: Asker,
}

/// What is done to a stored message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Taken back for everyone.
    Recall,
    /// New content.
    Edit,
    /// A reaction, or its removal.
    React,
}

/// An operation on a stored message.
#[derive(Clone, Debug)]
pub struct Operate {
    /// The conversation.
    pub conv: ConvKey,
    /// Who operates.
    pub from: User,
    /// The device.
    pub device: Arc<str>,
    /// What.
    pub operation: Operation,
    /// The message.
    pub seq: u64,
    /// Client message id.
    pub cid: Option<Arc<str>>,
    /// Properties of an edit.
    pub properties: Bytes,
    /// New content, or the reaction.
    pub payload: Bytes,
    /// Incoming QoS 2 of a stored session.
    pub marker: Option<PacketIdent>,
    /// Who waits.
    pub asker: Asker,
}

/// A user's own cursors move.
#[derive(Clone, Debug)]
pub struct MoveCursor {
    /// Whose.
    pub user: User,
    /// The conversation.
    pub conv: ConvKey,
    /// Read (which moves recv too), or only recv.
    pub read: bool,
    /// To here.
    pub seq: u64,
    /// Who waits.
    pub asker: Asker,
}

/// How far a user was told of a conversation through a push service.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Who.
    pub user: User,
    /// The conversation.
    pub conv: ConvKey,
    /// Everything up to here.
    pub seq: u64,
    /// Who waits.
    pub asker: Asker,
}

/// A device of a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Whose.
    pub user: User,
    /// Its client id.
    pub client: Arc<str>,
    /// Where it is connected.
    pub location: hoopoe_core::Location,
    /// What kind of address it comes from, for `device/list`.
    pub address_class: &'static str,
    /// The MQTT session outlives the connection.
    pub stored: bool,
    /// The session was there before: the device goes on at its own cursors.
    pub kept: bool,
    /// It wants to hear where its conversations stand, and no replay.
    pub heads_only: bool,
}

/// What a device has acknowledged.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Whose device.
    pub user: User,
    /// Its client id.
    pub client: Arc<str>,
    /// The session outlives the connection: its cursors are kept.
    pub stored: bool,
    /// Conversations and how far the device has come.
    pub moves: Vec<DeviceMove>,
    /// It is written with what follows, not within a second.
    pub at_once: bool,
}

/// One conversation's progress on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceMove {
    /// The conversation.
    pub conv: ConvKey,
    /// Everything up to here is acknowledged or passed.
    pub cursor: u64,
    /// What moves `recv`; 0 for nothing (QoS 0, gaps).
    pub recv: u64,
}

/// A conversation in a user's list, as the conversation's owner says it is.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The user.
    pub user: Arc<str>,
    /// The conversation.
    pub conv: ConvKey,
    /// When the user may see what.
    pub intervals: crate::rows::Intervals,
    /// Cursors start here: what is before counts neither as unread nor as waiting.
    pub start: u64,
    /// Countable messages up to `start`.
    pub start_count: u64,
    /// Since when, ms since the epoch.
    pub since_ms: u64,
    /// Which change of the membership it is: news that come late change nothing.
    #[serde(default)]
    pub version: u64,
}

/// What one shard owes another. Applying it twice is applying it once.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Forward {
    /// A conversation enters a user's list, or the user's part in it changes.
    Listed(Listed),
    /// A user is mentioned.
    Mentioned {
        /// Tenant and user.
        tenant: Arc<str>,
        /// The user.
        user: Arc<str>,
        /// The conversation.
        conv: ConvKey,
        /// The message.
        seq: u64,
    },
    /// A user has sent: the own cursors pass the message (ruling 22).
    OwnSend {
        /// Tenant and user.
        tenant: Arc<str>,
        /// The user.
        user: Arc<str>,
        /// The conversation.
        conv: ConvKey,
        /// The message.
        seq: u64,
        /// Countable messages up to it.
        count: u64,
    },
    /// A member's cursors, for receipts (ruling 21).
    Cursors {
        /// The conversation.
        conv: ConvKey,
        /// The user.
        user: Arc<str>,
        /// Received up to here.
        recv: u64,
        /// Read up to here.
        read: u64,
    },
    /// What concerns a pair changes (ruling 26).
    Pair {
        /// The conversation.
        conv: ConvKey,
        /// Whose roster says so.
        user: Arc<str>,
        /// That user has blocked the other.
        blocks: bool,
        /// That user has asked, or agreed, to be friends; `None`: unchanged.
        friends: Option<bool>,
    },
    /// A user is erased: leaves, and what the user said goes.
    Erase {
        /// The conversation.
        conv: ConvKey,
        /// Who.
        user: Arc<str>,
    },
    /// A step of the roster that concerns the other user.
    Roster(crate::roster::RosterStep),
    /// A step of presence.
    Watch(crate::presence::WatchStep),
}

impl Forward {
    /// The slot it is for.
    pub fn slot(&self) -> Slot {
        match self {
            Forward::Listed(Listed { tenant, user, .. })
            | Forward::Mentioned { tenant, user, .. }
            | Forward::OwnSend { tenant, user, .. } => user_slot(tenant, user),
            Forward::Cursors { conv, .. }
            | Forward::Pair { conv, .. }
            | Forward::Erase { conv, .. } => conv.slot(),
            Forward::Roster(step) => user_slot(&step.tenant, &step.to),
            Forward::Watch(step) => step.slot(),
        }
    }
}
