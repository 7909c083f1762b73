//! Seeded runs of a whole broker in one thread. `make sim RUNS=…` makes more of them, `make sim
//! SEED=… CAST=plain` or `CAST=chat` shows one again, step by step.

use std::fmt::Debug;
use std::ops::AddAssign;
use std::time::Instant;

use hoopoe_tests::simulation::{Failure, Listener, Mishaps, Tally, chat, run};

/// Runs of an ordinary test.
const RUNS: u64 = 200;
/// Runs that are made twice.
const REPEATED: u64 = 10;
/// Failures that are told.
const TOLD: usize = 20;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Makes the runs that are asked for; their sum, when there are enough of them to be judged.
#[expect(clippy::print_stdout, reason = "what runs have found is read at a terminal")]
fn all<T: Default + AddAssign + Debug>(
    cast: &str,
    run: fn(u64, Option<Listener>) -> Result<T, Failure>,
) -> Option<T> {
    if std::env::var("HOOPOE_SIM_CAST").is_ok_and(|of| of != cast) {
        return None;
    }
    let (first, runs) = match (number("HOOPOE_SIM_SEED"), number("HOOPOE_SIM_RUNS")) {
        (Some(seed), runs) => (seed, runs.unwrap_or(1)),
        (None, runs) => (1, runs.unwrap_or(RUNS)),
    };
    let listener: Option<Listener> = (runs == 1).then_some(|line| println!("{line}"));
    let started = Instant::now();
    let mut all = T::default();
    let mut failures: Vec<Failure> = Vec::new();
    for seed in first..first + runs {
        match run(seed, listener) {
            Ok(tally) => all += tally,
            Err(failure) => failures.push(failure),
        }
    }
    println!("{cast}: {runs} runs from seed {first} in {:.1?}: {all:?}", started.elapsed());
    for failure in failures.iter().take(TOLD) {
        println!("{failure}; `make sim CAST={cast} SEED={}` shows it", failure.seed);
    }
    assert!(failures.is_empty(), "{} of {runs} runs failed", failures.len());
    (runs >= RUNS).then_some(all)
}

#[test]
fn nothing_that_must_hold_is_broken() {
    let Some(all) = all::<Tally>("plain", run) else { return };
    // A simulation in which nothing goes wrong proves nothing.
    let seen = [
        all.repeats,
        all.resumed,
        all.take_overs,
        all.mishaps.crashes,
        all.mishaps.restarts,
        all.mishaps.disk_faults,
        all.mishaps.read_faults,
        all.entries,
    ];
    assert!(seen.iter().all(|count| *count > 0), "{all:?}");
    assert!(all.acknowledged * 2 > all.publications && all.deliveries > 0, "{all:?}");
}

/// Faults that few seeds show, and what went wrong with them once.
#[test]
fn what_few_seeds_have_shown_does_not_come_back() {
    for (seed, what) in [
        (362_241, "a read that came upon no entry passed the one before it, which was on its way"),
        (361_009, "what was in delivery to a member of a group that unsubscribed was nobody's"),
        (529_421, "the number of a group in memory was used again after a crash"),
        (709_546, "and so were its entries' numbers when it became a stored one"),
        (38_061, "the identifier of a dropped message was used again while the client held it"),
        (846_309, "what a full queue had dropped came back after a crash, behind later messages"),
        (823_337, "a member of a group whose row was not written was none after a crash"),
        (803, "a repetition was refused that was stored, and the next of its identifier was lost"),
    ] {
        assert_eq!(run(seed, None).err(), None, "{what}");
    }
}

#[test]
fn nothing_that_chat_users_are_promised_is_broken() {
    let Some(all) = all::<chat::Tally>("chat", chat::run) else { return };
    let Mishaps { crashes, restarts, disk_faults, read_faults } = all.mishaps;
    let faults = [crashes, restarts, disk_faults, read_faults];
    assert!(faults.iter().all(|count| *count > 0), "{all:?}");
    let seen = [all.refused, all.delivered, all.take_overs];
    assert!(seen.iter().all(|count| *count > 0), "{all:?}");
    assert!(all.answered > 2 * all.refused && all.delivered > all.answered, "{all:?}");
}

/// Invariant 9, of the whole broker: same inputs, times and seed, same bytes in the same order.
#[test]
fn a_seed_gives_the_same_run_to_the_last_byte() {
    for seed in 1..=REPEATED {
        assert_eq!(run(seed, None), run(seed, None));
        assert_eq!(chat::run(seed, None), chat::run(seed, None));
    }
}
