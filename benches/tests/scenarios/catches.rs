//! Every scenario that claims to check something is held against a broker that gets it wrong.

use std::process::Command;

use super::erring::{Erring, Error};
use super::program::{Outcome, assert_caught, interrupted, path, play};
use super::table::{MORE, Needs, ROWS, Row, row};

/// Plays a scenario against an erring broker.
fn against(row: &Row, error: Error) -> Outcome {
    let broker = Erring::start(error);
    let dir = tempfile::tempdir().unwrap();
    let lever = match row.needs {
        Needs::Lever => broker.lever(dir.path()),
        _ => String::new(),
    };
    play(broker.port, &format!("{} {lever}", row.words()))
}

#[test]
fn every_scenario_is_in_the_table() {
    let output = Command::new(path()).arg("list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<&str> =
        text.lines().filter_map(|line| line.split_ascii_whitespace().next()).collect();
    let mut known: Vec<&str> = ROWS.iter().map(|row| row.preset).collect();
    known.dedup();
    assert_eq!(listed, known, "a new scenario says in table.rs what it checks");
}

#[test]
fn every_claimed_check_finds_its_error() {
    for row in ROWS.iter().filter(|row| row.needs != Needs::Profile) {
        for (error, counter) in row.claims {
            let outcome = against(row, *error);
            assert_caught(&row.words(), &outcome, *error, counter);
        }
    }
}

#[test]
fn other_errors_are_found_too() {
    for (preset, error, counter) in MORE {
        let outcome = against(row(preset), *error);
        assert_caught(preset, &outcome, *error, counter);
    }
}

#[test]
fn a_broker_without_errors_passes_every_scenario() {
    for row in ROWS.iter().filter(|row| row.needs != Needs::Profile) {
        let outcome = against(row, Error::Never);
        assert_eq!(outcome.code, 0, "{}\n{}", row.words(), outcome.text);
    }
}

#[test]
fn connections_that_end_or_are_forgotten_are_faults() {
    let broker = Erring::start(Error::HangUp);
    let outcome = play(broker.port, &row("idle").words());
    assert_eq!(outcome.code, 3, "{}", outcome.text);
    assert!(outcome.faults().contains("closed while idle"), "{}", outcome.text);

    let broker = Erring::start(Error::ForgetSessions);
    let outcome = play(broker.port, &row("storm-resume").words());
    assert_eq!(outcome.code, 3, "{}", outcome.text);
    assert!(outcome.faults().contains("not present"), "{}", outcome.text);
}

#[test]
fn a_refused_client_ends_the_run_with_the_reason() {
    let broker = Erring::start(Error::Refuse);
    let outcome = play(broker.port, &row("storm").words());
    assert_eq!(outcome.code, 1, "{}", outcome.text);
    assert!(outcome.text.contains("NotAuthorized"), "{}", outcome.text);
}

#[test]
fn a_repetition_with_dup_is_no_fault_at_qos_1() {
    let broker = Erring::start(Error::Repeat);
    let outcome = play(broker.port, &row("pairs1").words());
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert!(outcome.check("redelivered") > 0, "{}", outcome.text);
}

#[test]
fn losses_at_qos_0_are_told_but_no_fault() {
    let broker = Erring::start(Error::Lose);
    let outcome = play(broker.port, "room5000 --clients 8 --duration 0.3");
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert!(outcome.check("lost") > 0, "{}", outcome.text);
    assert!(outcome.text.contains("lost at QoS 0"), "{}", outcome.text);
}

#[test]
fn nothing_listening_is_said_with_the_remedy() {
    // Bound, so that nobody else can listen there, but not listening.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let outcome = play(port, &row("pairs1").words());
    assert_eq!(outcome.code, 1);
    assert!(outcome.text.contains("connection refused"), "{}", outcome.text);
}

#[test]
fn an_interrupted_run_ends_with_what_was_measured() {
    let broker = Erring::start(Error::Never);
    let words = format!("run pairs1 --pairs 3 --duration 600 --warmup 0 --port {}", broker.port);
    let outcome = interrupted(&words, || broker.await_deliveries(1000));
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert_eq!(outcome.reports[0]["interrupted"], true);
    assert!(outcome.reports[0]["work"].as_u64() > Some(0), "{}", outcome.text);
    assert!(outcome.text.contains("ended early"), "{}", outcome.text);
}
