//! What a shard knows of a shared group in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::HashMap;
use hoopoe_codec::QoS;
use hoopoe_core::{Location, Publication, Route, SessionId};

use super::memory::{Memory, Share};
use crate::command::Member;
use crate::rows::MemberRow;
use crate::view::Load;
use crate::view::queue::entry_weight;

/// Messages of a stored group kept at hand; the rest is read when its turn comes.
const CONTENTS_AT_HAND: usize = 1_024;

/// All groups of a shard.
#[derive(Debug, Default)]
pub(in crate::view) struct Groups {
    by_id: HashMap<SessionId, Group>,
    by_name: HashMap<(Arc<str>, Arc<str>), SessionId>,
    /// Groups with more at hand than they should have.
    crowded: Vec<SessionId>,
    /// Stored groups of which entries were finished since the last commit.
    touched: BTreeSet<SessionId>,
    /// Groups whose next entry could not be read, and when that is tried again.
    stalled: Vec<SessionId>,
    retry_at_ms: u64,
    memory: Memory,
}

impl Groups {
    pub(in crate::view) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(in crate::view) fn get(&self, id: SessionId) -> Option<&Group> {
        self.by_id.get(&id)
    }

    /// Changes a group, and with it what all of them hold in memory: the only way to one.
    pub(in crate::view) fn change<T>(
        &mut self,
        id: SessionId,
        change: impl FnOnce(&mut Group) -> T,
    ) -> Option<T> {
        let group = self.by_id.get_mut(&id)?;
        let before = group.share_of_memory();
        let result = change(group);
        self.memory.change(id, before, group.share_of_memory());
        Some(result)
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(in crate::view) fn named(&self, share: &Arc<str>, filter: &Arc<str>) -> Option<SessionId> {
        self.by_name.get(&(share.clone(), filter.clone())).copied()
    }

    pub(in crate::view) fn insert(&mut self, id: SessionId, group: Group) {
        self.by_name.insert((group.share.clone(), group.filter.clone()), id);
        let holds = group.share_of_memory();
        let before = self.by_id.insert(id, group);
        let before = before.map_or(Share::default(), |group| group.share_of_memory());
        self.memory.change(id, before, holds);
    }

    pub(in crate::view) fn remove(&mut self, id: SessionId) -> Option<Group> {
        let group = self.by_id.remove(&id)?;
        self.by_name.remove(&(group.share.clone(), group.filter.clone()));
        self.memory.change(id, group.share_of_memory(), Share::default());
        Some(group)
    }

    /// Ids in ascending order.
    pub(in crate::view) fn ids(&self) -> Vec<SessionId> {
        let mut ids: Vec<SessionId> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(in crate::view) fn touch(&mut self, id: SessionId) {
        self.touched.insert(id);
    }

    pub(super) fn take_touched(&mut self) -> BTreeSet<SessionId> {
        std::mem::take(&mut self.touched)
    }

    pub(super) fn stall(&mut self, id: SessionId, retry_at_ms: u64) {
        if !self.stalled.contains(&id) {
            self.stalled.push(id);
        }
        self.retry_at_ms = retry_at_ms;
    }

    /// When stalled groups are to go on.
    pub(in crate::view) fn retry_at(&self) -> Option<u64> {
        (!self.stalled.is_empty()).then_some(self.retry_at_ms)
    }

    /// Groups that are to go on now.
    pub(in crate::view) fn take_stalled(&mut self, now_ms: u64) -> Vec<SessionId> {
        let due = self.retry_at().is_some_and(|at| at <= now_ms);
        if due { std::mem::take(&mut self.stalled) } else { Vec::new() }
    }

    pub(super) fn crowd(&mut self, id: SessionId) {
        if self.crowded.last() != Some(&id) {
            self.crowded.push(id);
        }
    }

    /// After a commit: messages of stored groups beyond the first ones are left to the store.
    pub(in crate::view) fn trim(&mut self) {
        for id in std::mem::take(&mut self.crowded) {
            if let Some(group) = self.by_id.get_mut(&id).filter(|group| group.durable) {
                group.trim();
            }
        }
    }
}

/// A shared group.
#[derive(Debug)]
pub(in crate::view) struct Group {
    pub(in crate::view) share: Arc<str>,
    pub(in crate::view) filter: Arc<str>,
    pub(in crate::view) route: Arc<Route>,
    /// By subscriber number.
    members: BTreeMap<u64, MemberState>,
    /// Those that can take an entry now.
    takers: BTreeSet<u64>,
    /// Who got the last entry.
    turn: u64,
    /// The queue is stored.
    pub(in crate::view) durable: bool,
    pub(in crate::view) head: u64,
    pub(in crate::view) weight: u64,
    /// From here on nothing has been offered yet.
    next: u64,
    /// Offered before, and given back.
    returned: BTreeSet<u64>,
    /// Messages at hand; of a group in memory: all that are not finished.
    contents: BTreeMap<u64, Content>,
    /// Entries that are not finished.
    pub(in crate::view) load: Load,
    /// Bytes of those that members have.
    held_bytes: u64,
    floor: u64,
}

/// A message in a group's queue.
#[derive(Clone, Debug)]
pub(in crate::view) struct Content {
    pub(in crate::view) publication: Arc<Publication>,
    /// Running total up to and including it.
    pub(in crate::view) weight: u64,
}

impl Content {
    pub(in crate::view) fn bytes(&self) -> u64 {
        entry_weight(&self.publication)
    }
}

/// A member and what it has.
#[derive(Clone, Debug)]
pub(in crate::view) struct MemberState {
    pub(in crate::view) member: Member,
    pub(in crate::view) held: Holding,
    /// Gets nothing more.
    pub(in crate::view) leaving: bool,
    /// Its row says what it is.
    pub(in crate::view) written: bool,
}

/// An entry that a member has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::view) struct Held {
    pub(in crate::view) qos: QoS,
    pub(in crate::view) bytes: u64,
}

/// What a member has, by number.
#[derive(Clone, Default, Debug)]
pub(in crate::view) struct Holding {
    entries: BTreeMap<u64, Held>,
    bytes: u64,
}

impl Holding {
    pub(super) fn insert(&mut self, seq: u64, held: Held) {
        self.remove(seq);
        self.bytes += held.bytes;
        self.entries.insert(seq, held);
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Held> {
        let held = self.entries.remove(&seq)?;
        self.bytes -= held.bytes;
        Some(held)
    }

    /// Gives the numbers of those that are not kept.
    pub(super) fn keep(&mut self, keeps: impl Fn(u64, &Held) -> bool) -> Vec<u64> {
        let gone = self.entries.iter().filter(|(seq, held)| !keeps(**seq, held));
        let gone: Vec<u64> = gone.map(|(seq, _)| *seq).collect();
        for seq in &gone {
            self.remove(*seq);
        }
        gone
    }

    pub(in crate::view) fn iter(&self) -> impl Iterator<Item = (u64, &Held)> {
        self.entries.iter().map(|(seq, held)| (*seq, held))
    }

    fn has(&self, seq: u64) -> bool {
        self.entries.contains_key(&seq)
    }
}

impl MemberState {
    fn new(member: Member) -> MemberState {
        MemberState { member, held: Holding::default(), leaving: false, written: false }
    }

    pub(in crate::view) fn is_online(&self) -> bool {
        self.member.location != Location::NOWHERE
    }

    fn takes(&self) -> bool {
        let room = self.held.entries.len() < usize::from(self.member.window);
        self.is_online() && !self.leaving && (room || self.member.options.qos == QoS::AtMostOnce)
    }

    /// True when it may have `bytes` more, with `most` in all; one entry it may always have.
    fn may_have(&self, bytes: u64, most: u64) -> bool {
        self.held.entries.is_empty()
            || self.held.bytes.saturating_add(bytes) <= most
            || self.member.options.qos == QoS::AtMostOnce
    }

    /// Its row, if its session is stored.
    pub(super) fn row(&self) -> Option<MemberRow> {
        self.member.session.map(|session| MemberRow {
            session,
            options: self.member.options,
            identifier: self.member.identifier,
        })
    }
}

impl Group {
    pub(in crate::view) fn new(id: SessionId, share: Arc<str>, filter: Arc<str>) -> Group {
        Group {
            share,
            filter,
            route: Arc::new(Route::group(id)),
            members: BTreeMap::new(),
            takers: BTreeSet::new(),
            turn: 0,
            durable: false,
            head: 0,
            weight: 0,
            next: 1,
            returned: BTreeSet::new(),
            contents: BTreeMap::new(),
            load: Load::default(),
            held_bytes: 0,
            floor: 0,
        }
    }

    /// What it takes of the memory of all groups that are not stored.
    pub(super) fn share_of_memory(&self) -> Share {
        if self.durable {
            return Share::default();
        }
        Share { bytes: self.load.bytes, held: self.held_bytes }
    }

    pub(in crate::view) fn members(&self) -> impl Iterator<Item = &MemberState> {
        self.members.values()
    }

    /// Subscriber numbers and sessions of the members that have a stored one.
    pub(super) fn stored_members(&self) -> Vec<(u64, SessionId)> {
        let stored = self.members.values().map(|member| &member.member);
        stored.filter_map(|member| Some((member.subscriber, member.session?))).collect()
    }

    pub(in crate::view) fn member(&self, subscriber: u64) -> Option<&MemberState> {
        self.members.get(&subscriber)
    }

    /// Changes a member, and with it whether it can take an entry.
    pub(in crate::view) fn with_member<T>(
        &mut self,
        subscriber: u64,
        change: impl FnOnce(&mut MemberState) -> T,
    ) -> Option<T> {
        let member = self.members.get_mut(&subscriber)?;
        let before = member.held.bytes;
        let result = change(member);
        self.held_bytes = self.held_bytes - before + member.held.bytes;
        if member.takes() {
            self.takers.insert(subscriber);
        } else {
            self.takers.remove(&subscriber);
        }
        Some(result)
    }

    /// A member is there with these terms. What it had over another connection goes back, but for
    /// QoS 2 in delivery, which the member finishes. A connection that knew of the group has said
    /// what it keeps when it ended; one that ended before has only been offered what it never
    /// sent, and the session itself knows what it `keeps`.
    pub(super) fn seat(&mut self, member: Member, keeps: &[u64]) {
        let subscriber = member.subscriber;
        let (mut moved, mut unheard) = (false, false);
        let mut state = match self.members.remove(&subscriber) {
            Some(known) => {
                self.held_bytes -= known.held.bytes;
                moved = known.member.location != member.location;
                unheard = known.is_online();
                MemberState { member, ..known }
            }
            None => MemberState::new(member),
        };
        state.leaving = false;
        self.put_member(state);
        if moved {
            self.give_back(subscriber, |seq, held| {
                held.qos == QoS::ExactlyOnce && (!unheard || keeps.contains(&seq))
            });
        }
    }

    /// A stored member is known from its row, and not connected.
    pub(in crate::view) fn seat_row(&mut self, subscriber: u64, row: MemberRow) {
        let member = Member {
            subscriber,
            session: Some(row.session),
            location: Location::NOWHERE,
            options: row.options,
            identifier: row.identifier,
            window: 0,
        };
        self.put_member(MemberState { written: true, ..MemberState::new(member) });
    }

    /// A member is what it is said to be, whatever it was before.
    pub(super) fn put_member(&mut self, state: MemberState) {
        let subscriber = state.member.subscriber;
        self.held_bytes += state.held.bytes;
        if let Some(known) = self.members.insert(subscriber, state) {
            self.held_bytes -= known.held.bytes;
        }
        self.with_member(subscriber, |_| ());
    }

    /// A member that leaves is gone when it has nothing any more.
    pub(super) fn drop_if_left(&mut self, subscriber: u64) -> Option<MemberState> {
        let member = self.members.get(&subscriber)?;
        if !member.leaving || !member.held.entries.is_empty() {
            return None;
        }
        self.takers.remove(&subscriber);
        self.members.remove(&subscriber)
    }

    /// The batch that made the group a stored one was not written: it is in memory only, as
    /// before, without those whose sessions are stored. False when nobody else is in it.
    pub(super) fn stays_in_memory(&mut self) -> bool {
        self.durable = false;
        let stored = |member: &&MemberState| member.member.session.is_some();
        let unwritten: Vec<u64> =
            self.members.values().filter(stored).map(|member| member.member.subscriber).collect();
        for subscriber in unwritten {
            self.give_back(subscriber, |_, _| false);
            self.members.remove(&subscriber);
            self.takers.remove(&subscriber);
        }
        !self.members.is_empty()
    }

    /// Nobody is left.
    pub(super) fn is_over(&self) -> bool {
        self.members.is_empty()
    }

    /// Nobody is left but those that finish what they have: nothing more is for this group.
    pub(super) fn is_deserted(&self) -> bool {
        self.members.values().all(|member| member.leaving)
    }

    /// Entries of a member go back to their place in the queue, but for those it keeps.
    pub(in crate::view) fn give_back(
        &mut self,
        subscriber: u64,
        keeps: impl Fn(u64, &Held) -> bool,
    ) {
        let back = self.with_member(subscriber, |member| member.held.keep(keeps));
        self.returned.extend(back.into_iter().flatten());
    }

    /// The member whose turn it is among those that can take an entry. Of a group in memory no
    /// member has more than `most` bytes, but for one entry.
    pub(super) fn next_taker(&mut self, seq: u64, most: u64) -> Option<u64> {
        let content = self.contents.get(&seq).filter(|_| !self.durable);
        let bytes = content.map(Content::bytes);
        let may_have = |taker: &&u64| {
            let member = self.members.get(taker);
            member.is_some_and(|member| bytes.is_none_or(|bytes| member.may_have(bytes, most)))
        };
        let after = (Bound::Excluded(self.turn), Bound::Unbounded);
        let mut all = self.takers.range(after).chain(self.takers.range(..=self.turn));
        let taker = *all.find(may_have)?;
        self.turn = taker;
        Some(taker)
    }

    /// The member whose turn it is among those that are there, with room or without: for QoS 0.
    pub(super) fn next_online(&mut self) -> Option<&Member> {
        let after = (Bound::Excluded(self.turn), Bound::Unbounded);
        let all = self.members.range(after).chain(self.members.range(..=self.turn));
        let online = |member: &MemberState| member.is_online() && !member.leaving;
        let (subscriber, member) = all.into_iter().find(|(_, member)| online(member))?;
        self.turn = *subscriber;
        Some(&member.member)
    }

    pub(in crate::view) fn push(&mut self, publication: Arc<Publication>, bytes: u64) -> u64 {
        self.head += 1;
        self.weight += bytes;
        self.load.messages += 1;
        self.load.bytes += bytes;
        self.contents.insert(self.head, Content { publication, weight: self.weight });
        self.head
    }

    /// The first entry that no member has.
    pub(in crate::view) fn first_waiting(&self) -> Option<u64> {
        let returned = self.returned.first().copied();
        returned.or_else(|| (self.next <= self.head).then_some(self.next))
    }

    /// The first waiting entry does not wait any more.
    pub(in crate::view) fn take(&mut self, seq: u64) {
        if !self.returned.remove(&seq) && seq == self.next {
            self.next += 1;
        }
    }

    pub(super) fn contents(&self) -> impl Iterator<Item = (u64, &Content)> {
        self.contents.iter().map(|(seq, content)| (*seq, content))
    }

    pub(super) fn content(&self, seq: u64) -> Option<&Content> {
        self.contents.get(&seq)
    }

    /// An entry is finished.
    pub(super) fn forget(&mut self, seq: u64, bytes: u64) {
        self.contents.remove(&seq);
        self.load.messages = self.load.messages.saturating_sub(1);
        self.load.bytes = self.load.bytes.saturating_sub(bytes);
    }

    /// The number up to which everything is finished, when it has grown.
    pub(super) fn raised_floor(&mut self) -> Option<u64> {
        let held = self.members.values().filter_map(|member| member.held.entries.keys().next());
        let first = held.chain(self.returned.first()).min().copied();
        let floor = first.unwrap_or(self.next).min(self.next) - 1;
        let raised = floor > self.floor;
        self.floor = self.floor.max(floor);
        raised.then_some(floor)
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.durable && self.contents.len() > CONTENTS_AT_HAND
    }

    fn trim(&mut self) {
        let waiting = self.contents.range(self.next..).nth(CONTENTS_AT_HAND).map(|(seq, _)| *seq);
        if let Some(from) = waiting {
            self.contents.split_off(&from);
        }
        // What a member has comes back rarely: then it is read again.
        let before = self.contents.split_off(&self.next);
        self.contents = before;
    }

    /// An entry was offered to nobody after all.
    pub(in crate::view) fn take_back(&mut self, seq: u64) {
        let holds = |member: &&MemberState| member.held.has(seq);
        let holder = self.members.values().find(holds).map(|member| member.member.subscriber);
        if let Some(subscriber) = holder {
            self.with_member(subscriber, |member| member.held.remove(seq));
            self.returned.insert(seq);
        }
    }

    /// True when an entry waits or a member has it.
    pub(in crate::view) fn is_open(&self, seq: u64) -> bool {
        self.returned.contains(&seq)
            || (self.next..=self.head).contains(&seq)
            || self.members.values().any(|member| member.held.has(seq))
    }

    /// The queue as its rows tell it: entries in order, with what they weigh together.
    pub(in crate::view) fn set_queue(&mut self, rows: &[(u64, u64)], head: u64, weight: u64) {
        self.head = head;
        self.weight = weight;
        let held = self.members.values().flat_map(|member| member.held.iter());
        let held: BTreeSet<u64> = held.map(|(seq, _)| seq).collect();
        self.load.messages = rows.len() as u64;
        self.load.bytes = rows.iter().map(|(_, bytes)| bytes).sum();
        // Behind the last entry that is finished or held, everything waits and was never offered.
        let mut next = head + 1;
        for (seq, _) in rows.iter().rev() {
            if *seq + 1 != next || held.contains(seq) {
                break;
            }
            next = *seq;
        }
        self.next = next;
        let earlier = rows.iter().map(|(seq, _)| *seq).take_while(|seq| *seq < next);
        self.returned = earlier.filter(|seq| !held.contains(seq)).collect();
        self.contents.clear();
        self.floor = rows.first().map_or(head, |(seq, _)| seq - 1);
    }

    /// Up to where everything is finished.
    pub(in crate::view) fn floor(&self) -> u64 {
        self.floor
    }
}
