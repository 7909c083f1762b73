//! `hoopoe backup` and `hoopoe restore`: what was acknowledged before a backup is in it, whether
//! the broker runs, is busy, or has stopped; and nothing that is not whole is restored.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hoopoe_tests::broker::Options;
use hoopoe_tests::stored::Stored;
use hoopoe_tests::{Broker, Connect, Publish, Version, program, reaper, unique_id, unique_topic};

fn hoopoe(arguments: &[&str]) -> (ExitStatus, String) {
    let mut command = program::hoopoe_command();
    command.args(arguments);
    program::run_to_end(command)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

fn back_up(data: &Path, to: &Path) -> String {
    let (status, said) = hoopoe(&["backup", text(to), "--data", text(data)]);
    assert!(status.success(), "{said}");
    said
}

fn restore(from: &Path, data: &Path) -> String {
    let (status, said) = hoopoe(&["restore", text(from), "--data", text(data)]);
    assert!(status.success(), "{said}");
    said
}

fn refuses(arguments: &[&str], wanted: &str) {
    let (status, said) = hoopoe(arguments);
    assert!(!status.success() && said.contains(wanted), "{arguments:?}: {said}");
}

/// A broker on what the backup holds.
fn restored(backup: &Path) -> Broker {
    let options = Options::new();
    restore(backup, &options.data());
    options.start()
}

#[test]
fn backup_of_a_running_broker_holds_what_was_acknowledged() {
    let broker = Broker::start();
    let stored = Stored::fill(&broker, 6, 20);
    let backup = reaper::temporary_folder("backup");
    let said = back_up(&broker.data(), &backup);
    assert!(said.contains("files"), "{said}");
    // What comes later is not in it, and the broker has nothing of it left.
    broker.v5().publish(Publish::new(stored.first_topic(), "later").qos(1));
    hoopoe_tests::eventually("the snapshot is removed", || {
        !broker.data().join("snapshot").exists()
    });
    stored.is_all_there(&restored(&backup));
    // Whoever holds the backup can restore it again.
    stored.is_all_there(&restored(&backup));
}

#[test]
fn backup_of_a_stopped_store_holds_everything() {
    let mut broker = Broker::start();
    let stored = Stored::fill(&broker, 4, 10);
    // The log is full of it.
    broker.kill();
    let backup = reaper::temporary_folder("backup").join("made/by/backup");
    back_up(&broker.data(), &backup);
    stored.is_all_there(&restored(&backup));
    broker.start_again();
    stored.is_all_there(&broker);
}

#[test]
fn backup_under_traffic_is_a_moment_of_it() {
    let broker = Broker::start();
    let topic = unique_topic("traffic");
    let connect = Connect::persistent(Version::V5, &unique_id("traffic"));
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&topic, 1);
    subscriber.disconnect();
    let (acknowledged, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let folder = reaper::temporary_folder("backups");
    let mut moments = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = broker.v5();
            let mut number = 0;
            while !enough.load(Ordering::Acquire) {
                number += 1;
                publisher.publish(Publish::new(&topic, number.to_string()).qos(1));
                acknowledged.store(number, Ordering::Release);
            }
        });
        for round in 0..3 {
            let before = acknowledged.load(Ordering::Acquire);
            hoopoe_tests::eventually("traffic flows", || {
                acknowledged.load(Ordering::Acquire) > before + 100
            });
            let backup = folder.join(round.to_string());
            let before = acknowledged.load(Ordering::Acquire);
            back_up(&broker.data(), &backup);
            moments.push((backup, before, acknowledged.load(Ordering::Acquire)));
        }
        enough.store(true, Ordering::Release);
    });
    for (backup, before, after) in moments {
        let copy = restored(&backup);
        let mut back = copy.connect(&connect);
        assert!(back.connack.session_present);
        copy.v5().publish(Publish::new(&topic, "end").qos(1));
        let mut count = 0;
        loop {
            let publish = back.take_publish();
            if publish.payload == b"end" {
                break;
            }
            count += 1;
            assert_eq!(publish.payload, count.to_string().into_bytes(), "no gap");
        }
        assert!((before..=after + 1).contains(&count), "{before} <= {count} <= {after}");
    }
}

#[test]
fn what_is_not_whole_is_not_restored() {
    let broker = Broker::start();
    let _stored = Stored::fill(&broker, 2, 4);
    let backup = reaper::temporary_folder("backup");
    back_up(&broker.data(), &backup);
    let target = reaper::temporary_folder("target");
    let restore = ["restore", text(&backup), "--data", text(&target)];

    // Neither over a backup nor into a folder in use.
    refuses(&["backup", text(&backup), "--data", text(&broker.data())], "not empty");
    refuses(&["restore", text(&backup), "--data", text(&broker.data())], "not empty");

    let list = backup.join("backup.json");
    let whole = fs::read_to_string(&list).expect("the list can be read");
    fs::write(&list, whole.replace("\"backup_format\": 1", "\"backup_format\": 2"))
        .expect("writes");
    refuses(&restore, "of format 2");
    fs::remove_file(&list).expect("it is there");
    refuses(&restore, "no whole backup");
    fs::write(&list, &whole).expect("writes");

    let tables = fs::read_dir(backup.join("db")).expect("the backup can be read");
    let mut tables = tables.map(|entry| entry.expect("a file").path());
    let table = tables.find(|path| path.extension().is_some_and(|end| end == "sst"));
    let table = table.expect("a backup has tables");
    let bytes = fs::read(&table).expect("it can be read");
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(&table, damaged).expect("writes");
    refuses(&restore, text(&table));
    let left = fs::read_dir(&target).expect("the folder is there").count();
    assert_eq!(left, 0, "a failed restore leaves nothing");
    fs::write(&table, bytes).expect("writes");
    let (status, said) = hoopoe(&restore);
    assert!(status.success(), "{said}");
}

#[test]
fn backup_names_what_is_missing() {
    let folder = reaper::temporary_folder("none");
    let (data, to) = (folder.join("data"), folder.join("to"));
    refuses(&["backup", text(&to), "--data", text(&data)], "no store in");
    refuses(&["restore", text(&to), "--data", text(&data)], "no whole backup");
    // A running broker that cannot be asked is not mistaken for a stopped one.
    let broker = Broker::start();
    fs::remove_file(broker.data().join("control")).expect("the socket is there");
    assert!(!to.exists(), "a backup that failed leaves nothing behind");
    refuses(&["backup", text(&to), "--data", text(&broker.data())], "in use");
}
