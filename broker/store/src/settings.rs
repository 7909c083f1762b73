//! What an operator can set about the store.

use std::path::PathBuf;

/// When a write counts as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Synced to disk before anything is acknowledged.
    #[default]
    Sync,
    /// Handed to the operating system: survives a kill, not a power failure.
    Os,
    /// No files at all.
    Memory,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The data folder; unused with [`Durability::Memory`].
    pub folder: PathBuf,
    /// When a write counts as done.
    pub durability: Durability,
    /// Number of shards; fixed once the store holds data (ruling 1). 0: as many as it has.
    pub shards: u16,
    /// Number of shards of a store that is new, where `shards` is 0.
    pub shards_if_new: u16,
    /// Memory for blocks read from disk, shared by all families.
    pub block_cache_bytes: usize,
    /// Memory for rows not yet in files, shared by all families.
    pub write_buffer_bytes: usize,
    /// Threads that write and merge files.
    pub background_jobs: u16,
    /// A file kept so that it can be given up when the disk is full (ruling 12); 0 for none.
    pub reserve_bytes: u64,
}

impl Default for StoreSettings {
    fn default() -> StoreSettings {
        StoreSettings {
            folder: PathBuf::from("data"),
            durability: Durability::Sync,
            shards: 4,
            shards_if_new: 4,
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            background_jobs: 2,
            reserve_bytes: 32 << 20,
        }
    }
}

/// What happens to a message for a queue that is full (ruling 13).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overflow {
    /// The oldest messages make room.
    #[default]
    DropOldest,
    /// The publication is refused with 0x97, for all its receivers of this shard.
    Refuse,
}

/// The limits a shard enforces.
#[derive(Clone, Copy, Debug)]
pub struct ShardSettings {
    /// Messages a queue may hold.
    pub queue_max_messages: u64,
    /// Bytes a queue may hold.
    pub queue_max_bytes: u64,
    /// What happens beyond that.
    pub overflow: Overflow,
    /// Retained messages of the node.
    pub retained_max: u64,
    /// How long wills and expiries wait after a start for clients to come back (ruling 14).
    pub restart_grace_secs: u32,
    /// Whether nothing is routed by a filter: a session that has no other subscriptions, and
    /// nothing in its queue, takes next to no memory while it is away.
    pub is_unrouted: fn(filter: &str) -> bool,
    /// What the client ids of the broker's own links begin with: their sessions stay in memory.
    pub reserved_clients: &'static str,
}

impl Default for ShardSettings {
    fn default() -> ShardSettings {
        ShardSettings {
            queue_max_messages: 100_000,
            queue_max_bytes: 64 << 20,
            overflow: Overflow::DropOldest,
            retained_max: 1_000_000,
            restart_grace_secs: 30,
            is_unrouted: |_| false,
            reserved_clients: "$",
        }
    }
}
