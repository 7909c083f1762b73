//! Retained messages: stored, replaced, removed, and sent to new subscriptions.

use hoopoe_tests::{
    Connect, Packet, Properties, Property, Publish, RawClient, Version, shared_broker, unique_id,
    unique_topic, wire,
};

const RETAIN_AS_PUBLISHED: u8 = 0x08;
const SEND_IF_NEW: u8 = 0x10;
const DO_NOT_SEND: u8 = 0x20;

/// Publishes a retained message on a new topic; returns the publisher and the topic.
fn retained(version: Version, payload: &str) -> (RawClient, String) {
    let topic = unique_topic("retained");
    let mut publisher = shared_broker().client(version);
    publisher.publish(Publish::new(&topic, payload).qos(1).retain());
    (publisher, topic)
}

#[test]
fn retained_message_is_sent_to_a_new_subscription_with_retain_set() {
    for version in Version::BOTH {
        for qos in 0..3 {
            let topic = unique_topic("retained");
            let mut publisher = shared_broker().client(version);
            let mut live = shared_broker().client(version);
            live.subscribe(&topic, 0);
            publisher.publish(Publish::new(&topic, "state").qos(qos).retain());
            live.expect_message(&topic, "state");
            for granted in 0..3 {
                let mut late = shared_broker().client(version);
                late.subscribe(&topic, granted);
                let publish = late.expect_message(&topic, "state");
                assert!(publish.retain, "RETAIN for a new subscription");
                assert_eq!(publish.qos, qos.min(granted), "stored with its QoS");
            }
            publisher.publish(Publish::new(&topic, "").retain());
        }
    }
}

#[test]
fn retained_message_replaces_the_one_before() {
    for version in Version::BOTH {
        let (mut publisher, topic) = retained(version, "old");
        let mut live = shared_broker().client(version);
        live.subscribe(&topic, 0);
        live.expect_message(&topic, "old");
        publisher.publish(Publish::new(&topic, "newer").qos(2).retain());
        publisher.publish(Publish::new(&topic, "newest").qos(0).retain());
        live.expect_message(&topic, "newer");
        live.expect_message(&topic, "newest");
        let mut late = shared_broker().client(version);
        late.subscribe(&topic, 2);
        late.expect_message(&topic, "newest");
        late.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn established_subscription_gets_retain_0() {
    for version in Version::BOTH {
        let topic = unique_topic("live");
        let mut subscriber = shared_broker().client(version);
        subscriber.subscribe(&topic, 1);
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "now").qos(1).retain());
        assert!(!subscriber.expect_message(&topic, "now").retain);
        publisher.publish(Publish::new(&topic, "").retain());
    }
}

#[test]
fn retain_as_published_keeps_the_flag() {
    let topic = unique_topic("rap");
    let mut keeps = shared_broker().v5();
    let mut clears = shared_broker().v5();
    keeps.subscribe(&topic, 1 | RETAIN_AS_PUBLISHED);
    clears.subscribe(&topic, 1);
    let mut publisher = shared_broker().v5();
    for retain in [true, false, true] {
        let mut publish = Publish::new(&topic, "x").qos(1);
        publish.retain = retain;
        publisher.publish(publish);
        assert_eq!(keeps.expect_message(&topic, "x").retain, retain);
        assert!(!clears.expect_message(&topic, "x").retain);
    }
    publisher.publish(Publish::new(&topic, "").retain());
}

#[test]
fn empty_retained_message_removes_and_is_delivered_but_not_stored() {
    for version in Version::BOTH {
        let (mut publisher, topic) = retained(version, "state");
        let mut live = shared_broker().client(version);
        live.subscribe(&topic, 1);
        live.expect_message(&topic, "state");
        publisher.publish(Publish::new(&topic, "").qos(1).retain());
        let empty = live.expect_message(&topic, "");
        assert!(!empty.retain);
        let mut late = shared_broker().client(version);
        late.subscribe(&topic, 1);
        late.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn message_without_retain_leaves_the_retained_one() {
    for version in Version::BOTH {
        let (mut publisher, topic) = retained(version, "state");
        publisher.publish(Publish::new(&topic, "passing").qos(1));
        publisher.publish(Publish::new(&topic, "").qos(1));
        let mut late = shared_broker().client(version);
        late.subscribe(&topic, 1);
        late.expect_message(&topic, "state");
        late.expect_nothing_from(&mut publisher, 1);
        publisher.publish(Publish::new(&topic, "").retain());
    }
}

#[test]
fn message_without_retain_is_not_stored() {
    for version in Version::BOTH {
        let topic = unique_topic("passing");
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "passing").qos(1));
        let mut late = shared_broker().client(version);
        late.subscribe(&topic, 1);
        late.expect_nothing_from(&mut publisher, 1);
    }
}

#[test]
fn wildcard_subscription_gets_every_retained_message_it_matches() {
    for version in Version::BOTH {
        let root = unique_topic("tree");
        let mut publisher = shared_broker().client(version);
        let mut expected = Vec::new();
        for leaf in 0..40 {
            for branch in ["a", "b"] {
                let topic = format!("{root}/{branch}/{leaf}");
                publisher.publish(Publish::new(&topic, &topic).qos(1).retain());
                if branch == "a" {
                    expected.push(topic);
                }
            }
        }
        for filter in [format!("{root}/a/#"), format!("{root}/a/+")] {
            let mut late = shared_broker().client(version);
            late.subscribe(&filter, 1);
            let mut got: Vec<String> = expected.iter().map(|_| late.take_publish().topic).collect();
            got.sort();
            let mut wanted = expected.clone();
            wanted.sort();
            assert_eq!(got, wanted);
            late.expect_nothing_from(&mut publisher, 1);
        }
        for leaf in 0..40 {
            for branch in ["a", "b"] {
                publisher.publish(Publish::new(&format!("{root}/{branch}/{leaf}"), "").retain());
            }
        }
    }
}

#[test]
fn subscribing_again_sends_the_retained_message_again() {
    for version in Version::BOTH {
        let (mut publisher, topic) = retained(version, "state");
        let mut client = shared_broker().client(version);
        for granted in [0, 1, 1] {
            client.subscribe(&topic, granted);
            assert!(client.expect_message(&topic, "state").retain);
        }
        client.expect_nothing_from(&mut publisher, 1);
        publisher.publish(Publish::new(&topic, "").retain());
    }
}

#[test]
fn retain_handling_1_sends_only_to_a_subscription_that_is_new() {
    let (mut publisher, topic) = retained(Version::V5, "state");
    let connect = Connect::persistent(Version::V5, &unique_id("handling"));
    let mut client = shared_broker().connect(&connect);
    client.subscribe(&topic, 1 | SEND_IF_NEW);
    client.expect_message(&topic, "state");
    client.subscribe(&topic, 1 | SEND_IF_NEW);
    client.expect_nothing_from(&mut publisher, 1);
    client.disconnect();
    // The subscription is part of the session, so it is not new after a reconnect.
    let mut back = shared_broker().connect(&connect);
    back.subscribe(&topic, 1 | SEND_IF_NEW);
    back.expect_nothing_from(&mut publisher, 1);
    back.unsubscribe(&[&topic]);
    back.subscribe(&topic, 1 | SEND_IF_NEW);
    back.expect_message(&topic, "state");
    publisher.publish(Publish::new(&topic, "").retain());
}

#[test]
fn retain_handling_2_never_sends() {
    let (mut publisher, topic) = retained(Version::V5, "state");
    let mut client = shared_broker().v5();
    client.subscribe(&topic, 1 | DO_NOT_SEND);
    client.subscribe(&topic, 1 | DO_NOT_SEND);
    client.expect_nothing_from(&mut publisher, 1);
    publisher.publish(Publish::new(&topic, "").retain());
}

#[test]
fn retain_handling_0_sends_at_every_subscribe() {
    let (mut publisher, topic) = retained(Version::V5, "state");
    let mut client = shared_broker().v5();
    for _ in 0..3 {
        client.subscribe(&topic, 1);
        client.expect_message(&topic, "state");
    }
    client.expect_nothing_from(&mut publisher, 1);
    publisher.publish(Publish::new(&topic, "").retain());
}

#[test]
fn retained_message_of_a_subscription_carries_its_identifier() {
    let (mut publisher, topic) = retained(Version::V5, "state");
    let mut client = shared_broker().v5();
    let properties = Properties(vec![Property::SubscriptionIdentifier(42)]);
    client.subscribe_all(&[(&topic, 1)], &properties);
    let publish = client.expect_message(&topic, "state");
    assert_eq!(publish.properties.subscription_ids(), [42]);
    publisher.publish(Publish::new(&topic, "").retain());
}

#[test]
fn shared_subscription_gets_no_retained_messages() {
    let (mut publisher, topic) = retained(Version::V5, "state");
    let mut client = shared_broker().v5();
    client.subscribe(&format!("$share/{}/{topic}", unique_id("g")), 1);
    client.expect_nothing_from(&mut publisher, 1);
    publisher.publish(Publish::new(&topic, "").retain());
}

#[test]
fn message_published_right_after_a_subscribe_comes_once_and_as_live() {
    for version in Version::BOTH {
        let mut subscriber = shared_broker().client(version);
        let mut publisher = shared_broker().client(version);
        for round in 0..100 {
            let topic = unique_topic("race");
            subscriber.subscribe(&topic, 1);
            publisher.publish(Publish::new(&topic, format!("{round}")).qos(1).retain());
            let publish = subscriber.expect_message(&topic, format!("{round}"));
            assert!(!publish.retain, "round {round}: established before it was published");
            subscriber.expect_nothing_from(&mut publisher, 1);
            publisher.publish(Publish::new(&topic, "").qos(1).retain());
            subscriber.expect_message(&topic, "");
            subscriber.unsubscribe(&[&topic]);
        }
    }
}

#[test]
fn message_published_while_a_subscribe_is_under_way_comes_once() {
    for version in Version::BOTH {
        let mut subscriber = shared_broker().client(version);
        for round in 0..100u16 {
            let topic = unique_topic("race");
            // Both in one write: the subscription is there before the message is processed.
            let none = Properties::default();
            let mut bytes = wire::subscribe(version, 1000 + round, &[(&topic, 1)], &none);
            let publish = Publish::new(&topic, format!("{round}")).qos(1).retain().id(round + 1);
            bytes.extend(publish.encode(version));
            subscriber.send(&bytes);
            let mut copies = Vec::new();
            let mut answers = 0;
            while answers < 2 || copies.is_empty() {
                match subscriber.next_packet() {
                    Packet::Publish(publish) => {
                        subscriber.complete(&publish);
                        copies.push(publish);
                    }
                    Packet::SubAck(_) | Packet::PubAck(_) => answers += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(copies.len(), 1, "round {round}: {copies:?}");
            assert!(!copies[0].retain, "round {round}: live");
            let mut other = shared_broker().client(version);
            subscriber.expect_nothing_from(&mut other, 1);
            subscriber.unsubscribe(&[&topic]);
            other.publish(Publish::new(&topic, "").qos(1).retain());
        }
    }
}
