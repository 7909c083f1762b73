//! What must be true when everything has come to rest: every device is connected and has answered,
//! each user has asked for its list and pulled its conversations.

use std::collections::BTreeSet;

use super::cast::Conv;
use super::entry::Kind;
use super::event::{Answer, Line, What};
use super::judge::{Fault, Judge, Known, Order, Step};
use super::log::{Fact, Member};

/// The code of "not allowed" (0x87).
const NOT_ALLOWED: &str = "135";

/// Collects what is wrong with one conversation.
struct Verdict<'a> {
    judge: &'a Judge,
    conv: usize,
    members: Vec<Member>,
    /// By user: entries of its own that count, and when they were first sent.
    own_sends: Vec<Vec<(Order, u64)>>,
    faults: Vec<Fault>,
}

impl Judge {
    /// Everything that is wrong now; lists and pulls asked for before `since` are too old.
    pub fn verdict(&self, since: Order) -> Vec<Fault> {
        let mut faults = self.faults.clone();
        for conv in 0..self.cast.convs.len() {
            let mut verdict = Verdict::of(self, conv);
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
            if deed.conv == conv && deed.what == What::Send {
                let user = judge.user(*number);
                own_sends[user].extend(places.iter().map(|seq| (asked[0], *seq)));
            }
        }
        Verdict { judge, conv, members, own_sends, faults: Vec::new() }
    }

    fn fault(&mut self, seq: u64, what: String) {
        let place = Some((self.conv, seq));
        let what = format!("{what}, in c{}", self.conv);
        self.faults.push(Fault { what, place, at: self.judge.order() });
    }

    fn fact(&self, seq: u64) -> Option<&'a Fact> {
        self.judge.logs[self.conv].facts.get(&seq)
    }

    /// The log itself: dense, in the order of time, counted right, by members alone.
    fn log(&mut self) {
        let log = &self.judge.logs[self.conv];
        if let Some(hole) = log.hole() {
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
        let is_change = fact.kind == Some(Kind::Member);
        if !is_change && !self.members[user].may_see(seq) {
            self.fault(seq, format!("{} is no member", cast.users[user]));
        }
        if let (Conv::Group { .. }, false) = (&cast.convs[self.conv], is_change)
            && !self.members[user].was_member(seq)
        {
            self.fault(seq, format!("{} was no member", cast.users[user]));
        }
        if fact.kind == Some(Kind::Recall) {
            let sender = self.fact(fact.reference).and_then(|of| of.from.clone());
            let moderates =
                matches!(&cast.convs[self.conv], Conv::Group { owner, .. } if *owner == user);
            if sender != fact.from && !moderates {
                self.fault(seq, format!("{} recalls what {sender:?} has sent", cast.users[user]));
            }
        }
        if fact.void && !self.judge.logs[self.conv].is_recalled(seq) {
            self.fault(seq, "void, and nobody has recalled it".to_owned());
        }
    }

    /// What was answered is so.
    fn deeds(&mut self) {
        for (number, known) in self.judge.known.iter().enumerate() {
            let Some((at, answer)) = &known.answered else { continue };
            if known.deed.conv != self.conv {
                continue;
            }
            let places = self.judge.stored.get(&number).map_or(&[][..], Vec::as_slice);
            match (known.deed.what, answer) {
                (What::Send, Answer::Done) if places.is_empty() => {
                    self.fault(0, format!("deed {number} was acknowledged and is not stored"));
                }
                (What::Send, Answer::Refused(code)) => {
                    self.refused(number, known, *at, code, places);
                }
                (What::Send, Answer::Sent(_)) if self.was_blocked(number, known.asked[0], *at) => {
                    let seq = places.first().copied().unwrap_or(0);
                    self.fault(seq, format!("deed {number} passed a block"));
                }
                (What::Recall(of), Answer::Sent(sent)) => {
                    let fact = self.fact(sent.seq);
                    if fact.is_none_or(|f| f.kind != Some(Kind::Recall) || f.reference != of) {
                        self.fault(sent.seq, format!("no recall of {of}: {fact:?}"));
                    }
                }
                (What::Leave | What::Kick(_), Answer::Done) => self.removed(number, known),
                _ => {}
            }
        }
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
        let (judge, conv) = (self.judge, self.conv);
        let peer = judge.cast.peer(conv, judge.user(number));
        let by_peer = move |known: &&Known| {
            let user = judge.cast.devices[known.deed.device].user;
            known.deed.conv == conv && known.deed.what == what && Some(user) == peer
        };
        judge.known.iter().filter(by_peer)
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

    /// What a user pulls is what it may see, and nothing of what was recalled.
    fn pull(&mut self, user: usize, since: Order) {
        let Some(pull) = self.judge.pulls.get(&(user, self.conv)) else { return };
        if !pull.done || pull.asked < since {
            return;
        }
        let log = &self.judge.logs[self.conv];
        let name = &self.judge.cast.users[user];
        let member = &self.members[user];
        let expected: Vec<u64> = (1..=log.head()).filter(|seq| member.may_see(*seq)).collect();
        let pulled: Vec<u64> = pull.entries.iter().map(|(seq, ..)| *seq).collect();
        if pulled != expected {
            let differs = pulled.iter().zip(&expected).position(|(a, b)| a != b);
            let at = differs.unwrap_or(pulled.len().min(expected.len()));
            let (is, was) = (pulled.get(at), expected.get(at));
            let what = format!("{name} pulls {is:?} where {was:?} is to be seen");
            self.fault(is.or(was).copied().unwrap_or(0), what);
        }
        for (seq, kind, body) in &pull.entries {
            if (*kind == Kind::Void) != (log.counts(*seq) && log.is_recalled(*seq)) {
                self.fault(*seq, format!("{name} pulls a {kind:?}"));
            }
            let newest = log.events(Kind::Edit, *seq).last().and_then(|(_, edit)| edit.body);
            let newest = newest.or(self.fact(*seq).and_then(|fact| fact.body));
            if *kind == Kind::Message && body.map(|b| b.message) != newest.map(|b| b.message) {
                self.fault(*seq, format!("{name} pulls {body:?}, the newest is {newest:?}"));
            }
        }
    }

    /// What a user's list says of the conversation.
    fn list(&mut self, user: usize, since: Order) {
        let Some((asked, lines)) = &self.judge.lists[user] else { return };
        if *asked < since {
            return;
        }
        let log = &self.judge.logs[self.conv];
        let name = self.judge.cast.users[user].clone();
        let line = lines.iter().find(|line| line.conv == self.conv).copied();
        let expected = !self.members[user].sees.is_empty() && log.head() > 0;
        let Some(line) = line.filter(|_| expected) else {
            if line.is_some() || expected {
                self.fault(log.head(), format!("{name}: in the list {line:?}, {expected}"));
            }
            return;
        };
        let Line { last, count, unread, read, recv, .. } = line;
        // Whoever is out sees the list's line as it was then.
        let until = self.members[user].sees.last().and_then(|(_, until)| *until);
        let head = until.map_or(log.head(), |until| until.min(log.head()));
        let messages = (1..=head).filter(|seq| log.counts(*seq)).count() as u64;
        if (last, count) != (head, messages) {
            self.fault(head, format!("{name}: {last} with {count}, is {head} with {messages}"));
        }
        let (low, high) = self.reads(user);
        if read < low || read > high {
            self.fault(low, format!("{name} has read up to {low}..{high}, told {read}"));
        }
        let open = log.unread(read, until.unwrap_or(log.head()));
        if unread != open {
            self.fault(read, format!("{name} has {open} unread behind {read}, told {unread}"));
        }
        let most = self.received(user, self.judge.order());
        if recv > most {
            self.fault(recv, format!("{name} has received up to {most}, told {recv}"));
        }
    }

    /// Between which two the user's `read` stands.
    fn reads(&self, user: usize) -> (u64, u64) {
        let own = self.own_sends[user].iter().map(|(_, seq)| *seq).max().unwrap_or(0);
        let joined = self.members[user].joined.last().map_or(0, |seq| seq - 1);
        let (mut low, mut high) = (own.max(joined), 0);
        for known in &self.judge.known {
            let of_user = self.judge.cast.devices[known.deed.device].user == user;
            if let (What::Read(seq), true, true) =
                (known.deed.what, of_user, known.deed.conv == self.conv)
            {
                match &known.answered {
                    Some((_, Answer::Refused(_))) => {}
                    Some(_) => low = low.max(seq),
                    None => high = high.max(seq),
                }
            }
        }
        (low, high.max(low))
    }

    /// How far the user may have received by then.
    fn received(&self, user: usize, at: Order) -> u64 {
        let told = self.judge.received[user][self.conv].iter().chain(&self.own_sends[user]);
        let told = told.filter(|(order, _)| *order <= at).map(|(_, seq)| *seq);
        let joined = self.members[user].joined.iter().map(|seq| seq - 1);
        told.chain(joined).max().unwrap_or(0)
    }

    /// Entries that a device has appended itself: it does not get them.
    fn own(&self, device: usize) -> BTreeSet<u64> {
        let mut own = BTreeSet::new();
        for (number, known) in self.judge.known.iter().enumerate() {
            if known.deed.device != device || known.deed.conv != self.conv {
                continue;
            }
            own.extend(self.judge.stored.get(&number).into_iter().flatten());
            let event = match known.deed.what {
                What::Recall(of) => Some((Kind::Recall, of)),
                What::Edit(of) => Some((Kind::Edit, of)),
                _ => None,
            };
            if let Some((kind, of)) = event {
                // Whose it is of those who tried is not told when it has no body.
                let log = &self.judge.logs[self.conv];
                let name = &self.judge.cast.users[self.judge.cast.devices[device].user];
                let by_user = log
                    .events(kind, of)
                    .filter(|(_, fact)| fact.from.as_ref() == Some(name) && fact.body.is_none());
                own.extend(by_user.map(|(seq, _)| seq));
            }
        }
        own
    }

    /// What a device got: nothing that its user may not see, nothing skipped, and in the end all.
    fn deliveries(&mut self, device: usize) {
        let user = self.judge.cast.devices[device].user;
        let own = self.own(device);
        let (mut acked, mut gaps, mut came) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
        let (mut base, mut passed) = (Some(0), 0);
        let mut found = Vec::new();
        let (member, of) = (&self.members[user], &self.judge.cast.convs[self.conv]);
        let is_covered = |seq: u64, acked: &BTreeSet<u64>, came: &BTreeSet<u64>, gaps: &[_]| {
            let named = gaps.iter().any(|(from, to)| (*from..=*to).contains(&seq));
            let had = acked.contains(&seq) || came.contains(&seq);
            let owed = member.may_see(seq) && member.belonged(seq, of);
            had || named || own.contains(&seq) || !owed
        };
        for step in &self.judge.seen[device].steps[self.conv] {
            match *step {
                Step::Link { present } => {
                    came.clear();
                    passed = 0;
                    if !present {
                        acked.clear();
                        gaps.clear();
                        base = None;
                    }
                }
                Step::Hello { at } => {
                    base.get_or_insert_with(|| self.received(user, at));
                }
                Step::Came { seq, .. } => {
                    if !member.may_see(seq) {
                        found.push((seq, format!("d{device} gets {seq}, which is not for it")));
                    }
                    let from = passed.max(base.unwrap_or(u64::MAX)).saturating_add(1);
                    let skipped = (from..seq).find(|seq| !is_covered(*seq, &acked, &came, &gaps));
                    if let Some(skipped) = skipped {
                        found.push((skipped, format!("d{device} gets {seq} before {skipped}")));
                    }
                    passed = passed.max(seq);
                    came.insert(seq);
                }
                Step::Acked { seq } => {
                    acked.insert(seq);
                }
                Step::Gap { from, to } => gaps.push((from, to)),
            }
        }
        let head = self.judge.logs[self.conv].head();
        let from = base.unwrap_or(u64::MAX).saturating_add(1);
        if let Some(missing) = (from..=head).find(|seq| !is_covered(*seq, &acked, &came, &gaps)) {
            found.push((missing, format!("d{device} has not got {missing}")));
        }
        for (seq, what) in found {
            self.fault(seq, what);
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
