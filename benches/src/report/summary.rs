//! Several rounds of one scenario and broker as medians, and tables that set brokers side by side.

use std::collections::BTreeMap;

use super::Report;
use super::table::{align, bytes, number};

/// Medians over the rounds of one scenario against one broker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Scenario.
    pub scenario: String,
    /// Broker.
    pub broker: String,
    /// What is counted.
    pub unit: String,
    /// Rounds that it stands on.
    pub rounds: usize,
    /// Measured values by name, each the median of its rounds.
    pub values: BTreeMap<String, f64>,
    /// The lowest and highest per broker CPU second.
    pub cpu_range: Option<(f64, f64)>,
    /// All faults of all rounds.
    pub faults: Vec<String>,
}

/// Work per broker CPU second, the figure to compare by.
pub(crate) const PER_CPU: &str = "per CPU s";
/// Work per second.
pub(crate) const PER_SEC: &str = "per s";

/// Groups reports by scenario and broker, in order of first appearance.
pub(crate) fn summaries(reports: &[Report]) -> Vec<Summary> {
    let mut groups: Vec<((String, String), Vec<&Report>)> = Vec::new();
    for report in reports {
        let key = (report.shape.name.clone(), report.broker.clone());
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, group)) => group.push(report),
            None => groups.push((key, vec![report])),
        }
    }
    groups.into_iter().map(|(key, group)| summary(key, &group)).collect()
}

fn summary((scenario, broker): (String, String), reports: &[&Report]) -> Summary {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for report in reports {
        for (name, value) in values_of(report) {
            values.entry(name).or_default().push(value);
        }
    }
    let cpu = values.get(PER_CPU);
    let cpu_range = cpu.map(|all| {
        (all.iter().copied().fold(f64::MAX, f64::min), all.iter().copied().fold(0.0, f64::max))
    });
    Summary {
        scenario,
        broker,
        unit: reports.first().map(|r| r.unit.clone()).unwrap_or_default(),
        rounds: reports.len(),
        values: values.into_iter().map(|(name, mut all)| (name, median(&mut all))).collect(),
        cpu_range,
        faults: reports
            .iter()
            .flat_map(|r| r.faults.iter().map(|f| format!("round {}: {f}", r.round + 1)))
            .collect(),
    }
}

fn values_of(report: &Report) -> Vec<(String, f64)> {
    let mut values = vec![(PER_SEC.to_owned(), report.per_sec())];
    values.extend(report.per_cpu_sec().map(|v| (PER_CPU.to_owned(), v)));
    values.extend(report.generator_us_per_message().map(|v| ("generator µs/msg".to_owned(), v)));
    values.extend(report.broker_us_per_message().map(|v| ("broker µs/msg".to_owned(), v)));
    values.extend(report.generator_share().map(|v| ("generator : broker".to_owned(), v)));
    if let Some(latency) = report.latencies.first() {
        for (name, value) in
            [("p50 ms", latency.p50_ms), ("p99 ms", latency.p99_ms), ("p99.9 ms", latency.p999_ms)]
        {
            values.push((name.to_owned(), value));
        }
    }
    if let Some(cost) = &report.cost {
        values.push(("peak RSS".to_owned(), cost.peak_rss_bytes as f64));
    }
    values.push(("lost".to_owned(), report.checks.lost as f64));
    values.extend(report.figures.iter().map(|(name, value)| (name.replace('_', " "), *value)));
    values
}

/// The median; the mean of the two in the middle when they are even in number.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

fn show(name: &str, value: f64) -> String {
    if name.contains("RSS") || name.starts_with("bytes") { bytes(value) } else { number(value) }
}

/// Brokers as columns, measured values as rows, ratios to the first broker; one table per scenario.
pub(crate) fn side_by_side(summaries: &[Summary]) -> String {
    let mut text = String::new();
    let mut scenarios: Vec<&str> = summaries.iter().map(|s| s.scenario.as_str()).collect();
    scenarios.dedup();
    for scenario in scenarios {
        let group: Vec<&Summary> = summaries.iter().filter(|s| s.scenario == scenario).collect();
        text += &one_table(scenario, &group);
    }
    text
}

fn one_table(scenario: &str, group: &[&Summary]) -> String {
    let Some(first) = group.first() else { return String::new() };
    let mut heading = vec![format!("{scenario} ({})", first.unit)];
    heading.extend(group.iter().map(|s| s.broker.clone()));
    heading.extend(group.iter().skip(1).map(|s| format!("{} : {}", s.broker, first.broker)));
    let mut rows = vec![heading];
    for name in ordered_names(group) {
        let mut row = vec![name.clone()];
        let value = |s: &Summary| s.values.get(&name).copied();
        row.extend(group.iter().map(|s| value(s).map_or("–".to_owned(), |v| show(&name, v))));
        row.extend(group.iter().skip(1).map(|s| match (value(s), value(first)) {
            (Some(v), Some(base)) if base > 0.0 => format!("{:.2}", v / base),
            _ => "–".to_owned(),
        }));
        rows.push(row);
    }
    let mut text = format!("\n{}", align(&rows));
    for s in group {
        if let Some((low, high)) = s.cpu_range {
            text += &format!(
                "  {}: per CPU s from {} to {} over {} round(s)\n",
                s.broker,
                number(low),
                number(high),
                s.rounds
            );
        }
        for fault in &s.faults {
            text += &format!("  FAULT of {}: {fault}\n", s.broker);
        }
    }
    text
}

/// The figures to compare by come first, the rest in the order of the alphabet.
fn ordered_names(group: &[&Summary]) -> Vec<String> {
    let first = [PER_CPU, PER_SEC, "p50 ms", "p99 ms", "p99.9 ms"];
    let mut names: Vec<String> = group.iter().flat_map(|s| s.values.keys().cloned()).collect();
    names.sort_by_key(|name| {
        (first.iter().position(|f| f == name).unwrap_or(first.len()), name.clone())
    });
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_do_not_follow_outliers() {
        for (values, want) in
            [(vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![1.0, 2.0, 3.0, 900.0], 2.5)]
        {
            assert_eq!(median(&mut values.clone()), want);
        }
        assert!(median(&mut []).is_nan());
    }

    #[test]
    fn ratios_are_to_the_first_broker() {
        let summary = |broker: &str, per_cpu: f64| Summary {
            scenario: "pairs1".to_owned(),
            broker: broker.to_owned(),
            unit: "deliveries".to_owned(),
            rounds: 3,
            values: BTreeMap::from([(PER_CPU.to_owned(), per_cpu)]),
            cpu_range: Some((per_cpu, per_cpu)),
            faults: vec!["round 1: 2 lost".to_owned()],
        };
        let text = side_by_side(&[summary("mosquitto", 50_000.0), summary("hoopoe", 600_000.0)]);
        assert!(text.contains("600,000"), "{text}");
        assert!(text.contains("12.00"), "{text}");
        assert!(text.contains("FAULT of hoopoe: round 1: 2 lost"), "{text}");
    }
}
