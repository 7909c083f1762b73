//! Message ids: a time, a shard and a counter in 64 bits, and their text (ruling 30).

use std::fmt;

/// Bits of a message id that count messages within a millisecond.
const COUNTER_BITS: u32 = 16;
/// Bits of a message id that name the shard.
const SHARD_BITS: u32 = 6;
/// Bits of a message id that hold ms since the epoch: enough until the year 2109.
const MS_BITS: u32 = 64 - SHARD_BITS - COUNTER_BITS;
/// The digits of base32hex in lower case (ruling 30): their order is that of their values.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// A server id: 42 bits ms since the epoch, 6 bits shard, 16 bits counter. Its text sorts as the
/// number does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(pub u64);

impl MessageId {
    /// Length of the text form.
    pub const TEXT_LEN: usize = 13;

    /// The text form as ASCII.
    pub fn to_ascii(self) -> [u8; Self::TEXT_LEN] {
        let mut text = [0; Self::TEXT_LEN];
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(rest & 31) as usize];
            rest >>= 5;
        }
        text
    }

    /// The id with this text; `None` unless it is exactly what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<MessageId> {
        // 13 digits have 65 bits: the first one stops at `f`.
        if text.len() != Self::TEXT_LEN || text.as_bytes()[0] > b'f' {
            return None;
        }
        let mut number = 0u64;
        for byte in text.bytes() {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'v' => byte - b'a' + 10,
                _ => return None,
            };
            number = number << 5 | u64::from(digit);
        }
        Some(MessageId(number))
    }

    /// The moment in it, in ms since the epoch.
    pub fn ms(self) -> u64 {
        self.0 >> (SHARD_BITS + COUNTER_BITS)
    }

    /// The shard in it.
    pub fn shard(self) -> u8 {
        (self.0 >> COUNTER_BITS) as u8 & ((1 << SHARD_BITS) - 1)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_ascii();
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Makes message ids for one shard, each greater than the one before.
#[derive(Clone, Debug)]
pub struct MessageIds {
    /// The shard, at its place in an id.
    shard: u64,
    /// ms and counter of the last id, side by side.
    last: u64,
}

impl MessageIds {
    /// Ids of one shard; of its number, the 6 lower bits tell shards apart.
    pub fn new(shard: u8) -> MessageIds {
        let shard = u64::from(shard) & ((1 << SHARD_BITS) - 1);
        MessageIds { shard: shard << COUNTER_BITS, last: 0 }
    }

    /// The next id. While the clock stands, is behind, or more are made than a millisecond holds,
    /// ids run ahead of it.
    pub fn next(&mut self, now_ms: u64) -> MessageId {
        let now = now_ms.min((1 << MS_BITS) - 1) << COUNTER_BITS;
        self.last = now.max(self.last + 1);
        let (ms, counter) = (self.last >> COUNTER_BITS, self.last & ((1 << COUNTER_BITS) - 1));
        MessageId(ms << (SHARD_BITS + COUNTER_BITS) | self.shard | counter)
    }

    /// From now on ids are greater than this one, which may be another shard's.
    pub fn resume_after(&mut self, id: MessageId) {
        let counter_mask = (1 << COUNTER_BITS) - 1;
        let same_shard = id.0 & (((1 << SHARD_BITS) - 1) << COUNTER_BITS) == self.shard;
        let counter = if same_shard { id.0 & counter_mask } else { counter_mask };
        self.last = self.last.max(id.ms() << COUNTER_BITS | counter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_read_back_and_sort_as_their_text() {
        let numbers = [0, 1, 31, 32, 1 << 22, 0x0123_4567_89ab_cdef, u64::MAX - 1, u64::MAX];
        let texts: Vec<String> = numbers.map(|number| MessageId(number).to_string()).to_vec();
        assert!(texts.is_sorted());
        for (text, number) in texts.iter().zip(numbers) {
            assert_eq!(text.len(), MessageId::TEXT_LEN);
            assert_eq!(MessageId::parse(text), Some(MessageId(number)));
        }
        assert_eq!(texts[0], "0000000000000");
        assert_eq!(texts[3], "0000000000010");
        assert_eq!(texts[7], "fvvvvvvvvvvvv");
        let wrong = [
            "",
            "000000000000",
            "00000000000000",
            "g000000000000",
            "vvvvvvvvvvvvv",
            "000000000000w",
            "000000000000V",
            "000000000000 ",
            "00000000000ü",
        ];
        for text in wrong {
            assert_eq!(MessageId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn message_ids_grow_whatever_the_clock_does() {
        let mut ids = MessageIds::new(5);
        let first = ids.next(1_000);
        assert_eq!((first.ms(), first.shard()), (1_000, 5));
        let mut last = first;
        for now in [1_000, 1_000, 999, 0, 1_001, 1_001, 2_000, u64::MAX >> 22] {
            let id = ids.next(now);
            assert!(id > last, "at {now}");
            assert_eq!(id.shard(), 5);
            last = id;
        }
    }

    #[test]
    fn a_full_millisecond_runs_over_into_the_next() {
        let mut ids = MessageIds::new(63);
        let mut last = ids.next(7);
        for _ in 1..=1 << COUNTER_BITS {
            let id = ids.next(7);
            assert!(id > last);
            last = id;
        }
        assert_eq!((last.ms(), last.shard()), (8, 63));
    }

    #[test]
    fn ids_go_on_after_the_last_one_of_any_shard() {
        let table = [(0, 63), (63, 0), (9, 9)];
        for (before, after) in table {
            let mut old = MessageIds::new(before);
            let (_, last) = (old.next(5_000), old.next(5_000));
            let mut new = MessageIds::new(after);
            new.resume_after(last);
            for now in [4_000, 5_000, 5_001] {
                assert!(new.next(now) > last, "{before} {after} {now}");
            }
            // An older one takes nothing back.
            let id = new.next(6_000);
            new.resume_after(last);
            assert!(new.next(6_000) > id);
        }
        let mut same = MessageIds::new(9);
        same.resume_after(MessageId(5_000 << 22 | 9 << 16 | 1));
        assert_eq!(same.next(5_000), MessageId(5_000 << 22 | 9 << 16 | 2));
    }
}
