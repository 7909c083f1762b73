//! How far things may grow. ARCHITECTURE.md names the sizes to aim at (70 lines a function, 500 a
//! file); these are the points where growth stops and something is split by noun.

use std::collections::BTreeMap;

use crate::Rule;
use crate::tree::Tree;

/// Lines of a file, its tests left out.
const FILE_LINES: usize = 650;
/// Lines of a file with its tests, or of a file of tests.
const FILE_LINES_WITH_TESTS: usize = 1000;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 100;
/// Files in Rust in one folder.
const FOLDER_FILES: usize = 16;
/// Characters in a line. rustfmt keeps code to 100 and leaves comments and macros alone.
const LINE_CHARS: usize = 110;

pub(crate) const RULES: &[Rule] = &[
    Rule {
        demand: "a file has at most 650 lines without tests, 1000 with them",
        faults: long_files,
        breach: &[("broker/src/a.rs", LONG_FILE)],
    },
    Rule {
        demand: "a function has at most 100 lines",
        faults: long_functions,
        breach: &[("broker/src/a.rs", LONG_FUNCTION)],
    },
    Rule {
        demand: "a folder holds at most 16 files of code",
        faults: full_folders,
        breach: &[
            ("a/1.rs", ""),
            ("a/2.rs", ""),
            ("a/3.rs", ""),
            ("a/4.rs", ""),
            ("a/5.rs", ""),
            ("a/6.rs", ""),
            ("a/7.rs", ""),
            ("a/8.rs", ""),
            ("a/9.rs", ""),
            ("a/10.rs", ""),
            ("a/11.rs", ""),
            ("a/12.rs", ""),
            ("a/13.rs", ""),
            ("a/14.rs", ""),
            ("a/15.rs", ""),
            ("a/16.rs", ""),
            ("a/17.rs", ""),
        ],
    },
    Rule {
        demand: "a line has at most 110 characters, unless a literal or an address needs more",
        faults: long_lines,
        breach: &[(
            "broker/src/a.rs",
            "// A comment that is quite a bit longer than anybody wants to read in one go, at whatever time of day it may \
             have to say here.\n",
        )],
    },
];

fn long_files(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for source in tree.sources() {
        let all = source.text.lines().count();
        let own = if source.is_test_file() { 0 } else { source.lines_without_tests() };
        if own > FILE_LINES {
            faults.push(format!("{}:{FILE_LINES}: {own} lines without tests", source.path));
        } else if all > FILE_LINES_WITH_TESTS {
            faults.push(format!("{}:{FILE_LINES_WITH_TESTS}: {all} lines", source.path));
        }
    }
    faults
}

fn long_functions(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for source in tree.sources() {
        for function in source.functions() {
            let lines = function.last - function.first + 1;
            if lines > FUNCTION_LINES {
                let (path, first, name) = (&source.path, function.first, function.name);
                faults.push(format!("{path}:{first}: {name} has {lines} lines"));
            }
        }
    }
    faults
}

fn full_folders(tree: &Tree) -> Vec<String> {
    let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in tree.files().filter(|file| file.path.ends_with(".rs")) {
        folders.entry(file.folder()).or_default().push(&file.path);
    }
    let full = folders.into_iter().filter(|(_, files)| files.len() > FOLDER_FILES);
    full.map(|(folder, files)| format!("{}:1: one of {} in {folder}/", files[0], files.len()))
        .collect()
}

fn long_lines(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for source in tree.sources() {
        for (index, line) in source.text.lines().enumerate() {
            let chars = line.chars().count();
            if chars > LINE_CHARS && !line.contains('"') && !line.contains("://") {
                faults.push(format!("{}:{}: {chars} characters", source.path, index + 1));
            }
        }
    }
    faults
}

/// An empty file of one line too many.
const LONG_FILE: &str = text(&[b'\n'; FILE_LINES + 1]);

/// A function of more lines than allowed.
const LONG_FUNCTION: &str = text(&long_function());

const fn long_function() -> [u8; FUNCTION_LINES + 9] {
    let mut bytes = [b'\n'; FUNCTION_LINES + 9];
    let (head, _) = bytes.split_at_mut(8);
    head.copy_from_slice(b"fn f() {");
    bytes[FUNCTION_LINES + 8] = b'}';
    bytes
}

const fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}
