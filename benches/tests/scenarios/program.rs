//! Runs the built program and reads what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::erring::Error;

/// The program under test.
pub(crate) fn path() -> PathBuf {
    env!("CARGO_BIN_EXE_hoopoe-bench").into()
}

/// What one call of the program came to.
pub(crate) struct Outcome {
    /// Exit code.
    pub code: i32,
    /// Both outputs, for messages.
    pub text: String,
    /// The reports.
    pub reports: Vec<Value>,
}

impl Outcome {
    /// A counter of the first report's checks.
    pub(crate) fn check(&self, name: &str) -> u64 {
        self.reports[0]["checks"][name].as_u64().unwrap_or_else(|| panic!("{name}: {}", self.text))
    }

    /// The first report's faults.
    pub(crate) fn faults(&self) -> String {
        self.reports[0]["faults"].to_string()
    }
}

/// Calls the program with these words (split at blanks) and more arguments.
pub(crate) fn call(words: &str, more: &[&str]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("result.json");
    let mut command = Command::new(path());
    // What tells the tests where programs are would be settings to a broker that is started here.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOOPOE_") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(words.split_ascii_whitespace())
        .args(more)
        .args(["--quiet", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    outcome(&output, &json)
}

/// Calls the program and interrupts it as Ctrl-C does, once `begun` has returned.
pub(crate) fn interrupted(words: &str, begun: impl FnOnce()) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("result.json");
    let child = Command::new(path())
        .args(words.split_ascii_whitespace())
        .args(["--quiet", "--json"])
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    begun();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    outcome(&child.wait_with_output().unwrap(), &json)
}

fn outcome(output: &Output, json: &Path) -> Outcome {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let reports = match std::fs::read(json) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => Vec::new(),
    };
    Outcome { code: output.status.code().unwrap_or(-1), text, reports }
}

/// Plays a scenario at small size against what listens on this port.
pub(crate) fn play(port: u16, words: &str) -> Outcome {
    let port = port.to_string();
    call(&format!("run {words} --port {port} {SMALL}"), &[])
}

/// Small enough for a test, large enough to be a scenario.
pub(crate) const SMALL: &str = "--warmup 0.1 --drain 0.5";

/// The counter has seen the error. At QoS 0 a loss is told and no fault.
pub(crate) fn assert_caught(scenario: &str, outcome: &Outcome, error: Error, counter: &str) {
    let at_qos_0 = outcome.reports.first().is_some_and(|report| report["shape"]["qos"] == 0);
    let code = if at_qos_0 && error == Error::Lose { 0 } else { 3 };
    assert_eq!(outcome.code, code, "{scenario} against {error:?}\n{}", outcome.text);
    assert!(outcome.check(counter) > 0, "{scenario} against {error:?}\n{}", outcome.text);
}
