//! MQTT.js under node.

use std::process::Command;

use hoopoe_tests::{Version, program};
use serde_json::json;

use crate::peer::{Login, Message, Peer};
use crate::scenario::scenarios;
use crate::scripted::Scripted;

struct MqttJs(Scripted);

impl Peer for MqttJs {
    fn connect(login: &Login) -> MqttJs {
        let (scheme, path) = match login.scheme {
            "tcp" => ("mqtt", ""),
            "tls" => ("mqtts", ""),
            websocket => (websocket, "/mqtt"),
        };
        let (will_topic, will_payload) = login.will.clone().unzip();
        let asked = json!({
            "url": format!("{scheme}://{}{path}", login.address),
            "version": if login.version == Version::V5 { 5 } else { 4 },
            "authority": login.authority,
            "client_id": login.client_id,
            "clean": login.clean,
            "will_topic": will_topic,
            "will_payload": will_payload,
        });
        let mut command = Command::new("node");
        command.env("HOOPOE_NODE_MODULES", program::node_modules());
        command.arg(program::package_file("clients/mqttjs/peer.mjs")).arg(asked.to_string());
        MqttJs(Scripted::start(command))
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

scenarios!(MqttJs, Version::BOTH, ["ws", "wss", "tcp", "tls"]);
