//! Login: users with many conversations were away, messages came in some of them, and all return at
//! once. What counts is how soon each has the first message, and all of them.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use hoopoe_codec::{QoS, ReasonCode};

use super::offline::{Feeders, feed};
use super::{TURN, base, engine, leave, remark, wipe};
use crate::clock::{now_ns, secs_to_ns};
use crate::lobby::{Roster, gather};
use crate::net::{Down, Driver, Incoming, Net, Token};
use crate::run::{Meter, Outcome, Run, histogram};
use crate::talk::world::{Plan, World, qos};
use crate::talk::{Sort, Talk};

/// Plays the return.
pub(super) fn play(run: &Run) -> Result<Outcome> {
    let shape = &run.shape;
    let (users, publishers) = (shape.clients as u32, shape.publishers as u32);
    let topics = base(run, 0, "/");
    let mut arrivals = Arrivals::new(run, Talk::new(conversations(run, &topics), run.tag));
    let mut net = engine(run, 0, (users + publishers) as usize)?;
    let level = qos(shape.qos);
    let subscribe = |user: u32| -> Vec<(String, QoS)> {
        (0..shape.subscriptions).map(|n| (topic(&topics, user, n), level)).collect()
    };
    let nothing = |_| Vec::new();
    let first = Roster {
        name: base(run, 0, "-"),
        first: 0,
        persistent: true,
        clean: false,
        filters: &subscribe,
    };
    let mut outcome = Outcome::default();
    run.phase("first visit");
    gather(run, &mut net, &mut arrivals.talk, &first, 0..users).context("the first visit")?;
    leave(&mut net, 0..users);
    let speakers = Roster { persistent: false, clean: true, filters: &nothing, ..first };
    let everybody_else = users..users + publishers;
    gather(run, &mut net, &mut arrivals.talk, &speakers, everybody_else.clone())?;
    let feeders =
        Feeders::new(&arrivals.talk, &net, users, publishers, shape.messages / shape.news);
    feed(run, &mut net, &mut arrivals.talk, feeders, &mut outcome)?;
    leave(&mut net, everybody_else);

    let back = Roster { persistent: true, clean: false, filters: &nothing, ..speakers };
    come_back(run, &mut net, &mut arrivals, &back, &mut outcome)?;
    outcome.checks = arrivals.talk.balance();
    say_goodbye(run, &mut net, arrivals, &back.name, &mut outcome)?;
    Ok(outcome)
}

/// Writes down what the return took, and removes the sessions.
pub(super) fn say_goodbye(
    run: &Run,
    net: &mut Net,
    arrivals: Arrivals,
    name: &str,
    outcome: &mut Outcome,
) -> Result<()> {
    if run.interrupted() {
        outcome.checks.lost = 0;
    }
    remark(outcome, true);
    let Arrivals { mut talk, first, whole, .. } = arrivals;
    outcome.histograms.insert(0, ("login to last message", whole));
    outcome.histograms.insert(0, ("login to first message", first));
    wipe(run, net, &mut talk, name, 0..run.shape.clients as u32)
}

/// Everybody returns; ends when all messages have come or nothing comes any more.
pub(super) fn come_back(
    run: &Run,
    net: &mut Net,
    arrivals: &mut Arrivals,
    back: &Roster<'_>,
    outcome: &mut Outcome,
) -> Result<()> {
    let users = run.shape.clients as u32;
    run.phase("returning");
    run.mark_begin();
    let meter = Meter::begin(net.totals());
    let began = now_ns();
    arrivals.talk.heard_ns = began;
    let gathered = gather(run, net, arrivals, back, 0..users).context("the return")?;
    let quiet_ns = secs_to_ns(run.shape.drain_secs);
    while !arrivals.talk.is_settled()
        && !run.stopping()
        && now_ns() < arrivals.talk.heard_ns + quiet_ns
    {
        net.turn(arrivals, TURN, None)?;
        run.show(net);
    }
    run.mark_end();
    meter.end(net.totals(), outcome);
    net.turn(arrivals, TURN, None)?;
    outcome.work = arrivals.whole.len();
    outcome.histograms.push(("connect", gathered.connect));
    if gathered.present < u64::from(users) && !run.interrupted() {
        let missing = u64::from(users) - gathered.present;
        outcome.faults.push(format!("{missing} sessions were not present on return"));
    }
    Ok(())
}

fn topic(base: &str, user: u32, conversation: usize) -> String {
    format!("{base}/c/{user}/{conversation}")
}

/// Channels only for the conversations with news; the others are subscriptions and no more.
fn conversations(run: &Run, base: &str) -> World {
    let shape = &run.shape;
    let (users, publishers) = (shape.clients as u32, shape.publishers as u32);
    let mut world = World::empty((users + publishers) as usize, vec![Sort::new("waiting")]);
    let stride = shape.subscriptions / shape.news;
    for user in 0..users {
        for news in 0..shape.news {
            let speaker = users + (user + news as u32) % publishers;
            let topic = topic(base, user, news * stride);
            world.add(run.target.version, Plan::new(shape, topic, vec![user], vec![speaker]));
        }
    }
    world
}

/// Times the messages of everybody who returns.
pub(super) struct Arrivals {
    /// Who has what.
    pub(super) talk: Talk,
    awaited: u32,
    got: Vec<u32>,
    /// Login to the first message.
    pub(super) first: Histogram<u64>,
    /// Login to the last.
    pub(super) whole: Histogram<u64>,
}

impl Arrivals {
    /// Nothing has arrived.
    pub(super) fn new(run: &Run, talk: Talk) -> Arrivals {
        Arrivals {
            talk,
            awaited: run.shape.messages as u32,
            got: vec![0; run.shape.clients],
            first: histogram(),
            whole: histogram(),
        }
    }
}

impl Driver for Arrivals {
    fn on_message(&mut self, net: &mut Net, client: u32, message: &Incoming<'_>) {
        let before = self.talk.received;
        self.talk.on_message(net, client, message);
        if self.talk.received == before {
            return;
        }
        let Some(got) = self.got.get_mut(client as usize) else { return };
        *got += 1;
        let since = message.at_ns.saturating_sub(net.opened_ns(client));
        if *got == 1 {
            self.first.saturating_record(since);
        }
        if *got == self.awaited {
            self.whole.saturating_record(since);
        }
    }

    fn on_settled(&mut self, net: &mut Net, client: u32, token: Token, code: ReasonCode) {
        self.talk.on_settled(net, client, token, code);
    }

    fn on_down(&mut self, net: &mut Net, client: u32, why: Down) {
        self.talk.on_down(net, client, why);
    }
}
