//! The crash test as a tool. A failure prints the seed that replays its decisions, and ends with
//! status 1; `--dump` then writes down everything that happened.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use hoopoe_tests::crash::history::History;
use hoopoe_tests::crash::{Settings, run};

#[allow(clippy::print_stdout, reason = "a tool for a terminal")]
fn main() -> ExitCode {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut settings = Settings {
        seed: now.as_millis() as u64 % 1_000_000_000,
        kills: 20,
        acks: 400,
        durability: "sync".to_owned(),
        power_cuts: false,
    };
    let mut runs = 1;
    let mut dump = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let number = value.parse::<u64>();
        match (name.as_str(), number) {
            ("--seed", Ok(number)) => settings.seed = number,
            ("--kills", Ok(number)) => settings.kills = number as usize,
            ("--acks", Ok(number)) if number >= 4 => settings.acks = number as usize,
            ("--runs", Ok(number)) => runs = number,
            ("--power-cuts", _) if ["yes", "no"].contains(&value.as_str()) => {
                settings.power_cuts = value == "yes";
            }
            ("--dump", _) if !value.is_empty() => dump = Some(value),
            ("--durability", _) if ["sync", "os"].contains(&value.as_str()) => {
                settings.durability = value;
            }
            _ => {
                println!(
                    "usage: crash [--seed N] [--kills N] [--acks N] [--durability sync|os] \
                     [--power-cuts yes|no] [--runs N] [--dump FILE]\n{name} {value} is not understood"
                );
                return ExitCode::from(2);
            }
        }
    }
    let mut failed = 0;
    for _ in 0..runs {
        println!("seed {}", settings.seed);
        let outcome = run(&settings, &mut |line| println!("{line}"));
        print!("{}", outcome.report);
        println!("{}", outcome.summary());
        if let Some(file) = dump.as_ref().filter(|_| !outcome.faults.is_empty())
            && let Err(error) = write(file, &outcome.history)
        {
            println!("{file}: {error}");
        }
        failed += u64::from(!outcome.faults.is_empty());
        settings.seed += 1;
    }
    ExitCode::from(u8::from(failed > 0))
}

/// Writes a history down, line by line.
fn write(file: &str, history: &History) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(file)?);
    for (number, entry) in history.entries.iter().enumerate() {
        writeln!(file, "{number:>8} {:>8} ms  {}", entry.at_ms, entry.event)?;
    }
    file.flush()
}
