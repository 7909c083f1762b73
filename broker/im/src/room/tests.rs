//! Rooms as tables of cases, in made-up time.

use std::sync::Arc;

use hoopoe_codec::{ReasonCode, Version};
use serde_json::{Value, json};

use super::*;
use crate::refusal::{Refusal, Word};
use crate::topic::Lane;

const NOW: u64 = 1_000_000;

fn settings() -> RoomSettings {
    RoomSettings::default()
}

fn user(name: &str) -> Arc<str> {
    name.into()
}

/// A room of olga, with molly as moderator, and the viewers named.
fn room_with(viewers: &[&str]) -> Room {
    let row = RoomRow {
        owner: Some("olga".into()),
        moderators: ["molly".to_owned()].into(),
        ..RoomRow::default()
    };
    let mut room = Room::new("lobby".into(), row, NOW);
    for name in viewers {
        room.join(&settings(), NOW, &user(name)).unwrap();
    }
    room
}

fn say(room: &mut Room, now_ms: u64, from: &str, payload: &str) -> Result<u64, Refusal> {
    on_lane(room, now_ms, from, Lane::Chat, payload).map(|posted| match posted {
        Posted::Message(message) => message.n - NOW * 1_000,
        Posted::Counted => 0,
    })
}

fn on_lane(
    room: &mut Room,
    now_ms: u64,
    from: &str,
    lane: Lane,
    payload: &str,
) -> Result<Posted, Refusal> {
    let from = &user(from);
    let payload = payload.as_bytes();
    let post = Post { from, lane, properties: &[], payload, expires_at_ms: None };
    room.publish(&settings(), now_ms, post)
}

fn parse(op: &str, body: &str) -> Result<(Option<String>, RoomCall), Refusal> {
    let op = crate::service::parse("room", op, body.as_bytes())?;
    room_call(&op).expect("an operation of rooms")
}

fn ask(
    room: &mut Room,
    now_ms: u64,
    who: &str,
    op: &str,
    body: Value,
) -> Result<Moderated, Refusal> {
    let (_, call) = parse(op, &body.to_string())?;
    let caller = Caller { user: who, admin: who == "root" };
    room.serve(&settings(), now_ms, caller, call)
}

#[test]
fn a_message_looks_as_its_receivers_version_asks() {
    let mut room = room_with(&["ann"]);
    let from = &user("ann");
    let properties = &[0x01, 1];
    let expires_at_ms = Some(NOW + 9_000);
    let post = Post { from, lane: Lane::Hi, properties, payload: b"hello", expires_at_ms };
    let Ok(Posted::Message(message)) = room.publish(&settings(), NOW, post) else {
        panic!("a message")
    };
    let (v5, v311) = (message.publication(Version::V5), message.publication(Version::V311));
    assert_eq!(v5.topic(), "im/r/lobby/msg/hi");
    assert!(v5.properties().starts_with(properties), "the sender's own come first");
    for text in ["im-seq", "im-ts", "im-from", "ann"] {
        assert!(v5.properties().windows(text.len()).any(|part| part == text.as_bytes()), "{text}");
    }
    assert_eq!(v311.topic(), format!("im/r/lobby/msg/hi/{NOW}001/ann/{NOW}"));
    assert_eq!((v5.payload(), v311.payload()), (&b"hello"[..], &b"hello"[..]));
    assert_eq!((v5.expires_at_ms, v311.expires_at_ms), (expires_at_ms, expires_at_ms));
    let sent = signal("lobby", "ann", "offer", properties, b"sdp");
    assert_eq!((sent.topic(), sent.payload()), ("im/r/lobby/sig/ann/offer", &b"sdp"[..]));
    assert_eq!(stat("lobby", "{}").topic(), "im/r/lobby/stat");
}

fn texts(messages: &[Arc<RoomMessage>]) -> Vec<&str> {
    messages.iter().map(|m| std::str::from_utf8(m.payload()).unwrap()).collect()
}

#[test]
fn only_who_is_here_and_not_muted_speaks() {
    let mut room = room_with(&["ann", "olga", "molly"]);
    for (body, who, allowed) in [
        (json!({}), "ann", true),
        (json!({}), "bob", false),
        (json!({ "user": "ann" }), "ann", false),
        (json!({ "user": "ann", "until": NOW + 500 }), "ann", false),
        (json!({ "user": "ann", "until": 0 }), "ann", true),
        (json!({ "until": NOW + 500 }), "ann", false),
        (json!({ "until": NOW + 500 }), "molly", true),
        (json!({ "until": NOW + 500 }), "olga", true),
        (json!({ "until": NOW - 1 }), "ann", true),
    ] {
        if body != json!({}) {
            let mut body = body.clone();
            body["room"] = "lobby".into();
            ask(&mut room, NOW, "olga", "mute", body).unwrap();
        }
        let said = say(&mut room, NOW, who, "hi");
        assert_eq!(said.is_ok(), allowed, "{who} after {body}: {said:?}");
        if let Err(refusal) = said {
            assert_eq!(refusal.code, ReasonCode::NotAuthorized);
            assert!(room.signal(&settings(), NOW, who, 1).is_err(), "{who}: signals as messages");
        }
    }
    ask(
        &mut room,
        NOW,
        "olga",
        "mute",
        json!({ "room": "lobby", "user": "ann", "until": NOW + 9 }),
    )
    .unwrap();
    assert!(say(&mut room, NOW + 8, "ann", "x").is_err());
    assert!(say(&mut room, NOW + 9, "ann", "x").is_ok(), "a mute ends by itself");
}

#[test]
fn messages_are_counted_from_the_rooms_time_on() {
    let mut room = room_with(&["ann", "bob"]);
    assert_eq!(say(&mut room, NOW, "ann", "a"), Ok(1));
    assert_eq!(say(&mut room, NOW, "bob", "b"), Ok(2));
    assert!(say(&mut room, NOW, "eve", "x").is_err());
    assert_eq!(say(&mut room, NOW, "ann", "c"), Ok(3), "a refusal takes no number");
}

#[test]
fn a_newcomer_gets_the_last_messages_oldest_first() {
    let mut room = room_with(&["ann"]);
    for n in 1..=70 {
        say(&mut room, NOW + n * 20, "ann", &n.to_string()).unwrap();
    }
    let joined = room.join(&settings(), NOW + 9_000, &user("bob")).unwrap();
    let expected: Vec<String> = (21..=70).map(|n: u32| n.to_string()).collect();
    assert_eq!(texts(&joined.ring), expected);
    assert_eq!((joined.n - NOW * 1_000, joined.first), (70, true));
    assert!(!room.join(&settings(), NOW, &user("bob")).unwrap().first, "a second device");
}

#[test]
fn the_ring_is_bounded_in_bytes_and_shows_nothing_expired() {
    let mut room = room_with(&["ann"]);
    let large = "x".repeat(60_000);
    for n in 0..20 {
        say(&mut room, NOW + n * 20, "ann", &large).unwrap();
    }
    let from = &user("ann");
    let post = Post {
        from,
        lane: Lane::Hi,
        properties: &[],
        payload: b"soon over",
        expires_at_ms: Some(NOW + 5_000),
    };
    room.publish(&settings(), NOW + 1_000, post).unwrap();
    let ring = |room: &mut Room, at| room.join(&settings(), at, &user("bob")).unwrap().ring;
    let seen = ring(&mut room, NOW + 4_999);
    assert_eq!(seen.len(), 3, "two large ones, in two versions, and a small one fit into 256 KiB");
    assert_eq!(ring(&mut room, NOW + 5_000).len(), 2);
}

#[test]
fn senders_keep_to_rates_and_sizes() {
    let mut room = room_with(&["ann"]);
    let said = (0..1000).filter(|_| say(&mut room, NOW, "ann", "x").is_ok()).count();
    assert_eq!(said, 500, "the burst");
    let later = (0..1000).filter(|_| say(&mut room, NOW + 1_000, "ann", "x").is_ok()).count();
    assert_eq!(later, 50, "the rate");
    assert_eq!(say(&mut room, NOW, "ann", "x").unwrap_err().code, ReasonCode::QuotaExceeded);
    let mut room = room_with(&["ann"]);
    let limit = settings().payload_bytes;
    assert!(say(&mut room, NOW, "ann", &"x".repeat(limit)).is_ok());
    let refusal = say(&mut room, NOW, "ann", &"x".repeat(limit + 1)).unwrap_err();
    assert_eq!(refusal.code, ReasonCode::QuotaExceeded);
    let signals = (0..100).filter(|_| room.signal(&settings(), NOW, "ann", 9).is_ok()).count();
    assert_eq!(signals, 20);
    assert!(room.signal(&settings(), NOW + 5_000, "ann", 4097).is_err());
    assert!(room.signal(&settings(), NOW + 5_000, "ann", 4096).is_ok());
}

#[test]
fn likes_become_one_message() {
    let mut room = room_with(&["ann", "bob"]);
    room.on_tick(&settings(), NOW + 10_000);
    let start = NOW + 20_000;
    for (at, who, word) in
        [(0, "ann", ""), (10, "bob", "heart"), (300, "ann", "like"), (499, "bob", "")]
    {
        let posted = on_lane(&mut room, start + at, who, Lane::Like, word);
        assert!(matches!(posted, Ok(Posted::Counted)), "{posted:?}");
    }
    assert_eq!(room.next_timeout(), Some(start + 500));
    assert!(room.on_tick(&settings(), start + 499).likes.is_none());
    let sum = room.on_tick(&settings(), start + 500).likes.unwrap();
    let body: Value = serde_json::from_slice(sum.payload()).unwrap();
    assert_eq!(body, json!({ "likes": { "heart": 1, "like": 3 }, "ms": 500 }));
    assert_eq!((sum.lane, sum.from.clone()), (Lane::Like, None));
    assert!(room.on_tick(&settings(), start + 2_000).likes.is_none(), "nothing was liked");
    on_lane(&mut room, start + 3_000, "ann", Lane::Like, "x").unwrap();
    let next = room.on_tick(&settings(), start + 3_500).likes.unwrap();
    assert!(next.n > sum.n);
    let joined = room.join(&settings(), start + 4_000, &user("cat")).unwrap();
    assert!(joined.ring.is_empty(), "sums are nothing to look back at");
}

#[test]
fn words_of_likes_are_few_and_short() {
    let mut room = room_with(&["ann"]);
    for (word, fits) in [
        ("heart", true),
        ("\u{1f44d}", true),
        (&*"x".repeat(32), true),
        (&*"x".repeat(33), false),
        ("a\nb", false),
    ] {
        assert_eq!(on_lane(&mut room, NOW, "ann", Lane::Like, word).is_ok(), fits, "{word:?}");
    }
    let names: Vec<String> = (0..50).map(|n| format!("viewer-{n}")).collect();
    for name in &names {
        room.join(&settings(), NOW, &user(name)).unwrap();
    }
    let counted =
        names.iter().filter(|name| on_lane(&mut room, NOW, name, Lane::Like, name).is_ok()).count();
    assert_eq!(counted, 32 - 3, "different words in one sum");
    assert!(on_lane(&mut room, NOW, &names[0], Lane::Like, &names[0]).is_ok(), "a known word");
    let many = (0..100).filter(|_| on_lane(&mut room, NOW, "ann", Lane::Like, "").is_ok()).count();
    assert!(many < 20, "the rate of one sender");
}

#[test]
fn counters_are_sent_when_they_change_and_not_too_often() {
    let settings = settings();
    let mut room = room_with(&[]);
    assert_eq!(room.next_timeout(), None, "an owned room without viewers sleeps");
    room.join(&settings, NOW, &user("ann")).unwrap();
    room.join(&settings, NOW + 100, &user("bob")).unwrap();
    let mut told = Vec::new();
    let mut at = NOW;
    while let Some(next) = room.next_timeout().filter(|_| told.len() < 10) {
        assert!(next > at, "time moves on");
        at = next;
        told.extend(room.on_tick(&settings, at).stat.map(|stat| (at, stat)));
        if told.len() < 3 {
            let _ = say(&mut room, at + 1, "ann", "x");
        }
    }
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let seen: Vec<_> = told.iter().map(|(at, stat)| (*at - NOW, parse(stat))).collect();
    let stat = |at: u64, messages: u64| {
        (at, json!({ "viewers": 2, "likes": 0, "messages": messages, "ts": NOW + at }))
    };
    assert_eq!(seen, [stat(500, 0), stat(5_500, 1), stat(10_500, 2)]);
}

#[test]
fn viewers_are_users_whatever_their_devices() {
    let settings = settings();
    let mut room = room_with(&["ann", "ann", "bob"]);
    assert_eq!(room.viewers(), 2);
    assert_eq!(room.leave(&settings, NOW, "ann"), Some(Left { last: false }));
    assert_eq!(room.leave(&settings, NOW, "ann"), Some(Left { last: true }));
    assert_eq!(room.leave(&settings, NOW, "ann"), None);
    assert_eq!(room.viewers(), 1);
}

#[test]
fn who_comes_into_an_empty_room_is_told_its_counters() {
    let settings = settings();
    let mut room = room_with(&["ann"]);
    let told = room.on_tick(&settings, NOW + 500).stat;
    assert!(told.is_some_and(|stat| stat.contains(r#""viewers":1"#)));
    say(&mut room, NOW + 600, "ann", "x").unwrap();
    room.leave(&settings, NOW + 700, "ann");
    assert_eq!(room.next_timeout(), None, "nobody hears them");
    room.join(&settings, NOW + 20_000, &user("bob")).unwrap();
    let due = room.next_timeout().unwrap();
    let told = room.on_tick(&settings, due).stat;
    assert!(told.is_some_and(|stat| stat.contains(r#""messages":1"#)));
}

#[test]
fn a_room_that_nobody_owns_is_not_wanted_when_nobody_is_there() {
    let settings = settings();
    let unowned = || Room::new("lobby".into(), RoomRow::default(), NOW);
    let mut room = unowned();
    assert_eq!((room.unwanted_since(), room.is_blank()), (Some(NOW), true));
    room.join(&settings, NOW + 1, &user("ann")).unwrap();
    assert_eq!((room.unwanted_since(), room.is_blank()), (None, true));
    room.leave(&settings, NOW + 2, "ann");
    assert_eq!((room.unwanted_since(), room.is_blank()), (Some(NOW + 2), true));
    for lane in [Lane::Chat, Lane::Like] {
        let mut room = unowned();
        room.join(&settings, NOW, &user("ann")).unwrap();
        on_lane(&mut room, NOW, "ann", lane, "").unwrap();
        room.leave(&settings, NOW + 3, "ann");
        assert_eq!((room.unwanted_since(), room.is_blank()), (Some(NOW + 3), false), "{lane:?}");
    }
    assert_eq!(room_with(&[]).unwanted_since(), None, "an owner's room stays");
    // What an admin rules is stored, and would overrule a room that is made anew.
    ask(&mut room, NOW, "root", "ban", json!({ "room": "lobby", "user": "eve" })).unwrap();
    assert_eq!(room.unwanted_since(), None);
}

#[test]
fn ranks_decide_who_may_do_what_to_whom() {
    let to = |name: &str| json!({ "room": "lobby", "user": name });
    let all = json!({ "room": "lobby" });
    for (who, op, body, allowed) in [
        ("ann", "mute", to("bob"), false),
        ("ann", "mute", all.clone(), false),
        ("ann", "ban", to("bob"), false),
        ("ann", "unban", to("bob"), false),
        ("ann", "close", all.clone(), false),
        ("ann", "invite", json!({ "room": "lobby", "users": ["bob"] }), false),
        ("ann", "role", json!({ "room": "lobby", "user": "ann", "role": "moderator" }), false),
        ("ann", "info", all.clone(), true),
        ("ann", "members", all.clone(), true),
        ("molly", "mute", to("ann"), true),
        ("molly", "mute", all.clone(), true),
        ("molly", "ban", to("ann"), true),
        ("molly", "ban", to("olga"), false),
        ("molly", "ban", to("molly"), false),
        ("molly", "role", json!({ "room": "lobby", "user": "ann", "role": "moderator" }), false),
        ("olga", "ban", to("molly"), true),
        ("olga", "role", json!({ "room": "lobby", "user": "ann", "role": "moderator" }), true),
        ("root", "ban", to("olga"), true),
        ("molly", "close", all.clone(), true),
    ] {
        let mut room = room_with(&["ann", "bob", "olga", "molly"]);
        let done = ask(&mut room, NOW, who, op, body.clone());
        assert_eq!(done.is_ok(), allowed, "{who} {op} {body}: {done:?}");
        match done {
            Ok(done) => {
                let reads = op == "info" || op == "members";
                assert_eq!(done.changed, !reads, "{who} {op} {body}");
                assert_eq!(room.row().version, u64::from(!reads), "{op}");
            }
            Err(refusal) => assert_eq!(refusal.word, Word::NotAllowed, "{who} {op} {body}"),
        }
    }
}

#[test]
fn who_is_banned_leaves_and_stays_out() {
    let mut room = room_with(&["ann", "ann", "bob"]);
    say(&mut room, NOW, "ann", "spam").unwrap();
    say(&mut room, NOW, "bob", "hello").unwrap();
    let ban = json!({ "room": "lobby", "user": "ann", "until": NOW + 1_000 });
    let done = ask(&mut room, NOW, "molly", "ban", ban).unwrap();
    assert_eq!(done.evicted, Evicted::User("ann".into()));
    assert!(!room.has("ann"));
    assert!(say(&mut room, NOW, "ann", "x").is_err());
    let refusal = room.join(&settings(), NOW + 999, &user("ann")).unwrap_err();
    assert_eq!(refusal.code, ReasonCode::NotAuthorized);
    let seen = room.join(&settings(), NOW + 500, &user("cat")).unwrap().ring;
    assert_eq!(texts(&seen), ["hello"], "what the banned user said is not shown again");
    assert!(room.join(&settings(), NOW + 1_000, &user("ann")).is_ok(), "a ban ends by itself");
    let away = json!({ "room": "lobby", "user": "dan" });
    let done = ask(&mut room, NOW, "molly", "ban", away.clone()).unwrap();
    assert_eq!(done.evicted, Evicted::Nobody);
    assert!(room.join(&settings(), u64::MAX - 1, &user("dan")).is_err(), "for ever");
    ask(&mut room, NOW, "molly", "unban", away).unwrap();
    assert!(room.join(&settings(), NOW, &user("dan")).is_ok());
}

#[test]
fn a_closed_room_is_empty_until_its_owner_opens_it_again() {
    let mut room = room_with(&["ann", "bob"]);
    say(&mut room, NOW, "ann", "x").unwrap();
    let lobby = json!({ "room": "lobby" });
    let done = ask(&mut room, NOW, "olga", "close", lobby.clone()).unwrap();
    let everybody = Evicted::Everybody(vec!["ann".into(), "bob".into()]);
    assert_eq!((done.changed, done.evicted), (true, everybody));
    assert_eq!(room.viewers(), 0);
    assert!(room.join(&settings(), NOW, &user("ann")).is_err());
    assert!(room.join(&settings(), NOW, &user("olga")).is_err());
    assert!(!ask(&mut room, NOW, "olga", "close", lobby.clone()).unwrap().changed);
    assert_eq!(ask(&mut room, NOW, "ann", "create", lobby.clone()).unwrap_err().word, Word::Exists);
    let version = room.row().version;
    assert_eq!(
        ask(&mut room, NOW, "olga", "create", lobby).unwrap().answer,
        json!({ "room": "lobby" })
    );
    assert!(room.row().version > version, "the later row wins");
    assert!(room.join(&settings(), NOW, &user("ann")).unwrap().ring.is_empty());
}

#[test]
fn what_an_erased_owner_had_goes_to_a_moderator_or_is_closed() {
    let mut room = room_with(&["olga", "ann"]);
    say(&mut room, NOW, "olga", "a secret").unwrap();
    say(&mut room, NOW, "ann", "x").unwrap();
    assert_eq!(room.erase(NOW, "ann"), None, "the row says nothing of her");
    let done = room.erase(NOW, "olga").unwrap();
    assert_eq!((done.changed, done.evicted), (true, Evicted::Nobody));
    assert!(room.look_back(NOW).0.is_empty(), "what they said is gone");
    let row = room.row().clone();
    assert_eq!((row.owner.as_deref(), row.moderators.len()), (Some("molly"), 0));
    let body = json!({ "room": "lobby", "users": ["olga", "ann"] });
    ask(&mut room, NOW, "molly", "invite", body).unwrap();
    ask(&mut room, NOW, "molly", "mute", json!({ "room": "lobby", "user": "olga" })).unwrap();
    // Whoever has the id later begins afresh.
    assert!(room.erase(NOW, "olga").is_some());
    assert!(!serde_json::to_string(room.row()).unwrap().contains("olga"));

    let done = room.erase(NOW, "molly").unwrap();
    let everybody = Evicted::Everybody(vec!["ann".into(), "olga".into()]);
    assert_eq!((done.changed, done.evicted), (true, everybody));
    assert_eq!((&room.row().owner, room.row().closed_ms), (&None, Some(NOW)));
    assert!(room.row().version > row.version, "the later row wins");
    assert_eq!(room.erase(NOW, "molly"), None);
    // It stays closed, also when nobody has been there for long, and is nobody's for the taking.
    assert_eq!(room.unwanted_since(), None);
    for name in ["ann", "molly"] {
        assert!(room.join(&settings(), NOW, &user(name)).is_err(), "{name}");
        let again = ask(&mut room, NOW, name, "create", json!({ "room": "lobby" }));
        assert_eq!(again.unwrap_err().word, Word::Exists, "{name}");
    }
}

#[test]
fn an_ownerless_room_becomes_its_creators() {
    let mut room = Room::new("lobby".into(), RoomRow::default(), NOW);
    room.join(&settings(), NOW, &user("ann")).unwrap();
    let lobby = json!({ "room": "lobby", "name": "The lobby", "ticket": "invite" });
    ask(&mut room, NOW, "bob", "create", lobby.clone()).unwrap();
    assert_eq!(ask(&mut room, NOW, "ann", "create", lobby).unwrap_err().word, Word::Exists);
    let info = ask(&mut room, NOW, "ann", "info", json!({ "room": "lobby" })).unwrap().answer;
    let expected = json!({
        "room": "lobby", "name": "The lobby", "owner": "bob", "viewers": 1, "muted": false,
    });
    assert_eq!(info, expected);
    assert!(room.join(&settings(), NOW, &user("cat")).is_err(), "not invited");
    ask(&mut room, NOW, "bob", "invite", json!({ "room": "lobby", "users": ["cat"] })).unwrap();
    assert!(room.join(&settings(), NOW, &user("cat")).is_ok());
    assert!(room.join(&settings(), NOW, &user("bob")).is_ok());
}

#[test]
fn info_tells_who_is_muted() {
    let mut room = room_with(&["ann", "olga"]);
    let muted = |room: &mut Room, who: &str| {
        let answer = ask(room, NOW, who, "info", json!({ "room": "lobby" })).unwrap().answer;
        answer["muted"].as_bool().unwrap()
    };
    assert!(!muted(&mut room, "ann"));
    ask(&mut room, NOW, "olga", "mute", json!({ "room": "lobby", "user": "ann" })).unwrap();
    assert!(muted(&mut room, "ann") && !muted(&mut room, "olga"));
    ask(&mut room, NOW, "olga", "unmute", json!({ "room": "lobby", "user": "ann" })).unwrap();
    ask(&mut room, NOW, "olga", "mute", json!({ "room": "lobby" })).unwrap();
    assert!(muted(&mut room, "ann") && muted(&mut room, "olga"));
}

#[test]
fn a_sample_names_some_and_counts_all() {
    let names: Vec<String> = (0..100).map(|n| format!("viewer-{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut room = room_with(&names);
    let body = json!({ "room": "lobby", "limit": 7 });
    let answer = ask(&mut room, NOW, "olga", "members", body).unwrap().answer;
    assert_eq!(answer["viewers"], 100);
    assert_eq!(answer["sample"].as_array().unwrap().len(), 7);
    assert_ne!(room.sample(7, 1), room.sample(7, 2), "not always the same");
    for turn in [0, 93, 94, u64::MAX] {
        assert_eq!(room.sample(7, turn).len(), 7, "turn {turn}");
        assert_eq!(room.sample(500, turn).len(), 100, "turn {turn}");
    }
}

#[test]
fn malformed_requests_are_told_what_is_wrong() {
    for (op, body, part) in [
        ("info", "", "room"),
        ("info", "{", "EOF"),
        ("info", r#"{"room":"a b"}"#, "room"),
        ("info", r#"{"room":"a","x":1}"#, "x"),
        ("ban", r#"{"room":"a"}"#, "user"),
        ("unban", r#"{"room":"a"}"#, "user"),
        ("mute", r#"{"room":"a","user":"","until":3}"#, "user"),
        ("mute", r#"{"room":"a","until":"soon"}"#, "soon"),
        ("create", r#"{"ticket":"closed"}"#, "ticket"),
        ("role", r#"{"room":"a","user":"b","role":"king"}"#, "king"),
    ] {
        let refusal = parse(op, body).unwrap_err();
        assert_eq!(refusal.word, Word::BadRequest, "{op} {body}");
        if part != "ticket" {
            assert!(refusal.message.contains(part), "{op} {body}: {}", refusal.message);
        }
    }
    let (room, call) = parse("create", "").unwrap();
    assert_eq!(room, None);
    assert_eq!(call, RoomCall::Create { name: String::new(), ticket: Ticket::Open });
}

#[test]
fn lists_are_bounded_and_the_past_is_forgotten() {
    let settings = RoomSettings { listed_max: 2, ..settings() };
    let mut room = room_with(&[]);
    let caller = Caller { user: "olga", admin: false };
    let mut ban = |now_ms: u64, name: &str, until: Option<u64>| {
        let call = RoomCall::Ban { user: name.into(), until };
        room.serve(&settings, now_ms, caller, call)
    };
    assert!(ban(NOW, "a", Some(NOW + 10)).is_ok());
    assert!(ban(NOW, "b", None).is_ok());
    assert_eq!(ban(NOW, "c", None).unwrap_err().word, Word::Limit);
    assert!(ban(NOW, "b", Some(NOW + 99)).is_ok(), "who is listed takes no new place");
    assert!(ban(NOW + 10, "c", None).is_ok(), "the first ban is over");
    assert_eq!(room.row().bans.len(), 2);
}

#[test]
fn a_row_survives_the_store() {
    let mut room = room_with(&["ann"]);
    let lobby = |user: &str| json!({ "room": "lobby", "user": user });
    ask(&mut room, NOW, "olga", "ban", lobby("ann")).unwrap();
    ask(&mut room, NOW, "olga", "mute", lobby("bob")).unwrap();
    let stored = serde_json::to_vec(room.row()).unwrap();
    let row: RoomRow = serde_json::from_slice(&stored).unwrap();
    assert_eq!(&row, room.row());
    let mut again = Room::new("lobby".into(), row, NOW);
    assert!(again.join(&settings(), NOW, &user("ann")).is_err());
    again.join(&settings(), NOW, &user("bob")).unwrap();
    assert!(say(&mut again, NOW, "bob", "x").is_err());
}
