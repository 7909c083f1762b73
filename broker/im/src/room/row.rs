//! What of a room survives a restart: who it belongs to and whom it keeps out. Never what was
//! said in it, and not who is there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Ticket;

/// An `until` without an end.
pub const FOR_EVER: u64 = u64::MAX;

/// The stored row of a room that somebody has created. Times are ms since the epoch.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct RoomRow {
    /// Grows with each change: of two writers the later one wins, whoever comes last.
    pub version: u64,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Who created it; `None` for a room that came with its first viewer.
    #[serde(default)]
    pub owner: Option<String>,
    /// Who may come in.
    #[serde(default)]
    pub ticket: Ticket,
    /// Who helps the owner.
    #[serde(default)]
    pub moderators: BTreeSet<String>,
    /// Who may come in where an invitation is needed.
    #[serde(default)]
    pub invited: BTreeSet<String>,
    /// Nobody but owner and moderators speaks until then.
    #[serde(default)]
    pub all_muted_until: u64,
    /// Who does not speak, until when.
    #[serde(default)]
    pub mutes: BTreeMap<String, u64>,
    /// Who does not come in, until when.
    #[serde(default)]
    pub bans: BTreeMap<String, u64>,
    /// When it was made.
    #[serde(default)]
    pub created_ms: u64,
    /// When it was closed: until its owner creates it again nobody comes in.
    #[serde(default)]
    pub closed_ms: Option<u64>,
}

impl RoomRow {
    /// Owner or moderator.
    pub fn is_steward(&self, user: &str) -> bool {
        self.owner.as_deref() == Some(user) || self.moderators.contains(user)
    }

    /// Does not come in.
    pub fn is_banned(&self, user: &str, now_ms: u64) -> bool {
        self.bans.get(user).is_some_and(|until| *until > now_ms)
    }

    /// Does not speak. Muting everybody does not concern owner and moderators.
    pub fn is_muted(&self, user: &str, now_ms: u64) -> bool {
        self.mutes.get(user).is_some_and(|until| *until > now_ms)
            || (self.all_muted_until > now_ms && !self.is_steward(user))
    }

    /// Mutes and bans that are over take no room.
    pub fn forget_past(&mut self, now_ms: u64) {
        self.mutes.retain(|_, until| *until > now_ms);
        self.bans.retain(|_, until| *until > now_ms);
    }
}
