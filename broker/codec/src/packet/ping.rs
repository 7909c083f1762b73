//! PINGREQ and PINGRESP (sections 3.12 and 3.13): packets without content.

use crate::fault::Fault;
use crate::frame::{Frame, PacketType};

pub(crate) fn decode(frame: Frame<'_>) -> Result<(), Fault> {
    frame.body.finish("PINGREQ, PINGRESP: there must be no body [3.12.1] [3.13.1]")
}

pub(crate) fn encode(packet_type: PacketType, out: &mut Vec<u8>) {
    out.extend_from_slice(&[packet_type.first_byte(), 0]);
}
