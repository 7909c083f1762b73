//! What is given up first when there is too much (the profile, section 7): likes, presence,
//! signals, room chat, pokes, receipts, history pulls, new logins, in this order; committed 1:1
//! and group messages never.
//!
//! A step: it is told how far the broker is behind and says which classes go. Measuring, and
//! giving up, is done where the things themselves are done.

/// What can be given up, in the order in which it goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Shed {
    /// Likes in live rooms: not counted.
    Likes,
    /// Changes of presence: told later.
    Presence,
    /// Signals: refused.
    Signals,
    /// The lane `chat` of live rooms: refused.
    RoomChat,
    /// Naming what devices were not sent: later.
    Pokes,
    /// Receipts: merged for longer.
    Receipts,
    /// `sync/pull`: refused.
    Pulls,
    /// CONNECT of an IM listener: refused, 0x89.
    Logins,
}

impl Shed {
    /// All classes, in order.
    pub const ALL: [Shed; 8] = [
        Shed::Likes,
        Shed::Presence,
        Shed::Signals,
        Shed::RoomChat,
        Shed::Pokes,
        Shed::Receipts,
        Shed::Pulls,
        Shed::Logins,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Shed::Likes => "likes",
            Shed::Presence => "presence",
            Shed::Signals => "signals",
            Shed::RoomChat => "room_chat",
            Shed::Pokes => "pokes",
            Shed::Receipts => "receipts",
            Shed::Pulls => "pulls",
            Shed::Logins => "logins",
        }
    }

    /// Whether it goes at this level.
    pub fn goes_at(self, level: u8) -> bool {
        (self as u8) < level
    }
}

/// What an operator can set about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OverloadSettings {
    /// A turn of a shard that takes so long counts as 100 percent.
    pub commit_lag_ms: u64,
    /// So much memory of the process counts as 100 percent; 0: it does not count.
    pub memory_bytes: u64,
    /// Percent from which on each class goes, in the order of [`Shed`]; ascending.
    pub at_percent: [u32; 8],
}

impl Default for OverloadSettings {
    fn default() -> OverloadSettings {
        OverloadSettings {
            commit_lag_ms: 2_000,
            memory_bytes: 0,
            at_percent: [50, 55, 60, 65, 70, 75, 80, 90],
        }
    }
}

/// How far the broker is behind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    /// The fullest mailbox, in percent of what makes publishers wait.
    pub mail_percent: u32,
    /// How long the slowest turn of a shard has been going on.
    pub commit_lag_ms: u64,
    /// Memory of the process.
    pub memory_bytes: u64,
}

/// So much the pressure has to fall below where a class went, before it comes back.
const EASE_PERCENT: u32 = 10;

impl OverloadSettings {
    /// The pressure: the worst of what is measured.
    pub fn percent(&self, load: &Load) -> u32 {
        let of = |is: u64, most: u64| match most {
            0 => 0,
            most => u32::try_from(is.saturating_mul(100) / most).unwrap_or(u32::MAX),
        };
        let lag = of(load.commit_lag_ms, self.commit_lag_ms);
        let memory = of(load.memory_bytes, self.memory_bytes);
        load.mail_percent.max(lag).max(memory)
    }

    /// How many classes go now: at once when the pressure rises, and less of them only when it has
    /// clearly fallen, so that nothing flickers.
    pub fn level(&self, level: u8, percent: u32) -> u8 {
        let reached =
            |percent: u32| self.at_percent.iter().take_while(|at| **at <= percent).count() as u8;
        let stays = reached(percent.saturating_add(EASE_PERCENT)).min(level);
        reached(percent).max(stays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_go_in_order_and_come_back_later() {
        let settings = OverloadSettings::default();
        let mut level = 0;
        let cases = [
            (0, ""),
            (49, ""),
            (50, "likes"),
            (62, "likes presence signals"),
            // Not clearly lower yet.
            (53, "likes presence signals"),
            (47, "likes presence"),
            (44, "likes"),
            (39, ""),
            (89, "likes presence signals room_chat pokes receipts pulls"),
            (500, "likes presence signals room_chat pokes receipts pulls logins"),
            (81, "likes presence signals room_chat pokes receipts pulls logins"),
            (0, ""),
        ];
        for (percent, expected) in cases {
            level = settings.level(level, percent);
            let gone = Shed::ALL.into_iter().filter(|class| class.goes_at(level));
            let gone: Vec<&str> = gone.map(Shed::name).collect();
            assert_eq!(gone.join(" "), expected, "{percent} percent");
        }
    }

    #[test]
    fn the_worst_of_what_is_measured_counts() {
        let settings = OverloadSettings { memory_bytes: 1_000, ..OverloadSettings::default() };
        let cases = [
            (Load::default(), 0),
            (Load { mail_percent: 30, ..Load::default() }, 30),
            (Load { mail_percent: 30, commit_lag_ms: 800, ..Load::default() }, 40),
            (Load { mail_percent: 30, commit_lag_ms: 800, memory_bytes: 900 }, 90),
            (Load { memory_bytes: u64::MAX, ..Load::default() }, 18_446_744),
        ];
        for (load, percent) in cases {
            let is = settings.percent(&load);
            assert!(is == percent || (percent > 1_000_000 && is > 1_000_000), "{load:?}: {is}");
        }
        let settings = OverloadSettings::default();
        let load = Load { memory_bytes: u64::MAX, ..Load::default() };
        assert_eq!(settings.percent(&load), 0, "without a limit memory does not count");
    }
}
