//! Services: requests with JSON bodies, the same over MQTT and HTTP.
//!
//! A request is parsed into an [`Op`]: unknown fields, wrong types and bad ids end there, with an
//! error that names them. [`Op::writes`] says whether the owning shard carries it out, or a reader
//! thread behind everything that shard was told before (`query`).

mod cursors;
pub mod lists;
pub mod ops;
pub mod parse;
pub mod query;
pub mod sync;

use std::sync::Arc;

use hoopoe_core::Slot;
use serde_json::Value;

pub use ops::Op;
pub use parse::parse;

use crate::command::{Asker, User};
use crate::id::{ConvKey, MessageId, is_id};
use crate::refusal::{Fault, Refusal};
use crate::shard::Work;

/// Who calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user, or the user that an operator acts for.
    pub user: User,
    /// The device; empty over HTTP.
    pub device: Arc<str>,
    /// An operator, or a service account: may do what an owner may.
    pub privileged: bool,
}

/// A service call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who calls.
    pub caller: Caller,
    /// What.
    pub op: Op,
    /// Who waits.
    pub asker: Asker,
}

impl Call {
    /// The slot whose shard judges the call, or behind whose commands it is read.
    pub fn slot(&self) -> Slot {
        // What is no id is refused wherever it comes.
        self.conv().map_or_else(|| self.caller.user.slot(), |conv| conv.slot())
    }

    /// The conversation whose home judges the call; `None` for what concerns the caller alone.
    pub fn conv(&self) -> Option<ConvKey> {
        let user = &self.caller.user;
        let id =
            |id: &str, conv: fn(&str, &str) -> ConvKey| is_id(id).then(|| conv(&user.tenant, id));
        let group = |name: &str| id(name, ConvKey::group);
        let channel = |name: &str| id(name, ConvKey::channel);
        match &self.op {
            Op::GroupCreate(create) => group(create.group.as_deref()?),
            Op::GroupInfo(of) | Op::GroupLeave(of) | Op::GroupDissolve(of) => group(&of.group),
            Op::GroupJoin(of) | Op::GroupApply(of) => group(&of.group),
            Op::GroupApprove(of) | Op::GroupReject(of) | Op::GroupTransfer(of) => group(&of.group),
            Op::GroupInvite(of) | Op::GroupKick(of) => group(&of.group),
            Op::GroupRole(of) => group(&of.group),
            Op::GroupMute(of) | Op::GroupUnmute(of) => group(&of.group),
            Op::GroupSet(of) => group(&of.group),
            Op::GroupMembers(of) => group(&of.group),
            Op::ChannelCreate(create) => channel(create.channel.as_deref()?),
            Op::ChannelFollow(of) | Op::ChannelUnfollow(of) | Op::ChannelInfo(of) => {
                channel(&of.channel)
            }
            Op::ChannelPublishers(of) => channel(&of.channel),
            Op::ReceiptList(of) | Op::ReceiptCount(of) => {
                ConvKey::from_wire(&user.tenant, &user.id, &of.conv)
            }
            _ => None,
        }
    }
}

/// Gives what is to be made an id when the request names none, and `id` has one: needed before the
/// call can be routed. The id is unique when the message id is.
pub fn complete(op: &mut Op, id: impl FnOnce() -> Option<MessageId>) {
    let missing = match op {
        Op::GroupCreate(create) => &mut create.group,
        Op::ChannelCreate(create) => &mut create.channel,
        Op::RoomCreate(create) => &mut create.room,
        _ => return,
    };
    if missing.is_none() {
        *missing = id().map(|id| id.to_string());
    }
}

/// Carries out a call that writes, in the shard that owns what it changes.
pub(crate) fn perform(work: &mut Work<'_>, call: &Call) -> Result<Value, Fault> {
    let caller = &call.caller;
    match &call.op {
        Op::UserSet(set) => work.user_set(caller, set),
        Op::TokensCreate(create) => work.tokens_create(caller, create),
        Op::TokensRevoke(revoke) => work.tokens_revoke(caller, revoke),
        Op::DeviceList(_) => work.device_list(caller),
        Op::DeviceKick(of) => work.device_kick(caller, &of.device),
        Op::DevicePushToken(push) => work.device_push_token(caller, push),
        Op::ConvPin(switch) => work.conv_pin(caller, switch),
        Op::ConvMute(mute) => work.conv_mute(caller, mute),
        Op::ConvHide(switch) => work.conv_hide(caller, switch),
        Op::ConvClear(of) => work.conv_clear(caller, &of.conv),
        Op::GroupCreate(_)
        | Op::GroupJoin(_)
        | Op::GroupApply(_)
        | Op::GroupApprove(_)
        | Op::GroupReject(_)
        | Op::GroupInvite(_)
        | Op::GroupKick(_)
        | Op::GroupLeave(_)
        | Op::GroupDissolve(_)
        | Op::GroupRole(_)
        | Op::GroupTransfer(_)
        | Op::GroupMute(_)
        | Op::GroupUnmute(_)
        | Op::GroupSet(_) => work.group_call(caller, &call.op),
        Op::ChannelCreate(_)
        | Op::ChannelFollow(_)
        | Op::ChannelUnfollow(_)
        | Op::ChannelPublishers(_) => work.channel_call(caller, &call.op),
        Op::RosterRequest(_)
        | Op::RosterAccept(_)
        | Op::RosterReject(_)
        | Op::RosterRemove(_)
        | Op::RosterBlock(_)
        | Op::RosterUnblock(_)
        | Op::RosterTag(_)
        | Op::RosterNote(_) => work.roster_call(caller, &call.op),
        Op::PresenceWatch(_) | Op::PresenceUnwatch(_) | Op::PresenceGet(_) => {
            work.presence_call(caller, &call.op)
        }
        _ => Err(Refusal::not_found("this operation is not offered here").into()),
    }
}
