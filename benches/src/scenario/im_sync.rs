//! Pulling: everybody asks for the newest entries of a conversation, over and over, and counts what
//! comes.

use anyhow::{Context, Result, bail};

use super::im::{keep_books, take_answers};
use super::offline::{Feeders, feed};
use super::talk::settle;
use super::{TURN, base, engine, leave, remark};
use crate::clock::{now_ns, secs_to_ns};
use crate::lobby::{Roster, gather};
use crate::net::Net;
use crate::run::{Meter, Outcome, Run, histogram};
use crate::talk::world::{Plan, World, qos};
use crate::talk::{Sort, Talk};

/// Plays the pulls: user n pulls what user `clients + n` has said to it.
pub(super) fn play(run: &Run) -> Result<Outcome> {
    let users = run.shape.clients as u32;
    let name = base(run, 0, "-");
    let mut talk = Talk::new(conversations(run, &name), run.tag);
    keep_books(run, &mut talk);
    let mut net = engine(run, 0, 2 * users as usize)?;
    let nothing = |_| Vec::new();
    let roster = Roster { name, first: 0, persistent: false, clean: true, filters: &nothing };
    run.phase("connecting");
    let gathered = gather(run, &mut net, &mut talk, &roster, 0..2 * users)
        .context("bringing the clients in")?;
    let mut outcome = Outcome::default();
    let feeders = Feeders::new(&talk, &net, users, users, run.shape.messages);
    feed(run, &mut net, &mut talk, feeders, &mut outcome)?;
    settle(run, &mut net, &mut talk)?;
    let mut pulls = Pulls::new(run, &roster.name);
    pulls.begin(&mut net);
    run.phase("warming up");
    pulls.go_on(run, &mut net, &mut talk, run.shape.warmup_secs, &mut outcome)?;
    pulls.latency.reset();
    pulls.done = 0;
    run.phase("measuring");
    run.mark_begin();
    let meter = Meter::begin(net.totals());
    pulls.go_on(run, &mut net, &mut talk, run.shape.duration_secs, &mut outcome)?;
    run.mark_end();
    meter.end(net.totals(), &mut outcome);
    outcome.work = pulls.done;
    outcome.checks = talk.balance();
    outcome.histograms.push(("pull", pulls.latency));
    outcome.histograms.push(("connect", gathered.connect));
    remark(&mut outcome, true);
    leave(&mut net, 0..2 * users);
    Ok(outcome)
}

fn conversations(run: &Run, base: &str) -> World {
    let users = run.shape.clients as u32;
    let mut world = World::empty(2 * users as usize, vec![Sort::new("live")]);
    for user in 0..users {
        let plan = Plan {
            topic: format!("im/u/{base}-{user}/msg"),
            members: vec![user],
            speakers: vec![users + user],
            sort: 0,
            qos: qos(run.shape.qos),
            retain: false,
            size: run.shape.size,
            window: 0,
            echo: false,
        };
        world.add(run.target.version, plan);
    }
    world
}

/// The pulls under way.
struct Pulls {
    /// Per user: when the pull under way was asked.
    asked_ns: Vec<u64>,
    bodies: Vec<String>,
    /// Entries in a full answer.
    page: u32,
    done: u64,
    latency: hdrhistogram::Histogram<u64>,
}

impl Pulls {
    fn new(run: &Run, name: &str) -> Pulls {
        let users = run.shape.clients;
        let page = run.shape.page;
        let body = |user: usize| {
            let peer = users + user;
            format!("{{\"conv\":\"u/{name}-{peer}\",\"direction\":\"down\",\"limit\":{page}}}")
        };
        Pulls {
            asked_ns: vec![0; users],
            bodies: (0..users).map(body).collect(),
            page: page.min(run.shape.messages) as u32,
            done: 0,
            latency: histogram(),
        }
    }

    fn begin(&mut self, net: &mut Net) {
        for user in 0..self.bodies.len() {
            self.ask(net, user);
        }
    }

    fn ask(&mut self, net: &mut Net, user: usize) {
        self.asked_ns[user] = now_ns();
        net.publish_text(user as u32, "im/svc/sync/pull/p", self.bodies[user].as_bytes());
    }

    fn go_on(
        &mut self,
        run: &Run,
        net: &mut Net,
        talk: &mut Talk,
        secs: f64,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let until = now_ns() + secs_to_ns(secs);
        while now_ns() < until && !run.stopping() {
            net.turn(talk, TURN, Some(until))?;
            for answer in take_answers(talk) {
                if answer.status != "end" {
                    let why = String::from_utf8_lossy(&answer.body);
                    bail!("sync/pull: {}: {why}", answer.status);
                }
                let user = answer.client as usize;
                self.check(talk, user, &answer.body, outcome);
                self.latency.saturating_record(now_ns() - self.asked_ns[user]);
                self.done += 1;
                self.ask(net, user);
            }
            run.show(net);
        }
        Ok(())
    }

    /// As many entries as asked for, one next to the other, and the end says so.
    fn check(&self, talk: &mut Talk, user: usize, body: &[u8], outcome: &mut Outcome) {
        let end: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(profile) = &mut talk.profile else { return };
        let pulled = std::mem::take(&mut profile.pulled[user]);
        let whole = pulled.count == self.page && !pulled.torn;
        if (!whole || end["count"].as_u64() != Some(self.page.into())) && outcome.faults.len() < 10
        {
            outcome.faults.push(format!("a pull of {} brought {pulled:?}, end {end}", self.page));
        }
    }
}
