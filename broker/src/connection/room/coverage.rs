//! Which kinds of a room's topics a filter covers: found once, when it is subscribed to, so that
//! nothing is matched per message and viewer.

use hoopoe_codec::{Version, topic_matches};
use hoopoe_im::topic::Lane;

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Coverage(u8);

impl Coverage {
    /// `msg/hi`
    pub const HI: Coverage = Coverage(1);
    /// `msg/chat`
    pub const CHAT: Coverage = Coverage(2);
    /// `msg/like`
    pub const LIKE: Coverage = Coverage(4);
    /// `stat`
    pub const STAT: Coverage = Coverage(8);
    /// Every signal.
    pub const SIGNALS: Coverage = Coverage(16);
    /// Some signals: each is to be matched.
    pub const SOME_SIGNALS: Coverage = Coverage(32);

    /// The kind of a lane.
    pub fn of_lane(lane: Lane) -> Coverage {
        match lane {
            Lane::Hi => Coverage::HI,
            Lane::Chat => Coverage::CHAT,
            Lane::Like => Coverage::LIKE,
        }
    }

    /// What a filter below `im/r/{room}/` covers. With MQTT 3.1.1 the topics of messages carry
    /// the header (ruling 28).
    pub fn of_filter(filter: &str, room: &str, version: Version) -> Coverage {
        let header = if version == Version::V311 { "/1/?/1" } else { "" };
        let covers = |rest: &str, header: &str| {
            topic_matches(filter, &["im/r/", room, "/", rest, header].concat())
        };
        let mut coverage = Coverage::default();
        for lane in [Lane::Hi, Lane::Chat, Lane::Like] {
            if covers(&["msg/", lane.as_str()].concat(), header) {
                coverage.add(Coverage::of_lane(lane));
            }
        }
        if covers("stat", "") {
            coverage.add(Coverage::STAT);
        }
        // No id has a question mark: what matches it matches every sender and kind.
        if covers("sig/?/?", "") {
            coverage.add(Coverage::SIGNALS);
        } else if !["msg", "stat"].contains(&filter.split('/').nth(3).unwrap_or_default()) {
            coverage.add(Coverage::SOME_SIGNALS);
        }
        coverage
    }

    /// Adds what another set has.
    pub fn add(&mut self, other: Coverage) {
        self.0 |= other.0;
    }

    /// Whether the sets have something in common.
    pub fn meets(self, other: Coverage) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_cover_what_they_match() {
        const MSG: u8 = 1 | 2 | 4;
        for (filter, v5, v311) in [
            ("im/r/x/#", MSG | 8 | 16, MSG | 8 | 16),
            ("im/r/x/+/#", MSG | 8 | 16, MSG | 8 | 16),
            ("im/r/x/msg/#", MSG, MSG),
            ("im/r/x/msg/hi/#", 1, 1),
            ("im/r/x/msg/+/#", MSG, MSG),
            ("im/r/x/msg/chat", 2, 0),
            ("im/r/x/msg/+", MSG, 0),
            ("im/r/x/stat", 8, 8),
            ("im/r/x/stat/#", 8, 8),
            ("im/r/x/sig/#", 16, 16),
            ("im/r/x/sig/+/+", 16, 16),
            ("im/r/x/sig/+/offer", 32, 32),
            ("im/r/x/sig/ann/#", 32, 32),
        ] {
            for (version, expected) in [(Version::V5, v5), (Version::V311, v311)] {
                let coverage = Coverage::of_filter(filter, "x", version);
                assert_eq!(coverage, Coverage(expected), "{filter} {version:?}");
            }
        }
    }
}
