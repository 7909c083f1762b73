//! The will: the message in CONNECT that the server publishes when the client is gone (section
//! 3.1.3.2 to 3.1.3.4).

use super::publish_properties::PublishProperties;
use crate::fault::Fault;
use crate::property::{PropertyId, PropertyReader, PropertySink};
use crate::qos::QoS;
use crate::reader::{Reader, place};
use crate::topic::has_wildcard;
use crate::version::Version;
use crate::wire::{Sink, Wire, put_properties};

/// A message to be published when the connection ends other than normally.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Will<'a> {
    /// The QoS to publish it with.
    pub qos: QoS,
    /// Whether to publish it as a retained message.
    pub retain: bool,
    /// The topic name.
    pub topic: &'a str,
    /// The message itself, at most 65 535 bytes.
    pub payload: &'a [u8],
    /// How long to wait for the client to come back. 0 in MQTT 3.1.1.
    pub delay_secs: u32,
    /// The properties of the message. A will has no topic alias and no subscription identifiers.
    pub properties: PublishProperties<'a>,
}

impl<'a> Will<'a> {
    pub(crate) fn decode(
        version: Version,
        qos: QoS,
        retain: bool,
        body: &mut Reader<'a>,
    ) -> Result<Will<'a>, Fault> {
        let (delay_secs, properties) = match version {
            Version::V311 => (0, PublishProperties::default()),
            Version::V5 => read_properties(body)?,
        };
        let topic = body.text(place!("CONNECT: will topic"))?;
        if topic.is_empty() {
            return Err(Fault::malformed("CONNECT: will topic is empty [MQTT-4.7.3-1]"));
        }
        // "Wildcard characters … MUST NOT be used within a Topic Name" [MQTT-4.7.0-1].
        if has_wildcard(topic) {
            return Err(Fault::malformed("CONNECT: wildcard in the will topic [MQTT-4.7.0-1]"));
        }
        let payload = body.binary(place!("CONNECT: will payload"))?;
        Ok(Will { qos, retain, topic, payload, delay_secs, properties })
    }
}

fn read_properties<'a>(body: &mut Reader<'a>) -> Result<(u32, PublishProperties<'a>), Fault> {
    let mut block = PropertyReader::open(body)?;
    let mut delay_secs = 0;
    let mut properties = PublishProperties::received();
    while let Some(id) = block.advance()? {
        match id {
            PropertyId::WillDelayInterval => delay_secs = block.u32()?,
            shared => properties.take(shared, &mut block)?,
        }
    }
    Ok((delay_secs, properties))
}

impl Wire for Will<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        put_properties(&WillProperties(self), version, out);
        out.text(self.topic);
        out.binary(self.payload);
    }
}

struct WillProperties<'a>(&'a Will<'a>);

impl Wire for WillProperties<'_> {
    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        let WillProperties(will) = self;
        // 0 is the default (3.1.3.2.2) and needs no property.
        let delay = (will.delay_secs > 0).then_some(will.delay_secs);
        out.u32_property(PropertyId::WillDelayInterval, delay);
        will.properties.write(version, out);
    }
}
