//! Sites with their brokers, joined by links through a network that can be cut.

use std::sync::Arc;

use hoopoe_tests::broker::Options;
use hoopoe_tests::{
    Broker, Connect, Http, Packet, Publish, RawClient, Received, Version, eventually,
    unique_address, unique_id,
};
use serde_json::{Value, json};

use crate::proxy::Proxy;

/// The admin token of these brokers.
pub(crate) const ADMIN: &str = "the operators' own token";

/// Sites in the order in which they were named; each dials those before it.
pub(crate) struct World {
    pub(crate) names: Vec<String>,
    pub(crate) brokers: Vec<Broker>,
    /// Who dials, whom, through what.
    pub(crate) links: Vec<(usize, usize, Arc<Proxy>)>,
}

impl World {
    /// Users `*-{site}` and groups `{site}-*` live at their site, all others at the first.
    pub(crate) fn start(names: &[&str], extra: &str) -> World {
        let mut world = World {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            brokers: Vec::new(),
            links: Vec::new(),
        };
        for at in 0..names.len() {
            for to in 0..at {
                world.links.push((at, to, Arc::new(Proxy::new())));
            }
            let options = Options::new().at(unique_address());
            let options = options.environment("HOOPOE_HTTP__ADMIN_TOKEN", ADMIN);
            let broker = options.configuration(&world.settings(at, extra)).start();
            world.brokers.push(broker);
            world.heal();
        }
        world.until_linked();
        world
    }

    fn settings(&self, at: usize, extra: &str) -> String {
        let (id, first) = (&self.names[at], &self.names[0]);
        let mut text = format!("[im.site]\nid = \"{id}\"\ndefault_home = \"{first}\"\n{extra}\n");
        for site in &self.names[1..] {
            text += &format!(
                "[[im.site.home]]\nusers = \"*-{site}\"\ngroups = \"{site}-*\"\n\
                 channels = \"{site}-*\"\nrooms = \"{site}-*\"\nsite = \"{site}\"\n"
            );
        }
        for site in &self.names[at + 1..] {
            text += &format!("[[im.site.link]]\nsite = \"{site}\"\nuser = \"link-{site}\"\n");
        }
        for (from, to, proxy) in self.links.iter().filter(|link| link.0 == at) {
            let (own, site) = (&self.names[*from], &self.names[*to]);
            text += &format!(
                "[[bridge]]\nname = \"{site}\"\nkind = \"hoopoe\"\nsite = \"{site}\"\n\
                 url = \"mqtt://{}\"\nusername = \"link-{own}\"\npassword = \"x\"\n\
                 backoff_min_ms = 20\nbackoff_max_ms = 200\n",
                proxy.address
            );
        }
        text
    }

    pub(crate) fn operator(&self, at: usize) -> Http {
        Http::new(self.brokers[at].http()).bearer(ADMIN)
    }

    /// Every link is there.
    pub(crate) fn heal(&self) {
        for (_, to, proxy) in &self.links {
            if let Some(broker) = self.brokers.get(*to) {
                proxy.lead_to(broker.tcp());
            }
        }
    }

    pub(crate) fn cut(&self) {
        self.links.iter().for_each(|(_, _, proxy)| proxy.cut());
    }

    pub(crate) fn site(&self, name: &str) -> usize {
        self.names.iter().position(|site| site == name).expect("a site of this world")
    }

    pub(crate) fn broker(&self, name: &str) -> &Broker {
        &self.brokers[self.site(name)]
    }

    /// Where a user lives.
    pub(crate) fn home(&self, user: &str) -> usize {
        let site = user.rsplit_once('-').map(|(_, site)| site);
        site.and_then(|site| self.names.iter().position(|name| name == site)).unwrap_or(0)
    }

    /// Whether a site reaches another: what it answers to a question about a group there.
    fn reaches(&self, from: usize, to: usize) -> bool {
        let group = if to == 0 { "none".to_owned() } else { format!("{}-none", self.names[to]) };
        let asker =
            if from == 0 { "asker".to_owned() } else { format!("asker-{}", self.names[from]) };
        let http = self.operator(from).acting_for(&asker);
        let answer = http.try_call("group/info", json!({ "group": group }));
        answer.json()["error"] == "not_found"
    }

    pub(crate) fn until_linked(&self) {
        for from in 0..self.names.len() {
            for to in 0..self.names.len() {
                if from != to {
                    let (a, b) = (&self.names[from], &self.names[to]);
                    eventually(&format!("{a} reaches {b}"), || self.reaches(from, to));
                }
            }
        }
    }

    pub(crate) fn until_cut(&self, from: &str, to: &str) {
        let (a, b) = (self.site(from), self.site(to));
        eventually(&format!("{from} has lost {to}"), || !self.reaches(a, b));
    }

    /// Everything that a user can read of a conversation: seq, kind, text.
    pub(crate) fn log(&self, user: &str, conv: &str) -> Vec<(u64, String, String)> {
        let http = self.operator(self.home(user)).acting_for(user);
        let (mut log, mut from) = (Vec::new(), 1);
        loop {
            let body = json!({ "conv": conv, "from": from, "limit": 200 });
            let answer = http.try_call("sync/pull", body);
            if answer.status != 200 {
                return log;
            }
            let answer = answer.json();
            for entry in answer["entries"].as_array().expect("entries") {
                let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
                log.push((entry["seq"].as_u64().unwrap_or(0), text("kind"), text("payload")));
            }
            match answer["next"].as_u64() {
                Some(next) => from = next,
                None => return log,
            }
        }
    }

    pub(crate) fn texts(&self, user: &str, conv: &str) -> Vec<String> {
        self.log(user, conv).into_iter().map(|(_, _, text)| text).collect()
    }

    /// A device of a user at home; its hello has been read.
    pub(crate) fn device(&self, version: Version, user: &str) -> RawClient {
        self.device_with(&Connect::new(version, &unique_id("d")), user)
    }

    pub(crate) fn device_with(&self, connect: &Connect, user: &str) -> RawClient {
        let broker = &self.brokers[self.home(user)];
        let mut device = broker.connect(&connect.clone().login(user, "any"));
        await_topic(&mut device, "im/me/sys/hello");
        device
    }
}

/// What a send led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    Seq(u64),
    Held,
    Refused(u8),
}

/// Sends with QoS 1 over MQTT 5.0; publications that come meanwhile are taken and dropped.
pub(crate) fn send(device: &mut RawClient, topic: &str, text: &str) -> Sent {
    try_send(device, topic, text).expect("the broker answers")
}

/// The same; `None` when the connection ends first.
pub(crate) fn try_send(device: &mut RawClient, topic: &str, text: &str) -> Option<Sent> {
    let id = device.send_publish(Publish::new(topic, text).qos(1));
    loop {
        match device.receive() {
            Received::Closed => return None,
            Received::Packet(Packet::PubAck(ack)) if ack.id == id => {
                let property = |name: &str| {
                    let all = ack.properties.user_properties();
                    all.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
                };
                return Some(match (ack.code, property("im-seq"), property("im-held")) {
                    (0, Some(seq), None) => Sent::Seq(seq.parse().expect("a number")),
                    (0, None, Some(_)) => Sent::Held,
                    (code, ..) => Sent::Refused(code),
                });
            }
            Received::Packet(Packet::Publish(publish)) if publish.qos > 0 => {
                device.complete(&publish);
            }
            Received::Packet(_) => {}
        }
    }
}

/// The next publication whose topic begins like this; those before it are taken and dropped.
pub(crate) fn await_topic(device: &mut RawClient, begins: &str) -> Publish {
    loop {
        let publish = device.take_publish();
        if publish.topic.starts_with(begins) {
            return publish;
        }
    }
}

/// Calls a service; returns status and body.
pub(crate) fn call(device: &mut RawClient, operation: &str, body: &Value) -> (String, Value) {
    let request = unique_id("q");
    let topic = format!("im/svc/{operation}/{request}");
    device.publish(Publish::new(&topic, body.to_string()).qos(1));
    let begins = format!("im/me/res/{request}/");
    let answer = await_topic(device, &begins);
    let status = answer.topic[begins.len()..].to_owned();
    (status, serde_json::from_slice(&answer.payload).expect("answers are JSON"))
}

pub(crate) fn property(publish: &Publish, name: &str) -> Option<String> {
    let all = publish.properties.user_properties();
    all.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
