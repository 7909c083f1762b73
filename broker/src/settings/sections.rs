//! The sections of the settings file and their defaults.
//!
//! Units stand last in the names. The comments here are for the reader of the code; the ones for
//! the operator are in `config/hoopoe.toml`.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{HttpAddress, Secret};

/// What is on the disk before an acknowledgement leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Written and synced: survives a power cut.
    Sync,
    /// Handed to the operating system: survives a crash of the broker, not of the machine.
    Os,
    /// No files at all: a restart forgets everything.
    Memory,
}

impl Durability {
    /// The word that settings use.
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Sync => "sync",
            Durability::Os => "os",
            Durability::Memory => "memory",
        }
    }
}

/// `[broker]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSettings {
    /// Tells brokers apart in logs and on the health page.
    pub name: String,
    /// Names this broker among linked ones; none: one is drawn and kept in the data folder.
    pub id: Option<String>,
    /// The folder of the store; unused when the durability is [`Durability::Memory`].
    pub data_dir: PathBuf,
    /// What is on the disk before an acknowledgement leaves.
    pub durability: Durability,
    /// Threads that own connections; 0 is one per core.
    pub workers: u16,
    /// Threads that write durable state; fixed for a data folder. 0: as many as the folder has,
    /// and in a new one, one per core, four at most.
    pub shards: u16,
    /// How long a clean shutdown waits for clients and for the last commits.
    pub shutdown_grace_secs: u16,
    /// How long wills and expiring sessions wait after a start for their clients to return.
    pub restart_grace_secs: u16,
}

impl Default for BrokerSettings {
    fn default() -> BrokerSettings {
        BrokerSettings {
            name: "hoopoe".to_owned(),
            id: None,
            data_dir: PathBuf::from("./data"),
            durability: Durability::Sync,
            workers: 0,
            shards: 0,
            shutdown_grace_secs: 10,
            restart_grace_secs: 30,
        }
    }
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Where `/health`, `/ready`, `/metrics` and `/v1` are served.
    pub address: HttpAddress,
    /// What operators and back ends show as `Authorization: Bearer`; none: there are no operators.
    pub admin_token: Option<Secret>,
    /// The file whose first line is that token, in place of `admin_token`.
    pub admin_token_file: Option<PathBuf>,
    /// The web pages that may use `/v1`; empty: on loopback pages of this machine, elsewhere none.
    pub origins: Vec<String>,
    /// Requests to `/v1` per second of one user, or one address without a login; 0 is no limit.
    pub requests_per_sec: u32,
    /// Requests at once after a pause.
    pub request_burst: u32,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            address: HttpAddress::loopback(8080),
            admin_token: None,
            admin_token_file: None,
            origins: Vec::new(),
            requests_per_sec: 100,
            request_burst: 500,
        }
    }
}

/// `[mqtt]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttSettings {
    /// The largest packet accepted, fixed header included. Announced as Maximum Packet Size.
    pub max_packet_bytes: u32,
    /// The highest QoS accepted in a PUBLISH. Announced as Maximum QoS when below 2.
    pub max_qos: u8,
    /// The longest keep alive granted; 0 leaves it to the client. Announced as Server Keep Alive.
    pub keep_alive_max_secs: u16,
    /// The longest life of a session without its client; also that of 3.1.1 sessions with clean
    /// session 0, which name none themselves.
    pub session_expiry_max_secs: u32,
    /// QoS 1 and 2 publications a client may have unfinished. Announced as Receive Maximum.
    pub receive_maximum: u16,
    /// QoS 1 and 2 publications unfinished towards a 3.1.1 client, which cannot name a number.
    pub inflight_v311: u16,
    /// The same towards a 5.0 client, at most: its own Receive Maximum may ask for fewer.
    pub inflight_v5_max: u16,
    /// Topic aliases per connection and direction. Announced as Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Levels in a topic or filter.
    pub max_topic_levels: u16,
    /// Bytes in a topic or filter.
    pub max_topic_bytes: u16,
    /// Bytes in a client identifier.
    pub max_client_id_bytes: u16,
    /// Subscriptions of one session.
    pub max_subscriptions: u32,
    /// Whether retained messages are kept. Announced as Retain Available.
    pub retain_available: bool,
    /// Retained messages of the whole broker.
    pub max_retained: u64,
    /// Whether filters may hold wildcards. Announced as Wildcard Subscription Available.
    pub wildcard_available: bool,
    /// Whether `$share/…` filters are accepted. Announced as Shared Subscription Available.
    pub shared_available: bool,
    /// How often the `$SYS` topics are published; 0 is never.
    pub sys_interval_secs: u32,
}

impl Default for MqttSettings {
    fn default() -> MqttSettings {
        MqttSettings {
            max_packet_bytes: 1024 * 1024,
            max_qos: 2,
            keep_alive_max_secs: 1200,
            session_expiry_max_secs: 7 * 24 * 3600,
            receive_maximum: 256,
            inflight_v311: 100,
            inflight_v5_max: 1000,
            topic_alias_max: 64,
            max_topic_levels: 64,
            max_topic_bytes: 4096,
            max_client_id_bytes: 256,
            max_subscriptions: 1000,
            retain_available: true,
            max_retained: 1_000_000,
            wildcard_available: true,
            shared_available: true,
            sys_interval_secs: 10,
        }
    }
}

/// What happens to a publication for a session whose queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueuePolicy {
    /// The oldest queued message makes room; counted, and told in `$SYS` and the metrics.
    DropOldest,
    /// The publication is refused as a whole, before anything of it is written.
    Refuse,
}

/// `[queue]`: publications of QoS 1 and 2; those of QoS 0 never wait (ruling 17).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// Messages waiting for one session.
    pub max_messages: u64,
    /// Bytes waiting for one session, topics and properties included.
    pub max_bytes: u64,
    /// What happens beyond either.
    pub policy: QueuePolicy,
}

impl Default for QueueSettings {
    fn default() -> QueueSettings {
        QueueSettings {
            max_messages: 100_000,
            max_bytes: 64 * 1024 * 1024,
            policy: QueuePolicy::DropOldest,
        }
    }
}

/// `[limits]`: a rate of 0 is no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Connections of the whole broker; 0 is as many as the operating system gives.
    pub max_connections: u32,
    /// Connections per second from one address.
    pub connects_per_address_per_sec: u32,
    /// Publications per second of one client.
    pub publishes_per_client_per_sec: u32,
    /// Bytes of PUBLISH packets per second of one client.
    pub publish_bytes_per_client_per_sec: u32,
    /// How many seconds' worth of a rate may be used at once after a pause.
    pub burst_secs: u16,
    /// Bytes waiting to be written to one connection; beyond it the receiver is slow.
    pub write_buffer_bytes: u32,
}

impl Default for LimitSettings {
    fn default() -> LimitSettings {
        LimitSettings {
            max_connections: 0,
            connects_per_address_per_sec: 0,
            publishes_per_client_per_sec: 0,
            publish_bytes_per_client_per_sec: 0,
            burst_secs: 5,
            write_buffer_bytes: 2 * 1024 * 1024,
        }
    }
}

/// `[access]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// The users and their password hashes; none: nobody has a password.
    pub users_file: Option<PathBuf>,
    /// Who may use which topics; none: everything without users, nothing with users.
    pub rules_file: Option<PathBuf>,
    /// Whether clients may connect without a user; none: on loopback while there are no users.
    pub anonymous: Option<bool>,
    /// Whether a login may name a tenant, as `tenant/user`: a world of its own of users and
    /// topics.
    pub tenants: bool,
    /// Successful logins remembered, so that a reconnecting client costs no password hashing.
    pub login_cache: u32,
    /// Threads that check passwords.
    pub hash_threads: u16,
    /// Logins that may wait for one of these threads.
    pub hash_queue: u32,
}

impl Default for AccessSettings {
    fn default() -> AccessSettings {
        AccessSettings {
            users_file: None,
            rules_file: None,
            anonymous: None,
            tenants: false,
            login_cache: 10_000,
            hash_threads: 2,
            hash_queue: 256,
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object per line.
    Json,
}

/// The least severe events that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Look now.
    Error,
    /// Look today.
    Warn,
    /// The life of the broker and of its connections.
    Info,
    /// The faults of peers too.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level as the logging library spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// How a line looks.
    pub format: LogFormat,
    /// The least severe events that are logged.
    pub level: LogLevel,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { format: LogFormat::Text, level: LogLevel::Info }
    }
}
