//! Channels: publishers post, followers read. A channel's conversation is a log like any other.
//!
//! Publishers and followers are member rows, as of groups. Who follows and who goes is not stored
//! in the log, only who may post (ruling 27). A channel for everyone has no follower rows
//! (ruling 38): it stands in a list of its tenant, and is in every user's list from there.

use std::sync::Arc;

use hoopoe_store::kv::Family;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::command::User;
use crate::group::event::MemberOp;
use crate::group::services::{check_id, users_of};
use crate::group::{MemberRow, Role};
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind};
use crate::refusal::{Fault, Refusal, Word};
use crate::rows::{UserConv, since};
use crate::service::ops::{ChannelCreate, ChannelPublishers};
use crate::service::{Caller, Op};
use crate::shard::Work;
use crate::user::services::check_text;

/// Publishers of a channel.
const PUBLISHERS_MAX: usize = 100;
/// Channels for everyone of a tenant: each is in every user's list.
const EVERYONE_MAX: usize = 16;

/// What a channel is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChannelRow {
    /// Name to show.
    pub name: String,
    /// The owner.
    pub owner: String,
    /// Who may post, the owner included.
    #[serde(default)]
    pub publishers: Vec<String>,
    /// All users get it, without following (ruling 38).
    #[serde(default)]
    pub everyone: bool,
    /// Followers, publishers included.
    pub followers: u64,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
}

/// A channel for everyone, in the list of a user who has done nothing with it yet.
pub(crate) fn listed_for_everyone() -> UserConv {
    UserConv { intervals: since(1), ..UserConv::default() }
}

fn channel_of(caller: &Caller, channel: &str) -> Result<ConvKey, Refusal> {
    check_id("channel", channel)?;
    Ok(ConvKey::channel(&caller.user.tenant, channel))
}

impl Work<'_> {
    /// A channel that exists.
    pub(crate) fn channel(&mut self, conv: &ConvKey) -> Result<ChannelRow, Fault> {
        let missing = || Refusal::not_found(format!("no channel {}", conv.id()));
        let row = self.txn.json::<ChannelRow>(&keys::conv(conv, conv_kind::CHANNEL))?;
        row.ok_or_else(|| missing().into())
    }

    pub(crate) fn put_channel(&mut self, conv: &ConvKey, channel: &ChannelRow) {
        self.txn.put_json(&keys::conv(conv, conv_kind::CHANNEL), channel);
        if self.settings.sites.is_some() {
            let spread = self.spread_row(conv, conv_kind::CHANNEL);
            self.note_fault(spread);
        }
    }

    /// Whether the user may post.
    pub(crate) fn may_post_to_channel(
        &mut self,
        conv: &ConvKey,
        user: &str,
        privileged: bool,
    ) -> Result<(), Fault> {
        self.channel(conv)?;
        #[cfg(feature = "planted")]
        let privileged =
            privileged || hoopoe_core::planted::has(hoopoe_core::planted::Bug::PostByAnyone);
        let member = self.member(conv, user)?.filter(MemberRow::is_current);
        if privileged || member.is_some_and(|member| member.role >= Role::Admin) {
            return Ok(());
        }
        Err(Refusal::not_allowed("only publishers post here").into())
    }

    /// Whether the conversation is a channel for everyone, whichever shard owns it.
    pub(crate) fn is_for_everyone(&mut self, conv: &ConvKey) -> Result<bool, Fault> {
        if conv.kind() != ConvKind::Channel {
            return Ok(false);
        }
        let key = keys::everyone(conv.tenant(), conv.id());
        Ok(self.txn.peek(Family::Im, &key)?.is_some())
    }

    /// Operations of the service `channel`.
    pub(crate) fn channel_call(&mut self, caller: &Caller, op: &Op) -> Result<Value, Fault> {
        match op {
            Op::ChannelCreate(create) => self.channel_create(caller, create),
            Op::ChannelFollow(of) => self.channel_follow(caller, &of.channel),
            Op::ChannelUnfollow(of) => self.channel_unfollow(caller, &of.channel),
            Op::ChannelPublishers(of) => self.channel_publishers(caller, of),
            _ => Err(Refusal::not_found("no operation of channels").into()),
        }
    }

    fn channel_create(&mut self, caller: &Caller, create: &ChannelCreate) -> Result<Value, Fault> {
        let id = create.channel.as_deref();
        let id = id.ok_or_else(|| Refusal::bad_request("channel: no id was made"))?;
        let conv = channel_of(caller, id)?;
        check_text("name", &create.name)?;
        if create.everyone && !caller.privileged {
            let text = "everyone: only for service accounts and operators";
            return Err(Refusal::not_allowed(text).into());
        }
        if self.txn.has(Family::Im, &keys::conv(&conv, conv_kind::CHANNEL))? {
            return Err(Refusal::new(Word::Exists, format!("channel {id} exists")).into());
        }
        let owner = caller.user.id.clone();
        let mut publishers = users_of("publishers", &create.publishers)?;
        publishers.retain(|user| *user != owner);
        publishers.insert(0, owner.clone());
        if publishers.len() > PUBLISHERS_MAX {
            return Err(Refusal::limit(format!("more than {PUBLISHERS_MAX} publishers")).into());
        }
        let mut channel = ChannelRow {
            name: create.name.clone(),
            owner: owner.to_string(),
            publishers: Vec::new(),
            everyone: create.everyone,
            followers: 0,
            created_ms: self.now_ms,
        };
        if create.everyone {
            self.list_for_everyone(&conv)?;
        }
        for user in &publishers {
            let role = if *user == owner { Role::Owner } else { Role::Admin };
            self.admit(&conv, &mut channel, user, role)?;
        }
        self.put_channel(&conv, &channel);
        Ok(json!({ "channel": id }))
    }

    /// Enters the channel into the list of those that all users of the tenant have. The row is
    /// this conversation's own, though it does not lie in its slot.
    fn list_for_everyone(&mut self, conv: &ConvKey) -> Result<(), Fault> {
        let prefix = keys::everyone(conv.tenant(), "");
        let there = self.txn.keys(Family::Im, &prefix, EVERYONE_MAX)?.len();
        if there >= EVERYONE_MAX {
            return Err(Refusal::limit(format!("{EVERYONE_MAX} channels for everyone")).into());
        }
        let key = keys::everyone(conv.tenant(), conv.id());
        self.txn.put(Family::Im, &key, vec![crate::rows::VERSION]);
        Ok(())
    }

    /// The user follows the channel from now on; of a channel for everyone only its publishers
    /// have rows, from the first entry on.
    fn admit(
        &mut self,
        conv: &ConvKey,
        channel: &mut ChannelRow,
        user: &Arc<str>,
        role: Role,
    ) -> Result<(), Fault> {
        self.check_joined(conv, user)?;
        let head = self.head(conv)?;
        let from = if channel.everyone { 1 } else { head.last + 1 };
        let start = if channel.everyone { (0, 0) } else { (head.last, head.count) };
        let member = self.begin_membership(conv, user, (from, 0), role)?;
        self.list_member(conv, user, &member, start);
        channel.followers += 1;
        if role >= Role::Admin {
            channel.publishers.push(user.to_string());
        }
        Ok(())
    }

    fn channel_follow(&mut self, caller: &Caller, channel: &str) -> Result<Value, Fault> {
        let conv = channel_of(caller, channel)?;
        let mut channel = self.channel(&conv)?;
        let user = &caller.user.id;
        if !channel.everyone && !self.is_member(&conv, user)? {
            self.admit(&conv, &mut channel, user, Role::Member)?;
            self.put_channel(&conv, &channel);
        }
        Ok(json!({}))
    }

    fn channel_unfollow(&mut self, caller: &Caller, channel: &str) -> Result<Value, Fault> {
        let conv = channel_of(caller, channel)?;
        let mut channel = self.channel(&conv)?;
        let user = &caller.user.id;
        if channel.everyone {
            return Err(Refusal::conflict("this channel is for everyone").into());
        }
        let Some(member) = self.current_member(&conv, user)? else { return Ok(json!({})) };
        if member.role == Role::Owner {
            return Err(Refusal::conflict("the owner does not leave the channel").into());
        }
        let head = self.head(&conv)?;
        channel.publishers.retain(|publisher| **publisher != **user);
        channel.followers = channel.followers.saturating_sub(1);
        #[cfg(feature = "planted")]
        if hoopoe_core::planted::has(hoopoe_core::planted::Bug::FollowForEver) {
            return Ok(json!({}));
        }
        self.end_membership(&conv, user, member, head.last);
        self.put_channel(&conv, &channel);
        Ok(json!({}))
    }

    fn channel_publishers(
        &mut self,
        caller: &Caller,
        of: &ChannelPublishers,
    ) -> Result<Value, Fault> {
        let conv = channel_of(caller, &of.channel)?;
        let mut channel = self.channel(&conv)?;
        if !caller.privileged && *channel.owner != *caller.user.id {
            return Err(Refusal::not_allowed("only the owner names publishers").into());
        }
        let (add, remove) = (users_of("add", &of.add)?, users_of("remove", &of.remove)?);
        if let Some(both) = add.iter().find(|user| remove.contains(user)) {
            return Err(Refusal::bad_request(format!("{both}: in add and in remove")).into());
        }
        let mut changed = Vec::new();
        for user in add {
            if channel.publishers.iter().any(|publisher| **publisher == *user) {
                continue;
            }
            match self.current_member(&conv, &user)? {
                Some(mut member) => {
                    member.role = Role::Admin;
                    self.put_member(&conv, &user, &member);
                    channel.publishers.push(user.to_string());
                }
                None => self.admit(&conv, &mut channel, &user, Role::Admin)?,
            }
            changed.push(user);
        }
        for user in remove {
            if *channel.owner == *user {
                return Err(Refusal::conflict("remove: the owner stays").into());
            }
            let member = self.current_member(&conv, &user)?;
            let Some(mut member) = member.filter(|member| member.role == Role::Admin) else {
                return Err(Refusal::not_found(format!("remove: {user} is no publisher")).into());
            };
            member.role = Role::Member;
            self.put_member(&conv, &user, &member);
            channel.publishers.retain(|publisher| **publisher != *user);
            changed.push(user);
        }
        if channel.publishers.len() > PUBLISHERS_MAX {
            return Err(Refusal::limit(format!("more than {PUBLISHERS_MAX} publishers")).into());
        }
        if !changed.is_empty() {
            self.put_channel(&conv, &channel);
            self.member_event(&conv, MemberOp::Role, &changed, &caller.user.id)?;
        }
        Ok(json!({}))
    }

    /// A conversation that a user has without a row of it: a channel for everyone.
    pub(crate) fn unlisted(
        &mut self,
        user: &User,
        conv: &ConvKey,
    ) -> Result<Option<UserConv>, Fault> {
        let everyone = *user.tenant == *conv.tenant() && self.is_for_everyone(conv)?;
        Ok(everyone.then(listed_for_everyone))
    }
}

#[cfg(test)]
mod tests;
