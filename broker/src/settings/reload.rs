//! What of changed settings a running broker takes up, and what waits for a restart.

use std::collections::BTreeMap;

use toml::Value;

use super::{LimitSettings, Listener, ListenerLimits, MqttSettings, Settings};

/// Keys that take effect on SIGHUP; one that ends in a dot stands for all keys below it, unless
/// [`FIXED`] names them. What bounds or describes a client holds for connections accepted from then
/// on. What sizes a thread or the store, and where and how the broker listens, is fixed while it
/// runs. What `node::reload` carries out and what is said here must be the same.
const RELOADABLE: [&str; 8] = [
    "log.level",
    "mqtt.",
    "limits.",
    "access.users_file",
    "access.rules_file",
    "access.anonymous",
    "listener.anonymous",
    "listener.limits.",
];

/// Keys among those that belong to a thread or to an open listener all the same.
const FIXED: [&str; 5] = [
    "mqtt.max_retained",
    "mqtt.sys_interval_secs",
    "limits.max_connections",
    "limits.connects_per_address_per_sec",
    "listener.limits.connects_per_address_per_sec",
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
        let list = if RELOADABLE.into_iter().any(reloads) && !FIXED.contains(&key) {
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
        next.access.users_file.clone_from(&new.access.users_file);
        next.access.rules_file.clone_from(&new.access.rules_file);
        next.access.anonymous = new.access.anonymous;
        next.mqtt = MqttSettings {
            max_retained: self.mqtt.max_retained,
            sys_interval_secs: self.mqtt.sys_interval_secs,
            ..new.mqtt.clone()
        };
        next.limits = LimitSettings {
            max_connections: self.limits.max_connections,
            connects_per_address_per_sec: self.limits.connects_per_address_per_sec,
            ..new.limits.clone()
        };
        for listener in &mut next.listener {
            let same = |other: &&Listener| other.url == listener.url;
            let Some(new) = new.listener.iter().find(same) else { continue };
            listener.anonymous = new.anonymous;
            listener.limits = ListenerLimits {
                connects_per_address_per_sec: listener.limits.connects_per_address_per_sec,
                ..new.limits.clone()
            };
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
