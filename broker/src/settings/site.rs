//! `[im.site]`: who lives at which site.
//!
//! What sites do for each other is the profile's matter (`hoopoe_im::site`), how they are linked
//! that of `[[bridge]]`.

use std::sync::Arc;

use hoopoe_im::site::{HomeRule, Sites, WhenDown};
use serde::{Deserialize, Serialize};

use super::BridgeSettings;
use super::bridge::BridgeKind;
use super::check::Found;

/// `[im.site]`: several brokers as one service. The home rules are the same at all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteSection {
    /// This site; none: there is one only.
    pub id: Option<String>,
    /// Home of everything that no rule names.
    pub default_home: Option<String>,
    /// What becomes of a send while the home of its conversation is not reached.
    pub when_down: WhenDownWord,
    /// How long a send waits for its home's answer before it counts as held.
    pub answer_timeout_ms: u32,
    /// Sends that may wait for other sites, per shard.
    pub held_max: u32,
    /// Who lives where; the first rule that fits decides.
    pub home: Vec<SiteHome>,
    /// Links of other sites that connect here.
    pub link: Vec<SiteLink>,
}

/// See [`SiteSection::when_down`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenDownWord {
    /// It is acknowledged once it is stored here.
    Hold,
    /// It is refused.
    Refuse,
}

/// `[[im.site.home]]`: patterns with at most one `*`. A rule without any names a whole tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteHome {
    /// Of this tenant; none: of every.
    pub tenant: Option<String>,
    /// Users.
    pub users: Option<String>,
    /// Groups.
    pub groups: Option<String>,
    /// Channels.
    pub channels: Option<String>,
    /// Rooms.
    pub rooms: Option<String>,
    /// Their home.
    pub site: String,
}

/// `[[im.site.link]]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteLink {
    /// The other site.
    pub site: String,
    /// The user as whom its link connects.
    pub user: String,
}

impl Default for SiteSection {
    fn default() -> SiteSection {
        SiteSection {
            id: None,
            default_home: None,
            when_down: WhenDownWord::Hold,
            answer_timeout_ms: 5_000,
            held_max: 100_000,
            home: Vec::new(),
            link: Vec::new(),
        }
    }
}

impl SiteSection {
    /// What is wrong with it: a key, and words.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: String, what: &str| faults.push((key, what.to_owned()));
        let is_name = |site: &str| hoopoe_im::id::is_id(site);
        let Some(id) = &self.id else {
            if !self.home.is_empty() || !self.link.is_empty() || self.default_home.is_some() {
                fault("im.site.id".to_owned(), "expected the name of this site");
            }
            return faults;
        };
        if !is_name(id) {
            fault("im.site.id".to_owned(), "expected a name like an id");
        }
        if !self.default_home.as_deref().is_some_and(is_name) {
            let what = "expected the site of everything that no rule names, alike at all sites";
            fault("im.site.default_home".to_owned(), what);
        }
        for (index, home) in self.home.iter().enumerate() {
            let key = format!("im.site.home[{index}]");
            if !is_name(&home.site) {
                fault(format!("{key}.site"), "expected the name of a site");
            }
            let SiteHome { tenant, users, groups, channels, rooms, .. } = home;
            let patterns = [users, groups, channels, rooms];
            if tenant.is_none() && patterns.iter().all(|pattern| pattern.is_none()) {
                fault(
                    key.clone(),
                    "expected at least one of tenant, users, groups, channels, rooms",
                );
            }
            if patterns.into_iter().flatten().any(|text| text.matches('*').count() > 1) {
                fault(key, "expected at most one * in a pattern");
            }
        }
        for (index, link) in self.link.iter().enumerate() {
            if !is_name(&link.site) || link.site == *id || link.user.is_empty() {
                let what = "expected another site, and the user as whom its link connects";
                fault(format!("im.site.link[{index}]"), what);
            }
        }
        if !(100..=600_000).contains(&self.answer_timeout_ms) {
            fault("im.site.answer_timeout_ms".to_owned(), "expected 100 to 600000");
        }
        faults
    }

    /// A link between sites joins two that are there.
    pub(super) fn check_links(&self, bridges: &[BridgeSettings], found: &mut Found) {
        let known = |site: &str| {
            let rules = self.home.iter().any(|home| home.site == site);
            self.id.as_deref() != Some(site)
                && (rules || self.default_home.as_deref() == Some(site))
        };
        for (index, bridge) in bridges.iter().enumerate() {
            if bridge.kind != BridgeKind::Hoopoe {
                continue;
            }
            let key = format!("bridge[{index}].site");
            match &bridge.site {
                _ if self.id.is_none() => {
                    found.add(key, "expected im.site.id, the name of this broker's own site");
                }
                Some(site) if !known(site) => {
                    let message = format!("no home rule in im.site names another site `{site}`");
                    found.add(key, message);
                }
                _ => {}
            }
        }
    }

    /// As the profile wants them; `None` with one site only.
    pub(super) fn sites(&self) -> Option<Arc<Sites>> {
        let id: Arc<str> = self.id.as_deref()?.into();
        let homes = self.home.iter().cloned().map(|home| HomeRule {
            tenant: home.tenant,
            users: home.users,
            groups: home.groups,
            channels: home.channels,
            rooms: home.rooms,
            site: home.site.into(),
        });
        let links = self.link.iter().map(|link| (link.user.clone(), Arc::from(&*link.site)));
        Some(Arc::new(Sites {
            otherwise: self.default_home.as_deref().map_or_else(|| id.clone(), Arc::from),
            homes: homes.collect(),
            when_down: match self.when_down {
                WhenDownWord::Hold => WhenDown::Hold,
                WhenDownWord::Refuse => WhenDown::Refuse,
            },
            answer_ms: u64::from(self.answer_timeout_ms),
            held_max: self.held_max as usize,
            links: links.collect(),
            id,
        }))
    }
}
