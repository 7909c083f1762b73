//! Links to mosquitto: both directions, both versions, all three qualities of service, TLS and
//! WebSocket, prefixes, retained messages.

use hoopoe_tests::broker::Options;
use hoopoe_tests::certificate::Certificates;
use hoopoe_tests::{Broker, Connect, Publish, RawClient, Version, eventually, reaper, unique_id};

use crate::peers::{CONNECTED, Ledger, Link, Mosquitto, hoopoe, report, send};

#[test]
fn messages_pass_both_ways_in_both_versions() {
    for version in Version::BOTH {
        let mosquitto = Mosquitto::plain();
        let link = Link::to("m", mosquitto.address)
            .version(version)
            .rule("out/#", "out", 2)
            .rule("in/#", "in", 2);
        let broker = hoopoe("a", &[link]).start();
        broker.wait_for_log(CONNECTED);
        let (mut here, mut there) = (broker.v5(), mosquitto.client(version));
        here.subscribe("in/#", 2);
        there.subscribe("out/#", 2);
        for qos in 0..=2 {
            here.publish(Publish::new("out/x", format!("{qos}")).qos(qos));
            let got = there.expect_message("out/x", format!("{qos}"));
            assert_eq!(got.qos, qos, "{version:?}");
            there.publish(Publish::new("in/x", format!("{qos}")).qos(qos));
            let got = here.expect_message("in/x", format!("{qos}"));
            assert_eq!(got.qos, qos, "{version:?}");
        }
    }
}

#[test]
fn what_passes_both_ways_does_not_come_back() {
    // 3.1.1 knows no No Local: the bit of bridges has mosquitto leave the link's own out.
    for (version, line) in [(Version::V5, ""), (Version::V311, "bridge_bit = true")] {
        let mosquitto = Mosquitto::plain();
        let link = Link::to("m", mosquitto.address).version(version).line(line);
        let broker = hoopoe("a", &[link.rule("#", "both", 1)]).start();
        broker.wait_for_log(CONNECTED);
        let (mut here, mut there) = (broker.v5(), mosquitto.client(version));
        here.subscribe("#", 1);
        there.subscribe("#", 1);
        here.publish(Publish::new("a", "here").qos(1));
        here.expect_message("a", "here");
        there.expect_message("a", "here");
        // Nothing of it is behind the next ones, which went the same way.
        there.publish(Publish::new("b", "there").qos(1));
        there.expect_message("b", "there");
        here.expect_message("b", "there");
        here.publish(Publish::new("c", "end").qos(1));
        here.expect_message("c", "end");
        there.expect_message("c", "end");
    }
}

#[test]
fn messages_wait_for_a_broker_that_is_away() {
    for version in Version::BOTH {
        let mut mosquitto = Mosquitto::plain();
        let subscriber = Connect::persistent(version, &unique_id("there"));
        let there = RawClient::connect(mosquitto.address, &subscriber);
        drop(Ledger::new(there, "seen/#", 2));
        let link = Link::to("m", mosquitto.address).version(version);
        let link = link.rule("seen/#", "out", 2).rule("back/#", "in", 2);
        let mut broker = hoopoe("a", &[link]).start();
        broker.wait_for_log(CONNECTED);
        mosquitto.stop();
        let mut here = broker.v5();
        for number in 1..=100 {
            send(&mut here, "seen/x", number, 2);
        }
        broker.kill_and_restart();
        mosquitto.start_again();
        let there = RawClient::connect(mosquitto.address, &subscriber);
        let mut ledger = Ledger::resumed(there);
        ledger.take_until(&["seen/x"], 100);
        ledger.expect_each_once("seen/x", 1..=100);
        // And the other way: the remote session keeps what comes while the link is away.
        broker.wait_for_log(CONNECTED);
        let connect = Connect::persistent(Version::V5, &unique_id("here"));
        drop(Ledger::new(broker.connect(&connect), "back/#", 2));
        broker.stop();
        let mut there = mosquitto.client(version);
        for number in 1..=100 {
            send(&mut there, "back/x", number, 2);
        }
        broker.start_again();
        let mut ledger = Ledger::resumed(broker.connect(&connect));
        ledger.take_until(&["back/x"], 100);
        ledger.expect_each_once("back/x", 1..=100);
    }
}

#[test]
fn topics_change_their_prefixes() {
    let mosquitto = Mosquitto::plain();
    let link = Link::to("m", mosquitto.address)
        .rule("#", "out", 1)
        .prefixes("factory/", "sites/paris/")
        .rule("orders/#", "in", 1)
        .prefixes("head/", "");
    let broker = hoopoe("a", &[link]).start();
    broker.wait_for_log(CONNECTED);
    let (mut here, mut there) = (broker.v5(), mosquitto.client(Version::V5));
    here.subscribe("head/#", 1);
    there.subscribe("sites/#", 1);
    here.publish(Publish::new("factory/press/1", "up").qos(1));
    there.expect_message("sites/paris/press/1", "up");
    there.publish(Publish::new("orders/7", "go").qos(1));
    here.expect_message("head/orders/7", "go");
}

#[test]
fn retained_messages_pass_as_such_or_not_at_all() {
    for retained in [true, false] {
        let mosquitto = Mosquitto::plain();
        let mut there = mosquitto.client(Version::V5);
        there.publish(Publish::new("in/before", "x").qos(1).retain());
        let link = Link::to("m", mosquitto.address)
            .line(&format!("retained = {retained}"))
            .rule("out/#", "out", 1)
            .rule("in/#", "in", 1);
        let mut broker = hoopoe("a", &[]).start();
        broker.v5().publish(Publish::new("out/before", "x").qos(1).retain());
        broker.stop();
        let text = format!("[broker]\nid = 'a'\n{}", link.text());
        std::fs::write(broker.folder().join("hoopoe.toml"), text).unwrap();
        broker.start_again();
        broker.wait_for_log(CONNECTED);
        let mut here = broker.v5();
        here.publish(Publish::new("out/after", "y").qos(1).retain());
        there.publish(Publish::new("in/after", "y").qos(1).retain());
        // They have passed when what was sent after them has.
        here.subscribe("in/mark", 1);
        there.subscribe("out/mark", 1);
        here.publish(Publish::new("out/mark", "").qos(1));
        there.expect_message("out/mark", "");
        there.publish(Publish::new("in/mark", "").qos(1));
        here.expect_message("in/mark", "");
        let kept = |mut client: RawClient, filter: &str| {
            client.subscribe(filter, 1);
            client.ping_past_publishes();
            let mut topics = Vec::new();
            for _ in 0..2 * usize::from(retained) {
                topics.push(client.take_publish().topic);
            }
            client.ping();
            topics.sort();
            topics
        };
        let expected = |stem: &str| match retained {
            true => vec![format!("{stem}/after"), format!("{stem}/before")],
            false => Vec::new(),
        };
        assert_eq!(kept(mosquitto.client(Version::V5), "out/#"), expected("out"));
        assert_eq!(kept(broker.v5(), "in/#"), expected("in"));
    }
}

#[test]
fn what_no_rule_asks_for_any_more_is_unsubscribed_there() {
    for version in Version::BOTH {
        let mut mosquitto = Mosquitto::plain();
        let link = || Link::to("l", mosquitto.address).version(version).rule("new/#", "in", 1);
        let mut broker = hoopoe("a", &[link().rule("old/#", "in", 1)]).start();
        broker.wait_for_log(CONNECTED);
        let mut there = mosquitto.client(version);
        broker.stop();
        // It waits in the session that mosquitto keeps.
        there.publish(Publish::new("old/x", "1").qos(1));
        let settings = broker.folder().join("hoopoe.toml");
        let text = std::fs::read_to_string(&settings).expect("the settings");
        let of_old = text.rfind("[[bridge.rule]]").expect("the rule of old/#");
        std::fs::write(&settings, &text[..of_old]).expect("the settings");
        // Started and killed before it can say so there, it still knows when it can.
        mosquitto.stop();
        broker.start_again();
        broker.wait_for_log("bridge not connected");
        broker.kill();
        mosquitto.start_again();
        broker.start_again();
        broker.wait_for_log(CONNECTED);
        let mut there = mosquitto.client(version);
        let mut here = broker.v5();
        here.subscribe("new/#", 1);
        there.publish(Publish::new("old/x", "2").qos(1));
        there.publish(Publish::new("new/x", "1").qos(1));
        here.expect_message("new/x", "1");
        // What had waited came, was acknowledged, and fitted no rule.
        let counts = || report(&broker, "l")["counts"].clone();
        eventually("it is counted", || counts()["arrived"] == 1);
        assert_eq!(counts()["without_rule"], 1, "{version:?}");
    }
}

#[test]
fn tls_with_an_authority_and_a_certificate_of_ones_own() {
    let folder = reaper::temporary_folder("link-tls");
    let files = Certificates::generate(&folder);
    let mosquitto = Mosquitto::start(&format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true",
        files.authority.display(),
        files.server.display(),
        files.server_key.display()
    ));
    for version in Version::BOTH {
        let link = Link::new("m", format!("mqtts://{}", mosquitto.special))
            .version(version)
            .line(&format!("client_id = 'tls-{version:?}'"))
            .line(&format!("ca_file = '{}'", files.authority.display()))
            .line(&format!("cert_file = '{}'", files.client.display()))
            .line(&format!("key_file = '{}'", files.client_key.display()))
            .rule("up/#", "out", 2)
            .rule("down/#", "in", 2);
        let broker = hoopoe("a", &[link]).start();
        broker.wait_for_log(CONNECTED);
        exchange(&broker, &mosquitto, version);
    }
    // By name, which the certificate has to have as well.
    let listener = format!(
        "[[listener]]\nurl = \"tls://127.0.0.1:0\"\ntls = {{ cert = {:?}, key = {:?} }}\n",
        files.server, files.server_key
    );
    let far = Options::new().no_listeners().configuration(&listener).start();
    let link = Link::new("n", format!("mqtts://localhost:{}", far.address("tls").port()))
        .line(&format!("ca_file = '{}'", files.authority.display()))
        .rule("up/#", "out", 1);
    hoopoe("a", &[link]).start().wait_for_log(CONNECTED);
    // An authority that has nothing to do with it is not believed.
    let stranger = Certificates::generate(&reaper::temporary_folder("stranger"));
    let link = Link::new("m", format!("mqtts://{}", mosquitto.special))
        .line(&format!("ca_file = '{}'", stranger.authority.display()))
        .rule("up/#", "out", 1);
    let broker = hoopoe("a", &[link]).start();
    broker.wait_for_log("bridge not connected");
    assert!(!broker.has_logged(CONNECTED));
}

#[test]
fn websocket() {
    let mosquitto = Mosquitto::start("protocol websockets");
    for version in Version::BOTH {
        let link = Link::new("m", format!("ws://{}/mqtt", mosquitto.special))
            .version(version)
            .line(&format!("client_id = 'ws-{version:?}'"))
            .rule("up/#", "out", 2)
            .rule("down/#", "in", 2);
        let broker = hoopoe("a", &[link]).start();
        broker.wait_for_log(CONNECTED);
        exchange(&broker, &mosquitto, version);
    }
}

/// Small and large messages, either way.
fn exchange(broker: &Broker, mosquitto: &Mosquitto, version: Version) {
    let (mut here, mut there) = (broker.v5(), mosquitto.client(version));
    here.subscribe("down/#", 2);
    there.subscribe("up/#", 2);
    let long = "x".repeat(200_000);
    for text in ["short", &long] {
        here.publish(Publish::new("up/x", text).qos(2));
        there.expect_message("up/x", text);
        there.publish(Publish::new("down/x", text).qos(2));
        here.expect_message("down/x", text);
    }
}
