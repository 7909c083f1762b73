//! A run from its first start to its verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::task::yield_now;

use super::audit::{Fault, LAZY_MS, LAZY_SYNC_MS, audit};
use super::cast::Cast;
use super::history::{Client, Event, History};
use super::links::{Arrival, Links};
use super::message::Attempt;
use super::power::Power;
use super::publisher::Publisher;
use super::receiver::Receiver;
use super::scene::Scene;
use super::script::{Action, Round, Trigger};
use super::settings::{Settings, on_one_thread};
use crate::broker::Broker;
use crate::connect::Connect;
use crate::wire::{Publish, Version};
use crate::{DEADLINE, RawClient};

/// Publishers besides the one of the marks.
const PUBLISHERS: usize = 6;
/// Receivers: two of each temper.
const RECEIVERS: usize = 14;
/// Nothing came for so long although something is missing: it is lost.
const QUIET: Duration = Duration::from_secs(5);
/// Faults that are shown with their trail.
const SHOWN_FAULTS: usize = 6;
/// Entries shown of a trail.
const TRAIL_LINES: usize = 120;
/// A retained message outside the cast, sent after all others that match earlier filters.
const LAST_RETAINED: &str = "mark/retained";

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run.
    pub settings: Settings,
    /// Publications acknowledged.
    pub acked: usize,
    /// Messages delivered, repeated ones included.
    pub delivered: usize,
    /// Messages delivered to a session they had been delivered to before.
    pub repeated: usize,
    /// Length of the run.
    pub millis: u64,
    /// Everything that was wrong, and the trails of the first faults.
    pub faults: Vec<Fault>,
    /// Those trails.
    pub report: String,
    /// Everything that happened.
    pub history: History,
}

struct Run {
    settings: Settings,
    cast: Cast,
    broker: Broker,
    power: Option<Power>,
    scene: Scene,
    publishers: Vec<Publisher>,
    receivers: Vec<Receiver>,
    marks: u32,
    /// The broker does nothing any more.
    stalled: bool,
}

/// Runs to the end. `progress` is told of each round.
///
/// Panics when the broker does not start, or answers nothing any more.
pub fn run(settings: &Settings, progress: &mut dyn FnMut(&str)) -> Outcome {
    on_one_thread(async {
        let mut run = Run::start(settings);
        for number in 0..settings.kills {
            run.round(number).await;
            progress(&run.progress(number + 1));
            if run.stalled {
                return run.outcome();
            }
        }
        run.finish().await;
        run.outcome()
    })
}

impl Run {
    fn start(settings: &Settings) -> Run {
        let cast = Cast::of_seed(settings.seed, PUBLISHERS, RECEIVERS);
        let (options, power) = settings.broker();
        let broker = options.start();
        let scene = Scene::new(Links::new(broker.tcp()));
        let roles = cast.publishers.iter().cloned().enumerate();
        let publishers = roles.map(|(number, role)| Publisher::new(number as u16, role)).collect();
        let roles = cast.receivers.iter().cloned().enumerate();
        let receivers = roles.map(|(number, role)| Receiver::new(number as u16, role)).collect();
        let settings = settings.clone();
        Run {
            settings,
            cast,
            broker,
            power,
            scene,
            publishers,
            receivers,
            marks: 0,
            stalled: false,
        }
    }

    fn lazy_ms(&self) -> u64 {
        if self.settings.power_cuts { LAZY_SYNC_MS } else { LAZY_MS }
    }

    fn progress(&self, kills: usize) -> String {
        let entries = self.scene.history.entries.len();
        let Scene { acked, accepted, .. } = self.scene;
        format!(
            "kill {kills:>4} at {:>7} ms: {acked:>5} acknowledged, {accepted:>3} accepted, \
             {entries:>8} entries",
            self.scene.now_ms()
        )
    }

    /// Acts until the time to kill has come.
    async fn round(&mut self, number: usize) {
        let mut round = Round::of_seed(self.settings.seed, number, &self.cast, self.settings.acks);
        self.scene.acked = 0;
        self.scene.accepted = 0;
        self.everybody_comes();
        let mut next = round.action(&self.cast);
        while !self.is_over(round.trigger) && !self.stalled {
            if self.can(&next) {
                self.act(next);
                next = round.action(&self.cast);
                yield_now().await;
                while let Some(arrival) = self.scene.links.try_next() {
                    self.arrived(arrival, false);
                }
            } else {
                self.wait("room for the next action").await;
            }
        }
        if round.rest {
            self.rest().await;
        }
        self.kill_and_restart(&round.false_starts_ms).await;
    }

    fn is_over(&self, trigger: Trigger) -> bool {
        match trigger {
            Trigger::Acked(count) => self.scene.acked >= count,
            Trigger::Accepted(count) => self.scene.accepted >= count,
        }
    }

    fn everybody_comes(&mut self) {
        for publisher in &mut self.publishers {
            publisher.come(&mut self.scene);
        }
        for receiver in &mut self.receivers {
            receiver.come(&mut self.scene);
        }
    }

    /// Whether the time for an action has come. Nobody leaves a connection before CONNACK: the
    /// broker may well read that CONNECT after the next one, and let the older connection win.
    fn can(&self, action: &Action) -> bool {
        match action {
            Action::Publish { publisher, .. } => self.publishers[*publisher].has_room(),
            Action::PublisherAgain { publisher, .. } => !self.publishers[*publisher].is_coming(),
            Action::Toggle { receiver, .. }
            | Action::Again { receiver, .. }
            | Action::Anew { receiver, .. } => !self.receivers[*receiver].is_coming(),
            Action::ToggleFilter { .. } | Action::Hold { .. } => true,
        }
    }

    fn act(&mut self, action: Action) {
        let scene = &mut self.scene;
        match action {
            Action::Publish { publisher, topic, qos, filler, cleared } => {
                self.publishers[publisher].publish(scene, topic, qos, filler, cleared);
            }
            Action::PublisherAgain { publisher, how } => {
                self.publishers[publisher].come_again(scene, how);
            }
            Action::Toggle { receiver, how } => self.receivers[receiver].toggle(scene, how),
            Action::Again { receiver, how } => self.receivers[receiver].come_again(scene, how),
            Action::Anew { receiver, how } => self.receivers[receiver].start_anew(scene, how),
            Action::ToggleFilter { receiver, filter } => {
                self.receivers[receiver].toggle_filter(scene, filter);
            }
            Action::Hold { receiver, answers } => self.receivers[receiver].hold(scene, answers),
        }
    }

    /// Takes what comes next. When nothing comes any more the run is over.
    async fn wait(&mut self, what: &str) {
        match self.scene.links.next(DEADLINE).await {
            Some(arrival) => self.arrived(arrival, false),
            None => {
                let publishers = self.publishers.iter().map(Publisher::waits_for);
                let receivers = self.receivers.iter().map(Receiver::waits_for);
                let waiting: Vec<String> = publishers.chain(receivers).collect();
                let waiting = waiting.join("\n    ");
                let what = format!("nothing came, waiting for {what}\n    {waiting}");
                self.scene.fault(Client::Publisher(0), what);
                self.stalled = true;
            }
        }
    }

    fn arrived(&mut self, arrival: Arrival, killed: bool) {
        let Arrival { link, client, packet } = arrival;
        let scene = &mut self.scene;
        let Some(packet) = packet else {
            scene.record(Event::Closed { client, link, killed });
            let mine = match client {
                Client::Publisher(number) => self.publishers[usize::from(number)].closed(link),
                Client::Receiver(number) => self.receivers[usize::from(number)].closed(link),
            };
            if mine && !killed {
                scene.fault(client, format!("the broker ended #{link}"));
                self.everybody_comes();
            }
            return;
        };
        match client {
            Client::Publisher(number) => {
                self.publishers[usize::from(number)].packet(scene, link, packet);
            }
            Client::Receiver(number) => {
                self.receivers[usize::from(number)].packet(scene, link, packet);
            }
        }
    }

    /// Kills the broker, takes what it had still sent, starts it again, and looks at the retained
    /// messages before anybody else does anything.
    async fn kill_and_restart(&mut self, false_starts_ms: &[u64]) {
        let at_ms = self.scene.now_ms();
        self.broker.kill();
        self.scene.links.move_to(None);
        self.cut_power();
        while self.scene.links.any_open() {
            match self.scene.links.next(DEADLINE).await {
                Some(arrival) => self.arrived(arrival, true),
                None => panic!("seed {}: links to a dead broker stay open", self.settings.seed),
            }
        }
        self.scene.record(Event::Killed { at_ms });
        for ms in false_starts_ms {
            self.broker.start_and_kill(Duration::from_millis(*ms));
            self.cut_power();
        }
        self.broker.start_again();
        self.scene.links.move_to(Some(self.broker.tcp()));
        self.scene.record(Event::Ready);
        self.look_at_retained();
    }

    fn cut_power(&self) {
        if let Some(power) = &self.power {
            power.cut();
        }
    }

    fn look_at_retained(&mut self) {
        let mut client = self.broker.connect(&Connect::new(Version::V5, "crash-retained"));
        client.publish(Publish::new(LAST_RETAINED, "last").qos(1).retain());
        client.subscribe("keep/#", 1);
        client.subscribe(LAST_RETAINED, 1);
        let mut found = Vec::new();
        loop {
            let publish = client.take_publish();
            if publish.topic == LAST_RETAINED {
                break;
            }
            match self.retained(&publish) {
                Ok(attempt) => found.push(attempt),
                Err(what) => {
                    self.scene.fault(Client::Publisher(0), format!("retained: {what}"));
                }
            }
        }
        RawClient::disconnect(client);
        self.scene.record(Event::Retained { found });
    }

    fn retained(&self, publish: &Publish) -> Result<Attempt, String> {
        let attempt = Attempt::of_payload(&publish.payload)?;
        let publisher = self.cast.publishers.get(usize::from(attempt.message.publisher));
        let topics = publisher.map(|role| &role.topics);
        let topic = topics.and_then(|topics| topics.get(usize::from(attempt.message.topic)));
        if !publish.retain || topic.is_none_or(|topic| topic.name != publish.topic) {
            return Err(format!("{attempt} on {}, retain={}", publish.topic, publish.retain));
        }
        Ok(attempt)
    }

    /// Drains everything, and once more after a crash at rest: nothing is forgotten then.
    async fn finish(&mut self) {
        self.drain().await;
        self.rest().await;
        self.kill_and_restart(&[]).await;
        self.drain().await;
    }

    /// Until all that is written lazily must have been written.
    async fn rest(&mut self) {
        let rested = self.scene.now_ms() + self.lazy_ms() + 500;
        while let Some(left) = rested.checked_sub(self.scene.now_ms()).filter(|left| *left > 0) {
            if let Some(arrival) = self.scene.links.next(Duration::from_millis(left)).await {
                self.arrived(arrival, false);
            }
        }
    }

    /// Until everybody is connected, everything published is finished, and what is to arrive has
    /// arrived.
    async fn drain(&mut self) {
        for receiver in &mut self.receivers {
            receiver.be_good(&mut self.scene);
        }
        self.everybody_comes();
        while !self.stalled
            && (!self.publishers.iter().all(Publisher::is_idle)
                || !self.publishers[0].has_room()
                || !self.receivers.iter().all(Receiver::is_settled))
        {
            self.wait("publishers to finish and receivers to be subscribed").await;
        }
        if self.stalled {
            return;
        }
        self.marks += 1;
        self.publishers[0].publish(&mut self.scene, 0, 1, 0, false);
        while !self.stalled
            && !self.receivers.iter().all(|r| r.mark() >= self.marks && r.is_heard())
        {
            self.wait("the mark to arrive everywhere").await;
        }
        // Marks do not go through the queues of groups.
        while !audit(&self.cast, &self.scene.history, self.lazy_ms()).is_empty()
            && let Some(arrival) = self.scene.links.next(QUIET).await
        {
            self.arrived(arrival, false);
            while let Some(arrival) = self.scene.links.try_next() {
                self.arrived(arrival, false);
            }
        }
    }

    fn outcome(self) -> Outcome {
        let history = &self.scene.history;
        let faults = audit(&self.cast, history, self.lazy_ms());
        let kinds = kinds(&faults);
        let mut report = String::new();
        for (kind, of_kind) in &kinds {
            let _ = writeln!(report, "{:>6} x {kind}", of_kind.len());
        }
        // The first of each kind, then the next.
        let depth = kinds.values().map(Vec::len).max().unwrap_or(0);
        let by_turns = (0..depth).flat_map(|at| kinds.values().filter_map(move |of| of.get(at)));
        for fault in by_turns.take(SHOWN_FAULTS) {
            let message = fault.message.map(|message| format!("{message}: ")).unwrap_or_default();
            let client = fault.client.map(|client| format!("{client}: ")).unwrap_or_default();
            let trail = history.trail(fault.message, fault.client, fault.at, TRAIL_LINES);
            let _ = writeln!(report, "--- {message}{client}{}\n{trail}", fault.what);
            if let Some(Client::Receiver(number)) = fault.client {
                let _ = writeln!(report, "{:?}", self.cast.receivers[usize::from(number)]);
            }
        }
        let mut delivered = 0;
        let mut acked = 0;
        let mut seen = std::collections::HashSet::new();
        for entry in &history.entries {
            match entry.event {
                Event::Delivered { receiver, attempt, .. } => {
                    delivered += 1;
                    seen.insert((receiver, attempt));
                }
                Event::Acked { .. } => acked += 1,
                _ => {}
            }
        }
        Outcome {
            acked,
            delivered,
            repeated: delivered - seen.len(),
            millis: self.scene.now_ms(),
            faults,
            report,
            history: self.scene.history,
            settings: self.settings,
        }
    }
}

/// Faults by kind: by what they say before the first number.
fn kinds(faults: &[Fault]) -> BTreeMap<&str, Vec<&Fault>> {
    let mut kinds: BTreeMap<&str, Vec<&Fault>> = BTreeMap::new();
    for fault in faults {
        let kind = fault.what.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
        kinds.entry(kind).or_default().push(fault);
    }
    kinds
}

impl Outcome {
    /// One line about the run.
    pub fn summary(&self) -> String {
        let Settings { seed, kills, durability, power_cuts, .. } = &self.settings;
        let how = if *power_cuts { "power cuts" } else { "kills" };
        format!(
            "seed {seed}, durability {durability}: {kills} {how} and one at rest, {} acknowledged, \
             {} delivered, {} of them again, {} faults, {:.1} s",
            self.acked,
            self.delivered,
            self.repeated,
            self.faults.len(),
            self.millis as f64 / 1000.0
        )
    }
}
