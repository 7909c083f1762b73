//! Services that no other story calls, and what their answers are made of, in both versions.

use hoopoe_tests::wire::packet_type;
use hoopoe_tests::wire::properties::Property;
use hoopoe_tests::{Broker, Connect, Publish, RawClient, Version, eventually, unique_id};
use serde_json::{Value, json};

use crate::entry::{next_entry, send};
use crate::user::{await_topic, call, call_ok, device, device_with};

/// Pulls: the payloads that come, and the end.
fn pull(device: &mut RawClient, body: &Value) -> (Vec<String>, Value) {
    let request = unique_id("p");
    let topic = format!("im/svc/sync/pull/{request}");
    device.publish(Publish::new(&topic, body.to_string()).qos(1));
    let begins = format!("im/me/res/{request}/");
    let mut payloads = Vec::new();
    loop {
        let answer = await_topic(device, &begins);
        if answer.topic[begins.len()..] == *"end" {
            return (payloads, serde_json::from_slice(&answer.payload).expect("JSON"));
        }
        assert!(answer.topic[begins.len()..].starts_with('m'), "{}", answer.topic);
        payloads.push(String::from_utf8_lossy(&answer.payload).into_owned());
    }
}

#[test]
fn a_list_is_kept_as_its_owner_wants_it() {
    for version in Version::BOTH {
        let broker = Broker::start();
        let mut alice = device(&broker, version, "alice");
        let mut bob = device(&broker, version, "bob");
        for text in ["1", "2", "3"] {
            send(&mut alice, "im/u/bob/msg", text);
        }
        let heads = call_ok(&mut bob, "sync/heads", &json!({}));
        assert_eq!(heads["unread_total"], 3, "{version:?}");
        let line = &heads["conversations"][0];
        for (field, value) in [
            ("conv", json!("u/alice")),
            ("last", json!(3)),
            ("cnt", json!(3)),
            ("unread", json!(3)),
            ("mentions", json!(0)),
            ("read", json!(0)),
            ("min", json!(1)),
            ("from", json!("alice")),
        ] {
            assert_eq!(line[field], value, "{version:?} {field}");
        }
        let counts = call_ok(&mut bob, "sync/counts", &json!({}));
        let expected = json!({ "unread_total": 3, "mentions_total": 0, "conversations": 1 });
        assert_eq!(counts, expected);

        let of = |bob: &mut RawClient, field: &str| {
            call_ok(bob, "conv/list", &json!({}))["conversations"][0][field].clone()
        };
        for (op, field) in [("pin", "pinned"), ("mute", "muted"), ("hide", "hidden")] {
            for on in [true, false, true] {
                let answer = call_ok(
                    &mut bob,
                    &format!("conv/{op}"),
                    &json!({ "conv": "u/alice", "on": on }),
                );
                assert_eq!((answer, of(&mut bob, field)), (json!({}), json!(on)), "{op}");
            }
        }
        let past = json!({ "conv": "u/alice", "on": true, "until": 1 });
        call_ok(&mut bob, "conv/mute", &past);
        assert_eq!(of(&mut bob, "muted"), false, "its time is over");
        let heads = call_ok(&mut bob, "sync/heads", &json!({}));
        assert_eq!(heads["conversations"], json!([]), "hidden");
        // News bring it back.
        send(&mut alice, "im/u/bob/msg", "4");
        assert_eq!(of(&mut bob, "hidden"), false);

        let cleared = call_ok(&mut bob, "conv/clear", &json!({ "conv": "u/alice" }));
        assert_eq!(cleared, json!({ "read": 4, "min": 5 }));
        let counts = call_ok(&mut bob, "sync/counts", &json!({}));
        assert_eq!(counts["unread_total"], 0);
        let (pulled, end) = pull(&mut bob, &json!({ "conv": "u/alice" }));
        assert_eq!((pulled.len(), &end["min"], &end["last"]), (0, &json!(5), &json!(4)));
        let (pulled, _) = pull(&mut alice, &json!({ "conv": "u/bob" }));
        assert_eq!(pulled, ["1", "2", "3", "4"], "the other one keeps what was said");
    }
}

#[test]
fn a_log_is_pulled_page_by_page_up_and_down() {
    for version in Version::BOTH {
        let broker = Broker::start();
        let mut alice = device(&broker, version, "alice");
        for text in ["1", "2", "3", "4", "5", "6", "7"] {
            send(&mut alice, "im/u/alice/msg", text);
        }
        let table = [
            (json!({ "limit": 3 }), "123", Some(4)),
            (json!({ "from": 4, "limit": 3 }), "456", Some(7)),
            (json!({ "from": 7, "limit": 3 }), "7", None),
            (json!({ "from": 2, "to": 4 }), "234", None),
            (json!({ "direction": "down", "limit": 3 }), "765", Some(4)),
            (json!({ "direction": "down", "from": 4, "limit": 3 }), "432", Some(1)),
            (json!({ "direction": "down", "from": 1 }), "1", None),
            (json!({ "from": 8 }), "", None),
            (json!({ "from": 6, "to": 900 }), "67", None),
        ];
        for (mut body, expected, next) in table {
            body["conv"] = json!("u/alice");
            let (pulled, end) = pull(&mut alice, &body);
            assert_eq!(pulled.concat(), expected, "{version:?} {body}");
            assert_eq!((&end["count"], &end["last"]), (&json!(expected.len()), &json!(7)));
            assert_eq!(end["next"].as_u64(), next, "{version:?} {body}");
        }
        for wrong in [json!({ "limit": 0 }), json!({ "limit": 201 }), json!({ "from": -1 })] {
            let mut body = wrong;
            body["conv"] = json!("u/alice");
            let (status, answer) = call(&mut alice, "sync/pull", &body);
            assert_eq!((status.as_str(), &answer["code"]), ("bad_request", &json!(153)), "{body}");
        }
    }
}

#[test]
fn who_does_not_take_pages_is_refused_more() {
    const PULLS: usize = 20;
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    (0..20).for_each(|_| send(&mut alice, "im/u/alice/msg", &"x".repeat(60_000)));
    // What it does not acknowledge stays with the broker, however much its socket takes.
    let connect = Connect::new(Version::V5, "ios-1").with(Property::ReceiveMaximum(1));
    let mut slow = device_with(&broker, &connect, "alice");
    let body = json!({ "conv": "u/alice" });
    let asked: Vec<u16> = (0..PULLS)
        .map(|n| {
            let topic = format!("im/svc/sync/pull/p{n}");
            slow.send_publish(Publish::new(&topic, body.to_string()).qos(1))
        })
        .collect();
    for id in asked {
        slow.expect_ack(packet_type::PUBACK, id);
    }
    let (mut pages, mut refused) = (0, 0);
    while pages + refused < PULLS {
        let answer = slow.take_publish();
        match answer.topic.rsplit('/').next() {
            Some("m") => {}
            Some("end") => pages += 1,
            Some("limit") => refused += 1,
            _ => panic!("{}", answer.topic),
        }
    }
    // Eight megabytes, and what the page that reaches them has.
    assert!((8..=10).contains(&pages), "{pages}");
    let (pulled, _) = pull(&mut slow, &json!({ "conv": "u/alice", "limit": 3 }));
    assert_eq!(pulled.len(), 3);
}

#[test]
fn who_does_not_take_answers_may_not_ask_for_more() {
    const CALLS: usize = 10_200;
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "ios-1").with(Property::ReceiveMaximum(1));
    let mut slow = device_with(&broker, &connect, "alice");
    let mut refused = 0;
    for round in 0..CALLS / 50 {
        let asked: Vec<u16> = (0..50)
            .map(|n| {
                let topic = format!("im/svc/time/now/{round}-{n}");
                slow.send_publish(Publish::new(&topic, "{}").qos(1))
            })
            .collect();
        for id in asked {
            refused += usize::from(slow.expect_ack(packet_type::PUBACK, id).code == 0x97);
        }
    }
    // One is on its way and 10,000 wait; those asked by then are answered.
    let answered = CALLS - refused;
    assert!((10_001..10_001 + 50).contains(&answered), "{answered}");
    for _ in 0..answered {
        assert!(slow.take_publish().topic.ends_with("/ok"));
    }
    call_ok(&mut slow, "time/now", &json!({}));
}

#[test]
fn users_say_who_they_are_and_brokers_what_time_it_is() {
    for version in Version::BOTH {
        let broker = Broker::start();
        let mut alice = device(&broker, version, "alice");
        let mut bob = device(&broker, version, "bob");
        let card = json!({ "name": "Alice", "avatar": "https://a.example/a.png", "info": [1, {}] });
        let mut expected = card.clone();
        expected["user"] = json!("alice");
        assert_eq!(call_ok(&mut alice, "user/set", &card), expected);
        let asked = call_ok(&mut bob, "user/info", &json!({ "user": "alice" }));
        assert_eq!(asked, expected);
        assert_eq!(call_ok(&mut alice, "user/info", &json!({})), expected);
        let unknown = json!({ "user": "bob", "name": "", "avatar": "", "info": null });
        assert_eq!(call_ok(&mut bob, "user/info", &json!({})), unknown);
        let large = json!({ "info": "x".repeat(4 * 1024) });
        let (status, answer) = call(&mut alice, "user/set", &large);
        assert_eq!((status.as_str(), &answer["code"]), ("limit", &json!(151)));
        let now = call_ok(&mut bob, "time/now", &json!({}));
        assert!(now["now"].as_u64().is_some_and(|now| now > 1_600_000_000_000), "{now}");
    }
}

#[test]
fn devices_are_listed_and_told_when_they_are_kicked() {
    for version in Version::BOTH {
        let broker = Broker::start();
        let mut phone = device_with(&broker, &Connect::new(version, "ios-1"), "bob");
        let mut desk = device_with(&broker, &Connect::new(version, "pc-1"), "bob");
        let push = json!({ "provider": "apns", "token": "t" });
        call_ok(&mut phone, "device/push-token", &push);
        let listed = |desk: &mut RawClient| {
            let list = call_ok(desk, "device/list", &json!({}));
            let shown = list["devices"].as_array().expect("a list").iter().map(|device| {
                let word = |field: &str| device[field].as_str().expect("a word").to_owned();
                assert_eq!(word("address_class"), "loopback");
                assert!(device["since"].as_u64().is_some_and(|since| since > 0));
                (word("device"), word("class"), device["online"] == true, device["push"] == true)
            });
            shown.collect::<Vec<_>>()
        };
        let line = |device: &str, class: &str, online, push| {
            (device.to_owned(), class.to_owned(), online, push)
        };
        let there = [line("ios-1", "ios", true, true), line("pc-1", "pc", true, false)];
        assert_eq!(listed(&mut desk), there, "{version:?}");
        call_ok(&mut desk, "device/kick", &json!({ "device": "ios-1" }));
        let notice = await_topic(&mut phone, "im/me/sys/");
        assert!(notice.topic.starts_with("im/me/sys/kicked/pc/"), "{}", notice.topic);
        let code = (version == Version::V5).then_some(0x98);
        assert_eq!(phone.expect_closed(), code);
        eventually("the phone is gone", || !listed(&mut desk)[0].2);
        let (status, _) = call(&mut desk, "device/kick", &json!({ "device": "ios-1" }));
        assert_eq!(status, "not_found");
        // Nothing keeps it from coming back: whoever was kicked is no loser of a policy.
        device_with(&broker, &Connect::new(version, "ios-1"), "bob").ping();
    }
}

#[test]
fn what_burns_after_reading_is_gone_for_both() {
    for version in Version::BOTH {
        let broker = Broker::start();
        let mut alice = device(&broker, version, "alice");
        let mut bob = device(&broker, version, "bob");
        send(&mut alice, "im/u/bob/burn/1/c1", "for your eyes");
        assert_eq!(next_entry(&mut bob).payload, "for your eyes");
        send(&mut bob, "im/me/cur/u/alice/read/1", "");
        for (device, conv) in [(&mut alice, "u/bob"), (&mut bob, "u/alice")] {
            let burnt = next_entry(device);
            let told = (burnt.kind.as_str(), burnt.reference, burnt.payload.as_str());
            assert_eq!(told, ("burn", 1, ""), "{version:?}");
            assert_eq!((burnt.conv.as_str(), burnt.from.as_str()), (conv, "alice"));
            let (pulled, _) = pull(device, &json!({ "conv": conv }));
            assert_eq!(pulled, ["", ""]);
        }
    }
}

/// The profile over HTTP and MQTT names limits of lists alike.
#[test]
fn lists_beyond_a_page_are_refused_everywhere() {
    let broker = Broker::start();
    let mut alice = device(&broker, Version::V5, "alice");
    call_ok(&mut alice, "room/create", &json!({ "room": "live" }));
    for (op, mut body) in [
        ("sync/heads", json!({})),
        ("conv/list", json!({})),
        ("roster/list", json!({})),
        ("group/list", json!({})),
        ("room/members", json!({ "room": "live" })),
    ] {
        for limit in [1, 200] {
            body["limit"] = json!(limit);
            call_ok(&mut alice, op, &body);
        }
        for limit in [0, 201] {
            body["limit"] = json!(limit);
            assert_eq!(call(&mut alice, op, &body).0, "bad_request", "{op} {limit}");
        }
    }
}
