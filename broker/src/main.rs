//! An MQTT broker for instant messaging.

fn main() {}
