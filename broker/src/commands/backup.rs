//! `hoopoe backup` and `hoopoe restore`: the store of a data folder copied to another folder, and
//! back into an empty one.
//!
//! A backup is a folder with `backup.json`, which names every file with its length and checksum
//! and the broker's id, and `db`, the files of a snapshot of the store. `backup.json` is written
//! last: without it there is no backup, and what was made for one that failed is removed. A running
//! broker makes the snapshot itself (`admin/control.rs`); without one it is made here. Settings,
//! users, rules and certificates are not in it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use hoopoe_store::rocks::stored_format;
use hoopoe_store::{Store, StoreSettings};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::admin::control;
use crate::bridges::{KeptId, id_file, is_broker_id, keep_id, kept_id};
use crate::settings::{Durability, SettingsSource};

/// Format of `backup.json`. Another one is refused.
const FORMAT: u32 = 1;
/// The file that makes a folder a backup.
const LIST: &str = "backup.json";
/// The folder of the store's files, in backups and in data folders.
const DATABASE: &str = "db";
/// Where a restore copies to before the store is there.
const RESTORING: &str = "db.restoring";
/// Bytes copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What `backup.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    /// [`FORMAT`].
    backup_format: u32,
    /// Number of shards that wrote the store.
    shards: u16,
    /// Version of the program that made it.
    version: String,
    /// When, in seconds since the epoch.
    made_at_secs: u64,
    /// The id drawn for the broker, by which others know its links. Earlier backups, and those of
    /// brokers with an id in their settings, have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broker_id: Option<String>,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    /// XXH3, 64 bits, as hexadecimal digits.
    xxh3: String,
}

/// Makes a backup of the data folder of `source` in the folder `to`, which is made or empty.
///
/// # Errors
/// When the store cannot be read, or the backup not written; what was written of it is no backup.
pub fn backup(
    source: &SettingsSource,
    to: &Path,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let settings = source.load()?;
    ensure!(
        settings.broker.durability != Durability::Memory,
        "the durability is memory: there is nothing on the disk"
    );
    let data = settings.broker.data_dir;
    let made = make_empty(to)?;
    let list = match write_backup(&data, to) {
        Ok(list) => list,
        Err(error) => {
            // Else the next try would find a folder that is not empty.
            return Err(match clear(to, &made) {
                Ok(()) => error,
                Err(left) => error.context(format!("{} holds what failed: {left}", to.display())),
            });
        }
    };
    let bytes: u64 = list.files.iter().map(|file| file.bytes).sum();
    let (shown, to, files) = (data.display(), to.display(), list.files.len());
    writeln!(out, "{to}: backup of {shown}, {files} files, {bytes} bytes")?;
    if list.broker_id.is_none() && id_file(&data).exists() {
        let file = id_file(&data);
        writeln!(out, "{} holds no broker id: the backup has none", file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies a snapshot of the data folder `data` to the folder `to`, which is empty.
fn write_backup(data: &Path, to: &Path) -> anyhow::Result<List> {
    let snapshot = match control::connect(data) {
        Ok(stream) => Snapshot::of_a_running_broker(stream, data)?,
        Err(error) if is_nobody(&error) => Snapshot::of_a_stopped_store(data)?,
        Err(error) => {
            return Err(error).with_context(|| {
                format!("the broker that runs on {} cannot be asked", data.display())
            });
        }
    };
    let database = to.join(DATABASE);
    fs::create_dir(&database).with_context(|| format!("cannot make {}", database.display()))?;
    let from = snapshot.folder.join(DATABASE);
    let mut files = Vec::new();
    for name in file_names(&from)? {
        let entry = copy(&from.join(&name), &database.join(&name), name)?;
        files.push(entry);
    }
    let made_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let list = List {
        backup_format: FORMAT,
        shards: snapshot.shards,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at_secs: made_at.as_secs(),
        broker_id: match kept_id(data)? {
            KeptId::Id(id) => Some(id),
            KeptId::Missing | KeptId::Damaged => None,
        },
        files,
    };
    sync_folder(&database)?;
    write_list(to, &list)?;
    Ok(list)
}

/// Removes what was made of a backup, and the folders that were made for it.
fn clear(to: &Path, made: &[PathBuf]) -> io::Result<()> {
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    gone(fs::remove_file(to.join(LIST)))?;
    gone(fs::remove_dir_all(to.join(DATABASE)))?;
    made.iter().try_for_each(fs::remove_dir)
}

/// Puts a backup into the data folder `data`, which is made or empty.
///
/// # Errors
/// When the backup is not whole, the folder not empty, or the store cannot be opened afterwards.
pub fn restore(from: &Path, data: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let list = read_list(from)?;
    make_empty(data)?;
    if let Err(error) = put_back(from, data, &list) {
        // The folder is as empty as it was.
        let _ = fs::remove_dir_all(data.join(RESTORING));
        let _ = fs::remove_file(id_file(data));
        return Err(error);
    }
    sync_folder(data)?;
    let stored = stored_format(data)?.context("the backup holds no store")?;
    let (from, data, shards) = (from.display(), data.display(), stored.shards);
    writeln!(out, "{data}: restored from {from}, {} files; {shards} shards", list.files.len())?;
    if list.broker_id.is_none() {
        writeln!(
            out,
            "no broker id is in the backup: unless the settings say broker.id, the broker draws a \
             new one, and links without a client_id begin new sessions at their remote brokers"
        )?;
    }
    if shards != StoreSettings::default().shards {
        writeln!(out, "start the broker with --shards {shards}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts what the backup holds into its places, the store last.
fn put_back(from: &Path, data: &Path, list: &List) -> anyhow::Result<()> {
    let restoring = data.join(RESTORING);
    copy_back(from, &restoring, list)?;
    if let Some(id) = &list.broker_id {
        ensure!(is_broker_id(id), "{LIST} names {id}, which is no broker id");
        keep_id(data, id)?;
    }
    fs::rename(&restoring, data.join(DATABASE)).context("the store cannot be put in its place")
}

/// A snapshot that lasts as long as this value.
struct Snapshot {
    folder: PathBuf,
    shards: u16,
    _held: Held,
}

/// What keeps a snapshot there.
enum Held {
    /// The broker removes it when this connection ends.
    Broker { _stream: UnixStream },
    /// It was made here; the store is open, so that no broker starts meanwhile.
    Here { folder: PathBuf, _store: Store },
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Held::Here { folder, .. } = self {
            // The next backup or start removes what is left.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

impl Snapshot {
    fn of_a_running_broker(mut stream: UnixStream, data: &Path) -> anyhow::Result<Snapshot> {
        writeln!(stream, "{}", control::BACKUP)?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer)?;
        let answer = answer.trim_end();
        // The folder behind it is named as the broker's working folder has it; it lies in `data`.
        let Some((shards, _)) =
            answer.strip_prefix("ok ").and_then(|answer| answer.split_once(' '))
        else {
            let said = answer.strip_prefix("error ").unwrap_or(answer);
            bail!("the broker makes no snapshot: {said}");
        };
        let shards = shards.parse().context("the broker's answer makes no sense")?;
        let folder = control::snapshot_folder(data);
        Ok(Snapshot { folder, shards, _held: Held::Broker { _stream: stream } })
    }

    fn of_a_stopped_store(data: &Path) -> anyhow::Result<Snapshot> {
        let stored = stored_format(data)?;
        let stored = stored.with_context(|| format!("there is no store in {}", data.display()))?;
        let settings = StoreSettings {
            folder: data.to_path_buf(),
            shards: stored.shards,
            reserve_bytes: 0,
            ..StoreSettings::default()
        };
        let store = Store::open(&settings)?;
        let folder = control::snapshot_folder(data);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        store.checkpoint(&folder)?;
        let held = Held::Here { folder: folder.clone(), _store: store };
        Ok(Snapshot { folder, shards: stored.shards, _held: held })
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// A folder that is new or was empty. Gives the folders that were made, the innermost first.
fn make_empty(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let shown = folder.display();
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            ensure!(entries.next().is_none(), "{shown} is not empty: nothing was written");
            Ok(Vec::new())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_new = |at: &&Path| !at.as_os_str().is_empty() && !at.exists();
            let new = folder.ancestors().take_while(is_new).map(Path::to_owned).collect();
            fs::create_dir_all(folder).with_context(|| format!("cannot make {shown}"))?;
            Ok(new)
        }
        Err(error) => Err(error).with_context(|| format!("cannot use {shown}")),
    }
}

/// Names of the files of a folder, sorted.
fn file_names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let name = entry?.file_name().into_string();
        names.push(name.map_err(|name| anyhow::anyhow!("{} is no name", name.display()))?);
    }
    names.sort();
    Ok(names)
}

/// Copies a file and syncs the copy.
fn copy(from: &Path, to: &Path, name: String) -> anyhow::Result<Entry> {
    let copying = || -> io::Result<(u64, u64)> {
        let (mut reading, mut writing) = (File::open(from)?, File::create_new(to)?);
        let (mut hash, mut bytes) = (Xxh3::new(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = reading.read(&mut chunk)?;
            if length == 0 {
                break;
            }
            hash.update(&chunk[..length]);
            writing.write_all(&chunk[..length])?;
            bytes += length as u64;
        }
        writing.sync_all()?;
        Ok((bytes, hash.digest()))
    };
    let copied = copying();
    let (bytes, hash) =
        copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(Entry { name, bytes, xxh3: format!("{hash:016x}") })
}

fn copy_back(from: &Path, restoring: &Path, list: &List) -> anyhow::Result<()> {
    fs::create_dir(restoring).with_context(|| format!("cannot make {}", restoring.display()))?;
    for wanted in &list.files {
        let name = &wanted.name;
        ensure!(!name.contains('/') && name != "..", "{LIST} names {name}, which is no file of it");
        let file = from.join(DATABASE).join(name);
        let copied = copy(&file, &restoring.join(name), name.clone())?;
        ensure!(
            (copied.bytes, &copied.xxh3) == (wanted.bytes, &wanted.xxh3),
            "{} is damaged: it is not the file that the backup was made of",
            file.display()
        );
    }
    sync_folder(restoring)
}

fn write_list(to: &Path, list: &List) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut file = File::create_new(to.join(LIST))?;
        serde_json::to_writer_pretty(&mut file, list)?;
        writeln!(file)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", to.join(LIST).display()))?;
    sync_folder(to)
}

fn read_list(from: &Path) -> anyhow::Result<List> {
    let path = from.join(LIST);
    let shown = path.display();
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{} is no whole backup: {shown}", from.display()))?;
    /// What every format has.
    #[derive(Deserialize)]
    struct Head {
        backup_format: u32,
    }
    let head: Head = serde_json::from_str(&text).with_context(|| format!("cannot read {shown}"))?;
    let found = head.backup_format;
    ensure!(found == FORMAT, "{shown} is of format {found}; this program reads format {FORMAT}");
    serde_json::from_str(&text).with_context(|| format!("cannot read {shown}"))
}

/// Has the names in a folder reach the disk.
fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot sync {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    fn source(data: &Path) -> SettingsSource {
        let mut source = SettingsSource::default();
        source.flags.data_dir = Some(data.to_owned());
        source
    }

    /// A data folder with a store in it.
    fn filled() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        let settings = StoreSettings {
            folder: data.path().to_owned(),
            shards: 1,
            reserve_bytes: 0,
            ..StoreSettings::default()
        };
        Store::open(&settings).unwrap();
        data
    }

    /// A broker that answers one request in these words.
    fn broker(data: &Path, answer: &'static str) -> JoinHandle<()> {
        let listener = UnixListener::bind(data.join("control")).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            writeln!(stream, "{answer}").unwrap();
            // Until the other end closes.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        })
    }

    #[test]
    fn the_snapshot_is_looked_for_in_the_data_folder_that_was_given() {
        let data = tempfile::tempdir().unwrap();
        let database = control::snapshot_folder(data.path()).join(DATABASE);
        fs::create_dir_all(&database).unwrap();
        fs::write(database.join("CURRENT"), "x").unwrap();
        // The broker names it as it has it: in its own working folder.
        let broker = broker(data.path(), "ok 4 ./data/snapshot");
        let to = tempfile::tempdir().unwrap();
        backup(&source(data.path()), to.path(), &mut Vec::new()).unwrap();
        broker.join().unwrap();
        assert_eq!(fs::read(to.path().join("db/CURRENT")).unwrap(), b"x");
        assert_eq!(read_list(to.path()).unwrap().shards, 4);
    }

    #[test]
    fn the_brokers_id_comes_back_with_its_backup() {
        let (data, to) = (filled(), tempfile::tempdir().unwrap());
        keep_id(data.path(), "0123456789abcdef").unwrap();
        backup(&source(data.path()), to.path(), &mut Vec::new()).unwrap();
        let restored = tempfile::tempdir().unwrap();
        let mut said = Vec::new();
        restore(to.path(), restored.path(), &mut said).unwrap();
        assert_eq!(kept_id(restored.path()).unwrap(), KeptId::Id("0123456789abcdef".to_owned()));
        assert!(!String::from_utf8(said).unwrap().contains("broker id"));

        // Nothing that is no id gets into a data folder, and nothing else stays there then.
        let list = to.path().join(LIST);
        let text = fs::read_to_string(&list).unwrap();
        fs::write(&list, text.replace("0123456789abcdef", "../x")).unwrap();
        let refused = tempfile::tempdir().unwrap();
        let error = restore(to.path(), refused.path(), &mut Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains("no broker id"), "{error:#}");
        assert_eq!(fs::read_dir(refused.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_backup_without_an_id_is_restored_and_says_so() {
        let (data, to) = (filled(), tempfile::tempdir().unwrap());
        fs::write(id_file(data.path()), "").unwrap();
        let mut said = Vec::new();
        backup(&source(data.path()), to.path(), &mut said).unwrap();
        assert!(String::from_utf8(said).unwrap().contains("broker-id holds no broker id"));
        // As backups of earlier versions are.
        assert!(!fs::read_to_string(to.path().join(LIST)).unwrap().contains("broker_id"));
        let restored = tempfile::tempdir().unwrap();
        let mut said = Vec::new();
        restore(to.path(), restored.path(), &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        let lines = said.lines().filter(|line| line.starts_with("no broker id is in the backup"));
        assert_eq!(lines.count(), 1, "{said}");
        assert_eq!(kept_id(restored.path()).unwrap(), KeptId::Missing);
    }

    #[test]
    fn a_backup_that_failed_leaves_nothing_behind() {
        let data = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (new, empty) = (folder.path().join("made/for/it"), folder.path().join("empty"));
        fs::create_dir(&empty).unwrap();
        for to in [&new, &empty] {
            // It has no snapshot where it says it has one.
            let broker = broker(data.path(), "ok 1 ./data/snapshot");
            let error = backup(&source(data.path()), to, &mut Vec::new()).unwrap_err();
            broker.join().unwrap();
            fs::remove_file(data.path().join("control")).unwrap();
            assert!(format!("{error:#}").contains("snapshot/db: No such file"), "{error:#}");
        }
        assert!(!folder.path().join("made").exists(), "what was made for it is removed");
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "what was there is as it was");
        // So the next one finds nothing in its way.
        let data = filled();
        for to in [&new, &empty] {
            backup(&source(data.path()), to, &mut Vec::new()).unwrap();
        }
    }
}
