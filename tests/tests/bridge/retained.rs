//! What is retained here when a link is first connected.

use std::collections::BTreeSet;

use hoopoe_tests::wire::packet_type;
use hoopoe_tests::{Connect, Publish, Version, eventually, unique_id};

use crate::peers::{CONNECTED, Link, TOKEN, hoopoe, report};
use crate::proxy::{Fate, Proxy, Way, at};

#[test]
fn a_first_connection_that_is_cut_still_owes_what_is_retained() {
    // The broker reads half its write buffer at a time: one or two of these.
    const MESSAGES: u64 = 150;
    const BYTES: usize = 20_000;
    const LIMITS: &str = "[mqtt]\nmax_packet_bytes = 65536\n[limits]\nwrite_buffer_bytes = 65536\n";
    let far = hoopoe("far", &[]).start();
    let mut there = far.connect(&Connect::persistent(Version::V5, &unique_id("there")));
    there.subscribe("out/#", 1);
    let mut near = hoopoe("near", &[]).start();
    let mut here = near.v5();
    let numbers: Vec<u64> = (1..=MESSAGES).collect();
    for some in numbers.chunks(20) {
        let retained = |number: &u64| {
            Publish::new(&format!("out/{number}"), "x".repeat(BYTES)).qos(1).retain()
        };
        let ids: Vec<u16> = some.iter().map(|n| here.send_publish(retained(n))).collect();
        ids.into_iter().for_each(|id| assert_eq!(here.finish_publish(1, id), 0));
    }
    near.stop();
    let proxy = Proxy::to(far.tcp());
    let link = Link::to("l", proxy.address).rule("out/#", "out", 1);
    let head = format!("[broker]\nid = 'near'\n[http]\nadmin_token = '{TOKEN}'\n{LIMITS}");
    let text = head + &link.text();
    std::fs::write(near.folder().join("hoopoe.toml"), text).expect("its settings");
    proxy.plan(at(Way::Out, packet_type::PUBLISH, &[1, 3, 40, 200], Fate::CutBefore));
    near.start_again();
    let mut got = BTreeSet::new();
    while got.len() < MESSAGES as usize {
        let publish = there.expect_publish();
        there.complete(&publish);
        got.insert(publish.topic);
    }
    assert!(proxy.cuts() > 0);
    // Once it has all been sent, a restart does not send it again.
    eventually("nothing waits", || report(&near, "l")["queued"] == 0);
    near.restart();
    near.wait_for_log(CONNECTED);
    near.v5().publish(Publish::new("out/end", "").qos(1));
    eventually("it has gone", || report(&near, "l")["queued"] == 0);
    assert_eq!(report(&near, "l")["counts"]["sent"], 1);
}
