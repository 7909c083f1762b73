//! Brokers side by side: each started afresh for each round, on cores of its own, in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use crate::broker::{Broker, Recipe};
use crate::command::VersusArgs;
use crate::disk::Prober;
use crate::limits::{allow_connections, cores, pin};
use crate::machine::{Machine, command_line};
use crate::report::{Report, summary, table};
use crate::run::{Lever, Run};
use crate::scenario_file::shapes;
use crate::shape::Shape;

/// Plays every scenario against every broker, round by round; returns all reports.
pub(crate) fn play(args: &VersusArgs, stop: &Arc<AtomicBool>) -> Result<Vec<Report>> {
    let recipes = args.with.iter().map(|text| Recipe::parse(text)).collect::<Result<Vec<_>>>()?;
    let shapes = shapes(&args.scenarios, &args.shape)?;
    let (broker_cores, generator_cores) = share_cores(args)?;
    println!("hoopoe-bench {}, {}", env!("CARGO_PKG_VERSION"), Machine::look().describe());
    println!("{}", command_line());
    println!("brokers on cores {broker_cores:?}, generator on cores {generator_cores:?}");
    pin(None, &generator_cores)?;
    let mut reports = Vec::new();
    for shape in &shapes {
        let first = reports.len();
        for round in 0..u32::from(args.rounds) {
            for recipe in &recipes {
                if stop.load(Ordering::Relaxed) {
                    return Ok(reports);
                }
                let cores = (&broker_cores[..], &generator_cores[..]);
                let report = one(args, shape, recipe, round, cores, stop)
                    .with_context(|| format!("{} against {}", shape.name, recipe.name))?;
                println!("{}", line(&report, round));
                reports.push(report);
            }
        }
        print!("{}", summary::side_by_side(&summary::summaries(&reports[first..])));
    }
    Ok(reports)
}

fn one(
    args: &VersusArgs,
    shape: &Shape,
    recipe: &Recipe,
    round: u32,
    (broker_cores, generator_cores): (&[usize], &[usize]),
    stop: &Arc<AtomicBool>,
) -> Result<Report> {
    allow_connections(shape.connections())?;
    let broker = Arc::new(Broker::start(recipe, broker_cores, generator_cores)?);
    let lever: Arc<dyn Lever> = Arc::clone(&broker) as Arc<dyn Lever>;
    let address = broker.address;
    let host = address.ip().to_string();
    let target = Arc::new(args.common.target(&host, Some(address.port()), shape.mqtt)?);
    let mut settings = args.common.settings(&recipe.name, &[broker.pid()], Some(lever));
    settings.threads = crate::bounded_threads(settings.threads, shape);
    settings.tokens = args.common.tokens_for(shape, Some(broker.http))?;
    settings.round = round;
    // The broker is thrown away afterwards: tidying it up would be time for nothing.
    settings.keep = true;
    let prober = shape.is_stored().then(|| Prober::start(&broker.dir)).transpose()?;
    let run = Run::new(shape.clone(), settings, target, Arc::clone(stop))?;
    let played = crate::play(&run, args.output.quiet);
    let times = prober.map(Prober::end).transpose();
    let mut report = played?;
    if let Some(times) = times? {
        for (name, quantile) in [("sync_p50_ms", 0.5), ("sync_p99_ms", 0.99)] {
            let ms = times.value_at_quantile(quantile) as f64 / 1e6;
            report.figures.insert(name.to_owned(), ms);
        }
    }
    Ok(report)
}

fn line(report: &Report, round: u32) -> String {
    let per_cpu = report.per_cpu_sec().map_or("–".to_owned(), table::number);
    let faults = match report.faults.len() {
        0 => String::new(),
        _ => format!(", FAULTS: {}", report.faults.join("; ")),
    };
    let limit = if report.generator.is_the_limit { ", THE GENERATOR IS THE LIMIT" } else { "" };
    format!(
        "{} round {} {}: {} {} per CPU s, {} per s{limit}{faults}",
        report.shape.name,
        round + 1,
        report.broker,
        per_cpu,
        report.unit,
        table::number(report.per_sec()),
    )
}

/// The user's choice, or the first core for the broker and the others for the generator.
fn share_cores(args: &VersusArgs) -> Result<(Vec<usize>, Vec<usize>)> {
    let all = cores()?;
    let choose = |chosen: &[usize], default: &[usize]| {
        if chosen.is_empty() { default.to_vec() } else { chosen.to_vec() }
    };
    let split = if all.len() > 1 { 1 } else { 0 };
    if split == 0 {
        println!("only one core is allowed: broker and generator share it, latencies mean little");
    }
    let broker = choose(&args.broker_cores, if split == 0 { &all } else { &all[..split] });
    let generator = choose(&args.generator_cores, &all[split..]);
    if broker.is_empty() || generator.is_empty() {
        bail!("no core is left: give --broker-cores and --generator-cores");
    }
    Ok((broker, generator))
}
