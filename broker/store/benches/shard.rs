//! A whole shard against the targets: feed for sessions that are away, drain when they return,
//! what is stored meanwhile and what is left behind.
//!
//! Run with `cargo bench -p hoopoe-store --bench shard`.

#![allow(clippy::print_stdout, reason = "a table is what this program is for")]
#![allow(missing_docs, reason = "a program")]

mod cpu;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cpu::{Cost, Noise, folder_bytes, resident_mib};
use hoopoe_codec::QoS;
use hoopoe_core::{Location, PublicationParts, SessionId, SessionKey};
use hoopoe_store::command::{Close, CloseCause, Open, Progress, Publish, Receiver, ReplyTo};
use hoopoe_store::effect::Effect;
use hoopoe_store::{
    Command, Durability, PendingBatch, ShardSettings, ShardView, Store, StoreSettings,
};

const SESSIONS: usize = 2_000;
const START_MS: u64 = 1_700_000_000_000;

struct Run {
    store: Store,
    view: ShardView,
    clients: Vec<(SessionKey, SessionId)>,
    noise: Noise,
}

fn settings(folder: &Path, durability: Durability) -> StoreSettings {
    let folder = folder.to_path_buf();
    StoreSettings { folder, durability, shards: 1, reserve_bytes: 0, ..StoreSettings::default() }
}

impl Run {
    fn start(folder: &Path, durability: Durability) -> Run {
        let store = Store::open(&settings(folder, durability)).expect("opens");
        let (view, _) =
            ShardView::open(&store, 0, ShardSettings::default(), START_MS).expect("opens");
        let mut run = Run { store, view, clients: Vec::new(), noise: Noise::new(7) };
        for number in 0..SESSIONS {
            let key = SessionKey::new("default", "", format!("client{number}"));
            let (id, _) = run.connect(&key, number);
            run.clients.push((key, id));
        }
        run
    }

    fn commit(&mut self, commands: Vec<Command>) -> Vec<Effect> {
        let mut batch = PendingBatch::new();
        for command in commands {
            self.view.apply(START_MS, command, &mut batch);
        }
        self.view.commit(batch).expect("commits").into_effects()
    }

    fn connect(&mut self, key: &SessionKey, number: usize) -> (SessionId, u32) {
        let location = Location::new(0, 1, number as u32);
        let open = Open {
            key: key.clone(),
            clean_start: false,
            expiry_secs: 86_400,
            will: None,
            reply: ReplyTo { location, token: 0 },
        };
        let effects = self.commit(vec![Command::Open(Box::new(open))]);
        let opened = effects.into_iter().find_map(|effect| match effect {
            Effect::Opened(opened) => Some((opened.session?.id, opened.epoch)),
            _ => None,
        });
        opened.expect("is let in")
    }

    fn everyone_leaves(&mut self) {
        for (number, (key, _)) in self.clients.clone().into_iter().enumerate() {
            let close = Close {
                key,
                location: Location::new(0, 1, number as u32),
                epoch: number as u32 + 1,
                cause: CloseCause::Normal,
                expiry_secs: None,
                progress: None,
                window: Vec::new(),
                done: Vec::new(),
                answered: Vec::new(),
                told: None,
            };
            self.commit(vec![Command::Close(Box::new(close))]);
        }
    }

    fn publication(&mut self, to: &[SessionId]) -> Command {
        let mut payload = [0; 256];
        self.noise.fill(&mut payload);
        let publication = PublicationParts {
            topic: "house/room/sensor/1234",
            properties: &[],
            payload: &payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at_ms: None,
        };
        let receiver = |session: &SessionId| Receiver {
            session: *session,
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: Default::default(),
        };
        Command::Publish(Box::new(Publish {
            publication: Arc::new(publication.to_publication()),
            receivers: to.iter().map(receiver).collect(),
            groups: Vec::new(),
            retain: false,
            marker: None,
            outbox: None,
            reply: Some(ReplyTo { location: Location::new(0, 1, 1), token: 0 }),
        }))
    }

    /// Publishes until every session has `each` messages; every message goes to `fan_out`.
    fn feed(&mut self, each: usize, fan_out: usize, batch: usize) -> usize {
        let ids: Vec<SessionId> = self.clients.iter().map(|(_, id)| *id).collect();
        let messages = each * SESSIONS / fan_out;
        let mut commands = Vec::with_capacity(batch);
        for number in 0..messages {
            let from = number * fan_out % SESSIONS;
            let to = &ids[from..from + fan_out];
            let command = self.publication(to);
            commands.push(command);
            if commands.len() == batch || number + 1 == messages {
                let effects = self.commit(std::mem::take(&mut commands));
                std::hint::black_box(effects);
            }
        }
        messages
    }

    /// Everyone returns, reads everything and acknowledges it.
    fn drain(&mut self, page: usize) -> usize {
        let reader = self.store.reader();
        let mut drained = 0;
        for number in 0..SESSIONS {
            let (key, id) = self.clients[number].clone();
            let (_, epoch) = self.connect(&key, number);
            let (mut from, mut weight) = (1, 0);
            loop {
                let read = reader.read_queue(START_MS, id, from, page, 1 << 20).expect("reads");
                drained += read.entries.len();
                (from, weight) = (from.max(read.through + 1), weight.max(read.weight));
                std::hint::black_box(&read.entries);
                if !read.more {
                    break;
                }
            }
            let acknowledged = from - 1;
            let progress =
                Progress { session: id, epoch, acknowledged, weight, sent: acknowledged };
            self.commit(vec![Command::Progress(progress)]);
        }
        drained
    }
}

fn trial(durability: Durability, each: usize, fan_out: usize, batch: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = Run::start(folder.path(), durability);
    run.everyone_leaves();
    run.store.flush().expect("flushes");
    let empty = folder_bytes(folder.path());
    let before = resident_mib();
    let (cost, clock) = (Cost::start(), Instant::now());
    let messages = run.feed(each, fan_out, batch);
    let (feed_wall, feed_cpu) = (clock.elapsed().as_secs_f64(), cost.cpu_secs());
    let grown = resident_mib() - before;
    run.store.flush().expect("flushes");
    let entries = messages * fan_out;
    let clients = std::mem::take(&mut run.clients);
    drop(run);
    let clock = Instant::now();
    let store = Store::open(&settings(folder.path(), durability)).expect("opens");
    let (view, _) = ShardView::open(&store, 0, ShardSettings::default(), START_MS).expect("opens");
    let reopened = clock.elapsed().as_secs_f64();
    // Opening removes files that merges had left behind.
    let stored = folder_bytes(folder.path()).saturating_sub(empty) as f64 / entries as f64;
    let mut run = Run { store, view, clients, noise: Noise::new(9) };
    let (cost, clock) = (Cost::start(), Instant::now());
    let drained = run.drain(100);
    let (drain_wall, drain_cpu) = (clock.elapsed().as_secs_f64(), cost.cpu_secs());
    assert_eq!(drained, entries, "everything is there, once");
    for later in [10_000, 20_000] {
        let mut batch = PendingBatch::new();
        run.view.on_tick(START_MS + later, &mut batch);
        let _ = run.view.commit(batch).expect("commits").into_effects();
    }
    run.store.reclaim().expect("reclaims");
    run.store.flush().expect("flushes");
    let left = folder_bytes(folder.path()).saturating_sub(empty) / 1024;
    println!(
        "| {durability:?} | {entries} | {fan_out} | {batch} | {:.0} | {:.0} | {stored:.0} | \
         {reopened:.2} | {:.0} | {:.0} | {left} | {grown:.0} |",
        messages as f64 / feed_wall / 1e3,
        messages as f64 / feed_cpu / 1e3,
        drained as f64 / drain_wall / 1e3,
        drained as f64 / drain_cpu / 1e3,
    );
}

fn main() {
    println!("2,000 sessions away, 256-byte payloads that do not compress");
    println!(
        "| durability | entries | fan-out | batch | feed k/s | feed k/CPU s | bytes/entry | \
         reopen s | drain k/s | drain k/CPU s | left KiB | RSS +MiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (durability, each, fan_out, batch) in [
        (Durability::Sync, 500, 1, 1_000),
        (Durability::Sync, 100, 1, 10),
        (Durability::Sync, 100, 1, 100),
        (Durability::Sync, 100, 1, 1_000),
        (Durability::Os, 100, 1, 100),
        (Durability::Sync, 100, 10, 100),
        (Durability::Sync, 100, 100, 100),
        (Durability::Sync, 100, 1_000, 10),
    ] {
        trial(durability, each, fan_out, batch);
    }
}
