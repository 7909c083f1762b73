//! Topic names and filters: which are valid, and which match.

use hoopoe_tests::wire::code;
use hoopoe_tests::{
    Packet, Publish, RawClient, Received, Version, shared_broker, unique_topic, wire,
};

/// Which of `topics` a client gets that subscribed to `filter` (both below a root of their own).
fn matched(version: Version, root: &str, filter: &str, topics: &[&str]) -> Vec<String> {
    let mut client = shared_broker().client(version);
    client.subscribe(&format!("{root}{filter}"), 0);
    let marker = unique_topic("end");
    client.subscribe(&marker, 0);
    let mut publisher = shared_broker().client(version);
    for topic in topics {
        publisher.publish(Publish::new(&format!("{root}{topic}"), "x"));
    }
    publisher.publish(Publish::new(&marker, "end"));
    let mut got = Vec::new();
    loop {
        let publish = client.take_publish();
        if publish.topic == marker {
            got.sort();
            return got;
        }
        let topic = publish.topic.strip_prefix(root).expect("only topics that match the filter");
        got.push(topic.to_owned());
    }
}

#[test]
fn filters_match_what_the_standard_says() {
    let topics = ["", "/a", "/a/b", "/a/b/c", "/A", "/ab", "//b", "/a/", "/+a", "/ a"];
    let topics: Vec<&str> = topics.into_iter().filter(|topic| !topic.contains('+')).collect();
    let cases: [(&str, &[&str]); 13] = [
        ("", &[""]),
        ("/a", &["/a"]),
        ("/#", &["", "/ a", "/A", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "//b"]),
        ("/+", &["/ a", "/A", "/a", "/ab"]),
        ("/+/+", &["/a/", "/a/b", "//b"]),
        ("/+/b", &["/a/b", "//b"]),
        ("/a/#", &["/a", "/a/", "/a/b", "/a/b/c"]),
        ("/a/+", &["/a/", "/a/b"]),
        ("/+/+/c", &["/a/b/c"]),
        ("/+/#", &["/ a", "/A", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "//b"]),
        ("//+", &["//b"]),
        ("/a/+/#", &["/a/", "/a/b", "/a/b/c"]),
        ("/nothing", &[]),
    ];
    for version in Version::BOTH {
        for (filter, wanted) in cases {
            let root = unique_topic("match");
            let got = matched(version, &root, filter, &topics);
            let mut wanted: Vec<&str> = wanted.to_vec();
            wanted.sort_unstable();
            assert_eq!(got, wanted, "matches of {filter:?}");
        }
    }
}

#[test]
fn topics_are_compared_without_normalisation() {
    for version in Version::BOTH {
        // The same letter, composed and decomposed; upper and lower case; a space.
        let topics = ["/\u{E9}", "/e\u{301}", "/E", "/e", "/ e", "/e "];
        for topic in topics {
            let root = unique_topic("norm");
            assert_eq!(matched(version, &root, topic, &topics), [topic]);
        }
    }
}

#[test]
fn filter_that_begins_with_a_wildcard_matches_no_dollar_topic() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        client.subscribe("+/broker/#", 0);
        client.subscribe("+/+/uptime", 0);
        // A subscription that names the level does get them.
        let mut named = shared_broker().client(version);
        named.subscribe("$SYS/broker/#", 0);
        assert!(named.take_publish().topic.starts_with("$SYS/broker/"));
        client.expect_nothing_from(&mut shared_broker().client(version), 0);
    }
}

#[test]
fn multi_level_wildcard_alone_matches_no_dollar_topic() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        client.subscribe("#", 0);
        let marker = unique_topic("all");
        shared_broker().client(version).publish(Publish::new(&marker, "end"));
        loop {
            // Other tests' messages arrive too; none of the broker's own.
            let publish = client.take_publish();
            assert!(!publish.topic.starts_with('$'), "{} matched by #", publish.topic);
            if publish.topic == marker {
                break;
            }
        }
    }
}

/// A SUBSCRIBE or UNSUBSCRIBE with an invalid filter: 5.0 answers 0x8F; 3.1.1 has 0x80 or closes.
fn refused_filter(client: &mut RawClient, filter: &str) {
    let version = client.version;
    client.send(&wire::subscribe(version, 1, &[(filter, 0)], &Default::default()));
    match (version, client.receive()) {
        (Version::V311, Received::Closed) => {}
        (Version::V311, Received::Packet(Packet::SubAck(suback))) => {
            assert_eq!(suback.codes, [0x80], "{filter:?}");
        }
        (Version::V5, Received::Packet(Packet::SubAck(suback))) => {
            assert_eq!(suback.codes, [code::TOPIC_FILTER_INVALID], "{filter:?}");
        }
        (_, other) => panic!("filter {filter:?} answered by {other:?}"),
    }
}

#[test]
fn multi_level_wildcard_must_be_last_and_a_level_of_its_own() {
    for version in Version::BOTH {
        for filter in ["a#", "#a", "a/#/b", "#/a", "a/b#", "a/#b", "##", "a/##", "#/"] {
            refused_filter(&mut shared_broker().client(version), filter);
        }
    }
}

#[test]
fn single_level_wildcard_must_be_a_level_of_its_own() {
    for version in Version::BOTH {
        for filter in ["a+", "+a", "a/b+", "a/+b/c", "++", "a/++/b", "+#"] {
            refused_filter(&mut shared_broker().client(version), filter);
        }
    }
}

#[test]
fn wildcards_are_accepted_wherever_they_may_be() {
    for version in Version::BOTH {
        let mut client = shared_broker().client(version);
        for filter in ["+", "+/+", "/+", "+/", "x/+", "x/+/y", "+/x/#", "x/#", "/#", "//#", "+//+"]
        {
            client.subscribe(&format!("none-such/{filter}"), 0);
        }
        let mut first = shared_broker().client(version);
        for filter in ["+/none-such", "+/+/none-such", "/none-such", "+/none-such/#"] {
            first.subscribe(filter, 0);
        }
    }
}

#[test]
fn empty_filter_closes_the_connection() {
    for version in Version::BOTH {
        for subscribe in [true, false] {
            let mut client = shared_broker().client(version);
            client.send(&if subscribe {
                wire::subscribe(version, 1, &[("", 0)], &Default::default())
            } else {
                wire::unsubscribe(version, 1, &[""])
            });
            client.expect_closed_with(&[
                code::MALFORMED_PACKET,
                code::PROTOCOL_ERROR,
                code::TOPIC_FILTER_INVALID,
            ]);
        }
    }
}

#[test]
fn longest_topic_a_string_can_hold_is_judged_not_feared() {
    // 65,535 bytes are legal; a broker may limit them, but must answer and go on.
    for version in Version::BOTH {
        let topic = format!("{}/{}", unique_topic("long"), "x".repeat(65_000));
        let topic = &topic[..65_000];
        let mut client = shared_broker().client(version);
        client.send(&wire::subscribe(version, 1, &[(topic, 0)], &Default::default()));
        match client.receive() {
            Received::Closed => {}
            Received::Packet(Packet::Disconnect(_)) => {}
            Received::Packet(Packet::SubAck(suback)) if suback.codes[0] >= 0x80 => {}
            Received::Packet(Packet::SubAck(_)) => {
                client.publish(Publish::new(topic, "far"));
                client.expect_message(topic, "far");
            }
            other => panic!("{other:?}"),
        }
        shared_broker().client(version).ping();
    }
}
