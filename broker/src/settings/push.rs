//! `[im.push]`: where users are told of messages that no device of theirs has received.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

/// `[im.push]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushSettings {
    /// `http://host:port/path` of the gateway, or `https`; none: nobody is pushed to.
    pub url: Option<String>,
    /// PEM file with who may sign for an `https` one; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// The key of the signature in `X-Hoopoe-Signature`.
    pub secret: Option<Secret>,
    /// How long a device that is looked at has for its acknowledgement.
    pub after_secs: u32,
    /// What is older is not pushed any more; 0 is no limit.
    pub max_age_secs: u64,
    /// Pushes in one request.
    pub batch_max: u32,
    /// Whether the messages' content is sent along.
    pub payload: bool,
    /// The largest content that is sent along.
    pub payload_max_bytes: u32,
    /// Requests at a time; one user's pushes share one, in order.
    pub connections: u16,
    /// How long an answer may take.
    pub timeout_ms: u32,
    /// The first pause after a failure; it doubles each time.
    pub retry_first_ms: u32,
    /// The longest pause.
    pub retry_max_secs: u32,
    /// Attempts that were answered badly, or broken off, after which a push is given up.
    pub attempts_max: u32,
}

impl Default for PushSettings {
    fn default() -> PushSettings {
        PushSettings {
            url: None,
            ca_file: None,
            secret: None,
            after_secs: 10,
            max_age_secs: 24 * 3600,
            batch_max: 100,
            payload: false,
            payload_max_bytes: 4096,
            connections: 4,
            timeout_ms: 10_000,
            retry_first_ms: 500,
            retry_max_secs: 300,
            attempts_max: 20,
        }
    }
}
