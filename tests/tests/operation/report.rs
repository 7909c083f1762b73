//! What operators see: health, metrics and `$SYS`.

use hoopoe_tests::broker::Options;
use hoopoe_tests::{Broker, Connect, Publish, Version, metrics, unique_id, unique_topic};

#[test]
fn health_and_readiness_are_served() {
    let broker = Broker::start();
    let (status, body) = metrics::get(broker.http(), "/health");
    assert_eq!((status, body.trim()), (200, "ok"));
    let (status, body) = metrics::get(broker.http(), "/ready");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"ready\":true"), "{body}");
    let (status, _) = metrics::get(broker.http(), "/none-such");
    assert_eq!(status, 404);
}

#[test]
fn metrics_count_what_happens() {
    let broker = Broker::start();
    let before = |name: &str| metrics::sum(broker.http(), name);
    assert_eq!(before("hoopoe_clients_connected"), 0.0);
    let topic = unique_topic("count");
    let mut client = broker.v5();
    client.subscribe(&topic, 1);
    for qos in [0, 1, 1, 2, 2, 2] {
        client.publish(Publish::new(&topic, "x").qos(qos));
        client.expect_message(&topic, "x");
    }
    client.ping();
    let connect = Connect::persistent(Version::V5, &unique_id("away"));
    let mut away = broker.connect(&connect);
    away.subscribe(&topic, 1);
    away.disconnect();
    client.publish(Publish::new(&topic, "waits").qos(1).retain());
    client.expect_message(&topic, "waits");
    for (name, wanted) in [
        ("hoopoe_clients_connected", 1.0),
        ("hoopoe_subscriptions", 2.0),
        ("hoopoe_publications_received_total{qos=\"0\"}", 1.0),
        ("hoopoe_publications_received_total{qos=\"1\"}", 3.0),
        ("hoopoe_publications_received_total{qos=\"2\"}", 3.0),
        ("hoopoe_retained_messages", 1.0),
        ("hoopoe_queued_messages", 1.0),
    ] {
        hoopoe_tests::eventually(&format!("{name} is {wanted}"), || {
            metrics::sum(broker.http(), name) == wanted
        });
    }
    assert!(before("hoopoe_received_bytes_total") > 0.0);
    assert!(before("hoopoe_commits_total") > 0.0);
}

/// Deliveries may be acknowledged in another order than they were sent. Those that a connection had
/// acknowledged before their turn are passed over the next one with what comes before them.
#[test]
fn what_was_acknowledged_before_its_turn_waits_no_more() {
    for version in Version::BOTH {
        let broker = Broker::start();
        let topic = unique_topic("turn");
        let connect = Connect::persistent(version, &unique_id("turn"));
        let mut away = broker.connect(&connect);
        away.subscribe(&topic, 1);
        let mut publisher = broker.v5();
        for payload in ["first", "second"] {
            publisher.publish(Publish::new(&topic, payload).qos(1));
        }
        let first = away.expect_publish();
        let second = away.expect_publish();
        assert_eq!((&first.payload[..], &second.payload[..]), (&b"first"[..], &b"second"[..]));
        away.complete(&second);
        away.ping();
        drop(away);
        let mut away = broker.connect(&connect);
        let again = away.expect_publish();
        assert_eq!((again.id, &again.payload[..]), (first.id, &b"first"[..]));
        away.complete(&again);
        away.ping();
        hoopoe_tests::eventually("nothing waits", || {
            metrics::sum(broker.http(), "hoopoe_queued_messages") == 0.0
        });
    }
}

#[test]
fn metrics_are_well_formed_and_name_no_client() {
    let broker = Broker::start();
    let id = unique_id("secretive");
    let topic = unique_topic("secretive");
    let mut client = broker.connect(&Connect::persistent(Version::V5, &id));
    client.subscribe(&topic, 1);
    client.publish(Publish::new(&topic, "x").qos(1));
    let (status, text) = metrics::get(broker.http(), "/metrics");
    assert_eq!(status, 200);
    assert!(!text.contains(&id) && !text.contains(&topic), "an unbounded label");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("hoopoe_") || name.starts_with("process_"), "{line}");
        value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn sys_topics_are_retained_and_renewed() {
    let start = |interval_secs: u32| {
        let listener = "[[listener]]\nurl = \"tcp://127.0.0.1:0\"\n";
        let text = format!("[mqtt]\nsys_interval_secs = {interval_secs}\n{listener}");
        Options::new().no_listeners().configuration(&text).start()
    };
    // Not renewed while they are read.
    let broker = start(3600);
    let mut client = broker.v311();
    for topic in [
        "$SYS/broker/version",
        "$SYS/broker/clients/connected",
        "$SYS/broker/messages/received",
        "$SYS/broker/subscriptions/count",
        "$SYS/broker/load/messages/received/1min",
    ] {
        // The first report may come live, if it was not there yet; then it is retained.
        client.subscribe(topic, 0);
        client.expect_publish_on(topic);
        client.unsubscribe(&[topic]);
        client.subscribe(topic, 0);
        let publish = client.expect_publish_on(topic);
        assert!(publish.retain, "{topic} is there at once");
        client.unsubscribe(&[topic]);
    }
    let broker = start(1);
    let mut client = broker.v311();
    client.subscribe("$SYS/broker/uptime", 0);
    let first = client.expect_publish_on("$SYS/broker/uptime");
    let second = client.expect_publish_on("$SYS/broker/uptime");
    assert!(!second.retain);
    assert_ne!(first.payload, second.payload, "renewed");
}

#[test]
fn sys_topics_can_be_turned_off() {
    let text = "[mqtt]\nsys_interval_secs = 0\n[[listener]]\nurl = \"tcp://127.0.0.1:0\"\n";
    let broker = Options::new().no_listeners().configuration(text).start();
    let mut client = broker.v311();
    client.subscribe("$SYS/#", 0);
    client.expect_nothing_from(&mut broker.v5(), 1);
}
