//! The choice of RocksDB's options, each for its reason; figures are in `benches/RESULTS.md`
//! and `benches/HISTORY.md`.

use std::ops::Bound;

use rocksdb::{
    BlockBasedOptions, DBCompressionType, LogLevel, Options, ReadOptions, SliceTransform,
};

use super::RocksKv;
use super::judge::JudgeFactory;
use crate::kv::{Family, Span};

/// The write-ahead log may grow to this many times the write buffers before the family that holds
/// it back is flushed.
const WAL_FACTOR: u64 = 1;
/// The log files of RocksDB itself that are kept.
const LOG_FILES: usize = 4;
/// A file in which so many of so many rows in a row are removals is merged without waiting for
/// its turn.
const REMOVALS_WINDOW: usize = 4_096;
const REMOVALS_TRIGGER: usize = 2_048;
/// So is one of which this part is removals.
const REMOVALS_RATIO: f64 = 0.5;

impl RocksKv {
    pub(super) fn db_options(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(i32::from(self.settings.background_jobs.max(1)));
        options.set_write_buffer_manager(&self.buffers);
        // One log for all families: a family that is hardly written would keep old logs alive.
        let wal = (self.settings.write_buffer_bytes as u64) * WAL_FACTOR;
        options.set_max_total_wal_size(wal);
        // Files are handed to the disk as they grow, so that a sync of the log does not wait for
        // megabytes of a merge.
        options.set_bytes_per_sync(1 << 20);
        // Not told that reads are random, the system reads ahead where the block before was read,
        // which spares requests (`im-sync --cold`: 1.2); a block alone costs the same.
        options.set_advise_random_on_open(false);
        options.set_keep_log_file_num(LOG_FILES);
        options.set_log_level(LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options
    }

    pub(super) fn family_options(&self, family: Family) -> Options {
        let mut options = Options::default();
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        // Indexes and filters count against the cache: memory is bounded whatever is stored.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_format_version(5);
        // LZ4 costs next to nothing on what does not compress, and texts do compress.
        options.set_compression_type(DBCompressionType::Lz4);
        let buffers = self.settings.write_buffer_bytes;
        match family {
            Family::Queue => {
                // Read in stretches of one session: the filter is on the session, not the key.
                options.set_prefix_extractor(SliceTransform::create_fixed_prefix(8));
                table.set_bloom_filter(10.0, false);
                table.set_whole_key_filtering(false);
                table.set_block_size(8 << 10);
                options.set_write_buffer_size(buffers / 2);
            }
            Family::Body => {
                // Asked only for bodies that exist: filters of the last level would be wasted.
                table.set_bloom_filter(10.0, false);
                options.set_optimize_filters_for_hits(true);
                table.set_block_size(8 << 10);
                options.set_write_buffer_size(buffers / 2);
            }
            Family::Retained => {
                // Asked for topics that are often not there: one filter look-up answers.
                table.set_bloom_filter(10.0, false);
                options.set_bottommost_compression_type(DBCompressionType::Zstd);
                options.set_write_buffer_size(buffers / 4);
            }
            Family::Log => {
                // Written once, read in stretches of one conversation: some 20 KB are 50 messages.
                // Twice as large costs what it saves, in taking the blocks apart.
                table.set_block_size(32 << 10);
                table.set_bloom_filter(10.0, false);
                options.set_write_buffer_size(buffers / 2);
            }
            Family::Im => {
                // Asked for what is often not there (deduplication): a filter answers.
                table.set_bloom_filter(10.0, false);
                options.set_write_buffer_size(buffers / 4);
            }
            Family::Meta | Family::Shard | Family::Session => {
                // Small rows written again and again; read in full at the start.
                options.set_write_buffer_size(buffers / 8);
            }
        }
        if matches!(family, Family::Log | Family::Im) {
            // Retention removes long stretches: files full of removals are merged soon.
            options.add_compact_on_deletion_collector_factory(
                REMOVALS_WINDOW,
                REMOVALS_TRIGGER,
                REMOVALS_RATIO,
            );
        }
        options.set_block_based_table_factory(&table);
        if let Some(judge) = &self.judge
            && matches!(family, Family::Queue | Family::Body)
        {
            options.set_compaction_filter_factory(JudgeFactory { judge: judge.clone(), family });
        }
        options
    }
}

/// How a stretch is read.
pub(super) fn read_options(family: Family, span: Span<'_>) -> ReadOptions {
    let mut options = ReadOptions::default();
    match span.from {
        Bound::Included(from) | Bound::Excluded(from) => options.set_iterate_lower_bound(from),
        Bound::Unbounded => {}
    }
    match span.to {
        Bound::Excluded(to) => options.set_iterate_upper_bound(to),
        Bound::Included(to) => {
            let mut behind = to.to_vec();
            behind.push(0);
            options.set_iterate_upper_bound(behind);
        }
        Bound::Unbounded => {}
    }
    let one_session = match (span.from, span.to) {
        (Bound::Included(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from.len() >= 8 && to.len() >= 8 && from[..8] == to[..8]
        }
        _ => false,
    };
    if family == Family::Queue && one_session && !span.reverse {
        options.set_prefix_same_as_start(true);
    } else {
        options.set_total_order_seek(true);
    }
    options
}
