//! Results as text for a terminal.

use super::{Latency, Report};

/// A number with thousands separated, and decimals where it is small.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let decimals = match value.abs() {
        v if v >= 100.0 || v == v.trunc() => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((&text[..], ""), |(w, r)| (w, r));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |d| ("-", d));
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{rest}") }
}

/// Bytes in the unit that suits them.
pub(crate) fn bytes(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} GB", v / 1e9),
        v if v >= 1e6 => format!("{:.1} MB", v / 1e6),
        v if v >= 1e3 => format!("{:.2} KB", v / 1e3),
        v => format!("{v:.0} B"),
    }
}

/// Lines of equal columns; the first row is the heading.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            if column == 0 {
                line += &format!("{cell}{pad}");
            } else {
                line += &format!("  {pad}{cell}");
            }
        }
        text += "  ";
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The whole result of one scenario.
pub(crate) fn report(r: &Report) -> String {
    let broker = if r.broker.is_empty() { String::new() } else { format!(" · {}", r.broker) };
    let mut text = format!("\n{}{broker}: {}\n", r.shape.name, r.shape.describe());
    text += &format!("  target {}\n\n", r.target);
    text += &align(&figures(r));
    let latencies: Vec<&Latency> = r.latencies.iter().collect();
    if !latencies.is_empty() {
        text.push('\n');
        text += &align(&latency_rows(&latencies));
    }
    text.push('\n');
    if r.faults.is_empty() {
        text += &format!("  checked: {}, no fault\n", checked(r));
    } else {
        text += &format!("  FAULTS ({}): {}\n", checked(r), r.faults.join("; "));
    }
    for note in &r.notes {
        text += &format!("  note: {note}\n");
    }
    if r.interrupted {
        text += "  ended early by the user: figures cover what had been measured\n";
    }
    text
}

fn checked(r: &Report) -> String {
    let received = number(r.checks.received as f64);
    format!("{received} of {} deliveries", number(r.checks.expected as f64))
}

fn figures(r: &Report) -> Vec<Vec<String>> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("measured", format!("{:.2} s", r.secs)),
        row(&r.unit, number(r.work as f64)),
        row(&format!("{} per second", r.unit), number(r.per_sec())),
    ];
    if let Some(cost) = &r.cost {
        if let Some(rate) = r.per_cpu_sec() {
            rows.push(row(&format!("{} per broker CPU second", r.unit), number(rate)));
        }
        let split = format!(
            "{:.2} s ({:.2} user + {:.2} system)",
            cost.cpu_secs(),
            cost.user_secs,
            cost.system_secs
        );
        rows.push(row("broker CPU", split));
        rows.push(row("broker cores busy", format!("{:.2}", cost.cores_busy)));
        rows.push(row("broker memory", memory(cost)));
    }
    rows.push(row(
        "generator CPU",
        format!(
            "{:.2} s, {:.0} % of {} thread(s)",
            r.generator.cpu_secs,
            r.generator.busy * 100.0,
            r.generator.threads
        ),
    ));
    if let Some(ours) = r.generator_us_per_message() {
        let text = match r.broker_us_per_message() {
            Some(theirs) => {
                let share = number(100.0 * r.generator_share().unwrap_or(f64::NAN));
                format!("{ours:.2} µs, {share} % of the broker's {theirs:.2} µs")
            }
            None => format!("{ours:.2} µs"),
        };
        rows.push(row("generator CPU per message", text));
    }
    for (name, value) in &r.figures {
        rows.push(row(&name.replace('_', " "), number(*value)));
    }
    rows
}

fn memory(cost: &super::BrokerCost) -> String {
    format!(
        "{} before, {} after, peak {}",
        bytes(cost.rss_before_bytes as f64),
        bytes(cost.rss_after_bytes as f64),
        bytes(cost.peak_rss_bytes as f64)
    )
}

fn latency_rows(latencies: &[&Latency]) -> Vec<Vec<String>> {
    let heading = ["latency (ms)", "count", "min", "mean", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for l in latencies {
        let mut row = vec![l.what.clone(), number(l.count as f64)];
        row.extend(
            [l.min_ms, l.mean_ms, l.p50_ms, l.p90_ms, l.p99_ms, l.p999_ms, l.max_ms].map(number),
        );
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        for (value, text) in [
            (0.0, "0"),
            (0.0312, "0.031"),
            (2.345, "2.35"),
            (31.44, "31.4"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(bytes(2150.0), "2.15 KB");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "1"], ["longer", "1,000"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|r| r.iter().map(|c| (*c).to_owned()).collect()).collect();
        assert_eq!(align(&rows), "  a           1\n  longer  1,000\n");
    }
}
