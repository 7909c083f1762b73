//! Login with the IM profile: users with many conversations were away, messages came in some of them,
//! and all return at once. What counts is how soon each has the first message, and all of them.

use std::time::Duration;

use anyhow::{Context, Result};

use super::connect::rest;
use super::im::{conclude, keep_books};
use super::login::{Arrivals, come_back, say_goodbye};
use super::offline::{Feeders, feed};
use super::talk::settle;
use super::{base, engine, leave};
use crate::lobby::{Roster, gather};
use crate::run::{Outcome, Run};
use crate::talk::world::{Plan, World};
use crate::talk::{Sort, Talk};

/// Rest between what is said to those who are away and their return: a slow machine takes four
/// seconds over what comes after the messages (cursors and receipts of 100,000 conversations).
const REST: Duration = Duration::from_secs(8);

/// Plays the return.
pub(super) fn play(run: &Run) -> Result<Outcome> {
    let shape = &run.shape;
    let (users, peers) = (shape.clients as u32, shape.subscriptions as u32);
    let name = base(run, 0, "-");
    let mut net = engine(run, 0, (users + peers) as usize)?;
    let nothing = |_| Vec::new();
    let speakers =
        Roster { name: name.clone(), first: 0, persistent: false, clean: true, filters: &nothing };
    let readers = Roster { name, persistent: true, clean: false, ..speakers };
    let mut outcome = Outcome::default();
    let mut old = Talk::new(conversations(run, &readers.name, shape.subscriptions), run.tag);
    keep_books(run, &mut old);
    run.phase("first visit");
    gather(run, &mut net, &mut old, &readers, 0..users).context("the first visit")?;
    gather(run, &mut net, &mut old, &speakers, users..users + peers)?;
    let feeders = Feeders::new(&old, &net, users, peers, 1);
    feed(run, &mut net, &mut old, feeders, &mut outcome)?;
    settle(run, &mut net, &mut old)?;
    let visit = old.balance();
    if visit.lost > 0 && !run.interrupted() {
        outcome.faults.push(format!("{} messages of the first visit did not come", visit.lost));
    }
    leave(&mut net, 0..users);

    // A tag of its own: a message of the first visit that comes late is not taken for one of these.
    let tag = run.tag.wrapping_add(1);
    let mut news = Talk::new(conversations(run, &readers.name, shape.news), tag);
    keep_books(run, &mut news);
    let mut arrivals = Arrivals::new(run, news);
    let feeders = Feeders::new(&arrivals.talk, &net, users, peers, shape.messages / shape.news);
    feed(run, &mut net, &mut arrivals.talk, feeders, &mut outcome)?;
    leave(&mut net, users..users + peers);
    // What a broker puts off for a second is not to be charged to the logins.
    rest(run, &mut net, &mut arrivals.talk, REST)?;
    come_back(run, &mut net, &mut arrivals, &readers, &mut outcome)?;
    outcome.checks = arrivals.talk.balance();
    if visit.lost == 0 && outcome.checks.strangers > 0 {
        let strangers = outcome.checks.strangers;
        outcome.faults.push(format!("{strangers} messages of the first visit came again"));
    }
    conclude(run, &arrivals.talk, &mut outcome);
    say_goodbye(run, &mut net, arrivals, &readers.name, &mut outcome)?;
    Ok(outcome)
}

/// What the first `count` peers, evenly spread over all, say to every user.
fn conversations(run: &Run, base: &str, count: usize) -> World {
    let shape = &run.shape;
    let (users, peers) = (shape.clients as u32, shape.subscriptions as u32);
    let mut world = World::empty((users + peers) as usize, vec![Sort::new("waiting")]);
    let stride = shape.subscriptions / count;
    for user in 0..users {
        for n in 0..count {
            let (topic, peer) = (format!("im/u/{base}-{user}/msg"), users + (n * stride) as u32);
            let plan = Plan::new(shape, topic, vec![user], vec![peer]);
            world.add(run.target.version, Plan { echo: false, ..plan });
        }
    }
    world
}
