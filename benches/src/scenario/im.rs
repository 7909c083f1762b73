//! What the IM scenarios share: groups made by calls, rooms entered, and what the profile's books say
//! in the end.

use anyhow::{Result, bail};
use serde_json::json;

use super::TURN;
use crate::clock::{now_ns, secs_to_ns};
use crate::net::Net;
use crate::run::{Outcome, Run};
use crate::shape::{Kind, Shape};
use crate::talk::profile::Answer;
use crate::talk::{Profile, Talk, World};

/// Members in one call: its body stays far below the 64 KiB of a payload.
const MEMBERS_PER_CALL: usize = 500;
/// A call that has had no answer after this long ends the run.
const PATIENCE_NS: u64 = 60_000_000_000;

/// What a client subscribes to: the inbox needs nothing, a room everything in it, also for those who
/// will not read it.
pub(super) fn filters(shape: &Shape, world: &World, client: u32) -> Vec<String> {
    match shape.kind {
        Kind::ImPairs | Kind::ImGroup => Vec::new(),
        // It subscribes when it fetches.
        Kind::Pairs if client as usize == 2 * shape.pairs => Vec::new(),
        Kind::Room if client as usize >= shape.clients + shape.speakers => {
            vec![world.topics[0].clone()]
        }
        Kind::ImRoom => {
            let topic = world.topics[0].trim_end_matches("msg/chat");
            vec![format!("{topic}#")]
        }
        _ => world.filters(client),
    }
}

/// Gives the driver the profile's books, where the profile is spoken.
pub(super) fn keep_books(run: &Run, talk: &mut Talk) {
    if !run.shape.kind.is_im() {
        return;
    }
    let slots = talk.slots();
    let mut profile = Profile::new(run.target.version, slots, talk.feeds.len());
    profile.reads = run.shape.kind == Kind::ImPairs;
    talk.profile = Some(profile);
}

/// Waits until everybody has been told where their conversations stand. A send says that its user has
/// what came before it (ruling 22): whoever speaks sooner has what the others say meanwhile in its
/// history, and not pushed.
pub(super) fn await_hellos(run: &Run, net: &mut Net, talk: &mut Talk) -> Result<()> {
    let clients = talk.feeds.len() as u64;
    let until = now_ns() + secs_to_ns(run.shape.drain_secs);
    // A broker that greets nobody fails by what it does not deliver.
    while talk.profile.as_ref().is_some_and(|profile| profile.hellos < clients)
        && now_ns() < until
        && !run.stopping()
    {
        net.turn(talk, TURN, Some(until))?;
    }
    Ok(())
}

/// Makes every group: its first speaker owns it, members are added in portions.
pub(super) fn create_groups(run: &Run, net: &mut Net, talk: &mut Talk, name: &str) -> Result<()> {
    run.phase("making groups");
    let mut asked = 0;
    for group in 0..talk.channels.len() as u32 {
        let owner = talk.channels[group as usize].speakers[0];
        let online = (0..talk.feeds.len() as u32)
            .filter(|c| talk.feeds[*c as usize].iter().any(|feed| feed.channel == group));
        let absent = (0..run.shape.absent).map(|n| format!("{name}-a{n}"));
        let members: Vec<String> =
            online.map(|client| format!("{name}-{client}")).chain(absent).collect();
        let id = format!("{name}-g{group}");
        for (part, users) in members.chunks(MEMBERS_PER_CALL).enumerate() {
            let (operation, body) = match part {
                0 => ("create", json!({ "group": id, "name": id, "members": users })),
                _ => ("invite", json!({ "group": id, "users": users })),
            };
            let topic = format!("im/svc/group/{operation}/g{group}.{part}");
            net.publish_text(owner, &topic, body.to_string().as_bytes());
            asked += 1;
            // One call under way per group: a portion is for a group that is there.
            if part == 0 || asked % 8 == 0 {
                await_answers(run, net, talk, &mut asked)?;
            }
        }
    }
    await_answers(run, net, talk, &mut asked)
}

/// Waits for the answers to all that was asked; they must be good.
fn await_answers(run: &Run, net: &mut Net, talk: &mut Talk, asked: &mut usize) -> Result<()> {
    let until = now_ns() + PATIENCE_NS;
    while *asked > 0 && !run.stopping() {
        if now_ns() > until {
            bail!("{asked} calls of the service group had no answer: does the broker speak im/?");
        }
        net.turn(talk, TURN, None)?;
        for answer in take_answers(talk) {
            if answer.status != "ok" {
                bail!("group: {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            }
            *asked -= 1;
        }
    }
    Ok(())
}

/// The answers that have come since the last time.
pub(super) fn take_answers(talk: &mut Talk) -> Vec<Answer> {
    talk.profile.as_mut().map(|profile| std::mem::take(&mut profile.answers)).unwrap_or_default()
}

/// What the profile's books say.
pub(super) fn conclude(run: &Run, talk: &Talk, outcome: &mut Outcome) {
    let Some(profile) = &talk.profile else { return };
    let passed_over = talk.passed_over();
    // A room gives samples to whom it has too much for, and what was under way is not lost.
    let must_be_whole = run.shape.kind != Kind::ImRoom && !run.interrupted();
    if must_be_whole && passed_over > 0 {
        outcome.faults.push(format!(
            "{passed_over} positions of conversations were passed over (im-seq of the envelopes)"
        ));
    }
    if must_be_whole && profile.gaps > 0 {
        outcome.faults.push(format!("{} gap notices: not everything was pushed", profile.gaps));
    }
    for (name, count) in [("receipts", profile.receipts), ("likes_heard", profile.likes)] {
        if count > 0 {
            outcome.figures.insert(name.to_owned(), count as f64);
        }
    }
}
