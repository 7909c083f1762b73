//! Files of a store damaged behind the broker's back: a start says which, or goes on where it can,
//! and `hoopoe repair` keeps what can be read.

use std::fs;
use std::path::{Path, PathBuf};

use hoopoe_tests::broker::Options;
use hoopoe_tests::stored::Stored;
use hoopoe_tests::{Broker, program};

/// Messages of each session: enough for many blocks in a table.
const MESSAGES: usize = 120;
const SESSIONS: usize = 4;
/// Bytes of a message: a good part of a block.
const MESSAGE_BYTES: usize = 400;
/// The number of shards is in a row of the store, which may be the one that is damaged.
const SHARDS: &str = "4";

/// A broker that was killed with part of its state in tables and part in the log.
fn killed_broker() -> (Broker, Stored) {
    let mut broker = Options::new().argument("--shards").argument(SHARDS).start();
    let mut stored = Stored::fill(&broker, SESSIONS, 4);
    fill_on(&broker, &mut stored, MESSAGES / 2);
    broker.restart();
    fill_on(&broker, &mut stored, MESSAGES / 2);
    broker.kill();
    (broker, stored)
}

fn fill_on(broker: &Broker, stored: &mut Stored, messages: usize) {
    let mut publisher = broker.v5();
    for number in 0..messages {
        stored.publish(&mut publisher, &incompressible(number));
    }
}

/// A text of its own that a table cannot make smaller.
fn incompressible(number: usize) -> String {
    let mut seed = number as u64 + 1;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + (seed >> 58) as u8)
    };
    (0..MESSAGE_BYTES).map(|_| next()).collect()
}

/// The files of the database whose names end or begin so, the largest first.
fn files(broker: &Broker, part: &str) -> Vec<PathBuf> {
    let database = broker.data().join("db");
    let entries = fs::read_dir(database).expect("there is a database");
    let mut files: Vec<(u64, PathBuf)> = entries
        .map(|entry| entry.expect("a file").path())
        .filter(|path| name(path).contains(part))
        .map(|path| (fs::metadata(&path).expect("a file").len(), path))
        .collect();
    files.sort_by_key(|(bytes, path)| (std::cmp::Reverse(*bytes), path.clone()));
    files.into_iter().map(|(_, path)| path).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

/// Flips a bit at a place between the beginning (0.0) and the end (1.0).
fn damage(path: &Path, place: f64) {
    let mut bytes = fs::read(path).expect("the file can be read");
    let at = (bytes.len() as f64 * place) as usize;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("the file can be written");
}

fn repair(broker: &Broker) -> String {
    let mut command = program::hoopoe_command();
    command.arg("repair").arg(broker.data()).args(["--shards", SHARDS]);
    let (status, said) = program::run_to_end(command);
    assert!(status.success(), "{said}");
    assert!(said.contains("db.damaged-1"), "what was there is kept: {said}");
    said
}

/// The start is refused with the file's name and the way out.
fn start_names(broker: &Broker, file: &str) {
    let said = broker.refuses_to_start();
    assert!(said.contains(file), "{file} in: {said}");
    assert!(said.contains("hoopoe repair"), "{said}");
}

/// What the repair says is lost.
fn lost(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with("lost: ")).collect()
}

#[test]
fn a_damaged_manifest_is_named_and_repair_keeps_everything() {
    let (mut broker, stored) = killed_broker();
    let manifest = files(&broker, "MANIFEST-").remove(0);
    damage(&manifest, 0.5);
    start_names(&broker, name(&manifest));
    let said = repair(&broker);
    assert!(lost(&said).len() == 1 && lost(&said)[0].contains(name(&manifest)), "{said}");
    broker.start_again();
    stored.is_all_there(&broker);
}

#[test]
fn a_lost_or_damaged_current_is_named_and_repair_keeps_everything() {
    for text in [None, Some("MANIFEST-"), Some("MANIFEST-999999\n")] {
        let (mut broker, stored) = killed_broker();
        let current = broker.data().join("db/CURRENT");
        match text {
            Some(text) => fs::write(&current, text).expect("it can be written"),
            None => fs::remove_file(&current).expect("it is there"),
        }
        start_names(&broker, "CURRENT");
        let said = repair(&broker);
        assert!(said.contains("CURRENT"), "{said}");
        broker.start_again();
        stored.is_all_there(&broker);
    }
}

#[test]
fn a_store_that_was_never_in_tables_is_repaired_from_its_log() {
    let mut broker = Broker::start();
    let stored = Stored::fill(&broker, SESSIONS, 10);
    broker.kill();
    fs::remove_file(broker.data().join("db/CURRENT")).expect("it is there");
    start_names(&broker, "CURRENT");
    repair(&broker);
    broker.start_again();
    stored.is_all_there(&broker);
}

#[test]
fn a_lost_table_is_named_and_repair_keeps_the_others() {
    let (mut broker, stored) = killed_broker();
    let table = files(&broker, ".sst").remove(0);
    fs::remove_file(&table).expect("it is there");
    start_names(&broker, name(&table));
    let said = repair(&broker);
    assert!(said.contains(name(&table)), "{said}");
    broker.start_again();
    let left = stored.how_many_are_left(&broker);
    assert!(left >= stored.how_many() / 3, "{left} of {} after {said}", stored.how_many());
    assert!(left < stored.how_many(), "something was lost");
}

#[test]
fn a_damaged_block_costs_what_is_in_it() {
    let (mut broker, stored) = killed_broker();
    let table = files(&broker, ".sst").remove(0);
    damage(&table, 0.4);
    // A table of queues is read when its sessions come: the start goes well, the reading says it.
    broker.start_again();
    let said = repair_of_a_running_one(&broker);
    assert!(said.contains("in use"), "{said}");
    broker.kill();
    let said = repair(&broker);
    assert!(lost(&said).iter().any(|line| line.contains(name(&table))), "{said}");
    broker.start_again();
    let (left, all) = (stored.how_many_are_left(&broker), stored.how_many());
    assert!(left < all && left > all * 8 / 10, "{left} of {all} after {said}");
}

fn repair_of_a_running_one(broker: &Broker) -> String {
    let mut command = program::hoopoe_command();
    command.arg("repair").arg(broker.data());
    let (status, said) = program::run_to_end(command);
    assert!(!status.success(), "{said}");
    said
}

#[test]
fn every_table_may_be_damaged_anywhere() {
    let (mut broker, stored) = killed_broker();
    let kept = hoopoe_tests::reaper::temporary_folder("kept");
    let database = broker.data().join("db");
    copy(&database, &kept);
    let tables: Vec<PathBuf> = files(&broker, ".sst");
    assert!(tables.len() >= 4, "tables of the families: {tables:?}");
    for table in &tables {
        for place in [0.05, 0.97] {
            fs::remove_dir_all(broker.data()).expect("the folder can be removed");
            fs::create_dir(broker.data()).expect("the folder can be made");
            copy(&kept, &database);
            damage(table, place);
            let said = repair(&broker);
            // Whatever it was, the broker runs, and gives out nothing that was not stored.
            broker.start_again();
            let left = stored.how_many_are_left(&broker);
            let told = said.contains(name(table)) || left == stored.how_many();
            assert!(told, "{left} of {} after {said}", stored.how_many());
            broker.kill();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder can be made");
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let path = entry.expect("a file").path();
        fs::copy(&path, to.join(name(&path))).expect("the file can be copied");
    }
}

#[test]
fn a_torn_log_is_named_and_costs_its_end() {
    let (mut broker, stored) = killed_broker();
    let log = files(&broker, ".log").remove(0);
    let bytes = fs::read(&log).expect("the log can be read");
    fs::write(&log, &bytes[..bytes.len() - 10]).expect("the log can be written");
    broker.start_again();
    broker.wait_for_log(name(&log));
    assert!(broker.has_logged("ends in the middle of a record"));
    let (left, all) = (stored.how_many_are_left(&broker), stored.how_many());
    assert!(left < all && left > all - 2 * SESSIONS, "{left} of {all}");
}

#[test]
fn a_hole_in_the_log_is_an_error_and_the_log_is_kept() {
    let (mut broker, stored) = killed_broker();
    let log = files(&broker, ".log").remove(0);
    damage(&log, 0.3);
    broker.start_again();
    broker.wait_for_log(name(&log));
    assert!(broker.has_logged("holds a damaged record"));
    let kept = broker.data().join("damaged-logs").join(name(&log));
    assert!(kept.exists(), "{} is kept", kept.display());
    let (left, all) = (stored.how_many_are_left(&broker), stored.how_many());
    assert!(left < all && left > all / 2, "{left} of {all}");
}

#[test]
fn repair_of_a_sound_store_loses_nothing() {
    let (mut broker, stored) = killed_broker();
    let said = repair(&broker);
    assert!(said.contains("nothing was lost"), "{said}");
    broker.start_again();
    stored.is_all_there(&broker);
    broker.kill();
    // One that was interrupted at its end is noticed.
    let data = broker.data();
    fs::create_dir(data.join("db.repaired")).expect("the folder can be made");
    fs::rename(data.join("db"), data.join("db.repaired/db")).expect("it can be moved");
    assert!(broker.refuses_to_start().contains("db.repaired"));
}
