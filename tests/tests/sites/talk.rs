//! What users of two sites do together while the link is there.

use hoopoe_tests::{Connect, Publish, Version, code, eventually, unique_id};
use serde_json::json;

use crate::world::{Sent, World, await_topic, call, property, send};

#[test]
fn users_of_two_sites_write_to_each_other() {
    let world = World::start(&["fra", "ny"], "");
    for version in Version::BOTH {
        let (alice, bob) = (unique_id("alice"), format!("{}-ny", unique_id("bob")));
        let mut a = world.device(version, &alice);
        let mut b = world.device(Version::V5, &bob);
        // The home of the pair is that of its lexically lower user, alice.
        assert_eq!(send(&mut b, &format!("im/u/{alice}/msg/c1"), "hello"), Sent::Seq(1));
        let got = await_topic(&mut a, &format!("im/me/in/u/{bob}"));
        assert_eq!(got.payload, b"hello");
        a.publish(Publish::new(&format!("im/u/{bob}/msg/c2"), "and you").qos(1));
        let got = await_topic(&mut b, &format!("im/me/in/u/{alice}"));
        assert_eq!(property(&got, "im-seq").as_deref(), Some("2"));
        assert_eq!(property(&got, "im-from").as_deref(), Some(&*alice));
        assert_eq!(got.payload, b"and you");
        // Delivered, and read: both are told across.
        b.publish(Publish::new(&format!("im/me/cur/u/{alice}/read/2"), "").qos(1));
        await_topic(&mut a, &format!("im/me/sys/receipt/u/{bob}/read/2/{bob}"));
        assert_eq!(send(&mut b, &format!("im/u/{alice}/msg/c3"), "well"), Sent::Seq(3));
        a.publish(Publish::new(&format!("im/me/cur/u/{bob}/read/3"), "").qos(1));
        await_topic(&mut b, &format!("im/me/sys/receipt/u/{alice}/read/3/{alice}"));
        // Typing.
        b.publish(Publish::new(&format!("im/u/{alice}/sig/typing"), "").qos(1));
        await_topic(&mut a, &format!("im/me/sig/u/{bob}/{bob}/typing"));
        // Taken back by its sender, who lives elsewhere.
        assert_eq!(send(&mut b, &format!("im/me/op/recall/u/{alice}/1"), ""), Sent::Seq(4));
        let wanted =
            [(1, "void".to_owned(), String::new()), (2, String::new(), "and you".to_owned())];
        eventually("both have the same", || {
            let (here, there) =
                (world.log(&alice, &format!("u/{bob}")), world.log(&bob, &format!("u/{alice}")));
            here.len() == 4 && here == there
        });
        let log = world.log(&bob, &format!("u/{alice}"));
        let kind = |kind: &str| if kind == "message" { String::new() } else { kind.to_owned() };
        let log: Vec<_> = log.into_iter().map(|(seq, k, text)| (seq, kind(&k), text)).collect();
        assert_eq!(log[..2], wanted);
        assert_eq!(log[3].1, "recall");
        // The same message again is the same message, wherever it went.
        assert_eq!(send(&mut b, &format!("im/u/{alice}/msg/c1"), "hello"), Sent::Seq(1));
    }
}

#[test]
fn a_group_has_members_at_two_sites() {
    let world = World::start(&["fra", "ny"], "");
    let mut a = world.device(Version::V5, "alice");
    let mut b = world.device(Version::V311, "bob-ny");
    let create = json!({ "group": "team", "name": "T", "members": ["bob-ny"] });
    assert_eq!(call(&mut a, "group/create", &create).0, "ok");
    await_topic(&mut b, "im/me/in/g/team/1/alice/");
    assert_eq!(send(&mut a, "im/g/team/msg/c", "one"), Sent::Seq(2));
    assert_eq!(await_topic(&mut b, "im/me/in/g/team/2/alice/").payload, b"one");
    b.publish(Publish::new("im/g/team/msg/c9", "two").qos(1));
    let got = await_topic(&mut a, "im/me/in/g/team");
    assert_eq!((property(&got, "im-seq").as_deref(), &*got.payload), (Some("3"), &b"two"[..]));
    // Services are asked at the group's home.
    let (status, info) = call(&mut b, "group/info", &json!({ "group": "team" }));
    assert_eq!((&*status, &info["members"]), ("ok", &json!(2)));
    let (status, members) = call(&mut b, "group/members", &json!({ "group": "team" }));
    assert_eq!((&*status, members["members"].as_array().map(Vec::len)), ("ok", Some(2)));
    assert_eq!(
        call(&mut b, "group/set", &json!({ "group": "team", "name": "x" })).0,
        "not_allowed"
    );
    assert_eq!(call(&mut b, "receipt/list", &json!({ "conv": "g/team", "seq": 2 })).0, "ok");
    assert_eq!(call(&mut b, "group/leave", &json!({ "group": "team" })).0, "ok");
    let got = await_topic(&mut a, "im/me/in/g/team");
    assert_eq!(property(&got, "im-kind").as_deref(), Some("member"));
    b.publish(Publish::new("im/g/team/msg/c10", "three").qos(1));
    await_topic(&mut b, "im/me/sys/err/c10/135");
    // A group of the other site, made from here.
    let create = json!({ "group": "ny-two", "name": "N", "members": ["bob-ny"] });
    assert_eq!(call(&mut a, "group/create", &create).0, "ok");
    eventually("the group is in the list", || world.log("alice", "g/ny-two").len() == 1);
    assert_eq!(send(&mut a, "im/g/ny-two/msg/c", "x"), Sent::Seq(2));
}

#[test]
fn what_does_not_belong_here_is_refused() {
    let world = World::start(&["fra", "ny"], "");
    let mut client = world.broker("fra").open(Version::V5);
    client.send(&Connect::v5(&unique_id("d")).login("bob-ny", "any").encode());
    client.expect_refused(&[0x9C]);
    let mut plain = world.broker("fra").v5();
    for filter in ["$hoopoe/site/ny/#", "$hoopoe/site/ny/fra", "$share/g/$hoopoe/site/ny/#"] {
        assert_eq!(plain.try_subscribe(filter, 0), code::NOT_AUTHORIZED, "{filter}");
    }
    let publish = Publish::new("$hoopoe/site/fra/ny", "x").qos(1);
    assert_eq!(plain.try_publish(publish), code::NOT_AUTHORIZED);
    let mut alice = world.device(Version::V5, "alice");
    let (status, answer) = call(&mut alice, "presence/watch", &json!({ "users": ["bob-ny"] }));
    assert_eq!(status, "conflict", "{answer}");
}
