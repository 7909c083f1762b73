//! What of changed settings a running broker takes up, and what waits for a restart.

use std::collections::BTreeMap;

use toml::Value;

use super::Settings;

/// Keys that take effect on SIGHUP; one that ends in a dot stands for all keys below it. Limits
/// that CONNACK announces hold for connections made after it. What sizes a thread, a buffer or the
/// store, and where the broker listens, is fixed while it runs.
const RELOADABLE: [&str; 21] = [
    "log.level",
    "limits.",
    "access.users_file",
    "access.rules_file",
    "access.anonymous",
    "mqtt.max_packet_bytes",
    "mqtt.max_qos",
    "mqtt.keep_alive_max_secs",
    "mqtt.session_expiry_max_secs",
    "mqtt.receive_maximum",
    "mqtt.topic_alias_max",
    "mqtt.max_topic_levels",
    "mqtt.max_topic_bytes",
    "mqtt.max_client_id_bytes",
    "mqtt.max_subscriptions",
    "listener.anonymous",
    "listener.max_connections",
    "listener.connect_timeout_secs",
    "listener.origins",
    "listener.limits.",
    "listener.tls.",
];

/// The keys that differ between two sets of settings, in order. A key of a listener is followed
/// by the listener it belongs to: `listener.im of tcp://127.0.0.1:1883`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Taken up by the running broker.
    pub reloadable: Vec<String>,
    /// Left as they were until the next start.
    pub needs_restart: Vec<String>,
}

impl Changes {
    fn add(&mut self, key: &str, whose: &str) {
        let reloads = |entry: &str| {
            if entry.ends_with('.') { key.starts_with(entry) } else { key == entry }
        };
        let list = if RELOADABLE.into_iter().any(reloads) {
            &mut self.reloadable
        } else {
            &mut self.needs_restart
        };
        list.push(format!("{key}{whose}"));
    }
}

impl Settings {
    /// What changed from `old` to `new`. Files that keep their name and change their content
    /// (certificates, users, rules) do not show here: they are read again on every reload.
    pub fn diff_reload(old: &Settings, new: &Settings) -> Changes {
        let mut changes = Changes::default();
        let without_listeners = |settings: &Settings| {
            let mut bare = settings.clone();
            bare.listener.clear();
            keys_of(&bare)
        };
        compare("", "", &without_listeners(old), &without_listeners(new), &mut changes);

        let by_url = |settings: &Settings| -> BTreeMap<String, BTreeMap<String, Value>> {
            let listeners = settings.listener.iter();
            listeners.map(|listener| (listener.url.to_string(), keys_of(listener))).collect()
        };
        let (before, after) = (by_url(old), by_url(new));
        for (url, keys) in &before {
            match after.get(url) {
                Some(new) => compare("listener.", &format!(" of {url}"), keys, new, &mut changes),
                None => changes.needs_restart.push(format!("listener {url} removed")),
            }
        }
        let added = after.keys().filter(|url| !before.contains_key(*url));
        changes.needs_restart.extend(added.map(|url| format!("listener {url} added")));
        changes
    }

    /// The settings a running broker goes on with: `new` where it can be taken up, `self` where a
    /// restart is needed.
    #[must_use]
    pub fn reloaded(&self, new: &Settings) -> Settings {
        let mut next = self.clone();
        next.log.level = new.log.level;
        next.limits = new.limits.clone();
        next.access.users_file.clone_from(&new.access.users_file);
        next.access.rules_file.clone_from(&new.access.rules_file);
        next.access.anonymous = new.access.anonymous;
        let (mqtt, taken) = (&mut next.mqtt, &new.mqtt);
        mqtt.max_packet_bytes = taken.max_packet_bytes;
        mqtt.max_qos = taken.max_qos;
        mqtt.keep_alive_max_secs = taken.keep_alive_max_secs;
        mqtt.session_expiry_max_secs = taken.session_expiry_max_secs;
        mqtt.receive_maximum = taken.receive_maximum;
        mqtt.topic_alias_max = taken.topic_alias_max;
        mqtt.max_topic_levels = taken.max_topic_levels;
        mqtt.max_topic_bytes = taken.max_topic_bytes;
        mqtt.max_client_id_bytes = taken.max_client_id_bytes;
        mqtt.max_subscriptions = taken.max_subscriptions;
        for listener in &mut next.listener {
            let same = |other: &&super::Listener| other.url == listener.url;
            let Some(new) = new.listener.iter().find(same) else { continue };
            listener.anonymous = new.anonymous;
            listener.max_connections = new.max_connections;
            listener.connect_timeout_secs = new.connect_timeout_secs;
            listener.origins.clone_from(&new.origins);
            listener.limits = new.limits.clone();
            listener.tls.clone_from(&new.tls);
        }
        next
    }
}

fn compare(
    prefix: &str,
    whose: &str,
    old: &BTreeMap<String, Value>,
    new: &BTreeMap<String, Value>,
    changes: &mut Changes,
) {
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        if old.get(key) != new.get(key) {
            changes.add(&format!("{prefix}{key}"), whose);
        }
    }
}

/// Every key with its value; a key that is not set is not there.
fn keys_of(settings: &impl serde::Serialize) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    // Only a path that is not UTF-8 could fail here, and `validate` lets none through.
    if let Ok(Value::Table(table)) = Value::try_from(settings) {
        flatten("", table, &mut keys);
    }
    keys
}

fn flatten(prefix: &str, table: toml::Table, keys: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        match value {
            Value::Table(inner) => flatten(&format!("{prefix}{name}."), inner, keys),
            value => {
                keys.insert(format!("{prefix}{name}"), value);
            }
        }
    }
}
