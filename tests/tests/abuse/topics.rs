//! A great many topics and filters at once.

use hoopoe_tests::wire::Publish;
use hoopoe_tests::{Properties, unique_topic};

use crate::bystanders::{Cost, Watched, scale};

/// Topics published to at once.
const TOPICS: usize = 100_000;
/// Topics of which the last message is kept.
const RETAINED: usize = 20_000;
/// Subscribers, and filters of each.
const SUBSCRIBERS: usize = 20;
const FILTERS: usize = 500;

#[test]
fn a_hundred_thousand_topics_at_once() {
    let watched = Watched::start();
    let root = unique_topic("many");
    let mut subscriber = watched.broker.v5();
    subscriber.subscribe(&format!("{root}/#"), 1);
    let mut publisher = watched.broker.v311();
    for number in 0..TOPICS * scale() {
        let topic = format!("{root}/{}/{number}", number % 300);
        publisher.send_publish(Publish::new(&topic, number.to_string()));
        if number % 1000 == 999 {
            publisher.ping();
            for expected in number - 999..=number {
                let publish = subscriber.expect_publish();
                assert_eq!(publish.payload, expected.to_string().into_bytes(), "in order");
            }
        }
    }
    watched.check_memory(Cost::connections(2));
    drop((subscriber, publisher));
    watched.finish();
}

#[test]
fn many_retained_topics_come_to_a_late_subscriber_all_of_them() {
    let watched = Watched::start();
    let root = unique_topic("kept");
    let mut publisher = watched.broker.v5();
    for number in 0..RETAINED {
        let topic = format!("{root}/{}/{number}", number % 100);
        publisher.send_publish(Publish::new(&topic, number.to_string()).retain());
        if number % 1000 == 999 {
            publisher.ping();
        }
    }
    publisher.publish(Publish::new(&format!("{root}/last"), "x").qos(1).retain());
    let mut subscriber = watched.broker.v5();
    subscriber.subscribe(&format!("{root}/#"), 0);
    let mut seen = vec![false; RETAINED];
    for _ in 0..=RETAINED {
        let publish = subscriber.expect_publish();
        assert!(publish.retain, "RETAIN");
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        if let Ok(number) = text.parse::<usize>() {
            assert!(!std::mem::replace(&mut seen[number], true), "{number} twice");
        }
    }
    assert!(seen.iter().all(|seen| *seen), "every retained message");
    watched.check_memory(Cost::connections(2));
    drop((subscriber, publisher));
    watched.finish();
}

#[test]
fn many_filters_are_taken_and_given_back() {
    let watched = Watched::start();
    let root = unique_topic("filters");
    let mut clients: Vec<_> = (0..SUBSCRIBERS).map(|_| watched.broker.v5()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        for block in 0..FILTERS / 50 {
            let filters: Vec<String> =
                (0..50).map(|at| format!("{root}/{index}/{}/+/x", block * 50 + at)).collect();
            let filters: Vec<(&str, u8)> = filters.iter().map(|f| (f.as_str(), 0)).collect();
            let suback = client.subscribe_all(&filters, &Properties::default());
            assert!(suback.codes.iter().all(|code| *code == 0), "{:?}", suback.codes);
        }
    }
    let mut publisher = watched.broker.v5();
    for (index, client) in clients.iter_mut().enumerate() {
        let topic = format!("{root}/{index}/{}/any/x", FILTERS - 1);
        publisher.publish(Publish::new(&topic, "x"));
        client.expect_message(&topic, "x");
    }
    for client in clients {
        client.cut();
    }
    let subscriptions = (SUBSCRIBERS * FILTERS) as u64;
    watched.check_memory(Cost { subscriptions, ..Cost::connections(SUBSCRIBERS as u64) });
    drop(publisher);
    watched.finish();
}
