//! The client's own QoS 2 exchanges, and how many of its publications are unfinished.
//!
//! A QoS 2 publication is submitted once per life of its packet identifier (invariant 6): from
//! its PUBLISH until PUBCOMP leaves. Deliberately not here: where the markers are stored.

use hoopoe_codec::PacketId;
use smallvec::SmallVec;

/// What a QoS 2 PUBLISH is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// New: submit it, answer PUBREC when that is done.
    New,
    /// Submitted by an earlier connection, and some shards may not have it: submit it again.
    Again,
    /// Repeated while its first submit is under way: that one's PUBREC answers both.
    Pending,
    /// Repeated after PUBREC: answer PUBREC again, submit nothing ([MQTT-4.3.3-10]).
    Known,
}

/// How far an exchange is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Submitted, not committed everywhere yet.
    Submitted,
    /// Committed by all shards that take part: PUBREC has left, or may.
    Answered,
    /// Found in the store. Some shards that take part may not have committed it: it is submitted
    /// again when it is repeated, and those that have it do nothing (ruling 4).
    Unsure,
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    id: u16,
    state: State,
    /// Begun over this connection: it counts against the maximum.
    counts: bool,
    /// An earlier connection may have submitted it.
    again: bool,
}

/// Unfinished publications of the client.
#[derive(Debug)]
pub struct Incoming {
    maximum: u16,
    unanswered_qos1: u16,
    exchanges: SmallVec<[Exchange; 2]>,
}

impl Incoming {
    /// The client may have `maximum` unfinished QoS 1 and 2 publications: the Receive Maximum
    /// that CONNACK announced.
    pub fn new(maximum: u16) -> Incoming {
        Incoming { maximum, unanswered_qos1: 0, exchanges: SmallVec::new() }
    }

    /// Restores exchanges that an earlier connection began. Those among `answered` were committed
    /// everywhere; of the others, PUBREC may have left or not.
    pub fn restore(&mut self, ids: &[u16], answered: &[u16]) {
        self.exchanges.extend(ids.iter().map(|&id| {
            let state = if answered.contains(&id) { State::Answered } else { State::Unsure };
            Exchange { id, state, counts: false, again: true }
        }));
    }

    /// Exchanges that were committed everywhere.
    pub fn answered(&self) -> impl Iterator<Item = u16> + '_ {
        let answered = self.exchanges.iter().filter(|e| e.state == State::Answered);
        answered.map(|e| e.id)
    }

    /// Unfinished publications of this connection: the client's quota begins anew with each
    /// ([MQTT-4.9.0-1]).
    pub fn unfinished(&self) -> usize {
        let begun = self.exchanges.iter().filter(|exchange| exchange.counts).count();
        usize::from(self.unanswered_qos1) + begun
    }

    /// A QoS 1 PUBLISH; false when that is one more than the maximum ([MQTT-3.3.4-7]).
    pub fn begin_qos1(&mut self) -> bool {
        if self.unfinished() >= usize::from(self.maximum) {
            return false;
        }
        self.unanswered_qos1 += 1;
        true
    }

    /// Its PUBACK leaves.
    pub fn end_qos1(&mut self) {
        self.unanswered_qos1 = self.unanswered_qos1.saturating_sub(1);
    }

    /// A QoS 2 PUBLISH, with DUP if `dup`; `None` when that is one more than the maximum.
    pub fn begin_qos2(&mut self, id: PacketId, dup: bool) -> Option<Received> {
        if let Some(exchange) = self.exchanges.iter_mut().find(|e| e.id == id.get()) {
            return Some(match exchange.state {
                State::Submitted => Received::Pending,
                State::Answered => Received::Known,
                State::Unsure => {
                    exchange.state = State::Submitted;
                    Received::Again
                }
            });
        }
        if self.unfinished() >= usize::from(self.maximum) {
            return None;
        }
        let state = State::Submitted;
        self.exchanges.push(Exchange { id: id.get(), state, counts: true, again: dup });
        Some(Received::New)
    }

    /// True when shards may have it from an earlier connection. Who cannot ask them must not refuse
    /// it: they would take what comes next under its identifier for a repetition.
    pub fn may_be_submitted(&self, id: PacketId) -> bool {
        self.exchanges.iter().any(|e| e.id == id.get() && e.again)
    }

    /// Its PUBREC leaves; a refusal ends the exchange.
    pub fn answer_qos2(&mut self, id: PacketId, refused: bool) {
        if refused {
            self.end_qos2(id);
        } else if let Some(exchange) = self.exchanges.iter_mut().find(|e| e.id == id.get()) {
            exchange.state = State::Answered;
        }
    }

    /// True when PUBREL for this identifier belongs to an exchange.
    pub fn knows(&self, id: PacketId) -> bool {
        self.exchanges.iter().any(|e| e.id == id.get())
    }

    /// PUBCOMP leaves: the identifier is free again.
    pub fn end_qos2(&mut self, id: PacketId) {
        self.exchanges.retain(|e| e.id != id.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    #[test]
    fn a_qos_2_publication_is_new_once_per_life_of_its_identifier() {
        let mut incoming = Incoming::new(10);
        assert_eq!(incoming.begin_qos2(id(1), false), Some(Received::New));
        assert_eq!(incoming.begin_qos2(id(1), false), Some(Received::Pending));
        incoming.answer_qos2(id(1), false);
        assert_eq!(incoming.begin_qos2(id(1), false), Some(Received::Known));
        assert!(incoming.knows(id(1)));
        incoming.end_qos2(id(1));
        assert_eq!(incoming.begin_qos2(id(1), false), Some(Received::New));
        incoming.answer_qos2(id(1), true);
        assert!(!incoming.knows(id(1)), "a refused publication frees its identifier");
    }

    #[test]
    fn what_comes_with_dup_may_have_been_submitted_over_another_connection() {
        let mut incoming = Incoming::new(10);
        assert_eq!(incoming.begin_qos2(id(1), false), Some(Received::New));
        assert_eq!(incoming.begin_qos2(id(1), true), Some(Received::Pending));
        assert!(!incoming.may_be_submitted(id(1)), "it was begun here");
        assert_eq!(incoming.begin_qos2(id(2), true), Some(Received::New));
        assert!(incoming.may_be_submitted(id(2)));
        incoming.restore(&[3], &[]);
        assert!(incoming.may_be_submitted(id(3)));
        incoming.end_qos2(id(3));
        assert!(!incoming.may_be_submitted(id(3)));
    }

    #[test]
    fn one_above_the_receive_maximum_is_too_many() {
        let mut incoming = Incoming::new(2);
        assert!(incoming.begin_qos1());
        assert_eq!(incoming.begin_qos2(id(5), false), Some(Received::New));
        assert!(!incoming.begin_qos1());
        assert_eq!(incoming.begin_qos2(id(6), false), None);
        assert_eq!(incoming.begin_qos2(id(5), false), Some(Received::Pending), "no new one");
        incoming.end_qos1();
        assert!(incoming.begin_qos1());
    }

    #[test]
    fn restored_exchanges_are_known_if_they_were_committed_everywhere() {
        let mut incoming = Incoming::new(10);
        incoming.restore(&[3, 4], &[3]);
        assert!(incoming.knows(id(3)) && incoming.knows(id(4)));
        assert_eq!(incoming.begin_qos2(id(3), false), Some(Received::Known));
        assert_eq!(incoming.begin_qos2(id(4), false), Some(Received::Again));
        assert_eq!(incoming.begin_qos2(id(4), false), Some(Received::Pending));
        incoming.answer_qos2(id(4), false);
        assert_eq!(incoming.answered().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(incoming.begin_qos2(id(5), false), Some(Received::New));
        assert_eq!(incoming.unfinished(), 1, "a new connection, a new quota");
    }
}
