//! paho-mqtt, the Python client.

use std::process::Command;

use hoopoe_tests::{Version, program};
use serde_json::json;

use crate::peer::{Login, Message, Peer};
use crate::scenario::scenarios;
use crate::scripted::Scripted;

struct Paho(Scripted);

impl Peer for Paho {
    fn connect(login: &Login) -> Paho {
        let websocket = login.scheme.starts_with("ws");
        let (will_topic, will_payload) = login.will.clone().unzip();
        let asked = json!({
            "host": login.address.ip().to_string(),
            "port": login.address.port(),
            "version": if login.version == Version::V5 { 5 } else { 4 },
            "transport": if websocket { "websockets" } else { "tcp" },
            "path": "/mqtt",
            "authority": login.authority,
            "client_id": login.client_id,
            "clean": login.clean,
            "will_topic": will_topic,
            "will_payload": will_payload,
        });
        let mut command = Command::new(program::python());
        command.arg(program::package_file("clients/paho/peer.py")).arg(asked.to_string());
        Paho(Scripted::start(command))
    }

    fn subscribe(&mut self, topic: &str, qos: u8) {
        self.0.subscribe(topic, qos);
    }

    fn publish(&mut self, topic: &str, qos: u8, retain: bool, text: &str) {
        self.0.publish(topic, qos, retain, text);
    }

    fn next_message(&mut self) -> Message {
        self.0.next_message()
    }

    fn leave(self) {
        self.0.leave();
    }

    fn die(self) {
        self.0.die();
    }
}

scenarios!(Paho, Version::BOTH, ["tcp", "tls", "ws", "wss"]);
