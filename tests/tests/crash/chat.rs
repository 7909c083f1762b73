//! Users who chat, while the broker is killed and loses its power.

use hoopoe_tests::crash::Settings;
use hoopoe_tests::crash::chat::run;

#[allow(clippy::print_stdout, reason = "shown when a test fails")]
fn crash(settings: &Settings) {
    let mut settings = settings.clone();
    if let Ok(seed) = std::env::var("HOOPOE_CRASH_SEED") {
        settings.seed = seed.parse().unwrap_or_else(|error| panic!("{seed}: {error}"));
    }
    println!("{} CAST=chat", settings.command());
    let outcome = run(&settings, &mut |line| println!("{line}"));
    println!("{}", outcome.summary());
    assert!(outcome.faults.is_empty(), "{}", outcome.report);
    let enough = settings.kills * settings.acks / 8;
    assert!(outcome.answered > enough && outcome.delivered > enough, "nothing was done");
    assert!(outcome.refused * 2 < outcome.answered, "most of it was refused");
}

#[test]
fn what_chat_users_were_promised_holds_through_kills() {
    crash(&Settings { seed: super::SEED, kills: 8, acks: 300, ..Settings::default() });
}

#[test]
fn what_chat_users_were_promised_holds_through_power_cuts() {
    let settings = Settings { seed: super::SEED, kills: 3, acks: 200, ..Settings::default() };
    crash(&Settings { power_cuts: true, ..settings });
}
