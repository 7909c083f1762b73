//! Links between MQTT brokers.
