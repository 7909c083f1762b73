//! The scenarios every client goes through.

use std::sync::LazyLock;

use hoopoe_tests::broker::Options;
use hoopoe_tests::certificate::Certificates;
use hoopoe_tests::{Broker, Version, unique_id, unique_topic};

use crate::peer::{Login, Message, Peer};

/// Messages that wait for an absent client over a restart.
const QUEUED: usize = 50;

/// A broker on all four transports, and its certificates.
pub(crate) struct Place {
    pub(crate) broker: Broker,
    certificates: Certificates,
}

impl Place {
    pub(crate) fn start() -> Place {
        let options = Options::new().no_listeners();
        let certificates = Certificates::generate(options.folder());
        let tls = format!(
            "[listener.tls]\ncert = {:?}\nkey = {:?}\n",
            certificates.server, certificates.server_key
        );
        let listener = |url: &str, more: &str| format!("[[listener]]\nurl = \"{url}\"\n{more}");
        let text = [
            listener("tcp://127.0.0.1:0", ""),
            listener("tls://127.0.0.1:0", &tls),
            listener("ws://127.0.0.1:0/mqtt", ""),
            listener("wss://127.0.0.1:0/mqtt", &tls),
        ];
        Place { broker: options.configuration(&text.concat()).start(), certificates }
    }

    /// A clean client with an identifier of its own.
    pub(crate) fn login(&self, version: Version, scheme: &'static str) -> Login {
        Login {
            version,
            scheme,
            address: self.broker.address(scheme),
            authority: matches!(scheme, "tls" | "wss").then(|| self.certificates.authority.clone()),
            client_id: unique_id("peer"),
            clean: true,
            will: None,
        }
    }
}

/// The place all scenarios share that do not restart it.
pub(crate) fn place() -> &'static Place {
    static PLACE: LazyLock<Place> = LazyLock::new(Place::start);
    &PLACE
}

/// Messages of every quality of service, in their order, from one client to another.
pub(crate) fn every_qos<P: Peer>(version: Version, scheme: &'static str) {
    let topic = unique_topic("qos");
    let mut subscriber = P::connect(&place().login(version, scheme));
    subscriber.subscribe(&topic, 2);
    let mut publisher = P::connect(&place().login(version, scheme));
    for qos in [0, 1, 2, 1, 0, 2] {
        let text = format!("quality {qos}");
        publisher.publish(&topic, qos, false, &text);
        let wanted = Message { topic: topic.clone(), text, qos, retain: false };
        assert_eq!(subscriber.next_message(), wanted);
    }
    publisher.leave();
    subscriber.leave();
}

/// A retained message reaches who comes later, and is gone once it is cleared.
pub(crate) fn retained<P: Peer>(version: Version, scheme: &'static str) {
    let topic = unique_topic("retained");
    let mut publisher = P::connect(&place().login(version, scheme));
    publisher.publish(&topic, 1, true, "kept");
    let mut late = P::connect(&place().login(version, scheme));
    late.subscribe(&topic, 1);
    let wanted = Message { topic: topic.clone(), text: "kept".into(), qos: 1, retain: true };
    assert_eq!(late.next_message(), wanted);
    late.leave();
    publisher.publish(&topic, 1, true, "");
    let mut later = P::connect(&place().login(version, scheme));
    later.subscribe(&topic, 1);
    publisher.publish(&topic, 1, false, "live");
    assert_eq!(later.next_message().text, "live");
    later.leave();
    publisher.leave();
}

/// A client that dies leaves its will, one that takes its leave does not.
pub(crate) fn will<P: Peer>(version: Version, scheme: &'static str) {
    let topic = unique_topic("will");
    let mut watcher = place().broker.client(version);
    watcher.subscribe(&topic, 1);
    let login = |text: &str| {
        let will = Some((topic.clone(), text.to_owned()));
        Login { will, ..place().login(version, scheme) }
    };
    let mut polite = P::connect(&login("on leaving"));
    polite.subscribe(&unique_topic("other"), 0);
    polite.leave();
    if P::leaves_its_will(version) {
        watcher.expect_message(&topic, "on leaving");
    }
    let mut dying = P::connect(&login("farewell"));
    dying.subscribe(&unique_topic("other"), 0);
    dying.die();
    let publish = watcher.expect_message(&topic, "farewell");
    assert_eq!(publish.qos, 1);
}

/// What was published while a client was away reaches it after the broker was restarted.
pub(crate) fn queue_over_a_restart<P: Peer>(version: Version, scheme: &'static str) {
    let mut place = Place::start();
    let topic = unique_topic("queue");
    let client_id = unique_id("away");
    let login = |place: &Place| Login {
        client_id: client_id.clone(),
        clean: false,
        ..place.login(version, scheme)
    };
    let mut subscriber = P::connect(&login(&place));
    subscriber.subscribe(&topic, 2);
    subscriber.leave();
    let mut publisher = P::connect(&place.login(version, scheme));
    for number in 0..QUEUED {
        publisher.publish(&topic, 1 + (number % 2) as u8, false, &format!("{number}"));
    }
    publisher.leave();
    place.broker.restart();
    let mut back = P::connect(&login(&place));
    // The subscription is part of the session; asking again must lose nothing.
    back.subscribe(&topic, 2);
    // A client shows a QoS 2 message when its handshake is over, so each QoS has its own order.
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..QUEUED {
        let message = back.next_message();
        seen[usize::from(message.qos)].push(message.text);
    }
    let every_other = |first: usize| -> Vec<String> {
        (first..QUEUED).step_by(2).map(|number| number.to_string()).collect()
    };
    assert_eq!(seen, [Vec::new(), every_other(0), every_other(1)]);
    back.leave();
}

/// The tests of one client: its adapter, its protocol versions, its transports.
macro_rules! scenarios {
    ($peer:ty, $versions:expr, $schemes:expr) => {
        #[test]
        fn every_qos_travels_over_every_transport() {
            // All versions over the first transport, one over the others.
            for version in $versions {
                $crate::scenario::every_qos::<$peer>(version, $schemes[0]);
            }
            for scheme in &$schemes[1..] {
                $crate::scenario::every_qos::<$peer>($versions[0], scheme);
            }
        }

        #[test]
        fn retained_messages_are_kept_and_cleared() {
            for version in $versions {
                $crate::scenario::retained::<$peer>(version, $schemes[0]);
            }
        }

        #[test]
        fn wills_are_published() {
            for version in $versions {
                $crate::scenario::will::<$peer>(version, $schemes[0]);
            }
        }

        #[test]
        fn queue_outlives_a_restart_of_the_broker() {
            for version in $versions {
                $crate::scenario::queue_over_a_restart::<$peer>(version, $schemes[0]);
            }
        }
    };
}
pub(crate) use scenarios;
