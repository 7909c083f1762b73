//! Readers: history, offline queues and retained messages, never on a worker or shard thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hoopoe_core::{Location, Publication, SessionId, Slot};
use hoopoe_store::effect::QueueEntry;
use hoopoe_store::{Command, Reader};

use crate::clock;
use crate::connection::Env;
use crate::fabric::Mail;
use crate::im::ImRead;

/// How long a reader sleeps before it looks whether the node stops.
const NAP: Duration = Duration::from_millis(200);

/// Something to read for a connection.
#[derive(Debug)]
pub enum ReadJob {
    /// Entries of a stored queue.
    Queue {
        /// Who asks.
        location: Location,
        /// Whose queue.
        session: SessionId,
        /// First entry.
        from: u64,
        /// Expired entries too: they were sent before and are to be sent again.
        expired_too: bool,
        /// Entries at most.
        max_entries: usize,
        /// Bytes at most, one entry apart.
        max_bytes: usize,
    },
    /// An entry of a shared group that a member had in delivery when its connection ended.
    Entry {
        /// Who asks.
        location: Location,
        /// The group.
        group: SessionId,
        /// The entry.
        seq: u64,
        /// Whether the member's subscription keeps RETAIN as it was published.
        retain_as_published: bool,
        /// Its Subscription Identifier, 0 when none.
        identifier: u32,
    },
    /// For the IM profile.
    Im(ImRead),
    /// Retained messages.
    Retained {
        /// Who asks.
        location: Location,
        /// Filter, without share prefix.
        filter: Arc<str>,
        /// Last topic of the page before.
        after: Option<Arc<str>>,
        /// Messages at most.
        limit: usize,
        /// Bytes at most, one message apart.
        max_bytes: usize,
    },
}

/// Entries of a queue.
#[derive(Debug, Default)]
pub struct QueuePage {
    /// In order.
    pub entries: Vec<QueueEntry>,
    /// Everything before was looked at.
    pub next: u64,
    /// Weight of the queue before `next`.
    pub weight: u64,
    /// The queue had no more.
    pub ended: bool,
    /// Entries left out because they have expired.
    pub expired: u64,
    /// The store could not be read.
    pub failed: bool,
}

/// Retained messages.
#[derive(Debug, Default)]
pub struct RetainedPage {
    /// With their positions.
    pub messages: Vec<(u64, Arc<Publication>)>,
    /// Where to go on; `None` at the end.
    pub next: Option<Arc<str>>,
}

/// Runs until the node stops.
pub fn run_reader(env: &Env, reader: &Reader, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        if let Some(job) = env.fabric.readers.take(NAP) {
            carry_out(env, reader, job, clock::now_ms());
        }
    }
}

/// Reads what a job asks for and tells its worker.
pub fn carry_out(env: &Env, reader: &Reader, job: ReadJob, now_ms: u64) {
    let (location, letter) = match job {
        ReadJob::Im(job) => return crate::im::read(env, &reader.kv(), now_ms, job),
        ReadJob::Queue { location, session, from, expired_too, max_entries, max_bytes } => {
            let as_of = if expired_too { 0 } else { now_ms };
            let page = match reader.read_queue(as_of, session, from, max_entries, max_bytes) {
                Ok(page) => QueuePage {
                    next: from.max(page.through + 1),
                    weight: page.weight,
                    ended: !page.more,
                    expired: page.expired,
                    entries: page.entries,
                    failed: false,
                },
                Err(error) => {
                    tracing::error!(%error, "a queue could not be read");
                    QueuePage { failed: true, ..QueuePage::default() }
                }
            };
            (location, Mail::Queue { location, page })
        }
        ReadJob::Entry { location, group, seq, retain_as_published, identifier } => {
            match reader.read_entry(group, seq) {
                Ok(Some(mut entry)) => {
                    // The group's entry knows no member: as it was first given to this one.
                    entry.retain &= retain_as_published;
                    entry.identifiers =
                        (identifier != 0).then_some(identifier).into_iter().collect();
                    (location, Mail::Offer { location, group, entry: Box::new(entry) })
                }
                Ok(None) => (location, Mail::EntryGone { location, group, seq }),
                Err(error) => {
                    tracing::error!(%error, "an entry of a shared group could not be read");
                    let reason = hoopoe_codec::ReasonCode::ServerUnavailable;
                    (location, Mail::TakenOver { location, reason })
                }
            }
        }
        ReadJob::Retained { location, filter, after, limit, max_bytes } => {
            let after = after.as_deref();
            match reader.read_retained(now_ms, &[&filter], after, limit, max_bytes) {
                Ok(page) => {
                    forget_expired(env, page.expired);
                    let messages = page.messages.into_iter();
                    let page = RetainedPage {
                        messages: messages.map(|(at, found)| (at, Arc::new(found))).collect(),
                        next: page.next.map(Arc::from),
                    };
                    (location, Mail::Retained { location, page })
                }
                Err(error) => {
                    tracing::error!(%error, "retained messages could not be read");
                    // It subscribes again, and gets them then.
                    let reason = hoopoe_codec::ReasonCode::ServerUnavailable;
                    (location, Mail::TakenOver { location, reason })
                }
            }
        }
    };
    env.fabric.workers[location.worker()].put(letter);
}

/// Tells the owning shards which retained messages have expired.
fn forget_expired(env: &Env, expired: Vec<(Arc<str>, u64)>) {
    let shards = env.fabric.shards.len();
    let mut by_shard: Vec<Vec<(Arc<str>, u64)>> = vec![Vec::new(); shards];
    for (topic, position) in expired {
        by_shard[Slot::of(topic.as_bytes()).shard(shards)].push((topic, position));
    }
    for (topics, shard) in by_shard.into_iter().zip(&env.fabric.shards) {
        if !topics.is_empty() {
            shard.put(Command::ExpireRetained { topics }.into());
        }
    }
}
