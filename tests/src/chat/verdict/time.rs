//! What follows from when something was done: messages that burn and that expire, conversations
//! that were cleared and hidden.

use super::super::entry::Kind;
use super::super::event::What;
use super::super::judge::Order;
use super::super::log::Fact;
use super::{Verdict, done_at, surely};

/// What falls due is done within this time, also when the broker has just started.
const PROMPT_MS: u64 = 5_000;
/// A broker that reads its clock once per turn may take a message for this much older than it is.
const TURN_MS: u64 = 100;

impl Verdict<'_> {
    /// A message has lost its body for a reason, and nothing burns too early.
    pub(super) fn fate(&mut self, seq: u64, fact: &Fact) {
        if fact.kind == Some(Kind::Burn) {
            self.burnt(seq, fact.reference);
        }
        if fact.void && !self.judge.logs[self.conv].is_gone(seq) && !self.had_expired(seq) {
            self.fault(seq, "void, and nobody has recalled it".to_owned());
        }
    }

    /// What kind of message a deed has made of it, where that is known.
    pub(super) fn made_as(&self, seq: u64) -> Option<What> {
        self.judge.origin(self.conv, seq).map(|known| known.deed.what)
    }

    /// Whether the message had expired when it was first seen without its body.
    fn had_expired(&self, seq: u64) -> bool {
        let Some(voided) = self.judge.voided[self.conv].get(&seq) else { return true };
        let mut sent = self.deeds.iter().filter(|(number, known)| {
            // Whoever has only seen it void cannot say which of those it was.
            let places = self.judge.stored.get(number);
            // Without an id of its own each attempt may have been stored.
            let more = !known.deed.cid && known.asked.len() > 1;
            more || places.is_none_or(|places| places.contains(&seq))
        });
        sent.any(|(_, known)| match known.deed.what {
            What::Fleeting(secs) => {
                let asked = self.judge.time_of(known.asked[0]);
                self.judge.time_of(*voided) + TURN_MS >= asked + u64::from(secs) * 1000
            }
            _ => false,
        })
    }

    /// How many of the messages that would be unread have surely expired by then, and how many
    /// perhaps.
    pub(super) fn expired(&self, read: u64, end: u64, by: Order) -> (u64, u64) {
        let log = &self.judge.logs[self.conv];
        let by_ms = self.judge.time_of(by);
        let (mut surely, mut perhaps) = (0, 0);
        for seq in (read + 1..=end).filter(|seq| log.unread(seq - 1, *seq) == 1) {
            let Some(fact) = self.fact(seq) else { continue };
            let sent_ms = fact.sent.as_ref().map_or(0, |(_, ts)| *ts);
            match self.made_as(seq) {
                Some(What::Fleeting(secs)) => {
                    let due_ms = sent_ms + u64::from(secs) * 1000;
                    surely += u64::from(due_ms + PROMPT_MS < by_ms);
                    perhaps += u64::from(due_ms < by_ms + PROMPT_MS);
                }
                // Nobody has seen its body.
                None => perhaps += u64::from(fact.void),
                Some(_) => {}
            }
        }
        (surely, perhaps)
    }

    fn burnt(&mut self, at: u64, seq: u64) {
        let sender = self.fact(seq).and_then(|fact| fact.from.clone());
        let reader = sender.and_then(|name| self.judge.cast.user_of(&name));
        let reader = reader.and_then(|sender| self.judge.cast.peer(self.conv, sender));
        let secs = match self.made_as(seq) {
            Some(What::Burning(secs)) => secs,
            // Nobody has seen its body.
            None => 0,
            Some(_) => return self.fault(at, format!("{seq} burns and is no such message")),
        };
        let read = reader.and_then(|reader| self.read_at(reader, seq));
        let ts = self.fact(at).and_then(|fact| fact.sent.as_ref()).map_or(0, |(_, ts)| *ts);
        if read.is_none_or(|read| ts < read + u64::from(secs) * 1000) {
            self.fault(at, format!("{seq} burns at {ts}, {secs} s from {read:?}"));
        }
    }

    /// The first time at which the user may have read up to an entry, in ms since the epoch.
    fn read_at(&self, user: usize, seq: u64) -> Option<u64> {
        let moves = |what| match what {
            What::Read(to) => to >= seq,
            What::Clear => true,
            _ => false,
        };
        let said = self.deeds_of(user, moves).filter_map(|known| known.asked.first());
        let said = said.map(|asked| self.judge.time_of(*asked));
        said.chain(self.own_after(user, seq)).min()
    }

    /// Whether a message should have burnt by then.
    pub(super) fn should_be_burnt(&self, user: usize, seq: u64, at: Order) -> bool {
        let Some(What::Burning(secs)) = self.made_as(seq) else { return false };
        let name = &self.judge.cast.users[user];
        if self.fact(seq).is_none_or(|fact| fact.from.as_ref() == Some(name)) {
            return false;
        }
        let moves = |what| matches!(what, What::Read(to) if to >= seq);
        let said = self.deeds_of(user, moves).filter_map(done_at);
        let said = said.map(|done| self.judge.time_of(done));
        let read = said.chain(self.own_after(user, seq)).min();
        let due = |read| read + u64::from(secs) * 1000 + PROMPT_MS;
        read.is_some_and(|read| due(read) < self.judge.time_of(at))
    }

    /// When the user has said something behind an entry.
    fn own_after(&self, user: usize, seq: u64) -> impl Iterator<Item = u64> {
        let own = self.own_sends[user].iter().filter(move |(_, own)| *own > seq);
        own.filter_map(|(_, own)| Some(self.fact(*own)?.sent.as_ref()?.1))
    }

    /// Up to where the user has surely cleared the conversation, and up to where perhaps.
    pub(super) fn cleared(&self, user: usize) -> (u64, u64) {
        let (mut surely_to, mut perhaps_to) = (0, 0);
        for known in self.deeds_of(user, |what| what == What::Clear) {
            let Some(asked) = known.asked.first() else { continue };
            // What is asked again may be refused although it was done the first time.
            let once = known.asked.len() == 1;
            if once && known.answered.is_some() && done_at(known).is_none() {
                continue;
            }
            if done_at(known).is_some() {
                surely_to = surely_to.max(self.surely_at(*asked));
            }
            let end = surely(known).map_or(Order::MAX, |(_, done)| done);
            perhaps_to = perhaps_to.max(self.last_at(end));
        }
        (surely_to, perhaps_to)
    }

    /// Whether the user may have hidden the conversation as it is now, and whether it surely is.
    pub(super) fn hidden(&self, user: usize) -> (bool, bool) {
        let is_hide = |what| matches!(what, What::Hide(_));
        let (first, end) = self.ends(user);
        let hides: Vec<_> = self.deeds_of(user, is_hide).filter(|k| !k.asked.is_empty()).collect();
        let perhaps = hides.iter().any(|known| {
            let done = surely(known).map_or(Order::MAX, |(_, done)| done);
            known.deed.what == What::Hide(true) && self.last_at(done) >= first
        });
        let Some((last, others)) = hides.split_last() else { return (false, false) };
        let in_order =
            others.iter().all(|known| surely(known).is_some_and(|(_, done)| done < last.asked[0]));
        let Some((asked, _)) = surely(last).filter(|_| in_order) else { return (perhaps, false) };
        // To follow or to go is news of its own in the list, and no entry of the log.
        let is_news = |what| matches!(what, What::Join | What::Leave);
        let quiet = self.deeds_of(user, is_news).all(|known| {
            known.asked.is_empty() || surely(known).is_some_and(|(_, done)| done < asked)
        });
        match last.deed.what {
            What::Hide(true) if self.is_channel() && !quiet => (true, false),
            What::Hide(true) => (perhaps, self.surely_at(asked) >= end),
            _ => (false, false),
        }
    }
}
