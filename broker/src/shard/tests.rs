//! A shard's turns, seen by a worker: which letters it gets.

use std::sync::Arc;

use hoopoe_codec::QoS;
use hoopoe_core::{Location, PublicationParts, SessionId, SessionKey};
use hoopoe_im::command::Forward;
use hoopoe_im::id::ConvKey;
use hoopoe_im::keys::outbox;
use hoopoe_im::txn::json_row;
use hoopoe_store::command::{Command, Open, Publish, Receiver, ReplyTo};
use hoopoe_store::floors::Floors;
use hoopoe_store::kv::{Batch, Family, Kv};
use hoopoe_store::memory::FaultKind;
use hoopoe_store::{Durability, MemoryKv, Store};

use super::Shard;
use super::task::RECOVER_PAUSE_MS;
use crate::access::Access;
use crate::fabric::Mail;
use crate::node::Node;
use crate::settings::{AccessSettings, Settings};

const NOW_MS: u64 = 1_700_000_000_000;

/// One shard and one worker's mailbox.
struct Rig {
    kv: Arc<MemoryKv>,
    node: Node,
    shard: Shard,
}

impl Rig {
    fn new() -> Rig {
        let floors = Arc::new(Floors::new(1));
        let kv = Arc::new(MemoryKv::new(Some(floors.clone())));
        let store = Store::over(kv.clone(), floors, Durability::Sync, 1).expect("opens");
        let access = Access::open(&AccessSettings::default()).expect("no files to read");
        let mut settings = Settings::default();
        (settings.broker.workers, settings.broker.shards) = (1, 1);
        let (node, parts) =
            Node::prepare(&settings, Arc::new(access), store, NOW_MS).expect("is prepared");
        let shard = parts.shards.into_iter().map(Shard::new).next().expect("one shard");
        Rig { kv, node, shard }
    }

    /// What a command makes known to the worker.
    fn run(&mut self, command: Command) -> Vec<Mail> {
        self.node.env.fabric.shards[0].put(command.into());
        self.shard.step(NOW_MS);
        let mut letters = Vec::new();
        self.node.env.fabric.workers[0].take(&mut letters);
        letters
    }

    fn session(&mut self) -> SessionId {
        let open = Open {
            key: SessionKey::new("t", "u", "c"),
            clean_start: false,
            expiry_secs: 100,
            will: None,
            reply: ReplyTo { location: Location::new(0, 1, 1), token: 0 },
        };
        let letters = self.run(Command::Open(Box::new(open)));
        let [Mail::Opened(opened)] = &letters[..] else { panic!("not let in") };
        opened.session.as_ref().expect("is stored").id
    }
}

fn publication(to: SessionId, reply: ReplyTo) -> Command {
    let parts = PublicationParts {
        topic: "t",
        properties: &[],
        payload: b"x",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at_ms: None,
    };
    let qos = QoS::AtLeastOnce;
    let receiver = Receiver { session: to, qos, retain: false, identifiers: Default::default() };
    Command::Publish(Box::new(Publish {
        publication: Arc::new(parts.to_publication()),
        receivers: [receiver].into_iter().collect(),
        groups: Vec::new(),
        retain: false,
        marker: None,
        outbox: None,
        reply: Some(reply),
    }))
}

/// Letters in short.
fn told(letters: &[Mail]) -> Vec<String> {
    let one = |letter: &Mail| match letter {
        Mail::TakenOver { location, .. } => format!("{} has to go", location.place()),
        Mail::Committed { reply, code } => format!("{} {code:?}", reply.token),
        Mail::Live { .. } => "live".to_owned(),
        Mail::LiveLost => "look into queues".to_owned(),
        _ => "something else".to_owned(),
    };
    letters.iter().map(one).collect()
}

/// Ruling 12. The connection is closed, and gets its answer: for which it waits also once ended.
/// And nobody was told of an entry whose write failed and was done all the same, nor will be: when
/// its publisher sends it again it is there already.
#[test]
fn after_an_unknown_outcome_nobody_waits_in_vain() {
    let mut rig = Rig::new();
    let session = rig.session();
    let reply = ReplyTo { location: Location::new(0, 1, 2), token: 7 };
    assert_eq!(told(&rig.run(publication(session, reply))), ["live", "7 Success"]);
    for (kind, entries) in [(FaultKind::UnknownLost, 1), (FaultKind::UnknownWritten, 2)] {
        rig.kv.fail_write(1, kind);
        let letters = rig.run(publication(session, reply));
        assert_eq!(told(&letters), ["2 has to go", "7 UnspecifiedError", "look into queues"]);
        let page = rig.node.store.reader().read_queue(NOW_MS, session, 1, 10, 1000);
        assert_eq!(page.expect("reads").entries.len(), entries, "{kind:?}");
        // The store is asked whether it writes again.
        rig.shard.step(NOW_MS);
    }
}

/// What could not be read when the store was back is read later, not at the next start.
#[test]
fn what_is_owed_to_other_shards_is_read_until_it_can_be() {
    let mut rig = Rig::new();
    let session = rig.session();
    let owed = Forward::Mentioned {
        tenant: "t".into(),
        user: "ann".into(),
        conv: ConvKey::group("t", "team"),
        seq: 1,
    };
    let whole = json_row(&owed);
    let owe = |rig: &Rig, row: &[u8]| {
        let mut rows = Batch::default();
        rows.put(Family::Im, &outbox(0, 1), row);
        rig.kv.write(&rows, true).expect("is written");
    };
    owe(&rig, &whole[..whole.len() / 2]);
    rig.kv.fail_write(1, FaultKind::UnknownLost);
    rig.run(publication(session, ReplyTo { location: Location::new(0, 1, 2), token: 7 }));
    let mailbox = rig.node.env.fabric.shards[0].clone();
    rig.shard.step(NOW_MS + RECOVER_PAUSE_MS);
    assert!(mailbox.is_empty(), "it cannot be read yet");
    owe(&rig, &whole);
    assert!(rig.shard.next_timeout().is_some_and(|at| at <= NOW_MS + 2 * RECOVER_PAUSE_MS));
    rig.shard.step(NOW_MS + 2 * RECOVER_PAUSE_MS);
    assert_eq!(mailbox.len(), 1, "it is told");
}
