//! Crash: the broker is killed and started again, after the last acknowledgement or in the middle of
//! the feed. What it had acknowledged until then is owed; what it had not may arrive or not, and is
//! not said again, so that nothing may arrive twice.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::TURN;
use super::offline::{Feeders, Spent, feed_until};
use crate::clock::{now_ns, ns_to_secs};
use crate::lobby::{Roster, gather};
use crate::net::{Net, State};
use crate::run::{Outcome, Run};
use crate::talk::Talk;

/// A broker that has not come back after this long has failed the scenario.
const RESTART_PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks whether the broker listens again.
const RESTART_POLL: Duration = Duration::from_millis(10);
/// Connections to a broker that is dead have ended after this long.
const DEATH_PATIENCE_NS: u64 = 10_000_000_000;

/// Publishes everything, and kills the broker as often as asked for on the way, at even distances of
/// what it has acknowledged.
pub(super) fn feed_and_kill(
    run: &Run,
    net: &mut Net,
    talk: &mut Talk,
    mut feeders: Feeders,
    roster: &Roster<'_>,
    outcome: &mut Outcome,
) -> Result<()> {
    let (total, kills) = (feeders.total(), run.shape.kills as u64);
    let mut spent = Spent::default();
    for step in 1..=kills {
        run.phase("feeding");
        let goal = total * step / (kills + 1);
        spent.add(run, net, |net| feed_until(run, net, talk, &mut feeders, goal))?;
        if run.stopping() {
            break;
        }
        talk.dying = true;
        kill(run)?;
        hear_the_last(run, net, talk, &feeders)?;
        restart(run, outcome)?;
        talk.dying = false;
        gather(run, net, talk, roster, feeders.clients()).context("publishing again")?;
    }
    run.phase("feeding");
    spent.add(run, net, |net| feed_until(run, net, talk, &mut feeders, total))?;
    spent.write(feeders.acknowledged(net), outcome);
    outcome.figures.insert("kills".to_owned(), kills as f64);
    outcome.figures.insert("in_doubt".to_owned(), talk.in_doubt() as f64);
    Ok(())
}

/// Kills the broker and starts it again.
pub(super) fn kill_and_restart(run: &Run, outcome: &mut Outcome) -> Result<()> {
    kill(run)?;
    restart(run, outcome)
}

fn kill(run: &Run) -> Result<()> {
    let Some(lever) = &run.settings.lever else { return Ok(()) };
    run.phase("killing the broker");
    lever.kill().context("killing the broker")
}

/// Reads the acknowledgements that had left the broker when it died.
fn hear_the_last(run: &Run, net: &mut Net, talk: &mut Talk, feeders: &Feeders) -> Result<()> {
    let until = now_ns() + DEATH_PATIENCE_NS;
    while feeders.clients().any(|client| net.state(client) != State::Down) && !run.stopping() {
        if now_ns() > until {
            bail!("the broker keeps its connections: has --kill killed it?");
        }
        net.turn(talk, TURN, None)?;
    }
    Ok(())
}

fn restart(run: &Run, outcome: &mut Outcome) -> Result<()> {
    let Some(lever) = &run.settings.lever else { return Ok(()) };
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
