//! UNSUBSCRIBE (section 3.10): topic filters whose subscriptions are to end.

use smallvec::SmallVec;

use super::subscribe::topic_filter;
use crate::fault::Fault;
use crate::frame::{Frame, PacketType};
use crate::id::PacketId;
use crate::packet::packet_id;
use crate::property::{PropertyId, PropertyReader};
use crate::reader::{Reader, place};
use crate::user_properties::UserProperties;
use crate::version::Version;
use crate::wire::{Sink, Wire, put_packet, put_properties};

/// A request to end subscriptions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsubscribe<'a> {
    /// Ties the UNSUBACK to this packet.
    pub id: PacketId,
    /// The sender's own pairs.
    pub user_properties: UserProperties<'a>,
    /// The topic filters, at least one.
    pub filters: SmallVec<[&'a str; 4]>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(version: Version, frame: Frame<'a>) -> Result<Unsubscribe<'a>, Fault> {
        let mut body = frame.body;
        let id = packet_id(&mut body, place!("UNSUBSCRIBE: packet identifier"))?;
        let user_properties = match version {
            Version::V311 => UserProperties::NONE,
            Version::V5 => read_properties(&mut body)?,
        };
        let mut filters = SmallVec::new();
        while !body.is_empty() {
            filters.push(topic_filter(&mut body)?);
        }
        // "The Payload of an UNSUBSCRIBE packet MUST contain at least one Topic Filter"
        // [MQTT-3.10.3-2].
        if filters.is_empty() {
            return Err(Fault::protocol("UNSUBSCRIBE: no topic filter [MQTT-3.10.3-2]"));
        }
        Ok(Unsubscribe { id, user_properties, filters })
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_packet(PacketType::Unsubscribe.first_byte(), self, version, out);
    }
}

fn read_properties<'a>(body: &mut Reader<'a>) -> Result<UserProperties<'a>, Fault> {
    let mut user_properties = UserProperties::NONE;
    let mut block = PropertyReader::open(body)?;
    while let Some(id) = block.advance()? {
        match id {
            PropertyId::UserProperty => user_properties.take(&mut block)?,
            other => return Err(other.misplaced()),
        }
    }
    Ok(user_properties)
}

impl Wire for Unsubscribe<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.u16(self.id.get());
        put_properties(&self.user_properties, version, out);
        for filter in &self.filters {
            out.text(filter);
        }
    }
}
