//! Histories made by hand, each with one thing wrong, or with something that looks wrong and is not.

use super::{LAZY_MS, audit};
use crate::crash::cast::{Cast, FilterRole, PublisherRole, ReceiverRole, Temper, TopicRole};
use crate::crash::history::{Client, Event, History, Leaving, Link};
use crate::crash::message::{Attempt, Message};
use crate::wire::Version;

/// Topics of the one publisher, number 1.
const PLAIN: u16 = 0;
const KEPT: u16 = 1;
const SHARED: u16 = 2;
/// Messages a receiver takes unacknowledged.
const RECEIVE_MAXIMUM: u16 = 3;

fn filter(topic: u16, group: Option<u16>) -> FilterRole {
    let text = format!("topic/{topic}");
    FilterRole { text, qos: 2, publisher: 1, kept: false, group, topic: Some(topic) }
}

/// Receiver 0 subscribes to the plain topic, both are members of the group.
fn cast() -> Cast {
    let topic = |number: u16| TopicRole {
        name: format!("topic/{number}"),
        kept: number == KEPT,
        shared: number == SHARED,
        qos: None,
    };
    let publisher =
        |topics: Vec<TopicRole>| PublisherRole { version: Version::V5, topics, window: 9 };
    let receiver = |filters: Vec<FilterRole>| ReceiverRole {
        version: Version::V5,
        temper: Temper::Steady,
        receive_maximum: RECEIVE_MAXIMUM,
        filters,
    };
    Cast {
        publishers: vec![
            publisher(vec![topic(PLAIN)]),
            publisher([PLAIN, KEPT, SHARED].map(topic).to_vec()),
        ],
        receivers: vec![
            receiver(vec![filter(PLAIN, None), filter(SHARED, Some(0))]),
            receiver(vec![filter(SHARED, Some(0))]),
        ],
    }
}

struct Story {
    history: History,
    now_ms: u64,
    last_link: Link,
    /// The connection of each receiver.
    links: [Link; 2],
}

fn attempt(topic: u16, seq: u32, number: u16) -> Attempt {
    Attempt { message: Message { publisher: 1, topic, seq }, number }
}

impl Story {
    /// All are connected and subscribed.
    fn begin() -> Story {
        let history = History::default();
        let mut story = Story { history, now_ms: 0, last_link: 0, links: [0, 0] };
        for receiver in [0, 1] {
            story.comes(receiver, false);
        }
        for (receiver, filter) in [(0, 0), (0, 1), (1, 0)] {
            story.note(Event::Subscribe { receiver, filter });
            story.note(Event::Subscribed { receiver, filter });
        }
        story
    }

    fn note(&mut self, event: Event) {
        self.now_ms += 1;
        self.history.record(self.now_ms, event);
    }

    fn link(&self, receiver: u16) -> Link {
        self.links[usize::from(receiver)]
    }

    fn comes(&mut self, receiver: u16, present: bool) {
        self.last_link += 1;
        let (client, link) = (Client::Receiver(receiver), self.last_link);
        self.links[usize::from(receiver)] = link;
        self.note(Event::Connect { client, link, clean: false });
        self.note(Event::Connected { client, link, present });
    }

    fn leaves(&mut self, receiver: u16, how: Leaving) {
        let (client, link) = (Client::Receiver(receiver), self.link(receiver));
        self.note(Event::Left { client, link, how });
        self.note(Event::Closed { client, link, killed: false });
    }

    fn returns(&mut self, receiver: u16) {
        self.leaves(receiver, Leaving::Cut);
        self.comes(receiver, true);
    }

    fn crash(&mut self) {
        for receiver in [0, 1] {
            let (client, link) = (Client::Receiver(receiver), self.link(receiver));
            self.note(Event::Closed { client, link, killed: true });
        }
        self.note(Event::Killed { at_ms: self.now_ms });
        self.note(Event::Ready);
        self.comes(0, true);
        self.comes(1, true);
    }

    fn sent(&mut self, topic: u16, seq: u32, number: u16, qos: u8) {
        let attempt = attempt(topic, seq, number);
        self.note(Event::Published { attempt, qos, cleared: false });
    }

    /// Published and acknowledged.
    fn published(&mut self, topic: u16, seq: u32, qos: u8) {
        self.sent(topic, seq, 1, qos);
        self.note(Event::Acked { message: attempt(topic, seq, 1).message });
    }

    /// Delivered under an identifier that is its number.
    fn got(&mut self, receiver: u16, topic: u16, seq: u32, qos: u8) {
        self.got_again(receiver, attempt(topic, seq, 1), qos, seq as u16, false);
    }

    fn got_again(&mut self, receiver: u16, attempt: Attempt, qos: u8, id: u16, dup: bool) {
        let link = self.link(receiver);
        let retain = false;
        self.note(Event::Delivered { receiver, link, id, qos, dup, retain, attempt });
    }

    fn answered(&mut self, receiver: u16, topic: u16, seq: u32) {
        let (link, id, attempt) = (self.link(receiver), seq as u16, attempt(topic, seq, 1));
        self.note(Event::Answered { receiver, link, id, attempt });
    }

    /// The broker has heard everything so far.
    fn heard(&mut self, receiver: u16) {
        let link = self.link(receiver);
        self.note(Event::Ping { receiver, link });
        self.note(Event::Pong { receiver, link });
    }
}

type Tell = fn(&mut Story);

/// What happens, and the beginning of what is wrong with it.
const WRONG: &[(&str, Tell, &str)] = &[
    ("a loss", |s| s.published(PLAIN, 1, 1), "acknowledged, but never delivered"),
    ("a loss to a group", |s| s.published(SHARED, 1, 2), "acknowledged, but never delivered"),
    (
        "another order",
        |s| {
            s.published(PLAIN, 1, 1);
            s.published(PLAIN, 2, 1);
            s.got(0, PLAIN, 2, 1);
            s.got(0, PLAIN, 1, 1);
        },
        "out of order",
    ),
    (
        "QoS 2 twice",
        |s| {
            s.published(PLAIN, 1, 2);
            s.got(0, PLAIN, 1, 2);
            s.answered(0, PLAIN, 1);
            s.note(Event::Released { receiver: 0, link: 1, id: 1 });
            s.got_again(0, attempt(PLAIN, 1, 1), 2, 2, false);
        },
        "QoS 2, but delivered before",
    ),
    (
        "QoS 2 taken twice",
        |s| {
            s.sent(PLAIN, 1, 1, 2);
            s.sent(PLAIN, 1, 2, 2);
            s.got(0, PLAIN, 1, 2);
            s.got_again(0, attempt(PLAIN, 1, 2), 2, 2, false);
        },
        "QoS 2, but attempt 1 was delivered too",
    ),
    (
        "one connection, twice",
        |s| {
            s.published(PLAIN, 1, 1);
            s.got(0, PLAIN, 1, 1);
            s.got_again(0, attempt(PLAIN, 1, 1), 1, 2, true);
        },
        "delivered twice over one connection",
    ),
    (
        "acknowledged, again over the next connection",
        |s| {
            s.published(PLAIN, 1, 1);
            s.got(0, PLAIN, 1, 1);
            s.answered(0, PLAIN, 1);
            s.heard(0);
            s.returns(0);
            s.got_again(0, attempt(PLAIN, 1, 1), 1, 1, true);
        },
        "delivered again although acknowledged",
    ),
    (
        "acknowledged long before a crash",
        |s| {
            s.published(PLAIN, 1, 1);
            s.got(0, PLAIN, 1, 1);
            s.answered(0, PLAIN, 1);
            s.heard(0);
            s.now_ms += LAZY_MS;
            s.crash();
            s.got_again(0, attempt(PLAIN, 1, 1), 1, 1, true);
        },
        "delivered again although acknowledged",
    ),
    (
        "no DUP",
        |s| {
            s.published(PLAIN, 1, 1);
            s.got(0, PLAIN, 1, 1);
            s.returns(0);
            s.got_again(0, attempt(PLAIN, 1, 1), 1, 1, false);
        },
        "delivered again without DUP",
    ),
    (
        "unsubscribed before",
        |s| {
            s.note(Event::Unsubscribe { receiver: 0, filter: 0 });
            s.note(Event::Unsubscribed { receiver: 0, filter: 0 });
            s.published(PLAIN, 1, 1);
            s.got(0, PLAIN, 1, 1);
        },
        "delivered, but not subscribed to",
    ),
    ("nobody's message", |s| s.got(0, PLAIN, 7, 1), "delivered, never published"),
    (
        "another QoS",
        |s| {
            s.sent(PLAIN, 1, 1, 2);
            s.got(0, PLAIN, 1, 1);
        },
        "delivered with QoS 1 instead of 2",
    ),
    (
        "more than the receiver takes",
        |s| {
            for seq in 1..=4 {
                s.published(PLAIN, seq, 1);
                s.got(0, PLAIN, seq, 1);
            }
        },
        "4 in flight, Receive Maximum 3",
    ),
    (
        "an identifier in use",
        |s| {
            s.published(PLAIN, 1, 1);
            s.sent(PLAIN, 2, 1, 1);
            s.got(0, PLAIN, 1, 1);
            s.got_again(0, attempt(PLAIN, 2, 1), 1, 1, false);
        },
        "identifier 1 is in flight",
    ),
    (
        "a session is lost",
        |s| {
            s.leaves(0, Leaving::Cut);
            s.comes(0, false);
        },
        "a stored session was lost",
    ),
    (
        "a session comes back",
        |s| {
            s.leaves(0, Leaving::End);
            s.comes(0, true);
        },
        "a session that had ended has come back",
    ),
    (
        "an old retained message",
        |s| {
            s.published(KEPT, 1, 1);
            s.published(KEPT, 2, 1);
            s.note(Event::Retained { found: vec![attempt(KEPT, 1, 1)] });
        },
        "retained, but the message p1.t1.2 was acknowledged later",
    ),
    (
        "a removed retained message",
        |s| {
            s.published(KEPT, 1, 1);
            let attempt = attempt(KEPT, 2, 1);
            s.note(Event::Published { attempt, qos: 1, cleared: true });
            s.note(Event::Acked { message: attempt.message });
            s.note(Event::Retained { found: vec![self::attempt(KEPT, 1, 1)] });
        },
        "retained, but the removal p1.t1.2 was acknowledged later",
    ),
    (
        "a lost retained message",
        |s| {
            s.published(KEPT, 1, 1);
            s.note(Event::Retained { found: Vec::new() });
        },
        "no retained message, but p1.t1.1 was acknowledged",
    ),
    (
        "QoS 2 to two members",
        |s| {
            s.published(SHARED, 1, 2);
            s.got(0, SHARED, 1, 2);
            s.got(1, SHARED, 1, 2);
        },
        "another member was given it with QoS 2: r0",
    ),
    (
        "acknowledged by another member",
        |s| {
            s.published(SHARED, 1, 1);
            s.got(0, SHARED, 1, 1);
            s.answered(0, SHARED, 1);
            s.heard(0);
            s.got(1, SHARED, 1, 1);
        },
        "another member had acknowledged it: r0",
    ),
];

/// What happens, and is in order.
const RIGHT: &[(&str, Tell)] = &[
    ("nothing is promised before the acknowledgement", |s| s.sent(PLAIN, 1, 1, 1)),
    ("acknowledged a moment before a crash", |s| {
        s.published(PLAIN, 1, 1);
        s.got(0, PLAIN, 1, 1);
        s.answered(0, PLAIN, 1);
        s.heard(0);
        s.crash();
        s.got_again(0, attempt(PLAIN, 1, 1), 1, 1, true);
    }),
    ("an attempt that was repeated is a message of its own", |s| {
        s.sent(PLAIN, 1, 1, 1);
        s.published(PLAIN, 2, 1);
        s.got(0, PLAIN, 1, 1);
        s.got(0, PLAIN, 2, 1);
        s.sent(PLAIN, 1, 2, 1);
        s.got_again(0, attempt(PLAIN, 1, 2), 1, 3, false);
    }),
    ("QoS 2 goes on over the next connection", |s| {
        s.published(PLAIN, 1, 2);
        s.got(0, PLAIN, 1, 2);
        s.returns(0);
        s.got_again(0, attempt(PLAIN, 1, 1), 2, 1, true);
        s.answered(0, PLAIN, 1);
        s.note(Event::Released { receiver: 0, link: 3, id: 1 });
    }),
    ("an unacknowledged removal may have happened", |s| {
        s.published(KEPT, 1, 1);
        s.note(Event::Published { attempt: attempt(KEPT, 2, 1), qos: 1, cleared: true });
        s.note(Event::Retained { found: Vec::new() });
        s.note(Event::Retained { found: vec![attempt(KEPT, 1, 1)] });
    }),
    ("a session that was made by a CONNECT without answer", |s| {
        s.leaves(0, Leaving::End);
        let (client, link) = (Client::Receiver(0), 9);
        s.note(Event::Connect { client, link, clean: false });
        s.note(Event::Closed { client, link, killed: true });
        s.comes(0, true);
        s.published(PLAIN, 1, 1);
    }),
    ("one member of a group is enough", |s| {
        s.published(SHARED, 1, 2);
        s.got(1, SHARED, 1, 2);
    }),
    ("what a member did not acknowledge goes to another", |s| {
        s.published(SHARED, 1, 1);
        s.got(0, SHARED, 1, 1);
        s.leaves(0, Leaving::Cut);
        s.got(1, SHARED, 1, 1);
    }),
];

fn faults(tell: Tell) -> Vec<String> {
    let mut story = Story::begin();
    tell(&mut story);
    let faults = audit(&cast(), &story.history, LAZY_MS);
    faults.into_iter().map(|fault| fault.what).collect()
}

#[test]
fn each_fault_is_found() {
    for (name, tell, expected) in WRONG {
        let faults = faults(*tell);
        assert!(
            faults.len() == 1 && faults[0].starts_with(expected),
            "{name}: {expected:?} was expected: {faults:?}"
        );
    }
}

#[test]
fn what_is_allowed_is_no_fault() {
    for (name, tell) in RIGHT {
        assert_eq!(faults(*tell), Vec::<String>::new(), "{name}");
    }
}
