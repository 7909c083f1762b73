//! How files are called, what lies at the top of the tree, and how a module introduces itself.

use crate::Rule;
use crate::tree::Tree;

/// Names that say nothing about what is inside, alone or as the end of a longer name.
const EMPTY_NAMES: [&str; 10] = [
    "util", "utils", "common", "helper", "helpers", "manager", "managers", "context", "misc",
    "types",
];

/// What may be seen in the top folder; everything else belongs into one of these.
const AT_THE_TOP: [&str; 15] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "benches",
    "bridge",
    "broker",
    "clippy.toml",
    "config",
    "deny.toml",
    "rustfmt.toml",
    "tests",
];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        demand: "a file is a noun or the packet it serves, never utils, common, manager, context",
        faults: empty_names,
        breach: &[("broker/src/session_utils.rs", "//! x\n"), ("broker/src/session.rs", "//! x\n")],
    },
    Rule {
        demand: "the top folder holds the seven names and the conventional files only",
        faults: strangers_at_the_top,
        breach: &[("scripts/build.sh", ""), ("broker/src/main.rs", ""), (".ci/run", "")],
    },
    Rule {
        demand: "a file of code opens with //! lines: what it is for, what it owns, what it leaves",
        faults: silent_modules,
        breach: &[
            ("broker/src/a.rs", "use std::fmt;\n//! too late\n"),
            ("broker/src/b.rs", "#![forbid(unsafe_code)]\n\n//! b\n"),
            ("broker/src/b/tests.rs", "use super::*;\n"),
        ],
    },
    Rule {
        demand: "tests and places that ARCHITECTURE.md, CONTRIBUTING.md and the manual name are there",
        faults: lost_names,
        breach: &[
            ("ARCHITECTURE.md", "`a_test_is_here`, `a_test_that_is_gone`, `broker/src/a.rs`\n"),
            ("broker/src/a.rs", "//! a\nfn a_test_is_here() {}\n"),
        ],
    },
];

fn empty_names(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for source in tree.sources() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            let last_word = part.rsplit(['_', '-']).next().unwrap_or(part);
            if EMPTY_NAMES.contains(&last_word) {
                faults.push(format!("{}:1: {part} says nothing", source.path));
            }
        }
    }
    faults
}

fn strangers_at_the_top(tree: &Tree) -> Vec<String> {
    let mut faults: Vec<String> = Vec::new();
    let mut seen = "";
    for file in tree.files() {
        let top = file.path.split('/').next().unwrap_or_default();
        if !top.starts_with('.') && !AT_THE_TOP.contains(&top) && top != seen {
            faults.push(format!("{}:1: {top} at the top", file.path));
        }
        seen = top;
    }
    faults
}

fn silent_modules(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for source in tree.sources() {
        let mut lines = source.text.lines().map(str::trim);
        // A file of tests beside the code it tests is introduced by that code.
        if source.is_test_file() && !source.path.starts_with("tests/") {
            continue;
        }
        let first = lines.find(|line| !line.is_empty() && !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//!")) {
            faults.push(format!("{}:1: no //! lines", source.path));
        }
    }
    faults
}

/// Words between backticks that look like a test's name, or like a path from the top of the tree.
fn lost_names(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    let is_page = |path: &str| {
        let manual = path.starts_with("broker/docs/") && path.ends_with(".md");
        manual || ["ARCHITECTURE.md", "CONTRIBUTING.md"].contains(&path)
    };
    for page in tree.files().filter(|file| is_page(&file.path)) {
        for (index, line) in page.text.lines().enumerate() {
            for word in line.split('`').skip(1).step_by(2) {
                if looks_like_a_test(word) && !is_function(tree, word)
                    || looks_like_a_path(word) && !tree.files().any(|f| f.path.starts_with(word))
                {
                    faults.push(format!("{}:{}: no {word}", page.path, index + 1));
                }
            }
        }
    }
    faults
}

fn looks_like_a_test(word: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    word.bytes().all(in_name) && word.matches('_').count() >= 3
}

fn is_function(tree: &Tree, name: &str) -> bool {
    let definition = format!("fn {name}(");
    tree.sources().any(|source| source.text.contains(&definition))
}

fn looks_like_a_path(word: &str) -> bool {
    let roots = ["broker/", "bridge/", "benches/", "tests/", "config/", ".ci/"];
    roots.iter().any(|root| word.starts_with(root)) && !word.contains(' ')
}
