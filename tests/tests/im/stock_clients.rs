//! The main features with client libraries as they are: rumqttc's 3.1.1 and 5.0 clients in both
//! roles. (paho-mqtt and MQTT.js: `examples`.)

use hoopoe_tests::{Broker, Version, unique_id};
use serde_json::json;

use crate::stock::Stock;

/// A pair of devices of two users, in all four pairs of versions.
fn pairs() -> impl Iterator<Item = (Version, Version)> {
    Version::BOTH.into_iter().flat_map(|a| Version::BOTH.map(|b| (a, b)))
}

fn two(broker: &Broker, versions: (Version, Version)) -> (Stock, Stock) {
    let [alice, bob] = [unique_id("alice"), unique_id("bob")];
    let alice = Stock::connect(broker, versions.0, &alice, "android-1");
    (alice, Stock::connect(broker, versions.1, &bob, "ios-1"))
}

#[test]
fn stock_clients_chat_and_see_what_was_received_and_read() {
    let broker = Broker::start();
    for versions in pairs() {
        let (mut alice, mut bob) = two(&broker, versions);
        let (to_bob, to_alice) = (format!("u/{}", bob.user), format!("u/{}", alice.user));
        assert_eq!(alice.send(&to_bob, "c1", "hello"), 1);
        let got = bob.next_entry();
        assert_eq!((got.seq, &*got.from, &*got.payload), (1, &*alice.user, "hello"));
        alice.next(&format!("im/me/sys/receipt/{to_bob}/recv/1/{}", bob.user));
        bob.publish(&format!("im/me/cur/{to_alice}/read/1"), "");
        alice.next(&format!("im/me/sys/receipt/{to_bob}/read/1/{}", bob.user));
        assert_eq!(bob.send(&to_alice, "c1", "hello yourself"), 2);
        assert_eq!(alice.next_entry().payload, "hello yourself");
        // The same id again is the same message.
        assert_eq!(alice.send(&to_bob, "c1", "hello"), 1);
        assert_eq!(alice.send(&to_bob, "c2", "more"), 3);
        assert_eq!(bob.next_entry().seq, 3);
    }
}

#[test]
fn stock_clients_recall_edit_and_react() {
    let broker = Broker::start();
    for versions in pairs() {
        let (mut alice, mut bob) = two(&broker, versions);
        let (to_bob, to_alice) = (format!("u/{}", bob.user), format!("u/{}", alice.user));
        for (seq, text) in [(1, "one"), (2, "two"), (3, "three")] {
            assert_eq!(alice.send(&to_bob, &format!("c{seq}"), text), seq);
            assert_eq!(bob.next_entry().payload, text);
        }
        alice.publish(&format!("im/me/op/recall/{to_bob}/1"), "");
        alice.publish(&format!("im/me/op/edit/{to_bob}/2"), "zwei");
        bob.publish(&format!("im/me/op/react/{to_alice}/3"), "+1");
        for (kind, reference, payload) in [("recall", 1, ""), ("edit", 2, "zwei")] {
            let event = bob.next_entry();
            let got = (&*event.kind, event.reference, &*event.payload);
            assert_eq!(got, (kind, reference, payload), "{versions:?}");
        }
        let event = alice.next_entry();
        assert_eq!((&*event.kind, event.reference, &*event.payload), ("react", 3, "+1"));
        bob.is_refused(&format!("im/me/op/edit/{to_alice}/2"), "-", "mine now");
        // Who pulls sees the newest content, and of what was recalled nothing.
        let (entries, end) = bob.pull(&json!({ "conv": to_alice, "to": 3 }));
        let shown: Vec<_> = entries.iter().map(|entry| (&*entry.kind, &*entry.payload)).collect();
        assert_eq!(shown[0], ("void", ""), "{versions:?}");
        assert_eq!(shown[1].1, "zwei", "{versions:?}");
        assert_eq!(shown[2], ("", "three"), "{versions:?}");
        assert_eq!((&end["count"], &end["last"]), (&json!(3), &json!(6)), "{versions:?}");
    }
}

#[test]
fn stock_clients_signal_watch_and_keep_notes() {
    let broker = Broker::start();
    for versions in pairs() {
        let (mut alice, mut bob) = two(&broker, versions);
        alice.publish(&format!("im/u/{}/sig/typing", bob.user), "");
        bob.next(&format!("im/me/sig/u/{}/{}/typing", alice.user, alice.user));
        let states = alice.call("presence/watch", &json!({ "users": [bob.user] }));
        assert_eq!(states["users"][0]["show"], "online", "{versions:?}");
        bob.publish("im/me/st/away", "tea");
        let notice = alice.next(&format!("im/me/pr/{}", bob.user));
        assert!(String::from_utf8_lossy(&notice.payload).contains("tea"), "{versions:?}");
        let mut desk = Stock::connect(&broker, versions.1, &alice.user, "pc-1");
        let own = format!("u/{}", alice.user);
        assert_eq!(alice.send(&own, "n1", "milk"), 1);
        assert_eq!(desk.next_entry().payload, "milk");
        // One device reads, the other is told.
        bob.send(&own, "c1", "hello");
        assert_eq!(desk.next_entry().payload, "hello");
        desk.publish(&format!("im/me/cur/u/{}/read/1", bob.user), "");
        alice.next(&format!("im/me/sys/read/u/{}/1", bob.user));
    }
}

#[test]
fn stock_clients_find_what_they_missed_after_a_crash_of_the_broker() {
    let mut broker = Broker::start();
    for versions in pairs() {
        let (mut alice, bob) = two(&broker, versions);
        let to_bob = format!("u/{}", bob.user);
        let bob = bob.leave();
        for n in 1..=20 {
            assert_eq!(alice.send(&to_bob, &format!("c{n}"), &n.to_string()), n);
        }
        broker.kill_and_restart();
        let mut alice = alice.again(&broker);
        let mut bob = bob.back(&broker);
        assert_eq!(bob.hello["unread_total"], 20, "{versions:?} {}", bob.hello);
        for n in 1..=20 {
            let got = bob.next_entry();
            assert_eq!((got.seq, got.payload), (n, n.to_string()), "{versions:?}");
        }
        // What alice is not sure of she sends again.
        assert_eq!(alice.send(&to_bob, "c20", "20"), 20);
        assert_eq!(alice.send(&to_bob, "c21", "21"), 21);
        assert_eq!(bob.next_entry().seq, 21);
    }
}
