//! Scenario files: TOML that names scenarios and changes their numbers.
//!
//! ```toml
//! [[scenario]]
//! preset = "pairs1"
//! name = "lunch break"
//! pairs = 400
//! duration = 30
//! ```

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::shape::{Overrides, Shape};

/// Scenarios of one file at most.
const MAX_SCENARIOS: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    scenario: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    preset: String,
    name: Option<String>,
    #[serde(flatten)]
    overrides: toml::Table,
}

/// The shapes that these words stand for: presets, or files ending in `.toml`. Flags win over files.
pub(crate) fn shapes(words: &[String], flags: &Overrides) -> Result<Vec<Shape>> {
    let mut shapes = Vec::new();
    for word in words {
        if word.ends_with(".toml") {
            let text = std::fs::read_to_string(Path::new(word))
                .with_context(|| format!("reading {word}"))?;
            shapes.extend(parse(&text).with_context(|| word.clone())?);
        } else {
            shapes.push(Shape::preset(word)?);
        }
    }
    for shape in &mut shapes {
        flags.apply(shape);
        shape.check().with_context(|| shape.name.clone())?;
    }
    Ok(shapes)
}

fn parse(text: &str) -> Result<Vec<Shape>> {
    let plan: Plan = toml::from_str(text)?;
    if plan.scenario.len() > MAX_SCENARIOS {
        bail!("{} scenarios; {MAX_SCENARIOS} at most", plan.scenario.len());
    }
    plan.scenario
        .into_iter()
        .map(|entry| {
            let mut shape = Shape::preset(&entry.preset)?;
            let overrides: Overrides = entry
                .overrides
                .try_into()
                .with_context(|| format!("scenario with preset {:?}", entry.preset))?;
            overrides.apply(&mut shape);
            if let Some(name) = entry.name {
                shape.name = name;
            }
            Ok(shape)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_changed_and_named() {
        let text = r#"
            [[scenario]]
            preset = "pairs1"
            name = "lunch"
            pairs = 7
            mqtt = "5.0"
            rate = 100.0
            duration = 30.0
            [[scenario]]
            preset = "room5000"
        "#;
        let shapes = parse(text).unwrap();
        assert_eq!(shapes.len(), 2);
        assert_eq!((shapes[0].name.as_str(), shapes[0].pairs), ("lunch", 7));
        assert_eq!((shapes[0].rate, shapes[0].duration_secs), (Some(100.0), 30.0));
        assert_eq!(shapes[1].clients, 5000);
    }

    #[test]
    fn unknown_words_are_refused_by_name() {
        for (text, word) in [
            ("[[scenario]]\npreset = \"pairs1\"\nparis = 7", "paris"),
            ("[[scenario]]\npreset = \"nope\"", "nope"),
            ("[[scenario]]\npairs = 3", "preset"),
            ("[[scenarios]]\npreset = \"pairs1\"", "scenario"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn flags_win_over_files_and_presets() {
        let flags = Overrides { pairs: Some(3), ..Overrides::default() };
        let shapes = shapes(&["pairs1".to_owned()], &flags).unwrap();
        assert_eq!(shapes[0].pairs, 3);
    }
}
