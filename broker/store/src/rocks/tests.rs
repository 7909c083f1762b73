//! RocksDB and its twin in memory do the same; and what only files can do.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use proptest::prelude::*;

use crate::error::StoreError;
use crate::keys;
use crate::kv::{Batch, Family, Kv, Span};
use crate::memory::MemoryKv;
use crate::rocks::RocksKv;
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
