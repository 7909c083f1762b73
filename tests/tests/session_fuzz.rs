//! Random packet sequences against a running broker, of the same few seeds for every change.
//! `HOOPOE_FUZZ_SECS=600` goes on from any seed for ten minutes, `HOOPOE_FUZZ_SEED=…` shows again the
//! one that a failure named.

use hoopoe_tests::fuzz::{Plan, run};

#[test]
fn random_packet_sequences_break_nothing() {
    let plan = Plan::from_environment();
    println!("from HOOPOE_FUZZ_SEED={} on", plan.seed);
    let tally = run(plan);
    println!("{tally}");
    assert!(tally.deliveries > 0 && tally.resumed > 0 && tally.healthy > 0, "{tally}");
}
