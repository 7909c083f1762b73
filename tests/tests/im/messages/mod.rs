//! Messages between two users: the envelope in both versions, repetition, order, crashes.

mod exactly;

use hoopoe_tests::wire::{Packet, disconnect, packet_type};
use hoopoe_tests::{
    Broker, Connect, Properties, Property, Publish, Version, eventually, unique_id,
};
use serde_json::json;

use crate::entry::{Entry, entry, next_entry, next_seqs, send};
use crate::user::{await_topic, call_ok, device, device_with};

#[test]
fn a_message_carries_the_same_fields_between_all_pairs_of_versions() {
    let broker = Broker::start();
    let pairs = Version::BOTH.into_iter().flat_map(|a| Version::BOTH.map(|b| (a, b)));
    for (number, (sends, receives)) in pairs.enumerate() {
        let (alice, bob) = (format!("alice{number}"), format!("bob{number}"));
        let mut phone = device(&broker, sends, &alice);
        let mut desk = device(&broker, other(sends), &alice);
        let mut peer = device(&broker, receives, &bob);
        send(&mut phone, &format!("im/u/{bob}/msg/c-1"), "hello");
        let got = next_entry(&mut peer);
        let expected = Entry {
            conv: format!("u/{alice}"),
            seq: 1,
            from: alice.clone(),
            kind: String::new(),
            reference: 0,
            payload: "hello".to_owned(),
            ..got.clone()
        };
        assert_eq!(got, expected);
        assert_eq!(got.id.len(), 13);
        // The sender's other device has it too, from the other end.
        let own = next_entry(&mut desk);
        assert_eq!(own, Entry { conv: format!("u/{bob}"), ..got.clone() });
        // The sending device never gets it back.
        send(&mut peer, &format!("im/u/{alice}/msg"), "hi");
        assert_eq!(next_entry(&mut phone).seq, 2);
    }
}

fn other(version: Version) -> Version {
    if version == Version::V5 { Version::V311 } else { Version::V5 }
}

#[test]
fn the_sender_is_told_seq_id_and_time() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let mut phone = device(&broker, Version::V5, "alice");
    let id = phone.send_publish(Publish::new("im/u/bob/msg/c5", "one").qos(1));
    let ack = phone.expect_ack(packet_type::PUBACK, id);
    let told = ack.properties.user_properties();
    let got = next_entry(&mut bob);
    let expected =
        [("im-seq", got.seq.to_string()), ("im-id", got.id.clone()), ("im-ts", got.ts.to_string())];
    assert_eq!(told, expected.each_ref().map(|(name, value)| (*name, value.as_str())));

    let mut old = device(&broker, Version::V311, "alice");
    let id = old.send_publish(Publish::new("im/u/bob/msg/c4", "two").qos(1));
    let got = next_entry(&mut bob);
    let notice = old.expect_publish();
    let Entry { seq, id: mid, ts, .. } = &got;
    assert_eq!(notice.topic, format!("im/me/sys/sent/c4/u/bob/{seq}/{mid}/{ts}"));
    old.expect_ack(packet_type::PUBACK, id);
}

#[test]
fn properties_of_the_sender_pass_unaltered() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let mut alice = device(&broker, Version::V5, "alice");
    let publish = Publish::new("im/u/bob/msg", "{}")
        .qos(1)
        .with(Property::ContentType("application/json".to_owned()))
        .with(Property::UserProperty("thread".to_owned(), "7".to_owned()))
        .with(Property::UserProperty("im-cid".to_owned(), "c-9".to_owned()));
    alice.publish(publish);
    let got = await_topic(&mut bob, "im/me/in/u/alice");
    assert!(got.properties.0.contains(&Property::ContentType("application/json".to_owned())));
    let user = got.properties.user_properties();
    assert_eq!(user.first(), Some(&("thread", "7")), "before the broker's own");
    assert!(user.iter().all(|(name, _)| *name != "im-cid"), "the cid is the sender's: {user:?}");
}

#[test]
fn a_repetition_gets_the_first_result_over_any_device_and_after_kill_9() {
    let mut broker = Broker::start();
    let told = |broker: &Broker, payload: &str| {
        let mut alice = device(broker, Version::V5, "alice");
        let id = alice.send_publish(Publish::new("im/u/bob/msg/same", payload).qos(1));
        let ack = alice.expect_ack(packet_type::PUBACK, id);
        let told = ack.properties.user_properties();
        told.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    let first = told(&broker, "once");
    let mut again = first.clone();
    again.push("im-dup=1".to_owned());
    assert_eq!(told(&broker, "something else"), again);
    broker.kill_and_restart();
    assert_eq!(told(&broker, "once more"), again);
    let mut bob = device(&broker, Version::V5, "bob");
    let answer = call_ok(&mut bob, "sync/counts", &json!({}));
    assert_eq!(answer["unread_total"], 1);
}

#[test]
fn what_was_missed_comes_in_order_with_a_gap_for_what_is_too_much() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    let mut bob = device(&broker, Version::V311, "bob");
    send(&mut alice, "im/u/bob/msg", "seen");
    assert_eq!(next_seqs(&mut bob, 1), [1]);
    bob.disconnect();
    for n in 0..300 {
        send(&mut alice, "im/u/bob/msg", &n.to_string());
    }
    for version in Version::BOTH {
        // Nobody acknowledges: each comes to the same.
        let connect = Connect::new(version, &unique_id("d")).login("bob", "any");
        let mut bob = broker.connect(&connect);
        let hello = bob.expect_publish_on("im/me/sys/hello");
        let hello: serde_json::Value = serde_json::from_slice(&hello.payload).expect("JSON");
        assert_eq!(hello["unread_total"], 301, "{hello}");
        assert_eq!(hello["conversations"][0]["conv"], "u/alice");
        assert_eq!(hello["conversations"][0]["last"], 301);
        let gap = bob.expect_publish();
        assert_eq!(gap.topic, "im/me/sys/gap/u/alice/2/101");
        let mut seqs = Vec::new();
        while seqs.len() < 50 {
            seqs.push(crate::entry::entry(&bob.expect_publish()).expect("an entry").seq);
        }
        assert_eq!(seqs, (102..152).collect::<Vec<_>>());
        bob.cut();
    }
    let mut bob = device(&broker, Version::V5, "bob");
    assert_eq!(next_seqs(&mut bob, 200), (102..=301).collect::<Vec<_>>());
    let answer = call_ok(&mut bob, "sync/heads", &json!({}));
    assert_eq!(answer["conversations"][0]["unread"], 301, "received is not read");
    bob.publish(Publish::new("im/me/cur/u/alice/read/301", "").qos(1));
    let answer = call_ok(&mut bob, "sync/heads", &json!({}));
    assert_eq!(answer["conversations"][0]["unread"], 0);
}

#[test]
fn a_kept_session_goes_on_at_its_own_cursor_and_a_new_device_at_the_users() {
    let mut broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    let phone = Connect::persistent(Version::V5, "ios-1");
    let mut first = device_with(&broker, &phone, "bob");
    for payload in ["1", "2", "3"] {
        send(&mut alice, "im/u/bob/msg", payload);
    }
    assert_eq!(next_seqs(&mut first, 3), [1, 2, 3]);
    first.disconnect();
    send(&mut alice, "im/u/bob/msg", "4");
    let mut desk = device(&broker, Version::V311, "bob");
    assert_eq!(next_seqs(&mut desk, 1), [4], "a new device starts where the user is");
    desk.disconnect();
    broker.restart();
    let mut again = device_with(&broker, &phone.clone().resume(), "bob");
    assert_eq!(next_seqs(&mut again, 1), [4], "the kept one has not had it");
}

/// A message moves its sender's cursors (ruling 22), and takes nothing from the device that sends
/// it, however early it speaks.
#[test]
fn who_speaks_before_the_hello_misses_nothing() {
    let broker = Broker::start();
    for version in [Version::V311, Version::V5] {
        let (alice_id, bob_id) = (unique_id("alice"), unique_id("bob"));
        let mut alice = device(&broker, version, &alice_id);
        let to_bob = format!("im/u/{bob_id}/msg");
        for text in ["1", "2", "3"] {
            send(&mut alice, &to_bob, text);
        }
        let mut early = Publish::new(&format!("im/u/{alice_id}/msg"), "4").qos(1);
        early.id = 1;
        let connect = || Connect::new(version, &unique_id("d")).login(&bob_id, "any").encode();
        let mut bob = broker.open(version);
        bob.send(&[connect(), early.encode(version)].concat());
        let (mut seqs, mut is_acknowledged) = (Vec::new(), false);
        while seqs.len() < 3 || !is_acknowledged {
            match bob.next_packet() {
                Packet::Publish(publish) => {
                    bob.complete(&publish);
                    seqs.extend(entry(&publish).map(|entry| entry.seq));
                }
                Packet::PubAck(_) => is_acknowledged = true,
                other => assert!(matches!(other, Packet::ConnAck(_)), "{other:?}"),
            }
        }
        assert_eq!(seqs, [1, 2, 3]);
        assert_eq!(next_entry(&mut alice).payload, "4");
        // Who leaves at once has spoken all the same.
        let mut bob = broker.open(version);
        let leave = disconnect(version, 0, &Properties::default());
        bob.send(&[connect(), early.encode(version), leave].concat());
        bob.read_to_end();
        assert_eq!(next_entry(&mut alice).payload, "4");
    }
}

#[test]
fn kill_9_loses_no_acknowledged_message_and_no_number_comes_twice() {
    let mut broker = Broker::start();
    let mut sent = Vec::new();
    for round in 0..4 {
        let mut alice = device(&broker, Version::V5, "alice");
        for n in 0..25 {
            let payload = format!("{round}-{n}");
            send(&mut alice, "im/u/bob/msg", &payload);
            sent.push(payload);
        }
        broker.kill_and_restart();
    }
    let mut bob = device(&broker, Version::V311, "bob");
    let got: Vec<Entry> = (0..100).map(|_| next_entry(&mut bob)).collect();
    assert_eq!(
        got.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        (1..=100).collect::<Vec<_>>()
    );
    assert_eq!(
        got.iter().map(|entry| &entry.payload).collect::<Vec<_>>(),
        sent.iter().collect::<Vec<_>>()
    );
    assert!(got.windows(2).all(|pair| pair[0].ts <= pair[1].ts && pair[0].id < pair[1].id));
}

#[test]
fn qos_2_is_stored_once_even_when_the_connection_ends_before_the_answer() {
    let mut broker = Broker::start();
    let connect = Connect::persistent(Version::V5, "ios-1").login("alice", "any");
    let mut alice = broker.connect(&connect);
    alice.expect_publish_on("im/me/sys/hello");
    let publish = Publish::new("im/u/bob/msg", "exactly once").qos(2).id(7);
    alice.send_publish(publish.clone());
    let first = alice.expect_ack(packet_type::PUBREC, 7);
    let seq = first.properties.user_properties()[0].1.to_owned();
    broker.kill_and_restart();
    let mut alice = broker.connect(&connect.clone().resume());
    alice.send_publish(publish.dup());
    let again = alice.expect_ack(packet_type::PUBREC, 7);
    assert_eq!(again.properties.user_properties()[0], ("im-seq", seq.as_str()));
    alice.send_ack(packet_type::PUBREL, 7);
    alice.expect_ack(packet_type::PUBCOMP, 7);
    alice.publish(Publish::new("im/u/bob/msg", "the next").qos(2).id(7));
    let mut bob = device(&broker, Version::V5, "bob");
    let got: Vec<String> = (0..2).map(|_| next_entry(&mut bob).payload).collect();
    assert_eq!(got, ["exactly once", "the next"]);
}

#[test]
fn an_expired_message_is_void_and_a_too_large_one_a_gap() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    let expiring = Publish::new("im/u/bob/msg", "gone").qos(1);
    alice.publish(expiring.with(Property::MessageExpiryInterval(1)));
    send(&mut alice, "im/u/bob/msg", &"x".repeat(5_000));
    send(&mut alice, "im/u/bob/msg", "small");
    hoopoe_tests::client::ring_after(&broker, 2);
    let small = Connect::v5(&unique_id("d")).with(Property::MaximumPacketSize(2_000));
    let mut bob = device_with(&broker, &small, "bob");
    let void = next_entry(&mut bob);
    assert_eq!((void.seq, &*void.kind, &*void.payload), (1, "void", ""));
    assert_eq!(await_topic(&mut bob, "im/me/sys/gap").topic, "im/me/sys/gap/u/alice/2/2");
    assert_eq!(next_entry(&mut bob).payload, "small");
    let carol_says = |text: &str| Publish::new("im/u/dave/msg", text).qos(1);
    let mut carol = device(&broker, Version::V5, "carol");
    carol.publish(carol_says("gone").with(Property::MessageExpiryInterval(1)));
    carol.publish(carol_says("stays"));
    let mut dave = device(&broker, Version::V5, "dave");
    eventually("what has expired is not unread", || {
        let counts = call_ok(&mut dave, "sync/counts", &json!({}));
        counts["unread_total"] == 1
    });
}

#[test]
fn notes_to_self_reach_the_other_devices() {
    let broker = Broker::start();
    let mut phone = device(&broker, Version::V5, "alice");
    let mut desk = device(&broker, Version::V311, "alice");
    send(&mut phone, "im/u/alice/msg", "milk");
    let note = next_entry(&mut desk);
    assert_eq!((&*note.conv, &*note.payload), ("u/alice", "milk"));
    let answer = call_ok(&mut desk, "sync/counts", &json!({}));
    assert_eq!(answer["unread_total"], 0, "one's own messages are read");
}

#[test]
fn an_inbox_subscription_changes_terms_and_doubles_nothing() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    let mut bob = device(&broker, Version::V5, "bob");
    bob.subscribe("im/me/#", 2);
    send(&mut alice, "im/u/bob/msg", "a");
    let got = await_topic(&mut bob, "im/me/in/");
    assert_eq!(got.qos, 2);
    bob.unsubscribe(&["im/me/#"]);
    send(&mut alice, "im/u/bob/msg", "b");
    let got = await_topic(&mut bob, "im/me/in/");
    assert_eq!((got.qos, &got.payload[..]), (1, &b"b"[..]), "the inbox is there without it");
    match bob.receive_after_ping() {
        None => {}
        Some(other) => panic!("nothing comes twice, got {other:?}"),
    }
}

#[test]
fn plain_clients_and_wildcards_see_nothing_of_the_tree() {
    let broker = Broker::start();
    let mut spy = broker.connect(&Connect::v5(&unique_id("spy")));
    spy.subscribe("#", 1);
    spy.subscribe("+/u/#", 1);
    for filter in ["im/#", "im/me/#", "im/u/bob/#", "im/+/bob/msg", "$share/g/im/me/#"] {
        assert_eq!(spy.try_subscribe(filter, 1), 0x87, "{filter}");
    }
    let refused = spy.try_publish(Publish::new("im/u/bob/msg", "from nobody").qos(1));
    assert_eq!(refused, 0x87);
    let mut bob = device(&broker, Version::V5, "bob");
    let mut alice = device(&broker, Version::V5, "alice");
    send(&mut alice, "im/u/bob/msg", "secret");
    assert_eq!(next_entry(&mut bob).payload, "secret");
    let received = spy.receive_after_ping();
    assert!(received.is_none(), "{received:?}");
}
