//! What is kept of a user's presence over a restart, and what others and the user's own devices
//! see of it. The row is also the state in memory: one shape, one set of rules.
//!
//! The row is written at each change that somebody could see, so that readers answer from
//! committed rows alone; a login is one, so what is as with everybody is left out of it.
//! Deliberately not here: devices and watchers, which die with the process.

use serde::{Deserialize, Serialize};

use super::show::{OFFLINE, Show, StatusText};

/// Since when something is seen, and the number of that sight. Versions of one user only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since the epoch.
    pub since: u64,
    /// Greater than that of every earlier sight of this user.
    pub version: u64,
}

/// What somebody sees of a user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct View {
    /// The word: a [`Show`] or [`OFFLINE`].
    pub show: Box<str>,
    /// The free text; empty when offline.
    pub text: Box<str>,
    /// Milliseconds since the epoch; 0: the user was never here, or is not to be seen.
    pub since: u64,
    /// Greater than that of every earlier view of this user.
    pub version: u64,
}

impl View {
    /// A user of whom nothing is to be seen: the same as one who was never here, so that a block
    /// does not show.
    pub fn nobody() -> View {
        View::offline(Stamp::default())
    }

    /// Offline, stamped.
    pub fn offline(stamp: Stamp) -> View {
        View {
            show: OFFLINE.into(),
            text: Box::default(),
            since: stamp.since,
            version: stamp.version,
        }
    }

    /// The body of `im/me/pr/{user}` and of an element of service answers.
    pub fn json(&self, user: &str) -> serde_json::Value {
        serde_json::json!({
            "user": user,
            "show": self.show,
            "text": self.text,
            "since": self.since,
            "version": self.version,
        })
    }
}

/// Last value of a user's presence.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PresenceRow {
    /// What the user shows while here.
    #[serde(default, skip_serializing_if = "Show::is_usual")]
    pub show: Show,
    /// The text beside it.
    #[serde(default, skip_serializing_if = "StatusText::is_empty")]
    pub text: StatusText,
    /// A device was connected, or gone for less than the grace time, when this was written.
    pub here: bool,
    /// What others see.
    pub seen: Stamp,
    /// What the user's own devices see.
    pub own: Stamp,
    /// Highest version given out so far.
    pub issued: u64,
    /// When the process that wrote this had started: what an earlier one left as `here` is not.
    pub boot: u64,
}

impl PresenceRow {
    /// What others who may see the user see.
    pub fn seen(&self) -> View {
        if self.show.is_invisible() { View::offline(self.seen) } else { self.sight(self.seen) }
    }

    /// What the user's own devices see.
    pub fn own(&self) -> View {
        self.sight(self.own)
    }

    fn sight(&self, stamp: Stamp) -> View {
        if !self.here {
            return View::offline(stamp);
        }
        View {
            show: self.show.as_str().into(),
            text: self.text.as_str().into(),
            since: stamp.since,
            version: stamp.version,
        }
    }

    /// A version above all others of this user. It follows the clock, so that a row lost in a
    /// power failure does not make versions go back.
    pub fn issue(&mut self, now: u64) -> u64 {
        self.issued = now.max(self.issued + 1);
        self.issued
    }

    /// Makes a change and stamps what looks different by it. True if anything does.
    pub(super) fn change(&mut self, now: u64, make: impl FnOnce(&mut PresenceRow)) -> bool {
        let (seen, own) = (self.seen(), self.own());
        make(self);
        // With unchanged stamps the views differ exactly if show or text do. What others see is
        // made of what the user's devices see, so it cannot change alone.
        if self.own() == own {
            return false;
        }
        let stamp = Stamp { since: now, version: self.issue(now) };
        if self.seen() != seen {
            self.seen = stamp;
        }
        self.own = stamp;
        true
    }

    /// What this row, read back, means at `now` in a process that started at `started`, for a user
    /// of whom nothing is in memory. Users that an earlier process left here get one grace time
    /// from the start to come back unnoticed (as ruling 14 has it for wills).
    pub fn read_back(mut self, now: u64, started: u64, grace_ms: u64) -> PresenceRow {
        if self.is_left_over(started) && now >= started.saturating_add(grace_ms) {
            self.change(started, |row| row.here = false);
        }
        self
    }

    /// Here, but by the word of an earlier process.
    pub(super) fn is_left_over(&self, started: u64) -> bool {
        self.here && self.boot != started
    }
}
