//! Pushes to a gateway that fails in every way, over restarts and crashes of the broker: nothing
//! is lost, nothing that was recorded comes twice, each conversation in order.

mod gateway;

use std::path::Path;
use std::sync::Arc;

use hoopoe_tests::broker::Options;
use hoopoe_tests::certificate::Certificates;
use hoopoe_tests::reaper::temporary_folder;
use hoopoe_tests::{Broker, Connect, Publish, Version, eventually, metrics, unique_id};
use serde_json::json;

use crate::entry::{next_entry, send};
use crate::user::{call_ok, device, device_with};
use gateway::{Fate, Gateway};

/// Longer than any test takes: what is pushed before is not pushed for its age.
const PATIENT: &str = "after_secs = 3600";

fn broker(gateway: &Gateway, more: &str) -> Broker {
    Options::new().configuration(&gateway.settings(more)).start()
}

/// A device of the user with a push token, connected.
fn phone(broker: &Broker, user: &str) -> hoopoe_tests::RawClient {
    let connect = Connect::new(Version::V5, &format!("ios-{}", unique_id("d")));
    let mut phone = device_with(broker, &connect, user);
    let token = json!({ "provider": "apns", "token": format!("token of {user}") });
    call_ok(&mut phone, "device/push-token", &token);
    phone
}

#[test]
fn a_user_without_connected_devices_is_pushed_to_at_once() {
    let mut gateway = Gateway::start(&[]);
    let broker = broker(&gateway, &format!("{PATIENT}\npayload = true"));
    let mut alice = device(&broker, Version::V5, "alice");
    send(&mut alice, "im/u/carol/msg", "carol takes no pushes");
    phone(&broker, "bob").disconnect();
    send(&mut alice, "im/u/bob/msg", "hello");
    let request = gateway.request();
    assert!(request.signature.starts_with("sha256="), "{}", request.signature);
    assert_eq!(request.signature.len(), 7 + 64);
    let [push] = &request.pushes[..] else { panic!("{:?}", request.pushes) };
    let (device, ts) = (&push["devices"][0], &push["ts"]);
    assert!(device["device"].as_str().is_some_and(|device| device.starts_with("ios-")));
    assert!(ts.as_u64().is_some_and(|ts| ts > 1_600_000_000_000), "{ts}");
    let expected = json!({
        "tenant": "default", "user": "bob", "conv": "u/alice", "seq": 1, "from": "alice",
        "kind": "message", "unread": 1, "mentioned": false, "muted": false, "payload": "hello",
        "devices": [{ "device": device["device"], "provider": "apns", "token": "token of bob" }],
        "ts": ts,
    });
    assert_eq!(*push, expected);
}

#[test]
fn a_gateway_over_tls_is_pushed_to_when_its_authority_is_trusted() {
    let folder = temporary_folder("gateway");
    let certificates = Arc::new(Certificates::generate(&folder));
    let other = temporary_folder("other");
    let stranger = Certificates::generate(&other);
    let mut gateway = Gateway::over(&[], Some(certificates.clone()));
    let start = |authority: &Path| broker(&gateway, &format!("ca_file = {authority:?}"));
    let untrusted = start(&stranger.authority);
    let trusted = start(&certificates.authority);
    for broker in [&untrusted, &trusted] {
        let mut alice = device(broker, Version::V5, "alice");
        phone(broker, "bob").disconnect();
        send(&mut alice, "im/u/bob/msg", "hello");
    }
    let failures = || metrics::sum(untrusted.http(), "hoopoe_push_failures_total");
    eventually("a request fails", || failures() >= 2.0);
    assert_eq!(gateway.push()["conv"], "u/alice");
    assert!(gateway.is_quiet(), "whoever cannot be trusted is told nothing");
    assert_eq!(metrics::sum(untrusted.http(), "hoopoe_pushes_sent_total"), 0.0);
}

/// Ruling 34: big groups push mentions, and `all` is one.
#[test]
fn who_is_one_of_all_is_pushed_to_in_big_groups_and_channels() {
    let mut gateway = Gateway::start(&[]);
    let broker = broker(&gateway, "[im]\nsmall_group_members = 2");
    let mut alice = device(&broker, Version::V5, "alice");
    for user in ["bob", "carol"] {
        phone(&broker, user).disconnect();
    }
    let team = json!({ "group": "team", "name": "Team", "members": ["bob", "carol"] });
    call_ok(&mut alice, "group/create", &team);
    call_ok(&mut alice, "channel/create", &json!({ "channel": "news", "name": "News" }));
    let mut bob = device(&broker, Version::V5, "bob");
    call_ok(&mut bob, "channel/follow", &json!({ "channel": "news" }));
    bob.disconnect();
    send(&mut alice, "im/g/team/msg/c1", "to nobody in particular");
    send(&mut alice, "im/g/team/msg/c2/at/all", "to all");
    let mut told: Vec<_> = (0..2).map(|_| gateway.push()).collect();
    told.sort_by_key(|push| push["user"].to_string());
    for (push, user) in told.iter().zip(["bob", "carol"]) {
        assert_eq!((&push["user"], &push["conv"]), (&json!(user), &json!("g/team")));
        assert_eq!((&push["mentioned"], &push["seq"]), (&json!(true), &told[0]["seq"]));
    }
    send(&mut alice, "im/c/news/msg/c1", "to whoever reads it");
    send(&mut alice, "im/c/news/msg/c2/at/all", "to all");
    let push = gateway.push();
    let expected = (&json!("bob"), &json!("c/news"), &json!(2));
    assert_eq!((&push["user"], &push["conv"], &push["seq"]), expected);
}

#[test]
fn what_a_device_has_acknowledged_is_not_pushed_when_it_goes() {
    let mut gateway = Gateway::start(&[]);
    let broker = broker(&gateway, PATIENT);
    let mut alice = device(&broker, Version::V311, "alice");
    let mut bob = phone(&broker, "bob");
    for text in ["1", "2"] {
        send(&mut alice, "im/u/bob/msg", text);
        next_entry(&mut bob);
    }
    // Sent, and not acknowledged: it is pushed as soon as nobody is there any more.
    send(&mut alice, "im/u/bob/msg", "3");
    bob.disconnect();
    send(&mut alice, "im/u/bob/msg", "4");
    assert_eq!(gateway.seqs(2), [3, 4]);
}

#[test]
fn a_device_that_does_not_acknowledge_in_time_does_not_count() {
    let mut gateway = Gateway::start(&[]);
    let broker = broker(&gateway, "after_secs = 1");
    let mut alice = device(&broker, Version::V5, "alice");
    let _silent = phone(&broker, "bob");
    send(&mut alice, "im/u/bob/msg", "1");
    assert_eq!(gateway.seqs(1), [1]);
}

#[test]
fn a_device_in_the_background_is_absent_for_groups() {
    let mut gateway = Gateway::start(&[]);
    let broker = broker(&gateway, PATIENT);
    let mut alice = device(&broker, Version::V5, "alice");
    let mut bob = phone(&broker, "bob");
    let team = json!({ "group": "team", "name": "Team", "members": ["bob"] });
    call_ok(&mut alice, "group/create", &team);
    bob.publish(Publish::new("im/me/bg", "").qos(1));
    // What is sent from here on finds the device in the background, or it waits for that.
    send(&mut alice, "im/g/team/msg", "hello");
    let push = gateway.push();
    assert_eq!((&push["conv"], &push["user"]), (&json!("g/team"), &json!("bob")));
}

#[test]
fn a_gateway_that_fails_in_every_way_gets_everything_once_and_in_order() {
    let fates = [
        Fate::Status(500),
        Fate::Close,
        Fate::CloseMidAnswer,
        Fate::Nonsense,
        Fate::Status(404),
        Fate::TakeSlowly,
        Fate::Status(503),
        Fate::Hang,
    ];
    let mut gateway = Gateway::start(&fates);
    let broker = broker(&gateway, &format!("{PATIENT}\nbatch_max = 3\nconnections = 1"));
    let mut alice = device(&broker, Version::V5, "alice");
    for user in ["bob", "carol"] {
        phone(&broker, user).disconnect();
    }
    for n in 1..=10 {
        for user in ["bob", "carol"] {
            send(&mut alice, &format!("im/u/{user}/msg"), &n.to_string());
        }
    }
    let (mut bob, mut carol) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let push = gateway.push();
        let list = if push["user"] == "bob" { &mut bob } else { &mut carol };
        list.push(push["seq"].as_u64().unwrap());
    }
    assert_eq!(bob, (1..=10).collect::<Vec<_>>());
    assert_eq!(carol, (1..=10).collect::<Vec<_>>());
    // One more: whatever came twice would have come before it.
    send(&mut alice, "im/u/bob/msg", "11");
    assert_eq!(gateway.seqs(1), [11]);
}

#[test]
fn a_push_that_is_never_taken_is_given_up_and_keeps_nobody_else() {
    let mut gateway = Gateway::start(&[Fate::Status(400); 3]);
    let broker = broker(&gateway, &format!("{PATIENT}\nattempts_max = 3\nconnections = 1"));
    let mut alice = device(&broker, Version::V5, "alice");
    phone(&broker, "bob").disconnect();
    send(&mut alice, "im/u/bob/msg", "poison");
    for _ in 0..3 {
        assert_eq!(gateway.request().fate, Fate::Status(400));
    }
    send(&mut alice, "im/u/bob/msg", "2");
    assert_eq!(gateway.seqs(1), [2]);
}

#[test]
fn nothing_is_lost_while_the_gateway_and_the_broker_are_down() {
    let mut gateway = Gateway::start(&[]);
    let mut broker = broker(&gateway, "after_secs = 1\nattempts_max = 1");
    phone(&broker, "bob").disconnect();
    let mut alice = device(&broker, Version::V5, "alice");
    send(&mut alice, "im/u/bob/msg", "1");
    send(&mut alice, "im/u/bob/msg", "2");
    // The second is asked for only after the first was recorded, or with it.
    assert_eq!(gateway.seqs(2), [1, 2]);
    gateway.close();
    for text in ["3", "4"] {
        send(&mut alice, "im/u/bob/msg", text);
    }
    broker.restart();
    let mut alice = device(&broker, Version::V5, "alice");
    send(&mut alice, "im/u/bob/msg", "5");
    gateway.open();
    // A clean stop may come between the answer and its record.
    let mut seqs = Vec::new();
    while seqs.last() != Some(&5) {
        seqs.extend(gateway.seqs(1));
    }
    seqs.retain(|seq| *seq > 2);
    assert_eq!(seqs, [3, 4, 5]);
}

#[test]
fn kill_9_loses_no_push_and_repeats_none_that_was_recorded() {
    let mut gateway = Gateway::start(&[]);
    let mut broker = broker(&gateway, "after_secs = 1\nbatch_max = 1\nconnections = 1");
    phone(&broker, "bob").disconnect();
    let mut next = 1;
    for _ in 0..3 {
        let mut alice = device(&broker, Version::V5, "alice");
        for _ in 0..5 {
            send(&mut alice, "im/u/bob/msg", "x");
        }
        // A batch of one: the request for the third says that the second is recorded.
        let got = gateway.seqs(3);
        broker.kill_and_restart();
        let mut got_again = Vec::new();
        while got_again.last() != Some(&(next + 4)) {
            got_again.extend(gateway.seqs(1));
        }
        let all: Vec<u64> = got.iter().chain(&got_again).copied().collect();
        let mut each = all.clone();
        each.sort_unstable();
        each.dedup();
        each.retain(|seq| *seq >= next);
        assert_eq!(each, (next..next + 5).collect::<Vec<_>>(), "all of them: {all:?}");
        let fresh = got[0].max(next);
        assert!(got_again.iter().all(|seq| *seq > fresh), "recorded before the crash: {all:?}");
        assert!(got_again.is_sorted(), "{all:?}");
        next += 5;
    }
}
