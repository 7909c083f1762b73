//! How long a start takes on a store that is full, and that it is complete when the first client
//! gets in: sessions, their routes and messages, retained messages.
//!
//! The times are printed, past the capture of the test's output; nothing is asserted of them: the
//! machine may be busy. `make restart-speed` takes the long form.

use std::io::Write;
use std::time::{Duration, Instant};

use hoopoe_tests::wire::packet_type;
use hoopoe_tests::{Broker, Connect, Publish, RawClient, Version, unique_topic};

/// QoS 1 messages under way at a time.
const WINDOW: usize = 200;

/// How much is stored: messages, sessions, retained messages.
struct Amount {
    messages: usize,
    sessions: usize,
    retained: usize,
}

impl Amount {
    /// `HOOPOE_RESTART_LONG` asks for the long form.
    fn asked_for() -> Amount {
        match std::env::var_os("HOOPOE_RESTART_LONG") {
            Some(_) => Amount { messages: 1_000_000, sessions: 20_000, retained: 100_000 },
            None => Amount { messages: 50_000, sessions: 1_000, retained: 5_000 },
        }
    }
}

fn connect(session: usize) -> Connect {
    Connect::persistent(Version::V5, &format!("restart{session}"))
}

/// Publishes a window at a time, each acknowledged.
fn publish_all(publisher: &mut RawClient, publications: impl Iterator<Item = Publish>) {
    let mut publications = publications.peekable();
    while publications.peek().is_some() {
        let (mut bytes, mut ids) = (Vec::new(), Vec::new());
        for publish in publications.by_ref().take(WINDOW) {
            let id = publisher.packet_id();
            bytes.extend(publish.qos(1).id(id).encode(publisher.version));
            ids.push(id);
        }
        publisher.send(&bytes);
        for id in ids {
            assert!(publisher.expect_ack(packet_type::PUBACK, id).code < 0x80);
        }
    }
}

#[test]
fn a_start_on_a_full_store_is_complete_and_quick() {
    let amount = Amount::asked_for();
    let root = unique_topic("restart");
    let mut broker = Broker::start();
    for session in 0..amount.sessions {
        let mut client = broker.connect(&connect(session));
        client.subscribe(&format!("{root}/to/{session}"), 1);
        client.disconnect();
    }
    let mut publisher = broker.v5();
    let each = amount.messages / amount.sessions;
    publish_all(
        &mut publisher,
        (0..amount.messages).map(|number| {
            let topic = format!("{root}/to/{}", number % amount.sessions);
            Publish::new(&topic, (number / amount.sessions).to_string())
        }),
    );
    publish_all(
        &mut publisher,
        (0..amount.retained).map(|number| {
            Publish::new(&format!("{root}/kept/{number}"), number.to_string()).retain()
        }),
    );
    drop(publisher);
    broker.kill();
    let after_kill = timed_start(&mut broker);
    broker.stop();
    let after_stop = timed_start(&mut broker);
    let Amount { messages, sessions, retained } = amount;
    let _ = writeln!(
        std::io::stderr(),
        "RESTART with {messages} messages in {sessions} sessions and {retained} retained: \
         ready {after_kill:.2?} after kill -9, {after_stop:.2?} after a clean stop"
    );
    is_complete(&broker, &root, &amount, each);
}

/// From the start of the process to its word that it is ready.
fn timed_start(broker: &mut Broker) -> Duration {
    let started = Instant::now();
    broker.start_again();
    started.elapsed()
}

fn is_complete(broker: &Broker, root: &str, amount: &Amount, each: usize) {
    // Routes: what is published first thing reaches the last session as well as the first.
    let mut publisher = broker.v5();
    let step = (amount.sessions / 100).max(1);
    let looked_at: Vec<usize> =
        (0..amount.sessions).step_by(step).chain([amount.sessions - 1]).collect();
    publish_all(
        &mut publisher,
        looked_at.iter().map(|session| Publish::new(&format!("{root}/to/{session}"), "new")),
    );
    for session in looked_at {
        let mut client = broker.connect(&connect(session));
        assert!(client.connack.session_present, "session {session}");
        let topic = format!("{root}/to/{session}");
        for number in 0..each {
            client.expect_message(&topic, number.to_string());
        }
        client.expect_message(&topic, "new");
        client.disconnect();
    }
    let mut client = broker.v5();
    client.subscribe(&format!("{root}/kept/#"), 0);
    let mut seen = vec![false; amount.retained];
    for _ in 0..amount.retained {
        let publish = client.expect_publish();
        let number: usize = String::from_utf8_lossy(&publish.payload).parse().expect("a number");
        assert_eq!(publish.topic, format!("{root}/kept/{number}"));
        assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
    }
    client.ping();
}
