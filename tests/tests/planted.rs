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

/// And without it the same run is clean.
#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match first_failure(bug) {
            Some(failure) => {
                println!("{bug:?}: {failure}");
                assert!(run(failure.seed, None).is_ok(), "{failure} without {bug:?} too");
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {RUNS} runs: {missed:?}");
}
