//! The service `sync`, the conversation list, and what a device is told when it connects.

use std::ops::ControlFlow;

#[cfg(feature = "planted")]
use hoopoe_core::planted;
use hoopoe_store::StoreError;
use serde::Serialize;
use serde_json::{Value, json};

use super::Caller;
use super::cursors::Cursors;
use super::ops::{Direction, Page, SyncHeads, SyncPull};
use super::query::{Found, Query, page_size};
use crate::channel::listed_for_everyone;
use crate::command::User;
use crate::device::{Start, Starts};
use crate::entry::Entry;
use crate::group::MemberRow;
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::{Head, Intervals, Row, UserConv};
use crate::user::services::{Profile, conv_of};

/// Bytes of entries in one pull.
const PULL_BYTES: usize = 1 << 20;
/// Conversations named in a hello.
const HELLO_MAX: usize = 100;

/// A conversation with everything a list shows.
struct Line {
    conv: ConvKey,
    row: UserConv,
    head: Head,
    unread: u64,
}

/// Where a user's device begins.
#[derive(Debug)]
pub struct Login {
    /// Its conversations.
    pub starts: Starts,
    /// The first thing it is told.
    pub hello: Hello,
}

/// What a device is told first (profile, section 2).
#[derive(Debug, Serialize)]
pub struct Hello {
    user: String,
    device: String,
    /// Time of the server, ms since the epoch.
    now: u64,
    /// Whether the device's cursors are those it had before: `kept` or `new`.
    session: &'static str,
    unread_total: u64,
    /// Conversations with news for the user, the newest first.
    pub conversations: Vec<News>,
    /// There are more of them than are named.
    more: bool,
}

/// A conversation in which something is new for the user.
#[derive(Debug, Serialize)]
pub struct News {
    /// Time of the last entry, by which they are sorted.
    #[serde(skip)]
    ts_ms: u64,
    conv: String,
    last: u64,
    unread: u64,
    recv: u64,
}

impl Hello {
    /// As it is sent.
    pub fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Query {
    fn lines(&self, user: &User) -> Result<Vec<Line>, Fault> {
        let mut lines = Vec::new();
        let list = self.conversations(user)?;
        let heads = self.heads_of(list.iter().map(|(conv, _)| conv))?;
        for ((conv, row), head) in list.into_iter().zip(heads) {
            let row = self.settled(user, &conv, row, &head)?;
            let unread = self.unread(&conv, &row, &head)?;
            let head = self.seen_head(&conv, &row, head)?;
            lines.push(Line { conv, row, head, unread });
        }
        // Newest first; ties in a fixed order.
        lines.sort_by(|a, b| (b.head.ts_ms, &b.conv).cmp(&(a.head.ts_ms, &a.conv)));
        Ok(lines)
    }

    /// The head as far as the user may see it: for who is out, that of the removal (ruling 25).
    fn seen_head(&self, conv: &ConvKey, row: &UserConv, head: Head) -> Result<Head, StoreError> {
        let until = row.intervals.last().and_then(|interval| interval.until);
        let Some(until) = until.filter(|until| *until < head.last) else { return Ok(head) };
        let end = self.entry(conv, until)?;
        // Where retention has taken even that, what the user has read is the last there is; a
        // cursor may stand behind the removal.
        let count = row.read_count.min(until);
        let (count, ts_ms) = end.map_or((count, row.since_ms), |end| (end.count, end.ts_ms));
        Ok(Head { last: until, count, ts_ms, ..head })
    }

    /// What a device starts with. `before_heads` is called with the conversations before their
    /// heads are read: whoever listens from then on misses nothing.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn login(
        &self,
        user: &User,
        client: &str,
        kept: bool,
        heads_only: bool,
        mut before_heads: impl FnMut(&ConvKey),
    ) -> Result<Login, Fault> {
        let list = self.conversations(user)?;
        list.iter().for_each(|(conv, _)| before_heads(conv));
        let heads = self.heads_of(list.iter().map(|(conv, _)| conv))?;
        let mut cursors = if kept { self.cursors(user, client)? } else { Cursors::default() };
        let begun = kept && self.has_begun(user, client)?;
        let (mut starts, mut news) = (Starts::with_capacity(list.len()), Vec::new());
        let mut unread_total = 0;
        for ((conv, row), head) in list.into_iter().zip(heads) {
            let recv = row.recv;
            let mut row = self.settled(user, &conv, row, &head)?;
            let unread = self.unread(&conv, &row, &head)?;
            // The list hears of a removal a little later than the group itself, which has let go
            // of the devices that were there then; this one is new (ruling 25).
            if let Some(member) = self.membership(&conv, &user.id)? {
                (row.intervals, row.version) = (member.intervals, member.version);
            }
            unread_total += unread;
            let own = cursors.of(&conv, &user.id);
            // Where a kept session has none it stands where the list says that the user is: what
            // moves that leaves it a cursor. One that is not known to begins at the user's join.
            let join = row.first() - 1;
            let cursor = match own {
                _ if heads_only => head.last,
                Some(cursor) => cursor,
                None if begun => recv,
                None if kept => join,
                None => row.recv,
            };
            // What retention has taken meanwhile is named by a gap when it is to be read.
            let cursor = cursor.max(row.cleared).max(join);
            let seen = self.seen_head(&conv, &row, head)?;
            if seen.last > row.recv {
                let conv = conv.wire(&user.id);
                news.push(News {
                    ts_ms: seen.ts_ms,
                    conv,
                    last: seen.last,
                    unread,
                    recv: row.recv,
                });
            }
            let UserConv { intervals, version, .. } = row;
            starts.push(Start { conv, cursor, head: head.last, intervals, version });
        }
        news.sort_by(|a, b| (b.ts_ms, &b.conv).cmp(&(a.ts_ms, &a.conv)));
        let more = news.len() > HELLO_MAX;
        news.truncate(HELLO_MAX);
        let hello = Hello {
            user: user.id.to_string(),
            device: client.to_owned(),
            now: self.now_ms(),
            session: if kept { "kept" } else { "new" },
            unread_total,
            conversations: news,
            more,
        };
        Ok(Login { starts, hello })
    }

    pub(super) fn heads(&self, user: &User, page: &SyncHeads) -> Result<Value, Fault> {
        let size = page_size(page.limit)?;
        let lines = self.lines(user)?;
        let unread_total: u64 = lines.iter().map(|line| line.unread).sum();
        let unread_only = page.unread_only.unwrap_or(false);
        let shown = lines.into_iter().filter(|line| {
            let hidden = line.row.hidden_at.is_some_and(|at| line.head.last <= at);
            #[cfg(feature = "planted")]
            let hidden = match planted::has(planted::Bug::HideForGood) {
                true => line.row.hidden_at.is_some(),
                false => hidden,
            };
            !hidden && (!unread_only || line.unread > 0)
        });
        let after = page.next.as_deref().map(Place::parse).transpose()?;
        let rest = shown.filter(|line| after.as_ref().is_none_or(|after| after.is_before(line)));
        let mut rest: Vec<Line> = rest.take(size + 1).collect();
        let more = rest.len() > size;
        rest.truncate(size);
        let next = rest.last().filter(|_| more).map(Place::of);
        let conversations: Result<Vec<Value>, Fault> =
            rest.iter().map(|line| self.head_line(user, line)).collect();
        let mut answer = json!({ "conversations": conversations?, "unread_total": unread_total });
        if let Some(next) = next {
            answer["next"] = next.into();
        }
        Ok(answer)
    }

    fn head_line(&self, user: &User, line: &Line) -> Result<Value, Fault> {
        let Line { conv, row, head, unread } = line;
        let last = self.entry(conv, head.last)?;
        Ok(json!({
            "conv": conv.wire(&user.id),
            "last": head.last,
            "cnt": head.count,
            "unread": unread,
            "mentions": self.mentions(user, conv, row, head)?,
            "read": row.read,
            "recv": row.recv,
            "min": head.min.max(row.first()),
            "ts": head.ts_ms,
            "from": last.as_ref().map_or("", |entry| &entry.from),
            "kind": last.as_ref().map_or("", |entry| kind_word(entry)),
        }))
    }

    pub(super) fn counts(&self, user: &User) -> Result<Value, Fault> {
        let lines = self.lines(user)?;
        let mut mentions_total = 0;
        for line in lines.iter().filter(|line| line.unread > 0) {
            mentions_total += self.mentions(user, &line.conv, &line.row, &line.head)?;
        }
        Ok(json!({
            "unread_total": lines.iter().map(|line| line.unread).sum::<u64>(),
            "mentions_total": mentions_total,
            "conversations": lines.iter().filter(|line| line.unread > 0).count(),
        }))
    }

    pub(super) fn conv_list(&self, user: &User, page: &Page) -> Result<Value, Fault> {
        let size = page_size(page.limit)?;
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::CONV);
        let mut rows: Vec<(String, UserConv)> = Vec::new();
        self.names(&prefix, page.next.as_deref(), |wire, key, row| {
            rows.push((wire.to_owned(), UserConv::decode(key, row)?));
            let full = rows.len() > size;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let after = page.next.as_deref().unwrap_or_default();
        for channel in self.everyone(user)? {
            // In everybody's list, also before anything was done with it.
            let wire = channel.wire(&user.id);
            if *wire > *after && rows.iter().all(|(listed, _)| *listed != wire) {
                rows.push((wire, listed_for_everyone()));
            }
        }
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        let more = rows.len() > size;
        rows.truncate(size);
        let mut list = Vec::new();
        for (wire, row) in &rows {
            let Some(conv) = ConvKey::from_wire(&user.tenant, &user.id, wire) else { continue };
            let head = self.head(&conv)?;
            let row = self.settled(user, &conv, row.clone(), &head)?;
            list.push(json!({
                "conv": wire,
                "pinned": row.pinned,
                "muted": row.muted_until > self.now_ms(),
                "hidden": row.hidden_at.is_some_and(|at| head.last <= at),
                "read": row.read,
                "recv": row.recv,
                "min": head.min.max(row.first()),
            }));
        }
        let mut answer = json!({ "conversations": list });
        if more && let Some((wire, _)) = rows.last() {
            answer["next"] = wire.as_str().into();
        }
        Ok(answer)
    }

    pub(super) fn user_info(&self, user: &User, of: Option<&str>) -> Result<Value, Fault> {
        let id = of.unwrap_or(&user.id);
        if !crate::id::is_id(id) {
            return Err(Refusal::bad_request(format!("user: {id:?} is no valid id")).into());
        }
        let key = keys::user(&user.tenant, id, user_kind::ACCOUNT);
        let profile: Profile = self.json(&key)?.unwrap_or_default();
        Ok(json!({
            "user": id, "name": profile.name, "avatar": profile.avatar, "info": profile.info,
        }))
    }

    /// When the user may see what: of a group, what the group says itself, so that a removal
    /// counts from its commit on.
    ///
    /// # Errors
    /// When rows cannot be read.
    fn intervals(&self, conv: &ConvKey, user: &str, row: &UserConv) -> Result<Intervals, Fault> {
        let member = self.membership(conv, user)?;
        Ok(member.map_or_else(|| row.intervals.clone(), |member| member.intervals))
    }

    /// What a group or channel knows of a member, present or past; `None` for pairs.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn membership(&self, conv: &ConvKey, user: &str) -> Result<Option<MemberRow>, StoreError> {
        if conv.kind() == ConvKind::User {
            return Ok(None);
        }
        let key = keys::conv_name(conv, conv_kind::MEMBER, user);
        self.json(&key)
    }

    pub(super) fn pull(&self, caller: &Caller, pull: &SyncPull) -> Result<Found, Fault> {
        let conv = conv_of(caller, &pull.conv)?;
        let size = page_size(pull.limit)?;
        let down = pull.direction.unwrap_or_default() == Direction::Down;
        let (low, high) = bounds(pull, down)?;
        let user = &caller.user;
        let Some(row) = self.user_conv(user, &conv)? else {
            let text = format!("conv: {} is not in your list", pull.conv);
            return Err(Refusal::not_allowed(text).into());
        };
        let head = self.known_head(&conv)?;
        let min = head.min.max(row.first());
        let mut entries = Vec::new();
        let mut next = None;
        let mut intervals = self.intervals(&conv, &user.id, &row)?;
        let end = intervals.last().and_then(|interval| interval.until);
        let last = end.map_or(head.last, |until| until.min(head.last));
        if down {
            intervals.reverse();
        }
        for interval in intervals {
            let from = low.max(interval.from).max(min);
            let until = interval.until.unwrap_or(u64::MAX);
            #[cfg(feature = "planted")]
            let until =
                if planted::has(planted::Bug::ShowBeyondRemoval) { u64::MAX } else { until };
            let to = high.min(until).min(head.last);
            let room = size - entries.len();
            let found = self.entries(&conv, from, to, room, PULL_BYTES, down)?;
            let newest = found.last().map(|entry| entry.seq);
            match entries.is_empty() {
                true => entries = found,
                false => entries.extend(found),
            }
            let end = if down { from } else { to };
            if let Some(newest) = newest
                && newest != end
            {
                next = Some(if down { newest - 1 } else { newest + 1 });
                break;
            }
            if entries.len() >= size {
                let left = if down { from > min.max(low) } else { to < last.min(high) };
                next = left.then_some(if down { from - 1 } else { to + 1 });
                break;
            }
        }
        let mut value = json!({
            "conv": pull.conv, "count": entries.len(), "min": min, "last": last,
        });
        if let Some(next) = next {
            value["next"] = next.into();
        }
        Ok(Found { value, entries })
    }
}

/// The stretch that is asked for, both ends included. Going down, `from` is the high end.
fn bounds(pull: &SyncPull, down: bool) -> Result<(u64, u64), Refusal> {
    let (low, high) = if down { (pull.to, pull.from) } else { (pull.from, pull.to) };
    if let (Some(low), Some(high)) = (low, high)
        && low > high
    {
        // Taken for the same stretch, `next` as the `from` of the next page would go nowhere.
        let text = match down {
            true => "from: below `to`; a pull that goes down begins at `from`, and ends at `to`",
            false => "from: above `to`; a pull that goes up begins at `from`, and ends at `to`",
        };
        return Err(Refusal::bad_request(text));
    }
    Ok((low.unwrap_or(1), high.unwrap_or(u64::MAX)))
}

fn kind_word(entry: &Entry) -> &'static str {
    match entry.kind.as_str() {
        "" => "message",
        word => word,
    }
}

/// Where a page of heads ended.
struct Place {
    ts_ms: u64,
    conv: String,
}

impl Place {
    fn of(line: &Line) -> String {
        format!("{}:{}", line.head.ts_ms, line.conv)
    }

    fn parse(text: &str) -> Result<Place, Refusal> {
        let place = text
            .split_once(':')
            .and_then(|(ts, conv)| Some(Place { ts_ms: ts.parse().ok()?, conv: conv.to_owned() }));
        place.ok_or_else(|| Refusal::bad_request("next: not what the page before gave"))
    }

    fn is_before(&self, line: &Line) -> bool {
        (line.head.ts_ms, line.conv.as_str()) < (self.ts_ms, self.conv.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;
    use crate::settings::ImSettings;

    fn ten() -> Rig {
        let mut rig = Rig::new(ImSettings::default());
        for text in 1..=10 {
            rig.send("alice", "u/alice", &text.to_string()).unwrap();
        }
        rig
    }

    #[test]
    fn a_pull_that_cannot_get_from_its_beginning_to_its_end_is_refused() {
        let mut rig = ten();
        for (direction, from, to) in [("down", 5, 10), ("up", 10, 1), ("up", 11, 10)] {
            let body = json!({ "conv": "u/alice", "direction": direction, "from": from, "to": to });
            let refused = rig.call("alice", "sync/pull", body.clone()).unwrap_err();
            let named = ["bad_request: ", "from: ", "`to`", direction];
            assert!(named.iter().all(|part| refused.contains(part)), "{body}: {refused}");
        }
    }

    #[test]
    fn next_leads_from_page_to_page_to_the_end_of_the_stretch() {
        let mut rig = ten();
        let table = [
            ("up", 2, 8, vec![2, 3, 4, 5, 6, 7, 8]),
            ("down", 9, 5, vec![9, 8, 7, 6, 5]),
            ("up", 7, 7, vec![7]),
            ("down", 7, 7, vec![7]),
            ("up", 9, 40, vec![9, 10]),
            ("down", 40, 9, vec![10, 9]),
        ];
        for (direction, from, to, expected) in table {
            let (mut from, mut pulled) = (Some(from), Vec::new());
            while let Some(begin) = from {
                let body = json!({
                    "conv": "u/alice", "direction": direction, "from": begin, "to": to, "limit": 2,
                });
                let caller = crate::rig::caller("alice", false);
                let found = rig.call_as(caller, "sync/pull", body).unwrap();
                pulled.extend(found.entries.iter().map(|entry| entry.seq));
                assert!(pulled.len() <= expected.len(), "{direction} {pulled:?}");
                from = found.value["next"].as_u64();
            }
            assert_eq!(pulled, expected, "{direction}");
        }
    }
}
