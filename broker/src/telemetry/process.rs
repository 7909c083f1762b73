//! What the system knows about this process, read from `/proc`. What cannot be read is `None`.

use std::fs;
use std::path::Path;

/// Ticks per second in `/proc/*/stat`: Linux shows them so on every architecture, whatever the
/// kernel's own clock.
const TICKS_PER_SEC: f64 = 100.0;

/// The process as the system sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// CPU time used, in user space and in the kernel.
    pub(super) cpu_secs: Option<f64>,
    /// Memory resident.
    pub(super) resident_bytes: Option<u64>,
    /// File descriptors open.
    pub(super) open_fds: Option<u64>,
    /// File descriptors allowed.
    pub(super) max_fds: Option<u64>,
}

/// Memory of this process that is resident.
pub fn resident_memory() -> Option<u64> {
    resident_bytes(&text("status")?)
}

fn text(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/self").join(name)).ok()
}

impl Process {
    /// This process, now.
    pub(super) fn read() -> Process {
        Process {
            cpu_secs: text("stat").and_then(|stat| cpu_secs(&stat)),
            resident_bytes: resident_memory(),
            open_fds: open_fds(Path::new("/proc/self/fd")),
            max_fds: text("limits").and_then(|limits| max_fds(&limits)),
        }
    }
}

/// `utime` and `stime`, fields 14 and 15. The name of the process, field 2, may hold anything, so
/// fields are counted from its closing parenthesis.
fn cpu_secs(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some((user + kernel) as f64 / TICKS_PER_SEC)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Since Linux 6.2 the size of the folder is the number of descriptors; before, it is 0 and they
/// are counted one by one.
fn open_fds(folder: &Path) -> Option<u64> {
    match fs::metadata(folder).ok()?.len() {
        0 => Some(fs::read_dir(folder).ok()?.count() as u64),
        counted => Some(counted),
    }
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_process_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 3 0 100 1 2";
        assert_eq!(cpu_secs(stat), Some(2.0));
        assert_eq!(cpu_secs("7 (hoopoe) S 1 7"), None);
    }

    #[test]
    fn memory_and_limits_are_read_with_their_units() {
        assert_eq!(resident_bytes("Name:\thoopoe\nVmRSS:\t    2048 kB\n"), Some(2 * 1024 * 1024));
        assert_eq!(resident_bytes("Name:\thoopoe\n"), None);
        let limits = "Max open files            1024                 524288               files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(max_fds("Max open files            unlimited            unlimited"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.cpu_secs.is_some());
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 0));
        assert!(process.open_fds.is_some_and(|fds| fds > 0));
    }
}
