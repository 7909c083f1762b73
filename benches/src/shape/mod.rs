//! What a scenario does, in numbers. Presets are under the names of our performance table; flags and
//! scenario files replace single numbers.

mod overrides;
mod preset;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::stamp::STAMP_LEN;

pub(crate) use overrides::Overrides;
pub(crate) use preset::PRESETS;

/// Entries in a pull at most.
const MOST_PULLED: usize = 200;

/// Kills in one feed at most.
const MOST_KILLS: usize = 1000;

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
    /// IM profile: users talk in pairs, with receipts.
    ImPairs,
    /// IM profile: groups, some of whose members are never there.
    ImGroup,
    /// IM profile: one live room, lanes chat and like.
    ImRoom,
    /// IM profile: the newest entries of a conversation are pulled.
    ImSync,
    /// IM profile: users with many conversations return to waiting messages.
    ImLogin,
}

impl Kind {
    /// It speaks the IM profile, which one broker has.
    pub(crate) fn is_im(self) -> bool {
        use Kind::{ImGroup, ImLogin, ImPairs, ImRoom, ImSync};
        matches!(self, ImPairs | ImGroup | ImRoom | ImSync | ImLogin)
    }
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
    /// Members of each group that are never there (IM).
    pub absent: usize,
    /// Entries in one pull (im-sync).
    pub page: usize,
    /// Groups that each user is in.
    pub memberships: usize,
    /// Who speaks in a group or room, in turn.
    pub speakers: usize,
    /// Connections that listen (room), connect (storm, idle), leave and return (offline, login), or
    /// chat (mixed).
    pub clients: usize,
    /// Subscriptions of each connection (storm, idle), conversations of each user (login, im-sync).
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
    /// Crash: how often the broker is killed while messages are being sent.
    #[serde(default)]
    pub kills: usize,
    /// Open loop: messages fall due in ticks of so many milliseconds; 0: each at its own time.
    #[serde(default)]
    pub tick_ms: f64,
    /// Viewers of a room that read nothing (room, im-room).
    #[serde(default)]
    pub blocked: usize,
    /// Retained topics that one more client fetches over and over (pairs, open loop).
    #[serde(default)]
    pub retained: usize,
    /// The broker is killed and started again before the pulls, and each conversation pulled once.
    #[serde(default)]
    pub cold: bool,
}

impl Shape {
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
            ("--page", self.page),
        ];
        for (flag, count) in counts {
            if !(1..=10_000_000).contains(&count) {
                bail!("{flag} {count}: between 1 and 10,000,000");
            }
        }
        if self.speakers > usize::from(u16::MAX) {
            bail!("--speakers {}: at most 65,535", self.speakers);
        }
        if self.kills > MOST_KILLS {
            bail!("--kills {}: at most {MOST_KILLS}", self.kills);
        }
        for (flag, count) in [("--blocked", self.blocked), ("--retained", self.retained)] {
            if count > 1_000_000 {
                bail!("{flag} {count}: at most 1,000,000");
            }
        }
        if self.blocked > 0 && !matches!(self.kind, Kind::Room | Kind::ImRoom) {
            bail!("--blocked: only rooms have viewers who read nothing");
        }
        if self.retained > 0 && (self.kind != Kind::Pairs || self.rate.is_none() || self.qos == 0) {
            bail!("--retained: beside pairs with a --rate and QoS 1 or 2");
        }
        if !(0.0..=1000.0).contains(&self.tick_ms) {
            bail!("--tick {}: between 0 and 1000 milliseconds", self.tick_ms);
        }
        for (flag, rate) in [("--rate", self.rate), ("--ramp", self.ramp)] {
            if rate.is_some_and(|r| !(r.is_finite() && r > 0.0)) {
                bail!("{flag}: more than 0 per second");
            }
        }
        if matches!(self.kind, Kind::Group | Kind::ImGroup) {
            self.check_groups()?;
        }
        let login = matches!(self.kind, Kind::Login | Kind::ImLogin);
        if login && !self.messages.is_multiple_of(self.news) {
            bail!("--news {}: must divide --messages {}", self.news, self.messages);
        }
        if login && self.news > self.subscriptions {
            bail!("--news {}: there are {} conversations", self.news, self.subscriptions);
        }
        if self.kind.is_im() {
            self.check_im()?;
        }
        if self.kind == Kind::Mixed {
            self.check_evening()?;
        }
        if matches!(self.kind, Kind::Offline | Kind::Crash | Kind::Login) && self.qos == 0 {
            bail!("--qos 0: messages of QoS 0 are not kept for absent sessions");
        }
        Ok(())
    }

    fn check_im(&self) -> Result<()> {
        if self.kind == Kind::ImRoom && self.rate.is_none() {
            bail!("--rate is needed: a room is shaped by the second");
        }
        if self.kind != Kind::ImRoom && self.qos == 0 {
            bail!("--qos 0: what the IM profile stores is acknowledged");
        }
        if self.page > MOST_PULLED {
            bail!("--page {}: at most {MOST_PULLED} entries in a pull", self.page);
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
            Kind::Pairs | Kind::ImPairs if self.retained == 0 => self.pairs,
            Kind::Group | Kind::ImGroup => (1..=self.groups)
                .rev()
                .find(|of| (0..*of).all(|index| self.slice(index, *of).check_groups().is_ok()))
                .unwrap_or(1),
            _ => 1,
        }
    }

    /// im-sync: how many speak to everybody; no two of a user's conversations are with the same.
    pub(crate) fn peers(&self) -> usize {
        self.subscriptions.max(self.publishers)
    }

    /// What is acknowledged has been stored: a sync of the disk is part of it.
    pub(crate) fn is_stored(&self) -> bool {
        use Kind::{Crash, ImRoom, Offline};
        self.persistent
            || matches!(self.kind, Offline | Crash)
            || (self.kind.is_im() && self.kind != ImRoom)
    }

    /// Connections that the scenario needs at once.
    pub(crate) fn connections(&self) -> usize {
        match self.kind {
            Kind::Pairs => 2 * self.pairs + usize::from(self.retained > 0),
            Kind::ImPairs => 2 * self.pairs,
            Kind::Group | Kind::ImGroup => self.groups * self.members / self.memberships.max(1),
            Kind::Room | Kind::ImRoom => self.clients + self.speakers + self.blocked,
            Kind::Storm | Kind::Idle => self.clients,
            Kind::Retained => self.publishers + 1,
            Kind::ImSync => self.clients + self.peers(),
            Kind::ImLogin => self.clients + self.subscriptions,
            Kind::Offline | Kind::Crash | Kind::Login => self.clients + self.publishers,
            Kind::Mixed => self.clients,
        }
    }

    /// One line for people: what is played, with the numbers that matter to it.
    pub(crate) fn describe(&self) -> String {
        let pace = match self.rate {
            Some(rate) if self.tick_ms > 0.0 => {
                format!("{rate:.0} messages/s due in ticks of {} ms", self.tick_ms)
            }
            Some(rate) => format!("{rate:.0} messages/s due"),
            None => format!("{} unfinished", self.window),
        };
        let sessions = if self.persistent { ", persistent sessions" } else { "" };
        let what = match self.kind {
            Kind::Pairs if self.retained > 0 => format!(
                "{} pairs, {pace}, beside fetches of {} retained messages",
                self.pairs, self.retained
            ),
            Kind::Pairs | Kind::ImPairs => format!("{} pairs, {pace}", self.pairs),
            Kind::ImGroup if self.absent > 0 => format!(
                "{} groups of {} and {} absent, {pace}",
                self.groups, self.members, self.absent
            ),
            Kind::Group | Kind::ImGroup => format!(
                "{} groups of {}, each user in {}, {pace}",
                self.groups, self.members, self.memberships
            ),
            Kind::Room | Kind::ImRoom if self.blocked > 0 => {
                format!("one room of {} and {} blocked, {pace}", self.clients, self.blocked)
            }
            Kind::Room | Kind::ImRoom => format!("one room of {}, {pace}", self.clients),
            Kind::ImSync => format!(
                "{} users of {} conversations pull the newest {} of {}{}",
                self.clients,
                self.subscriptions,
                self.page,
                self.messages,
                if self.cold { ", each once after a restart" } else { "" }
            ),
            Kind::Storm if self.resume => format!("{} sessions return", self.clients),
            Kind::Storm => {
                format!("{} clients, {} subscriptions each", self.clients, self.subscriptions)
            }
            Kind::Idle => {
                format!("{} connections, {} subscriptions each", self.clients, self.subscriptions)
            }
            Kind::Retained => format!("{} retained topics", self.messages),
            Kind::Crash if self.kills > 0 => format!(
                "{} sessions, {} messages each, killed {} times on the way and at the end",
                self.clients, self.messages, self.kills
            ),
            Kind::Offline | Kind::Crash => {
                format!("{} sessions, {} messages each", self.clients, self.messages)
            }
            Kind::Login | Kind::ImLogin => format!(
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
