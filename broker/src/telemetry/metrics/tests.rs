//! Reads the whole text back with a parser as strict as Prometheus' own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::telemetry::Gauges;
use crate::transport::{GateLimits, ListenerGate};

type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
struct ParsedFamily {
    help: String,
    kind: String,
    samples: Vec<(String, Labels, f64)>,
}

/// Families by name. Panics on anything Prometheus would refuse, and on a family torn apart.
fn parse(text: &str) -> BTreeMap<String, ParsedFamily> {
    let mut families: BTreeMap<String, ParsedFamily> = BTreeMap::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            let family = ParsedFamily { help: help.to_owned(), ..Default::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert_eq!(name, current, "TYPE does not follow HELP");
            families.get_mut(name).expect(line).kind = kind.to_owned();
        } else {
            let (name, labels, value) = parse_sample(line);
            let family = families.get_mut(&current).expect(line);
            let suffixes: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                "counter" | "gauge" => &[""],
                other => panic!("{current} is a {other}"),
            };
            let suffix = name.strip_prefix(&current).expect(line);
            assert!(suffixes.contains(&suffix), "{line} in {current}");
            family.samples.push((suffix.to_owned(), labels, value));
        }
    }
    families
}

fn parse_sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').expect(line);
    let (name, mut rest) = match head.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').expect(line)),
        None => (head, ""),
    };
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect(line);
        assert!(is_name(label), "{line}");
        let mut content = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect(line) {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect(line).1 {
                    'n' => content.push('\n'),
                    quoted @ ('"' | '\\') => content.push(quoted),
                    other => panic!("\\{other} in {line}"),
                },
                (_, plain) => content.push(plain),
            }
        };
        assert!(labels.insert(label.to_owned(), content).is_none(), "{label} twice: {line}");
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    (name.to_owned(), labels, value.parse().expect(line))
}

fn is_name(name: &str) -> bool {
    let first = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    first && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}

fn instruments() -> Instruments {
    let telemetry = Arc::new(Telemetry::new(2, 3));
    let worker = &telemetry.workers[1];
    worker.connections.add(7);
    worker.publish_in(QoS::AtLeastOnce);
    worker.publish_out(QoS::ExactlyOnce);
    worker.packets_out.add(4);
    worker.stored_sessions.add(3);
    worker.dropped(Dropped::SlowReceiver);
    let shard = &telemetry.shards[2];
    shard.commits.add(3);
    shard.overflowed.add(5);
    shard.writable.store(false, Ordering::Release);
    for micros in [90, 300, 2_000_000] {
        shard.commit_micros.record(micros);
        shard.batch_commands.record(micros);
    }
    let gauges = Gauges { stored_sessions: 11, queued_messages: 12, ..Gauges::default() };
    let limits = GateLimits { connections_max: 1, connect_rate: None };
    let gate = ListenerGate::new(&limits, Instant::now());
    let address = IpAddr::from([203, 0, 113, 5]);
    let _gone = gate.admit(address, Instant::now());
    let listeners = ["tcp://127.0.0.1:1883", "ws://[::1]:8083/a\"b\\c,d={}"];
    let listeners = listeners.map(|url| (url.to_owned(), gate.clone()));
    Instruments::new(telemetry, listeners.into(), Box::new(move || gauges), "sync")
}

fn families() -> BTreeMap<String, ParsedFamily> {
    parse(&metrics(&instruments()))
}

#[test]
fn every_family_says_what_it_is() {
    for (name, family) in families() {
        assert!(!family.help.is_empty() && !family.help.contains('\\'), "{name}");
        assert!(!family.samples.is_empty(), "{name} has no sample");
        let counts = name.ends_with("_total");
        assert_eq!(counts, family.kind == "counter", "{name} is a {}", family.kind);
        assert!(name.starts_with("hoopoe_") || name.starts_with("process_"), "{name}");
    }
}

#[test]
fn no_sample_comes_twice() {
    for (name, family) in families() {
        let mut seen = BTreeSet::new();
        for (suffix, labels, _) in family.samples {
            assert!(seen.insert((suffix, labels.clone())), "{name} {labels:?} twice");
        }
    }
}

#[test]
fn labels_are_a_closed_set() {
    let known = [
        "class",
        "durability",
        "le",
        "listener",
        "profile",
        "qos",
        "reason",
        "receiver",
        "revision",
        "shard",
        "version",
        "worker",
    ];
    for (name, family) in families() {
        for label in family.samples.iter().flat_map(|(_, labels, _)| labels.keys()) {
            assert!(known.contains(&label.as_str()), "{label} in {name}");
        }
    }
}

#[test]
fn buckets_never_fall_and_end_at_the_count() {
    let families = families();
    let histograms: Vec<_> =
        families.iter().filter(|(_, family)| family.kind == "histogram").collect();
    assert_eq!(histograms.len(), 2);
    for (name, family) in histograms {
        let mut by_shard: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for (suffix, labels, value) in &family.samples {
            let shard = labels["shard"].clone();
            match suffix.as_str() {
                "_bucket" => {
                    let bound = labels["le"].parse().expect("a bound is a number or +Inf");
                    by_shard.entry(shard).or_default().push((bound, *value));
                }
                "_count" => {
                    counts.insert(shard, *value);
                }
                _ => {}
            }
        }
        assert_eq!(by_shard.len(), 3, "{name}");
        for (shard, buckets) in by_shard {
            for pair in buckets.windows(2) {
                assert!(pair[0].0 < pair[1].0, "{name} {shard}: bounds {pair:?}");
                assert!(pair[0].1 <= pair[1].1, "{name} {shard}: counts {pair:?}");
            }
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, counts[&shard])), "{name} {shard}");
        }
    }
}

#[test]
fn values_come_from_the_counters() {
    let families = families();
    let value = |family: &str, wanted: &[(&str, &str)]| {
        let samples = &families.get(family).unwrap_or_else(|| panic!("no {family}")).samples;
        let matching: Vec<f64> = samples
            .iter()
            .filter(|(_, labels, _)| wanted.iter().all(|(label, is)| labels[*label] == **is))
            .map(|(.., value)| *value)
            .collect();
        assert_eq!(matching.len(), 1, "{family} {wanted:?}");
        matching[0]
    };
    let strange = ("listener", "ws://[::1]:8083/a\"b\\c,d={}");
    for (family, labels, expected) in [
        ("hoopoe_connections", &[("worker", "1")][..], 7.0),
        ("hoopoe_connections", &[("worker", "0")], 0.0),
        ("hoopoe_publications_received_total", &[("qos", "1")], 1.0),
        ("hoopoe_publications_sent_total", &[("qos", "2")], 1.0),
        ("hoopoe_packets_sent_total", &[], 5.0),
        ("hoopoe_publications_dropped_total", &[("reason", "slow_receiver")], 1.0),
        ("hoopoe_publications_dropped_total", &[("reason", "queue_full")], 5.0),
        ("hoopoe_commits_total", &[("shard", "2")], 3.0),
        ("hoopoe_store_writable", &[("shard", "2")], 0.0),
        ("hoopoe_store_writable", &[("shard", "0")], 1.0),
        ("hoopoe_sessions_stored", &[], 11.0),
        ("hoopoe_sessions_away", &[], 8.0),
        ("hoopoe_queued_messages", &[], 12.0),
        ("hoopoe_listener_accepted_total", &[strange], 1.0),
        ("hoopoe_listener_refused_total", &[strange, ("reason", "full")], 0.0),
        ("hoopoe_durability_info", &[("durability", "sync")], 1.0),
    ] {
        assert_eq!(value(family, labels), expected, "{family} {labels:?}");
    }
    let micros: Vec<_> = families["hoopoe_commit_seconds"].samples.iter().collect();
    let sum = micros.iter().find(|(suffix, labels, _)| suffix == "_sum" && labels["shard"] == "2");
    assert!(sum.is_some_and(|(.., sum)| (sum - 2.00039).abs() < 1e-9), "{sum:?}");
}

#[test]
fn without_listeners_there_are_no_listener_families() {
    let telemetry = Arc::new(Telemetry::new(1, 1));
    let instruments = Instruments::new(telemetry, Vec::new(), Box::new(Gauges::default), "os");
    let families = parse(&metrics(&instruments));
    assert!(families.keys().all(|name| !name.starts_with("hoopoe_listener_")));
}
