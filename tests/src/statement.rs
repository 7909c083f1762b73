//! The lists of normative statements in `conformance/`, and the tests the sources define.
//!
//! Reads files only; what the lists must contain is judged by `tests/conformance/list.rs`.

use std::path::Path;

use serde::Deserialize;

/// Whom a statement binds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The server, or both.
    Server,
    /// Clients only.
    Client,
}

/// One normative statement of a standard.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// As in the standard's appendix B, without brackets.
    pub id: String,
    /// Whom it binds.
    pub side: Side,
    /// What it says, in our words.
    pub text: String,
    /// Names of the tests that cover it.
    #[serde(default)]
    pub tests: Vec<String>,
    /// Why no test covers it.
    pub reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    statement: Vec<Statement>,
}

/// Reads one list of this package, e.g. `conformance/mqtt-5.0.toml`.
pub fn read_list(file: &str) -> Vec<Statement> {
    let path = crate::program::package_file(file);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let list: List = toml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    list.statement
}

/// Folders whose tests may cover a statement: some need settings of their own.
const TEST_FOLDERS: [&str; 2] = ["tests/conformance", "tests/operation"];

/// The names of all `#[test]` functions in those folders, with their files.
pub fn conformance_tests() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in TEST_FOLDERS.map(crate::program::package_file) {
        for entry in std::fs::read_dir(&folder).expect("the tests folder can be listed") {
            let path = entry.expect("the tests folder can be listed").path();
            let file = path.display().to_string();
            if file.ends_with(".rs") {
                found.extend(test_functions(&path).into_iter().map(|name| (name, file.clone())));
            }
        }
    }
    found
}

/// Functions that stand under a `#[test]` line, other attributes in between allowed.
fn test_functions(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("a source file can be read");
    let mut names = Vec::new();
    let mut after_test = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            after_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if after_test && let Some((name, _)) = rest.split_once('(') {
                names.push(name.to_owned());
            }
            after_test = false;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            after_test = false;
        }
    }
    names
}
