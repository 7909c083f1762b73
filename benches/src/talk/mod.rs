//! Users who talk: the one driver behind pairs, groups, rooms and mixtures of them.
//!
//! A *channel* is a topic with members who hear and speakers who talk in turn. Closed loop: every
//! channel keeps a window of messages unfinished, and a message is finished when all members have it
//! and the broker has settled it with the speaker. Open loop: messages fall due at a fixed rate,
//! whatever the broker does, and latency counts from the due time. Owns the books of every delivery;
//! connecting and subscribing are the lobby's.

mod channel;
pub(crate) mod evening;
mod pace;
pub(crate) mod profile;
pub(crate) mod world;

use std::collections::HashMap;

use hdrhistogram::Histogram;
use hoopoe_codec::ReasonCode;

use crate::clock::now_ns;
use crate::ledger::{Checks, Ledger, Verdict};
use crate::net::{Down, Driver, Incoming, Net, State, Token};
use crate::run::{histogram, shown_histogram};
use crate::stamp::{Foreign, Sealer, Stamp};

pub(crate) use channel::{Channel, Flight};
pub(crate) use pace::Pace;
pub(crate) use profile::Profile;
use profile::READ_EVERY;
pub(crate) use world::World;

/// Due messages of a channel that may wait for a speaker with room; beyond it they are not sent.
const MAX_OWED: usize = 10_000;
/// Messages that a channel follows until everybody has them; older ones are only booked.
const MAX_FOLLOWED: usize = 4096;

/// What is measured about one sort of channel (1:1, group, room, …).
pub(crate) struct Sort {
    /// Name in the table.
    pub name: &'static str,
    /// Due time to arrival, every delivery.
    pub latency: Histogram<u64>,
    /// Due time to the last member's arrival; only where there are several.
    pub last: Histogram<u64>,
    /// First to last member's arrival.
    pub spread: Histogram<u64>,
    /// Due time to the acknowledgement, where it says that the message is stored.
    pub settled: Option<Histogram<u64>>,
    /// Deliveries that were not repetitions.
    pub arrivals: u64,
    /// Everything said is owed to every member. Not so where members are away at times and nothing
    /// is kept for them: there only order and doubling can be judged.
    pub owed_to_all: bool,
    /// The driver's owner wants to know of every arrival, to answer it.
    pub answered: bool,
}

/// An arrival that wants an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// Who said it: index into the channel's speakers.
    pub speaker: u16,
    /// Who heard it.
    pub client: u32,
    /// When.
    pub at_ns: u64,
}

/// What of a message is done.
enum Part {
    /// A member has it.
    Heard,
    /// The broker has settled it.
    Settled,
}

impl Sort {
    /// A sort of channel that nothing has been measured of.
    pub(crate) fn new(name: &'static str) -> Sort {
        let [latency, last, spread] = [histogram(), histogram(), histogram()];
        Sort {
            name,
            latency,
            last,
            spread,
            settled: None,
            arrivals: 0,
            owed_to_all: true,
            answered: false,
        }
    }
}

/// One channel that a client hears, with its place in the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed {
    /// Which channel.
    pub channel: u32,
    /// The slot of the channel's first speaker; the others follow.
    pub first_slot: u32,
}

/// The driver.
pub(crate) struct Talk {
    /// What is said where.
    pub channels: Vec<Channel>,
    /// Sorts of channels.
    pub sorts: Vec<Sort>,
    /// What each client hears, ordered by channel.
    pub feeds: Vec<Vec<Feed>>,
    /// The books.
    pub ledger: Ledger,
    /// Latencies since they were last shown.
    pub interval: Histogram<u64>,
    /// Deliveries received that were not repetitions.
    pub received: u64,
    /// Deliveries that all messages sent so far amount to.
    pub owed_deliveries: u64,
    /// Messages that a closed loop stopped waiting for.
    pub abandoned: u64,
    /// Due messages that were never sent because too many were waiting.
    pub unsent: u64,
    /// When something last arrived.
    pub heard_ns: u64,
    /// Arrivals that want an answer; the owner takes them out after every turn.
    pub heard: Vec<Heard>,
    /// The books of the IM profile, where it is spoken.
    pub profile: Option<Profile>,
    /// Why the first connection was lost.
    pub first_loss: Option<String>,
    /// The broker is about to be killed: connections that end are no fault, and what it had not
    /// settled is in doubt.
    pub dying: bool,
    /// Messages that a killed broker may have or not, by channel; of channels with one speaker.
    pub doubts: HashMap<u32, Vec<u32>>,
    sealer: Sealer,
    from_ns: u64,
    to_ns: u64,
    closing: bool,
    /// Channels whose window has opened in this turn.
    ready: Vec<u32>,
}

impl Talk {
    /// A driver for this world, about to begin.
    pub(crate) fn new(world: World, tag: u32) -> Talk {
        Talk {
            channels: world.channels,
            sorts: world.sorts,
            feeds: world.feeds,
            ledger: world.ledger,
            interval: shown_histogram(),
            received: 0,
            owed_deliveries: 0,
            abandoned: 0,
            unsent: 0,
            heard_ns: 0,
            heard: Vec::new(),
            profile: None,
            first_loss: None,
            dying: false,
            doubts: HashMap::new(),
            sealer: Sealer::new(tag),
            from_ns: u64::MAX,
            to_ns: u64::MAX,
            closing: false,
            ready: Vec::new(),
        }
    }

    /// Messages due from now on count in the latencies.
    pub(crate) fn measure_from(&mut self, now_ns: u64) {
        self.from_ns = now_ns;
    }

    /// Messages due after now do not count, and nothing more is said.
    pub(crate) fn close(&mut self, now_ns: u64) {
        self.to_ns = now_ns;
        self.closing = true;
    }

    /// Nothing that was said is still under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.received >= self.owed_deliveries
    }

    /// Closed loop: opens every channel's window.
    pub(crate) fn fill_windows(&mut self, net: &mut Net) {
        for channel in 0..self.channels.len() as u32 {
            self.refill(net, channel, now_ns());
        }
    }

    /// Says what the windows allow after the arrivals of this turn.
    pub(crate) fn after_turn(&mut self, net: &mut Net) {
        if self.ready.is_empty() {
            return;
        }
        let now = now_ns();
        let mut ready = std::mem::take(&mut self.ready);
        for channel in ready.drain(..) {
            self.channels[channel as usize].queued = false;
            if !self.channels[channel as usize].owed.is_empty() {
                self.pay(net, channel);
            }
            self.refill(net, channel, now);
        }
        self.ready = ready;
    }

    fn refill(&mut self, net: &mut Net, channel: u32, now: u64) {
        while !self.closing && self.channels[channel as usize].wants_more() {
            if !self.speak(net, channel, now) {
                break;
            }
        }
    }

    /// Open loop: a message of this channel was due at `due_ns`.
    pub(crate) fn due(&mut self, net: &mut Net, channel: u32, due_ns: u64) {
        if self.channels[channel as usize].owed.is_empty() && self.speak(net, channel, due_ns) {
            return;
        }
        let owed = &mut self.channels[channel as usize].owed;
        if owed.len() < MAX_OWED {
            owed.push_back(due_ns);
        } else {
            self.unsent += 1;
        }
        self.pay(net, channel);
    }

    /// Says what fell due while no speaker had room.
    pub(crate) fn pay(&mut self, net: &mut Net, channel: u32) {
        while let Some(due) = self.channels[channel as usize].owed.front().copied() {
            if !self.speak(net, channel, due) {
                break;
            }
            self.channels[channel as usize].owed.pop_front();
        }
    }

    /// Lets the next speaker with room say one message; false when nobody has any.
    pub(crate) fn speak(&mut self, net: &mut Net, channel: u32, due_ns: u64) -> bool {
        let c = &mut self.channels[channel as usize];
        let Some(speaker) = c.next_speaker(|client| net.has_room(client)) else { return false };
        self.speak_as(net, channel, speaker, due_ns);
        true
    }

    /// Lets this speaker, who is known to have room, say one message.
    pub(crate) fn speak_as(&mut self, net: &mut Net, channel: u32, speaker: usize, due_ns: u64) {
        let c = &mut self.channels[channel as usize];
        let client = c.speakers[speaker];
        if c.silent {
            net.publish_empty(client, &c.template, Token { channel, number: 0 });
            return;
        }
        let number = c.take_number();
        let stamp = Stamp {
            run: self.sealer.run(),
            channel,
            number,
            speaker: speaker as u16,
            seq: c.sent[speaker],
            due_ns,
        };
        c.sent[speaker] += 1;
        let parts = c.members + u32::from(c.settles);
        c.follow(Flight { remaining: parts, due_ns, first_ns: 0, heard: 0 });
        if self.sorts[c.sort as usize].owed_to_all {
            self.owed_deliveries += u64::from(c.members);
        }
        let token = Token { channel, number };
        net.publish(client, &c.template, token, &self.sealer, &stamp);
    }

    /// A client has been away from channels where nothing was kept for it.
    pub(crate) fn came_back(&mut self, client: u32) {
        for feed in &self.feeds[client as usize] {
            let c = &self.channels[feed.channel as usize];
            if !self.sorts[c.sort as usize].owed_to_all {
                for speaker in 0..c.speakers.len() as u32 {
                    self.ledger.begin_anew(feed.first_slot + speaker);
                }
            }
        }
    }

    /// One part of a message (a delivery or the settling) is done.
    #[inline]
    fn part_done(&mut self, channel: u32, number: u32, at: u64, part: Part) {
        let c = &mut self.channels[channel as usize];
        let (sort, members) = (&mut self.sorts[c.sort as usize], c.members);
        let Some(flight) = c.flight(number) else { return };
        flight.remaining = flight.remaining.saturating_sub(1);
        let done = flight.remaining == 0;
        let measured = flight.due_ns >= self.from_ns && flight.due_ns < self.to_ns;
        match part {
            Part::Heard => {
                flight.heard += 1;
                if flight.heard == 1 {
                    flight.first_ns = at;
                }
                if flight.heard == members && members > 1 && measured {
                    sort.last.saturating_record(at.saturating_sub(flight.due_ns));
                    sort.spread.saturating_record(at.saturating_sub(flight.first_ns));
                }
            }
            Part::Settled => {
                if let Some(settled) = sort.settled.as_mut().filter(|_| measured) {
                    settled.saturating_record(at.saturating_sub(flight.due_ns));
                }
            }
        }
        if done {
            c.finish(number);
            self.make_ready(channel);
        }
    }

    #[inline]
    fn make_ready(&mut self, channel: u32) {
        let c = &mut self.channels[channel as usize];
        if !c.queued {
            c.queued = true;
            self.ready.push(channel);
        }
    }

    /// Closed loop: stops waiting for messages due before `before_ns`, so that a loss does not end
    /// the conversation. The ledger knows of the loss all the same.
    pub(crate) fn abandon_before(&mut self, before_ns: u64) {
        for channel in 0..self.channels.len() {
            let abandoned = self.channels[channel].abandon_before(before_ns);
            if abandoned > 0 {
                self.abandoned += u64::from(abandoned);
                self.make_ready(channel as u32);
            }
        }
    }

    /// Slots in the ledger.
    pub(crate) fn slots(&self) -> usize {
        self.ledger.slots()
    }

    /// How many positions in conversations a receiver passed over beyond what it said itself.
    pub(crate) fn passed_over(&self) -> u64 {
        let Some(profile) = &self.profile else { return 0 };
        let mut said = vec![0u64; self.feeds.len()];
        for c in &self.channels {
            for (speaker, sent) in c.speakers.iter().zip(&c.sent) {
                said[*speaker as usize] += u64::from(*sent);
            }
        }
        let mut sum = 0;
        for (client, feeds) in self.feeds.iter().enumerate() {
            for feed in feeds {
                let c = &self.channels[feed.channel as usize];
                let own = c.speakers.iter().position(|speaker| *speaker as usize == client);
                let own = own.map_or(said[client], |speaker| u64::from(c.sent[speaker]));
                sum += profile.passed_over(feed.first_slot).saturating_sub(own);
            }
        }
        sum
    }

    /// Messages in doubt that have not arrived at this slot.
    fn excused(&self, channel: u32, slot: u32) -> u64 {
        let doubts = self.doubts.get(&channel).map_or(&[][..], Vec::as_slice);
        doubts.iter().filter(|seq| !self.ledger.has(slot, **seq)).count() as u64
    }

    /// Messages that a killed broker may have or not.
    pub(crate) fn in_doubt(&self) -> u64 {
        self.doubts.values().map(|seqs| seqs.len() as u64).sum()
    }

    /// Closes the books: compares what was said with what was heard.
    pub(crate) fn balance(&mut self) -> Checks {
        let mut checks = self.ledger.checks;
        if let Some(profile) = &self.profile {
            checks.out_of_order += profile.out_of_order();
            checks.refused += profile.errors;
        }
        for (client, feeds) in self.feeds.iter().enumerate() {
            for feed in feeds {
                let c = &self.channels[feed.channel as usize];
                if !self.sorts[c.sort as usize].owed_to_all {
                    continue;
                }
                for (speaker, sent) in c.sent.iter().enumerate() {
                    if !c.echo && c.speakers[speaker] as usize == client {
                        continue;
                    }
                    let slot = feed.first_slot + speaker as u32;
                    let excused = self.excused(feed.channel, slot);
                    checks.expected += u64::from(*sent) - excused;
                    checks.lost += self.ledger.missing(slot, *sent) - excused;
                }
            }
        }
        checks
    }
}

impl Driver for Talk {
    #[inline]
    fn on_message(&mut self, net: &mut Net, client: u32, message: &Incoming<'_>) {
        let position = match &mut self.profile {
            None => 0,
            Some(profile) => match profile.sort(client, message) {
                Some(position) => position,
                None => return,
            },
        };
        let stamp = match self.sealer.read(message.payload) {
            Ok(stamp) => stamp,
            Err(Foreign::Stranger) => {
                self.ledger.checks.strangers += 1;
                return;
            }
            Err(Foreign::Damaged) => {
                self.ledger.checks.damaged += 1;
                return;
            }
        };
        let feeds = self.feeds.get(client as usize).map_or(&[][..], Vec::as_slice);
        let feed = match feeds {
            [one] if one.channel == stamp.channel => Some(one),
            many if many.len() <= 8 => many.iter().find(|f| f.channel == stamp.channel),
            many => {
                many.binary_search_by_key(&stamp.channel, |f| f.channel).ok().map(|at| &many[at])
            }
        };
        let Some(feed) = feed else {
            self.ledger.checks.misrouted += 1;
            return;
        };
        let c = &self.channels[stamp.channel as usize];
        if usize::from(stamp.speaker) >= c.speakers.len() {
            self.ledger.checks.damaged += 1;
            return;
        }
        let sort = c.sort as usize;
        let slot = feed.first_slot + u32::from(stamp.speaker);
        self.heard_ns = message.at_ns;
        if self.ledger.note(slot, stamp.seq, message.dup) == Verdict::Again {
            return;
        }
        if let Some(profile) = &mut self.profile {
            profile.note(feed.first_slot, position);
            if profile.reads && position.is_multiple_of(READ_EVERY) {
                profile::read(net, client, message.topic, position);
            }
        }
        let kind = &mut self.sorts[sort];
        kind.arrivals += 1;
        self.received += u64::from(kind.owed_to_all);
        if kind.answered && !self.closing {
            self.heard.push(Heard { speaker: stamp.speaker, client, at_ns: message.at_ns });
        }
        if stamp.due_ns >= self.from_ns && stamp.due_ns < self.to_ns {
            let latency = message.at_ns.saturating_sub(stamp.due_ns);
            self.sorts[sort].latency.saturating_record(latency);
            self.interval.saturating_record(latency);
        }
        self.part_done(stamp.channel, stamp.number, message.at_ns, Part::Heard);
    }

    #[inline]
    fn on_settled(&mut self, net: &mut Net, _client: u32, token: Token, code: ReasonCode) {
        if code.is_error() {
            self.ledger.checks.refused += 1;
        }
        self.part_done(token.channel, token.number, net.read_ns(), Part::Settled);
        if !self.channels[token.channel as usize].owed.is_empty() {
            self.make_ready(token.channel);
        }
    }

    fn on_unsettled(&mut self, _net: &mut Net, _client: u32, token: Token) {
        if !self.dying {
            return;
        }
        let c = &self.channels[token.channel as usize];
        debug_assert_eq!(c.speakers.len(), 1, "the number is the speaker's sequence number");
        self.owed_deliveries -= u64::from(c.members);
        self.doubts.entry(token.channel).or_default().push(token.number);
    }

    fn on_down(&mut self, net: &mut Net, client: u32, why: Down) {
        if self.dying {
            return;
        }
        debug_assert_eq!(net.state(client), State::Down);
        self.ledger.checks.disconnects += 1;
        self.first_loss.get_or_insert_with(|| why.to_string());
    }
}
