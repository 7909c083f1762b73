//! Who may see an entry, and who has to. For pairs and groups the log says it. Who follows a
//! channel comes and goes without a word in the log (ruling 27): what was asked and answered says
//! from when to when somebody may have followed, and surely did.

use super::super::cast::Conv;
use super::super::event::What;
use super::super::judge::{Known, Order};
use super::{Verdict, done_at, surely};

/// When an entry was appended: not before, and not after.
#[derive(Clone, Copy)]
struct Moment {
    first: Order,
    last: Order,
}

/// How a user has followed a channel, looked up once: it is asked for each entry and device.
#[derive(Debug, Default)]
pub(super) struct Following<'a> {
    follows: Vec<&'a Known>,
    ends: Vec<&'a Known>,
    /// By seq: whether the user may see the entry, and whether it has to.
    sees: Vec<(bool, bool)>,
}

impl<'a> Verdict<'a> {
    pub(super) fn look_at_followers(&mut self) {
        if !self.is_channel() {
            return;
        }
        for user in 0..self.judge.cast.users.len() {
            let follows = self.deeds_of(user, |what| what == What::Join).collect();
            let ends = self.deeds_of(user, |what| what == What::Leave).collect();
            self.following.push(Following { follows, ends, sees: Vec::new() });
            let moments = (0..=self.head()).map(|seq| self.moment(seq));
            let sees: Vec<(bool, bool)> =
                moments.map(|at| (self.may_follow(user, at), self.follows(user, at))).collect();
            self.following[user].sees = sees;
        }
    }

    /// Deeds of one kind that a user has done in the conversation.
    pub(super) fn deeds_of(
        &self,
        user: usize,
        is: impl Fn(What) -> bool,
    ) -> impl Iterator<Item = &'a Known> {
        let judge = self.judge;
        let of_user = move |known: &&Known| {
            let deed = known.deed;
            is(deed.what) && judge.cast.devices[deed.device].user == user
        };
        self.deeds.iter().map(|(_, known)| *known).filter(of_user)
    }

    fn moment(&self, seq: u64) -> Moment {
        let origin = self.judge.origin(self.conv, seq);
        let first = origin.and_then(|known| known.asked.first().copied()).unwrap_or(0);
        let last = self.judge.heard[self.conv].get(&seq).copied().unwrap_or(Order::MAX);
        Moment { first, last }
    }

    /// The last entry that may have been there at that time, also one that nobody knows.
    pub(super) fn last_at(&self, at: Order) -> u64 {
        (1..=self.head()).rev().find(|seq| self.moment(*seq).first <= at).unwrap_or(0)
    }

    /// The last entry that was surely there at that time.
    pub(super) fn surely_at(&self, at: Order) -> u64 {
        let heard = self.judge.heard[self.conv].iter();
        heard.filter(|(_, order)| **order < at).map(|(seq, _)| *seq).max().unwrap_or(0)
    }

    pub(super) fn may_see(&self, user: usize, seq: u64) -> bool {
        match self.cast_conv() {
            Conv::Channel { .. } => self.cast_conv().is_publisher(user) || self.sees(user, seq).0,
            _ => self.members[user].may_see(seq),
        }
    }

    /// Whether the user may see it, and was there when it was appended.
    pub(super) fn must_see(&self, user: usize, seq: u64) -> bool {
        match self.cast_conv() {
            Conv::Channel { .. } => self.cast_conv().is_publisher(user) || self.sees(user, seq).1,
            conv => {
                let member = &self.members[user];
                member.may_see(seq) && member.belonged(seq, conv)
            }
        }
    }

    fn now(&self) -> Moment {
        Moment { first: self.judge.order(), last: self.judge.order() }
    }

    /// Whether the user surely follows the channel now.
    pub(super) fn follows_now(&self, user: usize) -> bool {
        self.cast_conv().is_publisher(user) || self.follows(user, self.now())
    }

    /// Whether the user may follow the channel now.
    pub(super) fn may_follow_now(&self, user: usize) -> bool {
        self.cast_conv().is_publisher(user) || self.may_follow(user, self.now())
    }

    fn sees(&self, user: usize, seq: u64) -> (bool, bool) {
        self.following[user].sees.get(seq as usize).copied().unwrap_or_default()
    }

    /// A follow that no end has surely followed before the moment.
    fn may_follow(&self, user: usize, moment: Moment) -> bool {
        let Following { follows, ends, .. } = &self.following[user];
        follows.iter().any(|follow| {
            let begins = follow.asked.first().is_some_and(|asked| *asked < moment.last);
            let over = ends.iter().any(|end| {
                let both = surely(end).zip(surely(follow));
                both.is_some_and(|(end, follow)| follow.1 < end.0 && end.1 < moment.first)
            });
            begins && !over
        })
    }

    /// A follow before the moment, and every end is surely before that follow or after the moment.
    fn follows(&self, user: usize, moment: Moment) -> bool {
        let Following { follows, ends, .. } = &self.following[user];
        follows.iter().any(|follow| {
            let begun = done_at(follow).is_some_and(|done| done < moment.first);
            let clear = ends.iter().all(|end| {
                let later = end.asked.first().is_none_or(|asked| *asked > moment.last);
                later || surely(end).is_some_and(|end| end.1 < follow.asked[0])
            });
            begun && clear
        })
    }
}
