//! The crash test as a tool: `make crash KILLS=300`. Many kills are split into runs with casts of
//! their own, of plain clients and of users who chat by turns; `--cast plain` or `--cast chat` has
//! one of them alone. A failure prints the seed that replays its run, and ends with status 1;
//! `--dump FILE` writes down everything that happened in it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use hoopoe_tests::crash::{Settings, chat, run};

/// More kills than that are several runs, with the seeds that follow.
const KILLS_OF_A_RUN: usize = 30;

const USAGE: &str = "usage: crash [--seed N] [--kills N] [--acks N] [--durability sync|os] \
                     [--power-cuts yes|no] [--cast plain|chat|both] [--dump FILE]";

struct Asked {
    settings: Settings,
    /// Whose runs: of plain clients, of users who chat.
    casts: (bool, bool),
    dump: Option<String>,
}

#[allow(clippy::print_stdout, reason = "a tool for a terminal")]
fn main() -> ExitCode {
    let Asked { mut settings, casts, dump } = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(what) => {
            println!("{USAGE}\n{what}");
            return ExitCode::from(2);
        }
    };
    let (mut left, mut done, mut failed) = (settings.kills, 0, Vec::new());
    let mut chats = !casts.0;
    while left > 0 {
        let most = if casts == (true, true) { left.div_ceil(2) } else { left };
        settings.kills = most.min(KILLS_OF_A_RUN);
        // Said before anything can go wrong.
        println!("{} CAST={}", settings.command(), if chats { "chat" } else { "plain" });
        let (report, fault, trail) = if chats { chat_run(&settings) } else { plain_run(&settings) };
        println!("{report}");
        if fault {
            failed.push(settings.seed);
            if let Some(file) = &dump
                && let Err(error) = write(file, &trail)
            {
                println!("{file}: {error}");
            }
        }
        done += settings.kills + 1;
        left -= settings.kills;
        settings.seed += u64::from(chats || !casts.1);
        chats = casts.1 && (!chats || !casts.0);
    }
    println!("killed {done} times; runs that failed: {failed:?}");
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// A run's report, whether anything was wrong, and everything that happened.
type Run = (String, bool, Vec<String>);

#[allow(clippy::print_stdout, reason = "a tool for a terminal")]
fn plain_run(settings: &Settings) -> Run {
    let outcome = run(settings, &mut |line| println!("{line}"));
    let entries = outcome.history.entries.iter();
    let trail = entries.map(|entry| format!("{:>8} ms  {}", entry.at_ms, entry.event)).collect();
    (format!("{}{}", outcome.report, outcome.summary()), !outcome.faults.is_empty(), trail)
}

#[allow(clippy::print_stdout, reason = "a tool for a terminal")]
fn chat_run(settings: &Settings) -> Run {
    let outcome = chat::run(settings, &mut |line| println!("{line}"));
    let events = outcome.trail.iter();
    let trail = events.map(|(at_ms, event)| format!("{at_ms:>8} ms  {event}")).collect();
    (format!("{}{}", outcome.report, outcome.summary()), !outcome.faults.is_empty(), trail)
}

fn asked(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = now.as_millis() as u64 % 1_000_000_000;
    let mut settings = Settings { seed, ..Settings::default() };
    let (mut casts, mut dump) = ((true, true), None);
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let number = value.parse::<u64>();
        match (name.as_str(), number, value.as_str()) {
            ("--seed", Ok(number), _) => settings.seed = number,
            ("--kills", Ok(number @ 1..), _) => settings.kills = number as usize,
            ("--acks", Ok(number @ 4..), _) => settings.acks = number as usize,
            ("--power-cuts", _, "yes" | "no") => settings.power_cuts = value == "yes",
            ("--durability", _, "sync" | "os") => settings.durability = value,
            ("--cast", _, "plain") => casts = (true, false),
            ("--cast", _, "chat") => casts = (false, true),
            ("--cast", _, "both") => casts = (true, true),
            ("--dump", _, file) if !file.is_empty() => dump = Some(value),
            _ => return Err(format!("{name} {value} is not understood")),
        }
    }
    Ok(Asked { settings, casts, dump })
}

/// Writes down what happened, line by line.
fn write(file: &str, trail: &[String]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(file)?);
    for (number, line) in trail.iter().enumerate() {
        writeln!(file, "{number:>8} {line}")?;
    }
    file.flush()
}
