//! A client in another language: a child process that reads commands and prints what happens, one
//! line each, as `clients/paho/peer.py` and `clients/mqttjs/peer.mjs` describe.

use std::collections::VecDeque;
use std::io::Write;
use std::process::Command;

use hoopoe_tests::program::Program;

use crate::peer::Message;

pub(crate) struct Scripted {
    program: Program,
    messages: VecDeque<Message>,
}

impl Scripted {
    /// Starts the script and waits until it is connected.
    pub(crate) fn start(command: Command) -> Scripted {
        let mut scripted = Scripted { program: Program::start(command), messages: VecDeque::new() };
        scripted.wait_for("connected");
        scripted
    }

    pub(crate) fn command(&mut self, fields: &[&str], answer: &str) {
        let line = format!("{}\n", fields.join("\t"));
        self.program.input().write_all(line.as_bytes()).expect("the script reads its commands");
        self.wait_for(answer);
    }

    pub(crate) fn subscribe(&mut self, topic: &str, qos: u8) {
        let answer = format!("subscribed\t{qos}");
        self.command(&["subscribe", topic, &qos.to_string()], &answer);
    }

    pub(crate) fn publish(&mut self, topic: &str, qos: u8, retain: bool, text: &str) {
        let retain = if retain { "1" } else { "0" };
        self.command(&["publish", topic, &qos.to_string(), retain, text], "published");
    }

    pub(crate) fn next_message(&mut self) -> Message {
        while self.messages.is_empty() {
            self.read_line();
        }
        self.messages.pop_front().expect("there is one")
    }

    pub(crate) fn leave(mut self) {
        self.command(&["leave"], "left");
        self.program.succeed();
    }

    pub(crate) fn die(self) {
        self.program.kill();
    }

    /// Reads to a line that begins with `answer`, keeping messages for later.
    fn wait_for(&mut self, answer: &str) {
        loop {
            if let Some(line) = self.read_line() {
                if line.starts_with(answer) {
                    return;
                }
                let mut said = line;
                while let Some(line) = self.program.next_line() {
                    said = format!("{said}\n{line}");
                }
                panic!("{answer:?} expected, the script said:\n{said}");
            }
        }
    }

    /// Reads one line; `None` when it was a message.
    fn read_line(&mut self) -> Option<String> {
        let line = self.program.next_line().expect("the script goes on until it is told to leave");
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["message", topic, qos, retain, text] => {
                self.messages.push_back(Message {
                    topic: topic.to_owned(),
                    text: text.to_owned(),
                    qos: qos.parse().expect("a number"),
                    retain: retain == "1",
                });
                None
            }
            _ => Some(line),
        }
    }
}
