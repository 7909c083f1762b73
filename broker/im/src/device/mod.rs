//! One connected device: how far it has come in each conversation, and what it gets next
//! (ruling 7: live only if it is next, else read by cursor; one rule for everything).
//!
//! The step knows positions only. Entries are read by others and handed to the connection, whose
//! window decides when there is room; a message that is not sent yet is a position here, never
//! bytes, so that a recall reaches it (ruling 24).
//!
//! Deliberately not here: sockets, packet identifiers, encoding.

mod attention;
mod background;
mod budget;
mod quiet;
mod start;

use std::collections::{BTreeMap, VecDeque};

use foldhash::HashMap;

use hoopoe_core::seldom::Seldom;

use crate::id::{ConvKey, ConvKind};
use crate::rows::{Interval, Intervals, since};

use quiet::Quiet;

pub use attention::{Arrival, Attention, Verdict};
pub use start::{Start, Starts};

/// A conversation as a device follows it.
#[derive(Debug)]
struct Stream {
    conv: ConvKey,
    /// Everything up to here is acknowledged, passed or not to be seen.
    acked: u64,
    /// What moves the user's `recv`.
    recv: u64,
    /// The next entry to send.
    next: u64,
    /// The last entry there is, as far as known.
    head: u64,
    /// The last entry that may be sent: in the background, groups wait behind it.
    allowed: u64,
    /// When the user may see what.
    intervals: Intervals,
    /// The version of the membership that says so.
    version: u64,
    /// It stands in the queue of streams that are behind, or is being read.
    queued: bool,
    /// Its acknowledgements have not been reported.
    moved: bool,
}

/// What a live entry means for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Live {
    /// Send it now.
    Send {
        /// The stream it belongs to.
        stream: u32,
    },
    /// It is not to be sent, or not now.
    Nothing,
}

/// What is left out of a replay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The conversation.
    pub conv: ConvKey,
    /// First entry left out.
    pub from: u64,
    /// Last entry left out.
    pub to: u64,
}

/// What is to be read for a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// The stream.
    pub stream: u32,
    /// The conversation.
    pub conv: ConvKey,
    /// First entry.
    pub from: u64,
    /// Last entry.
    pub to: u64,
}

/// Heads noted before their conversations are known; beyond it the oldest knowledge is asked for anew.
const MOST_EARLY: usize = 4_096;

/// What was heard of a conversation before the list arrived, or before the list says that the user
/// is there.
#[derive(Debug, Default)]
struct Early {
    /// The last entry.
    head: u64,
    /// What the list says since.
    listed: Option<Start>,
}

impl Early {
    /// Where the device stands by what the list said when it was read.
    fn amend(self, start: &mut Start) {
        start.head = start.head.max(self.head);
        if let Some(listed) = self.listed.filter(|listed| listed.version > start.version) {
            (start.intervals, start.version) = (listed.intervals, listed.version);
        }
    }
}

/// A connected device of a user. Most are idle, and have nothing but what is quiet.
#[derive(Debug, Default)]
pub struct Device {
    streams: Seldom<Vec<Stream>>,
    by_conv: Option<Box<HashMap<ConvKey, u32>>>,
    /// Conversations that have had nothing for it since it connected.
    quiet: Quiet,
    /// The list has not arrived.
    loading: bool,
    /// Conversations heard of that are not known yet.
    early: Seldom<BTreeMap<ConvKey, Early>>,
    /// Streams with entries to read, in turn.
    behind: Seldom<VecDeque<u32>>,
    /// Streams that are being read.
    reading: Seldom<Vec<u32>>,
    /// Streams with acknowledgements to report.
    moved: Seldom<Vec<u32>>,
    /// What was passed beyond the budget and is not named yet.
    passed: Seldom<Vec<Gap>>,
    /// Whether the app is looked at.
    attention: Attention,
}

impl Device {
    /// A device whose conversations are being read.
    pub fn new() -> Device {
        Device { loading: true, ..Device::default() }
    }

    /// True until the list has arrived.
    pub fn is_loading(&self) -> bool {
        self.loading
    }

    /// The user's conversations: delivery begins. At most `replay_max` entries of each are
    /// replayed; the gaps name the rest, and are passed.
    pub fn load(&mut self, mut starts: Starts, replay_max: u64) -> Vec<Gap> {
        let (mut gaps, mut groups) = (Vec::new(), Vec::new());
        self.loading = false;
        let mut early = std::mem::take(&mut self.early);
        let open = starts.take_open();
        self.make_room(open.iter().filter(|start| !start.is_quiet()).count());
        for mut start in open {
            if let Some(heard) = early.if_made().and_then(|early| early.remove(&start.conv)) {
                heard.amend(&mut start);
            }
            if !start.is_quiet() {
                gaps.extend(self.follow(start, replay_max));
                continue;
            }
            starts.rest(&start);
            if start.conv.kind() != ConvKind::User {
                groups.push(start.conv);
            }
        }
        self.quiet = starts.into_quiet(groups);
        for (conv, mut heard) in early {
            if let Some(mut start) = self.quiet.start(&conv) {
                heard.amend(&mut start);
                if !start.is_quiet() {
                    gaps.extend(self.follow(start, replay_max));
                }
                continue;
            }
            match heard.listed.take() {
                Some(mut listed) => {
                    heard.amend(&mut listed);
                    gaps.extend(self.follow(listed, replay_max));
                }
                None if conv.kind() == ConvKind::User => {
                    gaps.extend(self.follow(new_pair(conv, heard.head), replay_max));
                }
                // The list is about to say since when the user is there.
                None => _ = self.early.insert(conv, heard),
            }
        }
        gaps
    }

    /// The stream of a conversation, if it is one of the device's.
    fn stream_of(&mut self, conv: &ConvKey) -> Option<u32> {
        if let Some(at) = self.followed(conv) {
            return Some(at);
        }
        let start = self.quiet.start(conv)?;
        self.follow(start, u64::MAX);
        Some((self.streams.len() - 1) as u32)
    }

    /// The stream of a conversation that has one.
    fn followed(&self, conv: &ConvKey) -> Option<u32> {
        self.by_conv.as_ref()?.get(conv).copied()
    }

    /// Room for so many more streams.
    fn make_room(&mut self, streams: usize) {
        if streams > 0 {
            self.streams.reserve_exact(streams);
            self.by_conv.get_or_insert_default().reserve(streams);
        }
    }

    fn follow(&mut self, start: Start, replay_max: u64) -> Option<Gap> {
        let Start { conv, cursor, head, intervals, version } = start;
        let end = intervals.last().and_then(|interval| interval.until).unwrap_or(u64::MAX);
        let (mut next, last) = (cursor + 1, head.min(end));
        let mut gap = None;
        if last >= next && last - next >= replay_max {
            let to = last - replay_max;
            gap = Some(Gap { conv: conv.clone(), from: next, to });
            next = to + 1;
        }
        let allowed = self.allowed_at_first(&conv);
        let at = self.streams.len() as u32;
        self.by_conv.get_or_insert_default().insert(conv.clone(), at);
        self.streams.push(Stream {
            conv,
            acked: next - 1,
            recv: 0,
            next,
            head: head.max(cursor),
            allowed,
            intervals,
            version,
            queued: false,
            moved: false,
        });
        if gap.is_some() {
            // A gap moves the device's cursor at once (ruling 21).
            self.note_moved(at);
        }
        self.queue_if_behind(at);
        gap
    }

    /// The list says something new about a conversation. Several may read it for the device: older
    /// news that come late say nothing about the membership.
    pub fn listed(&mut self, mut start: Start, replay_max: u64) -> Option<Gap> {
        if self.loading {
            // The list that is on its way may be older.
            let heard = self.early.entry(start.conv.clone()).or_default();
            heard.head = heard.head.max(start.head);
            if heard.listed.as_ref().is_none_or(|listed| listed.version <= start.version) {
                heard.listed = Some(start);
            }
            return None;
        }
        if let Some(heard) = self.early.if_made().and_then(|early| early.remove(&start.conv)) {
            heard.amend(&mut start);
        }
        match self.stream_of(&start.conv) {
            Some(at) => {
                let stream = &mut self.streams[at as usize];
                // Where the user is with other devices is not where this one is: it goes on at
                // its own cursor, and what it may not see is passed when it is to be read.
                if start.version >= stream.version {
                    (stream.intervals, stream.version) = (start.intervals, start.version);
                }
                self.raise(at, start.head);
                None
            }
            None => self.follow(start, replay_max),
        }
    }

    /// Everything up to `through` is passed: the user has cleared the conversation.
    pub fn skip(&mut self, conv: &ConvKey, through: u64) {
        if let Some(at) = self.stream_of(conv) {
            let stream = &mut self.streams[at as usize];
            if through >= stream.next {
                stream.next = through + 1;
                stream.head = stream.head.max(through);
                stream.acked = stream.acked.max(through);
                self.note_moved(at);
            }
        }
    }

    /// A committed entry. `room`: it could be sent now. `own`: this very device has sent it.
    pub fn live(&mut self, conv: &ConvKey, seq: u64, room: bool, own: bool) -> Live {
        if self.loading {
            self.note_early(conv, seq);
            return Live::Nothing;
        }
        let at = match self.stream_of(conv) {
            Some(at) => at,
            None if conv.kind() == ConvKind::User => {
                // A pair that is new to the user.
                self.follow(new_pair(conv.clone(), 0), u64::MAX);
                (self.streams.len() - 1) as u32
            }
            None => {
                // The list is about to say since when the user is there.
                self.note_early(conv, seq);
                return Live::Nothing;
            }
        };
        let stream = &mut self.streams[at as usize];
        stream.head = stream.head.max(seq);
        if seq != stream.next || stream.queued {
            self.queue_if_behind(at);
            return Live::Nothing;
        }
        if !visible(&stream.intervals, seq) {
            self.queue_if_behind(at);
            return Live::Nothing;
        }
        if own {
            stream.next += 1;
            self.pass(at, seq);
            return Live::Nothing;
        }
        if !room {
            self.queue_if_behind(at);
            return Live::Nothing;
        }
        stream.next += 1;
        Live::Send { stream: at }
    }

    /// What is to be read next, of one conversation after the other, when nothing is being read: at
    /// most so many entries.
    pub fn next_reads(&mut self, most: u64) -> Vec<Read> {
        let (mut reads, mut left) = (Vec::new(), most);
        if !self.reading.is_empty() {
            return reads;
        }
        while left > 0
            && let Some(read) = self.next_read(left)
        {
            left -= read.to - read.from + 1;
            reads.push(read);
        }
        self.reading = reads.iter().map(|read| read.stream).collect::<Vec<_>>().into();
        reads
    }

    fn next_read(&mut self, most: u64) -> Option<Read> {
        while let Some(at) = self.behind.if_made().and_then(VecDeque::pop_front) {
            let stream = &mut self.streams[at as usize];
            // What may not be seen is passed.
            if let Some(from) = next_visible(&stream.intervals, stream.next) {
                if from > stream.next {
                    let passed = (from - 1).min(stream.head);
                    if stream.acked + 1 == stream.next {
                        stream.acked = stream.acked.max(passed);
                    }
                    stream.next = from;
                }
                let until = interval_end(&stream.intervals, from).min(stream.last_to_send());
                if from <= until {
                    let to = until.min(from + most - 1);
                    return Some(Read { stream: at, conv: stream.conv.clone(), from, to });
                }
            }
            stream.queued = false;
        }
        None
    }

    /// Entries of a stream up to `through` have been read and are with the connection to be sent;
    /// the stream goes to the end of the queue.
    pub fn read(&mut self, stream: u32, through: u64) {
        self.reading.retain(|at| *at != stream);
        if let Some(at) = self.stream_mut(stream) {
            at.next = at.next.max(through + 1);
            at.queued = false;
            self.queue_if_behind(stream);
        }
    }

    /// Whether a conversation is being read.
    pub fn is_reading(&self, conv: &ConvKey) -> bool {
        self.reading.iter().any(|at| self.conversation(*at) == Some(conv))
    }

    /// What was read is out of date: it is to be read once more.
    pub fn read_again(&mut self) {
        for at in std::mem::take(&mut self.reading).into_iter().rev() {
            self.behind.push_front(at);
        }
    }

    /// An entry is acknowledged, in the order of sending per stream. `received`: the client has
    /// said so (QoS 0 moves no `recv`, ruling 28).
    pub fn acknowledged(&mut self, stream: u32, seq: u64, received: bool) {
        if let Some(at) = self.stream_mut(stream) {
            at.acked = at.acked.max(seq);
            if received {
                at.recv = at.recv.max(seq);
            }
            self.note_moved(stream);
        }
    }

    /// An entry is passed without being sent. Only when nothing before it is under way the cursor
    /// moves at once; else the acknowledgement of what comes next takes it along.
    pub fn pass(&mut self, stream: u32, seq: u64) {
        if let Some(at) = self.stream_mut(stream)
            && at.acked + 1 == seq
        {
            at.acked = seq;
            self.note_moved(stream);
        }
    }

    /// Entries are not there any more, and the client is told so: the cursor moves at once, unless
    /// something before them is under way (ruling 21).
    pub fn pass_lost(&mut self, stream: u32, from: u64, through: u64) {
        if let Some(at) = self.stream_mut(stream)
            && at.acked + 1 == from
        {
            at.acked = at.acked.max(through);
            self.note_moved(stream);
        }
    }

    /// Takes out what has moved since the last report: conversation, cursor, `recv`.
    pub fn take_moves(&mut self) -> Vec<(ConvKey, u64, u64)> {
        let moved = std::mem::take(&mut self.moved);
        let moves = moved.into_iter().map(|at| {
            let stream = &mut self.streams[at as usize];
            stream.moved = false;
            (stream.conv.clone(), stream.acked, stream.recv)
        });
        moves.collect()
    }

    /// The conversation of a stream.
    pub fn conversation(&self, stream: u32) -> Option<&ConvKey> {
        self.streams.get(stream as usize).map(|stream| &stream.conv)
    }

    /// The next entry of the conversation with this [tag](ConvKey::tag); `None` when the device
    /// does not follow it.
    pub fn next_by_tag(&self, tag: u64) -> Option<u64> {
        let stream = self.streams.iter().find(|stream| stream.conv.tag() == tag);
        stream.map(|stream| stream.next)
    }

    /// Groups and channels it follows: their topics in the index.
    pub fn listens_to(&self) -> impl Iterator<Item = &ConvKey> {
        let streams = self.streams.iter().map(|stream| &stream.conv);
        streams.filter(|conv| conv.kind() != ConvKind::User).chain(self.quiet.listens_to())
    }

    /// Whether something waits to be read.
    pub fn is_behind(&self) -> bool {
        !self.behind.is_empty() || !self.reading.is_empty()
    }

    fn stream_mut(&mut self, stream: u32) -> Option<&mut Stream> {
        self.streams.if_made()?.get_mut(stream as usize)
    }

    fn note_early(&mut self, conv: &ConvKey, seq: u64) {
        if self.early.len() < MOST_EARLY || self.early.contains_key(conv) {
            let heard = self.early.entry(conv.clone()).or_default();
            heard.head = heard.head.max(seq);
        }
    }

    fn raise(&mut self, at: u32, head: u64) {
        let stream = &mut self.streams[at as usize];
        stream.head = stream.head.max(head);
        self.queue_if_behind(at);
    }

    fn queue_if_behind(&mut self, at: u32) {
        let stream = &mut self.streams[at as usize];
        if !stream.queued && stream.next <= stream.last_to_send() {
            stream.queued = true;
            self.behind.push_back(at);
        }
    }

    fn note_moved(&mut self, at: u32) {
        let stream = &mut self.streams[at as usize];
        if !std::mem::replace(&mut stream.moved, true) {
            self.moved.push(at);
        }
    }
}

/// A pair's conversation that nobody has listed yet: all of it is to be seen.
fn new_pair(conv: ConvKey, head: u64) -> Start {
    let intervals = since(1);
    Start { conv, cursor: 0, head, intervals, version: 0 }
}

fn visible(intervals: &[Interval], seq: u64) -> bool {
    crate::rows::may_see(intervals, seq)
}

/// The first visible seq at or behind `seq`.
fn next_visible(intervals: &[Interval], seq: u64) -> Option<u64> {
    let ends_behind = |i: &&Interval| i.until.is_none_or(|until| until >= seq);
    intervals.iter().find(ends_behind).map(|interval| interval.from.max(seq))
}

/// Where the interval around `seq` ends.
fn interval_end(intervals: &[Interval], seq: u64) -> u64 {
    let around = intervals.iter().find(|i| i.from <= seq && i.until.is_none_or(|u| seq <= u));
    around.and_then(|interval| interval.until).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
