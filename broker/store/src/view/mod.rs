//! The shard step: commands in, rows and effects out.
//!
//! A [`ShardView`] is the single writer of the rows of its slots. It keeps in memory what decides
//! (sessions, heads of queues, who is connected) and leaves in the store what is only carried
//! (messages). Each command is judged knowing all before it, in the same batch too; what it makes
//! happen waits in the [`PendingBatch`] for the commit.
//!
//! Not here: the clock (times are arguments), connections, the subscription index, and wills of
//! sessions that end with their connection.

mod asleep;
mod directory;
mod group;
mod qos2;
mod queue;
mod restore;
mod retained;
mod session;
mod will;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::{HashMap, HashSet};
use hoopoe_codec::ReasonCode;
use hoopoe_core::{Location, PacketIdent, SessionId, Slot};

pub use restore::{Restored, RestoredGroup, RestoredSession};

use self::asleep::Asleep;
use self::directory::{Directory, refused};
use self::group::Groups;
use self::retained::Retained;
use self::session::Session;
use crate::command::{Close, Command, GroupCommand};
use crate::error::{StoreError, WriteError};
use crate::floors::Floors;
use crate::keys;
use crate::kv::{Batch, Family, SharedKv};
use crate::log::{After, CommitError, LocalLog, PendingBatch, Receipt, ShardLog};
use crate::rows::{self, ShardRow};
use crate::settings::{Durability, ShardSettings};
use crate::store::Store;

/// How long a newcomer waits for the connection it takes over (ruling 11).
pub const TAKE_OVER_MS: u64 = 5_000;
/// How old what is written lazily gets at most: progress, completed exchanges.
pub const LAZY_MS: u64 = 1_000;
/// Sessions whose lazy rows are written in one batch.
const LAZY_SESSIONS: usize = 10_000;
/// How often marks that nobody removes any more are looked for.
const SWEEP_MS: u64 = 60_000;
/// How often a store that refused to write is asked again.
const PROBE_MS: u64 = 1_000;
/// What groups are told while nothing can be written: how much of it is kept.
const DEFERRED_MAX: usize = 100_000;
/// How long the floors may lag behind before there is a sync for their sake.
const UNSYNCED_MS: u64 = 2_000;
/// Numbers reserved at once, so that none is ever used twice, also across a crash.
const NUMBER_BLOCK: u64 = 1_024;

/// Whether the shard may write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Health {
    /// Yes.
    Writing,
    /// A commit failed: memory holds what was never written. Only `recover` helps.
    Stale {
        /// The outcome of the failed write is unknown.
        unknown: bool,
    },
    /// Memory is right again, but the store refuses to write; asked again at this time.
    Refusing {
        /// When.
        probe_at_ms: u64,
    },
}

/// The durable state of a shard's slots.
pub struct ShardView {
    kv: SharedKv,
    log: Box<dyn ShardLog>,
    floors: Arc<Floors>,
    settings: ShardSettings,
    durability: Durability,
    shard: u16,
    shards: u16,
    /// The latest time heard of: a clock set back moves nothing back (ruling 14).
    now_ms: u64,
    health: Health,
    /// Counters as they are, and as they are reserved on disk.
    row: ShardRow,
    numbers: u64,
    bodies: u64,
    row_changed: bool,
    /// Counters were reserved: on disk before anybody hears of a number.
    reserved: bool,
    directory: Directory,
    /// Boxed: a table has up to twice the room that it needs.
    sessions: HashMap<SessionId, Box<Session>>,
    /// Those that wait for nothing but their client.
    asleep: Asleep,
    groups: Groups,
    retained: Retained,
    /// Incoming QoS 2 publications of this and other shards' sessions.
    markers: BTreeSet<PacketIdent>,
    /// Outbox entries of other shards that were applied here.
    applied: HashSet<u64>,
    /// Own outbox entries not carried out yet.
    outbox: BTreeSet<u64>,
    /// When something is due for a session that is not connected.
    timers: BTreeSet<(u64, SessionId)>,
    /// Sessions with lazy rows, and since when the oldest waits.
    lazy: Vec<SessionId>,
    lazy_since_ms: Option<u64>,
    sweep_at_ms: u64,
    /// Messages and bytes in all queues of this shard.
    queued: Load,
    /// Connections that were let in by a batch that failed.
    never_opened: Vec<Location>,
    /// Sessions given back while nothing could be written, to be given back once more.
    deferred: Vec<(SessionId, Box<Close>)>,
    deferred_groups: Vec<GroupCommand>,
    /// Members of groups without a subscription, and entries that were finished: left by a crash
    /// or a failed commit, removed with the next batch.
    orphans: Vec<(SessionId, u64)>,
    finished: Vec<(SessionId, u64)>,
    /// Outbox entries that were carried out while nothing could be written, or whose removal
    /// failed: not to be carried out again, removed with the next batch.
    carried_out: Vec<u64>,
    /// What becomes of tables once what it rests on is synced.
    unsynced: Vec<After>,
    unsynced_since_ms: u64,
}

/// Messages and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Load {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// What a batch would have told, in case it fails.
struct Failed {
    opened: Vec<Location>,
    owed: Vec<u64>,
    made: Vec<SessionId>,
    offered: Vec<(SessionId, u64)>,
}

impl Failed {
    fn of(batch: &PendingBatch) -> Failed {
        Failed {
            opened: batch.opened().collect(),
            owed: batch.owed().collect(),
            made: batch.made().collect(),
            offered: batch.offered().collect(),
        }
    }
}

impl std::fmt::Debug for ShardView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardView")
            .field("shard", &self.shard)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl ShardView {
    /// Opens shard `shard` of a store: reads its sessions, so that their routes are in the index
    /// before anyone connects. `now_ms` is the start time of ruling 14.
    pub fn open(
        store: &Store,
        shard: u16,
        settings: ShardSettings,
        now_ms: u64,
    ) -> Result<(ShardView, Restored), StoreError> {
        let kv = store.kv();
        let log = Box::new(LocalLog::new(kv.clone(), store.durability()));
        let mut view = ShardView {
            kv,
            log,
            floors: store.floors(),
            settings,
            shard,
            shards: store.shards(),
            now_ms,
            health: Health::Writing,
            row: ShardRow::default(),
            numbers: 0,
            bodies: 0,
            row_changed: false,
            reserved: false,
            directory: Directory::default(),
            sessions: HashMap::default(),
            asleep: Asleep::default(),
            groups: Groups::default(),
            retained: Retained::default(),
            markers: BTreeSet::new(),
            applied: HashSet::default(),
            outbox: BTreeSet::new(),
            timers: BTreeSet::new(),
            lazy: Vec::new(),
            lazy_since_ms: None,
            sweep_at_ms: now_ms,
            queued: Load::default(),
            never_opened: Vec::new(),
            deferred: Vec::new(),
            deferred_groups: Vec::new(),
            orphans: Vec::new(),
            finished: Vec::new(),
            carried_out: Vec::new(),
            unsynced: Vec::new(),
            unsynced_since_ms: 0,
            durability: store.durability(),
        };
        let restored = view.load()?;
        Ok((view, restored))
    }

    /// Carries out a command as far as memory goes; rows and effects go into `batch`.
    pub fn apply(&mut self, now_ms: u64, command: Command, batch: &mut PendingBatch) {
        let now_ms = self.advance(now_ms);
        if self.health == Health::Writing && !self.kv.takes_writes() {
            // Another shard has met the fault: nobody is let in by this one either (ruling 12).
            self.health = Health::Refusing { probe_at_ms: now_ms };
        }
        if self.health != Health::Writing {
            return self.refuse(command, batch);
        }
        match command {
            Command::Open(open) => self.open_session(now_ms, *open, batch),
            Command::Close(close) => self.close_session(now_ms, close, batch),
            Command::Subscribe { session, epoch, filters, reply } => {
                self.subscribe(session, epoch, filters, reply, batch);
            }
            Command::Unsubscribe { session, epoch, filters, reply } => {
                self.unsubscribe(session, epoch, &filters, reply, batch);
            }
            Command::Publish(publish) => self.publish(&publish, batch),
            Command::Progress(progress) => self.progress(now_ms, progress),
            Command::Complete { session, epoch, entries } => {
                self.complete(now_ms, session, epoch, &entries);
            }
            Command::Exchange { session, epoch, changes, reply } => {
                self.exchange(now_ms, session, epoch, &changes, reply, batch);
            }
            Command::Release { marker, reply } => self.release(marker, reply, batch),
            Command::Group(command) => self.group(*command, batch),
            Command::Barrier { reply } => batch.committed(reply, ReasonCode::Success),
            Command::OutboxDone { outbox } => self.outbox_done(outbox, batch),
            Command::Evict { key } => self.evict(now_ms, &key, batch),
            Command::ExpireRetained { topics } => self.expire_retained(&topics, batch),
        }
    }

    /// When [`on_tick`](Self::on_tick) has something to do, in ms since the epoch.
    pub fn next_timeout(&self) -> Option<u64> {
        match self.health {
            Health::Stale { .. } => return None,
            Health::Refusing { probe_at_ms } => return Some(probe_at_ms),
            Health::Writing => {}
        }
        let marks = !self.markers.is_empty() || !self.applied.is_empty();
        [
            self.directory.next_deadline(),
            self.timers.first().map(|(at, _)| *at),
            self.lazy_since_ms.map(|since| since + LAZY_MS),
            (!self.unsynced.is_empty()).then_some(self.unsynced_since_ms + UNSYNCED_MS),
            marks.then_some(self.sweep_at_ms),
            self.has_leftovers().then_some(self.now_ms),
            self.groups.retry_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due: ends sessions, publishes wills, refuses newcomers that waited in vain,
    /// writes lazy rows.
    pub fn on_tick(&mut self, now_ms: u64, batch: &mut PendingBatch) {
        let now_ms = self.advance(now_ms);
        let mut recovered = false;
        if let Health::Refusing { probe_at_ms } = self.health {
            if now_ms < probe_at_ms {
                return;
            }
            if self.kv.probe().is_err() {
                self.health = Health::Refusing { probe_at_ms: now_ms + PROBE_MS };
                return;
            }
            tracing::info!(shard = self.shard, "the store can be written again");
            self.health = Health::Writing;
            recovered = true;
        }
        if self.health != Health::Writing {
            return;
        }
        self.work_off(now_ms, batch);
        for id in self.groups.take_stalled(now_ms) {
            self.dispatch(id, batch);
        }
        if recovered {
            // Groups that are not stored after all.
            self.shorten_largest(None, batch);
            // What a failed batch would have offered, or what it has written after all.
            self.groups.ids().into_iter().for_each(|id| self.dispatch(id, batch));
        }
        self.refuse_waiting(now_ms, batch);
        self.run_timers(now_ms, batch);
        if self.lazy_since_ms.is_some_and(|since| since + LAZY_MS <= now_ms) {
            self.flush_lazy(now_ms, batch);
        }
        if !self.unsynced.is_empty() && self.unsynced_since_ms + UNSYNCED_MS <= now_ms {
            // A row and a sync for their sake.
            self.row_changed = true;
            batch.sync = true;
        }
        if self.sweep_at_ms <= now_ms {
            self.sweep_at_ms = now_ms + SWEEP_MS;
            self.sweep_marks(batch);
        }
    }

    fn has_leftovers(&self) -> bool {
        !(self.deferred.is_empty()
            && self.deferred_groups.is_empty()
            && self.orphans.is_empty()
            && self.finished.is_empty()
            && self.carried_out.is_empty())
    }

    /// What a start or a failed commit has left to be done.
    fn work_off(&mut self, now_ms: u64, batch: &mut PendingBatch) {
        for (id, close) in std::mem::take(&mut self.deferred) {
            self.give_back(now_ms, id, close, batch);
        }
        for (id, seq) in std::mem::take(&mut self.finished) {
            batch.rows.delete(Family::Queue, &keys::queue(id, seq));
            // Its row has said that the number was used.
            self.groups.touch(id);
        }
        for number in std::mem::take(&mut self.carried_out) {
            self.outbox_done(number, batch);
        }
        for (group, subscriber) in std::mem::take(&mut self.orphans) {
            self.leave_group(group, subscriber, false, batch);
        }
        for command in std::mem::take(&mut self.deferred_groups) {
            self.group(command, batch);
        }
    }

    /// Makes a batch durable; only then its effects can be had, from the receipt.
    ///
    /// After an error the shard serves nobody until [`recover`](Self::recover) has been called.
    pub fn commit(&mut self, mut batch: PendingBatch) -> Result<Receipt, CommitError> {
        if self.is_stale() {
            // Refusals only: what else is in memory was never written and must not be.
            batch.rows = Batch::default();
            return self.log.append(batch);
        }
        self.flush_groups(&mut batch);
        if self.row_changed {
            batch.durable |= std::mem::take(&mut self.reserved);
            self.write_row(&mut batch);
        }
        let after = std::mem::take(&mut batch.after);
        let closes = std::mem::take(&mut batch.closes);
        let carried_out = std::mem::take(&mut batch.carried_out);
        let failed = Failed::of(&batch);
        let synced = batch.is_synced(self.durability);
        match self.log.append(batch) {
            Ok(receipt) => {
                self.committed(after, synced);
                Ok(receipt)
            }
            Err(error) => {
                tracing::error!(shard = self.shard, %error, "commit failed");
                let unknown = matches!(error.fault, WriteError::Unknown(_));
                self.health = Health::Stale { unknown };
                self.deferred.extend(closes);
                self.carried_out.extend(carried_out);
                self.take_back(failed);
                Err(error)
            }
        }
    }

    /// Undoes in memory what nobody will be told of.
    fn take_back(&mut self, failed: Failed) {
        self.never_opened.extend(failed.opened);
        self.outbox.retain(|number| !failed.owed.contains(number));
        for id in failed.made {
            self.groups.remove(id);
        }
        for (id, seq) in failed.offered {
            self.groups.change(id, |group| group.take_back(seq));
        }
    }

    /// After a failed commit: drops what was never written and reads again what is there, after
    /// an unknown outcome from a store that was closed and reopened (ruling 12). Connections keep
    /// their sessions. Gives all routes once more, for an index that has lost some.
    ///
    /// When this fails, it may be called again.
    pub fn recover(&mut self, now_ms: u64) -> Result<Restored, StoreError> {
        let now_ms = self.advance(now_ms);
        if let Health::Stale { unknown: true } = self.health {
            self.kv.reopen()?;
        }
        let restored = self.load()?;
        self.health = Health::Refusing { probe_at_ms: now_ms };
        Ok(restored)
    }

    /// True after a failed commit, until [`recover`](Self::recover) succeeds.
    pub fn is_stale(&self) -> bool {
        matches!(self.health, Health::Stale { .. })
    }

    /// True while commands that write are taken.
    pub fn is_writing(&self) -> bool {
        self.health == Health::Writing
    }

    fn advance(&mut self, now_ms: u64) -> u64 {
        self.now_ms = self.now_ms.max(now_ms);
        self.now_ms
    }

    /// What rests on the commit happens. Rows may vanish only once what makes them dead is
    /// synced: else a power failure would keep the end of a queue and lose its acknowledgement,
    /// and numbers would be used again.
    fn committed(&mut self, after: Vec<After>, synced: bool) {
        if self.unsynced.is_empty() {
            self.unsynced = after;
            self.unsynced_since_ms = self.now_ms;
        } else {
            self.unsynced.extend(after);
        }
        if synced {
            self.raise_floors();
        }
        self.retained.trim();
        self.groups.trim();
        self.publish_totals();
    }

    fn raise_floors(&mut self) {
        let mut raise = Vec::new();
        for step in std::mem::take(&mut self.unsynced) {
            match step {
                After::Raise(session, floor) => raise.push((session, floor)),
                After::Remove(session) => self.floors.remove(session),
            }
        }
        if !raise.is_empty() {
            self.floors.raise(self.shard, &raise);
            self.put_to_sleep(raise.into_iter().map(|(id, _)| id));
        }
    }

    fn publish_totals(&self) {
        let totals = self.floors.totals(self.shard);
        totals.groups.store(self.groups.len() as u64, Ordering::Relaxed);
        let sessions = self.sessions.len() + self.asleep.len();
        totals.sessions.store(sessions as u64, Ordering::Relaxed);
        totals.retained.store(self.row.retained, Ordering::Relaxed);
        totals.queued_messages.store(self.queued.messages, Ordering::Relaxed);
        totals.queued_bytes.store(self.queued.bytes, Ordering::Relaxed);
    }

    /// Answers a command while nothing can be written (ruling 12). What ends is remembered.
    fn refuse(&mut self, command: Command, batch: &mut PendingBatch) {
        let reply = match command {
            Command::Open(open) => {
                batch.effect(refused(&open, ReasonCode::ServerUnavailable));
                None
            }
            Command::Close(close) => {
                self.close_later(close);
                None
            }
            Command::Progress(progress) => {
                self.progress(self.now_ms, progress);
                None
            }
            Command::Complete { session, epoch, entries } => {
                self.complete(self.now_ms, session, epoch, &entries);
                None
            }
            Command::Subscribe { reply, .. }
            | Command::Unsubscribe { reply, .. }
            | Command::Barrier { reply } => Some(reply),
            Command::Publish(publish) => publish.reply,
            Command::Exchange { reply, .. } => reply,
            Command::Release { reply, .. } => Some(reply),
            Command::Group(command) => self.defer_group(*command),
            Command::OutboxDone { outbox } => {
                self.carried_out.push(outbox);
                None
            }
            Command::Evict { .. } | Command::ExpireRetained { .. } => None,
        };
        if let Some(reply) = reply {
            batch.committed(reply, ReasonCode::ServerUnavailable);
        }
    }

    /// The next session, group or outbox number of a slot.
    fn next_number(&mut self, slot: Slot) -> u64 {
        let number = self.numbers;
        self.numbers += 1;
        if self.numbers > self.row.numbers {
            self.row.numbers = self.numbers + NUMBER_BLOCK;
            (self.row_changed, self.reserved) = (true, true);
        }
        SessionId::new(slot, number).0
    }

    /// The next body number.
    fn next_body(&mut self) -> u64 {
        let number = self.bodies;
        self.bodies += 1;
        if self.bodies > self.row.bodies {
            self.row.bodies = self.bodies + NUMBER_BLOCK * NUMBER_BLOCK;
            (self.row_changed, self.reserved) = (true, true);
        }
        keys::body_number(self.shard, number)
    }

    fn write_row(&mut self, batch: &mut PendingBatch) {
        self.row_changed = false;
        let row = self.row;
        let key = keys::shard_head(self.shard);
        batch.rows.put_with(Family::Shard, &key, |out| rows::put_shard(out, &row));
    }
}
