//! Holds what devices see against what was done: what can never be is found the moment it is
//! seen. Owns all that is known of a run; what is right in the end is in `verdict`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use super::cast::Cast;
use super::entry::{Entry, Kind};
use super::event::{Answer, Deed, Event, Line, Link, What};
use super::log::Log;
use crate::crash::message::Attempt;

/// A place in the order of everything that happened.
pub type Order = usize;

/// Bytes of a body that are kept for reports.
const KEPT_BODY: usize = 40;
/// How much later than it should be known a broker may learn the time.
const SLACK_MS: u64 = 1_000;

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What.
    pub what: String,
    /// Which conversation and entry it is about.
    pub place: Option<(usize, u64)>,
    /// When it was noticed.
    pub at: Order,
}

/// What is known of a deed.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) deed: Deed,
    /// When each attempt was sent.
    pub(super) asked: Vec<Order>,
    /// The first answer.
    pub(super) answered: Option<(Order, Answer)>,
}

/// A step in how a device follows a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A connection, with a session that is kept or not.
    Link { present: bool },
    /// A connection was left whose beginning never came: what was said there is not known. It may
    /// have begun a new session.
    Unheard { at: Order, anew: bool },
    /// Its cursors have been read.
    Hello { at: Order },
    /// An entry came.
    Came { seq: u64, at: Order },
    /// It was acknowledged.
    Acked { seq: u64 },
    /// A gap was named.
    Gap { from: u64, to: u64 },
}

/// What is known of a device.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) link: Option<Link>,
    /// What comes was written after this.
    fence: Order,
    pinged: Option<Order>,
    /// It waits to hear that its cursors have been read.
    greeting: bool,
    /// It has asked for a new session.
    anew: bool,
    /// The last entry of each conversation over this connection.
    last: HashMap<usize, u64>,
    /// By conversation.
    pub(super) steps: Vec<Vec<Step>>,
}

/// Entries that a user has pulled from the first one on.
#[derive(Clone, Debug, Default)]
pub(super) struct Pull {
    pub(super) asked: Order,
    pub(super) entries: Vec<(u64, Kind, Option<Attempt>)>,
    /// The first and the last entry there was.
    pub(super) bounds: (u64, u64),
    pub(super) done: bool,
    /// Where the last question began, and what it was.
    from: u64,
    deed: usize,
    next: Option<u64>,
}

/// What is known of a run.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Who takes part.
    pub cast: Arc<Cast>,
    /// The time of what is noted next, since the beginning.
    pub now_ms: u64,
    /// When the beginning was, in ms since the epoch.
    pub began_ms: u64,
    /// How many entries of a pair or group are kept; all when nothing is said.
    pub keep: Option<u64>,
    /// Everything that happened, in order.
    pub trail: Vec<(u64, Event)>,
    /// What must not have been.
    pub faults: Vec<Fault>,
    /// Since when what is noted now may have been written, where that is known exactly.
    pub written_since: Option<Order>,
    /// Writes have failed: refusals need no reason.
    pub disk_failed: bool,
    /// By conversation.
    pub logs: Vec<Log>,
    pub(super) known: Vec<Known>,
    pub(super) seen: Vec<Seen>,
    /// How far devices have said that a user has received, by user and conversation.
    pub(super) received: Vec<Vec<Vec<(Order, u64)>>>,
    /// By user and conversation.
    pub(super) pulls: BTreeMap<(usize, usize), Pull>,
    /// The last list of each user.
    pub(super) lists: Vec<Option<(Order, Vec<Line>)>>,
    /// When a message was first known to be recalled, burnt or expired.
    pub(super) gone: Vec<BTreeMap<u64, Order>>,
    /// When an entry was first heard of.
    pub(super) heard: Vec<BTreeMap<u64, Order>>,
    /// When it was first seen without its body.
    pub(super) voided: Vec<BTreeMap<u64, Order>>,
    /// Where deeds are stored.
    pub(super) stored: BTreeMap<usize, Vec<u64>>,
    recorded: bool,
}

impl Judge {
    /// Nothing has happened. `recorded`: all of it is kept to be shown.
    pub fn new(cast: Arc<Cast>, recorded: bool) -> Judge {
        let convs = cast.convs.len();
        let seen = Seen { steps: vec![Vec::new(); convs], ..Seen::default() };
        Judge {
            now_ms: 0,
            began_ms: 0,
            keep: None,
            trail: Vec::new(),
            faults: Vec::new(),
            written_since: None,
            disk_failed: false,
            logs: vec![Log::default(); convs],
            known: Vec::new(),
            seen: vec![seen; cast.devices.len()],
            received: vec![vec![Vec::new(); convs]; cast.users.len()],
            pulls: BTreeMap::new(),
            lists: vec![None; cast.users.len()],
            gone: vec![BTreeMap::new(); convs],
            heard: vec![BTreeMap::new(); convs],
            voided: vec![BTreeMap::new(); convs],
            stored: BTreeMap::new(),
            recorded,
            cast,
        }
    }

    /// A deed that is about to be done; gives its number.
    pub fn register(&mut self, deed: Deed) -> usize {
        self.known.push(Known { deed, asked: Vec::new(), answered: None });
        self.known.len() - 1
    }

    /// A deed.
    pub fn deed(&self, number: usize) -> Deed {
        self.known[number].deed
    }

    /// How many deeds there are.
    pub fn deeds(&self) -> usize {
        self.known.len()
    }

    /// Whether a deed was answered.
    pub fn is_answered(&self, number: usize) -> bool {
        self.known[number].answered.is_some()
    }

    /// Whether a deed was answered, and not refused.
    pub fn is_done(&self, number: usize) -> bool {
        let answered = self.known[number].answered.as_ref();
        answered.is_some_and(|(_, answer)| !matches!(answer, Answer::Refused(_)))
    }

    /// How many deeds were answered, and how many of those refused.
    pub fn answered(&self) -> (usize, usize) {
        let answers = || self.known.iter().filter_map(|known| known.answered.as_ref());
        let refused = answers().filter(|(_, answer)| matches!(answer, Answer::Refused(_)));
        (answers().count(), refused.count())
    }

    /// Questions from the deed `first` on that were refused, or not answered at all, and that
    /// nobody has asked again with success.
    pub fn unanswered(&self, first: usize) -> Vec<Deed> {
        let mut open: Vec<Deed> = Vec::new();
        for (number, known) in self.known.iter().enumerate().skip(first) {
            open.retain(|deed| *deed != known.deed);
            if !self.is_done(number) {
                open.push(known.deed);
            }
        }
        open
    }

    /// The conversations in the last list of a user, and those that it may have hidden.
    pub fn listed(&self, user: usize) -> BTreeSet<usize> {
        let lines = self.lists[user].iter().flat_map(|(_, lines)| lines);
        let hides = |number: &usize| {
            let known = &self.known[*number];
            let refused = matches!(known.answered, Some((_, Answer::Refused(_))));
            let hide = known.deed.what == What::Hide(true) && self.user(*number) == user;
            hide && !known.asked.is_empty() && (!refused || known.asked.len() > 1)
        };
        let hidden = (0..self.known.len()).filter(hides);
        lines
            .map(|line| line.conv)
            .chain(hidden.map(|number| self.known[number].deed.conv))
            .collect()
    }

    /// Pulls begun after `since` that were answered in part, and where they go on.
    pub fn unfinished(&self, since: Order) -> Vec<(Deed, u64)> {
        let recent = self.pulls.values().filter(|pull| pull.asked >= since && !pull.done);
        recent.filter_map(|pull| Some((self.known[pull.deed].deed, pull.next?))).collect()
    }

    /// How many entries were delivered.
    pub fn deliveries(&self) -> usize {
        let steps = self.seen.iter().flat_map(|seen| &seen.steps).flatten();
        steps.filter(|step| matches!(step, Step::Came { .. })).count()
    }

    /// Whose deed it is.
    pub(super) fn user(&self, deed: usize) -> usize {
        self.cast.devices[self.known[deed].deed.device].user
    }

    /// Whether a user has ever hidden a conversation.
    pub(super) fn hides(&self, user: usize) -> bool {
        let of_user = |known: &Known| self.cast.devices[known.deed.device].user == user;
        self.known.iter().any(|known| known.deed.what == What::Hide(true) && of_user(known))
    }

    /// When that was, in ms since the epoch.
    pub(super) fn time_of(&self, at: Order) -> u64 {
        self.began_ms + self.trail.get(at).map_or(self.now_ms, |(ms, _)| *ms)
    }

    /// The place of what is noted next.
    pub fn order(&self) -> Order {
        self.trail.len()
    }

    /// Something happened.
    pub fn note(&mut self, event: Event) {
        let at = self.order();
        let place = self.place(&event);
        if let Err(what) = self.judge(at, &event) {
            let place = place.filter(|(_, seq)| *seq > 0);
            self.faults.push(Fault { what: format!("{what}; {event}"), place, at });
        }
        let kept = if self.recorded { trimmed(event) } else { Event::Killed };
        self.trail.push((self.now_ms, kept));
    }

    fn place(&self, event: &Event) -> Option<(usize, u64)> {
        match event {
            Event::Delivered { conv, entry, .. } => Some((*conv, entry.seq)),
            Event::Acknowledged { conv, seq, .. } => Some((*conv, *seq)),
            Event::Gap { conv, from, .. } => Some((*conv, *from)),
            Event::Pulled { deed, entry } => {
                self.known.get(*deed).map(|known| (known.deed.conv, entry.seq))
            }
            Event::Answered { deed, answer: Answer::Sent(sent) } => {
                Some((self.known[*deed].deed.conv, sent.seq))
            }
            Event::Asked { deed, .. } | Event::Answered { deed, .. } => {
                let Deed { conv, what, .. } = self.known[*deed].deed;
                match what {
                    What::Recall(seq) | What::Edit(seq) | What::React(seq) => Some((conv, seq)),
                    _ => Some((conv, 0)),
                }
            }
            _ => None,
        }
    }

    fn judge(&mut self, at: Order, event: &Event) -> Result<(), String> {
        match event {
            Event::Connect { device, link, anew } => {
                let seen = &mut self.seen[*device];
                (seen.link, seen.fence, seen.pinged) = (Some(*link), at, None);
                seen.last.clear();
                let asked_anew = std::mem::replace(&mut seen.anew, *anew);
                if std::mem::replace(&mut seen.greeting, true) {
                    self.step(*device, None, Step::Unheard { at, anew: asked_anew });
                }
            }
            Event::Connected { device, present, .. } => {
                self.step(*device, None, Step::Link { present: *present });
            }
            Event::Hello { device, .. } => {
                self.seen[*device].greeting = false;
                self.step(*device, None, Step::Hello { at });
            }
            Event::Asked { deed, .. } => self.asked(at, *deed),
            Event::Answered { deed, answer } => return self.answer(at, *deed, answer),
            Event::Delivered { device, link, conv, entry } => {
                return self.delivered(at, *device, *link, *conv, entry);
            }
            Event::Acknowledged { device, conv, seq } => {
                self.step(*device, Some(*conv), Step::Acked { seq: *seq });
                let user = self.cast.devices[*device].user;
                self.received[user][*conv].push((at, *seq));
            }
            Event::Gap { device, conv, from, to } => {
                if from > to {
                    return Err("a gap that ends before it begins".to_owned());
                }
                self.step(*device, Some(*conv), Step::Gap { from: *from, to: *to });
            }
            Event::Pulled { deed, entry } => return self.pulled(at, *deed, entry),
            Event::PullEnded { deed, next, min, last } => {
                let (user, conv) = (self.user(*deed), self.known[*deed].deed.conv);
                self.known[*deed].answered.get_or_insert((at, Answer::Done));
                self.told_of(at, conv, *last);
                let pull = self.pulls.entry((user, conv)).or_default();
                (pull.bounds, pull.done, pull.next) = ((*min, *last), next.is_none(), *next);
            }
            Event::Listed { deed, lines } => {
                self.known[*deed].answered.get_or_insert((at, Answer::Done));
                let asked = self.known[*deed].asked[0];
                let user = self.user(*deed);
                lines.iter().for_each(|line| self.told_of(at, line.conv, line.last));
                self.lists[user] = Some((asked, lines.clone()));
            }
            Event::Ping { device } => self.seen[*device].pinged = Some(at),
            Event::Pong { device } => {
                let seen = &mut self.seen[*device];
                seen.fence = seen.pinged.take().unwrap_or(seen.fence);
            }
            Event::Killed => {}
            Event::Fault { what, .. } => return Err(what.clone()),
        }
        Ok(())
    }

    fn step(&mut self, device: usize, conv: Option<usize>, step: Step) {
        let steps = &mut self.seen[device].steps;
        match conv {
            Some(conv) => steps[conv].push(step),
            None => steps.iter_mut().for_each(|steps| steps.push(step)),
        }
    }

    /// A user was told that a conversation ends with this entry: it is there, though nobody may
    /// ever see it, as when all clear the conversation before it reaches them.
    fn told_of(&mut self, at: Order, conv: usize, last: u64) {
        if last > 0 && conv < self.logs.len() {
            self.logs[conv].facts.entry(last).or_default();
            self.heard[conv].entry(last).or_insert(at);
        }
    }

    fn asked(&mut self, at: Order, number: usize) {
        self.known[number].asked.push(at);
        let (user, deed) = (self.user(number), self.known[number].deed);
        match deed.what {
            What::Read(seq) => self.received[user][deed.conv].push((at, seq)),
            What::Pull(from) => {
                let pull = self.pulls.entry((user, deed.conv)).or_default();
                if from == 1 {
                    *pull = Pull { asked: at, ..Pull::default() };
                }
                pull.entries.retain(|(seq, ..)| *seq < from);
                (pull.from, pull.deed, pull.next) = (from, number, None);
                pull.done = false;
            }
            _ => {}
        }
    }

    fn answer(&mut self, at: Order, number: usize, answer: &Answer) -> Result<(), String> {
        let Deed { conv, what, .. } = self.known[number].deed;
        if let Answer::Sent(sent) = answer {
            self.logs[conv].acknowledged(sent)?;
            self.heard[conv].entry(sent.seq).or_insert(at);
            self.stored_at(number, sent.seq)?;
            if let What::Recall(of) = what {
                self.gone[conv].entry(of).or_insert(at);
            }
            if let Some((_, Answer::Sent(before))) = &self.known[number].answered
                && self.known[number].deed.cid
                && before != sent
            {
                return Err(format!("the repetition of {before:?} was stored as {sent:?}"));
            }
        }
        let answered = &mut self.known[number].answered;
        if matches!(answered, None | Some((_, Answer::Done | Answer::Refused(_)))) {
            *answered = Some((at, answer.clone()));
        }
        Ok(())
    }

    /// A deed is stored at a place: with an id of its own, only there.
    fn stored_at(&mut self, number: usize, seq: u64) -> Result<(), String> {
        let known = &self.known[number];
        let places = self.stored.entry(number).or_default();
        if !places.contains(&seq) {
            places.push(seq);
        }
        let most = if known.deed.cid { 1 } else { known.asked.len() };
        if places.len() > most {
            return Err(format!("deed {number} is stored {} times, at {places:?}", places.len()));
        }
        Ok(())
    }

    fn delivered(
        &mut self,
        at: Order,
        device: usize,
        link: Link,
        conv: usize,
        entry: &Entry,
    ) -> Result<(), String> {
        let seen = &mut self.seen[device];
        if seen.link != Some(link) {
            return Err("over a connection that was left".to_owned());
        }
        let last = seen.last.insert(conv, entry.seq).unwrap_or(0);
        if entry.seq <= last {
            return Err(format!("{} came after {last}", entry.seq));
        }
        let fence = self.written_since.unwrap_or(seen.fence);
        self.step(device, Some(conv), Step::Came { seq: entry.seq, at });
        let body = self.look_at(at, fence, conv, entry)?;
        // An edit of its own may come to it in the entry of another device.
        let is_own = |body: Attempt| {
            usize::from(body.message.publisher) == device && self.is_origin(body, entry)
        };
        if body.is_some_and(is_own) {
            return Err("a device got its own entry back".to_owned());
        }
        if entry.cid.is_some() && self.cast.users[self.cast.devices[device].user] != entry.from {
            return Err("the client message id of somebody else".to_owned());
        }
        Ok(())
    }

    fn pulled(&mut self, at: Order, number: usize, entry: &Entry) -> Result<(), String> {
        let (user, conv) = (self.user(number), self.known[number].deed.conv);
        let asked = self.known[number].asked.last().copied().unwrap_or(0);
        let body = self.look_at(at, asked, conv, entry)?;
        let pull = self.pulls.entry((user, conv)).or_default();
        if self.known[number].deed.what == What::Pull(pull.from) {
            pull.entries.push((entry.seq, entry.kind, body));
        }
        Ok(())
    }

    /// An entry in whatever form: is it what it was before, and may it still be shown?
    fn look_at(
        &mut self,
        at: Order,
        fence: Order,
        conv: usize,
        entry: &Entry,
    ) -> Result<Option<Attempt>, String> {
        let body = self.body_of(conv, entry)?;
        self.heard[conv].entry(entry.seq).or_insert(at);
        match entry.kind {
            Kind::Void => {
                self.gone[conv].entry(entry.seq).or_insert(at);
                self.voided[conv].entry(entry.seq).or_insert(at);
            }
            Kind::Recall | Kind::Burn => {
                self.gone[conv].entry(entry.reference).or_insert(at);
            }
            Kind::Message | Kind::Edit if !entry.payload.is_empty() => {
                let of = if entry.kind == Kind::Edit { entry.reference } else { entry.seq };
                if self.gone[conv].get(&of).is_some_and(|gone| *gone < fence) {
                    return Err(format!("the body of {of}, which was recalled before"));
                }
            }
            _ => {}
        }
        let first = body.filter(|body| self.is_origin(*body, entry));
        self.logs[conv].seen(entry, first)?;
        if let Some(body) = first {
            self.stored_at(body.message.seq as usize, entry.seq)?;
            let before = self.logs[conv].facts.get(&entry.seq).and_then(|fact| fact.body);
            if before != Some(body) {
                return Err(format!("number {} was {before:?}", entry.seq));
            }
        }
        if entry.kind == Kind::Message
            && let Some(What::Fleeting(secs)) = self.origin(conv, entry.seq).map(|of| of.deed.what)
            && self.time_of(fence) > entry.ts + u64::from(secs) * 1000 + SLACK_MS
        {
            return Err("the body of a message that had expired".to_owned());
        }
        Ok(body)
    }

    /// The deed that an entry began with, as far as its body tells.
    pub(super) fn origin(&self, conv: usize, seq: u64) -> Option<&Known> {
        let body = self.logs[conv].facts.get(&seq)?.body?;
        self.known.get(body.message.seq as usize)
    }

    /// Whether this is the body an entry began with, and not one that an edit gave it.
    fn is_origin(&self, body: Attempt, entry: &Entry) -> bool {
        let what = self.known[body.message.seq as usize].deed.what;
        entry.kind != Kind::Message || what.is_send()
    }

    /// What a body says, and whether whoever stands in the envelope has sent it there.
    fn body_of(&self, conv: usize, entry: &Entry) -> Result<Option<Attempt>, String> {
        let carries = matches!(entry.kind, Kind::Message | Kind::Edit | Kind::React);
        if !carries || (entry.kind == Kind::Edit && entry.payload.is_empty()) {
            return Ok(None);
        }
        let body = Attempt::of_payload(&entry.payload)?;
        let number = body.message.seq as usize;
        let known = self.known.get(number).ok_or("a body that nobody has sent")?;
        let Deed { device, conv: sent_to, what, .. } = known.deed;
        if usize::from(body.number) > known.asked.len() {
            return Err(format!("attempt {} of deed {number} was never sent", body.number));
        }
        let from = &self.cast.users[self.cast.devices[device].user];
        if *from != entry.from || sent_to != conv || usize::from(body.message.publisher) != device {
            return Err(format!("deed {number} was sent by {from} to c{sent_to}"));
        }
        let fits = match entry.kind {
            Kind::Message => what.is_send() || what == What::Edit(entry.seq),
            Kind::Edit => what == What::Edit(entry.reference),
            _ => what == What::React(entry.reference),
        };
        fits.then_some(Some(body)).ok_or_else(|| format!("deed {number} was {what:?}"))
    }

    /// What concerns an entry, or happened to everybody, up to `end`; the last `lines` of it.
    pub fn report(&self, fault: &Fault, lines: usize) -> String {
        let concerns = |event: &Event| match self.place(event) {
            Some(place) => fault.place.is_none_or(|of| of == place),
            None => !matches!(event, Event::Ping { .. } | Event::Pong { .. }),
        };
        let end = (fault.at + 1).min(self.trail.len());
        let trail: Vec<String> = self.trail[..end]
            .iter()
            .enumerate()
            .filter(|(_, (_, event))| concerns(event))
            .map(|(number, (ms, event))| format!("{number:>8} {ms:>8} ms  {event}"))
            .collect();
        let mut text = format!("--- {} {:?}\n", fault.what, fault.place);
        for line in &trail[trail.len().saturating_sub(lines)..] {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

fn trimmed(mut event: Event) -> Event {
    if let Event::Delivered { entry, .. } | Event::Pulled { entry, .. } = &mut event {
        entry.payload.truncate(KEPT_BODY.max(if entry.kind == Kind::Member { 200 } else { 0 }));
    }
    event
}
