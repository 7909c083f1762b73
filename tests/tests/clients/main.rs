//! Clients other people wrote, each through the same scenarios: all qualities of service, retained
//! messages, wills, a queue that outlives a restart of the broker, and every transport they have.
//!
//! `peer` says what a client is to the scenarios, `scenario` runs them; each other module adapts
//! one library or program. A missing program fails its tests and says how to install it.

mod browser;
mod mosquitto;
mod mqttjs;
mod paho;
mod peer;
mod rumqttc;
mod scenario;
mod scripted;
