//! The simulation finds bugs: each one planted on purpose shows within so many runs, and what it
//! says names it. Built with the feature `planted`, which no program has.

use hoopoe_core::planted::{Bug, plant};
use hoopoe_tests::simulation::{Failure, run};

/// Runs in which a planted bug has to show.
const RUNS: u64 = 400;

fn first_failure(bug: Bug) -> Option<Failure> {
    plant(Some(bug));
    let found = (1..=RUNS).find_map(|seed| run(seed, None).err());
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match first_failure(bug) {
            Some(failure) => println!("{bug:?}: {failure}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {RUNS} runs: {missed:?}");
}

#[test]
fn without_a_bug_the_same_runs_are_clean() {
    let failures: Vec<Failure> = (1..=RUNS).filter_map(|seed| run(seed, None).err()).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}
