//! Filters against filters: whether one covers all of another, whether two have a topic in common.
//!
//! A topic is a filter without wildcards, so that "covers" is also "matches". Wildcards at the
//! first level never mean topics that begin with `$` ([MQTT-4.7.2-1]).

use smallvec::SmallVec;

/// One level of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level<'a> {
    /// This text.
    Text(&'a str),
    /// `+`: any one level.
    One,
    /// `#`: any levels, also none. Only at the end.
    Rest,
}

/// The levels of a filter. As many as topics usually have fit without allocation.
pub(super) type Levels<'a> = SmallVec<[Level<'a>; 12]>;

/// The levels of a filter that has been checked to be one.
pub(super) fn filter_levels(filter: &str) -> Levels<'_> {
    let level = |text| match text {
        "+" => Level::One,
        "#" => Level::Rest,
        text => Level::Text(text),
    };
    filter.split('/').map(level).collect()
}

/// The levels of a topic, where wildcards are nothing special.
pub(super) fn topic_levels(topic: &str) -> Levels<'_> {
    topic.split('/').map(Level::Text).collect()
}

/// Whether the text is a filter: not empty, `#` only as the last level, `+` only as a whole level.
pub(super) fn is_filter(text: &str) -> bool {
    let mut levels = text.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let fits = match level {
            "+" => true,
            "#" => last,
            level => !level.contains(['+', '#', '\0']),
        };
        if !fits {
            return false;
        }
    }
    !text.is_empty()
}

/// Whether one filter begins with a wildcard and the other with `$`: they have no topic in common.
fn parted_by_dollar(one: &[Level<'_>], other: &[Level<'_>]) -> bool {
    let wild = |levels: &[Level<'_>]| matches!(levels.first(), Some(Level::One | Level::Rest));
    let dollar =
        |levels: &[Level<'_>]| matches!(levels.first(), Some(Level::Text(t)) if t.starts_with('$'));
    (wild(one) && dollar(other)) || (dollar(one) && wild(other))
}

/// Whether every topic that `inner` matches is matched by `outer`.
pub(super) fn covers(outer: &[Level<'_>], inner: &[Level<'_>]) -> bool {
    // A topic has at least one level: at the start, and only there, `#` and `+/#` are the same.
    if inner == [Level::Rest] {
        return matches!(outer, [Level::Rest] | [Level::One, Level::Rest]);
    }
    if parted_by_dollar(outer, inner) {
        return false;
    }
    let (mut outer, mut inner) = (outer, inner);
    loop {
        match (outer, inner) {
            ([Level::Rest, ..], _) | ([], []) => return true,
            (_, [Level::Rest, ..]) | ([], _) | (_, []) => return false,
            ([Level::One, outer_rest @ ..], [_, inner_rest @ ..]) => {
                (outer, inner) = (outer_rest, inner_rest);
            }
            ([own, outer_rest @ ..], [other, inner_rest @ ..]) => {
                if own != other {
                    return false;
                }
                (outer, inner) = (outer_rest, inner_rest);
            }
        }
    }
}

/// Whether there is a topic that both match.
pub(super) fn overlaps(one: &[Level<'_>], other: &[Level<'_>]) -> bool {
    if parted_by_dollar(one, other) {
        return false;
    }
    let (mut one, mut other) = (one, other);
    loop {
        match (one, other) {
            ([Level::Rest, ..], _) | (_, [Level::Rest, ..]) | ([], []) => return true,
            ([], _) | (_, []) => return false,
            ([Level::Text(own), ..], [Level::Text(its), ..]) if own != its => return false,
            ([_, one_rest @ ..], [_, other_rest @ ..]) => (one, other) = (one_rest, other_rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn filters_are_told_from_other_texts() {
        for text in ["a", "a/b", "/", "+", "#", "a/+/b", "a/#", "+/+/#", "$SYS/#", "a b/ü", "//"] {
            assert!(is_filter(text), "{text}");
        }
        for text in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+", "a\0"] {
            assert!(!is_filter(text), "{text}");
        }
    }

    #[test]
    fn covering() {
        let cases = [
            ("#", "a/b", true),
            ("#", "#", true),
            ("#", "+/a", true),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("$SYS/#", "$SYS/#", true),
            ("#", "$SYS/#", false),
            ("+/#", "#", true),
            ("+/+/#", "#", false),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/#", "a/b/+", true),
            ("a/+", "a/#", false),
            ("a/+/#", "a/#", false),
            ("a/+", "a/b", true),
            ("a/+", "a/", true),
            ("a/b", "a/+", false),
            ("a/+", "a", false),
            ("+", "/", false),
            ("+/+", "/", true),
            ("a/+/c", "a/+/c", true),
            ("a/b/#", "a/+/#", false),
        ];
        for (outer, inner, expected) in cases {
            let result = covers(&filter_levels(outer), &filter_levels(inner));
            assert_eq!(result, expected, "{outer} covers {inner}");
        }
    }

    /// Every topic of up to five levels over an alphabet with more words than the filters use, so
    /// that what holds for all of these topics holds for all topics.
    fn all_topics() -> Vec<String> {
        let mut topics: Vec<String> = ["a", "b", "", "x", "$s"].map(str::to_owned).to_vec();
        let mut from = 0;
        for _ in 1..5 {
            let to = topics.len();
            for index in from..to {
                for word in ["a", "b", "", "x", "$s"] {
                    topics.push(format!("{}/{word}", topics[index]));
                }
            }
            from = to;
        }
        topics
    }

    /// Straight from the standard, level by level.
    fn matches(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => matches(filter, topic),
            ([own, filter @ ..], [word, topic @ ..]) => own == word && matches(filter, topic),
            _ => false,
        }
    }

    fn filter_matches(filter: &str, topic: &str) -> bool {
        let parted = topic.starts_with('$') && filter.starts_with(['+', '#']);
        let filter: Vec<&str> = filter.split('/').collect();
        let topic: Vec<&str> = topic.split('/').collect();
        !parted && matches(&filter, &topic)
    }

    fn any_filter() -> impl Strategy<Value = String> {
        let words = select(vec!["a", "b", "", "+", "+", "$s"]);
        (proptest::collection::vec(words, 0..4), any::<bool>())
            .prop_map(|(mut words, rest)| {
                if rest || words.is_empty() {
                    words.push("#");
                }
                words.join("/")
            })
            .prop_filter("not empty", |filter| !filter.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn covering_and_overlapping_agree_with_all_topics(f in any_filter(), g in any_filter()) {
            let topics = all_topics();
            let (mut covered, mut common) = (true, false);
            for topic in &topics {
                let (by_f, by_g) = (filter_matches(&f, topic), filter_matches(&g, topic));
                covered &= by_f || !by_g;
                common |= by_f && by_g;
                prop_assert_eq!(covers(&filter_levels(&f), &topic_levels(topic)), by_f);
            }
            let (f_levels, g_levels) = (filter_levels(&f), filter_levels(&g));
            prop_assert_eq!(covers(&f_levels, &g_levels), covered);
            prop_assert_eq!(overlaps(&f_levels, &g_levels), common);
        }
    }
}
