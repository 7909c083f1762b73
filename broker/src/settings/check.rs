//! Contradictions and impossible values that the types of the settings let through.
//!
//! [`Settings::validate`] finds all of them at once, so that nobody repairs a file one start at a
//! time. It looks at the settings alone: no file they name is opened.

use std::collections::HashMap;

use super::bridge::check_all;
use super::{Durability, HttpAddress, Listener, ProxyProtocol, Scheme, Settings};

/// The largest packet MQTT can express: a remaining length of four bytes and the fixed header.
const PACKET_BYTES_MAX: u32 = 268_435_455 + 5;
/// Below this, a CONNECT with a will and a password would already be refused.
const PACKET_BYTES_MIN: u32 = 256;
/// A client identifier of 23 bytes must be accepted ([MQTT-3.1.3-5]).
const CLIENT_ID_BYTES_MIN: u16 = 23;
/// A shorter token could be guessed.
pub const ADMIN_TOKEN_BYTES_MIN: usize = 16;
/// More threads than this are a mistyped number.
const THREADS_MAX: u16 = 256;

/// One thing that is wrong, and with which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, with the place of a listener in its list: `listener[0].tls.cert`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// The problems found so far.
#[derive(Default)]
pub(super) struct Found(Vec<Problem>);

impl Found {
    pub(super) fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { key: key.into(), message: message.into() });
    }

    pub(super) fn range<T: PartialOrd + std::fmt::Display>(
        &mut self,
        key: &str,
        value: T,
        min: T,
        max: T,
    ) {
        if value < min || value > max {
            self.add(key, format!("{value} is out of range: expected {min} to {max}"));
        }
    }
}

impl Settings {
    /// Everything that is wrong with the settings; empty when a broker can start on them.
    pub fn validate(&self) -> Vec<Problem> {
        let mut found = Found::default();
        self.check_broker(&mut found);
        self.check_mqtt(&mut found);
        self.check_room_for_packets(&mut found);
        self.check_access(&mut found);
        self.check_addresses(&mut found);
        self.check_http(&mut found);
        self.check_im(&mut found);
        for (index, listener) in self.listener.iter().enumerate() {
            self.check_listener(&format!("listener[{index}]"), listener, &mut found);
        }
        check_all(&self.bridge, self.mqtt.max_packet_bytes, &mut found);
        self.im.site.check_links(&self.bridge, &mut found);
        found.0
    }

    /// What is allowed and yet probably not meant, one sentence each: for the log at the start.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.users_configured() && self.access.rules_file.is_none() {
            notes.push(
                "access.users_file is set and access.rules_file is not: with users, whatever no \
                 rule allows is denied, so nobody may publish or subscribe outside im/"
                    .to_owned(),
            );
        }
        for listener in &self.listener {
            let url = &listener.url;
            if !listener.is_local() && self.door(listener).anonymous {
                notes.push(format!("{url} lets clients in from other machines without a login"));
            }
            let open = !listener.is_local() && !url.scheme.is_tls();
            if open && listener.proxy_protocol == ProxyProtocol::Off && self.users_configured() {
                notes.push(format!("{url} carries passwords unencrypted over the network"));
            }
        }
        notes
    }

    fn check_broker(&self, found: &mut Found) {
        let broker = &self.broker;
        if broker.name.is_empty() || broker.name.chars().any(char::is_control) {
            found.add("broker.name", "expected a name of printable characters");
        }
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if let Some(id) = &broker.id
            && (id.is_empty() || id.len() > 64 || !id.bytes().all(is_word))
        {
            found.add("broker.id", "expected 1 to 64 of A-Z a-z 0-9 - _ .");
        }
        if broker.data_dir.as_os_str().is_empty() && broker.durability != Durability::Memory {
            found.add(
                "broker.data_dir",
                "no folder to store in: name one, or set broker.durability = \"memory\"",
            );
        }
        if broker.data_dir.to_str().is_none() {
            found.add("broker.data_dir", "expected a path in UTF-8");
        }
        found.range("broker.workers", broker.workers, 0, THREADS_MAX);
        found.range("broker.shards", broker.shards, 0, THREADS_MAX);
        found.range("access.hash_threads", self.access.hash_threads, 1, THREADS_MAX);
        found.range("access.hash_queue", self.access.hash_queue, 1, 1_000_000);
        found.range("access.login_cache", self.access.login_cache, 0, 10_000_000);
        found.range("limits.burst_secs", self.limits.burst_secs, 1, 3600);
    }

    fn check_mqtt(&self, found: &mut Found) {
        let mqtt = &self.mqtt;
        let bytes = mqtt.max_packet_bytes;
        found.range("mqtt.max_packet_bytes", bytes, PACKET_BYTES_MIN, PACKET_BYTES_MAX);
        if mqtt.max_qos > 2 {
            found.add("mqtt.max_qos", format!("{} is no QoS: expected 0, 1 or 2", mqtt.max_qos));
        }
        // Zero would be a protocol error in CONNACK (MQTT 5, 3.2.2.3.3).
        found.range("mqtt.receive_maximum", mqtt.receive_maximum, 1, u16::MAX);
        found.range("mqtt.inflight_v311", mqtt.inflight_v311, 1, u16::MAX);
        found.range("mqtt.inflight_v5_max", mqtt.inflight_v5_max, 1, u16::MAX);
        found.range("mqtt.max_topic_levels", mqtt.max_topic_levels, 1, u16::MAX);
        found.range("mqtt.max_topic_bytes", mqtt.max_topic_bytes, 1, u16::MAX);
        let id_bytes = mqtt.max_client_id_bytes;
        found.range("mqtt.max_client_id_bytes", id_bytes, CLIENT_ID_BYTES_MIN, u16::MAX);
        found.range("mqtt.max_subscriptions", mqtt.max_subscriptions, 1, u32::MAX);
        if mqtt.retain_available && mqtt.max_retained == 0 {
            found.add(
                "mqtt.max_retained",
                "0 keeps no retained message: set mqtt.retain_available = false instead",
            );
        }
        found.range("queue.max_messages", self.queue.max_messages, 1, u64::MAX);
    }

    /// A packet that is accepted must fit where it has to wait.
    fn check_room_for_packets(&self, found: &mut Found) {
        let packet_bytes = |listener| self.client_limits(listener).max_packet_bytes;
        let largest = self.listener.iter().map(packet_bytes).max().unwrap_or(0);
        let largest = largest.max(self.mqtt.max_packet_bytes);
        for (key, bytes) in [
            ("queue.max_bytes", self.queue.max_bytes),
            ("limits.write_buffer_bytes", u64::from(self.limits.write_buffer_bytes)),
        ] {
            if bytes < u64::from(largest) {
                found.add(
                    key,
                    format!(
                        "{bytes} cannot hold one packet of {largest} bytes, which \
                    max_packet_bytes allows"
                    ),
                );
            }
        }
    }

    fn check_http(&self, found: &mut Found) {
        let http = &self.http;
        if http.admin_token.is_some() && http.admin_token_file.is_some() {
            found.add("http.admin_token_file", "http.admin_token is set as well: expected one");
        }
        if let Some(token) = &http.admin_token
            && token.reveal().len() < ADMIN_TOKEN_BYTES_MIN
        {
            let message = format!("expected at least {ADMIN_TOKEN_BYTES_MIN} characters");
            found.add("http.admin_token", message);
        }
        if http.requests_per_sec > 0 {
            found.range("http.request_burst", http.request_burst, 1, u32::MAX);
        }
        check_origin_list("http", &http.origins, found);
    }

    fn check_im(&self, found: &mut Found) {
        let im = &self.im;
        for (key, value) in [
            ("im.devices_per_user", im.devices_per_user),
            ("im.payload_max_bytes", im.payload_max_bytes),
            ("im.sends_per_sec", im.sends_per_sec),
            ("im.send_burst", im.send_burst),
            ("im.big_group_per_sec", im.big_group_per_sec),
        ] {
            found.range(key, value, 1, u32::MAX);
        }
        if im.small_group_members > im.group_members_max {
            let most = im.group_members_max;
            let message = format!("more than im.group_members_max, which is {most}");
            found.add("im.small_group_members", message);
        }
        let (sweep, day) = (im.sweep_interval_secs, 24 * 3600);
        found.range("im.sweep_interval_secs", sweep, 1, day);
        let session = u64::from(self.mqtt.session_expiry_max_secs);
        if im.device_keep_secs > 0 && im.device_keep_secs < session {
            let message = format!("less than mqtt.session_expiry_max_secs, which is {session}");
            found.add("im.device_keep_secs", message);
        }
        found.range("im.overload.commit_lag_ms", im.overload.commit_lag_ms, 1, 3_600_000);
        let order = &im.overload.shed_at_percent;
        if order[0] == 0 || order.windows(2).any(|pair| pair[0] > pair[1]) {
            let message = "percents from 1 on, none less than the one before".to_owned();
            found.add("im.overload.shed_at_percent", message);
        }
        for (at, tenant) in im.tenant.iter().enumerate() {
            let key = |name: &str| format!("im.tenant[{at}].{name}");
            let again = im.tenant[..at].iter().any(|before| before.name == tenant.name);
            if again || !hoopoe_im::id::is_id(&tenant.name) {
                found.add(key("name"), "expected the name of a tenant, once");
            }
            let devices = tenant.devices_per_user.unwrap_or(im.devices_per_user);
            found.range(&key("devices_per_user"), devices, 1, u32::MAX);
        }
        for (key, message) in im.site.faults() {
            found.add(key, message);
        }
        found.range("im.hook.timeout_ms", im.hook.timeout_ms, 1, 60_000);
        found.range("im.hook.connections", im.hook.connections, 1, THREADS_MAX);
        for (key, url) in [("im.hook.url", &im.hook.url), ("im.push.url", &im.push.url)] {
            let Some(url) = url else { continue };
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            let named = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
            if !named || url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
                found.add(
                    key,
                    format!("`{url}`: expected http://host:port/path or https://host:port/path"),
                );
            }
        }
        let push = &im.push;
        found.range("im.push.batch_max", push.batch_max, 1, 10_000);
        found.range("im.push.connections", push.connections, 1, THREADS_MAX);
        found.range("im.push.timeout_ms", push.timeout_ms, 1, 600_000);
        found.range("im.push.retry_first_ms", push.retry_first_ms, 1, 600_000);
        found.range("im.push.retry_max_secs", push.retry_max_secs, 1, 24 * 3600);
        found.range("im.push.attempts_max", push.attempts_max, 1, u32::MAX);
    }

    fn check_access(&self, found: &mut Found) {
        let enters = |listener: &Listener| {
            let door = self.door(listener);
            door.anonymous || door.development || names_users_by_certificate(listener)
        };
        let said_no = self.access.anonymous == Some(false);
        if said_no && !self.users_configured() && !self.listener.iter().any(enters) {
            found.add(
                "access.anonymous",
                "nobody could connect: anonymous clients are refused and there are no users; \
                 set access.users_file (hoopoe passwd writes it)",
            );
        }
    }

    /// Two listeners at one address: the second could not open.
    fn check_addresses(&self, found: &mut Found) {
        // A node of links alone has no clients of its own.
        if self.listener.is_empty() && self.bridge.is_empty() {
            found.add("listener", "no MQTT client could connect: expected at least one listener");
        }
        let mut taken = HashMap::new();
        if let HttpAddress::At(address) = &self.http.address {
            taken.insert(address, "http.address".to_owned());
        }
        for (index, listener) in self.listener.iter().enumerate() {
            let key = format!("listener[{index}].url");
            let address = &listener.url.address;
            // Port 0 is a different port each time.
            if address.port == 0 {
                continue;
            }
            if let Some(other) = taken.get(address) {
                found.add(key, format!("{address} is already taken by {other}"));
            } else {
                taken.insert(address, key);
            }
        }
    }

    fn check_listener(&self, key: &str, listener: &Listener, found: &mut Found) {
        let url = &listener.url;
        found.range(&format!("{key}.connect_timeout_secs"), listener.connect_timeout_secs, 1, 600);
        if let Some(bytes) = listener.limits.max_packet_bytes {
            let key = format!("{key}.limits.max_packet_bytes");
            found.range(&key, bytes, PACKET_BYTES_MIN, PACKET_BYTES_MAX);
        }
        for (name, zero) in [
            ("max_subscriptions", listener.limits.max_subscriptions == Some(0)),
            ("max_topic_levels", listener.limits.max_topic_levels == Some(0)),
            ("max_topic_bytes", listener.limits.max_topic_bytes == Some(0)),
        ] {
            if zero {
                found.add(format!("{key}.limits.{name}"), "0 is out of range: expected 1 or more");
            }
        }
        check_tls(key, listener, found);
        check_origins(key, listener, found);
        check_proxy(key, listener, found);
        let said = listener.anonymous.or(self.access.anonymous);
        let logins = self.users_configured() || names_users_by_certificate(listener);
        if said.is_none() && !logins && !listener.is_local() {
            let how = if url.address.is_loopback() { " through its proxy" } else { "" };
            found.add(
                format!("{key}.url"),
                format!(
                    "other machines reach {url}{how} and no users are configured: set \
                     access.users_file (hoopoe passwd writes it), or permit anonymous clients by \
                     the flag --anonymous or by `anonymous = true` in this listener or in [access]"
                ),
            );
        }
    }
}

/// Whether a client can log in there by its certificate.
fn names_users_by_certificate(listener: &Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.subject_as_user && tls.client_ca.is_some())
}

fn check_tls(key: &str, listener: &Listener, found: &mut Found) {
    let url = &listener.url;
    let Some(tls) = &listener.tls else {
        if url.scheme.is_tls() {
            found.add(
                format!("{key}.tls"),
                format!("{url} needs a certificate: expected tls = {{ cert = …, key = … }}"),
            );
        }
        return;
    };
    if !url.scheme.is_tls() {
        let with = if url.scheme == Scheme::Ws { "wss" } else { "tls" };
        let message = format!("{url} does not encrypt: write {with}://, or take the table out");
        found.add(format!("{key}.tls"), message);
    }
    for (name, set) in
        [("require_client_cert", tls.require_client_cert), ("subject_as_user", tls.subject_as_user)]
    {
        if set && tls.client_ca.is_none() {
            let message = "client certificates cannot be checked without tls.client_ca";
            found.add(format!("{key}.tls.{name}"), message);
        }
    }
}

fn check_origins(key: &str, listener: &Listener, found: &mut Found) {
    if !listener.origins.is_empty() && !listener.url.scheme.is_websocket() {
        found.add(
            format!("{key}.origins"),
            format!("only web pages have an origin, and {} is no WebSocket", listener.url),
        );
    }
    check_origin_list(key, &listener.origins, found);
}

fn check_origin_list(key: &str, origins: &[String], found: &mut Found) {
    for (index, origin) in origins.iter().enumerate() {
        let host = origin.split_once("://").map(|(_, host)| host);
        let is_page = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
        if !is_page && origin != "*" && origin != "null" {
            found.add(
                format!("{key}.origins[{index}]"),
                format!("`{origin}` is no origin: expected https://host[:port], \"null\" or \"*\""),
            );
        }
    }
}

fn check_proxy(key: &str, listener: &Listener, found: &mut Found) {
    let expects_header = listener.proxy_protocol == ProxyProtocol::On;
    let trusts = !listener.trusted_proxies.is_empty();
    if expects_header && !trusts {
        found.add(
            format!("{key}.trusted_proxies"),
            "proxy_protocol lets its peers speak for any address: name the proxies, for example \
             trusted_proxies = [\"127.0.0.1\"]",
        );
    }
    if trusts && !expects_header {
        found.add(
            format!("{key}.proxy_protocol"),
            "trusted_proxies has no effect while this is \"off\": expected \"on\"",
        );
    }
}
