//! The simulation finds bugs: each one planted on purpose shows within so many runs, and what it
//! says names it. Built with the feature `planted`, which no program has.

use hoopoe_core::planted::{Bug, plant};
use hoopoe_tests::simulation::{Failure, chat, run};

/// Runs in which a planted bug has to show.
const RUNS: u64 = 400;

/// And without it the same run is clean.
#[track_caller]
fn expect_all_found(bugs: &[Bug], run: impl Fn(u64) -> Option<Failure>) {
    let mut missed = Vec::new();
    for bug in bugs {
        plant(Some(*bug));
        let found = (1..=RUNS).find_map(&run);
        plant(None);
        match found {
            Some(failure) => {
                println!("{bug:?}: {failure}");
                assert!(run(failure.seed).is_none(), "{failure} without {bug:?} too");
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {RUNS} runs: {missed:?}");
}

#[test]
fn every_planted_bug_is_found() {
    expect_all_found(&Bug::PLAIN, |seed| run(seed, None).err());
}

#[test]
fn every_bug_planted_in_the_im_profile_is_found() {
    expect_all_found(&Bug::CHAT, |seed| chat::run(seed, None).err());
}
