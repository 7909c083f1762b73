//! What joins the threads: bounded mailboxes that carry batches, and who sits behind them.
//!
//! Law (ruling 6): nobody waits for space in another thread's mailbox. A worker looks at the
//! fill levels before it reads sockets, and leaves publishers unread while one is high.

mod jobs;
mod mail;
mod mailbox;

pub use jobs::Jobs;
pub use mail::{Delivery, Mail, Terms, TransientReceiver};
pub use mailbox::{Mailbox, Weigh};

use std::sync::Arc;

use hoopoe_core::index::Index;
use hoopoe_core::{Slot, Subscription};
use hoopoe_store::Command;
use hoopoe_store::command::Open;

use crate::shard::ReadJob;

/// A command on its way to a shard.
#[derive(Debug)]
pub enum ShardMail {
    /// For sessions, queues and retained messages.
    Mqtt(Command),
    /// For the IM profile.
    Im(hoopoe_im::Command),
    /// A CONNECT of an IM user, who may be let in or not.
    Enter {
        /// What it asks for.
        open: Box<Open>,
        /// When the token was made that it came with; 0 without one.
        token_since_ms: u64,
    },
}

impl From<Command> for ShardMail {
    fn from(command: Command) -> ShardMail {
        ShardMail::Mqtt(command)
    }
}

impl From<hoopoe_im::Command> for ShardMail {
    fn from(command: hoopoe_im::Command) -> ShardMail {
        ShardMail::Im(command)
    }
}

/// Commands that may wait for a shard before workers stop reading sockets.
pub const SHARD_MAIL_HIGH: usize = 16_384;
/// Letters that may wait for a worker before others stop reading sockets.
pub const WORKER_MAIL_HIGH: usize = 32_768;
/// Bytes of messages that may wait for a worker before others stop reading sockets: a few letters
/// are much when each of them is a large one.
pub const WORKER_MAIL_HIGH_BYTES: usize = 64 << 20;
/// Jobs that may wait for a reader before workers stop reading sockets.
pub const READER_MAIL_HIGH: usize = 16_384;

/// The threads of this node as seen from each of them.
pub struct Fabric {
    /// One mailbox per worker.
    pub workers: Vec<Arc<Mailbox<Mail>>>,
    /// One mailbox per shard.
    pub shards: Vec<Arc<Mailbox<ShardMail>>>,
    /// Work for the readers.
    pub readers: Arc<Jobs<ReadJob>>,
    /// The subscription index.
    pub index: Arc<Index<Subscription>>,
}

impl Weigh for ShardMail {
    fn bytes(&self) -> usize {
        match self {
            ShardMail::Mqtt(Command::Publish(publish)) => publish.publication.bytes().len(),
            ShardMail::Im(hoopoe_im::Command::Send(send)) => send.payload.len(),
            _ => 0,
        }
    }
}

impl Fabric {
    /// The shard that owns a slot.
    pub fn shard_of(&self, slot: Slot) -> usize {
        slot.shard(self.shards.len())
    }

    /// How full the fullest mailbox is, in percent of what makes publishers wait.
    pub fn fill_percent(&self) -> u32 {
        let of = |is: usize, high: usize| u32::try_from(is * 100 / high).unwrap_or(u32::MAX);
        let shards = self.shards.iter().map(|shard| of(shard.len(), SHARD_MAIL_HIGH));
        let workers = self.workers.iter().map(|worker| {
            let letters = of(worker.len(), WORKER_MAIL_HIGH);
            letters.max(of(worker.bytes(), WORKER_MAIL_HIGH_BYTES))
        });
        let readers = of(self.readers.len(), READER_MAIL_HIGH);
        shards.chain(workers).fold(readers, u32::max)
    }

    /// True while some thread is so far behind that publishers must not be read.
    pub fn under_pressure(&self) -> bool {
        self.shards.iter().any(|shard| shard.len() > SHARD_MAIL_HIGH)
            || self.workers.iter().any(|worker| {
                worker.len() > WORKER_MAIL_HIGH || worker.bytes() > WORKER_MAIL_HIGH_BYTES
            })
            || self.readers.len() > READER_MAIL_HIGH
    }
}
