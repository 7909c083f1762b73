//! Groups: who belongs to them, who may do what.
//!
//! The group's conversation shard owns settings and members; membership is the permission. A
//! change is one command: member rows, a `member` event in the log, and what the users' shards
//! are owed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::Interval;
use crate::service::ops::{History, Join};
use crate::service::{Caller, Op};
use crate::shard::Work;

/// What a group is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GroupRow {
    /// Name to show.
    pub name: String,
    /// The owner.
    pub owner: String,
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
    /// It has ended.
    #[serde(default)]
    pub dissolved: bool,
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
    pub intervals: Vec<Interval>,
    /// Mute until then, ms since the epoch; 0: not.
    #[serde(default)]
    pub muted_until_ms: u64,
    /// Since when, ms since the epoch.
    pub since_ms: u64,
}

impl MemberRow {
    /// True while the membership lasts.
    pub fn is_current(&self) -> bool {
        self.intervals.last().is_some_and(|interval| interval.until.is_none())
    }
}

impl Work<'_> {
    /// A group that exists and has not ended.
    pub(crate) fn group(&mut self, conv: &ConvKey) -> Result<GroupRow, Fault> {
        let missing = || Refusal::not_found(format!("no group {}", conv.id()));
        let row = self.txn.json::<GroupRow>(&keys::conv(conv, conv_kind::GROUP))?;
        row.filter(|group| !group.dissolved).ok_or_else(|| missing().into())
    }

    /// A member, present or past.
    pub(crate) fn member(
        &mut self,
        conv: &ConvKey,
        user: &str,
    ) -> Result<Option<MemberRow>, Fault> {
        Ok(self.txn.json(&keys::conv_name(conv, conv_kind::MEMBER, user))?)
    }

    /// Whether the user belongs to the group or channel now.
    pub(crate) fn is_member(&mut self, conv: &ConvKey, user: &str) -> Result<bool, Fault> {
        Ok(self.member(conv, user)?.is_some_and(|member| member.is_current()))
    }

    /// Whether the group is small: who received what is known.
    pub(crate) fn is_small_group(&mut self, conv: &ConvKey) -> Result<bool, Fault> {
        Ok(self.group(conv)?.members <= self.settings.small_group_members)
    }

    /// Whether the user may recall the messages of others.
    pub(crate) fn may_moderate(&mut self, conv: &ConvKey, user: &str) -> Result<bool, Fault> {
        if conv.kind() == ConvKind::User {
            return Ok(false);
        }
        let member = self.member(conv, user)?.filter(MemberRow::is_current);
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
        let member = self.member(conv, user)?.filter(MemberRow::is_current);
        let Some(member) = member else {
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

impl Work<'_> {
    /// Operations of the service `group`.
    pub(crate) fn group_call(&mut self, _caller: &Caller, _op: &Op) -> Result<Value, Fault> {
        Err(Refusal::not_found("group").into())
    }

    /// The time of a temporary group is over.
    pub(crate) fn group_ended(&mut self, _conv: &ConvKey) -> Result<(), Fault> {
        Ok(())
    }
}
