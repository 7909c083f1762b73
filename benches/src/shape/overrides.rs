//! Numbers given by the user in place of a preset's: the same words as flags and in scenario files.

use clap::Args;
use serde::Deserialize;

use super::{Mqtt, Shape};

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
    /// Members of each group that are never there (IM)
    #[arg(long)]
    pub absent: Option<usize>,
    /// Entries in one pull (im-sync)
    #[arg(long)]
    pub page: Option<usize>,
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
    /// Subscriptions of each connection (storm, idle), conversations of each user (login, im-sync)
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
    /// Crash: kill the broker so many times while messages are being sent, and once at the end
    #[arg(long)]
    pub kills: Option<usize>,
    /// Open loop: messages fall due in ticks of so many milliseconds; 0: each at its own time
    #[arg(long = "tick")]
    #[serde(rename = "tick")]
    pub tick_ms: Option<f64>,
    /// Viewers beside the others who read nothing (room, im-room)
    #[arg(long)]
    pub blocked: Option<usize>,
    /// Retained topics that one more client fetches over and over (pairs with --rate)
    #[arg(long)]
    pub retained: Option<usize>,
    /// Kill and start the broker before the pulls, drop the system's cache of files where that is
    /// allowed, and pull each conversation once (im-sync)
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub cold: Option<bool>,
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
            pairs, groups, members, absent, page, memberships, speakers, clients, subscriptions,
            messages, news, viewers, churn, away_secs, publishers, resume, kills,
            tick_ms, blocked, retained, cold;
            rate, ramp);
    }
}
