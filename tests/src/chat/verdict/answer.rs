//! Holds what was answered against the log: what was acknowledged is there, what was refused had
//! a reason and is not.

use super::super::cast::Conv;
use super::super::entry::Kind;
use super::super::event::{Answer, What};
use super::super::judge::{Known, Order};
use super::super::log::Member;
use super::{Verdict, done_at};

/// The code of "not allowed" (0x87).
const NOT_ALLOWED: &str = "135";

impl<'a> Verdict<'a> {
    /// What was answered is so.
    pub(super) fn deeds(&mut self) {
        let is_channel = matches!(self.cast_conv(), Conv::Channel { .. });
        for (number, known) in self.deeds.clone() {
            let Some((at, answer)) = &known.answered else { continue };
            let places = self.judge.stored.get(&number).map_or(&[][..], Vec::as_slice);
            match (known.deed.what, answer) {
                (what, Answer::Done)
                    if what.is_send() && places.is_empty() && !self.may_be_void(number) =>
                {
                    self.fault(0, format!("deed {number} was acknowledged and is not stored"));
                }
                (what, Answer::Refused(code)) if what.is_send() => {
                    self.refused(number, known, *at, code, places);
                }
                (what, Answer::Sent(_))
                    if what.is_send() && self.was_blocked(number, known.asked[0], *at) =>
                {
                    let seq = places.first().copied().unwrap_or(0);
                    self.fault(seq, format!("deed {number} passed a block"));
                }
                (What::Recall(of), Answer::Sent(sent)) => {
                    let fact = self.fact(sent.seq);
                    if fact.is_none_or(|f| f.kind != Some(Kind::Recall) || f.reference != of) {
                        self.fault(sent.seq, format!("no recall of {of}: {fact:?}"));
                    }
                }
                (What::Leave | What::Kick(_), Answer::Done) if !is_channel => {
                    self.removed(number, known);
                }
                _ => {}
            }
        }
    }

    /// The user has sent something whose body was gone before anybody saw it: that may be it.
    fn may_be_void(&self, number: usize) -> bool {
        let name = &self.judge.cast.users[self.judge.user(number)];
        let mut facts = self.judge.logs[self.conv].facts.values();
        facts.any(|fact| fact.void && fact.body.is_none() && fact.from.as_ref() == Some(name))
    }

    /// Who was removed is out by the log.
    fn removed(&mut self, number: usize, known: &Known) {
        let user = match known.deed.what {
            What::Kick(user) => user,
            _ => self.judge.user(number),
        };
        if self.members[user].left.is_empty() {
            let name = &self.judge.cast.users[user];
            self.fault(0, format!("deed {number}: {name} is still a member"));
        }
    }

    /// A refusal needs a reason, and what is refused is not stored.
    fn refused(&mut self, number: usize, known: &Known, at: Order, code: &str, places: &[u64]) {
        if code != NOT_ALLOWED {
            if !self.judge.disk_failed {
                self.fault(0, format!("deed {number} was refused with {code}"));
            }
            return;
        }
        // Without an id of its own each attempt is a message by itself.
        let is_one = known.deed.cid || known.asked.len() == 1;
        if let Some(seq) = places.first().filter(|_| is_one) {
            self.fault(*seq, format!("deed {number} was refused and is stored at {places:?}"));
        }
        let user = self.judge.user(number);
        let may = match self.judge.cast.convs[self.conv] {
            Conv::Pair(..) => self.may_be_blocked(number, known.asked[0], at),
            Conv::Notes(_) => false,
            Conv::Channel { .. } => !self.cast_conv().is_publisher(user),
            Conv::Group { .. } => {
                let Member { joined, left, .. } = &self.members[user];
                joined.first() != Some(&1) || !left.is_empty()
            }
        };
        if !may {
            self.fault(0, format!("deed {number} was refused without a reason"));
        }
    }

    /// Blocks and their ends by the peer of whoever has done a deed.
    fn blocks(&self, number: usize, what: What) -> impl Iterator<Item = &'a Known> {
        let judge = self.judge;
        let peer = judge.cast.peer(self.conv, judge.user(number));
        let by_peer = move |known: &&Known| {
            let user = judge.cast.devices[known.deed.device].user;
            known.deed.what == what && Some(user) == peer
        };
        self.deeds.iter().map(|(_, known)| *known).filter(by_peer)
    }

    /// A block was surely in force from before `from` until `to`.
    fn was_blocked(&self, number: usize, from: Order, to: Order) -> bool {
        self.blocks(number, What::Block).any(|block| {
            let in_force = done_at(block).is_some_and(|done| done < from);
            let over_before = |end: &Known| {
                let later = end.asked.first().is_none_or(|asked| *asked > to);
                // A call whose acknowledgement is lost is made again, although it was answered.
                let last = done_at(end).max(end.asked.last().copied());
                later || (done_at(end).is_some() && last < block.asked.first().copied())
            };
            in_force && self.blocks(number, What::Unblock).all(over_before)
        })
    }

    /// A block may have been in force at some time between the two.
    fn may_be_blocked(&self, number: usize, from: Order, to: Order) -> bool {
        self.blocks(number, What::Block).any(|block| {
            let begins = block.asked.first().is_some_and(|asked| *asked < to);
            let ends = |end: &Known| {
                let last = done_at(block).max(block.asked.last().copied());
                let behind = done_at(block).is_some() && end.asked.first() > last.as_ref();
                behind && done_at(end).is_some_and(|done| done < from)
            };
            begins && !self.blocks(number, What::Unblock).any(ends)
        })
    }
}
