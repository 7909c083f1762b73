//! Disks that fill up, become read-only and fail, made of what Linux has: a small file system in a
//! mount namespace of its own, which goes with the process that holds it.
//!
//! Where the machine lets nobody mount, the tests that need it say so on standard error, past the
//! capture of the test's output, and are content with the file size limit, which needs no rights.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::reaper;

/// Bytes the filler file grows by.
const FILL_STEP: usize = 64 << 10;

/// A file system of its own at a folder, seen by those who enter its namespace.
pub struct Disk {
    holder: Child,
    folder: PathBuf,
    entry: Vec<String>,
}

impl Disk {
    /// A tmpfs of `megabytes` at `folder`; or why there is none.
    pub fn small(folder: &Path, megabytes: usize) -> Result<Disk, String> {
        let mount = format!("mount -t tmpfs -o size={megabytes}m hoopoe \"$1\"");
        Disk::mounted(folder, &mount)
    }

    /// What `script` mounts at `$1`.
    pub fn mounted(folder: &Path, script: &str) -> Result<Disk, String> {
        let as_root = Disk::hold(folder, script, &[]);
        as_root.or_else(|refused| {
            Disk::hold(folder, script, &["--user", "--map-root-user"])
                .map_err(|other| format!("{refused}; in a user namespace: {other}"))
        })
    }

    fn hold(folder: &Path, script: &str, user: &[&str]) -> Result<Disk, String> {
        let script = format!("{{ {script} ; }} && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args(user)
            .args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        reaper::watch(holder.id());
        let mut said = [0; 8];
        let stdout = holder.stdout.as_mut().expect("standard output is piped");
        if stdout.read_exact(&mut said).is_ok() && &said == b"mounted\n" {
            let pid = holder.id().to_string();
            let mut entry = vec!["nsenter".to_owned(), "--target".to_owned(), pid];
            if !user.is_empty() {
                entry.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
            }
            entry.push("--mount".to_owned());
            return Ok(Disk { holder, folder: folder.to_owned(), entry });
        }
        let mut why = String::new();
        let stderr = holder.stderr.as_mut().expect("standard error is piped");
        let _ = stderr.read_to_string(&mut why);
        reaper::forget(holder.id());
        let _ = holder.kill();
        let _ = holder.wait();
        Err(why.trim().to_owned())
    }

    /// What starts a program that sees this disk.
    pub fn entry(&self) -> &[String] {
        &self.entry
    }

    /// Where this process finds the disk.
    pub fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").expect("an absolute path"))
    }

    /// A neighbour who takes every block of the disk, and every one that becomes free, until the
    /// value is dropped; that gives them all back.
    pub fn fill(&self) -> Neighbour {
        let path = self.path().join("filler");
        let mut file = File::create(&path).expect("the filler can be made");
        let enough = Arc::new(AtomicBool::new(false));
        let told = enough.clone();
        let (full, is_full) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let zeros = vec![0; FILL_STEP];
            while !told.load(Ordering::Acquire) {
                match file.write(&zeros) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => {
                        // Nobody listens after the first time.
                        let _ = full.send(());
                        std::thread::yield_now();
                    }
                    Err(error) => panic!("filling the disk: {error}"),
                }
            }
        });
        is_full.recv().expect("the disk is full some day");
        Neighbour { path, enough, thread: Some(thread) }
    }

    /// Runs a shell script that sees the disk at `$1`.
    pub fn run(&self, script: &str) -> Result<(), String> {
        let mut command = Command::new(&self.entry[0]);
        command.args(&self.entry[1..]).args(["sh", "-c", script, "sh"]).arg(&self.folder);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        reaper::forget(self.holder.id());
        // The mounts go with the last process of the namespace.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// See [`Disk::fill`].
pub struct Neighbour {
    path: PathBuf,
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // The disk may be gone with its holder.
        let _ = fs::remove_file(&self.path);
    }
}

/// Says on standard error what this machine does not allow, whatever becomes of the test's output.
pub fn say_not_possible(what: &str, why: &str) {
    let _ = writeln!(
        std::io::stderr(),
        "NOT TESTED on this machine: {what}: not possible here ({why})"
    );
}

/// Limits the size of files that process `pid` writes; `None` lifts the limit.
pub fn limit_file_size(pid: u32, bytes: Option<u64>) {
    let soft = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={soft}:unlimited")])
        .status()
        .expect("prlimit starts (package util-linux)");
    assert!(status.success(), "prlimit --fsize={soft}");
}
