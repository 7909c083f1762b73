//! What a shard knows of its lines without reading rows: how far each has come, what is under way,
//! who waits, and how much is owed.
//!
//! The rows are right; this is read from them at the start, and again after a commit that failed,
//! once the store has been reopened: only then is known which numbers were given.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use hoopoe_core::SLOTS;
use hoopoe_store::StoreError;
use hoopoe_store::kv::SharedKv;

use super::line::{LineKey, read_pair};
use crate::command::Asker;
use crate::keys::{self, site_kind};

/// Numbers of one line that may be under way.
const WINDOW: usize = 64;
/// Numbers of all lines of a shard to one site that may be under way.
const MOST_FLYING: usize = 1_024;

/// What a shard owes another site.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Owed {
    /// Numbers that the site has not committed.
    pub numbers: u64,
    /// Bytes of their rows, nearly; an entry is in the log, and its row only names it.
    pub bytes: u64,
    /// Sends that wait for the site, acknowledged or not.
    pub held: u64,
    /// None of them is owed for longer; `None` when nothing is.
    pub since_ms: Option<u64>,
}

impl Owed {
    /// What two shards owe.
    #[must_use]
    pub fn with(self, other: &Owed) -> Owed {
        Owed {
            numbers: self.numbers + other.numbers,
            bytes: self.bytes + other.bytes,
            held: self.held + other.held,
            since_ms: [self.since_ms, other.since_ms].into_iter().flatten().min(),
        }
    }
}

/// The sending side of a line.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Out {
    /// When it began.
    pub(super) born: u64,
    /// The last number given.
    pub(super) last: u64,
    /// Everything up to here was heard.
    pub(super) heard: u64,
    /// Everything up to here was sent.
    pub(super) sent: u64,
    /// When it begins again.
    pub(super) due: Option<u64>,
    /// Bytes of the rows behind `heard`.
    pub(super) bytes: u64,
    /// Sends among them whose outcome has not been told.
    pub(super) held: u64,
    /// Nothing behind `heard` is older.
    pub(super) since_ms: u64,
    /// What was the last number when `heard` last rose, and when that was.
    pub(super) mark: (u64, u64),
}

impl Out {
    fn flying(&self) -> usize {
        usize::try_from(self.sent - self.heard).unwrap_or(usize::MAX)
    }

    /// Everything up to a number is committed there. How many bytes the rest has is told by the
    /// mean, and how old it is at most by what was the last number when another was heard.
    pub(super) fn hear(&mut self, number: u64, now_ms: u64) {
        let (rest, all) = (self.last - number, (self.last - self.heard).max(1));
        self.bytes = (u128::from(self.bytes) * u128::from(rest) / u128::from(all)) as u64;
        self.heard = number;
        if rest == 0 {
            self.since_ms = now_ms;
        } else if self.heard >= self.mark.0 {
            self.since_ms = self.mark.1;
        } else {
            return;
        }
        self.mark = (self.last, now_ms);
    }
}

/// The lines of a shard.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(super) out: HashMap<LineKey, Out>,
    flying: HashMap<Arc<str>, usize>,
    pub(super) due: BTreeSet<(u64, LineKey)>,
    pub(super) up: HashSet<Arc<str>>,
    /// A commit has failed, and rows have not been read again: nothing is owed before.
    stale: bool,
    /// Sends that have not been answered.
    pub(super) held: usize,
    /// Sites that were owed something when that was counted last.
    counted: HashSet<Arc<str>>,
    /// Who waits for the answer, by line and number.
    waiting: HashMap<(LineKey, u64), Asker>,
    /// Those whom the present batch has added.
    waiting_new: Vec<(LineKey, u64)>,
    /// When they count as held.
    pub(super) patience: BTreeSet<(u64, LineKey, u64)>,
}

impl Lines {
    /// The lines of a shard's slots, as committed; the rows do not say since when.
    pub(crate) fn load(
        kv: &SharedKv,
        shard: u16,
        shards: u16,
        since_ms: u64,
    ) -> Result<Lines, StoreError> {
        let mut lines = Lines::default();
        for slot in (shard..SLOTS).step_by(usize::from(shards)) {
            crate::shard::due::scan(kv, slot, site_kind::LINE, |name, key, row| {
                let (born, last) = read_pair(key, row)?;
                let (heard, sent, mark) = (last, last, (last, since_ms));
                let out = Out { born, last, heard, sent, since_ms, mark, ..Out::default() };
                if let Ok(site) = std::str::from_utf8(name) {
                    lines.out.insert((slot, site.into()), out);
                }
                Ok(())
            })?;
            crate::shard::due::scan(kv, slot, site_kind::OWED, |name, key, row| {
                if let Some(site) = numbered_site(name)
                    && let Some(out) = lines.out.get_mut(&(slot, site.into()))
                {
                    let number = keys::seq_of(key);
                    out.bytes += row.len() as u64;
                    // A row is written with the line's row; in doubt the row is right.
                    out.last = out.last.max(number);
                    out.heard = out.heard.min(number - 1);
                    out.sent = out.heard;
                }
                Ok(())
            })?;
            crate::shard::due::scan(kv, slot, site_kind::HELD, |name, _, _| {
                lines.held += 1;
                if let Some(site) = numbered_site(name)
                    && let Some(out) = lines.out.get_mut(&(slot, site.into()))
                {
                    out.held += 1;
                }
                Ok(())
            })?;
        }
        Ok(lines)
    }

    pub(crate) fn next_timeout(&self) -> Option<u64> {
        let due = self.due.first().map(|(at, _)| *at);
        let patience = self.patience.first().map(|(at, ..)| *at);
        [due, patience].into_iter().flatten().min()
    }

    pub(crate) fn is_up(&self, site: &str) -> bool {
        self.up.contains(site)
    }

    /// The batch is committed.
    pub(crate) fn committed(&mut self) {
        self.waiting_new.clear();
    }

    /// The batch is lost, or not: what its numbers stand for is not known.
    pub(crate) fn forget(&mut self) {
        for (line, number) in std::mem::take(&mut self.waiting_new) {
            self.waiting.remove(&(line, number));
        }
        self.stale = true;
    }

    /// The lines as they are committed, read after a commit that failed.
    pub(crate) fn read_again(&mut self, lines: Lines) {
        let before = std::mem::replace(self, lines);
        self.up = before.up;
        self.counted = before.counted;
        (self.waiting, self.waiting_new) = (before.waiting, before.waiting_new);
        self.patience = before.patience;
        // What is owed leaves again at the next tick.
        for (line, out) in &mut self.out {
            if let Some(before) = before.out.get(line) {
                (out.since_ms, out.mark) = (before.since_ms, (out.last, before.mark.1));
            }
            if out.heard < out.last && self.up.contains(&line.1) {
                out.due = Some(0);
                self.due.insert((0, line.clone()));
            }
        }
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Somebody waits for what a send leads to, until `patience` is over.
    pub(crate) fn wait(&mut self, line: LineKey, number: u64, asker: Asker, until_ms: u64) {
        self.patience.insert((until_ms, line.clone(), number));
        self.waiting_new.push((line.clone(), number));
        self.waiting.insert((line, number), asker);
    }

    /// One more send waits for its outcome, or (`-1`) one less.
    pub(super) fn hold(&mut self, line: &LineKey, more: i8) {
        let change = |count: u64| count.saturating_add_signed(more.into());
        self.held = change(self.held as u64) as usize;
        if let Some(out) = self.out.get_mut(line) {
            out.held = change(out.held);
        }
    }

    /// What is owed to a site; `None` when nothing is, and nothing was at the last count.
    pub(super) fn count(&mut self, site: &Arc<str>) -> Option<Owed> {
        let mut owed = Owed::default();
        for (_, out) in self.out.iter().filter(|((_, to), _)| to == site) {
            owed.held += out.held;
            if out.heard < out.last {
                owed.numbers += out.last - out.heard;
                owed.bytes += out.bytes;
                let since = owed.since_ms.map_or(out.since_ms, |since| since.min(out.since_ms));
                owed.since_ms = Some(since);
            }
        }
        let is_new = match owed == Owed::default() {
            true => self.counted.remove(site),
            false => self.counted.insert(site.clone()) || owed.numbers + owed.held > 0,
        };
        is_new.then_some(owed)
    }

    pub(super) fn take_waiting(&mut self, line: &LineKey, number: u64) -> Option<Asker> {
        self.waiting.remove(&(line.clone(), number))
    }

    pub(super) fn change(&mut self, line: &LineKey, change: impl FnOnce(&mut Out)) {
        let Some(out) = self.out.get_mut(line) else { return };
        let before = (out.flying(), out.due);
        change(out);
        let (flying, due) = (out.flying(), out.due);
        if let Some(at) = before.1 {
            self.due.remove(&(at, line.clone()));
        }
        if let Some(at) = due {
            self.due.insert((at, line.clone()));
        }
        let all = self.flying.entry(line.1.clone()).or_default();
        *all = (*all + flying).saturating_sub(before.0);
    }

    /// How many more numbers of a line may leave.
    pub(super) fn room(&self, line: &LineKey, out: &Out) -> usize {
        if !self.up.contains(&line.1) {
            return 0;
        }
        let all = self.flying.get(&line.1).copied().unwrap_or_default();
        let line = WINDOW.saturating_sub(out.flying());
        line.min(MOST_FLYING.saturating_sub(all))
    }
}

/// The site in what stands behind slot and kind in the key of a numbered row.
fn numbered_site(name: &[u8]) -> Option<&str> {
    let end = name.len().checked_sub(9)?;
    std::str::from_utf8(name.get(..end)?).ok()
}
