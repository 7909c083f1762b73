//! What the subscription index costs with a million filters.
//!
//! Prints, besides the timings, the resident memory per subscription, filter text apart.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use hoopoe_core::index::Index;

/// What the broker keeps with a subscription, in size: a mailbox, an identifier, options.
type Value = (Arc<u64>, u32, u8);

const FILTERS: u64 = 1_000_000;
const RECEIVERS: u64 = 5_000;
const MEMBERS: u64 = 100_000;
/// Coprime with [`FILTERS`]: steps through all of them in an order caches do not like.
const STRIDE: u64 = 611_953;

/// Writes `users/<number>` and the rest into a string that is used again and again.
fn name(buffer: &mut String, number: u64, rest: &str) {
    buffer.clear();
    // Writing to a string does not fail.
    let _ = write!(buffer, "users/{number:07}/{rest}");
}

fn filled(rest: &str, value: &Value) -> Index<Value> {
    let index = Index::new().reserve_first_level("im");
    let mut filter = String::new();
    for number in 0..FILTERS {
        name(&mut filter, number, rest);
        index.insert(&filter, number, value.clone());
    }
    index
}

/// Resident bytes of this process, where the system tells.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Builds an index and reports what it occupies beyond the text of its filters.
fn measured(kind: &str, rest: &str, value: &Value) -> Index<Value> {
    let before = resident_bytes();
    let index = filled(rest, value);
    let bytes = resident_bytes().saturating_sub(before);
    let mut text = String::new();
    name(&mut text, 0, rest);
    let beyond = (bytes / FILTERS).saturating_sub(text.len() as u64);
    let _ = writeln!(
        std::io::stderr(),
        "{kind}: {FILTERS} filters, {} bytes each, {beyond} of them beyond the text",
        bytes / FILTERS,
    );
    index
}

fn matching(criterion: &mut Criterion, value: &Value) {
    let mut group = criterion.benchmark_group("match_of_1M");
    for (kind, rest) in [("exact", "in"), ("user_and_hash", "#"), ("user_plus_in", "+/in")] {
        let index = measured(kind, rest, value);
        let topic_rest = if kind == "user_plus_in" { "phone/in" } else { "in" };
        let (mut topic, mut number) = (String::new(), 0);
        group.bench_function(BenchmarkId::new("all_topics_in_turn", kind), |bencher| {
            bencher.iter(|| {
                number = (number + STRIDE) % FILTERS;
                name(&mut topic, number, topic_rest);
                let mut found = 0;
                index.matches(&topic, |subscriber, _| found += subscriber + 1);
                assert_eq!(found, number + 1);
            });
        });
        name(&mut topic, 77, topic_rest);
        group.bench_function(BenchmarkId::new("one_topic", kind), |bencher| {
            bencher.iter(|| index.matches(black_box(&topic), |id, _| _ = black_box(id)));
        });
        let hash = Index::<Value>::hash(&topic);
        group.bench_function(BenchmarkId::new("stamp", kind), |bencher| {
            bencher.iter(|| index.stamp(black_box(hash)));
        });
        index.insert("#", 1, value.clone());
        index.insert("+/+/in", 1, value.clone());
        index.insert("users/+/+", 1, value.clone());
        group.bench_function(BenchmarkId::new("one_topic_and_broad_ones", kind), |bencher| {
            bencher.iter(|| index.matches(black_box(&topic), |id, _| _ = black_box(id)));
        });
    }
    group.bench_function("hash", |bencher| {
        bencher.iter(|| Index::<Value>::hash(black_box("users/0000077/in")));
    });
    group.finish();
}

fn changing(criterion: &mut Criterion, value: &Value) {
    let mut group = criterion.benchmark_group("insert_and_remove");
    for (kind, rest) in [("exact", "in"), ("user_and_hash", "#"), ("user_plus_in", "+/in")] {
        let index = filled(rest, value);
        let (mut filter, mut number) = (String::new(), 0);
        group.bench_function(BenchmarkId::new("beside_1M", kind), |bencher| {
            bencher.iter(|| {
                number = (number + STRIDE) % FILTERS;
                name(&mut filter, FILTERS + number, rest);
                index.insert(&filter, number, value.clone());
                index.remove(&filter, number)
            });
        });
    }
    let index = Index::new();
    for subscriber in 0..MEMBERS {
        index.insert("group/1", subscriber, value.clone());
    }
    let mut subscriber = 0;
    group.bench_function("member_of_100k", |bencher| {
        bencher.iter(|| {
            subscriber = (subscriber + STRIDE) % MEMBERS;
            let left = index.remove("group/1", subscriber);
            index.insert("group/1", subscriber, value.clone());
            left
        });
    });
    group.finish();
}

fn fan_out(criterion: &mut Criterion, value: &Value) {
    let index = Index::new();
    for subscriber in 0..RECEIVERS {
        index.insert("group/1", subscriber, value.clone());
    }
    let mut group = criterion.benchmark_group("fan_out");
    group.throughput(Throughput::Elements(RECEIVERS));
    group.bench_function("5000_receivers", |bencher| {
        bencher.iter(|| {
            let mut sum = 0;
            index.matches(black_box("group/1"), |id, (_, identifier, qos)| {
                sum += id + u64::from(*identifier) + u64::from(*qos);
            });
            sum
        });
    });
    group.finish();
}

fn main() {
    let value: Value = (Arc::new(0), 1, 1);
    let mut criterion = Criterion::default().configure_from_args();
    matching(&mut criterion, &value);
    changing(&mut criterion, &value);
    fan_out(&mut criterion, &value);
    criterion.final_summary();
}
