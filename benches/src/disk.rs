//! What a sync costs on the disk of a broker while it runs: what stored acknowledgements are to be
//! held against.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;

use crate::run::histogram;

/// Between two syncs: seldom enough to be no load.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes written before each, one page: a commit of a few messages.
const WRITTEN: usize = 4096;
/// The file begins anew when it is this long.
const MAX_LEN: usize = 16 << 20;

/// Syncs a file of its own beside those of a broker, from its start to its end.
pub(crate) struct Prober {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Histogram<u64>>>,
}

impl Prober {
    /// Begins in this folder.
    pub(crate) fn start(folder: &Path) -> Result<Prober> {
        let path = folder.join("sync");
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let name = thread::Builder::new().name("sync".to_owned());
        Ok(Prober { path, ended, thread: name.spawn(move || probe(file, &end))? })
    }

    /// Ends, removes the file and says how long the syncs took.
    pub(crate) fn end(self) -> Result<Histogram<u64>> {
        self.ended.store(true, Ordering::Relaxed);
        let times = self.thread.join().map_err(|_| anyhow!("the thread that syncs panicked"))?;
        fs::remove_file(&self.path)?;
        times.with_context(|| format!("syncing {}", self.path.display()))
    }
}

/// At least one sync, and one more after each pause.
fn probe(mut file: File, ended: &AtomicBool) -> io::Result<Histogram<u64>> {
    let (mut times, mut len) = (histogram(), 0);
    loop {
        if len >= MAX_LEN {
            file.set_len(0)?;
            file.rewind()?;
            len = 0;
        }
        file.write_all(&[0x5A; WRITTEN])?;
        len += WRITTEN;
        let began = Instant::now();
        file.sync_data()?;
        times.saturating_record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if ended.load(Ordering::Relaxed) {
            return Ok(times);
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_timed_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let prober = Prober::start(folder.path()).unwrap();
        assert!(!prober.end().unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
