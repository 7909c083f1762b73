//! The books of what every receiver got: loss, doubling and order per stream.
//!
//! A *slot* is one (receiver, speaker in a channel) pair; it remembers the next sequence number
//! expected, four bytes, so that hundreds of thousands of slots stay in the processor's cache. Holes
//! are kept aside and only while there are any. What counts as a failure is for the scenario to say.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// What is wrong, or was put right, over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Checks {
    /// Deliveries that were expected (as far as the scenario can know).
    pub expected: u64,
    /// Deliveries that arrived, each counted once.
    pub received: u64,
    /// Never arrived.
    pub lost: u64,
    /// Arrived again without the DUP flag.
    pub doubled: u64,
    /// Arrived again with the DUP flag, which QoS 1 allows.
    pub redelivered: u64,
    /// Arrived after a later message of the same speaker in the same channel.
    pub out_of_order: u64,
    /// Arrived at someone who had not subscribed to it.
    pub misrouted: u64,
    /// Arrived with other bytes than were sent.
    pub damaged: u64,
    /// Publications that were not of this run.
    pub strangers: u64,
    /// Connections that the broker closed, or that failed, during the run.
    pub disconnects: u64,
    /// Negative acknowledgements and refused subscriptions.
    pub refused: u64,
}

impl Checks {
    /// Adds what another thread counted.
    pub(crate) fn add(&mut self, other: &Checks) {
        self.expected += other.expected;
        self.received += other.received;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.redelivered += other.redelivered;
        self.out_of_order += other.out_of_order;
        self.misrouted += other.misrouted;
        self.damaged += other.damaged;
        self.strangers += other.strangers;
        self.disconnects += other.disconnects;
        self.refused += other.refused;
    }
}

/// How one arrival relates to the arrivals before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// First time here.
    Fresh,
    /// First time here, but after a later one.
    Late,
    /// Had been here before.
    Again,
}

/// Sequence numbers `from..to` that have been passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    from: u32,
    to: u32,
}

/// Expected by a slot that takes any sequence number as its beginning.
const ANEW: u32 = u32::MAX;

/// Next expected sequence number per slot, and the holes.
#[derive(Default)]
pub(crate) struct Ledger {
    next: Vec<u32>,
    holes: HashMap<u32, Vec<Hole>>,
    /// What was found so far.
    pub checks: Checks,
}

impl Ledger {
    /// Adds `count` slots that expect sequence number 0; returns the first.
    pub(crate) fn add_slots(&mut self, count: usize) -> u32 {
        let first = self.next.len() as u32;
        self.next.resize(self.next.len() + count, 0);
        first
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.next.len()
    }

    /// Books an arrival; `dup` is the DUP flag of the packet.
    #[inline]
    pub(crate) fn note(&mut self, slot: u32, seq: u32, dup: bool) -> Verdict {
        let next = &mut self.next[slot as usize];
        if seq == *next {
            *next += 1;
            self.checks.received += 1;
            return Verdict::Fresh;
        }
        self.note_odd(slot, seq, dup)
    }

    #[cold]
    fn note_odd(&mut self, slot: u32, seq: u32, dup: bool) -> Verdict {
        let next = self.next[slot as usize];
        if next == ANEW {
            self.next[slot as usize] = seq + 1;
            self.checks.received += 1;
            return Verdict::Fresh;
        }
        if seq > next {
            self.holes.entry(slot).or_default().push(Hole { from: next, to: seq });
            self.next[slot as usize] = seq + 1;
            self.checks.received += 1;
            return Verdict::Fresh;
        }
        if self.fill(slot, seq) {
            self.checks.received += 1;
            self.checks.out_of_order += 1;
            return Verdict::Late;
        }
        if dup {
            self.checks.redelivered += 1;
        } else {
            self.checks.doubled += 1;
        }
        Verdict::Again
    }

    /// Takes `seq` out of the slot's holes; false when it was in none.
    fn fill(&mut self, slot: u32, seq: u32) -> bool {
        let Some(holes) = self.holes.get_mut(&slot) else { return false };
        let Some(at) = holes.iter().position(|h| h.from <= seq && seq < h.to) else {
            return false;
        };
        let Hole { from, to } = holes.remove(at);
        if seq + 1 < to {
            holes.insert(at, Hole { from: seq + 1, to });
        }
        if from < seq {
            holes.insert(at, Hole { from, to: seq });
        }
        if holes.is_empty() {
            self.holes.remove(&slot);
        }
        true
    }

    /// How many of the first `sent` sequence numbers have not arrived at this slot.
    pub(crate) fn missing(&self, slot: u32, sent: u32) -> u64 {
        let next = self.next[slot as usize];
        let tail = u64::from(sent.saturating_sub(next));
        let holes = self.holes.get(&slot).map_or(0, |holes| {
            holes.iter().map(|h| u64::from(h.to.min(sent).saturating_sub(h.from))).sum()
        });
        tail + holes
    }

    /// True when this sequence number has arrived at the slot.
    pub(crate) fn has(&self, slot: u32, seq: u32) -> bool {
        let in_a_hole = |holes: &Vec<Hole>| holes.iter().any(|h| h.from <= seq && seq < h.to);
        seq < self.next[slot as usize] && !self.holes.get(&slot).is_some_and(in_a_hole)
    }

    /// The receiver was away from something that is not kept: whatever comes next is the beginning.
    pub(crate) fn begin_anew(&mut self, slot: u32) {
        self.next[slot as usize] = ANEW;
        self.holes.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arrivals: &[(u32, bool)], sent: u32) -> (Checks, u64) {
        let mut ledger = Ledger::default();
        ledger.add_slots(3);
        for &(seq, dup) in arrivals {
            ledger.note(1, seq, dup);
        }
        (ledger.checks, ledger.missing(1, sent))
    }

    #[test]
    fn every_kind_of_fault_is_told_apart() {
        let f = false;
        // (arrivals, sent, received, lost, doubled, redelivered, out of order)
        type Case<'a> = (&'a [(u32, bool)], u32, [u64; 5]);
        let cases: &[Case<'_>] = &[
            (&[(0, f), (1, f), (2, f)], 3, [3, 0, 0, 0, 0]),
            (&[(0, f), (2, f)], 3, [2, 1, 0, 0, 0]),
            (&[(0, f), (1, f)], 5, [2, 3, 0, 0, 0]),
            (&[(0, f), (0, f)], 1, [1, 0, 1, 0, 0]),
            (&[(0, f), (0, true)], 1, [1, 0, 0, 1, 0]),
            (&[(1, f), (0, f)], 2, [2, 0, 0, 0, 1]),
            (&[(4, f), (1, f), (1, f), (3, f), (0, f), (2, f)], 5, [5, 0, 1, 0, 4]),
            (&[(4, f)], 5, [1, 4, 0, 0, 0]),
            (&[], 0, [0, 0, 0, 0, 0]),
        ];
        for (arrivals, sent, want) in cases {
            let (c, lost) = run(arrivals, *sent);
            let got = [c.received, lost, c.doubled, c.redelivered, c.out_of_order];
            assert_eq!(&got, want, "{arrivals:?}");
        }
    }

    #[test]
    fn what_has_arrived_is_known_one_by_one() {
        let mut ledger = Ledger::default();
        let slot = ledger.add_slots(1);
        for seq in [0, 2, 3, 6] {
            ledger.note(slot, seq, false);
        }
        let arrived: Vec<u32> = (0..9).filter(|seq| ledger.has(slot, *seq)).collect();
        assert_eq!(arrived, [0, 2, 3, 6]);
    }

    #[test]
    fn whoever_returns_begins_with_what_comes_next() {
        let mut ledger = Ledger::default();
        let slot = ledger.add_slots(1);
        ledger.note(slot, 3, false);
        assert_eq!(ledger.missing(slot, 4), 3);
        ledger.begin_anew(slot);
        assert_eq!(ledger.note(slot, 9, false), Verdict::Fresh);
        assert_eq!(ledger.missing(slot, 10), 0);
        assert_eq!(ledger.note(slot, 9, false), Verdict::Again);
        assert_eq!(ledger.checks.doubled, 1);
    }
}
