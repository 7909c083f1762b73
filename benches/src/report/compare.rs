//! Two result files side by side.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Report;
use super::summary::{Summary, side_by_side, summaries};

/// Reads a file written with `--json`.
pub(crate) fn load(path: &Path) -> Result<Vec<Report>> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is no result file of this program", path.display()))
}

/// Sets the scenarios that both files hold side by side.
pub(crate) fn compare(a: &Path, b: &Path) -> Result<String> {
    let text = compare_reports(&load(a)?, &load(b)?);
    if text.is_empty() {
        bail!("{} and {} have no scenario in common", a.display(), b.display());
    }
    Ok(text)
}

fn compare_reports(a: &[Report], b: &[Report]) -> String {
    let (a, b) = (summaries(a), summaries(b));
    let mut paired: Vec<Summary> = Vec::new();
    for left in &a {
        let same = |s: &&Summary| s.scenario == left.scenario;
        let right = b
            .iter()
            .find(|s| same(s) && s.broker == left.broker)
            // A file about one broker may be held against a file about another.
            .or_else(|| b.iter().rfind(same));
        if let Some(right) = right {
            paired.push(Summary { broker: label("A", &left.broker), ..left.clone() });
            paired.push(Summary { broker: label("B", &right.broker), ..right.clone() });
        }
    }
    let mut text = String::new();
    for pair in paired.chunks(2) {
        text += &side_by_side(pair);
    }
    text
}

fn label(file: &str, broker: &str) -> String {
    if broker.is_empty() { file.to_owned() } else { format!("{file} {broker}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample_report;

    #[test]
    fn common_scenarios_are_paired_and_others_left_out() {
        let a = [sample_report("pairs1", "mosquitto", 1000), sample_report("storm", "x", 5)];
        let b = [sample_report("pairs1", "hoopoe", 12_000)];
        let text = compare_reports(&a, &b);
        assert!(text.contains("A mosquitto") && text.contains("B hoopoe"), "{text}");
        assert!(text.contains("12.00") && !text.contains("storm"), "{text}");
    }

    #[test]
    fn results_survive_their_file() {
        let report = sample_report("pairs1", "mosquitto", 1000);
        let json = serde_json::to_string(&[&report]).unwrap();
        let again: Vec<Report> = serde_json::from_str(&json).unwrap();
        assert_eq!(again, [report]);
    }
}
