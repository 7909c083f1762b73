//! Retention: what is taken is named to whoever has not had it, pulls say where a conversation
//! begins, and numbers go on.

use hoopoe_tests::broker::Options;
use hoopoe_tests::{Broker, Connect, RawClient, Version, unique_id};
use serde_json::json;

use crate::entry::{next_entry, next_seqs, send};
use crate::user::{await_topic, call_ok, device, device_with};

fn broker(kept: &str) -> Broker {
    let text = format!("[im]\nsweep_interval_secs = 1\n[im.retention]\n{kept}\n");
    Options::new().configuration(&text).start()
}

/// Returns once the user's only conversation begins at `min`.
fn await_min(device: &mut RawClient, min: u64) {
    loop {
        let heads = call_ok(device, "sync/heads", &json!({}));
        if heads["conversations"][0]["min"] == min {
            return;
        }
    }
}

#[test]
fn entries_beyond_the_retention_become_a_gap() {
    let mut broker = broker("entries = 5");
    let mut alice = device(&broker, Version::V5, "alice");
    let kept = Connect::persistent(Version::V5, &unique_id("d"));
    let mut bob = device_with(&broker, &kept, "bob");
    for text in ["1", "2"] {
        send(&mut alice, "im/u/bob/msg", text);
    }
    assert_eq!(next_seqs(&mut bob, 2), [1, 2]);
    bob.disconnect();
    for n in 3..=20 {
        send(&mut alice, "im/u/bob/msg", &n.to_string());
    }
    await_min(&mut alice, 16);
    broker.kill_and_restart();
    for version in Version::BOTH {
        // One whose session goes on, and one that is new: both hear what is missing.
        let connect = match version {
            Version::V5 => kept.clone().resume(),
            Version::V311 => Connect::new(version, &unique_id("d")),
        };
        let mut bob = device_with(&broker, &connect, "bob");
        if version == Version::V5 {
            assert_eq!(await_topic(&mut bob, "im/me/sys/gap").topic, "im/me/sys/gap/u/alice/3/15");
            assert_eq!(next_entry(&mut bob).seq, 16);
        }
        let pulled = call_ok_pull(&mut bob, &json!({ "conv": "u/alice", "from": 1 }));
        assert_eq!(pulled["min"], 16);
        assert_eq!((&pulled["count"], &pulled["last"]), (&json!(5), &json!(20)));
    }
    let mut alice = device(&broker, Version::V5, "alice");
    send(&mut alice, "im/u/bob/msg", "21");
    let heads = call_ok(&mut alice, "sync/heads", &json!({}));
    assert_eq!(heads["conversations"][0]["last"], 21, "numbers go on");
}

/// Pulls; the end's body.
fn call_ok_pull(device: &mut RawClient, body: &serde_json::Value) -> serde_json::Value {
    let request = unique_id("q");
    let topic = format!("im/svc/sync/pull/{request}");
    device.publish(hoopoe_tests::Publish::new(&topic, body.to_string()).qos(1));
    let end = await_topic(device, &format!("im/me/res/{request}/end"));
    serde_json::from_slice(&end.payload).expect("answers are JSON")
}

#[test]
fn what_nobody_can_read_any_more_is_not_unread() {
    let broker = broker("bytes = 1000");
    let mut alice = device(&broker, Version::V311, "alice");
    for _ in 0..30 {
        send(&mut alice, "im/u/bob/msg", &"x".repeat(100));
    }
    await_min(&mut alice, 21);
    let mut bob = device(&broker, Version::V311, "bob");
    let counts = call_ok(&mut bob, "sync/counts", &json!({}));
    assert_eq!(counts["unread_total"], 10);
}
