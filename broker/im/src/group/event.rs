//! `member` events: what they say, and who is out by them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::conversation::NewEntry;
use crate::entry::{Entry, EntryKind};
use crate::id::ConvKey;
use crate::refusal::Fault;
use crate::shard::Work;

/// Users named in one event; of more, the first are.
const USERS_MAX: usize = 500;

/// What has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberOp {
    /// They joined.
    Join,
    /// They were added.
    Invite,
    /// They left.
    Leave,
    /// They were removed.
    Kick,
    /// Their role changed.
    Role,
    /// They, or all, may not write.
    Mute,
    /// They, or all, may write again.
    Unmute,
    /// The owner is another.
    Transfer,
    /// The group has ended.
    Dissolve,
    /// Name, settings or info changed.
    Set,
}

impl MemberOp {
    /// Whether the log of a big group or channel keeps it (ruling 27).
    pub(crate) fn is_kept_when_big(self) -> bool {
        use MemberOp::{Dissolve, Kick, Leave, Role, Transfer};
        matches!(self, Role | Transfer | Kick | Leave | Dissolve)
    }
}

/// The payload of a `member` event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberEvent {
    /// What has happened.
    pub op: MemberOp,
    /// To whom; empty for the group as a whole.
    pub users: Vec<Arc<str>>,
    /// Who did it.
    pub by: Arc<str>,
}

impl MemberEvent {
    /// What an entry says; `None` when it is no `member` event.
    pub fn of(entry: &Entry) -> Option<MemberEvent> {
        if entry.kind != EntryKind::Member {
            return None;
        }
        serde_json::from_slice(&entry.payload).ok()
    }

    /// Whether the user is out by it: nothing behind this entry is for that user (ruling 25).
    pub fn removes(&self, user: &str) -> bool {
        match self.op {
            MemberOp::Kick | MemberOp::Leave => self.users.iter().any(|out| **out == *user),
            MemberOp::Dissolve => true,
            _ => false,
        }
    }
}

impl Work<'_> {
    /// Stores a `member` event.
    pub(crate) fn member_event(
        &mut self,
        conv: &ConvKey,
        op: MemberOp,
        users: &[Arc<str>],
        by: &Arc<str>,
    ) -> Result<Arc<Entry>, Fault> {
        let users = users[..users.len().min(USERS_MAX)].to_vec();
        let event = MemberEvent { op, users, by: by.clone() };
        // Three plain fields: there is nothing in them that JSON cannot hold.
        let payload = serde_json::to_vec(&event).unwrap_or_default();
        self.append(conv, NewEntry::event(EntryKind::Member, 0, by, payload.into()))
    }
}
