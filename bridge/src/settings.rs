//! What a link is told: where the other broker is, as whom to connect, which topics pass and how.
//!
//! Plain values that are complete and checked by who brings them; [`Rule::check`] and
//! [`RemoteUrl`] say what can be wrong with the parts that have a syntax.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hoopoe_codec::{QoS, Version, check_filter};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How bytes travel to the other broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// MQTT on TCP.
    Mqtt,
    /// MQTT on TLS.
    Mqtts,
    /// MQTT on WebSocket.
    Ws,
    /// MQTT on WebSocket on TLS.
    Wss,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Mqtt => "mqtt",
            Scheme::Mqtts => "mqtts",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        }
    }

    /// Whether there is TLS below.
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Mqtts | Scheme::Wss)
    }

    /// Whether MQTT travels in WebSocket frames.
    pub fn is_websocket(self) -> bool {
        matches!(self, Scheme::Ws | Scheme::Wss)
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Mqtt => 1883,
            Scheme::Mqtts => 8883,
            Scheme::Ws => 80,
            Scheme::Wss => 443,
        }
    }
}

/// Why a text is no address of a broker.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` is no address of a broker: expected mqtt://, mqtts://, ws:// or wss:// and host:port"
)]
pub struct UrlError(String);

/// Where another broker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemoteUrl {
    /// The transport.
    pub scheme: Scheme,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path of a WebSocket; empty for the others.
    pub path: String,
}

impl FromStr for RemoteUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<RemoteUrl, UrlError> {
        let fault = || UrlError(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(fault)?;
        let scheme = match scheme {
            "mqtt" | "tcp" => Scheme::Mqtt,
            "mqtts" | "tls" => Scheme::Mqtts,
            "ws" => Scheme::Ws,
            "wss" => Scheme::Wss,
            _ => return Err(fault()),
        };
        let (address, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let path = match (scheme.is_websocket(), path) {
            (true, "") => "/mqtt",
            (false, "" | "/") => "",
            (true, path) => path,
            (false, _) => return Err(fault()),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(fault)?)
            }
            _ => (address, scheme.default_port()),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if bare.is_empty() || !bare.bytes().all(plain) || (bare == host && host.contains(':')) {
            return Err(fault());
        }
        Ok(RemoteUrl { scheme, host: bare.to_owned(), port, path: path.to_owned() })
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RemoteUrl { scheme, host, port, path } = self;
        let scheme = scheme.as_str();
        match host.contains(':') {
            true => write!(out, "{scheme}://[{host}]:{port}{path}"),
            false => write!(out, "{scheme}://{host}:{port}{path}"),
        }
    }
}

impl TryFrom<String> for RemoteUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<RemoteUrl, UrlError> {
        text.parse()
    }
}

impl From<RemoteUrl> for String {
    fn from(url: RemoteUrl) -> String {
        url.to_string()
    }
}

/// Which way messages go, as seen from the local broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the remote broker to the local one.
    In,
    /// From the local broker to the remote one.
    Out,
    /// Either way.
    Both,
}

impl Direction {
    /// Whether messages go out.
    pub fn goes_out(self) -> bool {
        self != Direction::In
    }

    /// Whether messages come in.
    pub fn comes_in(self) -> bool {
        self != Direction::Out
    }
}

/// When a link connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At once, and again whenever the connection is lost.
    Automatic,
    /// When something waits to be sent; the connection ends when nothing has for a while.
    Lazy,
    /// At once, and never again once the connection is lost.
    Once,
    /// When an operator says so.
    Manual,
}

/// Which topics pass, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A topic filter, without the prefixes.
    pub pattern: String,
    /// Which way.
    pub direction: Direction,
    /// The highest QoS.
    pub qos: QoS,
    /// What stands before the topic at the local broker.
    pub local_prefix: String,
    /// What stands before the topic at the remote broker.
    pub remote_prefix: String,
}

/// What is wrong with a rule; the first word names the key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{what}")]
pub struct RuleFault {
    /// The key.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub what: &'static str,
}

impl Rule {
    /// Whether the rule can be kept.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn check(&self) -> Result<(), RuleFault> {
        for (key, prefix) in
            [("local_prefix", &self.local_prefix), ("remote_prefix", &self.remote_prefix)]
        {
            if prefix.contains(['+', '#', '\0']) {
                return Err(RuleFault { key, what: "a prefix has no wildcards" });
            }
            let filter = format!("{prefix}{}", self.pattern);
            if self.pattern.is_empty() || check_filter(&filter).is_err() {
                let what = "prefix and pattern make no topic filter";
                return Err(RuleFault { key: "pattern", what });
            }
        }
        if self.pattern.starts_with("$share/") || self.local_prefix.starts_with("$share/") {
            let what = "a link shares no subscription";
            return Err(RuleFault { key: "pattern", what });
        }
        let local = format!("{}{}", self.local_prefix, self.pattern);
        if self.direction.comes_in() && local.starts_with('$') {
            let what = "topics that begin with $ are the broker's: nothing comes in there";
            return Err(RuleFault { key: "pattern", what });
        }
        if local == "im" || local.starts_with("im/") {
            let what = "im/ belongs to the messaging profile, which links of kind \"mqtt\" leave \
                        alone";
            return Err(RuleFault { key: "pattern", what });
        }
        Ok(())
    }
}

/// Everything a link is told.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Its name, in logs and metrics.
    pub name: String,
    /// Where the remote broker is.
    pub url: RemoteUrl,
    /// What is spoken there.
    pub version: Version,
    /// As whom the link connects there.
    pub client_id: String,
    /// User name there.
    pub username: Option<String>,
    /// Password there.
    pub password: Option<Vec<u8>>,
    /// For `mqtts` and `wss`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Longest silence towards the remote broker; 0 is any.
    pub keep_alive_secs: u16,
    /// Whether the remote broker forgets the link whenever its connection ends.
    pub clean: bool,
    /// How long the remote broker remembers an absent link.
    pub session_expiry_secs: u32,
    /// When to connect.
    pub start: Start,
    /// A lazy link without work ends its connection after so long.
    pub idle_timeout: Duration,
    /// First pause after a failed connection.
    pub backoff_min: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// Messages on their way out, at most.
    pub max_inflight: u16,
    /// Messages on their way in, at most.
    pub receive_maximum: u16,
    /// Messages per second in each direction; 0 is no limit.
    pub rate_per_sec: u32,
    /// Whether the RETAIN flag passes, and what is retained with it.
    pub retained: bool,
    /// Tell a 3.1.1 broker that a bridge connects (0x80 in the protocol level).
    pub bridge_bit: bool,
    /// Topic level below which a 3.1.1 link keeps the brokers a message has passed.
    pub hop_prefix: Option<String>,
    /// Links that a message may have passed before this one.
    pub max_hops: u16,
    /// The local broker's id.
    pub broker_id: String,
    /// The largest packet of either broker, in bytes.
    pub max_packet_bytes: u32,
    /// What passes.
    pub rules: Vec<Rule>,
}

impl LinkSettings {
    /// The highest QoS of any rule.
    pub fn highest_qos(&self) -> QoS {
        self.rules.iter().map(|rule| rule.qos).max().unwrap_or(QoS::AtMostOnce)
    }

    /// The client id of the link at the local broker.
    pub fn local_client_id(&self) -> String {
        local_client_id(&self.name)
    }
}

/// What client ids of links at the local broker begin with; nobody else may have such a one.
pub const LOCAL_PREFIX: &str = "$bridge/";

/// The client id of the link of that name at the local broker.
pub fn local_client_id(name: &str) -> String {
    format!("{LOCAL_PREFIX}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_back() {
        for (text, written) in [
            ("mqtt://broker.example", "mqtt://broker.example:1883"),
            ("tcp://10.0.0.1:7", "mqtt://10.0.0.1:7"),
            ("mqtts://[::1]", "mqtts://[::1]:8883"),
            ("ws://a:1/x", "ws://a:1/x"),
            ("wss://a", "wss://a:443/mqtt"),
        ] {
            let url: RemoteUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!(written.parse::<RemoteUrl>().unwrap(), url);
        }
        for text in ["a:1", "http://a", "mqtt://", "mqtt://a:x", "mqtt://::1:1", "mqtt://a:1/x"] {
            assert!(text.parse::<RemoteUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn rules_that_cannot_be_kept_name_the_key() {
        let rule = |pattern: &str, local: &str, remote: &str| Rule {
            pattern: pattern.to_owned(),
            direction: Direction::Both,
            qos: QoS::AtLeastOnce,
            local_prefix: local.to_owned(),
            remote_prefix: remote.to_owned(),
        };
        for (case, key) in [
            (rule("#", "", ""), None),
            (rule("a/+", "x/", "y/z/"), None),
            (rule("", "", ""), Some("pattern")),
            (rule("a#", "", ""), Some("pattern")),
            (rule("a", "+/", ""), Some("local_prefix")),
            (rule("a", "", "#"), Some("remote_prefix")),
            (rule("$share/g/a", "", ""), Some("pattern")),
            (rule("$SYS/#", "", ""), Some("pattern")),
            (rule("im/#", "", ""), Some("pattern")),
        ] {
            assert_eq!(case.check().err().map(|fault| fault.key), key, "{case:?}");
        }
    }
}
