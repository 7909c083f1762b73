//! The table of the messaging manual that says which test covers which row: complete, and true.

use std::collections::BTreeSet;

use crate::Rule;
use crate::tree::{File, Tree};

/// The manual.
const MANUAL: &str = "broker/docs/im.md";
/// Its sections of topics, of services, and the one with the table.
const TOPICS: [&str; 2] = ["## 3. ", "## 4. "];
const SERVICES: &str = "## 7. ";
const TABLE: &str = "## 11. ";

pub(crate) const RULES: &[Rule] = &[
    Rule {
        demand: "a test that the manual names exists",
        faults: named_tests,
        breach: &[
            (MANUAL, "## 11. Rows\n| row | test |\n|---|---|\n| a | `gone`, `there` |\n"),
            ("broker/src/a.rs", "#[test]\nfn there() {}\nfn gone() {}\n"),
        ],
    },
    Rule {
        demand: "every topic and every operation of the manual has a row that names its tests",
        faults: rows,
        breach: &[(
            MANUAL,
            "## 3. Topics\n| topic | x |\n|---|---|\n| `im/a` | x |\n## 7. Services\n\
             | op | x |\n|---|---|\n| time/now; group/a, b | x |\n## 11. Rows\n| row | test |\n\
             |---|---|\n| `im/a` | `t` |\n| time/now, group/a | `t` |\n",
        )],
    },
];

/// The manual, if the tree has it.
fn manual(tree: &Tree) -> Option<&File> {
    tree.files().find(|file| file.path == MANUAL)
}

/// The rows of a section's tables, without their heads, as cells.
fn cells<'t>(file: &'t File, section: &str) -> Vec<Vec<&'t str>> {
    let lines = file.text.lines().skip_while(|line| !line.starts_with(section)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    let mut rows = Vec::new();
    for line in lines.filter_map(|line| line.strip_prefix('|')) {
        if line.starts_with("---") {
            // What stood before it was the head.
            rows.pop();
        } else {
            rows.push(line.split('|').map(str::trim).collect());
        }
    }
    rows
}

/// What stands between backticks.
fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Operations as the manual spells them: `group/join, apply` is two.
fn operations(cell: &str) -> Vec<String> {
    let mut service = "";
    let names = cell.split([',', ';']).map(str::trim).filter(|name| !name.is_empty());
    let spelled = names.map(|name| match name.split_once('/') {
        Some((of, _)) => {
            service = of;
            name.to_owned()
        }
        None => format!("{service}/{name}"),
    });
    spelled.collect()
}

fn tests(tree: &Tree) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for file in tree.files().filter(|file| file.path.ends_with(".rs")) {
        let mut is_test = false;
        for line in file.text.lines().map(str::trim) {
            if line == "#[test]" {
                is_test = true;
            } else if let Some(rest) = line.strip_prefix("fn ") {
                names.extend(rest.split('(').next().filter(|_| is_test));
                is_test = false;
            }
        }
    }
    names
}

fn named_tests(tree: &Tree) -> Vec<String> {
    let Some(file) = manual(tree) else { return Vec::new() };
    let tests = tests(tree);
    let rows = cells(file, TABLE);
    let named = rows.iter().filter_map(|row| row.get(1)).flat_map(|cell| spans(cell));
    let missing = named.filter(|name| !tests.contains(name));
    missing.map(|name| format!("{MANUAL}: no test is called {name}")).collect()
}

fn rows(tree: &Tree) -> Vec<String> {
    let Some(file) = manual(tree) else { return Vec::new() };
    let mut covered = BTreeSet::new();
    for row in cells(file, TABLE) {
        let of_tests = row.get(1).is_some_and(|tests| spans(tests).next().is_some());
        if let Some(cell) = row.first().filter(|_| of_tests) {
            covered.extend(spans(cell).map(str::to_owned));
            covered.extend(operations(cell));
        }
    }
    let first = |section| cells(file, section).into_iter().filter_map(|row| row.first().copied());
    let topics = TOPICS.into_iter().flat_map(first).flat_map(spans).map(str::to_owned);
    let services = first(SERVICES).flat_map(operations);
    let without = topics.chain(services).filter(|row| !covered.contains(row));
    without.map(|row| format!("{MANUAL}: no row of section 11 says what covers {row}")).collect()
}
