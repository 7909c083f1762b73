//! Random histories of a pair and a group, held against a model that is small enough to be
//! obviously right, also over crashes between any two steps of the shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::command::Command;
use crate::effect::Answer;
use crate::entry::{Entry, EntryKind};
use crate::refusal::{Fault, Refusal};
use crate::rig::{Outcome, Rig, caller, message, read, recall};
use crate::settings::ImSettings;

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
const STEPS: usize = 60;
const SEEDS: u64 = 15;

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

/// A stored entry: a message, or an event.
#[derive(Debug)]
struct Stored {
    from: &'static str,
    is_message: bool,
    is_void: bool,
    body: String,
    mentioned: Option<&'static str>,
}

/// What a user sees of a conversation.
#[derive(Default, Debug)]
struct View {
    read: u64,
    cleared: u64,
    /// First and last entry of each membership.
    memberships: Vec<(u64, Option<u64>)>,
}

impl View {
    fn is_member(&self) -> bool {
        self.memberships.last().is_some_and(|(_, until)| until.is_none())
    }

    fn sees(&self, seq: u64) -> bool {
        let within = |(from, until): &(u64, Option<u64>)| {
            *from <= seq && until.is_none_or(|until| seq <= until)
        };
        seq > self.cleared && self.memberships.iter().any(within)
    }
}

#[derive(Debug)]
struct Conv {
    log: Vec<Stored>,
    views: BTreeMap<&'static str, View>,
    is_group: bool,
    /// Who joins sees everything.
    shows_all: bool,
    /// Results by sender and client message id.
    sent: BTreeMap<(&'static str, String), u64>,
}

impl Conv {
    fn head(&self) -> u64 {
        self.log.len() as u64
    }

    fn push(&mut self, from: &'static str, is_message: bool, body: &str) -> u64 {
        let body = body.to_owned();
        self.log.push(Stored { from, is_message, is_void: false, body, mentioned: None });
        self.head()
    }

    fn unread(&self, who: &str) -> (u64, u64) {
        let view = &self.views[who];
        let Some((_, until)) = view.memberships.last() else { return (0, 0) };
        let end = until.unwrap_or(self.head());
        let seen = (view.read + 1..=end).filter(|seq| view.sees(*seq));
        let unread = seen.map(|seq| (seq, &self.log[seq as usize - 1]));
        let unread: Vec<_> = unread.filter(|(_, e)| e.is_message && !e.is_void).collect();
        let mentions = unread.iter().filter(|(_, e)| e.mentioned == Some(who)).count();
        (unread.len() as u64, mentions as u64)
    }

    fn joins(&mut self, who: &'static str, seq: u64) {
        let all = self.shows_all;
        let view = self.views.get_mut(who).unwrap();
        if view.memberships.is_empty() {
            view.read = seq - 1;
        }
        if all {
            view.memberships.clear();
        }
        view.memberships.push((if all { 1 } else { seq }, None));
    }

    fn goes(&mut self, who: &str, seq: u64) {
        self.views.get_mut(who).unwrap().memberships.last_mut().unwrap().1 = Some(seq);
    }
}

struct World {
    rig: Rig,
    dice: Dice,
    convs: BTreeMap<&'static str, Conv>,
    /// Of alice and bob, who has blocked the other.
    blocks: BTreeMap<&'static str, bool>,
    steps: usize,
}

/// What a step came to.
#[derive(Debug)]
enum Came {
    Done(Option<u64>),
    Refused(Refusal),
}

impl World {
    fn new(seed: u64) -> World {
        let mut rig = Rig::new(ImSettings::default());
        let shows_all = seed.is_multiple_of(3);
        let history = if shows_all { "all" } else { "joined" };
        let body = json!({ "group": "team", "name": "x", "join": "open", "history": history });
        rig.call("alice", "group/create", body).unwrap();
        let views = |everyone: &[&'static str]| {
            everyone.iter().map(|who| (*who, View::default())).collect()
        };
        let conv = |is_group, views| Conv {
            log: Vec::new(),
            views,
            is_group,
            shows_all,
            sent: BTreeMap::new(),
        };
        let mut pair = conv(false, views(&USERS[..2]));
        pair.views.values_mut().for_each(|view| view.memberships.push((1, None)));
        let mut team = conv(true, views(&USERS));
        let seq = team.push("alice", false, "");
        team.joins("alice", seq);
        World {
            rig,
            dice: Dice(seed),
            convs: [("pair", pair), ("team", team)].into(),
            blocks: [("alice", false), ("bob", false)].into(),
            steps: 0,
        }
    }

    /// How a user spells a conversation.
    fn wire(conv: &str, who: &str) -> &'static str {
        match (conv, who) {
            ("team", _) => "g/team",
            (_, "alice") => "u/bob",
            _ => "u/alice",
        }
    }

    /// Carries out one command. Sometimes the process dies on the way; then the client asks
    /// again, as clients do.
    fn act(&mut self, make: impl Fn(&mut Rig) -> u64) -> Came {
        let mut asker = make(&mut self.rig);
        if self.dice.roll(5) == 0 {
            for _ in 0..self.dice.roll(8) {
                let shard = self.dice.roll(self.rig.shards());
                self.rig.step(shard, 1 + self.steps % 2);
            }
            let answered = self.rig.outcome(asker);
            self.rig.crash();
            self.rig.settle();
            if let Some(outcome) = answered {
                return came(outcome);
            }
            asker = make(&mut self.rig);
        }
        self.rig.settle();
        came(self.rig.outcome(asker).expect("every command is answered"))
    }

    fn call(&mut self, who: &'static str, op: &'static str, body: &Value) -> Came {
        self.act(|rig| rig.post_call(caller(who, false), op, body))
    }

    fn step(&mut self) {
        self.steps += 1;
        let conv = self.dice.one(&["pair", "team", "team"]);
        let everyone = if conv == "pair" { &USERS[..2] } else { &USERS[..] };
        let who = self.dice.one(everyone);
        match self.dice.roll(12) {
            0..=3 => self.send(conv, who, None),
            4 => self.repeat(conv),
            5 => self.recall(conv, who),
            6 => self.read(conv, who),
            7 => self.clear(conv, who),
            8 => self.block(),
            9 => self.kick(),
            _ => self.come_or_go(who),
        }
        self.check();
    }

    fn may_send(&self, conv: &str, who: &str) -> bool {
        match conv {
            "pair" => !self.blocks[if who == "alice" { "bob" } else { "alice" }],
            _ => self.convs[conv].views[who].is_member(),
        }
    }

    fn send(&mut self, conv: &'static str, who: &'static str, again: Option<String>) {
        let repeats = again.is_some();
        let cid = again.unwrap_or_else(|| format!("c{}", self.steps));
        let mentioned = self.dice.one(&USERS);
        let wire = World::wire(conv, who);
        let came = self.act(|rig| {
            rig.post(|asker| {
                let mut send = message(asker, who, wire, &cid);
                send.cid = Some(cid.as_str().into());
                send.mentions = vec![Arc::from(mentioned)];
                Command::Send(Box::new(send))
            })
        });
        let may = self.may_send(conv, who);
        let of = self.convs.get_mut(conv).unwrap();
        let known = of.sent.get(&(who, cid.clone())).copied();
        assert_eq!(repeats, known.is_some());
        match came {
            Came::Done(seq) if known.is_some() => assert_eq!(seq, known, "the first result"),
            Came::Done(seq) => {
                assert!(may, "{who} sent to {conv}");
                assert_eq!(seq, Some(of.push(who, true, &cid)), "dense, from 1 on");
                let listens = of.views.get(mentioned).is_some_and(View::is_member);
                if listens && mentioned != who {
                    of.log.last_mut().unwrap().mentioned = Some(mentioned);
                }
                of.sent.insert((who, cid), of.head());
                let head = of.head();
                self.own_read(conv, who, head);
            }
            Came::Refused(refusal) => assert!(!may && !repeats, "{refusal:?}"),
        }
    }

    /// A send moves the sender's own cursor; a crash takes nothing of that back (ruling 22).
    fn own_read(&mut self, conv: &'static str, who: &'static str, head: u64) {
        let list = self.rig.call(who, "conv/list", json!({})).unwrap();
        let lines = list["conversations"].as_array().unwrap();
        let line = lines.iter().find(|line| line["conv"] == World::wire(conv, who)).unwrap();
        let view = self.convs.get_mut(conv).unwrap().views.get_mut(who).unwrap();
        let read = line["read"].as_u64().unwrap();
        assert_eq!(read, head, "{who} {conv}");
        view.read = read;
    }

    fn repeat(&mut self, conv: &'static str) {
        let sent: Vec<_> = self.convs[conv].sent.keys().cloned().collect();
        if !sent.is_empty() {
            let (who, cid) = sent[self.dice.roll(sent.len())].clone();
            let before = self.convs[conv].head();
            self.send(conv, who, Some(cid));
            assert_eq!(self.convs[conv].head(), before);
        }
    }

    fn recall(&mut self, conv: &'static str, who: &'static str) {
        let head = self.convs[conv].head();
        if head == 0 {
            return;
        }
        let seq = 1 + self.dice.roll(head as usize) as u64;
        let wire = World::wire(conv, who);
        let was_void = self.convs[conv].log[seq as usize - 1].is_void;
        let came = self.act(|rig| rig.post(|asker| recall(asker, who, wire, seq)));
        let of = self.convs.get_mut(conv).unwrap();
        let entry = &of.log[seq as usize - 1];
        let moderates = of.is_group && who == "alice";
        let may = of.views[who].is_member()
            && entry.is_message
            && !was_void
            && (entry.from == who || moderates);
        match came {
            Came::Done(stored) => {
                assert!(may, "{who} recalled {conv} {seq}");
                of.log[seq as usize - 1].is_void = true;
                assert_eq!(stored, Some(of.push(who, false, "")));
            }
            // It had been done before the process died.
            Came::Refused(refusal) if may => {
                assert!(refusal.message.contains("is void"), "{refusal:?}");
                of.log[seq as usize - 1].is_void = true;
                of.push(who, false, "");
            }
            Came::Refused(_) => {}
        }
    }

    fn read(&mut self, conv: &'static str, who: &'static str) {
        let head = self.convs[conv].head();
        let listed = !self.convs[conv].views[who].memberships.is_empty();
        let seq = self.dice.roll(head as usize + 2) as u64;
        let wire = World::wire(conv, who);
        let came = self.act(|rig| rig.post(|asker| read(asker, who, wire, seq)));
        match came {
            Came::Done(_) => {
                assert!(listed && seq <= head, "{who} read {conv} {seq}");
                let view = self.convs.get_mut(conv).unwrap().views.get_mut(who).unwrap();
                view.read = view.read.max(seq);
            }
            Came::Refused(refusal) => assert!(!listed || seq > head, "{refusal:?}"),
        }
    }

    fn clear(&mut self, conv: &'static str, who: &'static str) {
        let body = json!({ "conv": World::wire(conv, who) });
        let came = self.call(who, "conv/clear", &body);
        let of = self.convs.get_mut(conv).unwrap();
        let head = of.head();
        let view = of.views.get_mut(who).unwrap();
        match came {
            Came::Done(_) => (view.read, view.cleared) = (view.read.max(head), head),
            Came::Refused(refusal) => assert!(view.memberships.is_empty(), "{refusal:?}"),
        }
    }

    fn block(&mut self) {
        let who = self.dice.one(&USERS[..2]);
        let on = !self.blocks[who];
        let other = if who == "alice" { "bob" } else { "alice" };
        let op = if on { "roster/block" } else { "roster/unblock" };
        let came = self.call(who, op, &json!({ "user": other }));
        assert!(matches!(came, Came::Done(_)), "{came:?}");
        self.blocks.insert(who, on);
    }

    fn kick(&mut self) {
        let (by, who) = (self.dice.one(&USERS), self.dice.one(&USERS[1..]));
        let body = json!({ "group": "team", "users": [who] });
        let came = self.call(by, "group/kick", &body);
        let team = self.convs.get_mut("team").unwrap();
        let may = by == "alice" && team.views[who].is_member();
        match came {
            Came::Done(_) => assert!(may, "{by} kicked {who}"),
            Came::Refused(refusal) if may => {
                assert!(refusal.message.contains("is not a member"), "{refusal:?}");
            }
            Came::Refused(_) => return,
        }
        let seq = team.push(by, false, "");
        team.goes(who, seq);
    }

    fn come_or_go(&mut self, who: &'static str) {
        let was_member = self.convs["team"].views[who].is_member();
        let op = if was_member { "group/leave" } else { "group/join" };
        let came = self.call(who, op, &json!({ "group": "team" }));
        if let Came::Refused(refusal) = &came {
            let gone_before = was_member && refusal.message.contains("not a member");
            assert!(who == "alice" || gone_before, "{refusal:?}");
            if who == "alice" {
                return;
            }
        }
        let team = self.convs.get_mut("team").unwrap();
        let seq = team.push(who, false, "");
        if was_member {
            team.goes(who, seq);
        } else {
            team.joins(who, seq);
        }
    }

    /// Everything every user can see is what the model says.
    fn check(&mut self) {
        let World { rig, convs, .. } = self;
        for (conv, of) in convs {
            for (who, view) in &of.views {
                let wire = World::wire(conv, who);
                assert_eq!(rig.unread(who, wire), of.unread(who), "{who} {conv}: {view:?}");
                let seen = (1..=of.head()).filter(|seq| view.sees(*seq));
                let seen: Vec<u64> = seen.collect();
                assert_eq!(rig.pulled(who, wire), seen, "{who} {conv}: {view:?}");
                for entry in rig.pull(who, wire).unwrap_or_default() {
                    same(&entry, &of.log[entry.seq as usize - 1]);
                }
            }
        }
    }
}

fn same(entry: &Entry, stored: &Stored) {
    assert_eq!(*entry.from, *stored.from);
    assert_eq!(entry.kind == EntryKind::Void, stored.is_void, "{entry:?}");
    match (stored.is_message, stored.is_void) {
        (true, true) => assert!(entry.payload.is_empty() && entry.properties.is_empty()),
        (true, false) => assert_eq!(entry.payload, stored.body),
        (false, _) => assert_ne!(entry.kind, EntryKind::Message),
    }
}

fn came(outcome: Outcome) -> Came {
    match outcome {
        Outcome::Answer(Answer::Sent { sent, .. }) => Came::Done(Some(sent.seq)),
        Outcome::Answer(Answer::Refused(refusal))
        | Outcome::Found(Err(Fault::Refused(refusal))) => Came::Refused(refusal),
        Outcome::Found(Err(fault)) => panic!("{fault:?}"),
        _ => Came::Done(None),
    }
}

#[test]
fn random_histories_are_as_the_model_says() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
    }
}
