//! What must be true when everything has come to rest: every device is connected and has answered,
//! each user has asked for its list and pulled its conversations.
//!
//! Here is what the log itself must be like. `answer` holds the answers against it, `view` what
//! users are told of it, `delivery` what devices got of it; `sight` says who may see what, `time`
//! what follows from when something was done.

mod answer;
mod delivery;
mod sight;
mod time;
mod view;

use super::cast::Conv;
use super::entry::Kind;
use super::event::Answer;
use super::judge::{Fault, Judge, Known, Order};
use super::log::{Fact, Member};
use sight::Following;

/// Collects what is wrong with one conversation.
struct Verdict<'a> {
    judge: &'a Judge,
    conv: usize,
    /// Deeds in it with their numbers, looked up once: they are asked for again and again.
    deeds: Vec<(usize, &'a Known)>,
    members: Vec<Member>,
    /// By user: entries of its own that count, and when they were first sent.
    own_sends: Vec<Vec<(Order, u64)>>,
    /// By user: how it has followed a channel.
    following: Vec<Following<'a>>,
    faults: Vec<Fault>,
}

impl Judge {
    /// Everything that is wrong now; lists and pulls asked for before `since` are too old.
    pub fn verdict(&self, since: Order) -> Vec<Fault> {
        let mut faults = self.faults.clone();
        for conv in 0..self.cast.convs.len() {
            let mut verdict = Verdict::of(self, conv);
            if verdict.is_lost() {
                continue;
            }
            verdict.log();
            verdict.deeds();
            for user in 0..self.cast.users.len() {
                verdict.pull(user, since);
                verdict.list(user, since);
            }
            for device in 0..self.cast.devices.len() {
                verdict.deliveries(device);
            }
            faults.append(&mut verdict.faults);
        }
        faults
    }
}

impl<'a> Verdict<'a> {
    fn of(judge: &'a Judge, conv: usize) -> Verdict<'a> {
        let cast = &judge.cast;
        let members = judge.logs[conv].intervals(&cast.convs[conv], &cast.users);
        let mut own_sends = vec![Vec::new(); cast.users.len()];
        for (number, places) in &judge.stored {
            let Known { deed, asked, .. } = &judge.known[*number];
            if deed.conv == conv && deed.what.is_send() {
                let user = judge.user(*number);
                own_sends[user].extend(places.iter().map(|seq| (asked[0], *seq)));
            }
        }
        // Without an id of its own, and without its body, an entry tells no deed: only its sender.
        for (seq, fact) in &judge.logs[conv].facts {
            let user = fact.from.as_ref().and_then(|name| cast.user_of(name));
            let own =
                user.filter(|_| fact.kind == Some(Kind::Message)).map(|user| &mut own_sends[user]);
            if let Some(own) = own.filter(|own| own.iter().all(|(_, known)| known != seq)) {
                own.push((0, *seq));
            }
        }
        let deeds = judge.known.iter().enumerate().filter(|(_, known)| known.deed.conv == conv);
        let mut verdict = Verdict {
            judge,
            conv,
            deeds: deeds.collect(),
            members,
            own_sends,
            following: Vec::new(),
            faults: Vec::new(),
        };
        verdict.look_at_followers();
        verdict
    }

    fn fault(&mut self, seq: u64, what: String) {
        let place = Some((self.conv, seq));
        let what = format!("{what}, in c{}", self.conv);
        self.faults.push(Fault { what, place, at: self.judge.order() });
    }

    fn fact(&self, seq: u64) -> Option<&'a Fact> {
        self.judge.logs[self.conv].facts.get(&seq)
    }

    fn head(&self) -> u64 {
        self.judge.logs[self.conv].head()
    }

    fn cast_conv(&self) -> &'a Conv {
        &self.judge.cast.convs[self.conv]
    }

    /// The first entry that retention has to leave there.
    fn floor(&self) -> u64 {
        self.floor_below(self.head())
    }

    /// As [`floor`](Self::floor), when this was the last entry.
    fn floor_below(&self, head: u64) -> u64 {
        let keep = match self.cast_conv() {
            Conv::Channel { .. } => None,
            _ => self.judge.keep,
        };
        keep.map_or(1, |keep| (head + 1).saturating_sub(keep).max(1))
    }

    /// Nobody has ever seen what retention has taken, or everybody has cleared who may see it: who
    /// is a member cannot be known, nor what counts.
    fn is_lost(&self) -> bool {
        let Some(hole) = self.judge.logs[self.conv].hole(1) else { return false };
        let shows = |user: &usize| match self.cast_conv() {
            Conv::Channel { .. } => self.cast_conv().is_publisher(*user),
            _ => {
                let mut sees = self.members[*user].sees.iter();
                sees.any(|(from, until)| *from <= hole && until.is_none_or(|until| hole <= until))
            }
        };
        let mut users = (0..self.judge.cast.users.len()).filter(shows);
        hole < self.floor() || users.all(|user| self.cleared(user).1 >= hole)
    }

    /// The log itself: dense, in the order of time, counted right, by members alone.
    fn log(&mut self) {
        let log = &self.judge.logs[self.conv];
        if let Some(hole) = log.hole(1) {
            self.fault(hole, format!("nobody knows entry {hole}, the last is {}", log.head()));
            return;
        }
        let (mut before, mut count) = (None, 0);
        for (seq, fact) in &log.facts {
            if before >= fact.sent && before.is_some() {
                self.fault(*seq, format!("{:?} follows {before:?}", fact.sent));
            }
            if let (Some((_, ts)), Some((_, last))) = (&fact.sent, &before)
                && ts < last
            {
                self.fault(*seq, "time goes back".to_owned());
            }
            before.clone_from(&fact.sent);
            count += u64::from(fact.kind == Some(Kind::Message));
            if fact.count.is_some_and(|told| told != count) {
                self.fault(*seq, format!("{count} count up to {seq}, told {:?}", fact.count));
            }
            self.author(*seq, fact);
            self.fate(*seq, fact);
        }
        for (user, member) in self.members.clone().into_iter().enumerate() {
            if let Some(seq) = member.odd {
                let user = &self.judge.cast.users[user];
                self.fault(seq, format!("{user} joins as a member or leaves as none"));
            }
        }
    }

    /// Who may have appended an entry.
    fn author(&mut self, seq: u64, fact: &Fact) {
        let cast = &self.judge.cast;
        let Some(user) = fact.from.as_ref().and_then(|name| cast.user_of(name)) else {
            return self.fault(seq, format!("by nobody: {:?}", fact.from));
        };
        let name = &cast.users[user];
        let is_change = fact.kind == Some(Kind::Member);
        match self.cast_conv() {
            conv @ Conv::Channel { .. } if !conv.is_publisher(user) => {
                self.fault(seq, format!("{name} is no publisher"));
            }
            Conv::Channel { .. } => {}
            _ if is_change => {}
            _ if !self.members[user].may_see(seq) => {
                self.fault(seq, format!("{name} is no member"));
            }
            Conv::Group { .. } if !self.members[user].was_member(seq) => {
                self.fault(seq, format!("{name} was no member"));
            }
            _ => {}
        }
        if fact.kind == Some(Kind::Recall) {
            let sender = self.fact(fact.reference).and_then(|of| of.from.clone());
            let moderates = match self.cast_conv() {
                Conv::Group { owner, .. } => *owner == user,
                conv => conv.is_publisher(user),
            };
            if sender != fact.from && !moderates {
                self.fault(seq, format!("{name} recalls what {sender:?} has sent"));
            }
        }
    }
}

/// When a deed was done.
fn done_at(known: &Known) -> Option<Order> {
    match &known.answered {
        Some((at, Answer::Done | Answer::Sent(_))) => Some(*at),
        _ => None,
    }
}

/// When a deed was surely under way: between its only question and its answer.
fn surely(known: &Known) -> Option<(Order, Order)> {
    let once = known.asked.len() == 1;
    done_at(known).filter(|_| once).map(|done| (known.asked[0], done))
}
