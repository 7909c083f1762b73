//! A broker with small limits, healthy clients beside the abuse, and the broker's memory.

use hoopoe_tests::broker::Options;
use hoopoe_tests::fuzz::healthy::Pair;
use hoopoe_tests::{Broker, Version};

/// Bytes that may wait for one socket, as the tests configure it.
pub(crate) const WRITE_BUFFER_BYTES: u64 = 256 * 1024;
/// Largest packet, as the tests configure it.
pub(crate) const MAX_PACKET_BYTES: u64 = 64 * 1024;
/// What the broker may hold for one connection, whatever its client does: output of the buffer in
/// the settings, a packet above it, and some answers, in a vector that grows by doubling; input of
/// a packet and a read; and as much again for messages that wait for room in its window.
pub(crate) const CONNECTION_BYTES: u64 =
    2 * (2 * (WRITE_BUFFER_BYTES + MAX_PACKET_BYTES + 64 * 1024) + MAX_PACKET_BYTES + 64 * 1024);
/// What the broker may grow by for other reasons: the store's caches, the allocator's reserves.
pub(crate) const OTHER_BYTES: u64 = 32 << 20;

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
        let broker = options.start();
        let pairs = vec![
            Pair::start(broker.tcp(), Version::V5, true),
            Pair::start(broker.tcp(), Version::V311, false),
        ];
        let resident_before = resident(&broker);
        Watched { broker, pairs, resident_before }
    }

    /// The broker must not have grown by more than `connections` abusive clients may cost.
    pub(crate) fn check_memory(&self, connections: u64) {
        let grown = resident(&self.broker).saturating_sub(self.resident_before);
        let bound = connections * CONNECTION_BYTES + OTHER_BYTES;
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

/// Bytes of memory the broker holds (VmRSS).
fn resident(broker: &Broker) -> u64 {
    let file = format!("/proc/{}/status", broker.pid());
    let status = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no VmRSS in {file}")) * 1024
}
