//! The names a run is made of. There are few of each, so that clients meet all the time: in one
//! session, on one topic, in one shared group.

use super::random::Random;

/// Client identifiers of whose sessions a model is kept: they connect one after the other.
pub const TRACKED: [&str; 6] =
    ["tracked-0", "tracked-1", "tracked-2", "tracked-3", "tracked-4", "tracked-5"];
/// Client identifiers that are used without any order.
pub const WILD: [&str; 3] = ["wild-0", "wild-1", ""];
/// Topics below this are the healthy pairs'.
pub const HEALTHY: &str = "healthy/";
/// User names; a session belongs to its user.
pub const USERS: [&str; 2] = ["ann", "bob"];

const TOPICS: [&str; 19] = [
    "a",
    "a/b",
    "a/b/c",
    "a//c",
    "/a",
    "a/",
    "b",
    "b/c",
    "b/d/e",
    "room/1",
    "room/2",
    "room/3",
    "room",
    "/",
    "with space/and more",
    "ü/漢字",
    "deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20",
    "quite/a/long/topic/name/that/fills/a/small/packet/on/its/own/account/without/any/payload",
    "c",
];
/// Topics nobody may publish to.
const FORBIDDEN_TOPICS: [&str; 4] = ["$SYS/broker/uptime", "$x/a", "im/u/ann/msg", "im"];
const FILTERS: [&str; 22] = [
    "#",
    "+",
    "+/+",
    "/#",
    "+/",
    "/+",
    "a/#",
    "a/+",
    "a/+/c",
    "+/b/#",
    "+/b",
    "b/#",
    "b",
    "room/+",
    "room/#",
    "room/1",
    "room/2",
    "a/b",
    "+/+/+",
    "with space/+",
    "$SYS/broker/+",
    "deep/#",
];
const SHARED_FILTERS: [&str; 6] = [
    "$share/g/a/#",
    "$share/g/room/+",
    "$share/g/#",
    "$share/h/a/b",
    "$share/h/#",
    "$share/wide group/+/+",
];
/// Filters that no broker may accept, and those below `im/`, which this one does not.
const BAD_FILTERS: [&str; 9] =
    ["a#", "a/#/b", "a+", "$share/g", "$share//a", "$share/g+/a", "$share/g/", "im/#", "im/+/x"];

/// A topic to publish to.
pub fn topic(random: &mut Random) -> &'static str {
    if random.once_in(60) {
        return random.pick(&FORBIDDEN_TOPICS);
    }
    // Some topics more often than others, so that order and windows are put to the test.
    let most = if random.once_in(2) { 4 } else { TOPICS.len() };
    random.pick(&TOPICS[..most])
}

/// A filter to subscribe to, or to unsubscribe from.
pub fn filter(random: &mut Random) -> &'static str {
    match random.below(40) {
        0 => random.pick(&BAD_FILTERS),
        1..=6 => random.pick(&SHARED_FILTERS),
        _ => random.pick(&FILTERS),
    }
}
