//! Reading queues and retained messages from other threads than the shard's.
//!
//! A reader sees what is committed. It holds nothing between two calls: a page is read, the
//! caller comes back with the position it was given.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use hoopoe_codec::{QoS, topic_matches};
use hoopoe_core::{Publication, SessionId};
use smallvec::SmallVec;

use crate::effect::QueueEntry;
use crate::error::{Damaged, StoreError};
use crate::floors::{Counts, Floors};
use crate::keys;
use crate::kv::{Family, Kv, SharedKv, Span};
use crate::rows::{self, EntryContent};

/// Retained topics looked at for one page, matching or not.
const RETAINED_STEP: usize = 4_096;

/// Whether a session is stored, as committed.
///
/// # Errors
/// When the store cannot be read.
pub fn is_stored(kv: &dyn Kv, session: SessionId) -> Result<bool, StoreError> {
    let key = keys::session(session, keys::session_kind::SESSION);
    Ok(kv.get(Family::Session, &key)?.is_some())
}

/// Reads what the shards wrote.
#[derive(Clone)]
pub struct Reader {
    kv: SharedKv,
    floors: Arc<Floors>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// A stretch of a queue.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct QueuePage {
    /// Entries to send, in order.
    pub entries: Vec<QueueEntry>,
    /// Everything up to here was looked at: what is not in `entries` has expired or is gone and
    /// counts as acknowledged. 0 when there was nothing at or behind `from`.
    pub through: u64,
    /// Queue weight at `through`.
    pub weight: u64,
    /// Whether the limits, not the queue's end, ended the page.
    pub more: bool,
    /// How many of what is not in `entries` have expired.
    pub expired: u64,
}

/// A stretch of the retained messages.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RetainedPage {
    /// Matching messages with their positions.
    pub messages: Vec<(u64, Publication)>,
    /// Topics and positions of matching messages that have expired: for
    /// [`Command::ExpireRetained`](crate::Command::ExpireRetained).
    pub expired: Vec<(Arc<str>, u64)>,
    /// Where to go on: the `after` of the next call. `None` at the end.
    pub next: Option<String>,
}

impl Reader {
    pub(crate) fn new(kv: SharedKv, floors: Arc<Floors>) -> Reader {
        Reader { kv, floors }
    }

    /// The rows, for readers of other steps.
    pub fn kv(&self) -> SharedKv {
        self.kv.clone()
    }

    /// The number up to which a queue is done with; `None` when it has ended.
    pub(crate) fn floor(&self, session: SessionId) -> Option<u64> {
        self.floors.floor(session)
    }

    /// Sums of what is stored.
    pub fn counts(&self) -> Counts {
        self.floors.counts()
    }

    /// Entries of a session's queue from number `from` on; of a session that has ended: none. At
    /// least one entry, if there is one, even when it is larger than `max_bytes`.
    pub fn read_queue(
        &self,
        now_ms: u64,
        session: SessionId,
        from: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<QueuePage, StoreError> {
        let Some(floor) = self.floors.floor(session) else { return Ok(QueuePage::default()) };
        let first = keys::queue(session, from.max(floor + 1));
        let last = keys::queue(session, u64::MAX);
        let mut page = PageReader::new(now_ms, session, max_entries, max_bytes);
        let span =
            Span { from: Bound::Included(&first), to: Bound::Included(&last), reverse: false };
        self.kv.scan(Family::Queue, span, &mut |key, value| page.row(key, value))?;
        page.finish(self)
    }

    /// One entry of a queue, expired or not: what a resumed window sends again. `None` when it is
    /// gone.
    pub fn read_entry(
        &self,
        session: SessionId,
        seq: u64,
    ) -> Result<Option<QueueEntry>, StoreError> {
        let page = self.read_queue(0, session, seq, 1, usize::MAX)?;
        Ok(page.entries.into_iter().next().filter(|entry| entry.seq == seq))
    }

    /// Retained messages that match one of `filters` (without share prefix), in topic order,
    /// behind topic `after`. At most `limit` messages, and no more once they have `max_bytes`; a
    /// page may be empty and yet have a `next`.
    pub fn read_retained(
        &self,
        now_ms: u64,
        filters: &[&str],
        after: Option<&str>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<RetainedPage, StoreError> {
        let mut page = RetainedPage::default();
        let mut spans: Vec<Stretch> = filters.iter().map(|filter| Stretch::of(filter)).collect();
        spans.sort();
        let mut left = RETAINED_STEP;
        let mut bytes = 0;
        let mut at = after.map(|topic| Bound::Excluded(topic.as_bytes().to_vec()));
        for Stretch { from, to } in merge(spans) {
            let start = match &at {
                Some(Bound::Excluded(topic)) if *topic >= from => Bound::Excluded(topic.as_slice()),
                _ => Bound::Included(from.as_slice()),
            };
            let end = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut fault = None;
            let mut stopped = None;
            let span = Span { from: start, to: end, reverse: false };
            self.kv.scan(Family::Retained, span, &mut |key, value| {
                if left == 0 || page.messages.len() >= limit || bytes >= max_bytes {
                    return ControlFlow::Break(());
                }
                left -= 1;
                stopped = Some(key.to_vec());
                let before = page.messages.len();
                match retained_row(now_ms, filters, key, value, &mut page) {
                    Ok(()) => {
                        let found = page.messages.get(before);
                        bytes += found.map_or(0, |(_, message)| message.bytes().len());
                        ControlFlow::Continue(())
                    }
                    Err(damaged) => {
                        fault = Some(damaged);
                        ControlFlow::Break(())
                    }
                }
            })?;
            if let Some(damaged) = fault {
                return Err(damaged.into());
            }
            at = stopped.map(Bound::Excluded).or(at);
            if left == 0 || page.messages.len() >= limit || bytes >= max_bytes {
                let Some(Bound::Excluded(topic)) = at else { break };
                page.next = String::from_utf8(topic).ok();
                break;
            }
        }
        Ok(page)
    }
}

/// Judges one retained row.
fn retained_row(
    now_ms: u64,
    filters: &[&str],
    key: &[u8],
    value: &[u8],
    page: &mut RetainedPage,
) -> Result<(), Damaged> {
    let damaged = |what| rows::at(Family::Retained, key)(what);
    let topic = std::str::from_utf8(key).map_err(|_| damaged("topic is not UTF-8"))?;
    if !filters.iter().any(|filter| topic_matches(filter, topic)) {
        return Ok(());
    }
    let (position, body) = rows::read_retained(value).map_err(damaged)?;
    if body.is_expired(now_ms) {
        page.expired.push((topic.into(), position));
        return Ok(());
    }
    let publication = body.to_publication(Bytes::copy_from_slice).map_err(damaged)?;
    page.messages.push((position, publication));
    Ok(())
}

/// The topics that a filter can match lie in one stretch of keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Stretch {
    from: Vec<u8>,
    /// Excluded; `None` for no end.
    to: Option<Vec<u8>>,
}

impl Stretch {
    fn of(filter: &str) -> Stretch {
        let wildcard = filter.find(['+', '#']);
        let Some(at) = wildcard else {
            let mut to = filter.as_bytes().to_vec();
            to.push(0);
            return Stretch { from: filter.into(), to: Some(to) };
        };
        // `a/#` matches `a` itself [4.7.1.2]: the slash is not part of the common beginning.
        let common = &filter[..at];
        let common = if filter[at..].starts_with('#') {
            common.strip_suffix('/').unwrap_or(common)
        } else {
            common
        };
        let to = keys::behind(common.as_bytes()).map(|key| key.to_vec());
        Stretch { from: common.into(), to }
    }
}

/// Sorted stretches, those that overlap made one.
fn merge(sorted: Vec<Stretch>) -> Vec<Stretch> {
    let mut merged: Vec<Stretch> = Vec::with_capacity(sorted.len());
    for next in sorted {
        match merged.last_mut() {
            Some(last) if last.to.as_ref().is_none_or(|to| next.from <= *to) => {
                if last.to.is_some() && (next.to.is_none() || next.to > last.to) {
                    last.to = next.to;
                }
            }
            _ => merged.push(next),
        }
    }
    merged
}

/// Collects a page of a queue; messages of shared bodies are fetched at its end, all at once.
struct PageReader {
    now_ms: u64,
    session: SessionId,
    max_entries: usize,
    max_bytes: u64,
    /// Running total at the first entry.
    first_weight: Option<u64>,
    found: Vec<Found>,
    /// Entries whose message is in a shared body, and that body's key.
    bodies: Vec<(u64, [u8; 8])>,
    page: QueuePage,
    fault: Option<Damaged>,
}

/// An entry of a page, its message here or in a body still to be read.
struct Found {
    seq: u64,
    weight: u64,
    qos: QoS,
    retain: bool,
    identifiers: SmallVec<[u32; 1]>,
    message: Option<Publication>,
}

impl PageReader {
    fn new(now_ms: u64, session: SessionId, max_entries: usize, max_bytes: usize) -> PageReader {
        PageReader {
            now_ms,
            session,
            max_entries: max_entries.max(1),
            max_bytes: max_bytes as u64,
            first_weight: None,
            found: Vec::new(),
            bodies: Vec::new(),
            page: QueuePage::default(),
            fault: None,
        }
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        let full = |first| self.page.weight - first >= self.max_bytes;
        if self.found.len() >= self.max_entries || self.first_weight.is_some_and(full) {
            self.page.more = true;
            return ControlFlow::Break(());
        }
        match self.take(key, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(what) => {
                self.fault = Some(rows::at(Family::Queue, key)(what));
                ControlFlow::Break(())
            }
        }
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), rows::Fault> {
        let (_, seq) = keys::queue_of(key).ok_or("queue key")?;
        let row = rows::read_entry(value)?;
        if row.weight < self.page.weight {
            return Err("running total goes down");
        }
        (self.page.through, self.page.weight) = (seq, row.weight);
        self.first_weight.get_or_insert(row.weight);
        let message = match row.content {
            EntryContent::Inline(body) if body.is_expired(self.now_ms) => {
                self.page.expired += 1;
                return Ok(());
            }
            EntryContent::Inline(body) => Some(body.to_publication(Bytes::copy_from_slice)?),
            EntryContent::Split(body) => {
                self.bodies.push((seq, keys::body(body)));
                None
            }
        };
        self.found.push(Found {
            seq,
            weight: row.weight,
            qos: row.qos,
            retain: row.retain,
            identifiers: row.identifiers,
            message,
        });
        Ok(())
    }

    /// The messages of shared bodies, in the order of their entries; `None` for an entry that was
    /// acknowledged and reclaimed between the two reads.
    fn read_bodies(&self, reader: &Reader) -> Result<Vec<Option<Publication>>, StoreError> {
        let mut messages = Vec::with_capacity(self.bodies.len());
        if self.bodies.is_empty() {
            return Ok(messages);
        }
        let keys: Vec<&[u8]> = self.bodies.iter().map(|(_, key)| key.as_slice()).collect();
        let mut fault = None;
        reader.kv.multi_get(Family::Body, &keys, &mut |at, row| {
            let read = row.map(|row| rows::read_body(row)?.to_publication(Bytes::copy_from_slice));
            messages.push(match read {
                Some(Ok(message)) => Some(message),
                Some(Err(what)) => {
                    fault.get_or_insert(rows::at(Family::Body, keys[at])(what));
                    None
                }
                None => {
                    let seq = self.bodies[at].0;
                    let floor = reader.floors.floor(self.session);
                    if floor.is_some_and(|floor| seq > floor) {
                        let key = keys::queue(self.session, seq);
                        fault.get_or_insert(rows::at(Family::Queue, &key)("its body is gone"));
                    }
                    None
                }
            });
        })?;
        fault.map_or(Ok(messages), |fault| Err(fault.into()))
    }

    fn finish(mut self, reader: &Reader) -> Result<QueuePage, StoreError> {
        if let Some(fault) = self.fault {
            return Err(fault.into());
        }
        let mut bodies = self.read_bodies(reader)?.into_iter();
        for found in self.found {
            let message = match found.message {
                Some(message) => Some(message),
                None => bodies.next().flatten(),
            };
            let Some(message) = message else { continue };
            if message.expires_at_ms.is_some_and(|at| at <= self.now_ms) {
                self.page.expired += 1;
                continue;
            }
            self.page.entries.push(QueueEntry {
                seq: found.seq,
                weight: found.weight,
                qos: found.qos,
                retain: found.retain,
                identifiers: found.identifiers,
                publication: Arc::new(message),
            });
        }
        Ok(self.page)
    }
}
