//! Who a connected client is.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use hoopoe_im::id::is_id;
use hoopoe_im::user::token::TokenHash;

/// The tenant of every user until a listener names another.
pub const DEFAULT_TENANT: &str = "default";

/// Held once for all who are of that tenant, and for all who are nobody.
static DEFAULT_NAME: LazyLock<Arc<str>> = LazyLock::new(|| DEFAULT_TENANT.into());
static NOBODY: LazyLock<Arc<str>> = LazyLock::new(|| "".into());

/// How a client became who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginMethod {
    /// It did not say who it is, or nobody could check.
    Anonymous,
    /// By its password.
    Password,
    /// By a token in the place of a password.
    Token,
    /// By its certificate.
    Certificate,
    /// By its word, in development mode (ruling 19).
    Development,
    /// It is a link of this broker's own.
    Bridge,
}

/// Who a client is. Sessions belong to tenant and user: whoever connects as the same two may take
/// them over, however it logged in. An identity is therefore not compared as a whole.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The user; empty for anonymous clients.
    pub user: Arc<str>,
    /// How the user was established.
    pub method: LoginMethod,
    /// Stands for the password that was good; another number after the password changed. It tells
    /// nothing about the password.
    pub(super) password_mark: u64,
    /// The hash of the token that was good.
    pub(super) token: Option<Box<TokenHash>>,
    /// When the token was made, in ms since the epoch; 0 without one.
    pub token_since_ms: u64,
}

impl Identity {
    /// A user of the default tenant.
    pub fn new(user: &str, method: LoginMethod) -> Identity {
        let user = if user.is_empty() { NOBODY.clone() } else { user.into() };
        let tenant = DEFAULT_NAME.clone();
        Identity { tenant, user, method, password_mark: 0, token: None, token_since_ms: 0 }
    }

    /// The user that a login names. With tenants, `acme/alice` is the user alice of the tenant
    /// acme, when both are valid ids.
    pub fn named(login: &str, method: LoginMethod, tenants: bool) -> Identity {
        match login.split_once('/') {
            Some((tenant, user)) if tenants && is_id(tenant) && is_id(user) => {
                Identity { tenant: tenant.into(), ..Identity::new(user, method) }
            }
            _ => Identity::new(login, method),
        }
    }

    /// The name by which the user logs in, and by which rules know it.
    pub fn login_name(&self) -> Cow<'_, str> {
        if *self.tenant == *DEFAULT_TENANT {
            Cow::Borrowed(&self.user)
        } else {
            Cow::Owned([&*self.tenant, "/", &*self.user].concat())
        }
    }

    /// A client that is nobody.
    pub fn anonymous() -> Identity {
        Identity::new("", LoginMethod::Anonymous)
    }

    /// Whether the client is nobody.
    pub fn is_anonymous(&self) -> bool {
        self.user.is_empty()
    }

    /// Whether sessions of one are sessions of the other.
    pub fn same_owner(&self, other: &Identity) -> bool {
        self.tenant == other.tenant && self.user == other.user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_the_same_however_they_logged_in() {
        let password = Identity::new("alice", LoginMethod::Password);
        let certificate = Identity::new("alice", LoginMethod::Certificate);
        assert!(password.same_owner(&certificate));
        assert!(!password.same_owner(&Identity::new("bob", LoginMethod::Password)));
        assert!(!password.same_owner(&Identity::anonymous()));
        let elsewhere = Identity { tenant: "other".into(), ..password.clone() };
        assert!(!password.same_owner(&elsewhere));
    }
}
