//! Offline and crash: sessions leave, messages arrive for them, everybody returns and must get all of
//! them, once and in order. In a crash the broker dies after the last acknowledgement.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{TURN, base, engine, leave, remark, wipe};
use crate::clock::{now_ns, ns_to_secs, secs_to_ns};
use crate::lobby::{Roster, gather};
use crate::net::Net;
use crate::run::{Meter, Outcome, Run};
use crate::talk::world::{Plan, World, qos};
use crate::talk::{Sort, Talk};

/// A broker that has not come back after this long has failed the scenario.
const RESTART_PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks whether the broker listens again.
const RESTART_POLL: Duration = Duration::from_millis(10);
/// A feed in which nothing was acknowledged for this long is given up.
const FEED_PATIENCE_NS: u64 = 30_000_000_000;

/// Sessions leave and return.
pub(super) fn play(run: &Run) -> Result<Outcome> {
    absence(run, |_, _| Ok(()))
}

/// Sessions leave, the broker is killed and started again, and they return.
pub(super) fn crash(run: &Run) -> Result<Outcome> {
    if run.settings.lever.is_none() {
        bail!(
            "crash needs --kill and --restart, the commands that kill the broker and start it again \
             (`hoopoe-bench versus` brings its own)"
        );
    }
    absence(run, kill_and_restart)
}

fn kill_and_restart(run: &Run, outcome: &mut Outcome) -> Result<()> {
    let Some(lever) = &run.settings.lever else { return Ok(()) };
    run.phase("killing the broker");
    lever.kill().context("killing the broker")?;
    let began = now_ns();
    run.phase("restarting the broker");
    let pids = lever.restart().context("starting the broker again")?;
    run.watch_instead(&pids)?;
    let until = began + RESTART_PATIENCE.as_nanos() as u64;
    while TcpStream::connect(run.target.address).is_err() {
        if now_ns() > until || run.stopping() {
            bail!(
                "the broker does not listen again, {} s after its restart",
                RESTART_PATIENCE.as_secs()
            );
        }
        std::thread::sleep(RESTART_POLL);
    }
    outcome.figures.insert("restart_secs".to_owned(), ns_to_secs(now_ns() - began));
    Ok(())
}

fn absence(run: &Run, meanwhile: fn(&Run, &mut Outcome) -> Result<()>) -> Result<Outcome> {
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
    let feeders = Feeders::new(&talk, sessions, publishers, shape.messages);
    feed(run, &mut net, &mut talk, feeders, &mut outcome)?;
    leave(&mut net, sessions..sessions + publishers);
    meanwhile(run, &mut outcome)?;
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
        let plan = Plan {
            topic: format!("{base}/u/{session}"),
            members: vec![session],
            speakers: vec![sessions + session % publishers],
            sort: 0,
            qos: qos(shape.qos),
            retain: false,
            size: shape.size,
            window: 0,
            echo: true,
        };
        world.add(run.target.version, plan);
    }
    world
}

/// The connections that publish, each with the channels that only it speaks in.
pub(super) struct Feeders {
    first: u32,
    channels: Vec<Vec<u32>>,
    said: Vec<usize>,
    /// Messages in each channel.
    each: usize,
}

impl Feeders {
    /// Publishers are the clients from `first` on.
    pub(super) fn new(talk: &Talk, first: u32, publishers: u32, each: usize) -> Feeders {
        let mut channels = vec![Vec::new(); publishers as usize];
        for (number, channel) in talk.channels.iter().enumerate() {
            channels[(channel.speakers[0] - first) as usize].push(number as u32);
        }
        Feeders { first, said: vec![0; channels.len()], channels, each }
    }

    fn total(&self) -> u64 {
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
    let total = feeders.total();
    let (began, usage) = (now_ns(), run.usage());
    let settled_before = net.totals().settled;
    let mut progress_ns = began;
    let mut settled = 0;
    while settled < total && !run.stopping() {
        feeders.say(net, talk, run.shape.window as usize);
        net.turn(talk, TURN, None)?;
        run.show(net);
        let now_settled = net.totals().settled - settled_before;
        if now_settled > settled {
            (settled, progress_ns) = (now_settled, now_ns());
        }
        if now_ns() - progress_ns > FEED_PATIENCE_NS {
            bail!(
                "{settled} of {total} messages were acknowledged, then none for {} s{}",
                FEED_PATIENCE_NS / 1_000_000_000,
                talk.first_loss.as_ref().map(|w| format!(" ({w})")).unwrap_or_default()
            );
        }
    }
    let secs = ns_to_secs(now_ns() - began);
    let cpu = run.usage().cpu_secs() - usage.cpu_secs();
    outcome.figures.insert("acknowledged".to_owned(), settled as f64);
    outcome.figures.insert("feed_secs".to_owned(), secs);
    outcome.figures.insert("acknowledged_per_sec".to_owned(), settled as f64 / secs.max(1e-9));
    if cpu > 0.02 {
        outcome.figures.insert("acknowledged_per_cpu_sec".to_owned(), settled as f64 / cpu);
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
