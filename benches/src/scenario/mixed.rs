//! An evening of chat: 1:1 messages that are answered by receipts, groups, a room, and people who
//! leave and return to what was kept for them. An open loop throughout; `office` is the same without
//! the coming and going.

use std::collections::VecDeque;
use std::ops::Range;

use anyhow::{Context, Result};

use super::{TURN, base, engine, leave, remark, wipe};
use crate::clock::{now_ns, secs_to_ns};
use crate::lobby::{Roster, gather};
use crate::net::{Idle, Net, State};
use crate::run::{Meter, Outcome, Run};
use crate::talk::evening::{Map, Place, evening};
use crate::talk::world::qos;
use crate::talk::{Pace, Talk};

/// Share of the rate that is 1:1 messages; the receipts they cause are as many again.
const INBOX_SHARE: f64 = 4.0 / 9.0;
/// Share of the rate that is said in groups.
const GROUP_SHARE: f64 = 1.0 / 9.0;
/// Messages per second in the room.
const ROOM_RATE: f64 = 10.0;
/// How often live figures are shown.
const CHORES_NS: u64 = 100_000_000;
/// Looks for somebody who can leave before it is given up for this time.
const LEAVE_TRIES: u32 = 20;

/// Plays the evening.
pub(super) fn play(run: &Run) -> Result<Outcome> {
    let shape = &run.shape;
    let (world, map) = evening(shape, run.target.version, &base(run, 0, "/"));
    let filters: Vec<Vec<String>> = (0..map.users).map(|c| world.filters(c)).collect();
    let mut net = engine(run, 0, shape.clients)?;
    let level = qos(shape.qos);
    let roster = Roster {
        name: base(run, 0, "-"),
        first: 0,
        persistent: shape.persistent,
        clean: !shape.persistent,
        filters: &|c| filters[c as usize].iter().map(|f| (f.clone(), level)).collect(),
    };
    let nothing = |_| Vec::new();
    let back = Roster { name: roster.name.clone(), filters: &nothing, ..roster };
    let mut evening = Evening {
        run,
        talk: Talk::new(world, run.tag),
        map,
        back: &back,
        paces: Vec::new(),
        churn: Churn::default(),
    };
    run.phase("connecting");
    let gathered = gather(run, &mut net, &mut evening.talk, &roster, 0..map.users)
        .context("bringing the clients in")?;
    let mut outcome = evening.converse(&mut net)?;
    evening.settle(&mut net)?;
    let Evening { mut talk, churn, .. } = evening;
    outcome.checks = talk.balance();
    if run.interrupted() {
        outcome.checks.lost = 0;
    }
    for sort in talk.sorts.drain(..) {
        outcome.histograms.push((sort.name, sort.latency));
    }
    outcome.histograms.push(("connect", gathered.connect));
    outcome.figures.insert("left_and_returned".to_owned(), churn.left as f64);
    if let Some(why) = &talk.first_loss {
        outcome.notes.push(format!("the first lost connection: {why}"));
    }
    remark(&mut outcome, shape.qos > 0);
    if shape.persistent {
        wipe(run, &mut net, &mut Idle, &back.name, 0..map.users)?;
    } else {
        leave(&mut net, 0..map.users);
    }
    Ok(outcome)
}

/// Who leaves when, and who is away until when.
#[derive(Default)]
struct Churn {
    pace: Option<Pace>,
    away: VecDeque<(u64, u32)>,
    left: u64,
}

struct Evening<'a> {
    run: &'a Run,
    talk: Talk,
    map: Map,
    back: &'a Roster<'a>,
    paces: Vec<Pace>,
    churn: Churn,
}

impl Evening<'_> {
    fn converse(&mut self, net: &mut Net) -> Result<Outcome> {
        let shape = &self.run.shape;
        let (rate, now) = (shape.rate.unwrap_or(1.0), now_ns());
        let channels = |place| self.map.channels(place);
        self.paces = vec![
            Pace::new(rate * INBOX_SHARE, channels(Place::Inbox), now).in_ticks(shape.tick_ms),
            Pace::new(rate * GROUP_SHARE, channels(Place::Group), now).in_ticks(shape.tick_ms),
        ];
        if shape.viewers > 0 {
            self.paces.push(Pace::new(ROOM_RATE, channels(Place::Room), now));
        }
        if shape.churn > 0.0 {
            self.churn.pace = Some(Pace::new(shape.churn, 0..self.map.users, now));
        }
        self.run.phase("warming up");
        self.pump(net, secs_to_ns(shape.warmup_secs))?;
        self.run.phase("measuring");
        self.run.mark_begin();
        let meter = Meter::begin(net.totals());
        self.talk.measure_from(now_ns());
        self.pump(net, secs_to_ns(shape.duration_secs))?;
        let mut outcome = Outcome::default();
        meter.end(net.totals(), &mut outcome);
        self.run.mark_end();
        outcome.work = outcome.delivered;
        let secs = shape.duration_secs.max(1e-3);
        outcome.figures.insert("requests_per_sec".to_owned(), outcome.published as f64 / secs);
        self.run.phase("draining");
        self.talk.close(now_ns());
        Ok(outcome)
    }

    fn pump(&mut self, net: &mut Net, for_ns: u64) -> Result<()> {
        let until = now_ns() + for_ns;
        let mut chores_at = 0;
        loop {
            let now = now_ns();
            if now >= until || self.run.stopping() {
                return Ok(());
            }
            for at in 0..self.paces.len() {
                while self.paces[at].next_ns() <= now {
                    let (due, channel) = self.paces[at].take();
                    self.talk.due(net, channel, due);
                }
            }
            self.come_and_go(net, now);
            if now >= chores_at {
                chores_at = now + CHORES_NS;
                self.run.show(net);
                self.run.show_latencies(&mut self.talk.interval);
            }
            let next = self.paces.iter().map(Pace::next_ns).min().unwrap_or(until).min(until);
            net.turn(&mut self.talk, TURN, Some(next))?;
            self.talk.after_turn(net);
            self.answer(net);
        }
    }

    /// Sends a receipt for every 1:1 message that was heard.
    fn answer(&mut self, net: &mut Net) {
        let mut heard = std::mem::take(&mut self.talk.heard);
        for h in heard.drain(..) {
            let reader = h.client;
            let writer = self.map.friends(reader)[usize::from(h.speaker)];
            let Some(speaker) = self.map.speaker_of(writer, reader) else { continue };
            if net.has_room(reader) {
                let channel = self.map.first(Place::Receipts) + writer;
                self.talk.speak_as(net, channel, speaker, h.at_ns);
            }
        }
        self.talk.heard = heard;
    }

    fn come_and_go(&mut self, net: &mut Net, now: u64) {
        while let Some(pace) = &mut self.churn.pace
            && pace.next_ns() <= now
        {
            let (_, drawn) = pace.take();
            self.somebody_leaves(net, drawn, now);
        }
        while let Some((at, user)) = self.churn.away.front().copied()
            && at <= now
        {
            self.churn.away.pop_front();
            self.back.greet(net, &mut self.talk, &self.run.settings, user);
            self.talk.came_back(user);
        }
    }

    /// Whoever leaves has seen everything settled that was said, and says goodbye to the friends.
    fn somebody_leaves(&mut self, net: &mut Net, drawn: u32, now: u64) {
        for step in 0..LEAVE_TRIES {
            let user = (drawn + step) % self.map.users;
            if net.state(user) != State::Up || net.unsettled(user) > 0 || !net.has_room(user) {
                continue;
            }
            let presence = self.map.first(Place::Presence) + user;
            self.talk.speak_as(net, presence, 0, now);
            net.leave(user);
            self.churn.left += 1;
            let back_at = now + secs_to_ns(self.run.shape.away_secs);
            self.churn.away.push_back((back_at, user));
            return;
        }
    }

    /// Everybody returns, and what was kept arrives.
    fn settle(&mut self, net: &mut Net) -> Result<()> {
        let away: Vec<u32> = self.churn.away.drain(..).map(|(_, user)| user).collect();
        for user in away {
            let one: Range<u32> = user..user + 1;
            gather(self.run, net, &mut self.talk, self.back, one).context("the return")?;
            self.talk.came_back(user);
        }
        let (began, quiet_ns) = (now_ns(), secs_to_ns(self.run.shape.drain_secs));
        while !self.talk.is_settled() && !self.run.stopping() {
            if now_ns() > self.talk.heard_ns.max(began) + quiet_ns {
                break;
            }
            net.turn(&mut self.talk, TURN, None)?;
            self.run.show(net);
        }
        net.turn(&mut self.talk, TURN, None)?;
        Ok(())
    }
}
