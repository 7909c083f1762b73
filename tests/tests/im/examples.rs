//! The examples of the manual, run as their readers would run them: each against the others.

use std::path::{Path, PathBuf};
use std::process::Command;

use hoopoe_codec::{Packet, Receiver, Version, decode, frame_length};
use hoopoe_tests::Broker;
use hoopoe_tests::disk::say_not_possible;
use hoopoe_tests::program::{self, Program};
use hoopoe_tests::reaper::temporary_folder;

const EXAMPLES: [&str; 3] = ["chat.py", "chat_v311.py", "chat.mjs"];

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../broker/docs/examples").join(name)
}

/// A call of an example; MQTT.js is where node looks for it.
fn call(name: &str, broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = if name.ends_with(".py") {
        let mut command = Command::new(program::python());
        command.arg(example(name));
        command
    } else if name.ends_with(".java") {
        let mut command = Command::new("java");
        command.arg(example(name));
        command
    } else {
        let folder = temporary_folder("example");
        let copy = folder.join(name);
        std::fs::copy(example(name), &copy).expect("the example is there");
        std::os::unix::fs::symlink(program::node_modules(), folder.join("node_modules"))
            .expect("a link can be made");
        let mut command = Command::new("node");
        command.arg(copy);
        command
    };
    command.arg(broker.tcp().ip().to_string()).arg(broker.tcp().port().to_string());
    command.args(arguments);
    command
}

#[test]
fn examples_talk_with_each_other() {
    let broker = Broker::start();
    for (number, sends) in EXAMPLES.into_iter().enumerate() {
        for receives in EXAMPLES {
            let stem = receives.replace(['.', '_'], "-");
            let (alice, bob) = (format!("alice{number}-{stem}"), format!("bob{number}-{stem}"));
            let mut receiver = Program::start(call(receives, &broker, &[&bob, &alice]));
            receiver.wait_for("ready");
            let arguments = [alice.as_str(), &bob, "hello, Bob", "bye"];
            let sender = Program::start(call(sends, &broker, &arguments));
            let said = sender.succeed();
            assert_eq!(said, ["ready", "sent #1", "sent #2", "read #2"], "{sends} to {receives}");
            let said = receiver.succeed();
            let expected = [
                format!("#1 {alice}: hello, Bob"),
                format!("#2 {alice}: bye"),
                "ok: 0 unread".into(),
            ];
            assert_eq!(said, expected, "{receives} from {sends}");
        }
    }
}

/// Java is not among what the tests install: where it is, its example runs.
#[test]
fn the_java_example_talks_with_the_others() {
    if let Err(error) = Command::new("java").arg("-version").output() {
        say_not_possible("the example in Java", &error.to_string());
        return;
    }
    let broker = Broker::start();
    for (sends, receives) in [("Chat.java", "chat.py"), ("chat.mjs", "Chat.java")] {
        let mut receiver = Program::start(call(receives, &broker, &["bob", "alice"]));
        receiver.wait_for("ready");
        let sender = Program::start(call(sends, &broker, &["alice", "bob", "hello, Bob", "bye"]));
        let said = sender.succeed().join(" ");
        assert!(said.starts_with("ready sent #") && said.contains(" read #"), "{sends}: {said}");
        let said = receiver.succeed().join("\n");
        assert!(said.contains("alice: hello, Bob\n") && said.contains("alice: bye\n"), "{said}");
        assert!(said.ends_with("ok: 0 unread"), "{receives}: {said}");
    }
}

#[test]
fn an_example_finds_what_came_while_nobody_ran_it() {
    let broker = Broker::start();
    // Bob's devices exist from now on, and are gone again.
    for receives in EXAMPLES {
        let bob = format!("bob-{}", receives.replace(['.', '_'], "-"));
        let mut first = Program::start(call(receives, &broker, &[&bob, "alice"]));
        first.wait_for("ready");
        first.kill();
        let mut sender = Program::start(call("chat.py", &broker, &["alice", &bob, "late", "bye"]));
        sender.wait_for("sent #2");
        sender.kill();
        let said = Program::start(call(receives, &broker, &[&bob, "alice"])).succeed();
        assert_eq!(
            said,
            ["ready", "#1 alice: late", "#2 alice: bye", "ok: 0 unread"],
            "{receives}"
        );
    }
}

/// A block of hex in the manual: who sends it, in which version, and its bytes.
fn packets() -> Vec<(Receiver, Version, Vec<u8>)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../broker/docs/im.md");
    let text = std::fs::read_to_string(page).expect("the manual is there");
    let mut packets = Vec::new();
    for block in text.split("\n```hex ").skip(1) {
        let (head, rest) = block.split_once('\n').expect("a line");
        let (hex, _) = rest.split_once("\n```").expect("an end");
        let receiver = if head.starts_with("client") { Receiver::Server } else { Receiver::Client };
        let version = if head.ends_with('5') { Version::V5 } else { Version::V311 };
        let bytes = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hex"));
        packets.push((receiver, version, bytes.collect()));
    }
    packets
}

#[test]
fn the_packets_of_the_manual_are_what_they_are_said_to_be() {
    let mut seen = Vec::new();
    for (receiver, version, bytes) in &packets() {
        assert_eq!(frame_length(bytes, 1 << 20), Ok(Some(bytes.len())));
        seen.push(match decode(*version, *receiver, bytes) {
            Ok(Packet::Publish(publish)) => format!("{version:?} {}", publish.topic),
            Ok(Packet::PubAck(ack)) => {
                let seq = ack.properties.user_properties.get("im-seq").unwrap_or("none");
                format!("{version:?} PUBACK {:#04x} seq {seq}", ack.code as u8)
            }
            other => panic!("{other:?}"),
        });
    }
    let stamp = "1763690400123";
    let (sent, delivered) = (
        format!("V311 im/me/sys/sent/c1/u/bob/1/0cqk1v2r40000/{stamp}"),
        format!("V311 im/me/in/u/alice/1/alice/{stamp}/0cqk1v2r40000"),
    );
    let wanted = [
        "V5 im/u/bob/msg/c1",
        "V5 PUBACK 0x00 seq 1",
        "V5 im/me/in/u/alice",
        "V311 im/u/bob/msg/c1",
        &sent,
        "V311 PUBACK 0x00 seq none",
        &delivered,
        "V5 PUBACK 0x87 seq none",
        "V311 im/me/sys/err/c2/135",
        "V5 im/me/cur/u/alice/read/1",
        "V5 im/svc/time/now",
    ];
    assert_eq!(seen, wanted);
}
