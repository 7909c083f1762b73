//! Groups over several shards: rights, limits, what who may see.

use serde_json::{Value, json};

use super::event::MemberEvent;
use super::services::USERS_MAX;
use crate::command::{Command, DeviceMove, Forward, Listed, Progress};
use crate::id::ConvKey;
use crate::refusal::Word;
use crate::rig::{Rig, TENANT, caller, user};
use crate::settings::ImSettings;

fn rig() -> Rig {
    Rig::new(ImSettings::default())
}

fn team(rig: &mut Rig, members: &[&str]) {
    let body = json!({ "group": "team", "name": "The team", "members": members });
    assert_eq!(rig.call("alice", "group/create", body), Ok(json!({ "group": "team", "seq": 1 })));
}

fn ok(rig: &mut Rig, who: &str, op: &str, body: Value) {
    assert_eq!(rig.call(who, op, body), Ok(json!({})), "{who} {op}");
}

/// The group's `member` events as `op users by`.
fn events(rig: &mut Rig) -> Vec<String> {
    let conv = ConvKey::group(TENANT, "team");
    let entries = rig.query().entries(&conv, 1, u64::MAX, 1_000, usize::MAX, false).unwrap();
    let events = entries.iter().filter_map(MemberEvent::of);
    events
        .map(|event| {
            let op = serde_json::to_value(event.op).unwrap();
            format!("{} {} {}", op.as_str().unwrap(), event.users.join(","), event.by)
        })
        .collect()
}

#[test]
fn a_group_begins_with_its_first_members() {
    let mut rig = rig();
    team(&mut rig, &["bob", "carol", "bob", "alice"]);
    assert_eq!(events(&mut rig), ["join alice,bob,carol alice"]);
    for who in ["alice", "bob", "carol"] {
        assert_eq!(rig.pulled(who, "g/team"), [1], "{who}");
        assert_eq!(rig.unread(who, "g/team"), (0, 0), "events do not count");
    }
    let again = json!({ "group": "team", "name": "x" });
    assert_eq!(rig.refused("alice", "group/create", again.clone()), "exists");
    assert_eq!(rig.refused("dave", "group/create", again), "exists");
    let info = rig.call("bob", "group/info", json!({ "group": "team" })).unwrap();
    assert_eq!(
        info,
        json!({
            "group": "team", "name": "The team", "owner": "alice", "join": "invite",
            "history": "joined", "members": 3, "my_role": "member", "muted": false,
            "until": null, "last": 1, "info": null,
        })
    );
    let list = rig.call("carol", "group/list", json!({})).unwrap();
    let line = json!({ "group": "team", "name": "The team", "role": "member", "members": 3 });
    assert_eq!(list, json!({ "groups": [line] }));
    let made = rig.call("dave", "group/create", json!({ "name": "no id" })).unwrap();
    assert_eq!(made["group"].as_str().unwrap().len(), 13, "the broker makes an id");
}

#[test]
fn members_see_what_was_there_while_they_were_members() {
    let mut rig = rig();
    team(&mut rig, &["bob"]);
    assert_eq!(rig.send("alice", "g/team", "2").unwrap().seq, 2);
    let invite = json!({ "group": "team", "users": ["carol", "bob"] });
    let answer = rig.call("alice", "group/invite", invite).unwrap();
    assert_eq!(answer["added"], json!(["carol"]));
    assert_eq!(answer["refused"][0]["user"], "bob");
    assert_eq!(answer["refused"][0]["error"], "exists");
    assert_eq!(rig.send("bob", "g/team", "4").unwrap().seq, 4);
    assert_eq!(rig.pulled("carol", "g/team"), [3, 4], "from the join's seq on");
    assert_eq!(rig.unread("carol", "g/team"), (1, 0), "what was before does not count");
    assert_eq!(rig.unread("alice", "g/team"), (1, 0));
    ok(&mut rig, "alice", "group/kick", json!({ "group": "team", "users": ["carol"] }));
    let (gone, entry) = rig.entries_for.pop().expect("carol's devices are told");
    assert_eq!((&*gone, entry.seq), ("carol", 5));
    assert!(MemberEvent::of(&entry).unwrap().removes("carol"));
    assert_eq!(rig.send("bob", "g/team", "6").unwrap().seq, 6);
    assert_eq!(rig.pulled("carol", "g/team"), [3, 4, 5], "up to the removal, included");
    assert_eq!(rig.unread("carol", "g/team"), (1, 0));
    assert_eq!(rig.send("carol", "g/team", "x").unwrap_err().word, Word::NotAllowed);
    assert_eq!(rig.call("carol", "group/list", json!({})), Ok(json!({ "groups": [] })));
    let again = json!({ "group": "team", "users": ["carol"] });
    rig.call("alice", "group/invite", again).unwrap();
    assert_eq!(rig.send("bob", "g/team", "8").unwrap().seq, 8);
    assert_eq!(rig.pulled("carol", "g/team"), [3, 4, 5, 7, 8], "a new interval");
    assert_eq!(rig.unread("carol", "g/team"), (2, 0), "6 is not for carol");
    let expected =
        ["join alice,bob alice", "invite carol alice", "kick carol alice", "invite carol alice"];
    assert_eq!(events(&mut rig), expected);
    rig.crash();
    rig.settle();
    assert_eq!(rig.pulled("carol", "g/team"), [3, 4, 5, 7, 8], "also after a crash");
}

#[test]
fn a_group_may_show_its_history_to_who_comes_later() {
    let mut rig = rig();
    team(&mut rig, &[]);
    rig.send("alice", "g/team", "2").unwrap();
    ok(
        &mut rig,
        "alice",
        "group/set",
        json!({ "group": "team", "history": "all", "join": "open" }),
    );
    let joined = rig.call("bob", "group/join", json!({ "group": "team" }));
    assert_eq!(joined, Ok(json!({ "state": "member" })));
    assert_eq!(rig.pulled("bob", "g/team"), [1, 2, 3, 4]);
    assert_eq!(rig.unread("bob", "g/team"), (0, 0), "what was before is not unread");
    let again = rig.call("bob", "group/join", json!({ "group": "team" }));
    assert_eq!(again, Ok(json!({ "state": "member" })));
    ok(&mut rig, "bob", "group/leave", json!({ "group": "team" }));
    rig.send("alice", "g/team", "6").unwrap();
    assert_eq!(rig.pulled("bob", "g/team"), [1, 2, 3, 4, 5]);
    rig.call("bob", "group/join", json!({ "group": "team" })).unwrap();
    assert_eq!(rig.pulled("bob", "g/team"), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(events(&mut rig).len(), 5);
}

#[test]
fn rights_go_by_role() {
    let group = || json!({ "group": "team" });
    let on = |user: &str| json!({ "group": "team", "user": user });
    let users = |user: &str| json!({ "group": "team", "users": [user] });
    let role = |user: &str, role: &str| json!({ "group": "team", "user": user, "role": role });
    // Who, what, refused with.
    let table = [
        ("carol", "group/kick", users("dave"), "not_allowed"),
        ("carol", "group/invite", users("eve"), "not_allowed"),
        ("carol", "group/mute", on("dave"), "not_allowed"),
        ("carol", "group/mute", group(), "not_allowed"),
        ("carol", "group/set", json!({ "group": "team", "name": "x" }), "not_allowed"),
        ("carol", "group/role", role("dave", "admin"), "not_allowed"),
        ("carol", "group/transfer", on("carol"), "not_allowed"),
        ("carol", "group/dissolve", group(), "not_allowed"),
        ("carol", "group/join", json!({ "group": "nowhere" }), "not_found"),
        ("bob", "group/kick", users("alice"), "not_allowed"),
        ("bob", "group/kick", users("bob"), "not_allowed"),
        ("bob", "group/mute", on("alice"), "not_allowed"),
        ("bob", "group/role", role("dave", "admin"), "not_allowed"),
        ("bob", "group/dissolve", group(), "not_allowed"),
        ("bob", "group/kick", users("nobody"), "not_found"),
        ("bob", "group/kick", json!({ "group": "team", "users": [] }), "bad_request"),
        ("bob", "group/approve", on("eve"), "not_found"),
        ("alice", "group/leave", group(), "conflict"),
        ("alice", "group/role", role("alice", "member"), "conflict"),
        ("alice", "group/kick", users("a/b"), "bad_request"),
        ("alice", "group/kick", json!({ "group": "a/b", "users": ["bob"] }), "bad_request"),
        ("eve", "group/join", group(), "not_allowed"),
        ("eve", "group/apply", group(), "not_allowed"),
        ("eve", "group/leave", group(), "not_allowed"),
        ("eve", "group/kick", users("bob"), "not_allowed"),
        ("eve", "group/members", group(), "not_allowed"),
    ];
    let mut rig = rig();
    team(&mut rig, &["bob", "carol", "dave"]);
    ok(&mut rig, "alice", "group/role", role("bob", "admin"));
    let before = events(&mut rig);
    for (who, op, body, word) in table {
        assert_eq!(rig.refused(who, op, body.clone()), word, "{who} {op} {body}");
    }
    assert_eq!(events(&mut rig), before, "nothing is half done");
    ok(&mut rig, "bob", "group/kick", users("dave"));
    ok(&mut rig, "alice", "group/transfer", on("carol"));
    ok(&mut rig, "alice", "group/leave", group());
    let info = rig.call("carol", "group/info", group()).unwrap();
    assert_eq!((&info["owner"], &info["members"]), (&json!("carol"), &json!(2)));
    ok(&mut rig, "carol", "group/role", role("bob", "member"));
    assert_eq!(rig.refused("bob", "group/invite", users("eve")), "not_allowed");
    let operator = rig.call_as(caller("root", true), "group/kick", users("bob"));
    assert!(operator.is_ok(), "an operator may do what an owner may");
    assert_eq!(events(&mut rig).last().unwrap(), "kick bob root");
}

#[test]
fn the_muted_do_not_write() {
    let mut rig = rig();
    team(&mut rig, &["bob", "carol"]);
    let until = rig.now + 1_000;
    let mute = json!({ "group": "team", "user": "bob", "until": until });
    ok(&mut rig, "alice", "group/mute", mute);
    assert_eq!(rig.send("bob", "g/team", "x").unwrap_err().word, Word::NotAllowed);
    assert!(rig.send("carol", "g/team", "x").is_ok());
    let members = rig.call("carol", "group/members", json!({ "group": "team" })).unwrap();
    assert_eq!(members["members"][1]["muted_until"], until);
    rig.pass(1_000);
    assert!(rig.send("bob", "g/team", "x").is_ok(), "its time is over");
    ok(&mut rig, "alice", "group/mute", json!({ "group": "team" }));
    assert_eq!(rig.send("bob", "g/team", "x").unwrap_err().word, Word::NotAllowed);
    assert!(rig.send("alice", "g/team", "x").is_ok(), "everyone but owner and admins");
    ok(&mut rig, "alice", "group/unmute", json!({ "group": "team" }));
    assert!(rig.send("bob", "g/team", "x").is_ok());
    // Leaving and coming back does not end it.
    ok(&mut rig, "alice", "group/mute", json!({ "group": "team", "user": "bob" }));
    ok(&mut rig, "alice", "group/set", json!({ "group": "team", "join": "open" }));
    ok(&mut rig, "bob", "group/leave", json!({ "group": "team" }));
    rig.call("bob", "group/join", json!({ "group": "team" })).unwrap();
    assert_eq!(rig.send("bob", "g/team", "x").unwrap_err().word, Word::NotAllowed);
}

#[test]
fn a_mute_without_end_is_shown_without_one() {
    let mut rig = rig();
    team(&mut rig, &["bob", "carol"]);
    let mutes = [
        json!({ "group": "team", "user": "bob" }),
        json!({ "group": "team", "user": "carol", "until": rig.now + 1_000 }),
    ];
    for mute in mutes {
        ok(&mut rig, "alice", "group/mute", mute);
    }
    let members = rig.call("alice", "group/members", json!({ "group": "team" })).unwrap();
    let shown = |at: usize| members["members"][at].get("muted_until");
    assert_eq!([shown(0), shown(1)], [None, Some(&Value::Null)]);
    assert_eq!(shown(2), Some(&json!(rig.now + 1_000)));
    // What is shown, given back, is the same mute.
    let again = json!({ "group": "team", "user": "bob", "until": shown(1) });
    ok(&mut rig, "alice", "group/mute", again);
    assert_eq!(rig.call("alice", "group/members", json!({ "group": "team" })), Ok(members));
    ok(&mut rig, "bob", "conv/mute", json!({ "conv": "g/team", "on": true }));
    let export = rig.query().export(&user("bob")).unwrap();
    assert_eq!(export["conversations"][0]["list"].get("muted_until"), Some(&Value::Null));
}

#[test]
fn who_applies_waits_for_an_admin() {
    let mut rig = Rig::new(ImSettings { requests_max: 2, ..ImSettings::default() });
    team(&mut rig, &["bob"]);
    ok(&mut rig, "alice", "group/set", json!({ "group": "team", "join": "ask" }));
    let apply = json!({ "group": "team", "message": "let me in" });
    for who in ["carol", "carol", "dave"] {
        let applied = rig.call(who, "group/apply", apply.clone());
        assert_eq!(applied, Ok(json!({ "state": "applied" })));
    }
    let told = rig.take_notices();
    assert_eq!(told.first().unwrap(), "alice group/apply/team/carol let me in");
    assert_eq!(rig.refused("eve", "group/apply", apply.clone()), "limit");
    assert_eq!(rig.refused("eve", "group/join", json!({ "group": "team" })), "not_allowed");
    let info = rig.call("alice", "group/info", json!({ "group": "team" })).unwrap();
    assert_eq!(info["applications"][1]["user"], "dave");
    let approve = |user: &str| json!({ "group": "team", "user": user });
    assert_eq!(rig.refused("bob", "group/approve", approve("carol")), "not_allowed");
    ok(&mut rig, "alice", "group/approve", approve("carol"));
    ok(&mut rig, "alice", "group/reject", approve("dave"));
    assert_eq!(rig.take_notices(), ["carol group/approve/team", "dave group/reject/team"]);
    assert_eq!(rig.refused("alice", "group/approve", approve("dave")), "not_found");
    assert_eq!(rig.pulled("carol", "g/team"), [3]);
    assert!(rig.pulled("dave", "g/team").is_empty());
    assert_eq!(events(&mut rig), ["join alice,bob alice", "set  alice", "join carol alice"]);
}

#[test]
fn with_consent_the_invited_are_asked() {
    let mut rig = Rig::new(ImSettings { invite_consent: true, ..ImSettings::default() });
    team(&mut rig, &[]);
    let invite = json!({ "group": "team", "users": ["carol", "dave"] });
    let answer = rig.call("alice", "group/invite", invite).unwrap();
    let expected = json!({ "added": [], "asked": ["carol", "dave"], "refused": [] });
    assert_eq!(answer, expected);
    assert_eq!(rig.take_notices()[0], "carol group/invite/team/alice The team");
    assert!(rig.pulled("carol", "g/team").is_empty());
    let joined = rig.call("carol", "group/join", json!({ "group": "team" }));
    assert_eq!(joined, Ok(json!({ "state": "member" })));
    ok(&mut rig, "dave", "group/reject", json!({ "group": "team", "user": "dave" }));
    assert_eq!(rig.refused("dave", "group/join", json!({ "group": "team" })), "not_allowed");
}

#[test]
fn with_consent_the_first_members_are_asked_too() {
    let settings = ImSettings { invite_consent: true, requests_max: 2, ..ImSettings::default() };
    let mut rig = Rig::new(settings);
    team(&mut rig, &["bob", "alice", "carol"]);
    assert_eq!(events(&mut rig), ["join alice alice"]);
    let asked = ["bob group/invite/team/alice The team", "carol group/invite/team/alice The team"];
    assert_eq!(rig.take_notices(), asked);
    assert!(rig.pulled("bob", "g/team").is_empty());
    assert_eq!(rig.send("bob", "g/team", "x").unwrap_err().word, Word::NotAllowed);
    let joined = rig.call("bob", "group/join", json!({ "group": "team" }));
    assert_eq!(joined, Ok(json!({ "state": "member" })));
    ok(&mut rig, "carol", "group/reject", json!({ "group": "team", "user": "carol" }));
    assert_eq!(rig.refused("carol", "group/join", json!({ "group": "team" })), "not_allowed");
    let info = rig.call("alice", "group/info", json!({ "group": "team" })).unwrap();
    assert_eq!((&info["members"], &info["my_role"]), (&json!(2), &json!("owner")));
    let many = json!({ "group": "many", "name": "x", "members": ["bob", "carol", "dave"] });
    assert_eq!(rig.refused("alice", "group/create", many.clone()), "limit");
    assert!(rig.take_notices().is_empty(), "nothing was half done");
    // An operator adds without asking, as with an invitation.
    rig.call_as(caller("root", true), "group/create", many).unwrap();
    assert_eq!(rig.pulled("dave", "g/many"), [1]);
}

#[test]
fn limits_are_kept() {
    let mut rig =
        Rig::new(ImSettings { groups_max: 2, group_members_max: 3, ..ImSettings::default() });
    team(&mut rig, &["bob"]);
    let open = json!({ "group": "open", "name": "o", "join": "open" });
    rig.call("bob", "group/create", open).unwrap();
    let third = json!({ "group": "third", "name": "x" });
    assert_eq!(rig.refused("bob", "group/create", third.clone()), "limit");
    let with_bob = json!({ "group": "third", "name": "x", "members": ["bob"] });
    assert_eq!(rig.refused("carol", "group/create", with_bob), "limit");
    assert!(rig.call("carol", "group/create", third).is_ok(), "nothing was half done");
    let invite = json!({ "group": "third", "users": ["bob", "dave"] });
    let answer = rig.call("carol", "group/invite", invite).unwrap();
    assert_eq!(answer["added"], json!(["dave"]));
    assert_eq!(answer["refused"][0]["error"], "limit");
    ok(&mut rig, "bob", "group/leave", json!({ "group": "team" }));
    let invite = json!({ "group": "third", "users": ["bob", "eve"] });
    let answer = rig.call("carol", "group/invite", invite).unwrap();
    assert_eq!(answer["added"], json!(["bob"]), "leaving makes room");
    assert_eq!(answer["refused"][0]["error"], "limit", "three members at most");
}

#[test]
fn a_dissolved_group_is_read_but_not_written() {
    let mut rig = rig();
    team(&mut rig, &["bob"]);
    rig.send("alice", "g/team", "2").unwrap();
    ok(&mut rig, "alice", "group/dissolve", json!({ "group": "team" }));
    assert_eq!(events(&mut rig).last().unwrap(), "dissolve  alice");
    assert_eq!(rig.pulled("bob", "g/team"), [1, 2, 3]);
    for who in ["alice", "bob"] {
        assert_eq!(rig.send(who, "g/team", "x").unwrap_err().word, Word::NotFound);
        assert_eq!(rig.recall(who, "g/team", 2).unwrap_err().word, Word::NotFound);
        assert_eq!(rig.call(who, "group/list", json!({})), Ok(json!({ "groups": [] })));
    }
    assert_eq!(rig.refused("alice", "group/dissolve", json!({ "group": "team" })), "not_found");
    let again = json!({ "group": "team", "name": "again" });
    assert_eq!(rig.refused("alice", "group/create", again), "exists", "its log is still read");
}

#[test]
fn a_temporary_group_ends_by_itself_also_after_a_crash() {
    let mut rig = rig();
    let until = rig.now + 60_000;
    let over = json!({ "name": "x", "until": rig.now });
    assert_eq!(rig.refused("alice", "group/create", over), "bad_request");
    let body = json!({ "group": "team", "name": "x", "members": ["bob"], "until": until });
    rig.call("alice", "group/create", body).unwrap();
    rig.crash();
    rig.pass(59_999);
    assert!(rig.send("bob", "g/team", "still there").is_ok());
    rig.pass(1);
    assert_eq!(rig.send("bob", "g/team", "x").unwrap_err().word, Word::NotFound);
    assert_eq!(events(&mut rig), ["join alice,bob alice", "dissolve  alice"]);
    assert_eq!(rig.pulled("bob", "g/team"), [1, 2, 3]);
}

#[test]
fn a_big_group_keeps_only_what_concerns_roles_and_removals() {
    let mut rig = Rig::new(ImSettings { small_group_members: 2, ..ImSettings::default() });
    let conv = ConvKey::group(TENANT, "team");
    team(&mut rig, &["bob"]);
    assert!(!rig.step_of(&conv).is_big(&conv));
    let invite = |users: &[&str]| json!({ "group": "team", "users": users });
    rig.call("alice", "group/invite", invite(&["carol", "dave"])).unwrap();
    assert!(rig.step_of(&conv).is_big(&conv));
    assert_eq!(rig.send("alice", "g/team", "2").unwrap().seq, 2, "the invitation has no entry");
    assert_eq!(rig.pulled("carol", "g/team"), [2]);
    assert_eq!(rig.unread("carol", "g/team"), (1, 0));
    rig.take_notices();
    ok(&mut rig, "alice", "group/mute", json!({ "group": "team", "user": "bob" }));
    assert_eq!(rig.take_notices(), ["bob group/mute/team"]);
    ok(&mut rig, "dave", "group/leave", json!({ "group": "team" }));
    assert_eq!(&*rig.entries_for.pop().unwrap().0, "dave");
    let role = json!({ "group": "team", "user": "carol", "role": "admin" });
    ok(&mut rig, "alice", "group/role", role);
    let expected = ["join alice,bob alice", "leave dave dave", "role carol alice"];
    assert_eq!(events(&mut rig), expected);
    // "Read receipts: count", out of the members' own lists.
    let of = json!({ "conv": "g/team", "seq": 2 });
    assert_eq!(rig.refused("alice", "receipt/list", of.clone()), "not_found");
    assert_eq!(rig.refused("bob", "receipt/count", of.clone()), "not_allowed", "neither sent it");
    let count = |rig: &mut Rig, who| rig.call(who, "receipt/count", of.clone());
    let counted = |recv, read| Ok(json!({ "recv": recv, "read": read, "members": 3 }));
    assert_eq!(count(&mut rig, "alice"), counted(0, 0));
    rig.read("bob", "g/team", 2);
    rig.read("carol", "g/team", 1);
    assert_eq!(count(&mut rig, "carol"), counted(1, 1), "an admin");
}

#[test]
fn members_of_a_big_group_learn_of_its_end_in_turns() {
    let mut rig = Rig::new(ImSettings { small_group_members: 2, ..ImSettings::default() });
    let members: Vec<String> = (0..2_500).map(|n| format!("user-{n:04}")).collect();
    let all = json!({ "group": "team", "name": "x", "members": members });
    assert_eq!(rig.refused("alice", "group/create", all), "bad_request", "too many for one call");
    let mut portions = members.chunks(USERS_MAX);
    let body = json!({ "group": "team", "name": "x", "members": portions.next() });
    assert_eq!(rig.call("alice", "group/create", body).unwrap()["seq"], 1);
    for users in portions {
        let body = json!({ "group": "team", "users": users });
        rig.call("alice", "group/invite", body).unwrap();
    }
    ok(&mut rig, "alice", "group/dissolve", json!({ "group": "team" }));
    let told = |rig: &Rig| rig.listed.iter().filter(|(.., row)| !row.is_current()).count();
    assert_eq!(told(&rig), 1_000);
    // The rest is told by whoever starts again.
    rig.crash();
    rig.listed.clear();
    rig.pass(10);
    assert_eq!(told(&rig), 1_501);
    assert_eq!(rig.pulled("user-0499", "g/team"), [1, 2]);
}

#[test]
fn members_are_paged() {
    let mut rig = rig();
    team(&mut rig, &["bob", "carol", "dave"]);
    ok(&mut rig, "alice", "group/kick", json!({ "group": "team", "users": ["bob"] }));
    let body = json!({ "group": "team", "limit": 2 });
    let page = rig.call("carol", "group/members", body).unwrap();
    let names = |page: &Value| -> Vec<String> {
        let members = page["members"].as_array().unwrap();
        members.iter().map(|member| member["user"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&page), ["alice", "carol"]);
    assert_eq!(page["members"][0]["role"], "owner");
    let body = json!({ "group": "team", "limit": 2, "next": page["next"] });
    let page = rig.call("carol", "group/members", body).unwrap();
    assert_eq!((names(&page), page.get("next")), (vec!["dave".to_owned()], None));
}

#[test]
fn receipts_tell_who_has_what() {
    let mut rig = rig();
    team(&mut rig, &["bob", "carol"]);
    assert_eq!(rig.send("alice", "g/team", "2").unwrap().seq, 2);
    rig.read("bob", "g/team", 2);
    let of = json!({ "conv": "g/team", "seq": 2 });
    let list = rig.call("alice", "receipt/list", of.clone());
    assert_eq!(list, Ok(json!({ "recv": ["bob"], "read": ["bob"] })));
    let count = rig.call("alice", "receipt/count", of.clone());
    assert_eq!(count, Ok(json!({ "recv": 1, "read": 1, "members": 3 })));
    assert_eq!(rig.refused("dave", "receipt/list", of), "not_found");
    let of = json!({ "conv": "g/team", "seq": 3 });
    assert_eq!(rig.refused("alice", "receipt/list", of), "not_found");
}

/// Receipts that were told, as `receiver topic`.
fn take_receipts(rig: &mut Rig) -> Vec<String> {
    rig.pass(2_000);
    let told = std::mem::take(&mut rig.notices).into_iter();
    let prefix = "im/me/sys/receipt/g/team/";
    let told = told.filter_map(|(to, topic, _)| {
        topic.strip_prefix(prefix).map(|receipt| format!("{to} {receipt}"))
    });
    told.collect()
}

/// A device of the user's acknowledges.
fn acknowledge(rig: &mut Rig, who: &str, through: u64) {
    let conv = ConvKey::group(TENANT, "team");
    let moves = vec![DeviceMove { conv, cursor: through, recv: through }];
    let (user, client) = (user(who), "ios-1".into());
    let progress = Progress { user, client, stored: false, moves, at_once: true };
    rig.post(|_| Command::Progress(Box::new(progress)));
    rig.settle();
}

#[test]
fn who_joins_has_received_and_read_nothing_of_before() {
    for history in ["joined", "all"] {
        let mut rig = rig();
        let body = json!({ "group": "team", "name": "x", "history": history });
        rig.call("alice", "group/create", body).unwrap();
        rig.send("alice", "g/team", "2").unwrap();
        let users = json!({ "group": "team", "users": ["bob", "carol"] });
        rig.call("alice", "group/invite", users).unwrap();
        acknowledge(&mut rig, "bob", 3);
        assert_eq!(take_receipts(&mut rig), [""; 0], "{history}");
        assert_eq!(rig.send("carol", "g/team", "4").unwrap().seq, 4);
        assert_eq!(take_receipts(&mut rig), [""; 0], "{history}: nor by speaking");
        rig.send("alice", "g/team", "5").unwrap();
        take_receipts(&mut rig);
        acknowledge(&mut rig, "bob", 5);
        let received = ["alice recv/5/bob", "carol recv/5/bob"];
        assert_eq!(take_receipts(&mut rig), received, "{history}");
        rig.read("bob", "g/team", 5);
        assert_eq!(take_receipts(&mut rig), ["alice read/5/bob", "carol read/5/bob"], "{history}");
        for (seq, who) in [(2, json!([])), (5, json!(["bob"]))] {
            let of = json!({ "conv": "g/team", "seq": seq });
            let list = rig.call("alice", "receipt/list", of.clone());
            assert_eq!(list, Ok(json!({ "recv": who, "read": who })), "{history} {seq}");
            let count = rig.call("alice", "receipt/count", of).unwrap();
            assert_eq!(count["read"], who.as_array().unwrap().len(), "{history} {seq}");
        }
        assert_eq!(rig.unread("bob", "g/team"), (0, 0));
    }
}

#[test]
fn who_is_back_has_what_was_neither_received_nor_read_before() {
    let mut rig = rig();
    team(&mut rig, &["bob"]);
    rig.send("alice", "g/team", "2").unwrap();
    acknowledge(&mut rig, "bob", 2);
    rig.read("bob", "g/team", 2);
    rig.post(|asker| {
        let mut send = crate::rig::message(asker, "alice", "g/team", "3");
        send.mentions = vec!["bob".into()];
        Command::Send(Box::new(send))
    });
    rig.settle();
    take_receipts(&mut rig);
    let users = json!({ "group": "team", "users": ["bob"] });
    ok(&mut rig, "alice", "group/kick", users.clone());
    assert_eq!(rig.send("alice", "g/team", "5").unwrap().seq, 5);
    rig.call("alice", "group/invite", users).unwrap();
    assert_eq!(rig.send("alice", "g/team", "7").unwrap().seq, 7);
    assert_eq!(rig.unread("bob", "g/team"), (2, 1), "what came meanwhile is not bob's");
    assert_eq!(take_receipts(&mut rig), [""; 0]);
    let login = rig.query().login(&user("bob"), "ios-1", false, false, |_| {}).unwrap();
    let place = login.starts.place(&ConvKey::group(TENANT, "team"));
    assert_eq!(place, Some((2, 7)), "3 is still to be delivered");
    assert_eq!(rig.pulled("bob", "g/team"), [1, 2, 3, 4, 6, 7]);
    let of = json!({ "conv": "g/team", "seq": 3 });
    let none = json!({ "recv": [], "read": [] });
    assert_eq!(rig.call("alice", "receipt/list", of), Ok(none));
    let of = json!({ "conv": "g/team", "seq": 2 });
    let bob = json!({ "recv": ["bob"], "read": ["bob"] });
    assert_eq!(rig.call("alice", "receipt/list", of), Ok(bob), "said is said");
    rig.read("bob", "g/team", 7);
    assert_eq!(take_receipts(&mut rig), ["alice recv/7/bob", "alice read/7/bob"]);
    assert_eq!(rig.unread("bob", "g/team"), (0, 0));
}

/// Ruling 25: whoever is out sees the group as it was then, also in the list.
#[test]
fn whoever_is_out_hears_nothing_of_what_goes_on() {
    let mut rig = rig();
    team(&mut rig, &["bob", "carol"]);
    rig.send("bob", "g/team", "2").unwrap();
    let line = |rig: &mut Rig| {
        let heads = rig.call("bob", "sync/heads", json!({})).unwrap();
        heads["conversations"][0].clone()
    };
    ok(&mut rig, "alice", "group/kick", json!({ "group": "team", "users": ["bob"] }));
    rig.pass(2_000);
    let then = line(&mut rig);
    assert_eq!((&then["last"], &then["kind"]), (&json!(3), &json!("member")));
    rig.pass(60_000);
    for text in ["4", "5"] {
        rig.send("alice", "g/team", text).unwrap();
    }
    rig.notices.clear();
    rig.read("carol", "g/team", 5);
    rig.pass(2_000);
    assert_eq!(line(&mut rig), then);
    let body = json!({ "conv": "g/team" });
    let pulled = rig.call("bob", "sync/pull", body).unwrap();
    assert_eq!((&pulled["last"], &pulled["count"]), (&json!(3), &json!(3)));
    let user = crate::rig::user("bob");
    rig.read("bob", "g/team", 3);
    let login = rig.query().login(&user, "ios-1", false, false, |_| {}).unwrap();
    assert!(login.hello.conversations.is_empty(), "no news");
    let notices = rig.notices.iter();
    let receipts: Vec<_> = notices.filter(|(_, topic, _)| topic.contains("/receipt/")).collect();
    assert!(!receipts.is_empty());
    assert!(receipts.iter().all(|(user, ..)| &**user != "bob"), "{receipts:?}");
}

fn erase(rig: &mut Rig, who: &str) {
    use crate::user::account::{AccountChange, AccountCommand};
    rig.post(|asker| {
        let change = AccountChange::Delete { erase: true };
        let user = crate::rig::user(who);
        crate::command::Command::Account(Box::new(AccountCommand { user, change, asker }))
    });
    rig.settle();
    rig.pass(1_000);
}

#[test]
fn what_an_erased_owner_had_goes_to_an_admin_or_a_member_or_ends() {
    let mut rig = rig();
    team(&mut rig, &["bob", "carol", "dave"]);
    ok(
        &mut rig,
        "alice",
        "group/role",
        json!({ "group": "team", "user": "dave", "role": "admin" }),
    );
    let owner = |rig: &mut Rig, who: &str| {
        let info = rig.call(who, "group/info", json!({ "group": "team" })).unwrap();
        (info["owner"].as_str().unwrap().to_owned(), info["members"].as_u64().unwrap())
    };
    erase(&mut rig, "alice");
    assert_eq!(owner(&mut rig, "dave"), ("dave".to_owned(), 3));
    erase(&mut rig, "dave");
    assert_eq!(owner(&mut rig, "bob"), ("bob".to_owned(), 2), "no admin: a member");
    ok(&mut rig, "bob", "group/set", json!({ "group": "team", "name": "bob's" }));
    // Who comes under the name later has nothing of it.
    assert_eq!(rig.send("alice", "g/team", "x").unwrap_err().word, Word::NotAllowed);
    ok(&mut rig, "bob", "group/kick", json!({ "group": "team", "users": ["carol"] }));
    erase(&mut rig, "bob");
    assert_eq!(rig.refused("carol", "group/info", json!({ "group": "team" })), "not_found");
    let told = events(&mut rig);
    assert_eq!(
        told[2..],
        [
            "transfer dave alice",
            "leave alice alice",
            "transfer bob dave",
            "leave dave dave",
            "set  bob",
            "kick carol bob",
            "leave bob bob",
            "dissolve  bob",
        ]
    );
}

#[test]
fn a_channel_of_an_erased_owner_goes_to_its_next_publisher() {
    let mut rig = rig();
    let body = json!({ "channel": "news", "name": "News", "publishers": ["bob"] });
    rig.call("alice", "channel/create", body).unwrap();
    ok(&mut rig, "carol", "channel/follow", json!({ "channel": "news" }));
    erase(&mut rig, "carol");
    let info = |rig: &mut Rig| {
        let info = rig.call("dave", "channel/info", json!({ "channel": "news" })).unwrap();
        (info["owner"].clone(), info["publishers"].clone(), info["followers"].clone())
    };
    assert_eq!(info(&mut rig), (json!("alice"), json!(["alice", "bob"]), json!(2)));
    erase(&mut rig, "alice");
    assert_eq!(info(&mut rig), (json!("bob"), json!(["bob"]), json!(1)));
    ok(&mut rig, "bob", "channel/publishers", json!({ "channel": "news", "add": ["dave"] }));
    erase(&mut rig, "bob");
    erase(&mut rig, "dave");
    assert_eq!(info(&mut rig), (json!(""), json!([]), json!(0)), "operators name publishers");
}

#[test]
fn a_removal_that_is_told_again_lets_nobody_go_who_is_back() {
    let mut rig = rig();
    let body = json!({ "group": "team", "name": "x", "members": ["bob"], "join": "open" });
    rig.call("alice", "group/create", body).unwrap();
    ok(&mut rig, "bob", "group/leave", json!({ "group": "team" }));
    let (user, _, left) = rig.listed.pop().unwrap();
    rig.call("bob", "group/join", json!({ "group": "team" })).unwrap();
    rig.listed.clear();
    // As after a fault: the outbox does not know whether anybody has heard of it.
    let forward = Box::new(Forward::Listed(Listed {
        tenant: TENANT.into(),
        user,
        conv: ConvKey::group(TENANT, "team"),
        intervals: left.intervals.clone(),
        start: 0,
        start_count: 0,
        since_ms: left.since_ms,
        version: left.version,
    }));
    rig.post(|_| Command::Forward { outbox: None, forward });
    rig.settle();
    assert!(!left.is_current());
    let (_, wire, row) = rig.listed.pop().expect("the devices listen again");
    assert_eq!((&*wire, row.is_current()), ("g/team", true));
    assert_eq!(rig.pulled("bob", "g/team"), [1, 2, 3]);
}

#[test]
fn a_join_that_its_end_overtakes_begins_where_it_was() {
    let mut rig = rig();
    let body = json!({ "group": "team", "name": "x", "history": "all" });
    rig.call("alice", "group/create", body).unwrap();
    for text in ["2", "3"] {
        rig.send("alice", "g/team", text).unwrap();
    }
    let here = rig.shard_of(ConvKey::group(TENANT, "team").slot());
    let names: Vec<String> = (0..100).map(|n| format!("b{n}")).collect();
    let bob = names.iter().find(|bob| rig.shard_of(user(bob).slot()) != here).unwrap();
    let there = rig.shard_of(user(bob).slot());
    // Nothing can be written there: the news of the join are told again later.
    rig.hinder(there, true);
    let body = json!({ "group": "team", "users": [bob] });
    rig.call("alice", "group/invite", body.clone()).unwrap();
    rig.hinder(there, false);
    ok(&mut rig, "alice", "group/kick", body);
    rig.pass(2_000);
    let heads = rig.call(bob, "sync/heads", json!({})).unwrap();
    let line = &heads["conversations"][0];
    assert_eq!((&line["read"], &line["recv"]), (&json!(3), &json!(3)), "what was before is read");
    assert_eq!(rig.unread(bob, "g/team"), (0, 0));
}
