//! One run: a broker, its disk, clients and links between them, in one thread and in made-up time.
//! Each step lets one of them do one thing; which one, the seed says.
//!
//! Owns who is where. What clients do is in `script`, what must hold in `receiver`, `publisher`
//! and `ledger`; the broker itself stands on the `stage`.

use super::client::{Client, Phase, Role};
use super::guard::take_panic;
use super::ledger::Ledger;
use super::link::Link;
use super::stage::{Blow, Mishaps, Played, Stage, Temper, stop_and_start};
use crate::wire::frame_length;

/// Steps that a run may take to come to rest.
const MOST_SETTLING_STEPS: usize = 20_000;

/// A link and whose it is.
#[derive(Debug)]
pub struct Line {
    /// The link.
    pub link: Link,
    /// The client.
    pub client: usize,
    /// The worker that has its other end.
    pub worker: usize,
    /// A newer connection of the same client was let in: whether this one had bytes waiting then.
    superseded: Option<bool>,
    /// What the broker has written, up to CONNACK.
    greeting: Vec<u8>,
    /// The beginning of a packet whose rest the broker has not written yet.
    partial: Vec<u8>,
    let_in: bool,
}

/// What a run was like.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Steps.
    pub steps: u64,
    /// Publications.
    pub publications: u64,
    /// Of those, acknowledged.
    pub acknowledged: u64,
    /// Messages that clients received.
    pub deliveries: u64,
    /// Of those, again.
    pub repeats: u64,
    /// Stored sessions that went on.
    pub resumed: u64,
    /// Connections that took another one's session.
    pub take_overs: u64,
    /// What went wrong.
    pub mishaps: Mishaps,
    /// Entries whose numbers were checked.
    pub entries: u64,
    /// A hash of everything the broker has sent, and when.
    pub digest: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.steps += other.steps;
        self.publications += other.publications;
        self.acknowledged += other.acknowledged;
        self.deliveries += other.deliveries;
        self.repeats += other.repeats;
        self.resumed += other.resumed;
        self.take_overs += other.take_overs;
        self.mishaps += other.mishaps;
        self.entries += other.entries;
        self.digest ^= other.digest;
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Worker(usize),
    Shard(usize),
    Reader,
    Up(usize),
    Down(usize),
    Client(usize),
    Time,
}

/// A run.
pub struct World {
    /// The broker, and what it stands on.
    pub stage: Stage,
    /// What was published and acknowledged.
    pub ledger: Ledger,
    /// Clients.
    pub clients: Vec<Client>,
    /// All links there ever were.
    pub lines: Vec<Line>,
    /// What happened how often.
    pub tally: Tally,
    /// No more mischief: everything is to come to its end.
    pub settling: bool,
    turns: Vec<(Turn, usize)>,
}

impl Played for World {
    fn stage(&mut self) -> &mut Stage {
        &mut self.stage
    }

    fn step_worker(&mut self, worker: usize) -> Result<(), String> {
        self.worker_steps(worker)
    }

    fn ended(&mut self) {
        self.broker_ended();
    }
}

impl World {
    /// A run with these clients.
    pub fn new(stage: Stage, roles: Vec<Role>) -> World {
        World {
            stage,
            ledger: Ledger::default(),
            clients: roles.into_iter().map(Client::new).collect(),
            lines: Vec::new(),
            tally: Tally { digest: 0xcbf2_9ce4_8422_2325, ..Tally::default() },
            settling: false,
            turns: Vec::new(),
        }
    }

    /// Tells what happens, when it is to be told.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        self.stage.tell(what);
    }

    /// A new link for a client; gives its number.
    pub fn open_link(&mut self, client: usize) -> usize {
        let capacity = *self.stage.random.pick(&[200, 2_000, 64_000]);
        let (link, end) = Link::new(capacity);
        let worker = self.stage.broker().accept(end);
        let superseded = None;
        let (greeting, partial) = (Vec::new(), Vec::new());
        let let_in = false;
        self.lines.push(Line { link, client, worker, superseded, greeting, partial, let_in });
        self.lines.len() - 1
    }

    /// One step.
    pub fn step(&mut self) -> Result<(), String> {
        self.stage.steps += 1;
        if !self.settling {
            self.mischief()?;
        }
        let turn = self.next_turn();
        self.take(turn)
    }

    fn next_turn(&mut self) -> Turn {
        let mut turns = std::mem::take(&mut self.turns);
        turns.clear();
        self.list_turns(&mut turns);
        let all: usize = turns.iter().map(|(_, weight)| weight).sum();
        let mut at = self.stage.random.below(all.max(1));
        let mut chosen = Turn::Time;
        for (turn, weight) in &turns {
            if at < *weight {
                chosen = *turn;
                break;
            }
            at -= weight;
        }
        self.turns = turns;
        chosen
    }

    fn list_turns(&self, turns: &mut Vec<(Turn, usize)>) {
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
            turns.push((Turn::Reader, 3));
        }
        for (number, line) in self.lines.iter().enumerate() {
            if line.link.upward() > 0 {
                turns.push((Turn::Up(number), link_weight));
            }
            let here = self.clients[line.client].link == Some(number);
            if line.link.downward() > 0 || (here && line.link.is_over()) {
                turns.push((Turn::Down(number), link_weight));
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            if !(self.settling && client.is_content()) {
                turns.push((Turn::Client(number), 2));
            }
        }
        if !self.settling {
            turns.push((Turn::Time, 2));
        }
    }

    fn take(&mut self, turn: Turn) -> Result<(), String> {
        if matches!(turn, Turn::Worker(_) | Turn::Shard(_) | Turn::Reader) {
            self.tell(|| format!("{turn:?}"));
        }
        match turn {
            Turn::Worker(worker) => return self.worker_steps(worker),
            Turn::Shard(shard) => self.stage.step_shard(shard),
            Turn::Reader => self.stage.step_reader(),
            Turn::Up(line) => {
                let count = self.stage.portion(self.lines[line].link.upward());
                self.lines[line].link.carry_up(count);
            }
            Turn::Down(line) => return self.carry_down(line),
            Turn::Client(client) => self.act(client),
            Turn::Time => self.stage.pass_time(),
        }
        Ok(())
    }

    fn worker_steps(&mut self, worker: usize) -> Result<(), String> {
        let lines = self.lines.iter_mut().filter(|line| line.worker == worker);
        let ready = lines.filter_map(|line| line.link.take_ready()).collect();
        let now_ms = self.stage.now_ms;
        let (mut fault, ledger, listener) = (Ok(()), &mut self.ledger, self.stage.listener);
        let broker = self.stage.broker();
        broker.look_at_letters(worker, |letter| {
            if let Some(listener) = listener
                && let Some(words) = super::ledger::describe(letter)
            {
                listener(&format!("{:25}{words}", ""));
            }
            if fault.is_ok() {
                fault = ledger.letter(letter);
            }
        });
        fault?;
        broker.step_worker(worker, now_ms, ready);
        if let Some(bug) = take_panic() {
            return Err(format!("the broker met a bug: {bug}"));
        }
        for number in 0..self.lines.len() {
            self.look_at(number)?;
        }
        let (lines, clients) = (&self.lines, &mut self.clients);
        for client in clients {
            client.receiver.note_heard(now_ms, |link, bytes| lines[link].link.was_heard(bytes));
        }
        Ok(())
    }

    /// What the broker has just written: one driver per session (invariant 5).
    fn look_at(&mut self, number: usize) -> Result<(), String> {
        let line = &mut self.lines[number];
        let news = line.link.news();
        if news.is_empty() {
            return Ok(());
        }
        for byte in news.iter().chain(&(number as u32).to_be_bytes()) {
            self.tally.digest =
                (self.tally.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if line.superseded == Some(false) {
            return Err(format!(
                "the broker writes to a connection of {} after CONNACK to a newer one",
                self.clients[line.client].role.name
            ));
        }
        line.partial.extend(&news);
        let refused = refusals(&mut line.partial);
        self.clients[line.client].publisher.refused(&refused, &mut self.ledger);
        if line.let_in {
            return Ok(());
        }
        line.greeting.extend(news);
        if let [0x20, _, _, code, ..] = line.greeting[..] {
            let client = line.client;
            line.let_in = true;
            if code == 0 {
                for (other, older) in self.lines.iter_mut().enumerate() {
                    let let_in = older.let_in && older.superseded.is_none();
                    if other != number && older.client == client && let_in {
                        self.tally.take_overs += u64::from(!older.link.is_closed());
                        older.superseded = Some(older.link.is_blocked());
                    }
                }
            }
        }
        Ok(())
    }

    fn carry_down(&mut self, number: usize) -> Result<(), String> {
        let link = &mut self.lines[number].link;
        let most = link.downward();
        let count = self.stage.portion(most);
        let bytes = link.carry_down(count);
        let over = link.is_over();
        let client = self.lines[number].client;
        if self.clients[client].link != Some(number) {
            return Ok(());
        }
        if self.stage.listener.is_some() {
            let packets = self.clients[client].preview(&bytes);
            self.tell(|| format!("{} <- [{number}] {packets}", self.clients[client].role.name));
        }
        self.clients[client].received(&bytes, &mut self.ledger)?;
        if over {
            self.tell(|| format!("{} [{number}] is over", self.clients[client].role.name));
            self.lines[number].link.cut(true);
            self.clients[client].lost();
        }
        Ok(())
    }

    fn mischief(&mut self) -> Result<(), String> {
        let blow = self.stage.strike()?;
        self.ledger.disk_failed |= self.stage.mishaps.disk_failed();
        match blow {
            Some(Blow::Crash) => {
                self.ledger.crashes.push(self.stage.now_ms);
                self.broker_ended();
                self.stage.crash();
                Ok(())
            }
            Some(Blow::Stop) => stop_and_start(self),
            None => Ok(()),
        }
    }

    /// The process is gone, or about to be.
    fn broker_ended(&mut self) {
        self.ledger.overflowed += self.stage.broker().overflowed();
        self.ledger.restarted();
        for line in &mut self.lines {
            // A connection dies with the process, also one that nobody has closed.
            line.superseded = Some(true);
        }
    }

    /// Lets everything come to its end: all clients connected, every answer given.
    pub fn settle(&mut self) -> Result<(), String> {
        self.settling = true;
        self.stage.disk.kv.set_full(false);
        self.stage.disk.kv.fail_read(0);
        let mut still = 0;
        for _ in 0..MOST_SETTLING_STEPS {
            let mut turns = std::mem::take(&mut self.turns);
            turns.clear();
            self.list_turns(&mut turns);
            let idle = turns.is_empty();
            self.turns = turns;
            if !idle {
                self.stage.steps += 1;
                let turn = self.next_turn();
                if matches!(turn, Turn::Up(_) | Turn::Down(_) | Turn::Client(_)) {
                    still = 0;
                }
                self.take(turn)?;
                // Whoever waits for a timer waits in vain if time stands still.
                if self.stage.random.chance(2) {
                    self.stage.now_ms += 50;
                }
                continue;
            }
            still += 1;
            if still > 12 {
                return Ok(());
            }
            self.stage.now_ms += 500;
        }
        Err(format!(
            "no rest after {MOST_SETTLING_STEPS} steps: {}; {:?}",
            self.unrest(),
            self.turns
        ))
    }

    fn unrest(&self) -> String {
        let restless = self.clients.iter().filter(|client| !client.is_content());
        let each = restless.map(|client| {
            let unfinished = client.publisher.unfinished();
            format!("{} {:?} with {unfinished} publications", client.role.name, client.phase)
        });
        each.collect::<Vec<_>>().join(", ")
    }

    /// What must be true of a run that has come to rest.
    pub fn verdict(&mut self) -> Result<(), String> {
        let overflowed = self.ledger.overflowed + self.stage.broker().overflowed();
        let mut missing = Vec::new();
        for number in 0..self.ledger.publications.len() {
            let message = super::ledger::Message(number);
            for client in self.clients.iter().filter(|client| !client.receiver.shared) {
                let receiver = &client.receiver;
                if receiver.is_owed(message, &self.ledger) && !receiver.has(message) {
                    missing.push(format!("{} misses {message:?}", client.role.name));
                }
            }
            let members = || self.clients.iter().filter(|client| client.receiver.shared);
            let owed = |client: &Client| client.receiver.is_owed(message, &self.ledger);
            // What a member had in delivery with QoS 2 ends with its session [MQTT-4.8.2-5].
            let qos2 = self.ledger.publication(message).qos == 2;
            if qos2 && members().any(|client| client.receiver.lives > 0) {
                continue;
            }
            for number in 0..self.ledger.publication(message).attempts.len() {
                let attempt = super::ledger::Attempt { message, number };
                let had = |client: &&Client| client.receiver.had_exactly(attempt);
                if members().filter(had).count() > 1 {
                    return Err(format!("several members of a group have got {attempt:?}"));
                }
            }
            if members().any(owed) && !members().any(|client| client.receiver.had(message)) {
                missing.push(format!("no member of a group has got {message:?}"));
            }
        }
        // A full queue that drops its oldest, and says so, is the one exception (ruling 13).
        if missing.len() as u64 > overflowed {
            return Err(format!("{} ({overflowed} dropped from full queues)", missing.join(", ")));
        }
        (self.tally.steps, self.tally.mishaps) = (self.stage.steps, self.stage.mishaps);
        let published = &self.ledger.publications;
        self.tally.publications = published.len() as u64;
        self.tally.acknowledged = published.iter().filter(|p| p.acked.is_some()).count() as u64;
        self.tally.entries = self.ledger.entries_seen;
        for client in &self.clients {
            self.tally.deliveries += client.receiver.deliveries;
            self.tally.repeats += client.receiver.repeats;
            self.tally.resumed += client.resumed;
        }
        Ok(())
    }

    /// A client gives up its connection.
    pub fn cut(&mut self, client: usize, noticed: bool) {
        if let Some(number) = self.clients[client].link {
            self.tell(|| format!("[{number}] breaks, noticed: {noticed}"));
            self.lines[number].link.cut(noticed);
            if self.clients[client].starts_anew() {
                // Read after a later CONNECT it would end the session of that, and who gave up the
                // connection could not know.
                self.lines[number].link.withdraw();
            }
            self.clients[client].lost();
        }
    }

    /// Sends one packet of a client.
    pub fn send(&mut self, client: usize, packet: &[u8]) {
        if let Some(number) = self.clients[client].link {
            let name = &self.clients[client].role.name;
            self.tell(|| format!("{name} -> [{number}] {}", super::client::describe(packet)));
            let bytes = self.lines[number].link.send(packet);
            self.clients[client].receiver.answered(packet, number, bytes);
        }
    }

    /// Whether a client is connected.
    pub fn is_in(&self, client: usize) -> bool {
        self.clients[client].phase == Phase::In
    }
}

/// Identifiers of the publications that a PUBREC among these bytes refuses; takes whole packets.
fn refusals(bytes: &mut Vec<u8>) -> Vec<u16> {
    let mut refused = Vec::new();
    while let Some(length) = frame_length(bytes) {
        let frame: Vec<u8> = bytes.drain(..length).collect();
        if let [0x50, _, high, low, 0x80..=0xff, ..] = frame[..] {
            refused.push(u16::from_be_bytes([high, low]));
        }
    }
    refused
}
