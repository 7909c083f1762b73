//! What a payload carries so that every delivery can be checked: the run, the channel, the speaker
//! with its own sequence, the number of the message in its channel, and when it was due.
//!
//! The rest of the payload is incompressible and differs from message to message, so that a broker
//! that compresses on disk is measured on what chat really sends (encrypted or unlike text). The last
//! bytes are predicted by the stamp, so that a payload cut or mixed up on the way is found.

/// Bytes that a stamp takes: no payload can be smaller.
pub(crate) const STAMP_LEN: usize = 32;

/// Bytes of random filler that messages are made from.
const POOL_LEN: usize = 4096;

/// The head of every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Drawn once per run: leftovers of earlier runs are told apart by it.
    pub run: u32,
    /// Where it was said.
    pub channel: u32,
    /// Position of this message among all of its channel.
    pub number: u32,
    /// Who said it: index into the channel's speakers.
    pub speaker: u16,
    /// Position among what this speaker said in this channel; order and loss are judged by it.
    pub seq: u32,
    /// When it was due to be sent (nanoseconds of the run's clock).
    pub due_ns: u64,
}

/// Why a payload is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Too short, or from another run.
    Stranger,
    /// Ours, but its bytes are not what was sent.
    Damaged,
}

/// Writes and reads payloads; owns the random filler.
pub(crate) struct Sealer {
    run: u32,
    pool: Box<[u8; POOL_LEN]>,
}

impl Sealer {
    /// A sealer for the run with this number.
    pub(crate) fn new(run: u32) -> Self {
        let mut pool = Box::new([0u8; POOL_LEN]);
        let mut state = 0x5DEE_CE66_D1CE_4E5Bu64;
        for word in pool.chunks_exact_mut(8) {
            state = mix(state);
            word.copy_from_slice(&state.to_le_bytes());
        }
        Sealer { run, pool }
    }

    /// Number of this run.
    pub(crate) fn run(&self) -> u32 {
        self.run
    }

    /// Appends a payload of `len` bytes (at least [`STAMP_LEN`]).
    pub(crate) fn write(&self, stamp: &Stamp, len: usize, out: &mut Vec<u8>) {
        let size = len as u32;
        let mut head = [0u8; STAMP_LEN];
        head[0..4].copy_from_slice(&stamp.run.to_le_bytes());
        head[4..8].copy_from_slice(&stamp.channel.to_le_bytes());
        head[8..12].copy_from_slice(&stamp.number.to_le_bytes());
        head[12..14].copy_from_slice(&stamp.speaker.to_le_bytes());
        head[14..18].copy_from_slice(&stamp.seq.to_le_bytes());
        head[18..26].copy_from_slice(&stamp.due_ns.to_le_bytes());
        head[26..30].copy_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&head);
        let key = filler_key(stamp);
        let mut left = len.saturating_sub(STAMP_LEN);
        let mut lap = key;
        while left > 0 {
            let part = left.min(POOL_LEN);
            let start = out.len();
            out.extend_from_slice(&self.pool[..part]);
            xor_words(&mut out[start..], lap);
            lap = mix(lap);
            left -= part;
        }
    }

    /// Reads a payload's stamp, and checks its length and last bytes.
    #[inline]
    pub(crate) fn read(&self, payload: &[u8]) -> Result<Stamp, Foreign> {
        let Some(head) = payload.first_chunk::<STAMP_LEN>() else { return Err(Foreign::Stranger) };
        let u32_at =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let stamp = Stamp {
            run: u32_at(0),
            channel: u32_at(4),
            number: u32_at(8),
            speaker: u16::from_le_bytes([head[12], head[13]]),
            seq: u32_at(14),
            due_ns: u64::from(u32_at(18)) | u64::from(u32_at(22)) << 32,
        };
        if stamp.run != self.run {
            return Err(Foreign::Stranger);
        }
        if u32_at(26) as usize != payload.len() || !self.tail_is_whole(&stamp, payload) {
            return Err(Foreign::Damaged);
        }
        Ok(stamp)
    }

    /// Compares the last whole word of the filler with what was written.
    fn tail_is_whole(&self, stamp: &Stamp, payload: &[u8]) -> bool {
        let filler = payload.len() - STAMP_LEN;
        if filler < 8 {
            return true;
        }
        let mut lap = filler_key(stamp);
        let mut start = 0;
        while filler - start > POOL_LEN {
            lap = mix(lap);
            start += POOL_LEN;
        }
        let words = (filler - start) / 8;
        if words == 0 {
            return true;
        }
        let at = (words - 1) * 8;
        let sent = word_at(&self.pool[..], at) ^ lap;
        sent == word_at(&payload[STAMP_LEN + start..], at)
    }
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0u8; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Mixes `key` into every whole word; written so that the compiler can use vector registers.
#[inline]
fn xor_words(bytes: &mut [u8], key: u64) {
    for word in bytes.chunks_exact_mut(8) {
        let mixed = word_at(word, 0) ^ key;
        word.copy_from_slice(&mixed.to_le_bytes());
    }
}

fn filler_key(stamp: &Stamp) -> u64 {
    mix(u64::from(stamp.channel) << 32 | u64::from(stamp.number) ^ u64::from(stamp.run) << 17)
}

/// The finaliser of splitmix64: spreads every input bit over the output.
#[inline]
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u32) -> Stamp {
        Stamp { run: 7, channel: 3, number, speaker: 2, seq: 1, due_ns: u64::MAX - 5 }
    }

    #[test]
    fn what_is_written_is_read_again_at_every_size() {
        let sealer = Sealer::new(7);
        for len in [32, 33, 39, 40, 41, 128, 256, 4096 + 32, 4096 + 33, 4096 + 40, 20_000] {
            let mut payload = Vec::new();
            sealer.write(&stamp(9), len, &mut payload);
            assert_eq!(payload.len(), len);
            assert_eq!(sealer.read(&payload), Ok(stamp(9)), "{len}");
        }
    }

    #[test]
    fn cut_swapped_and_foreign_payloads_are_found() {
        let sealer = Sealer::new(7);
        let mut payload = Vec::new();
        sealer.write(&stamp(9), 256, &mut payload);
        assert_eq!(sealer.read(&payload[..248]), Err(Foreign::Damaged));
        let mut other = Vec::new();
        sealer.write(&stamp(10), 256, &mut other);
        let mut swapped = payload[..STAMP_LEN].to_vec();
        swapped.extend_from_slice(&other[STAMP_LEN..]);
        assert_eq!(sealer.read(&swapped), Err(Foreign::Damaged));
        assert_eq!(Sealer::new(8).read(&payload), Err(Foreign::Stranger));
        assert_eq!(sealer.read(b"hello"), Err(Foreign::Stranger));
    }

    #[test]
    fn fillers_of_two_messages_share_no_words() {
        let sealer = Sealer::new(7);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        sealer.write(&stamp(1), 1024, &mut a);
        sealer.write(&stamp(2), 1024, &mut b);
        let words = |p: &[u8]| -> std::collections::HashSet<u64> {
            p[STAMP_LEN..].chunks_exact(8).map(|w| word_at(w, 0)).collect()
        };
        assert!(words(&a).is_disjoint(&words(&b)));
    }
}
