//! `[im]`: what an operator can set about the IM profile (ruling 37), and the content hook.
//!
//! What the settings mean is the profile's matter: here they are named, and turned into
//! [`hoopoe_im::ImSettings`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use hoopoe_im::ImSettings;
use hoopoe_im::overload::OverloadSettings;
use hoopoe_im::room::{RoomSettings, SendRate};
use hoopoe_im::settings::{ContactPolicy, DevicePolicy, DeviceTerms, Retention};
use serde::{Deserialize, Deserializer, Serialize};

use super::{PushSettings, Secret, SiteSection};

/// Who may write to whom without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContactWord {
    /// Everyone who is not blocked.
    Open,
    /// Friends only.
    Roster,
}

/// Which devices of a user may be connected together (ruling 36).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceWord {
    /// Any, up to `devices_per_user`.
    Free,
    /// One of each class.
    OnePerClass,
    /// One.
    Single,
}

impl DeviceWord {
    fn profile(self) -> DevicePolicy {
        match self {
            DeviceWord::Free => DevicePolicy::Free,
            DeviceWord::OnePerClass => DevicePolicy::OnePerClass,
            DeviceWord::Single => DevicePolicy::Single,
        }
    }
}

/// `[[im.tenant]]`: where the users of a tenant differ from those of others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantSection {
    /// The tenant.
    pub name: String,
    /// Which devices of a user may be connected together; not set: as for everybody.
    #[serde(default)]
    pub device_policy: Option<DeviceWord>,
    /// Connected devices of a user; not set: as for everybody.
    #[serde(default)]
    pub devices_per_user: Option<u32>,
}

/// How much of a conversation is kept; 0 is no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSettings {
    /// How old an entry may become.
    #[serde(default)]
    pub age_secs: u64,
    /// Entries of one conversation.
    #[serde(default)]
    pub entries: u64,
    /// Bytes of one conversation.
    #[serde(default)]
    pub bytes: u64,
}

impl RetentionSettings {
    fn of(kept: Retention) -> RetentionSettings {
        let Retention { age_secs, entries, bytes } = kept;
        RetentionSettings { age_secs, entries, bytes }
    }

    fn kept(&self) -> Retention {
        let RetentionSettings { age_secs, entries, bytes } = *self;
        Retention { age_secs, entries, bytes }
    }
}

/// `[im.retention_big]`: what it does not name keeps its own default.
fn big_retention<'de, D: Deserializer<'de>>(section: D) -> Result<RetentionSettings, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Named {
        age_secs: Option<u64>,
        entries: Option<u64>,
        bytes: Option<u64>,
    }
    let named = Named::deserialize(section)?;
    let usual = ImSettings::default().retention_big;
    Ok(RetentionSettings {
        age_secs: named.age_secs.unwrap_or(usual.age_secs),
        entries: named.entries.unwrap_or(usual.entries),
        bytes: named.bytes.unwrap_or(usual.bytes),
    })
}

/// What happens to a message that the hook could not be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It passes.
    Open,
    /// It is refused.
    Closed,
}

/// `[im.hook]`: a service that is asked about each message before it is stored (ruling 38).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookSettings {
    /// `http://host:port/path`, or `https`; none: nobody is asked.
    pub url: Option<String>,
    /// PEM file with who may sign for an `https` one; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// How long an answer may take.
    pub timeout_ms: u32,
    /// What happens without an answer.
    pub on_failure: OnFailure,
    /// Connections to the service; messages of one conversation share one, in order.
    pub connections: u16,
}

impl Default for HookSettings {
    fn default() -> HookSettings {
        HookSettings {
            url: None,
            ca_file: None,
            token: None,
            timeout_ms: 500,
            on_failure: OnFailure::Open,
            connections: 8,
        }
    }
}

/// `[im.rooms]`: live rooms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomsSection {
    /// SUBSCRIBE to a room that nobody created makes an open one without an owner.
    pub auto_create: bool,
    /// Messages kept for those who join.
    pub ring_messages: u32,
    /// Bytes of those.
    pub ring_bytes: u32,
    /// Messages of the lane `chat` that one receiver gets a second.
    pub chat_per_sec: u32,
    /// Messages of the lane `hi` that one receiver gets a second.
    pub hi_per_sec: u32,
    /// Rooms a user may be in.
    pub joined_per_user: u32,
    /// Rooms a user may own.
    pub owned_per_user: u32,
    /// Rooms of this broker.
    pub max_rooms: u32,
}

impl Default for RoomsSection {
    fn default() -> RoomsSection {
        let rooms = RoomSettings::default();
        RoomsSection {
            auto_create: rooms.auto_create,
            ring_messages: rooms.ring_messages as u32,
            ring_bytes: rooms.ring_bytes as u32,
            chat_per_sec: rooms.chat_per_sec,
            hi_per_sec: rooms.hi_per_sec,
            joined_per_user: rooms.joined_max as u32,
            owned_per_user: rooms.owned_max as u32,
            max_rooms: rooms.rooms_max as u32,
        }
    }
}

/// `[im.overload]`: what is given up first when there is too much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverloadSection {
    /// A turn of a shard that takes so long counts as 100 percent.
    pub commit_lag_ms: u64,
    /// So much memory of the process counts as 100 percent; 0: it does not count.
    pub memory_max_bytes: u64,
    /// Percent from which on each class goes.
    pub shed_at_percent: [u32; 8],
}

impl Default for OverloadSection {
    fn default() -> OverloadSection {
        let profile = OverloadSettings::default();
        OverloadSection {
            commit_lag_ms: profile.commit_lag_ms,
            memory_max_bytes: profile.memory_bytes,
            shed_at_percent: profile.at_percent,
        }
    }
}

impl OverloadSection {
    fn profile(&self) -> OverloadSettings {
        OverloadSettings {
            commit_lag_ms: self.commit_lag_ms,
            memory_bytes: self.memory_max_bytes,
            at_percent: self.shed_at_percent,
        }
    }
}

/// `[im]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImSection {
    /// Who may write to whom.
    pub contact_policy: ContactWord,
    /// Which devices of a user may be connected together.
    pub device_policy: DeviceWord,
    /// Connected devices of a user.
    pub devices_per_user: u32,
    /// Bytes of a message's payload.
    pub payload_max_bytes: u32,
    /// Messages per second of a user.
    pub sends_per_sec: u32,
    /// Messages at once after a pause.
    pub send_burst: u32,
    /// Bytes of a signal.
    pub signal_max_bytes: u32,
    /// Signals per second of a user.
    pub signals_per_sec: u32,
    /// Groups of a user.
    pub groups_per_user: u32,
    /// Channels of a user.
    pub channels_per_user: u32,
    /// Members up to which a group is small.
    pub small_group_members: u64,
    /// Members of a group.
    pub group_members_max: u64,
    /// Whether users are asked before they are in a group.
    pub invite_consent: bool,
    /// How long a sender may take a message back.
    pub recall_window_secs: u64,
    /// Reactions of a user to a message.
    pub reactions_per_message: u32,
    /// Users mentioned in a message.
    pub mentions_per_message: u32,
    /// Requests that wait for a user's answer.
    pub pending_requests: u32,
    /// Users in a user's roster.
    pub roster_per_user: u32,
    /// How long a client message id is remembered.
    pub dedup_window_secs: u64,
    /// Client message ids remembered per sender and conversation; 0 is no limit.
    pub dedup_window_entries: u32,
    /// How long a device that does not connect is remembered, with its cursors and its push
    /// token; 0 is for ever.
    pub device_keep_secs: u64,
    /// How often everything is looked through for what has to go.
    pub sweep_interval_secs: u64,
    /// Entries replayed per conversation at a login.
    pub replay_per_conversation: u64,
    /// Users whose presence a user may watch.
    pub presence_watches: u32,
    /// Entries of big groups and channels per second that one device is sent; what is more is
    /// named by a gap, once a second.
    pub big_group_per_sec: u32,
    /// How long a user without devices still counts as online.
    pub presence_grace_secs: u64,
    /// What is kept of pairs and groups.
    pub retention: RetentionSettings,
    /// What is kept of big groups and channels.
    #[serde(deserialize_with = "big_retention")]
    pub retention_big: RetentionSettings,
    /// Live rooms.
    pub rooms: RoomsSection,
    /// What is given up first when there is too much.
    pub overload: OverloadSection,
    /// The content hook.
    pub hook: HookSettings,
    /// The push hook.
    pub push: PushSettings,
    /// Several sites.
    pub site: SiteSection,
    /// Tenants whose users differ from others.
    pub tenant: Vec<TenantSection>,
}

impl Default for ImSection {
    fn default() -> ImSection {
        let profile = ImSettings::default();
        ImSection {
            contact_policy: match profile.contact_policy {
                ContactPolicy::Open => ContactWord::Open,
                ContactPolicy::Roster => ContactWord::Roster,
            },
            device_policy: match profile.device_policy {
                DevicePolicy::Free => DeviceWord::Free,
                DevicePolicy::OnePerClass => DeviceWord::OnePerClass,
                DevicePolicy::Single => DeviceWord::Single,
            },
            devices_per_user: profile.devices_max as u32,
            payload_max_bytes: profile.payload_max_bytes as u32,
            sends_per_sec: profile.send_rate,
            send_burst: profile.send_burst,
            signal_max_bytes: profile.signal_max_bytes as u32,
            signals_per_sec: profile.signal_rate,
            groups_per_user: profile.groups_max as u32,
            channels_per_user: profile.channels_max as u32,
            small_group_members: profile.small_group_members,
            group_members_max: profile.group_members_max,
            invite_consent: profile.invite_consent,
            recall_window_secs: profile.recall_window_secs,
            reactions_per_message: profile.reactions_max as u32,
            mentions_per_message: profile.mentions_max as u32,
            pending_requests: profile.requests_max as u32,
            roster_per_user: profile.roster_max as u32,
            dedup_window_secs: profile.dedup_secs,
            dedup_window_entries: profile.dedup_entries as u32,
            device_keep_secs: profile.device_keep_secs,
            sweep_interval_secs: profile.sweep_secs,
            replay_per_conversation: profile.replay_max,
            presence_watches: profile.watches_max as u32,
            big_group_per_sec: profile.big_rate,
            presence_grace_secs: profile.presence_grace_secs,
            retention: RetentionSettings::of(profile.retention),
            retention_big: RetentionSettings::of(profile.retention_big),
            rooms: RoomsSection::default(),
            overload: OverloadSection::default(),
            hook: HookSettings::default(),
            push: PushSettings::default(),
            site: SiteSection::default(),
            tenant: Vec::new(),
        }
    }
}

impl ImSection {
    fn tenant_devices(&self) -> BTreeMap<String, DeviceTerms> {
        let terms = self.tenant.iter().map(|tenant| {
            let policy = tenant.device_policy.unwrap_or(self.device_policy).profile();
            let max = tenant.devices_per_user.unwrap_or(self.devices_per_user) as usize;
            (tenant.name.clone(), DeviceTerms { policy, max })
        });
        terms.collect()
    }

    /// What live rooms allow: their own settings, and the limits of every sender.
    pub fn room_settings(&self) -> RoomSettings {
        let rooms = &self.rooms;
        RoomSettings {
            auto_create: rooms.auto_create,
            ring_messages: rooms.ring_messages as usize,
            ring_bytes: rooms.ring_bytes as usize,
            chat_per_sec: rooms.chat_per_sec,
            hi_per_sec: rooms.hi_per_sec,
            sends: SendRate { per_sec: self.sends_per_sec, burst: self.send_burst },
            signals: SendRate { per_sec: self.signals_per_sec, burst: self.signals_per_sec },
            payload_bytes: self.payload_max_bytes as usize,
            signal_bytes: self.signal_max_bytes as usize,
            joined_max: rooms.joined_per_user as usize,
            owned_max: rooms.owned_per_user as usize,
            rooms_max: rooms.max_rooms as usize,
            ..RoomSettings::default()
        }
    }

    /// The settings as the profile wants them.
    pub fn profile(&self) -> ImSettings {
        ImSettings {
            contact_policy: match self.contact_policy {
                ContactWord::Open => ContactPolicy::Open,
                ContactWord::Roster => ContactPolicy::Roster,
            },
            device_policy: self.device_policy.profile(),
            devices_max: self.devices_per_user as usize,
            tenant_devices: self.tenant_devices(),
            payload_max_bytes: self.payload_max_bytes as usize,
            send_rate: self.sends_per_sec,
            send_burst: self.send_burst,
            signal_max_bytes: self.signal_max_bytes as usize,
            signal_rate: self.signals_per_sec,
            groups_max: self.groups_per_user as usize,
            channels_max: self.channels_per_user as usize,
            small_group_members: self.small_group_members,
            group_members_max: self.group_members_max,
            invite_consent: self.invite_consent,
            recall_window_secs: self.recall_window_secs,
            reactions_max: self.reactions_per_message as usize,
            mentions_max: self.mentions_per_message as usize,
            requests_max: self.pending_requests as usize,
            roster_max: self.roster_per_user as usize,
            dedup_secs: self.dedup_window_secs,
            dedup_entries: self.dedup_window_entries as usize,
            device_keep_secs: self.device_keep_secs,
            sweep_secs: self.sweep_interval_secs,
            replay_max: self.replay_per_conversation,
            retention: self.retention.kept(),
            retention_big: self.retention_big.kept(),
            watches_max: self.presence_watches as usize,
            big_rate: self.big_group_per_sec,
            presence_grace_secs: self.presence_grace_secs,
            overload: self.overload.profile(),
            sites: self.site.sites(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_profile() {
        assert_eq!(ImSection::default().profile(), ImSettings::default());
        assert_eq!(ImSection::default().room_settings(), RoomSettings::default());
    }

    #[test]
    fn what_is_set_reaches_the_profile() {
        let text = "contact_policy = \"roster\"\ndevice_policy = \"one-per-class\"\n\
            recall_window_secs = 7\n[retention]\nentries = 9\n";
        let profile = toml::from_str::<ImSection>(text).unwrap().profile();
        assert_eq!(profile.contact_policy, ContactPolicy::Roster);
        assert_eq!(profile.device_policy, DevicePolicy::OnePerClass);
        assert_eq!(profile.recall_window_secs, 7);
        assert_eq!(profile.retention, Retention { age_secs: 0, entries: 9, bytes: 0 });
    }

    #[test]
    fn the_longest_topic_of_the_profile_fits_into_the_limit_of_topics() {
        let id = "x".repeat(hoopoe_im::id::MAX_ID_LEN);
        let users = vec![id.as_str(); ImSettings::default().mentions_max].join(",");
        let longest = format!("im/g/{id}/msg/{id}/at/{users}");
        assert!(hoopoe_im::topic::parse_publish(&longest).is_ok());
        let limit = crate::settings::Settings::default().mqtt.max_topic_bytes;
        assert!(longest.len() <= usize::from(limit), "{} > {limit}", longest.len());
    }

    #[test]
    fn a_tenant_says_only_what_differs() {
        let text = "[im]\ndevice_policy = 'one-per-class'\n\
            [[im.tenant]]\nname = 'acme'\ndevices_per_user = 3\n\
            [[im.tenant]]\nname = 'evil'\ndevice_policy = 'single'\n";
        let settings: crate::settings::Settings = toml::from_str(text).unwrap();
        assert_eq!(settings.validate(), []);
        let profile = settings.im.profile();
        let terms = |policy, max| DeviceTerms { policy, max };
        for (tenant, expected) in [
            ("acme", terms(DevicePolicy::OnePerClass, 3)),
            ("evil", terms(DevicePolicy::Single, 10)),
            ("default", terms(DevicePolicy::OnePerClass, 10)),
        ] {
            assert_eq!(profile.devices_of(tenant), expected, "{tenant}");
        }
        let text = "[[im.tenant]]\nname = 'a b'\n[[im.tenant]]\nname = 'a'\n\
            [[im.tenant]]\nname = 'a'\ndevices_per_user = 0\n";
        let settings: crate::settings::Settings = toml::from_str(text).unwrap();
        let keys: Vec<String> = settings.validate().into_iter().map(|fault| fault.key).collect();
        let expected = ["im.tenant[0].name", "im.tenant[2].name", "im.tenant[2].devices_per_user"];
        assert_eq!(keys, expected);
    }
}
