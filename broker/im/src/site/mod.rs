//! Several brokers as one service: every user, group and channel has a home site.
//!
//! The home of a conversation alone gives its entries their seq; the home of a pair is that of
//! its lexically lower user. Sites that members live at keep a replica of the log, one copy
//! however many members there are, and their devices read from it as from any log. A send at
//! another site is owed to the home (`ask`) and answered once the home has committed it.
//!
//! What sites owe each other travels on lines (`line`): one per slot and site, numbered, kept in
//! rows until the other site has committed it, applied there exactly once and in order. The link
//! below may lose, repeat and reorder. What is told in passing (signals, notices) is not numbered.
//!
//! Here: whose home is where. Deliberately not here: sockets, and how a link is made.

pub(crate) mod ask;
pub mod line;
pub mod owing;
pub(crate) mod replica;
pub mod room;
pub(crate) mod spread;
pub mod wire;

use std::sync::Arc;

use crate::command::User;
use crate::id::{ConvKey, ConvKind};

/// What becomes of a send while the home cannot be reached.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum WhenDown {
    /// It is acknowledged once it is stored here, and sent when the link is back.
    #[default]
    Hold,
    /// It is refused.
    Refuse,
}

/// Which users, groups and channels live at a site. Patterns may hold one `*`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct HomeRule {
    /// Of this tenant; `None` for every tenant.
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
    pub site: Arc<str>,
}

/// The sites, as each of them has to know them alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sites {
    /// This site.
    pub id: Arc<str>,
    /// The first rule that fits decides; what none fits lives at `otherwise`.
    pub homes: Vec<HomeRule>,
    /// Home of everything that no rule names.
    pub otherwise: Arc<str>,
    /// See [`WhenDown`].
    pub when_down: WhenDown,
    /// How long a send waits for its home's answer before it counts as held.
    pub answer_ms: u64,
    /// Sends of one shard that may wait for their homes.
    pub held_max: usize,
    /// Users as whom links of other sites connect, and their sites.
    pub links: Vec<(String, Arc<str>)>,
}

/// What a rule is asked about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    User,
    Group,
    Channel,
    Room,
}

impl HomeRule {
    fn fits(&self, tenant: &str, of: Of, id: &str) -> bool {
        if self.tenant.as_deref().is_some_and(|named| named != tenant) {
            return false;
        }
        let patterns = [&self.users, &self.groups, &self.channels, &self.rooms];
        if patterns.iter().all(|pattern| pattern.is_none()) {
            return true;
        }
        let pattern = match of {
            Of::User => &self.users,
            Of::Group => &self.groups,
            Of::Channel => &self.channels,
            Of::Room => &self.rooms,
        };
        pattern.as_deref().is_some_and(|pattern| is_like(pattern, id))
    }
}

/// Whether a name fits a pattern with at most one `*`.
fn is_like(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((begin, end)) => {
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        }
    }
}

impl Sites {
    fn home(&self, tenant: &str, of: Of, id: &str) -> &Arc<str> {
        let rule = self.homes.iter().find(|rule| rule.fits(tenant, of, id));
        rule.map_or(&self.otherwise, |rule| &rule.site)
    }

    /// Where a user lives.
    pub fn home_of_user(&self, tenant: &str, user: &str) -> &Arc<str> {
        self.home(tenant, Of::User, user)
    }

    /// Where a conversation has its owner.
    pub fn home_of(&self, conv: &ConvKey) -> &Arc<str> {
        let tenant = conv.tenant();
        match (conv.pair_users(), conv.kind()) {
            (Some((low, _)), _) => self.home(tenant, Of::User, low),
            (None, ConvKind::Group) => self.home(tenant, Of::Group, conv.id()),
            (None, _) => self.home(tenant, Of::Channel, conv.id()),
        }
    }

    /// The home of a room that does not live here.
    pub fn foreign_room(&self, tenant: &str, room: &str) -> Option<&Arc<str>> {
        Some(self.home(tenant, Of::Room, room)).filter(|site| **site != self.id)
    }

    /// The site whose link connects as this user.
    pub fn site_of_link(&self, user: &str) -> Option<&str> {
        self.links.iter().find(|(link, _)| link == user).map(|(_, site)| &**site)
    }

    /// The site of a user who does not live here.
    pub fn elsewhere(&self, user: &User) -> Option<&Arc<str>> {
        Some(self.home_of_user(&user.tenant, &user.id)).filter(|site| **site != self.id)
    }

    /// The home of a conversation that is not owned here.
    pub fn foreign(&self, conv: &ConvKey) -> Option<&Arc<str>> {
        Some(self.home_of(conv)).filter(|site| **site != self.id)
    }

    /// The other sites that are named, each once.
    pub fn peers(&self) -> Vec<Arc<str>> {
        let mut peers: Vec<Arc<str>> = Vec::new();
        for site in self.homes.iter().map(|rule| &rule.site).chain([&self.otherwise]) {
            if *site != self.id && !peers.contains(site) {
                peers.push(site.clone());
            }
        }
        peers
    }

    /// A number that two sites have in common when their rules are equal.
    pub fn rules_hash(&self) -> u64 {
        let mut text = String::new();
        for HomeRule { tenant, users, groups, channels, rooms, site } in &self.homes {
            for part in [tenant, users, groups, channels, rooms] {
                text.push_str(part.as_deref().unwrap_or_default());
                text.push('\n');
            }
            text.push_str(site);
            text.push('\n');
        }
        text.push_str(&self.otherwise);
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }
}

#[cfg(test)]
mod tests;
