//! What a scenario does, in numbers: kinds, presets under the names of our performance table, and
//! the overrides that flags and scenario files make.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::stamp::STAMP_LEN;

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Users talk in pairs, both ways.
    Pairs,
    /// Groups of members; every user is in several.
    Group,
    /// One live room: few speak, everybody hears.
    Room,
    /// Connect and subscribe as fast as possible.
    Storm,
    /// Connected and silent: memory per connection.
    Idle,
    /// One subscriber to everything retained.
    Retained,
    /// Sessions leave, messages arrive, all return.
    Offline,
    /// As offline, and the broker is killed in between.
    Crash,
    /// Users with many conversations return to waiting messages.
    Login,
    /// An evening of chat: 1:1 with receipts, groups, a room, people who come and go.
    Mixed,
}

/// MQTT version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub(crate) enum Mqtt {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    #[value(name = "3.1.1", alias = "4", alias = "311")]
    V311,
    /// MQTT 5.0.
    #[serde(rename = "5.0")]
    #[value(name = "5.0", alias = "5")]
    V5,
}

/// All numbers of one scenario; each kind uses those that mean something to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// Name in tables and files.
    pub name: String,
    /// What is played.
    pub kind: Kind,
    /// Protocol version.
    pub mqtt: Mqtt,
    /// QoS of publications and subscriptions.
    pub qos: u8,
    /// Payload bytes.
    pub size: usize,
    /// Sessions outlive their connections.
    pub persistent: bool,
    /// Closed loop: unfinished messages per user (pairs), group, room or publisher.
    pub window: u32,
    /// Open loop: publications per second over all; none: closed loop.
    pub rate: Option<f64>,
    /// Seconds measured.
    pub duration_secs: f64,
    /// Seconds played before that.
    pub warmup_secs: f64,
    /// Seconds of silence after which what is missing counts as lost.
    pub drain_secs: f64,
    /// Connections being opened at the same time.
    pub pending: usize,
    /// Connections opened per second at most; none: as fast as it goes.
    pub ramp: Option<f64>,
    /// Pairs of users.
    pub pairs: usize,
    /// Groups.
    pub groups: usize,
    /// Members per group.
    pub members: usize,
    /// Groups that each user is in.
    pub memberships: usize,
    /// Who speaks in a group or room, in turn.
    pub speakers: usize,
    /// Connections that listen (room), connect (storm, idle), leave and return (offline, login), or
    /// chat (mixed).
    pub clients: usize,
    /// Subscriptions of each connection (storm, idle), conversations of each user (login).
    pub subscriptions: usize,
    /// Messages for each session (offline, login), or topics (retained).
    pub messages: usize,
    /// Conversations of each user in which messages wait (login).
    pub news: usize,
    /// Users who watch the room (mixed).
    pub viewers: usize,
    /// Users who leave per second (mixed).
    pub churn: f64,
    /// Seconds that they are away.
    pub away_secs: f64,
    /// Connections that publish (offline, retained).
    pub publishers: usize,
    /// Storm: measure the return of known sessions rather than first visits.
    pub resume: bool,
}

/// Replaces some numbers of a shape; the same words as flags and in scenario files.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Shape of the scenario")]
pub(crate) struct Overrides {
    /// MQTT version: 3.1.1 or 5.0
    #[arg(long)]
    pub mqtt: Option<Mqtt>,
    /// QoS of publications and subscriptions
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: Option<u8>,
    /// Payload bytes (at least 32)
    #[arg(long)]
    pub size: Option<usize>,
    /// Sessions outlive their connections (pairs, group, room)
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub persistent: Option<bool>,
    /// Closed loop: unfinished messages per user, group, room or publisher
    #[arg(long)]
    pub window: Option<u32>,
    /// Open loop: publications per second; latency counts from the due time
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds to measure
    #[arg(long = "duration")]
    #[serde(rename = "duration")]
    pub duration_secs: Option<f64>,
    /// Seconds to play before measuring
    #[arg(long = "warmup")]
    #[serde(rename = "warmup")]
    pub warmup_secs: Option<f64>,
    /// Seconds of silence after which what is missing is lost
    #[arg(long = "drain")]
    #[serde(rename = "drain")]
    pub drain_secs: Option<f64>,
    /// Connections being opened at the same time
    #[arg(long)]
    pub pending: Option<usize>,
    /// Connections opened per second at most
    #[arg(long)]
    pub ramp: Option<f64>,
    /// Pairs of users
    #[arg(long)]
    pub pairs: Option<usize>,
    /// Groups
    #[arg(long)]
    pub groups: Option<usize>,
    /// Members per group
    #[arg(long)]
    pub members: Option<usize>,
    /// Groups that each user is in
    #[arg(long)]
    pub memberships: Option<usize>,
    /// Who speaks in a group or room, in turn
    #[arg(long)]
    pub speakers: Option<usize>,
    /// Connections that listen (room), connect (storm, idle), leave and return (offline, login), chat
    /// (mixed)
    #[arg(long)]
    pub clients: Option<usize>,
    /// Subscriptions of each connection (storm, idle), conversations of each user (login)
    #[arg(long)]
    pub subscriptions: Option<usize>,
    /// Messages for each session (offline, crash, login), or topics (retained)
    #[arg(long)]
    pub messages: Option<usize>,
    /// Conversations of each user in which messages wait (login)
    #[arg(long)]
    pub news: Option<usize>,
    /// Users who watch the room (mixed)
    #[arg(long)]
    pub viewers: Option<usize>,
    /// Users who leave per second (mixed)
    #[arg(long)]
    pub churn: Option<f64>,
    /// Seconds that they are away (mixed)
    #[arg(long = "away")]
    #[serde(rename = "away")]
    pub away_secs: Option<f64>,
    /// Connections that publish (offline, crash, retained)
    #[arg(long)]
    pub publishers: Option<usize>,
    /// Storm: known sessions return
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub resume: Option<bool>,
}

macro_rules! overlay {
    ($over:expr, $shape:expr; $($field:ident),* ; $($optional:ident),*) => {
        $(if let Some(value) = $over.$field { $shape.$field = value; })*
        $(if $over.$optional.is_some() { $shape.$optional = $over.$optional; })*
    };
}

impl Overrides {
    /// Puts the given numbers into a shape.
    pub(crate) fn apply(&self, shape: &mut Shape) {
        overlay!(self, shape;
            mqtt, qos, size, persistent, window, duration_secs, warmup_secs, drain_secs, pending,
            pairs, groups, members, memberships, speakers, clients, subscriptions, messages,
            news, viewers, churn, away_secs, publishers, resume;
            rate, ramp);
    }
}

/// Names of all presets with what they do.
pub(crate) const PRESETS: &[(&str, &str)] = &[
    ("pairs0", "100 pairs, both ways, 256 B, QoS 0, 10 unfinished per user"),
    ("pairs1", "the same at QoS 1"),
    ("pairs2", "the same at QoS 2"),
    ("pairs1-2000", "2,000 pairs, QoS 1, one unfinished each: nearest to chat"),
    ("pairs-durable", "as pairs1-2000 with persistent sessions, all connected"),
    ("group200", "20 groups of 200, each user in 4, QoS 1, 4 unfinished per group"),
    ("group-durable", "the same with persistent sessions, all connected"),
    ("room5000", "one room of 5,000, QoS 0, 128 B"),
    ("room10000", "one room of 10,000, QoS 0, 128 B"),
    ("rate5k", "500 pairs, QoS 1, 5,000 messages per second whatever the broker does"),
    ("storm", "10,000 clients connect and subscribe as fast as possible"),
    ("storm-durable", "the same with persistent sessions"),
    ("storm-resume", "10,000 persistent sessions return as fast as possible"),
    ("idle", "17,000 silent connections with 3 subscriptions: memory per connection"),
    ("retained", "50,000 retained topics to one QoS 1 wildcard subscriber"),
    ("offline", "2,000 sessions leave, 100 messages arrive for each, all return"),
    ("crash", "as offline, with the broker killed and started again in between"),
    ("login", "1,000 users of 50 conversations return to 30 waiting messages each"),
    ("mixed", "an evening of chat: 2,000 users come and go, 1:1 with receipts, groups, a room"),
    ("office", "10,000 users at once, 18,000 requests per second: 1:1 with receipts, groups"),
];

impl Shape {
    fn base(name: &str, kind: Kind) -> Shape {
        Shape {
            name: name.to_owned(),
            kind,
            mqtt: Mqtt::V311,
            qos: 1,
            size: 256,
            persistent: false,
            window: 10,
            rate: None,
            duration_secs: 10.0,
            warmup_secs: 1.0,
            drain_secs: 3.0,
            pending: 64,
            ramp: None,
            pairs: 100,
            groups: 20,
            members: 200,
            memberships: 4,
            speakers: 10,
            clients: 10_000,
            subscriptions: 1,
            messages: 100,
            news: 10,
            viewers: 0,
            churn: 0.0,
            away_secs: 2.0,
            publishers: 20,
            resume: false,
        }
    }

    /// The shape that a preset's name stands for; a kind's name is a preset too.
    pub(crate) fn preset(name: &str) -> Result<Shape> {
        let base = |kind| Shape::base(name, kind);
        let pairs = base(Kind::Pairs);
        let group = Shape { window: 4, ..base(Kind::Group) };
        let room = Shape { qos: 0, size: 128, window: 4, speakers: 1, ..base(Kind::Room) };
        let storm = base(Kind::Storm);
        let mixed = Shape {
            groups: 1000,
            members: 10,
            memberships: 1,
            speakers: 4,
            rate: Some(18_000.0),
            ..base(Kind::Mixed)
        };
        let offline = Shape { clients: 2000, window: 100, ..base(Kind::Offline) };
        Ok(match name {
            "pairs0" => Shape { qos: 0, ..pairs },
            "pairs1" | "pairs" => pairs,
            "pairs2" => Shape { qos: 2, ..pairs },
            "pairs1-2000" => Shape { pairs: 2000, window: 1, ..pairs },
            "pairs-durable" => Shape { pairs: 2000, window: 1, persistent: true, ..pairs },
            "group200" | "group" => group,
            "group-durable" => Shape { persistent: true, ..group },
            "room5000" | "room" => Shape { clients: 5000, ..room },
            "room10000" => Shape { clients: 10_000, ..room },
            "rate5k" => Shape { pairs: 500, rate: Some(5000.0), ..pairs },
            "storm" => storm,
            "storm-durable" => Shape { persistent: true, ..storm },
            "storm-resume" => Shape { persistent: true, resume: true, ..storm },
            "idle" => Shape { clients: 17_000, subscriptions: 3, ..base(Kind::Idle) },
            "retained" => Shape { messages: 50_000, window: 100, ..base(Kind::Retained) },
            "offline" => offline,
            "crash" => Shape { kind: Kind::Crash, ..offline },
            "login" => Shape {
                kind: Kind::Login,
                clients: 1000,
                subscriptions: 50,
                messages: 30,
                ..offline
            },
            "mixed" => Shape {
                clients: 2000,
                groups: 100,
                members: 20,
                viewers: 500,
                churn: 50.0,
                persistent: true,
                rate: Some(3000.0),
                ..mixed
            },
            "office" => mixed,
            _ => bail!(
                "no scenario is called {name:?}; there are: {}",
                PRESETS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            ),
        })
    }

    /// Refuses what cannot be played, naming the number at fault.
    pub(crate) fn check(&self) -> Result<()> {
        if self.size < STAMP_LEN {
            bail!("--size {}: a payload carries its stamp, {STAMP_LEN} bytes at least", self.size);
        }
        let counts = [
            ("--pairs", self.pairs),
            ("--groups", self.groups),
            ("--members", self.members),
            ("--memberships", self.memberships),
            ("--speakers", self.speakers),
            ("--clients", self.clients),
            ("--messages", self.messages),
            ("--news", self.news),
            ("--publishers", self.publishers),
            ("--pending", self.pending),
            ("--window", self.window as usize),
        ];
        for (flag, count) in counts {
            if !(1..=10_000_000).contains(&count) {
                bail!("{flag} {count}: between 1 and 10,000,000");
            }
        }
        if self.speakers > usize::from(u16::MAX) {
            bail!("--speakers {}: at most 65,535", self.speakers);
        }
        for (flag, rate) in [("--rate", self.rate), ("--ramp", self.ramp)] {
            if rate.is_some_and(|r| !(r.is_finite() && r > 0.0)) {
                bail!("{flag}: more than 0 per second");
            }
        }
        if self.kind == Kind::Group {
            self.check_groups()?;
        }
        if self.kind == Kind::Login && !self.messages.is_multiple_of(self.news) {
            bail!("--news {}: must divide --messages {}", self.news, self.messages);
        }
        if self.kind == Kind::Login && self.news > self.subscriptions {
            bail!("--news {}: there are {} conversations", self.news, self.subscriptions);
        }
        if self.kind == Kind::Mixed {
            self.check_evening()?;
        }
        if matches!(self.kind, Kind::Offline | Kind::Crash | Kind::Login) && self.qos == 0 {
            bail!("--qos 0: messages of QoS 0 are not kept for absent sessions");
        }
        Ok(())
    }

    fn check_evening(&self) -> Result<()> {
        if self.rate.is_none() {
            bail!("--rate is needed: chat is an open loop");
        }
        if self.clients < 6 {
            bail!("--clients {}: everybody has four friends, which takes six", self.clients);
        }
        if self.members > self.clients || self.viewers > self.clients {
            bail!("--members and --viewers are at most --clients, {}", self.clients);
        }
        if !(0.0..=1e6).contains(&self.churn) {
            bail!("--churn {}: between 0 and 1,000,000 per second", self.churn);
        }
        if self.churn > 0.0 && !self.persistent {
            bail!("--churn needs --persistent: who is away would miss messages of right");
        }
        if self.churn * self.away_secs > self.clients as f64 / 2.0 {
            bail!("--churn and --away: more than half of the users would be away");
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<()> {
        let places = self.groups * self.members;
        if !places.is_multiple_of(self.memberships) {
            bail!(
                "{} groups of {} members cannot be shared out to {} groups per user: \
                 --memberships must divide {places}",
                self.groups,
                self.members,
                self.memberships
            );
        }
        if self.memberships > self.groups {
            bail!("--memberships {}: there are only {} groups", self.memberships, self.groups);
        }
        Ok(())
    }

    /// What falls to thread `index` of `of`: a smaller world of its own.
    pub(crate) fn slice(&self, index: usize, of: usize) -> Shape {
        let share = |count: usize| count / of + usize::from(index < count % of);
        Shape {
            pairs: share(self.pairs),
            groups: share(self.groups),
            rate: self.rate.map(|rate| rate / of as f64),
            ..self.clone()
        }
    }

    /// How many threads can play it side by side.
    pub(crate) fn max_threads(&self) -> usize {
        match self.kind {
            Kind::Pairs => self.pairs,
            Kind::Group => (1..=self.groups)
                .rev()
                .find(|of| (0..*of).all(|index| self.slice(index, *of).check_groups().is_ok()))
                .unwrap_or(1),
            _ => 1,
        }
    }

    /// Connections that the scenario needs at once.
    pub(crate) fn connections(&self) -> usize {
        match self.kind {
            Kind::Pairs => 2 * self.pairs,
            Kind::Group => self.groups * self.members / self.memberships.max(1),
            Kind::Room => self.clients + self.speakers,
            Kind::Storm | Kind::Idle => self.clients,
            Kind::Retained => self.publishers + 1,
            Kind::Offline | Kind::Crash | Kind::Login => self.clients + self.publishers,
            Kind::Mixed => self.clients,
        }
    }

    /// One line for people: what is played, with the numbers that matter to it.
    pub(crate) fn describe(&self) -> String {
        let pace = match self.rate {
            Some(rate) => format!("{rate:.0} messages/s due"),
            None => format!("{} unfinished", self.window),
        };
        let sessions = if self.persistent { ", persistent sessions" } else { "" };
        let what = match self.kind {
            Kind::Pairs => format!("{} pairs, {pace}", self.pairs),
            Kind::Group => format!(
                "{} groups of {}, each user in {}, {pace}",
                self.groups, self.members, self.memberships
            ),
            Kind::Room => format!("one room of {}, {pace}", self.clients),
            Kind::Storm if self.resume => format!("{} sessions return", self.clients),
            Kind::Storm => {
                format!("{} clients, {} subscriptions each", self.clients, self.subscriptions)
            }
            Kind::Idle => {
                format!("{} connections, {} subscriptions each", self.clients, self.subscriptions)
            }
            Kind::Retained => format!("{} retained topics", self.messages),
            Kind::Offline | Kind::Crash => {
                format!("{} sessions, {} messages each", self.clients, self.messages)
            }
            Kind::Login => format!(
                "{} users of {} conversations, {} messages waiting in {} of them",
                self.clients, self.subscriptions, self.messages, self.news
            ),
            Kind::Mixed => format!(
                "{} users, {pace} and their receipts, {} groups of {}, room of {}, {} leave per second",
                self.clients, self.groups, self.members, self.viewers, self.churn
            ),
        };
        let version = match self.mqtt {
            Mqtt::V311 => "3.1.1",
            Mqtt::V5 => "5.0",
        };
        match self.kind {
            Kind::Storm | Kind::Idle => format!("{what}{sessions}, MQTT {version}"),
            _ => format!("{what}, {} B, QoS {}{sessions}, MQTT {version}", self.size, self.qos),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_exists_and_is_playable() {
        for (name, _) in PRESETS {
            let shape = Shape::preset(name).unwrap();
            assert_eq!(&shape.name, name);
            shape.check().unwrap();
            assert!(shape.connections() > 0);
        }
        assert!(Shape::preset("nonsense").unwrap_err().to_string().contains("pairs1-2000"));
    }

    #[test]
    fn impossible_numbers_are_named() {
        let cases: [(&str, Overrides, &str); 6] = [
            ("pairs1", Overrides { size: Some(31), ..Overrides::default() }, "--size"),
            ("pairs1", Overrides { pairs: Some(0), ..Overrides::default() }, "--pairs"),
            ("pairs1", Overrides { rate: Some(0.0), ..Overrides::default() }, "--rate"),
            ("group200", Overrides { memberships: Some(3), ..Overrides::default() }, "divide"),
            ("group200", Overrides { memberships: Some(25), ..Overrides::default() }, "only 20"),
            ("offline", Overrides { qos: Some(0), ..Overrides::default() }, "--qos"),
        ];
        for (name, overrides, word) in cases {
            let mut shape = Shape::preset(name).unwrap();
            overrides.apply(&mut shape);
            let error = shape.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
