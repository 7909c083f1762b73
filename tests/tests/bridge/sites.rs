//! Hoopoe with Hoopoe: two sites linked both ways by both, a ring of three; no message goes round.

use std::net::{SocketAddr, TcpListener};

use hoopoe_tests::broker::Options;
use hoopoe_tests::{Broker, Publish, RawClient, Version};

use crate::peers::{CONNECTED, Link, hoopoe};

/// Addresses that were free just now, for brokers that must know each other's before they start.
fn free(count: usize) -> Vec<SocketAddr> {
    let taken: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    taken.iter().map(|free| free.local_addr().expect("an address")).collect()
}

/// A site of this id at this address.
fn site(id: &str, at: SocketAddr, links: &[Link]) -> Options {
    hoopoe(id, links).no_listeners().listener(&format!("tcp://{at}"))
}

/// Sites linked in a circle: each with the next one, once, by these rules.
fn circle(sites: &[&str], change: impl Fn(Link) -> Link) -> Vec<Broker> {
    let addresses = free(sites.len());
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
        let [at] = free(1)[..] else { panic!("an address") };
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
}

#[test]
fn a_hub_of_3_1_1_with_a_hop_prefix() {
    // A broker in the middle that knows nothing, and three sites linked with it both ways.
    let hub = crate::peers::Mosquitto::plain();
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
    let counted = crate::peers::report(&brokers[0], "hub");
    assert!(counted["counts"]["looped"].as_u64() > Some(0), "{counted}");
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
