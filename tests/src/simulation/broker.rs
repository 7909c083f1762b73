//! A broker in one thread: the node's own parts (workers, shards, a reader), each stepped by hand
//! at a time that the simulation makes up, over a store in memory that can fail and crash.
//!
//! Nothing of the broker is written here a second time: this file only calls its turns.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hoopoe::access::Access;
use hoopoe::connection::{Limits, Listener, Moment, Ready, Seats, Worker};
use hoopoe::fabric::Mail;
use hoopoe::node::Node;
use hoopoe::settings::{AccessSettings, Door, Settings};
use hoopoe::shard::{Shard, carry_out, start_outbox};
use hoopoe::transport::{Carrier, GateLimits, ListenerGate, ListenerTransport, Stream};
use hoopoe_codec::QoS;
use hoopoe_store::floors::Floors;
use hoopoe_store::{Durability, MemoryKv, Reader, Store};

use super::link::BrokerEnd;

/// What a run's broker is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Threads for connections.
    pub workers: u16,
    /// Shards.
    pub shards: u16,
    /// Messages in a queue; older ones are dropped beyond it.
    pub queue_messages: u64,
    /// Messages in flight to a 3.1.1 client.
    pub window_v311: u16,
    /// Its clients are users who chat.
    pub im: bool,
    /// Entries that are kept of their conversations; 0 for all.
    pub keep_entries: u64,
}

/// What is on the disk.
#[derive(Debug)]
pub struct Disk {
    /// The rows.
    pub kv: Arc<MemoryKv>,
    floors: Arc<Floors>,
}

impl Disk {
    /// An empty one.
    pub fn new(shards: u16) -> Disk {
        let floors = Arc::new(Floors::new(shards));
        let kv = Arc::new(MemoryKv::new(Some(floors.clone())));
        kv.simulate_crashes();
        Disk { kv, floors }
    }

    /// As a crash leaves it: everything synced, and the first `keep` writes that were not.
    pub fn crashed(&self, keep: usize, shards: u16) -> Disk {
        let floors = Arc::new(Floors::new(shards));
        let kv = Arc::new(self.kv.crash(keep, Some(floors.clone())));
        kv.simulate_crashes();
        Disk { kv, floors }
    }

    /// As the broker's end leaves it.
    pub fn closed(&self, shards: u16) -> Disk {
        let floors = Arc::new(Floors::new(shards));
        let kv = Arc::new(self.kv.copy(Some(floors.clone())));
        kv.simulate_crashes();
        Disk { kv, floors }
    }
}

/// A running broker.
pub struct Broker {
    /// What its threads share.
    pub node: Node,
    workers: Vec<Option<Worker>>,
    shards: Vec<Shard>,
    reader: Reader,
    /// What the reader has read and not handed over yet: much can happen in between.
    read: Vec<Vec<Mail>>,
    listener: Arc<Listener>,
    gate: Arc<ListenerGate>,
    started_ms: u64,
}

impl Broker {
    /// Starts a broker on what is on the disk.
    pub fn start(shape: &Shape, disk: &Disk, now_ms: u64) -> Broker {
        let store =
            Store::over(disk.kv.clone(), disk.floors.clone(), Durability::Sync, shape.shards)
                .expect("the store opens");
        let mut settings = Settings::default();
        settings.broker.workers = shape.workers;
        settings.broker.shards = shape.shards;
        settings.queue.max_messages = shape.queue_messages;
        (settings.im.sends_per_sec, settings.im.send_burst) = (100_000, 100_000);
        if shape.keep_entries > 0 {
            settings.im.retention.entries = shape.keep_entries;
            settings.im.sweep_interval_secs = 1;
        }
        let (node, parts) =
            Node::prepare(&settings, access(), store, now_ms).expect("the node is prepared");
        let shards: Vec<Shard> = parts.shards.into_iter().map(Shard::new).collect();
        let mut workers: Vec<Option<Worker>> =
            parts.workers.into_iter().map(|parts| Some(Worker::new(parts))).collect();
        for worker in workers.iter_mut().flatten() {
            // The first turn learns the time.
            let now = Moment { wall_ms: now_ms, up: Duration::ZERO };
            worker.begin_turn(now, std::iter::empty(), false);
            worker.end_turn();
        }
        for (shard, restored) in parts.outbox {
            start_outbox(shard, &node.env, restored);
        }
        let reader = node.store.reader();
        let limits = GateLimits { connections_max: 1000, connect_rate: None };
        let gate = ListenerGate::new(&limits, Instant::now());
        let listener = Arc::new(listener(shape));
        let read = Vec::new();
        Broker { node, workers, shards, reader, read, listener, gate, started_ms: now_ms }
    }

    /// Lets a connection in; gives the worker that has it.
    pub fn accept(&self, end: BrokerEnd) -> usize {
        let permit = self.gate.enter().expect("the gate is wide");
        let seat = self.node.seats.take();
        let worker = seat.worker();
        self.node.env.fabric.workers[worker].put(Mail::Accepted {
            stream: Stream::Pipe(Box::new(end)),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            listener: self.listener.clone(),
            seats: Seats { permit, seat },
        });
        worker
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Whether a worker has something to do besides its sockets.
    pub fn worker_is_due(&self, worker: usize, now_ms: u64) -> bool {
        let Some(state) = &self.workers[worker] else { return false };
        let second = (now_ms - self.started_ms) / 1000;
        state.is_restless()
            || !self.node.env.fabric.workers[worker].is_empty()
            || state.second() < second
    }

    /// A worker's turn; false once it has ended.
    pub fn step_worker(&mut self, worker: usize, now_ms: u64, mut ready: Vec<Ready>) -> bool {
        let up = Duration::from_millis(now_ms - self.started_ms);
        let pressed = self.node.env.fabric.under_pressure();
        let Some(state) = &mut self.workers[worker] else { return false };
        // Half of it is found at once, the rest once that has been read; nothing is gathered while
        // some thread is behind.
        let at_once = if pressed { ready.len() } else { ready.len().div_ceil(2) };
        let gathered = ready.split_off(at_once);
        state.begin_turn(Moment { wall_ms: now_ms, up }, ready.into_iter(), pressed);
        if !pressed {
            state.gather(gathered.into_iter());
        }
        if state.end_turn() {
            self.workers[worker] = None;
        }
        self.workers[worker].is_some()
    }

    /// Whether a shard has something to do.
    pub fn shard_is_due(&self, shard: usize, now_ms: u64) -> bool {
        !self.node.env.fabric.shards[shard].is_empty()
            || self.shards[shard].next_timeout().is_some_and(|at| at <= now_ms)
    }

    /// When a shard has something to do next.
    pub fn next_timeout(&self) -> Option<u64> {
        self.shards.iter().filter_map(Shard::next_timeout).min()
    }

    /// A shard's turn.
    pub fn step_shard(&mut self, shard: usize, now_ms: u64) {
        self.shards[shard].step(now_ms);
    }

    /// Whether there is something to read, or to hand over.
    pub fn reader_is_due(&self) -> bool {
        !self.read.is_empty() || !self.node.env.fabric.readers.is_empty()
    }

    /// One job of a reader, or the handing over of what the last one has found.
    pub fn step_reader(&mut self, now_ms: u64) {
        let workers = &self.node.env.fabric.workers;
        if !self.read.is_empty() {
            for (mailbox, mut letters) in workers.iter().zip(self.read.drain(..)) {
                mailbox.put_all(&mut letters);
            }
        } else if let Some(job) = self.node.env.fabric.readers.take(Duration::ZERO) {
            let take = |mailbox: &Arc<hoopoe::fabric::Mailbox<Mail>>| {
                let mut letters = Vec::new();
                mailbox.take(&mut letters);
                letters
            };
            let before: Vec<Vec<Mail>> = workers.iter().map(take).collect();
            carry_out(&self.node.env, &self.reader, job, now_ms);
            self.read = workers.iter().map(take).collect();
            for (mailbox, mut letters) in workers.iter().zip(before) {
                mailbox.put_all(&mut letters);
            }
        }
    }

    /// The letters that wait for a worker, to be looked at. Nobody reads those of one that has
    /// ended.
    pub fn look_at_letters(&self, worker: usize, mut look: impl FnMut(&Mail)) {
        if self.workers[worker].is_none() {
            return;
        }
        let mailbox = &self.node.env.fabric.workers[worker];
        let mut letters = Vec::new();
        if mailbox.take(&mut letters) {
            letters.iter().for_each(&mut look);
            mailbox.put_all(&mut letters);
        }
    }

    /// Tells the workers to stop.
    pub fn tell_to_stop(&self, hurry: bool) {
        self.node.env.fabric.workers.iter().for_each(|worker| worker.put(Mail::Stop { hurry }));
    }

    /// Whether all workers have ended.
    pub fn workers_ended(&self) -> bool {
        self.workers.iter().all(Option::is_none)
    }

    /// The end of the shards, after that of the workers.
    pub fn finish(mut self, now_ms: u64) {
        for shard in &mut self.shards {
            while shard.step(now_ms) {}
            shard.finish(now_ms);
        }
    }

    /// Messages that full queues have dropped.
    pub fn overflowed(&self) -> u64 {
        self.node.env.telemetry.shards.iter().map(|shard| shard.overflowed.get()).sum()
    }
}

/// Users are whoever they say: nothing is hashed, the pool's threads sleep.
fn access() -> Arc<Access> {
    static ACCESS: OnceLock<Arc<Access>> = OnceLock::new();
    let open = || Arc::new(Access::open(&AccessSettings::default()).expect("no files to read"));
    ACCESS.get_or_init(open).clone()
}

fn listener(shape: &Shape) -> Listener {
    let limits = Limits {
        max_packet_bytes: 1 << 20,
        max_qos: QoS::ExactlyOnce,
        retain_available: true,
        wildcard_available: true,
        shared_available: true,
        keep_alive_max_secs: 0,
        session_expiry_max_secs: 7 * 24 * 3600,
        receive_maximum: 20,
        window_v311: shape.window_v311,
        window_v5: 100,
        topic_alias_maximum: 10,
        max_topic_levels: 10,
        max_topic_bytes: 1000,
        max_subscriptions: 100,
        max_client_id_bytes: 100,
        write_buffer_bytes: 16 << 10,
        backlog_messages: 10_000,
        backlog_bytes: 8 << 20,
        publish_rate: 0,
        publish_bytes_rate: 0,
        burst_secs: 1,
    };
    Listener {
        im: shape.im,
        url: "tcp://simulated:1883".to_owned(),
        transport: Arc::new(ListenerTransport::new(Carrier::Tcp)),
        door: ArcSwap::from_pointee(Door { anonymous: true, development: true }),
        limits: ArcSwap::from_pointee(limits),
        subject_as_user: false,
        connect_timeout_secs: 10,
        bridge: None,
    }
}
