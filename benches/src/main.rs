//! A load tester for MQTT brokers, made for chat.
//!
//! `run` plays scenarios against a broker that is there, `versus` starts brokers side by side, `relay`
//! is the limit to hold them against. Here: the command line, the thread that a scenario runs on, the
//! request to stop, and what becomes of the results.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program: results and errors are for the terminal"
)]

mod broker;
mod clock;
mod command;
mod cost;
mod disk;
mod ledger;
mod limits;
mod lobby;
mod machine;
mod net;
mod progress;
mod relay;
mod report;
mod run;
mod scenario;
mod scenario_file;
mod shape;
mod stamp;
mod talk;
mod tokens;
mod versus;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;

use command::{Action, Cli, OutputArgs, RunArgs};
use report::Report;
use run::{Lever, Run};
use shape::PRESETS;

/// Exit code when the scenarios ran but a check found faults.
const FAULTS_FOUND: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    if let Some([a, b]) = cli.compare.as_deref() {
        print!("{}", report::compare::compare(a, b)?);
        return Ok(ExitCode::SUCCESS);
    }
    match cli.action {
        None => bail!("say what to do: see hoopoe-bench --help"),
        Some(Action::List) => {
            for (name, what) in PRESETS {
                println!("{name:<16}{what}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(Action::Run(args)) => {
            stop_on_signal(&stop)?;
            run_all(&args, &stop)
        }
        Some(Action::Relay(args)) => {
            stop_on_signal(&stop)?;
            limits::allow_connections(0)?;
            relay::run(args.listen, &stop)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Action::Versus(args)) => {
            stop_on_signal(&stop)?;
            let reports = versus::play(&args, &stop)?;
            finish(&reports, &args.output)
        }
        Some(Action::Compare { a, b }) => {
            print!("{}", report::compare::compare(&a, &b)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Ctrl-C once: end with what was measured. Twice: at once.
fn stop_on_signal(stop: &Arc<AtomicBool>) -> Result<()> {
    let stop = Arc::clone(stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    })?;
    Ok(())
}

fn run_all(args: &RunArgs, stop: &Arc<AtomicBool>) -> Result<ExitCode> {
    let mut reports = Vec::new();
    for shape in scenario_file::shapes(&args.scenarios, &args.shape)? {
        let target = Arc::new(args.common.target(&args.host, args.port, shape.mqtt)?);
        let lever = shell_lever(args);
        let mut settings = args.common.settings(&args.name, &args.broker_pid, lever);
        settings.threads = bounded_threads(settings.threads, &shape);
        settings.tokens = args.common.tokens_for(&shape, None)?;
        limits::allow_connections(shape.connections())?;
        let run = Run::new(shape, settings, target, Arc::clone(stop))?;
        let report = play(&run, args.output.quiet)?;
        print!("{}", report::table::report(&report));
        reports.push(report);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    finish(&reports, &args.output)
}

/// As many threads as the scenario can be shared out to; says so when that is fewer than asked for.
fn bounded_threads(asked: usize, shape: &shape::Shape) -> usize {
    let threads = asked.min(shape.max_threads());
    if threads < asked {
        eprintln!("{}: played on {threads} thread(s), it cannot be shared out to more", shape.name);
    }
    threads
}

/// Plays one scenario while this thread samples it.
fn play(run: &Run, quiet: bool) -> Result<Report> {
    thread::scope(|scope| {
        let player = thread::Builder::new().name("generator".to_owned());
        let handle = player.spawn_scoped(scope, || {
            let result = scenario::play(run);
            run.finish();
            result
        })?;
        progress::follow(run, quiet);
        handle.join().unwrap_or_else(|_| Err(anyhow!("the generator panicked")))
    })
    .with_context(|| run.shape.name.clone())
}

/// Writes the files and says by the exit code whether any check failed.
fn finish(reports: &[Report], output: &OutputArgs) -> Result<ExitCode> {
    if let Some(path) = &output.json {
        let json = serde_json::to_vec_pretty(reports)?;
        std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &output.html {
        let page = report::html::page(reports);
        std::fs::write(path, page).with_context(|| format!("writing {}", path.display()))?;
    }
    let faulty = reports.iter().any(|report| !report.faults.is_empty());
    Ok(if faulty { ExitCode::from(FAULTS_FOUND) } else { ExitCode::SUCCESS })
}

/// Kills and restarts by the user's commands.
struct ShellLever {
    kill: String,
    restart: String,
}

fn shell_lever(args: &RunArgs) -> Option<Arc<dyn Lever>> {
    let (kill, restart) = (args.kill.clone()?, args.restart.clone()?);
    Some(Arc::new(ShellLever { kill, restart }))
}

fn shell(command: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", command]).status()?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

impl Lever for ShellLever {
    fn kill(&self) -> Result<()> {
        shell(&self.kill)
    }

    fn restart(&self) -> Result<Vec<u32>> {
        shell(&self.restart)?;
        Ok(Vec::new())
    }
}
