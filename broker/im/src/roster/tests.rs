//! Rosters of users in several shards.

use hoopoe_store::kv::{Batch, Family};
use serde_json::{Value, json};

use super::Counts;
use crate::command::Command;
use crate::keys::{self, user_kind};
use crate::refusal::Word;
use crate::rig::{Outcome, Rig, caller};
use crate::settings::{ContactPolicy, ImSettings};

fn friends_only() -> Rig {
    Rig::new(ImSettings { contact_policy: ContactPolicy::Roster, ..ImSettings::default() })
}

/// Carries out an operation on another user; gives the state it leads to, or the refusal's word.
fn act(rig: &mut Rig, who: &str, op: &str, other: &str) -> String {
    let body = json!({ "user": other });
    match rig.call_as(caller(who, false), &format!("roster/{op}"), body) {
        Ok(found) => found.value["state"].as_str().unwrap().to_owned(),
        Err(refusal) => refusal.word.as_str().to_owned(),
    }
}

/// A roster as `user state`.
fn list(rig: &mut Rig, who: &str) -> Vec<String> {
    let list = rig.call(who, "roster/list", json!({})).unwrap();
    let users = list["users"].as_array().unwrap();
    let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    users.iter().map(|line| format!("{} {}", text(line, "user"), text(line, "state"))).collect()
}

#[test]
fn friends_are_made_by_asking_and_agreeing() {
    let mut rig = friends_only();
    assert_eq!(rig.send("alice", "u/bob", "x").unwrap_err().word, Word::NotAllowed);
    let request = json!({ "user": "bob", "message": "hi" });
    assert_eq!(rig.call("alice", "roster/request", request), Ok(json!({ "state": "asking" })));
    assert_eq!(rig.take_notices(), ["bob roster/request/alice hi"]);
    assert_eq!(
        (list(&mut rig, "alice"), list(&mut rig, "bob")),
        (vec!["bob asking".to_owned()], vec!["alice asked".to_owned()],)
    );
    assert_eq!(rig.send("alice", "u/bob", "x").unwrap_err().word, Word::NotAllowed);
    assert_eq!(act(&mut rig, "alice", "accept", "bob"), "not_found", "nobody agrees for others");
    assert_eq!(act(&mut rig, "bob", "accept", "alice"), "friend");
    assert_eq!(rig.take_notices(), ["alice roster/accept/bob"]);
    assert_eq!(list(&mut rig, "alice"), ["bob friend"]);
    assert!(rig.send("alice", "u/bob", "x").is_ok());
    assert!(rig.send("bob", "u/alice", "x").is_ok());
    assert_eq!(act(&mut rig, "alice", "remove", "bob"), "none");
    assert!(list(&mut rig, "alice").is_empty() && list(&mut rig, "bob").is_empty());
    for (from, to) in [("alice", "u/bob"), ("bob", "u/alice")] {
        assert_eq!(rig.send(from, to, "x").unwrap_err().word, Word::NotAllowed);
    }
    assert_eq!(act(&mut rig, "bob", "request", "alice"), "asking");
    assert_eq!(act(&mut rig, "alice", "reject", "bob"), "none");
    assert!(list(&mut rig, "bob").is_empty());
    assert_eq!(act(&mut rig, "bob", "request", "bob"), "bad_request");
}

#[test]
fn who_asks_each_other_is_friends() {
    let mut rig = friends_only();
    let ask = |rig: &mut Rig, who: &str, other: &str| {
        rig.post_call(caller(who, false), "roster/request", &json!({ "user": other }))
    };
    // Both calls are applied before either has heard of the other.
    let both = [ask(&mut rig, "alice", "bob"), ask(&mut rig, "bob", "alice")];
    rig.settle();
    assert!(both.into_iter().all(|asker| rig.outcome(asker).is_some()));
    assert_eq!(list(&mut rig, "alice"), ["bob friend"]);
    assert_eq!(list(&mut rig, "bob"), ["alice friend"]);
    assert!(rig.send("alice", "u/bob", "x").is_ok());
}

#[test]
fn a_request_taken_back_while_it_is_accepted_leaves_nothing() {
    let mut rig = friends_only();
    assert_eq!(act(&mut rig, "alice", "request", "bob"), "asking");
    let user = |other: &str| json!({ "user": other });
    rig.post_call(caller("alice", false), "roster/remove", &user("bob"));
    rig.post_call(caller("bob", false), "roster/accept", &user("alice"));
    rig.settle();
    assert_eq!(list(&mut rig, "alice"), list(&mut rig, "bob"));
    assert!(list(&mut rig, "bob").is_empty());
    assert_eq!(rig.send("alice", "u/bob", "x").unwrap_err().word, Word::NotAllowed);
}

#[test]
fn a_block_holds_before_it_is_answered() {
    let mut rig = Rig::new(ImSettings::default());
    assert!(rig.send("bob", "u/alice", "x").is_ok());
    let body = json!({ "group": "team", "name": "x", "members": ["bob"] });
    rig.call("alice", "group/create", body).unwrap();
    let asker = rig.post_call(caller("alice", false), "roster/block", &json!({ "user": "bob" }));
    let home = (0..rig.shards()).find(|shard| rig.step(*shard, 100)).unwrap();
    assert!(rig.outcome(asker).is_none(), "shard {home} waits for the pair's");
    let answered = loop {
        assert!((0..rig.shards()).any(|shard| rig.step(shard, 1)));
        if let Some(outcome) = rig.outcome(asker) {
            break outcome;
        }
    };
    assert!(matches!(answered, Outcome::Answer(_)));
    let early = rig
        .post(|asker| Command::Send(Box::new(crate::rig::message(asker, "bob", "u/alice", "x"))));
    rig.settle();
    let refused = format!("{:?}", rig.outcome(early));
    assert!(refused.contains("blocked"), "{refused}");
    assert_eq!(list(&mut rig, "alice"), ["bob blocked"]);
    assert_eq!(act(&mut rig, "bob", "request", "alice"), "not_allowed");
    assert_eq!(act(&mut rig, "alice", "request", "bob"), "conflict");
    assert!(rig.send("alice", "u/bob", "x").is_ok(), "it holds one way");
    assert!(rig.send("bob", "g/team", "x").is_ok(), "not in common groups");
    let invite = json!({ "group": "mine", "name": "x", "members": ["alice"] });
    assert_eq!(rig.refused("bob", "group/create", invite), "not_allowed");
    rig.crash();
    assert_eq!(rig.send("bob", "u/alice", "x").unwrap_err().word, Word::NotAllowed);
    assert_eq!(act(&mut rig, "alice", "unblock", "bob"), "none");
    assert!(rig.send("bob", "u/alice", "x").is_ok());
}

#[test]
fn a_block_ends_requests_and_keeps_friends_apart_only_while_it_lasts() {
    let mut rig = friends_only();
    assert_eq!(act(&mut rig, "bob", "request", "alice"), "asking");
    assert_eq!(act(&mut rig, "alice", "block", "bob"), "blocked");
    assert!(list(&mut rig, "bob").is_empty());
    assert_eq!(act(&mut rig, "alice", "unblock", "bob"), "none");
    assert_eq!(act(&mut rig, "bob", "request", "alice"), "asking");
    assert_eq!(act(&mut rig, "alice", "accept", "bob"), "friend");
    assert_eq!(act(&mut rig, "alice", "block", "bob"), "blocked");
    assert_eq!(rig.send("bob", "u/alice", "x").unwrap_err().word, Word::NotAllowed);
    assert_eq!(act(&mut rig, "alice", "unblock", "bob"), "friend");
    assert!(rig.send("bob", "u/alice", "x").is_ok());
}

#[test]
fn requests_that_wait_are_limited() {
    let mut rig = Rig::new(ImSettings { requests_max: 2, ..ImSettings::default() });
    for other in ["bob", "carol"] {
        assert_eq!(act(&mut rig, "alice", "request", other), "asking");
    }
    assert_eq!(act(&mut rig, "alice", "request", "dave"), "limit");
    assert_eq!(act(&mut rig, "eve", "request", "carol"), "asking");
    assert_eq!(act(&mut rig, "frank", "request", "carol"), "asking");
    assert!(list(&mut rig, "frank").is_empty(), "carol has enough: it comes back");
    assert_eq!(list(&mut rig, "carol"), ["alice asked", "eve asked"]);
}

#[test]
fn a_roster_has_room_for_so_many() {
    let mut rig = Rig::new(ImSettings { roster_max: 2, ..ImSettings::default() });
    assert_eq!(act(&mut rig, "alice", "request", "bob"), "asking");
    assert_eq!(act(&mut rig, "alice", "block", "carol"), "blocked");
    for op in ["request", "block"] {
        assert_eq!(act(&mut rig, "alice", op, "dave"), "limit");
    }
    assert_eq!(act(&mut rig, "alice", "block", "bob"), "blocked", "who is listed already");
    assert_eq!(act(&mut rig, "dave", "request", "alice"), "asking");
    assert!(list(&mut rig, "dave").is_empty(), "alice has no room: it comes back");
    assert_eq!(list(&mut rig, "alice"), ["bob blocked", "carol blocked"]);
    assert_eq!(act(&mut rig, "alice", "unblock", "carol"), "none");
    assert_eq!(act(&mut rig, "dave", "request", "alice"), "asking");
    assert_eq!(list(&mut rig, "alice"), ["bob blocked", "dave asked"]);
    assert_eq!(act(&mut rig, "alice", "accept", "dave"), "friend", "it was listed");
}

/// What a roster holds, as its row has it and as its list has it.
fn counts(rig: &mut Rig, who: &str) -> (Option<Counts>, Counts) {
    let user = crate::rig::user(who);
    let key = keys::user(&user.tenant, &user.id, user_kind::ROSTER);
    let row = rig.kv().get(Family::Im, &key).unwrap();
    let lines = list(rig, who);
    let count = |state: &str| lines.iter().filter(|line| line.ends_with(state)).count();
    let found = Counts { asked: count(" asked"), asking: count(" asking"), listed: lines.len() };
    (row.map(|row| crate::txn::read_json(&key, &row).unwrap()), found)
}

#[test]
fn what_a_roster_holds_is_known_without_a_look_at_it() {
    let mut rig = Rig::new(ImSettings { requests_max: 2, ..ImSettings::default() });
    let users = ["alice", "bob", "carol"];
    let ops = ["request", "request", "unblock", "accept", "reject", "remove", "block", "unblock"];
    let mut random = 1_u64;
    let mut seen = Vec::new();
    for step in 0..1_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let choice = (random >> 33) as usize;
        let (who, other) = (users[choice % 3], users[(choice / 3) % 3]);
        act(&mut rig, who, ops[(choice / 9) % ops.len()], other);
        if step % 50 == 0 {
            rig.crash();
            rig.settle();
        }
        for who in users {
            let (row, found) = counts(&mut rig, who);
            assert_eq!(row.unwrap_or_default(), found, "{who}");
            seen.push(found);
        }
    }
    for (asked, asking) in [(2, 0), (0, 2), (0, 0)] {
        let most = Counts { asked, asking, listed: 2 };
        assert!(seen.contains(&most), "{most:?} was never there");
    }
}

#[test]
fn a_roster_that_was_never_counted_is() {
    let mut rig = Rig::new(ImSettings { requests_max: 2, ..ImSettings::default() });
    for other in ["bob", "carol"] {
        assert_eq!(act(&mut rig, "alice", "request", other), "asking");
    }
    let alice = crate::rig::user("alice");
    let mut batch = Batch::default();
    batch.delete(Family::Im, &keys::user(&alice.tenant, &alice.id, user_kind::ROSTER));
    rig.kv().write(&batch, true).unwrap();
    rig.crash();
    assert_eq!(act(&mut rig, "alice", "request", "dave"), "limit");
    assert_eq!(act(&mut rig, "bob", "accept", "alice"), "friend");
    let held = Counts { asked: 0, asking: 1, listed: 2 };
    assert_eq!(counts(&mut rig, "alice"), (Some(held), held));
    assert_eq!(act(&mut rig, "alice", "request", "dave"), "asking");
}

#[test]
fn tags_and_notes_are_the_owners() {
    let mut rig = Rig::new(ImSettings::default());
    let tag = json!({ "user": "bob", "tags": ["work"] });
    assert_eq!(rig.refused("alice", "roster/tag", tag.clone()), "not_found");
    act(&mut rig, "alice", "request", "bob");
    assert_eq!(rig.call("alice", "roster/tag", tag), Ok(json!({})));
    let note = json!({ "user": "bob", "note": "tall" });
    assert_eq!(rig.call("alice", "roster/note", note), Ok(json!({})));
    act(&mut rig, "bob", "accept", "alice");
    let users = rig.call("alice", "roster/list", json!({})).unwrap()["users"].clone();
    assert_eq!((&users[0]["tags"], &users[0]["note"]), (&json!(["work"]), &json!("tall")));
    assert_eq!(rig.call("bob", "roster/list", json!({})).unwrap()["users"][0]["note"], "");
}

#[test]
fn a_roster_survives_crashes_between_its_shards() {
    // At each point of the way: what was answered holds, and both sides come to agree.
    for crash_after in 0..12 {
        let mut rig = friends_only();
        let user = |other: &str| json!({ "user": other });
        let asked = rig.post_call(caller("alice", false), "roster/request", &user("bob"));
        let mut steps = 0;
        while steps < crash_after && (0..rig.shards()).any(|shard| rig.step(shard, 1)) {
            steps += 1;
        }
        let answered = rig.outcome(asked).is_some();
        rig.crash();
        rig.settle();
        let lists = (list(&mut rig, "alice"), list(&mut rig, "bob"));
        let both = (vec!["bob asking".to_owned()], vec!["alice asked".to_owned()]);
        assert!(lists == both || !answered && lists == (vec![], vec![]), "{steps}: {lists:?}");
        if lists == both {
            assert_eq!(act(&mut rig, "bob", "accept", "alice"), "friend");
            rig.crash();
            rig.settle();
            assert_eq!(list(&mut rig, "alice"), ["bob friend"]);
            assert!(rig.send("alice", "u/bob", "x").is_ok());
        }
    }
}
