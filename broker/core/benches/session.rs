//! What the session's steps cost: the window of a receiver, the answers owed to a publisher, the
//! place in a stored queue, a QoS 2 handshake.

#![allow(missing_docs, reason = "a program")]

use criterion::{Criterion, Throughput};
use hoopoe_codec::{PacketId, QoS, ReasonCode};
use hoopoe_core::session::{Answers, Feed, Incoming, Window};

/// Messages of one batch, as a busy connection has them.
const BATCH: u64 = 64;

/// A batch is sent to a client and acknowledged by it, in order or the other way round.
fn window(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("window");
    group.throughput(Throughput::Elements(BATCH));
    for (name, backwards) in [("sent_and_acknowledged", false), ("acknowledged_backwards", true)] {
        let mut window = Window::new(100);
        let mut ids: Vec<PacketId> = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                ids.clear();
                ids.extend((0..BATCH).filter_map(|seq| window.push(QoS::AtLeastOnce, seq)));
                if backwards {
                    ids.reverse();
                }
                let mut sum = 0;
                for id in &ids {
                    let _ = window.acknowledge(*id);
                    while let Some(seq) = window.pop_done() {
                        sum += seq;
                    }
                }
                assert_eq!(window.in_flight(), 0);
                sum
            });
        });
    }
    group.finish();
}

/// A batch of publications waits for its commits and is answered in the order of arrival.
fn answers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answers");
    group.throughput(Throughput::Elements(BATCH));
    let mut answers = Answers::default();
    let mut tokens: Vec<u64> = Vec::new();
    group.bench_function("owed_settled_and_sent", |bencher| {
        bencher.iter(|| {
            tokens.clear();
            tokens.extend((0..BATCH).map(|n| answers.owe(1, n, n)));
            let mut sum = 0;
            for token in &tokens {
                answers.settle(*token, ReasonCode::Success);
                while let Some((work, _)) = answers.pop_ready() {
                    sum += work;
                }
            }
            assert!(answers.is_empty());
            sum
        });
    });
    group.finish();
}

/// Entries of a stored queue are committed, go out live, and are acknowledged.
fn feed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("feed");
    group.throughput(Throughput::Elements(BATCH));
    let mut feed = Feed::new(0, 0, 1, 0, 0);
    let mut seq = 0;
    group.bench_function("live_and_acknowledged", |bencher| {
        bencher.iter(|| {
            for _ in 0..BATCH {
                seq += 1;
                assert!(feed.committed(seq, true));
                feed.send(seq);
                feed.acknowledge(seq, 1);
            }
            feed.take_progress()
        });
    });
    group.finish();
}

/// The receiving half of QoS 2.
fn incoming(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("incoming");
    group.throughput(Throughput::Elements(BATCH));
    let mut incoming = Incoming::new(100);
    let ids: Vec<PacketId> = (1..=BATCH as u16).filter_map(PacketId::new).collect();
    group.bench_function("qos2_handshakes", |bencher| {
        bencher.iter(|| {
            for id in &ids {
                assert!(incoming.begin_qos2(*id, false).is_some());
            }
            for id in &ids {
                incoming.answer_qos2(*id, false);
                incoming.end_qos2(*id);
            }
            incoming.unfinished()
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    window(&mut criterion);
    answers(&mut criterion);
    feed(&mut criterion);
    incoming(&mut criterion);
    criterion.final_summary();
}
