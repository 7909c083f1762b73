//! The house rules of ARCHITECTURE.md and CONTRIBUTING.md, as far as a program can judge them:
//! who may import whom, how long things may grow, how they are called, what never enters the tree.
//!
//! A rule is a function from the tree to faults, each naming file, line and what is wrong. Every
//! rule carries a small tree that breaks it, so that a rule which has gone blind fails too.
//! Judgement of style stays with readers; formatting with rustfmt, lints with clippy.

mod dependencies;
mod imports;
mod manual;
mod names;
mod sizes;
mod source;
mod tidiness;
mod tree;

use tree::Tree;

/// One rule: what it demands, how it is judged, and a tree that breaks it once.
struct Rule {
    demand: &'static str,
    faults: fn(&Tree) -> Vec<String>,
    breach: &'static [(&'static str, &'static str)],
}

/// All rules, room by room.
fn rules() -> impl Iterator<Item = &'static Rule> {
    let rooms = [
        imports::RULES,
        dependencies::RULES,
        sizes::RULES,
        names::RULES,
        tidiness::RULES,
        manual::RULES,
    ];
    rooms.into_iter().flatten()
}

#[test]
fn the_house_is_in_order() {
    let tree = Tree::of_the_workspace();
    let mut report = String::new();
    for rule in rules() {
        let faults = (rule.faults)(&tree);
        if !faults.is_empty() {
            report.push_str(&format!("\n{}:\n  {}\n", rule.demand, faults.join("\n  ")));
        }
    }
    assert!(report.is_empty(), "house rules broken\n{report}");
}

#[test]
fn every_rule_sees_its_breach() {
    for rule in rules() {
        let faults = (rule.faults)(&Tree::of(rule.breach));
        assert_eq!(faults.len(), 1, "{}: {faults:?}", rule.demand);
        let (path, _) = rule.breach[0];
        assert!(faults[0].starts_with(path), "{} does not name {path}: {faults:?}", rule.demand);
    }
}

#[test]
fn the_tree_is_the_whole_workspace() {
    let tree = Tree::of_the_workspace();
    for path in ["Cargo.lock", "broker/src/main.rs", "bridge/Cargo.toml", ".ci/run"] {
        assert!(tree.files().any(|file| file.path == path), "{path} was not read");
    }
}
