//! Who may import whom: `hoopoe → im → store → core → codec` and `hoopoe → bridge → store → core →
//! codec`, and what the inner packages must not know: runtime, sockets, clock, chance, files.

use toml::{Table, Value};

use crate::Rule;
use crate::source::has_word;
use crate::tree::{File, Tree};

/// Each package and the workspace packages it may depend on, in any section of its manifest.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("hoopoe-codec", &[]),
    ("hoopoe-core", &["hoopoe-codec"]),
    ("hoopoe-store", &["hoopoe-core", "hoopoe-codec"]),
    ("hoopoe-im", &["hoopoe-store", "hoopoe-core", "hoopoe-codec"]),
    ("hoopoe-bridge", &["hoopoe-store", "hoopoe-core", "hoopoe-codec"]),
    ("hoopoe", &["hoopoe-im", "hoopoe-bridge", "hoopoe-store", "hoopoe-core", "hoopoe-codec"]),
    ("hoopoe-bench", &["hoopoe-store", "hoopoe-core", "hoopoe-codec"]),
    (
        "hoopoe-tests",
        &["hoopoe", "hoopoe-im", "hoopoe-bridge", "hoopoe-store", "hoopoe-core", "hoopoe-codec"],
    ),
];

/// The folders whose packages get time, chance and bytes as arguments.
const PURE: [&str; 4] = ["broker/codec/", "broker/core/", "broker/store/", "broker/im/"];

/// Outside crates a pure package must not name: runtimes, sockets, clocks, chance.
const IMPURE_CRATES: [&str; 19] = [
    "tokio",
    "tokio-rustls",
    "tokio-util",
    "mio",
    "socket2",
    "futures",
    "async-std",
    "smol",
    "axum",
    "rustls",
    "rumqttc",
    "tungstenite",
    "rand",
    "getrandom",
    "fastrand",
    "chrono",
    "time",
    "quanta",
    "uuid",
];

/// What the sources of a pure package must not say outside their tests.
const IMPURE_WORDS: [&str; 15] = [
    "tokio",
    "mio",
    "socket2",
    "std::net",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "SystemTime",
    "Instant::now",
    ".elapsed(",
    "rand::",
    "getrandom",
    "std::env",
    "std::process",
    "thread::sleep",
];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        demand: "packages import inward only (the table in ARCHITECTURE.md)",
        faults: outward_imports,
        breach: &[(
            "broker/core/Cargo.toml",
            "[package]\nname = \"hoopoe-core\"\n[dependencies]\nhoopoe-store.workspace = true\n",
        )],
    },
    Rule {
        demand: "codec, core, store and im depend on no runtime, socket, clock or source of chance",
        faults: impure_crates,
        breach: &[("broker/im/Cargo.toml", "[dependencies]\ntokio.workspace = true\n")],
    },
    Rule {
        demand: "codec, core, store and im get time, chance and bytes as arguments",
        faults: impure_words,
        breach: &[(
            "broker/core/src/session.rs",
            "// SystemTime\nfn f() { std::time::SystemTime::now(); }\n\
             #[cfg(test)]\nmod tests { use std::net; }\n",
        )],
    },
    Rule {
        demand: "files are touched only by the store's RocksDB sources (rocks*)",
        faults: file_access,
        breach: &[
            ("broker/store/src/memory.rs", "use std::fs;\n"),
            ("broker/store/src/rocks/open.rs", "use std::fs;\n"),
        ],
    },
];

fn outward_imports(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, manifest) in tree.manifests() {
        let Some(name) =
            manifest.get("package").and_then(|p| p.get("name")).and_then(Value::as_str)
        else {
            continue;
        };
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(package, _)| *package == name) else {
            faults.push(format!("{}:1: {name} is not in the import table", file.path));
            continue;
        };
        for dependency in dependencies(&manifest, &SECTIONS) {
            if dependency.starts_with("hoopoe") && !allowed.contains(&dependency.as_str()) {
                let line = line_naming(file, &dependency);
                faults.push(format!("{}:{line}: {name} imports {dependency}", file.path));
            }
        }
    }
    faults
}

fn impure_crates(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, manifest) in tree.manifests() {
        if !PURE.iter().any(|folder| file.path.starts_with(folder)) {
            continue;
        }
        // Tests of a pure package may use what they like.
        for dependency in dependencies(&manifest, &["dependencies", "build-dependencies"]) {
            if IMPURE_CRATES.contains(&dependency.as_str()) {
                let line = line_naming(file, &dependency);
                faults.push(format!("{}:{line}: depends on {dependency}", file.path));
            }
        }
    }
    faults
}

fn impure_words(tree: &Tree) -> Vec<String> {
    words_outside_tests(tree, &IMPURE_WORDS, |_| false)
}

fn file_access(tree: &Tree) -> Vec<String> {
    let by_rocksdb = |path: &str| {
        path.strip_prefix("broker/store/src/").is_some_and(|inner| inner.starts_with("rocks"))
    };
    words_outside_tests(tree, &["std::fs", "fs::File", "OpenOptions"], by_rocksdb)
}

/// Where a pure package's sources say one of `words`, tests and `excused` files left out.
fn words_outside_tests(tree: &Tree, words: &[&str], excused: fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for source in tree.sources() {
        let inside = PURE
            .iter()
            .filter_map(|folder| source.path.strip_prefix(folder))
            .any(|inner| inner.starts_with("src/"));
        if !inside || excused(&source.path) {
            continue;
        }
        for (number, line) in source.code_lines() {
            if source.is_test_line(number) {
                continue;
            }
            if let Some(word) = words.iter().find(|word| has_word(line, word)) {
                faults.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    faults
}

const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// The names in these sections of a manifest, those under `[target.…]` included.
fn dependencies(manifest: &Table, sections: &[&str]) -> Vec<String> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let places = std::iter::once(manifest)
        .chain(targets.into_iter().flat_map(|t| t.values().filter_map(Value::as_table)));
    let mut names = Vec::new();
    for place in places {
        for section in sections {
            if let Some(table) = place.get(*section).and_then(Value::as_table) {
                names.extend(table.keys().cloned());
            }
        }
    }
    names
}

/// The first line after the package's own name that begins with this dependency.
fn line_naming(file: &File, dependency: &str) -> usize {
    let names_it = |line: &str| {
        line.trim_start()
            .strip_prefix(dependency)
            .is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
    };
    file.text.lines().position(names_it).map_or(1, |index| index + 1)
}
