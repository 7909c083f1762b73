//! What every simulated world stands on: a broker, its disk, made-up time and the seed's choices,
//! and what goes wrong with them.
//!
//! Deliberately not here: who takes part and whose turn it is.

use super::broker::{Broker, Disk, Shape};
use crate::crash::random::Random;

/// When every run begins, in ms since the epoch.
pub const START_MS: u64 = 1_700_000_000_000;

/// Who is told the course of a run, line by line.
pub type Listener = fn(&str);

/// How often what is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// Of so many, one step is a crash; 0: none.
    pub crash: usize,
    /// A clean stop and start.
    pub restart: usize,
    /// A write that fails.
    pub disk: usize,
    /// A read that fails.
    pub read: usize,
    /// Give back the space of dead rows.
    pub reclaim: usize,
    /// Weights of shards, workers and links among all that can go on.
    pub shard_weight: usize,
    /// Of workers.
    pub worker_weight: usize,
    /// Of links.
    pub link_weight: usize,
}

/// What has gone wrong so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Mishaps {
    /// Crashes.
    pub crashes: u64,
    /// Clean stops.
    pub restarts: u64,
    /// Writes that failed.
    pub disk_faults: u64,
    /// Reads that failed, unless the broker ended before.
    pub read_faults: u64,
}

impl Mishaps {
    /// Whether the disk has failed in one way or the other.
    pub fn disk_failed(&self) -> bool {
        self.disk_faults + self.read_faults > 0
    }
}

impl std::ops::AddAssign for Mishaps {
    fn add_assign(&mut self, other: Mishaps) {
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.disk_faults += other.disk_faults;
        self.read_faults += other.read_faults;
    }
}

/// What ends a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// The process is gone.
    Crash,
    /// It is told to stop.
    Stop,
}

/// A broker and what it stands on.
pub struct Stage {
    /// Where choices come from.
    pub random: Random,
    /// Milliseconds since the epoch.
    pub now_ms: u64,
    /// Steps so far.
    pub steps: u64,
    /// Is told what happens.
    pub listener: Option<Listener>,
    /// How often what happens.
    pub temper: Temper,
    /// The disk.
    pub disk: Disk,
    /// What has gone wrong.
    pub mishaps: Mishaps,
    shape: Shape,
    broker: Option<Broker>,
}

impl Stage {
    /// A broker that has just started.
    pub fn new(random: Random, shape: Shape, temper: Temper, listener: Option<Listener>) -> Stage {
        let disk = Disk::new(shape.shards);
        let broker = Some(Broker::start(&shape, &disk, START_MS));
        let (steps, mishaps) = (0, Mishaps::default());
        Stage { random, now_ms: START_MS, steps, listener, temper, disk, mishaps, shape, broker }
    }

    /// The broker.
    pub fn broker(&mut self) -> &mut Broker {
        self.broker.as_mut().expect("a broker runs whenever it is asked")
    }

    /// The broker, to be looked at.
    pub fn running(&self) -> &Broker {
        self.broker.as_ref().expect("a broker runs whenever it is looked at")
    }

    /// Tells what happens, when it is to be told.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(listener) = self.listener {
            let at = self.now_ms - START_MS;
            listener(&format!("{:6} {at:7} ms  {}", self.steps, what()));
        }
    }

    /// Lets time pass: mostly a little.
    pub fn pass_time(&mut self) {
        let long = self.random.chance(10);
        let (low, high) = if long { (100, 1500) } else { (1, 20) };
        self.now_ms += self.random.between(low, high) as u64;
    }

    /// How much of `most` bytes is carried at once.
    pub fn portion(&mut self, most: usize) -> usize {
        let part = self.random.chance(30);
        if part && most > 0 { self.random.between(1, most) } else { most }
    }

    /// A shard's turn.
    pub fn step_shard(&mut self, shard: usize) {
        let now_ms = self.now_ms;
        self.broker().step_shard(shard, now_ms);
    }

    /// A reader's turn.
    pub fn step_reader(&mut self) {
        let now_ms = self.now_ms;
        self.broker().step_reader(now_ms);
    }

    /// What the seed has for this step: a write or a read that will fail, space given back, a blow.
    ///
    /// # Errors
    /// When space cannot be given back.
    pub fn strike(&mut self) -> Result<Option<Blow>, String> {
        let Temper { crash, restart, disk, read, reclaim, .. } = self.temper;
        let mut strikes = |once_in: usize| once_in > 0 && self.random.below(once_in) == 0;
        let (crash, restart) = (strikes(crash), strikes(restart));
        let (disk, reclaim, read) = (strikes(disk), strikes(reclaim), strikes(read));
        if disk {
            self.fail_a_write();
        }
        if read {
            self.fail_a_read();
        }
        if reclaim {
            self.disk.kv.fail_read(0);
            self.broker().node.store.reclaim().map_err(|error| error.to_string())?;
        }
        let blow = if crash { Some(Blow::Crash) } else { restart.then_some(Blow::Stop) };
        Ok(blow)
    }

    fn fail_a_write(&mut self) {
        use hoopoe_store::memory::FaultKind;
        let kinds = [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten];
        let kind = *self.random.pick(&kinds);
        let nth = self.random.between(1, 5) as u64;
        self.disk.kv.fail_write(nth, kind);
        self.tell(|| format!("write {nth} will fail: {kind:?}"));
        self.mishaps.disk_faults += 1;
    }

    fn fail_a_read(&mut self) {
        let nth = self.random.between(1, 30) as u64;
        self.disk.kv.fail_read(nth);
        self.tell(|| format!("read {nth} will fail"));
        self.mishaps.read_faults += 1;
    }

    /// The process is gone, and with it what was not synced; another one starts.
    pub fn crash(&mut self) {
        self.tell(|| "crash".to_owned());
        self.mishaps.crashes += 1;
        self.broker = None;
        let keep = if self.random.chance(50) { 0 } else { self.random.below(6) };
        self.disk = self.disk.crashed(keep, self.shape.shards);
        self.start_broker();
    }

    fn start_broker(&mut self) {
        self.now_ms += self.random.between(1, 300) as u64;
        self.broker = Some(Broker::start(&self.shape, &self.disk, self.now_ms));
    }

    /// The workers have ended: the shards do, and another process starts.
    fn replace_broker(&mut self) {
        self.disk.kv.fail_read(0);
        let now_ms = self.now_ms;
        if let Some(broker) = self.broker.take() {
            broker.finish(now_ms);
        }
        self.disk = self.disk.closed(self.shape.shards);
        self.start_broker();
    }
}

/// A world whose broker stops.
pub trait Played {
    /// What it stands on.
    fn stage(&mut self) -> &mut Stage;

    /// A worker's turn, judged as ever.
    ///
    /// # Errors
    /// When something was not as it must be.
    fn step_worker(&mut self, worker: usize) -> Result<(), String>;

    /// The broker's workers have ended, nobody has replaced it yet.
    fn ended(&mut self) {}
}

/// A clean stop and a new start.
///
/// # Errors
/// When the workers do not end, or something was not as it must be.
pub fn stop_and_start(world: &mut impl Played) -> Result<(), String> {
    world.stage().tell(|| "clean stop".to_owned());
    world.stage().mishaps.restarts += 1;
    world.stage().broker().tell_to_stop(false);
    for round in 0..100 {
        for _ in 0..20 {
            for worker in 0..world.stage().broker().workers() {
                world.step_worker(worker)?;
            }
            let stage = world.stage();
            for shard in 0..stage.broker().shards() {
                stage.step_shard(shard);
            }
            while stage.broker().reader_is_due() {
                stage.step_reader();
            }
        }
        if world.stage().broker().workers_ended() {
            break;
        }
        world.stage().now_ms += 200;
        if round == 80 {
            return Err("the workers do not end".to_owned());
        }
    }
    world.ended();
    world.stage().replace_broker();
    Ok(())
}
