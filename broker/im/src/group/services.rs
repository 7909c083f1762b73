//! The service `group`: who may do what, and what comes of it.

use std::sync::Arc;

use hoopoe_store::kv::Family;
use serde_json::{Value, json};

use super::event::MemberOp;
use super::{ADMINS_MAX, AskedRow, GroupRow, MemberRow, Role};
use crate::id::{ConvKey, is_id};
use crate::keys::{self, conv_kind};
use crate::refusal::{Fault, Refusal, Word};
use crate::service::ops::{
    GivenRole, GroupCreate, GroupJoin, GroupMute, GroupRole, GroupSet, GroupUser, GroupUsers, Join,
};
use crate::service::{Caller, Op};
use crate::shard::{Due, Work};
use crate::user::services::{check_info, check_text};

/// Users that one request names: each costs looks at the store and news to a shard, in one turn.
pub(super) const USERS_MAX: usize = 500;

/// The group that a request names.
pub(crate) fn group_of(caller: &Caller, group: &str) -> Result<ConvKey, Refusal> {
    check_id("group", group)?;
    Ok(ConvKey::group(&caller.user.tenant, group))
}

/// Refuses what is no id, naming the field.
pub(crate) fn check_id(field: &str, id: &str) -> Result<(), Refusal> {
    if is_id(id) {
        return Ok(());
    }
    Err(Refusal::bad_request(format!("{field}: {id:?} is no valid id")))
}

/// The users that a request names, each once, in its order.
pub(crate) fn users_of(field: &str, users: &[String]) -> Result<Vec<Arc<str>>, Refusal> {
    if users.len() > USERS_MAX {
        let text = format!("{field}: more than {USERS_MAX}: name the others in further calls");
        return Err(Refusal::bad_request(text));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut unique = Vec::with_capacity(users.len());
    for user in users {
        check_id(field, user)?;
        if seen.insert(user.as_str()) {
            unique.push(Arc::from(user.as_str()));
        }
    }
    Ok(unique)
}

impl Work<'_> {
    /// Operations of the service `group`.
    pub(crate) fn group_call(&mut self, caller: &Caller, op: &Op) -> Result<Value, Fault> {
        match op {
            Op::GroupCreate(create) => self.group_create(caller, create),
            Op::GroupJoin(join) => self.group_join(caller, join, false),
            Op::GroupApply(join) => self.group_join(caller, join, true),
            Op::GroupApprove(of) => self.group_approve(caller, of),
            Op::GroupReject(of) => self.group_reject(caller, of),
            Op::GroupInvite(of) => self.group_invite(caller, of),
            Op::GroupKick(of) => self.group_kick(caller, of),
            Op::GroupLeave(of) => self.group_leave(caller, &of.group),
            Op::GroupDissolve(of) => self.group_dissolve(caller, &of.group),
            Op::GroupRole(of) => self.group_role(caller, of),
            Op::GroupTransfer(of) => self.group_transfer(caller, of),
            Op::GroupMute(of) => self.group_mute(caller, of, true),
            Op::GroupUnmute(of) => self.group_mute(caller, of, false),
            Op::GroupSet(set) => self.group_set(caller, set),
            _ => Err(Refusal::not_found("no operation of groups").into()),
        }
    }

    fn group_create(&mut self, caller: &Caller, create: &GroupCreate) -> Result<Value, Fault> {
        let id = create.group.as_deref();
        let id = id.ok_or_else(|| Refusal::bad_request("group: no id was made"))?;
        let conv = group_of(caller, id)?;
        check_text("name", &create.name)?;
        check_info(create.info.as_ref())?;
        if create.until.is_some_and(|until| until <= self.now_ms) {
            return Err(Refusal::bad_request("until: is over").into());
        }
        // An id is never used again: the log of a dissolved group is still read.
        if self.txn.has(Family::Im, &keys::conv(&conv, conv_kind::GROUP))? {
            return Err(Refusal::new(Word::Exists, format!("group {id} exists")).into());
        }
        let owner = caller.user.id.clone();
        let mut members = users_of("members", &create.members)?;
        members.retain(|user| *user != owner);
        let mut group = GroupRow {
            name: create.name.clone(),
            owner: owner.to_string(),
            admins: Vec::new(),
            join: create.join,
            history: create.history,
            until_ms: create.until,
            info: create.info.clone().unwrap_or_default(),
            muted_until_ms: 0,
            members: 0,
            big: false,
            dissolved: false,
            ended_seq: 0,
            untold: None,
            created_ms: self.now_ms,
        };
        self.check_room(&group, members.len() + 1)?;
        self.check_joined(&conv, &owner)?;
        for user in &members {
            self.check_joined(&conv, user)?;
            self.check_not_blocked(&conv, &owner, user)?;
        }
        let asked = if self.asks_first(caller) { std::mem::take(&mut members) } else { vec![] };
        for user in &asked {
            self.put_invited(&conv, &owner, user)?;
        }
        members.insert(0, owner.clone());
        self.add_members(&conv, &mut group, &members, MemberOp::Join, &owner)?;
        if self.is_big(group.members) {
            // Every log begins with how it came to be.
            self.member_event(&conv, MemberOp::Join, std::slice::from_ref(&owner), &owner)?;
        }
        if let Some(mut row) = self.member(&conv, &owner)? {
            row.role = Role::Owner;
            self.put_member(&conv, &owner, &row);
        }
        self.put_group(&conv, &group);
        if let Some(until) = group.until_ms {
            self.schedule(until, Due::GroupEnd(conv.clone()));
        }
        let what = format!("invite/{id}/{owner}");
        self.group_notice(&conv, asked.iter().map(|user| &**user), &what, &group.name);
        Ok(json!({ "group": id, "seq": self.head(&conv)?.last }))
    }

    /// What the caller may do in the group; an operator may do everything.
    fn role_of(&mut self, conv: &ConvKey, caller: &Caller) -> Result<Role, Fault> {
        if caller.privileged {
            return Ok(Role::Owner);
        }
        match self.current_member(conv, &caller.user.id)? {
            Some(member) => Ok(member.role),
            None => Err(Refusal::not_allowed(format!("not a member of {}", conv.id())).into()),
        }
    }

    fn need(&mut self, conv: &ConvKey, caller: &Caller, least: Role) -> Result<Role, Fault> {
        let role = self.role_of(conv, caller)?;
        if role >= least {
            return Ok(role);
        }
        let who = if least == Role::Owner { "only the owner" } else { "only owner and admins" };
        Err(Refusal::not_allowed(format!("{who} may do this")).into())
    }

    /// A member that the request names.
    fn named_member(&mut self, conv: &ConvKey, user: &str) -> Result<MemberRow, Fault> {
        check_id("user", user)?;
        let member = self.current_member(conv, user)?;
        let missing = || Refusal::not_found(format!("{user} is not a member of {}", conv.id()));
        member.ok_or_else(|| missing().into())
    }

    fn asked(&mut self, conv: &ConvKey, user: &str) -> Result<Option<AskedRow>, Fault> {
        Ok(self.txn.json(&keys::conv_name(conv, conv_kind::ASKED, user))?)
    }

    fn put_asked(&mut self, conv: &ConvKey, user: &str, row: &AskedRow) -> Result<(), Fault> {
        let key = keys::conv_name(conv, conv_kind::ASKED, user);
        let most = self.settings.requests_max;
        if !self.txn.has(Family::Im, &key)? {
            let prefix = keys::conv_prefix(conv, conv_kind::ASKED);
            if self.txn.keys(Family::Im, &prefix, most)?.len() >= most {
                return Err(Refusal::limit(format!("{most} requests wait already")).into());
            }
        }
        self.txn.put_json(&key, row);
        Ok(())
    }

    /// Tells users something about a group that its log does not.
    fn group_notice<'u>(
        &mut self,
        conv: &ConvKey,
        users: impl IntoIterator<Item = &'u str>,
        what: &str,
        payload: &str,
    ) {
        for user in users {
            let user = self.user_of(conv, user);
            let topic = format!("im/me/sys/notice/group/{what}");
            self.notice(user, topic, payload.to_owned());
        }
    }

    fn group_join(
        &mut self,
        caller: &Caller,
        join: &GroupJoin,
        applies: bool,
    ) -> Result<Value, Fault> {
        let conv = group_of(caller, &join.group)?;
        let user = &caller.user.id;
        let message = join.message.clone().unwrap_or_default();
        check_text("message", &message)?;
        let mut group = self.group(&conv)?;
        if self.is_member(&conv, user)? {
            return Ok(json!({ "state": "member" }));
        }
        let invited = self.asked(&conv, user)?.is_some_and(|row| row.by.is_some());
        if group.join == Join::Open || invited {
            self.check_room(&group, 1)?;
            self.check_joined(&conv, user)?;
            self.add_members(&conv, &mut group, std::slice::from_ref(user), MemberOp::Join, user)?;
            self.put_group(&conv, &group);
            return Ok(json!({ "state": "member" }));
        }
        if group.join == Join::Invite {
            return Err(Refusal::not_allowed("members of this group are invited").into());
        }
        if !applies {
            return Err(Refusal::not_allowed("this group is to be asked: use apply").into());
        }
        let row = AskedRow { by: None, message: message.clone(), since_ms: self.now_ms };
        self.put_asked(&conv, user, &row)?;
        let what = format!("apply/{}/{user}", conv.id());
        let deciders: Vec<&str> =
            group.admins.iter().chain([&group.owner]).map(String::as_str).collect();
        self.group_notice(&conv, deciders, &what, &message);
        Ok(json!({ "state": "applied" }))
    }

    fn group_approve(&mut self, caller: &Caller, of: &GroupUser) -> Result<Value, Fault> {
        let conv = group_of(caller, &of.group)?;
        let mut group = self.group(&conv)?;
        self.need(&conv, caller, Role::Admin)?;
        check_id("user", &of.user)?;
        if self.asked(&conv, &of.user)?.is_none_or(|row| row.by.is_some()) {
            return Err(Refusal::not_found(format!("{} has not applied", of.user)).into());
        }
        self.check_room(&group, 1)?;
        self.check_joined(&conv, &of.user)?;
        let user = [Arc::from(of.user.as_str())];
        self.add_members(&conv, &mut group, &user, MemberOp::Join, &caller.user.id)?;
        self.put_group(&conv, &group);
        let what = format!("approve/{}", conv.id());
        self.group_notice(&conv, [of.user.as_str()], &what, "");
        Ok(json!({}))
    }

    /// Declines an application; whoever was asked declines with the own name.
    fn group_reject(&mut self, caller: &Caller, of: &GroupUser) -> Result<Value, Fault> {
        let conv = group_of(caller, &of.group)?;
        self.group(&conv)?;
        check_id("user", &of.user)?;
        let own = *of.user == *caller.user.id;
        if !own {
            self.need(&conv, caller, Role::Admin)?;
        }
        if self.asked(&conv, &of.user)?.is_none() {
            return Err(Refusal::not_found(format!("{} has not applied", of.user)).into());
        }
        self.txn.delete(Family::Im, &keys::conv_name(&conv, conv_kind::ASKED, &of.user));
        if !own {
            let what = format!("reject/{}", conv.id());
            self.group_notice(&conv, [of.user.as_str()], &what, "");
        }
        Ok(json!({}))
    }

    fn group_invite(&mut self, caller: &Caller, of: &GroupUsers) -> Result<Value, Fault> {
        let conv = group_of(caller, &of.group)?;
        let mut group = self.group(&conv)?;
        let users = users_of("users", &of.users)?;
        // Where anyone may join, members may bring others along.
        let least = if group.join == Join::Open { Role::Member } else { Role::Admin };
        self.need(&conv, caller, least)?;
        let by = &caller.user.id;
        let (mut added, mut asked, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for user in users {
            match self.judge_invitation(&conv, &group, caller, &user, added.len()) {
                Ok(true) => added.push(user),
                Ok(false) => asked.push(user),
                Err(Fault::Refused(refusal)) => refused.push(json!({
                    "user": user, "error": refusal.word.as_str(), "message": refusal.message,
                })),
                Err(fault) => return Err(fault),
            }
        }
        if !added.is_empty() {
            self.add_members(&conv, &mut group, &added, MemberOp::Invite, by)?;
            self.put_group(&conv, &group);
        }
        let what = format!("invite/{}/{by}", conv.id());
        self.group_notice(&conv, asked.iter().map(|user| &**user), &what, &group.name);
        Ok(json!({ "added": added, "asked": asked, "refused": refused }))
    }

    /// Whether the user is added at once, or asked first, which is written here.
    fn judge_invitation(
        &mut self,
        conv: &ConvKey,
        group: &GroupRow,
        caller: &Caller,
        user: &str,
        more: usize,
    ) -> Result<bool, Fault> {
        if self.is_member(conv, user)? {
            return Err(Refusal::new(Word::Exists, "a member already").into());
        }
        if !caller.privileged {
            self.check_not_blocked(conv, &caller.user.id, user)?;
        }
        self.check_room(group, more + 1)?;
        self.check_joined(conv, user)?;
        let applied = self.asked(conv, user)?.is_some_and(|row| row.by.is_none());
        if applied || !self.asks_first(caller) {
            return Ok(true);
        }
        self.put_invited(conv, &caller.user.id, user)?;
        Ok(false)
    }

    /// Whether those whom the caller would add are asked first.
    fn asks_first(&self, caller: &Caller) -> bool {
        self.settings.invite_consent && !caller.privileged
    }

    fn put_invited(&mut self, conv: &ConvKey, by: &str, user: &str) -> Result<(), Fault> {
        let by = Some(by.to_owned());
        let row = AskedRow { by, message: String::new(), since_ms: self.now_ms };
        self.put_asked(conv, user, &row)
    }

    fn group_kick(&mut self, caller: &Caller, of: &GroupUsers) -> Result<Value, Fault> {
        let conv = group_of(caller, &of.group)?;
        let mut group = self.group(&conv)?;
        let role = self.need(&conv, caller, Role::Admin)?;
        let mut gone = Vec::new();
        for user in users_of("users", &of.users)? {
            let member = self.named_member(&conv, &user)?;
            if member.role == Role::Owner {
                return Err(Refusal::not_allowed("the owner cannot be removed").into());
            }
            if member.role >= role {
                return Err(Refusal::not_allowed("only the owner removes admins").into());
            }
            gone.push((user, member));
        }
        if gone.is_empty() {
            return Err(Refusal::bad_request("users: is empty").into());
        }
        self.remove_members(&conv, &mut group, gone, MemberOp::Kick, &caller.user.id)?;
        Ok(json!({}))
    }

    fn group_leave(&mut self, caller: &Caller, group: &str) -> Result<Value, Fault> {
        let conv = group_of(caller, group)?;
        let mut group = self.group(&conv)?;
        let user = &caller.user.id;
        let Some(member) = self.current_member(&conv, user)? else {
            return Err(Refusal::not_allowed(format!("not a member of {}", conv.id())).into());
        };
        if member.role == Role::Owner {
            let text = "the owner leaves after transfer, or dissolves the group";
            return Err(Refusal::conflict(text).into());
        }
        let gone = vec![(user.clone(), member)];
        self.remove_members(&conv, &mut group, gone, MemberOp::Leave, user)?;
        Ok(json!({}))
    }

    fn group_dissolve(&mut self, caller: &Caller, group: &str) -> Result<Value, Fault> {
        let conv = group_of(caller, group)?;
        let group = self.group(&conv)?;
        self.need(&conv, caller, Role::Owner)?;
        self.dissolve(&conv, group, &caller.user.id)?;
        Ok(json!({}))
    }

    fn group_role(&mut self, caller: &Caller, of: &GroupRole) -> Result<Value, Fault> {
        let conv = group_of(caller, &of.group)?;
        let mut group = self.group(&conv)?;
        self.need(&conv, caller, Role::Owner)?;
        let mut member = self.named_member(&conv, &of.user)?;
        let role = match of.role {
            GivenRole::Admin => Role::Admin,
            GivenRole::Member => Role::Member,
        };
        if member.role == Role::Owner {
            return Err(Refusal::conflict("the owner's role changes by transfer").into());
        }
        if member.role == role {
            return Ok(json!({}));
        }
        group.admins.retain(|admin| *admin != of.user);
        if role == Role::Admin {
            if group.admins.len() >= ADMINS_MAX {
                return Err(Refusal::limit(format!("more than {ADMINS_MAX} admins")).into());
            }
            group.admins.push(of.user.clone());
        }
        member.role = role;
        self.put_member(&conv, &of.user, &member);
        self.put_group(&conv, &group);
        let users = [Arc::from(of.user.as_str())];
        self.member_event(&conv, MemberOp::Role, &users, &caller.user.id)?;
        Ok(json!({}))
    }

    fn group_transfer(&mut self, caller: &Caller, of: &GroupUser) -> Result<Value, Fault> {
        let conv = group_of(caller, &of.group)?;
        let mut group = self.group(&conv)?;
        self.need(&conv, caller, Role::Owner)?;
        let mut member = self.named_member(&conv, &of.user)?;
        if member.role == Role::Owner {
            return Ok(json!({}));
        }
        let before = std::mem::replace(&mut group.owner, of.user.clone());
        group.admins.retain(|admin| *admin != of.user);
        member.role = Role::Owner;
        self.put_member(&conv, &of.user, &member);
        if let Some(mut member) = self.current_member(&conv, &before)? {
            let room = group.admins.len() < ADMINS_MAX;
            member.role = if room { Role::Admin } else { Role::Member };
            self.put_member(&conv, &before, &member);
            if room {
                group.admins.push(before);
            }
        }
        self.put_group(&conv, &group);
        let users = [Arc::from(of.user.as_str())];
        self.member_event(&conv, MemberOp::Transfer, &users, &caller.user.id)?;
        Ok(json!({}))
    }

    fn group_mute(&mut self, caller: &Caller, of: &GroupMute, on: bool) -> Result<Value, Fault> {
        let conv = group_of(caller, &of.group)?;
        let mut group = self.group(&conv)?;
        let role = self.need(&conv, caller, Role::Admin)?;
        let until = if on { of.until.unwrap_or(u64::MAX) } else { 0 };
        let op = if on { MemberOp::Mute } else { MemberOp::Unmute };
        let mut users: Vec<Arc<str>> = Vec::new();
        match &of.user {
            None => {
                group.muted_until_ms = until;
                self.put_group(&conv, &group);
            }
            Some(user) => {
                let mut member = self.named_member(&conv, user)?;
                if member.role >= role {
                    let text = "only members of a lower role are muted";
                    return Err(Refusal::not_allowed(text).into());
                }
                member.muted_until_ms = until;
                self.put_member(&conv, user, &member);
                users.push(user.as_str().into());
            }
        }
        self.tell_members(&conv, &group, op, &users, &caller.user.id)?;
        Ok(json!({}))
    }

    fn group_set(&mut self, caller: &Caller, set: &GroupSet) -> Result<Value, Fault> {
        let conv = group_of(caller, &set.group)?;
        let before = self.group(&conv)?;
        self.need(&conv, caller, Role::Admin)?;
        check_text("name", set.name.as_deref().unwrap_or_default())?;
        check_info(set.info.as_ref())?;
        let mut group = before.clone();
        if let Some(name) = &set.name {
            group.name.clone_from(name);
        }
        if let Some(info) = &set.info {
            group.info.clone_from(info);
        }
        group.join = set.join.unwrap_or(group.join);
        group.history = set.history.unwrap_or(group.history);
        if group != before {
            self.put_group(&conv, &group);
            self.tell_members(&conv, &group, MemberOp::Set, &[], &caller.user.id)?;
        }
        Ok(json!({}))
    }

    /// An event that the log of a big group does not keep: there the users it names get a notice.
    fn tell_members(
        &mut self,
        conv: &ConvKey,
        group: &GroupRow,
        op: MemberOp,
        users: &[Arc<str>],
        by: &Arc<str>,
    ) -> Result<(), Fault> {
        if op.is_kept_when_big() || !self.is_big(group.members) {
            self.member_event(conv, op, users, by)?;
            return Ok(());
        }
        let word = if op == MemberOp::Mute { "mute" } else { "unmute" };
        let what = format!("{word}/{}", conv.id());
        self.group_notice(conv, users.iter().map(|user| &**user), &what, "");
        Ok(())
    }
}
