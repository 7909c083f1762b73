//! A simulated broker whose clients are users who chat. Every packet is judged the moment the
//! broker has written it, and three times in a run everything comes to rest and is held against the
//! model: who may see what, in which order, what was recalled, who has how much unread.

use std::sync::Arc;

use super::Failure;
use super::broker::{Broker, Disk, Shape};
use super::link::Link;
use super::script;
use super::world::{Listener, Temper, guarded, take_panic};
use crate::chat::device::Phase;
use crate::chat::event::{Deed, Event};
use crate::chat::script as talk;
use crate::chat::{Cast, Device, Fault, Judge};
use crate::crash::random::Random;
use crate::wire::{self, frame_length};
use crate::{Properties, Version};

/// When every run begins, in ms since the epoch.
const START_MS: u64 = 1_700_000_000_000;
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
    /// Crashes.
    pub crashes: u64,
    /// Clean stops.
    pub restarts: u64,
    /// Writes that failed.
    pub disk_faults: u64,
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
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.disk_faults += other.disk_faults;
        self.digest ^= other.digest;
    }
}

/// One run; `listener` is told its course.
///
/// # Errors
/// When something was not as it must be.
pub fn run(seed: u64, listener: Option<Listener>) -> Result<Tally, Failure> {
    let mut random = Random::of_part(seed, 79);
    let shape = Shape { im: true, ..script::shape(&mut random) };
    let temper = script::temper(&mut random);
    let users = random.between(3, 4);
    let cast = Arc::new(Cast::of_seed(seed, users));
    let mut world = World::new(random, shape, temper, cast, listener);
    let result = guarded(|| world.play());
    let (step, disk_failed) = (world.tally.steps, world.judge.disk_failed);
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
    random: Random,
    now_ms: u64,
    judge: Judge,
    devices: Vec<Device>,
    lines: Vec<Line>,
    tally: Tally,
    settling: bool,
    /// When each device has last sent a CONNECT.
    greeted_ms: Vec<u64>,
    listener: Option<Listener>,
    shape: Shape,
    temper: Temper,
    disk: Disk,
    broker: Option<Broker>,
}

impl World {
    fn new(
        random: Random,
        shape: Shape,
        temper: Temper,
        cast: Arc<Cast>,
        listener: Option<Listener>,
    ) -> World {
        let disk = Disk::new(shape.shards);
        let broker = Broker::start(&shape, &disk, START_MS);
        let roles = cast.devices.iter().cloned().enumerate();
        World {
            random,
            now_ms: START_MS,
            judge: Judge::new(cast.clone(), listener.is_some()),
            devices: roles.map(|(number, role)| Device::new(number, role)).collect(),
            lines: Vec::new(),
            tally: Tally { digest: 0xcbf2_9ce4_8422_2325, ..Tally::default() },
            settling: false,
            greeted_ms: vec![0; cast.devices.len()],
            listener,
            shape,
            temper,
            disk,
            broker: Some(broker),
        }
    }

    fn broker(&mut self) -> &mut Broker {
        self.broker.as_mut().expect("a broker runs whenever it is asked")
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(listener) = self.listener {
            let at = self.now_ms - START_MS;
            listener(&format!("{:6} {at:7} ms  {}", self.tally.steps, what()));
        }
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
        Ok(())
    }

    /// Everything comes to rest; all are asked what they can see.
    fn compare(&mut self) -> Result<(), String> {
        self.settle()?;
        if self.judge.disk_failed {
            // What was written with an error nobody has announced: devices hear of it when
            // something follows, or when they come again.
            (0..self.devices.len()).for_each(|device| self.cut(device, true));
            self.settle()?;
        }
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
        self.tally.steps += 1;
        if !self.settling {
            self.mischief()?;
        }
        let turns = self.turns();
        let all: usize = turns.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(all.max(1));
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
        let Some(broker) = &self.broker else { return turns };
        let Temper { shard_weight, worker_weight, link_weight, .. } = self.temper;
        for worker in 0..broker.workers() {
            let ready = self.lines.iter().any(|line| line.worker == worker && line.link.is_ready());
            if ready || broker.worker_is_due(worker, self.now_ms) {
                turns.push((Turn::Worker(worker), worker_weight));
            }
        }
        for shard in 0..broker.shards() {
            if broker.shard_is_due(shard, self.now_ms) {
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
            Phase::Greeting => self.now_ms >= self.greeted_ms[device.number] + PATIENCE_MS,
            Phase::In => device.owed() > 0,
        }
    }

    fn take(&mut self, turn: Turn) -> Result<(), String> {
        let now_ms = self.now_ms;
        self.judge.now_ms = now_ms - START_MS;
        match turn {
            Turn::Worker(worker) => return self.step_worker(worker),
            Turn::Shard(shard) => self.broker().step_shard(shard, now_ms),
            Turn::Reader => self.broker().step_reader(now_ms),
            Turn::Up(line) => {
                let most = self.lines[line].link.upward();
                let part = self.random.chance(30);
                let count = if part { self.random.between(1, most) } else { most };
                self.lines[line].link.carry_up(count);
            }
            Turn::Down(line) => return self.carry_down(line),
            Turn::Device(device) => self.act(device),
            Turn::Time => {
                let long = self.random.chance(10);
                let (low, high) = if long { (100, 1500) } else { (1, 20) };
                self.now_ms += self.random.between(low, high) as u64;
            }
        }
        self.first_fault()
    }

    fn first_fault(&self) -> Result<(), String> {
        self.judge.faults.first().map_or(Ok(()), |fault| Err(self.words(fault)))
    }

    fn step_worker(&mut self, worker: usize) -> Result<(), String> {
        let (mut ready, now_ms) = (Vec::new(), self.now_ms);
        for line in self.lines.iter_mut().filter(|line| line.worker == worker) {
            line.blocked = line.link.is_blocked();
            ready.extend(line.link.take_ready());
        }
        let since = self.judge.order();
        self.tell(|| format!("worker {worker}"));
        let Some(broker) = &mut self.broker else { return Ok(()) };
        broker.step_worker(worker, now_ms, ready);
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
            if here {
                let noted = self.judge.order();
                device.see(&wire::decode(device.role.version, &frame), &mut self.judge);
                if let Some(listener) = self.listener {
                    for (at, event) in &self.judge.trail[noted..] {
                        listener(&format!("{:6} {at:7} ms  {event}", self.tally.steps));
                    }
                }
            }
        }
        self.judge.written_since = None;
    }

    fn carry_down(&mut self, number: usize) -> Result<(), String> {
        let part = self.random.chance(30);
        let line = &mut self.lines[number];
        let most = line.link.downward();
        let count = if part && most > 0 { self.random.between(1, most) } else { most };
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
        match (phase, self.random.below(1000)) {
            (Phase::Away, dice) if self.settling || dice < 400 => self.connect(device),
            (Phase::Away, _) => {}
            (Phase::Greeting, dice) => {
                // Who is not answered comes again.
                if self.settling {
                    self.cut(device, true);
                } else if dice < 30 {
                    let noticed = self.random.chance(70);
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
                if self.random.chance(self.devices[device].role.diligence) {
                    let owed = self.devices[device].owed();
                    let count = self.random.between(0, owed);
                    self.answer(device, count);
                }
                if self.devices[device].has_room()
                    && self.random.chance(50)
                    && let Some((deed, filler)) = talk::next(&mut self.random, &self.judge, device)
                {
                    self.ask(deed, filler);
                }
            }
        }
    }

    fn connect(&mut self, device: usize) {
        let capacity = *self.random.pick(&[300, 3_000, 64_000]);
        let anew = !self.settling && self.random.chance(6);
        let (link, end) = Link::new(capacity);
        let worker = self.broker().accept(end);
        let (partial, inbox) = (Vec::new(), Vec::new());
        self.lines.push(Line { link, device, worker, partial, inbox, blocked: false });
        let number = self.lines.len() as u32 - 1;
        self.greeted_ms[device] = self.now_ms;
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
        let Temper { crash, restart, disk, reclaim, .. } = self.temper;
        let mut strikes = |once_in: usize| once_in > 0 && self.random.below(once_in) == 0;
        let (crash, restart) = (strikes(crash), strikes(restart));
        let (disk, reclaim) = (strikes(disk), strikes(reclaim));
        if disk {
            self.fail_a_write();
        }
        if reclaim {
            self.broker().node.store.reclaim().map_err(|error| error.to_string())?;
        }
        if crash {
            self.crash();
        } else if restart {
            self.restart()?;
        }
        Ok(())
    }

    fn fail_a_write(&mut self) {
        use hoopoe_store::memory::FaultKind;
        let kinds = [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten];
        let kind = *self.random.pick(&kinds);
        let nth = self.random.between(1, 5) as u64;
        self.disk.kv.fail_write(nth, kind);
        self.tell(|| format!("write {nth} will fail: {kind:?}"));
        self.judge.disk_failed = true;
        self.tally.disk_faults += 1;
    }

    /// The process is gone, and with it what was not synced.
    fn crash(&mut self) {
        self.tell(|| "crash".to_owned());
        self.tally.crashes += 1;
        self.judge.note(Event::Killed);
        self.broker = None;
        let keep = if self.random.chance(50) { 0 } else { self.random.below(6) };
        self.disk = self.disk.crashed(keep, self.shape.shards);
        self.start_broker();
    }

    fn start_broker(&mut self) {
        self.now_ms += self.random.between(1, 300) as u64;
        self.broker = Some(Broker::start(&self.shape, &self.disk, self.now_ms));
    }

    /// A clean stop and a new start.
    fn restart(&mut self) -> Result<(), String> {
        self.tell(|| "clean stop".to_owned());
        self.tally.restarts += 1;
        self.broker().tell_to_stop(false);
        for round in 0..100 {
            for _ in 0..20 {
                for worker in 0..self.broker().workers() {
                    self.step_worker(worker)?;
                }
                let now_ms = self.now_ms;
                let broker = self.broker();
                for shard in 0..broker.shards() {
                    broker.step_shard(shard, now_ms);
                }
                while broker.reader_is_due() {
                    broker.step_reader(now_ms);
                }
            }
            if self.broker().workers_ended() {
                break;
            }
            self.now_ms += 200;
            if round == 80 {
                return Err("the workers do not end".to_owned());
            }
        }
        let now_ms = self.now_ms;
        if let Some(broker) = self.broker.take() {
            broker.finish(now_ms);
        }
        self.disk = self.disk.closed(self.shape.shards);
        self.start_broker();
        Ok(())
    }

    /// Lets everything come to its end: all devices connected, every answer given.
    fn settle(&mut self) -> Result<(), String> {
        self.settling = true;
        self.disk.kv.set_full(false);
        let mut still = 0;
        for _ in 0..MOST_SETTLING_STEPS {
            if self.turns().is_empty() {
                still += usize::from(self.devices.iter().all(Device::is_settled));
                if still > 12 {
                    return Ok(());
                }
                self.now_ms += 500;
                continue;
            }
            self.step()?;
            // Whoever waits for a timer waits in vain if time stands still.
            if self.random.chance(2) {
                self.now_ms += 50;
            }
        }
        let waiting: Vec<String> = self.devices.iter().map(Device::waits_for).collect();
        Err(format!("no rest after {MOST_SETTLING_STEPS} steps: {waiting:?}"))
    }
}
