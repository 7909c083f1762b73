//! `hoopoe bridge`: a node of links alone, between two brokers that know nothing of it.

use hoopoe_tests::{Connect, RawClient, Version, eventually, unique_id};

use crate::peers::{Ledger, Link, Mosquitto, hoopoe, report, send};

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
