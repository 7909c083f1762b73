//! Hoopoe with Hoopoe: two sites linked both ways by both, a ring of three; no message goes round.

use std::net::SocketAddr;

use hoopoe_tests::broker::Options;
use hoopoe_tests::{Broker, Publish, RawClient, Version, eventually, unique_address};

use crate::peers::{CONNECTED, Link, Mosquitto, hoopoe, report};

/// A site of this id at this address.
fn site(id: &str, at: SocketAddr, links: &[Link]) -> Options {
    hoopoe(id, links).at(at)
}

/// Sites linked in a circle: each with the next one, once, by these rules.
fn circle(sites: &[&str], change: impl Fn(Link) -> Link) -> Vec<Broker> {
    let addresses: Vec<SocketAddr> = sites.iter().map(|_| unique_address()).collect();
    let brokers: Vec<Broker> = sites
        .iter()
        .enumerate()
        .map(|(index, id)| {
            let next = addresses[(index + 1) % sites.len()];
            site(id, addresses[index], &[change(Link::to("next", next))]).start()
        })
        .collect();
    for broker in &brokers {
        broker.wait_for_log(CONNECTED);
    }
    brokers
}

/// A client at each site that gets everything.
fn ears(brokers: &[Broker]) -> Vec<RawClient> {
    let ear = |broker: &Broker| {
        let mut client = broker.v5();
        client.subscribe("#", 1);
        client
    };
    brokers.iter().map(ear).collect()
}

/// A message from each site is heard at each of the next ones, up to so many, exactly once.
fn heard_once(brokers: &[Broker], reach: usize) {
    let mut ears = ears(brokers);
    for round in 0..4 {
        // In the last round nothing is new: what would have come twice has come before it, because
        // it went the same ways.
        let topic = if round < 3 { "talk" } else { "mark" };
        for (from, broker) in brokers.iter().enumerate() {
            let text = format!("{round} of {from}");
            broker.v5().publish(Publish::new(topic, &text).qos(1));
            for step in 0..=reach {
                ears[(from + step) % brokers.len()].expect_message(topic, &text);
            }
        }
    }
}

#[test]
fn two_sites_linked_by_both() {
    // Both link both ways: there are two ways, and a message must take one of them. Each site takes
    // what it is given and gives what began with it.
    let brokers = circle(&["a", "b"], |link| link.rule("#", "out", 1));
    heard_once(&brokers, 1);
    let brokers = circle(&["a", "b"], |link| {
        link.version(Version::V311).line("bridge_bit = true").rule("#", "out", 1)
    });
    heard_once(&brokers, 1);
}

#[test]
fn one_link_carries_both_ways() {
    for (version, line) in [(Version::V5, ""), (Version::V311, "bridge_bit = true")] {
        let at = unique_address();
        let far = site("b", at, &[]).start();
        let link = Link::to("next", at).version(version).line(line).rule("#", "both", 2);
        let near = hoopoe("a", &[link]).start();
        near.wait_for_log(CONNECTED);
        heard_once(&[near, far], 1);
    }
}

#[test]
fn a_ring_of_three() {
    // One way round, in 5.0: the way is in the message.
    let brokers = circle(&["a", "b", "c"], |link| link.rule("#", "out", 1));
    heard_once(&brokers, 2);
    // In 3.1.1 a message cannot say where it has been: it goes to the next site and no further.
    let brokers = circle(&["a", "b", "c"], |link| {
        link.version(Version::V311).line("bridge_bit = true").rule("#", "out", 1)
    });
    heard_once(&brokers, 1);
    // Both ways round, in 5.0: each site is everybody's neighbour.
    let brokers = circle(&["a", "b", "c"], |link| link.line("max_hops = 0").rule("#", "both", 1));
    heard_once(&brokers, 2);
    // In 3.1.1 too: a message takes one hop, given or fetched.
    let brokers = circle(&["a", "b", "c"], |link| both_ways_3_1_1(link, 1));
    heard_once(&brokers, 2);
}

fn both_ways_3_1_1(link: Link, qos: u8) -> Link {
    link.version(Version::V311).line("bridge_bit = true").rule("#", "both", qos)
}

#[test]
fn two_sites_that_both_give_and_fetch_in_3_1_1() {
    for qos in 0..=2 {
        let brokers = circle(&["a", "b"], |link| both_ways_3_1_1(link, qos));
        let mut ears = ears(&brokers);
        for round in 0..10 {
            for from in 0..2 {
                let text = format!("{round} of {from}");
                brokers[from].v5().publish(Publish::new("talk", &text).qos(qos));
                ears[from].expect_message("talk", &text);
                // Over one link because it was given, over the other because it was fetched, and
                // that is all: what came twice is sent back by neither, or it would be next.
                ears[1 - from].expect_message("talk", &text);
                ears[1 - from].expect_message("talk", &text);
            }
        }
        let looped = brokers.iter().map(|broker| looped(broker, "next")).sum::<u64>();
        assert!(looped > 0, "nothing had to be stopped");
    }
}

#[test]
fn a_hub_of_3_1_1_bridges_passes_on_what_they_give() {
    let at = unique_address();
    let hub = site("hub", at, &[]).start();
    let spoke = |id: &str| {
        let broker = hoopoe(id, &[both_ways_3_1_1(Link::to("hub", at), 1)]).start();
        broker.wait_for_log(CONNECTED);
        broker
    };
    heard_once(&[spoke("a"), spoke("b"), hub], 2);
}

#[test]
fn a_circle_through_mosquitto_in_3_1_1() {
    // Both sites are linked with a broker that knows nothing, and with each other.
    let between = Mosquitto::plain();
    let at = unique_address();
    let to_mosquitto = || both_ways_3_1_1(Link::to("m", between.address), 1);
    let b = site("b", at, &[to_mosquitto()]).start();
    b.wait_for_log(CONNECTED);
    let a = hoopoe("a", &[to_mosquitto(), both_ways_3_1_1(Link::to("b", at), 1)]).start();
    for name in ["m", "b"] {
        eventually("it is connected", || report(&a, name)["state"] == "connected");
    }
    let brokers = [a, b];
    let mut ears = ears(&brokers);
    let mut there = between.client(Version::V311);
    there.subscribe("#", 1);
    for round in 0..10 {
        let text = format!("{round} there");
        there.publish(Publish::new("talk", &text).qos(1));
        there.expect_message("talk", &text);
        // Each has it from there, and gives it to nobody.
        ears[0].expect_message("talk", &text);
        ears[1].expect_message("talk", &text);
    }
}

/// Messages that a link has stopped.
fn looped(broker: &Broker, name: &str) -> u64 {
    report(broker, name)["counts"]["looped"].as_u64().expect("a number")
}

#[test]
fn a_hub_of_3_1_1_with_a_hop_prefix() {
    // A broker in the middle that knows nothing, and three sites linked with it both ways.
    let hub = Mosquitto::plain();
    let brokers: Vec<Broker> = ["a", "b", "c"]
        .iter()
        .map(|id| {
            let link = Link::to("hub", hub.address)
                .version(Version::V311)
                .line("hop_prefix = 'via'")
                .rule("talk", "both", 1)
                .rule("mark", "both", 1);
            let broker = hoopoe(id, &[link]).start();
            broker.wait_for_log(CONNECTED);
            broker
        })
        .collect();
    heard_once(&brokers, 2);
    assert!(looped(&brokers[0], "hub") > 0, "nothing had to be stopped");
}

#[test]
fn what_a_client_writes_into_the_way_harms_nobody_else() {
    use hoopoe_tests::Property;
    let brokers = circle(&["a", "b"], |link| link.rule("#", "out", 1));
    let mut ears = ears(&brokers);
    let with = |text: &str, via: &str| {
        let via = Property::UserProperty("hoopoe-via".to_owned(), via.to_owned());
        Publish::new("talk", text).qos(1).with(via)
    };
    let mut client = brokers[0].v5();
    client.publish(with("one", "b"));
    client.publish(with("two", &"x,".repeat(3000)));
    client.publish(with("three", ",,~,"));
    client.publish(Publish::new("talk", "four").qos(1));
    for text in ["one", "two", "three", "four"] {
        ears[0].expect_message("talk", text);
    }
    for text in ["three", "four"] {
        ears[1].expect_message("talk", text);
    }
}
