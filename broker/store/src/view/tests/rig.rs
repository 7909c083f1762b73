//! A shard to try things on: a store, one shard over it, and words for what is tried.

use std::sync::Arc;

use hoopoe_codec::{QoS, ReasonCode, SubscribeOptions};
use hoopoe_core::{Location, Publication, PublicationParts, SessionId, SessionKey};

use crate::command::*;
use crate::effect::*;
use crate::floors::Floors;
use crate::kv::SharedKv;
use crate::log::{CommitError, PendingBatch};
use crate::memory::MemoryKv;
use crate::settings::*;
use crate::store::Store;
use crate::view::{Restored, ShardView};

pub(super) const START: u64 = 1_000_000;

pub(super) struct Rig {
    pub(super) view: ShardView,
    pub(super) restored: Restored,
    pub(super) store: Store,
    pub(super) now: u64,
    pub(super) settings: ShardSettings,
    pub(super) memory: Option<Arc<MemoryKv>>,
    folder: Option<tempfile::TempDir>,
    next_place: u32,
    next_token: u64,
}

impl Rig {
    pub(super) fn memory() -> Rig {
        Rig::memory_with(ShardSettings::default())
    }

    pub(super) fn memory_with(settings: ShardSettings) -> Rig {
        let floors = Arc::new(Floors::new(1));
        Rig::over(Arc::new(MemoryKv::new(Some(floors.clone()))), floors, settings)
    }

    fn over(memory: Arc<MemoryKv>, floors: Arc<Floors>, settings: ShardSettings) -> Rig {
        let kv: SharedKv = memory.clone();
        let store = Store::over(kv, floors, Durability::Sync, 1).expect("opens");
        let (view, restored) = ShardView::open(&store, 0, settings, START).expect("opens");
        let memory = Some(memory);
        let (folder, next_place, next_token) = (None, 1, 1);
        Rig { view, restored, store, now: START, settings, memory, folder, next_place, next_token }
    }

    #[cfg(feature = "rocksdb")]
    pub(super) fn rocksdb() -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Rig::store_settings(&folder);
        let store = Store::open(&settings).expect("opens");
        let shard = ShardSettings::default();
        let (view, restored) = ShardView::open(&store, 0, shard, START).expect("opens");
        Rig {
            view,
            restored,
            store,
            now: START,
            settings: shard,
            memory: None,
            folder: Some(folder),
            next_place: 1,
            next_token: 1,
        }
    }

    fn store_settings(folder: &tempfile::TempDir) -> StoreSettings {
        StoreSettings {
            folder: folder.path().to_path_buf(),
            shards: 1,
            reserve_bytes: 0,
            ..StoreSettings::default()
        }
    }

    /// The process ends without a word and starts again `later_ms` later.
    pub(super) fn restart(self, later_ms: u64) -> Rig {
        let Rig { view, store, now, settings, memory, folder, next_place, next_token, .. } = self;
        drop(view);
        drop(store);
        let now = now + later_ms;
        let (store, memory) = match (&folder, memory) {
            (Some(folder), _) => (Store::open(&Rig::store_settings(folder)).expect("opens"), None),
            (None, memory) => {
                let floors = Arc::new(Floors::new(1));
                let memory = memory.expect("one of both");
                let memory = match memory.simulates_crashes() {
                    true => memory.crash(0, Some(floors.clone())),
                    false => memory.copy(Some(floors.clone())),
                };
                let memory = Arc::new(memory);
                let kv: SharedKv = memory.clone();
                (Store::over(kv, floors, Durability::Sync, 1).expect("opens"), Some(memory))
            }
        };
        let (view, restored) = ShardView::open(&store, 0, settings, now).expect("opens");
        Rig { view, restored, store, now, settings, memory, folder, next_place, next_token }
    }

    /// Restarts in place.
    pub(super) fn restart_in_place(&mut self, later_ms: u64) {
        let fresh = Rig::memory();
        let before = std::mem::replace(self, fresh);
        *self = before.restart(later_ms);
    }

    pub(super) fn reply(&mut self) -> ReplyTo {
        self.next_token += 1;
        ReplyTo { location: self.place(), token: self.next_token }
    }

    pub(super) fn place(&mut self) -> Location {
        self.next_place += 1;
        Location::new(0, 1, self.next_place)
    }

    pub(super) fn try_run(&mut self, commands: Vec<Command>) -> Result<Vec<Effect>, CommitError> {
        let mut batch = PendingBatch::new();
        for command in commands {
            self.view.apply(self.now, command, &mut batch);
        }
        self.view.commit(batch).map(|receipt| receipt.into_effects())
    }

    /// Commands of one batch.
    pub(super) fn run(&mut self, commands: Vec<Command>) -> Vec<Effect> {
        self.try_run(commands).expect("commits")
    }

    /// Time passes; everything that becomes due on the way happens when it is due.
    pub(super) fn pass(&mut self, ms: u64) -> Vec<Effect> {
        let until = self.now + ms;
        let mut effects = Vec::new();
        while let Some(at) = self.view.next_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let mut batch = PendingBatch::new();
            self.view.on_tick(self.now, &mut batch);
            if batch.is_empty() {
                // A shard commits nothing then, and would come back here at once, for ever.
                let next = self.view.next_timeout();
                assert!(next.is_none_or(|next| next > at), "a tick at {at} did nothing");
                continue;
            }
            effects.extend(self.view.commit(batch).expect("commits").into_effects());
        }
        self.now = until;
        effects
    }

    /// Connects and expects to be let in.
    pub(super) fn connect(&mut self, open: Open) -> Client {
        let effects = self.run(vec![Command::Open(Box::new(open))]);
        client(&effects).expect("is let in")
    }

    /// Opens with an expiry of 100 s.
    pub(super) fn open(&mut self, client: &str) -> Open {
        Open {
            key: key(client),
            clean_start: false,
            expiry_secs: 100,
            will: None,
            reply: self.reply(),
        }
    }

    pub(super) fn connect_as(&mut self, client: &str) -> Client {
        let open = self.open(client);
        self.connect(open)
    }

    pub(super) fn connect_with(
        &mut self,
        client: &str,
        terms: impl FnOnce(Open) -> Open,
    ) -> Client {
        let open = self.open(client);
        self.connect(terms(open))
    }

    pub(super) fn close(&mut self, client: &Client, cause: CloseCause) -> Vec<Effect> {
        self.run(vec![client.close(cause)])
    }

    pub(super) fn publish(&mut self, to: &[SessionId], payload: &str) -> Vec<Effect> {
        let command = self.publication(to, payload);
        self.run(vec![command])
    }

    pub(super) fn publication(&mut self, to: &[SessionId], payload: &str) -> Command {
        let reply = Some(self.reply());
        Command::Publish(Box::new(Publish { reply, ..publication(to, payload) }))
    }

    /// Payloads in a queue, from entry `from` on.
    pub(super) fn queue(&self, session: SessionId, from: u64) -> Vec<(u64, String)> {
        let page = self.store.reader().read_queue(self.now, session, from, 10_000, 1 << 30);
        let entries = page.expect("reads").entries;
        let text = |entry: QueueEntry| {
            (entry.seq, String::from_utf8_lossy(entry.publication.payload()).into_owned())
        };
        entries.into_iter().map(text).collect()
    }
}

pub(super) fn key(client: &str) -> SessionKey {
    SessionKey::new("default", "", client)
}

pub(super) fn message(topic: &str, payload: &str) -> Publication {
    PublicationParts {
        topic,
        properties: &[],
        payload: payload.as_bytes(),
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at_ms: None,
    }
    .to_publication()
}

pub(super) fn publication(to: &[SessionId], payload: &str) -> Publish {
    let receiver = |session: &SessionId| Receiver {
        session: *session,
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: Default::default(),
    };
    Publish {
        publication: Arc::new(message("t", payload)),
        receivers: to.iter().map(receiver).collect(),
        groups: Vec::new(),
        retain: false,
        marker: None,
        outbox: None,
        reply: None,
    }
}

pub(super) fn subscription(filter: &str) -> StoredSubscription {
    let options = SubscribeOptions::from_byte(1).expect("options");
    StoredSubscription { filter: filter.into(), options, identifier: 0 }
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) key: SessionKey,
    pub(super) location: Location,
    pub(super) epoch: u32,
    pub(super) present: bool,
    pub(super) session: Option<StoredSession>,
}

impl Client {
    pub(super) fn id(&self) -> SessionId {
        self.session.as_ref().expect("a stored session").id
    }

    pub(super) fn close_with(&self, cause: CloseCause) -> Close {
        Close {
            key: self.key.clone(),
            location: self.location,
            epoch: self.epoch,
            cause,
            expiry_secs: None,
            progress: None,
            window: Vec::new(),
            done: Vec::new(),
            answered: Vec::new(),
            told: None,
        }
    }

    pub(super) fn close(&self, cause: CloseCause) -> Command {
        Command::Close(Box::new(self.close_with(cause)))
    }

    pub(super) fn progress(&self, acknowledged: u64, weight: u64, sent: u64) -> Progress {
        Progress { session: self.id(), epoch: self.epoch, acknowledged, weight, sent }
    }
}

/// The connection that an effect lets in; the key is the one of `key(client)` cases.
pub(super) fn client(effects: &[Effect]) -> Option<Client> {
    effects.iter().find_map(|effect| match effect {
        Effect::Opened(opened) if opened.code == ReasonCode::Success => Some(Client {
            key: opened.key.clone(),
            location: opened.reply.location,
            epoch: opened.epoch,
            present: opened.session_present,
            session: opened.session.clone(),
        }),
        _ => None,
    })
}

/// Effects in short, for comparison.
pub(super) fn brief(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(one_brief).collect()
}

fn one_brief(effect: &Effect) -> String {
    match effect {
        Effect::Opened(opened) => match opened.code {
            ReasonCode::Success if opened.session_present => "resumed".into(),
            ReasonCode::Success => "opened".into(),
            code => format!("refused {:02x}", code as u8),
        },
        Effect::TakenOver { reason, .. } => format!("leave {:02x}", *reason as u8),
        Effect::Committed { code, .. } => format!("committed {:02x}", *code as u8),
        Effect::Live { receivers, .. } => {
            let seqs: Vec<u64> = receivers.iter().map(|one| one.seq).collect();
            format!("live {seqs:?}")
        }
        Effect::Offer { entry, location, .. } => {
            format!("offer {} to {}", entry.seq, location.place())
        }
        Effect::GroupMade { filter, .. } => format!("group {filter} made"),
        Effect::GroupEnded { filter, .. } => format!("group {filter} ended"),
        Effect::SessionEnded { filters, .. } => format!("ended {filters:?}"),
        Effect::Publish { publication, .. } => {
            format!("publish {}", String::from_utf8_lossy(publication.payload()))
        }
        Effect::Overflowed { messages, .. } => format!("overflowed {messages}"),
    }
}
