//! Big groups and channels: beyond a member's budget entries are passed and named together
//! (profile, section 7). They stay in the log and can be pulled.

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
        self.pass(at, seq);
        match self.passed.iter_mut().rev().find(|gap| gap.conv == *conv) {
            Some(gap) if gap.to + 1 == seq => gap.to = seq,
            _ => self.passed.push(Gap { conv: conv.clone(), from: seq, to: seq }),
        }
        true
    }

    /// What has been passed since the last time.
    pub fn take_passed(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Live, Start};
    use super::*;
    use crate::rows::Interval;

    #[test]
    fn what_is_passed_is_named_once_and_the_cursor_goes_on() {
        let conv = ConvKey::group("default", "crowd");
        let intervals = vec![Interval { from: 1, until: None }];
        let mut device = Device::new();
        device.load(vec![Start { conv: conv.clone(), cursor: 0, head: 0, intervals }], 200);
        assert_eq!(device.live(&conv, 1, true, false), Live::Send { stream: 0 });
        assert!(device.pass_over(&conv, 2) && device.pass_over(&conv, 3));
        assert_eq!(device.live(&conv, 4, true, false), Live::Send { stream: 0 });
        assert!(device.pass_over(&conv, 5));
        assert!(!device.pass_over(&conv, 7), "6 is missing: it is behind");
        let gap = |from, to| Gap { conv: conv.clone(), from, to };
        assert_eq!(device.take_passed(), [gap(2, 3), gap(5, 5)]);
        assert_eq!(device.take_passed(), []);
        device.acknowledged(0, 1, true);
        device.acknowledged(0, 4, true);
        assert_eq!(device.take_moves(), [(conv, 4, 4)]);
    }
}
