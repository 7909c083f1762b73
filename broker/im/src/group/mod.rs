//! Groups: who belongs to them, who may do what.
//!
//! The group's conversation shard owns settings and members; membership is the permission. A
//! change is one command: member rows, a `member` event in the log, and what the users' shards
//! are owed. The operations are in `services`, how members come and go is in `change`.

mod change;
pub mod event;
pub(crate) mod services;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::Intervals;
use crate::service::ops::{History, Join};
use crate::shard::Work;
use crate::user::device::is_zero;

/// Admins of a group.
const ADMINS_MAX: usize = 100;
/// Big groups remembered as such; beyond it all are forgotten and noted again when they are used.
const MOST_BIG: usize = 65_536;

/// What a group is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GroupRow {
    /// Name to show.
    pub name: String,
    /// The owner.
    pub owner: String,
    /// The admins, besides the owner.
    #[serde(default)]
    pub admins: Vec<String>,
    /// Who may join.
    pub join: Join,
    /// What new members see.
    pub history: History,
    /// When a temporary group ends, ms since the epoch.
    #[serde(default)]
    pub until_ms: Option<u64>,
    /// Anything.
    #[serde(default)]
    pub info: Value,
    /// Everyone but owner and admins is mute until then, ms since the epoch; 0: nobody is.
    #[serde(default)]
    pub muted_until_ms: u64,
    /// Members.
    pub members: u64,
    /// There are so many that receipts are not kept.
    #[serde(default)]
    pub big: bool,
    /// It has ended.
    #[serde(default)]
    pub dissolved: bool,
    /// It has ended with this entry.
    #[serde(default)]
    pub ended_seq: u64,
    /// It has ended, and members behind this name have not been told; none when all have.
    #[serde(default)]
    pub untold: Option<String>,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
}

/// What a member may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads and writes; of a channel: follows it.
    Member,
    /// Invites, removes, mutes and recalls; of a channel: posts.
    Admin,
    /// Everything.
    Owner,
}

impl Role {
    /// As answers spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Member => "member",
            Role::Admin => "admin",
            Role::Owner => "owner",
        }
    }
}

/// A member, present or past.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemberRow {
    /// What the member may do.
    pub role: Role,
    /// When it belonged to the group.
    pub intervals: Intervals,
    /// Mute until then, ms since the epoch; 0: not. Outlives the membership.
    #[serde(default)]
    pub muted_until_ms: u64,
    /// Since when, ms since the epoch.
    pub since_ms: u64,
    /// The last entry that there was before the first join: `read` and `recv` begin there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start: u64,
    /// How often the membership has changed: a user's list takes news in this order.
    #[serde(default)]
    pub version: u64,
}

impl MemberRow {
    /// True while the membership lasts.
    pub fn is_current(&self) -> bool {
        self.intervals.last().is_some_and(|interval| interval.until.is_none())
    }

    /// Of what there was up to here the member gives no receipts: whoever came later has neither
    /// received nor read it, though `read` and `recv` are behind it.
    pub fn silent_to(&self) -> u64 {
        let before = self.intervals.first().map_or(0, |interval| interval.from.saturating_sub(1));
        self.start.max(before)
    }
}

/// Somebody who asked to join, or was asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AskedRow {
    /// The member who asked the user; none when the user asked.
    #[serde(default)]
    pub by: Option<String>,
    /// A word with it.
    #[serde(default)]
    pub message: String,
    /// When, ms since the epoch.
    pub since_ms: u64,
}

impl Work<'_> {
    /// A group that exists and has not ended.
    pub(crate) fn group(&mut self, conv: &ConvKey) -> Result<GroupRow, Fault> {
        let missing = || Refusal::not_found(format!("no group {}", conv.id()));
        let row = self.txn.json::<GroupRow>(&keys::conv(conv, conv_kind::GROUP))?;
        let group = row.filter(|group| !group.dissolved).ok_or_else(missing)?;
        self.note_size(conv, &group);
        Ok(group)
    }

    pub(crate) fn put_group(&mut self, conv: &ConvKey, group: &GroupRow) {
        self.note_size(conv, group);
        self.txn.put_json(&keys::conv(conv, conv_kind::GROUP), group);
        if self.settings.sites.is_some() {
            let spread = self.spread_row(conv, conv_kind::GROUP);
            self.note_fault(spread);
        }
    }

    /// Whether a group of so many members is big: only some events are stored (ruling 27), and
    /// who received what is not known.
    pub(crate) fn is_big(&self, members: u64) -> bool {
        members > self.settings.small_group_members
    }

    fn note_size(&mut self, conv: &ConvKey, group: &GroupRow) {
        let is_big = self.is_big(group.members);
        self.note_big(conv, is_big);
    }

    pub(crate) fn note_big(&mut self, conv: &ConvKey, is_big: bool) {
        let big = &mut self.memory.big;
        if !is_big {
            big.remove(conv);
        } else if !big.contains(conv) {
            if big.len() >= MOST_BIG {
                big.clear();
            }
            big.insert(conv.clone());
        }
    }

    /// A member, present or past.
    pub(crate) fn member(
        &mut self,
        conv: &ConvKey,
        user: &str,
    ) -> Result<Option<MemberRow>, Fault> {
        Ok(self.txn.json(&keys::conv_name(conv, conv_kind::MEMBER, user))?)
    }

    /// A member of now.
    pub(crate) fn current_member(
        &mut self,
        conv: &ConvKey,
        user: &str,
    ) -> Result<Option<MemberRow>, Fault> {
        Ok(self.member(conv, user)?.filter(MemberRow::is_current))
    }

    pub(crate) fn put_member(&mut self, conv: &ConvKey, user: &str, member: &MemberRow) {
        if self.settings.sites.is_some() {
            let spread = self.spread_member(conv, user, member);
            self.note_fault(spread);
        }
        self.txn.put_json(&keys::conv_name(conv, conv_kind::MEMBER, user), member);
    }

    /// Whether the user belongs to the group or channel now.
    pub(crate) fn is_member(&mut self, conv: &ConvKey, user: &str) -> Result<bool, Fault> {
        Ok(self.current_member(conv, user)?.is_some())
    }

    /// Whether the group is small: who received what is known.
    pub(crate) fn is_small_group(&mut self, conv: &ConvKey) -> Result<bool, Fault> {
        let members = self.group(conv)?.members;
        Ok(!self.is_big(members))
    }

    /// Whether the user may recall the messages of others.
    pub(crate) fn may_moderate(&mut self, conv: &ConvKey, user: &str) -> Result<bool, Fault> {
        if conv.kind() == ConvKind::User {
            return Ok(false);
        }
        let member = self.current_member(conv, user)?;
        Ok(member.is_some_and(|member| member.role >= Role::Admin))
    }

    /// Whether the user may write to the group.
    pub(crate) fn may_write_to_group(
        &mut self,
        conv: &ConvKey,
        user: &str,
        privileged: bool,
        at_all: bool,
    ) -> Result<(), Fault> {
        let group = self.group(conv)?;
        if privileged {
            return Ok(());
        }
        let Some(member) = self.current_member(conv, user)? else {
            return Err(Refusal::not_allowed(format!("not a member of {}", conv.id())).into());
        };
        if member.role >= Role::Admin {
            return Ok(());
        }
        if at_all {
            return Err(Refusal::not_allowed("only owner and admins mention all").into());
        }
        if self.now_ms < member.muted_until_ms.max(group.muted_until_ms) {
            return Err(Refusal::not_allowed("muted").into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
