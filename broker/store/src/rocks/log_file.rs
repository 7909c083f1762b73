//! The record format of RocksDB's log and manifest files, read to say where one is damaged.
//!
//! RocksDB reads these files itself at every open. What it does not say is which file ended how:
//! a log that ends in the middle of a record after a power failure is as it should be, one with
//! whole records behind a damaged one has lost something. Nothing is written here.

use std::fs;
use std::io;
use std::path::Path;

/// Files are cut into blocks; no record's head crosses their edges.
const BLOCK: usize = 32 * 1024;
/// Checksum, length, type.
const HEAD: usize = 7;
/// The same with the number of the file, for files that are written over older ones.
const RECYCLABLE_HEAD: usize = 11;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Added to the four above in files that are written over older ones.
const RECYCLABLE: u8 = 4;
/// Types from here on say something of the file and hold no record.
const OF_THE_FILE: u8 = 9;

/// The fault of a file whose last record was never written to its end.
pub(super) const CUT: &str = "ends in the middle of a record";

/// What a log file holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Scanned {
    /// Whole records before the first fault.
    pub(super) records: u64,
    /// Where the last of them ends.
    pub(super) end: usize,
    /// Length of the file.
    pub(super) length: usize,
    /// What is wrong at `end`; `None` when nothing follows, or nothing but zeros.
    pub(super) fault: Option<&'static str>,
    /// Whole pieces of records in the blocks behind the fault: they were written after it.
    pub(super) behind: u64,
}

/// One piece of a record.
struct Piece<'a> {
    kind: u8,
    payload: &'a [u8],
    end: usize,
}

/// Reads a file; `each` gets every whole record before the first fault.
pub(super) fn scan_file(path: &Path, each: &mut dyn FnMut(&[u8])) -> io::Result<Scanned> {
    Ok(scan(&fs::read(path)?, each))
}

/// The same of bytes.
pub(super) fn scan(file: &[u8], each: &mut dyn FnMut(&[u8])) -> Scanned {
    let mut scanned = Scanned { length: file.len(), ..Scanned::default() };
    let (mut at, mut record, mut inside) = (0, Vec::new(), false);
    let fault = loop {
        at = past_the_trailer(at);
        if at >= file.len() {
            break inside.then_some(CUT);
        }
        let piece = match piece_at(file, at) {
            Ok(piece) => piece,
            Err(what) => {
                let zeros = file[at..].iter().all(|byte| *byte == 0);
                break if zeros && !inside { None } else { Some(what) };
            }
        };
        at = piece.end;
        match (piece.kind, inside) {
            (FULL, false) => each(piece.payload),
            (FIRST, false) => record = piece.payload.to_vec(),
            (MIDDLE | LAST, true) => record.extend_from_slice(piece.payload),
            (kind, false) if kind >= OF_THE_FILE => {}
            _ => break Some("has pieces of records in the wrong order"),
        }
        inside = matches!(piece.kind, FIRST | MIDDLE);
        if piece.kind == LAST {
            each(&record);
        }
        if !inside {
            scanned.records += u64::from(piece.kind <= LAST);
            scanned.end = at;
        }
    };
    scanned.fault = fault;
    if fault.is_some() {
        scanned.behind = whole_pieces_behind(file, at);
    }
    scanned
}

/// Where the next piece begins: the last bytes of a block are too few for a head.
fn past_the_trailer(at: usize) -> usize {
    let left = BLOCK - at % BLOCK;
    if left < HEAD { at + left } else { at }
}

fn piece_at(file: &[u8], at: usize) -> Result<Piece<'_>, &'static str> {
    let head = file.get(at..at + HEAD).ok_or(CUT)?;
    let stored = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
    let kind = head[6];
    let recyclable = (FULL + RECYCLABLE..=LAST + RECYCLABLE).contains(&kind);
    let begin = at + if recyclable { RECYCLABLE_HEAD } else { HEAD };
    let end = begin + length;
    if kind == 0 || end > (at / BLOCK + 1) * BLOCK {
        return Err("holds a damaged record");
    }
    let covered = file.get(at + HEAD - 1..end).ok_or(CUT)?;
    if unmasked(stored) != crc32c(covered) {
        return Err("holds a damaged record");
    }
    let kind = if recyclable { kind - RECYCLABLE } else { kind };
    Ok(Piece { kind, payload: &file[begin..end], end })
}

/// Pieces in the blocks after the one at `at` whose checksums hold.
fn whole_pieces_behind(file: &[u8], at: usize) -> u64 {
    let mut found = 0;
    let mut block = (at / BLOCK + 1) * BLOCK;
    while block < file.len() {
        let mut at = block;
        while at < file.len().min(block + BLOCK - HEAD) {
            let Ok(piece) = piece_at(file, at) else { break };
            found += 1;
            at = piece.end;
        }
        block += BLOCK;
    }
    found
}

/// Checksums are stored rotated, so that a checksum of checksums is none.
fn unmasked(stored: u32) -> u32 {
    stored.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// CRC-32C, a byte at a time: at most a log of 64 MB is read, after a crash.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc: u32, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(file: &mut Vec<u8>, kind: u8, payload: &[u8]) {
        let mut covered = vec![kind];
        covered.extend_from_slice(payload);
        let stored = crc32c(&covered).rotate_right(15).wrapping_add(0xa282_ead8);
        file.extend_from_slice(&stored.to_le_bytes());
        file.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        file.extend_from_slice(&covered);
    }

    fn read(file: &[u8]) -> (Scanned, Vec<Vec<u8>>) {
        let mut records = Vec::new();
        let scanned = scan(file, &mut |record| records.push(record.to_vec()));
        (scanned, records)
    }

    /// A record over two blocks, one in the second, one in the third.
    fn sample() -> Vec<u8> {
        let mut file = Vec::new();
        put(&mut file, FIRST, &[1; BLOCK - HEAD]);
        put(&mut file, LAST, b"1");
        put(&mut file, FULL, b"2");
        file.resize(2 * BLOCK, 0);
        put(&mut file, FULL, b"3");
        file
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn whole_records_are_read_and_zeros_behind_them_are_nothing() {
        let mut file = Vec::new();
        put(&mut file, FULL, b"a");
        put(&mut file, FULL, b"b");
        let end = file.len();
        for zeros in [0, 3, 100] {
            file.resize(end + zeros, 0);
            let (scanned, records) = read(&file);
            assert_eq!(records, [b"a", b"b"]);
            assert_eq!((scanned.records, scanned.end, scanned.fault), (2, end, None));
        }
    }

    #[test]
    fn a_torn_end_and_a_hole_are_told_apart() {
        let file = sample();
        let (scanned, records) = read(&file[..BLOCK + 3]);
        assert_eq!((scanned.end, scanned.behind), (0, 0));
        assert_eq!(scanned.fault, Some(CUT));
        assert!(records.is_empty());

        let mut hole = file.clone();
        hole[100] ^= 1;
        let (scanned, _) = read(&hole);
        assert_eq!((scanned.records, scanned.fault), (0, Some("holds a damaged record")));
        assert_eq!(scanned.behind, 3, "the end of the first record and the two after it");
    }
}
