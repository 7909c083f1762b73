//! The brokers at both ends of a link, and clients that count.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use hoopoe_tests::broker::Options;
use hoopoe_tests::program::Program;
use hoopoe_tests::{
    Broker, Connect, Http, Publish, RawClient, Version, eventually, reaper, unique_address,
    unique_id,
};

/// Where mosquitto may be besides the path.
const MOSQUITTO: [&str; 2] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];

/// Debian's mosquitto with a folder that outlives it.
pub struct Mosquitto {
    folder: PathBuf,
    pub address: SocketAddr,
    /// A second listener, with lines of its own.
    pub special: SocketAddr,
    running: Option<Program>,
}

impl Mosquitto {
    /// One that has a second listener with these lines of configuration.
    pub fn start(listener: &str) -> Mosquitto {
        Mosquitto::start_with(listener, "")
    }

    fn start_with(listener: &str, lines: &str) -> Mosquitto {
        let folder = reaper::temporary_folder("mosquitto");
        // It cannot say which port it was given. As root it would become another user, who cannot
        // write here; else it stays who it is.
        let [address, special] = [unique_address(), unique_address()];
        let mut text = format!(
            "user root\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n\
             log_type none\n{lines}listener {} {}\n",
            folder.display(),
            address.port(),
            address.ip(),
        );
        if !listener.is_empty() {
            let (port, ip) = (special.port(), special.ip());
            text.push_str(&format!("listener {port} {ip}\n{listener}\n"));
        }
        std::fs::write(folder.join("mosquitto.conf"), text).expect("a file");
        let mut mosquitto = Mosquitto { folder, address, special, running: None };
        mosquitto.start_again();
        mosquitto
    }

    /// Without anything special.
    pub fn plain() -> Mosquitto {
        Mosquitto::start("")
    }

    /// One that may be restarted in the middle of exchanges. When it
    /// starts, mosquitto 2.0.11 takes exchanges beyond its window (20) for queued messages, and sends
    /// PUBLISH again although it had sent PUBREL, against [MQTT-4.3.3].
    pub fn with_wide_window() -> Mosquitto {
        Mosquitto::start_with("", "max_inflight_messages 1000\n")
    }

    /// Starts on the same folder and port.
    pub fn start_again(&mut self) {
        let program = MOSQUITTO.iter().find(|program| Path::new(program).exists());
        let mut command = Command::new(program.unwrap_or(&"mosquitto"));
        command.arg("-c").arg(self.folder.join("mosquitto.conf"));
        let mut program = Program::start(command);
        eventually("mosquitto listens", || {
            assert!(!program.has_ended(), "mosquitto ended at once");
            TcpStream::connect(self.address).is_ok()
        });
        self.running = Some(program);
    }

    /// Everything it has written down is gone.
    pub fn forget(&self) {
        assert!(self.running.is_none(), "mosquitto runs");
        std::fs::remove_file(self.folder.join("mosquitto.db")).expect("its database");
    }

    /// Ends it in order: it writes down what it has.
    pub fn stop(&mut self) {
        self.running.take().expect("mosquitto runs").terminate();
    }

    /// Ends it with SIGKILL: what it had not written down yet is gone.
    pub fn kill(&mut self) {
        self.running.take().expect("mosquitto runs").kill();
    }

    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// A client with a clean session.
    pub fn client(&self, version: Version) -> RawClient {
        RawClient::connect(self.address, &Connect::new(version, &unique_id("m")))
    }
}

/// A link as it stands in a settings file.
pub struct Link {
    lines: Vec<String>,
    rules: Vec<String>,
}

impl Link {
    pub fn new(name: &str, url: impl std::fmt::Display) -> Link {
        Link { lines: vec![format!("name = '{name}'\nurl = '{url}'")], rules: Vec::new() }
            .line("backoff_min_ms = 10\nbackoff_max_ms = 100")
    }

    pub fn to(name: &str, address: SocketAddr) -> Link {
        Link::new(name, format!("mqtt://{address}"))
    }

    pub fn version(self, version: Version) -> Link {
        self.line(match version {
            Version::V5 => "protocol = '5.0'",
            Version::V311 => "protocol = '3.1.1'",
        })
    }

    pub fn line(mut self, line: &str) -> Link {
        self.lines.push(line.to_owned());
        self
    }

    pub fn rule(mut self, pattern: &str, direction: &str, qos: u8) -> Link {
        self.rules.push(format!(
            "[[bridge.rule]]\npattern = '{pattern}'\ndirection = '{direction}'\nqos = {qos}"
        ));
        self
    }

    /// The last rule changes prefixes.
    pub fn prefixes(mut self, local: &str, remote: &str) -> Link {
        let rule = self.rules.last_mut().expect("a rule");
        rule.push_str(&format!("\nlocal_prefix = '{local}'\nremote_prefix = '{remote}'"));
        self
    }

    pub fn text(&self) -> String {
        format!("[[bridge]]\n{}\n{}\n", self.lines.join("\n"), self.rules.join("\n"))
    }
}

/// The admin token of brokers with links.
pub const TOKEN: &str = "a-token-of-the-tests";

/// A Hoopoe of this id with these links.
pub fn hoopoe(id: &str, links: &[Link]) -> Options {
    let links: Vec<String> = links.iter().map(Link::text).collect();
    let text = format!(
        "[broker]\nid = '{id}'\n[http]\nadmin_token = '{TOKEN}'\n[mqtt]\nsys_interval_secs = 1\n{}",
        links.join("")
    );
    Options::new().configuration(&text)
}

/// What is logged when messages pass a link.
pub const CONNECTED: &str = "state=\"connected\"";

/// A stored subscriber that notes what it gets, by topic.
pub struct Ledger {
    client: RawClient,
    pub got: BTreeMap<String, Vec<u64>>,
}

impl Ledger {
    /// Subscribes; what comes from then on is its.
    pub fn new(mut client: RawClient, filter: &str, qos: u8) -> Ledger {
        client.subscribe(filter, qos);
        Ledger { client, got: BTreeMap::new() }
    }

    /// Goes on with a session that has subscribed.
    pub fn resumed(client: RawClient) -> Ledger {
        Ledger { client, got: BTreeMap::new() }
    }

    /// Takes messages until one of each topic has this number.
    pub fn take_until(&mut self, topics: &[&str], last: u64) {
        let done = |got: &BTreeMap<String, Vec<u64>>| {
            topics.iter().all(|topic| got.get(*topic).is_some_and(|all| all.contains(&last)))
        };
        while !done(&self.got) {
            let publish = self.client.expect_publish();
            self.client.complete(&publish);
            let number = String::from_utf8_lossy(&publish.payload).parse().expect("a number");
            self.got.entry(publish.topic).or_default().push(number);
        }
    }

    /// Each number once and in order.
    pub fn expect_each_once(&self, topic: &str, numbers: RangeInclusive<u64>) {
        let got = self.got.get(topic).cloned().unwrap_or_default();
        let expected: Vec<u64> = numbers.collect();
        assert!(got == expected, "{topic}: {}", differences(&got, &expected));
    }

    /// Each number at least once, and for the first time in order.
    pub fn expect_all(&self, topic: &str, numbers: RangeInclusive<u64>) {
        let first = self.first(topic);
        let expected: Vec<u64> = numbers.collect();
        assert!(first == expected, "{topic}: {}", differences(&first, &expected));
    }

    /// As [`expect_each_once`](Self::expect_each_once), but for what was sent `again`.
    pub fn expect_each_once_but(
        &self,
        topic: &str,
        numbers: RangeInclusive<u64>,
        again: &BTreeMap<u64, usize>,
    ) {
        self.expect_all(topic, numbers);
        self.expect_none_doubled_but(topic, again);
    }

    /// No number twice, but for what was sent `again`.
    pub fn expect_none_doubled_but(&self, topic: &str, again: &BTreeMap<u64, usize>) {
        for number in self.first(topic) {
            let times = self.got[topic].iter().filter(|got| **got == number).count();
            let most = 1 + again.get(&number).copied().unwrap_or(0);
            assert!(times <= most, "{topic}: {number} came {times} times, sent {most} times");
        }
    }

    /// Each number where it came first.
    pub fn first(&self, topic: &str) -> Vec<u64> {
        let mut first = Vec::new();
        for number in self.got.get(topic).into_iter().flatten() {
            if !first.contains(number) {
                first.push(*number);
            }
        }
        first
    }
}

fn differences(got: &[u64], expected: &[u64]) -> String {
    let lost: Vec<_> = expected.iter().filter(|number| !got.contains(number)).collect();
    let doubled: Vec<_> =
        expected.iter().filter(|n| got.iter().filter(|g| g == n).count() > 1).collect();
    let turned = got.windows(2).filter(|pair| pair[0] > pair[1]).count();
    format!("{} of {}, lost {lost:?}, doubled {doubled:?}, out of order {turned}", got.len(), {
        expected.len()
    })
}

/// Publishes a number.
pub fn send(client: &mut RawClient, topic: &str, number: u64, qos: u8) {
    client.publish(Publish::new(topic, number.to_string()).qos(qos));
}

/// What a broker's operators see of a link.
pub fn report(broker: &Broker, name: &str) -> serde_json::Value {
    let http = Http::new(broker.http()).bearer(TOKEN);
    let answer = http.call("admin/bridges/list", serde_json::json!({}));
    let bridges = answer["bridges"].as_array().expect("a list");
    bridges.iter().find(|bridge| bridge["name"] == name).expect("the link").clone()
}

/// How often the only link `l` has connected.
pub fn connects(broker: &Broker) -> u64 {
    report(broker, "l")["connects"].as_u64().expect("a number")
}
