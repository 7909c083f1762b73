//! What a link costs the broker that has it: CPU seconds of its process for QoS 1 messages that
//! clients publish, with the link and without, in turns; the brokers at both ends are real.
//!
//! `HOOPOE_BIN` names the program. It may be another build than this one, which only feeds it.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints and may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hoopoe_codec::{Connect, ConnectProperties, Packet, PacketId, PublishHead, QoS, Version};

/// Messages of one run.
const MESSAGES: u64 = 200_000;
/// Runs of each kind.
const RUNS: usize = 5;
/// Clients that publish them.
const CLIENTS: u64 = 4;
/// What each has unacknowledged, at most twice.
const BATCH: u16 = 200;
const PAYLOAD: [u8; 100] = [b'x'; 100];
/// PUBACK of 3.1.1.
const PUBACK_BYTES: usize = 4;
const TOKEN: &str = "a-token-of-the-measurement";

/// A program that ends with the measurement.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Started {
    /// User and system time of all its threads so far.
    fn cpu_secs(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let after_name = stat.rsplit(") ").next().unwrap();
        let ticks = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>());
        // Linux counts these in hundredths, whatever the kernel's own clock.
        ticks.map(Result::unwrap).sum::<f64>() / 100.0
    }
}

struct Hoopoe {
    process: Started,
    mqtt: SocketAddr,
    http: SocketAddr,
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("hoopoe-link-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn hoopoe(folder: &Path, links: &str) -> Hoopoe {
    let settings = folder.join("hoopoe.toml");
    let text = format!("[http]\nadmin_token = '{TOKEN}'\n{links}");
    std::fs::write(&settings, text).unwrap();
    let program = std::env::var_os("HOOPOE_BIN").expect("HOOPOE_BIN names the program");
    let mut command = Command::new(program);
    // It would take the variable for a setting.
    command.env_remove("HOOPOE_BIN");
    command.arg("serve").arg("--data").arg(folder.join("data")).arg("--config").arg(settings);
    command.args(["--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (mut mqtt, mut http) = (None, None);
    for line in lines.by_ref().take_while(|line| line != "ready") {
        let address = |name: &str| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok();
        mqtt = mqtt.or_else(|| address("listening on tcp://"));
        http = http.or_else(|| address("http on "));
    }
    thread::spawn(move || lines.for_each(drop));
    Hoopoe { process: Started(child), mqtt: mqtt.unwrap(), http: http.unwrap() }
}

fn mosquitto(folder: &Path) -> (Started, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = folder.join("mosquitto.conf");
    let text = format!(
        "allow_anonymous true\nlog_type none\nmax_inflight_messages 256\nlistener {} 127.0.0.1\n",
        free.port()
    );
    std::fs::write(&settings, text).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("mosquitto");
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin")).arg("-c").arg(settings);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Started(child);
    until("mosquitto listens", || TcpStream::connect(free).is_ok());
    (started, free)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(300), "{what}: not so in time");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What operators see of the only link.
fn report(near: &Hoopoe) -> String {
    let mut stream = TcpStream::connect(near.http).unwrap();
    let head = "POST /v1/admin/bridges/list HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let rest = "content-length: 2\r\ncontent-type: application/json\r\n\r\n{}";
    write!(stream, "{head}authorization: Bearer {TOKEN}\r\n{rest}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn number(report: &str, name: &str) -> u64 {
    let after = report.split(&format!("\"{name}\":")).nth(1).unwrap();
    after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Publishes so many messages, and returns when all are acknowledged.
fn publish(address: SocketAddr, topic: &str, messages: u64) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut out = Vec::new();
    let connect = Connect {
        version: Version::V311,
        bridge: false,
        clean_start: true,
        keep_alive_secs: 0,
        client_id: "",
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    };
    Packet::Connect(Box::new(connect)).encode(Version::V311, &mut out);
    stream.write_all(&out).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack[3], 0, "the broker refuses a client");
    let mut acknowledged = vec![0; PUBACK_BYTES * usize::from(BATCH)];
    for half in 0..messages / u64::from(BATCH) {
        // Two halves of the identifiers in turn: one is on its way while the other is acknowledged.
        let first = if half % 2 == 0 { 1 } else { 1 + BATCH };
        out.clear();
        for id in first..first + BATCH {
            let head = PublishHead {
                version: Version::V311,
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic,
                forwardable: &[],
                message_expiry_secs: None,
                topic_alias: None,
                subscription_ids: &[],
                payload_len: PAYLOAD.len(),
            };
            head.encode(PacketId::new(id), &mut out);
            out.extend_from_slice(&PAYLOAD);
        }
        stream.write_all(&out).unwrap();
        if half > 0 {
            stream.read_exact(&mut acknowledged).unwrap();
        }
    }
    stream.read_exact(&mut acknowledged).unwrap();
}

/// CPU seconds of the broker for one run.
fn run(near: &Hoopoe, topic: &str) -> f64 {
    let before = near.process.cpu_secs();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, topic) = (near.mqtt, topic.to_owned());
            thread::spawn(move || publish(address, &topic, MESSAGES / CLIENTS))
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    until("all has gone out", || number(&report(near), "queued") == 0);
    near.process.cpu_secs() - before
}

fn measure(name: &str, far: SocketAddr) {
    let folder = folder(name);
    let near = hoopoe(
        &folder,
        &format!(
            "[[bridge]]\nname = 'l'\nurl = 'mqtt://{far}'\nqueue_messages = 10000000\n\
             queue_bytes = 10000000000\nrule = [{{ pattern = 'linked/#', direction = 'out' }}]\n"
        ),
    );
    until("the link is connected", || report(&near).contains("\"connected\""));
    run(&near, "linked/x");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let sent = number(&report(&near), "sent");
    for _ in 0..RUNS {
        without.push(run(&near, "alone/x"));
        with.push(run(&near, "linked/x"));
    }
    let sent = number(&report(&near), "sent") - sent;
    assert_eq!(sent, MESSAGES * RUNS as u64, "each message once over the link");
    let median = |all: &mut Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2] / MESSAGES as f64 * 1e6
    };
    println!("{name}: CPU seconds with {with:.2?}, without {without:.2?}");
    let (with, without) = (median(&mut with), median(&mut without));
    let link = with - without;
    println!(
        "{name}: {with:.2} us a message with the link, {without:.2} without; the link {link:.2} us, \
         {:.0} messages per CPU second ({:.0} with all that the broker does for them)",
        1e6 / link,
        1e6 / with
    );
    drop(near);
    std::fs::remove_dir_all(folder).unwrap();
}

fn main() {
    let far_folder = folder("far");
    let far = hoopoe(&far_folder, "");
    measure("to-hoopoe", far.mqtt);
    drop(far);
    let (mosquitto, address) = mosquitto(&far_folder);
    measure("to-mosquitto", address);
    drop(mosquitto);
    std::fs::remove_dir_all(far_folder).unwrap();
}
