//! Offline and crash: sessions leave, messages arrive for them, everybody returns and must get all of
//! them, once and in order. In a crash the broker dies after the last acknowledgement, and before that
//! as often as asked for.

use anyhow::{Context, Result, bail};

use super::crash::{feed_and_kill, kill_and_restart};
use super::{TURN, base, engine, leave, remark, wipe};
use crate::clock::{now_ns, ns_to_secs, secs_to_ns};
use crate::lobby::{Roster, gather};
use crate::net::Net;
use crate::run::{Meter, Outcome, Run};
use crate::talk::world::{Plan, World, qos};
use crate::talk::{Sort, Talk};

/// A feed in which nothing was acknowledged for this long is given up.
const FEED_PATIENCE_NS: u64 = 30_000_000_000;

/// Sessions leave and return.
pub(super) fn play(run: &Run) -> Result<Outcome> {
    absence(run, false)
}

/// Sessions leave, the broker is killed and started again, and they return.
pub(super) fn crash(run: &Run) -> Result<Outcome> {
    if run.settings.lever.is_none() {
        bail!(
            "crash needs --kill and --restart, the commands that kill the broker and start it again \
             (`hoopoe-bench versus` brings its own)"
        );
    }
    absence(run, true)
}

fn absence(run: &Run, dies: bool) -> Result<Outcome> {
    let shape = &run.shape;
    let (sessions, publishers) = (shape.clients as u32, shape.publishers as u32);
    let world = mailboxes(run);
    let topics = world.topics.clone();
    let mut talk = Talk::new(world, run.tag);
    let mut net = engine(run, 0, (sessions + publishers) as usize)?;
    let level = qos(shape.qos);
    let nothing = |_| Vec::new();
    let roster = Roster {
        name: base(run, 0, "-"),
        first: 0,
        persistent: true,
        clean: false,
        filters: &|client| vec![(topics[client as usize].clone(), level)],
    };
    let mut outcome = Outcome::default();
    run.phase("first visit");
    gather(run, &mut net, &mut talk, &roster, 0..sessions).context("the first visit")?;
    leave(&mut net, 0..sessions);
    let speakers = Roster { persistent: false, clean: true, filters: &nothing, ..roster };
    gather(run, &mut net, &mut talk, &speakers, sessions..sessions + publishers)?;
    let feeders = Feeders::new(&talk, &net, sessions, publishers, shape.messages);
    if dies && shape.kills > 0 {
        feed_and_kill(run, &mut net, &mut talk, feeders, &speakers, &mut outcome)?;
    } else {
        feed(run, &mut net, &mut talk, feeders, &mut outcome)?;
    }
    leave(&mut net, sessions..sessions + publishers);
    if dies {
        kill_and_restart(run, &mut outcome)?;
    }
    talk.measure_from(u64::MAX);
    let back = Roster { persistent: true, clean: false, filters: &nothing, ..speakers };
    drain(run, &mut net, &mut talk, &back, &mut outcome)?;
    outcome.checks = talk.balance();
    if run.interrupted() {
        outcome.checks.lost = 0;
    }
    remark(&mut outcome, true);
    if let Some(why) = &talk.first_loss {
        outcome.notes.push(format!("the first lost connection: {why}"));
    }
    let name = back.name;
    wipe(run, &mut net, &mut talk, &name, 0..sessions)?;
    Ok(outcome)
}

/// One channel per session, its messages from one publisher, so that their order is defined.
fn mailboxes(run: &Run) -> World {
    let shape = &run.shape;
    let (sessions, publishers) = (shape.clients as u32, shape.publishers as u32);
    let base = base(run, 0, "/");
    let mut world = World::empty((sessions + publishers) as usize, vec![Sort::new("waiting")]);
    for session in 0..sessions {
        let (topic, speaker) = (format!("{base}/u/{session}"), sessions + session % publishers);
        world.add(run.target.version, Plan::new(shape, topic, vec![session], vec![speaker]));
    }
    world
}

/// The connections that publish, each with the channels that only it speaks in.
pub(super) struct Feeders {
    /// The first of them.
    pub(super) first: u32,
    channels: Vec<Vec<u32>>,
    said: Vec<usize>,
    /// Messages in each channel.
    each: usize,
    /// What the engine had settled before.
    settled_before: u64,
}

impl Feeders {
    /// Publishers are the clients from `first` on.
    pub(super) fn new(talk: &Talk, net: &Net, first: u32, publishers: u32, each: usize) -> Feeders {
        let mut channels = vec![Vec::new(); publishers as usize];
        for (number, channel) in talk.channels.iter().enumerate() {
            channels[(channel.speakers[0] - first) as usize].push(number as u32);
        }
        Feeders {
            first,
            said: vec![0; channels.len()],
            channels,
            each,
            settled_before: net.totals().settled,
        }
    }

    /// The connections.
    pub(super) fn clients(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.channels.len() as u32
    }

    /// Messages that the broker has settled.
    pub(super) fn acknowledged(&self, net: &Net) -> u64 {
        net.totals().settled - self.settled_before
    }

    /// The same, with those that it will never settle because it was killed.
    fn settled(&self, net: &Net, talk: &Talk) -> u64 {
        self.acknowledged(net) + talk.in_doubt()
    }

    /// Messages that all of them are to say.
    pub(super) fn total(&self) -> u64 {
        self.channels.iter().map(|own| (own.len() * self.each) as u64).sum()
    }

    /// Says what the windows allow: one message in every channel, then the next in every channel.
    fn say(&mut self, net: &mut Net, talk: &mut Talk, window: usize) {
        for (publisher, own) in self.channels.iter().enumerate() {
            let client = self.first + publisher as u32;
            let said = &mut self.said[publisher];
            while *said < own.len() * self.each && net.unsettled(client) < window {
                if !talk.speak(net, own[*said % own.len()], now_ns()) {
                    break;
                }
                *said += 1;
            }
        }
    }
}

/// Publishes everything, each publisher with a window of unsettled messages, until all are settled.
pub(super) fn feed(
    run: &Run,
    net: &mut Net,
    talk: &mut Talk,
    mut feeders: Feeders,
    outcome: &mut Outcome,
) -> Result<()> {
    run.phase("feeding");
    let mut spent = Spent::default();
    let total = feeders.total();
    spent.add(run, net, |net| feed_until(run, net, talk, &mut feeders, total))?;
    spent.write(feeders.acknowledged(net), outcome);
    Ok(())
}

/// What a feed has taken, over all its stretches.
#[derive(Default)]
pub(super) struct Spent {
    secs: f64,
    cpu_secs: f64,
}

impl Spent {
    /// Adds one stretch, in which the broker stays the same process.
    pub(super) fn add(
        &mut self,
        run: &Run,
        net: &mut Net,
        stretch: impl FnOnce(&mut Net) -> Result<()>,
    ) -> Result<()> {
        let (began, usage) = (now_ns(), run.usage());
        stretch(net)?;
        self.secs += ns_to_secs(now_ns() - began);
        self.cpu_secs += run.usage().cpu_secs() - usage.cpu_secs();
        Ok(())
    }

    /// Writes the figures.
    pub(super) fn write(&self, acknowledged: u64, outcome: &mut Outcome) {
        let settled = acknowledged as f64;
        outcome.figures.insert("acknowledged".to_owned(), settled);
        outcome.figures.insert("feed_secs".to_owned(), self.secs);
        outcome.figures.insert("acknowledged_per_sec".to_owned(), settled / self.secs.max(1e-9));
        if self.cpu_secs > 0.02 {
            let rate = settled / self.cpu_secs;
            outcome.figures.insert("acknowledged_per_cpu_sec".to_owned(), rate);
        }
    }
}

/// Publishes until `goal` messages are settled, those counted that are in doubt.
pub(super) fn feed_until(
    run: &Run,
    net: &mut Net,
    talk: &mut Talk,
    feeders: &mut Feeders,
    goal: u64,
) -> Result<()> {
    let mut progress_ns = now_ns();
    let mut settled = feeders.settled(net, talk);
    while settled < goal && !run.stopping() {
        feeders.say(net, talk, run.shape.window as usize);
        net.turn(talk, TURN, None)?;
        run.show(net);
        let now_settled = feeders.settled(net, talk);
        if now_settled > settled {
            (settled, progress_ns) = (now_settled, now_ns());
        }
        if now_ns() - progress_ns > FEED_PATIENCE_NS {
            bail!(
                "{settled} of {} messages were acknowledged, then none for {} s{}",
                feeders.total(),
                FEED_PATIENCE_NS / 1_000_000_000,
                talk.first_loss.as_ref().map(|w| format!(" ({w})")).unwrap_or_default()
            );
        }
    }
    Ok(())
}

/// Everybody returns; ends when all messages have come or nothing comes any more.
fn drain(
    run: &Run,
    net: &mut Net,
    talk: &mut Talk,
    roster: &Roster<'_>,
    outcome: &mut Outcome,
) -> Result<()> {
    run.phase("draining");
    let sessions = run.shape.clients as u32;
    run.mark_begin();
    let meter = Meter::begin(net.totals());
    let began = now_ns();
    talk.heard_ns = began;
    let gathered = gather(run, net, talk, roster, 0..sessions).context("the return")?;
    if gathered.present < u64::from(sessions) && !run.interrupted() {
        let missing = u64::from(sessions) - gathered.present;
        outcome.faults.push(format!("{missing} sessions were not present on return"));
    }
    let quiet_ns = secs_to_ns(run.shape.drain_secs);
    let mut marked = false;
    while !run.stopping() {
        if talk.is_settled() && !marked {
            run.mark_end();
            meter.end(net.totals(), outcome);
            marked = true;
        }
        let quiet_from = talk.heard_ns.max(began);
        let patience = if marked { quiet_ns.min(300_000_000) } else { quiet_ns };
        if now_ns() > quiet_from + patience {
            break;
        }
        net.turn(talk, TURN, None)?;
        run.show(net);
    }
    if !marked {
        run.mark_end();
        meter.end(net.totals(), outcome);
    }
    outcome.work = talk.received;
    let secs = ns_to_secs(talk.heard_ns.saturating_sub(began));
    outcome.figures.insert("drain_secs".to_owned(), secs);
    outcome.histograms.push(("return", gathered.connect));
    Ok(())
}
