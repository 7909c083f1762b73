//! Who takes part in a run, and what each client does when its turn comes. The seed decides.

use super::broker::Shape;
use super::client::{Phase, Role};
use super::ledger::Publication;
use super::publisher::MOST_IN_FLIGHT;
use super::stage::Temper;
use super::world::World;
use crate::connect::Will;
use crate::crash::random::Random;
use crate::wire::Version;
use crate::wire::disconnect;
use crate::wire::properties::Properties;

const TOPICS: [&str; 5] = ["a/1", "a/2", "b/1", "b/2/c", "c"];
const FILTERS: [&str; 8] = ["a/1", "a/2", "a/+", "b/#", "+/1", "#", "c", "b/2/c"];
const SHARED: [&str; 3] = ["$share/g/a/+", "$share/g/#", "$share/g/b/1"];
const USERS: [&str; 3] = ["ann", "bob", "eve"];

/// The broker of a seed.
pub fn shape(random: &mut Random) -> Shape {
    Shape {
        workers: random.between(1, 3) as u16,
        shards: random.between(1, 4) as u16,
        queue_messages: if random.chance(10) { 15 } else { 100_000 },
        window_v311: random.between(1, 8) as u16,
        im: false,
        keep_entries: 0,
    }
}

/// What goes wrong in the run of a seed. In every fourth some reads fail.
pub fn temper(seed: u64, random: &mut Random) -> Temper {
    let mut rate = |percent: usize, of: &[usize]| {
        if random.chance(percent) { *random.pick(of) } else { 0 }
    };
    let crash = rate(60, &[60, 150, 300]);
    let restart = rate(30, &[200, 400]);
    let disk = rate(15, &[100, 300]);
    let reclaim = rate(50, &[30, 100]);
    Temper {
        crash,
        restart,
        disk,
        read: if seed.is_multiple_of(4) { 300 } else { 0 },
        reclaim,
        shard_weight: *random.pick(&[1, 4, 12]),
        worker_weight: *random.pick(&[2, 6, 12]),
        link_weight: *random.pick(&[1, 4, 8]),
    }
}

/// The clients of a seed.
pub fn roles(random: &mut Random, shape: &Shape) -> Vec<Role> {
    let publishers = random.between(1, 3);
    let receivers = random.between(1, 4);
    let members = if random.chance(30) { random.between(1, 3) } else { 0 };
    let mut roles = Vec::new();
    let group = *random.pick(&SHARED);
    for number in 0..publishers + receivers + members {
        let version = if random.chance(50) { Version::V5 } else { Version::V311 };
        let publishes = number < publishers;
        let shared = number >= publishers + receivers;
        let filters = if publishes {
            Vec::new()
        } else if shared {
            vec![(group, random.between(1, 2) as u8)]
        } else {
            let many = random.between(1, 3);
            let pick = |_| (*random.pick(&FILTERS), (random.below(10) as u8).div_ceil(4).min(2));
            let mut filters: Vec<(&'static str, u8)> = (0..many).map(pick).collect();
            filters.sort_unstable();
            filters.dedup_by_key(|(filter, _)| *filter);
            filters
        };
        let user = *random.pick(&USERS);
        roles.push(Role {
            // Equal client identifiers of different users are different clients.
            name: format!("{}{number}", user.chars().next().unwrap_or('x')),
            user,
            version,
            stored: shared || random.chance(75),
            receive_maximum: match version {
                Version::V311 => shape.window_v311,
                Version::V5 => random.between(1, 12) as u16,
            },
            filters,
            publishes,
            will: random.chance(25),
            diligence: *random.pick(&[20, 60, 95]),
        });
    }
    roles
}

impl World {
    /// A client's turn.
    pub(super) fn act(&mut self, client: usize) {
        match self.clients[client].phase {
            Phase::Away => self.connect(client),
            Phase::Greeting if !self.settling && self.stage.random.chance(3) => {
                let noticed = self.stage.random.chance(70);
                self.cut(client, noticed);
            }
            Phase::Greeting => {
                // The broker closes who says nothing; who is not answered comes again.
                if self.settling && self.stage.random.chance(1) {
                    self.cut(client, true);
                }
            }
            Phase::In if self.settling => self.answer(client),
            Phase::In => self.live(client),
        }
    }

    fn connect(&mut self, client: usize) {
        if !self.settling && self.stage.random.chance(60) {
            return;
        }
        let link = self.open_link(client);
        let role = self.clients[client].role.clone();
        let will = (role.will && !self.settling).then(|| {
            let topic = *self.stage.random.pick(&TOPICS);
            let qos = self.stage.random.below(3) as u8;
            let message = self.ledger.publish(Publication {
                publisher: client,
                topic,
                qos,
                retain: false,
                padding: 0,
                attempts: Vec::new(),
                acked: None,
                will: true,
            });
            let will = Will::new(topic, self.ledger.attempt(message).payload(0)).qos(qos);
            match role.version {
                Version::V5 if self.stage.random.chance(30) => will.delay_secs(1),
                _ => will,
            }
        });
        if !self.settling && role.stored && self.stage.random.chance(4) {
            self.clients[client].clean = true;
        }
        let packet = self.clients[client].connect(link, will);
        self.send(client, &packet);
    }

    fn live(&mut self, client: usize) {
        let dice = self.stage.random.below(1000);
        match dice {
            0..8 => self.cut(client, true),
            8..12 => self.cut(client, false),
            // The same client again, while its connection stands.
            12..18 => self.connect(client),
            18..24 => self.leave(client),
            _ if self.stage.random.chance(self.clients[client].role.diligence) => {
                self.answer(client);
                if self.stage.random.chance(50) {
                    self.work(client);
                }
            }
            _ => self.work(client),
        }
    }

    /// Sends what is owed to the broker, or a part of it.
    fn answer(&mut self, client: usize) {
        let all = self.clients[client].todo.len();
        let count = if self.settling { all } else { self.stage.random.between(0, all) };
        for _ in 0..count {
            if let Some(packet) = self.clients[client].todo.pop_front() {
                self.send(client, &packet);
            }
        }
    }

    fn leave(&mut self, client: usize) {
        let version = self.clients[client].role.version;
        let packet = disconnect(version, 0, &Properties::default());
        self.send(client, &packet);
        if let Some(number) = self.clients[client].link {
            self.lines[number].link.close();
            self.clients[client].lost();
        }
    }

    fn work(&mut self, client: usize) {
        let role = &self.clients[client].role;
        if role.publishes {
            self.publish(client);
        } else {
            self.subscribe(client);
        }
    }

    fn publish(&mut self, client: usize) {
        if self.clients[client].publisher.unfinished() >= MOST_IN_FLIGHT
            || !self.clients[client].todo.is_empty()
        {
            return;
        }
        let publication = Publication {
            publisher: client,
            topic: TOPICS[self.stage.random.below(TOPICS.len())],
            qos: (self.stage.random.below(10) as u8).div_ceil(4).min(2),
            retain: self.stage.random.chance(8),
            padding: if self.stage.random.chance(4) { 5000 } else { 0 },
            attempts: Vec::new(),
            acked: None,
            will: false,
        };
        let World { clients, ledger, .. } = self;
        let version = clients[client].role.version;
        let packet = clients[client].publisher.publish(version, publication, ledger);
        self.send(client, &packet);
    }

    fn subscribe(&mut self, client: usize) {
        let wanted = self.clients[client].role.filters.clone();
        if wanted.is_empty() {
            return;
        }
        let (filter, qos) = *self.stage.random.pick(&wanted);
        let World { clients, ledger, stage, .. } = self;
        let subscriber = &mut clients[client];
        let packet = if !subscriber.receiver.is_subscribed(filter) || stage.random.chance(2) {
            subscriber.subscribe(filter, qos, ledger)
        } else if stage.random.chance(2) {
            subscriber.unsubscribe(filter, ledger)
        } else {
            return;
        };
        self.send(client, &packet);
    }
}
