//! Random calls, messages and operations of IM against a broker that is killed again and again:
//! everything below `im/`, with bodies that keep to the form or do not.
//!
//! `words` makes up topics and bodies, `device` is one connection after the other and judges what it
//! gets, `stage` is what the devices' threads and the run know together. The same seed makes up the
//! same words; how the threads meet differs between runs.

pub mod device;
pub mod stage;
pub mod words;

use std::fmt;
use std::thread;

use crate::broker::{Broker, Options};
use crate::fuzz::Plan;
use crate::fuzz::random::Random;
use crate::{program, unique_address};
use device::Device;
use stage::{Sentinel, Stage};
use words::USERS;

/// Kills of one run.
const KILLS: u64 = 3;
/// Lines of the broker's log that a failure shows.
const LOG_LINES: usize = 20;
/// Small limits, so that everything goes and is merged all the time, but for messages, so that few
/// are refused.
const CONFIGURATION: &str = r#"
    [broker]
    workers = 2
    shards = 2

    [im]
    small_group_members = 3
    sweep_interval_secs = 1
    dedup_window_secs = 2
    dedup_window_entries = 5
    replay_per_conversation = 3
    big_group_per_sec = 2
    presence_grace_secs = 1
    roster_per_user = 4
    sends_per_sec = 100_000
    send_burst = 100_000

    [im.retention]
    entries = 12
    age_secs = 4

    [im.retention_big]
    entries = 5

    [im.rooms]
    ring_messages = 3
"#;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Publications that were made.
    pub publications: u64,
    /// Calls that were answered.
    pub answers: u64,
    /// Messages that came to a device, answers among them.
    pub deliveries: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { publications, answers, deliveries } = self;
        write!(f, "{publications} publications, {answers} answers, {deliveries} deliveries")
    }
}

/// Runs the plan; panics with the seed when something is wrong.
pub fn run(plan: Plan) -> Tally {
    let mut total = Tally::default();
    plan.each_seed(|seed, _| {
        let tally = run_seed(seed, plan.packets);
        total.publications += tally.publications;
        total.answers += tally.answers;
        total.deliveries += tally.deliveries;
    });
    total
}

fn run_seed(seed: u64, publications: u64) -> Tally {
    let options = Options::new().at(unique_address()).configuration(CONFIGURATION);
    let mut broker = options.start();
    let (address, stage) = (broker.tcp(), Stage::new(publications));
    let classes = USERS.iter().map(|user| (*user, "web")).chain([("u0", "pc"), ("u1", "pc")]);
    let mut tally = Tally { publications, ..Tally::default() };
    let mut faults = Vec::new();
    thread::scope(|scope| {
        let devices: Vec<_> = classes
            .enumerate()
            .map(|(at, (user, class))| {
                let random = Random::new(seed.wrapping_mul(1_000).wrapping_add(at as u64));
                let mut device = Device::new(address, &stage, random, user, class);
                let stage = &stage;
                scope.spawn(move || {
                    let _sentinel = Sentinel(stage);
                    device.live();
                    (device.answers, device.deliveries)
                })
            })
            .collect();
        for kill in 1..=KILLS {
            if !stage.wait_for(publications * kill / (KILLS + 1)) {
                break;
            }
            faults.extend(complaints(&broker));
            stage.set_up(false);
            broker.kill_and_restart();
            stage.set_up(true);
        }
        for device in devices {
            let Ok((answers, deliveries)) = device.join() else { continue };
            tally.answers += answers;
            tally.deliveries += deliveries;
        }
    });
    faults.extend(stage.take_fault());
    faults.extend(complaints(&broker));
    if !faults.is_empty() {
        faults.push(format!("the broker's log:\n{}", broker.log_end(LOG_LINES)));
    }
    let status = broker.stop();
    if !status.success() {
        faults.push(format!("the broker stopped with {status}"));
    }
    faults.extend(damage(&broker));
    assert!(faults.is_empty(), "HOOPOE_FUZZ_SEED={seed}:\n{}", faults.join("\n"));
    tally
}

/// What the broker has to complain of: nothing that a client does is an error of the broker's.
fn complaints(broker: &Broker) -> Option<String> {
    let log = ["panicked", "ERROR"].into_iter().find(|word| broker.has_logged(word))?;
    Some(format!("{log} in the broker's log"))
}

/// What `hoopoe repair` finds in the store that the broker has left.
fn damage(broker: &Broker) -> Option<String> {
    let mut command = program::hoopoe_command();
    command.arg("repair").arg(broker.data());
    let (status, said) = program::run_to_end(command);
    let is_whole = status.success() && said.contains("nothing was lost");
    (!is_whole).then(|| format!("hoopoe repair: {said}"))
}
