//! The HTTP API below `/v1`: services, messages, tokens, operators, the content hook. Real
//! requests and MQTT clients against a whole broker.

mod hook;
mod operator;
mod service;
mod token;

use hoopoe_tests::broker::Options;
use hoopoe_tests::wire::properties::Property;
use hoopoe_tests::{Broker, Connect, Http, Publish, RawClient, Version};

/// The admin token of the brokers here.
const ADMIN: &str = "the operators' own token";

/// A broker with an admin token, in development mode.
fn options() -> Options {
    Options::new().environment("HOOPOE_HTTP__ADMIN_TOKEN", ADMIN)
}

fn admin(broker: &Broker) -> Http {
    Http::new(broker.http()).bearer(ADMIN)
}

/// A user's device that has read its hello.
fn device(broker: &Broker, connect: Connect) -> RawClient {
    let mut device = broker.connect(&connect);
    let hello = device.take_publish();
    assert_eq!(hello.topic, "im/me/sys/hello");
    device
}

/// The value of a user property.
fn im<'p>(publish: &'p Publish, name: &str) -> &'p str {
    let found = publish.properties.0.iter().find_map(|property| match property {
        Property::UserProperty(found, value) if found == name => Some(value.as_str()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no {name} in {publish:?}"))
}

/// The code of the CONNACK.
fn login_code(broker: &Broker, connect: &Connect) -> u8 {
    use hoopoe_tests::{Packet, Received};
    match broker.open(Version::V5).try_login(connect) {
        Received::Packet(Packet::ConnAck(connack)) => connack.code,
        other => panic!("CONNACK expected, got {other:?}"),
    }
}
