use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hoopoe_codec::ReasonCode;
use serde_json::json;

use super::line::SiteNews;
use super::owing::Owed;
use super::wire::Frame;
use super::{HomeRule, Sites, WhenDown, is_like};
use crate::command::{Command, User};
use crate::effect::Answer;
use crate::entry::Entry;
use crate::id::ConvKey;
use crate::rig::{Outcome, Rig, TENANT, message, recall, user};
use crate::settings::ImSettings;

fn rules(id: &str, when_down: WhenDown) -> Arc<Sites> {
    let at = |site: &str| HomeRule {
        users: Some(format!("*-{site}")),
        groups: Some(format!("{site}-*")),
        channels: Some(format!("{site}-*")),
        site: site.into(),
        ..HomeRule::default()
    };
    Arc::new(Sites {
        id: id.into(),
        homes: vec![at("ny"), at("sg")],
        otherwise: "fra".into(),
        when_down,
        answer_ms: 2_000,
        held_max: 1_000,
        links: Vec::new(),
    })
}

/// Sites joined by lists of frames.
struct World {
    names: Vec<Arc<str>>,
    sites: Vec<Rig>,
    /// Frames under way, by sender and receiver.
    wires: Vec<(usize, usize, VecDeque<Bytes>)>,
    cut: BTreeSet<(usize, usize)>,
    random: u64,
    /// Of 100 frames, so many are lost, come twice, or are overtaken.
    rough: u64,
}

impl World {
    fn new(names: &[&str], when_down: WhenDown) -> World {
        let settings = |id: &str| ImSettings {
            sites: Some(rules(id, when_down)),
            send_rate: 1_000_000,
            ..ImSettings::default()
        };
        // Sites may have different numbers of shards.
        let rigs = names.iter().zip([3, 2, 4]);
        let sites = rigs.map(|(id, shards)| Rig::with_shards(settings(id), shards)).collect();
        let mut wires = Vec::new();
        for from in 0..names.len() {
            for to in 0..names.len() {
                wires.push((from, to, VecDeque::new()));
            }
        }
        let names = names.iter().map(|name| Arc::from(*name)).collect();
        let mut world = World { names, sites, wires, cut: BTreeSet::new(), random: 7, rough: 0 };
        world.link_all();
        world
    }

    fn link_all(&mut self) {
        for a in 0..self.names.len() {
            for b in a + 1..self.names.len() {
                self.link(a, b, true);
            }
        }
        self.settle();
    }

    fn link(&mut self, a: usize, b: usize, up: bool) {
        for (a, b) in [(a, b), (b, a)] {
            if up {
                self.cut.remove(&(a, b));
            } else {
                self.cut.insert((a, b));
                let wire = self.wires.iter_mut().find(|(from, to, _)| (*from, *to) == (a, b));
                wire.unwrap().2.clear();
            }
            let site = self.names[b].clone();
            self.sites[a].site_says(&site, SiteNews::Link { up });
        }
    }

    fn of(&mut self, site: &str) -> &mut Rig {
        let at = self.names.iter().position(|name| **name == *site).unwrap();
        &mut self.sites[at]
    }

    /// The site dies and starts again.
    fn crash(&mut self, at: usize) {
        for (from, to, wire) in &mut self.wires {
            if *from == at || *to == at {
                wire.clear();
            }
        }
        self.sites[at].crash();
        for other in 0..self.names.len() {
            if other != at && !self.cut.contains(&(at, other)) {
                let site = self.names[other].clone();
                self.sites[at].site_says(&site, SiteNews::Link { up: true });
            }
        }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    /// One round: every site does what it has to, every wire carries what it holds.
    fn round(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.sites.len() {
            self.sites[at].settle();
            while let Some((to, frame)) = self.sites[at].frames.pop_front() {
                let to = self.names.iter().position(|name| *name == to).unwrap();
                if !self.cut.contains(&(at, to)) {
                    let wire = self.wires.iter_mut().find(|wire| (wire.0, wire.1) == (at, to));
                    wire.unwrap().2.push_back(frame);
                }
            }
        }
        for at in 0..self.wires.len() {
            let (from, to) = (self.wires[at].0, self.wires[at].1);
            let mut frames: Vec<Bytes> = std::mem::take(&mut self.wires[at].2).into();
            any |= !frames.is_empty();
            if self.rough > 0 {
                let mut made = Vec::new();
                for frame in frames {
                    let fate = self.next(100);
                    if fate < self.rough {
                        continue;
                    }
                    if fate < 2 * self.rough {
                        made.push(frame.clone());
                    }
                    let place = made.len() as u64;
                    let early = fate < 3 * self.rough && place > 0;
                    let place = if early { self.next(place) } else { place };
                    made.insert(place as usize, frame);
                }
                frames = made;
            }
            let site = self.names[from].clone();
            for frame in frames {
                let frame = Box::new(Frame::decode(&frame).unwrap());
                self.sites[to].site_says(&site, SiteNews::Frame(frame));
            }
        }
        any
    }

    fn settle(&mut self) {
        while self.round() {}
    }

    fn pass(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(500);
            left -= step;
            for site in &mut self.sites {
                site.pass(step);
            }
            self.settle();
        }
    }

    fn post(&mut self, site: &str, who: &str, conv: &str, text: &str, cid: Option<&str>) -> u64 {
        let cid = cid.map(Arc::from);
        self.of(site).post(|asker| {
            let mut send = message(asker, who, conv, text);
            send.cid = cid;
            Command::Send(Box::new(send))
        })
    }

    /// The answer to a send when the world has come to rest.
    fn send(&mut self, site: &str, who: &str, conv: &str, text: &str) -> Answer {
        let asker = self.post(site, who, conv, text, None);
        self.settle();
        self.answer(site, asker)
    }

    fn answer(&mut self, site: &str, asker: u64) -> Answer {
        match self.of(site).outcome(asker) {
            Some(Outcome::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn log(&mut self, site: &str, conv: &ConvKey) -> Vec<Entry> {
        let query = self.of(site).query();
        query.entries(conv, 1, u64::MAX, usize::MAX, usize::MAX, false).unwrap()
    }

    fn texts(&mut self, site: &str, conv: &ConvKey) -> Vec<String> {
        let log = self.log(site, conv).into_iter();
        log.map(|entry| String::from_utf8_lossy(&entry.payload).into_owned()).collect()
    }

    fn assert_same(&mut self, conv: &ConvKey) {
        let first = self.names[0].clone();
        let log = self.log(&first, conv);
        for (at, entry) in log.iter().enumerate() {
            assert_eq!(entry.seq, log[0].seq + at as u64, "dense");
        }
        for name in self.names.clone() {
            assert_eq!(self.log(&name, conv), log, "{name}");
        }
    }

    fn notices(&mut self, site: &str) -> Vec<String> {
        let notices = std::mem::take(&mut self.of(site).notices);
        notices.into_iter().map(|(user, topic, _)| format!("{user} {topic}")).collect()
    }
}

impl World {
    /// What a site owes another, as operators see it.
    fn owed(&mut self, site: &str, to: &str) -> Owed {
        let rig = self.of(site);
        // What was told before a crash is not told again.
        rig.owed.clear();
        rig.site_says(to, SiteNews::Count);
        rig.settle();
        let all = rig.owed.iter().filter(|((of, _), _)| **of == *to);
        all.fold(Owed::default(), |sum, (_, owed)| sum.with(owed))
    }
}

fn pair() -> ConvKey {
    ConvKey::pair(TENANT, "alice", "bob-ny")
}

fn seq_of(answer: &Answer) -> u64 {
    match answer {
        Answer::Sent { sent, .. } => sent.seq,
        other => panic!("{other:?}"),
    }
}

#[test]
fn patterns_hold_one_star() {
    for (pattern, name, fits) in [
        ("*-ny", "bob-ny", true),
        ("*-ny", "-ny", true),
        ("*-ny", "ny", false),
        ("ny-*", "ny-team", true),
        ("a*b", "ab", true),
        ("a*ab", "ab", false),
        ("*", "anything", true),
        ("bob", "bob", true),
        ("bob", "bobby", false),
    ] {
        assert_eq!(is_like(pattern, name), fits, "{pattern} {name}");
    }
}

#[test]
fn the_first_rule_that_fits_names_the_home() {
    let mut sites = (*rules("fra", WhenDown::Hold)).clone();
    let tenant = HomeRule { tenant: Some("u".into()), site: "sg".into(), ..HomeRule::default() };
    sites.homes.push(tenant);
    let home = |conv: ConvKey| sites.home_of(&conv).to_string();
    assert_eq!(home(ConvKey::pair("t", "alice", "bob-ny")), "fra", "of the lower user");
    assert_eq!(home(ConvKey::pair("t", "zoe", "bob-ny")), "ny");
    assert_eq!(home(ConvKey::group("t", "ny-team")), "ny");
    assert_eq!(home(ConvKey::group("t", "team-ny")), "fra");
    assert_eq!(home(ConvKey::channel("t", "sg-news")), "sg");
    assert_eq!(home(ConvKey::group("u", "team")), "sg", "all of a tenant");
    let names: Vec<_> = sites.peers().iter().map(|site| site.to_string()).collect();
    assert_eq!(names, ["ny", "sg"]);
    let other = Sites { id: "ny".into(), ..sites.clone() };
    assert_eq!(other.rules_hash(), sites.rules_hash(), "all sites have the same");
    sites.homes.pop();
    assert_ne!(other.rules_hash(), sites.rules_hash());
}

#[test]
fn a_pair_of_two_sites_has_one_order_and_both_have_it() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    assert_eq!(seq_of(&world.send("fra", "alice", "u/bob-ny", "1")), 1);
    assert_eq!(seq_of(&world.send("ny", "bob-ny", "u/alice", "2")), 2);
    assert_eq!(seq_of(&world.send("fra", "alice", "u/bob-ny", "3")), 3);
    world.assert_same(&pair());
    assert_eq!(world.texts("ny", &pair()), ["1", "2", "3"]);
    // Live at both sites, in the lists of both users, unread by the one and not by the other.
    for site in ["fra", "ny"] {
        let seqs: Vec<u64> = world.of(site).entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [1, 2, 3], "{site}");
    }
    world.pass(2_000);
    assert_eq!(world.of("ny").unread("bob-ny", "u/alice"), (1, 0));
    assert_eq!(world.of("fra").unread("alice", "u/bob-ny"), (0, 0));
    assert_eq!(world.of("ny").pulled("bob-ny", "u/alice"), [1, 2, 3]);
}

#[test]
fn a_message_sent_again_is_the_same_message() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    let first = world.post("ny", "bob-ny", "u/alice", "x", Some("c1"));
    // Before the home has answered.
    world.of("ny").settle();
    let second = world.post("ny", "bob-ny", "u/alice", "x", Some("c1"));
    world.settle();
    assert_eq!(seq_of(&world.answer("ny", second)), 1);
    // The one before waits no more: its connection is held to have gone.
    world.pass(3_000);
    let _ = world.of("ny").outcome(first);
    let third = world.post("ny", "bob-ny", "u/alice", "x", Some("c1"));
    world.settle();
    assert!(matches!(world.answer("ny", third), Answer::Sent { repeated: true, .. }));
    assert_eq!(world.texts("fra", &pair()), ["x"]);
    world.assert_same(&pair());
}

#[test]
fn what_is_sent_while_the_link_is_down_is_held_and_told_of_later() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    world.send("ny", "bob-ny", "u/alice", "0");
    world.link(0, 1, false);
    for n in 1..=200 {
        let (text, cid) = (n.to_string(), format!("c{n}"));
        let asker = world.post("ny", "bob-ny", "u/alice", &text, Some(&cid));
        world.settle();
        assert!(matches!(world.answer("ny", asker), Answer::Held));
    }
    let again = world.post("ny", "bob-ny", "u/alice", "7", Some("c7"));
    world.settle();
    assert!(matches!(world.answer("ny", again), Answer::Held));
    world.pass(5_000);
    let (begun, owed) = (world.of("ny").now - 5_000, world.owed("ny", "fra"));
    // How far the user has read is owed too.
    assert_eq!((owed.numbers, owed.held), (201, 200));
    assert!(owed.bytes > 200 * 10, "{owed:?}");
    assert!(owed.since_ms.is_some_and(|since| since <= begun), "{owed:?} at {begun}");
    // The home goes on meanwhile.
    world.send("fra", "alice", "u/bob-ny", "from home");
    world.crash(1);
    world.crash(0);
    world.pass(10_000);
    assert_eq!(world.texts("ny", &pair()), ["0"]);
    world.notices("ny");
    world.link(0, 1, true);
    world.pass(4_000);
    let mut texts = vec!["0".to_owned(), "from home".to_owned()];
    texts.extend((1..=200).map(|n: u32| n.to_string()));
    assert_eq!(world.texts("fra", &pair()), texts);
    world.assert_same(&pair());
    let notices = world.notices("ny");
    let told: Vec<&String> = notices.iter().filter(|line| line.contains("/sent/")).collect();
    assert_eq!(told.len(), 200);
    assert_eq!(world.owed("ny", "fra"), Owed::default());
    assert!(told[6].starts_with("bob-ny im/me/sys/sent/c7/u/alice/9/"), "{}", told[6]);
}

#[test]
fn a_home_that_does_not_answer_leaves_the_message_held() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Refuse);
    // Nobody has noticed yet that the link is cut.
    world.cut.extend([(0, 1), (1, 0)]);
    let asker = world.post("ny", "bob-ny", "u/alice", "x", Some("c"));
    world.settle();
    assert!(world.of("ny").outcome(asker).is_none(), "waits");
    world.pass(2_500);
    assert!(matches!(world.answer("ny", asker), Answer::Held));
    world.link(0, 1, false);
    let refused = world.send("ny", "bob-ny", "u/alice", "y");
    let Answer::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.word.as_str(), "unavailable");
    assert!(refusal.message.contains("fra"), "{}", refusal.message);
    world.link(0, 1, true);
    world.pass(4_000);
    assert_eq!(world.texts("fra", &pair()), ["x"]);
    assert!(world.notices("ny").iter().any(|line| line.contains("/sent/c/u/alice/1/")));
}

#[test]
fn what_the_home_refuses_is_refused() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    world.of("fra").call("alice", "roster/block", json!({ "user": "bob-ny" })).unwrap();
    world.settle();
    let refused = world.send("ny", "bob-ny", "u/alice", "x");
    let Answer::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code, ReasonCode::NotAuthorized);
    world.link(0, 1, false);
    let asker = world.post("ny", "bob-ny", "u/alice", "x", Some("c2"));
    world.settle();
    assert!(matches!(world.answer("ny", asker), Answer::Held));
    world.link(0, 1, true);
    world.pass(1_000);
    let notices = world.notices("ny");
    assert!(notices.contains(&"bob-ny im/me/sys/err/c2/135".to_owned()), "{notices:?}");
    // A block by the one at the other site counts at the home, too.
    world.of("fra").call("alice", "roster/unblock", json!({ "user": "bob-ny" })).unwrap();
    world.of("ny").call("bob-ny", "roster/block", json!({ "user": "alice" })).unwrap();
    world.settle();
    assert!(matches!(world.send("fra", "alice", "u/bob-ny", "y"), Answer::Refused(_)));
    assert_eq!(world.texts("fra", &pair()), Vec::<String>::new());
}

#[test]
fn friends_are_made_across_sites() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    world.of("ny").call("bob-ny", "roster/request", json!({ "user": "alice" })).unwrap();
    world.settle();
    assert!(world.of("fra").take_notices().contains(&"alice roster/request/bob-ny".to_owned()));
    let state = world.of("fra").call("alice", "roster/accept", json!({ "user": "bob-ny" }));
    assert_eq!(state.unwrap()["state"], "friend");
    world.settle();
    let list = world.of("ny").call("bob-ny", "roster/list", json!({})).unwrap();
    assert_eq!(list["users"][0]["state"], "friend");
}

#[test]
fn receipts_and_operations_cross() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    world.send("fra", "alice", "u/bob-ny", "1");
    world.of("ny").read("bob-ny", "u/alice", 1);
    world.pass(3_000);
    let told = world.notices("fra");
    assert!(
        told.contains(&"alice im/me/sys/receipt/u/bob-ny/read/1/bob-ny".to_owned()),
        "{told:?}"
    );
    world.send("ny", "bob-ny", "u/alice", "2");
    world.of("fra").read("alice", "u/bob-ny", 2);
    world.pass(3_000);
    let told = world.notices("ny");
    assert!(told.contains(&"bob-ny im/me/sys/receipt/u/alice/read/2/alice".to_owned()), "{told:?}");
    let asker = world.of("ny").post(|asker| recall(asker, "bob-ny", "u/alice", 2));
    world.settle();
    assert_eq!(seq_of(&world.answer("ny", asker)), 3);
    let asker = world.of("ny").post(|asker| recall(asker, "bob-ny", "u/alice", 1));
    world.settle();
    assert!(matches!(world.answer("ny", asker), Answer::Refused(_)), "not the own message");
    world.assert_same(&pair());
    assert_eq!(world.texts("ny", &pair()), ["1", "", ""]);
    assert_eq!(world.of("fra").unread("alice", "u/bob-ny"), (0, 0));
}

#[test]
fn signals_cross() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    for (site, from, to) in [("ny", "bob-ny", "alice"), ("fra", "alice", "bob-ny")] {
        world.of(site).post(|asker| {
            Command::Signal(Box::new(crate::command::SendSignal {
                conv: pair(),
                from: user(from),
                location: hoopoe_core::Location::NOWHERE,
                kind: "typing".into(),
                properties: Bytes::new(),
                payload: Bytes::new(),
                asker,
            }))
        });
        world.settle();
        for at in ["fra", "ny"] {
            let heard = std::mem::take(&mut world.of(at).signals);
            assert_eq!(heard.len(), 1, "{at}: {from} to {to}");
            assert_eq!(&*heard[0].from.id, from);
        }
    }
}

#[test]
fn rough_links_and_crashes_neither_lose_nor_double() {
    for seed in 1..=20 {
        let mut world = World::new(&["fra", "ny", "sg"], WhenDown::Hold);
        world.random = seed;
        let people = [("fra", "alice"), ("ny", "bob-ny"), ("sg", "cid-sg")];
        world.rough = 10;
        let mut wanted = 0;
        for n in 0..120 {
            let (site, who) = people[world.next(3) as usize];
            let whom = people[world.next(3) as usize].1;
            if who != whom {
                wanted += 1;
                let cid = format!("m{n}");
                world.post(site, who, &format!("u/{whom}"), &format!("{who} {n:03}"), Some(&cid));
            }
            match world.next(40) {
                0 => {
                    let at = world.next(3) as usize;
                    // What was not applied was not acknowledged: nobody misses it.
                    world.sites.iter_mut().for_each(Rig::settle);
                    world.crash(at);
                }
                1 => world.link(0, 1, false),
                2 => world.link(1, 2, false),
                3 => world.link_all(),
                4..=9 => world.pass(700),
                _ => {
                    world.round();
                }
            }
        }
        world.link_all();
        world.pass(60_000);
        world.rough = 0;
        world.pass(10_000);
        let mut found = 0;
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let conv = ConvKey::pair(TENANT, people[a].1, people[b].1);
            let here = world.texts(people[a].0, &conv);
            assert_eq!(here, world.texts(people[b].0, &conv), "seed {seed}");
            found += here.len();
            for (_, who) in [people[a], people[b]] {
                let own: Vec<_> = here.iter().filter(|text| text.starts_with(who)).collect();
                assert!(own.is_sorted(), "seed {seed}: order of {who} in {here:?}");
            }
        }
        assert_eq!(found, wanted, "seed {seed}");
        for site in &world.sites {
            assert_eq!(site.owed_to_sites(), 0, "seed {seed}");
        }
    }
}

#[test]
fn users_connect_at_their_home() {
    let settings =
        ImSettings { sites: Some(rules("fra", WhenDown::Hold)), ..ImSettings::default() };
    let mut rig = Rig::new(settings);
    let other = User { tenant: TENANT.into(), id: "bob-ny".into() };
    assert_eq!(rig.admit(&user("alice")), Ok(()));
    assert_eq!(rig.admit(&other), Err(ReasonCode::UseAnotherServer));
}

#[test]
fn a_group_has_members_at_several_sites() {
    let mut world = World::new(&["fra", "ny", "sg"], WhenDown::Hold);
    let team = ConvKey::group(TENANT, "team");
    let create = json!({ "group": "team", "name": "T", "members": ["bob-ny", "bea-ny"] });
    world.of("fra").call("alice", "group/create", create).unwrap();
    world.settle();
    assert_eq!(seq_of(&world.send("fra", "alice", "g/team", "one")), 2);
    assert_eq!(seq_of(&world.send("ny", "bob-ny", "g/team", "two")), 3);
    assert_eq!(world.texts("ny", &team)[1..], ["one", "two"]);
    assert!(world.texts("sg", &team).is_empty(), "no member there");
    assert_eq!(world.log("fra", &team), world.log("ny", &team));
    // One copy for two members, who both read it.
    for who in ["bob-ny", "bea-ny"] {
        assert_eq!(world.of("ny").pulled(who, "g/team"), [1, 2, 3]);
    }
    assert_eq!(world.of("ny").unread("bea-ny", "g/team"), (2, 0));
    let list = world.of("ny").call("bea-ny", "group/list", json!({})).unwrap();
    assert_eq!(
        list["groups"],
        json!([{
            "group": "team", "name": "T", "role": "member", "members": 3,
        }])
    );
    // Members of a third site see what is after them.
    let invite = json!({ "group": "team", "users": ["cid-sg"] });
    world.of("fra").call("alice", "group/invite", invite.clone()).unwrap();
    world.settle();
    assert_eq!(seq_of(&world.send("sg", "cid-sg", "g/team", "three")), 5);
    assert_eq!(world.of("sg").pulled("cid-sg", "g/team"), [4, 5]);
    assert_eq!(world.of("sg").unread("cid-sg", "g/team"), (0, 0));
    assert_eq!(seq_of(&world.send("ny", "bob-ny", "g/team", "four")), 6);
    world.pass(2_000);
    assert_eq!(world.of("sg").unread("cid-sg", "g/team"), (1, 0));
    // Who is out is out, at the own site too.
    world
        .of("fra")
        .call("alice", "group/kick", json!({ "group": "team", "users": ["cid-sg"] }))
        .unwrap();
    world.settle();
    assert!(matches!(world.send("sg", "cid-sg", "g/team", "no"), Answer::Refused(_)));
    assert_eq!(seq_of(&world.send("fra", "alice", "g/team", "five")), 8);
    assert_eq!(world.of("sg").pulled("cid-sg", "g/team"), [4, 5, 6, 7]);
    assert_eq!(world.log("sg", &team).last().unwrap().seq, 7, "no members: no copies");
    assert_eq!(world.of("sg").entries_for.len(), 1, "told of the own end");
    // Back again.
    world.of("fra").call("alice", "group/invite", invite).unwrap();
    world.settle();
    assert_eq!(seq_of(&world.send("ny", "bea-ny", "g/team", "six")), 10);
    assert_eq!(world.of("sg").pulled("cid-sg", "g/team"), [4, 5, 6, 7, 9, 10]);
    assert_eq!(world.of("ny").pulled("bob-ny", "g/team").len(), 10);
}

#[test]
fn a_new_member_of_a_group_with_history_gets_it() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    let create = json!({ "group": "open", "name": "O", "history": "all", "join": "open" });
    world.of("fra").call("alice", "group/create", create).unwrap();
    for n in 1..100 {
        world.send("fra", "alice", "g/open", &n.to_string());
    }
    // As the link carries it: a call at the home.
    world.of("fra").call("bob-ny", "group/join", json!({ "group": "open" })).unwrap();
    world.settle();
    let conv = ConvKey::group(TENANT, "open");
    assert_eq!(world.log("ny", &conv), world.log("fra", &conv));
    assert_eq!(world.of("ny").pulled("bob-ny", "g/open").len(), 101);
    let refused = world.of("ny").refused("bob-ny", "group/leave", json!({ "group": "open" }));
    assert_eq!(refused, "unavailable", "judged by its home, or not at all");
}

#[test]
fn channels_are_followed_across_sites() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    let create = json!({ "channel": "ny-news", "name": "N" });
    world.of("ny").call("bob-ny", "channel/create", create).unwrap();
    world.of("ny").call("alice", "channel/follow", json!({ "channel": "ny-news" })).unwrap();
    world.settle();
    assert_eq!(seq_of(&world.send("ny", "bob-ny", "c/ny-news", "hello")), 1);
    world.settle();
    assert_eq!(world.of("fra").pulled("alice", "c/ny-news"), [1]);
    assert!(matches!(world.send("fra", "alice", "c/ny-news", "no"), Answer::Refused(_)));
}

#[test]
fn a_site_that_lost_its_rows_is_served_again() {
    let mut world = World::new(&["fra", "ny"], WhenDown::Hold);
    for n in 0..5 {
        world.send("fra", "alice", "u/bob-ny", &n.to_string());
        world.send("ny", "bob-ny", "u/alice", &n.to_string());
    }
    let settings = ImSettings { sites: Some(rules("ny", WhenDown::Hold)), ..ImSettings::default() };
    world.pass(1_000);
    let now = world.sites[1].now;
    world.sites[1] = Rig::with_shards(settings, 2);
    world.sites[1].now = now;
    world.link(0, 1, true);
    world.settle();
    assert_eq!(seq_of(&world.send("fra", "alice", "u/bob-ny", "again")), 11);
    assert_eq!(seq_of(&world.send("ny", "bob-ny", "u/alice", "and again")), 12);
    assert_eq!(world.texts("ny", &pair()), ["again", "and again"]);
    assert_eq!(world.sites[0].owed_to_sites() + world.sites[1].owed_to_sites(), 0);
}
