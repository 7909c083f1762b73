//! The IM step of one shard: commands in, rows and effects out.
//!
//! An [`ImShard`] stands beside the shard's `ShardView` and writes into the same batch, so that a
//! message, its deduplication and the QoS 2 marker of its publication are on disk together. It is
//! the single writer of its slots' rows. What it keeps in memory besides rows is what may be lost:
//! cursor moves of the last second (ruling 21), receipts that wait to be merged, and when
//! something is due.
//!
//! Deliberately not here: the rules, which live with their nouns (`conversation`, `user`,
//! `group`, …) as methods of `Work`.

mod doubt;
pub(crate) mod due;
mod forward;
pub(crate) mod postponed;

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use hoopoe_codec::ReasonCode;
use hoopoe_store::kv::{Family, SharedKv, Span};
use hoopoe_store::{PendingBatch, StoreError};

use crate::command::{Asker, Command, Forward, User};
use crate::conversation::expiry::Expiry;
use crate::conversation::own::OwnSends;
use crate::conversation::receipts::Receipts;
use crate::conversation::tail::Tails;
use crate::conversation::unlit::Unlit;
use crate::effect::{Answer, Effect, Pending};
use crate::heads::Heads;
use crate::id::{ConvKey, ConvKind, MessageIds};
use crate::keys;
use crate::presence::work::Desk;
use crate::refusal::{Fault, Refusal, Word};
use crate::service::Call;
use crate::settings::ImSettings;
use crate::site::line::LineKey;
use crate::site::owing::Lines;
use crate::site::wire::Frame;
use crate::sweep::Sweep;
use crate::txn::{Rows, Txn};
use crate::user::lazy::Lazy;
use crate::user::seats::Seats;

pub use self::due::Due;
use self::postponed::{Postponed, is_news};

/// How long presence and receipts wait under load before they are asked again.
const SHED_MS: u64 = 1_000;
/// How long what needs a row waits that could not be read.
const AGAIN_MS: u64 = 1_000;
/// What falls due that one turn does: the rest waits for the next, and others are not kept waiting.
const MOST_DUE: usize = 256;

/// The IM step of one shard.
#[derive(Debug)]
pub struct ImShard {
    shard: u16,
    shards: u16,
    settings: ImSettings,
    rows: Rows,
    memory: Memory,
}

/// What a shard knows besides its rows.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) ids: MessageIds,
    pub(crate) outbox_next: u64,
    pub(crate) lazy: Lazy,
    pub(crate) receipts: Receipts,
    /// What senders' own lists are owed.
    pub(crate) own: OwnSends,
    /// Who has lately said what.
    pub(crate) tails: Tails,
    /// Conversations with messages that burn once they are read.
    pub(crate) unlit: Unlit,
    pub(crate) seats: Seats,
    pub(crate) desk: Desk,
    pub(crate) due: BTreeSet<(u64, Due)>,
    pub(crate) expiry: Expiry,
    pub(crate) sweep: Sweep,
    /// Number of the next record of an operator's call; `None` before the first.
    pub(crate) audit_next: Option<u64>,
    /// Groups used lately that are big.
    pub(crate) big: HashSet<ConvKey>,
    /// What is owed to other sites.
    pub(crate) lines: Lines,
    /// Who is answered once an outbox entry has been applied (ruling 26).
    pub(crate) waiting: HashMap<u64, (Asker, Answer)>,
    /// Those of them that the present batch has added.
    pub(crate) waiting_new: Vec<u64>,
    pub(crate) postponed: Postponed,
    /// What a batch of unknown outcome would have made heard.
    in_doubt: Vec<Effect>,
}

/// Answers that wait for another shard.
const MOST_WAITING: usize = 65_536;

/// One command while it is applied: its view of the rows, and what the rules need besides.
pub(crate) struct Work<'a> {
    pub(crate) txn: Txn<'a>,
    pub(crate) now_ms: u64,
    pub(crate) settings: &'a ImSettings,
    pub(crate) memory: &'a mut Memory,
    pub(crate) shard: u16,
    /// The answer waits until this outbox entry has been applied.
    wait: Option<u64>,
    /// The answer waits until another site has answered this.
    pub(crate) wait_for_site: Option<(LineKey, u64)>,
    /// A fault of something that could not tell of it.
    late_fault: Option<Fault>,
}

impl ImShard {
    /// Opens the step of a shard. Gives what earlier runs have left to be told to other shards.
    /// `started_ms`: when the process started; the same for all its shards.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn open(
        kv: SharedKv,
        shard: u16,
        shards: u16,
        settings: ImSettings,
        started_ms: u64,
    ) -> Result<(ImShard, Vec<Effect>), StoreError> {
        let outbox = read_outbox(&kv, shard)?;
        let next = outbox.last().map_or(1, |(number, _)| number + 1);
        let (due, unlit) = due::load(&kv, shard, shards)?;
        let desk = Desk::new(&settings, shard, shards, started_ms);
        let sweep = Sweep::new(&settings, shard, shards, started_ms);
        let lines = read_lines(&kv, &settings, shard, shards, started_ms)?;
        let step = ImShard {
            shard,
            shards,
            settings,
            rows: Rows::new(kv),
            memory: Memory {
                ids: MessageIds::new(shard as u8),
                outbox_next: next,
                lazy: Lazy::default(),
                receipts: Receipts::default(),
                own: OwnSends::default(),
                tails: Tails::default(),
                unlit,
                seats: Seats::default(),
                desk,
                due,
                expiry: Expiry::unknown(),
                sweep,
                audit_next: None,
                big: HashSet::default(),
                lines,
                waiting: HashMap::default(),
                waiting_new: Vec::new(),
                postponed: Postponed::default(),
                in_doubt: Vec::new(),
            },
        };
        Ok((step, owed(outbox)))
    }

    /// Tells readers through this table where conversations stand, from now on.
    pub fn share_heads(&mut self, heads: Arc<Heads>) {
        self.rows.share_heads(heads);
    }

    /// Applies a command. `is_new` is false for a QoS 2 publication that was applied before. False
    /// if the command was refused: nothing is written then.
    pub fn apply(
        &mut self,
        now_ms: u64,
        command: Command,
        is_new: bool,
        batch: &mut PendingBatch,
        pending: &mut Pending,
    ) -> bool {
        if is_news(&command) && self.memory.postponed.has_news() {
            self.refuse(now_ms, command, pending);
            return true;
        }
        let news = is_news(&command).then(|| command.clone());
        let flushed = self.memory.lazy.mark();
        let (asker, mut work) = (asker_of(&command), self.work(now_ms, batch));
        let forwarded = match &command {
            Command::Forward { outbox, .. } => *outbox,
            _ => None,
        };
        let result = work.command(command, is_new);
        let answer = match work.late_fault.take().map_or(result, Err) {
            Ok(Some(_)) if let Some((line, number)) = work.wait_for_site.take() => {
                let asker = asker.unwrap_or(Asker::Nobody);
                let patience = work.settings.sites.as_ref().map_or(0, |sites| sites.answer_ms);
                work.memory.lines.wait(line, number, asker, now_ms + patience);
                work.txn.finish(pending);
                pending.wait(asker);
                None
            }
            Ok(Some(answer)) if let Some(number) = work.wait => {
                let asker = asker.unwrap_or(Asker::Nobody);
                work.memory.waiting.insert(number, (asker, answer));
                work.memory.waiting_new.push(number);
                work.txn.finish(pending);
                pending.wait(asker);
                None
            }
            Ok(answer) => {
                if let Some((shard, outbox)) = forwarded {
                    work.txn.effect(Effect::ForwardDone { shard, outbox });
                }
                work.txn.finish(pending);
                answer
            }
            Err(Fault::Refused(refusal)) => {
                work.memory.lazy.take_back(now_ms, flushed);
                if let Some((shard, outbox)) = forwarded {
                    pending.push(Effect::ForwardDone { shard, outbox });
                }
                Some(Answer::Refused(refusal))
            }
            Err(Fault::Store(error)) => {
                tracing::error!(%error, "rows of the IM profile cannot be read");
                work.memory.lazy.take_back(now_ms, flushed);
                work.memory.unlit.doubt();
                if let Some((shard, outbox)) = forwarded {
                    pending.push_anyway(Effect::ForwardRefused { shard, outbox });
                }
                if let Some(news) = news {
                    self.memory.postponed.defer(now_ms);
                    self.refuse(now_ms, news, pending);
                }
                Some(Answer::Refused(Refusal::not_writable()))
            }
        };
        let applied = !matches!(answer, Some(Answer::Refused(_)));
        if let (Some(asker), Some(answer)) = (asker, answer) {
            pending.push(Effect::Answer { asker, answer });
        }
        applied
    }

    /// Whether a user's device may be let in (ruling 36). Devices connect to their user's home.
    ///
    /// # Errors
    /// The reason code of the CONNACK.
    pub fn admit(
        &mut self,
        now_ms: u64,
        user: &User,
        client: &Arc<str>,
        token_since_ms: u64,
    ) -> Result<(), ReasonCode> {
        let sites = self.settings.sites.as_ref();
        let links = sites.filter(|sites| sites.site_of_link(&user.id).is_none());
        if let Some(site) = links.and_then(|sites| sites.elsewhere(user)) {
            tracing::info!(user = %user.id, %site, "turned away: the user lives at another site");
            return Err(ReasonCode::UseAnotherServer);
        }
        self.memory.seats.admit(now_ms, &self.settings, user, client, token_since_ms)
    }

    /// Whether an app of this user of the shard is looked at: if not, the user is to be pushed to
    /// (ruling 35).
    pub fn is_attended(&self, user: &crate::command::User) -> bool {
        self.memory.seats.is_attended(user)
    }

    /// When [`on_tick`](Self::on_tick) has something to do, in ms since the epoch.
    pub fn next_timeout(&self) -> Option<u64> {
        let memory = &self.memory;
        let due = memory.due.first().map(|(at, _)| *at);
        let (lazy, receipts) = (memory.lazy.next_timeout(), memory.receipts.next_timeout());
        let (people, sweep) = (memory.desk.people.next_timeout(), memory.sweep.next_timeout());
        let (own, postponed) = (memory.own.next_timeout(), memory.postponed.next_timeout());
        let (lines, expiry) = (memory.lines.next_timeout(), memory.expiry.next_timeout());
        [due, lazy, own, receipts, people, sweep, postponed, lines, expiry]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether presence wants to tell watchers something.
    pub fn wants_to_tell(&self, now_ms: u64) -> bool {
        self.memory.desk.people.next_timeout().is_some_and(|at| at <= now_ms)
    }

    /// Under load presence waits, and loses nothing by it.
    pub fn shed(&mut self, now_ms: u64) {
        self.memory.desk.people.defer(now_ms + SHED_MS);
    }

    /// Whether senders are to be told how far their messages have come.
    pub fn wants_to_tell_receipts(&self, now_ms: u64) -> bool {
        self.memory.receipts.next_timeout().is_some_and(|at| at <= now_ms)
    }

    /// Under load receipts wait, and are merged.
    pub fn shed_receipts(&mut self, now_ms: u64) {
        self.memory.receipts.defer(now_ms + SHED_MS);
    }

    /// Does what is due.
    pub fn on_tick(&mut self, now_ms: u64, batch: &mut PendingBatch, pending: &mut Pending) {
        if self.memory.postponed.next_timeout().is_some_and(|at| at <= now_ms) {
            self.catch_up(now_ms, batch, pending);
        }
        if self.memory.lazy.next_timeout().is_some_and(|at| at <= now_ms) {
            self.step(now_ms, batch, pending, |work| work.flush_cursors(None));
        }
        if self.memory.own.next_timeout().is_some_and(|at| at <= now_ms) {
            self.step(now_ms, batch, pending, |work| work.tell_own_sends());
        }
        if self.memory.receipts.next_timeout().is_some_and(|at| at <= now_ms) {
            self.step(now_ms, batch, pending, |work| work.send_receipts());
        }
        if self.memory.desk.people.next_timeout().is_some_and(|at| at <= now_ms) {
            self.step(now_ms, batch, pending, |work| work.tell_presence());
        }
        if self.memory.sweep.next_timeout().is_some_and(|at| at <= now_ms) {
            self.step(now_ms, batch, pending, |work| work.sweep());
        }
        if self.memory.lines.next_timeout().is_some_and(|at| at <= now_ms) {
            self.step(now_ms, batch, pending, |work| work.tick_lines());
        }
        if self.memory.expiry.next_timeout().is_some_and(|at| at <= now_ms) {
            self.step(now_ms, batch, pending, |work| work.expire());
        }
        for _ in 0..MOST_DUE {
            let Some((at, due)) = self.memory.due.pop_first() else { break };
            if at > now_ms {
                self.memory.due.insert((at, due));
                break;
            }
            if !self.step(now_ms, batch, pending, |work| work.fall_due(due.clone())) {
                self.memory.due.insert((now_ms + AGAIN_MS, due));
            }
        }
    }

    /// Writes what is lazy, for a clean stop.
    pub fn finish(&mut self, now_ms: u64, batch: &mut PendingBatch, pending: &mut Pending) {
        self.step(now_ms, batch, pending, |work| {
            work.stop_presence();
            work.flush_all_cursors()
        });
    }

    pub(crate) fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// False when rows could not be read: nothing of it has happened.
    fn step(
        &mut self,
        now_ms: u64,
        batch: &mut PendingBatch,
        pending: &mut Pending,
        run: impl FnOnce(&mut Work<'_>) -> Result<(), Fault>,
    ) -> bool {
        let flushed = self.memory.lazy.mark();
        let mut work = self.work(now_ms, batch);
        let result = run(&mut work);
        let fault = match work.late_fault.take().map_or(result, Err) {
            Ok(()) => {
                work.txn.finish(pending);
                return true;
            }
            Err(fault) => fault,
        };
        work.memory.lazy.take_back(now_ms, flushed);
        match fault {
            Fault::Refused(refusal) => {
                tracing::debug!(?refusal, "not carried out");
                true
            }
            Fault::Store(error) => {
                tracing::error!(%error, "rows cannot be read");
                self.memory.unlit.doubt();
                false
            }
        }
    }

    fn work<'a>(&'a mut self, now_ms: u64, batch: &'a mut PendingBatch) -> Work<'a> {
        let ImShard { shard, settings, rows, memory, .. } = self;
        let txn = rows.open(batch);
        let (wait, wait_for_site, late_fault) = (None, None, None);
        let shard = *shard;
        Work { txn, now_ms, settings, memory, shard, wait, wait_for_site, late_fault }
    }

    /// Whether the conversation of an entry that was just stored is a big one, whose deliveries
    /// may be merged (the profile, section 7).
    pub fn is_big(&self, conv: &ConvKey) -> bool {
        match conv.kind() {
            ConvKind::User => false,
            ConvKind::Group => self.memory.big.contains(conv),
            ConvKind::Channel => true,
        }
    }

    /// The batch is committed.
    pub fn committed(&mut self) {
        self.memory.lazy.written();
        self.memory.waiting_new.clear();
        self.memory.lines.committed();
        self.memory.desk.people.committed();
        self.rows.committed();
    }

    /// The batch is lost: everything is read again.
    pub fn forget(&mut self) {
        for number in std::mem::take(&mut self.memory.waiting_new) {
            self.memory.waiting.remove(&number);
        }
        self.memory.lazy.take_back(0, 0);
        self.memory.desk.people.lost();
        self.memory.tails.forget();
        self.memory.unlit.doubt();
        self.memory.lines.forget();
        self.rows.forget();
    }
}

/// Who waits for the answer that applying a command gives. Calls that read are answered later, if
/// they are not refused.
fn asker_of(command: &Command) -> Option<Asker> {
    match command {
        Command::Send(send) => Some(send.asker),
        Command::Operate(operate) => Some(operate.asker),
        Command::Signal(signal) => Some(signal.asker),
        Command::MoveCursor(cursor) => Some(cursor.asker),
        Command::SetShow(set) => Some(set.asker),
        Command::Pushed(pushed) => Some(pushed.asker),
        Command::Call(call) | Command::Read(call) => Some(call.asker),
        Command::KeepRoom(keep) => Some(keep.asker),
        Command::Account(account) => Some(account.asker),
        Command::Audit { asker, .. } => Some(*asker),
        _ => None,
    }
}

/// What is owed to other shards, as they are told it.
fn owed(outbox: Vec<(u64, Forward)>) -> Vec<Effect> {
    let effects = outbox.into_iter().map(|(number, forward)| Effect::Forward {
        outbox: Some(number),
        forward: Box::new(forward),
    });
    effects.collect()
}

/// What is owed to other sites, as it is committed.
fn read_lines(
    kv: &SharedKv,
    settings: &ImSettings,
    shard: u16,
    shards: u16,
    since_ms: u64,
) -> Result<Lines, StoreError> {
    match &settings.sites {
        Some(_) => Lines::load(kv, shard, shards, since_ms),
        None => Ok(Lines::default()),
    }
}

fn read_outbox(kv: &SharedKv, shard: u16) -> Result<Vec<(u64, Forward)>, StoreError> {
    let prefix = keys::outbox_prefix(shard);
    let mut end = prefix.clone();
    end.extend_from_slice(&[0xff; 9]);
    let (mut outbox, mut fault) = (Vec::new(), None);
    kv.scan(Family::Im, Span::half_open(&prefix, &end), &mut |key, row| {
        match crate::txn::read_json(key, row) {
            Ok(forward) => outbox.push((keys::seq_of(key), forward)),
            Err(error) => fault = Some(error),
        }
        std::ops::ControlFlow::Continue(())
    })?;
    fault.map_or(Ok(outbox), Err)
}

impl Work<'_> {
    fn command(&mut self, command: Command, is_new: bool) -> Result<Option<Answer>, Fault> {
        match command {
            Command::Send(send) => self.send(send, is_new).map(Some),
            Command::Operate(operate) => self.operate(&operate, is_new).map(Some),
            Command::Signal(signal) => self.signal(signal).map(Some),
            Command::MoveCursor(cursor) => self.move_cursor(&cursor).map(Some),
            Command::Progress(progress) => self.progress(&progress).map(|()| None),
            Command::Connected(device) => {
                // A new session begins behind what the user's devices have acknowledged.
                self.flush_cursors(Some(&device.user))?;
                self.connected(&device)?;
                self.txn.effect(Effect::Login(device));
                Ok(None)
            }
            Command::Disconnected(device) => self.disconnected(&device).map(|()| None),
            Command::Attention { user, location, background } => {
                // What its devices have acknowledged before is known first.
                self.flush_cursors(Some(&user))?;
                let before = self.memory.seats.is_attended(&user);
                self.memory.seats.attend(&user, location, background);
                self.tell_attended(&user, before);
                Ok(None)
            }
            Command::WasSilent { user, client } => {
                self.memory.seats.was_silent(&user, &client);
                Ok(None)
            }
            Command::SetShow(set) => self.set_show(&set).map(Some),
            Command::Pushed(pushed) => self.pushed(&pushed).map(Some),
            Command::Call(call) => self.call(&call).map(Some),
            Command::Read(call) => {
                if let Err(refusal) = self.check_at_home(&call) {
                    let (asker, answer) = (call.asker, Answer::Refused(refusal));
                    self.txn.effect(Effect::Answer { asker, answer });
                    return Ok(None);
                }
                self.flush_cursors(Some(&call.caller.user))?;
                self.txn.effect(Effect::Read(call));
                Ok(None)
            }
            Command::KeepRoom(keep) => self.keep_room(&keep).map(Some),
            Command::Audit { record, .. } => self.audit(&record).map(|()| Some(Answer::Done)),
            Command::Account(account) => self.account(&account).map(|v| Some(Answer::Value(v))),
            Command::Forward { forward, .. } => match self.forward_home(&forward) {
                Some(home) => self.forward_to_site(home, *forward).map(|()| None),
                None => self.forwarded(*forward).map(|()| None),
            },
            Command::ForwardRefused { outbox } => {
                if let Some(answer) = self.memory.forward_refused(self.now_ms, outbox) {
                    self.txn.effect(answer);
                }
                Ok(None)
            }
            Command::Site(letter) => self.site_letter(*letter).map(|()| None),
            Command::ForwardDone { outbox } => {
                let key = keys::outbox(self.shard, outbox);
                self.txn.delete(Family::Im, &key);
                if let Some((asker, answer)) = self.memory.waiting.remove(&outbox) {
                    self.txn.effect(Effect::Answer { asker, answer });
                }
                Ok(None)
            }
        }
    }

    /// A service call that writes.
    fn call(&mut self, call: &Call) -> Result<Answer, Fault> {
        self.check_at_home(call)?;
        crate::service::perform(self, call).map(Answer::Value)
    }

    /// What concerns a user alone is asked at the user's home; what lives at another site there.
    fn check_at_home(&self, call: &Call) -> Result<(), Refusal> {
        let Some(sites) = &self.settings.sites else { return Ok(()) };
        let site = match call.conv() {
            Some(conv) => sites.foreign(&conv),
            None => sites.elsewhere(&call.caller.user),
        };
        match site {
            None => Ok(()),
            Some(site) => {
                let text = format!("this lives at site {site}");
                Err(Refusal::new(Word::Unavailable, text))
            }
        }
    }

    /// Keeps a fault for the end of the command.
    pub(crate) fn note_fault(&mut self, result: Result<(), Fault>) {
        if let Err(fault) = result {
            self.late_fault.get_or_insert(fault);
        }
    }

    /// Tells all connected devices of a user.
    pub(crate) fn notice(
        &mut self,
        user: crate::command::User,
        topic: String,
        payload: impl Into<bytes::Bytes>,
    ) {
        let payload = payload.into();
        if let Some(site) = self.settings.sites.as_ref().and_then(|sites| sites.elsewhere(&user)) {
            let site = site.clone();
            self.say(site, &Frame::Notice { user, topic, payload });
            return;
        }
        self.txn.effect(Effect::Notice { user, topic, payload });
    }
}
