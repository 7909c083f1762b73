//! Something stored in a broker that can be asked for again: sessions that are away with messages
//! waiting, each message in its turn, and retained messages.

use std::collections::BTreeMap;

use crate::{Broker, Connect, Publish, RawClient, Version, unique_id, unique_topic};

/// What was acknowledged, and who is to get it.
pub struct Stored {
    root: String,
    sessions: Vec<Session>,
    retained: BTreeMap<String, Vec<u8>>,
}

struct Session {
    connect: Connect,
    own_topic: String,
    waiting: Vec<(String, Vec<u8>)>,
}

impl Stored {
    /// Sessions of both versions that subscribed and left.
    pub fn sessions(broker: &Broker, sessions: usize) -> Stored {
        let root = unique_topic("stored");
        let mut stored = Stored { root, sessions: Vec::new(), retained: BTreeMap::new() };
        for number in 0..sessions {
            let version = Version::BOTH[number % 2];
            let connect = Connect::persistent(version, &unique_id("stored"));
            let own_topic = format!("{}/own/{number}", stored.root);
            let mut client = broker.connect(&connect);
            client.subscribe(&own_topic, 2);
            client.subscribe(&stored.all_topic(), 2);
            client.disconnect();
            stored.sessions.push(Session { connect, own_topic, waiting: Vec::new() });
        }
        stored
    }

    /// Sessions with `messages` messages each, every fifth for all of them, and half as many
    /// retained ones.
    pub fn fill(broker: &Broker, sessions: usize, messages: usize) -> Stored {
        let mut stored = Stored::sessions(broker, sessions);
        let mut publisher = broker.v5();
        for number in 0..messages {
            stored.publish(&mut publisher, &format!("message {number}"));
        }
        for number in 0..messages.div_ceil(2) {
            let topic = format!("{}/kept/{number}", stored.root);
            let payload = format!("kept {number}").into_bytes();
            publisher.publish(Publish::new(&topic, &payload).qos(1).retain());
            stored.retained.insert(topic, payload);
        }
        stored
    }

    fn all_topic(&self) -> String {
        format!("{}/all", self.root)
    }

    /// One more message for each session, acknowledged.
    pub fn publish(&mut self, publisher: &mut RawClient, text: &str) {
        let all = self.all_topic();
        for (number, session) in self.sessions.iter_mut().enumerate() {
            let payload = text.as_bytes().to_vec();
            let publish = Publish::new(&session.own_topic, &payload);
            publisher.publish(publish.qos(1 + (number % 2) as u8));
            session.waiting.push((session.own_topic.clone(), payload));
        }
        let payload = format!("{text} for all").into_bytes();
        publisher.publish(Publish::new(&all, &payload).qos(1));
        for session in &mut self.sessions {
            session.waiting.push((all.clone(), payload.clone()));
        }
    }

    /// The topic of the first session.
    pub fn first_topic(&self) -> &str {
        &self.sessions[0].own_topic
    }

    /// A message for the first session was acknowledged.
    pub fn acknowledged(&mut self, payload: &[u8]) {
        let session = &mut self.sessions[0];
        session.waiting.push((session.own_topic.clone(), payload.to_vec()));
    }

    /// Any retained message.
    pub fn any_retained(&self) -> (&str, &[u8]) {
        let (topic, payload) = self.retained.iter().next().expect("some are retained");
        (topic, payload)
    }

    /// Everything is there, in order, and nothing else; the sessions are empty then.
    pub fn is_all_there(&self, broker: &Broker) {
        self.sessions_get_theirs(broker, false);
        self.retained_are_there(broker);
    }

    /// The same, but messages whose acknowledgement never came may be there as well.
    pub fn is_all_there_at_least(&self, broker: &Broker) {
        self.sessions_get_theirs(broker, true);
        self.retained_are_there(broker);
    }

    fn sessions_get_theirs(&self, broker: &Broker, or_more: bool) {
        for (number, session) in self.sessions.iter().enumerate() {
            let mut client = broker.connect(&session.connect);
            assert!(client.connack.session_present, "session {number}");
            let marker = unique_topic("end");
            client.subscribe(&marker, 1);
            broker.v5().publish(Publish::new(&marker, "end").qos(1));
            let mut wanted = session.waiting.iter();
            loop {
                let publish = client.take_publish();
                if publish.topic == marker {
                    break;
                }
                let got = (publish.topic, publish.payload);
                let found = if or_more {
                    // Wanted ones may be left over, never passed over.
                    let next = wanted.clone().next();
                    if next == Some(&got) { wanted.next() } else { Some(&got) }
                } else {
                    wanted.next()
                };
                assert!(found == Some(&got), "session {number} got {:?}", got.0);
            }
            assert_eq!(wanted.count(), 0, "lost for session {number}");
            client.unsubscribe(&[&marker]);
            client.disconnect();
        }
    }

    /// How many messages there still are after something was lost: of those that were stored, in
    /// order, and no others. The sessions are empty then.
    pub fn how_many_are_left(&self, broker: &Broker) -> usize {
        let mut left = 0;
        for (number, session) in self.sessions.iter().enumerate() {
            let mut client = broker.connect(&session.connect);
            let marker = unique_topic("end");
            client.subscribe(&marker, 1);
            broker.v5().publish(Publish::new(&marker, "end").qos(1));
            let mut stored = session.waiting.iter();
            loop {
                let publish = client.take_publish();
                if publish.topic == marker {
                    break;
                }
                let got = (publish.topic, publish.payload);
                assert!(stored.any(|one| *one == got), "session {number} got {:?}", got.0);
                left += 1;
            }
            client.unsubscribe(&[&marker]);
            client.disconnect();
        }
        left
    }

    /// How many messages wait.
    pub fn how_many(&self) -> usize {
        self.sessions.iter().map(|session| session.waiting.len()).sum()
    }

    fn retained_are_there(&self, broker: &Broker) {
        let mut client = broker.v5();
        client.subscribe(&format!("{}/kept/#", self.root), 1);
        let found: BTreeMap<String, Vec<u8>> = (0..self.retained.len())
            .map(|_| {
                let publish = client.take_publish();
                assert!(publish.retain);
                (publish.topic, publish.payload)
            })
            .collect();
        assert!(found == self.retained, "retained messages");
        client.ping();
    }
}
