//! What a person types: a line read as a message or as an order with its arguments.
//!
//! Only reading. Whether the broker allows it is the broker's to say.

use hoopoe_im::id::is_id;
use serde_json::{Value, json};

/// The orders, as `/help` shows them.
pub(super) const HELP: &str = "\
/to u/bob | g/team | c/news | r/room   talk there; whatever has no slash is then sent there
/heads                 conversations, newest first, with what is unread
/history [n]           the last n messages of the conversation (20)
/read                  everything seen in the conversation is read
/recall n              take message n back
/edit n text           give message n another text
/react n [word]        react to message n; without a word: take the reaction back
/burn seconds text     a message that is gone so long after it was read
/typing                say that you are typing
/who user…             their presence, now and from now on
/status show [text]    your presence: online, away, busy, dnd, invisible or a word of your own
/create group | channel | room id [members…]
/invite user…, /kick user…, /members   in the group
/join g/team | c/news | r/room         join a group, follow a channel, enter a room
/leave                 leave the group, channel or room
/bg, /fg               be in the background, come back
/call service/op {…}   any service, with its body
/quit                  leave; so does the end of the input
A line that begins with two slashes is sent with one. Times are UTC.";

/// How many messages `/history` shows when it is not told.
const HISTORY: u64 = 20;

/// A conversation or a room, as topics spell it: `u/bob`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(String);

impl Place {
    /// Reads `u/bob`, `g/team`, `c/news` or `r/room`.
    pub(super) fn parse(text: &str) -> Result<Place, String> {
        let known = text
            .split_once('/')
            .is_some_and(|(letter, id)| matches!(letter, "u" | "g" | "c" | "r") && is_id(id));
        match known {
            true => Ok(Place(text.to_owned())),
            false => Err(format!("`{text}` is none of u/user, g/group, c/channel, r/room")),
        }
    }

    /// As topics spell it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The letter of its kind.
    pub(super) fn letter(&self) -> &str {
        &self.0[..1]
    }

    /// What stands behind the letter.
    pub(super) fn id(&self) -> &str {
        &self.0[2..]
    }
}

/// A line, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    /// Nothing was typed.
    Nothing,
    /// A message.
    Say(String),
    /// A message that burns.
    Burn(u32, String),
    /// Talk somewhere else.
    To(Place),
    /// Something done to a message: `recall`, `edit` or `react`.
    Operate(&'static str, u64, String),
    /// A signal.
    Typing,
    /// The read cursor moves to what has been seen.
    Read,
    /// The last entries.
    History(u64),
    /// A service with its body.
    Call(String, Value),
    /// A service of the group one talks in; `group` is put into the body.
    OfGroup(&'static str, Value),
    /// Enter a room, join a group, follow a channel.
    Join(Place),
    /// The opposite of it.
    Leave,
    /// Presence: word and text.
    Status(String, String),
    /// `bg` or `fg`.
    Attention(&'static str),
    /// Show the orders.
    Help,
    /// Leave.
    Quit,
}

/// Understands a line.
pub(super) fn parse(line: &str) -> Result<Order, String> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() {
        return Ok(Order::Nothing);
    }
    let Some(order) = line.strip_prefix('/') else { return Ok(Order::Say(line.to_owned())) };
    if order.starts_with('/') {
        return Ok(Order::Say(order.to_owned()));
    }
    let (verb, rest) = cut(order);
    match verb {
        "to" => Ok(Order::To(Place::parse(rest)?)),
        "recall" => Ok(Order::Operate("recall", seq(rest)?, String::new())),
        "edit" => {
            let (number, text) = cut(rest);
            let text = needed(text, "/edit n text")?;
            Ok(Order::Operate("edit", seq(number)?, text))
        }
        "react" => {
            let (number, word) = cut(rest);
            Ok(Order::Operate("react", seq(number)?, word.to_owned()))
        }
        "burn" => {
            let (seconds, text) = cut(rest);
            let seconds = seconds.parse().map_err(|_| "/burn seconds text".to_owned())?;
            Ok(Order::Burn(seconds, needed(text, "/burn seconds text")?))
        }
        "typing" => Ok(Order::Typing),
        "read" => Ok(Order::Read),
        "history" if rest.is_empty() => Ok(Order::History(HISTORY)),
        "history" => Ok(Order::History(seq(rest)?)),
        "heads" => Ok(Order::Call("sync/heads".to_owned(), json!({}))),
        "who" => Ok(Order::Call("presence/watch".to_owned(), json!({ "users": users(rest)? }))),
        "invite" => Ok(Order::OfGroup("invite", json!({ "users": users(rest)? }))),
        "kick" => Ok(Order::OfGroup("kick", json!({ "users": users(rest)? }))),
        "members" => Ok(Order::OfGroup("members", json!({}))),
        "create" => create(rest),
        "join" => Ok(Order::Join(Place::parse(rest)?)),
        "leave" => Ok(Order::Leave),
        "status" => {
            let (show, text) = cut(rest);
            Ok(Order::Status(needed(show, "/status show [text]")?, text.to_owned()))
        }
        "bg" => Ok(Order::Attention("bg")),
        "fg" => Ok(Order::Attention("fg")),
        "call" => call(rest),
        "help" => Ok(Order::Help),
        "quit" => Ok(Order::Quit),
        _ => Err(format!("/{verb} is no order; /help shows them")),
    }
}

/// The first word, and what follows the blanks behind it.
fn cut(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    (word, rest.trim())
}

fn needed(text: &str, usage: &str) -> Result<String, String> {
    if text.is_empty() { Err(usage.to_owned()) } else { Ok(text.to_owned()) }
}

fn seq(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("`{text}` is no number of a message"))
}

fn users(text: &str) -> Result<Vec<String>, String> {
    let users: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    match users.iter().find(|user| !is_id(user)) {
        Some(user) => Err(format!("`{user}` cannot be a user")),
        None if users.is_empty() => Err("which users?".to_owned()),
        None => Ok(users),
    }
}

fn create(rest: &str) -> Result<Order, String> {
    let (kind, rest) = cut(rest);
    let (id, members) = cut(rest);
    let known = matches!(kind, "group" | "channel" | "room");
    if !known || !is_id(id) {
        return Err("/create group | channel | room id [members…]".to_owned());
    }
    let mut body = json!({ kind: id, "name": id });
    if !members.is_empty() {
        let field = match kind {
            "group" => "members",
            "channel" => "publishers",
            _ => return Err("a room has no members: whoever joins it is in it".to_owned()),
        };
        body[field] = json!(users(members)?);
    }
    Ok(Order::Call(format!("{kind}/create"), body))
}

fn call(rest: &str) -> Result<Order, String> {
    let (op, body) = cut(rest);
    if op.split('/').count() != 2 || !op.split('/').all(is_id) {
        return Err("/call service/op {…}".to_owned());
    }
    let body = if body.is_empty() { "{}" } else { body };
    let body = serde_json::from_str(body).map_err(|error| format!("no JSON: {error}"))?;
    Ok(Order::Call(op.to_owned(), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let place = |text: &str| Place::parse(text).unwrap();
        let cases = [
            ("", Order::Nothing),
            ("  \r\n", Order::Nothing),
            ("hello, Bob\n", Order::Say("hello, Bob".into())),
            ("//etc", Order::Say("/etc".into())),
            ("/to u/bob", Order::To(place("u/bob"))),
            ("/recall 7", Order::Operate("recall", 7, String::new())),
            ("/edit 7  two words ", Order::Operate("edit", 7, "two words".into())),
            ("/react 7 ❤", Order::Operate("react", 7, "❤".into())),
            ("/react 7", Order::Operate("react", 7, String::new())),
            ("/burn 10 hush", Order::Burn(10, "hush".into())),
            ("/history", Order::History(20)),
            ("/history 3", Order::History(3)),
            ("/heads", Order::Call("sync/heads".into(), json!({}))),
            ("/who a b", Order::Call("presence/watch".into(), json!({ "users": ["a", "b"] }))),
            (
                "/create group team bob eve",
                Order::Call(
                    "group/create".into(),
                    json!({ "group": "team", "name": "team", "members": ["bob", "eve"] }),
                ),
            ),
            (
                "/create channel news",
                Order::Call("channel/create".into(), json!({ "channel": "news", "name": "news" })),
            ),
            ("/invite eve", Order::OfGroup("invite", json!({ "users": ["eve"] }))),
            ("/join r/live", Order::Join(place("r/live"))),
            ("/status away at lunch", Order::Status("away".into(), "at lunch".into())),
            ("/status dnd", Order::Status("dnd".into(), String::new())),
            ("/call time/now", Order::Call("time/now".into(), json!({}))),
            (
                "/call conv/pin {\"conv\": \"u/bob\", \"on\": true}",
                Order::Call("conv/pin".into(), json!({ "conv": "u/bob", "on": true })),
            ),
            ("/quit", Order::Quit),
        ];
        for (line, order) in cases {
            assert_eq!(parse(line), Ok(order), "{line:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("/to bob", "u/user"),
            ("/to u/a+b", "u/user"),
            ("/to x/bob", "u/user"),
            ("/recall", "no number"),
            ("/recall 0", "no number"),
            ("/edit 7", "/edit n text"),
            ("/burn soon x", "/burn seconds text"),
            ("/who", "which users"),
            ("/who a/b", "cannot be a user"),
            ("/create club x", "/create group"),
            ("/create room x y", "no members"),
            ("/call now", "/call service/op"),
            ("/call a/b {", "no JSON"),
            ("/dance", "/help"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn the_help_names_every_order() {
        for verb in [
            "to", "heads", "history", "read", "recall", "edit", "react", "burn", "typing", "who",
            "status", "create", "invite", "kick", "members", "join", "leave", "bg", "fg", "call",
            "quit",
        ] {
            assert!(HELP.contains(&format!("/{verb}")), "{verb}");
        }
    }
}
