//! How far this node is behind, and what it gives up because of it (`hoopoe_im::overload`).
//!
//! Measured by whoever has a turn: the fill of mailboxes, how long shards' turns take, and once a
//! second the memory of the process. One level for all threads, in an atomic.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use hoopoe_im::overload::{Load, OverloadSettings, Shed};

use crate::fabric::Fabric;

/// The node's overload.
#[derive(Debug)]
pub struct Overload {
    settings: OverloadSettings,
    level: AtomicU8,
    memory_bytes: AtomicU64,
    /// Since when each shard has been in its present turn, ms since the epoch; 0: it has none.
    turns: Box<[AtomicU64]>,
    shed: [AtomicU64; Shed::ALL.len()],
}

impl Overload {
    /// Nothing is given up yet.
    pub fn new(settings: OverloadSettings, shards: u16) -> Overload {
        Overload {
            settings,
            level: AtomicU8::new(0),
            memory_bytes: AtomicU64::new(0),
            turns: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            shed: Default::default(),
        }
    }

    /// Looks at how far this node is behind.
    pub fn observe(&self, fabric: &Fabric, now_ms: u64) {
        let turns = self.turns.iter().map(|since| since.load(Ordering::Relaxed));
        let lag = turns.filter(|since| *since > 0).map(|since| now_ms.saturating_sub(since));
        let load = Load {
            mail_percent: fabric.fill_percent(),
            commit_lag_ms: lag.max().unwrap_or_default(),
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
        };
        let percent = self.settings.percent(&load);
        let before = self.level.load(Ordering::Relaxed);
        let level = self.settings.level(before, percent);
        // Of two who look at the same moment, one tells.
        let done = self.level.compare_exchange(before, level, Ordering::Relaxed, Ordering::Relaxed);
        if level != before && done.is_ok() {
            let what = Shed::ALL.get(usize::from(level).wrapping_sub(1)).map(|shed| shed.name());
            tracing::warn!(level, percent, shed_up_to = what.unwrap_or("nothing"), "overload");
        }
    }

    /// The process takes so much memory.
    pub fn note_memory(&self, bytes: u64) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether memory counts.
    pub fn wants_memory(&self) -> bool {
        self.settings.memory_bytes > 0
    }

    /// A shard begins a turn.
    pub fn turn_begins(&self, shard: usize, now_ms: u64) {
        if let Some(turn) = self.turns.get(shard) {
            turn.store(now_ms, Ordering::Relaxed);
        }
    }

    /// And ends it.
    pub fn turn_ends(&self, shard: usize) {
        self.turn_begins(shard, 0);
    }

    /// Whether one of a class has to go now; counted if so.
    pub fn sheds(&self, class: Shed) -> bool {
        let goes = class.goes_at(self.level.load(Ordering::Relaxed));
        if goes {
            self.shed[class as usize].fetch_add(1, Ordering::Relaxed);
        }
        goes
    }

    /// How many classes go, and how many of each have gone.
    pub fn counts(&self) -> (u8, [u64; Shed::ALL.len()]) {
        let shed = self.shed.each_ref().map(|count| count.load(Ordering::Relaxed));
        (self.level.load(Ordering::Relaxed), shed)
    }
}
