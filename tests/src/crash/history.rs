//! Everything that happened, as the clients saw it, in one order. The audit judges nothing else.

use std::fmt;

use super::message::{Attempt, Message};

/// A client of the cast.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Client {
    /// Publisher of this number.
    Publisher(u16),
    /// Receiver of this number.
    Receiver(u16),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Publisher(number) => f.pad(&format!("p{number}")),
            Client::Receiver(number) => f.pad(&format!("r{number}")),
        }
    }
}

/// Number of a connection, counted over the whole run.
pub type Link = u32;

/// How a client leaves a connection that the broker has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaving {
    /// DISCONNECT.
    Disconnect,
    /// DISCONNECT with Session Expiry Interval 0: the session is to end.
    End,
    /// The connection is cut.
    Cut,
    /// The client opens another one, and listens to this one no more.
    TakeOver,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// CONNECT was sent.
    Connect {
        /// Who.
        client: Client,
        /// The new connection.
        link: Link,
        /// Clean Start or Clean Session.
        clean: bool,
    },
    /// CONNACK came.
    Connected {
        /// Who.
        client: Client,
        /// The connection.
        link: Link,
        /// Session Present.
        present: bool,
    },
    /// The client left a connection.
    Left {
        /// Who.
        client: Client,
        /// The connection.
        link: Link,
        /// How.
        how: Leaving,
    },
    /// The end of a connection was seen.
    Closed {
        /// Who.
        client: Client,
        /// The connection.
        link: Link,
        /// The broker had just been killed.
        killed: bool,
    },
    /// PUBLISH was sent.
    Published {
        /// What, and which attempt.
        attempt: Attempt,
        /// QoS.
        qos: u8,
        /// An empty payload: the retained message of the topic is to go.
        cleared: bool,
    },
    /// PUBACK or PUBREC came: the broker answers for it from now on.
    Acked {
        /// What.
        message: Message,
    },
    /// PUBCOMP came.
    Completed {
        /// What.
        message: Message,
    },
    /// SUBSCRIBE was sent.
    Subscribe {
        /// Receiver.
        receiver: u16,
        /// Number of its filter.
        filter: u16,
    },
    /// SUBACK came.
    Subscribed {
        /// Receiver.
        receiver: u16,
        /// Number of its filter.
        filter: u16,
    },
    /// UNSUBSCRIBE was sent.
    Unsubscribe {
        /// Receiver.
        receiver: u16,
        /// Number of its filter.
        filter: u16,
    },
    /// UNSUBACK came.
    Unsubscribed {
        /// Receiver.
        receiver: u16,
        /// Number of its filter.
        filter: u16,
    },
    /// PUBLISH came.
    Delivered {
        /// To whom.
        receiver: u16,
        /// Over which connection.
        link: Link,
        /// Packet identifier.
        id: u16,
        /// QoS.
        qos: u8,
        /// DUP flag.
        dup: bool,
        /// RETAIN flag.
        retain: bool,
        /// What, and which attempt of its publisher.
        attempt: Attempt,
    },
    /// PUBACK or PUBREC was sent.
    Answered {
        /// By whom.
        receiver: u16,
        /// Over which connection.
        link: Link,
        /// Packet identifier.
        id: u16,
        /// For what.
        attempt: Attempt,
    },
    /// PUBREL came.
    Released {
        /// To whom.
        receiver: u16,
        /// Over which connection.
        link: Link,
        /// Packet identifier.
        id: u16,
    },
    /// PINGREQ was sent.
    Ping {
        /// By whom.
        receiver: u16,
        /// Over which connection.
        link: Link,
    },
    /// PINGRESP came: the broker has seen all that was sent before the PINGREQ.
    Pong {
        /// To whom.
        receiver: u16,
        /// Over which connection.
        link: Link,
    },
    /// The broker was killed, and what was still on its way has been read.
    Killed {
        /// When it was killed, in ms.
        at_ms: u64,
    },
    /// The broker is ready again.
    Ready,
    /// Retained messages as a new subscriber is sent them, before anybody publishes again. A topic
    /// of the cast that is missing here has none.
    Retained {
        /// By publisher and topic.
        found: Vec<Attempt>,
    },
    /// Something that must never happen and needs no judging.
    Fault {
        /// To whom.
        client: Client,
        /// What.
        what: String,
    },
}

/// An event and its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When, in ms since the start.
    pub at_ms: u64,
    /// What.
    pub event: Event,
}

/// Everything that happened, in order.
#[derive(Clone, Default, Debug)]
pub struct History {
    /// In order.
    pub entries: Vec<Entry>,
}

impl History {
    /// Notes an event.
    pub fn record(&mut self, at_ms: u64, event: Event) {
        self.entries.push(Entry { at_ms, event });
    }

    /// What concerns a message, and a client's connections meanwhile, up to entry `end`; the last
    /// `lines` of it.
    pub fn trail(
        &self,
        message: Option<Message>,
        client: Option<Client>,
        end: usize,
        lines: usize,
    ) -> String {
        let end = end.min(self.entries.len().saturating_sub(1));
        let begins = |entry: &Entry| message.is_some() && entry.event.message() == message;
        let begin = self.entries.iter().position(begins).unwrap_or(0);
        let publisher = message.map(|message| Client::Publisher(message.publisher));
        let mut trail = Vec::new();
        for (number, entry) in self.entries.iter().enumerate().take(end + 1).skip(begin) {
            let event = &entry.event;
            let of_client =
                event.client().is_some_and(|c| Some(c) == client || Some(c) == publisher);
            let concerns = match event.message() {
                Some(of) => Some(of) == message && (event.client().is_none() || of_client),
                None => event.client().is_none() || (of_client && !event.is_chatter()),
            };
            if concerns || number == end {
                trail.push(format!("{number:>8} {:>8} ms  {event}", entry.at_ms));
            }
        }
        let skipped = trail.len().saturating_sub(lines);
        let mut text = String::new();
        if skipped > 0 {
            text.push_str(&format!("     ... {skipped} earlier entries\n"));
        }
        text + &trail[skipped..].join("\n")
    }
}

impl Event {
    /// Whom it happened to, where it is one client.
    pub fn client(&self) -> Option<Client> {
        match self {
            Event::Connect { client, .. }
            | Event::Connected { client, .. }
            | Event::Left { client, .. }
            | Event::Closed { client, .. }
            | Event::Fault { client, .. } => Some(*client),
            Event::Published { attempt, .. } => Some(Client::Publisher(attempt.message.publisher)),
            Event::Acked { message } | Event::Completed { message } => {
                Some(Client::Publisher(message.publisher))
            }
            Event::Subscribe { receiver, .. }
            | Event::Subscribed { receiver, .. }
            | Event::Unsubscribe { receiver, .. }
            | Event::Unsubscribed { receiver, .. }
            | Event::Delivered { receiver, .. }
            | Event::Answered { receiver, .. }
            | Event::Released { receiver, .. }
            | Event::Ping { receiver, .. }
            | Event::Pong { receiver, .. } => Some(Client::Receiver(*receiver)),
            Event::Killed { .. } | Event::Ready | Event::Retained { .. } => None,
        }
    }

    /// Which message it is about, where it is one.
    pub fn message(&self) -> Option<Message> {
        match self {
            Event::Published { attempt, .. }
            | Event::Delivered { attempt, .. }
            | Event::Answered { attempt, .. } => Some(attempt.message),
            Event::Acked { message } | Event::Completed { message } => Some(*message),
            _ => None,
        }
    }

    /// Happens all the time.
    fn is_chatter(&self) -> bool {
        matches!(self, Event::Ping { .. } | Event::Pong { .. } | Event::Released { .. })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(client) = self.client() {
            write!(f, "{client:<5}")?;
        }
        match self {
            Event::Connect { link, clean, .. } => write!(f, "> CONNECT #{link} clean={clean}"),
            Event::Connected { link, present, .. } => {
                write!(f, "< CONNACK #{link} session_present={present}")
            }
            Event::Left { link, how, .. } => write!(f, "leaves #{link}: {how:?}"),
            Event::Closed { link, killed, .. } => write!(f, "#{link} closed, killed={killed}"),
            Event::Published { attempt, qos, cleared } => {
                let what = if *cleared { ", clears" } else { "" };
                write!(f, "> PUBLISH {attempt} QoS {qos}{what}")
            }
            Event::Acked { message } => write!(f, "< PUBACK/PUBREC {message}"),
            Event::Completed { message } => write!(f, "< PUBCOMP {message}"),
            Event::Subscribe { filter, .. } => write!(f, "> SUBSCRIBE f{filter}"),
            Event::Subscribed { filter, .. } => write!(f, "< SUBACK f{filter}"),
            Event::Unsubscribe { filter, .. } => write!(f, "> UNSUBSCRIBE f{filter}"),
            Event::Unsubscribed { filter, .. } => write!(f, "< UNSUBACK f{filter}"),
            Event::Delivered { link, id, qos, dup, retain, attempt, .. } => {
                write!(f, "< PUBLISH {attempt} #{link} id {id} QoS {qos} dup={dup}")?;
                if *retain { write!(f, " retain") } else { Ok(()) }
            }
            Event::Answered { link, id, attempt, .. } => {
                write!(f, "> PUBACK/PUBREC {attempt} #{link} id {id}")
            }
            Event::Released { link, id, .. } => write!(f, "< PUBREL #{link} id {id}"),
            Event::Ping { link, .. } => write!(f, "> PINGREQ #{link}"),
            Event::Pong { link, .. } => write!(f, "< PINGRESP #{link}"),
            Event::Killed { at_ms } => write!(f, "==== killed at {at_ms} ms"),
            Event::Ready => write!(f, "==== ready again"),
            Event::Retained { found } => write!(f, "retained messages: {}", found.len()),
            Event::Fault { what, .. } => write!(f, "FAULT {what}"),
        }
    }
}
