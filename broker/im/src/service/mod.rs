//! Services: requests with JSON bodies, the same over MQTT and HTTP.
//!
//! A request is parsed into an [`Op`]: unknown fields, wrong types and bad ids end there, with an
//! error that names them. [`Op::writes`] says whether the owning shard carries it out, or a reader
//! thread behind everything that shard was told before (`query`).

pub mod ops;
pub mod parse;
pub mod query;

use std::sync::Arc;

use hoopoe_core::Slot;

pub use ops::Op;
pub use parse::parse;

use crate::command::{Asker, User};
use crate::id::ConvKey;

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
        let user = &self.caller.user;
        let group = |id: &str| ConvKey::group(&user.tenant, id).slot();
        let channel = |id: &str| ConvKey::channel(&user.tenant, id).slot();
        match &self.op {
            Op::GroupCreate(create) => group(create.group.as_deref().unwrap_or_default()),
            Op::GroupInfo(of)
            | Op::GroupLeave(of)
            | Op::GroupDissolve(of) => group(&of.group),
            Op::GroupJoin(of) | Op::GroupApply(of) => group(&of.group),
            Op::GroupApprove(of) | Op::GroupReject(of) | Op::GroupTransfer(of) => group(&of.group),
            Op::GroupInvite(of) | Op::GroupKick(of) => group(&of.group),
            Op::GroupRole(of) => group(&of.group),
            Op::GroupMute(of) | Op::GroupUnmute(of) => group(&of.group),
            Op::GroupSet(of) => group(&of.group),
            Op::GroupMembers(of) => group(&of.group),
            Op::ChannelCreate(create) => channel(create.channel.as_deref().unwrap_or_default()),
            Op::ChannelFollow(of) | Op::ChannelUnfollow(of) | Op::ChannelInfo(of) => {
                channel(&of.channel)
            }
            Op::ChannelPublishers(of) => channel(&of.channel),
            Op::ReceiptList(of) | Op::ReceiptCount(of) => self.conv_slot(&of.conv),
            _ => user.slot(),
        }
    }

    fn conv_slot(&self, wire: &str) -> Slot {
        let user = &self.caller.user;
        let conv = ConvKey::from_wire(&user.tenant, &user.id, wire);
        conv.map_or_else(|| user.slot(), |conv| conv.slot())
    }
}
