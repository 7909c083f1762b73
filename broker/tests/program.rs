//! The program as a person or a service manager meets it: what it prints at the start, what it
//! says when it cannot start, how it answers signals, and with which exit code it ends.
//!
//! Every test runs the built program in a folder of its own, on ports that the system picks, and
//! waits for lines and for the end of the process, each with a time limit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A line or an end that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// The program, without the environment's say in its settings.
fn hoopoe(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hoopoe"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOOPOE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder.path()).stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
fn run(folder: &TempDir, line: &str) -> Output {
    hoopoe(folder).args(line.split_whitespace()).output().unwrap()
}

/// Exit code, standard output, standard error.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// `serve` in its own folder, on ports that the system picks.
const SERVE: [&str; 5] = ["serve", "--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"];

/// A broker that runs; killed when dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Running { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that holds all of `words`.
    fn wait_for(&mut self, words: &[&str]) -> String {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if words.iter().all(|word| line.contains(word)) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {words:?}, but\n{}", self.seen.join("\n")),
            }
        }
    }

    /// The address after `listening on tcp://`, once the broker is ready.
    fn address(&mut self) -> String {
        while self.wait_for(&["ready"]) != "ready" {}
        let url = self.seen.iter().find_map(|line| line.strip_prefix("listening on tcp://"));
        url.expect("a line with the listener").to_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The exit of a broker that is on its way out; both streams end with it.
    fn ended(mut self) -> (ExitStatus, Vec<String>) {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => self.seen.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("{error}: still running\n{}", self.seen.join("\n")),
            }
        }
        (self.child.wait().unwrap(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects a client of MQTT 5.0 whose session ends with its connection.
fn connect(address: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(b"\x10\x0E\0\x04MQTT\x05\x02\0\0\0\0\x01c").unwrap();
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    let mut rest = vec![0; usize::from(head[1])];
    client.read_exact(&mut rest).unwrap();
    assert_eq!((head[0], rest[1]), (0x20, 0), "CONNACK {rest:?}");
    client
}

#[test]
fn the_start_says_where_how_and_what_next() {
    let folder = TempDir::new().unwrap();
    let mut command = hoopoe(&folder);
    let mut broker = Running::start({
        command.args(SERVE);
        command
    });
    let address = broker.address();
    let (host, port) = address.rsplit_once(':').unwrap();
    let lines: Vec<&str> = broker.seen.iter().map(String::as_str).collect();
    let expected = [
        concat!("hoopoe ", env!("CARGO_PKG_VERSION")).to_owned(),
        format!("listening on tcp://{address}"),
        "http on 127.0.0.1:".to_owned(),
        "storing in ./data, durability sync".to_owned(),
        "development mode on loopback".to_owned(),
        format!("try:  mosquitto_sub -h {host} -p {port} -t 'hello/#' -v"),
        format!("      mosquitto_pub -h {host} -p {port} -t hello/world -m"),
        "ready".to_owned(),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with(expected), "{line}\n  is not {expected}");
    }
    assert!(folder.path().join("data").is_dir());
}

#[test]
fn the_start_says_how_durable_and_how_open_it_is() {
    for (arguments, expected) in [
        ("--durability os", "durability os: survives a crash of the broker"),
        ("--durability memory", "storing nothing, durability memory"),
        ("--anonymous", "development mode on loopback"),
    ] {
        let folder = TempDir::new().unwrap();
        let mut command = hoopoe(&folder);
        command.args(SERVE).args(arguments.split_whitespace());
        Running::start(command).wait_for(&[expected]);
    }
}

#[test]
fn notes_about_doubtful_settings_are_logged_at_the_start() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("users"), "").unwrap();
    let mut command = hoopoe(&folder);
    command.args(SERVE).env("HOOPOE_ACCESS__USERS_FILE", "users");
    Running::start(command).wait_for(&["WARN", "whatever no rule allows is denied"]);
}

#[test]
fn a_stop_tells_clients_and_ends_with_0() {
    let folder = TempDir::new().unwrap();
    let mut command = hoopoe(&folder);
    command.args(SERVE);
    let mut broker = Running::start(command);
    let mut client = connect(&broker.address());
    broker.signal(Signal::TERM);
    let mut last = Vec::new();
    client.read_to_end(&mut last).unwrap();
    // DISCONNECT, server shutting down.
    assert_eq!((last[0], last[2]), (0xE0, 0x8B), "{last:02x?}");
    drop(client);
    let (status, seen) = broker.ended();
    assert_eq!(status.code(), Some(0), "{}", seen.join("\n"));
    assert!(seen.iter().any(|line| line.contains("stopped")), "{seen:#?}");
}

#[test]
fn an_interrupt_stops_as_well() {
    let folder = TempDir::new().unwrap();
    let mut command = hoopoe(&folder);
    command.args(SERVE);
    let mut broker = Running::start(command);
    broker.address();
    broker.signal(Signal::INT);
    assert_eq!(broker.ended().0.code(), Some(0));
}

#[test]
fn a_reload_names_what_it_took_up_and_what_waits_for_a_restart() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("hoopoe.toml");
    let listener = "[[listener]]\nurl = 'tcp://127.0.0.1:0'\n";
    fs::write(&file, listener).unwrap();
    let mut command = hoopoe(&folder);
    command.args(["serve", "--config", "hoopoe.toml", "--http", "off"]);
    let mut broker = Running::start(command);
    let address = broker.address();

    let changed = format!(
        "[mqtt]\nmax_qos = 1\nmax_retained = 5\n[log]\nlevel = 'debug'\n\
         {listener}max_connections = 7\nanonymous = false\n"
    );
    fs::write(&file, changed).unwrap();
    broker.signal(Signal::HUP);
    let took = broker.wait_for(&["INFO", "reloaded"]);
    for key in ["log.level", "mqtt.max_qos", "listener.anonymous of tcp://127.0.0.1:0"] {
        assert!(took.contains(key), "{key} is not in {took}");
    }
    let waits = broker.wait_for(&["WARN", "restart"]);
    for key in ["mqtt.max_retained", "listener.max_connections of tcp://127.0.0.1:0"] {
        assert!(waits.contains(key) && !took.contains(key), "{key} is not in {waits}");
    }
    // The door has closed, and the log tells more than before.
    let mut client = TcpStream::connect(&address).unwrap();
    client.write_all(b"\x10\x0E\0\x04MQTT\x05\x02\0\0\0\0\x01c").unwrap();
    broker.wait_for(&["DEBUG", "connect refused"]);

    // What is wrong leaves everything as it was.
    fs::write(&file, "[mqtt]\nmax_qos = 3\n").unwrap();
    broker.signal(Signal::HUP);
    broker.wait_for(&["ERROR", "not reloaded", "hoopoe.toml:2:1: mqtt.max_qos"]);
    broker.signal(Signal::TERM);
    assert_eq!(broker.ended().0.code(), Some(0));
}

#[test]
fn a_reload_of_what_has_not_changed_warns_of_nothing() {
    let folder = TempDir::new().unwrap();
    let mut command = hoopoe(&folder);
    command.args(SERVE);
    let mut broker = Running::start(command);
    broker.address();
    broker.signal(Signal::HUP);
    broker.wait_for(&["INFO", "reloaded"]);
    broker.signal(Signal::TERM);
    let (status, seen) = broker.ended();
    assert_eq!(status.code(), Some(0));
    let warned = seen.iter().find(|line| line.contains("restart"));
    assert_eq!(warned, None, "the id drawn at the start is no change");
}

/// The reason `serve` gives when it cannot start, behind what it may have logged before.
fn refused(folder: &TempDir, line: &str) -> String {
    let (code, said, error) = told(&run(folder, line));
    assert_eq!((code, said.as_str()), (Some(1), ""), "{line}: {error}");
    let reason = error.find("hoopoe: ").expect("a reason");
    error[reason..].to_owned()
}

#[test]
fn what_keeps_a_broker_from_starting_is_named() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write("cert.pem", &certified.cert.pem());
    write("other.key", &other.signing_key.serialize_pem());
    write("a_file", "");
    write("users", "alice\n");
    write("unknown.toml", "[mqtt]\n\nmax_pakcet_bytes = 1\n");
    write("type.toml", "[queue]\nmax_messages = 'many'\n");
    write("range.toml", "[broker]\nshards = 257\n");
    let tls = "[[listener]]\nurl = 'tls://127.0.0.1:0'\ntls = { cert = 'cert.pem', key = ";
    write("no_key.toml", &format!("{tls}'none.key' }}\n"));
    write("other_key.toml", &format!("{tls}'other.key' }}\n"));
    write("users.toml", "[access]\nusers_file = 'users'\n");
    let port_taken = format!("--listen tcp://127.0.0.1:{port} --http off");
    let http_taken = format!("--listen tcp://127.0.0.1:0 --http 127.0.0.1:{port}");
    let in_use = format!("hoopoe: cannot listen on 127.0.0.1:{port}: the port is taken");
    let cases: [(&str, &[&str]); 12] = [
        (&port_taken, &[&in_use]),
        (&http_taken, &[&in_use]),
        ("--data a_file/data", &["hoopoe: data folder a_file/data cannot be written: Not a dir"]),
        ("--config none.toml", &["hoopoe: none.toml: cannot read the settings: No such file"]),
        ("--config unknown.toml", &["hoopoe: unknown.toml:3:1: mqtt.max_pakcet_bytes: unknown"]),
        ("--config type.toml", &["hoopoe: type.toml:2:16: queue.max_messages: invalid type"]),
        ("--config range.toml", &["hoopoe: range.toml:2:1: broker.shards: 257 is out of range"]),
        ("--config no_key.toml", &["hoopoe: listener tls://127.0.0.1:0: ", "none.key"]),
        ("--config other_key.toml", &["hoopoe: listener tls://127.0.0.1:0: ", "other.key"]),
        ("--config users.toml", &["hoopoe: ", "users:1: expected user:hash"]),
        ("--listen tcp://0.0.0.0:0", &["hoopoe: flag --listen: listener[0].url: ", "--anonymous"]),
        ("--listen tcp://192.0.2.1:0", &["hoopoe: flag --listen: ", "no users are configured"]),
    ];
    for (arguments, expected) in cases {
        let error = refused(&folder, &format!("serve {arguments}"));
        assert!(error.starts_with(expected[0]), "{arguments}\n  said {error}");
        for word in expected {
            assert!(error.contains(word), "{arguments}\n  said {error}\n  not {word}");
        }
    }
}

#[test]
fn a_data_folder_belongs_to_one_broker() {
    let folder = TempDir::new().unwrap();
    let mut command = hoopoe(&folder);
    command.args(SERVE);
    let mut broker = Running::start(command);
    broker.address();
    let error = refused(&folder, &SERVE.join(" "));
    assert_eq!(error, "hoopoe: data folder ./data is in use by another process\n");
}

#[test]
fn a_data_folder_keeps_its_number_of_shards() {
    let folder = TempDir::new().unwrap();
    let mut command = hoopoe(&folder);
    command.args(SERVE).args(["--shards", "2"]);
    let mut broker = Running::start(command);
    broker.address();
    broker.signal(Signal::TERM);
    assert_eq!(broker.ended().0.code(), Some(0));
    let error = refused(&folder, &format!("{} --shards 3", SERVE.join(" ")));
    assert!(error.contains("written with 2 shards, not 3"), "{error}");
    // Asked for none, it has those it has, whatever a new folder would get here.
    let mut command = hoopoe(&folder);
    command.args(SERVE).env("HOOPOE_BROKER__SHARDS", "0");
    let mut broker = Running::start(command);
    broker.address();
    broker.signal(Signal::TERM);
    assert_eq!(broker.ended().0.code(), Some(0));
    let error = refused(&folder, &format!("{} --shards 1", SERVE.join(" ")));
    assert!(error.contains("written with 2 shards, not 1"), "{error}");
}

#[test]
fn check_says_what_is_wrong_and_ends_with_1() {
    let folder = TempDir::new().unwrap();
    let text = "[mqtt]\nmax_qos = 3\n[limits]\nburst_secs = 0\n";
    fs::write(folder.path().join("hoopoe.toml"), text).unwrap();
    let (code, said, error) = told(&run(&folder, "check --config hoopoe.toml"));
    assert_eq!((code, error.as_str()), (Some(1), ""));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    for (key, expected) in [("limits", "hoopoe.toml:4:1: limits.burst_secs: 0 is out of range")]
        .into_iter()
        .chain([("mqtt", "hoopoe.toml:2:1: mqtt.max_qos: 3 is no QoS")])
    {
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{key}: {said}");
    }
    let (code, said, _) = told(&run(&folder, "check"));
    assert_eq!(code, Some(0));
    assert!(said.contains("no mistakes found"), "{said}");
    assert!(!folder.path().join("data").exists(), "a check writes nothing");
}

#[test]
fn config_prints_what_is_in_effect() {
    let folder = TempDir::new().unwrap();
    let output =
        hoopoe(&folder).args(["config"]).env("HOOPOE_MQTT__MAX_QOS", "1").output().unwrap();
    let (code, said, _) = told(&output);
    assert_eq!(code, Some(0));
    assert!(said.contains("\nmax_qos = 1\n"), "{said}");
    // What it printed is a settings file that gives the same.
    fs::write(folder.path().join("printed.toml"), &said).unwrap();
    let (code, again, _) = told(&run(&folder, "config --config printed.toml"));
    assert_eq!(code, Some(0));
    let settings = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(settings(&again), settings(&said));
}

#[test]
fn passwd_keeps_a_users_file() {
    let folder = TempDir::new().unwrap();
    let passwd = |arguments: &str, password: &str| {
        let mut command = hoopoe(&folder);
        command.args(["passwd", "users"]).args(arguments.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A user that is not there is told before the password is read.
        let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
        told(&child.wait_with_output().unwrap())
    };
    let done = |said: &str| (Some(0), format!("users: {said}\n"), String::new());
    assert_eq!(passwd("alice --stdin", "secret\n"), done("added alice"));
    assert_eq!(passwd("alice --stdin", "better\n"), done("changed the password of alice"));
    let file = fs::read_to_string(folder.path().join("users")).unwrap();
    assert!(file.starts_with("alice:$argon2id$") && !file.contains("better"), "{file}");
    assert_eq!(passwd("alice --delete", ""), done("removed alice"));
    for (arguments, password, expected) in [
        ("alice --delete", "", "hoopoe: users: there is no user `alice`"),
        ("bob --stdin", "\n", "hoopoe: the password is empty"),
        ("a:b --stdin", "x\n", "hoopoe: `a:b` cannot be a user"),
    ] {
        let (code, said, error) = passwd(arguments, password);
        assert_eq!((code, said.as_str()), (Some(1), ""), "{arguments}");
        assert!(error.starts_with(expected), "{arguments}\n  said {error}");
    }
}

#[test]
fn the_command_line_explains_itself() {
    let folder = TempDir::new().unwrap();
    for (line, code, expected) in [
        ("--version", 0, concat!("hoopoe ", env!("CARGO_PKG_VERSION"))),
        ("--help", 0, "Examples:"),
        ("completions bash", 0, "--durability"),
        ("serve --durability disk", 2, "sync, os, memory"),
        ("serve --listen 127.0.0.1:1883", 2, "names no transport"),
    ] {
        let (ended, said, error) = told(&run(&folder, line));
        assert_eq!(ended, Some(code), "{line}: {said}{error}");
        assert!(said.contains(expected) || error.contains(expected), "{line}: {said}{error}");
    }
}

/// Whoever clones the project tries this first: the manual as a settings file.
#[test]
fn the_manual_is_a_settings_file() {
    let folder = TempDir::new().unwrap();
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/hoopoe.toml");
    let output = hoopoe(&folder).arg("check").arg("--config").arg(manual).output().unwrap();
    let (code, said, error) = told(&output);
    assert_eq!(code, Some(0), "{said}{error}");
}
