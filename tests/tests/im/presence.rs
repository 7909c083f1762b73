//! Presence: what is set is seen by those who watch, and by nobody else.

use hoopoe_tests::broker::Options;
use hoopoe_tests::client::ring_after;
use hoopoe_tests::http::Http;
use hoopoe_tests::wire::code;
use hoopoe_tests::{Broker, Connect, Property, Publish, RawClient, Version, unique_id};
use serde_json::{Value, json};

use crate::user::{await_topic, call, call_ok, device, device_with};

/// Watches users; what the answer shows of each: word and text.
fn watch(device: &mut RawClient, users: &[&str]) -> Vec<(String, String)> {
    shown(&call_ok(device, "presence/watch", &json!({ "users": users })))
}

fn get(device: &mut RawClient, user: &str) -> (String, String) {
    shown(&call_ok(device, "presence/get", &json!({ "users": [user] }))).remove(0)
}

fn shown(answer: &Value) -> Vec<(String, String)> {
    let text = |user: &Value, field: &str| user[field].as_str().expect("a text").to_owned();
    let users = answer["users"].as_array().expect("a list").iter();
    users.map(|user| (text(user, "show"), text(user, "text"))).collect()
}

fn pair(show: &str, text: &str) -> (String, String) {
    (show.to_owned(), text.to_owned())
}

fn set(device: &mut RawClient, show: &str, text: &str) {
    device.publish(Publish::new(&format!("im/me/st/{show}"), text).qos(1));
}

/// The next notice of a user: its body.
fn notice(device: &mut RawClient, user: &str) -> Value {
    let topic = format!("im/me/pr/{user}");
    let publish = await_topic(device, "im/me/pr/");
    assert_eq!((publish.topic.as_str(), publish.qos), (topic.as_str(), 0));
    serde_json::from_slice(&publish.payload).expect("notices are JSON")
}

/// The next notice of a user must show this.
fn expect_notice(device: &mut RawClient, user: &str, show: &str, text: &str) -> u64 {
    let body = notice(device, user);
    assert_eq!(body["user"], user);
    assert_eq!((&body["show"], &body["text"]), (&json!(show), &json!(text)), "{body}");
    assert!(body["since"].as_u64().is_some_and(|since| since > 1_600_000_000_000));
    body["version"].as_u64().expect("a version")
}

/// Names of users of their own, so that tests can share a broker.
fn names<const N: usize>() -> [String; N] {
    std::array::from_fn(|_| unique_id("user"))
}

#[test]
fn a_watch_shows_the_present_state_and_changes_follow() {
    let broker = Broker::start();
    for (mine, theirs) in
        [(Version::V5, Version::V311), (Version::V311, Version::V5), (Version::V5, Version::V5)]
    {
        let [alice, bob, carol] = &names();
        let mut watcher = device(&broker, mine, alice);
        let mut watched = device(&broker, theirs, bob);
        set(&mut watched, "away", "back at five");
        let states = watch(&mut watcher, &[bob, carol]);
        assert_eq!(states, [pair("away", "back at five"), pair("offline", "")]);
        set(&mut watched, "in-a-meeting", "");
        let first = expect_notice(&mut watcher, bob, "in-a-meeting", "");
        set(&mut watched, "dnd", "schläft 💤");
        let second = expect_notice(&mut watcher, bob, "dnd", "schläft 💤");
        assert!(second > first, "versions grow: {first}, {second}");
        // Somebody who comes online for the first time.
        let _carol = device(&broker, theirs, carol);
        expect_notice(&mut watcher, carol, "online", "");
        call_ok(&mut watcher, "presence/unwatch", &json!({ "users": [bob] }));
        set(&mut watched, "away", "");
        assert_eq!(get(&mut watcher, bob), pair("away", ""));
        watcher.ping();
    }
}

#[test]
fn an_answer_goes_to_the_response_topic_with_its_correlation() {
    let broker = Broker::start();
    let [alice, bob] = &names();
    let mut watcher = device(&broker, Version::V5, alice);
    let body = json!({ "users": [bob] }).to_string();
    let request = Publish::new("im/svc/presence/get", body)
        .qos(1)
        .with(Property::ResponseTopic("im/me/res/here".to_owned()))
        .with(Property::CorrelationData(b"7".to_vec()));
    watcher.publish(request);
    let answer = await_topic(&mut watcher, "im/me/res/here");
    assert!(answer.properties.0.contains(&Property::CorrelationData(b"7".to_vec())));
    assert_eq!(answer.properties.user_properties(), [("im-status", "ok")]);
    let body: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(shown(&body), [pair("offline", "")]);
}

#[test]
fn a_short_absence_is_not_noticed() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let [alice, bob] = &names();
        let mut watcher = device(&broker, version, alice);
        let watched = device(&broker, version, bob);
        assert_eq!(watch(&mut watcher, &[bob]), [pair("online", "")]);
        watched.cut();
        // The session ends with its connection; the user does not.
        let mut watched = device(&broker, version, bob);
        set(&mut watched, "busy", "");
        expect_notice(&mut watcher, bob, "busy", "");
    }
}

#[test]
fn several_devices_are_one_user() {
    let broker = Broker::start();
    let [alice, bob] = &names();
    let mut watcher = device(&broker, Version::V5, alice);
    let mut second = device(&broker, Version::V311, alice);
    let mut phone = device(&broker, Version::V311, bob);
    let web = device(&broker, Version::V5, bob);
    watch(&mut watcher, &[bob]);
    web.disconnect();
    assert_eq!(get(&mut watcher, bob), pair("online", ""));
    set(&mut phone, "away", "");
    // What one device watches, all hear.
    expect_notice(&mut watcher, bob, "away", "");
    expect_notice(&mut second, bob, "away", "");
}

#[test]
fn invisible_looks_like_offline_to_others_only() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let [alice, bob] = &names();
        let mut watcher = device(&broker, version, alice);
        let mut watched = device(&broker, version, bob);
        watch(&mut watcher, &[bob]);
        watch(&mut watched, &[bob]);
        set(&mut watched, "invisible", "hush");
        expect_notice(&mut watcher, bob, "offline", "");
        expect_notice(&mut watched, bob, "invisible", "hush");
        assert_eq!(get(&mut watcher, bob), pair("offline", ""));
        assert_eq!(get(&mut watched, bob), pair("invisible", "hush"));
        // A second device comes and goes: others see nothing of it.
        let mut other = device(&broker, version, bob);
        assert_eq!(get(&mut other, bob), pair("invisible", "hush"));
        other.disconnect();
        set(&mut watched, "online", "");
        expect_notice(&mut watcher, bob, "online", "");
    }
}

#[test]
fn a_watch_ends_with_the_last_device() {
    let broker = Broker::start();
    let [alice, bob] = &names();
    let mut watched = device(&broker, Version::V5, bob);
    for version in Version::BOTH {
        let mut watcher = device(&broker, version, alice);
        set(&mut watched, "away", "");
        watch(&mut watcher, &[bob]);
        watcher.disconnect();
        let mut watcher = device(&broker, version, alice);
        set(&mut watched, "dnd", "");
        assert_eq!(get(&mut watcher, bob), pair("dnd", ""));
        // Had the watch lasted, the notice of dnd had been sent within an interval of a second.
        ring_after(&broker, 2);
        watcher.ping();
    }
}

#[test]
fn changes_are_batched_and_the_last_one_wins() {
    let broker = Broker::start();
    let [alice, bob] = &names();
    let mut watcher = device(&broker, Version::V5, alice);
    let mut watched = device(&broker, Version::V5, bob);
    watch(&mut watcher, &[bob]);
    let mut sent = 0;
    let mut heard = 0;
    for round in 0..40 {
        set(&mut watched, &format!("round-{round}"), "");
        sent += 1;
    }
    let mut last = 0;
    loop {
        let body = notice(&mut watcher, bob);
        heard += 1;
        let version = body["version"].as_u64().expect("a version");
        assert!(version > last, "{body}");
        last = version;
        if body["show"] == "round-39" {
            break;
        }
    }
    assert!(heard < sent, "{heard} notices of {sent} changes");
}

#[test]
fn what_cannot_be_shown_is_refused_with_a_reason() {
    let broker = Broker::start();
    let [alice] = &names();
    let long = "x".repeat(33);
    let text = "x".repeat(257);
    let cases = [
        ("offline", "", code::TOPIC_NAME_INVALID),
        (long.as_str(), "", code::TOPIC_NAME_INVALID),
        ("a/b", "", code::TOPIC_NAME_INVALID),
        ("away", text.as_str(), code::PAYLOAD_FORMAT_INVALID),
    ];
    for (show, text, reason) in cases {
        let topic = format!("im/me/st/{show}");
        let publish = Publish::new(&topic, text).qos(1);
        let mut modern = device(&broker, Version::V5, alice);
        assert_eq!(modern.try_publish(publish.clone()), reason, "{topic}");
        let mut old = device(&broker, Version::V311, alice);
        old.publish(publish);
        let told = await_topic(&mut old, "im/me/sys/err/");
        assert_eq!(told.topic, format!("im/me/sys/err/-/{reason}"));
        assert!(!told.payload.is_empty(), "the reason is told");
    }
    let mut device = device(&broker, Version::V5, alice);
    assert_eq!(get(&mut device, alice), pair("online", ""), "nothing was set");
}

#[test]
fn watch_lists_are_limited_and_refused_whole() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let [alice, bob] = &names();
        let mut watcher = device(&broker, version, alice);
        let mut watched = device(&broker, version, bob);
        let mut many: Vec<String> = (0..500).map(|n| format!("nobody-{n}")).collect();
        let watch_all = |device: &mut RawClient, users: &[String]| {
            call(device, "presence/watch", &json!({ "users": users }))
        };
        many.push(bob.clone());
        let (status, body) = watch_all(&mut watcher, &many);
        assert_eq!((status.as_str(), &body["code"]), ("limit", &json!(0x97)), "{body}");
        set(&mut watched, "dnd", "");
        assert_eq!(get(&mut watcher, bob), pair("dnd", ""));
        watcher.ping();
        assert_eq!(watch_all(&mut watcher, &many[..500]).0, "ok");
        assert_eq!(watch_all(&mut watcher, &many[500..]).0, "limit");
        call_ok(&mut watcher, "presence/unwatch", &json!({ "users": &many[..1] }));
        assert_eq!(watch_all(&mut watcher, &many[500..]).0, "ok");
        let (status, body) = call(&mut watcher, "presence/watch", &json!({ "users": ["a/b"] }));
        assert_eq!(status, "bad_request");
        assert!(body["message"].as_str().is_some_and(|text| text.contains("a/b")), "{body}");
        let (status, body) = call(&mut watcher, "presence/get", &json!({ "who": ["a"] }));
        assert_eq!(status, "bad_request");
        assert!(body["message"].as_str().is_some_and(|text| text.contains("who")), "{body}");
    }
}

#[test]
fn what_was_set_survives_stop_and_kill() {
    let mut broker = Broker::start();
    let [alice, bob] = &names();
    let mut watched = device(&broker, Version::V311, bob);
    set(&mut watched, "dnd", "until monday");
    let version = |device: &mut RawClient| {
        let answer = call_ok(device, "presence/get", &json!({ "users": [bob] }));
        answer["users"][0]["version"].as_u64().expect("a version")
    };
    let mut before = version(&mut watched);
    drop(watched);
    for kill in [false, true] {
        if kill {
            broker.kill_and_restart();
        } else {
            broker.restart();
        }
        let mut watcher = device(&broker, Version::V5, alice);
        watch(&mut watcher, &[bob]);
        let connect = Connect::persistent(Version::V5, &unique_id("d"));
        let mut watched = device_with(&broker, &connect, bob);
        assert_eq!(get(&mut watcher, bob), pair("dnd", "until monday"));
        assert_eq!(get(&mut watched, bob), pair("dnd", "until monday"));
        let after = version(&mut watcher);
        // A crash leaves users the grace time to come back unnoticed.
        assert!(after > before || (kill && after == before), "{before} then {after}");
        before = after;
    }
}

#[test]
fn who_is_no_user_has_no_presence() {
    let broker = Options::new().start();
    for version in Version::BOTH {
        let mut client = broker.client(version);
        let publish = Publish::new("im/me/st/away", "").qos(1);
        let code = client.try_publish(publish);
        assert_eq!(code, if version == Version::V5 { code::NOT_AUTHORIZED } else { 0 });
    }
}

#[test]
fn who_stays_away_is_offline_after_the_grace_time() {
    let broker = Options::new().configuration("[im]\npresence_grace_secs = 1\n").start();
    for version in Version::BOTH {
        let [alice, bob] = &names();
        let mut watcher = device(&broker, version, alice);
        let mut watched = device(&broker, version, bob);
        set(&mut watched, "dnd", "shh");
        watch(&mut watcher, &[bob]);
        watched.cut();
        let offline = expect_notice(&mut watcher, bob, "offline", "");
        // What was set is shown again.
        let _watched = device(&broker, version, bob);
        let back = expect_notice(&mut watcher, bob, "dnd", "shh");
        assert!(back > offline);
    }
}

#[test]
fn where_only_friends_are_seen_strangers_look_offline() {
    let broker = Options::new().configuration("[im]\ncontact_policy = \"roster\"\n").start();
    for version in Version::BOTH {
        let [alice, bob] = &names();
        let mut watcher = device(&broker, version, alice);
        let mut watched = device(&broker, version, bob);
        assert_eq!(watch(&mut watcher, &[bob, alice]), [pair("offline", ""), pair("online", "")]);
        watch(&mut watched, &[bob]);
        set(&mut watched, "busy", "");
        expect_notice(&mut watched, bob, "busy", "");
        assert_eq!(get(&mut watcher, bob), pair("offline", ""));
        watcher.ping();
        call_ok(&mut watcher, "roster/request", &json!({ "user": bob }));
        call_ok(&mut watched, "roster/accept", &json!({ "user": alice }));
        expect_notice(&mut watcher, bob, "busy", "");
        call_ok(&mut watched, "roster/remove", &json!({ "user": alice }));
        expect_notice(&mut watcher, bob, "offline", "");
    }
}

#[test]
fn a_block_hides_each_from_the_other_at_once() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let [alice, bob] = &names();
        let mut watcher = device(&broker, version, alice);
        let mut watched = device(&broker, version, bob);
        watch(&mut watcher, &[bob]);
        set(&mut watched, "away", "");
        let seen = expect_notice(&mut watcher, bob, "away", "");
        call_ok(&mut watched, "roster/block", &json!({ "user": alice }));
        let hidden = expect_notice(&mut watcher, bob, "offline", "");
        assert_eq!(get(&mut watcher, bob), pair("offline", ""));
        assert_eq!(get(&mut watched, alice), pair("offline", ""));
        set(&mut watched, "dnd", "");
        assert_eq!(get(&mut watcher, bob), pair("offline", ""));
        // Watching anew shows nothing either.
        assert_eq!(watch(&mut watcher, &[bob]), [pair("offline", "")]);
        watcher.ping();
        call_ok(&mut watched, "roster/unblock", &json!({ "user": alice }));
        let shown = expect_notice(&mut watcher, bob, "dnd", "");
        assert!(seen < hidden && hidden < shown, "{seen}, {hidden}, {shown}");
    }
}

#[test]
fn http_sees_what_devices_see() {
    let broker = Broker::start();
    let [alice, bob] = &names();
    let mut watched = device(&broker, Version::V5, bob);
    set(&mut watched, "away", "brb");
    let nobody = Http::new(broker.http());
    let token = nobody.call("tokens", json!({ "user": alice }));
    let api = Http::new(broker.http()).bearer(token["token"].as_str().expect("a token"));
    let users = || json!({ "users": [bob] });
    assert_eq!(shown(&api.call("presence/get", users())), [pair("away", "brb")]);
    // Without a device there is nobody to tell of changes.
    assert_eq!(api.refused("presence/watch", users(), 409), "conflict");
    let mut device = device(&broker, Version::V311, alice);
    api.call("presence/watch", users());
    set(&mut watched, "dnd", "");
    expect_notice(&mut device, bob, "dnd", "");
    assert_eq!(api.refused("presence/get", json!({ "users": "bob" }), 400), "bad_request");
}
