//! What the service `room` does to one room.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Caller, FOR_EVER, Room, RoomCall, RoomRow, RoomSettings, Ticket};
use crate::refusal::{Refusal, Word};

/// Who has to leave the room now. The room itself knows them no more.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Evicted {
    /// Nobody.
    #[default]
    Nobody,
    /// One user, with every device.
    User(String),
    /// Everybody who was in the room: it is closed.
    Everybody(Vec<Arc<str>>),
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Moderated {
    /// The body of the answer.
    pub answer: Value,
    /// The row has changed and is to be stored before the answer leaves.
    pub changed: bool,
    /// Who has to leave.
    pub evicted: Evicted,
}

/// Ranks a caller: who may do what to whom is a comparison.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rank {
    Viewer,
    Moderator,
    Owner,
    /// May do anything in any room, to its owner too.
    Admin,
}

impl Room {
    /// What `caller` asks of the room.
    pub fn serve(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        caller: Caller<'_>,
        call: RoomCall,
    ) -> Result<Moderated, Refusal> {
        match call {
            RoomCall::Create { name, ticket, .. } => self.create(now_ms, caller, name, ticket),
            RoomCall::Info => Ok(answer(self.info(now_ms, caller))),
            RoomCall::Members { limit } => self.members(now_ms, caller, limit),
            RoomCall::Mute { user, until } => {
                self.mute(settings, now_ms, caller, user, until.unwrap_or(FOR_EVER))
            }
            RoomCall::Unmute { user } => self.mute(settings, now_ms, caller, user, 0),
            RoomCall::Ban { user, until } => {
                self.ban(settings, now_ms, caller, user, until.unwrap_or(FOR_EVER))
            }
            RoomCall::Unban { user } => {
                self.must_rule(caller, &user)?;
                let banned = self.row.bans.remove(&user).is_some();
                let muted = self.row.mutes.remove(&user).is_some();
                Ok(self.stored(now_ms, banned || muted))
            }
            RoomCall::Close => self.close(now_ms, caller),
            RoomCall::Invite { users } => self.invite(settings, now_ms, caller, users),
            RoomCall::Role { user, moderator } => {
                self.role(settings, now_ms, caller, user, moderator)
            }
        }
    }

    /// A room that came with its viewers and belongs to nobody becomes the caller's; a closed one
    /// is opened again by its owner.
    fn create(
        &mut self,
        now_ms: u64,
        caller: Caller<'_>,
        name: String,
        ticket: Ticket,
    ) -> Result<Moderated, Refusal> {
        let closed = self.row.closed_ms.is_some();
        let free = if closed { self.rank(caller) >= Rank::Owner } else { self.row.owner.is_none() };
        if !free {
            return Err(Refusal::new(Word::Exists, "there is a room with this id"));
        }
        self.row = RoomRow {
            version: self.row.version,
            name,
            owner: Some(caller.user.to_owned()),
            ticket,
            created_ms: now_ms,
            ..RoomRow::default()
        };
        let answer = json!({ "room": self.id() });
        Ok(Moderated { answer, ..self.stored(now_ms, true) })
    }

    fn info(&self, now_ms: u64, caller: Caller<'_>) -> Value {
        let row = &self.row;
        let muted = row.all_muted_until > now_ms || row.is_muted(caller.user, now_ms);
        json!({
            "room": self.id(),
            "name": row.name,
            "owner": row.owner,
            "viewers": self.viewers(),
            "muted": muted,
        })
    }

    fn members(&self, now_ms: u64, caller: Caller<'_>, limit: usize) -> Result<Moderated, Refusal> {
        if self.rank(caller) == Rank::Viewer {
            self.may_join(caller.user, now_ms)?;
        }
        let sample = self.sample(limit, now_ms);
        Ok(answer(json!({ "viewers": self.viewers(), "sample": sample })))
    }

    fn mute(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        caller: Caller<'_>,
        user: Option<String>,
        until: u64,
    ) -> Result<Moderated, Refusal> {
        let Some(user) = user else {
            if self.rank(caller) < Rank::Moderator {
                return Err(stewards_only());
            }
            self.row.all_muted_until = if until > now_ms { until } else { 0 };
            return Ok(self.stored(now_ms, true));
        };
        self.must_rule(caller, &user)?;
        list(settings, now_ms, &mut self.row.mutes, user, until)?;
        Ok(self.stored(now_ms, true))
    }

    fn ban(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        caller: Caller<'_>,
        user: String,
        until: u64,
    ) -> Result<Moderated, Refusal> {
        self.must_rule(caller, &user)?;
        list(settings, now_ms, &mut self.row.bans, user.clone(), until)?;
        self.row.invited.remove(&user);
        let mut moderated = self.stored(now_ms, true);
        if until > now_ms {
            self.ring.forget(&user);
            if self.remove(settings, now_ms, &user) {
                moderated.evicted = Evicted::User(user);
            }
        }
        Ok(moderated)
    }

    fn close(&mut self, now_ms: u64, caller: Caller<'_>) -> Result<Moderated, Refusal> {
        if self.rank(caller) < Rank::Moderator {
            return Err(stewards_only());
        }
        if self.row.closed_ms.is_some() {
            return Ok(answer(json!({})));
        }
        Ok(self.shut(now_ms))
    }

    fn shut(&mut self, now_ms: u64) -> Moderated {
        let users = self.clear(now_ms);
        self.row = RoomRow {
            version: self.row.version,
            owner: self.row.owner.take(),
            name: std::mem::take(&mut self.row.name),
            created_ms: self.row.created_ms,
            closed_ms: Some(now_ms),
            ..RoomRow::default()
        };
        Moderated { evicted: Evicted::Everybody(users), ..self.stored(now_ms, true) }
    }

    /// A user is erased: what the user said is shown no more, and the room's lists know the id no
    /// more; whoever has it later begins afresh. What the user owned goes to a moderator, the first
    /// by name. Without one it ends as a group does: it is closed, and operators alone open it
    /// again. `None`: the row says nothing of the user.
    pub fn erase(&mut self, now_ms: u64, user: &str) -> Option<Moderated> {
        self.ring.forget(user);
        let row = &mut self.row;
        let owned = row.owner.as_deref() == Some(user);
        let helped = row.moderators.remove(user) | row.invited.remove(user);
        let kept_out = row.mutes.remove(user).is_some() | row.bans.remove(user).is_some();
        if !owned && !helped && !kept_out {
            return None;
        }
        if owned {
            row.owner = row.moderators.pop_first();
        }
        if owned && row.owner.is_none() && row.closed_ms.is_none() {
            return Some(self.shut(now_ms));
        }
        Some(self.stored(now_ms, true))
    }

    fn invite(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        caller: Caller<'_>,
        users: Vec<String>,
    ) -> Result<Moderated, Refusal> {
        if self.rank(caller) < Rank::Moderator {
            return Err(stewards_only());
        }
        let new = users.iter().filter(|user| !self.row.invited.contains(*user)).count();
        if new > 0 {
            settings.has_place(self.row.invited.len() + new - 1)?;
        }
        self.row.invited.extend(users);
        Ok(self.stored(now_ms, new > 0))
    }

    fn role(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        caller: Caller<'_>,
        user: String,
        moderator: bool,
    ) -> Result<Moderated, Refusal> {
        if self.rank(caller) < Rank::Owner {
            return Err(Refusal::not_allowed("only the room's owner names moderators"));
        }
        let changed = if moderator {
            settings.has_place(self.row.moderators.len())?;
            self.row.moderators.insert(user)
        } else {
            self.row.moderators.remove(&user)
        };
        Ok(self.stored(now_ms, changed))
    }

    fn rank(&self, caller: Caller<'_>) -> Rank {
        if caller.admin { Rank::Admin } else { self.rank_of(caller.user) }
    }

    fn rank_of(&self, user: &str) -> Rank {
        if self.row.owner.as_deref() == Some(user) {
            Rank::Owner
        } else if self.row.moderators.contains(user) {
            Rank::Moderator
        } else {
            Rank::Viewer
        }
    }

    /// Owners rule moderators, both rule viewers, nobody rules their equal.
    fn must_rule(&self, caller: Caller<'_>, user: &str) -> Result<(), Refusal> {
        let rank = self.rank(caller);
        if rank < Rank::Moderator {
            Err(stewards_only())
        } else if rank <= self.rank_of(user) {
            Err(Refusal::not_allowed("not to the room's owner, nor to fellow moderators"))
        } else {
            Ok(())
        }
    }

    fn stored(&mut self, now_ms: u64, changed: bool) -> Moderated {
        if changed {
            self.row.forget_past(now_ms);
            self.row.version += 1;
        }
        Moderated { answer: json!({}), changed, evicted: Evicted::Nobody }
    }
}

fn list(
    settings: &RoomSettings,
    now_ms: u64,
    users: &mut BTreeMap<String, u64>,
    user: String,
    until: u64,
) -> Result<(), Refusal> {
    users.retain(|_, until| *until > now_ms);
    if until > now_ms {
        if !users.contains_key(&user) {
            settings.has_place(users.len())?;
        }
        users.insert(user, until);
    } else {
        users.remove(&user);
    }
    Ok(())
}

fn answer(answer: Value) -> Moderated {
    Moderated { answer, ..Moderated::default() }
}

fn stewards_only() -> Refusal {
    Refusal::not_allowed("only the room's owner and moderators may")
}
