//! Answers as text for people: lists as columns, other answers as one line per field.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

/// Characters of a cell; more is cut.
const CELL_CHARS_MAX: usize = 60;

/// A list in columns. Records of calls are shown with their fields.
pub(super) fn table(columns: &[&str], items: &[Value]) -> String {
    let head: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let mut rows = vec![head];
    for item in items {
        let record = item.get("record").unwrap_or(item);
        let of = |column: &&str| record.get(*column).or_else(|| item.get(*column));
        rows.push(columns.iter().map(|column| cell(column, of(column))).collect());
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One line per field; long or nested answers as JSON.
pub(super) fn lines(answer: &Value) -> String {
    match answer {
        Value::Object(fields) if fields.is_empty() => "done".to_owned(),
        Value::Object(fields) if fields.values().all(|value| !value.is_object()) => {
            let lines = fields.iter().map(|(name, value)| match value {
                Value::String(text) => format!("{name}: {text}"),
                value => format!("{name}: {value}"),
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

fn cell(column: &str, value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(ms)) if column == "ts" || column == "created" => {
            ms.as_u64().map_or_else(|| ms.to_string(), time)
        }
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if text.is_empty() => "-".to_owned(),
        None => text,
    }
}

/// A time as people write it, in UTC.
fn time(ms: u64) -> String {
    let Some(at) = UNIX_EPOCH.checked_add(Duration::from_millis(ms)) else {
        return ms.to_string();
    };
    let secs = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day since 1970-01-01, in the calendar that repeats every 400 years.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let items = [
            json!({ "user": "alice", "im": true, "roles": ["a", "b"] }),
            json!({ "user": "", "im": false, "roles": [], "x": 1 }),
        ];
        let expected = "USER   IM   ROLES\nalice  yes  a,b\n-      no   -\n";
        assert_eq!(table(&["user", "im", "roles"], &items), expected);
        let record = json!({ "number": 7, "record": { "ts": 0, "call": "a\nb" } });
        let expected = "NUMBER  TS                    CALL\n7       1970-01-01 00:00:00Z  a b\n";
        assert_eq!(table(&["number", "ts", "call"], &[record]), expected);
    }

    #[test]
    fn times_are_dates() {
        for (ms, text) in [
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_795_226_578_043, "2026-11-21 02:02:58Z"),
            (4_102_444_799_999, "2099-12-31 23:59:59Z"),
        ] {
            assert_eq!(time(ms), text);
        }
    }

    #[test]
    fn other_answers_are_lines_or_json() {
        assert_eq!(lines(&json!({})), "done");
        assert_eq!(lines(&json!({ "id": "a", "seq": 1 })), "id: a\nseq: 1");
        assert!(lines(&json!({ "a": { "b": 1 } })).starts_with("{\n"));
    }
}
