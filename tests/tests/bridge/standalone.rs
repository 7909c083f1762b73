//! `hoopoe bridge`: a node of links alone, between two brokers that know nothing of it.

use hoopoe_tests::{Connect, RawClient, Version, eventually, unique_address, unique_id};

use crate::peers::{Ledger, Link, Mosquitto, hoopoe, report, send};
use crate::proxy::Dice;

#[test]
fn a_bridge_between_two_brokers_survives_kills() {
    for version in Version::BOTH {
        let (mut one, mut two) = (Mosquitto::with_wide_window(), Mosquitto::with_wide_window());
        let from = Link::to("from", one.address).version(version).rule("data/#", "in", 2);
        let to = Link::to("to", two.address).version(version).rule("data/#", "out", 2);
        let mut bridge = hoopoe("between", &[from, to]).bridge().start();
        for name in ["from", "to"] {
            eventually("it is connected", || report(&bridge, name)["state"] == "connected");
        }
        let there = Connect::persistent(version, &unique_id("there"));
        drop(Ledger::new(RawClient::connect(two.address, &there), "data/#", 2));
        let mut number = 0;
        for round in 0..6 {
            let mut publisher = one.client(version);
            for _ in 0..10 + 7 * round {
                number += 1;
                send(&mut publisher, "data/x", number, 2);
            }
            match round % 3 {
                0 => bridge.kill_and_restart(),
                1 => one.restart(),
                _ => two.restart(),
            }
        }
        let mut ledger = Ledger::resumed(RawClient::connect(two.address, &there));
        ledger.take_until(&["data/x"], number);
        ledger.expect_each_once("data/x", 1..=number);
    }
}

#[test]
fn all_three_are_killed_again_and_again() {
    for version in Version::BOTH {
        let mut brokers = ["one", "two"].map(|id| hoopoe(id, &[]).at(unique_address()).start());
        let between = |name: &str, to: usize, direction: [&str; 2]| {
            let link = Link::to(name, brokers[to].tcp()).version(version);
            link.rule("forth/#", direction[0], 2).rule("back/#", direction[1], 2)
        };
        let links = [between("one", 0, ["in", "out"]), between("two", 1, ["out", "in"])];
        let mut bridge = hoopoe("between", &links).bridge().start();
        for name in ["one", "two"] {
            eventually("it is connected", || report(&bridge, name)["state"] == "connected");
        }
        let ears = ["back/#", "forth/#"]
            .map(|filter| (filter, Connect::persistent(version, &unique_id("ear"))));
        for (broker, (filter, ear)) in brokers.iter().zip(&ears) {
            drop(Ledger::new(broker.connect(ear), filter, 2));
        }
        let mut dice = Dice::new(31);
        let mut number = 0;
        for round in 0..6 {
            let mut publishers = [brokers[0].client(version), brokers[1].client(version)];
            for _ in 0..3 + dice.roll(25) {
                number += 1;
                for (publisher, topic) in publishers.iter_mut().zip(["forth/x", "back/x"]) {
                    send(publisher, topic, number, 2);
                }
            }
            // Not waited for: what is on its way is cut off wherever it is.
            match round % 3 {
                2 => bridge.kill_and_restart(),
                at => brokers[at].kill_and_restart(),
            }
        }
        for ((broker, (_, ear)), topic) in brokers.iter().zip(&ears).zip(["back/x", "forth/x"]) {
            let mut ledger = Ledger::resumed(broker.connect(ear));
            ledger.take_until(&[topic], number);
            ledger.expect_each_once(topic, 1..=number);
        }
    }
}
