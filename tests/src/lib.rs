//! Whole-broker tests: the harness that starts the program, a raw client that speaks the wire
//! format by itself, and the list of normative statements.
//!
//! The wire format is written here a second time, independent of `hoopoe-codec`, so that a fault
//! in the codec cannot hide itself by being made on both sides.

pub mod broker;
pub mod certificate;
pub mod chat;
pub mod client;
pub mod connect;
pub mod crash;
pub mod disk;
pub mod fuzz;
pub mod http;
pub mod im_fuzz;
pub mod metrics;
pub mod program;
pub mod reaper;
pub mod simulation;
pub mod statement;
pub mod stored;
pub mod tls;
pub mod websocket;
pub mod wire;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use broker::{Broker, shared_broker};
pub use client::{RawClient, Received};
pub use connect::{Connect, Will};
pub use http::{Http, HttpAnswer};
pub use wire::properties::{Properties, Property};
pub use wire::{Ack, ConnAck, Disconnect, Packet, Publish, SubAck, Version, code};

/// How long anything may take before a test calls it a failure. A bound for faults only: no test
/// waits for it to pass.
pub const DEADLINE: Duration = Duration::from_secs(20);

static NEXT_NAME: AtomicU32 = AtomicU32::new(1);

/// A client identifier no other test uses, within the 23 letters and digits every server must
/// allow (`[MQTT-3.1.3-5]`).
pub fn unique_id(stem: &str) -> String {
    let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
    format!("{stem}{}x{number}", std::process::id())
}

/// A topic no other test uses.
pub fn unique_topic(stem: &str) -> String {
    let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
    format!("test/{}/{number}/{stem}", std::process::id())
}

/// An address where nothing listens and no other test will: for a server whose address must be
/// known before it starts, and for one that is never there.
///
/// A port of 127.0.0.1 that was free a moment ago may be given to any socket of any test by then.
/// The whole of 127.0.0.0/8 leads to this machine (RFC 1122, 3.2.1.3), so each test process has an
/// address to itself, of its process number.
pub fn unique_address() -> SocketAddr {
    static GIVEN: LazyLock<Mutex<HashSet<SocketAddr>>> = LazyLock::new(Mutex::default);
    loop {
        let free = TcpListener::bind((own_ip(), 0)).expect("a free port");
        let address = free.local_addr().expect("it has an address");
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(address) {
            return address;
        }
    }
}

/// The loopback address that is this process's alone.
fn own_ip() -> Ipv4Addr {
    let [high, second, third, fourth] = std::process::id().to_be_bytes();
    assert!(high == 0 && second < 64, "process numbers are below 2^22 (PID_MAX_LIMIT)");
    Ipv4Addr::new(127, 64 + second, third, fourth)
}

/// Asks until the answer is yes. For what the broker does on its own time and tells nobody about;
/// each question is a request to it, so nothing is gained by waiting in between.
pub fn eventually(what: &str, mut question: impl FnMut() -> bool) {
    let started = Instant::now();
    while !question() {
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
    }
}
