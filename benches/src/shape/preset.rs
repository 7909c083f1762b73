//! The scenarios under their names.

use anyhow::{Result, bail};

use super::{Kind, Mqtt, Shape};

/// Names of all presets with what they do.
pub(crate) const PRESETS: &[(&str, &str)] = &[
    ("pairs0", "100 pairs, both ways, 256 B, QoS 0, 10 unfinished per user"),
    ("pairs1", "the same at QoS 1"),
    ("pairs2", "the same at QoS 2"),
    ("pairs1-2000", "2,000 pairs, QoS 1, one unfinished each: nearest to chat"),
    ("pairs-durable", "as pairs1 with persistent sessions, all connected"),
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
    ("crash-feed", "as crash, and killed three times more while messages are being sent"),
    ("login", "1,000 users of 50 conversations return to 30 waiting messages each"),
    ("mixed", "an evening of chat: 2,000 users come and go, 1:1 with receipts, groups, a room"),
    ("office", "10,000 users at once, 18,000 requests per second: 1:1 with receipts, groups"),
    ("im-pairs", "IM profile: 1,000 pairs, 1:1 with receipts, one unfinished message each"),
    ("im-group", "IM profile: 20 groups of 200 online, each user in 4"),
    ("im-big-group", "IM profile: one group of 100,000, 1,000 of them online"),
    ("im-room", "IM profile: a live room of 5,000, 18 messages and 18 likes per second"),
    (
        "im-sync",
        "IM profile: the newest 50 of a conversation are pulled, over and over (--cold: once)",
    ),
    ("im-login", "IM profile: 200 users of 500 conversations return to 300 messages in 20 of them"),
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
            absent: 0,
            page: 50,
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
            kills: 0,
            tick_ms: 0.0,
            blocked: 0,
            retained: 0,
            cold: false,
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
            "pairs-durable" => Shape { persistent: true, ..pairs },
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
            "crash-feed" => Shape { kind: Kind::Crash, kills: 3, ..offline },
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
            "im-pairs" => Shape { pairs: 1000, window: 1, ..base(Kind::ImPairs) },
            "im-group" => Shape { kind: Kind::ImGroup, ..group },
            "im-big-group" => Shape {
                kind: Kind::ImGroup,
                groups: 1,
                members: 1000,
                absent: 99_000,
                memberships: 1,
                ..group
            },
            "im-room" => {
                Shape { kind: Kind::ImRoom, clients: 5000, speakers: 10, rate: Some(36.0), ..room }
            }
            "im-sync" => Shape { clients: 200, messages: 100, ..base(Kind::ImSync) },
            "im-login" => Shape {
                kind: Kind::ImLogin,
                clients: 200,
                subscriptions: 500,
                news: 20,
                messages: 300,
                persistent: true,
                ..offline
            },
            _ => bail!(
                "no scenario is called {name:?}; there are: {}",
                PRESETS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            ),
        })
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
}
