//! What can be wrong with settings, told with the place where it can be repaired.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::Problem;

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{}: cannot read the settings: {cause}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file is no TOML, or holds an unknown key or a value of the wrong type.
    #[error("{}:{line}:{column}: {}{message}", file.display(), prefix(key))]
    Parse {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// The key, empty where the text is no TOML.
        key: String,
        /// What is wrong and what is expected.
        message: String,
    },
    /// An environment variable names no key or holds a value of the wrong type.
    #[error("environment variable {variable}: {}{message}", prefix(key))]
    Environment {
        /// The variable.
        variable: String,
        /// The key it stands for.
        key: String,
        /// What is wrong and what is expected.
        message: String,
    },
    /// The settings contradict each other; all contradictions at once.
    #[error("{}", lines(.0))]
    Invalid(Vec<LocatedProblem>),
}

/// A [`Problem`] and where the value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedProblem {
    /// `file:line:column`, `environment variable …`, `flag …` or `default`.
    pub place: String,
    /// What is wrong there.
    pub problem: Problem,
}

impl fmt::Display for LocatedProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}: {}", self.place, self.problem.key, self.problem.message)
    }
}

/// `key: `, or nothing.
fn prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

fn lines(problems: &[LocatedProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(LocatedProblem::to_string).collect();
    lines.join("\n")
}
