//! What to run, and the broker that it is run against.

use tokio::task::LocalSet;

use super::power::Power;
use crate::broker::Options;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides everything.
    pub seed: u64,
    /// How often the broker is killed, besides the last time.
    pub kills: usize,
    /// Publications acknowledged in an ordinary round.
    pub acks: usize,
    /// `sync` or `os`.
    pub durability: String,
    /// Each kill is a power cut: what was not synced is gone.
    pub power_cuts: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { seed: 1, kills: 20, acks: 400, durability: "sync".to_owned(), power_cuts: false }
    }
}

impl Settings {
    /// What replays this run's decisions.
    pub fn command(&self) -> String {
        let Settings { seed, kills, acks, durability, power_cuts } = self;
        let power_cuts = if *power_cuts { "yes" } else { "no" };
        format!(
            "make crash SEED={seed} KILLS={kills} ARGS='--acks {acks} --durability {durability} \
             --power-cuts {power_cuts}'"
        )
    }

    /// The broker, not started yet, and what cuts its power.
    pub(super) fn broker(&self) -> (Options, Option<Power>) {
        let options = Options::new()
            .argument("--durability")
            .argument(&self.durability)
            .environment("HOOPOE_BROKER__RESTART_GRACE_SECS", "1");
        if self.power_cuts {
            let (options, power) = Power::watch(options);
            (options, Some(power))
        } else {
            (options, None)
        }
    }
}

/// Runs to the end, all clients on this thread.
pub(super) fn on_one_thread<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    LocalSet::new().block_on(&runtime, run)
}
