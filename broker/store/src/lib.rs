//! Durable state: keys, rows, the shard log and the shard view, on RocksDB or in memory.
