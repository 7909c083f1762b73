//! Wills: when they are published, when not, and what they carry.

use std::time::{Duration, Instant};

use hoopoe_tests::client::ring_after;
use hoopoe_tests::wire::{PINGREQ, code};
use hoopoe_tests::{
    Connect, Properties, Property, Publish, RawClient, Version, Will, shared_broker, unique_id,
    unique_topic,
};

/// A client that watches a new topic with QoS 2, and the topic.
fn watcher(version: Version) -> (RawClient, String) {
    let topic = unique_topic("will");
    let mut watcher = shared_broker().client(version);
    watcher.subscribe(&topic, 2);
    (watcher, topic)
}

/// Shows that no will has been published before now.
fn nothing_was_published(mut watcher: RawClient) {
    let mut marker = shared_broker().client(watcher.version);
    watcher.expect_nothing_from(&mut marker, 2);
}

#[test]
fn will_is_published_when_the_network_fails() {
    for version in Version::BOTH {
        for qos in 0..3 {
            let (mut watcher, topic) = watcher(version);
            let will = Will::new(&topic, format!("gone {qos}")).qos(qos);
            shared_broker().connect(&Connect::new(version, &unique_id("will")).will(will)).cut();
            let publish = watcher.expect_message(&topic, format!("gone {qos}"));
            assert_eq!((publish.qos, publish.retain, publish.dup), (qos, false, false));
        }
    }
}

#[test]
fn will_is_published_after_a_protocol_error() {
    for version in Version::BOTH {
        let (mut watcher, topic) = watcher(version);
        let will = Will::new(&topic, "broken");
        let connect = Connect::new(version, &unique_id("will")).will(will);
        let mut client = shared_broker().connect(&connect);
        client.send(&connect.encode());
        client.expect_closed();
        watcher.expect_message(&topic, "broken");
    }
}

#[test]
fn will_is_discarded_on_disconnect() {
    for version in Version::BOTH {
        let (watcher, topic) = watcher(version);
        let will = Will::new(&topic, "never").retain();
        let connect = Connect::new(version, &unique_id("will")).will(will);
        shared_broker().connect(&connect).disconnect();
        nothing_was_published(watcher);
        let mut late = shared_broker().client(version);
        late.subscribe(&topic, 0);
        late.ping();
    }
}

#[test]
fn will_is_removed_once_it_was_published() {
    for version in Version::BOTH {
        let (mut watcher, topic) = watcher(version);
        let persistent = Connect::persistent(version, &unique_id("will"));
        let with_will = persistent.clone().will(Will::new(&topic, "once"));
        shared_broker().connect(&with_will).cut();
        watcher.expect_message(&topic, "once");
        // The session goes on without a will.
        shared_broker().connect(&persistent).cut();
        shared_broker().connect(&persistent).disconnect();
        nothing_was_published(watcher);
    }
}

#[test]
fn no_will_flag_means_no_will() {
    for version in Version::BOTH {
        let (watcher, topic) = watcher(version);
        let id = unique_id("will");
        // The identifier had a will in an earlier connection.
        let connect = Connect::persistent(version, &id);
        shared_broker().connect(&connect.clone().will(Will::new(&topic, "old"))).disconnect();
        shared_broker().connect(&connect).cut();
        // The session is taken up again, so the loss has been noticed.
        let again = shared_broker().connect(&connect);
        assert!(again.connack.session_present);
        nothing_was_published(watcher);
    }
}

#[test]
fn will_retain_0_is_published_as_not_retained() {
    for version in Version::BOTH {
        let (mut watcher, topic) = watcher(version);
        let will = Will::new(&topic, "passing").qos(1);
        shared_broker().connect(&Connect::new(version, &unique_id("will")).will(will)).cut();
        watcher.expect_message(&topic, "passing");
        let mut late = shared_broker().client(version);
        late.subscribe(&topic, 1);
        late.ping();
    }
}

#[test]
fn will_retain_1_is_published_as_retained() {
    for version in Version::BOTH {
        let (mut watcher, topic) = watcher(version);
        let will = Will::new(&topic, "staying").qos(1).retain();
        shared_broker().connect(&Connect::new(version, &unique_id("will")).will(will)).cut();
        let live = watcher.expect_message(&topic, "staying");
        assert!(!live.retain, "an established subscription gets it with RETAIN 0");
        let mut late = shared_broker().client(version);
        late.subscribe(&topic, 1);
        assert!(late.expect_message(&topic, "staying").retain);
        late.publish(Publish::new(&topic, "").retain());
    }
}

#[test]
fn empty_retained_will_clears_the_retained_message() {
    for version in Version::BOTH {
        let (mut watcher, topic) = watcher(version);
        let mut publisher = shared_broker().client(version);
        publisher.publish(Publish::new(&topic, "state").qos(1).retain());
        watcher.expect_message(&topic, "state");
        let will = Will::new(&topic, "").retain();
        shared_broker().connect(&Connect::new(version, &unique_id("will")).will(will)).cut();
        watcher.expect_message(&topic, "");
        let mut late = shared_broker().client(version);
        late.subscribe(&topic, 1);
        late.ping();
    }
}

#[test]
fn will_topic_with_a_wildcard_is_refused() {
    for version in Version::BOTH {
        for topic in ["a/#", "+/b", "#", ""] {
            let connect = Connect::new(version, &unique_id("will")).will(Will::new(topic, "x"));
            let mut client = shared_broker().open(version);
            client.send(&connect.encode());
            client.expect_refused(&[
                code::MALFORMED_PACKET,
                code::PROTOCOL_ERROR,
                code::TOPIC_NAME_INVALID,
            ]);
        }
    }
}

#[test]
fn take_over_publishes_the_will_of_the_older_connection() {
    for version in Version::BOTH {
        // A clean session, and one that goes on.
        let id = unique_id("will");
        for connect in [Connect::new(version, &id), Connect::persistent(version, &id)] {
            let (mut watcher, topic) = watcher(version);
            let first = connect.clone().will(Will::new(&topic, "taken over"));
            let mut first = shared_broker().connect(&first);
            let _second = shared_broker().connect(&connect);
            first.expect_closed_with(&[code::SESSION_TAKEN_OVER]);
            watcher.expect_message(&topic, "taken over");
        }
    }
}

#[test]
fn disconnect_with_will_message_publishes_it() {
    let (mut watcher, topic) = watcher(Version::V5);
    let connect = Connect::v5(&unique_id("will")).will(Will::new(&topic, "on purpose"));
    let client = shared_broker().connect(&connect);
    client.disconnect_with(code::DISCONNECT_WITH_WILL, &Properties::default());
    watcher.expect_message(&topic, "on purpose");
}

#[test]
fn only_a_normal_disconnect_discards_the_will() {
    for reason in [code::UNSPECIFIED_ERROR, code::QUOTA_EXCEEDED, code::TOPIC_NAME_INVALID] {
        let (mut watcher, topic) = watcher(Version::V5);
        let connect = Connect::v5(&unique_id("will")).will(Will::new(&topic, "failed"));
        let client = shared_broker().connect(&connect);
        client.disconnect_with(reason, &Properties::default());
        watcher.expect_message(&topic, "failed");
    }
}

#[test]
fn will_carries_its_properties_in_order() {
    let (mut watcher, topic) = watcher(Version::V5);
    let user = |name: &str, value: &str| Property::UserProperty(name.into(), value.into());
    let will = Will::new(&topic, "payload")
        .qos(1)
        .with(Property::PayloadFormatIndicator(1))
        .with(Property::MessageExpiryInterval(600))
        .with(Property::ContentType("text/plain".into()))
        .with(Property::ResponseTopic("answers/here".into()))
        .with(Property::CorrelationData(vec![0, 255, 7]))
        .with(user("b", "1"))
        .with(user("a", "2"))
        .with(user("b", "3"));
    shared_broker().connect(&Connect::v5(&unique_id("will")).will(will)).cut();
    let publish = watcher.expect_message(&topic, "payload");
    let got = &publish.properties;
    assert_eq!(got.user_properties(), [("b", "1"), ("a", "2"), ("b", "3")]);
    for wanted in [
        Property::PayloadFormatIndicator(1),
        Property::ContentType("text/plain".into()),
        Property::ResponseTopic("answers/here".into()),
        Property::CorrelationData(vec![0, 255, 7]),
    ] {
        assert!(got.0.contains(&wanted), "{wanted:?} in {got:?}");
    }
    assert!((590..=600).contains(&got.message_expiry_secs().expect("an expiry interval")));
}

#[test]
fn will_waits_for_its_delay() {
    let (mut watcher, topic) = watcher(Version::V5);
    let will = Will::new(&topic, "late").delay_secs(1);
    let connect = Connect::persistent(Version::V5, &unique_id("will")).will(will);
    let client = shared_broker().connect(&connect);
    let cut = Instant::now();
    client.cut();
    watcher.expect_message(&topic, "late");
    assert!(cut.elapsed() >= Duration::from_millis(950), "after {:?}", cut.elapsed());
}

#[test]
fn reconnecting_within_the_delay_cancels_the_will() {
    let (watcher, topic) = watcher(Version::V5);
    let plain = Connect::persistent(Version::V5, &unique_id("will"));
    let with_will = plain.clone().will(Will::new(&topic, "never").delay_secs(2));
    shared_broker().connect(&with_will).cut();
    let again = shared_broker().connect(&plain);
    assert!(again.connack.session_present);
    // The first will's time passes.
    ring_after(shared_broker(), 3);
    nothing_was_published(watcher);
}

#[test]
fn will_with_a_delay_is_published_when_the_session_ends_first() {
    // By its expiry.
    let (mut watcher, topic) = watcher(Version::V5);
    let will = Will::new(&topic, "expired").delay_secs(3000);
    let connect = Connect::v5(&unique_id("will")).session_expiry_secs(1).will(will);
    shared_broker().connect(&connect).cut();
    watcher.expect_message(&topic, "expired");
    // With the connection.
    let will = Will::new(&topic, "with the connection").delay_secs(3000);
    shared_broker().connect(&Connect::v5(&unique_id("will")).will(will)).cut();
    watcher.expect_message(&topic, "with the connection");
    // By a clean start.
    let will = Will::new(&topic, "clean start").delay_secs(3000);
    let connect = Connect::persistent(Version::V5, &unique_id("will")).will(will);
    shared_broker().connect(&connect).cut();
    let _new = shared_broker().connect(&Connect::v5(&connect.client_id));
    watcher.expect_message(&topic, "clean start");
}

#[test]
fn keep_alive_timeout_publishes_the_will() {
    for version in Version::BOTH {
        let (mut watcher, topic) = watcher(version);
        let will = Will::new(&topic, "silent");
        let connect = Connect::new(version, &unique_id("will")).keep_alive_secs(1).will(will);
        let mut client = shared_broker().connect(&connect);
        client.send(&PINGREQ);
        watcher.expect_message(&topic, "silent");
        assert!(matches!(client.next_packet(), hoopoe_tests::Packet::PingResp));
        client.expect_closed_with(&[code::KEEP_ALIVE_TIMEOUT]);
    }
}
