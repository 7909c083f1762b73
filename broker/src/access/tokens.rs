//! Tokens (ruling 18): how they look, how they are drawn, and whose they are at this moment.
//!
//! The table in memory follows the store: it is filled at the start, and changed by the shards'
//! effects after each commit. It holds hashes; nobody learns a token from it. A hash without a
//! salt is enough: there are 256 bits to guess.

use std::sync::Arc;

use dashmap::DashMap;
use hoopoe_im::user::token::{Minted, TokenHash, TokenOwner};
use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

/// What every token begins with: recognised in logs and by scanners for lost secrets.
const PREFIX: &str = "hpt_";
/// Characters behind the prefix: 256 bits, six in each.
const TEXT_LEN: usize = 43;
/// Random bytes of a token's id.
const ID_BYTES: usize = 8;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Whether a password can only be a token.
pub fn is_token(text: &[u8]) -> bool {
    text.strip_prefix(PREFIX.as_bytes())
        .is_some_and(|rest| rest.len() == TEXT_LEN && rest.iter().all(|b| DIGITS.contains(b)))
}

/// SHA-256, of the TLS library: the program needs no second one.
pub fn sha256(bytes: &[u8]) -> TokenHash {
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else {
        unreachable!("a suite of TLS 1.3 by its name");
    };
    let mut hash = TokenHash::default();
    hash.copy_from_slice(suite.common.hash_provider.hash(bytes).as_ref());
    hash
}

/// Draws a token.
///
/// # Errors
/// When the operating system gives no random numbers.
pub fn mint() -> Result<Minted, getrandom::Error> {
    let (mut secret, mut id) = ([0; 32], [0; ID_BYTES]);
    getrandom::fill(&mut secret)?;
    getrandom::fill(&mut id)?;
    let mut text = String::with_capacity(PREFIX.len() + TEXT_LEN);
    text.push_str(PREFIX);
    for chunk in secret.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(char::from(digit));
        }
    }
    secret.fill(0);
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Minted { id: id.into(), hash: sha256(text.as_bytes()), text: text.into() })
}

/// The tokens that are valid, by their hashes.
#[derive(Default)]
pub struct Tokens {
    owners: DashMap<TokenHash, Arc<TokenOwner>, foldhash::fast::RandomState>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tokens").field("count", &self.owners.len()).finish()
    }
}

impl Tokens {
    /// A token is valid from now on.
    pub fn put(&self, hash: TokenHash, owner: TokenOwner) {
        self.owners.insert(hash, Arc::new(owner));
    }

    /// A token is valid no more; true when it was.
    pub fn remove(&self, hash: &TokenHash) -> bool {
        self.owners.remove(hash).is_some()
    }

    /// Whose token it is, if it is valid.
    pub fn owner(&self, hash: &TokenHash, now_ms: u64) -> Option<Arc<TokenOwner>> {
        let owner = self.owners.get(hash)?.clone();
        (owner.expires_ms > now_ms).then_some(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoopoe_im::User;

    #[test]
    fn tokens_are_recognised_and_never_the_same() {
        let (one, two) = (mint().unwrap(), mint().unwrap());
        assert_ne!(one.text, two.text);
        assert_ne!(one.id, two.id);
        assert!(is_token(one.text.as_bytes()) && is_token(two.text.as_bytes()));
        assert_eq!(one.hash, sha256(one.text.as_bytes()));
        assert!(!format!("{one:?}").contains(&*one.text));
        for other in ["", "hpt_", "secret", "hpt_x", &one.text[1..], &format!("{}x", one.text)] {
            assert!(!is_token(other.as_bytes()), "{other}");
        }
        assert!(!is_token(one.text.replace("hpt_", "hpt_ ").as_bytes()));
    }

    #[test]
    fn the_hash_is_sha_256() {
        let hex: String = sha256(b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_token_is_valid_until_it_expires_or_is_revoked() {
        let tokens = Tokens::default();
        let user = User { tenant: "t".into(), id: "alice".into() };
        let owner =
            TokenOwner { user, id: "1".into(), device: None, created_ms: 0, expires_ms: 100 };
        tokens.put([1; 32], owner);
        assert_eq!(&*tokens.owner(&[1; 32], 99).unwrap().user.id, "alice");
        assert!(tokens.owner(&[1; 32], 100).is_none());
        assert!(tokens.owner(&[2; 32], 0).is_none());
        assert!(tokens.remove(&[1; 32]) && !tokens.remove(&[1; 32]));
        assert!(tokens.owner(&[1; 32], 0).is_none());
    }
}
