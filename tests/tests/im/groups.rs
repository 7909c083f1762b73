//! Groups and channels over sockets: membership is the permission, and acts at once.

use hoopoe_tests::{Broker, Connect, Property, Publish, Version, unique_id};
use serde_json::json;

use crate::entry::{entry, next_entry, send};
use crate::user::{await_topic, call, call_ok, device, device_with};

#[test]
fn members_get_what_is_sent_and_nobody_else() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    let mut bob = device(&broker, Version::V311, "bob");
    let mut eve = device(&broker, Version::V5, "eve");
    let body = json!({ "group": "team", "name": "The team", "members": ["bob"] });
    let made = call_ok(&mut alice, "group/create", &body);
    assert_eq!(made["group"], "team");
    let event = next_entry(&mut bob);
    assert_eq!((&*event.conv, &*event.kind, &*event.from), ("g/team", "member", "alice"));
    send(&mut alice, "im/g/team/msg/1", "hello all");
    let got = next_entry(&mut bob);
    assert_eq!((&*got.payload, got.seq), ("hello all", event.seq + 1));
    let refused = eve.try_publish(Publish::new("im/g/team/msg", "let me in").qos(1));
    assert_eq!(refused, 0x87, "strangers may not write");
    let (status, _) = call(&mut eve, "sync/pull", &json!({ "conv": "g/team" }));
    assert_eq!(status, "not_allowed", "nor read");
    assert!(eve.receive_after_ping().is_none());
    let info = call_ok(&mut bob, "group/info", &json!({ "group": "team" }));
    assert_eq!((&info["members"], &info["my_role"]), (&json!(2), &json!("member")));
}

#[test]
fn a_removal_acts_at_once_also_on_what_waits() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    let bob_connect = Connect::persistent(Version::V5, "ios-1");
    let mut bob = device_with(&broker, &bob_connect, "bob");
    call_ok(&mut alice, "group/create", &json!({ "group": "g", "name": "g", "members": ["bob"] }));
    assert_eq!(next_entry(&mut bob).kind, "member");
    bob.disconnect();
    send(&mut alice, "im/g/g/msg", "while a member");
    call_ok(&mut alice, "group/kick", &json!({ "group": "g", "users": ["bob"] }));
    send(&mut alice, "im/g/g/msg", "after");
    let mut bob = device_with(&broker, &bob_connect.resume(), "bob");
    assert_eq!(next_entry(&mut bob).payload, "while a member");
    let last = next_entry(&mut bob);
    assert_eq!(last.kind, "member", "the removal is the last thing to be seen");
    let pulled = call_pull(&mut bob, "g/g");
    assert!(!pulled.contains(&"after".to_owned()), "{pulled:?}");
    assert_eq!(bob.try_publish(Publish::new("im/g/g/msg", "still here?").qos(1)), 0x87);
    // Let in again, only what comes from then on is to be seen.
    call_ok(&mut alice, "group/invite", &json!({ "group": "g", "users": ["bob"] }));
    send(&mut alice, "im/g/g/msg", "welcome back");
    assert_eq!(next_entry(&mut bob).kind, "member");
    assert_eq!(next_entry(&mut bob).payload, "welcome back");
    let pulled = call_pull(&mut bob, "g/g");
    assert!(!pulled.contains(&"after".to_owned()), "{pulled:?}");
}

/// Ruling 24, also where nobody tells the device of the group any more.
#[test]
fn a_recall_reaches_what_waits_for_who_has_left() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    let connect = Connect::persistent(Version::V5, "ios-1").with(Property::ReceiveMaximum(1));
    let mut bob = device_with(&broker, &connect, "bob");
    call_ok(&mut alice, "group/create", &json!({ "group": "g", "name": "g", "members": ["bob"] }));
    assert_eq!(next_entry(&mut bob).kind, "member");
    bob.disconnect();
    ["one", "two", "three"].iter().for_each(|text| send(&mut alice, "im/g/g/msg", text));
    let mut bob = device_with(&broker, &connect.resume(), "bob");
    // Not acknowledged: the others have been read, and wait.
    let first = loop {
        let publish = bob.expect_publish();
        if entry(&publish).is_some() {
            break publish;
        }
    };
    let mut desk = device(&broker, Version::V311, "bob");
    call_ok(&mut desk, "group/leave", &json!({ "group": "g" }));
    send(&mut alice, "im/me/op/recall/g/g/3", "");
    bob.complete(&first);
    let second = next_entry(&mut bob);
    assert_eq!((second.seq, &*second.kind, &*second.payload), (3, "void", ""));
    assert_eq!(next_entry(&mut bob).payload, "three");
}

/// Everything that can be pulled of a conversation.
fn call_pull(device: &mut hoopoe_tests::RawClient, conv: &str) -> Vec<String> {
    let request = unique_id("p");
    let topic = format!("im/svc/sync/pull/{request}");
    device.publish(Publish::new(&topic, json!({ "conv": conv }).to_string()).qos(1));
    let (more, end) = (format!("im/me/res/{request}/m"), format!("im/me/res/{request}/end"));
    let mut pulled = Vec::new();
    loop {
        let publish = device.take_publish();
        if publish.topic.starts_with(&more) {
            pulled.push(String::from_utf8_lossy(&publish.payload).into_owned());
        } else if publish.topic == end {
            return pulled;
        }
    }
}

#[test]
fn muted_members_cannot_write_until_they_are_let_again() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    let mut bob = device(&broker, Version::V5, "bob");
    call_ok(&mut alice, "group/create", &json!({ "group": "m", "name": "m", "members": ["bob"] }));
    let mut try_bob = || bob.try_publish(Publish::new("im/g/m/msg", "x").qos(1));
    assert_eq!(try_bob(), 0);
    call_ok(&mut alice, "group/mute", &json!({ "group": "m", "user": "bob" }));
    assert_eq!(try_bob(), 0x87);
    call_ok(&mut alice, "group/unmute", &json!({ "group": "m", "user": "bob" }));
    assert_eq!(try_bob(), 0);
    call_ok(&mut alice, "group/mute", &json!({ "group": "m" }));
    assert_eq!(try_bob(), 0x87, "everyone but owner and admins");
    call_ok(&mut alice, "group/role", &json!({ "group": "m", "user": "bob", "role": "admin" }));
    assert_eq!(try_bob(), 0);
}

#[test]
fn a_member_reads_up_to_the_last_message_also_after_kill_9() {
    let mut broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    call_ok(&mut alice, "group/create", &json!({ "group": "k", "name": "k", "members": ["bob"] }));
    for n in 0..20 {
        send(&mut alice, "im/g/k/msg", &n.to_string());
    }
    broker.kill_and_restart();
    let mut bob = device(&broker, Version::V311, "bob");
    let mut got = Vec::new();
    while got.len() < 20 {
        let next = next_entry(&mut bob);
        if next.kind.is_empty() {
            got.push(next.payload);
        }
    }
    assert_eq!(got, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    let counts = call_ok(&mut bob, "sync/counts", &json!({}));
    assert_eq!(counts["unread_total"], 20);
}

#[test]
fn channels_are_posted_to_by_publishers_and_read_by_followers() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    let mut bob = device(&broker, Version::V311, "bob");
    call_ok(&mut alice, "channel/create", &json!({ "channel": "news", "name": "News" }));
    send(&mut alice, "im/c/news/msg", "before");
    call_ok(&mut bob, "channel/follow", &json!({ "channel": "news" }));
    send(&mut alice, "im/c/news/msg", "after");
    let got = loop {
        let next = next_entry(&mut bob);
        if next.kind.is_empty() {
            break next;
        }
    };
    assert_eq!((&*got.conv, &*got.payload), ("c/news", "after"));
    let topic = "im/c/news/msg/mine";
    bob.publish(Publish::new(topic, "me too").qos(1));
    assert_eq!(await_topic(&mut bob, "im/me/sys/err/").topic, "im/me/sys/err/mine/135");
    call_ok(&mut bob, "channel/unfollow", &json!({ "channel": "news" }));
    send(&mut alice, "im/c/news/msg", "unseen");
    let nothing = bob.receive_after_ping();
    assert!(
        !matches!(&nothing, Some(hoopoe_tests::Packet::Publish(publish)) if entry(publish).is_some()),
        "{nothing:?}"
    );
}

#[test]
fn a_send_to_a_group_costs_the_same_bytes_whatever_its_size() {
    // Bytes of the store's log per send, by groups of 2 and of 400 members who are all away.
    let cost = |members: usize| {
        let broker = Broker::start();
        let mut alice = device(&broker, Version::V5, "alice");
        let names: Vec<String> = (1..members).map(|n| format!("user-{n}")).collect();
        let body = json!({ "group": "g", "name": "g", "members": names });
        call_ok(&mut alice, "group/create", &body);
        let mut send_some = |kind: &str| {
            for n in 0..200 {
                send(&mut alice, &format!("im/g/g/msg/{kind}{n}"), &"x".repeat(256));
            }
        };
        // Members' lists are written meanwhile: once for each, when the group is made.
        send_some("a");
        let before = stored_bytes(&broker);
        send_some("b");
        stored_bytes(&broker) - before
    };
    let (small, large) = (cost(2), cost(400));
    let ratio = large as f64 / small as f64;
    assert!((0.9..1.1).contains(&ratio), "{small} bytes for 2 members, {large} for 400");
}

/// Bytes of the write-ahead log: what commits have written since the start.
fn stored_bytes(broker: &Broker) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![broker.data()];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).expect("the data folder is there").flatten() {
            if file.path().is_dir() {
                folders.push(file.path());
            } else if file.path().extension().is_some_and(|kind| kind == "log") {
                bytes += file.metadata().map_or(0, |facts| facts.len());
            }
        }
    }
    bytes
}
