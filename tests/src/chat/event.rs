//! What happens between devices and the broker, as the devices see it, in one order.

use std::fmt;

use super::entry::Entry;

/// Number of a connection, counted over the whole run.
pub type Link = u32;

/// What a publication of a device is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A message.
    Send,
    /// A message that expires after so many seconds.
    Fleeting(u32),
    /// A message that burns so many seconds after it was read.
    Burning(u32),
    /// Takes a message back.
    Recall(u64),
    /// Gives a message another content.
    Edit(u64),
    /// Reacts to a message.
    React(u64),
    /// Moves the user's `read`.
    Read(u64),
    /// Makes the group or channel.
    Create,
    /// Joins the group, follows the channel.
    Join,
    /// Leaves it.
    Leave,
    /// Removes a member.
    Kick(usize),
    /// Adds a member.
    Invite(usize),
    /// Blocks the other user of the pair.
    Block,
    /// No longer.
    Unblock,
    /// Clears the conversation for the user.
    Clear,
    /// Hides it from the user's list until something comes, or shows it again.
    Hide(bool),
    /// Asks for entries from this one on.
    Pull(u64),
    /// Asks for the conversation list.
    Heads,
}

impl What {
    /// A call to a service, which is answered by a publication.
    pub fn is_call(self) -> bool {
        use What::{Edit, React, Read, Recall};
        !self.is_send() && !matches!(self, Recall(_) | Edit(_) | React(_) | Read(_))
    }

    /// A message, of whatever kind.
    pub fn is_send(self) -> bool {
        matches!(self, What::Send | What::Fleeting(_) | What::Burning(_))
    }
}

/// A publication of a device, the same over all attempts to send it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deed {
    /// Which device.
    pub device: usize,
    /// Which conversation.
    pub conv: usize,
    /// What.
    pub what: What,
    /// With a client message id.
    pub cid: bool,
    /// 1 or 2.
    pub qos: u8,
}

/// What the broker says of a stored entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Place.
    pub seq: u64,
    /// Id.
    pub id: String,
    /// Time.
    pub ts: u64,
}

/// The answer to a deed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Stored as this.
    Sent(Sent),
    /// Acknowledged, without a word (3.1.1), or nothing is to be said.
    Done,
    /// Refused, with a code of MQTT 5 or a word of a service.
    Refused(String),
}

/// A line of a conversation list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are the profile's")]
pub struct Line {
    pub conv: usize,
    pub last: u64,
    pub count: u64,
    pub unread: u64,
    pub read: u64,
    pub recv: u64,
    pub min: u64,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// CONNECT was sent.
    Connect {
        /// Who.
        device: usize,
        /// The new connection.
        link: Link,
        /// With a new session.
        anew: bool,
    },
    /// CONNACK came.
    Connected {
        /// Who.
        device: usize,
        /// The connection.
        link: Link,
        /// Session Present.
        present: bool,
    },
    /// The first thing the broker tells: the device's cursors have been read.
    Hello {
        /// Who.
        device: usize,
        /// The connection.
        link: Link,
    },
    /// PUBLISH was sent.
    Asked {
        /// What.
        deed: usize,
        /// The same in words.
        meant: Deed,
        /// Which attempt, from 1.
        attempt: u16,
    },
    /// Its answer came.
    Answered {
        /// To what.
        deed: usize,
        /// What.
        answer: Answer,
    },
    /// A stored entry came.
    Delivered {
        /// To whom.
        device: usize,
        /// Over which connection.
        link: Link,
        /// The conversation.
        conv: usize,
        /// The entry.
        entry: Entry,
    },
    /// PUBACK or PUBREC for it was sent.
    Acknowledged {
        /// By whom.
        device: usize,
        /// The conversation.
        conv: usize,
        /// The entry.
        seq: u64,
    },
    /// A gap was named.
    Gap {
        /// To whom.
        device: usize,
        /// The conversation.
        conv: usize,
        /// First entry.
        from: u64,
        /// Last entry.
        to: u64,
    },
    /// An entry that was asked for.
    Pulled {
        /// By what.
        deed: usize,
        /// The entry.
        entry: Entry,
    },
    /// The end of what was asked for.
    PullEnded {
        /// By what.
        deed: usize,
        /// Where to go on.
        next: Option<u64>,
        /// The first entry that is there for the user.
        min: u64,
        /// The last entry there is.
        last: u64,
    },
    /// A conversation list.
    Listed {
        /// By what it was asked for.
        deed: usize,
        /// Its lines.
        lines: Vec<Line>,
    },
    /// PINGREQ was sent.
    Ping {
        /// By whom.
        device: usize,
    },
    /// PINGRESP came: all that comes from now on was written after the PINGREQ was sent.
    Pong {
        /// To whom.
        device: usize,
    },
    /// The broker was killed.
    Killed,
    /// What must never happen and needs no judging.
    Fault {
        /// To whom.
        device: usize,
        /// What.
        what: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connect { device, link, anew } => {
                write!(f, "d{device} > CONNECT #{link} anew={anew}")
            }
            Event::Connected { device, link, present } => {
                write!(f, "d{device} < CONNACK #{link} present={present}")
            }
            Event::Hello { device, link } => write!(f, "d{device} < hello #{link}"),
            Event::Asked { deed, meant: Deed { device, conv, what, .. }, attempt } => {
                write!(f, "d{device} > PUBLISH deed {deed}.{attempt}: {what:?} in c{conv}")
            }
            Event::Answered { deed, answer } => write!(f, "< deed {deed}: {answer:?}"),
            Event::Delivered { device, link, conv, entry } => {
                write!(f, "d{device} < c{conv} {} #{link}: {}", entry.seq, short(entry))
            }
            Event::Acknowledged { device, conv, seq } => write!(f, "d{device} > c{conv} {seq} ok"),
            Event::Gap { device, conv, from, to } => {
                write!(f, "d{device} < gap c{conv} {from} to {to}")
            }
            Event::Pulled { deed, entry } => {
                write!(f, "< pulled by {deed}: {} {}", entry.seq, short(entry))
            }
            Event::PullEnded { deed, next, min, last } => {
                write!(f, "< pull {deed} ended, next {next:?}, {min} to {last}")
            }
            Event::Listed { deed, lines } => write!(f, "< list {deed}: {lines:?}"),
            Event::Ping { device } => write!(f, "d{device} > PINGREQ"),
            Event::Pong { device } => write!(f, "d{device} < PINGRESP"),
            Event::Killed => write!(f, "==== killed"),
            Event::Fault { device, what } => write!(f, "d{device} FAULT {what}"),
        }
    }
}

fn short(entry: &Entry) -> String {
    let body = String::from_utf8_lossy(&entry.payload[..entry.payload.len().min(40)]).into_owned();
    format!("{:?} of {} ref {} {body:?}", entry.kind, entry.from, entry.reference)
}
