//! The accounts that operators keep in the store, as they are at this moment.
//!
//! As with tokens, the table follows the store: filled at the start, changed by the shards'
//! effects after each commit.

use std::sync::Arc;

use dashmap::DashMap;
use hoopoe_im::User;
use hoopoe_im::user::account::{Account, SERVICE};

/// The accounts by user.
#[derive(Default)]
pub struct Accounts {
    by_user: DashMap<User, Arc<Account>, foldhash::fast::RandomState>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Accounts").field("count", &self.by_user.len()).finish()
    }
}

impl Accounts {
    /// An account is this from now on, or is gone.
    pub fn put(&self, user: User, account: Option<Arc<Account>>) {
        match account {
            Some(account) => drop(self.by_user.insert(user, account)),
            None => drop(self.by_user.remove(&user)),
        }
    }

    /// The user's account.
    pub fn of(&self, user: &User) -> Option<Arc<Account>> {
        self.by_user.get(user).map(|account| account.clone())
    }

    /// Whether the user is locked out.
    pub fn is_disabled(&self, user: &User) -> bool {
        self.by_user.get(user).is_some_and(|account| account.disabled)
    }

    /// Whether the user is a service account.
    pub fn is_service(&self, user: &User) -> bool {
        let is_service = |account: &Account| account.roles.iter().any(|role| **role == *SERVICE);
        self.by_user.get(user).is_some_and(|account| !account.disabled && is_service(&account))
    }

    /// Whether there is none: then nobody has configured users here.
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// The accounts whose tenant is this and whose user contains `part`, by user, behind `after`:
    /// at most `limit`.
    pub fn search(
        &self,
        tenant: &str,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<(Arc<str>, Arc<Account>)> {
        let mut found: Vec<(Arc<str>, Arc<Account>)> = self
            .by_user
            .iter()
            .filter(|entry| *entry.key().tenant == *tenant && entry.key().id.contains(part))
            .filter(|entry| after.is_none_or(|after| *entry.key().id > *after))
            .map(|entry| (entry.key().id.clone(), entry.value().clone()))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found.truncate(limit);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> User {
        User { tenant: "t".into(), id: id.into() }
    }

    #[test]
    fn accounts_are_found_by_part_and_page() {
        let accounts = Accounts::default();
        assert!(accounts.is_empty());
        for id in ["carol", "alice", "bob", "alina"] {
            accounts.put(user(id), Some(Arc::new(Account::default())));
        }
        let names = |part, after, limit| {
            let found = accounts.search("t", part, after, limit);
            found.into_iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("", None, 9), ["alice", "alina", "bob", "carol"]);
        assert_eq!(names("ali", None, 1), ["alice"]);
        assert_eq!(names("", Some("alina"), 9), ["bob", "carol"]);
        assert!(accounts.search("other", "", None, 9).is_empty());
        accounts.put(user("bob"), None);
        assert_eq!(names("b", None, 9), Vec::<String>::new());
    }

    #[test]
    fn only_an_enabled_service_account_is_one() {
        let accounts = Accounts::default();
        let service = Account { roles: vec![SERVICE.into()], ..Account::default() };
        accounts.put(user("backend"), Some(Arc::new(service.clone())));
        assert!(accounts.is_service(&user("backend")) && !accounts.is_service(&user("bob")));
        let locked = Account { disabled: true, ..service };
        accounts.put(user("backend"), Some(Arc::new(locked)));
        assert!(accounts.is_disabled(&user("backend")) && !accounts.is_service(&user("backend")));
    }
}
