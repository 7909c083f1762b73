//! What the services `group`, `channel`, `roster` and `receipt` read.

use std::ops::ControlFlow;

use foldhash::HashMap;
use hoopoe_store::StoreError;
use serde_json::{Value, json};

use super::Caller;
use super::ops::{GroupMembers, Page, Receipt};
use super::query::{Query, page_size};
use crate::channel::ChannelRow;
use crate::command::User;
use crate::group::{AskedRow, GroupRow, MemberRow, Role};
use crate::id::{ConvKey, ConvKind, is_id};
use crate::keys::{self, conv_kind, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::roster::RosterRow;
use crate::rows::{CursorCopy, Intervals, Row, UserConv, may_see, since};
use crate::user::services::conv_of;

/// Members whose lists are looked at together.
const COUNT_PAGE: usize = 1_000;

/// Who has a message.
struct Receivers {
    recv: Vec<String>,
    read: Vec<String>,
    /// Everyone in the conversation, the sender included.
    members: usize,
}

impl Query {
    pub(super) fn roster_list(&self, user: &User, page: &Page) -> Result<Value, Fault> {
        let size = page_size(page.limit)?;
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::ROSTER);
        let (mut users, mut last, mut more) = (Vec::new(), String::new(), false);
        self.names(&prefix, page.next.as_deref(), |name, key, row| {
            let row: RosterRow = crate::txn::read_json(key, row)?;
            if row.state() == "none" {
                return Ok(ControlFlow::Continue(()));
            }
            if users.len() == size {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            name.clone_into(&mut last);
            users.push(json!({
                "user": name,
                "state": row.state(),
                "tags": row.tags,
                "note": row.note,
                "since": row.since_ms,
            }));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(paged(json!({ "users": users }), more.then_some(last)))
    }

    fn group(&self, conv: &ConvKey) -> Result<GroupRow, Fault> {
        let row = self.json::<GroupRow>(&keys::conv(conv, conv_kind::GROUP))?;
        let missing = || Refusal::not_found(format!("no group {}", conv.id()));
        row.filter(|group| !group.dissolved).ok_or_else(|| missing().into())
    }

    fn member(&self, conv: &ConvKey, user: &str) -> Result<Option<MemberRow>, Fault> {
        let row = self.json::<MemberRow>(&keys::conv_name(conv, conv_kind::MEMBER, user))?;
        Ok(row.filter(MemberRow::is_current))
    }

    pub(super) fn group_info(&self, caller: &Caller, group: &str) -> Result<Value, Fault> {
        let conv = conv_of(caller, &format!("g/{group}"))?;
        let group = self.group(&conv)?;
        let user = &caller.user.id;
        let role = self.member(&conv, user)?.map(|member| member.role);
        let mut info = json!({
            "group": conv.id(),
            "name": group.name,
            "owner": group.owner,
            "join": group.join,
            "history": group.history,
            "members": group.members,
            "my_role": role.map(Role::as_str),
            "muted": group.muted_until_ms > self.now_ms(),
            "until": group.until_ms,
            "last": self.head(&conv)?.last,
            "info": group.info,
        });
        if caller.privileged || role.is_some_and(|role| role >= Role::Admin) {
            info["applications"] = self.applications(&conv)?.into();
        }
        Ok(info)
    }

    /// Who has applied and waits for an answer; their number is limited.
    fn applications(&self, conv: &ConvKey) -> Result<Vec<Value>, Fault> {
        let prefix = keys::conv_prefix(conv, conv_kind::ASKED);
        let mut waiting = Vec::new();
        self.names(&prefix, None, |user, key, row| {
            let row: AskedRow = crate::txn::read_json(key, row)?;
            if row.by.is_none() {
                let since = row.since_ms;
                waiting.push(json!({ "user": user, "message": row.message, "since": since }));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(waiting)
    }

    pub(super) fn group_list(&self, user: &User, page: &Page) -> Result<Value, Fault> {
        let size = page_size(page.limit)?;
        let mut prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::CONV);
        prefix.extend_from_slice(b"g/");
        let mut ids: Vec<String> = Vec::new();
        self.names(&prefix, page.next.as_deref(), |id, key, row| {
            let row = UserConv::decode(key, row)?;
            if row.is_current() {
                ids.push(id.to_owned());
            }
            let full = ids.len() > size;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let more = ids.len() > size;
        ids.truncate(size);
        let mut groups = Vec::new();
        for id in &ids {
            let conv = ConvKey::group(&user.tenant, id);
            // The group knows best: the list may still have to hear of a removal.
            let Some(member) = self.member(&conv, &user.id)? else { continue };
            let group = match self.group(&conv) {
                Ok(group) => group,
                Err(Fault::Refused(_)) => continue,
                Err(fault) => return Err(fault),
            };
            groups.push(json!({
                "group": id,
                "name": group.name,
                "role": member.role.as_str(),
                "members": group.members,
            }));
        }
        Ok(paged(json!({ "groups": groups }), ids.pop().filter(|_| more)))
    }

    pub(super) fn group_members(&self, c: &Caller, page: &GroupMembers) -> Result<Value, Fault> {
        let size = page_size(page.limit)?;
        let conv = conv_of(c, &format!("g/{}", page.group))?;
        self.group(&conv)?;
        if !c.privileged && self.member(&conv, &c.user.id)?.is_none() {
            return Err(Refusal::not_allowed("only members see who is in a group").into());
        }
        let prefix = keys::conv_prefix(&conv, conv_kind::MEMBER);
        let (mut members, mut last, mut more) = (Vec::new(), String::new(), false);
        self.names(&prefix, page.next.as_deref(), |user, key, row| {
            let row: MemberRow = crate::txn::read_json(key, row)?;
            if !row.is_current() {
                return Ok(ControlFlow::Continue(()));
            }
            if members.len() == size {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            user.clone_into(&mut last);
            let role = row.role.as_str();
            let mut member = json!({ "user": user, "role": role, "since": row.since_ms });
            if row.muted_until_ms > self.now_ms() {
                member["muted_until"] = shown_until(row.muted_until_ms);
            }
            members.push(member);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(paged(json!({ "members": members }), more.then_some(last)))
    }

    pub(super) fn channel_info(&self, user: &User, channel: &str) -> Result<Value, Fault> {
        if !is_id(channel) {
            let text = format!("channel: {channel:?} is no valid id");
            return Err(Refusal::bad_request(text).into());
        }
        let conv = ConvKey::channel(&user.tenant, channel);
        let missing = || Refusal::not_found(format!("no channel {channel}"));
        let row: Option<ChannelRow> = self.json(&keys::conv(&conv, conv_kind::CHANNEL))?;
        let row = row.ok_or_else(missing)?;
        let following = row.everyone || self.member(&conv, &user.id)?.is_some();
        Ok(json!({
            "channel": channel,
            "name": row.name,
            "owner": row.owner,
            "publishers": row.publishers,
            "followers": row.followers,
            "following": following,
            "last": self.head(&conv)?.last,
        }))
    }

    /// Everyone who may see something of a conversation now, what, and behind which entry receipts
    /// count.
    fn audience(&self, conv: &ConvKey) -> Result<Vec<(String, Intervals, u64)>, Fault> {
        let mut audience = Vec::new();
        match (conv.pair_users(), conv.kind()) {
            (Some((low, high)), _) => {
                let all = since(1);
                audience.push((low.to_owned(), all.clone(), 0));
                if low != high {
                    audience.push((high.to_owned(), all, 0));
                }
            }
            (None, ConvKind::Group) if !self.group(conv)?.big => {
                let prefix = keys::conv_prefix(conv, conv_kind::MEMBER);
                self.names(&prefix, None, |user, key, row| {
                    let row: MemberRow = crate::txn::read_json(key, row)?;
                    if row.is_current() {
                        let silent_to = row.silent_to();
                        audience.push((user.to_owned(), row.intervals, silent_to));
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            _ => {
                let channel = keys::conv(conv, conv_kind::CHANNEL);
                if conv.kind() == ConvKind::Channel && self.json::<ChannelRow>(&channel)?.is_none()
                {
                    return Err(Refusal::not_found(format!("no channel {}", conv.id())).into());
                }
                let text = "who has received what is not kept of big groups and channels";
                return Err(Refusal::not_found(text).into());
            }
        }
        Ok(audience)
    }

    /// Who has received and read a message. The sender is not asked.
    fn receivers(&self, caller: &Caller, of: &Receipt) -> Result<Receivers, Fault> {
        let conv = conv_of(caller, &of.conv)?;
        let audience = self.audience(&conv)?;
        let own = audience.iter().find(|(user, ..)| **user == *caller.user.id);
        let sees = own.is_some_and(|(_, intervals, _)| may_see(intervals, of.seq));
        let entry = match sees || caller.privileged {
            true => self.entry(&conv, of.seq)?,
            false => None,
        };
        let missing = || Refusal::not_found(format!("seq: no message {}", of.seq));
        let entry = entry.ok_or_else(missing)?;
        let copies: HashMap<String, CursorCopy> = self.cursor_copies(&conv)?.into_iter().collect();
        let (mut recv, mut read) = (Vec::new(), Vec::new());
        let members = audience.len();
        for (user, intervals, silent_to) in audience {
            let sees = of.seq > silent_to && may_see(&intervals, of.seq);
            if *user == *entry.from || !sees {
                continue;
            }
            let copy = copies.get(&user).copied().unwrap_or_default();
            if copy.read >= of.seq {
                read.push(user.clone());
            }
            if copy.recv >= of.seq {
                recv.push(user);
            }
        }
        Ok(Receivers { recv, read, members })
    }

    pub(super) fn receipt_list(&self, caller: &Caller, of: &Receipt) -> Result<Value, Fault> {
        let Receivers { recv, read, .. } = self.receivers(caller, of)?;
        Ok(json!({ "recv": recv, "read": read }))
    }

    /// How many have received and read a message of a big group or a channel: there the members'
    /// lists alone know. It costs a look at each of them, so it is for whoever sent the message and
    /// for those who lead.
    fn count_in_big(&self, caller: &Caller, conv: &ConvKey, seq: u64) -> Result<Value, Fault> {
        let own = self.member(conv, &caller.user.id)?;
        let sees = own.as_ref().is_some_and(|member| may_see(&member.intervals, seq));
        let entry = match sees || caller.privileged {
            true => self.entry(conv, seq)?,
            false => None,
        };
        let missing = || Refusal::not_found(format!("seq: no message {seq}"));
        let entry = entry.ok_or_else(missing)?;
        let leads = own.is_some_and(|member| member.role >= Role::Admin);
        if !caller.privileged && !leads && *entry.from != *caller.user.id {
            let text = "only the sender and who leads count receipts here";
            return Err(Refusal::not_allowed(text).into());
        }
        let prefix = keys::conv_prefix(conv, conv_kind::MEMBER);
        let (mut members, mut recv, mut read, mut after) = (0, 0, 0, None::<String>);
        loop {
            let (mut lists, mut last) = (Vec::new(), None);
            self.names(&prefix, after.as_deref(), |user, key, row| {
                let row: MemberRow = crate::txn::read_json(key, row)?;
                last = Some(user.to_owned());
                members += u64::from(row.is_current());
                let sees = seq > row.silent_to() && may_see(&row.intervals, seq);
                if row.is_current() && *user != *entry.from && sees {
                    let wire = conv.wire(user);
                    lists.push(keys::user_name(conv.tenant(), user, user_kind::CONV, &wire));
                }
                let full = lists.len() >= COUNT_PAGE;
                Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            for list in self.lists(&lists)? {
                recv += u64::from(list.recv >= seq);
                read += u64::from(list.read >= seq);
            }
            if lists.len() < COUNT_PAGE {
                break;
            }
            after = last;
        }
        Ok(json!({ "recv": recv, "read": read, "members": members }))
    }

    /// The lines of several users' lists, those that there are.
    fn lists(&self, keys: &[keys::Key]) -> Result<Vec<UserConv>, StoreError> {
        let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let (mut lists, mut fault) = (Vec::with_capacity(keys.len()), None);
        self.multi_get(&asked, &mut |at, row| match row
            .map(|row| UserConv::decode(asked[at], row))
            .transpose()
        {
            Ok(list) => lists.extend(list),
            Err(error) => fault = Some(error),
        })?;
        fault.map_or(Ok(lists), Err)
    }

    /// Whether who has what is kept by the members alone.
    fn counts_only(&self, conv: &ConvKey) -> Result<bool, Fault> {
        match conv.kind() {
            ConvKind::User => Ok(false),
            ConvKind::Group => Ok(self.group(conv)?.big),
            ConvKind::Channel => {
                let row = self.json::<ChannelRow>(&keys::conv(conv, conv_kind::CHANNEL))?;
                Ok(row.is_some_and(|channel| !channel.everyone))
            }
        }
    }

    pub(super) fn receipt_count(&self, caller: &Caller, of: &Receipt) -> Result<Value, Fault> {
        let conv = conv_of(caller, &of.conv)?;
        if self.counts_only(&conv)? {
            return self.count_in_big(caller, &conv, of.seq);
        }
        let Receivers { recv, read, members } = self.receivers(caller, of)?;
        Ok(json!({ "recv": recv.len(), "read": read.len(), "members": members }))
    }
}

/// When a mute ends, as whoever sets it may write it: `null` for one without end.
pub(crate) fn shown_until(until_ms: u64) -> Value {
    if until_ms == u64::MAX { Value::Null } else { until_ms.into() }
}

/// Adds where the page ended, when there are more.
fn paged(mut answer: Value, next: Option<String>) -> Value {
    if let Some(next) = next {
        answer["next"] = next.into();
    }
    answer
}
