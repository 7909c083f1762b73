//! What a person sees while a scenario runs: the phase, live rates and latencies.

use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::report::Sample;
use crate::run::{Run, SampleState};

/// Between two samples; one line of progress, one point of the plots.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// How soon the end of a run is seen.
const POLL: Duration = Duration::from_millis(10);

/// Samples the run until it is over; shows it on the terminal unless `quiet`.
pub(crate) fn follow(run: &Run, quiet: bool) {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {prefix} {elapsed_precise} {wide_msg}")
    {
        bar.set_style(style);
    }
    bar.set_prefix(match run.settings.broker.as_str() {
        "" => run.shape.name.clone(),
        broker => format!("{} {broker}", run.shape.name),
    });
    let mut state = SampleState::default();
    let mut since = SAMPLE_EVERY;
    while !run.finished() {
        if since >= SAMPLE_EVERY {
            since = Duration::ZERO;
            let sample = run.sample(&mut state);
            if !bar.is_hidden() {
                bar.set_message(line(run.current_phase(), &sample));
                bar.tick();
            }
        }
        std::thread::sleep(POLL);
        since += POLL;
    }
    bar.finish_and_clear();
}

fn line(phase: &str, s: &Sample) -> String {
    let mut text = format!(
        "{phase}: {} up, {}/s out, {}/s in",
        HumanCount(s.up),
        HumanCount(s.published as u64),
        HumanCount(s.delivered as u64)
    );
    if s.p99_ms > 0.0 {
        text += &format!(", p50 {:.2} ms, p99 {:.2} ms", s.p50_ms, s.p99_ms);
    }
    if s.broker_rss_bytes > 0 {
        let megabytes = s.broker_rss_bytes as f64 / 1e6;
        text += &format!(", broker {:.0} % CPU, {megabytes:.1} MB", s.broker_cores * 100.0);
    }
    text
}
