//! Users, rules and whose sessions are whose.

use std::io::Write;
use std::path::Path;

use hoopoe_tests::broker::Options;
use hoopoe_tests::program::{self, Program};
use hoopoe_tests::wire::{code, packet_type};
use hoopoe_tests::{
    Broker, Connect, Packet, Publish, Received, Version, Will, unique_id, unique_topic,
};

const RULES: &str = "\
user *
  allow both      inbox/%u/#
  allow both      device/%c
user alice
  allow publish   news/#
user bob
  allow subscribe news/#
";

fn passwd(file: &Path, user: &str, password: &str) {
    let mut command = program::hoopoe_command();
    command.arg("passwd").arg(file).args([user, "--stdin"]);
    let mut program = Program::start(command);
    writeln!(program.input(), "{password}").expect("it reads the password");
    program.succeed();
}

/// A listener for plain MQTT: its users get no greeting of the messaging profile.
const PLAIN: &str = "[[listener]]\nurl = \"tcp://127.0.0.1:0\"\nim = false\n";

/// A broker with the users alice and bob, whose passwords are `secret of <name>`, and the rules.
fn guarded() -> Broker {
    let options = Options::new().no_listeners();
    let users = options.folder().join("users");
    for user in ["alice", "bob"] {
        passwd(&users, user, &format!("secret of {user}"));
    }
    let rules = options.folder().join("rules");
    std::fs::write(&rules, RULES).expect("the rules can be written");
    let text = format!(
        "[access]\nusers_file = {users:?}\nrules_file = {rules:?}\n\
         {PLAIN}"
    );
    options.configuration(&text).start()
}

fn login(connect: Connect, user: &str) -> Connect {
    connect.login(user, &format!("secret of {user}"))
}

fn refusal(broker: &Broker, connect: &Connect) -> u8 {
    let mut client = broker.open(connect.version);
    match client.try_login(connect) {
        Received::Packet(Packet::ConnAck(connack)) => {
            assert_eq!(client.receive(), Received::Closed);
            connack.code
        }
        other => panic!("CONNACK expected, got {other:?}"),
    }
}

#[test]
fn only_users_with_their_password_get_in() {
    let broker = guarded();
    for version in Version::BOTH {
        let connect = Connect::new(version, &unique_id("user"));
        broker.connect(&login(connect.clone(), "alice")).ping();
        for (user, password) in [
            ("alice", "secret of bob"),
            ("alice", ""),
            ("carol", "secret of carol"),
            ("", "secret of alice"),
            ("Alice", "secret of alice"),
        ] {
            let code = refusal(&broker, &connect.clone().login(user, password));
            let wanted: &[u8] = match version {
                Version::V311 => &[4, 5],
                Version::V5 => &[code::BAD_USER_NAME_OR_PASSWORD, code::NOT_AUTHORIZED],
            };
            assert!(wanted.contains(&code), "{user}/{password}: {code:#04x}");
        }
        // Nobody gets in without a name once there are users.
        assert!(refusal(&broker, &connect) >= 4);
    }
}

#[test]
fn password_of_a_user_changes_on_sighup() {
    let broker = guarded();
    let connect = Connect::v5(&unique_id("user"));
    broker.connect(&login(connect.clone(), "bob")).disconnect();
    passwd(&broker.folder().join("users"), "bob", "another");
    broker.signal("HUP");
    // The change is there when the old password, remembered or not, is refused.
    let old = login(connect.clone(), "bob");
    hoopoe_tests::eventually("the old password is refused", || {
        let mut client = broker.open(Version::V5);
        let answer = client.try_login(&old);
        matches!(answer, Received::Packet(Packet::ConnAck(connack)) if connack.code >= 0x80)
    });
    broker.connect(&connect.login("bob", "another")).ping();
}

#[test]
fn rules_decide_over_publish_and_subscribe() {
    let broker = guarded();
    let connect = |user: &str| login(Connect::v5(&unique_id("rule")), user);
    let mut alice = broker.connect(&connect("alice"));
    let mut bob = broker.connect(&connect("bob"));
    bob.subscribe("news/#", 1);
    assert_eq!(alice.try_subscribe("news/#", 1), code::NOT_AUTHORIZED);
    assert_eq!(alice.try_publish(Publish::new("news/today", "x").qos(1)), code::SUCCESS);
    bob.expect_message("news/today", "x");
    for qos in [1, 2] {
        let refused = bob.try_publish(Publish::new("news/today", "y").qos(qos));
        assert_eq!(refused, code::NOT_AUTHORIZED);
    }
    bob.publish(Publish::new("news/today", "y"));
    bob.expect_nothing_from_marked(&mut alice, "news/marker", 1);
    // %u and %c are the client's own.
    alice.subscribe("inbox/alice/#", 1);
    assert_eq!(alice.try_subscribe("inbox/bob/#", 1), code::NOT_AUTHORIZED);
    assert_eq!(alice.try_subscribe("inbox/#", 1), code::NOT_AUTHORIZED);
    assert_eq!(alice.try_subscribe("#", 1), code::NOT_AUTHORIZED);
    let own = format!("device/{}", alice.client_id);
    alice.subscribe(&own, 1);
    assert_eq!(bob.try_subscribe(&own, 1), code::NOT_AUTHORIZED);
    // What no rule names is denied.
    assert_eq!(alice.try_publish(Publish::new("elsewhere", "x").qos(1)), code::NOT_AUTHORIZED);
}

/// What a shard has of an identifier is not refused, and nothing is published for it: neither what
/// rules forbid by now, nor what comes under the identifier of something that they allowed.
#[test]
fn a_repetition_gives_no_right_and_ends_with_its_exchange() {
    let mut broker = guarded();
    let connect = login(Connect::persistent(Version::V5, &unique_id("rule")), "bob");
    let mut bob = broker.connect(&connect);
    bob.send_publish(Publish::new("inbox/bob/x", "allowed").qos(2).id(5));
    bob.expect_ack(packet_type::PUBREC, 5);
    broker.kill_and_restart();
    let mut alice = broker.connect(&login(Connect::v5(&unique_id("rule")), "alice"));
    let mut watcher = broker.connect(&login(Connect::v5(&unique_id("rule")), "bob"));
    watcher.subscribe("news/#", 1);
    watcher.subscribe("inbox/bob/#", 1);
    let mut bob = broker.connect(&connect);
    bob.send_publish(Publish::new("news/forged", "y").qos(2).id(5).dup());
    assert_eq!(bob.expect_ack(packet_type::PUBREC, 5).code, code::SUCCESS);
    watcher.expect_nothing_from_marked(&mut alice, "news/marker", 1);
    bob.send_ack(packet_type::PUBREL, 5);
    bob.expect_ack(packet_type::PUBCOMP, 5);
    bob.publish(Publish::new("inbox/bob/x", "next").qos(2).id(5));
    watcher.expect_message("inbox/bob/x", "next");
}

#[test]
fn v311_client_without_the_right_is_acknowledged_or_closed_and_delivers_nothing() {
    let broker = guarded();
    let mut alice = broker.connect(&login(Connect::v5(&unique_id("rule")), "alice"));
    let mut bob = broker.connect(&login(Connect::v311(&unique_id("rule")), "bob"));
    let mut watcher = broker.connect(&login(Connect::v5(&unique_id("rule")), "bob"));
    watcher.subscribe("news/#", 1);
    let id = bob.send_publish(Publish::new("news/forged", "x").qos(1));
    // [MQTT-3.3.5-2]
    match bob.receive() {
        Received::Closed => {}
        Received::Packet(Packet::PubAck(puback)) => assert_eq!(puback.id, id),
        other => panic!("PUBACK or the end expected, got {other:?}"),
    }
    watcher.expect_nothing_from_marked(&mut alice, "news/marker", 1);
    // A filter without the right: return code 0x80 in 3.1.1.
    let mut bob = broker.connect(&login(Connect::v311(&unique_id("rule")), "bob"));
    assert_eq!(bob.try_subscribe("inbox/alice/#", 1), 0x80);
}

#[test]
fn will_without_the_right_is_refused_or_never_published() {
    let broker = guarded();
    let mut alice = broker.connect(&login(Connect::v5(&unique_id("will")), "alice"));
    let mut watcher = broker.connect(&login(Connect::v5(&unique_id("will")), "bob"));
    watcher.subscribe("news/#", 1);
    let will = Will::new("news/forged", "x").qos(1);
    let connect = login(Connect::v5(&unique_id("will")), "bob").will(will);
    let mut client = broker.open(Version::V5);
    match client.try_login(&connect) {
        Received::Packet(Packet::ConnAck(connack)) if connack.code == 0 => client.cut(),
        Received::Packet(Packet::ConnAck(connack)) => {
            assert_eq!(connack.code, code::NOT_AUTHORIZED);
        }
        other => panic!("CONNACK expected, got {other:?}"),
    }
    watcher.expect_nothing_from_marked(&mut alice, "news/marker", 1);
}

#[test]
fn users_cannot_take_over_each_others_sessions() {
    let broker = guarded();
    let id = unique_id("same");
    let mut alice = broker.connect(&login(Connect::persistent(Version::V5, &id), "alice"));
    alice.subscribe("inbox/alice/#", 1);
    // The same client identifier under another user is another session.
    let mut bob = broker.connect(&login(Connect::persistent(Version::V5, &id), "bob"));
    assert!(!bob.connack.session_present);
    alice.ping();
    bob.publish(Publish::new("inbox/bob/x", "mine").qos(1));
    bob.disconnect();
    // A clean start of one wipes nothing of the other.
    broker.connect(&login(Connect::v5(&id), "bob")).disconnect();
    alice.publish(Publish::new("inbox/alice/x", "still").qos(1));
    alice.expect_message("inbox/alice/x", "still");
    alice.disconnect();
    let back = broker.connect(&login(Connect::persistent(Version::V5, &id), "alice"));
    assert!(back.connack.session_present);
}

#[test]
fn development_mode_believes_user_names_on_loopback() {
    let broker = Options::new().no_listeners().configuration(PLAIN).start();
    let id = unique_id("dev");
    let topic = unique_topic("dev");
    let mut alice = broker.connect(&Connect::v5(&id).login("alice", "anything"));
    let mut bob = broker.connect(&Connect::v5(&id).login("bob", "at all"));
    alice.subscribe(&topic, 1);
    bob.publish(Publish::new(&topic, "two sessions").qos(1));
    alice.expect_message(&topic, "two sessions");
    assert!(broker.has_logged("development mode"));
}

#[test]
fn passwords_and_payloads_reach_no_log() {
    let options = Options::new().no_listeners().environment("HOOPOE_LOG__LEVEL", "trace");
    let broker = options.configuration(PLAIN).start();
    let (password, payload) = ("pa55word-in-no-log", "payl0ad-in-no-log");
    let connect = Connect::v5(&unique_id("log")).login("alice", password);
    let mut client = broker.connect(&connect);
    let topic = unique_topic("log");
    client.subscribe(&topic, 1);
    client.publish(Publish::new(&topic, payload).qos(1));
    client.expect_message(&topic, payload);
    let refused = client.send_publish(Publish::new("$SYS/x", payload).qos(1));
    client.expect_ack(packet_type::PUBACK, refused);
    client.send(&[0xC0, 0x80, 0x00]);
    client.expect_closed();
    let wrong = [b"\x10\x20\x00\x04MQTT\x05\xC2".as_slice(), password.as_bytes()].concat();
    let mut broken = broker.open(Version::V5);
    broken.send(&wrong);
    broken.send(&[0; 40]);
    broken.read_to_end();
    let mut broker = broker;
    let log = broker.stop_and_read_log();
    assert!(!log.contains(password) && !log.contains(payload), "{log}");
}
