//! The families of `/metrics`, in the Prometheus text format.
//!
//! Every label has a bounded set of values: QoS, reasons, and what the configuration fixes
//! (workers, shards, listeners). Clients, users and topics are never labels.

use hoopoe_im::overload::Shed;

use std::sync::atomic::Ordering;

use hoopoe_bridge::State;
use hoopoe_codec::QoS;

use super::exposition::{Exposition, Kind};
use super::process::Process;
use super::{Buckets, Dropped, Instruments, ShardCounters, Telemetry, WorkerCounters};
use crate::bridges::BridgeReport;
use crate::im::sites::{SiteReport, SiteState};

type WorkerCount = fn(&WorkerCounters) -> u64;
type ShardCount = fn(&ShardCounters) -> u64;

const QOS: [(QoS, &str); 3] =
    [(QoS::AtMostOnce, "0"), (QoS::AtLeastOnce, "1"), (QoS::ExactlyOnce, "2")];

/// Sums over the workers that only go up.
const WORKER_COUNTS: [(&str, &str, WorkerCount); 11] = [
    ("hoopoe_connects_total", "CONNECT packets read.", |worker| worker.connects.get()),
    ("hoopoe_connects_refused_total", "CONNECT packets refused.", |worker| {
        worker.refused_connects.get()
    }),
    (
        "hoopoe_protocol_faults_total",
        "Connections ended for a malformed or illegal packet.",
        |worker| worker.faults.get(),
    ),
    ("hoopoe_disconnects_sent_total", "Clients told to go.", |worker| {
        worker.disconnects_sent.get()
    }),
    (
        "hoopoe_keep_alive_timeouts_total",
        "Clients not heard for one and a half keep alives.",
        |worker| worker.keep_alive_timeouts.get(),
    ),
    ("hoopoe_publications_refused_total", "Publications refused.", |worker| {
        worker.refused_publications.get()
    }),
    ("hoopoe_packets_received_total", "MQTT packets read.", |worker| worker.packets_in.get()),
    ("hoopoe_received_bytes_total", "Bytes read from sockets.", |worker| worker.bytes_in.get()),
    ("hoopoe_sent_bytes_total", "MQTT bytes given to sockets.", |worker| worker.bytes_out.get()),
    (
        "hoopoe_publication_received_payload_bytes_total",
        "Payload bytes of publications read.",
        |worker| worker.payload_bytes_in.get(),
    ),
    (
        "hoopoe_publication_sent_payload_bytes_total",
        "Payload bytes of publications written.",
        |worker| worker.payload_bytes_out.get(),
    ),
];

/// What each shard counts.
const SHARD_COUNTS: [(&str, &str, ShardCount); 4] = [
    ("hoopoe_commits_total", "Commits to the store.", |shard| shard.commits.get()),
    ("hoopoe_commits_failed_total", "Commits that failed.", |shard| shard.failed_commits.get()),
    ("hoopoe_store_reopened_total", "Times the store was opened anew after a fault.", |shard| {
        shard.reopened.get()
    }),
    (
        "hoopoe_queue_overflows_total",
        "Messages that made room in full stored queues; also in hoopoe_publications_dropped_total.",
        |shard| shard.overflowed.get(),
    ),
];

/// All metrics of the broker as text for Prometheus.
pub fn metrics(instruments: &Instruments) -> String {
    let mut out = Exposition::default();
    build(&mut out, instruments);
    clients(&mut out, instruments);
    publications(&mut out, &instruments.telemetry);
    queues(&mut out, instruments);
    im(&mut out, instruments);
    shards(&mut out, &instruments.telemetry);
    listeners(&mut out, instruments);
    bridges(&mut out, instruments);
    sites(&mut out, instruments);
    process(&mut out, instruments);
    out.into_text()
}

fn build(out: &mut Exposition, instruments: &Instruments) {
    let build = instruments.build;
    let labels =
        [("version", build.version), ("revision", build.revision), ("profile", build.profile)];
    out.family("hoopoe_build_info", Kind::Gauge, "What runs; always 1.").sample(&labels, 1);
    out.family(
        "hoopoe_durability_info",
        Kind::Gauge,
        "How durable acknowledgements are; always 1.",
    )
    .sample(&[("durability", instruments.durability)], 1);
}

fn clients(out: &mut Exposition, instruments: &Instruments) {
    let telemetry = &instruments.telemetry;
    let mut family =
        out.family("hoopoe_connections", Kind::Gauge, "Connections open, by the worker's number.");
    for (number, worker) in telemetry.workers.iter().enumerate() {
        family.sample(&[("worker", &number.to_string())], worker.connections.get());
    }
    let connected = telemetry.sum(|worker| worker.sessions.get());
    out.gauge("hoopoe_clients_connected", "Clients connected.", connected);
    let gauges = instruments.gauges();
    for (name, help, value) in [
        ("hoopoe_sessions_stored", "Stored sessions.", gauges.stored_sessions),
        (
            "hoopoe_sessions_away",
            "Stored sessions whose clients are not connected.",
            instruments.sessions_away(&gauges),
        ),
        ("hoopoe_subscriptions", "Subscriptions.", gauges.subscriptions),
        ("hoopoe_filters", "Different topic filters subscribed to.", gauges.filters),
        ("hoopoe_shared_groups", "Groups of shared subscriptions.", gauges.shared_groups),
    ] {
        out.gauge(name, help, value);
    }
    for (name, help, count) in WORKER_COUNTS {
        out.counter(name, help, telemetry.sum(count));
    }
    out.counter("hoopoe_packets_sent_total", "MQTT packets written.", telemetry.packets_out());
}

fn publications(out: &mut Exposition, telemetry: &Telemetry) {
    let help = "Publications read from clients.";
    let mut family = out.family("hoopoe_publications_received_total", Kind::Counter, help);
    for (qos, label) in QOS {
        family.sample(&[("qos", label)], telemetry.sum(|worker| worker.published_in(qos)));
    }
    let help = "Publications written to clients, repetitions included.";
    let mut family = out.family("hoopoe_publications_sent_total", Kind::Counter, help);
    for (qos, label) in QOS {
        family.sample(&[("qos", label)], telemetry.sum(|worker| worker.published_out(qos)));
    }
    let help = "Copies of publications that a receiver did not get.";
    let mut family = out.family("hoopoe_publications_dropped_total", Kind::Counter, help);
    for (reason, label) in Dropped::ALL {
        family.sample(&[("reason", label)], telemetry.drops(reason));
    }
}

fn queues(out: &mut Exposition, instruments: &Instruments) {
    let gauges = instruments.gauges();
    out.gauge(
        "hoopoe_retained_messages",
        "Retained messages, $SYS aside.",
        gauges.retained_messages,
    );
    let help = "Messages in stored queues, waiting or unacknowledged, once per receiver.";
    out.gauge("hoopoe_queued_messages", help, gauges.queued_messages);
    out.gauge("hoopoe_queued_bytes", "Their bytes.", gauges.queued_bytes);
    let help = "Letters between threads that wait for their receivers.";
    let mut family = out.family("hoopoe_mailbox_letters", Kind::Gauge, help);
    family.sample(&[("receiver", "workers")], gauges.worker_letters);
    family.sample(&[("receiver", "shards")], gauges.shard_letters);
    family.sample(&[("receiver", "readers")], gauges.reader_jobs);
}

fn im(out: &mut Exposition, instruments: &Instruments) {
    let counts = instruments.gauges().im;
    for (name, help, count) in [
        ("hoopoe_im_entries_expired_total", "Entries taken by retention.", counts.entries_taken),
        ("hoopoe_pushes_sent_total", "Messages the gateway has taken.", counts.pushes_sent),
        ("hoopoe_push_failures_total", "Requests to it that failed.", counts.pushes_failed),
        (
            "hoopoe_pushes_given_up_total",
            "Conversations whose pushes were tried too often.",
            counts.pushes_given_up,
        ),
    ] {
        out.counter(name, help, count);
    }
    let help = "Conversations of users that wait to be pushed.";
    out.gauge("hoopoe_pushes_waiting", help, counts.pushes_waiting);
    let help = "Classes of things that are given up at the moment, of eight.";
    out.gauge("hoopoe_overload_level", help, u64::from(counts.overload_level));
    let help = "What was given up, or put off, because of overload.";
    let mut family = out.family("hoopoe_shed_total", Kind::Counter, help);
    for (class, count) in Shed::ALL.into_iter().zip(counts.shed) {
        family.sample(&[("class", class.name())], count);
    }
}

fn shards(out: &mut Exposition, telemetry: &Telemetry) {
    let numbered =
        || telemetry.shards.iter().enumerate().map(|(number, shard)| (number.to_string(), shard));
    for (name, help, count) in SHARD_COUNTS {
        let mut family = out.family(name, Kind::Counter, help);
        for (number, shard) in numbered() {
            family.sample(&[("shard", &number)], count(shard));
        }
    }
    let help = "1 while the shard's store takes writes.";
    let mut family = out.family("hoopoe_store_writable", Kind::Gauge, help);
    for (number, shard) in numbered() {
        let writable = shard.writable.load(Ordering::Acquire);
        family.sample(&[("shard", &number)], u8::from(writable));
    }
    let help = "Time from a batch's first command to the end of its commit.";
    let mut family = out.family("hoopoe_commit_seconds", Kind::Histogram, help);
    for (number, shard) in numbered() {
        let (buckets, count, sum) = scaled(&shard.commit_micros, 1e6);
        family.histogram(&[("shard", &number)], buckets, count, sum);
    }
    let help = "Commands in a batch.";
    let mut family = out.family("hoopoe_commit_batch_commands", Kind::Histogram, help);
    for (number, shard) in numbered() {
        let (buckets, count, sum) = scaled(&shard.batch_commands, 1.0);
        family.histogram(&[("shard", &number)], buckets, count, sum);
    }
}

/// Buckets with their bounds in units of `per_unit`, the number of values, and their sum.
fn scaled<const N: usize>(
    buckets: &Buckets<N>,
    per_unit: f64,
) -> (impl Iterator<Item = (String, u64)>, u64, f64) {
    let (bounds, count, sum) = buckets.cumulative();
    let unit = move |value: u64| value as f64 / per_unit;
    let labelled = bounds.into_iter().map(move |(bound, below)| (unit(bound).to_string(), below));
    (labelled, count, unit(sum))
}

fn listeners(out: &mut Exposition, instruments: &Instruments) {
    let listeners = &instruments.listeners;
    if listeners.is_empty() {
        return;
    }
    let help = "Connections open at the listener.";
    let mut family = out.family("hoopoe_listener_connections", Kind::Gauge, help);
    for (url, gate) in listeners {
        family.sample(&[("listener", url)], gate.open_connections());
    }
    let help = "Connections let in.";
    let mut family = out.family("hoopoe_listener_accepted_total", Kind::Counter, help);
    for (url, gate) in listeners {
        family.sample(&[("listener", url)], gate.counts().accepted);
    }
    let help = "Connections not let in.";
    let mut family = out.family("hoopoe_listener_refused_total", Kind::Counter, help);
    for (url, gate) in listeners {
        let counts = gate.counts();
        for (reason, count) in [
            ("full", counts.refused_full),
            ("too_often", counts.refused_too_often),
            ("untrusted", counts.refused_untrusted),
        ] {
            family.sample(&[("listener", url), ("reason", reason)], count);
        }
    }
    let help = "Errors of the system while accepting.";
    let mut family = out.family("hoopoe_listener_accept_errors_total", Kind::Counter, help);
    for (url, gate) in listeners {
        family.sample(&[("listener", url)], gate.counts().accept_errors);
    }
}

type BridgeCount = fn(&BridgeReport) -> u64;

/// What each link shows: name, kind, meaning, value.
const BRIDGES: [(&str, Kind, &str, BridgeCount); 10] = [
    ("hoopoe_bridge_connected", Kind::Gauge, "1 while messages pass the bridge.", |link| {
        u64::from(link.state == State::Connected)
    }),
    (
        "hoopoe_bridge_paused",
        Kind::Gauge,
        "1 while an operator keeps it from connecting.",
        |link| u64::from(link.state == State::Paused),
    ),
    ("hoopoe_bridge_queued_messages", Kind::Gauge, "Messages that wait to go out.", |link| {
        link.queued
    }),
    ("hoopoe_bridge_in_flight", Kind::Gauge, "Messages sent and not acknowledged.", |link| {
        link.in_flight
    }),
    ("hoopoe_bridge_connects_total", Kind::Counter, "Connections made.", |link| link.connects),
    ("hoopoe_bridge_failures_total", Kind::Counter, "Connections that failed or ended.", |link| {
        link.failures
    }),
    ("hoopoe_bridge_sent_total", Kind::Counter, "Messages sent.", |link| link.counts.sent),
    ("hoopoe_bridge_sent_payload_bytes_total", Kind::Counter, "Bytes of payloads sent.", |link| {
        link.counts.sent_bytes
    }),
    ("hoopoe_bridge_received_total", Kind::Counter, "Messages received.", |link| {
        link.counts.arrived
    }),
    (
        "hoopoe_bridge_received_payload_bytes_total",
        Kind::Counter,
        "Bytes of payloads received.",
        |link| link.counts.arrived_bytes,
    ),
];

fn bridges(out: &mut Exposition, instruments: &Instruments) {
    let links = instruments.links();
    if links.is_empty() {
        return;
    }
    for (name, kind, help, count) in BRIDGES {
        let mut family = out.family(name, kind, help);
        for (link, report) in &links {
            family.sample(&[("bridge", link)], count(report));
        }
    }
    let help = "How long something has been waiting to go out, at most.";
    let mut family = out.family("hoopoe_bridge_lag_seconds", Kind::Gauge, help);
    for (link, report) in &links {
        family.sample(&[("bridge", link)], report.lag_ms as f64 / 1000.0);
    }
    let help = "Messages that a bridge did not pass on.";
    let mut family = out.family("hoopoe_bridge_dropped_total", Kind::Counter, help);
    for (link, report) in &links {
        let counts = &report.counts;
        for (reason, count) in [
            ("looped", counts.looped),
            ("without_rule", counts.without_rule),
            ("too_large", counts.too_large),
            ("refused", counts.refused),
        ] {
            family.sample(&[("bridge", link), ("reason", reason)], count);
        }
    }
}

type SiteCount = fn(&SiteReport) -> u64;

/// What each line to another site shows: name, kind, meaning, value.
const SITES: [(&str, Kind, &str, SiteCount); 11] = [
    ("hoopoe_site_up", Kind::Gauge, "1 while the site is heard and hears this one.", |line| {
        u64::from(line.state == SiteState::Up)
    }),
    ("hoopoe_site_paused", Kind::Gauge, "1 while an operator has paused the line.", |line| {
        u64::from(line.state == SiteState::Paused)
    }),
    ("hoopoe_site_losses_total", Kind::Counter, "Times the site was lost.", |line| line.losses),
    ("hoopoe_site_owed", Kind::Gauge, "What the site has not committed yet.", |line| {
        line.owed.numbers
    }),
    ("hoopoe_site_owed_bytes", Kind::Gauge, "Bytes of its rows.", |line| line.owed.bytes),
    ("hoopoe_site_held", Kind::Gauge, "Sends that wait for the site's word.", |line| {
        line.owed.held
    }),
    ("hoopoe_site_sent_total", Kind::Counter, "Frames to the site.", |line| line.counts.sent),
    ("hoopoe_site_sent_bytes_total", Kind::Counter, "Their bytes.", |line| line.counts.sent_bytes),
    ("hoopoe_site_received_total", Kind::Counter, "Frames from the site.", |line| {
        line.counts.received
    }),
    ("hoopoe_site_received_bytes_total", Kind::Counter, "Their bytes.", |line| {
        line.counts.received_bytes
    }),
    ("hoopoe_site_dropped_total", Kind::Counter, "Frames left out under load.", |line| {
        line.counts.dropped
    }),
];

fn sites(out: &mut Exposition, instruments: &Instruments) {
    let lines = instruments.site_lines();
    if lines.is_empty() {
        return;
    }
    for (name, kind, help, count) in SITES {
        let mut family = out.family(name, kind, help);
        for (site, report) in &lines {
            family.sample(&[("site", site)], count(report));
        }
    }
    let help = "How long the oldest of what is owed has waited, at most.";
    let mut family = out.family("hoopoe_site_lag_seconds", Kind::Gauge, help);
    for (site, report) in &lines {
        family.sample(&[("site", site)], report.lag_ms as f64 / 1000.0);
    }
    let help = "When the line came to be what it is at.";
    let mut family = out.family("hoopoe_site_since_seconds", Kind::Gauge, help);
    for (site, report) in &lines {
        family.sample(&[("site", site)], report.since_ms as f64 / 1000.0);
    }
}

/// The names that Prometheus' own client libraries use, so that boards made for them fit.
fn process(out: &mut Exposition, instruments: &Instruments) {
    let process = Process::read();
    if let Some(secs) = process.cpu_secs {
        out.counter("process_cpu_seconds_total", "CPU time used, user and system.", secs);
    }
    if let Some(bytes) = process.resident_bytes {
        out.gauge("process_resident_memory_bytes", "Memory resident.", bytes);
    }
    if let Some(fds) = process.open_fds {
        out.gauge("process_open_fds", "File descriptors open.", fds);
    }
    if let Some(fds) = process.max_fds {
        out.gauge("process_max_fds", "File descriptors allowed.", fds);
    }
    let help = "When the broker started, in seconds since the epoch.";
    out.gauge("process_start_time_seconds", help, instruments.started_at_secs());
}

#[cfg(test)]
mod tests;
