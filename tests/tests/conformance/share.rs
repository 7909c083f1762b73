//! Shared subscriptions.

use std::collections::BTreeSet;

use hoopoe_tests::wire::{code, packet_type};
use hoopoe_tests::{
    Connect, Properties, Property, Publish, RawClient, Version, shared_broker, unique_id,
    unique_topic,
};

/// A topic and a shared filter for it, of a group of its own.
fn group() -> (String, String) {
    let topic = unique_topic("shared");
    let filter = format!("$share/{}/{topic}", unique_id("g"));
    (topic, filter)
}

/// Reads one message from whichever member gets it next: a marker each member gets tells when a
/// member has none.
fn take_from_any(members: &mut [RawClient], publisher: &mut RawClient) -> Option<(usize, Publish)> {
    let marker = unique_topic("marker");
    for member in members.iter_mut() {
        member.subscribe(&marker, 1);
    }
    publisher.publish(Publish::new(&marker, "end").qos(1));
    let mut found = None;
    for (index, member) in members.iter_mut().enumerate() {
        loop {
            let publish = member.expect_publish();
            if publish.topic == marker {
                member.complete(&publish);
                break;
            }
            assert!(found.is_none(), "a second copy: {publish:?}");
            found = Some((index, publish));
        }
        member.unsubscribe(&[&marker]);
    }
    found
}

#[test]
fn share_name_and_filter_must_be_well_formed() {
    let filters = [
        "$share/",
        "$share//t",
        "$share/g",
        "$share/g/",
        "$share/a+b/t",
        "$share/a#/t",
        "$share/+/t",
        "$share/#/t",
        "$share/#",
        "$share/+",
        "$share/g/a#",
        "$share/g/#/b",
    ];
    for filter in filters {
        let mut client = shared_broker().v5();
        assert_eq!(client.try_subscribe(filter, 1), code::TOPIC_FILTER_INVALID, "{filter}");
    }
}

#[test]
fn one_member_of_the_group_gets_each_message() {
    let (topic, filter) = group();
    let mut members: Vec<RawClient> = (0..3).map(|_| shared_broker().v5()).collect();
    for member in &mut members {
        member.subscribe(&filter, 1);
    }
    let mut alone = shared_broker().v5();
    alone.subscribe(&topic, 1);
    let mut publisher = shared_broker().v5();
    let mut used = BTreeSet::new();
    for number in 0..30 {
        publisher.publish(Publish::new(&topic, format!("{number}")).qos(1));
        let (index, publish) = take_from_any(&mut members, &mut publisher).expect("a delivery");
        assert_eq!(publish.payload, format!("{number}").into_bytes());
        assert!(!publish.retain);
        members[index].complete(&publish);
        used.insert(index);
        // Somebody who is not in the group gets them all.
        alone.expect_message(&topic, format!("{number}"));
    }
    assert!(used.len() > 1, "all messages went to one member");
}

#[test]
fn groups_of_different_names_each_get_the_message() {
    let topic = unique_topic("groups");
    let mut first = shared_broker().v5();
    let mut second = shared_broker().v5();
    first.subscribe(&format!("$share/first/{topic}"), 1);
    second.subscribe(&format!("$share/second/{topic}"), 1);
    shared_broker().v5().publish(Publish::new(&topic, "both").qos(1));
    first.expect_message(&topic, "both");
    second.expect_message(&topic, "both");
}

#[test]
fn granted_qos_is_respected_for_each_member() {
    for granted in 0..3 {
        let (topic, filter) = group();
        let mut member = shared_broker().v5();
        member.subscribe(&filter, granted);
        let mut publisher = shared_broker().v5();
        for published in 0..3 {
            publisher.publish(Publish::new(&topic, "x").qos(published));
            assert_eq!(member.expect_message(&topic, "x").qos, granted.min(published));
        }
    }
}

#[test]
fn shared_and_plain_subscription_of_one_client_are_independent() {
    let (topic, filter) = group();
    let mut client = shared_broker().v5();
    let id = |id| Properties(vec![Property::SubscriptionIdentifier(id)]);
    client.subscribe_all(&[(&filter, 1)], &id(1));
    client.subscribe_all(&[(&topic, 1)], &id(2));
    let mut publisher = shared_broker().v5();
    publisher.publish(Publish::new(&topic, "x").qos(1));
    let mut ids = Vec::new();
    while ids.len() < 2 {
        ids.extend(client.expect_message(&topic, "x").properties.subscription_ids());
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    let unsuback = client.unsubscribe(&[&filter]);
    assert_eq!(unsuback.codes, [0]);
    publisher.publish(Publish::new(&topic, "y").qos(1));
    assert_eq!(client.expect_message(&topic, "y").properties.subscription_ids(), [2]);
    client.expect_nothing_from(&mut publisher, 1);
}

#[test]
fn qos_2_in_delivery_stays_with_its_member() {
    let (topic, filter) = group();
    let connects: Vec<Connect> =
        (0..2).map(|_| Connect::persistent(Version::V5, &unique_id("m"))).collect();
    let mut members: Vec<RawClient> =
        connects.iter().map(|connect| shared_broker().connect(connect)).collect();
    for member in &mut members {
        member.subscribe(&filter, 2);
    }
    let mut publisher = shared_broker().v5();
    publisher.publish(Publish::new(&topic, "mine").qos(2));
    let (index, first) = take_from_any(&mut members, &mut publisher).expect("a delivery");
    assert_eq!(first.qos, 2);
    members.remove(index).cut();
    // The other member does not get it; the first one does when it returns [MQTT-4.8.2-4].
    members[0].expect_nothing_from(&mut publisher, 2);
    let mut back = shared_broker().connect(&connects[index]);
    let again = back.expect_publish();
    assert_eq!((again.id, again.dup, again.payload.as_slice()), (first.id, true, &b"mine"[..]));
    back.complete(&again);
}

#[test]
fn qos_2_in_delivery_dies_with_its_member_session() {
    let (topic, filter) = group();
    let mut members: Vec<RawClient> = (0..2).map(|_| shared_broker().v5()).collect();
    for member in &mut members {
        member.subscribe(&filter, 2);
    }
    let mut publisher = shared_broker().v5();
    publisher.publish(Publish::new(&topic, "mine").qos(2));
    let (index, _) = take_from_any(&mut members, &mut publisher).expect("a delivery");
    // Its session ends with the connection; nobody else may get the message [MQTT-4.8.2-5].
    members.remove(index).disconnect();
    members[0].expect_nothing_from(&mut publisher, 2);
}

#[test]
fn message_a_member_refuses_is_offered_to_nobody_else() {
    for qos in [1, 2] {
        let (topic, filter) = group();
        let mut members: Vec<RawClient> = (0..2).map(|_| shared_broker().v5()).collect();
        for member in &mut members {
            member.subscribe(&filter, qos);
        }
        let mut publisher = shared_broker().v5();
        publisher.publish(Publish::new(&topic, "no").qos(qos));
        let (index, publish) = take_from_any(&mut members, &mut publisher).expect("a delivery");
        let kind = if qos == 1 { packet_type::PUBACK } else { packet_type::PUBREC };
        members[index].send_ack_code(kind, publish.id, code::UNSPECIFIED_ERROR);
        members[index].ping();
        assert_eq!(take_from_any(&mut members, &mut publisher), None);
    }
}

#[test]
fn messages_wait_for_a_group_whose_sessions_are_away() {
    let (topic, filter) = group();
    let connect = Connect::persistent(Version::V5, &unique_id("m"));
    let mut member = shared_broker().connect(&connect);
    member.subscribe(&filter, 1);
    member.disconnect();
    let mut publisher = shared_broker().v5();
    publisher.publish(Publish::new(&topic, "waiting").qos(1));
    let mut back = shared_broker().connect(&connect);
    back.expect_message(&topic, "waiting");
}

#[test]
fn members_that_are_there_get_what_others_cannot() {
    // One member is away with a persistent session: the message goes to the one that is there.
    let (topic, filter) = group();
    let connect = Connect::persistent(Version::V5, &unique_id("m"));
    let mut away = shared_broker().connect(&connect);
    away.subscribe(&filter, 1);
    let mut here = shared_broker().v5();
    here.subscribe(&filter, 1);
    away.disconnect();
    let mut publisher = shared_broker().v5();
    for number in 0..10 {
        publisher.publish(Publish::new(&topic, format!("{number}")).qos(1));
        here.expect_message(&topic, format!("{number}"));
    }
}

#[test]
fn unacknowledged_qos_1_of_a_member_that_ends_goes_to_another() {
    let (topic, filter) = group();
    let mut members: Vec<RawClient> = (0..2).map(|_| shared_broker().v5()).collect();
    for member in &mut members {
        member.subscribe(&filter, 1);
    }
    let mut publisher = shared_broker().v5();
    publisher.publish(Publish::new(&topic, "again").qos(1));
    let (index, _) = take_from_any(&mut members, &mut publisher).expect("a delivery");
    members.remove(index).cut();
    members[0].expect_message(&topic, "again");
}

/// Stored sessions of both protocols and clean ones: what a member kept when it unsubscribed
/// ([MQTT-3.10.4-3]) is another's once its connection is gone.
#[test]
fn unacknowledged_qos_1_of_a_member_that_unsubscribed_and_ends_goes_to_another() {
    for version in [Version::V311, Version::V5] {
        for stored in [false, true] {
            let (topic, filter) = group();
            let connect = match stored {
                true => Connect::persistent(version, &unique_id("m")),
                false => Connect::new(version, &unique_id("m")),
            };
            let mut first = shared_broker().connect(&connect);
            first.subscribe(&filter, 1);
            shared_broker().v5().publish(Publish::new(&topic, "1").qos(1));
            assert_eq!(first.expect_publish().payload, b"1");
            let mut second = shared_broker().v5();
            second.subscribe(&filter, 1);
            first.unsubscribe(&[&filter]);
            first.cut();
            second.expect_message(&topic, "1");
        }
    }
}

#[test]
fn unacknowledged_qos_1_of_the_only_member_comes_back_once() {
    let (topic, filter) = group();
    let connect = Connect::persistent(Version::V5, &unique_id("m"));
    let mut member = shared_broker().connect(&connect);
    member.subscribe(&filter, 1);
    let mut publisher = shared_broker().v5();
    publisher.publish(Publish::new(&topic, "again").qos(1));
    member.expect_publish();
    member.cut();
    let mut back = shared_broker().connect(&connect);
    back.expect_message(&topic, "again");
    publisher.publish(Publish::new(&topic, "next").qos(1));
    back.expect_message(&topic, "next");
}
