//! Storm and idle: connections as such, how fast they come and what they hold.

use std::time::Duration;

use anyhow::{Context, Result};
use hoopoe_codec::QoS;

use super::{TURN, base, engine, leave, wipe};
use crate::clock::{now_ns, secs_to_ns};
use crate::lobby::{Roster, gather};
use crate::net::{Driver, Idle, Net};
use crate::run::{Meter, Outcome, Run};
use crate::talk::world::qos;

/// Brokers give memory back, and take it, some time after the last packet.
const SETTLE: Duration = Duration::from_secs(1);

fn filters(run: &Run, client: u32) -> Vec<(String, QoS)> {
    let base = base(run, 0, "/");
    (0..run.shape.subscriptions)
        .map(|n| (format!("{base}/u/{client}/{n}"), qos(run.shape.qos)))
        .collect()
}

/// Everybody connects and subscribes; with `resume`, everybody had been here before.
pub(super) fn storm(run: &Run) -> Result<Outcome> {
    let everybody = 0..run.shape.clients as u32;
    let mut net = engine(run, 0, run.shape.clients)?;
    let name = base(run, 0, "-");
    let subscribe = |client: u32| filters(run, client);
    let first = Roster {
        name: name.clone(),
        first: 0,
        persistent: run.shape.persistent,
        clean: !run.shape.persistent,
        filters: &subscribe,
    };
    let mut outcome = Outcome::default();
    if run.shape.resume {
        run.phase("first visit");
        gather(run, &mut net, &mut Idle, &first, everybody.clone())
            .context("the first visit of the sessions")?;
        leave(&mut net, everybody.clone());
        rest(run, &mut net, &mut Idle, SETTLE)?;
    }
    run.phase(if run.shape.resume { "returning" } else { "connecting" });
    // A session that is there brings its subscriptions along.
    let again = Roster { filters: &|_| Vec::new(), name: name.clone(), ..first };
    run.mark_begin();
    let meter = Meter::begin(net.totals());
    let roster = if run.shape.resume { again } else { Roster { filters: &subscribe, ..again } };
    let gathered = gather(run, &mut net, &mut Idle, &roster, everybody.clone())?;
    meter.end(net.totals(), &mut outcome);
    run.mark_end();
    outcome.work = gathered.connect.len();
    if run.shape.resume {
        let expected = run.shape.clients as u64;
        outcome.checks.expected = expected;
        outcome.checks.received = gathered.present;
        if gathered.present < expected && !run.interrupted() {
            let missing = expected - gathered.present;
            outcome.faults.push(format!("{missing} sessions were not present on return"));
        }
    }
    outcome.figures.insert("slowest_ms".to_owned(), gathered.connect.max() as f64 / 1e6);
    outcome.histograms.push(("connect", gathered.connect));
    if run.shape.persistent {
        wipe(run, &mut net, &mut Idle, &name, everybody)?;
    } else {
        leave(&mut net, everybody);
    }
    Ok(outcome)
}

/// Everybody connects, subscribes and says nothing more.
pub(super) fn idle(run: &Run) -> Result<Outcome> {
    let everybody = 0..run.shape.clients as u32;
    let mut net = engine(run, 0, run.shape.clients)?;
    let roster = Roster {
        name: base(run, 0, "-"),
        first: 0,
        persistent: false,
        clean: true,
        filters: &|client| filters(run, client),
    };
    let mut outcome = Outcome::default();
    run.phase("connecting");
    let gathered = gather(run, &mut net, &mut Idle, &roster, everybody.clone())?;
    rest(run, &mut net, &mut Idle, SETTLE)?;
    run.phase("idle");
    run.mark_begin();
    let meter = Meter::begin(net.totals());
    rest(run, &mut net, &mut Idle, crate::clock::duration(run.shape.duration_secs))?;
    meter.end(net.totals(), &mut outcome);
    run.mark_end();
    outcome.work = net.totals().up;
    let up = net.totals().up;
    let lost = run.shape.clients as u64 - up;
    if lost > 0 && !run.interrupted() {
        outcome.faults.push(format!("{lost} connections were closed while idle"));
    }
    if !run.settings.broker_pids.is_empty() {
        let held = run.usage().rss_bytes.saturating_sub(run.usage_before().rss_bytes);
        outcome.figures.insert("bytes_per_connection".to_owned(), held as f64 / up.max(1) as f64);
    } else {
        outcome.notes.push("without --broker-pid there is no memory figure".to_owned());
    }
    outcome.histograms.push(("connect", gathered.connect));
    outcome.figures.insert("connect_secs".to_owned(), gathered.secs);
    leave(&mut net, everybody);
    Ok(outcome)
}

/// Lets the engine run without saying anything.
pub(super) fn rest(
    run: &Run,
    net: &mut Net,
    driver: &mut impl Driver,
    time: Duration,
) -> Result<()> {
    let until = now_ns() + secs_to_ns(time.as_secs_f64());
    while now_ns() < until && !run.stopping() {
        net.turn(driver, TURN, Some(until))?;
        run.show(net);
    }
    Ok(())
}
