//! Dead rows vanish while RocksDB merges its files. Which are dead is said by a [`RowJudge`].

use std::ffi::CStr;
use std::sync::Arc;

use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::kv::{Family, RowJudge};

/// Makes a filter for every merge of files.
pub(super) struct JudgeFactory {
    pub(super) judge: Arc<dyn RowJudge>,
    pub(super) family: Family,
}

impl CompactionFilterFactory for JudgeFactory {
    type Filter = JudgeFilter;

    fn create(&mut self, _: CompactionFilterContext) -> JudgeFilter {
        JudgeFilter { judge: self.judge.clone(), family: self.family }
    }

    fn name(&self) -> &CStr {
        c"hoopoe.floors"
    }
}

/// Lets dead rows vanish while files are merged.
pub(super) struct JudgeFilter {
    judge: Arc<dyn RowJudge>,
    family: Family,
}

impl CompactionFilter for JudgeFilter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        if self.judge.is_dead(self.family, key, value) { Decision::Remove } else { Decision::Keep }
    }

    fn name(&self) -> &CStr {
        c"hoopoe.floors"
    }
}
