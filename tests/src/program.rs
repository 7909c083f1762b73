//! Finds and runs the programs the tests need: the broker, and the clients other people wrote.
//!
//! A missing program fails the test and names the make target that installs it; nothing is ever
//! skipped.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::reaper;

/// How long another program may run before a test calls it a failure.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(90);

/// The broker: `HOOPOE_BIN`, else `hoopoe` beside this program or beside its folder.
pub fn hoopoe() -> PathBuf {
    if let Some(path) = std::env::var_os("HOOPOE_BIN") {
        return existing(PathBuf::from(path), "HOOPOE_BIN names it");
    }
    let program = std::env::current_exe().expect("this program has a path");
    // Tools are in target/<profile>, tests in target/<profile>/deps.
    let beside = program.with_file_name("hoopoe");
    let profile = program.parent().and_then(Path::parent).expect("target/<profile>/<program>");
    let path = if beside.exists() { beside } else { profile.join("hoopoe") };
    existing(path, "`make test` builds it (or set HOOPOE_BIN)")
}

/// A call of the broker's program. What the tests are told (`HOOPOE_BIN` and its like) is no setting
/// of the broker's, so none of it is passed on.
pub fn hoopoe_command() -> Command {
    wrapped_hoopoe_command(&[])
}

/// The same behind the words of another program that becomes the broker.
pub fn wrapped_hoopoe_command(wrapper: &[String]) -> Command {
    let mut command = match wrapper {
        [] => Command::new(hoopoe()),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(hoopoe());
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOOPOE_") {
            command.env_remove(name);
        }
    }
    command
}

/// A Python with the packages of `clients/requirements.txt`.
pub fn python() -> OsString {
    std::env::var_os("HOOPOE_PYTHON").unwrap_or_else(|| "python3".into())
}

/// The folder where `npm ci` installed the packages of `clients/package.json`.
pub fn node_modules() -> PathBuf {
    let hint = "`make test` installs MQTT.js and sets it";
    let path = std::env::var_os("HOOPOE_NODE_MODULES")
        .unwrap_or_else(|| panic!("HOOPOE_NODE_MODULES is not set: {hint}"));
    existing(PathBuf::from(path), hint)
}

/// The Chromium the web tests run in.
pub fn chromium() -> OsString {
    std::env::var_os("HOOPOE_CHROMIUM").unwrap_or_else(|| "chromium".into())
}

/// A file of this package, e.g. a client script.
pub fn package_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn existing(path: PathBuf, hint: &str) -> PathBuf {
    assert!(path.exists(), "{} is not there: {hint}", path.display());
    path
}

/// A program that runs beside a test; killed when dropped.
pub struct Program {
    child: Child,
    name: String,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Program {
    /// Starts `command`; its output is read line by line.
    pub fn start(mut command: Command) -> Program {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}; `make test` installs it"));
        reaper::watch(child.id());
        let (sender, lines) = channel();
        let output = child.stdout.take().expect("standard output is piped");
        let errors = child.stderr.take().expect("standard error is piped");
        follow(output, sender.clone());
        follow(errors, sender);
        let input = child.stdin.take();
        Program { child, name, input, lines, seen: Vec::new() }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child can be asked").is_some()
    }

    /// Closes the program's standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// The program's standard input.
    pub fn input(&mut self) -> &mut ChildStdin {
        self.input.as_mut().expect("the input is open")
    }

    /// The next line the program prints; `None` at its end.
    pub fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PROGRAM_DEADLINE) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!(
                    "{} printed nothing for {PROGRAM_DEADLINE:?}; so far:\n{}",
                    self.name,
                    self.seen.join("\n")
                )
            }
        }
    }

    /// Reads lines until one contains `text`; returns it.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.next_line() {
                Some(line) if line.contains(text) => return line,
                Some(_) => {}
                None => panic!("{} ended without {text:?}:\n{}", self.name, self.seen.join("\n")),
            }
        }
    }

    /// Waits for the end; returns all lines that were not read before.
    pub fn finish(mut self) -> (ExitStatus, Vec<String>) {
        self.input = None;
        let already = self.seen.len();
        while self.next_line().is_some() {}
        reaper::forget(self.child.id());
        let status = self.child.wait().expect("the child can be waited for");
        (status, self.seen.split_off(already))
    }

    /// Waits for the end, which must be a success; returns all lines that were not read before.
    pub fn succeed(self) -> Vec<String> {
        let name = self.name.clone();
        let (status, lines) = self.finish();
        assert!(status.success(), "{name}: {status}\n{}", lines.join("\n"));
        lines
    }

    /// Asks the program to end with SIGTERM and waits until it has.
    pub fn terminate(mut self) {
        crate::broker::signal_process(self.child.id(), "TERM");
        while self.next_line().is_some() {}
    }

    /// Ends the program with SIGKILL, so that it says no farewell.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        reaper::forget(self.child.id());
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

fn follow(stream: impl Read + Send + 'static, sender: std::sync::mpsc::Sender<String>) {
    use std::io::{BufRead, BufReader};
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            // The test may have stopped listening.
            let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

/// Runs a command that ends by itself; returns its status and everything it printed.
pub fn run_to_end(command: Command) -> (ExitStatus, String) {
    let started = Instant::now();
    let (status, lines) = Program::start(command).finish();
    assert!(started.elapsed() < PROGRAM_DEADLINE, "took too long");
    (status, lines.join("\n"))
}
