//! Shards to try things on: several [`ImShard`]s over one store in memory, whose commands are
//! applied, committed and carried from shard to shard as the broker does it. For tests only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hoopoe_store::kv::SharedKv;
use hoopoe_store::memory::FaultKind;
use hoopoe_store::{
    Durability, MemoryKv, PendingBatch, ShardSettings, ShardView, Store, floors::Floors,
};
use serde_json::Value;

use crate::command::{Command, MoveCursor, Operate, Operation, Send, SendSignal, User};
use crate::effect::{Answer, Effect, Pending};
use crate::entry::Entry;
use crate::id::{ConvKey, MessageIds};
use crate::refusal::{Fault, Refusal};
use crate::rows::Sent;
use crate::service::query::{Found, Query};
use crate::service::{Call, Caller, Op, complete, parse};
use crate::settings::ImSettings;
use crate::shard::ImShard;
use crate::site::line::{SiteLetter, SiteNews};
use crate::site::owing::Owed;
use crate::{Asker, Heads, rows::UserConv};

pub(crate) const TENANT: &str = "t";
pub(crate) const START: u64 = 1_700_000_000_000;

/// What came out of a command.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answer(Answer),
    Found(Result<Found, Fault>),
}

struct Place {
    view: ShardView,
    step: ImShard,
    mail: VecDeque<Command>,
    /// Nothing can be written.
    hindered: bool,
    /// The step has not been told that the store was read again.
    unread: bool,
}

impl Place {
    fn is_able(&self) -> bool {
        !self.hindered && self.view.is_writing()
    }
}

pub(crate) struct Rig {
    memory: Arc<MemoryKv>,
    places: Vec<Place>,
    settings: ImSettings,
    heads: Arc<Heads>,
    ids: MessageIds,
    next_asker: u64,
    pub(crate) now: u64,
    pub(crate) outcomes: Vec<(u64, Outcome)>,
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) entries_for: Vec<(Arc<str>, Arc<Entry>)>,
    pub(crate) notices: Vec<(Arc<str>, String, Bytes)>,
    pub(crate) listed: Vec<(Arc<str>, String, UserConv)>,
    pub(crate) signals: Vec<SendSignal>,
    /// What was said to other sites.
    pub(crate) frames: VecDeque<(Arc<str>, Bytes)>,
    /// What is owed to them, as counted last.
    pub(crate) owed: BTreeMap<(Arc<str>, u16), Owed>,
}

pub(crate) fn user(id: &str) -> User {
    User { tenant: TENANT.into(), id: id.into() }
}

fn open(
    memory: &Arc<MemoryKv>,
    settings: &ImSettings,
    shards: u16,
    now: u64,
    heads: &Arc<Heads>,
) -> (Vec<Place>, Vec<(usize, Vec<Effect>)>) {
    let kv: SharedKv = memory.clone();
    let floors = Arc::new(Floors::new(shards));
    let store = Store::over(kv.clone(), floors, Durability::Sync, shards).unwrap();
    let (mut places, mut effects) = (Vec::new(), Vec::new());
    for shard in 0..shards {
        let (view, _) = ShardView::open(&store, shard, ShardSettings::default(), now).unwrap();
        let (mut step, owed) =
            ImShard::open(kv.clone(), shard, shards, settings.clone(), now).unwrap();
        step.share_heads(heads.clone());
        let (mail, hindered, unread) = (VecDeque::new(), false, false);
        places.push(Place { view, step, mail, hindered, unread });
        effects.push((usize::from(shard), owed));
    }
    (places, effects)
}

impl Rig {
    pub(crate) fn new(settings: ImSettings) -> Rig {
        Rig::with_shards(settings, 3)
    }

    pub(crate) fn with_shards(settings: ImSettings, shards: u16) -> Rig {
        let memory = Arc::new(MemoryKv::new(None));
        memory.simulate_crashes();
        let heads = Arc::new(Heads::default());
        let (places, _) = open(&memory, &settings, shards, START, &heads);
        Rig {
            heads,
            memory,
            places,
            settings,
            ids: MessageIds::new(63),
            next_asker: 0,
            now: START,
            outcomes: Vec::new(),
            entries: Vec::new(),
            entries_for: Vec::new(),
            notices: Vec::new(),
            listed: Vec::new(),
            signals: Vec::new(),
            frames: VecDeque::new(),
            owed: BTreeMap::new(),
        }
    }

    /// The process ends without a word, and starts again.
    pub(crate) fn crash(&mut self) {
        let memory = self.memory.crash(0, None);
        memory.simulate_crashes();
        self.memory = Arc::new(memory);
        let shards = self.places.len() as u16;
        self.heads = Arc::new(Heads::default());
        let (places, effects) = open(&self.memory, &self.settings, shards, self.now, &self.heads);
        self.places = places;
        for (shard, owed) in effects {
            self.carry_out(shard, owed);
        }
    }

    pub(crate) fn query(&self) -> Query {
        Query::new(self.memory.clone(), self.now).with_heads(self.heads.clone())
    }

    pub(crate) fn kv(&self) -> SharedKv {
        self.memory.clone()
    }

    pub(crate) fn step_of(&self, conv: &ConvKey) -> &ImShard {
        &self.places[usize::from(conv.slot().get()) % self.places.len()].step
    }

    /// Puts a command before its shard; gives the number of its asker.
    pub(crate) fn post(&mut self, make: impl FnOnce(Asker) -> Command) -> u64 {
        self.next_asker += 1;
        let command = make(Asker::Http(self.next_asker));
        let slot = command.slot().unwrap();
        let shards = self.places.len();
        self.places[usize::from(slot.get()) % shards].mail.push_back(command);
        self.next_asker
    }

    /// Another site, or the link to it, says something.
    pub(crate) fn site_says(&mut self, site: &str, news: SiteNews) {
        let command = |news| Command::Site(Box::new(SiteLetter { site: site.into(), news }));
        let shards = self.places.len();
        match &news {
            SiteNews::Link { .. } | SiteNews::Count => {
                for place in &mut self.places {
                    place.mail.push_back(command(news.clone()));
                }
            }
            SiteNews::Frame(frame) => {
                let shard = usize::from(frame.slot().unwrap()) % shards;
                self.places[shard].mail.push_back(command(news));
            }
        }
    }

    /// Rows that are owed to other sites.
    pub(crate) fn owed_to_sites(&self) -> usize {
        let mut owed = 0;
        for slot in 0..hoopoe_core::SLOTS {
            for kind in [crate::keys::site_kind::OWED, crate::keys::site_kind::HELD] {
                crate::shard::due::scan(&self.kv(), slot, kind, |_, _, _| {
                    owed += 1;
                    Ok(())
                })
                .unwrap();
            }
        }
        owed
    }

    pub(crate) fn admit(&mut self, user: &User) -> Result<(), hoopoe_codec::ReasonCode> {
        let shard = usize::from(user.slot().get()) % self.places.len();
        self.places[shard].step.admit(self.now, user, &"ios-1".into(), 0)
    }

    /// One shard applies at most `most` commands in one batch. False when it had none.
    pub(crate) fn step(&mut self, shard: usize, most: usize) -> bool {
        let place = &mut self.places[shard];
        let commands: Vec<_> = (0..most).map_while(|_| place.mail.pop_front()).collect();
        if commands.is_empty() {
            return false;
        }
        let hindered = !place.is_able();
        self.commit(shard, |step, now, batch, pending| {
            for command in commands {
                if hindered {
                    step.refuse(now, command, pending);
                    continue;
                }
                step.apply(now, command, true, batch, pending);
            }
        });
        true
    }

    fn commit(
        &mut self,
        shard: usize,
        run: impl FnOnce(&mut ImShard, u64, &mut PendingBatch, &mut Pending),
    ) {
        let place = &mut self.places[shard];
        let (mut batch, mut pending) = (PendingBatch::new(), Pending::default());
        run(&mut place.step, self.now, &mut batch, &mut pending);
        let effects = match place.view.commit(batch) {
            Ok(receipt) => {
                place.step.committed();
                pending.release(&receipt).collect()
            }
            Err(error) => {
                place.step.forget();
                let failed = pending.fail(&error);
                place.step.doubt(failed.in_doubt);
                failed.refused
            }
        };
        self.carry_out(shard, effects);
    }

    /// The next write fails.
    pub(crate) fn fail_write(&mut self, kind: FaultKind) {
        self.memory.fail_write(1, kind);
    }

    /// The `nth` read from now on fails.
    pub(crate) fn fail_read(&mut self, nth: u64) {
        self.memory.fail_read(nth);
    }

    /// Rows are read again after a write that failed, as often as it takes.
    pub(crate) fn recover(&mut self) {
        self.reopen();
        for shard in 0..self.places.len() {
            let Place { step, unread, .. } = &mut self.places[shard];
            if std::mem::take(unread) {
                let effects = step.recovered().or_else(|_| step.recovered()).unwrap();
                self.carry_out(shard, effects);
            }
        }
        self.settle();
    }

    /// The store can be written again after a write that failed; the rows of the profile have not
    /// been read yet.
    pub(crate) fn reopen(&mut self) {
        for Place { view, unread, .. } in &mut self.places {
            if view.is_stale() {
                view.recover(self.now).or_else(|_| view.recover(self.now)).unwrap();
                let mut batch = PendingBatch::new();
                view.on_tick(self.now, &mut batch);
                drop(view.commit(batch).unwrap());
                *unread = true;
            }
        }
    }

    /// Until nothing is under way any more.
    pub(crate) fn settle(&mut self) {
        while (0..self.places.len()).any(|shard| self.step(shard, 100)) {}
    }

    /// Whether a shard can write nothing from now on.
    pub(crate) fn hinder(&mut self, shard: usize, hindered: bool) {
        self.places[shard].hindered = hindered;
    }

    pub(crate) fn shard_of(&self, slot: hoopoe_core::Slot) -> usize {
        usize::from(slot.get()) % self.places.len()
    }

    pub(crate) fn shards(&self) -> usize {
        self.places.len()
    }

    /// Time passes, and what is due happens.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        loop {
            self.settle();
            let able = self.places.iter().filter(|place| place.is_able());
            let due = able.filter_map(|place| place.step.next_timeout()).min();
            let Some(at) = due.filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            for shard in 0..self.places.len() {
                let place = &self.places[shard];
                let due = place.step.next_timeout().is_some_and(|at| at <= self.now);
                if due && place.is_able() {
                    self.commit(shard, |step, now, batch, pending| {
                        step.on_tick(now, batch, pending);
                    });
                }
            }
        }
        self.now = until;
    }

    fn carry_out(&mut self, shard: usize, effects: Vec<Effect>) {
        let shards = self.places.len();
        for effect in effects {
            match effect {
                Effect::Answer { asker: Asker::Http(number), answer } => {
                    self.outcomes.push((number, Outcome::Answer(answer)));
                }
                Effect::Entry(entry) => self.entries.push(entry),
                Effect::EntryFor { user, entry } => self.entries_for.push((user, entry)),
                Effect::Notice { user, topic, payload } => {
                    self.notices.push((user.id, topic, payload));
                }
                Effect::Listed { user, conv, row } => {
                    let wire = conv.wire(&user.id);
                    self.listed.push((user.id, wire, row));
                }
                Effect::Forward { outbox, forward } => {
                    let to = usize::from(forward.slot().get()) % shards;
                    let outbox = outbox.map(|number| (shard as u16, number));
                    self.places[to].mail.push_back(Command::Forward { outbox, forward });
                }
                Effect::ForwardDone { shard, outbox } => {
                    let done = Command::ForwardDone { outbox };
                    self.places[usize::from(shard)].mail.push_back(done);
                }
                Effect::ForwardRefused { shard, outbox } => {
                    let refused = Command::ForwardRefused { outbox };
                    self.places[usize::from(shard)].mail.push_back(refused);
                }
                Effect::Signal(signal) => self.signals.push(*signal),
                Effect::Site { site, frame } => self.frames.push_back((site, frame)),
                Effect::Owed { site, shard, owed } => {
                    self.owed.insert((site, shard), owed);
                }
                Effect::Read(call) => {
                    let found = self.query().answer(&call);
                    if let Asker::Http(number) = call.asker {
                        self.outcomes.push((number, Outcome::Found(found)));
                    }
                }
                _ => {}
            }
        }
    }

    /// What an asker was answered.
    pub(crate) fn outcome(&mut self, asker: u64) -> Option<Outcome> {
        let at = self.outcomes.iter().position(|(of, _)| *of == asker)?;
        Some(self.outcomes.swap_remove(at).1)
    }

    pub(crate) fn post_call(&mut self, caller: Caller, op: &str, body: &Value) -> u64 {
        let (service, operation) = op.split_once('/').unwrap();
        let mut op: Op = parse(service, operation, body.to_string().as_bytes()).unwrap();
        complete(&mut op, || Some(self.ids.next(self.now)));
        self.post(|asker| {
            let writes = op.writes();
            let call = Box::new(Call { caller, op, asker });
            if writes { Command::Call(call) } else { Command::Read(call) }
        })
    }

    pub(crate) fn call_as(
        &mut self,
        caller: Caller,
        op: &str,
        body: Value,
    ) -> Result<Found, Refusal> {
        let asker = self.post_call(caller, op, &body);
        self.settle();
        match self.outcome(asker).expect("every call is answered") {
            Outcome::Answer(Answer::Value(value)) => Ok(value.into()),
            Outcome::Answer(Answer::Refused(refusal)) => Err(refusal),
            Outcome::Found(Ok(found)) => Ok(found),
            Outcome::Found(Err(Fault::Refused(refusal))) => Err(refusal),
            other => panic!("{op}: {other:?}"),
        }
    }

    /// A call of a user; what is refused gives `word: message`.
    pub(crate) fn call(&mut self, who: &str, op: &str, body: Value) -> Result<Value, String> {
        let caller = caller(who, false);
        let found = self.call_as(caller, op, body);
        found.map(|found| found.value).map_err(|r| format!("{}: {}", r.word.as_str(), r.message))
    }

    /// The word of a refusal.
    pub(crate) fn refused(&mut self, who: &str, op: &str, body: Value) -> &'static str {
        match self.call_as(caller(who, false), op, body) {
            Ok(found) => panic!("{op} was not refused: {found:?}"),
            Err(refusal) => refusal.word.as_str(),
        }
    }

    pub(crate) fn send(&mut self, who: &str, conv: &str, text: &str) -> Result<Sent, Refusal> {
        let asker = self.post(|asker| Command::Send(Box::new(message(asker, who, conv, text))));
        self.settle();
        match self.outcome(asker).expect("every send is answered") {
            Outcome::Answer(Answer::Sent { sent, .. }) => Ok(sent),
            Outcome::Answer(Answer::Refused(refusal)) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn recall(&mut self, who: &str, conv: &str, seq: u64) -> Result<Sent, Refusal> {
        let asker = self.post(|asker| recall(asker, who, conv, seq));
        self.settle();
        match self.outcome(asker).expect("every operation is answered") {
            Outcome::Answer(Answer::Sent { sent, .. }) => Ok(sent),
            Outcome::Answer(Answer::Refused(refusal)) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn read(&mut self, who: &str, conv: &str, seq: u64) -> Option<Outcome> {
        let asker = self.post(|asker| read(asker, who, conv, seq));
        self.settle();
        self.outcome(asker)
    }

    /// Everything the user can pull.
    pub(crate) fn pull(&mut self, who: &str, conv: &str) -> Result<Vec<Entry>, Refusal> {
        let body = serde_json::json!({ "conv": conv, "limit": 200 });
        self.call_as(caller(who, false), "sync/pull", body).map(|found| found.entries)
    }

    pub(crate) fn pulled(&mut self, who: &str, conv: &str) -> Vec<u64> {
        let entries = self.pull(who, conv).unwrap_or_default();
        entries.iter().map(|entry| entry.seq).collect()
    }

    /// Unread messages and mentions of the user in a conversation.
    pub(crate) fn unread(&mut self, who: &str, conv: &str) -> (u64, u64) {
        let heads = self.call(who, "sync/heads", serde_json::json!({ "limit": 200 })).unwrap();
        let heads = heads["conversations"].as_array().unwrap().clone();
        let line = heads.iter().find(|line| line["conv"] == conv);
        line.map_or((0, 0), |line| {
            (line["unread"].as_u64().unwrap(), line["mentions"].as_u64().unwrap())
        })
    }

    /// Notices since the last look, as `user topic payload`.
    pub(crate) fn take_notices(&mut self) -> Vec<String> {
        let notices = std::mem::take(&mut self.notices);
        let told = notices.into_iter().filter(|(_, topic, _)| topic.contains("/notice/"));
        told.map(|(user, topic, payload)| {
            let topic = topic.strip_prefix("im/me/sys/notice/").unwrap().to_owned();
            format!("{user} {topic} {}", String::from_utf8_lossy(&payload)).trim_end().to_owned()
        })
        .collect()
    }
}

pub(crate) fn caller(who: &str, privileged: bool) -> Caller {
    Caller { user: user(who), device: "".into(), privileged }
}

pub(crate) fn conv_of(who: &str, wire: &str) -> ConvKey {
    ConvKey::from_wire(TENANT, who, wire).unwrap()
}

pub(crate) fn message(asker: Asker, who: &str, conv: &str, text: &str) -> Send {
    Send {
        conv: conv_of(who, conv),
        from: user(who),
        device: "ios-1".into(),
        cid: None,
        burn_secs: 0,
        mentions: Vec::new(),
        at_all: false,
        properties: Bytes::new(),
        payload: text.to_owned().into(),
        expires_at_ms: None,
        marker: None,
        privileged: false,
        asker,
    }
}

pub(crate) fn recall(asker: Asker, who: &str, conv: &str, seq: u64) -> Command {
    Command::Operate(Box::new(Operate {
        conv: conv_of(who, conv),
        from: user(who),
        device: "ios-1".into(),
        operation: Operation::Recall,
        seq,
        cid: None,
        properties: Bytes::new(),
        payload: Bytes::new(),
        marker: None,
        asker,
    }))
}

pub(crate) fn read(asker: Asker, who: &str, conv: &str, seq: u64) -> Command {
    let conv = conv_of(who, conv);
    Command::MoveCursor(Box::new(MoveCursor { user: user(who), conv, read: true, seq, asker }))
}
