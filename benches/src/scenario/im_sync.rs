//! Pulling: everybody asks for the newest entries of its conversations, over and over or each once
//! after a restart, and counts what comes.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::connect::rest;
use super::crash::kill_and_restart;
use super::im::{keep_books, take_answers};
use super::offline::{Feeders, feed};
use super::talk::settle;
use super::{TURN, base, engine, leave, remark};
use crate::clock::{now_ns, secs_to_ns};
use crate::lobby::{Roster, gather};
use crate::net::Net;
use crate::run::{Meter, Outcome, Run, histogram};
use crate::shape::Shape;
use crate::talk::world::{Plan, World};
use crate::talk::{Sort, Talk};

/// Before the kill: cursors, which a broker may put off for a second, are to be on the disk.
const SETTLE: Duration = Duration::from_secs(2);

/// Plays the pulls: every user pulls, one after the other, what peers have said to it.
pub(super) fn play(run: &Run) -> Result<Outcome> {
    let shape = &run.shape;
    if shape.cold && run.settings.lever.is_none() {
        bail!(
            "--cold needs --kill and --restart, the commands that kill the broker and start it again \
             (`hoopoe-bench versus` brings its own)"
        );
    }
    let (users, peers) = (shape.clients as u32, shape.peers() as u32);
    let name = base(run, 0, "-");
    let mut talk = Talk::new(conversations(run, &name), run.tag);
    keep_books(run, &mut talk);
    let mut net = engine(run, 0, (users + peers) as usize)?;
    let nothing = |_| Vec::new();
    let (persistent, clean) = (shape.cold, !shape.cold);
    let roster = Roster { name, first: 0, persistent, clean, filters: &nothing };
    run.phase("connecting");
    let everybody = 0..users + peers;
    let mut gathered =
        gather(run, &mut net, &mut talk, &roster, everybody).context("bringing the clients in")?;
    let mut outcome = Outcome::default();
    let feeders = Feeders::new(&talk, &net, users, peers, shape.messages);
    feed(run, &mut net, &mut talk, feeders, &mut outcome)?;
    settle(run, &mut net, &mut talk)?;
    leave(&mut net, users..users + peers);
    if shape.cold {
        // They have everything, and return to what they read again: nothing waits to be pushed.
        leave(&mut net, 0..users);
        rest(run, &mut net, &mut talk, SETTLE)?;
        kill_and_restart(run, &mut outcome)?;
        forget_files(&mut outcome);
        gathered = gather(run, &mut net, &mut talk, &roster, 0..users).context("the users")?;
    }
    let mut pulls = Pulls::new(run, &roster.name);
    pulls.begin(&mut net);
    if !shape.cold {
        run.phase("warming up");
        pulls.go_on(run, &mut net, &mut talk, shape.warmup_secs, &mut outcome)?;
        pulls.latency.reset();
        pulls.done = 0;
    }
    run.phase("measuring");
    run.mark_begin();
    let meter = Meter::begin(net.totals());
    pulls.go_on(run, &mut net, &mut talk, shape.duration_secs, &mut outcome)?;
    run.mark_end();
    meter.end(net.totals(), &mut outcome);
    outcome.work = pulls.done;
    outcome.checks = talk.balance();
    outcome.histograms.push(("pull", pulls.latency));
    outcome.histograms.push(("connect", gathered.connect));
    remark(&mut outcome, true);
    leave(&mut net, 0..users);
    Ok(outcome)
}

/// What was stored is to be read from the disk, not from the system's memory. Only root may ask for it.
fn forget_files(outcome: &mut Outcome) {
    if let Err(e) = std::fs::write("/proc/sys/vm/drop_caches", "1") {
        outcome.notes.push(format!("the system keeps its cache of files: {e}"));
    }
}

/// What peers say to the users.
fn conversations(run: &Run, base: &str) -> World {
    let shape = &run.shape;
    let (users, peers) = (shape.clients as u32, shape.peers() as u32);
    let mut world = World::empty((users + peers) as usize, vec![Sort::new("live")]);
    for user in 0..users {
        for n in 0..shape.subscriptions as u32 {
            let topic = format!("im/u/{base}-{user}/msg");
            let plan = Plan::new(shape, topic, vec![user], vec![peer(shape, user, n)]);
            world.add(run.target.version, Plan { echo: false, ..plan });
        }
    }
    world
}

/// With whom the user's conversation of this number is; all peers speak equally much.
fn peer(shape: &Shape, user: u32, conversation: u32) -> u32 {
    let first = user * shape.subscriptions as u32 + conversation;
    shape.clients as u32 + first % shape.peers() as u32
}

/// The pulls under way.
struct Pulls {
    /// Per user: when the pull under way was asked.
    asked_ns: Vec<u64>,
    /// Per user: what it asks for next; in a cold run each is asked for once.
    next: Vec<usize>,
    bodies: Vec<Vec<String>>,
    /// Pulls are asked for once each, and so many have not been answered.
    left: Option<usize>,
    /// Entries in a full answer.
    page: u32,
    done: u64,
    latency: hdrhistogram::Histogram<u64>,
}

impl Pulls {
    fn new(run: &Run, name: &str) -> Pulls {
        let shape = &run.shape;
        let page = shape.page;
        let body = |user: u32, n: usize| {
            let peer = peer(shape, user, n as u32);
            format!("{{\"conv\":\"u/{name}-{peer}\",\"direction\":\"down\",\"limit\":{page}}}")
        };
        let bodies =
            |user: u32| (0..shape.subscriptions).map(|n| body(user, n)).collect::<Vec<_>>();
        Pulls {
            asked_ns: vec![0; shape.clients],
            next: vec![0; shape.clients],
            bodies: (0..shape.clients as u32).map(bodies).collect(),
            left: shape.cold.then_some(shape.clients * shape.subscriptions),
            page: page.min(shape.messages) as u32,
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
        let (own, next) = (&self.bodies[user], &mut self.next[user]);
        if self.left.is_some() && *next == own.len() {
            return;
        }
        self.asked_ns[user] = now_ns();
        let body = &own[*next % own.len()];
        *next += 1;
        net.publish_text(user as u32, "im/svc/sync/pull/p", body.as_bytes());
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
        while now_ns() < until && self.left != Some(0) && !run.stopping() {
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
                self.left = self.left.map(|left| left - 1);
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
