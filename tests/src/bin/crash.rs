//! The crash test as a tool: `make crash KILLS=300`. Many kills are split into runs with casts of
//! their own. A failure prints the seed that replays its run, and ends with status 1; `--dump FILE`
//! writes down everything that happened in it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use hoopoe_tests::crash::history::History;
use hoopoe_tests::crash::{Settings, run};

/// More kills than that are several runs, with the seeds that follow.
const KILLS_OF_A_RUN: usize = 30;

const USAGE: &str = "usage: crash [--seed N] [--kills N] [--acks N] [--durability sync|os] \
                     [--power-cuts yes|no] [--dump FILE]";

struct Asked {
    settings: Settings,
    dump: Option<String>,
}

#[allow(clippy::print_stdout, reason = "a tool for a terminal")]
fn main() -> ExitCode {
    let Asked { mut settings, dump } = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(what) => {
            println!("{USAGE}\n{what}");
            return ExitCode::from(2);
        }
    };
    let (mut left, mut done, mut failed) = (settings.kills, 0, Vec::new());
    while left > 0 {
        settings.kills = left.min(KILLS_OF_A_RUN);
        // Said before anything can go wrong.
        println!("{}", settings.command());
        let outcome = run(&settings, &mut |line| println!("{line}"));
        println!("{}{}", outcome.report, outcome.summary());
        if !outcome.faults.is_empty() {
            failed.push(settings.seed);
            if let Some(file) = &dump
                && let Err(error) = write(file, &outcome.history)
            {
                println!("{file}: {error}");
            }
        }
        done += settings.kills + 1;
        left -= settings.kills;
        settings.seed += 1;
    }
    println!("killed {done} times; runs that failed: {failed:?}");
    ExitCode::from(u8::from(!failed.is_empty()))
}

fn asked(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = now.as_millis() as u64 % 1_000_000_000;
    let mut settings = Settings { seed, ..Settings::default() };
    let mut dump = None;
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let number = value.parse::<u64>();
        match (name.as_str(), number, value.as_str()) {
            ("--seed", Ok(number), _) => settings.seed = number,
            ("--kills", Ok(number @ 1..), _) => settings.kills = number as usize,
            ("--acks", Ok(number @ 4..), _) => settings.acks = number as usize,
            ("--power-cuts", _, "yes" | "no") => settings.power_cuts = value == "yes",
            ("--durability", _, "sync" | "os") => settings.durability = value,
            ("--dump", _, file) if !file.is_empty() => dump = Some(value),
            _ => return Err(format!("{name} {value} is not understood")),
        }
    }
    Ok(Asked { settings, dump })
}

/// Writes a history down, line by line.
fn write(file: &str, history: &History) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(file)?);
    for (number, entry) in history.entries.iter().enumerate() {
        writeln!(file, "{number:>8} {:>8} ms  {}", entry.at_ms, entry.event)?;
    }
    file.flush()
}
