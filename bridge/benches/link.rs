//! How many QoS 1 messages one link carries per CPU second of its own thread.
//!
//! The link runs as it does in a broker, with its task, its two connections (a socket pair and TCP)
//! and the step between. The brokers at its ends are two threads that only count: one sends
//! publications as the window allows, the other acknowledges them.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints and may panic")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use hoopoe_bridge::{
    AnyWire, Direction, LinkParts, LinkSettings, LocalEnd, Rule, Start, Status, run,
};
use hoopoe_codec::{
    Ack, AckKind, ConnAck, ConnAckProperties, Packet, PacketId, PublishHead, QoS, ReasonCode,
    Receiver, SubAck, Version, decode, frame_length,
};
use parking_lot::Mutex;

/// Messages carried in one measurement.
const MESSAGES: u64 = 1_000_000;
/// Messages on their way at a time.
const WINDOW: usize = 256;
const PAYLOAD: [u8; 100] = [b'x'; 100];

/// A broker's thread: reads packets, answers CONNECT and SUBSCRIBE, and does what it is there for.
fn broker<S: Read + Write>(mut stream: S, mut each: impl FnMut(&Packet<'_>, &mut Vec<u8>) -> bool) {
    let (mut buffer, mut out) = (Vec::new(), Vec::new());
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = stream.read(&mut chunk) else { return };
        buffer.extend_from_slice(&chunk[..count]);
        let mut used = 0;
        while let Some(length) = frame_length(&buffer[used..], 1 << 20).unwrap()
            && used + length <= buffer.len()
        {
            let packet = decode(Version::V5, Receiver::Server, &buffer[used..used + length]);
            let packet = packet.unwrap();
            match &packet {
                Packet::Connect(_) => {
                    let properties = ConnAckProperties::default();
                    let code = ReasonCode::Success;
                    let connack = ConnAck { session_present: true, code, properties };
                    connack.encode(Version::V5, &mut out);
                }
                Packet::Subscribe(subscribe) => {
                    let codes = [ReasonCode::GrantedQoS1].into_iter().collect();
                    let properties = hoopoe_codec::AckProperties::NONE;
                    let suback = SubAck { id: subscribe.id, codes, properties };
                    suback.encode(Version::V5, &mut out);
                }
                _ => {}
            }
            let goes_on = each(&packet, &mut out);
            used += length;
            if !goes_on {
                return;
            }
        }
        buffer.drain(..used);
        if !out.is_empty() {
            if stream.write_all(&out).is_err() {
                return;
            }
            out.clear();
        }
    }
}

/// The local end: its second connection sends, the first one only makes the session.
struct Local {
    opened: Mutex<u32>,
    done: Sender<()>,
}

impl LocalEnd for Local {
    fn open(&self) -> std::io::Result<AnyWire> {
        let (theirs, ours) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut opened = self.opened.lock();
        *opened += 1;
        let (sends, done) = (*opened > 1, self.done.clone());
        std::thread::spawn(move || source(theirs, sends, &done));
        Ok(AnyWire::new(tokio::net::UnixStream::from_std(ours)?))
    }

    fn queued(&self) -> u64 {
        0
    }
}

fn source(stream: UnixStream, sends: bool, done: &Sender<()>) {
    let (mut next, mut acknowledged) = (0u64, 0u64);
    let mut publish = move |out: &mut Vec<u8>| {
        let head = PublishHead {
            version: Version::V5,
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "sensors/hall/7/temperature",
            forwardable: &[],
            message_expiry_secs: None,
            topic_alias: None,
            subscription_ids: &[],
            payload_len: PAYLOAD.len(),
        };
        head.encode(PacketId::new((next % WINDOW as u64) as u16 + 1), out);
        out.extend_from_slice(&PAYLOAD);
        next += 1;
    };
    broker(stream, |packet, out| {
        match packet {
            Packet::Connect(_) if sends => (0..WINDOW).for_each(|_| publish(out)),
            Packet::PubAck(_) => {
                acknowledged += 1;
                publish(out);
                if acknowledged == MESSAGES {
                    let _ = done.send(());
                }
            }
            Packet::Disconnect(_) => return false,
            _ => {}
        }
        true
    });
}

fn sink(listener: &TcpListener) {
    let (stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    broker(stream, |packet, out| {
        if let Packet::Publish(publish) = packet
            && let Some(id) = publish.id
        {
            Ack::success(id).encode(AckKind::PubAck, Version::V5, out);
        }
        true
    });
}

/// CPU seconds of this thread, user and system.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15, in hundredths of a second; the second field ended with the parenthesis.
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn settings(port: u16) -> LinkSettings {
    LinkSettings {
        name: "measured".to_owned(),
        url: format!("mqtt://127.0.0.1:{port}").parse().unwrap(),
        version: Version::V5,
        client_id: "measured".to_owned(),
        username: None,
        password: None,
        tls: None,
        keep_alive_secs: 60,
        clean: false,
        session_expiry_secs: 60,
        start: Start::Automatic,
        idle_timeout: Duration::from_secs(60),
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(1),
        max_inflight: WINDOW as u16,
        receive_maximum: 256,
        rate_per_sec: 0,
        retained: true,
        bridge_bit: false,
        hop_prefix: None,
        max_hops: 8,
        broker_id: "here".to_owned(),
        max_packet_bytes: 1 << 20,
        rules: vec![Rule {
            pattern: "sensors/#".to_owned(),
            direction: Direction::Out,
            qos: QoS::AtLeastOnce,
            local_prefix: String::new(),
            remote_prefix: "paris/".to_owned(),
        }],
    }
}

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = settings(listener.local_addr().unwrap().port());
    std::thread::spawn(move || sink(&listener));
    let (done, all_done) = channel();
    let link = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_orders, hears) = tokio::sync::mpsc::channel(1);
        let (prepared, _) = tokio::sync::oneshot::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            all_done.recv().unwrap();
            let _ = stop.send(());
        });
        let parts = LinkParts {
            settings,
            local: Arc::new(Local { opened: Mutex::new(0), done }),
            known_filters: Vec::new(),
            status: Arc::new(Status::default()),
            orders: hears,
            prepared,
        };
        runtime.block_on(async {
            tokio::select! {
                () = run(parts) => {}
                _ = stopped => {}
            }
        });
        cpu_secs()
    });
    let secs = link.join().unwrap();
    println!(
        "{MESSAGES} QoS 1 messages of {} bytes: {secs:.2} CPU seconds of the link, {:.0} per second",
        PAYLOAD.len(),
        MESSAGES as f64 / secs
    );
}
