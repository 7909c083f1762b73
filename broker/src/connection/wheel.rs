//! One coarse timer wheel per worker: who is to be looked at in which second.
//!
//! The wheel holds places, not deadlines: when a place comes up, its connection says whether the
//! time is really over and when to look again. A packet that arrives therefore moves no timer.

use hoopoe_core::Location;

/// Seconds of one turn of the wheel; later deadlines are looked at once per turn.
const SECONDS: usize = 256;

/// Places by the second in which they are looked at.
#[derive(Debug)]
pub struct Wheel {
    now: u64,
    seconds: Vec<Vec<Location>>,
}

impl Wheel {
    /// A wheel that starts at second `now`.
    pub fn new(now: u64) -> Wheel {
        Wheel { now, seconds: vec![Vec::new(); SECONDS] }
    }

    /// Looks at `location` in second `at`, or earlier.
    pub fn schedule(&mut self, location: Location, at: u64) {
        let ahead = at.saturating_sub(self.now).clamp(1, SECONDS as u64 - 1);
        self.seconds[(self.now + ahead) as usize % SECONDS].push(location);
    }

    /// Gives those whose second has come, up to second `now`.
    pub fn advance(&mut self, now: u64, due: &mut Vec<Location>) {
        while self.now < now {
            self.now += 1;
            due.append(&mut self.seconds[self.now as usize % SECONDS]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_up_in_their_second_or_once_a_turn() {
        let mut wheel = Wheel::new(1000);
        let near = Location::new(0, 1, 1);
        let far = Location::new(0, 1, 2);
        wheel.schedule(near, 1003);
        wheel.schedule(far, 9999);
        let mut due = Vec::new();
        wheel.advance(1002, &mut due);
        assert!(due.is_empty());
        wheel.advance(1003, &mut due);
        assert_eq!(due, [near]);
        due.clear();
        wheel.advance(1000 + SECONDS as u64, &mut due);
        assert_eq!(due, [far]);
    }
}
