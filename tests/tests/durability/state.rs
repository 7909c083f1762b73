//! Subscriptions, retained messages, expiries and wills over a restart.

use std::time::{Duration, Instant};

use hoopoe_tests::broker::Options;
use hoopoe_tests::client::ring_after;
use hoopoe_tests::{
    Broker, Connect, Properties, Property, Publish, Version, Will, unique_id, unique_topic,
};

const RETAIN_AS_PUBLISHED: u8 = 0x08;
const SEND_IF_NEW: u8 = 0x10;

/// A broker that gives wills and expiries no more time after a start than they have.
fn impatient() -> Broker {
    let text = "[broker]\nrestart_grace_secs = 1\n[[listener]]\nurl = \"tcp://127.0.0.1:0\"\n";
    Options::new().no_listeners().configuration(text).start()
}

#[test]
fn subscriptions_survive_kill_9_with_their_options() {
    let mut broker = Broker::start();
    let (topic, gone) = (unique_topic("kept"), unique_topic("gone"));
    let connect = Connect::persistent(Version::V5, &unique_id("subs"));
    let mut client = broker.connect(&connect);
    let id = Properties(vec![Property::SubscriptionIdentifier(77)]);
    client.subscribe_all(&[(&topic, 1 | RETAIN_AS_PUBLISHED | SEND_IF_NEW)], &id);
    client.subscribe(&gone, 1);
    client.unsubscribe(&[&gone]);
    broker.kill_and_restart();
    let mut publisher = broker.v5();
    publisher.publish(Publish::new(&gone, "x").qos(1));
    publisher.publish(Publish::new(&topic, "y").qos(2).retain());
    let mut back = broker.connect(&connect);
    assert!(back.connack.session_present);
    let publish = back.expect_message(&topic, "y");
    assert_eq!((publish.qos, publish.retain), (1, true), "granted QoS and retain as published");
    assert_eq!(publish.properties.subscription_ids(), [77]);
    // The subscription is not new, so retain handling 1 sends nothing.
    back.subscribe_all(&[(&topic, 1 | SEND_IF_NEW)], &id);
    back.expect_nothing_from(&mut publisher, 1);
}

#[test]
fn retained_messages_survive_kill_9() {
    let mut broker = Broker::start();
    let root = unique_topic("retained");
    let mut publisher = broker.v5();
    for number in 0..100 {
        let topic = format!("{root}/{number}");
        let publish = Publish::new(&topic, "old").qos(1).retain();
        publisher.publish(publish.with(Property::ContentType("text/plain".into())));
        let newer = if number % 2 == 0 { "new" } else { "" };
        let publish = Publish::new(&topic, newer).qos(2).retain();
        publisher.publish(publish.with(Property::ContentType("text/html".into())));
    }
    broker.kill_and_restart();
    let mut late = broker.v5();
    late.subscribe(&format!("{root}/#"), 2);
    let mut topics = Vec::new();
    for _ in 0..50 {
        let publish = late.take_publish();
        assert_eq!((publish.payload.as_slice(), publish.qos), (&b"new"[..], 2));
        assert_eq!(publish.properties.0, [Property::ContentType("text/html".into())]);
        topics.push(publish.topic);
    }
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 50);
    late.expect_nothing_from(&mut broker.v5(), 1);
}

/// Where nothing is retained, nothing is read for a subscription: the first message retained and the
/// last one removed must both be noticed by whoever subscribes after their acknowledgement.
#[test]
fn the_first_and_the_last_retained_message_are_noticed_at_once() {
    let mut broker = Broker::start();
    let topic = unique_topic("only");
    for round in 0..20 {
        let mut publisher = broker.v5();
        broker.v5().subscribe(&topic, 1);
        publisher.publish(Publish::new(&topic, "on").qos(1).retain());
        if round % 10 == 0 {
            broker.kill_and_restart();
            publisher = broker.v5();
        }
        let mut late = broker.v5();
        late.subscribe(&topic, 1);
        assert!(late.expect_message(&topic, "on").retain);
        publisher.publish(Publish::new(&topic, "").qos(1).retain());
        let mut later = broker.v5();
        later.subscribe(&topic, 1);
        later.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn clean_sessions_do_not_survive() {
    for version in Version::BOTH {
        let mut broker = Broker::start();
        let id = unique_id("clean");
        let topic = unique_topic("clean");
        let mut client = broker.connect(&Connect::new(version, &id));
        client.subscribe(&topic, 1);
        broker.kill_and_restart();
        let mut publisher = broker.client(version);
        publisher.publish(Publish::new(&topic, "lost").qos(1));
        let mut back = broker.connect(&Connect::persistent(version, &id));
        assert!(!back.connack.session_present);
        back.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn discarded_session_stays_discarded_over_kill_9() {
    let mut broker = Broker::start();
    let connect = Connect::persistent(Version::V5, &unique_id("wiped"));
    let topic = unique_topic("wiped");
    let mut client = broker.connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    let mut publisher = broker.v5();
    publisher.publish(Publish::new(&topic, "old").qos(1));
    broker.connect(&connect.clone().clean()).disconnect();
    broker.kill_and_restart();
    let mut back = broker.connect(&connect);
    assert!(back.connack.session_present, "the clean start began a session that is kept");
    back.expect_nothing_from(&mut broker.v5(), 1);
}

#[test]
fn session_expiry_counts_on_over_a_restart() {
    let mut broker = impatient();
    let short = Connect::v5(&unique_id("short")).session_expiry_secs(1);
    let long = Connect::persistent(Version::V5, &unique_id("long"));
    for connect in [&short, &long] {
        let mut client = broker.connect(connect);
        client.subscribe(&unique_topic("expiry"), 1);
        client.disconnect();
    }
    broker.kill_and_restart();
    ring_after(&broker, 4);
    assert!(!broker.connect(&short.resume()).connack.session_present);
    assert!(broker.connect(&long).connack.session_present);
}

#[test]
fn message_expiry_counts_on_over_a_restart() {
    let mut broker = Broker::start();
    let topic = unique_topic("expiry");
    let connect = Connect::persistent(Version::V5, &unique_id("expiry"));
    let mut client = broker.connect(&connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    let mut publisher = broker.v5();
    for (secs, text) in [(1, "short"), (1000, "long")] {
        let publish = Publish::new(&topic, text).qos(1);
        publisher.publish(publish.with(Property::MessageExpiryInterval(secs)));
    }
    broker.kill_and_restart();
    ring_after(&broker, 2);
    let mut back = broker.connect(&connect);
    let long = back.expect_message(&topic, "long");
    let left = long.properties.message_expiry_secs().expect("an expiry interval");
    assert!((900..=998).contains(&left), "{left} s left");
    back.expect_nothing_from(&mut broker.v5(), 1);
}

#[test]
fn qos_2_exchange_that_was_begun_is_finished_although_its_message_has_expired() {
    let mut broker = Broker::start();
    let topic = unique_topic("begun");
    let connect =
        Connect::persistent(Version::V5, &unique_id("begun")).with(Property::ReceiveMaximum(3));
    let mut client = broker.connect(&connect);
    client.subscribe(&topic, 2);
    let mut publisher = broker.v5();
    // Not acknowledged, and of QoS 1 there is no record: a crash brings the cursor back to here.
    publisher.publish(Publish::new(&topic, "before").qos(1));
    assert_eq!(client.expect_publish().payload, b"before");
    for text in ["first", "second"] {
        let publish = Publish::new(&topic, text).qos(2);
        publisher.publish(publish.with(Property::MessageExpiryInterval(1)));
    }
    let sent = [client.expect_publish(), client.expect_publish()];
    broker.kill_and_restart();
    ring_after(&broker, 2);
    let mut back = broker.connect(&connect);
    back.expect_message(&topic, "before");
    for sent in &sent {
        let again = back.expect_publish();
        assert_eq!((again.id, &again.payload), (sent.id, &sent.payload));
        back.complete(&again);
    }
    // All places in the window are free again.
    let mut publisher = broker.v5();
    for text in ["third", "fourth", "fifth", "sixth"] {
        publisher.publish(Publish::new(&topic, text).qos(2));
        back.expect_message(&topic, text);
    }
}

#[test]
fn will_with_a_delay_is_published_after_a_restart() {
    let mut broker = impatient();
    let topic = unique_topic("will");
    let watcher = Connect::persistent(Version::V5, &unique_id("watch"));
    let mut watching = broker.connect(&watcher);
    watching.subscribe(&topic, 1);
    watching.disconnect();
    let will = Will::new(&topic, "over the restart").qos(1).delay_secs(2);
    broker.connect(&Connect::persistent(Version::V5, &unique_id("will")).will(will)).cut();
    // The loss is noticed before the stop: the same client's session is seen without a connection.
    ring_after(&broker, 1);
    broker.kill_and_restart();
    let mut watching = broker.connect(&watcher);
    watching.expect_message(&topic, "over the restart");
    // It fires once, also when the broker dies again.
    broker.kill_and_restart();
    let mut late = broker.v5();
    late.subscribe(&topic, 1);
    ring_after(&broker, 4);
    late.expect_nothing_from(&mut broker.v5(), 1);
}

#[test]
fn will_of_a_connected_persistent_session_is_published_after_kill_9() {
    let mut broker = impatient();
    let topic = unique_topic("will");
    let watcher = Connect::persistent(Version::V5, &unique_id("watch"));
    let mut watching = broker.connect(&watcher);
    watching.subscribe(&topic, 1);
    watching.disconnect();
    let will = Will::new(&topic, "the broker died").qos(1);
    let _victim = broker.connect(&Connect::persistent(Version::V5, &unique_id("will")).will(will));
    let killed = Instant::now();
    broker.kill_and_restart();
    let mut watching = broker.connect(&watcher);
    watching.expect_message(&topic, "the broker died");
    assert!(killed.elapsed() >= Duration::from_millis(950), "the grace period is kept");
}

#[test]
fn coming_back_after_a_restart_cancels_the_will() {
    let mut broker = impatient();
    let topic = unique_topic("will");
    let plain = Connect::persistent(Version::V5, &unique_id("will"));
    let with_will = plain.clone().will(Will::new(&topic, "never").qos(1).delay_secs(3));
    let mut watcher = Connect::persistent(Version::V5, &unique_id("watch"));
    watcher.clean = true;
    let mut watching = broker.connect(&watcher);
    watching.subscribe(&topic, 1);
    let _victim = broker.connect(&with_will);
    broker.kill_and_restart();
    let back = broker.connect(&plain);
    assert!(back.connack.session_present);
    ring_after(&broker, 4);
    let mut watching = broker.connect(&watcher.resume());
    watching.expect_nothing_from(&mut broker.v5(), 1);
}

#[test]
fn will_a_disconnect_discarded_stays_discarded() {
    let mut broker = impatient();
    let topic = unique_topic("will");
    let watcher = Connect::persistent(Version::V5, &unique_id("watch"));
    let mut watching = broker.connect(&watcher);
    watching.subscribe(&topic, 1);
    let will = Will::new(&topic, "never").qos(1);
    let connect = Connect::persistent(Version::V5, &unique_id("will")).will(will);
    broker.connect(&connect).disconnect();
    broker.restart();
    ring_after(&broker, 2);
    let mut watching = broker.connect(&watcher);
    watching.expect_nothing_from(&mut broker.v5(), 1);
}

#[test]
fn the_end_of_the_connection_says_that_the_will_is_discarded_on_disk() {
    let mut broker = impatient();
    let topic = unique_topic("will");
    let watcher = Connect::persistent(Version::V5, &unique_id("watch"));
    let mut watching = broker.connect(&watcher);
    watching.subscribe(&topic, 1);
    watching.disconnect();
    let clients: Vec<_> = (0..40)
        .map(|number| {
            let version = Version::BOTH[number % 2];
            let connect = Connect::persistent(version, &unique_id("will"));
            broker.connect(&connect.will(Will::new(&topic, "never").qos(1)))
        })
        .collect();
    for client in clients {
        client.disconnect();
    }
    broker.kill_and_restart();
    ring_after(&broker, 2);
    let mut watching = broker.connect(&watcher);
    watching.expect_nothing_from(&mut broker.v5(), 1);
}
