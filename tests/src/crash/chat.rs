//! The crash test of chats: users with several devices send, recall, edit, read, join, leave and
//! block while the broker is killed again and again, at a count of answers. In the end everybody is
//! connected, tells its list and pulls all it may see, before and after a kill at rest, and the
//! [`Judge`] compares that, and every delivery before, with what was acknowledged.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::yield_now;

use super::history::Client;
use super::links::{Arrival, Links};
use super::power::Power;
use super::random::Random;
use super::settings::{Settings, on_one_thread};
use crate::DEADLINE;
use crate::broker::Broker;
use crate::chat::device::Phase;
use crate::chat::event::{Deed, Event};
use crate::chat::judge::Order;
use crate::chat::{Cast, Device, Fault, Judge, script};

/// Users of a run.
const USERS: usize = 5;
/// Nothing came for so long although something is missing: it is lost.
const QUIET: Duration = Duration::from_secs(4);
/// How often everybody is asked before a fault stands.
const MOST_ROUNDS: usize = 4;
/// Faults that are shown with their trail.
const SHOWN_FAULTS: usize = 6;
/// Events shown of a trail.
const TRAIL_LINES: usize = 80;
/// A start takes less than that, in ms.
const LONG_START_MS: usize = 200;

/// What came out.
#[derive(Clone, Debug)]
pub struct ChatOutcome {
    /// What was run.
    pub settings: Settings,
    /// Deeds that were answered.
    pub answered: usize,
    /// Of those, refused.
    pub refused: usize,
    /// Entries delivered.
    pub delivered: usize,
    /// Length of the run.
    pub millis: u64,
    /// Everything that was wrong.
    pub faults: Vec<Fault>,
    /// The trails of the first faults.
    pub report: String,
    /// Everything that happened, line by line.
    pub trail: Vec<(u64, Event)>,
}

struct Run {
    settings: Settings,
    broker: Broker,
    power: Option<Power>,
    links: Links,
    judge: Judge,
    devices: Vec<Device>,
    random: Random,
    started: Instant,
    /// Answers since the broker was last started.
    answered: usize,
    stalled: bool,
    /// Faults that the judge had when nothing more was to come.
    found: Vec<Fault>,
}

/// Runs to the end. `progress` is told of each round.
///
/// Panics when the broker does not start.
pub fn run(settings: &Settings, progress: &mut dyn FnMut(&str)) -> ChatOutcome {
    on_one_thread(async {
        let mut run = Run::start(settings);
        run.create_groups().await;
        for number in 0..settings.kills {
            run.round(number).await;
            progress(&run.progress(number + 1));
            if run.stalled || !run.judge.faults.is_empty() {
                return run.outcome();
            }
        }
        run.finish().await;
        run.outcome()
    })
}

impl Run {
    fn start(settings: &Settings) -> Run {
        let cast = Arc::new(Cast::of_seed(settings.seed, USERS));
        let (options, power) = settings.broker();
        let broker = options
            .environment("HOOPOE_IM__SENDS_PER_SEC", "100000")
            .environment("HOOPOE_IM__SEND_BURST", "100000")
            .start();
        let links = Links::new(broker.tcp());
        let roles = cast.devices.iter().cloned().enumerate();
        let devices = roles.map(|(number, role)| Device::new(number, role)).collect();
        let mut judge = Judge::new(cast, true);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        judge.began_ms = since.as_millis() as u64;
        Run {
            settings: settings.clone(),
            broker,
            power,
            links,
            judge,
            devices,
            random: Random::of_part(settings.seed, 78),
            started: Instant::now(),
            answered: 0,
            stalled: false,
            found: Vec::new(),
        }
    }

    fn progress(&self, kills: usize) -> String {
        let (answered, events) = (self.answered, self.judge.trail.len());
        let ms = self.started.elapsed().as_millis();
        format!("chat kill {kills:>4} at {ms:>7} ms: {answered:>5} answered, {events:>8} events")
    }

    fn connect(&mut self, device: usize, anew: bool) {
        if !self.links.is_up() {
            return;
        }
        let device = &mut self.devices[device];
        let link = self.links.open(Client::Receiver(device.number as u16), device.role.version);
        let packet = device.connect(link, anew, &mut self.judge);
        self.links.send(link, packet);
    }

    fn everybody_comes(&mut self) {
        for device in 0..self.devices.len() {
            if self.devices[device].phase == Phase::Away {
                self.connect(device, false);
            }
        }
    }

    fn send(&self, device: usize, packet: Vec<u8>) {
        if let Some(link) = self.devices[device].link {
            self.links.send(link, packet);
        }
    }

    fn ask(&mut self, deed: Deed, filler: usize) {
        let packet = self.devices[deed.device].ask(deed, filler, &mut self.judge);
        self.send(deed.device, packet);
    }

    /// Makes the groups; the rounds need them.
    async fn create_groups(&mut self) {
        self.everybody_comes();
        for deed in script::creations(&self.judge.cast.clone()) {
            while !self.devices[deed.device].has_room() && !self.stalled {
                self.wait("a device to be connected").await;
            }
            let number = self.judge.deeds();
            self.ask(deed, 0);
            while !self.judge.is_answered(number) && !self.stalled {
                // Who takes one message at a time gets no answer before it has answered.
                (0..self.devices.len()).for_each(|device| self.answer(device));
                self.wait("a group to be made").await;
            }
        }
    }

    /// Acts until the time to kill has come.
    async fn round(&mut self, number: usize) {
        let mut random = Random::of_part(self.settings.seed, 5_000 + number as u64);
        let acks = self.settings.acks;
        let enough = match random.below(10) {
            0 => random.between(1, 20),
            _ => random.between(acks / 4, acks + acks / 2),
        };
        let (before, _) = self.judge.answered();
        self.answered = 0;
        self.everybody_comes();
        while self.answered < enough && !self.stalled && self.judge.faults.is_empty() {
            if !self.act(&mut random) {
                self.wait("room for the next action").await;
            }
            yield_now().await;
            while let Some(arrival) = self.links.try_next() {
                self.arrived(arrival, false);
            }
            self.answered = self.judge.answered().0 - before;
        }
        if random.chance(10) {
            self.rest().await;
        }
        self.kill_and_restart(&mut random).await;
    }

    /// Lets a device do something; false when none can.
    fn act(&mut self, random: &mut Random) -> bool {
        let device = random.below(self.devices.len());
        let phase = self.devices[device].phase;
        match (phase, random.below(1000)) {
            (Phase::Away, 0..300) => self.connect(device, random.chance(15)),
            (Phase::Away, _) => {}
            // Nobody leaves before CONNACK: the broker may read that CONNECT after the next one.
            (Phase::Greeting, _) => return false,
            (Phase::In, 0..6) => self.leave(device, true),
            (Phase::In, 6..12) => self.leave(device, false),
            (Phase::In, 12..18) => {
                self.leave(device, false);
                self.connect(device, false);
            }
            (Phase::In, 18..60) if !self.devices[device].pinging => {
                let packet = self.devices[device].ping(&mut self.judge);
                self.send(device, packet);
            }
            _ if random.chance(self.devices[device].role.diligence) => self.answer(device),
            _ if !self.devices[device].has_room() => {
                self.answer(device);
                return false;
            }
            _ => {
                if let Some((deed, filler)) = script::next(random, &self.judge, device) {
                    self.ask(deed, filler);
                }
            }
        }
        true
    }

    fn leave(&mut self, device: usize, told: bool) {
        let Some(link) = self.devices[device].link else { return };
        if told {
            let version = self.devices[device].role.version;
            self.links.send(link, crate::wire::disconnect(version, 0, &Default::default()));
            // The broker ends it, and then it is read to its end.
            self.devices[device].lost();
        } else {
            self.links.cut(link);
            self.devices[device].lost();
        }
    }

    fn answer(&mut self, device: usize) {
        while let Some(packet) = self.devices[device].answer(&mut self.judge) {
            self.send(device, packet);
        }
    }

    /// Takes what comes next. When nothing comes any more the run is over.
    async fn wait(&mut self, what: &str) {
        self.judge.now_ms = self.started.elapsed().as_millis() as u64;
        match self.links.next(DEADLINE).await {
            Some(arrival) => self.arrived(arrival, false),
            None => {
                let waiting: Vec<String> = self.devices.iter().map(Device::waits_for).collect();
                let waiting = waiting.join("\n    ");
                let what = format!("nothing came, waiting for {what}\n    {waiting}");
                self.judge.note(Event::Fault { device: 0, what });
                self.stalled = true;
            }
        }
    }

    fn arrived(&mut self, arrival: Arrival, killed: bool) {
        self.judge.now_ms = self.started.elapsed().as_millis() as u64;
        let Arrival { link, client: Client::Receiver(number), packet } = arrival else { return };
        let number = usize::from(number);
        if self.devices[number].link != Some(link) {
            return;
        }
        let device = &mut self.devices[number];
        let Some(packet) = packet else {
            device.lost();
            if !killed {
                let what = format!("the broker ended #{link}");
                self.judge.note(Event::Fault { device: number, what });
                self.connect(number, false);
            }
            return;
        };
        device.see(&packet, &mut self.judge);
        for packet in device.take(packet, &mut self.judge) {
            self.links.send(link, packet);
        }
    }

    async fn kill_and_restart(&mut self, random: &mut Random) {
        self.broker.kill();
        self.links.move_to(None);
        self.cut_power();
        while self.links.any_open() {
            match self.links.next(DEADLINE).await {
                Some(arrival) => self.arrived(arrival, true),
                None => panic!("seed {}: links to a dead broker stay open", self.settings.seed),
            }
        }
        self.judge.note(Event::Killed);
        if random.chance(20) {
            let after = Duration::from_millis(random.below(LONG_START_MS) as u64);
            self.broker.start_and_kill(after);
            self.cut_power();
        }
        self.broker.start_again();
        self.links.move_to(Some(self.broker.tcp()));
    }

    fn cut_power(&self) {
        if let Some(power) = &self.power {
            power.cut();
        }
    }

    /// Until what is written lazily has been written.
    async fn rest(&mut self) {
        let until = Instant::now() + Duration::from_millis(1_500);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if let Some(arrival) = self.links.next(left).await {
                self.arrived(arrival, false);
            }
        }
    }

    /// Everything comes to rest and is compared, and once more after a crash at rest.
    async fn finish(&mut self) {
        self.compare().await;
        if self.found.is_empty() {
            self.rest().await;
            let mut random = self.random.clone();
            self.kill_and_restart(&mut random).await;
            self.compare().await;
        }
    }

    async fn settle(&mut self) {
        self.everybody_comes();
        for device in &mut self.devices {
            device.role.diligence = 100;
        }
        loop {
            (0..self.devices.len()).for_each(|device| self.answer(device));
            if self.stalled || self.devices.iter().all(Device::is_settled) {
                return;
            }
            self.wait("devices to settle").await;
        }
    }

    /// Until what users are told fits together: what burns or expires between the question of one
    /// and that of another is seen by both when they ask once more.
    async fn compare(&mut self) {
        for _ in 0..MOST_ROUNDS {
            self.compare_once().await;
            if self.found.is_empty() || self.stalled {
                return;
            }
        }
    }

    async fn compare_once(&mut self) {
        self.settle().await;
        let since = self.judge.order();
        let first = self.judge.deeds();
        self.ask_all(script::lists(&self.judge.cast.clone())).await;
        self.ask_all(script::pulls(&self.judge)).await;
        let mut answered = first;
        while answered < self.judge.deeds() && !self.stalled {
            answered = self.judge.deeds();
            let more = self.continuations(since);
            self.ask_all(more).await;
        }
        self.found = self.judge.verdict(since);
        while !self.found.is_empty()
            && !self.stalled
            && let Some(arrival) = self.links.next(QUIET).await
        {
            self.arrived(arrival, false);
            while let Some(arrival) = self.links.try_next() {
                self.arrived(arrival, false);
            }
            (0..self.devices.len()).for_each(|device| self.answer(device));
            let more = self.continuations(since);
            self.ask_all(more).await;
            self.found = self.judge.verdict(since);
        }
    }

    async fn ask_all(&mut self, deeds: Vec<Deed>) {
        for deed in deeds {
            while !self.devices[deed.device].has_room() && !self.stalled {
                (0..self.devices.len()).for_each(|device| self.answer(device));
                self.wait("room for a question").await;
            }
            self.ask(deed, 0);
        }
        self.settle().await;
    }

    /// What is left of pulls that were answered in part.
    fn continuations(&self, since: Order) -> Vec<Deed> {
        let left = self.judge.unfinished(since).into_iter();
        left.map(|(deed, next)| script::continuation(deed, next)).collect()
    }

    fn outcome(self) -> ChatOutcome {
        let judge = self.judge;
        let faults = if self.found.is_empty() { judge.faults.clone() } else { self.found };
        let mut report = String::new();
        for fault in faults.iter().take(SHOWN_FAULTS) {
            report += &judge.report(fault, TRAIL_LINES);
        }
        if faults.len() > SHOWN_FAULTS {
            let _ = writeln!(report, "and {} more", faults.len() - SHOWN_FAULTS);
        }
        let (answered, refused) = judge.answered();
        ChatOutcome {
            settings: self.settings,
            answered,
            refused,
            delivered: judge.deliveries(),
            millis: self.started.elapsed().as_millis() as u64,
            faults,
            report,
            trail: judge.trail,
        }
    }
}

impl ChatOutcome {
    /// One line about the run.
    pub fn summary(&self) -> String {
        let Settings { seed, kills, durability, power_cuts, .. } = &self.settings;
        let how = if *power_cuts { "power cuts" } else { "kills" };
        format!(
            "chat, seed {seed}, durability {durability}: {kills} {how} and one at rest, {} answered, \
             {} of them refused, {} delivered, {} faults, {:.1} s",
            self.answered,
            self.refused,
            self.delivered,
            self.faults.len(),
            self.millis as f64 / 1000.0
        )
    }
}
