//! Links that are cut: at each of the four steps of QoS 2, at random packets, with a full window,
//! with either broker killed. What was acknowledged arrives; QoS 2 once; in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use hoopoe_tests::wire::packet_type;
use hoopoe_tests::{
    Broker, Connect, Publish, RawClient, Version, eventually, unique_address, unique_id,
};
use serde_json::json;

use crate::peers::{CONNECTED, Ledger, Link, Mosquitto, connects, hoopoe, report, send};
use crate::proxy::{Dice, Fate, Proxy, Way, at, once};
use crate::record::Record;

/// The remote broker of a test.
enum Far {
    Mosquitto(Mosquitto),
    Hoopoe(Box<Broker>),
}

impl Far {
    fn address(&self) -> SocketAddr {
        match self {
            Far::Mosquitto(mosquitto) => mosquitto.address,
            Far::Hoopoe(broker) => broker.tcp(),
        }
    }

    fn connect(&self, connect: &Connect) -> RawClient {
        RawClient::connect(self.address(), connect)
    }
}

/// Each kind of remote broker, in both versions.
fn each(mut test: impl FnMut(Far, Version)) {
    for version in Version::BOTH {
        test(Far::Mosquitto(Mosquitto::plain()), version);
        test(Far::Hoopoe(Box::new(hoopoe("far", &[]).start())), version);
    }
}

/// A pair of linked brokers with a network between them and a stored subscriber at either end.
struct Pair {
    far: Far,
    near: Broker,
    proxy: Proxy,
    here: Connect,
    there: Connect,
}

impl Pair {
    /// What the far broker has sent at QoS 2 came once, but for what it itself sent as new again.
    /// mosquitto 2.0.11 does so when it is cut off again before its repeated PUBREL is written: it
    /// goes back to PUBLISH for an exchange that is over, which no receiver can tell from a new one.
    fn expect_what_came_in(&self, near: &Ledger, topic: &str, numbers: RangeInclusive<u64>) {
        let again = self.proxy.recorded(|record| record.again(topic));
        if let Far::Hoopoe(_) = self.far {
            assert!(again.is_empty(), "Hoopoe sent PUBLISH after PUBREL: {again:?}");
        }
        near.expect_each_once_but(topic, numbers, &again);
    }

    fn new(far: Far, version: Version, line: &str) -> Pair {
        let proxy = Proxy::to(far.address());
        let link = Link::to("l", proxy.address).version(version).line(line);
        let link = link.rule("out/#", "out", 2).rule("in/#", "in", 2);
        let near = hoopoe("near", &[link]).start();
        near.wait_for_log(CONNECTED);
        let here = Connect::persistent(Version::V5, &unique_id("here"));
        let there = Connect::persistent(version, &unique_id("there"));
        drop(Ledger::new(near.connect(&here), "in/#", 2));
        drop(Ledger::new(far.connect(&there), "out/#", 2));
        Pair { far, near, proxy, here, there }
    }

    fn with_mosquitto(&mut self, change: impl FnOnce(&mut Mosquitto)) {
        if let Far::Mosquitto(mosquitto) = &mut self.far {
            change(mosquitto);
        }
    }

    /// What the subscribers got, up to the last number.
    fn ledgers(&self, topics: &[&str], last: u64) -> [Ledger; 2] {
        let named = |stem: &str| topics.iter().map(|t| format!("{stem}/{t}")).collect::<Vec<_>>();
        let read = |client, stem| {
            let names = named(stem);
            let mut ledger = Ledger::resumed(client);
            ledger.take_until(&names.iter().map(String::as_str).collect::<Vec<_>>(), last);
            ledger
        };
        [read(self.near.connect(&self.here), "in"), read(self.far.connect(&self.there), "out")]
    }
}

#[test]
fn a_cut_at_any_step_of_qos_2_doubles_and_loses_nothing() {
    const STEPS: [(u8, bool); 4] = [
        (packet_type::PUBLISH, true),
        (packet_type::PUBREC, false),
        (packet_type::PUBREL, true),
        (packet_type::PUBCOMP, false),
    ];
    const COUNTS: &[usize] = &[1, 4, 9];
    each(|far, version| {
        let pair = Pair::new(far, version, "max_inflight = 5");
        let (mut here, mut there) =
            (pair.near.v5(), pair.far.connect(&Connect::new(version, &unique_id("p"))));
        let mut number = 0;
        let mut cuts = 0;
        for (kind, with_message) in STEPS {
            for fate in [Fate::CutBefore, Fate::CutWithin, Fate::CutAfter] {
                // The message goes out, then it comes in: each step is seen both ways.
                for out in [true, false] {
                    let way = if out == with_message { Way::Out } else { Way::In };
                    pair.proxy.plan(at(way, kind, COUNTS, fate));
                    for _ in 0..12 {
                        number += 1;
                        send(&mut here, "out/x", number, 2);
                        send(&mut there, "in/x", number, 2);
                    }
                    // Until the plan has been carried out: what was sent before is on its way.
                    cuts += 1;
                    eventually("the link is cut", || pair.proxy.cuts() >= cuts);
                    cuts = pair.proxy.cuts();
                }
            }
        }
        pair.proxy.heal();
        let [near, far] = pair.ledgers(&["x"], number);
        pair.expect_what_came_in(&near, "in/x", 1..=number);
        far.expect_each_once("out/x", 1..=number);
    });
}

#[test]
fn random_cuts_double_and_lose_nothing() {
    each(|far, version| {
        let pair = Pair::new(far, version, "");
        for seed in 1..=3 {
            let mut dice = Dice::new(seed);
            let mut until = 5 + dice.roll(40);
            pair.proxy.plan(move |_, _| {
                until = until.saturating_sub(1);
                if until > 0 {
                    return Fate::Pass;
                }
                until = 20 + dice.roll(100);
                [Fate::CutBefore, Fate::CutWithin, Fate::CutAfter][dice.roll(3) as usize]
            });
            let (mut here, mut there) =
                (pair.near.v5(), pair.far.connect(&Connect::new(version, &unique_id("p"))));
            for number in (seed - 1) * 150 + 1..=seed * 150 {
                for (topic, qos) in [("one", 1), ("two", 2)] {
                    send(&mut here, &format!("out/{topic}"), number, qos);
                    send(&mut there, &format!("in/{topic}"), number, qos);
                }
            }
        }
        assert!(pair.proxy.cuts() > 0);
        pair.proxy.heal();
        let [near, far] = pair.ledgers(&["one", "two"], 450);
        pair.expect_what_came_in(&near, "in/two", 1..=450);
        far.expect_each_once("out/two", 1..=450);
        near.expect_all("in/one", 1..=450);
        far.expect_all("out/one", 1..=450);
    });
}

impl Drop for Pair {
    #[allow(clippy::print_stderr, reason = "shown with the output of the failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what passed the network:\n{}", self.proxy.trace());
        }
    }
}

/// Publishes these numbers at both ends to `out/TOPIC` and `in/TOPIC`, at the QoS of each topic.
fn send_all(
    (here, there): (&mut RawClient, &mut RawClient),
    numbers: RangeInclusive<u64>,
    topics: &[(&str, u8)],
) {
    for number in numbers {
        for (topic, qos) in topics {
            send(here, &format!("out/{topic}"), number, *qos);
            send(there, &format!("in/{topic}"), number, *qos);
        }
    }
}

/// Cuts, resets and, a few times, silence in one direction, which lasts until the link finds its
/// connection dead: no packet is lost from the middle of a stream.
fn bad_weather(seed: u64) -> impl FnMut(Way, u8) -> Fate + Send {
    let mut dice = Dice::new(seed);
    let mut until = 5 + dice.roll(40);
    let mut silences = 0;
    move |_, _| {
        until = until.saturating_sub(1);
        if until > 0 {
            return Fate::Pass;
        }
        until = 20 + dice.roll(100);
        if dice.roll(4) == 0 && silences < 2 {
            silences += 1;
            return Fate::Silence;
        }
        [Fate::CutBefore, Fate::CutWithin, Fate::CutAfter, Fate::Reset][dice.roll(4) as usize]
    }
}

#[test]
fn delays_drops_and_resets_together_double_and_lose_nothing() {
    const TOPICS: [(&str, u8); 3] = [("zero", 0), ("one", 1), ("two", 2)];
    let mut seed = 10;
    each(|far, version| {
        seed += 1;
        let pair = Pair::new(far, version, "keep_alive_secs = 1");
        let publisher = Connect::new(version, &unique_id("p"));
        let (mut here, mut there) = (pair.near.v5(), pair.far.connect(&publisher));
        let listener = Connect::new(version, &unique_id("zero"));
        let mut near_zero = Ledger::new(pair.near.v5(), "in/zero", 0);
        let mut far_zero = Ledger::new(pair.far.connect(&listener), "out/zero", 0);
        // No answer here depends on how long anything takes: what waits only makes acknowledgements
        // cross with messages and with cuts.
        pair.proxy.delay(seed, Duration::from_millis(3));
        pair.proxy.plan(bad_weather(seed));
        send_all((&mut here, &mut there), 1..=120, &TOPICS);
        // The last connection may be a silent one. There is a next packet: PINGREQ if no other.
        let cuts = pair.proxy.cuts();
        pair.proxy.plan(once(Fate::Reset));
        eventually("the last cut", || pair.proxy.cuts() > cuts);
        pair.proxy.heal();
        send_all((&mut here, &mut there), 121..=121, &TOPICS[1..]);
        let [near, far] = pair.ledgers(&["one", "two"], 121);
        pair.expect_what_came_in(&near, "in/two", 1..=121);
        far.expect_each_once("out/two", 1..=121);
        near.expect_all("in/one", 1..=121);
        far.expect_all("out/one", 1..=121);
        // The link stands now, and QoS 0 passes: before that some of it did, once and in order.
        send_all((&mut here, &mut there), 121..=121, &TOPICS[..1]);
        for (ledger, topic) in [(&mut near_zero, "in/zero"), (&mut far_zero, "out/zero")] {
            ledger.take_until(&[topic], 121);
            assert!(ledger.got[topic].is_sorted_by(|a, b| a < b), "{:?}", ledger.got[topic]);
        }
    });
}

#[test]
fn a_peer_lost_with_a_full_window_again_and_again() {
    for qos in [1, 2] {
        each(|far, version| {
            let pair = Pair::new(far, version, "max_inflight = 20");
            let mut here = pair.near.v5();
            // Nothing is acknowledged; once the window is full (mosquitto takes 20), the end.
            let mut sent = 0;
            pair.proxy.plan(move |way, kind| match (way, kind) {
                (Way::In, packet_type::PUBACK | packet_type::PUBREC) => Fate::Swallow,
                (Way::Out, packet_type::PUBLISH) => {
                    sent += 1;
                    if sent % 20 == 0 { Fate::CutAfter } else { Fate::Pass }
                }
                _ => Fate::Pass,
            });
            for number in 1..=100 {
                send(&mut here, "out/x", number, qos);
                send(&mut here, "out/y", number, qos);
            }
            eventually("the window was lost five times", || pair.proxy.cuts() >= 5);
            pair.proxy.heal();
            // The last connection waits for acknowledgements that were swallowed.
            pair.proxy.plan(once(Fate::CutBefore));
            send(&mut here, "out/x", 101, qos);
            send(&mut here, "out/y", 101, qos);
            let mut there = Ledger::resumed(pair.far.connect(&pair.there));
            there.take_until(&["out/x", "out/y"], 101);
            for topic in ["out/x", "out/y"] {
                match qos {
                    1 => there.expect_all(topic, 1..=101),
                    _ => there.expect_each_once(topic, 1..=101),
                }
            }
        });
    }
}

#[test]
fn killing_either_broker_doubles_and_loses_nothing() {
    for version in Version::BOTH {
        let far = Far::Hoopoe(Box::new(hoopoe("far", &[]).at(unique_address()).start()));
        let mut pair = Pair::new(far, version, "");
        let mut dice = Dice::new(7);
        let mut number = 0;
        for round in 0..8 {
            let (mut here, mut there) =
                (pair.near.v5(), pair.far.connect(&Connect::new(version, &unique_id("p"))));
            for _ in 0..5 + dice.roll(30) {
                number += 1;
                send(&mut here, "out/x", number, 2);
                send(&mut there, "in/x", number, 2);
            }
            // Not waited for: what is on its way is cut wherever it is.
            if round % 2 == 0 {
                pair.near.kill_and_restart();
            } else if let Far::Hoopoe(far) = &mut pair.far {
                far.kill_and_restart();
            }
        }
        let [near, far] = pair.ledgers(&["x"], number);
        pair.expect_what_came_in(&near, "in/x", 1..=number);
        far.expect_each_once("out/x", 1..=number);
    }
}

/// What must be true after mosquitto was killed again and again. It has written down much less than it
/// has acknowledged, and goes back to that; so nobody can promise that what it took, it still has, and
/// it may send what it has sent before. What can be promised:
/// - whatever Hoopoe has acknowledged to a publisher, mosquitto has acknowledged to the link; what it
///   took after its last death is there; of QoS 2 nothing twice; all of it in order;
/// - whatever the link has acknowledged to mosquitto is here, in order; of QoS 2 nothing twice but
///   what mosquitto itself sent as new again.
fn expect_what_survives_kills(record: &Record, [near, far]: &[Ledger; 2], last: u64, kills: usize) {
    for (stem, topic) in [("one", "out/one"), ("two", "out/two")] {
        let accepted = Record::numbers(topic, record.accepted.keys());
        assert!(accepted.iter().copied().eq(1..=last), "{stem}: not all were taken: {accepted:?}");
        let late = record.accepted.iter().filter(|(_, after)| **after == kills);
        let got = far.first(topic);
        for number in Record::numbers(topic, late.map(|(message, _)| message)) {
            assert!(got.contains(&number), "{topic}: {number} was acknowledged and is lost");
        }
        assert!(got.is_sorted(), "{topic}: {got:?}");
    }
    far.expect_none_doubled_but("out/two", &BTreeMap::new());
    for topic in ["in/one", "in/two"] {
        let misnamed = Record::numbers(topic, record.misnamed.iter());
        let mut got = near.first(topic);
        got.retain(|number| !misnamed.contains(number));
        assert!(got.is_sorted(), "{topic}: {got:?}");
        for number in Record::numbers(topic, record.taken.iter()).difference(&misnamed) {
            assert!(got.contains(number), "{topic}: {number} was acknowledged and is lost");
        }
    }
    near.expect_none_doubled_but("in/two", &record.again("in/two"));
}

#[test]
fn killing_mosquitto_loses_nothing_that_is_not_its_own() {
    const TOPICS: [(&str, u8); 2] = [("one", 1), ("two", 2)];
    const KILLS: usize = 6;
    for version in Version::BOTH {
        let mut pair = Pair::new(Far::Mosquitto(Mosquitto::with_wide_window()), version, "");
        // It has the sessions on disk from here on: what they hold may go, not they.
        pair.with_mosquitto(Mosquitto::restart);
        let mut dice = Dice::new(23);
        let mut number = 0;
        for kills in 1..=KILLS {
            let (mut here, mut there) =
                (pair.near.v5(), pair.far.connect(&Connect::new(version, &unique_id("p"))));
            // The link lags behind the publishers, so it is in the middle of something.
            pair.proxy.delay(kills as u64, Duration::from_millis(3));
            let first = number + 1;
            number += 5 + dice.roll(40);
            send_all((&mut here, &mut there), first..=number, &TOPICS);
            pair.with_mosquitto(Mosquitto::kill);
            pair.proxy.was_killed();
            let seen = connects(&pair.near);
            pair.with_mosquitto(Mosquitto::start_again);
            if kills == KILLS {
                eventually("the link is back", || connects(&pair.near) > seen);
            }
        }
        pair.proxy.heal();
        let (mut here, mut there) =
            (pair.near.v5(), pair.far.connect(&Connect::new(version, &unique_id("p"))));
        send_all((&mut here, &mut there), number + 1..=number + 20, &TOPICS);
        number += 20;
        let nothing_waits = || report(&pair.near, "l")["queued"] == 0;
        eventually("everything has gone out", nothing_waits);
        // Behind everything; QoS 1, which no old identifier stands in the way of.
        send(&mut here, "out/end", 1, 1);
        send(&mut there, "in/end", 1, 1);
        let ledgers = pair.ledgers(&["end"], 1);
        pair.proxy.recorded(|record| {
            expect_what_survives_kills(record, &ledgers, number, KILLS);
        });
        let counts = &report(&pair.near, "l")["counts"];
        assert_eq!((&counts["looped"], &counts["without_rule"]), (&json!(0), &json!(0)));
    }
}

#[test]
fn a_remote_broker_that_forgets_the_link_gets_and_gives_new_messages() {
    for version in Version::BOTH {
        let mut mosquitto = Mosquitto::plain();
        let link = Link::to("l", mosquitto.address).version(version);
        let link = link.rule("out/#", "out", 2).rule("in/#", "in", 2);
        let near = hoopoe("near", &[link]).start();
        near.wait_for_log(CONNECTED);
        let mut here = near.v5();
        here.subscribe("in/#", 2);
        for round in 0..3 {
            let mut there = mosquitto.client(version);
            there.subscribe("out/#", 2);
            let seen = connects(&near);
            for number in 0..10 {
                here.publish(Publish::new("out/x", format!("{round} {number}")).qos(2));
                there.expect_message("out/x", format!("{round} {number}"));
                there.publish(Publish::new("in/x", format!("{round} {number}")).qos(2));
                here.expect_message("in/x", format!("{round} {number}"));
            }
            // The same identifiers begin anew there, and must not be taken for repetitions here.
            mosquitto.stop();
            mosquitto.forget();
            mosquitto.start_again();
            eventually("the link is back", || connects(&near) > seen);
        }
    }
}
