//! Bugs planted on purpose, one at a time, so that the simulation can show that it would find them.
//!
//! Compiled with the feature `planted` alone, which no program has: `hoopoe` refuses to be built
//! with it, and a house rule keeps it out of every manifest's defaults and dependencies.

use std::cell::Cell;

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A batch counts as committed before it is synced.
    AcknowledgeBeforeCommit,
    /// A message that was sent before goes out again without DUP.
    ForgetDup,
    /// After a start the last number of a queue is given once more.
    ReuseSeq,
    /// A packet identifier is given without a look at what is in flight.
    ReuseIdentifier,
    /// A start forgets which QoS 2 publications were submitted.
    ForgetMarkers,
    /// A newcomer gets its session while another connection still drives it.
    TwoDrivers,
    /// A live entry goes out although earlier ones were not sent.
    Overtake,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 7] = [
        Bug::AcknowledgeBeforeCommit,
        Bug::ForgetDup,
        Bug::ReuseSeq,
        Bug::ReuseIdentifier,
        Bug::ForgetMarkers,
        Bug::TwoDrivers,
        Bug::Overtake,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug in everything that this thread does from now on, or takes it out.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted.
pub fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
