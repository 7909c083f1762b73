//! What an operator can set about the profile, with its defaults (ruling 37).

use std::collections::BTreeMap;

use crate::overload::OverloadSettings;

/// Who may write to whom without being asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ContactPolicy {
    /// Everyone who is not blocked.
    #[default]
    Open,
    /// Friends only.
    Roster,
}

/// How many devices of a user may be connected (ruling 36).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum DevicePolicy {
    /// As many as `devices_max`.
    #[default]
    Free,
    /// One of each class.
    OnePerClass,
    /// One.
    Single,
}

/// Devices of the users of one tenant, where they differ from the others'.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceTerms {
    /// Which of them may be connected together.
    pub policy: DevicePolicy,
    /// How many.
    pub max: usize,
}

/// How much of a class of conversations is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Seconds; 0 keeps for ever.
    pub age_secs: u64,
    /// Entries per conversation; 0 for no limit.
    pub entries: u64,
    /// Bytes per conversation; 0 for no limit.
    pub bytes: u64,
}

/// Limits and choices of the profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImSettings {
    /// Who may write to whom.
    pub contact_policy: ContactPolicy,
    /// How many devices.
    pub device_policy: DevicePolicy,
    /// Connected devices of a user.
    pub devices_max: usize,
    /// Tenants with terms of their own for devices.
    pub tenant_devices: BTreeMap<String, DeviceTerms>,
    /// Bytes of a payload.
    pub payload_max_bytes: usize,
    /// Sends per second of a user.
    pub send_rate: u32,
    /// Sends at once.
    pub send_burst: u32,
    /// Bytes of a signal.
    pub signal_max_bytes: usize,
    /// Signals per second of a user.
    pub signal_rate: u32,
    /// Groups of a user.
    pub groups_max: usize,
    /// Channels of a user.
    pub channels_max: usize,
    /// Members up to which a group is small: who received what is known, all events are stored.
    pub small_group_members: u64,
    /// Members of a group.
    pub group_members_max: u64,
    /// Whether users are asked before they are in a group.
    pub invite_consent: bool,
    /// Seconds in which a sender may recall.
    pub recall_window_secs: u64,
    /// Reactions of a user to a message.
    pub reactions_max: usize,
    /// Users mentioned in a message.
    pub mentions_max: usize,
    /// Requests that wait for a user's answer.
    pub requests_max: usize,
    /// Users in a user's roster: friends, who waits, who is blocked.
    pub roster_max: usize,
    /// Seconds for which a client message id is remembered.
    pub dedup_secs: u64,
    /// Client message ids remembered per sender and conversation; 0 for no limit.
    pub dedup_entries: usize,
    /// Seconds for which a device that does not connect is remembered, with its cursors and its
    /// push token; 0 for ever.
    pub device_keep_secs: u64,
    /// Seconds between two walks over what may have to go.
    pub sweep_secs: u64,
    /// Entries replayed per conversation at a login; a gap names the rest.
    pub replay_max: u64,
    /// What is kept of pairs and groups.
    pub retention: Retention,
    /// What is kept of big groups and channels.
    pub retention_big: Retention,
    /// Users of presence a user may watch.
    pub watches_max: usize,
    /// Entries of big groups and channels per second that one device is sent; what is more is
    /// named by a gap.
    pub big_rate: u32,
    /// Seconds after which a user without devices is offline.
    pub presence_grace_secs: u64,
    /// What is given up first when there is too much.
    pub overload: OverloadSettings,
    /// The sites, when there are several.
    pub sites: Option<std::sync::Arc<crate::site::Sites>>,
}

impl ImSettings {
    /// What counts for the devices of a tenant's users.
    pub fn devices_of(&self, tenant: &str) -> DeviceTerms {
        let usual = DeviceTerms { policy: self.device_policy, max: self.devices_max };
        self.tenant_devices.get(tenant).copied().unwrap_or(usual)
    }
}

impl Default for ImSettings {
    fn default() -> ImSettings {
        ImSettings {
            contact_policy: ContactPolicy::Open,
            device_policy: DevicePolicy::Free,
            devices_max: 10,
            tenant_devices: BTreeMap::new(),
            payload_max_bytes: 64 * 1024,
            send_rate: 50,
            send_burst: 500,
            signal_max_bytes: 4 * 1024,
            signal_rate: 20,
            groups_max: 500,
            channels_max: 500,
            small_group_members: 500,
            group_members_max: 100_000,
            invite_consent: false,
            recall_window_secs: 120,
            reactions_max: 5,
            mentions_max: 50,
            requests_max: 100,
            roster_max: 10_000,
            dedup_secs: 7 * 24 * 3600,
            dedup_entries: 10_000,
            device_keep_secs: 60 * 24 * 3600,
            sweep_secs: 60,
            replay_max: 200,
            retention: Retention { age_secs: 0, entries: 0, bytes: 0 },
            retention_big: Retention { age_secs: 30 * 24 * 3600, entries: 1_000_000, bytes: 0 },
            watches_max: 500,
            big_rate: 20,
            presence_grace_secs: 30,
            overload: OverloadSettings::default(),
            sites: None,
        }
    }
}
