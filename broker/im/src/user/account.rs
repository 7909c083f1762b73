//! Accounts that operators keep in the store, beside those of the users file: a password's hash,
//! roles, and whether the user may log in.
//!
//! Deliberately not here: hashing, which is slow and done before. A user without an account may
//! still have tokens, a certificate or a line in the users file.

use std::fmt;
use std::sync::Arc;

use hoopoe_codec::ReasonCode;
use hoopoe_core::SLOTS;
use hoopoe_store::StoreError;
use hoopoe_store::kv::{Family, SharedKv};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::command::{Asker, User};
use crate::effect::Effect;
use crate::id::is_id;
use crate::keys::{self, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::shard::Work;

/// The role whose users may do what operators may, below `/v1/messages` and the services.
pub const SERVICE: &str = "service";
/// Roles of one account.
const ROLES_MAX: usize = 16;

/// An account as it is kept.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// The argon2id hash of the password; `None`: tokens only.
    #[serde(default)]
    pub password: Option<Arc<str>>,
    /// Words that mean something to the broker ([`SERVICE`]) or to other programs.
    #[serde(default)]
    pub roles: Vec<Arc<str>>,
    /// The user may not log in.
    #[serde(default)]
    pub disabled: bool,
    /// When it was made, ms since the epoch.
    #[serde(default)]
    pub created_ms: u64,
}

/// Shows no hash: it belongs in no log.
impl fmt::Debug for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disabled = self.disabled;
        out.debug_struct("Account").field("disabled", &disabled).finish_non_exhaustive()
    }
}

impl Account {
    /// What may be shown of it.
    pub fn shown(&self, user: &str) -> Value {
        json!({
            "user": user, "roles": self.roles, "disabled": self.disabled,
            "created": self.created_ms, "password": self.password.is_some(),
        })
    }
}

/// What an operator does to an account.
#[derive(Clone, Debug)]
pub struct AccountCommand {
    /// Whose.
    pub user: User,
    /// What.
    pub change: AccountChange,
    /// Who waits.
    pub asker: Asker,
}

/// A change of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountChange {
    /// A new account.
    Create(Account),
    /// Another password, or none. The user's connections end; tokens stay.
    Reset(Option<Arc<str>>),
    /// The user may not log in; connections end at once.
    Disable,
    /// The user may log in again.
    Enable,
    /// The account and its tokens are gone; connections end.
    Delete {
        /// Everything else that the user's shard keeps of the user goes too.
        erase: bool,
    },
}

/// Every account in the store: for the start.
///
/// # Errors
/// When rows cannot be read.
pub fn stored_accounts(kv: &SharedKv) -> Result<Vec<(User, Account)>, StoreError> {
    let mut found = Vec::new();
    crate::shard::due::scan_slots(kv, 0..SLOTS, &[user_kind::LOGIN], |_, name, key, row| {
        let account = crate::txn::read_json(key, row)?;
        let text = std::str::from_utf8(name).unwrap_or_default();
        if let Some((tenant, user)) = text.split_once('\0') {
            found.push((User { tenant: tenant.into(), id: user.into() }, account));
        }
        Ok(())
    })?;
    Ok(found)
}

impl Work<'_> {
    pub(crate) fn account(&mut self, command: &AccountCommand) -> Result<Value, Fault> {
        let user = &command.user;
        if !is_id(&user.id) || !is_id(&user.tenant) {
            return Err(Refusal::bad_request(format!("user: {:?} is no valid id", user.id)).into());
        }
        let key = keys::user(&user.tenant, &user.id, user_kind::LOGIN);
        let present: Option<Account> = self.txn.json(&key)?;
        let kicks = !matches!(command.change, AccountChange::Create(_) | AccountChange::Enable);
        let next = match &command.change {
            AccountChange::Create(account) => {
                if present.is_some() {
                    let text = format!("there is an account {:?}", user.id);
                    return Err(Refusal::new(crate::refusal::Word::Exists, text).into());
                }
                check_roles(&account.roles)?;
                Some(Account { created_ms: self.now_ms, ..account.clone() })
            }
            AccountChange::Delete { erase } => {
                if present.is_none() && !erase {
                    return Err(no_account(user).into());
                }
                self.revoke_all_tokens(user)?;
                if *erase {
                    self.erase(user)?;
                }
                None
            }
            AccountChange::Disable => {
                // Users of the users file, or with nothing but tokens, are locked out as well.
                Some(Account { disabled: true, ..present.unwrap_or_default() })
            }
            AccountChange::Enable => {
                let present = present.ok_or_else(|| no_account(user))?;
                Some(Account { disabled: false, ..present })
            }
            AccountChange::Reset(password) => {
                let present = present.ok_or_else(|| no_account(user))?;
                Some(Account { password: password.clone(), ..present })
            }
        };
        match &next {
            Some(account) => self.txn.put_json(&key, account),
            None => self.txn.delete(Family::Im, &key),
        }
        let answer = next.as_ref().map_or_else(|| json!({}), |account| account.shown(&user.id));
        self.txn.effect(Effect::Account { user: user.clone(), account: next.map(Arc::new) });
        if kicks {
            let reason = ReasonCode::NotAuthorized;
            self.txn.effect(Effect::Kick {
                user: user.clone(),
                client: None,
                reason,
                notice: None,
            });
        }
        Ok(answer)
    }

    /// Removes every row that the user's shard keeps of the user: profile, conversation list,
    /// devices, cursors, roster, mentions, presence. The conversations, and those who are friends,
    /// are told: what the user said goes in the background.
    fn erase(&mut self, user: &User) -> Result<(), Fault> {
        self.erase_elsewhere(user)?;
        for kind in user_kind::FIRST..=user_kind::LAST {
            if kind == user_kind::ROSTER {
                continue;
            }
            let own = keys::user(&user.tenant, &user.id, kind);
            if self.txn.has(Family::Im, &own)? {
                self.txn.delete(Family::Im, &own);
            }
            let prefix = keys::user_prefix(&user.tenant, &user.id, kind);
            for key in self.txn.keys(Family::Im, &prefix, usize::MAX)? {
                self.txn.delete(Family::Im, &key);
            }
        }
        Ok(())
    }
}

fn no_account(user: &User) -> Refusal {
    Refusal::not_found(format!("no account {:?}", user.id))
}

fn check_roles(roles: &[Arc<str>]) -> Result<(), Refusal> {
    if roles.len() > ROLES_MAX {
        return Err(Refusal::bad_request(format!("roles: at most {ROLES_MAX}")));
    }
    match roles.iter().find(|role| !is_id(role)) {
        Some(role) => Err(Refusal::bad_request(format!("roles: {role:?} is no valid id"))),
        None => Ok(()),
    }
}
