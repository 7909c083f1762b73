//! QoS 2: markers of incoming publications, exchanges of outgoing ones. And, for QoS 1 too, which
//! entries are complete before their turn.
//!
//! A marker says that the publication with this packet identifier was submitted; it lives until
//! PUBREL (ruling 4). It is written in every shard that took part, in the batch with the body.
//!
//! An exchange binds an outgoing identifier to an entry before the PUBLISH leaves (ruling 5). Its
//! end is written lazily. An entry that is complete before an earlier one leaves a mark, else a
//! crash would have it delivered anew, because the queue is known only up to the earlier one.

use std::collections::BTreeMap;

use hoopoe_codec::{QoS, ReasonCode};
use hoopoe_core::{PacketIdent, SessionId};

use super::ShardView;
use crate::command::{ExchangeChange, InFlight, ReplyTo, Source};
use crate::keys::{self, Key, session_kind};
use crate::kv::Family;
use crate::log::PendingBatch;
use crate::rows::{self, ExchangeRow};

/// The outgoing QoS 2 exchanges of a session.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    rows: BTreeMap<u16, ExchangeRow>,
    next_ordinal: u64,
    /// Identifiers whose row is to be removed.
    removed: Vec<u16>,
    /// Entries that were complete before their turn, and whether that is written.
    done: BTreeMap<u64, bool>,
}

impl Exchanges {
    pub(super) fn load_row(&mut self, id: u16, row: ExchangeRow) {
        self.next_ordinal = self.next_ordinal.max(row.ordinal + 1);
        self.rows.insert(id, row);
    }

    pub(super) fn load_done(&mut self, seq: u64) {
        self.done.insert(seq, true);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.removed.is_empty() && self.done.is_empty()
    }

    /// Everything in flight, in the order it was sent.
    pub(super) fn window(&self) -> Vec<InFlight> {
        let mut rows: Vec<&ExchangeRow> = self.rows.values().collect();
        rows.sort_by_key(|row| row.ordinal);
        rows.into_iter().map(|row| row.in_flight.clone()).collect()
    }

    /// Entries of shared groups, by group and number.
    pub(super) fn of_groups(&self) -> impl Iterator<Item = (SessionId, u64)> + '_ {
        self.rows.values().filter_map(|row| match row.in_flight.source {
            Source::Group(group, seq) => Some((group, seq)),
            _ => None,
        })
    }

    pub(super) fn is_done(&self, seq: u64) -> bool {
        self.done.contains_key(&seq)
    }

    pub(super) fn done_above(&self, acknowledged: u64) -> Vec<u64> {
        self.done.range(acknowledged + 1..).map(|(seq, _)| *seq).collect()
    }

    /// Keys of all rows there may be.
    pub(super) fn stored_keys(&self, id: SessionId) -> impl Iterator<Item = Key> + '_ {
        let exchanges = self.rows.keys().chain(&self.removed);
        let done = self.done.iter().filter(|(_, stored)| **stored);
        exchanges
            .map(move |packet| keys::exchange(id, *packet))
            .chain(done.map(move |(seq, _)| keys::done(id, *seq)))
    }

    fn put(&mut self, id: SessionId, entry: &InFlight, batch: &mut PendingBatch) {
        let ordinal = match self.rows.get(&entry.id) {
            Some(row) if row.in_flight == *entry => return,
            Some(row) if row.in_flight.source == entry.source => row.ordinal,
            _ => {
                self.next_ordinal += 1;
                self.next_ordinal
            }
        };
        let row = ExchangeRow { ordinal, in_flight: entry.clone() };
        let key = keys::exchange(id, entry.id);
        batch.rows.put_with(Family::Session, &key, |out| rows::put_exchange(out, &row));
        self.removed.retain(|removed| *removed != entry.id);
        self.rows.insert(entry.id, row);
    }

    fn remove(&mut self, packet: u16, acknowledged: u64) {
        let Some(row) = self.rows.remove(&packet) else { return };
        self.removed.push(packet);
        if let Source::Queue(seq) = row.in_flight.source
            && seq > acknowledged
        {
            self.done.entry(seq).or_insert(false);
        }
    }

    /// Entries that are complete before an earlier one.
    fn complete(&mut self, entries: &[u64], acknowledged: u64) {
        for seq in entries.iter().filter(|seq| **seq > acknowledged) {
            self.done.entry(*seq).or_insert(false);
        }
    }

    /// Writes what was only in memory.
    pub(super) fn flush(&mut self, id: SessionId, acknowledged: u64, batch: &mut PendingBatch) {
        for packet in std::mem::take(&mut self.removed) {
            batch.rows.delete(Family::Session, &keys::exchange(id, packet));
        }
        self.done.retain(|seq, stored| {
            let keep = *seq > acknowledged;
            if !keep && *stored {
                batch.rows.delete(Family::Session, &keys::done(id, *seq));
            } else if keep && !*stored {
                batch.rows.put(Family::Session, &keys::done(id, *seq), &[rows::VERSION]);
                *stored = true;
            }
            keep
        });
    }
}

impl ShardView {
    /// Outgoing exchanges change. What was complete before is written with a new one, since its
    /// identifier may be used again by it.
    pub(super) fn exchange(
        &mut self,
        now_ms: u64,
        id: SessionId,
        epoch: u32,
        changes: &[ExchangeChange],
        reply: Option<ReplyTo>,
        batch: &mut PendingBatch,
    ) {
        if self.sessions.get(&id).is_none_or(|session| session.epoch != epoch) {
            if let Some(reply) = reply {
                batch.committed(reply, ReasonCode::SessionTakenOver);
            }
            return;
        }
        for change in changes {
            let ended = |view: &ShardView| {
                let exchanges = view.sessions.get(&id).and_then(|s| s.exchanges.as_ref());
                exchanges.is_some_and(|exchanges| !exchanges.removed.is_empty())
            };
            if matches!(change, ExchangeChange::Put(_)) && ended(self) {
                self.flush_session(id, batch);
            }
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let acknowledged = session.progress.acknowledged;
            let exchanges = session.exchanges.get_or_insert_default();
            match change {
                ExchangeChange::Remove(packet) => exchanges.remove(*packet, acknowledged),
                ExchangeChange::Put(entry) => exchanges.put(id, entry, batch),
            }
        }
        match reply {
            Some(reply) => {
                batch.durable = true;
                batch.committed(reply, ReasonCode::Success);
            }
            None => self.mark_lazy(now_ms, id),
        }
    }

    /// Entries are complete before an earlier one is: kept in memory, written lazily.
    pub(super) fn complete(&mut self, now_ms: u64, id: SessionId, epoch: u32, entries: &[u64]) {
        let session = self.sessions.get_mut(&id);
        let Some(session) = session.filter(|session| session.epoch == epoch) else { return };
        let acknowledged = session.progress.acknowledged;
        session.exchanges.get_or_insert_default().complete(entries, acknowledged);
        self.mark_lazy(now_ms, id);
    }

    /// The last connection's window becomes the session's: written with its end (ruling 5).
    pub(super) fn keep_window(
        &mut self,
        id: SessionId,
        window: &[InFlight],
        done: &[u64],
        batch: &mut PendingBatch,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let acknowledged = session.progress.acknowledged;
        let qos2 = |entry: &&InFlight| entry.qos == QoS::ExactlyOnce;
        let exactly_once = window.iter().any(|entry| qos2(&entry));
        if exactly_once || !done.is_empty() || session.exchanges.is_some() {
            let exchanges = session.exchanges.get_or_insert_default();
            exchanges.complete(done, acknowledged);
            let gone: Vec<u16> = exchanges
                .rows
                .keys()
                .copied()
                .filter(|packet| !window.iter().any(|entry| entry.id == *packet))
                .collect();
            gone.iter().for_each(|packet| exchanges.remove(*packet, acknowledged));
            exchanges.flush(id, acknowledged, batch);
            window.iter().filter(qos2).for_each(|entry| exchanges.put(id, entry, batch));
        }
        session.window = Some(window.into());
        let key = keys::session(id, session_kind::WINDOW);
        batch.rows.put_with(Family::Session, &key, |out| rows::put_window(out, window));
    }

    /// Notes that the publication with this identifier was submitted.
    pub(super) fn mark(&mut self, marker: PacketIdent, batch: &mut PendingBatch) {
        self.markers.insert(marker);
        batch.rows.put(Family::Shard, &keys::marker(self.shard, marker), &[rows::VERSION]);
    }

    /// Whether an incoming QoS 2 publication was applied before.
    pub fn has_marker(&self, marker: PacketIdent) -> bool {
        self.markers.contains(&marker)
    }

    /// Notes an incoming QoS 2 publication that another step of this shard has applied in the same
    /// batch. What was refused is not noted: it leaves nothing to be repeated.
    pub fn note_marker(&mut self, marker: PacketIdent, batch: &mut PendingBatch) {
        self.mark(marker, batch);
    }

    /// The identifier's life ends.
    pub(super) fn release(
        &mut self,
        marker: PacketIdent,
        reply: ReplyTo,
        batch: &mut PendingBatch,
    ) {
        if self.markers.remove(&marker) {
            batch.rows.delete(Family::Shard, &keys::marker(self.shard, marker));
            batch.durable = true;
        }
        batch.committed(reply, ReasonCode::Success);
    }

    /// Identifiers of a publisher that await PUBREL.
    pub(super) fn markers_of(&self, session: SessionId) -> Vec<u16> {
        let all = PacketIdent { session, id: 0 }..=PacketIdent { session, id: u16::MAX };
        self.markers.range(all).map(|marker| marker.id).collect()
    }

    pub(super) fn remove_markers_of(&mut self, session: SessionId, batch: &mut PendingBatch) {
        for id in self.markers_of(session) {
            let marker = PacketIdent { session, id };
            self.markers.remove(&marker);
            batch.rows.delete(Family::Shard, &keys::marker(self.shard, marker));
        }
    }

    /// Removes markers of publishers in other shards whose session has ended.
    pub(super) fn sweep_markers(&mut self, batch: &mut PendingBatch) {
        let mut publishers: Vec<SessionId> = self.markers.iter().map(|m| m.session).collect();
        publishers.dedup();
        for publisher in publishers {
            let key = keys::session(publisher, session_kind::SESSION);
            match self.kv.get(Family::Session, &key) {
                Ok(None) if !self.sessions.contains_key(&publisher) => {
                    self.remove_markers_of(publisher, batch);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(shard = self.shard, %error, "sweep stopped"),
            }
        }
    }
}
