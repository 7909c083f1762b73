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
    /// A conversation gives a number twice.
    GiveSeqTwice,
    /// A message with a client message id that was there before is stored once more.
    ForgetCid,
    /// A recall does not reach what was read for a device and not sent yet.
    ReplayRecalled,
    /// A removed member goes on pulling.
    ShowBeyondRemoval,
    /// A crash takes back that one's own messages are read.
    ForgetOwnRead,
    /// What a write of unknown outcome has stored after all is announced to nobody.
    SilentRecovery,
    /// Whoever reads a channel may post there.
    PostByAnyone,
    /// Who no longer follows a channel goes on getting it.
    FollowForEver,
    /// Who is a member again sees no more what there was before.
    ForgetOldInterval,
    /// What was read and is to burn stays.
    NeverBurn,
    /// What has expired is shown.
    ShowExpired,
    /// What was cleared is there again.
    ForgetClear,
    /// News do not bring a hidden conversation back.
    HideForGood,
    /// Retention takes more than it may.
    KeepTooLittle,
}

impl Bug {
    /// Those of any broker.
    pub const PLAIN: [Bug; 7] = [
        Bug::AcknowledgeBeforeCommit,
        Bug::ForgetDup,
        Bug::ReuseSeq,
        Bug::ReuseIdentifier,
        Bug::ForgetMarkers,
        Bug::TwoDrivers,
        Bug::Overtake,
    ];

    /// Those of the IM profile.
    pub const CHAT: [Bug; 14] = [
        Bug::GiveSeqTwice,
        Bug::ForgetCid,
        Bug::ReplayRecalled,
        Bug::ShowBeyondRemoval,
        Bug::ForgetOwnRead,
        Bug::SilentRecovery,
        Bug::PostByAnyone,
        Bug::FollowForEver,
        Bug::ForgetOldInterval,
        Bug::NeverBurn,
        Bug::ShowExpired,
        Bug::ForgetClear,
        Bug::HideForGood,
        Bug::KeepTooLittle,
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
