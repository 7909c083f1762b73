//! Background mode (ruling 35): what still reaches a device whose app nobody looks at.

use hoopoe_tests::{Broker, Publish, Version, unique_id};
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
