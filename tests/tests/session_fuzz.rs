//! Random packet sequences against a running broker. `HOOPOE_FUZZ_SECS=600` runs for ten minutes,
//! `HOOPOE_FUZZ_SEED=…` starts from the seed that a failure named.

use hoopoe_tests::fuzz::{Plan, run};

#[test]
fn random_packet_sequences_break_nothing() {
    let plan = Plan::from_environment();
    println!("HOOPOE_FUZZ_SEED={}", plan.seed);
    let tally = run(plan);
    println!("{tally}");
    assert!(tally.deliveries > 0 && tally.resumed > 0 && tally.healthy > 0, "{tally}");
}
