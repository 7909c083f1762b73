//! Presence: who is here, in which mood, and who is told of it.
//!
//! Presence is state with a version, not raw connect events: a user is here while a device is
//! connected and for a grace time after the last one has gone, so that a phone changing cells
//! disturbs nobody. What changes is told to those who watch, at most once per user and interval.
//!
//! Two steps, both owned by user shards: [`Presence`] lives in the shard of the *watched* user and
//! knows states and watchers, [`WatchLists`] in the shard of the *watching* one and knows whom it
//! watches. Both are fed times and rows and perform nothing; rows come back to be written with the
//! shard's batch, notices to be sent once it has committed.
//!
//! Deliberately not here: who may see whom (the caller says so, it knows policy, roster and
//! blocks), how a notice reaches devices, and the background mode, which is a device's affair.

mod lists;
mod row;
mod show;
mod step;
mod watcher;
pub(crate) mod work;

#[cfg(test)]
mod shard_tests;
#[cfg(test)]
mod tests;

pub use lists::WatchLists;
pub use row::{PresenceRow, Stamp, View};
pub use show::{BadShow, BadText, OFFLINE, SHOW_BYTES, STATUS_TEXT_BYTES, Show, StatusText};
pub use step::{Change, Presence, Tick};
pub use work::{SetShow, WatchStep, WatchStepKind};

/// How long, how often and how many: the settings of presence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PresenceSettings {
    /// How long a user stays here after the last device has gone, in milliseconds.
    pub grace_ms: u64,
    /// Least time between two notices about one user, in milliseconds.
    pub interval_ms: u64,
    /// How many users one user may watch (ruling 37).
    pub watches: usize,
    /// How many users may watch one user.
    pub watchers: usize,
    /// How many notices one tick gives at most; what is over comes with the next.
    pub notices_per_tick: usize,
}

impl Default for PresenceSettings {
    fn default() -> PresenceSettings {
        PresenceSettings {
            grace_ms: 30_000,
            interval_ms: 1_000,
            watches: 500,
            watchers: 10_000,
            // A few milliseconds of a shard's time, then messages have their turn.
            notices_per_tick: 512,
        }
    }
}

/// Why a watch was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WatchRefused {
    /// The watcher's own list is full.
    #[error("no more than {0} users can be watched")]
    TooManyWatched(usize),
    /// As many watch this user as may.
    #[error("no more than {0} users can watch one user")]
    TooManyWatchers(usize),
}
