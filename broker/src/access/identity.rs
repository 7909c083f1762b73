//! Who a connected client is.

use std::sync::Arc;

/// The tenant of every user until a listener names another.
pub const DEFAULT_TENANT: &str = "default";

/// How a client became who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginMethod {
    /// It did not say who it is, or nobody could check.
    Anonymous,
    /// By its password.
    Password,
    /// By its certificate.
    Certificate,
    /// By its word, in development mode (ruling 19).
    Development,
}

/// The owner of sessions: whoever connects as the same tenant and user may take them over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The user; empty for anonymous clients.
    pub user: Arc<str>,
    /// How the user was established.
    pub method: LoginMethod,
}

impl Identity {
    /// A user of the default tenant.
    pub fn new(user: &str, method: LoginMethod) -> Identity {
        Identity { tenant: DEFAULT_TENANT.into(), user: user.into(), method }
    }

    /// A client that is nobody.
    pub fn anonymous() -> Identity {
        Identity::new("", LoginMethod::Anonymous)
    }

    /// Whether the client is nobody.
    pub fn is_anonymous(&self) -> bool {
        self.user.is_empty()
    }
}
