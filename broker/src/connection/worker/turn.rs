//! What a worker sends in a turn: packets into the connections' buffers, letters for mailboxes, and
//! both on their way when the turn ends.
//!
//! Owns the lists of a turn. Deliberately not here: when it ends (`worker`), and the bytes of an
//! output buffer (`output`).

use std::collections::BTreeSet;

use hoopoe_codec::{Fault, Packet, ReasonCode, Version};
use hoopoe_core::Location;

use super::Worker;
use crate::connection::output::{Flush, Output, Pool};
use crate::connection::{Connection, Phase};
use crate::fabric::{Mail, ShardMail};
use crate::shard::ReadJob;

/// What this turn has to send when it ends.
#[derive(Default)]
pub(in crate::connection) struct Turn {
    pub dirty: Vec<usize>,
    pub to_workers: Vec<Vec<Mail>>,
    pub to_shards: Vec<Vec<ShardMail>>,
    pub to_readers: Vec<ReadJob>,
    /// Connections to read (again) although no event says so.
    pub again: Vec<Location>,
    /// Stored sessions with progress to report.
    pub progressed: Vec<Location>,
    /// Devices whose cursors have moved.
    pub im_moved: Vec<Location>,
    /// Devices that have passed entries of big conversations, to be named.
    pub im_passed: Vec<Location>,
    /// When devices in the background are to be told what was held back.
    pub im_pokes: BTreeSet<(u64, u64)>,
}

impl Worker {
    /// The buffer for packets to a connection; marks it to be flushed at the end of the turn.
    pub(in crate::connection) fn output<'a>(
        pool: &mut Pool,
        turn: &mut Turn,
        connection: &'a mut Connection,
    ) -> &'a mut Output {
        let place = connection.location.place();
        mark_dirty(turn, connection, place);
        connection.output.get_or_insert_with(|| pool.take())
    }

    /// Encodes a packet to a connection.
    pub(in crate::connection) fn send(
        &mut self,
        location: Location,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let Worker { connections, turn, pool, counters, .. } = self;
        let connection = connections.get_mut(location.place());
        if let Some(connection) = connection
            && connection.location == location
            && connection.socket.is_some()
            && !connection.finishing
        {
            counters.packets_out.add(1);
            encode(Worker::output(pool, turn, connection).bytes());
        }
    }

    /// Sends a packet, without its reason string where the client's maximum asks for that
    /// ([MQTT-3.4.2-2]). A client that cannot take the packet at all cannot be served.
    pub(in crate::connection) fn send_packet(
        &mut self,
        location: Location,
        version: Version,
        packet: &Packet<'_>,
    ) {
        let maximum = match self.connection(location).map(|connection| &connection.phase) {
            Some(Phase::Active(session)) => session.maximum_packet,
            Some(Phase::Checking(newcomer) | Phase::Opening(newcomer)) => newcomer.maximum_packet,
            _ => u32::MAX,
        };
        let mut fits = true;
        self.send(location, |out| fits = packet.encode_within(version, maximum, out));
        if !fits {
            let fault = Fault {
                reason: ReasonCode::PacketTooLarge,
                what: "an answer is larger than the client's Maximum Packet Size [MQTT-3.1.2-24]",
            };
            self.socket_ended(location, Some(fault.into()));
        }
    }

    /// Writes every socket that got something, and hands the letters out.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.turn.dirty);
        let mut at = 0;
        // Flushing may end connections, which may publish wills: then there is more to flush.
        while at < dirty.len() {
            let place = dirty[at];
            at += 1;
            self.flush_one(place);
            dirty.append(&mut self.turn.dirty);
        }
        dirty.clear();
        self.turn.dirty = dirty;
        self.post();
    }

    /// Hands the letters for shards and readers out before the turn ends, unless there are some for
    /// other workers, which wait: what goes by a shard never overtakes what goes straight to a worker.
    pub(super) fn post_early(&mut self) {
        if self.turn.to_workers.iter().all(Vec::is_empty) {
            self.post();
        }
    }

    /// Hands the turn's letters out. True when some are for other workers.
    pub(super) fn post(&mut self) -> bool {
        let fabric = &self.env.fabric;
        for (batch, mailbox) in self.turn.to_shards.iter_mut().zip(&fabric.shards) {
            mailbox.put_all(batch);
        }
        let mut to_others = false;
        let to_workers = self.turn.to_workers.iter_mut().zip(&fabric.workers);
        for (worker, (batch, mailbox)) in to_workers.enumerate() {
            to_others |= worker != self.number && !batch.is_empty();
            mailbox.put_all(batch);
        }
        fabric.readers.put_all(&mut self.turn.to_readers);
        to_others
    }

    fn flush_one(&mut self, place: usize) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        connection.dirty = false;
        let Some(socket) = &mut connection.socket else { return };
        if connection.blocked {
            return;
        }
        let before = connection.output.as_ref().map_or(0, |output| output.len());
        let result = socket.write(connection.output.as_deref_mut());
        let after = connection.output.as_ref().map_or(0, |output| output.len());
        self.counters.bytes_out.add((before - after) as u64);
        let location = connection.location;
        if connection.clogged && !connection.is_clogged() {
            connection.clogged = false;
            self.turn.again.push(location);
        }
        match result {
            Ok(Flush::Done) => {
                if let Some(output) = connection.output.take() {
                    self.pool.give(output);
                }
                if connection.finishing {
                    self.written_out(location);
                } else {
                    self.room_again(location);
                }
            }
            Ok(Flush::Blocked) => connection.blocked = true,
            Err(error) => self.socket_ended(location, Some(error)),
        }
    }
}

/// Notes that a connection has something to write this turn.
pub(in crate::connection) fn mark_dirty(
    turn: &mut Turn,
    connection: &mut Connection,
    place: usize,
) {
    if !connection.dirty {
        connection.dirty = true;
        turn.dirty.push(place);
    }
}
