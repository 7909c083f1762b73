//! A device made of rumqttc, the 3.1.1 client or the 5.0 client: nothing of the profile is in it
//! but its topics. Sessions are kept, acknowledgements are the library's.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hoopoe_tests::{Broker, DEADLINE, Properties, Property, Publish, Version, unique_id};
use serde_json::Value;

use crate::entry::{Entry, entry};

/// Requests that may wait for the library.
const REQUESTS: usize = 16;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The largest packet either side sends.
const PACKET_MAX: u32 = 1 << 20;

enum Library {
    V4(rumqttc::Client),
    V5(rumqttc::v5::Client),
}

enum Happened {
    Connected,
    Subscribed,
    Acknowledged(Ack),
    Publication(Publish),
    Ended(String),
}

/// What PUBACK said; 3.1.1 can say nothing.
pub(crate) struct Ack {
    pub(crate) refused: bool,
    pub(crate) pairs: Vec<(String, String)>,
}

/// A user's device.
pub(crate) struct Stock {
    pub(crate) user: String,
    pub(crate) version: Version,
    /// The first thing the broker said.
    pub(crate) hello: Value,
    device: String,
    library: Library,
    events: Receiver<Happened>,
    waiting: VecDeque<Publish>,
    /// The highest seq seen of each conversation: after a crash some come again.
    seen: HashMap<String, u64>,
}

impl Stock {
    /// A device with a session that is kept; its hello has been read.
    pub(crate) fn connect(broker: &Broker, version: Version, user: &str, device: &str) -> Stock {
        let (sender, events) = channel();
        let library = start(broker, version, (user, device), sender);
        let mut stock = Stock {
            user: user.to_owned(),
            version,
            hello: Value::Null,
            device: device.to_owned(),
            library,
            events,
            waiting: VecDeque::new(),
            seen: HashMap::new(),
        };
        stock.wait_for(|happened| matches!(happened, Happened::Connected).then_some(()));
        let hello = stock.next("im/me/sys/hello");
        stock.hello = serde_json::from_slice(&hello.payload).expect("JSON");
        stock
    }

    /// The same device, connected anew; it remembers what it has seen.
    pub(crate) fn again(self, broker: &Broker) -> Stock {
        let seen = self.seen;
        Stock { seen, ..Stock::connect(broker, self.version, &self.user, &self.device) }
    }

    fn wait_for<T>(&mut self, mut wanted: impl FnMut(&Happened) -> Option<T>) -> T {
        loop {
            let happened = self.events.recv_timeout(DEADLINE).expect("something happens in time");
            if let Some(found) = wanted(&happened) {
                return found;
            }
            match happened {
                Happened::Publication(publish) => self.waiting.push_back(publish),
                Happened::Ended(why) => panic!("{}'s connection ended: {why}", self.user),
                _ => {}
            }
        }
    }

    /// Publishes at QoS 1 and waits for the acknowledgement.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str) -> Ack {
        match &self.library {
            Library::V4(client) => {
                let qos = rumqttc::QoS::AtLeastOnce;
                client.publish(topic, qos, false, payload).expect("the library takes it");
            }
            Library::V5(client) => {
                let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                client.publish(topic, qos, false, payload.to_owned()).expect("it is taken");
            }
        }
        let mut ack = None;
        self.wait_for(|happened| {
            let Happened::Acknowledged(Ack { refused, pairs }) = happened else { return None };
            ack = Some(Ack { refused: *refused, pairs: pairs.clone() });
            Some(())
        });
        ack.expect("it was just found")
    }

    /// Sends a message, which must be accepted; its seq.
    pub(crate) fn send(&mut self, conv: &str, cid: &str, text: &str) -> u64 {
        let ack = self.publish(&format!("im/{conv}/msg/{cid}"), text);
        if self.version == Version::V311 {
            let told = self.next(&format!("im/me/sys/sent/{cid}/{conv}/"));
            return told.topic.split('/').nth(7).and_then(|seq| seq.parse().ok()).expect("a seq");
        }
        let seq = ack.pairs.iter().find(|(name, _)| name == "im-seq");
        seq.and_then(|(_, seq)| seq.parse().ok()).expect("accepted, with a seq")
    }

    /// Sends a message, which must be refused.
    pub(crate) fn is_refused(&mut self, topic: &str, cid: &str, text: &str) {
        let ack = self.publish(topic, text);
        if self.version == Version::V311 {
            self.next(&format!("im/me/sys/err/{cid}/"));
        } else {
            assert!(ack.refused, "{topic} was accepted");
        }
    }

    /// Subscribes at QoS 0.
    pub(crate) fn subscribe(&mut self, filter: &str) {
        match &self.library {
            Library::V4(client) => client.subscribe(filter, rumqttc::QoS::AtMostOnce).expect("ok"),
            Library::V5(client) => {
                let qos = rumqttc::v5::mqttbytes::QoS::AtMostOnce;
                client.subscribe(filter, qos).expect("the library takes it");
            }
        }
        self.wait_for(|happened| matches!(happened, Happened::Subscribed).then_some(()));
    }

    /// The next publication whose topic begins like this; others wait.
    pub(crate) fn next(&mut self, begins: &str) -> Publish {
        let found = self.waiting.iter().position(|publish| publish.topic.starts_with(begins));
        if let Some(publish) = found.and_then(|index| self.waiting.remove(index)) {
            return publish;
        }
        self.wait_for(|happened| match happened {
            Happened::Publication(publish) if publish.topic.starts_with(begins) => {
                Some(publish.clone())
            }
            _ => None,
        })
    }

    /// The next stored entry that this device has not seen.
    pub(crate) fn next_entry(&mut self) -> Entry {
        loop {
            let publish = self.next("im/me/in/");
            let entry = entry(&publish).expect("an entry");
            let seen = self.seen.entry(entry.conv.clone()).or_default();
            if entry.seq > *seen {
                *seen = entry.seq;
                return entry;
            }
        }
    }

    /// Calls a service that must answer `ok`.
    pub(crate) fn call(&mut self, operation: &str, body: &Value) -> Value {
        let request = unique_id("q");
        self.publish(&format!("im/svc/{operation}/{request}"), &body.to_string());
        let answer = self.next(&format!("im/me/res/{request}/"));
        let body = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(answer.topic.ends_with("/ok"), "{operation}: {} {body}", answer.topic);
        serde_json::from_str(&body).expect("JSON")
    }

    /// Pulls entries; those and the end.
    pub(crate) fn pull(&mut self, body: &Value) -> (Vec<Entry>, Value) {
        let request = unique_id("q");
        self.publish(&format!("im/svc/sync/pull/{request}"), &body.to_string());
        let conv = body["conv"].as_str().expect("a conversation").to_owned();
        let (item, begins) = (format!("im/me/res/{request}/m"), format!("im/me/res/{request}/"));
        let mut entries = Vec::new();
        loop {
            let mut publish = self.next(&begins);
            let Some(header) = publish.topic.strip_prefix(&item) else {
                assert!(publish.topic.ends_with("/end"), "{}", publish.topic);
                return (entries, serde_json::from_slice(&publish.payload).expect("JSON"));
            };
            publish.topic = format!("im/me/in/{conv}{header}");
            entries.push(entry(&publish).expect("an entry"));
        }
    }

    /// Leaves with DISCONNECT; the broker has heard it.
    pub(crate) fn leave(mut self) -> Away {
        match &self.library {
            Library::V4(client) => client.disconnect().expect("the library takes it"),
            Library::V5(client) => client.disconnect().expect("the library takes it"),
        }
        self.wait_for(|happened| matches!(happened, Happened::Ended(_)).then_some(()));
        Away(self)
    }
}

/// A device that is not connected.
pub(crate) struct Away(Stock);

impl Away {
    /// Connects again.
    pub(crate) fn back(self, broker: &Broker) -> Stock {
        self.0.again(broker)
    }
}

fn start(
    broker: &Broker,
    version: Version,
    (user, device): (&str, &str),
    sender: Sender<Happened>,
) -> Library {
    let (host, port) = (broker.tcp().ip().to_string(), broker.tcp().port());
    if version == Version::V311 {
        let mut options = rumqttc::MqttOptions::new(device, host, port);
        options.set_credentials(user, "any").set_keep_alive(KEEP_ALIVE).set_clean_session(false);
        options.set_max_packet_size(PACKET_MAX as usize, PACKET_MAX as usize);
        let (client, mut connection) = rumqttc::Client::new(options, REQUESTS);
        std::thread::spawn(move || {
            for event in connection.iter() {
                if !tell(&sender, event.map(old_event).map_err(|error| error.to_string())) {
                    return;
                }
            }
        });
        return Library::V4(client);
    }
    let mut options = rumqttc::v5::MqttOptions::new(device, host, port);
    options.set_credentials(user, "any").set_keep_alive(KEEP_ALIVE).set_clean_start(false);
    options.set_session_expiry_interval(Some(3600));
    options.set_max_packet_size(Some(PACKET_MAX));
    let (client, mut connection) = rumqttc::v5::Client::new(options, REQUESTS);
    std::thread::spawn(move || {
        for event in connection.iter() {
            if !tell(&sender, event.map(new_event).map_err(|error| error.to_string())) {
                return;
            }
        }
    });
    Library::V5(client)
}

/// Passes an event on; false at the end.
fn tell(sender: &Sender<Happened>, event: Result<Option<Happened>, String>) -> bool {
    match event {
        Ok(None) => true,
        Ok(Some(happened)) => sender.send(happened).is_ok(),
        Err(why) => {
            // The test may have gone on without this device.
            let _ = sender.send(Happened::Ended(why));
            false
        }
    }
}

fn old_event(event: rumqttc::Event) -> Option<Happened> {
    use rumqttc::{Event, Incoming};
    match event {
        Event::Incoming(Incoming::ConnAck(_)) => Some(Happened::Connected),
        Event::Incoming(Incoming::SubAck(_)) => Some(Happened::Subscribed),
        Event::Incoming(Incoming::PubAck(_)) => {
            Some(Happened::Acknowledged(Ack { refused: false, pairs: Vec::new() }))
        }
        Event::Incoming(Incoming::Publish(publish)) => {
            Some(Happened::Publication(Publish::new(&publish.topic, &publish.payload)))
        }
        _ => None,
    }
}

fn new_event(event: rumqttc::v5::Event) -> Option<Happened> {
    use rumqttc::v5::mqttbytes::v5::PubAckReason;
    use rumqttc::v5::{Event, Incoming};
    match event {
        Event::Incoming(Incoming::ConnAck(_)) => Some(Happened::Connected),
        Event::Incoming(Incoming::SubAck(_)) => Some(Happened::Subscribed),
        Event::Incoming(Incoming::PubAck(ack)) => {
            let fine = [PubAckReason::Success, PubAckReason::NoMatchingSubscribers];
            let refused = !fine.contains(&ack.reason);
            let pairs = ack.properties.map(|properties| properties.user_properties);
            Some(Happened::Acknowledged(Ack { refused, pairs: pairs.unwrap_or_default() }))
        }
        Event::Incoming(Incoming::Publish(publish)) => {
            let topic = String::from_utf8_lossy(&publish.topic).into_owned();
            let pairs = publish.properties.map(|properties| properties.user_properties);
            let pairs = pairs.unwrap_or_default().into_iter();
            let properties = pairs.map(|(name, value)| Property::UserProperty(name, value));
            let mut seen = Publish::new(&topic, &publish.payload);
            seen.properties = Properties(properties.collect());
            Some(Happened::Publication(seen))
        }
        _ => None,
    }
}
