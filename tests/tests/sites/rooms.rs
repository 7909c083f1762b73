//! Live rooms with viewers at several sites.

use hoopoe_tests::{Connect, Packet, Publish, RawClient, Version, code, eventually, unique_id};
use serde_json::{Value, json};

use crate::world::{World, await_topic, call, property};

const CHAT: &str = "im/r/show/msg/chat";
/// The reason code of what cannot be reached.
const UNAVAILABLE: u8 = code::QUOTA_EXCEEDED;

/// A device of a user at home that is in the room `show`.
fn viewer(world: &World, version: Version, user: &str) -> RawClient {
    let mut device = world.device(version, user);
    device.subscribe("im/r/show/#", 0);
    device
}

/// The next message of the room: who said it, and what.
fn heard(device: &mut RawClient) -> (String, String) {
    let publish = await_topic(device, CHAT);
    let from = match property(&publish, "im-from") {
        Some(from) => from,
        None => publish.topic.rsplit('/').nth(1).expect("a header").to_owned(),
    };
    (from, String::from_utf8(publish.payload).expect("text"))
}

fn say(device: &mut RawClient, text: &str) {
    device.publish(Publish::new(CHAT, text).qos(1));
}

/// What the home says of the room.
fn info(world: &World) -> Value {
    let http = world.operator(0).acting_for("alice");
    http.try_call("room/info", json!({ "room": "show" })).json()
}

fn until_viewers(world: &World, wanted: u64) {
    eventually(&format!("{wanted} are there"), || info(world)["viewers"] == json!(wanted));
}

/// Frames that a site has sent to another.
fn frames(world: &World, from: &str, to: &str) -> u64 {
    let http = world.operator(world.site(from));
    let sites = http.call("admin/sites/list", json!({}));
    let sites = sites["sites"].as_array().expect("a list");
    let line = sites.iter().find(|line| line["site"] == to).expect("the line");
    line["counts"]["sent"].as_u64().expect("a count")
}

#[test]
fn a_room_is_watched_from_three_sites() {
    let world = World::start(&["fra", "ny", "sg"], "");
    let mut alice = viewer(&world, Version::V5, "alice");
    say(&mut alice, "before");
    assert_eq!(heard(&mut alice).1, "before");
    let mut others = [
        viewer(&world, Version::V5, "bob-ny"),
        viewer(&world, Version::V311, "bert-ny"),
        viewer(&world, Version::V5, "cid-sg"),
    ];
    // Who comes in gets the last messages, wherever they come in.
    for viewer in &mut others {
        assert_eq!(heard(viewer), ("alice".to_owned(), "before".to_owned()));
    }
    until_viewers(&world, 4);
    let said = [("bob-ny", 0, "hello"), ("cid-sg", 2, "and me"), ("bert-ny", 1, "old but here")];
    for (from, at, text) in said {
        say(&mut others[at], text);
        for viewer in others.iter_mut().chain([&mut alice]) {
            assert_eq!(heard(viewer), (from.to_owned(), text.to_owned()));
        }
    }
    say(&mut alice, "welcome");
    for viewer in &mut others {
        assert_eq!(heard(viewer).1, "welcome");
    }
    // Likes of all sites are one sum, signals reach everybody, counters are those of the home.
    others[0].publish(Publish::new("im/r/show/msg/like", "wow").qos(0));
    others[2].publish(Publish::new("im/r/show/sig/offer", "x").qos(1));
    let [bob, _, cid] = &mut others;
    for viewer in [&mut alice, bob, cid] {
        let (mut liked, mut signalled, mut counted) = (false, false, false);
        while !(liked && signalled && counted) {
            let publish = await_topic(viewer, "im/r/show/");
            let text = String::from_utf8_lossy(&publish.payload).into_owned();
            match publish.topic.as_str() {
                "im/r/show/sig/cid-sg/offer" => signalled = true,
                "im/r/show/stat" => {
                    let stat: Value = serde_json::from_str(&text).expect("JSON");
                    counted = stat["viewers"] == 4 && stat["likes"] == 1;
                }
                topic if topic.starts_with("im/r/show/msg/like") => {
                    liked = text.contains("\"wow\":1");
                }
                _ => {}
            }
        }
    }
    // Who leaves, or is gone, is counted no more.
    others[0].unsubscribe(&["im/r/show/#"]);
    until_viewers(&world, 3);
    let [_, bert, cid] = others;
    drop((bert, cid));
    until_viewers(&world, 1);
}

#[test]
fn a_site_gets_one_copy_however_many_watch() {
    let world = World::start(&["fra", "ny"], "");
    let mut alice = viewer(&world, Version::V5, "alice");
    let mut crowd: Vec<RawClient> =
        (0..12).map(|n| viewer(&world, Version::V5, &format!("v{n}-ny"))).collect();
    until_viewers(&world, 13);
    let before = frames(&world, "fra", "ny");
    for n in 0..5 {
        say(&mut alice, &n.to_string());
    }
    for viewer in &mut crowd {
        for n in 0..5 {
            assert_eq!(heard(viewer).1, n.to_string());
        }
    }
    // Five messages; the rest is that the site is there, said once a second, and counters.
    let sent = frames(&world, "fra", "ny") - before;
    assert!((5..60).contains(&sent), "{sent} frames for sixty copies");
}

#[test]
fn the_home_rules_at_every_site() {
    let world = World::start(&["fra", "ny", "sg"], "");
    let mut alice = world.device(Version::V5, "alice");
    let create = json!({ "room": "show", "name": "S" });
    assert_eq!(call(&mut alice, "room/create", &create).0, "ok");
    let ban = |user: &str| json!({ "room": "show", "user": user });
    assert_eq!(call(&mut alice, "room/ban", &ban("cid-sg")).0, "ok");
    let mut bob = viewer(&world, Version::V5, "bob-ny");
    until_viewers(&world, 1);
    // A service of the room is asked where it lives, and refuses whom it would refuse there.
    let (status, answer) = call(&mut bob, "room/info", &json!({ "room": "show" }));
    assert_eq!((&*status, &answer["owner"]), ("ok", &json!("alice")));
    assert_eq!(call(&mut bob, "room/mute", &ban("alice")).0, "not_allowed");
    // A mute is judged at the viewer's own site.
    assert_eq!(call(&mut alice, "room/mute", &ban("bob-ny")).0, "ok");
    eventually("bob is muted", || {
        bob.try_publish(Publish::new(CHAT, "x").qos(1)) == code::NOT_AUTHORIZED
    });
    assert_eq!(call(&mut alice, "room/unmute", &ban("bob-ny")).0, "ok");
    eventually("bob speaks", || bob.try_publish(Publish::new(CHAT, "y").qos(1)) == 0);
    // A ban acts, and stays.
    assert_eq!(call(&mut alice, "room/ban", &ban("bob-ny")).0, "ok");
    await_topic(&mut bob, "im/me/sys/notice/room/show/banned");
    until_viewers(&world, 0);
    assert_eq!(bob.try_subscribe("im/r/show/#", 0), code::NOT_AUTHORIZED);
    // A site that knows nothing of the room asks its home first, each time.
    let mut cid = world.device(Version::V5, "cid-sg");
    assert_eq!(cid.try_subscribe("im/r/show/#", 0), code::NOT_AUTHORIZED);
    assert_eq!(cid.try_publish(Publish::new(CHAT, "x").qos(1)), code::NOT_AUTHORIZED);
    assert_eq!(call(&mut alice, "room/unban", &ban("cid-sg")).0, "ok");
    assert_eq!(cid.try_subscribe("im/r/show/#", 0), 0);
    until_viewers(&world, 1);
    cid.unsubscribe(&["im/r/show/#"]);
    until_viewers(&world, 0);
    assert_eq!(call(&mut alice, "room/ban", &ban("cid-sg")).0, "ok");
    assert_eq!(cid.try_subscribe("im/r/show/#", 0), code::NOT_AUTHORIZED);
    assert_eq!(call(&mut bob, "room/info", &json!({ "room": "show" })).1["viewers"], 0);
    // Closed at home, closed everywhere.
    let mut dan = viewer(&world, Version::V5, "dan-sg");
    until_viewers(&world, 1);
    assert_eq!(call(&mut alice, "room/close", &json!({ "room": "show" })).0, "ok");
    await_topic(&mut dan, "im/me/sys/notice/room/show/closed");
    assert_eq!(dan.try_subscribe("im/r/show/#", 0), code::NOT_AUTHORIZED);
}

#[test]
fn a_home_that_says_nothing_lets_nobody_in() {
    let world = World::start(&["fra", "ny"], "");
    let mut bob = world.device(Version::V5, "bob-ny");
    world.broker("fra").signal("STOP");
    // A signal takes its time: other threads go on until the one that has it has run.
    let tasks = format!("/proc/{}/task", world.broker("fra").pid());
    eventually("every thread of the home has stopped", || {
        let tasks = std::fs::read_dir(&tasks).expect("it is there").flatten();
        let states = tasks.flat_map(|task| std::fs::read_to_string(task.path().join("stat")));
        states.into_iter().all(|stat| stat.contains(") T "))
    });
    let subscribe = |device: &mut RawClient, filter: &str| {
        let id = device.packet_id();
        let filters = [(filter, 0)];
        device.send(&hoopoe_tests::wire::subscribe(Version::V5, id, &filters, &Default::default()));
        id
    };
    let first = subscribe(&mut bob, "im/r/show/#");
    // What is asked for behind it waits for its turn, all else goes on.
    let second = subscribe(&mut bob, "plain/#");
    bob.ping();
    let answers = [bob.next_packet(), bob.next_packet()].map(|packet| match packet {
        Packet::SubAck(suback) => (suback.id, suback.codes),
        other => panic!("{other:?}"),
    });
    assert_eq!(answers, [(first, vec![UNAVAILABLE]), (second, vec![0])]);
    world.broker("fra").signal("CONT");
    eventually("the home is back", || bob.try_subscribe("im/r/show/#", 0) == 0);
    until_viewers(&world, 1);
}

#[test]
fn the_stream_goes_on_whichever_site_is_killed() {
    let mut world = World::start(&["fra", "ny"], "");
    let mut alice = viewer(&world, Version::V5, "alice");
    // It stays where it is while the home dies; its session outlives its own site.
    let at_home = Connect::persistent(Version::V5, &unique_id("d"));
    let mut bob = world.device_with(&at_home, "bob-ny");
    bob.subscribe("im/r/show/#", 0);
    until_viewers(&world, 2);
    let mut number = 0;
    for round in 0..4 {
        // Nobody waits for these: the site dies with some of them on their way.
        for _ in 0..(round * 7) % 11 {
            number += 1;
            say(&mut alice, &number.to_string());
        }
        let at = usize::from(round % 2 == 0);
        world.brokers[at].kill();
        world.brokers[at].start_again();
        world.heal();
        if at == 0 {
            alice = viewer(&world, Version::V5, "alice");
        } else {
            bob = world.device_with(&at_home, "bob-ny");
        }
        until_viewers(&world, 2);
        number += 1;
        say(&mut alice, &number.to_string());
        for viewer in [&mut alice, &mut bob] {
            let mut last = 0;
            while last < number {
                // Who comes in gets what was said before, answers too.
                let Ok(heard) = heard(viewer).1.parse() else { continue };
                assert!(heard > last, "{heard} came behind {last}");
                last = heard;
            }
        }
        // His site may hear the home before it knows that it is heard there.
        eventually("bob speaks", || bob.try_publish(Publish::new(CHAT, "well").qos(1)) == 0);
        assert_eq!(heard(&mut bob).1, "well");
        assert_eq!(heard(&mut alice).1, "well");
    }
}

#[test]
fn while_the_line_is_cut_viewers_are_told_and_come_in_again() {
    let mut world = World::start(&["fra", "ny"], "");
    let mut alice = viewer(&world, Version::V5, "alice");
    let mut bob = viewer(&world, Version::V5, "bob-ny");
    until_viewers(&world, 2);
    world.cut();
    await_topic(&mut bob, "im/me/sys/notice/room/show/unreached");
    assert_eq!(bob.try_publish(Publish::new(CHAT, "x").qos(1)), UNAVAILABLE);
    let mut bert = world.device(Version::V5, "bert-ny");
    assert_eq!(bert.try_subscribe("im/r/show/#", 0), UNAVAILABLE);
    until_viewers(&world, 1);
    say(&mut alice, "missed");
    world.heal();
    // What was missed comes from the ring, before or after the notice.
    let (mut told, mut missed) = (false, false);
    while !(told && missed) {
        let publish = await_topic(&mut bob, "im/");
        told |= publish.topic == "im/me/sys/notice/room/show/reached";
        missed |= publish.topic == CHAT && publish.payload == b"missed";
    }
    until_viewers(&world, 2);
    say(&mut bob, "back");
    assert_eq!(heard(&mut bob).1, "back");
    assert_eq!(heard(&mut alice).1, "missed");
    assert_eq!(heard(&mut alice).1, "back");
    // A home that dies forgets its viewers, and is told of them.
    world.brokers[0].kill();
    world.brokers[0].start_again();
    world.heal();
    until_viewers(&world, 1);
    let mut alice = viewer(&world, Version::V5, "alice");
    until_viewers(&world, 2);
    say(&mut alice, "again");
    assert_eq!(heard(&mut bob).1, "again");
}
