//! Guards the lists of normative statements: none missing, none twice, none without a test or a
//! reason, and no test that does not exist.

use std::collections::{BTreeMap, BTreeSet};

use hoopoe_tests::statement::{Side, conformance_tests, read_list};

/// How many statements each section of MQTT 3.1.1 numbers in its appendix B.
const MQTT_3_1_1: &[(&str, u16)] = &[
    ("1.5.3", 3),
    ("2.2.2", 2),
    ("2.3.1", 7),
    ("3.1.0", 2),
    ("3.1.2", 24),
    ("3.1.3", 11),
    ("3.1.4", 5),
    ("3.2.0", 1),
    ("3.2.2", 6),
    ("3.3.1", 12),
    ("3.3.2", 3),
    ("3.3.4", 1),
    ("3.3.5", 2),
    ("3.6.1", 1),
    ("3.8.1", 1),
    ("3.8.3", 4),
    ("3.8.4", 6),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.12.4", 1),
    ("3.14.1", 1),
    ("3.14.4", 3),
    ("4.1.0", 2),
    ("4.3.1", 1),
    ("4.3.2", 2),
    ("4.3.3", 2),
    ("4.4.0", 1),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.1", 3),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.0", 2),
    ("6.0.0", 4),
    ("7.0.0", 2),
    ("7.1.1", 1),
    ("7.1.2", 1),
];

/// The same for MQTT 5.0, whose numbering starts at 2 in section 2.2.1.
const MQTT_5_0: &[(&str, u16)] = &[
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2.0", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];

/// Numbers a standard leaves out.
const LEFT_OUT: &[&str] = &["MQTT-2.2.1-1"];

fn numbered(sections: &[(&str, u16)], left_out: &[&str]) -> BTreeSet<String> {
    let all = sections
        .iter()
        .flat_map(|(section, count)| (1..=*count).map(move |n| format!("MQTT-{section}-{n}")));
    all.filter(|id| !left_out.contains(&id.as_str())).collect()
}

fn check(file: &str, expected: &BTreeSet<String>) {
    let known: BTreeSet<String> = conformance_tests().into_iter().map(|(name, _)| name).collect();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for statement in read_list(file) {
        let id = &statement.id;
        if !seen.insert(id.clone()) {
            faults.push(format!("{id} stands twice"));
        }
        if statement.text.trim().is_empty() {
            faults.push(format!("{id} has no text"));
        }
        match (statement.tests.is_empty(), &statement.reason) {
            (true, None) => faults.push(format!("{id} has neither tests nor a reason")),
            (false, Some(_)) => faults.push(format!("{id} has tests and a reason")),
            (true, Some(reason)) if reason.trim().is_empty() => {
                faults.push(format!("{id} has an empty reason"));
            }
            _ => {}
        }
        if statement.side == Side::Client && !statement.tests.is_empty() {
            faults.push(format!("{id} binds clients only, so no test of a server covers it"));
        }
        for test in statement.tests.iter().filter(|test| !known.contains(*test)) {
            faults.push(format!("{id} names the test {test}, which does not exist"));
        }
    }
    faults.extend(expected.difference(&seen).map(|id| format!("{id} is missing")));
    faults.extend(seen.difference(expected).map(|id| format!("{id} is not in the standard")));
    assert!(faults.is_empty(), "{file}:\n{}", faults.join("\n"));
}

#[test]
fn list_of_mqtt_3_1_1_is_complete() {
    check("conformance/mqtt-3.1.1.toml", &numbered(MQTT_3_1_1, &[]));
}

#[test]
fn list_of_mqtt_5_0_is_complete() {
    check("conformance/mqtt-5.0.toml", &numbered(MQTT_5_0, LEFT_OUT));
}

#[test]
fn no_two_conformance_tests_share_a_name() {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, file) in conformance_tests() {
        files.entry(name).or_default().push(file);
    }
    assert!(files.len() > 50, "only {} tests were found in the sources", files.len());
    files.retain(|_, files| files.len() > 1);
    assert!(files.is_empty(), "the same name in several files: {files:?}");
}
