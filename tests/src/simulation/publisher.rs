//! A client's publications: what is in flight, in which order it is acknowledged, what is sent
//! again over the next connection.

use super::ledger::{Attempt, Ledger, Message, Publication};
use crate::wire::{Ack, Publish, Version, ack, packet_type};

/// Publications a client leaves unacknowledged.
pub const MOST_IN_FLIGHT: usize = 6;

#[derive(Clone, Copy, Debug)]
struct Flight {
    id: u16,
    message: Message,
    qos: u8,
    /// PUBREC has come.
    released: bool,
    /// Sent over the present connection.
    sent: bool,
}

/// The publishing half of a client.
#[derive(Debug, Default)]
pub struct Publisher {
    flights: Vec<Flight>,
    next_id: u16,
}

impl Publisher {
    /// Publications without an end.
    pub fn unfinished(&self) -> usize {
        self.flights.len()
    }

    /// A new publication: its packet.
    pub fn publish(
        &mut self,
        version: Version,
        publication: Publication,
        ledger: &mut Ledger,
    ) -> Vec<u8> {
        let qos = publication.qos;
        let message = ledger.publish(publication);
        let id = if qos == 0 { 0 } else { self.free_id() };
        if qos > 0 {
            self.flights.push(Flight { id, message, qos, released: false, sent: true });
        }
        packet(version, ledger.attempt(message), id, false, ledger)
    }

    fn free_id(&mut self) -> u16 {
        loop {
            // Few identifiers, so that they come round again soon.
            self.next_id = self.next_id % 12 + 1;
            if self.flights.iter().all(|flight| flight.id != self.next_id) {
                return self.next_id;
            }
        }
    }

    /// A new connection: what the session owes is sent again, in order ([MQTT-4.4.0-1]).
    pub fn connected(
        &mut self,
        version: Version,
        session_present: bool,
        ledger: &mut Ledger,
    ) -> Vec<Vec<u8>> {
        if !session_present {
            self.flights.clear();
        }
        let mut packets = Vec::new();
        for flight in &mut self.flights {
            flight.sent = true;
            packets.push(if flight.released {
                ack(version, packet_type::PUBREL, flight.id, 0)
            } else {
                let attempt = ledger.attempt(flight.message);
                packet(version, attempt, flight.id, true, ledger)
            });
        }
        packets
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.flights.iter_mut().for_each(|flight| flight.sent = false);
    }

    /// The session is given up.
    pub fn forget(&mut self) {
        self.flights.clear();
    }

    /// PUBACK.
    pub fn puback(&mut self, packet: &Ack, ledger: &mut Ledger) -> Result<Message, String> {
        let first = self.flights.iter().position(|f| f.qos == 1);
        match first.map(|at| self.flights[at]) {
            Some(flight) if flight.id == packet.id => {
                self.flights.retain(|f| f.id != packet.id);
                if packet.code < 0x80 {
                    ledger.acked(flight.message);
                }
                Ok(flight.message)
            }
            Some(flight) => {
                Err(format!("PUBACK {} before PUBACK {} [MQTT-4.6.0-2]", packet.id, flight.id))
            }
            None => Err(format!("PUBACK {} for nothing", packet.id)),
        }
    }

    /// PUBREC; gives the PUBREL to send.
    pub fn pubrec(
        &mut self,
        version: Version,
        packet: &Ack,
        ledger: &mut Ledger,
    ) -> Result<Option<Vec<u8>>, String> {
        let expected = self.flights.iter().find(|f| f.qos == 2 && !f.released).map(|f| f.id);
        if expected != Some(packet.id) {
            return Err(format!("PUBREC {}, expected {expected:?} [MQTT-4.6.0-3]", packet.id));
        }
        let at = self.flights.iter().position(|f| f.id == packet.id);
        let Some(at) = at else { return Ok(None) };
        if packet.code >= 0x80 {
            self.flights.remove(at);
            return Ok(None);
        }
        self.flights[at].released = true;
        ledger.acked(self.flights[at].message);
        Ok(Some(ack(version, packet_type::PUBREL, packet.id, 0)))
    }

    /// The broker has written PUBREC with an error for these, whether it arrives or not.
    pub fn refused(&self, ids: &[u16], ledger: &mut Ledger) {
        for flight in self.flights.iter().filter(|f| f.qos == 2 && ids.contains(&f.id)) {
            ledger.refused(flight.message);
        }
    }

    /// PUBCOMP.
    pub fn pubcomp(&mut self, packet: &Ack) -> Result<(), String> {
        let at = self.flights.iter().position(|f| f.id == packet.id && f.released);
        match at {
            Some(at) => {
                self.flights.remove(at);
                Ok(())
            }
            None => Err(format!("PUBCOMP {} for nothing", packet.id)),
        }
    }
}

fn packet(version: Version, attempt: Attempt, id: u16, dup: bool, ledger: &Ledger) -> Vec<u8> {
    let publication = ledger.publication(attempt.message);
    let payload = attempt.payload(publication.padding);
    let mut publish = Publish::new(publication.topic, payload).qos(publication.qos).id(id);
    publish.dup = dup;
    publish.retain = publication.retain;
    publish.encode(version)
}
