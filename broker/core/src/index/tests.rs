use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

/// The standard's rules, as plainly as they can be written.
fn is_match(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) => true,
            ([], []) => true,
            ([f, filter @ ..], [t, topic @ ..]) => (*f == "+" || f == t) && levels(filter, topic),
            _ => false,
        }
    }
    let reserved = topic.starts_with('$') || topic == "im" || topic.starts_with("im/");
    if reserved && filter.starts_with(['+', '#']) {
        return false;
    }
    let filter: Vec<_> = filter.split('/').collect();
    let topic: Vec<_> = topic.split('/').collect();
    levels(&filter, &topic)
}

/// The slow index: all subscriptions in a row.
#[derive(Default)]
struct Model(Vec<(String, SubscriberId, u32)>);

impl Model {
    fn insert(&mut self, filter: &str, subscriber: SubscriberId, value: u32) -> Option<u32> {
        let replaced = self.remove(filter, subscriber);
        self.0.push((filter.to_owned(), subscriber, value));
        replaced
    }

    fn remove(&mut self, filter: &str, subscriber: SubscriberId) -> Option<u32> {
        let position = self.0.iter().position(|(f, s, _)| f == filter && *s == subscriber)?;
        Some(self.0.swap_remove(position).2)
    }

    fn matches(&self, topic: &str) -> Vec<(SubscriberId, u32)> {
        let matching = self.0.iter().filter(|(filter, ..)| is_match(filter, topic));
        sorted(matching.map(|(_, subscriber, value)| (*subscriber, *value)).collect())
    }

    fn filters(&self) -> u64 {
        let mut filters: Vec<_> = self.0.iter().map(|(filter, ..)| filter).collect();
        filters.sort_unstable();
        filters.dedup();
        filters.len() as u64
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list
}

fn index<S>() -> Index<S> {
    Index::new().reserve_first_level("im")
}

fn stamp<S>(index: &Index<S>, topic: &str) -> Stamp {
    index.stamp(Index::<S>::hash(topic))
}

fn matches<S: Copy + Ord>(index: &Index<S>, topic: &str) -> Vec<(SubscriberId, S)> {
    let mut found = Vec::new();
    index.matches(topic, |subscriber, value| found.push((subscriber, *value)));
    sorted(found)
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "c", "im", "$s", "ä", "imp"])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has at least one character [MQTT-4.7.3-1]", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if multi {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter has at least one character [MQTT-4.7.3-1]", |f| !f.is_empty())
}

#[derive(Clone, Debug)]
enum Operation {
    Insert(String, SubscriberId, u32),
    Remove(String, SubscriberId),
    /// Removes the subscription at this position of the model, so that removals hit.
    RemoveKnown(prop::sample::Index),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (filter(), 0..6u64, any::<u32>()).prop_map(|(f, s, v)| Operation::Insert(f, s, v)),
        1 => (topic(), 0..6u64, any::<u32>()).prop_map(|(f, s, v)| Operation::Insert(f, s, v)),
        1 => (filter(), 0..6u64).prop_map(|(f, s)| Operation::Remove(f, s)),
        3 => any::<prop::sample::Index>().prop_map(Operation::RemoveKnown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model_and_stamps_are_never_stale(
        operations in prop::collection::vec(operation(), 1..60),
        topics in prop::collection::vec(topic(), 1..8),
    ) {
        let index = index();
        let mut model = Model::default();
        let mut plans = HashMap::new();
        for operation in operations {
            let (filter, subscriber, value) = match operation {
                Operation::Insert(filter, subscriber, value) => (filter, subscriber, Some(value)),
                Operation::Remove(filter, subscriber) => (filter, subscriber, None),
                Operation::RemoveKnown(_) if model.0.is_empty() => continue,
                Operation::RemoveKnown(at) => {
                    let (filter, subscriber, _) = at.get(&model.0).clone();
                    (filter, subscriber, None)
                }
            };
            let (done, expected) = match value {
                Some(value) => (
                    index.insert(&filter, subscriber, value),
                    model.insert(&filter, subscriber, value),
                ),
                None => (index.remove(&filter, subscriber), model.remove(&filter, subscriber)),
            };
            prop_assert_eq!(done, expected);
            prop_assert_eq!(index.subscriptions(), model.0.len() as u64);
            prop_assert_eq!(index.filters(), model.filters());
            for topic in &topics {
                let now = stamp(&index, topic);
                let found = matches(&index, topic);
                prop_assert_eq!(&found, &model.matches(topic), "topic {}", topic);
                if let Some((then, planned)) = plans.insert(topic.clone(), (now, found.clone()))
                    && then == now
                {
                    prop_assert_eq!(planned, found, "stale plan of {}", topic);
                }
            }
        }
        for (filter, subscriber, value) in model.0 {
            prop_assert_eq!(index.remove(&filter, subscriber), Some(value));
        }
        prop_assert_eq!((index.subscriptions(), index.filters()), (0, 0));
        prop_assert!(index.wildcards.is_pruned());
    }
}

#[test]
fn wildcards_match_as_the_standard_says() {
    let yes = [
        ("a/b", "a/b"),
        ("a/#", "a"),
        ("a/#", "a/"),
        ("a/#", "a/b/c"),
        ("a/b/#", "a/b"),
        ("a/b/c/#", "a/b/c"),
        ("#", "a"),
        ("#", "/"),
        ("#", "//"),
        ("+", "a"),
        ("+/+", "/a"),
        ("+/+", "/"),
        ("/+", "/a"),
        ("/+", "/"),
        ("/#", "/"),
        ("//#", "/"),
        ("//#", "//"),
        ("+/+/+", "//"),
        ("a/+/b", "a//b"),
        ("a/+", "a/"),
        ("+/a/#", "/a"),
        ("a/+/#", "a/b"),
        ("+/#", "a"),
        ("$SYS/#", "$SYS/broker/load"),
        ("$SYS/+/load", "$SYS/broker/load"),
        ("$SYS/broker/+", "$SYS/broker/load"),
        ("im/+", "im/x"),
        ("im/#", "im"),
        ("im/x", "im/x"),
        ("im", "im"),
        ("#", "imp/x"),
        ("+/x", "a$/x"),
        ("a/#", "a/$b"),
        ("+/$b", "a/$b"),
    ];
    let no = [
        ("a", "a/"),
        ("a", "A"),
        ("a/#", "ab"),
        ("a/b/#", "a"),
        ("a/b/#", "a/bc"),
        ("a/+", "a"),
        ("a/+", "a/b/c"),
        ("+", "/a"),
        ("+", "a/b"),
        ("+/+", "a"),
        ("/", "//"),
        ("/+", "a"),
        ("//#", "/a"),
        ("a/+/#", "a"),
        ("#", "$SYS/broker"),
        ("+/broker", "$SYS/broker"),
        ("+/#", "$SYS"),
        ("#", "$"),
        ("+", "im"),
        ("#", "im"),
        ("#", "im/x"),
        ("+/x", "im/x"),
        ("+/#", "im/x/y"),
    ];
    for (pairs, expected) in [(&yes[..], true), (&no[..], false)] {
        for (filter, topic) in pairs {
            let index = index();
            index.insert(filter, 7, ());
            assert_eq!(matches(&index, topic) == [(7, ())], expected, "{filter} on {topic}");
            assert_eq!(is_match(filter, topic), expected, "the model: {filter} on {topic}");
        }
    }
}

#[test]
fn no_level_is_reserved_unless_asked_for() {
    let index = Index::new();
    index.insert("#", 1, ());
    assert_eq!(matches(&index, "im/x").len(), 1);
    assert_eq!(matches(&index, "$x").len(), 0);
}

#[test]
fn overlapping_filters_are_given_one_by_one_and_exact_ones_first() {
    let index = index();
    let filters = ["#", "a/#", "a/b/#", "a/+", "a/b", "+/b", "a/b/+"];
    for (value, filter) in filters.iter().enumerate() {
        index.insert(filter, 1, value);
    }
    let mut found = Vec::new();
    index.matches("a/b", |_, &value| found.push(value));
    assert_eq!(found.first(), Some(&4));
    assert_eq!(sorted(found), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_big_group_is_joined_and_left_by_all() {
    for filter in ["group/1", "group/1/#", "group/+", "#"] {
        let index = index();
        for subscriber in 0..100_000u64 {
            assert_eq!(index.insert(filter, subscriber, subscriber), None);
        }
        assert_eq!((index.subscriptions(), index.filters()), (100_000, 1));
        let expected: Vec<_> = (0..100_000).map(|id| (id, id)).collect();
        assert_eq!(matches(&index, "group/1"), expected);
        for subscriber in (0..100_000).rev().step_by(2).chain((0..100_000).step_by(2)) {
            assert_eq!(index.remove(filter, subscriber), Some(subscriber));
        }
        assert_eq!((index.subscriptions(), index.filters()), (0, 0));
        assert!(matches(&index, "group/1").is_empty());
        assert!(index.wildcards.is_pruned());
    }
}

#[test]
fn the_stamp_follows_every_change_that_concerns_the_topic() {
    let index = index();
    let topic = "a/b/c";
    for filter in ["a/b/c", "a/b/+", "a/b/#", "a/b/c/#", "a/+/c", "a/#", "+/b/c", "#"] {
        let mut last = stamp(&index, topic);
        let mut expect_change = |change: &str, expected: bool| {
            let now = stamp(&index, topic);
            assert_eq!(now != last, expected, "{change} of {filter}");
            last = now;
        };
        index.insert(filter, 1, 1);
        expect_change("insertion", true);
        index.insert(filter, 1, 2);
        expect_change("replacement", true);
        index.insert(filter, 2, 1);
        expect_change("second insertion", true);
        index.remove(filter, 3);
        expect_change("removal of nobody", false);
        index.remove(filter, 1);
        expect_change("removal", true);
        index.remove(filter, 2);
        expect_change("last removal", true);
        index.remove(filter, 2);
        expect_change("removal from nothing", false);
    }
}

#[test]
fn the_stamp_rests_when_unrelated_filters_change() {
    let index = index();
    let topic = "users/1/in";
    index.insert(topic, 1, ());
    let before = stamp(&index, topic);
    // Others share a generation by accident of the hash, so the changes are chosen by it.
    let same_bucket =
        |other: &str| hash::bucket(hash::of_topic(other)) == hash::bucket(hash::of_topic(topic));
    let exact = (2..2000).map(|user| format!("users/{user}/in")).filter(|f| !same_bucket(f));
    let same_pair = |other: &str| {
        hash::level_pair(hash::of_topic(other)) == hash::level_pair(hash::of_topic(topic))
    };
    let pair =
        (2..2000).map(|user| format!("users/{user}")).filter(|f| !same_pair(f)).map(|f| f + "/#");
    let same_first = |other: &str| {
        hash::first_level(hash::of_topic(other)) == hash::first_level(hash::of_topic(topic))
    };
    let first = (0..2000).map(|n| n.to_string()).filter(|f| !same_first(f)).map(|f| f + "/+");
    let mut unrelated = 0;
    for filter in exact.chain(pair).chain(first) {
        index.insert(&filter, 2, ());
        index.remove(&filter, 2);
        unrelated += 1;
    }
    assert!(unrelated > 5900, "only {unrelated} changes were unrelated");
    assert_eq!(stamp(&index, topic), before);
}

/// Writers replace a value and then announce it; readers follow the documented protocol and must
/// never use a plan older than what was announced before they read the stamp.
#[test]
fn no_reader_uses_a_stale_plan() {
    const WRITES: u64 = 20_000;
    let filters = ["a/b/c", "a/b/+", "a/b/c/#", "a/+/c", "#"];
    let index = Arc::new(index::<u64>());
    let announced: Arc<[AtomicU64]> = filters.iter().map(|_| AtomicU64::new(0)).collect();
    let ended = Arc::new(AtomicBool::new(false));
    for (subscriber, filter) in filters.iter().enumerate() {
        index.insert(filter, subscriber as u64, 0);
    }
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (index, announced, ended) =
                (Arc::clone(&index), Arc::clone(&announced), Arc::clone(&ended));
            thread::spawn(move || {
                let mut plan: Option<(Stamp, Vec<(SubscriberId, u64)>)> = None;
                while !ended.load(Ordering::Relaxed) {
                    let known: Vec<_> =
                        announced.iter().map(|value| value.load(Ordering::Acquire)).collect();
                    let now = stamp(&index, "a/b/c");
                    if plan.as_ref().is_none_or(|(then, _)| *then != now) {
                        plan = Some((now, matches(&index, "a/b/c")));
                    }
                    let planned = plan.as_ref().map_or(&[][..], |(_, planned)| planned);
                    assert_eq!(planned.len(), known.len());
                    for (&(_, value), known) in planned.iter().zip(known) {
                        assert!(value >= known, "planned {value}, announced {known}");
                    }
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..filters.len())
        .map(|number| {
            let (index, announced) = (Arc::clone(&index), Arc::clone(&announced));
            thread::spawn(move || {
                for value in 1..=WRITES {
                    let replaced = index.insert(filters[number], number as u64, value);
                    assert_eq!(replaced, Some(value - 1));
                    announced[number].store(value, Ordering::Release);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("the writer's assertions hold");
    }
    ended.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().expect("the reader's assertions hold");
    }
}

/// Many threads come and go on the same filters; at the end everything is counted back to zero.
#[test]
fn concurrent_changes_leave_nothing_behind() {
    let filters = ["room/1", "room/2", "room/1/#", "room/+", "+/1", "room/1/a/b/+", "#"];
    let index = Arc::new(index());
    let threads: Vec<_> = (0..4u64)
        .map(|number| {
            let index = Arc::clone(&index);
            thread::spawn(move || {
                for round in 0..2000 {
                    let filter = filters[(round + number as usize) % filters.len()];
                    assert_eq!(index.insert(filter, number, round), None);
                    let mine = matches(&index, "room/1");
                    let expected = is_match(filter, "room/1");
                    assert_eq!(mine.contains(&(number, round)), expected);
                    assert_eq!(index.remove(filter, number), Some(round));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread's assertions hold");
    }
    assert_eq!((index.subscriptions(), index.filters()), (0, 0));
    assert!(index.wildcards.is_pruned());
}
