//! What `hoopoe` does beside running a broker. Every command writes to the output it is given and
//! returns how the program ends.

mod backup;
mod chat;
mod check;
mod ctl;
mod passwd;
mod repair;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

pub use backup::{backup, restore};
pub use chat::chat;
pub use check::check;
pub use ctl::ctl;
pub use passwd::passwd;
pub use repair::repair;

use crate::cli::Cli;
use crate::settings::SettingsSource;

/// Prints every setting in effect, as a settings file that would give the same. Secrets are not
/// shown; keys, users and rules are named by their files.
///
/// # Errors
/// When the settings are wrong, or the output cannot be written.
pub fn config(source: &SettingsSource, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let settings = source.load()?;
    let text = settings.to_toml().context("the settings cannot be written as TOML")?;
    match &source.file {
        Some(file) => writeln!(out, "# In effect: {}, environment and flags.", file.display())?,
        None => writeln!(out, "# In effect: defaults, environment and flags.")?,
    }
    write!(out, "\n{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the completions for a shell.
///
/// # Errors
/// When the output cannot be written.
pub fn completions(shell: Shell, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    // Collected first: the generator panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hoopoe", &mut text);
    out.write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Flags, Settings};

    #[test]
    fn config_prints_a_file_that_gives_the_same_settings() {
        let flags = Flags { shards: Some(2), ..Flags::default() };
        let source = SettingsSource { flags, ..SettingsSource::default() };
        let mut out = Vec::new();
        config(&source, &mut out).unwrap();
        let printed: Settings = toml::from_str(std::str::from_utf8(&out).unwrap()).unwrap();
        assert_eq!(printed, source.load().unwrap());
        assert_eq!(printed.broker.shards, 2);
    }

    #[test]
    fn completions_know_the_commands() {
        let mut out = Vec::new();
        completions(Shell::Bash, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("--durability"));
    }
}
