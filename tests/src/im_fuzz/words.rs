//! What a run is made of: few users, groups, channels and rooms, so that all meet all the time, and
//! every operation with the fields it takes, of which a call leaves some out and fills others with
//! what does not belong there.

use serde_json::{Map, Value, json};

use crate::fuzz::random::Random;

/// The users; a device of each is connected, and a second one of the first two.
pub const USERS: [&str; 8] = ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7"];
const GROUPS: [&str; 4] = ["g0", "g1", "g2", "g3"];
const CHANNELS: [&str; 2] = ["c0", "c1"];
const ROOMS: [&str; 2] = ["r0", "r1"];
/// What is no name, or nobody's.
const ODD_NAMES: [&str; 12] =
    ["", "ünï", "a/b", "+", "#", "default/u1", "u1\u{0}", "all", "-", ".", " ", "nobody"];
const ODD_CONVERSATIONS: [&str; 11] =
    ["", "u", "u/", "g/", "x/y", "u/a/b", "r/r0", "c/", "g/nope", "u/nope", "/"];
const FILTERS: [&str; 13] = [
    "im/me/#",
    "im/me/in/#",
    "im/r/r0/#",
    "im/r/r1/#",
    "im/r/r0/msg/hi",
    "im/#",
    "#",
    "im/me/pr/+",
    "im/u/u1/#",
    "im/me/in/u/u1/#",
    "im/r/+/#",
    "im/me/res/#",
    "$share/g/im/me/#",
];
/// Words that no topic below `im/` has.
const ODD_TOPICS: [&str; 13] = [
    "im/",
    "im/x",
    "im/u",
    "im/u/",
    "im/g/g0",
    "im/me",
    "im/svc",
    "im/svc/a",
    "im/r/r0/stat",
    "im/u/u1/in",
    "im/me/in/u/u1",
    "im/me/res/1/ok",
    "im/me/sys/hello",
];

/// Every operation, one that there is not, and the fields it takes.
const OPERATIONS: [(&str, &[&str]); 64] = [
    ("time/now", &[]),
    ("user/info", &["user"]),
    ("user/set", &["name", "avatar", "info"]),
    ("sync/heads", &["limit", "next", "unread_only"]),
    ("sync/pull", &["conv", "from", "to", "limit", "direction"]),
    ("sync/counts", &[]),
    ("conv/list", &["limit", "next"]),
    ("conv/pin", &["conv", "on", "until"]),
    ("conv/mute", &["conv", "on", "until"]),
    ("conv/hide", &["conv", "on"]),
    ("conv/clear", &["conv"]),
    ("roster/list", &["limit", "next"]),
    ("roster/request", &["user", "message"]),
    ("roster/accept", &["user"]),
    ("roster/reject", &["user"]),
    ("roster/remove", &["user"]),
    ("roster/block", &["user"]),
    ("roster/unblock", &["user"]),
    ("roster/tag", &["user", "tags"]),
    ("roster/note", &["user", "note"]),
    ("group/create", &["group", "name", "members", "join", "history", "until", "info"]),
    ("group/info", &["group"]),
    ("group/list", &[]),
    ("group/members", &["group", "limit", "next"]),
    ("group/join", &["group"]),
    ("group/apply", &["group", "message"]),
    ("group/approve", &["group", "user"]),
    ("group/reject", &["group", "user"]),
    ("group/invite", &["group", "users"]),
    ("group/kick", &["group", "users"]),
    ("group/leave", &["group"]),
    ("group/dissolve", &["group"]),
    ("group/role", &["group", "user", "role"]),
    ("group/transfer", &["group", "user"]),
    ("group/mute", &["group", "user", "until"]),
    ("group/unmute", &["group", "user"]),
    ("group/set", &["group", "name", "join", "history", "info"]),
    ("channel/create", &["channel", "name", "publishers"]),
    ("channel/follow", &["channel"]),
    ("channel/unfollow", &["channel"]),
    ("channel/publishers", &["channel", "add", "remove"]),
    ("channel/info", &["channel"]),
    ("room/create", &["room", "name", "ticket"]),
    ("room/info", &["room"]),
    ("room/close", &["room"]),
    ("room/mute", &["room", "user", "until"]),
    ("room/unmute", &["room", "user"]),
    ("room/ban", &["room", "user", "until"]),
    ("room/unban", &["room", "user"]),
    ("room/members", &["room", "limit"]),
    ("room/invite", &["room", "users"]),
    ("room/role", &["room", "user", "role"]),
    ("presence/watch", &["users"]),
    ("presence/unwatch", &["users"]),
    ("presence/get", &["users"]),
    ("receipt/list", &["conv", "seq"]),
    ("receipt/count", &["conv", "seq"]),
    ("device/list", &[]),
    ("device/kick", &["device"]),
    ("device/push-token", &["provider", "token"]),
    ("tokens/create", &["ttl", "device"]),
    ("tokens/list", &[]),
    ("tokens/revoke", &["id"]),
    ("nope/x", &["user"]),
];

/// Pages that answers named: what a device may ask for next.
pub type Pages = Vec<String>;

/// A topic and a payload.
pub type Words = (String, Vec<u8>);

/// A call of a service, answered under the name `request`.
pub fn call(random: &mut Random, request: &str, pages: &Pages) -> Words {
    let (operation, fields) = OPERATIONS[random.below(OPERATIONS.len())];
    (format!("im/svc/{operation}/{request}"), body(random, fields, pages))
}

/// A move of a cursor, an operation on a message, a state, or what is none of these.
pub fn own(random: &mut Random) -> Words {
    let conversation = conversation(random);
    let seq = random.below(40);
    let words = |topic: String, payload: &[u8]| (topic, payload.to_vec());
    match random.below(5) {
        0 => words(
            format!("im/me/cur/{conversation}/{}/{seq}", random.pick(&["read", "recv", "x"])),
            b"",
        ),
        1 => {
            let operation = random.pick(&["recall", "edit", "react"]);
            let payload: &[u8] = match random.below(5) {
                0 => b"",
                1 => b"x",
                2 => "👍".as_bytes(),
                3 => &[b'y'; 70],
                _ => &[b'z'; 3_000],
            };
            words(format!("im/me/op/{operation}/{conversation}/{seq}"), payload)
        }
        2 => {
            let states = ["online", "away", "busy", "dnd", "invisible", "lunch", ""];
            let text: &[u8] = match random.below(3) {
                0 => b"",
                1 => b"text",
                _ => b"\xff",
            };
            words(format!("im/me/st/{}", random.pick(&states)), text)
        }
        3 => words(format!("im/me/{}", random.pick(&["bg", "fg", "bg/x", ""])), b""),
        _ => words(random.pick(&ODD_TOPICS).to_owned(), b"x"),
    }
}

/// A message or a signal; `number` names it, or an earlier one once more.
pub fn message(random: &mut Random, number: usize) -> Words {
    let id = match random.below(6) {
        0 => String::new(),
        1 => format!("/m{}", random.below(number + 1)),
        2 => format!("/m{number}/at/{}", random.pick(&["all", "u1,u2", "u1", "", "nope", ","])),
        3 => format!("/{}", "x".repeat(65)),
        _ => format!("/m{number}"),
    };
    let length = match random.below(30) {
        0 => random.within(65_535, 65_537),
        1..=3 => 5_000,
        4..=6 => 0,
        _ => random.within(1, 300),
    };
    let topic = match random.below(12) {
        0..=4 => format!("im/u/{}/msg{id}", topic_name(random)),
        5..=6 => format!("im/g/{}/msg{id}", random.pick(&GROUPS)),
        7 => format!("im/c/{}/msg{id}", random.pick(&CHANNELS)),
        8 => format!("im/u/{}/burn/{}{id}", random.pick(&USERS), random.below(5)),
        9..=10 => {
            let lane = random.pick(&["", "/chat", "/hi", "/like", "/x"]);
            format!("im/r/{}/msg{lane}", random.pick(&ROOMS))
        }
        _ => {
            let to = random.pick(&["u/u1", "g/g0", "r/r0", "u/nope"]);
            format!("im/{to}/sig/{}", random.pick(&["typing", "call", "", "x/y"]))
        }
    };
    (topic, random.bytes(length))
}

/// A filter to subscribe to, or to unsubscribe from.
pub fn filter(random: &mut Random) -> &'static str {
    random.pick(&FILTERS)
}

/// A user; sometimes what is none, as a level of a topic can be.
fn topic_name(random: &mut Random) -> &'static str {
    let odd = ["nobody", "ünï", "all", "-", " "];
    if random.once_in(12) { random.pick(&odd) } else { random.pick(&USERS) }
}

fn conversation(random: &mut Random) -> String {
    match random.below(20) {
        0..=7 => format!("u/{}", random.pick(&USERS)),
        8..=13 => format!("g/{}", random.pick(&GROUPS)),
        14..=16 => format!("c/{}", random.pick(&CHANNELS)),
        _ => random.pick(&ODD_CONVERSATIONS).to_owned(),
    }
}

/// A body of these fields, mostly as they should be.
fn body(random: &mut Random, fields: &[&str], pages: &Pages) -> Vec<u8> {
    let mut object = Map::new();
    for field in fields {
        match random.below(8) {
            0 => {}
            1 => drop(object.insert((*field).to_owned(), junk(random, 0))),
            _ => drop(object.insert((*field).to_owned(), value(random, field, pages))),
        }
    }
    if random.once_in(20) {
        let name = random.pick(&["extra", "user", "conv", ""]);
        object.insert(name.to_owned(), junk(random, 0));
    }
    let mut text = Value::Object(object).to_string().into_bytes();
    match random.below(40) {
        0 => Vec::new(),
        1 => {
            text.truncate(random.below(20));
            text
        }
        2 => {
            let count = random.below(40);
            random.bytes(count)
        }
        3 => [vec![b'['; random.pick(&[&1, &200, &30_000]).to_owned()], vec![b'1']].concat(),
        _ => text,
    }
}

/// What a field takes.
fn value(random: &mut Random, field: &str, pages: &Pages) -> Value {
    match field {
        "user" => json!(random.pick(&USERS)),
        "users" | "members" | "publishers" | "add" | "remove" => {
            let count = random.below(6);
            (0..count).map(|_| random.pick(&USERS)).collect()
        }
        "group" => json!(random.pick(&GROUPS)),
        "channel" => json!(random.pick(&CHANNELS)),
        "room" => json!(random.pick(&ROOMS)),
        "conv" => json!(conversation(random)),
        "from" | "to" | "seq" => number(random, 60),
        "limit" => number(random, 300),
        "until" | "ttl" => number(random, 5_000),
        "next" if !pages.is_empty() => json!(pages[random.below(pages.len())]),
        "direction" => json!(random.pick(&["up", "down"])),
        "on" | "unread_only" => json!(random.once_in(2)),
        "ticket" => random.pick(&[&json!("t"), &json!(true), &json!(false)]).clone(),
        "join" => json!(random.pick(&["open", "apply", "invite", "closed"])),
        "history" => json!(random.pick(&["all", "join", "none", "since"])),
        "role" => json!(random.pick(&["admin", "member", "owner", "moderator"])),
        "tags" => json!([random.pick(&["t0", "t1"])]),
        "device" => json!(format!("web-{}", random.pick(&USERS))),
        "provider" => json!("fcm"),
        "info" => random.pick(&[&json!("i"), &json!({ "a": 1 })]).clone(),
        _ => json!(format!("n{}", random.below(9))),
    }
}

/// A number below `end`, or what is none or a very large one.
fn number(random: &mut Random, end: usize) -> Value {
    match random.below(20) {
        0 => json!(-1),
        1 => json!(1_u64 << 31),
        2 => json!(1_u64 << 53),
        3 => json!(i64::MAX),
        4 => json!(u64::MAX),
        5 => json!(1e300),
        6 => json!(1.5),
        7 => json!("7"),
        _ => json!(random.below(end)),
    }
}

/// Whatever does not belong there.
fn junk(random: &mut Random, depth: usize) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => json!(random.once_in(2)),
        2 => number(random, 20),
        3 => json!(random.pick(&ODD_NAMES)),
        4 => json!("x".repeat(*random.pick(&[&1, &63, &64, &65, &1_000, &5_000]))),
        5 if depth < 4 => (0..random.below(4)).map(|_| junk(random, depth + 1)).collect(),
        6 if depth < 4 => {
            let name = random.pick(&ODD_NAMES).to_owned();
            json!({ name: junk(random, depth + 1) })
        }
        _ => {
            let count = *random.pick(&[&0, &1, &3, &600]);
            (0..count).map(|at| USERS[at % USERS.len()]).collect()
        }
    }
}
