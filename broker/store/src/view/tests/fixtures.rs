//! Stores that older versions wrote are opened, and every kind of row in them is read.
//!
//! `tests/fixtures/format-N` holds the database of a small store of format N, as a broker leaves it
//! after a clean stop. A change of the format raises [`FORMAT`], adds a folder and keeps the others:
//! `HOOPOE_WRITE_FIXTURE=1 cargo test -p hoopoe-store fixtures` writes the one that is not there yet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hoopoe_core::PacketIdent;

use super::rig::*;
use crate::command::*;
use crate::keys;
use crate::kv::{Batch, Family, Span};
use crate::rows::{self, *};
use crate::settings::{ShardSettings, StoreSettings};
use crate::store::{FORMAT, Store};
use crate::view::ShardView;
use hoopoe_codec::{QoS, SubscribeOptions};
use hoopoe_core::{Publication, PublicationParts, SessionId};

/// One property: a user property `k` = `v`.
const PROPERTIES: &[u8] = b"\x26\x00\x01k\x00\x01v";
/// Far behind any clock.
const EXPIRES_AT_MS: u64 = 1 << 50;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn settings(folder: &Path) -> StoreSettings {
    StoreSettings {
        folder: folder.to_path_buf(),
        shards: 1,
        reserve_bytes: 0,
        ..StoreSettings::default()
    }
}

fn full_message(topic: &str, payload: &str, qos: QoS) -> Publication {
    let parts = PublicationParts {
        topic,
        properties: PROPERTIES,
        payload: payload.as_bytes(),
        qos,
        retain: true,
        expires_at_ms: Some(EXPIRES_AT_MS),
    };
    parts.to_publication()
}

/// Who is in the store.
struct Cast {
    alice: SessionId,
    bob: SessionId,
    group: SessionId,
    outbox: u64,
}

fn cast() -> Cast {
    let slot = key("alice").slot();
    Cast {
        alice: SessionId::new(slot, 1),
        bob: SessionId::new(key("bob").slot(), 2),
        group: SessionId::new(group_slot("crew", "work/#"), 3),
        outbox: SessionId::new(slot, 4).0,
    }
}

const BODY: u64 = 5;

fn in_flight(id: u16, seq: u64, phase: Phase, qos: QoS) -> InFlight {
    InFlight { id, source: Source::Queue(seq), phase, qos }
}

fn options(byte: u8) -> SubscribeOptions {
    SubscribeOptions::from_byte(byte).expect("options")
}

/// Every kind of row once at least.
fn fill(batch: &mut Batch) {
    let Cast { alice, bob, group, outbox } = cast();
    let counters = ShardRow { numbers: 1024, bodies: 1 << 20, retained: 2, position: 9 };
    batch.put_with(Family::Shard, &keys::shard_head(0), |out| put_shard(out, &counters));
    let owed = OutboxRow { key: key("alice"), publication: message("w/alice", "owed") };
    batch.put_with(Family::Shard, &keys::outbox(0, outbox), |out| put_outbox(out, &owed));
    batch.put(Family::Shard, &keys::applied(0, 77), &[VERSION]);
    let marker = PacketIdent { session: alice, id: 11 };
    batch.put(Family::Shard, &keys::marker(0, marker), &[VERSION]);
    fill_sessions(batch, alice, bob);
    let row = GroupRow { share: "crew".into(), filter: "work/#".into() };
    let at = keys::session(group, keys::session_kind::GROUP);
    batch.put_with(Family::Session, &at, |out| put_group(out, &row));
    let row = MemberRow { session: alice, options: options(1), identifier: 9 };
    batch.put_with(Family::Session, &keys::member(group, alice.0), |out| put_member(out, &row));
    fill_queues(batch, &[alice, bob, group]);
    for (number, topic) in ["kept/1", "kept/2"].into_iter().enumerate() {
        let kept = full_message(topic, &format!("kept {topic}"), QoS::AtLeastOnce);
        batch.put_with(Family::Retained, keys::retained(topic), |out| {
            put_retained(out, 8 + number as u64, &kept);
        });
    }
}

fn fill_sessions(batch: &mut Batch, alice: SessionId, bob: SessionId) {
    use keys::session_kind::{PROGRESS, SESSION, WILL, WINDOW};
    for (name, id) in [("alice", alice), ("bob", bob)] {
        let row = SessionRow { key: key(name), expiry_secs: u32::MAX, disconnected_at_ms: 900_000 };
        let at = keys::session(id, SESSION);
        batch.put_with(Family::Session, &at, |out| put_session(out, &row));
        batch.put_with(Family::Session, &keys::subscription(id, "a/+/#"), |out| {
            put_subscription(out, options(0b10_1101), 7);
        });
    }
    batch.put_with(Family::Session, &keys::subscription(alice, "$share/crew/work/#"), |out| {
        put_subscription(out, options(1), 9);
    });
    let progress = ProgressRow { acknowledged: 1, weight: 100, sent: 2 };
    let at = keys::session(alice, PROGRESS);
    batch.put_with(Family::Session, &at, |out| put_progress(out, &progress));
    let will = StoredWill {
        publication: full_message("w/alice", "gone", QoS::ExactlyOnce),
        expiry_secs: Some(60),
        delay_secs: 3600,
    };
    batch.put_with(Family::Session, &keys::session(alice, WILL), |out| put_will(out, &will));
    let window = [
        in_flight(1, 2, Phase::Published, QoS::AtLeastOnce),
        InFlight {
            id: 2,
            source: Source::Group(cast().group, 1),
            phase: Phase::Published,
            qos: QoS::AtLeastOnce,
        },
    ];
    let at = keys::session(alice, WINDOW);
    batch.put_with(Family::Session, &at, |out| put_window(out, &window));
    let released = in_flight(5, 1, Phase::Released, QoS::ExactlyOnce);
    let row = ExchangeRow { ordinal: 1, in_flight: released };
    batch.put_with(Family::Session, &keys::exchange(bob, 5), |out| put_exchange(out, &row));
    batch.put(Family::Session, &keys::done(bob, 2), &[VERSION]);
}

fn fill_queues(batch: &mut Batch, queues: &[SessionId]) {
    for id in queues {
        for seq in 1..=2 {
            let head = EntryHead {
                qos: QoS::AtLeastOnce,
                retain: seq == 2,
                weight: seq * 100,
                identifiers: if seq == 2 { &[7, 268_435_455] } else { &[] },
            };
            let inline = full_message("a/b/c", &format!("entry {seq}"), QoS::AtLeastOnce);
            batch.put_with(Family::Queue, &keys::queue(*id, seq), |out| {
                put_entry(out, &head, &inline);
            });
        }
        let head =
            EntryHead { qos: QoS::ExactlyOnce, retain: false, weight: 300, identifiers: &[] };
        batch.put_with(Family::Queue, &keys::queue(*id, 3), |out| put_reference(out, &head, BODY));
    }
    let fan_out: Vec<(SessionId, u64)> = queues.iter().map(|id| (*id, 3)).collect();
    let shared = full_message("a/b/c", "for all", QoS::ExactlyOnce);
    batch.put_with(Family::Body, &keys::body(BODY), |out| put_body(out, &shared, &fan_out));
}

/// What another start makes anew, or what holds the machine it was made on.
fn is_of_no_use(name: &str) -> bool {
    ["LOCK", "LOG", "OPTIONS", "IDENTITY"].iter().any(|start| name.starts_with(start))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("a folder can be read") {
        let entry = entry.expect("a file");
        if !is_of_no_use(&entry.file_name().to_string_lossy()) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
        }
    }
}

/// Writes the fixture of the present format, unless it is there: one that is there is history.
fn write_fixture() {
    let target = fixtures().join(format!("format-{FORMAT}"));
    assert!(!target.exists(), "{} is there", target.display());
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&settings(folder.path())).expect("opens");
    let mut batch = Batch::default();
    fill(&mut batch);
    store.kv().write(&batch, true).expect("writes");
    store.flush().expect("flushes");
    drop(store);
    copy(&folder.path().join("db"), &target);
}

#[test]
fn fixtures_of_every_format_are_read() {
    if std::env::var_os("HOOPOE_WRITE_FIXTURE").is_some() {
        write_fixture();
    }
    for format in 1..=FORMAT {
        let folder = tempfile::tempdir().expect("a folder");
        copy(&fixtures().join(format!("format-{format}")), &folder.path().join("db"));
        let store = Store::open(&settings(folder.path())).expect("opens");
        every_row_is_read(&store);
        what_the_rows_say_is_understood(&store);
    }
}

/// Row by row, and no kind is missing.
fn every_row_is_read(store: &Store) {
    let mut kinds = BTreeSet::new();
    for family in [
        Family::Meta,
        Family::Shard,
        Family::Session,
        Family::Queue,
        Family::Body,
        Family::Retained,
    ] {
        store
            .kv()
            .scan(family, Span::all(), &mut |key, value| {
                rows::check(family, key, value).map_err(rows::at(family, key)).expect("is read");
                let kind = match family {
                    Family::Shard => key[2],
                    Family::Session => key[8],
                    _ => 0,
                };
                kinds.insert((family.name(), kind));
                std::ops::ControlFlow::Continue(())
            })
            .expect("scans");
    }
    let mut wanted: BTreeSet<(&str, u8)> =
        ["default", "queue", "body", "retained"].map(|name| (name, 0)).into();
    wanted.extend((1..=4).map(|kind| ("shard", kind)));
    wanted.extend((1..=9).map(|kind| ("session", kind)));
    assert_eq!(kinds, wanted);
}

fn what_the_rows_say_is_understood(store: &Store) {
    let Cast { alice, bob, .. } = cast();
    let (mut view, restored) =
        ShardView::open(store, 0, ShardSettings::default(), START).expect("opens");
    let keys: BTreeSet<String> =
        restored.sessions.iter().map(|session| session.key.to_string()).collect();
    assert_eq!(keys, ["alice", "bob"].map(str::to_owned).into());
    assert_eq!(brief(&restored.outbox), ["publish owed"]);
    assert_eq!(&*restored.groups[0].share, "crew");
    assert_eq!(&*restored.groups[0].filter, "work/#");

    let mut opened = |name: &str| {
        let reply = ReplyTo { location: hoopoe_core::Location::new(0, 1, 1), token: 1 };
        let open =
            Open { key: key(name), clean_start: false, expiry_secs: u32::MAX, will: None, reply };
        let mut batch = crate::log::PendingBatch::new();
        view.apply(START, Command::Open(Box::new(open)), &mut batch);
        let effects = view.commit(batch).expect("commits").into_effects();
        client(&effects).expect("is let in").session.expect("is stored")
    };
    let stored = opened("alice");
    assert_eq!((stored.id, stored.acknowledged, stored.weight), (alice, 1, 100));
    assert_eq!((stored.sent, stored.head, stored.markers), (2, 3, vec![11]));
    let expected = in_flight(1, 2, Phase::Published, QoS::AtLeastOnce);
    assert!(stored.window.contains(&expected), "{:?}", stored.window);
    let terms = stored.subscriptions.iter().find(|one| &*one.filter == "a/+/#").expect("is there");
    assert_eq!((terms.options, terms.identifier), (options(0b10_1101), 7));
    let stored = opened("bob");
    assert_eq!(stored.id, bob);
    assert_eq!(stored.window, [in_flight(5, 1, Phase::Released, QoS::ExactlyOnce)]);
    assert_eq!(stored.done, [2]);

    let page = store.reader().read_queue(START, alice, 2, 10, 1 << 20).expect("reads");
    let inline = full_message("a/b/c", "entry 2", QoS::AtLeastOnce);
    assert_eq!(*page.entries[0].publication, inline);
    assert_eq!(page.entries[0].identifiers.as_slice(), [7, 268_435_455]);
    assert!(page.entries[0].retain);
    let shared = full_message("a/b/c", "for all", QoS::ExactlyOnce);
    assert_eq!((&*page.entries[1].publication, page.entries[1].seq), (&shared, 3));
    let page = store.reader().read_retained(START, &["#"], None, 10, usize::MAX).expect("reads");
    let kept = |number: u64| {
        let topic = format!("kept/{number}");
        (7 + number, full_message(&topic, &format!("kept {topic}"), QoS::AtLeastOnce))
    };
    assert_eq!(page.messages, [kept(1), kept(2)]);
}
