//! The step of push by itself, and what there is to push over the rows of several shards.

use serde_json::json;

use super::*;
use crate::command::{Command, Device};
use crate::rig::{Rig, TENANT, caller, conv_of, message, user};
use crate::settings::ImSettings;

const RETRY: Retry = Retry { first_ms: 100, most_ms: 1_000, attempts: 3 };
const AWAY: Terms = Terms { attended: false, after_ms: 10_000, max_age_ms: 0, most: 100 };

fn key(who: &str) -> Key {
    (user(who), ConvKey::pair(TENANT, who, "zoe"))
}

fn names(taken: &[(Key, u64)]) -> Vec<&str> {
    taken.iter().map(|((user, _), _)| &*user.id).collect()
}

fn keys_of(taken: Vec<(Key, u64)>) -> Vec<Key> {
    taken.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn what_is_due_is_taken_once_and_the_earlier_time_counts() {
    let mut pusher = Pusher::new(RETRY);
    pusher.owe(key("alice"), 500);
    pusher.owe(key("bob"), 300);
    pusher.owe(key("alice"), 900);
    assert_eq!(pusher.next_timeout(), Some(300));
    assert!(pusher.take(299, 10).is_empty());
    let taken = pusher.take(500, 10);
    assert_eq!(names(&taken), ["bob", "alice"]);
    assert!(pusher.take(500, 10).is_empty(), "under way");
    for key in keys_of(taken) {
        pusher.settled(key, None);
    }
    assert!(pusher.is_empty());
    pusher.owe(key("alice"), 700);
    let taken = pusher.take(700, 10);
    pusher.settled(keys_of(taken).remove(0), Some(800));
    assert_eq!(pusher.next_timeout(), Some(800), "there is more");
}

#[test]
fn who_puts_the_phone_away_is_pushed_to_at_once() {
    let mut pusher = Pusher::new(RETRY);
    pusher.owe(key("alice"), 5_000);
    pusher.owe(key("bob"), 5_000);
    pusher.hurry(&user("alice"), 100);
    assert_eq!(names(&pusher.take(100, 10)), ["alice"]);
}

#[test]
fn failures_pause_everything_for_a_growing_time_and_spoil_nobody_else() {
    let mut pusher = Pusher::new(RETRY);
    for who in ["alice", "bob", "carol"] {
        pusher.owe(key(who), 0);
    }
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..2 {
        let taken = pusher.take(now, 10);
        assert_eq!(taken.len(), 3);
        assert!(pusher.failed(keys_of(taken), now, u64::MAX).is_empty());
        let next = pusher.next_timeout().unwrap();
        pauses.push(next - now);
        now = next;
    }
    assert!(pauses[1] > pauses[0], "{pauses:?}");
    // What failed twice goes alone.
    let taken = pusher.take(now, 10);
    assert_eq!(taken.len(), 1);
    let poison = pusher.failed(keys_of(taken), now, 0);
    assert_eq!(poison.len(), 1, "given up after three attempts");
    pusher.settled(poison[0].clone(), None);
    now = pusher.next_timeout().unwrap();
    for _ in 0..2 {
        let taken = pusher.take(now, 10);
        assert_eq!(taken.len(), 1);
        pusher.accepted();
        pusher.settled(keys_of(taken).remove(0), None);
    }
    assert!(pusher.is_empty());
}

#[test]
fn a_gateway_that_is_not_there_costs_no_attempts() {
    let mut pusher = Pusher::new(RETRY);
    pusher.owe(key("alice"), 0);
    let mut now = 0;
    for _ in 0..50 {
        let taken = pusher.take(now, 10);
        assert_eq!(taken.len(), 1);
        pusher.unreachable(keys_of(taken), now, 7);
        let next = pusher.next_timeout().unwrap();
        assert!(next > now && next <= now + RETRY.most_ms);
        now = next;
    }
}

#[test]
fn what_was_taken_and_not_recorded_is_only_recorded_again() {
    let mut pusher = Pusher::new(RETRY);
    pusher.owe(key("alice"), 0);
    let taken = pusher.take(0, 10);
    pusher.not_recorded(keys_of(taken).remove(0), 7, 0);
    pusher.owe(key("alice"), 0);
    pusher.hurry(&user("alice"), 0);
    assert!(pusher.take(0, 10).is_empty(), "in its own time");
    let taken = pusher.take(100, 10);
    assert_eq!((names(&taken), taken[0].1), (vec!["alice"], 7));
}

/// A user with a device that has given a push token and has gone.
fn away(rig: &mut Rig, who: &str) {
    let device = Device {
        user: user(who),
        client: "ios-1".into(),
        location: hoopoe_core::Location::new(0, 1, who.len() as u32),
        address_class: "network",
        stored: true,
        kept: false,
        heads_only: false,
    };
    rig.post(|_| Command::Connected(Box::new(device.clone())));
    let mut from = caller(who, false);
    from.device = "ios-1".into();
    rig.call_as(from, "device/push-token", json!({ "provider": "apns", "token": "t" })).unwrap();
    rig.post(|_| Command::Disconnected(Box::new(device)));
    rig.settle();
}

fn page(rig: &Rig, who: &str, conv: &str, terms: &Terms) -> PushPage {
    rig.query().push_page(&user(who), &conv_of(who, conv), terms).unwrap()
}

fn seqs(page: &PushPage) -> Vec<u64> {
    page.pushes.iter().map(|push| push.seq).collect()
}

fn recorded(rig: &mut Rig, who: &str, conv: &str, seq: u64) {
    let (user, conv) = (user(who), conv_of(who, conv));
    rig.post(|asker| Command::Pushed(Box::new(Pushed { user, conv, seq, asker })));
    rig.settle();
}

#[test]
fn messages_that_no_device_has_received_are_pushed_once() {
    let mut rig = Rig::new(ImSettings::default());
    away(&mut rig, "bob");
    for text in ["one", "two", "three"] {
        rig.send("alice", "u/bob", text).unwrap();
    }
    let found = page(&rig, "bob", "u/alice", &AWAY);
    assert_eq!((seqs(&found), found.through, found.unread), (vec![1, 2, 3], 3, 3));
    assert_eq!(found.devices[0].provider, "apns");
    assert_eq!(&*found.pushes[0].payload, b"one");
    recorded(&mut rig, "bob", "u/alice", 2);
    assert_eq!(seqs(&page(&rig, "bob", "u/alice", &AWAY)), [3]);
    recorded(&mut rig, "bob", "u/alice", 1);
    assert_eq!(seqs(&page(&rig, "bob", "u/alice", &AWAY)), [3], "it never goes back");
    rig.crash();
    assert_eq!(seqs(&page(&rig, "bob", "u/alice", &AWAY)), [3], "recorded is recorded");
    let owed = rig.query().push_owed(&user("bob")).unwrap();
    assert_eq!(owed, [conv_of("bob", "u/alice")]);
    // Own messages are no news, and pass what was before them.
    rig.send("bob", "u/alice", "answer").unwrap();
    rig.pass(2_000);
    assert!(seqs(&page(&rig, "bob", "u/alice", &AWAY)).is_empty());
    assert!(rig.query().push_owed(&user("bob")).unwrap().is_empty());
    assert!(page(&rig, "alice", "u/bob", &AWAY).devices.is_empty(), "no token, no push");
}

#[test]
fn what_is_received_recalled_or_old_is_withdrawn() {
    let mut rig = Rig::new(ImSettings::default());
    away(&mut rig, "bob");
    for text in ["one", "two", "three", "four"] {
        rig.send("alice", "u/bob", text).unwrap();
    }
    rig.recall("alice", "u/bob", 3).unwrap();
    rig.read("bob", "u/alice", 1);
    let found = page(&rig, "bob", "u/alice", &AWAY);
    assert_eq!((seqs(&found), found.through), (vec![2, 4], 5));
    rig.pass(5_000);
    let late = Terms { max_age_ms: 4_000, ..AWAY };
    let found = page(&rig, "bob", "u/alice", &late);
    assert_eq!((seqs(&found), found.through), (vec![], 5));
}

#[test]
fn a_device_that_is_looked_at_has_its_time() {
    let mut rig = Rig::new(ImSettings::default());
    away(&mut rig, "bob");
    rig.send("alice", "u/bob", "one").unwrap();
    rig.pass(9_000);
    rig.send("alice", "u/bob", "two").unwrap();
    rig.pass(1_000);
    let attended = Terms { attended: true, ..AWAY };
    let found = page(&rig, "bob", "u/alice", &attended);
    assert_eq!((seqs(&found), found.through), (vec![1], 1));
    assert_eq!(found.again_ms, Some(rig.now + 9_000));
    assert_eq!(seqs(&page(&rig, "bob", "u/alice", &AWAY)), [1, 2]);
}

#[test]
fn a_page_is_bounded_and_says_that_there_is_more() {
    let mut rig = Rig::new(ImSettings::default());
    away(&mut rig, "bob");
    for _ in 0..300 {
        rig.send("alice", "u/bob", "x").unwrap();
    }
    let few = page(&rig, "bob", "u/alice", &Terms { most: 7, ..AWAY });
    assert_eq!((few.pushes.len(), few.through, few.again_ms), (7, 7, Some(rig.now)));
    let all = page(&rig, "bob", "u/alice", &Terms { most: 1_000, ..AWAY });
    assert_eq!((all.through, all.looked, all.again_ms), (256, 256, Some(rig.now)));
}

#[test]
fn groups_push_to_all_big_ones_and_channels_only_mentions_muted_ones_too() {
    let mut rig = Rig::new(ImSettings { small_group_members: 3, ..ImSettings::default() });
    for who in ["bob", "carol"] {
        away(&mut rig, who);
    }
    let body = json!({ "group": "team", "name": "Team", "members": ["bob", "carol"] });
    rig.call("alice", "group/create", body).unwrap();
    let team = ConvKey::group(TENANT, "team");
    let members = rig.query().members_to_push(&team).unwrap().unwrap();
    assert_eq!(members.len(), 3);
    let plain = rig.send("alice", "g/team", "hello").unwrap().seq;
    assert_eq!(seqs(&page(&rig, "bob", "g/team", &AWAY)), [plain]);
    assert!(page(&rig, "dora", "g/team", &AWAY).pushes.is_empty(), "no member");

    rig.call("bob", "conv/mute", json!({ "conv": "g/team", "on": true })).unwrap();
    let mention = |rig: &mut Rig| {
        rig.post(|asker| {
            let mut send = message(asker, "alice", "g/team", "@bob");
            send.mentions = vec!["bob".into()];
            Command::Send(Box::new(send))
        });
        rig.settle();
        rig.query().head(&team).unwrap().last
    };
    let named = mention(&mut rig);
    let found = page(&rig, "bob", "g/team", &AWAY);
    assert_eq!(seqs(&found), [named]);
    assert!(found.pushes[0].mentioned && found.pushes[0].muted);
    assert_eq!(seqs(&page(&rig, "carol", "g/team", &AWAY)), [plain, named]);
    rig.call("bob", "conv/mute", json!({ "conv": "g/team", "on": false })).unwrap();

    // Now it is a big group.
    rig.call("alice", "group/invite", json!({ "group": "team", "users": ["dora"] })).unwrap();
    assert_eq!(rig.query().members_to_push(&team).unwrap(), None);
    rig.send("alice", "g/team", "to all of you").unwrap();
    let named_again = mention(&mut rig);
    assert_eq!(seqs(&page(&rig, "bob", "g/team", &AWAY)), [named, named_again]);
    assert!(page(&rig, "carol", "g/team", &AWAY).pushes.is_empty());
    // All of them are named by `all`, however many they are.
    rig.post(|asker| {
        let send = message(asker, "alice", "g/team", "@all");
        Command::Send(Box::new(crate::command::Send { at_all: true, ..send }))
    });
    rig.settle();
    let last = rig.query().head(&team).unwrap().last;
    assert_eq!(rig.query().everybody_to_push(&team).unwrap().unwrap().len(), 4);
    assert_eq!(seqs(&page(&rig, "bob", "g/team", &AWAY)), [named, named_again, last]);
    let found = page(&rig, "carol", "g/team", &AWAY);
    assert!(seqs(&found) == [last] && found.pushes[0].mentioned);
}

#[test]
fn users_with_tokens_are_found_after_a_start() {
    let mut rig = Rig::new(ImSettings::default());
    away(&mut rig, "bob");
    away(&mut rig, "carol");
    let mut from = caller("carol", false);
    from.device = "ios-1".into();
    rig.call_as(from, "device/push-token", json!({ "provider": "apns", "token": "" })).unwrap();
    rig.crash();
    let mut found = Vec::new();
    users_with_tokens(&rig.kv(), |user| found.push(user.id)).unwrap();
    assert_eq!(found, ["bob".into()]);
}
