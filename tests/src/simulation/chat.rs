//! A simulated broker whose clients are users who chat. Every packet is judged the moment the
//! broker has written it, and three times in a run everything comes to rest and is held against the
//! model: who may see what, in which order, what was recalled, who has how much unread.

use std::sync::Arc;

use super::Failure;
use super::broker::Shape;
use super::guard::{guarded, take_panic};
use super::link::Link;
use super::script;
use super::stage::{Blow, Listener, Mishaps, Played, START_MS, Stage, Temper, stop_and_start};
use crate::chat::device::Phase;
use crate::chat::event::{Deed, Event};
use crate::chat::script as talk;
use crate::chat::{Cast, Device, Fault, Judge};
use crate::crash::random::Random;
use crate::wire::{self, frame_length};
use crate::{Properties, Version};

/// Steps between two comparisons.
const STEPS: usize = 260;
/// How often a run comes to rest.
const RESTS: usize = 3;
/// Steps that a run may take to come to rest.
const MOST_SETTLING_STEPS: usize = 40_000;
/// How often questions are asked that were refused, when writes fail.
const MOST_ROUNDS: usize = 6;
/// How long a device that comes to rest waits for its CONNACK, in ms.
const PATIENCE_MS: u64 = 30_000;
/// Events shown of the trail of a fault.
const TRAIL_LINES: usize = 60;

/// What a run was like.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Steps.
    pub steps: u64,
    /// Deeds of devices that were answered.
    pub answered: u64,
    /// Of those, refused.
    pub refused: u64,
    /// Entries that the broker has written.
    pub delivered: u64,
    /// Connections that took the session of another one.
    pub take_overs: u64,
    /// What went wrong.
    pub mishaps: Mishaps,
    /// A hash of everything the broker has sent, and when.
    pub digest: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.steps += other.steps;
        self.answered += other.answered;
        self.refused += other.refused;
        self.delivered += other.delivered;
        self.take_overs += other.take_overs;
        self.mishaps += other.mishaps;
        self.digest ^= other.digest;
    }
}

/// One run; `listener` is told its course.
///
/// # Errors
/// When something was not as it must be.
pub fn run(seed: u64, listener: Option<Listener>) -> Result<Tally, Failure> {
    let mut random = Random::of_part(seed, 79);
    let keep_entries = if random.chance(30) { random.between(4, 20) as u64 } else { 0 };
    let shape = Shape { im: true, keep_entries, ..script::shape(&mut random) };
    let temper = script::temper(seed, &mut random);
    let users = random.between(3, 4);
    let cast = Arc::new(Cast::of_seed(seed, users));
    let mut world = World::new(Stage::new(random, shape, temper, listener), cast);
    world.judge.keep = (keep_entries > 0).then_some(keep_entries);
    let result = guarded(|| world.play());
    let (step, disk_failed) = (world.stage.steps, world.judge.disk_failed);
    result.map(|()| world.tally).map_err(|what| Failure { seed, step, disk_failed, what })
}

/// A connection.
struct Line {
    link: Link,
    device: usize,
    worker: usize,
    /// The beginning of a packet whose rest the broker has not written yet.
    partial: Vec<u8>,
    /// The beginning of one whose rest has not arrived at the device.
    inbox: Vec<u8>,
    /// The broker had to wait for room: what it writes may have been made before.
    blocked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Worker(usize),
    Shard(usize),
    Reader,
    Up(usize),
    Down(usize),
    Device(usize),
    Time,
}

struct World {
    stage: Stage,
    judge: Judge,
    devices: Vec<Device>,
    lines: Vec<Line>,
    tally: Tally,
    settling: bool,
    /// When each device has last sent a CONNECT.
    greeted_ms: Vec<u64>,
}

impl Played for World {
    fn stage(&mut self) -> &mut Stage {
        &mut self.stage
    }

    fn step_worker(&mut self, worker: usize) -> Result<(), String> {
        self.worker_steps(worker)
    }
}

impl World {
    fn new(stage: Stage, cast: Arc<Cast>) -> World {
        let roles = cast.devices.iter().cloned().enumerate();
        let mut judge = Judge::new(cast.clone(), stage.listener.is_some());
        judge.began_ms = START_MS;
        World {
            stage,
            judge,
            devices: roles.map(|(number, role)| Device::new(number, role)).collect(),
            lines: Vec::new(),
            tally: Tally { digest: 0xcbf2_9ce4_8422_2325, ..Tally::default() },
            settling: false,
            greeted_ms: vec![0; cast.devices.len()],
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        self.stage.tell(what);
    }

    fn play(&mut self) -> Result<(), String> {
        self.settle()?;
        for deed in talk::creations(&self.judge.cast.clone()) {
            self.ask(deed, 0);
            self.settle()?;
        }
        for _ in 0..RESTS {
            self.settling = false;
            for _ in 0..STEPS {
                self.step()?;
            }
            self.compare()?;
        }
        let (answered, refused) = self.judge.answered();
        (self.tally.answered, self.tally.refused) = (answered as u64, refused as u64);
        self.tally.delivered = self.judge.deliveries() as u64;
        (self.tally.steps, self.tally.mishaps) = (self.stage.steps, self.stage.mishaps);
        Ok(())
    }

    /// Everything comes to rest; all are asked what they can see.
    fn compare(&mut self) -> Result<(), String> {
        self.settle()?;
        let since = self.judge.order();
        let first = self.judge.deeds();
        let mut questions = talk::lists(&self.judge.cast.clone());
        for round in 0..MOST_ROUNDS {
            for deed in std::mem::take(&mut questions) {
                while !self.devices[deed.device].has_room() {
                    self.settle()?;
                }
                self.ask(deed, 0);
            }
            self.settle()?;
            questions = self.judge.unanswered(first);
            let left = self.judge.unfinished(since).into_iter();
            questions.extend(left.map(|(deed, next)| talk::continuation(deed, next)));
            if round == 0 {
                questions.extend(talk::pulls(&self.judge));
            }
            if questions.is_empty() {
                break;
            }
        }
        let faults = self.judge.verdict(since);
        faults.first().map_or(Ok(()), |fault| Err(self.words(fault)))
    }

    fn words(&self, fault: &Fault) -> String {
        self.tell(|| self.judge.report(fault, TRAIL_LINES));
        fault.what.clone()
    }

    fn step(&mut self) -> Result<(), String> {
        self.stage.steps += 1;
        if !self.settling {
            self.mischief()?;
        }
        let turns = self.turns();
        let all: usize = turns.iter().map(|(_, weight)| weight).sum();
        let mut at = self.stage.random.below(all.max(1));
        let mut chosen = Turn::Time;
        for (turn, weight) in turns {
            if at < weight {
                chosen = turn;
                break;
            }
            at -= weight;
        }
        self.take(chosen)
    }

    fn turns(&self) -> Vec<(Turn, usize)> {
        let mut turns = Vec::new();
        let (broker, now_ms) = (self.stage.running(), self.stage.now_ms);
        let Temper { shard_weight, worker_weight, link_weight, .. } = self.stage.temper;
        for worker in 0..broker.workers() {
            let ready = self.lines.iter().any(|line| line.worker == worker && line.link.is_ready());
            if ready || broker.worker_is_due(worker, now_ms) {
                turns.push((Turn::Worker(worker), worker_weight));
            }
        }
        for shard in 0..broker.shards() {
            if broker.shard_is_due(shard, now_ms) {
                turns.push((Turn::Shard(shard), shard_weight));
            }
        }
        if broker.reader_is_due() {
            turns.push((Turn::Reader, 4));
        }
        for (number, line) in self.lines.iter().enumerate() {
            if line.link.upward() > 0 {
                turns.push((Turn::Up(number), link_weight));
            }
            let here = self.devices[line.device].link == Some(number as u32);
            if line.link.downward() > 0 || (here && line.link.is_over()) {
                turns.push((Turn::Down(number), link_weight));
            }
        }
        for (number, device) in self.devices.iter().enumerate() {
            if !self.settling || self.has_more_to_do(device) {
                turns.push((Turn::Device(number), 2));
            }
        }
        if !self.settling {
            turns.push((Turn::Time, 2));
        }
        turns
    }

    /// Whether a device that is to come to rest has a turn. The broker may let a newcomer wait.
    fn has_more_to_do(&self, device: &Device) -> bool {
        match device.phase {
            Phase::Away => true,
            Phase::Greeting => self.stage.now_ms >= self.greeted_ms[device.number] + PATIENCE_MS,
            Phase::In => device.owed() > 0,
        }
    }

    fn take(&mut self, turn: Turn) -> Result<(), String> {
        self.judge.now_ms = self.stage.now_ms - START_MS;
        match turn {
            Turn::Worker(worker) => return self.worker_steps(worker),
            Turn::Shard(shard) => self.stage.step_shard(shard),
            Turn::Reader => self.stage.step_reader(),
            Turn::Up(line) => {
                let count = self.stage.portion(self.lines[line].link.upward());
                self.lines[line].link.carry_up(count);
            }
            Turn::Down(line) => return self.carry_down(line),
            Turn::Device(device) => self.act(device),
            Turn::Time => self.stage.pass_time(),
        }
        self.first_fault()
    }

    fn first_fault(&self) -> Result<(), String> {
        self.judge.faults.first().map_or(Ok(()), |fault| Err(self.words(fault)))
    }

    fn worker_steps(&mut self, worker: usize) -> Result<(), String> {
        let (mut ready, now_ms) = (Vec::new(), self.stage.now_ms);
        // Time passes while the broker stops, without a step of its own.
        self.judge.now_ms = now_ms - START_MS;
        for line in self.lines.iter_mut().filter(|line| line.worker == worker) {
            line.blocked = line.link.is_blocked();
            ready.extend(line.link.take_ready());
        }
        let since = self.judge.order();
        self.tell(|| format!("worker {worker}"));
        self.stage.broker().step_worker(worker, now_ms, ready);
        if let Some(bug) = take_panic() {
            return Err(format!("the broker met a bug: {bug}"));
        }
        for number in 0..self.lines.len() {
            if self.lines[number].worker == worker {
                self.look_at(number, since);
            }
        }
        self.first_fault()
    }

    /// What the broker has just written is judged, whether it will arrive or not.
    fn look_at(&mut self, number: usize, since: usize) {
        let line = &mut self.lines[number];
        let news = line.link.news();
        for byte in news.iter().chain(&(number as u32).to_be_bytes()) {
            self.tally.digest =
                (self.tally.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        line.partial.extend(news);
        let device = &mut self.devices[line.device];
        let here = device.link == Some(number as u32);
        self.judge.written_since = (!line.blocked).then_some(since);
        while let Some(length) = frame_length(&line.partial) {
            let frame: Vec<u8> = line.partial.drain(..length).collect();
            let (packet, noted) = (wire::decode(device.role.version, &frame), self.judge.order());
            if !here {
                device.misses(&packet, &mut self.judge);
            } else {
                device.see(&packet, &mut self.judge);
                if let Some(listener) = self.stage.listener {
                    for (at, event) in &self.judge.trail[noted..] {
                        listener(&format!("{:6} {at:7} ms  {event}", self.stage.steps));
                    }
                }
            }
        }
        self.judge.written_since = None;
    }

    fn carry_down(&mut self, number: usize) -> Result<(), String> {
        let line = &mut self.lines[number];
        let count = self.stage.portion(line.link.downward());
        let bytes = line.link.carry_down(count);
        let over = line.link.is_over();
        if self.devices[line.device].link != Some(number as u32) {
            return Ok(());
        }
        line.inbox.extend(bytes);
        let mut packets = Vec::new();
        let (at, version) = (line.device, self.devices[line.device].role.version);
        while let Some(length) = frame_length(&line.inbox) {
            let frame: Vec<u8> = line.inbox.drain(..length).collect();
            packets.push(wire::decode(version, &frame));
        }
        for packet in packets {
            let answers = self.devices[at].take(packet, &mut self.judge);
            answers.iter().for_each(|answer| self.send(at, answer));
        }
        if over {
            self.tell(|| format!("d{at} #{number} is over"));
            self.lines[number].link.cut(true);
            self.devices[at].lost();
        }
        self.first_fault()
    }

    fn send(&mut self, device: usize, packet: &[u8]) {
        if let Some(number) = self.devices[device].link {
            self.tell(|| format!("d{device} > #{number} {}", super::client::describe(packet)));
            self.lines[number as usize].link.send(packet);
        }
    }

    fn ask(&mut self, deed: Deed, filler: usize) {
        let number = self.judge.deeds();
        self.tell(|| format!("deed {number}: {deed:?}"));
        let packet = self.devices[deed.device].ask(deed, filler, &mut self.judge);
        self.send(deed.device, &packet);
    }

    /// A device's turn.
    fn act(&mut self, device: usize) {
        let phase = self.devices[device].phase;
        match (phase, self.stage.random.below(1000)) {
            (Phase::Away, dice) if self.settling || dice < 400 => self.connect(device),
            (Phase::Away, _) => {}
            (Phase::Greeting, dice) => {
                // Who is not answered comes again.
                if self.settling {
                    self.cut(device, true);
                } else if dice < 30 {
                    let noticed = self.stage.random.chance(70);
                    self.cut(device, noticed);
                }
            }
            (Phase::In, _) if self.settling => self.answer(device, usize::MAX),
            (Phase::In, 0..8) => self.cut(device, true),
            (Phase::In, 8..12) => self.cut(device, false),
            (Phase::In, 12..18) => {
                self.tally.take_overs += 1;
                self.connect(device);
            }
            (Phase::In, 18..24) => self.leave(device),
            (Phase::In, _) => {
                if self.stage.random.chance(self.devices[device].role.diligence) {
                    let owed = self.devices[device].owed();
                    let count = self.stage.random.between(0, owed);
                    self.answer(device, count);
                }
                if self.devices[device].has_room()
                    && self.stage.random.chance(50)
                    && let Some((deed, filler)) =
                        talk::next(&mut self.stage.random, &self.judge, device)
                {
                    self.ask(deed, filler);
                }
            }
        }
    }

    fn connect(&mut self, device: usize) {
        let capacity = *self.stage.random.pick(&[300, 3_000, 64_000]);
        let anew = !self.settling && self.stage.random.chance(6);
        let (link, end) = Link::new(capacity);
        let worker = self.stage.broker().accept(end);
        let (partial, inbox) = (Vec::new(), Vec::new());
        self.lines.push(Line { link, device, worker, partial, inbox, blocked: false });
        let number = self.lines.len() as u32 - 1;
        self.greeted_ms[device] = self.stage.now_ms;
        let packet = self.devices[device].connect(number, anew, &mut self.judge);
        self.send(device, &packet);
    }

    fn answer(&mut self, device: usize, count: usize) {
        for _ in 0..count {
            let Some(packet) = self.devices[device].answer(&mut self.judge) else { return };
            self.send(device, &packet);
        }
    }

    fn cut(&mut self, device: usize, noticed: bool) {
        if let Some(number) = self.devices[device].link {
            self.tell(|| format!("d{device} #{number} breaks, noticed: {noticed}"));
            self.lines[number as usize].link.cut(noticed);
            self.devices[device].lost();
        }
    }

    fn leave(&mut self, device: usize) {
        let version: Version = self.devices[device].role.version;
        let packet = wire::disconnect(version, 0, &Properties::default());
        self.send(device, &packet);
        if let Some(number) = self.devices[device].link {
            self.lines[number as usize].link.close();
            self.devices[device].lost();
        }
    }

    fn mischief(&mut self) -> Result<(), String> {
        let blow = self.stage.strike()?;
        self.judge.disk_failed |= self.stage.mishaps.disk_failed();
        match blow {
            Some(Blow::Crash) => {
                self.judge.note(Event::Killed);
                self.stage.crash();
                Ok(())
            }
            Some(Blow::Stop) => stop_and_start(self),
            None => Ok(()),
        }
    }

    /// Lets everything come to its end: all devices connected, every answer given.
    fn settle(&mut self) -> Result<(), String> {
        self.settling = true;
        self.stage.disk.kv.set_full(false);
        self.stage.disk.kv.fail_read(0);
        let mut still = 0;
        for _ in 0..MOST_SETTLING_STEPS {
            if self.turns().is_empty() {
                still += usize::from(self.devices.iter().all(Device::is_settled));
                if still > 12 {
                    return Ok(());
                }
                self.stage.now_ms += 500;
                continue;
            }
            self.step()?;
            // Whoever waits for a timer waits in vain if time stands still.
            if self.stage.random.chance(2) {
                self.stage.now_ms += 50;
            }
        }
        let waiting: Vec<String> = self.devices.iter().map(Device::waits_for).collect();
        Err(format!("no rest after {MOST_SETTLING_STEPS} steps: {waiting:?}"))
    }
}
