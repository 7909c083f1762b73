//! The model of a conversation: what its entries have been seen to be, and what follows from them
//! for members, counts and unread messages. Small enough to be obviously right.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::cast::Conv;
use super::entry::{Entry, Kind};
use super::event::Sent;
use crate::crash::message::Attempt;

/// Stretches of a conversation that a user may see: first entry, and last where it has ended.
pub type Intervals = Vec<(u64, Option<u64>)>;

/// What a `member` event says.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Change {
    /// What has happened.
    pub op: String,
    /// To whom.
    pub users: Vec<String>,
    /// Who did it.
    pub by: String,
}

/// What is known of an entry.
#[derive(Clone, Default, Debug)]
pub struct Fact {
    /// Id and time.
    pub sent: Option<(String, u64)>,
    /// Who has sent it; nothing as long as it is known from an acknowledgement or a list alone.
    pub from: Option<String>,
    /// What it is, or was before it became void.
    pub kind: Option<Kind>,
    /// It has been seen as void.
    pub void: bool,
    /// What it refers to.
    pub reference: u64,
    /// Countable messages up to here, where somebody was told.
    pub count: Option<u64>,
    /// The attempt whose body it had at first.
    pub body: Option<Attempt>,
    /// What a `member` event says.
    pub change: Option<Change>,
}

/// A conversation.
#[derive(Clone, Default, Debug)]
pub struct Log {
    /// By seq.
    pub facts: BTreeMap<u64, Fact>,
    /// By the entry they are about: entries that refer to another, in their order.
    about: BTreeMap<u64, BTreeSet<u64>>,
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, before: &T, now: &T) -> Result<(), String> {
    if before == now { Ok(()) } else { Err(format!("{what} was {before:?}, is {now:?}")) }
}

impl Log {
    /// An acknowledgement told of an entry.
    pub fn acknowledged(&mut self, sent: &Sent) -> Result<(), String> {
        let fact = self.facts.entry(sent.seq).or_default();
        let now = (sent.id.clone(), sent.ts);
        match &fact.sent {
            Some(before) => same("id and time", before, &now),
            None => {
                fact.sent = Some(now);
                Ok(())
            }
        }
    }

    /// An entry was seen; `body` is what its payload says, where it is a client's.
    pub fn seen(&mut self, entry: &Entry, body: Option<Attempt>) -> Result<(), String> {
        let Entry { seq, id, ts, from, kind, reference, count, .. } = entry;
        self.acknowledged(&Sent { seq: *seq, id: id.clone(), ts: *ts })?;
        let fact = self.facts.entry(*seq).or_default();
        same("sender", fact.from.get_or_insert_with(|| from.clone()), from)?;
        if let Some(count) = count {
            same("count", fact.count.get_or_insert(*count), count)?;
        }
        if *kind == Kind::Void {
            fact.void = true;
            return match fact.kind.get_or_insert(Kind::Message) {
                Kind::Message if entry.payload.is_empty() => Ok(()),
                Kind::Message => Err("void, with a body".to_owned()),
                other => Err(format!("void, was {other:?}")),
            };
        }
        same("kind", fact.kind.get_or_insert(*kind), kind)?;
        if fact.reference == 0 && *reference != 0 {
            fact.reference = *reference;
            self.about.entry(*reference).or_default().insert(*seq);
        }
        same("reference", &fact.reference, reference)?;
        if *kind == Kind::Member {
            let change = serde_json::from_slice(&entry.payload).map_err(|e| e.to_string())?;
            same("change", fact.change.get_or_insert_with(|| Change::clone(&change)), &change)?;
        } else if let Some(body) = body {
            fact.body.get_or_insert(body);
        }
        Ok(())
    }

    /// The last entry.
    pub fn head(&self) -> u64 {
        self.facts.keys().next_back().copied().unwrap_or(0)
    }

    /// The first number that is missing between `from` and the head.
    pub fn hole(&self, from: u64) -> Option<u64> {
        (from..=self.head()).find(|seq| {
            self.facts.get(seq).is_none_or(|fact| fact.kind.is_none() || fact.from.is_none())
        })
    }

    /// Whether an entry counts.
    pub fn counts(&self, seq: u64) -> bool {
        self.facts.get(&seq).is_some_and(|fact| fact.kind == Some(Kind::Message))
    }

    /// Whether a message was recalled or has burnt, by the log's own word.
    pub fn is_gone(&self, seq: u64) -> bool {
        [Kind::Recall, Kind::Burn].iter().any(|kind| self.events(*kind, seq).next().is_some())
    }

    /// The events of a kind about a message, in their order.
    pub fn events(&self, kind: Kind, of: u64) -> impl Iterator<Item = (u64, &Fact)> {
        let about = self.about.get(&of).into_iter().flatten();
        let facts = about.filter_map(|seq| Some((*seq, self.facts.get(seq)?)));
        facts.filter(move |(_, fact)| fact.kind == Some(kind))
    }

    /// Messages from `read + 1` to `end` that have not been recalled or burnt.
    pub fn unread(&self, read: u64, end: u64) -> u64 {
        let open = (read + 1..=end).filter(|seq| self.counts(*seq) && !self.is_gone(*seq));
        open.count() as u64
    }

    /// What each user may see, and from which entries on users have joined.
    pub fn intervals(&self, conv: &Conv, users: &[String]) -> Vec<Member> {
        let mut members = vec![Member::default(); users.len()];
        match conv {
            Conv::Pair(low, high) => {
                members[*low].sees.push((1, None));
                members[*high].sees.push((1, None));
            }
            Conv::Notes(of) => members[*of].sees.push((1, None)),
            // Who follows is not in the log.
            Conv::Channel { .. } => {}
            Conv::Group { shows_all, .. } => {
                for (seq, fact) in &self.facts {
                    let Some(change) = &fact.change else { continue };
                    for (member, name) in members.iter_mut().zip(users) {
                        if change.users.contains(name) {
                            member.change(*seq, &change.op, *shows_all);
                        }
                    }
                }
            }
        }
        members
    }
}

/// What the log says of a user's membership.
#[derive(Clone, Default, Debug)]
pub struct Member {
    /// What the user may see.
    pub sees: Intervals,
    /// Where the user joined.
    pub joined: Vec<u64>,
    /// Where the user was out.
    pub left: Vec<u64>,
    /// A join of a member, or an end of none: the log contradicts itself.
    pub odd: Option<u64>,
}

impl Member {
    fn change(&mut self, seq: u64, op: &str, shows_all: bool) {
        let is_member = self.is_member();
        match op {
            "join" | "invite" => {
                self.odd = self.odd.or(is_member.then_some(seq));
                if shows_all {
                    self.sees.clear();
                }
                self.sees.push((if shows_all { 1 } else { seq }, None));
                self.joined.push(seq);
            }
            "leave" | "kick" => {
                self.odd = self.odd.or((!is_member).then_some(seq));
                if let Some(last) = self.sees.last_mut() {
                    last.1 = Some(seq);
                }
                self.left.push(seq);
            }
            _ => {}
        }
    }

    /// Whether the user belongs to it at the end of the log.
    pub fn is_member(&self) -> bool {
        self.sees.last().is_some_and(|(_, until)| until.is_none())
    }

    /// Whether the user may see an entry.
    pub fn may_see(&self, seq: u64) -> bool {
        self.sees.iter().any(|(from, until)| *from <= seq && until.is_none_or(|end| seq <= end))
    }

    /// Whether the user belonged to it when this was appended, which the joining itself and the
    /// removal count to. What was there before may be shown to who joins, and need not.
    pub fn belonged(&self, seq: u64, conv: &Conv) -> bool {
        let joined = self.joined.iter().filter(|at| **at <= seq).count();
        !matches!(conv, Conv::Group { .. })
            || joined > self.left.iter().filter(|at| **at < seq).count()
    }

    /// Whether the user was a member when this was appended.
    pub fn was_member(&self, seq: u64) -> bool {
        let joined = self.joined.iter().filter(|at| **at < seq).count();
        joined > self.left.iter().filter(|at| **at < seq).count()
    }
}
