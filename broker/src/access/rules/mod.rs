//! Who may publish and subscribe where: the rules file.
//!
//! ```text
//! # every user who logged in: %u is the user, %c the client identifier
//! user *
//!   allow both      inbox/%u/#
//!   deny  publish   news/#
//! user alice
//!   allow publish   news/#
//! anonymous
//!   allow subscribe news/#
//! ```
//!
//! The file is read from top to bottom. Of the lines under headings that fit the client, the first
//! that fits action and topic decides; what fits none is denied. (A comment has a line of its own:
//! `#` is a wildcard too.)
//!
//! **Subscribing.** A filter is allowed when one `allow` covers all of it and no `deny` before that
//! line touches any of it. That is stricter than judging each topic: a filter that several
//! `allow` lines cover only together is refused, and so is one of which a small part is denied.
//! What a client received then never depends on a second check at delivery.
//!
//! **`$SYS`.** Whoever logged in may read `$SYS/#` unless a line denies it; anonymous clients need
//! a line that allows it. Nobody may publish there: the topics are the broker's.
//!
//! Not here: the `im/` tree, where the profile alone decides and these rules are not asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use smallvec::SmallVec;
use thiserror::Error;

use super::Identity;
use super::filter::{Level, Levels, covers, filter_levels, is_filter, overlaps, topic_levels};

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Publish to a topic; also by its will.
    Publish,
    /// Subscribe to a filter.
    Subscribe,
}

/// A wrong line.
#[derive(Debug, Error)]
#[error("{}:{line}: {fault}", file.display())]
pub struct RuleError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: RuleFault,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleFault {
    /// Neither heading nor rule.
    #[error("expected `user NAME`, `user *`, `anonymous`, `allow …` or `deny …`, found `{0}`")]
    Line(String),
    /// A rule before the first heading.
    #[error("whom does this concern? expected `user NAME`, `user *` or `anonymous` before it")]
    NoHeading,
    /// A heading without a name.
    #[error("expected a user name or * after `user`")]
    NoUser,
    /// Something else than an action.
    #[error("expected `publish`, `subscribe` or `both`, found `{0}`")]
    Action(String),
    /// No filter, or not one.
    #[error("`{0}` is no topic filter")]
    Filter(String),
    /// A shared subscription.
    #[error(
        "write the filter without $share and group: a shared subscription needs the same \
             permission as a plain one"
    )]
    Shared,
    /// `%u` or `%c` beside other text.
    #[error("%u and %c stand for a whole level, found `{0}`")]
    PartOfLevel(String),
    /// `%u` for clients that have no user.
    #[error("anonymous clients have no user that %u could stand for")]
    AnonymousUser,
}

/// One level of a rule's filter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Text(Box<str>),
    One,
    Rest,
    User,
    ClientId,
}

#[derive(Clone, Debug)]
struct Rule {
    allow: bool,
    publish: bool,
    subscribe: bool,
    filter: Box<[Pattern]>,
}

/// Whom the lines under a heading concern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heading {
    User(Box<str>),
    EveryUser,
    Anonymous,
}

/// The rules of one file.
#[derive(Debug)]
pub struct Rules {
    /// Those of every list below, in the order of the file; lists hold places in it.
    rules: Vec<Rule>,
    /// For users with a heading of their own: their rules and those of every user, in order.
    named: HashMap<Box<str>, Box<[u32]>, foldhash::fast::RandomState>,
    every_user: Box<[u32]>,
    anonymous: Box<[u32]>,
    /// What holds when no rule fits.
    otherwise: bool,
}

impl Rules {
    /// Everything is allowed but to publish to `$SYS`: a broker without users and rules.
    pub fn allow_all() -> Rules {
        Rules { otherwise: true, ..Rules::deny_all() }
    }

    /// Nothing is allowed but to read `$SYS`: a broker with users and without rules.
    pub fn deny_all() -> Rules {
        Rules {
            rules: Vec::new(),
            named: HashMap::default(),
            every_user: Box::default(),
            anonymous: Box::default(),
            otherwise: false,
        }
    }

    /// The rules of a text; `file` is its name in errors.
    ///
    /// # Errors
    /// The first wrong line.
    pub fn parse(text: &str, file: &Path) -> Result<Rules, RuleError> {
        let mut heading = None;
        let mut lines: Vec<(Heading, Rule)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let fault = |fault| RuleError { file: file.to_owned(), line: index + 1, fault };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match parse_line(line).map_err(fault)? {
                Line::Heading(new) => heading = Some(new),
                Line::Rule(rule) => {
                    let whose = heading.clone().ok_or_else(|| fault(RuleFault::NoHeading))?;
                    if whose == Heading::Anonymous && rule.filter.contains(&Pattern::User) {
                        return Err(fault(RuleFault::AnonymousUser));
                    }
                    lines.push((whose, rule));
                }
            }
        }
        Ok(Rules::of(lines))
    }

    fn of(lines: Vec<(Heading, Rule)>) -> Rules {
        let places = |wanted: &dyn Fn(&Heading) -> bool| -> Box<[u32]> {
            // A file that can be read has fewer lines than this can count.
            let numbered = (0_u32..).zip(&lines);
            numbered.filter(|(_, (whose, _))| wanted(whose)).map(|(place, _)| place).collect()
        };
        let every_user = places(&|whose| *whose == Heading::EveryUser);
        let anonymous = places(&|whose| *whose == Heading::Anonymous);
        let mut own: HashMap<Box<str>, Vec<u32>, foldhash::fast::RandomState> = HashMap::default();
        for (place, (whose, _)) in (0_u32..).zip(&lines) {
            if let Heading::User(name) = whose {
                own.entry(name.clone()).or_default().push(place);
            }
        }
        let named = own.into_iter().map(|(name, mut list)| {
            list.extend_from_slice(&every_user);
            list.sort_unstable();
            (name, list.into_boxed_slice())
        });
        Rules {
            named: named.collect(),
            every_user,
            anonymous,
            rules: lines.into_iter().map(|(_, rule)| rule).collect(),
            otherwise: false,
        }
    }

    /// Whether the client may publish to the topic or subscribe to the filter (a shared one with
    /// its `$share/group/` or without). Topic and filter have been checked to be ones.
    pub fn allows(&self, who: &Identity, client_id: &str, action: Action, topic: &str) -> bool {
        let topic = match action {
            Action::Publish => topic,
            Action::Subscribe => without_share(topic),
        };
        let is_sys = topic == "$SYS" || topic.starts_with("$SYS/");
        if is_sys && action == Action::Publish {
            return false;
        }
        let name = who.login_name();
        let wanted = match action {
            Action::Publish => topic_levels(topic),
            Action::Subscribe => filter_levels(topic),
        };
        for place in self.places_for(who, &name) {
            let rule = &self.rules[*place as usize];
            let concerned = match action {
                Action::Publish => rule.publish,
                Action::Subscribe => rule.subscribe,
            };
            if concerned && rule.decides(&name, client_id, &wanted) {
                return rule.allow;
            }
        }
        self.otherwise || (is_sys && !who.is_anonymous())
    }

    fn places_for(&self, who: &Identity, name: &str) -> &[u32] {
        if who.is_anonymous() {
            &self.anonymous
        } else {
            self.named.get(name).unwrap_or(&self.every_user)
        }
    }
}

impl Rule {
    /// Whether this rule is the one that decides about these levels.
    fn decides(&self, user: &str, client_id: &str, wanted: &[Level<'_>]) -> bool {
        let Some(filter) = self.filter_for(user, client_id) else { return false };
        if self.allow { covers(&filter, wanted) } else { overlaps(&filter, wanted) }
    }

    /// The rule's filter for this client. A name that could be mistaken for more than one level
    /// or for a `$` topic is never put in: such a user is allowed nothing by `%u`, and a `deny`
    /// then concerns what it would concern for anybody.
    fn filter_for<'a>(&'a self, user: &'a str, client_id: &'a str) -> Option<Levels<'a>> {
        let named = |name: &'a str| match (is_one_level(name), self.allow) {
            (true, _) => Some(Level::Text(name)),
            (false, true) => None,
            (false, false) => Some(Level::One),
        };
        let mut levels: Levels<'a> = SmallVec::with_capacity(self.filter.len());
        for pattern in &self.filter {
            levels.push(match pattern {
                Pattern::Text(text) => Level::Text(text),
                Pattern::One => Level::One,
                Pattern::Rest => Level::Rest,
                Pattern::User => named(user)?,
                Pattern::ClientId => named(client_id)?,
            });
        }
        Some(levels)
    }
}

fn is_one_level(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['/', '+', '#', '\0'])
}

/// The filter of a shared subscription, or the filter itself.
fn without_share(filter: &str) -> &str {
    let shared = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
    shared.map_or(filter, |(_, filter)| filter)
}

enum Line {
    Heading(Heading),
    Rule(Rule),
}

fn parse_line(line: &str) -> Result<Line, RuleFault> {
    let (word, rest) = split_word(line);
    match word {
        "user" if rest.is_empty() => Err(RuleFault::NoUser),
        "user" if rest == "*" => Ok(Line::Heading(Heading::EveryUser)),
        "user" => Ok(Line::Heading(Heading::User(rest.into()))),
        "anonymous" if rest.is_empty() => Ok(Line::Heading(Heading::Anonymous)),
        "allow" | "deny" => {
            let (action, filter) = split_word(rest);
            let (publish, subscribe) = match action {
                "publish" => (true, false),
                "subscribe" => (false, true),
                "both" => (true, true),
                other => return Err(RuleFault::Action(other.to_owned())),
            };
            let filter = parse_filter(filter)?;
            Ok(Line::Rule(Rule { allow: word == "allow", publish, subscribe, filter }))
        }
        _ => Err(RuleFault::Line(line.to_owned())),
    }
}

/// The first word and the rest, without the blanks between them.
fn split_word(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim())
}

fn parse_filter(text: &str) -> Result<Box<[Pattern]>, RuleFault> {
    if !is_filter(text) {
        return Err(RuleFault::Filter(text.to_owned()));
    }
    if text.split('/').next() == Some("$share") {
        return Err(RuleFault::Shared);
    }
    let pattern = |level: &str| match level {
        "+" => Ok(Pattern::One),
        "#" => Ok(Pattern::Rest),
        "%u" => Ok(Pattern::User),
        "%c" => Ok(Pattern::ClientId),
        text if text.contains("%u") || text.contains("%c") => {
            Err(RuleFault::PartOfLevel(text.to_owned()))
        }
        text => Ok(Pattern::Text(text.into())),
    };
    text.split('/').map(pattern).collect()
}

#[cfg(test)]
mod tests;
