//! The sweep over one shard's rows: steps with a commit each, over the store in memory and over
//! files.

use std::path::Path;
use std::sync::Arc;

use hoopoe_store::kv::{Batch, Family, SharedKv, Span};
use hoopoe_store::{
    Durability, MemoryKv, PendingBatch, ShardSettings, ShardView, Store, StoreSettings,
};

use crate::command::{Asker, Command, Device, MoveCursor, Operate, Operation, Send, User};
use crate::effect::{Answer, Effect, Pending};
use crate::id::ConvKey;
use crate::keys::{self, conv_kind, user_kind};
use crate::rows::{Head, Sent};
use crate::service::query::Query;
use crate::service::{Call, Caller, parse};
use crate::settings::{ImSettings, Retention};
use crate::shard::ImShard;
use crate::user::device::DeviceRow;

const START: u64 = 1_000_000;
const KEEP_ALL: Retention = Retention { age_secs: 0, entries: 0, bytes: 0 };

/// One shard that owns all slots.
struct Node {
    kv: SharedKv,
    view: ShardView,
    step: ImShard,
    now: u64,
    answers: Vec<Answer>,
    taken: u64,
    walks: u64,
}

fn settings(retention: Retention) -> ImSettings {
    ImSettings { retention, sweep_secs: 60, ..ImSettings::default() }
}

fn user(id: &str) -> User {
    User { tenant: "default".into(), id: id.into() }
}

fn pair() -> ConvKey {
    ConvKey::pair("default", "alice", "bob")
}

fn send(payload: &[u8], cid: Option<&str>) -> Send {
    Send {
        conv: pair(),
        from: user("alice"),
        device: "ios-1".into(),
        cid: cid.map(Into::into),
        burn_secs: 0,
        mentions: Vec::new(),
        at_all: false,
        properties: bytes::Bytes::new(),
        payload: bytes::Bytes::copy_from_slice(payload),
        expires_at_ms: None,
        marker: None,
        privileged: false,
        asker: Asker::Http(1),
    }
}

impl Node {
    fn new(settings: ImSettings) -> Node {
        Node::over(Arc::new(MemoryKv::new(None)), settings)
    }

    fn over(kv: SharedKv, settings: ImSettings) -> Node {
        let floors = Arc::new(hoopoe_store::floors::Floors::new(1));
        let store = Store::over(kv.clone(), floors, Durability::Memory, 1).unwrap();
        let view = ShardView::open(&store, 0, ShardSettings::default(), START).unwrap().0;
        let step = ImShard::open(kv.clone(), 0, 1, settings, START).unwrap().0;
        Node { kv, view, step, now: START, answers: Vec::new(), taken: 0, walks: 0 }
    }

    fn commit(&mut self, turn: impl FnOnce(&mut ImShard, u64, &mut PendingBatch, &mut Pending)) {
        let (mut batch, mut pending) = (PendingBatch::new(), Pending::default());
        turn(&mut self.step, self.now, &mut batch, &mut pending);
        let receipt = self.view.commit(batch).unwrap();
        self.step.committed();
        for effect in pending.release(&receipt) {
            match effect {
                Effect::Forward { outbox, forward } => {
                    let outbox = outbox.map(|number| (0, number));
                    self.run(Command::Forward { outbox, forward });
                }
                Effect::ForwardDone { outbox, .. } => self.run(Command::ForwardDone { outbox }),
                Effect::Answer { answer, .. } => self.answers.push(answer),
                Effect::Swept { entries, .. } => self.taken += entries,
                Effect::Walked { .. } => self.walks += 1,
                _ => {}
            }
        }
    }

    fn run(&mut self, command: Command) {
        self.commit(|step, now, batch, pending| {
            step.apply(now, command, true, batch, pending);
        });
    }

    fn send(&mut self, payload: &[u8], cid: Option<&str>) -> Sent {
        self.run(Command::Send(Box::new(send(payload, cid))));
        match self.answers.pop().unwrap() {
            Answer::Sent { sent, .. } => sent,
            other => panic!("{other:?}"),
        }
    }

    fn operate(&mut self, operation: Operation, seq: u64, payload: &str) {
        self.run(Command::Operate(Box::new(Operate {
            conv: pair(),
            from: user("alice"),
            device: "ios-1".into(),
            operation,
            seq,
            cid: None,
            properties: bytes::Bytes::new(),
            payload: payload.to_owned().into(),
            marker: None,
            asker: Asker::Http(1),
        })));
        assert!(matches!(self.answers.pop(), Some(Answer::Sent { .. })));
    }

    fn call(&mut self, who: &str, operation: &str, body: &serde_json::Value) {
        let (service, name) = operation.split_once('/').unwrap();
        let op = parse(service, name, body.to_string().as_bytes()).unwrap();
        let caller = Caller { user: user(who), device: "ios-1".into(), privileged: false };
        self.run(Command::Call(Box::new(Call { caller, op, asker: Asker::Http(1) })));
        assert!(matches!(self.answers.pop(), Some(Answer::Value(_))), "{operation} {body}");
    }

    /// One step of the walk, at the time it is due.
    fn step(&mut self) {
        self.now = self.now.max(self.step.next_timeout().unwrap());
        self.commit(|step, now, batch, pending| step.on_tick(now, batch, pending));
    }

    /// One walk over everything, from its beginning.
    fn walk(&mut self) {
        let walks = self.walks;
        while self.walks == walks {
            self.step();
        }
    }

    /// Time passes.
    fn wait_secs(&mut self, secs: u64) {
        self.now += secs * 1000;
    }

    fn head(&self) -> Head {
        self.query().head(&pair()).unwrap()
    }

    fn query(&self) -> Query {
        Query::new(self.kv.clone(), self.now)
    }

    fn seqs(&self) -> Vec<u64> {
        let entries = self.query().entries(&pair(), 1, u64::MAX, 10_000, usize::MAX, false);
        entries.unwrap().iter().map(|entry| entry.seq).collect()
    }

    /// Rows of the kinds in the family `im`.
    fn rows(&self, kind: u8) -> usize {
        let mut rows = 0;
        self.kv
            .scan(Family::Im, Span::all(), &mut |key, _| {
                rows += usize::from(key[2] == kind && key[0] != 0xff);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        rows
    }

    fn device(&self, client: &str, kept: bool) -> Box<Device> {
        Box::new(Device {
            user: user("bob"),
            client: client.into(),
            location: hoopoe_core::Location::new(0, 1, client.len() as u32),
            address_class: "network",
            stored: true,
            kept,
            heads_only: false,
        })
    }
}

#[test]
fn a_conversation_keeps_what_its_class_says_and_nothing_less() {
    let cases = [
        (Retention { entries: 3, ..KEEP_ALL }, vec![8, 9, 10]),
        (Retention { bytes: 45, ..KEEP_ALL }, vec![7, 8, 9, 10]),
        // One message may be larger than everything that is kept.
        (Retention { bytes: 1, ..KEEP_ALL }, vec![10]),
        // Sent a second apart; the first are as old as that, and not older.
        (Retention { age_secs: 65, ..KEEP_ALL }, vec![5, 6, 7, 8, 9, 10]),
        (Retention { entries: 3, bytes: 25, age_secs: 66 }, vec![9, 10]),
        (KEEP_ALL, (1..=10).collect()),
    ];
    for (kept, left) in cases {
        let mut node = Node::new(settings(kept));
        for n in 0..10u8 {
            node.now = START + u64::from(n) * 1000;
            node.send(&[n; 10], None);
        }
        node.now = START + 69_000;
        node.walk();
        assert_eq!(node.seqs(), left, "{kept:?}");
        let head = node.head();
        assert_eq!((head.last, head.count, head.min), (10, 10, left[0]), "{kept:?}");
        assert_eq!(head.bytes, 10 * left.len() as u64, "{kept:?}");
        assert_eq!(node.taken, 10 - left.len() as u64);
        assert_eq!(node.send(b"next", None).seq, 11, "a seq is never used again");
    }
}

#[test]
fn a_long_conversation_goes_in_bounded_steps_and_others_wait_their_turn() {
    let mut node = Node::new(settings(Retention { entries: 10, ..KEEP_ALL }));
    for _ in 0..2_500 {
        node.send(b"x", None);
    }
    node.now = START + 60_000;
    let mut mins = Vec::new();
    while node.walks == 0 {
        node.step();
        mins.push(node.head().min);
    }
    mins.dedup();
    assert_eq!(mins, [1_001, 2_001, 2_491]);
    assert_eq!(node.seqs(), (2_491..=2_500).collect::<Vec<_>>());
    let taken = node.taken;
    node.walk();
    assert_eq!(node.taken, taken, "nothing more to do");
}

#[test]
fn what_belongs_to_entries_goes_with_them_and_all_may_go() {
    let mut node = Node::new(settings(Retention { age_secs: 100, ..KEEP_ALL }));
    for _ in 0..4 {
        node.send(b"text", None);
    }
    node.operate(Operation::React, 1, "+1");
    node.operate(Operation::React, 4, "+1");
    node.operate(Operation::Recall, 2, "");
    node.operate(Operation::Edit, 3, "longer text");
    assert_eq!(node.head().bytes, 4 + 4 + 11 + 2 + 2 + 11, "of events too");
    node.run(Command::Send(Box::new(Send { burn_secs: 5, ..send(b"burns", None) })));
    assert_eq!(node.rows(conv_kind::REACTION), 2);
    assert_eq!(node.rows(conv_kind::VOID), 1);
    assert_eq!(node.rows(conv_kind::EDIT), 1);
    node.wait_secs(101);
    node.walk();
    assert!(node.seqs().is_empty());
    let head = node.head();
    assert_eq!((head.last, head.min, head.bytes, head.voids), (9, 10, 0, 0));
    let kinds =
        [conv_kind::REACTION, conv_kind::VOID, conv_kind::BURN, conv_kind::AT_ALL, conv_kind::EDIT];
    for kind in kinds {
        assert_eq!(node.rows(kind), 0, "{kind:x}");
    }
    assert_eq!(node.send(b"again", None).seq, 10);
}

#[test]
fn nobody_has_unread_messages_that_nobody_can_read() {
    let mut node = Node::new(settings(Retention { entries: 4, ..KEEP_ALL }));
    for _ in 0..10 {
        node.send(b"text", None);
    }
    node.operate(Operation::Recall, 8, "");
    let unread = |node: &Node| {
        let (conv, row) = node.query().conversations(&user("bob")).unwrap().remove(0);
        node.query().unread(&conv, &row, &node.head()).unwrap()
    };
    assert_eq!(unread(&node), 9);
    node.wait_secs(60);
    node.walk();
    // 8 (void), 9 and 10 are left, and the recall.
    assert_eq!(node.seqs(), [8, 9, 10, 11]);
    assert_eq!(unread(&node), 2);
    // The very last that is gone, then one of those that are left.
    for (seq, left) in [(7, 2), (9, 1)] {
        let (user, conv, asker) = (user("bob"), pair(), Asker::Nobody);
        let read = MoveCursor { user, conv, read: true, seq, asker };
        node.run(Command::MoveCursor(Box::new(read)));
        assert_eq!(unread(&node), left, "behind {seq}");
    }
}

#[test]
fn results_of_sends_go_by_age_and_by_count_and_never_before() {
    let mut node = Node::new(ImSettings { dedup_entries: 5, ..settings(KEEP_ALL) });
    let first = node.send(b"x", Some("c0"));
    node.wait_secs(60);
    node.walk();
    assert_eq!(node.send(b"y", Some("c0")), first);
    for n in 1..8 {
        node.send(b"x", Some(&format!("c{n}")));
    }
    assert_eq!(node.send(b"y", Some("c0")), first);
    node.walk();
    assert_eq!(node.rows(conv_kind::SENT), 5);
    assert_eq!(node.send(b"x", Some("c3")).seq, 4, "among the newest five");
    assert_eq!(node.send(b"x", Some("c2")).seq, 9, "forgotten");
    node.wait_secs(7 * 24 * 3600);
    let late = node.send(b"x", Some("late"));
    node.walk();
    assert_eq!(node.rows(conv_kind::SENT), 1);
    assert_eq!(node.send(b"x", Some("late")), late);
}

#[test]
fn a_message_sent_anew_after_its_window_is_not_forgotten_for_the_old_one() {
    let mut node = Node::new(settings(KEEP_ALL));
    node.send(b"x", Some("c"));
    node.wait_secs(7 * 24 * 3600);
    let anew = node.send(b"x", Some("c"));
    assert_eq!(anew.seq, 2);
    node.walk();
    assert_eq!(node.send(b"x", Some("c")), anew);
}

#[test]
fn results_of_sessions_that_are_gone_go_too() {
    let mut node = Node::new(settings(KEEP_ALL));
    let marker = hoopoe_core::PacketIdent { session: hoopoe_core::SessionId(77), id: 3 };
    node.run(Command::Send(Box::new(Send { marker: Some(marker), ..send(b"x", None) })));
    assert_eq!(node.rows(conv_kind::MARKED), 1);
    node.walk();
    assert_eq!(node.rows(conv_kind::MARKED), 0, "no such session is stored");
}

#[test]
fn devices_that_do_not_come_back_go_with_their_cursors() {
    let mut node = Node::new(ImSettings { device_keep_secs: 1_000, ..settings(KEEP_ALL) });
    node.send(b"x", None);
    for client in ["ios-1", "android-1"] {
        node.run(Command::Connected(node.device(client, false)));
        let key = keys::cursor("default", "bob", client, "u/alice");
        let mut batch = Batch::default();
        batch.put(Family::Im, &key, &crate::rows::number_row(1));
        node.kv.write(&batch, true).unwrap();
    }
    node.run(Command::Disconnected(node.device("ios-1", false)));
    node.wait_secs(999);
    node.walk();
    assert_eq!((node.rows(user_kind::DEVICE), node.rows(user_kind::CURSOR)), (2, 2));
    node.wait_secs(120);
    node.walk();
    assert_eq!((node.rows(user_kind::DEVICE), node.rows(user_kind::CURSOR)), (1, 1));

    // After a crash the other counts from when it was missed, not from when it came.
    let mut node = Node::over(node.kv, ImSettings { device_keep_secs: 1, ..settings(KEEP_ALL) });
    node.now = START + 2_000_000;
    node.walk();
    assert_eq!(node.rows(user_kind::DEVICE), 1);
    node.wait_secs(2);
    node.walk();
    assert_eq!((node.rows(user_kind::DEVICE), node.rows(user_kind::CURSOR)), (0, 0));
}

#[test]
fn a_step_ends_when_looks_elsewhere_have_taken_what_it_may_do() {
    let mut node = Node::new(settings(KEEP_ALL));
    node.run(Command::Connected(node.device("ios-1", true)));
    let mut batch = Batch::default();
    let many = 2 * super::STEP_ROWS / super::LOOK_ROWS;
    for number in 0..many {
        let key = keys::cursor("default", "bob", "ios-1", &format!("u/u{number}"));
        batch.put(Family::Im, &key, &crate::rows::number_row(1));
    }
    node.kv.write(&batch, true).unwrap();
    node.step();
    let begun = node.now;
    node.walk();
    assert_eq!(node.rows(user_kind::CURSOR), many, "their device is there");
    assert!(node.now >= begun + 2 * super::STEP_PAUSE_MS, "in steps, each with its pause");
}

#[test]
fn mentions_go_when_they_are_read() {
    let mut node = Node::new(settings(KEEP_ALL));
    for _ in 0..3 {
        let mentions = vec!["bob".into()];
        node.run(Command::Send(Box::new(Send { mentions, ..send(b"@bob", None) })));
    }
    assert_eq!(node.rows(user_kind::MENTION), 3);
    let read =
        MoveCursor { user: user("bob"), conv: pair(), read: true, seq: 2, asker: Asker::Nobody };
    node.run(Command::MoveCursor(Box::new(read)));
    node.walk();
    assert_eq!(node.rows(user_kind::MENTION), 1);
}

#[test]
fn how_far_was_pushed_goes_with_the_last_push_token() {
    let mut node = Node::new(settings(KEEP_ALL));
    node.run(Command::Connected(node.device("ios-1", false)));
    node.call("bob", "device/push-token", &serde_json::json!({ "provider": "p", "token": "t" }));
    let mut batch = Batch::default();
    let key = keys::user_name("default", "bob", user_kind::PUSHED, "u/alice");
    batch.put(Family::Im, &key, &crate::rows::number_row(1));
    node.kv.write(&batch, true).unwrap();
    node.walk();
    assert_eq!(node.rows(user_kind::PUSHED), 1);
    node.call("bob", "device/push-token", &serde_json::json!({ "provider": "p", "token": "" }));
    node.walk();
    assert_eq!(node.rows(user_kind::PUSHED), 0);
}

#[test]
fn a_damaged_row_keeps_no_other_from_being_swept() {
    let mut node = Node::new(settings(Retention { entries: 1, ..KEEP_ALL }));
    node.send(b"x", None);
    node.send(b"x", None);
    let mut batch = Batch::default();
    for name in ["a", "z"] {
        let conv = ConvKey::pair("default", name, "someone");
        batch.put(Family::Im, &keys::conv(&conv, conv_kind::HEAD), b"\x01");
    }
    let key = keys::user_name("default", "bob", user_kind::DEVICE, "ios-9");
    batch.put(Family::Im, &key, b"\x01{");
    node.kv.write(&batch, true).unwrap();
    node.walk();
    assert_eq!(node.seqs(), [2]);
}

#[test]
fn a_crash_between_steps_leaves_a_conversation_that_is_whole() {
    let kept = Retention { entries: 10, ..KEEP_ALL };
    let memory = Arc::new(MemoryKv::new(None));
    memory.simulate_crashes();
    let mut node = Node::over(memory.clone(), settings(kept));
    for _ in 0..1_500 {
        node.send(b"x", None);
    }
    node.now = START + 60_000;
    while node.head().min == 1 {
        node.step();
    }
    let memory = Arc::new(memory.crash(0, None));
    let mut node = Node::over(memory, settings(kept));
    let head = node.head();
    assert_eq!(node.seqs(), (head.min..=1_500).collect::<Vec<_>>());
    node.walk();
    assert_eq!(node.seqs(), (1_491..=1_500).collect::<Vec<_>>());
    assert_eq!(node.send(b"x", None).seq, 1_501);
}

fn folder_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let size = |file: std::fs::DirEntry| match file.metadata().unwrap() {
        entry if entry.is_dir() => folder_bytes(&file.path()),
        entry => entry.len(),
    };
    files.map(size).sum()
}

#[test]
fn the_folder_shrinks() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreSettings {
        folder: folder.path().to_path_buf(),
        durability: Durability::Os,
        shards: 1,
        reserve_bytes: 0,
        ..StoreSettings::default()
    })
    .unwrap();
    let kept = Retention { entries: 10, ..KEEP_ALL };
    let mut node = Node::over(store.kv(), settings(kept));
    // What compresses badly.
    let mut state = 1u64;
    for _ in 0..256 {
        let payload: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(32 * 1024)
        .collect();
        node.send(&payload, None);
    }
    store.flush().unwrap();
    let full = folder_bytes(folder.path());
    assert!(full > 256 * 32 * 1024, "{full}");
    node.walk();
    store.flush().unwrap();
    store.reclaim_log().unwrap();
    let left = folder_bytes(folder.path());
    assert!(left < full / 4, "{left} of {full} bytes are left");
    assert_eq!(node.seqs().len(), 10);
}

#[test]
fn devices_rows_of_before_have_no_time_of_going() {
    let row: DeviceRow = serde_json::from_str(r#"{"since_ms":5,"stored":true}"#).unwrap();
    assert_eq!(row.gone_ms, 0);
}
