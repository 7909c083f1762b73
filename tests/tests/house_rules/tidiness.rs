//! What never enters the tree: tests that are skipped or wait for time to pass, work left for
//! later, lints silenced without a reason, addresses to download from.

use crate::Rule;
use crate::source::{Source, has_word};
use crate::tree::Tree;

/// Marks of unfinished work, in code.
const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

/// Marks of unfinished work, in comments.
const UNFINISHED_COMMENTS: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Hosts that packages or images are fetched from. Package managers know their own; a file of ours
/// that names one pins a place instead of a version.
const HOSTS: [&str; 13] = [
    "crates.io",
    "static.rust-lang.org",
    "sh.rustup.rs",
    "npmjs.",
    "yarnpkg.com",
    "unpkg.com",
    "jsdelivr.net",
    "pypi.org",
    "pythonhosted.org",
    "deb.debian.org",
    "ghcr.io",
    "docker.io",
    "/releases/download/",
];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        demand: "no test is ignored",
        faults: ignored_tests,
        breach: &[("tests/tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n")],
    },
    Rule {
        demand: "nothing is left for later",
        faults: unfinished_work,
        breach: &[("broker/src/a.rs", "fn a() { todo!(); }\nconst A: &str = \"TODO\";\n")],
    },
    Rule {
        demand: "a test waits for an event, never for time to pass",
        faults: sleeping_tests,
        breach: &[
            ("broker/src/a.rs", "#[cfg(test)]\nmod tests { fn a() { sleep(b); } }\n"),
            ("broker/src/b.rs", "fn a() { sleep(b); }\n"),
        ],
    },
    Rule {
        demand: "a silenced lint says why (reason = \"…\")",
        faults: silenced_lints,
        breach: &[("broker/src/a.rs", "#[allow(dead_code)]\nfn a() {}\n")],
    },
    Rule {
        demand: "no file names a host to download from",
        faults: hosts,
        breach: &[
            (
                "tests/clients/package-lock.json",
                "\n\"resolved\": \"https://registry.npmjs.org/a\"\n",
            ),
            ("Cargo.lock", "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n"),
        ],
    },
];

fn ignored_tests(tree: &Tree) -> Vec<String> {
    code_with(tree, &["#[ignore", "#![ignore"], |_, _| true)
}

fn sleeping_tests(tree: &Tree) -> Vec<String> {
    code_with(tree, &["sleep(", "sleep_until("], Source::is_test_line)
}

fn unfinished_work(tree: &Tree) -> Vec<String> {
    let mut faults = code_with(tree, &UNFINISHED, |_, _| true);
    for source in tree.sources() {
        for (index, line) in source.text.lines().enumerate() {
            let comment = line.trim_start();
            let mark = UNFINISHED_COMMENTS.iter().find(|mark| has_word(comment, mark));
            if let Some(mark) = mark.filter(|_| comment.starts_with("//")) {
                faults.push(format!("{}:{}: {mark}", source.path, index + 1));
            }
        }
    }
    faults
}

fn silenced_lints(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for source in tree.sources() {
        for (at, _) in
            source.code.match_indices("#[allow(").chain(source.code.match_indices("#![allow("))
        {
            let attribute = source.code[at..].split(']').next().unwrap_or_default();
            if !has_word(attribute, "reason") {
                let line = source.code[..at].lines().count().max(1);
                faults.push(format!("{}:{line}: allowed without a reason", source.path));
            }
        }
    }
    faults
}

fn hosts(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for file in tree.files() {
        // This file holds the list; Cargo.lock's sources are judged by `dependencies`.
        if file.path.ends_with("house_rules/tidiness.rs") || file.path == "Cargo.lock" {
            continue;
        }
        for (index, line) in file.text.lines().enumerate() {
            if let Some(host) = HOSTS.iter().find(|host| line.contains(**host)) {
                faults.push(format!("{}:{}: {host}", file.path, index + 1));
            }
        }
    }
    faults
}

/// Where code says one of `words`, on the lines that `counts` picks.
fn code_with(tree: &Tree, words: &[&str], counts: fn(&Source, usize) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for source in tree.sources() {
        for (number, line) in source.code_lines() {
            if !counts(source, number) {
                continue;
            }
            if let Some(word) = words.iter().find(|word| has_word(line, word)) {
                faults.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    faults
}
