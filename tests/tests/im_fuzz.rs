//! Random calls, messages and operations of IM against a broker that is killed, of the same few
//! seeds for every change; `HOOPOE_FUZZ_SECS` and `HOOPOE_FUZZ_SEED` as for `session_fuzz`.

use hoopoe_tests::fuzz::Plan;
use hoopoe_tests::im_fuzz::run;

#[test]
fn random_calls_and_kills_break_nothing() {
    let plan = Plan::from_environment();
    println!("from HOOPOE_FUZZ_SEED={} on", plan.seed);
    let tally = run(plan);
    println!("{tally}");
    assert!(tally.answers > 0 && tally.deliveries > 0, "{tally}");
}
