//! What a piece of work costs: CPU of the whole process, flushes and merges included.

use std::path::Path;

/// Clock ticks per second of `/proc/self/stat`, the same on every Linux.
const TICKS: f64 = 100.0;

/// Cost between two points.
pub struct Cost(f64);

impl Cost {
    /// Starts to count.
    pub fn start() -> Cost {
        Cost(cpu_secs())
    }

    /// CPU seconds since the start.
    pub fn cpu_secs(&self) -> f64 {
        cpu_secs() - self.0
    }
}

/// User and system time of all threads.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit_once(')').expect("a name in brackets").1;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next().and_then(|ticks| ticks.parse::<f64>().ok()).expect("ticks");
    (next() + next()) / TICKS
}

/// Resident memory of this process in MiB.
#[allow(dead_code, reason = "asked by one of the two programs")]
pub fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.expect("a number") * 4096.0 / f64::from(1 << 20)
}

/// Bytes of all files below a folder.
pub fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let size = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("an entry");
        match entry.metadata() {
            Ok(found) if found.is_dir() => folder_bytes(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        }
    };
    entries.map(size).sum()
}

/// Bytes that do not compress.
pub struct Noise(u64);

impl Noise {
    /// The same bytes for the same seed.
    pub fn new(seed: u64) -> Noise {
        Noise(seed | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Fills a buffer.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}
