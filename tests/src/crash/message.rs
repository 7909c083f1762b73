//! What a test message says about itself: who published it, where, its number there, which attempt
//! to send it this was, and a checksum over all of it.
//!
//! An attempt is a transmission of the PUBLISH packet. A QoS 1 publication whose acknowledgement
//! was lost is published once more ([MQTT-4.4.0-1]), and the broker must take that for a new
//! message (4.3.2). Because the payload tells the attempts apart, a copy that the *publisher* asked
//! for is never mistaken for one that the *broker* doubled.

use super::random::Random;

/// A publication, the same over all attempts to send it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Message {
    /// Number of the publisher.
    pub publisher: u16,
    /// Number of the topic, among the publisher's.
    pub topic: u16,
    /// Number among the publications to this topic, from 1.
    pub seq: u32,
}

/// One transmission of a publication by its publisher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attempt {
    /// What is published.
    pub message: Message,
    /// Number of the attempt, from 1.
    pub number: u16,
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p{}.t{}.{}", self.publisher, self.topic, self.seq)
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (attempt {})", self.message, self.number)
    }
}

/// Hexadecimal digits of the checksum at the end of a payload.
const CHECKSUM: usize = 16;

impl Attempt {
    /// The payload, with `filler` bytes that no other message has.
    pub fn payload(&self, filler: usize) -> Vec<u8> {
        let Message { publisher, topic, seq } = self.message;
        let mut payload = format!("{publisher} {topic} {seq} {} ", self.number).into_bytes();
        let mut random = Random::new(u64::from(publisher) << 48 | u64::from(seq));
        payload.extend((0..filler).map(|_| b'a' + random.below(26) as u8));
        let sum = checksum(&payload);
        payload.extend(format!("{sum:0CHECKSUM$x}").bytes());
        payload
    }

    /// Reads a payload; an error says what is wrong with it.
    pub fn of_payload(payload: &[u8]) -> Result<Attempt, String> {
        let wrong = |what: &str| {
            let shown = String::from_utf8_lossy(&payload[..payload.len().min(80)]).into_owned();
            Err(format!("{what}: {} bytes, {shown:?}", payload.len()))
        };
        let Some(at) = payload.len().checked_sub(CHECKSUM) else { return wrong("too short") };
        let (told, sum) = payload.split_at(at);
        if sum != format!("{:0CHECKSUM$x}", checksum(told)).as_bytes() {
            return wrong("wrong checksum");
        }
        let text = String::from_utf8_lossy(told);
        let mut numbers = text.split(' ').map_while(|word| word.parse::<u32>().ok());
        let mut number = || numbers.next();
        let (Some(publisher), Some(topic), Some(seq), Some(attempt)) =
            (number(), number(), number(), number())
        else {
            return wrong("not ours");
        };
        let message = Message { publisher: publisher as u16, topic: topic as u16, seq };
        Ok(Attempt { message, number: attempt as u16 })
    }
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_what_it_is() {
        for (seq, filler) in [(1, 0), (4_000_000_000, 1), (17, 20_000)] {
            let message = Message { publisher: 3, topic: 2, seq };
            let attempt = Attempt { message, number: 2 };
            let payload = attempt.payload(filler);
            assert_eq!(Attempt::of_payload(&payload), Ok(attempt));
            for at in [0, payload.len() / 2, payload.len() - 1] {
                let mut damaged = payload.clone();
                damaged[at] ^= 1;
                assert!(Attempt::of_payload(&damaged).is_err(), "damage at {at}");
            }
            assert!(Attempt::of_payload(&payload[1..]).is_err());
        }
        assert!(Attempt::of_payload(b"").is_err());
    }
}
