//! Who a client is and which topics it may use.
//!
//! [`Access`] holds the users and the rules a broker judges by at this moment and exchanges both
//! as a whole on reload. What a session learned from it (a permission, that a login is good) holds
//! as long as [`Access::generation`] stays the same.
//!
//! Not here: sockets and packets; the `im/` tree, where the profile alone decides; client
//! certificates, which the transport checks before it names their user.

mod accounts;
mod authenticator;
mod filter;
mod hash_pool;
mod identity;
mod login_cache;
mod rules;
pub mod tenant;
mod tokens;
mod users;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use hoopoe_im::user::account::stored_accounts;
use hoopoe_im::user::token::stored_tokens;
use hoopoe_store::StoreError;
use hoopoe_store::kv::SharedKv;
use thiserror::Error;

pub use accounts::Accounts;
pub use authenticator::{
    Authenticator, Credentials, Login, LoginDone, PasswordJob, PasswordTicket,
};
pub use hash_pool::HashPool;
pub use identity::{DEFAULT_TENANT, Identity, LoginMethod};
pub use rules::{Action, RuleError, RuleFault, Rules};
pub use tokens::{Tokens, is_token, mint, sha256};
pub use users::{
    UserNameFault, Users, UsersError, check_user_name, edit_users_file, hash_password,
};

use crate::settings::AccessSettings;

/// Why users or rules cannot be used.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The users file.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The rules file cannot be read.
    #[error("{}: cannot read the rules: {cause}", file.display())]
    ReadRules {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// A line of the rules file.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The system gives no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Random(getrandom::Error),
    /// The system gives no threads.
    #[error("no thread to check passwords: {0}")]
    Threads(std::io::Error),
}

/// The users and rules in force.
#[derive(Debug)]
pub struct Access {
    authenticator: Authenticator,
    rules: ArcSwap<Rules>,
    generation: AtomicU64,
}

impl Access {
    /// Reads the files the settings name and starts the threads that check passwords.
    ///
    /// # Errors
    /// When a file cannot be read or a line of it is wrong, with file and line.
    pub fn open(settings: &AccessSettings) -> Result<Access, AccessError> {
        let (users, rules) = (read_users(settings)?, read_rules(settings)?);
        Ok(Access {
            authenticator: Authenticator::new(users, settings)?,
            rules: ArcSwap::from_pointee(rules),
            generation: AtomicU64::new(0),
        })
    }

    /// Reads the files again. Both are exchanged, or after an error neither.
    ///
    /// # Errors
    /// As [`Access::open`].
    pub fn reload(&self, settings: &AccessSettings) -> Result<(), AccessError> {
        let (users, rules) = (read_users(settings)?, read_rules(settings)?);
        self.authenticator.exchange_users(users);
        self.rules.store(Arc::new(rules));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Rises with every reload. A session that finds it risen forgets its cached permissions and
    /// asks [`Authenticator::still_good`] whether its client may stay. To be read before the
    /// rules, so that a permission is at worst kept under a number that is already old.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Takes over the tokens and accounts of the store. Later changes come from the shards.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn load(&self, kv: &SharedKv, now_ms: u64) -> Result<(), StoreError> {
        for (hash, owner) in stored_tokens(kv, now_ms)? {
            self.tokens().put(hash, owner);
        }
        for (user, account) in stored_accounts(kv)? {
            self.accounts().put(user, Some(Arc::new(account)));
        }
        Ok(())
    }

    /// The valid tokens.
    pub fn tokens(&self) -> &Tokens {
        self.authenticator.tokens()
    }

    /// The accounts of the store.
    pub fn accounts(&self) -> &Accounts {
        self.authenticator.accounts()
    }

    /// A token or an account was taken away: everybody who is connected is looked at again.
    pub fn logins_changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Who checks logins.
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Whether the client may use the topic or filter. See [`Rules::allows`].
    pub fn allows(&self, who: &Identity, client_id: &str, action: Action, topic: &str) -> bool {
        // What passes a link is said by its rules.
        who.method == LoginMethod::Bridge || self.rules.load().allows(who, client_id, action, topic)
    }
}

/// The users of the users file, if the settings name one.
///
/// # Errors
/// When the file cannot be read or a line of it is wrong.
pub fn read_users(settings: &AccessSettings) -> Result<Option<Users>, AccessError> {
    Ok(settings.users_file.as_deref().map(Users::read).transpose()?)
}

/// The rules of the rules file, or those that hold without one.
///
/// # Errors
/// As [`read_users`].
pub fn read_rules(settings: &AccessSettings) -> Result<Rules, AccessError> {
    match &settings.rules_file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|cause| AccessError::ReadRules { file: file.clone(), cause })?;
            Ok(Rules::parse(&text, file)?)
        }
        None if settings.users_file.is_some() => Ok(Rules::deny_all()),
        None => Ok(Rules::allow_all()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_reload_exchanges_users_and_rules_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (users_file, rules_file) = (folder.path().join("users"), folder.path().join("rules"));
        fs::write(&users_file, "").unwrap();
        fs::write(&rules_file, "user *\nallow both a/#\n").unwrap();
        let settings = AccessSettings {
            users_file: Some(users_file),
            rules_file: Some(rules_file.clone()),
            ..AccessSettings::default()
        };
        let access = Access::open(&settings).unwrap();
        let alice = Identity::new("alice", LoginMethod::Password);
        let allowed = |topic| access.allows(&alice, "c", Action::Publish, topic);
        assert!(allowed("a/1") && !allowed("b/1"));
        assert_eq!(access.generation(), 0);

        fs::write(&rules_file, "user *\nallow both b/#\n").unwrap();
        access.reload(&settings).unwrap();
        assert!(!allowed("a/1") && allowed("b/1"));
        assert_eq!(access.generation(), 1);

        fs::write(&rules_file, "nonsense\n").unwrap();
        let error = access.reload(&settings).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:1: ", rules_file.display())), "{error}");
        assert!(allowed("b/1"));
        assert_eq!(access.generation(), 1);
    }

    #[test]
    fn without_files_everything_is_allowed_and_with_users_alone_nothing() {
        let settings = AccessSettings::default();
        assert!(read_users(&settings).unwrap().is_none());
        let rules = read_rules(&settings).unwrap();
        let someone = Identity::new("someone", LoginMethod::Development);
        assert!(rules.allows(&someone, "c", Action::Publish, "any/topic"));

        let file = tempfile::NamedTempFile::new().unwrap();
        let users_file = Some(file.path().to_owned());
        let settings = AccessSettings { users_file, ..settings };
        assert!(read_users(&settings).unwrap().is_some());
        let rules = read_rules(&settings).unwrap();
        assert!(!rules.allows(&someone, "c", Action::Publish, "any/topic"));
    }
}
