//! A shard's thread: drain the mailbox, apply in order, commit once, release the effects. What
//! arrives during the sync is the next batch: the mailbox is the group commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hoopoe_im::effect::Failed;
use hoopoe_im::overload::Shed;
use hoopoe_im::{ImShard, Pending, User};
use hoopoe_store::kv::Batch;
use hoopoe_store::view::LAZY_MS;
use hoopoe_store::{Command, PendingBatch, ShardView, StoreError};

use super::effects::Effects;
use crate::clock::now_ms;
use crate::connection::Env;
use crate::fabric::{Mailbox, ShardMail};
use crate::im::ImEffects;
use crate::telemetry::ShardCounters;

/// Bytes of rows after which a batch is committed, whatever waits.
const BATCH_BYTES: usize = 8 << 20;
/// Longest sleep without letters: how soon a stop is noticed.
const NAP: Duration = Duration::from_millis(500);
/// Pause between attempts to bring a failed store back.
pub(super) const RECOVER_PAUSE_MS: u64 = 1_000;

/// What a shard's thread is made of.
pub struct ShardParts {
    /// The shard's number.
    pub number: usize,
    /// The step for sessions, queues and retained messages.
    pub view: ShardView,
    /// The step of the IM profile, which writes into the same batches.
    pub im: ImShard,
    /// What the profile owed other shards when the broker ended.
    pub im_outbox: Vec<hoopoe_im::Effect>,
    /// Where its commands arrive.
    pub mailbox: Arc<Mailbox<ShardMail>>,
    /// What all threads share.
    pub env: Arc<Env>,
    /// Its counters.
    pub counters: Arc<ShardCounters>,
    /// Set when workers have handed every session back.
    pub stop: Arc<AtomicBool>,
}

/// One shard's whole state.
pub struct Shard {
    view: ShardView,
    im: ImShard,
    im_pending: Pending,
    im_effects: ImEffects,
    effects: Effects,
    counters: Arc<ShardCounters>,
    env: Arc<Env>,
    number: usize,
    mailbox: Arc<Mailbox<ShardMail>>,
    commands: Vec<ShardMail>,
    /// Room for the rows of a batch.
    room: Batch,
    /// When the store is to be read again, after it could not be.
    recover_at_ms: u64,
    /// The store is back, and the profile's step has not read again what it rests on.
    unread_im: bool,
    /// What kept the store from coming back the last time: told once, not every second.
    recover_fault: String,
}

/// Runs until told to stop, then commits what is left.
pub fn run_shard(parts: ShardParts) {
    let stop = parts.stop.clone();
    let mut shard = Shard::new(parts);
    loop {
        let stopping = stop.load(Ordering::Acquire);
        shard.mailbox.wait(if stopping { Duration::ZERO } else { shard.nap() });
        let any = shard.step(now_ms());
        if stopping && !any {
            shard.finish(now_ms());
            return;
        }
    }
}

impl Shard {
    /// A shard ready to run.
    pub fn new(parts: ShardParts) -> Shard {
        let ShardParts { number, view, im, im_outbox, mailbox, env, counters, stop: _ } = parts;
        let mut im_effects = ImEffects::new(number, env.clone());
        im_effects.release(im_outbox, |_| false);
        Shard {
            view,
            im,
            im_pending: Pending::default(),
            im_effects,
            effects: Effects::new(number, env.clone(), counters.clone()),
            counters,
            env,
            number,
            mailbox,
            commands: Vec::new(),
            room: Batch::default(),
            recover_at_ms: 0,
            unread_im: false,
            recover_fault: String::new(),
        }
    }

    fn nap(&self) -> Duration {
        let due = self.due().map(|at| at.saturating_sub(now_ms()));
        due.map_or(NAP, |ms| NAP.min(Duration::from_millis(ms)))
    }

    /// When a turn has something to do although no command came, in ms since the epoch.
    pub fn next_timeout(&self) -> Option<u64> {
        let again = (self.view.is_stale() || self.unread_im).then_some(self.recover_at_ms);
        if self.view.is_stale() { again } else { self.due().into_iter().chain(again).min() }
    }

    fn due(&self) -> Option<u64> {
        let im = self.im.next_timeout().filter(|_| self.view.is_writing());
        [self.view.next_timeout(), im].into_iter().flatten().min()
    }

    /// One turn: everything in the mailbox is applied and committed. True when there was something.
    pub fn step(&mut self, now_ms: u64) -> bool {
        let mut commands = std::mem::take(&mut self.commands);
        let any = self.mailbox.take(&mut commands);
        self.env.im.overload.turn_begins(self.number, now_ms);
        self.turn(now_ms, &mut commands);
        self.env.im.overload.turn_ends(self.number);
        self.commands = commands;
        any
    }

    fn turn(&mut self, now: u64, commands: &mut Vec<ShardMail>) {
        let started = Instant::now();
        let mut batch = self.new_batch();
        let mut count = 0;
        let mut retained = 0;
        for command in commands.drain(..) {
            match command {
                ShardMail::Mqtt(command) => {
                    let retains = matches!(&command, Command::Publish(publish) if publish.retain);
                    retained += u64::from(retains);
                    self.view.apply(now, command, &mut batch);
                }
                ShardMail::Im(command) => self.apply_im(now, command, &mut batch),
                ShardMail::Enter { open, token_since_ms } => {
                    let key = &open.key;
                    let user = User { tenant: key.tenant.clone(), id: key.user.clone() };
                    // Who is refused because nothing can be written has not tried, for the policy.
                    let judged = match self.view.is_writing() {
                        true => self.im.admit(now, &user, &key.client, token_since_ms),
                        false => Ok(()),
                    };
                    match judged {
                        Ok(()) => self.view.apply(now, Command::Open(open), &mut batch),
                        Err(code) => self.view.turn_away(&open, code, &mut batch),
                    }
                }
            }
            count += 1;
            if batch.bytes() >= BATCH_BYTES {
                self.commit(batch, count, started);
                batch = self.new_batch();
                count = 0;
            }
        }
        self.view.on_tick(now, &mut batch);
        if self.view.is_writing() {
            let overload = &self.env.im.overload;
            if self.im.wants_to_tell(now) && overload.sheds(Shed::Presence) {
                self.im.shed(now);
            }
            if self.im.wants_to_tell_receipts(now) && overload.sheds(Shed::Receipts) {
                self.im.shed_receipts(now);
            }
            self.im.on_tick(now, &mut batch, &mut self.im_pending);
        }
        if batch.is_empty() && self.im_pending.is_empty() {
            self.room = batch.into_room();
        } else {
            self.commit(batch, count, started);
        }
        self.effects.retained_settled(retained);
        self.recover_if_due(now);
    }

    fn new_batch(&mut self) -> PendingBatch {
        PendingBatch::in_room_of(std::mem::take(&mut self.room))
    }

    /// A command of the IM profile, in the same batch as all others. A QoS 2 publication that was
    /// applied before is told so by its marker (ruling 4).
    fn apply_im(&mut self, now: u64, command: hoopoe_im::Command, batch: &mut PendingBatch) {
        if !self.view.is_writing() {
            self.im.refuse(now, command, &mut self.im_pending);
            return;
        }
        let marker = command.marker();
        let is_new = marker.is_none_or(|marker| !self.view.has_marker(marker));
        let applied = self.im.apply(now, command, is_new, batch, &mut self.im_pending);
        if let Some(marker) = marker.filter(|_| applied && is_new) {
            self.view.note_marker(marker, batch);
        }
    }

    fn commit(&mut self, batch: PendingBatch, commands: u64, started: Instant) {
        match self.view.commit(batch) {
            Ok(mut receipt) => {
                self.room = receipt.take_room();
                self.counters.commits.add(1);
                self.counters.commit_micros.record(started.elapsed().as_micros() as u64);
                self.counters.batch_commands.record(commands);
                self.im.committed();
                let im = self.im_pending.release(&receipt);
                self.effects.release(receipt.into_effects());
                let step = &self.im;
                self.im_effects.release(im, |conv| step.is_big(conv));
            }
            Err(error) => {
                self.counters.failed_commits.add(1);
                let Failed { refused, lost, in_doubt } = self.im_pending.fail(&error);
                for reply in error.lost {
                    self.effects.lose(reply);
                }
                self.im.forget();
                self.im.doubt(in_doubt);
                self.im_effects.lose(lost);
                self.im_effects.release(refused, |_| false);
                self.effects.release(error.effects);
            }
        }
    }

    /// What the profile's step reads again once the store is back; tried until it succeeds, as
    /// other shards wait for what they are owed.
    fn read_im_again(&mut self, now: u64) {
        match self.im.recovered() {
            Ok(effects) => {
                self.unread_im = false;
                let step = &self.im;
                self.im_effects.release(effects, |conv| step.is_big(conv));
            }
            Err(error) => {
                self.put_off_recovery(now, &error, "what is owed to other shards waits");
            }
        }
    }

    /// Tries again after a pause. The operator is told each reason once, not at every try.
    fn put_off_recovery(&mut self, now: u64, error: &StoreError, state: &str) {
        let fault = error.to_string();
        if fault != self.recover_fault {
            tracing::error!(shard = self.number, %error, "{state}");
            self.recover_fault = fault;
        }
        self.recover_at_ms = now + RECOVER_PAUSE_MS;
    }

    /// After a failed commit: drop what was never written, read again what is there (ruling 12).
    fn recover_if_due(&mut self, now: u64) {
        if self.view.is_stale() && self.recover_at_ms <= now {
            self.counters.writable.store(false, Ordering::Release);
            match self.view.recover(now) {
                Ok(restored) => {
                    self.recover_at_ms = 0;
                    self.recover_fault.clear();
                    self.counters.reopened.add(1);
                    tracing::info!(shard = self.number, "state read again from the store");
                    self.effects.restored(restored);
                    self.unread_im = true;
                }
                Err(error) => {
                    self.put_off_recovery(now, &error, "the store cannot be brought back yet");
                }
            }
        }
        if self.unread_im && !self.view.is_stale() && self.recover_at_ms <= now {
            self.read_im_again(now);
        }
        self.counters.writable.store(self.view.is_writing(), Ordering::Release);
    }

    /// Writes what is lazy, so that a clean stop loses no progress.
    pub fn finish(&mut self, now_ms: u64) {
        let mut batch = PendingBatch::new();
        self.view.on_tick(now_ms + LAZY_MS, &mut batch);
        if self.view.is_writing() {
            self.im.finish(now_ms, &mut batch, &mut self.im_pending);
        }
        if !batch.is_empty() || !self.im_pending.is_empty() {
            self.commit(batch, 0, Instant::now());
        }
    }
}
