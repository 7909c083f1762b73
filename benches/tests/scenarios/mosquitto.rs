//! Against Debian's mosquitto, which `make packages` installs, and against the relay.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::program::{SMALL, call, path, play};
use super::table::{Needs, ROWS};

/// A mosquitto of one test.
struct Mosquitto {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

/// A port below those that the system hands out by itself, so that nobody comes by it by chance
/// between this look and mosquitto's start.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + ((std::process::id() * 37 + step) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Mosquitto {
    fn start(extra: impl Fn(&Path) -> String) -> Mosquitto {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n\
             max_queued_messages 0\n{}",
            extra(dir.path())
        );
        fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        let search = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let child = Command::new("mosquitto")
            .env("PATH", search)
            .arg("-c")
            .arg(dir.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is needed for these tests: apt-get install mosquitto");
        let broker = Mosquitto { child, port, dir };
        await_port(port);
        broker
    }
}

fn await_port(port: u16) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing listens on {port}");
        std::thread::yield_now();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(|_| ()).unwrap_or_default();
    }
}

#[test]
fn every_scenario_passes_in_both_versions() {
    let broker = Mosquitto::start(|_| String::new());
    for version in ["3.1.1", "5.0"] {
        for row in ROWS.iter().filter(|row| row.needs == Needs::Mqtt) {
            let scenario = row.words();
            let outcome = play(broker.port, &format!("{scenario} --mqtt {version}"));
            assert_eq!(outcome.code, 0, "{scenario} {version}\n{}", outcome.text);
            assert!(outcome.reports[0]["work"].as_u64() > Some(0), "{}", outcome.text);
        }
    }
}

#[test]
fn cost_is_charged_to_the_brokers_process() {
    let broker = Mosquitto::start(|_| String::new());
    let pid = broker.child.id();
    let words = format!("pairs1 --pairs 20 --duration 1 --broker-pid {pid}");
    let outcome = play(broker.port, &words);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let cost = &outcome.reports[0]["cost"];
    let cpu = cost["user_secs"].as_f64().unwrap() + cost["system_secs"].as_f64().unwrap();
    assert!(cpu > 0.0, "{cost}");
    assert!(cost["peak_rss_bytes"].as_u64() > Some(1_000_000), "{cost}");
    assert!(outcome.reports[0]["generator"]["cpu_secs"].as_f64() > Some(0.0));
}

#[test]
fn threads_and_source_addresses_share_the_work() {
    let broker = Mosquitto::start(|_| String::new());
    let words = "--duration 0.3 --threads 2 --bind 127.0.0.2,127.0.0.3";
    for scenario in ["pairs1 --pairs 5", "group200 --groups 4 --members 8 --memberships 2"] {
        let outcome = play(broker.port, &format!("{scenario} {words}"));
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        assert_eq!(outcome.reports[0]["generator"]["threads"], 2);
    }
}

#[test]
fn tls_and_websocket_carry_the_same_scenarios() {
    let (tls, ws, wss) = (free_port(), free_port(), free_port());
    let broker = Mosquitto::start(|dir| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let d = dir.display();
        let files = format!("certfile {d}/cert.pem\nkeyfile {d}/key.pem\n");
        format!(
            "listener {tls} 127.0.0.1\n{files}listener {ws} 127.0.0.1\nprotocol websockets\n\
             listener {wss} 127.0.0.1\nprotocol websockets\n{files}user root\n"
        )
    });
    let ca = broker.dir.path().join("cert.pem").display().to_string();
    let trusting = format!("--tls --ca {ca} --server-name localhost");
    for (port, wire) in [
        (tls, trusting.clone()),
        (tls, "--tls --insecure".to_owned()),
        (ws, "--ws".to_owned()),
        (wss, format!("--ws {trusting}")),
    ] {
        await_port(port);
        for scenario in ["pairs1 --pairs 5 --duration 0.3", "room5000 --clients 20 --duration 0.3"]
        {
            let outcome = play(port, &format!("{scenario} {wire} --size 3000"));
            assert_eq!(outcome.code, 0, "{scenario} {wire}\n{}", outcome.text);
        }
    }
    let outcome = play(tls, &format!("pairs1 --tls --ca {ca} --server-name other.example"));
    assert_eq!(outcome.code, 1, "{}", outcome.text);
    assert!(outcome.text.contains("TLS"), "{}", outcome.text);
}

#[test]
fn brokers_are_held_side_by_side_and_the_relay_is_quickest() {
    let page = tempfile::tempdir().unwrap();
    let html = page.path().join("page.html").display().to_string();
    let words = format!("versus pairs1 --pairs 20 --duration 0.5 --rounds 2 {SMALL} --html {html}");
    let outcome = call(&words, &["--with", "mosquitto", "--with", "relay"]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let order: Vec<&str> = outcome.reports.iter().map(|r| r["broker"].as_str().unwrap()).collect();
    assert_eq!(order, ["mosquitto", "relay", "mosquitto", "relay"]);
    assert!(outcome.text.contains("relay : mosquitto"), "{}", outcome.text);
    assert!(fs::read_to_string(html).unwrap().contains("<svg"));
}

#[test]
fn a_crash_shows_what_a_broker_without_persistence_loses() {
    let words = format!("versus crash --clients 10 --messages 5 --rounds 1 {SMALL}");
    let volatile = "volatile=printf 'listener {port}\\nallow_anonymous true\\n' > {dir}/m.conf
        PATH=$PATH:/usr/sbin exec mosquitto -c {dir}/m.conf";
    let outcome = call(&words, &["--with", volatile]);
    assert_eq!(outcome.code, 3, "{}", outcome.text);
    assert_eq!(outcome.check("lost"), 50, "{}", outcome.text);
}

#[test]
fn result_files_can_be_compared() {
    let broker = Mosquitto::start(|_| String::new());
    let dir = tempfile::tempdir().unwrap();
    let files = ["a.json", "b.json"].map(|name| dir.path().join(name));
    for file in &files {
        let status = Command::new(path())
            .args(["run", "pairs1", "--pairs", "3", "--duration", "0.2", "--quiet"])
            .args(["--port", &broker.port.to_string(), "--json"])
            .arg(file)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }
    let output = Command::new(path()).arg("--compare").args(&files).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("B : A"), "{text}");
}

#[test]
fn a_scenario_file_composes_scenarios() {
    let broker = Mosquitto::start(|_| String::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("evening.toml");
    let text = "[[scenario]]\npreset = 'pairs1'\nname = 'quiet hour'\npairs = 2\nduration = 0.2\n\
                [[scenario]]\npreset = 'storm'\nclients = 20\n";
    fs::write(&file, text).unwrap();
    let outcome = play(broker.port, &file.display().to_string());
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert_eq!(outcome.reports[0]["shape"]["name"], "quiet hour");
    assert_eq!(outcome.reports[1]["work"], 20);
}
