//! What was wrong with a packet, and where.

use crate::reason::ReasonCode;

/// A packet the standard does not allow: the reason code to answer with, and the place.
///
/// Building one costs nothing but two words, so hostile input cannot make refusing it expensive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} ({reason})")]
pub struct Fault {
    /// The code for the DISCONNECT or CONNACK that answers the packet. An MQTT 3.1.1 connection
    /// is closed without one.
    pub reason: ReasonCode,
    /// Packet, field and fault, with the clause where one speaks:
    /// `"CONNECT: reserved flag set [MQTT-3.1.2-3]"`.
    pub what: &'static str,
}

impl Fault {
    /// Bytes that cannot be parsed as the standard describes (0x81).
    pub(crate) const fn malformed(what: &'static str) -> Fault {
        Fault { reason: ReasonCode::MalformedPacket, what }
    }

    /// Readable, but not allowed by the protocol (0x82).
    pub(crate) const fn protocol(what: &'static str) -> Fault {
        Fault { reason: ReasonCode::ProtocolError, what }
    }

    /// Any other reason code.
    pub(crate) const fn new(reason: ReasonCode, what: &'static str) -> Fault {
        Fault { reason, what }
    }
}
