//! RocksDB and its twin in memory do the same; and what only files can do.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use hoopoe_codec::QoS;
use hoopoe_core::{PublicationParts, SessionId, Slot};
use proptest::prelude::*;

use crate::error::StoreError;
use crate::keys;
use crate::kv::{Batch, Family, Kv, Span};
use crate::memory::MemoryKv;
use crate::rocks::RocksKv;
use crate::rows;
use crate::settings::{ShardSettings, StoreSettings};
use crate::store::Store;
use crate::view::ShardView;

fn settings(folder: &tempfile::TempDir) -> StoreSettings {
    StoreSettings {
        folder: folder.path().to_path_buf(),
        shards: 1,
        reserve_bytes: 1 << 20,
        ..StoreSettings::default()
    }
}

fn scan(kv: &dyn Kv, family: Family, span: Span<'_>, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    kv.scan(family, span, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .expect("scans");
    rows
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    let key = proptest::collection::vec(0..4u8, 0..10);
    prop_oneof![
        key.clone().prop_map(Bound::Included),
        key.prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Queue), Just(Family::Session), Just(Family::Retained)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn both_twins_read_the_same(
        rows in proptest::collection::vec(
            (family(), proptest::collection::vec(0..4u8, 0..10), any::<Option<u8>>()),
            0..80,
        ),
        spans in proptest::collection::vec((family(), bound(), bound(), any::<bool>()), 1..20),
        limit in 1..5usize,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let twins: [Box<dyn Kv>; 2] = [
            Box::new(MemoryKv::new(None)),
            Box::new(RocksKv::open(&settings(&folder), None).expect("opens")),
        ];
        for chunk in rows.chunks(7) {
            let mut batch = Batch::default();
            for (family, key, value) in chunk {
                match value {
                    Some(value) => batch.put(*family, key, &[*value]),
                    None => batch.delete(*family, key),
                }
            }
            for kv in &twins {
                kv.write(&batch, false).expect("writes");
            }
        }
        for (family, from, to, reverse) in &spans {
            let span = Span {
                from: from.as_ref().map(Vec::as_slice),
                to: to.as_ref().map(Vec::as_slice),
                reverse: *reverse,
            };
            let read = twins.each_ref().map(|kv| scan(kv.as_ref(), *family, span, limit));
            prop_assert_eq!(&read[0], &read[1], "{:?} {:?}", family, span);
        }
        for (family, key, _) in &rows {
            let read = twins.each_ref().map(|kv| kv.get(*family, key).expect("reads"));
            prop_assert_eq!(&read[0], &read[1]);
            let mut many = Vec::new();
            for kv in &twins {
                let keys = [key.as_slice(), b"none"];
                kv.multi_get(*family, &keys, &mut |at, value| many.push((at, value.map(<[u8]>::to_vec))))
                    .expect("reads");
            }
            let other = many.split_off(2);
            prop_assert_eq!(many, other);
        }
    }
}

#[test]
fn rows_below_a_prefix_are_found_without_walking_over_graves_behind_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let kv = RocksKv::open(&settings(&folder), None).expect("opens");
    for delete in [false, true] {
        let mut batch = Batch::default();
        batch.put(Family::Im, b"a/1", b"kept");
        for number in 0..1_000u32 {
            let key = [b"b/", &number.to_be_bytes()[..]].concat();
            match delete {
                true => batch.delete(Family::Im, &key),
                false => batch.put(Family::Im, &key, b"gone soon"),
            }
        }
        kv.write(&batch, false).expect("writes");
    }
    let mut found = Vec::new();
    rocksdb::perf::set_perf_stats(rocksdb::perf::PerfStatsLevel::EnableCount);
    let mut work = rocksdb::perf::PerfContext::default();
    work.reset();
    for prefix in [&b"a/"[..], b"a0"] {
        kv.scan_below(Family::Im, prefix, Bound::Included(prefix), &mut |key, _| {
            found.push(key.to_vec());
            ControlFlow::Continue(())
        })
        .expect("scans");
    }
    let graves = work.metric(rocksdb::perf::PerfMetric::InternalDeleteSkippedCount);
    rocksdb::perf::set_perf_stats(rocksdb::perf::PerfStatsLevel::Disable);
    assert_eq!(found, [b"a/1".to_vec()]);
    assert_eq!(graves, 0, "removed rows behind the prefix were read");
}

#[test]
fn a_folder_in_use_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Store::open(&settings(&folder)).expect("opens");
    let second = Store::open(&settings(&folder)).expect_err("is locked");
    assert!(matches!(second, StoreError::Locked { .. }), "{second}");
}

#[test]
fn a_folder_that_cannot_be_made_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, b"not a folder").expect("writes");
    let inside = StoreSettings { folder: file.join("data"), ..settings(&folder) };
    let error = Store::open(&inside).expect_err("cannot be made");
    assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
}

#[test]
fn the_number_of_shards_and_the_format_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(Store::open(&settings(&folder)).expect("opens"));
    let more = StoreSettings { shards: 2, ..settings(&folder) };
    let error = Store::open(&more).expect_err("differs");
    assert!(matches!(error, StoreError::ShardsDiffer { stored: 1, asked: 2 }), "{error}");

    let as_it_is = StoreSettings { shards: 0, shards_if_new: 7, ..settings(&folder) };
    assert_eq!(Store::open(&as_it_is).expect("opens").shards(), 1);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let new = StoreSettings { folder: elsewhere.path().to_path_buf(), ..as_it_is };
    assert_eq!(Store::open(&new).expect("opens").shards(), 7);
    assert_eq!(Store::open(&new).expect("opens").shards(), 7);

    let kv = RocksKv::open(&settings(&folder), None).expect("opens");
    let mut batch = Batch::default();
    batch.put(Family::Meta, keys::FORMAT, &[99, 1]);
    kv.write(&batch, true).expect("writes");
    drop(kv);
    let error = Store::open(&settings(&folder)).expect_err("another format");
    assert!(matches!(error, StoreError::Format { found: 99, .. }), "{error}");
}

#[test]
fn a_damaged_row_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&settings(&folder)).expect("opens");
    let mut batch = Batch::default();
    let key = keys::session(hoopoe_core::SessionId(7), keys::session_kind::SESSION);
    batch.put(Family::Session, &key, &[1, 0xff]);
    store.kv().write(&batch, true).expect("writes");
    let error = ShardView::open(&store, 0, ShardSettings::default(), 0).expect_err("damaged");
    let StoreError::Damaged(damaged) = error else { panic!("damaged, not {error}") };
    assert_eq!(damaged.key, key.to_vec());
    assert!(damaged.to_string().contains("session"), "{damaged}");
}

#[test]
fn a_checkpoint_is_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&settings(&folder)).expect("opens");
    let mut batch = Batch::default();
    batch.put(Family::Retained, b"t", b"v");
    store.kv().write(&batch, false).expect("writes");
    let copy = tempfile::tempdir().expect("a folder");
    store.checkpoint(copy.path()).expect("copies");
    drop(store);
    let copied = Store::open(&settings(&copy)).expect("opens");
    assert_eq!(copied.kv().get(Family::Retained, b"t").expect("reads"), Some(b"v".to_vec()));
}

/// A database with one row.
fn with_a_row(folder: &tempfile::TempDir) -> RocksKv {
    let kv = RocksKv::open(&settings(folder), None).expect("opens");
    let mut batch = Batch::default();
    batch.put(Family::Retained, b"t", b"v");
    kv.write(&batch, true).expect("writes");
    kv
}

#[test]
fn a_store_is_reopened_under_its_users() {
    let folder = tempfile::tempdir().expect("a folder");
    let kv = Arc::new(RocksKv::open(&settings(&folder), None).expect("opens"));
    let mut batch = Batch::default();
    batch.put(Family::Retained, b"t", b"v");
    kv.write(&batch, true).expect("writes");
    kv.poison("No space left on device");
    assert!(kv.write(&batch, true).is_err(), "poisoned");
    assert!(kv.probe().is_err());
    assert!(kv.get(Family::Retained, b"t").expect("still reads").is_some());
    kv.reopen().expect("reopens");
    assert!(!folder.path().join("reserve").exists(), "given up for the reopening");
    assert!(kv.write(&batch, true).is_err(), "full until the reserve is back");
    kv.probe().expect("there is room");
    assert_eq!(std::fs::metadata(folder.path().join("reserve")).expect("is back").len(), 1 << 20);
    kv.write(&batch, true).expect("writes again");
    assert!(kv.get(Family::Retained, b"t").expect("reads").is_some());
}

/// A disk that fails may have kept less than it has said.
#[test]
fn a_hole_in_the_log_is_kept_at_a_reopening_as_at_an_opening() {
    let folder = tempfile::tempdir().expect("a folder");
    let kv = with_a_row(&folder);
    (0..20).for_each(|_| put_entries(&kv, 50));
    let database = folder.path().join("db");
    let mut names = super::inspect::names_in(&database).into_iter();
    let log = names.rfind(|name| name.ends_with(".log")).expect("there is a log");
    let (file, kept) = (database.join(&log), folder.path().join("damaged-logs").join(&log));
    let mut bytes = std::fs::read(&file).expect("the log can be read");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 1_024].fill(0);
    std::fs::write(&file, &bytes).expect("the log can be written");
    kv.poison("No space left on device");
    kv.reopen().expect("reopens with what is before it");
    assert_eq!(std::fs::read(&kept).expect("the log is kept"), bytes);
    assert!(kv.get(Family::Retained, b"t").expect("reads").is_some());
}

#[test]
fn a_reopening_begins_no_new_store_over_the_old() {
    let folder = tempfile::tempdir().expect("a folder");
    let kv = with_a_row(&folder);
    let current = folder.path().join("db/CURRENT");
    std::fs::remove_file(&current).expect("it is there");
    kv.poison("Input/output error");
    for _ in 0..2 {
        let error = kv.reopen().expect_err("nothing names the manifest");
        assert!(error.to_string().contains("CURRENT"), "{error}");
        assert!(!current.exists());
    }
}

/// Queue rows that a table cannot make smaller.
fn put_entries(kv: &dyn Kv, entries: u64) {
    let mut seed = 1_u64;
    let mut batch = Batch::default();
    for seq in 1..=entries {
        let payload: Vec<u8> = (0..400)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        let message = PublicationParts {
            topic: "t",
            properties: &[],
            payload: &payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at_ms: None,
        };
        let head = rows::EntryHead {
            qos: QoS::AtLeastOnce,
            retain: false,
            weight: seq * 400,
            identifiers: &[],
        };
        let session = SessionId::new(Slot::of(&(seq % 7).to_be_bytes()), seq % 7 + 1);
        batch.put_with(Family::Queue, &keys::queue(session, seq), |out| {
            rows::put_entry(out, &head, &message.to_publication());
        });
    }
    kv.write(&batch, true).expect("writes");
}

#[test]
fn a_damaged_block_costs_its_rows_and_no_others() {
    for place in [0.01, 0.3, 0.6, 0.9] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&settings(&folder)).expect("opens");
        put_entries(store.kv().as_ref(), 2_000);
        store.flush().expect("flushes");
        drop(store);
        let database = folder.path().join("db");
        let size = |path: &std::path::PathBuf| std::fs::metadata(path).expect("a file").len();
        let files = std::fs::read_dir(&database).expect("a folder");
        let table = files
            .map(|file| file.expect("a file").path())
            .filter(|path| path.extension().is_some_and(|end| end == "sst"))
            .max_by_key(size)
            .expect("a table");
        let mut bytes = std::fs::read(&table).expect("reads");
        let at = (bytes.len() as f64 * place) as usize;
        bytes[at] ^= 1;
        std::fs::write(&table, bytes).expect("writes");
        let salvage = super::repair(folder.path(), None).expect("repairs");
        let (_, kept) = salvage.kept.iter().find(|(name, _)| *name == "queue").expect("a family");
        // A block holds some twenty of these rows.
        assert!((1_950..2_000).contains(kept), "{kept} kept; {:?}", salvage.lost);
        // The rows were put there without their shard, whose counters are missing too.
        assert_eq!(salvage.lost.len(), 2, "{:?}", salvage.lost);
        let name = table.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(salvage.lost[0].place.ends_with(name), "{:?}", salvage.lost);
        Store::open(&settings(&folder)).expect("opens");
    }
}

#[test]
fn families_are_numbered_in_the_order_of_their_list() {
    // What a repair rests on that has a log and no manifest.
    let folder = tempfile::tempdir().expect("a folder");
    let kv = RocksKv::open(&settings(&folder), None).expect("opens");
    let mut batch = Batch::default();
    for (number, family) in Family::ALL.into_iter().enumerate() {
        assert_eq!(family as usize, number, "{}", family.name());
        batch.put(family, &[number as u8], b"");
    }
    kv.write(&batch, true).expect("writes");
    let database = folder.path().join("db");
    let log = super::inspect::names_in(&database).into_iter().find(|name| name.ends_with(".log"));
    let mut numbers = Numbers::default();
    let log = database.join(log.expect("a log"));
    let scanned = super::log_file::scan_file(&log, &mut |record| {
        rocksdb::WriteBatch::from_data(record).iterate_cf(&mut numbers);
    });
    assert_eq!(scanned.expect("reads").fault, None);
    let expected: Vec<(u32, Vec<u8>)> =
        (0..Family::ALL.len()).map(|number| (number as u32, vec![number as u8])).collect();
    assert_eq!(numbers.0, expected);
}

/// Numbers of families with the keys written to them.
#[derive(Default)]
struct Numbers(Vec<(u32, Vec<u8>)>);

impl rocksdb::WriteBatchIteratorCf for Numbers {
    fn put_cf(&mut self, number: u32, key: &[u8], _: &[u8]) {
        self.0.push((number, key.to_vec()));
    }

    fn delete_cf(&mut self, _: u32, _: &[u8]) {}

    fn merge_cf(&mut self, _: u32, _: &[u8], _: &[u8]) {}
}

#[test]
fn an_older_store_gets_the_families_it_lacks() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let path = folder.path().join("db");
    let families = ["default", "shard", "session"];
    let old = super::Db::open_cf(&options, &path, families).expect("opens");
    old.put_cf(old.cf_handle("session").expect("is there"), b"k", b"v").expect("writes");
    drop(old);
    // For reading only, what is not there cannot be made.
    let kv = RocksKv::open_for_reading(&settings(&folder)).expect("opens");
    assert_eq!(kv.get(Family::Session, b"k").expect("reads"), Some(b"v".to_vec()));
    drop(kv);
    let kv = RocksKv::open(&settings(&folder), None).expect("opens");
    assert_eq!(kv.get(Family::Session, b"k").expect("reads"), Some(b"v".to_vec()));
    for family in Family::ALL {
        let mut batch = Batch::default();
        batch.put(family, b"new", b"row");
        kv.write(&batch, true).expect("writes");
        assert!(kv.get(family, b"new").expect("reads").is_some(), "{}", family.name());
    }
}

#[test]
fn what_cannot_be_reopened_is_still_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let kv = with_a_row(&folder);
    kv.poison("Corruption: block checksum mismatch in 000012.sst");
    let error = kv.reopen().expect_err("a damaged file is not mended by reopening");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("000012.sst"), "{error}");
    assert!(!kv.takes_writes());
    assert!(kv.fault().is_some_and(|fault| fault.contains("000012.sst")));
    assert!(kv.get(Family::Retained, b"t").expect("reads").is_some());
}

/// Rows of some stretches, with the stretch of each.
type Stretches = Vec<(usize, Vec<u8>)>;

#[test]
fn stretches_are_read_alike_whether_their_blocks_are_kept_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let kv = RocksKv::open(&settings(&folder), None).expect("opens");
    for file in 0..3u8 {
        let mut batch = Batch::default();
        for n in (0..3_000u16).filter(|n| n % 3 == u16::from(file)) {
            batch.put(Family::Im, &n.to_be_bytes(), &[file; 100]);
        }
        kv.write(&batch, true).expect("writes");
        if file < 2 {
            kv.flush().expect("flushes");
        }
    }
    let bounds: Vec<[[u8; 2]; 2]> = [(0, 5), (5, 5), (7, 900), (900, 899), (2_990, 9_000)]
        .map(|(from, to): (u16, u16)| [from.to_be_bytes(), to.to_be_bytes()])
        .to_vec();
    let spans: Vec<(&[u8], &[u8])> = bounds.iter().map(|[from, to]| (&from[..], &to[..])).collect();
    let (mut kept, mut once) = (Stretches::new(), Stretches::new());
    let visit = |found: &mut Stretches, at: usize, key: &[u8]| {
        found.push((at, key.to_vec()));
        // A stretch that is broken off does not end the others.
        if at == 2 && found.len() > 50 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    kv.scan_each(Family::Im, &spans, &mut |at, key, _| visit(&mut kept, at, key)).expect("scans");
    kv.scan_each_once(Family::Im, &spans, &mut |at, key, _| visit(&mut once, at, key))
        .expect("scans");
    assert_eq!(kept, once);
    let counts = [0, 1, 2, 3, 4].map(|at| kept.iter().filter(|(of, _)| *of == at).count());
    assert_eq!(counts, [6, 1, 44, 0, 10]);
}
