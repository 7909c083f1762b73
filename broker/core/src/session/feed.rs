//! Live or replay: which entry of a stored queue goes to the client next (ruling 7).
//!
//! A committed entry goes out live only if it is the `next` one and nothing is being read;
//! otherwise only the head is raised, and the queue is read by cursor until it is caught up. One
//! rule for absence, overflow and slow receivers: what waits for a receiver is on disk.

#[cfg(feature = "planted")]
use crate::planted;

/// How far a stored queue is delivered.
#[derive(Debug)]
pub struct Feed {
    next: u64,
    head: u64,
    /// The head when the read under way began.
    reading: Option<u64>,
    suspected: bool,
    acknowledged: u64,
    weight: u64,
    sent: u64,
    reported: u64,
}

impl Feed {
    /// A queue acknowledged up to `acknowledged` (of that queue weight), delivered up to before
    /// `next`, sent at least once up to `sent`, with entries up to `head`.
    pub fn new(acknowledged: u64, weight: u64, next: u64, sent: u64, head: u64) -> Feed {
        Feed {
            next,
            head,
            reading: None,
            suspected: false,
            acknowledged,
            weight,
            sent,
            reported: acknowledged,
        }
    }

    /// An entry was committed. True: it is the next, send it now. `room` tells whether the
    /// client can take it.
    pub fn committed(&mut self, seq: u64, room: bool) -> bool {
        self.head = self.head.max(seq);
        let live = room && self.reading.is_none() && seq == self.next;
        #[cfg(feature = "planted")]
        let live = live || (room && planted::has(planted::Bug::Overtake));
        if live {
            self.next += 1;
        }
        live
    }

    /// Where to read from, if there is something to read and no read under way. The caller
    /// starts the read and ends it with [`read`](Self::read).
    pub fn begin_read(&mut self) -> Option<u64> {
        if self.reading.is_some() || (self.next > self.head && !self.suspected) {
            return None;
        }
        self.suspected = false;
        self.reading = Some(self.head);
        Some(self.next)
    }

    /// A read has ended: entries before `next` have been given out. `ended`: there were no more,
    /// so what is missing up to the head of that time does not exist (dropped, expired). Whether it
    /// has come upon any entry.
    pub fn read(&mut self, next: u64, ended: bool) -> bool {
        let any = next > self.next;
        let head = self.reading.take().unwrap_or(0);
        let passed = if ended { head + 1 } else { 0 };
        self.next = self.next.max(next).max(passed);
        self.head = self.head.max(self.next - 1);
        any
    }

    /// There may be entries that nobody told of: look into the store.
    pub fn suspect(&mut self) {
        self.suspected = true;
    }

    /// True while the queue is not delivered to its end.
    pub fn behind(&self) -> bool {
        self.reading.is_some() || self.suspected || self.next <= self.head
    }

    /// Whether an entry may have been sent over an earlier connection; marks it as sent.
    pub fn send(&mut self, seq: u64) -> bool {
        let before = seq <= self.sent;
        self.sent = self.sent.max(seq);
        before
    }

    /// Everything up to `seq` is complete.
    pub fn acknowledge(&mut self, seq: u64, weight: u64) {
        if seq > self.acknowledged {
            self.acknowledged = seq;
            self.weight = self.weight.max(weight);
        }
    }

    /// Position to store: acknowledged, its weight, and sent; `None` when nothing has moved
    /// since it was last asked.
    pub fn take_progress(&mut self) -> Option<(u64, u64, u64)> {
        if self.reported == self.acknowledged {
            return None;
        }
        self.reported = self.acknowledged;
        Some(self.position())
    }

    /// Acknowledged, its weight, and sent.
    pub fn position(&self) -> (u64, u64, u64) {
        (self.acknowledged, self.weight, self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_entries_go_out_only_in_turn() {
        let mut feed = Feed::new(4, 0, 5, 4, 4);
        assert!(feed.committed(5, true));
        assert!(!feed.committed(6, false), "no room");
        assert!(!feed.committed(7, true), "6 has to go first");
        assert_eq!(feed.begin_read(), Some(6));
        assert_eq!(feed.begin_read(), None, "one read at a time");
        assert!(!feed.committed(8, true), "not while reading");
        assert!(feed.read(8, false));
        assert!(feed.behind());
        assert_eq!(feed.begin_read(), Some(8));
        assert!(feed.read(9, true));
        assert!(!feed.behind());
        assert!(feed.committed(9, true));
    }

    #[test]
    fn a_gap_left_by_dropped_entries_is_passed() {
        let mut feed = Feed::new(0, 0, 1, 0, 10);
        assert_eq!(feed.begin_read(), Some(1));
        assert!(!feed.read(1, true), "no entry is there");
        assert!(!feed.behind());
        assert!(feed.committed(11, true));
        feed.suspect();
        assert_eq!(feed.begin_read(), Some(12), "looked into although nothing is known of");
        assert!(!feed.read(12, true), "11 has been passed before");
        feed.suspect();
        assert_eq!(feed.begin_read(), Some(12));
        assert!(feed.read(14, true));
        assert!(!feed.behind());
    }

    #[test]
    fn progress_is_told_once() {
        let mut feed = Feed::new(0, 0, 1, 0, 0);
        assert_eq!(feed.take_progress(), None);
        assert!(!feed.send(1));
        feed.acknowledge(1, 30);
        assert_eq!(feed.take_progress(), Some((1, 30, 1)));
        assert_eq!(feed.take_progress(), None);
        assert!(feed.send(1), "sent before");
    }
}
