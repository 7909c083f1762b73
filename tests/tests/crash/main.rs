//! The broker is killed again and again, and loses its power, while many clients use it; what they
//! saw is audited. `make crash` does the same for longer. HOOPOE_CRASH_SEED takes another seed.

mod chat;
mod power;

use hoopoe_tests::crash::{Outcome, Settings, run};

/// The seed of every change; a failure found with another one goes beside it.
const SEED: u64 = 1;

#[allow(clippy::print_stdout, reason = "shown when a test fails")]
fn crash(settings: &Settings) -> Outcome {
    let mut settings = settings.clone();
    if let Ok(seed) = std::env::var("HOOPOE_CRASH_SEED") {
        settings.seed = seed.parse().unwrap_or_else(|error| panic!("{seed}: {error}"));
    }
    // Said before anything can go wrong: a broker that does not start ends the test at once.
    println!("{}", settings.command());
    let outcome = run(&settings, &mut |line| println!("{line}"));
    println!("{}", outcome.summary());
    outcome
}

#[track_caller]
fn expect_nothing_wrong(outcome: &Outcome) {
    let Outcome { settings, faults, report, .. } = outcome;
    assert!(faults.is_empty(), "{report}\nagain: {}", settings.command());
    assert!(outcome.acked > 0 && outcome.delivered > 0, "nothing was done");
}

#[test]
fn what_clients_were_promised_holds_through_a_dozen_kills() {
    let settings = Settings { seed: SEED, kills: 12, acks: 300, ..Settings::default() };
    expect_nothing_wrong(&crash(&settings));
}

#[test]
fn what_is_only_written_survives_kills_too() {
    let durability = "os".to_owned();
    let settings = Settings { seed: SEED, kills: 4, acks: 300, durability, ..Settings::default() };
    expect_nothing_wrong(&crash(&settings));
}
