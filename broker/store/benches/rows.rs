//! Which row format costs least: bodies in every receiver's row or shared, rows deleted one by
//! one or vanishing in merges. Figures and decision: `FORMAT.md`.
//!
//! Run with `cargo bench -p hoopoe-store --bench rows`; with a number behind `--` for so many entries.

#![allow(clippy::print_stdout, reason = "a table is what this program is for")]
#![allow(missing_docs, reason = "a program")]

mod cpu;

use std::collections::HashMap;
use std::sync::Arc;

use cpu::{Cost, Noise, folder_bytes};
use hoopoe_store::kv::{Batch, Family, Kv, RowJudge};
use hoopoe_store::rocks::RocksKv;
use hoopoe_store::settings::StoreSettings;
use parking_lot::RwLock;

const SESSIONS: u64 = 2_000;
/// Topic, properties and payload.
const MESSAGE: usize = 256 + 24;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Body {
    Inline,
    Split,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reclaim {
    /// A deletion for every acknowledged row; shared bodies by a count in memory.
    Delete,
    /// Rows vanish in merges.
    Vanish,
}

/// When receivers acknowledge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receivers {
    /// With the next batch.
    Online,
    /// When everything has been written.
    Offline,
}

#[derive(Default)]
struct Floors(RwLock<HashMap<u64, u64>>);

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Floors {
    fn done(&self, session: u64, seq: u64) -> bool {
        self.0.read().get(&session).is_some_and(|floor| seq <= *floor)
    }
}

impl RowJudge for Floors {
    fn is_dead(&self, family: Family, key: &[u8], value: &[u8]) -> bool {
        match family {
            Family::Queue => self.done(u64_at(key, 0), u64_at(key, 8)),
            Family::Body => value[MESSAGE..]
                .chunks_exact(16)
                .all(|entry| self.done(u64_at(entry, 0), u64_at(entry, 8))),
            _ => false,
        }
    }
}

fn key(session: u64, seq: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&session.to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}

struct Trial {
    body: Body,
    reclaim: Reclaim,
    receivers: Receivers,
    fan_out: u64,
    batch: u64,
    messages: u64,
}

struct Outcome {
    cpu_micros: f64,
    at_rest: f64,
    after: u64,
}

/// Entries of a batch: session, seq, body number.
type Entries = Vec<(u64, u64, u64)>;

impl Trial {
    fn run(&self) -> Outcome {
        let folder = tempfile::tempdir().expect("a folder");
        let floors = Arc::new(Floors::default());
        let judge = (self.reclaim == Reclaim::Vanish).then(|| floors.clone() as Arc<dyn RowJudge>);
        let settings = StoreSettings {
            folder: folder.path().to_path_buf(),
            reserve_bytes: 0,
            ..StoreSettings::default()
        };
        let kv = RocksKv::open(&settings, judge).expect("opens");
        let cost = Cost::start();
        let mut heads = vec![0; SESSIONS as usize];
        let mut noise = Noise::new(self.fan_out * 31 + self.batch);
        let mut waiting: Vec<Entries> = Vec::new();
        let mut number = 0;
        while number < self.messages {
            let mut batch = Batch::default();
            let mut entries = Vec::new();
            for _ in 0..self.batch.min(self.messages - number) {
                number += 1;
                self.publish(number, &mut heads, &mut noise, &mut batch, &mut entries);
            }
            // CPU is what is measured: a sync would only add waiting.
            kv.write(&batch, false).expect("writes");
            waiting.push(entries);
            if self.receivers == Receivers::Online {
                self.acknowledge(&kv, &floors, waiting.remove(0));
            }
        }
        let mut at_rest = 0.0;
        if self.receivers == Receivers::Offline {
            kv.flush().expect("flushes");
            at_rest = folder_bytes(folder.path()) as f64 / (self.messages * self.fan_out) as f64;
            waiting.into_iter().for_each(|entries| self.acknowledge(&kv, &floors, entries));
        }
        kv.flush().expect("flushes");
        kv.compact(Family::Queue).expect("compacts");
        kv.compact(Family::Body).expect("compacts");
        let cpu_micros = cost.cpu_secs() * 1e6 / (self.messages * self.fan_out) as f64;
        Outcome { cpu_micros, at_rest, after: folder_bytes(folder.path()) }
    }

    fn publish(
        &self,
        number: u64,
        heads: &mut [u64],
        noise: &mut Noise,
        batch: &mut Batch,
        entries: &mut Entries,
    ) {
        let mut message = [0; MESSAGE];
        noise.fill(&mut message);
        let first = noise.number() % SESSIONS;
        let from = entries.len();
        for step in 0..self.fan_out {
            let session = (first + step * 7) % SESSIONS;
            heads[session as usize] += 1;
            entries.push((session, heads[session as usize], number));
        }
        for (session, seq, body) in &entries[from..] {
            batch.put_with(Family::Queue, &key(*session, *seq), |out| {
                // What a receiver's part of a row takes: flags and running total.
                out.extend_from_slice(&[1, 1, 0x80, 0x80, 0x01]);
                match self.body {
                    Body::Inline => out.extend_from_slice(&message),
                    Body::Split => out.extend_from_slice(&body.to_be_bytes()),
                }
            });
        }
        if self.body == Body::Split {
            batch.put_with(Family::Body, &number.to_be_bytes(), |out| {
                out.extend_from_slice(&message);
                for (session, seq, _) in &entries[from..] {
                    out.extend_from_slice(&key(*session, *seq));
                }
            });
        }
    }

    fn acknowledge(&self, kv: &RocksKv, floors: &Floors, entries: Entries) {
        match self.reclaim {
            Reclaim::Vanish => {
                let mut floors = floors.0.write();
                for (session, seq, _) in &entries {
                    floors.insert(*session, *seq);
                }
            }
            Reclaim::Delete => {
                let mut batch = Batch::default();
                let mut last_body = 0;
                for (session, seq, body) in &entries {
                    batch.delete(Family::Queue, &key(*session, *seq));
                    if self.body == Body::Split && *body != last_body {
                        batch.delete(Family::Body, &body.to_be_bytes());
                        last_body = *body;
                    }
                }
                kv.write(&batch, false).expect("writes");
            }
        }
    }
}

fn main() {
    let asked = std::env::args().find_map(|word| word.parse().ok());
    let entries: u64 = asked.unwrap_or(1_000_000);
    println!("CPU microseconds per entry (message and receiver), merges included; bytes at rest");
    println!("{entries} entries of {MESSAGE} bytes for {SESSIONS} sessions");
    println!(
        "| fan-out | batch | receivers | body | reclaim | µs/entry | bytes/entry | left KiB |"
    );
    println!("|--:|--:|---|---|---|--:|--:|--:|");
    for fan_out in [1, 10, 100, 1_000] {
        for batch in [10, 100, 1_000] {
            if fan_out * batch > 100_000 {
                continue;
            }
            for receivers in [Receivers::Online, Receivers::Offline] {
                for body in [Body::Inline, Body::Split] {
                    for reclaim in [Reclaim::Delete, Reclaim::Vanish] {
                        let messages = (entries / fan_out).max(batch);
                        let trial = Trial { body, reclaim, receivers, fan_out, batch, messages };
                        let Outcome { cpu_micros, at_rest, after } = trial.run();
                        println!(
                            "| {fan_out} | {batch} | {receivers:?} | {body:?} | {reclaim:?} | \
                             {cpu_micros:.2} | {at_rest:.0} | {} |",
                            after / 1024
                        );
                    }
                }
            }
        }
    }
}
