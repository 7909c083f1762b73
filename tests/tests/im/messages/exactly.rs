//! Entries at QoS 2 to a kept session: each once, in order, whatever happens to the connection and
//! to the broker in between (rulings 5 and 28).

use std::collections::BTreeSet;

use hoopoe_tests::wire::packet_type;
use hoopoe_tests::{Broker, Connect, Packet, Publish, RawClient, Version};

use crate::entry::{entry, send};
use crate::user::device;

/// The inbox at QoS 2, as both versions may ask for it.
const INBOX: &str = "im/me/#";

fn connect(version: Version) -> Connect {
    Connect::persistent(version, "ios-1").login("bob", "any")
}

/// A client that remembers over connections what QoS 2 makes it remember.
#[derive(Default)]
struct Receiver {
    /// Identifiers whose PUBREL has not come.
    received: BTreeSet<u16>,
    /// What was handed to the application.
    delivered: Vec<(String, u64, String)>,
    /// PUBLISH packets that came again, with DUP.
    repeated: usize,
}

impl Receiver {
    /// Takes one packet; false when it was none of an exchange.
    fn take(&mut self, device: &mut RawClient, packet: &Packet) -> bool {
        match packet {
            Packet::Publish(publish) if publish.qos == 2 => {
                if self.received.insert(publish.id) {
                    let got = entry(publish).expect("an entry");
                    self.delivered.push((got.conv, got.seq, got.payload));
                } else {
                    assert!(
                        publish.dup,
                        "an identifier in use is not given to another: {publish:?}"
                    );
                    self.repeated += 1;
                }
                device.send_ack(packet_type::PUBREC, publish.id);
            }
            Packet::PubRel(ack) => {
                self.received.remove(&ack.id);
                device.send_ack(packet_type::PUBCOMP, ack.id);
            }
            _ => return false,
        }
        true
    }

    /// Takes the next packets of exchanges, and answers only those before the last of them.
    fn take_some(&mut self, device: &mut RawClient, count: usize) {
        let mut taken = 0;
        while taken < count {
            let packet = device.next_packet();
            taken += usize::from(self.take(device, &packet));
        }
    }

    /// Everything there is, until the broker has nothing more to say.
    fn take_all(&mut self, device: &mut RawClient, until: usize) {
        while self.delivered.len() < until || !self.received.is_empty() {
            let packet = device.next_packet();
            self.take(device, &packet);
        }
    }
}

#[test]
fn at_qos_2_every_message_comes_once_over_cuts_and_kill_9() {
    for version in Version::BOTH {
        let mut broker = Broker::start();
        let mut first = broker.connect(&connect(version));
        first.expect_publish_on("im/me/sys/hello");
        first.subscribe(INBOX, 2);
        first.cut();
        let mut receiver = Receiver::default();
        let (mut sent, mut seed) = (0, 7_u64);
        for round in 0..24 {
            let mut alice = device(&broker, Version::V5, "alice");
            for _ in 0..5 {
                sent += 1;
                send(&mut alice, "im/u/bob/msg", &format!("m{sent}"));
            }
            let mut bob = broker.connect(&connect(version).resume());
            assert!(bob.connack.session_present);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            let open = sent - receiver.delivered.len();
            receiver.take_some(&mut bob, (seed >> 33) as usize % (2 * open));
            bob.cut();
            if round % 3 == 0 {
                broker.kill_and_restart();
            }
        }
        let mut bob = broker.connect(&connect(version).resume());
        receiver.take_all(&mut bob, sent);
        let expected = (1..=sent).map(|n| ("u/alice".to_owned(), n as u64, format!("m{n}")));
        assert_eq!(receiver.delivered, expected.collect::<Vec<_>>());
        // Completed a moment ago, then the power fails: nothing comes again.
        bob.ping();
        broker.kill_and_restart();
        let mut alice = device(&broker, Version::V5, "alice");
        send(&mut alice, "im/u/bob/msg", "last");
        let mut bob = broker.connect(&connect(version).resume());
        receiver.take_all(&mut bob, sent + 1);
        assert_eq!(receiver.delivered.last().map(|(_, seq, _)| *seq), Some(sent as u64 + 1));
        assert_eq!(receiver.delivered.len(), sent + 1);
    }
}

#[test]
fn what_was_in_flight_and_recalled_meanwhile_comes_again_without_its_body() {
    let mut broker = Broker::start();
    let mut bob = broker.connect(&connect(Version::V5));
    bob.expect_publish_on("im/me/sys/hello");
    bob.subscribe(INBOX, 2);
    let mut alice = device(&broker, Version::V5, "alice");
    send(&mut alice, "im/u/bob/msg", "a slip of the tongue");
    let first = bob.expect_publish();
    assert_eq!((first.qos, first.dup), (2, false));
    bob.cut();
    alice.publish(Publish::new("im/me/op/recall/u/bob/1", "").qos(1));
    broker.kill_and_restart();
    let mut bob = broker.connect(&connect(Version::V5).resume());
    bob.expect_publish_on("im/me/sys/hello");
    let again = bob.take_publish();
    assert_eq!((again.qos, again.dup, again.id), (2, true, first.id));
    let got = entry(&again).expect("an entry");
    assert_eq!((got.seq, &*got.kind, &*got.payload), (1, "void", ""));
    let event = entry(&bob.take_publish()).expect("an entry");
    assert_eq!((event.seq, &*event.kind, event.reference), (2, "recall", 1));
}

#[test]
fn what_was_in_flight_and_is_named_by_a_gap_ends_by_itself() {
    let broker = Broker::start();
    let mut bob = broker.connect(&connect(Version::V5));
    bob.expect_publish_on("im/me/sys/hello");
    bob.subscribe(INBOX, 2);
    let mut alice = device(&broker, Version::V5, "alice");
    send(&mut alice, "im/u/bob/msg", "1");
    let first = bob.expect_publish();
    bob.cut();
    for n in 2..=300 {
        send(&mut alice, "im/u/bob/msg", &n.to_string());
    }
    let mut bob = broker.connect(&connect(Version::V5).resume());
    bob.expect_publish_on("im/me/sys/hello");
    assert_eq!(bob.expect_publish().topic, "im/me/sys/gap/u/alice/1/100");
    // The identifier is freed on both sides, whether the message had arrived or not.
    let mut receiver = Receiver::default();
    receiver.received.insert(first.id);
    receiver.take_all(&mut bob, 200);
    let seqs: Vec<u64> = receiver.delivered.iter().map(|(_, seq, _)| *seq).collect();
    assert_eq!(seqs, (101..=300).collect::<Vec<_>>());
    assert_eq!(receiver.repeated, 0);
}
