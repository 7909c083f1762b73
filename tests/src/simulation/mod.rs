//! A whole broker in one thread, from a seed: the node's own connections, sessions, codec, index,
//! shards and readers, driven turn by turn in made-up time over a store that fails and crashes and
//! links that break, with clients that judge every packet they get.
//!
//! `link` is what lies between, `broker` the broker, `client` with its halves `publisher` and
//! `receiver` who takes part, `script` what they do, `ledger` what has happened, `stage` what goes
//! wrong, `world` lets them all go on in an order that the seed decides. `chat` is another world, of
//! users who chat, over the same broker. The same seed gives the same run to the last byte.

pub mod broker;
pub mod chat;
pub mod client;
pub(crate) mod guard;
pub mod ledger;
pub mod link;
pub mod publisher;
pub mod receiver;
pub mod script;
pub mod stage;
pub mod world;

use crate::crash::random::Random;
use guard::guarded;
use stage::Stage;
pub use stage::{Listener, Mishaps};
pub use world::Tally;
use world::World;

/// Steps of a run before it is brought to its end.
const STEPS: usize = 600;

/// A run that showed something that must not be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("seed {seed}, step {step}{}: {what}", if *disk_failed { ", after a fault of the disk" } else { "" })]
pub struct Failure {
    /// `make sim SEED=…` shows it again.
    pub seed: u64,
    /// In which step.
    pub step: u64,
    /// Whether the disk had failed by then.
    pub disk_failed: bool,
    /// What.
    pub what: String,
}

/// One run; `listener` is told its course.
///
/// # Errors
/// When an invariant was broken.
pub fn run(seed: u64, listener: Option<Listener>) -> Result<Tally, Failure> {
    let mut random = Random::new(seed);
    let shape = script::shape(&mut random);
    let temper = script::temper(seed, &mut random);
    let roles = script::roles(&mut random, &shape);
    let mut world = World::new(Stage::new(random, shape, temper, listener), roles);
    let result = guarded(|| play(&mut world));
    let (step, disk_failed) = (world.stage.steps, world.ledger.disk_failed);
    result.map(|()| world.tally).map_err(|what| Failure { seed, step, disk_failed, what })
}

fn play(world: &mut World) -> Result<(), String> {
    for _ in 0..STEPS {
        world.step()?;
    }
    world.settle()?;
    world.verdict()
}
