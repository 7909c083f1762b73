//! One topic: who speaks, how many hear, and which messages are not finished.

use std::collections::VecDeque;

use super::MAX_FOLLOWED;
use crate::net::Template;

/// A message that not everybody has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// Deliveries and settlings to come; 0 when finished.
    pub remaining: u32,
    /// When it was due.
    pub due_ns: u64,
    /// When the first member had it.
    pub first_ns: u64,
    /// How many members have it.
    pub heard: u32,
}

/// One topic.
pub(crate) struct Channel {
    /// Index into the driver's sorts.
    pub sort: u16,
    /// Already in the driver's list of channels to look at.
    pub queued: bool,
    /// The broker settles each message (QoS 1 and 2).
    pub settles: bool,
    /// Its messages have no content (likes): nothing is owed and nothing followed.
    pub silent: bool,
    /// Whoever speaks in it hears itself, too.
    pub echo: bool,
    /// How many hear it.
    pub members: u32,
    /// Messages unfinished at a time; 0: open loop.
    pub window: u32,
    /// Who speaks, in turn.
    pub speakers: Box<[u32]>,
    /// How much each of them has said.
    pub sent: Box<[u32]>,
    /// Its PUBLISH.
    pub template: Template,
    /// Due times of messages that could not be sent yet.
    pub owed: VecDeque<u64>,
    turn: u32,
    number: u32,
    open: u32,
    flights: VecDeque<Flight>,
}

impl Channel {
    /// A channel in which nothing has been said.
    pub(crate) fn new(template: Template, speakers: Vec<u32>, members: usize) -> Channel {
        Channel {
            sort: 0,
            queued: false,
            settles: false,
            silent: false,
            echo: true,
            members: members as u32,
            window: 0,
            sent: vec![0; speakers.len()].into(),
            speakers: speakers.into(),
            template,
            owed: VecDeque::new(),
            turn: 0,
            number: 0,
            open: 0,
            flights: VecDeque::new(),
        }
    }

    /// Closed loop: the window has room.
    #[inline]
    pub(super) fn wants_more(&self) -> bool {
        self.open < self.window
    }

    /// The next speaker in turn who has room.
    #[inline]
    pub(super) fn next_speaker(&mut self, has_room: impl Fn(u32) -> bool) -> Option<usize> {
        let count = self.speakers.len() as u32;
        for step in 0..count {
            let speaker = (self.turn + step) % count;
            if has_room(self.speakers[speaker as usize]) {
                self.turn = (speaker + 1) % count;
                return Some(speaker as usize);
            }
        }
        None
    }

    /// The number of the message that is followed next.
    #[inline]
    pub(super) fn take_number(&mut self) -> u32 {
        self.number
    }

    /// Follows the message just numbered.
    #[inline]
    pub(super) fn follow(&mut self, flight: Flight) {
        self.number = self.number.wrapping_add(1);
        self.open += 1;
        self.flights.push_back(flight);
        if self.flights.len() > MAX_FOLLOWED {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if self.flights.pop_front().is_some_and(|f| f.remaining > 0) {
            self.open -= 1;
        }
    }

    fn position(&self, number: u32) -> Option<usize> {
        let oldest = self.number.wrapping_sub(self.flights.len() as u32);
        let at = number.wrapping_sub(oldest) as usize;
        (at < self.flights.len()).then_some(at)
    }

    /// The message with this number, if it is not finished.
    #[inline]
    pub(super) fn flight(&mut self, number: u32) -> Option<&mut Flight> {
        let at = self.position(number)?;
        let flight = &mut self.flights[at];
        (flight.remaining > 0).then_some(flight)
    }

    /// The message with this number has just become finished.
    #[inline]
    pub(super) fn finish(&mut self, number: u32) {
        debug_assert!(self.position(number).is_some());
        self.open -= 1;
        while self.flights.front().is_some_and(|f| f.remaining == 0) {
            self.flights.pop_front();
        }
    }

    /// Stops following what was due before; returns how many.
    pub(super) fn abandon_before(&mut self, before_ns: u64) -> u32 {
        let mut abandoned = 0;
        while let Some(flight) = self.flights.front() {
            if flight.remaining > 0 && flight.due_ns >= before_ns {
                break;
            }
            abandoned += u32::from(flight.remaining > 0);
            self.flights.pop_front();
        }
        self.open -= abandoned;
        abandoned
    }
}

#[cfg(test)]
mod tests {
    use hoopoe_codec::{QoS, Version};

    use super::*;

    fn channel(speakers: usize) -> Channel {
        let template = Template::new(Version::V311, "t", QoS::AtMostOnce, false, 64);
        let mut c = Channel::new(template, (0..speakers as u32).collect(), 2);
        c.window = 3;
        c
    }

    fn say(c: &mut Channel, due_ns: u64) -> u32 {
        let number = c.take_number();
        c.follow(Flight { remaining: 1, due_ns, first_ns: 0, heard: 0 });
        number
    }

    fn end(c: &mut Channel, number: u32) {
        c.flight(number).unwrap().remaining = 0;
        c.finish(number);
    }

    #[test]
    fn the_window_opens_as_messages_finish_in_any_order() {
        let mut c = channel(1);
        let numbers: Vec<u32> = (0..3).map(|_| say(&mut c, 1)).collect();
        assert!(!c.wants_more());
        end(&mut c, numbers[1]);
        assert!(c.wants_more());
        assert!(c.flight(numbers[1]).is_none());
        let fourth = say(&mut c, 1);
        assert!(!c.wants_more());
        for number in [numbers[0], numbers[2], fourth] {
            end(&mut c, number);
        }
        assert_eq!((c.open, c.flights.len()), (0, 0));
    }

    #[test]
    fn speakers_take_turns_and_those_without_room_are_passed_over() {
        let mut c = channel(3);
        let all: Vec<_> = (0..4).map(|_| c.next_speaker(|_| true)).collect();
        assert_eq!(all, [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(c.next_speaker(|client| client != 1), Some(2));
        assert_eq!(c.next_speaker(|_| false), None);
    }

    #[test]
    fn old_messages_are_given_up_and_followed_ones_bounded() {
        let mut c = channel(1);
        for due in [5, 6, 50] {
            say(&mut c, due);
        }
        assert_eq!(c.abandon_before(10), 2);
        assert_eq!(c.open, 1);
        for _ in 0..2 * MAX_FOLLOWED {
            say(&mut c, 60);
        }
        assert_eq!(c.flights.len(), MAX_FOLLOWED);
        assert_eq!(c.open as usize, MAX_FOLLOWED);
    }
}
