//! A load tester for MQTT brokers, made for chat.

fn main() {}
