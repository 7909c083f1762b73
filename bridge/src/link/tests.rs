//! The step, packet by packet.

use std::time::Duration;

use hoopoe_codec::ConnectProperties;

use super::*;
use crate::settings::{Direction, Rule, Start};

/// What left for one end.
#[derive(Default)]
struct Seen(Vec<String>);

impl Sink for Seen {
    fn publish(&mut self, head: &PublishHead<'_>, id: Option<PacketId>, payload: &[u8]) {
        let id = id.map_or(0, PacketId::get);
        let retain = if head.retain { " retain" } else { "" };
        let dup = if head.dup { " dup" } else { "" };
        let properties = PublishProperties::from_forwardable(head.forwardable);
        let via = properties.user_properties.get(VIA).unwrap_or("-");
        let payload = String::from_utf8_lossy(payload);
        self.0.push(format!(
            "publish {id} q{} {} {payload} via {via}{retain}{dup}",
            head.qos as u8, head.topic
        ));
    }

    fn ack(&mut self, kind: AckKind, id: PacketId, code: ReasonCode) {
        self.0.push(format!("{kind:?} {id} {:#04x}", code as u8));
    }
}

struct Rig {
    link: Link,
    version: Version,
    local: Seen,
    remote: Seen,
}

fn settings() -> LinkSettings {
    LinkSettings {
        name: "l".to_owned(),
        url: "mqtt://127.0.0.1:1".parse().unwrap(),
        version: Version::V5,
        client_id: "c".to_owned(),
        username: None,
        password: None,
        tls: None,
        keep_alive_secs: 60,
        clean: false,
        session_expiry_secs: 60,
        start: Start::Automatic,
        idle_timeout: Duration::from_secs(1),
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(1),
        max_inflight: 10,
        receive_maximum: 10,
        rate_per_sec: 0,
        retained: true,
        bridge_bit: false,
        hop_prefix: None,
        max_hops: 8,
        broker_id: "a".to_owned(),
        max_packet_bytes: 1 << 20,
        rules: vec![Rule {
            pattern: "#".to_owned(),
            direction: Direction::Both,
            qos: QoS::ExactlyOnce,
            local_prefix: "l/".to_owned(),
            remote_prefix: "r/".to_owned(),
        }],
    }
}

fn takes(version: Version) -> Takes {
    let max_packet = 1 << 20;
    Takes { version, max_qos: QoS::ExactlyOnce, max_packet, receive_maximum: 2, retain: true }
}

impl Rig {
    fn new(settings: &LinkSettings, remote: Takes) -> Rig {
        let version = remote.version;
        let rules = Rules::new(&settings.rules);
        let link = Link::new(settings, rules, takes(Version::V5), remote);
        Rig { link, version, local: Seen::default(), remote: Seen::default() }
    }

    fn plain() -> Rig {
        Rig::new(&settings(), takes(Version::V5))
    }

    fn packet(&mut self, end: End, packet: &Packet<'_>) -> Result<(), LinkFault> {
        let mut frame = Vec::new();
        let version = if end == End::Local { Version::V5 } else { self.version };
        packet.encode(version, &mut frame);
        match end {
            End::Local => self.link.on_local(0, &frame, &mut self.local, &mut self.remote),
            End::Remote => self.link.on_remote(0, &frame, &mut self.local, &mut self.remote),
        }
    }

    fn publish(&mut self, end: End, topic: &str, qos: QoS, id: u16) {
        let publish = message(topic, qos, id);
        self.packet(end, &Packet::Publish(publish)).unwrap();
    }

    /// What left since, local end first.
    fn left(&mut self) -> (Vec<String>, Vec<String>) {
        (std::mem::take(&mut self.local.0), std::mem::take(&mut self.remote.0))
    }

    fn expect(&mut self, local: &[&str], remote: &[&str]) {
        let (to_local, to_remote) = self.left();
        assert_eq!((to_local, to_remote), (owned(local), owned(remote)));
    }
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn message(topic: &str, qos: QoS, id: u16) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        id: PacketId::new(id),
        properties: PublishProperties::default(),
        payload: b"x",
    }
}

fn ack(id: u16) -> Ack<'static> {
    Ack::success(PacketId::new(id).unwrap())
}

#[test]
fn the_four_steps_pass_through_under_one_identifier() {
    for (from, to) in [(End::Local, End::Remote), (End::Remote, End::Local)] {
        let mut rig = Rig::plain();
        let topic = if from == End::Local { "l/t" } else { "r/t" };
        rig.publish(from, topic, QoS::ExactlyOnce, 7);
        rig.packet(to, &Packet::PubRec(ack(7))).unwrap();
        rig.packet(from, &Packet::PubRel(ack(7))).unwrap();
        rig.packet(to, &Packet::PubComp(ack(7))).unwrap();
        let forth = match from {
            End::Local => "publish 7 q2 r/t x via a",
            End::Remote => "publish 7 q2 l/t x via ~a:l",
        };
        let forth = [forth, "PubRel 7 0x00"];
        let back = ["PubRec 7 0x00", "PubComp 7 0x00"];
        match from {
            End::Local => rig.expect(&back, &forth),
            End::Remote => rig.expect(&forth, &back),
        }
        assert_eq!(rig.link.in_flight(), 0);
    }
}

#[test]
fn an_exchange_goes_on_over_new_connections() {
    let mut rig = Rig::plain();
    rig.packet(End::Local, &Packet::PubRel(ack(9))).unwrap();
    assert_eq!(rig.link.in_flight(), 1);
    rig.packet(End::Remote, &Packet::PubComp(ack(9))).unwrap();
    rig.expect(&["PubComp 9 0x00"], &["PubRel 9 0x00"]);
    // Answers to what this link has not asked concern nobody at the other end.
    rig.packet(End::Remote, &Packet::PubComp(ack(3))).unwrap();
    rig.packet(End::Remote, &Packet::PubAck(ack(3))).unwrap();
    rig.expect(&[], &[]);
}

#[test]
fn qos_1_is_acknowledged_by_the_other_end_alone() {
    let mut rig = Rig::plain();
    rig.publish(End::Local, "l/t", QoS::AtLeastOnce, 1);
    rig.expect(&[], &["publish 1 q1 r/t x via a"]);
    rig.packet(End::Remote, &Packet::PubAck(ack(1))).unwrap();
    rig.expect(&["PubAck 1 0x00"], &[]);
    rig.publish(End::Remote, "r/t", QoS::AtLeastOnce, 1);
    rig.expect(&["publish 1 q1 l/t x via ~a:l"], &[]);
    rig.packet(End::Local, &Packet::PubAck(ack(1))).unwrap();
    rig.expect(&[], &["PubAck 1 0x00"]);
}

#[test]
fn no_more_is_sent_than_the_remote_broker_takes_and_in_order() {
    let mut rig = Rig::plain();
    for id in 1..=4 {
        rig.publish(End::Local, &format!("l/{id}"), QoS::AtLeastOnce, id);
    }
    rig.expect(&[], &["publish 1 q1 r/1 x via a", "publish 2 q1 r/2 x via a"]);
    rig.packet(End::Remote, &Packet::PubAck(ack(2))).unwrap();
    rig.expect(&["PubAck 2 0x00"], &["publish 3 q1 r/3 x via a"]);
    rig.packet(End::Remote, &Packet::PubAck(ack(1))).unwrap();
    rig.expect(&["PubAck 1 0x00"], &["publish 4 q1 r/4 x via a"]);
    assert_eq!(rig.link.in_flight(), 2);
}

#[test]
fn a_broker_of_less_gets_less_and_the_exchange_ends_here() {
    let remote = Takes { max_qos: QoS::AtLeastOnce, ..takes(Version::V5) };
    let mut rig = Rig::new(&settings(), remote);
    rig.publish(End::Local, "l/t", QoS::ExactlyOnce, 5);
    rig.packet(End::Remote, &Packet::PubAck(ack(5))).unwrap();
    rig.packet(End::Local, &Packet::PubRel(ack(5))).unwrap();
    rig.expect(&["PubRec 5 0x00", "PubComp 5 0x00"], &["publish 5 q1 r/t x via a"]);

    let remote = Takes { max_qos: QoS::AtMostOnce, ..takes(Version::V311) };
    let mut rig = Rig::new(&settings(), remote);
    rig.publish(End::Local, "l/t", QoS::AtLeastOnce, 5);
    rig.expect(&["PubAck 5 0x00"], &["publish 0 q0 r/t x via -"]);
    assert_eq!(rig.link.in_flight(), 0);
}

#[test]
fn what_does_not_pass_is_acknowledged_and_counted() {
    let mut rig = Rig::new(&settings(), Takes { max_packet: 20, ..takes(Version::V5) });
    let circle = PropertyBlock::new().with(VIA, "~a:l");
    let mut publish = message("l/t", QoS::AtLeastOnce, 1);
    publish.properties.user_properties = circle.user_properties();
    rig.packet(End::Local, &Packet::Publish(publish)).unwrap();
    rig.publish(End::Local, "elsewhere", QoS::ExactlyOnce, 2);
    rig.packet(End::Local, &Packet::PubRel(ack(2))).unwrap();
    rig.publish(End::Local, &format!("l/{}", "x".repeat(20)), QoS::AtLeastOnce, 3);
    rig.expect(&["PubAck 1 0x00", "PubRec 2 0x00", "PubComp 2 0x00", "PubAck 3 0x00"], &[]);
    let counts = rig.link.counts;
    assert_eq!((counts.looped, counts.without_rule, counts.too_large), (1, 1, 1));

    rig.publish(End::Remote, "elsewhere", QoS::ExactlyOnce, 2);
    rig.publish(End::Remote, "r/$SYS", QoS::AtLeastOnce, 3);
    rig.expect(&["publish 3 q1 l/$SYS x via ~a:l"], &["PubRec 2 0x00"]);
}

#[test]
fn a_busy_broker_is_asked_again_and_a_refusal_is_final() {
    let mut rig = Rig::plain();
    let with = |code| Ack { code, ..ack(1) };
    for end in [End::Local, End::Remote] {
        let busy = rig.packet(end, &Packet::PubAck(with(ReasonCode::QuotaExceeded)));
        assert!(matches!(busy, Err(LinkFault::Busy(at, _)) if at == end));
    }
    rig.publish(End::Local, "l/t", QoS::AtLeastOnce, 1);
    rig.left();
    rig.packet(End::Remote, &Packet::PubAck(with(ReasonCode::NotAuthorized))).unwrap();
    rig.expect(&["PubAck 1 0x00"], &[]);
    assert_eq!(rig.link.counts.refused, 1);
}

#[test]
fn without_retained_the_flag_goes() {
    let mut rig = Rig::new(&LinkSettings { retained: false, ..settings() }, takes(Version::V5));
    let publish = Publish { retain: true, ..message("l/t", QoS::AtMostOnce, 0) };
    rig.packet(End::Local, &Packet::Publish(publish)).unwrap();
    rig.expect(&[], &["publish 0 q0 r/t x via a"]);
}

#[test]
fn a_hop_prefix_keeps_the_way_in_the_topic() {
    let settings =
        LinkSettings { hop_prefix: Some("via".to_owned()), version: Version::V311, ..settings() };
    let mut rig = Rig::new(&settings, takes(Version::V311));
    rig.publish(End::Local, "l/t", QoS::AtMostOnce, 0);
    rig.expect(&[], &["publish 0 q0 via/a/r/t x via -"]);
    rig.publish(End::Remote, "r/t", QoS::AtMostOnce, 0);
    rig.expect(&["publish 0 q0 l/t x via ~a:l"], &[]);
    rig.publish(End::Remote, "via/c,b/r/t", QoS::AtMostOnce, 0);
    rig.expect(&["publish 0 q0 l/t x via c,b,~a:l"], &[]);
    let passed = PropertyBlock::new().with(VIA, "c");
    let mut publish = message("l/t", QoS::AtMostOnce, 0);
    publish.properties.user_properties = passed.user_properties();
    rig.packet(End::Local, &Packet::Publish(publish)).unwrap();
    rig.expect(&[], &["publish 0 q0 via/c,a/r/t x via -"]);
    // Our own, back from the other broker.
    rig.publish(End::Remote, "via/c,a/r/t", QoS::AtMostOnce, 0);
    rig.expect(&[], &[]);
    assert_eq!(rig.link.counts.looped, 1);
}

#[test]
fn the_rate_counts_in_each_direction() {
    let settings = LinkSettings { rate_per_sec: 10, ..settings() };
    let mut rig = Rig::new(&settings, takes(Version::V5));
    for _ in 0..10 {
        assert_eq!(rig.link.pause_us(End::Local, 0), 0);
        rig.publish(End::Local, "l/t", QoS::AtMostOnce, 0);
    }
    rig.publish(End::Local, "l/t", QoS::AtMostOnce, 0);
    assert_eq!(rig.link.pause_us(End::Local, 0), 100_000);
    assert_eq!(rig.link.pause_us(End::Remote, 0), 0);
    assert_eq!(rig.link.pause_us(End::Local, 100_000), 0);
}

#[test]
fn the_end_of_either_ends_the_link() {
    let mut rig = Rig::plain();
    let goodbye = Packet::Disconnect(Disconnect::with_code(ReasonCode::ServerShuttingDown));
    for end in [End::Local, End::Remote] {
        let ended = rig.packet(end, &goodbye);
        assert!(matches!(ended, Err(LinkFault::Ended(at, _)) if at == end));
    }
    let connect = hoopoe_codec::Connect {
        version: Version::V5,
        bridge: false,
        clean_start: true,
        keep_alive_secs: 0,
        client_id: "x",
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    };
    let illegal = rig.packet(End::Remote, &Packet::Connect(Box::new(connect)));
    assert!(matches!(illegal, Err(LinkFault::Illegal(End::Remote, _))));
}

#[test]
fn the_brokers_word_that_all_retained_is_queued_is_for_the_link_alone() {
    let mut rig = Rig::plain();
    let word = Publish { payload: b"l/#", ..message(crate::SCANNED, QoS::AtLeastOnce, 9) };
    rig.packet(End::Local, &Packet::Publish(word)).unwrap();
    rig.expect(&["PubAck 9 0x00"], &[]);
    assert_eq!(rig.link.take_scanned(), ["l/#"]);
    assert!(rig.link.take_scanned().is_empty());
    assert_eq!((rig.link.in_flight(), rig.link.counts), (0, Counts::default()));
    // Of the other broker it is a message like any other below `$`: no rule lets it in.
    rig.publish(End::Remote, crate::SCANNED, QoS::AtLeastOnce, 9);
    rig.expect(&[], &["PubAck 9 0x00"]);
    assert!(rig.link.take_scanned().is_empty());
}
