//! Against Hoopoe, which alone speaks the IM profile besides: the program beside this one, or
//! `HOOPOE_BIN`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::erring::{Erring, Error};
use super::meddler::Meddler;
use super::program::{SMALL, assert_caught, call, path, play};
use super::table::{Needs, ROWS};

/// A broker of one test.
struct Hoopoe {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

fn program() -> PathBuf {
    std::env::var_os("HOOPOE_BIN").map_or_else(|| path().with_file_name("hoopoe"), PathBuf::from)
}

impl Hoopoe {
    fn start() -> Hoopoe {
        let program = program();
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(&program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOOPOE_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["serve", "--listen", "tcp://127.0.0.1:0", "--http", "off", "--data"])
            .arg(dir.path())
            // Closed loops send more than people may.
            .env("HOOPOE_IM__SENDS_PER_SEC", "1000000")
            .env("HOOPOE_IM__SEND_BURST", "1000000")
            // And every member of a big group is to get everything.
            .env("HOOPOE_IM__BIG_GROUP_PER_SEC", "1000000")
            // And every viewer of a room.
            .env("HOOPOE_IM__ROOMS__CHAT_PER_SEC", "1000000")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|why| panic!("{}: {why}; `make test` builds it", program.display()));
        let mut port = None;
        let output = child.stdout.take().unwrap();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("listening on tcp://") {
                port = address.rsplit(':').next().and_then(|port| port.parse().ok());
            }
            if line == "ready" {
                break;
            }
        }
        Hoopoe { child, port: port.expect("it says where it listens"), _dir: dir }
    }
}

impl Drop for Hoopoe {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(|_| ()).unwrap_or_default();
    }
}

#[test]
fn every_scenario_passes_in_both_versions() {
    let broker = Hoopoe::start();
    for version in ["3.1.1", "5.0"] {
        for row in ROWS.iter().filter(|row| row.needs != Needs::Lever) {
            let scenario = row.words();
            let outcome = play(broker.port, &format!("{scenario} --mqtt {version}"));
            assert_eq!(outcome.code, 0, "{scenario} {version}\n{}", outcome.text);
            assert!(outcome.reports[0]["work"].as_u64() > Some(0), "{}", outcome.text);
            assert_eq!(outcome.check("doubled"), 0, "{scenario} {version}\n{}", outcome.text);
        }
    }
}

/// Hoopoe for `versus`; `http` is where it serves HTTP.
fn recipe(http: &str) -> String {
    format!(
        "hoopoe=HOOPOE_IM__SENDS_PER_SEC=1000000 HOOPOE_IM__SEND_BURST=1000000 exec {} serve --listen \
         tcp://127.0.0.1:{{port}} --data {{dir}}/data --http {http} --anonymous",
        program().display()
    )
}

#[test]
fn pulls_after_a_restart_find_everything() {
    let words = "versus im-sync --cold --clients 4 --subscriptions 3 --messages 60 --rounds 1";
    let outcome = call(&format!("{words} {SMALL}"), &["--with", &recipe("off")]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    // Each conversation once, however long the time.
    assert_eq!(outcome.reports[0]["work"], 12, "{}", outcome.text);
    assert!(outcome.reports[0]["figures"]["sync_p50_ms"].as_f64() > Some(0.0));
}

#[test]
fn devices_come_with_tokens_made_for_them() {
    let words = "versus storm --clients 40 --rounds 1 --username u{n} --tokens \
                 http://127.0.0.1:{http}/v1/tokens";
    let outcome = call(words, &["--with", &recipe("127.0.0.1:{http}")]);
    assert_eq!((outcome.code, &outcome.reports[0]["work"]), (0, &40.into()), "{}", outcome.text);
    let outcome = call(words, &["--with", &recipe("off")]);
    assert!(outcome.code == 1 && outcome.text.contains("/v1/tokens"), "{}", outcome.text);
}

#[test]
fn nothing_acknowledged_is_lost_however_often_it_is_killed() {
    let recipe = recipe("off");
    for row in ROWS.iter().filter(|row| row.needs == Needs::Lever) {
        for version in ["3.1.1", "5.0"] {
            let words = format!("versus {} --mqtt {version} --rounds 1 {SMALL}", row.words());
            let outcome = call(&words, &["--with", &recipe]);
            assert_eq!(outcome.code, 0, "{words}\n{}", outcome.text);
            assert!(outcome.reports[0]["work"].as_u64() > Some(0), "{}", outcome.text);
        }
    }
}

#[test]
fn every_claimed_check_of_the_profile_finds_its_error() {
    let broker = Hoopoe::start();
    for row in ROWS.iter().filter(|row| row.needs == Needs::Profile) {
        for (error, counter) in row.claims {
            let meddler = Meddler::start(broker.port, *error);
            let outcome = play(meddler.port, &row.words());
            assert_caught(&row.words(), &outcome, *error, counter);
        }
        let meddler = Meddler::start(broker.port, Error::Never);
        let outcome = play(meddler.port, &row.words());
        assert_eq!(outcome.code, 0, "{}\n{}", row.words(), outcome.text);
    }
}

#[test]
fn a_broker_without_the_profile_does_not_pass() {
    let broker = Erring::start(Error::Never);
    let outcome = play(broker.port, "im-pairs --pairs 2 --duration 0.2");
    assert_eq!(outcome.code, 3, "{}", outcome.text);
    assert!(outcome.check("lost") > 0, "{}", outcome.text);
}
