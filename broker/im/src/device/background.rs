//! A device in the background (ruling 35): its groups and channels wait. What is held back stays a
//! position, as everything here: the stream's head rises, and nothing behind `allowed` is sent.

use super::attention::{Arrival, Verdict};
use super::{Device, Gap, Stream, visible};
use crate::id::{ConvKey, ConvKind};

impl Stream {
    /// The last entry there is to send now.
    pub(super) fn last_to_send(&self) -> u64 {
        self.head.min(self.allowed)
    }
}

impl Device {
    /// True while the app is in the background.
    pub fn is_background(&self) -> bool {
        self.attention.is_background()
    }

    /// Whether a notice, a signal or a receipt reaches the device now.
    pub fn passes(&self, arrival: Arrival) -> bool {
        self.attention.passes(arrival)
    }

    /// What may be sent of a conversation that is new to the device.
    pub(super) fn allowed_at_first(&self, conv: &ConvKey) -> u64 {
        if self.is_background() && conv.kind() != ConvKind::User { 0 } else { u64::MAX }
    }

    /// The app went to the background: groups and channels stop, the gaps name what of them is
    /// still to be sent. To be repeated when the list has arrived, if it had not.
    pub fn background(&mut self, now: u64) -> Vec<Gap> {
        self.attention.background();
        let mut waiting = Vec::new();
        for stream in self.streams.if_made().into_iter().flatten() {
            if stream.conv.kind() == ConvKind::User {
                continue;
            }
            if stream.allowed == u64::MAX {
                stream.allowed = 0;
            }
            if stream.next <= stream.head && stream.next > stream.allowed {
                waiting.push((stream.conv.clone(), stream.head));
            }
        }
        let held = waiting.into_iter().map(|(conv, head)| self.hold(now, &conv, head, false));
        held.filter_map(|verdict| match verdict {
            Verdict::Hold(gap) | Verdict::Send(gap) => gap,
        })
        .collect()
    }

    /// The app is looked at again: what was held back and not named flows from the cursor.
    pub fn foreground(&mut self) {
        self.attention.foreground();
        for at in 0..self.streams.len() {
            self.streams[at].allowed = u64::MAX;
            self.queue_if_behind(at as u32);
        }
    }

    /// To be asked before [`Device::live`]: what is held back does not go there. A gap is told
    /// first, and is passed. `mentioned`: the entry mentions the user.
    pub fn hold(&mut self, now: u64, conv: &ConvKey, seq: u64, mentioned: bool) -> Verdict {
        let arrival = match conv.kind() {
            ConvKind::User => Arrival::Direct,
            _ if mentioned => Arrival::Mention,
            _ => Arrival::Group,
        };
        if !self.is_background() || self.is_loading() {
            return Verdict::Send(None);
        }
        let Some(at) = self.stream_of(conv) else { return Verdict::Send(None) };
        let at = at as usize;
        let stream = &mut self.streams[at];
        if arrival == Arrival::Direct || !visible(&stream.intervals, seq) {
            return Verdict::Send(None);
        }
        match self.attention.on_entry(now, conv, seq, arrival) {
            Verdict::Hold(named) => {
                stream.head = stream.head.max(seq);
                Verdict::Hold(named.and_then(|gap| self.named(now, at, gap.to)))
            }
            Verdict::Send(_) => {
                // A mention that waits for room is not passed: what is between flows with it.
                let waits = stream.next <= stream.last_to_send();
                let gap = if waits { None } else { self.named(now, at, seq.saturating_sub(1)) };
                self.streams[at].allowed = seq;
                Verdict::Send(gap)
            }
        }
    }

    /// When [`Device::poke`] has something to name.
    pub fn poke_timeout(&self) -> Option<u64> {
        self.attention.next_timeout()
    }

    /// Names what has been held back for an interval.
    pub fn poke(&mut self, now: u64) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for Gap { conv, to, .. } in self.attention.on_tick(now) {
            if let Some(at) = self.followed(&conv) {
                gaps.extend(self.named(now, at as usize, to));
            }
        }
        gaps
    }

    /// Passes everything of a stream that was not sent, up to `to`: that is the gap. While a
    /// mention waits for room nothing is passed; it is asked again an interval later.
    fn named(&mut self, now: u64, at: usize, to: u64) -> Option<Gap> {
        let stream = &mut self.streams[at];
        if stream.next <= stream.last_to_send() {
            let conv = stream.conv.clone();
            self.attention.on_entry(now, &conv, to, Arrival::Group);
            return None;
        }
        let from = stream.next;
        if from > to {
            return None;
        }
        stream.next = to + 1;
        stream.head = stream.head.max(to);
        // Behind something that is under way, the next acknowledgement takes the cursor along.
        if stream.acked + 1 == from {
            stream.acked = to;
            self.note_moved(at as u32);
        }
        Some(Gap { conv: self.streams[at].conv.clone(), from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Live, Start};
    use crate::rows::{Interval, since};
    use smallvec::smallvec;

    fn team() -> ConvKey {
        ConvKey::group("default", "team")
    }

    fn start(conv: ConvKey, cursor: u64, head: u64) -> Start {
        let intervals = since(1);
        Start { conv, cursor, head, intervals, version: 1 }
    }

    /// A device that has received five entries of the group.
    fn device() -> Device {
        let mut device = Device::new();
        device.load([start(team(), 5, 5)].into_iter().collect(), 200);
        device
    }

    /// An entry of the group comes: what the device gets, gap first.
    fn arrive(device: &mut Device, now: u64, seq: u64, mentioned: bool, room: bool) -> String {
        let (gap, sent) = match device.hold(now, &team(), seq, mentioned) {
            Verdict::Hold(gap) => (gap, false),
            Verdict::Send(gap) => (gap, device.live(&team(), seq, room, false) != Live::Nothing),
        };
        let gap = gap.map(|gap| format!("gap {}..{}", gap.from, gap.to));
        let sent = sent.then(|| seq.to_string());
        gap.into_iter().chain(sent).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn groups_wait_mentions_flow_and_everything_else_is_named() {
        let mut device = device();
        assert_eq!(arrive(&mut device, 0, 6, false, true), "6");
        assert_eq!(device.background(0), []);
        let cases = [
            (1, 7, false, "gap 7..7"),
            (2, 8, false, ""),
            (3, 9, false, ""),
            (4, 10, true, "gap 8..9, 10"),
            (5, 11, true, "11"),
            (6, 12, false, ""),
            (31_000, 13, false, "gap 12..13"),
            (31_001, 14, false, ""),
        ];
        for (now, seq, mentioned, expected) in cases {
            assert_eq!(arrive(&mut device, now, seq, mentioned, true), expected, "{seq}");
        }
        assert_eq!(device.next_reads(100), [], "nothing is read for it either");
        assert_eq!(device.poke_timeout(), Some(61_000));
        assert_eq!(device.poke(61_000), [Gap { conv: team(), from: 14, to: 14 }]);
        // 1:1 conversations flow, also new ones.
        let pair = ConvKey::pair("default", "alice", "bob");
        assert_eq!(device.hold(61_001, &pair, 1, false), Verdict::Send(None));
        assert!(matches!(device.live(&pair, 1, true, false), Live::Send { .. }));
    }

    #[test]
    fn what_was_not_named_is_read_when_the_app_is_back() {
        let mut device = device();
        device.background(0);
        for seq in 6..9 {
            arrive(&mut device, 1, seq, false, true);
        }
        device.foreground();
        let read = device.next_reads(100).remove(0);
        assert_eq!((read.from, read.to), (7, 8), "6 was named");
        device.read(0, 8);
        assert_eq!(arrive(&mut device, 2, 9, false, true), "9");
    }

    #[test]
    fn a_replay_under_way_stops_and_is_named() {
        let mut device = Device::new();
        device.load([start(team(), 0, 50)].into_iter().collect(), 200);
        let read = device.next_reads(10).remove(0);
        assert_eq!((read.from, read.to), (1, 10));
        device.read(0, 10);
        assert_eq!(device.background(0), [Gap { conv: team(), from: 11, to: 50 }]);
        assert_eq!(device.next_reads(10), []);
        // The cursor waits for what is under way, then goes along.
        assert_eq!(device.take_moves(), []);
        assert_eq!(arrive(&mut device, 1, 51, true, true), "51");
        device.acknowledged(0, 51, true);
        assert_eq!(device.take_moves(), [(team(), 51, 51)]);
    }

    #[test]
    fn a_mention_without_room_is_not_passed() {
        let mut device = device();
        device.background(0);
        assert_eq!(arrive(&mut device, 0, 6, false, true), "gap 6..6");
        assert_eq!(arrive(&mut device, 1, 7, true, false), "", "no room");
        assert_eq!(arrive(&mut device, 2, 8, false, true), "");
        assert_eq!(device.poke(30_000), [], "the mention is still to be sent");
        let read = device.next_reads(100).remove(0);
        assert_eq!((read.from, read.to), (7, 7), "and is read when there is");
        device.read(0, 7);
        assert_eq!(device.next_read(100), None);
        assert_eq!(device.poke(60_000), [Gap { conv: team(), from: 8, to: 8 }]);
    }

    #[test]
    fn a_background_before_the_list_holds_when_it_has_come() {
        let mut device = Device::new();
        assert_eq!(device.background(0), []);
        assert_eq!(arrive(&mut device, 1, 9, false, true), "", "noted for the list");
        device.load([start(team(), 5, 8)].into_iter().collect(), 200);
        assert_eq!(device.next_read(100), None);
        assert_eq!(device.background(2), [Gap { conv: team(), from: 6, to: 9 }]);
    }

    #[test]
    fn what_may_not_be_seen_is_not_named() {
        let mut device = Device::new();
        let intervals = smallvec![Interval { from: 1, until: Some(5) }];
        device.load([Start { intervals, ..start(team(), 5, 5) }].into_iter().collect(), 200);
        device.background(0);
        assert_eq!(arrive(&mut device, 1, 6, false, true), "");
        assert_eq!(device.poke_timeout(), None);
    }
}
