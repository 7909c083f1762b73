//! A user's tokens (ruling 18): opaque texts of 256 random bits that stand for a password. Kept is
//! only the hash of a token; it is shown once, when it is made.
//!
//! Deliberately not here: chance and hashing. What is new about a token comes in as [`Minted`].

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use hoopoe_core::SLOTS;
use hoopoe_store::StoreError;
use hoopoe_store::kv::{Family, SharedKv};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::command::User;
use crate::effect::Effect;
use crate::id::is_id;
use crate::keys::{self, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::service::Caller;
use crate::service::ops::{TokensCreate, TokensRevoke};
use crate::service::query::Query;
use crate::shard::Work;

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// Life of a token without `ttl`: 30 days.
pub const TTL_DEFAULT_SECS: u64 = 30 * 24 * 3600;
/// Longest life of a token: ten years.
pub const TTL_MAX_SECS: u64 = 10 * 366 * 24 * 3600;
/// Tokens of one user.
const TOKENS_MAX: usize = 100;

/// A token that has just been drawn.
#[derive(Clone, PartialEq)]
pub struct Minted {
    /// Names it, and may be known.
    pub id: Arc<str>,
    /// The token.
    pub text: Arc<str>,
    /// What is kept of it.
    pub hash: TokenHash,
}

/// Shows no token: it belongs in no log.
impl fmt::Debug for Minted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Minted").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Whose token it is, and how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenOwner {
    /// The user it stands for.
    pub user: User,
    /// Its id.
    pub id: Arc<str>,
    /// The only client id that may use it; `None` for any.
    pub device: Option<Arc<str>>,
    /// When it was made.
    pub created_ms: u64,
    /// When it ends, ms since the epoch.
    pub expires_ms: u64,
}

/// A token as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct TokenRow {
    hash: TokenHash,
    created_ms: u64,
    expires_ms: u64,
    #[serde(default)]
    device: Option<Arc<str>>,
}

impl TokenRow {
    fn owner(&self, user: &User, id: &str) -> TokenOwner {
        TokenOwner {
            user: user.clone(),
            id: id.into(),
            device: self.device.clone(),
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
        }
    }
}

/// Every token in the store that has not expired: for the start.
///
/// # Errors
/// When rows cannot be read.
pub fn stored_tokens(
    kv: &SharedKv,
    now_ms: u64,
) -> Result<Vec<(TokenHash, TokenOwner)>, StoreError> {
    let mut found = Vec::new();
    crate::shard::due::scan_slots(kv, 0..SLOTS, &[user_kind::TOKEN], |_, name, key, row| {
        let row: TokenRow = crate::txn::read_json(key, row)?;
        let mut parts = name.splitn(3, |byte| *byte == 0).map(std::str::from_utf8);
        if let (Some(Ok(tenant)), Some(Ok(user)), Some(Ok(id))) =
            (parts.next(), parts.next(), parts.next())
            && row.expires_ms > now_ms
        {
            let user = User { tenant: tenant.into(), id: user.into() };
            found.push((row.hash, row.owner(&user, id)));
        }
        Ok(())
    })?;
    Ok(found)
}

impl Work<'_> {
    fn token_rows(&mut self, user: &User) -> Result<Vec<(Vec<u8>, TokenRow)>, Fault> {
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::TOKEN);
        let (mut rows, mut result) = (Vec::new(), Ok(()));
        self.txn.scan(Family::Im, &prefix, b"", |key, row| {
            match crate::txn::read_json(key, row) {
                Ok(row) => rows.push((key.to_vec(), row)),
                Err(error) => result = Err(error),
            }
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        Ok(rows)
    }

    pub(crate) fn tokens_create(
        &mut self,
        caller: &Caller,
        create: &TokensCreate,
    ) -> Result<Value, Fault> {
        let Some(minted) = &create.minted else {
            return Err(Refusal::not_found("tokens are not made here").into());
        };
        let ttl_secs = create.ttl.unwrap_or(TTL_DEFAULT_SECS);
        if !(1..=TTL_MAX_SECS).contains(&ttl_secs) {
            return Err(Refusal::bad_request(format!("ttl: from 1 to {TTL_MAX_SECS}")).into());
        }
        if let Some(device) = create.device.as_deref().filter(|device| !is_id(device)) {
            return Err(Refusal::bad_request(format!("device: {device:?} is no valid id")).into());
        }
        let user = &caller.user;
        let mut count = 0;
        for (key, row) in self.token_rows(user)? {
            if row.expires_ms <= self.now_ms {
                self.txn.delete(Family::Im, &key);
                self.txn.effect(Effect::Token { hash: row.hash, owner: None });
            } else {
                count += 1;
            }
        }
        if count >= TOKENS_MAX {
            let text = format!("a user has at most {TOKENS_MAX} tokens");
            return Err(Refusal::limit(text).into());
        }
        let row = TokenRow {
            hash: minted.hash,
            created_ms: self.now_ms,
            expires_ms: self.now_ms + ttl_secs * 1000,
            device: create.device.as_deref().map(Arc::from),
        };
        let key = keys::user_name(&user.tenant, &user.id, user_kind::TOKEN, &minted.id);
        self.txn.put_json(&key, &row);
        let owner = Some(row.owner(user, &minted.id));
        self.txn.effect(Effect::Token { hash: minted.hash, owner });
        Ok(json!({ "id": minted.id, "token": minted.text, "expires": row.expires_ms }))
    }

    pub(crate) fn tokens_revoke(
        &mut self,
        caller: &Caller,
        revoke: &TokensRevoke,
    ) -> Result<Value, Fault> {
        let user = &caller.user;
        let key = keys::user_name(&user.tenant, &user.id, user_kind::TOKEN, &revoke.id);
        let row: Option<TokenRow> = if is_id(&revoke.id) { self.txn.json(&key)? } else { None };
        let Some(row) = row else {
            return Err(Refusal::not_found(format!("no token {:?}", revoke.id)).into());
        };
        self.txn.delete(Family::Im, &key);
        self.txn.effect(Effect::Token { hash: row.hash, owner: None });
        Ok(json!({}))
    }

    /// All tokens of a user are gone.
    pub(crate) fn revoke_all_tokens(&mut self, user: &User) -> Result<(), Fault> {
        for (key, row) in self.token_rows(user)? {
            self.txn.delete(Family::Im, &key);
            self.txn.effect(Effect::Token { hash: row.hash, owner: None });
        }
        Ok(())
    }
}

impl Query {
    pub(crate) fn tokens_list(&self, user: &User) -> Result<Value, Fault> {
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::TOKEN);
        let mut tokens = Vec::new();
        self.names(&prefix, None, |id, key, row| {
            let row: TokenRow = crate::txn::read_json(key, row)?;
            if row.expires_ms > self.now_ms() {
                tokens.push(json!({
                    "id": id, "created": row.created_ms, "expires": row.expires_ms,
                    "device": row.device,
                }));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(json!({ "tokens": tokens }))
    }
}
