//! Random packet sequences against a running broker: many clients that connect, subscribe, publish,
//! acknowledge, take each other over, break off and misbehave as one seed has it, with a model of
//! what the broker may answer.
//!
//! `compose` and `mutate` make packets up, `swarm` decides who sends what, `conversation`,
//! `answers` and `deliveries` are the model of one connection, `ledger` of everything beyond,
//! `healthy` are the clients that must notice nothing. The same seed makes up the same choices;
//! what the broker's threads make of them may differ between runs.

pub mod answers;
pub mod compose;
pub mod conversation;
pub mod deliveries;
pub mod healthy;
pub mod ledger;
pub mod limits;
pub mod link;
pub mod mutate;
pub mod random;
pub mod swarm;
pub mod vocabulary;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Options};
use crate::wire::Version;
use healthy::Pair;
use limits::Limits;
use random::Random;
use swarm::Swarm;

/// The first seed of every change, and how many follow each other, each with a broker of its own.
const DEFAULT_SEED: u64 = 1;
const DEFAULT_RUNS: u64 = 4;
/// Packets of one run, unless the environment says otherwise.
const DEFAULT_PACKETS: u64 = 15_000;
/// Turns between two looks at the clock and the healthy pairs.
const TURNS_BETWEEN_LOOKS: usize = 64;

/// Lines of the broker's log that a failure shows.
const LOG_LINES: usize = 20;

/// How much to do, and from which seed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The first seed; further runs count up from it.
    pub seed: u64,
    /// Runs, each with another seed and broker.
    pub runs: u64,
    /// Packets to make up in a run.
    pub packets: u64,
    /// In place of a number of runs: for how long.
    pub time: Option<Duration>,
}

impl Plan {
    /// `HOOPOE_FUZZ_SEED` (one run), `HOOPOE_FUZZ_COUNT` (packets of a run) and `HOOPOE_FUZZ_SECS`,
    /// which begins with any seed when none is given.
    pub fn from_environment() -> Plan {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
        };
        let seed = number("HOOPOE_FUZZ_SEED");
        let time = number("HOOPOE_FUZZ_SECS").map(Duration::from_secs);
        Plan {
            seed: seed.unwrap_or_else(|| if time.is_some() { any_seed() } else { DEFAULT_SEED }),
            runs: if seed.is_some() { 1 } else { DEFAULT_RUNS },
            packets: number("HOOPOE_FUZZ_COUNT").unwrap_or(DEFAULT_PACKETS),
            time,
        }
    }

    /// One seed after the other, each with when the whole plan has to be done.
    pub fn each_seed(&self, mut run: impl FnMut(u64, Option<Instant>)) {
        let until = self.time.map(|time| Instant::now() + time);
        for seed in self.seed.. {
            let over = match until {
                Some(until) => Instant::now() >= until,
                None => seed - self.seed == self.runs,
            };
            if over {
                break;
            }
            run(seed, until);
        }
    }
}

/// Another seed each time: a failure names it.
fn any_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) % 1_000_000_000
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Packets made up.
    pub sent: u64,
    /// Packets judged.
    pub received: u64,
    /// Messages among them.
    pub deliveries: u64,
    /// Connections.
    pub connections: u64,
    /// Sessions resumed.
    pub resumed: u64,
    /// Messages of the healthy pairs.
    pub healthy: u64,
    /// The longest that a healthy subscriber waited for a message.
    pub longest_wait: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packets sent, {} judged, {} messages, {} connections, {} sessions resumed, \
             {} healthy messages (longest wait {:?})",
            self.sent,
            self.received,
            self.deliveries,
            self.connections,
            self.resumed,
            self.healthy,
            self.longest_wait
        )
    }
}

/// Runs the plan; panics with the seed when something is wrong.
pub fn run(plan: Plan) -> Tally {
    let mut total = Tally::default();
    plan.each_seed(|seed, until| {
        let tally = run_seed(seed, plan.packets, until);
        total.sent += tally.sent;
        total.received += tally.received;
        total.deliveries += tally.deliveries;
        total.connections += tally.connections;
        total.resumed += tally.resumed;
        total.healthy += tally.healthy;
        total.longest_wait = total.longest_wait.max(tally.longest_wait);
    });
    total
}

fn run_seed(seed: u64, packets: u64, until: Option<Instant>) -> Tally {
    let mut random = Random::new(seed);
    let limits = Rc::new(Limits::draw(&mut random));
    let mut broker = Options::new().no_listeners().configuration(&limits.configuration()).start();
    let address = broker.tcp();
    let pairs =
        [Pair::start(address, Version::V5, true), Pair::start(address, Version::V311, false)];
    let mut swarm = Swarm::new(random, limits.clone(), address);
    let result = drive(&mut swarm, &pairs, packets, until).and_then(|()| swarm.settle());
    let mut tally = Tally {
        sent: swarm.packets,
        received: swarm.ledger.packets,
        deliveries: swarm.ledger.deliveries,
        connections: swarm.connections(),
        resumed: swarm.ledger.resumed,
        ..Tally::default()
    };
    let mut faults: Vec<String> = result.err().into_iter().collect();
    for pair in pairs {
        match pair.finish() {
            Ok((messages, longest)) => {
                tally.healthy += messages;
                tally.longest_wait = tally.longest_wait.max(longest);
            }
            Err(fault) => faults.push(fault),
        }
    }
    drop(swarm);
    if !faults.is_empty() {
        faults.push(format!("the broker's log:\n{}", broker.log_end(LOG_LINES)));
    }
    faults.extend(end(&mut broker));
    assert!(
        faults.is_empty(),
        "HOOPOE_FUZZ_SEED={seed} (after {} packets, {limits:?}):\n{}",
        tally.sent,
        faults.join("\n")
    );
    tally
}

fn drive(
    swarm: &mut Swarm,
    pairs: &[Pair],
    packets: u64,
    until: Option<Instant>,
) -> Result<(), String> {
    while swarm.packets < packets {
        for _ in 0..TURNS_BETWEEN_LOOKS {
            swarm.turn()?;
        }
        if pairs.iter().any(Pair::has_failed) {
            return Err("a healthy client has failed".to_owned());
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    Ok(())
}

/// The broker is alive, has nothing to report, and stops when asked.
fn end(broker: &mut Broker) -> Option<String> {
    if broker.has_logged("panicked") {
        return Some("the broker's log tells of a panic".to_owned());
    }
    let status = broker.stop();
    (!status.success()).then(|| format!("the broker stopped with {status}"))
}
