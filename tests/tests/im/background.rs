//! Background mode (ruling 35): what still reaches a device whose app nobody looks at.

use hoopoe_tests::{Broker, Publish, RawClient, Version, unique_id};
use serde_json::json;

use crate::user::{await_topic, call_ok, device};

#[test]
fn presence_stops_and_messages_flow() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let (alice, bob) = (unique_id("user"), unique_id("user"));
        let mut front = device(&broker, version, &alice);
        let mut back = device(&broker, version, &alice);
        let mut friend = device(&broker, version, &bob);
        call_ok(&mut front, "presence/watch", &json!({ "users": [bob] }));
        back.publish(Publish::new("im/me/bg", "").qos(1));
        friend.publish(Publish::new("im/me/st/away", "").qos(1));
        await_topic(&mut front, &format!("im/me/pr/{bob}"));
        // The notice went to both devices' connections before this message could.
        friend.publish(Publish::new(&format!("im/u/{alice}/msg/m1"), "hello").qos(1));
        let first = back.take_publish();
        assert!(first.topic.starts_with(&format!("im/me/in/u/{bob}")), "{}", first.topic);
        assert_eq!(first.payload, b"hello");
        back.publish(Publish::new("im/me/fg", "").qos(1));
        friend.publish(Publish::new("im/me/st/dnd", "").qos(1));
        let notice = await_topic(&mut back, "im/me/pr/");
        assert!(String::from_utf8_lossy(&notice.payload).contains("dnd"));
    }
}

/// The seq of a stored entry.
fn seq(publish: &Publish) -> u64 {
    let in_topic = publish.topic.split('/').nth(5);
    let properties = publish.properties.user_properties();
    let in_properties = properties.iter().find(|(name, _)| *name == "im-seq");
    let text = in_topic.or(in_properties.map(|(_, value)| *value)).expect("a seq");
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn groups_wait_and_are_named_and_mentions_flow() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let (alice, bob) = (unique_id("user"), unique_id("user"));
        let group = unique_id("team");
        let mut back = device(&broker, version, &alice);
        let mut friend = device(&broker, Version::V5, &bob);
        let create = json!({ "group": group, "name": "team", "members": [alice] });
        call_ok(&mut friend, "group/create", &create);
        let mut say = |topic: &str, text: &str| {
            friend.publish(Publish::new(topic, text).qos(1));
        };
        let to_group = |message: &str| format!("im/g/{group}/msg/{message}");
        say(&to_group("m1"), "one");
        let first = await_payload(&mut back, "one");
        back.publish(Publish::new("im/me/bg", "").qos(1));
        say(&to_group("m2"), "two");
        let gap = |from: u64, to: u64| format!("im/me/sys/gap/g/{group}/{from}/{to}");
        back.expect_message(&gap(first + 1, first + 1), "");
        // A poke was sent: within 30 seconds there is no other.
        say(&to_group("m3"), "three");
        say(&format!("im/g/{group}/msg/m4/at/{alice}"), "four");
        back.expect_message(&gap(first + 2, first + 2), "");
        let mention = back.take_publish();
        assert_eq!((mention.payload.as_slice(), seq(&mention)), (&b"four"[..], first + 3));
        say(&to_group("m5"), "five");
        say(&format!("im/u/{alice}/msg/m6"), "direct");
        assert_eq!(back.take_publish().payload, b"direct", "1:1 messages flow");
        // What was not named flows now, from the cursor.
        back.publish(Publish::new("im/me/fg", "").qos(1));
        let held = back.take_publish();
        assert_eq!((held.payload.as_slice(), seq(&held)), (&b"five"[..], first + 4));
        say(&to_group("m7"), "seven");
        assert_eq!(back.take_publish().payload, b"seven");
    }
}

/// The seq of the next entry with this payload; what comes before it is taken and dropped.
fn await_payload(device: &mut RawClient, payload: &str) -> u64 {
    loop {
        let publish = device.take_publish();
        if publish.payload == payload.as_bytes() {
            return seq(&publish);
        }
    }
}

#[test]
fn a_connect_ends_the_background() {
    let broker = Broker::start();
    let (alice, bob) = (unique_id("user"), unique_id("user"));
    let mut friend = device(&broker, Version::V5, &bob);
    let mut back = device(&broker, Version::V311, &alice);
    back.publish(Publish::new("im/me/bg", "").qos(1));
    back.disconnect();
    let mut back = device(&broker, Version::V311, &alice);
    call_ok(&mut back, "presence/watch", &json!({ "users": [bob] }));
    friend.publish(Publish::new("im/me/st/away", "").qos(1));
    await_topic(&mut back, &format!("im/me/pr/{bob}"));
}
