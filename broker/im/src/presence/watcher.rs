//! One watcher of one user: what it was told last, and when that has to be corrected.

use super::row::{PresenceRow, Stamp, View};
use super::show::OFFLINE;

/// A registration of a watcher with the watched user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Watcher {
    /// Version the watcher was told last.
    pub told: u64,
    /// Least version to tell: raised when the user is shown again after having been hidden, so
    /// that it is newer than what was told then.
    pub floor: u64,
    /// The watcher was told what strangers are told.
    pub hidden: bool,
}

impl Watcher {
    /// What there is to see for this watcher. `own`: the watcher is the user.
    pub fn view(&self, row: &PresenceRow, own: bool) -> View {
        let mut view = if own { row.own() } else { row.seen() };
        view.version = view.version.max(self.floor);
        view
    }

    /// What the watcher has to be told at `now`, if anything.
    pub fn news(&mut self, row: &mut PresenceRow, now: u64, own: bool, sees: bool) -> Option<View> {
        let view = self.view(row, own);
        let told_offline = &*view.show == OFFLINE && view.version <= self.told;
        if !sees {
            if self.hidden || told_offline {
                self.hidden = true;
                return None;
            }
            // The last thing this watcher hears looks like going offline.
            let version = row.issue(now);
            (self.hidden, self.told) = (true, version);
            return Some(View::offline(Stamp { since: now, version }));
        }
        let was_hidden = std::mem::take(&mut self.hidden);
        if view.version > self.told {
            self.told = view.version;
            return Some(view);
        }
        if !was_hidden || told_offline {
            return None;
        }
        // Shown again, unchanged: told anew above what was told of hiding.
        self.floor = row.issue(now);
        self.told = self.floor;
        Some(self.view(row, own))
    }
}
