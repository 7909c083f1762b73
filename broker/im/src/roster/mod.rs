//! The roster: friends, requests, blocks. Each user's side is owned by that user's shard; what
//! concerns the other side travels as a [`RosterStep`], what concerns the pair's conversation is
//! mirrored into its record before the service answers (ruling 26).
//!
//! Each side numbers its steps, and takes the other's only in rising order: a step that is told
//! again after a crash changes nothing. A row stays when a relation ends, for these numbers.

use std::ops::ControlFlow;
use std::sync::Arc;

use hoopoe_store::kv::Family;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::command::{Forward, User};
use crate::group::services::check_id;
use crate::id::ConvKey;
use crate::keys::{self, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::service::ops::{RosterNote, RosterTag};
use crate::service::{Caller, Op};
use crate::shard::Work;
use crate::user::services::check_text;

/// Tags of one user in a roster.
const TAGS_MAX: usize = 20;

/// A step of one user's roster that concerns the other's.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RosterStep {
    /// The tenant.
    pub tenant: Arc<str>,
    /// Whose step it is.
    pub from: Arc<str>,
    /// Whom it concerns.
    pub to: Arc<str>,
    /// Which step of `from` towards `to` it is.
    pub number: u64,
    /// What.
    pub kind: RosterStepKind,
}

/// What one user's roster tells the other's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RosterStepKind {
    /// Asks to be friends.
    Request {
        /// A word.
        message: String,
    },
    /// Agrees.
    Accept,
    /// Declines.
    Reject,
    /// Ends it, or takes the request back.
    Remove,
}

/// What two users are to each other, as one of them sees it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// Nothing.
    #[default]
    None,
    /// Friends.
    Friend,
    /// The other has asked, and waits.
    Asked,
    /// The other was asked.
    Asking,
}

/// Another user in a user's roster.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct RosterRow {
    /// What they are to each other.
    pub relation: Relation,
    /// The other is blocked.
    #[serde(default)]
    pub blocked: bool,
    /// Own words for the other.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Own note about the other.
    #[serde(default)]
    pub note: String,
    /// Since when it is so, ms since the epoch.
    pub since_ms: u64,
    /// Steps told to the other's side.
    #[serde(default)]
    pub told: u64,
    /// Steps heard from the other's side.
    #[serde(default)]
    pub heard: u64,
}

/// What a roster holds: a row of its own, so that nobody looks through a roster to count it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Counts {
    /// Requests that wait for the user's answer.
    asked: usize,
    /// Requests that wait for others' answers.
    asking: usize,
    /// Users who are listed, these among them.
    #[serde(default)]
    listed: usize,
}

impl Counts {
    fn add(&mut self, row: &RosterRow) {
        self.change(row, |count| count + 1);
    }

    fn take(&mut self, row: &RosterRow) {
        self.change(row, |count| count.saturating_sub(1));
    }

    fn change(&mut self, row: &RosterRow, change: impl Fn(usize) -> usize) {
        match row.relation {
            Relation::Asked => self.asked = change(self.asked),
            Relation::Asking => self.asking = change(self.asking),
            Relation::None | Relation::Friend => {}
        }
        if row.is_listed() {
            self.listed = change(self.listed);
        }
    }
}

impl RosterRow {
    /// The word for it in answers; `none` is not listed.
    pub fn state(&self) -> &'static str {
        match self.relation {
            _ if self.blocked => "blocked",
            Relation::None => "none",
            Relation::Friend => "friend",
            Relation::Asked => "asked",
            Relation::Asking => "asking",
        }
    }

    /// Whether the other is in the list; a row without anything stays for its numbers alone.
    fn is_listed(&self) -> bool {
        self.blocked || self.relation != Relation::None
    }

    /// Whether this side agrees to be friends; when both do, they are.
    fn agrees(&self) -> bool {
        matches!(self.relation, Relation::Friend | Relation::Asking)
    }
}

impl Work<'_> {
    fn roster_row(&mut self, user: &User, other: &str) -> Result<RosterRow, Fault> {
        let key = keys::user_name(&user.tenant, &user.id, user_kind::ROSTER, other);
        Ok(self.txn.json(&key)?.unwrap_or_default())
    }

    fn put_roster(&mut self, user: &User, other: &str, row: &RosterRow) -> Result<(), Fault> {
        let before = self.roster_row(user, other)?;
        if (before.relation, before.blocked) != (row.relation, row.blocked) {
            let mut counts = self.roster_counts(user)?;
            counts.take(&before);
            counts.add(row);
            self.txn.put_json(&keys::user(&user.tenant, &user.id, user_kind::ROSTER), &counts);
        }
        let key = keys::user_name(&user.tenant, &user.id, user_kind::ROSTER, other);
        self.txn.put_json(&key, row);
        Ok(())
    }

    /// What the roster holds; one that has no such row yet is counted.
    fn roster_counts(&mut self, user: &User) -> Result<Counts, Fault> {
        if let Some(counts) =
            self.txn.json(&keys::user(&user.tenant, &user.id, user_kind::ROSTER))?
        {
            return Ok(counts);
        }
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::ROSTER);
        let (mut counts, mut fault) = (Counts::default(), None);
        self.txn.scan(Family::Im, &prefix, b"", |key, row| {
            match crate::txn::read_json::<RosterRow>(key, row) {
                Ok(row) => counts.add(&row),
                Err(error) => fault = Some(error),
            }
            if fault.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        fault.map_or(Ok(counts), |error| Err(error.into()))
    }

    /// Whether another user may come into the list.
    fn check_roster_room(&mut self, user: &User) -> Result<(), Fault> {
        let most = self.settings.roster_max;
        if self.roster_counts(user)?.listed >= most {
            return Err(Refusal::limit(format!("the roster has {most} users already")).into());
        }
        Ok(())
    }

    /// Owes the other's side a step.
    fn step(&mut self, user: &User, other: &str, row: &mut RosterRow, kind: RosterStepKind) {
        row.told += 1;
        self.forward(Forward::Roster(RosterStep {
            tenant: user.tenant.clone(),
            from: user.id.clone(),
            to: other.into(),
            number: row.told,
            kind,
        }));
    }

    fn mirror(&mut self, user: &User, other: &str, row: &RosterRow) -> Forward {
        Forward::Pair {
            conv: ConvKey::pair(&user.tenant, &user.id, other),
            user: user.id.clone(),
            blocks: row.blocked,
            friends: Some(row.agrees()),
        }
    }

    fn roster_notice(&mut self, user: &User, kind: &str, other: &str, text: &str) {
        let topic = format!("im/me/sys/notice/roster/{kind}/{other}");
        self.notice(user.clone(), topic, text.to_owned());
    }

    /// A step of another user's roster.
    pub(crate) fn roster_step(&mut self, step: &RosterStep) -> Result<(), Fault> {
        let user = User { tenant: step.tenant.clone(), id: step.to.clone() };
        let other = &*step.from;
        let mut row = self.roster_row(&user, other)?;
        if step.number <= row.heard {
            return Ok(());
        }
        row.heard = step.number;
        let before = (row.relation, row.agrees());
        match &step.kind {
            RosterStepKind::Request { message } => {
                self.requested(&user, other, &mut row, message)?;
            }
            RosterStepKind::Accept => match row.relation {
                Relation::Asking => {
                    row.relation = Relation::Friend;
                    self.roster_notice(&user, "accept", other, "");
                }
                Relation::Friend => {}
                // The request was taken back meanwhile.
                Relation::None | Relation::Asked => {
                    self.step(&user, other, &mut row, RosterStepKind::Remove);
                }
            },
            RosterStepKind::Reject => {
                if row.relation == Relation::Asking {
                    row.relation = Relation::None;
                    self.roster_notice(&user, "reject", other, "");
                }
            }
            RosterStepKind::Remove => {
                if matches!(row.relation, Relation::Friend | Relation::Asked) {
                    row.relation = Relation::None;
                    self.roster_notice(&user, "remove", other, "");
                }
            }
        }
        if row.relation != before.0 {
            row.since_ms = self.now_ms;
        }
        self.put_roster(&user, other, &row)?;
        if row.agrees() != before.1 {
            let mirror = self.mirror(&user, other, &row);
            self.forward(mirror);
        }
        Ok(())
    }

    fn requested(
        &mut self,
        user: &User,
        other: &str,
        row: &mut RosterRow,
        message: &str,
    ) -> Result<(), Fault> {
        match row.relation {
            // Both have asked: both agree.
            Relation::Asking => {
                row.relation = Relation::Friend;
                self.roster_notice(user, "accept", other, "");
            }
            Relation::Friend => self.step(user, other, row, RosterStepKind::Accept),
            Relation::Asked => {}
            Relation::None => {
                let counts = self.roster_counts(user)?;
                if row.blocked
                    || counts.asked >= self.settings.requests_max
                    || counts.listed >= self.settings.roster_max
                {
                    self.step(user, other, row, RosterStepKind::Reject);
                } else {
                    row.relation = Relation::Asked;
                    self.roster_notice(user, "request", other, message);
                }
            }
        }
        Ok(())
    }

    /// Operations of the service `roster`.
    pub(crate) fn roster_call(&mut self, caller: &Caller, op: &Op) -> Result<Value, Fault> {
        match op {
            Op::RosterTag(of) => return self.roster_tag(caller, of),
            Op::RosterNote(of) => return self.roster_note(caller, of),
            _ => {}
        }
        let (Op::RosterRequest(of)
        | Op::RosterAccept(of)
        | Op::RosterReject(of)
        | Op::RosterRemove(of)
        | Op::RosterBlock(of)
        | Op::RosterUnblock(of)) = op
        else {
            return Err(Refusal::not_found("no operation of the roster").into());
        };
        let (me, other) = (&caller.user, of.user.as_str());
        check_id("user", other)?;
        if *other == *me.id {
            return Err(Refusal::bad_request("user: that is you").into());
        }
        let message = of.message.as_deref().unwrap_or_default();
        check_text("message", message)?;
        let before = self.roster_row(me, other)?;
        let mut row = before.clone();
        match op {
            Op::RosterRequest(_) => self.roster_request(me, other, &mut row, message)?,
            Op::RosterAccept(_) => self.roster_accept(me, other, &mut row)?,
            Op::RosterReject(_) => {
                if row.relation != Relation::Asked {
                    return Err(Refusal::not_found(format!("{other} has not asked")).into());
                }
                self.roster_end(me, other, &mut row);
            }
            Op::RosterRemove(_) => {
                if row.relation == Relation::None {
                    return Err(Refusal::not_found(format!("{other} is not in the roster")).into());
                }
                self.roster_end(me, other, &mut row);
            }
            Op::RosterBlock(_) => {
                if !row.is_listed() {
                    self.check_roster_room(me)?;
                }
                row.blocked = true;
                if matches!(row.relation, Relation::Asked | Relation::Asking) {
                    self.roster_end(me, other, &mut row);
                }
            }
            _ => row.blocked = false,
        }
        if row != before {
            row.since_ms = self.now_ms;
            self.put_roster(me, other, &row)?;
        }
        // Also when nothing changes: the answer stands behind what may be under way to the mirror.
        let mirror = self.mirror(me, other, &row);
        self.forward_and_wait(mirror)?;
        Ok(json!({ "state": row.state() }))
    }

    fn roster_request(
        &mut self,
        me: &User,
        other: &str,
        row: &mut RosterRow,
        message: &str,
    ) -> Result<(), Fault> {
        if row.blocked {
            return Err(Refusal::conflict(format!("{other} is blocked: unblock first")).into());
        }
        match row.relation {
            Relation::Friend | Relation::Asking => return Ok(()),
            Relation::Asked => return self.roster_accept(me, other, row),
            Relation::None => {}
        }
        let pair = ConvKey::pair(&me.tenant, &me.id, other);
        self.check_not_blocked(&pair, &me.id, other)?;
        let most = self.settings.requests_max;
        if self.roster_counts(me)?.asking >= most {
            return Err(Refusal::limit(format!("{most} requests wait already")).into());
        }
        self.check_roster_room(me)?;
        row.relation = Relation::Asking;
        self.step(me, other, row, RosterStepKind::Request { message: message.to_owned() });
        Ok(())
    }

    fn roster_accept(&mut self, me: &User, other: &str, row: &mut RosterRow) -> Result<(), Fault> {
        match row.relation {
            Relation::Friend => Ok(()),
            Relation::Asked => {
                row.relation = Relation::Friend;
                self.step(me, other, row, RosterStepKind::Accept);
                Ok(())
            }
            _ => Err(Refusal::not_found(format!("{other} has not asked")).into()),
        }
    }

    /// Ends whatever there is: declines, takes back, or is a friend no more.
    fn roster_end(&mut self, me: &User, other: &str, row: &mut RosterRow) {
        let asked = row.relation == Relation::Asked;
        let kind = if asked { RosterStepKind::Reject } else { RosterStepKind::Remove };
        row.relation = Relation::None;
        row.tags.clear();
        row.note.clear();
        self.step(me, other, row, kind);
    }

    /// A user is erased: friends, and whoever was asked, lose the user. What stays of each row are
    /// the numbers of steps, which tell old from new.
    pub(crate) fn leave_rosters(&mut self, user: &User) -> Result<(), Fault> {
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::ROSTER);
        for key in self.txn.keys(Family::Im, &prefix, usize::MAX)? {
            let other = keys::name_behind(&key, &prefix).to_owned();
            let mut row = self.roster_row(user, &other)?;
            if row.relation != Relation::None {
                self.roster_end(user, &other, &mut row);
            }
            row.blocked = false;
            row.tags.clear();
            row.note.clear();
            self.put_roster(user, &other, &row)?;
            let mirror = self.mirror(user, &other, &row);
            self.forward(mirror);
        }
        Ok(())
    }

    fn known(&mut self, caller: &Caller, other: &str) -> Result<RosterRow, Fault> {
        check_id("user", other)?;
        let row = self.roster_row(&caller.user, other)?;
        if !row.is_listed() {
            return Err(Refusal::not_found(format!("{other} is not in the roster")).into());
        }
        Ok(row)
    }

    fn roster_tag(&mut self, caller: &Caller, of: &RosterTag) -> Result<Value, Fault> {
        if of.tags.len() > TAGS_MAX {
            return Err(Refusal::too_large(format!("tags: more than {TAGS_MAX}")).into());
        }
        for tag in &of.tags {
            check_text("tags", tag)?;
        }
        let mut row = self.known(caller, &of.user)?;
        row.tags.clone_from(&of.tags);
        self.put_roster(&caller.user, &of.user, &row)?;
        Ok(json!({}))
    }

    fn roster_note(&mut self, caller: &Caller, of: &RosterNote) -> Result<Value, Fault> {
        check_text("note", &of.note)?;
        let mut row = self.known(caller, &of.user)?;
        row.note.clone_from(&of.note);
        self.put_roster(&caller.user, &of.user, &row)?;
        Ok(json!({}))
    }
}

#[cfg(test)]
mod tests;
