//! Results as one self-contained page: tables, and plots drawn as SVG. No script, nothing fetched.

use super::summary::{side_by_side, summaries};
use super::{Latency, Report, Sample, table};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 26.0;
const COLOURS: [&str; 8] =
    ["#1f6f8b", "#d1495b", "#66a182", "#edae49", "#5e548e", "#8d6b48", "#3d405b", "#b5179e"];
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1360px;\
padding:0 1em;color:#222}pre{background:#f4f4f2;padding:1em;overflow:auto;font-size:13px}\
h2{margin-top:2em;border-top:1px solid #ccc;padding-top:1em}svg{background:#fff;margin:4px}\
.fault{color:#b00020;font-weight:bold}";

/// One line of a plot; lines of the same name are rounds of the same broker and look alike.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// How the axis across is drawn.
#[derive(Clone, Copy, PartialEq)]
enum Across {
    Seconds,
    /// Percentiles, stretched towards 100: 90, 99, 99.9 are equally far apart.
    Percentile,
}

/// The page.
pub(crate) fn page(reports: &[Report]) -> String {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>hoopoe-bench</title>\
         <style>{STYLE}</style><h1>hoopoe-bench</h1>"
    );
    if let Some(first) = reports.first() {
        html += &format!(
            "<p>{}<br>hoopoe-bench {}, {}<br><code>{}</code></p>",
            escape(&first.machine.describe()),
            escape(&first.version),
            utc(first.started_unix),
            escape(&first.command)
        );
    }
    let all = summaries(reports);
    if all.iter().any(|s| s.rounds > 1) || all.len() > 1 {
        html += &format!("<h2>Side by side</h2><pre>{}</pre>", escape(&side_by_side(&all)));
    }
    let mut scenarios: Vec<&str> = reports.iter().map(|r| r.shape.name.as_str()).collect();
    scenarios.dedup();
    for scenario in scenarios {
        let group: Vec<&Report> = reports.iter().filter(|r| r.shape.name == scenario).collect();
        html += &section(scenario, &group);
    }
    html + "</html>\n"
}

fn section(scenario: &str, reports: &[&Report]) -> String {
    let mut html = format!("<h2>{}</h2>", escape(scenario));
    let over_time = |value: fn(&Sample) -> f64| -> Vec<Line> {
        reports.iter().map(|r| Line { name: name(r), points: series(r, value) }).collect()
    };
    html += &plot("deliveries per second", Across::Seconds, &over_time(|s| s.delivered));
    let curves: Vec<Line> = reports
        .iter()
        .filter_map(|r| r.latencies.first().map(|l| Line { name: name(r), points: curve(l) }))
        .collect();
    html += &plot("latency by percentile (ms)", Across::Percentile, &curves);
    html += &plot("latency p99 over time (ms)", Across::Seconds, &over_time(|s| s.p99_ms));
    html += &plot("connections", Across::Seconds, &over_time(|s| s.up as f64));
    if reports.iter().any(|r| r.cost.is_some()) {
        html += &plot("broker cores busy", Across::Seconds, &over_time(|s| s.broker_cores));
        let memory = over_time(|s| s.broker_rss_bytes as f64 / 1e6);
        html += &plot("broker memory (MB resident)", Across::Seconds, &memory);
    }
    for report in reports {
        let class = if report.faults.is_empty() { "" } else { " class=fault" };
        html += &format!("<pre{class}>{}</pre>", escape(&table::report(report)));
    }
    html
}

fn name(r: &Report) -> String {
    if r.broker.is_empty() { "broker".to_owned() } else { r.broker.clone() }
}

fn series(r: &Report, value: fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    r.samples.iter().map(|s| (s.at_secs, value(s))).collect()
}

fn curve(l: &Latency) -> Vec<(f64, f64)> {
    l.curve.iter().map(|(percentile, ms)| (stretch(*percentile), *ms)).collect()
}

/// How many nines: 0 for the least, 1 for 90 %, 2 for 99 %, up to 6.
fn stretch(percentile: f64) -> f64 {
    (-(1.0 - percentile.min(100.0) / 100.0).max(1e-6).log10()).min(6.0)
}

fn plot(title: &str, across: Across, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|l| l.points.iter());
    let highest = all().map(|p| p.1).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let farthest = all().map(|p| p.0).fold(0.0, f64::max);
    if highest <= 0.0 || farthest <= 0.0 {
        return String::new();
    }
    let top = round_up(highest);
    let x = |v: f64| LEFT + v / farthest * (WIDTH - LEFT - 10.0);
    let y = |v: f64| HEIGHT - BOTTOM - v / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg width={WIDTH} height={HEIGHT} font-size=11 font-family=sans-serif role=img>\
         <title>{0}</title><text x={LEFT} y=14 font-weight=bold>{0}</text>",
        escape(title)
    );
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        svg += &format!(
            "<line x1={LEFT} x2={} y1={2:.1} y2={2:.1} stroke='#ddd'/>\
             <text x={1} y={2:.1} text-anchor=end dy=4>{3}</text>",
            WIDTH - 10.0,
            LEFT - 6.0,
            y(value),
            table::number(value)
        );
    }
    svg += &ticks(across, farthest, x);
    let mut names: Vec<&str> = Vec::new();
    for line in lines {
        let at = names.iter().position(|name| *name == line.name).unwrap_or_else(|| {
            names.push(&line.name);
            names.len() - 1
        });
        svg += &draw(line, COLOURS[at % COLOURS.len()], &x, &y);
    }
    for (at, name) in names.iter().enumerate() {
        svg += &legend(name, at);
    }
    svg + "</svg>"
}

fn draw(line: &Line, colour: &str, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let points: Vec<String> =
        line.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
    format!(
        "<polyline fill=none stroke='{colour}' stroke-width=1.5 points='{}'/>",
        points.join(" ")
    )
}

fn legend(name: &str, at: usize) -> String {
    let (x, y) = (LEFT + 190.0 + 110.0 * (at % 3) as f64, 12.0 + 12.0 * (at / 3) as f64);
    let colour = COLOURS[at % COLOURS.len()];
    format!("<text x={x} y={y} fill='{colour}'>{}</text>", escape(name))
}

fn ticks(across: Across, farthest: f64, x: impl Fn(f64) -> f64) -> String {
    let labels: Vec<(f64, String)> = match across {
        Across::Seconds => (0..=4)
            .map(|step| farthest * f64::from(step) / 4.0)
            .map(|secs| (secs, format!("{secs:.1} s")))
            .collect(),
        Across::Percentile => ["0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]
            .iter()
            .enumerate()
            .map(|(nines, label)| (nines as f64, (*label).to_owned()))
            .filter(|(nines, _)| *nines <= farthest)
            .collect(),
    };
    let text = |(at, label): (f64, String)| {
        let anchor = if at < farthest { "middle" } else { "end" };
        format!("<text x={:.1} y={} text-anchor={anchor}>{label}</text>", x(at), HEIGHT - 10.0)
    };
    labels.into_iter().map(text).collect()
}

/// The next number that divides well by four.
fn round_up(value: f64) -> f64 {
    let unit = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        .iter()
        .map(|factor| factor * unit)
        .find(|top| *top >= value)
        .unwrap_or(10.0 * unit)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Seconds since 1970 as a date and time (proleptic Gregorian, days counted by hand).
pub(crate) fn utc(unix: u64) -> String {
    let (days, secs) = (unix / 86_400, unix % 86_400);
    // Years that begin in March have their leap day last.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", secs / 3600, secs / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample_report;

    #[test]
    fn dates_are_right() {
        for (unix, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_795_132_800, "2026-11-20 00:00 UTC"),
        ] {
            assert_eq!(utc(unix), text);
        }
    }

    #[test]
    fn the_page_stands_alone_and_shows_every_plot() {
        let mut report = sample_report("pairs1", "a<b", 1000);
        report.samples = (0..5u32)
            .map(|n| Sample {
                at_secs: f64::from(n),
                delivered: 1000.0,
                p99_ms: 2.0,
                up: 5,
                broker_cores: 0.5,
                broker_rss_bytes: 1 << 20,
                ..Sample::default()
            })
            .collect();
        report.latencies = vec![Latency {
            curve: vec![(0.0, 0.1), (90.0, 0.2), (99.9, 3.0)],
            ..Default::default()
        }];
        let html = page(&[report]);
        assert_eq!(html.matches("<svg").count(), 6);
        assert!(html.contains("a&lt;b") && !html.contains("a<b"));
        assert!(!html.contains("http") && !html.contains("<script"));
    }

    #[test]
    fn axes_end_on_round_numbers() {
        for (value, top) in [(0.93, 1.0), (1.0, 1.0), (130.0, 200.0), (4_100.0, 6_000.0)] {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}");
        }
    }
}
