//! Starts, stops, kills and restarts the program under test.
//!
//! Ports are picked by the system and read from what the program prints at start: one line
//! `listening on <url>` for each listener, `http on <address>`, and `ready` when all are open. What
//! it prints is kept and shown when a test fails.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::client::RawClient;
use crate::connect::Connect;
use crate::wire::Version;
use crate::{DEADLINE, program, reaper, unique_id};

/// Lines of output kept for the report of a failure.
const LOG_LINES: usize = 200;
/// Lines of output shown when a test fails.
const LOG_LINES_SHOWN: usize = 40;

/// A broker process with a data folder that outlives it.
pub struct Broker {
    options: Options,
    running: Option<Running>,
}

/// How to start a broker.
#[derive(Clone, Debug)]
pub struct Options {
    folder: PathBuf,
    subcommand: &'static str,
    listeners: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Words before the program's name.
    wrapper: Vec<String>,
}

struct Running {
    /// `None` for a broker somebody else runs.
    child: Option<Child>,
    log: Arc<Log>,
    listeners: Vec<(String, SocketAddr)>,
    http: Option<SocketAddr>,
}

impl Options {
    /// A broker with a new data folder, a TCP listener and an HTTP listener.
    pub fn new() -> Options {
        Options {
            folder: reaper::temporary_folder("broker"),
            subcommand: "serve",
            listeners: vec!["tcp://127.0.0.1:0".to_owned()],
            arguments: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// Started by another program, which must become the broker (`exec`).
    pub fn wrapped(mut self, words: &[String]) -> Options {
        self.wrapper = words.to_vec();
        self
    }

    /// With one more listener.
    pub fn listener(mut self, url: &str) -> Options {
        self.listeners.push(url.to_owned());
        self
    }

    /// Without the TCP listener that is there by default.
    pub fn no_listeners(mut self) -> Options {
        self.listeners.clear();
        self
    }

    /// Listening at this address alone, again after each restart (see
    /// [`unique_address`](crate::unique_address)).
    pub fn at(self, address: SocketAddr) -> Options {
        self.no_listeners().listener(&format!("tcp://{address}"))
    }

    /// A node of links alone, which has no listeners.
    pub fn bridge(mut self) -> Options {
        self.subcommand = "bridge";
        self.no_listeners()
    }

    /// With one more command-line argument.
    pub fn argument(mut self, argument: impl Into<String>) -> Options {
        self.arguments.push(argument.into());
        self
    }

    /// With an environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Options {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a configuration file of this text, written beside the data folder.
    pub fn configuration(self, text: &str) -> Options {
        let file = self.folder.join("hoopoe.toml");
        std::fs::write(&file, text).expect("the configuration file can be written");
        self.argument("--config").argument(file.display().to_string())
    }

    /// The folder that holds the data folder and whatever files a test adds.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts the broker and waits until it is ready.
    pub fn start(self) -> Broker {
        let running = Running::start(&self);
        Broker { options: self, running: Some(running) }
    }

    /// Runs the program without waiting for it to be ready: for starts that must fail.
    pub fn run_to_end(&self) -> (ExitStatus, String) {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        program::run_to_end(command)
    }

    fn command(&self) -> Command {
        let mut command = program::wrapped_hoopoe_command(&self.wrapper);
        command.arg(self.subcommand).arg("--data").arg(self.folder.join("data"));
        for url in &self.listeners {
            command.arg("--listen").arg(url);
        }
        command.args(["--http", "127.0.0.1:0"]).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Running {
    /// Starts and waits until it is ready.
    fn start(options: &Options) -> Running {
        let mut running = Running::spawn(options);
        (running.listeners, running.http) = running.log.wait_until_ready();
        running
    }

    fn spawn(options: &Options) -> Running {
        let mut command = options.command();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        reaper::watch(child.id());
        let log = Log::new();
        log.follow(child.stdout.take().expect("standard output is piped"));
        log.follow(child.stderr.take().expect("standard error is piped"));
        Running { child: Some(child), log, listeners: Vec::new(), http: None }
    }

    /// Sends a signal and waits for the end of the process.
    fn end(mut self, signal: &str) -> ExitStatus {
        let mut child = self.child.take().expect("only a broker of our own is stopped");
        signal_process(child.id(), signal);
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("the child can be waited for") {
                reaper::forget(child.id());
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "the broker did not end on SIG{signal}");
            self.log.wait_for_more();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            reaper::forget(child.id());
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Broker {
    /// A broker with default options.
    pub fn start() -> Broker {
        Options::new().start()
    }

    /// A broker that is already running, to compare another implementation with the list.
    fn external(tcp: SocketAddr, websocket: Option<SocketAddr>) -> Broker {
        let mut listeners = vec![("tcp".to_owned(), tcp)];
        listeners.extend(websocket.map(|address| ("ws".to_owned(), address)));
        let running = Running { child: None, log: Log::new(), listeners, http: None };
        let options = Options {
            folder: PathBuf::new(),
            subcommand: "serve",
            listeners: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
        };
        Broker { options, running: Some(running) }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the broker is running")
    }

    /// The address of the first listener with this URL scheme.
    pub fn address(&self, scheme: &str) -> SocketAddr {
        let listeners = &self.running().listeners;
        let found = listeners.iter().find(|(name, _)| name == scheme);
        found.unwrap_or_else(|| panic!("no {scheme} listener in {listeners:?}")).1
    }

    /// The address of the TCP listener.
    pub fn tcp(&self) -> SocketAddr {
        self.address("tcp")
    }

    /// The address of the HTTP listener.
    pub fn http(&self) -> SocketAddr {
        self.running().http.expect("the broker said where its HTTP listener is")
    }

    /// The process number.
    pub fn pid(&self) -> u32 {
        self.running().child.as_ref().expect("a broker of our own").id()
    }

    /// The folder that holds the data folder and whatever files a test adds.
    pub fn folder(&self) -> &Path {
        &self.options.folder
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.options.data()
    }

    /// The words before the program's name.
    pub fn wrapper(&self) -> &[String] {
        &self.options.wrapper
    }

    /// Starts on the data folder again, which must fail; returns what was said.
    pub fn refuses_to_start(&self) -> String {
        assert!(self.running.is_none(), "the broker is running");
        let (status, said) = self.options.run_to_end();
        assert!(!status.success(), "it started:\n{said}");
        said
    }

    /// A connection on which nothing has been sent.
    pub fn open(&self, version: Version) -> RawClient {
        RawClient::open(self.tcp(), version)
    }

    /// A connection with this CONNECT accepted.
    pub fn connect(&self, connect: &Connect) -> RawClient {
        RawClient::connect(self.tcp(), connect)
    }

    /// A new client with a clean session and an identifier of its own.
    pub fn client(&self, version: Version) -> RawClient {
        self.connect(&Connect::new(version, &unique_id("c")))
    }

    /// A new 3.1.1 client with a clean session.
    pub fn v311(&self) -> RawClient {
        self.client(Version::V311)
    }

    /// A new 5.0 client with a clean session.
    pub fn v5(&self) -> RawClient {
        self.client(Version::V5)
    }

    /// Sends a signal, e.g. `HUP`.
    pub fn signal(&self, signal: &str) {
        signal_process(self.pid(), signal);
    }

    /// Stops with SIGTERM and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.running.take().expect("the broker is running").end("TERM")
    }

    /// Stops with SIGTERM; returns the last lines that were printed, to the end.
    pub fn stop_and_read_log(&mut self) -> String {
        let log = Arc::clone(&self.running().log);
        self.stop();
        while log.lock().streams_open > 0 {
            log.wait_for_more();
        }
        let lines: Vec<String> = log.lock().lines.iter().cloned().collect();
        lines.join("\n")
    }

    /// Ends the process with SIGKILL, at this very moment.
    pub fn kill(&mut self) {
        drop(self.running.take().expect("the broker is running"));
    }

    /// Starts on the same data folder, and ends the process with SIGKILL when it is ready, or after
    /// so long if it is not ready then.
    pub fn start_and_kill(&mut self, after: Duration) {
        assert!(self.running.is_none(), "the broker is running");
        let running = Running::spawn(&self.options);
        running.log.wait_for_ready(after);
        drop(running);
    }

    /// Starts again on the same data folder; ports are new, but where the test has named them
    /// ([`Options::at`]).
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "the broker is running");
        self.running = Some(Running::start(&self.options));
    }

    /// Stops with SIGTERM and starts again on the same data folder.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Kills and starts again on the same data folder.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Whether a line of the output so far contains `text`.
    pub fn has_logged(&self, text: &str) -> bool {
        self.running().log.lock().lines.iter().any(|line| line.contains(text))
    }

    /// The last lines of the output so far.
    pub fn log_end(&self, lines: usize) -> String {
        let log = self.running().log.lock();
        let first = log.lines.len().saturating_sub(lines);
        let end: Vec<&str> = log.lines.iter().skip(first).map(String::as_str).collect();
        end.join("\n")
    }

    /// Waits until a line of the output contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        let started = Instant::now();
        while !self.has_logged(text) {
            assert!(started.elapsed() < DEADLINE, "{text:?} was never logged");
            self.running().log.wait_for_more();
        }
    }
}

/// The broker all tests of one test program share. It listens on TCP and WebSocket.
///
/// With `HOOPOE_TESTS_ADDRESS` (and `HOOPOE_TESTS_WS_ADDRESS`) the tests run against a broker
/// that is already there, to compare another implementation with the list.
pub fn shared_broker() -> &'static Broker {
    static SHARED: LazyLock<Broker> = LazyLock::new(|| {
        let address = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
        };
        match address("HOOPOE_TESTS_ADDRESS") {
            Some(tcp) => Broker::external(tcp, address("HOOPOE_TESTS_WS_ADDRESS")),
            None => Options::new().listener("ws://127.0.0.1:0/mqtt").start(),
        }
    });
    &SHARED
}

/// Sends a signal to a process of this test.
pub fn signal_process(pid: u32, signal: &str) {
    let status = Command::new("sh")
        .args(["-c", r#"kill -s "$0" "$1""#, signal, &pid.to_string()])
        .status()
        .expect("sh starts");
    assert!(status.success(), "kill -s {signal} {pid}");
}

/// What one process has printed.
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: VecDeque<String>,
    listeners: Vec<(String, SocketAddr)>,
    http: Option<SocketAddr>,
    ready: bool,
    streams_open: usize,
}

impl Log {
    fn new() -> Arc<Log> {
        let log = Arc::new(Log { state: Mutex::default(), changed: Condvar::new() });
        show_on_panic(&log);
        log
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a stream to its end on a thread of its own.
    fn follow(self: &Arc<Log>, stream: impl Read + Send + 'static) {
        self.lock().streams_open += 1;
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                log.lock().add(&String::from_utf8_lossy(&line));
                log.changed.notify_all();
            }
            log.lock().streams_open -= 1;
            log.changed.notify_all();
        });
    }

    fn wait_until_ready(&self) -> (Vec<(String, SocketAddr)>, Option<SocketAddr>) {
        let started = Instant::now();
        let mut state = self.lock();
        while !state.ready {
            let ended = state.streams_open == 0;
            let late = started.elapsed() >= DEADLINE;
            if ended || late {
                let lines: Vec<&str> = state.lines.iter().map(String::as_str).collect();
                let what = if ended { "ended at once" } else { "was not ready in time" };
                panic!("the broker {what}; it said:\n{}", lines.join("\n"));
            }
            let waited = self.changed.wait_timeout(state, DEADLINE / 20);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        (state.listeners.clone(), state.http)
    }

    /// Waits for `ready`, but no longer than that.
    fn wait_for_ready(&self, at_most: Duration) {
        drop(self.changed.wait_timeout_while(self.lock(), at_most, |state| !state.ready));
    }

    /// Waits until more has been printed, a stream has ended, or a short while has passed.
    fn wait_for_more(&self) {
        let state = self.lock();
        drop(self.changed.wait_timeout(state, DEADLINE / 1000));
    }
}

impl LogState {
    fn add(&mut self, line: &str) {
        if self.lines.len() == LOG_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
        if let Some((scheme, address)) = listener_of(line) {
            self.listeners.push((scheme, address));
        } else if let Some(rest) = after(line, "http on ") {
            self.http = rest.trim_start_matches("http://").parse().ok();
        } else if line.trim() == "ready" {
            self.ready = true;
        }
    }
}

/// Scheme and address in `listening on tcp://127.0.0.1:43211/path …`.
fn listener_of(line: &str) -> Option<(String, SocketAddr)> {
    let url = after(line, "listening on ")?;
    let (scheme, rest) = url.split_once("://")?;
    let address = rest.split('/').next()?.parse().ok()?;
    Some((scheme.to_owned(), address))
}

/// The word that follows `phrase` at the start of a line.
fn after<'a>(line: &'a str, phrase: &str) -> Option<&'a str> {
    line.trim_start().strip_prefix(phrase)?.split_whitespace().next()
}

static LOGS: Mutex<Vec<Weak<Log>>> = Mutex::new(Vec::new());

/// Has the last lines of every live broker printed when a test fails.
#[allow(clippy::print_stderr, reason = "shown with the output of the failed test")]
fn show_on_panic(log: &Arc<Log>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            default(panic);
            let logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for log in logs.iter().filter_map(Weak::upgrade) {
                // A panic inside the log's own lock must not wait for it.
                let Ok(state) = log.state.try_lock() else { continue };
                let skipped = state.lines.len().saturating_sub(LOG_LINES_SHOWN);
                eprintln!("--- the broker's last lines");
                for line in state.lines.iter().skip(skipped) {
                    eprintln!("{line}");
                }
            }
        }));
    });
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    logs.retain(|log| log.strong_count() > 0);
    logs.push(Arc::downgrade(log));
}
