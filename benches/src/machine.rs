//! Facts about the machine and the run that every result carries.

use std::fs;

use serde::{Deserialize, Serialize};

/// Where a result was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    /// Processor model.
    pub cpu: String,
    /// Processors of the machine.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Distribution.
    pub system: String,
    /// Load average over the last minute when the run began.
    pub load: f64,
}

impl Machine {
    /// Looks at this machine; what cannot be read stays empty.
    pub(crate) fn look() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str, split: char| {
            text.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split_once(split))
                .map(|(_, value)| value.trim().trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal", ':');
        let kilobytes: u64 =
            memory.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Machine {
            cpu: field(&read("/proc/cpuinfo"), "model name", ':'),
            // Not what this process may run on: `versus` keeps it on some of them.
            cores: read("/proc/cpuinfo").lines().filter(|l| l.starts_with("processor")).count(),
            memory_bytes: kilobytes * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: field(&read("/etc/os-release"), "PRETTY_NAME", '='),
            load: read("/proc/loadavg")
                .split_ascii_whitespace()
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0.0),
        }
    }

    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} x {}, {} GB, {}, kernel {}, load {:.2}",
            self.cores,
            self.cpu,
            self.memory_bytes >> 30,
            self.system,
            self.kernel,
            self.load
        )
    }
}

/// The command as it was given, quoted where a shell would need it.
pub(crate) fn command_line() -> String {
    std::env::args().map(|word| quote(&word)).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_a_shell_would_read_them() {
        for (word, quoted) in [
            ("pairs1", "pairs1"),
            ("--with=a b", "'--with=a b'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }

    #[test]
    fn the_machine_is_seen() {
        let machine = Machine::look();
        assert!(machine.cores > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty());
    }
}
