//! Members come and go. Each change writes the member's row and owes the user's shard the news.

use std::ops::ControlFlow;
use std::sync::Arc;

use hoopoe_store::kv::Family;

use super::event::MemberOp;
use super::{GroupRow, MemberRow, Role};
use crate::command::{Forward, Listed};
use crate::effect::Effect;
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::{Interval, Intervals, Joined, PairRow};
use crate::service::ops::History;
use crate::shard::{Due, Work};

/// Memberships of one user in one conversation; beyond it the oldest is forgotten.
const MOST_INTERVALS: usize = 32;
/// Members of a dissolved group told in one commit.
const MOST_TOLD: usize = 1_000;

impl Work<'_> {
    /// Refuses what would exceed the number of groups or channels of a user. Early and from
    /// committed rows: two joins at the same moment may both pass.
    pub(crate) fn check_joined(&mut self, conv: &ConvKey, user: &str) -> Result<(), Fault> {
        let key = keys::user(conv.tenant(), user, user_kind::JOINED);
        let joined: Joined = match self.txn.peek(Family::Im, &key)? {
            Some(row) => crate::txn::read_json(&key, &row)?,
            None => Joined::default(),
        };
        let (is, most, what) = match conv.kind() {
            ConvKind::Channel => (joined.channels, self.settings.channels_max, "channels"),
            _ => (joined.groups, self.settings.groups_max, "groups"),
        };
        if is >= most as u64 {
            return Err(Refusal::limit(format!("{user} is in {most} {what} already")).into());
        }
        Ok(())
    }

    /// Being added by somebody is a request: who has blocked that user is not (ruling 25).
    pub(crate) fn check_not_blocked(
        &mut self,
        conv: &ConvKey,
        by: &str,
        user: &str,
    ) -> Result<(), Fault> {
        let pair = ConvKey::pair(conv.tenant(), by, user);
        let key = keys::conv(&pair, conv_kind::PAIR);
        let Some(row) = self.txn.peek(Family::Im, &key)? else { return Ok(()) };
        let row: PairRow = crate::txn::read_json(&key, &row)?;
        if row.blocks(&pair, user) {
            return Err(Refusal::not_allowed(format!("{user} has blocked you")).into());
        }
        Ok(())
    }

    pub(crate) fn check_room(&self, group: &GroupRow, more: usize) -> Result<(), Refusal> {
        let most = self.settings.group_members_max;
        if group.members + more as u64 > most {
            return Err(Refusal::limit(format!("more than {most} members")));
        }
        Ok(())
    }

    /// Users become members: a new interval from the join's seq on, or from the first entry with
    /// `history = all` (ruling 25). Who comes for the first time begins at the join; who is back
    /// has read and received what it had before. The caller writes the group's row.
    pub(crate) fn add_members(
        &mut self,
        conv: &ConvKey,
        group: &mut GroupRow,
        users: &[Arc<str>],
        op: MemberOp,
        by: &Arc<str>,
    ) -> Result<(), Fault> {
        let before = self.head(conv)?;
        group.members += users.len() as u64;
        group.big = self.is_big(group.members);
        if !group.big {
            self.member_event(conv, op, users, by)?;
        }
        let all = group.history == History::All;
        for user in users {
            let from = if all { 1 } else { before.last + 1 };
            let is_back = self.member(conv, user)?.is_some_and(|row| !row.intervals.is_empty());
            let start = if is_back { (0, 0) } else { (before.last, before.count) };
            let member = self.begin_membership(conv, user, (from, start.0), Role::Member)?;
            let asked = keys::conv_name(conv, conv_kind::ASKED, user);
            if self.txn.has(Family::Im, &asked)? {
                self.txn.delete(Family::Im, &asked);
            }
            self.list_member(conv, user, &member, start);
        }
        Ok(())
    }

    /// Opens an interval in a member's row; `start` is what its cursors pass.
    pub(crate) fn begin_membership(
        &mut self,
        conv: &ConvKey,
        user: &str,
        (from, start): (u64, u64),
        role: Role,
    ) -> Result<MemberRow, Fault> {
        let before = self.member(conv, user)?;
        let mut member = before.unwrap_or_else(|| MemberRow {
            role,
            intervals: Intervals::new(),
            muted_until_ms: 0,
            since_ms: 0,
            start: 0,
            version: 0,
        });
        member.start = member.start.max(start);
        // Whoever may see everything from here on needs none of the intervals inside it.
        member.intervals.retain(|interval| interval.from < from);
        #[cfg(feature = "planted")]
        if hoopoe_core::planted::has(hoopoe_core::planted::Bug::ForgetOldInterval) {
            member.intervals.clear();
        }
        if member.intervals.len() >= MOST_INTERVALS {
            member.intervals.remove(0);
        }
        member.intervals.push(Interval { from, until: None });
        member.role = role;
        member.since_ms = self.now_ms;
        member.version += 1;
        self.put_member(conv, user, &member);
        Ok(member)
    }

    /// Closes a member's interval: what is behind `until` is not for that user any more.
    pub(crate) fn end_membership(
        &mut self,
        conv: &ConvKey,
        user: &str,
        mut member: MemberRow,
        until: u64,
    ) {
        if let Some(interval) = member.intervals.last_mut() {
            interval.until = Some(until);
        }
        member.role = Role::Member;
        member.version += 1;
        self.put_member(conv, user, &member);
        self.list_member(conv, user, &member, (0, 0));
    }

    /// Owes the user's shard what the list is to say.
    pub(crate) fn list_member(
        &mut self,
        conv: &ConvKey,
        user: &str,
        member: &MemberRow,
        start: (u64, u64),
    ) {
        self.forward(Forward::Listed(Listed {
            tenant: conv.tenant().into(),
            user: user.into(),
            conv: conv.clone(),
            intervals: member.intervals.clone(),
            start: start.0,
            start_count: start.1,
            since_ms: member.since_ms,
            version: member.version,
        }));
    }

    /// Members are no members any more, from the event's seq on, which they still see.
    pub(crate) fn remove_members(
        &mut self,
        conv: &ConvKey,
        group: &mut GroupRow,
        gone: Vec<(Arc<str>, MemberRow)>,
        op: MemberOp,
        by: &Arc<str>,
    ) -> Result<(), Fault> {
        let users: Vec<Arc<str>> = gone.iter().map(|(user, _)| user.clone()).collect();
        let event = self.member_event(conv, op, &users, by)?;
        group.members -= users.len() as u64;
        group.big = self.is_big(group.members);
        group.admins.retain(|admin| !users.iter().any(|user| **user == **admin));
        for (user, member) in gone {
            self.end_membership(conv, &user, member, event.seq);
            // The news that they are out may reach their devices before the event does.
            self.txn.effect(Effect::EntryFor { user, entry: event.clone() });
        }
        self.put_group(conv, group);
        Ok(())
    }

    /// Ends a group. The log stays, to be read by those who were members up to the end.
    pub(crate) fn dissolve(
        &mut self,
        conv: &ConvKey,
        mut group: GroupRow,
        by: &Arc<str>,
    ) -> Result<(), Fault> {
        let event = self.member_event(conv, MemberOp::Dissolve, &[], by)?;
        group.dissolved = true;
        group.ended_seq = event.seq;
        group.untold = Some(String::new());
        let prefix = keys::conv_prefix(conv, conv_kind::ASKED);
        for key in self.txn.keys(Family::Im, &prefix, self.settings.requests_max)? {
            self.txn.delete(Family::Im, &key);
        }
        self.tell_of_end(conv, group)
    }

    /// Closes the intervals of the next members of a dissolved group. The log has ended with the
    /// event, so that nothing depends on how soon the last of them is told.
    fn tell_of_end(&mut self, conv: &ConvKey, mut group: GroupRow) -> Result<(), Fault> {
        let Some(after) = group.untold.take() else { return Ok(()) };
        let prefix = keys::conv_prefix(conv, conv_kind::MEMBER);
        let from = keys::conv_name(conv, conv_kind::MEMBER, &after);
        let (mut members, mut fault) = (Vec::new(), None);
        self.txn.scan(Family::Im, &prefix, &from, |key, row| {
            let name = keys::name_behind(key, &prefix);
            match crate::txn::read_json::<MemberRow>(key, row) {
                Ok(member) if member.is_current() => members.push((name.to_owned(), member)),
                Ok(_) => {}
                Err(error) => fault = Some(error),
            }
            let full = fault.is_some() || members.len() >= MOST_TOLD;
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(error) = fault {
            return Err(error.into());
        }
        if members.len() >= MOST_TOLD {
            group.untold = members.last().map(|(name, _)| name.clone());
            self.schedule(self.now_ms + 1, Due::GroupEnd(conv.clone()));
        }
        for (user, member) in members {
            self.end_membership(conv, &user, member, group.ended_seq);
        }
        self.put_group(conv, &group);
        Ok(())
    }

    /// The time of a temporary group is over, or members are still to be told of a group's end.
    pub(crate) fn group_ended(&mut self, conv: &ConvKey) -> Result<(), Fault> {
        let key = keys::conv(conv, conv_kind::GROUP);
        let Some(group) = self.txn.json::<GroupRow>(&key)? else { return Ok(()) };
        if group.dissolved {
            return self.tell_of_end(conv, group);
        }
        if group.until_ms.is_some_and(|until| until <= self.now_ms) {
            let owner = group.owner.as_str().into();
            self.dissolve(conv, group, &owner)?;
        }
        Ok(())
    }
}
