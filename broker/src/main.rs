//! The program `hoopoe`.

#[cfg(feature = "planted")]
compile_error!("the program is never built with bugs planted on purpose");

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use hoopoe::cli::{BridgeArgs, Cli, Command, SettingsArgs};
use hoopoe::{commands, node};

/// Of the whole process: with its own `malloc` and `free` it serves RocksDB as well.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let done = match Cli::parse().command {
        Command::Serve(args) => {
            // The start prints where the broker listens.
            drop(out);
            return finish(serve(args));
        }
        Command::Bridge(args) => {
            drop(out);
            return finish(bridge(args));
        }
        Command::Check(args) => commands::check(&args.into_source(), &mut out),
        Command::Config(args) => commands::config(&args.into_source(), &mut out),
        Command::Passwd(args) => commands::passwd(&args, &mut out),
        Command::Ctl(args) => commands::ctl(&args, &mut out),
        Command::Chat(args) => commands::chat(&args, &mut out),
        Command::Backup(args) => commands::backup(&args.source(), &args.to, &mut out),
        Command::Restore { backup, data } => commands::restore(&backup, &data, &mut out),
        Command::Repair { data, shards } => commands::repair(&data, shards, &mut out),
        Command::Completions { shell } => commands::completions(shell, &mut out),
    };
    finish(done.and_then(|code| out.flush().map(|()| code).map_err(Into::into)))
}

fn serve(args: SettingsArgs) -> anyhow::Result<ExitCode> {
    let source = args.into_source();
    let settings = source.load()?;
    node::serve(settings, source)?;
    Ok(ExitCode::SUCCESS)
}

/// The same node without listeners.
fn bridge(args: BridgeArgs) -> anyhow::Result<ExitCode> {
    let source = args.into_source();
    let settings = source.load()?;
    anyhow::ensure!(
        settings.bridge.len() >= 2,
        "a bridge between brokers has a link to each: expected two or more [[bridge]]"
    );
    node::serve(settings, source)?;
    Ok(ExitCode::SUCCESS)
}

/// Says what went wrong, unless nobody listens any more: `hoopoe config | head` is no mistake.
fn finish(done: anyhow::Result<ExitCode>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Where this cannot be written either, the exit code still tells.
            let _ = writeln!(io::stderr(), "hoopoe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
