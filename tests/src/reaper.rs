//! Ends what a test started, however the test process itself ends.
//!
//! A shared broker lives in a static, which Rust never drops, and a test process may be killed. So
//! one small shell per test process waits on a pipe: when the pipe closes it kills the children
//! that are still listed and removes the folders of the tests. No other module kills by number
//! without telling the reaper first.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex};

const SCRIPT: &str = r#"
pids=' ' ; dirs=''
while read -r verb what; do
  case "$verb" in
    add) pids="$pids$what " ;;
    gone) pids=$(printf '%s' "$pids" | sed "s/ $what / /") ;;
    dir) dirs="$dirs $what" ;;
  esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
[ -z "$dirs" ] || rm -rf $dirs
"#;

#[allow(clippy::zombie_processes, reason = "it outlives this process on purpose")]
static REAPER: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut shell = Command::new("sh")
        .arg("-c")
        .arg(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts");
    Mutex::new(shell.stdin.take().expect("its standard input is piped"))
});

fn tell(line: &str) {
    let mut pipe = REAPER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    pipe.write_all(line.as_bytes()).expect("the reaper reads until this process ends");
}

/// Kill process `pid` when this process ends.
pub fn watch(pid: u32) {
    tell(&format!("add {pid}\n"));
}

/// Process `pid` is about to be waited for: its number may be reused.
pub fn forget(pid: u32) {
    tell(&format!("gone {pid}\n"));
}

/// Remove this folder when this process ends.
pub fn remove_at_end(folder: &Path) {
    tell(&format!("dir {}\n", folder.display()));
}

/// A new empty folder that is removed when this process ends.
pub fn temporary_folder(stem: &str) -> std::path::PathBuf {
    let folder = tempfile::Builder::new()
        .prefix(&format!("hoopoe-{stem}-"))
        .tempdir()
        .expect("a temporary folder can be made")
        .keep();
    remove_at_end(&folder);
    folder
}
