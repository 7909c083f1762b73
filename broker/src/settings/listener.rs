//! One MQTT listener: its address, its transport, whom it lets in, what its clients may use.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ListenerUrl, Network, Settings};

/// Whether a load balancer puts a PROXY protocol header before the client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    /// It does not: the peer is the client.
    Off,
    /// It does, in version 1 or 2: a connection without a header is closed.
    On,
}

/// Certificates of a `tls://` or `wss://` listener. All files are PEM and read again on SIGHUP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The server's certificate, followed by those between it and the root.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities that sign client certificates; none: clients are not asked for one.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    #[serde(default)]
    pub require_client_cert: bool,
    /// Whether the common name of a client's certificate is its user, without a password.
    #[serde(default)]
    pub subject_as_user: bool,
}

/// Limits of one listener's clients where they differ from `[mqtt]` and `[limits]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerLimits {
    /// In place of `mqtt.max_packet_bytes`.
    pub max_packet_bytes: Option<u32>,
    /// In place of `mqtt.max_subscriptions`.
    pub max_subscriptions: Option<u32>,
    /// In place of `mqtt.max_topic_levels`.
    pub max_topic_levels: Option<u16>,
    /// In place of `mqtt.max_topic_bytes`.
    pub max_topic_bytes: Option<u16>,
    /// In place of `limits.connects_per_address_per_sec`.
    pub connects_per_address_per_sec: Option<u32>,
    /// In place of `limits.publishes_per_client_per_sec`.
    pub publishes_per_client_per_sec: Option<u32>,
    /// In place of `limits.publish_bytes_per_client_per_sec`.
    pub publish_bytes_per_client_per_sec: Option<u32>,
}

/// `[[listener]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Where, and by which transport.
    pub url: ListenerUrl,
    /// Whether users of this listener may use the `im/` tree.
    #[serde(default = "yes")]
    pub im: bool,
    /// In place of `access.anonymous`.
    #[serde(default)]
    pub anonymous: Option<bool>,
    /// Whether the trusted proxies send a PROXY protocol header, which is then required.
    #[serde(default = "no_proxy")]
    pub proxy_protocol: ProxyProtocol,
    /// Who may connect, and speak for others, when a PROXY protocol header is expected.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Connections of this listener; 0 is no limit of its own.
    #[serde(default)]
    pub max_connections: u32,
    /// How long a new connection may take to complete its handshakes and its CONNECT.
    #[serde(default = "connect_timeout_secs")]
    pub connect_timeout_secs: u16,
    /// The web pages that may connect; empty: with a listener that only this
    /// machine reaches, pages served by this machine; elsewhere all, since MQTT has no cookies a
    /// page could borrow.
    #[serde(default)]
    pub origins: Vec<String>,
    /// Where this listener's limits differ.
    #[serde(default)]
    pub limits: ListenerLimits,
    /// The certificates.
    #[serde(default)]
    pub tls: Option<TlsSettings>,
}

fn yes() -> bool {
    true
}

fn no_proxy() -> ProxyProtocol {
    ProxyProtocol::Off
}

fn connect_timeout_secs() -> u16 {
    10
}

/// Whom a listener lets in without a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// Clients without a user name.
    pub anonymous: bool,
    /// Development mode (ruling 19): whoever names a user is that user.
    pub development: bool,
}

/// What one client may use, its listener's own limits applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Bytes of a packet from the client.
    pub max_packet_bytes: u32,
    /// Subscriptions of its session.
    pub max_subscriptions: u32,
    /// Levels in a topic or filter.
    pub max_topic_levels: u16,
    /// Bytes in a topic or filter.
    pub max_topic_bytes: u16,
    /// Connections per second from its address; 0 is no limit.
    pub connects_per_address_per_sec: u32,
    /// Publications per second; 0 is no limit.
    pub publishes_per_sec: u32,
    /// Bytes of PUBLISH packets per second; 0 is no limit.
    pub publish_bytes_per_sec: u32,
    /// Seconds' worth of a rate that may be used at once.
    pub burst_secs: u16,
}

impl Listener {
    /// A listener with the defaults of everything but its URL.
    pub fn at(url: ListenerUrl) -> Listener {
        Listener {
            url,
            im: yes(),
            anonymous: None,
            proxy_protocol: no_proxy(),
            trusted_proxies: Vec::new(),
            max_connections: 0,
            connect_timeout_secs: connect_timeout_secs(),
            origins: Vec::new(),
            limits: ListenerLimits::default(),
            tls: None,
        }
    }

    /// Whether only clients on this machine reach the listener. Behind a proxy it does not matter
    /// where the listener is: the proxy's clients come from anywhere.
    pub fn is_local(&self) -> bool {
        self.url.address.is_loopback() && self.proxy_protocol == ProxyProtocol::Off
    }
}

/// Whether the page came from a server on this machine, `http://localhost:3000` for example.
pub fn is_local_origin(origin: &str) -> bool {
    let Some((_, rest)) = origin.split_once("://") else { return false };
    let host = match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => rest.split(':').next().unwrap_or(""),
    };
    let is_loopback_ip = |ip: std::net::IpAddr| ip.is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback_ip)
}

impl Settings {
    /// Whom this listener lets in without a password. To be asked for every CONNECT anew, of the
    /// settings that hold at that moment.
    pub fn door(&self, listener: &Listener) -> Door {
        let unguarded = listener.is_local() && !self.users_configured();
        let said = listener.anonymous.or(self.access.anonymous);
        Door { anonymous: said.unwrap_or(unguarded), development: unguarded && said != Some(false) }
    }

    /// What a client of this listener may use.
    pub fn client_limits(&self, listener: &Listener) -> ClientLimits {
        let (own, mqtt, limits) = (&listener.limits, &self.mqtt, &self.limits);
        ClientLimits {
            max_packet_bytes: own.max_packet_bytes.unwrap_or(mqtt.max_packet_bytes),
            max_subscriptions: own.max_subscriptions.unwrap_or(mqtt.max_subscriptions),
            max_topic_levels: own.max_topic_levels.unwrap_or(mqtt.max_topic_levels),
            max_topic_bytes: own.max_topic_bytes.unwrap_or(mqtt.max_topic_bytes),
            connects_per_address_per_sec: own
                .connects_per_address_per_sec
                .unwrap_or(limits.connects_per_address_per_sec),
            publishes_per_sec: own
                .publishes_per_client_per_sec
                .unwrap_or(limits.publishes_per_client_per_sec),
            publish_bytes_per_sec: own
                .publish_bytes_per_client_per_sec
                .unwrap_or(limits.publish_bytes_per_client_per_sec),
            burst_secs: limits.burst_secs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(url: &str) -> Listener {
        Listener::at(url.parse().unwrap())
    }

    #[test]
    fn the_door_is_open_only_where_it_is_safe_or_asked_for() {
        let (none, yes, no) = (None, Some(true), Some(false));
        let (local, network) = ("tcp://127.0.0.1:1", "tcp://0.0.0.0:1");
        // url, users configured, access.anonymous, listener.anonymous → anonymous, development
        let cases = [
            (local, false, none, none, true, true),
            (local, true, none, none, false, false),
            (local, true, yes, none, true, false),
            (local, false, no, none, false, false),
            (local, false, no, yes, true, true),
            (local, false, yes, no, false, false),
            (network, false, none, none, false, false),
            (network, false, yes, none, true, false),
            (network, false, none, yes, true, false),
            (network, true, none, none, false, false),
        ];
        for (url, users, access, own, anonymous, development) in cases {
            let mut settings = Settings::default();
            settings.access.users_file = users.then(|| "users".into());
            settings.access.anonymous = access;
            let mut listener = listener(url);
            listener.anonymous = own;
            let expected = Door { anonymous, development };
            assert_eq!(settings.door(&listener), expected, "{url} {users} {access:?} {own:?}");
        }
    }

    #[test]
    fn a_proxied_loopback_listener_is_not_local() {
        let mut listener = listener("tcp://127.0.0.1:1");
        listener.proxy_protocol = ProxyProtocol::On;
        let door = Settings::default().door(&listener);
        assert_eq!(door, Door { anonymous: false, development: false });
    }

    #[test]
    fn pages_of_this_machine_are_told_from_others() {
        let cases = [
            ("http://localhost:3000", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:80", true),
            ("https://evil.example", false),
            ("https://localhost.evil.example", false),
            ("https://127.0.0.1.evil.example", false),
            ("null", false),
        ];
        for (origin, local) in cases {
            assert_eq!(is_local_origin(origin), local, "{origin:?}");
        }
    }

    #[test]
    fn a_listener_may_have_limits_of_its_own() {
        let mut settings = Settings::default();
        settings.limits.publishes_per_client_per_sec = 7;
        let mut listener = listener("tcp://127.0.0.1:1");
        listener.limits.max_packet_bytes = Some(4096);
        let limits = settings.client_limits(&listener);
        assert_eq!(limits.max_packet_bytes, 4096);
        assert_eq!(limits.publishes_per_sec, 7);
        assert_eq!(limits.max_subscriptions, settings.mqtt.max_subscriptions);
    }
}
