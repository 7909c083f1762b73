//! One thread of the push hook: notes in, requests to the gateway out, what was taken recorded.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hoopoe_im::User;
use hoopoe_im::command::{Command, Pushed};
use hoopoe_im::effect::Answer;
use hoopoe_im::id::ConvKey;
use hoopoe_im::push::{Key, PushPage, Pusher, Retry, Terms};
use hoopoe_im::service::query::Query;
use hoopoe_store::StoreError;
use hoopoe_store::kv::SharedKv;
use tokio::sync::oneshot::Receiver;

use super::body::Shape;
use super::{Inbox, Note, PushCounts, PushHook};
use crate::clock::now_ms;
use crate::connection::Env;
use crate::im::Reply;
use crate::im::hook::exchange::{Service, is_unreachable};
use crate::settings::PushSettings;

/// Longest sleep: how soon the end of the node is noticed.
const NAP: Duration = Duration::from_secs(1);
/// Users looked through in one turn.
const RECOVER_STEP: usize = 64;
/// Groups whose members are kept; when there are more, all are forgotten.
const MOST_GROUPS: usize = 4_096;
/// Notes that wait because rows could not be read.
const MOST_UNREAD: usize = 4_096;
/// Entries that were looked at without a push, after which that is recorded.
const LOOKED_MANY: u64 = 64;

/// A thread of the push hook.
pub(super) struct Lane {
    number: usize,
    env: Weak<Env>,
    kv: SharedKv,
    inbox: Arc<Inbox>,
    pusher: Pusher,
    service: Service,
    shape: Shape,
    counts: Arc<PushCounts>,
    after_ms: u64,
    max_age_ms: u64,
    batch_max: usize,
    /// Users still to be looked through.
    recover: Vec<User>,
    /// Notes of which rows could not be read.
    unread: Vec<Note>,
    /// Nothing is read for `recover` and `unread` before.
    again_at_ms: u64,
    /// Members of small groups; `None`: the group is big.
    groups: HashMap<ConvKey, Option<Arc<[Arc<str>]>>>,
    is_down: bool,
}

/// What has become of a request.
enum Outcome {
    Taken,
    Unreachable,
    Failed,
}

impl Lane {
    pub(super) fn new(
        number: usize,
        env: Weak<Env>,
        kv: SharedKv,
        inbox: Arc<Inbox>,
        settings: &PushSettings,
        counts: Arc<PushCounts>,
    ) -> anyhow::Result<Lane> {
        let timeout = Duration::from_millis(u64::from(settings.timeout_ms));
        let url = settings.url.as_deref().unwrap_or_default();
        Ok(Lane {
            number,
            env,
            kv,
            inbox,
            pusher: Pusher::new(Retry {
                first_ms: u64::from(settings.retry_first_ms),
                most_ms: u64::from(settings.retry_max_secs) * 1000,
                attempts: settings.attempts_max,
            }),
            service: Service::new(url, settings.ca_file.as_deref(), None, timeout)?,
            shape: Shape::new(settings),
            counts,
            after_ms: u64::from(settings.after_secs) * 1000,
            max_age_ms: settings.max_age_secs * 1000,
            batch_max: settings.batch_max as usize,
            recover: Vec::new(),
            unread: Vec::new(),
            again_at_ms: 0,
            groups: HashMap::new(),
            is_down: false,
        })
    }

    /// Until the node is gone.
    pub(super) fn run(mut self) {
        loop {
            let (notes, lost) = self.inbox.take(self.nap());
            let Some(env) = self.env.upgrade() else { return };
            let Some(hook) = env.im.push() else { return };
            if lost || self.pusher.take_overflow() {
                self.recover = hook.users_of(self.number);
                self.groups.clear();
            }
            for note in self.take_unread().into_iter().chain(notes) {
                self.note(hook, note);
            }
            self.recover_some();
            self.push(&env, hook);
        }
    }

    fn nap(&self) -> Duration {
        let owes = !self.recover.is_empty() || !self.unread.is_empty();
        let again = owes.then_some(self.again_at_ms);
        let due = again.into_iter().chain(self.pusher.next_timeout()).min();
        let due = due.map(|at| at.saturating_sub(now_ms()));
        due.map_or(NAP, |ms| NAP.min(Duration::from_millis(ms)))
    }

    fn take_unread(&mut self) -> Vec<Note> {
        let is_due = self.again_at_ms <= now_ms();
        if is_due { std::mem::take(&mut self.unread) } else { Vec::new() }
    }

    /// It is tried again after a pause; when too much waits for that, everything is looked through.
    fn put_off(&mut self, error: &StoreError, note: Option<Note>) {
        tracing::error!(%error, "what is to be pushed could not be read");
        self.again_at_ms = now_ms() + NAP.as_millis() as u64;
        if self.unread.len() < MOST_UNREAD {
            self.unread.extend(note);
        } else {
            self.unread.clear();
            self.inbox.lose();
        }
    }

    fn query(&self) -> Query {
        Query::new(self.kv.clone(), now_ms())
    }

    fn note(&mut self, hook: &PushHook, note: Note) {
        match note {
            Note::Owed(user, conv, ts_ms) => self.owe(hook, user, conv, ts_ms),
            Note::Away(user) => self.pusher.hurry(&user, now_ms()),
            Note::Members(conv) => {
                self.groups.remove(&conv);
            }
            Note::Group(conv, ts_ms) => match self.members(&conv) {
                Ok(members) => owe_members(hook, &conv, ts_ms, &members.unwrap_or_default()),
                Err(error) => self.put_off(&error, Some(Note::Group(conv, ts_ms))),
            },
            Note::All(conv, ts_ms) => match self.query().everybody_to_push(&conv) {
                Ok(Some(members)) => owe_members(hook, &conv, ts_ms, &members),
                Ok(None) => hook.owed_to_all(&conv, ts_ms),
                Err(error) => self.put_off(&error, Some(Note::All(conv, ts_ms))),
            },
        }
    }

    /// A device that is looked at has its time; otherwise the push goes at once.
    fn owe(&mut self, hook: &PushHook, user: User, conv: ConvKey, ts_ms: u64) {
        let at = match hook.is_attended(&user) {
            None => return,
            Some(true) => ts_ms + self.after_ms,
            Some(false) => now_ms(),
        };
        self.pusher.owe((user, conv), at);
    }

    fn members(&mut self, conv: &ConvKey) -> Result<Option<Arc<[Arc<str>]>>, StoreError> {
        if let Some(members) = self.groups.get(conv) {
            return Ok(members.clone());
        }
        let members = self.query().members_to_push(conv)?.map(Arc::from);
        if self.groups.len() >= MOST_GROUPS {
            self.groups.clear();
        }
        self.groups.insert(conv.clone(), members.clone());
        Ok(members)
    }

    /// Looks through the store for what is owed. After a start devices have their time to return.
    fn recover_some(&mut self) {
        let at = now_ms() + self.after_ms;
        if now_ms() < self.again_at_ms {
            return;
        }
        for _ in 0..RECOVER_STEP {
            let Some(user) = self.recover.pop() else { return };
            match self.query().push_owed(&user) {
                Ok(owed) => {
                    for conv in owed {
                        self.pusher.owe((user.clone(), conv), at);
                    }
                }
                Err(error) => {
                    // Behind all others.
                    self.recover.insert(0, user);
                    return self.put_off(&error, None);
                }
            }
        }
    }

    /// Sends what is due, one request after another.
    fn push(&mut self, env: &Env, hook: &PushHook) {
        let taken = self.pusher.take(now_ms(), self.batch_max);
        let (mut pages, mut count) = (Vec::new(), 0);
        for (key, unrecorded) in taken {
            if unrecorded > 0 {
                self.record(env, vec![(key, unrecorded, Some(now_ms()))]);
            } else if count >= self.batch_max {
                self.pusher.put_back(key);
            } else if let Some(page) = self.page(env, hook, &key, self.batch_max - count) {
                count += page.pushes.len();
                pages.push((key, page));
            }
        }
        if !pages.is_empty() {
            self.send(env, pages);
        }
        let waiting = self.pusher.len() as u64;
        self.counts.waiting[self.number].store(waiting, Ordering::Relaxed);
    }

    /// What is to be told of a conversation; `None` when that is nothing, or nothing yet.
    fn page(&mut self, env: &Env, hook: &PushHook, key: &Key, most: usize) -> Option<PushPage> {
        let Some(attended) = hook.is_attended(&key.0) else {
            self.pusher.settled(key.clone(), None);
            return None;
        };
        let (after_ms, max_age_ms) = (self.after_ms, self.max_age_ms);
        let terms = Terms { attended, after_ms, max_age_ms, most };
        let page = match self.query().push_page(&key.0, &key.1, &terms) {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "what is to be pushed could not be read");
                self.pusher.settled(key.clone(), Some(now_ms() + NAP.as_millis() as u64));
                return None;
            }
        };
        if !page.pushes.is_empty() {
            return Some(page);
        }
        let more_now = page.again_ms.is_some_and(|at| at <= now_ms());
        if page.looked > 0 && (more_now || page.looked >= LOOKED_MANY) {
            // Not to be looked through again and again.
            self.record(env, vec![(key.clone(), page.through, page.again_ms)]);
        } else {
            self.pusher.settled(key.clone(), page.again_ms);
        }
        None
    }

    fn send(&mut self, env: &Env, pages: Vec<(Key, PushPage)>) {
        let body = self.shape.body(&pages);
        let signature = self.shape.signature(&body);
        let outcome = match self.service.post(&signature, &body) {
            Ok((200..300, _)) => Outcome::Taken,
            Ok((status, _)) => {
                self.down(&format!("status {status}"));
                Outcome::Failed
            }
            Err(error) => {
                self.down(&error.to_string());
                if is_unreachable(&error) { Outcome::Unreachable } else { Outcome::Failed }
            }
        };
        if !matches!(outcome, Outcome::Taken) {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        let now_ms = now_ms();
        let keys = || pages.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        match outcome {
            Outcome::Taken => {
                if std::mem::take(&mut self.is_down) {
                    tracing::info!("the push gateway answers again");
                }
                self.pusher.accepted();
                let sent: usize = pages.iter().map(|(_, page)| page.pushes.len()).sum();
                self.counts.sent.fetch_add(sent as u64, Ordering::Relaxed);
                let of = |(key, page): (Key, PushPage)| (key, page.through, page.again_ms);
                self.record(env, pages.into_iter().map(of).collect());
            }
            Outcome::Unreachable => self.pusher.unreachable(keys(), now_ms, random()),
            Outcome::Failed => {
                let given_up = self.pusher.failed(keys(), now_ms, random());
                let gone = pages.into_iter().filter(|(key, _)| given_up.contains(key));
                let gone: Vec<_> =
                    gone.map(|(key, page)| (key, page.through, page.again_ms)).collect();
                let count = gone.len() as u64;
                if count > 0 {
                    tracing::warn!(count, "pushes are given up after too many attempts");
                    self.counts.given_up.fetch_add(count, Ordering::Relaxed);
                    self.record(env, gone);
                }
            }
        }
    }

    fn down(&mut self, what: &str) {
        if !std::mem::replace(&mut self.is_down, true) {
            tracing::warn!(what, "the push gateway does not take pushes");
        }
    }

    /// Writes how far users were told, and waits until that is on disk: what is not is tried again,
    /// without pushing again.
    fn record(&mut self, env: &Env, done: Vec<(Key, u64, Option<u64>)>) {
        let mut waiting = Vec::new();
        for (key, through, again_ms) in done {
            let answer = self.ask_to_record(env, &key, through);
            waiting.push((key, through, again_ms, answer));
        }
        for (key, through, again_ms, answer) in waiting {
            let answer = answer.and_then(|answer| answer.blocking_recv().ok());
            if matches!(answer, Some(Reply::Answer(Answer::Done))) {
                self.pusher.settled(key, again_ms);
            } else {
                self.pusher.not_recorded(key, through, now_ms());
            }
        }
    }

    fn ask_to_record(&self, env: &Env, key: &Key, seq: u64) -> Option<Receiver<Reply>> {
        let (asker, answer) = env.im.wait()?;
        let (user, conv) = key.clone();
        let pushed = Pushed { user, conv, seq, asker };
        let shard = env.fabric.shard_of(pushed.user.slot());
        env.fabric.shards[shard].put(Command::Pushed(Box::new(pushed)).into());
        Some(answer)
    }
}

/// A number by chance; the middle of all when there is none to be had.
fn random() -> u64 {
    let mut bytes = [0x7f; 8];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::debug!(%error, "no random number");
    }
    u64::from_le_bytes(bytes)
}

fn owe_members(hook: &PushHook, conv: &ConvKey, ts_ms: u64, members: &[Arc<str>]) {
    let tenant: Arc<str> = conv.tenant().into();
    for id in members {
        let user = User { tenant: tenant.clone(), id: id.clone() };
        hook.owed(user, conv, ts_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoopoe_store::MemoryKv;

    #[test]
    fn what_cannot_be_read_is_read_again_after_a_pause() {
        let memory = Arc::new(MemoryKv::new(None));
        let kv: SharedKv = memory.clone();
        let url = Some("http://127.0.0.1:1/push".to_owned());
        let settings = PushSettings { url, ..PushSettings::default() };
        let hook = PushHook::open(&settings, &kv).expect("an empty store").expect("a hook");
        let (inbox, counts) = (hook.lanes[0].clone(), hook.counts.clone());
        let lane = Lane::new(0, Weak::new(), kv, inbox, &settings, counts);
        let mut lane = lane.expect("a lane");

        let group = ConvKey::group("t", "g1");
        let alice = User { tenant: "t".into(), id: "alice".into() };
        memory.fail_read(1);
        lane.note(&hook, Note::Group(group.clone(), 7));
        memory.fail_read(1);
        lane.note(&hook, Note::All(group.clone(), 8));
        lane.recover = vec![alice];
        lane.recover_some();
        assert_eq!(lane.recover.len(), 1, "a user is looked through although nothing can be read");
        assert!(lane.take_unread().is_empty() && !lane.nap().is_zero(), "there is no pause");

        lane.again_at_ms = 0;
        assert!(lane.nap().is_zero());
        let notes = lane.take_unread();
        assert!(matches!(notes[..], [Note::Group(_, 7), Note::All(_, 8)]), "{notes:?}");
        memory.fail_read(1);
        lane.recover_some();
        assert_eq!(lane.recover.len(), 1, "a user whose rows could not be read is forgotten");

        lane.again_at_ms = 0;
        lane.recover_some();
        for note in notes {
            lane.note(&hook, note);
        }
        assert!(lane.recover.is_empty() && lane.unread.is_empty());
        lane.inbox.take(Duration::ZERO);

        for ts_ms in 0..=MOST_UNREAD as u64 {
            memory.fail_read(1);
            lane.note(&hook, Note::All(group.clone(), ts_ms));
        }
        assert!(lane.unread.is_empty() && lane.inbox.take(Duration::ZERO).1, "notes are lost");
    }
}
