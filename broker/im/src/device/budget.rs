//! Big groups and channels: beyond a member's budget entries are passed and named together
//! (profile, section 7). They stay in the log and can be pulled.
//!
//! They are named before anything behind them is sent, so that a device that sees a hole has been
//! told of it. The cursor stands before them until what comes next is acknowledged: a notice is not
//! acknowledged itself, and may be lost with its connection. Who goes before that gets them over the
//! next one (ruling 23: nothing is skipped silently).

use super::{Device, Gap, visible};
use crate::id::ConvKey;

/// Stretches that wait to be named; beyond it entries are delivered as usual.
const MOST_PASSED: usize = 1_024;

impl Device {
    /// A committed entry beyond the budget: it is passed, if it would have been the next to be
    /// sent. False when it is to take its usual way.
    pub fn pass_over(&mut self, conv: &ConvKey, seq: u64) -> bool {
        if self.is_loading() || self.passed.len() >= MOST_PASSED {
            return false;
        }
        let Some(at) = self.stream_of(conv) else { return false };
        let stream = &mut self.streams[at as usize];
        if seq != stream.next || stream.queued || !visible(&stream.intervals, seq) {
            return false;
        }
        stream.head = stream.head.max(seq);
        stream.next = seq + 1;
        match self.passed.iter_mut().rev().find(|gap| gap.conv == *conv) {
            Some(gap) if gap.to + 1 == seq => gap.to = seq,
            _ => self.passed.push(Gap { conv: conv.clone(), from: seq, to: seq }),
        }
        true
    }

    /// What has been passed and is to be named now, of one conversation or of all.
    pub fn take_passed(&mut self, of: Option<&ConvKey>) -> Vec<Gap> {
        let Some(passed) = self.passed.if_made() else { return Vec::new() };
        let is_meant = |gap: &Gap| of.is_none_or(|conv| gap.conv == *conv);
        let (named, rest): (Vec<Gap>, Vec<Gap>) = passed.drain(..).partition(is_meant);
        self.passed = rest.into();
        named
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Live, Start};
    use super::*;
    use crate::rows::since;

    /// A device at the beginning of a big group.
    fn in_a_crowd() -> (ConvKey, Device) {
        let conv = ConvKey::group("default", "crowd");
        let intervals = since(1);
        let start = Start { conv: conv.clone(), cursor: 0, head: 0, intervals, version: 1 };
        let mut device = Device::new();
        device.load([start].into_iter().collect(), 200);
        (conv, device)
    }

    #[test]
    fn what_is_passed_is_named_once_and_the_cursor_goes_on() {
        let (conv, mut device) = in_a_crowd();
        assert_eq!(device.live(&conv, 1, true, false), Live::Send { stream: 0 });
        assert!(device.pass_over(&conv, 2) && device.pass_over(&conv, 3));
        assert_eq!(device.live(&conv, 4, true, false), Live::Send { stream: 0 });
        assert!(device.pass_over(&conv, 5));
        assert!(!device.pass_over(&conv, 7), "6 is missing: it is behind");
        let gap = |from, to| Gap { conv: conv.clone(), from, to };
        let other = ConvKey::group("default", "other");
        assert_eq!(device.take_passed(Some(&other)), []);
        assert_eq!(device.take_passed(Some(&conv)), [gap(2, 3), gap(5, 5)]);
        assert_eq!(device.take_passed(None), []);
        device.acknowledged(0, 1, true);
        device.acknowledged(0, 4, true);
        assert_eq!(device.take_moves(), [(conv, 4, 4)]);
    }

    #[test]
    fn the_cursor_waits_for_an_acknowledgement_behind_what_is_passed() {
        let (conv, mut device) = in_a_crowd();
        assert_eq!(device.live(&conv, 1, true, false), Live::Send { stream: 0 });
        device.acknowledged(0, 1, true);
        assert!(device.pass_over(&conv, 2) && device.pass_over(&conv, 3));
        assert_eq!(device.take_moves(), [(conv.clone(), 1, 1)], "what is not named comes again");
        assert_eq!(device.take_passed(None), [Gap { conv: conv.clone(), from: 2, to: 3 }]);
        assert_eq!(device.live(&conv, 4, true, true), Live::Nothing, "its own");
        assert_eq!(device.take_moves(), [], "the notice may be lost with the connection");
        assert_eq!(device.live(&conv, 5, true, false), Live::Send { stream: 0 });
        device.acknowledged(0, 5, true);
        assert_eq!(device.take_moves(), [(conv, 5, 5)], "it was read before this");
    }
}
