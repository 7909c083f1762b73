//! What a broker costs: CPU seconds and memory of its process tree, read from /proc.

use std::collections::{HashMap, HashSet};
use std::fs;

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// CPU and memory of a process tree at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// CPU seconds in user mode since the processes began.
    pub user_secs: f64,
    /// CPU seconds in the kernel.
    pub system_secs: f64,
    /// Resident bytes now.
    pub rss_bytes: u64,
    /// Sum of the processes' highest resident bytes.
    pub peak_rss_bytes: u64,
}

impl Usage {
    /// User and system CPU seconds together.
    pub(crate) fn cpu_secs(&self) -> f64 {
        self.user_secs + self.system_secs
    }
}

/// The processes whose cost is counted.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    roots: Vec<u32>,
    ticks_per_sec: f64,
}

impl Watch {
    /// Watches these processes and all their descendants.
    pub(crate) fn new(roots: &[u32]) -> Result<Watch> {
        for pid in roots {
            if fs::metadata(format!("/proc/{pid}")).is_err() {
                bail!("--broker-pid {pid}: there is no such process");
            }
        }
        let ticks_per_sec = rustix::param::clock_ticks_per_second() as f64;
        Ok(Watch { roots: roots.to_vec(), ticks_per_sec })
    }

    /// Reads the tree's cost; processes that ended meanwhile are no longer in it.
    pub(crate) fn read(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for pid in self.tree()? {
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let Some(stat) = Stat::parse(&stat) else { continue };
            let (user, system) = self.cpu_of(pid, &stat);
            sum.user_secs += user;
            sum.system_secs += system;
            if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
                sum.rss_bytes += kilobytes(&status, "VmRSS:") * 1024;
                sum.peak_rss_bytes += kilobytes(&status, "VmHWM:") * 1024;
            }
        }
        Ok(sum)
    }

    /// User and system seconds. `stat` counts in ticks of 10 ms, too coarse for a lean broker in a
    /// short run; the scheduler's sum over the threads is exact but forgets threads that have ended.
    /// Where both agree to within the ticks, the exact sum is split as the ticks are.
    fn cpu_of(&self, pid: u32, stat: &Stat) -> (f64, f64) {
        let (user, system) = (stat.user_ticks as f64, stat.system_ticks as f64);
        let (user, system) = (user / self.ticks_per_sec, system / self.ticks_per_sec);
        let exact = scheduled_secs(pid).filter(|exact| (exact - user - system).abs() < TICKS_SLACK);
        match exact {
            Some(exact) if user + system > 0.0 => {
                let scale = exact / (user + system);
                (user * scale, system * scale)
            }
            Some(exact) => (exact, 0.0),
            None => (user, system),
        }
    }

    fn tree(&self) -> Result<HashSet<u32>> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in fs::read_dir("/proc").context("reading /proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if let Some(stat) = Stat::parse(&stat) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut tree = HashSet::new();
        let mut open = self.roots.clone();
        while let Some(pid) = open.pop() {
            if tree.insert(pid) {
                open.extend(children.get(&pid).into_iter().flatten());
            }
        }
        Ok(tree)
    }
}

/// How far ticks and scheduler may be apart while they tell the same story, in seconds.
const TICKS_SLACK: f64 = 0.04;

/// CPU seconds of a process's living threads, as the scheduler has counted them.
fn scheduled_secs(pid: u32) -> Option<f64> {
    let mut sum = 0u64;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end between the list and the look.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        sum += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(sum as f64 / 1e9)
}

struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

impl Stat {
    /// The command's name may hold blanks and brackets: fields count from the last bracket.
    fn parse(text: &str) -> Option<Stat> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Stat {
            parent: fields.get(1)?.parse().ok()?,
            user_ticks: fields.get(11)?.parse().ok()?,
            system_ticks: fields.get(12)?.parse().ok()?,
        })
    }
}

fn kilobytes(status: &str, field: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// CPU seconds of the calling thread.
pub(crate) fn thread_cpu_secs() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let line = "4242 (a (b) c) S 17 1 1 0 -1 4194560 1 2 3 4 55 66 0 0 20 0 1 0 1 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.user_ticks, stat.system_ticks), (17, 55, 66));
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn own_process_costs_something_and_holds_memory() {
        let watch = Watch::new(&[std::process::id()]).unwrap();
        let usage = watch.read().unwrap();
        assert!(usage.rss_bytes > 100_000);
        assert!(usage.peak_rss_bytes >= usage.rss_bytes / 2);
        assert!(thread_cpu_secs() > 0.0);
        assert!(usage.cpu_secs() > 0.0, "{usage:?}");
        assert!(Watch::new(&[u32::MAX - 1]).is_err());
    }
}
