//! Mutated packets: whatever arrives, decoding neither panics nor takes more than it was given, and
//! what it accepts it can write and read again.
//!
//! `HOOPOE_FUZZ_COUNT` sets how many inputs are tried, `HOOPOE_FUZZ_SECS` for how long instead, and
//! `HOOPOE_FUZZ_SEED` where to start; the same seed gives the same inputs.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::time::{Duration, Instant};

use hoopoe_codec::{
    Packet, PublishProperties, Receiver, Version, check_filter, check_topic, decode,
    decode_connect, frame_length, topic_matches,
};

mod table;

const DEFAULT_COUNT: u64 = 300_000;
const DEFAULT_SEED: u64 = 0x0048_6F6F_706F_6521;
/// Inputs between two looks at the clock.
const BATCH: u64 = 10_000;
/// Accepted inputs that are kept to start from again.
const MAX_KEPT: usize = 2_000;
/// Enough for every mutation, and small enough that many inputs are tried.
const MAX_INPUT_LEN: usize = 600;

/// Bytes at which decoders go wrong: lengths, continuation bits, property identifiers.
const TELLING: [u8; 20] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x08, 0x09, 0x0B, 0x11, 0x1F, 0x21, 0x23, 0x26, 0x2B, 0x2F, 0x7F,
    0x80, 0x81, 0xC0, 0xFF,
];

/// Xorshift: small, repeatable, and random enough for this.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`, 0 when there is none.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A packet to start from, and who would read it.
struct Seed {
    version: Version,
    receiver: Receiver,
    bytes: Vec<u8>,
}

/// Every packet of the table, the invalid ones as well: they are close to the edge already.
fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let tables = [
        (Version::V311, table::V311_VALID, table::V311_INVALID),
        (Version::V5, table::V5_VALID, table::V5_INVALID),
    ];
    for (version, valid, invalid) in tables {
        let valid = valid.iter().map(|case| (case.1, case.2));
        let invalid = invalid.iter().map(|case| (case.1, case.3));
        for (receiver, notation) in valid.chain(invalid) {
            seeds.push(Seed { version, receiver, bytes: table::packet(notation) });
        }
    }
    seeds
}

/// Changes a packet in one to four places and, mostly, puts the right length in front again, so
/// that the change is met behind the header.
fn mutate(random: &mut Random, seeds: &[Seed], bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = TELLING[random.below(TELLING.len())],
            2 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
            3 => bytes.insert(at, random.next() as u8),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 => bytes.truncate(at),
            6 => {
                let end = at + random.below(bytes.len() - at + 1);
                let again = bytes[at..end].to_vec();
                bytes.splice(end..end, again);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())].bytes;
                let from = random.below(other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
        bytes.truncate(MAX_INPUT_LEN);
    }
    if bytes.len() >= 2 && !random.one_in(8) {
        put_length(bytes);
    }
}

/// Takes the second byte for the length and puts the right one there.
fn put_length(bytes: &mut Vec<u8>) {
    let body_len = bytes.len() - 2;
    bytes[1] = body_len as u8 & 0x7F;
    if body_len > 0x7F {
        bytes[1] |= 0x80;
        bytes.insert(2, (body_len >> 7) as u8);
    }
}

/// Everything that must hold for any input. Says whether it was a packet.
fn examine(version: Version, receiver: Receiver, bytes: &[u8]) -> bool {
    for max_packet in [10, 1000] {
        if let Ok(Some(end)) = frame_length(bytes, max_packet) {
            assert!(2 <= end && end <= bytes.len() && end <= max_packet as usize);
        }
    }
    if let Ok(connect) = decode_connect(bytes) {
        survives(connect.version, Receiver::Server, bytes, Packet::Connect(Box::new(connect)));
    }
    match decode(version, receiver, bytes) {
        Ok(packet) => {
            assert_eq!(frame_length(bytes, 1000), Ok(Some(bytes.len())));
            let version = match &packet {
                Packet::Connect(connect) => connect.version,
                _ => version,
            };
            survives(version, receiver, bytes, packet);
            true
        }
        Err(fault) => {
            assert!(fault.reason.is_error() && !fault.what.is_empty());
            false
        }
    }
}

/// An accepted packet is no larger than its input and is written and read again unchanged.
fn survives(version: Version, receiver: Receiver, bytes: &[u8], packet: Packet<'_>) {
    bounded(&packet, bytes.len());
    let mut again = Vec::new();
    packet.encode(version, &mut again);
    assert!(again.len() <= bytes.len(), "written longer than it was");
    let decoded = decode(version, receiver, &again).expect("what was written is valid");
    // Compared as text: packets are of one type only when they live equally long.
    assert_eq!(format!("{decoded:?}"), format!("{packet:?}"));
    let mut third = Vec::new();
    decoded.encode(version, &mut third);
    assert_eq!(third, again);
    if let Packet::Publish(publish) = packet {
        assert!(publish.topic.is_empty() || check_topic(publish.topic).is_ok());
        let forwardable = publish.properties.forwardable();
        assert!(forwardable.len() <= bytes.len());
        let kept = PublishProperties::from_forwardable(&forwardable);
        assert_eq!(kept.forwardable(), forwardable);
        assert_eq!(kept.user_properties, publish.properties.user_properties);
    }
}

/// A list has no more entries than the input has room for, and no more memory than twice that.
fn bounded(packet: &Packet<'_>, input_len: usize) {
    let (entries, capacity, inline, entry_len) = match packet {
        Packet::Subscribe(subscribe) => {
            for (filter, _) in &subscribe.filters {
                if check_filter(filter).is_ok() {
                    topic_matches(filter, filter);
                }
            }
            (subscribe.filters.len(), subscribe.filters.capacity(), 4, 4)
        }
        Packet::Unsubscribe(unsubscribe) => {
            (unsubscribe.filters.len(), unsubscribe.filters.capacity(), 4, 3)
        }
        Packet::SubAck(suback) | Packet::UnsubAck(suback) => {
            (suback.codes.len(), suback.codes.capacity(), 8, 1)
        }
        _ => return,
    };
    assert!(entries * entry_len <= input_len);
    assert!(capacity <= inline.max(entries.next_power_of_two()));
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok().map(|value| match value.parse() {
        Ok(value) => value,
        Err(_) => panic!("{name} is not a number: {value}"),
    })
}

#[test]
fn mutated_packets_do_no_harm() {
    let seed = setting("HOOPOE_FUZZ_SEED").unwrap_or(DEFAULT_SEED).max(1);
    let count = setting("HOOPOE_FUZZ_COUNT").unwrap_or(DEFAULT_COUNT);
    let until = setting("HOOPOE_FUZZ_SECS").map(|secs| Instant::now() + Duration::from_secs(secs));
    let mut seeds = seeds();
    let given = seeds.len();
    let mut random = Random(seed);
    let (mut tried, mut accepted) = (0, 0);
    while until.map_or(tried < count, |until| tried % BATCH > 0 || Instant::now() < until) {
        let from = &seeds[random.below(seeds.len())];
        let (version, receiver) = (from.version, from.receiver);
        let mut bytes = from.bytes.clone();
        mutate(&mut random, &seeds, &mut bytes);
        match catch_unwind(AssertUnwindSafe(|| examine(version, receiver, &bytes))) {
            Ok(false) => {}
            // What was accepted is changed further, so that inputs drift away from the table.
            Ok(true) => {
                accepted += 1;
                let seed = Seed { version, receiver, bytes };
                match seeds.len() - given {
                    0..MAX_KEPT => seeds.push(seed),
                    _ => seeds[given + random.below(MAX_KEPT)] = seed,
                }
            }
            Err(_) => {
                panic!("input {tried} of seed {seed}, {version:?}, {receiver:?}: {bytes:02X?}")
            }
        }
        tried += 1;
    }
    // Were hardly any input accepted, the rest of a packet would hardly be tried.
    assert!(tried == 0 || accepted > tried / 20, "{accepted} of {tried} accepted");
}
