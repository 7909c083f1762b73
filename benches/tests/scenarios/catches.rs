//! Every scenario that claims to check something is held against a broker that gets it wrong.

use super::erring::{Erring, Error};
use super::program::{interrupted, play};

const PAIRS: &str = "pairs1 --pairs 3 --duration 0.3";
const PAIRS2: &str = "pairs2 --pairs 3 --duration 0.3";
const DURABLE: &str = "pairs-durable --pairs 3 --window 5 --duration 0.3";
const GROUP: &str = "group200 --groups 4 --members 6 --memberships 2 --speakers 1 --duration 0.3";
const GROUP_DURABLE: &str =
    "group-durable --groups 2 --members 6 --memberships 2 --speakers 1 --duration 0.3";
const ROOM: &str = "room5000 --clients 8 --qos 1 --duration 0.3";
const RATE: &str = "rate5k --pairs 2 --rate 300 --duration 0.5";
const RETAINED: &str = "retained --messages 100 --publishers 2";
const OFFLINE: &str = "offline --clients 4 --messages 20 --publishers 2";
const CRASH: &str = "crash --clients 4 --messages 20 --publishers 2 --kill true --restart true";
const LOGIN: &str =
    "login --clients 6 --subscriptions 8 --news 2 --messages 20 --publishers 2 --pending 4";
const MIXED: &str = "mixed --clients 12 --groups 3 --members 4 --viewers 6 --churn 20 --away 0.05 \
                     --rate 500 --duration 0.5";
const OFFICE: &str = "office --clients 12 --groups 3 --members 4 --rate 500 --duration 0.5";
const STORM: &str = "storm --clients 40";
const RESUME: &str = "storm-resume --clients 40";
const IDLE: &str = "idle --clients 40 --duration 0.3";

/// Scenario, what the broker does wrong, and the counter that must have seen it.
const CAUGHT: &[(&str, Error, &str)] = &[
    (PAIRS, Error::Lose, "lost"),
    (PAIRS, Error::Double, "doubled"),
    (PAIRS, Error::Overtake, "out_of_order"),
    (PAIRS, Error::Misroute, "misrouted"),
    (PAIRS, Error::Damage, "damaged"),
    (PAIRS2, Error::Lose, "lost"),
    (PAIRS2, Error::Double, "doubled"),
    (PAIRS2, Error::Repeat, "redelivered"),
    (DURABLE, Error::Lose, "lost"),
    (DURABLE, Error::Overtake, "out_of_order"),
    (GROUP, Error::Lose, "lost"),
    (GROUP, Error::Double, "doubled"),
    (GROUP, Error::Overtake, "out_of_order"),
    (GROUP, Error::Misroute, "misrouted"),
    (GROUP_DURABLE, Error::Lose, "lost"),
    (ROOM, Error::Lose, "lost"),
    (ROOM, Error::Double, "doubled"),
    (ROOM, Error::Overtake, "out_of_order"),
    (RATE, Error::Lose, "lost"),
    (RATE, Error::Double, "doubled"),
    (RETAINED, Error::Lose, "lost"),
    (RETAINED, Error::Double, "doubled"),
    (OFFLINE, Error::Lose, "lost"),
    (OFFLINE, Error::Double, "doubled"),
    (OFFLINE, Error::Overtake, "out_of_order"),
    (OFFLINE, Error::ForgetSessions, "lost"),
    (LOGIN, Error::Lose, "lost"),
    (LOGIN, Error::Double, "doubled"),
    (LOGIN, Error::Overtake, "out_of_order"),
    (MIXED, Error::Lose, "lost"),
    (MIXED, Error::Double, "doubled"),
    (MIXED, Error::Misroute, "misrouted"),
    (OFFICE, Error::Lose, "lost"),
    (OFFICE, Error::Double, "doubled"),
    (CRASH, Error::Lose, "lost"),
    (CRASH, Error::Double, "doubled"),
    (CRASH, Error::Overtake, "out_of_order"),
];

#[test]
fn every_claimed_check_finds_its_error() {
    for (scenario, error, counter) in CAUGHT {
        let broker = Erring::start(*error);
        let outcome = play(broker.port, scenario);
        assert_eq!(outcome.code, 3, "{scenario} against {error:?}\n{}", outcome.text);
        assert!(outcome.check(counter) > 0, "{scenario} against {error:?}\n{}", outcome.text);
    }
}

#[test]
fn a_broker_without_errors_passes_every_scenario() {
    let broker = Erring::start(Error::Never);
    let all = [
        PAIRS,
        PAIRS2,
        DURABLE,
        GROUP,
        GROUP_DURABLE,
        ROOM,
        RATE,
        RETAINED,
        OFFLINE,
        CRASH,
        LOGIN,
        OFFICE,
        STORM,
        RESUME,
        IDLE,
    ];
    for scenario in all {
        let outcome = play(broker.port, scenario);
        assert_eq!(outcome.code, 0, "{scenario}\n{}", outcome.text);
    }
}

#[test]
fn connections_that_end_or_are_forgotten_are_faults() {
    let broker = Erring::start(Error::HangUp);
    let outcome = play(broker.port, IDLE);
    assert_eq!(outcome.code, 3, "{}", outcome.text);
    assert!(outcome.faults().contains("closed while idle"), "{}", outcome.text);

    let broker = Erring::start(Error::ForgetSessions);
    let outcome = play(broker.port, RESUME);
    assert_eq!(outcome.code, 3, "{}", outcome.text);
    assert!(outcome.faults().contains("not present"), "{}", outcome.text);
}

#[test]
fn a_refused_client_ends_the_run_with_the_reason() {
    let broker = Erring::start(Error::Refuse);
    let outcome = play(broker.port, STORM);
    assert_eq!(outcome.code, 1, "{}", outcome.text);
    assert!(outcome.text.contains("NotAuthorized"), "{}", outcome.text);
}

#[test]
fn a_repetition_with_dup_is_no_fault_at_qos_1() {
    let broker = Erring::start(Error::Repeat);
    let outcome = play(broker.port, PAIRS);
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
    let outcome = play(port, PAIRS);
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
