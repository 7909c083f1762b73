//! The sweep: what is older than it has to be goes, a bounded step at a time.
//!
//! Each shard walks the rows of its slots in key order, again and again: what retention takes
//! from conversations (`retention`), what of deduplication is out of its window (`window`), what
//! users and their devices have left behind (`remains`). A step looks at a bounded number of rows
//! and removes a bounded number, then lets others have the shard. The walk reads committed rows;
//! what it removes it looks at once more through the batch under way.
//!
//! Owned here: where the walk stands, in memory only. After a start it begins anew.

mod remains;
mod retention;
#[cfg(test)]
mod tests;
mod window;

use std::ops::ControlFlow;

use hoopoe_core::SLOTS;
use hoopoe_store::kv::Family;

use crate::effect::Effect;
use crate::keys::{conv_kind, user_kind};
use crate::refusal::Fault;
use crate::settings::ImSettings;
use crate::shard::Work;

/// Rows looked at in one step.
const STEP_ROWS: usize = 2_000;
/// Rows removed in one step.
const STEP_REMOVALS: usize = 1_000;
/// Stretches of rows begun in one step.
const STEP_STRETCHES: usize = 32;
/// What a look at a row elsewhere costs, in rows walked over.
const LOOK_ROWS: usize = 8;
/// Rows read at once.
const PIECE_ROWS: usize = 256;
/// Pause between two steps.
const STEP_PAUSE_MS: u64 = 50;

/// Kinds of rows that are swept, in key order.
const SWEPT: [u8; 7] = [
    conv_kind::HEAD,
    conv_kind::SENT,
    conv_kind::MARKED,
    user_kind::DEVICE,
    user_kind::CURSOR,
    user_kind::MENTION,
    user_kind::PUSHED,
];

/// Where a shard's walk stands.
#[derive(Debug)]
pub(crate) struct Sweep {
    shard: u16,
    shards: u16,
    /// The next key to look at; empty between two walks.
    at: Vec<u8>,
    next_ms: u64,
    /// Bytes of the conversations seen in this walk.
    alive_bytes: u64,
    window: window::Newest,
}

/// What a step may still do.
pub(crate) struct Budget {
    rows: usize,
    removals: usize,
}

impl Budget {
    /// Takes the cost of a look at a row elsewhere.
    fn look(&mut self) {
        self.rows = self.rows.saturating_sub(LOOK_ROWS);
    }

    fn removed(&mut self, rows: usize) {
        self.removals = self.removals.saturating_sub(rows);
    }
}

/// Whether a row needs no more of this walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Row {
    /// On to the next.
    Done,
    /// More is to be done about it in the next step.
    More,
}

/// Rows of one kind and slot, and where to go on.
struct Piece {
    kind: u8,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    next: Option<Vec<u8>>,
}

impl Sweep {
    pub(crate) fn new(settings: &ImSettings, shard: u16, shards: u16, started_ms: u64) -> Sweep {
        Sweep {
            shard,
            shards,
            at: Vec::new(),
            next_ms: started_ms.saturating_add(settings.sweep_secs * 1000),
            alive_bytes: 0,
            window: window::Newest::default(),
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<u64> {
        Some(self.next_ms)
    }

    /// The first swept place at or behind this slot and kind that is this shard's; `None` at the
    /// end.
    fn place(&self, slot: u16, kind: u8) -> Option<[u8; 3]> {
        // Outboxes and the lists of operators and channels lie behind slots that do not exist.
        if slot >= SLOTS {
            return None;
        }
        let behind = (slot % self.shards + self.shards - self.shard) % self.shards;
        let next_slot = if behind == 0 { slot } else { slot + self.shards - behind };
        let kind = if behind == 0 { kind } else { 0 };
        let (slot, kind) = match SWEPT.into_iter().find(|swept| *swept >= kind) {
            Some(kind) => (next_slot, kind),
            None => (next_slot + self.shards, SWEPT[0]),
        };
        let [high, low] = slot.to_be_bytes();
        (slot < SLOTS).then_some([high, low, kind])
    }
}

impl Work<'_> {
    /// One step of the walk.
    pub(crate) fn sweep(&mut self) -> Result<(), Fault> {
        // What cannot be read now is tried again after a while.
        self.memory.sweep.next_ms = self.now_ms + self.settings.sweep_secs * 1000;
        if self.memory.sweep.at.is_empty() {
            self.begin_walk();
        }
        let mut budget = Budget { rows: STEP_ROWS, removals: STEP_REMOVALS };
        for _ in 0..STEP_STRETCHES {
            if budget.rows == 0 || budget.removals == 0 {
                break;
            }
            let piece = self.piece(&mut budget)?;
            for (key, row) in &piece.rows {
                if budget.rows == 0
                    || budget.removals == 0
                    || self.sweep_row(piece.kind, key, row, &mut budget) == Row::More
                {
                    self.memory.sweep.at.clone_from(key);
                    self.pause_walk();
                    return Ok(());
                }
                // A look at another row may have taken the last of it.
                budget.rows = budget.rows.saturating_sub(1);
            }
            match piece.next {
                Some(next) => self.memory.sweep.at = next,
                None => {
                    self.end_walk();
                    return Ok(());
                }
            }
        }
        self.pause_walk();
        Ok(())
    }

    fn pause_walk(&mut self) {
        self.memory.sweep.next_ms = self.now_ms + STEP_PAUSE_MS;
    }

    fn begin_walk(&mut self) {
        let sweep = &mut self.memory.sweep;
        sweep.alive_bytes = 0;
        sweep.at = sweep.place(0, 0).map_or_else(Vec::new, Vec::from);
    }

    fn end_walk(&mut self) {
        self.window_ends();
        let (pause_ms, sweep) = (self.settings.sweep_secs * 1000, &mut self.memory.sweep);
        sweep.at.clear();
        sweep.next_ms = self.now_ms + pause_ms;
        self.txn.effect(Effect::Walked { alive_bytes: sweep.alive_bytes });
    }

    /// The rows from where the walk stands on, of one kind and slot.
    fn piece(&mut self, budget: &mut Budget) -> Result<Piece, Fault> {
        let sweep = &self.memory.sweep;
        let from = sweep.at.clone();
        let most = PIECE_ROWS.min(budget.rows);
        let mut piece = Piece { kind: 0, rows: Vec::new(), next: None };
        let mut place = None;
        self.txn.scan_committed(Family::Im, &from, |key, row| {
            let Some(&[high, low, kind]) = key.first_chunk::<3>() else {
                return ControlFlow::Continue(());
            };
            if place.is_none() {
                let first = sweep.place(u16::from_be_bytes([high, low]), kind);
                if first != Some([high, low, kind]) {
                    piece.next = first.map(Vec::from);
                    return ControlFlow::Break(());
                }
                (place, piece.kind) = (first, kind);
            }
            if place != Some([high, low, kind]) || piece.rows.len() >= most {
                piece.next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            piece.rows.push((key.to_vec(), row.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(piece)
    }

    fn sweep_row(&mut self, kind: u8, key: &[u8], row: &[u8], budget: &mut Budget) -> Row {
        let swept = match kind {
            conv_kind::HEAD => self.retain(key, row, budget),
            conv_kind::SENT => self.sweep_sent(key, row, budget),
            conv_kind::MARKED => self.sweep_marked(key, budget),
            user_kind::DEVICE => self.sweep_device(key, row, budget),
            user_kind::CURSOR => self.sweep_cursor(key, budget),
            user_kind::MENTION => self.sweep_mention(key, budget),
            user_kind::PUSHED => self.sweep_pushed(key, budget),
            _ => Ok(Row::Done),
        };
        // One row that cannot be read must not keep all others.
        swept.unwrap_or_else(|fault| {
            tracing::error!(?fault, kind, "a row could not be swept");
            Row::Done
        })
    }
}
