//! Every scenario of the program with what its checks claim. A scenario that is not here fails a test:
//! whoever adds one says what it checks, and the erring brokers try it.

use super::erring::Error;

/// What a scenario needs beside a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: any MQTT broker.
    Mqtt,
    /// Commands that kill the broker and start it again.
    Lever,
    /// The IM profile, which one broker has.
    Profile,
}

/// An error of a broker and the counter that sees it.
pub(crate) type Claim = (Error, &'static str);

const LOSS: Claim = (Error::Lose, "lost");
const DOUBLING: Claim = (Error::Double, "doubled");
const DISORDER: Claim = (Error::Overtake, "out_of_order");
const ALL: &[Claim] = &[LOSS, DOUBLING, DISORDER];

/// A scenario at small size.
pub(crate) struct Row {
    /// Its name in `hoopoe-bench list`.
    pub preset: &'static str,
    /// Numbers for a test.
    pub small: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// What it claims to find; nothing: it is about connections, or says why not.
    pub claims: &'static [Claim],
}

impl Row {
    /// The words for `hoopoe-bench run`.
    pub(crate) fn words(&self) -> String {
        format!("{} {}", self.preset, self.small)
    }
}

const fn mqtt(preset: &'static str, small: &'static str, claims: &'static [Claim]) -> Row {
    Row { preset, small, needs: Needs::Mqtt, claims }
}

const fn lever(preset: &'static str, small: &'static str, claims: &'static [Claim]) -> Row {
    Row { preset, small, needs: Needs::Lever, claims }
}

const fn profile(preset: &'static str, small: &'static str, claims: &'static [Claim]) -> Row {
    Row { preset, small, needs: Needs::Profile, claims }
}

/// All scenarios.
pub(crate) const ROWS: &[Row] = &[
    mqtt("pairs0", "--pairs 3 --duration 0.3", ALL),
    mqtt("pairs1", "--pairs 3 --duration 0.3", ALL),
    mqtt("pairs2", "--pairs 3 --duration 0.3", ALL),
    mqtt("pairs1-2000", "--pairs 40 --window 2 --duration 0.3", ALL),
    mqtt("pairs-durable", "--pairs 3 --window 5 --duration 0.3", ALL),
    mqtt("group200", "--groups 4 --members 6 --memberships 2 --speakers 1 --duration 0.3", ALL),
    mqtt(
        "group-durable",
        "--groups 2 --members 6 --memberships 2 --speakers 1 --duration 0.3",
        ALL,
    ),
    mqtt("room5000", "--clients 8 --qos 1 --duration 0.3", ALL),
    mqtt("room10000", "--clients 12 --duration 0.3", ALL),
    mqtt("rate5k", "--pairs 2 --rate 400 --duration 0.5", ALL),
    mqtt("rate5k", "--pairs 2 --rate 400 --retained 20 --duration 0.5", ALL),
    mqtt("storm", "--clients 40", &[]),
    mqtt("storm-durable", "--clients 40", &[]),
    mqtt("storm-resume", "--clients 40", &[]),
    mqtt("idle", "--clients 40 --duration 0.3", &[]),
    // One message in each topic: nothing could be out of order.
    mqtt("retained", "--messages 100 --publishers 2", &[LOSS, DOUBLING]),
    mqtt("offline", "--clients 4 --messages 20 --publishers 2", ALL),
    lever("crash", "--clients 4 --messages 20 --publishers 2", ALL),
    lever("crash-feed", "--clients 4 --messages 50 --publishers 2 --window 5", ALL),
    mqtt(
        "login",
        "--clients 6 --subscriptions 8 --news 2 --messages 20 --publishers 2 --pending 4",
        ALL,
    ),
    mqtt(
        "mixed",
        "--clients 12 --groups 3 --members 4 --viewers 6 --churn 20 --away 0.05 --rate 900 \
         --duration 0.6",
        ALL,
    ),
    mqtt("office", "--clients 12 --groups 3 --members 4 --rate 900 --duration 0.6", ALL),
    profile("im-pairs", "--pairs 5 --window 5 --duration 0.3", ALL),
    profile("im-group", "--groups 4 --members 10 --memberships 2 --speakers 1 --duration 0.3", ALL),
    profile("im-big-group", "--members 20 --absent 1500 --speakers 1 --duration 0.3", ALL),
    profile("im-room", "--clients 30 --speakers 1 --rate 60 --duration 1", ALL),
    profile("im-room", "--clients 30 --speakers 1 --blocked 2 --rate 60 --duration 1", ALL),
    profile("im-sync", "--clients 5 --messages 70 --duration 0.3", ALL),
    profile("im-sync", "--clients 3 --subscriptions 4 --messages 20 --duration 0.3", ALL),
    profile("im-login", "--clients 10 --subscriptions 20 --news 5 --messages 20", ALL),
];

/// What every broker must be found out by, beyond the claims: scenario, error, counter.
pub(crate) const MORE: &[(&str, Error, &str)] = &[
    ("pairs1", Error::Misroute, "misrouted"),
    ("pairs1", Error::Damage, "damaged"),
    ("pairs2", Error::Repeat, "redelivered"),
    ("group200", Error::Misroute, "misrouted"),
    ("mixed", Error::Misroute, "misrouted"),
    ("offline", Error::ForgetSessions, "lost"),
    ("crash", Error::LoseAtCrash, "lost"),
    ("crash-feed", Error::LoseAtCrash, "lost"),
    ("crash-feed", Error::DoubleAtCrash, "doubled"),
    ("crash-feed", Error::ShuffleAtCrash, "out_of_order"),
];

/// The row of a scenario.
pub(crate) fn row(preset: &str) -> &'static Row {
    ROWS.iter().find(|row| row.preset == preset).unwrap_or_else(|| panic!("{preset}"))
}
