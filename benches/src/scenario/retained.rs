//! Retained: many topics hold a message, one subscriber asks for all of them.

use anyhow::{Context, Result, bail};
use hoopoe_codec::QoS;

use super::{TURN, base, engine, leave, remark};
use crate::clock::{now_ns, ns_to_secs, secs_to_ns};
use crate::lobby::{Roster, gather};
use crate::net::{Idle, Net, Template, Token};
use crate::run::{Meter, Outcome, Run};
use crate::talk::world::{Plan, World, qos};
use crate::talk::{Sort, Talk};

/// Publishing in which nothing was acknowledged for this long is given up.
const PATIENCE_NS: u64 = 30_000_000_000;

/// Fills the topics, subscribes once with a wildcard, counts what comes, clears the topics.
pub(super) fn play(run: &Run) -> Result<Outcome> {
    let publishers = run.shape.publishers as u32;
    let base_topic = base(run, 0, "/");
    let world = topics(run, &base_topic);
    let names = world.topics.clone();
    let mut talk = Talk::new(world, run.tag);
    let mut net = engine(run, 0, publishers as usize + 1)?;
    let wildcard = |_| vec![(format!("{base_topic}/#"), qos(run.shape.qos))];
    let roster = Roster {
        name: base(run, 0, "-"),
        first: 0,
        persistent: false,
        clean: true,
        filters: &|_| Vec::new(),
    };
    let mut outcome = Outcome::default();
    gather(run, &mut net, &mut talk, &roster, 1..publishers + 1)?;
    run.phase("publishing");
    let began = now_ns();
    let (count, speaker) = (run.shape.messages as u32, |topic| 1 + topic % publishers);
    publish_all(run, &mut net, count, speaker, |net, topic| {
        talk.speak(net, topic, now_ns()).then_some(())
    })?;
    outcome.figures.insert("publish_secs".to_owned(), ns_to_secs(now_ns() - began));

    run.phase("fetching");
    let subscriber = Roster { filters: &wildcard, ..roster };
    run.mark_begin();
    let meter = Meter::begin(net.totals());
    let began = now_ns();
    talk.heard_ns = began;
    gather(run, &mut net, &mut talk, &subscriber, 0..1).context("the subscriber")?;
    let quiet_ns = secs_to_ns(run.shape.drain_secs);
    while !talk.is_settled() && !run.stopping() && now_ns() < talk.heard_ns + quiet_ns {
        net.turn(&mut talk, TURN, None)?;
        run.show(&net);
    }
    meter.end(net.totals(), &mut outcome);
    run.mark_end();
    net.turn(&mut talk, TURN, None)?;
    outcome.work = talk.received;
    let secs = ns_to_secs(talk.heard_ns - began);
    outcome.figures.insert("fetch_secs".to_owned(), secs);
    outcome.checks = talk.balance();
    if run.interrupted() {
        outcome.checks.lost = 0;
    }
    remark(&mut outcome, run.shape.qos > 0);
    net.leave(0);
    clear(run, &mut net, &names, speaker)?;
    leave(&mut net, 0..publishers + 1);
    Ok(outcome)
}

/// Clears the topics, unless they are to be kept.
pub(super) fn clear(
    run: &Run,
    net: &mut Net,
    names: &[String],
    publisher: impl Fn(u32) -> u32,
) -> Result<()> {
    if run.settings.keep || run.stopping() {
        return Ok(());
    }
    run.phase("clearing");
    let template =
        |name: &String| Template::new(run.target.version, name, QoS::AtLeastOnce, true, 0);
    let none: Vec<Template> = names.iter().map(template).collect();
    publish_all(run, net, names.len() as u32, &publisher, |net, topic| {
        let (client, token) = (publisher(topic), Token { channel: topic, number: 0 });
        net.has_room(client).then(|| net.publish_empty(client, &none[topic as usize], token))
    })
}

/// One channel per topic; client 0 hears all, the others speak.
fn topics(run: &Run, base: &str) -> World {
    let publishers = run.shape.publishers as u32;
    let mut world = World::empty(publishers as usize + 1, vec![Sort::new("retained")]);
    for topic in 0..run.shape.messages as u32 {
        let (name, speaker) = (format!("{base}/r/{topic}"), 1 + topic % publishers);
        let plan = Plan::new(&run.shape, name, vec![0], vec![speaker]);
        world.add(run.target.version, Plan { qos: QoS::AtLeastOnce, retain: true, ..plan });
    }
    world
}

/// Publishes once to every topic, with a window per publisher, until all are acknowledged.
pub(super) fn publish_all(
    run: &Run,
    net: &mut Net,
    total: u32,
    publisher: impl Fn(u32) -> u32,
    mut publish: impl FnMut(&mut Net, u32) -> Option<()>,
) -> Result<()> {
    let before = net.totals().settled;
    let mut next = 0;
    let mut last = (0, now_ns());
    loop {
        let settled = net.totals().settled - before;
        if settled >= u64::from(total) || run.stopping() {
            return Ok(());
        }
        if settled > last.0 {
            last = (settled, now_ns());
        } else if now_ns() > last.1 + PATIENCE_NS {
            bail!("{settled} of {total} retained messages were acknowledged, then none for 30 s");
        }
        while next < total
            && net.unsettled(publisher(next)) < run.shape.window as usize
            && publish(net, next).is_some()
        {
            next += 1;
        }
        net.turn(&mut Idle, TURN, None)?;
        run.show(net);
    }
}
