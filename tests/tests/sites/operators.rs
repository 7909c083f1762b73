//! What operators see of the lines between sites, and what they tell them.

use hoopoe_tests::program::{hoopoe_command, run_to_end};
use hoopoe_tests::{Connect, Http, Publish, Version, eventually, metrics, unique_id};
use serde_json::{Value, json};

use crate::world::{ADMIN, Sent, World, await_topic, send};

fn line(http: &Http, site: &str) -> Value {
    let answer = http.call("admin/sites/list", json!({}));
    let sites = answer["sites"].as_array().expect("a list");
    sites.iter().find(|line| line["site"] == site).expect("the line").clone()
}

fn metric(world: &World, site: &str, name: &str, other: &str) -> Option<f64> {
    let (_, text) = metrics::get(world.broker(site).http(), "/metrics");
    let sample = format!("{name}{{site=\"{other}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok())
}

#[test]
fn a_line_shows_what_it_owes_and_since_when() {
    let world = World::start(&["fra", "ny"], "answer_timeout_ms = 500");
    let http = world.operator(world.site("ny"));
    let mut b = world.device(Version::V5, "bob-ny");
    assert_eq!(send(&mut b, "im/u/alice/msg/c0", "0"), Sent::Seq(1));
    let before = line(&http, "fra");
    assert_eq!((&before["state"], &before["losses"]), (&json!("up"), &json!(0)));
    assert!(before["since"].as_u64() > Some(1_600_000_000_000), "{before}");
    assert!(before["counts"]["sent"].as_u64() > Some(2), "{before}");
    eventually("something passes in a second", || {
        line(&http, "fra")["rates"]["received_bytes"].as_f64() > Some(0.0)
    });
    eventually("nothing is owed", || line(&http, "fra")["owed"] == 0);
    world.cut();
    world.until_cut("ny", "fra");
    for n in 1..=7 {
        assert_eq!(send(&mut b, &format!("im/u/alice/msg/c{n}"), "x"), Sent::Held);
    }
    eventually("seven are held", || line(&http, "fra")["held"] == 7);
    let cut = line(&http, "fra");
    assert_eq!((&cut["state"], &cut["losses"]), (&json!("down"), &json!(1)));
    // How far users have read is owed too.
    let owed = cut["owed"].as_u64();
    assert!((Some(7)..Some(20)).contains(&owed), "{cut}");
    assert!(cut["owed_bytes"].as_u64() > Some(70), "{cut}");
    assert!(cut["since"].as_u64() > before["since"].as_u64(), "{cut}");
    assert!(cut["last_error"]["what"].as_str().is_some_and(|what| what.contains("not heard")));
    eventually("it lags", || line(&http, "fra")["lag_ms"].as_u64() > Some(0));
    assert_eq!(metric(&world, "ny", "hoopoe_site_up", "fra"), Some(0.0));
    assert_eq!(metric(&world, "ny", "hoopoe_site_held", "fra"), Some(7.0));
    assert!(metric(&world, "ny", "hoopoe_site_owed", "fra") >= Some(7.0));
    assert!(metric(&world, "ny", "hoopoe_site_lag_seconds", "fra") > Some(0.0));
    // The other end has nothing to say of them, and knows that the line is cut.
    world.until_cut("fra", "ny");
    assert_eq!(line(&world.operator(0), "ny")["held"], 0);
    world.heal();
    for n in 1..=7 {
        await_topic(&mut b, &format!("im/me/sys/sent/c{n}/u/alice/{}/", n + 1));
    }
    eventually("nothing is owed any more", || {
        let line = line(&http, "fra");
        line["owed"] == 0 && line["owed_bytes"] == 0 && line["held"] == 0 && line["lag_ms"] == 0
    });
    assert_eq!(metric(&world, "ny", "hoopoe_site_up", "fra"), Some(1.0));
}

#[test]
fn a_paused_line_waits_and_loses_nothing() {
    let world = World::start(&["fra", "ny"], "answer_timeout_ms = 500");
    let http = world.operator(world.site("ny"));
    let mut b = world.device(Version::V5, "bob-ny");
    let paused = http.call("admin/sites/pause", json!({ "site": "fra" }));
    assert_eq!(paused["state"], "paused");
    assert_eq!(send(&mut b, "im/u/alice/msg/c1", "held"), Sent::Held);
    // Who is not answered takes the line for cut.
    world.until_cut("fra", "ny");
    assert_eq!(line(&world.operator(0), "ny")["state"], "down");
    eventually("one is held", || line(&http, "fra")["held"] == 1);
    http.call("admin/sites/resume", json!({ "site": "fra" }));
    await_topic(&mut b, "im/me/sys/sent/c1/u/alice/1/");
    assert_eq!(world.texts("alice", "u/bob-ny"), ["held"]);
    eventually("it is up", || line(&http, "fra")["state"] == "up");
    http.refused("admin/sites/pause", json!({ "site": "nowhere" }), 404);
    // And the program for it.
    let mut command = hoopoe_command();
    let url = format!("http://{}", world.broker("ny").http());
    command.args(["ctl", "--url", &url, "--token", ADMIN, "sites", "list"]);
    let (status, said) = run_to_end(command);
    assert!(status.success() && said.contains("fra") && said.contains("up"), "{said}");
}

#[test]
fn the_lines_are_among_the_topics_of_the_system() {
    let world = World::start(&["fra", "ny"], "[mqtt]\nsys_interval_secs = 1");
    let mut reader =
        world.broker("ny").connect(&Connect::v5(&unique_id("sys")).login("x-ny", "any"));
    reader.subscribe("$SYS/broker/site/fra/#", 0);
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < 9 || seen.get("state").is_none_or(|state| state != "up") {
        let Publish { topic, payload, .. } = reader.take_publish();
        if let Some(name) = topic.strip_prefix("$SYS/broker/site/fra/") {
            seen.insert(name.to_owned(), String::from_utf8(payload).expect("text"));
        }
    }
    let names: Vec<&str> = seen.keys().map(String::as_str).collect();
    let wanted = ["held", "lag_ms", "last_error", "losses", "owed", "owed_bytes"];
    assert_eq!(names[..6], wanted);
    assert_eq!(names[6..], ["received", "sent", "state"]);
}
