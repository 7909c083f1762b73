//! The scenarios: each plays its shape against the target and hands back what it found.

mod connect;
mod crash;
mod fetch;
mod im;
mod im_login;
mod im_sync;
mod login;
mod mixed;
mod offline;
mod retained;
mod talk;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::lobby::Roster;
use crate::net::{Driver, Net};
use crate::report::Report;
use crate::run::{Outcome, Run};
use crate::shape::Kind;

/// The longest wait for events: how soon a request to stop is seen.
const TURN: Duration = Duration::from_millis(20);
/// Clients that leave before their farewells are given time to be read.
const LEAVE_BATCH: u32 = 500;

/// Plays the run's scenario and makes the report.
pub(crate) fn play(run: &Run) -> Result<Report> {
    run.mark_before();
    let (outcome, unit, lossless) = match run.shape.kind {
        Kind::Pairs | Kind::Group | Kind::Room => {
            (talk::play(run)?, "deliveries", run.shape.qos > 0)
        }
        Kind::Storm => (connect::storm(run)?, "connections", true),
        Kind::Idle => (connect::idle(run)?, "connections", true),
        Kind::Retained => (retained::play(run)?, "deliveries", run.shape.qos > 0),
        Kind::Offline => (offline::play(run)?, "deliveries", true),
        Kind::Crash => (offline::crash(run)?, "deliveries", true),
        Kind::Login => (login::play(run)?, "logins", true),
        Kind::ImPairs | Kind::ImGroup => (talk::play(run)?, "deliveries", true),
        Kind::ImRoom => (talk::play(run)?, "deliveries", run.shape.qos > 0),
        Kind::ImSync => (im_sync::play(run)?, "pulls", true),
        Kind::ImLogin => (im_login::play(run)?, "logins", true),
        Kind::Mixed => (mixed::play(run)?, "deliveries", run.shape.qos > 0),
    };
    let mut report = run.report(outcome, unit);
    report.judge(lossless, run.shape.qos == 2 && run.shape.kind != Kind::Crash);
    Ok(report)
}

/// First levels of all topics, or start of all client identifiers, of one thread of a run.
fn base(run: &Run, thread: usize, separator: &str) -> String {
    format!("{}{separator}{:08x}{separator}{thread}", run.settings.prefix, run.tag)
}

/// An engine with `clients` clients.
fn engine(run: &Run, thread: usize, clients: usize) -> Result<Net> {
    let mut net = Net::new(Arc::clone(&run.target), thread)?;
    net.add_clients(clients);
    net.spin(run.settings.spin);
    Ok(net)
}

/// Says goodbye for these clients.
fn leave(net: &mut Net, who: std::ops::Range<u32>) {
    for client in who {
        net.leave(client);
        if client % LEAVE_BATCH == LEAVE_BATCH - 1 {
            std::thread::yield_now();
        }
    }
}

/// Removes persistent sessions: everybody comes once more with a clean start.
fn wipe<D: Driver>(
    run: &Run,
    net: &mut Net,
    driver: &mut D,
    name: &str,
    who: std::ops::Range<u32>,
) -> Result<()> {
    if run.settings.keep || run.stopping() {
        return Ok(());
    }
    run.phase("removing sessions");
    leave(net, who.clone());
    let roster = Roster {
        name: name.to_owned(),
        first: 0,
        persistent: false,
        clean: true,
        filters: &|_| Vec::new(),
    };
    crate::lobby::gather(run, net, driver, &roster, who.clone())?;
    leave(net, who);
    Ok(())
}

/// Adds the checks' remarks that do not make a run fail.
fn remark(outcome: &mut Outcome, lossless: bool) {
    let c = &outcome.checks;
    if !lossless && c.lost > 0 {
        let share = 100.0 * c.lost as f64 / c.expected.max(1) as f64;
        outcome.notes.push(format!("{} deliveries lost at QoS 0 ({share:.3} %)", c.lost));
    }
    if c.redelivered > 0 {
        outcome.notes.push(format!("{} deliveries repeated with DUP", c.redelivered));
    }
    if c.strangers > 0 {
        outcome.notes.push(format!("{} messages were not of this run", c.strangers));
    }
}
