//! How often one address may connect: a table of token buckets of fixed size.
//!
//! Owns the buckets of one listener. An address is an IPv4 address or an IPv6 /64, since one
//! subscriber holds a whole /64. Policy when full: a new address in a full set of the table takes
//! over the bucket with most tokens *with its level*, so a flood of addresses admits no more than
//! the buckets of the table together would, and whoever connects rarely is hurt least.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

/// Sets in a table; a power of two.
const SETS: usize = 8192;
/// Buckets per set: 32,768 addresses and 512 KiB per listener that limits.
const BUCKETS_PER_SET: usize = 4;

/// How often one address may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectRate {
    /// Connections per second in the long run, at least 1.
    pub per_sec: u32,
    /// Connections at once after a pause, at least 1.
    pub burst: u32,
}

/// One bucket. The level is kept as the time at which it would be full again, which needs no
/// refilling (the "generic cell rate" form of a token bucket).
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Hash of the address; 0 marks a bucket never used.
    owner: u64,
    full_at_micros: u64,
}

/// The connect rates of the addresses a listener sees.
#[derive(Debug)]
pub struct ConnectRates {
    sets: Vec<[Bucket; BUCKETS_PER_SET]>,
    // Keyed at random, so that nobody can choose addresses that share a set.
    hasher: RandomState,
    interval_micros: u64,
    tolerance_micros: u64,
}

impl ConnectRates {
    /// A table in which every address may connect at this rate.
    pub fn new(rate: ConnectRate) -> Self {
        let interval_micros = 1_000_000 / u64::from(rate.per_sec.max(1));
        ConnectRates {
            sets: vec![Default::default(); SETS],
            hasher: RandomState::new(),
            interval_micros,
            tolerance_micros: interval_micros * u64::from(rate.burst.max(1) - 1),
        }
    }

    /// Whether the address may connect now; if so, the connection is charged to it. `now` counts
    /// from any fixed moment and does not go back.
    pub fn admit(&mut self, now: Duration, address: IpAddr) -> bool {
        let now_micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let owner = self.hasher.hash_one(subscriber(address)).max(1);
        // The low bits choose the set; the whole hash tells addresses in it apart.
        let set = &mut self.sets[owner as usize % SETS];
        let place = match set.iter().position(|bucket| bucket.owner == owner) {
            Some(place) => place,
            None => {
                let fullest = (0..BUCKETS_PER_SET)
                    .min_by_key(|place| set[*place].full_at_micros)
                    .unwrap_or_default();
                set[fullest].owner = owner;
                fullest
            }
        };
        let bucket = &mut set[place];
        let full_at = bucket.full_at_micros.max(now_micros);
        if full_at - now_micros > self.tolerance_micros {
            return false;
        }
        bucket.full_at_micros = full_at.saturating_add(self.interval_micros);
        true
    }
}

/// What counts as one address.
fn subscriber(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        // The first half of an IPv6 address is never below 2^32 for addresses in use on networks,
        // so the two families do not meet.
        IpAddr::V6(v6) => (u128::from(v6) >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: ConnectRate = ConnectRate { per_sec: 10, burst: 3 };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut rates = ConnectRates::new(RATE);
        let address = "203.0.113.5".parse().unwrap();
        let admitted: Vec<bool> = [0, 0, 0, 0, 99, 100, 100, 150, 200, 1000, 1000, 1000, 1000]
            .map(|millis| rates.admit(at(millis), address))
            .to_vec();
        let expected =
            [true, true, true, false, false, true, false, false, true, true, true, true, false];
        assert_eq!(admitted, expected);
    }

    #[test]
    fn addresses_are_counted_apart_and_ipv6_by_subscriber() {
        let mut rates = ConnectRates::new(ConnectRate { per_sec: 1, burst: 1 });
        let cases = [
            ("203.0.113.5", true),
            ("203.0.113.5", false),
            ("203.0.113.6", true),
            ("::ffff:203.0.113.6", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
            ("2001:db8:0:1::1", true),
        ];
        for (address, expected) in cases {
            assert_eq!(rates.admit(at(0), address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_flood_of_addresses_stays_within_the_table() {
        let mut rates = ConnectRates::new(RATE);
        let addresses = (SETS * BUCKETS_PER_SET * 5) as u32;
        let admitted = (0..addresses)
            .filter(|host| rates.admit(at(0), IpAddr::from(host.to_be_bytes())))
            .count();
        assert!(admitted <= SETS * BUCKETS_PER_SET * RATE.burst as usize, "{admitted}");
        assert!(admitted > SETS, "{admitted}");
    }
}
