//! What one send costs its conversation's shard, and what it stores: a pair, and groups of 2, 500
//! and 100,000 members, committed in batches of 64 to a store in memory. And what it costs to make a
//! group, one command with many rows.
//!
//! `cargo bench -p hoopoe-im`. One iteration is one batch.

#![allow(clippy::print_stdout, reason = "a table is what this program is for")]
#![allow(missing_docs, reason = "a program")]

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hoopoe_im::command::Send;
use hoopoe_im::id::{ConvKey, MessageId, MessageIds};
use hoopoe_im::service::{Call, Caller, complete, parse};
use hoopoe_im::{Asker, Command, Effect, ImSettings, ImShard, Pending, User};
use hoopoe_store::floors::Floors;
use hoopoe_store::kv::SharedKv;
use hoopoe_store::{Durability, MemoryKv, PendingBatch, ShardSettings, ShardView, Store};
use serde_json::{Value, json};

const START_MS: u64 = 1_700_000_000_000;
const BATCH: usize = 64;
const PAYLOAD: [u8; 256] = [b'x'; 256];
/// Members in one call of the service.
const PORTION: usize = 1_000;

/// One shard that owns everything.
struct Bench {
    view: ShardView,
    step: ImShard,
    ids: MessageIds,
    now_ms: u64,
    cid: u64,
}

fn user(id: &str) -> User {
    User { tenant: "t".into(), id: id.into() }
}

impl Bench {
    fn open(settings: ImSettings) -> Bench {
        let kv: SharedKv = Arc::new(MemoryKv::new(None));
        let floors = Arc::new(Floors::new(1));
        let store = Store::over(kv.clone(), floors, Durability::Sync, 1).expect("opens");
        let (view, _) =
            ShardView::open(&store, 0, ShardSettings::default(), START_MS).expect("opens");
        let (step, _) = ImShard::open(kv, 0, 1, settings, START_MS).expect("opens");
        Bench { view, step, ids: MessageIds::new(63), now_ms: START_MS, cid: 0 }
    }

    /// Applies and commits; then what the shard owes itself. Gives the bytes of the first batch.
    fn commit(&mut self, commands: Vec<Command>) -> usize {
        let mut next = commands;
        let mut first = None;
        while !next.is_empty() {
            let (mut batch, mut pending) = (PendingBatch::new(), Pending::default());
            for command in next.drain(..) {
                self.step.apply(self.now_ms, command, true, &mut batch, &mut pending);
            }
            first.get_or_insert(batch.bytes());
            let receipt = self.view.commit(batch).expect("memory takes it");
            self.step.committed();
            for effect in pending.release(&receipt) {
                match effect {
                    Effect::Forward { outbox, forward } => {
                        let outbox = outbox.map(|number| (0, number));
                        next.push(Command::Forward { outbox, forward });
                    }
                    Effect::ForwardDone { outbox, .. } => {
                        next.push(Command::ForwardDone { outbox });
                    }
                    _ => {}
                }
            }
        }
        first.unwrap_or(0)
    }

    fn call(&mut self, operation: &str, body: &Value) {
        let body = body.to_string();
        let mut op = parse("group", operation, body.as_bytes()).expect("it is well formed");
        let id: MessageId = self.ids.next(self.now_ms);
        complete(&mut op, || Some(id));
        let caller = Caller { user: user("alice"), device: "ios-1".into(), privileged: true };
        self.commit(vec![Command::Call(Box::new(Call { caller, op, asker: Asker::Nobody }))]);
    }

    /// A group of so many, alice among them.
    fn group(&mut self, id: &str, members: usize) -> ConvKey {
        let users: Vec<String> = (1..members).map(|n| format!("user{n}")).collect();
        for (part, users) in users.chunks(PORTION).enumerate() {
            if part == 0 {
                self.call("create", &json!({ "group": id, "name": id, "members": users }));
            } else {
                self.call("invite", &json!({ "group": id, "users": users }));
            }
        }
        ConvKey::group("t", id)
    }

    /// A batch of sends of alice's.
    fn send(&mut self, conv: &ConvKey) -> usize {
        self.now_ms += 1;
        let sends = (0..BATCH).map(|_| {
            self.cid += 1;
            Command::Send(Box::new(Send {
                conv: conv.clone(),
                from: user("alice"),
                device: "ios-1".into(),
                cid: Some(format!("c{:012}", self.cid).into()),
                burn_secs: 0,
                mentions: Vec::new(),
                at_all: false,
                properties: Bytes::new(),
                payload: Bytes::from_static(&PAYLOAD),
                expires_at_ms: None,
                marker: None,
                privileged: false,
                asker: Asker::Nobody,
            }))
        });
        let sends = sends.collect();
        self.commit(sends)
    }
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(BATCH as u64));
    for members in [0, 2, 500, 100_000] {
        let mut bench = Bench::open(ImSettings::default());
        let (name, conv) = match members {
            0 => ("pair".to_owned(), ConvKey::pair("t", "alice", "bob")),
            _ => (format!("group_of_{members}"), bench.group("team", members)),
        };
        bench.send(&conv); // the first makes the conversation known
        let bytes = bench.send(&conv);
        println!("{name}: {} bytes of rows per send of {} bytes", bytes / BATCH, PAYLOAD.len());
        group.bench_function(name, |bencher| bencher.iter(|| bench.send(&conv)));
    }
    group.finish();
}

/// One command that writes a row for each of many members.
fn create(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("create");
    group.sample_size(10);
    group.throughput(Throughput::Elements(PORTION as u64));
    let settings = ImSettings { groups_max: usize::MAX, ..ImSettings::default() };
    let mut bench = Bench::open(settings);
    let mut number = 0;
    group.bench_function("group_of_1000", |bencher| {
        bencher.iter(|| {
            number += 1;
            bench.group(&format!("g{number}"), PORTION)
        });
    });
    group.finish();
}

criterion_group!(benches, append, create);
criterion_main!(benches);
