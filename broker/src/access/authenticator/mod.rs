//! Whether a client is who it says.
//!
//! What needs no hashing is answered at once, on the caller's thread. A password that was not seen
//! before becomes a [`PasswordJob`] for the pool. Ruling 18; development mode is ruling 19.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use hoopoe_codec::ReasonCode;
use hoopoe_im::User;
use hoopoe_im::user::account::Account;

use super::hash_pool::HashPool;
use super::login_cache::LoginCache;
use super::tokens::{Tokens, is_token, sha256};
use super::users::default_dummy;
use super::{AccessError, Accounts, Identity, LoginMethod, Users};
use crate::clock::now_ms;
use crate::settings::{AccessSettings, Door};

/// What a client says about itself in CONNECT, and what its transport established.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The user name of CONNECT.
    pub user: Option<&'a str>,
    /// The password of CONNECT.
    pub password: Option<&'a [u8]>,
    /// The user of a checked client certificate, on listeners with `subject_as_user`.
    pub certificate_user: Option<&'a str>,
    /// The client identifier, which a token may be bound to.
    pub client_id: &'a str,
}

/// Names no password: it does not belong in a log.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials")
            .field("user", &self.user)
            .field("certificate_user", &self.certificate_user)
            .finish_non_exhaustive()
    }
}

/// The answer to a login.
#[derive(Debug)]
pub enum Login {
    /// The client is this.
    Accepted(Identity),
    /// The client is turned away, for CONNACK.
    Refused(ReasonCode),
    /// A password must be hashed first.
    Pending(PasswordJob),
}

/// Called once with the answer, on a thread of the pool. Never called when the ticket was dropped
/// before or the broker ends.
pub type LoginDone = Box<dyn FnOnce(Result<Identity, ReasonCode>) + Send>;

/// The users, and the means to check them.
#[derive(Debug)]
pub struct Authenticator {
    shared: Arc<Shared>,
    pool: Arc<HashPool>,
}

struct Shared {
    users: ArcSwapOption<Users>,
    cache: LoginCache,
    /// A login may name a tenant.
    tenants: bool,
    tokens: Tokens,
    accounts: Accounts,
    /// Checked for users who do not exist while there is no users file.
    dummy: Arc<str>,
}

impl Shared {
    /// Whether somebody has said who the users are.
    fn has_users(&self) -> bool {
        self.users.load().is_some() || !self.accounts.is_empty()
    }

    /// The hash of a user's password: that of the account in the store, or of the users file.
    fn hash_of(&self, user: &str) -> Option<Arc<str>> {
        let account = self.account_of(user);
        if account.as_ref().is_some_and(|account| account.disabled) {
            return None;
        }
        let stored = account.and_then(|account| account.password.clone());
        stored.or_else(|| self.users.load().as_ref()?.hash_of(user).cloned())
    }

    fn account_of(&self, user: &str) -> Option<Arc<Account>> {
        if self.accounts.is_empty() {
            return None;
        }
        // A login of another tenant is `tenant/user`, where logins may name one.
        let named = Identity::named(user, LoginMethod::Password, self.tenants);
        self.accounts.of(&User { tenant: named.tenant, id: named.user })
    }

    fn is_disabled(&self, user: &str) -> bool {
        self.account_of(user).is_some_and(|account| account.disabled)
    }

    fn dummy_hash(&self) -> Arc<str> {
        self.users.load().as_ref().map_or_else(|| &self.dummy, |users| users.dummy_hash()).clone()
    }

    /// The user whose password was good.
    fn identity_of(&self, user: &str, hash: &str) -> Identity {
        let password_mark = self.cache.mark(user, hash);
        let named = Identity::named(user, LoginMethod::Password, self.tenants);
        Identity { password_mark, ..named }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shared").field("users", &self.users.load()).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Checks logins against these users; none: there are no users.
    pub(super) fn new(
        users: Option<Users>,
        settings: &AccessSettings,
    ) -> Result<Authenticator, AccessError> {
        let threads = usize::from(settings.hash_threads);
        let pool =
            HashPool::new(threads, settings.hash_queue as usize).map_err(AccessError::Threads)?;
        Authenticator::with_pool(users, settings.login_cache as usize, settings.tenants, pool)
            .map_err(AccessError::Random)
    }

    fn with_pool(
        users: Option<Users>,
        cache: usize,
        tenants: bool,
        pool: HashPool,
    ) -> Result<Authenticator, getrandom::Error> {
        let users = ArcSwapOption::from(users.map(Arc::new));
        let shared = Arc::new(Shared {
            users,
            cache: LoginCache::new(cache)?,
            tenants,
            tokens: Tokens::default(),
            accounts: Accounts::default(),
            dummy: default_dummy().into(),
        });
        Ok(Authenticator { shared, pool: Arc::new(pool) })
    }

    fn named(&self, login: &str, method: LoginMethod) -> Identity {
        Identity::named(login, method, self.shared.tenants)
    }

    /// The users from now on. Good logins of before are forgotten.
    pub(super) fn exchange_users(&self, users: Option<Users>) {
        self.shared.users.store(users.map(Arc::new));
        self.shared.cache.clear();
    }

    /// The valid tokens.
    pub(super) fn tokens(&self) -> &Tokens {
        &self.shared.tokens
    }

    /// The accounts of the store.
    pub(super) fn accounts(&self) -> &Accounts {
        &self.shared.accounts
    }

    /// Logins that wait to be checked: for the metrics.
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    /// Who the client is. A certificate decides alone; then a user name with its password; then
    /// whatever the listener's door lets in.
    pub fn check(&self, credentials: Credentials<'_>, door: Door) -> Login {
        // An empty user name names nobody.
        let user = credentials.user.filter(|user| !user.is_empty());
        if let Some(certified) = credentials.certificate_user {
            // Somebody else's name beside it would be silently ignored: a mistake to be told.
            return if certified.is_empty() || user.is_some_and(|user| user != certified) {
                Login::Refused(ReasonCode::BadUserNameOrPassword)
            } else {
                self.unless_disabled(self.named(certified, LoginMethod::Certificate))
            };
        }
        if let Some(token) = credentials.password.filter(|password| is_token(password)) {
            return self.check_token(token, user, credentials.client_id);
        }
        let Some(user) = user else {
            return anonymous(door, ReasonCode::NotAuthorized);
        };
        match (self.shared.has_users(), credentials.password) {
            // The door was computed from settings that a reload may just have replaced: with
            // users there is no development mode, whatever it says.
            (true, None) => Login::Refused(ReasonCode::BadUserNameOrPassword),
            (true, Some(password)) => self.check_password(user, password),
            (false, _) if door.development => {
                Login::Accepted(self.named(user, LoginMethod::Development))
            }
            // Nobody can tell whether the client is that user, so it is nobody.
            (false, _) => anonymous(door, ReasonCode::BadUserNameOrPassword),
        }
    }

    fn unless_disabled(&self, identity: Identity) -> Login {
        if self.shared.is_disabled(&identity.login_name()) {
            Login::Refused(ReasonCode::NotAuthorized)
        } else {
            Login::Accepted(identity)
        }
    }

    /// A token needs no hashing that costs anything: one look into a table.
    fn check_token(&self, token: &[u8], user: Option<&str>, client_id: &str) -> Login {
        let refused = Login::Refused(ReasonCode::BadUserNameOrPassword);
        let hash = sha256(token);
        let Some(owner) = self.shared.tokens.owner(&hash, now_ms()) else { return refused };
        // The token tells the tenant; a login may name it too.
        let other_user = user.is_some_and(|user| {
            let named = self.named(user, LoginMethod::Token);
            *user != *owner.user.id
                && (named.tenant != owner.user.tenant || named.user != owner.user.id)
        });
        let other_device = owner.device.as_deref().is_some_and(|device| device != client_id);
        if other_user || other_device || self.shared.accounts.is_disabled(&owner.user) {
            return refused;
        }
        Login::Accepted(Identity {
            tenant: owner.user.tenant.clone(),
            token: Some(Box::new(hash)),
            token_since_ms: owner.created_ms,
            ..Identity::new(&owner.user.id, LoginMethod::Token)
        })
    }

    fn check_password(&self, user: &str, password: &[u8]) -> Login {
        // One spelling: `default/alice` is alice.
        let user = &*self.named(user, LoginMethod::Password).login_name().into_owned();
        let known = self.shared.hash_of(user);
        if let Some(hash) = &known
            && self.shared.cache.contains(&self.shared.cache.mac(user, hash, password))
        {
            return Login::Accepted(self.shared.identity_of(user, hash));
        }
        let check = PasswordCheck {
            user: user.into(),
            password: password.into(),
            exists: known.is_some(),
            hash: known.unwrap_or_else(|| self.shared.dummy_hash()),
            shared: Arc::clone(&self.shared),
        };
        Login::Pending(PasswordJob { check, pool: Arc::clone(&self.pool) })
    }

    /// Whether a client that is connected may stay after a reload: its user is still there and has
    /// the same password. Who came without a password is judged by the door of its listener.
    pub fn still_good(&self, identity: &Identity, door: Door) -> bool {
        let shared = &self.shared;
        match identity.method {
            LoginMethod::Password => {
                let name = identity.login_name();
                let mark = |hash: Arc<str>| shared.cache.mark(&name, &hash);
                shared.hash_of(&name).map(mark) == Some(identity.password_mark)
            }
            LoginMethod::Token => {
                let owner = identity.token.as_ref();
                let owner = owner.and_then(|hash| shared.tokens.owner(hash, now_ms()));
                owner.is_some_and(|owner| !shared.accounts.is_disabled(&owner.user))
            }
            LoginMethod::Certificate => !shared.is_disabled(&identity.login_name()),
            LoginMethod::Development => !shared.has_users() && door.development,
            LoginMethod::Anonymous => door.anonymous,
            LoginMethod::Bridge => true,
        }
    }
}

fn anonymous(door: Door, otherwise: ReasonCode) -> Login {
    if door.anonymous { Login::Accepted(Identity::anonymous()) } else { Login::Refused(otherwise) }
}

/// A password that has to be hashed.
#[derive(Debug)]
pub struct PasswordJob {
    check: PasswordCheck,
    pool: Arc<HashPool>,
}

/// What the pool does. It does not hold the pool, whose queue may hold it.
struct PasswordCheck {
    user: Arc<str>,
    password: Box<[u8]>,
    hash: Arc<str>,
    exists: bool,
    shared: Arc<Shared>,
}

impl fmt::Debug for PasswordCheck {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PasswordCheck").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Held by a connection while its password is checked. Dropped with the connection, it spares the
/// pool work that nobody waits for: in a storm of clients that give up, that is most of it.
#[derive(Debug)]
#[must_use = "a login whose ticket is dropped is not checked"]
pub struct PasswordTicket {
    _waiting: Arc<()>,
}

impl PasswordJob {
    /// Gives the job to the pool; `done` hears the answer.
    ///
    /// # Errors
    /// [`ReasonCode::ServerBusy`] when too many wait already; `done` is then never called.
    pub fn submit(self, done: LoginDone) -> Result<PasswordTicket, ReasonCode> {
        let waiting = Arc::new(());
        let waits: Weak<()> = Arc::downgrade(&waiting);
        let check = self.check;
        let job = Box::new(move || {
            if waits.strong_count() > 0 {
                done(check.run());
            }
        });
        self.pool.submit(job).map_err(|_| ReasonCode::ServerBusy)?;
        Ok(PasswordTicket { _waiting: waiting })
    }
}

impl PasswordCheck {
    /// Hashes and decides. The same work is done for a user who does not exist.
    fn run(self) -> Result<Identity, ReasonCode> {
        let refused = Err(ReasonCode::BadUserNameOrPassword);
        // Checked when the file was read; a hash that cannot be parsed fits no password.
        let Ok(hash) = PasswordHash::new(&self.hash) else { return refused };
        let fits = Argon2::default().verify_password(&self.password, &hash).is_ok();
        if !(fits && self.exists) {
            return refused;
        }
        // Another hash now means: changed, removed or reloaded while this one was computed.
        if self.shared.hash_of(&self.user).is_none_or(|current| current != self.hash) {
            return refused;
        }
        let cache = &self.shared.cache;
        cache.insert(cache.mac(&self.user, &self.hash, &self.password));
        Ok(self.shared.identity_of(&self.user, &self.hash))
    }
}

impl Drop for PasswordCheck {
    fn drop(&mut self) {
        // So that passwords do not lie about in freed memory for longer than needed.
        self.password.fill(0);
    }
}

#[cfg(test)]
mod tests;
