//! What the machine allows: open files raised as far as they go, cores to run on.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Descriptors that a run needs beside its connections.
const SPARE_FILES: usize = 64;

/// Raises the soft limit of open files to the hard one, and refuses a run that needs more.
pub(crate) fn allow_connections(connections: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).context("raising the limit of open files")?;
    }
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    let needed = (connections + SPARE_FILES) as u64;
    if needed > allowed {
        bail!(
            "{connections} connections need {needed} open files, and this system allows {allowed}: \
             raise the hard limit (/etc/security/limits.conf, LimitNOFILE), use fewer clients, or run \
             several generators"
        );
    }
    Ok(())
}

/// Cores this process may run on.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("asking for the process's cores")?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps a process (none: the calling thread and what it starts) on these cores.
pub(crate) fn pin(pid: Option<u32>, cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU {
            bail!("core {core}: this program knows {} at most", CpuSet::MAX_CPU);
        }
        set.set(*core);
    }
    let pid = match pid {
        None => None,
        Some(pid) => {
            let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
            Some(raw.with_context(|| format!("{pid} is no process number"))?)
        }
    };
    sched_setaffinity(pid, &set).with_context(|| format!("pinning to cores {cores:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_connections_are_refused_with_the_remedy() {
        assert!(allow_connections(10).is_ok());
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let error = allow_connections(usize::MAX / 2).unwrap_err().to_string();
            assert!(error.contains("LimitNOFILE"), "{error}");
        }
    }

    #[test]
    fn there_is_a_core_to_run_on() {
        assert!(!cores().unwrap().is_empty());
        assert!(pin(None, &[CpuSet::MAX_CPU]).is_err());
    }
}
