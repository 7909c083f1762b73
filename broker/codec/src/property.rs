//! The properties of MQTT 5 (section 2.2.2): their identifiers and types, reading a block of them,
//! writing them.
//!
//! [`PropertyReader`] walks a block and refuses what no packet may contain: unknown identifiers,
//! a property twice, a value cut by the block's end. Which properties belong to a packet, the
//! packet says by matching on [`PropertyId`].

use crate::fault::Fault;
use crate::reader::{Place, Reader, place};
use crate::wire::Sink;

/// The type of a property's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ValueType {
    Byte,
    U16,
    U32,
    VarInt,
    Text,
    Binary,
    TextPair,
}

/// A property's name, with all its faults spelled out in advance.
struct Spelling {
    place: &'static Place,
    twice: &'static str,
    misplaced: &'static str,
    out_of_range: &'static str,
}

/// Writes the enumeration and its tables from one list, table 2-4 of the standard.
macro_rules! properties {
    ($($id:literal $variant:ident $value_type:ident $name:literal,)*) => {
        /// The identifier of a property.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub(crate) enum PropertyId {
            $($variant = $id,)*
        }

        impl PropertyId {
            /// All identifiers are below 128, so that one byte is the whole Variable Byte Integer.
            const fn from_byte(byte: u8) -> Option<PropertyId> {
                Some(match byte {
                    $($id => PropertyId::$variant,)*
                    _ => return None,
                })
            }

            const fn value_type(self) -> ValueType {
                match self {
                    $(PropertyId::$variant => ValueType::$value_type,)*
                }
            }

            const fn spelling(self) -> &'static Spelling {
                match self {
                    $(PropertyId::$variant => &Spelling {
                        place: place!(concat!("property ", $name)),
                        twice: concat!("property ", $name, " is there twice"),
                        misplaced: concat!("property ", $name, " does not belong to this packet"),
                        out_of_range: concat!("property ", $name, " has a value not allowed"),
                    },)*
                }
            }
        }
    };
}

properties! {
    0x01 PayloadFormatIndicator Byte "Payload Format Indicator",
    0x02 MessageExpiryInterval U32 "Message Expiry Interval",
    0x03 ContentType Text "Content Type",
    0x08 ResponseTopic Text "Response Topic",
    0x09 CorrelationData Binary "Correlation Data",
    0x0B SubscriptionIdentifier VarInt "Subscription Identifier",
    0x11 SessionExpiryInterval U32 "Session Expiry Interval",
    0x12 AssignedClientIdentifier Text "Assigned Client Identifier",
    0x13 ServerKeepAlive U16 "Server Keep Alive",
    0x15 AuthenticationMethod Text "Authentication Method",
    0x16 AuthenticationData Binary "Authentication Data",
    0x17 RequestProblemInformation Byte "Request Problem Information",
    0x18 WillDelayInterval U32 "Will Delay Interval",
    0x19 RequestResponseInformation Byte "Request Response Information",
    0x1A ResponseInformation Text "Response Information",
    0x1C ServerReference Text "Server Reference",
    0x1F ReasonString Text "Reason String",
    0x21 ReceiveMaximum U16 "Receive Maximum",
    0x22 TopicAliasMaximum U16 "Topic Alias Maximum",
    0x23 TopicAlias U16 "Topic Alias",
    0x24 MaximumQoS Byte "Maximum QoS",
    0x25 RetainAvailable Byte "Retain Available",
    0x26 UserProperty TextPair "User Property",
    0x27 MaximumPacketSize U32 "Maximum Packet Size",
    0x28 WildcardSubscriptionAvailable Byte "Wildcard Subscription Available",
    0x29 SubscriptionIdentifierAvailable Byte "Subscription Identifier Available",
    0x2A SharedSubscriptionAvailable Byte "Shared Subscription Available",
}

impl PropertyId {
    /// Whether a block may contain the property more than once. For the subscription identifier
    /// that holds in PUBLISH only; SUBSCRIBE looks itself.
    const fn may_repeat(self) -> bool {
        matches!(self, PropertyId::UserProperty | PropertyId::SubscriptionIdentifier)
    }

    /// The fault of a property in a packet it does not belong to (5.0, section 2.2.2.2: "a Control
    /// Packet which contains an Identifier which is not valid for its packet type" is malformed).
    pub(crate) const fn misplaced(self) -> Fault {
        Fault::malformed(self.spelling().misplaced)
    }

    /// The fault of a property that must not come again: "It is a Protocol Error to include …
    /// more than once".
    pub(crate) const fn twice(self) -> Fault {
        Fault::protocol(self.spelling().twice)
    }

    /// The fault of a value the standard excludes: "It is a Protocol Error …".
    pub(crate) const fn out_of_range(self) -> Fault {
        Fault::protocol(self.spelling().out_of_range)
    }
}

/// A walk over one block of properties. [`advance`](PropertyReader::advance) finds the next
/// identifier; its value must then be read with the method for its type.
pub(crate) struct PropertyReader<'a> {
    /// The whole block.
    block: &'a [u8],
    /// Where the current property, identifier included, begins in the block.
    start: usize,
    rest: Reader<'a>,
    current: PropertyId,
    /// One bit per identifier already met.
    seen: u64,
}

impl<'a> PropertyReader<'a> {
    /// Takes a property length and the block it announces.
    #[inline]
    pub(crate) fn open(packet: &mut Reader<'a>) -> Result<PropertyReader<'a>, Fault> {
        const PLACE: &Place = place!("property length");
        let len = packet.varint(PLACE)?;
        Ok(PropertyReader::over(packet.bytes(len as usize, PLACE)?))
    }

    /// Walks a block that has already been cut out.
    pub(crate) const fn over(block: &'a [u8]) -> PropertyReader<'a> {
        PropertyReader {
            block,
            start: 0,
            rest: Reader::new(block),
            current: PropertyId::UserProperty,
            seen: 0,
        }
    }

    /// The identifier of the next property; `None` at the end of the block.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<Option<PropertyId>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.start = self.offset();
        let byte = self.rest.byte(place!("property identifier"))?;
        let id = PropertyId::from_byte(byte)
            .ok_or(Fault::malformed("property identifier is unknown [2.2.2.2]"))?;
        let bit = 1 << id as u8;
        if self.seen & bit != 0 && !id.may_repeat() {
            return Err(id.twice());
        }
        self.seen |= bit;
        self.current = id;
        Ok(Some(id))
    }

    /// The whole block.
    pub(crate) const fn block(&self) -> &'a [u8] {
        self.block
    }

    /// Where the current property begins in the block.
    pub(crate) const fn start(&self) -> usize {
        self.start
    }

    /// Where reading stands in the block: after a value was read, the end of the property.
    pub(crate) const fn offset(&self) -> usize {
        self.block.len() - self.rest.rest().len()
    }

    fn place(&self) -> &'static Place {
        self.current.spelling().place
    }

    /// A byte that is 0 or 1; any other value is a Protocol Error.
    pub(crate) fn flag(&mut self) -> Result<bool, Fault> {
        match self.rest.byte(self.place())? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.current.out_of_range()),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.rest.u16(self.place())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.rest.u32(self.place())
    }

    pub(crate) fn varint(&mut self) -> Result<u32, Fault> {
        self.rest.varint(self.place())
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Fault> {
        self.rest.text(self.place())
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        self.rest.binary(self.place())
    }

    /// Name and value of a user property.
    pub(crate) fn text_pair(&mut self) -> Result<(&'a str, &'a str), Fault> {
        Ok((self.text()?, self.text()?))
    }

    /// Passes over the value of the current property without looking at it.
    pub(crate) fn skip(&mut self) -> Result<(), Fault> {
        let place = self.place();
        match self.current.value_type() {
            ValueType::Byte => self.rest.byte(place).map(drop),
            ValueType::U16 => self.rest.u16(place).map(drop),
            ValueType::U32 => self.rest.u32(place).map(drop),
            ValueType::VarInt => self.rest.varint(place).map(drop),
            ValueType::Text | ValueType::Binary => self.rest.binary(place).map(drop),
            ValueType::TextPair => {
                self.rest.binary(place)?;
                self.rest.binary(place).map(drop)
            }
        }
    }
}

/// Writing properties: identifier and value when there is a value, nothing otherwise.
pub(crate) trait PropertySink: Sink {
    #[inline]
    fn flag_property(&mut self, id: PropertyId, value: Option<bool>) {
        if let Some(value) = value {
            self.put(&[id as u8, u8::from(value)]);
        }
    }

    #[inline]
    fn u16_property(&mut self, id: PropertyId, value: Option<u16>) {
        if let Some(value) = value {
            self.byte(id as u8);
            self.u16(value);
        }
    }

    #[inline]
    fn u32_property(&mut self, id: PropertyId, value: Option<u32>) {
        if let Some(value) = value {
            self.byte(id as u8);
            self.u32(value);
        }
    }

    #[inline]
    fn varint_property(&mut self, id: PropertyId, value: u32) {
        self.byte(id as u8);
        self.varint(value);
    }

    #[inline]
    fn text_property(&mut self, id: PropertyId, value: Option<&str>) {
        if let Some(value) = value {
            self.byte(id as u8);
            self.text(value);
        }
    }

    #[inline]
    fn binary_property(&mut self, id: PropertyId, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.byte(id as u8);
            self.binary(value);
        }
    }

    #[inline]
    fn text_pair_property(&mut self, name: &str, value: &str) {
        self.byte(PropertyId::UserProperty as u8);
        self.text(name);
        self.text(value);
    }
}

impl<S: Sink> PropertySink for S {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::ReasonCode;

    #[test]
    fn a_block_is_walked_in_order() {
        let mut block = Vec::new();
        block.u32_property(PropertyId::MessageExpiryInterval, Some(7));
        block.text_pair_property("a", "b");
        block.text_pair_property("a", "c");
        block.text_property(PropertyId::ContentType, None);
        let mut reader = PropertyReader::over(&block);
        assert_eq!(reader.advance(), Ok(Some(PropertyId::MessageExpiryInterval)));
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!(reader.offset(), 5);
        assert_eq!(reader.advance(), Ok(Some(PropertyId::UserProperty)));
        assert_eq!(reader.text_pair(), Ok(("a", "b")));
        assert_eq!(reader.advance(), Ok(Some(PropertyId::UserProperty)));
        assert_eq!(reader.skip(), Ok(()));
        assert_eq!(reader.advance(), Ok(None));
    }

    #[test]
    fn faults_name_the_property() {
        let mut unknown = PropertyReader::over(&[0x04]);
        assert_eq!(unknown.advance().map_err(|f| f.reason), Err(ReasonCode::MalformedPacket));
        let mut twice = PropertyReader::over(&[0x01, 0x00, 0x01, 0x00]);
        assert_eq!(twice.advance(), Ok(Some(PropertyId::PayloadFormatIndicator)));
        assert_eq!(twice.flag(), Ok(false));
        let fault = twice.advance().expect_err("a second one");
        assert_eq!(fault.reason, ReasonCode::ProtocolError);
        assert_eq!(fault.what, "property Payload Format Indicator is there twice");
        let mut cut = PropertyReader::over(&[0x02, 0x00]);
        assert_eq!(cut.advance(), Ok(Some(PropertyId::MessageExpiryInterval)));
        let fault = cut.u32().expect_err("cut");
        assert_eq!(fault.what, "property Message Expiry Interval is cut short");
    }
}
