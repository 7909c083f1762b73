//! What a shard could not do while nothing could be written (ruling 12) or a row not be read, and
//! does once it can: news of devices that came and went, and outbox entries whose receiver was in
//! the same trouble.
//!
//! Owns positions and news only. What is owed to other shards is in the outbox, on disk; here is
//! which of it has to be told again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hoopoe_store::PendingBatch;
use hoopoe_store::kv::Family;

use super::{ImShard, Memory, asker_of};
use crate::command::{Command, Forward, User};
use crate::effect::{Answer, Effect, Pending};
use crate::id::ConvKey;
use crate::keys;
use crate::refusal::{Refusal, Word};
use crate::rows::CursorCopy;

/// News of devices that are kept; beyond it the oldest are lost, and presence with them.
const MOST_NEWS: usize = 1 << 18;
/// How long an outbox entry that was refused waits until it is told again.
const AGAIN_MS: u64 = 1_000;
/// How often news of a device is tried whose rows cannot be read.
const MOST_TRIES: u32 = 10;

/// What waits for better times.
#[derive(Debug, Default)]
pub(crate) struct Postponed {
    /// Devices that came, went, or are looked at or not, in the order it happened.
    news: VecDeque<Command>,
    /// Where readers stand, which nobody says again.
    cursors: BTreeMap<(ConvKey, Arc<str>), CursorCopy>,
    /// Outbox entries that have been applied, and are still on disk.
    applied: Vec<u64>,
    /// Outbox entries that have been refused, and when they are told again.
    refused: BTreeSet<u64>,
    again_at_ms: u64,
    /// Rows could not be read: nothing is tried before.
    not_before_ms: u64,
    /// How often the oldest news was tried.
    tries: u32,
}

impl Postponed {
    /// When there is something to do, in ms since the epoch.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        if self.news.is_empty() && self.applied.is_empty() && self.cursors.is_empty() {
            let refused = (!self.refused.is_empty()).then_some(self.again_at_ms);
            return refused.map(|at| at.max(self.not_before_ms));
        }
        Some(self.not_before_ms)
    }

    /// Rows cannot be read at the moment.
    pub(crate) fn defer(&mut self, now_ms: u64) {
        self.not_before_ms = now_ms + AGAIN_MS;
    }

    /// Whether news waits, so that what is newer has to wait as well.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Keeps what devices have done.
    pub(crate) fn keep(&mut self, news: Command) {
        if self.news.len() >= MOST_NEWS {
            tracing::warn!("too many devices came and went while nothing could be written");
            self.news.pop_front();
        }
        self.news.push_back(news);
    }

    /// An outbox entry has been applied, which cannot be written now.
    pub(crate) fn keep_applied(&mut self, outbox: u64) {
        self.applied.push(outbox);
    }

    /// The furthest counts. Beyond the bound the conversation hears of it when they move again.
    pub(crate) fn keep_cursors(&mut self, conv: ConvKey, user: Arc<str>, at: CursorCopy) {
        let key = (conv, user);
        if self.cursors.len() < MOST_NEWS || self.cursors.contains_key(&key) {
            let kept = self.cursors.entry(key).or_default();
            *kept = kept.max(at);
        }
    }

    pub(crate) fn take_cursors(&mut self) -> BTreeMap<(ConvKey, Arc<str>), CursorCopy> {
        std::mem::take(&mut self.cursors)
    }

    /// The oldest news, which stays until it is [`heard`](Self::heard).
    fn first_news(&self) -> Option<Command> {
        self.news.front().cloned()
    }

    fn heard(&mut self) {
        self.news.pop_front();
        self.tries = 0;
    }

    /// The rows of one device are not to keep all others waiting.
    fn unheard(&mut self, now_ms: u64) {
        self.tries += 1;
        if self.tries < MOST_TRIES {
            return self.defer(now_ms);
        }
        tracing::error!("a device came or went, and its rows cannot be read");
        self.heard();
    }

    /// Outbox entries that have been applied, and those that are to be told again now.
    fn take_entries(&mut self, now_ms: u64) -> (Vec<u64>, BTreeSet<u64>) {
        let refused = match now_ms < self.again_at_ms {
            true => BTreeSet::new(),
            false => std::mem::take(&mut self.refused),
        };
        (std::mem::take(&mut self.applied), refused)
    }
}

/// News of devices, of which the order counts: they come and go in memory.
pub(super) fn is_news(command: &Command) -> bool {
    matches!(command, Command::Connected(_) | Command::Disconnected(_) | Command::Attention { .. })
}

impl Memory {
    /// The shard that an outbox entry is for can write nothing at the moment: it is told again
    /// later, and whoever waits hears so at once.
    pub(crate) fn forward_refused(&mut self, now_ms: u64, outbox: u64) -> Option<Effect> {
        self.postponed.refused.insert(outbox);
        self.postponed.again_at_ms = now_ms + AGAIN_MS;
        let (asker, _) = self.waiting.remove(&outbox)?;
        let text = "kept, but the other side cannot be written at the moment: it follows by itself";
        let answer = Answer::Refused(Refusal::new(Word::Unavailable, text));
        Some(Effect::Answer { asker, answer })
    }
}

impl ImShard {
    /// Does what could not be done before, as far as it can be done now.
    pub(super) fn catch_up(
        &mut self,
        now_ms: u64,
        batch: &mut PendingBatch,
        pending: &mut Pending,
    ) {
        while let Some(news) = self.memory.postponed.first_news() {
            let heard = self.step(now_ms, batch, pending, |work| match news {
                // What the device starts with it was told when it came.
                Command::Connected(device) => work.connected(&device),
                news => work.command(news, true).map(drop),
            });
            if !heard {
                return self.memory.postponed.unheard(now_ms);
            }
            self.memory.postponed.heard();
        }
        for ((conv, user), at) in self.memory.postponed.take_cursors() {
            self.step(now_ms, batch, pending, |work| work.cursors_told(&conv, &user, at));
        }
        let (applied, refused) = self.memory.postponed.take_entries(now_ms);
        let told = self.step(now_ms, batch, pending, |work| {
            for outbox in &applied {
                work.txn.delete(Family::Im, &keys::outbox(work.shard, *outbox));
            }
            for outbox in &refused {
                let key = keys::outbox(work.shard, *outbox);
                if let Some(forward) = work.txn.json(&key)? {
                    let (outbox, forward) = (Some(*outbox), Box::new(forward));
                    work.txn.effect(Effect::Forward { outbox, forward });
                }
            }
            Ok(())
        });
        if !told {
            self.memory.postponed.applied.extend(applied);
            self.memory.postponed.refused.extend(refused);
            self.memory.postponed.defer(now_ms);
        }
    }

    /// Answers a command while nothing can be written (ruling 12). Calls that only read are
    /// carried out, news of devices are kept. None of it rests on the batch of the turn, which may
    /// be the first that is tried again, and fail.
    pub fn refuse(&mut self, now_ms: u64, command: Command, pending: &mut Pending) {
        let memory = self.memory();
        match command {
            Command::Read(call) => pending.push_anyway(Effect::Read(call)),
            Command::Connected(device) => {
                pending.push_anyway(Effect::Login(device.clone()));
                memory.postponed.keep(Command::Connected(device));
            }
            news if is_news(&news) => memory.postponed.keep(news),
            Command::Progress(progress) => memory.lazy.progress(now_ms, &progress),
            Command::Forward { outbox: Some((shard, outbox)), .. } => {
                pending.push_anyway(Effect::ForwardRefused { shard, outbox });
            }
            Command::Forward { outbox: None, forward } => match *forward {
                Forward::Cursors { conv, user, recv, read } => {
                    memory.postponed.keep_cursors(conv, user, CursorCopy { recv, read });
                }
                Forward::OwnSend { tenant, user, conv, seq, count } => {
                    let user = User { tenant, id: user };
                    memory.lazy.own_send(now_ms, user, conv, seq, count);
                }
                // What is told without an outbox else is of the moment.
                _ => {}
            },
            Command::ForwardDone { outbox } => {
                memory.postponed.keep_applied(outbox);
                if let Some((asker, answer)) = memory.waiting.remove(&outbox) {
                    pending.push_anyway(Effect::Answer { asker, answer });
                }
            }
            Command::ForwardRefused { outbox } => {
                if let Some(effect) = memory.forward_refused(now_ms, outbox) {
                    pending.push_anyway(effect);
                }
            }
            command => {
                if let Some(asker) = asker_of(&command) {
                    let answer = Answer::Refused(Refusal::not_writable());
                    pending.push_anyway(Effect::Answer { asker, answer });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hoopoe_store::error::WriteError;
    use hoopoe_store::log::CommitError;
    use hoopoe_store::memory::MemoryKv;
    use serde_json::json;

    use super::ImShard;
    use crate::Answer;
    use crate::command::{Command, Device, DeviceMove, Forward, Progress};
    use crate::effect::{Effect, Pending};
    use crate::id::ConvKey;
    use crate::rig::{Outcome, Rig, caller, conv_of, user};
    use crate::settings::ImSettings;

    fn device(who: &str, client: &str) -> Box<Device> {
        Box::new(Device {
            user: user(who),
            client: client.into(),
            location: hoopoe_core::Location::new(0, 1, 1),
            address_class: "network",
            stored: true,
            kept: true,
            heads_only: false,
        })
    }

    fn progress(who: &str, with: &str, cursor: u64) -> Command {
        let conv: ConvKey = conv_of(who, with);
        let moves = vec![DeviceMove { conv, cursor, recv: cursor }];
        let (user, client) = (user(who), "ios-1".into());
        Command::Progress(Box::new(Progress { user, client, stored: true, moves, at_once: false }))
    }

    #[test]
    fn what_another_shard_refuses_is_answered_at_once_and_told_again() {
        let mut rig = Rig::new(ImSettings::default());
        let here = rig.shard_of(user("alice").slot());
        let there = |bob: &str| rig.shard_of(conv_of("alice", &format!("u/{bob}")).slot());
        let names: Vec<String> = (0..100).map(|n| format!("b{n}")).collect();
        let bob = names.iter().find(|bob| there(bob) != here).unwrap();
        let there = there(bob);
        rig.hinder(there, true);
        // The pair's record is what the answer waits for (ruling 26).
        let asker = rig.post_call(caller("alice", false), "roster/block", &json!({ "user": bob }));
        rig.settle();
        match rig.outcome(asker) {
            Some(Outcome::Answer(Answer::Refused(refusal))) => {
                assert_eq!(refusal.word.as_str(), "unavailable");
            }
            other => panic!("{other:?}"),
        }
        rig.pass(3_000);
        rig.hinder(there, false);
        assert!(rig.send(bob, "u/alice", "before it is told again").is_ok());
        rig.pass(1_000);
        assert!(rig.send(bob, "u/alice", "blocked").is_err());
        // A restart may tell it once more, which changes nothing.
        rig.crash();
        rig.settle();
        assert!(rig.send(bob, "u/alice", "blocked").is_err());
    }

    #[test]
    fn whoever_is_refused_hears_so_when_the_first_batch_after_it_fails_too() {
        let kv = Arc::new(MemoryKv::new(None));
        let (mut step, _) = ImShard::open(kv, 0, 1, ImSettings::default(), 1).unwrap();
        for fault in [WriteError::Unknown("injected".into()), WriteError::Refused("full".into())] {
            let mut pending = Pending::default();
            let (conv, at) = (conv_of("alice", "u/bob"), user("alice"));
            let forward = Forward::Mentioned { tenant: at.tenant, user: at.id, conv, seq: 1 };
            let (outbox, forward) = (Some((2, 7)), Box::new(forward));
            step.refuse(1_000, Command::Forward { outbox, forward }, &mut pending);
            // The shard is tried again in the same turn, and its batch fails.
            let error = CommitError { fault, effects: Vec::new(), lost: Vec::new() };
            let refused = pending.fail(&error).refused;
            let told = Effect::ForwardRefused { shard: 2, outbox: 7 };
            assert_eq!(format!("{refused:?}"), format!("{:?}", [told]));
            assert!(pending.is_empty());
        }
    }

    #[test]
    fn devices_that_come_and_go_meanwhile_are_seen_afterwards() {
        let mut rig = Rig::new(ImSettings { presence_grace_secs: 0, ..ImSettings::default() });
        let here = rig.shard_of(user("alice").slot());
        let show = |rig: &mut Rig| {
            let body = json!({ "users": ["alice"] });
            let found = rig.call("bob", "presence/get", body).unwrap();
            found["users"][0]["show"].as_str().unwrap_or_default().to_owned()
        };
        rig.hinder(here, true);
        rig.post(|_| Command::Connected(device("alice", "ios-1")));
        rig.settle();
        rig.hinder(here, false);
        rig.pass(100);
        assert_eq!(show(&mut rig), "online");
        rig.hinder(here, true);
        rig.post(|_| Command::Disconnected(device("alice", "ios-1")));
        rig.settle();
        rig.hinder(here, false);
        rig.pass(60_000);
        assert_eq!(show(&mut rig), "offline");
    }

    #[test]
    fn devices_that_come_and_go_while_a_row_cannot_be_read_are_seen_afterwards() {
        for nth in 1..5 {
            let mut rig = Rig::new(ImSettings { presence_grace_secs: 0, ..ImSettings::default() });
            let show = |rig: &mut Rig| {
                let body = json!({ "users": ["alice"] });
                let found = rig.call("bob", "presence/get", body).unwrap();
                found["users"][0]["show"].as_str().unwrap_or_default().to_owned()
            };
            let come_and_go = [
                (Command::Connected(device("alice", "ios-1")), "online"),
                (Command::Disconnected(device("alice", "ios-1")), "offline"),
            ];
            for (news, afterwards) in come_and_go {
                rig.fail_read(nth);
                rig.post(|_| news);
                rig.settle();
                rig.fail_read(0);
                rig.pass(60_000);
                assert_eq!(show(&mut rig), afterwards, "{nth}");
            }
        }
    }

    #[test]
    fn a_call_is_answered_whichever_row_cannot_be_read() {
        let body = json!({ "conv": "u/bob", "from": 1, "limit": 10 });
        for nth in 1..20 {
            let mut rig = Rig::new(ImSettings::default());
            rig.send("bob", "u/alice", "one").unwrap();
            // No rows are in memory.
            rig.crash();
            rig.post(|_| progress("alice", "u/bob", 1));
            rig.settle();
            rig.fail_read(nth);
            let asked = rig.post_call(caller("alice", false), "sync/pull", &body);
            rig.settle();
            rig.fail_read(0);
            assert!(rig.outcome(asked).is_some(), "{nth}");
            rig.pass(3_000);
            let cursors = rig.query().cursors(&user("alice"), "ios-1").unwrap();
            assert_eq!({ cursors }.of(&conv_of("alice", "u/bob"), "alice"), Some(1), "{nth}");
        }
    }

    #[test]
    fn cursors_are_not_lost_with_a_call_that_is_refused() {
        let mut rig = Rig::new(ImSettings::default());
        rig.send("bob", "u/alice", "one").unwrap();
        rig.post(|_| progress("alice", "u/bob", 1));
        // A cursor beyond the head flushes what came before it, and is refused.
        let asked = rig.read("alice", "u/bob", 99);
        assert!(matches!(asked, Some(Outcome::Answer(Answer::Refused(_)))), "{asked:?}");
        rig.pass(2_000);
        let mut cursors = rig.query().cursors(&user("alice"), "ios-1").unwrap();
        let conv = conv_of("alice", "u/bob");
        assert_eq!(cursors.of(&conv, "alice"), Some(1));
    }
}
