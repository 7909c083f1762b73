//! Pairs, groups and rooms: everybody connects, talks for a time, and the books are balanced.

use std::thread;

use anyhow::{Context, Result, anyhow};

use super::fetch::Fetcher;
use super::{TURN, base, engine, im, leave, remark, wipe};
use crate::clock::{now_ns, secs_to_ns};
use crate::lobby::{Gathered, Roster, gather};
use crate::net::Net;
use crate::run::{Meter, Outcome, Run};
use crate::shape::Kind;
use crate::talk::world::{World, qos};
use crate::talk::{Pace, Talk};

/// A closed loop stops waiting for a message after this long.
const PATIENCE_NS: u64 = 2_000_000_000;
/// How often live figures are shown and old messages given up.
const CHORES_NS: u64 = 100_000_000;
/// Name of the latencies from due time to acknowledgement.
const ACKNOWLEDGED: &str = "acknowledged";

/// Plays the run's shape on as many threads as asked for.
pub(super) fn play(run: &Run) -> Result<Outcome> {
    let threads = run.settings.threads.max(1);
    let mut sum = Outcome::default();
    let results: Vec<Result<Outcome>> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|index| {
                scope.spawn(move || {
                    let result = one_thread(run, index, threads);
                    if result.is_err() {
                        run.give_up();
                    }
                    result
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|h| h.join().unwrap_or_else(|_| Err(anyhow!("a generator thread panicked"))))
            .collect()
    });
    for result in results {
        sum.merge(result?);
    }
    if let Some((_, settled)) = sum.histograms.iter().find(|(name, _)| *name == ACKNOWLEDGED) {
        let p99_ms = settled.value_at_quantile(0.99) as f64 / 1e6;
        sum.figures.insert("acknowledged_p99_ms".to_owned(), p99_ms);
    }
    remark(&mut sum, run.shape.qos > 0);
    Ok(sum)
}

fn one_thread(run: &Run, index: usize, of: usize) -> Result<Outcome> {
    let shape = run.shape.slice(index, of);
    let separator = if shape.kind.is_im() { "-" } else { "/" };
    let world = World::new(&shape, run.target.version, &base(run, index, separator));
    let clients = world.feeds.len();
    let filters: Vec<Vec<String>> =
        (0..clients as u32).map(|c| im::filters(&shape, &world, c)).collect();
    let topics = world.topics.clone();
    let mut talk = Talk::new(world, run.tag);
    im::keep_books(run, &mut talk);
    let mut net = engine(run, index, clients)?;
    let blocked = (clients - shape.blocked) as u32..clients as u32;
    net.narrow(blocked.clone());
    let level = qos(run.shape.qos);
    let roster = Roster {
        name: base(run, index, "-"),
        first: index * 1_000_000,
        persistent: run.shape.persistent,
        clean: !run.shape.persistent,
        filters: &|c| filters[c as usize].iter().map(|f| (f.clone(), level)).collect(),
    };
    run.phase("connecting");
    let everybody = 0..clients as u32;
    let gathered = gather(run, &mut net, &mut talk, &roster, everybody.clone())
        .context("bringing the clients in")?;
    im::await_hellos(run, &mut net, &mut talk)?;
    if shape.kind == Kind::ImGroup {
        im::create_groups(run, &mut net, &mut talk, &roster.name)?;
    }
    net.stop_reading(blocked);
    let mut fetcher = Fetcher::begin(run, &shape, index, &mut net, &mut talk)?;
    let mut outcome = converse(run, index, &mut net, &mut talk, &mut fetcher, shape.rate)?;
    settle(run, &mut net, &mut talk)?;
    run.meet()?;
    if let Some(fetcher) = &fetcher {
        fetcher.clear(run, &mut net, &topics)?;
    }
    if run.shape.persistent {
        wipe(run, &mut net, &mut talk, &roster.name, everybody)?;
    } else {
        leave(&mut net, everybody);
    }
    conclude(run, &mut talk, gathered, &mut outcome);
    if let Some(fetcher) = fetcher {
        fetcher.conclude(&mut outcome);
    }
    Ok(outcome)
}

/// Warm-up and the measured time.
fn converse(
    run: &Run,
    index: usize,
    net: &mut Net,
    talk: &mut Talk,
    fetcher: &mut Option<Fetcher>,
    rate: Option<f64>,
) -> Result<Outcome> {
    run.meet()?;
    run.phase("warming up");
    let channels = 0..talk.channels.iter().filter(|c| c.sort == 0).count() as u32;
    let tick_ms = run.shape.tick_ms;
    let mut pace = rate.map(|rate| Pace::new(rate, channels, now_ns()).in_ticks(tick_ms));
    if pace.is_none() {
        talk.fill_windows(net);
    }
    pump(run, net, talk, fetcher, &mut pace, secs_to_ns(run.shape.warmup_secs))?;
    run.meet()?;
    if index == 0 {
        run.mark_begin();
        run.phase("measuring");
    }
    let meter = Meter::begin(net.totals());
    let received = talk.received;
    talk.measure_from(now_ns());
    pump(run, net, talk, fetcher, &mut pace, secs_to_ns(run.shape.duration_secs))?;
    let mut outcome = Outcome::default();
    meter.end(net.totals(), &mut outcome);
    outcome.work = talk.received - received;
    if index == 0 {
        run.mark_end();
        run.phase("draining");
    }
    talk.close(now_ns());
    Ok(outcome)
}

/// Lets everybody talk for a time.
fn pump(
    run: &Run,
    net: &mut Net,
    talk: &mut Talk,
    fetcher: &mut Option<Fetcher>,
    pace: &mut Option<Pace>,
    for_ns: u64,
) -> Result<()> {
    let until = now_ns() + for_ns;
    let mut chores_at = 0;
    loop {
        let now = now_ns();
        if now >= until || run.stopping() {
            return Ok(());
        }
        if let Some(pace) = pace {
            while pace.next_ns() <= now {
                let (due, channel) = pace.take();
                talk.due(net, channel, due);
            }
        }
        if let Some(fetcher) = fetcher {
            fetcher.go_on(net, talk);
        }
        if now >= chores_at {
            chores_at = now + CHORES_NS;
            chores(run, net, talk, now);
            if pace.is_none() {
                talk.abandon_before(now.saturating_sub(PATIENCE_NS));
            }
        }
        let next_due = pace.as_ref().map_or(until, |p| p.next_ns().min(until));
        net.turn(talk, TURN, Some(next_due))?;
        talk.after_turn(net);
    }
}

fn chores(run: &Run, net: &Net, talk: &mut Talk, _now: u64) {
    run.show(net);
    run.show_latencies(&mut talk.interval);
}

/// Waits for what is under way, until nothing has come for a while.
pub(super) fn settle(run: &Run, net: &mut Net, talk: &mut Talk) -> Result<()> {
    let quiet_ns = secs_to_ns(run.shape.drain_secs);
    let began = now_ns();
    while !talk.is_settled() && !run.stopping() {
        let now = now_ns();
        if now > talk.heard_ns.max(began) + quiet_ns {
            break;
        }
        net.turn(talk, TURN, None)?;
    }
    // One more round trip: what comes twice tends to come late.
    net.turn(talk, TURN, None)?;
    run.show(net);
    Ok(())
}

fn conclude(run: &Run, talk: &mut Talk, gathered: Gathered, outcome: &mut Outcome) {
    outcome.checks = talk.balance();
    im::conclude(run, talk, outcome);
    if run.interrupted() {
        // What was under way when the user stopped is not lost.
        outcome.checks.lost = 0;
    }
    for sort in talk.sorts.drain(..) {
        outcome.histograms.push((sort.name, sort.latency));
        outcome.histograms.push(("last member", sort.last));
        outcome.histograms.push(("first to last", sort.spread));
        if let Some(settled) = sort.settled {
            outcome.histograms.push((ACKNOWLEDGED, settled));
        }
    }
    outcome.histograms.push(("connect", gathered.connect));
    outcome.figures.insert("connect_secs".to_owned(), gathered.secs);
    if talk.abandoned > 0 {
        outcome.notes.push(format!(
            "{} messages were still unfinished after 2 s; the loop went on without them",
            talk.abandoned
        ));
    }
    if talk.unsent > 0 {
        outcome.faults.push(format!(
            "{} due messages were never sent: the broker takes them more slowly than --rate",
            talk.unsent
        ));
    }
    if let Some(why) = &talk.first_loss {
        outcome.notes.push(format!("the first lost connection: {why}"));
    }
}
