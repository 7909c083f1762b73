//! What a commit costs by the number of messages in it: apply, write and hand back the effects.
//!
//! Durability `os`, so that the processor is measured and not the disk; `shard` measures both.

#![allow(missing_docs, reason = "a program")]

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use hoopoe_codec::QoS;
use hoopoe_core::{Location, PublicationParts, SessionId, SessionKey};
use hoopoe_store::command::{Open, Publish, Receiver, ReplyTo};
use hoopoe_store::effect::Effect;
use hoopoe_store::{
    Command, Durability, PendingBatch, ShardSettings, ShardView, Store, StoreSettings,
};

const SESSIONS: u32 = 2_000;
const NOW_MS: u64 = 1_700_000_000_000;

/// Sessions and a source of payloads that do not compress.
struct Shard {
    view: ShardView,
    sessions: Vec<SessionId>,
    said: usize,
    noise: u64,
    // Last, so that the folder outlives what is open in it.
    _store: Store,
}

impl Shard {
    fn open(folder: &std::path::Path) -> Shard {
        let settings = StoreSettings {
            folder: folder.to_path_buf(),
            durability: Durability::Os,
            shards: 1,
            reserve_bytes: 0,
            ..StoreSettings::default()
        };
        let store = Store::open(&settings).expect("opens");
        let (view, _) =
            ShardView::open(&store, 0, ShardSettings::default(), NOW_MS).expect("opens");
        let mut shard = Shard { view, sessions: Vec::new(), said: 0, noise: 7, _store: store };
        shard.sessions = (0..SESSIONS).map(|number| shard.session(number)).collect();
        shard
    }

    fn session(&mut self, number: u32) -> SessionId {
        let key = SessionKey::new("default", "", format!("client{number}"));
        let open = Open {
            key,
            clean_start: false,
            expiry_secs: 86_400,
            will: None,
            reply: ReplyTo { location: Location::new(0, 1, number), token: 0 },
        };
        let mut batch = PendingBatch::new();
        self.view.apply(NOW_MS, Command::Open(Box::new(open)), &mut batch);
        let effects = self.view.commit(batch).expect("commits").into_effects();
        let session = effects.into_iter().find_map(|effect| match effect {
            Effect::Opened(opened) => opened.session,
            _ => None,
        });
        session.expect("is let in").id
    }

    fn publication(&mut self) -> Command {
        let mut payload = [0; 256];
        for word in payload.chunks_exact_mut(8) {
            self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&self.noise.to_le_bytes());
        }
        let parts = PublicationParts {
            topic: "house/room/sensor/1234",
            properties: &[],
            payload: &payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at_ms: None,
        };
        self.said += 1;
        let receiver = Receiver {
            session: self.sessions[self.said % self.sessions.len()],
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: Default::default(),
        };
        Command::Publish(Box::new(Publish {
            publication: Arc::new(parts.to_publication()),
            receivers: [receiver].into_iter().collect(),
            groups: Vec::new(),
            retain: false,
            marker: None,
            outbox: None,
            reply: Some(ReplyTo { location: Location::new(0, 1, 1), token: 0 }),
        }))
    }

    fn commit(&mut self, messages: usize) -> Vec<Effect> {
        let mut batch = PendingBatch::new();
        for _ in 0..messages {
            let command = self.publication();
            self.view.apply(NOW_MS, command, &mut batch);
        }
        self.view.commit(batch).expect("commits").into_effects()
    }
}

fn main() {
    // Every commit stays in the store: short, so that it does not outgrow the folder for it.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    let mut group = criterion.benchmark_group("commit");
    for messages in [1, 10, 100, 1_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut shard = Shard::open(folder.path());
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(BenchmarkId::new("batch_of", messages), |bencher| {
            bencher.iter(|| shard.commit(messages));
        });
    }
    group.finish();
    criterion.final_summary();
}
