//! Push: telling users through their phones' push services of what no device has received
//! (ruling 34).
//!
//! The conversations are the outbox: what a user is still to be told of is what lies behind both
//! the user's `recv` and one durable number per user and conversation, *pushed up to*, which is
//! written once a push has been taken by the gateway. So nothing is written per message, nothing
//! is lost in a crash, and what is received or recalled meanwhile is withdrawn by itself: it is
//! looked at once more just before it is sent. What was recorded is never pushed again; what a
//! crash kept from being recorded is (at least once).
//!
//! Here: which conversations of which users wait, and for when ([`Pusher`], a step), and what is
//! to be told of one of them (`page`). Deliberately not here: the way to the gateway.

mod page;
#[cfg(test)]
mod tests;

pub use page::{Push, PushDevice, PushPage, Terms, users_with_tokens};

use std::collections::{BTreeMap, BTreeSet};

use hoopoe_store::kv::Family;

use crate::command::{Pushed, User};
use crate::effect::{Answer, Effect};
use crate::id::ConvKey;
use crate::keys::{self, user_kind};
use crate::refusal::Fault;
use crate::rows::{number_row, read_number};
use crate::shard::Work;

/// Conversations that may wait. Beyond it they are found again in the store once there is room.
const MOST_LINES: usize = 500_000;
/// Failures after which a conversation is tried alone, so that it can spoil nobody else's push.
const ALONE_AFTER: u32 = 2;

/// A user's conversation.
pub type Key = (User, ConvKey);

/// How often and how fast is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retry {
    /// The first pause; it doubles each time.
    pub first_ms: u64,
    /// The longest pause.
    pub most_ms: u64,
    /// Attempts that the gateway has answered badly, or not; then it is given up.
    pub attempts: u32,
}

impl Retry {
    /// The pause after so many failures in a row: half of it at least, the rest by chance, so that
    /// brokers do not come back all at once.
    fn pause_ms(&self, failures: u32, random: u64) -> u64 {
        let doubled = self.first_ms.saturating_mul(1 << failures.saturating_sub(1).min(32));
        let pause = doubled.min(self.most_ms).max(1);
        pause / 2 + random % (pause / 2 + 1)
    }
}

/// A conversation that waits.
#[derive(Clone, Copy, Default, Debug)]
struct Line {
    due_ms: u64,
    attempts: u32,
    /// Taken by the gateway up to here, and not recorded yet.
    unrecorded: u64,
    /// It is under way.
    taken: bool,
}

/// What is to be pushed, and when. One batch is under way at a time.
#[derive(Debug)]
pub struct Pusher {
    retry: Retry,
    lines: BTreeMap<Key, Line>,
    due: BTreeSet<(u64, Key)>,
    failures: u32,
    paused_until_ms: u64,
    overflowed: bool,
}

impl Pusher {
    /// Nothing waits.
    pub fn new(retry: Retry) -> Pusher {
        Pusher {
            retry,
            lines: BTreeMap::new(),
            due: BTreeSet::new(),
            failures: 0,
            paused_until_ms: 0,
            overflowed: false,
        }
    }

    /// Conversations that wait.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// There may be something to push from a time on.
    pub fn owe(&mut self, key: Key, at_ms: u64) {
        match self.lines.get(&key) {
            // After a failure its own time counts.
            Some(line) if line.attempts > 0 || line.unrecorded > 0 => {}
            Some(line) if !line.taken && line.due_ms <= at_ms => {}
            Some(line) => {
                let line = Line { due_ms: at_ms, taken: false, ..*line };
                self.set(key, line);
            }
            None if self.lines.len() >= MOST_LINES => self.overflowed = true,
            None => self.set(key, Line { due_ms: at_ms, ..Line::default() }),
        }
    }

    /// Nobody looks at a device of the user any more: what waits for one goes now.
    pub fn hurry(&mut self, user: &User, now_ms: u64) {
        let from = (user.clone(), ConvKey::least());
        let lines = self.lines.range(from..).take_while(|((of, _), _)| of == user);
        let waiting: Vec<Key> = lines.map(|(key, _)| key.clone()).collect();
        for key in waiting {
            self.owe(key, now_ms);
        }
    }

    /// True once after conversations were left out that have room now: they are to be found in the
    /// store.
    pub fn take_overflow(&mut self) -> bool {
        self.overflowed && self.lines.len() < MOST_LINES / 2 && {
            self.overflowed = false;
            true
        }
    }

    /// Takes what is due, at most `most`, each with what is still to be recorded of it (0 for
    /// nothing). Each is to be settled or failed.
    pub fn take(&mut self, now_ms: u64, most: usize) -> Vec<(Key, u64)> {
        let mut taken = Vec::new();
        if now_ms < self.paused_until_ms {
            return taken;
        }
        while let Some((at, key)) = self.due.first()
            && *at <= now_ms
            && taken.len() < most
        {
            let alone = self.lines.get(key).is_some_and(|line| line.attempts >= ALONE_AFTER);
            if alone && !taken.is_empty() {
                break;
            }
            let Some((_, key)) = self.due.pop_first() else { break };
            let Some(line) = self.lines.get_mut(&key) else { continue };
            line.taken = true;
            taken.push((key, line.unrecorded));
            if alone {
                break;
            }
        }
        taken
    }

    /// Nothing is left of a conversation that was taken, or is to be looked at again at a time.
    pub fn settled(&mut self, key: Key, again_ms: Option<u64>) {
        self.unset(&key);
        if let Some(due_ms) = again_ms {
            self.set(key, Line { due_ms, ..Line::default() });
        }
    }

    /// It was not its turn: it is due still.
    pub fn put_back(&mut self, key: Key) {
        if let Some(line) = self.lines.get(&key).copied() {
            self.set(key, Line { taken: false, ..line });
        }
    }

    /// The gateway has taken a batch.
    pub fn accepted(&mut self) {
        self.failures = 0;
    }

    /// A conversation was pushed, and that could not be recorded: it must not be pushed again.
    pub fn not_recorded(&mut self, key: Key, through: u64, now_ms: u64) {
        let due_ms = now_ms + self.retry.first_ms;
        let line = Line { due_ms, unrecorded: through, ..Line::default() };
        self.set(key, line);
    }

    /// The gateway was not there: everything waits, and nothing counts as an attempt.
    pub fn unreachable(&mut self, keys: Vec<Key>, now_ms: u64, random: u64) {
        self.pause(now_ms, random);
        for key in keys {
            self.put_back(key);
        }
    }

    /// The gateway has answered badly, or broken off. Gives those that were tried often enough,
    /// which stay taken: they are to be recorded as if they had been pushed.
    pub fn failed(&mut self, keys: Vec<Key>, now_ms: u64, random: u64) -> Vec<Key> {
        self.pause(now_ms, random);
        let mut given_up = Vec::new();
        for key in keys {
            let Some(line) = self.lines.get(&key).copied() else { continue };
            let attempts = line.attempts + 1;
            if attempts >= self.retry.attempts {
                given_up.push(key);
                continue;
            }
            let due_ms = now_ms + self.retry.pause_ms(attempts, random);
            self.set(key, Line { due_ms, attempts, taken: false, ..line });
        }
        given_up
    }

    fn pause(&mut self, now_ms: u64, random: u64) {
        self.failures += 1;
        self.paused_until_ms = now_ms + self.retry.pause_ms(self.failures, random);
    }

    /// When there is something to take.
    pub fn next_timeout(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| (*at).max(self.paused_until_ms))
    }

    fn set(&mut self, key: Key, line: Line) {
        if let Some(before) = self.lines.insert(key.clone(), line) {
            self.due.remove(&(before.due_ms, key.clone()));
        }
        self.due.insert((line.due_ms, key));
    }

    fn unset(&mut self, key: &Key) {
        if let Some(line) = self.lines.remove(key) {
            self.due.remove(&(line.due_ms, key.clone()));
        }
    }
}

impl Work<'_> {
    /// The user was told of everything up to here.
    pub(crate) fn pushed(&mut self, pushed: &Pushed) -> Result<Answer, Fault> {
        let Pushed { user, conv, seq, .. } = pushed;
        let wire = conv.wire(&user.id);
        let key = keys::user_name(&user.tenant, &user.id, user_kind::PUSHED, &wire);
        let row = self.txn.get(Family::Im, &key)?;
        let before = row.map_or(Ok(0), |row| read_number(&key, &row))?;
        if *seq > before && self.has_push(user)? {
            self.txn.put(Family::Im, &key, number_row(*seq));
        }
        Ok(Answer::Done)
    }

    /// Whether an app of the user is looked at may have changed.
    pub(crate) fn tell_attended(&mut self, user: &User, before: bool) {
        let attended = self.memory.seats.is_attended(user);
        if attended != before {
            self.txn.effect(Effect::Attended { user: user.clone(), attended });
        }
    }

    /// The push tokens of a user's devices may have changed.
    pub(crate) fn tell_push_token(&mut self, user: &User) -> Result<(), Fault> {
        let (takes, attended) = (self.has_push(user)?, self.memory.seats.is_attended(user));
        self.txn.effect(Effect::PushToken { user: user.clone(), takes, attended });
        Ok(())
    }
}
