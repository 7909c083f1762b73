//! A broker with small limits, healthy clients beside the abuse, and the broker's memory.

use hoopoe_tests::broker::Options;
use hoopoe_tests::fuzz::healthy::Pair;
use hoopoe_tests::{Broker, Version};

/// Bytes that may wait for one socket, as the tests configure it.
pub(crate) const WRITE_BUFFER_BYTES: u64 = 256 * 1024;
/// Largest packet, as the tests configure it.
pub(crate) const MAX_PACKET_BYTES: u64 = 64 * 1024;

/// What clients may make the broker hold: the terms of "Memory under abuse" in ARCHITECTURE.md,
/// with the settings of these tests. Whatever else they do must not show.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Connections on which packets are unfinished or answers wait.
    pub connections: u64,
    /// Sessions that are not stored and have messages of QoS 1 or 2 waiting.
    pub backlogs: u64,
    /// Connections with publications or subscriptions that wait for their commit.
    pub owed: u64,
    /// Sessions with messages read from the store.
    pub pages: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Sessions stored or connected, idle.
    pub sessions: u64,
}

impl Cost {
    /// So many connections that have filled their buffers.
    pub(crate) fn connections(connections: u64) -> Cost {
        Cost { connections, ..Cost::default() }
    }

    /// The bound.
    fn bytes(self) -> u64 {
        const READ: u64 = 64 * 1024;
        const ANSWERS: u64 = 64 * 1024;
        // A buffer that grows by doubling, and the copy while it grows.
        let input = 2 * (MAX_PACKET_BYTES + READ);
        let output = 2 * (WRITE_BUFFER_BYTES + MAX_PACKET_BYTES + ANSWERS + READ);
        // Payloads and what goes with each message.
        let backlog = (8 << 20) + 10_000 * 256 + MAX_PACKET_BYTES;
        let owed = (4 << 20) + 1024 * 256 + MAX_PACKET_BYTES + READ;
        let page = 256 * 1024 + WRITE_BUFFER_BYTES / 2 + 2 * MAX_PACKET_BYTES;
        self.connections * (input + output)
            + self.backlogs * backlog
            + self.owed * owed
            + self.pages * page
            + self.subscriptions * 2048
            + self.sessions * 8192
            + OTHER_BYTES
    }
}

/// What the broker may grow by for other reasons: the store's caches and rows not yet on disk, the
/// allocator's reserves.
const OTHER_BYTES: u64 = 32 << 20;

/// How much of everything: 1 in the tests of every day, more in `make abuse`.
pub(crate) fn scale() -> usize {
    let Ok(text) = std::env::var("HOOPOE_ABUSE_SCALE") else { return 1 };
    text.parse().unwrap_or_else(|error| panic!("HOOPOE_ABUSE_SCALE={text}: {error}"))
}

/// A broker, watched.
pub(crate) struct Watched {
    /// The broker.
    pub broker: Broker,
    pairs: Vec<Pair>,
    resident_before: u64,
}

/// The settings of all these tests.
pub(crate) fn options() -> Options {
    Options::new()
}

/// The configuration file of all these tests, with more tables behind it.
pub(crate) fn configuration(more: &str) -> String {
    format!(
        "[broker]\ndurability = \"os\"\nworkers = 2\n[mqtt]\nmax_packet_bytes = {MAX_PACKET_BYTES}\n\
         [limits]\nwrite_buffer_bytes = {WRITE_BUFFER_BYTES}\n{more}"
    )
}

impl Watched {
    /// Starts a broker with small limits and healthy clients.
    pub(crate) fn start() -> Watched {
        Watched::with(options().configuration(&configuration("")))
    }

    /// Starts a broker and healthy clients.
    pub(crate) fn with(options: Options) -> Watched {
        Watched::watch(options.start())
    }

    /// Puts healthy clients beside a broker that runs.
    pub(crate) fn watch(broker: Broker) -> Watched {
        let mut pairs = vec![Pair::start(broker.tcp(), Version::V5, true)];
        if scale() > 1 {
            pairs.push(Pair::start(broker.tcp(), Version::V311, false));
        }
        // From here on the highest value is kept (proc(5), clear_refs).
        let file = format!("/proc/{}/clear_refs", broker.pid());
        std::fs::write(&file, "5").unwrap_or_else(|error| panic!("{file}: {error}"));
        let resident_before = status(&broker, "VmRSS:");
        Watched { broker, pairs, resident_before }
    }

    /// The broker must at no time have grown by more than the abuse may cost.
    pub(crate) fn check_memory(&self, cost: Cost) {
        let grown = status(&self.broker, "VmHWM:").saturating_sub(self.resident_before);
        let bound = cost.bytes();
        println!("grown by {} KiB, bound {} KiB", grown >> 10, bound >> 10);
        assert!(grown <= bound, "the broker has grown by {grown} bytes, bound {bound}");
    }

    /// The healthy pairs have lost nothing, and the broker stops when asked.
    pub(crate) fn finish(mut self) {
        for pair in self.pairs {
            let (messages, longest) = pair.finish().unwrap_or_else(|fault| panic!("{fault}"));
            println!("{messages} healthy messages, longest wait {longest:?}");
            assert!(messages > 0, "the healthy pair exchanged nothing");
        }
        assert!(!self.broker.has_logged("panicked"), "the broker's log tells of a panic");
        assert!(self.broker.stop().success(), "the broker did not stop cleanly");
    }
}

/// A figure of the broker's memory, in bytes.
fn status(broker: &Broker, name: &str) -> u64 {
    let file = format!("/proc/{}/status", broker.pid());
    let status = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {name} in {file}")) * 1024
}
