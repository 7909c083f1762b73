//! `[[bridge]]`: links to other brokers.
//!
//! What an operator can set, and what is wrong with it; what a link makes of it is the package
//! `hoopoe-bridge`.

use std::collections::HashSet;
use std::path::PathBuf;

use hoopoe_bridge::{Direction, RemoteUrl, Rule, Start};
use hoopoe_codec::{QoS, Version, check_topic};
use hoopoe_core::QueueLimits;
use serde::{Deserialize, Serialize};

use super::check::Found;
use super::{QueuePolicy, Secret};

/// The version that is spoken with a remote broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// MQTT 5.0.
    #[serde(rename = "5.0")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
}

impl Protocol {
    /// The same for the codec.
    pub fn version(self) -> Version {
        match self {
            Protocol::V5 => Version::V5,
            Protocol::V311 => Version::V311,
        }
    }
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BridgeKind {
    /// Topics pass as its rules say.
    Mqtt,
    /// It joins two sites of the messaging profile; rules may stand beside.
    Hoopoe,
}

/// `[[bridge]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeSettings {
    /// Its name, in logs, metrics and topics.
    pub name: String,
    /// What it is for.
    pub kind: BridgeKind,
    /// The site that it leads to, with `kind = "hoopoe"`.
    pub site: Option<String>,
    /// Where the remote broker is.
    pub url: Option<RemoteUrl>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// As whom the link connects; none: a name made of the broker's id and the link's.
    pub client_id: Option<String>,
    /// User name there.
    pub username: Option<String>,
    /// Password there.
    pub password: Option<Secret>,
    /// The file whose first line is that password.
    pub password_file: Option<PathBuf>,
    /// Authorities to trust, for `mqtts` and `wss`; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The link's own certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Longest silence.
    pub keep_alive_secs: u16,
    /// Whether the remote broker forgets the link whenever its connection ends.
    pub clean: bool,
    /// How long the remote broker remembers an absent link.
    pub session_expiry_secs: u32,
    /// When to connect.
    pub start: Start,
    /// A lazy link without work ends its connection after so long.
    pub idle_timeout_secs: u32,
    /// First pause after a failed connection.
    pub backoff_min_ms: u32,
    /// Longest pause.
    pub backoff_max_ms: u32,
    /// Messages on their way out; none: 256, but 20 with 3.1.1, where a broker cannot say how many
    /// it takes.
    pub max_inflight: Option<u16>,
    /// Messages on their way in.
    pub receive_maximum: u16,
    /// Messages that wait for the link.
    pub queue_messages: u64,
    /// Bytes of those.
    pub queue_bytes: u64,
    /// What happens beyond either.
    pub queue_full: QueuePolicy,
    /// Messages per second in each direction; 0 is no limit.
    pub rate_per_sec: u32,
    /// Whether the RETAIN flag passes, and what is retained with it.
    pub retained: bool,
    /// Tell a 3.1.1 broker that a bridge connects.
    pub bridge_bit: bool,
    /// Level below which a 3.1.1 link names the brokers that a message has passed.
    pub hop_prefix: Option<String>,
    /// Links that a message may have passed before this one; none: 8, or 0 where MQTT 3.1.1 cannot
    /// say what it has passed.
    pub max_hops: Option<u16>,
    /// What passes.
    pub rule: Vec<BridgeRule>,
}

impl Default for BridgeSettings {
    fn default() -> BridgeSettings {
        BridgeSettings {
            name: String::new(),
            kind: BridgeKind::Mqtt,
            site: None,
            url: None,
            protocol: Protocol::V5,
            client_id: None,
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            keep_alive_secs: 60,
            clean: false,
            session_expiry_secs: 7 * 24 * 3600,
            start: Start::Automatic,
            idle_timeout_secs: 60,
            backoff_min_ms: 1000,
            backoff_max_ms: 60_000,
            max_inflight: None,
            receive_maximum: 256,
            queue_messages: 100_000,
            queue_bytes: 64 * 1024 * 1024,
            queue_full: QueuePolicy::DropOldest,
            rate_per_sec: 0,
            retained: true,
            bridge_bit: false,
            hop_prefix: None,
            max_hops: None,
            rule: Vec::new(),
        }
    }
}

/// `[[bridge.rule]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeRule {
    /// A topic filter, without the prefixes.
    pub pattern: String,
    /// Which way.
    pub direction: Direction,
    /// The highest QoS.
    pub qos: u8,
    /// What stands before the topic here.
    pub local_prefix: String,
    /// What stands before the topic there.
    pub remote_prefix: String,
}

impl Default for BridgeRule {
    fn default() -> BridgeRule {
        BridgeRule {
            pattern: String::new(),
            direction: Direction::Out,
            qos: 1,
            local_prefix: String::new(),
            remote_prefix: String::new(),
        }
    }
}

impl BridgeRule {
    /// The same for the bridge.
    pub fn rule(&self) -> Rule {
        Rule {
            pattern: self.pattern.clone(),
            direction: self.direction,
            qos: QoS::try_from(self.qos).unwrap_or(QoS::ExactlyOnce),
            local_prefix: self.local_prefix.clone(),
            remote_prefix: self.remote_prefix.clone(),
        }
    }
}

impl BridgeSettings {
    /// What may wait for the link.
    pub fn queue(&self) -> QueueLimits {
        QueueLimits {
            messages: self.queue_messages,
            bytes: self.queue_bytes,
            refuse: self.queue_full == QueuePolicy::Refuse,
        }
    }

    /// Messages on their way out.
    pub fn inflight(&self) -> u16 {
        let most = if self.protocol == Protocol::V5 { 256 } else { 20 };
        self.max_inflight.unwrap_or(most)
    }

    /// What passes: what two sites say to each other, and the link's own rules. `own`: the site of
    /// this broker.
    pub fn rules(&self, own: Option<&str>) -> Vec<Rule> {
        let mut rules: Vec<Rule> = self.rule.iter().map(BridgeRule::rule).collect();
        if let (BridgeKind::Hoopoe, Some(site), Some(own)) = (self.kind, &self.site, own) {
            let between = |to: &str, direction| Rule {
                pattern: format!("$hoopoe/site/{to}/#"),
                direction,
                // What is owed is said again until it is committed: nothing has to wait here.
                qos: QoS::AtMostOnce,
                local_prefix: String::new(),
                remote_prefix: String::new(),
            };
            let both = [between(site, Direction::Out), between(own, Direction::In)];
            rules.splice(0..0, both);
        }
        rules
    }

    /// Links that a message may have passed before this one.
    pub fn hops(&self) -> u16 {
        let told = self.protocol == Protocol::V5 || self.hop_prefix.is_some();
        self.max_hops.unwrap_or(if told { 8 } else { 0 })
    }

    pub(super) fn check(&self, key: &str, packet_bytes: u32, found: &mut Found) {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(is_word) {
            let message = "expected a name of 1 to 64 of A-Z a-z 0-9 - _ .";
            found.add(format!("{key}.name"), message);
        }
        if self.url.is_none() {
            let message = "expected the remote broker: mqtt://, mqtts://, ws:// or wss://host:port";
            found.add(format!("{key}.url"), message);
        }
        self.check_login(key, found);
        self.check_numbers(key, packet_bytes, found);
        if let Some(prefix) = &self.hop_prefix {
            let fault = match self.protocol {
                Protocol::V5 => Some("MQTT 5.0 carries the way in a property: take it out"),
                _ if prefix.contains('/') || check_topic(prefix).is_err() => {
                    Some("expected one level of a topic")
                }
                _ => None,
            };
            if let Some(fault) = fault {
                found.add(format!("{key}.hop_prefix"), fault);
            }
        }
        if self.bridge_bit && self.protocol == Protocol::V5 {
            let message = "MQTT 5.0 has No Local instead: expected protocol = \"3.1.1\"";
            found.add(format!("{key}.bridge_bit"), message);
        }
        match (self.kind, &self.site) {
            (BridgeKind::Hoopoe, None) => {
                let message = "expected the site that the link leads to";
                found.add(format!("{key}.site"), message);
            }
            (BridgeKind::Mqtt, Some(_)) => {
                let message = "for links between sites: expected kind = \"hoopoe\" beside it";
                found.add(format!("{key}.site"), message);
            }
            _ => {}
        }
        if self.rule.is_empty() && self.kind == BridgeKind::Mqtt {
            let message = "nothing would pass: expected at least one [[bridge.rule]]";
            found.add(format!("{key}.rule"), message);
        }
        for (index, rule) in self.rule.iter().enumerate() {
            let key = format!("{key}.rule[{index}]");
            if rule.qos > 2 {
                let message = format!("{} is no QoS: expected 0, 1 or 2", rule.qos);
                found.add(format!("{key}.qos"), message);
            }
            if let Err(fault) = rule.rule().check() {
                found.add(format!("{key}.{}", fault.key), fault.what);
            }
        }
        self.check_echo(key, found);
    }

    /// A 3.1.1 link that gets back what it sends doubles every message.
    fn check_echo(&self, key: &str, found: &mut Found) {
        if self.protocol == Protocol::V5 || self.bridge_bit || self.hop_prefix.is_some() {
            return;
        }
        let going = |goes: fn(Direction) -> bool| {
            let rules = self.rule.iter().enumerate();
            rules
                .filter(move |(_, rule)| goes(rule.direction))
                .map(|(index, rule)| (index, format!("{}{}", rule.remote_prefix, rule.pattern)))
        };
        for (index, inward) in going(Direction::comes_in) {
            if going(Direction::goes_out).any(|(_, outward)| overlap(&inward, &outward)) {
                let message = "what goes out would come back, because MQTT 3.1.1 has no No Local: \
                               expected bridge_bit (mosquitto and Hoopoe know it), hop_prefix, or \
                               other topics for each direction";
                found.add(format!("{key}.rule[{index}].direction"), message);
            }
        }
    }

    fn check_login(&self, key: &str, found: &mut Found) {
        if self.password.is_some() && self.password_file.is_some() {
            let message = "password is set as well: expected one of them";
            found.add(format!("{key}.password_file"), message);
        }
        let has_password = self.password.is_some() || self.password_file.is_some();
        if has_password && self.username.is_none() && self.protocol == Protocol::V311 {
            let message = "MQTT 3.1.1 has no password without a user name";
            found.add(format!("{key}.username"), message);
        }
        for (name, set, other) in [
            ("cert_file", self.cert_file.is_some(), self.key_file.is_some()),
            ("key_file", self.key_file.is_some(), self.cert_file.is_some()),
        ] {
            if !set && other {
                found.add(format!("{key}.{name}"), "a certificate needs its key: expected both");
            }
        }
        let encrypted = self.url.as_ref().is_none_or(|url| url.scheme.is_tls());
        for (name, set) in
            [("ca_file", self.ca_file.is_some()), ("cert_file", self.cert_file.is_some())]
        {
            if set && !encrypted {
                let message = "the url does not encrypt: expected mqtts:// or wss://";
                found.add(format!("{key}.{name}"), message);
            }
        }
        if self.client_id.as_ref().is_some_and(String::is_empty) {
            found.add(format!("{key}.client_id"), "expected a client identifier, or none at all");
        }
    }

    fn check_numbers(&self, key: &str, packet_bytes: u32, found: &mut Found) {
        found.range(&format!("{key}.max_inflight"), self.inflight(), 1, u16::MAX);
        found.range(&format!("{key}.receive_maximum"), self.receive_maximum, 1, u16::MAX);
        found.range(&format!("{key}.queue_messages"), self.queue_messages, 1, u64::MAX);
        let bytes = u64::from(packet_bytes);
        found.range(&format!("{key}.queue_bytes"), self.queue_bytes, bytes, u64::MAX);
        found.range(&format!("{key}.backoff_min_ms"), self.backoff_min_ms, 10, 3_600_000);
        let least = self.backoff_min_ms;
        found.range(&format!("{key}.backoff_max_ms"), self.backoff_max_ms, least, 86_400_000);
        found.range(&format!("{key}.idle_timeout_secs"), self.idle_timeout_secs, 1, 86_400);
        found.range(&format!("{key}.rate_per_sec"), self.rate_per_sec, 0, 1_000_000);
        if self.start == Start::Lazy && self.rule.iter().any(|rule| rule.direction.comes_in()) {
            let message = "a lazy link connects when it has something to send: nothing would come \
                           in before, so its rules have direction = \"out\"";
            found.add(format!("{key}.start"), message);
        }
    }
}

/// Whether some topic matches both filters.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            // It matches the level above it too.
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

/// What is wrong with all links together.
pub(super) fn check_all(bridges: &[BridgeSettings], packet_bytes: u32, found: &mut Found) {
    let mut names = HashSet::new();
    for (index, bridge) in bridges.iter().enumerate() {
        let key = format!("bridge[{index}]");
        bridge.check(&key, packet_bytes, found);
        if !bridge.name.is_empty() && !names.insert(&bridge.name) {
            found.add(format!("{key}.name"), format!("`{}` is taken already", bridge.name));
        }
    }
}
