//! The outgoing window: QoS 1 and 2 messages sent to the client and not complete.
//!
//! Owns packet identifiers towards the client. An identifier is not given again while it is in
//! flight, and no more messages are in flight than the receiver's maximum (invariant 7,
//! [MQTT-3.3.4-9]). `S` says where a message came from; the window only gives it back.
//!
//! Deliberately not here: the messages themselves, and when to send.

use std::collections::VecDeque;

use hoopoe_codec::{PacketId, QoS};

use crate::seldom::Seldom;

#[cfg(feature = "planted")]
use crate::planted;

/// No message with that packet identifier awaits such an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unknown;

/// How far one exchange is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Published,
    Released,
    /// The client is done with it; that has to be written before the identifier is free.
    Concluded,
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u16,
    state: State,
    qos: QoS,
    /// It takes a place: its PUBLISH was sent over this connection.
    sent: bool,
}

// Ten to a cache line. A message to a thousand receivers touches a thousand windows, more than the
// processor's caches hold: what is written there is waited for.
const _: () = assert!(size_of::<Entry>() == 6);

/// One message in flight, as the window reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InFlight<S> {
    /// Packet identifier.
    pub id: PacketId,
    /// QoS it is sent with.
    pub qos: QoS,
    /// True once PUBREC has arrived: PUBREL is what is to be sent.
    pub released: bool,
    /// Where the message came from.
    pub source: S,
}

/// Messages in flight, in the order they were sent.
#[derive(Debug)]
pub struct Window<S> {
    maximum: u16,
    open: u16,
    last_id: u16,
    /// So many of the newest entries have identifiers that follow upon each other, up to `last_id`.
    run: u16,
    entries: VecDeque<Entry>,
    /// Where they came from, entry by entry; empty as long as every one is `S::default()`.
    sources: Seldom<VecDeque<S>>,
}

/// Complete messages that may wait for an older one: beyond it, a client that leaves its oldest
/// message unacknowledged gets no new ones until it acknowledges that.
const MOST_COMPLETE: usize = 8_192;

/// Capacity that an empty window may keep; above it the memory is given back.
const KEPT_CAPACITY: usize = 32;

impl<S: Copy + Default + PartialEq + 'static> Window<S> {
    /// A window of at most `maximum` messages (0 counts as 1).
    pub fn new(maximum: u16) -> Window<S> {
        Window {
            maximum: maximum.max(1),
            open: 0,
            last_id: 0,
            run: 0,
            entries: VecDeque::new(),
            sources: Seldom::default(),
        }
    }

    /// How many more messages may be sent now.
    pub fn room(&self) -> usize {
        let complete = self.entries.len() - usize::from(self.open);
        usize::from(self.maximum.saturating_sub(self.open))
            .min(MOST_COMPLETE.saturating_sub(complete))
    }

    /// Sources of messages that are complete although an older one is not.
    pub fn complete_before_turn(&self) -> impl Iterator<Item = S> + '_ {
        let done = |at: &usize| self.entries[*at].state == State::Done;
        (0..self.entries.len()).filter(done).map(|at| self.source_at(at))
    }

    /// Whether there are such messages.
    pub fn any_complete_before_turn(&self) -> bool {
        self.entries.len() > usize::from(self.open)
    }

    /// Messages in flight.
    pub fn in_flight(&self) -> usize {
        usize::from(self.open)
    }

    /// Takes a place and an identifier for a message that is to be sent; `None` when full.
    pub fn push(&mut self, qos: QoS, source: S) -> Option<PacketId> {
        if self.room() == 0 {
            return None;
        }
        let follows = next_id(self.last_id);
        let id = self.free_id();
        self.run = if id.get() == follows { self.run.saturating_add(1) } else { 1 };
        let state = State::Published;
        self.enter(Entry { id: id.get(), state, qos, sent: true }, source);
        self.open += 1;
        Some(id)
    }

    /// Notes, in its place among the others, a message that will not be sent (expired, too
    /// large): it counts as complete.
    pub fn push_done(&mut self, source: S) {
        let (state, qos) = (State::Done, QoS::AtMostOnce);
        self.run = 0;
        self.enter(Entry { id: 0, state, qos, sent: false }, source);
    }

    /// Puts back a message that was in flight when the last connection ended. It takes no place
    /// until it is sent again: the receiver's maximum counts per connection ([MQTT-4.9.0-1]).
    pub fn restore(&mut self, message: InFlight<S>) {
        let state = if message.released { State::Released } else { State::Published };
        let id = message.id.get();
        self.run = 0;
        self.enter(Entry { id, state, qos: message.qos, sent: false }, message.source);
        self.last_id = self.last_id.max(id);
    }

    /// A restored message takes a place, to be sent again. True when its PUBREC has not come.
    /// The caller has seen that there is room.
    pub fn resend(&mut self, id: PacketId) -> Result<bool, Unknown> {
        let at = self.find(id.get()).ok_or(Unknown)?;
        let entry = &mut self.entries[at];
        let again = entry.state == State::Published && !entry.sent;
        if again {
            entry.sent = true;
            self.open = self.open.saturating_add(1);
        }
        Ok(again)
    }

    /// Moves a restored message behind those sent since, as the order of their sources has it,
    /// and gives it its source; then as [`resend`](Self::resend).
    pub fn requeue(&mut self, id: PacketId, source: S) -> Result<bool, Unknown> {
        let at = self.find(id.get()).ok_or(Unknown)?;
        let entry = self.entries.remove(at).ok_or(Unknown)?;
        self.sources.if_made().and_then(|sources| sources.remove(at));
        self.run = 0;
        self.enter(entry, source);
        self.resend(id)
    }

    /// PUBACK: the QoS 1 exchange is complete. Gives its source.
    pub fn acknowledge(&mut self, id: PacketId) -> Result<S, Unknown> {
        self.finish(id, |e| e.qos == QoS::AtLeastOnce && e.state == State::Published)
    }

    /// PUBREC with an error: the QoS 2 exchange is over ([MQTT-4.3.3-4]). Gives its source.
    pub fn refuse(&mut self, id: PacketId) -> Result<S, Unknown> {
        self.finish(id, |e| e.qos == QoS::ExactlyOnce && e.state == State::Published)
    }

    /// PUBCOMP: the QoS 2 exchange is complete. Gives its source.
    pub fn complete(&mut self, id: PacketId) -> Result<S, Unknown> {
        self.finish(id, |e| matches!(e.state, State::Released | State::Concluded))
    }

    /// PUBCOMP, or PUBREC with an error (`refused`), for a message whose end has to be written
    /// first; [`complete`](Self::complete) follows then. Until then the exchange is in flight, and
    /// PUBREL is what would be sent again.
    pub fn conclude(&mut self, id: PacketId, refused: bool) -> Result<(), Unknown> {
        let at = self.find(id.get()).ok_or(Unknown)?;
        let entry = &mut self.entries[at];
        let awaited = if refused { State::Published } else { State::Released };
        if entry.qos != QoS::ExactlyOnce || entry.state != awaited {
            return Err(Unknown);
        }
        entry.state = State::Concluded;
        Ok(())
    }

    /// Where the message in flight under this identifier came from.
    pub fn source(&self, id: PacketId) -> Option<S> {
        self.find(id.get()).map(|at| self.source_at(at))
    }

    /// PUBREC: PUBREL is to be sent. Gives the source, and true when this is the first PUBREC.
    pub fn receive(&mut self, id: PacketId) -> Result<(S, bool), Unknown> {
        let at = self.find(id.get()).ok_or(Unknown)?;
        let entry = &mut self.entries[at];
        let first = match (entry.qos, entry.state) {
            (QoS::ExactlyOnce, State::Published) => true,
            (QoS::ExactlyOnce, State::Released | State::Concluded) => false,
            _ => return Err(Unknown),
        };
        if first {
            entry.state = State::Released;
        }
        Ok((self.source_at(at), first))
    }

    /// Takes the oldest entry out when it is complete: what comes out moves a cursor.
    pub fn pop_done(&mut self) -> Option<S> {
        let front = self.entries.front()?;
        if front.state != State::Done {
            return None;
        }
        self.entries.pop_front();
        let sources = self.sources.if_made();
        let source = sources.and_then(VecDeque::pop_front).unwrap_or_default();
        self.run = self.run.min(u16::try_from(self.entries.len()).unwrap_or(u16::MAX));
        if self.entries.is_empty() {
            emptied(&mut self.entries);
            if let Some(sources) = self.sources.if_made() {
                emptied(sources);
            }
        }
        Some(source)
    }

    /// What is in flight, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = InFlight<S>> + '_ {
        let in_flight = |(_, e): &(usize, &Entry)| e.state != State::Done;
        self.entries.iter().enumerate().filter(in_flight).filter_map(|(at, e)| {
            Some(InFlight {
                id: PacketId::new(e.id)?,
                qos: e.qos,
                released: matches!(e.state, State::Released | State::Concluded),
                source: self.source_at(at),
            })
        })
    }

    fn enter(&mut self, entry: Entry, source: S) {
        if source != S::default() || !self.sources.is_empty() {
            // Those before it, if it is the first that has one.
            self.sources.resize(self.entries.len(), S::default());
            self.sources.push_back(source);
        }
        self.entries.push_back(entry);
    }

    fn source_at(&self, at: usize) -> S {
        self.sources.get(at).copied().unwrap_or_default()
    }

    fn finish(&mut self, id: PacketId, fits: impl Fn(&Entry) -> bool) -> Result<S, Unknown> {
        let at = self.find(id.get()).ok_or(Unknown)?;
        let entry = &mut self.entries[at];
        if !fits(entry) {
            return Err(Unknown);
        }
        entry.state = State::Done;
        self.open -= u16::from(entry.sent);
        Ok(self.source_at(at))
    }

    /// Where identifiers follow upon each other, the distance from the oldest is the place. Else it
    /// is likely to be, for clients acknowledge in order as a rule; or a search.
    fn find(&self, id: u16) -> Option<usize> {
        let is = |at: &usize| {
            self.entries.get(*at).is_some_and(|e| e.id == id && e.state != State::Done)
        };
        let likely = Some(distance(self.entries.front()?.id, id)).filter(is);
        if likely.is_some() || self.all_follow() {
            return likely;
        }
        (0..self.entries.len()).find(is)
    }

    /// Whether the identifiers of all entries follow upon each other, without coming round to the
    /// first: then a place tells its identifier, and the one after `last_id` is free.
    fn all_follow(&self) -> bool {
        usize::from(self.run) == self.entries.len() && self.run < u16::MAX
    }

    /// The next identifier that is not in flight. There is one: `open < maximum <= 65,535`, and
    /// 65,535 identifiers.
    fn free_id(&mut self) -> PacketId {
        #[cfg(feature = "planted")]
        if planted::has(planted::Bug::ReuseIdentifier) {
            self.last_id = self.last_id % 3 + 1;
            return PacketId::new(self.last_id).unwrap_or(PacketId::MIN);
        }
        loop {
            self.last_id = next_id(self.last_id);
            if let Some(id) = PacketId::new(self.last_id)
                && (self.all_follow() || self.find(self.last_id).is_none())
            {
                return id;
            }
        }
    }
}

/// Identifiers go round from 65,535 to 1.
fn next_id(id: u16) -> u16 {
    id % u16::MAX + 1
}

/// How many identifiers further on.
fn distance(from: u16, to: u16) -> usize {
    let round = if to < from { usize::from(u16::MAX) } else { 0 };
    usize::from(to) + round - usize::from(from)
}

/// Nothing is left in it: it begins at its start again, where it was written last, and gives memory
/// back.
fn emptied<T>(entries: &mut VecDeque<T>) {
    if entries.capacity() > KEPT_CAPACITY {
        *entries = VecDeque::new();
    } else {
        entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    #[test]
    fn the_window_holds_no_more_than_the_receivers_maximum() {
        let mut window = Window::new(2);
        let a = window.push(QoS::AtLeastOnce, 1).unwrap();
        window.push(QoS::AtLeastOnce, 2).unwrap();
        assert_eq!(window.push(QoS::AtLeastOnce, 3), None);
        assert_eq!(window.acknowledge(a), Ok(1));
        assert_eq!(window.room(), 1);
        assert_eq!(window.pop_done(), Some(1));
        assert_eq!(window.pop_done(), None);
    }

    #[test]
    fn a_source_stays_with_its_message() {
        let mut window = Window::new(10);
        let mut push = |source| window.push(QoS::AtLeastOnce, source).unwrap();
        // The first that has one has two before it without, and is followed by one.
        let ids = [0, 0, 7, 0].map(&mut push);
        assert_eq!(ids.map(|id| window.source(id)), [0, 0, 7, 0].map(Some));
        assert_eq!(window.acknowledge(ids[2]), Ok(7));
        assert_eq!(window.complete_before_turn().collect::<Vec<_>>(), [7]);
        window.acknowledge(ids[0]).unwrap();
        assert_eq!([window.pop_done(), window.pop_done()], [Some(0), None]);
        assert_eq!(window.iter().map(|m| m.source).collect::<Vec<_>>(), [0, 0]);
        window.requeue(ids[1], 8).unwrap();
        assert_eq!([window.pop_done(), window.pop_done()], [Some(7), None]);
        assert_eq!(window.iter().map(|m| m.source).collect::<Vec<_>>(), [0, 8]);
    }

    #[test]
    fn completed_out_of_order_leaves_in_order() {
        let mut window = Window::new(10);
        let ids: Vec<_> = (1..=3).map(|n| window.push(QoS::AtLeastOnce, n).unwrap()).collect();
        window.acknowledge(ids[2]).unwrap();
        window.acknowledge(ids[1]).unwrap();
        assert_eq!(window.pop_done(), None);
        window.acknowledge(ids[0]).unwrap();
        assert_eq!([1, 2, 3].map(Some), std::array::from_fn(|_| window.pop_done()));
    }

    #[test]
    fn a_client_that_leaves_its_oldest_message_alone_is_not_remembered_without_bounds() {
        let mut window = Window::new(10);
        let oldest = window.push(QoS::AtLeastOnce, 0).unwrap();
        let mut next = 1;
        while let Some(id) = window.push(QoS::AtLeastOnce, next) {
            assert!(!window.any_complete_before_turn() || next > 1);
            window.acknowledge(id).unwrap();
            next += 1;
        }
        assert_eq!(next - 1, MOST_COMPLETE);
        assert_eq!(window.complete_before_turn().count(), MOST_COMPLETE);
        assert_eq!(window.room(), 0);
        window.acknowledge(oldest).unwrap();
        while window.pop_done().is_some() {}
        assert_eq!((window.room(), window.any_complete_before_turn()), (10, false));
    }

    #[test]
    fn an_exchange_that_is_concluded_is_in_flight_until_that_is_written() {
        let mut window = Window::new(2);
        let [first, second] = [0, 1].map(|s| window.push(QoS::ExactlyOnce, s).unwrap());
        assert_eq!(window.conclude(first, false), Err(Unknown), "PUBCOMP before PUBREC");
        window.receive(first).unwrap();
        window.conclude(first, false).unwrap();
        assert_eq!(window.conclude(first, false), Err(Unknown), "once");
        window.conclude(second, true).unwrap();
        assert_eq!((window.source(first), window.room()), (Some(0), 0));
        assert!(window.iter().all(|message| message.released));
        assert_eq!(window.receive(first), Ok((0, false)));
        assert_eq!([first, second].map(|id| window.complete(id)), [Ok(0), Ok(1)]);
        assert_eq!(window.complete(first), Err(Unknown));
        assert_eq!((window.source(first), window.room()), (None, 2));
    }

    #[test]
    fn qos_2_goes_through_its_four_steps() {
        let mut window = Window::new(1);
        let a = window.push(QoS::ExactlyOnce, 7).unwrap();
        assert_eq!(window.acknowledge(a), Err(Unknown), "PUBACK does not end QoS 2");
        assert_eq!(window.complete(a), Err(Unknown), "PUBCOMP before PUBREC");
        assert_eq!(window.receive(a), Ok((7, true)));
        assert_eq!(window.receive(a), Ok((7, false)), "a repeated PUBREC is answered again");
        assert_eq!(window.refuse(a), Err(Unknown), "too late to refuse");
        assert_eq!(window.complete(a), Ok(7));
        assert_eq!(window.complete(a), Err(Unknown));
        assert_eq!(window.room(), 1);
    }

    #[test]
    fn a_restored_window_keeps_identifiers_and_order() {
        let mut window = Window::new(2);
        for n in [9, 4, 7] {
            window.restore(InFlight {
                id: id(n),
                qos: QoS::AtLeastOnce,
                released: false,
                source: n,
            });
        }
        assert_eq!(window.room(), 2, "nothing is sent again yet");
        assert_eq!(window.iter().map(|m| m.source).collect::<Vec<_>>(), [9, 4, 7]);
        assert_eq!(window.resend(id(9)), Ok(true));
        assert_eq!(window.resend(id(4)), Ok(true));
        assert_eq!(window.resend(id(4)), Ok(false), "once is enough");
        assert_eq!(window.room(), 0);
        assert_eq!(window.acknowledge(id(4)), Ok(4));
        assert_eq!(window.acknowledge(id(9)), Ok(9));
        assert_eq!(window.push(QoS::AtLeastOnce, 1).unwrap(), id(10));
    }

    #[test]
    fn identifiers_go_round_and_are_looked_for_where_they_do_not_follow_upon_each_other() {
        let mut window = Window::new(u16::MAX);
        window.last_id = u16::MAX - 2;
        let ids: Vec<_> = (0..4).map(|n| window.push(QoS::AtLeastOnce, n).unwrap()).collect();
        assert_eq!(ids.iter().map(|id| id.get()).collect::<Vec<_>>(), [65_534, 65_535, 1, 2]);
        assert!(window.all_follow());
        assert_eq!(window.source(id(1)), Some(2));
        assert_eq!(window.source(id(3)), None);
        window.push_done(9);
        let last = window.push(QoS::AtLeastOnce, 10).unwrap();
        assert!(!window.all_follow());
        assert_eq!(window.source(last), Some(10));
        assert!(ids.iter().all(|id| window.acknowledge(*id).is_ok()));
        while window.pop_done().is_some() {}
        assert!(window.all_follow(), "those before are gone");
        assert_eq!(window.acknowledge(last), Ok(10));
        assert_eq!(window.pop_done(), Some(10));
        // As many as there are: the next one is looked for, and there is none before one is free.
        let oldest = window.push(QoS::AtLeastOnce, 0).unwrap();
        for n in 1..u16::MAX {
            window.push(QoS::AtLeastOnce, i32::from(n)).unwrap();
        }
        assert_eq!(window.push(QoS::AtLeastOnce, 0), None);
        window.acknowledge(oldest).unwrap();
        assert_eq!(window.push(QoS::AtLeastOnce, 1), Some(oldest));
    }

    proptest! {
        /// Invariant 7: never two messages in flight under one identifier, whatever the order of
        /// acknowledgements and however often the identifiers wrap; and each is found again.
        #[test]
        fn no_identifier_is_given_twice(
            maximum in 1u16..40,
            start in any::<u16>(),
            steps in prop::collection::vec(any::<u8>(), 1..400),
        ) {
            let mut window = Window::new(maximum);
            window.last_id = start;
            let mut flying: Vec<(PacketId, u8)> = Vec::new();
            for step in steps {
                if step == 0 {
                    window.push_done(1);
                } else if step % 3 != 0 {
                    let source = step % 2;
                    if let Some(id) = window.push(QoS::AtLeastOnce, source) {
                        prop_assert!(flying.iter().all(|(other, _)| *other != id));
                        flying.push((id, source));
                    } else {
                        prop_assert_eq!(flying.len(), usize::from(maximum));
                    }
                } else if !flying.is_empty() {
                    let (id, source) = flying.remove(usize::from(step) % flying.len());
                    prop_assert_eq!(window.acknowledge(id), Ok(source));
                    while window.pop_done().is_some() {}
                }
                prop_assert_eq!(window.in_flight(), flying.len());
                for (id, source) in &flying {
                    prop_assert_eq!(window.source(*id), Some(*source));
                }
            }
        }
    }
}
