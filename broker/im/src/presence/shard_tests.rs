//! Presence across the shards of a node: commands in, answers and notices out, with a commit after
//! each, forwards carried from shard to shard, and restarts over the same rows.

use std::collections::VecDeque;
use std::sync::Arc;

use hoopoe_core::Location;
use hoopoe_store::kv::SharedKv;
use hoopoe_store::memory::FaultKind;
use hoopoe_store::{Durability, MemoryKv, PendingBatch, ShardSettings, ShardView, Store};

use super::*;
use crate::command::{Asker, Command, Device, Forward, User};
use crate::effect::{Answer, Effect, Pending};
use crate::id::ConvKey;
use crate::refusal::Word;
use crate::rig::Rig;
use crate::service::{Call, Caller, parse};
use crate::settings::{ContactPolicy, ImSettings};
use crate::shard::ImShard;

const SHARDS: u16 = 4;

/// A node without threads: its shards take turns.
struct Node {
    kv: SharedKv,
    settings: ImSettings,
    views: Vec<ShardView>,
    shards: Vec<ImShard>,
    now: u64,
    /// What devices heard: `user < topic show`.
    heard: Vec<String>,
    answers: Vec<Answer>,
}

fn user(id: &str) -> User {
    User { tenant: "default".into(), id: id.into() }
}

impl Node {
    fn new(settings: ImSettings) -> Node {
        Node::over(Arc::new(MemoryKv::new(None)), settings, 1_000)
    }

    fn over(kv: SharedKv, settings: ImSettings, now: u64) -> Node {
        let floors = Arc::new(hoopoe_store::floors::Floors::new(SHARDS));
        let store = Store::over(kv.clone(), floors, Durability::Memory, SHARDS).unwrap();
        let view = |n| ShardView::open(&store, n, ShardSettings::default(), now).unwrap().0;
        let shard = |n| ImShard::open(kv.clone(), n, SHARDS, settings.clone(), now).unwrap().0;
        Node {
            views: (0..SHARDS).map(view).collect(),
            shards: (0..SHARDS).map(shard).collect(),
            kv,
            settings,
            now,
            heard: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// The process ends with a crash, or after writing what is lazy, and starts again.
    fn restart(mut self, clean: bool) -> Node {
        for shard in 0..usize::from(SHARDS) {
            if clean {
                let now = self.now;
                self.step(shard, |step, batch, pending| step.finish(now, batch, pending));
            }
        }
        Node::over(self.kv, self.settings, self.now + 10)
    }

    /// One turn of a shard with its commit; what it tells other shards.
    fn step(
        &mut self,
        shard: usize,
        turn: impl FnOnce(&mut ImShard, &mut PendingBatch, &mut Pending),
    ) -> Vec<Forward> {
        let (mut batch, mut pending) = (PendingBatch::new(), Pending::default());
        turn(&mut self.shards[shard], &mut batch, &mut pending);
        let receipt = self.views[shard].commit(batch).unwrap();
        self.shards[shard].committed();
        let mut forwards = Vec::new();
        for effect in pending.release(&receipt) {
            match effect {
                Effect::Forward { forward, .. } => forwards.push(*forward),
                Effect::Answer { answer, .. } => self.answers.push(answer),
                Effect::Notice { user, topic, payload } => {
                    let body: serde_json::Value =
                        serde_json::from_slice(&payload).unwrap_or_default();
                    let show = body["show"].as_str().unwrap_or("-");
                    self.heard.push(format!("{} < {topic} {show}", user.id));
                }
                Effect::Login(_) | Effect::Walked { .. } | Effect::Attended { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        forwards
    }

    fn run(&mut self, command: Command) {
        let now = self.now;
        let mut waiting = VecDeque::from([command]);
        while let Some(command) = waiting.pop_front() {
            let shard = command.slot().unwrap().shard(usize::from(SHARDS));
            let forwards = self.step(shard, |step, batch, pending| {
                step.apply(now, command, true, batch, pending);
            });
            let forwards = forwards.into_iter().map(Box::new);
            waiting.extend(forwards.map(|forward| Command::Forward { outbox: None, forward }));
        }
        for shard in 0..usize::from(SHARDS) {
            while self.shards[shard].next_timeout().is_some_and(|at| at <= now) {
                self.step(shard, |step, batch, pending| step.on_tick(now, batch, pending));
            }
        }
        self.heard.sort();
    }

    fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.heard)
    }

    fn device(&self, of: &str) -> Box<Device> {
        Box::new(Device {
            user: user(of),
            client: "phone".into(),
            location: Location::new(0, 1, 0),
            address_class: "loopback",
            stored: false,
            kept: false,
            heads_only: false,
        })
    }

    fn connect(&mut self, of: &str) {
        self.run(Command::Connected(self.device(of)));
    }

    fn disconnect(&mut self, of: &str) {
        self.run(Command::Disconnected(self.device(of)));
    }

    fn show(&mut self, of: &str, show: &str) {
        self.run(Command::SetShow(Box::new(SetShow {
            user: user(of),
            show: Show::parse(show).unwrap(),
            text: StatusText::default(),
            asker: Asker::Http(1),
        })));
        assert!(matches!(self.answers.pop(), Some(Answer::Done)));
    }

    /// What concerns the pair, as its conversation's shard is told of it.
    fn pair(&mut self, of: &str, with: &str, blocks: bool, friends: bool) {
        let forward = Forward::Pair {
            conv: ConvKey::pair("default", of, with),
            user: of.into(),
            blocks,
            friends: Some(friends),
        };
        self.run(Command::Forward { outbox: None, forward: Box::new(forward) });
    }

    /// Calls `presence/{op}`: `user show` of each in the answer, or the error's word.
    fn call(&mut self, by: &str, op: &str, users: &[&str]) -> Vec<String> {
        let body = serde_json::json!({ "users": users }).to_string();
        let caller = Caller { user: user(by), device: "phone".into(), privileged: false };
        let op = parse("presence", op, body.as_bytes()).unwrap();
        self.run(Command::Call(Box::new(Call { caller, op, asker: Asker::Http(1) })));
        match self.answers.pop() {
            Some(Answer::Value(value)) => {
                let word = |user: &serde_json::Value, field: &str| {
                    user[field].as_str().unwrap().to_owned()
                };
                let users = value["users"].as_array().unwrap().iter();
                users.map(|user| word(user, "user") + " " + &word(user, "show")).collect()
            }
            Some(Answer::Refused(refusal)) => vec![refusal.word.as_str().to_owned()],
            other => panic!("{other:?}"),
        }
    }

    fn later(&mut self, ms: u64) {
        self.now += ms;
        for shard in 0..usize::from(SHARDS) {
            let now = self.now;
            while self.shards[shard].next_timeout().is_some_and(|at| at <= now) {
                self.step(shard, |step, batch, pending| step.on_tick(now, batch, pending));
            }
        }
        self.heard.sort();
    }
}

/// Users whose shards differ, so that every path between shards is taken.
const MANY: [&str; 8] = ["bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan"];

#[test]
fn users_of_all_shards_are_watched() {
    let shards = |id: &&str| user(id).slot().shard(usize::from(SHARDS));
    assert_eq!(MANY.iter().map(shards).collect::<std::collections::BTreeSet<_>>().len(), 4);
    let mut node = Node::new(ImSettings::default());
    for id in MANY {
        node.connect(id);
    }
    node.connect("alice");
    let expected: Vec<String> = MANY.iter().map(|id| format!("{id} online")).collect();
    assert_eq!(node.call("alice", "watch", &MANY), expected);
    assert_eq!(node.heard(), Vec::<String>::new(), "the answer has told everything");
    for id in MANY {
        node.show(id, "away");
        assert_eq!(node.heard(), [format!("alice < im/me/pr/{id} away")]);
    }
    assert_eq!(
        node.call("alice", "get", &["bob", "bob", "nobody"]),
        ["bob away", "nobody offline"]
    );
    node.later(10_000);
    assert_eq!(node.call("alice", "unwatch", &["carol"]), ["carol away"]);
    node.show("carol", "dnd");
    assert_eq!(node.heard(), Vec::<String>::new());
    // With the last device the list ends, for good.
    node.disconnect("alice");
    node.connect("alice");
    node.show("bob", "dnd");
    assert_eq!(node.heard(), Vec::<String>::new());
}

#[test]
fn a_list_is_limited_and_refused_whole() {
    let settings = ImSettings { watches_max: 3, ..ImSettings::default() };
    let mut node = Node::new(settings);
    assert_eq!(node.call("alice", "watch", &["bob"]), ["conflict"], "no device to tell");
    node.connect("alice");
    assert_eq!(node.call("alice", "watch", &["bob", "carol"]).len(), 2);
    assert_eq!(node.call("alice", "watch", &["dave", "erin"]), [Word::Limit.as_str()]);
    assert_eq!(node.call("alice", "watch", &["a", "b", "c", "d"]), ["limit"]);
    assert_eq!(node.call("alice", "watch", &["bob", "carol", "dave"]).len(), 3);
    assert_eq!(node.call("alice", "watch", &["not/an/id"]), ["bad_request"]);
    node.connect("erin");
    assert_eq!(node.heard(), Vec::<String>::new(), "a refused watch watches nobody");
    node.connect("dave");
    assert_eq!(node.heard(), ["alice < im/me/pr/dave online"]);
}

#[test]
fn blocks_of_either_side_hide_both() {
    let mut node = Node::new(ImSettings::default());
    for id in ["alice", "bob"] {
        node.connect(id);
    }
    node.call("alice", "watch", &["bob"]);
    node.call("bob", "watch", &["alice"]);
    node.later(5_000);
    node.pair("bob", "alice", true, false);
    assert_eq!(node.heard(), ["alice < im/me/pr/bob offline", "bob < im/me/pr/alice offline"]);
    assert_eq!(node.call("alice", "get", &["bob"]), ["bob offline"]);
    node.later(5_000);
    node.show("bob", "busy");
    assert_eq!(node.heard(), Vec::<String>::new());
    node.pair("bob", "alice", false, false);
    assert_eq!(node.heard(), ["alice < im/me/pr/bob busy", "bob < im/me/pr/alice online"]);
}

#[test]
fn only_friends_are_seen_where_the_policy_says_so() {
    let settings = ImSettings { contact_policy: ContactPolicy::Roster, ..ImSettings::default() };
    let mut node = Node::new(settings);
    for id in ["alice", "bob"] {
        node.connect(id);
    }
    assert_eq!(node.call("alice", "watch", &["bob", "alice"]), ["bob offline", "alice online"]);
    node.show("bob", "away");
    assert_eq!(node.heard(), Vec::<String>::new());
    node.pair("bob", "alice", false, true);
    node.pair("alice", "bob", false, true);
    assert_eq!(node.heard(), ["alice < im/me/pr/bob away"]);
    node.later(5_000);
    node.pair("bob", "alice", false, false);
    assert_eq!(node.heard(), ["alice < im/me/pr/bob offline"]);
}

#[test]
fn what_was_set_survives_a_restart() {
    for clean in [false, true] {
        let mut node = Node::new(ImSettings::default());
        for id in ["bob", "carol"] {
            node.connect(id);
        }
        node.show("bob", "dnd");
        node.show("carol", "invisible");
        node.later(60_000);
        let mut node = node.restart(clean);
        // A crash gives a grace time; a clean stop has said that all are gone.
        let bob = if clean { "bob offline" } else { "bob dnd" };
        assert_eq!(node.call("alice", "get", &["bob", "carol"]), [bob, "carol offline"]);
        node.later(30_000);
        let gone = ["bob offline", "carol offline"];
        assert_eq!(node.call("alice", "get", &["bob", "carol"]), gone);
        node.connect("alice");
        node.call("alice", "watch", &["bob", "carol"]);
        node.later(2_000);
        node.connect("bob");
        node.connect("carol");
        assert_eq!(node.heard(), ["alice < im/me/pr/bob dnd"]);
        assert_eq!(node.call("carol", "get", &["carol"]), ["carol invisible"]);
    }
}

#[test]
fn who_left_is_gone_whatever_failed_meanwhile() {
    let kinds = [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten];
    for fault in (1..6).map(Err).chain(kinds.into_iter().map(Ok)) {
        let settings = ImSettings { presence_grace_secs: 10, ..ImSettings::default() };
        let mut rig = Rig::with_shards(settings, 1);
        let device = |of: &str| {
            let device = Node::new(ImSettings::default()).device(of);
            Box::new(Device { user: crate::rig::user(of), ..*device })
        };
        for of in ["alice", "bob", "carol"] {
            rig.post(|_| Command::Connected(device(of)));
        }
        rig.settle();
        rig.call("alice", "presence/watch", serde_json::json!({ "users": ["carol"] })).unwrap();
        for of in ["bob", "carol"] {
            rig.post(|_| Command::Disconnected(device(of)));
        }
        rig.pass(9_900);
        match fault {
            Ok(kind) => rig.fail_write(kind),
            Err(nth) => rig.fail_read(nth),
        }
        rig.pass(200);
        rig.fail_read(0);
        rig.recover();
        rig.pass(5_000);
        // As readers of other shards see it.
        for of in ["bob", "carol"] {
            let key = crate::keys::user(crate::rig::TENANT, of, crate::keys::user_kind::PRESENCE);
            let row = rig.kv().get(hoopoe_store::kv::Family::Im, &key).unwrap().unwrap();
            let row: PresenceRow = crate::txn::read_json(&key, &row).unwrap();
            assert!(!row.here, "{of}: {fault:?}");
        }
    }
}
