//! mosquitto_sub and mosquitto_pub.

use std::process::Command;

use hoopoe_tests::Version;
use hoopoe_tests::program::Program;

use crate::peer::{Login, Message, Peer};
use crate::scenario::scenarios;

/// Marks a line that holds a message; everything else is what `-d` prints.
const MARK: &str = "message:";

/// One mosquitto_sub, started by its first subscription; mosquitto_pub for each publication.
struct Mosquitto {
    login: Login,
    subscriber: Option<Program>,
    seen: Vec<Message>,
}

impl Mosquitto {
    fn command(&self, program: &str) -> Command {
        // Line by line, also into a pipe.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program]);
        command.args(["-h", &self.login.address.ip().to_string()]);
        command.args(["-p", &self.login.address.port().to_string()]);
        command.args(["-V", if self.login.version == Version::V5 { "mqttv5" } else { "mqttv311" }]);
        if let Some(authority) = &self.login.authority {
            command.arg("--cafile").arg(authority);
        }
        command
    }

    fn read_line(&mut self) -> String {
        let line = self.subscriber.as_mut().and_then(Program::next_line);
        let line = line.expect("mosquitto_sub runs until it is ended");
        if let Some(rest) = line.strip_prefix(MARK) {
            let fields: Vec<&str> = rest.splitn(4, ' ').collect();
            self.seen.push(Message {
                qos: fields[0].parse().expect("a number"),
                retain: fields[1] == "1",
                topic: fields[2].to_owned(),
                text: fields[3].to_owned(),
            });
        }
        line
    }
}

impl Peer for Mosquitto {
    fn leaves_its_will(version: Version) -> bool {
        // On SIGTERM mosquitto_sub sends DISCONNECT, in 5.0 with the code 0x04.
        version == Version::V5
    }

    fn connect(login: &Login) -> Mosquitto {
        Mosquitto { login: login.clone(), subscriber: None, seen: Vec::new() }
    }

    fn subscribe(&mut self, topic: &str, qos: u8) {
        let mut command = self.command("mosquitto_sub");
        command.args(["-d", "-i", &self.login.client_id, "-t", topic, "-q", &qos.to_string()]);
        command.args(["-F", &format!("{MARK}%q %r %t %p")]);
        if !self.login.clean {
            command.arg("-c");
            if self.login.version == Version::V5 {
                command.args(["-x", "3600"]);
            }
        }
        if let Some((topic, text)) = &self.login.will {
            command.args(["--will-topic", topic, "--will-payload", text, "--will-qos", "1"]);
        }
        self.subscriber = Some(Program::start(command));
        while !self.read_line().contains("Subscribed (mid:") {}
    }

    fn publish(&mut self, topic: &str, qos: u8, retain: bool, text: &str) {
        let mut command = self.command("mosquitto_pub");
        command.args(["-t", topic, "-q", &qos.to_string()]);
        if retain {
            command.arg("-r");
        }
        if text.is_empty() {
            command.arg("-n");
        } else {
            command.args(["-m", text]);
        }
        Program::start(command).succeed();
    }

    fn next_message(&mut self) -> Message {
        while self.seen.is_empty() {
            self.read_line();
        }
        self.seen.remove(0)
    }

    fn leave(mut self) {
        if let Some(subscriber) = self.subscriber.take() {
            subscriber.terminate();
        }
    }

    fn die(mut self) {
        self.subscriber.take().expect("a running mosquitto_sub").kill();
    }
}

scenarios!(Mosquitto, Version::BOTH, ["tcp", "tls"]);
