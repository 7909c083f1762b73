//! Channels over several shards.

use serde_json::json;

use crate::id::ConvKey;
use crate::refusal::Word;
use crate::rig::{Rig, TENANT, caller};
use crate::settings::ImSettings;

fn news(rig: &mut Rig) {
    let body = json!({ "channel": "news", "name": "News", "publishers": ["bob"] });
    let made = rig.call("alice", "channel/create", body);
    assert_eq!(made, Ok(json!({ "channel": "news" })));
}

fn channel() -> serde_json::Value {
    json!({ "channel": "news" })
}

#[test]
fn publishers_post_and_followers_read() {
    let mut rig = Rig::new(ImSettings::default());
    news(&mut rig);
    for who in ["alice", "bob"] {
        rig.send(who, "c/news", "old").unwrap();
    }
    assert_eq!(rig.send("carol", "c/news", "x").unwrap_err().word, Word::NotAllowed);
    assert_eq!(rig.call("carol", "channel/follow", channel()), Ok(json!({})));
    assert_eq!(rig.call("carol", "channel/follow", channel()), Ok(json!({})), "again");
    assert_eq!(rig.send("alice", "c/news", "new").unwrap().seq, 3, "following has no entry");
    assert_eq!(rig.pulled("carol", "c/news"), [3]);
    assert_eq!(rig.unread("carol", "c/news"), (1, 0));
    assert_eq!(rig.send("carol", "c/news", "x").unwrap_err().word, Word::NotAllowed);
    let info = rig.call("carol", "channel/info", channel()).unwrap();
    let expected = json!({
        "channel": "news", "name": "News", "owner": "alice", "publishers": ["alice", "bob"],
        "followers": 3, "following": true, "last": 3,
    });
    assert_eq!(info, expected);
    rig.read("carol", "c/news", 3);
    let of = json!({ "conv": "c/news", "seq": 3 });
    let counted = json!({ "recv": 1, "read": 1, "members": 3 });
    assert_eq!(rig.call("bob", "receipt/count", of.clone()), Ok(counted), "a publisher");
    assert_eq!(rig.refused("carol", "receipt/count", of), "not_allowed");
    assert_eq!(rig.call("carol", "channel/unfollow", channel()), Ok(json!({})));
    rig.send("alice", "c/news", "later").unwrap();
    assert_eq!(rig.pulled("carol", "c/news"), [3]);
    assert_eq!(rig.refused("alice", "channel/unfollow", channel()), "conflict");
    assert_eq!(
        rig.refused("alice", "channel/create", json!({ "channel": "news", "name": "x" })),
        "exists"
    );
    assert_eq!(rig.refused("alice", "channel/follow", json!({ "channel": "other" })), "not_found");
    let conv = ConvKey::channel(TENANT, "news");
    assert!(rig.step_of(&conv).is_big(&conv));
}

#[test]
fn the_owner_names_publishers() {
    let mut rig = Rig::new(ImSettings::default());
    news(&mut rig);
    let change = json!({ "channel": "news", "add": ["carol"], "remove": ["bob"] });
    assert_eq!(rig.refused("bob", "channel/publishers", change.clone()), "not_allowed");
    assert_eq!(rig.call("alice", "channel/publishers", change.clone()), Ok(json!({})));
    assert_eq!(rig.send("bob", "c/news", "x").unwrap_err().word, Word::NotAllowed);
    assert_eq!(rig.send("carol", "c/news", "x").unwrap().seq, 2, "behind the change of roles");
    assert_eq!(rig.pulled("bob", "c/news"), [1, 2], "who posts no more still reads");
    assert_eq!(rig.refused("alice", "channel/publishers", change), "not_found");
    let owner = json!({ "channel": "news", "remove": ["alice"] });
    assert_eq!(rig.refused("alice", "channel/publishers", owner), "conflict");
}

#[test]
fn a_channel_for_everyone_is_in_every_list_without_followers() {
    let mut rig = Rig::new(ImSettings::default());
    let body = json!({ "channel": "news", "name": "News", "everyone": true });
    assert_eq!(rig.refused("alice", "channel/create", body.clone()), "not_allowed");
    rig.call_as(caller("root", true), "channel/create", body).unwrap();
    rig.send("root", "c/news", "hello all").unwrap();
    rig.send("alice", "u/alice", "a note").unwrap();
    for who in ["alice", "bob"] {
        assert_eq!(rig.unread(who, "c/news"), (1, 0));
        assert_eq!(rig.pulled(who, "c/news"), [1]);
        let list = rig.call(who, "conv/list", json!({ "limit": 1 })).unwrap();
        assert_eq!(list["conversations"][0]["conv"], "c/news", "{who}");
        assert_eq!(list["next"].as_str(), (who == "alice").then_some("c/news"), "{who}");
    }
    let list = rig.call("alice", "conv/list", json!({ "next": "c/news" })).unwrap();
    let listed = list["conversations"].as_array().unwrap();
    assert_eq!((listed.len(), &listed[0]["conv"]), (1, &json!("u/alice")));
    rig.read("alice", "c/news", 1);
    assert_eq!(rig.unread("alice", "c/news"), (0, 0));
    assert_eq!(rig.unread("bob", "c/news"), (1, 0));
    rig.crash();
    assert_eq!(rig.unread("alice", "c/news"), (0, 0));
    assert_eq!(rig.refused("alice", "channel/unfollow", channel()), "conflict");
    let info = rig.call("bob", "channel/info", channel()).unwrap();
    assert_eq!((&info["following"], &info["followers"]), (&json!(true), &json!(1)));
}
