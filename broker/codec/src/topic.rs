//! The syntax of topic names and topic filters (sections 4.7 and 4.8.2), and the rule by which a
//! filter matches a name.
//!
//! [`topic_matches`] is the rule spelled out, for tests and for single questions; whoever has many
//! filters keeps an index of them elsewhere.

use crate::reader::has_any;

/// The longest topic name or filter in bytes [MQTT-4.7.3-3].
pub const MAX_TOPIC_LEN: usize = 65_535;

/// The first level of a shared subscription's filter.
const SHARE: &str = "$share";

/// What is wrong with a topic name or a topic filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, thiserror::Error)]
pub enum TopicFault {
    /// No character at all.
    #[error("topic names and filters have at least one character [MQTT-4.7.3-1]")]
    Empty,
    /// More than [`MAX_TOPIC_LEN`] bytes.
    #[error("topic names and filters have at most 65535 bytes [MQTT-4.7.3-3]")]
    TooLong,
    /// U+0000 in it.
    #[error("topic names and filters do not contain U+0000 [MQTT-4.7.3-2]")]
    NullCharacter,
    /// `+` or `#` in a topic name.
    #[error("a topic name does not contain the wildcards + and # [MQTT-4.7.0-1]")]
    WildcardInName,
    /// `#` beside other characters, or not in the last level.
    #[error("the wildcard # stands alone in the last level [MQTT-4.7.1-1]")]
    MultiLevelWildcard,
    /// `+` beside other characters.
    #[error("the wildcard + stands alone in its level [MQTT-4.7.1-2]")]
    SingleLevelWildcard,
    /// A share name that is empty or contains a wildcard.
    #[error("a share name has at least one character and no wildcard [MQTT-4.8.2-1]")]
    ShareName,
    /// Nothing after the share name.
    #[error("a share name is followed by a topic filter [MQTT-4.8.2-2]")]
    SharedFilterMissing,
}

/// Checks a topic name.
///
/// # Errors
///
/// When it is empty, too long, or contains U+0000 or a wildcard.
pub fn check_topic(topic: &str) -> Result<(), TopicFault> {
    check_text(topic)?;
    if has_wildcard(topic) { Err(TopicFault::WildcardInName) } else { Ok(()) }
}

/// Checks a topic filter, that of a shared subscription included.
///
/// # Errors
///
/// When it is empty, too long, contains U+0000, or has a wildcard in the wrong place.
pub fn check_filter(filter: &str) -> Result<(), TopicFault> {
    check_text(filter)?;
    match SharedFilter::parse(filter) {
        Some(shared) => shared.map(drop),
        None => check_wildcards(filter),
    }
}

fn check_text(text: &str) -> Result<(), TopicFault> {
    if text.is_empty() {
        Err(TopicFault::Empty)
    } else if text.len() > MAX_TOPIC_LEN {
        Err(TopicFault::TooLong)
    } else if has_any(text.as_bytes(), |byte| byte == 0) {
        Err(TopicFault::NullCharacter)
    } else {
        Ok(())
    }
}

/// A wildcard is the whole of its level, and `#` the last one ([MQTT-4.7.1-1], [MQTT-4.7.1-2]).
fn check_wildcards(filter: &str) -> Result<(), TopicFault> {
    let mut levels = levels(filter);
    while let Some(level) = levels.next() {
        match level {
            "+" => {}
            "#" if levels.next().is_none() => return Ok(()),
            level if level.contains('#') => return Err(TopicFault::MultiLevelWildcard),
            level if level.contains('+') => return Err(TopicFault::SingleLevelWildcard),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the text contains `+` or `#`.
#[inline]
pub(crate) fn has_wildcard(text: &str) -> bool {
    has_any(text.as_bytes(), |byte| byte == b'+' || byte == b'#')
}

/// Whether a filter is that of a shared subscription.
pub(crate) fn is_shared(filter: &str) -> bool {
    filter.strip_prefix(SHARE).is_some_and(|rest| rest.starts_with('/'))
}

/// The two parts of the filter of a shared subscription, `$share/{group}/{filter}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct SharedFilter<'a> {
    /// The share name.
    pub group: &'a str,
    /// The topic filter its members share.
    pub filter: &'a str,
}

impl<'a> SharedFilter<'a> {
    /// Takes the filter apart; `None` when it is not that of a shared subscription.
    ///
    /// # Errors
    ///
    /// When the share name is empty or contains a wildcard [MQTT-4.8.2-1], when no filter follows
    /// [MQTT-4.8.2-2], or when that filter is wrong.
    pub fn parse(filter: &'a str) -> Option<Result<SharedFilter<'a>, TopicFault>> {
        let rest = filter.strip_prefix(SHARE)?.strip_prefix('/')?;
        Some(SharedFilter::parse_rest(rest))
    }

    fn parse_rest(rest: &'a str) -> Result<SharedFilter<'a>, TopicFault> {
        let (group, filter) = match rest.split_once('/') {
            Some((group, filter)) => (group, Some(filter)),
            None => (rest, None),
        };
        if group.is_empty() || has_wildcard(group) {
            return Err(TopicFault::ShareName);
        }
        let filter = filter.filter(|filter| !filter.is_empty());
        let filter = filter.ok_or(TopicFault::SharedFilterMissing)?;
        check_wildcards(filter)?;
        Ok(SharedFilter { group, filter })
    }
}

/// The levels of a topic name or filter. An empty level counts: `/a` has two.
pub fn levels(topic: &str) -> impl Iterator<Item = &str> {
    topic.split('/')
}

/// Whether a valid filter (without the `$share/{group}/` of a shared one) matches a topic name.
///
/// "The Server MUST NOT match Topic Filters starting with a wildcard character (# or +) with Topic
/// Names beginning with a $ character" [MQTT-4.7.2-1].
pub fn topic_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = levels(topic);
    for level in levels(filter) {
        match (level, names.next()) {
            // It includes the parent level: "sport/#" also matches "sport" (4.7.1.2).
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for topic in ["a", "/", "a//b", "$SYS/x", " ", "im/g/42", "ü/\u{FFFF}"] {
            assert_eq!(check_topic(topic), Ok(()), "{topic:?}");
        }
        let wrong = [
            ("", TopicFault::Empty),
            ("a/+", TopicFault::WildcardInName),
            ("a#", TopicFault::WildcardInName),
            ("a\0", TopicFault::NullCharacter),
        ];
        for (topic, fault) in wrong {
            assert_eq!(check_topic(topic), Err(fault), "{topic:?}");
        }
        assert_eq!(check_topic(&"a".repeat(65_535)), Ok(()));
        assert_eq!(check_topic(&"a".repeat(65_536)), Err(TopicFault::TooLong));
    }

    #[test]
    fn filters_are_checked() {
        let right = [
            "#",
            "+",
            "a/#",
            "+/+",
            "+/tennis/#",
            "sport/+/player1",
            "/+",
            "/",
            "$SYS/#",
            "a//+",
            "$share/g/a",
            "$share/g/#",
            "$share/g//",
            "$share/g/$SYS/+",
            "$shared/a",
            "$share",
        ];
        for filter in right {
            assert_eq!(check_filter(filter), Ok(()), "{filter:?}");
        }
        let wrong = [
            ("", TopicFault::Empty),
            ("a\0", TopicFault::NullCharacter),
            ("a#", TopicFault::MultiLevelWildcard),
            ("a/#/b", TopicFault::MultiLevelWildcard),
            ("#/", TopicFault::MultiLevelWildcard),
            ("##", TopicFault::MultiLevelWildcard),
            ("+#", TopicFault::MultiLevelWildcard),
            ("a+", TopicFault::SingleLevelWildcard),
            ("a/+b/c", TopicFault::SingleLevelWildcard),
            ("++", TopicFault::SingleLevelWildcard),
            ("$share/", TopicFault::ShareName),
            ("$share//a", TopicFault::ShareName),
            ("$share/g+/a", TopicFault::ShareName),
            ("$share/#/a", TopicFault::ShareName),
            ("$share/g", TopicFault::SharedFilterMissing),
            ("$share/g/", TopicFault::SharedFilterMissing),
            ("$share/g/a#", TopicFault::MultiLevelWildcard),
        ];
        for (filter, fault) in wrong {
            assert_eq!(check_filter(filter), Err(fault), "{filter:?}");
        }
    }

    #[test]
    fn shared_filters_come_apart() {
        let parts = SharedFilter { group: "g", filter: "a/+/b" };
        assert_eq!(SharedFilter::parse("$share/g/a/+/b"), Some(Ok(parts)));
        assert_eq!(SharedFilter::parse("a/b"), None);
        assert_eq!(SharedFilter::parse("$share"), None);
        assert!(is_shared("$share/g") && !is_shared("$share") && !is_shared("$shared/g"));
    }

    #[test]
    fn filters_match_as_section_4_7_says() {
        let table = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "sport", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/uptime", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/uptime", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/b", "a/b", true),
            ("a/b", "a/B", false),
            ("a", "a/", false),
            ("a/b", "a", false),
            ("sport/#", "sports", false),
        ];
        for (filter, topic, expected) in table {
            assert_eq!(topic_matches(filter, topic), expected, "{filter} / {topic}");
        }
    }
}
