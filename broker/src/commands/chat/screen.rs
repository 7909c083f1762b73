//! What comes from the broker, in words: entries, receipts, presence, rooms, answers.
//!
//! Text in, text out; what a person has to know of a line is in it. Everything here reads MQTT 5
//! publications, where the envelope is in user properties.

use hoopoe_codec::Publish;
use serde_json::Value;

/// The longest name or text shown of a notice.
const NOTICE_CHARS: usize = 400;

/// A publication in words; `None` when there is nothing to say about it.
pub(super) fn words(publish: &Publish<'_>) -> Option<String> {
    let levels: Vec<&str> = publish.topic.split('/').collect();
    let text = String::from_utf8_lossy(publish.payload);
    match levels[..] {
        ["im", "me", "in", letter, id] => Some(entry(&format!("{letter}/{id}"), publish)),
        ["im", "me", "sig", letter, id, from, kind] => {
            Some(format!("{letter}/{id}: {}", signal(from, kind, &text)))
        }
        ["im", "me", "pr", _] => Some(presence(&json(publish))),
        ["im", "me", "sys", ref event @ ..] => system(event, publish),
        ["im", "r", room, "msg", "like"] => Some(format!("r/{room} likes: {}", shortened(&text))),
        ["im", "r", room, "msg", lane] => Some(room_message(room, lane, publish)),
        ["im", "r", room, "sig", from, kind] => {
            Some(format!("r/{room}: {}", signal(from, kind, &text)))
        }
        ["im", "r", room, "stat"] => Some(format!("r/{room} now: {}", shortened(&text))),
        _ => Some(format!("{}: {}", publish.topic, shortened(&text))),
    }
}

/// The body of a notice; null when it is no JSON.
pub(super) fn json(publish: &Publish<'_>) -> Value {
    serde_json::from_slice(publish.payload).unwrap_or_default()
}

/// A property of the envelope; empty when it is not there.
fn property<'a>(publish: &Publish<'a>, name: &str) -> &'a str {
    publish.properties.user_properties.get(name).unwrap_or_default()
}

/// The seq of a stored entry; 0 for what is none.
pub(super) fn seq(publish: &Publish<'_>) -> u64 {
    property(publish, "im-seq").parse().unwrap_or(0)
}

/// A stored entry of a conversation.
pub(super) fn entry(conv: &str, publish: &Publish<'_>) -> String {
    let from = property(publish, "im-from");
    let reference = property(publish, "im-ref");
    let text = String::from_utf8_lossy(publish.payload);
    let what = match property(publish, "im-kind") {
        "" => match property(publish, "im-at") {
            "" => format!("{from}: {text}"),
            at => format!("{from} (to {at}): {text}"),
        },
        "recall" => format!("{from} took #{reference} back"),
        "edit" => format!("{from} changed #{reference} to: {text}"),
        "react" if text.is_empty() => format!("{from} took the reaction to #{reference} back"),
        "react" => format!("{from} reacted to #{reference}: {text}"),
        "burn" => format!("#{reference} has burnt"),
        "member" => member(&json(publish), from),
        "void" => match property(publish, "im-void") {
            "" => "(gone)".to_owned(),
            why => format!("({why})"),
        },
        kind => format!("{from} {kind}: {text}"),
    };
    format!("{} {conv} #{} {what}", clock(property(publish, "im-ts")), property(publish, "im-seq"))
}

/// A change of the members of a group.
fn member(body: &Value, from: &str) -> String {
    let by = body["by"].as_str().unwrap_or(from);
    let users = names(&body["users"]);
    match (body["op"].as_str().unwrap_or("changed"), users.as_str()) {
        (op, "") => format!("{by}: {op}"),
        (op, users) => format!("{by}: {op} {users}"),
    }
}

fn signal(from: &str, kind: &str, text: &str) -> String {
    match (kind, text) {
        ("typing", _) => format!("{from} is typing"),
        (kind, "") => format!("{from} signals {kind}"),
        (kind, text) => format!("{from} signals {kind}: {}", shortened(text)),
    }
}

fn room_message(room: &str, lane: &str, publish: &Publish<'_>) -> String {
    let text = String::from_utf8_lossy(publish.payload);
    let from = property(publish, "im-from");
    let loud = if lane == "hi" { "!" } else { "" };
    format!("{} r/{room} {from}{loud}: {text}", clock(property(publish, "im-ts")))
}

/// What the broker has to say itself: the levels below `im/me/sys/`.
fn system(event: &[&str], publish: &Publish<'_>) -> Option<String> {
    let text = String::from_utf8_lossy(publish.payload);
    match *event {
        ["hello"] => Some(hello(&json(publish))),
        ["receipt", letter, id, which, seq, user] => {
            let did = if which == "read" { "has read" } else { "has received" };
            Some(format!("{letter}/{id}: {user} {did} all up to #{seq}"))
        }
        ["read", letter, id, seq] => {
            Some(format!("{letter}/{id}: read up to #{seq} on another device"))
        }
        ["gap", letter, id, from, to] => Some(format!(
            "{letter}/{id}: #{from} to #{to} were not sent; /to {letter}/{id}, /history shows them"
        )),
        ["kicked", class, ..] => {
            Some(format!("this device is logged out, by one of class {class}"))
        }
        // The acknowledgement says it too.
        ["sent", ..] => None,
        ["err", cid, code] => Some(format!("refused ({cid}, {code}): {}", shortened(&text))),
        _ => Some(format!("{}: {}", event.join(" "), shortened(&text))),
    }
}

/// Who one is, and what waits.
fn hello(body: &Value) -> String {
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    let mut said = format!(
        "you are {} on {} ({} session), {} unread",
        text("user"),
        text("device"),
        text("session"),
        body["unread_total"],
    );
    for conversation in body["conversations"].as_array().into_iter().flatten() {
        let conv = conversation["conv"].as_str().unwrap_or_default();
        let (unread, last) = (&conversation["unread"], &conversation["last"]);
        said.push_str(&format!("\n  {conv}: {unread} unread, the last is #{last}"));
    }
    said
}

/// Presence of one user.
fn presence(body: &Value) -> String {
    let user = body["user"].as_str().unwrap_or("?");
    let show = body["show"].as_str().unwrap_or("?");
    match body["text"].as_str().unwrap_or_default() {
        "" => format!("{user} is {show}"),
        text => format!("{user} is {show}: {text}"),
    }
}

/// The answer of a service that was asked for `op`.
pub(super) fn answer(op: &str, body: &Value) -> String {
    let list = |field: &str| body[field].as_array().into_iter().flatten();
    let lines: Vec<String> = match op {
        "sync/heads" => list("conversations").map(head).collect(),
        "presence/watch" | "presence/get" => list("users").map(presence).collect(),
        "group/members" => list("members").map(of_group).collect(),
        "group/invite" => vec![invited(body)],
        _ if body.as_object().is_some_and(serde_json::Map::is_empty) => vec!["done".to_owned()],
        _ => vec![body.to_string()],
    };
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
}

fn head(line: &Value) -> String {
    let conv = line["conv"].as_str().unwrap_or_default();
    format!("  {conv}: {} unread, #{} is the last", line["unread"], line["last"])
}

fn of_group(line: &Value) -> String {
    let text = |field: &str| line[field].as_str().unwrap_or_default();
    format!("  {} ({})", text("user"), text("role"))
}

fn invited(body: &Value) -> String {
    let mut parts = Vec::new();
    for field in ["added", "asked"] {
        let users = names(&body[field]);
        if !users.is_empty() {
            parts.push(format!("{field}: {users}"));
        }
    }
    for refused in body["refused"].as_array().into_iter().flatten() {
        let user = refused["user"].as_str().unwrap_or_default();
        parts.push(format!("refused: {user} ({})", refused["error"].as_str().unwrap_or_default()));
    }
    parts.join("; ")
}

/// An error answer of a service.
pub(super) fn error(status: &str, body: &Value) -> String {
    format!("refused, {status}: {}", body["message"].as_str().unwrap_or_default())
}

fn names(list: &Value) -> String {
    let names = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}

fn shortened(text: &str) -> String {
    text.chars().take(NOTICE_CHARS).collect()
}

/// A text that a terminal can be given: what others wrote must not steer it. Line feeds are the
/// chat's own.
pub(super) fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { '\u{FFFD}' } else { c };
    text.chars().map(shown).collect()
}

/// A text of somebody's on one line.
pub(super) fn one_line(text: &str) -> String {
    text.replace('\n', " ⏎ ")
}

/// Date and time in UTC of milliseconds since the epoch, as MM-DD hh:mm:ss.
fn clock(ms: &str) -> String {
    let secs = ms.parse::<u64>().unwrap_or(0) / 1000;
    let (month, day) = month_and_day(secs / 86_400);
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Month and day of a day since the epoch, in the Gregorian calendar. Years are counted from March,
/// so that the leap day is their last.
fn month_and_day(days: u64) -> (u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // 1 March of the year 0 is 719,468 days before the epoch.
    let in_era = (days + 719_468) % DAYS_OF_400_YEARS;
    let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, day)
}

#[cfg(test)]
mod tests {
    use hoopoe_codec::{PropertyBlock, PublishProperties, QoS};

    use super::*;

    fn said(topic: &str, pairs: &[(&str, &str)], payload: &str) -> Option<String> {
        let block: PropertyBlock = pairs.iter().copied().collect();
        let mut properties = PublishProperties::default();
        properties.user_properties = block.user_properties();
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            id: None,
            properties,
            payload: payload.as_bytes(),
        };
        words(&publish)
    }

    #[test]
    fn entries_say_who_what_and_which() {
        let at = [("im-seq", "7"), ("im-ts", "1700000000123"), ("im-from", "bob")];
        type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str);
        let cases: [Case; 9] = [
            (&[], "hello", "#7 bob: hello"),
            (&[("im-at", "alice,eve")], "look", "#7 bob (to alice,eve): look"),
            (&[("im-kind", "recall"), ("im-ref", "3")], "", "#7 bob took #3 back"),
            (&[("im-kind", "edit"), ("im-ref", "3")], "new", "#7 bob changed #3 to: new"),
            (&[("im-kind", "react"), ("im-ref", "3")], "❤", "#7 bob reacted to #3: ❤"),
            (&[("im-kind", "react"), ("im-ref", "3")], "", "#7 bob took the reaction to #3 back"),
            (&[("im-kind", "burn"), ("im-ref", "3")], "", "#7 #3 has burnt"),
            (&[("im-kind", "void"), ("im-void", "recalled")], "", "#7 (recalled)"),
            (
                &[("im-kind", "member")],
                r#"{"op": "kick", "users": ["eve"], "by": "alice"}"#,
                "#7 alice: kick eve",
            ),
        ];
        for (more, payload, expected) in cases {
            let pairs: Vec<_> = at.iter().chain(more).copied().collect();
            let got = said("im/me/in/g/team", &pairs, payload).unwrap();
            assert_eq!(got, format!("11-14 22:13:20 g/team {expected}"));
        }
    }

    #[test]
    fn notices_are_sentences() {
        let hello = r#"{"user": "alice", "device": "pc-1", "session": "new", "unread_total": 3,
            "conversations": [{"conv": "u/bob", "unread": 3, "last": 9}]}"#;
        for (topic, payload, expected) in [
            (
                "im/me/sys/hello",
                hello,
                "you are alice on pc-1 (new session), 3 unread\n  u/bob: 3 unread, the last is #9",
            ),
            ("im/me/sys/receipt/u/bob/read/7/bob", "", "u/bob: bob has read all up to #7"),
            ("im/me/sys/receipt/u/bob/recv/7/bob", "", "u/bob: bob has received all up to #7"),
            ("im/me/sys/read/g/team/7", "", "g/team: read up to #7 on another device"),
            ("im/me/sig/u/bob/bob/typing", "", "u/bob: bob is typing"),
            ("im/me/sig/u/bob/bob/offer", "sdp", "u/bob: bob signals offer: sdp"),
            (
                "im/me/pr/bob",
                r#"{"user": "bob", "show": "away", "text": "tea"}"#,
                "bob is away: tea",
            ),
            ("im/me/pr/bob", r#"{"user": "bob", "show": "dnd", "text": ""}"#, "bob is dnd"),
            ("im/r/live/sig/bob/wave", "", "r/live: bob signals wave"),
        ] {
            assert_eq!(said(topic, &[], payload).as_deref(), Some(expected), "{topic}");
        }
        assert_eq!(said("im/me/sys/sent/c1/u/bob/7/x/1", &[], ""), None);
        let gap = said("im/me/sys/gap/u/bob/2/101", &[], "").unwrap();
        assert!(gap.starts_with("u/bob: #2 to #101 were not sent"), "{gap}");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\tc\nd\r"), "a\u{FFFD}[2Jb\u{FFFD}c\nd\u{FFFD}");
        assert_eq!(one_line("a\nb"), "a ⏎ b");
    }

    #[test]
    fn days_are_found_in_the_calendar() {
        for (secs, expected) in [
            (0u64, "01-01 00:00:00"),
            (951_782_399, "02-28 23:59:59"),
            (951_782_400, "02-29 00:00:00"),
            (951_868_800, "03-01 00:00:00"),
            (1_735_689_599, "12-31 23:59:59"),
            (4_107_542_400, "03-01 00:00:00"),
        ] {
            assert_eq!(clock(&format!("{secs}000")), expected, "{secs}");
        }
    }
}
