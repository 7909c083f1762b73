//! The settings of a broker: what they are, what they default to, where they come from.
//!
//! A value is taken from the defaults, then the file, then the environment, then the flags; the
//! last one wins. The result is checked as a whole before anything else starts.
//! `config/hoopoe.toml` is the manual of every key and a test holds it equal to the defaults here.
//!
//! Not here: what the settings do. Nothing in this folder opens a socket, and nothing reads the
//! certificates, users or rules the settings name.

mod address;
mod bridge;
mod check;
mod error;
mod im;
mod listener;
mod load;
mod network;
mod places;
mod push;
mod reload;
mod secret;
mod sections;
mod site;

pub use address::{AddressError, Host, HostPort, HttpAddress, ListenerUrl, Scheme};
pub use bridge::{BridgeKind, BridgeRule, BridgeSettings, Protocol};
pub use check::{ADMIN_TOKEN_BYTES_MIN, Problem};
pub use error::{LocatedProblem, SettingsError};
pub use im::{
    ContactWord, DeviceWord, HookSettings, ImSection, OnFailure, OverloadSection,
    RetentionSettings, RoomsSection, TenantSection,
};
pub use listener::{
    ClientLimits, Door, Listener, ListenerLimits, ProxyProtocol, TlsSettings, is_local_origin,
};
pub use load::{Flags, SettingsSource};
pub use network::Network;
pub use push::PushSettings;
pub use reload::Changes;
pub use secret::Secret;
pub use sections::{
    AccessSettings, BrokerSettings, Durability, HttpSettings, LimitSettings, LogFormat, LogLevel,
    LogSettings, MqttSettings, QueuePolicy, QueueSettings,
};
pub use site::{SiteHome, SiteLink, SiteSection, WhenDownWord};

use serde::{Deserialize, Serialize};

/// Everything a broker can be told, complete: what nobody set holds its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The process: where it stores, how durably, with how many threads.
    pub broker: BrokerSettings,
    /// The HTTP listener for health, metrics and administration.
    pub http: HttpSettings,
    /// What MQTT clients are told about the server and held to.
    pub mqtt: MqttSettings,
    /// The queues of sessions that are away or slow.
    pub queue: QueueSettings,
    /// What one client, or all together, may use up.
    pub limits: LimitSettings,
    /// Who may connect and what they may do.
    pub access: AccessSettings,
    /// What is logged and how.
    pub log: LogSettings,
    /// The IM profile.
    pub im: ImSection,
    /// Where MQTT clients connect; one table per address.
    pub listener: Vec<Listener>,
    /// Links to other brokers; one table each.
    pub bridge: Vec<BridgeSettings>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            broker: BrokerSettings::default(),
            http: HttpSettings::default(),
            mqtt: MqttSettings::default(),
            queue: QueueSettings::default(),
            limits: LimitSettings::default(),
            access: AccessSettings::default(),
            log: LogSettings::default(),
            im: ImSection::default(),
            listener: vec![
                Listener::at(ListenerUrl::loopback(Scheme::Tcp, 1883)),
                Listener::at(ListenerUrl::loopback(Scheme::Ws, 8083)),
            ],
            bridge: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether logins are checked against a users file. An empty file counts: it lets nobody in.
    pub fn users_configured(&self) -> bool {
        self.access.users_file.is_some()
    }

    /// The settings as TOML, complete but for secrets, which are named and not shown. Keys and
    /// password hashes are named by the path of their file.
    ///
    /// # Errors
    /// When a value cannot be written as TOML: a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let mut shown = self.clone();
        let im = &mut shown.im;
        let passwords = shown.bridge.iter_mut().map(|bridge| &mut bridge.password);
        let fixed = [&mut shown.http.admin_token, &mut im.hook.token, &mut im.push.secret];
        for secret in fixed.into_iter().chain(passwords) {
            if secret.is_some() {
                *secret = Some(Secret::hidden());
            }
        }
        toml::to_string_pretty(&shown)
    }
}

#[cfg(test)]
mod tests;
