//! Logins that were good, so that the same client coming back costs no password hashing.
//!
//! A login is remembered as a MAC (HMAC-SHA-256) of user, stored hash and password under a key that
//! lives and dies with the process: who reads the memory of the cache alone learns no password.
//! Because the stored hash is part of it, a changed or removed user is forgotten by itself.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::tls13::{Hkdf, OkmBlock};

/// What one login is remembered as.
pub(super) type LoginMac = [u8; 32];

/// The remembered logins, the oldest forgotten first.
pub(super) struct LoginCache {
    key: OkmBlock,
    hmac: &'static dyn Hkdf,
    capacity: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    macs: HashSet<LoginMac, foldhash::fast::RandomState>,
    by_age: VecDeque<LoginMac>,
}

impl LoginCache {
    /// An empty cache under a new key.
    pub(super) fn new(capacity: usize) -> Result<LoginCache, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        // The MAC of the TLS library: the program needs no second one.
        let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else {
            unreachable!("a suite of TLS 1.3 by its name");
        };
        let known = Mutex::default();
        Ok(LoginCache { key: OkmBlock::new(&key), hmac: suite.hkdf_provider, capacity, known })
    }

    /// What the login would be remembered as.
    pub(super) fn mac(&self, user: &str, hash: &str, password: &[u8]) -> LoginMac {
        // Each part but the last with its length, so that no two logins give the same bytes.
        let mut login = Vec::with_capacity(16 + user.len() + hash.len() + password.len());
        for part in [user, hash] {
            login.extend_from_slice(&(part.len() as u64).to_be_bytes());
            login.extend_from_slice(part.as_bytes());
        }
        login.extend_from_slice(password);
        let tag = self.hmac.hmac_sign(&self.key, &login);
        login.fill(0);
        let mut mac = LoginMac::default();
        mac.copy_from_slice(tag.as_ref());
        mac
    }

    /// A number that changes when the user's stored hash does.
    pub(super) fn mark(&self, user: &str, hash: &str) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.mac(user, hash, b"");
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Whether the login was good before. What the comparison's time could tell about a MAC is of
    /// no use to anyone without the key.
    pub(super) fn contains(&self, mac: &LoginMac) -> bool {
        self.known.lock().macs.contains(mac)
    }

    /// Remembers a login.
    pub(super) fn insert(&self, mac: LoginMac) {
        let mut known = self.known.lock();
        if self.capacity == 0 || !known.macs.insert(mac) {
            return;
        }
        if known.by_age.len() == self.capacity
            && let Some(oldest) = known.by_age.pop_front()
        {
            known.macs.remove(&oldest);
        }
        known.by_age.push_back(mac);
    }

    /// Forgets every login.
    pub(super) fn clear(&self) {
        *self.known.lock() = Known::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_depends_on_every_part_and_on_the_key() {
        let cache = LoginCache::new(1).unwrap();
        let mac = cache.mac("user", "hash", b"password");
        assert_eq!(mac, cache.mac("user", "hash", b"password"));
        for (user, hash, password) in [
            ("userh", "ash", "password"),
            ("user", "hashp", "assword"),
            ("user", "hash", "passwore"),
            ("usera", "hash", "password"),
        ] {
            assert_ne!(mac, cache.mac(user, hash, password.as_bytes()));
        }
        assert_ne!(mac, LoginCache::new(1).unwrap().mac("user", "hash", b"password"));
    }

    #[test]
    fn the_oldest_makes_room() {
        let cache = LoginCache::new(2).unwrap();
        let mac = |n| [n; 32];
        for n in [1, 2, 2, 3] {
            cache.insert(mac(n));
        }
        assert_eq!([1, 2, 3].map(|n| cache.contains(&mac(n))), [false, true, true]);
        cache.clear();
        assert!(!cache.contains(&mac(3)));
        let none = LoginCache::new(0).unwrap();
        none.insert(mac(1));
        assert!(!none.contains(&mac(1)));
    }
}
