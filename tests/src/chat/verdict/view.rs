//! What users are told of a conversation: what they pull, and what their list says.

use super::super::cast::Conv;
use super::super::entry::Kind;
use super::super::event::{Line, What};
use super::super::judge::{Order, Pull};
use super::{Verdict, done_at, surely};
use crate::chat::event::Answer;

/// Retention has taken what is beyond it within this time.
const SWEPT_WITHIN_MS: u64 = 5_000;

impl Verdict<'_> {
    /// What a user pulls is what it may see, and nothing of what was recalled.
    pub(super) fn pull(&mut self, user: usize, since: Order) {
        let Some(pull) = self.judge.pulls.get(&(user, self.conv)) else { return };
        if !pull.done || pull.asked < since {
            return;
        }
        let name = &self.judge.cast.users[user];
        let min = pull.bounds.0;
        let pulled: Vec<u64> = pull.entries.iter().map(|(seq, ..)| *seq).collect();
        let shown = |seq: &u64| {
            let may = self.may_see(user, *seq);
            may && (pulled.contains(seq) || !self.is_channel() || self.must_see(user, *seq))
        };
        let expected: Vec<u64> = (min..=self.head()).filter(shown).collect();
        if pulled != expected {
            let differs = pulled.iter().zip(&expected).position(|(a, b)| a != b);
            let at = differs.unwrap_or(pulled.len().min(expected.len()));
            let (is, was) = (pulled.get(at), expected.get(at));
            let what = format!("{name} pulls {is:?} where {was:?} is to be seen");
            self.fault(is.or(was).copied().unwrap_or(0), what);
        }
        self.bodies(user, pull);
    }

    /// What has no body any more is pulled as void, everything else with its newest body.
    fn bodies(&mut self, user: usize, pull: &Pull) {
        let log = &self.judge.logs[self.conv];
        let name = &self.judge.cast.users[user];
        for (seq, kind, body) in &pull.entries {
            let is_void = *kind == Kind::Void;
            let gone = log.counts(*seq) && log.is_gone(*seq);
            let fleeting = matches!(self.made_as(*seq), None | Some(What::Fleeting(_)));
            if is_void != gone && !(is_void && fleeting) {
                self.fault(*seq, format!("{name} pulls a {kind:?}"));
            }
            if !is_void && self.should_be_burnt(user, *seq, pull.asked) {
                self.fault(*seq, format!("{name} pulls what should have burnt"));
            }
            let newest = log.events(Kind::Edit, *seq).last().and_then(|(_, edit)| edit.body);
            let newest = newest.or(self.fact(*seq).and_then(|fact| fact.body));
            if *kind == Kind::Message && body.map(|b| b.message) != newest.map(|b| b.message) {
                self.fault(*seq, format!("{name} pulls {body:?}, the newest is {newest:?}"));
            }
        }
    }

    pub(super) fn is_channel(&self) -> bool {
        matches!(self.cast_conv(), Conv::Channel { .. })
    }

    /// Whether the conversation has come into the user's list: perhaps, surely.
    fn is_listed(&self, user: usize) -> (bool, bool) {
        if !self.is_channel() {
            let listed = !self.members[user].sees.is_empty() && self.head() > 0;
            return (listed, listed);
        }
        let owner = self.cast_conv().owner();
        let mut deeds = self.deeds.iter().map(|(_, known)| *known);
        let made = deeds.find(|known| known.deed.what == What::Create);
        if self.cast_conv().is_publisher(user) && owner.is_some() {
            return (made.is_some(), made.and_then(done_at).is_some());
        }
        let follows = || self.deeds_of(user, |what| what == What::Join);
        (follows().next().is_some(), follows().any(|known| done_at(known).is_some()))
    }

    /// What a user's list says of the conversation.
    pub(super) fn list(&mut self, user: usize, since: Order) {
        let Some((asked, lines)) = &self.judge.lists[user] else { return };
        if *asked < since {
            return;
        }
        let name = self.judge.cast.users[user].clone();
        let line = lines.iter().find(|line| line.conv == self.conv).copied();
        let ((may, must), (may_hide, hidden)) = (self.is_listed(user), self.hidden(user));
        match line {
            Some(_) if !may || (hidden && must) => {
                let what = format!("{name}: in the list {line:?}, hidden {hidden}");
                self.fault(self.head(), what);
            }
            None if must && !may_hide => {
                self.fault(self.head(), format!("{name}: not in the list"));
            }
            Some(line) => self.line(user, &name, line, *asked),
            None => {}
        }
    }

    /// Between which two a user's line ends: with the last entry there is, and for whoever is out
    /// with the last one of then (ruling 25).
    pub(super) fn ends(&self, user: usize) -> (u64, u64) {
        let head = self.head();
        if !self.is_channel() {
            let until = self.members[user].sees.last().and_then(|(_, until)| *until);
            let end = until.map_or(head, |until| until.min(head));
            return (end, end);
        }
        if self.follows_now(user) {
            return (head, head);
        }
        let (mut first, mut end) = (head, 0);
        for leave in self.deeds_of(user, |what| what == What::Leave) {
            let Some(asked) = leave.asked.first() else { continue };
            first = first.min(self.surely_at(*asked));
            end = end.max(surely(leave).map_or(head, |(_, done)| self.last_at(done)));
        }
        (first, if self.may_follow_now(user) { head } else { end })
    }

    fn line(&mut self, user: usize, name: &str, line: Line, asked: Order) {
        let Line { last, count, unread, read, recv, min, .. } = line;
        let (first, end) = self.ends(user);
        let log = &self.judge.logs[self.conv];
        let messages = (1..=last).filter(|seq| log.counts(*seq)).count() as u64;
        // Whoever is out, and sees nothing any more, is not told how many there were.
        let counted = count == messages || (min > last && last < self.head() && count <= last);
        if !(first..=end).contains(&last) || !counted {
            let what = format!("{name}: {last} with {count}, is {first}..{end} with {messages}");
            self.fault(end, what);
        }
        let (low, high) = self.reads(user);
        if read < low || read > high {
            self.fault(low, format!("{name} has read up to {low}..{high}, told {read}"));
        }
        // What retention has taken cannot be read any more.
        let from = read.max(min.saturating_sub(1));
        let (mut open, mut surely, mut perhaps) = (0, 0, 0);
        for (first, end) in self.stretches(user, from, last) {
            let (expired, may) = self.expired(first - 1, end, asked);
            (open, surely) = (open + log.unread(first - 1, end), surely + expired);
            perhaps += may;
        }
        let open = open - perhaps..=open - surely;
        if !open.contains(&unread) && (!self.is_channel() || self.follows_now(user)) {
            self.fault(read, format!("{name} has {open:?} unread behind {read}, told {unread}"));
        }
        let most = self.received(user, self.judge.order());
        if recv > most {
            self.fault(recv, format!("{name} has received up to {most}, told {recv}"));
        }
        self.begins(user, name, min, asked);
    }

    /// What the user may see behind an entry, up to another.
    fn stretches(&self, user: usize, behind: u64, end: u64) -> Vec<(u64, u64)> {
        if self.is_channel() {
            return vec![(behind + 1, end)];
        }
        let sees = self.members[user].sees.iter();
        let clipped = sees.map(|(from, until)| {
            ((*from).max(behind + 1), until.map_or(end, |until| until.min(end)))
        });
        clipped.filter(|(from, end)| from <= end).collect()
    }

    /// What a user is told to be the first entry: what was cleared is before it, what retention
    /// takes goes, and nothing else.
    fn begins(&mut self, user: usize, name: &str, min: u64, asked: Order) {
        let (cleared, perhaps) = self.cleared(user);
        let first = self.members[user].sees.first().map_or(1, |(from, _)| *from);
        let first = if self.is_channel() { self.head() + 1 } else { first };
        let floor = self.floor();
        if min <= cleared || min > floor.max(perhaps + 1).max(first) {
            let what = format!("{name} sees from {min} on, cleared {cleared}..{perhaps}");
            self.fault(min, format!("{what}, kept from {floor}"));
        }
        let last = self.fact(self.head()).and_then(|fact| fact.sent.as_ref());
        let still = last.is_some_and(|(_, ts)| self.judge.time_of(asked) > ts + SWEPT_WITHIN_MS);
        if still && min < floor && !self.judge.disk_failed {
            self.fault(min, format!("{name} sees from {min} on, kept from {floor}"));
        }
    }

    /// Between which two the user's `read` stands.
    fn reads(&self, user: usize) -> (u64, u64) {
        let (cleared, perhaps) = self.cleared(user);
        let own = self.own_sends[user].iter().map(|(_, seq)| *seq).max().unwrap_or(0);
        // Who is back is where they were.
        let joined = self.members[user].joined.first().map_or(0, |seq| seq - 1);
        // A channel keeps no copy of cursors, and begins where it stands.
        let (mut low, mut high) = match self.is_channel() {
            true => (cleared, self.head()),
            false => (own.max(joined).max(cleared), perhaps),
        };
        for known in self.deeds_of(user, |what| matches!(what, What::Read(_))) {
            let What::Read(seq) = known.deed.what else { continue };
            match &known.answered {
                // What is asked again may be refused although it was done the first time.
                Some((_, Answer::Refused(_))) if known.asked.len() > 1 => high = high.max(seq),
                Some((_, Answer::Refused(_))) => {}
                Some(_) => low = low.max(seq),
                None => high = high.max(seq),
            }
        }
        (low, high.max(low))
    }

    /// How far the user may have received by then.
    pub(super) fn received(&self, user: usize, at: Order) -> u64 {
        let told = self.judge.received[user][self.conv].iter().chain(&self.own_sends[user]);
        let told = told.filter(|(order, _)| *order <= at).map(|(_, seq)| *seq);
        let joined = self.members[user].joined.iter().map(|seq| seq - 1);
        let moves = |what| what == What::Clear || (self.is_channel() && what == What::Join);
        // A channel is followed from where it stands, a cleared one is passed.
        let passed = self.deeds_of(user, moves).filter(|known| known.asked.first() <= Some(&at));
        let passed = passed.map(|known| {
            let end = surely(known).map_or(Order::MAX, |(_, done)| done);
            self.last_at(end.min(at))
        });
        told.chain(joined).chain(passed).max().unwrap_or(0)
    }
}
