//! The threads of a node: started together, ended in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use anyhow::Context;
use hoopoe_store::Store;

use super::{Node, Parts};
use crate::connection::Worker;
use crate::shard::{run_reader, run_shard, start_outbox};

/// Threads that read for connections.
const READERS: usize = 2;

/// Told to threads that have no mailbox for it.
#[derive(Clone, Default)]
pub(super) struct StopFlags {
    pub(super) shards: Arc<AtomicBool>,
    pub(super) readers: Arc<AtomicBool>,
}

/// Running threads.
pub(super) struct Threads {
    workers: Vec<JoinHandle<()>>,
    shards: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    stop: StopFlags,
}

impl Threads {
    pub(super) fn start(parts: Parts, node: &Node) -> anyhow::Result<Threads> {
        let Parts { workers, shards, outbox, stop } = parts;
        let mut threads =
            Threads { workers: Vec::new(), shards: Vec::new(), readers: Vec::new(), stop };
        for parts in workers {
            let name = format!("worker-{}", parts.number);
            threads.workers.push(spawn(name, move || {
                if let Err(error) = Worker::new(parts).run() {
                    tracing::error!(%error, "a worker cannot wait for events: the node ends");
                    std::process::abort();
                }
            })?);
        }
        for parts in shards {
            let name = format!("shard-{}", parts.number);
            threads.shards.push(spawn(name, move || run_shard(parts))?);
        }
        for number in 0..READERS {
            let (env, reader) = (node.env.clone(), node.store.reader());
            let stop = threads.stop.readers.clone();
            threads.readers.push(spawn(format!("reader-{number}"), move || {
                run_reader(&env, &reader, &stop);
            })?);
        }
        for (shard, restored) in outbox {
            start_outbox(shard, &node.env, restored);
        }
        Ok(threads)
    }

    /// Waits for workers, then ends readers and shards and closes the store.
    pub(super) fn join(self, store: &Store) -> anyhow::Result<()> {
        join_all(self.workers, "worker")?;
        self.stop.readers.store(true, Ordering::Release);
        join_all(self.readers, "reader")?;
        self.stop.shards.store(true, Ordering::Release);
        join_all(self.shards, "shard")?;
        store.flush().context("the store could not be closed in order")
    }
}

/// A bug in a thread's own code ends the process: nothing it owns can be trusted any more, and
/// the store is made to be reopened after a kill.
fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    let label = name.clone();
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!(thread = label, "a thread has failed: the node ends");
            std::process::abort();
        }
    };
    Builder::new().name(name).spawn(guarded).context("a thread cannot be started")
}

fn join_all(threads: Vec<JoinHandle<()>>, kind: &str) -> anyhow::Result<()> {
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a {kind} thread has failed"))?;
    }
    Ok(())
}
