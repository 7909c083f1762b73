//! Channels: publishers post, followers read. A channel's conversation is a log like any other.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::group::{MemberRow, Role};
use crate::id::ConvKey;
use crate::keys::{self, conv_kind};
use crate::refusal::{Fault, Refusal};
use crate::service::{Caller, Op};
use crate::shard::Work;

/// What a channel is. Its publishers and followers are member rows: publishers are admins.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChannelRow {
    /// Name to show.
    pub name: String,
    /// The owner.
    pub owner: String,
    /// All users get it, without following (ruling 38).
    #[serde(default)]
    pub everyone: bool,
    /// Followers, publishers included.
    pub followers: u64,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
}

impl Work<'_> {
    /// A channel that exists.
    pub(crate) fn channel(&mut self, conv: &ConvKey) -> Result<ChannelRow, Fault> {
        let missing = || Refusal::not_found(format!("no channel {}", conv.id()));
        let row = self.txn.json::<ChannelRow>(&keys::conv(conv, conv_kind::CHANNEL))?;
        row.ok_or_else(|| missing().into())
    }

    /// Whether the user may post.
    pub(crate) fn may_post_to_channel(
        &mut self,
        conv: &ConvKey,
        user: &str,
        privileged: bool,
    ) -> Result<(), Fault> {
        self.channel(conv)?;
        let member = self.member(conv, user)?.filter(MemberRow::is_current);
        if privileged || member.is_some_and(|member| member.role >= Role::Admin) {
            return Ok(());
        }
        Err(Refusal::not_allowed("only publishers post here").into())
    }
}

impl Work<'_> {
    /// Operations of the service `channel`.
    pub(crate) fn channel_call(&mut self, _caller: &Caller, _op: &Op) -> Result<Value, Fault> {
        Err(Refusal::not_found("channel").into())
    }
}
