//! The composition root: from settings to a running broker, and back to nothing.
//!
//! Order at the start: store, routes, threads, and only then listeners: whoever connects finds
//! every session's routes in place (invariant 14). Order at the end: listeners, clients (0x8B),
//! sessions handed back, shards committed, store closed.

mod banner;
mod listeners;
mod reload;
mod threads;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use dashmap::DashMap;
use hoopoe_core::index::Index;
use hoopoe_im::{FIRST_LEVEL, ImShard};
use hoopoe_store::{Restored, ShardSettings, ShardView, Store, StoreSettings};
use mio::{Poll, Waker};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::access::Access;
use crate::admin::{AdminState, Api, Gauges, NodePhase, control};
use crate::bridges::{Bridges, KnownSessions, broker_id};
use crate::clock;
use crate::connection::{Env, RetainedOrder, WAKE, WorkerParts};
use crate::fabric::{Fabric, Jobs, Mail, Mailbox};
use crate::im::ImNode;
use crate::im::hook::Hook;
use crate::im::push::PushHook;
use crate::im::rooms::Rooms;
use crate::logging::{self, Logging};
use crate::settings::{Durability, QueuePolicy, Settings, SettingsSource};
use crate::shard::{ShardParts, route_restored};
use crate::telemetry::{SystemTopics, Telemetry};
use crate::transport::WorkerSeats;
use listeners::OpenListener;
pub(crate) use listeners::plain_limits;
use threads::Threads;

/// How often the store is asked whether space is worth giving back.
const RECLAIM_EVERY: Duration = Duration::from_secs(10);

/// Runs the broker until it is told to stop. `source` is read again on SIGHUP.
///
/// # Errors
/// When the broker cannot start, or cannot go on.
pub fn serve(settings: Settings, source: SettingsSource) -> anyhow::Result<()> {
    let logging = logging::init(&settings.log)?;
    for note in settings.notes() {
        tracing::warn!("{note}");
    }
    crate::transport::install_crypto_provider();
    raise_descriptor_limit();
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("control")
        .build()
        .context("no runtime for the control thread")?;
    control.block_on(run(settings, source, logging))
}

async fn run(settings: Settings, source: SettingsSource, logging: Logging) -> anyhow::Result<()> {
    // Signals are caught from here on: one that comes during the start ends it in order.
    let mut signals = Signals::new()?;
    let access = Arc::new(Access::open(&settings.access)?);
    let store = Store::open(&store_settings(&settings))?;
    let now_ms = clock::now_ms();
    let keeps_files = settings.broker.durability != Durability::Memory;
    // The id that was drawn is not in the settings that a reload compares with what it reads.
    let mut own = settings.clone();
    own.broker.id = Some(broker_id(&settings, keeps_files)?);
    let (mut node, parts) = Node::prepare(&own, access, store, now_ms)?;
    let known = KnownSessions::among(parts.outbox.iter().map(|(_, restored)| restored));
    let threads = Threads::start(parts, &node)?;
    // Before anybody can publish: what a link is to carry waits for it from the first message on.
    let (bridges, links) = Bridges::start(&settings, &node.env, &node.seats, known).await?;
    let bridges = Arc::new(bridges);
    let _ = node.env.bridges.set(bridges.clone());
    let open = node.open_listeners(&settings)?;
    let http = listeners::open_http(&settings)?;
    let admin = node.admin_state(&settings, &open, bridges);
    let tasks = node.start_tasks(&settings, &open, admin.clone());
    let api = Api::new(node.env.clone(), node.store.reader(), &settings)?;
    let http_task =
        http.listener.map(|listener| tokio::spawn(serve_http(listener, admin.clone(), api)));
    banner::print(&settings, &open, http.address);
    admin.set_phase(NodePhase::Ready);
    crate::telemetry::systemd::ready();
    let mut reloader = reload::Reloader { settings, source, logging };
    while let Told::Reload = signals.next().await {
        crate::telemetry::systemd::reloading();
        reloader.reload(&node, &open);
        crate::telemetry::systemd::ready();
    }
    admin.set_phase(NodePhase::Stopping);
    crate::telemetry::systemd::stopping();
    tracing::info!("stopping: clients are told, sessions are written");
    for task in tasks.iter().chain(&links) {
        task.abort();
    }
    control::close(&reloader.settings.broker.data_dir);
    let grace = Duration::from_secs(u64::from(reloader.settings.broker.shutdown_grace_secs));
    node.stop(threads, grace, &mut signals).await?;
    if let Some(task) = http_task {
        // To the last it has told who asked that the broker stops.
        task.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

/// What the node holds besides its threads.
pub struct Node {
    /// What all threads share.
    pub env: Arc<Env>,
    /// The store.
    pub store: Store,
    /// Which worker gets the next connection.
    pub seats: Arc<WorkerSeats>,
}

/// What the threads are made of.
pub struct Parts {
    /// One for each worker.
    pub workers: Vec<WorkerParts>,
    /// One for each shard.
    pub shards: Vec<ShardParts>,
    /// What an earlier run has left to be carried on, by shard.
    pub outbox: Vec<(usize, Restored)>,
    stop: threads::StopFlags,
}

impl Node {
    /// Opens every shard and puts its routes into the index.
    ///
    /// # Errors
    /// When a shard cannot be read, or the system has no event queue for a worker.
    pub fn prepare(
        settings: &Settings,
        access: Arc<Access>,
        store: Store,
        now_ms: u64,
    ) -> anyhow::Result<(Node, Parts)> {
        let workers = worker_count(settings);
        let shards = usize::from(store.shards());
        let telemetry = Arc::new(Telemetry::new(workers, shards));
        let mut polls = Vec::with_capacity(workers);
        let mut mailboxes = Vec::with_capacity(workers);
        for _ in 0..workers {
            let poll = Poll::new().context("no event queue for a worker")?;
            let waker = Waker::new(poll.registry(), WAKE).context("no waker for a worker")?;
            mailboxes.push(Arc::new(Mailbox::woken_by(move || {
                // A worker that has ended needs no waking.
                let _ = waker.wake();
            })));
            polls.push(poll);
        }
        let fabric = Fabric {
            workers: mailboxes,
            shards: (0..shards).map(|_| Arc::new(Mailbox::parked())).collect(),
            readers: Arc::new(Jobs::default()),
            index: Arc::new(Index::new().reserve_first_level(FIRST_LEVEL)),
        };
        let rooms = Rooms::new(settings.im.room_settings(), fabric.workers.clone());
        let profile = settings.im.profile();
        let im = ImNode::new(profile, rooms, store.shards(), &fabric.workers);
        let env = Arc::new(Env {
            fabric,
            access,
            telemetry,
            system: Arc::new(SystemTopics::default()),
            groups: DashMap::new(),
            refuse_at_messages: match settings.queue.policy {
                QueuePolicy::Refuse => settings.queue.max_messages,
                QueuePolicy::DropOldest => 0,
            },
            retained: RetainedOrder::default(),
            floors: store.floors(),
            im,
            bridges: OnceLock::new(),
            broker_id: settings.broker.id.as_deref().unwrap_or_default().into(),
            subscribers: AtomicU64::new(1),
        });
        if let Some(hook) = Hook::start(&env, &settings.im.hook)? {
            env.im.set_hook(hook);
        }
        let (push, kv) = (&settings.im.push, store.kv());
        if let Some(hook) = PushHook::open(push, &kv)? {
            env.im.set_push(hook);
        }
        if let Some(hook) = env.im.push() {
            hook.start(&env, &kv, push)?;
        }
        let stop = threads::StopFlags::default();
        let (shard_parts, outbox) = open_shards(settings, &env, &store, &stop, now_ms)?;
        let worker_parts = polls.into_iter().enumerate().map(|(number, poll)| WorkerParts {
            number,
            poll,
            mailbox: env.fabric.workers[number].clone(),
            env: env.clone(),
            counters: env.telemetry.workers[number].clone(),
        });
        let parts = Parts { workers: worker_parts.collect(), shards: shard_parts, outbox, stop };
        Ok((Node { env, store, seats: WorkerSeats::new(workers) }, parts))
    }

    fn open_listeners(&mut self, settings: &Settings) -> anyhow::Result<Vec<OpenListener>> {
        settings.listener.iter().try_fold(Vec::new(), |mut open, listener| {
            open.extend(listeners::open(settings, listener)?);
            Ok(open)
        })
    }

    fn admin_state(
        &self,
        settings: &Settings,
        open: &[OpenListener],
        bridges: Arc<Bridges>,
    ) -> Arc<AdminState> {
        let (reader, env) = (self.store.reader(), self.env.clone());
        let gauges = move || {
            let (counts, fabric) = (reader.counts(), &env.fabric);
            Gauges {
                stored_sessions: counts.sessions,
                subscriptions: fabric.index.subscriptions(),
                filters: fabric.index.filters(),
                shared_groups: env.groups.len() as u64,
                retained_messages: counts.retained,
                queued_messages: counts.queued_messages,
                queued_bytes: counts.queued_bytes,
                worker_letters: fabric.workers.iter().map(|mailbox| mailbox.len() as u64).sum(),
                shard_letters: fabric.shards.iter().map(|mailbox| mailbox.len() as u64).sum(),
                reader_jobs: fabric.readers.len() as u64,
                im: env.im.gauges(),
            }
        };
        let gates = open.iter().map(|open| (open.url.clone(), open.gate.clone())).collect();
        let store = self.store.clone();
        let state = AdminState::new(
            self.env.telemetry.clone(),
            gates,
            Box::new(gauges),
            settings.broker.durability.as_str(),
        );
        let state = state.with_bridges(bridges).with_sites(self.env.im.sites().cloned());
        Arc::new(state.with_store_fault(move || store.fault()))
    }

    /// Starts what runs on the control thread.
    fn start_tasks(
        &self,
        settings: &Settings,
        open: &[OpenListener],
        admin: Arc<AdminState>,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        let mut tasks: Vec<_> =
            open.iter().map(|open| tokio::spawn(open.accept(self, settings))).collect();
        let interval = Duration::from_secs(u64::from(settings.mqtt.sys_interval_secs));
        if !interval.is_zero() {
            tasks.push(tokio::spawn(crate::telemetry::publish_system(
                admin.instruments.clone(),
                self.env.system.clone(),
                self.env.fabric.workers[0].clone(),
                interval,
            )));
        }
        if self.env.im.sites().is_some() {
            tasks.push(tokio::spawn(crate::im::sites::keep_in_touch(self.env.clone())));
        }
        tasks.push(tokio::spawn(reclaim(self.store.clone(), self.env.clone())));
        tasks.push(tokio::spawn(crate::telemetry::systemd::watchdog()));
        if settings.broker.durability != Durability::Memory {
            tasks.extend(self.open_control(&settings.broker.data_dir));
        }
        tasks
    }

    /// The control socket. A folder that takes no sockets is no reason not to serve.
    fn open_control(&self, data: &Path) -> Option<tokio::task::JoinHandle<()>> {
        match control::open(data) {
            Ok(listener) => {
                let (store, data) = (self.store.clone(), data.to_path_buf());
                Some(tokio::spawn(async move {
                    if let Err(error) = control::answer(listener, store, data).await {
                        tracing::error!(%error, "the control socket has ended");
                    }
                }))
            }
            Err(error) => {
                tracing::warn!(%error, "no control socket: no backup while the broker runs");
                None
            }
        }
    }

    /// Ends the threads: workers first, which hand every session back, then shards, then the
    /// store. After the grace, or a second signal, clients are not waited for.
    async fn stop(
        &self,
        threads: Threads,
        grace: Duration,
        signals: &mut Signals,
    ) -> anyhow::Result<()> {
        let tell = |hurry| {
            for worker in &self.env.fabric.workers {
                worker.put(Mail::Stop { hurry });
            }
        };
        tell(false);
        let store = self.store.clone();
        let mut ending = tokio::task::spawn_blocking(move || threads.join(&store));
        tokio::select! {
            ended = &mut ending => return ended.context("the threads did not end")?,
            () = signals.stop_again() => tracing::warn!("second signal: hurrying"),
            () = tokio::time::sleep(grace) => tracing::warn!("clients take too long: hurrying"),
        }
        tell(true);
        ending.await.context("the threads did not end")?
    }
}

/// Gives the space of what is dead back, when it is worth it.
async fn reclaim(store: Store, env: Arc<Env>) {
    let mut every = tokio::time::interval(RECLAIM_EVERY);
    loop {
        every.tick().await;
        let (store, env) = (store.clone(), env.clone());
        let reclaimed = tokio::task::spawn_blocking(move || {
            store.reclaim_if_due()?;
            if env.im.space.take_due() { store.reclaim_log() } else { Ok(()) }
        });
        if let Ok(Err(error)) = reclaimed.await {
            tracing::error!(%error, "space could not be given back");
        }
    }
}

async fn serve_http(listener: std::net::TcpListener, admin: Arc<AdminState>, api: Arc<Api>) {
    let ended = crate::admin::serve(listener, admin, Some(api), std::future::pending()).await;
    if let Err(error) = ended {
        tracing::error!(%error, "the HTTP listener has ended");
    }
}

type OpenedShards = (Vec<ShardParts>, Vec<(usize, Restored)>);

fn open_shards(
    settings: &Settings,
    env: &Arc<Env>,
    store: &Store,
    stop: &threads::StopFlags,
    now_ms: u64,
) -> anyhow::Result<OpenedShards> {
    let limits = ShardSettings {
        queue_max_messages: settings.queue.max_messages,
        queue_max_bytes: settings.queue.max_bytes,
        overflow: match settings.queue.policy {
            QueuePolicy::DropOldest => hoopoe_store::Overflow::DropOldest,
            QueuePolicy::Refuse => hoopoe_store::Overflow::Refuse,
        },
        retained_max: settings.mqtt.max_retained,
        restart_grace_secs: u32::from(settings.broker.restart_grace_secs),
        is_unrouted: hoopoe_im::is_reserved,
        reserved_clients: hoopoe_bridge::LOCAL_PREFIX,
    };
    env.access.load(&store.kv(), now_ms).context("tokens and accounts cannot be read")?;
    hoopoe_im::room::stored_rooms(&store.kv(), |tenant, room, row| {
        env.im.rooms.restore(now_ms, tenant, room, row);
    })
    .context("rooms cannot be read")?;
    let (mut parts, mut outbox) = (Vec::new(), Vec::new());
    for number in 0..usize::from(store.shards()) {
        let (view, restored) =
            ShardView::open(store, number as u16, limits, now_ms).with_context(|| {
                let folder = settings.broker.data_dir.display();
                format!(
                    "shard {number} of the store cannot be opened; `hoopoe repair {folder}` \
                     keeps what can be read"
                )
            })?;
        route_restored(env, &restored);
        let (mut im, im_outbox) = ImShard::open(
            store.kv(),
            number as u16,
            store.shards(),
            env.im.settings.clone(),
            now_ms,
        )
        .with_context(|| format!("shard {number}: the IM profile cannot be opened"))?;
        im.share_heads(env.im.heads.clone());
        outbox.push((number, restored));
        parts.push(ShardParts {
            number,
            view,
            im,
            im_outbox,
            mailbox: env.fabric.shards[number].clone(),
            env: env.clone(),
            counters: env.telemetry.shards[number].clone(),
            stop: stop.shards.clone(),
        });
    }
    Ok((parts, outbox))
}

fn store_settings(settings: &Settings) -> StoreSettings {
    StoreSettings {
        folder: settings.broker.data_dir.clone(),
        durability: match settings.broker.durability {
            Durability::Sync => hoopoe_store::Durability::Sync,
            Durability::Os => hoopoe_store::Durability::Os,
            Durability::Memory => hoopoe_store::Durability::Memory,
        },
        shards: settings.broker.shards,
        shards_if_new: shards_if_new(),
        ..StoreSettings::default()
    }
}

/// Shards of a new data folder: each commits for itself, so that with fewer cores than shards the
/// batches are smaller and nothing is done at the same time. More than four have not been faster.
fn shards_if_new() -> u16 {
    std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 4) as u16
}

fn worker_count(settings: &Settings) -> usize {
    match usize::from(settings.broker.workers) {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(255),
        set => set.min(255),
    }
}

/// Connections are descriptors: as many as the system allows.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, current = limit.current, "descriptor limit not raised");
    }
}

/// What an operator tells the node.
enum Told {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Caught so that a file that may not grow is an error of its write, like a full disk, and not
    /// the end of the process.
    _file_size: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let catch = |kind| signal(kind).context("signals cannot be caught");
        Ok(Signals {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
            _file_size: catch(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    async fn stop_again(&mut self) {
        while !matches!(self.next().await, Told::Stop) {}
    }
}
