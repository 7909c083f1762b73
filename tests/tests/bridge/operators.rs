//! What operators see of links and tell them: HTTP, `hoopoe ctl`, metrics, `$SYS`; and what is wrong
//! with their settings.

use hoopoe_tests::broker::Options;
use hoopoe_tests::program::{hoopoe_command, run_to_end};
use hoopoe_tests::{Broker, Connect, Http, Publish, Version, eventually, metrics};
use serde_json::json;

use crate::peers::{CONNECTED, Ledger, Link, Mosquitto, TOKEN, hoopoe, report, send};

fn tell(broker: &Broker, order: &str) -> serde_json::Value {
    let http = Http::new(broker.http()).bearer(TOKEN);
    http.call(&format!("admin/bridges/{order}"), json!({ "name": "l" }))
}

#[test]
fn a_link_is_paused_resumed_and_its_queue_dropped() {
    let mosquitto = Mosquitto::plain();
    let mut there = Ledger::new(mosquitto.client(Version::V5), "out/#", 2);
    let link = Link::to("l", mosquitto.address).rule("out/#", "out", 2);
    let mut broker = hoopoe("a", &[link]).start();
    broker.wait_for_log(CONNECTED);
    let mut here = broker.v5();
    send(&mut here, "out/x", 1, 2);
    there.take_until(&["out/x"], 1);
    assert_eq!(tell(&broker, "pause")["state"], "paused");
    for number in 2..=5 {
        send(&mut here, "out/x", number, 2);
    }
    eventually("they wait", || report(&broker, "l")["queued"] == 4);
    assert_eq!(report(&broker, "l")["state"], "paused");
    tell(&broker, "drop-queue");
    eventually("none waits", || report(&broker, "l")["queued"] == 0);
    for number in 6..=8 {
        send(&mut here, "out/x", number, 2);
    }
    tell(&broker, "resume");
    there.take_until(&["out/x"], 8);
    assert_eq!(there.got["out/x"], [1, 6, 7, 8]);
    eventually("they are acknowledged", || report(&broker, "l")["queued"] == 0);
    let shown = report(&broker, "l");
    assert_eq!((&shown["counts"]["sent"], &shown["connects"]), (&json!(4), &json!(2)));
    // After a restart a link that was paused connects: what lasts stands in the settings.
    tell(&broker, "pause");
    broker.restart();
    broker.wait_for_log(CONNECTED);
}

#[test]
fn operators_see_a_link_in_every_place() {
    let mut mosquitto = Mosquitto::plain();
    let link = Link::to("l", mosquitto.address).rule("out/#", "out", 1);
    let broker = hoopoe("a", &[link]).start();
    broker.wait_for_log(CONNECTED);
    mosquitto.stop();
    let mut here = broker.v5();
    here.publish(Publish::new("out/x", "").qos(1));
    eventually("the link is away", || report(&broker, "l")["last_error"].is_object());
    here.subscribe("$SYS/broker/bridge/l/#", 0);
    // What is retained comes by name, and is of before or after the publication.
    let mut seen = std::collections::BTreeMap::new();
    while !["state", "lag_ms", "failures"].iter().all(|name| seen.contains_key(*name))
        || seen.get("queued").is_none_or(|queued| queued == "0")
    {
        let publish = here.expect_publish();
        let name = publish.topic.rsplit('/').next().expect("a level").to_owned();
        seen.insert(name, String::from_utf8_lossy(&publish.payload).into_owned());
    }
    let (_, page) = metrics::get(broker.http(), "/metrics");
    for name in ["hoopoe_bridge_connected", "hoopoe_bridge_queued_messages"] {
        assert!(page.contains(&format!("{name}{{bridge=\"l\"}}")), "{page}");
    }
    let http = Http::new(broker.http());
    let refused = http.try_call("admin/bridges/list", json!({}));
    assert_eq!(refused.status, 401);
    http.bearer(TOKEN).refused("admin/bridges/pause", json!({ "name": "nobody" }), 404);
    let mut command = hoopoe_command();
    command.args(["ctl", "--url", &format!("http://{}", broker.http()), "--token", TOKEN]);
    command.args(["bridges", "list"]);
    let (status, said) = run_to_end(command);
    // It tries again and again, and may be in the middle of that.
    let is_away = said.contains("waiting") || said.contains("connecting");
    assert!(status.success() && is_away, "{said}");
}

#[test]
fn a_manual_link_waits_for_an_operator_and_a_lazy_one_for_work() {
    let mosquitto = Mosquitto::plain();
    let mut there = Ledger::new(mosquitto.client(Version::V5), "#", 1);
    let link = Link::to("l", mosquitto.address).line("start = 'manual'").rule("m", "out", 1);
    let lazy = Link::to("lazy", mosquitto.address)
        .line("start = 'lazy'\nidle_timeout_secs = 1")
        .rule("z", "out", 1);
    let broker = hoopoe("a", &[link, lazy]).start();
    let mut here = broker.v5();
    send(&mut here, "m", 1, 1);
    send(&mut here, "z", 1, 1);
    there.take_until(&["z"], 1);
    assert!(!there.got.contains_key("m"));
    assert_eq!(report(&broker, "l")["state"], "idle");
    tell(&broker, "resume");
    there.take_until(&["m"], 1);
    eventually("nothing to do", || report(&broker, "lazy")["state"] == "idle");
    send(&mut here, "z", 2, 1);
    there.take_until(&["z"], 2);
    there.expect_each_once("z", 1..=2);
}

#[test]
fn the_queue_of_a_link_has_limits_of_its_own() {
    let mosquitto = Mosquitto::plain();
    let dropping = Link::to("l", mosquitto.address)
        .line("start = 'manual'\nqueue_messages = 10")
        .rule("d/#", "out", 1);
    let refusing = Link::to("r", mosquitto.address)
        .line("start = 'manual'\nqueue_messages = 10\nqueue_full = 'refuse'")
        .rule("r/#", "out", 1);
    let broker = hoopoe("a", &[dropping, refusing]).start();
    let mut here = broker.v5();
    for number in 1..=10 {
        send(&mut here, "d/x", number, 1);
        send(&mut here, "r/x", number, 1);
    }
    assert_eq!(here.try_publish(Publish::new("r/x", "11").qos(1)), 0x97);
    for number in 11..=30 {
        send(&mut here, "d/x", number, 1);
    }
    let mut there = Ledger::new(mosquitto.client(Version::V5), "#", 1);
    tell(&broker, "resume");
    there.take_until(&["d/x"], 30);
    there.expect_each_once("d/x", 21..=30);
}

#[test]
fn what_is_wrong_with_a_link_names_the_key() {
    let plain = || Link::new("l", "mqtt://127.0.0.1:1").rule("#", "out", 1);
    let old = || Link::new("l", "mqtt://127.0.0.1:1").version(Version::V311);
    for (link, key) in [
        (plain().line("protocoll = '5.0'"), "bridge[0].protocoll"),
        (plain().line("protocol = '4'"), "bridge[0].protocol"),
        (Link::new("l", "http://x").rule("#", "out", 1), "bridge[0].url"),
        (Link::new("no name", "mqtt://x").rule("#", "out", 1), "bridge[0].name"),
        (Link::new("l", "mqtt://x"), "bridge[0].rule"),
        (Link::new("l", "mqtt://x").rule("a#", "out", 1), "bridge[0].rule[0].pattern"),
        (Link::new("l", "mqtt://x").rule("im/#", "out", 1), "bridge[0].rule[0].pattern"),
        (Link::new("l", "mqtt://x").rule("a", "out", 3), "bridge[0].rule[0].qos"),
        (Link::new("l", "mqtt://x").rule("a", "up", 1), "bridge[0].rule[0].direction"),
        (plain().prefixes("+/", ""), "bridge[0].rule[0].local_prefix"),
        (plain().line("cert_file = 'x'"), "bridge[0].key_file"),
        (plain().line("ca_file = 'x'"), "bridge[0].ca_file"),
        (plain().line("max_inflight = 0"), "bridge[0].max_inflight"),
        (plain().line("queue_bytes = 1"), "bridge[0].queue_bytes"),
        (plain().line("bridge_bit = true"), "bridge[0].bridge_bit"),
        (plain().line("hop_prefix = 'via'"), "bridge[0].hop_prefix"),
        (Link::new("l", "mqtt://x").line("start = 'lazy'").rule("a", "in", 1), "bridge[0].start"),
        (old().rule("#", "both", 1), "bridge[0].rule[0].direction"),
        (old().rule("a/+", "in", 1).rule("b", "out", 1).prefixes("", "a/"), "rule[0].direction"),
        (old().rule("b", "out", 1).rule("b/#", "in", 1), "rule[1].direction"),
    ] {
        let options = Options::new().configuration(&link.text());
        let (status, said) = options.run_to_end();
        assert!(!status.success() && said.contains(key), "{key}: {said}");
    }
    let twice = format!("{}{}", plain().text(), plain().text());
    let (_, said) = Options::new().configuration(&twice).run_to_end();
    assert!(said.contains("bridge[1].name"), "{said}");
    // A file that is not there is told with the link that names it.
    let link = plain().line("password_file = '/no/such'\nusername = 'u'");
    let (status, said) = Options::new().configuration(&link.text()).run_to_end();
    assert!(!status.success() && said.contains("`l`") && said.contains("/no/such"), "{said}");
}

#[test]
fn nobody_takes_a_links_place() {
    let mosquitto = Mosquitto::plain();
    let link = Link::to("l", mosquitto.address).rule("out/#", "out", 1);
    let broker = hoopoe("a", &[link]).start();
    broker.wait_for_log(CONNECTED);
    for version in Version::BOTH {
        let mut client = broker.open(version);
        client.send(&Connect::new(version, "$bridge/l").login("bridge:l", "x").encode());
        // Client Identifier not valid.
        client.expect_refused(&[if version == Version::V5 { 0x85 } else { 2 }]);
    }
    assert_eq!(report(&broker, "l")["state"], "connected");
}

#[test]
fn what_is_taken_out_of_the_settings_is_gone_after_a_restart() {
    let mosquitto = Mosquitto::plain();
    let away = || Link::to("l", mosquitto.address).line("start = 'manual'");
    let other = || Link::to("other", mosquitto.address).line("start = 'manual'");
    let links =
        [away().rule("old/#", "out", 1).rule("new/#", "out", 1), other().rule("#", "out", 1)];
    let mut broker = hoopoe("a", &links).start();
    send(&mut broker.v5(), "old/x", 1, 1);
    broker.stop();
    // A rule of one link, and the whole other link.
    let text = format!(
        "[broker]\nid = 'a'\n[http]\nadmin_token = '{TOKEN}'\n{}",
        away().rule("new/#", "out", 1).text()
    );
    std::fs::write(broker.folder().join("hoopoe.toml"), text).expect("the settings");
    broker.start_again();
    broker.wait_for_log("the queue of a bridge that is no more was dropped");
    let mut here = broker.v5();
    send(&mut here, "old/x", 2, 1);
    send(&mut here, "new/x", 1, 1);
    eventually("what still has a rule waits, and what waited before", || {
        report(&broker, "l")["queued"] == 2
    });
    let http = Http::new(broker.http()).bearer(TOKEN);
    let sessions = http.call("admin/sessions/list", json!({}));
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(1), "{sessions}");
}
