//! Live rooms: lanes, the ring, sums of likes, counters, moderation, slow viewers, crowds; and
//! that nothing that is said in one ever reaches the disk.

use std::path::Path;

use hoopoe_tests::broker::Options;
use hoopoe_tests::{
    Broker, Connect, Properties, Property, Publish, RawClient, Version, metrics, unique_id,
};
use serde_json::{Value, json};

use crate::user::{await_topic, call, call_ok, device, device_with};

/// Options byte of a subscription with No Local.
const NO_LOCAL: u8 = 4;

/// A message of a room, from either form of the envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Said {
    lane: String,
    n: u64,
    from: String,
    ts: u64,
    payload: String,
}

fn said(room: &str, publish: &Publish) -> Said {
    let begins = format!("im/r/{room}/msg/");
    let header = publish.topic.strip_prefix(&begins).unwrap_or_else(|| panic!("{publish:?}"));
    let levels: Vec<&str> = header.split('/').collect();
    let payload = String::from_utf8_lossy(&publish.payload).into_owned();
    assert_eq!((publish.qos, publish.retain), (0, false), "{}", publish.topic);
    if let [lane, n, from, ts] = levels[..] {
        let (n, ts) = (counted(n), ts.parse().expect("a time"));
        return Said { lane: lane.to_owned(), n, from: from.to_owned(), ts, payload };
    }
    let property = |name: &str| {
        let found = publish.properties.user_properties().into_iter().find(|(of, _)| *of == name);
        found.unwrap_or_else(|| panic!("{name} in {publish:?}")).1.to_owned()
    };
    Said {
        lane: header.to_owned(),
        n: counted(&property("im-seq")),
        from: property("im-from"),
        ts: property("im-ts").parse().expect("a time"),
        payload,
    }
}

/// A room begins to count at the time it began, in microseconds: what is left is the number among
/// the room's own.
fn counted(n: &str) -> u64 {
    n.parse::<u64>().expect("a number") % 1_000
}

fn next_said(viewer: &mut RawClient, room: &str) -> Said {
    said(room, &await_topic(viewer, &format!("im/r/{room}/msg/")))
}

/// A device of a user who is in the room for what is said there.
fn viewer(broker: &Broker, version: Version, user: &str, room: &str) -> RawClient {
    let mut viewer = device(broker, version, user);
    viewer.subscribe(&format!("im/r/{room}/msg/#"), 0);
    viewer
}

fn say(viewer: &mut RawClient, room: &str, payload: &str) {
    viewer.publish(Publish::new(&format!("im/r/{room}/msg"), payload).qos(1));
}

fn with(settings: &str) -> Broker {
    Options::new().configuration(settings).start()
}

#[test]
fn what_is_said_reaches_everybody_with_the_same_fields_in_both_versions() {
    let broker = Broker::start();
    for sends in Version::BOTH {
        let room = unique_id("room");
        let mut ann = viewer(&broker, sends, "ann", &room);
        let mut viewers = Version::BOTH.map(|version| viewer(&broker, version, "bob", &room));
        for (n, (topic, lane)) in
            [("msg", "chat"), ("msg/chat", "chat"), ("msg/hi", "hi")].into_iter().enumerate()
        {
            let topic = format!("im/r/{room}/{topic}");
            ann.publish(Publish::new(&topic, "hello").qos(n as u8 % 3));
            let own = next_said(&mut ann, &room);
            let expected = Said {
                lane: lane.to_owned(),
                n: n as u64 + 1,
                from: "ann".to_owned(),
                ts: own.ts,
                payload: "hello".to_owned(),
            };
            assert_eq!(own, expected);
            for viewer in &mut viewers {
                assert_eq!(next_said(viewer, &room), expected);
            }
        }
    }
}

#[test]
fn numbers_rise_over_crashes_and_restarts() {
    let mut broker = Broker::start();
    let mut last = 0;
    for crash in [true, false, true] {
        let mut ann = viewer(&broker, Version::V5, "ann", "show");
        say(&mut ann, "show", "hello");
        let publish = await_topic(&mut ann, "im/r/show/msg/");
        let of_seq = publish.properties.user_properties().into_iter();
        let mut n = of_seq.filter(|(name, _)| *name == "im-seq").map(|(_, n)| n.parse::<u64>());
        let n = n.next_back().expect("a number").expect("a number");
        assert!(n > last && n < 1 << 53, "{n} behind {last}");
        last = n;
        if crash { broker.kill_and_restart() } else { broker.restart() }
    }
}

#[test]
fn properties_and_identifiers_go_with_a_message() {
    let broker = Broker::start();
    let mut bob = device(&broker, Version::V5, "bob");
    let identifier = Properties(vec![Property::SubscriptionIdentifier(7)]);
    let granted = bob.subscribe_all(&[("im/r/show/msg/#", 2), ("im/r/show/stat", 1)], &identifier);
    assert_eq!(granted.codes, [0, 0], "rooms are QoS 0 (ruling 29)");
    let mut ann = device(&broker, Version::V5, "ann");
    ann.subscribe("im/r/show/msg/#", NO_LOCAL);
    let hello = Publish::new("im/r/show/msg", "hello")
        .qos(1)
        .with(Property::ContentType("text/plain".to_owned()))
        .with(Property::UserProperty("colour".to_owned(), "red".to_owned()));
    ann.publish(hello);
    let got = await_topic(&mut bob, "im/r/show/msg/chat");
    assert!(got.properties.0.contains(&Property::ContentType("text/plain".to_owned())));
    assert!(got.properties.0.contains(&Property::SubscriptionIdentifier(7)), "{got:?}");
    assert_eq!(got.properties.user_properties().first(), Some(&("colour", "red")));
    say(&mut bob, "show", "hi ann");
    assert_eq!(next_said(&mut ann, "show").from, "bob", "her own she did not want");
}

#[test]
fn who_comes_in_gets_the_last_messages_in_order() {
    let broker = Broker::start();
    let mut ann = viewer(&broker, Version::V5, "ann", "show");
    for n in 1..=60 {
        say(&mut ann, "show", &n.to_string());
    }
    for version in Version::BOTH {
        let mut late = viewer(&broker, version, "late", "show");
        for n in 11..=60 {
            let said = next_said(&mut late, "show");
            assert_eq!((said.n, said.payload), (n, n.to_string()));
        }
    }
    // A kept session is in the room again as soon as it is connected (ruling 29).
    let connect = Connect::persistent(Version::V311, &unique_id("d"));
    let mut kept = device_with(&broker, &connect, "kept");
    kept.subscribe("im/r/show/#", 0);
    assert_eq!(next_said(&mut kept, "show").n, 11);
    kept.disconnect();
    say(&mut ann, "show", "61");
    let mut kept = device_with(&broker, &connect, "kept");
    let mut back = Vec::new();
    while back.last() != Some(&61) {
        back.push(next_said(&mut kept, "show").n);
    }
    assert_eq!(back, (12..=61).collect::<Vec<u64>>(), "the ring, and nothing was queued");
}

#[test]
fn likes_are_summed_and_counters_told() {
    let broker = Broker::start();
    let mut ann = device(&broker, Version::V5, "ann");
    ann.subscribe("im/r/show/#", 0);
    let mut bob = device(&broker, Version::V311, "bob");
    bob.subscribe("im/r/show/msg/like/#", 0);
    for word in ["", "heart", "like", "heart", "heart"] {
        bob.send_publish(Publish::new("im/r/show/msg/like", word));
    }
    let (mut likes, mut sums) = (0, 0);
    while likes < 5 {
        let sum: Value = serde_json::from_str(&next_said(&mut bob, "show").payload).unwrap();
        assert_eq!(sum["ms"], 500);
        likes +=
            sum["likes"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum::<u64>();
        sums += 1;
    }
    assert_eq!(likes, 5);
    assert!(sums < 5, "merged, not passed on one by one");
    loop {
        let stat = await_topic(&mut ann, "im/r/show/stat");
        let stat: Value = serde_json::from_slice(&stat.payload).unwrap();
        assert!(stat["ts"].is_u64() && stat["messages"] == 0, "{stat}");
        if stat["viewers"] == 2 && stat["likes"] == 5 {
            break;
        }
    }
    assert_eq!(bob.try_publish(Publish::new("im/r/show/msg/like", "a\nb").qos(1)), 0);
    await_topic(&mut bob, "im/me/sys/err/-/153");
}

#[test]
fn signals_reach_whom_the_filter_lets() {
    let broker = Broker::start();
    let mut ann = viewer(&broker, Version::V5, "ann", "show");
    let mut all = device(&broker, Version::V311, "all");
    all.subscribe("im/r/show/sig/#", 0);
    let mut some = device(&broker, Version::V5, "some");
    some.subscribe("im/r/show/sig/+/offer", 0);
    for kind in ["typing", "offer"] {
        ann.publish(Publish::new(&format!("im/r/show/sig/{kind}"), kind).qos(1));
        all.expect_message(&format!("im/r/show/sig/ann/{kind}"), kind);
    }
    some.expect_message("im/r/show/sig/ann/offer", "offer");
    let large = vec![b'x'; 4097];
    assert_eq!(ann.try_publish(Publish::new("im/r/show/sig/frame", &large).qos(1)), 0x97);
}

#[test]
fn who_may_not_is_told() {
    let broker = Broker::start();
    let mut inside = viewer(&broker, Version::V5, "ann", "show");
    let mut outside = device(&broker, Version::V5, "eve");
    let publish = |topic: &str| Publish::new(topic, "x").qos(1);
    for (topic, code) in [
        ("im/r/show/msg", 0x87),
        ("im/r/show/sig/x", 0x87),
        ("im/r/show/stat", 0x87),
        ("im/r/show/msg/loud", 0x90),
    ] {
        assert_eq!(outside.try_publish(publish(topic)), code, "{topic}");
    }
    assert_eq!(inside.try_publish(publish("im/r/show/msg").retain()), 0x83);
    let ours = Property::UserProperty("im-from".to_owned(), "olga".to_owned());
    assert_eq!(inside.try_publish(publish("im/r/show/msg").with(ours)), 0x99);
    let mut old = device(&broker, Version::V311, "old");
    assert_eq!(old.try_publish(publish("im/r/show/msg")), 0, "acknowledged, and told why not");
    await_topic(&mut old, "im/me/sys/err/-/135");
    for filter in ["im/r/#", "im/r/+/msg/#", "im/r/show/msg/chat"] {
        assert_eq!(old.try_subscribe(filter, 0), 0x80, "{filter}");
    }
    inside.unsubscribe(&["im/r/show/msg/#"]);
    assert_eq!(inside.try_publish(publish("im/r/show/msg")), 0x87, "left");
    for n in 0..10 {
        inside.subscribe(&format!("im/r/room-{n}/#"), 0);
    }
    assert_eq!(inside.try_subscribe("im/r/one-more/#", 0), 0x97);
    inside.unsubscribe(&["im/r/room-3/#"]);
    inside.subscribe("im/r/one-more/#", 0);
}

#[test]
fn a_full_broker_says_so_in_suback() {
    let broker = with("[im.rooms]\nmax_rooms = 3\n");
    let mut ann = device(&broker, Version::V5, "ann");
    for n in 0..20 {
        ann.subscribe(&format!("im/r/z{n}/#"), 0);
        ann.unsubscribe(&[&format!("im/r/z{n}/#")]);
    }
    let mut rooms: Vec<RawClient> =
        ["a", "b", "c"].map(|room| viewer(&broker, Version::V5, room, room)).into();
    for version in [Version::V5, Version::V311] {
        let mut carol = device(&broker, version, "carol");
        let refused = if version == Version::V5 { 0x97 } else { 0x80 };
        assert_eq!(carol.try_subscribe("im/r/carols-room/#", 0), refused);
        carol.subscribe("im/r/a/#", 0);
    }
    say(&mut rooms[1], "b", "hello");
    rooms[1].unsubscribe(&["im/r/b/msg/#"]);
    let mut carol = viewer(&broker, Version::V5, "carol", "carols-room");
    say(&mut carol, "carols-room", "granted is granted");
    assert_eq!(next_said(&mut carol, "carols-room").payload, "granted is granted");
    assert_eq!(rooms[1].try_subscribe("im/r/b/#", 0), 0x97, "it made place");
}

#[test]
fn moderation_acts_at_once_and_outlives_a_crash() {
    let mut broker = Broker::start();
    let mut olga = device(&broker, Version::V5, "olga");
    let body = json!({ "room": "show", "name": "The show" });
    assert_eq!(call_ok(&mut olga, "room/create", &body), json!({ "room": "show" }));
    let (status, _) = call(&mut olga, "room/create", &body);
    assert_eq!(status, "exists");
    let mut ann = viewer(&broker, Version::V5, "ann", "show");
    let mut bob = viewer(&broker, Version::V311, "bob", "show");
    let expected = json!({ "room": "show", "name": "The show", "owner": "olga", "viewers": 2, "muted": false });
    assert_eq!(call_ok(&mut bob, "room/info", &json!({ "room": "show" })), expected);
    let members = call_ok(&mut olga, "room/members", &json!({ "room": "show" }));
    assert_eq!(members, json!({ "viewers": 2, "sample": ["ann", "bob"] }));

    let to = |user: &str| json!({ "room": "show", "user": user });
    assert_eq!(call(&mut bob, "room/mute", &to("ann")).0, "not_allowed");
    call_ok(&mut olga, "room/mute", &to("ann"));
    let hello = || Publish::new("im/r/show/msg", "hello").qos(1);
    assert_eq!(ann.try_publish(hello()), 0x87, "muted");
    bob.publish(hello());
    assert_eq!(next_said(&mut ann, "show").from, "bob", "and hears all the same");
    call_ok(&mut olga, "room/ban", &to("bob"));
    await_topic(&mut bob, "im/me/sys/notice/room/show/banned");
    assert_eq!(bob.try_subscribe("im/r/show/#", 0), 0x80);

    broker.kill_and_restart();
    let mut bob = device(&broker, Version::V5, "bob");
    assert_eq!(bob.try_subscribe("im/r/show/#", 0), 0x87, "banned across a crash");
    let mut ann = viewer(&broker, Version::V5, "ann", "show");
    assert_eq!(ann.try_publish(hello()), 0x87, "muted across a crash");
    let mut olga = viewer(&broker, Version::V311, "olga", "show");
    call_ok(&mut olga, "room/unban", &to("bob"));
    bob.subscribe("im/r/show/msg/#", 0);
    bob.publish(hello());
    let said = next_said(&mut ann, "show");
    assert_eq!((said.n, said.from.as_str()), (1, "bob"), "nothing of before was kept");
    call_ok(&mut olga, "room/mute", &json!({ "room": "show" }));
    assert_eq!(bob.try_publish(hello()), 0x87, "everybody is muted");
    olga.publish(hello());
    assert_eq!(next_said(&mut ann, "show").from, "olga", "but the owner");

    call_ok(&mut olga, "room/close", &json!({ "room": "show" }));
    for viewer in [&mut ann, &mut bob] {
        await_topic(viewer, "im/me/sys/notice/room/show/closed");
        assert_eq!(viewer.try_publish(hello()), 0x87);
        assert_eq!(viewer.try_subscribe("im/r/show/#", 0), 0x87);
    }
    assert_eq!(call(&mut ann, "room/info", &json!({ "room": "nowhere" })).0, "not_found");
    assert_eq!(call(&mut ann, "room/ban", &json!({ "room": "show" })).0, "bad_request");
    let made = call_ok(&mut ann, "room/create", &json!({ "ticket": "invite" }));
    let own = format!("im/r/{}/#", made["room"].as_str().unwrap());
    assert_eq!(bob.try_subscribe(&own, 0), 0x87, "not invited");
    ann.subscribe(&own, 0);
}

#[test]
fn a_viewer_gets_no_more_than_its_share_and_hi_comes_last() {
    let broker = with("[im.rooms]\nchat_per_sec = 1\nhi_per_sec = 3\n");
    let mut ann = viewer(&broker, Version::V5, "ann", "show");
    let mut bob = viewer(&broker, Version::V5, "bob", "show");
    for n in 0..100 {
        ann.send_publish(Publish::new("im/r/show/msg", n.to_string()));
    }
    ann.publish(Publish::new("im/r/show/msg/hi", "listen").qos(1));
    let mut chat = Vec::new();
    let last = loop {
        let said = next_said(&mut bob, "show");
        if said.lane == "hi" {
            break said;
        }
        chat.push(said.n);
    };
    assert_eq!((last.n, last.payload.as_str()), (101, "listen"));
    assert!(!chat.is_empty() && chat.len() < 50, "{chat:?}");
    assert!(chat.is_sorted(), "{chat:?}");
    let dropped = r#"hoopoe_publications_dropped_total{reason="shaped"}"#;
    assert!(metrics::sum(broker.http(), dropped) > 0.0, "counted");
}

#[test]
fn a_viewer_that_does_not_read_costs_the_others_nothing() {
    let broker = with(
        "[mqtt]\nmax_packet_bytes = 131072\n[limits]\nwrite_buffer_bytes = 262144\n\
         [im.rooms]\nchat_per_sec = 0\n",
    );
    let mut blocked = viewer(&broker, Version::V5, "blocked", "show");
    let mut ann = device(&broker, Version::V5, "ann");
    ann.subscribe("im/r/show/msg/#", NO_LOCAL);
    let mut viewers: Vec<RawClient> =
        (0..4).map(|n| viewer(&broker, Version::BOTH[n % 2], &format!("bob{n}"), "show")).collect();
    let large = "x".repeat(60_000);
    for n in 1..=300 {
        say(&mut ann, "show", &large);
        for viewer in &mut viewers {
            assert_eq!(next_said(viewer, "show").n, n);
        }
    }
    // What it missed it missed; it is still there, and hears what is said when it has read.
    let full = r#"hoopoe_publications_dropped_total{reason="full_buffer"}"#;
    assert!(metrics::sum(broker.http(), full) > 0.0, "eighteen megabytes fit nowhere");
    blocked.ping_past_publishes();
    say(&mut ann, "show", "the last one");
    while next_said(&mut blocked, "show").payload != "the last one" {}
}

#[test]
fn a_crowd_hears_one_voice_and_is_counted() {
    const CROWD: usize = 2_000;
    let broker = Broker::start();
    let mut ann = device(&broker, Version::V5, "ann");
    ann.subscribe("im/r/show/#", 0);
    let mut crowd: Vec<RawClient> = (0..CROWD)
        .map(|n| viewer(&broker, Version::BOTH[n % 2], &format!("viewer-{n}"), "show"))
        .collect();
    for n in 1..=5 {
        say(&mut ann, "show", "hello all");
        for viewer in &mut crowd {
            let said = next_said(viewer, "show");
            assert_eq!((said.n, said.from.as_str()), (n, "ann"));
        }
    }
    let info = call_ok(&mut ann, "room/members", &json!({ "room": "show", "limit": 5 }));
    assert_eq!(info["viewers"], CROWD + 1);
    assert_eq!(info["sample"].as_array().map(Vec::len), Some(5));
    drop(crowd);
    hoopoe_tests::eventually("everybody has left", || {
        call_ok(&mut ann, "room/info", &json!({ "room": "show" }))["viewers"] == 1
    });
}

#[test]
fn nothing_that_is_said_reaches_the_disk() {
    let mut broker = with("[im.rooms]\nchat_per_sec = 0\n");
    let connect = Connect::persistent(Version::V5, &unique_id("d"));
    let mut kept = device_with(&broker, &connect, "kept");
    kept.subscribe("im/r/show/msg/chat", 0);
    let mut ann = viewer(&broker, Version::V311, "ann", "show");
    let mark = unique_id("spoken");
    // A message to oneself is stored: the search finds what there is.
    let stored = unique_id("stored");
    ann.publish(Publish::new("im/u/ann/msg", &stored).qos(1));
    for n in 1..=200u8 {
        ann.publish(Publish::new("im/r/show/msg", format!("{mark} {n}")).qos(n % 3));
        ann.send_publish(Publish::new("im/r/show/msg/like", &mark));
        assert_eq!(next_said(&mut kept, "show").payload, format!("{mark} {n}"));
    }
    broker.stop();
    assert!(is_in_files(&broker.folder().join("data"), &stored));
    assert!(!is_in_files(&broker.folder().join("data"), &mark));
}

fn is_in_files(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).expect("the folder is there").flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return is_in_files(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    })
}
