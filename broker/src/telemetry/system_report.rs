//! What the `$SYS` topics say. Their names and meanings are those operators know from mosquitto.
//!
//! [`SystemReport`] is the step: it owns the moving averages and the highest number of clients
//! seen. [`publish_system`] is its task. Only values that changed are published; all of them stay
//! in [`SystemTopics`] for those who subscribe later. There is no topic for what the broker cannot
//! know cheaply, such as the size of its heap.

use std::sync::Arc;
use std::time::Duration;

use super::load::{Load, SPANS};
use super::{Gauges, Instruments, SystemTopics, Telemetry};
use crate::fabric::{Mail, Mailbox, WORKER_MAIL_HIGH};

/// Totals with a moving average each: what follows `$SYS/broker/load/`.
const LOADS: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "publish/dropped",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];

/// A topic with its value.
type TopicValue = (String, String);

/// Composes the `$SYS` topics, round by round.
#[derive(Debug, Default)]
pub struct SystemReport {
    loads: [Load; LOADS.len()],
    last_round: Duration,
    clients_maximum: u64,
}

/// Totals since the start, read once per round.
struct Totals {
    packets_in: u64,
    packets_out: u64,
    publications_in: u64,
    publications_out: u64,
    dropped: u64,
    bytes_in: u64,
    bytes_out: u64,
    sockets: u64,
    connects: u64,
}

impl Totals {
    fn read(instruments: &Instruments) -> Totals {
        let telemetry: &Telemetry = &instruments.telemetry;
        Totals {
            packets_in: telemetry.sum(|worker| worker.packets_in.get()),
            packets_out: telemetry.packets_out(),
            publications_in: telemetry.publications_in(),
            publications_out: telemetry.publications_out(),
            dropped: telemetry.all_drops(),
            bytes_in: telemetry.sum(|worker| worker.bytes_in.get()),
            bytes_out: telemetry.sum(|worker| worker.bytes_out.get()),
            sockets: instruments.listeners.iter().map(|(_, gate)| gate.counts().accepted).sum(),
            connects: telemetry.sum(|worker| worker.connects.get()),
        }
    }

    /// In the order of [`LOADS`].
    fn loads(&self) -> [u64; LOADS.len()] {
        [
            self.packets_in,
            self.packets_out,
            self.publications_in,
            self.publications_out,
            self.dropped,
            self.bytes_in,
            self.bytes_out,
            self.sockets,
            self.connects,
        ]
    }
}

impl SystemReport {
    /// All topics with their values, `uptime` after the start of the process.
    pub fn on_round(&mut self, uptime: Duration, instruments: &Instruments) -> Vec<TopicValue> {
        let totals = Totals::read(instruments);
        let mut topics = Vec::new();
        let mut say = |name: &str, value: String| {
            topics.push((format!("$SYS/broker/{name}"), value));
        };
        say("version", format!("hoopoe version {}", instruments.build.version));
        say("uptime", format!("{} seconds", uptime.as_secs()));
        say("hoopoe/durability", instruments.durability.to_owned());
        let connected = instruments.telemetry.sum(|worker| worker.sessions.get());
        self.clients_maximum = self.clients_maximum.max(connected);
        let gauges = instruments.gauges();
        for (name, value) in self
            .client_counts(connected, instruments.sessions_away(&gauges))
            .into_iter()
            .chain(traffic(&totals, &instruments.telemetry))
            .chain(held(&gauges))
        {
            say(name, value.to_string());
        }
        for (name, link) in instruments.links() {
            for (what, value) in [
                ("state", link.state.as_str().to_owned()),
                ("queued", link.queued.to_string()),
                ("in_flight", link.in_flight.to_string()),
                ("lag_ms", link.lag_ms.to_string()),
                ("sent", link.counts.sent.to_string()),
                ("received", link.counts.arrived.to_string()),
                ("failures", link.failures.to_string()),
                ("last_error", link.last_error.map_or_else(String::new, |error| error.what)),
            ] {
                say(&format!("bridge/{name}/{what}"), value);
            }
        }
        for (name, line) in instruments.site_lines() {
            for (what, value) in [
                ("state", line.state.as_str().to_owned()),
                ("owed", line.owed.numbers.to_string()),
                ("owed_bytes", line.owed.bytes.to_string()),
                ("held", line.owed.held.to_string()),
                ("lag_ms", line.lag_ms.to_string()),
                ("sent", line.counts.sent.to_string()),
                ("received", line.counts.received.to_string()),
                ("losses", line.losses.to_string()),
                ("last_error", line.last_error.map_or_else(String::new, |error| error.what)),
            ] {
                say(&format!("site/{name}/{what}"), value);
            }
        }
        let elapsed = uptime.saturating_sub(self.last_round);
        for ((name, counted), load) in LOADS.iter().zip(totals.loads()).zip(&mut self.loads) {
            load.observe(counted, elapsed);
            for ((_, span), average) in SPANS.iter().zip(load.averages()) {
                say(&format!("load/{name}/{span}"), format!("{average:.2}"));
            }
        }
        self.last_round = uptime;
        topics
    }

    fn client_counts(&self, connected: u64, away: u64) -> [(&'static str, u64); 4] {
        [
            ("clients/connected", connected),
            ("clients/disconnected", away),
            ("clients/total", connected + away),
            // The most seen at the end of a round: a peak between two rounds is not noticed.
            ("clients/maximum", self.clients_maximum),
        ]
    }
}

fn traffic(totals: &Totals, telemetry: &Telemetry) -> [(&'static str, u64); 9] {
    [
        ("messages/received", totals.packets_in),
        ("messages/sent", totals.packets_out),
        ("publish/messages/received", totals.publications_in),
        ("publish/messages/sent", totals.publications_out),
        ("publish/messages/dropped", totals.dropped),
        ("publish/bytes/received", telemetry.sum(|worker| worker.payload_bytes_in.get())),
        ("publish/bytes/sent", telemetry.sum(|worker| worker.payload_bytes_out.get())),
        ("bytes/received", totals.bytes_in),
        ("bytes/sent", totals.bytes_out),
    ]
}

fn held(gauges: &Gauges) -> [(&'static str, u64); 5] {
    // As in mosquitto, what is held is what is retained and what waits for clients that are away.
    let held = gauges.retained_messages + gauges.queued_messages;
    [
        ("subscriptions/count", gauges.subscriptions),
        ("shared_subscriptions/count", gauges.shared_groups),
        ("retained messages/count", gauges.retained_messages),
        ("store/messages/count", held),
        // The older name of the same number.
        ("messages/stored", held),
    ]
}

/// Composes `$SYS` every `interval`, beginning at once, until it is aborted. What changed is sent
/// through one worker's mailbox.
///
/// While that worker is so far behind that publishers wait for it, rounds are left out: the next
/// one sends what has changed since.
pub async fn publish_system(
    instruments: Arc<Instruments>,
    system: Arc<SystemTopics>,
    worker: Arc<Mailbox<Mail>>,
    interval: Duration,
) {
    let mut report = SystemReport::default();
    let mut rounds = tokio::time::interval(interval);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if worker.len() > WORKER_MAIL_HIGH {
            continue;
        }
        let values = report.on_round(instruments.uptime(), &instruments);
        let changed = values.iter().filter_map(|(topic, value)| system.update(topic, value));
        let mut letters: Vec<Mail> = changed.map(Mail::System).collect();
        worker.put_all(&mut letters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use hoopoe_codec::QoS;

    use crate::telemetry::Dropped;

    /// Every topic there is: dashboards depend on these names.
    const TOPICS: [&str; 21] = [
        "version",
        "uptime",
        "hoopoe/durability",
        "clients/connected",
        "clients/disconnected",
        "clients/total",
        "clients/maximum",
        "messages/received",
        "messages/sent",
        "messages/stored",
        "publish/messages/received",
        "publish/messages/sent",
        "publish/messages/dropped",
        "publish/bytes/received",
        "publish/bytes/sent",
        "bytes/received",
        "bytes/sent",
        "subscriptions/count",
        "shared_subscriptions/count",
        "retained messages/count",
        "store/messages/count",
    ];

    fn instruments() -> Instruments {
        let telemetry = Telemetry::new(2, 1);
        telemetry.workers[0].sessions.add(2);
        telemetry.workers[1].sessions.add(1);
        telemetry.workers[1].stored_sessions.add(1);
        telemetry.workers[0].packets_in.add(60);
        telemetry.workers[1].packets_out.add(4);
        telemetry.workers[1].publish_out(QoS::AtLeastOnce);
        telemetry.workers[1].payload_bytes_out.add(100);
        telemetry.workers[0].dropped(Dropped::Expired);
        let gauges = Gauges {
            stored_sessions: 6,
            retained_messages: 7,
            queued_messages: 9,
            ..Gauges::default()
        };
        Instruments::new(Arc::new(telemetry), Vec::new(), Box::new(move || gauges), "sync")
    }

    fn round(report: &mut SystemReport, at_secs: u64, from: &Instruments) -> Vec<TopicValue> {
        report.on_round(Duration::from_secs(at_secs), from)
    }

    #[test]
    fn the_topics_are_those_of_mosquitto() {
        let topics = round(&mut SystemReport::default(), 0, &instruments());
        let mut names: Vec<&str> = topics.iter().map(|(topic, _)| topic.as_str()).collect();
        names.sort_unstable();
        let loads = LOADS.iter().flat_map(|load| {
            ["1min", "5min", "15min"].map(|span| format!("$SYS/broker/load/{load}/{span}"))
        });
        let plain = TOPICS.iter().map(|topic| format!("$SYS/broker/{topic}"));
        let mut expected: Vec<String> = plain.chain(loads).collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for name in names {
            assert_eq!(hoopoe_codec::check_topic(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn values_come_from_the_counters() {
        let from = instruments();
        let mut report = SystemReport::default();
        round(&mut report, 0, &from);
        from.telemetry.workers[0].sessions.sub(1);
        let topics: BTreeMap<_, _> = round(&mut report, 60, &from).into_iter().collect();
        for (name, expected) in [
            ("version", concat!("hoopoe version ", env!("CARGO_PKG_VERSION"))),
            ("uptime", "60 seconds"),
            ("hoopoe/durability", "sync"),
            ("clients/connected", "2"),
            ("clients/disconnected", "5"),
            ("clients/total", "7"),
            ("clients/maximum", "3"),
            ("messages/received", "60"),
            ("messages/sent", "5"),
            ("messages/stored", "16"),
            ("publish/messages/sent", "1"),
            ("publish/messages/dropped", "1"),
            ("publish/bytes/sent", "100"),
            ("retained messages/count", "7"),
            // 60 packets in the one minute since the start: 60 * (1 - 1/e).
            ("load/messages/received/1min", "37.93"),
            ("load/bytes/received/15min", "0.00"),
        ] {
            assert_eq!(topics[&format!("$SYS/broker/{name}")], expected, "{name}");
        }
    }

    #[test]
    fn the_first_round_is_sent_at_once_and_kept_for_later_subscribers() {
        let (worker, system) = (Arc::new(Mailbox::parked()), Arc::new(SystemTopics::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let hour = Duration::from_secs(3600);
        let instruments = Arc::new(instruments());
        let mailbox = worker.clone();
        let sent = async move {
            while mailbox.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let publishing = publish_system(instruments, system.clone(), worker.clone(), hour);
        runtime.block_on(async {
            tokio::select! {
                () = publishing => panic!("it ended by itself"),
                () = sent => {}
            }
        });
        let mut letters = Vec::new();
        assert!(worker.take(&mut letters));
        assert_eq!(letters.len(), TOPICS.len() + 3 * LOADS.len());
        for letter in letters {
            let Mail::System(publication) = letter else { panic!("another letter") };
            let kept = system.matching(publication.topic());
            assert_eq!(kept, [publication]);
        }
    }
}
